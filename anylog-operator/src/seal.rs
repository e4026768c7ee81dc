//! From a closed segment to a source file.
//!
//! 1. Every row is applied in its target, and the databases are synced. Most were applied while the segment was open.
//! 2. The source file is written ([`source`]) under its final name: `<dbms>.<table>.<source>.<hash>.<instructions>.<member>.<file id>.<date>`.
//!    Its date is the time of the `tsd_info` row, its hash follows from the rows, so a repeated seal makes the same file.
//! 3. The `tsd_info` row gets the hash and the number of rows, in one commit.
//! 4. The journal says that the segment is sealed, durably.
//! 5. Journal files that nobody needs are removed, after the applied marks of their segments were forgotten.
//!
//! Each step can be repeated, so a crash between two of them costs nothing: the next start applies what the marks do not cover,
//! and goes through the steps again.

mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use anylog_core::time::stored;
use anylog_dbms::schema::{ConvertedRow, RowConverter};
use anylog_dbms::{Database, DbmsError, SegmentId, SqlValue, Target, TsdUpdate};

use anylog_ingest::SinkError;

use crate::OperatorError;
use crate::apply::{Batch, BatchRow, Frame, gone, store};
use crate::journal::Position;
use crate::journal::record::{Entries, RowsEntry, SegmentHeader};
use crate::origin::Origin;
use crate::quarantine::{Problem, QuarantinedRow, key};
use crate::replay::{DROPPED, WHOLE_TABLE};
use crate::replica::{copies, open::sealed};
use crate::segments::Segment;
use crate::store::Shared;
use crate::tables::TableState;
pub(crate) use source::{Ahead, write_copy as seal_copy};
use source::{Begun, Source, SourceWriter, advance};

/// How often open segments are looked at.
const PERIOD: Duration = Duration::from_millis(100);
/// How many of these looks go by between two for journal files that nobody needs.
const PRUNE_TURNS: u32 = 10;
/// Pauses between attempts to seal a segment.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
const FAILING_PAUSE: Duration = Duration::from_secs(2);
/// Rows of a segment that are applied together.
const PIECE_ROWS: usize = 20_000;
/// A segment with fewer bytes of rows is not worth threads of its own.
const BESIDE_BYTES: u64 = 256 << 10;
/// Segments that are sealed at one time.
const AT_ONCE: usize = 3;

