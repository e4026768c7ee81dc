//! The operator of a node as a service: started, flushed, ended.

mod ending;
mod opening;
mod run;
mod view;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use anylog_core::Node;
use anylog_dbms::{Catalog, MissingFile};
use anylog_ingest::{Remap, SinkSlot};
use anylog_ledger::Ledger;
use anylog_net::Links;
use parking_lot::{Mutex, RwLock};
use tokio_util::sync::CancellationToken;

use crate::OperatorError;
use crate::config::OperatorState;
use crate::disk::{Disk, FileDisk};
use crate::journal::JournalLimits;
use crate::replay::{Bury, Replay};
use crate::replica::repair::{Divergence, Member};
use crate::replica::{ConsumerStatus, Replication};
use crate::stats::Stats;
use crate::store::{Shared, Store};
use crate::thresholds::{CurrentThresholds, ThresholdChange, Thresholds, TimeRule, TimeRules};

struct Running {
    state: OperatorState,
    stop: CancellationToken,
    store: Option<Arc<Store>>,
}

/// Stores the rows of a node. See the [crate] page for what it guarantees.
pub struct OperatorService {
    me: Weak<Self>,
    disk: Arc<dyn Disk>,
    node: Arc<Node>,
    catalog: Arc<Catalog>,
    ledger: Arc<Ledger>,
    slot: Arc<SinkSlot>,
    stats: Arc<Stats>,
    thresholds: Arc<CurrentThresholds>,
    windows: RwLock<TimeRules>,
    quarantine_limit: AtomicU64,
    journal_limits: Mutex<JournalLimits>,
    shared: Mutex<Option<Arc<Shared>>>,
    running: Mutex<Option<Running>>,
    // `run operator` takes a while; a second call meanwhile is refused.
    starting: tokio::sync::Mutex<()>,
    replication: Arc<Replication>,
    divergence: Arc<Divergence>,
    streamer: AtomicBool,
}

impl std::fmt::Debug for OperatorService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OperatorService").field("running", &self.state()).finish_non_exhaustive()
    }
}

impl OperatorService {
    /// The service of a node. From now on connecting a database replays its part of the journal, and dropping a
    /// partition is noted there. Rows are taken when an operator runs ([`Self::run`]).
    pub fn new(node: Arc<Node>, catalog: Arc<Catalog>, ledger: Arc<Ledger>, slot: Arc<SinkSlot>) -> Arc<Self> {
        Self::with_disk(node, catalog, ledger, slot, Arc::new(FileDisk))
    }

    /// The same with another place for the journal's files.
    pub fn with_disk(
        node: Arc<Node>,
        catalog: Arc<Catalog>,
        ledger: Arc<Ledger>,
        slot: Arc<SinkSlot>,
        disk: Arc<dyn Disk>,
    ) -> Arc<Self> {
        let service = Arc::new_cyclic(|me: &Weak<Self>| Self {
            me: Weak::clone(me),
            disk,
            node,
            catalog,
            ledger,
            slot,
            stats: Arc::default(),
            thresholds: Arc::default(),
            windows: RwLock::default(),
            quarantine_limit: AtomicU64::new(crate::quarantine::DEFAULT_LIMIT),
            journal_limits: Mutex::default(),
            shared: Mutex::new(None),
            running: Mutex::new(None),
            starting: tokio::sync::Mutex::default(),
            replication: Arc::default(),
            divergence: Arc::default(),
            streamer: AtomicBool::new(false),
        });
        service.catalog.add_hook(Arc::new(Replay(Arc::downgrade(&service))));
        service.catalog.set_drop_hook(Arc::new(Bury(Arc::downgrade(&service))));
        let replication = Arc::clone(&service.replication);
        service.catalog.set_missing_files(Arc::new(move || parked(&replication)));
        service.show_processes();
        service
    }

