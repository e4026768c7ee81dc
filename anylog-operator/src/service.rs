//! The operator of a node as a service: started, flushed, ended.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use anylog_core::Node;
use anylog_core::node::processes::ProcessState;
use anylog_core::node::queues::QueueUse;
use anylog_dbms::{Catalog, MissingFile};
use anylog_ingest::{Remap, SinkSlot};
use anylog_ledger::{Ledger, LedgerError, OperatorNode};
use anylog_net::Links;
use parking_lot::{Mutex, RwLock};
use tokio_util::sync::CancellationToken;

use crate::OperatorError;
use crate::config::{Identity, Load, OpenSegment, OperatorConfig, OperatorState};
use crate::disk::{Disk, FileDisk};
use crate::journal::recovery::{Damage, Recovery};
use crate::journal::{Journal, JournalLimits};
use crate::publish::Publisher;
use crate::quarantine::{Quarantine, QuarantinedRow};
use crate::replay::{Bury, Replay, ready};
use crate::replica::repair::{Divergence, Member, background};
use crate::replica::{ConsumerStatus, Replication};
use crate::stats::Stats;
use crate::store::{MEMORY_LIMIT, Settings, Shared, Store};
use crate::tables::{TableRules, Tables, blocking};
use crate::thresholds::{CurrentThresholds, ThresholdChange, Thresholds, TimeRule, TimeRules};
use crate::{orphans, seal, watch};

