//! Files that this member lacks, and from whom it gets them.

use std::collections::BTreeMap;

use crate::files::{FileKey, FileSet};
use crate::message::{Body, Missing, Want};

use super::{Action, Member, Millis};

/// How many files are under way from one mate, and how many of it there are in all with those that arrived and are being stored.
const FETCHES: usize = 2;
const IN_WORK: usize = 4;

/// How often each mate is asked for a file before it is parked, and for how long.
const ATTEMPTS: u32 = 3;
const PARKED: Millis = 300_000;

/// How long is waited after an attempt failed, times the attempts.
const PAUSE: Millis = 1_000;

/// How often a link may break while a file is under way before others go first, for how long.
const BREAKS: u32 = 3;
const AFTER_BREAKS: Millis = 10_000;

/// After how long a file that did not arrive is asked for again: what is there of it need not be sent once more.
const PATIENCE: Millis = 1_800_000;

/// How many files may be in trouble. With so many, nothing new is asked for: it is not the files that are wrong.
const TROUBLES: usize = 4_096;

/// How many files of one producer are looked at that nobody has room for.
const LOOK_AHEAD: usize = 16;

/// How many offers of one mate are kept that were not answered.
const OFFERS: usize = 16;

/// What is fetched, and what went wrong.
#[derive(Debug, Default)]
pub(super) struct Pull {
    pub(super) fetching: BTreeMap<FileKey, Fetching>,
    pub(super) trouble: BTreeMap<FileKey, Trouble>,
    // Files that are to be had whether the consumer runs or not, by producer.
    wanted: BTreeMap<i64, FileSet>,
    // By producer: files below it are here, or under way, or in trouble, or no linked mate has them.
    cursor: BTreeMap<i64, i64>,
    // How often a link broke while a file was under way.
    breaks: BTreeMap<FileKey, u32>,
    // Which producer's files come first: each in its turn.
    turn: i64,
}

#[derive(Debug)]
pub(super) struct Fetching {
    pub(super) from: i64,
    since: Millis,
    arrived: bool,
}

#[derive(Debug, Default)]
pub(super) struct Trouble {
    failed: BTreeMap<i64, u32>,
    pub(super) tries: u32,
    pub(super) reason: String,
    not_before: Millis,
    pub(super) parked: bool,
}

#[derive(PartialEq)]
enum Outcome {
    Started,
    // It is here, or under way, or not to be tried now, or nobody has it.
    Nothing,
    // Those who have it have no room.
    Busy,
}

impl Pull {
    /// Everything is looked at again.
    pub(super) fn start_over(&mut self) {
        self.cursor.clear();
    }

    /// A mate has a file that it had not before.
    pub(super) fn seen(&mut self, file: FileKey, mate: i64) {
        self.look_from(file);
        self.wake_those(mate, |parked| *parked == file);
    }

    fn look_from(&mut self, file: FileKey) {
        if let Some(cursor) = self.cursor.get_mut(&file.producer) {
            *cursor = (*cursor).min(file.file);
        }
    }

    /// A mate has parked files that it had not before: they are tried again at once.
    pub(super) fn wake_those(&mut self, mate: i64, which: impl Fn(&FileKey) -> bool) {
        for (_, trouble) in self.trouble.iter_mut().filter(|(file, trouble)| trouble.parked && which(file)) {
            (trouble.parked, trouble.not_before) = (false, 0);
            trouble.failed.remove(&mate);
        }
    }

    /// Parked files are tried again by all when their time has come.
    pub(super) fn wake(&mut self, now: Millis) {
        for trouble in self.trouble.values_mut().filter(|trouble| trouble.parked && trouble.not_before <= now) {
            trouble.parked = false;
            trouble.failed.clear();
        }
    }

    /// A file is to be had, whether the consumer runs or not.
    pub(super) fn want(&mut self, file: FileKey) {
        self.wanted.entry(file.producer).or_default().insert(file.file);
    }

    pub(super) fn forget_what_is_there(&mut self, complete: &BTreeMap<i64, FileSet>) {
        let there = |file: &FileKey| complete.get(&file.producer).is_some_and(|files| files.contains(file.file));
        self.trouble.retain(|file, _| !there(file));
        self.breaks.retain(|file, _| !there(file));
        for (producer, files) in complete {
            if let Some(wanted) = self.wanted.get_mut(producer) {
                *wanted = wanted.difference(files);
            }
        }
        self.start_over();
    }

