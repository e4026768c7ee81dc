//! The recorder: every row that was sent, to whom, and what its sender was told.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::network::{Table, table};

/// How a message was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// MQTT, at least once: sent again until it is acknowledged.
    Qos1,
    /// `PUT` as a stream: sent once.
    Put,
}

/// What a sender was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Acknowledged {
    phase: u64,
    /// How often the node had lost its disk when the message was sent.
    losses: u32,
}

/// A message: rows with numbers that follow each other.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    way: Way,
    table: Table,
    node: usize,
    first: u64,
    rows: u64,
    phase: u64,
    /// How often it was sent, or might have been.
    sends: u32,
    acknowledged: Option<Acknowledged>,
}

/// A disk that was lost.
#[derive(Debug, Clone, Copy)]
struct Loss {
    node: usize,
    phase: u64,
    /// How often the node has lost its disk, with this time.
    losses: u32,
}

#[derive(Debug, Default)]
struct Contents {
    messages: Vec<Message>,
    next_row: u64,
    phase: u64,
    losses: Vec<Loss>,
}

impl Contents {
    fn losses(&self, node: usize) -> u32 {
        u32::try_from(self.losses.iter().filter(|loss| loss.node == node).count()).unwrap()
    }

    /// Whether a row that one member had acknowledged may be gone: that member lost its disk before all were equal again.
    fn may_be_lost(&self, message: &Message) -> bool {
        let lost = |told: Acknowledged| {
            let mut losses = self.losses.iter().filter(|loss| loss.node == message.node);
            losses.any(|loss| loss.phase == told.phase && loss.losses > told.losses)
        };
        message.table.copies == 1 && message.acknowledged.is_some_and(lost)
    }
}

/// All messages of a cluster's life, which has phases: at the end of each all members are equal.
#[derive(Debug, Clone, Default)]
pub(crate) struct Record(Arc<Mutex<Contents>>);

/// What was found wrong.
pub(crate) type Faults = Vec<String>;

/// How much was sent.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) messages: usize,
    pub(crate) rows: u64,
    /// Rows that were acknowledged, in all and as copied.
    pub(crate) acknowledged: u64,
    pub(crate) copied: u64,
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { messages, rows, acknowledged, copied } = self;
        write!(f, "{rows} rows in {messages} messages, {acknowledged} acknowledged, {copied} of them by two members")
    }
}

impl Record {
    /// Notes a message before it is sent; returns its number and that of its first row.
    pub(crate) fn begin(&self, way: Way, table: Table, node: usize, rows: u64) -> (usize, u64) {
        let mut contents = self.0.lock();
        let (first, phase) = (contents.next_row, contents.phase);
        contents.next_row += rows;
        contents.messages.push(Message { way, table, node, first, rows, phase, sends: 1, acknowledged: None });
        (contents.messages.len() - 1, first)
    }

    /// It is sent once more.
    pub(crate) fn again(&self, message: usize) {
        self.0.lock().messages[message].sends += 1;
    }

    /// Its sender was told that it is stored; the node had lost its disk so often when it was sent.
    pub(crate) fn acknowledge(&self, message: usize, losses: u32) {
        let mut contents = self.0.lock();
        let phase = contents.phase;
        contents.messages[message].acknowledged = Some(Acknowledged { phase, losses });
    }

    pub(crate) fn table_of(&self, message: usize) -> Table {
        self.0.lock().messages[message].table
    }

    /// All members are equal; another phase begins. Returns its number.
    pub(crate) fn next_phase(&self) -> u64 {
        let mut contents = self.0.lock();
        contents.phase += 1;
        contents.phase
    }

    pub(crate) fn phase(&self) -> u64 {
        self.0.lock().phase
    }

    /// A node loses its disk now.
    pub(crate) fn loses(&self, node: usize) {
        let mut contents = self.0.lock();
        let (phase, losses) = (contents.phase, contents.losses(node) + 1);
        contents.losses.push(Loss { node, phase, losses });
    }

    /// How often a node has lost its disk.
    pub(crate) fn losses(&self, node: usize) -> u32 {
        self.0.lock().losses(node)
    }

    pub(crate) fn counts(&self) -> Counts {
        let contents = self.0.lock();
        let told = || contents.messages.iter().filter(|message| message.acknowledged.is_some());
        Counts {
            messages: contents.messages.len(),
            rows: contents.next_row,
            acknowledged: told().map(|message| message.rows).sum(),
            copied: told().filter(|message| message.table.copies > 1).map(|message| message.rows).sum(),
        }
    }

