//! Which file holds what.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::connection::Place;
use super::failure;
use crate::partition::PartitionName;
use crate::{ConnectRequest, DbmsError, Target};

/// The end of a database file's name.
const ENDING: &str = "dbms";

/// The end of the name of a partition that was emptied and is still to be dropped.
const EMPTIED: &str = "dropped";

/// What such a partition's file holds. It is written over the beginning of the database, which needs no space.
const EMPTIED_TEXT: &[u8; 16] = b"anylog: dropped\n";

/// Threads that look at files when a database is opened.
const LOOKING: usize = 8;

/// Threads that give the bytes of dropped files back.
const GIVING: usize = 4;

/// Databases in memory are named apart, so that two nodes in one process do not share one.
static MEMORY_DATABASES: AtomicU64 = AtomicU64::new(1);

/// The files of a database, or its name in memory.
#[derive(Debug, Clone)]
pub(super) enum Layout {
    Files { main: PathBuf, parts: PathBuf },
    Memory { name: String },
}

impl Layout {
    pub(super) fn of(request: &ConnectRequest) -> Result<Self, DbmsError> {
        let name = &request.name;
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', '\0']) {
            let reason = format!("'{name}' cannot be the name of a database file");
            return Err(DbmsError::Declaration { reason });
        }
        if request.memory {
            let number = MEMORY_DATABASES.fetch_add(1, Ordering::Relaxed);
            return Ok(Layout::Memory { name: format!("anylog-{number}-{name}") });
        }
        let file = if name.contains('.') { name.clone() } else { format!("{name}.{ENDING}") };
        let directory = std::path::absolute(&request.directory).map_err(|error| failure::connect(name, error))?;
        Ok(Layout::Files { main: directory.join(file), parts: directory.join(format!("{name}.parts")) })
    }

    pub(super) fn in_memory(&self) -> bool {
        matches!(self, Layout::Memory { .. })
    }

    pub(super) fn shown(&self) -> String {
        match self {
            Layout::Files { main, .. } => main.display().to_string(),
            Layout::Memory { .. } => "MEMORY".into(),
        }
    }

    pub(super) fn main(&self) -> Place {
        match self {
            Layout::Files { main, .. } => Place::File(main.clone()),
            Layout::Memory { name } => Place::Memory(name.clone()),
        }
    }

    pub(super) fn place(&self, target: &Target) -> Place {
        match (self, &target.partition) {
            (Layout::Files { parts, .. }, Some(partition)) => Place::File(file_of(parts, &target.table, partition)),
            (Layout::Files { parts, .. }, None) => named_as_table(parts, &target.table).unwrap_or_else(|| self.main()),
            _ => self.main(),
        }
    }

    /// The directory of a table's partitions.
    pub(super) fn table_directory(&self, table: &str) -> Option<PathBuf> {
        match self {
            Layout::Files { parts, .. } => Some(parts.join(table)),
            Layout::Memory { .. } => None,
        }
    }

    /// The partitions of a table by their files, in name order.
    pub(super) fn partition_files(&self, table: &str) -> io::Result<Vec<String>> {
        let Layout::Files { parts, .. } = self else { return Ok(Vec::new()) };
        let mut names: Vec<String> = database_files(&parts.join(table))?.iter().filter_map(|path| stem(path)).collect();
        names.sort();
        Ok(names)
    }

    /// Every place that rows may lie in.
    pub(super) fn all(&self) -> io::Result<Vec<Place>> {
        let mut places = vec![self.main()];
        if let Layout::Files { parts, .. } = self {
            for table in entries(parts)? {
                places.extend(database_files(&table)?.into_iter().map(Place::File));
            }
        }
        Ok(places)
    }

    /// The partitions that were emptied and are still to be dropped: table and name.
    pub(super) fn emptied(&self) -> io::Result<Vec<(String, String)>> {
        let Layout::Files { parts, .. } = self else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for table in entries(parts)? {
            for path in entries(&table)?.iter().filter(|path| path.extension().is_some_and(|ending| ending == EMPTIED))
            {
                let partition = path.file_stem().and_then(|name| stem(Path::new(name)));
                found.extend(table.file_name().and_then(|name| name.to_str()).map(str::to_owned).zip(partition));
            }
        }
        Ok(found)
    }

    /// Gives files of partitions that are no databases any more another name, so that the others can be used (DUR-4). A file that
    /// is there is complete, so one that does not begin as a database was damaged, or emptied in order to be dropped.
    pub(super) fn set_damaged_aside(&self) -> io::Result<()> {
        let places = self.all()?;
        let files: Vec<&Path> = places.iter().skip(1).filter_map(Place::file).collect();
        // After a start of the machine each look waits for the disk, which takes many at a time.
        let share = files.len().div_ceil(LOOKING).max(1);
        std::thread::scope(|scope| {
            let looks: Vec<_> = files
                .chunks(share)
                .map(|files| scope.spawn(move || files.iter().try_for_each(|path| set_aside_when_damaged(path))))
                .collect();
            let panicked = |_| Err(io::Error::other("a look at the files of partitions ended with a panic"));
            looks.into_iter().try_for_each(|look| look.join().unwrap_or_else(panicked))
        })
    }

    /// Removes the directory of a table without partitions; nobody misses it when that fails.
    pub(super) fn remove_table_directory(&self, table: &str) {
        if let Layout::Files { parts, .. } = self
            && let Err(error) = fs::remove_dir_all(parts.join(table))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(table, %error, "Directory of a dropped table stays");
        }
    }

    /// Deletes all files.
    pub(super) fn delete(&self, name: &str) -> Result<(), DbmsError> {
        let Layout::Files { main, parts } = self else { return Ok(()) };
        if !main.exists() {
            let reason = format!("there is no file '{}'", main.display());
            return Err(DbmsError::Connect { name: name.to_owned(), reason });
        }
        let delete = || -> io::Result<()> {
            unlink(main)?;
            match fs::remove_dir_all(parts) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }
        };
        delete().map_err(|error| failure::io(name, &error))
    }
}

