//! Rows that come by REST.

use std::sync::Arc;

use anylog_core::error::nearest;
use anylog_core::names::normalize;
use anylog_core::{Caller, CommandError, Node, Status};
use anylog_ingest::mapping::Mapper;
use anylog_ingest::rest::rows_of_body;
use anylog_ingest::{Message, MessageRows, RefusedRow, RowGroup, SourceFile, TableRows, Unmapped};
use axum::body::Body;
use axum::http::HeaderMap;
use axum::response::Response;
use bytes::Bytes;

use super::asked::Asked;
use super::body::Held;
use super::failure::Failure;
use super::{RestServer, Sender, answer, together};

/// How rows are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// As one file, known again by its content.
    File,
    /// As part of a stream.
    Streaming,
}

/// Rows of a request that a policy mapped.
#[derive(Debug, Default)]
struct MappedRows {
    /// One part, and further ones when the policy tells sources apart.
    parts: Vec<TableRows>,
    /// The rows of the parts by the row of the request that they come of.
    messages: Vec<MessageRows>,
    /// For each of those, its number in the request.
    numbers: Vec<usize>,
    unmapped: Vec<Unmapped>,
}

impl MappedRows {
    /// Adds the rows that row `number` of the request gave. Rows of one source that follow each other share a part.
    fn add(&mut self, part: TableRows, number: usize, message: impl FnOnce() -> Arc<Message>) {
        let count = part.rows.len();
        self.numbers.push(number);
        let same = |last: &&mut TableRows| last.source == part.source && last.instructions == part.instructions;
        let first = match self.parts.last_mut().filter(same) {
            Some(last) => {
                last.rows.extend(part.rows);
                last.rows.len() - count
            }
            None => {
                self.parts.push(part);
                0
            }
        };
        self.messages.push(MessageRows { part: self.parts.len() - 1, first, count, message: message() });
    }

    /// The row of the request that a row of a part comes of.
    fn owner(&self, part: usize, row: usize) -> usize {
        let holds = |known: &MessageRows| known.part == part && (known.first..known.first + known.count).contains(&row);
        self.messages.iter().zip(&self.numbers).find(|(known, _)| holds(known)).map_or(row, |(_, number)| *number)
    }
}

/// Statuses of a request that names what the node does not have.
const MISSING: [Status; 4] =
    [Status::DBMS_NOT_CONNECTED, Status::MESSAGE_DECLARATION, Status::NOT_SUBSCRIBED, Status::UNKNOWN_AGENT];

/// A sender gives up what is refused for good: what the start script may declare yet is to come again.
pub(super) fn explain_missing(node: &Node, mut failure: Failure) -> Failure {
    if MISSING.contains(&failure.error.status) {
        failure.error = node.startup.explain(failure.error);
    }
    failure
}

impl RestServer {
    /// `PUT`: rows for one table.
    pub(super) async fn put(
        &self,
        sender: &Sender,
        headers: &HeaderMap,
        asked: &Asked,
        body: Body,
    ) -> Result<Response, Failure> {
        // The body is read first: a client that still writes would not see an answer.
        let body = self.budget.read(headers, body).await?;
        let dbms = required(asked, "dbms")?;
        let table = required(asked, "table")?;
        one_of(asked, "type", &["json"])?;
        let mode =
            if one_of(asked, "mode", &["file", "streaming"])? == "streaming" { Mode::Streaming } else { Mode::File };
        let rows = rows_of_body(body.bytes())?;
        if rows.is_empty() {
            let error = CommandError::new(Status::JSON_STRUCTURE, "The body is an empty list: no rows to store");
            return Err(error.into());
        }
        let source = asked.get("source").unwrap_or("0").to_owned();
        let instructions = asked.get("instructions").unwrap_or("0").to_owned();
        let origin = &sender.origin;
        let mut mapped = match instructions.as_str() {
            "0" => None,
            policy => Some(self.mapped_by(policy, &dbms, &table, &source, &rows)?),
        };
        // Rows that do not map are put aside first: then the others may be acknowledged.
        let mut refused = Vec::new();
        let unmapped = mapped.as_mut().map(|mapped| std::mem::take(&mut mapped.unmapped)).unwrap_or_default();
        let aside = unmapped.into_iter().map(|row| self.slot.set_aside(Unmapped { origin: origin.to_string(), ..row }));
        for receipt in futures_util::future::try_join_all(aside).await.map_err(CommandError::from)? {
            refused.extend_from_slice(receipt.refused());
        }
        if mapped.as_ref().is_some_and(|mapped| mapped.parts.is_empty()) && !refused.is_empty() {
            return answer::of_rows("0", 0, &refused);
        }
        let (hash, stored, late) = match mode {
            Mode::Streaming if mapped.is_none() && together::is_small(&rows) => {
                let lane = together::Lane { dbms, table, source, instructions, origin: Arc::clone(origin) };
                let taken = self.together.append(lane, rows).await.map_err(CommandError::from)?;
                ("0".to_owned(), taken.stored, taken.refused)
            }
            Mode::Streaming => {
                let whole = TableRows { dbms, table, source, instructions, rows, ..TableRows::default() };
                let (parts, messages) = match mapped.as_mut() {
                    Some(mapped) => (std::mem::take(&mut mapped.parts), mapped.messages.clone()),
                    None => (vec![whole], Vec::new()),
                };
                let group = RowGroup { parts, origin: origin.to_string(), messages, ..RowGroup::default() };
                let receipt = self.slot.append(group).await.map_err(CommandError::from)?;
                ("0".to_owned(), receipt.stored(), receipt.refused().to_vec())
            }
            Mode::File => {
                let rows = match mapped.as_mut() {
                    Some(mapped) => std::mem::take(&mut mapped.parts).into_iter().flat_map(|part| part.rows).collect(),
                    None => rows,
                };
                let file = SourceFile { dbms, table, source, instructions, rows, origin: origin.to_string() };
                let stored = self.slot.store_file(file).await.map_err(CommandError::from)?;
                (stored.hash, stored.receipt.stored(), stored.receipt.refused().to_vec())
            }
        };
        // A row has the number that it has in the request, also when a policy made another number of rows.
        let number = |row: &RefusedRow| mapped.as_ref().map_or(row.row, |mapped| mapped.owner(row.part, row.row));
        refused.extend(late.into_iter().map(|row| RefusedRow { row: number(&row), ..row }));
        refused.sort_by_key(|row| row.row);
        answer::of_rows(&hash, stored, &refused)
    }

