//! One record: a row or message, and why it is here.

use anylog_dbms::SegmentId;
use anylog_dbms::schema::RowProblem;
use anylog_ingest::{Message, RefusedRow};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Why a row or message was refused.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problem {
    /// What kind of failure it is, in one word.
    pub kind: &'static str,
    /// The column; empty when it is not about one.
    pub column: String,
    /// What the column takes.
    pub expected: String,
    /// What the row holds.
    pub actual: String,
    /// All of it in words.
    pub reason: String,
}

impl Problem {
    /// A problem that is not about one column.
    #[must_use]
    pub fn new(kind: &'static str, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into(), ..Self::default() }
    }

    /// The problem of a row of a group, as its sender hears of it.
    #[must_use]
    pub fn of_row(self, part: usize, row: usize) -> RefusedRow {
        let Problem { kind, column, expected, actual, reason } = self;
        RefusedRow { part, row, reason, kind, column, expected, actual }
    }
}

impl From<RowProblem> for Problem {
    fn from(problem: RowProblem) -> Self {
        let reason = problem.to_string();
        let RowProblem { kind, column, expected, actual } = problem;
        Self { kind: kind.word(), column, expected, actual, reason }
    }
}

/// A message in the quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct KeptMessage {
    /// The broker that it came from.
    pub broker: String,
    /// The topic that it was mapped by.
    pub filter: String,
    /// The topic.
    pub topic: String,
    /// Its text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Its bytes in hexadecimal, when they are no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hex: Option<String>,
    /// Which of the rows of the table that it gave is meant, from 0; none when it gave none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<usize>,
}

impl KeptMessage {
    pub(crate) fn of(message: &Message, row: Option<usize>) -> Self {
        let text = std::str::from_utf8(&message.payload).ok().map(str::to_owned);
        let hex = match text {
            Some(_) => None,
            None => Some(message.payload.iter().map(|byte| format!("{byte:02x}")).collect()),
        };
        Self {
            broker: message.broker.to_string(),
            filter: message.filter.to_string(),
            topic: message.topic.to_string(),
            text,
            hex,
            row,
        }
    }

    pub(crate) fn message(&self) -> Message {
        let payload = match (&self.text, &self.hex) {
            (Some(text), _) => Bytes::copy_from_slice(text.as_bytes()),
            (None, Some(hex)) => hex
                .as_bytes()
                .chunks(2)
                .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
                .collect(),
            (None, None) => Bytes::new(),
        };
        Message {
            broker: self.broker.as_str().into(),
            filter: self.filter.as_str().into(),
            topic: self.topic.as_str().into(),
            payload,
        }
    }
}

/// A row or message in the quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct QuarantinedRow {
    /// `<segment id in hexadecimal>:<ordinal>`.
    pub key: String,
    /// When it was put there.
    pub time: String,
    /// What kind of failure it is: `type`, `time_window`, `missing`, `not_object`, `partition_limit`, `database` of rows; `not_json`,
    /// `mapping`, `table` of messages.
    pub kind: String,
    /// Why it cannot be stored.
    pub reason: String,
    /// The column that the reason is about.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub column: String,
    /// What the column takes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub expected: String,
    /// What the row holds.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub actual: String,
    /// Logical database; empty for a message.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub dbms: String,
    /// Table; empty for a message.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub table: String,
    /// Data source id, when it is not `0`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Mapping policy id, when it is not `0`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub instructions: String,
    /// Where it came from: `mqtt topic a/b`, `rest 10.0.0.7`, a file's name.
    pub origin: String,
    /// Which row of its message or file, from 0.
    pub position: u64,
    /// The row's text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<String>,
    /// The message: of a message that gives no rows, and of a row that was mapped from one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<KeptMessage>,
    /// How often it was tried again in vain.
    #[serde(skip_serializing_if = "is_zero")]
    pub tries: u32,
    /// When last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tried: Option<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "what serde asks for")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl QuarantinedRow {
    /// A row of a table.
    pub(crate) fn of_row(key: String, time: String, target: (&str, &str), problem: &Problem, row: String) -> Self {
        Self { key, time, dbms: target.0.to_owned(), table: target.1.to_owned(), row: Some(row), ..Self::default() }
            .because(problem)
    }

    /// Its line, without the line's end.
    pub(crate) fn line(&self) -> Option<Vec<u8>> {
        let mut line = super::line::encode(std::slice::from_ref(self)).ok()?;
        line.pop();
        Some(line)
    }

    /// The same with another reason.
    pub(crate) fn because(mut self, problem: &Problem) -> Self {
        problem.kind.clone_into(&mut self.kind);
        self.reason.clone_from(&problem.reason);
        self.column.clone_from(&problem.column);
        self.expected.clone_from(&problem.expected);
        self.actual.clone_from(&problem.actual);
        self
    }

    /// The same from this place.
    pub(crate) fn from(mut self, origin: &str, position: usize) -> Self {
        origin.clone_into(&mut self.origin);
        self.position = position as u64;
        self
    }

    /// The same of this source and mapping.
    pub(crate) fn mapped(mut self, source: &str, instructions: &str) -> Self {
        let told = |text: &str| if text == "0" { String::new() } else { text.to_owned() };
        self.source = told(source);
        self.instructions = told(instructions);
        self
    }
}

/// The key of a row.
#[must_use]
pub fn key(segment: SegmentId, ordinal: u64) -> String {
    format!("{segment}:{ordinal}")
}

/// The segment and ordinal of a key.
#[must_use]
pub fn parse_key(key: &str) -> Option<(SegmentId, u64)> {
    let (segment, ordinal) = key.split_once(':')?;
    Some((SegmentId(u128::from_str_radix(segment, 16).ok()?), ordinal.parse().ok()?))
}
