//! What is still on its way to this member's disk when a mate links.

use std::collections::{BTreeMap, BTreeSet};

use crate::files::FileKey;

use super::{Member, copies::Copies, pull::Pull};

/// What was under way of a mate's own files when its link came up, and did not end yet.
///
/// The mate may have lost its disk meanwhile, and seals what is left of its files at the length of the longest copy that it is told
/// of. What comes to be longer here afterwards would differ from that: the mate is told what is here when all this has ended, one
/// way or the other. What begins later is not in it, so it comes to an end while new work goes on.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    // Messages whose rows are being stored, by file and by who sent them.
    rows: BTreeMap<(FileKey, i64), u32>,
    // Files whose copy is being sealed, or that arrived and are being stored.
    files: BTreeSet<FileKey>,
}

impl Unsettled {
    fn of(producer: i64, copies: &Copies, pull: &Pull) -> Self {
        let files = copies.sealing_of(producer).chain(pull.arrived_of(producer)).collect();
        Self { rows: copies.storing_of(producer).collect(), files }
    }

    // Rows that were being stored are stored, or cannot be: the oldest of them first.
    fn rows_done(&mut self, file: FileKey, from: i64) {
        if let Some(count) = self.rows.get_mut(&(file, from)) {
            *count -= 1;
            if *count == 0 {
                self.rows.remove(&(file, from));
            }
        }
    }
}

impl Member {
    /// A link to a mate came up: notes what is under way of its files.
    pub(super) fn note_unsettled(&mut self, number: i64) {
        let unsettled = Unsettled::of(number, &self.copies, &self.pull);
        if let Some(mate) = self.mates.get_mut(&number) {
            mate.link.unsettled = unsettled;
        }
    }

    /// Rows of a file that a mate sent are stored, or cannot be.
    pub(super) fn settle_rows(&mut self, file: FileKey, from: i64) {
        if let Some(mate) = self.mates.get_mut(&file.producer) {
            mate.link.unsettled.rows_done(file, from);
        }
    }

    /// Whether something of a mate's files is under way that was so when its link came up.
    pub(super) fn is_unsettled(&self, number: i64) -> bool {
        let Some(mate) = self.mates.get(&number) else { return false };
        let unsettled = &mate.link.unsettled;
        !unsettled.rows.is_empty() || !unsettled.files.is_empty()
    }

    /// Tells mates what is here that waited until what was under way of their files ended.
    pub(super) fn tell_settled(&mut self) {
        let Self { mates, copies, pull, .. } = self;
        let mut settled = Vec::new();
        for (number, mate) in mates.iter_mut().filter(|(_, mate)| mate.speaks() && !mate.link.told) {
            mate.link.unsettled.files.retain(|file| copies.will_complete(*file) || pull.has_arrived(*file));
            settled.push(*number);
        }
        for number in settled {
            self.tell(number);
        }
    }
}
