//! Rows made ready for their table: converted, and placed in partitions.

use std::collections::BTreeSet;
use std::sync::Arc;

use anylog_dbms::{Partitioning, SqlValue};
use anylog_ingest::SinkError;
use jiff::Timestamp;

use crate::store::Shared;
use crate::tables::TableState;

/// Partitions of one table that a process writes to at most: a device with a broken clock must not make thousands.
const MAX_PARTITIONS: usize = 4096;

/// A row that fits its table.
pub(crate) struct FittingRow {
    pub(crate) position: usize,
    pub(crate) text: String,
    pub(crate) values: Vec<SqlValue>,
}

/// Rows in a row that go to one partition.
pub(crate) struct Run {
    pub(crate) partition: Option<String>,
    pub(crate) rows: Vec<FittingRow>,
}

/// Rows of one table, ready to be stored.
pub(crate) struct Fitted {
    pub(crate) table: Arc<TableState>,
    pub(crate) runs: Vec<Run>,
    /// Position and reason of rows that do not fit, and their texts.
    pub(crate) refused: Vec<(usize, String, String)>,
}

impl Shared {
    /// Converts rows and finds their partitions. Makes what is missing: the table, wider columns, partitions.
    pub(crate) async fn fit(
        &self,
        dbms: &str,
        table: &str,
        rows: Vec<String>,
        declared: &[(String, String)],
        received: Timestamp,
    ) -> Result<Fitted, SinkError> {
        let mut state = self.tables.ensure(dbms, table, &rows, declared).await?;
        let (mut converted, wide) = convert(&state, &rows, received);
        if !wide.is_empty() {
            state = self.tables.widen(&state, &wide).await?;
            converted = convert(&state, &rows, received).0;
        }
        let partitioning = self.catalog.partitioning(dbms, table);
        let mut placer = Placer { state: &state, partitioning, last: None };
        let mut fitted = Fitted { table: Arc::clone(&state), runs: Vec::new(), refused: Vec::new() };
        for (position, (text, converted)) in rows.into_iter().zip(converted).enumerate() {
            let placed = converted.and_then(|values| Ok((placer.place(received, &values)?, values)));
            match placed {
                Err(reason) => fitted.refused.push((position, reason, text)),
                Ok((partition, values)) => {
                    let row = FittingRow { position, text, values };
                    match fitted.runs.last_mut() {
                        Some(run) if run.partition == partition => run.rows.push(row),
                        _ => fitted.runs.push(Run { partition, rows: vec![row] }),
                    }
                }
            }
        }
        self.make_partitions(&state, &mut fitted).await?;
        Ok(fitted)
    }
}

impl Shared {
    /// Makes the partitions of the rows. Rows that would make more than a table may have are refused.
    async fn make_partitions(&self, state: &Arc<TableState>, fitted: &mut Fitted) -> Result<(), SinkError> {
        let wanted: BTreeSet<String> = fitted.runs.iter().filter_map(|run| run.partition.clone()).collect();
        let mut denied = BTreeSet::new();
        for partition in wanted {
            if !state.knows_partition(&partition) && state.partitions_in_use() >= MAX_PARTITIONS {
                denied.insert(partition);
            } else {
                self.tables.ensure_partition(state, &partition).await?;
            }
        }
        if denied.is_empty() {
            return Ok(());
        }
        let is_denied = |run: &Run| run.partition.as_ref().is_some_and(|partition| denied.contains(partition));
        let (refused, kept): (Vec<Run>, Vec<Run>) = std::mem::take(&mut fitted.runs).into_iter().partition(is_denied);
        fitted.runs = kept;
        for run in refused {
            let partition = run.partition.unwrap_or_default();
            let reason =
                format!("partition '{partition}' would be one more than the {MAX_PARTITIONS} that a table may use");
            fitted.refused.extend(run.rows.into_iter().map(|row| (row.position, reason.clone(), row.text)));
        }
        Ok(())
    }
}

type Converted = Result<Vec<SqlValue>, String>;

fn convert(state: &TableState, rows: &[String], received: Timestamp) -> (Vec<Converted>, BTreeSet<usize>) {
    let mut wide = BTreeSet::new();
    let mut converted = Vec::with_capacity(rows.len());
    for row in rows {
        converted.push(match state.converter.convert(row, received) {
            Ok(row) => {
                wide.extend(row.widen);
                Ok(row.values)
            }
            Err(problem) => Err(problem.to_string()),
        });
    }
    (converted, wide)
}

struct Placer<'a> {
    state: &'a TableState,
    partitioning: Option<Partitioning>,
    /// The last hour asked for and its partition: no partition is narrower than an hour.
    last: Option<(i64, String)>,
}

impl Placer<'_> {
    fn place(&mut self, received: Timestamp, values: &[SqlValue]) -> Result<Option<String>, String> {
        let Some(partitioning) = &self.partitioning else { return Ok(None) };
        let time = self.state.partition_time(&partitioning.column, received, values).ok_or_else(|| {
            format!("column '{}': expected a time that decides the row's partition, got none", partitioning.column)
        })?;
        let hour = time.as_second().div_euclid(3600);
        if let Some((known, name)) = &self.last
            && *known == hour
        {
            return Ok(Some(name.clone()));
        }
        let name = partitioning.name(&self.state.table, time);
        self.last = Some((hour, name.clone()));
        Ok(Some(name))
    }
}
