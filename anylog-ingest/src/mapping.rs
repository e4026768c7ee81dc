//! From a message to rows.
//!
//! A [`Mapper`] is compiled once, when a topic is subscribed, and then applied to every message. It is pure: the same message at
//! the same time gives the same rows, it touches no file, clock or socket, and it never panics on what a device sends.
//!
//! Values go through verbatim. A row is put together from the slices of text that the message is made of, so a number of 17
//! digits or a 64-bit integer arrives as it was sent. Where a mapping declares a type, a number sent as a text loses its quotes
//! and a number for a text column gets them; the declared types travel with the rows and win over what data looks like.
//!
//! # Inline mapping
//!
//! ```text
//! topic=(name=plant/+ and dbms=test and table="bring [machine]" and
//!        column.timestamp.timestamp=now and
//!        column.value=(value="bring [readings][][value]" and type=float and optional=true))
//! ```
//!
//! | form | gives |
//! |---|---|
//! | `now` | the time at which the message came, the same in all of its rows |
//! | `bring [a][b]` | the value under that path of the message |
//! | `bring [readings][][v]` | one row per element of the list; values that are not lists are repeated in each row |
//! | anything else | a constant |
//!
//! A `timestamp` column may declare in which zone times without an offset are meant: `timezone=Europe/Berlin`; else the node's
//! zone holds (`set time zone`).
//!
//! A message that is a list of objects is mapped object by object: an object that does not map goes to the quarantine, alone.
//! Either all rows of an object are made or none.

mod inline;
mod policy;
mod script;
mod source;
mod types;
mod zone;

use anylog_core::{CommandError, Status};
use jiff::Timestamp;

use crate::sink::{RowGroup, TableRows};
pub use inline::{Column, Inline, ValueSource};
pub use policy::PolicyMapping;

use crate::json::{self, Kind, Node};

/// Why a message gave no rows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MappingError {
    /// The message is not JSON.
    #[error("the message is not in JSON format: {reason}")]
    NotJson {
        /// What was expected, and where.
        reason: String,
    },
    /// The message holds no name of a database where the mapping looks for it.
    #[error("no database name under '{source_text}'")]
    NoDbms {
        /// The `bring` items of the mapping.
        source_text: String,
    },
    /// The message holds no name of a table where the mapping looks for it.
    #[error("no table name under '{source_text}'")]
    NoTable {
        /// The `bring` items of the mapping.
        source_text: String,
    },
    /// A value is missing that is not optional.
    #[error("no value for column '{column}' under '{source_text}'")]
    Missing {
        /// The column.
        column: String,
        /// The `bring` items of the mapping.
        source_text: String,
    },
    /// A type that the message gives is not a type.
    #[error("column '{column}': '{name}' is not a type")]
    UnknownType {
        /// The column.
        column: String,
        /// What the message gave.
        name: String,
    },
    /// The list of types is shorter than the list of values.
    #[error("column '{column}': {types} types for {values} values")]
    TypeCount {
        /// The column.
        column: String,
        /// How many types the message holds.
        types: usize,
        /// How many values it holds.
        values: usize,
    },
    /// The message is neither an object nor a list of objects.
    #[error("the message is not a JSON object")]
    NotObject,
    /// A mapping policy asks for readings that the message does not hold.
    #[error("policy '{policy}': the message has no attribute '{attribute}' with readings")]
    NoReadings {
        /// Id of the policy.
        policy: String,
        /// The attribute.
        attribute: String,
    },
}

impl MappingError {
    /// The documented status.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            MappingError::NotJson { .. } | MappingError::NotObject => Status::MESSAGE_NOT_JSON,
            MappingError::NoDbms { .. } => Status::MESSAGE_DBMS,
            MappingError::NoTable { .. } => Status::MESSAGE_TABLE,
            _ => Status::MESSAGE_DATA,
        }
    }

    /// The kind of failure in one word: `not_json` or `mapping`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            MappingError::NotJson { .. } | MappingError::NotObject => "not_json",
            _ => "mapping",
        }
    }

    /// The column that could not be made; empty when it is not about one.
    #[must_use]
    pub fn column(&self) -> &str {
        match self {
            MappingError::Missing { column, .. }
            | MappingError::UnknownType { column, .. }
            | MappingError::TypeCount { column, .. } => column,
            _ => "",
        }
    }
}

