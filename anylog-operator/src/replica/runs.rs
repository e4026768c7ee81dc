//! When the rows of a source file came: its run list.
//!
//! A source file holds texts. What else decides a row - its ordinal, its time of arrival, the zone in which its times are meant -
//! lies in the journal until the file is sealed, and in its run list from then on, so that another member can store the very
//! same rows.
//!
//! ```text
//! list     marker      4   FF FE 52 4C
//!          version     1   1
//!          segment    16   the identity of the file's segment
//!          lines       1   0: the lines of the file are the rows of the runs, one after the other
//!                          1: line n of the file is ordinal n, and a line that is in no run was refused
//!          runs            until the checksum
//!          checksum    4   CRC-32 of all before
//! run      head        v   rows * 4 + 2 when the zone is another than that of the run before + 1 when ordinals are left out
//!          gap         v   how many ordinals, when some are
//!          zone        v   number of the zone in the order of first use, when it is another; a new one is followed by its
//!                          length (v) and name
//!          received    v   microseconds since the run before, zigzag; of the first since 1970
//! ```
//! `v` is a number in groups of 7 bits, the lowest first, with the highest bit set in all bytes but the last. All else is
//! little-endian. A message of one row takes two to four bytes.

mod read;

use std::sync::Arc;

use anylog_dbms::SegmentId;
use jiff::Timestamp;

pub(crate) use read::{Line, RunList};

const MARKER: [u8; 4] = [0xFF, 0xFE, b'R', b'L'];
const VERSION: u8 = 1;
/// Marker, version, segment, lines.
const HEAD_BYTES: usize = 4 + 1 + 16 + 1;
const CHECKSUM_BYTES: usize = 4;
const OTHER_ZONE: u64 = 2;
const GAP: u64 = 1;
/// Zones of one file.
const MOST_ZONES: usize = 1 << 16;

/// What the lines of a source file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lines {
    /// The rows of the runs, one after the other.
    Rows,
    /// All that came: line n has ordinal n, and a line in no run was refused.
    All,
}

/// Rows that came together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    /// The ordinal of the first; the others follow.
    pub(crate) first: u64,
    /// How many, at least one.
    pub(crate) count: u64,
    /// When they came.
    pub(crate) received: Timestamp,
    /// The zone in which times without an offset are meant, by name.
    pub(crate) zone: Arc<str>,
}

/// Why bytes are no run list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RunsError {
    /// Another marker or version.
    #[error("it is no run list of a known version")]
    Unknown,
    /// A byte is not what was written.
    #[error("its checksum does not fit its bytes")]
    Checksum,
    /// The bytes are whole and make no sense.
    #[error("its byte {0} makes no sense")]
    Content(usize),
}

/// A run list in the making. It takes little more than its encoded form.
#[derive(Debug)]
pub(crate) struct Runs {
    bytes: Vec<u8>,
    zones: Vec<Arc<str>>,
    /// How many of the zones are named in the bytes.
    named: usize,
    /// Not written yet: rows that follow may join it.
    last: Option<Pending>,
    /// The ordinal behind all that was pushed.
    next: u64,
    /// Ordinal behind, time and zone of the last run that was written.
    written: (u64, i64, Option<usize>),
    rows: u64,
    /// Ordinals did not grow, or a time is none: there is no list then.
    broken: bool,
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    first: u64,
    count: u64,
    received: i64,
    zone: usize,
}

impl Runs {
    /// A list without runs.
    pub(crate) fn new(segment: SegmentId, lines: Lines) -> Self {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + 16);
        bytes.extend(MARKER);
        bytes.push(VERSION);
        bytes.extend(segment.0.to_le_bytes());
        bytes.push(u8::from(lines == Lines::All));
        Self { bytes, zones: Vec::new(), named: 0, last: None, next: 1, written: (1, 0, None), rows: 0, broken: false }
    }

    /// Adds rows. Their ordinals are larger than all before.
    pub(crate) fn push(&mut self, first: u64, count: u64, received: Timestamp, zone: &str) {
        if count == 0 {
            return;
        }
        let Some(next) = first.checked_add(count).filter(|_| first >= self.next) else {
            self.broken = true;
            return;
        };
        let received = received.as_microsecond();
        let zone = self.zone(zone);
        let follows =
            |last: &&mut Pending| last.first + last.count == first && last.received == received && last.zone == zone;
        match self.last.as_mut().filter(follows) {
            Some(last) => last.count += count,
            None => {
                self.write();
                self.last = Some(Pending { first, count, received, zone });
            }
        }
        self.next = next;
        self.rows += count;
    }

    fn zone(&mut self, name: &str) -> usize {
        // Nearly always the one zone of the node.
        match self.zones.iter().position(|known| **known == *name) {
            Some(at) => at,
            None => {
                self.broken |= self.zones.len() >= MOST_ZONES;
                self.zones.push(Arc::from(name));
                self.zones.len() - 1
            }
        }
    }

    fn write(&mut self) {
        let Some(run) = self.last.take() else { return };
        let (behind, before, zone) = self.written;
        let (gap, other) = (run.first - behind, zone != Some(run.zone));
        // A count that leaves no room for the two bits cannot come from a file.
        self.broken |= run.count > u64::MAX >> 2;
        let marks = if other { OTHER_ZONE } else { 0 } | if gap > 0 { GAP } else { 0 };
        put(&mut self.bytes, run.count << 2 | marks);
        if gap > 0 {
            put(&mut self.bytes, gap);
        }
        if other {
            put(&mut self.bytes, run.zone as u64);
            if run.zone == self.named {
                let name = &self.zones[run.zone];
                put(&mut self.bytes, name.len() as u64);
                self.bytes.extend(name.as_bytes());
                self.named += 1;
            }
        }
        put(&mut self.bytes, zigzag(run.received.wrapping_sub(before)));
        self.written = (run.first + run.count, run.received, Some(run.zone));
    }

    /// Rows so far.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// The list's bytes; none when what was added is no list.
    pub(crate) fn encode(mut self) -> Option<Vec<u8>> {
        self.write();
        if self.broken {
            return None;
        }
        let checksum = crc32fast::hash(&self.bytes);
        self.bytes.extend(checksum.to_le_bytes());
        Some(self.bytes)
    }
}

