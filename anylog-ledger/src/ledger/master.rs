//! What a node does as master: it holds the ledger in a database and gives verdicts on what others send.

use std::sync::Arc;

use anylog_core::reply::json;
use anylog_core::time::policy_date;
use anylog_dbms::DbmsError;
use anylog_net::PeerReply;
use serde_json::json;

use super::Ledger;
use crate::snapshot::{Contents, Deletion, version_of};
use crate::store::master::{DBMS, Mark, MasterTable};
use crate::validate::{Members, validate};
use crate::{LedgerError, Policy};

/// How often a write looks again at a table that another master changed meanwhile.
const ATTEMPTS: usize = 8;

/// What became of a policy that was sent to the master.
#[derive(Debug, Clone, PartialEq)]
pub enum Pushed {
    /// It is in the table now.
    Added(Arc<Policy>),
    /// It, or a younger deletion of it, was there already, and the sender does not mind.
    Known,
}

/// The table as it was read last.
#[derive(Debug, Clone)]
pub(super) struct Export {
    mark: Mark,
    policies: Arc<Vec<Arc<Policy>>>,
    // The JSON texts in order and their version; none after a push, whose place in the order only the database knows.
    shown: Option<(Arc<Vec<String>>, String)>,
}

/// The table in its order.
struct Ordered {
    policies: Arc<Vec<Arc<Policy>>>,
    lines: Arc<Vec<String>>,
    version: String,
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

    /// The table, read again only when it changed.
    fn read_table(&self, table: &MasterTable) -> Result<Export, LedgerError> {
        let mark = table.mark()?;
        if let Some(export) = self.exported.lock().as_ref().filter(|export| export.mark == mark) {
            return Ok(export.clone());
        }
        let policies = table.policies()?;
        let version = MasterTable::version(&policies);
        let lines = policies.iter().map(Policy::to_json_text).collect();
        let policies = policies.into_iter().map(Arc::new).collect();
        let export = Export { mark, policies: Arc::new(policies), shown: Some((Arc::new(lines), version)) };
        *self.exported.lock() = Some(export.clone());
        Ok(export)
    }

    /// The table in its order.
    fn read_ordered(&self, table: &MasterTable) -> Result<Ordered, LedgerError> {
        let mut export = self.read_table(table)?;
        if export.shown.is_none() {
            *self.exported.lock() = None;
            export = self.read_table(table)?;
        }
        let (lines, version) = export.shown.unwrap_or_default();
        Ok(Ordered { policies: export.policies, lines, version })
    }

    /// Remembers a policy that was just inserted, so that the next push need not read the whole table.
    fn remember(&self, table: &MasterTable, policy: &Arc<Policy>, before: Export) -> Result<(), LedgerError> {
        let mark = table.mark()?;
        let mut exported = self.exported.lock();
        if !mark.is_one_more_than(before.mark) {
            *exported = None;
            return Ok(());
        }
        // The cache lets go of its list first, so that it is extended in place.
        *exported = None;
        let mut policies = before.policies;
        Arc::make_mut(&mut policies).push(Arc::clone(policy));
        *exported = Some(Export { mark, policies, shown: None });
        Ok(())
    }

