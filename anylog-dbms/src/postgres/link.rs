//! One connection to a server, used by one thread at a time.

use std::borrow::Cow;
use std::future::Future;
use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{Thread, park};

use futures_util::TryStreamExt;
use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};
use tokio::task::AbortHandle;
use tokio_postgres::{Client, Config, Connection};

use super::failure::{self, Failure};
use super::tls::Tls;
use super::values::{Decoded, Param, numbered};
use crate::SqlValue;
use crate::dbms::Visit;

/// The threads that move bytes between connections and their servers. Callers block beside them, so a call is possible from any
/// thread, also from one that runs asynchronous tasks.
pub(super) struct Background(Option<Runtime>);

/// Those that run, as long as a database uses them.
static RUNNING: Mutex<Weak<Background>> = Mutex::new(Weak::new());

impl Background {
    /// The threads that run already, or new ones.
    pub(super) fn shared() -> Result<Arc<Self>, Failure> {
        let mut running = RUNNING.lock();
        if let Some(background) = running.upgrade() {
            return Ok(background);
        }
        let runtime = Builder::new_multi_thread().worker_threads(2).thread_name("psql").enable_all().build();
        let background = Arc::new(Self(Some(runtime.map_err(|error| Failure::Broken(error.to_string()))?)));
        *running = Arc::downgrade(&background);
        Ok(background)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // The last holder may be an asynchronous task, which must not wait.
            runtime.shutdown_background();
        }
    }
}

/// Waits for a future on this thread.
pub(super) fn wait<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => park(),
        }
    }
}

/// A statement with a `?` for each parameter; without parameters a `?` stands for itself.
pub(super) struct Statement<'a> {
    pub(super) sql: &'a str,
    pub(super) params: &'a [SqlValue],
}

impl<'a> Statement<'a> {
    /// A statement without parameters.
    pub(super) fn plain(sql: &'a str) -> Self {
        Self { sql, params: &[] }
    }
}

/// Why a connection ended, once it has.
type Ended = Arc<Mutex<Option<String>>>;

/// A connection.
pub(super) struct Link {
    pub(super) client: Client,
    task: AbortHandle,
    ended: Ended,
}

impl Link {
    pub(super) fn open(background: &Background, config: &Config, tls: &Tls) -> Result<Self, Failure> {
        let Some(runtime) = &background.0 else { return Err(Failure::Broken("the node is ending".into())) };
        let (config, tls) = (config.clone(), tls.clone());
        match wait(runtime.spawn(connect(config, tls))) {
            Ok(Ok(link)) => Ok(link),
            Ok(Err(error)) => Err(Failure::of(&error, || None)),
            Err(error) => Err(Failure::Broken(error.to_string())),
        }
    }

    /// Whether the server is known to be gone.
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Why it is, when it is.
    pub(super) fn ended(&self) -> Option<String> {
        self.ended.lock().clone()
    }

    pub(super) fn failure(&self, error: &tokio_postgres::Error) -> Failure {
        Failure::of(error, || self.ended())
    }

    /// Ends the connection at once, also when the server is sending rows.
    pub(super) fn cut(self) {
        self.task.abort();
    }

    /// Runs statements, in one transaction.
    pub(super) fn batch(&self, sql: &str) -> Result<(), Failure> {
        wait(self.client.batch_execute(sql)).map_err(|error| self.failure(&error))
    }

    /// Runs a statement and says how many rows it changed.
    pub(super) fn changed(&self, sql: &str) -> Result<u64, Failure> {
        wait(self.client.execute_typed(sql, &[])).map_err(|error| self.failure(&error))
    }

    /// Runs a statement and collects the rows that it returns.
    pub(super) fn rows(&self, statement: &Statement<'_>) -> Result<Vec<Vec<SqlValue>>, Failure> {
        let mut rows = Vec::new();
        let flow = self.each(statement, &mut |_, row| {
            rows.push(row);
            ControlFlow::Continue(())
        });
        flow.map(|_| rows)
    }

    /// Runs a statement and hands over its rows as they arrive; breaks when `visit` does. The server may be sending then.
    pub(super) fn each(&self, statement: &Statement<'_>, visit: Visit<'_>) -> Result<ControlFlow<()>, Failure> {
        let sql =
            if statement.params.is_empty() { Cow::Borrowed(statement.sql) } else { numbered(statement.sql).into() };
        let params = statement.params.iter().map(|value| (Param(value), Param(value).kind()));
        let stream = wait(self.client.query_typed_raw(&sql, params)).map_err(|error| self.failure(&error))?;
        let mut stream = pin!(stream);
        let mut names: Vec<String> = Vec::new();
        while let Some(row) = wait(stream.try_next()).map_err(|error| self.failure(&error))? {
            if names.is_empty() {
                names = row.columns().iter().map(|column| column.name().to_owned()).collect();
            }
            let value = |at| row.try_get::<_, Decoded>(at).map(|decoded| decoded.0);
            let values = (0..row.len()).map(value).collect::<Result<Vec<SqlValue>, _>>();
            let values = values.map_err(|error| Failure::Value(failure::chain(&error)))?;
            if visit(&names, values).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

async fn connect(config: Config, tls: Tls) -> Result<Link, tokio_postgres::Error> {
    match tls {
        Tls::Off => {
            let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
            Ok(drive(client, connection))
        }
        #[cfg(feature = "postgres-tls")]
        Tls::On(connector) => {
            let (client, connection) = config.connect(connector).await?;
            Ok(drive(client, connection))
        }
    }
}

fn drive<S, T>(client: Client, connection: Connection<S, T>) -> Link
where
    Connection<S, T>: Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static,
{
    let ended = Ended::default();
    let own = Arc::clone(&ended);
    let task = tokio::spawn(async move {
        let mut connection = pin!(connection);
        if let Err(error) = connection.as_mut().await {
            *own.lock() = Some(failure::chain(&error));
        }
    });
    Link { client, task: task.abort_handle(), ended }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("closed", &self.is_closed()).finish_non_exhaustive()
    }
}
