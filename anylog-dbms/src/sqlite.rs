//! SQLite: a database is a directory of files.
//!
//! ```text
//! <dir>/<dbms>.dbms                             tables without partitions, parents of partitions, system tables
//! <dir>/<dbms>.parts/<table>/<partition>.dbms   one partition: a table of the partition's name
//! ```
//!
//! A file per partition makes dropping one an unlink, which needs no space. The space is back when the call returns: a file that a
//! reader has open is cut to nothing as well, and the reader fails.
//! A file that is there is complete: it is made under another name and renamed. One that ends in `.dropped` was emptied in order to be
//! dropped, on a disk so full that its drop could not be noted before.
//!
//! # Durability
//! Every file is in WAL mode. [`Dbms::apply`] commits with `synchronous=NORMAL`, which leaves the log unsynced: what it stored
//! survives the end of the process, but power loss may take the newest commits (whole ones, in order).
//! [`Dbms::sync`] makes all of them durable, by syncing the log of every file that was written to since. A log that failed to be synced,
//! then or while it grew, is not believed a second time: it is moved into its file, which is synced. Everything else -
//! tables, partitions, [`Dbms::execute`], the registry of source files - is durable when the call returns (`synchronous=FULL`).
//!
//! # Writers and readers
//! One writer at a time (a lock in this process, `BEGIN IMMEDIATE` and a busy timeout against others); readers have connections
//! of their own, read-only, and never wait for the writer, save for rows that count as stored ([`growing`](crate::growing)).
//! [`Dbms::apply_growing`] keeps the writer, and the transaction open, until it is told whether to commit; in memory, where readers see what
//! is not committed, it is told first and writes then. Connections are kept in bounded caches. A reader that
//! pins so old a state that the log of its file grows beyond [`MAX_LOG_BYTES`] is ended, as is one whose partition is dropped.
//!
//! On file systems whose blocks are smaller than 4 KB a file in use is held by this process alone: what connections share of a log lies in
//! its memory, as a file for it could not be made whole there, which a full disk would punish by ending the process.
//!
//! In memory, all tables and partitions lie in one database that lives as long as its writer's connection.

mod checkpoint;
mod connection;
mod describe;
mod failure;
mod layout;
mod listing;
mod math;
mod reader;
mod rows;
mod spread;
mod writer;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::dbms::{Scan, Visit};
use crate::growing::{Grow, Unseen, at_once};
use crate::partition::{partitions_of, without_partitions};
use crate::schema::ddl::check_name;
use crate::{
    Checked, ColumnType, ConnectRequest, Dbms, DbmsError, DbmsInfo, Engine, RowRef, SegmentId, SqlValue, TableSchema,
    Target,
};
use checkpoint::{Care, Checkpointer};
use connection::Place;
use layout::Layout;
use listing::Listing;
use reader::Readers;

pub use reader::told_to_end;
use writer::{Stored, Writer};

/// The most that a file's write-ahead log may hold, save that one transaction may be longer (R18).
pub const MAX_LOG_BYTES: u64 = 64 * 1024 * 1024;

/// The size of a log beyond which readers that keep it from being emptied are ended. The transactions that come until
/// the last of them has heard of it find room below [`MAX_LOG_BYTES`].
const EMPTIED_LOG_BYTES: u64 = MAX_LOG_BYTES / 2;

/// A SQLite database.
#[derive(Debug)]
pub struct SqliteDbms {
    name: String,
    layout: Layout,
    listing: Listing,
    autocommit: bool,
    writer: Arc<Mutex<Writer>>,
    readers: Readers,
    /// None in memory, where there are no logs.
    checkpointer: Option<Checkpointer>,
    /// None in memory, where readers see what is not committed.
    unseen: Option<Unseen>,
}

