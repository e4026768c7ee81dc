//! The applying thread of a database, and what waits for it.
//!
//! Rows of an immediate segment are waited for, so they are stored at once. Those of a buffered segment are acknowledged when they
//! are in the journal; they stay in memory, as values, until enough of them came together to be worth a transaction, or until
//! their segment is sealed. So under load both kinds of segments are stored while they fill, and nothing is parsed twice. How
//! much may stay is bounded by [`Kept`]; a segment whose rows found no room is stored from the journal when it is sealed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use anylog_dbms::DbmsError;
use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::growth::{self, Place};
use super::{Batch, Frame, Refusal, gone};
use crate::segments::Segment;
use crate::store::Shared;

/// Rows that one transaction takes at most, save that a larger batch is stored whole.
const TRANSACTION_ROWS: usize = 50_000;
/// Bytes of rows that nobody waits for at which they are stored.
const COMPANY_BYTES: usize = 3 << 19;
/// Bytes that rows of buffered segments may take in memory behind their acknowledgement.
pub(crate) const KEPT_LIMIT: usize = 5 << 20;
/// How long a sender waits for a database that falls behind, before rows are left to the seal.
const PATIENCE: Duration = Duration::from_millis(300);

/// Who is told what becomes of a batch.
pub(crate) trait Waiting: Send {
    /// From now on the rows count as stored once their frame is: they are before the next reader comes, whatever becomes of their
    /// transaction. [`Self::settled`] follows.
    fn promised(&mut self) {}

    /// Whether more rows of the same kind are known to come.
    fn are_followed(&self) -> bool {
        false
    }

    /// The batch is settled, or will not be. Not said of one whose frame the thread found lost: it counts as arrived in its segment, and
    /// its sender hears of it from the journal.
    fn settled(self: Box<Self>, result: Result<Vec<Refusal>, DbmsError>);
}

impl<F: FnOnce(Result<Vec<Refusal>, DbmsError>) + Send> Waiting for F {
    fn settled(self: Box<Self>, result: Result<Vec<Refusal>, DbmsError>) {
        self(result);
    }
}

pub(crate) type Settled = Box<dyn Waiting>;

/// A batch on its way.
struct Work {
    batch: Batch,
    /// What it takes in memory, when nobody waits for it.
    bytes: usize,
    segment: Arc<Segment>,
    settled: Settled,
}

impl Work {
    /// Whether the journal has not begun to write its frame.
    fn is_waiting(&self) -> bool {
        matches!(&self.batch.frame, Frame::Coming(landing) if landing.is_waiting())
    }
}

#[derive(Default)]
struct Queue {
    /// Somebody waits for these.
    awaited: VecDeque<Work>,
    /// Nobody waits for these.
    kept: VecDeque<Work>,
    kept_bytes: usize,
    /// All that is kept now is to be stored.
    urged: bool,
    /// Whose turn it is when both are to be stored.
    kept_next: bool,
    closed: bool,
}

impl Queue {
    /// Whether it is time for what nobody waits for.
    fn is_kept_due(&self) -> bool {
        !self.kept.is_empty() && (self.urged || self.kept_bytes >= COMPANY_BYTES) && !self.closed
    }

    /// What is to be stored next, and whether it is waited for.
    fn next(&mut self) -> Option<(Vec<Work>, bool)> {
        let from_kept = self.is_kept_due() && (self.kept_next || self.awaited.is_empty());
        self.kept_next = !from_kept;
        let taken = take(if from_kept { &mut self.kept } else { &mut self.awaited });
        if from_kept {
            self.kept_bytes = self.kept_bytes.saturating_sub(taken.iter().map(|work| work.bytes).sum::<usize>());
            self.urged &= !self.kept.is_empty();
        }
        (!taken.is_empty()).then_some((taken, !from_kept))
    }
}

fn take(works: &mut VecDeque<Work>) -> Vec<Work> {
    let together = together(works);
    works.drain(..together).collect()
}

fn together(works: &VecDeque<Work>) -> usize {
    count_together(works.iter().map(|work| (work.batch.rows.len(), work.is_waiting())))
}

