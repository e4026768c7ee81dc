//! One connection to a server, used by one thread at a time.

use std::borrow::Cow;
use std::future::Future;
use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{Thread, park, park_timeout};
use std::time::Duration;

use futures_util::TryStreamExt;
use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::AbortHandle;
use tokio_postgres::{Client, Config, Connection};

use super::failure::{self, Failure};
use super::tls::Tls;
use super::values::{Decoded, Param, numbered};
use crate::SqlValue;
use crate::dbms::{Visit, Wanted};

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

/// How often who waits for rows asks whether they are still wanted.
const LOOK: Duration = Duration::from_millis(50);

/// Wakes this thread.
fn waker() -> Waker {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    Waker::from(Arc::new(Unpark(std::thread::current())))
}

/// Waits for a future on this thread.
pub(super) fn wait<F: Future>(future: F) -> F::Output {
    let (waker, mut future) = (waker(), pin!(future));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => park(),
        }
    }
}

/// Waits for a future on this thread as long as it is wanted.
fn wait_while<F: Future>(wanted: Wanted<'_>, future: F) -> Option<F::Output> {
    let (waker, mut future) = (waker(), pin!(future));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return Some(value),
            Poll::Pending => park_timeout(LOOK),
        }
        if !wanted() {
            return None;
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
    tls: Tls,
    runtime: Handle,
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
        let flow = self.each(statement, &|| true, &mut |_, row| {
            rows.push(row);
            ControlFlow::Continue(())
        });
        flow.map(|_| rows)
    }

    /// Runs a statement and hands over its rows as they arrive; breaks when `visit` does, or when they are not wanted any more. The
    /// server may be sending then.
    pub(super) fn each(
        &self,
        statement: &Statement<'_>,
        wanted: Wanted<'_>,
        visit: Visit<'_>,
    ) -> Result<ControlFlow<()>, Failure> {
        let sql =
            if statement.params.is_empty() { Cow::Borrowed(statement.sql) } else { numbered(statement.sql).into() };
        let params = statement.params.iter().map(|value| (Param(value), Param(value).kind()));
        let Some(stream) = wait_while(wanted, self.client.query_typed_raw(&sql, params)) else {
            self.cancel();
            return Ok(ControlFlow::Break(()));
        };
        let mut stream = pin!(stream.map_err(|error| self.failure(&error))?);
        let mut names: Vec<String> = Vec::new();
        loop {
            let Some(row) = wait_while(wanted, stream.try_next()) else {
                self.cancel();
                return Ok(ControlFlow::Break(()));
            };
            let Some(row) = row.map_err(|error| self.failure(&error))? else { return Ok(ControlFlow::Continue(())) };
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
    }

    /// Tells the server that nobody wants what it is at. It hears of that by another connection, and this one does not wait for it.
    fn cancel(&self) {
        let (token, tls) = (self.client.cancel_token(), self.tls.clone());
        self.runtime.spawn(async move {
            let told = match tls {
                Tls::Off => token.cancel_query(tokio_postgres::NoTls).await,
                #[cfg(feature = "postgres-tls")]
                Tls::On(connector) => token.cancel_query(connector).await,
            };
            if let Err(error) = told {
                tracing::debug!(error = failure::chain(&error), "A statement goes on at the server until it notices");
            }
        });
    }
}

async fn connect(config: Config, tls: Tls) -> Result<Link, tokio_postgres::Error> {
    match tls {
        Tls::Off => {
            let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
            Ok(drive(client, connection, tls))
        }
        #[cfg(feature = "postgres-tls")]
        Tls::On(connector) => {
            let (client, connection) = config.connect(connector.clone()).await?;
            Ok(drive(client, connection, Tls::On(connector)))
        }
    }
}

fn drive<S, T>(client: Client, connection: Connection<S, T>, tls: Tls) -> Link
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
    Link { client, task: task.abort_handle(), ended, tls, runtime: Handle::current() }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("closed", &self.is_closed()).finish_non_exhaustive()
    }
}
