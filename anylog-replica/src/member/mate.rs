//! What a member knows of one mate.

use std::collections::{BTreeMap, BTreeSet};

use crate::files::{FileKey, FileSet};
use crate::member::rows::Stream;
use crate::member::unsettled::Unsettled;
use crate::message::Hello;

use super::Millis;

/// A mate: what outlives its links, and what is of the present one.
#[derive(Debug, Default)]
pub(super) struct Mate {
    /// The ledger names it.
    pub(super) listed: bool,
    /// It said what it has since this member started.
    pub(super) heard: bool,
    /// Its last greeting.
    pub(super) hello: Option<Hello>,
    /// Why the last link was refused, by it or by this member.
    pub(super) refused: Option<String>,
    /// What it has completely, by its last word.
    pub(super) complete: BTreeMap<i64, FileSet>,
    /// Up to which ordinal it has open files, by its last word.
    pub(super) open: BTreeMap<FileKey, u64>,
    /// By producer the highest number of those that it does not want.
    pub(super) passed: BTreeMap<i64, i64>,
    /// By producer the highest number of those that it left out, being older than this member asked for.
    pub(super) before: BTreeMap<i64, i64>,
    /// The present link.
    pub(super) link: Link,
}

/// A link to a mate. What is under way on it is lost with it.
#[derive(Debug, Default)]
pub(super) struct Link {
    pub(super) up: bool,
    /// The key of the node that was linked when this link came, until the greeting shows that it is the same.
    pub(super) rival: Option<String>,
    /// This member greeted.
    pub(super) hello_sent: bool,
    /// The mate greeted, and nothing speaks against it.
    pub(super) greeted: bool,
    /// This member said what it has.
    pub(super) told: bool,
    /// What is to end before it does.
    pub(super) unsettled: Unsettled,
    /// The mate said what it has.
    pub(super) known: bool,
    /// By producer the first file that is not older than the mate asked for.
    pub(super) narrowed: BTreeMap<i64, i64>,
    /// Files that were offered to it, and since when.
    pub(super) offered: BTreeMap<FileKey, Millis>,
    /// Files that it declined, or did not answer for, and when they are offered again.
    pub(super) declined: BTreeMap<FileKey, Millis>,
    /// Own files below this number need not be offered.
    pub(super) offer_from: i64,
    /// Files that it offers, and that it waits for an answer for.
    pub(super) offers: BTreeSet<FileKey>,
    /// Files that it wanted, and since when.
    pub(super) sending: BTreeMap<FileKey, Millis>,
    /// Open files whose rows are sent to it.
    pub(super) streams: BTreeMap<FileKey, Stream>,
}

impl Mate {
    /// Whether messages are exchanged with it.
    pub(super) fn speaks(&self) -> bool {
        self.listed && self.link.up && self.link.greeted
    }

    /// Whether files and rows are exchanged with it.
    pub(super) fn active(&self) -> bool {
        self.speaks() && self.link.known
    }

    /// Whether it has a file completely, by its last word.
    pub(super) fn holds(&self, file: FileKey) -> bool {
        self.complete.get(&file.producer).is_some_and(|files| files.contains(file.file))
    }

    /// Notes that it has a file completely; answers whether that is new.
    pub(super) fn note_complete(&mut self, file: FileKey) -> bool {
        self.open.remove(&file);
        self.link.offered.remove(&file);
        self.link.declined.remove(&file);
        self.link.sending.remove(&file);
        self.link.streams.remove(&file);
        self.complete.entry(file.producer).or_default().insert(file.file)
    }

    /// Up to which ordinal it has the rows of a file, by its last word: all when it has it completely.
    pub(super) fn ordinal(&self, file: FileKey) -> u64 {
        if self.holds(file) { u64::MAX } else { self.open.get(&file).copied().unwrap_or(0) }
    }

    /// The highest number of a producer's files that it has anything of.
    pub(super) fn highest(&self, producer: i64) -> i64 {
        let complete = self.complete.get(&producer).and_then(FileSet::last).unwrap_or(0);
        let open = self.open.range(FileKey::all_of(producer)).next_back().map_or(0, |(file, _)| file.file);
        complete.max(open)
    }
}
