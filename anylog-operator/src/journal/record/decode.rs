//! A frame as it is read: whole, or only the rows of one segment, without copies.

use std::sync::Arc;

use anylog_dbms::SegmentId;
use anylog_ingest::frames::{Cursor, HEADER_BYTES};
use anylog_replica::FileKey;
use jiff::Timestamp;

use super::{
    Entry, FORM, Frame, FrameError, KIND_CAME, KIND_COPY, KIND_DELIVERED, KIND_DROPPED, KIND_FOLLOWED, KIND_FORGOTTEN,
    KIND_LEFT, KIND_PROMISED, KIND_RELEASED, KIND_ROWS, KIND_SEALED, Promised, RowsEntry, SegmentHeader, VERSION,
};

/// Texts of a rows entry before its rows: dbms, table, source, instructions, member, zone, partition.
const ROWS_TEXTS: usize = 7;
/// The zone's place among them.
const ZONE: usize = 5;

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

pub(super) fn read_body(body: &[u8]) -> Option<Frame> {
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
        KIND_PROMISED => Entry::Promised(Promised {
            dbms: cursor.text()?,
            table: cursor.text()?,
            file: FileKey { producer: cursor.i64()?, file: cursor.i64()? },
            ordinal: cursor.u64()?,
        }),
        _ => return None,
    })
}

pub(super) fn rows_in_body<'a>(body: &'a [u8], wanted: SegmentId, row: &mut impl FnMut(TextRow<'a>)) -> Option<()> {
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
