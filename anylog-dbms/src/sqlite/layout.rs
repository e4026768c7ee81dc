//! Which file holds what.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::connection::Place;
use super::failure;
use crate::{ConnectRequest, DbmsError, Target};

/// The end of a database file's name.
const ENDING: &str = "dbms";

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
            (Layout::Files { parts, .. }, Some(partition)) => {
                Place::File(parts.join(&target.table).join(format!("{partition}.{ENDING}")))
            }
            _ => self.main(),
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

    /// Gives files of partitions that are no databases any more another name, so that the others can be used (DUR-4). A file that
    /// is there is complete, so one that does not begin as a database was damaged.
    pub(super) fn set_damaged_aside(&self) -> io::Result<()> {
        for place in self.all()?.iter().skip(1) {
            let Some(path) = place.file().filter(|path| !begins_as_database(path)) else { continue };
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
        }
        Ok(())
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

/// Whether a file has the first bytes of a database. One that cannot be read is left to whoever opens it.
fn begins_as_database(path: &Path) -> bool {
    const MAGIC: &[u8; 16] = b"SQLite format 3\0";
    let mut first = Vec::with_capacity(MAGIC.len());
    let read = File::open(path).and_then(|file| file.take(MAGIC.len() as u64).read_to_end(&mut first));
    read.is_err() || first == MAGIC
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

/// Removes a database file and what lies beside it. Only names are removed first, which needs no space; a missing file is fine.
pub(super) fn unlink(path: &Path) -> io::Result<()> {
    for file in [path.to_owned(), beside(path, "-wal"), beside(path, "-shm"), beside(path, "-journal")] {
        match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    sync_directory(path)
}

/// Makes the names in a file's directory durable.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// Makes the logs of database files durable, and so every commit in them. A file without a log has none to sync: its last
/// connection closed and moved the log into the file, synced. The database file itself is not opened: closing a second handle
/// would release SQLite's locks on it.
pub(super) fn sync_logs(files: &BTreeSet<PathBuf>) -> io::Result<()> {
    let mut directories = BTreeSet::new();
    for file in files {
        match File::open(beside(file, "-wal")) {
            Ok(log) => log.sync_data()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        }
        directories.extend(file.parent().map(Path::to_owned));
    }
    directories.iter().try_for_each(|directory| File::open(directory)?.sync_all())
}
