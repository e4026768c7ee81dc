//! What an operator tells the network of its tables: table policies, and the cluster's child policies.

use std::sync::Arc;
use std::time::Duration;

use anylog_core::Status;
use anylog_ingest::SinkError;
use anylog_ledger::{Destinations, Ledger, LedgerError, OperatorNode, Policy};
use parking_lot::RwLock;
use serde_json::json;

/// How long the policy of a table is waited for that another member has rows of, and how often it is looked for.
const PATIENCE: Duration = Duration::from_secs(2);
const PERIOD: Duration = Duration::from_millis(20);

/// Publishes policies where `run operator` says.
#[derive(Debug)]
pub(crate) struct Publisher {
    ledger: Arc<Ledger>,
    destinations: RwLock<Destinations>,
    own: RwLock<Option<OperatorNode>>,
    company: RwLock<Option<String>>,
}

impl Publisher {
    pub(crate) fn new(ledger: Arc<Ledger>) -> Self {
        Self {
            ledger,
            destinations: RwLock::new(Destinations::local()),
            own: RwLock::new(None),
            company: RwLock::new(None),
        }
    }

    /// Says where policies go, and in whose name.
    pub(crate) fn configure(&self, master: Option<String>, own: Option<OperatorNode>, company: Option<String>) {
        *self.destinations.write() = master.map_or_else(Destinations::local, Destinations::with_master);
        *self.own.write() = own;
        *self.company.write() = company;
    }

    /// A policy of the ledger.
    pub(crate) fn policy(&self, id: &str) -> Option<Arc<Policy>> {
        self.ledger.policy(id)
    }

    /// The `create` text of the table's policy.
    pub(crate) fn create_text(&self, dbms: &str, table: &str) -> Option<String> {
        self.ledger.view().table_policy(dbms, table)?.text("create").map(str::to_owned)
    }

    /// Waits a while for the policy of a table that another member has rows of, so that it has published it.
    pub(crate) async fn await_table(&self, dbms: &str, table: &str) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        self.ledger.wake_sync();
        while self.create_text(dbms, table).is_none() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// Whether another operator of the own cluster has this member number.
    pub(crate) fn is_peer(&self, member: &str) -> bool {
        let Some(own) = self.own.read().clone() else { return false };
        self.ledger.view().operators_of(&own.cluster).any(|peer| peer.member.to_string() == member)
    }

    /// Publishes a table, unless somebody else was first.
    pub(crate) async fn publish_table(
        &self,
        dbms: &str,
        table: &str,
        create: &str,
        source: &str,
    ) -> Result<(), SinkError> {
        let company = self.company.read().clone();
        let mut inner = json!({"name": table, "dbms": dbms, "create": create, "source": source});
        if let (Some(company), Some(inner)) = (company, inner.as_object_mut()) {
            inner.insert("company".into(), company.into());
        }
        self.publish("table", inner, dbms, table).await
    }

    /// Publishes the new `create` text of a table that is published.
    pub(crate) async fn update_table(&self, dbms: &str, table: &str, create: &str) -> Result<(), SinkError> {
        let Some(policy) = self.ledger.view().table_policy(dbms, table).cloned() else { return Ok(()) };
        let to = self.destinations.read().clone();
        match self.ledger.replace(policy.with("create", create), &to).await {
            Ok(_) => Ok(()),
            // The rows can be stored; the policy is behind, which is said and mended at the next change.
            Err(error) => {
                tracing::warn!(dbms, table, %error, "The table was widened, but its policy could not be updated");
                Ok(())
            }
        }
    }

    /// Publishes that the cluster of this node has the table. Without an own cluster there is nothing to say.
    pub(crate) async fn publish_location(&self, dbms: &str, table: &str) -> Result<(), SinkError> {
        let Some(own) = self.own.read().clone() else { return Ok(()) };
        let view = self.ledger.view();
        if view.clusters_with(dbms, table).contains(&own.cluster.as_str()) {
            return Ok(());
        }
        let Some(cluster) = view.cluster(&own.cluster) else {
            return Err(SinkError::Table {
                dbms: dbms.to_owned(),
                table: table.to_owned(),
                reason: format!("the operator's cluster {} is not in the ledger", own.cluster),
                status: Status::NO_CLUSTER,
            });
        };
        let inner = json!({
            "parent": cluster.id,
            "name": cluster.name,
            "company": cluster.company,
            "table": [{"dbms": dbms, "name": table}],
            "source": format!("Node at {}", own.address()),
        });
        self.publish("cluster", inner, dbms, table).await
    }

    async fn publish(&self, kind: &str, inner: serde_json::Value, dbms: &str, table: &str) -> Result<(), SinkError> {
        let inner = match inner {
            serde_json::Value::Object(inner) => inner,
            _ => serde_json::Map::new(),
        };
        let to = self.destinations.read().clone();
        match self.ledger.insert(Policy::new(kind, inner), &to).await {
            Ok(policy) => {
                tracing::info!(kind, id = policy.id(), dbms, table, "Policy published");
                Ok(())
            }
            // Somebody published the same: that is what was wanted.
            Err(LedgerError::DuplicateId { .. } | LedgerError::NonUnique { .. }) => Ok(()),
            Err(error) => Err(SinkError::Failed { reason: format!("the {kind} policy of {dbms}.{table}: {error}") }),
        }
    }
}
