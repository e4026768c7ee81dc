//! One segment: what is known of its rows on their way.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use anylog_replica::FileKey;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::journal::Position;
use crate::journal::record::SegmentHeader;
use crate::journal::recovery::RecoveredSegment;
use crate::seal::Ahead;
use crate::thresholds::{LARGEST_SEGMENT, LEAST_INTERVAL, Threshold};

/// Bytes of settled rows that are worth writing into a source file while the segment is open.
pub(super) const AHEAD_BYTES: u64 = 1 << 20;

/// A segment of this run, or one to be finished from the run before.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) header: Arc<SegmentHeader>,
    pub(crate) threshold: Threshold,
    state: Mutex<State>,
    quiet: Notify,
    /// The beginning of its source file. Held while it is written, and while the segment is sealed: an operator that is ended and
    /// started again must not seal it twice at one time.
    pub(crate) sealing: Mutex<Ahead>,
    /// Cancelled when the segment is sealed.
    pub(crate) sealed: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    last_ordinal: u64,
    /// The last ordinal that is in the journal.
    written_ordinal: u64,
    rows: u64,
    bytes: u64,
    positions: Vec<Position>,
    /// The ordinal of the last row in each frame, when others read the segment while it is open.
    lasts: Option<Vec<u64>>,
    refused: BTreeSet<u64>,
    /// Runs of rows that were written, and those of them that are settled.
    runs: u64,
    settled_runs: u64,
    /// How much there was at an earlier look.
    seen: Option<Seen>,
    /// Bytes that the source file was last told to hold.
    written_bytes: u64,
    in_flight: usize,
    /// Batches of acknowledged rows that are in memory and not settled yet.
    kept: usize,
    /// Every row so far is settled in its target, or will be when nothing is in flight and nothing kept. Once it is not so, the seal
    /// stores what the applied marks do not cover, and no more rows are kept.
    applied: bool,
    /// A batch was not stored, so no later one must be: the marks would pass over its rows.
    left: bool,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    frames: usize,
    runs: u64,
    bytes: u64,
}

impl State {
    fn settle(&mut self, refused: impl IntoIterator<Item = u64>, settled: bool) {
        self.settled_runs += 1;
        self.refused.extend(refused);
        self.applied &= settled;
    }
}

impl Segment {
    pub(crate) fn new(header: SegmentHeader, threshold: Threshold) -> Arc<Self> {
        let followed = threshold.is_replicated() && header.file_id.is_some();
        let lasts = followed.then(Vec::new);
        Self::of(Arc::new(header), threshold, State { applied: true, lasts, ..State::default() })
    }

    fn of(header: Arc<SegmentHeader>, threshold: Threshold, state: State) -> Arc<Self> {
        Arc::new(Self {
            header,
            threshold,
            state: Mutex::new(state),
            quiet: Notify::new(),
            sealing: Mutex::default(),
            sealed: CancellationToken::new(),
        })
    }

    /// A copy of a file that another node sends. It is sealed when its producer says so.
    pub(crate) fn copy(header: SegmentHeader) -> Arc<Self> {
        let state = State { applied: true, lasts: Some(Vec::new()), ..State::default() };
        Self::of(Arc::new(header), Threshold::default(), state)
    }

    /// A segment of a run before, with the ordinals that are in the quarantine.
    pub(crate) fn recovered(segment: &RecoveredSegment, refused: BTreeSet<u64>) -> Arc<Self> {
        let last = segment.lasts.last().copied().unwrap_or(0);
        let state = State {
            last_ordinal: last,
            written_ordinal: last,
            rows: segment.rows,
            bytes: segment.bytes,
            positions: segment.positions.clone(),
            lasts: (segment.copy || segment.followed).then(|| segment.lasts.clone()),
            refused,
            ..State::default()
        };
        Self::of(Arc::clone(&segment.header), Threshold::default(), state)
    }

