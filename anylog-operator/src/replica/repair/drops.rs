//! Partitions that this member dropped, so that rows that went on purpose are not fetched again.
//!
//! A dropped partition is kept by its name with the highest number that each producer's files had then: of those files nothing in
//! that partition is compared any more. Files that come later, and bring rows for the same time, are.

use std::collections::BTreeMap;
use std::path::Path;

use anylog_dbms::TsdFilter;
use anylog_dbms::partition::range;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::files::Files;
use crate::OperatorError;
use crate::disk::write_durably;
use crate::error::file_error;
use crate::replica::holdings::Registry;
use crate::store::Shared;

/// Dropped partitions that are kept; of more the oldest are forgotten, which [`retired`] then knows by their age.
const KEPT: usize = 4096;

/// A partition that was dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Dropped {
    pub(crate) dbms: String,
    pub(crate) table: String,
    /// The table's own name for its rows that lay in no partition.
    pub(crate) partition: String,
    /// The files whose rows are gone.
    pub(crate) files: String,
}

type Key = (String, String, String);

/// What was dropped.
#[derive(Debug, Default)]
pub(crate) struct Drops {
    known: Mutex<Option<BTreeMap<Key, Files>>>,
}

impl Drops {
    /// Notes that partitions of a table are being dropped, with the files that there are. Blocks.
    ///
    /// # Errors
    /// When it cannot be written; it is known until the node ends then.
    pub(crate) fn note(
        &self,
        path: &Path,
        dbms: &str,
        table: &str,
        partitions: &[&str],
        files: &Files,
    ) -> Result<(), OperatorError> {
        let mut known = self.known.lock();
        let known = known.get_or_insert_with(|| read(path));
        for partition in partitions {
            let gone = known.entry((dbms.to_owned(), table.to_owned(), (*partition).to_owned())).or_default();
            for (producer, first, last) in files.ranges() {
                gone.insert(producer, first, last);
            }
        }
        while known.len() > KEPT {
            let oldest = known.keys().min_by_key(|(.., partition)| range(partition).map(|(start, _)| start)).cloned();
            let Some(oldest) = oldest else { break };
            known.remove(&oldest);
        }
        write(path, known)
    }

    /// All of them. Blocks.
    pub(crate) fn all(&self, path: &Path) -> Vec<Dropped> {
        let mut known = self.known.lock();
        let shown = known.get_or_insert_with(|| read(path)).iter().map(|((dbms, table, partition), files)| Dropped {
            dbms: dbms.clone(),
            table: table.clone(),
            partition: partition.clone(),
            files: files.to_string(),
        });
        shown.collect()
    }
}

fn read(path: &Path) -> BTreeMap<Key, Files> {
    let entries: Vec<Dropped> = match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            // Nothing else depends on it: the age of partitions says nearly the same.
            tracing::warn!(file = %path.display(), %error, "The list of dropped partitions is damaged and begins anew");
            Vec::new()
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            tracing::error!(file = %path.display(), %error, "The list of dropped partitions cannot be read and begins anew");
            Vec::new()
        }
    };
    let entry = |entry: Dropped| Some(((entry.dbms, entry.table, entry.partition), Files::parse(&entry.files)?));
    entries.into_iter().filter_map(entry).collect()
}

fn write(path: &Path, known: &BTreeMap<Key, Files>) -> Result<(), OperatorError> {
    let entries: Vec<Dropped> = known
        .iter()
        .map(|((dbms, table, partition), files)| Dropped {
            dbms: dbms.clone(),
            table: table.clone(),
            partition: partition.clone(),
            files: files.to_string(),
        })
        .collect();
    let bytes = serde_json::to_vec(&entries)
        .map_err(|error| OperatorError::File { path: path.to_owned(), reason: error.to_string() })?;
    write_durably(path, &bytes).map_err(file_error(path))
}

/// All files that this member knows of, up to the highest number of each producer: of open ones too. Blocks.
///
/// # Errors
/// [`OperatorError::NotRegistered`], and of the registry.
pub(crate) fn known_files(shared: &Shared) -> Result<Files, OperatorError> {
    let registry = Registry::of(&shared.settings())?;
    let newest = TsdFilter { limit: Some(1), ..TsdFilter::default() };
    let mut files = Files::default();
    for table in registry.store.tables()? {
        let Some(producer) = registry.producer(&table) else { continue };
        if let Some(file) = registry.store.list(&table, &newest)?.first() {
            files.insert(producer, 1, file.file_id);
        }
    }
    Ok(files)
}

/// Whether a member that lacks a partition dropped it by age: it has others of the table, and all of them are younger.
pub(crate) fn retired(partition: &str, present: &[String]) -> bool {
    let Some((_, end)) = range(partition) else { return false };
    let mut starts = present.iter().filter_map(|name| range(name)).map(|(start, _)| start).peekable();
    starts.peek().is_some() && !present.iter().any(|name| name == partition) && starts.all(|start| start >= end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAYS: [&str; 3] = ["par_t_2026_11_21_d01_at", "par_t_2026_11_22_d01_at", "par_t_2026_11_23_d01_at"];

    #[test]
    fn what_was_dropped_is_known_after_a_restart() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("cluster").join("dropped.json");
        let files = |text: &str| Files::parse(text).unwrap();
        let drops = Drops::default();
        assert!(drops.all(&path).is_empty());
        drops.note(&path, "d", "t", &DAYS[..1], &files("7:1-4")).unwrap();
        drops.note(&path, "d", "t", &DAYS[..1], &files("7:1-9 8:1-2")).unwrap();
        let again = Drops::default().all(&path);
        assert_eq!(again.len(), 1);
        assert_eq!((again[0].partition.as_str(), again[0].files.as_str()), (DAYS[0], "7:1-9 8:1-2"));
        std::fs::write(&path, "damaged").unwrap();
        assert!(Drops::default().all(&path).is_empty());
    }

    #[test]
    fn what_is_older_than_all_there_is_was_retired() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert!(retired(DAYS[0], &names(&DAYS[1..])));
        assert!(!retired(DAYS[0], &names(&DAYS)));
        assert!(!retired(DAYS[1], &names(&[DAYS[0], DAYS[2]])), "one in the middle is missing");
        assert!(!retired(DAYS[2], &names(&DAYS[..2])));
        assert!(!retired(DAYS[0], &[]), "a table without any is damaged, not retired");
        assert!(!retired("", &names(&DAYS)));
    }
}
