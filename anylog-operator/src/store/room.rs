//! Whether there is room for more, on the disk, in the journal and in memory, and whether databases take rows.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anylog_core::node::queues::QueueUse;
use anylog_dbms::DbmsError;
use anylog_ingest::SinkError;

use super::Shared;
use crate::apply::KEPT_LIMIT;

/// Bytes that rows on their way may take at one time; further senders wait.
pub(crate) const MEMORY_LIMIT: usize = 8 << 20;
/// What a row takes in memory beside its text: its values, and its copy for the journal.
pub(crate) const ROW_BYTES: usize = 300;
/// Bytes that the journal may hold; further senders wait for seals.
pub(crate) const JOURNAL_LIMIT: u64 = 1 << 30;
/// Free bytes on the journal's disk below which nothing more is taken: seals, which free the journal, need some.
pub(crate) const DISK_FLOOR: u64 = 32 << 20;
/// How often the free bytes are looked at.
const DISK_PERIOD: Duration = Duration::from_millis(500);
/// How long a sender waits for room, or for a database that does not answer, before it is asked to try again.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How often a database that fails, or a cluster of which too few members are there, is looked at by who waits for it.
pub(crate) const FAILING_PERIOD: Duration = Duration::from_millis(50);

impl Shared {
    /// Fails while the journal's disk is nearly full; goes on by itself when there is space again.
    pub(crate) fn check_space(&self) -> Result<(), SinkError> {
        let mut looked = self.looked.lock();
        let full = match *looked {
            Some((at, full)) if at.elapsed() < DISK_PERIOD => full,
            before => {
                let free = self.disk.free(self.journal.directory());
                let full = free.is_some_and(|free| free < DISK_FLOOR);
                if full && !before.is_some_and(|(_, full)| full) {
                    tracing::error!(
                        free,
                        floor = DISK_FLOOR,
                        "The disk of the journal is nearly full: no rows are taken"
                    );
                }
                *looked = Some((std::time::Instant::now(), full));
                full
            }
        };
        if full { Err(SinkError::DiskFull) } else { Ok(()) }
    }

    /// What waits, and how much may.
    pub(crate) fn queues(&self) -> Vec<QueueUse> {
        let memory = MEMORY_LIMIT.saturating_sub(self.memory.available_permits());
        let (waiting, most) = self.quarantine.waiting();
        let mut queues = vec![
            QueueUse::bytes("rows on their way", memory as u64, MEMORY_LIMIT as u64),
            QueueUse::bytes("buffered rows in memory", self.kept.used(), KEPT_LIMIT as u64),
            QueueUse::bytes("journal", self.journal.bytes(), JOURNAL_LIMIT),
            QueueUse::bytes("quarantine", self.quarantine.bytes(), self.quarantine.limit()),
            QueueUse::bytes("records for the quarantine", waiting, most),
        ];
        // Rows that wait for a database are on their way: their bytes are counted above.
        for (dbms, applier) in self.appliers.lock().iter() {
            let (name, used) = (format!("rows for database {dbms}"), applier.waiting());
            queues.push(QueueUse { name, unit: "rows", used, ..QueueUse::default() });
        }
        if self.quarantine_full.load(Ordering::Relaxed) {
            queues.push(QueueUse::trouble("quarantine", "full: what does not fit or map is not acknowledged"));
        }
        if self.check_space().is_err() {
            queues.push(QueueUse::trouble("disk of the journal", "nearly full"));
        }
        let failing = self.stats.all_failing();
        queues.extend(failing.into_iter().map(|(dbms, error)| QueueUse::trouble(format!("database {dbms}"), error)));
        queues.sort_by(|a, b| (a.unit, &a.name).cmp(&(b.unit, &b.name)));
        queues
    }

    pub(crate) async fn room(&self) -> Result<(), SinkError> {
        self.check_space()?;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while self.journal.bytes() > JOURNAL_LIMIT {
            let released = self.released.notified();
            self.due.notify_one();
            if self.journal.bytes() > JOURNAL_LIMIT && tokio::time::timeout_at(deadline, released).await.is_err() {
                return Err(SinkError::Overloaded);
            }
        }
        Ok(())
    }

    /// Waits a while for databases that fail. Their rows do not go into the journal meanwhile, nor take memory: a database that
    /// is away for a day must not stop the others.
    pub(crate) async fn databases_work<'d>(
        &self,
        databases: impl Iterator<Item = &'d str> + Clone,
    ) -> Result<(), SinkError> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let Some(error) = databases.clone().find_map(|dbms| self.stats.failing(dbms)) else { return Ok(()) };
            if tokio::time::Instant::now() >= deadline || self.ending.load(Ordering::Relaxed) {
                return Err(failing(&error));
            }
            tokio::time::sleep(FAILING_PERIOD).await;
        }
    }
}

/// What a sender is told of a database that takes no rows at the moment.
pub(super) fn failing(error: &DbmsError) -> SinkError {
    match error {
        DbmsError::DiskFull { .. } => SinkError::DiskFull,
        error @ DbmsError::Unavailable { .. } => SinkError::Unavailable { reason: error.to_string() },
        error => SinkError::Failed { reason: error.to_string() },
    }
}
