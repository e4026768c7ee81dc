//! Mapping and transform policies.

mod column;
mod params;
mod transform;

use std::borrow::Cow;

use anylog_core::names::normalize;
use anylog_core::{CommandError, Status};
use anylog_ledger::Policy;
use jiff::Timestamp;
use serde_json::Value;

use super::inline::Name;
use super::script::{Script, Verdict};
use super::source::{Document, Source};
use super::{MappingError, Parts, object};
use crate::json::{self, Kind, Node};
use column::PolicyColumn;
use transform::Transform;

/// A compiled mapping or transform policy.
#[derive(Debug, Clone)]
pub struct PolicyMapping {
    id: String,
    way: Way,
}

#[derive(Debug, Clone)]
enum Way {
    Mapping(Box<Mapping>),
    Transform(Box<Transform>),
}

#[derive(Debug, Clone)]
struct Mapping {
    dbms: Name,
    table: Name,
    source: Option<(Option<Source>, String)>,
    readings: Option<String>,
    script: Script,
    /// The columns of a row; with `params`, of several rows.
    rows: Vec<Vec<PolicyColumn>>,
    declared: Vec<(String, String)>,
}

/// A row while it is put together: no name comes twice.
#[derive(Debug, Default)]
struct Row {
    text: String,
    names: Vec<String>,
}

impl Row {
    /// Begins an attribute; false when the row has one of this name.
    fn begin(&mut self, name: &str) -> bool {
        if self.names.iter().any(|known| known == name) {
            return false;
        }
        self.text.push(if self.names.is_empty() { '{' } else { ',' });
        json::push_quoted(&mut self.text, name);
        self.text.push(':');
        self.names.push(name.to_owned());
        true
    }

    fn finish(mut self) -> String {
        self.text.push_str(if self.names.is_empty() { "{}" } else { "}" });
        self.text
    }
}

impl PolicyMapping {
    /// Compiles a policy of type `mapping` or `transform`.
    ///
    /// # Errors
    /// [`Status::WRONG_POLICY`] for another type, a missing attribute, an unknown column type or function, or a part of
    /// the policy language that this node does not apply (blobs, imports), named.
    pub fn from_policy(policy: &Policy) -> Result<Self, CommandError> {
        let way = match policy.kind() {
            "mapping" => Way::Mapping(Box::new(Mapping::parse(policy)?)),
            "transform" => Way::Transform(Box::new(Transform::parse(policy)?)),
            other => {
                return Err(CommandError::new(
                    Status::WRONG_POLICY,
                    format!("Policy '{}' is of type '{other}'", policy.id()),
                )
                .hint("a topic takes policies of type mapping or transform"));
            }
        };
        Ok(Self { id: policy.id().to_owned(), way })
    }

    /// Id of the policy.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn map(&self, root: &Node<'_>, now: Timestamp, parts: &mut Parts) -> Result<(), MappingError> {
        let one = |message: &Node<'_>, parts: &mut Parts| match &self.way {
            Way::Mapping(mapping) => mapping.map(&self.id, object(message)?, now, parts),
            Way::Transform(transform) => transform.map(&self.id, object(message)?, parts),
        };
        match &root.kind {
            Kind::List(messages) => messages.iter().try_for_each(|message| one(message, parts)),
            _ => one(root, parts),
        }
    }
}

fn wrong(policy: &Policy, problem: &str) -> CommandError {
    CommandError::new(Status::WRONG_POLICY, format!("Policy '{}': {problem}", policy.id()))
}

fn required<'p>(policy: &'p Policy, name: &str) -> Result<&'p str, CommandError> {
    policy.text(name).ok_or_else(|| wrong(policy, &format!("the attribute '{name}' is missing or not a text")))
}

