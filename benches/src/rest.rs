//! A load of REST requests: kept-alive connections on one thread, each with one request at a time.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::histogram::Histogram;
use crate::message;

/// What is asked again and again.
#[derive(Debug, Clone)]
pub enum Ask {
    /// `GET` of a path.
    Path(String),
    /// `PUT` of so many rows in streaming mode, a JSON object alone or an array.
    Rows {
        /// Logical database.
        dbms: String,
        /// Table.
        table: String,
        /// Rows of a request.
        rows: u64,
    },
}

/// What a publisher of requests does.
#[derive(Debug, Clone)]
pub struct Load {
    /// Port of the REST server on loopback.
    pub port: u16,
    /// The requests.
    pub ask: Ask,
    /// Connections.
    pub connections: u16,
    /// Bytes of a row.
    pub payload: usize,
    /// No request begins after this time; those begun are waited for.
    pub duration: Duration,
    /// Number of the first row.
    pub first: u64,
}

/// What a publisher of requests saw.
#[derive(Debug, Clone)]
pub struct Answered {
    /// Requests answered with 200.
    pub requests: u64,
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// From a request's write to its answer's last byte.
    pub latencies: Histogram,
}

/// Sends requests until the load's end and waits for every answer.
///
/// # Errors
///
/// When a connection breaks or an answer is not 200.
pub fn run(load: &Load) -> io::Result<Answered> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut connections = Vec::new();
        let number = Arc::new(AtomicU64::new(load.first));
        for _ in 0..load.connections {
            connections.push(Connection::open(load, &number).await?);
        }
        let start = Instant::now();
        let tasks: Vec<_> =
            connections.into_iter().map(|connection| tokio::spawn(connection.run(start + load.duration))).collect();
        let mut answered = Answered { requests: 0, elapsed: Duration::ZERO, latencies: Histogram::default() };
        for task in tasks {
            let latencies = task.await.map_err(io::Error::other)??;
            answered.requests += latencies.count();
            answered.latencies.add(&latencies);
        }
        answered.elapsed = start.elapsed();
        Ok(answered)
    })
}

struct Connection {
    stream: TcpStream,
    ask: Ask,
    payload: usize,
    /// Number of the next row, of all connections: rows have the times at which they are sent, as those of devices do.
    number: Arc<AtomicU64>,
    request: Vec<u8>,
    body: Vec<u8>,
    answer: Vec<u8>,
}

impl Connection {
    async fn open(load: &Load, number: &Arc<AtomicU64>) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", load.port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            ask: load.ask.clone(),
            payload: load.payload,
            number: Arc::clone(number),
            request: Vec::new(),
            body: Vec::new(),
            answer: Vec::with_capacity(4096),
        })
    }

    async fn run(mut self, end: Instant) -> io::Result<Histogram> {
        let mut latencies = Histogram::default();
        while Instant::now() < end {
            self.write_request()?;
            let begun = Instant::now();
            self.stream.write_all(&self.request).await?;
            self.read_answer().await?;
            latencies.record(begun.elapsed());
        }
        Ok(latencies)
    }

    fn write_request(&mut self) -> io::Result<()> {
        self.request.clear();
        match &self.ask {
            Ask::Path(path) => write!(self.request, "GET {path} HTTP/1.1\r\nHost: node\r\n\r\n"),
            Ask::Rows { dbms, table, rows } => {
                rows_body(&mut self.body, self.number.fetch_add(*rows, Ordering::Relaxed), *rows, self.payload);
                write!(
                    self.request,
                    "PUT / HTTP/1.1\r\nHost: node\r\nUser-Agent: AnyLog/1.23\r\ntype: json\r\ndbms: {dbms}\r\ntable: {table}\r\n\
                     mode: streaming\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
                    self.body.len()
                )?;
                self.request.extend_from_slice(&self.body);
                Ok(())
            }
        }
    }

    async fn read_answer(&mut self) -> io::Result<()> {
        self.answer.clear();
        loop {
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some((status, length)) = answer_length(&self.answer) {
                if status == 200 && self.answer.len() == length {
                    return Ok(());
                }
                if self.answer.len() >= length {
                    return Err(io::Error::other(String::from_utf8_lossy(&self.answer).into_owned()));
                }
            }
        }
    }
}

fn rows_body(out: &mut Vec<u8>, first: u64, rows: u64, payload: usize) {
    out.clear();
    if rows == 1 {
        return message::append(out, first, payload);
    }
    for n in first..first + rows {
        out.push(if n == first { b'[' } else { b',' });
        message::append(out, n, payload);
    }
    out.push(b']');
}

/// Status and length of an answer with its head, as soon as the head is there.
fn answer_length(answer: &[u8]) -> Option<(u16, usize)> {
    const KEY: &[u8] = b"\r\ncontent-length: ";
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let number =
        |text: &[u8]| text.iter().take_while(|c| c.is_ascii_digit()).fold(0, |n, c| n * 10 + usize::from(c - b'0'));
    let status = u16::try_from(number(answer.get(9..12)?)).ok()?;
    let key = answer[..head].windows(KEY.len()).position(|text| text.eq_ignore_ascii_case(KEY));
    Some((status, head + 4 + key.map_or(0, |at| number(&answer[at + KEY.len()..]))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpListener;

    #[test]
    fn answers_are_measured() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\ndate: x\r\n\r\n{\"status\": \"ok\"}";
        assert_eq!(answer_length(answer), Some((200, answer.len())));
        assert_eq!(answer_length(&answer[..30]), None);
        assert_eq!(answer_length(b"HTTP/1.1 503 X\r\n\r\n"), Some((503, 18)));
    }

    #[test]
    fn bodies_are_objects_and_arrays() {
        let mut body = Vec::new();
        rows_body(&mut body, 5, 1, message::LEN);
        assert!(serde_json::from_slice::<serde_json::Value>(&body).expect("JSON").is_object());
        rows_body(&mut body, 5, 3, message::LEN);
        let rows: Vec<serde_json::Value> = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[2]["value"], message::value(7));
    }

    #[test]
    fn an_error_of_the_server_ends_the_load() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            for status in ["200 OK", "503 Busy"] {
                let mut request = [0; 4096];
                let read = stream.read(&mut request).expect("a request");
                assert!(request[..read].ends_with(b"}"));
                write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nok").expect("written");
            }
        });
        let ask = Ask::Rows { dbms: "d".into(), table: "t".into(), rows: 1 };
        let duration = Duration::from_secs(20);
        let load = Load { port, ask, connections: 1, payload: message::LEN, duration, first: 0 };
        let error = run(&load).expect_err("refused");
        assert!(error.to_string().contains("503 Busy"), "{error}");
        server.join().expect("the server saw two requests");
    }
}
