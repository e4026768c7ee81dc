//! Databases whose server is not reached yet: a node may start before its database server does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Catalog, ConnectRequest, Database};
use crate::{DbmsError, Engine};

/// Between two tries, in the beginning and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(2)];

/// How often who waits looks whether somebody made it end.
const LOOK: Duration = Duration::from_millis(20);

/// A database that is being connected, and whose server is not reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Awaited {
    /// The logical name.
    pub name: String,
    /// The kind of database.
    pub engine: Engine,
    /// `host:port` of the server.
    pub server: String,
    /// Why it was not reached when it was last tried.
    pub reason: String,
    since: Instant,
    id: u64,
}

impl Awaited {
    /// What `get databases` says of it.
    #[must_use]
    pub fn status(&self) -> String {
        format!("Not connected: waiting for the server for {} s: {}", self.since.elapsed().as_secs(), self.reason)
    }
}

impl Catalog {
    /// The databases that are being connected and whose servers are waited for, in the order of their names.
    #[must_use]
    pub fn awaited(&self) -> Vec<Awaited> {
        let mut awaited = self.awaited.lock().clone();
        awaited.sort_by(|one, other| one.name.cmp(&other.name));
        awaited.dedup_by(|one, other| one.name == other.name);
        awaited
    }

    /// Connects, again and again while the server is not reached, as long as the request says.
    pub(super) fn connect_patiently(
        &self,
        request: &ConnectRequest,
        connect: impl Fn() -> Result<Arc<Database>, DbmsError>,
    ) -> Result<Arc<Database>, DbmsError> {
        let since = Instant::now();
        let mut waiting = None;
        let [mut pause, longest] = PAUSES;
        loop {
            let (error, server, reason) = match connect() {
                Err(error @ (DbmsError::NotReached { .. } | DbmsError::Unavailable { .. })) => {
                    let (server, reason) = error.server().unwrap_or_default();
                    (error, server, reason)
                }
                Ok(database) => {
                    if waiting.is_some() {
                        let seconds = since.elapsed().as_secs();
                        tracing::info!(dbms = request.name, seconds, "The server is there: connected");
                    }
                    return Ok(database);
                }
                Err(error) => return Err(error),
            };
            if since.elapsed() >= request.patience || self.node.shutdown.is_cancelled() {
                return Err(error);
            }
            let waiting = waiting.get_or_insert_with(|| {
                tracing::warn!(dbms = request.name, server, reason, "The server is not reached: waiting for it");
                Waiting::begin(self, request, since)
            });
            waiting.note(server, reason);
            let until = Instant::now() + pause.min(request.patience.saturating_sub(since.elapsed()));
            while Instant::now() < until && !self.node.shutdown.is_cancelled() {
                if !waiting.wanted() {
                    return Err(error);
                }
                std::thread::sleep(LOOK.min(until.saturating_duration_since(Instant::now())));
            }
            pause = (pause * 2).min(longest);
        }
    }

    /// Ends the waiting for the server of a database; true when somebody waited.
    pub(super) fn wait_no_more(&self, name: &str) -> bool {
        let mut awaited = self.awaited.lock();
        let before = awaited.len();
        awaited.retain(|known| known.name != name);
        awaited.len() < before
    }
}

/// An entry of the list, for as long as this value lives.
struct Waiting<'a> {
    catalog: &'a Catalog,
    id: u64,
}

impl<'a> Waiting<'a> {
    fn begin(catalog: &'a Catalog, request: &ConnectRequest, since: Instant) -> Self {
        let mut awaited = catalog.awaited.lock();
        let id = awaited.last().map_or(0, |last| last.id + 1);
        let (name, engine) = (request.name.clone(), request.engine);
        awaited.push(Awaited { name, engine, server: String::new(), reason: String::new(), since, id });
        drop(awaited);
        Self { catalog, id }
    }

    fn note(&self, server: String, reason: String) {
        if let Some(own) = self.catalog.awaited.lock().iter_mut().find(|known| known.id == self.id) {
            (own.server, own.reason) = (server, reason);
        }
    }

    /// Whether nobody disconnected it meanwhile.
    fn wanted(&self) -> bool {
        self.catalog.awaited.lock().iter().any(|known| known.id == self.id)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.catalog.awaited.lock().retain(|known| known.id != self.id);
    }
}
