//! What all parts of a store share, and what a running operator was told.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anylog_core::Node;
use anylog_dbms::{Catalog, TsdStore};
use anylog_ingest::SinkError;
use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, Semaphore};

use super::opening::OPENING_LOCKS;
use super::room::MEMORY_LIMIT;
use crate::OperatorError;
use crate::apply::{Applier, Kept};
use crate::deliveries::Deliveries;
use crate::disk::Disk;
use crate::journal::Journal;
use crate::journal::recovery::{RecoveredSegment, Tombstones};
use crate::order::Order;
use crate::quarantine::{Quarantine, QuarantinedRow};
use crate::replica::Followers;
use crate::replica::copies::Turns;
use crate::replica::receive::Copying;
use crate::segments::Segments;
use crate::stats::Stats;
use crate::tables::Tables;
use crate::thresholds::CurrentThresholds;

/// What a running operator was told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    /// The member id as text, `0` when rows are not registered.
    pub(crate) member: String,
    pub(crate) tsd: Option<Arc<TsdStore>>,
    pub(crate) archive: bool,
    pub(crate) compress: bool,
    pub(crate) archive_dir: PathBuf,
    pub(crate) backup_dir: PathBuf,
    pub(crate) watch_dir: PathBuf,
    pub(crate) error_dir: PathBuf,
    pub(crate) prep_dir: PathBuf,
}

/// What all parts of a store share.
pub(crate) struct Shared {
    pub(crate) node: Arc<Node>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) journal: Journal,
    pub(crate) quarantine: Quarantine,
    pub(crate) tables: Tables,
    pub(crate) stats: Arc<Stats>,
    pub(crate) thresholds: Arc<CurrentThresholds>,
    pub(crate) settings: RwLock<Arc<Settings>>,
    pub(crate) tombstones: RwLock<Tombstones>,
    pub(crate) deliveries: Arc<Deliveries>,
    pub(crate) segments: Mutex<Segments>,
    /// Segments of the run before, by database, until an operator finishes them.
    pub(crate) recovered: Mutex<HashMap<String, Vec<(RecoveredSegment, bool)>>>,
    pub(super) appliers: Mutex<HashMap<String, Arc<Applier>>>,
    pub(crate) memory: Arc<Semaphore>,
    pub(crate) kept: Kept,
    pub(super) order: Order,
    pub(super) disk: Arc<dyn Disk>,
    /// When the disk was looked at last, and whether it was nearly full.
    pub(super) looked: Mutex<Option<(std::time::Instant, bool)>>,
    pub(super) opening: Vec<tokio::sync::Mutex<()>>,
    /// Files that are being stored, by hash.
    pub(crate) files_in_work: Mutex<BTreeSet<String>>,
    pub(crate) pruning: Mutex<()>,
    /// It was said that the quarantine is full.
    pub(crate) quarantine_full: AtomicBool,
    /// Wakes the sealer.
    pub(crate) due: Notify,
    /// Wakes who waits for room in the journal.
    pub(crate) released: Notify,
    pub(crate) ending: AtomicBool,
    /// Who follows files of this node while they are open; none while no operator of a cluster runs.
    pub(crate) followers: RwLock<Option<Arc<dyn Followers>>>,
    /// Files of other members to which something is done.
    pub(crate) file_turns: Turns,
    /// Files of other members that are stored, and what is left of those that were on their way.
    pub(crate) copying: Copying,
}

impl Shared {
    pub(crate) fn new(
        node: Arc<Node>,
        catalog: Arc<Catalog>,
        disk: Arc<dyn Disk>,
        journal: Journal,
        tables: Tables,
        stats: Arc<Stats>,
        thresholds: Arc<CurrentThresholds>,
    ) -> Self {
        let error_dir = node.directories.directory(&node.dictionary, "err_dir");
        Self {
            node,
            catalog,
            journal,
            quarantine: Quarantine::new(Arc::clone(&disk), error_dir),
            tables,
            stats,
            thresholds,
            settings: RwLock::default(),
            tombstones: RwLock::default(),
            deliveries: Arc::default(),
            segments: Mutex::default(),
            recovered: Mutex::default(),
            appliers: Mutex::default(),
            memory: Arc::new(Semaphore::new(MEMORY_LIMIT)),
            kept: Kept::default(),
            order: Order::default(),
            disk,
            looked: Mutex::new(None),
            opening: (0..OPENING_LOCKS).map(|_| tokio::sync::Mutex::new(())).collect(),
            files_in_work: Mutex::default(),
            pruning: Mutex::default(),
            quarantine_full: AtomicBool::new(false),
            due: Notify::new(),
            released: Notify::new(),
            ending: AtomicBool::new(false),
            followers: RwLock::default(),
            file_turns: Turns::default(),
            copying: Copying::default(),
        }
    }

    /// The current time in whole microseconds, as it is stored.
    pub(crate) fn now(&self) -> Timestamp {
        let now = self.node.clock.now();
        Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
    }

    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read())
    }

    pub(crate) fn applier(self: &Arc<Self>, dbms: &str) -> Result<Arc<Applier>, OperatorError> {
        let mut appliers = self.appliers.lock();
        if let Some(applier) = appliers.get(dbms) {
            return Ok(Arc::clone(applier));
        }
        let applier = Applier::start(dbms, Arc::clone(self))
            .map_err(|error| SinkError::Failed { reason: format!("no thread for database {dbms}: {error}") })?;
        appliers.insert(dbms.to_owned(), Arc::clone(&applier));
        Ok(applier)
    }

    /// Makes a database, or all, store the rows that are kept in memory behind their acknowledgement.
    pub(crate) fn urge(&self, dbms: Option<&str>) {
        let appliers = self.appliers.lock();
        let asked = appliers.iter().filter(|(name, _)| dbms.is_none_or(|dbms| dbms == name.as_str()));
        asked.for_each(|(_, applier)| applier.urge());
    }

    /// Ends the threads. What is in the journal and not applied is applied by the next start.
    pub(crate) fn end(&self) {
        self.ending.store(true, Ordering::SeqCst);
        for applier in self.appliers.lock().values() {
            applier.close();
        }
        self.quarantine.close();
        self.due.notify_waiters();
        self.released.notify_waiters();
    }

    /// Puts rows aside. Returns when they are on stable storage.
    pub(crate) async fn put_aside(&self, rows: Vec<QuarantinedRow>) -> Result<(), OperatorError> {
        if rows.is_empty() {
            return Ok(());
        }
        let result = self.quarantine.add(&rows).await;
        match &result {
            Err(error @ OperatorError::QuarantineFull { .. }) => {
                if !self.quarantine_full.swap(true, Ordering::Relaxed) {
                    let text = format!("{error}: what does not fit or map is not acknowledged; see get quarantine");
                    tracing::error!("{text}");
                    self.node.errors.add(self.node.clock.now(), "operator", "Quarantine full", text);
                }
            }
            Ok(()) => self.quarantine_full.store(false, Ordering::Relaxed),
            Err(_) => {}
        }
        result
    }
}
