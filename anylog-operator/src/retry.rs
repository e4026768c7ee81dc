//! Records of the quarantine tried again: `retry quarantine`.
//!
//! Messages are mapped by the mapping of now, rows are fitted to their table as it is now. What succeeds is stored by the
//! ordinary road; what fails stays, with the new reason.
//!
//! # Once
//!
//! The frame that holds the rows of a record also says that its key *left* the quarantine, so both are in the journal or neither.
//! A message of which some rows still do not fit leaves with the others; those rows *came* as records of their own, and the
//! frame says that too. After that the file of the record is written without it. Until then the journal keeps its files
//! ([`Quarantine::claim`](crate::quarantine)), and a start after a crash brings the files in line with the journal before anything
//! else: what has left is not tried twice, what came is not lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anylog_ingest::{RowGroup, SinkError, TableRows};
use futures_util::stream::{FuturesOrdered, StreamExt};

use crate::OperatorError;
use crate::journal::record::Entries;
use crate::quarantine::{KeptMessage, Problem, QuarantineFilter, QuarantinedRow};
use crate::service::OperatorService;
use crate::store::{Shipment, Store};
use crate::tables::blocking;
use anylog_core::time::stored;

/// Records that are on their way at one time.
const AT_ONCE: usize = 64;
/// Keys in one frame of the journal.
const KEYS_PER_FRAME: usize = 4096;

/// What became of the records that were tried again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetryReport {
    /// Records that were tried.
    pub tried: u64,
    /// Records that left the quarantine; of a dry run, that would.
    pub stored: u64,
    /// Rows of them that are in the journal or the database.
    pub rows: u64,
    /// Records that stay, and rows that came in the place of their message.
    pub refused: u64,
    /// Those by kind.
    pub reasons: BTreeMap<String, u64>,
    /// Why the rest was not tried: the store takes nothing at the moment.
    pub stopped: Option<String>,
}

impl RetryReport {
    fn note(&mut self, outcome: &Outcome) {
        self.tried += 1;
        match outcome {
            Outcome::Left { rows, refused } => {
                self.stored += 1;
                self.rows += rows;
                refused.iter().for_each(|kind| self.refuse(kind));
            }
            Outcome::Stays(problem) => self.refuse(problem.kind),
        }
    }

    fn refuse(&mut self, kind: &str) {
        self.refused += 1;
        *self.reasons.entry(kind.to_owned()).or_default() += 1;
    }
}

/// What became of one record.
enum Outcome {
    /// It left: this many rows are stored, and rows of these kinds were refused and are records of their own now.
    Left { rows: u64, refused: Vec<&'static str> },
    /// It stays.
    Stays(Problem),
}

impl OperatorService {
    /// Tries records of the quarantine again. A dry run stores nothing and changes nothing.
    ///
    /// # Errors
    /// [`OperatorError::NotRunning`], [`OperatorError::QuarantineBusy`], what the disk says. Records that were stored before an error
    /// have left.
    pub async fn retry_quarantine(
        self: &Arc<Self>,
        filter: QuarantineFilter,
        dry_run: bool,
    ) -> Result<RetryReport, OperatorError> {
        // A caller that goes away must not leave a file half tried.
        let service = Arc::clone(self);
        let trying = tokio::spawn(async move { service.try_quarantine(&filter, dry_run).await });
        trying.await.unwrap_or_else(|error| {
            Err(SinkError::Failed { reason: format!("the retry ended unexpectedly: {error}") }.into())
        })
    }

