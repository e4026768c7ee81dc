//! A plain HTTP/1.1 request at a time, for commands and queries beside a load.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Body as it arrived; of a chunked answer without the chunks' sizes.
    pub body: Vec<u8>,
}

/// Sends one request to a port of loopback on a connection of its own. `headers` are whole lines, each with its line end.
///
/// # Errors
///
/// When there is no connection or the answer is not HTTP.
pub fn request(port: u16, method: &str, headers: &str, body: &[u8]) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let mut request = format!(
        "{method} / HTTP/1.1\r\nHost: node\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    stream.write_all(&request)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    parse(&answer).ok_or_else(|| io::Error::other(format!("not HTTP: {}", String::from_utf8_lossy(&answer))))
}

/// How a long answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Download {
    /// Bytes, with the head and the sizes of chunks.
    pub bytes: u64,
    /// Until the first byte came.
    pub first: Duration,
    /// Until the last one came.
    pub last: Duration,
}

/// Sends one `GET` and reads its answer without keeping it.
///
/// # Errors
///
/// When there is no connection, or the status is not 200.
pub fn download(port: u16, headers: &str) -> io::Result<Download> {
    let start = Instant::now();
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: node\r\nConnection: close\r\n{headers}\r\n").as_bytes())?;
    let mut buffer = vec![0; 256 * 1024];
    let mut read = stream.read(&mut buffer)?;
    let (first, mut bytes) = (start.elapsed(), 0);
    if !buffer.starts_with(b"HTTP/1.1 200") {
        return Err(io::Error::other(format!("not a success: {}", String::from_utf8_lossy(&buffer[..read]))));
    }
    while read > 0 {
        bytes += read as u64;
        read = stream.read(&mut buffer)?;
    }
    Ok(Download { bytes, first, last: start.elapsed() })
}

fn parse(answer: &[u8]) -> Option<Answer> {
    let head_end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..head_end]).ok()?.to_ascii_lowercase();
    let status = head.strip_prefix("http/1.1 ")?.get(..3)?.parse().ok()?;
    let body = &answer[head_end + 4..];
    let body = if head.contains("transfer-encoding: chunked") { unchunked(body)? } else { body.to_vec() };
    Some(Answer { status, body })
}

fn unchunked(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    loop {
        let end = body.windows(2).position(|two| two == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&body[..end]).ok()?, 16).ok()?;
        if size == 0 {
            return Some(out);
        }
        out.extend_from_slice(body.get(end + 2..end + 2 + size)?);
        body = body.get(end + 2 + size + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_and_chunked_answers_are_read() {
        let whole = parse(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno").expect("an answer");
        assert_eq!((whole.status, whole.body.as_slice()), (404, b"no".as_slice()));
        let chunked =
            parse(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n");
        assert_eq!(chunked.expect("an answer").body, b"abc0123456789");
        assert!(parse(b"SSH-2.0").is_none());
    }
}
