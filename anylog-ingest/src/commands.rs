//! The commands of ingestion.

use std::sync::Arc;

use anylog_core::Command;
use anylog_net::Listeners;

use crate::Ingest;

/// All commands of this crate.
pub fn commands(ingest: Arc<Ingest>, listeners: Arc<Listeners>) -> Vec<Arc<dyn Command>> {
    let _ = (ingest, listeners);
    Vec::new()
}
