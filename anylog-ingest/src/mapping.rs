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
//! A message that is a list of objects is mapped object by object. Either all rows of a message are made or none.

mod inline;
mod policy;
mod script;
mod source;
mod types;

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
        let text = std::str::from_utf8(payload)
            .map_err(|error| MappingError::NotJson { reason: format!("byte {} is not UTF-8", error.valid_up_to()) })?;
        let mut parts = Parts::default();
        match &self.0 {
            Way::Raw(raw) => raw_rows(raw, topic, text, now, &mut parts)?,
            Way::Inline(inline) => {
                let root = document(text)?;
                match &root.kind {
                    Kind::List(elements) if !inline.starts_in_list() => {
                        for element in elements {
                            inline.map(object(element)?, now, &mut parts)?;
                        }
                    }
                    Kind::List(_) | Kind::Object(_) => inline.map(&root, now, &mut parts)?,
                    _ => return Err(MappingError::NotObject),
                }
            }
            Way::Policies(policies) => {
                let root = document(text)?;
                for policy in policies {
                    policy.map(&root, now, &mut parts)?;
                }
            }
        }
        Ok(RowGroup { parts: parts.0, ..RowGroup::default() })
    }
}

fn document(text: &str) -> Result<Node<'_>, MappingError> {
    json::parse(text).map_err(|error| MappingError::NotJson { reason: error.to_string() })
}

fn object<'a, 'd>(node: &'a Node<'d>) -> Result<&'a Node<'d>, MappingError> {
    if matches!(node.kind, Kind::Object(_)) { Ok(node) } else { Err(MappingError::NotObject) }
}

/// Rows by table, in the order in which the tables came.
#[derive(Debug, Default)]
struct Parts(Vec<TableRows>);

impl Parts {
    /// The part of a table and mapping; `declared` gives its types when it is new.
    fn of(
        &mut self,
        dbms: &str,
        table: &str,
        source: &str,
        instructions: &str,
        declared: impl FnOnce() -> Vec<(String, String)>,
    ) -> &mut TableRows {
        let known = self.0.iter().position(|part| {
            part.dbms == dbms && part.table == table && part.instructions == instructions && part.source == source
        });
        let at = known.unwrap_or_else(|| {
            self.0.push(TableRows {
                dbms: dbms.to_owned(),
                table: table.to_owned(),
                source: source.to_owned(),
                instructions: instructions.to_owned(),
                declared: declared(),
                rows: Vec::new(),
            });
            self.0.len() - 1
        });
        &mut self.0[at]
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
