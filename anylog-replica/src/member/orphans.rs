//! Open files whose producer is away, or lost them.

use std::collections::{BTreeMap, BTreeSet};

use crate::files::FileKey;
use crate::message::{Body, RowsHeld};

use super::mate::Mate;
use super::{Action, Member, Millis};

/// How many orphans one mate is asked for at once.
const ASKED: usize = 4;

/// After how long without rows another mate is asked, or the same again; doubled each time, up to the longest.
const PATIENCE: Millis = 10_000;
const LONGEST_PATIENCE: Millis = 300_000;

/// What is done about orphans.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    asked: BTreeMap<FileKey, Asked>,
    adopting: BTreeMap<FileKey, Adopting>,
    // Open files of mates that are away, and since when nobody adds to them.
    since: BTreeMap<FileKey, Millis>,
}

#[derive(Debug)]
struct Asked {
    from: i64,
    // What was here when rows came last, or when they were asked for, and when that was.
    ordinal: u64,
    since: Millis,
    patience: Millis,
    tries: usize,
}

#[derive(Debug, Default)]
struct Adopting {
    // `Adopt` was said and is not done.
    busy: bool,
    not_before: Millis,
    failures: u32,
}

impl Orphans {
    pub(super) fn forget(&mut self, file: FileKey) {
        self.asked.remove(&file);
        self.adopting.remove(&file);
        self.since.remove(&file);
    }

    pub(super) fn forget_mate(&mut self, mate: i64) {
        self.asked.retain(|_, asked| asked.from != mate);
    }
}

impl Member {
    /// Whether nobody adds to an open file at the moment, as far as this member knows.
    pub(super) fn may_be_orphan(&self, file: FileKey) -> bool {
        if file.producer == self.number() {
            !self.is_live(file) && !self.void.contains(file.file)
        } else {
            !self.mates.get(&file.producer).is_some_and(Mate::active)
        }
    }

    /// Open files of mates that are away, up to which ordinal they are here, and for how long nobody added to them.
    ///
    /// Such a file stays open: its producer may come back with rows that nobody else has, and seals it then. A file that others sealed
    /// before would be another one than its.
    #[must_use]
    pub fn orphans(&self) -> Vec<(RowsHeld, Millis)> {
        let orphan = |(file, since): (&FileKey, &Millis)| (file.held(self.ordinal(*file)), self.now - since);
        self.orphans.since.iter().map(orphan).collect()
    }

    /// Brings together what is left of files whose producer is away; adopts those of this member.
    pub(super) fn care_for_orphans(&mut self) {
        let mut files: BTreeSet<FileKey> = self.open.keys().copied().collect();
        for (_, mate) in self.active() {
            files.extend(mate.open.iter().filter(|(_, ordinal)| **ordinal > 0).map(|(file, _)| *file));
        }
        files.retain(|file| self.may_be_orphan(*file) && !self.has(*file));
        let now = self.now;
        let others = |file: &&FileKey| file.producer != self.config.member && self.open.contains_key(file);
        let since = |file: &FileKey| (*file, self.orphans.since.get(file).copied().unwrap_or(now));
        self.orphans.since = files.iter().filter(others).map(since).collect();
        self.orphans.asked.retain(|file, _| files.contains(file));
        self.orphans.adopting.retain(|file, adopting| adopting.busy || files.contains(file));
        for file in files {
            // Whoever has it completely gives all of it.
            if self.active().any(|(_, mate)| mate.holds(file)) {
                self.orphans.asked.remove(&file);
            } else {
                self.care_for(file);
            }
        }
    }

    fn care_for(&mut self, file: FileKey) {
        let here = self.ordinal(file);
        let more = |mate: &Mate| mate.open.get(&file).is_some_and(|ordinal| *ordinal > here);
        let mut with_more: Vec<(u64, i64)> =
            self.active().filter(|(_, mate)| more(mate)).map(|(number, mate)| (mate.ordinal(file), number)).collect();
        with_more.sort_unstable_by(|a, b| b.cmp(a));
        if with_more.is_empty() {
            self.orphans.asked.remove(&file);
            if file.producer == self.number() && here > 0 && self.nobody_may_have_more(file, here) {
                self.adopt(file);
            }
            return;
        }
        let now = self.now;
        let mut tries = 0;
        let mut patience = PATIENCE;
        if let Some(asked) = self.orphans.asked.get_mut(&file) {
            if here > asked.ordinal {
                (asked.ordinal, asked.since, asked.patience) = (here, now, PATIENCE);
            }
            if now < asked.since.saturating_add(asked.patience) {
                return;
            }
            tries = asked.tries + 1;
            patience = (asked.patience * 2).min(LONGEST_PATIENCE);
        }
        let from = with_more[tries % with_more.len()].1;
        let busy = self.orphans.asked.iter().filter(|(other, asked)| asked.from == from && **other != file).count();
        if busy >= ASKED {
            return;
        }
        self.orphans.asked.insert(file, Asked { from, ordinal: here, since: now, patience, tries });
        self.send(from, Body::WantRows(file.held(here)));
    }

    // Whether all mates said what they have, and none has more of a file of this member than is here.
    //
    // A mate that is away may have rows that were acknowledged, and that nobody else has: as long as it belongs to the cluster and
    // was not heard, the file stays open. Its rows are in the tables meanwhile.
    fn nobody_may_have_more(&self, file: FileKey, here: u64) -> bool {
        self.listed_mates().all(|(_, mate)| mate.heard && mate.ordinal(file) <= here)
    }

    fn adopt(&mut self, file: FileKey) {
        let now = self.now;
        let adopting = self.orphans.adopting.entry(file).or_default();
        // What is not answered for is said again after a while.
        if now < adopting.not_before {
            return;
        }
        adopting.busy = true;
        adopting.not_before = now.saturating_add(LONGEST_PATIENCE);
        self.actions.push(Action::Adopt(file));
    }

    pub(super) fn adoption_failed(&mut self, file: FileKey) {
        let now = self.now;
        let Some(adopting) = self.orphans.adopting.get_mut(&file).filter(|adopting| adopting.busy) else { return };
        adopting.busy = false;
        adopting.not_before = now.saturating_add((PATIENCE << adopting.failures.min(8)).min(LONGEST_PATIENCE));
        adopting.failures = adopting.failures.saturating_add(1);
    }
}
