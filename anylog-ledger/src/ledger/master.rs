//! What a node does as master: it holds the ledger in a database and gives verdicts on what others send.

use std::collections::HashSet;
use std::sync::Arc;

use anylog_core::CommandError;
use anylog_core::reply::{Chunks, json};
use anylog_core::time::policy_date;
use anylog_dbms::DbmsError;
use anylog_net::{FOLLOW_SILENCE, LedgerQuestion, PeerReply};
use bytes::Bytes;
use serde_json::json;

use super::{Ledger, blocking};
use crate::snapshot::Deletion;
use crate::store::master::{DBMS, Mark, MasterTable};
use crate::sync::edition::{self, Edition, History};
use crate::validate::{Members, validate};
use crate::{LedgerError, Policy};

/// How often a write looks again at a table that another master changed meanwhile.
const ATTEMPTS: usize = 8;

/// What became of a policy that was sent to the master.
#[derive(Debug, Clone, PartialEq)]
pub enum Pushed {
    /// It is in the table now.
    Added(Arc<Policy>),
    /// It was there already, and the sender does not mind.
    Known,
    /// It was deleted after it was written, and the sender does not mind.
    Deleted,
}

/// The master's table as it was read last, and how it came to be so.
#[derive(Debug, Default)]
pub(super) struct Published {
    latest: Option<(Mark, Edition)>,
    history: History,
}

impl Published {
    /// The table, read again only when it changed since.
    fn read(&mut self, table: &MasterTable) -> Result<(Mark, Edition), LedgerError> {
        let mark = table.mark()?;
        if let Some((at, edition)) = self.latest.as_ref().filter(|(at, _)| *at == mark) {
            return Ok((*at, edition.clone()));
        }
        let edition = Edition::new(table.policies()?.into_iter().map(Arc::new).collect());
        match &self.latest {
            Some((_, before)) if before.version != edition.version => {
                self.history.changed(before, &edition, &table.deletions()?);
            }
            Some(_) => {}
            None => self.history.clear(),
        }
        self.latest = Some((mark, edition.clone()));
        Ok((mark, edition))
    }

    /// Takes note of a policy that was just inserted, so that the next push need not read the whole table.
    fn added(&mut self, table: &MasterTable, policy: &Arc<Policy>, before: Mark) -> Result<(), LedgerError> {
        let mark = table.mark()?;
        match self.latest.as_mut() {
            Some((at, edition)) if *at == before && mark.is_one_more_than(before) => {
                *at = mark;
                self.history.added(edition.version.clone(), Arc::clone(policy));
                edition.add(Arc::clone(policy));
                Ok(())
            }
            _ => self.read(table).map(|_| ()),
        }
    }

    fn forget(&mut self) {
        *self = Self::default();
    }
}

impl Ledger {
    /// Whether this node is a master: its `blockchain` database is connected and holds the ledger table.
    #[must_use]
    pub fn is_master(&self) -> bool {
        MasterTable::of(&self.catalog).and_then(|table| table.exists()).unwrap_or(false)
    }

    fn table(&self) -> Result<MasterTable, LedgerError> {
        let table = MasterTable::of(&self.catalog)?;
        if !table.exists()? {
            table.create()?;
        }
        Ok(table)
    }

    /// The table changed: this node's own copy and the nodes that follow are told.
    fn published_changed(&self) {
        self.notices.send_modify(|count| *count = count.wrapping_add(1));
        self.wake_sync();
    }

