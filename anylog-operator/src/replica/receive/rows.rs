//! The rows of a file that came, into the tables.
//!
//! Rows that add to what is here of the file go in small chunks, and those that the marks cover are passed over. Rows that replace
//! what is here go together, as far as that is possible: of each target the old ones and the new ones change places in one
//! transaction, so whoever asks sees the ones or the others (DUR-6). The rows of a larger file come in chunks: of a target whose
//! old rows went, a part is seen until the last of them is stored.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::sync::Arc;
use std::time::Instant;

use anylog_core::time::stored;
use anylog_dbms::Target;
use anylog_replica::FileKey;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::LARGEST;
use super::store::Arrived;
use crate::OperatorError;
use crate::apply::{Batch, Frame, apply, replace};
use crate::error::file_error;
use crate::fit::{FittedTogether, Together};
use crate::incoming::{CHUNK_BYTES, ended, rows};
use crate::journal::record::SegmentHeader;
use crate::origin::Origin;
use crate::quarantine::{Problem, QuarantinedRow, key};
use crate::replica::copies::bad;
use crate::replica::runs::Line;
use crate::store::Shared;
use crate::tables::TableState;

/// Rows that are stored by one transaction: fewer than of an own file, so that others wait less behind them.
const CHUNK_ROWS: usize = 2_000;
/// The pause behind a chunk is this part of the time that it took.
const PAUSE_SHARE: u32 = 4;
/// Rows, and bytes of their texts, that take the place of others in one transaction. Who sends rows meanwhile waits for it.
const WHOLE_ROWS: usize = 50_000;
const WHOLE_BYTES: usize = 16 << 20;

/// How many rows, and bytes of their texts, are stored together.
#[derive(Debug, Clone, Copy)]
struct Chunks {
    rows: usize,
    bytes: usize,
}

/// Applies the rows, in the place of those that are here when the file comes `anew`: while a chunk is stored, the next is read, and no
/// more: messages of senders go first. Returns the partitions in which all rows of the file are new ones; none is the table itself.
pub(super) async fn apply_rows(
    shared: &Arc<Shared>,
    header: &Arc<SegmentHeader>,
    arrived: &Arc<Arrived>,
    anew: bool,
) -> Result<HashSet<Option<String>>, OperatorError> {
    let whole = anew && usize::try_from(arrived.about.rows).is_ok_and(|rows| rows <= WHOLE_ROWS);
    let size = match whole {
        true => Chunks { rows: WHOLE_ROWS, bytes: WHOLE_BYTES },
        false => Chunks { rows: CHUNK_ROWS, bytes: CHUNK_BYTES },
    };
    let (sender, mut chunks) = mpsc::channel(1);
    let reading = Arc::clone(arrived);
    let reader = tokio::task::spawn_blocking(move || read_chunks(&reading, size, &sender));
    let store = Arc::new(Storing {
        shared: Arc::clone(shared),
        header: Arc::clone(header),
        file: arrived.file,
        origin: Arc::new(Origin::of(&format!("member {}, file {}", arrived.file.producer, arrived.file.file))),
        marks: Mutex::default(),
        replaced: anew.then(Mutex::default),
        whole,
    });
    while let Some(chunk) = chunks.recv().await {
        let began = Instant::now();
        let fitted = shared.fit_copies(&header.dbms, &header.table, &arrived.about.create, chunk).await?;
        let store = Arc::clone(&store);
        ended(tokio::task::spawn_blocking(move || store.apply_chunk(fitted))).await?;
        tokio::time::sleep(began.elapsed() / PAUSE_SHARE).await;
    }
    ended(reader).await?;
    Ok(store.replaced.as_ref().map(|replaced| std::mem::take(&mut *replaced.lock())).unwrap_or_default())
}

/// Reads the rows and hands them on in chunks.
fn read_chunks(arrived: &Arrived, size: Chunks, chunks: &mpsc::Sender<Vec<Together>>) -> Result<(), OperatorError> {
    let file = arrived.file;
    let mut part = File::open(&arrived.part).map_err(file_error(&arrived.part))?;
    part.seek(SeekFrom::Start(arrived.about.runs)).map_err(file_error(&arrived.part))?;
    let mut lines = arrived.list.of_lines();
    let (mut chunk, mut rows, mut bytes): (Vec<Together>, usize, usize) = (Vec::new(), 0, 0);
    // Who receives them may have failed, which it says itself.
    let send = |chunk| chunks.blocking_send(chunk).map_err(|_| OperatorError::NotRunning);
    let name = format!("{}.{}", file.producer, file.file);
    rows::read_packed(
        part,
        &name,
        LARGEST,
        |_| Ok(()),
        |row| {
            let (ordinal, received, zone) = match lines.next() {
                Line::Row(ordinal, received, zone) => (ordinal, received, zone),
                Line::Refused => return Ok(()),
                Line::Beyond => return Err(bad(file, "it has more rows than its run list")),
            };
            (rows, bytes) = (rows + 1, bytes + row.len());
            let joins = |last: &&mut Together| {
                last.first + last.rows.len() as u64 == ordinal && last.received == received && last.zone == zone
            };
            match chunk.last_mut().filter(joins) {
                Some(last) => last.rows.push(row.to_owned()),
                None => chunk.push(Together { first: ordinal, received, zone, rows: vec![row.to_owned()] }),
            }
            if rows == size.rows || bytes > size.bytes {
                (rows, bytes) = (0, 0);
                send(std::mem::take(&mut chunk))?;
            }
            Ok(())
        },
    )?;
    // Before the last rows take the place of others.
    if !lines.is_done() {
        return Err(bad(file, "it has fewer rows than its run list"));
    }
    if chunk.is_empty() { Ok(()) } else { send(chunk) }
}

