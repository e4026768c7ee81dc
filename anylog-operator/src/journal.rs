//! The journal of a node: the one place where rows are made durable.
//!
//! # Form
//!
//! Files `<number, 10 digits>.journal` in one directory, written one after the other and only at the end. Each is a run of
//! frames ([`record`] gives the bytes); a frame is one message. A file that has grown past a limit is followed by the next.
//!
//! # Invariants
//!
//! 1. What decides a row's content or place - its time of arrival, its partition, its segment and ordinal - is in its frame.
//!    Replay recomputes nothing.
//! 2. The order of frames is the order in which ordinals were given: within a segment ordinals only grow.
//! 3. A frame counts as written after `fdatasync` returned. After a failed write the file is cut back, and if that fails it is
//!    left; after a failed sync it is left. The next frame then begins a new file.
//! 4. Files are removed oldest first, each when all segments with rows in it are sealed. So a *sealed* or *dropped* entry
//!    lives at least as long as any row that it concerns.
//! 5. The applied marks of a sealed segment are forgotten when the last file with its rows goes, not earlier. So even the loss
//!    of its *sealed* entry repeats no row.
//!    Rows of a segment that stays open for long are written again before their file goes; which of both counts does not matter.
//! 6. A QoS 2 packet that is stored and not released is in a file: before its file goes, it is written again into the
//!    current one. Releases follow what they release, so none is lost before it has done its work.
//!
//! # Group commit
//!
//! One thread writes. It takes all frames that wait, up to a number of bytes, writes them with one call, syncs once, and
//! tells each sender, in order. While it syncs the next group gathers.

mod landing;
mod read;
pub mod record;
pub mod recovery;
mod writer;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anylog_dbms::SegmentId;
use anylog_ingest::frames::Line;
use parking_lot::Mutex;

use crate::disk::Disk;
pub(crate) use landing::Landing;
use landing::Teller;
use record::Entries;
use recovery::{Damage, Recovery};
use writer::Writer;

/// Limits of a journal.
#[derive(Debug, Clone, Copy)]
pub struct JournalLimits {
    /// A file that is this long is followed by another.
    pub file_bytes: u64,
    /// The most that one write takes, save that a longer frame is written alone.
    pub write_bytes: usize,
    /// The bytes of all files from which on rows of segments that stay open for long do not keep old files: they are written again.
    pub carry_bytes: u64,
}

impl Default for JournalLimits {
    fn default() -> Self {
        Self { file_bytes: 32 << 20, write_bytes: 4 << 20, carry_bytes: 128 << 20 }
    }
}

/// Where a frame lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Position {
    file: u32,
    offset: u32,
    length: u32,
}

impl Position {
    fn new(file: u32, offset: usize, length: usize) -> Self {
        let narrow = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        Self { file, offset: narrow(offset), length: narrow(length) }
    }

    #[cfg(test)]
    pub(crate) fn at(file: u32, offset: usize) -> Self {
        Self::new(file, offset, 1)
    }

    fn end(&self) -> u64 {
        u64::from(self.offset) + u64::from(self.length)
    }

    /// Bytes of the frame.
    pub(crate) fn length(&self) -> u64 {
        u64::from(self.length)
    }

    /// The number of the file.
    pub(crate) fn file(&self) -> u32 {
        self.file
    }
}

/// A frame that is on stable storage.
#[derive(Debug, Clone, Copy)]
pub struct Written {
    /// Where it lies.
    pub position: Position,
    /// Its place in the journal.
    pub sequence: u64,
}

/// Why a frame was not written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The disk is full.
    #[error("not enough space on disk for the journal in '{directory}'")]
    Full {
        /// The journal's directory.
        directory: PathBuf,
    },
    /// Writing or reading failed.
    #[error("the journal in '{directory}' failed: {reason}")]
    Io {
        /// The journal's directory.
        directory: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// The journal was closed.
    #[error("the journal is closed")]
    Closed,
}

/// What is called when a frame is on stable storage, or will never be. Runs on the writing thread, in order, and must not wait: not for
/// a database in particular, whose writer may be waiting for a frame.
pub type Done = Box<dyn FnOnce(Result<Written, JournalError>) + Send>;

/// What a journal file holds.
#[derive(Debug, Default)]
pub(crate) struct FileUse {
    bytes: u64,
    /// Segments with rows in it that are not sealed, and their databases.
    live: HashMap<SegmentId, String>,
    /// Segments that are sealed and whose last rows are in it.
    sealed: Vec<(SegmentId, String)>,
}

/// Notes in all files that a segment is sealed.
fn release(files: &mut BTreeMap<u32, FileUse>, segment: SegmentId) {
    let mut last = None;
    for (number, file) in files.iter_mut() {
        if let Some(dbms) = file.live.remove(&segment) {
            last = Some((*number, dbms));
        }
    }
    if let Some((number, dbms)) = last
        && let Some(file) = files.get_mut(&number)
    {
        file.sealed.push((segment, dbms));
    }
}

/// A file that is not needed any more, and the segments whose marks go with it.
#[derive(Debug)]
pub struct Removable {
    number: u32,
    /// Sealed segments and their databases.
    pub forget: Vec<(SegmentId, String)>,
}

impl Removable {
    /// The number of the file.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }
}

struct Item {
    entries: Entries,
    landing: Teller,
    done: Done,
}

struct Shared {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    limits: JournalLimits,
    waiting: Line<Item>,
    files: Mutex<BTreeMap<u32, FileUse>>,
    current: Mutex<Option<u32>>,
    rotate: AtomicBool,
    bytes: AtomicU64,
    frames: AtomicU64,
    syncs: AtomicU64,
}

/// A journal that is open for writing.
pub struct Journal {
    shared: Arc<Shared>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("directory", &self.shared.directory).field("bytes", &self.bytes()).finish()
    }
}

