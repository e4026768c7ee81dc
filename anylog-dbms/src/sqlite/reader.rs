//! Read connections: pooled by file, and ended when their file is dropped or its log grows too long.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use diesel::SqliteConnection;
use parking_lot::Mutex;

use super::connection::{Mode, Place, open};
use super::{failure, rows};
use crate::dbms::Visit;
use crate::{DbmsError, SqlValue};

/// Idle connections that are kept, over all files.
const IDLE: usize = 48;

/// How long a reader of a database in memory tries again while its tables are being changed.
const PATIENCE: Duration = Duration::from_secs(5);

thread_local! {
    /// The reads that run on this thread, the innermost last: what tells them to end, and its value when they began.
    static RUNNING: RefCell<Vec<(Arc<AtomicU64>, u64)>> = const { RefCell::new(Vec::new()) };
}

/// Whether a read on this thread was told to end: its partition was dropped, or it keeps the write-ahead log of its file from
/// being emptied. Who waits inside [`Dbms::query`](crate::Dbms::query)'s `visit` - for a client that takes no more
/// rows - asks from time to time, and stops the read then.
#[must_use]
pub fn told_to_end() -> bool {
    RUNNING.with_borrow(|running| running.iter().any(|(counter, before)| counter.load(Ordering::Acquire) != *before))
}

/// A read of this thread, for as long as it lives.
struct Running;

impl Running {
    fn begin(counter: &Arc<AtomicU64>, before: u64) -> Self {
        RUNNING.with_borrow_mut(|running| running.push((Arc::clone(counter), before)));
        Self
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.with_borrow_mut(Vec::pop);
    }
}

pub(super) struct Readers {
    name: String,
    idle: Mutex<VecDeque<(Place, SqliteConnection)>>,
    // How often the readers of a place were ended; absent: never.
    ended: Mutex<HashMap<Place, Arc<AtomicU64>>>,
}

impl Readers {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), idle: Mutex::default(), ended: Mutex::default() }
    }

    /// Runs `work` on a read connection.
    fn with<T>(
        &self,
        place: &Place,
        work: impl FnOnce(&mut SqliteConnection) -> Result<T, DbmsError>,
    ) -> Result<T, DbmsError> {
        let (counter, before) = self.counter(place);
        let mut connection = self.take(place)?;
        let result = work(&mut connection);
        // A connection to a file that was dropped meanwhile must not be used for its successor.
        if result.is_ok() && counter.load(Ordering::Acquire) == before {
            self.give_back(place, connection);
        }
        result
    }

    /// Runs a SELECT and hands over its rows.
    pub(super) fn select(&self, place: &Place, sql: &str, visit: Visit<'_>) -> Result<(), DbmsError> {
        let (counter, before) = self.counter(place);
        let _running = Running::begin(&counter, before);
        let started = Instant::now();
        loop {
            let mut ended = false;
            let mut visited = false;
            let result = self.with(place, |connection| {
                let mut checked = |names: &[String], row: Vec<SqlValue>| {
                    visited = true;
                    if counter.load(Ordering::Acquire) != before {
                        ended = true;
                        return ControlFlow::Break(());
                    }
                    let flow = visit(names, row);
                    // Who waited in there was told as well, and stopped for that reason.
                    ended = flow.is_break() && counter.load(Ordering::Acquire) != before;
                    flow
                };
                let result = rows::select(connection, sql, &mut checked);
                result.map_err(|error| failure::statement(&self.name, &error))
            });
            let locked = matches!(&result, Err(DbmsError::Statement { reason, .. }) if reason.contains("is locked"));
            if locked && !visited && started.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            }
            let told = counter.load(Ordering::Acquire) != before;
            // A file that was dropped and cut to nothing under its reader looks damaged, or empty.
            if ended || (told && (result.is_err() || (!visited && !place.exists()))) {
                let reason = "the query was ended: its partition was dropped, or it held up the database for too long";
                return Err(DbmsError::Statement { engine: "sqlite".into(), reason: reason.into() });
            }
            return result;
        }
    }

    /// Runs a SELECT with parameters and collects its rows.
    pub(super) fn rows(&self, place: &Place, sql: &str, params: &[SqlValue]) -> Result<Vec<Vec<SqlValue>>, DbmsError> {
        self.with(place, |connection| {
            let rows = rows::collect(connection, rows::Statement { sql, params });
            rows.map_err(|error| failure::statement(&self.name, &error))
        })
    }

    fn counter(&self, place: &Place) -> (Arc<AtomicU64>, u64) {
        let counter = Arc::clone(self.ended.lock().entry(place.clone()).or_default());
        let now = counter.load(Ordering::Acquire);
        (counter, now)
    }

    fn take(&self, place: &Place) -> Result<SqliteConnection, DbmsError> {
        let mut idle = self.idle.lock();
        let found = idle.iter().rposition(|(known, _)| known == place);
        if let Some((_, connection)) = found.and_then(|at| idle.remove(at)) {
            return Ok(connection);
        }
        drop(idle);
        open(&self.name, place, Mode::Read)
    }

    fn give_back(&self, place: &Place, connection: SqliteConnection) {
        let mut idle = self.idle.lock();
        idle.push_back((place.clone(), connection));
        let oldest = if idle.len() > IDLE { idle.pop_front() } else { None };
        drop(idle);
        drop(oldest);
    }

    /// Ends the readers of a place at their next row, and closes its idle connections.
    pub(super) fn end(&self, place: &Place) {
        if let Some(counter) = self.ended.lock().get(place) {
            counter.fetch_add(1, Ordering::AcqRel);
        }
        let mut idle = self.idle.lock();
        let (closing, kept): (VecDeque<_>, VecDeque<_>) = idle.drain(..).partition(|(known, _)| known == place);
        *idle = kept;
        drop(idle);
        drop(closing);
    }

    /// The place is gone for good.
    pub(super) fn forget(&self, place: &Place) {
        if place.file().is_some() {
            self.ended.lock().remove(place);
        }
    }
}

impl std::fmt::Debug for Readers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Readers").field("idle", &self.idle.lock().len()).finish_non_exhaustive()
    }
}