    /// The rows as a mapping policy makes them, for the table that the request names. A policy for another table is an error: its
    /// rows would not be where the sender looks for them. A row that does not map stands alone (R13).
    fn mapped_by(
        &self,
        policy: &str,
        dbms: &str,
        table: &str,
        source: &str,
        rows: &[String],
    ) -> Result<MappedRows, Failure> {
        let mapper = Mapper::policies(vec![self.ingest.policy_mapping(policy)?]);
        let now = self.node.clock.now();
        let message = |row: &str| {
            Arc::new(Message {
                broker: anylog_ingest::POLICY.into(),
                filter: policy.into(),
                topic: "".into(),
                payload: Bytes::copy_from_slice(row.as_bytes()),
            })
        };
        let mut mapped = MappedRows::default();
        for (number, row) in rows.iter().enumerate() {
            let group = match mapper.map("", row.as_bytes(), now) {
                Ok(group) => group,
                Err(error) => {
                    mapped.unmapped.push(Unmapped {
                        message: message(row),
                        origin: String::new(),
                        position: number,
                        kind: error.kind(),
                        column: error.column().to_owned(),
                        reason: error.to_string(),
                    });
                    continue;
                }
            };
            for mut part in group.parts {
                if part.dbms != dbms || part.table != table {
                    let message = format!(
                        "Policy '{policy}' maps to '{}.{}', the request is for '{dbms}.{table}'",
                        part.dbms, part.table
                    );
                    let error = CommandError::new(Status::INCONSISTENT_DECLARATION, message);
                    return Err(error.hint("send the headers 'dbms' and 'table' of the policy").into());
                }
                if source != "0" {
                    source.clone_into(&mut part.source);
                }
                mapped.add(part, number, || message(row));
            }
        }
        Ok(mapped)
    }

    /// `POST` with `command: data`: rows that a REST message client maps by topic.
    pub(super) async fn post_data(&self, caller: &Caller, asked: &Asked, body: &Held) -> Result<Response, Failure> {
        let text = body.text()?;
        if text.trim().is_empty() {
            return Err(CommandError::new(Status::JSON_STRUCTURE, "Message Body is empty").into());
        }
        let origin = caller.address.map_or_else(|| "rest".to_owned(), |address| format!("rest {}", address.ip()));
        let receipt = self.ingest.rest_message(&asked.agent(), asked.get("topic"), text, &origin).await?;
        if receipt.refused().is_empty() {
            return Ok(answer::whole(answer::TEXT, Body::empty()));
        }
        answer::of_receipt("0", &receipt)
    }
}

/// A header that `PUT` needs, as a normalised name.
pub(super) fn required(asked: &Asked, name: &str) -> Result<String, Failure> {
    let value = asked.get(name).map(normalize).filter(|value| !value.is_empty());
    value.ok_or_else(|| {
        let error = CommandError::new(Status::REST_HEADERS, format!("Missing '{name}' name in REST PUT command"));
        error.hint(format!("send a header '{name}'")).into()
    })
}

/// A header with a few known values, the first of which holds when it is absent.
pub(super) fn one_of(asked: &Asked, name: &str, known: &[&'static str]) -> Result<&'static str, Failure> {
    let Some(value) = asked.get(name) else { return Ok(known[0]) };
    if let Some(found) = known.iter().copied().find(|known| known.eq_ignore_ascii_case(value)) {
        return Ok(found);
    }
    let error = CommandError::new(Status::REST_HEADERS, format!("Unknown value '{value}' in the header '{name}'"));
    let hint = match nearest(value, known.iter().copied()) {
        Some(meant) => format!("did you mean '{meant}'?"),
        None => format!("known are: {}", known.join(", ")),
    };
    Err(error.hint(hint).into())
}
