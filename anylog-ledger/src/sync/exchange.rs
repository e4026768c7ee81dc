//! The synchroniser: a loop of exchanges with a source.
//!
//! One exchange asks the source for what is new, merges it into the local copy, and tells the source what it does not know. The loop waits for
//! its period, shorter after a failure, and is woken by a write here and by the source, which tells of its changes. A policy that the
//! source refuses is named in `get synchronizer` and sent again with each exchange; it never holds up the others.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anylog_core::node::processes::ProcessState;
use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::edition::Edition;
use super::merge::{Incoming, Merged, Outgoing, Trust, merge, merge_touched};
use super::source::{Delivered, LedgerSource};
use crate::ledger::blocking;
use crate::snapshot::Deletion;
use crate::{Ledger, LedgerError, Policy};

/// The wait after the first of several failures.
const FIRST_RETRY: Duration = Duration::from_millis(250);
/// The longest wait after a failure: a source that is back is noticed within this time.
const LONGEST_RETRY: Duration = Duration::from_secs(2);
/// How long `run blockchain sync` waits for the first exchange.
pub const FIRST_EXCHANGE: Duration = Duration::from_secs(5);

/// What the synchroniser did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SyncStats {
    /// Exchanges begun.
    pub calls: u64,
    /// Exchanges that changed the local copy.
    pub loads: u64,
    /// Exchanges that succeeded.
    pub succeeded: u64,
    /// Exchanges that failed.
    pub failed: u64,
    /// Whether the source tells of changes at once.
    pub following: bool,
    /// When the local copy changed last.
    pub updated: Option<jiff::Timestamp>,
    /// Why the last exchange failed; none when it succeeded.
    pub error: Option<String>,
    /// What the source refused of what it was told, in the last exchange.
    pub refused: Vec<String>,
}

/// A running synchroniser.
#[derive(Debug, Clone)]
pub struct SyncState {
    /// Where the ledger comes from.
    pub source: Arc<dyn LedgerSource>,
    /// The longest time between two exchanges.
    pub period: Duration,
    /// Whether the ledger goes into this node's database as well.
    pub to_dbms: bool,
    /// What it did.
    pub stats: SyncStats,
}

#[derive(Debug)]
struct Running {
    state: SyncState,
    stop: CancellationToken,
    /// The edition of the source that was merged last; without version before the first exchange.
    known: Edition,
    /// Cancelled when another source is followed.
    switched: CancellationToken,
}

/// What came of telling the source.
#[derive(Debug, Default)]
struct Told {
    count: usize,
    deleted: Vec<Deletion>,
}

/// The synchroniser of a ledger.
#[derive(Debug, Default)]
pub(crate) struct Synchronizer {
    running: Mutex<Option<Running>>,
    // Counts exchanges, so that a waiter can tell one that began after it asked.
    exchanges: tokio::sync::watch::Sender<u64>,
    wake: Notify,
    // Tells what was accepted by the source after it gave an answer from what was accepted before.
    clock: AtomicU64,
    accepted: Mutex<HashMap<String, u64>>,
}

