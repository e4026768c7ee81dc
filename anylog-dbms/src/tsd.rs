//! The registry of source files: `almgm.tsd_info` for files of this node, `tsd_<member>` for files of its peers.

mod numbers;

use std::sync::Arc;

use anylog_core::time::stored;
use anylog_core::{CommandError, Status};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::postgres::PostgresDbms;
use crate::schema::parse_time;
use crate::sqlite::SqliteDbms;
use crate::{Dbms, DbmsError, SqlValue};

/// The logical database of the registry.
pub const DATABASE: &str = "almgm";

/// The table of this node's own files.
pub const OWN_TABLE: &str = "tsd_info";

/// The `status1` of a file for which no rows came.
pub const VOID: &str = "void";

/// The `status1` of a file that was taken away in order to be fetched from another member.
pub const TAKEN_AWAY: &str = "taken away";

/// A file to be registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFile {
    /// Logical database.
    pub dbms: String,
    /// Table.
    pub table: String,
    /// Data source id; `0` when there is none.
    pub source: String,
    /// Hash of the content, unique in the registry.
    pub hash: String,
    /// Id of the mapping policy; `0` when there is none.
    pub instructions: String,
    /// When it was registered; kept with microseconds.
    pub time: Timestamp,
}

/// A registered file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TsdFile {
    /// Its number at the member that registered it.
    pub file_id: i64,
    /// Logical database.
    pub dbms: String,
    /// Table.
    pub table: String,
    /// Data source id.
    pub source: String,
    /// Hash of the content.
    pub hash: String,
    /// Id of the mapping policy.
    pub instructions: String,
    /// When it was registered.
    pub time: Timestamp,
    /// Rows that it brought.
    pub rows: i64,
    /// Free text.
    pub status1: String,
    /// Free text.
    pub status2: String,
}

/// What changes in a registered file; what is absent stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TsdUpdate {
    /// Another hash.
    pub hash: Option<String>,
    /// Rows that it brought.
    pub rows: Option<u64>,
    /// Free text.
    pub status1: Option<String>,
    /// Free text.
    pub status2: Option<String>,
}

/// Which files a list holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TsdFilter {
    /// Of this logical database.
    pub dbms: Option<String>,
    /// Of this table.
    pub table: Option<String>,
    /// With this hash.
    pub hash: Option<String>,
    /// Registered at or after.
    pub start: Option<Timestamp>,
    /// Registered before or at.
    pub end: Option<Timestamp>,
    /// With a `file_id` of at least.
    pub from_id: Option<i64>,
    /// With a `file_id` of at most.
    pub to_id: Option<i64>,
    /// Only files with a status text: those that something is wrong with.
    pub errors: bool,
    /// Only files whose rows are all in their table.
    pub complete: bool,
    /// At most so many, the newest; none or 0: all.
    pub limit: Option<u32>,
}

/// Files of one table, summed up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TsdSummary {
    /// Logical database.
    pub dbms: String,
    /// Table.
    pub table: String,
    /// When the first was registered.
    pub start: Timestamp,
    /// Smallest `file_id`.
    pub from_id: i64,
    /// When the last was registered.
    pub end: Timestamp,
    /// Largest `file_id`.
    pub to_id: i64,
    /// How many files.
    pub files: i64,
    /// How many different sources.
    pub sources: i64,
    /// How many different texts in `status1`.
    pub status1: i64,
    /// How many different texts in `status2`.
    pub status2: i64,
    /// Sum of rows.
    pub rows: i64,
}

/// Why the registry refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TsdError {
    /// A file with this hash or number is registered.
    #[error("a file with hash '{hash}' is registered in '{table}'")]
    Duplicate {
        /// The registry's table.
        table: String,
        /// The hash.
        hash: String,
    },
    /// There is no such table of the registry.
    #[error("'{table}' is not a TSD table")]
    NoTable {
        /// The name.
        table: String,
    },
    /// The database failed.
    #[error(transparent)]
    Dbms(#[from] DbmsError),
}

