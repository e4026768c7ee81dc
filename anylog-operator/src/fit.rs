//! Rows made ready for their table: converted, and placed in partitions.

use std::collections::BTreeSet;
use std::sync::Arc;

use anylog_dbms::schema::{ConvertedRow, RowConverter};
use anylog_dbms::{Partitioning, SqlValue};
use anylog_ingest::SinkError;
use jiff::Timestamp;

use crate::apply::BatchRow;
use crate::quarantine::Problem;
use crate::store::Shared;
use crate::tables::TableState;

/// Rows in a row that go to one partition.
pub(crate) struct Run {
    pub(crate) partition: Option<String>,
    /// The rows, still without ordinals.
    pub(crate) rows: Vec<BatchRow>,
    /// The values of their data columns, row after row.
    pub(crate) values: Vec<SqlValue>,
}

/// Rows of one table, ready to be stored.
pub(crate) struct Fitted {
    pub(crate) table: Arc<TableState>,
    pub(crate) runs: Vec<Run>,
    /// Position and problem of rows that do not fit, and their texts.
    pub(crate) refused: Vec<(usize, Problem, String)>,
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
        let mut converted = convert(&state, &rows, received);
        if !converted.wide.is_empty() {
            state = self.tables.widen(&state, &converted.wide).await?;
            converted = convert(&state, &rows, received);
        }
        let partitioning = self.catalog.partitioning(dbms, table);
        let mut fitted = Fitted { table: Arc::clone(&state), runs: Vec::new(), refused: Vec::new() };
        place(&mut fitted, partitioning, rows, converted, received);
        self.make_partitions(&state, &mut fitted, received).await?;
        Ok(fitted)
    }
}

/// Rows of another member that came together, with ordinals one after the other.
#[derive(Debug)]
pub(crate) struct Together {
    /// The ordinal of the first.
    pub(crate) first: u64,
    /// When they came there.
    pub(crate) received: Timestamp,
    /// The zone in which times without an offset are meant, by name.
    pub(crate) zone: Arc<str>,
    /// The rows as JSON texts.
    pub(crate) rows: Vec<String>,
}

/// The same, ready to be stored: rows have their ordinals.
pub(crate) struct FittedTogether {
    pub(crate) first: u64,
    pub(crate) received: Timestamp,
    pub(crate) fitted: Fitted,
}

/// What decides rows of another member beside their texts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Came<'a> {
    /// When they came there.
    pub(crate) received: Timestamp,
    /// The zone in which times without an offset are meant, by name.
    pub(crate) zone: &'a str,
    /// The text that creates their table there; empty when it is not known.
    pub(crate) create: &'a str,
}

impl Shared {
    /// As [`Self::fit`], for rows that another member took: values are made as it made them, and what it believed is believed. They
    /// go to the partitions of this node, which are made however many there are.
    pub(crate) async fn fit_copy(
        &self,
        dbms: &str,
        table: &str,
        rows: Vec<String>,
        came: Came<'_>,
    ) -> Result<Fitted, SinkError> {
        let Came { received, zone, create } = came;
        let mut state = self.tables.ensure_as(dbms, table, &rows, &[], Some(create)).await?;
        let mut converted = convert_by(&state.replay_converter(zone), &state, &rows, received);
        if !converted.wide.is_empty() {
            state = self.tables.widen(&state, &converted.wide).await?;
            converted = convert_by(&state.replay_converter(zone), &state, &rows, received);
        }
        let partitioning = self.catalog.partitioning(dbms, table);
        let mut fitted = Fitted { table: Arc::clone(&state), runs: Vec::new(), refused: Vec::new() };
        place(&mut fitted, partitioning, rows, converted, received);
        for partition in fitted.runs.iter().filter_map(|run| run.partition.as_ref()) {
            self.tables.ensure_partition(&state, partition).await?;
        }
        Ok(fitted)
    }

    /// As [`Self::fit_copy`], for rows that came one after the other: many of them may be messages of one row.
    pub(crate) async fn fit_copies(
        &self,
        dbms: &str,
        table: &str,
        create: &str,
        together: Vec<Together>,
    ) -> Result<Vec<FittedTogether>, SinkError> {
        let sample = together.first().map_or(&[][..], |first| &first.rows);
        let mut state = self.tables.ensure_as(dbms, table, sample, &[], Some(create)).await?;
        let mut converted = convert_together(&state, &together);
        let wide: BTreeSet<usize> = converted.iter().flat_map(|converted| &converted.wide).copied().collect();
        if !wide.is_empty() {
            state = self.tables.widen(&state, &wide).await?;
            converted = convert_together(&state, &together);
        }
        let partitioning = self.catalog.partitioning(dbms, table);
        let mut all = Vec::with_capacity(together.len());
        for (Together { first, received, rows, .. }, converted) in together.into_iter().zip(converted) {
            let mut fitted = Fitted { table: Arc::clone(&state), runs: Vec::new(), refused: Vec::new() };
            place(&mut fitted, partitioning.clone(), rows, converted, received);
            for run in &mut fitted.runs {
                run.rows.iter_mut().for_each(|row| row.ordinal = first + row.position as u64);
                if let Some(partition) = &run.partition {
                    self.tables.ensure_partition(&state, partition).await?;
                }
            }
            all.push(FittedTogether { first, received, fitted });
        }
        Ok(all)
    }