    /// The file that it becomes, when rows are registered.
    pub(crate) fn file(&self) -> Option<FileKey> {
        Some(FileKey { producer: self.header.member.parse().ok()?, file: self.header.file_id? })
    }

    /// Whether other members are to have its rows before they are acknowledged.
    pub(crate) fn is_followed(&self) -> bool {
        self.threshold.is_replicated()
    }

    /// The ordinal of the last row that is on stable storage.
    pub(crate) fn written_ordinal(&self) -> u64 {
        self.state.lock().written_ordinal
    }

    /// The same, and 0 when nobody follows it.
    pub(crate) fn followed_ordinal(&self) -> u64 {
        let state = self.state.lock();
        if state.lasts.is_some() { state.written_ordinal } else { 0 }
    }

    /// The frames with rows behind an ordinal, the first ones up to about so many bytes, and the ordinal of the last row in the frame
    /// before them. None when it is not followed.
    pub(crate) fn frames_after(&self, ordinal: u64, bytes: u64) -> Option<(u64, Vec<Position>)> {
        let state = self.state.lock();
        let lasts = state.lasts.as_ref()?;
        let from = lasts.partition_point(|last| *last <= ordinal);
        let previous = from.checked_sub(1).map_or(0, |before| lasts[before]);
        let (mut frames, mut length) = (Vec::new(), 0);
        for position in &state.positions[from..] {
            length += position.length();
            if length > bytes && !frames.is_empty() {
                break;
            }
            frames.push(*position);
        }
        Some((previous, frames))
    }

    /// Gives ordinals to `rows` rows of a frame; returns the first. The frame is in flight until [`Self::landed`].
    pub(crate) fn give_ordinals(&self, rows: u64) -> u64 {
        let mut state = self.state.lock();
        let first = state.last_ordinal + 1;
        state.last_ordinal += rows;
        first
    }

    /// A frame with rows of the segment is under way, to the journal or to the database.
    pub(crate) fn departs(&self) {
        self.state.lock().in_flight += 1;
    }

    /// The frame is in the journal: rows up to the ordinal `last`.
    pub(crate) fn written(&self, position: Position, last: u64, rows: u64, bytes: u64) {
        let mut state = self.state.lock();
        // Rows of one message for several partitions lie in one frame, which is to be read once.
        let another = state.positions.last() != Some(&position);
        if another {
            state.positions.push(position);
        }
        if let Some(lasts) = &mut state.lasts {
            if !another {
                lasts.pop();
            }
            lasts.push(last);
        }
        state.written_ordinal = last;
        state.rows += rows;
        state.bytes += bytes;
        state.runs += 1;
    }

    /// The frame needs nothing of this segment from the journal any more, or is not in it.
    pub(crate) fn arrived(&self) {
        self.arrive(|_| {});
    }

    /// The frame needs nothing more of this segment. `settled` is false when its rows may not be in the database.
    pub(crate) fn landed(&self, refused: impl IntoIterator<Item = u64>, settled: bool) {
        self.arrive(|state| state.settle(refused, settled));
    }

    fn arrive(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        state.in_flight -= 1;
        change(&mut state);
        if state.in_flight == 0 {
            self.quiet.notify_waiters();
        }
    }

    /// Returns when no frame of the segment is under way.
    pub(crate) async fn quiet(&self) {
        self.until(|state| state.in_flight == 0).await;
    }

    /// Whether rows may be kept in memory behind their acknowledgement; `room` says whether there is place for them. Asked for all
    /// rows of the segment in the order of their ordinals: behind rows that are not kept none are.
    pub(crate) fn keeps(&self, room: bool) -> bool {
        let mut state = self.state.lock();
        state.applied &= room;
        state.applied
    }

    /// The frame needs nothing more of this segment, save that its rows are kept.
    pub(crate) fn kept(&self) {
        self.arrive(|state| state.kept += 1);
    }

