//! One frame of the journal: its bytes, and what they mean.
//!
//! ```text
//! frame    as frames have it ([`anylog_ingest::frames`]), with the marker FF FE 4A 52 and bodies of at most 256 MiB
//! body     version     1   1
//!          sequence    8   place in the journal, counted over all files
//!          entries         until the end of the body
//! entry    kind        1   1 rows, 2 sealed, 3 partition dropped, 4 delivered, 5 released, 6 forgotten,
//!                          7 left the quarantine, 8 came into the quarantine, 9 copy, 10 followed
//! rows     segment    16   random
//!          file id     8   of tsd_info, 0 when none
//!          opened      8   microseconds since 1970, UTC
//!          received    8   microseconds since 1970, UTC
//!          first       8   ordinal of the first row in the segment, from 1
//!          dbms, table, source, instructions, member, zone, partition
//!                          each length 4 and text; partition empty when none
//!          count       4   then each row: length 4 and text
//! sealed   segment    16
//! dropped  dbms, table, partition                                 each length 4 and text
//! delivered, released
//!          client          length 4 and text
//!          count       4   then each packet id of QoS 2: 2
//! forgotten client         length 4 and text
//! left      key            length 4 and text
//! came      record         length 4 and JSON text
//! copy, followed
//!          segment    16
//! ```
//!
//! A frame is one message: its rows are there together or not at all. A rows entry names its segment in full, so that the
//! loss of any other frame costs nothing but that frame. For the same reason each frame with rows of a file that another node
//! sends says that it is a copy, and each with rows of an own one that others follow says so: a start goes on with them instead of
//! sealing them.

use std::sync::Arc;

use anylog_dbms::SegmentId;
use anylog_ingest::Delivery;
use anylog_ingest::frames::{Cursor, Form, HEADER_BYTES, put_bytes, put_length};
use jiff::Timestamp;

pub use anylog_ingest::frames::FrameError;

/// The longest body.
pub const MAX_BODY_BYTES: usize = 256 << 20;
/// The journal's frames. A body holds at least its version and sequence.
pub(crate) const FORM: Form = Form { marker: [0xFF, 0xFE, b'J', b'R'], least: 9, most: MAX_BODY_BYTES };
const VERSION: u8 = 1;
const KIND_ROWS: u8 = 1;
const KIND_SEALED: u8 = 2;
const KIND_DROPPED: u8 = 3;
const KIND_DELIVERED: u8 = 4;
const KIND_RELEASED: u8 = 5;
const KIND_FORGOTTEN: u8 = 6;
const KIND_LEFT: u8 = 7;
const KIND_CAME: u8 = 8;
const KIND_COPY: u8 = 9;
const KIND_FOLLOWED: u8 = 10;
/// Texts of a rows entry before its rows: dbms, table, source, instructions, member, zone, partition.
const ROWS_TEXTS: usize = 7;
/// The zone's place among them.
const ZONE: usize = 5;

/// What all rows of a segment share. A segment is the run of rows of one key between two thresholds: one source file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Random identity.
    pub id: SegmentId,
    /// Logical database.
    pub dbms: String,
    /// Table.
    pub table: String,
    /// Data source id.
    pub source: String,
    /// Mapping policy id.
    pub instructions: String,
    /// The producing operator's member id as text; `0` when rows are not registered.
    pub member: String,
    /// The row of `tsd_info` that stands for the segment, when rows are registered.
    pub file_id: Option<i64>,
    /// When the segment was opened, which is the time of its `tsd_info` row. Whole microseconds.
    pub opened: Timestamp,
}

/// Rows of one message that go to one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowsEntry {
    /// Their segment.
    pub segment: Arc<SegmentHeader>,
    /// Their partition, when the table has partitions.
    pub partition: Option<String>,
    /// The time zone in which times without an offset are meant, by name.
    pub zone: String,
    /// When they arrived. Whole microseconds.
    pub received: Timestamp,
    /// The ordinal of the first row; the others follow.
    pub first_ordinal: u64,
    /// The rows as JSON texts.
    pub rows: Vec<String>,
}

