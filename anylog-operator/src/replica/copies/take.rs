//! Rows of a mate's open file into the journal and the tables.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anylog_core::time::stored;
use anylog_dbms::{DbmsError, SegmentId, SqlValue, tsd};
use anylog_ingest::SinkError;
use anylog_replica::FileKey;
use anylog_replica::message::{About, Rows, RowsHeld, Run};
use jiff::Timestamp;
use tokio::sync::OwnedSemaphorePermit;

use super::{OpenCopy, bad, header_of, is_complete};
use crate::OperatorError;
use crate::apply::{Batch, BatchRow, Frame, Refusal};
use crate::fit::Came;
use crate::journal::Written;
use crate::journal::record::{Entries, MAX_BODY_BYTES, Place, SegmentHeader};
use crate::origin::Origin;
use crate::quarantine::{Problem, QuarantinedRow, key};
use crate::replica::holdings::Registry;
use crate::replica::receive::delete_rows;
use crate::segments::Segment;
use crate::store::{MEMORY_LIMIT, ROW_BYTES, Shared};
use crate::tables::{TableState, blocking};

/// How long rows of a mate wait for memory and their table. The mate is told nothing of this member's files meanwhile.
const PREPARING: Duration = Duration::from_secs(30);

/// Stores rows of a mate's open file. Says up to which ordinal the file is on stable storage here.
pub(in crate::replica) async fn take(shared: &Arc<Shared>, rows: Rows) -> Result<RowsHeld, OperatorError> {
    if shared.ending.load(Ordering::Relaxed) {
        return Err(OperatorError::NotRunning);
    }
    let file = rows.key();
    let held = |ordinal| RowsHeld { producer: file.producer, file: file.file, ordinal };
    let last = check(&rows)?;
    let _turn = shared.file_turns.take(file).await;
    let known = shared.segments.lock().copies.get(&file).cloned();
    let found = match known {
        Some(_) => Found::Nothing,
        None => found_otherwise(shared, file, rows.about.as_ref(), last).await?,
    };
    if let Found::Rows(ordinal) = found {
        return Ok(held(ordinal));
    }
    let before = known.as_ref().map_or(0, |copy| copy.segment.written_ordinal());
    if rows.previous > before || last <= before {
        return Ok(held(before));
    }
    let about = rows.about.clone().unwrap_or_default();
    let copy = match known {
        Some(copy) => {
            let same = about.segment.is_empty() || about.segment == copy.segment.header.id.0.to_le_bytes();
            if !same {
                return Err(bad(file, "it has another identity than the rows that came before"));
            }
            copy
        }
        None => {
            let copy = begin(file, &about)?;
            if found == Found::Remains {
                remove_remains(shared, file, &copy).await?;
            }
            copy
        }
    };
    append(shared, file, &copy, rows.runs, before, &about.create).await?;
    Ok(held(last))
}

/// Checks that rows are in order and make sense; returns the ordinal of the last.
fn check(rows: &Rows) -> Result<u64, OperatorError> {
    let file = rows.key();
    if rows.producer <= 0 || rows.file <= 0 {
        return Err(bad(file, "a member's number and a file's number are positive"));
    }
    let (mut last, mut bytes) = (rows.previous, 0);
    for run in rows.runs.iter().filter(|run| !run.rows.is_empty()) {
        let behind = run.first.checked_add(run.rows.len() as u64 - 1).filter(|_| run.first > last);
        last = behind.ok_or_else(|| bad(file, format!("rows from ordinal {} on follow ordinal {last}", run.first)))?;
        if Timestamp::from_microsecond(run.received).is_err() {
            return Err(bad(file, format!("the time {} is none", run.received)));
        }
        if run.rows.iter().any(|row| row.contains(['\n', '\r'])) {
            return Err(bad(file, "a row has more than one line"));
        }
        bytes += run.rows.iter().map(|row| row.len() + 64).sum::<usize>();
    }
    if bytes > MAX_BODY_BYTES / 2 {
        return Err(bad(file, format!("{bytes} bytes of rows are more than the journal takes")));
    }
    Ok(last)
}

/// What is here of a file without a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// All rows up to an ordinal: it is an own one that is open, or complete.
    Rows(u64),
    /// Rows that are to be replaced: the file was taken away.
    Remains,
    /// Nothing.
    Nothing,
}

