//! Links to mates: greetings, and what each side has.

use std::collections::BTreeMap;

use crate::files::{FileKey, FileSet, HIGHEST, RangeError};
use crate::message::{Body, Hello, Holdings, HoldingsOf, Message, Refused, VERSION};

use super::mate::{Link, Mate};
use super::{Action, Member};

/// How many ranges one message tells at most: what is left out is offered and wanted file by file.
const RANGES: usize = 500_000;

/// How many files a member may have opened, before it lost its disk, that no mate knows of yet.
const UNSEEN: i64 = 1_000;

impl Member {
    pub(super) fn listed(&mut self, members: &[i64]) {
        let own = self.number();
        for (number, mate) in &mut self.mates {
            mate.listed = members.contains(number);
        }
        for number in members.iter().filter(|number| **number != own) {
            self.mates.entry(*number).or_default().listed = true;
        }
        self.mates.retain(|_, mate| mate.listed || mate.link.up);
        let linked: Vec<i64> = self.listed_mates().filter(|(_, mate)| mate.link.up).map(|(number, _)| number).collect();
        for mate in linked {
            self.greet(mate);
            self.tell(mate);
        }
        self.whatever_changed();
    }

    pub(super) fn narrow(&mut self, mate: i64, first: Vec<(i64, i64)>) {
        if let Some(mate) = self.mates.get_mut(&mate) {
            mate.link.narrowed = first.into_iter().filter(|(_, first)| *first > 1).collect();
        }
    }

    pub(super) fn up(&mut self, number: i64) {
        // A second node with the number of a mate whose link is up must not take its place: its greeting is compared.
        let rival = self.mates.get(&number).filter(|mate| mate.link.up && mate.link.greeted);
        let rival = rival.and_then(|mate| mate.hello.as_ref()).map(|hello| hello.key.clone());
        self.down(number);
        let mate = self.mates.entry(number).or_default();
        mate.link = Link { up: true, rival, ..Link::default() };
        self.note_unsettled(number);
        self.greet(number);
    }

    pub(super) fn down(&mut self, number: i64) {
        let Some(mate) = self.mates.get_mut(&number) else { return };
        let was_up = std::mem::take(&mut mate.link).up;
        if !mate.listed {
            self.mates.remove(&number);
        }
        if was_up {
            self.pull.interrupted(number, self.now);
            self.due.pull = true;
            self.orphans.forget_mate(number);
            self.copies.forget_mate(number);
            self.tell_copies_of(number);
            self.due.orphans = true;
        }
    }

    pub(super) fn received(&mut self, from: i64, message: Message) {
        // A body of a later version is none that is known.
        let Some(body) = message.body else { return };
        match body {
            Body::Hello(hello) => return self.greeted(from, hello),
            Body::Refused(Refused { reason }) => return self.was_refused(from, reason),
            _ => {}
        }
        let Some(mate) = self.mates.get(&from).filter(|mate| mate.link.up && mate.link.greeted) else { return };
        match body {
            Body::Holdings(holdings) => return self.told(from, holdings),
            Body::Holds(file) => return self.told_complete(from, file.into()),
            Body::RowsHeld(held) => return self.told_rows(from, held),
            _ if !mate.speaks() => return,
            _ => {}
        }
        match body {
            Body::Offer(file) => self.offered(from, file.into()),
            Body::Want(want) => self.wanted(from, want),
            Body::Missing(missing) => self.refused_file(from, &missing),
            Body::Rows(rows) => self.rows(from, rows),
            Body::Sealed(sealed) => self.sealed(from, sealed),
            Body::WantRows(held) => self.wanted_rows(from, held),
            // Pieces are put together by whoever runs the member.
            Body::Piece(_) | Body::Taken(_) => {}
            Body::Hello(_) | Body::Refused(_) | Body::Holdings(_) | Body::Holds(_) | Body::RowsHeld(_) => {}
        }
    }

    /// Greets all mates once more, as something changed that a greeting says. They answer with what they have.
    pub(super) fn greet_again(&mut self) {
        let linked: Vec<i64> = self.listed_mates().filter(|(_, mate)| mate.link.up).map(|(number, _)| number).collect();
        for number in linked {
            if let Some(mate) = self.mates.get_mut(&number) {
                mate.link.hello_sent = false;
            }
            self.greet(number);
        }
    }

    fn greet(&mut self, number: i64) {
        let Some(mate) = self.mates.get_mut(&number) else { return };
        if !mate.listed || !mate.link.up || mate.link.hello_sent {
            return;
        }
        mate.link.hello_sent = true;
        let Self { config, since, .. } = self;
        let hello = Hello {
            version: VERSION,
            member: config.member,
            cluster: config.cluster.clone(),
            policy: config.policy.clone(),
            key: config.key.clone(),
            since: *since,
        };
        self.send(number, Body::Hello(hello));
    }