    async fn try_quarantine(&self, filter: &QuarantineFilter, dry_run: bool) -> Result<RetryReport, OperatorError> {
        let store = self.store()?;
        let quarantine = &store.shared.quarantine;
        let _one_at_a_time = quarantine.maintenance.try_lock().map_err(|_| OperatorError::QuarantineBusy)?;
        let mut report = RetryReport::default();
        let shared = Arc::clone(&store.shared);
        let files = blocking(move || {
            shared.quarantine.settle()?;
            shared.quarantine.files().roll();
            shared.quarantine.files().list()
        })
        .await?;
        for file in files {
            let (shared, name) = (Arc::clone(&store.shared), file.clone());
            let records = blocking(move || shared.quarantine.files().read(&name)).await?;
            if !records.iter().any(|(row, _)| filter.fits(row)) {
                continue;
            }
            if dry_run {
                for (row, _) in records.iter().filter(|(row, _)| filter.fits(row)) {
                    report.note(&self.look(&store, row).await?);
                }
                continue;
            }
            let claim = quarantine.claim();
            let outcomes = self.try_all(&store, &records, filter, &mut report).await;
            let left = outcomes.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Left { .. }));
            let left: Vec<String> = left.map(|(at, _)| records[*at].0.key.clone()).collect();
            let (shared, now) = (Arc::clone(&store.shared), stored(store.shared.now()));
            blocking(move || {
                let quarantine = &shared.quarantine;
                // A file that cannot be written now is brought in line with this before anything is tried again.
                quarantine.left(left.iter().map(String::as_str));
                quarantine.files().rewrite(&file, &keep(records, outcomes, &now))?;
                quarantine.gone(left.iter().map(String::as_str));
                if !left.is_empty() {
                    shared.quarantine_full.store(false, Ordering::Relaxed);
                }
                Ok::<_, OperatorError>(())
            })
            .await?;
            drop(claim);
            if report.stopped.is_some() {
                break;
            }
        }
        Ok(report)
    }

    /// Tries the chosen records of a file; gives what became of each that was tried.
    async fn try_all(
        &self,
        store: &Arc<Store>,
        records: &[(QuarantinedRow, Vec<u8>)],
        filter: &QuarantineFilter,
        report: &mut RetryReport,
    ) -> BTreeMap<usize, Outcome> {
        let mut chosen = records.iter().enumerate().filter(|(_, (row, _))| filter.fits(row));
        // In order, so that rows of one device keep theirs.
        let mut trying = FuturesOrdered::new();
        let mut outcomes = BTreeMap::new();
        loop {
            // A store that takes nothing is not asked for every record; what is on its way is heard to its end.
            while report.stopped.is_none()
                && trying.len() < AT_ONCE
                && let Some((at, (row, _))) = chosen.next()
            {
                trying.push_back(self.try_at(store, at, row));
            }
            match trying.next().await {
                None => return outcomes,
                Some((at, Ok(outcome))) => {
                    report.note(&outcome);
                    outcomes.insert(at, outcome);
                }
                Some((_, Err(error))) => {
                    report.stopped.get_or_insert(error.to_string());
                }
            }
        }
    }

    async fn try_at(&self, store: &Arc<Store>, at: usize, row: &QuarantinedRow) -> (usize, Result<Outcome, SinkError>) {
        (at, self.try_one(store, row).await)
    }

    async fn try_one(&self, store: &Arc<Store>, row: &QuarantinedRow) -> Result<Outcome, SinkError> {
        if store.shared.quarantine.is_doubtful(&row.key) {
            let reason = "the journal failed while it was stored: the next start of the node knows whether it is";
            return Ok(Outcome::Stays(Problem::new("doubtful", reason)));
        }
        let group = match self.rows_of(row) {
            Ok(group) => group,
            Err(problem) => return Ok(Outcome::Stays(problem)),
        };
        match store.replay(group, row).await {
            Err(error) if !error.may_retry() => Ok(Outcome::Stays(Problem::new("table", error.to_string()))),
            result => result,
        }
    }

    /// What a record is now: rows of the mapping of now, or the row as it is.
    fn rows_of(&self, record: &QuarantinedRow) -> Result<RowGroup, Problem> {
        let as_it_is = || {
            let told = |text: &String| if text.is_empty() { "0".to_owned() } else { text.clone() };
            let rows = TableRows {
                dbms: record.dbms.clone(),
                table: record.table.clone(),
                source: told(&record.source),
                instructions: told(&record.instructions),
                rows: record.row.iter().cloned().collect(),
                ..TableRows::default()
            };
            RowGroup { parts: vec![rows], origin: record.origin.clone(), ..RowGroup::default() }
        };
        let Some(kept) = &record.message else { return Ok(as_it_is()) };
        let Some(mapping) = self.mapping() else {
            return if record.row.is_some() {
                Ok(as_it_is())
            } else {
                Err(unmapped("nothing maps messages on this node"))
            };
        };
        match mapping.remap(&kept.message()) {
            Ok(mut group) => {
                group.origin.clone_from(&record.origin);
                if record.row.is_some() {
                    only(&mut group, record, kept);
                    if group.parts.is_empty() {
                        return Ok(as_it_is());
                    }
                }
                Ok(group)
            }
            // A row was mapped once, and may fit now although nobody maps its topic any more.
            Err(_) if record.row.is_some() => Ok(as_it_is()),
            Err(unmapped) => Err(Problem {
                kind: unmapped.kind,
                column: unmapped.column,
                reason: unmapped.reason,
                ..Problem::default()
            }),
        }
    }

    /// What would become of a record.
    async fn look(&self, store: &Arc<Store>, row: &QuarantinedRow) -> Result<Outcome, OperatorError> {
        let group = match self.rows_of(row) {
            Ok(group) => group,
            Err(problem) => return Ok(Outcome::Stays(problem)),
        };
        let (store, now) = (Arc::clone(store), store.shared.now());
        blocking(move || {
            let mut outcome = (0, Vec::new(), None);
            for part in group.parts.iter().filter(|part| !part.rows.is_empty()) {
                let Ok(database) = store.shared.catalog.get(&part.dbms) else {
                    let reason = format!("database '{}' is not connected", part.dbms);
                    return Ok::<_, OperatorError>(Outcome::Stays(Problem::new("table", reason)));
                };
                let tables = &store.shared.tables;
                let (known, new);
                let converter = if database.dbms().schema(&part.table)?.is_some() {
                    known = tables.for_rows(&database, &part.table, &part.rows)?;
                    &known.converter
                } else {
                    // The table would be made for these rows.
                    match tables.converter_of_new(&part.dbms, &part.table, &part.rows, &part.declared) {
                        Ok(made) => new = made,
                        Err(error) => return Ok(Outcome::Stays(Problem::new("table", error.to_string()))),
                    }
                    &new
                };
                for row in &part.rows {
                    match converter.convert(row, now) {
                        Ok(_) => outcome.0 += 1,
                        Err(problem) => {
                            let problem = Problem::from(problem);
                            outcome.1.push(problem.kind);
                            outcome.2.get_or_insert(problem);
                        }
                    }
                }
            }
            Ok(match outcome {
                (0, _, Some(problem)) => Outcome::Stays(problem),
                (rows, refused, _) => Outcome::Left { rows, refused },
            })
        })
        .await
    }

    /// Throws records of the quarantine away, for good. Returns how many.
    ///
    /// # Errors
    /// [`OperatorError::QuarantineBusy`], what the journal or the disk says.
    pub async fn delete_quarantine(self: &Arc<Self>, filter: QuarantineFilter) -> Result<u64, OperatorError> {
        let service = Arc::clone(self);
        blocking(move || {
            let shared = service.shared()?;
            let Ok(_one_at_a_time) = shared.quarantine.maintenance.try_lock() else {
                return Err(OperatorError::QuarantineBusy);
            };
            let (quarantine, mut deleted) = (&shared.quarantine, 0);
            quarantine.settle()?;
            quarantine.files().roll();
            for file in quarantine.files().list()? {
                let records = quarantine.files().read(&file)?;
                let (gone, kept): (Vec<_>, Vec<_>) = records.into_iter().partition(|(row, _)| filter.fits(row));
                if gone.is_empty() {
                    continue;
                }
                // A row of a segment that is not sealed must not come back when the segment is replayed.
                let _claim = quarantine.claim();
                for keys in gone.chunks(KEYS_PER_FRAME) {
                    let mut entries = Entries::default();
                    keys.iter().for_each(|(row, _)| entries.left(&row.key));
                    shared.journal.write_blocking(entries)?;
                }
                quarantine.files().rewrite(&file, &kept.into_iter().map(|(_, line)| line).collect::<Vec<_>>())?;
                deleted += gone.len() as u64;
                shared.quarantine_full.store(false, Ordering::Relaxed);
            }
            Ok::<_, OperatorError>(deleted)
        })
        .await
    }
}

