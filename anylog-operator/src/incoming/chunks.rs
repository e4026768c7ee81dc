//! The rows of a registered file into their tables, in chunks, with applied marks.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use anylog_core::time::stored;
use anylog_dbms::Target;
use anylog_ingest::{RefusedRow, SinkError};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::registration::{Registered, segment_of};
use super::rows;
use crate::OperatorError;
use crate::apply::{Batch, Frame, apply};
use crate::archive::{self, ArchiveFile};
use crate::fit::Fitted;
use crate::journal::record::SegmentHeader;
use crate::origin::Origin;
use crate::quarantine::{Problem, QuarantinedRow, key};
use crate::source_file::SourceName;
use crate::store::{Settings, Shared};
use crate::tables::{blocking, zone_name};

/// Rows that are applied by one transaction, and about the most bytes that they have.
pub(crate) const CHUNK_ROWS: usize = 5000;
pub(crate) const CHUNK_BYTES: usize = 1 << 20;

/// The rows of a file, in their tables.
pub(super) struct Applied {
    pub(super) refused: Vec<RefusedRow>,
    /// The archived file, which still lacks its name.
    pub(super) archived: Option<ArchiveFile>,
    /// How many rows were read with times without an offset meant in a zone, in order.
    pub(super) zones: Vec<(u64, String)>,
}

/// Applies the rows of a file in chunks: while one is stored, the next is converted, and the one behind it is read and packed for
/// the archive.
pub(super) async fn apply_rows(
    shared: &Arc<Shared>,
    settings: &Settings,
    name: &SourceName,
    registered: &Registered,
    path: &Path,
    origin: &str,
) -> Result<Applied, OperatorError> {
    let header = Arc::new(segment_of(name, registered));
    if registered.resumed {
        let (shared, id) = (Arc::clone(shared), header.id);
        blocking(move || shared.quarantine.recall(id)).await?;
    }
    let origin = Arc::new(Origin::of(origin));
    let (sender, mut chunks) = mpsc::channel(1);
    let (reading, compressed) = (path.to_owned(), name.compressed);
    let archived = archive_file(settings, &header)?;
    let reader = tokio::task::spawn_blocking(move || read_chunks(&reading, compressed, archived, &sender));
    let (mut refused, mut zones): (Vec<RefusedRow>, Vec<(u64, String)>) = (Vec::new(), Vec::new());
    let mut applying: Option<JoinHandle<Result<Vec<RefusedRow>, OperatorError>>> = None;
    let mut before = 0;
    while let Some(chunk) = chunks.recv().await {
        let count = chunk.len();
        let fitted = shared.fit(&name.dbms, &name.table, chunk, &[], registered.time).await?;
        let zone = zone_name(&fitted.table.zone);
        match zones.last_mut().filter(|(_, known)| *known == zone) {
            Some((rows, _)) => *rows += count as u64,
            None => zones.push((count as u64, zone)),
        }
        if let Some(applying) = applying.take() {
            refused.extend(ended(applying).await?);
        }
        let (shared, header, origin) = (Arc::clone(shared), Arc::clone(&header), Arc::clone(&origin));
        applying = Some(tokio::task::spawn_blocking(move || apply_chunk(&shared, &header, fitted, before, &origin)));
        before += count;
    }
    if let Some(applying) = applying.take() {
        refused.extend(ended(applying).await?);
    }
    Ok(Applied { refused, archived: ended(reader).await?, zones })
}

pub(crate) async fn ended<T>(task: JoinHandle<Result<T, OperatorError>>) -> Result<T, OperatorError> {
    let failed = |error| OperatorError::from(SinkError::Failed { reason: format!("a task of a file ended: {error}") });
    task.await.unwrap_or_else(|error| Err(failed(error)))
}

/// The file in which the content is kept, when it is.
fn archive_file(settings: &Settings, header: &SegmentHeader) -> Result<Option<ArchiveFile>, OperatorError> {
    let directory = match (settings.archive, settings.compress) {
        (true, _) => archive::day_directory(&settings.archive_dir, header.opened),
        (false, true) => settings.backup_dir.clone(),
        (false, false) => return Ok(None),
    };
    ArchiveFile::begin(&directory, &header.id.to_string(), settings.compress).map(Some)
}