/// Looks for a file that has no copy.
///
/// A member that lost its disk may give a number again. What is complete under it are other rows then: to say that these are here would
/// acknowledge them (DUR-3).
async fn found_otherwise(
    shared: &Shared,
    file: FileKey,
    about: Option<&About>,
    last: u64,
) -> Result<Found, OperatorError> {
    let registry = Registry::of(&shared.settings())?;
    if file.producer == registry.own {
        let segments = shared.segments.lock();
        let mut own = segments.open.values().chain(&segments.closing);
        if let Some(segment) = own.find(|segment| segment.file() == Some(file)) {
            return Ok(Found::Rows(segment.written_ordinal()));
        }
    }
    let waits = |shared: &Shared| {
        let recovered = shared.recovered.lock();
        let of_file =
            |header: &SegmentHeader| header.file_id == Some(file.file) && header.member.parse() == Ok(file.producer);
        let mut all = recovered.iter();
        all.find(|(_, segments)| segments.iter().any(|(segment, _)| of_file(&segment.header)))
            .map(|(dbms, _)| dbms.clone())
    };
    if let Some(name) = waits(shared) {
        return Err(DbmsError::NotConnected { name }.into());
    }
    let known = blocking(move || registry.get(file)).await?;
    if known.as_ref().is_some_and(|known| known.status1 == tsd::TAKEN_AWAY) {
        return Ok(Found::Remains);
    }
    let Some(known) = known.filter(is_complete) else { return Ok(Found::Nothing) };
    match about.map(|about| about.time).filter(|time| *time != known.time.as_microsecond()) {
        Some(_) => Err(bad(file, format!("another file of {} has this number", stored(known.time)))),
        None => Ok(Found::Rows(last)),
    }
}

/// Deletes the rows of a file that was taken away, and the marks of its segment: the copy that begins brings these rows.
async fn remove_remains(shared: &Arc<Shared>, file: FileKey, copy: &Arc<OpenCopy>) -> Result<(), OperatorError> {
    let (shared, header) = (Arc::clone(shared), Arc::clone(&copy.segment.header));
    blocking(move || {
        delete_rows(&shared, &header.dbms, &header.table, file, &HashSet::new())?;
        Ok::<_, OperatorError>(shared.catalog.get(&header.dbms)?.dbms().forget(&[header.id])?)
    })
    .await
}

/// A copy without rows.
fn begin(file: FileKey, about: &About) -> Result<Arc<OpenCopy>, OperatorError> {
    Ok(OpenCopy::new(Segment::copy(header_of(file, about)?), false))
}

/// Rows of a copy that follow each other and go to one place; or rows that do not fit here.
struct Piece {
    first: u64,
    received: Timestamp,
    zone: String,
    partition: Option<String>,
    table: Arc<TableState>,
    rows: Vec<BatchRow>,
    values: Vec<SqlValue>,
    problem: Option<Problem>,
}

impl Piece {
    fn last(&self) -> u64 {
        self.first + (self.rows.len() as u64).saturating_sub(1)
    }
}

/// Writes the rows behind an ordinal into the journal and sees that they are stored. Returns when they are on stable storage.
async fn append(
    shared: &Arc<Shared>,
    file: FileKey,
    copy: &Arc<OpenCopy>,
    runs: Vec<Run>,
    behind: u64,
    create: &str,
) -> Result<(), OperatorError> {
    let header = &copy.segment.header;
    // Nothing is written yet: who sent the rows sends them again.
    let prepared = tokio::time::timeout(PREPARING, prepare(shared, header, runs, behind, create)).await;
    let (permit, pieces) = prepared.map_err(|_| late(header))??;
    let mut entries = Entries::default();
    entries.copy(header.id);
    for piece in &pieces {
        let place = Place { partition: piece.partition.as_deref(), zone: &piece.zone, received: piece.received };
        let texts: Vec<&str> = piece.rows.iter().map(|row| row.text.as_str()).collect();
        entries.rows(header, place, piece.first, &texts);
    }
    let written = shared.journal.write(entries).await?;
    let refused: Vec<QuarantinedRow> = pieces.iter().flat_map(|piece| set_aside(shared, header, piece)).collect();
    let permit = Arc::new(permit);
    shared.segments.lock().copies.entry(file).or_insert_with(|| Arc::clone(copy));
    for piece in &pieces {
        copy.segment.departs();
        let bytes = piece.rows.iter().map(|row| row.text.len() as u64 + 1).sum();
        copy.segment.written(written.position, piece.last(), piece.rows.len() as u64, bytes);
    }
    // Rows that do not fit are in the quarantine before a mark passes over them. They are in the journal: that is their promise.
    let aside = (!refused.is_empty()).then(|| recall_and_add(shared, header.id, refused));
    let aside = match aside {
        Some(aside) => aside.await,
        None => Ok(()),
    };
    for piece in pieces {
        store(shared, copy, piece, &written, &permit, aside.is_ok());
    }
    aside
}

fn late(header: &SegmentHeader) -> OperatorError {
    let reason = format!(
        "rows of {} for {}.{} found neither memory nor their table within {} seconds",
        origin(header),
        header.dbms,
        header.table,
        PREPARING.as_secs()
    );
    SinkError::Failed { reason }.into()
}

/// Waits for room, and converts the rows behind an ordinal.
async fn prepare(
    shared: &Shared,
    header: &SegmentHeader,
    runs: Vec<Run>,
    behind: u64,
    create: &str,
) -> Result<(OwnedSemaphorePermit, Vec<Piece>), OperatorError> {
    shared.room().await?;
    shared.databases_work(std::iter::once(header.dbms.as_str())).await?;
    let bytes: usize = runs.iter().flat_map(|run| &run.rows).map(|row| row.len() + ROW_BYTES).sum();
    let wanted = u32::try_from(bytes.min(MEMORY_LIMIT)).unwrap_or(u32::MAX);
    let permit = Arc::clone(&shared.memory).acquire_many_owned(wanted).await.map_err(|_| OperatorError::NotRunning)?;
    let mut pieces = Vec::new();
    for run in runs {
        place(shared, header, run, behind, create, &mut pieces).await?;
    }
    pieces.sort_by_key(|piece| piece.first);
    Ok((permit, pieces))
}