impl SqliteDbms {
    pub(crate) fn open(request: &ConnectRequest) -> Result<Self, DbmsError> {
        let layout = Layout::of(request)?;
        layout.set_damaged_aside().map_err(|error| failure::io(&request.name, &error))?;
        let writer = Arc::new(Mutex::new(Writer::open(&request.name, &layout)?));
        let readers = Readers::new(&request.name);
        let autocommit = request.autocommit;
        let checkpointer = (!layout.in_memory()).then(|| Checkpointer::start(&request.name, Arc::clone(&writer)));
        let listing = Listing::default();
        let unseen = (!layout.in_memory()).then(Unseen::default);
        Ok(Self { name: request.name.clone(), layout, listing, autocommit, writer, readers, checkpointer, unseen })
    }

    /// Deletes the files of a database.
    pub(crate) fn delete(request: &ConnectRequest) -> Result<(), DbmsError> {
        Layout::of(request)?.delete(&request.name)
    }

    /// Runs a statement with `?` for each parameter on the main database, durably, and returns the rows that it returns.
    pub(crate) fn change(&self, sql: &str, params: &[SqlValue]) -> Result<Vec<Vec<SqlValue>>, DbmsError> {
        self.writer.lock().statement(sql, params)
    }

    /// Runs a SELECT with `?` for each parameter on the main database.
    pub(crate) fn rows(&self, sql: &str, params: &[SqlValue]) -> Result<Vec<Vec<SqlValue>>, DbmsError> {
        self.readers.rows(&self.layout.main(), sql, params)
    }

    /// Runs a transaction of the writer that stores rows in a target, and looks after its log when it was committed.
    fn store(
        &self,
        target: &Target,
        store: impl FnOnce(&mut Writer, &Place) -> Result<Option<Care>, DbmsError>,
    ) -> Result<bool, DbmsError> {
        let place = self.place(Some(target))?;
        let mut writer = self.writer.lock();
        let Some(care) = store(&mut writer, &place)? else { return Ok(false) };
        if let Some(checkpointer) = &self.checkpointer {
            checkpointer.ask(&place, care);
        }
        if writer.log_is_too_long(&place) {
            self.readers.end(&place);
            writer.empty_log(&place);
        }
        Ok(true)
    }

    /// Writes anew what logs hold that failed to be synced since the last call.
    fn restore_trust(&self) -> std::io::Result<()> {
        let distrusted = self.writer.lock().distrusted();
        distrusted.iter().try_for_each(|place| {
            self.readers.end(place);
            self.writer.lock().restore_trust(place)
        })
    }

    fn place(&self, target: Option<&Target>) -> Result<Place, DbmsError> {
        match target {
            None => Ok(self.layout.main()),
            Some(target) => {
                check_name(&target.table)?;
                if let Some(partition) = &target.partition {
                    check_name(partition)?;
                }
                Ok(self.layout.place(target))
            }
        }
    }

    /// Runs a SELECT over a place and hands its rows to `visit`.
    fn select(&self, place: &Place, sql: &str, visit: Visit<'_>) -> Result<(), DbmsError> {
        self.readers.select(place, sql, visit)
    }

    /// The schema of a physical table.
    fn describe(&self, place: &Place, physical: &str) -> Result<Option<TableSchema>, DbmsError> {
        describe::schema(physical, &mut |sql, visit| self.select(place, sql, visit))
    }
}

impl Dbms for SqliteDbms {
    fn engine(&self) -> Engine {
        Engine::Sqlite
    }

    fn info(&self) -> DbmsInfo {
        let memory = if self.layout.in_memory() { ", RAM" } else { "" };
        let sync = if self.layout.in_memory() { "" } else { ", Fsync with the journal" };
        DbmsInfo {
            ip_port: "Local".into(),
            configuration: format!("Autocommit {}{memory}{sync}", if self.autocommit { "On" } else { "Off" }),
            storage: self.layout.shown(),
        }
    }

    fn tables(&self) -> Result<Vec<String>, DbmsError> {
        let names = describe::table_names(&mut |sql, visit| self.select(&self.layout.main(), sql, visit))?;
        Ok(if self.layout.in_memory() { without_partitions(names) } else { names })
    }

