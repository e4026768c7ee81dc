//! Connecting to a server, and the pool of read connections.

use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection, QueryResult};
use parking_lot::{Condvar, Mutex};

use super::failure;
use super::rows::{Statement, collect};
use crate::schema::ddl::quoted;
use crate::{ConnectRequest, DbmsError, SqlValue};

/// Read connections at a time; a server takes about a hundred in all.
const READERS: usize = 16;

/// Idle read connections that are kept.
const IDLE: usize = 4;

/// The port of a server that names none.
const DEFAULT_PORT: u16 = 5432;

/// A database at a server.
#[derive(Clone)]
pub(super) struct Server {
    name: String,
    ip: String,
    port: u16,
    user: String,
    password: String,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("name", &self.name).field("address", &self.address()).finish_non_exhaustive()
    }
}

impl Server {
    pub(super) fn of(request: &ConnectRequest) -> Self {
        let ip = if request.ip.is_empty() { "127.0.0.1".to_owned() } else { request.ip.clone() };
        Self {
            name: request.name.clone(),
            ip,
            port: request.port.unwrap_or(DEFAULT_PORT),
            user: request.user.clone(),
            password: request.password.clone(),
        }
    }

    pub(super) fn address(&self) -> String {
        format!("{}:{}", self.ip, self.port)
    }

    fn open(&self, database: &str) -> Result<PgConnection, DbmsError> {
        let value = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
        let mut text = format!(
            "host={} port={} dbname={} connect_timeout=10 application_name=anylog",
            value(&self.ip),
            self.port,
            value(database)
        );
        for (key, given) in [("user", &self.user), ("password", &self.password)] {
            if !given.is_empty() {
                text.push_str(&format!(" {key}={}", value(given)));
            }
        }
        let mut connection = PgConnection::establish(&text).map_err(|error| failure::connect(&self.name, error))?;
        connection
            .batch_execute("SET TIME ZONE 'UTC'; SET client_min_messages = warning; SET lc_messages = 'C'")
            .or_else(|_| connection.batch_execute("SET TIME ZONE 'UTC'; SET client_min_messages = warning"))
            .map_err(|error| failure::connect(&self.name, error))?;
        Ok(connection)
    }

    pub(super) fn connect(&self) -> Result<PgConnection, DbmsError> {
        self.open(&self.name)
    }

    /// The server's own database, from which others are made.
    pub(super) fn maintenance(&self) -> Result<PgConnection, DbmsError> {
        self.open("postgres")
    }

    /// Connects, and makes the database first when the server does not have it.
    pub(super) fn connect_or_create(&self) -> Result<PgConnection, DbmsError> {
        let failed = match self.connect() {
            Ok(connection) => return Ok(connection),
            Err(failed) => failed,
        };
        let Ok(mut maintenance) = self.maintenance() else { return Err(failed) };
        let params = [SqlValue::Text(self.name.clone())];
        let sql = "SELECT count(*) FROM pg_database WHERE datname = ?";
        let known = collect(&mut maintenance, Statement { sql, params: &params });
        let known = known.map_err(|error| failure::connect(&self.name, error))?;
        if known != [[SqlValue::Int(0)]] {
            return Err(failed);
        }
        maintenance
            .batch_execute(&format!("CREATE DATABASE {}", quoted(&self.name)))
            .map_err(|error| failure::connect(&self.name, error))?;
        self.connect()
    }
}

struct Connections {
    idle: Vec<PgConnection>,
    used: usize,
}

/// Read connections.
pub(super) struct Pool {
    server: Server,
    connections: Mutex<Connections>,
    returned: Condvar,
}

impl Pool {
    pub(super) fn new(server: Server) -> Self {
        let connections = Mutex::new(Connections { idle: Vec::new(), used: 0 });
        Self { server, connections, returned: Condvar::new() }
    }

    /// Runs `work` on a read connection, and once more on a new one when the first turns out lost before `work` handed
    /// anything on, which it says by setting its second argument.
    pub(super) fn with<T>(
        &self,
        mut work: impl FnMut(&mut PgConnection, &mut bool) -> QueryResult<T>,
    ) -> Result<T, DbmsError> {
        let _turn = self.turn();
        let mut retried = false;
        loop {
            let idle = self.connections.lock().idle.pop();
            let fresh = idle.is_none();
            let mut connection = match idle {
                Some(connection) => connection,
                None => self.reader()?,
            };
            let mut handed_on = false;
            match work(&mut connection, &mut handed_on) {
                Ok(value) => {
                    let mut connections = self.connections.lock();
                    if connections.idle.len() < IDLE {
                        connections.idle.push(connection);
                    }
                    return Ok(value);
                }
                Err(error) if failure::is_lost(&error) && !handed_on && !fresh && !retried => {
                    // Its neighbours were lost with it.
                    self.connections.lock().idle.clear();
                    retried = true;
                }
                Err(error) => return Err(failure::statement(&self.server.name, &error)),
            }
        }
    }

    fn reader(&self) -> Result<PgConnection, DbmsError> {
        let mut connection = self.server.connect()?;
        connection
            .batch_execute("SET default_transaction_read_only = on")
            .map_err(|error| failure::connect(&self.server.name, error))?;
        Ok(connection)
    }

    fn turn(&self) -> Turn<'_> {
        let mut connections = self.connections.lock();
        while connections.used >= READERS {
            self.returned.wait(&mut connections);
        }
        connections.used += 1;
        Turn(self)
    }
}

/// The right to use one read connection.
struct Turn<'a>(&'a Pool);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.connections.lock().used -= 1;
        self.0.returned.notify_one();
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("used", &self.connections.lock().used).finish_non_exhaustive()
    }
}