/// An element of a message that gave no rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure<'p> {
    /// Which element of the message, from 0.
    pub position: usize,
    /// The element as it came; the whole message when it is no list.
    pub payload: &'p [u8],
    /// Why.
    pub error: MappingError,
}

impl From<MappingError> for CommandError {
    fn from(error: MappingError) -> Self {
        CommandError::new(error.status(), error.to_string())
            .hint("compare the message with: get msg client where detailed=true")
    }
}

/// Where raw messages go: their attributes become columns as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw {
    /// Logical database, normalised.
    pub dbms: String,
    /// How the table is called.
    pub table: RawTable,
}

/// How the table of raw messages is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RawTable {
    /// This, normalised.
    Fixed(String),
    /// The last level of the topic.
    LastLevel,
    /// This, `_`, and the last level of the topic.
    Prefixed(String),
    /// The whole topic with `_` between its levels.
    WholeTopic,
}

/// Makes rows of messages.
#[derive(Debug, Clone)]
pub struct Mapper(Way);

#[derive(Debug, Clone)]
enum Way {
    Inline(Inline),
    Raw(Raw),
    Policies(Vec<PolicyMapping>),
}

impl Mapper {
    /// A mapper by the columns of a topic.
    #[must_use]
    pub fn inline(inline: Inline) -> Self {
        Self(Way::Inline(inline))
    }

    /// A mapper that keeps messages as they are.
    #[must_use]
    pub fn raw(raw: Raw) -> Self {
        Self(Way::Raw(raw))
    }

    /// A mapper by one policy: what rows with `instructions` are mapped by.
    ///
    /// # Errors
    /// Those of [`PolicyMapping::from_policy`].
    pub fn from_policy(policy: &anylog_ledger::Policy) -> Result<Self, CommandError> {
        Ok(Self::policies(vec![PolicyMapping::from_policy(policy)?]))
    }

    /// A mapper by policies; each is applied to every message.
    #[must_use]
    pub fn policies(policies: Vec<PolicyMapping>) -> Self {
        Self(Way::Policies(policies))
    }

    /// The inline mapping, when it is one.
    #[must_use]
    pub fn as_inline(&self) -> Option<&Inline> {
        match &self.0 {
            Way::Inline(inline) => Some(inline),
            _ => None,
        }
    }

    /// The raw capture, when it is one.
    #[must_use]
    pub fn as_raw(&self) -> Option<&Raw> {
        match &self.0 {
            Way::Raw(raw) => Some(raw),
            _ => None,
        }
    }

    /// Ids of the policies, when it maps by policies.
    #[must_use]
    pub fn policy_ids(&self) -> Vec<&str> {
        match &self.0 {
            Way::Policies(policies) => policies.iter().map(PolicyMapping::id).collect(),
            _ => Vec::new(),
        }
    }

    /// The rows of a message that came on `topic` at `now`. Their [`origin`](RowGroup::origin) is left to the caller.
    ///
    /// # Errors
    /// See [`MappingError`]. No row of the message is made then.
    pub fn map(&self, topic: &str, payload: &[u8], now: Timestamp) -> Result<RowGroup, MappingError> {
        let mut parts = Parts::at(now);
        self.map_into(topic, payload, &mut parts)?;
        Ok(RowGroup { parts: parts.tables, ..RowGroup::default() })
    }

    /// Adds the rows of a message to those of other messages that came at the same time. Without success nothing is added.
    fn map_into(&self, topic: &str, payload: &[u8], parts: &mut Parts) -> Result<(), MappingError> {
        parts.begin();
        let mapped = self.add_rows(topic, payload, parts);
        if mapped.is_err() {
            parts.undo();
        }
        mapped
    }

