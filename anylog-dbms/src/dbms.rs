//! The seam to a physical database.

use std::ops::ControlFlow;

use crate::growing::{Grow, Unseen, at_once};
use crate::{ColumnType, DbmsError, SqlRef, SqlValue, TableSchema};

/// A kind of database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Engine {
    /// SQLite, in files or in memory.
    Sqlite,
    /// PostgreSQL; `psql` in the language.
    Postgres,
}

impl Engine {
    /// The word of the language: `sqlite`, `psql`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Engine::Sqlite => "sqlite",
            Engine::Postgres => "psql",
        }
    }
}

/// What `get databases` shows of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DbmsInfo {
    /// `Local`, or `ip:port` of the server.
    pub ip_port: String,
    /// Commit and durability settings.
    pub configuration: String,
    /// A path, `MEMORY`, or `Persistent`.
    pub storage: String,
}

/// Identity of a run of rows between two thresholds; see the journal of `anylog-operator`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentId(pub u128);

impl std::fmt::Display for SegmentId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Where rows lie: a table itself, or one of its partitions.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// The table.
    pub table: String,
    /// The partition's full name, `par_<table>_...`, or none for the table itself.
    pub partition: Option<String>,
}

impl Target {
    /// The table itself.
    pub fn table(table: impl Into<String>) -> Self {
        Self { table: table.into(), partition: None }
    }

    /// A partition of the table.
    pub fn partition(table: impl Into<String>, partition: impl Into<String>) -> Self {
        Self { table: table.into(), partition: Some(partition.into()) }
    }

    /// The name of the physical table that holds the rows.
    #[must_use]
    pub fn physical(&self) -> &str {
        self.partition.as_deref().unwrap_or(&self.table)
    }
}

