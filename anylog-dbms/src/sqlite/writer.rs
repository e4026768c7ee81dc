//! The one writer of a database.

mod filling;
mod partitions;

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::result::Error;
use diesel::{QueryResult, RunQueryDsl, SqliteConnection};
use lru::LruCache;

use super::checkpoint::Growth;
use super::connection::{Mode, Place, open};
use super::layout::{Layout, beside, sync_directory};
use super::rows::{Bind, Binds, Statement, collect, select};
use super::{EMPTIED_LOG_BYTES, describe, failure};
use crate::schema::ddl::{column_list, of_file, quoted, statements};
use crate::{Checked, ColumnType, DbmsError, Engine, SegmentId, SqlValue, TableSchema};
pub(super) use filling::Stored;

/// Partitions whose write connection is kept open, when the process may have as many files open. One that is closed is synced, and costs
/// thirty times as much as a small transaction: rows that come for many days at once would do that each time.
const OPEN_PARTITIONS: [usize; 2] = [16, 128];

/// A database keeps open one partition, of three files, for so many files that the process may have.
const FILES_PER_PARTITION: u64 = 64;

fn open_partitions() -> NonZeroUsize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let [least, most] = OPEN_PARTITIONS;
    let wanted = usize::try_from(limit / FILES_PER_PARTITION).unwrap_or(most).clamp(least, most);
    NonZeroUsize::new(wanted).unwrap_or(NonZeroUsize::MIN)
}

/// Commits that are not looked after when a log could not be emptied: a reader that does not end must not hold up every one.
const COMMITS_PER_LOOK: u32 = 64;

/// Rows of a source file that are deleted by one transaction.
const DELETED_ROWS: usize = 5000;

/// How long a change of a database in memory tries again while readers use the table.
const PATIENCE: Duration = Duration::from_secs(5);

const MARKS: &str = "CREATE TABLE IF NOT EXISTS anylog_applied(segment_id TEXT NOT NULL, target TEXT NOT NULL, \
                     last_ordinal BIGINT NOT NULL, PRIMARY KEY(segment_id, target)) WITHOUT ROWID";

struct Handle {
    connection: SqliteConnection,
    durable: bool,
    // Commits until the size of the log is looked at again.
    unseen: u32,
    growth: Growth,
    binds: HashMap<String, Binds>,
}

impl Handle {
    fn new(connection: SqliteConnection) -> Self {
        // `open` leaves synchronous=FULL.
        Self { connection, durable: true, unseen: 0, growth: Growth::default(), binds: HashMap::new() }
    }

    /// Switches between commits that are durable and those that wait for [`crate::Dbms::sync`].
    fn set_durable(&mut self, durable: bool) -> QueryResult<()> {
        if self.durable != durable {
            self.connection.batch_execute(if durable {
                "PRAGMA synchronous=FULL"
            } else {
                "PRAGMA synchronous=NORMAL"
            })?;
            self.durable = durable;
        }
        Ok(())
    }

    /// How NULLs of the columns are bound.
    fn binds(&mut self, physical: &str, columns: &[String]) -> Result<Vec<Bind>, DbmsError> {
        if !self.binds.contains_key(physical) {
            let schema = describe::schema(physical, &mut |sql, visit| {
                select(&mut self.connection, sql, visit).map_err(|error| failure::statement("", &error))
            })?;
            let bind = |kind| match kind {
                ColumnType::Serial | ColumnType::Int | ColumnType::BigInt | ColumnType::Boolean => Bind::Integer,
                ColumnType::Double => Bind::Float,
                _ => Bind::Text,
            };
            let columns = schema.map(|schema| schema.columns).unwrap_or_default();
            let known = columns.into_iter().map(|column| (column.name, bind(column.kind))).collect();
            self.binds.insert(physical.to_owned(), known);
        }
        let known = &self.binds[physical];
        Ok(columns.iter().map(|column| known.get(column).copied().unwrap_or(Bind::Text)).collect())
    }

