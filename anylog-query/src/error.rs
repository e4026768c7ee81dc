//! What can go wrong with a query.

use std::time::Duration;

use anylog_core::{CommandError, Status};
use anylog_dbms::DbmsError;

/// Why a query failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The statement is not one of the dialect.
    #[error("Error in SQL statement: {reason}")]
    Syntax {
        /// What is wrong with it.
        reason: String,
    },
    /// The statement uses something that the dialect leaves out.
    #[error("Non supported SQL: {what}")]
    Unsupported {
        /// What is not supported.
        what: String,
        /// What to write instead.
        instead: String,
    },
    /// The table has no such column.
    #[error("Non supported SQL: Column '{column}' is not recognized in table: {dbms}.{table}")]
    UnknownColumn {
        /// The column.
        column: String,
        /// The logical database.
        dbms: String,
        /// The table.
        table: String,
        /// The nearest name that exists.
        nearest: Option<String>,
    },
    /// No such function.
    #[error("Non supported SQL: function '{function}' is not known")]
    UnknownFunction {
        /// The function.
        function: String,
        /// The nearest name that exists.
        nearest: Option<String>,
    },
    /// The database has no such table.
    #[error("Failed to load table metadata: no table '{dbms}.{table}'")]
    UnknownTable {
        /// The logical database.
        dbms: String,
        /// The table.
        table: String,
        /// The nearest name that exists.
        nearest: Option<String>,
    },
    /// Two columns of the answer have one name.
    #[error("Duplicate projected column names: '{name}'")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// A function of the dialect got arguments that it cannot use.
    #[error("Inconsistent arguments for function: '{function}': {reason}")]
    Arguments {
        /// The function.
        function: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A cast that is not known.
    #[error("Unknown cast '{cast}'")]
    UnknownCast {
        /// The cast.
        cast: String,
        /// The nearest name that exists.
        nearest: Option<String>,
    },
    /// A value that a cast cannot convert.
    #[error("Failed to cast '{value}' with {cast}: {reason}")]
    Cast {
        /// The value.
        value: String,
        /// The cast.
        cast: String,
        /// Why not.
        reason: String,
    },
    /// An option of the command that cannot be used.
    #[error("{reason}")]
    Option {
        /// What is wrong.
        reason: String,
        /// What to do.
        hint: String,
    },
    /// The rows to be merged take more memory than a query may have.
    #[error("the intermediate rows of this and other queries take more than {limit} bytes")]
    Volume {
        /// The bound.
        limit: u64,
    },
    /// A node gave no answer.
    #[error("No answer for a part of the data: {text}")]
    MissingNode {
        /// The nodes that were asked, and why each gave no answer.
        text: String,
        /// The documented status of the last failure.
        status: Status,
        /// What to do about it.
        hint: Option<String>,
    },
    /// None of the nodes gave an answer, so that there is no part of one either.
    #[error("No node answered: {text}")]
    NobodyAnswered {
        /// The nodes that were asked, and why each gave no answer.
        text: String,
        /// The documented status of the last failure.
        status: Status,
    },
    /// A node refused the statement.
    #[error("From operator at {address}: {}", .error.message)]
    Peer {
        /// Its address.
        address: String,
        /// Its error.
        error: CommandError,
    },
    /// Committed rows are asked for, and it is not known here which rows the other members have.
    #[error("committed = true: which rows all {members} members of the cluster '{cluster}' have is not known here")]
    Unconfirmed {
        /// The cluster's name.
        cluster: String,
        /// How many members it has.
        members: usize,
    },
    /// This member of a cluster is being filled: an answer of it lacks rows.
    #[error("this member is being filled: {}", lacks(*.files))]
    Behind {
        /// How many files it lacks; 0 when that is not known.
        files: u64,
    },
    /// No member of a cluster can be asked.
    #[error("No active operator for cluster: '{cluster}'")]
    NoOperator {
        /// The cluster's name.
        cluster: String,
    },
    /// The ledger does not tell where a table is.
    #[error("Failed to identify destination nodes for 'select' command - Using DBMS: {dbms} Table: {table}")]
    NoLocation {
        /// The logical database.
        dbms: String,
        /// The table.
        table: String,
        /// The nearest name that exists.
        nearest: Option<String>,
    },
    /// The query took longer than it may.
    #[error("the query took longer than max_time = {seconds} seconds")]
    MaxTime {
        /// The bound.
        seconds: u64,
    },
    /// The query took longer than this node allows.
    #[error("the query took longer than the {} seconds that this node allows", .after.as_secs_f64())]
    TimeLimit {
        /// The bound.
        after: Duration,
    },
    /// The rows are more than this node allows.
    #[error("the rows of the query take more than the {limit} bytes that this node allows")]
    VolumeLimit {
        /// The bound.
        limit: u64,
    },
    /// Somebody ended the query.
    #[error("the query was stopped")]
    Stopped,
    /// Too many queries run and wait.
    #[error("{waiting} queries wait already")]
    Overloaded {
        /// How many wait.
        waiting: usize,
    },
    /// The receiver of the rows does not read them.
    #[error("the receiver read no rows for {seconds} seconds")]
    Stalled {
        /// The bound.
        seconds: u64,
    },
    /// The database failed.
    #[error(transparent)]
    Dbms(#[from] DbmsError),
    /// A worker of the query ended without an answer.
    #[error("a worker of the query ended early: {reason}")]
    Worker {
        /// What happened to it.
        reason: String,
    },
}

fn lacks(files: u64) -> String {
    match files {
        0 => "it could not hear yet which files of its cluster it lacks".to_owned(),
        1 => "it lacks 1 file of its cluster".to_owned(),
        files => format!("it lacks {files} files of its cluster"),
    }
}

impl QueryError {
    /// Something that the dialect leaves out, and what to write instead.
    pub(crate) fn unsupported(what: impl Into<String>, instead: impl Into<String>) -> Self {
        Self::Unsupported { what: what.into(), instead: instead.into() }
    }

    /// A statement that is not one of the dialect.
    pub(crate) fn syntax(reason: impl Into<String>) -> Self {
        Self::Syntax { reason: reason.into() }
    }

    fn status(&self) -> Status {
        match self {
            Self::Syntax { .. } => Status::SQL_SELECT,
            Self::Unsupported { .. } | Self::UnknownColumn { .. } | Self::UnknownFunction { .. } => Status::SQL_PARSE,
            Self::DuplicateName { .. } | Self::Arguments { .. } => Status::SQL_PARSE,
            Self::UnknownTable { .. } => Status::NO_TABLE_METADATA,
            Self::UnknownCast { .. } => Status::CAST_UNKNOWN,
            Self::Cast { .. } => Status::CAST_FAILED,
            Self::Option { .. } => Status::COMMAND_STRUCTURE,
            Self::Volume { .. } => Status::VOLUME_EXCEEDED,
            Self::Overloaded { .. } => Status::OVERLOADED,
            Self::Stalled { .. } => Status::TIME_EXCEEDED,
            Self::MissingNode { status, .. } | Self::NobodyAnswered { status, .. } => *status,
            Self::Peer { error, .. } => error.status,
            Self::NoOperator { .. } => Status::NO_OPERATOR,
            Self::Unconfirmed { .. } | Self::Behind { .. } => Status::OPERATOR_NOT_RUNNING,
            Self::NoLocation { .. } => Status::NO_TABLE_LOCATION,
            Self::MaxTime { .. } | Self::TimeLimit { .. } => Status::TIME_EXCEEDED,
            Self::VolumeLimit { .. } => Status::VOLUME_EXCEEDED,
            Self::Stopped => Status::PROCESS_FAILURE,
            Self::Dbms(_) => Status::SQL_FAILURE,
            Self::Worker { .. } => Status::PROCESS_FAILURE,
        }
    }

    fn hint(&self) -> Option<String> {
        let did_you_mean = |nearest: &Option<String>| nearest.as_ref().map(|name| format!("did you mean '{name}'?"));
        match self {
            Self::Syntax { .. } => Some(
                "the form is: select <columns> from <table> [where ..] [group by ..] [order by ..] [limit n]".into(),
            ),
            Self::Unsupported { instead, .. } => Some(instead.clone()),
            Self::UnknownColumn { nearest, dbms, table, .. } => did_you_mean(nearest)
                .or_else(|| Some(format!("see the columns with: get columns where dbms = {dbms} and table = {table}"))),
            Self::UnknownTable { nearest, dbms, .. } => {
                did_you_mean(nearest).or_else(|| Some(format!("see the tables with: get tables where dbms = {dbms}")))
            }
            Self::UnknownFunction { nearest, .. } | Self::UnknownCast { nearest, .. } => did_you_mean(nearest),
            Self::DuplicateName { .. } => Some("give one of them another name: <column> as <name>".into()),
            Self::Option { hint, .. } => Some(hint.clone()),
            Self::MissingNode { hint, .. } => {
                let subset = "for an answer without it: run client (subset = true) sql .., or the header subset: true";
                Some(hint.as_ref().map_or_else(|| subset.to_owned(), |hint| format!("{hint}; {subset}")))
            }
            Self::NobodyAnswered { .. } => {
                Some("check that the nodes run and that their TCP servers listen at these addresses".into())
            }
            Self::Peer { error, .. } => error.hint.clone(),
            Self::Unconfirmed { .. } => Some(
                "start replication between the members: run data distributor; or leave committed out: one member answers with all rows that it has".into(),
            ),
            Self::Behind { .. } => Some(
                "ask another member of its cluster, or wait until it has the files: get consumer".into(),
            ),
            Self::NoOperator { .. } => Some(
                "start an operator of the cluster, or ask for an answer without it: run client (subset = true) sql .."
                    .into(),
            ),
            Self::NoLocation { nearest, dbms, .. } => did_you_mean(nearest).or_else(|| {
                Some(format!("see where tables are with: get data nodes where dbms = {dbms}, or name the nodes: run client (ip:port) sql .."))
            }),
            Self::MaxTime { .. } => Some("allow more time, or narrow the query with where".into()),
            Self::TimeLimit { .. } => {
                Some("narrow the query with where, or allow more at that node: set query mode using timeout = 2 minutes".into())
            }
            Self::VolumeLimit { .. } => {
                Some("narrow the query with where or limit, or allow more at that node: set query mode using max_volume = 100MB".into())
            }
            Self::Stopped => None,
            Self::Overloaded { .. } => Some("try again in a moment".into()),
            Self::Volume { .. } => Some("narrow the query with where or limit".into()),
            Self::Arguments { .. } | Self::Cast { .. } | Self::Stalled { .. } | Self::Dbms(_) | Self::Worker { .. } => {
                None
            }
        }
    }
}

impl From<QueryError> for CommandError {
    fn from(error: QueryError) -> Self {
        if let QueryError::Dbms(error) = error {
            return error.into();
        }
        let built = CommandError::new(error.status(), error.to_string());
        match error.hint() {
            Some(hint) => built.hint(hint),
            None => built,
        }
    }
}