    fn add_rows(&self, topic: &str, payload: &[u8], parts: &mut Parts) -> Result<(), MappingError> {
        let now = parts.now;
        let text = std::str::from_utf8(payload)
            .map_err(|error| MappingError::NotJson { reason: format!("byte {} is not UTF-8", error.valid_up_to()) })?;
        match &self.0 {
            Way::Raw(raw) => raw_rows(raw, topic, text, now, parts)?,
            Way::Inline(inline) => {
                let root = document(text)?;
                match &root.kind {
                    Kind::List(elements) if !inline.starts_in_list() => {
                        for element in elements {
                            inline.map(object(element)?, parts)?;
                        }
                    }
                    Kind::List(_) | Kind::Object(_) => inline.map(&root, parts)?,
                    _ => return Err(MappingError::NotObject),
                }
            }
            Way::Policies(policies) => {
                let root = document(text)?;
                for policy in policies {
                    policy.map(&root, now, parts)?;
                }
            }
        }
        Ok(())
    }
}

impl Mapper {
    /// As [`Self::map`], but an element of a list that does not map stands alone: the others give their rows (R13).
    #[must_use]
    pub fn map_each<'p>(&self, topic: &str, payload: &'p [u8], now: Timestamp) -> (RowGroup, Vec<Failure<'p>>) {
        let mut parts = Parts::at(now);
        let failures = self.map_each_into(topic, payload, &mut parts, |_, _, _| ());
        (RowGroup { parts: parts.tables, ..RowGroup::default() }, failures)
    }

    /// As [`Self::map_each`], adding the rows to those of other messages. `each` is told which element, or the whole message, gave
    /// rows, and where they stand.
    pub(crate) fn map_each_into<'p>(
        &self,
        topic: &str,
        payload: &'p [u8],
        parts: &mut Parts,
        mut each: impl FnMut(usize, &'p [u8], Added),
    ) -> Vec<Failure<'p>> {
        let error = match self.map_into(topic, payload, parts) {
            Ok(()) => {
                parts.added(&mut |added| each(0, payload, added));
                return Vec::new();
            }
            Err(error) => error,
        };
        if self.elements(payload).is_none() {
            return vec![Failure { position: 0, payload, error }];
        }
        self.map_elements_into(topic, payload, parts, each)
    }

    /// As [`Self::map_each_into`], with every element of a list by itself also when all of them map.
    pub(crate) fn map_elements_into<'p>(
        &self,
        topic: &str,
        payload: &'p [u8],
        parts: &mut Parts,
        mut each: impl FnMut(usize, &'p [u8], Added),
    ) -> Vec<Failure<'p>> {
        let mut failures = Vec::new();
        for (position, payload) in self.elements(payload).unwrap_or_else(|| vec![payload]).into_iter().enumerate() {
            match self.map_into(topic, payload, parts) {
                Ok(()) => parts.added(&mut |added| each(position, payload, added)),
                Err(error) => failures.push(Failure { position, payload, error }),
            }
        }
        failures
    }

    /// The elements of a list that are mapped one by one.
    fn elements<'t>(&self, payload: &'t [u8]) -> Option<Vec<&'t [u8]>> {
        let text = std::str::from_utf8(payload).ok()?;
        if self.as_inline().is_some_and(Inline::starts_in_list) {
            return None;
        }
        match json::parse(text).ok()?.kind {
            Kind::List(elements) => Some(elements.iter().map(|element| element.raw.as_bytes()).collect()),
            _ => None,
        }
    }
}

fn document(text: &str) -> Result<Node<'_>, MappingError> {
    json::parse(text).map_err(|error| MappingError::NotJson { reason: error.to_string() })
}

fn object<'a, 'd>(node: &'a Node<'d>) -> Result<&'a Node<'d>, MappingError> {
    if matches!(node.kind, Kind::Object(_)) { Ok(node) } else { Err(MappingError::NotObject) }
}

/// Rows by table, in the order in which the tables came: of one message, or of messages that came together.
#[derive(Debug)]
pub(crate) struct Parts {
    now: Timestamp,
    /// `now` as a JSON text, made when it is first needed.
    now_text: String,
    tables: Vec<TableRows>,
    /// Tables before the last message, and those that it gave rows to, with their rows before it.
    before: usize,
    touched: Vec<(usize, usize)>,
}

