//! Which bytes are a request that the express takes.

use std::sync::Arc;

use anylog_core::names::normalize;
use anylog_ingest::rest::rows_of_body;

use crate::rest::asked::product;
use crate::rest::together::{Lane, SMALL_BYTES, is_small};

/// The longest head. Longer ones are read elsewhere.
const HEAD_BYTES: usize = 8 << 10;

/// Headers of a head.
const HEADERS: usize = 32;

/// Headers that say nothing about what is to be done with rows. Any other that is not read here is a matter of the HTTP library.
const HARMLESS: &[&str] =
    &["host", "user-agent", "accept", "accept-encoding", "accept-language", "cache-control", "content-type"];

/// What the bytes that came so far are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'b> {
    /// Nothing, or the beginning of a request.
    Part,
    /// Something else, or something wrong, which is told elsewhere.
    Other,
    /// A request for rows of a stream.
    Rows(Request<'b>),
}

/// A request for rows of a stream, as it came.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request<'b> {
    pub(super) dbms: &'b str,
    pub(super) table: &'b str,
    pub(super) source: &'b str,
    /// `AnyLog-Agent`, or `User-Agent`.
    pub(super) agent: &'b str,
    pub(super) rows: Vec<String>,
    /// Bytes of the whole request.
    pub(super) length: usize,
}

/// The fields of a head.
#[derive(Default)]
struct Fields<'b> {
    dbms: Option<&'b str>,
    table: Option<&'b str>,
    source: Option<&'b str>,
    agent: Option<&'b str>,
    own_agent: Option<&'b str>,
    streaming: bool,
    length: Option<usize>,
}

impl<'b> Fields<'b> {
    /// Takes a header; none when it, or its value, is not for the express.
    fn take(&mut self, name: &str, raw: &'b [u8]) -> Option<()> {
        let value = std::str::from_utf8(raw).ok()?.trim();
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        let first = |field: &mut Option<&'b str>| field.replace(value).is_none().then_some(());
        if is("dbms") {
            return first(&mut self.dbms);
        } else if is("table") {
            return first(&mut self.table);
        } else if is("source") {
            return first(&mut self.source);
        } else if is("anylog-agent") {
            return first(&mut self.own_agent);
        } else if is("user-agent") {
            return first(&mut self.agent);
        } else if is("content-length") {
            // Read as strictly as elsewhere: a length with two meanings would hide a request in a body.
            let length = raw.iter().all(u8::is_ascii_digit).then(|| value.parse().ok()).flatten()?;
            return self.length.replace(length).is_none().then_some(());
        } else if is("mode") {
            self.streaming = true;
            return value.eq_ignore_ascii_case("streaming").then_some(());
        }
        let usual = (is("type") && value.eq_ignore_ascii_case("json"))
            || (is("connection") && value.eq_ignore_ascii_case("keep-alive"))
            || (is("instructions") && value == "0")
            || HARMLESS.iter().any(|known| is(known));
        usual.then_some(())
    }
}

/// Looks at the bytes from the beginning of a request on.
pub(super) fn find(bytes: &[u8]) -> Found<'_> {
    const METHOD: &[u8] = b"PUT ";
    if bytes.is_empty() {
        return Found::Part;
    }
    if !bytes.starts_with(&METHOD[..bytes.len().min(METHOD.len())]) {
        return Found::Other;
    }
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let start = match head.parse(bytes) {
        Ok(httparse::Status::Complete(start)) => start,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES => return Found::Part,
        _ => return Found::Other,
    };
    whole(bytes, start, &head).unwrap_or(Found::Other)
}

fn whole<'b>(bytes: &'b [u8], start: usize, head: &httparse::Request<'_, 'b>) -> Option<Found<'b>> {
    if start > HEAD_BYTES || head.version != Some(1) || head.path != Some("/") {
        return None;
    }
    let mut fields = Fields::default();
    for header in &*head.headers {
        fields.take(header.name, header.value)?;
    }
    let length = fields.length.filter(|length| fields.streaming && *length <= SMALL_BYTES)?;
    let filled = |field: Option<&'b str>| field.filter(|value| !value.is_empty());
    let (dbms, table) = (filled(fields.dbms)?, filled(fields.table)?);
    let Some(body) = bytes.get(start..start + length) else { return Some(Found::Part) };
    let rows = rows_of_body(body).ok().filter(|rows| !rows.is_empty() && is_small(rows))?;
    let source = filled(fields.source).unwrap_or("0");
    let agent = filled(fields.own_agent).or(filled(fields.agent)).unwrap_or_default();
    Some(Found::Rows(Request { dbms, table, source, agent, rows, length: start + length }))
}

/// Where rows go, as the last head named it.
pub(super) struct Target {
    dbms: String,
    table: String,
    source: String,
    agent: String,
    pub(super) lane: Arc<Lane>,
    /// The product name.
    pub(super) product: Arc<str>,
}

impl Target {
    /// The target of a request; none when a name has no letter that counts.
    pub(super) fn of(request: &Request<'_>, origin: &Arc<str>) -> Option<Self> {
        let name = |raw: &str| Some(normalize(raw)).filter(|name| !name.is_empty());
        let lane = Lane {
            dbms: name(request.dbms)?,
            table: name(request.table)?,
            source: request.source.to_owned(),
            instructions: "0".to_owned(),
            origin: Arc::clone(origin),
        };
        Some(Self {
            dbms: request.dbms.to_owned(),
            table: request.table.to_owned(),
            source: request.source.to_owned(),
            agent: request.agent.to_owned(),
            lane: lane.into(),
            product: product(request.agent).into(),
        })
    }

    /// Whether a request has the same.
    pub(super) fn is_of(&self, request: &Request<'_>) -> bool {
        self.dbms == request.dbms
            && self.table == request.table
            && self.source == request.source
            && self.agent == request.agent
    }
}

#[cfg(test)]
mod tests;