/// Closes segments that reach a threshold and seals what is closed, until cancelled.
pub(crate) async fn run(shared: Arc<Shared>, stop: tokio_util::sync::CancellationToken) {
    let room = Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
    let mut started: Vec<SegmentId> = Vec::new();
    let mut turns = 0u32;
    loop {
        let now = shared.now();
        let (closing, growing) = {
            let mut segments = shared.segments.lock();
            segments.close_due(now, false);
            (segments.closing.clone(), segments.growing())
        };
        for (segment, frames) in growing {
            let shared = Arc::clone(&shared);
            tokio::task::spawn_blocking(move || advance(&shared, &segment, frames));
        }
        started.retain(|id| closing.iter().any(|segment| segment.header.id == *id));
        for segment in closing {
            if started.contains(&segment.header.id) {
                continue;
            }
            started.push(segment.header.id);
            tokio::spawn(seal_until_done(Arc::clone(&shared), segment, stop.clone(), Arc::clone(&room)));
        }
        // Files without rows - packet ids, dropped partitions - go without a seal.
        turns = turns.wrapping_add(1);
        if turns.is_multiple_of(PRUNE_TURNS) {
            copies::tend(&shared);
        }
        if turns.is_multiple_of(PRUNE_TURNS) && !shared.journal.removable().is_empty() {
            let shared = Arc::clone(&shared);
            tokio::task::spawn_blocking(move || prune(&shared));
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = shared.due.notified() => tokio::time::sleep(PERIOD / 5).await,
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

async fn seal_until_done(
    shared: Arc<Shared>,
    segment: Arc<Segment>,
    stop: tokio_util::sync::CancellationToken,
    room: Arc<tokio::sync::Semaphore>,
) {
    segment.quiet().await;
    // No more rows come: those that are still in memory need not wait for company.
    shared.urge(Some(&segment.header.dbms));
    segment.settled().await;
    let mut pause = FIRST_PAUSE;
    while !stop.is_cancelled() && !shared.ending.load(Ordering::Relaxed) {
        let result = {
            let Ok(_permit) = room.acquire().await else { return };
            let (shared, segment) = (Arc::clone(&shared), Arc::clone(&segment));
            tokio::task::spawn_blocking(move || seal(&shared, &segment)).await
        };
        match result {
            Ok(Ok(())) => {
                shared.released.notify_waiters();
                return;
            }
            Ok(Err(error)) => {
                let header = &segment.header;
                tracing::warn!(dbms = header.dbms, table = header.table, %error, "A segment cannot be sealed at the moment; trying again");
                shared.stats.error(
                    true,
                    shared.now(),
                    &header.dbms,
                    &header.table,
                    error.status().0,
                    &error.to_string(),
                );
            }
            Err(error) => tracing::error!(%error, "A seal ended unexpectedly; trying again"),
        }
        // Senders to a database that fails are told so until a row was stored there.
        let failing = shared.stats.failing(&segment.header.dbms).is_some();
        let longest = if failing { FAILING_PAUSE } else { LONGEST_PAUSE };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause.min(longest)) => pause = (pause * 2).min(LONGEST_PAUSE),
        }
    }
}

/// Seals a segment that is closed and has nothing under way. Blocks.
pub(crate) fn seal(shared: &Arc<Shared>, segment: &Arc<Segment>) -> Result<(), OperatorError> {
    let mut ahead = segment.sealing.lock();
    if segment.sealed.is_cancelled() {
        return Ok(());
    }
    let source = store_rows(shared, segment, &mut ahead)?;
    register(shared, &segment.header, &source)?;
    if let Some(sealed) = sealed(segment, &source.hash, source.rows) {
        shared.completed(sealed, source.rows);
    }
    mark_sealed(shared, segment)?;
    prune(shared);
    let header = &segment.header;
    let immediate = segment.threshold.immediate;
    shared.stats.table(&header.dbms, &header.table, |stats| {
        stats.files += 1;
        stats.immediate_files += u64::from(immediate);
        stats.last_file = Some(shared.now());
        if !immediate {
            stats.batch_inserts += 1;
            stats.stored += source.rows;
        }
    });
    shared.segments.lock().done(segment);
    segment.sealed.cancel();
    Ok(())
}

/// Frames of a segment, each with its place in the journal.
type Piece = Vec<(u64, RowsEntry)>;

/// Steps 1 and 2, in one pass over the rows: a segment may be larger than what is to be held in memory.
fn store_rows(shared: &Arc<Shared>, segment: &Arc<Segment>, ahead: &mut Ahead) -> Result<Source, OperatorError> {
    let header = &segment.header;
    let database = shared.catalog.get(&header.dbms)?;
    let applied = segment.is_applied();
    if !applied {
        ahead.discard();
    }
    let mut begun = ahead.take(&shared.settings(), header)?;
    let positions = segment.positions(begun.frames..usize::MAX);
    let finished = if applied {
        begun.go_on(shared, segment, &positions)
    } else {
        apply_and_write(shared, segment, &database, &positions, &mut begun)
    };
    let finished = finished.and_then(|()| {
        if begun.lost > 0 {
            let reason = format!("{} frames cannot be read back from the journal", begun.lost);
            shared.stats.error(false, shared.now(), &header.dbms, &header.table, 3, &reason);
        }
        segment.set_applied();
        if begun.frames > 0 {
            database.dbms().sync()?;
        }
        Ok(())
    });
    match finished {
        Ok(()) => begun.source.finish(header),
        Err(error) => {
            begun.source.discard();
            Err(error)
        }
    }
}

/// The same for rows that are to be applied first.
fn apply_and_write(
    shared: &Arc<Shared>,
    segment: &Segment,
    database: &Arc<Database>,
    positions: &[Position],
    begun: &mut Begun,
) -> Result<(), OperatorError> {
    let header = &segment.header;
    let apply = |entries: &Piece| -> Result<(), OperatorError> {
        segment.refuse(apply_entries(shared, database, header, entries)?);
        Ok(())
    };
    begun.lost += if segment.size().1 < BESIDE_BYTES {
        shared.journal.each_rows_of(header.id, positions, |entries| {
            apply(&entries)?;
            begun.source.add_entries(&entries, &segment.refused())
        })?
    } else {
        store_beside(shared, segment, positions, apply, &mut begun.source)?
    };
    begun.frames += positions.len();
    Ok(())
}

/// Reads the journal and writes the source file beside applying the rows, which takes longest. Pieces keep their order, and one
/// waits before each step at most. Returns the number of frames that cannot be read.
fn store_beside(
    shared: &Shared,
    segment: &Segment,
    positions: &[Position],
    apply: impl Fn(&Piece) -> Result<(), OperatorError>,
    source: &mut SourceWriter,
) -> Result<usize, OperatorError> {
    let (read, to_apply) = sync_channel::<Piece>(1);
    let (applied, to_write) = sync_channel::<Piece>(1);
    std::thread::scope(|scope| {
        // A step that failed takes nothing more, and so ends the one before it.
        let reading = scope.spawn(move || {
            shared.journal.each_rows_of(segment.header.id, positions, |entries| read.send(entries)).unwrap_or_default()
        });
        let writing = scope.spawn(move || {
            to_write.into_iter().try_for_each(|entries| source.add_entries(&entries, &segment.refused()))
        });
        let applying = to_apply.into_iter().try_for_each(|entries| {
            apply(&entries)?;
            // When the writer failed, its own error is reported below.
            drop(applied.send(entries));
            Ok(())
        });
        drop(applied);
        let panicked =
            |_| OperatorError::from(SinkError::Failed { reason: "a thread of the seal panicked".to_owned() });
        let written = writing.join().map_err(panicked)?;
        let lost = reading.join().map_err(panicked)?;
        applying.and(written).map(|()| lost)
    })
}

/// Applies rows of a segment that the applied marks do not cover; returns the ordinals that went to the quarantine.
pub(crate) fn apply_entries(
    shared: &Arc<Shared>,
    database: &Arc<Database>,
    header: &Arc<SegmentHeader>,
    entries: &[(u64, RowsEntry)],
) -> Result<Vec<u64>, OperatorError> {
    // Neither rows that were dropped nor the table that they were in come back.
    let is_there = |(sequence, entry): &&(u64, RowsEntry)| {
        let place = entry.partition.as_deref().unwrap_or(WHOLE_TABLE);
        place != DROPPED && !shared.tombstones.read().covers(&header.dbms, &header.table, place, *sequence)
    };
    let entries: Vec<&(u64, RowsEntry)> = entries.iter().filter(is_there).collect();
    if entries.is_empty() {
        return Ok(Vec::new());
    }
    let sample: Vec<String> =
        entries.iter().flat_map(|(_, entry)| entry.rows.iter().take(100).cloned()).take(1000).collect();
    let table = shared.tables.for_rows(database, &header.table, &sample)?;
    let mut marks: BTreeMap<Option<&String>, Option<u64>> = BTreeMap::new();
    let (mut batches, mut refused, mut waiting) = (Vec::new(), Vec::new(), 0);
    // Rows that the engine refused before a crash: they are in the quarantine, or left it since.
    let known = shared.quarantine.ordinals(header.id);
    let origin = Arc::new(Origin::of("journal"));
    let mut converter: Option<(&str, RowConverter)> = None;
    for (sequence, entry) in entries {
        let partition = entry.partition.as_ref();
        let mark = match marks.get(&partition) {
            Some(mark) => *mark,
            None => {
                let mark = applied_mark(&table, entry.partition.as_deref(), header.id)?;
                marks.insert(partition, mark);
                mark
            }
        };
        let last = entry.first_ordinal + (entry.rows.len() as u64).saturating_sub(1);
        if mark.is_some_and(|mark| mark >= last) {
            continue;
        }
        if converter.as_ref().is_none_or(|(zone, _)| *zone != entry.zone.as_str()) {
            converter = Some((&entry.zone, table.replay_converter(&entry.zone)));
        }
        let Some((_, converter)) = &converter else { continue };
        let ConvertedEntry { rows, values, bad } = convert_entry(shared, converter, header, entry, mark, &known);
        refused.extend(bad.iter().map(|(ordinal, _)| *ordinal));
        shared.quarantine.add_promised(bad.into_iter().map(|(_, row)| row).collect())?;
        batches.push(Batch {
            segment: Arc::clone(header),
            table: Arc::clone(&table),
            partition: entry.partition.clone(),
            frame: Frame::At(*sequence),
            shared: table.own_values(header, entry.received),
            rows,
            values,
            origin: Arc::clone(&origin),
            mark: last,
        });
        // A large segment is applied in pieces, so that it need not be held as a whole.
        waiting += entry.rows.len();
        if waiting >= PIECE_ROWS {
            waiting = 0;
            settle(shared, &table, std::mem::take(&mut batches), &mut refused)?;
        }
    }
    settle(shared, &table, batches, &mut refused)?;
    Ok(refused)
}

/// Stores rows. A database that fails is not waited for: the seal is tried again, and others have their turn meanwhile.
fn settle(shared: &Shared, table: &TableState, batches: Vec<Batch>, refused: &mut Vec<u64>) -> Result<(), DbmsError> {
    for result in store(shared, batches, false) {
        let refusals = result.inspect_err(|error| {
            if gone(shared, table).is_none() {
                shared.stats.database_fails(&table.dbms, error);
            }
        })?;
        refused.extend(refusals.into_iter().map(|refusal| refusal.ordinal));
    }
    Ok(())
}

/// The mark of a segment in a target; the target is made when it is missing.
fn applied_mark(table: &TableState, partition: Option<&str>, segment: SegmentId) -> Result<Option<u64>, DbmsError> {
    if partition.is_none_or(|partition| !table.knows_partition(partition)) {
        table.create(partition)?;
    }
    let target = Target { table: table.table.clone(), partition: partition.map(str::to_owned) };
    table.database.dbms().applied(&target, segment)
}

/// Rows of a frame as values.
struct ConvertedEntry {
    rows: Vec<BatchRow>,
    values: Vec<SqlValue>,
    /// Those that do not fit any more, by ordinal.
    bad: Vec<(u64, QuarantinedRow)>,
}

/// Converts what an entry holds behind `mark`, save the rows that are `known` to be in the quarantine, or were.
fn convert_entry(
    shared: &Shared,
    converter: &RowConverter,
    header: &SegmentHeader,
    entry: &RowsEntry,
    mark: Option<u64>,
    known: &BTreeSet<u64>,
) -> ConvertedEntry {
    let mut converted = ConvertedRow { values: Vec::new(), widen: Vec::new() };
    let (mut rows, mut bad) = (Vec::with_capacity(entry.rows.len()), Vec::new());
    for (position, text) in entry.rows.iter().enumerate() {
        let ordinal = entry.first_ordinal + position as u64;
        if mark.is_some_and(|mark| ordinal <= mark) || known.contains(&ordinal) {
            continue;
        }
        match converter.convert_into(text, entry.received, &mut converted) {
            Ok(()) => rows.push(BatchRow { ordinal, position, text: text.clone() }),
            Err(problem) => {
                let (key, now) = (key(header.id, ordinal), stored(shared.now()));
                let target = (header.dbms.as_str(), header.table.as_str());
                let row = QuarantinedRow::of_row(key, now, target, &Problem::from(problem), text.clone());
                bad.push((ordinal, row.mapped(&header.source, &header.instructions).from("journal", position)));
            }
        }
    }
    ConvertedEntry { rows, values: converted.values, bad }
}

/// Step 3.
pub(crate) fn register(shared: &Shared, header: &SegmentHeader, source: &Source) -> Result<(), OperatorError> {
    let Some(file_id) = header.file_id else { return Ok(()) };
    let tsd = shared.settings().tsd.clone().or_else(|| shared.catalog.tsd());
    let Some(tsd) = tsd else {
        return Err(DbmsError::NotConnected { name: anylog_dbms::tsd::DATABASE.into() }.into());
    };
    let void = source.rows == 0;
    let update = TsdUpdate {
        hash: Some(source.hash.clone()),
        rows: Some(source.rows),
        status1: void.then(|| "void".to_owned()),
        status2: void.then(|| "No rows came for this file".to_owned()),
    };
    if !tsd.update(anylog_dbms::tsd::OWN_TABLE, file_id, &update)? {
        // Somebody deleted the row; the rows are stored all the same.
        tracing::warn!(file_id, "The row of a source file is not in tsd_info any more");
    }
    Ok(())
}

/// Step 4.
pub(crate) fn mark_sealed(shared: &Shared, segment: &Segment) -> Result<(), OperatorError> {
    let mut entries = Entries::default();
    entries.sealed(segment.header.id);
    shared.journal.write_blocking(entries)?;
    shared.journal.release(segment.header.id);
    shared.quarantine.sealed(segment.header.id);
    Ok(())
}

/// Step 5. What cannot be done now is done after a later seal.
pub(crate) fn prune(shared: &Shared) {
    let Some(_one_at_a_time) = shared.pruning.try_lock() else { return };
    // The journal says which records left the quarantine, until their files say so too.
    if !shared.quarantine.lets_go() {
        return;
    }
    for file in shared.journal.removable() {
        let mut by_database: BTreeMap<&str, Vec<SegmentId>> = BTreeMap::new();
        for (segment, dbms) in &file.forget {
            by_database.entry(dbms).or_default().push(*segment);
        }
        for (dbms, segments) in by_database {
            let forgotten = shared.catalog.get(dbms).and_then(|database| database.dbms().forget(&segments));
            if let Err(error) = forgotten {
                tracing::debug!(dbms, %error, "Applied marks stay for now, and with them a journal file");
                return;
            }
        }
        if let Err(error) = shared.deliveries.carry(&shared.journal, file.number()) {
            tracing::debug!(%error, "QoS 2 packets stay where they are for now, and with them a journal file");
            return;
        }
        shared.journal.remove(&file);
        shared.tombstones.write().forget(file.number());
    }
    shared.released.notify_waiters();
}
