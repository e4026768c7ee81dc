//! The recorder: every row that was sent, and what its sender was told.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;

/// How a message was sent, which decides how often its rows may be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Way {
    /// MQTT, at least once.
    Qos1,
    /// MQTT, exactly once.
    Qos2,
    /// `PUT` as a stream: each request is a message of its own.
    Put,
    /// `PUT` as a file: known again by its content.
    PutFile,
    /// A file in the watch directory.
    Watch,
}

/// A message: rows with numbers that follow each other.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) way: Way,
    pub(crate) table: String,
    pub(crate) first: u64,
    pub(crate) rows: u64,
    pub(crate) round: u64,
    /// How often it was sent, or might have been.
    pub(crate) sends: u32,
    pub(crate) acknowledged: bool,
}

impl Message {
    /// How often each of its rows may be stored.
    fn most(&self) -> u32 {
        match self.way {
            Way::Qos2 | Way::PutFile | Way::Watch => 1,
            Way::Qos1 | Way::Put => self.sends,
        }
    }
}

#[derive(Debug, Default)]
struct Contents {
    messages: Vec<Message>,
    next_row: u64,
}

/// All messages of a home.
#[derive(Debug, Clone, Default)]
pub(crate) struct Record(Arc<Mutex<Contents>>);

/// What was found wrong.
pub(crate) type Faults = Vec<String>;

/// Fails when there are faults, with the first of them.
pub(crate) fn none(faults: Faults, when: &str) {
    let shown: Vec<&String> = faults.iter().take(8).collect();
    assert!(faults.is_empty(), "{when}: {} faults: {shown:#?}", faults.len());
}

impl Record {
    /// Notes a message before it is sent; returns its number and the number of its first row.
    pub(crate) fn begin(&self, way: Way, table: &str, rows: u64, round: u64) -> (usize, u64) {
        let mut contents = self.0.lock();
        let first = contents.next_row;
        contents.next_row += rows;
        let message = Message { way, table: table.to_owned(), first, rows, round, sends: 1, acknowledged: false };
        contents.messages.push(message);
        (contents.messages.len() - 1, first)
    }

    /// It is sent once more.
    pub(crate) fn again(&self, message: usize) {
        self.0.lock().messages[message].sends += 1;
    }

    /// Its sender was told that it is stored.
    pub(crate) fn acknowledge(&self, message: usize) {
        self.0.lock().messages[message].acknowledged = true;
    }

    pub(crate) fn message(&self, message: usize) -> Message {
        self.0.lock().messages[message].clone()
    }

    /// Messages of a round and later ones, by table.
    pub(crate) fn since(&self, round: u64) -> BTreeMap<String, Vec<Message>> {
        let mut tables: BTreeMap<String, Vec<Message>> = BTreeMap::new();
        for message in self.0.lock().messages.iter().filter(|message| message.round >= round) {
            tables.entry(message.table.clone()).or_default().push(message.clone());
        }
        tables
    }

    /// Messages, rows, acknowledged rows.
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        let contents = self.0.lock();
        let acknowledged = contents.messages.iter().filter(|message| message.acknowledged).map(|message| message.rows);
        (contents.messages.len() as u64, contents.next_row, acknowledged.sum())
    }

    /// Rows acknowledged for each way.
    pub(crate) fn by_way(&self) -> BTreeMap<Way, u64> {
        let mut counts = BTreeMap::new();
        for message in self.0.lock().messages.iter().filter(|message| message.acknowledged) {
            *counts.entry(message.way).or_default() += message.rows;
        }
        counts
    }
}

/// Compares what was sent to a table with what is stored there. `stored` says how often each row is there.
pub(crate) fn compare(table: &str, sent: &[Message], mut stored: HashMap<u64, u32>, faults: &mut Faults) {
    for message in sent {
        let counts: Vec<u32> =
            (message.first..message.first + message.rows).map(|n| stored.remove(&n).unwrap_or(0)).collect();
        let (least, most) = (counts.iter().min().copied().unwrap_or(0), counts.iter().max().copied().unwrap_or(0));
        if message.acknowledged && least == 0 {
            let lost: Vec<u64> =
                (message.first..).zip(&counts).filter(|(_, count)| **count == 0).map(|(n, _)| n).collect();
            faults.push(format!("{table}: acknowledged rows lost: {lost:?} of {message:?}"));
        }
        if most > message.most() {
            faults.push(format!("{table}: rows {most} times, at most {} is explained: {message:?}", message.most()));
        }
        if least != most {
            faults.push(format!("{table}: half a message: {counts:?} of {message:?}"));
        }
    }
    if !stored.is_empty() {
        let mut strange: Vec<_> = stored.into_iter().collect();
        strange.sort_unstable();
        strange.truncate(10);
        faults.push(format!("{table}: rows that nobody sent: {strange:?}"));
    }
}