    /// Makes the partitions of the rows. Rows that would make more than a table may have are refused, save those of the present: a
    /// device with a broken clock must not make thousands, nor stop the others (R16).
    async fn make_partitions(
        &self,
        state: &Arc<TableState>,
        fitted: &mut Fitted,
        received: Timestamp,
    ) -> Result<(), SinkError> {
        let wanted: BTreeSet<String> = fitted.runs.iter().filter_map(|run| run.partition.clone()).collect();
        let mut denied = BTreeSet::new();
        for partition in wanted {
            let is_present = || {
                let partitioning = self.catalog.partitioning(&state.dbms, &state.table);
                partitioning.is_some_and(|partitioning| partitioning.name(&state.table, received) == partition)
            };
            if !state.knows_partition(&partition) && !state.takes_partitions() && !is_present() {
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
            let problem = Problem::new(
                "partition_limit",
                format!(
                    "partition '{partition}' would be one more than the {} that rows of table '{}' may make",
                    state.partition_limit(),
                    state.table
                ),
            );
            fitted.refused.extend(run.rows.into_iter().map(|row| (row.position, problem.clone(), row.text)));
        }
        Ok(())
    }
}

/// Rows of a table as values.
struct Converted {
    /// The values of the rows that fit, row after row.
    values: Vec<SqlValue>,
    /// The others, by position.
    problems: Vec<(usize, Problem)>,
    /// Columns that must become wider first.
    wide: BTreeSet<usize>,
}

fn convert(state: &TableState, rows: &[String], received: Timestamp) -> Converted {
    convert_by(&state.converter, state, rows, received)
}

fn convert_by(converter: &RowConverter, state: &TableState, rows: &[String], received: Timestamp) -> Converted {
    let values = Vec::with_capacity(rows.len() * state.data_width());
    let mut converted = ConvertedRow { values, widen: Vec::new() };
    let mut problems = Vec::new();
    for (position, row) in rows.iter().enumerate() {
        if let Err(problem) = converter.convert_into(row, received, &mut converted) {
            problems.push((position, problem.into()));
        }
    }
    Converted { values: converted.values, problems, wide: converted.widen.into_iter().collect() }
}

fn convert_together(state: &TableState, together: &[Together]) -> Vec<Converted> {
    let mut converter: Option<(&str, RowConverter)> = None;
    let mut all = Vec::with_capacity(together.len());
    for Together { received, zone, rows, .. } in together {
        // Nearly always the same.
        let converter = match &mut converter {
            Some((known, converter)) if **known == **zone => converter,
            other => &mut other.insert((zone, state.replay_converter(zone))).1,
        };
        all.push(convert_by(converter, state, rows, *received));
    }
    all
}

/// Puts rows to their partitions.
fn place(
    fitted: &mut Fitted,
    partitioning: Option<Partitioning>,
    rows: Vec<String>,
    converted: Converted,
    received: Timestamp,
) {
    let state = Arc::clone(&fitted.table);
    let width = state.data_width();
    let column = partitioning.as_ref().and_then(|partitioning| state.place_of(&partitioning.column));
    let mut placer = Placer { state: &state, partitioning, column, last: None };
    let mut problems = converted.problems.into_iter().peekable();
    let (mut values, count) = (converted.values.into_iter(), rows.len());
    for (position, text) in rows.into_iter().enumerate() {
        if let Some((_, problem)) = problems.next_if(|(bad, _)| *bad == position) {
            fitted.refused.push((position, problem, text));
            continue;
        }
        let moved = match placer.moves(received, values.as_slice().get(..width).unwrap_or_default()) {
            Ok(moved) => moved,
            Err(problem) => {
                values.by_ref().take(width).for_each(drop);
                fitted.refused.push((position, problem, text));
                continue;
            }
        };
        if moved || fitted.runs.is_empty() {
            let (partition, left) = (placer.partition(), count - position);
            // Most rows that come together go to one partition.
            let expected = if fitted.runs.is_empty() { left } else { 0 };
            let (rows, values) = (Vec::with_capacity(expected), Vec::with_capacity(expected * width));
            fitted.runs.push(Run { partition, rows, values });
        }
        if let Some(run) = fitted.runs.last_mut() {
            run.rows.push(BatchRow { ordinal: 0, position, text });
            run.values.extend(values.by_ref().take(width));
        }
    }
}

struct Placer<'a> {
    state: &'a TableState,
    partitioning: Option<Partitioning>,
    /// Which value decides; none: the time of arrival.
    column: Option<usize>,
    last: Option<Place>,
}

/// The place of the last row.
struct Place {
    /// The beginning of the time that decided, as far as its hour: no partition is narrower.
    hour: String,
    name: String,
}

/// `YYYY-MM-DD HH` of a stored time.
const HOUR: usize = 13;

impl Placer<'_> {
    fn partition(&self) -> Option<String> {
        self.last.as_ref().map(|place| place.name.clone())
    }

    /// Finds the place of a row; true when it is another than that of the row before.
    fn moves(&mut self, received: Timestamp, values: &[SqlValue]) -> Result<bool, Problem> {
        let Some(partitioning) = &self.partitioning else { return Ok(false) };
        let text = self.column.and_then(|column| match values.get(column)? {
            SqlValue::Text(text) => text.get(..HOUR),
            _ => None,
        });
        match (&self.last, text, self.column) {
            (Some(last), Some(hour), _) if last.hour == hour => return Ok(false),
            // All rows of a batch arrived at one time.
            (Some(_), _, None) if self.state.is_arrival(&partitioning.column) => return Ok(false),
            _ => {}
        }
        let time = self.state.partition_time(&partitioning.column, received, values).ok_or_else(|| Problem {
            kind: "missing",
            column: partitioning.column.clone(),
            expected: "a time that decides the row's partition".into(),
            actual: "none".into(),
            reason: format!(
                "column '{}': expected a time that decides the row's partition, got none",
                partitioning.column
            ),
        })?;
        let name = partitioning.name(&self.state.table, time);
        let hour = text.unwrap_or_default().to_owned();
        let moved = self.last.as_ref().is_none_or(|last| last.name != name);
        self.last = Some(Place { hour, name });
        Ok(moved)
    }
}
