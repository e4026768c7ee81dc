//! All roads of data into a node.

use std::sync::Arc;

use anylog_core::{CommandError, Node};
use anylog_ledger::Ledger;

use crate::{Broker, Receipt, Router, SinkSlot};

/// The ingestion of a node: its broker, its message clients, its REST data.
#[derive(Debug)]
pub struct Ingest {
    ledger: Arc<Ledger>,
    broker: Arc<Broker>,
}

impl Ingest {
    /// The ingestion of `node`. Mapping policies come from `ledger`, rows go to `slot`.
    pub fn new(node: Arc<Node>, ledger: Arc<Ledger>, slot: Arc<SinkSlot>) -> Arc<Self> {
        let broker = Broker::new(node, slot, Arc::new(Router::default()));
        Arc::new(Self { ledger, broker })
    }

    /// The node's own broker.
    pub fn broker(&self) -> Arc<Broker> {
        Arc::clone(&self.broker)
    }

    /// Maps and stores a message that came by `POST` with `command: data`. `agent` is the product name of the caller's user
    /// agent, `topic` that of the header; without one the agent's first topic is meant.
    ///
    /// # Errors
    /// No message client for this agent or topic, a message that cannot be mapped, rows that cannot be stored.
    pub async fn rest_message(
        &self,
        agent: &str,
        topic: Option<&str>,
        body: &str,
        origin: &str,
    ) -> Result<Receipt, CommandError> {
        let _ = (&self.ledger, topic, body, origin);
        Err(CommandError::process(format!("no message client for agent '{agent}'")))
    }

    /// Publishes a message on the node's own broker, as a client of it would.
    ///
    /// # Errors
    /// A topic with wildcards, a QoS above 2, rows that cannot be stored.
    pub async fn publish(&self, topic: &str, payload: &[u8], qos: u8, retain: bool) -> Result<(), CommandError> {
        let _ = (payload, qos, retain);
        Err(CommandError::process(format!("cannot publish on '{topic}'")))
    }
}
