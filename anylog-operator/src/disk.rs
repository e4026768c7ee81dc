//! The seam to stable storage: what the journal needs of a file system, and nothing more.
//!
//! [`FileDisk`] is the real one. [`MemoryDisk`] keeps files in memory and can lose power: [`MemoryDisk::crash`] drops what
//! was not synced, [`MemoryDisk::set_capacity`] fills it up. Both pass one conformance test, so that what is proved over the
//! one holds over the other.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

/// A file that grows at its end.
pub trait DiskFile: Send {
    /// Writes all bytes at the end. After an error some of them may be there.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Returns when everything that was appended is on stable storage.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the file to this many bytes.
    fn truncate(&mut self, length: u64) -> io::Result<()>;
    /// From now on there may be zeros behind the end, until the file is let go, and after a crash: a disk that syncs faster what
    /// was overwritten than what grew puts them there.
    fn keep_room(&mut self) {}
}

/// Stable storage.
pub trait Disk: Send + Sync + std::fmt::Debug {
    /// Makes a directory and those above it.
    fn create_directory(&self, directory: &Path) -> io::Result<()>;
    /// The names of the files in a directory, sorted.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;
    /// The length of a file in bytes.
    fn length(&self, path: &Path) -> io::Result<u64>;
    /// All bytes of a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Several pieces of a file, each an offset and a length in bytes.
    fn read_pieces(&self, path: &Path, pieces: &[(u64, usize)]) -> io::Result<Vec<Vec<u8>>>;
    /// Makes a new file and makes its name durable. It is an error when the file exists.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Cuts an existing file and makes that durable.
    fn truncate(&self, path: &Path, length: u64) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Bytes that are free where a directory lies; none when that is not known.
    fn free(&self, _directory: &Path) -> Option<u64> {
        None
    }
}

/// Makes the names in a directory durable.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Makes a directory and those above it, each durably: what is in it must not go with its name.
pub fn create_directories(directory: &Path) -> io::Result<()> {
    if directory.as_os_str().is_empty() || directory.is_dir() {
        return Ok(());
    }
    let parent = directory.parent().unwrap_or(Path::new("."));
    create_directories(parent)?;
    match std::fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync_directory(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
}

/// Writes a file so that it is there whole or not at all: temporary name, fsync, rename, fsync of the directory.
pub fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    create_directories(directory)?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    std::fs::rename(&temporary, path)?;
    sync_directory(directory)
}

/// Files of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct FileDisk;

/// How far a file is filled with zeros beyond what was appended.
const ROOM: u64 = 1 << 20;
/// Zeros are written page by page: what is dirtied later is then a page, not a large piece of the page cache.
const ZEROS: [u8; 4096] = [0; 4096];

/// A file, with room behind its end when that is asked for. A sync of a file that grew also waits for the file system's own
/// journal, and with it for what others wrote; one that was overwritten in place does not. So there are zeros behind the end,
/// which go when the file is let go; after a crash they are the reader's to cut off.
struct RealFile {
    file: File,
    /// What was appended.
    length: u64,
    /// That and the zeros behind it.
    filled: u64,
    roomy: bool,
}

impl RealFile {
    /// Fills with zeros. It is no failure when there is no space for them; then what there is is left to others.
    fn make_room(&mut self) {
        let end = self.filled + ROOM;
        while self.filled < end {
            let piece = ZEROS.len() as u64 - self.filled % ZEROS.len() as u64;
            let zeros = &ZEROS[..usize::try_from(piece).unwrap_or(ZEROS.len())];
            if self.file.write_all_at(zeros, self.filled).is_err() {
                if self.file.set_len(self.length).is_ok() {
                    (self.filled, self.roomy) = (self.length, false);
                }
                return;
            }
            self.filled += piece;
        }
    }
}

impl DiskFile for RealFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let end = self.length + bytes.len() as u64;
        self.file.write_all_at(bytes, self.length)?;
        self.length = end;
        if end > self.filled {
            self.filled = end;
            if self.roomy {
                self.make_room();
            }
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length)?;
        (self.length, self.filled) = (length, length);
        Ok(())
    }

    fn keep_room(&mut self) {
        self.roomy = true;
    }
}