    /// Runs `work` in a transaction that holds the write lock from its beginning, so it never fails half-way for a lock.
    fn transaction<T>(&mut self, mut work: impl FnMut(&mut SqliteConnection) -> QueryResult<T>) -> QueryResult<T> {
        let started = Instant::now();
        loop {
            let mut failed = None;
            let result = self.connection.immediate_transaction(|connection| {
                work(connection).map_err(|error| {
                    failed = Some(error);
                    Error::RollbackTransaction
                })
            });
            // SQLite ends the transaction itself on some failures, as on a full disk. That none is left to be undone is not the failure.
            match failed.map_or(result, Err) {
                // Only databases in memory say this; files wait by themselves.
                Err(Error::DatabaseError(_, information))
                    if information.message().contains("is locked") && started.elapsed() < PATIENCE =>
                {
                    std::thread::sleep(Duration::from_millis(2));
                }
                result => return result,
            }
        }
    }
}

pub(super) struct Writer {
    name: String,
    main_place: Place,
    main: Handle,
    partitions: LruCache<Place, Handle>,
    // Files with commits that may not be durable yet.
    dirty: BTreeSet<PathBuf>,
    // Files whose log failed to be synced: what the disk has of it is not known, and a second sync would not tell.
    distrusted: BTreeSet<PathBuf>,
    // Which places hold marks of a segment, as far as this process knows.
    marked: HashMap<SegmentId, BTreeSet<Place>>,
}

impl Writer {
    pub(super) fn open(name: &str, layout: &Layout) -> Result<Self, DbmsError> {
        let place = layout.main();
        if let Some(directory) = place.file().and_then(std::path::Path::parent) {
            std::fs::create_dir_all(directory).map_err(|error| failure::connect(name, error))?;
        }
        let mut main = Handle::new(open(name, &place, Mode::Create)?);
        main.transaction(|connection| connection.batch_execute(MARKS))
            .map_err(|error| failure::connect(name, error))?;
        if let Some(path) = place.file() {
            sync_directory(path).map_err(|error| failure::connect(name, error))?;
        }
        Ok(Self {
            name: name.to_owned(),
            main_place: place,
            main,
            partitions: LruCache::new(open_partitions()),
            dirty: BTreeSet::new(),
            distrusted: BTreeSet::new(),
            marked: HashMap::new(),
        })
    }

    fn handle(&mut self, place: &Place) -> Result<&mut Handle, DbmsError> {
        if *place == self.main_place {
            return Ok(&mut self.main);
        }
        let name = &self.name;
        self.partitions.try_get_or_insert_mut(place.clone(), || {
            if !place.exists() {
                let table = place.file().and_then(|path| path.file_stem()).unwrap_or_default();
                let table = table.to_string_lossy().into_owned();
                return Err(DbmsError::NoTable { dbms: name.clone(), table });
            }
            Ok(Handle::new(open(name, place, Mode::Write)?))
        })
    }

    /// Runs a durable transaction at a place.
    fn change<T>(
        &mut self,
        place: &Place,
        work: impl FnMut(&mut SqliteConnection) -> QueryResult<T>,
    ) -> Result<T, DbmsError> {
        let name = self.name.clone();
        let handle = self.handle(place)?;
        handle.binds.clear();
        handle
            .set_durable(true)
            .and_then(|()| handle.transaction(work))
            .map_err(|error| failure::statement(&name, &error))
    }

    pub(super) fn create_table(&mut self, schema: &TableSchema) -> Result<(), DbmsError> {
        let sql = statements(schema, &schema.name, Engine::Sqlite, false).join(";\n");
        let main = self.main_place.clone();
        self.change(&main, |connection| connection.batch_execute(&sql))
    }

    pub(super) fn drop_table(&mut self, table: &str) -> Result<(), DbmsError> {
        let sql = format!(
            "DROP TABLE IF EXISTS {}; DELETE FROM anylog_applied WHERE target = '{}'",
            quoted(table),
            table.replace('\'', "''")
        );
        let main = self.main_place.clone();
        self.change(&main, |connection| connection.batch_execute(&sql))
    }

