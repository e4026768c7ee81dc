//! What is handed to a store: rows, what they came of, and files.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

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
