//! Request bodies: bounded in size, in time, and all together.

use std::sync::Arc;
use std::time::Duration;

use anylog_core::{CommandError, Status};
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use futures_util::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::failure::Failure;

/// The largest body.
pub(super) const LIMIT: usize = 64 * 1024 * 1024;

/// What all bodies that are being read or worked on may hold together.
const BUDGET: usize = 256 * 1024 * 1024;

/// The unit in which the budget is counted.
const UNIT: usize = 1024;

/// How long a client may be silent in the middle of a body.
const SILENCE: Duration = Duration::from_secs(30);

/// Memory for bodies.
#[derive(Debug)]
pub(super) struct BodyBudget(Arc<Semaphore>);

impl Default for BodyBudget {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(BUDGET / UNIT)))
    }
}

/// A body, with its share of the budget.
#[derive(Debug)]
pub(super) struct Held {
    bytes: Vec<u8>,
    _share: Option<OwnedSemaphorePermit>,
}

impl Held {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn text(&self) -> Result<&str, Failure> {
        std::str::from_utf8(&self.bytes)
            .map_err(|error| Failure::headers(format!("The body is not UTF-8: byte {} is wrong", error.valid_up_to())))
    }
}

impl BodyBudget {
    /// Reads a body to its end.
    pub(super) async fn read(&self, headers: &HeaderMap, body: Body) -> Result<Held, Failure> {
        let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        if declared.is_some_and(|length| length > LIMIT) {
            return Err(too_large());
        }
        let mut bytes = Vec::with_capacity(declared.unwrap_or_default().min(UNIT * UNIT));
        let mut share: Option<OwnedSemaphorePermit> = None;
        let mut chunks = body.into_data_stream();
        loop {
            let chunk = match tokio::time::timeout(SILENCE, chunks.next()).await {
                Ok(Some(Ok(chunk))) => chunk,
                Ok(Some(Err(error))) => return Err(Failure::headers(format!("The body broke off: {error}"))),
                Ok(None) => return Ok(Held { bytes, _share: share }),
                Err(_) => return Err(too_slow()),
            };
            if bytes.len() + chunk.len() > LIMIT {
                return Err(too_large());
            }
            bytes.extend_from_slice(&chunk);
            let missing = bytes.len().div_ceil(UNIT) - share.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
            let missing = u32::try_from(missing).unwrap_or(u32::MAX);
            let more = Arc::clone(&self.0).try_acquire_many_owned(missing).map_err(|_| exhausted())?;
            match &mut share {
                Some(share) => share.merge(more),
                None => share = Some(more),
            }
        }
    }
}

fn too_large() -> Failure {
    let message = format!("The body is larger than {} MB", LIMIT / 1024 / 1024);
    let error = CommandError::new(Status::REST_HEADERS, message).hint("send the rows in several requests");
    Failure::with_code(StatusCode::PAYLOAD_TOO_LARGE, error)
}

fn too_slow() -> Failure {
    let message = format!("The body stopped arriving for {} seconds", SILENCE.as_secs());
    Failure::with_code(StatusCode::REQUEST_TIMEOUT, CommandError::new(Status::TIME_OUT, message))
}

fn exhausted() -> Failure {
    CommandError::new(Status::OVERLOADED, "Too many large requests at once")
        .hint("send the same request again later")
        .into()
}

/// The commands of a body, one per line. `<...>` and unbalanced braces continue a command over several lines; empty lines and
/// comments are dropped.
pub(super) fn commands(body: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut open: Option<(bool, String)> = None;
    for line in body.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (block, text) = match open.take() {
            Some((block, text)) => (block, format!("{text} {line}")),
            None => (line.starts_with('<'), line.to_owned()),
        };
        let complete = if block { text.ends_with('>') } else { depth(&text) <= 0 };
        if !complete {
            open = Some((block, text));
        } else if block {
            commands.push(text[1..text.len() - 1].trim().to_owned());
        } else {
            commands.push(text);
        }
    }
    commands.extend(open.map(|(block, text)| if block { text[1..].trim().to_owned() } else { text }));
    commands.retain(|command| !command.is_empty());
    commands
}

/// Braces and brackets that are open at the end of the text, outside double quotes.
fn depth(text: &str) -> i64 {
    let mut depth = 0;
    let mut quoted = false;
    for byte in text.bytes() {
        match byte {
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => depth += 1,
            b'}' | b']' if !quoted => depth -= 1,
            _ => {}
        }
    }
    depth
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_blocks_and_open_braces_become_commands() {
        let body = "<new_policy={\"site\":\n {\"name\": \"s\"}}>\n# a comment\n\nset a = b\np = {\"x\":\n 1}\n<get status>\r\n";
        assert_eq!(
            commands(body),
            ["new_policy={\"site\": {\"name\": \"s\"}}", "set a = b", "p = {\"x\": 1}", "get status"]
        );
        assert_eq!(commands("<never closed\nset a = b"), ["never closed set a = b"]);
        assert!(commands(" \n<>\n").is_empty());
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_declared_or_not() {
        let budget = BodyBudget::default();
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, (LIMIT + 1).into());
        let declared = budget.read(&headers, Body::from("x")).await.unwrap_err();
        assert!(declared.error.message.contains("64 MB"), "{}", declared.error);
        let undeclared = budget.read(&HeaderMap::new(), Body::from(vec![b'x'; LIMIT + 1])).await.unwrap_err();
        assert!(undeclared.error.message.contains("64 MB"), "{}", undeclared.error);
    }

    #[tokio::test]
    async fn bodies_share_a_budget_and_give_it_back() {
        let budget = BodyBudget(Arc::new(Semaphore::new(2)));
        let first = budget.read(&HeaderMap::new(), Body::from(vec![b'x'; UNIT + 1])).await.unwrap();
        let error = budget.read(&HeaderMap::new(), Body::from("y")).await.unwrap_err();
        assert_eq!(error.error.status, Status::OVERLOADED);
        drop(first);
        assert_eq!(budget.read(&HeaderMap::new(), Body::from("y")).await.unwrap().bytes(), b"y");
    }

    proptest! {
        #[test]
        fn any_body_splits_without_panic(body in "(?s)[<>{}\\[\\]\"# a\n]{0,80}") {
            prop_assert!(commands(&body).iter().all(|command| !command.contains('\n')));
        }
    }
}
