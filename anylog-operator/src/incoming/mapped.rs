//! Files of the watch directory whose rows a mapping policy makes: those whose name has `instructions`.
//!
//! A file that was registered - by this node or by another one - has the rows of its table already, whatever its name says. Any
//! other is written anew with the rows that the policy makes, like rows that are put with `instructions`; what is then stored,
//! registered and archived is that file. A row that does not map goes to the quarantine with its text, by which
//! `retry quarantine` maps it again; one that has the columns of the policy already is taken as it is. The file's own time is that
//! of the mapping, so that another attempt makes the same rows.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anylog_core::Status;
use anylog_core::time::stored;
use anylog_dbms::SegmentId;
use anylog_ingest::mapping::Mapper;
use anylog_ingest::{Message, POLICY, RefusedRow, SinkError};
use anylog_ledger::Policy;
use jiff::Timestamp;
use md5::{Digest, Md5};
use serde_json::Value;

use super::{InWork, StoredFile, check, rows, store};
use crate::OperatorError;
use crate::disk::sync_directory;
use crate::error::file_error;
use crate::quarantine::{KeptMessage, Problem, QuarantinedRow, key};
use crate::source_file::SourceName;
use crate::store::Shared;
use crate::tables::blocking;

/// Rows that do not map which are put aside together, and about the most bytes of them.
const ASIDE: (usize, usize) = (1000, 1 << 20);

/// A file with the rows that a policy made.
struct MappedFile {
    /// Where it lies.
    path: PathBuf,
    /// How many rows it has.
    rows: usize,
    /// Rows of the file before that went to the quarantine.
    refused: Vec<RefusedRow>,
}

/// Whether the rows of a file are to be mapped.
pub(super) fn is_due(name: &SourceName) -> bool {
    name.instructions != "0" && name.registration.is_none()
}

/// Stores what a mapping policy makes of a file of the watch directory.
pub(super) async fn take(
    shared: &Arc<Shared>,
    name: SourceName,
    path: &Path,
    hash: &str,
    origin: &str,
) -> Result<StoredFile, OperatorError> {
    let mapped = map(shared, &name, path, hash).await?;
    let mut stored = StoredFile { hash: hash.to_owned(), rows: 0, refused: Vec::new() };
    if mapped.rows > 0 {
        match store_mapped(shared, SourceName { compressed: false, ..name }, &mapped.path, origin).await {
            Ok(file) => stored = file,
            Err(error) => {
                // It is made again; once it lies in the watch directory it is promised.
                if mapped.path.exists() {
                    std::fs::remove_file(&mapped.path).map_err(file_error(&mapped.path))?;
                }
                return Err(error);
            }
        }
    }
    // Now what came of each row is on stable storage.
    for file in [path, &mapped.path] {
        if file.exists() {
            std::fs::remove_file(file).map_err(file_error(file))?;
        }
    }
    let directory = &shared.settings().watch_dir;
    sync_directory(directory).map_err(file_error(directory))?;
    Ok(StoredFile { refused: mapped.refused.into_iter().chain(stored.refused).collect(), ..stored })
}

async fn store_mapped(
    shared: &Arc<Shared>,
    mut name: SourceName,
    path: &Path,
    origin: &str,
) -> Result<StoredFile, OperatorError> {
    let checked = check(path, &name).await?;
    // A policy may leave all as it is.
    let other = (checked.hash != name.hash).then(|| InWork::begin(shared, &checked.hash)).transpose()?;
    name.hash.clone_from(&checked.hash);
    let stored = store(shared, name, path.to_owned(), checked, origin).await;
    drop(other);
    stored
}

/// Maps the rows of a file, whose content has this hash.
async fn map(shared: &Arc<Shared>, name: &SourceName, path: &Path, hash: &str) -> Result<MappedFile, OperatorError> {
    let refused = |reason: String| {
        let (dbms, table) = (name.dbms.clone(), name.table.clone());
        OperatorError::from(SinkError::Table { dbms, table, reason, status: Status::MAPPING_UNAVAILABLE })
    };
    let id = &name.instructions;
    let policy = shared.tables.publisher().policy(id);
    let policy = policy.ok_or_else(|| refused(format!("no policy with the id '{id}' in the ledger of this node")))?;
    let mapper = Mapper::from_policy(&policy).map_err(|error| refused(error.to_string()))?;
    let segment = SegmentId(u128::from_le_bytes(Md5::digest(format!("unmapped:{id}:{hash}")).into()));
    let work = Mapping {
        shared: Arc::clone(shared),
        mapper,
        shape: Shape::of(&policy),
        name: name.clone(),
        segment,
        path: path.to_owned(),
    };
    blocking(move || work.run()).await
}

/// What a policy reads and makes.
struct Shape {
    columns: BTreeSet<String>,
    /// Names in its `bring` clauses.
    sources: BTreeSet<String>,
}

impl Shape {
    fn of(policy: &Policy) -> Self {
        let schema = policy.get("schema").and_then(Value::as_object);
        let mut sources = BTreeSet::new();
        schema.into_iter().flat_map(|schema| schema.values()).for_each(|column| note_sources(column, &mut sources));
        Self { columns: schema.into_iter().flat_map(|schema| schema.keys().cloned()).collect(), sources }
    }

    /// Whether a row has columns of the policy already, so that mapping it would lose some.
    fn is_made(&self, row: &str) -> bool {
        let row: Option<serde_json::Map<String, Value>> = serde_json::from_str(row).ok();
        row.is_some_and(|row| {
            row.keys().all(|name| self.columns.contains(name)) && row.keys().any(|name| !self.sources.contains(name))
        })
    }
}

