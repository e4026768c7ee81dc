//! Opening connections: those that write are diesel's, those that read are rusqlite's, which hands values over without copies.

use std::path::{Path, PathBuf};
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::{Connection, SqliteConnection};
use rusqlite::OpenFlags;

use super::failure;
use crate::DbmsError;

/// The most pages of a file that its writer keeps in memory, in KiB. Indexes are written to all over.
const WRITE_CACHE_KIB: u32 = 6 * 1024;

/// Pages of a log beyond which a commit moves it into its file itself: 24 MB. [`super::checkpoint`] does it earlier and beside the
/// writer, so this is for a thread that does not come to it.
const LOG_PAGES: u32 = 6_000;

/// Bytes that SQLite takes in this process before it lets go of pages that are not in use, instead of taking more.
const HEAP_BYTES: u32 = 14 * 1024 * 1024;

/// The pieces in which SQLite has the file system allocate the memory that connections share, whatever a page of this machine is.
const SHARED_PIECE: u64 = 4096;

/// How long a connection waits for another one's lock.
const BUSY: Duration = Duration::from_secs(5);

/// Where a database lies.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Place {
    /// A file.
    File(PathBuf),
    /// The name of a database in this process's memory.
    Memory(String),
}

impl Place {
    pub(super) fn file(&self) -> Option<&Path> {
        match self {
            Place::File(path) => Some(path),
            Place::Memory(_) => None,
        }
    }

    pub(super) fn exists(&self) -> bool {
        self.file().is_none_or(Path::exists)
    }

    fn uri(&self, mode: &str) -> String {
        match self {
            Place::File(path) if has_small_blocks(path) => {
                format!("file:{}?mode={mode}&vfs=unix-excl", encoded(&path.to_string_lossy()))
            }
            Place::File(path) => format!("file:{}?mode={mode}", encoded(&path.to_string_lossy())),
            Place::Memory(name) => format!("file:{}?mode=memory&cache=shared", encoded(name)),
        }
    }
}

/// Whether memory must not be shared by a file in this file's directory. SQLite makes room for such a file by a byte in each piece
/// of it. Where blocks are smaller, the rest of a piece is a hole, and on a full disk the first access to one ends the process by a
/// signal. Such files are held by this process alone, whose connections share its own memory.
fn has_small_blocks(path: &Path) -> bool {
    let disk = path.parent().and_then(|directory| rustix::fs::statvfs(directory).ok());
    disk.is_some_and(|disk| disk.f_frsize < SHARED_PIECE)
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Reads and writes; the file is made when it is not there.
    Create,
    /// Reads and writes a file that is there.
    Write,
}

/// Statements that a connection that reads keeps prepared.
const PREPARED: usize = 8;

/// Opens a connection that reads what is there.
pub(super) fn open_reader(name: &str, place: &Place) -> Result<rusqlite::Connection, DbmsError> {
    // One thread at a time uses it.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let settings = match place {
        // In shared memory readers would lock out the writer; they read its newest rows instead.
        Place::Memory(_) => "PRAGMA read_uncommitted=ON; PRAGMA query_only=ON;",
        Place::File(_) => "PRAGMA query_only=ON;",
    };
    // A file that this process holds alone is held by its first connection, which must be allowed to write.
    let mode = if place.file().is_some_and(has_small_blocks) { "rw" } else { "ro" };
    let open = || -> rusqlite::Result<rusqlite::Connection> {
        let connection = rusqlite::Connection::open_with_flags(place.uri(mode), flags)?;
        connection.busy_timeout(BUSY)?;
        connection.execute_batch(settings)?;
        super::spread::add(&connection)?;
        super::math::add(&connection)?;
        connection.set_prepared_statement_cache_capacity(PREPARED);
        Ok(connection)
    };
    open().map_err(|error| failure::connect(name, error))
}

/// Opens a connection with the settings of [`super`].
pub(super) fn open(name: &str, place: &Place, mode: Mode) -> Result<SqliteConnection, DbmsError> {
    let word = match mode {
        Mode::Create => "rwc",
        Mode::Write => "rw",
    };
    let mut connection =
        SqliteConnection::establish(&place.uri(word)).map_err(|error| failure::connect(name, error))?;
    let memory = matches!(place, Place::Memory(_));
    let settings = match mode {
        Mode::Create | Mode::Write if memory => "PRAGMA read_uncommitted=ON;".to_owned(),
        Mode::Create | Mode::Write => format!(
            "PRAGMA synchronous=FULL; PRAGMA journal_mode=WAL; PRAGMA journal_size_limit={}; \
             PRAGMA wal_autocheckpoint={LOG_PAGES}; PRAGMA cache_size=-{WRITE_CACHE_KIB}; PRAGMA soft_heap_limit={HEAP_BYTES};",
            super::MAX_LOG_BYTES
        ),
    };
    connection
        .batch_execute(&format!("PRAGMA busy_timeout={}; {settings}", BUSY.as_millis()))
        .map_err(|error| failure::connect(name, error))?;
    Ok(connection)
}

/// A path inside a URI: what has a meaning there is written as `%XX`.
fn encoded(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        match c {
            '%' | '?' | '#' => out.push_str(&format!("%{:02X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}
