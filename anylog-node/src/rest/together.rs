//! Small requests for one table that arrive while others are being stored are stored together.
//!
//! Each write to stable storage takes its time however little it writes. A request for a table at rest is stored at once; those
//! that arrive meanwhile wait, and become one group: one frame of the journal. When storing is fast, another group begins as soon as
//! it has its share of those who send, so that the one's sync overlaps with the other's work; when it is slow, as many as possible
//! share one sync. The store is told that others wait: a group behind which they come is not the last of its transaction. The rows of a group are one list; each request knows its
//! place in it, so refused rows have the numbers that they have in their request, and gets its own answer when the group's
//! receipt is there (DUR-1). A group that the store does not take for what is in it is taken apart, so that a request fails
//! only for itself.

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anylog_ingest::{Behind, RefusedRow, RowGroup, SinkError, SinkSlot, TableRows};
use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

/// A request with more rows, or more bytes, goes alone: it is worth a write of its own.
const SMALL_ROWS: usize = 100;
pub(super) const SMALL_BYTES: usize = 16 << 10;

/// Requests of one group at most.
const MOST: usize = 500;

/// Groups that are under way at one time, when storing is fast.
const GROUPS: usize = 3;

/// Those who just got their answers are waited for this share of the time that storing took: most of them ask again at once,
/// and a group of all is stored in half the time of two.
const SHARE: f64 = 0.5;

/// Storing that takes less leaves time for several groups at a time.
const FAST: Duration = Duration::from_millis(2);

/// The shortest time that a timer takes.
const SHORTEST: Duration = Duration::from_millis(1);

/// So many groups are not waited for after one that was waited for in vain: its senders do not ask again at once.
const UNGATHERED: usize = 64;

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

pub(super) type Outcome = Result<Taken, SinkError>;

/// Who is told what became of a request's rows. One that is dropped untold - a node that ends drops its tasks, a store that
/// panics what it was given - is told that nothing is stored.
pub(super) struct Answer(Option<Box<dyn FnOnce(Outcome) + Send>>);

impl Answer {
    pub(super) fn new(tell: impl FnOnce(Outcome) + Send + 'static) -> Self {
        Self(Some(Box::new(tell)))
    }

    fn give(mut self, outcome: Outcome) {
        if let Some(tell) = self.0.take() {
            tell(outcome);
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(tell) = self.0.take() {
            tell(Err(SinkError::NotRunning));
        }
    }
}

/// Which requests may be stored together: those for one table from one sender, whose trouble then is their own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Lane {
    pub(super) dbms: String,
    pub(super) table: String,
    pub(super) source: String,
    pub(super) instructions: String,
    pub(super) origin: Arc<str>,
}

struct Waiting {
    rows: Vec<String>,
    answer: Answer,
}

/// A lane is there while tasks store its groups.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// How many that are, for the store.
    behind: Behind,
    /// Tasks at work: at most [`GROUPS`].
    workers: usize,
    /// Requests in the groups that are being stored.
    under_way: usize,
    /// About the most requests that were there at one time.
    crowd: usize,
    /// The last group took too long for several at a time.
    slow: bool,
    /// Groups that are not waited for.
    alone: usize,
    /// A group that gathers ends to do so when this many wait.
    hoped: Option<usize>,
    enough: Arc<Notify>,
}

impl Queue {
    /// Whether another group would overlap well with those under way: each has its share of those who send then.
    fn is_worth_another(&self) -> bool {
        !self.slow && self.under_way > 0 && GROUPS * self.waiting.len() >= self.crowd
    }

    /// Looks how many there are, and forgets slowly who does not come any more.
    fn count(&mut self) {
        self.crowd = (self.crowd - self.crowd.div_ceil(16)).max(self.waiting.len() + self.under_way);
    }
}

