//! A node with ingestion and a store in memory, for the tests of this crate.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anylog_core::{Caller, CommandError, Node, Reply, Session};
use anylog_ingest::sink::Issuer;
use anylog_ingest::{
    FileReceipt, Ingest, Receipt, RefusedRow, RowGroup, RowSink, SinkError, SinkSlot, SourceFile, Unmapped,
};
use anylog_net::listener::{Listeners, Protocol, ServerAddress, ServerKind};
use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;

/// How long anything may take in a test.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A store in memory that can be held back and made to fail.
pub(crate) struct MemorySink {
    issuer: Issuer,
    rows: Mutex<BTreeMap<String, Vec<String>>>,
    declared: Mutex<BTreeMap<String, Vec<(String, String)>>>,
    open: watch::Sender<bool>,
    waiting: watch::Sender<usize>,
    error: Mutex<Option<SinkError>>,
    aside: Mutex<Vec<Unmapped>>,
    aside_error: Mutex<Option<SinkError>>,
    aside_tried: std::sync::atomic::AtomicUsize,
    stored: watch::Sender<usize>,
    /// Rows of each append.
    groups: Mutex<Vec<usize>>,
    /// A table that is not there.
    excluded: Mutex<Option<String>>,
    /// The row that goes to the quarantine.
    misfit: Mutex<Option<String>>,
}

impl MemorySink {
    fn new(issuer: Issuer) -> Arc<Self> {
        Arc::new(Self {
            issuer,
            rows: Mutex::default(),
            declared: Mutex::default(),
            open: watch::Sender::new(true),
            waiting: watch::Sender::new(0),
            error: Mutex::default(),
            aside: Mutex::default(),
            aside_error: Mutex::default(),
            aside_tried: std::sync::atomic::AtomicUsize::new(0),
            stored: watch::Sender::new(0),
            groups: Mutex::default(),
            excluded: Mutex::default(),
            misfit: Mutex::default(),
        })
    }

    /// Refuses groups with rows of this table.
    pub(crate) fn exclude(&self, table: &str) {
        *self.excluded.lock() = Some(table.to_owned());
    }

    /// Puts this row into the quarantine.
    pub(crate) fn misfit(&self, row: &str) {
        *self.misfit.lock() = Some(row.to_owned());
    }

    /// How many rows each append brought.
    pub(crate) fn groups(&self) -> Vec<usize> {
        self.groups.lock().clone()
    }

    /// Holds back all appends, or lets them go.
    pub(crate) fn hold(&self, held: bool) {
        self.open.send_replace(!held);
    }

    /// Makes appends fail.
    pub(crate) fn fail(&self, error: Option<SinkError>) {
        *self.error.lock() = error;
    }

    /// Makes putting messages aside fail.
    pub(crate) fn fail_aside(&self, error: Option<SinkError>) {
        *self.aside_error.lock() = error;
    }

