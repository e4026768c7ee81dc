//! The commands over databases, tables, partitions and the registry of source files.

use std::sync::Arc;

use anylog_core::Command;

use crate::Catalog;

/// All commands of this crate.
#[must_use]
pub fn commands(_catalog: &Arc<Catalog>) -> Vec<Arc<dyn Command>> {
    Vec::new()
}
