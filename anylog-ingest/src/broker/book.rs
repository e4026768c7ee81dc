//! What the broker keeps over restarts: sessions, what waits for them, retained messages.
//!
//! # What is durable when
//!
//! * A message that waits for a session which outlives its connection, or that is retained, is on stable storage before its PUBACK or
//!   PUBREC; with the packet id of a QoS 2 publish, so that it is passed on once. The same sync serves all that wait.
//! * A subscription of such a session is there before its SUBACK, the session itself before its CONNACK.
//! * PUBREL to a subscriber goes when it is on stable storage that the subscriber has the message; PUBCOMP to a publisher, when it is
//!   that the packet id is free. So neither side of QoS 2 sees a message twice because the broker was killed.
//! * That a subscriber acknowledged, and that a client went away, is written without waiting: after a crash a message of QoS 1 may be
//!   sent again.
//!
//! # Form
//!
//! A file per generation ([`files`]): a copy of the whole state ([`state`]), then a frame per change ([`record`]). When the changes outweigh
//! the copy, the next generation begins. One thread writes; it takes all changes that wait, writes them with one call, syncs once
//! and tells each sender, in order. After a write that failed the file is left: the next one begins a new generation.

mod files;
pub(crate) mod record;
pub(crate) mod state;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

pub(crate) use files::Damage;
use files::Generation;
pub(crate) use record::Record;
use record::put_frame;
use state::State;

use crate::frames::Line;

/// Changes that may outweigh the copy at the beginning of a file before the next one begins.
const LEAST_CHANGES: u64 = 8 << 20;

/// Bytes that one write takes about.
const WRITE_BYTES: usize = 4 << 20;

/// How long a disk that failed is left alone.
const FAILURE_PAUSE: Duration = Duration::from_millis(250);

/// What the key of a session begins with. No other name that packets are stored under holds this character.
const KEY_MARK: char = '\0';

/// The length of what stands before the client identifier.
const KEY_HEAD: usize = 17;

/// Names one session of a client: the client identifier behind a mark and 16 digits that no other session has.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key(Arc<str>);

impl Key {
    /// The key of a new session.
    pub(crate) fn new(client: &str) -> Self {
        use std::hash::{BuildHasher, Hasher};
        // Its seeds come from the system's source of randomness, and differ from call to call.
        let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
        Self(format!("{KEY_MARK}{random:016x}{client}").into())
    }

    /// The key as it was written; none when it cannot be one.
    pub(crate) fn read(text: &Arc<str>) -> Option<Self> {
        let digits = text.get(..KEY_HEAD)?.strip_prefix(KEY_MARK)?;
        digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| Self(Arc::clone(text)))
    }

    /// The client identifier.
    pub(crate) fn client(&self) -> &str {
        &self.0[KEY_HEAD..]
    }

    /// The key as it is written.
    pub(crate) fn text(&self) -> &Arc<str> {
        &self.0
    }
}

/// Why a change is not on stable storage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BookError {
    #[error("the broker cannot write to '{directory}': {reason}")]
    Io { directory: PathBuf, reason: String },
    #[error("the broker has ended")]
    Closed,
}

type Done = Box<dyn FnOnce(Result<(), BookError>) + Send>;

struct Item {
    records: Vec<Record>,
    /// Told when the records are on stable storage. Without it nobody waits, and they may get lost.
    done: Option<Done>,
}

struct Shared {
    directory: PathBuf,
    waiting: Line<Item>,
    bytes: AtomicU64,
    syncs: AtomicU64,
}

/// The book, open for changes.
pub(crate) struct Book {
    shared: Arc<Shared>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl std::fmt::Debug for Book {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Book").field("directory", &self.shared.directory).field("bytes", &self.bytes()).finish()
    }
}

impl Book {
    /// Opens the book in a directory, and says what it holds. `report` is told of damage. Blocks.
    pub(crate) fn open(directory: &Path, mut report: impl FnMut(&Damage)) -> io::Result<(Self, State)> {
        let found = files::read(directory)?;
        found.damages.iter().for_each(&mut report);
        let shared = Arc::new(Shared {
            directory: directory.to_owned(),
            waiting: Line::default(),
            bytes: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
        });
        let mut writer = Writer {
            shared: Arc::clone(&shared),
            state: found.state.clone(),
            generation: None,
            next: found.newest + 1,
            failed: None,
            buffer: Vec::new(),
        };
        if !found.damages.is_empty() || found.newest == 0 {
            // Damage is reported once. A disk that is full now may have room later.
            if let Err(error) = writer.begin() {
                tracing::error!(directory = %directory.display(), %error, "What the broker keeps cannot be written at the moment");
            }
        }
        let thread = std::thread::Builder::new().name("broker-book".into()).spawn(move || writer.run())?;
        Ok((Self { shared, thread: Mutex::new(Some(thread)) }, found.state))
    }

