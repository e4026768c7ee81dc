//! What is shown of the operator.

use std::sync::{Arc, Weak};

use anylog_core::node::processes::ProcessState;
use anylog_core::node::queues::QueueUse;

use super::OperatorService;
use crate::OperatorError;
use crate::config::{Load, OpenSegment, OperatorState};
use crate::quarantine::{Quarantine, QuarantinedRow};
use crate::store::MEMORY_LIMIT;

impl OperatorService {
    pub(super) fn show_processes(self: &Arc<Self>) {
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
}