/// Notes what stands in brackets in the texts of a column: `[pump][name]`.
fn note_sources(value: &Value, sources: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => {
            let names = text.split('[').skip(1).filter_map(|rest| rest.split_once(']')).map(|(name, _)| name.trim());
            sources.extend(names.map(str::to_owned));
        }
        Value::Array(values) => values.iter().for_each(|value| note_sources(value, sources)),
        Value::Object(values) => values.values().for_each(|value| note_sources(value, sources)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

struct Mapping {
    shared: Arc<Shared>,
    mapper: Mapper,
    shape: Shape,
    name: SourceName,
    /// By which rows that do not map are known in the quarantine.
    segment: SegmentId,
    path: PathBuf,
}

impl Mapping {
    fn run(self) -> Result<MappedFile, OperatorError> {
        let directory = self.shared.settings().prep_dir.clone();
        let target = directory.join(format!("{}.mapped", self.name.plain()));
        let written = self.write(&directory, target.clone());
        if written.is_err() && target.exists() {
            std::fs::remove_file(&target).map_err(file_error(&target))?;
        }
        written
    }

    fn write(&self, directory: &Path, target: PathBuf) -> Result<MappedFile, OperatorError> {
        let modified =
            std::fs::metadata(&self.path).and_then(|data| data.modified()).map_err(file_error(&self.path))?;
        let time = Timestamp::try_from(modified).unwrap_or_else(|_| self.shared.now());
        // Of an attempt that a crash ended.
        self.shared.quarantine.recall(self.segment)?;
        let mut out = BufWriter::new(File::create(&target).map_err(file_error(&target))?);
        let mut aside = Aside::default();
        let (mut count, mut mapped) = (0, 0);
        rows::read(
            &self.path,
            self.name.compressed,
            |_| Ok(()),
            |row| {
                let position = count;
                count += 1;
                match self.rows_of(row, time)? {
                    Ok(rows) => {
                        mapped += rows.len();
                        let written = rows.iter().try_for_each(|row| writeln!(out, "{row}"));
                        written.map_err(file_error(&target))
                    }
                    Err(problem) => self.put_aside(&mut aside, problem, row, position),
                }
            },
        )?;
        self.flush(&mut aside)?;
        let file = out.into_inner().map_err(|error| file_error(&target)(error.into_error()))?;
        file.sync_all().and_then(|()| sync_directory(directory)).map_err(file_error(&target))?;
        Ok(MappedFile { path: target, rows: mapped, refused: aside.refused })
    }

    /// The rows that a row of the file gives, or why it gives none. Rows for another table are an error of the file.
    fn rows_of(&self, row: &str, time: Timestamp) -> Result<Result<Vec<String>, Problem>, OperatorError> {
        if self.shape.is_made(row) {
            return Ok(Ok(vec![row.to_owned()]));
        }
        let group = match self.mapper.map("", row.as_bytes(), time) {
            Ok(group) => group,
            Err(error) => {
                let (kind, column, reason) = (error.kind(), error.column().to_owned(), error.to_string());
                return Ok(Err(Problem { kind, column, reason, ..Problem::default() }));
            }
        };
        let SourceName { dbms, table, instructions, .. } = &self.name;
        if let Some(part) = group.parts.iter().find(|part| part.dbms != *dbms || part.table != *table) {
            let reason = format!("policy '{instructions}' maps to '{}.{}'", part.dbms, part.table);
            let (dbms, table) = (dbms.clone(), table.clone());
            return Err(SinkError::Table { dbms, table, reason, status: Status::MAPPING_UNAVAILABLE }.into());
        }
        Ok(Ok(group.parts.into_iter().flat_map(|part| part.rows).collect()))
    }

    fn put_aside(&self, aside: &mut Aside, problem: Problem, row: &str, position: usize) -> Result<(), OperatorError> {
        let now = self.shared.now();
        let message = Message {
            broker: POLICY.into(),
            filter: self.name.instructions.as_str().into(),
            topic: "".into(),
            payload: row.as_bytes().to_vec().into(),
        };
        let origin = format!("file {}", self.name.plain());
        let mut record = QuarantinedRow::default().because(&problem).from(&origin, position);
        record.key = key(self.segment, position as u64 + 1);
        record.time = stored(now);
        record.message = Some(KeptMessage::of(&message, None));
        self.shared.stats.error(false, now, &self.name.dbms, &self.name.table, 158, &problem.reason);
        aside.bytes += row.len();
        aside.records.push(record);
        aside.refused.push(problem.of_row(0, position));
        if aside.records.len() >= ASIDE.0 || aside.bytes >= ASIDE.1 {
            return self.flush(aside);
        }
        Ok(())
    }

    fn flush(&self, aside: &mut Aside) -> Result<(), OperatorError> {
        aside.bytes = 0;
        let known = self.shared.quarantine.ordinals(self.segment);
        let fresh = |record: &QuarantinedRow| !known.contains(&(record.position + 1));
        let records: Vec<QuarantinedRow> = std::mem::take(&mut aside.records).into_iter().filter(fresh).collect();
        tokio::runtime::Handle::current().block_on(self.shared.put_aside(records))
    }
}

/// Rows that do not map.
#[derive(Default)]
struct Aside {
    records: Vec<QuarantinedRow>,
    bytes: usize,
    refused: Vec<RefusedRow>,
}