/// How long `flush buffers` waits for the segments that it closed.
const FLUSH_DEADLINE: Duration = Duration::from_secs(60);
/// How long `exit operator` waits for open segments; what is left is sealed by the next start.
const EXIT_DEADLINE: Duration = Duration::from_secs(10);
/// The parts of a drain, which together stay within five seconds.
const DRAIN_APPENDS: Duration = Duration::from_millis(2500);
const DRAIN_SYNC: Duration = Duration::from_millis(1500);

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

    fn show_processes(self: &Arc<Self>) {
        let show = |name, state: fn(&Self) -> ProcessState| {
            let service: Weak<Self> = Arc::downgrade(self);
            let probe = move || service.upgrade().map_or_else(ProcessState::not_declared, |service| state(&service));
            self.node.processes.register(name, probe);
        };
        let service: Weak<Self> = Arc::downgrade(self);
        self.node.queues.register("operator", move || service.upgrade().map(|s| s.queues()).unwrap_or_default());
        show("Operator", Self::operator_process);
        show("Streamer", Self::streamer_process);
        show("Distributor", |service| service.replication.distributor_state());
        show("Consumer", |service| service.replication.consumer_state());
    }

    fn operator_process(&self) -> ProcessState {
        let Some(state) = self.state() else { return ProcessState::not_declared() };
        let member = if state.own.is_some() { "True" } else { "False" };
        let master = state.config.master.as_deref().unwrap_or("none");
        ProcessState::running(format!(
            "Cluster Member: {member}, Using Master: {master}, Threads Pool: {}",
            state.config.threads
        ))
    }

    fn streamer_process(&self) -> ProcessState {
        if !self.streamer_runs() {
            return ProcessState::not_declared();
        }
        let threshold = self.thresholds.read().default_threshold();
        ProcessState::running(format!(
            "Default streaming thresholds are {} seconds and {} bytes",
            threshold.time.as_secs(),
            crate::commands::thousands(threshold.volume)
        ))
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

    /// What waits in the store, and how much may (R23).
    #[must_use]
    pub fn queues(&self) -> Vec<QueueUse> {
        let Some(shared) = self.shared.lock().clone() else { return Vec::new() };
        shared.queues()
    }

    /// The running operator.
    #[must_use]
    pub fn state(&self) -> Option<OperatorState> {
        self.running.lock().as_ref().map(|running| running.state.clone())
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

    /// Whether the node has a journal: one is open, or there are files of one.
    pub(crate) fn has_journal(&self) -> bool {
        self.shared.lock().is_some()
            || self.disk.list(&self.directory("journal_dir")).is_ok_and(|names| !names.is_empty())
    }

    /// The open journal and all around it; opened at the first call. Blocks.
    pub(crate) fn shared(&self) -> Result<Arc<Shared>, OperatorError> {
        let mut slot = self.shared.lock();
        if let Some(shared) = slot.as_ref() {
            return Ok(Arc::clone(shared));
        }
        let directory = self.directory("journal_dir");
        let reports = self.node.directories.directory(&self.node.dictionary, "err_dir");
        let (journal, recovery) =
            Journal::open(Arc::clone(&self.disk), &directory, *self.journal_limits.lock(), &mut |damage, bytes| {
                self.report(&reports, damage, bytes);
            })?;
        let tables = Tables::new(Arc::clone(&self.catalog), Publisher::new(Arc::clone(&self.ledger)));
        tables.set_windows(self.time_windows());
        let shared = Arc::new(Shared::new(
            Arc::clone(&self.node),
            Arc::clone(&self.catalog),
            Arc::clone(&self.disk),
            journal,
            tables,
            Arc::clone(&self.stats),
            Arc::clone(&self.thresholds),
        ));
        shared.quarantine.set_limit(self.quarantine_limit.load(Ordering::Relaxed));
        adopt(&shared, recovery);
        *slot = Some(Arc::clone(&shared));
        Ok(shared)
    }

    /// Keeps the bytes of a damaged place of the journal, and says so.
    fn report(&self, directory: &Path, damage: &Damage, bytes: &[u8]) {
        let path = directory.join(format!("{}.{}.damaged", damage.file, damage.offset));
        if path.exists() {
            return;
        }
        let text = format!(
            "Journal file {} is damaged at byte {} ({} bytes): {}. Its bytes are kept in '{}'; all other rows are replayed",
            damage.file,
            damage.offset,
            damage.length,
            damage.reason,
            path.display()
        );
        tracing::error!("{text}");
        self.node.errors.add(self.node.clock.now(), "operator", "Damaged journal", text);
        if let Err(error) = crate::disk::write_durably(&path, bytes) {
            tracing::error!(file = %path.display(), %error, "The damaged bytes cannot be kept");
        }
    }

    /// Starts the operator: rows and files are taken from now on. Segments of the run before are finished.
    ///
    /// # Errors
    /// [`OperatorError::Running`], [`OperatorError::NoPolicy`], [`OperatorError::UnknownTable`],
    /// [`OperatorError::Directory`], and what opening the journal can meet.
    pub async fn run(self: &Arc<Self>, config: OperatorConfig) -> Result<(), OperatorError> {
        let _one_at_a_time = self.starting.lock().await;
        if self.running.lock().is_some() {
            return Err(OperatorError::Running);
        }
        let own = match self.identify(&config.identity)? {
            Some(own) => Some(self.replication.settle(&self.ledger, own, config.master.as_deref()).await?),
            None => None,
        };
        self.check_tables(&config.limit_tables)?;
        let service = Arc::clone(self);
        let shared = blocking(move || service.shared()).await?;
        let settings = self.settle(&shared, &config, own.as_ref()).await?;
        let state = OperatorState { registered: settings.tsd.is_some(), config, own, started: self.node.clock.now() };
        if let Some(own) = &state.own {
            self.catalog.set_member_id(own.member.unsigned_abs());
        }
        *shared.settings.write() = Arc::new(settings);
        if let (Some(own), true) = (&state.own, state.registered) {
            let journal = self.directory("journal_dir");
            self.replication.start(&shared, &self.ledger, own.clone(), journal).await?;
        }
        let stop = CancellationToken::new();
        *self.running.lock() = Some(Running { state, stop: stop.clone(), store: None });
        let (service, finishing) = (Arc::clone(self), Arc::clone(&shared));
        blocking(move || {
            service.finish_recovered(&finishing);
            seal::prune(&finishing);
            orphans::mark_void(&finishing)
        })
        .await
        .unwrap_or_else(|error| tracing::warn!(%error, "Files that a crash left open stay in tsd_info for now"));
        tokio::spawn(seal::run(Arc::clone(&shared), stop.clone()));
        tokio::spawn(watch::run(Arc::clone(&shared), stop.clone()));
        if let Ok(member) = self.member() {
            tokio::spawn(background::run(member, self.stop_token()));
        }
        let (slot, conflicts, ended) = (Arc::clone(&self.slot), self.replication.conflicts(), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = conflicts => slot.unmount(),
                () = ended.cancelled() => {}
            }
        });
        let store = self.slot.mount(|issuer| Store::new(shared, issuer));
        if let Some(running) = self.running.lock().as_mut() {
            running.store = Some(store);
        }
        Ok(())
    }

    fn identify(&self, identity: &Identity) -> Result<Option<OperatorNode>, OperatorError> {
        let id = match identity {
            Identity::Anonymous => return Ok(None),
            Identity::Policy(id) => id.clone(),
            Identity::ByAddress => {
                let address = self.node.address();
                let view = self.ledger.view();
                let found = view
                    .operators()
                    .iter()
                    .find(|known| known.address() == address || known.local_address() == address);
                found.ok_or(OperatorError::NoPolicy { id: format!("address {address}") })?.id.clone()
            }
        };
        match self.ledger.set_own_operator(&id) {
            Ok(own) => Ok(Some(own)),
            Err(LedgerError::NotFound { .. }) => Err(OperatorError::NoPolicy { id }),
            Err(error) => Err(OperatorError::Policy { id, error: Box::new(error) }),
        }
    }

    fn check_tables(&self, tables: &[(String, String)]) -> Result<(), OperatorError> {
        for (dbms, table) in tables {
            let published = self.ledger.view().table_policy(dbms, table).is_some();
            let local =
                || self.catalog.get(dbms).is_ok_and(|database| matches!(database.dbms().schema(table), Ok(Some(_))));
            if !published && !local() {
                return Err(OperatorError::UnknownTable { table: format!("{dbms}.{table}") });
            }
        }
        Ok(())
    }

    async fn settle(
        &self,
        shared: &Arc<Shared>,
        config: &OperatorConfig,
        own: Option<&OperatorNode>,
    ) -> Result<Settings, OperatorError> {
        let directory = |name: &'static str| {
            let chosen = config.directories.iter().find(|(known, _)| *known == name).map(|(_, path)| path.clone());
            chosen.unwrap_or_else(|| self.node.directories.directory(&self.node.dictionary, name))
        };
        let catalog = Arc::clone(&self.catalog);
        let tsd = if config.update_tsd_info {
            tokio::task::spawn_blocking(move || catalog.tsd()).await.unwrap_or(None)
        } else {
            None
        };
        if config.update_tsd_info && tsd.is_none() {
            tracing::warn!("almgm.tsd_info is not there: source files are archived, but not registered");
        }
        let settings = Settings {
            member: own.map_or_else(|| "0".to_owned(), |own| own.member.to_string()),
            tsd,
            archive: config.archive || config.distributor,
            compress: config.compress,
            archive_dir: directory("archive_dir"),
            backup_dir: directory("bkup_dir"),
            watch_dir: directory("watch_dir"),
            error_dir: directory("err_dir"),
            prep_dir: directory("prep_dir"),
        };
        let all =
            [&settings.archive_dir, &settings.backup_dir, &settings.watch_dir, &settings.error_dir, &settings.prep_dir];
        all.into_iter().try_for_each(|path| check_directory(path))?;
        let only: BTreeSet<(String, String)> = config.limit_tables.iter().cloned().collect();
        shared.tables.set_rules(TableRules {
            create: config.create_table,
            only: Some(only).filter(|only| !only.is_empty()),
            registered: settings.tsd.is_some(),
        });
        let company = config.company.clone().or_else(|| own.map(|own| own.company.clone()));
        shared.tables.publisher().configure(config.master.clone(), own.cloned(), company);
        Ok(settings)
    }

    /// Hands segments of the run before to the sealer, when an operator runs and their databases are connected.
    pub(crate) fn finish_recovered(&self, shared: &Arc<Shared>) {
        if self.running.lock().is_none() {
            return;
        }
        let ready = ready(shared);
        let mut segments = shared.segments.lock();
        segments.finish(ready.own);
        segments.copies.extend(ready.copies);
        drop(segments);
        shared.due.notify_one();
    }

    /// Closes and seals all open segments. Returns when their source files are made.
    ///
    /// # Errors
    /// [`OperatorError::NotRunning`], or [`OperatorError::Segment`] when some are not sealed in time.
    pub async fn flush(&self) -> Result<usize, OperatorError> {
        let shared = self.shared.lock().clone();
        let (Some(shared), true) = (shared, self.running.lock().is_some()) else {
            return Err(OperatorError::NotRunning);
        };
        flush(&shared, FLUSH_DEADLINE).await
    }

    /// Ends the operator: rows are refused from now on, open segments are sealed.
    ///
    /// # Errors
    /// [`OperatorError::NotRunning`].
    pub async fn exit(&self) -> Result<(), OperatorError> {
        let _one_at_a_time = self.starting.lock().await;
        let stop = self.running.lock().as_ref().map(|running| running.stop.clone()).ok_or(OperatorError::NotRunning)?;
        self.slot.unmount();
        let shared = self.shared.lock().clone();
        if let Some(shared) = shared
            && let Err(error) = flush(&shared, EXIT_DEADLINE).await
        {
            tracing::warn!(%error, "Some segments are left for the next start");
        }
        self.replication.stop().await;
        stop.cancel();
        *self.running.lock() = None;
        Ok(())
    }

    /// Ends everything for good, within five seconds: rows under way are stored and acknowledged or refused, databases are
    /// synced, the journal is closed. Nothing is sealed; the next start does that (OPS-2).
    pub async fn drain(&self) {
        self.slot.unmount();
        self.replication.stop().await;
        if let Some(running) = self.running.lock().take() {
            running.stop.cancel();
        }
        let shared = self.shared.lock().take();
        let Some(shared) = shared else { return };
        // All bytes are free again when no message is under way.
        let all = shared.memory.acquire_many(u32::try_from(MEMORY_LIMIT).unwrap_or(u32::MAX));
        if tokio::time::timeout(DRAIN_APPENDS, all).await.is_err() {
            tracing::warn!("Some rows were not applied before the end; they are in the journal");
        }
        shared.end();
        let syncing = tokio::task::spawn_blocking(move || {
            for database in shared.catalog.list() {
                if let Err(error) = database.dbms().sync() {
                    tracing::warn!(dbms = database.name(), %error, "A database was not synced; its rows are in the journal");
                }
            }
            shared.journal.close();
        });
        if tokio::time::timeout(DRAIN_SYNC, syncing).await.is_err() {
            tracing::warn!("The databases did not sync in time; their rows are in the journal");
        }
    }

    /// How much is on its way.
    #[must_use]
    pub fn load(&self) -> Load {
        let Some(shared) = self.shared.lock().clone() else { return Load::default() };
        let segments = shared.segments.lock();
        Load {
            memory: MEMORY_LIMIT.saturating_sub(shared.memory.available_permits()),
            journal: shared.journal.bytes(),
            frames: shared.journal.counts(),
            buffered: segments.open.values().map(|segment| segment.size().0).sum(),
            closing: segments.closing.len(),
        }
    }

    /// The open segments.
    #[must_use]
    pub fn open_segments(&self) -> Vec<OpenSegment> {
        let Some(shared) = self.shared.lock().clone() else { return Vec::new() };
        let segments = shared.segments.lock();
        let shown = segments.open.iter().map(|(key, segment)| {
            let (rows, bytes) = segment.size();
            OpenSegment { dbms: key.dbms.clone(), table: key.table.clone(), rows, bytes, opened: segment.header.opened }
        });
        shown.collect()
    }

    /// The rows in the quarantine. Blocks.
    ///
    /// # Errors
    /// [`OperatorError::File`] when it cannot be read.
    pub fn quarantined(&self) -> Result<Vec<QuarantinedRow>, OperatorError> {
        self.with_quarantine(|quarantine| quarantine.rows())
    }

    /// The quarantine of the running store; without one, that of the error directory.
    pub(crate) fn with_quarantine<T>(&self, look: impl FnOnce(&Quarantine) -> T) -> T {
        let shared = self.shared.lock().clone();
        match shared {
            Some(shared) => look(&shared.quarantine),
            None => {
                let directory = self.node.directories.directory(&self.node.dictionary, "err_dir");
                look(&Quarantine::new(Arc::clone(&self.disk), directory))
            }
        }
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

impl Drop for OperatorService {
    fn drop(&mut self) {
        self.replication.abandon();
        if let Some(running) = self.running.lock().take() {
            running.stop.cancel();
        }
        if let Some(shared) = self.shared.lock().take() {
            shared.end();
        }
    }
}

fn start(flag: &AtomicBool) -> Result<(), OperatorError> {
    if flag.swap(true, Ordering::Relaxed) { Err(OperatorError::Running) } else { Ok(()) }
}

fn adopt(shared: &Arc<Shared>, recovery: Recovery) {
    *shared.tombstones.write() = recovery.tombstones;
    shared.deliveries.adopt(recovery.deliveries);
    let segments = recovery.segments.iter().map(|segment| segment.header.id).collect();
    let came = recovery.came.iter().filter_map(|record| serde_json::from_str(record).ok()).collect();
    shared.quarantine.adopt(&segments, recovery.left, came);
    let mut recovered = shared.recovered.lock();
    for segment in recovery.segments {
        let dbms = segment.header.dbms.clone();
        recovered.entry(dbms).or_default().push((segment, false));
    }
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

fn check_directory(path: &Path) -> Result<(), OperatorError> {
    let probe = path.join(".probe");
    let written = std::fs::create_dir_all(path)
        .and_then(|()| std::fs::write(&probe, b""))
        .and_then(|()| std::fs::remove_file(&probe));
    written.map_err(|error| OperatorError::Directory { path: path.to_owned(), reason: error.to_string() })
}

async fn flush(shared: &Arc<Shared>, deadline: Duration) -> Result<usize, OperatorError> {
    let waiting: Vec<_> = {
        let now = shared.now();
        let mut segments = shared.segments.lock();
        segments.close_due(now, true);
        segments.closing.iter().map(Arc::clone).collect()
    };
    shared.due.notify_one();
    let until = tokio::time::Instant::now() + deadline;
    for segment in &waiting {
        if tokio::time::timeout_at(until, segment.sealed.cancelled()).await.is_err() {
            return Err(OperatorError::Segment {
                segment: segment.header.id.to_string(),
                table: format!("{}.{}", segment.header.dbms, segment.header.table),
                reason: format!("not sealed within {} seconds; its rows are safe in the journal", deadline.as_secs()),
            });
        }
    }
    Ok(waiting.len())
}
