//! Why a request failed, as a client sees it.

use std::net::IpAddr;

use anylog_core::{CommandError, Status};
use anylog_ingest::RefusedRow;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::json;

/// A request that failed: the command's error, and the HTTP status when it is not the one of the error.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: CommandError,
    code: Option<StatusCode>,
    refused: Vec<RefusedRow>,
}

impl From<CommandError> for Failure {
    fn from(error: CommandError) -> Self {
        Self { error, code: None, refused: Vec::new() }
    }
}

impl Failure {
    /// A failure under an HTTP status of its own.
    pub(super) fn with_code(code: StatusCode, error: CommandError) -> Self {
        Self { error, code: Some(code), refused: Vec::new() }
    }

    /// A failure of HTTP itself: its headers or its body.
    pub(super) fn headers(message: impl Into<String>) -> Self {
        CommandError::new(Status::REST_HEADERS, message).into()
    }

    /// Rows of which none was stored.
    pub(super) fn refused(rows: &[RefusedRow]) -> Self {
        let first = rows.first().map_or("", |row| row.reason.as_str());
        let error = CommandError::new(Status::NO_INSERT, format!("None of {} rows was stored: {first}", rows.len()))
            .hint("the rows are kept in the quarantine; correct the data or the mapping");
        Self { error, code: None, refused: rows.to_vec() }
    }

    fn code(&self) -> StatusCode {
        let code = self.code.or_else(|| StatusCode::from_u16(self.error.status.http()).ok());
        // A failure is never reported under a status of success.
        code.filter(|code| code.is_client_error() || code.is_server_error()).unwrap_or(StatusCode::BAD_REQUEST)
    }

    /// The reply: the documented error object under a proper HTTP status.
    pub(super) fn response(&self, method: &str, caller: IpAddr) -> Response {
        let code = self.code();
        let mut body = json!({
            "method": method.to_lowercase(),
            "node": caller.to_string(),
            "err_code": self.error.status.0,
            "err_text": self.error.status.text(),
            "local_msg": self.error.to_string(),
        });
        if !self.refused.is_empty() {
            body["refused"] = refused_rows(&self.refused);
        }
        let mut response = Response::new(Body::from(anylog_core::reply::json::text(&body)));
        *response.status_mut() = code;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(super::answer::JSON));
        match code {
            StatusCode::METHOD_NOT_ALLOWED => {
                let right = if method.eq_ignore_ascii_case("get") { "POST" } else { "GET" };
                headers.insert(header::ALLOW, HeaderValue::from_static(right));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}

/// Refused rows as clients see them, counted from 1: what kind of failure, in which column, what it takes and what came (R13).
pub(super) fn refused_rows(rows: &[RefusedRow]) -> serde_json::Value {
    let shown = rows.iter().map(|row| {
        let mut shown = json!({"row": row.row + 1, "reason": row.reason});
        let known = [("kind", row.kind), ("column", &row.column), ("expected", &row.expected), ("actual", &row.actual)];
        for (name, value) in known.into_iter().filter(|(_, value)| !value.is_empty()) {
            shown[name] = value.into();
        }
        shown
    });
    shown.collect()
}