/// One thing that a frame says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Rows arrived.
    Rows(RowsEntry),
    /// A segment is done: applied, archived, registered. Its rows are not needed any more.
    Sealed(SegmentId),
    /// A partition was dropped: earlier rows for it are void.
    Dropped {
        /// Logical database.
        dbms: String,
        /// Table.
        table: String,
        /// The partition's full name.
        partition: String,
    },
    /// QoS 2 packets of a client whose messages are stored: with the rows of this frame, or without rows.
    Delivered(Arc<str>, Vec<u16>),
    /// Packets of a client that it released: their ids mean other messages behind this.
    Released(Arc<str>, Vec<u16>),
    /// The session of a client ended: none of its packets before this counts any more.
    Forgotten(Arc<str>),
    /// A record with this key left the quarantine: its rows are in this frame, or somebody deleted it.
    Left(String),
    /// A record came into the quarantine, as JSON, with the rows of this frame.
    Came(String),
    /// The rows of a segment come from another member: whoever produced the file seals it first.
    Copy(SegmentId),
    /// The rows of a segment were promised to be on several members: others may have more of it than there is here after a crash.
    Followed(SegmentId),
}

/// A decoded frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its place in the journal.
    pub sequence: u64,
    /// What it says.
    pub entries: Vec<Entry>,
}

/// What decides a row's place and content beside its text.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The partition, when the table has partitions.
    pub partition: Option<&'a str>,
    /// The time zone in which times without an offset are meant, by name.
    pub zone: &'a str,
    /// When the rows arrived.
    pub received: Timestamp,
}

/// The entries of one frame as bytes, before the writer gives the frame its sequence.
#[derive(Debug, Default, Clone)]
pub struct Entries {
    bytes: Vec<u8>,
    segments: Vec<Arc<SegmentHeader>>,
}

impl Entries {
    /// Adds rows. `rows` are JSON texts without line ends.
    pub fn rows<S: AsRef<str>>(
        &mut self,
        segment: &Arc<SegmentHeader>,
        place: Place<'_>,
        first_ordinal: u64,
        rows: &[S],
    ) {
        let Place { partition, zone, received } = place;
        let out = &mut self.bytes;
        out.push(KIND_ROWS);
        out.extend_from_slice(&segment.id.0.to_le_bytes());
        out.extend_from_slice(&segment.file_id.unwrap_or(0).to_le_bytes());
        out.extend_from_slice(&segment.opened.as_microsecond().to_le_bytes());
        out.extend_from_slice(&received.as_microsecond().to_le_bytes());
        out.extend_from_slice(&first_ordinal.to_le_bytes());
        for text in [&segment.dbms, &segment.table, &segment.source, &segment.instructions, &segment.member] {
            put_text(out, text);
        }
        put_text(out, zone);
        put_text(out, partition.unwrap_or_default());
        put_length(out, rows.len());
        for row in rows {
            put_text(out, row.as_ref());
        }
        if !self.segments.iter().any(|known| known.id == segment.id) {
            self.segments.push(Arc::clone(segment));
        }
    }

    /// Says that a segment is done.
    pub fn sealed(&mut self, segment: SegmentId) {
        self.bytes.push(KIND_SEALED);
        self.bytes.extend_from_slice(&segment.0.to_le_bytes());
    }

    /// Says that a partition was dropped.
    pub fn dropped(&mut self, dbms: &str, table: &str, partition: &str) {
        self.bytes.push(KIND_DROPPED);
        for text in [dbms, table, partition] {
            put_text(&mut self.bytes, text);
        }
    }

    /// Says that QoS 2 packets are stored.
    pub fn delivered(&mut self, deliveries: &[Delivery]) {
        self.packets(KIND_DELIVERED, deliveries);
    }

    /// Says that QoS 2 packets were released.
    pub fn released(&mut self, deliveries: &[Delivery]) {
        self.packets(KIND_RELEASED, deliveries);
    }

    /// Says that the session of a client ended.
    pub fn forgotten(&mut self, client: &str) {
        self.bytes.push(KIND_FORGOTTEN);
        put_text(&mut self.bytes, client);
    }

    /// Says that a record left the quarantine.
    pub fn left(&mut self, key: &str) {
        self.bytes.push(KIND_LEFT);
        put_text(&mut self.bytes, key);
    }

    /// Says that a record came into the quarantine.
    pub fn came(&mut self, record: &str) {
        self.bytes.push(KIND_CAME);
        put_text(&mut self.bytes, record);
    }

