//! A node with a store that does as it is told, and clients on sockets.

use std::collections::BTreeSet;
use std::future::Future;

use anylog_ingest::sink::Issuer;
use anylog_ingest::{FileReceipt, Receipt, RefusedRow, RowGroup, RowSink, SinkError, SourceFile, Unmapped};
use anylog_net::ConnectionHandler;
use async_trait::async_trait;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;

use super::super::*;
use crate::NodeApp;

/// However slow the machine is.
pub(super) const DEADLINE: Duration = Duration::from_secs(60);

/// A store that takes a group for each permit. It refuses rows that say so; the names of database and table say what goes wrong.
pub(super) struct Store {
    issuer: Issuer,
    pub(super) permits: Semaphore,
    pub(super) rows: Mutex<Vec<String>>,
    pub(super) begun: Notify,
}

pub(super) const ALWAYS: usize = 1 << 20;

impl Store {
    fn check(dbms: &str, table: &str) -> Result<(), SinkError> {
        match (dbms, table) {
            ("nodb", _) => Err(SinkError::UnknownDbms { dbms: dbms.into() }),
            (_, "full") => Err(SinkError::DiskFull),
            (_, "busy") => Err(SinkError::Overloaded),
            _ => Ok(()),
        }
    }

    fn store(&self, rows: Vec<String>) -> Receipt {
        let (bad, good): (Vec<_>, Vec<_>) = rows.into_iter().enumerate().partition(|(_, row)| row.contains("bad"));
        let refused = bad.into_iter().map(|(row, text)| RefusedRow { row, reason: text, ..RefusedRow::default() });
        let (stored, refused) = (good.len(), refused.collect());
        self.rows.lock().extend(good.into_iter().map(|(_, row)| row));
        Receipt::issue(&self.issuer, stored, refused)
    }
}

#[async_trait]
impl RowSink for Store {
    async fn append(&self, group: RowGroup) -> Result<Receipt, SinkError> {
        let part = group.parts.into_iter().next().expect("a part");
        Self::check(&part.dbms, &part.table)?;
        self.begun.notify_one();
        self.permits.acquire().await.expect("open").forget();
        Ok(self.store(part.rows))
    }

    async fn set_aside(&self, _: Unmapped) -> Result<Receipt, SinkError> {
        Err(SinkError::NotRunning)
    }

    async fn store_file(&self, file: SourceFile) -> Result<FileReceipt, SinkError> {
        Self::check(&file.dbms, &file.table)?;
        Ok(FileReceipt { hash: "0123456789abcdef0123456789abcdef".into(), receipt: self.store(file.rows) })
    }
}

/// A node whose store takes as many groups as there are permits.
pub(super) struct Rig {
    pub(super) app: Arc<NodeApp>,
    pub(super) store: Arc<Store>,
    pub(super) stop: CancellationToken,
    _home: TempDir,
}

impl Rig {
    pub(super) fn new(permits: usize) -> Self {
        let home = tempfile::tempdir().unwrap();
        let app = NodeApp::build(home.path()).unwrap();
        let store = app.slot.mount(|issuer| {
            let (permits, rows, begun) = (Semaphore::new(permits), Mutex::default(), Notify::new());
            Arc::new(Store { issuer, permits, rows, begun })
        });
        Self { app, store, stop: CancellationToken::new(), _home: home }
    }

    /// A client whose connection the server serves from its first bytes on.
    pub(super) async fn client(&self, first: &[u8]) -> Client {
        let (mut stream, served) = pair(None).await;
        stream.write_all(first).await.unwrap();
        let (server, stop, peer) = (Arc::clone(&self.app.rest), self.stop.clone(), sender().address);
        let server = tokio::spawn(async move { server.serve(served, peer, stop).await });
        Client { stream, read: Vec::new(), server }
    }