impl Synchronizer {
    pub(crate) fn wake(&self) {
        if self.running.lock().is_some() {
            self.wake.notify_one();
        }
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// The source accepted a policy: an answer that it gave before does not show it.
    pub(crate) fn accepted(&self, id: &str) {
        let now = self.tick();
        self.accepted.lock().insert(id.to_owned(), now);
    }

    /// What the source accepted and an edition of it, which was asked for at `began`, does not show: all of it, and what was accepted
    /// since, which a later edition will show.
    fn accepted_and_missing(&self, edition: &Edition, began: u64) -> (Vec<String>, HashSet<String>) {
        let mut accepted = self.accepted.lock();
        accepted.retain(|id, _| edition.policies.get(id).is_none());
        let missing = accepted.keys().cloned().collect();
        accepted.retain(|_, at| *at >= began);
        (missing, accepted.keys().cloned().collect())
    }

    /// The source to follow, and what ends that.
    fn followed(&self) -> Option<(Arc<dyn LedgerSource>, CancellationToken)> {
        let running = self.running.lock();
        let running = running.as_ref()?;
        Some((Arc::clone(&running.state.source), running.switched.clone()))
    }

    /// The source's ledger has this version.
    fn heard(&self, version: &str) {
        let mut running = self.running.lock();
        let Some(running) = running.as_mut() else { return };
        running.state.stats.following = true;
        if running.known.version != version {
            self.wake.notify_one();
        }
    }

    /// The source is not heard any more.
    fn lost(&self) {
        if let Some(running) = self.running.lock().as_mut() {
            running.state.stats.following = false;
        }
    }

    pub(crate) fn process_state(&self) -> ProcessState {
        match self.running.lock().as_ref() {
            None => ProcessState::not_declared(),
            Some(running) => ProcessState::running(describe(&running.state)),
        }
    }
}

fn describe(state: &SyncState) -> String {
    let every = format!("Sync every {} seconds", state.period.as_secs());
    match state.source.kind() {
        "master" => format!("{every} with master using: {}", state.source.connection()),
        kind => format!("{every} with {kind} to local blockchain file"),
    }
}

impl Ledger {
    /// Starts the synchroniser and returns when the first exchange succeeded, or after five seconds; then says why it did not.
    ///
    /// # Errors
    /// [`LedgerError::SyncRunning`] when one runs already.
    pub async fn start_sync(
        &self,
        source: Arc<dyn LedgerSource>,
        period: Duration,
        to_dbms: bool,
    ) -> Result<Option<String>, LedgerError> {
        let stop = self.node().shutdown.child_token();
        {
            let mut running = self.sync.running.lock();
            if let Some(running) = running.as_ref() {
                return Err(LedgerError::SyncRunning { details: describe(&running.state) });
            }
            let state = SyncState { source, period, to_dbms, stats: SyncStats::default() };
            let switched = stop.child_token();
            *running = Some(Running { state, stop: stop.clone(), known: Edition::default(), switched });
        }
        let mut exchanges = self.sync.exchanges.subscribe();
        exchanges.mark_unchanged();
        tokio::spawn(run(Arc::downgrade(&self.shared()), stop.clone()));
        tokio::spawn(follow(Arc::downgrade(&self.shared()), stop));
        if tokio::time::timeout(FIRST_EXCHANGE, exchanges.changed()).await.is_ok_and(|changed| changed.is_ok()) {
            return Ok(None);
        }
        let error = self.sync_state().and_then(|state| state.stats.error);
        let error = error.unwrap_or_else(|| "it did not answer yet".to_owned());
        Ok(Some(format!("no ledger from the source within {} seconds: {error}", FIRST_EXCHANGE.as_secs())))
    }

    /// Ends the synchroniser.
    ///
    /// # Errors
    /// [`LedgerError::SyncNotRunning`].
    pub fn stop_sync(&self) -> Result<(), LedgerError> {
        let running = self.sync.running.lock().take().ok_or(LedgerError::SyncNotRunning)?;
        running.stop.cancel();
        Ok(())
    }

    /// The running synchroniser.
    #[must_use]
    pub fn sync_state(&self) -> Option<SyncState> {
        self.sync.running.lock().as_ref().map(|running| running.state.clone())
    }

    /// Lets the running synchroniser follow another source from now on. What is not yet known to any master stays; what came
    /// from the old source goes with the first exchange.
    ///
    /// # Errors
    /// [`LedgerError::SyncNotRunning`].
    pub fn switch_source(&self, source: Arc<dyn LedgerSource>) -> Result<(), LedgerError> {
        {
            let mut running = self.sync.running.lock();
            let running = running.as_mut().ok_or(LedgerError::SyncNotRunning)?;
            running.state.source = source;
            running.known = Edition::default();
            running.switched.cancel();
            running.switched = running.stop.child_token();
        }
        self.wake_sync();
        Ok(())
    }

    /// Whether a policy is in the ledger of the master that this node follows, after waiting for that for this time at most. True at
    /// once for a node that follows nobody. Until then the master may still give another member number to an operator.
    pub async fn published(&self, id: &str, within: Duration) -> bool {
        if self.sync_state().is_none() {
            return true;
        }
        let mut notices = self.notices.subscribe();
        let is_local = || self.policy(id).is_some_and(|policy| policy.is_local());
        if is_local() {
            self.wake_sync();
        }
        let known = async {
            while is_local() {
                // The sender lives as long as the ledger.
                drop(notices.changed().await);
            }
        };
        tokio::time::timeout(within, known).await.is_ok()
    }

    /// Waits until an exchange that begins now has succeeded. Returns whether it did in time.
    pub async fn synchronized(&self, within: Duration) -> bool {
        if self.sync.running.lock().is_none() {
            return false;
        }
        let mut exchanges = self.sync.exchanges.subscribe();
        exchanges.mark_unchanged();
        self.wake_sync();
        tokio::time::timeout(within, exchanges.changed()).await.is_ok_and(|changed| changed.is_ok())
    }