impl Mapping {
    fn parse(policy: &Policy) -> Result<Self, CommandError> {
        if policy.get("import").is_some() {
            return Err(wrong(policy, "'import' is not applied by this node"));
        }
        let Some(schema) = policy.get("schema").filter(|schema| schema.is_object()) else {
            return Err(wrong(policy, "the attribute 'schema' is missing or not an object"));
        };
        let zone = match policy.get("timezone") {
            None => None,
            Some(Value::String(name)) => Some(super::zone::parse(name).map_err(|problem| wrong(policy, &problem))?),
            Some(_) => return Err(wrong(policy, "'timezone' is not a text")),
        };
        let zone = zone.as_ref();
        let columns = |schema: &Value| -> Result<Vec<PolicyColumn>, String> {
            let columns = schema.as_object().into_iter().flatten();
            columns.map(|(name, column)| PolicyColumn::parse(name, column, zone)).collect()
        };
        let schemas = params::schemas(schema, policy.get("params")).map_err(|problem| wrong(policy, &problem))?;
        let rows: Vec<Vec<PolicyColumn>> =
            schemas.iter().map(columns).collect::<Result<_, _>>().map_err(|problem| wrong(policy, &problem))?;
        let declared = rows.first().into_iter().flatten().filter_map(PolicyColumn::declared).collect();
        Ok(Self {
            dbms: Name::parse(required(policy, "dbms")?)?,
            table: Name::parse(required(policy, "table")?)?,
            source: policy.get("source").map(source).transpose()?,
            readings: policy.text("readings").filter(|name| !name.is_empty()).map(str::to_owned),
            script: Script::parse(policy.get("script").or_else(|| policy.get("condition")))?,
            rows,
            declared,
        })
    }

    fn map(&self, id: &str, root: &Node<'_>, now: Timestamp, parts: &mut Parts) -> Result<(), MappingError> {
        let message = Document::new(root);
        if self.script.run(&message) == Verdict::IgnoreEvent {
            return Ok(());
        }
        let (dbms, table) = (self.dbms.resolve(&message), self.table.resolve(&message));
        let dbms = dbms.of(0).ok_or_else(|| MappingError::NoDbms { source_text: self.dbms.text() })?;
        let table = table.of(0).ok_or_else(|| MappingError::NoTable { source_text: self.table.text() })?;
        let source = self.source_of(&message);
        let empty = Node { raw: "{}", kind: Kind::Object(Vec::new()) };
        let readings: Cow<'_, [Node<'_>]> = match &self.readings {
            None => Cow::Borrowed(std::slice::from_ref(root)),
            Some(attribute) => match root.get(attribute) {
                Some(Node { kind: Kind::List(list), .. }) if list.is_empty() => {
                    Cow::Borrowed(std::slice::from_ref(&empty))
                }
                Some(Node { kind: Kind::List(list), .. }) => Cow::Borrowed(list),
                Some(one) => Cow::Borrowed(std::slice::from_ref(one)),
                None => {
                    let attribute = attribute.clone();
                    return Err(MappingError::NoReadings { policy: id.to_owned(), attribute });
                }
            },
        };
        for reading in readings.iter() {
            let reading = Document::new(reading);
            for columns in &self.rows {
                if let Some(row) = row(columns, &message, &reading, dbms, table, now) {
                    parts.of(dbms, table, &source, id, || self.declared.clone()).rows.push(row);
                }
            }
        }
        Ok(())
    }

    fn source_of(&self, message: &Document<'_>) -> String {
        let Some((source, default)) = &self.source else { return "0".to_owned() };
        let found = source.as_ref().and_then(|source| source.first(message)).filter(|found| !found.is_null());
        let text = found.map_or_else(|| default.clone(), |found| found.plain().into_owned());
        // It becomes a segment of a file name, so it must not hold what separates segments or directories.
        let text = normalize(&text);
        if text.is_empty() { "0".to_owned() } else { text }
    }
}

/// A reading as a row; `None` when a script drops it.
fn row(
    columns: &[PolicyColumn],
    message: &Document<'_>,
    reading: &Document<'_>,
    dbms: &str,
    table: &str,
    now: Timestamp,
) -> Option<String> {
    let mut row = Row::default();
    for column in columns {
        if column.write(message, reading, dbms, table, now, &mut row) == Verdict::IgnoreEvent {
            return None;
        }
    }
    Some(row.finish())
}

fn source(value: &Value) -> Result<(Option<Source>, String), CommandError> {
    match value {
        Value::Object(object) => {
            let bring = object.get("bring").and_then(Value::as_str).map(Source::parse).transpose()?;
            let default = object.get("default").map_or_else(
                || "0".to_owned(),
                |value| match value {
                    Value::String(text) => text.clone(),
                    value => value.to_string(),
                },
            );
            Ok((bring, default))
        }
        Value::String(text) => match Source::of_bring(text) {
            Some(source) => Ok((Some(source?), "0".to_owned())),
            None => Ok((None, text.clone())),
        },
        other => Ok((None, other.to_string())),
    }
}