fn put(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_microsecond(micros).unwrap()
    }

    /// Runs as they were pushed: gap, count, time, zone.
    fn pushes() -> impl Strategy<Value = Vec<(u64, u64, i64, String)>> {
        let gap = prop_oneof![Just(0u64), 0..5u64, Just(1 << 40)];
        let time = prop_oneof![Just(1_700_000_000_000_000i64), 0..4_000_000_000_000_000i64, -5i64..5];
        let zone = prop_oneof![Just("UTC".to_owned()), "[a-z]{0,3}"];
        proptest::collection::vec((gap, 1..200u64, time, zone), 0..12)
    }

    fn list(lines: Lines, pushes: &[(u64, u64, i64, String)]) -> (Vec<u8>, Vec<(u64, Timestamp, String)>) {
        let (mut runs, mut next, mut rows) = (Runs::new(SegmentId(7 << 90), lines), 1, Vec::new());
        for (gap, count, time, zone) in pushes {
            runs.push(next + gap, *count, at(*time), zone);
            rows.extend((next + gap..next + gap + count).map(|ordinal| (ordinal, at(*time), zone.clone())));
            next += gap + count;
        }
        assert_eq!(runs.rows(), rows.len() as u64);
        (runs.encode().unwrap(), rows)
    }

    fn expand(list: &RunList) -> Vec<(u64, Timestamp, String)> {
        let row = |run: Run| (run.first..run.first + run.count).map(move |at| (at, run.received, run.zone.to_string()));
        list.iter().flat_map(row).collect()
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(pushes in pushes(), all: bool) {
            let lines = if all { Lines::All } else { Lines::Rows };
            let (bytes, rows) = list(lines, &pushes);
            let read = RunList::decode(bytes.clone()).unwrap();
            prop_assert_eq!((read.segment(), read.lines(), read.rows()), (SegmentId(7 << 90), lines, rows.len() as u64));
            prop_assert_eq!(expand(&read), rows);
            prop_assert_eq!(read.into_bytes(), bytes);
        }

        // R8: any flipped byte is seen.
        #[test]
        fn a_flipped_byte_is_seen(pushes in pushes(), at: prop::sample::Index, flip in 1u8..) {
            let (mut bytes, _) = list(Lines::Rows, &pushes);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert!(RunList::decode(bytes).is_err());
        }

        #[test]
        fn any_bytes_are_survived(tail: Vec<u8>, whole: bool) {
            let mut bytes = tail;
            if whole {
                let head = Runs::new(SegmentId(1), Lines::All).bytes;
                bytes.splice(0..0, head);
                let checksum = crc32fast::hash(&bytes);
                bytes.extend(checksum.to_le_bytes());
            }
            if let Ok(list) = RunList::decode(bytes) {
                let mut lines = list.of_lines();
                for _ in 0..100 {
                    lines.next();
                }
                prop_assert!(list.iter().count() as u64 <= list.rows());
            }
        }
    }

    #[test]
    fn rows_that_came_together_are_one_run() {
        let mut runs = Runs::new(SegmentId(1), Lines::Rows);
        for ordinal in 1..=1000 {
            runs.push(ordinal, 1, at(5), "UTC");
        }
        let bytes = runs.encode().unwrap();
        assert!(bytes.len() < 40, "{}", bytes.len());
        assert_eq!(RunList::decode(bytes).unwrap().iter().count(), 1);
        // Messages of one row, a tenth of a millisecond apart.
        let mut runs = Runs::new(SegmentId(1), Lines::Rows);
        for ordinal in 1..=1000u32 {
            runs.push(u64::from(ordinal), 1, at(1_700_000_000_000_000 + i64::from(ordinal) * 100), "Europe/Berlin");
        }
        let bytes = runs.encode().unwrap();
        assert!(bytes.len() < 3100, "{}", bytes.len());
    }

    #[test]
    fn lines_are_rows_or_were_refused() {
        let (bytes, _) = list(Lines::All, &[(1, 1, 5, "UTC".into()), (2, 1, 6, "UTC".into())]);
        let list = RunList::decode(bytes).unwrap();
        let mut lines = list.of_lines();
        let row = |ordinal, time| Line::Row(ordinal, at(time), "UTC".into());
        let read: Vec<Line> = (0..5).map(|_| lines.next()).collect();
        assert_eq!(read, [Line::Refused, row(2, 5), Line::Refused, Line::Refused, row(5, 6)]);
        assert!(lines.is_done());
        assert_eq!(lines.next(), Line::Refused);
        let (bytes, _) = self::list(Lines::Rows, &[(1, 1, 5, "UTC".into()), (2, 1, 6, "UTC".into())]);
        let list = RunList::decode(bytes).unwrap();
        let mut lines = list.of_lines();
        assert_eq!([lines.next(), lines.next(), lines.next()], [row(2, 5), row(5, 6), Line::Beyond]);
    }

    #[test]
    fn ordinals_that_do_not_grow_are_no_list() {
        let mut runs = Runs::new(SegmentId(1), Lines::Rows);
        runs.push(5, 2, at(1), "UTC");
        runs.push(6, 1, at(1), "UTC");
        assert_eq!(runs.encode(), None);
    }
}
