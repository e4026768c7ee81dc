//! Rows of open files on their way to mates.

use std::collections::{BTreeMap, VecDeque};

use crate::files::FileKey;
use crate::message::{Body, Missing, RowsHeld};

use super::{Action, Member, Millis, Open};

/// How many messages with rows of one file are under way to a mate that did not answer for them.
const UNDER_WAY: usize = 4;

/// After how long without an answer rows are sent again; doubled each time, up to the longest.
const PATIENCE: Millis = 10_000;
const LONGEST_PATIENCE: Millis = 60_000;

/// How long nothing is sent after rows could not be sent; doubled each time, up to the longest.
const PAUSE: Millis = 1_000;
const LONGEST_PAUSE: Millis = 300_000;

/// A mate says for each message with rows that did not follow the rows before that they did not: going back once is enough.
const ONE_WAY_BACK: Millis = 1_000;

/// The rows of one file to one mate.
#[derive(Debug)]
pub(super) struct Stream {
    // The last row that was sent.
    sent: u64,
    // The last rows of what was sent and not answered for.
    flight: VecDeque<u64>,
    // `SendRows` was said behind this row and is not done.
    busy: Option<u64>,
    // Nothing is sent before.
    not_before: Millis,
    failures: u32,
    // Since when no answer said more than those before, and how long that is accepted.
    since: Millis,
    patience: Millis,
    // When it went back last.
    back: Option<Millis>,
}

impl Stream {
    fn after(sent: u64, now: Millis) -> Self {
        Self {
            sent,
            flight: VecDeque::new(),
            busy: None,
            not_before: 0,
            failures: 0,
            since: now,
            patience: PATIENCE,
            back: None,
        }
    }

    // The rows behind this one are sent again.
    fn go_back(&mut self, ordinal: u64, now: Millis) {
        self.sent = ordinal;
        self.flight.clear();
        self.since = now;
        self.back = Some(now);
    }

    // The mate has rows up to this one, and had them up to `before`.
    fn answered(&mut self, ordinal: u64, before: u64, now: Millis) {
        self.flight.retain(|sent| *sent > ordinal);
        self.sent = self.sent.max(ordinal);
        if ordinal > before {
            self.since = now;
            self.patience = PATIENCE;
            self.failures = 0;
        } else if ordinal < before || self.sent > ordinal && self.may_go_back(now) {
            self.go_back(ordinal, now);
        }
    }

    fn may_go_back(&self, now: Millis) -> bool {
        self.back.is_none_or(|back| now >= back.saturating_add(ONE_WAY_BACK))
    }
}

impl Member {
    pub(super) fn opened(&mut self, file: FileKey) {
        if !self.may_write(file) {
            return;
        }
        self.note_open(file, self.ordinal(file), true);
        self.given = self.given.max(file.file);
        // Mates know then that the number exists.
        self.send_all(&Body::RowsHeld(file.held(0)));
    }

    pub(super) fn written(&mut self, held: RowsHeld) {
        let file = FileKey::from(held);
        if !self.may_write(file) {
            return;
        }
        self.note_open(file, self.ordinal(file).max(held.ordinal), true);
        self.given = self.given.max(file.file);
        self.follow(file);
        self.acknowledge(file);
    }

    fn may_write(&self, file: FileKey) -> bool {
        file.is_valid() && file.producer == self.number() && !self.has(file) && !self.void.contains(file.file)
    }

    /// Sends rows of all own open files to all mates that lack them.
    pub(super) fn follow_all(&mut self) {
        let own: Vec<FileKey> = self.open.range(FileKey::all_of(self.number())).map(|(file, _)| *file).collect();
        for file in own {
            self.follow(file);
        }
    }

    // Sends rows of an own open file to all mates that lack them.
    fn follow(&mut self, file: FileKey) {
        let (now, ordinal) = (self.now, self.ordinal(file));
        if ordinal == 0 {
            return;
        }
        let active: Vec<i64> = self.active().map(|(number, _)| number).collect();
        for to in active {
            let Some(mate) = self.mates.get_mut(&to) else { continue };
            let there = mate.ordinal(file);
            if there < ordinal {
                mate.link.streams.entry(file).or_insert_with(|| Stream::after(there, now));
            }
            self.pump(to, file);
        }
    }

    /// Sends rows of a file to the mates that asked for them.
    pub(super) fn pass_on(&mut self, file: FileKey) {
        let active: Vec<i64> = self.active().map(|(number, _)| number).collect();
        for to in active {
            self.pump(to, file);
        }
    }

    // Sends the next rows of a file to a mate, if some are to be sent and there is room.
    fn pump(&mut self, to: i64, file: FileKey) {
        let (now, ordinal) = (self.now, self.ordinal(file));
        let Some(mate) = self.mates.get_mut(&to) else { return };
        let Some(stream) = mate.link.streams.get_mut(&file) else { return };
        if stream.busy.is_some()
            || stream.sent >= ordinal
            || stream.flight.len() >= UNDER_WAY
            || now < stream.not_before
        {
            return;
        }
        stream.busy = Some(stream.sent);
        if stream.flight.is_empty() {
            stream.since = now;
        }
        self.actions.push(Action::SendRows { to, after: file.held(stream.sent) });
    }

