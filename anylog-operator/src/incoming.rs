//! Files that arrive whole: put over REST, found in the watch directory, sent by a peer.
//!
//! A file is a sealed segment already. It is registered by the hash of its content, renamed to its full name, and applied in
//! place, in chunks, with applied marks: its segment id follows from its hash and number, and its time is that of its registration,
//! so a repeated attempt continues where the last one stopped. Then it is archived and its number of rows is registered.
//! A file whose content came before is refused. Its run list says that all of its rows came at its registration, save those that
//! were refused: another member need not judge them again.

mod mapped;
pub(crate) mod rows;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anylog_core::time::stored;
use anylog_dbms::{NewFile, SegmentId, Target, TsdError, TsdFile, TsdStore, TsdUpdate, tsd};
use anylog_ingest::{RefusedRow, SinkError, SourceFile};
use anylog_replica::FileKey;
use jiff::Timestamp;
use md5::{Digest, Md5};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinHandle;

use crate::OperatorError;
use crate::apply::{Batch, apply};
use crate::archive::{self, ArchiveFile};
use crate::disk::{sync_directory, write_durably};
use crate::error::file_error;
use crate::fit::Fitted;
use crate::journal::record::SegmentHeader;
use crate::origin::Origin;
use crate::quarantine::{Problem, QuarantinedRow, key};
use crate::replica::open::{HeldCopy, hold_copy};
use crate::replica::runs::{Lines, Runs};
use crate::replica::serve;
use crate::source_file::{ContentHash, SourceKind, SourceName, content_hash, registered};
use crate::store::{Settings, Shared};
use crate::tables::{blocking, zone_name};

/// How long a file waits for another task that stores the same content.
const PATIENCE: Duration = Duration::from_secs(10);
/// Rows that are applied by one transaction, and about the most bytes that they have.
pub(crate) const CHUNK_ROWS: usize = 5000;
pub(crate) const CHUNK_BYTES: usize = 1 << 20;
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

/// Where a file is registered.
struct Registered {
    table: String,
    member: String,
    file_id: Option<i64>,
    time: Timestamp,
    /// It was taken up before, and a crash came.
    resumed: bool,
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
    let registered_as = register(shared, &settings, &name, &path).await?;
    if let Some(file_id) = registered_as.file_id {
        name.registration = Some(registered(&registered_as.member, file_id, registered_as.time));
    }
    let path = settle(&settings, &name, path).await?;
    let applied = apply_rows(shared, &settings, &name, &registered_as, &path, origin).await?;
    let refused = applied.refused.clone();
    finish(shared, &settings, &name, &registered_as, path, applied, count).await?;
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

async fn register(
    shared: &Arc<Shared>,
    settings: &Settings,
    name: &SourceName,
    path: &Path,
) -> Result<Registered, OperatorError> {
    let Some(store) = settings.tsd.clone() else {
        let modified = std::fs::metadata(path).and_then(|data| data.modified()).map_err(file_error(path))?;
        let time = Timestamp::try_from(modified).unwrap_or_else(|_| shared.now());
        let time = Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time);
        return Ok(Registered { table: String::new(), member: "0".into(), file_id: None, time, resumed: true });
    };
    let file = NewFile {
        dbms: name.dbms.clone(),
        table: name.table.clone(),
        source: name.source.clone(),
        hash: name.hash.clone(),
        instructions: name.instructions.clone(),
        time: shared.now(),
    };
    let duplicate = OperatorError::from(SinkError::DuplicateFile { hash: name.hash.clone() });
    match &name.registration {
        Some(by) if by.member != settings.member => {
            if !shared.tables.publisher().is_peer(&by.member) {
                return Err(OperatorError::UnknownMember { name: name.plain(), member: by.member.clone() });
            }
            let (member, file_id) = (by.member.clone(), by.file_id);
            blocking(move || register_peer(&store, &member, file_id, &file)).await?.ok_or(duplicate)
        }
        _ => {
            let own = settings.member.clone();
            let by = name.registration.as_ref().map(|by| by.file_id);
            blocking(move || register_own(&store, own, by, &file)).await?.ok_or(duplicate)
        }
    }
}

/// A registered file that nobody finished: a crash came between its registration and its rows.
pub(crate) fn unfinished(file: &TsdFile) -> bool {
    file.rows == 0 && file.status1.is_empty()
}

fn adopted(table: &str, member: String, file: &TsdFile) -> Registered {
    Registered { table: table.to_owned(), member, file_id: Some(file.file_id), time: file.time, resumed: true }
}

/// Registers a file of this node; none when it is a duplicate.
fn register_own(
    store: &TsdStore,
    member: String,
    named: Option<i64>,
    file: &NewFile,
) -> Result<Option<Registered>, OperatorError> {
    let known = |store: &TsdStore| -> Result<Option<TsdFile>, OperatorError> { Ok(store.find(&file.hash)?) };
    let found = match known(store)? {
        Some(found) => found,
        None => match store.register(file) {
            Ok(file_id) => {
                return Ok(Some(Registered {
                    table: tsd::OWN_TABLE.into(),
                    member,
                    file_id: Some(file_id),
                    time: file.time,
                    resumed: false,
                }));
            }
            Err(TsdError::Duplicate { .. }) => match known(store)? {
                Some(found) => found,
                None => return Ok(None),
            },
            Err(error) => return Err(error.into()),
        },
    };
    // A file that carries its own number was taken before and is still here: it is finished, even if only its removal is left.
    let own = named == Some(found.file_id);
    Ok((own || unfinished(&found)).then(|| adopted(tsd::OWN_TABLE, member, &found)))
}

