//! SQL over tables and their partitions, with the output formats of the network.

use std::sync::Arc;

use anylog_core::{Command, Node};
use anylog_dbms::Catalog;

/// Answers SQL over the databases of a node.
#[derive(Debug)]
pub struct QueryService {
    node: Arc<Node>,
    catalog: Arc<Catalog>,
}

impl QueryService {
    /// A service over the databases of `catalog`.
    #[must_use]
    pub fn new(node: Arc<Node>, catalog: Arc<Catalog>) -> Arc<Self> {
        Arc::new(Self { node, catalog })
    }

    /// The node that it serves.
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// The databases that it reads.
    #[must_use]
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }
}

/// The commands of this crate.
#[must_use]
pub fn commands(_service: Arc<QueryService>) -> Vec<Arc<dyn Command>> {
    Vec::new()
}
