//! Rows into databases.
//!
//! Each logical database has one applying thread with group commit ([`applier`]): it takes all batches that wait, and stores the
//! rows of one target (a table or a partition) with one transaction, together with the applied marks of their segments. Batches
//! of one segment reach the thread in the order of their ordinals, and the thread keeps that order, so a mark means that every
//! earlier row of the segment that belongs to the target is settled: stored, or in the quarantine.
//!
//! # Ahead of the journal
//!
//! Rows of an immediate segment come to the thread together with their frame's way to the journal ([`Frame::Coming`]). Their
//! transaction is filled while the journal writes and syncs ([`growth`]), and is committed when all of its frames are on stable storage,
//! else undone as a whole. So nobody sees a row, and no mark covers one, that is not in the journal. When it was undone, or fails, its
//! batches are settled in due order instead, each by what became of its frame: rows of a lost frame are nowhere, those of a dropped
//! partition are void, the others are stored as if they had come behind their frames.
//!
//! A transaction stays open as long as more rows come for its place, within bounds. Rows whose frames are written, and behind which
//! others come, are answered before it ends: they are in the journal, the engine took them, and whoever begins to read where they lie
//! waits until they are committed ([`anylog_dbms::growing`]). The last rows are answered when they are committed, so when all are
//! answered all are committed.
//!
//! While it waits for the journal, the thread holds the writer of its database. So the journal's thread, and what it calls, must never
//! wait for a database.
//!
//! # Failures
//!
//! When a batch cannot be stored at all - the node ends, the database was disconnected - no later one of its segment is: the rest
//! of the segment is stored from the journal, at its seal or by the next start.
//!
//! A row that the engine refuses goes, alone, to the quarantine - durably, before the commit whose mark covers it - and the rest
//! goes on. A failure that is not a row's fault (a full disk, a lost connection) is tried again until it passes: what is
//! in the journal has been promised.

mod applier;
mod growth;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anylog_core::time::stored;
use anylog_dbms::{Dbms, DbmsError, Marks, RowRef, SegmentId, SqlValue, Target};

use crate::journal::Landing;
use crate::journal::record::SegmentHeader;
use crate::origin::Origin;
use crate::quarantine::{Problem, QuarantinedRow, key};
use crate::replay::WHOLE_TABLE;
use crate::store::Shared;
use crate::tables::TableState;
pub(crate) use applier::{Applier, KEPT_LIMIT, Kept, Waiting};

/// Pauses between attempts after a failure that may pass.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Rows of one segment for one target.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) segment: Arc<SegmentHeader>,
    pub(crate) table: Arc<TableState>,
    pub(crate) partition: Option<String>,
    /// The frame of the rows.
    pub(crate) frame: Frame,
    /// The values of the operator's own columns, the same in all rows.
    pub(crate) shared: Vec<SqlValue>,
    pub(crate) rows: Vec<BatchRow>,
    /// The values of the data columns, row after row.
    pub(crate) values: Vec<SqlValue>,
    pub(crate) origin: Arc<Origin>,
    /// The last ordinal of the segment that is settled with this batch.
    pub(crate) mark: u64,
}

/// Where rows are in the journal.
#[derive(Debug, Clone)]
pub(crate) enum Frame {
    /// They do not come from there.
    Outside,
    /// At this place.
    At(u64),
    /// On their way: what becomes of them is told here.
    Coming(Arc<Landing>),
}

/// What is known of a batch's frame when it must be known.
enum Arrival {
    /// Its rows are to be stored.
    Here,
    /// They were dropped with their partition.
    Dropped,
    /// The frame is not in the journal, so its rows are nowhere.
    Lost,
}

impl Batch {
    /// What became of the frame; waits for that.
    fn arrival(&self, shared: &Shared) -> Arrival {
        let sequence = match &self.frame {
            Frame::Outside => return Arrival::Here,
            Frame::At(sequence) => *sequence,
            Frame::Coming(landing) => match landing.wait() {
                Some(sequence) => sequence,
                None => return Arrival::Lost,
            },
        };
        let partition = self.partition.as_deref().unwrap_or(WHOLE_TABLE);
        let dropped = shared.tombstones.read().covers(&self.segment.dbms, &self.segment.table, partition, sequence);
        if dropped { Arrival::Dropped } else { Arrival::Here }
    }
}