    fn greeted(&mut self, from: i64, hello: Hello) {
        let Some(mate) = self.mates.get(&from).filter(|mate| mate.link.up) else { return };
        let mut objection = self.stranger(&hello);
        if objection.is_none() && hello.member != from {
            objection = Some(format!(
                "member {} answers where member {from} is expected: the operator policy of one of them has a wrong address",
                hello.member
            ));
        }
        if objection.is_none() && mate.link.rival.as_ref().is_some_and(|key| *key != hello.key) {
            objection = Some(self.rival(&hello));
        }
        if let Some(reason) = objection {
            return self.refuse(from, reason);
        }
        let Some(mate) = self.mates.get_mut(&from) else { return };
        mate.hello = Some(hello);
        mate.refused = None;
        mate.link.greeted = true;
        // A second greeting asks anew, as its `since` changed.
        mate.link.told = false;
        self.tell(from);
    }

    /// What speaks against a node that greets, before its link is told as [`super::Event::Up`]: another cluster, this member's
    /// number, or that of a mate whose link is up and whose key is another. Whoever runs the member ends such a link with
    /// [`Body::Refused`], and the link that was there stays.
    #[must_use]
    pub fn objection(&self, hello: &Hello) -> Option<String> {
        let linked = self.mates.get(&hello.member).filter(|mate| mate.link.up && mate.link.greeted);
        let rival = linked.and_then(|mate| mate.hello.as_ref()).is_some_and(|linked| linked.key != hello.key);
        self.stranger(hello).or_else(|| rival.then(|| self.rival(hello)))
    }

    // Whether a node is of another cluster, or has this member's number.
    fn stranger(&self, hello: &Hello) -> Option<String> {
        let own = &self.config;
        if hello.cluster != own.cluster {
            return Some(format!(
                "member {} is of cluster '{}', and member {} of cluster '{}': the operator policies of both must name one cluster",
                hello.member, hello.cluster, own.member, own.cluster
            ));
        }
        if hello.member != own.member {
            return None;
        }
        Some(if hello.key == own.key {
            format!(
                "the address is that of member {} itself: two operator policies must not name one address",
                own.member
            )
        } else {
            format!(
                "two nodes have the number {} in cluster '{}', with the policies '{}' and '{}': end one of them, and give it a \
                 policy of its own",
                own.member, own.cluster, own.policy, hello.policy
            )
        })
    }

    fn rival(&self, hello: &Hello) -> String {
        format!(
            "two nodes have the number {} in cluster '{}': one is linked, and another one came with the policy '{}': end one of \
             them; a node that came back on an empty disk is let in as soon as its old link is seen to be dead",
            hello.member, self.config.cluster, hello.policy
        )
    }

    fn refuse(&mut self, with: i64, reason: String) {
        self.send(with, Body::Refused(Refused { reason: reason.clone() }));
        self.actions.push(Action::Conflict { with, reason: reason.clone() });
        self.down(with);
        if let Some(mate) = self.mates.get_mut(&with) {
            mate.refused = Some(reason);
        }
    }

    fn was_refused(&mut self, from: i64, reason: String) {
        self.down(from);
        if let Some(mate) = self.mates.get_mut(&from) {
            mate.refused = Some(reason);
        }
    }

    /// Tells all mates what this member has.
    pub(super) fn tell_all(&mut self) {
        let mates: Vec<i64> = self.speaking().collect();
        for number in mates {
            if let Some(mate) = self.mates.get_mut(&number) {
                mate.link.told = false;
            }
            self.tell(number);
        }
    }

    /// Tells a mate what this member has, once; not before what is under way of the mate's own files ended.
    pub(super) fn tell(&mut self, number: i64) {
        let Some(mate) = self.mates.get(&number) else { return };
        if !mate.speaks() || mate.link.told || self.is_unsettled(number) {
            return;
        }
        let holdings = self.holdings(mate);
        self.send(number, Body::Holdings(holdings));
        if let Some(mate) = self.mates.get_mut(&number) {
            mate.link.told = true;
        }
    }

    // What this member has, as it is told to a mate.
    fn holdings(&self, mate: &Mate) -> Holdings {
        let mut of: BTreeMap<i64, HoldingsOf> = BTreeMap::new();
        let producers = self.complete.keys().copied().chain(self.open.keys().map(|file| file.producer));
        // What is not wanted is said, also of a producer of whom nothing is here.
        let limited =
            self.listed_mates().filter(|_| self.since != 0).flat_map(|(_, mate)| mate.complete.keys().copied());
        for producer in producers.chain(limited).chain([self.number()]) {
            of.entry(producer).or_insert_with(|| HoldingsOf {
                producer,
                given: if producer == self.number() { self.given } else { 0 },
                before: mate.link.narrowed.get(&producer).map_or(0, |first| first - 1),
                passed: self.passed(producer),
                ..HoldingsOf::default()
            });
        }
        let mut room = RANGES;
        for (producer, files) in &self.complete {
            let Some(of) = of.get_mut(producer) else { continue };
            // The newest when there are too many.
            let ranges: Vec<_> = files.ranges().filter(|(_, last)| *last > of.before).collect();
            let skipped = ranges.len().saturating_sub(room);
            room -= ranges.len() - skipped;
            of.ranges =
                ranges[skipped..].iter().flat_map(|(first, last)| [(*first).max(of.before + 1), *last]).collect();
        }
        for (file, open) in &self.open {
            if let Some(of) = of.get_mut(&file.producer) {
                of.open.push(file.held(open.ordinal));
            }
        }
        Holdings { of: of.into_values().collect() }
    }