    /// Takes a policy into the master's table: validates it against all that is there, and inserts it, in one step (LED-2). Blocks.
    /// `ignore` is for what is sent again: a policy known already is no error then, and a deleted one stays deleted.
    ///
    /// # Errors
    /// The verdict, or what the database refuses.
    pub fn push(&self, policy: &Policy, host: &str, ignore: bool) -> Result<Pushed, LedgerError> {
        let _gate = self.table_gate.lock();
        let table = self.table()?;
        let policy = policy.without("ledger").prepare(self.node.clock.as_ref());
        for _ in 0..ATTEMPTS {
            let export = self.read_table(&table)?;
            if export.policies.iter().any(|known| known.id() == policy.id()) {
                if ignore {
                    return Ok(Pushed::Known);
                }
                return Err(LedgerError::DuplicateId { id: policy.id().to_owned() });
            }
            if ignore {
                let date = policy.text("date").unwrap_or_default();
                if table.deletions()?.iter().any(|gone| gone.id == policy.id() && gone.date.as_str() >= date) {
                    return Ok(Pushed::Known);
                }
            }
            let policy = validate(&policy, &export.policies, &Members::random())?.marked("global");
            if table.insert_if(&policy, host, export.mark)? {
                let policy = Arc::new(policy);
                self.remember(&table, &policy, export)?;
                self.wake_sync();
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
        let _gate = self.table_gate.lock();
        let table = self.table()?;
        for _ in 0..ATTEMPTS {
            let export = self.read_table(&table)?;
            let id = policy.id();
            let known = export.policies.iter().find(|known| known.id() == id);
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
            let policy = validate(policy, &export.policies, &Members::random())?.marked("global");
            if table.replace_if(&policy, host, export.mark)? {
                self.wake_sync();
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
        let _gate = self.table_gate.lock();
        let table = self.table()?;
        let date = policy_date(self.node.clock.now());
        for id in ids {
            if !table.delete(id, &date)? {
                return Err(LedgerError::NotFound { wanted: format!("with id {id} in the ledger database") });
            }
        }
        self.wake_sync();
        Ok(())
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
        let _gate = self.table_gate.lock();
        *self.exported.lock() = None;
        MasterTable::of(&self.catalog)?.drop()
    }

    /// Adds policies to the master's table, those that are there already left out, without the rules between policies: they
    /// come from a ledger. Returns how many were added. Blocks.
    ///
    /// # Errors
    /// What the database refuses.
    pub fn import_to_table(&self, policies: &[Arc<Policy>], host: &str) -> Result<usize, LedgerError> {
        let _gate = self.table_gate.lock();
        let table = self.table()?;
        let mut added = 0;
        for policy in policies {
            for attempt in 0..ATTEMPTS {
                let export = self.read_table(&table)?;
                if export.policies.iter().any(|known| known.id() == policy.id()) {
                    break;
                }
                if table.insert_if(policy, host, export.mark)? {
                    self.remember(&table, &Arc::new(policy.marked("global")), export)?;
                    added += 1;
                    break;
                }
                if attempt + 1 == ATTEMPTS {
                    return Err(LedgerError::Contention);
                }
            }
        }
        self.wake_sync();
        Ok(added)
    }

    /// All policies of the master's table, and its rows as SQL. Blocks.
    ///
    /// # Errors
    /// What the database refuses.
    pub fn pull(&self) -> Result<(Vec<Arc<Policy>>, Vec<String>), LedgerError> {
        let table = MasterTable::of(&self.catalog)?;
        let policies = self.read_ordered(&table)?.policies;
        Ok((policies.as_ref().clone(), table.inserts()?))
    }

    /// The master's policies and what was deleted there, as a merge wants them. Blocks.
    pub(crate) fn incoming_from_table(&self) -> Result<(Vec<Policy>, Vec<Deletion>), LedgerError> {
        let table = MasterTable::of(&self.catalog)?;
        let policies = self.read_ordered(&table)?.policies;
        Ok((policies.iter().map(|policy| policy.as_ref().clone()).collect(), table.deletions()?))
    }

    pub(super) fn export(&self, known_version: &str) -> Result<PeerReply, LedgerError> {
        match self.catalog.get(DBMS) {
            Ok(_) => self.export_table(known_version),
            Err(DbmsError::NotConnected { .. }) => Ok(export_copy(&self.contents(), known_version)),
            Err(error) => Err(error.into()),
        }
    }

    fn export_table(&self, known_version: &str) -> Result<PeerReply, LedgerError> {
        let table = self.table()?;
        let Ordered { lines, version, .. } = self.read_ordered(&table)?;
        if version == known_version {
            return Ok(PeerReply::Ledger { version, policies: None });
        }
        let mut lines = lines.as_ref().clone();
        lines.extend(table.deletions()?.iter().map(deletion_line));
        Ok(PeerReply::Ledger { version, policies: Some(lines) })
    }
}

/// What a node that is no master can vouch for: what it saw in the master's ledger.
fn export_copy(contents: &Contents, known_version: &str) -> PeerReply {
    let global = contents.policies.iter().filter(|policy| !policy.is_local());
    let lines: Vec<String> = global.map(|policy| policy.to_json_text()).collect();
    let version = version_of(&lines);
    let policies = (version != known_version).then_some(lines);
    PeerReply::Ledger { version, policies }
}

fn deletion_line(deletion: &Deletion) -> String {
    json::text(&json!({"deleted": {"id": deletion.id, "date": deletion.date}}))
}