impl From<TsdError> for CommandError {
    fn from(error: TsdError) -> Self {
        let text = error.to_string();
        match error {
            TsdError::Duplicate { .. } => CommandError::new(Status::DUPLICATE_FILE, text),
            TsdError::NoTable { .. } => CommandError::new(Status::TSD, text).hint("see: get tsd list"),
            TsdError::Dbms(error) => error.into(),
        }
    }
}

#[derive(Debug, Clone)]
enum Store {
    Sqlite(Arc<SqliteDbms>),
    Postgres(Arc<PostgresDbms>),
}

/// The registry. Calls block; each that changes something is durable when it returns.
#[derive(Debug, Clone)]
pub struct TsdStore {
    store: Store,
}

const COLUMNS: &str = "dbms_name, table_name, source, file_hash, instructions, file_time, rows, status1, status2";

impl TsdStore {
    pub(crate) fn sqlite(dbms: Arc<SqliteDbms>) -> Self {
        Self { store: Store::Sqlite(dbms) }
    }

    pub(crate) fn postgres(dbms: Arc<PostgresDbms>) -> Self {
        Self { store: Store::Postgres(dbms) }
    }

    /// Whether `tsd_info` is there.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.tables().is_ok_and(|tables| tables.iter().any(|table| table == OWN_TABLE))
    }

    /// Creates `tsd_info` unless it is there.
    ///
    /// # Errors
    /// Of the database.
    pub fn create(&self) -> Result<(), TsdError> {
        let key = match self.store {
            Store::Sqlite(_) => "INTEGER PRIMARY KEY AUTOINCREMENT",
            Store::Postgres(_) => "SERIAL PRIMARY KEY",
        };
        self.create_table(OWN_TABLE, key, "")
    }

    fn create_table(&self, table: &str, key: &str, index_end: &str) -> Result<(), TsdError> {
        self.change(
            &format!(
                "CREATE TABLE IF NOT EXISTS {table}(file_id {key}, dbms_name VARCHAR NOT NULL, table_name VARCHAR NOT NULL, \
                 source VARCHAR NOT NULL, file_hash VARCHAR NOT NULL, instructions VARCHAR NOT NULL, \
                 file_time TIMESTAMP NOT NULL, rows INT, status1 VARCHAR, status2 VARCHAR)"
            ),
            &[],
        )?;
        self.change(&format!("CREATE UNIQUE INDEX IF NOT EXISTS hash_index{index_end} ON {table}(file_hash)"), &[])?;
        self.change(&format!("CREATE INDEX IF NOT EXISTS time_index{index_end} ON {table}(file_time)"), &[])?;
        Ok(())
    }

    /// Registers a file of this node and returns its `file_id`.
    ///
    /// # Errors
    /// [`TsdError::Duplicate`] when a file with this hash is registered.
    pub fn register(&self, file: &NewFile) -> Result<i64, TsdError> {
        let rows = self.insert(OWN_TABLE, None, file)?;
        match rows.first().and_then(|row| row.first()) {
            Some(SqlValue::Int(file_id)) => Ok(*file_id),
            other => Err(unexpected(&format!("a file_id, got {other:?}"))),
        }
    }

    /// Registers a file of a peer, under the peer's `file_id`, in `tsd_<member>`, which is created when needed.
    ///
    /// # Errors
    /// [`TsdError::Duplicate`] when a file with this hash or number of the peer is registered.
    pub fn register_peer(&self, member: &str, file_id: i64, file: &NewFile) -> Result<(), TsdError> {
        let table = member_table(member)?;
        if !self.tables()?.contains(&table) {
            self.create_table(&table, "INT PRIMARY KEY", &format!("_{member}"))?;
        }
        self.insert(&table, Some(file_id), file).map(|_| ())
    }

    fn insert(&self, table: &str, file_id: Option<i64>, file: &NewFile) -> Result<Vec<Vec<SqlValue>>, TsdError> {
        let (column, parameter) = if file_id.is_some() { ("file_id, ", "?, ") } else { ("", "") };
        let time = self.time_parameter();
        let sql = format!(
            "INSERT INTO {table}({column}{COLUMNS}) VALUES ({parameter}?, ?, ?, ?, ?, {time}, 0, '', '') RETURNING file_id"
        );
        let params: Vec<SqlValue> = file_id.map(SqlValue::Int).into_iter().chain(values(file)).collect();
        self.change(&sql, &params).map_err(|error| match error {
            TsdError::Dbms(DbmsError::Unique { .. }) => {
                TsdError::Duplicate { table: table.to_owned(), hash: file.hash.clone() }
            }
            other => other,
        })
    }

    /// Changes a registered file; false when there is no such file.
    ///
    /// # Errors
    /// [`TsdError::Duplicate`] when another file has the new hash, [`TsdError::NoTable`].
    pub fn update(&self, table: &str, file_id: i64, update: &TsdUpdate) -> Result<bool, TsdError> {
        let table = self.known(table)?;
        let text = |value: &Option<String>| value.clone().map(SqlValue::Text);
        let rows = update.rows.map(|rows| SqlValue::Int(i64::try_from(rows).unwrap_or(i64::MAX)));
        let changes = [
            ("file_hash", text(&update.hash)),
            ("rows", rows),
            ("status1", text(&update.status1)),
            ("status2", text(&update.status2)),
        ];
        let (names, mut params): (Vec<String>, Vec<SqlValue>) =
            changes.into_iter().filter_map(|(name, value)| Some((format!("{name} = ?"), value?))).unzip();
        if names.is_empty() {
            return Ok(self.get(&table, file_id)?.is_some());
        }
        params.push(SqlValue::Int(file_id));
        let sql = format!("UPDATE {table} SET {} WHERE file_id = ? RETURNING file_id", names.join(", "));
        let changed = self.change(&sql, &params).map_err(|error| match error {
            TsdError::Dbms(DbmsError::Unique { .. }) => {
                TsdError::Duplicate { table: table.clone(), hash: update.hash.clone().unwrap_or_default() }
            }
            other => other,
        })?;
        Ok(!changed.is_empty())
    }

    /// The file of this node with a hash.
    ///
    /// # Errors
    /// Of the database.
    pub fn find(&self, hash: &str) -> Result<Option<TsdFile>, TsdError> {
        let filter = TsdFilter { hash: Some(hash.to_owned()), ..TsdFilter::default() };
        Ok(self.list(OWN_TABLE, &filter)?.pop())
    }

    /// The file with a number.
    ///
    /// # Errors
    /// [`TsdError::NoTable`].
    pub fn get(&self, table: &str, file_id: i64) -> Result<Option<TsdFile>, TsdError> {
        let filter = TsdFilter { from_id: Some(file_id), to_id: Some(file_id), ..TsdFilter::default() };
        Ok(self.list(table, &filter)?.pop())
    }

    /// Files, newest first.
    ///
    /// # Errors
    /// [`TsdError::NoTable`].
    pub fn list(&self, table: &str, filter: &TsdFilter) -> Result<Vec<TsdFile>, TsdError> {
        let table = self.known(table)?;
        let (condition, params) = self.condition(filter);
        let time = self.time_column("file_time");
        let limit = filter.limit.filter(|limit| *limit > 0).map(|limit| format!(" LIMIT {limit}")).unwrap_or_default();
        let sql = format!(
            "SELECT file_id, dbms_name, table_name, source, file_hash, instructions, {time}, rows, status1, status2 \
             FROM {table}{condition} ORDER BY file_id DESC{limit}"
        );
        Ok(self.rows(&sql, &params)?.iter().map(|row| file(row)).collect())
    }

    /// Files summed up by database and table.
    ///
    /// # Errors
    /// [`TsdError::NoTable`].
    pub fn summary(&self, table: &str, filter: &TsdFilter) -> Result<Vec<TsdSummary>, TsdError> {
        let table = self.known(table)?;
        let (condition, params) = self.condition(filter);
        let (start, end) = (self.time_column("min(file_time)"), self.time_column("max(file_time)"));
        let sql = format!(
            "SELECT dbms_name, table_name, {start}, min(file_id), {end}, max(file_id), count(*), count(distinct source), \
             count(distinct status1), count(distinct status2), sum(rows) \
             FROM {table}{condition} GROUP BY dbms_name, table_name ORDER BY dbms_name, table_name"
        );
        Ok(self.rows(&sql, &params)?.iter().map(|row| summary(row)).collect())
    }

    /// The tables of the registry: `tsd_info` first, then `tsd_<member>` sorted.
    ///
    /// # Errors
    /// Of the database.
    pub fn tables(&self) -> Result<Vec<String>, TsdError> {
        let all = match &self.store {
            Store::Sqlite(dbms) => dbms.tables()?,
            Store::Postgres(dbms) => dbms.tables()?,
        };
        let mut tables: Vec<String> = all.into_iter().filter(|table| is_tsd_name(table)).collect();
        tables.sort_by_key(|table| (table != OWN_TABLE, table.len(), table.clone()));
        Ok(tables)
    }

    /// Removes a file from the registry; false when there is no such file.
    ///
    /// # Errors
    /// [`TsdError::NoTable`].
    pub fn delete(&self, table: &str, file_id: i64) -> Result<bool, TsdError> {
        let table = self.known(table)?;
        let sql = format!("DELETE FROM {table} WHERE file_id = ? RETURNING file_id");
        Ok(!self.change(&sql, &[SqlValue::Int(file_id)])?.is_empty())
    }

    /// Drops a table of the registry.
    ///
    /// # Errors
    /// [`TsdError::NoTable`].
    pub fn drop_table(&self, table: &str) -> Result<(), TsdError> {
        let table = self.known(table)?;
        self.change(&format!("DROP TABLE {table}"), &[]).map(|_| ())
    }

    /// A table of the registry that is there; its name is safe inside a statement then.
    fn known(&self, table: &str) -> Result<String, TsdError> {
        if table == OWN_TABLE {
            return Ok(table.to_owned());
        }
        let found = is_tsd_name(table) && self.tables()?.iter().any(|known| known == table);
        if found { Ok(table.to_owned()) } else { Err(TsdError::NoTable { table: table.to_owned() }) }
    }

    fn condition(&self, filter: &TsdFilter) -> (String, Vec<SqlValue>) {
        let text = |value: &Option<String>| value.clone().map(SqlValue::Text);
        let time = |value: Option<Timestamp>| value.map(|time| SqlValue::Text(stored(time)));
        let parameter = self.time_parameter();
        let terms = [
            ("dbms_name = ?".to_owned(), text(&filter.dbms)),
            ("table_name = ?".to_owned(), text(&filter.table)),
            ("file_hash = ?".to_owned(), text(&filter.hash)),
            (format!("file_time >= {parameter}"), time(filter.start)),
            (format!("file_time <= {parameter}"), time(filter.end)),
            ("file_id >= ?".to_owned(), filter.from_id.map(SqlValue::Int)),
            ("file_id <= ?".to_owned(), filter.to_id.map(SqlValue::Int)),
        ];
        let (mut terms, params): (Vec<String>, Vec<SqlValue>) =
            terms.into_iter().filter_map(|(term, value)| Some((term, value?))).unzip();
        if filter.errors {
            terms.push("coalesce(status1, '') NOT IN ('', 'None')".to_owned());
        }
        if filter.complete {
            terms.push(complete(""));
        }
        let condition = if terms.is_empty() { String::new() } else { format!(" WHERE {}", terms.join(" AND ")) };
        (condition, params)
    }

    /// A parameter that holds a time as text.
    fn time_parameter(&self) -> &'static str {
        match self.store {
            Store::Sqlite(_) => "?",
            Store::Postgres(_) => "?::timestamp",
        }
    }

    /// A time as text.
    fn time_column(&self, expression: &str) -> String {
        match self.store {
            Store::Sqlite(_) => expression.to_owned(),
            Store::Postgres(_) => format!("to_char({expression}, 'YYYY-MM-DD HH24:MI:SS.US')"),
        }
    }

    fn change(&self, sql: &str, params: &[SqlValue]) -> Result<Vec<Vec<SqlValue>>, TsdError> {
        let changed = match &self.store {
            Store::Sqlite(dbms) => dbms.change(sql, params),
            Store::Postgres(dbms) => dbms.change(sql, params),
        };
        changed.map_err(of_registry)
    }

    fn rows(&self, sql: &str, params: &[SqlValue]) -> Result<Vec<Vec<SqlValue>>, TsdError> {
        let rows = match &self.store {
            Store::Sqlite(dbms) => dbms.rows(sql, params),
            Store::Postgres(dbms) => dbms.rows(sql, params),
        };
        rows.map_err(of_registry)
    }
}