impl Drop for RealFile {
    fn drop(&mut self) {
        // A reader takes zeros for the end as well.
        if self.filled > self.length
            && let Err(error) = self.file.set_len(self.length)
        {
            tracing::debug!(%error, "The room behind a file's end stays");
        }
    }
}

impl Disk for FileDisk {
    fn create_directory(&self, directory: &Path) -> io::Result<()> {
        create_directories(directory)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn length(&self, path: &Path) -> io::Result<u64> {
        Ok(std::fs::metadata(path)?.len())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn read_pieces(&self, path: &Path, pieces: &[(u64, usize)]) -> io::Result<Vec<Vec<u8>>> {
        let mut file = File::open(path)?;
        let mut read = Vec::with_capacity(pieces.len());
        for (offset, length) in pieces {
            file.seek(SeekFrom::Start(*offset))?;
            let mut bytes = vec![0; *length];
            file.read_exact(&mut bytes)?;
            read.push(bytes);
        }
        Ok(read)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        sync_directory(path.parent().unwrap_or(Path::new(".")))?;
        Ok(Box::new(RealFile { file, length: 0, filled: 0, roomy: false }))
    }

    fn truncate(&self, path: &Path, length: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(length)?;
        file.sync_all()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn free(&self, directory: &Path) -> Option<u64> {
        let disk = rustix::fs::statvfs(directory).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}

#[derive(Debug, Default, Clone)]
struct Stored {
    written: Vec<u8>,
    synced: Vec<u8>,
}

#[derive(Debug)]
struct Contents {
    files: BTreeMap<PathBuf, Stored>,
    capacity: usize,
}

impl Contents {
    fn used(&self) -> usize {
        self.files.values().map(|file| file.written.len()).sum()
    }
}

/// Files in memory, for simulations. Names are durable at once; bytes only after a sync.
#[derive(Debug, Clone)]
pub struct MemoryDisk(Arc<Mutex<Contents>>);

impl Default for MemoryDisk {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Contents { files: BTreeMap::new(), capacity: usize::MAX })))
    }
}

impl MemoryDisk {
    /// Power fails: of each file stays what was synced, and of the rest a part that `keep` chooses, from 0 to the number of
    /// bytes given to it.
    pub fn crash(&self, mut keep: impl FnMut(usize) -> usize) {
        let mut contents = self.0.lock();
        for file in contents.files.values_mut() {
            if file.written.starts_with(&file.synced) {
                let pending = file.written.len() - file.synced.len();
                file.written.truncate(file.synced.len() + keep(pending).min(pending));
            } else {
                file.written = file.synced.clone();
            }
            file.synced = file.written.clone();
        }
    }

    /// The disk takes at most this many bytes; what goes beyond fails as on a full disk.
    pub fn set_capacity(&self, bytes: usize) {
        self.0.lock().capacity = bytes;
    }

    /// Changes the bytes of a file, as a failing medium does.
    pub fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(file) = self.0.lock().files.get_mut(path) {
            change(&mut file.written);
            file.synced = file.written.clone();
        }
    }

    /// A disk with the same files, changed independently from now on.
    #[must_use]
    pub fn copy(&self) -> Self {
        let contents = self.0.lock();
        Self(Arc::new(Mutex::new(Contents { files: contents.files.clone(), capacity: contents.capacity })))
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    path: PathBuf,
}

impl MemoryFile {
    fn with<R>(&self, work: impl FnOnce(&mut Stored) -> R) -> io::Result<R> {
        let mut contents = self.disk.0.lock();
        contents.files.get_mut(&self.path).map(work).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl DiskFile for MemoryFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let free = {
            let contents = self.disk.0.lock();
            contents.capacity.saturating_sub(contents.used())
        };
        let fits = bytes.len().min(free);
        self.with(|file| file.written.extend_from_slice(&bytes[..fits]))?;
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.with(|file| file.synced.clone_from(&file.written))
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        self.with(|file| file.written.truncate(length))
    }
}

