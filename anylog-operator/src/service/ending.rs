//! `flush buffers`, `exit operator`, and the end of the node.

use std::sync::Arc;
use std::time::Duration;

use super::OperatorService;
use crate::OperatorError;
use crate::store::{MEMORY_LIMIT, Shared};

/// How long `flush buffers` waits for the segments that it closed.
const FLUSH_DEADLINE: Duration = Duration::from_secs(60);
/// How long `exit operator` waits for open segments; what is left is sealed by the next start.
const EXIT_DEADLINE: Duration = Duration::from_secs(10);
/// The parts of a drain, which together stay within five seconds.
const DRAIN_APPENDS: Duration = Duration::from_millis(2500);
const DRAIN_SYNC: Duration = Duration::from_millis(1500);

impl OperatorService {
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
