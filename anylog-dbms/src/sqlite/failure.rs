//! SQLite's errors as ours.

use std::io;

use diesel::result::{DatabaseErrorKind, Error};

use crate::DbmsError;

/// An error of a statement.
pub(super) fn statement(name: &str, error: &Error) -> DbmsError {
    if matches!(error, Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _)) {
        return DbmsError::Unique { reason: error.to_string() };
    }
    told(name, error.to_string())
}

/// An error of a statement that reads.
pub(super) fn reading(name: &str, error: &rusqlite::Error) -> DbmsError {
    told(
        name,
        match error {
            // Without the statement: it may be long, and who sent it knows it.
            rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
            rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
            other => other.to_string(),
        },
    )
}

/// What SQLite said as an error.
fn told(name: &str, reason: String) -> DbmsError {
    if reason.contains("database or disk is full") {
        return DbmsError::DiskFull { name: name.to_owned() };
    }
    if let Some(table) = reason.split("no such table: ").nth(1) {
        return DbmsError::NoTable { dbms: name.to_owned(), table: table.trim().to_owned() };
    }
    if PASSING.iter().any(|passing| reason.contains(passing)) {
        let (name, server) = (name.to_owned(), "its file".to_owned());
        return DbmsError::Unavailable { name, server, reason };
    }
    DbmsError::Statement { engine: "sqlite".into(), reason }
}

/// What is no fault of a statement or of a row: another program holds the file, or the disk fails.
const PASSING: [&str; 5] = [
    "database is locked",
    "disk I/O error",
    "unable to open database file",
    "attempt to write a readonly",
    "out of memory",
];

/// Whether the disk failed, in the middle of something.
pub(super) fn is_of_the_disk(error: &Error) -> bool {
    error.to_string().contains("disk I/O error")
}

/// Whether the error is about the values of a row, so that other rows may pass.
pub(super) fn is_about_values(error: &Error) -> bool {
    match error {
        Error::DatabaseError(DatabaseErrorKind::Unknown, information) => {
            let text = information.message();
            text.contains("constraint failed") || text.contains("datatype mismatch") || text.contains("too big")
        }
        Error::DatabaseError(kind, _) => !matches!(kind, DatabaseErrorKind::ClosedConnection),
        Error::SerializationError(_) => true,
        _ => false,
    }
}

/// An error of the file system.
pub(super) fn io(name: &str, error: &io::Error) -> DbmsError {
    if error.kind() == io::ErrorKind::StorageFull {
        return DbmsError::DiskFull { name: name.to_owned() };
    }
    DbmsError::Statement { engine: "sqlite".into(), reason: error.to_string() }
}

/// The file could not be opened.
pub(super) fn connect(name: &str, reason: impl ToString) -> DbmsError {
    let reason = reason.to_string();
    if reason.contains("database or disk is full") {
        return DbmsError::DiskFull { name: name.to_owned() };
    }
    DbmsError::Connect { name: name.to_owned(), reason }
}
