//! Rows that cannot be stored, kept with the reason.
//!
//! One file a day in the error directory, `quarantine.<YYYYMMDD>.json`, a JSON object per line: `key` (segment id and
//! ordinal), `time`, `dbms`, `table`, `origin`, `position`, `reason`, `row` (the row's text). A row is on stable storage
//! before its sender gets an answer. Lines of one moment share a sync. A key that comes twice is one row: a crash
//! between the quarantine and the database's commit repeats the line, not the row.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anylog_dbms::SegmentId;
use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use crate::error::{OperatorError, file_error};

/// A row in the quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantinedRow {
    /// `<segment id in hexadecimal>:<ordinal>`.
    pub key: String,
    /// When it was put there.
    pub time: String,
    /// Logical database.
    pub dbms: String,
    /// Table.
    pub table: String,
    /// Where it came from: `mqtt topic a/b`, `rest 10.0.0.7`, a file's name.
    pub origin: String,
    /// Which row of its message or file, from 0.
    pub position: u64,
    /// Why it cannot be stored.
    pub reason: String,
    /// Its text.
    pub row: String,
}

/// The key of a row.
#[must_use]
pub fn key(segment: SegmentId, ordinal: u64) -> String {
    format!("{segment}:{ordinal}")
}

struct OpenFile {
    day: String,
    file: File,
}

/// The quarantine of a node.
#[derive(Debug)]
pub struct Quarantine {
    directory: RwLock<PathBuf>,
    file: Mutex<Option<OpenFile>>,
    // Lines written and lines known to be synced, so that callers of one moment share a sync.
    written: AtomicU64,
    synced: Mutex<u64>,
    counts: Mutex<BTreeMap<(String, String), u64>>,
}

impl std::fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenFile").field("day", &self.day).finish_non_exhaustive()
    }
}

impl Quarantine {
    /// The quarantine in an error directory.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: RwLock::new(directory.into()),
            file: Mutex::new(None),
            written: AtomicU64::new(0),
            synced: Mutex::new(0),
            counts: Mutex::default(),
        }
    }

    /// Moves to another error directory.
    pub fn set_directory(&self, directory: impl Into<PathBuf>) {
        let directory = directory.into();
        let mut file = self.file.lock();
        if *self.directory.read() != directory {
            *self.directory.write() = directory;
            *file = None;
        }
    }

    /// Puts rows aside. Returns when they are on stable storage. Blocks.
    pub fn add(&self, now: Timestamp, rows: &[QuarantinedRow]) -> Result<(), OperatorError> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut lines = Vec::new();
        for row in rows {
            serde_json::to_writer(&mut lines, row)
                .map_err(|error| OperatorError::Content { name: row.key.clone(), reason: error.to_string() })?;
            lines.push(b'\n');
        }
        let day = anylog_core::time::stored(now)[..10].replace('-', "");
        let path = self.directory.read().join(format!("quarantine.{day}.json"));
        let mine = {
            let mut current = self.file.lock();
            if current.as_ref().is_none_or(|open| open.day != day || !path.exists()) {
                // Lines of the file that is left count as synced from here on, so they have to be.
                if let Some(left) = current.take() {
                    left.file.sync_data().map_err(file_error(&path))?;
                }
                *current = Some(OpenFile { day, file: open(&path)? });
            }
            let Some(open) = current.as_mut() else { return Ok(()) };
            open.file.write_all(&lines).map_err(file_error(&path))?;
            self.written.fetch_add(1, Ordering::SeqCst) + 1
        };
        self.sync_up_to(mine, &path)?;
        let mut counts = self.counts.lock();
        for row in rows {
            *counts.entry((row.dbms.clone(), row.table.clone())).or_default() += 1;
        }
        Ok(())
    }

    fn sync_up_to(&self, mine: u64, path: &Path) -> Result<(), OperatorError> {
        let mut synced = self.synced.lock();
        if *synced >= mine {
            return Ok(());
        }
        let (file, upto) = {
            let current = self.file.lock();
            let upto = self.written.load(Ordering::SeqCst);
            let file = File::open(path).map_err(file_error(path))?;
            drop(current);
            (file, upto)
        };
        file.sync_data().map_err(file_error(path))?;
        *synced = upto;
        Ok(())
    }

    /// Rows put aside since the start, by database and table.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<(String, String), u64> {
        self.counts.lock().clone()
    }

    /// All rows in the quarantine, each key once, oldest first. Lines that cannot be read are left out.
    pub fn rows(&self) -> Result<Vec<QuarantinedRow>, OperatorError> {
        let directory = self.directory.read().clone();
        let mut names: Vec<PathBuf> = match std::fs::read_dir(&directory) {
            Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(file_error(&directory)(error)),
        };
        names.retain(|path| {
            path.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.starts_with("quarantine.") && name.ends_with(".json"))
        });
        names.sort();
        let mut seen = BTreeSet::new();
        let mut rows: Vec<QuarantinedRow> = Vec::new();
        for path in names {
            let reader = BufReader::new(File::open(&path).map_err(file_error(&path))?);
            for line in reader.split(b'\n') {
                let line = line.map_err(file_error(&path))?;
                if let Ok(row) = serde_json::from_slice::<QuarantinedRow>(&line)
                    && seen.insert(row.key.clone())
                {
                    rows.push(row);
                }
            }
        }
        Ok(rows)
    }

    /// The ordinals of a segment that are in the quarantine, for several segments.
    pub fn ordinals(
        &self,
        segments: &BTreeSet<SegmentId>,
    ) -> Result<BTreeMap<SegmentId, BTreeSet<u64>>, OperatorError> {
        let mut found: BTreeMap<SegmentId, BTreeSet<u64>> = BTreeMap::new();
        if segments.is_empty() {
            return Ok(found);
        }
        for row in self.rows()? {
            let Some((segment, ordinal)) = row.key.split_once(':') else { continue };
            if let (Ok(segment), Ok(ordinal)) = (u128::from_str_radix(segment, 16), ordinal.parse())
                && segments.contains(&SegmentId(segment))
            {
                found.entry(SegmentId(segment)).or_default().insert(ordinal);
            }
        }
        Ok(found)
    }
}

