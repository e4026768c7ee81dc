//! Small requests for one table that arrive while others are being stored are stored together.
//!
//! Each write to stable storage takes its time however little it writes. A request for a table at rest is stored at once; those
//! that arrive meanwhile wait, and become one group: one frame of the journal and one transaction. Each keeps its own part of
//! the group, so refused rows have the numbers that they have in their request, and its own answer, which it gets when the
//! group's receipt is there (DUR-1). A group that the store does not take for what is in it is taken apart, so that a request
//! fails only for itself.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anylog_ingest::{RefusedRow, RowGroup, SinkError, SinkSlot, TableRows};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

/// A request with more rows, or more bytes, goes alone: it is worth a write of its own.
const SMALL_ROWS: usize = 100;
const SMALL_BYTES: usize = 16 << 10;

/// Requests of one group at most.
const MOST: usize = 500;

/// Those who just got their answers are waited for this share of the time that storing took: most of them ask again at once,
/// and a group of all is stored in half the time of two.
const SHARE: f64 = 0.5;

/// Storing that takes less is not worth a timer: what is ready to run runs first, that is all.
const FAST: Duration = Duration::from_millis(2);

/// However long storing takes, nobody is waited for longer.
const LONGEST: Duration = Duration::from_millis(20);

/// Whether a request is to be stored with others.
pub(super) fn is_small(rows: &[String]) -> bool {
    rows.len() <= SMALL_ROWS && rows.iter().map(String::len).sum::<usize>() <= SMALL_BYTES
}

/// What becomes of a request's rows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// Rows stored.
    pub(super) stored: usize,
    /// Rows refused, by their number in the request.
    pub(super) refused: Vec<RefusedRow>,
}

type Outcome = Result<Taken, SinkError>;

/// Which requests may be stored together: those for one table from one sender, whose trouble then is their own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Lane {
    dbms: String,
    table: String,
    origin: String,
}

struct Waiting {
    part: TableRows,
    answer: oneshot::Sender<Outcome>,
}

/// A lane is there while a task stores its groups, one after the other.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// A group that gathers ends to do so when this many wait.
    hoped: Option<usize>,
    enough: Arc<Notify>,
}

/// The requests that wait to be stored together.
#[derive(Clone)]
pub(super) struct Together {
    slot: Arc<SinkSlot>,
    lanes: Arc<Mutex<HashMap<Lane, Queue>>>,
}

impl std::fmt::Debug for Together {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Together").field("lanes", &self.lanes.lock().len()).finish()
    }
}

impl Together {
    pub(super) fn new(slot: Arc<SinkSlot>) -> Self {
        Self { slot, lanes: Arc::default() }
    }

    /// Stores the rows of one request, alone or with others. Requests that are dropped meanwhile are stored all the same.
    pub(super) async fn append(&self, part: TableRows, origin: String) -> Outcome {
        let lane = Lane { dbms: part.dbms.clone(), table: part.table.clone(), origin };
        let (answer, outcome) = oneshot::channel();
        let begin = {
            let mut lanes = self.lanes.lock();
            let begin = !lanes.contains_key(&lane);
            let queue = lanes.entry(lane.clone()).or_default();
            queue.waiting.push_back(Waiting { part, answer });
            if queue.hoped.is_some_and(|hoped| queue.waiting.len() >= hoped) {
                queue.enough.notify_one();
            }
            begin
        };
        if begin {
            tokio::spawn(self.clone().work(lane));
        }
        // A node that ends drops its tasks.
        outcome.await.unwrap_or(Err(SinkError::NotRunning))
    }

    /// Stores what waits in a lane until nothing does.
    async fn work(self, lane: Lane) {
        while let Some(group) = self.take(&lane) {
            let (begun, answered) = (Instant::now(), group.len());
            self.store(&lane.origin, group).await;
            if answered > 1 {
                self.gather(&lane, answered, begun.elapsed()).await;
            }
        }
    }

    async fn gather(&self, lane: &Lane, answered: usize, took: Duration) {
        if took < FAST {
            // A task that yields comes back after those that are ready, and after a look at the sockets.
            tokio::task::yield_now().await;
            return tokio::task::yield_now().await;
        }
        let enough = {
            let mut lanes = self.lanes.lock();
            let Some(queue) = lanes.get_mut(lane) else { return };
            queue.hoped = Some(queue.waiting.len() + answered);
            Arc::clone(&queue.enough)
        };
        // Whether all came or time ran out, what is there is stored.
        drop(tokio::time::timeout(took.mul_f64(SHARE).min(LONGEST), enough.notified()).await);
        if let Some(queue) = self.lanes.lock().get_mut(lane) {
            queue.hoped = None;
        }
    }

    /// The next group; without one the lane is gone.
    fn take(&self, lane: &Lane) -> Option<Vec<Waiting>> {
        let mut lanes = self.lanes.lock();
        let queue = lanes.get_mut(lane)?;
        if queue.waiting.is_empty() {
            lanes.remove(lane);
            return None;
        }
        let count = queue.waiting.len().min(MOST);
        Some(queue.waiting.drain(..count).collect())
    }

    async fn store(&self, origin: &str, group: Vec<Waiting>) {
        let (parts, answers): (Vec<TableRows>, Vec<_>) =
            group.into_iter().map(|waiting| (waiting.part, waiting.answer)).unzip();
        let alone = parts.len() == 1;
        let again = if alone { Vec::new() } else { parts.clone() };
        let outcomes = match self.append_parts(parts, origin).await {
            Ok(outcomes) => outcomes.into_iter().map(Ok).collect(),
            Err(SinkError::Table { .. } | SinkError::QuarantineFull { .. }) if !alone => {
                self.one_by_one(again, origin).await
            }
            Err(error) => answers.iter().map(|_| Err(error.clone())).collect(),
        };
        for (answer, outcome) in answers.into_iter().zip(outcomes) {
            // The sender may have gone away; its rows are stored all the same.
            drop(answer.send(outcome));
        }
    }

    async fn one_by_one(&self, parts: Vec<TableRows>, origin: &str) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(parts.len());
        for part in parts {
            let outcome = self.append_parts(vec![part], origin).await;
            outcomes.push(outcome.and_then(|taken| taken.into_iter().next().ok_or(SinkError::NotRunning)));
        }
        outcomes
    }

    /// What became of each part.
    async fn append_parts(&self, parts: Vec<TableRows>, origin: &str) -> Result<Vec<Taken>, SinkError> {
        let mut taken: Vec<Taken> =
            parts.iter().map(|part| Taken { stored: part.rows.len(), refused: Vec::new() }).collect();
        let group = RowGroup { parts, origin: origin.to_owned(), ..RowGroup::default() };
        let receipt = self.slot.append(group).await?;
        for row in receipt.refused() {
            if let Some(taken) = taken.get_mut(row.part) {
                taken.stored = taken.stored.saturating_sub(1);
                taken.refused.push(RefusedRow { part: 0, ..row.clone() });
            }
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests;
