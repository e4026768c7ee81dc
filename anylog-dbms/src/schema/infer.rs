//! A table's schema from its first rows.

use std::collections::HashMap;

use anylog_core::names::normalize;
use jiff::tz::TimeZone;

use super::ddl::{bookkeeping, parse_column};
use super::instant::{epoch, parse_time};
use super::row::{every, string};
use super::{Column, ColumnType, Index, TableSchema, is_bookkeeping};
use crate::DbmsError;

/// Columns that a table may have; both engines take more.
const MAX_COLUMNS: usize = 1500;

/// Digits in a time column count as an epoch from 2000-01-01 on; below they are a number.
const FIRST_EPOCH: i64 = 946_684_800;

/// The schema of a table from the rows that it is to hold, and from what a mapping declares.
///
/// Declared columns come first and keep their type: `(normalised name, type text)`, where the text may add `not null` and
/// `default`. Other attributes follow in the order of their first appearance with the narrowest of BIGINT, DOUBLE PRECISION,
/// BOOLEAN and TIMESTAMP that all their values fit, else VARCHAR, which takes anything. Attributes that are null in all
/// rows become VARCHAR. `with_tsd_index` adds the index over `tsd_name` and `tsd_id`.
///
/// # Errors
/// [`DbmsError::Declaration`] when a declared type is unknown, no row is a JSON object, or there are too many columns.
pub fn infer(
    table: &str,
    rows: &[&str],
    declared: &[(String, String)],
    with_tsd_index: bool,
) -> Result<TableSchema, DbmsError> {
    let mut columns = bookkeeping();
    for (name, type_text) in declared {
        if !is_bookkeeping(name) && !columns.iter().any(|column| column.name == *name) {
            columns.push(declared_column(name, type_text)?);
        }
    }
    let found = observe(rows);
    if found.objects == 0 && declared.is_empty() {
        let reason = format!("no row for table '{table}' is a JSON object, so its columns are not known");
        return Err(DbmsError::Declaration { reason });
    }
    for (name, seen) in found.columns {
        if !columns.iter().any(|column| column.name == name) {
            columns.push(inferred_column(name, seen));
        }
    }
    if columns.len() > MAX_COLUMNS {
        let reason =
            format!("table '{table}' would have {} columns; at most {MAX_COLUMNS} are possible", columns.len());
        return Err(DbmsError::Declaration { reason });
    }
    let indexes = indexes(&columns, with_tsd_index);
    Ok(TableSchema { name: table.to_owned(), columns, indexes })
}

/// What the values of an attribute had in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Nothing,
    Boolean,
    Integer,
    Fraction,
    Time,
    Anything,
}

impl Seen {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Seen::Nothing, kind) | (kind, Seen::Nothing) => kind,
            (one, two) if one == two => one,
            (Seen::Integer, Seen::Fraction) | (Seen::Fraction, Seen::Integer) => Seen::Fraction,
            _ => Seen::Anything,
        }
    }

    fn of(column: &str, raw: &str) -> Self {
        match raw.as_bytes().first() {
            Some(b'n') => Seen::Nothing,
            Some(b't' | b'f') => Seen::Boolean,
            Some(b'-' | b'0'..=b'9') => Self::of_number(column, raw),
            Some(b'"') => string(raw).map_or(Seen::Anything, |text| Self::of_text(column, &text)),
            _ => Seen::Anything,
        }
    }

    fn of_number(column: &str, raw: &str) -> Self {
        if raw.contains(['.', 'e', 'E']) {
            let finite = raw.parse::<f64>().is_ok_and(f64::is_finite);
            return if finite { Seen::Fraction } else { Seen::Anything };
        }
        match raw.parse::<i64>() {
            Ok(value) if value >= FIRST_EPOCH && is_timestamp_name(column) => Seen::Time,
            Ok(_) => Seen::Integer,
            // Wider than 64 bits: as text it stays exact.
            Err(_) => Seen::Anything,
        }
    }

    fn of_text(column: &str, text: &str) -> Self {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let time = if digits {
            column.contains("time")
                && text.parse::<i64>().is_ok_and(|value| value >= FIRST_EPOCH)
                && epoch(text).is_some()
        } else {
            parse_time(text, &TimeZone::UTC).is_some()
        };
        if time { Seen::Time } else { Seen::Anything }
    }
}

/// A number in such a column is an epoch; `uptime` and `runtime_ns` are not such columns.
fn is_timestamp_name(column: &str) -> bool {
    column.contains("timestamp") || matches!(column, "time" | "ts" | "datetime" | "date_time")
}

struct Found {
    objects: usize,
    columns: Vec<(String, Seen)>,
}

fn observe(rows: &[&str]) -> Found {
    let mut found = Found { objects: 0, columns: Vec::new() };
    let mut places: HashMap<String, usize> = HashMap::new();
    for row in rows {
        let mut seen: Vec<(String, Seen)> = Vec::new();
        let read = every(row, |key, raw| {
            let name = normalize(&key);
            let kind = Seen::of(&name, raw);
            seen.push((name, kind));
        });
        if read.is_err() {
            continue;
        }
        found.objects += 1;
        for (name, kind) in seen {
            if name.is_empty() || is_bookkeeping(&name) {
                continue;
            }
            let place = *places.entry(name.clone()).or_insert_with(|| {
                found.columns.push((name, Seen::Nothing));
                found.columns.len() - 1
            });
            let known = &mut found.columns[place].1;
            *known = known.and(kind);
        }
    }
    found
}

fn inferred_column(name: String, seen: Seen) -> Column {
    let kind = match seen {
        Seen::Boolean => ColumnType::Boolean,
        Seen::Integer => ColumnType::BigInt,
        Seen::Fraction => ColumnType::Double,
        Seen::Time => ColumnType::Timestamp,
        Seen::Nothing | Seen::Anything => ColumnType::Varchar,
    };
    let time = kind == ColumnType::Timestamp;
    Column { name, kind, not_null: time, default: time.then(|| "now()".to_owned()) }
}

fn declared_column(name: &str, type_text: &str) -> Result<Column, DbmsError> {
    let mut column = parse_column(name, type_text)?;
    if column.kind == ColumnType::Serial {
        column.kind = ColumnType::BigInt;
    }
    if column.kind == ColumnType::Timestamp && column.default.is_none() {
        column.not_null = true;
        column.default = Some("now()".to_owned());
    }
    Ok(column)
}

/// One index per timestamp column, per sensor id, for the first UUID, in name order; then those of the bookkeeping.
fn indexes(columns: &[Column], with_tsd_index: bool) -> Vec<Index> {
    let single = |name: &str| Index { suffix: format!("{name}_index"), columns: vec![name.to_owned()] };
    let mut uuid_seen = false;
    let mut indexes: Vec<Index> = columns
        .iter()
        .filter(|column| !is_bookkeeping(&column.name))
        .filter(|column| {
            let first_uuid = column.kind == ColumnType::Uuid && !std::mem::replace(&mut uuid_seen, true);
            column.kind == ColumnType::Timestamp || column.name.contains("sensor_id") || first_uuid
        })
        .map(|column| single(&column.name))
        .collect();
    indexes.sort_by(|a, b| a.suffix.cmp(&b.suffix));
    if with_tsd_index {
        indexes.push(Index { suffix: "tsd_index".into(), columns: vec!["tsd_name".into(), "tsd_id".into()] });
    }
    indexes.push(single("insert_timestamp"));
    indexes
}

#[cfg(test)]
mod tests;