/// The requests that wait to be stored together.
#[derive(Clone)]
pub(super) struct Together {
    slot: Arc<SinkSlot>,
    lanes: Arc<Mutex<HashMap<Arc<Lane>, Queue>>>,
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
    pub(super) async fn append(&self, lane: Lane, rows: Vec<String>) -> Outcome {
        let (answer, outcome) = oneshot::channel();
        // The sender may have gone away; its rows are stored all the same.
        self.submit(&Arc::new(lane), rows, Answer::new(|outcome| drop(answer.send(outcome))));
        outcome.await.unwrap_or(Err(SinkError::NotRunning))
    }

    /// The same for who is told.
    pub(super) fn submit(&self, lane: &Arc<Lane>, rows: Vec<String>, answer: Answer) {
        if self.enqueue(lane, Waiting { rows, answer }) {
            tokio::spawn(self.clone().work(Arc::clone(lane)));
        }
    }

    /// Puts a request in its lane. Says whether a task is to begin work on it.
    fn enqueue(&self, lane: &Arc<Lane>, request: Waiting) -> bool {
        let mut lanes = self.lanes.lock();
        let Some(queue) = lanes.get_mut(lane) else {
            let waiting = VecDeque::from([request]);
            lanes.insert(Arc::clone(lane), Queue { waiting, workers: 1, ..Queue::default() });
            return true;
        };
        queue.waiting.push_back(request);
        queue.behind.set(queue.waiting.len());
        if queue.hoped.is_some_and(|hoped| queue.waiting.len() >= hoped) {
            queue.enough.notify_one();
        }
        let begins = queue.workers < GROUPS && queue.is_worth_another();
        queue.workers += usize::from(begins);
        begins
    }

    /// Stores what waits in a lane until nothing does.
    async fn work(self, lane: Arc<Lane>) {
        while let Some((group, behind)) = self.take(&lane) {
            let (begun, answered) = (Instant::now(), group.len());
            // A store that panics costs the requests of its group their answers, not the lane: what waits there is stored.
            if AssertUnwindSafe(self.store(&lane, group, behind)).catch_unwind().await.is_err() {
                tracing::error!(dbms = %lane.dbms, table = %lane.table, "Rows over REST were not stored: the store panicked");
            }
            let took = begun.elapsed();
            if let Some(queue) = self.lanes.lock().get_mut(&lane) {
                queue.under_way -= answered;
                queue.slow = took >= FAST;
            }
            if answered > 1 {
                self.gather(&lane, answered, took).await;
            }
        }
    }

    /// Those who just got their answers ask again at once, most of them. When storing is slow, all are waited for; when it is fast,
    /// as many as make a group that overlaps with the others.
    async fn gather(&self, lane: &Lane, answered: usize, took: Duration) {
        let fast = took < FAST;
        let enough = {
            let mut lanes = self.lanes.lock();
            let Some(queue) = lanes.get_mut(lane) else { return };
            let crowd = queue.crowd.max(queue.waiting.len() + answered);
            let hoped = if fast { crowd / GROUPS } else { crowd };
            queue.alone = queue.alone.saturating_sub(1);
            if (fast && queue.under_way > 0) || queue.alone > 0 || queue.waiting.len() >= hoped {
                return;
            }
            queue.hoped = Some(hoped);
            Arc::clone(&queue.enough)
        };
        let patience = if fast { SHORTEST } else { took.mul_f64(SHARE).min(LONGEST) };
        // Whether enough came or time ran out, what is there is stored.
        let came = tokio::time::timeout(patience, enough.notified()).await.is_ok();
        if let Some(queue) = self.lanes.lock().get_mut(lane) {
            queue.hoped = None;
            queue.alone = if came { 0 } else { UNGATHERED };
        }
    }

    /// The next group of a task; without one the task ends. The last task takes the lane with it.
    fn take(&self, lane: &Lane) -> Option<(Vec<Waiting>, Behind)> {
        let mut lanes = self.lanes.lock();
        let queue = lanes.get_mut(lane)?;
        queue.count();
        // What waits is left to the other task, which is at work, unless it makes a group of its own.
        let other = queue.workers > 1 && queue.under_way > 0;
        if queue.waiting.is_empty() || (other && !queue.is_worth_another()) {
            queue.workers -= 1;
            if queue.workers == 0 {
                lanes.remove(lane);
            }
            return None;
        }
        let count = queue.waiting.len().min(MOST);
        queue.under_way += count;
        let group = queue.waiting.drain(..count).collect();
        queue.behind.set(queue.waiting.len());
        Some((group, queue.behind.clone()))
    }

