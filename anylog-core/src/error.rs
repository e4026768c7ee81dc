//! The error that every command answers with.
//!
//! Crates keep their own typed errors; at the edge to the language each becomes a [`CommandError`], which says
//! three things: the documented status, what failed with which input, and what to do next.

use crate::Status;

/// Why a command failed, for a person and for a program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", self.hint.as_ref().map(|hint| format!(" - {hint}")).unwrap_or_default())]
pub struct CommandError {
    /// The documented status, which also decides the HTTP status.
    pub status: Status,
    /// What failed, and with which input.
    pub message: String,
    /// What to do next, when there is something to say.
    pub hint: Option<String>,
}

impl CommandError {
    /// An error with a documented status and a message that names the input it concerns.
    pub fn new(status: Status, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), hint: None }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Malformed command: [`Status::COMMAND_STRUCTURE`].
    pub fn structure(message: impl Into<String>) -> Self {
        Self::new(Status::COMMAND_STRUCTURE, message)
    }

    /// Well-formed command with a value that cannot be used: [`Status::COMMAND_PARAMETERS`].
    pub fn parameter(message: impl Into<String>) -> Self {
        Self::new(Status::COMMAND_PARAMETERS, message)
    }

    /// A failure inside the node: [`Status::PROCESS_FAILURE`].
    pub fn process(message: impl Into<String>) -> Self {
        Self::new(Status::PROCESS_FAILURE, message)
    }
}

/// The candidate nearest to `word` by edit distance, when it is near enough to be meant.
///
/// ```
/// assert_eq!(anylog_core::error::nearest("tabel", ["table", "dbms"]), Some("table"));
/// assert_eq!(anylog_core::error::nearest("zzz", ["table", "dbms"]), None);
/// ```
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (distance(&word.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits (insertions, deletions, substitutions, swaps of neighbours) between two words.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let substitution = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = substitution.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}
