//! Puts rows of several places into one table in memory and runs the last statement over it.
//!
//! Each query has a SQLite database in memory of its own: queries do not wait for each other's writer, and everything that a query
//! took is given back with it.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

use anylog_core::Node;
use anylog_dbms::{Catalog, ConnectRequest, Database, Dbms, Target};
use parking_lot::Mutex;

use super::fold::Folding;
use super::{BATCH_BYTES, BATCH_ROWS, Row, Sink, read, size};
use crate::QueryError;
use crate::plan::{MERGE_TABLE, Merge, MergeColumn};
use crate::sql::expr::quoted_name;

/// The bytes of intermediate rows that all queries of a service may hold together.
pub(crate) const MAX_BYTES: u64 = 256 * 1024 * 1024;

/// The table of intermediate rows.
const TABLE: &str = "query_rows";

/// Numbers the databases over all services of the program: those in memory share their names.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Puts intermediate rows together.
#[derive(Debug)]
pub(crate) struct Merger {
    node: Arc<Node>,
    readers: usize,
    held: Arc<AtomicU64>,
}

impl Merger {
    /// A merger that reads from as many places at a time as the machine has processors.
    pub(crate) fn new(node: Arc<Node>) -> Self {
        let readers = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8);
        Self { node, readers, held: Arc::default() }
    }

    /// Counts the bytes that a query holds; they are given back with it.
    pub(crate) fn held(&self) -> Held {
        Held { own: AtomicU64::new(0), all: Arc::clone(&self.held) }
    }

    /// Runs the statements of all places, some at a time, then puts their rows together.
    pub(crate) fn run(
        &self,
        dbms: &Arc<dyn Dbms>,
        parts: &[(Target, String)],
        merge: &Merge,
        sink: &mut dyn Sink,
    ) -> Result<(), QueryError> {
        let mut merging = Merging::new(self, merge)?;
        self.collect(dbms, parts, &mut merging, sink)?;
        merging.finish(sink)
    }

    fn collect(
        &self,
        dbms: &Arc<dyn Dbms>,
        parts: &[(Target, String)],
        merging: &mut Merging<'_>,
        sink: &mut dyn Sink,
    ) -> Result<(), QueryError> {
        let work = Mutex::new(parts.iter().collect::<VecDeque<_>>());
        let stop = AtomicBool::new(false);
        let (sender, rows) = sync_channel::<Result<Vec<Row>, QueryError>>(self.readers * 2);
        std::thread::scope(|scope| {
            for _ in 0..self.readers.min(parts.len()) {
                let sender = sender.clone();
                let (work, stop) = (&work, &stop);
                scope.spawn(move || reader(dbms, work, stop, &sender));
            }
            drop(sender);
            let mut result = Ok(());
            // Draining to the end lets every reader see the flag and leave.
            for batch in rows {
                if result.is_ok() {
                    result = batch.and_then(|batch| merging.add(batch));
                }
                if result.is_err() || sink.closed() {
                    stop.store(true, Ordering::Relaxed);
                }
            }
            result
        })
    }
}

/// Takes one place after another until none is left.
fn reader(
    dbms: &Arc<dyn Dbms>,
    work: &Mutex<VecDeque<&(Target, String)>>,
    stop: &AtomicBool,
    sender: &SyncSender<Result<Vec<Row>, QueryError>>,
) {
    while !stop.load(Ordering::Relaxed) {
        let next = work.lock().pop_front();
        let Some((target, sql)) = next else { return };
        let mut batch = Vec::new();
        let mut bytes = 0;
        let result = read(dbms, target, sql, &mut |row| {
            bytes += size(&row);
            batch.push(row);
            if batch.len() < BATCH_ROWS && bytes < BATCH_BYTES {
                return ControlFlow::Continue(());
            }
            bytes = 0;
            let sent = sender.send(Ok(std::mem::take(&mut batch)));
            if sent.is_err() || stop.load(Ordering::Relaxed) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        let rest = match result {
            Err(error) => Err(error),
            Ok(()) if batch.is_empty() => continue,
            Ok(()) => Ok(batch),
        };
        let failed = rest.is_err();
        if sender.send(rest).is_err() || failed {
            return;
        }
    }
}

/// Bytes of intermediate rows.
#[derive(Debug)]
pub(crate) struct Held {
    own: AtomicU64,
    all: Arc<AtomicU64>,
}

impl Held {
    /// Takes so many more.
    ///
    /// # Errors
    /// [`QueryError::Volume`] when all queries together hold too many.
    pub(crate) fn take(&self, bytes: u64) -> Result<(), QueryError> {
        self.own.fetch_add(bytes, Ordering::Relaxed);
        if self.all.fetch_add(bytes, Ordering::Relaxed) + bytes > MAX_BYTES {
            return Err(QueryError::Volume { limit: MAX_BYTES });
        }
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.fetch_sub(self.own.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// Intermediate rows that are put together: groups in memory, or a table for an engine.
pub(crate) enum Merging<'a> {
    Groups(Folding<'a>),
    Table(MergeTable, &'a str),
}

impl<'a> Merging<'a> {
    pub(crate) fn new(merger: &Merger, merge: &'a Merge) -> Result<Self, QueryError> {
        Ok(match &merge.fold {
            Some(fold) => Self::Groups(Folding::new(fold, merger.held())),
            None => Self::Table(MergeTable::create(merger, &merge.columns)?, &merge.last),
        })
    }

    /// Adds rows.
    pub(crate) fn add(&mut self, rows: Vec<Row>) -> Result<(), QueryError> {
        match self {
            Self::Groups(groups) => groups.add(rows),
            Self::Table(table, _) => table.insert(&rows),
        }
    }

    /// Hands the rows of the answer over.
    pub(crate) fn finish(self, sink: &mut dyn Sink) -> Result<(), QueryError> {
        match self {
            Self::Groups(groups) => groups.finish(sink),
            Self::Table(table, last) => table.last(last, sink),
        }
    }
}

/// The table of intermediate rows, in a database that ends with it.
pub(crate) struct MergeTable {
    database: Arc<Database>,
    columns: Vec<String>,
    held: Held,
}

impl MergeTable {
    /// An empty table.
    fn create(merger: &Merger, columns: &[MergeColumn]) -> Result<Self, QueryError> {
        let name = format!("query_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let database = Catalog::new(Arc::clone(&merger.node)).connect(ConnectRequest::sqlite_memory(name))?;
        let list: Vec<String> =
            columns.iter().map(|column| format!("{} {}", quoted_name(&column.name), column.declared)).collect();
        database.dbms().execute(&format!("create table {} ({})", quoted_name(TABLE), list.join(", ")))?;
        let columns = columns.iter().map(|column| column.name.clone()).collect();
        Ok(Self { database, columns, held: merger.held() })
    }

    /// Adds rows.
    fn insert(&self, rows: &[Row]) -> Result<(), QueryError> {
        self.held.take(rows.iter().map(|row| size(row) as u64).sum())?;
        Ok(self.database.dbms().apply(&Target::table(TABLE), &self.columns, rows, &[])?)
    }

    /// Runs the last statement over the rows.
    fn last(&self, last: &str, sink: &mut dyn Sink) -> Result<(), QueryError> {
        let sql = last.replace(MERGE_TABLE, &quoted_name(TABLE));
        Ok(self.database.dbms().query(None, &sql, &mut |_, row| sink.row(row))?)
    }
}