fn unmapped(reason: &str) -> Problem {
    Problem::new("mapping", reason)
}

/// Leaves only the row of a group that a record is about: in the part of its table, else in the first.
fn only(group: &mut RowGroup, record: &QuarantinedRow, kept: &KeptMessage) {
    let wanted = kept.row.unwrap_or(0);
    let same = group.parts.iter().position(|part| part.dbms == record.dbms && part.table == record.table);
    let part = same.unwrap_or(0);
    let mut parts = std::mem::take(&mut group.parts);
    if part < parts.len() {
        let mut part = parts.swap_remove(part);
        part.rows = part.rows.into_iter().skip(wanted).take(1).collect();
        if !part.rows.is_empty() {
            group.parts.push(part);
        }
    }
}

/// The lines of a file after a retry.
fn keep(records: Vec<(QuarantinedRow, Vec<u8>)>, mut outcomes: BTreeMap<usize, Outcome>, now: &str) -> Vec<Vec<u8>> {
    let mut kept = Vec::with_capacity(records.len());
    for (at, (mut row, line)) in records.into_iter().enumerate() {
        match outcomes.remove(&at) {
            None => kept.push(line),
            Some(Outcome::Left { .. }) => {}
            Some(Outcome::Stays(problem)) => {
                row = row.because(&problem);
                row.tries = row.tries.saturating_add(1);
                row.tried = Some(now.to_owned());
                // A record that cannot be written anew stays as it was.
                kept.push(row.line().unwrap_or(line));
            }
        }
    }
    kept
}

