//! What can go wrong in an operator.

use std::path::PathBuf;

use anylog_core::{CommandError, Status};
use anylog_dbms::{DbmsError, TsdError};
use anylog_ingest::SinkError;
use anylog_ledger::LedgerError;

use crate::journal::JournalError;

/// Why an operator could not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OperatorError {
    /// `run operator` when one runs.
    #[error("an operator runs already on this node")]
    Running,
    /// Something needs a running operator.
    #[error("no operator runs on this node")]
    NotRunning,
    /// There is no such operator policy in the ledger.
    #[error("the ledger of this node has no operator policy with id '{id}'")]
    NoPolicy {
        /// The id that was asked for.
        id: String,
    },
    /// The operator policy cannot be used.
    #[error("operator policy '{id}' cannot be used: {error}")]
    Policy {
        /// Its id.
        id: String,
        /// What is wrong with it.
        error: Box<LedgerError>,
    },
    /// A table named in `limit_tables` is not known.
    #[error("limit_tables names '{table}', which is not in the ledger and not in a connected database")]
    UnknownTable {
        /// `dbms.table` as written.
        table: String,
    },
    /// A directory is missing or cannot be written.
    #[error("directory '{path}' cannot be used: {reason}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// A file name that does not follow the rules of source files.
    #[error("file name '{name}': {reason}")]
    FileName {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file could not be read, written or moved.
    #[error("file '{path}': {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// A file whose content is not JSON rows.
    #[error("file '{name}' does not hold JSON rows: {reason}")]
    Content {
        /// The file's name.
        name: String,
        /// Where and why.
        reason: String,
    },
    /// Another task stores the same content at the moment.
    #[error("the content with hash {hash} is being stored")]
    Busy {
        /// MD5 of `dbms.table` and the bytes.
        hash: String,
    },
    /// A compressed file that cannot be unpacked.
    #[error("file '{name}' cannot be unpacked: {reason}")]
    Compressed {
        /// The file's name.
        name: String,
        /// Why.
        reason: String,
    },
    /// A file of another member of the cluster, which nobody asked for.
    #[error("file '{name}' comes from member {member}, which is not in this node's cluster")]
    UnknownMember {
        /// The file's name.
        name: String,
        /// The member in the name.
        member: String,
    },
    /// Files are exchanged by their numbers in the registry, and there is none.
    #[error("rows are not registered on this node: no files can be exchanged with other members of its cluster")]
    NotRegistered,
    /// A file that another member wants cannot be given.
    #[error("file {file} of member {producer} cannot be given: {reason}")]
    NotGiven {
        /// The member that produced it.
        producer: i64,
        /// Its number there.
        file: i64,
        /// Why.
        reason: String,
    },
    /// Another node runs as the same member.
    #[error(
        "member {member} runs already: node {address}, where operator policy {policy} says that it is. Two nodes cannot be one member: end \
         that node, or give this one a policy of its own"
    )]
    MemberTaken {
        /// The number.
        member: i64,
        /// The operator policy of both.
        policy: String,
        /// Where the other node is.
        address: String,
    },
    /// What another member sent of a file cannot be used.
    #[error("what was sent of file {file} of member {producer} cannot be used: {reason}")]
    BadCopy {
        /// The member that produced it.
        producer: i64,
        /// Its number there.
        file: i64,
        /// Why.
        reason: String,
    },
    /// Two members have different files under one number. Nothing was overwritten.
    #[error(
        "file {file} of member {producer} is complete here with hash {known}, and another member has it with hash {other}: \
         see both with 'get tsd details', and keep the right one with 'repair cluster'"
    )]
    Conflict {
        /// The member that produced it.
        producer: i64,
        /// Its number there.
        file: i64,
        /// The hash in this node's registry.
        known: String,
        /// The hash that the other has.
        other: String,
    },
    /// Rows of a segment could not be read back.
    #[error("segment {segment} of {table}: {reason}")]
    Segment {
        /// The segment.
        segment: String,
        /// `dbms.table`.
        table: String,
        /// What happened.
        reason: String,
    },
    /// The quarantine holds as much as it may.
    #[error("the quarantine is full: {bytes} of {limit} bytes")]
    QuarantineFull {
        /// Bytes that it holds.
        bytes: u64,
        /// Bytes that it may hold.
        limit: u64,
    },
    /// Records of the quarantine are being tried again or deleted.
    #[error("records of the quarantine are being tried again or deleted already")]
    QuarantineBusy,
    /// Members are being compared already.
    #[error("the members of the cluster are being compared already on this node")]
    RepairRuns,
    /// A threshold that makes no sense.
    #[error("{reason}")]
    Threshold {
        /// What is wrong.
        reason: String,
    },
    /// Rows were refused as a whole.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A database failed.
    #[error(transparent)]
    Dbms(#[from] DbmsError),
    /// The registry of source files failed.
    #[error("registry of source files: {0}")]
    Tsd(#[from] TsdError),
}

impl OperatorError {
    /// The documented status.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            OperatorError::Running => Status::PROCESS_RUNNING,
            OperatorError::NotRunning => Status::OPERATOR_NOT_RUNNING,
            OperatorError::NoPolicy { .. } => Status::NO_POLICY,
            OperatorError::Policy { error, .. } => CommandError::from((**error).clone()).status,
            OperatorError::UnknownTable { .. } => Status::NO_TABLE_METADATA,
            OperatorError::Directory { .. } => Status::NOT_WRITABLE,
            OperatorError::FileName { .. } => Status::FILE_NAME_STRUCTURE,
            OperatorError::File { .. } => Status::WRITE_FAILURE,
            OperatorError::Content { .. } => Status::JSON_ANALYSIS,
            OperatorError::Busy { .. } => Status::OVERLOADED,
            OperatorError::Compressed { .. } => Status::UNZIP,
            OperatorError::UnknownMember { .. } => Status::UNKNOWN_MEMBER,
            OperatorError::Segment { .. } => Status::PROCESS_FAILURE,
            OperatorError::MemberTaken { .. } => Status::NON_UNIQUE_POLICY,
            OperatorError::NotRegistered
            | OperatorError::NotGiven { .. }
            | OperatorError::BadCopy { .. }
            | OperatorError::Conflict { .. } => Status::TSD,
            OperatorError::QuarantineFull { .. } => Status::OVERLOADED,
            OperatorError::QuarantineBusy | OperatorError::RepairRuns => Status::PROCESS_RUNNING,
            OperatorError::Threshold { .. } => Status::COMMAND_PARAMETERS,
            OperatorError::Sink(error) => CommandError::from(error.clone()).status,
            OperatorError::Journal(JournalError::Full { .. }) => Status::DISK_FULL,
            OperatorError::Journal(_) => Status::WRITE_FAILURE,
            OperatorError::Dbms(error) => CommandError::from(error.clone()).status,
            OperatorError::Tsd(_) => Status::TSD,
        }
    }
}