    fn forget(&mut self, file: FileKey) {
        self.fetching.remove(&file);
        self.trouble.remove(&file);
        self.breaks.remove(&file);
        if let Some(wanted) = self.wanted.get_mut(&file.producer) {
            wanted.remove(file.file);
        }
    }

    /// The link to a mate broke: what it was sending is asked for again, and it is asked again for what it could not send.
    pub(super) fn interrupted(&mut self, mate: i64, now: Millis) {
        let broken: Vec<FileKey> = self
            .fetching
            .iter()
            .filter(|(_, fetching)| fetching.from == mate && !fetching.arrived)
            .map(|(file, _)| *file)
            .collect();
        for trouble in self.trouble.values_mut() {
            trouble.failed.remove(&mate);
        }
        for file in broken {
            self.fetching.remove(&file);
            if self.breaks.len() >= TROUBLES {
                self.breaks.clear();
            }
            let breaks = self.breaks.entry(file).or_default();
            *breaks += 1;
            // Perhaps it is the file at which links break.
            if *breaks >= BREAKS {
                let trouble = self.trouble.entry(file).or_default();
                trouble.not_before = trouble.not_before.max(now.saturating_add(AFTER_BREAKS));
                trouble.reason = format!("the link to member {mate} broke {breaks} times while the file was under way");
            }
        }
        self.start_over();
    }

    /// Whether all of a file is here and it is being stored.
    pub(super) fn has_arrived(&self, file: FileKey) -> bool {
        self.fetching.get(&file).is_some_and(|fetching| fetching.arrived)
    }

    /// The files of a producer of which that is true.
    pub(super) fn arrived_of(&self, producer: i64) -> impl Iterator<Item = FileKey> + '_ {
        self.fetching.range(FileKey::all_of(producer)).filter(|(_, fetching)| fetching.arrived).map(|(file, _)| *file)
    }

    fn has_room(&self, mate: i64) -> bool {
        let of_mate = || self.fetching.values().filter(|fetching| fetching.from == mate);
        of_mate().filter(|fetching| !fetching.arrived).count() < FETCHES && of_mate().count() < IN_WORK
    }

    fn start(&mut self, file: FileKey, from: i64, now: Millis) -> Action {
        self.fetching.insert(file, Fetching { from, since: now, arrived: false });
        Action::Fetch { from, want: Want { producer: file.producer, file: file.file, offset: 0, content: 0 } }
    }
}

impl Member {
    /// Asks for what is missing, as far as there is room.
    pub(super) fn fetch_missing(&mut self) {
        self.pull.wake(self.now);
        let room = |member: &Self| member.active().any(|(number, _)| member.pull.has_room(number));
        if !room(self) {
            return;
        }
        for file in self.urgent() {
            self.fetch(file);
        }
        if !self.consumer {
            return;
        }
        // A file of each producer in turn: none waits for another's thousands.
        let mut producers: Vec<i64> = Vec::new();
        for (_, mate) in self.active() {
            producers.extend(mate.complete.keys());
        }
        producers.sort_unstable();
        producers.dedup();
        let first = producers.partition_point(|producer| *producer <= self.pull.turn);
        let count = producers.len().max(1);
        producers.rotate_left(first % count);
        let mut at: BTreeMap<i64, (i64, usize)> = BTreeMap::new();
        while !producers.is_empty() && room(self) && self.pull.trouble.len() < TROUBLES {
            producers.retain(|producer| {
                let cursor = self.pull.cursor.get(producer).copied().unwrap_or(1);
                let (from, busy) = at.entry(*producer).or_insert((cursor, 0));
                self.fetch_next(*producer, from, busy)
            });
        }
    }

    // Fetches the next missing file of a producer; answers whether there may be more.
    fn fetch_next(&mut self, producer: i64, from: &mut i64, busy: &mut usize) -> bool {
        let nothing = FileSet::new();
        let here = self.complete.get(&producer).unwrap_or(&nothing);
        let lowest = (*from).max(self.passed(producer) + 1);
        let next = self.active().filter_map(|(_, mate)| mate.complete.get(&producer)?.next_beside(here, lowest)).min();
        let Some(number) = next else {
            if *busy == 0 {
                self.pull.cursor.insert(producer, *from);
            }
            return false;
        };
        *from = number + 1;
        let outcome = self.fetch(FileKey { producer, file: number });
        if outcome == Outcome::Busy {
            *busy += 1;
        } else if *busy == 0 {
            self.pull.cursor.insert(producer, *from);
        }
        if outcome == Outcome::Started {
            self.pull.turn = producer;
        }
        *busy < LOOK_AHEAD
    }