    /// One exchange with the source of the running synchroniser.
    ///
    /// # Errors
    /// [`LedgerError::SyncNotRunning`], what the source answered, what the local copy refuses.
    pub async fn exchange(&self) -> Result<(), LedgerError> {
        let source = {
            let running = self.sync.running.lock();
            Arc::clone(&running.as_ref().ok_or(LedgerError::SyncNotRunning)?.state.source)
        };
        let mut outgoing = self.fetch_and_merge(source.as_ref(), Vec::new()).await?;
        let mut refused = Vec::new();
        if !outgoing.is_empty() {
            let told = self.deliver(source.as_ref(), &outgoing, &mut refused).await?;
            if told.count > 0 {
                outgoing = self.fetch_and_merge(source.as_ref(), told.deleted).await?;
                tracing::debug!(told = told.count, left = outgoing.len(), "The master was told what it did not know");
            }
        }
        if let Some(running) = self.sync.running.lock().as_mut() {
            running.state.stats.refused = refused;
        }
        // Scripts wait for this: `wait N for sync`.
        self.node().scripts.metadata_merged();
        Ok(())
    }

    /// Tells the source; a refusal of one is kept for the report, silence ends it.
    async fn deliver(
        &self,
        source: &dyn LedgerSource,
        outgoing: &[Outgoing],
        refused: &mut Vec<String>,
    ) -> Result<Told, LedgerError> {
        let mut told = Told::default();
        for one in outgoing {
            match (source.deliver(one).await, one) {
                (Ok(Delivered::Deleted), Outgoing::Push(policy) | Outgoing::Replace(policy)) => {
                    told.count += 1;
                    // It goes as long as it is not written again meanwhile.
                    let date = policy.text("date").unwrap_or_default().to_owned();
                    told.deleted.push(Deletion { id: policy.id().to_owned(), date });
                }
                (Ok(_), _) => told.count += 1,
                (Err(error @ LedgerError::NoVerdict { .. }), _) => return Err(error),
                (Err(error), Outgoing::Push(policy) | Outgoing::Replace(policy)) => {
                    refused.push(format!("{} {}: {error}", policy.kind(), policy.id()));
                }
                (Err(error), Outgoing::Drop(id)) => refused.push(format!("deletion of {id}: {error}")),
            }
        }
        for text in refused.iter() {
            self.node().errors.add(self.node().clock.now(), "ledger", "Blockchain", text.clone());
        }
        Ok(told)
    }

    /// The edition of the source that was merged last. After a start it is what the copy shows of it, when it follows this source.
    fn known_edition(&self, source: &dyn LedgerSource) -> Edition {
        let connection = source.connection();
        if let Some(running) = self.sync.running.lock().as_ref()
            && running.state.source.connection() == connection
            && !running.known.version.is_empty()
        {
            return running.known.clone();
        }
        let file = crate::store::file::LedgerFile::new(self.path());
        if read_source(&file).is_none_or(|followed| followed != connection) {
            return Edition::default();
        }
        let contents = self.contents();
        let theirs = |policy: &Arc<Policy>| {
            // Of what was changed here the source has other content.
            !policy.is_local() && !contents.replaced.iter().any(|id| id == policy.id())
        };
        Edition::new(contents.policies.iter().filter(|policy| theirs(policy)).cloned().collect())
    }

