//! Reads places side by side and puts their rows together: in groups, or in a table of their own for the last statement.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};

use anylog_core::Node;
use anylog_dbms::{Dbms, Engine, Target};
use parking_lot::Mutex;

use super::fold::Folding;
use super::gather::Gather;
use super::table::MergeTable;
use super::{BATCH_BYTES, BATCH_ROWS, LOOK, Row, Sink, is_dropped, read_part, size};
use crate::QueryError;
use crate::plan::{Fold, Merge};

/// The bytes of intermediate rows that all queries of a service may hold together.
pub(crate) const MAX_BYTES: u64 = 256 * 1024 * 1024;

/// Puts intermediate rows together.
#[derive(Debug)]
pub(crate) struct Merger {
    pub(super) node: Arc<Node>,
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
        let gather = Gather::of(&merge.part).filter(|_| dbms.engine() == Engine::Sqlite);
        let reading = Reading::new(dbms, parts, gather.as_ref());
        self.collect(&reading, &|| sink.closed(), &mut |rows| merging.add(0, rows).map(ControlFlow::Continue))?;
        merging.complete(0)?;
        merging.finish(sink)
    }

    /// Groups the rows of one place while they are read; false when its engine has to do it.
    pub(crate) fn group(
        &self,
        dbms: &Arc<dyn Dbms>,
        target: &Target,
        merge: &Merge,
        sink: &mut dyn Sink,
    ) -> Result<bool, QueryError> {
        let gather = Gather::of(&merge.part).filter(|_| dbms.engine() == Engine::Sqlite);
        let (Some(gather), Some(fold)) = (gather, &merge.fold) else { return Ok(false) };
        let mut groups = Vec::new();
        let done = gather.read(dbms, target, &|| sink.closed(), &mut |row| {
            groups.push(row);
            ControlFlow::Continue(())
        })?;
        if done {
            let mut folding = Folding::new(fold, self.held());
            folding.add(groups)?;
            folding.finish(sink)?;
        }
        Ok(done)
    }

    /// Runs the statements of all places, some at a time, and hands their rows over as they come.
    pub(crate) fn pass(
        &self,
        dbms: &Arc<dyn Dbms>,
        parts: &[(Target, String)],
        sink: &mut dyn Sink,
    ) -> Result<(), QueryError> {
        let wanted = sink.wanted();
        self.collect(&Reading::new(dbms, parts, None), &|| !wanted(), &mut |rows| Ok(sink.rows(rows)))
    }

    fn collect(
        &self,
        reading: &Reading<'_>,
        closed: &dyn Fn() -> bool,
        take: &mut dyn FnMut(Vec<Row>) -> Result<ControlFlow<()>, QueryError>,
    ) -> Result<(), QueryError> {
        let (sender, rows) = sync_channel::<Result<Vec<Row>, QueryError>>(self.readers * 2);
        std::thread::scope(|scope| {
            for _ in 0..self.readers.min(reading.work.lock().len()) {
                let sender = sender.clone();
                scope.spawn(move || reading.run(&sender));
            }
            drop(sender);
            let mut result = Ok(ControlFlow::Continue(()));
            // Draining to the end lets every reader see the flag and leave.
            loop {
                match rows.recv_timeout(LOOK) {
                    Ok(batch) if matches!(result, Ok(ControlFlow::Continue(()))) => result = batch.and_then(&mut *take),
                    Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => break,
                }
                if !matches!(result, Ok(ControlFlow::Continue(()))) || closed() {
                    reading.stop.store(true, Ordering::Relaxed);
                }
            }
            result.map(|_| ())
        })
    }
}

/// What the readers of a query share.
struct Reading<'a> {
    dbms: &'a Arc<dyn Dbms>,
    work: Mutex<VecDeque<&'a (Target, String)>>,
    gather: Option<&'a Gather>,
    /// A place could not be grouped while it was read, so others will not be tried.
    engine_groups: AtomicBool,
    stop: AtomicBool,
}