fn open(path: &Path) -> Result<File, OperatorError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory).map_err(file_error(directory))?;
    let torn = std::fs::read(path).is_ok_and(|bytes| bytes.last().is_some_and(|last| *last != b'\n'));
    let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(file_error(path))?;
    if torn {
        file.write_all(b"\n").map_err(file_error(path))?;
    }
    crate::disk::sync_directory(directory).map_err(file_error(directory))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ordinal: u64) -> QuarantinedRow {
        QuarantinedRow {
            key: key(SegmentId(0xab), ordinal),
            time: "2026-11-23 00:00:00.000000".into(),
            dbms: "d".into(),
            table: "t".into(),
            origin: "rest".into(),
            position: ordinal,
            reason: "column 'v': expected DOUBLE, got \"x\"".into(),
            row: "{\"v\":\"x\"}".into(),
        }
    }

    // R13: the reason stays with the row; R8: a damaged line costs itself only.
    #[test]
    fn rows_come_back_once_each() {
        let directory = tempfile::tempdir().unwrap();
        let quarantine = Quarantine::new(directory.path());
        let now: Timestamp = "2026-11-23T01:00:00Z".parse().unwrap();
        quarantine.add(now, &[row(1), row(2)]).unwrap();
        quarantine.add(now, &[row(2)]).unwrap();
        std::fs::OpenOptions::new()
            .append(true)
            .open(directory.path().join("quarantine.20261123.json"))
            .unwrap()
            .write_all(b"{\"key\": torn\n")
            .unwrap();
        quarantine.add("2026-11-24T01:00:00Z".parse().unwrap(), &[row(3)]).unwrap();
        assert_eq!(quarantine.rows().unwrap(), [row(1), row(2), row(3)]);
        let ordinals = quarantine.ordinals(&BTreeSet::from([SegmentId(0xab)])).unwrap();
        assert_eq!(ordinals[&SegmentId(0xab)], BTreeSet::from([1, 2, 3]));
        assert_eq!(quarantine.counts()[&("d".to_owned(), "t".to_owned())], 4);
    }
}
