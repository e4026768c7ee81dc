//! Where rows go: the seam between ingestion and storage.
//!
//! Every road into a node - its own broker, a client of another broker, REST - ends at [`RowSink::append`]. What comes back is
//! a [`Receipt`], and an acknowledgement to the sender (PUBACK, PUBREC, 200) needs one. Only a store can make a receipt: the
//! [`Issuer`] that it takes is handed out in one place, when the store is mounted ([`SinkSlot::mount`]).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use anylog_core::{CommandError, Status};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::RwLock;

/// How often a store that cannot say yet where the rows of stored packets are is asked again.
const CONFIRM_PERIOD: Duration = Duration::from_secs(1);

/// Rows for one table, each a JSON object on one line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TableRows {
    /// Logical database, normalised.
    pub dbms: String,
    /// Table, normalised.
    pub table: String,
    /// Data source id; `0` when there is none.
    pub source: String,
    /// Id of the mapping policy that made the rows; `0` when there is none.
    pub instructions: String,
    /// Types that a mapping declares, by normalised column name, in column order. They win over types inferred from data.
    pub declared: Vec<(String, String)>,
    /// The rows. Each is a JSON object without line ends.
    pub rows: Vec<String>,
    /// Where the rows of each request or message begin when those of several are here, so that a row is counted in its own: in
    /// rising order, by row. Empty when all rows are of one.
    pub starts: Vec<usize>,
}

/// The rows of one message or request, or of messages that came together: stored together or not at all, save rows that are
/// refused one by one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RowGroup {
    /// Rows by table.
    pub parts: Vec<TableRows>,
    /// Where they came from, for the quarantine: `mqtt topic a/b`, `rest 10.0.0.7`.
    pub origin: String,
    /// Whether the sender waits as long as storing takes once the rows are on stable storage, instead of being told after a
    /// while that it failed: a message client, which would send the same rows again.
    pub patient: bool,
    /// The QoS 2 packets that the rows came in. They are stored in one piece with the rows: both are there after a crash, or
    /// neither. A group may hold the rows of many messages, and of messages that gave no rows.
    pub deliveries: Vec<Delivery>,
    /// The messages that the rows were mapped from, for rows that go to the quarantine: they can be mapped again by a better
    /// mapping. Empty when the rows came as they are.
    pub messages: Vec<MessageRows>,
    /// What comes behind these rows.
    pub behind: Behind,
}

/// How many senders wait with rows that will be stored behind those of a group, in the same tables. A store that knows of them need
/// not end its work after each group.
#[derive(Debug, Clone, Default)]
pub struct Behind(Arc<AtomicUsize>);

impl Behind {
    /// So many wait.
    pub fn set(&self, senders: usize) {
        self.0.store(senders, Ordering::Release);
    }

    /// Whether somebody waits.
    #[must_use]
    pub fn are_some(&self) -> bool {
        self.0.load(Ordering::Acquire) > 0
    }
}

/// What waits is no part of what a group is.
impl PartialEq for Behind {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Behind {}

/// A message as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The broker that it came from, as its client names it: `local`, `rest`, `host:port`; `policy` for rows that came with the
    /// id of a mapping policy.
    pub broker: Arc<str>,
    /// The subscribed topic that it was mapped by; the id of a mapping policy.
    pub filter: Arc<str>,
    /// The topic.
    pub topic: Arc<str>,
    /// Its bytes, or those of one element when it is a list.
    pub payload: Bytes,
}

/// The rows of one part of a group that came of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageRows {
    /// Which part of the group, from 0.
    pub part: usize,
    /// Its first row in the part, from 0.
    pub first: usize,
    /// How many rows.
    pub count: usize,
    /// The message.
    pub message: Arc<Message>,
}

/// A message, or an element of one, that gives no rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmapped {
    /// The message.
    pub message: Arc<Message>,
    /// Where it came from: `mqtt topic a/b`, `rest 10.0.0.7`.
    pub origin: String,
    /// Which element of the message, from 0.
    pub position: usize,
    /// What kind of failure it is, in one word: `not_json`, `mapping`, `table`.
    pub kind: &'static str,
    /// The column that could not be made; empty when it is not about one.
    pub column: String,
    /// Why.
    pub reason: String,
}

/// Maps messages as their topics are mapped now.
pub trait Remap: Send + Sync {
    /// The rows of a message that was set aside.
    ///
    /// # Errors
    /// Why it still gives none.
    fn remap(&self, message: &Message) -> Result<RowGroup, Unmapped>;
}

