//! Digests of tables: partition by partition, remembered while a partition is at rest.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anylog_dbms::{Database, DbmsError, Target};
use anylog_replica::FileKey;
use parking_lot::Mutex;

use super::{Digest, FileDigests, of_target};
use crate::replica::repair::files::Files;

/// Files of remembered partitions together; 16 bytes each.
const REMEMBERED: usize = 200_000;
/// Digests are made anew after this time, so that what a disk lost by itself is found.
const BELIEVED: Duration = Duration::from_secs(24 * 3600);
/// Fewer files than these are looked up by their index.
const FEW: u64 = 200;

/// Rows of several files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// How many files have rows.
    pub(crate) files: u64,
    /// The rows.
    pub(crate) digest: Digest,
}

impl Counted {
    fn add(&mut self, digest: Digest) {
        self.files += 1;
        self.digest.add(digest);
    }
}

/// A partition as it was read.
struct Remembered {
    version: u64,
    at: Instant,
    /// All files with rows in it.
    files: Vec<FileKey>,
    sums: BTreeMap<i64, Counted>,
}

/// Makes digests of tables. Reads one partition at a time, and beside whoever writes.
#[derive(Default)]
pub(crate) struct Digests {
    remembered: Mutex<BTreeMap<(String, String, String), Remembered>>,
    /// Who reads a partition.
    pub(crate) reading: tokio::sync::Mutex<()>,
}

/// The parts of a table that rows may lie in: the table itself, and its partitions.
///
/// # Errors
/// Of the database.
pub(crate) fn parts(database: &Database, table: &str) -> Result<Vec<String>, DbmsError> {
    let mut parts = vec![table.to_owned()];
    parts.extend(database.dbms().partitions(table)?);
    Ok(parts)
}

fn target(table: &str, part: &str) -> Target {
    if part == table { Target::table(table) } else { Target::partition(table, part) }
}

impl Digests {
    /// What a part of a table has of these files, by producer. Blocks.
    ///
    /// # Errors
    /// Of the database.
    pub(crate) fn sums(
        &self,
        database: &Database,
        table: &str,
        part: &str,
        files: &Files,
    ) -> Result<BTreeMap<i64, Counted>, DbmsError> {
        let target = target(table, part);
        let key = (database.name().to_owned(), table.to_owned(), part.to_owned());
        let version = database.dbms().version(&target)?;
        if let Some(version) = version
            && let Some(known) = self.remembered.lock().get(&key)
            && known.version == version
            && known.at.elapsed() < BELIEVED
            && known.files.iter().all(|file| files.contains(*file))
        {
            return Ok(known.sums.clone());
        }
        let all = read(database, &target, None)?;
        let mut sums: BTreeMap<i64, Counted> = BTreeMap::new();
        for (file, digest) in all.iter().filter(|(file, _)| files.contains(**file)) {
            sums.entry(file.producer).or_default().add(*digest);
        }
        let whole = sums.values().map(|counted| counted.files).sum::<u64>() == all.len() as u64;
        match version {
            Some(version) if whole => {
                let files = all.into_keys().collect();
                self.remember(key, Remembered { version, at: Instant::now(), files, sums: sums.clone() });
            }
            _ => {
                self.remembered.lock().remove(&key);
            }
        }
        Ok(sums)
    }

    /// What a part of a table has of these files, one by one. Blocks.
    ///
    /// # Errors
    /// Of the database.
    pub(crate) fn files(
        &self,
        database: &Database,
        table: &str,
        part: &str,
        files: &Files,
    ) -> Result<FileDigests, DbmsError> {
        let named: Option<Vec<FileKey>> = (files.count() <= FEW).then(|| files.keys().collect());
        let mut found = read(database, &target(table, part), named.as_deref())?;
        found.retain(|file, _| files.contains(*file));
        Ok(found)
    }

    fn remember(&self, key: (String, String, String), part: Remembered) {
        let mut remembered = self.remembered.lock();
        remembered.insert(key, part);
        while remembered.values().map(|part| part.files.len() + 8).sum::<usize>() > REMEMBERED {
            let oldest = remembered.iter().min_by_key(|(_, part)| part.at).map(|(key, _)| key.clone());
            match oldest {
                Some(oldest) => remembered.remove(&oldest),
                None => break,
            };
        }
    }
}

/// The digests of a target; none of one that is not there.
fn read(database: &Database, target: &Target, only: Option<&[FileKey]>) -> Result<FileDigests, DbmsError> {
    let dbms = database.dbms();
    let Some(schema) = dbms.schema(&target.table)? else { return Ok(FileDigests::new()) };
    match of_target(&**dbms, &schema, target, only) {
        Err(DbmsError::NoTable { .. }) => Ok(FileDigests::new()),
        result => result,
    }
}