impl Store {
    /// Stores the rows of a record that is tried again, in one frame that says that it left.
    async fn replay(&self, group: RowGroup, record: &QuarantinedRow) -> Result<Outcome, SinkError> {
        let bytes: usize = group.parts.iter().flat_map(|part| &part.rows).map(|row| row.len() + 64).sum();
        if bytes == 0 {
            // The mapping of now makes no rows of the message: there is nothing to store, and nothing wrong with it.
            return Ok(Outcome::Left { rows: 0, refused: Vec::new() });
        }
        let (turn, permit) = self.admit(&group, bytes).await?;
        let received = self.shared.now();
        let prepared = self.prepare(group, received).await?;
        let rows = prepared.rows();
        if rows == 0 {
            let problem = prepared.refused.into_iter().next().map(|row| Problem {
                kind: row.kind,
                column: row.column,
                expected: row.expected,
                actual: row.actual,
                reason: row.reason,
            });
            return Ok(Outcome::Stays(problem.unwrap_or_default()));
        }
        let mut entries = Entries::default();
        entries.left(&record.key);
        let mut refused: Vec<&'static str> = prepared.refused.iter().map(|row| row.kind).collect();
        for row in &prepared.aside {
            let json = serde_json::to_string(row).map_err(|error| SinkError::Failed { reason: error.to_string() })?;
            entries.came(&json);
        }
        let shipment = Shipment { parts: prepared.parts, received, deliveries: Vec::new(), entries, permit };
        let late = self.ship(turn, shipment, true).await.inspect_err(|error| {
            // Of a write that failed for lack of space nothing is left; of a sync that failed, who knows.
            if matches!(error, SinkError::Failed { .. } | SinkError::Unavailable { .. }) {
                self.shared.quarantine.doubt(&record.key);
            }
        })?;
        if !prepared.aside.is_empty() {
            let (shared, came) = (Arc::clone(&self.shared), prepared.aside);
            if let Err(error) = blocking(move || shared.quarantine.came(came)).await {
                // The journal holds them, and keeps its files until they are written.
                tracing::warn!(%error, "Refused rows of a message are not in the files of the quarantine yet");
            }
        }
        // Rows that the engine refused are records of their own, put there before the commit.
        refused.extend(late.iter().map(|row| row.kind));
        let rows = (rows - late.len().min(rows)) as u64;
        Ok(Outcome::Left { rows, refused })
    }
}
