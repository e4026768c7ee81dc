//! The ledger of a node: reading it, writing to it.

mod copy;
mod master;
mod write;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use anylog_core::Node;
use anylog_dbms::{Catalog, TableSource};
use anylog_net::Peers;
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use crate::address::OwnAddresses;
use crate::snapshot::{Contents, Snapshot};
use crate::store::master as table;
use crate::sync::exchange::Synchronizer;
use crate::{LedgerError, OperatorNode, Policy, View};

pub(crate) use copy::LocalCopy;
pub use master::{PushHow, Pushed};
pub use write::{Destinations, VERDICT_DEADLINE, Written};
pub(crate) use write::{dropping, replacement};

/// Whether an operator answers, as this node last saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// Whether it answered.
    pub active: bool,
    /// When that was seen.
    pub since: jiff::Timestamp,
}

/// The ledger of a node. See the [`crate`] for what it guarantees.
pub struct Ledger {
    me: Weak<Ledger>,
    node: Arc<Node>,
    catalog: Arc<Catalog>,
    pub(crate) peers: Arc<dyn Peers>,
    copy: Mutex<Option<LocalCopy>>,
    // Changed with the copy locked.
    snapshot: RwLock<Option<(PathBuf, Arc<Snapshot>)>>,
    // How long the next change of the copy waits until its file is given what it lacks; none while that is on its way.
    flushing: Mutex<Option<Duration>>,
    // One replacement or deletion at a time, across the master's verdict.
    gate: tokio::sync::Mutex<()>,
    // One change of the master's table at a time.
    published: Mutex<master::Published>,
    // Policies that wait for the master's verdict.
    pushes: Mutex<std::collections::VecDeque<master::Push>>,
    // Counts changes of what this node tells those that follow it.
    pub(crate) notices: tokio::sync::watch::Sender<u64>,
    silent_masters: Mutex<HashMap<String, Instant>>,
    own_operator: RwLock<Option<String>>,
    statuses: RwLock<HashMap<String, NodeStatus>>,
    pub(crate) sync: Synchronizer,
    pub(crate) collections: crate::client::Collections,
    pub(crate) network_sql: RwLock<Option<Arc<dyn crate::client::NetworkSql>>>,
    pub(crate) executed: Mutex<Vec<crate::commands::config::Executed>>,
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger").field("path", &self.path()).field("version", &self.version()).finish_non_exhaustive()
    }
}

impl Ledger {
    /// The ledger of a node. Its copy lies at `!blockchain_file` and is read at first use. `create table ledger` and the tables of
    /// the ledger become known to the catalog, the process `Blockchain Sync` to the node.
    #[must_use]
    pub fn new(node: Arc<Node>, catalog: Arc<Catalog>, peers: Arc<dyn Peers>) -> Arc<Ledger> {
        let ledger = Arc::new_cyclic(|me: &Weak<Ledger>| Self {
            me: me.clone(),
            node: Arc::clone(&node),
            catalog: Arc::clone(&catalog),
            peers,
            copy: Mutex::default(),
            snapshot: RwLock::default(),
            flushing: Mutex::new(Some(Duration::ZERO)),
            gate: tokio::sync::Mutex::default(),
            published: Mutex::default(),
            pushes: Mutex::default(),
            notices: tokio::sync::watch::Sender::default(),
            silent_masters: Mutex::default(),
            own_operator: RwLock::default(),
            statuses: RwLock::default(),
            sync: Synchronizer::default(),
            collections: crate::client::Collections::default(),
            network_sql: RwLock::default(),
            executed: Mutex::default(),
        });
        catalog.register_system_table(table::TABLE, |database| table::create(database.dbms().as_ref()));
        catalog.set_table_source(Arc::new(Tables(Arc::downgrade(&ledger))));
        let me = Arc::downgrade(&ledger);
        node.processes.register("Blockchain Sync", move || match me.upgrade() {
            Some(ledger) => ledger.sync.process_state(),
            None => anylog_core::node::processes::ProcessState::not_declared(),
        });
        ledger
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// The way to other nodes.
    #[must_use]
    pub fn peers(&self) -> &Arc<dyn Peers> {
        &self.peers
    }

    /// The catalog of databases.
    #[must_use]
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// The synchroniser heard from this master.
    pub(crate) fn heard_from(&self, master: &str) {
        self.silent_masters.lock().remove(master);
    }

    pub(crate) fn shared(&self) -> Arc<Ledger> {
        self.me.upgrade().expect("invariant: a ledger is only reached through its Arc")
    }

    /// The file of the local copy: `!blockchain_file`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.node.directories.directory(&self.node.dictionary, "blockchain_file")
    }

