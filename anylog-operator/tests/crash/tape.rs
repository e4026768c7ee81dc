//! A disk that remembers every moment.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anylog_operator::disk::{Disk, DiskFile, MemoryDisk};
use anylog_operator::journal::record::{Entry, read_frame};
use parking_lot::Mutex;

/// What is there at one moment.
pub(crate) struct Moment {
    /// The operation that comes next.
    pub(crate) next: String,
    /// The journal, with what is not synced.
    pub(crate) journal: MemoryDisk,
    /// Everything else, as it is in files.
    pub(crate) home: tempfile::TempDir,
    /// Rows whose senders had their receipts.
    pub(crate) acknowledged: Vec<i64>,
    /// Rows that were handed over.
    pub(crate) sent: Vec<i64>,
    /// How often the journal said that a segment is sealed, which it does after the databases were synced.
    pub(crate) relied: usize,
}

/// What the sender knows.
#[derive(Debug, Default)]
pub(crate) struct Sender {
    pub(crate) sent: Vec<i64>,
    pub(crate) acknowledged: Vec<i64>,
}

struct Tape {
    /// What is copied at each moment.
    home: Option<PathBuf>,
    sender: Mutex<Sender>,
    moments: Mutex<Vec<Moment>>,
    relied: Mutex<usize>,
}

/// The disk. Its clones are one disk. Files are known by their names alone, because each start has another home.
#[derive(Clone)]
pub(crate) struct TapeDisk {
    disk: MemoryDisk,
    tape: Arc<Tape>,
}

fn place(path: &Path) -> PathBuf {
    Path::new("/journal").join(path.file_name().unwrap_or_default())
}

impl std::fmt::Debug for TapeDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TapeDisk").field("moments", &self.tape.moments.lock().len()).finish()
    }
}

impl TapeDisk {
    pub(crate) fn new(home: &Path) -> Self {
        Self::of(Some(home.to_owned()), MemoryDisk::default())
    }

    /// What a power failure left. Nothing is kept any more.
    pub(crate) fn after(disk: MemoryDisk) -> Self {
        Self::of(None, disk)
    }

    fn of(home: Option<PathBuf>, disk: MemoryDisk) -> Self {
        let tape = Tape { home, sender: Mutex::default(), moments: Mutex::default(), relied: Mutex::default() };
        Self { disk, tape: Arc::new(tape) }
    }

    pub(crate) fn sender<R>(&self, work: impl FnOnce(&mut Sender) -> R) -> R {
        work(&mut self.tape.sender.lock())
    }

    /// All moments, oldest first.
    pub(crate) fn moments(&self) -> Vec<Moment> {
        std::mem::take(&mut *self.tape.moments.lock())
    }

    /// From here on the databases are relied on to hold what they hold.
    pub(crate) fn rely(&self) {
        *self.tape.relied.lock() += 1;
    }

    /// Keeps what is there now.
    pub(crate) fn keep(&self, next: String) {
        let Some(original) = &self.tape.home else { return };
        let (sent, acknowledged) = self.sender(|sender| (sender.sent.clone(), sender.acknowledged.clone()));
        let home = tempfile::tempdir().unwrap();
        copy(original, home.path());
        let relied = *self.tape.relied.lock();
        let moment = Moment { next, journal: self.disk.copy(), home, acknowledged, sent, relied };
        self.tape.moments.lock().push(moment);
    }
}

/// Copies a directory with all that is in it. A file that goes meanwhile is left out.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).into_iter().flatten().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).ok();
        }
    }
}

struct TapeFile {
    file: Box<dyn DiskFile>,
    name: String,
    disk: TapeDisk,
}

/// Whether one of the frames says that a segment is sealed.
fn says_sealed(mut bytes: &[u8]) -> bool {
    while let Ok((frame, length)) = read_frame(bytes) {
        if frame.entries.iter().any(|entry| matches!(entry, Entry::Sealed(_))) {
            return true;
        }
        bytes = &bytes[length..];
    }
    false
}

impl DiskFile for TapeFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.disk.keep(format!("append {} bytes to {}", bytes.len(), self.name));
        // Half of a write may be there when power fails.
        let (first, second) = bytes.split_at(bytes.len() / 2);
        self.file.append(first)?;
        self.disk.keep(format!("append the second half to {}", self.name));
        if says_sealed(bytes) {
            self.disk.rely();
        }
        self.file.append(second)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.disk.keep(format!("sync {}", self.name));
        let result = self.file.sync();
        self.disk.keep(format!("after the sync of {}", self.name));
        result
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.disk.keep(format!("cut {}", self.name));
        self.file.truncate(length)
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

impl Disk for TapeDisk {
    fn create_directory(&self, directory: &Path) -> io::Result<()> {
        self.disk.create_directory(directory)
    }

    fn list(&self, _: &Path) -> io::Result<Vec<String>> {
        self.disk.list(Path::new("/journal"))
    }

    fn length(&self, path: &Path) -> io::Result<u64> {
        self.disk.length(&place(path))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.disk.read(&place(path))
    }

    fn read_pieces(&self, path: &Path, pieces: &[(u64, usize)]) -> io::Result<Vec<Vec<u8>>> {
        // A seal begins.
        self.keep(format!("read {} to seal", name(path)));
        self.disk.read_pieces(&place(path), pieces)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.keep(format!("create {}", name(path)));
        let file = self.disk.create(&place(path))?;
        Ok(Box::new(TapeFile { file, name: name(path), disk: self.clone() }))
    }

    fn truncate(&self, path: &Path, length: u64) -> io::Result<()> {
        self.keep(format!("cut {}", name(path)));
        self.disk.truncate(&place(path), length)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.keep(format!("remove {}", name(path)));
        self.disk.remove(&place(path))
    }
}
