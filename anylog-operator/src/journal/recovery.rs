//! What a journal's files say when a node starts.
//!
//! Damage never stops the start (R8, DUR-4): bytes that are no frame are skipped up to the next frame, handed to a reporter
//! that keeps them, and named. What cannot be read to the end of a file is cut off, so that it is reported once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use anylog_dbms::SegmentId;
use anylog_replica::FileKey;

use super::record::{Entry, FORM, Frame, FrameError, Promised, RowsEntry, SegmentHeader, read_frame};
use super::{FileUse, Position, file_name, file_number};
use crate::deliveries::{Held, Promises};
use crate::disk::Disk;

/// A place in a journal file that holds no frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file's name.
    pub file: String,
    /// Where it begins, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub length: u64,
    /// True when nothing readable follows it in the file: a write that did not finish, or a damaged end.
    pub at_end: bool,
    /// What is wrong.
    pub reason: String,
}

/// A segment that was not sealed when the node stopped.
#[derive(Debug, Clone)]
pub struct RecoveredSegment {
    /// What its rows share.
    pub header: Arc<SegmentHeader>,
    /// Its frames in the order of their rows.
    pub positions: Vec<Position>,
    /// The ordinal of the last row in each.
    pub lasts: Vec<u64>,
    /// It is a copy of a file that another node sends.
    pub copy: bool,
    /// Other members follow it.
    pub followed: bool,
    /// How many rows it has.
    pub rows: u64,
    /// How many bytes they have as lines.
    pub bytes: u64,
}

/// Partitions that were dropped, and when: rows from before are void. The number of the journal file that says so tells how long
/// there may be such rows.
#[derive(Debug, Clone, Default)]
pub struct Tombstones(HashMap<(String, String, String), (u64, u32)>);

impl Tombstones {
    /// Notes a dropped partition.
    pub fn add(&mut self, dbms: &str, table: &str, partition: &str, sequence: u64, position: &Position) {
        let entry = self.0.entry((dbms.to_owned(), table.to_owned(), partition.to_owned())).or_default();
        *entry = (*entry).max((sequence, position.file()));
    }

    /// Whether rows of a frame with this sequence, meant for this partition, are void.
    #[must_use]
    pub fn covers(&self, dbms: &str, table: &str, partition: &str, sequence: u64) -> bool {
        !self.0.is_empty()
            && self
                .0
                .get(&(dbms.to_owned(), table.to_owned(), partition.to_owned()))
                .is_some_and(|(dropped, _)| sequence < *dropped)
    }

