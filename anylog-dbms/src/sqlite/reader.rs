//! Read connections: pooled by file, and ended when their file is dropped or its log grows too long.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};

use super::connection::{Place, open_reader};
use super::failure;
use crate::dbms::{Scan, Visit};
use crate::{DbmsError, SqlRef, SqlValue};

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
    idle: Mutex<VecDeque<(Place, Connection)>>,
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
        work: impl FnOnce(&mut Connection) -> Result<T, DbmsError>,
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
        let mut names: Option<Vec<String>> = None;
        self.read(place, sql, &mut |row| {
            let names =
                names.get_or_insert_with(|| row.as_ref().column_names().into_iter().map(str::to_owned).collect());
            let values = (0..names.len()).map(|at| value(row, at)).collect::<rusqlite::Result<_>>()?;
            Ok(visit(names, values))
        })
    }

    /// The same without copies of the values.
    pub(super) fn scan(&self, place: &Place, sql: &str, visit: Scan<'_>) -> Result<(), DbmsError> {
        self.read(place, sql, &mut |row| match row.as_ref().column_count() {
            0..=4 => borrowed::<4>(row, visit),
            5..=16 => borrowed::<16>(row, visit),
            columns => {
                let values: Vec<SqlRef<'_>> =
                    (0..columns).map(|at| row.get_ref(at).map(of)).collect::<rusqlite::Result<_>>()?;
                Ok(visit(&values))
            }
        })
    }

    /// Runs a SELECT until it has no more rows, `each` breaks or the reader is told to end.
    fn read(&self, place: &Place, sql: &str, each: Each<'_>) -> Result<(), DbmsError> {
        let (counter, before) = self.counter(place);
        let _running = Running::begin(&counter, before);
        let told = || counter.load(Ordering::Acquire) != before;
        let started = Instant::now();
        loop {
            let mut ended = false;
            let mut visited = false;
            let result = self.with(place, |connection| {
                let mut run = || -> rusqlite::Result<()> {
                    let mut statement = connection.prepare_cached(sql)?;
                    let mut rows = statement.query(())?;
                    while let Some(row) = rows.next()? {
                        visited = true;
                        ended = told();
                        if ended || each(row)?.is_break() {
                            // Who waited in there was told as well, and stopped for that reason.
                            ended |= told();
                            break;
                        }
                    }
                    Ok(())
                };
                run().map_err(|error| failure::reading(&self.name, &error))
            });
            let locked = matches!(&result, Err(DbmsError::Statement { reason, .. }) if reason.contains("is locked"));
            if locked && !visited && started.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            }
            // A file that was dropped and cut to nothing under its reader looks damaged, or empty.
            if ended || (told() && (result.is_err() || (!visited && !place.exists()))) {
                let reason = "the query was ended: its partition was dropped, or it held up the database for too long";
                return Err(DbmsError::Statement { engine: "sqlite".into(), reason: reason.into() });
            }
            return result;
        }
    }

    /// Runs a SELECT with parameters and collects its rows.
    pub(super) fn rows(&self, place: &Place, sql: &str, params: &[SqlValue]) -> Result<Vec<Vec<SqlValue>>, DbmsError> {
        self.with(place, |connection| {
            let run = || -> rusqlite::Result<Vec<Vec<SqlValue>>> {
                let mut statement = connection.prepare_cached(sql)?;
                let columns = statement.column_count();
                let mut rows = statement.query(rusqlite::params_from_iter(params.iter().map(parameter)))?;
                let mut all = Vec::new();
                while let Some(row) = rows.next()? {
                    all.push((0..columns).map(|at| value(row, at)).collect::<rusqlite::Result<_>>()?);
                }
                Ok(all)
            };
            run().map_err(|error| failure::reading(&self.name, &error))
        })
    }

    fn counter(&self, place: &Place) -> (Arc<AtomicU64>, u64) {
        let counter = Arc::clone(self.ended.lock().entry(place.clone()).or_default());
        let now = counter.load(Ordering::Acquire);
        (counter, now)
    }

    fn take(&self, place: &Place) -> Result<Connection, DbmsError> {
        let mut idle = self.idle.lock();
        let found = idle.iter().rposition(|(known, _)| known == place);
        if let Some((_, connection)) = found.and_then(|at| idle.remove(at)) {
            return Ok(connection);
        }
        drop(idle);
        open_reader(&self.name, place)
    }

    fn give_back(&self, place: &Place, connection: Connection) {
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

/// Takes a row of a SELECT.
type Each<'a> = &'a mut dyn FnMut(&Row<'_>) -> rusqlite::Result<ControlFlow<()>>;

/// Hands over a row of at most `MOST` columns.
fn borrowed<const MOST: usize>(row: &Row<'_>, visit: Scan<'_>) -> rusqlite::Result<ControlFlow<()>> {
    let mut values = [SqlRef::Null; MOST];
    let columns = row.as_ref().column_count().min(MOST);
    for (at, value) in values[..columns].iter_mut().enumerate() {
        *value = of(row.get_ref(at)?);
    }
    Ok(visit(&values[..columns]))
}

fn of(value: ValueRef<'_>) -> SqlRef<'_> {
    match value {
        ValueRef::Null => SqlRef::Null,
        ValueRef::Integer(value) => SqlRef::Int(value),
        ValueRef::Real(value) => SqlRef::Float(value),
        ValueRef::Text(text) => SqlRef::Text(text),
        ValueRef::Blob(bytes) => SqlRef::Blob(bytes),
    }
}

fn value(row: &Row<'_>, at: usize) -> rusqlite::Result<SqlValue> {
    Ok(of(row.get_ref(at)?).to_value())
}

fn parameter(value: &SqlValue) -> rusqlite::types::Value {
    use rusqlite::types::Value;
    match value {
        SqlValue::Null => Value::Null,
        SqlValue::Bool(value) => Value::Integer(i64::from(*value)),
        SqlValue::Int(value) => Value::Integer(*value),
        SqlValue::Float(value) => Value::Real(*value),
        SqlValue::Text(text) => Value::Text(text.clone()),
    }
}

impl std::fmt::Debug for Readers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Readers").field("idle", &self.idle.lock().len()).finish_non_exhaustive()
    }
}
