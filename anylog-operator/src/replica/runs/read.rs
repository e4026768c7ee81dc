//! Run lists as they are read.

use std::sync::Arc;

use anylog_dbms::SegmentId;
use jiff::Timestamp;

use super::{CHECKSUM_BYTES, GAP, HEAD_BYTES, Lines, MARKER, MOST_ZONES, OTHER_ZONE, Run, RunsError, VERSION};

/// A run list that was read and makes sense.
#[derive(Debug, Clone)]
pub(crate) struct RunList {
    bytes: Vec<u8>,
    segment: SegmentId,
    lines: Lines,
    rows: u64,
}

impl RunList {
    /// Reads a list.
    pub(crate) fn decode(bytes: Vec<u8>) -> Result<Self, RunsError> {
        let least = HEAD_BYTES + CHECKSUM_BYTES;
        if bytes.len() < least || bytes[..4] != MARKER || bytes[4] != VERSION {
            return Err(RunsError::Unknown);
        }
        let (body, checksum) = bytes.split_at(bytes.len() - CHECKSUM_BYTES);
        if crc32fast::hash(body).to_le_bytes() != checksum {
            return Err(RunsError::Checksum);
        }
        let mut segment = [0; 16];
        segment.copy_from_slice(&body[5..21]);
        let lines = match body[21] {
            0 => Lines::Rows,
            1 => Lines::All,
            _ => return Err(RunsError::Content(21)),
        };
        let mut list = Self { segment: SegmentId(u128::from_le_bytes(segment)), lines, rows: 0, bytes };
        let mut reader = list.reader();
        let mut rows = 0u64;
        while reader.at < reader.bytes.len() {
            let at = reader.at;
            let run = reader.run().ok_or(RunsError::Content(at))?;
            rows = rows.checked_add(run.count).ok_or(RunsError::Content(at))?;
        }
        list.rows = rows;
        Ok(list)
    }

    /// The identity of the file's segment.
    pub(crate) fn segment(&self) -> SegmentId {
        self.segment
    }

    /// What the lines of the source file are.
    #[cfg(test)]
    pub(crate) fn lines(&self) -> Lines {
        self.lines
    }

    /// Rows in it.
    #[cfg(test)]
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its bytes.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Its runs, in order.
    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = Run> + '_ {
        let mut reader = self.reader();
        // All of them were read once.
        std::iter::from_fn(move || reader.run())
    }

    /// Which row each line of the source file is, in order.
    pub(crate) fn of_lines(&self) -> OfLines<'_> {
        OfLines { reader: self.reader(), run: None, lines: self.lines, line: 0 }
    }

    fn reader(&self) -> Reader<'_> {
        let bytes = &self.bytes[..self.bytes.len() - CHECKSUM_BYTES];
        Reader { bytes, at: HEAD_BYTES, zones: Vec::new(), zone: None, next: 1, received: 0 }
    }
}

/// A line of a source file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Line {
    /// The row with this ordinal, and when it came.
    Row(u64, Timestamp, Arc<str>),
    /// It was refused.
    Refused,
    /// The list has no more rows: it does not belong to this file.
    Beyond,
}

/// Which row each line of a source file is.
pub(crate) struct OfLines<'a> {
    reader: Reader<'a>,
    /// What is left of the current run.
    run: Option<Run>,
    lines: Lines,
    line: u64,
}

impl OfLines<'_> {
    /// The next line.
    pub(crate) fn next(&mut self) -> Line {
        self.line += 1;
        if self.run.is_none() {
            self.run = self.reader.run();
        }
        let Some(run) = &mut self.run else {
            return if self.lines == Lines::All { Line::Refused } else { Line::Beyond };
        };
        if self.lines == Lines::All && self.line < run.first {
            return Line::Refused;
        }
        let row = Line::Row(run.first, run.received, Arc::clone(&run.zone));
        run.first += 1;
        run.count -= 1;
        if run.count == 0 {
            self.run = None;
        }
        row
    }

    /// Whether every row of the list was given.
    pub(crate) fn is_done(&mut self) -> bool {
        self.run.is_none() && self.reader.at == self.reader.bytes.len()
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    zones: Vec<Arc<str>>,
    zone: Option<usize>,
    next: u64,
    received: i64,
}

impl Reader<'_> {
    fn number(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            let bits = u64::from(byte & 0x7f);
            // The last group has one bit, and nothing is written longer than it must be.
            if (shift == 63 && bits > 1) || (bits == 0 && shift > 0 && byte < 0x80) {
                return None;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn run(&mut self) -> Option<Run> {
        let head = self.number()?;
        let count = Some(head >> 2).filter(|count| *count > 0)?;
        let gap = if head & GAP > 0 { self.number()? } else { 0 };
        if head & OTHER_ZONE > 0 {
            let zone = usize::try_from(self.number()?).ok()?;
            if zone == self.zones.len() && zone < MOST_ZONES {
                let length = usize::try_from(self.number()?).ok()?;
                let end = self.at.checked_add(length)?;
                let name = std::str::from_utf8(self.bytes.get(self.at..end)?).ok()?;
                self.zones.push(Arc::from(name));
                self.at = end;
            }
            self.zone = Some(zone);
        }
        let zone = Arc::clone(self.zones.get(self.zone?)?);
        self.received = self.received.wrapping_add(unzigzag(self.number()?));
        let first = self.next.checked_add(gap)?;
        self.next = first.checked_add(count)?;
        Some(Run { first, count, received: Timestamp::from_microsecond(self.received).ok()?, zone })
    }
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}
