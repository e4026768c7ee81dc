//! Transactions that are filled while the journal writes, and that grow while more rows come.
//!
//! See [`super`] for what this is worth and what it promises.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anylog_dbms::{DbmsError, Growing, Marks, Promise, RowRef, Target, Unseen};

use super::applier::{Applier, Due};
use super::{Arrival, Batch, BatchRow, Frame, row_refs};
use crate::store::Shared;
use crate::tables::TableState;

/// A transaction with so many rows is committed: more would not make it cheaper by the row.
const ROWS: usize = 1000;
/// So is one whose rows take so much memory, for which nobody who sends accounts any more when they are answered, ...
const BYTES: usize = 256 << 10;
/// ... one whose first rows were answered so long ago, ...
const TIME: Duration = Duration::from_millis(10);
/// ... and one whose rows somebody wants to read. When the journal makes the others wait for longer than this, they are left out.
const PATIENCE: Duration = Duration::from_millis(20);

/// Rows that are known to come behind the last are waited for so long.
const COMING: Duration = Duration::from_millis(1);

/// A table as it is now, or one of its partitions.
pub(super) struct Place<'a> {
    table: &'a Arc<TableState>,
    partition: Option<&'a str>,
}

impl Place<'_> {
    pub(super) fn is_of(&self, batch: &Batch) -> bool {
        Arc::ptr_eq(self.table, &batch.table) && self.partition == batch.partition.as_deref()
    }
}

/// Stores batches whose frames are on their way, and what comes for the same place meanwhile. Returns those that are to be stored
/// in due order instead: they go elsewhere, or they are not all to be stored, or something went wrong, which is found again then.
pub(super) fn store(shared: &Shared, applier: &Applier, due: Vec<Due>) -> Vec<Due> {
    let Some(first) = due.first().filter(|_| due.iter().any(is_coming)) else { return due };
    let (table, partition) = (Arc::clone(&first.batch.table), first.batch.partition.clone());
    let dbms = table.database.dbms();
    let Some(unseen) = dbms.unseen() else { return due };
    let place = Place { table: &table, partition: partition.as_deref() };
    let target = Target { table: table.table.clone(), partition: partition.clone() };
    let (grown, elsewhere): (Vec<Due>, Vec<Due>) = due.into_iter().partition(|due| place.is_of(&due.batch));
    let mut growth = Growth {
        shared,
        place,
        target: &target,
        applier,
        unseen,
        grown,
        filled: 0,
        landed: 0,
        promised: 0,
        promise: None,
        rows: 0,
        bytes: 0,
        others_wait: !elsewhere.is_empty(),
        started: Instant::now(),
        waited: Duration::ZERO,
    };
    let stored = dbms.apply_growing(&target, &table.columns, &mut |transaction| growth.fill(transaction));
    let mut left = growth.finish(matches!(stored, Ok(true)));
    left.extend(elsewhere);
    left
}

/// A transaction that grows.
struct Growth<'a> {
    shared: &'a Shared,
    place: Place<'a>,
    target: &'a Target,
    applier: &'a Applier,
    unseen: &'a Unseen,
    /// The batches, in order.
    grown: Vec<Due>,
    /// Of so many the rows are in the transaction, ...
    filled: usize,
    /// ... of so many the frames are written, and the rows are to be stored, ...
    landed: usize,
    /// ... of so many the rows count as stored.
    promised: usize,
    promise: Option<(Promise<'a>, Instant)>,
    rows: usize,
    bytes: usize,
    /// Some came together with rows that go elsewhere.
    others_wait: bool,
    started: Instant,
    waited: Duration,
}