/// Registers a file of a peer; none when it is a duplicate.
fn register_peer(
    store: &TsdStore,
    member: &str,
    file_id: i64,
    file: &NewFile,
) -> Result<Option<Registered>, OperatorError> {
    let table = format!("tsd_{member}");
    match store.register_peer(member, file_id, file) {
        Ok(()) => Ok(Some(Registered {
            table,
            member: member.to_owned(),
            file_id: Some(file_id),
            time: file.time,
            resumed: false,
        })),
        Err(TsdError::Duplicate { .. }) => {
            let found = store.get(&table, file_id)?;
            let found = found.filter(|found| found.hash == file.hash && unfinished(found));
            Ok(found.map(|found| adopted(&table, member.to_owned(), &found)))
        }
        Err(error) => Err(error.into()),
    }
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

/// The segment of a file: the same whenever the file is taken up again.
fn segment_of(name: &SourceName, registered: &Registered) -> SegmentHeader {
    let mut md5 = Md5::new();
    for text in ["file:", &name.dbms, ".", &name.table, ".", &name.hash, ".", &registered.member, "."] {
        md5.update(text.as_bytes());
    }
    md5.update(registered.file_id.unwrap_or(0).to_le_bytes());
    SegmentHeader {
        id: SegmentId(u128::from_le_bytes(md5.finalize().into())),
        dbms: name.dbms.clone(),
        table: name.table.clone(),
        source: name.source.clone(),
        instructions: name.instructions.clone(),
        member: registered.member.clone(),
        file_id: registered.file_id,
        opened: registered.time,
    }
}

/// The rows of a file, in their tables.
struct Applied {
    refused: Vec<RefusedRow>,
    /// The archived file, which still lacks its name.
    archived: Option<ArchiveFile>,
    /// How many rows were read with times without an offset meant in a zone, in order.
    zones: Vec<(u64, String)>,
}

/// Applies the rows of a file in chunks: while one is stored, the next is converted, and the one behind it is read and packed for
/// the archive.
async fn apply_rows(
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
            sequence: 0,
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

async fn finish(
    shared: &Arc<Shared>,
    settings: &Settings,
    name: &SourceName,
    registered: &Registered,
    path: PathBuf,
    applied: Applied,
    count: usize,
) -> Result<(), OperatorError> {
    let header = segment_of(name, registered);
    let (shared, settings) = (Arc::clone(shared), settings.clone());
    let (plain, table, segment) = (name.plain(), registered.table.clone(), header.id);
    blocking(move || {
        let database = shared.catalog.get(&header.dbms)?;
        database.dbms().sync()?;
        if let Some(file) = applied.archived {
            let runs = settings.archive.then(|| runs_of(&header, &applied.zones, &shared.quarantine.ordinals(segment)));
            file.finish_with(&plain, runs.and_then(Runs::encode))?;
        }
        let rows = (count - applied.refused.len()) as u64;
        if let (Some(store), Some(file_id)) = (&settings.tsd, header.file_id) {
            store.update(&table, file_id, &TsdUpdate { rows: Some(rows), ..TsdUpdate::default() })?;
            tell(&shared, store, &header, &table, count as u64)?;
        }
        std::fs::remove_file(&path).map_err(file_error(&path))?;
        sync_directory(&settings.watch_dir).map_err(file_error(&settings.watch_dir))?;
        database.dbms().forget(&[segment])?;
        shared.quarantine.sealed(segment);
        Ok::<_, OperatorError>(())
    })
    .await
}

/// The run list of a file of which all rows came at one time, and some were refused.
fn runs_of(header: &SegmentHeader, zones: &[(u64, String)], refused: &BTreeSet<u64>) -> Runs {
    let mut runs = Runs::new(header.id, Lines::All);
    let mut first = 1;
    for (count, zone) in zones {
        let end = first + count;
        for refused in refused.range(first..end) {
            runs.push(first, refused - first, header.opened, zone);
            first = refused + 1;
        }
        runs.push(first, end - first, header.opened, zone);
        first = end;
    }
    runs
}

/// Tells the other members of the cluster that a file of this one is complete.
fn tell(
    shared: &Shared,
    store: &TsdStore,
    header: &SegmentHeader,
    table: &str,
    lines: u64,
) -> Result<(), OperatorError> {
    let (Ok(producer), Some(file)) = (header.member.parse(), header.file_id) else { return Ok(()) };
    if table == tsd::OWN_TABLE
        && let Some(known) = store.get(table, file)?
    {
        let rows = u64::try_from(known.rows).unwrap_or_default();
        shared.completed(serve::sealed(FileKey { producer, file }, &known, header.id, lines), rows);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use anylog_dbms::SegmentId;

    use super::*;
    use crate::replica::runs::RunList;

    #[test]
    fn refused_rows_are_in_no_run() {
        let header = SegmentHeader {
            id: SegmentId(9),
            dbms: "d".into(),
            table: "t".into(),
            source: "0".into(),
            instructions: "0".into(),
            member: "7".into(),
            file_id: Some(1),
            opened: Timestamp::from_microsecond(5).unwrap(),
        };
        let zones = [(4, "UTC".to_owned()), (3, "Asia/Tokyo".to_owned())];
        let runs = runs_of(&header, &zones, &BTreeSet::from([1, 3, 7]));
        let list = RunList::decode(runs.encode().unwrap()).unwrap();
        let found: Vec<(u64, u64, String)> =
            list.iter().map(|run| (run.first, run.count, run.zone.to_string())).collect();
        let zone = |name: &str| name.to_owned();
        assert_eq!(found, [(2, 1, zone("UTC")), (4, 1, zone("UTC")), (5, 2, zone("Asia/Tokyo"))]);
        assert_eq!(list.lines(), Lines::All);
    }
}