    /// Fetches the source's ledger and merges it. `deleted` are deletions that the source told of before. Returns what the source has to be told.
    async fn fetch_and_merge(
        &self,
        source: &dyn LedgerSource,
        deleted: Vec<Deletion>,
    ) -> Result<Vec<Outgoing>, LedgerError> {
        let known = self.known_edition(source);
        let began = self.sync.tick();
        let fetched = source.fetch(&known).await?;
        let connection = source.connection();
        self.heard_from(&connection);
        let edition = fetched.edition.clone();
        let deleted = [fetched.deleted, deleted].concat();
        let to = connection.clone();
        let shared = self.shared();
        let merged = self
            .change(move |copy| {
                let before = (to.clone(), known.version);
                let (missing, accepted) = shared.sync.accepted_and_missing(&fetched.edition, began);
                let Edition { policies, version } = fetched.edition;
                let incoming = Incoming { policies, deleted, accepted };
                // What the copy took over from this source before need not be looked at again.
                let merged = match fetched.touched.filter(|_| copy.merged.as_ref() == Some(&before)) {
                    Some(touched) => merge_touched(&copy.contents, &incoming, touched.into_iter().chain(missing)),
                    None => {
                        let followed = read_source(&copy.file).is_some_and(|followed| followed == to);
                        let merged = merge(&copy.contents, &incoming, if followed { Trust::Same } else { Trust::New });
                        if !followed {
                            // What belonged to another network must not be found beside the name of this one.
                            copy.rewrite(merged.contents.clone())?;
                            copy.file.note_source(&to)?;
                            copy.merged = Some((to, version));
                            return Ok(merged);
                        }
                        merged
                    }
                };
                copy.take(&merged)?;
                copy.merged = Some((to, version));
                Ok(merged)
            })
            .await?;
        self.report(&merged);
        let changed = merged.is_changed();
        if let Some(state) = self.sync_state().filter(|state| state.to_dbms) {
            let first = state.stats.succeeded == 0;
            let (ledger, host, merged) = (self.shared(), self.node().address(), merged.clone());
            blocking(move || ledger.mirror(&merged, first, &host)).await?;
        }
        let mut running = self.sync.running.lock();
        if let Some(running) = running.as_mut().filter(|running| running.state.source.connection() == connection) {
            running.known = edition;
            if changed {
                running.state.stats.loads += 1;
                running.state.stats.updated = Some(self.node().clock.now());
            }
        }
        Ok(merged.outgoing)
    }

    fn report(&self, merged: &Merged) {
        if merged.lost_at_master.is_empty() {
            return;
        }
        let text = format!(
            "the master lost {} policies that it had, and is sent them again: {}",
            merged.lost_at_master.len(),
            merged.lost_at_master.iter().take(5).cloned().collect::<Vec<_>>().join(", ")
        );
        tracing::warn!(count = merged.lost_at_master.len(), "The master lost policies that it had");
        self.node().errors.add(self.node().clock.now(), "ledger", "Blockchain", text);
    }

    fn count(&self, result: &Result<(), LedgerError>) {
        if let Some(running) = self.sync.running.lock().as_mut() {
            let stats = &mut running.state.stats;
            stats.calls += 1;
            match result {
                Ok(()) => {
                    stats.succeeded += 1;
                    stats.error = None;
                }
                Err(error) => {
                    stats.failed += 1;
                    stats.error = Some(error.to_string());
                }
            }
        }
        if result.is_ok() {
            self.sync.exchanges.send_modify(|count| *count += 1);
        }
    }
}

/// The source that the local copy follows, as noted beside it.
fn read_source(file: &crate::store::file::LedgerFile) -> Option<String> {
    Some(std::fs::read_to_string(file.sibling("source")).ok()?.trim().to_owned())
}

async fn run(ledger: std::sync::Weak<Ledger>, stop: CancellationToken) {
    let mut retry = FIRST_RETRY;
    loop {
        let Some(ledger) = ledger.upgrade() else { return };
        let began = Instant::now();
        let result = tokio::select! {
            () = stop.cancelled() => return,
            result = ledger.exchange() => result,
        };
        let took = began.elapsed();
        ledger.count(&result);
        let Some(period) = ledger.sync_state().map(|state| state.period) else { return };
        let wait = match &result {
            Ok(()) => {
                retry = FIRST_RETRY;
                period
            }
            Err(error) => {
                tracing::warn!(%error, "The ledger was not synchronised");
                let wait = retry.min(period);
                retry = (retry * 2).min(LONGEST_RETRY);
                wait
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            // Of a burst of writes each wakes the loop; exchanges take at most half of the time.
            () = ledger.sync.wake.notified() => tokio::time::sleep(took).await,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Hears of changes from the source and wakes the loop.
async fn follow(ledger: std::sync::Weak<Ledger>, stop: CancellationToken) {
    let mut pause = FIRST_RETRY;
    loop {
        let followed = ledger.upgrade().and_then(|ledger| ledger.sync.followed());
        let Some((source, switched)) = followed else { return };
        let following = tokio::select! {
            () = switched.cancelled() => Err(LedgerError::SyncNotRunning),
            versions = source.follow() => versions,
        };
        if let Ok(mut versions) = following {
            loop {
                let version = tokio::select! {
                    () = switched.cancelled() => break,
                    version = versions.next() => version,
                };
                let (Some(ledger), Some(Ok(version))) = (ledger.upgrade(), version) else { break };
                pause = FIRST_RETRY;
                ledger.sync.heard(&version);
            }
        }
        if let Some(ledger) = ledger.upgrade() {
            ledger.sync.lost();
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(LONGEST_RETRY);
    }
}
