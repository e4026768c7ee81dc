//! Transform policies: the table and column of a value stand in the name of its attribute.

use anylog_core::CommandError;
use anylog_core::names::normalize;
use anylog_ledger::Policy;
use regex::Regex;
use serde_json::Value;

use super::{MappingError, Parts, Row, required, wrong};
use crate::json::{self, Kind, Node};

/// A compiled transform policy.
#[derive(Debug, Clone)]
pub(super) struct Transform {
    pattern: Option<Regex>,
    dbms: Vec<Piece>,
    table: Vec<Piece>,
    column: Vec<Piece>,
    // Columns of the schema, `id` first when there is one: a row is made per id.
    id: Option<Vec<Piece>>,
    schema: Vec<(String, Vec<Piece>)>,
}

#[derive(Debug, Clone)]
enum Piece {
    Text(String),
    /// `re.group(n)`.
    Group(usize),
}

impl Transform {
    pub(super) fn parse(policy: &Policy) -> Result<Self, CommandError> {
        let pattern = match policy.text("re_match") {
            None => None,
            Some(pattern) => {
                let anchored = Regex::new(&format!("^(?:{pattern})"));
                Some(anchored.map_err(|error| wrong(policy, &format!("'re_match' is not a pattern: {error}")))?)
            }
        };
        let mut id = None;
        let mut schema = Vec::new();
        if let Some(columns) = policy.get("schema") {
            let columns = columns.as_object().ok_or_else(|| wrong(policy, "'schema' is not an object"))?;
            for (name, column) in columns {
                let value = match column {
                    Value::String(text) => text.as_str(),
                    column => {
                        column.get("value").or_else(|| column.get("default")).and_then(Value::as_str).unwrap_or("")
                    }
                };
                if name == "id" {
                    id = Some(pieces(value));
                }
                schema.push((normalize(name), pieces(value)));
            }
        }
        Ok(Self {
            pattern,
            dbms: pieces(required(policy, "dbms")?),
            table: pieces(required(policy, "table")?),
            column: pieces(required(policy, "column")?),
            id,
            schema,
        })
    }

    pub(super) fn map(&self, id: &str, root: &Node<'_>, parts: &mut Parts) -> Result<(), MappingError> {
        let Kind::Object(entries) = &root.kind else { return Err(MappingError::NotObject) };
        let mut rows: Vec<((String, String, String), Row)> = Vec::new();
        for (name, value) in entries {
            let groups = match &self.pattern {
                None => Some(vec![name.to_string()]),
                Some(pattern) => pattern.captures(name).map(|groups| {
                    groups.iter().map(|group| group.map_or("", |m| m.as_str()).to_owned()).collect::<Vec<_>>()
                }),
            };
            // Attributes whose name does not say where they belong are skipped.
            let Some(groups) = groups else { continue };
            let names = [&self.dbms, &self.table, &self.column].map(|pieces| normalize(&text(pieces, &groups)));
            let [dbms, table, column] = names;
            if dbms.is_empty() || table.is_empty() || column.is_empty() {
                continue;
            }
            let key = (dbms, table, self.id.as_ref().map_or_else(String::new, |pieces| text(pieces, &groups)));
            let at = rows.iter().position(|(known, _)| *known == key).unwrap_or_else(|| {
                rows.push((key, self.begin(&groups)));
                rows.len() - 1
            });
            let row = &mut rows[at].1;
            if row.begin(&column) {
                row.text.push_str(&json::one_line(value.raw));
            }
        }
        for ((dbms, table, _), row) in rows {
            parts.of(&dbms, &table, "0", id, Vec::new).rows.push(row.finish());
        }
        Ok(())
    }

    fn begin(&self, groups: &[String]) -> Row {
        let mut row = Row::default();
        for (name, pieces) in &self.schema {
            if row.begin(name) {
                json::push_quoted(&mut row.text, &text(pieces, groups));
            }
        }
        row
    }
}

fn text(pieces: &[Piece], groups: &[String]) -> String {
    pieces
        .iter()
        .map(|piece| match piece {
            Piece::Text(text) => text.as_str(),
            Piece::Group(group) => groups.get(*group).map_or("", String::as_str),
        })
        .collect()
}

/// Takes `re.group(n)` out of a text.
fn pieces(text: &str) -> Vec<Piece> {
    const CALL: &str = "re.group(";
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(CALL) {
        let group = after.split_once(')').and_then(|(group, after)| Some((group.trim().parse().ok()?, after)));
        let Some((group, after)) = group else { break };
        pieces.push(Piece::Text(before.to_owned()));
        pieces.push(Piece::Group(group));
        rest = after;
    }
    pieces.push(Piece::Text(rest.to_owned()));
    pieces
}
