//! Which partitions there are, without reading a directory of hundreds of files for each query.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;

use super::layout::Layout;

/// Tables whose lists are kept.
const TABLES: usize = 1024;

/// When its directory changed last, and the names.
type List = (SystemTime, Arc<[String]>);

/// Lists of partitions by table, as long as their directories do not change.
#[derive(Debug, Default)]
pub(super) struct Listing {
    known: Mutex<HashMap<String, List>>,
    // Counts changes by this process: the time of a directory is not exact enough to tell them apart.
    changes: AtomicU64,
}

impl Listing {
    /// The partitions of a table in name order.
    pub(super) fn partitions(&self, layout: &Layout, table: &str) -> io::Result<Vec<String>> {
        let changes = self.changes.load(Ordering::Acquire);
        let Some(changed) = layout.table_directory(table).and_then(|path| fs::metadata(path).ok()?.modified().ok())
        else {
            return layout.partition_files(table);
        };
        if let Some((at, names)) = self.known.lock().get(table)
            && *at == changed
        {
            return Ok(names.to_vec());
        }
        let names = layout.partition_files(table)?;
        let mut known = self.known.lock();
        if self.changes.load(Ordering::Acquire) == changes {
            if known.len() >= TABLES {
                known.clear();
            }
            known.insert(table.to_owned(), (changed, names.as_slice().into()));
        }
        Ok(names)
    }

    /// To be called after partitions of a table were made or dropped.
    pub(super) fn changed(&self, table: &str) {
        // Counted first: a list that is being read is not kept any more.
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.known.lock().remove(table);
    }
}
