//! Rows of mates' open files that come here, and the seal of their copies.

use std::collections::BTreeMap;

use crate::files::FileKey;
use crate::message::{About, Body, Rows, RowsHeld, Sealed};

use super::{Action, Member, Millis};

/// How many messages with rows of one file from one mate are stored at most; what comes beyond is not taken, and comes again.
const STORING: u32 = 16;

/// How long after rows could not be stored the mate is asked to send them again; doubled each time, up to the longest.
const PAUSE: Millis = 1_000;
const LONGEST_PAUSE: Millis = 60_000;

/// What happens to copies of open files.
#[derive(Debug, Default)]
pub(super) struct Copies {
    // Messages whose rows are being stored, by file and by who sent them.
    storing: BTreeMap<(FileKey, i64), u32>,
    // Files whose rows could not be stored.
    stalled: BTreeMap<FileKey, Stalled>,
    // Files that their producers sealed, until the copy is sealed.
    sealing: BTreeMap<FileKey, Sealing>,
}

#[derive(Debug)]
struct Stalled {
    from: i64,
    at: Option<Millis>,
    pause: Millis,
}

#[derive(Debug)]
struct Sealing {
    sealed: Sealed,
    started: bool,
    // It failed, and is not tried again before.
    not_before: Millis,
    pause: Millis,
}

impl Copies {
    pub(super) fn forget_mate(&mut self, mate: i64) {
        self.stalled.retain(|_, stalled| stalled.from != mate);
    }

    /// Whether the copy of a file is being sealed, or rows that come before its end are being stored.
    pub(super) fn are_sealing(&self, file: FileKey) -> bool {
        self.sealing.contains_key(&file)
    }

    /// Whether the copy of a file is being sealed, or is to be, so that it is complete.
    pub(super) fn will_complete(&self, file: FileKey) -> bool {
        self.sealing.get(&file).is_some_and(|sealing| !is_void(&sealing.sealed))
    }

    /// The files of a producer of which that is true.
    pub(super) fn sealing_of(&self, producer: i64) -> impl Iterator<Item = FileKey> + '_ {
        self.sealing.range(FileKey::all_of(producer)).map(|(file, _)| *file).filter(|file| self.will_complete(*file))
    }

    /// How many messages with rows of a producer's files are being stored, by file and by who sent them.
    pub(super) fn storing_of(&self, producer: i64) -> impl Iterator<Item = ((FileKey, i64), u32)> + '_ {
        self.storing.iter().filter(move |((file, _), _)| file.producer == producer).map(|(of, count)| (*of, *count))
    }

    fn are_storing(&self, file: FileKey) -> bool {
        self.storing.range((file, i64::MIN)..=(file, i64::MAX)).next().is_some()
    }

    // One message less is being stored; answers whether there was one.
    fn done(&mut self, file: FileKey, from: i64) -> bool {
        let Some(count) = self.storing.get_mut(&(file, from)) else { return false };
        *count -= 1;
        if *count == 0 {
            self.storing.remove(&(file, from));
        }
        true
    }
}

// Whether a file came to nothing.
fn is_void(sealed: &Sealed) -> bool {
    sealed.about.as_ref().is_some_and(|about| about.rows == 0)
}

impl Member {
    pub(super) fn rows(&mut self, from: i64, rows: Rows) {
        let file = rows.key();
        if !file.is_valid() {
            return;
        }
        if self.has(file) {
            return self.send(from, Body::Holds(file.into()));
        }
        // Nobody else adds to what this member writes.
        if file.producer == self.number() && (self.is_live(file) || self.void.contains(file.file)) {
            return;
        }
        let storing = self.copies.storing.entry((file, from)).or_default();
        if *storing >= STORING {
            return;
        }
        *storing += 1;
        self.actions.push(Action::StoreRows { from, rows });
    }

    pub(super) fn is_live(&self, file: FileKey) -> bool {
        self.open.get(&file).is_some_and(|open| open.live)
    }

    pub(super) fn rows_stored(&mut self, from: i64, held: RowsHeld) {
        let file = FileKey::from(held);
        if !self.copies.done(file, from) || !file.is_valid() {
            return;
        }
        self.settle_rows(file, from);
        self.copies.stalled.remove(&file);
        if self.has(file) {
            return self.send_if_speaking(from, Body::Holds(file.into()));
        }
        if self.is_live(file) {
            return;
        }
        if held.ordinal > 0 || self.open.contains_key(&file) {
            self.note_open(file, held.ordinal, false);
        }
        if file.producer == self.number() && self.void.contains(file.file) {
            // It came to nothing while these rows were on their way to the disk.
            return self.give_up_copy(file);
        }
        // Who writes the file is told alone. When it is away, or the rows are not from it, all are told: who has the most, and of
        // whom the producer must know that it has something.
        if from == file.producer && self.mates.get(&from).is_some_and(super::mate::Mate::active) {
            self.send(from, Body::RowsHeld(held));
        } else {
            self.send_all(&Body::RowsHeld(held));
        }
        self.pass_on(file);
        self.seal_copy(file);
        self.due.orphans |= self.may_be_orphan(file);
    }

