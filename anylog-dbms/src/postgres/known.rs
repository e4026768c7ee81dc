//! What tables look like, for a short while: a query over one of hundreds of partitions would else take as long to find out as to read.
//!
//! Changes by this node are seen at once. Those of others - a person at the server - are seen after [`FRESH`], or with the first
//! statement that fails.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::{DbmsError, TableSchema};

/// How long what was seen is taken for true.
const FRESH: Duration = Duration::from_secs(2);

/// Tables of which something is kept.
const TABLES: usize = 1024;

/// By table, when it was seen, and what.
#[derive(Debug)]
pub(super) struct Seen<T>(Mutex<HashMap<String, (Instant, T)>>);

impl<T> Default for Seen<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// Schemas and partitions of tables.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) schemas: Seen<Arc<TableSchema>>,
    pub(super) partitions: Seen<Arc<[String]>>,
    /// Counts changes: what was being looked at meanwhile is not kept.
    changes: AtomicU64,
}

impl Known {
    /// What was seen of a table a moment ago, or what `look` sees now; it is kept when there is something.
    pub(super) fn of<T: Clone>(
        &self,
        seen: &Seen<T>,
        table: &str,
        look: impl FnOnce() -> Result<Option<T>, DbmsError>,
    ) -> Result<Option<T>, DbmsError> {
        let changes = self.changes.load(Ordering::Acquire);
        if let Some((at, known)) = seen.0.lock().get(table)
            && at.elapsed() < FRESH
        {
            return Ok(Some(known.clone()));
        }
        let found = look()?;
        let mut kept = seen.0.lock();
        if let Some(found) = &found
            && self.changes.load(Ordering::Acquire) == changes
        {
            if kept.len() >= TABLES {
                kept.clear();
            }
            kept.insert(table.to_owned(), (Instant::now(), found.clone()));
        }
        Ok(found)
    }

    /// To be called after tables changed, or may have.
    pub(super) fn forget(&self) {
        // Counted first, as nothing is kept then that was seen before.
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.schemas.0.lock().clear();
        self.partitions.0.lock().clear();
    }
}