fn file_name(number: u32) -> String {
    format!("{number:010}.journal")
}

fn file_number(name: &str) -> Option<u32> {
    name.strip_suffix(".journal")?.parse().ok()
}

/// Whether an error of the system means a full disk.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl Journal {
    /// Opens the journal in `directory`, and says what it holds from before. `keep` gets damaged bytes to put them aside.
    pub fn open(
        disk: Arc<dyn Disk>,
        directory: &Path,
        limits: JournalLimits,
        keep: &mut dyn FnMut(&Damage, &[u8]),
    ) -> Result<(Self, Recovery), JournalError> {
        let failed = |error: io::Error| JournalError::Io { directory: directory.to_owned(), reason: error.to_string() };
        let mut recovery = recovery::scan(disk.as_ref(), directory, keep).map_err(failed)?;
        let files = std::mem::take(&mut recovery.files);
        let shared = Arc::new(Shared {
            disk,
            directory: directory.to_owned(),
            limits,
            waiting: Line::default(),
            bytes: AtomicU64::new(files.values().map(|file| file.bytes).sum()),
            files: Mutex::new(files),
            current: Mutex::new(None),
            rotate: AtomicBool::new(false),
            frames: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
        });
        let writer = Writer {
            shared: Arc::clone(&shared),
            file: None,
            next_file: recovery.next_file + 1,
            next_sequence: recovery.next_sequence.max(1),
            buffer: Vec::new(),
        };
        let thread = std::thread::Builder::new().name("journal".into()).spawn(move || writer.run()).map_err(failed)?;
        Ok((Self { shared, thread: Mutex::new(Some(thread)) }, recovery))
    }

    /// Hands a frame to the writer. Frames are written in the order of the calls.
    pub fn submit(&self, entries: Entries, done: Done) {
        self.push(Item { entries, landing: Teller::default(), done });
    }

    /// The same, for somebody who gets everything ready for what follows meanwhile.
    pub(crate) fn submit_watched(&self, entries: Entries, landing: Arc<Landing>, done: Done) {
        self.push(Item { entries, landing: Teller::new(landing), done });
    }

    fn push(&self, item: Item) {
        if let Err(Item { landing, done, .. }) = self.shared.waiting.push(item) {
            drop(landing);
            done(Err(JournalError::Closed));
        }
    }

    /// Writes a frame and waits for it.
    pub async fn write(&self, entries: Entries) -> Result<Written, JournalError> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.submit(
            entries,
            Box::new(move |result| {
                // A waiter that went away does not mind.
                drop(sender.send(result));
            }),
        );
        receiver.await.unwrap_or(Err(JournalError::Closed))
    }

    /// Writes a frame and waits for it on this thread.
    pub fn write_blocking(&self, entries: Entries) -> Result<Written, JournalError> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        self.submit(
            entries,
            Box::new(move |result| {
                // The other end waits until it has this.
                drop(sender.send(result));
            }),
        );
        receiver.recv().unwrap_or(Err(JournalError::Closed))
    }

    /// Notes that a segment is sealed.
    pub fn release(&self, segment: SegmentId) {
        let mut files = self.shared.files.lock();
        release(&mut files, segment);
        // A file that only sealed segments are in need not wait until it is full.
        let current = *self.shared.current.lock();
        if let Some(file) = current.and_then(|number| files.get(&number))
            && file.live.is_empty()
            && (file.sealed.len() >= 256 || file.bytes >= 1 << 20)
        {
            self.shared.rotate.store(true, Ordering::Relaxed);
        }
    }

    /// The oldest files that are not needed any more.
    #[must_use]
    pub fn removable(&self) -> Vec<Removable> {
        let files = self.shared.files.lock();
        let current = *self.shared.current.lock();
        files
            .iter()
            .take_while(|(number, file)| Some(**number) != current && file.live.is_empty())
            .map(|(number, file)| Removable { number: *number, forget: file.sealed.clone() })
            .collect()
    }

    /// The oldest file that is needed, save the current one, and the segments that keep it.
    pub(crate) fn held_back(&self) -> Option<(u32, Vec<SegmentId>)> {
        let files = self.shared.files.lock();
        let current = *self.shared.current.lock();
        let (number, file) = files.iter().find(|(_, file)| !file.live.is_empty())?;
        (Some(*number) != current).then(|| (*number, file.live.keys().copied().collect()))
    }

    /// Notes that a segment does not need a file any more: its rows there were written again.
    pub(crate) fn let_go(&self, segment: SegmentId, file: u32) {
        if let Some(file) = self.shared.files.lock().get_mut(&file) {
            file.live.remove(&segment);
        }
    }

    /// Its limits.
    pub(crate) fn limits(&self) -> JournalLimits {
        self.shared.limits
    }

    /// Removes a file after the marks of its segments were forgotten.
    pub fn remove(&self, file: &Removable) {
        let path = self.shared.directory.join(file_name(file.number));
        if let Err(error) = self.shared.disk.remove(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(file = %path.display(), %error, "A journal file that is not needed any more stays");
        }
        if let Some(gone) = self.shared.files.lock().remove(&file.number) {
            self.shared.bytes.fetch_sub(gone.bytes, Ordering::Relaxed);
        }
    }

    /// Where its files lie.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.shared.directory
    }

    /// Bytes on disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// Frames written since the start, and the syncs that this took.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.shared.frames.load(Ordering::Relaxed), self.shared.syncs.load(Ordering::Relaxed))
    }

    /// Writes what waits, and ends.
    pub fn close(&self) {
        self.shared.waiting.close();
        if let Some(thread) = self.thread.lock().take()
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("The journal's thread ended with a panic");
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.shared.waiting.close();
    }
}

#[cfg(test)]
mod tests;