    /// How often a message came to be put aside.
    pub(crate) fn aside_tried(&self) -> usize {
        self.aside_tried.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// The messages that were put aside.
    pub(crate) fn aside(&self) -> Vec<Unmapped> {
        self.aside.lock().clone()
    }

    /// The rows of a table.
    pub(crate) fn rows(&self, table: &str) -> Vec<String> {
        self.rows.lock().get(table).cloned().unwrap_or_default()
    }

    /// The declared types of a table.
    pub(crate) fn declared(&self, table: &str) -> Vec<(String, String)> {
        self.declared.lock().get(table).cloned().unwrap_or_default()
    }

    /// Waits until this many rows are stored in all.
    pub(crate) async fn stored(&self, rows: usize) {
        let mut stored = self.stored.subscribe();
        let waited = tokio::time::timeout(DEADLINE, stored.wait_for(|stored| *stored >= rows)).await;
        assert!(waited.is_ok(), "{rows} rows expected, {} stored", *self.stored.borrow());
    }

    /// Waits until this many rows are held back.
    pub(crate) async fn waiting(&self, rows: usize) {
        let mut waiting = self.waiting.subscribe();
        let waited = tokio::time::timeout(DEADLINE, waiting.wait_for(|waiting| *waiting >= rows)).await;
        assert!(waited.is_ok(), "{rows} rows expected, {} wait", *self.waiting.borrow());
    }

    /// Rows that are held back now.
    pub(crate) fn waiting_now(&self) -> usize {
        *self.waiting.borrow()
    }
}

#[async_trait]
impl RowSink for MemorySink {
    async fn append(&self, group: RowGroup) -> Result<Receipt, SinkError> {
        let rows: usize = group.parts.iter().map(|part| part.rows.len()).sum();
        self.waiting.send_modify(|waiting| *waiting += rows);
        let mut open = self.open.subscribe();
        open.wait_for(|open| *open).await.map_err(|_| SinkError::NotRunning)?;
        self.waiting.send_modify(|waiting| *waiting -= rows);
        if let Some(error) = self.error.lock().clone() {
            return Err(error);
        }
        let excluded = self.excluded.lock().clone();
        if let Some(part) = group.parts.iter().find(|part| Some(&part.table) == excluded.as_ref()) {
            return Err(SinkError::Table {
                dbms: part.dbms.clone(),
                table: part.table.clone(),
                reason: "excluded".into(),
                status: anylog_core::Status::TABLE_EXCLUDED,
            });
        }
        self.groups.lock().push(rows);
        let misfit = self.misfit.lock().clone();
        let (mut count, mut refused) = (0, Vec::new());
        for (at, mut part) in group.parts.into_iter().enumerate() {
            let name = format!("{}.{}", part.dbms, part.table);
            if let Some(row) = part.rows.iter().position(|row| Some(row) == misfit.as_ref()) {
                part.rows.remove(row);
                refused.push(RefusedRow { part: at, row, reason: "misfit".into(), ..RefusedRow::default() });
            }
            count += part.rows.len();
            self.declared.lock().insert(name.clone(), part.declared);
            self.rows.lock().entry(name).or_default().extend(part.rows);
        }
        self.stored.send_modify(|stored| *stored += count);
        Ok(Receipt::issue(&self.issuer, count, refused))
    }

    async fn set_aside(&self, unmapped: Unmapped) -> Result<Receipt, SinkError> {
        self.aside_tried.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        if let Some(error) = self.aside_error.lock().clone() {
            return Err(error);
        }
        self.aside.lock().push(unmapped);
        Ok(Receipt::issue(&self.issuer, 0, Vec::new()))
    }

    async fn store_file(&self, _: SourceFile) -> Result<FileReceipt, SinkError> {
        Err(SinkError::NotRunning)
    }
}

/// A node with a broker on a free port.
pub(crate) struct TestNode {
    pub(crate) home: tempfile::TempDir,
    pub(crate) node: Arc<Node>,
    pub(crate) slot: Arc<SinkSlot>,
    pub(crate) ingest: Arc<Ingest>,
    pub(crate) listeners: Arc<Listeners>,
    pub(crate) sink: Arc<MemorySink>,
    pub(crate) address: SocketAddr,
}

impl TestNode {
    /// A node with a running broker and a store.
    pub(crate) async fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let node = Node::builder().home(home.path()).build();
        node.directories.create().unwrap();
        let slot = SinkSlot::new();
        let catalog = anylog_dbms::Catalog::new(Arc::clone(&node));
        let peers = Arc::new(anylog_net::LocalPeers::default());
        let ledger = anylog_ledger::Ledger::new(Arc::clone(&node), catalog, peers);
        let ingest = Ingest::new(Arc::clone(&node), ledger, Arc::clone(&slot));
        let listeners = Arc::new(Listeners::default());
        node.registry.register_all(anylog_ingest::commands(Arc::clone(&ingest), Arc::clone(&listeners))).unwrap();
        let sink = slot.mount(MemorySink::new);
        let address = ServerAddress::bound_to("127.0.0.1:0".parse().unwrap());
        let address = listeners.start(ServerKind::Broker, Protocol::Mqtt, address, ingest.broker()).await.unwrap();
        Self { home, node, slot, ingest, listeners, sink, address }
    }

    /// Runs a command and returns what it says.
    pub(crate) async fn run(&self, line: &str) -> Result<String, CommandError> {
        let mut session = Session::new(Arc::clone(&self.node), Caller::terminal());
        let reply: Reply = session.execute(line).await?;
        reply.into_text().await
    }

