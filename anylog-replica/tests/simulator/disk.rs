//! The stable storage of a simulated member.

use std::collections::BTreeMap;

use anylog_replica::message::RowsHeld;
use anylog_replica::{FileKey, FileSet};

/// A row: what a device sent is told apart from everything else that was sent.
pub(crate) type Row = u64;

/// Rows by ordinal.
pub(crate) type Rows = BTreeMap<u64, Row>;

/// What is kept when the member's process ends, save what was not synced.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    /// Tells the disk apart from the one that was there before.
    pub(crate) key: u64,
    /// The highest number given to an own file.
    pub(crate) given: i64,
    /// Whether `given` is known to be behind all numbers that this member ever gave.
    pub(crate) numbered: bool,
    /// Complete files.
    pub(crate) complete: BTreeMap<FileKey, Rows>,
    /// Open ones.
    pub(crate) open: BTreeMap<FileKey, OpenFile>,
    /// Nothing can be written.
    pub(crate) full: bool,
}

/// An open file in the journal.
#[derive(Debug, Default)]
pub(crate) struct OpenFile {
    pub(crate) rows: Rows,
    /// Rows behind this ordinal are lost when the process is killed.
    pub(crate) synced: u64,
    /// Of which table it is.
    pub(crate) table: usize,
    /// This member writes it; else it is a copy of a mate's, or of what mates had of an own one.
    pub(crate) own: bool,
}

impl OpenFile {
    pub(crate) fn durable(&self) -> impl Iterator<Item = (u64, Row)> + '_ {
        self.rows.range(..=self.synced).map(|(ordinal, row)| (*ordinal, *row))
    }
}

impl Disk {
    pub(crate) fn new(key: u64) -> Self {
        Self { key, ..Self::default() }
    }

    /// Whether a row would be there after a crash.
    pub(crate) fn has(&self, file: FileKey, ordinal: u64, row: Row) -> bool {
        let complete = self.complete.get(&file).and_then(|rows| rows.get(&ordinal));
        let open = self.open.get(&file).filter(|open| ordinal <= open.synced).and_then(|open| open.rows.get(&ordinal));
        complete == Some(&row) || open == Some(&row)
    }

    /// All durable rows.
    pub(crate) fn rows(&self) -> Vec<(FileKey, u64, Row)> {
        let complete = self.complete.iter().flat_map(|(file, rows)| rows.iter().map(|(o, row)| (*file, *o, *row)));
        let open = self.open.iter().flat_map(|(file, open)| open.durable().map(|(o, row)| (*file, o, row)));
        complete.chain(open).collect()
    }

    /// What a member that starts is told.
    pub(crate) fn have(&self) -> (Vec<(i64, FileSet)>, Vec<RowsHeld>) {
        let mut complete: BTreeMap<i64, FileSet> = BTreeMap::new();
        for file in self.complete.keys() {
            complete.entry(file.producer).or_default().insert(file.file);
        }
        (complete.into_iter().collect(), self.open.iter().map(|(file, open)| file.held(open.synced)).collect())
    }
}
