//! Files that are offered and given to mates.

use crate::files::FileKey;
use crate::message::{About, Body, File, Missing, Sealed, Want};

use super::{Action, Member, Millis};

/// How many files are offered to one mate and not done.
const OFFERS: usize = 2;

/// How many files one mate may have wanted and not said that it has.
const SENDING: usize = 16;

/// When a file that a mate declined is offered again, and after how long no answer counts as one.
const AGAIN: Millis = 300_000;
const SILENCE: Millis = 600_000;

/// How many declined files are known of one mate; beyond, nothing more is offered until it takes some.
const DECLINED: usize = 4_096;

impl Member {
    pub(super) fn completed(&mut self, mut sealed: Sealed, rows: u64) {
        let file = sealed.key();
        if !file.is_valid() || file.producer != self.number() {
            return;
        }
        // Who follows it has some of its rows, or will have what is under way.
        let follows = |mate: &super::mate::Mate| mate.open.contains_key(&file) || mate.link.streams.contains_key(&file);
        let followers: Vec<i64> =
            self.mates.iter().filter(|(_, mate)| mate.speaks() && follows(mate)).map(|(number, _)| *number).collect();
        self.close(file);
        self.orphans.forget(file);
        self.given = self.given.max(file.file);
        sealed.about.get_or_insert_with(About::default).rows = rows;
        if rows == 0 {
            self.void.insert(file.file);
            self.nobody_has(file);
            self.send_all(&Body::Sealed(sealed));
        } else {
            self.void.remove(file.file);
            self.add_complete(file);
            let others: Vec<i64> = self.speaking().collect();
            for mate in others {
                let body =
                    if followers.contains(&mate) { Body::Sealed(sealed.clone()) } else { Body::Holds(file.into()) };
                self.send(mate, body);
            }
        }
        self.due.offers = true;
        self.due.orphans = true;
        self.acknowledge(file);
    }

    /// A file came to nothing: nobody has rows of it that count.
    pub(super) fn nobody_has(&mut self, file: FileKey) {
        for mate in self.mates.values_mut() {
            mate.open.remove(&file);
        }
    }

    /// Tells a mate that a file of which it has rows came to nothing.
    pub(super) fn tell_void(&mut self, to: i64, file: FileKey) {
        if let Some(mate) = self.mates.get_mut(&to) {
            mate.open.remove(&file);
        }
        let sealed =
            Sealed { producer: file.producer, file: file.file, about: Some(About::default()), ..Sealed::default() };
        self.send(to, Body::Sealed(sealed));
    }

    pub(super) fn add_complete(&mut self, file: FileKey) {
        if let Some(look) = &mut self.looking {
            look.lost.remove(&file);
            look.complete.entry(file.producer).or_default().insert(file.file);
        }
        if self.complete.entry(file.producer).or_default().insert(file.file) {
            for mate in self.mates.values_mut() {
                mate.link.offer_from = mate.link.offer_from.min(file.file);
            }
        }
    }

    /// Offers own files to the mates that lack them, in the order of their numbers.
    pub(super) fn offer_all(&mut self) {
        if !self.distributor {
            return;
        }
        let (own, now) = (self.number(), self.now);
        let Self { mates, complete, actions, .. } = self;
        let Some(files) = complete.get(&own) else { return };
        for (to, mate) in mates.iter_mut().filter(|(_, mate)| mate.active()) {
            let nothing = crate::files::FileSet::new();
            let there = mate.complete.get(&own).unwrap_or(&nothing);
            let link = &mut mate.link;
            let from = link.offer_from.max(mate.passed.get(&own).copied().unwrap_or(0) + 1);
            let again = link.declined.iter().find(|(_, at)| **at <= now).map(|(file, _)| *file);
            let mut again = again.filter(|file| file.producer == own && files.contains(file.file));
            let mut next = from;
            while link.offered.len() < OFFERS {
                let file = match again.take() {
                    Some(file) => file,
                    None if link.declined.len() >= DECLINED => break,
                    None => {
                        let Some(number) = files.next_beside(there, next) else {
                            link.offer_from = next;
                            break;
                        };
                        (next, link.offer_from) = (number + 1, number);
                        FileKey { producer: own, file: number }
                    }
                };
                if link.offered.contains_key(&file) || link.declined.get(&file).is_some_and(|at| *at > now) {
                    continue;
                }
                link.declined.remove(&file);
                link.offered.insert(file, now);
                actions.push(Action::Send(*to, Body::Offer(file.into()).into()));
            }
        }
    }

    pub(super) fn wanted(&mut self, from: i64, want: Want) {
        let (file, now) = (FileKey::from(want), self.now);
        let refusal = if !self.has(file) {
            Some(format!("member {} does not have {file}", self.number()))
        } else if self
            .mates
            .get(&from)
            .is_some_and(|mate| mate.link.sending.len() >= SENDING && !mate.link.sending.contains_key(&file))
        {
            Some(format!("member {} sends {SENDING} files to member {from} already", self.number()))
        } else {
            None
        };
        if let Some(reason) = refusal {
            return self.send(from, Body::Missing(Missing::of(file, reason)));
        }
        let Some(mate) = self.mates.get_mut(&from) else { return };
        if let Some(since) = mate.link.offered.get_mut(&file) {
            *since = now;
        }
        mate.link.sending.insert(file, now);
        self.actions.push(Action::SendFile { to: from, want });
    }

    pub(super) fn cannot_send(&mut self, to: i64, file: FileKey, reason: String) {
        let rows = self.cannot_send_rows(to, file);
        let Some(mate) = self.mates.get_mut(&to) else { return };
        let sending = mate.link.sending.remove(&file).is_some();
        let speaks = mate.speaks();
        // Rows of an own file are sent later; those of another's were asked for, and the mate may ask elsewhere.
        if speaks && (sending || rows && file.producer != self.number()) {
            self.send(to, Body::Missing(Missing::of(file, reason)));
        }
    }

    /// A mate does not take now what was offered or sent to it.
    pub(super) fn declined(&mut self, from: i64, file: FileKey) {
        let again = self.now.saturating_add(AGAIN);
        let Some(mate) = self.mates.get_mut(&from) else { return };
        mate.link.sending.remove(&file);
        if mate.link.offered.remove(&file).is_some() {
            mate.link.declined.insert(file, again);
            self.due.offers = true;
        }
    }

    /// Gives room to others where a mate does not answer.
    pub(super) fn give_up_on_silence(&mut self) {
        let now = self.now;
        for mate in self.mates.values_mut() {
            let link = &mut mate.link;
            let silent = |since: &Millis| now >= since.saturating_add(SILENCE);
            link.sending.retain(|_, since| !silent(since));
            let given_up: Vec<FileKey> =
                link.offered.iter().filter(|(_, at)| silent(at)).map(|(file, _)| *file).collect();
            for file in given_up {
                link.offered.remove(&file);
                link.declined.insert(file, now.saturating_add(AGAIN));
            }
        }
    }

    /// Tells all mates that this member has a file.
    pub(super) fn tell_complete(&mut self, file: FileKey) {
        self.send_all(&Body::Holds(File::from(file)));
    }
}