    /// Subscribes `topic` and maps its `n` to the column of the same name of `test.<table>`.
    pub(crate) async fn map(&self, broker: &str, topic: &str, qos: u8, table: &str) {
        let line = format!(
            "run msg client where {broker} and topic=(name=\"{topic}\" and qos={qos} and dbms=test and table={table} \
             and column.n=(value=\"bring [n]\" and type=int))"
        );
        self.run(&line).await.unwrap();
    }

    /// The numbers in a table, sorted.
    pub(crate) fn numbers(&self, table: &str) -> Vec<u64> {
        let number = |row: &String| {
            let row: serde_json::Value = serde_json::from_str(row).unwrap();
            row["n"].as_u64().unwrap()
        };
        let mut numbers: Vec<u64> = self.sink.rows(table).iter().map(number).collect();
        numbers.sort_unstable();
        numbers
    }
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let waited = tokio::time::timeout(DEADLINE, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "in vain waited for: {what}");
}

/// A mosquitto broker of its own on a free port.
pub(crate) struct Mosquitto {
    child: Option<Child>,
    pub(crate) port: u16,
    directory: tempfile::TempDir,
    /// A line of the configuration; empty when anybody is let in.
    users: String,
    /// Lines of the configuration about TLS.
    tls: String,
}

impl Mosquitto {
    /// Starts the broker with a persistent store.
    pub(crate) async fn start() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let directory = tempfile::tempdir().unwrap();
        let mut broker = Self { child: None, port, directory, users: String::new(), tls: String::new() };
        broker.restart().await;
        broker
    }

    /// Starts a broker that lets in one user only.
    pub(crate) async fn with_user(user: &str, password: &str) -> Self {
        let mut broker = Self::start().await;
        let file = broker.directory.path().join("users");
        let made = Command::new("mosquitto_passwd").args(["-b", "-c"]).arg(&file).args([user, password]).status();
        assert!(made.expect("mosquitto_passwd is installed").success());
        broker.users = format!("password_file {}", file.display());
        broker.restart().await;
        broker
    }

    /// Starts a broker that speaks TLS, with a certificate for `localhost` by an issuer of its own; `ask` asks clients for theirs.
    pub(crate) async fn with_tls(ask: bool) -> Self {
        let mut broker = Self::start().await;
        for (name, names) in [("server", "subjectAltName=DNS:localhost"), ("client", "subjectAltName=DNS:client")] {
            broker.certificate(name, names);
        }
        let at = |name: &str| broker.file(name);
        broker.tls = format!(
            "cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate {ask}\n",
            at("ca.pem"),
            at("server.pem"),
            at("server.key")
        );
        broker.restart().await;
        broker
    }

    /// A file in the directory of the broker.
    pub(crate) fn file(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn certificate(&self, name: &str, names: &str) {
        let run = |line: &str| {
            let mut made = Command::new("openssl");
            made.args(line.split(' ')).current_dir(self.directory.path()).stderr(Stdio::null());
            assert!(made.status().expect("openssl is installed").success(), "openssl {line}");
        };
        if !self.directory.path().join("ca.pem").exists() {
            run("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj /CN=plant -days 2");
        }
        std::fs::write(self.directory.path().join("names"), names).unwrap();
        run(&format!("req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}"));
        run(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out {name}.pem -extfile names -days 2"
        ));
    }

    /// Ends the broker at once, and starts it without anything that it knew.
    pub(crate) async fn forget(&mut self) {
        self.stop();
        std::fs::remove_file(self.directory.path().join("mosquitto.db")).ok();
        self.restart().await;
    }

    /// Ends the broker, which saves its sessions, and starts it again.
    pub(crate) async fn restart(&mut self) {
        self.stop();
        let store = self.directory.path();
        let configuration = format!(
            "listener {} 127.0.0.1\nallow_anonymous {}\n{}\n{}\npersistence true\npersistence_location {}/\nmax_queued_messages 100000\nuser root\n",
            self.port,
            self.users.is_empty(),
            self.users,
            self.tls,
            store.display()
        );
        let file = store.join("mosquitto.conf");
        std::fs::write(&file, configuration).unwrap();
        let child = Command::new("mosquitto").arg("-c").arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.child = Some(child.expect("mosquitto is installed"));
        let port = self.port;
        until("mosquitto to listen", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()).await;
    }

    /// Ends the broker.
    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(Command::new("kill").arg(child.id().to_string()).status());
            child.wait().unwrap();
        }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.stop();
    }
}