    /// Hands changes over; `done` is called on the writing thread when they are on stable storage, or will never be. All calls
    /// come in the order of the changes.
    pub(crate) fn submit(&self, records: Vec<Record>, done: impl FnOnce(Result<(), BookError>) + Send + 'static) {
        self.push(Item { records, done: Some(Box::new(done)) });
    }

    /// Writes changes that must not be waited for. After a crash they may be missing.
    pub(crate) fn note(&self, record: Record) {
        self.push(Item { records: vec![record], done: None });
    }

    /// Writes changes. Returns when they are on stable storage.
    pub(crate) async fn write(&self, records: Vec<Record>) -> Result<(), BookError> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        // A waiter that went away does not mind.
        self.submit(records, move |result| drop(sender.send(result)));
        receiver.await.unwrap_or(Err(BookError::Closed))
    }

    fn push(&self, item: Item) {
        if let Err(item) = self.shared.waiting.push(item) {
            item.done.into_iter().for_each(|done| done(Err(BookError::Closed)));
        }
    }

    /// Bytes in its file.
    pub(crate) fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// Syncs since the start.
    pub(crate) fn syncs(&self) -> u64 {
        self.shared.syncs.load(Ordering::Relaxed)
    }

    /// Writes what waits, and ends. Blocks.
    pub(crate) fn close(&self) {
        self.shared.waiting.close();
        if let Some(thread) = self.thread.lock().take()
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("The thread that writes what the broker keeps ended with a panic");
        }
    }
}

impl Drop for Book {
    fn drop(&mut self) {
        self.shared.waiting.close();
    }
}

struct Writer {
    shared: Arc<Shared>,
    /// The sum of all changes: what a new generation begins with. Messages are shared with the sessions.
    state: State,
    generation: Option<Generation>,
    next: u32,
    failed: Option<(Instant, String)>,
    buffer: Vec<u8>,
}

impl Writer {
    fn run(mut self) {
        while let Some(group) = self.gather() {
            let written = self.write(&group);
            if let Err(error) = &written {
                tracing::error!(%error, "Messages stay unacknowledged because what the broker keeps cannot be written");
            }
            for item in group {
                // What nobody waits for has happened; the next generation holds it.
                if written.is_ok() || item.done.is_none() {
                    self.state.apply(&item.records);
                }
                item.done.into_iter().for_each(|done| done(written.clone()));
            }
            self.turn_over();
        }
    }

    /// All changes that wait, up to the bytes of one write; none when the book is closed and empty.
    fn gather(&self) -> Option<Vec<Item>> {
        self.shared.waiting.gather(WRITE_BYTES, |item| item.records.iter().map(Record::cost).sum())
    }

    fn write(&mut self, group: &[Item]) -> Result<(), BookError> {
        if self.generation.is_none() {
            self.begin()?;
        }
        let Some(generation) = &mut self.generation else { return Err(BookError::Closed) };
        self.buffer.clear();
        for item in group.iter().filter(|item| !item.records.is_empty()) {
            put_frame(&item.records, &mut self.buffer);
        }
        let sync = group.iter().any(|item| item.done.is_some());
        if let Err(error) = generation.append(&self.buffer, sync) {
            // What is on disk is not known any more: nothing is written behind it.
            self.generation = None;
            return Err(self.failed(&error));
        }
        self.shared.bytes.store(generation.length, Ordering::Relaxed);
        self.shared.syncs.fetch_add(u64::from(sync), Ordering::Relaxed);
        if self.buffer.capacity() > 2 * WRITE_BYTES {
            self.buffer = Vec::new();
        }
        Ok(())
    }

    /// Begins a generation when there are more changes than state.
    fn turn_over(&mut self) {
        let due = self
            .generation
            .as_ref()
            .is_some_and(|generation| generation.length - generation.copied > LEAST_CHANGES.max(generation.copied));
        if due && let Err(error) = self.begin() {
            tracing::error!(%error, "The broker's file grows on because the next one cannot be begun");
        }
    }

    /// Begins a generation. The one that is open stays open when that fails.
    fn begin(&mut self) -> Result<(), BookError> {
        if let Some((at, reason)) = &self.failed
            && at.elapsed() < FAILURE_PAUSE
        {
            return Err(BookError::Io { directory: self.shared.directory.clone(), reason: reason.clone() });
        }
        match Generation::begin(&self.shared.directory, self.next, &self.state) {
            Ok(generation) => {
                tracing::debug!(file = %generation.path().display(), bytes = generation.length, "The broker began a file");
                self.shared.bytes.store(generation.length, Ordering::Relaxed);
                self.next += 1;
                self.failed = None;
                self.generation = Some(generation);
                Ok(())
            }
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn failed(&mut self, error: &io::Error) -> BookError {
        let reason = error.to_string();
        self.failed = Some((Instant::now(), reason.clone()));
        BookError::Io { directory: self.shared.directory.clone(), reason }
    }
}

#[cfg(test)]
mod tests;