    // What is asked for first: what was tried before, what is wanted, what is offered, and what is open here and complete elsewhere.
    fn urgent(&self) -> Vec<FileKey> {
        let now = self.now;
        let tried = self.pull.trouble.iter().filter(|(_, trouble)| trouble.not_before <= now).map(|(file, _)| *file);
        let mut urgent: Vec<FileKey> = tried.collect();
        for (producer, files) in &self.pull.wanted {
            let numbers = files.ranges().flat_map(|(first, last)| first..=last);
            urgent.extend(numbers.take(LOOK_AHEAD).map(|file| FileKey { producer: *producer, file }));
        }
        for (_, mate) in self.active() {
            urgent.extend(&mate.link.offers);
        }
        let open = self.open.iter().filter(|(file, open)| !open.live && !self.copies.are_sealing(**file));
        urgent.extend(open.map(|(file, _)| *file));
        urgent
    }

    fn fetch(&mut self, file: FileKey) -> Outcome {
        let trouble = self.pull.trouble.get(&file);
        let wait = trouble.is_some_and(|trouble| trouble.not_before > self.now);
        if wait || self.has(file) || self.pull.fetching.contains_key(&file) || self.copies.are_sealing(file) {
            return Outcome::Nothing;
        }
        // Its producer seals it any moment, and says so: a copy that is here is sealed then.
        let writes = |mate: &super::mate::Mate| mate.active() && mate.open.contains_key(&file);
        if self.open.contains_key(&file) && self.mates.get(&file.producer).is_some_and(writes) {
            return Outcome::Nothing;
        }
        let failures = |mate: i64| trouble.and_then(|trouble| trouble.failed.get(&mate)).copied().unwrap_or(0);
        let holders: Vec<i64> = self.active().filter(|(_, mate)| mate.holds(file)).map(|(number, _)| number).collect();
        let servers: Vec<i64> = holders.iter().copied().filter(|mate| failures(*mate) < ATTEMPTS).collect();
        if servers.is_empty() {
            if !holders.is_empty() {
                self.park(file);
            } else if !self.listed_mates().any(|(_, mate)| mate.holds(file)) {
                // It is no more.
                self.pull.trouble.remove(&file);
            }
            return Outcome::Nothing;
        }
        let free: Vec<i64> = servers.iter().copied().filter(|mate| self.pull.has_room(*mate)).collect();
        if free.is_empty() {
            return Outcome::Busy;
        }
        // Its producer has it surely; else each in turn, another one after a failure.
        let tries = trouble.map_or(0, |trouble| i64::from(trouble.tries));
        let turn = (file.file.wrapping_add(tries)).rem_euclid(free.len() as i64) as usize;
        let first = free.contains(&file.producer) && failures(file.producer) == 0;
        let from = if first { file.producer } else { free[turn] };
        let action = self.pull.start(file, from, self.now);
        self.actions.push(action);
        Outcome::Started
    }

    fn park(&mut self, file: FileKey) {
        let Some(trouble) = self.pull.trouble.get_mut(&file) else { return };
        trouble.parked = true;
        trouble.not_before = self.now.saturating_add(PARKED);
        let reason = trouble.reason.clone();
        self.actions.push(Action::Park { file, reason: reason.clone() });
        self.decline(file, &reason);
    }

    // Lets those who offer a file go on to the next.
    fn decline(&mut self, file: FileKey, reason: &str) {
        let mut waiting = Vec::new();
        for (number, mate) in &mut self.mates {
            if mate.link.offers.remove(&file) && mate.speaks() {
                waiting.push(*number);
            }
        }
        for mate in waiting {
            self.say_missing(mate, file, reason);
        }
    }

    fn say_missing(&mut self, to: i64, file: FileKey, reason: &str) {
        self.send(to, Body::Missing(Missing::of(file, reason.to_owned())));
    }

    pub(super) fn offered(&mut self, from: i64, file: FileKey) {
        if !file.is_valid() {
            return;
        }
        let new = self.note_complete(from, file);
        if self.has(file) {
            return self.send(from, Body::Holds(file.into()));
        }
        if let Some(trouble) = self.pull.trouble.get(&file).filter(|trouble| trouble.parked && !new) {
            let reason = trouble.reason.clone();
            return self.say_missing(from, file, &reason);
        }
        let Some(mate) = self.mates.get_mut(&from) else { return };
        if mate.link.offers.len() < OFFERS {
            mate.link.offers.insert(file);
            self.due.pull = true;
        } else {
            self.say_missing(from, file, "too many files are offered at once");
        }
    }