impl<'a> Reading<'a> {
    fn new(dbms: &'a Arc<dyn Dbms>, parts: &'a [(Target, String)], gather: Option<&'a Gather>) -> Self {
        let engine_groups = AtomicBool::new(gather.is_none());
        Self { dbms, work: Mutex::new(parts.iter().collect()), gather, engine_groups, stop: AtomicBool::new(false) }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Takes one place after another until none is left.
    fn run(&self, sender: &SyncSender<Result<Vec<Row>, QueryError>>) {
        while !self.stopped() {
            let next = self.work.lock().pop_front();
            let Some((target, sql)) = next else { return };
            let mut batch = Vec::new();
            let mut bytes = 0;
            let result = self.place(target, sql, &mut |row| {
                bytes += size(&row);
                batch.push(row);
                if batch.len() < BATCH_ROWS && bytes < BATCH_BYTES {
                    return ControlFlow::Continue(());
                }
                bytes = 0;
                let sent = sender.send(Ok(std::mem::take(&mut batch)));
                if sent.is_err() || self.stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
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

    /// The rows that the statement of a place gives.
    fn place(
        &self,
        target: &Target,
        sql: &str,
        take: &mut dyn FnMut(Row) -> ControlFlow<()>,
    ) -> Result<(), QueryError> {
        if let Some(gather) = self.gather
            && !self.engine_groups.load(Ordering::Relaxed)
        {
            match gather.read(self.dbms, target, &|| self.stopped(), take) {
                Ok(false) => {}
                Err(error) if is_dropped(target, &error) => return Ok(()),
                result => return result.map(|_| ()),
            }
            self.engine_groups.store(true, Ordering::Relaxed);
        }
        read_part(self.dbms, target, sql, &|| !self.stopped(), take)
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

/// Intermediate rows that are put together: groups in memory, or a table for an engine. They come in numbered parts: the rows of a
/// part count once it is complete, and until then they can be forgotten.
pub(crate) enum Merging<'a> {
    Groups { merger: &'a Merger, fold: &'a Fold, whole: Folding<'a>, parts: BTreeMap<usize, Folding<'a>> },
    Table { table: MergeTable, last: &'a str },
}

impl<'a> Merging<'a> {
    pub(crate) fn new(merger: &'a Merger, merge: &'a Merge) -> Result<Self, QueryError> {
        Ok(match &merge.fold {
            Some(fold) => {
                Self::Groups { merger, fold, whole: Folding::new(fold, merger.held()), parts: BTreeMap::new() }
            }
            None => Self::Table { table: MergeTable::create(merger, &merge.columns)?, last: &merge.last },
        })
    }

    /// Adds rows of a part.
    pub(crate) fn add(&mut self, part: usize, rows: Vec<Row>) -> Result<(), QueryError> {
        match self {
            Self::Groups { merger, fold, parts, .. } => {
                parts.entry(part).or_insert_with(|| Folding::new(fold, merger.held())).add(rows)
            }
            Self::Table { table, .. } => table.insert(part, rows),
        }
    }

    /// Drops what came of a part.
    pub(crate) fn forget(&mut self, part: usize) -> Result<(), QueryError> {
        match self {
            Self::Groups { parts, .. } => {
                parts.remove(&part);
                Ok(())
            }
            Self::Table { table, .. } => table.forget(part),
        }
    }

    /// All rows of a part came.
    pub(crate) fn complete(&mut self, part: usize) -> Result<(), QueryError> {
        match self {
            Self::Groups { whole, parts, .. } => parts.remove(&part).map_or(Ok(()), |part| whole.absorb(part)),
            Self::Table { .. } => Ok(()),
        }
    }

    /// Hands the rows of the answer over. All parts are complete, or forgotten.
    pub(crate) fn finish(self, sink: &mut dyn Sink) -> Result<(), QueryError> {
        match self {
            Self::Groups { whole, .. } => whole.finish(sink),
            Self::Table { table, last } => table.last(last, sink),
        }
    }
}
