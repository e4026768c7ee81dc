//! Rows that come by REST.

use std::net::SocketAddr;

use anylog_core::error::nearest;
use anylog_core::names::normalize;
use anylog_core::{Caller, CommandError, Status};
use anylog_ingest::mapping::Mapper;
use anylog_ingest::rest::rows_of_body;
use anylog_ingest::{RowGroup, SourceFile, TableRows};
use axum::body::Body;
use axum::http::HeaderMap;
use axum::response::Response;

use super::asked::Asked;
use super::body::Held;
use super::failure::Failure;
use super::{RestServer, answer};

/// How rows are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// As one file, known again by its content.
    File,
    /// As part of a stream.
    Streaming,
}

impl RestServer {
    /// `PUT`: rows for one table.
    pub(super) async fn put(
        &self,
        peer: SocketAddr,
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
        let origin = format!("rest {}", peer.ip());
        let mapped = match instructions.as_str() {
            "0" => None,
            policy => Some(self.mapped_by(policy, &dbms, &table, &source, &rows)?),
        };
        match mode {
            Mode::Streaming => {
                let whole = TableRows { dbms, table, source, instructions, declared: Vec::new(), rows };
                let parts = mapped.unwrap_or_else(|| vec![whole]);
                let receipt =
                    self.slot.append(RowGroup { parts, origin, ..RowGroup::default() }).await.map_err(CommandError::from)?;
                answer::of_receipt("0", &receipt)
            }
            Mode::File => {
                let rows = mapped.map_or(rows, |parts| parts.into_iter().flat_map(|part| part.rows).collect());
                let file = SourceFile { dbms, table, source, instructions, rows, origin };
                let stored = self.slot.store_file(file).await.map_err(CommandError::from)?;
                answer::of_receipt(&stored.hash, &stored.receipt)
            }
        }
    }

    /// The rows as a mapping policy makes them, for the table that the request names. A policy for another table is an error: its
    /// rows would not be where the sender looks for them.
    fn mapped_by(
        &self,
        policy: &str,
        dbms: &str,
        table: &str,
        source: &str,
        rows: &[String],
    ) -> Result<Vec<TableRows>, Failure> {
        let mapper = Mapper::policies(vec![self.ingest.policy_mapping(policy)?]);
        let now = self.node.clock.now();
        let mut parts = Vec::new();
        for (number, row) in (1..).zip(rows) {
            let group = mapper.map("", row.as_bytes(), now).map_err(|error| {
                CommandError::new(error.status(), format!("Row {number} does not map by policy '{policy}': {error}"))
            })?;
            parts.extend(group.parts);
        }
        if let Some(other) = parts.iter().find(|part| part.dbms != dbms || part.table != table) {
            let message = format!(
                "Policy '{policy}' maps to '{}.{}', the request is for '{dbms}.{table}'",
                other.dbms, other.table
            );
            let error = CommandError::new(Status::INCONSISTENT_DECLARATION, message);
            return Err(error.hint("send the headers 'dbms' and 'table' of the policy").into());
        }
        if source != "0" {
            parts.iter_mut().for_each(|part| source.clone_into(&mut part.source));
        }
        Ok(parts)
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
fn required(asked: &Asked, name: &str) -> Result<String, Failure> {
    let value = asked.get(name).map(normalize).filter(|value| !value.is_empty());
    value.ok_or_else(|| {
        let error = CommandError::new(Status::REST_HEADERS, format!("Missing '{name}' name in REST PUT command"));
        error.hint(format!("send a header '{name}'")).into()
    })
}

/// A header with a few known values, the first of which holds when it is absent.
fn one_of(asked: &Asked, name: &str, known: &[&'static str]) -> Result<&'static str, Failure> {
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
