//! PostgreSQL's errors as ours.

use std::error::Error as _;

use tokio_postgres::error::{DbError, Severity};

use crate::DbmsError;

/// Codes of a server that ends, crashed, starts, or has no connection left.
const BUSY: [&str; 4] = ["57P01", "57P02", "57P03", "53300"];

/// How the client's errors begin when nobody answers: it tells them apart by their texts alone.
const SILENT: [&str; 4] = [
    "error connecting to server",
    "error communicating with the server",
    "timeout waiting for server",
    "connection closed",
];

/// Why something at a server failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server refused a statement; the connection goes on.
    Server(Box<DbError>),
    /// There is no connection, or it broke: what was under way may have happened.
    Broken(String),
    /// A value that was read is not understood.
    Value(String),
    /// A row of a batch cannot be stored.
    Row { index: usize, reason: String },
}

/// The server's words with everything it says beside them, and its code.
pub(super) fn words(error: &DbError) -> String {
    let mut text = error.message().to_owned();
    for more in [error.detail(), error.hint()].into_iter().flatten() {
        text.push_str("; ");
        text.push_str(more.trim_end_matches('.'));
    }
    text.push_str(&format!(" (SQLSTATE {})", error.code().code()));
    text
}

/// An error with its causes.
pub(super) fn chain(error: &tokio_postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        return words(error);
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

impl Failure {
    /// An error of a client; `ended` says why the connection ended, when it did.
    pub(super) fn of(error: &tokio_postgres::Error, ended: impl FnOnce() -> Option<String>) -> Self {
        match error.as_db_error() {
            Some(error) if fatal(error) => Failure::Broken(words(error)),
            Some(error) => Failure::Server(Box::new(error.clone())),
            None => Failure::Broken(ended().unwrap_or_else(|| chain(error))),
        }
    }

    /// The code of the server.
    pub(super) fn code(&self) -> &str {
        match self {
            Failure::Server(error) => error.code().code(),
            _ => "",
        }
    }

    /// As an error of a statement. `server` is where the database is.
    pub(super) fn statement(self, name: &str, server: &str) -> DbmsError {
        match self {
            Failure::Server(error) => refused(name, server, &error),
            Failure::Broken(reason) => unavailable(name, server, reason),
            Failure::Value(reason) => DbmsError::Statement { engine: "psql".into(), reason },
            Failure::Row { index, reason } => DbmsError::RowRefused { index, reason },
        }
    }

    /// As an error of opening the database.
    pub(super) fn connect(self, name: &str, server: &str) -> DbmsError {
        let reason = match self {
            Failure::Server(error) => words(&error),
            Failure::Broken(reason) | Failure::Value(reason) | Failure::Row { reason, .. } => reason,
        };
        DbmsError::Connect { name: name.to_owned(), reason: format!("psql server {server}: {reason}") }
    }

    /// Why a connection was not made that may be made later without anybody changing its settings: nobody listens there yet, or the
    /// server is starting, ending, or has no connection left.
    pub(super) fn not_reached(&self) -> Option<&str> {
        let Failure::Broken(reason) = self else { return None };
        let passes = match reason.rsplit_once("(SQLSTATE ") {
            Some((_, code)) => BUSY.iter().any(|known| code.starts_with(known)),
            None => SILENT.iter().any(|begin| reason.starts_with(begin)),
        };
        passes.then_some(reason)
    }
}

pub(super) fn unavailable(name: &str, server: &str, reason: String) -> DbmsError {
    DbmsError::Unavailable { name: name.to_owned(), server: server.to_owned(), reason }
}

/// Whether the server ended the connection with this error.
fn fatal(error: &DbError) -> bool {
    matches!(error.parsed_severity(), Some(Severity::Fatal | Severity::Panic))
}

fn refused(name: &str, server: &str, error: &DbError) -> DbmsError {
    let code = error.code().code();
    match code {
        "53100" => DbmsError::DiskFull { name: name.to_owned() },
        "23505" => DbmsError::Unique { reason: words(error) },
        "42P01" => DbmsError::NoTable { dbms: name.to_owned(), table: missing_table(error) },
        code if passes(code) => unavailable(name, server, words(error)),
        _ => DbmsError::Statement { engine: "psql".into(), reason: words(error) },
    }
}

/// Whether an error says something of the server's state, not of the statement: the same may succeed later.
fn passes(code: &str) -> bool {
    let class = code.get(..2).unwrap_or_default();
    // Connections, resources, intervention of an operator, errors of its disk; a standby, locks, deadlocks, rights.
    matches!(class, "08" | "53" | "57" | "58")
        || matches!(code, "25006" | "40001" | "40P01" | "55P03" | "42501" | "28000" | "28P01")
}

/// The table of `relation "x" does not exist`; messages are in the server's language, and quote the name in some way.
fn missing_table(error: &DbError) -> String {
    let quote = |c: char| matches!(c, '"' | '«' | '»' | '“' | '”' | '„');
    error.message().split(quote).nth(1).unwrap_or_else(|| error.message()).trim().to_owned()
}

/// The row of a `COPY` into a table that the server refused because of its values, from 0.
pub(super) fn refused_row(physical: &str, error: &DbError) -> Option<usize> {
    let about_values = matches!(error.code().code().get(..2)?, "22" | "23" | "44" | "54" | "P0");
    let place = error.where_().filter(|_| about_values)?;
    // Triggers stand before the COPY that ran them.
    let place = place.lines().find_map(|line| line.strip_prefix("COPY ")?.strip_prefix(physical))?;
    let digits = place.strip_prefix(", line ")?;
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits.get(..end)?.parse::<usize>().ok()?.checked_sub(1)
}

/// Whether the types of a table's columns may be others than those that were known.
pub(super) fn is_about_types(failure: &Failure) -> bool {
    // Wrong length or form of a binary value; a column or type that is no more.
    matches!(failure.code(), "22P03" | "08P01" | "42703" | "42804" | "0A000" | "26000")
}
