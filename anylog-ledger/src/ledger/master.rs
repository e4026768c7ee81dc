//! What a node does as master: it holds the ledger in a database and gives verdicts on what others send.

mod published;

use std::collections::HashMap;
use std::sync::Arc;

use anylog_core::CommandError;
use anylog_core::reply::{Chunks, json};
use anylog_core::time::policy_date;
use anylog_dbms::DbmsError;
use anylog_net::{FOLLOW_SILENCE, LedgerQuestion, PeerReply};
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::json;

use super::{Ledger, blocking};
use crate::snapshot::Deletion;
use crate::store::master::{DBMS, MasterTable, Row};
use crate::sync::edition::{self, Edition};
use crate::sync::merge::Merged;
use crate::sync::source::Fetched;
use crate::validate::{Members, validate};
use crate::{LedgerError, Policy, PolicySet};

pub(super) use published::Published;
use published::State;

/// How often a write looks again at a table that another master changed meanwhile.
const ATTEMPTS: usize = 8;

/// How many policies are written together at most.
const TOGETHER: usize = 256;

/// What became of a policy that was sent to the master.
#[derive(Debug, Clone, PartialEq)]
pub enum Pushed {
    /// It is in the table now.
    Added(Arc<Policy>),
    /// It was there already, and the sender does not mind. This is how.
    Known(Arc<Policy>),
    /// It was deleted after it was written, and the sender does not mind.
    Deleted,
}

/// A policy that waits for its verdict.
pub(super) struct Push {
    policy: Policy,
    host: String,
    how: PushHow,
    verdict: Arc<Mutex<Option<Result<Pushed, LedgerError>>>>,
}

/// What the sender of a policy says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushHow {
    /// It is new: an id that is there is an error.
    New,
    /// It may have been published before, by this node or another: the same policy is no error.
    Insert,
    /// It is sent again: a policy known already is no error, and a deleted one stays deleted.
    Again,
}

impl Ledger {
    /// Whether this node is a master: its `blockchain` database is connected and holds the ledger table.
    #[must_use]
    pub fn is_master(&self) -> bool {
        MasterTable::of(&self.catalog).and_then(|table| table.exists()).unwrap_or(false)
    }

    fn table(&self) -> Result<MasterTable, LedgerError> {
        MasterTable::of(&self.catalog)
    }

    /// The table changed: this node's own copy and the nodes that follow are told.
    fn published_changed(&self) {
        self.notices.send_modify(|count| *count = count.wrapping_add(1));
        self.wake_sync();
    }

    /// Takes a policy into the master's table: validates it against all that is there, and inserts it, in one step (LED-2). Blocks.
    /// Policies that come while others are being written are written together.
    ///
    /// # Errors
    /// The verdict, or what the database refuses.
    pub fn push(&self, policy: &Policy, host: &str, how: PushHow) -> Result<Pushed, LedgerError> {
        let policy = policy.without("ledger").prepare(self.node.clock.as_ref());
        let verdict = Arc::new(Mutex::new(None));
        let push = Push { policy, host: host.to_owned(), how, verdict: Arc::clone(&verdict) };
        self.pushes.lock().push_back(push);
        loop {
            let mut published = self.published.lock();
            // Whoever had the table meanwhile has taken this one along.
            if let Some(verdict) = verdict.lock().take() {
                return verdict;
            }
            let pushes: Vec<Push> = {
                let mut waiting = self.pushes.lock();
                let count = waiting.len().min(TOGETHER);
                waiting.drain(..count).collect()
            };
            let changed = self.push_all(&mut published, &pushes);
            drop(published);
            if changed {
                self.published_changed();
            }
        }
    }

    /// Gives verdicts on policies, and writes those that are taken. Returns whether the table changed.
    fn push_all(&self, published: &mut Published, pushes: &[Push]) -> bool {
        let give = |push: &Push, verdict| *push.verdict.lock() = Some(verdict);
        let refuse_all = |error: LedgerError| pushes.iter().for_each(|push| give(push, Err(error.clone())));
        for _ in 0..ATTEMPTS {
            match self.try_push_all(published, pushes) {
                Ok(Some(verdicts)) => {
                    let changed = verdicts.iter().any(|verdict| matches!(verdict, Ok(Pushed::Added(_))));
                    pushes.iter().zip(verdicts).for_each(|(push, verdict)| give(push, verdict));
                    return changed;
                }
                Ok(None) => {}
                Err(error) => {
                    refuse_all(error);
                    return false;
                }
            }
        }
        refuse_all(LedgerError::Contention);
        false
    }