/// Rows that a message gave: which of which table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Added {
    pub(crate) part: usize,
    pub(crate) first: usize,
    pub(crate) count: usize,
}

impl Parts {
    /// No rows yet; the messages came at `now`.
    pub(crate) fn at(now: Timestamp) -> Self {
        Self { now, now_text: String::new(), tables: Vec::new(), before: 0, touched: Vec::new() }
    }

    /// The rows, by table.
    pub(crate) fn into_tables(self) -> Vec<TableRows> {
        self.tables
    }

    fn added(&mut self, each: &mut impl FnMut(Added)) {
        for (part, first) in self.touched.drain(..) {
            let count = self.tables[part].rows.len() - first;
            if count > 0 {
                each(Added { part, first, count });
            }
        }
    }

    fn begin(&mut self) {
        self.before = self.tables.len();
        self.touched.clear();
    }

    fn undo(&mut self) {
        for (at, before) in self.touched.drain(..) {
            self.tables[at].rows.truncate(before);
        }
        self.tables.truncate(self.before);
    }

    fn make_now_text(&mut self) {
        if self.now_text.is_empty() {
            self.now_text = format!("\"{}\"", anylog_core::time::policy_date(self.now));
        }
    }

    /// The part of a table and mapping; `declared` gives its types when it is new.
    fn of(
        &mut self,
        dbms: &str,
        table: &str,
        source: &str,
        instructions: &str,
        declared: impl FnOnce() -> Vec<(String, String)>,
    ) -> &mut TableRows {
        let known = self.tables.iter().rposition(|part| {
            part.table == table && part.dbms == dbms && part.instructions == instructions && part.source == source
        });
        let at = known.unwrap_or_else(|| {
            self.tables.push(TableRows {
                dbms: dbms.to_owned(),
                table: table.to_owned(),
                source: source.to_owned(),
                instructions: instructions.to_owned(),
                declared: declared(),
                ..TableRows::default()
            });
            self.tables.len() - 1
        });
        if self.touched.iter().all(|(known, _)| *known != at) {
            self.touched.push((at, self.tables[at].rows.len()));
        }
        &mut self.tables[at]
    }
}

fn raw_rows(raw: &Raw, topic: &str, text: &str, now: Timestamp, parts: &mut Parts) -> Result<(), MappingError> {
    let last = || topic.rsplit('/').find(|level| !level.is_empty()).unwrap_or(topic);
    let table = match &raw.table {
        RawTable::Fixed(table) => table.clone(),
        RawTable::LastLevel => anylog_core::names::normalize(last()),
        RawTable::Prefixed(prefix) => anylog_core::names::normalize(&format!("{prefix}_{}", last())),
        RawTable::WholeTopic => anylog_core::names::normalize(topic),
    };
    if table.is_empty() {
        return Err(MappingError::NoTable { source_text: topic.to_owned() });
    }
    let part = parts.of(&raw.dbms, &table, "0", "0", Vec::new);
    match json::parse(text) {
        Ok(root) => match &root.kind {
            Kind::Object(_) => part.rows.push(json::one_line(root.raw).into_owned()),
            Kind::List(elements) if elements.iter().all(|e| matches!(e.kind, Kind::Object(_))) => {
                part.rows.extend(elements.iter().map(|element| json::one_line(element.raw).into_owned()));
            }
            _ => part.rows.push(scalar_row(&json::one_line(root.raw), now)),
        },
        // A text that is not JSON is a value like any other here.
        Err(_) if !text.trim().is_empty() => {
            let mut quoted = String::new();
            json::push_quoted(&mut quoted, text.trim());
            part.rows.push(scalar_row(&quoted, now));
        }
        Err(error) => return Err(MappingError::NotJson { reason: error.to_string() }),
    }
    Ok(())
}

fn scalar_row(value: &str, now: Timestamp) -> String {
    format!(r#"{{"timestamp":"{}","value":{value}}}"#, anylog_core::time::policy_date(now))
}

#[cfg(test)]
mod tests;
