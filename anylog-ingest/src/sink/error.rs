//! Why a store does not take rows.

use anylog_core::{CommandError, Status};

/// Why rows were not taken. Nothing of the group was stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
    /// No operator runs on this node.
    #[error("no operator runs on this node, so data cannot be stored")]
    NotRunning,
    /// The database is not connected.
    #[error("database '{dbms}' is not connected")]
    UnknownDbms {
        /// The logical name.
        dbms: String,
    },
    /// The table is not there and may not be created, or is excluded.
    #[error("table '{dbms}.{table}': {reason}")]
    Table {
        /// The logical database.
        dbms: String,
        /// The table.
        table: String,
        /// Why.
        reason: String,
        /// The documented status.
        status: Status,
    },
    /// The same file came before.
    #[error("the file with hash {hash} was ingested before")]
    DuplicateFile {
        /// MD5 of `dbms.table` and the file's bytes.
        hash: String,
    },
    /// A queue is full; the same rows may be sent again.
    #[error("the node takes no more rows at the moment")]
    Overloaded,
    /// The quarantine holds as much as it may. What would go there is not taken: it is neither stored nor lost.
    #[error("the quarantine is full: {bytes} of {limit} bytes")]
    QuarantineFull {
        /// Bytes that it holds.
        bytes: u64,
        /// Bytes that it may hold.
        limit: u64,
    },
    /// Rows of a table are to be on several members of the cluster, and too few can be reached.
    #[error("table '{dbms}.{table}' needs its rows on {wanted} members, and {reachable} can be reached: {reason}")]
    TooFewCopies {
        /// The logical database.
        dbms: String,
        /// The table.
        table: String,
        /// How many members are to have them, this one included.
        wanted: u32,
        /// How many would get them, this one included.
        reachable: u32,
        /// What is the matter with the others, and whether this member has the rows.
        reason: String,
    },
    /// The disk is full.
    #[error("not enough space on disk to store rows")]
    DiskFull,
    /// The database does not answer; the same rows may be sent again.
    #[error("rows cannot be stored at the moment: {reason}")]
    Unavailable {
        /// Which database, where it is, and its words.
        reason: String,
    },
    /// Storing failed.
    #[error("storing failed: {reason}")]
    Failed {
        /// The cause.
        reason: String,
    },
}

impl SinkError {
    /// Whether the same rows may succeed later without anybody changing them.
    #[must_use]
    pub fn may_retry(&self) -> bool {
        match self {
            SinkError::NotRunning
            | SinkError::Overloaded
            | SinkError::QuarantineFull { .. }
            | SinkError::TooFewCopies { .. }
            | SinkError::DiskFull
            | SinkError::Unavailable { .. }
            | SinkError::Failed { .. } => true,
            SinkError::UnknownDbms { .. } | SinkError::Table { .. } | SinkError::DuplicateFile { .. } => false,
        }
    }
}

impl From<SinkError> for CommandError {
    fn from(error: SinkError) -> Self {
        let (status, hint) = match &error {
            SinkError::NotRunning => {
                (Status::OPERATOR_NOT_RUNNING, Some("start one with: run operator where policy=<id>".into()))
            }
            SinkError::UnknownDbms { dbms } => {
                (Status::DBMS_NOT_CONNECTED, Some(format!("connect it with: connect dbms {dbms} where type=sqlite")))
            }
            SinkError::Table { status, .. } => (*status, None),
            SinkError::DuplicateFile { .. } => (Status::DUPLICATE_FILE, None),
            SinkError::Overloaded => (Status::OVERLOADED, Some("send the same rows again later".into())),
            SinkError::QuarantineFull { .. } => (
                Status::OVERLOADED,
                Some(
                    "look with: get quarantine; empty it with: retry quarantine, or: delete quarantine; or give it room with: \
                     set quarantine where limit = 1GB"
                        .into(),
                ),
            ),
            SinkError::TooFewCopies { .. } => (
                Status::OVERLOADED,
                Some(
                    "look with: get distributor, get tsd sync status; start the other members, or ask for less with: \
                     set buffer threshold where ack = local"
                        .into(),
                ),
            ),
            SinkError::DiskFull => (Status::DISK_FULL, Some("free space, or drop old partitions".into())),
            SinkError::Unavailable { .. } => (
                Status::DBMS_UNAVAILABLE,
                Some("send the same rows again later; see since when and why with: get databases".into()),
            ),
            SinkError::Failed { .. } => (Status::PROCESS_FAILURE, None),
        };
        let text = error.to_string();
        CommandError { status, message: text, hint }
    }
}