    fn schema(&self, table: &str) -> Result<Option<TableSchema>, DbmsError> {
        self.describe(&self.layout.place(&Target::table(table)), table)
    }

    fn create_table(&self, schema: &TableSchema) -> Result<(), DbmsError> {
        check_name(&schema.name)?;
        self.writer.lock().create_table(schema)
    }

    fn widen_column(&self, table: &str, column: &str, to: ColumnType) -> Result<(), DbmsError> {
        let widen = |place: &Place, physical: &str| -> Result<(), DbmsError> {
            let mut schema = self.describe(place, physical)?.ok_or_else(|| self.no_table(physical))?;
            if schema.widen(column, to)? {
                self.writer.lock().redeclare(place, &schema)?;
            }
            Ok(())
        };
        // The parent last: until it is wider, the whole call can be repeated.
        for partition in self.partitions(table)? {
            widen(&self.layout.place(&Target::partition(table, &partition)), &partition)?;
        }
        widen(&self.layout.main(), table)
    }

    fn drop_table(&self, table: &str) -> Result<(), DbmsError> {
        check_name(table)?;
        self.drop_partitions(table, &self.partitions(table)?, &mut |_| {})?;
        self.writer.lock().drop_table(table)?;
        self.layout.remove_table_directory(table);
        Ok(())
    }

    fn partitions(&self, table: &str) -> Result<Vec<String>, DbmsError> {
        check_name(table)?;
        if self.layout.in_memory() {
            let names = describe::table_names(&mut |sql, visit| self.select(&self.layout.main(), sql, visit))?;
            return Ok(partitions_of(table, names));
        }
        self.listing.partitions(&self.layout, table).map_err(|error| failure::io(&self.name, &error))
    }

    fn create_partition(&self, schema: &TableSchema, partition: &str) -> Result<(), DbmsError> {
        check_name(&schema.name)?;
        check_name(partition)?;
        let place = self.layout.place(&Target::partition(&schema.name, partition));
        let made = self.writer.lock().create_partition(&place, schema, partition);
        self.listing.changed(&schema.name);
        made
    }

    fn drop_partition(&self, table: &str, partition: &str) -> Result<(), DbmsError> {
        let place = self.partition_place(table, partition)?;
        if place.file().is_none() {
            return self.writer.lock().drop_table(partition);
        }
        self.drop_files(table, &[(partition.to_owned(), place)], &mut |_| {})
    }

