//! The master's table in memory, as it was read last, and how it came to be so.

use std::collections::HashMap;
use std::sync::Arc;

use crate::store::master::{Mark, MasterTable};
use crate::sync::edition::{Edition, History};
use crate::{LedgerError, Policy, PolicySet};

/// What the table holds.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) mark: Mark,
    pub(super) edition: Edition,
    /// The dates of deletions, by the ids of policies that are not there again.
    pub(super) deletions: Arc<HashMap<String, String>>,
}

/// The table as it was read last.
#[derive(Debug, Default)]
pub(in crate::ledger) struct Published {
    table: Option<MasterTable>,
    state: Option<State>,
    history: History,
}

impl Published {
    /// How the table came to be as it is.
    pub(super) fn history(&self) -> &History {
        &self.history
    }

    /// The table as it was read last, without a look whether it changed since.
    pub(super) fn last(&self) -> Option<&State> {
        self.state.as_ref()
    }

    /// Takes note that the table is there, so that it is not looked for again.
    pub(super) fn prepare(&mut self, table: &MasterTable) -> Result<(), LedgerError> {
        if self.table.as_ref().is_none_or(|known| !known.is_same(table)) {
            table.create()?;
            *self = Self { table: Some(table.clone()), ..Self::default() };
        }
        Ok(())
    }

    /// The table, read again only when it changed since.
    pub(super) fn read(&mut self, table: &MasterTable) -> Result<State, LedgerError> {
        self.prepare(table)?;
        let mark = match table.mark() {
            Ok(mark) => mark,
            Err(_) => {
                // Somebody may have dropped it.
                self.table = None;
                self.prepare(table)?;
                table.mark()?
            }
        };
        if let Some(state) = self.state.as_ref().filter(|state| state.mark == mark) {
            return Ok(state.clone());
        }
        let policies: PolicySet = table.policies()?.into_iter().map(Arc::new).collect();
        let edition = Edition::new(policies);
        let deletions = table.deletions()?.into_iter().map(|note| (note.id, note.date)).collect();
        match &self.state {
            Some(before) if before.edition.version != edition.version => {
                self.history.changed(&before.edition, &edition, &deletions);
            }
            Some(_) => {}
            None => self.history.clear(),
        }
        let state = State { mark, edition, deletions: Arc::new(deletions) };
        self.state = Some(state.clone());
        Ok(state)
    }

    /// Takes note of policies that were just inserted at `before`, so that the next push need not read the whole table. `after` are all that
    /// are there now, if nobody else wrote meanwhile.
    pub(super) fn added(
        &mut self,
        table: &MasterTable,
        after: PolicySet,
        written: Vec<Arc<Policy>>,
        before: Mark,
    ) -> Result<(), LedgerError> {
        let mark = table.mark()?;
        match self.state.as_mut().filter(|state| state.mark == before && mark.is_after(before, written.len())) {
            Some(state) => {
                state.mark = mark;
                if written.iter().any(|policy| state.deletions.contains_key(policy.id())) {
                    let deletions = Arc::make_mut(&mut state.deletions);
                    written.iter().for_each(|policy| drop(deletions.remove(policy.id())));
                }
                let from = std::mem::replace(&mut state.edition, Edition::new(after)).version;
                // As they rest in the set, so that the history holds no second copy.
                let policies = &state.edition.policies;
                let written = written.iter().filter_map(|policy| policies.get(policy.id()).cloned()).collect();
                self.history.added(from, written);
                Ok(())
            }
            None => self.read(table).map(|_| ()),
        }
    }

    /// Takes note of policies that were just deleted.
    pub(super) fn deleted(
        &mut self,
        table: &MasterTable,
        ids: &[String],
        date: &str,
        before: Mark,
    ) -> Result<(), LedgerError> {
        let mark = table.mark()?;
        // Rows that went may have been the last ones, whose number the mark holds.
        match self.state.as_mut().filter(|state| state.mark == before && mark.is_one_write_after(before)) {
            Some(state) => {
                state.mark = mark;
                let deletions = Arc::make_mut(&mut state.deletions);
                let from = std::mem::take(&mut state.edition.version);
                for id in ids {
                    state.edition.policies.remove(id);
                    deletions.insert(id.clone(), date.to_owned());
                }
                state.edition.version = state.edition.policies.version();
                self.history.deleted(from, ids.iter().map(|id| (id.clone(), date.to_owned())).collect());
                Ok(())
            }
            None => self.read(table).map(|_| ()),
        }
    }

    /// The table was dropped.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}
