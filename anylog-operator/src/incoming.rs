//! Files that arrive whole: put over REST, found in the watch directory, sent by a peer.
//!
//! A file is a sealed segment already. It is registered by the hash of its content, renamed to its full name, and applied in
//! place, in chunks, with applied marks: its segment id follows from its hash and number, and its time is that of its registration,
//! so a repeated attempt continues where the last one stopped. Then it is archived and its number of rows is registered.
//! A file whose content came before is refused. Its run list says that all of its rows came at its registration, save those that
//! were refused: another member need not judge them again.

mod chunks;
mod completion;
mod mapped;
mod registration;
pub(crate) mod rows;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anylog_ingest::{RefusedRow, SourceFile};
use anylog_replica::FileKey;
use tokio::sync::OwnedSemaphorePermit;

pub(crate) use chunks::{CHUNK_BYTES, ended};
pub(crate) use registration::unfinished;

use crate::OperatorError;
use crate::disk::{sync_directory, write_durably};
use crate::error::file_error;
use crate::replica::open::{HeldCopy, hold_copy};
use crate::source_file::{ContentHash, SourceKind, SourceName, content_hash, registered};
use crate::store::{Settings, Shared};
use crate::tables::blocking;

/// How long a file waits for another task that stores the same content.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is held of a file at one time: chunks that are read, converted and stored.
const FILE_BYTES: u32 = 4 << 20;
/// Rows, and about the most bytes of them, from which the types of a new table are told.
const SAMPLE: (usize, usize) = (10_000, 2 << 20);

/// A file that is stored.
#[derive(Debug)]
pub(crate) struct StoredFile {
    pub(crate) hash: String,
    pub(crate) rows: usize,
    /// Rows that went to the quarantine, by their number in the file.
    pub(crate) refused: Vec<RefusedRow>,
}

/// Stores a file that came over REST.
pub(crate) async fn put(shared: &Arc<Shared>, file: SourceFile) -> Result<StoredFile, OperatorError> {
    let SourceFile { dbms, table, source, instructions, rows, origin } = file;
    let mut content = Vec::with_capacity(rows.iter().map(|row| row.len() + 1).sum());
    for row in rows {
        content.extend_from_slice(row.as_bytes());
        content.push(b'\n');
    }
    let hash = content_hash(&dbms, &table, &[&content]);
    let (registration, kind, compressed) = (None, SourceKind::Json, false);
    let name = SourceName { dbms, table, source, hash, instructions, registration, kind, compressed };
    let path = shared.settings().prep_dir.join(name.plain());
    shared.check_space()?;
    let _permit = memory(shared).await?;
    let work = InWork::wait(shared, &name.hash).await?;
    let writing = path.clone();
    blocking(move || write_durably(&writing, &content).map_err(file_error(&writing))).await?;
    let result = match check(&path, &name).await {
        Ok(checked) => store(shared, name, path.clone(), checked, &origin).await,
        Err(error) => Err(error),
    };
    drop(work);
    if result.is_err() && path.exists() {
        // Nothing was promised for a file that did not make it to the watch directory.
        std::fs::remove_file(&path).map_err(file_error(&path))?;
    }
    result
}

/// Stores a file of the watch directory.
pub(crate) async fn take(shared: &Arc<Shared>, path: &Path) -> Result<StoredFile, OperatorError> {
    let file_name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let mut name = SourceName::parse(&file_name)?;
    if name.kind == SourceKind::Sql {
        let reason = "files of SQL statements are not taken".to_owned();
        return Err(OperatorError::FileName { name: file_name, reason });
    }
    let _permit = memory(shared).await?;
    let checked = check(path, &name).await?;
    name.hash.clone_from(&checked.hash);
    let _work = InWork::begin(shared, &name.hash)?;
    let origin = format!("file {}", name.plain());
    if mapped::is_due(&name) {
        return mapped::take(shared, name, path, &checked.hash, &origin).await;
    }
    store(shared, name, path.to_owned(), checked, &origin).await
}

/// What a first reading says of a file.
struct Checked {
    hash: String,
    rows: usize,
    /// The first rows, for a table that is not known yet.
    sample: Vec<String>,
}

/// Reads a file through before anything of it is stored: a file is stored whole or not at all, and once.
async fn check(path: &Path, name: &SourceName) -> Result<Checked, OperatorError> {
    let (path, name) = (path.to_owned(), name.clone());
    blocking(move || {
        let (mut hash, mut rows, mut sample, mut length) =
            (ContentHash::new(&name.dbms, &name.table), 0, Vec::new(), 0);
        let bytes = |bytes: &[u8]| {
            hash.update(bytes);
            Ok(())
        };
        rows::read(&path, name.compressed, bytes, |row| {
            rows += 1;
            if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(row) {
                return Err(OperatorError::Content { name: name.plain(), reason: format!("row {rows}: {error}") });
            }
            if sample.len() < SAMPLE.0 && length < SAMPLE.1 {
                length += row.len();
                sample.push(row.to_owned());
            }
            Ok(())
        })?;
        Ok::<_, OperatorError>(Checked { hash: hash.of_file(), rows, sample })
    })
    .await
}