/// Takes the rows of a result one at a time, each with the column names, and may stop.
pub type Visit<'a> = &'a mut (dyn FnMut(&[String], Vec<SqlValue>) -> ControlFlow<()> + 'a);

/// Tells whether the rows of a statement are still wanted.
pub type Wanted<'a> = &'a (dyn Fn() -> bool + 'a);

/// Takes the values of one row of a result where they lie; they are gone after the call.
pub type Scan<'a> = &'a mut (dyn FnMut(&[SqlRef<'_>]) -> ControlFlow<()> + 'a);

/// A row whose first values it shares with other rows: those of a batch have one time of arrival.
#[derive(Debug, Clone, Copy)]
pub struct RowRef<'a> {
    /// The values of the first columns.
    pub shared: &'a [SqlValue],
    /// The values of the others.
    pub own: &'a [SqlValue],
}

impl<'a> RowRef<'a> {
    /// All values in column order.
    pub fn values(self) -> impl Iterator<Item = &'a SqlValue> {
        self.shared.iter().chain(self.own)
    }

    /// How many values it has.
    #[must_use]
    pub fn width(self) -> usize {
        self.shared.len() + self.own.len()
    }
}

/// A statement of [`Dbms::execute_all`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The statement, no SELECT.
    pub sql: String,
    /// How many rows it must change; any number when none.
    pub rows: Option<u64>,
}

impl Checked {
    /// A statement that may change any number of rows.
    pub fn any(sql: impl Into<String>) -> Self {
        Self { sql: sql.into(), rows: None }
    }

    /// A statement that must change just so many rows.
    pub fn just(rows: u64, sql: impl Into<String>) -> Self {
        Self { sql: sql.into(), rows: Some(rows) }
    }

    /// Whether a number of changed rows is the right one.
    pub(crate) fn holds(&self, changed: usize) -> bool {
        self.rows.is_none_or(|rows| u64::try_from(changed).is_ok_and(|changed| changed == rows))
    }
}

/// A physical database. Calls block; asynchronous callers run them on a blocking thread. All calls may be made from
/// several threads: an engine has one writer and readers beside it.
pub trait Dbms: Send + Sync + std::fmt::Debug {
    /// The kind of database.
    fn engine(&self) -> Engine;

    /// What `get databases` shows.
    fn info(&self) -> DbmsInfo;

    /// What keeps the database from being used at the moment, and since when; none when nothing is known to. May try whether it still
    /// does.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// The user's tables, without partitions, sorted by name.
    fn tables(&self) -> Result<Vec<String>, DbmsError>;

    /// The columns and indexes of a table, as far as the engine tells them; none when there is no such table.
    fn schema(&self, table: &str) -> Result<Option<TableSchema>, DbmsError>;

    /// Creates a table with its indexes unless it is there.
    fn create_table(&self, schema: &TableSchema) -> Result<(), DbmsError>;

    /// Makes a column of a table and all its partitions wider: `BigInt` to `Double`. Values stay as they are.
    fn widen_column(&self, table: &str, column: &str, to: ColumnType) -> Result<(), DbmsError>;

    /// Drops a table and all its partitions.
    fn drop_table(&self, table: &str) -> Result<(), DbmsError>;

    /// The names of a table's partitions in name order, which is time order.
    fn partitions(&self, table: &str) -> Result<Vec<String>, DbmsError>;

    /// Creates a partition of the table with its indexes unless it is there.
    fn create_partition(&self, schema: &TableSchema, partition: &str) -> Result<(), DbmsError>;

    /// Drops one partition. Its space is back on the file system when the call returns.
    fn drop_partition(&self, table: &str, partition: &str) -> Result<(), DbmsError>;

    /// Drops partitions as [`Self::drop_partition`] does, and pays for all together what each would cost. Tells `dropped` of each that
    /// is gone, also when the call fails; one that was not there is passed over.
    fn drop_partitions(
        &self,
        table: &str,
        partitions: &[String],
        dropped: &mut dyn FnMut(&str),
    ) -> Result<(), DbmsError> {
        for partition in partitions {
            match self.drop_partition(table, partition) {
                Ok(()) => dropped(partition),
                Err(DbmsError::NoTable { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Gives the space of a partition back that cannot be dropped yet, because the drop cannot be noted on a full disk. Needs no
    /// space. From then on it is no partition; [`Self::drop_partition`] ends what was begun. Nothing when the engine has no such way.
    fn empty_partition(&self, table: &str, partition: &str) -> Result<(), DbmsError> {
        let _ = (table, partition);
        Ok(())
    }

    /// What [`Self::empty_partition`] emptied and nobody dropped: table and partition.
    fn emptied_partitions(&self) -> Result<Vec<(String, String)>, DbmsError> {
        Ok(Vec::new())
    }

    /// Bytes that a target takes on the disk; none when the engine cannot tell.
    fn size(&self, target: &Target) -> Result<Option<u64>, DbmsError> {
        let _ = target;
        Ok(None)
    }

    /// A number that is another one after the target's rows were changed, by whomever; none when the engine cannot tell, or the
    /// last change is too young to tell it from one that comes now.
    fn version(&self, target: &Target) -> Result<Option<u64>, DbmsError> {
        let _ = target;
        Ok(None)
    }

    /// Bytes that are free where rows are stored; none when that is not known.
    fn free(&self) -> Result<Option<u64>, DbmsError> {
        Ok(None)
    }

    /// Stores rows, and in the same transaction how far each segment is applied to this target. `columns` names the
    /// columns of each row. On any error nothing is stored; an engine that can tell which row it refused says so with
    /// [`DbmsError::RowRefused`].
    fn apply(
        &self,
        target: &Target,
        columns: &[String],
        rows: &[Vec<SqlValue>],
        marks: &[(SegmentId, u64)],
    ) -> Result<(), DbmsError>;

    /// As [`Self::apply`], for rows that lie in several places.
    fn apply_rows(
        &self,
        target: &Target,
        columns: &[String],
        rows: &[RowRef<'_>],
        marks: &[(SegmentId, u64)],
    ) -> Result<(), DbmsError> {
        let rows: Vec<Vec<SqlValue>> = rows.iter().map(|row| row.values().cloned().collect()).collect();
        self.apply(target, columns, &rows, marks)
    }

    /// The rows of this database that count as stored before their transaction ends; none when transactions do not grow here, so that it
    /// does not pay to begin one before its rows may be stored.
    fn unseen(&self) -> Option<&Unseen> {
        None
    }

    /// As [`Self::apply_rows`], for rows that come one after the other: `grow` puts them into one transaction, and may wait meanwhile.
    /// They are stored when it says so; when it says no, or fails, nothing is. Returns whether they are.
    fn apply_growing(&self, target: &Target, columns: &[String], grow: Grow<'_>) -> Result<bool, DbmsError> {
        at_once(grow, |rows, marks| self.apply(target, columns, rows, marks))
    }

    /// As [`Self::apply_rows`], in the place of the rows of a source file: those with this `tsd_name` and `tsd_id` are deleted from the
    /// target in the same transaction, and earlier marks of the segments are forgotten. Whoever reads sees the ones or the others, save
    /// in a database in memory, and the call may be repeated.
    fn replace_file(
        &self,
        target: &Target,
        file: (&str, i64),
        columns: &[String],
        rows: &[RowRef<'_>],
        marks: &[(SegmentId, u64)],
    ) -> Result<(), DbmsError> {
        let _ = (target, file, columns, rows, marks);
        let reason = "rows of a source file cannot be replaced".to_owned();
        Err(DbmsError::Statement { engine: self.engine().word().to_owned(), reason })
    }

    /// Deletes the rows of a source file - those with this `tsd_name` and `tsd_id` - from a target, and returns how many. What is
    /// done when it fails half-way stays done, and the call may be repeated. Durable after [`Self::sync`].
    fn delete_file(&self, target: &Target, member: &str, file_id: i64) -> Result<u64, DbmsError> {
        let _ = (target, member, file_id);
        let reason = "rows of a source file cannot be deleted".to_owned();
        Err(DbmsError::Statement { engine: self.engine().word().to_owned(), reason })
    }

    /// The last ordinal of a segment that is settled in this target.
    fn applied(&self, target: &Target, segment: SegmentId) -> Result<Option<u64>, DbmsError>;

    /// Deletes the marks of segments that are sealed.
    fn forget(&self, segments: &[SegmentId]) -> Result<(), DbmsError>;

    /// Returns when everything that was stored is on stable storage.
    fn sync(&self) -> Result<(), DbmsError>;

    /// Runs a SELECT where the target's rows lie. In `sql` the physical table is named [`Target::physical`]. `visit` gets the
    /// column names and one row at a time, and may stop. With no target the statement runs in the main database.
    fn query(&self, target: Option<&Target>, sql: &str, visit: Visit<'_>) -> Result<(), DbmsError>;

    /// As [`Self::query`], for rows that may not be wanted any more while they are sought. `wanted` is asked from time to time by an
    /// engine that can look; then the statement ends, without an error.
    fn query_while(
        &self,
        target: Option<&Target>,
        sql: &str,
        wanted: Wanted<'_>,
        visit: Visit<'_>,
    ) -> Result<(), DbmsError> {
        let _not_looked_at = wanted;
        self.query(target, sql, visit)
    }

    /// As [`Self::query`], for many rows that nobody keeps.
    fn scan(&self, target: Option<&Target>, sql: &str, visit: Scan<'_>) -> Result<(), DbmsError> {
        self.query(target, sql, &mut |_, row| visit(&row.iter().map(SqlValue::as_ref).collect::<Vec<_>>()))
    }

    /// Runs another statement in the main database and returns the number of rows it changed.
    fn execute(&self, sql: &str) -> Result<u64, DbmsError>;

    /// Runs statements in one durable transaction in the main database. When one of them changes another number of rows than is said,
    /// nothing is done at all. Returns whether it was done.
    fn execute_all(&self, statements: &[Checked]) -> Result<bool, DbmsError>;

    /// The number of rows of a target.
    fn count(&self, target: &Target) -> Result<u64, DbmsError>;
}
