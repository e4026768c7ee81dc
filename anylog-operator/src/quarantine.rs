//! Rows and messages that cannot be stored, kept with the reason until somebody mends what they failed on.
//!
//! There is one quarantine for both kinds: a row that does not fit its table, and a message that gives no rows. What is in it can
//! be listed (`get quarantine`), tried again (`retry quarantine`) and thrown away by a person (`delete quarantine`).
//!
//! # Form
//!
//! Files `quarantine.<number, 10 digits>.jsonl` in the error directory, a JSON object per line ([`QuarantinedRow`] names the
//! attributes), written one after the other and only at the end. Each line ends with a checksum of itself: `"crc":"<8 hex>"`. A
//! line that does not fit its checksum - the torn end of a write, a damaged place - is left out and named in the log, and costs
//! nothing but itself. When records leave a file it is written anew as `quarantine.<number>.<generation>.jsonl`, ended by a line
//! that says so, and only then is the old one removed; a file without records is removed.
//!
//! # Guarantees
//!
//! * Whoever puts something aside hears of it when it is on stable storage, and acknowledges after that (R13, R14). Records of one
//!   moment share a write and a sync.
//! * The files take at most [a limit](Quarantine::limit) of bytes. What would go beyond is refused, so that it is neither acknowledged
//!   nor lost. Only rows that are in the journal already, and so were promised, may go beyond it: the bound of the journal is theirs.
//! * A record has a key, and a key is one row however often it is written: `<segment>:<ordinal>` of a row of the journal, a random
//!   segment for what never entered it.
//! * A record leaves once. The journal names its key in the frame that holds its rows, and files of the journal stay until the
//!   record has left its file: see [`crate::retry`].

pub(crate) mod files;
mod filter;
mod line;
mod record;
mod writer;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use anylog_dbms::SegmentId;
use parking_lot::Mutex;

use crate::disk::Disk;
use crate::error::OperatorError;
use files::Files;
pub use filter::QuarantineFilter;
pub use record::{KeptMessage, Problem, QuarantinedRow, key, parse_key};
use writer::Writer;

/// Bytes that the quarantine may hold, unless it is said otherwise.
pub const DEFAULT_LIMIT: u64 = 256 << 20;
/// Counters by kind, database and table; what comes later counts as `other`.
const MOST_COUNTERS: usize = 10_000;

/// How many records of a kind came for a table since the start: by kind, database, table.
pub type Counts = BTreeMap<(String, String, String), u64>;

/// The quarantine of a node.
pub struct Quarantine {
    files: Arc<Files>,
    writer: Writer,
    limit: AtomicU64,
    counts: Mutex<Counts>,
    /// Rows of segments that are not sealed which are in a file, or were and left it. A repeated replay does not repeat them.
    known: Mutex<HashMap<SegmentId, BTreeSet<u64>>>,
    /// What the journal says and the files do not yet: keys that left, records that came with them.
    unsettled: Mutex<(HashSet<String>, Vec<QuarantinedRow>)>,
    /// Keys of records of which nobody knows whether the journal has them: the disk failed while they were written. The next
    /// start knows.
    doubtful: Mutex<HashSet<String>>,
    /// Records that are being tried again: the journal keeps its files meanwhile.
    claims: AtomicUsize,
    /// One retry or deletion at a time.
    pub(crate) maintenance: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Quarantine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Quarantine").field("bytes", &self.bytes()).field("limit", &self.limit()).finish_non_exhaustive()
    }
}

impl Quarantine {
    /// The quarantine in an error directory. What is there from before counts.
    pub fn new(disk: Arc<dyn Disk>, directory: impl Into<PathBuf>) -> Self {
        let files = Arc::new(Files::new(disk, directory.into()));
        Self {
            writer: Writer::new(Arc::clone(&files)),
            files,
            limit: AtomicU64::new(DEFAULT_LIMIT),
            counts: Mutex::default(),
            known: Mutex::default(),
            unsettled: Mutex::default(),
            doubtful: Mutex::default(),
            claims: AtomicUsize::new(0),
            maintenance: tokio::sync::Mutex::default(),
        }
    }