/// Room for the part of a file that is held, in the same bound as rows of messages.
async fn memory(shared: &Arc<Shared>) -> Result<OwnedSemaphorePermit, OperatorError> {
    let room = Arc::clone(&shared.memory).acquire_many_owned(FILE_BYTES).await;
    room.map_err(|_| OperatorError::NotRunning)
}

/// A content is stored by one task at a time.
struct InWork {
    shared: Arc<Shared>,
    hash: String,
}

impl InWork {
    /// Waits while another task stores the same content; what it stored is a duplicate then.
    async fn wait(shared: &Arc<Shared>, hash: &str) -> Result<Self, OperatorError> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            match Self::begin(shared, hash) {
                Err(OperatorError::Busy { .. }) if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                result => return result,
            }
        }
    }

    fn begin(shared: &Arc<Shared>, hash: &str) -> Result<Self, OperatorError> {
        if !shared.files_in_work.lock().insert(hash.to_owned()) {
            return Err(OperatorError::Busy { hash: hash.to_owned() });
        }
        Ok(Self { shared: Arc::clone(shared), hash: hash.to_owned() })
    }
}

impl Drop for InWork {
    fn drop(&mut self) {
        self.shared.files_in_work.lock().remove(&self.hash);
    }
}

async fn store(
    shared: &Arc<Shared>,
    mut name: SourceName,
    path: PathBuf,
    checked: Checked,
    origin: &str,
) -> Result<StoredFile, OperatorError> {
    let settings = shared.settings();
    let (held, limit) = (shared.quarantine.bytes(), shared.quarantine.limit());
    if held >= limit {
        // A file that has begun is promised whole, whatever goes to the quarantine; so it does not begin.
        return Err(OperatorError::QuarantineFull { bytes: held, limit });
    }
    let Checked { rows: count, sample, .. } = checked;
    // The table comes first: a file that cannot be stored must not be registered.
    shared.tables.ensure(&name.dbms, &name.table, &sample, &[]).await?;
    drop(sample);
    let _held = foreign(shared, &settings, &name).await?;
    let registered_as = registration::register(shared, &settings, &name, &path).await?;
    if let Some(file_id) = registered_as.file_id {
        name.registration = Some(registered(&registered_as.member, file_id, registered_as.time));
    }
    let path = settle(&settings, &name, path).await?;
    let applied = chunks::apply_rows(shared, &settings, &name, &registered_as, &path, origin).await?;
    let refused = applied.refused.clone();
    completion::complete(shared, &settings, &name, &registered_as, path, applied, count).await?;
    let now = shared.now();
    shared.stats.table(&name.dbms, &name.table, |stats| {
        let stored = (count - refused.len()) as u64;
        stats.files += 1;
        stats.put_files += 1;
        stats.put_rows += stored;
        stats.batch_inserts += 1;
        stats.stored += stored;
        stats.last_file = Some(now);
        stats.first_insert.get_or_insert(now);
        stats.last_insert = Some(now);
    });
    Ok(StoredFile { hash: name.hash, rows: count - refused.len(), refused })
}

/// A file that another member produced may also come from one: meanwhile it is not taken from there.
async fn foreign(
    shared: &Arc<Shared>,
    settings: &Settings,
    name: &SourceName,
) -> Result<Option<HeldCopy>, OperatorError> {
    let by = name.registration.as_ref().filter(|by| by.member != settings.member);
    let Some((producer, file)) = by.and_then(|by| Some((by.member.parse().ok()?, by.file_id))) else { return Ok(None) };
    let held = hold_copy(shared, FileKey { producer, file }).await;
    // Its rows are here as far as they came while it was open; the rest comes from where they came from.
    if held.header().is_some() { Err(OperatorError::Busy { hash: name.hash.clone() }) } else { Ok(Some(held)) }
}

/// Gives the file its full name in the watch directory, durably.
async fn settle(settings: &Settings, name: &SourceName, path: PathBuf) -> Result<PathBuf, OperatorError> {
    let compressed = path.extension().is_some_and(|extension| extension == "gz");
    let directory = settings.watch_dir.clone();
    let target = directory.join(if compressed { format!("{}.gz", name.plain()) } else { name.plain() });
    if target == path {
        return Ok(path);
    }
    blocking(move || {
        std::fs::rename(&path, &target).map_err(file_error(&path))?;
        sync_directory(&directory).map_err(file_error(&directory))?;
        Ok::<_, OperatorError>(target)
    })
    .await
}