fn of_registry(error: DbmsError) -> TsdError {
    match error {
        DbmsError::NoTable { table, .. } => TsdError::NoTable { table },
        other => TsdError::Dbms(other),
    }
}

/// The values of a file's first columns.
fn values(file: &NewFile) -> impl Iterator<Item = SqlValue> {
    [&file.dbms, &file.table, &file.source, &file.hash, &file.instructions, &stored(file.time)]
        .map(|text| SqlValue::Text(text.clone()))
        .into_iter()
}

/// The condition of a file that is complete; `of` is the table with a dot, or empty.
fn complete(of: &str) -> String {
    format!(
        "coalesce({of}rows, 0) > 0 AND coalesce({of}status1, '') NOT IN ('{VOID}', '{TAKEN_AWAY}') AND {of}file_hash NOT LIKE 'open:%'"
    )
}

/// The table of a member's files.
fn member_table(member: &str) -> Result<String, TsdError> {
    let table = format!("tsd_{member}");
    if is_tsd_name(&table) && table != OWN_TABLE { Ok(table) } else { Err(TsdError::NoTable { table }) }
}

/// `tsd_info`, and `tsd_` with a member's number.
fn is_tsd_name(table: &str) -> bool {
    let member = |rest: &str| !rest.is_empty() && rest.len() <= 20 && rest.bytes().all(|byte| byte.is_ascii_digit());
    table == OWN_TABLE || table.strip_prefix("tsd_").is_some_and(member)
}