    /// The ledger as it is now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        let path = self.path();
        if let Some((at, snapshot)) = self.snapshot.read().as_ref()
            && *at == path
        {
            return Arc::clone(snapshot);
        }
        let mut copy = self.copy.lock();
        let copy = self.loaded(&mut copy);
        let snapshot = Arc::new(Snapshot::new(copy.contents.policies.clone()));
        *self.snapshot.write() = Some((path, Arc::clone(&snapshot)));
        snapshot
    }

    /// All policies of a type in ledger order; `*` for all types.
    #[must_use]
    pub fn policies(&self, kind: &str) -> Vec<Arc<Policy>> {
        let snapshot = self.snapshot();
        snapshot.of_kind(kind).cloned().collect()
    }

    /// The policy of this id.
    #[must_use]
    pub fn policy(&self, id: &str) -> Option<Arc<Policy>> {
        self.snapshot().policy(id).cloned()
    }

    /// Clusters, operators and tables.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.snapshot().view()
    }

    /// The version: equal for nodes with equal ledgers.
    #[must_use]
    pub fn version(&self) -> String {
        self.snapshot().version()
    }

    /// The addresses of this node, for choosing how to reach another.
    #[must_use]
    pub fn own_addresses(&self) -> OwnAddresses {
        OwnAddresses::of(&self.node)
    }

    /// Says which operator policy is this node's own.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`] when there is no such policy, [`LedgerError::Attribute`] when it lacks what an operator needs,
    /// [`LedgerError::NoCluster`] when its cluster is not in the ledger.
    pub fn set_own_operator(&self, id: &str) -> Result<OperatorNode, LedgerError> {
        let snapshot = self.snapshot();
        let policy = snapshot
            .policy(id)
            .filter(|policy| policy.kind() == "operator")
            .ok_or_else(|| LedgerError::NotFound { wanted: format!("of type 'operator' with id {id}") })?;
        let operator = OperatorNode::from_policy(policy)
            .map_err(|problem| LedgerError::Attribute { kind: "operator".to_owned(), problem })?;
        if snapshot.view().cluster(&operator.cluster).is_none() {
            return Err(LedgerError::NoCluster { id: operator.cluster });
        }
        *self.own_operator.write() = Some(id.to_owned());
        Ok(operator)
    }

    /// This node's own operator, when it is one and its policy is still there.
    #[must_use]
    pub fn own_operator(&self) -> Option<OperatorNode> {
        let id = self.own_operator.read().clone()?;
        self.view().operator(&id).cloned()
    }

    /// Remembers whether a node answered; `address` is its published `ip:port`.
    pub fn report_node(&self, address: &str, active: bool) {
        let since = self.node.clock.now();
        let mut statuses = self.statuses.write();
        let known = statuses.entry(address.to_owned()).or_insert(NodeStatus { active: true, since });
        if known.active != active {
            *known = NodeStatus { active, since };
        }
    }

    /// Whether a node answers as far as is known; a node never talked to counts as active.
    #[must_use]
    pub fn node_status(&self, address: &str) -> Option<NodeStatus> {
        self.statuses.read().get(address).cloned()
    }

    /// Whether a node may be asked: everything but a node that did not answer last time.
    #[must_use]
    pub fn is_active(&self, address: &str) -> bool {
        self.node_status(address).is_none_or(|status| status.active)
    }

    /// Reads the local copy again: `blockchain reload metadata`.
    ///
    /// # Errors
    /// What the operating system refuses.
    pub async fn reload(&self) -> Result<(), LedgerError> {
        let ledger = self.shared();
        blocking(move || {
            let mut copy = ledger.copy.lock();
            *copy = None;
            let unreadable = ledger.loaded(&mut copy).unreadable.clone();
            *ledger.snapshot.write() = None;
            unreadable.map_or(Ok(()), Err)
        })
        .await?;
        // What the file lacked comes from the master again.
        self.wake_sync();
        Ok(())
    }

    /// The copy at the present path, read when it was not yet, or when the path changed.
    fn loaded<'a>(&self, copy: &'a mut Option<LocalCopy>) -> &'a mut LocalCopy {
        let path = self.path();
        if copy.as_ref().is_some_and(|copy| copy.file.path() != path) {
            *copy = None;
        }
        copy.get_or_insert_with(|| {
            let (copy, damage) = LocalCopy::load(path);
            for damage in damage {
                tracing::error!(%damage, "The local copy of the ledger was damaged, or cannot be read");
                self.node.errors.add(self.node.clock.now(), "ledger", "Blockchain", damage);
            }
            copy
        })
    }

    /// What the local copy holds, with its notes.
    #[must_use]
    pub fn contents(&self) -> Contents {
        let mut copy = self.copy.lock();
        self.loaded(&mut copy).contents.clone()
    }

    /// Lets the synchroniser exchange with its source now. Does nothing when none runs.
    pub fn wake_sync(&self) {
        self.sync.wake();
    }
}

/// Runs file and database work on a thread where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LedgerError> + Send + 'static,
) -> Result<T, LedgerError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(LedgerError::Contention),
    }
}

/// What the catalog of databases wants to know of tables.
struct Tables(Weak<Ledger>);

impl TableSource for Tables {
    fn create_text(&self, dbms: &str, table: &str) -> Option<String> {
        let view = self.0.upgrade()?.view();
        view.table_policy(dbms, table)?.text("create").map(str::to_owned)
    }

    fn tables(&self, dbms: &str) -> Vec<String> {
        let Some(ledger) = self.0.upgrade() else { return Vec::new() };
        let of_dbms = |policy: &Arc<Policy>| policy.text("dbms").is_some_and(|name| name.eq_ignore_ascii_case(dbms));
        let snapshot = ledger.snapshot();
        snapshot.of_kind("table").filter(|policy| of_dbms(policy)).filter_map(|policy| policy.shown("name")).collect()
    }
}