/// A QoS 2 packet of a client whose session outlives its connection. From PUBLISH to PUBREL its id means this one message, and
/// the message is stored once however often it is sent (MQTT-4.3.3-2).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Delivery {
    /// The session: the client identifier, with something that tells the session from earlier ones of the same client.
    pub client: Arc<str>,
    /// The packet id.
    pub packet: u16,
}

/// A row that was not stored but put into the quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RefusedRow {
    /// Which part of the group, from 0.
    pub part: usize,
    /// Which row of the part, from 0.
    pub row: usize,
    /// Why.
    pub reason: String,
    /// What kind of failure it is, in one word: `type`, `time_window`, `partition_limit`.
    pub kind: &'static str,
    /// The column that the reason is about; empty when it is not about one.
    pub column: String,
    /// What the column takes; empty when it is not about a column.
    pub expected: String,
    /// What the row holds, shortened; empty when it is not about a column.
    pub actual: String,
}

/// A file of rows that arrives whole. Deduplicated by content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Logical database, normalised.
    pub dbms: String,
    /// Table, normalised.
    pub table: String,
    /// Data source id; `0` when there is none.
    pub source: String,
    /// Id of a mapping policy; `0` when there is none.
    pub instructions: String,
    /// The rows, each a JSON object without line ends.
    pub rows: Vec<String>,
    /// Where it came from.
    pub origin: String,
}

/// The right to make receipts. A store gets it when it is mounted.
#[derive(Debug, Clone)]
pub struct Issuer(());

/// Proof that rows are on stable storage. An acknowledgement needs one, and only a store can make one.
#[derive(Debug)]
#[must_use = "a receipt allows an acknowledgement to the sender"]
pub struct Receipt {
    stored: usize,
    refused: Vec<RefusedRow>,
}

impl Receipt {
    /// A receipt for rows that are on stable storage now.
    pub fn issue(_: &Issuer, stored: usize, refused: Vec<RefusedRow>) -> Self {
        Self { stored, refused }
    }

    /// One receipt for the rows of two. Parts and rows of the refused ones are counted as in their own groups.
    pub fn and(mut self, other: Receipt) -> Self {
        self.stored += other.stored;
        self.refused.extend(other.refused);
        self.refused.sort_by_key(|row| row.row);
        self
    }

    /// The same with refused rows numbered as their sender counts: `number` gets part and row of each.
    pub(crate) fn numbered(mut self, number: impl Fn(usize, usize) -> usize) -> Self {
        self.refused.iter_mut().for_each(|row| row.row = number(row.part, row.row));
        self
    }

    /// How many rows were stored.
    #[must_use]
    pub fn stored(&self) -> usize {
        self.stored
    }

    /// The rows that went to the quarantine.
    #[must_use]
    pub fn refused(&self) -> &[RefusedRow] {
        &self.refused
    }
}

/// Proof that a file is on stable storage and registered.
#[derive(Debug)]
pub struct FileReceipt {
    /// MD5 of `dbms.table` and the file's bytes, as registered in `tsd_info`.
    pub hash: String,
    /// The rows.
    pub receipt: Receipt,
}

/// Why rows were not taken. Nothing of the group was stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
    /// No operator runs on this node.
    #[error("no operator runs on this node, so data cannot be stored")]
    NotRunning,
    /// The database is not connected.
    #[error("database '{dbms}' is not connected")]
    UnknownDbms {
        /// The logical name.
        dbms: String,
    },
    /// The table is not there and may not be created, or is excluded.
    #[error("table '{dbms}.{table}': {reason}")]
    Table {
        /// The logical database.
        dbms: String,
        /// The table.
        table: String,
        /// Why.
        reason: String,
        /// The documented status.
        status: Status,
    },
    /// The same file came before.
    #[error("the file with hash {hash} was ingested before")]
    DuplicateFile {
        /// MD5 of `dbms.table` and the file's bytes.
        hash: String,
    },
    /// A queue is full; the same rows may be sent again.
    #[error("the node takes no more rows at the moment")]
    Overloaded,
    /// The quarantine holds as much as it may. What would go there is not taken: it is neither stored nor lost.
    #[error("the quarantine is full: {bytes} of {limit} bytes")]
    QuarantineFull {
        /// Bytes that it holds.
        bytes: u64,
        /// Bytes that it may hold.
        limit: u64,
    },
    /// Rows of a table are to be on several members of the cluster, and too few can be reached.
    #[error("table '{dbms}.{table}' needs its rows on {wanted} members, and {reachable} can be reached: {reason}")]
    TooFewCopies {
        /// The logical database.
        dbms: String,
        /// The table.
        table: String,
        /// How many members are to have them, this one included.
        wanted: u32,
        /// How many would get them, this one included.
        reachable: u32,
        /// What is the matter with the others, and whether this member has the rows.
        reason: String,
    },
    /// The disk is full.
    #[error("not enough space on disk to store rows")]
    DiskFull,
    /// The database does not answer; the same rows may be sent again.
    #[error("rows cannot be stored at the moment: {reason}")]
    Unavailable {
        /// Which database, where it is, and its words.
        reason: String,
    },
    /// Storing failed.
    #[error("storing failed: {reason}")]
    Failed {
        /// The cause.
        reason: String,
    },
}