fn unexpected(what: &str) -> TsdError {
    let reason = format!("expected {what}");
    TsdError::Dbms(DbmsError::Statement { engine: DATABASE.to_owned(), reason })
}

fn text(value: Option<&SqlValue>) -> String {
    match value {
        Some(SqlValue::Text(text)) => text.clone(),
        Some(SqlValue::Int(value)) => value.to_string(),
        _ => String::new(),
    }
}

fn int(value: Option<&SqlValue>) -> i64 {
    match value {
        Some(SqlValue::Int(value)) => *value,
        _ => 0,
    }
}

fn time(value: Option<&SqlValue>) -> Timestamp {
    parse_time(&text(value), &TimeZone::UTC).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn file(row: &[SqlValue]) -> TsdFile {
    TsdFile {
        file_id: int(row.first()),
        dbms: text(row.get(1)),
        table: text(row.get(2)),
        source: text(row.get(3)),
        hash: text(row.get(4)),
        instructions: text(row.get(5)),
        time: time(row.get(6)),
        rows: int(row.get(7)),
        status1: text(row.get(8)),
        status2: text(row.get(9)),
    }
}

fn summary(row: &[SqlValue]) -> TsdSummary {
    TsdSummary {
        dbms: text(row.first()),
        table: text(row.get(1)),
        start: time(row.get(2)),
        from_id: int(row.get(3)),
        end: time(row.get(4)),
        to_id: int(row.get(5)),
        files: int(row.get(6)),
        sources: int(row.get(7)),
        status1: int(row.get(8)),
        status2: int(row.get(9)),
        rows: int(row.get(10)),
    }
}