    /// A client of an express alone.
    pub(super) async fn client_of(&self, express: &Arc<Express>, first: &[u8]) -> Client {
        let (mut stream, served) = pair(None).await;
        stream.write_all(first).await.unwrap();
        let (express, stop) = (Arc::clone(express), self.stop.clone());
        let server = tokio::spawn(async move {
            let next = express.serve(served, &sender(), &stop).await;
            assert!(matches!(next, Next::Ended), "handed over");
        });
        Client { stream, read: Vec::new(), server }
    }

    /// An express with its own patience.
    pub(super) fn express(&self, patience: Patience) -> Arc<Express> {
        let (node, together) = (Arc::clone(&self.app.node), self.app.rest.together.clone());
        Arc::new(Express { node, together, calls: Arc::default(), success: reply::Success::default(), patience })
    }
}

pub(super) fn sender() -> Sender {
    Sender { address: SocketAddr::from(([10, 0, 0, 7], 40000)), origin: "rest 10.0.0.7".into() }
}

/// Two ends of a connection; with small buffers when it is said how small.
pub(super) async fn pair(buffers: Option<u32>) -> (TcpStream, TcpStream) {
    let socket = || {
        let socket = TcpSocket::new_v4().unwrap();
        if let Some(size) = buffers {
            socket.set_send_buffer_size(size).unwrap();
            socket.set_recv_buffer_size(size).unwrap();
        }
        socket
    };
    let listening = socket();
    listening.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let listener: TcpListener = listening.listen(8).unwrap();
    let (client, served) = tokio::join!(socket().connect(listener.local_addr().unwrap()), listener.accept());
    (client.unwrap(), served.unwrap().0)
}

pub(super) async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("in time")
}

pub(super) struct Client {
    pub(super) stream: TcpStream,
    pub(super) read: Vec<u8>,
    pub(super) server: JoinHandle<()>,
}

#[derive(Debug, PartialEq, Eq, Clone)]
pub(super) struct Received {
    pub(super) status: u16,
    pub(super) headers: BTreeSet<String>,
    pub(super) body: String,
}

/// The first answer in the bytes, and how long it is.
pub(super) fn answer_in(bytes: &[u8]) -> Option<(Received, usize)> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(start) = head.parse(bytes).expect("an answer") else { return None };
    let status = head.code.expect("a status");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let headers: BTreeSet<String> =
        head.headers.iter().map(|header| format!("{}: {}", header.name.to_lowercase(), text(header.value))).collect();
    let length = headers.iter().find_map(|header| header.strip_prefix("content-length: ")).expect("a length");
    let end = start + length.parse::<usize>().expect("a number");
    Some((Received { status, headers, body: text(bytes.get(start..end)?) }, end))
}

impl Client {
    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    pub(super) async fn answer(&mut self) -> Received {
        let read = async {
            loop {
                if let Some((answer, length)) = answer_in(&self.read) {
                    self.read.drain(..length);
                    return answer;
                }
                let count = self.stream.read_buf(&mut self.read).await.unwrap();
                assert!(count > 0, "ended after {:?}", String::from_utf8_lossy(&self.read));
            }
        };
        in_time(read).await
    }

    /// The connection ends, and nothing more came, and the server is done with it.
    pub(super) async fn ends(mut self) {
        in_time(self.stream.read_to_end(&mut self.read)).await.ok();
        assert_eq!(String::from_utf8_lossy(&self.read), "");
        in_time(self.server).await.unwrap();
    }
}

impl Received {
    pub(super) fn is_success(&self) -> bool {
        self.status == 200 && self.body == r#"{"AnyLog.status":"Success", "AnyLog.hash": "0" }"#
    }

    pub(super) fn closes(&self) -> bool {
        self.headers.contains("connection: close")
    }
}

pub(super) fn put(headers: &[&str], body: &str) -> Vec<u8> {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let length = body.len();
    format!("PUT / HTTP/1.1\r\nHost: node\r\n{headers}Content-Length: {length}\r\n\r\n{body}").into_bytes()
}

pub(super) fn row(number: usize) -> Vec<u8> {
    put(&["dbms: d", "table: t", "mode: streaming"], &format!("{{\"v\": {number}}}"))
}

pub(super) fn row_text(number: usize) -> String {
    format!("{{\"v\": {number}}}")
}