    /// Changes the declared type of a column in place. Values stay as they are stored: an integer in a REAL column reads as a
    /// float.
    pub(super) fn redeclare(&mut self, place: &Place, schema: &TableSchema) -> Result<(), DbmsError> {
        let sql = format!("CREATE TABLE {}{}", quoted(&schema.name), column_list(schema, Engine::Sqlite));
        let params = [SqlValue::Text(sql), SqlValue::Text(schema.name.clone())];
        let name = self.name.clone();
        let handle = self.handle(place)?;
        let mut redeclare = || -> QueryResult<()> {
            handle.set_durable(true)?;
            handle.connection.batch_execute("PRAGMA writable_schema=ON")?;
            let changed = handle.transaction(|connection| {
                let sql = "UPDATE sqlite_schema SET sql = ? WHERE type = 'table' AND name = ?";
                Statement { sql, params: &params }.execute(connection)?;
                let mut version = 0;
                select(connection, "PRAGMA schema_version", &mut |_, row| {
                    if let Some(SqlValue::Int(value)) = row.first() {
                        version = *value;
                    }
                    std::ops::ControlFlow::Continue(())
                })?;
                // Another version makes every connection read the schema again.
                connection.batch_execute(&format!("PRAGMA schema_version={}", version.wrapping_add(1)))
            });
            handle.connection.batch_execute("PRAGMA writable_schema=RESET")?;
            changed
        };
        let result = redeclare();
        handle.binds.clear();
        result.map_err(|error| failure::statement(&name, &error))
    }

    /// Deletes some rows of a source file; none when there are no more.
    pub(super) fn delete_file(
        &mut self,
        place: &Place,
        physical: &str,
        member: &str,
        file_id: i64,
    ) -> Result<u64, DbmsError> {
        let (table, rows) = (quoted(physical), of_file(member, file_id));
        let sql = format!(
            "DELETE FROM {table} WHERE row_id IN (SELECT row_id FROM {table} WHERE {rows} LIMIT {DELETED_ROWS})"
        );
        let name = self.name.clone();
        let handle = self.handle(place)?;
        let deleted = handle
            .set_durable(false)
            .and_then(|()| handle.transaction(|connection| diesel::sql_query(&sql).execute(connection)))
            .map_err(|error| failure::statement(&name, &error))?;
        self.dirty.extend(place.file().map(std::path::Path::to_owned));
        Ok(deleted as u64)
    }

    pub(super) fn applied(
        &mut self,
        place: &Place,
        physical: &str,
        segment: SegmentId,
    ) -> Result<Option<u64>, DbmsError> {
        let name = self.name.clone();
        let handle = self.handle(place)?;
        let sql = format!(
            "SELECT last_ordinal FROM anylog_applied WHERE segment_id = '{segment}' AND target = '{}'",
            physical.replace('\'', "''")
        );
        let mut found = None;
        select(&mut handle.connection, &sql, &mut |_, row| {
            if let Some(SqlValue::Int(value)) = row.first() {
                found = u64::try_from(*value).ok();
            }
            std::ops::ControlFlow::Break(())
        })
        .map_err(|error| failure::statement(&name, &error))?;
        if found.is_some() {
            self.marked.entry(segment).or_default().insert(place.clone());
        }
        Ok(found)
    }

    /// Deletes the marks of segments. Segments that this process never met are looked for in every file.
    pub(super) fn forget(
        &mut self,
        segments: &[SegmentId],
        all: impl FnOnce() -> Result<Vec<Place>, DbmsError>,
    ) -> Result<(), DbmsError> {
        let mut places: BTreeSet<Place> = BTreeSet::new();
        let mut everywhere = false;
        for segment in segments {
            match self.marked.get(segment) {
                Some(known) => places.extend(known.iter().cloned()),
                None => everywhere = true,
            }
        }
        if everywhere {
            places.extend(all()?);
        }
        for place in &places {
            if !place.exists() {
                continue;
            }
            let name = self.name.clone();
            let handle = self.handle(place)?;
            let deleted = handle.set_durable(false).and_then(|()| {
                handle.transaction(|connection| {
                    for segment in segments {
                        let sql = "DELETE FROM anylog_applied WHERE segment_id = ?";
                        Statement { sql, params: &[SqlValue::Text(segment.to_string())] }.execute(connection)?;
                    }
                    Ok(())
                })
            });
            deleted.map_err(|error| failure::statement(&name, &error))?;
            self.dirty.extend(place.file().map(std::path::Path::to_owned));
        }
        for segment in segments {
            self.marked.remove(segment);
        }
        Ok(())
    }

    /// Runs one statement on the main database, durably, and returns the rows that it returns.
    pub(super) fn statement(&mut self, sql: &str, params: &[SqlValue]) -> Result<Vec<Vec<SqlValue>>, DbmsError> {
        let main = self.main_place.clone();
        self.change(&main, |connection| collect(connection, Statement { sql, params }))
    }

