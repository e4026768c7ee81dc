//! Bounded logs that commands show: `get event log`, `get error log`, `get echo queue`.

use std::collections::VecDeque;

use jiff::Timestamp;
use parking_lot::Mutex;

/// Entries that a log keeps unless it is given another bound.
pub const DEFAULT_ENTRIES: usize = 1000;

/// One entry. Equal messages in a row are one entry with a count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Number of the entry since the start.
    pub id: u64,
    /// How often it came in a row.
    pub count: u64,
    /// When it came last.
    pub time: Timestamp,
    /// The thread or surface that caused it.
    pub thread: String,
    /// A short class, such as the status text.
    pub kind: String,
    /// The message.
    pub text: String,
}

#[derive(Debug)]
struct Entries {
    enabled: bool,
    limit: usize,
    next: u64,
    messages: VecDeque<Message>,
}

/// A log with a bound; the oldest entry leaves when a new one does not fit.
#[derive(Debug)]
pub struct MessageLog(Mutex<Entries>);

impl Default for MessageLog {
    fn default() -> Self {
        Self(Mutex::new(Entries { enabled: true, limit: DEFAULT_ENTRIES, next: 1, messages: VecDeque::new() }))
    }
}

impl MessageLog {
    /// A log that keeps nothing until it is enabled.
    #[must_use]
    pub fn disabled() -> Self {
        let log = Self::default();
        log.0.lock().enabled = false;
        log
    }

    /// Whether it keeps entries.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.0.lock().enabled
    }

    /// Starts or stops keeping entries.
    pub fn set_enabled(&self, enabled: bool) {
        self.0.lock().enabled = enabled;
    }

    /// Changes how many entries are kept.
    pub fn set_limit(&self, limit: usize) {
        let mut entries = self.0.lock();
        entries.limit = limit.max(1);
        while entries.messages.len() > entries.limit {
            entries.messages.pop_front();
        }
    }

    /// Adds an entry, or counts up the last one when it is the same.
    pub fn add(&self, time: Timestamp, thread: &str, kind: &str, text: impl Into<String>) {
        let text = text.into();
        let mut entries = self.0.lock();
        if !entries.enabled {
            return;
        }
        if let Some(last) = entries.messages.back_mut()
            && last.text == text
            && last.kind == kind
            && last.thread == thread
        {
            last.count += 1;
            last.time = time;
            return;
        }
        let id = entries.next;
        entries.next += 1;
        if entries.messages.len() >= entries.limit {
            entries.messages.pop_front();
        }
        entries.messages.push_back(Message {
            id,
            count: 1,
            time,
            thread: thread.to_owned(),
            kind: kind.to_owned(),
            text,
        });
    }

    /// All entries, oldest first.
    #[must_use]
    pub fn messages(&self) -> Vec<Message> {
        self.0.lock().messages.iter().cloned().collect()
    }

    /// Removes all entries.
    pub fn clear(&self) {
        self.0.lock().messages.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn equal_messages_in_a_row_are_one_entry() {
        let log = MessageLog::default();
        log.add(at(1), "main", "Error", "full");
        log.add(at(2), "main", "Error", "full");
        log.add(at(3), "rest", "Error", "full");
        log.add(at(4), "main", "Error", "full");
        let messages = log.messages();
        assert_eq!(
            messages.iter().map(|message| (message.id, message.count)).collect::<Vec<_>>(),
            [(1, 2), (2, 1), (3, 1)]
        );
        assert_eq!(messages[0].time, at(2));
    }

    #[test]
    fn the_oldest_leave() {
        let log = MessageLog::default();
        for number in 0..DEFAULT_ENTRIES + 10 {
            log.add(at(0), "main", "Error", number.to_string());
        }
        assert_eq!(log.messages().len(), DEFAULT_ENTRIES);
        assert_eq!(log.messages()[0].text, "10");
        log.set_limit(3);
        assert_eq!(log.messages().len(), 3);
        log.add(at(0), "main", "Error", "last");
        assert_eq!(log.messages().len(), 3);
        log.clear();
        assert!(log.messages().is_empty());
    }

    #[test]
    fn a_log_that_is_off_keeps_nothing() {
        let log = MessageLog::disabled();
        log.add(at(0), "main", "Error", "lost");
        assert!(log.messages().is_empty() && !log.is_enabled());
        log.set_enabled(true);
        log.add(at(0), "main", "Error", "kept");
        assert_eq!(log.messages().len(), 1);
    }
}