/// Converts the rows of a run behind an ordinal, and finds their places.
async fn place(
    shared: &Shared,
    header: &SegmentHeader,
    mut run: Run,
    behind: u64,
    create: &str,
    pieces: &mut Vec<Piece>,
) -> Result<(), OperatorError> {
    let known = usize::try_from((behind + 1).saturating_sub(run.first)).unwrap_or(usize::MAX).min(run.rows.len());
    run.rows.drain(..known);
    let first = run.first + known as u64;
    if run.rows.is_empty() {
        return Ok(());
    }
    let received = Timestamp::from_microsecond(run.received).unwrap_or(header.opened);
    let came = Came { received, zone: &run.zone, create };
    let fitted = shared.fit_copy(&header.dbms, &header.table, run.rows, came).await?;
    let table = fitted.table;
    let width = table.data_width();
    let piece = |first, partition, problem| {
        let (rows, values, zone) = (Vec::new(), Vec::new(), run.zone.clone());
        Piece { first, received, zone, partition, table: Arc::clone(&table), rows, values, problem }
    };
    for placed in fitted.runs {
        let mut values = placed.values.into_iter();
        let mut next = None;
        for mut row in placed.rows {
            row.ordinal = first + row.position as u64;
            row.position = usize::try_from(row.ordinal - 1).unwrap_or(usize::MAX);
            if next != Some(row.ordinal) {
                pieces.push(piece(row.ordinal, placed.partition.clone(), None));
            }
            next = Some(row.ordinal + 1);
            if let Some(last) = pieces.last_mut() {
                last.rows.push(row);
                last.values.extend(values.by_ref().take(width));
            }
        }
    }
    for (position, problem, text) in fitted.refused {
        let ordinal = first + position as u64;
        let mut refused = piece(ordinal, None, Some(problem));
        let position = usize::try_from(ordinal - 1).unwrap_or(usize::MAX);
        refused.rows.push(BatchRow { ordinal, position, text });
        pieces.push(refused);
    }
    Ok(())
}

fn origin(header: &SegmentHeader) -> String {
    format!("member {}, file {}", header.member, header.file_id.unwrap_or_default())
}

/// The records of a piece whose rows do not fit.
fn set_aside(shared: &Shared, header: &SegmentHeader, piece: &Piece) -> Vec<QuarantinedRow> {
    let Some(problem) = &piece.problem else { return Vec::new() };
    let (now, target) = (stored(shared.now()), (header.dbms.as_str(), header.table.as_str()));
    let record = |row: &BatchRow| {
        let record =
            QuarantinedRow::of_row(key(header.id, row.ordinal), now.clone(), target, problem, row.text.clone());
        record.mapped(&header.source, &header.instructions).from(&origin(header), row.position)
    };
    piece.rows.iter().map(record).collect()
}

/// Puts records aside, save those that an earlier run put there.
async fn recall_and_add(
    shared: &Arc<Shared>,
    segment: SegmentId,
    records: Vec<QuarantinedRow>,
) -> Result<(), OperatorError> {
    let shared = Arc::clone(shared);
    blocking(move || {
        if shared.quarantine.ordinals(segment).is_empty() {
            shared.quarantine.recall(segment)?;
        }
        shared.quarantine.add_promised(records)
    })
    .await
}

/// Hands the rows of a piece to the thread of their database, at once: whoever asks this member while the producer is away is to get
/// them. `settled` is false when rows before them may not be passed over. The permit is held until they are stored.
fn store(
    shared: &Arc<Shared>,
    copy: &OpenCopy,
    piece: Piece,
    written: &Written,
    permit: &Arc<OwnedSemaphorePermit>,
    settled: bool,
) {
    let segment = Arc::clone(&copy.segment);
    if !settled {
        segment.leave_to_marks();
    }
    if !segment.is_applied() {
        return segment.landed([], false);
    }
    if piece.problem.is_some() {
        return segment.landed([], true);
    }
    let Ok(applier) = shared.applier(&segment.header.dbms) else { return segment.landed([], false) };
    let mark = piece.last();
    let batch = Batch {
        segment: Arc::clone(&segment.header),
        shared: piece.table.own_values(&segment.header, piece.received),
        table: piece.table,
        partition: piece.partition,
        frame: Frame::At(written.sequence),
        rows: piece.rows,
        values: piece.values,
        origin: Arc::new(Origin::of(&origin(&segment.header))),
        mark,
    };
    let (own, permit) = (Arc::clone(&segment), Arc::clone(permit));
    let settled = move |result: Result<Vec<Refusal>, DbmsError>| {
        let refused = result.as_deref().unwrap_or_default().iter().map(|refusal| refusal.ordinal);
        own.landed(refused, result.is_ok());
        drop(permit);
    };
    applier.submit(batch, segment, Box::new(settled));
}
