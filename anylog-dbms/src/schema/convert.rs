//! From a JSON row to the values of a table's columns.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::{SqlValue, TableSchema};

/// Which times are believed: `set time window`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeWindow {
    /// How long ago a time may be; none: since 1970.
    pub past: Option<Duration>,
    /// How far ahead a time may be.
    pub future: Duration,
}

impl Default for TimeWindow {
    fn default() -> Self {
        Self { past: None, future: Duration::from_secs(86_400) }
    }
}

/// The values of a row.
#[derive(Debug, Clone, PartialEq)]
pub struct ConvertedRow {
    /// One value for each data column, in schema order.
    pub values: Vec<SqlValue>,
    /// Data columns (from 0, bookkeeping columns not counted) of type `BigInt` that must become `Double` for this row.
    pub widen: Vec<usize>,
}

/// Why a row does not fit its table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column '{column}': expected {expected}, got {actual}")]
pub struct RowProblem {
    /// The column; empty when the row itself is not a JSON object.
    pub column: String,
    /// What the column takes.
    pub expected: String,
    /// What the row holds.
    pub actual: String,
}

/// Converts JSON rows to the values of a table's columns.
#[derive(Debug)]
pub struct RowConverter {}

impl RowConverter {
    /// A converter for a table.
    #[must_use]
    pub fn new(_schema: &TableSchema, _naive_zone: TimeZone, _window: TimeWindow) -> Self {
        Self {}
    }

    /// Converts one row.
    pub fn convert(&self, _row_json: &str, _now: Timestamp) -> Result<ConvertedRow, RowProblem> {
        Err(RowProblem { column: String::new(), expected: String::new(), actual: String::new() })
    }
}