/// How many batches are stored together, of those that wait; of each the rows, and whether the journal has not begun to write its
/// frame. What the journal is writing, or has written, does not wait for what it writes next.
fn count_together(batches: impl Iterator<Item = (usize, bool)>) -> usize {
    let (mut taken, mut rows, mut begun) = (0, 0, false);
    for (more, waiting) in batches {
        rows += more;
        if taken > 0 && (rows > TRANSACTION_ROWS || (waiting && begun)) {
            break;
        }
        taken += 1;
        begun |= !waiting;
    }
    taken
}

/// The applying thread of one logical database.
pub(crate) struct Applier {
    queue: Mutex<Queue>,
    arrived: Condvar,
}

impl Applier {
    pub(crate) fn start(dbms: &str, shared: Arc<Shared>) -> std::io::Result<Arc<Self>> {
        let applier = Arc::new(Self { queue: Mutex::default(), arrived: Condvar::new() });
        let own = Arc::clone(&applier);
        std::thread::Builder::new().name(format!("apply {dbms}")).spawn(move || {
            while let Some((works, awaited)) = own.take() {
                own.store(&shared, works, awaited);
            }
            // They are in the journal; the next start stores them.
            let left = std::mem::take(&mut own.queue.lock().kept);
            left.into_iter().for_each(|work| work.settled.settled(Err(closed())));
        })?;
        Ok(applier)
    }

    /// Hands over a batch that is to be stored at once.
    pub(crate) fn submit(&self, batch: Batch, segment: Arc<Segment>, settled: Settled) {
        self.put(Work { batch, bytes: 0, segment, settled }, |queue, work| queue.awaited.push_back(work));
    }

    /// Hands over a batch that takes so many bytes and may wait for company.
    pub(crate) fn keep(&self, batch: Batch, bytes: usize, segment: Arc<Segment>, settled: Settled) {
        self.put(Work { batch, bytes, segment, settled }, |queue, work| {
            queue.kept_bytes += bytes;
            queue.kept.push_back(work);
        });
    }

    fn put(&self, work: Work, push: impl FnOnce(&mut Queue, Work)) {
        let mut queue = self.queue.lock();
        if queue.closed {
            drop(queue);
            return work.settled.settled(Err(closed()));
        }
        push(&mut queue, work);
        drop(queue);
        self.arrived.notify_one();
    }

    /// Stores all that is kept now.
    pub(crate) fn urge(&self) {
        let mut queue = self.queue.lock();
        queue.urged = !queue.kept.is_empty();
        drop(queue);
        self.arrived.notify_one();
    }

    /// Rows that are waited for.
    pub(crate) fn waiting(&self) -> u64 {
        self.queue.lock().awaited.iter().map(|work| work.batch.rows.len() as u64).sum()
    }

    pub(crate) fn close(&self) {
        self.queue.lock().closed = true;
        self.arrived.notify_one();
    }

    fn store(&self, shared: &Shared, works: Vec<Work>, awaited: bool) {
        let due: Vec<Due> = works.into_iter().filter_map(|work| Due::of(shared, work, awaited)).collect();
        let due = if awaited { growth::store(shared, self, due) } else { due };
        let (batches, settling): (Vec<_>, Vec<_>) = due.into_iter().map(Due::untied).unzip();
        for (result, settling) in super::store(shared, batches, awaited).into_iter().zip(settling) {
            settling.end(result);
        }
    }

    /// Waits for something that somebody waits for, not longer than this. Says whether it is there.
    pub(super) fn wait(&self, time: Duration) -> bool {
        let mut queue = self.queue.lock();
        if queue.awaited.is_empty() && !queue.is_kept_due() && !queue.closed {
            self.arrived.wait_for(&mut queue, time);
        }
        !queue.awaited.is_empty()
    }

    /// What is to be stored next, if all of it goes to this place. What is left to the seal waits for its frame before that is said, so
    /// not while a transaction is open.
    pub(super) fn more(&self, place: &Place<'_>) -> Option<Vec<Due>> {
        let mut queue = self.queue.lock();
        if queue.closed || queue.is_kept_due() || queue.awaited.is_empty() {
            return None;
        }
        let together = together(&queue.awaited);
        let fits = |work: &Work| place.is_of(&work.batch) && !work.segment.is_left();
        if !queue.awaited.iter().take(together).all(fits) {
            return None;
        }
        let due = |Work { batch, segment, settled, .. }| Due { batch, segment, settled };
        Some(queue.awaited.drain(..together).map(due).collect())
    }