impl SinkError {
    /// Whether the same rows may succeed later without anybody changing them.
    #[must_use]
    pub fn may_retry(&self) -> bool {
        match self {
            SinkError::NotRunning
            | SinkError::Overloaded
            | SinkError::QuarantineFull { .. }
            | SinkError::TooFewCopies { .. }
            | SinkError::DiskFull
            | SinkError::Unavailable { .. }
            | SinkError::Failed { .. } => true,
            SinkError::UnknownDbms { .. } | SinkError::Table { .. } | SinkError::DuplicateFile { .. } => false,
        }
    }
}

impl From<SinkError> for CommandError {
    fn from(error: SinkError) -> Self {
        let (status, hint) = match &error {
            SinkError::NotRunning => {
                (Status::OPERATOR_NOT_RUNNING, Some("start one with: run operator where policy=<id>".into()))
            }
            SinkError::UnknownDbms { dbms } => {
                (Status::DBMS_NOT_CONNECTED, Some(format!("connect it with: connect dbms {dbms} where type=sqlite")))
            }
            SinkError::Table { status, .. } => (*status, None),
            SinkError::DuplicateFile { .. } => (Status::DUPLICATE_FILE, None),
            SinkError::Overloaded => (Status::OVERLOADED, Some("send the same rows again later".into())),
            SinkError::QuarantineFull { .. } => (
                Status::OVERLOADED,
                Some(
                    "look with: get quarantine; empty it with: retry quarantine, or: delete quarantine; or give it room with: \
                     set quarantine where limit = 1GB"
                        .into(),
                ),
            ),
            SinkError::TooFewCopies { .. } => (
                Status::OVERLOADED,
                Some(
                    "look with: get distributor, get tsd sync status; start the other members, or ask for less with: \
                     set buffer threshold where ack = local"
                        .into(),
                ),
            ),
            SinkError::DiskFull => (Status::DISK_FULL, Some("free space, or drop old partitions".into())),
            SinkError::Unavailable { .. } => (
                Status::DBMS_UNAVAILABLE,
                Some("send the same rows again later; see since when and why with: get databases".into()),
            ),
            SinkError::Failed { .. } => (Status::PROCESS_FAILURE, None),
        };
        let text = error.to_string();
        CommandError { status, message: text, hint }
    }
}

/// A store of rows.
#[async_trait]
pub trait RowSink: Send + Sync {
    /// Stores the rows of one message. Returns when they are on stable storage; in immediate mode, when they can be
    /// queried as well.
    async fn append(&self, group: RowGroup) -> Result<Receipt, SinkError>;

    /// Puts a message aside that gives no rows, so that it can be acknowledged: nobody will send a better one. Returns when it is
    /// on stable storage.
    async fn set_aside(&self, unmapped: Unmapped) -> Result<Receipt, SinkError>;

    /// Stores a file. Returns when it is on stable storage and registered by its hash.
    async fn store_file(&self, file: SourceFile) -> Result<FileReceipt, SinkError>;

    /// Whether a QoS 2 packet was stored, by this run or one before, and not released. A store that keeps no deliveries knows
    /// none: then exactly once ends with the process.
    fn holds(&self, _delivery: &Delivery) -> bool {
        false
    }