    pub(super) fn execute(&mut self, sql: &str) -> Result<u64, DbmsError> {
        let main = self.main_place.clone();
        let changed = self.change(&main, |connection| diesel::sql_query(sql).execute(connection))?;
        Ok(u64::try_from(changed).unwrap_or(0))
    }

    /// Runs statements in one transaction; returns whether each changed as many rows as it must, else nothing is done.
    pub(super) fn execute_all(&mut self, statements: &[Checked]) -> Result<bool, DbmsError> {
        let main = self.main_place.clone();
        let mut failed = false;
        let result = self.change(&main, |connection| {
            for statement in statements {
                if !statement.holds(diesel::sql_query(&statement.sql).execute(connection)?) {
                    failed = true;
                    return Err(diesel::result::Error::RollbackTransaction);
                }
            }
            Ok(())
        });
        if failed { Ok(false) } else { result.map(|()| true) }
    }

    pub(super) fn take_dirty(&mut self) -> BTreeSet<PathBuf> {
        std::mem::take(&mut self.dirty)
    }

    pub(super) fn mark_dirty(&mut self, files: BTreeSet<PathBuf>) {
        self.dirty.extend(files);
    }

    /// The logs of files failed to be synced: they count as synced when all of them is in their files.
    pub(super) fn distrust(&mut self, files: impl IntoIterator<Item = PathBuf>) {
        self.distrusted.extend(files);
    }

    pub(super) fn distrusted(&self) -> Vec<Place> {
        self.distrusted.iter().cloned().map(Place::File).collect()
    }

    /// Moves such a log into its file, whose pages are then written anew, and synced.
    pub(super) fn restore_trust(&mut self, place: &Place) -> std::io::Result<()> {
        if place.exists() {
            self.empty_log(place);
            if log_bytes(place) > 0 {
                let reason =
                    "a write-ahead log failed to be synced, and somebody keeps it from being moved into its file";
                return Err(std::io::Error::other(reason));
            }
        }
        self.distrusted.retain(|file| Some(file.as_path()) != place.file());
        Ok(())
    }

    /// Whether a file's log is longer than it should be.
    pub(super) fn log_is_too_long(&mut self, place: &Place) -> bool {
        let seen = self.handle(place).is_ok_and(|handle| handle.unseen == 0);
        seen && log_bytes(place) > EMPTIED_LOG_BYTES
    }

    /// Moves a log into its file, and waits a little for readers that were told to end; a later look tries again.
    pub(super) fn empty_log(&mut self, place: &Place) {
        let Ok(handle) = self.handle(place) else { return };
        let emptied = handle
            .connection
            .batch_execute("PRAGMA busy_timeout=1000; PRAGMA wal_checkpoint(TRUNCATE); PRAGMA busy_timeout=5000");
        if log_bytes(place) > EMPTIED_LOG_BYTES {
            handle.unseen = COMMITS_PER_LOOK;
            let error = emptied.err().map(|error| error.to_string()).unwrap_or_default();
            tracing::warn!(dbms = self.name, error, "A reader keeps a write-ahead log from being emptied");
        }
    }
}

/// How long the log of a place is.
fn log_bytes(place: &Place) -> u64 {
    let log = place.file().and_then(|path| std::fs::metadata(beside(path, "-wal")).ok());
    log.map_or(0, |log| log.len())
}

fn mark(connection: &mut SqliteConnection, segment: SegmentId, target: &str, ordinal: u64) -> QueryResult<()> {
    let sql = "INSERT INTO anylog_applied(segment_id, target, last_ordinal) VALUES (?, ?, ?) \
               ON CONFLICT(segment_id, target) DO UPDATE SET last_ordinal = max(last_ordinal, excluded.last_ordinal)";
    let params = [
        SqlValue::Text(segment.to_string()),
        SqlValue::Text(target.to_owned()),
        SqlValue::Int(i64::try_from(ordinal).unwrap_or(i64::MAX)),
    ];
    Statement { sql, params: &params }.execute(connection)?;
    Ok(())
}

fn unmark(connection: &mut SqliteConnection, segment: SegmentId, target: &str) -> QueryResult<()> {
    let sql = "DELETE FROM anylog_applied WHERE segment_id = ? AND target = ?";
    let params = [SqlValue::Text(segment.to_string()), SqlValue::Text(target.to_owned())];
    Statement { sql, params: &params }.execute(connection)?;
    Ok(())
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("place", &self.main_place)
            .field("open", &self.partitions.len())
            .finish_non_exhaustive()
    }
}
