//! What a member knows of its cluster, for those who look.

use crate::files::{FileKey, FileSet};
use crate::message::{Hello, RowsHeld};

use super::Member;

/// What a member knows of a mate.
#[derive(Debug, Clone, PartialEq)]
pub struct MateView {
    /// Its number.
    pub member: i64,
    /// Whether a link to it is up.
    pub linked: bool,
    /// How it greeted on this link, or on the last one.
    pub hello: Option<Hello>,
    /// Whether it said on this link what it has: from then on it gets files and rows.
    pub holdings: bool,
    /// Files that were offered to it and that it did not answer for yet.
    pub offered: Vec<FileKey>,
    /// Files that it wanted and that are sent to it.
    pub sending: Vec<FileKey>,
    /// Files that are fetched from it.
    pub fetching: Vec<FileKey>,
    /// Files that it declined, and are offered again later.
    pub declined: usize,
    /// Why it, or this member, refused the last link.
    pub refused: Option<String>,
    /// Up to which row it has open files, as far as it said.
    pub open: Vec<RowsHeld>,
}

/// What a member knows of the files of one producer.
#[derive(Debug, Clone, PartialEq)]
pub struct ProducerView {
    /// Its number.
    pub producer: i64,
    /// The highest number that it gave, as far as it is known.
    pub given: i64,
    /// What this member has completely.
    pub complete: FileSet,
    /// What each mate has completely, by its last word.
    pub mates: Vec<(i64, FileSet)>,
    /// What some mate has and this member lacks.
    pub missing: FileSet,
    /// What is fetched at the moment.
    pub in_work: Vec<FileKey>,
    /// What could not be had, and is tried again later.
    pub parked: Vec<Parked>,
    /// As [`Member::consensus`].
    pub consensus: i64,
}

/// A file that could not be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    /// The file.
    pub file: FileKey,
    /// Why, as the last attempt said.
    pub reason: String,
    /// How often it was tried.
    pub tries: u32,
}

impl Member {
    /// The mates that the ledger names, in the order of their numbers.
    #[must_use]
    pub fn mates(&self) -> Vec<MateView> {
        Vec::new()
    }

    /// The producers of whom this member or a mate has files, in the order of their numbers.
    #[must_use]
    pub fn producers(&self) -> Vec<ProducerView> {
        Vec::new()
    }

    /// The highest number such that this member and all mates, by their last word, have all files of the producer up to it.
    /// Numbers that do not exist count as held, numbers of open files do not.
    #[must_use]
    pub fn consensus(&self, producer: i64) -> i64 {
        let _ = producer;
        0
    }

    /// How many members get rows of open files now, this one included.
    #[must_use]
    pub fn reachable(&self) -> u32 {
        1
    }

    /// Mates that the ledger names and that did not say yet, since this member started, what they have. While there are some,
    /// nobody knows the highest number that a member without a registry gave once.
    #[must_use]
    pub fn unheard(&self) -> Vec<i64> {
        Vec::new()
    }
}