    pub(super) fn arrived(&mut self, file: FileKey) {
        if let Some(fetching) = self.pull.fetching.get_mut(&file) {
            fetching.arrived = true;
            self.due.pull = true;
        }
    }

    pub(super) fn stored(&mut self, file: FileKey) {
        if !file.is_valid() {
            return;
        }
        let void = self.seal_done(file);
        self.close(file);
        self.orphans.forget(file);
        self.pull.forget(file);
        for mate in self.mates.values_mut() {
            mate.link.offers.remove(&file);
        }
        self.due.pull = true;
        if void {
            return self.send_all(&Body::RowsHeld(file.held(0)));
        }
        self.add_complete(file);
        if file.producer == self.number() {
            self.given = self.given.max(file.file);
            self.due.offers = true;
        }
        self.tell_complete(file);
        self.acknowledge(file);
    }

    pub(super) fn failed(&mut self, file: FileKey, from: Option<i64>, reason: &str) {
        let fetching = self.pull.fetching.get(&file).map(|fetching| fetching.from);
        if let Some(server) = fetching.filter(|server| from == Some(*server)) {
            // The mate sends no more of it.
            if self.mates.get(&server).is_some_and(super::mate::Mate::speaks) {
                self.say_missing(server, file, reason);
            }
            self.fetch_failed(file, server, reason);
        }
        if from.is_none() && !self.seal_failed(file) {
            self.adoption_failed(file);
        }
    }

    /// Asks again for files that do not arrive, whoever is to blame.
    pub(super) fn fetch_again(&mut self) {
        let late = |fetching: &&Fetching| !fetching.arrived && self.now >= fetching.since.saturating_add(PATIENCE);
        let late: Vec<(FileKey, i64)> =
            self.pull.fetching.iter().filter(|(_, f)| late(f)).map(|(file, f)| (*file, f.from)).collect();
        for (file, from) in late {
            self.fetch_failed(
                file,
                from,
                &format!("it did not arrive from member {from} within {} minutes", PATIENCE / 60_000),
            );
        }
    }

    fn fetch_failed(&mut self, file: FileKey, from: i64, reason: &str) {
        self.pull.fetching.remove(&file);
        let trouble = self.pull.trouble.entry(file).or_default();
        trouble.tries = trouble.tries.saturating_add(1);
        let failed = trouble.failed.entry(from).or_default();
        *failed += 1;
        trouble.not_before = self.now.saturating_add(PAUSE * Millis::from(*failed));
        reason.clone_into(&mut trouble.reason);
        self.due.pull = true;
    }

    /// A mate does not give, or not take, a file.
    pub(super) fn refused_file(&mut self, from: i64, missing: &Missing) {
        let file = missing.key();
        if !file.is_valid() {
            return;
        }
        if self.pull.fetching.get(&file).is_some_and(|fetching| fetching.from == from && !fetching.arrived) {
            self.fetch_failed(file, from, &missing.reason);
        } else {
            self.declined(from, file);
        }
        let Some(mate) = self.mates.get_mut(&from).filter(|_| missing.lost) else { return };
        if let Some(files) = mate.complete.get_mut(&file.producer) {
            files.remove(file.file);
        }
        mate.link.offers.remove(&file);
        mate.link.offer_from = mate.link.offer_from.min(file.file);
        self.due.offers = true;
        self.acknowledge(file);
    }

    pub(super) fn lost(&mut self, file: FileKey) {
        let had = self.complete.get_mut(&file.producer).is_some_and(|files| files.remove(file.file));
        if !had {
            return;
        }
        if let Some(look) = &mut self.looking {
            look.lost.insert(file);
        }
        self.pull.trouble.remove(&file);
        self.pull.want(file);
        self.pull.look_from(file);
        let reason = format!("member {} fetches it anew", self.number());
        let missing = Missing { lost: true, ..Missing::of(file, reason) };
        self.send_all(&Body::Missing(missing));
        self.due.pull = true;
    }

    /// Notes that a mate has a file completely; answers whether that is new.
    pub(super) fn note_complete(&mut self, from: i64, file: FileKey) -> bool {
        let new = self.mates.get_mut(&from).is_some_and(|mate| mate.note_complete(file));
        if from == file.producer {
            self.gave(file);
        }
        self.due.offers = true;
        if new {
            self.pull.seen(file, from);
            self.due.pull = true;
            self.due.orphans |= self.may_be_orphan(file);
            self.numbers_known();
            self.acknowledge(file);
        }
        new
    }
}
