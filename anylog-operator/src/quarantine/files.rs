//! The files of a quarantine: listed, read, written anew.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::{QuarantinedRow, line};
use crate::disk::{Disk, DiskFile};
use crate::error::{OperatorError, file_error};
use crate::journal::is_full;

/// A file that is this long is followed by another. Files are read and written anew as a whole.
const FILE_BYTES: u64 = 8 << 20;

/// A file that is listed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    number: u64,
    generation: u32,
}

impl Name {
    fn parse(name: &str) -> Option<Self> {
        let middle = name.strip_prefix("quarantine.")?.strip_suffix(".jsonl")?;
        let (number, generation) = middle.split_once('.').unwrap_or((middle, "0"));
        let number = (number.len() == 10).then(|| number.parse().ok())??;
        Some(Self { number, generation: generation.parse().ok()? })
    }

    fn text(&self) -> String {
        match self.generation {
            0 => format!("quarantine.{:010}.jsonl", self.number),
            generation => format!("quarantine.{:010}.{generation}.jsonl", self.number),
        }
    }
}

struct Open {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    bytes: u64,
}

/// The files of a quarantine.
pub(crate) struct Files {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    open: Mutex<Option<Open>>,
    bytes: AtomicU64,
}

impl Files {
    pub(super) fn new(disk: Arc<dyn Disk>, directory: PathBuf) -> Self {
        let files = Self { disk, directory, open: Mutex::new(None), bytes: AtomicU64::new(0) };
        files.measure();
        files
    }

    fn path(&self, name: &Name) -> PathBuf {
        self.directory.join(name.text())
    }

    /// Counts the bytes that are there.
    fn measure(&self) {
        let lengths = self.names().unwrap_or_default();
        let bytes = lengths.iter().filter_map(|name| self.disk.length(&self.path(name)).ok()).sum();
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn names(&self) -> Result<Vec<Name>, OperatorError> {
        let directory = &self.directory;
        match self.disk.list(directory) {
            Ok(names) => {
                let mut names: Vec<Name> = names.iter().filter_map(|name| Name::parse(name)).collect();
                names.sort();
                Ok(names)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(file_error(directory)(error)),
        }
    }

    /// The files, oldest first, each in the generation that holds.
    pub(crate) fn list(&self) -> Result<Vec<Name>, OperatorError> {
        let mut files: Vec<Name> = Vec::new();
        for name in self.names()? {
            match files.last_mut() {
                // A crash came while a file was written anew: the new one holds when it is whole.
                Some(last) if last.number == name.number => {
                    if self.is_whole(&name) {
                        *last = name;
                    }
                }
                _ => files.push(name),
            }
        }
        Ok(files)
    }

    fn is_whole(&self, name: &Name) -> bool {
        let Ok(bytes) = self.disk.read(&self.path(name)) else { return false };
        bytes
            .strip_suffix(b"\n")
            .is_some_and(|bytes| bytes.rsplit(|byte| *byte == b'\n').next().is_some_and(line::is_end))
    }

    /// The records of a file, each with its line. A file that has gone holds none.
    pub(crate) fn read(&self, name: &Name) -> Result<Vec<(QuarantinedRow, Vec<u8>)>, OperatorError> {
        let path = self.path(name);
        let bytes = match self.disk.read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(file_error(&path)(error)),
        };
        let mut records = Vec::new();
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match line::decode(line) {
                Some(row) if row.key.is_empty() => {}
                Some(row) => records.push((row, line.to_vec())),
                None => {
                    let offset = line.as_ptr().addr() - bytes.as_ptr().addr();
                    tracing::error!(file = %path.display(), offset, "A line of the quarantine is damaged and left out");
                    // A record that was acknowledged must not vanish with the file that it is damaged in.
                    let kept = path.with_extension(format!("{offset}.damaged"));
                    if !kept.exists()
                        && let Err(error) = crate::disk::write_durably(&kept, line)
                    {
                        tracing::error!(file = %kept.display(), %error, "The damaged line cannot be kept");
                    }
                }
            }
        }
        Ok(records)
    }

    /// Appends lines and brings them to stable storage. Blocks.
    pub(super) fn append(&self, lines: &[u8]) -> Result<(), OperatorError> {
        let mut open = self.open.lock();
        if open.as_ref().is_none_or(|open| open.bytes > 0 && open.bytes + lines.len() as u64 > FILE_BYTES) {
            *open = None;
            *open = Some(self.create()?);
        }
        let Some(mut file) = open.take() else { return Ok(()) };
        let failed = |path: &Path, error: std::io::Error| match is_full(&error) {
            true => anylog_ingest::SinkError::DiskFull.into(),
            false => file_error(path)(error),
        };
        if let Err(error) = file.file.append(lines) {
            // The torn end is cut off; when that fails the checksums tell. Either way the next write begins another file.
            let cut = file.file.truncate(file.bytes);
            tracing::warn!(file = %file.path.display(), %error, cut = cut.is_ok(), "The quarantine cannot be written");
            return Err(failed(&file.path, error));
        }
        file.bytes += lines.len() as u64;
        self.bytes.fetch_add(lines.len() as u64, Ordering::Relaxed);
        file.file.sync().map_err(|error| failed(&file.path, error))?;
        *open = Some(file);
        Ok(())
    }

    fn create(&self) -> Result<Open, OperatorError> {
        let directory = &self.directory;
        self.disk.create_directory(directory).map_err(file_error(directory))?;
        let number = self.names()?.last().map_or(0, |last| last.number) + 1;
        let path = self.path(&Name { number, generation: 0 });
        let file = self.disk.create(&path).map_err(file_error(&path))?;
        Ok(Open { file, path, bytes: 0 })
    }

    /// Ends the file that is written to, so that it may be written anew.
    pub(crate) fn roll(&self) {
        *self.open.lock() = None;
    }

    /// Replaces the lines of a file that is not written to. Blocks until that is on stable storage.
    pub(crate) fn rewrite(&self, name: &Name, lines: &[Vec<u8>]) -> Result<(), OperatorError> {
        let old = self.path(name);
        if !lines.is_empty() {
            let generation =
                self.names()?.iter().filter(|known| known.number == name.number).map(|n| n.generation).max();
            let path = self.path(&Name { number: name.number, generation: generation.unwrap_or(name.generation) + 1 });
            let mut content = lines.join(&b'\n');
            content.push(b'\n');
            content.extend_from_slice(&line::end(lines.len()));
            let written = self.disk.create(&path).and_then(|mut file| {
                file.append(&content)?;
                file.sync()
            });
            written.map_err(file_error(&path))?;
        }
        for known in self.names()?.iter().filter(|known| known.number == name.number) {
            let path = self.path(known);
            let stale = lines.is_empty() || *known <= *name || !self.is_whole(known);
            if stale && let Err(error) = self.disk.remove(&path) {
                self.measure();
                return Err(file_error(&old)(error));
            }
        }
        self.measure();
        Ok(())
    }
}