    /// Takes a policy into the master's table: validates it against all that is there, and inserts it, in one step (LED-2). Blocks.
    /// `ignore` is for what is sent again: a policy known already is no error then, and a deleted one stays deleted.
    ///
    /// # Errors
    /// The verdict, or what the database refuses.
    pub fn push(&self, policy: &Policy, host: &str, ignore: bool) -> Result<Pushed, LedgerError> {
        let mut published = self.published.lock();
        let table = self.table()?;
        let policy = policy.without("ledger").prepare(self.node.clock.as_ref());
        for _ in 0..ATTEMPTS {
            let (mark, edition) = published.read(&table)?;
            if edition.policies.iter().any(|known| known.id() == policy.id()) {
                if ignore {
                    return Ok(Pushed::Known);
                }
                return Err(LedgerError::DuplicateId { id: policy.id().to_owned() });
            }
            if ignore {
                let date = policy.text("date").unwrap_or_default();
                if table.deleted_at(policy.id())?.is_some_and(|gone| gone.as_str() >= date) {
                    return Ok(Pushed::Deleted);
                }
            }
            let policy = validate(&policy, &edition.policies, &Members::random())?.marked("global");
            // The edition is let go of, so that it is extended in place.
            drop(edition);
            if table.insert_if(&policy, host, mark)? {
                let policy = Arc::new(policy);
                published.added(&table, &policy, mark)?;
                drop(published);
                self.published_changed();
                return Ok(Pushed::Added(policy));
            }
        }
        Err(LedgerError::Contention)
    }

    /// Writes the new content of a policy into the master's table. Blocks.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`] when it is not there, the verdict, or what the database refuses.
    pub fn replace_at_master(&self, policy: &Policy, host: &str) -> Result<Arc<Policy>, LedgerError> {
        let mut published = self.published.lock();
        let table = self.table()?;
        for _ in 0..ATTEMPTS {
            let (mark, edition) = published.read(&table)?;
            let id = policy.id();
            let known = edition.policies.iter().find(|known| known.id() == id);
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
            let policy = validate(policy, &edition.policies, &Members::random())?.marked("global");
            if table.replace_if(&policy, host, mark)? {
                published.read(&table)?;
                drop(published);
                self.published_changed();
                return Ok(Arc::new(policy));
            }
        }
        Err(LedgerError::Contention)
    }

    /// Deletes policies from the master's table by id. Blocks.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`] when one is not there; those before it are deleted then.
    pub fn drop_at_master(&self, ids: &[String]) -> Result<(), LedgerError> {
        let mut published = self.published.lock();
        let table = self.table()?;
        published.read(&table)?;
        let date = policy_date(self.node.clock.now());
        let mut missing = None;
        for id in ids {
            if !table.delete(id, &date)? {
                missing = Some(id);
                break;
            }
        }
        published.read(&table)?;
        drop(published);
        self.published_changed();
        match missing {
            Some(id) => Err(LedgerError::NotFound { wanted: format!("with id {id} in the ledger database") }),
            None => Ok(()),
        }
    }

    /// Deletes the policies that a host sent from the master's table, and says how many. Blocks.
    ///
    /// # Errors
    /// What the database refuses.
    pub fn drop_by_host(&self, host: &str) -> Result<usize, LedgerError> {
        let ids = self.table()?.ids_of_host(host)?;
        self.drop_at_master(&ids)?;
        Ok(ids.len())
    }

    /// Creates the master's table unless it is there. Blocks.
    ///
    /// # Errors
    /// What the database refuses.
    pub fn create_table(&self) -> Result<(), LedgerError> {
        self.table().map(|_| ())
    }

    /// Drops the master's table. Blocks.
    ///
    /// # Errors
    /// What the database refuses.
    pub fn drop_table(&self) -> Result<(), LedgerError> {
        let mut published = self.published.lock();
        published.forget();
        MasterTable::of(&self.catalog)?.drop()?;
        drop(published);
        self.published_changed();
        Ok(())
    }

