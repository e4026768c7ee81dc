//! PostgreSQL's errors as ours.

use diesel::result::{DatabaseErrorKind, Error};

use crate::DbmsError;

/// An error of a statement.
pub(super) fn statement(name: &str, error: &Error) -> DbmsError {
    let reason = error.to_string();
    if reason.contains("No space left on device") || reason.contains("could not extend file") {
        return DbmsError::DiskFull { name: name.to_owned() };
    }
    if matches!(error, Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _)) {
        return DbmsError::Unique { reason };
    }
    let missing = reason.strip_prefix("relation \"").and_then(|rest| rest.split_once("\" does not exist"));
    if let Some((table, _)) = missing {
        return DbmsError::NoTable { dbms: name.to_owned(), table: table.to_owned() };
    }
    DbmsError::Statement { engine: "psql".into(), reason }
}

/// The database could not be opened.
pub(super) fn connect(name: &str, reason: impl ToString) -> DbmsError {
    DbmsError::Connect { name: name.to_owned(), reason: reason.to_string().trim().to_owned() }
}

/// Whether the connection is gone.
pub(super) fn is_lost(error: &Error) -> bool {
    match error {
        Error::BrokenTransactionManager => true,
        Error::DatabaseError(DatabaseErrorKind::ClosedConnection, _) => true,
        Error::DatabaseError(_, information) => {
            let text = information.message();
            [
                "server closed the connection",
                "terminating connection",
                "no connection to the server",
                "connection to server",
            ]
            .iter()
            .any(|lost| text.contains(lost))
        }
        Error::RollbackErrorOnCommit { rollback_error, commit_error } => {
            is_lost(rollback_error) || is_lost(commit_error)
        }
        _ => false,
    }
}

/// Whether the error is about the values of a row, so that other rows may pass.
pub(super) fn is_about_values(error: &Error) -> bool {
    if is_lost(error) {
        return false;
    }
    match error {
        Error::SerializationError(_) => true,
        Error::DatabaseError(DatabaseErrorKind::Unknown, information) => {
            let text = information.message();
            let about_tables = text.starts_with("relation ") || text.starts_with("column ");
            let about_server =
                text.contains("No space left") || text.contains("could not ") || text.contains("canceling");
            !about_tables && !about_server
        }
        Error::DatabaseError(..) => true,
        _ => false,
    }
}