impl Disk for MemoryDisk {
    fn create_directory(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let contents = self.0.lock();
        let inside = contents.files.keys().filter(|path| path.parent() == Some(directory));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn length(&self, path: &Path) -> io::Result<u64> {
        self.read(path).map(|bytes| bytes.len() as u64)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let contents = self.0.lock();
        contents.files.get(path).map(|file| file.written.clone()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn read_pieces(&self, path: &Path, pieces: &[(u64, usize)]) -> io::Result<Vec<Vec<u8>>> {
        let bytes = self.read(path)?;
        let piece = |(offset, length): &(u64, usize)| {
            let start = usize::try_from(*offset).unwrap_or(usize::MAX);
            let end = start.saturating_add(*length);
            bytes.get(start..end).map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        };
        pieces.iter().map(piece).collect()
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut contents = self.0.lock();
        if contents.files.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        contents.files.insert(path.to_owned(), Stored::default());
        Ok(Box::new(MemoryFile { disk: self.clone(), path: path.to_owned() }))
    }

    fn truncate(&self, path: &Path, length: u64) -> io::Result<()> {
        let mut file = MemoryFile { disk: self.clone(), path: path.to_owned() };
        file.truncate(length)?;
        file.sync()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.lock().files.remove(path).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What every disk promises.
    fn conforms(disk: &dyn Disk, directory: &Path) {
        disk.create_directory(directory).unwrap();
        let path = directory.join("a");
        let mut file = disk.create(&path).unwrap();
        assert!(disk.create(&path).is_err(), "a file is made once");
        file.append(b"hello ").unwrap();
        file.append(b"world").unwrap();
        file.sync().unwrap();
        assert_eq!(disk.list(directory).unwrap(), ["a"]);
        assert_eq!(disk.length(&path).unwrap(), 11);
        assert_eq!(disk.read_pieces(&path, &[(6, 5), (0, 5)]).unwrap(), [b"world".to_vec(), b"hello".to_vec()]);
        file.truncate(5).unwrap();
        file.append(b"!").unwrap();
        assert_eq!(disk.read(&path).unwrap(), b"hello!");
        assert!(disk.read_pieces(&path, &[(5, 2)]).is_err(), "no piece beyond the end");
        file.keep_room();
        file.append(b"?").unwrap();
        let read = disk.read(&path).unwrap();
        assert!(
            read.starts_with(b"hello!?") && read[7..].iter().all(|byte| *byte == 0),
            "zeros at most behind the end"
        );
        drop(file);
        assert_eq!(disk.read(&path).unwrap(), b"hello!?");
        disk.truncate(&path, 4).unwrap();
        assert_eq!(disk.read(&path).unwrap(), b"hell");
        assert!(disk.free(directory).is_none_or(|free| free > 0));
        disk.remove(&path).unwrap();
        assert!(disk.list(directory).unwrap().is_empty());
        assert!(disk.read(&path).is_err());
    }

    #[test]
    fn both_disks_keep_the_same_promises() {
        conforms(&MemoryDisk::default(), Path::new("/journal"));
        let directory = tempfile::tempdir().unwrap();
        conforms(&FileDisk, &directory.path().join("journal"));
    }

    #[test]
    fn room_goes_on_before_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let mut file = FileDisk.create(&path).unwrap();
        file.keep_room();
        let pages = usize::try_from(ROOM).unwrap() / 1000;
        for page in 0..=pages {
            file.append(&[1; 1000]).unwrap();
            let (written, length) = ((page as u64 + 1) * 1000, FileDisk.length(&path).unwrap());
            assert!(length >= written && length <= written + ROOM + 4096, "{length} bytes for {written}");
        }
        drop(file);
        assert_eq!(FileDisk.length(&path).unwrap(), (pages as u64 + 1) * 1000);
    }

    #[test]
    fn a_crash_drops_what_was_not_synced() {
        let disk = MemoryDisk::default();
        let mut file = disk.create(Path::new("/j/a")).unwrap();
        file.append(b"synced").unwrap();
        file.sync().unwrap();
        file.append(b"lost").unwrap();
        disk.crash(|_| 2);
        assert_eq!(disk.read(Path::new("/j/a")).unwrap(), b"syncedlo");
    }

    #[test]
    fn a_durable_write_leaves_no_temporary_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("26/11/23/x.json");
        write_durably(&path, b"1").unwrap();
        write_durably(&path, b"2").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"2");
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