    /// Says that a segment is a copy.
    pub fn copy(&mut self, segment: SegmentId) {
        self.bytes.push(KIND_COPY);
        self.bytes.extend_from_slice(&segment.0.to_le_bytes());
    }

    /// Says that other members follow a segment.
    pub fn followed(&mut self, segment: SegmentId) {
        self.bytes.push(KIND_FOLLOWED);
        self.bytes.extend_from_slice(&segment.0.to_le_bytes());
    }

    fn packets(&mut self, kind: u8, deliveries: &[Delivery]) {
        for run in deliveries.chunk_by(|a, b| a.client == b.client) {
            self.bytes.push(kind);
            put_text(&mut self.bytes, &run[0].client);
            put_length(&mut self.bytes, run.len());
            self.bytes.extend(run.iter().flat_map(|delivery| delivery.packet.to_le_bytes()));
        }
    }

    /// The segments whose rows are in it.
    #[must_use]
    pub fn segments(&self) -> &[Arc<SegmentHeader>] {
        &self.segments
    }

    /// Bytes on disk.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        HEADER_BYTES + 9 + self.bytes.len()
    }

    /// Appends the frame to `out`.
    pub fn frame_into(&self, sequence: u64, out: &mut Vec<u8>) {
        FORM.put(out, |out| {
            out.push(VERSION);
            out.extend_from_slice(&sequence.to_le_bytes());
            out.extend_from_slice(&self.bytes);
        });
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

/// Reads the frame at the beginning of `bytes`; also returns how many bytes it takes.
pub fn read_frame(bytes: &[u8]) -> Result<(Frame, usize), FrameError> {
    let body = FORM.body(bytes)?;
    let frame = read_body(body).ok_or(FrameError::Content)?;
    Ok((frame, HEADER_BYTES + body.len()))
}

/// A row in a frame, where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TextRow<'a> {
    pub(crate) ordinal: u64,
    pub(crate) received: Timestamp,
    pub(crate) zone: &'a str,
    pub(crate) text: &'a str,
}

/// Hands the rows of a segment in the frame at the beginning of `bytes` over, without copying them.
pub(crate) fn each_row<'a>(
    bytes: &'a [u8],
    segment: SegmentId,
    mut row: impl FnMut(TextRow<'a>),
) -> Result<(), FrameError> {
    rows_in_body(FORM.body(bytes)?, segment, &mut row).ok_or(FrameError::Content)
}

fn segment(cursor: &mut Cursor<'_>) -> Option<SegmentId> {
    cursor.u128().map(SegmentId)
}

fn packets(cursor: &mut Cursor<'_>) -> Option<(Arc<str>, Vec<u16>)> {
    let client = Arc::from(cursor.str()?);
    let count = usize::try_from(cursor.u32()?).ok()?;
    let ids = cursor.take(count.checked_mul(2)?)?;
    Some((client, ids.chunks_exact(2).map(|id| u16::from_le_bytes([id[0], id[1]])).collect()))
}

fn read_body(body: &[u8]) -> Option<Frame> {
    let cursor = &mut Cursor(body);
    if cursor.take(1)? != [VERSION] {
        return None;
    }
    let sequence = cursor.u64()?;
    let mut entries = Vec::new();
    while !cursor.is_empty() {
        entries.push(match cursor.take(1)?[0] {
            KIND_ROWS => Entry::Rows(read_rows(cursor)?),
            kind => read_other(kind, cursor)?,
        });
    }
    Some(Frame { sequence, entries })
}

/// An entry without rows.
fn read_other(kind: u8, cursor: &mut Cursor<'_>) -> Option<Entry> {
    Some(match kind {
        KIND_SEALED => Entry::Sealed(segment(cursor)?),
        KIND_DROPPED => Entry::Dropped { dbms: cursor.text()?, table: cursor.text()?, partition: cursor.text()? },
        KIND_DELIVERED => packets(cursor).map(|(client, ids)| Entry::Delivered(client, ids))?,
        KIND_RELEASED => packets(cursor).map(|(client, ids)| Entry::Released(client, ids))?,
        KIND_FORGOTTEN => Entry::Forgotten(Arc::from(cursor.text()?)),
        KIND_LEFT => Entry::Left(cursor.text()?),
        KIND_CAME => Entry::Came(cursor.text()?),
        KIND_COPY => Entry::Copy(segment(cursor)?),
        KIND_FOLLOWED => Entry::Followed(segment(cursor)?),
        _ => return None,
    })
}

