//! Responses as the bytes that are sent.

use std::sync::Arc;

use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures_util::FutureExt;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use parking_lot::Mutex;

use crate::rest::answer;

/// The answer to rows that are all stored, made once a second: it says the time.
#[derive(Debug, Default)]
pub(super) struct Success(Mutex<(i64, Arc<[u8]>)>);

impl Success {
    pub(super) fn at(&self, now: Timestamp) -> Arc<[u8]> {
        let mut known = self.0.lock();
        if known.0 != now.as_second() || known.1.is_empty() {
            *known = (now.as_second(), encode(answer::all_stored("0"), now).into());
        }
        Arc::clone(&known.1)
    }
}

/// The bytes of a response whose body is there as a whole.
pub(super) fn encode(mut response: Response, now: Timestamp) -> Vec<u8> {
    answer::allow_any_origin(&mut response);
    let (mut parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).now_or_never().and_then(Result::ok).unwrap_or_default();
    parts.headers.insert(header::CONTENT_LENGTH, body.len().into());
    if let Some(date) =
        DateTimePrinter::new().timestamp_to_rfc9110_string(&now).ok().and_then(|date| HeaderValue::try_from(date).ok())
    {
        parts.headers.insert(header::DATE, date);
    }
    let mut bytes = Vec::with_capacity(512 + body.len());
    let status = parts.status;
    let line = format!("HTTP/1.1 {} {}\r\n", status.as_str(), status.canonical_reason().unwrap_or_default());
    bytes.extend_from_slice(line.as_bytes());
    for (name, value) in &parts.headers {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&body);
    bytes
}
