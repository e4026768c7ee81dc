//! The thread that writes the journal, with group commit.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{FileUse, Item, JournalError, Position, Shared, Written, file_name, is_full};
use crate::disk::DiskFile;

pub(super) struct OpenFile {
    number: u32,
    length: u64,
    file: Box<dyn DiskFile>,
}

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) file: Option<OpenFile>,
    pub(super) next_file: u32,
    pub(super) next_sequence: u64,
    pub(super) buffer: Vec<u8>,
}

impl Writer {
    /// Writes frames until the journal is closed. Should that end with a panic, nobody waits for an answer that never comes: neither
    /// the senders, nor who holds a transaction open for their frames.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        if catch_unwind(AssertUnwindSafe(|| self.write_all())).is_ok() {
            return;
        }
        tracing::error!("The journal's thread ended with a panic; rows are refused until the node is started again");
        shared.waiting.close();
        while let Some(group) = shared.waiting.gather(shared.limits.write_bytes, |item| item.entries.frame_bytes()) {
            refuse(group, &JournalError::Closed);
        }
    }

    fn write_all(&mut self) {
        while let Some(group) = self.gather() {
            match self.write(&group) {
                Ok(written) => {
                    for (item, written) in group.iter().zip(&written) {
                        item.landing.written(written.sequence);
                    }
                    for (item, written) in group.into_iter().zip(written) {
                        (item.done)(Ok(written));
                    }
                }
                Err(error) => {
                    tracing::error!(%error, frames = group.len(), "Rows were refused because the journal cannot be written");
                    refuse(group, &error);
                }
            }
        }
    }

    /// All frames that wait, up to the bytes of one write; none when the journal is closed and empty.
    fn gather(&self) -> Option<Vec<Item>> {
        self.shared.waiting.gather(self.shared.limits.write_bytes, |item| item.entries.frame_bytes())
    }

    fn write(&mut self, group: &[Item]) -> Result<Vec<Written>, JournalError> {
        group.iter().for_each(|item| item.landing.going());
        let full = self.file.as_ref().is_some_and(|file| file.length >= self.shared.limits.file_bytes);
        if full || self.shared.rotate.swap(false, Ordering::Relaxed) {
            self.leave();
        }
        if self.file.is_none() {
            self.begin_file().map_err(|error| self.failed(&error))?;
        }
        let Some(open) = self.file.as_mut() else { return Err(JournalError::Closed) };
        self.buffer.clear();
        let mut written = Vec::with_capacity(group.len());
        let base = usize::try_from(open.length).unwrap_or(usize::MAX);
        for item in group {
            let before = self.buffer.len();
            item.entries.frame_into(self.next_sequence, &mut self.buffer);
            let position = Position::new(open.number, base + before, self.buffer.len() - before);
            written.push(Written { position, sequence: self.next_sequence });
            self.next_sequence += 1;
        }
        if let Err(error) = open.file.append(&self.buffer) {
            let cut = open.file.truncate(open.length).and_then(|()| open.file.sync());
            if cut.is_err() {
                self.leave();
            }
            return Err(self.failed(&error));
        }
        if let Err(error) = open.file.sync() {
            // What is on disk is not known after a failed sync: nothing is written behind it. It goes if it can, because marks pass
            // over rows that nobody was told of: found by a start, they would be in a source file and in no table.
            if let Err(error) = open.file.truncate(open.length).and_then(|()| open.file.sync()) {
                tracing::warn!(%error, "Frames that were not synced may stay in a journal file");
            }
            self.leave();
            return Err(self.failed(&error));
        }
        open.length += self.buffer.len() as u64;
        let number = open.number;
        self.note(number, group);
        if self.buffer.capacity() > 2 * self.shared.limits.write_bytes {
            self.buffer = Vec::new();
        }
        Ok(written)
    }

    fn begin_file(&mut self) -> io::Result<()> {
        let number = self.next_file;
        self.next_file += 1;
        let mut file = self.shared.disk.create(&self.shared.directory.join(file_name(number)))?;
        file.keep_room();
        // A new file is in the books before it is the current one, so that it is never taken for one to remove.
        *self.shared.current.lock() = Some(number);
        self.shared.files.lock().insert(number, FileUse::default());
        self.file = Some(OpenFile { number, length: 0, file });
        Ok(())
    }

    fn leave(&mut self) {
        self.file = None;
        *self.shared.current.lock() = None;
    }

    fn note(&self, number: u32, group: &[Item]) {
        let bytes = self.buffer.len() as u64;
        let mut files = self.shared.files.lock();
        let file = files.entry(number).or_default();
        file.bytes += bytes;
        for header in group.iter().flat_map(|item| item.entries.segments()) {
            file.live.entry(header.id).or_insert_with(|| header.dbms.clone());
        }
        drop(files);
        self.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.shared.frames.fetch_add(group.len() as u64, Ordering::Relaxed);
        self.shared.syncs.fetch_add(1, Ordering::Relaxed);
    }

    fn failed(&self, error: &io::Error) -> JournalError {
        let directory = self.shared.directory.clone();
        if is_full(error) {
            JournalError::Full { directory }
        } else {
            JournalError::Io { directory, reason: error.to_string() }
        }
    }
}

/// Tells that frames are not written.
fn refuse(group: Vec<Item>, error: &JournalError) {
    for Item { landing, done, .. } in group {
        drop(landing);
        done(Err(error.clone()));
    }
}