/// One row of a batch.
#[derive(Debug)]
pub(crate) struct BatchRow {
    pub(crate) ordinal: u64,
    /// Which row of its message or file it was, from 0.
    pub(crate) position: usize,
    pub(crate) text: String,
}

/// A row that the engine refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) ordinal: u64,
    pub(crate) position: usize,
    pub(crate) reason: String,
}

/// Stores batches of one database, in order, and says for each what was refused. Waits while the database fails.
pub(crate) fn apply(shared: &Shared, batches: Vec<Batch>) -> Vec<Result<Vec<Refusal>, DbmsError>> {
    store(shared, batches, true)
}

/// As [`apply`]; who is not `patient` does not wait for a database that fails.
pub(crate) fn store(shared: &Shared, batches: Vec<Batch>, patient: bool) -> Vec<Result<Vec<Refusal>, DbmsError>> {
    store_into(shared, batches, None, patient)
}

/// As [`apply`], in the place of the rows of a source file - its member and its number - that are in the batches' targets: of each
/// target in the transaction that brings the first rows.
pub(crate) fn replace(shared: &Shared, batches: Vec<Batch>, file: (&str, i64)) -> Vec<Result<Vec<Refusal>, DbmsError>> {
    store_into(shared, batches, Some(file), true)
}

fn store_into(
    shared: &Shared,
    batches: Vec<Batch>,
    replaced: Option<(&str, i64)>,
    patient: bool,
) -> Vec<Result<Vec<Refusal>, DbmsError>> {
    let mut results: Vec<Result<Vec<Refusal>, DbmsError>> = batches.iter().map(|_| Ok(Vec::new())).collect();
    let mut groups: Vec<Group> = Vec::new();
    let mut known: HashMap<(usize, Option<String>), usize> = HashMap::new();
    for (number, batch) in batches.into_iter().enumerate() {
        // Batches made under another schema of the same table have other columns, so they are stored apart.
        let place = (Arc::as_ptr(&batch.table).addr(), batch.partition.clone());
        let at = *known.entry(place).or_insert_with(|| {
            let table = batch.segment.table.clone();
            let target = Target { table, partition: batch.partition.clone() };
            groups.push(Group { table: Arc::clone(&batch.table), target, pieces: Vec::new() });
            groups.len() - 1
        });
        groups[at].pieces.push((number, batch));
    }
    // Groups of one target under two schemas follow each other: what could not be stored must not be passed over by a later mark.
    let mut failed: Option<DbmsError> = None;
    let mut begun: HashSet<Target> = HashSet::new();
    for group in groups {
        let numbers: Vec<usize> = group.pieces.iter().map(|(number, _)| *number).collect();
        let replaced = replaced.filter(|_| begun.insert(group.target.clone()));
        let settled = failed.clone().map_or_else(|| group.settle(shared, replaced, patient, &mut results), Err);
        if let Err(error) = settled {
            for number in numbers {
                results[number] = Err(error.clone());
            }
            failed = Some(error);
        }
    }
    results
}

/// Batches that go into one target.
struct Group {
    table: Arc<TableState>,
    target: Target,
    pieces: Vec<(usize, Batch)>,
}

/// Rows of one batch.
struct Piece {
    /// The batch.
    number: usize,
    segment: SegmentId,
    shared: Vec<SqlValue>,
    rows: Vec<BatchRow>,
    values: Vec<SqlValue>,
    origin: Arc<Origin>,
}

impl Piece {
    /// Values of a row beside the shared ones.
    fn width(&self) -> usize {
        self.values.len() / self.rows.len().max(1)
    }

    /// Takes the rows from `at` on away.
    fn split_off(&mut self, at: usize) -> Self {
        let values = self.values.split_off(at * self.width());
        let (rows, shared, origin) = (self.rows.split_off(at), self.shared.clone(), Arc::clone(&self.origin));
        Self { number: self.number, segment: self.segment, shared, rows, values, origin }
    }

    fn remove(&mut self, at: usize) {
        let width = self.width();
        self.values.drain(at * width..(at + 1) * width);
        self.rows.remove(at);
    }
}