    async fn store(&self, lane: &Lane, group: Vec<Waiting>, behind: Behind) {
        let mut all = Vec::with_capacity(group.len());
        let (mut starts, mut answers) = (Vec::with_capacity(group.len()), Vec::with_capacity(group.len()));
        for Waiting { rows, answer } in group {
            starts.push(all.len());
            answers.push(answer);
            all.extend(rows);
        }
        let again = (answers.len() > 1).then(|| Texts::of(&all));
        let outcomes = match (self.append_rows(lane, all, &starts, behind).await, again) {
            (Ok(outcomes), _) => outcomes.into_iter().map(Ok).collect(),
            (Err(SinkError::Table { .. } | SinkError::QuarantineFull { .. }), Some(texts)) => {
                self.one_by_one(lane, &texts, &starts).await
            }
            (Err(error), _) => answers.iter().map(|_| Err(error.clone())).collect(),
        };
        for (answer, outcome) in answers.into_iter().zip(outcomes) {
            answer.give(outcome);
        }
    }

    async fn one_by_one(&self, lane: &Lane, texts: &Texts, starts: &[usize]) -> Vec<Outcome> {
        let ends = starts.iter().skip(1).copied().chain([texts.len()]);
        let mut outcomes = Vec::with_capacity(starts.len());
        for (start, end) in starts.iter().zip(ends) {
            let outcome = self.append_rows(lane, texts.rows(*start..end), &[0], Behind::default()).await;
            outcomes.push(outcome.and_then(|taken| taken.into_iter().next().ok_or(SinkError::NotRunning)));
        }
        outcomes
    }

    /// What became of each request; `starts` has the first row of each.
    async fn append_rows(
        &self,
        lane: &Lane,
        rows: Vec<String>,
        starts: &[usize],
        behind: Behind,
    ) -> Result<Vec<Taken>, SinkError> {
        let ends = starts.iter().skip(1).copied().chain([rows.len()]);
        let mut taken: Vec<Taken> =
            starts.iter().zip(ends).map(|(start, end)| Taken { stored: end - start, refused: Vec::new() }).collect();
        let part = TableRows {
            dbms: lane.dbms.clone(),
            table: lane.table.clone(),
            source: lane.source.clone(),
            instructions: lane.instructions.clone(),
            rows,
            starts: starts.to_vec(),
            ..TableRows::default()
        };
        let group =
            RowGroup { parts: vec![part], origin: lane.origin.as_ref().to_owned(), behind, ..RowGroup::default() };
        let receipt = self.slot.append(group).await?;
        for row in receipt.refused() {
            let request = starts.partition_point(|start| *start <= row.row).saturating_sub(1);
            if let (Some(taken), Some(start)) = (taken.get_mut(request), starts.get(request)) {
                taken.stored = taken.stored.saturating_sub(1);
                taken.refused.push(RefusedRow { part: 0, row: row.row - start, ..row.clone() });
            }
        }
        Ok(taken)
    }
}

/// Rows kept for another try, which is rare, in one piece.
struct Texts {
    text: String,
    ends: Vec<usize>,
}

impl Texts {
    fn of(rows: &[String]) -> Self {
        let mut texts = Self {
            text: String::with_capacity(rows.iter().map(String::len).sum()),
            ends: Vec::with_capacity(rows.len()),
        };
        for row in rows {
            texts.text.push_str(row);
            texts.ends.push(texts.text.len());
        }
        texts
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn rows(&self, which: std::ops::Range<usize>) -> Vec<String> {
        let begin =
            |row: usize| row.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or_default();
        which.map(|row| self.text[begin(row)..begin(row + 1)].to_owned()).collect()
    }
}

#[cfg(test)]
mod tests;