    /// Adds policies to the master's table, those that are there already left out, without the rules between policies: they
    /// come from a ledger. Returns how many were added. Blocks.
    ///
    /// # Errors
    /// What the database refuses.
    pub fn import_to_table(&self, policies: &[Arc<Policy>], host: &str) -> Result<usize, LedgerError> {
        let mut published = self.published.lock();
        let table = self.table()?;
        let (mut mark, edition) = published.read(&table)?;
        let mut known: HashSet<String> = edition.policies.iter().map(|policy| policy.id().to_owned()).collect();
        let mut added = 0;
        for policy in policies {
            if !known.insert(policy.id().to_owned()) {
                continue;
            }
            for attempt in 0..ATTEMPTS {
                if table.insert_if(policy, host, mark)? {
                    added += 1;
                    mark = table.mark()?;
                    break;
                }
                // Another master wrote in between.
                let (now, edition) = published.read(&table)?;
                mark = now;
                if edition.policies.iter().any(|known| known.id() == policy.id()) {
                    break;
                }
                if attempt + 1 == ATTEMPTS {
                    return Err(LedgerError::Contention);
                }
            }
        }
        published.read(&table)?;
        drop(published);
        self.published_changed();
        Ok(added)
    }

    /// All policies of the master's table, and its rows as SQL. Blocks.
    ///
    /// # Errors
    /// What the database refuses.
    pub fn pull(&self) -> Result<(Vec<Arc<Policy>>, Vec<String>), LedgerError> {
        let table = MasterTable::of(&self.catalog)?;
        let (_, edition) = self.published.lock().read(&table)?;
        Ok((edition.policies.as_ref().clone(), table.inserts()?))
    }

    /// The master's policies and what was deleted there, as a merge wants them. Blocks.
    pub(crate) fn edition_of_table(&self) -> Result<(Edition, Vec<Deletion>), LedgerError> {
        let table = MasterTable::of(&self.catalog)?;
        let (_, edition) = self.published.lock().read(&table)?;
        Ok((edition, table.deletions()?))
    }

    /// What this node can vouch for: the master's table, or what it saw in the ledger of the master that it follows.
    fn vouched_for(&self, published: &mut Published) -> Result<(Edition, Vec<Deletion>), LedgerError> {
        match self.catalog.get(DBMS) {
            Ok(_) => {
                let table = self.table()?;
                let (_, edition) = published.read(&table)?;
                Ok((edition, table.deletions()?))
            }
            Err(DbmsError::NotConnected { .. }) => {
                let policies = self.contents().policies.into_iter().filter(|policy| !policy.is_local()).collect();
                Ok((Edition::new(policies), Vec::new()))
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
        lines.extend(deletions.iter().map(deletion_line));
        Ok(PeerReply::Ledger { version, policies: Some(lines) })
    }

    /// What the node answers to another that asks what is new. Blocks.
    ///
    /// # Errors
    /// What the master's database refuses.
    pub fn answer_changes(&self, question: &LedgerQuestion) -> Result<PeerReply, CommandError> {
        let mut published = self.published.lock();
        let (edition, deletions) = self.vouched_for(&mut published)?;
        Ok(PeerReply::LedgerChanges(edition::answer(question, &edition, &published.history, &deletions)))
    }

    /// The version of what this node vouches for. Blocks.
    fn published_version(&self) -> Result<String, LedgerError> {
        let mut published = self.published.lock();
        match MasterTable::of(&self.catalog) {
            Ok(table) if table.exists()? => Ok(published.read(&table)?.1.version),
            _ => Ok(self.vouched_for(&mut published)?.0.version),
        }
    }

    /// What the node answers to another that follows its ledger: the version now, again when it changes, and again before
    /// [`anylog_net::FOLLOW_SILENCE`] passes. It never ends.
    #[must_use]
    pub fn follow(&self) -> Chunks {
        let state = (Arc::downgrade(&self.shared()), self.notices.subscribe(), true);
        Box::pin(futures_util::stream::unfold(state, |(ledger, mut notices, first)| async move {
            if first {
                notices.mark_unchanged();
            } else if let Ok(Err(_)) = tokio::time::timeout(FOLLOW_SILENCE / 3, notices.changed()).await {
                return None;
            }
            let present = ledger.upgrade()?;
            let version = blocking(move || present.published_version()).await;
            let piece = version.map(Bytes::from).map_err(CommandError::from);
            Some((piece, (ledger, notices, false)))
        }))
    }
}

fn deletion_line(deletion: &Deletion) -> String {
    json::text(&json!({"deleted": {"id": deletion.id, "date": deletion.date}}))
}