    /// The service as its commands hold it.
    pub(crate) fn shared_self(&self) -> Result<Arc<Self>, OperatorError> {
        self.me.upgrade().ok_or(OperatorError::NotRunning)
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// The exchange with the other members of the cluster.
    #[must_use]
    pub fn replication(&self) -> &Arc<Replication> {
        &self.replication
    }

    pub(crate) fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// What finding and mending of differences between members knows.
    pub(crate) fn divergence(&self) -> &Arc<Divergence> {
        &self.divergence
    }

    /// Where dropped partitions are noted.
    pub(crate) fn dropped_list(&self) -> PathBuf {
        self.directory("journal_dir").with_file_name("cluster").join("dropped.json")
    }

    /// This node as a running member of a cluster.
    ///
    /// # Errors
    /// [`OperatorError::NotRunning`], [`OperatorError::NotRegistered`] of an operator without a policy.
    pub(crate) fn member(&self) -> Result<Member, OperatorError> {
        let own = self.state().ok_or(OperatorError::NotRunning)?.own.ok_or(OperatorError::NotRegistered)?;
        Ok(Member {
            shared: self.shared.lock().clone().ok_or(OperatorError::NotRunning)?,
            ledger: Arc::clone(&self.ledger),
            divergence: Arc::clone(&self.divergence),
            replication: Arc::clone(&self.replication),
            own,
            dropped: self.dropped_list(),
        })
    }

    /// Counters since the start.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// When segments are sealed.
    #[must_use]
    pub fn thresholds(&self) -> Thresholds {
        self.thresholds.read().clone()
    }

    /// Changes when segments are sealed: `set buffer threshold`.
    ///
    /// # Errors
    /// [`OperatorError::Threshold`] for values that make no sense.
    pub fn set_threshold(
        &self,
        dbms: Option<&str>,
        table: Option<&str>,
        time: Option<Duration>,
        volume: Option<u64>,
        immediate: Option<bool>,
    ) -> Result<(), OperatorError> {
        self.change_threshold(dbms, table, ThresholdChange { time, volume, immediate, ..ThresholdChange::default() })
    }

    /// As [`Self::set_threshold`], with all that can be said.
    ///
    /// # Errors
    /// [`OperatorError::Threshold`] for values that make no sense.
    pub fn change_threshold(
        &self,
        dbms: Option<&str>,
        table: Option<&str>,
        change: ThresholdChange,
    ) -> Result<(), OperatorError> {
        self.thresholds.set(dbms, table, change)
    }

    /// Which times in data are believed.
    #[must_use]
    pub fn time_windows(&self) -> TimeRules {
        self.windows.read().clone()
    }

    /// Changes which times in data are believed, in a scope: `set time window`. None removes what was said of the scope.
    ///
    /// # Errors
    /// [`OperatorError::Threshold`] for a table without a database.
    pub fn set_time_window(
        &self,
        dbms: Option<&str>,
        table: Option<&str>,
        rule: Option<TimeRule>,
    ) -> Result<(), OperatorError> {
        let mut windows = self.windows.write();
        windows.set(dbms, table, rule)?;
        if let Some(shared) = self.shared.lock().as_ref() {
            shared.tables.set_windows(windows.clone());
        }
        Ok(())
    }

    /// Changes how many bytes the quarantine may hold: `set quarantine`.
    pub fn set_quarantine_limit(&self, bytes: u64) {
        self.quarantine_limit.store(bytes, Ordering::Relaxed);
        if let Some(shared) = self.shared.lock().as_ref() {
            shared.quarantine.set_limit(bytes);
            shared.quarantine_full.store(false, Ordering::Relaxed);
        }
    }

    /// Changes how the journal is cut into files. To be called before the journal is opened, which connecting a database may do.
    pub fn set_journal_limits(&self, limits: JournalLimits) {
        *self.journal_limits.lock() = limits;
    }

    /// Whether `run streamer` was called.
    #[must_use]
    pub fn streamer_runs(&self) -> bool {
        self.streamer.load(Ordering::Relaxed)
    }

    /// Notes `run streamer`. Segments are sealed by time and volume without it as well.
    ///
    /// # Errors
    /// [`OperatorError::Running`] the second time.
    pub fn start_streamer(&self) -> Result<(), OperatorError> {
        start(&self.streamer)
    }

    /// Serves links of mates, from now on.
    pub fn serve_links(&self, links: &Links) {
        self.replication.register(links);
    }

    /// `run data distributor`: own source files are offered to the other members of the cluster.
    ///
    /// # Errors
    /// [`OperatorError::Running`] the second time.
    pub fn start_distributor(&self) -> Result<(), OperatorError> {
        self.replication.start_distributor()
    }

    /// `exit distributor`.
    ///
    /// # Errors
    /// [`OperatorError::NotRunning`] when it does not run.
    pub fn end_distributor(&self) -> Result<(), OperatorError> {
        self.replication.end_distributor()
    }

    /// `run data consumer`: what other members of the cluster have and this one lacks is fetched.
    ///
    /// # Errors
    /// [`OperatorError::Running`] the second time.
    pub fn start_consumer(&self, consumer: ConsumerStatus) -> Result<(), OperatorError> {
        self.replication.start_consumer(consumer)
    }

    /// `exit consumer`.
    ///
    /// # Errors
    /// [`OperatorError::NotRunning`] when it does not run.
    pub fn end_consumer(&self) -> Result<(), OperatorError> {
        self.replication.end_consumer()
    }

    /// A work directory, which a script may have moved.
    #[must_use]
    pub fn directory(&self, name: &str) -> PathBuf {
        let running = self.running.lock();
        let chosen = running.as_ref().and_then(|running| {
            running.state.config.directories.iter().find(|(known, _)| *known == name).map(|(_, path)| path.clone())
        });
        chosen.unwrap_or_else(|| self.node.directories.directory(&self.node.dictionary, name))
    }

    /// Ends with the running operator.
    fn stop_token(&self) -> CancellationToken {
        self.running.lock().as_ref().map(|running| running.stop.clone()).unwrap_or_default()
    }

    /// The store of the running operator.
    pub(crate) fn store(&self) -> Result<Arc<Store>, OperatorError> {
        self.running.lock().as_ref().and_then(|running| running.store.clone()).ok_or(OperatorError::NotRunning)
    }

    /// Who maps messages.
    pub(crate) fn mapping(&self) -> Option<Arc<dyn Remap>> {
        self.slot.mapping()
    }
}

fn start(flag: &AtomicBool) -> Result<(), OperatorError> {
    if flag.swap(true, Ordering::Relaxed) { Err(OperatorError::Running) } else { Ok(()) }
}

/// The files that cannot be had.
fn parked(replication: &Replication) -> Vec<MissingFile> {
    let status = replication.status();
    let parked = status.producers.iter().flat_map(|producer| &producer.parked);
    parked
        .map(|parked| MissingFile {
            producer: parked.file.producer,
            file_id: parked.file.file,
            reason: parked.reason.clone(),
        })
        .collect()
}