    /// A batch that was kept is settled, or, when `settled` is false, may not be in the database.
    pub(crate) fn let_go(&self, refused: impl IntoIterator<Item = u64>, settled: bool) {
        let mut state = self.state.lock();
        state.kept -= 1;
        state.settle(refused, settled);
        if state.kept == 0 {
            self.quiet.notify_waiters();
        }
    }

    /// Returns when nothing of the segment is kept.
    pub(crate) async fn settled(&self) {
        self.until(|state| state.kept == 0).await;
    }

    /// A batch was not stored.
    pub(crate) fn leave(&self) {
        self.state.lock().left = true;
    }

    /// Rows that come are not stored at once any more, but by the applied marks: somebody else stores rows of the segment.
    pub(crate) fn leave_to_marks(&self) {
        let mut state = self.state.lock();
        (state.applied, state.left) = (false, true);
    }

    /// All that is in the journal is stored; rows that come may be stored at once again.
    pub(crate) fn catch_up(&self) {
        let mut state = self.state.lock();
        (state.applied, state.left) = (true, false);
    }

    /// Whether a batch was not stored.
    pub(crate) fn is_left(&self) -> bool {
        self.state.lock().left
    }

    async fn until(&self, reached: impl Fn(&State) -> bool) {
        loop {
            let notified = self.quiet.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if reached(&self.state.lock()) {
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

    /// Whether every row is settled in its target, when nothing is in flight and nothing kept.
    pub(crate) fn is_applied(&self) -> bool {
        self.state.lock().applied
    }

    /// Where its frames lie, by their numbers in the segment.
    pub(crate) fn positions(&self, frames: std::ops::Range<usize>) -> Vec<Position> {
        let state = self.state.lock();
        let all = &state.positions;
        all[frames.start.min(all.len())..frames.end.min(all.len())].to_vec()
    }

    /// Those of its frames that lie in one journal file.
    pub(crate) fn positions_in(&self, file: u32) -> Vec<Position> {
        self.state.lock().positions.iter().filter(|position| position.file() == file).copied().collect()
    }

    /// Frames were written again.
    pub(crate) fn moved(&self, moved: &HashMap<Position, Position>) {
        for position in &mut self.state.lock().positions {
            if let Some(to) = moved.get(position) {
                *position = *to;
            }
        }
    }

    /// How many frames have settled rows, when they are so much more than at the last call that they are worth writing.
    pub(crate) fn settled_frames(&self) -> Option<usize> {
        let mut state = self.state.lock();
        if !state.applied || state.bytes < state.written_bytes + AHEAD_BYTES {
            return None;
        }
        // Rows are settled in the order in which they were written, so those that were seen a while ago need no book of each frame.
        // The last frame may have further rows on their way here.
        let now = Seen { frames: state.positions.len().saturating_sub(1), runs: state.runs, bytes: state.bytes };
        let seen = *state.seen.get_or_insert(now);
        if state.settled_runs < seen.runs {
            return None;
        }
        state.seen = Some(now);
        (seen.bytes >= state.written_bytes + AHEAD_BYTES).then(|| {
            state.written_bytes = seen.bytes;
            seen.frames
        })
    }

    /// Rows and bytes so far.
    pub(crate) fn size(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.rows, state.bytes)
    }

    /// Whether the segment must be sealed now: for its age, or because it is as large as one may be.
    pub(crate) fn overdue(&self, now: Timestamp) -> bool {
        now.duration_since(self.header.opened).unsigned_abs() >= self.threshold.time || self.size().1 >= LARGEST_SEGMENT
    }

    /// Whether a threshold is reached. `last_seal` is when a segment of the same key was sealed last.
    pub(crate) fn due(&self, now: Timestamp, last_seal: Option<Timestamp>) -> bool {
        let rested = |last| now.duration_since(last).unsigned_abs() >= LEAST_INTERVAL;
        self.overdue(now) || (self.size().1 > self.threshold.volume && last_seal.is_none_or(rested))
    }
}