    /// Forgets those of a journal file that is gone, and with it every earlier one: no row from before is left. Otherwise dropping
    /// would take memory for as long as the node runs (R23).
    pub fn forget(&mut self, file: u32) {
        self.0.retain(|_, (_, known)| *known > file);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What the files say.
#[derive(Debug, Default)]
pub struct Recovery {
    /// Segments to be finished, in the order in which they began.
    pub segments: Vec<RecoveredSegment>,
    /// Dropped partitions.
    pub tombstones: Tombstones,
    /// QoS 2 packets that were stored and not released.
    pub deliveries: Held,
    /// Keys of records that left the quarantine.
    pub left: HashSet<String>,
    /// Records that came into the quarantine with rows of the journal, as JSON.
    pub came: Vec<String>,
    /// What was damaged.
    pub damages: Vec<Damage>,
    pub(super) next_sequence: u64,
    pub(super) next_file: u32,
    pub(super) files: BTreeMap<u32, FileUse>,
}

#[derive(Default)]
struct Scan {
    order: Vec<SegmentId>,
    segments: HashMap<SegmentId, RecoveredSegment>,
    sealed: HashSet<SegmentId>,
    copies: HashSet<SegmentId>,
    followed: HashSet<SegmentId>,
    recovery: Recovery,
}

/// The rows of a segment in one frame.
struct Part {
    header: Arc<SegmentHeader>,
    first: u64,
    last: u64,
    rows: u64,
    bytes: u64,
}

impl Part {
    fn of(entry: RowsEntry) -> Self {
        let rows = entry.rows.len() as u64;
        let bytes = entry.rows.iter().map(|row| row.len() as u64 + 1).sum();
        let last = entry.first_ordinal + rows.saturating_sub(1);
        Self { header: entry.segment, first: entry.first_ordinal, last, rows, bytes }
    }

    fn join(&mut self, other: Part) {
        self.last = self.last.max(other.last);
        self.rows += other.rows;
        self.bytes += other.bytes;
    }
}

/// What is promised of the rows of a frame; packet ids come behind them.
fn promises(parts: &[Part], followed: &[SegmentId]) -> Promises {
    let promised = |part: &Part| {
        let header = &part.header;
        let file = FileKey { producer: header.member.parse().ok()?, file: header.file_id? };
        Some(Promised { dbms: header.dbms.clone(), table: header.table.clone(), file, ordinal: part.last })
    };
    let promised: Vec<Promised> =
        parts.iter().filter(|part| followed.contains(&part.header.id)).filter_map(promised).collect();
    (!promised.is_empty()).then(|| promised.into())
}

impl RecoveredSegment {
    /// Adds a frame. Rows may be there more than once: a frame that failed to be synced was found after all, and its rows, of which
    /// nobody was told, came again; or the rows of a copy were carried on. The later frame counts.
    fn add(&mut self, part: &Part, position: Position) {
        let from = self.lasts.partition_point(|last| *last < part.first);
        // A frame begins behind the one before it.
        let begins = |at: usize| at.checked_sub(1).map_or(1, |before| self.lasts[before] + 1);
        let to = (from..self.lasts.len()).find(|at| begins(*at) > part.last).unwrap_or(self.lasts.len());
        if from == to {
            self.rows += part.rows;
            self.bytes += part.bytes;
        }
        self.positions.splice(from..to, [position]);
        self.lasts.splice(from..to, [part.last]);
    }
}

/// Reads all journal files in `directory`. `keep` gets the bytes of each damaged place, to put them aside.
pub fn scan(disk: &dyn Disk, directory: &Path, keep: &mut dyn FnMut(&Damage, &[u8])) -> std::io::Result<Recovery> {
    disk.create_directory(directory)?;
    let mut numbers: Vec<u32> = disk.list(directory)?.iter().filter_map(|name| file_number(name)).collect();
    numbers.sort_unstable();
    let mut scan = Scan::default();
    for number in numbers {
        scan.recovery.next_file = number;
        match disk.read(&directory.join(file_name(number))) {
            Ok(bytes) => scan.file(disk, directory, number, &bytes, keep),
            Err(error) => {
                let reason = format!("cannot be read: {error}");
                let damage = Damage { file: file_name(number), offset: 0, length: 0, at_end: true, reason };
                keep(&damage, &[]);
                scan.recovery.damages.push(damage);
            }
        }
    }
    Ok(scan.finish())
}

impl Scan {
    fn file(
        &mut self,
        disk: &dyn Disk,
        directory: &Path,
        number: u32,
        bytes: &[u8],
        keep: &mut dyn FnMut(&Damage, &[u8]),
    ) {
        let mut file = FileUse { bytes: bytes.len() as u64, ..FileUse::default() };
        let mut offset = 0;
        while offset < bytes.len() {
            match read_frame(&bytes[offset..]) {
                Ok((frame, length)) => {
                    self.frame(frame, Position::new(number, offset, length), &mut file);
                    offset += length;
                }
                Err(error) => {
                    let next = FORM.next(bytes, offset + 1, |bytes| read_frame(bytes).is_ok());
                    // Zeros behind the last frame are room that was not used, not damage.
                    let end = next.unwrap_or_else(|| {
                        bytes[offset..].iter().rposition(|byte| *byte != 0).map_or(offset, |last| offset + last + 1)
                    });
                    if end > offset {
                        self.damage(number, offset..end, next.is_none(), error, bytes, keep);
                    }
                    if next.is_some() {
                        offset = end;
                        continue;
                    }
                    // A cut that fails only means that the same place is seen again.
                    if let Err(error) = disk.truncate(&directory.join(file_name(number)), offset as u64) {
                        tracing::warn!(file = file_name(number), %error, "What lies behind the last frame of a journal file stays");
                    }
                    file.bytes = offset as u64;
                    break;
                }
            }
        }
        self.recovery.files.insert(number, file);
    }

    fn damage(
        &mut self,
        number: u32,
        place: std::ops::Range<usize>,
        at_end: bool,
        error: FrameError,
        bytes: &[u8],
        keep: &mut dyn FnMut(&Damage, &[u8]),
    ) {
        let damage = Damage {
            file: file_name(number),
            offset: place.start as u64,
            length: place.len() as u64,
            at_end,
            reason: error.to_string(),
        };
        keep(&damage, &bytes[place]);
        self.recovery.damages.push(damage);
    }

    fn frame(&mut self, frame: Frame, position: Position, file: &mut FileUse) {
        self.recovery.next_sequence = self.recovery.next_sequence.max(frame.sequence + 1);
        let (mut parts, mut followed): (Vec<Part>, Vec<SegmentId>) = (Vec::new(), Vec::new());
        let mut promised: Vec<Promised> = Vec::new();
        for entry in frame.entries {
            match entry {
                Entry::Sealed(id) => {
                    self.sealed.insert(id);
                }
                Entry::Dropped { dbms, table, partition } => {
                    self.recovery.tombstones.add(&dbms, &table, &partition, frame.sequence, &position);
                }
                Entry::Delivered(client, packets) => {
                    let promises = match promised.is_empty() {
                        true => promises(&parts, &followed),
                        false => Some(std::mem::take(&mut promised).into()),
                    };
                    let held = &mut self.recovery.deliveries;
                    packets.iter().for_each(|packet| held.add(&client, *packet, position.file, &promises));
                }
                Entry::Released(client, packets) => packets.iter().for_each(|packet| {
                    self.recovery.deliveries.remove(&client, *packet);
                }),
                Entry::Forgotten(client) => {
                    self.recovery.deliveries.forget(&client);
                }
                Entry::Left(key) => {
                    self.recovery.left.insert(key);
                }
                Entry::Came(record) => self.recovery.came.push(record),
                Entry::Copy(id) => {
                    self.copies.insert(id);
                }
                Entry::Promised(one) => promised.push(one),
                Entry::Followed(id) => {
                    followed.push(id);
                    self.followed.insert(id);
                }
                Entry::Rows(rows) if rows.rows.is_empty() => {}
                Entry::Rows(rows) => {
                    let part = Part::of(rows);
                    match parts.iter_mut().find(|known| known.header.id == part.header.id) {
                        Some(known) => known.join(part),
                        None => parts.push(part),
                    }
                }
            }
        }
        for part in parts {
            let id = part.header.id;
            file.live.insert(id, part.header.dbms.clone());
            let segment = self.segments.entry(id).or_insert_with(|| {
                self.order.push(id);
                RecoveredSegment {
                    header: Arc::clone(&part.header),
                    positions: Vec::new(),
                    lasts: Vec::new(),
                    copy: false,
                    followed: false,
                    rows: 0,
                    bytes: 0,
                }
            });
            segment.add(&part, position);
        }
    }

    fn finish(mut self) -> Recovery {
        for id in self.order {
            if let Some(mut segment) = self.segments.remove(&id) {
                (segment.copy, segment.followed) = (self.copies.contains(&id), self.followed.contains(&id));
                if self.sealed.contains(&id) {
                    super::release(&mut self.recovery.files, id);
                } else {
                    self.recovery.segments.push(segment);
                }
            }
        }
        self.recovery
    }
}