    pub(super) fn rows_sent(&mut self, to: i64, sent: RowsHeld) {
        let (file, now) = (FileKey::from(sent), self.now);
        let Some(mate) = self.mates.get_mut(&to) else { return };
        let Some(stream) = mate.link.streams.get_mut(&file).filter(|stream| stream.busy.is_some()) else { return };
        let behind = stream.busy.take();
        if behind != Some(stream.sent) {
            // It went back meanwhile.
        } else if sent.ordinal > stream.sent {
            stream.sent = sent.ordinal;
            stream.flight.push_back(sent.ordinal);
        } else {
            // The rows are not where they were to be: they may be soon.
            stream.not_before = now.saturating_add(PAUSE);
        }
        self.pump(to, file);
    }

    pub(super) fn cannot_send_rows(&mut self, to: i64, file: FileKey) -> bool {
        let (own, now) = (self.number(), self.now);
        let Some(mate) = self.mates.get_mut(&to) else { return false };
        let Some(stream) = mate.link.streams.get_mut(&file).filter(|stream| stream.busy.is_some()) else {
            return false;
        };
        stream.busy = None;
        stream.not_before = now.saturating_add((PAUSE << stream.failures.min(16)).min(LONGEST_PAUSE));
        stream.failures = stream.failures.saturating_add(1);
        if file.producer != own {
            // The mate asked for them, and may ask another one.
            mate.link.streams.remove(&file);
        }
        true
    }

    pub(super) fn told_rows(&mut self, from: i64, held: RowsHeld) {
        let (file, now) = (FileKey::from(held), self.now);
        if !file.is_valid() {
            return;
        }
        let own = file.producer == self.number();
        if own && self.void.contains(file.file) && held.ordinal > 0 {
            return self.tell_void(from, file);
        }
        let Some(mate) = self.mates.get_mut(&from) else { return };
        if mate.holds(file) {
            return;
        }
        let before = mate.open.insert(file, held.ordinal).unwrap_or(0);
        if held.ordinal == 0 && from != file.producer {
            // Only its producer speaks of a file without rows.
            mate.open.remove(&file);
        }
        if let Some(stream) = mate.link.streams.get_mut(&file) {
            stream.answered(held.ordinal, before, now);
        }
        if from == file.producer {
            self.gave(file);
        }
        self.pump(from, file);
        if own {
            self.numbers_known();
            self.acknowledge(file);
        }
        self.due.orphans |= self.may_be_orphan(file);
    }

    /// A mate said up to which rows it has all open files, and had said `before`.
    pub(super) fn rows_told(&mut self, from: i64, before: &BTreeMap<FileKey, u64>, first: bool) {
        let (own, now) = (self.number(), self.now);
        let Some(mate) = self.mates.get_mut(&from) else { return };
        for (file, stream) in &mut mate.link.streams {
            let there = mate.open.get(file).copied().unwrap_or(0);
            let before = before.get(file).copied().unwrap_or(0);
            if there != before || first {
                stream.answered(there, before, now);
            }
        }
        let void: Vec<FileKey> = mate.open.range(FileKey::all_of(own)).map(|(file, _)| *file).collect();
        for file in void.into_iter().filter(|file| self.void.contains(file.file)).collect::<Vec<_>>() {
            self.tell_void(from, file);
        }
        self.follow_all();
    }

    pub(super) fn wanted_rows(&mut self, from: i64, held: RowsHeld) {
        let (file, now) = (FileKey::from(held), self.now);
        if self.has(file) {
            return self.send(from, Body::Holds(file.into()));
        }
        if !self.open.contains_key(&file) {
            let reason = format!("member {} has no rows of {file}", self.number());
            return self.send(from, Body::Missing(Missing::of(file, reason)));
        }
        let Some(mate) = self.mates.get_mut(&from) else { return };
        if held.ordinal > 0 {
            mate.open.insert(file, held.ordinal);
        }
        let stream = mate.link.streams.entry(file).or_insert_with(|| Stream::after(held.ordinal, now));
        if stream.sent != held.ordinal {
            stream.go_back(held.ordinal, now);
        }
        self.pump(from, file);
    }

    /// Sends again what nobody answered for in time, and what could not be sent before.
    pub(super) fn resend_rows(&mut self) {
        let now = self.now;
        let mut streams = Vec::new();
        for (to, mate) in self.mates.iter_mut().filter(|(_, mate)| mate.active()) {
            for (file, stream) in &mut mate.link.streams {
                let there = mate.open.get(file).copied().unwrap_or(0);
                if stream.busy.is_none() && stream.sent > there && now >= stream.since.saturating_add(stream.patience) {
                    stream.patience = (stream.patience * 2).min(LONGEST_PATIENCE);
                    stream.go_back(there, now);
                }
                streams.push((*to, *file));
            }
        }
        for (to, file) in streams {
            self.pump(to, file);
        }
    }

    /// An open file is no more: it is complete, or came to nothing.
    pub(super) fn close(&mut self, file: FileKey) -> Option<Open> {
        for mate in self.mates.values_mut() {
            mate.link.streams.remove(&file);
        }
        if let Some(look) = &mut self.looking {
            look.closed.insert(file);
        }
        self.open.remove(&file)
    }
}