/// Reads a file again and hands on its rows in chunks.
fn read_chunks(
    path: &Path,
    compressed: bool,
    mut archived: Option<ArchiveFile>,
    chunks: &mpsc::Sender<Vec<String>>,
) -> Result<Option<ArchiveFile>, OperatorError> {
    let (mut chunk, mut length) = (Vec::with_capacity(CHUNK_ROWS), 0);
    // Who receives them may have failed, which it says itself.
    let send = |chunk| chunks.blocking_send(chunk).map_err(|_| OperatorError::NotRunning);
    let bytes = |bytes: &[u8]| archived.as_mut().map_or(Ok(()), |file| file.write(bytes));
    let read = rows::read(path, compressed, bytes, |row| {
        length += row.len();
        chunk.push(row.to_owned());
        if chunk.len() == CHUNK_ROWS || length > CHUNK_BYTES {
            length = 0;
            send(std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK_ROWS)))?;
        }
        Ok(())
    });
    match read.and_then(|()| if chunk.is_empty() { Ok(()) } else { send(std::mem::take(&mut chunk)) }) {
        Ok(()) => Ok(archived),
        Err(error) => {
            if let Some(file) = archived {
                file.discard();
            }
            Err(error)
        }
    }
}

fn apply_chunk(
    shared: &Arc<Shared>,
    header: &Arc<SegmentHeader>,
    fitted: Fitted,
    before: usize,
    origin: &Arc<Origin>,
) -> Result<Vec<RefusedRow>, OperatorError> {
    let now = shared.now();
    let mut refused = Vec::new();
    let mut aside = Vec::new();
    for (position, problem, row) in fitted.refused {
        let position = before + position;
        let (key, target) = (key(header.id, position as u64 + 1), (header.dbms.as_str(), header.table.as_str()));
        let record = QuarantinedRow::of_row(key, stored(now), target, &problem, row);
        aside.push(record.mapped(&header.source, &header.instructions).from(origin.text(), position));
        shared.stats.error(false, now, &header.dbms, &header.table, 27, &problem.reason);
        refused.push(problem.of_row(0, position));
    }
    // The file is registered: its rows are as good as promised, and it is taken up again after a crash.
    shared.quarantine.add_promised(aside)?;
    let mut batches: Vec<Batch> = Vec::new();
    let mut marks: HashMap<Option<String>, u64> = HashMap::new();
    for mut run in fitted.runs {
        let mark = match marks.get(&run.partition) {
            Some(mark) => *mark,
            None => {
                let target = Target { table: header.table.clone(), partition: run.partition.clone() };
                let mark = fitted.table.database.dbms().applied(&target, header.id)?.unwrap_or(0);
                *marks.entry(run.partition.clone()).or_insert(mark)
            }
        };
        for row in &mut run.rows {
            row.position += before;
            row.ordinal = row.position as u64 + 1;
        }
        // Rows that were stored before a crash are the first ones.
        let stored = run.rows.partition_point(|row| row.ordinal <= mark);
        run.values.drain(..stored * fitted.table.data_width());
        run.rows.drain(..stored);
        let Some(last) = run.rows.last().map(|row| row.ordinal) else { continue };
        batches.push(Batch {
            segment: Arc::clone(header),
            table: Arc::clone(&fitted.table),
            partition: run.partition,
            frame: Frame::Outside,
            shared: fitted.table.own_values(header, header.opened),
            rows: run.rows,
            values: run.values,
            origin: Arc::clone(origin),
            mark: last,
        });
    }
    for result in apply(shared, batches) {
        let late = result?.into_iter();
        refused.extend(late.map(|refusal| Problem::new("database", refusal.reason).of_row(0, refusal.position)));
    }
    refused.sort_by_key(|row| row.row);
    Ok(refused)
}
