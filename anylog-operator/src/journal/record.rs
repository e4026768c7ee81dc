//! One frame of the journal: its bytes, and what they mean.
//!
//! ```text
//! frame    as frames have it ([`anylog_ingest::frames`]), with the marker FF FE 4A 52 and bodies of at most 256 MiB
//! body     version     1   1
//!          sequence    8   place in the journal, counted over all files
//!          entries         until the end of the body
//! entry    kind        1   1 rows, 2 sealed, 3 partition dropped, 4 delivered, 5 released, 6 forgotten,
//!                          7 left the quarantine, 8 came into the quarantine, 9 copy, 10 followed,
//!                          11 promised
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
//! promised dbms, table             each length 4 and text
//!          producer    8   member
//!          file        8   its number there
//!          ordinal     8
//! ```
//!
//! A frame is one message: its rows are there together or not at all. A rows entry names its segment in full, so that the
//! loss of any other frame costs nothing but that frame. For the same reason each frame with rows of a file that another node
//! sends says that it is a copy, and each with rows of an own one that others follow says so: a start goes on with them instead of
//! sealing them. Packet ids that are written again, without their rows, are in an entry of their own behind what those rows were
//! promised: a *promised* entry concerns the packets of the next *delivered* one.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use anylog_dbms::SegmentId;
use anylog_ingest::frames::Form;
use anylog_replica::FileKey;
use jiff::Timestamp;

pub use anylog_ingest::frames::FrameError;
pub use decode::read_frame;
pub(crate) use decode::{TextRow, each_row};
pub use encode::Entries;

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
const KIND_PROMISED: u8 = 11;

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
    /// What the rows of the packets in the next entry were promised, when the rows are not in this frame.
    Promised(Promised),
}

/// Rows of a message in one file that other members are to have before the message is acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promised {
    /// Logical database.
    pub dbms: String,
    /// Table.
    pub table: String,
    /// The file that they are in.
    pub file: FileKey,
    /// The ordinal of the last of them.
    pub ordinal: u64,
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