    /// Bytes of its files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.bytes()
    }

    /// Bytes that its files may have.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Changes how many bytes its files may have.
    pub fn set_limit(&self, bytes: u64) {
        self.limit.store(bytes, Ordering::Relaxed);
    }

    /// Bytes that wait to be written, and the most that may.
    #[must_use]
    pub fn waiting(&self) -> (u64, u64) {
        self.writer.waiting()
    }

    /// Puts records aside. Returns when they are on stable storage.
    ///
    /// # Errors
    /// [`OperatorError::QuarantineFull`], a full disk, or what the disk says. Nothing of them counts as put aside then.
    pub async fn add(&self, rows: &[QuarantinedRow]) -> Result<(), OperatorError> {
        if rows.is_empty() {
            return Ok(());
        }
        let lines = line::encode(rows)?;
        let (bytes, limit) = (self.bytes() + self.waiting().0 + lines.len() as u64, self.limit());
        if bytes > limit {
            return Err(OperatorError::QuarantineFull { bytes: self.bytes(), limit });
        }
        self.writer.write(lines).await?;
        self.count(rows);
        Ok(())
    }

    /// Puts records of rows aside that were promised already, so that the limit does not stop them. A key that is known is not
    /// written again. Blocks until they are on stable storage.
    pub(crate) fn add_promised(&self, rows: Vec<QuarantinedRow>) -> Result<(), OperatorError> {
        let known = |row: &QuarantinedRow| {
            parse_key(&row.key).is_some_and(|(segment, ordinal)| {
                self.known.lock().get(&segment).is_some_and(|ordinals| ordinals.contains(&ordinal))
            })
        };
        let rows: Vec<QuarantinedRow> = rows.into_iter().filter(|row| !known(row)).collect();
        if rows.is_empty() {
            return Ok(());
        }
        self.writer.write_blocking(line::encode(&rows)?)?;
        let mut known = self.known.lock();
        for (segment, ordinal) in rows.iter().filter_map(|row| parse_key(&row.key)) {
            known.entry(segment).or_default().insert(ordinal);
        }
        drop(known);
        self.count(&rows);
        Ok(())
    }

    fn count(&self, rows: &[QuarantinedRow]) {
        let mut counts = self.counts.lock();
        for row in rows {
            let key = (row.kind.clone(), row.dbms.clone(), row.table.clone());
            let known = counts.len() < MOST_COUNTERS || counts.contains_key(&key);
            let key = if known { key } else { ("other".to_owned(), String::new(), String::new()) };
            *counts.entry(key).or_default() += 1;
        }
    }

    /// Records put aside since the start.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts.lock().clone()
    }

    /// Starts counting anew.
    pub fn reset_counts(&self) {
        self.counts.lock().clear();
    }

    /// Shows every record to `visit`, oldest first. Blocks.
    ///
    /// # Errors
    /// [`OperatorError::File`] when a file cannot be read.
    pub fn visit(&self, visit: &mut dyn FnMut(QuarantinedRow)) -> Result<(), OperatorError> {
        for file in self.files.list()? {
            self.files.read(&file)?.into_iter().for_each(|(row, _)| visit(row));
        }
        Ok(())
    }

    /// All records, oldest first. Blocks.
    ///
    /// # Errors
    /// [`OperatorError::File`] when a file cannot be read.
    pub fn rows(&self) -> Result<Vec<QuarantinedRow>, OperatorError> {
        let mut rows = Vec::new();
        self.visit(&mut |row| rows.push(row))?;
        Ok(rows)
    }

    pub(crate) fn files(&self) -> &Files {
        &self.files
    }

    /// What the journal says at the start: segments that are not sealed, keys that left, records that came when a message
    /// left. Brings the files in line with it. Blocks.
    pub(crate) fn adopt(&self, segments: &HashSet<SegmentId>, left: HashSet<String>, came: Vec<QuarantinedRow>) {
        let mut known: HashMap<SegmentId, BTreeSet<u64>> = HashMap::new();
        let mut note = |key: &str| {
            if let Some((segment, ordinal)) = parse_key(key).filter(|(segment, _)| segments.contains(segment)) {
                known.entry(segment).or_default().insert(ordinal);
            }
        };
        left.iter().for_each(|key| note(key));
        if !segments.is_empty()
            && let Err(error) = self.visit(&mut |row| note(&row.key))
        {
            tracing::error!(%error, "The quarantine cannot be read; rows of the journal that are in it may be put there again");
        }
        *self.known.lock() = known;
        *self.unsettled.lock() = (left, came);
        if let Err(error) = self.settle() {
            tracing::warn!(%error, "The quarantine is not brought in line with the journal yet; the journal keeps its files");
        }
    }

    /// Brings the files in line with what the journal said. Blocks.
    pub(crate) fn settle(&self) -> Result<(), OperatorError> {
        let mut unsettled = self.unsettled.lock();
        let (left, came) = &mut *unsettled;
        if left.is_empty() && came.is_empty() {
            return Ok(());
        }
        self.files.roll();
        came.retain(|row| !left.contains(&row.key));
        for file in self.files.list()? {
            let records = self.files.read(&file)?;
            came.retain(|row| !records.iter().any(|(known, _)| known.key == row.key));
            if records.iter().any(|(row, _)| left.contains(&row.key)) {
                let kept = records.into_iter().filter(|(row, _)| !left.contains(&row.key)).map(|(_, line)| line);
                self.files.rewrite(&file, &kept.collect::<Vec<_>>())?;
            }
        }
        left.clear();
        if !came.is_empty() {
            self.writer.write_blocking(line::encode(came)?)?;
            came.clear();
        }
        Ok(())
    }

    /// The journal says that these records left; their file does not yet.
    pub(crate) fn left<'k>(&self, keys: impl Iterator<Item = &'k str>) {
        self.unsettled.lock().0.extend(keys.map(str::to_owned));
    }

    /// The file of these records says so too.
    pub(crate) fn gone<'k>(&self, keys: impl Iterator<Item = &'k str>) {
        let mut unsettled = self.unsettled.lock();
        keys.for_each(|key| {
            unsettled.0.remove(key);
        });
    }

    /// The journal failed while it wrote a record that was to leave.
    pub(crate) fn doubt(&self, key: &str) {
        self.doubtful.lock().insert(key.to_owned());
    }

    /// Whether the journal may hold a record already.
    pub(crate) fn is_doubtful(&self, key: &str) -> bool {
        self.doubtful.lock().contains(key)
    }

    /// Records that the journal holds and that are to come into a file: at once, or when the disk works again.
    pub(crate) fn came(&self, rows: Vec<QuarantinedRow>) -> Result<(), OperatorError> {
        self.count(&rows);
        let written = line::encode(&rows).and_then(|lines| self.writer.write_blocking(lines));
        if written.is_err() {
            self.unsettled.lock().1.extend(rows);
        }
        written
    }

    /// Keeps the journal's files until the guard is dropped.
    pub(crate) fn claim(&self) -> Claim<'_> {
        self.claims.fetch_add(1, Ordering::SeqCst);
        Claim(&self.claims)
    }

    /// Whether the journal may let go of its files.
    pub(crate) fn lets_go(&self) -> bool {
        self.claims.load(Ordering::SeqCst) == 0 && self.settle().is_ok()
    }

    /// Notes which rows of a segment are in a file already. Blocks.
    pub(crate) fn recall(&self, segment: SegmentId) -> Result<(), OperatorError> {
        let mut found = BTreeSet::new();
        self.visit(&mut |row| {
            found.extend(parse_key(&row.key).filter(|(of, _)| *of == segment).map(|(_, ordinal)| ordinal));
        })?;
        if !found.is_empty() {
            self.known.lock().entry(segment).or_default().extend(found);
        }
        Ok(())
    }

    /// The ordinals of a segment that went to the quarantine.
    pub(crate) fn ordinals(&self, segment: SegmentId) -> BTreeSet<u64> {
        self.known.lock().get(&segment).cloned().unwrap_or_default()
    }

    /// A segment is sealed: nothing replays its rows any more.
    pub(crate) fn sealed(&self, segment: SegmentId) {
        self.known.lock().remove(&segment);
    }

    /// Writes what waits, and ends.
    pub(crate) fn close(&self) {
        self.writer.close();
    }
}

/// Keeps the journal's files.
pub(crate) struct Claim<'q>(&'q AtomicUsize);

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests;
