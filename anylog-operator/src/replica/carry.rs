//! Rows of open files carried on to the end of the journal.
//!
//! The journal lets its oldest file go first. The copy of a file whose producer is away stays open for as long as that takes, and
//! would keep everything behind it. So when the journal has grown, the rows of such copies in its oldest file are written again, frame
//! by frame, and the file goes. A crash in between leaves both; the later one counts.

use std::sync::Arc;

use anylog_replica::FileKey;
use futures_util::future::join_all;

use super::copies::{OpenCopy, Turn};
use crate::OperatorError;
use crate::journal::Position;
use crate::journal::record::{Entries, Place, RowsEntry};
use crate::replay::{DROPPED, WHOLE_TABLE};
use crate::seal::prune;
use crate::store::Shared;
use crate::tables::blocking;

/// Bytes of frames that are on their way at one time.
const TOGETHER: u64 = 1 << 20;

/// Begins to carry rows on, if open copies alone keep the oldest file of a journal that has grown, and nobody is at it.
pub(super) fn begin(shared: &Arc<Shared>) {
    if shared.journal.bytes() < shared.journal.limits().carry_bytes || shared.check_space().is_err() {
        return;
    }
    let Some((number, ids)) = shared.journal.held_back() else { return };
    let keepers: Vec<(FileKey, Arc<OpenCopy>)> = {
        let segments = shared.segments.lock();
        let keeps = |copy: &Arc<OpenCopy>| ids.contains(&copy.segment.header.id);
        let keepers = segments.copies.iter().filter(|(_, copy)| keeps(copy));
        keepers.map(|(file, copy)| (*file, Arc::clone(copy))).collect()
    };
    if keepers.len() < ids.len() {
        // The others are sealed soon.
        return;
    }
    let Some(alone) = shared.file_turns.carrier() else { return };
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        for (file, copy) in keepers {
            let turn = shared.file_turns.take(file).await;
            if let Err(error) = carry(&shared, &copy, number, turn).await {
                tracing::warn!(%error, "Rows of an open file of another member keep a journal file for now");
                return;
            }
        }
        let pruned = blocking(move || {
            prune(&shared);
            Ok::<_, OperatorError>(())
        });
        if let Err(error) = pruned.await {
            tracing::debug!(%error, "Journal files go later");
        }
        drop(alone);
    });
}

/// Writes the rows of a segment in one journal file again.
async fn carry(shared: &Arc<Shared>, copy: &Arc<OpenCopy>, number: u32, turn: Turn) -> Result<(), OperatorError> {
    let segment = &copy.segment;
    let positions = segment.positions_in(number);
    let mut rest = positions.as_slice();
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |position: &&Position| {
            bytes += position.length();
            bytes <= TOGETHER
        };
        let count = rest.iter().take_while(fits).count().max(1);
        let (now, later) = rest.split_at(count);
        rest = later;
        let (own, of, frames) = (Arc::clone(shared), Arc::clone(copy), now.to_vec());
        let entries: Vec<Entries> = blocking(move || again(&own, &of, &frames)).await?;
        let written = join_all(entries.into_iter().map(|entries| shared.journal.write(entries))).await;
        let moved = now.iter().zip(&written).filter_map(|(from, to)| Some((*from, to.as_ref().ok()?.position)));
        segment.moved(&moved.collect());
        if let Some(error) = written.into_iter().find_map(Result::err) {
            return Err(error.into());
        }
    }
    shared.journal.let_go(segment.header.id, number);
    drop(turn);
    Ok(())
}

/// The same frames anew. Blocks.
fn again(shared: &Shared, copy: &OpenCopy, frames: &[Position]) -> Result<Vec<Entries>, OperatorError> {
    frames.iter().map(|position| frame_again(shared, copy, *position)).collect()
}

fn frame_again(shared: &Shared, copy: &OpenCopy, position: Position) -> Result<Entries, OperatorError> {
    let header = &copy.segment.header;
    let (rows, lost) = shared.journal.rows_of(header.id, &[position]);
    if lost > 0 {
        return Err(OperatorError::Segment {
            segment: header.id.to_string(),
            table: format!("{}.{}", header.dbms, header.table),
            reason: format!("a frame in journal file {} cannot be read", position.file()),
        });
    }
    let mut entries = Entries::default();
    match copy.own {
        true => entries.followed(header.id),
        false => entries.copy(header.id),
    }
    for (sequence, entry) in rows {
        let RowsEntry { partition, zone, received, first_ordinal, rows, .. } = &entry;
        // A dropped partition is one, wherever its rows lie: the frame's new place comes behind the note of it.
        let place = partition.as_deref().unwrap_or(WHOLE_TABLE);
        let is_dropped = shared.tombstones.read().covers(&header.dbms, &header.table, place, sequence);
        let partition = if is_dropped { Some(DROPPED) } else { partition.as_deref() };
        entries.rows(header, Place { partition, zone, received: *received }, *first_ordinal, rows);
    }
    Ok(entries)
}