fn rows_in_body<'a>(body: &'a [u8], wanted: SegmentId, row: &mut impl FnMut(TextRow<'a>)) -> Option<()> {
    let cursor = &mut Cursor(body);
    if cursor.take(1)? != [VERSION] {
        return None;
    }
    cursor.u64()?;
    while !cursor.is_empty() {
        let kind = cursor.take(1)?[0];
        if kind != KIND_ROWS {
            read_other(kind, cursor)?;
            continue;
        }
        let own = segment(cursor)? == wanted;
        // File id, opened.
        cursor.take(16)?;
        let received = cursor.time()?;
        let first = cursor.u64()?;
        let mut texts = [""; ROWS_TEXTS];
        for text in &mut texts {
            *text = cursor.str()?;
        }
        for at in 0..u64::from(cursor.u32()?) {
            let text = cursor.str()?;
            if own {
                row(TextRow { ordinal: first.checked_add(at)?, received, zone: texts[ZONE], text });
            }
        }
    }
    Some(())
}

fn read_rows(cursor: &mut Cursor<'_>) -> Option<RowsEntry> {
    let id = segment(cursor)?;
    let file_id = Some(cursor.i64()?).filter(|id| *id != 0);
    let opened = cursor.time()?;
    let received = cursor.time()?;
    let first_ordinal = cursor.u64()?;
    let (dbms, table, source) = (cursor.text()?, cursor.text()?, cursor.text()?);
    let (instructions, member, zone) = (cursor.text()?, cursor.text()?, cursor.text()?);
    let partition = Some(cursor.text()?).filter(|name| !name.is_empty());
    let count = usize::try_from(cursor.u32()?).ok()?;
    // Each row takes at least its length's four bytes, so the count cannot promise more than there is.
    let mut rows = Vec::with_capacity(count.min(cursor.0.len() / 4 + 1));
    for _ in 0..count {
        rows.push(cursor.text()?);
    }
    first_ordinal.checked_add(count as u64)?;
    let segment = Arc::new(SegmentHeader { id, dbms, table, source, instructions, member, file_id, opened });
    Some(RowsEntry { segment, partition, zone, received, first_ordinal, rows })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> impl Strategy<Value = SegmentHeader> {
        (any::<u128>(), "[a-z]{1,8}", "\\PC{0,8}", any::<Option<i64>>(), 0i64..4_000_000_000_000_000).prop_map(
            |(id, dbms, table, file_id, opened)| SegmentHeader {
                id: SegmentId(id),
                dbms,
                table,
                source: "0".into(),
                instructions: "0".into(),
                member: "7".into(),
                file_id: file_id.filter(|id| *id != 0),
                opened: Timestamp::from_microsecond(opened).unwrap(),
            },
        )
    }

    fn entry() -> impl Strategy<Value = Entry> {
        prop_oneof![
            (header(), "[a-z_0-9]{0,9}", 0u64..1 << 40, proptest::collection::vec("\\PC{0,20}", 0..5)).prop_map(
                |(segment, partition, first_ordinal, rows)| Entry::Rows(RowsEntry {
                    received: segment.opened,
                    zone: "UTC".into(),
                    segment: Arc::new(segment),
                    partition: Some(partition).filter(|name| !name.is_empty()),
                    first_ordinal,
                    rows,
                })
            ),
            any::<u128>().prop_map(|id| Entry::Sealed(SegmentId(id))),
            ("[a-z]{0,5}", "[a-z]{0,5}", "[a-z]{0,5}").prop_map(|(dbms, table, partition)| Entry::Dropped {
                dbms,
                table,
                partition
            }),
            ("\\PC{1,5}", proptest::collection::vec(any::<u16>(), 1..5))
                .prop_map(|(client, ids)| Entry::Delivered(client.into(), ids)),
            ("\\PC{1,5}", proptest::collection::vec(any::<u16>(), 1..5))
                .prop_map(|(client, ids)| Entry::Released(client.into(), ids)),
            "\\PC{1,5}".prop_map(|client| Entry::Forgotten(client.into())),
            "[0-9a-f]{1,8}:[0-9]{1,3}".prop_map(Entry::Left),
            "\\PC{0,9}".prop_map(Entry::Came),
            any::<u128>().prop_map(|id| Entry::Copy(SegmentId(id))),
            any::<u128>().prop_map(|id| Entry::Followed(SegmentId(id))),
        ]
    }

    fn deliveries(client: &Arc<str>, ids: &[u16]) -> Vec<Delivery> {
        ids.iter().map(|packet| Delivery { client: Arc::clone(client), packet: *packet }).collect()
    }

    fn encode(sequence: u64, entries: &[Entry]) -> Vec<u8> {
        let mut encoded = Entries::default();
        for entry in entries {
            match entry {
                Entry::Rows(rows) => encoded.rows(
                    &rows.segment,
                    Place { partition: rows.partition.as_deref(), zone: &rows.zone, received: rows.received },
                    rows.first_ordinal,
                    &rows.rows,
                ),
                Entry::Sealed(id) => encoded.sealed(*id),
                Entry::Dropped { dbms, table, partition } => encoded.dropped(dbms, table, partition),
                Entry::Delivered(client, ids) => encoded.delivered(&deliveries(client, ids)),
                Entry::Released(client, ids) => encoded.released(&deliveries(client, ids)),
                Entry::Forgotten(client) => encoded.forgotten(client),
                Entry::Left(key) => encoded.left(key),
                Entry::Came(record) => encoded.came(record),
                Entry::Copy(id) => encoded.copy(*id),
                Entry::Followed(id) => encoded.followed(*id),
            }
        }
        let mut bytes = Vec::new();
        encoded.frame_into(sequence, &mut bytes);
        assert_eq!(bytes.len(), encoded.frame_bytes());
        bytes
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(sequence: u64, entries in proptest::collection::vec(entry(), 0..4)) {
            let bytes = encode(sequence, &entries);
            let (frame, length) = read_frame(&bytes).unwrap();
            prop_assert_eq!(length, bytes.len());
            prop_assert_eq!(frame, Frame { sequence, entries });
        }

        #[test]
        fn rows_are_found_without_copies(sequence: u64, entries in proptest::collection::vec(entry(), 1..4), which: prop::sample::Index) {
            let bytes = encode(sequence, &entries);
            let id = match which.get(&entries) {
                Entry::Rows(rows) => rows.segment.id,
                _ => SegmentId(0),
            };
            let own = entries.iter().filter_map(|entry| match entry {
                Entry::Rows(rows) if rows.segment.id == id => Some(rows),
                _ => None,
            });
            let texts = |rows: &RowsEntry| (rows.first_ordinal..).zip(rows.rows.clone()).collect::<Vec<_>>();
            let expected: Vec<(u64, Timestamp, String, String)> = own
                .flat_map(|rows| {
                    let row = |(ordinal, text)| (ordinal, rows.received, rows.zone.clone(), text);
                    texts(rows).into_iter().map(row).collect::<Vec<_>>()
                })
                .collect();
            let mut found = Vec::new();
            each_row(&bytes, id, |row| found.push((row.ordinal, row.received, row.zone.to_owned(), row.text.to_owned())))
                .unwrap();
            prop_assert_eq!(found, expected);
        }

        // R8: any flipped byte is seen.
        #[test]
        fn a_flipped_byte_is_seen(entries in proptest::collection::vec(entry(), 1..3), at: prop::sample::Index, flip in 1u8..) {
            let mut bytes = encode(1, &entries);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert!(read_frame(&bytes).is_err());
        }

        #[test]
        fn any_bytes_are_survived(mut bytes: Vec<u8>) {
            drop(read_frame(&bytes));
            bytes.splice(0..0, FORM.marker);
            drop(read_frame(&bytes));
            drop(read_body(&bytes));
            let _ = rows_in_body(&bytes, SegmentId(1), &mut |_| {});
        }

        #[test]
        fn any_body_is_survived(tail: Vec<u8>) {
            let mut body = vec![VERSION, 0, 0, 0, 0, 0, 0, 0, 0, KIND_ROWS];
            body.extend(tail);
            drop(read_body(&body));
        }
    }
}