/// The rows of values that lie row after row.
fn row_refs<'a>(shared: &'a [SqlValue], values: &'a [SqlValue], rows: usize) -> impl Iterator<Item = RowRef<'a>> {
    let width = values.len() / rows.max(1);
    (0..rows).map(move |at| RowRef { shared, own: &values[at * width..(at + 1) * width] })
}

/// Rows that are stored by one call.
struct Chunk {
    pieces: Vec<Piece>,
    marks: Marks,
}

impl Chunk {
    fn len(&self) -> usize {
        self.pieces.iter().map(|piece| piece.rows.len()).sum()
    }

    fn rows(&self) -> Vec<RowRef<'_>> {
        let mut rows = Vec::with_capacity(self.len());
        for piece in &self.pieces {
            rows.extend(row_refs(&piece.shared, &piece.values, piece.rows.len()));
        }
        rows
    }

    /// The piece that holds a row, and the row's place in it.
    fn place(&self, mut index: usize) -> Option<(usize, usize)> {
        for (at, piece) in self.pieces.iter().enumerate() {
            if index < piece.rows.len() {
                return Some((at, index));
            }
            index -= piece.rows.len();
        }
        None
    }
}

impl Group {
    fn settle(
        self,
        shared: &Shared,
        replaced: Option<(&str, i64)>,
        patient: bool,
        results: &mut [Result<Vec<Refusal>, DbmsError>],
    ) -> Result<(), DbmsError> {
        let Group { table, target, mut pieces } = self;
        pieces.retain(|(_, batch)| matches!(batch.arrival(shared), Arrival::Here));
        if pieces.is_empty() {
            return Ok(());
        }
        let mut chunk = Chunk { pieces: Vec::with_capacity(pieces.len()), marks: Marks::default() };
        for (number, batch) in pieces {
            let segment = batch.segment.id;
            chunk.marks.raise(segment, batch.mark);
            let Batch { shared, rows, values, origin, .. } = batch;
            chunk.pieces.push(Piece { number, segment, shared, rows, values, origin });
        }
        let started = Instant::now();
        let (table, target) = (&table, &target);
        let mut attempt = Attempt { shared, table, target, replaced, patient, pause: FIRST_PAUSE, repaired: false };
        let mut chunks = VecDeque::from([chunk]);
        while let Some(chunk) = chunks.pop_front() {
            if let Some(rest) = attempt.store(chunk, results)? {
                for half in rest.into_iter().rev() {
                    chunks.push_front(half);
                }
            }
        }
        shared.stats.applied(&table.dbms, &table.table, started.elapsed());
        Ok(())
    }
}

struct Attempt<'a> {
    shared: &'a Shared,
    table: &'a TableState,
    target: &'a Target,
    /// The source file whose rows go with the next transaction.
    replaced: Option<(&'a str, i64)>,
    patient: bool,
    pause: Duration,
    repaired: bool,
}

