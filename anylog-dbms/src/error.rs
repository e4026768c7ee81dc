//! What can go wrong in a database.

use anylog_core::{CommandError, Status};

/// Why a database operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DbmsError {
    /// No database is connected under this logical name.
    #[error("database '{name}' is not connected")]
    NotConnected {
        /// The logical name.
        name: String,
    },
    /// The name is connected already, with another engine or location.
    #[error("database '{name}' is already connected using {engine}")]
    Conflict {
        /// The logical name.
        name: String,
        /// The engine in use.
        engine: String,
    },
    /// The server or file could not be opened.
    #[error("failed to connect database '{name}': {reason}")]
    Connect {
        /// The logical name.
        name: String,
        /// The engine's words.
        reason: String,
    },
    /// Nobody answers where the server should be, or it is just starting.
    #[error("failed to connect database '{name}': psql server {server}: {reason}")]
    NotReached {
        /// The logical name.
        name: String,
        /// Where the server should be.
        server: String,
        /// The engine's words.
        reason: String,
    },
    /// The server of a connected database does not answer, or answers that it cannot now. What was asked may have happened; it may be
    /// asked again until it succeeds.
    #[error(
        "database '{name}' at {server} cannot be used at the moment: {reason}; the node connects to it again by itself"
    )]
    Unavailable {
        /// The logical name.
        name: String,
        /// Where the server is.
        server: String,
        /// The engine's words.
        reason: String,
    },
    /// No such table.
    #[error("table '{dbms}.{table}' does not exist")]
    NoTable {
        /// The logical database.
        dbms: String,
        /// The table.
        table: String,
    },
    /// The engine refused a statement.
    #[error("{engine}: {reason}")]
    Statement {
        /// The engine.
        engine: String,
        /// The engine's words.
        reason: String,
    },
    /// The engine refused one row of a batch; nothing of the batch was stored.
    #[error("row {index} was refused: {reason}")]
    RowRefused {
        /// Position of the row in the batch, from 0.
        index: usize,
        /// The engine's words.
        reason: String,
    },
    /// A value that must be unique is there already.
    #[error("the value is there already: {reason}")]
    Unique {
        /// The engine's words.
        reason: String,
    },
    /// There is no space left.
    #[error("no space left for database '{name}'")]
    DiskFull {
        /// The logical name.
        name: String,
    },
    /// A text that should describe a table or a partition does not.
    #[error("{reason}")]
    Declaration {
        /// What is wrong with it.
        reason: String,
    },
}

impl DbmsError {
    /// Where the server is, and its words, when the error is about a server that is away.
    pub(crate) fn server(&self) -> Option<(String, String)> {
        match self {
            DbmsError::NotReached { server, reason, .. } | DbmsError::Unavailable { server, reason, .. } => {
                Some((server.clone(), reason.clone()))
            }
            _ => None,
        }
    }
}

/// What a person does about a server that refuses a connection, by the server's code.
fn connecting_hint(reason: &str) -> Option<&'static str> {
    let code = reason.split("(SQLSTATE ").nth(1)?.get(..5)?;
    match code {
        "28P01" | "28000" => Some("check user and password, and whom pg_hba.conf of the server lets in"),
        "42501" => {
            Some("the user may not make databases: make it at the server, or allow it with: alter role <user> createdb")
        }
        "53300" => Some("the server has no more connections: raise its max_connections"),
        _ => None,
    }
}

impl From<DbmsError> for CommandError {
    fn from(error: DbmsError) -> Self {
        let status = match &error {
            DbmsError::NotConnected { .. } => Status::DBMS_NOT_CONNECTED,
            DbmsError::Conflict { .. } | DbmsError::Connect { .. } | DbmsError::NotReached { .. } => Status::CONNECTION,
            DbmsError::Unavailable { .. } => Status::DBMS_UNAVAILABLE,
            DbmsError::NoTable { .. } => Status::NO_TABLE_METADATA,
            DbmsError::DiskFull { .. } => Status::DISK_FULL,
            DbmsError::Declaration { .. } => Status::COMMAND_PARAMETERS,
            DbmsError::Unique { .. } => Status::NON_UNIQUE_VALUES,
            DbmsError::Statement { .. } | DbmsError::RowRefused { .. } => Status::SQL_FAILURE,
        };
        let hint = match &error {
            DbmsError::NotConnected { name } => Some(format!("connect it with: connect dbms {name} where type=sqlite")),
            DbmsError::NotReached { .. } => Some(
                "check ip and port, and that the server runs and listens there; one that starts later is waited for with: \
                 timeout = 10 minutes"
                    .into(),
            ),
            DbmsError::Connect { reason, .. } => connecting_hint(reason).map(str::to_owned),
            _ => None,
        };
        let text = error.to_string();
        let error = CommandError::new(status, text);
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}
