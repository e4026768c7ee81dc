//! The synchroniser: a loop of exchanges with a source.
//!
//! One exchange asks the source for its ledger, merges it into the local copy, and tells the source what it does not know. The loop waits for its
//! period, shorter after a failure, and less when it is woken. A policy that the source refuses is named in `get synchronizer` and sent
//! again with each exchange; it never holds up the others.

use std::sync::Arc;
use std::time::Duration;

use anylog_core::node::processes::ProcessState;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::merge::{Merged, Outgoing, Trust, merge, pending};
use super::source::LedgerSource;
use crate::ledger::blocking;
use crate::{Ledger, LedgerError};

/// The wait after the first of several failures.
const FIRST_RETRY: Duration = Duration::from_millis(250);
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
    known_version: String,
}

/// The synchroniser of a ledger.
#[derive(Debug, Default)]
pub(crate) struct Synchronizer {
    running: Mutex<Option<Running>>,
    // Counts exchanges, so that a waiter can tell one that began after it asked.
    exchanges: tokio::sync::watch::Sender<u64>,
    wake: Notify,
}

impl Synchronizer {
    pub(crate) fn wake(&self) {
        if self.running.lock().is_some() {
            self.wake.notify_one();
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
            *running = Some(Running { state, stop: stop.clone(), known_version: String::new() });
        }
        let mut exchanges = self.sync.exchanges.subscribe();
        exchanges.mark_unchanged();
        tokio::spawn(run(Arc::downgrade(&self.shared()), stop));
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
            running.known_version.clear();
        }
        self.wake_sync();
        Ok(())
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
        let (source, known, to_dbms) = {
            let running = self.sync.running.lock();
            let running = running.as_ref().ok_or(LedgerError::SyncNotRunning)?;
            (Arc::clone(&running.state.source), running.known_version.clone(), running.state.to_dbms)
        };
        // With something to tell the whole ledger is needed: it says what became of what was told before.
        let known = if pending(&self.contents()).is_empty() { known } else { String::new() };
        let mut outgoing = self.fetch_and_merge(source.as_ref(), &known, to_dbms).await?;
        let mut refused = Vec::new();
        if !outgoing.is_empty() {
            let told = self.deliver(source.as_ref(), &outgoing, &mut refused).await?;
            if told > 0 {
                outgoing = self.fetch_and_merge(source.as_ref(), "", to_dbms).await?;
                tracing::debug!(told, left = outgoing.len(), "The master was told what it did not know");
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
    ) -> Result<usize, LedgerError> {
        let mut told = 0;
        for one in outgoing {
            match source.deliver(one).await {
                Ok(()) => told += 1,
                Err(error @ LedgerError::NoVerdict { .. }) => return Err(error),
                Err(error) => {
                    let what = match one {
                        Outgoing::Push(policy) | Outgoing::Replace(policy) => {
                            format!("{} {}", policy.kind(), policy.id())
                        }
                        Outgoing::Drop(id) => format!("deletion of {id}"),
                    };
                    refused.push(format!("{what}: {error}"));
                }
            }
        }
        for text in refused.iter() {
            self.node().errors.add(self.node().clock.now(), "ledger", "Blockchain", text.clone());
        }
        Ok(told)
    }

    async fn fetch_and_merge(
        &self,
        source: &dyn LedgerSource,
        known: &str,
        to_dbms: bool,
    ) -> Result<Vec<Outgoing>, LedgerError> {
        let fetched = source.fetch(known).await?;
        self.heard_from(&source.connection());
        let Some(incoming) = fetched.incoming else {
            return Ok(pending(&self.contents()));
        };
        let connection = source.connection();
        let (merged, changed) = self
            .change(move |file, contents| {
                let followed = read_source(file).is_some_and(|followed| followed == connection);
                let trust = if followed { Trust::Same } else { Trust::New };
                let merged = merge(contents, &incoming, trust);
                let changed = merged.contents != *contents;
                if changed {
                    file.rewrite(&merged.contents)?;
                    *contents = merged.contents.clone();
                }
                if !followed {
                    crate::store::file::LedgerFile::export(&file.sibling("source"), [connection])?;
                }
                Ok((merged, changed))
            })
            .await?;
        self.report(&merged);
        if changed && to_dbms {
            let (ledger, policies) = (self.shared(), merged.contents.policies.clone());
            let host = self.node().address();
            blocking(move || ledger.import_to_table(&policies, &host)).await?;
        }
        let mut running = self.sync.running.lock();
        if let Some(running) =
            running.as_mut().filter(|running| running.state.source.connection() == source.connection())
        {
            running.known_version = fetched.version;
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
                retry = (retry * 2).min(period.max(FIRST_RETRY));
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