    fn drop_partitions(
        &self,
        table: &str,
        partitions: &[String],
        dropped: &mut dyn FnMut(&str),
    ) -> Result<(), DbmsError> {
        let mut files = Vec::with_capacity(partitions.len());
        for partition in partitions {
            match self.partition_place(table, partition) {
                Ok(place) if place.file().is_some() => files.push((partition.clone(), place)),
                Ok(_) => {
                    self.writer.lock().drop_table(partition)?;
                    dropped(partition);
                }
                Err(DbmsError::NoTable { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.drop_files(table, &files, dropped)
    }

    fn empty_partition(&self, table: &str, partition: &str) -> Result<(), DbmsError> {
        let place = self.partition_place(table, partition)?;
        let mut writer = self.writer.lock();
        let emptied =
            self.without_readers(&[&place], || if place.exists() { writer.empty_partition(&place) } else { Ok(()) });
        self.listing.changed(table);
        emptied
    }

    fn emptied_partitions(&self) -> Result<Vec<(String, String)>, DbmsError> {
        self.layout.emptied().map_err(|error| failure::io(&self.name, &error))
    }

    fn size(&self, target: &Target) -> Result<Option<u64>, DbmsError> {
        let place = self.place(Some(target))?;
        // Tables without partitions share the main file, in which none has bytes of its own.
        Ok(place.file().filter(|_| target.partition.is_some()).map(layout::bytes))
    }

    fn version(&self, target: &Target) -> Result<Option<u64>, DbmsError> {
        Ok(self.place(Some(target))?.file().and_then(layout::version))
    }

    fn free(&self) -> Result<Option<u64>, DbmsError> {
        let main = self.layout.main();
        let Some(directory) = main.file().and_then(Path::parent) else { return Ok(None) };
        let disk = rustix::fs::statvfs(directory).map_err(|error| failure::io(&self.name, &error.into()))?;
        Ok(Some(disk.f_bavail.saturating_mul(disk.f_frsize)))
    }

    fn apply(
        &self,
        target: &Target,
        columns: &[String],
        rows: &[Vec<SqlValue>],
        marks: &[(SegmentId, u64)],
    ) -> Result<(), DbmsError> {
        let rows: Vec<RowRef<'_>> = rows.iter().map(|row| RowRef { shared: &[], own: row }).collect();
        self.apply_rows(target, columns, &rows, marks)
    }

    fn apply_rows(
        &self,
        target: &Target,
        columns: &[String],
        rows: &[RowRef<'_>],
        marks: &[(SegmentId, u64)],
    ) -> Result<(), DbmsError> {
        let rows = Stored { replaced: None, columns, rows, marks };
        self.store(target, |writer, place| writer.apply(place, target.physical(), &rows).map(Some)).map(drop)
    }

    fn unseen(&self) -> Option<&Unseen> {
        self.unseen.as_ref()
    }

    fn apply_growing(&self, target: &Target, columns: &[String], grow: Grow<'_>) -> Result<bool, DbmsError> {
        if self.unseen.is_some() {
            return self.store(target, |writer, place| writer.apply_growing(place, target.physical(), columns, grow));
        }
        // Who reads a database in memory sees what is not committed.
        at_once(grow, |rows, marks| self.apply(target, columns, rows, marks))
    }

    fn replace_file(
        &self,
        target: &Target,
        file: (&str, i64),
        columns: &[String],
        rows: &[RowRef<'_>],
        marks: &[(SegmentId, u64)],
    ) -> Result<(), DbmsError> {
        let rows = Stored { replaced: Some(file), columns, rows, marks };
        self.store(target, |writer, place| writer.apply(place, target.physical(), &rows).map(Some)).map(drop)
    }

    fn delete_file(&self, target: &Target, member: &str, file_id: i64) -> Result<u64, DbmsError> {
        let place = self.place(Some(target))?;
        if !place.exists() {
            return Ok(0);
        }
        let mut deleted = 0;
        loop {
            // Others have their turn between two steps.
            let mut writer = self.writer.lock();
            let step = writer.delete_file(&place, target.physical(), member, file_id)?;
            if writer.log_is_too_long(&place) {
                self.readers.end(&place);
                writer.empty_log(&place);
            }
            deleted += step;
            if step == 0 {
                return Ok(deleted);
            }
        }
    }

    fn applied(&self, target: &Target, segment: SegmentId) -> Result<Option<u64>, DbmsError> {
        let place = self.place(Some(target))?;
        if !place.exists() {
            return Ok(None);
        }
        self.writer.lock().applied(&place, target.physical(), segment)
    }

    fn forget(&self, segments: &[SegmentId]) -> Result<(), DbmsError> {
        let all =
            || -> Result<Vec<Place>, DbmsError> { self.layout.all().map_err(|error| failure::io(&self.name, &error)) };
        self.writer.lock().forget(segments, all)
    }

    fn sync(&self) -> Result<(), DbmsError> {
        let dirty = self.writer.lock().take_dirty();
        let synced = layout::sync_logs(&dirty).inspect_err(|_| {
            let mut writer = self.writer.lock();
            writer.distrust(dirty.iter().cloned());
            writer.mark_dirty(dirty);
        });
        synced.and_then(|()| self.restore_trust()).map_err(|error| failure::io(&self.name, &error))
    }

    fn query(&self, target: Option<&Target>, sql: &str, visit: Visit<'_>) -> Result<(), DbmsError> {
        let mut handed_on = false;
        let result = self.select(&self.readable(target)?, sql, &mut |names, row| {
            handed_on = true;
            visit(names, row)
        });
        self.unless_dropped(target, handed_on, result)
    }

    fn scan(&self, target: Option<&Target>, sql: &str, visit: Scan<'_>) -> Result<(), DbmsError> {
        let mut handed_on = false;
        let result = self.readers.scan(&self.readable(target)?, sql, &mut |row| {
            handed_on = true;
            visit(row)
        });
        self.unless_dropped(target, handed_on, result)
    }

    fn execute(&self, sql: &str) -> Result<u64, DbmsError> {
        self.writer.lock().execute(sql)
    }

    fn execute_all(&self, statements: &[Checked]) -> Result<bool, DbmsError> {
        self.writer.lock().execute_all(statements)
    }

    fn count(&self, target: &Target) -> Result<u64, DbmsError> {
        let sql = format!("SELECT count(*) FROM {}", crate::schema::ddl::quoted(target.physical()));
        let mut count = 0;
        self.query(Some(target), &sql, &mut |_, row| {
            if let Some(SqlValue::Int(value)) = row.first() {
                count = u64::try_from(*value).unwrap_or(0);
            }
            ControlFlow::Continue(())
        })?;
        Ok(count)
    }
}

impl SqliteDbms {
    /// Where a partition that is there lies.
    fn partition_place(&self, table: &str, partition: &str) -> Result<Place, DbmsError> {
        let place = self.place(Some(&Target::partition(table, partition)))?;
        let there = match place.file() {
            Some(path) => layout::is_there(path),
            None => self.partitions(table)?.iter().any(|known| known == partition),
        };
        if there { Ok(place) } else { Err(self.no_table(partition)) }
    }

    /// Drops files of partitions of one table, and tells of each that is gone.
    fn drop_files(
        &self,
        table: &str,
        files: &[(String, Place)],
        dropped: &mut dyn FnMut(&str),
    ) -> Result<(), DbmsError> {
        let places: Vec<&Place> = files.iter().map(|(_, place)| place).collect();
        let mut writer = self.writer.lock();
        let (gone, contents, result) = self.without_readers(&places, || writer.drop_files(&places));
        drop(writer);
        self.listing.changed(table);
        // Those that opened one while it had its name.
        places[..gone].iter().for_each(|place| self.readers.end(place));
        // Rows are stored meanwhile: a file system may take milliseconds for each.
        layout::give_back(contents);
        for (partition, place) in &files[..gone] {
            self.readers.forget(place);
            dropped(partition);
        }
        result
    }

    /// Runs `work` after the readers of places were told to end, and while nobody moves their logs.
    fn without_readers<T>(&self, places: &[&Place], work: impl FnOnce() -> T) -> T {
        places.iter().for_each(|place| self.readers.end(place));
        match &self.checkpointer {
            Some(checkpointer) => checkpointer.paused(work),
            None => work(),
        }
    }

    /// A place that is there, when what counts as stored in it can be read.
    fn readable(&self, target: Option<&Target>) -> Result<Place, DbmsError> {
        let place = self.place(target)?;
        if let Some(unseen) = &self.unseen {
            unseen.wait(target);
        }
        if place.exists() { Ok(place) } else { Err(self.no_table(target.map_or("", Target::physical))) }
    }

    /// The result of a read, unless its place was dropped before its first row.
    fn unless_dropped(
        &self,
        target: Option<&Target>,
        handed_on: bool,
        result: Result<(), DbmsError>,
    ) -> Result<(), DbmsError> {
        match result {
            Err(_) if !handed_on && !self.place(target)?.exists() => {
                Err(self.no_table(target.map_or("", Target::physical)))
            }
            result => result,
        }
    }

    fn no_table(&self, table: &str) -> DbmsError {
        DbmsError::NoTable { dbms: self.name.clone(), table: table.to_owned() }
    }
}

#[cfg(test)]
mod tests;