    /// Returns when the rows of packets that it holds are wherever an acknowledgement says that they are: on other members of the
    /// cluster they may not be yet. Packets that it does not hold need nothing.
    ///
    /// # Errors
    /// Those of [`Self::append`]; the same may be asked again.
    async fn confirm(&self, _deliveries: &[Delivery]) -> Result<(), SinkError> {
        Ok(())
    }

    /// All QoS 2 packets that were stored and not released, by client and packet id.
    fn deliveries(&self) -> Vec<Delivery> {
        Vec::new()
    }

    /// The client released these packets: their ids mean other messages from now on. Returns when that is on stable storage.
    async fn release(&self, _deliveries: Vec<Delivery>) -> Result<(), SinkError> {
        Ok(())
    }

    /// The session of a client ended, and its packet ids with it. Returns when that is on stable storage.
    async fn forget(&self, _client: &str) -> Result<(), SinkError> {
        Ok(())
    }
}

/// The place where a node's store is mounted. Sources hold the slot and see a store come and go.
#[derive(Default)]
pub struct SinkSlot {
    sink: RwLock<Option<Arc<dyn RowSink>>>,
    mapping: RwLock<Option<Weak<dyn Remap>>>,
    changed: tokio::sync::Notify,
}

impl SinkSlot {
    /// A slot without a store.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Mounts a store; `build` gets the right to make receipts.
    pub fn mount<S: RowSink + 'static>(&self, build: impl FnOnce(Issuer) -> Arc<S>) -> Arc<S> {
        let sink = build(Issuer(()));
        *self.sink.write() = Some(Arc::clone(&sink) as Arc<dyn RowSink>);
        self.changed.notify_waiters();
        sink
    }

    /// Takes the store away; rows are refused with [`SinkError::NotRunning`] from now on.
    pub fn unmount(&self) {
        *self.sink.write() = None;
        self.changed.notify_waiters();
    }

    /// The store, when one is mounted.
    #[must_use]
    pub fn get(&self) -> Option<Arc<dyn RowSink>> {
        self.sink.read().clone()
    }

    /// Waits until a store is mounted.
    pub async fn mounted(&self) -> Arc<dyn RowSink> {
        loop {
            let changed = self.changed.notified();
            if let Some(sink) = self.get() {
                return sink;
            }
            changed.await;
        }
    }

    /// Which of these QoS 2 packets are not to be stored, because the store holds them. Returns when there is a store, and when those
    /// that it holds may be acknowledged.
    pub async fn held(&self, deliveries: &[Delivery]) -> Vec<bool> {
        loop {
            let sink = self.mounted().await;
            let held: Vec<bool> = deliveries.iter().map(|delivery| sink.holds(delivery)).collect();
            let known = deliveries.iter().zip(&held).filter(|(_, held)| **held);
            let known: Vec<Delivery> = known.map(|(delivery, _)| delivery.clone()).collect();
            if known.is_empty() {
                return held;
            }
            match sink.confirm(&known).await {
                Ok(()) => return held,
                Err(error) => {
                    tracing::warn!(%error, "Stored packets that came again are not acknowledged yet");
                    tokio::time::sleep(CONFIRM_PERIOD).await;
                }
            }
        }
    }

    /// Says who maps messages, for a store that tries them again.
    pub fn set_mapping(&self, mapping: Weak<dyn Remap>) {
        *self.mapping.write() = Some(mapping);
    }

    /// Who maps messages.
    #[must_use]
    pub fn mapping(&self) -> Option<Arc<dyn Remap>> {
        self.mapping.read().as_ref()?.upgrade()
    }

    /// Puts a message aside, or says that no store is mounted.
    pub async fn set_aside(&self, unmapped: Unmapped) -> Result<Receipt, SinkError> {
        match self.get() {
            Some(sink) => sink.set_aside(unmapped).await,
            None => Err(SinkError::NotRunning),
        }
    }

    /// Stores rows, or says that no store is mounted.
    pub async fn append(&self, group: RowGroup) -> Result<Receipt, SinkError> {
        match self.get() {
            Some(sink) => sink.append(group).await,
            None => Err(SinkError::NotRunning),
        }
    }

    /// Stores a file, or says that no store is mounted.
    pub async fn store_file(&self, file: SourceFile) -> Result<FileReceipt, SinkError> {
        match self.get() {
            Some(sink) => sink.store_file(file).await,
            None => Err(SinkError::NotRunning),
        }
    }
}

impl std::fmt::Debug for SinkSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SinkSlot").field("mounted", &self.get().is_some()).finish()
    }
}