    fn take(&self) -> Option<(Vec<Work>, bool)> {
        let mut queue = self.queue.lock();
        loop {
            if let Some(works) = queue.next() {
                return Some(works);
            }
            if queue.closed {
                return None;
            }
            self.arrived.wait(&mut queue);
        }
    }
}

fn closed() -> DbmsError {
    DbmsError::Statement { engine: "operator".into(), reason: "the node is ending".into() }
}

/// A batch that is to be stored, and who is told.
pub(super) struct Due {
    pub(super) batch: Batch,
    segment: Arc<Segment>,
    pub(super) settled: Settled,
}

impl Due {
    /// The same, unless its segment lost an earlier one: a mark must not pass over rows that are not stored. A database that fails is
    /// waited for only with rows that are waited for: the others are in the journal, and need not take memory meanwhile.
    fn of(shared: &Shared, work: Work, awaited: bool) -> Option<Self> {
        let Work { batch, segment, settled, .. } = work;
        let behind = segment.is_left().then(|| DbmsError::Statement {
            engine: "operator".into(),
            reason: "earlier rows could not be stored; these follow them when their segment is sealed".into(),
        });
        // Rows that are waited for may finish with a database that was disconnected meanwhile; those that were kept for a while may not.
        let lost = behind.or_else(|| if awaited { None } else { gone(shared, &batch.table) });
        let due = Self { batch, segment, settled };
        match lost {
            Some(error) => {
                due.end(Err(error));
                None
            }
            None => Some(due),
        }
    }

    /// Tells what became of it.
    pub(super) fn end(self, result: Result<Vec<Refusal>, DbmsError>) {
        self.untied().1.end(result);
    }

    fn untied(self) -> (Batch, Settling) {
        let Self { batch, segment, settled } = self;
        let settling = Settling { frame: batch.frame.clone(), segment, settled };
        (batch, settling)
    }
}

/// Who is to be told of a batch.
struct Settling {
    frame: Frame,
    segment: Arc<Segment>,
    settled: Settled,
}

impl Settling {
    fn end(self, result: Result<Vec<Refusal>, DbmsError>) {
        if matches!(&self.frame, Frame::Coming(landing) if landing.wait().is_none()) {
            return self.segment.arrived();
        }
        if result.is_err() {
            self.segment.leave();
        }
        self.settled.settled(result);
    }
}

/// The memory of rows that are kept behind their acknowledgement.
#[derive(Debug)]
pub(crate) struct Kept(Arc<Semaphore>);

impl Default for Kept {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(KEPT_LIMIT)))
    }
}

impl Kept {
    /// Room for rows, given back when the last clone is dropped; none when the databases fall so far behind that the journal must
    /// keep the rows alone. `urge` makes them store what they keep.
    pub(crate) async fn room(&self, bytes: usize, urge: impl FnOnce()) -> Option<Arc<OwnedSemaphorePermit>> {
        let wanted = u32::try_from(bytes.min(KEPT_LIMIT)).unwrap_or(u32::MAX);
        if let Ok(room) = Arc::clone(&self.0).try_acquire_many_owned(wanted) {
            return Some(Arc::new(room));
        }
        urge();
        let room = tokio::time::timeout(PATIENCE, Arc::clone(&self.0).acquire_many_owned(wanted)).await;
        room.ok()?.ok().map(Arc::new)
    }

    /// Bytes in use.
    pub(crate) fn used(&self) -> u64 {
        KEPT_LIMIT.saturating_sub(self.0.available_permits()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_journal_writes_does_not_wait_for_what_it_writes_next() {
        let taken = |batches: &[(usize, bool)]| count_together(batches.iter().copied());
        let (waiting, begun) = ((10, true), (10, false));
        assert_eq!(taken(&[]), 0);
        assert_eq!(taken(&[begun, begun, waiting, waiting]), 2);
        assert_eq!(taken(&[waiting, waiting]), 2, "they may be written together");
        assert_eq!(taken(&[waiting, begun, waiting]), 2, "the journal went on meanwhile");
        assert_eq!(taken(&[(TRANSACTION_ROWS + 1, true), waiting]), 1, "a larger batch is stored whole");
        assert_eq!(taken(&[begun, (TRANSACTION_ROWS - 10, false), begun]), 2);
    }
}
