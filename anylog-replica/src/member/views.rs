//! What a member knows of its cluster, for those who look.

use std::collections::BTreeSet;

use crate::files::{FileKey, FileSet};
use crate::message::{Hello, RowsHeld};

use super::Member;
use super::mate::Mate;

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
        let view = |(member, mate): (i64, &Mate)| MateView {
            member,
            linked: mate.speaks(),
            hello: mate.hello.clone(),
            holdings: mate.active(),
            offered: mate.link.offered.keys().copied().collect(),
            sending: mate.link.sending.keys().copied().collect(),
            fetching: self.fetching().filter(|(_, from)| *from == member).map(|(file, _)| file).collect(),
            declined: mate.link.declined.len(),
            refused: mate.refused.clone(),
            open: mate.open.iter().map(|(file, ordinal)| file.held(*ordinal)).collect(),
        };
        self.listed_mates().map(view).collect()
    }

    /// The producers of whom this member or a mate has files, in the order of their numbers.
    #[must_use]
    pub fn producers(&self) -> Vec<ProducerView> {
        let mut producers: BTreeSet<i64> = self.complete.keys().chain(self.producers.keys()).copied().collect();
        producers.insert(self.number());
        producers.extend(self.listed_mates().flat_map(|(_, mate)| mate.complete.keys()));
        producers.into_iter().map(|producer| self.producer(producer)).collect()
    }

    fn producer(&self, producer: i64) -> ProducerView {
        let complete = self.complete.get(&producer).cloned().unwrap_or_default();
        let of_mate = |mate: &Mate| mate.complete.get(&producer).cloned().unwrap_or_default();
        let mates: Vec<(i64, FileSet)> = self.listed_mates().map(|(number, mate)| (number, of_mate(mate))).collect();
        let mut missing = FileSet::new();
        for (_, files) in &mates {
            missing.extend(&files.difference(&complete));
        }
        let parked = self.pull.trouble.range(FileKey::all_of(producer)).filter(|(_, trouble)| trouble.parked);
        let parked =
            parked.map(|(file, trouble)| Parked { file: *file, reason: trouble.reason.clone(), tries: trouble.tries });
        ProducerView {
            producer,
            given: self.given_by(producer),
            complete,
            mates,
            missing,
            in_work: self.fetching().filter(|(file, _)| file.producer == producer).map(|(file, _)| file).collect(),
            parked: parked.collect(),
            consensus: self.consensus(producer),
        }
    }

    fn fetching(&self) -> impl Iterator<Item = (FileKey, i64)> + '_ {
        self.pull.fetching.iter().map(|(file, fetching)| (*file, fetching.from))
    }

    fn given_by(&self, producer: i64) -> i64 {
        if producer == self.number() { self.given } else { self.producers.get(&producer).copied().unwrap_or(0) }
    }

    /// The highest number such that this member and all mates, by their last word, have all files of the producer up to it.
    ///
    /// Numbers that do not exist count as held: nobody has anything of them, and their producer gave them, as it said, or belongs
    /// to the cluster no more. Numbers of open files do not count as held.
    #[must_use]
    pub fn consensus(&self, producer: i64) -> i64 {
        let nothing = FileSet::new();
        let here = self.complete.get(&producer).unwrap_or(&nothing);
        let mut members: Vec<(&FileSet, i64)> = vec![(here, self.passed(producer))];
        let mut open: FileSet = self.open.range(FileKey::all_of(producer)).map(|(file, _)| file.file).collect();
        for (_, mate) in self.listed_mates() {
            let passed = mate.passed.get(&producer).copied().unwrap_or(0);
            members.push((mate.complete.get(&producer).unwrap_or(&nothing), passed));
            for (file, _) in mate.open.range(FileKey::all_of(producer)) {
                open.insert(file.file);
            }
        }
        let highest = members.iter().filter_map(|(files, _)| files.last()).max().unwrap_or(0);
        let gone = producer != self.number() && !self.mates.get(&producer).is_some_and(|mate| mate.listed);
        let given = self.given_by(producer).max(if gone { highest } else { 0 });
        // Up to here it is known which numbers exist; behind, only those count that somebody has.
        let mut agreed = given.max(highest);
        for (files, _) in &members {
            for (lacking, passed) in &members {
                let lacks = files.next_beside(lacking, passed + 1);
                agreed = lacks.map_or(agreed, |number| agreed.min(number - 1));
            }
        }
        if let Some(first) = open.ranges().flat_map(|(first, last)| first..=last).find(|file| !here.contains(*file)) {
            agreed = agreed.min(first - 1);
        }
        if agreed > given {
            // The first number beyond that nobody has may be an open file of a producer that was not heard.
            agreed = agreed.min(here.end_of_run(given + 1));
        }
        agreed
    }

    /// How many members get rows of open files now, this one included.
    #[must_use]
    pub fn reachable(&self) -> u32 {
        1 + self.active().count() as u32
    }

    /// Mates that the ledger names and that did not say yet, since this member started, what they have. While there are some,
    /// nobody knows the highest number that a member without a registry gave once.
    #[must_use]
    pub fn unheard(&self) -> Vec<i64> {
        self.listed_mates().filter(|(_, mate)| !mate.heard).map(|(number, _)| number).collect()
    }
}
