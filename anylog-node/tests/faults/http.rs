//! Requests to REST servers on loopback, with an end.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// An answer over REST.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Answer {
    /// The rows of a SELECT with `format=json`, or what was answered instead.
    pub(crate) fn rows(self) -> Result<Vec<Value>, String> {
        if self.status != 200 {
            return Err(self.body);
        }
        let value: Value = serde_json::from_str(&self.body).map_err(|error| format!("{error}: {}", self.body))?;
        Ok(value["Query"].as_array().cloned().unwrap_or_default())
    }
}

/// One request on a connection of its own; an error when there is no whole answer in time.
pub(crate) fn request(
    port: u16,
    method: &str,
    headers: &[(&str, &str)],
    body: &str,
    patience: Duration,
) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    stream.set_nodelay(true)?;
    // Version 1.0: the answer ends where the connection ends.
    let mut text = format!("{method} / HTTP/1.0\r\nHost: 127.0.0.1\r\nUser-Agent: anylog\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    stream.write_all(text.as_bytes())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    parse(bytes)
}

fn parse(bytes: Vec<u8>) -> io::Result<Answer> {
    let text = String::from_utf8(bytes).map_err(|_| io::Error::other("an answer that is no text"))?;
    let (head, body) =
        text.split_once("\r\n\r\n").ok_or_else(|| io::Error::other(format!("half an answer: {text:?}")))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("no status: {head:?}")))?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    if length.is_some_and(|length| length != body.len()) {
        return Err(io::Error::other("the answer is cut off"));
    }
    Ok(Answer { status, body: body.to_owned() })
}
