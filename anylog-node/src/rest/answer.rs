//! A command's reply as an HTTP response.

use anylog_core::{CommandError, Reply, reply};
use anylog_ingest::{Receipt, RefusedRow};
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};

use super::failure::{Failure, refused_rows};

/// The documented content type of JSON replies.
pub(super) const JSON: &str = "text/json";

/// The content type of all other replies.
pub(super) const TEXT: &str = "text/plain; charset=utf-8";

const METHODS: &str = "GET, POST, PUT, DELETE, HEAD, OPTIONS";
const REQUEST_HEADERS: &str = "Content-Type, Authorization, Accept, User-Agent, AnyLog-Agent, command, dbms, table, details, \
     destination, timeout, subset, into, html, pdf, topic, mode, source, instructions, type, assignment";

/// A response with a body that is there as a whole.
pub(super) fn whole(content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn text(text: String) -> Response {
    let json = text.starts_with(['{', '[']);
    whole(if json { JSON } else { TEXT }, text)
}

/// The response to a command that succeeded; `printed` is shown when the command answers nothing itself. A stream's header is
/// sent with its first piece only, so that an error before it has a status of its own.
pub(super) async fn of_reply(reply: Reply, printed: String) -> Result<Response, CommandError> {
    Ok(match reply {
        Reply::Empty => text(printed),
        Reply::Text(answer) => text(answer),
        Reply::Json(value) => whole(JSON, reply::json::text(&value)),
        Reply::Table(table) => whole(TEXT, table.to_string()),
        Reply::Stream { json, mut chunks } => {
            let content_type = if json { JSON } else { TEXT };
            match chunks.next().await {
                None => whole(content_type, Body::empty()),
                Some(first) => {
                    let first: Result<Bytes, CommandError> = Ok(first?);
                    let rest = chunks.inspect(|chunk| {
                        if let Err(error) = chunk {
                            tracing::warn!(%error, "An answer broke off after its first rows");
                        }
                    });
                    whole(content_type, Body::from_stream(stream::iter([first]).chain(rest)))
                }
            }
        }
    })
}

/// The response to rows that came by `PUT`, or none of them was stored.
pub(super) fn of_receipt(hash: &str, receipt: &Receipt) -> Result<Response, Failure> {
    of_rows(hash, receipt.stored(), receipt.refused())
}

/// The response to rows that are all stored.
pub(super) fn all_stored(hash: &str) -> Response {
    whole(JSON, format!(r#"{{"AnyLog.status":"Success", "AnyLog.hash": "{hash}" }}"#))
}

/// The same by the number of rows stored and the rows refused.
pub(super) fn of_rows(hash: &str, stored: usize, refused: &[RefusedRow]) -> Result<Response, Failure> {
    if refused.is_empty() {
        return Ok(all_stored(hash));
    }
    if stored == 0 {
        return Err(Failure::refused(refused));
    }
    let refused = reply::json::text(&refused_rows(refused));
    Ok(whole(
        JSON,
        format!(
            r#"{{"AnyLog.status":"Partial", "AnyLog.hash": "{hash}", "AnyLog.stored": {stored}, "AnyLog.refused": {refused} }}"#
        ),
    ))
}

/// The answer to a browser that asks before it sends.
pub(super) fn preflight(request: &HeaderMap) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let asked = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        asked.unwrap_or_else(|| HeaderValue::from_static(REQUEST_HEADERS)),
    );
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    response
}

/// The headers that every response carries.
pub(super) fn allow_any_origin(response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("*"));
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
}
