//! Where a database is, and connecting to it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio_postgres::Config;

use super::failure::{Failure, unavailable};
use super::link::{Background, Link, Statement};
use super::options::Options;
use super::tls::Tls;
use crate::schema::ddl::quoted;
use crate::{ConnectRequest, DbmsError, SqlValue};

/// The port of a server that names none.
const DEFAULT_PORT: u16 = 5432;

/// How long a server may take to answer a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A server that says nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(30);

/// What every connection is told first: times in UTC, texts of times as ISO.
const SETTINGS: &str = "SET TIME ZONE 'UTC'; SET DateStyle = 'ISO'; SET client_min_messages = warning";

/// A statement whose connection was cut ends soon, also while it sorts; servers before version 14 do not know the setting.
const NOTICE_CUTS: &str =
    "SELECT set_config(name, '5s', false) FROM pg_settings WHERE name = 'client_connection_check_interval'";

/// How long a statement that reads may take when neither the request nor the server says: nobody waits for it any more.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(600);

/// Sets the time that statements may take.
fn limit(asked: Option<Duration>) -> String {
    match asked {
        Some(limit) => format!("SET statement_timeout = {}", limit.as_millis().min(i32::MAX as u128)),
        None => format!(
            "SELECT set_config('statement_timeout', '{}', false) WHERE current_setting('statement_timeout') = '0'",
            STATEMENT_TIMEOUT.as_millis()
        ),
    }
}

/// A database at a server.
#[derive(Clone)]
pub(super) struct Server {
    name: String,
    database: String,
    address: String,
    config: Config,
    tls: Tls,
    /// What a connection that reads is told about the time of its statements.
    limit: String,
    background: Arc<Background>,
    trouble: Arc<Mutex<Option<Trouble>>>,
}

/// Since when, and why, the server is not reached.
struct Trouble {
    since: Instant,
    reason: String,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("name", &self.name).field("address", &self.address).finish_non_exhaustive()
    }
}

impl Server {
    pub(super) fn of(request: &ConnectRequest) -> Result<Self, DbmsError> {
        let wrong = |reason: String| DbmsError::Declaration { reason };
        let mut options = Options::parse(&request.connection).map_err(wrong)?;
        let given = [("host", &request.ip), ("user", &request.user), ("password", &request.password)];
        for (key, value) in given {
            if !value.is_empty() {
                options.set(key, value);
            }
        }
        if let Some(port) = request.port {
            options.set("port", &port.to_string());
        }
        options.set_default("host", "127.0.0.1");
        options.set_default("port", &DEFAULT_PORT.to_string());
        options.set_default("dbname", &request.name);
        options.set_default("application_name", "anylog");
        let tls = Tls::of(&mut options).map_err(wrong)?;
        let mut config: Config = options.text().parse().map_err(|error| {
            wrong(format!("the connection of database '{}': {}", request.name, super::failure::chain(&error)))
        })?;
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(SILENCE).keepalives_idle(SILENCE);
        }
        tls.prepare(&mut config);
        let part = |key| options.get(key).unwrap_or_default();
        Ok(Self {
            name: request.name.clone(),
            database: part("dbname").to_owned(),
            address: format!("{}:{}", part("host"), part("port")),
            config,
            tls,
            limit: limit(request.statement_timeout),
            background: Background::shared().map_err(|failure| failure.connect(&request.name, "-"))?,
            trouble: Arc::default(),
        })
    }

    /// The logical name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The database's name at the server.
    pub(super) fn database(&self) -> &str {
        &self.database
    }

    /// `host:port`.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Whether the server was reached when it was last asked, as `get databases` says it.
    pub(super) fn trouble(&self) -> Option<String> {
        let trouble = self.trouble.lock();
        let Trouble { since, reason } = trouble.as_ref()?;
        Some(format!("Not reached for {} s, connecting again: {reason}", since.elapsed().as_secs()))
    }

    fn open(&self, database: &str, settings: &str) -> Result<Link, Failure> {
        let mut config = self.config.clone();
        config.dbname(database);
        let link = Link::open(&self.background, &config, &self.tls)?;
        link.batch(settings)?;
        Ok(link)
    }

    /// A connection of a database that was there before.
    fn again(&self, settings: &str) -> Result<Link, DbmsError> {
        match self.open(&self.database, settings) {
            Ok(link) => {
                if let Some(trouble) = self.trouble.lock().take() {
                    let seconds = trouble.since.elapsed().as_secs();
                    tracing::info!(dbms = self.name, server = self.address, seconds, "Connected again");
                }
                Ok(link)
            }
            Err(failure) => {
                let reason = match failure {
                    Failure::Server(error) => super::failure::words(&error),
                    Failure::Broken(reason) | Failure::Value(reason) | Failure::Row { reason, .. } => reason,
                };
                self.is_away(&reason);
                Err(unavailable(&self.name, &self.address, reason))
            }
        }
    }

    /// Notes that the server is not reached.
    pub(super) fn is_away(&self, reason: &str) {
        let mut trouble = self.trouble.lock();
        match trouble.as_mut() {
            Some(trouble) => reason.clone_into(&mut trouble.reason),
            None => {
                tracing::warn!(dbms = self.name, server = self.address, reason, "The server is not reached");
                *trouble = Some(Trouble { since: Instant::now(), reason: reason.to_owned() });
            }
        }
    }

    /// A connection that may change the database.
    pub(super) fn writer(&self) -> Result<Link, DbmsError> {
        self.again(SETTINGS)
    }

    /// A connection that may not.
    pub(super) fn reader(&self) -> Result<Link, DbmsError> {
        self.again(&format!("{SETTINGS}; SET default_transaction_read_only = on; {NOTICE_CUTS}; {}", self.limit))
    }

    /// The server's own database, from which others are made.
    pub(super) fn maintenance(&self) -> Result<Link, DbmsError> {
        self.open("postgres", SETTINGS).map_err(|failure| failure.connect(&self.name, &self.address))
    }

    /// Connects, and makes the database first when the server does not have it.
    pub(super) fn connect_or_create(&self) -> Result<Link, DbmsError> {
        let failed = match self.open(&self.database, SETTINGS) {
            Ok(link) => return Ok(link),
            Err(failure) => failure,
        };
        if let Some(reason) = failed.not_reached() {
            let (name, server, reason) = (self.name.clone(), self.address.clone(), reason.to_owned());
            return Err(DbmsError::NotReached { name, server, reason });
        }
        let failed = failed.connect(&self.name, &self.address);
        let Ok(maintenance) = self.maintenance() else { return Err(failed) };
        let params = [SqlValue::Text(self.database.clone())];
        let statement = Statement { sql: "SELECT count(*) FROM pg_database WHERE datname = ?", params: &params };
        let wrong = |failure: Failure| failure.connect(&self.name, &self.address);
        if maintenance.rows(&statement).map_err(wrong)? != [[SqlValue::Int(0)]] {
            return Err(failed);
        }
        match maintenance.batch(&format!("CREATE DATABASE {}", quoted(&self.database))) {
            // Another node made it at the same moment.
            Err(failure) if matches!(failure.code(), "42P04" | "23505") => {}
            other => other.map_err(wrong)?,
        }
        self.open(&self.database, SETTINGS).map_err(wrong)
    }
}
