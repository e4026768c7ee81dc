//! The segments that are open, and those on their way to be sealed.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::journal::Position;
use crate::journal::record::SegmentHeader;
use crate::journal::recovery::RecoveredSegment;
use crate::thresholds::{LARGEST_SEGMENT, LEAST_INTERVAL, Threshold};

/// What the rows of a segment have in common: database, table, source, mapping.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) dbms: String,
    pub(crate) table: String,
    pub(crate) source: String,
    pub(crate) instructions: String,
}

/// A segment of this run, or one to be finished from the run before.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) header: Arc<SegmentHeader>,
    pub(crate) threshold: Threshold,
    state: Mutex<State>,
    quiet: Notify,
    /// Held while the segment is sealed: an operator that is ended and started again must not seal it twice at one time.
    pub(crate) sealing: Mutex<()>,
    /// Cancelled when the segment is sealed.
    pub(crate) sealed: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    last_ordinal: u64,
    rows: u64,
    bytes: u64,
    positions: Vec<Position>,
    refused: BTreeSet<u64>,
    in_flight: usize,
    /// Every row so far is settled in its target.
    applied: bool,
}

/// What sealing needs to know of a segment.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    pub(crate) positions: Vec<Position>,
    pub(crate) applied: bool,
}

impl Segment {
    pub(crate) fn new(header: SegmentHeader, threshold: Threshold) -> Arc<Self> {
        Arc::new(Self {
            header: Arc::new(header),
            threshold,
            state: Mutex::new(State { applied: threshold.immediate, ..State::default() }),
            quiet: Notify::new(),
            sealing: Mutex::default(),
            sealed: CancellationToken::new(),
        })
    }

    /// A segment of a run before, with the ordinals that are in the quarantine.
    pub(crate) fn recovered(segment: &RecoveredSegment, refused: BTreeSet<u64>) -> Arc<Self> {
        let state = State {
            rows: segment.rows,
            bytes: segment.bytes,
            positions: segment.positions.clone(),
            refused,
            ..State::default()
        };
        Arc::new(Self {
            header: Arc::clone(&segment.header),
            threshold: Threshold::default(),
            state: Mutex::new(state),
            quiet: Notify::new(),
            sealing: Mutex::default(),
            sealed: CancellationToken::new(),
        })
    }

    /// Gives ordinals to `rows` rows of a frame; returns the first. The frame is in flight until [`Self::landed`].
    pub(crate) fn give_ordinals(&self, rows: u64) -> u64 {
        let mut state = self.state.lock();
        let first = state.last_ordinal + 1;
        state.last_ordinal += rows;
        first
    }

    /// A frame with rows of the segment is under way.
    pub(crate) fn departs(&self) {
        self.state.lock().in_flight += 1;
    }

    /// The frame is in the journal.
    pub(crate) fn written(&self, position: Position, rows: u64, bytes: u64) {
        let mut state = self.state.lock();
        // Rows of one message for several partitions lie in one frame, which is to be read once.
        if state.positions.last() != Some(&position) {
            state.positions.push(position);
        }
        state.rows += rows;
        state.bytes += bytes;
    }

    /// The frame needs nothing more of this segment. `settled` is false when its rows may not be in the database.
    pub(crate) fn landed(&self, refused: impl IntoIterator<Item = u64>, settled: bool) {
        let mut state = self.state.lock();
        state.in_flight -= 1;
        state.refused.extend(refused);
        state.applied &= settled || !self.threshold.immediate;
        if state.in_flight == 0 {
            self.quiet.notify_waiters();
        }
    }

    /// Returns when no frame of the segment is under way.
    pub(crate) async fn quiet(&self) {
        loop {
            let notified = self.quiet.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.state.lock().in_flight == 0 {
                return;
            }
            notified.await;
        }
    }

    pub(crate) fn refuse(&self, ordinals: impl IntoIterator<Item = u64>) {
        self.state.lock().refused.extend(ordinals);
    }

    pub(crate) fn set_applied(&self) {
        self.state.lock().applied = true;
    }

    /// Ordinals of the rows that went to the quarantine.
    pub(crate) fn refused(&self) -> BTreeSet<u64> {
        self.state.lock().refused.clone()
    }