impl Attempt<'_> {
    /// Stores a chunk. Gives it back in two halves when one of its rows is refused and the engine cannot say which.
    fn store(
        &mut self,
        mut chunk: Chunk,
        results: &mut [Result<Vec<Refusal>, DbmsError>],
    ) -> Result<Option<[Chunk; 2]>, DbmsError> {
        let dbms: &dyn Dbms = self.table.database.dbms().as_ref();
        loop {
            let (columns, rows) = (&self.table.columns, chunk.rows());
            let stored = match self.replaced {
                Some(file) => dbms.replace_file(self.target, file, columns, &rows, chunk.marks.all()),
                None => dbms.apply_rows(self.target, columns, &rows, chunk.marks.all()),
            };
            drop(rows);
            let error = match stored {
                Ok(()) => {
                    self.replaced = None;
                    self.shared.stats.database_works(&self.table.dbms);
                    return Ok(None);
                }
                Err(error) => error,
            };
            match error {
                DbmsError::RowRefused { index, reason } if index < chunk.len() => {
                    self.refuse(&mut chunk, index, reason, results)?;
                }
                DbmsError::DiskFull { .. } | DbmsError::Connect { .. } | DbmsError::Unavailable { .. } => {
                    self.wait(&error)?;
                }
                error => {
                    if !self.repaired {
                        self.repaired = true;
                        // The table or partition may be gone since its rows were taken: it is made again.
                        if self.table.create(self.target.partition.as_deref()).is_ok() {
                            continue;
                        }
                    }
                    if chunk.len() == 0 || !works(dbms) {
                        self.wait(&error)?;
                    } else if chunk.len() == 1 {
                        self.refuse(&mut chunk, 0, error.to_string(), results)?;
                    } else {
                        return Ok(Some(halves(chunk)));
                    }
                }
            }
        }
    }

    fn refuse(
        &mut self,
        chunk: &mut Chunk,
        index: usize,
        reason: String,
        results: &mut [Result<Vec<Refusal>, DbmsError>],
    ) -> Result<(), DbmsError> {
        let Some((at, index)) = chunk.place(index) else { return Ok(()) };
        let (piece, tag) = (&chunk.pieces[at], &chunk.pieces[at].rows[index]);
        let now = self.shared.node.clock.now();
        let target = (self.table.dbms.as_str(), self.table.table.as_str());
        let problem = Problem::new("database", reason.as_str());
        let row =
            QuarantinedRow::of_row(key(piece.segment, tag.ordinal), stored(now), target, &problem, tag.text.clone())
                .from(piece.origin.text(), piece.origin.position(tag.position));
        while let Err(error) = self.shared.quarantine.add_promised(vec![row.clone()]) {
            self.wait(&DbmsError::Statement { engine: "quarantine".into(), reason: error.to_string() })?;
        }
        if let Ok(refused) = &mut results[piece.number] {
            refused.push(Refusal { ordinal: tag.ordinal, position: tag.position, reason });
        }
        chunk.pieces[at].remove(index);
        Ok(())
    }

    fn wait(&mut self, error: &DbmsError) -> Result<(), DbmsError> {
        if gone(self.shared, self.table).is_some() {
            self.shared.stats.database_works(&self.table.dbms);
            return Err(error.clone());
        }
        if !self.patient {
            return Err(error.clone());
        }
        self.shared.stats.database_fails(&self.table.dbms, error);
        if self.shared.ending.load(Ordering::Relaxed) {
            return Err(error.clone());
        }
        tracing::warn!(dbms = self.table.dbms, %error, "Rows cannot be stored at the moment; trying again");
        pause(self.pause, &self.shared.ending);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}

/// Why rows cannot be stored in a database any more: it was disconnected, and perhaps another one connected by its name. What it
/// was to hold is stored from the journal when the segment is sealed.
pub(crate) fn gone(shared: &Shared, table: &TableState) -> Option<DbmsError> {
    let connected = shared.catalog.get(&table.dbms).is_ok_and(|database| Arc::ptr_eq(&database, &table.database));
    (!connected).then(|| DbmsError::NotConnected { name: table.dbms.clone() })
}

/// Sleeps, but not past the node's end.
pub(crate) fn pause(time: Duration, ending: &AtomicBool) {
    let until = Instant::now() + time;
    while Instant::now() < until && !ending.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(10).min(time));
    }
}

/// Whether the database answers at all: when it does not, a failure is no row's fault.
fn works(dbms: &dyn Dbms) -> bool {
    dbms.query(None, "SELECT 1", &mut |_, _| std::ops::ControlFlow::Continue(())).is_ok()
}

fn halves(chunk: Chunk) -> [Chunk; 2] {
    let middle = chunk.len() / 2;
    let Some((at, index)) = chunk.place(middle) else {
        return [Chunk { pieces: Vec::new(), marks: Marks::default() }, chunk];
    };
    let Chunk { mut pieces, marks } = chunk;
    let mut late = pieces.split_off(at);
    if index > 0 {
        let rest = late[0].split_off(index);
        pieces.push(std::mem::replace(&mut late[0], rest));
    }
    // The first half settles only what it holds; the last carries the marks of all.
    let mut early = Marks::default();
    for piece in &pieces {
        if let Some(last) = piece.rows.last() {
            early.raise(piece.segment, last.ordinal);
        }
    }
    [Chunk { pieces, marks: early }, Chunk { pieces: late, marks }]
}