    /// Rows of a table that were acknowledged.
    pub(crate) fn acknowledged(&self, name: &str) -> Vec<u64> {
        let contents = self.0.lock();
        let told = contents.messages.iter().filter(|message| message.acknowledged.is_some());
        told.filter(|message| message.table == table(name))
            .flat_map(|message| message.first..message.first + message.rows)
            .collect()
    }

    /// Compares what was sent to a table from a phase on with how often each row is stored.
    pub(crate) fn compare(&self, table: Table, since: u64, mut stored: HashMap<u64, u32>) -> Faults {
        let contents = self.0.lock();
        let mut faults = Faults::new();
        let sent = contents.messages.iter().filter(|message| message.table == table && message.phase >= since);
        for message in sent {
            let numbers = message.first..message.first + message.rows;
            let counts: Vec<u32> = numbers.map(|n| stored.remove(&n).unwrap_or(0)).collect();
            faults.extend(contents.judge(message, &counts));
        }
        if !stored.is_empty() {
            let mut strange: Vec<_> = stored.into_iter().collect();
            strange.sort_unstable();
            strange.truncate(10);
            faults.push(format!("{}: rows that nobody sent: {strange:?}", table.name));
        }
        faults
    }
}

impl Contents {
    fn judge(&self, message: &Message, counts: &[u32]) -> Faults {
        let mut faults = Faults::new();
        let table = message.table.name;
        let (least, most) = (counts.iter().min().copied().unwrap_or(0), counts.iter().max().copied().unwrap_or(0));
        let told = message.acknowledged.is_some();
        if told && least == 0 && !self.may_be_lost(message) {
            faults.push(format!("{table}: acknowledged rows lost: {counts:?} of {message:?}"));
        }
        let explained = if message.way == Way::Put { 1 } else { message.sends };
        if most > explained {
            faults.push(format!("{table}: rows {most} times, at most {explained} is explained: {message:?}"));
        }
        // What of a message without an acknowledgement reached a mate before the disk was lost may be a part of it.
        if least != most && (told || self.losses(message.node) == 0) {
            faults.push(format!("{table}: half a message: {counts:?} of {message:?}"));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(counts: &[(u64, u32)]) -> HashMap<u64, u32> {
        counts.iter().copied().collect()
    }

    #[test]
    fn only_what_was_on_a_lost_disk_alone_may_be_gone() {
        let (kept, plain) = (table("kept"), table("plain"));
        let record = Record::default();
        for table in [kept, plain] {
            let (message, _) = record.begin(Way::Put, table, 1, 2);
            record.acknowledge(message, 0);
        }
        assert_eq!(record.compare(kept, 0, stored(&[(0, 1), (1, 1)])), Faults::new());
        assert_eq!(record.compare(plain, 0, stored(&[])).len(), 1, "lost without a loss");
        assert_eq!(record.compare(kept, 0, stored(&[(0, 1), (1, 2)])).len(), 2, "twice, and only in part");
        assert_eq!(record.compare(kept, 0, stored(&[(0, 1), (1, 1), (7, 1)])).len(), 1, "a stranger");
        record.loses(1);
        assert_eq!(record.compare(plain, 0, stored(&[])), Faults::new());
        assert_eq!(record.compare(kept, 0, stored(&[])).len(), 1, "two members had it");
        // After all were equal a loss is no excuse for what was there before.
        record.next_phase();
        let (message, _) = record.begin(Way::Put, plain, 1, 1);
        record.acknowledge(message, record.losses(1));
        assert_eq!(record.compare(plain, 1, stored(&[])).len(), 1);
        record.loses(1);
        assert_eq!(record.compare(plain, 1, stored(&[])), Faults::new());
        let (message, _) = record.begin(Way::Put, plain, 1, 1);
        record.acknowledge(message, record.losses(1));
        assert_eq!(record.compare(plain, 1, stored(&[])).len(), 1, "it came after the loss");
    }

    #[test]
    fn rows_are_as_often_there_as_they_were_sent() {
        let plain = table("plain");
        let record = Record::default();
        let (message, _) = record.begin(Way::Qos1, plain, 0, 1);
        assert_eq!(record.compare(plain, 0, stored(&[])), Faults::new());
        assert_eq!(record.compare(plain, 0, stored(&[(0, 2)])).len(), 1);
        record.again(message);
        assert_eq!(record.compare(plain, 0, stored(&[(0, 2)])), Faults::new());
    }
}