    pub(crate) fn content(&self) -> Content {
        let state = self.state.lock();
        Content { positions: state.positions.clone(), applied: state.applied }
    }

    /// Rows and bytes so far.
    pub(crate) fn size(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.rows, state.bytes)
    }

    /// Whether a threshold is reached. `last_seal` is when a segment of the same key was sealed last.
    pub(crate) fn due(&self, now: Timestamp, last_seal: Option<Timestamp>) -> bool {
        let elapsed = |since: Timestamp| now.duration_since(since).unsigned_abs();
        let (_, bytes) = self.size();
        elapsed(self.header.opened) >= self.threshold.time
            || bytes >= LARGEST_SEGMENT
            || (bytes > self.threshold.volume && last_seal.is_none_or(|last| elapsed(last) >= LEAST_INTERVAL))
    }
}

/// The segments of a store.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    pub(crate) open: HashMap<Key, Arc<Segment>>,
    /// Closed for rows, not sealed yet.
    pub(crate) closing: Vec<Arc<Segment>>,
    last_seal: HashMap<Key, Timestamp>,
}

impl Segments {
    /// Closes a segment for rows, if it is the open one of its key.
    pub(crate) fn close(&mut self, key: &Key, segment: &Arc<Segment>, now: Timestamp) {
        if self.open.get(key).is_some_and(|open| Arc::ptr_eq(open, segment)) {
            self.open.remove(key);
            self.last_seal.insert(key.clone(), now);
            self.closing.push(Arc::clone(segment));
        }
    }

    /// Closes every segment that reached a threshold, or all; returns what is to be sealed now.
    pub(crate) fn close_due(&mut self, now: Timestamp, all: bool) -> usize {
        let due: Vec<(Key, Arc<Segment>)> = self
            .open
            .iter()
            .filter(|(key, segment)| all || segment.due(now, self.last_seal.get(*key).copied()))
            .map(|(key, segment)| (key.clone(), Arc::clone(segment)))
            .collect();
        for (key, segment) in &due {
            self.close(key, segment, now);
        }
        // Only recent seals matter.
        self.last_seal.retain(|_, last| now.duration_since(*last).unsigned_abs() < LEAST_INTERVAL);
        due.len()
    }

    /// Forgets a sealed segment.
    pub(crate) fn done(&mut self, segment: &Arc<Segment>) {
        self.closing.retain(|closing| !Arc::ptr_eq(closing, segment));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use anylog_dbms::SegmentId;

    use super::*;

    fn segment(threshold: Threshold) -> Arc<Segment> {
        Segment::new(
            SegmentHeader {
                id: SegmentId(1),
                dbms: "d".into(),
                table: "t".into(),
                source: "0".into(),
                instructions: "0".into(),
                member: "0".into(),
                file_id: None,
                opened: Timestamp::UNIX_EPOCH,
            },
            threshold,
        )
    }

    #[test]
    fn volume_seals_at_most_once_a_second() {
        let segment = segment(Threshold { volume: 10, ..Threshold::default() });
        segment.departs();
        segment.written(crate::journal::Position::default(), 2, 11);
        segment.landed([], true);
        let at = |millis: u64| Timestamp::UNIX_EPOCH + Duration::from_millis(millis);
        assert!(segment.due(at(1), None));
        assert!(!segment.due(at(900), Some(at(0))));
        assert!(segment.due(at(1000), Some(at(0))));
    }

    #[test]
    fn time_seals_small_segments() {
        let segment = segment(Threshold::default());
        assert!(!segment.due(Timestamp::UNIX_EPOCH + Duration::from_secs(59), None));
        assert!(segment.due(Timestamp::UNIX_EPOCH + Duration::from_secs(60), None));
    }

    #[test]
    fn a_failed_row_of_an_immediate_segment_is_applied_at_the_seal() {
        let segment = segment(Threshold { immediate: true, ..Threshold::default() });
        assert!(segment.content().applied);
        segment.departs();
        segment.landed([3], false);
        let content = segment.content();
        assert!(!content.applied && segment.refused().contains(&3));
    }
}