    /// One attempt; none when the table changed meanwhile.
    fn try_push_all(
        &self,
        published: &mut Published,
        pushes: &[Push],
    ) -> Result<Option<Vec<Result<Pushed, LedgerError>>>, LedgerError> {
        let table = self.table()?;
        let State { mark, edition, deletions } = published.read(&table)?;
        let mut policies = edition.policies;
        let mut rows = Vec::new();
        let mut verdicts = Vec::with_capacity(pushes.len());
        for push in pushes {
            let verdict = verdict(push, &policies, &deletions);
            if let Ok(Pushed::Added(policy)) = &verdict {
                policies.insert(Arc::clone(policy));
                rows.push(Row { policy: Arc::clone(policy), host: push.host.clone() });
            }
            verdicts.push(verdict);
        }
        if rows.is_empty() {
            return Ok(Some(verdicts));
        }
        if !table.insert_if(&rows, mark)? {
            return Ok(None);
        }
        published.added(&table, policies, rows.into_iter().map(|row| row.policy).collect(), mark)?;
        Ok(Some(verdicts))
    }

    /// Writes the new content of a policy into the master's table. Blocks.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`] when it is not there, the verdict, or what the database refuses.
    pub fn replace_at_master(&self, policy: &Policy, host: &str) -> Result<Arc<Policy>, LedgerError> {
        let mut published = self.published.lock();
        let table = self.table()?;
        for _ in 0..ATTEMPTS {
            let State { mark, edition, .. } = published.read(&table)?;
            let id = policy.id();
            let known = edition.policies.get(id);
            let known = known.ok_or_else(|| LedgerError::NotFound { wanted: format!("with id {id}") })?;
            if known.kind() != policy.kind() {
                let problem = format!("policy {id} is of type '{}', which cannot change", known.kind());
                return Err(LedgerError::Attribute { kind: policy.kind().to_owned(), problem });
            }
            let identity = |policy: &Policy| (policy.shown("dbms"), policy.shown("name"));
            if known.kind() == "table" && identity(known) != identity(policy) {
                let problem = format!("policy {id} is of another table, which cannot change");
                return Err(LedgerError::Attribute { kind: "table".to_owned(), problem });
            }
            let policy = Arc::new(validate(policy, &edition.policies, &Members::random())?.marked("global"));
            let row = Row { policy: Arc::clone(&policy), host: host.to_owned() };
            if table.replace_if(&row, mark)? {
                published.read(&table)?;
                drop(published);
                self.published_changed();
                return Ok(policy);
            }
        }
        Err(LedgerError::Contention)
    }

    /// Deletes policies from the master's table by id: all, or none when one is not there. Blocks.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`] names the first that is not there.
    pub fn drop_at_master(&self, ids: &[String]) -> Result<(), LedgerError> {
        let mut ids = ids.to_vec();
        ids.sort();
        ids.dedup();
        let mut published = self.published.lock();
        let table = self.table()?;
        for _ in 0..ATTEMPTS {
            let State { mark, edition, .. } = published.read(&table)?;
            if let Some(id) = ids.iter().find(|id| edition.policies.get(id).is_none()) {
                return Err(LedgerError::NotFound { wanted: format!("with id {id}") });
            }
            drop(edition);
            let date = policy_date(self.node.clock.now());
            if table.delete_if(&ids, &date, mark)? {
                published.deleted(&table, &ids, &date, mark)?;
                drop(published);
                self.published_changed();
                return Ok(());
            }
        }
        Err(LedgerError::Contention)
    }

    /// Deletes the policies that a host sent from the master's table, and says how many. Blocks.
    ///
    /// # Errors
    /// What the database refuses.
    pub fn drop_by_host(&self, host: &str) -> Result<usize, LedgerError> {
        self.create_table()?;
        let ids = self.table()?.ids_of_host(host)?;
        if !ids.is_empty() {
            self.drop_at_master(&ids)?;
        }
        Ok(ids.len())
    }

    /// Creates the master's table unless it is there. Blocks.
    ///
    /// # Errors
    /// What the database refuses.
    pub fn create_table(&self) -> Result<(), LedgerError> {
        self.table()?.create()
    }

    /// Drops the master's table. Blocks.
    ///
    /// # Errors
    /// What the database refuses.
    pub fn drop_table(&self) -> Result<(), LedgerError> {
        let mut published = self.published.lock();
        published.forget();
        self.table()?.drop()?;
        drop(published);
        self.published_changed();
        Ok(())
    }

