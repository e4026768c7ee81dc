//! Counters that `get operator` and `get streaming` show.

use std::collections::BTreeMap;
use std::time::Duration;

use anylog_dbms::DbmsError;
use jiff::Timestamp;
use parking_lot::Mutex;

/// What happened to one table.
#[derive(Debug, Clone, Default)]
pub struct TableStats {
    /// Files stored as they came, and segments sealed.
    pub files: u64,
    /// Segments whose rows were applied before they were sealed.
    pub immediate_files: u64,
    /// When the last file was stored or segment sealed.
    pub last_file: Option<Timestamp>,
    /// Files put over REST or the watch directory.
    pub put_files: u64,
    /// Rows in them.
    pub put_rows: u64,
    /// Calls that brought rows.
    pub calls: u64,
    /// Rows that calls brought.
    pub rows: u64,
    /// Rows applied before they were acknowledged.
    pub immediate_rows: u64,
    /// Transactions with rows for the table that were not immediate.
    pub batch_inserts: u64,
    /// Transactions of immediate rows.
    pub immediate_inserts: u64,
    /// When rows first arrived.
    pub first_insert: Option<Timestamp>,
    /// When rows last arrived.
    pub last_insert: Option<Timestamp>,
    /// Time spent in the database.
    pub database_time: Duration,
    /// Rows in the database since the start.
    pub stored: u64,
}

/// The last failure of a kind.
#[derive(Debug, Clone, Default)]
pub struct ErrorStats {
    /// How often.
    pub count: u64,
    /// When last.
    pub time: Option<Timestamp>,
    /// Logical database.
    pub dbms: String,
    /// Table.
    pub table: String,
    /// Documented status.
    pub status: u16,
    /// The words.
    pub text: String,
}

#[derive(Debug, Default)]
struct Inner {
    tables: BTreeMap<(String, String), TableStats>,
    json_errors: ErrorStats,
    sql_errors: ErrorStats,
    failing: BTreeMap<String, DbmsError>,
    last_summary: (u64, u64),
}

/// Counters of an operator since the node's start.
#[derive(Debug, Default)]
pub struct Stats(Mutex<Inner>);

impl Stats {
    /// Changes the counters of a table.
    pub(crate) fn table(&self, dbms: &str, table: &str, change: impl FnOnce(&mut TableStats)) {
        let mut inner = self.0.lock();
        match inner.tables.get_mut(&(dbms.to_owned(), table.to_owned())) {
            Some(stats) => change(stats),
            None => change(inner.tables.entry((dbms.to_owned(), table.to_owned())).or_default()),
        }
    }

    pub(crate) fn applied(&self, dbms: &str, table: &str, took: Duration) {
        self.table(dbms, table, |stats| stats.database_time += took);
    }

    pub(crate) fn database_fails(&self, dbms: &str, error: &DbmsError) {
        self.0.lock().failing.insert(dbms.to_owned(), error.clone());
    }

    pub(crate) fn database_works(&self, dbms: &str) {
        let mut inner = self.0.lock();
        if !inner.failing.is_empty() {
            inner.failing.remove(dbms);
        }
    }

    /// Why a database does not take rows at the moment.
    #[must_use]
    pub fn failing(&self, dbms: &str) -> Option<DbmsError> {
        let inner = self.0.lock();
        if inner.failing.is_empty() { None } else { inner.failing.get(dbms).cloned() }
    }

    /// The databases that take no rows at the moment, and why.
    #[must_use]
    pub fn all_failing(&self) -> Vec<(String, String)> {
        self.0.lock().failing.iter().map(|(dbms, error)| (dbms.clone(), error.to_string())).collect()
    }

    pub(crate) fn error(&self, sql: bool, time: Timestamp, dbms: &str, table: &str, status: u16, text: &str) {
        let mut inner = self.0.lock();
        let error = if sql { &mut inner.sql_errors } else { &mut inner.json_errors };
        error.count += 1;
        error.time = Some(time);
        (error.dbms, error.table, error.status, error.text) =
            (dbms.to_owned(), table.to_owned(), status, text.to_owned());
    }

    /// The counters of all tables, by database and table.
    #[must_use]
    pub fn tables(&self) -> BTreeMap<(String, String), TableStats> {
        self.0.lock().tables.clone()
    }

    /// Failures with JSON data, and failures of a database.
    #[must_use]
    pub fn errors(&self) -> (ErrorStats, ErrorStats) {
        let inner = self.0.lock();
        (inner.json_errors.clone(), inner.sql_errors.clone())
    }

    /// Rows stored and errors: since the last call, and since the start.
    #[must_use]
    pub fn summary(&self) -> [(u64, u64); 2] {
        let mut inner = self.0.lock();
        let rows = inner.tables.values().map(|stats| stats.stored).sum();
        let errors = inner.json_errors.count + inner.sql_errors.count;
        let new = (rows - inner.last_summary.0.min(rows), errors - inner.last_summary.1.min(errors));
        inner.last_summary = (rows, errors);
        [new, (rows, errors)]
    }

    /// Starts counting anew.
    pub fn reset(&self) {
        let mut inner = self.0.lock();
        let failing = std::mem::take(&mut inner.failing);
        *inner = Inner { failing, ..Inner::default() };
    }
}
