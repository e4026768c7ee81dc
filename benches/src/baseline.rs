//! What the node is compared with: the same rows through bare SQLite, and the disk itself.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ToSql};

use crate::message;
use crate::process::{Usage, ensure};

/// Rows of an INSERT.
const ROWS: u64 = 50;

/// Rows of a transaction.
const TRANSACTION: u64 = 1000;

/// Bytes of one write of [`fdatasync`].
const BLOCK: usize = 4096;

/// The columns and the three indexes of a partition as the node makes them.
pub const TABLE: &str = "CREATE TABLE rand_data(row_id INTEGER PRIMARY KEY AUTOINCREMENT, \
     insert_timestamp TIMESTAMP NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f000', 'now')), tsd_name CHAR(3), tsd_id INT, \
     timestamp TIMESTAMP NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f000', 'now')), value DOUBLE PRECISION); \
     CREATE INDEX rand_data_timestamp_index ON rand_data(timestamp); \
     CREATE INDEX rand_data_tsd_index ON rand_data(tsd_name, tsd_id); \
     CREATE INDEX rand_data_insert_timestamp_index ON rand_data(insert_timestamp);";

/// What a baseline did.
#[derive(Debug, Clone, Copy)]
pub struct Done {
    /// Rows stored, or writes synced.
    pub count: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// What this process used for it.
    pub usage: Usage,
}

/// `L`: a loop of cached 50-row INSERTs into a table of the same columns and indexes, WAL, `synchronous=FULL`, 1,000 rows a
/// transaction, on one thread, in a new file below `directory`.
///
/// # Errors
///
/// When SQLite fails.
pub fn sqlite_loop(directory: &Path, duration: Duration) -> io::Result<Done> {
    let directory = tempfile::TempDir::new_in(directory)?;
    let database = Connection::open(directory.path().join("baseline.dbms")).map_err(io::Error::other)?;
    database
        .execute_batch(&format!("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; {TABLE}"))
        .map_err(io::Error::other)?;
    let before = Usage::of(std::process::id())?;
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < duration {
        transaction(&database, count).map_err(io::Error::other)?;
        count += TRANSACTION;
    }
    let elapsed = start.elapsed();
    Ok(Done { count, elapsed, usage: Usage::of(std::process::id())?.since(before) })
}

fn transaction(database: &Connection, first: u64) -> rusqlite::Result<()> {
    let values = vec!["(?,?,?,?,?)"; ROWS as usize].join(",");
    let sql = format!("INSERT INTO rand_data(insert_timestamp, tsd_name, tsd_id, timestamp, value) VALUES {values}");
    let received = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S.%6f").to_string();
    let mut time = String::new();
    database.prepare_cached("BEGIN IMMEDIATE")?.execute(())?;
    let mut statement = database.prepare_cached(&sql)?;
    for chunk in (first..first + TRANSACTION).step_by(ROWS as usize) {
        let mut column = 1;
        let mut bind = |value: &dyn ToSql| {
            column += 1;
            statement.raw_bind_parameter(column - 1, value)
        };
        for n in chunk..chunk + ROWS {
            message::stored_time(&mut time, n);
            bind(&received)?;
            bind(&"1")?;
            bind(&1)?;
            bind(&time)?;
            bind(&message::value(n))?;
        }
        statement.raw_execute()?;
    }
    drop(statement);
    database.prepare_cached("COMMIT")?.execute(())?;
    Ok(())
}

/// Writes of 4 KiB in place, each followed by fdatasync: what the disk gives to one writer.
///
/// # Errors
///
/// When the disk fails.
pub fn fdatasync(directory: &Path, duration: Duration) -> io::Result<Done> {
    const BLOCKS: u64 = 256;
    let directory = tempfile::TempDir::new_in(directory)?;
    let file = File::create(directory.path().join("block"))?;
    (0..BLOCKS).try_for_each(|block| file.write_all_at(&[1; BLOCK], block * BLOCK as u64))?;
    file.sync_all()?;
    let before = Usage::of(std::process::id())?;
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < duration {
        let fill = (count % 251) as u8;
        file.write_all_at(&[fill; BLOCK], count % BLOCKS * BLOCK as u64)?;
        file.sync_data()?;
        count += 1;
    }
    Ok(Done { count, elapsed: start.elapsed(), usage: Usage::of(std::process::id())?.since(before) })
}

/// `sqlite3 .import` of so many rows as CSV into a new file with the same table, WAL and `synchronous=FULL`.
///
/// # Errors
///
/// When the program is missing or fails.
pub fn import(directory: &Path, rows: u64) -> io::Result<Done> {
    ensure("sqlite3", "sqlite3")?;
    let directory = tempfile::TempDir::new_in(directory)?;
    let (csv, database) = (directory.path().join("rows.csv"), directory.path().join("baseline.dbms"));
    write_csv(&csv, rows)?;
    let start = Instant::now();
    let mut child = Command::new("sqlite3")
        .arg(&database)
        .arg(format!("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; {TABLE}"))
        .arg(format!(".import --csv {} rand_data", csv.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()?;
    let mut usage = Usage::default();
    let status = loop {
        // What a process used is gone with it: the last look before its end counts.
        usage = Usage::of(child.id()).unwrap_or(usage);
        if let Some(status) = child.try_wait()? {
            break status;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let elapsed = start.elapsed();
    let stored = Connection::open(&database)
        .and_then(|database| database.query_row("SELECT count(*) FROM rand_data", (), |row| row.get::<_, i64>(0)))
        .map_err(io::Error::other)?;
    if !status.success() || u64::try_from(stored) != Ok(rows) {
        return Err(io::Error::other(format!("sqlite3 ended with {status} and {stored} of {rows} rows")));
    }
    Ok(Done { count: rows, elapsed, usage })
}

fn write_csv(file: &Path, rows: u64) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(file)?);
    let received = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S.%6f").to_string();
    let mut time = String::new();
    for n in 1..=rows {
        message::stored_time(&mut time, n);
        writeln!(out, "{n},{received},1,1,{time},{}", message::value(n))?;
    }
    out.into_inner()?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loop_stores_whole_transactions_with_three_indexes() {
        let directory = tempfile::tempdir().expect("a directory");
        let done = sqlite_loop(directory.path(), Duration::from_millis(1)).expect("stored");
        assert_eq!(done.count % TRANSACTION, 0);
        assert!(done.count > 0);
        let database = Connection::open_in_memory().expect("a database");
        database.execute_batch(TABLE).expect("a table");
        transaction(&database, 0).expect("stored");
        let row = |sql| database.query_row(sql, (), |row| row.get::<_, i64>(0)).expect("a row");
        assert_eq!(row("select count(*) from rand_data where tsd_name = '1' and value >= 100"), 1000);
        assert_eq!(row("select count(distinct timestamp) from rand_data"), 1000);
        assert_eq!(row("select count(*) from sqlite_master where type = 'index'"), 3);
    }

    #[test]
    fn the_disk_syncs() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(fdatasync(directory.path(), Duration::from_millis(5)).expect("synced").count > 0);
    }
}