    /// The highest number of a producer's files that this member does not want.
    pub(super) fn passed(&self, producer: i64) -> i64 {
        if self.since == 0 {
            return 0;
        }
        let said = self.listed_mates().filter(|(_, mate)| mate.heard && mate.complete.contains_key(&producer));
        said.map(|(_, mate)| mate.before.get(&producer).copied().unwrap_or(0)).min().unwrap_or(0)
    }

    fn told(&mut self, from: i64, holdings: Holdings) {
        let heard = match Heard::read(&holdings) {
            Ok(heard) => heard,
            Err(error) => {
                return self.refuse(from, format!("what member {from} says that it has cannot be read: {error}"));
            }
        };
        let passed: Vec<i64> = holdings.of.iter().map(|of| self.passed(of.producer)).collect();
        if let Some(given) = holdings.of.iter().find(|of| of.producer == from) {
            self.producers.insert(from, given.given.clamp(0, HIGHEST));
        }
        let Some(mate) = self.mates.get_mut(&from) else { return };
        let first = !mate.link.known;
        mate.heard = true;
        mate.link.known = true;
        let before = std::mem::replace(&mut mate.complete, heard.complete);
        let open = std::mem::replace(&mut mate.open, heard.open);
        mate.passed = heard.passed;
        mate.before = heard.before;
        mate.link.offer_from = 0;
        mate.link.declined.clear();
        let Mate { complete, link, .. } = mate;
        let has = |file: &FileKey| complete.get(&file.producer).is_some_and(|files| files.contains(file.file));
        link.offered.retain(|file, _| !has(file));
        link.sending.retain(|file, _| !has(file));
        link.streams.retain(|file, _| !has(file));
        let had = |file: &FileKey| before.get(&file.producer).is_some_and(|files| files.contains(file.file));
        self.pull.wake_those(from, |file| has(file) && !had(file));
        self.rows_told(from, &open, first);
        let now_passed: Vec<i64> = holdings.of.iter().map(|of| self.passed(of.producer)).collect();
        if passed != now_passed {
            self.tell_all();
        }
        self.numbers_known();
        self.whatever_changed();
    }

    fn told_complete(&mut self, from: i64, file: FileKey) {
        if file.is_valid() {
            self.note_complete(from, file);
        }
    }

    /// A mate spoke of a file of its own: it gave its number.
    pub(super) fn gave(&mut self, file: FileKey) {
        let given = self.producers.entry(file.producer).or_default();
        *given = (*given).max(file.file);
    }

    /// Mates may know own files that this member does not know that it numbered: it lost its disk.
    pub(super) fn numbers_known(&mut self) {
        let own = self.number();
        let highest = self.listed_mates().map(|(_, mate)| mate.highest(own)).max().unwrap_or(0);
        if highest > self.given {
            // Rows of later files may be on their way to a mate's disk: none of their numbers is given twice.
            self.given = highest.saturating_add(UNSEEN);
            self.actions.push(Action::NumberFrom(self.given));
            self.tell_all();
        }
    }

    // What mates have, or which mates count, changed by much.
    fn whatever_changed(&mut self) {
        self.pull.start_over();
        self.due = super::Due { offers: true, pull: true, orphans: true };
        let waiting: Vec<FileKey> = self.waits.files().collect();
        for file in waiting {
            self.acknowledge(file);
        }
    }
}

// Holdings as they were read.
#[derive(Default)]
struct Heard {
    complete: BTreeMap<i64, FileSet>,
    open: BTreeMap<FileKey, u64>,
    passed: BTreeMap<i64, i64>,
    before: BTreeMap<i64, i64>,
}

impl Heard {
    fn read(holdings: &Holdings) -> Result<Self, RangeError> {
        let mut heard = Self::default();
        for of in holdings.of.iter().filter(|of| of.producer > 0) {
            heard.complete.insert(of.producer, FileSet::from_pairs(&of.ranges)?);
            heard.passed.insert(of.producer, of.passed.clamp(0, HIGHEST));
            heard.before.insert(of.producer, of.before.clamp(0, HIGHEST));
            for held in &of.open {
                let file = FileKey { producer: of.producer, file: held.file };
                if file.is_valid() {
                    heard.open.insert(file, held.ordinal);
                }
            }
        }
        Ok(heard)
    }
}
