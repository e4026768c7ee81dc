//! Messages that wait for several members to have their rows.

use std::collections::{BTreeMap, BTreeSet};

use crate::files::FileKey;

use super::{Action, Member};

/// Who waits for what.
#[derive(Debug, Default)]
pub(super) struct Waits {
    // By file and number of copies: last row and token.
    of: BTreeMap<FileKey, BTreeMap<u32, BTreeSet<(u64, u64)>>>,
    // Where a token is.
    tokens: BTreeMap<u64, (FileKey, u32, u64)>,
}

impl Waits {
    pub(super) fn files(&self) -> impl Iterator<Item = FileKey> + '_ {
        self.of.keys().copied()
    }

    pub(super) fn withdraw(&mut self, token: u64) {
        let Some((file, copies, ordinal)) = self.tokens.remove(&token) else { return };
        let Some(of) = self.of.get_mut(&file) else { return };
        if let Some(waiting) = of.get_mut(&copies) {
            waiting.remove(&(ordinal, token));
            if waiting.is_empty() {
                of.remove(&copies);
            }
        }
        if of.is_empty() {
            self.of.remove(&file);
        }
    }

    fn add(&mut self, token: u64, file: FileKey, ordinal: u64, copies: u32) {
        self.withdraw(token);
        self.tokens.insert(token, (file, copies, ordinal));
        self.of.entry(file).or_default().entry(copies).or_default().insert((ordinal, token));
    }

    // The tokens that need not wait longer: `held` says up to which row each member has the file, the most first.
    fn done(&mut self, file: FileKey, held: &[u64]) -> Vec<u64> {
        let mut done = Vec::new();
        for (copies, waiting) in self.of.get_mut(&file).into_iter().flatten() {
            let held = held.get((*copies).max(1) as usize - 1).copied();
            let Some(held) = held else { continue };
            done.extend(waiting.iter().take_while(|(ordinal, _)| *ordinal <= held).map(|(_, token)| *token));
        }
        for token in &done {
            self.withdraw(*token);
        }
        done
    }
}

impl Member {
    pub(super) fn wait(&mut self, token: u64, file: FileKey, ordinal: u64, copies: u32) {
        self.waits.add(token, file, ordinal, copies);
        self.acknowledge(file);
    }

    /// Acknowledges what enough members have, by their last word: a copy that was lost since counts no more.
    pub(super) fn acknowledge(&mut self, file: FileKey) {
        if !self.waits.of.contains_key(&file) {
            return;
        }
        let own = if self.has(file) { u64::MAX } else { self.ordinal(file) };
        let mut held: Vec<u64> = self.listed_mates().map(|(_, mate)| mate.ordinal(file)).collect();
        held.push(own);
        if file.producer == self.number() && self.void.contains(file.file) {
            // No row of it is left that anybody could have.
            held = vec![
                u64::MAX;
                self.waits.of.get(&file).and_then(|of| of.keys().max()).map_or(1, |most| *most as usize)
            ];
        }
        held.sort_unstable_by(|a, b| b.cmp(a));
        for token in self.waits.done(file, &held) {
            self.actions.push(Action::Acknowledge(token));
        }
    }
}