fn file_of(parts: &Path, table: &str, partition: &str) -> PathBuf {
    parts.join(table).join(format!("{partition}.{ENDING}"))
}

/// A person may name a partition as a table of its own.
fn named_as_table(parts: &Path, name: &str) -> Option<Place> {
    let table = PartitionName::parse(name)?.table;
    Some(Place::File(file_of(parts, &table, name))).filter(Place::exists)
}

fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn database_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = entries(directory)?;
    files.retain(|path| path.extension().is_some_and(|ending| ending == ENDING));
    Ok(files)
}

fn set_aside_when_damaged(path: &Path) -> io::Result<()> {
    let Some(begins) = beginning(path) else { return Ok(()) };
    if begins == b"SQLite format 3\0" {
        return Ok(());
    }
    if begins == EMPTIED_TEXT {
        return rename_emptied(path);
    }
    let aside = beside(path, ".damaged");
    for (file, aside) in [(beside(path, "-wal"), beside(&aside, "-wal")), (path.to_owned(), aside.clone())] {
        match fs::rename(&file, &aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    unlink(path)?;
    tracing::error!(
        partition = %path.display(), kept = %aside.display(),
        "A partition is damaged: its file is no database. It was put aside; rows that the journal holds are stored again"
    );
    Ok(())
}

/// The first bytes of a file; none when it cannot be read, which is left to whoever opens it.
fn beginning(path: &Path) -> Option<Vec<u8>> {
    let mut first = Vec::with_capacity(EMPTIED_TEXT.len());
    File::open(path).and_then(|file| file.take(EMPTIED_TEXT.len() as u64).read_to_end(&mut first)).ok()?;
    Some(first)
}

fn stem(path: &Path) -> Option<String> {
    Some(path.file_stem()?.to_str()?.to_owned())
}

/// The path of a file that SQLite keeps beside a database: `-wal`, `-shm`.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Bytes that a database file and what lies beside it take on the disk.
pub(super) fn bytes(path: &Path) -> u64 {
    let files = [path.to_owned(), beside(path, "-wal"), beside(path, "-shm")];
    files.iter().filter_map(|file| fs::metadata(file).ok()).map(|known| known.blocks() * 512).sum()
}

/// File systems note the time of a change in steps: two changes within one have the same time.
const YOUNG: Duration = Duration::from_secs(2);

/// Told by when a database file and its log were written, and how long they are. Moving the log into the file gives another number too.
pub(super) fn version(path: &Path) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    for file in [path.to_owned(), beside(path, "-wal")] {
        match fs::metadata(&file) {
            Ok(known) => {
                let modified = known.modified().ok()?;
                // Also none when the clock was put back since.
                modified.elapsed().ok().filter(|age| *age > YOUNG)?;
                (modified, known.len(), known.ino()).hash(&mut hasher);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0u64.hash(&mut hasher),
            Err(_) => return None,
        }
    }
    Some(hasher.finish())
}

/// The bytes of files that readers may still have open. To be opened before their names go.
#[derive(Debug)]
pub(super) struct Contents(Vec<File>);

impl Contents {
    /// Of a database and its log. What cannot be opened is left to the end of its last reader.
    pub(super) fn of(path: &Path) -> Self {
        let open = |path: PathBuf| fs::OpenOptions::new().write(true).open(path).ok();
        // Not the index of the log: readers have it in their memory.
        Self([path.to_owned(), beside(path, "-wal")].into_iter().filter_map(open).collect())
    }

    /// Gives the bytes back to the file system, although readers have the files open: they fail at their next page.
    pub(super) fn give_back(self) {
        for file in self.0 {
            if let Err(error) = file.set_len(0) {
                tracing::debug!(%error, "A dropped file keeps its space until its last reader ends");
            }
        }
    }
}

/// Gives the bytes of many back, some at a time.
pub(super) fn give_back(contents: Vec<Contents>) {
    let share = contents.len().div_ceil(GIVING).max(1);
    let mut contents = contents.into_iter();
    std::thread::scope(|scope| {
        loop {
            let some: Vec<Contents> = contents.by_ref().take(share).collect();
            if some.is_empty() {
                break;
            }
            let work = move || some.into_iter().for_each(Contents::give_back);
            if contents.len() == 0 {
                work();
            } else {
                scope.spawn(work);
            }
        }
    });
}

/// Empties a partition in place, which needs no space, and durably says of it that it is to be dropped.
pub(super) fn empty(path: &Path) -> io::Result<()> {
    let file = fs::OpenOptions::new().write(true).open(path)?;
    file.write_all_at(EMPTIED_TEXT, 0)?;
    file.sync_data()?;
    file.set_len(EMPTIED_TEXT.len() as u64)?;
    file.sync_all()?;
    if let Ok(log) = fs::OpenOptions::new().write(true).open(beside(path, "-wal")) {
        log.set_len(0)?;
    }
    for suffix in ["-wal", "-shm", "-journal"] {
        remove(&beside(path, suffix))?;
    }
    // Now there is space for another name, under which it is no partition any more.
    rename_emptied(path)
}

fn rename_emptied(path: &Path) -> io::Result<()> {
    fs::rename(path, emptied_name(path))?;
    sync_directory(path)
}

fn emptied_name(path: &Path) -> PathBuf {
    beside(path, &format!(".{EMPTIED}"))
}

/// Whether a partition is there, as a database or emptied.
pub(super) fn is_there(path: &Path) -> bool {
    path.exists() || emptied_name(path).exists()
}

fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes a database file and what lies beside it, durably. Only names are removed, which needs no space; a missing file is fine.
pub(super) fn unlink(path: &Path) -> io::Result<()> {
    remove_names(path)?;
    sync_directory(path)
}

/// As [`unlink`]; a crash may bring the names back until their directory is synced.
pub(super) fn remove_names(path: &Path) -> io::Result<()> {
    remove(path)?;
    for suffix in ["-wal", "-shm", "-journal"] {
        remove(&beside(path, suffix))?;
    }
    remove(&emptied_name(path))
}

/// Makes the names in a file's directory durable.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// Makes the logs of database files durable, and so every commit in them.
pub(super) fn sync_logs(files: &BTreeSet<PathBuf>) -> io::Result<()> {
    let mut directories = BTreeSet::new();
    for file in files {
        if sync_log(file)? {
            directories.extend(file.parent().map(Path::to_owned));
        }
    }
    directories.iter().try_for_each(|directory| File::open(directory)?.sync_all())
}

/// Writes what a database file's log has to the disk; returns whether it has one. A file without a log has none to sync: its last
/// connection closed and moved the log into the file, synced. The database file itself is not opened: closing a second handle
/// would release SQLite's locks on it.
pub(super) fn sync_log(file: &Path) -> io::Result<bool> {
    match File::open(beside(file, "-wal")) {
        Ok(log) => log.sync_data().map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