impl Growth<'_> {
    /// Fills the transaction, until nothing more is to come and all frames are written.
    fn fill(&mut self, transaction: &mut dyn Growing) -> Result<bool, DbmsError> {
        loop {
            let (rows, marks) = contents(&self.grown[self.filled..]);
            transaction.store(&rows, marks.all())?;
            drop(rows);
            for BatchRow { text, .. } in self.grown[self.filled..].iter().flat_map(|due| &due.batch.rows) {
                self.rows += 1;
                self.bytes += text.len();
            }
            self.filled = self.grown.len();
            if self.grows() {
                continue;
            }
            if self.landed < self.grown.len() {
                if !self.land() {
                    return Ok(false);
                }
                self.promise();
            } else if !self.waits_for_more() {
                return Ok(true);
            }
        }
    }

    /// Takes what is to be stored next, if it belongs here.
    fn grows(&mut self) -> bool {
        let more = if self.may_grow() { self.applier.more(&self.place) } else { None };
        more.is_some_and(|more| {
            self.grown.extend(more);
            self.promise();
            true
        })
    }

    /// With all frames written, waits for rows that are known to come. Says whether they came.
    fn waits_for_more(&mut self) -> bool {
        self.promise();
        // Who is not answered waits for the end.
        if self.promised < self.grown.len() || !self.may_grow() {
            return false;
        }
        let begun = Instant::now();
        let came = self.applier.wait(COMING) && self.grows();
        self.waited += begun.elapsed();
        came
    }

    fn may_grow(&self) -> bool {
        let small = self.rows < ROWS && self.bytes < BYTES;
        let young = self.promise.as_ref().is_none_or(|(_, since)| since.elapsed() < TIME);
        small && young && !self.others_wait && !self.unseen.is_looked_for()
    }

    /// Waits for the next frame. Says whether all rows whose frames are written by then are to be stored.
    fn land(&mut self) -> bool {
        let begun = Instant::now();
        if let Frame::Coming(landing) = &self.grown[self.landed].batch.frame {
            while !landing.wait_for(PATIENCE) {
                if self.unseen.is_looked_for() {
                    return false;
                }
            }
        }
        self.waited += begun.elapsed();
        while let Some(due) = self.grown.get(self.landed).filter(|due| !is_coming(due)) {
            if !matches!(due.batch.arrival(self.shared), Arrival::Here) {
                return false;
            }
            self.landed += 1;
        }
        true
    }

    /// Rows whose frames are written count as stored when others come behind them, that will be answered when they are committed. So
    /// when all are answered, all are committed.
    fn promise(&mut self) {
        if self.bytes >= BYTES || self.rows > 2 * ROWS {
            return;
        }
        let behind = self.grown.last().is_some_and(|due| due.settled.are_followed());
        let followed = if behind { self.landed } else { self.landed.min(self.grown.len().saturating_sub(1)) };
        if self.promised < followed {
            let begun = || Some((self.unseen.promise(self.target)?, Instant::now()));
            self.promise = self.promise.take().or_else(begun);
            // A database that is being disconnected promises nothing.
            if self.promise.is_none() {
                return;
            }
            self.grown[self.promised..followed].iter_mut().for_each(|due| due.settled.promised());
            self.promised = followed;
        }
    }

    /// Tells what became of the batches, or returns those that are to be stored in due order.
    fn finish(mut self, stored: bool) -> Vec<Due> {
        let (dbms, table) = (&self.place.table.dbms, &self.place.table.table);
        if !stored {
            self.keep_promises();
            return self.grown;
        }
        self.shared.stats.database_works(dbms);
        self.shared.stats.applied(dbms, table, self.started.elapsed().saturating_sub(self.waited));
        drop(self.promise);
        self.grown.into_iter().for_each(|due| due.end(Ok(Vec::new())));
        Vec::new()
    }

    /// Stores what was promised before those who read go on. When that fails too, the rows are stored behind that failure.
    fn keep_promises(&mut self) {
        let promised = self.promised;
        // Their partition may have been dropped meanwhile.
        let here = |due: &&Due| matches!(due.batch.arrival(self.shared), Arrival::Here);
        let (rows, marks) = contents(self.grown[..promised].iter().filter(here));
        let dbms = self.place.table.database.dbms();
        let kept =
            rows.is_empty() || dbms.apply_rows(self.target, &self.place.table.columns, &rows, marks.all()).is_ok();
        drop(rows);
        self.promise = None;
        if kept {
            self.grown.drain(..promised).for_each(|due| due.end(Ok(Vec::new())));
        }
    }
}

fn is_coming(due: &Due) -> bool {
    matches!(&due.batch.frame, Frame::Coming(landing) if landing.is_under_way())
}

/// The rows and the marks of batches.
fn contents<'d>(due: impl IntoIterator<Item = &'d Due>) -> (Vec<RowRef<'d>>, Marks) {
    let (mut rows, mut marks) = (Vec::new(), Marks::default());
    for Due { batch, .. } in due {
        marks.raise(batch.segment.id, batch.mark);
        rows.extend(row_refs(&batch.shared, &batch.values, batch.rows.len()));
    }
    (rows, marks)
}
