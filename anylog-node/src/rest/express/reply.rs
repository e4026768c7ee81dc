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

/// The same response, which says that the connection ends with it.
pub(super) fn closing(response: &[u8]) -> Vec<u8> {
    let line = response.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let (line, rest) = response.split_at(line);
    [line, b"connection: close\r\n", rest].concat()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::StatusCode;
    use proptest::prelude::*;

    use super::*;

    /// The status, the headers with names as they came, and the body.
    fn parsed(bytes: &[u8]) -> (u16, Vec<(String, String)>, Vec<u8>) {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut head = httparse::Response::new(&mut headers);
        let start = head.parse(bytes).expect("a head").unwrap();
        let text = |value: &[u8]| String::from_utf8(value.to_vec()).expect("text");
        let headers = head.headers.iter().map(|header| (header.name.to_owned(), text(header.value))).collect();
        (head.code.expect("a status"), headers, bytes[start..].to_vec())
    }

    fn value<'h>(headers: &'h [(String, String)], name: &str) -> Vec<&'h str> {
        headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
    }

    #[test]
    fn success_is_made_once_a_second() {
        let success = Success::default();
        let at = |milliseconds: i64| success.at(Timestamp::from_millisecond(milliseconds).expect("a time"));
        let (first, same, next, before) = (at(0), at(999), at(1000), at(-1001));
        assert!(Arc::ptr_eq(&first, &same));
        let date = |bytes: &[u8]| value(&parsed(bytes).1, "date").concat();
        assert_eq!(date(&first), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(date(&next), "Thu, 01 Jan 1970 00:00:01 GMT");
        assert!(date(&before).starts_with("Wed, 31 Dec 1969 23:59:5"), "{}", date(&before));
        let (status, headers, body) = parsed(&first);
        assert_eq!((status, body.as_slice()), (200, &br#"{"AnyLog.status":"Success", "AnyLog.hash": "0" }"#[..]));
        assert_eq!(value(&headers, "content-type"), ["text/json"]);
        assert_eq!(value(&headers, "access-control-allow-origin"), ["*"]);
    }

    proptest! {
        #[test]
        fn a_response_is_read_as_it_was_meant(status in 200_u16..600, body in any::<Vec<u8>>(), word in "[!-~]{1,20}") {
            let mut response = Response::new(Body::from(body.clone()));
            *response.status_mut() = StatusCode::from_u16(status).expect("a status");
            response.headers_mut().insert("x-word", HeaderValue::try_from(&word).expect("a value"));
            let encoded = encode(response, Timestamp::UNIX_EPOCH);
            let (code, headers, sent) = parsed(&encoded);
            prop_assert_eq!((code, &sent), (status, &body));
            prop_assert_eq!(value(&headers, "content-length"), [body.len().to_string()]);
            prop_assert_eq!(value(&headers, "x-word"), [word]);
            prop_assert_eq!(value(&headers, "date").len(), 1);
            let (code, all, sent) = parsed(&closing(&encoded));
            prop_assert_eq!((code, &sent), (status, &body));
            prop_assert_eq!(value(&all, "connection"), ["close"]);
            prop_assert_eq!(&all[1..], &headers);
        }
    }
}
