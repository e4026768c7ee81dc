//! Read connections: made on demand, a bounded number at a time, some kept.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::connection::Server;
use super::failure::{self, Failure, unavailable};
use super::link::Link;
use crate::DbmsError;

/// Read connections at a time; a server takes about a hundred in all.
const READERS: usize = 16;

/// Idle read connections that are kept.
const IDLE: usize = 4;

/// How long a read waits for its turn.
const PATIENCE: Duration = Duration::from_secs(30);

/// The code of a statement that did not come to its end because somebody, or its time limit, ended it.
const CANCELED: &str = "57014";

#[derive(Default)]
struct Connections {
    idle: Vec<Link>,
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
        Self { server, connections: Mutex::default(), returned: Condvar::new() }
    }

    /// Runs `work` on a read connection, and once more on a new one when the first turns out broken before `work` handed
    /// anything on, which it says by setting its second argument. `work` says whether it left the server sending.
    pub(super) fn with<T>(
        &self,
        mut work: impl FnMut(&Link, &mut bool) -> Result<(T, ControlFlow<()>), Failure>,
    ) -> Result<T, DbmsError> {
        let _turn = self.turn()?;
        let mut retried = false;
        loop {
            let (link, fresh) = match self.idle() {
                Some(link) => (link, false),
                None => (self.server.reader()?, true),
            };
            let mut handed_on = false;
            match work(&link, &mut handed_on) {
                Ok((value, flow)) => {
                    if flow.is_break() {
                        link.cut();
                    } else {
                        self.give_back(link);
                    }
                    return Ok(value);
                }
                Err(Failure::Broken(_)) if !handed_on && !fresh && !retried => {
                    // Its neighbours broke with it.
                    self.connections.lock().idle.clear();
                    retried = true;
                }
                Err(failure) => {
                    match &failure {
                        Failure::Server(_) => self.give_back(link),
                        _ => link.cut(),
                    }
                    return Err(self.error(failure));
                }
            }
        }
    }

    fn error(&self, failure: Failure) -> DbmsError {
        match failure {
            // Of a statement that reads: its time was over, or somebody at the server canceled it. Another try is no better.
            Failure::Server(error) if error.code().code() == CANCELED => DbmsError::Statement {
                engine: "psql".into(),
                reason: format!(
                    "{}; when it took too long, narrow it, or give it more time: connect dbms .. where .. statement_timeout = 1 hour",
                    failure::words(&error)
                ),
            },
            failure => failure.statement(self.server.name(), self.server.address()),
        }
    }

    fn idle(&self) -> Option<Link> {
        let mut connections = self.connections.lock();
        while let Some(link) = connections.idle.pop() {
            if !link.is_closed() {
                return Some(link);
            }
        }
        None
    }

    fn give_back(&self, link: Link) {
        let mut connections = self.connections.lock();
        if connections.idle.len() < IDLE {
            connections.idle.push(link);
        }
    }

    fn turn(&self) -> Result<Turn<'_>, DbmsError> {
        let deadline = Instant::now() + PATIENCE;
        let mut connections = self.connections.lock();
        while connections.used >= READERS {
            if self.returned.wait_until(&mut connections, deadline).timed_out() {
                let reason = format!("{READERS} queries have been running for {} s", PATIENCE.as_secs());
                return Err(unavailable(self.server.name(), self.server.address(), reason));
            }
        }
        connections.used += 1;
        Ok(Turn(self))
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