    fn send_if_speaking(&mut self, to: i64, body: Body) {
        if self.mates.get(&to).is_some_and(super::mate::Mate::speaks) {
            self.send(to, body);
        }
    }

    /// Rows of a mate could not be stored: it is asked for them again after a pause.
    pub(super) fn cannot_store_rows(&mut self, file: FileKey, from: i64) {
        if !self.copies.done(file, from) {
            return;
        }
        self.settle_rows(file, from);
        let stalled = self.copies.stalled.entry(file).or_insert(Stalled { from, at: None, pause: PAUSE });
        stalled.from = from;
        if stalled.at.is_none() {
            stalled.at = Some(self.now.saturating_add(stalled.pause));
            stalled.pause = (stalled.pause * 2).min(LONGEST_PAUSE);
        }
        self.seal_copy(file);
    }

    /// Says to mates whose rows could not be stored where to go on.
    pub(super) fn ask_for_stalled_rows(&mut self) {
        let now = self.now;
        let mut due = Vec::new();
        for (file, stalled) in &mut self.copies.stalled {
            if stalled.at.is_some_and(|at| at <= now) {
                stalled.at = None;
                due.push((*file, stalled.from));
            }
        }
        for (file, from) in due {
            let held = file.held(self.ordinal(file));
            self.send_if_speaking(from, Body::RowsHeld(held));
        }
    }

    /// A mate is gone: the others get to know how much is here of the files that it wrote.
    pub(super) fn tell_copies_of(&mut self, producer: i64) {
        let copies: Vec<RowsHeld> =
            self.open.range(FileKey::all_of(producer)).map(|(file, open)| file.held(open.ordinal)).collect();
        for held in copies.into_iter().filter(|held| held.ordinal > 0) {
            self.send_all(&Body::RowsHeld(held));
        }
    }

    pub(super) fn sealed(&mut self, from: i64, sealed: Sealed) {
        let file = sealed.key();
        // Only the producer seals.
        if !file.is_valid() || file.producer != from {
            return;
        }
        let void = is_void(&sealed);
        if !void {
            self.note_complete(from, file);
        }
        if self.has(file) {
            return self.send(from, Body::Holds(file.into()));
        }
        if void {
            self.gave(file);
            self.nobody_has(file);
            if !self.open.contains_key(&file) && !self.copies.are_storing(file) {
                return;
            }
        }
        self.copies.sealing.entry(file).or_insert(Sealing { sealed, started: false, not_before: 0, pause: PAUSE });
        self.seal_copy(file);
    }

    // Gives up rows of an own file that came to nothing.
    fn give_up_copy(&mut self, file: FileKey) {
        if self.open.contains_key(&file) {
            let sealed =
                Sealed { producer: file.producer, file: file.file, about: Some(About::default()), ..Sealed::default() };
            self.copies.sealing.entry(file).or_insert(Sealing { sealed, started: false, not_before: 0, pause: PAUSE });
            self.seal_copy(file);
        }
    }

    // Seals the copy of a file when all of its rows are here; fetches the file when they are not, and none is on its way.
    fn seal_copy(&mut self, file: FileKey) {
        let Some(sealing) = self.copies.sealing.get(&file) else { return };
        if sealing.started || self.now < sealing.not_before || self.copies.are_storing(file) {
            return;
        }
        if !is_void(&sealing.sealed) && self.ordinal(file) != sealing.sealed.ordinal {
            self.copies.sealing.remove(&file);
            self.due.pull = true;
            return self.pull.want(file);
        }
        let Some(sealing) = self.copies.sealing.get_mut(&file) else { return };
        sealing.started = true;
        let sealed = sealing.sealed.clone();
        self.actions.push(Action::Seal(sealed));
    }

    /// A copy is sealed, or the file was stored in another way. Answers whether it came to nothing.
    pub(super) fn seal_done(&mut self, file: FileKey) -> bool {
        self.copies.stalled.remove(&file);
        self.copies.sealing.remove(&file).is_some_and(|sealing| sealing.started && is_void(&sealing.sealed))
    }

    /// A copy could not be sealed: the file is fetched as a whole. Answers whether it was to be sealed.
    pub(super) fn seal_failed(&mut self, file: FileKey) -> bool {
        let now = self.now;
        let Some(sealing) = self.copies.sealing.get_mut(&file).filter(|sealing| sealing.started) else { return false };
        if is_void(&sealing.sealed) {
            // Nobody can give it. It is to go, sooner or later.
            sealing.started = false;
            sealing.not_before = now.saturating_add(sealing.pause);
            sealing.pause = (sealing.pause * 2).min(LONGEST_PAUSE);
        } else {
            self.copies.sealing.remove(&file);
            self.pull.want(file);
            self.due.pull = true;
        }
        true
    }

    /// Tries again to give up what came to nothing.
    pub(super) fn seal_again(&mut self) {
        let waiting: Vec<FileKey> = self.copies.sealing.keys().copied().collect();
        for file in waiting {
            self.seal_copy(file);
        }
    }
}