    /// Adds policies to the master's table, those that are there already left out, without the rules between policies: they
    /// come from a ledger. Returns how many were added. Blocks.
    ///
    /// # Errors
    /// What the database refuses.
    pub fn import_to_table(&self, policies: &PolicySet, host: &str) -> Result<usize, LedgerError> {
        let mut published = self.published.lock();
        let table = self.table()?;
        for _ in 0..ATTEMPTS {
            let State { mark, edition, .. } = published.read(&table)?;
            let rows: Vec<Row> = policies
                .iter()
                .filter(|policy| edition.policies.get(policy.id()).is_none())
                .map(|policy| Row { policy: Arc::new(policy.marked("global")), host: host.to_owned() })
                .collect();
            if rows.is_empty() {
                return Ok(0);
            }
            if table.insert_if(&rows, mark)? {
                let added = rows.len();
                let written: Vec<Arc<Policy>> = rows.into_iter().map(|row| row.policy).collect();
                let mut after = edition.policies;
                after.extend(written.iter().cloned());
                published.added(&table, after, written, mark)?;
                drop(published);
                self.published_changed();
                return Ok(added);
            }
        }
        Err(LedgerError::Contention)
    }

    /// Brings what the ledger of another master holds into this node's table: `dest = dbms`. With `whole` all of it is compared. Blocks.
    pub(crate) fn mirror(&self, merged: &Merged, whole: bool, host: &str) -> Result<(), LedgerError> {
        let theirs = |policy: &&Arc<Policy>| !policy.is_local();
        if !whole && !merged.rewritten {
            self.import_to_table(&merged.added.iter().cloned().collect(), host)?;
            return Ok(());
        }
        let policies: PolicySet = merged.contents.policies.iter().filter(theirs).cloned().collect();
        self.import_to_table(&policies, host)?;
        let (known, _) = self.edition_of_table()?;
        let gone: Vec<String> = merged.gone.iter().filter(|id| known.policies.get(id).is_some()).cloned().collect();
        if !gone.is_empty() {
            self.drop_at_master(&gone)?;
        }
        for policy in policies.iter() {
            if known.policies.get(policy.id()).is_some_and(|known| known.digest() != policy.digest()) {
                self.replace_at_master(policy, host)?;
            }
        }
        Ok(())
    }

    /// All policies of the master's table, and its rows as SQL. Blocks.
    ///
    /// # Errors
    /// What the database refuses.
    pub fn pull(&self) -> Result<(Vec<Arc<Policy>>, Vec<String>), LedgerError> {
        let table = self.table()?;
        let state = self.published.lock().read(&table)?;
        Ok((state.edition.policies.iter().cloned().collect(), table.inserts()?))
    }

    fn edition_of_table(&self) -> Result<(Edition, Arc<HashMap<String, String>>), LedgerError> {
        let table = self.table()?;
        let state = self.published.lock().read(&table)?;
        Ok((state.edition, state.deletions))
    }

    /// What the master's table holds for one who knows a version of it. Blocks.
    pub(crate) fn changes_of_table(&self, known: &str) -> Result<Fetched, LedgerError> {
        let table = self.table()?;
        let mut published = self.published.lock();
        let State { edition, deletions, .. } = published.read(&table)?;
        let deletion = |(id, date): (&String, &String)| Deletion { id: id.clone(), date: date.clone() };
        if edition.version == known {
            return Ok(Fetched { edition, deleted: Vec::new(), touched: Some(Vec::new()) });
        }
        let Some(changes) = published.history().since(known) else {
            return Ok(Fetched { edition, deleted: deletions.iter().map(deletion).collect(), touched: None });
        };
        let touched = changes.written.iter().map(|policy| policy.id().to_owned());
        let touched = touched.chain(changes.gone.iter().map(|(id, _)| id.clone())).collect();
        let gone = changes.gone.iter().filter(|(_, date)| !date.is_empty());
        let deleted = gone.map(|(id, date)| Deletion { id: id.clone(), date: date.clone() }).collect();
        Ok(Fetched { edition, deleted, touched: Some(touched) })
    }