impl From<OperatorError> for CommandError {
    fn from(error: OperatorError) -> Self {
        let hint = match &error {
            OperatorError::Running => Some("see it with: get operator config, end it with: exit operator"),
            OperatorError::NotRunning => Some("start one with: run operator where policy = <id>"),
            OperatorError::NoPolicy { .. } => {
                Some("list the policies with: blockchain get operator, or fetch them with: run blockchain sync")
            }
            OperatorError::UnknownTable { .. } => Some("list tables with: get tables where dbms = *"),
            OperatorError::Directory { .. } => Some("make the directories with: create work directories"),
            OperatorError::FileName { .. } => Some("expected dbms.table[.source[.hash[.instructions]]].json"),
            OperatorError::NotRegistered => {
                Some("connect almgm, create tsd_info, and: run operator where policy = <id> and update_tsd_info = true")
            }
            OperatorError::Journal(JournalError::Full { .. }) => Some("free space, or drop old partitions"),
            OperatorError::RepairRuns => Some("wait for its end; what it came to: get consumer"),
            _ => None,
        };
        match &error {
            OperatorError::Sink(error) => return error.clone().into(),
            OperatorError::Dbms(error) => return error.clone().into(),
            _ => {}
        }
        let plain = CommandError::new(error.status(), error.to_string());
        match hint {
            Some(hint) => plain.hint(hint),
            None => plain,
        }
    }
}

impl From<OperatorError> for SinkError {
    fn from(error: OperatorError) -> Self {
        match error {
            OperatorError::Sink(error) => error,
            OperatorError::Journal(JournalError::Full { .. })
            | OperatorError::Dbms(DbmsError::DiskFull { .. })
            | OperatorError::Tsd(TsdError::Dbms(DbmsError::DiskFull { .. })) => SinkError::DiskFull,
            OperatorError::Journal(JournalError::Closed) | OperatorError::NotRunning => SinkError::NotRunning,
            OperatorError::Busy { .. } => SinkError::Overloaded,
            OperatorError::QuarantineFull { bytes, limit } => SinkError::QuarantineFull { bytes, limit },
            OperatorError::Dbms(DbmsError::NotConnected { name }) => SinkError::UnknownDbms { dbms: name },
            OperatorError::Dbms(error @ DbmsError::Unavailable { .. })
            | OperatorError::Tsd(TsdError::Dbms(error @ DbmsError::Unavailable { .. })) => {
                SinkError::Unavailable { reason: error.to_string() }
            }
            other => SinkError::Failed { reason: other.to_string() },
        }
    }
}

/// An error of the file system with the path that it concerns.
pub(crate) fn file_error(path: &std::path::Path) -> impl Fn(std::io::Error) -> OperatorError + '_ {
    move |error| OperatorError::File { path: path.to_owned(), reason: error.to_string() }
}
