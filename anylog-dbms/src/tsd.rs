//! The registry of source files: `almgm.tsd_info` for files of this node, `tsd_<member>` for files of its peers.

use std::sync::Arc;

use jiff::Timestamp;

use crate::DbmsError;
use crate::postgres::PostgresDbms;
use crate::sqlite::SqliteDbms;

/// The logical database of the registry.
pub const DATABASE: &str = "almgm";

/// The table of this node's own files.
pub const OWN_TABLE: &str = "tsd_info";

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

#[derive(Debug, Clone)]
enum Store {
    Sqlite(#[allow(dead_code)] Arc<SqliteDbms>),
    Postgres(#[allow(dead_code)] Arc<PostgresDbms>),
}

/// The registry. Calls block; each that changes something is durable when it returns.
#[derive(Debug, Clone)]
pub struct TsdStore {
    #[allow(dead_code)]
    store: Store,
}

fn absent() -> TsdError {
    TsdError::NoTable { table: OWN_TABLE.into() }
}

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
    pub fn create(&self) -> Result<(), TsdError> {
        Err(absent())
    }

    /// Registers a file of this node and returns its `file_id`.
    pub fn register(&self, _file: &NewFile) -> Result<i64, TsdError> {
        Err(absent())
    }

    /// Registers a file of a peer, under the peer's `file_id`, in `tsd_<member>`, which is created when needed.
    pub fn register_peer(&self, _member: &str, _file_id: i64, _file: &NewFile) -> Result<(), TsdError> {
        Err(absent())
    }

    /// Changes a registered file; false when there is no such file.
    pub fn update(&self, _table: &str, _file_id: i64, _update: &TsdUpdate) -> Result<bool, TsdError> {
        Err(absent())
    }

    /// The file of this node with a hash.
    pub fn find(&self, _hash: &str) -> Result<Option<TsdFile>, TsdError> {
        Err(absent())
    }

    /// The file with a number.
    pub fn get(&self, _table: &str, _file_id: i64) -> Result<Option<TsdFile>, TsdError> {
        Err(absent())
    }

    /// Files, newest first.
    pub fn list(&self, _table: &str, _filter: &TsdFilter) -> Result<Vec<TsdFile>, TsdError> {
        Err(absent())
    }

    /// Files summed up by database and table.
    pub fn summary(&self, _table: &str, _filter: &TsdFilter) -> Result<Vec<TsdSummary>, TsdError> {
        Err(absent())
    }

    /// The tables of the registry: `tsd_info` first, then `tsd_<member>` sorted.
    pub fn tables(&self) -> Result<Vec<String>, TsdError> {
        Err(absent())
    }

    /// Removes a file from the registry; false when there is no such file.
    pub fn delete(&self, _table: &str, _file_id: i64) -> Result<bool, TsdError> {
        Err(absent())
    }

    /// Drops a table of the registry.
    pub fn drop_table(&self, _table: &str) -> Result<(), TsdError> {
        Err(absent())
    }
}