    /// What this node can vouch for: the master's table, or what it saw in the ledger of the master that it follows.
    fn vouched_for(&self, published: &mut Published) -> Result<(Edition, Arc<HashMap<String, String>>), LedgerError> {
        match self.catalog.get(DBMS) {
            Ok(_) => {
                let state = published.read(&self.table()?)?;
                Ok((state.edition, state.deletions))
            }
            Err(DbmsError::NotConnected { .. }) => {
                let mut policies = self.snapshot().stored().clone();
                let local: Vec<String> = policies.local().map(|policy| policy.id().to_owned()).collect();
                local.iter().for_each(|id| drop(policies.remove(id)));
                Ok((Edition::new(policies), Arc::default()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What the node answers to another that asks for the ledger: the master's table when this node has one, else the part of
    /// the local copy that is known to the master. Deletions follow as `{"deleted": {"id": X, "date": D}}`. Blocks.
    ///
    /// # Errors
    /// What the master's database refuses.
    pub fn answer(&self, known_version: &str) -> Result<PeerReply, CommandError> {
        let (edition, deletions) = self.vouched_for(&mut self.published.lock())?;
        let version = edition.version.clone();
        if version == known_version {
            return Ok(PeerReply::Ledger { version, policies: None });
        }
        let mut lines: Vec<String> = edition.policies.iter().map(|policy| policy.to_json_text()).collect();
        lines.extend(deletions.iter().map(|(id, date)| deletion_line(id, date)));
        Ok(PeerReply::Ledger { version, policies: Some(lines) })
    }

    /// What the node answers to another that asks what is new. Blocks.
    ///
    /// # Errors
    /// What the master's database refuses.
    pub fn answer_changes(&self, question: &LedgerQuestion) -> Result<PeerReply, CommandError> {
        let mut published = self.published.lock();
        let (edition, deletions) = self.vouched_for(&mut published)?;
        Ok(PeerReply::LedgerChanges(edition::answer(question, &edition, published.history(), &deletions)))
    }

    /// The version of what this node vouches for. With `look` a table that others may write to as well is looked at. Blocks.
    fn published_version(&self, look: bool) -> Result<String, LedgerError> {
        let mut published = self.published.lock();
        if let Some(state) = published.last().filter(|_| !look && self.catalog.get(DBMS).is_ok()) {
            return Ok(state.edition.version.clone());
        }
        Ok(self.vouched_for(&mut published)?.0.version)
    }

    /// What the node answers to another that follows its ledger: the version now, again when it changes, and again before
    /// [`anylog_net::FOLLOW_SILENCE`] passes. It never ends.
    #[must_use]
    pub fn follow(&self) -> Chunks {
        let state = (Arc::downgrade(&self.shared()), self.notices.subscribe(), true);
        Box::pin(futures_util::stream::unfold(state, |(ledger, mut notices, first)| async move {
            let mut look = true;
            if first {
                notices.mark_unchanged();
            } else {
                match tokio::time::timeout(FOLLOW_SILENCE / 3, notices.changed()).await {
                    Ok(Ok(())) => look = false,
                    Ok(Err(_)) => return None,
                    Err(_) => {}
                }
            }
            let present = ledger.upgrade()?;
            let version = blocking(move || present.published_version(look)).await;
            let piece = version.map(Bytes::from).map_err(CommandError::from);
            Some((piece, (ledger, notices, false)))
        }))
    }
}

/// What becomes of a policy that is sent to a master that holds these.
fn verdict(push: &Push, policies: &PolicySet, deletions: &HashMap<String, String>) -> Result<Pushed, LedgerError> {
    let policy = &push.policy;
    let known = policies.get(policy.id());
    match (known, push.how) {
        (Some(known), PushHow::Again) => return Ok(Pushed::Known(Arc::clone(known))),
        (Some(_), PushHow::New) => return Err(LedgerError::DuplicateId { id: policy.id().to_owned() }),
        (None, PushHow::Again) => {
            if deletions.get(policy.id()).is_some_and(|gone| gone.as_str() >= policy.date()) {
                return Ok(Pushed::Deleted);
            }
        }
        (_, PushHow::Insert) | (None, PushHow::New) => {}
    }
    let valid = match known.and_then(|known| known.get("member")) {
        // Which number it would draw today does not matter.
        Some(member) if policy.get("member").is_none() => {
            validate(&policy.with("member", member.clone()), policies, &Members::random())?
        }
        _ => validate(policy, policies, &Members::random())?,
    };
    match known {
        None => Ok(Pushed::Added(Arc::new(valid.marked("global")))),
        Some(known) if valid.repeats(known) => Ok(Pushed::Known(Arc::clone(known))),
        Some(known) => Err(LedgerError::other_content(&valid, known)),
    }
}

fn deletion_line(id: &str, date: &str) -> String {
    json::text(&json!({"deleted": {"id": id, "date": date}}))
}
