//! The journal and all around it, opened when it is needed first.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::OperatorService;
use crate::OperatorError;
use crate::journal::Journal;
use crate::journal::recovery::{Damage, Recovery};
use crate::publish::Publisher;
use crate::store::Shared;
use crate::tables::Tables;

impl OperatorService {
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