/// A file that is being stored.
struct Storing {
    shared: Arc<Shared>,
    header: Arc<SegmentHeader>,
    file: FileKey,
    origin: Arc<Origin>,
    /// What was there of the file in each target before: nobody else adds to it.
    marks: Mutex<HashMap<Option<String>, u64>>,
    /// Where old rows went already, when rows replace others.
    replaced: Option<Mutex<HashSet<Option<String>>>>,
    /// All rows come in one chunk.
    whole: bool,
}

impl Storing {
    fn apply_chunk(&self, chunk: Vec<FittedTogether>) -> Result<(), OperatorError> {
        let (mut batches, mut refused) = (Vec::new(), Vec::new());
        for FittedTogether { first, received, fitted } in chunk {
            let table = fitted.table;
            refused.extend(fitted.refused.into_iter().map(|(at, problem, text)| (first + at as u64, problem, text)));
            for mut run in fitted.runs {
                let mark = self.mark(&table, &run.partition)?;
                let stored = run.rows.partition_point(|row| row.ordinal <= mark);
                run.values.drain(..stored * table.data_width());
                run.rows.drain(..stored);
                let Some(last) = run.rows.last().map(|row| row.ordinal) else { continue };
                batches.push(Batch {
                    segment: Arc::clone(&self.header),
                    shared: table.own_values(&self.header, received),
                    table: Arc::clone(&table),
                    partition: run.partition,
                    frame: Frame::Outside,
                    rows: run.rows,
                    values: run.values,
                    origin: Arc::clone(&self.origin),
                    mark: last,
                });
            }
        }
        self.put_aside(refused)?;
        self.store(batches)
    }

    /// Stores batches; the first of each target in the place of what was there of the file, when it comes anew.
    fn store(&self, mut batches: Vec<Batch>) -> Result<(), OperatorError> {
        let member = self.file.producer.to_string();
        if let Some(replaced) = &self.replaced {
            let mut replaced = replaced.lock();
            let (first, more): (Vec<_>, Vec<_>) =
                batches.into_iter().partition(|batch| !replaced.contains(&batch.partition));
            batches = more;
            let targets: HashSet<Option<String>> = first.iter().map(|batch| batch.partition.clone()).collect();
            if !self.whole {
                // So many rows go in steps.
                for partition in &targets {
                    let target = Target { table: self.header.table.clone(), partition: partition.clone() };
                    let database = self.shared.catalog.get(&self.header.dbms)?;
                    database.dbms().delete_file(&target, &member, self.file.file)?;
                }
            }
            for result in replace(&self.shared, first, (&member, self.file.file)) {
                result?;
            }
            replaced.extend(targets);
        }
        for result in apply(&self.shared, batches) {
            result?;
        }
        Ok(())
    }

    /// Up to which ordinal rows are there already.
    fn mark(&self, table: &TableState, partition: &Option<String>) -> Result<u64, OperatorError> {
        if self.replaced.is_some() {
            return Ok(0);
        }
        let mut marks = self.marks.lock();
        if let Some(mark) = marks.get(partition) {
            return Ok(*mark);
        }
        let target = Target { table: table.table.clone(), partition: partition.clone() };
        let mark = table.database.dbms().applied(&target, self.header.id)?.unwrap_or(0);
        marks.insert(partition.clone(), mark);
        Ok(mark)
    }

    /// Rows that fit where they came from and do not fit here. Those that an earlier attempt put aside are known.
    fn put_aside(&self, rows: Vec<(u64, Problem, String)>) -> Result<(), OperatorError> {
        if rows.is_empty() {
            return Ok(());
        }
        let Self { shared, header, origin, .. } = self;
        if shared.quarantine.ordinals(header.id).is_empty() {
            shared.quarantine.recall(header.id)?;
        }
        let now = shared.now();
        let record = |(ordinal, problem, text): (u64, Problem, String)| {
            shared.stats.error(false, now, &header.dbms, &header.table, 27, &problem.reason);
            let target = (header.dbms.as_str(), header.table.as_str());
            let record = QuarantinedRow::of_row(key(header.id, ordinal), stored(now), target, &problem, text);
            let position = usize::try_from(ordinal - 1).unwrap_or(usize::MAX);
            record.mapped(&header.source, &header.instructions).from(origin.text(), position)
        };
        shared.quarantine.add_promised(rows.into_iter().map(record).collect())
    }
}
