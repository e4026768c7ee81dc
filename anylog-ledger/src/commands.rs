//! The commands of the ledger.

pub mod config;

use std::sync::Arc;

use anylog_core::Command;

use crate::Ledger;

/// All commands of the ledger.
#[must_use]
pub fn commands(ledger: &Arc<Ledger>) -> Vec<Arc<dyn Command>> {
    let _ = ledger;
    Vec::new()
}
