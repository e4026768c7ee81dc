//! From a JSON row to the values of a table's columns.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use anylog_core::names::normalize;
use anylog_core::time::stored;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::instant::{epoch, parse_time_or_day, usual};
use super::row::{attributes, string};
use super::{Column, ColumnType, TableSchema};
use crate::SqlValue;

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

/// What kind of misfit a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Misfit {
    /// The row is not a JSON object.
    NotObject,
    /// A value is not of its column's type.
    Type,
    /// A time lies outside the window that is believed.
    TimeWindow,
    /// A value is missing that must be there.
    Missing,
}

impl Misfit {
    /// The kind in one word, as it is counted and filtered by.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Misfit::NotObject => "not_object",
            Misfit::Type => "type",
            Misfit::TimeWindow => "time_window",
            Misfit::Missing => "missing",
        }
    }
}

/// Why a row does not fit its table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column '{column}': expected {expected}, got {actual}")]
pub struct RowProblem {
    /// What kind of misfit it is.
    pub kind: Misfit,
    /// The column; empty when the row itself is not a JSON object.
    pub column: String,
    /// What the column takes.
    pub expected: String,
    /// What the row holds.
    pub actual: String,
}

/// How well a key of the row names a column; a better one wins over a worse one, and the last over its equals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    Normalised,
    Digits,
    Exact,
}

/// Converts JSON rows to the values of a table's columns. Nothing is narrowed and nothing is guessed: a value that its column
/// cannot hold makes the row a [`RowProblem`].
///
/// | column | takes |
/// |---|---|
/// | BIGINT, INT | integers that fit, also as text of digits; a fraction into BIGINT asks for a wider column |
/// | DOUBLE PRECISION, DECIMAL | numbers, also as text |
/// | BOOLEAN | `true`, `false`, also as text; 0 and 1 |
/// | TIMESTAMP | what [`parse_time`](super::parse_time) reads, a calendar day, and epochs as number or digits, inside the window |
/// | DATE, TIME, UUID, CIDR | text of that form |
/// | CHAR(n) | text of at most n characters |
/// | VARCHAR | text as it is; any other value as its JSON text, verbatim |
///
/// `null`, and an attribute that the row does not have, take the column's default, else NULL.
#[derive(Debug)]
pub struct RowConverter {
    columns: Vec<Column>,
    places: HashMap<String, usize>,
    zone: TimeZone,
    /// Times without an offset are in UTC.
    utc: bool,
    window: TimeWindow,
}

impl RowConverter {
    /// A converter for a table. Times without an offset are meant in `naive_zone`.
    #[must_use]
    pub fn new(schema: &TableSchema, naive_zone: TimeZone, window: TimeWindow) -> Self {
        let columns = schema.data_columns().to_vec();
        let places = columns.iter().enumerate().map(|(place, column)| (column.name.clone(), place)).collect();
        let utc = naive_zone == TimeZone::UTC;
        Self { columns, places, zone: naive_zone, utc, window }
    }

    /// Converts one row. `now` stands for `now()` in defaults, and the time window lies around it.
    ///
    /// # Errors
    /// [`RowProblem`] with the first column that does not fit.
    pub fn convert(&self, row_json: &str, now: Timestamp) -> Result<ConvertedRow, RowProblem> {
        let mut row = ConvertedRow { values: Vec::with_capacity(self.columns.len()), widen: Vec::new() };
        self.convert_into(row_json, now, &mut row)?;
        Ok(row)
    }

    /// As [`Self::convert`], adding the values to those of other rows. Columns to be widened are added as well.
    ///
    /// # Errors
    /// As [`Self::convert`]; nothing is added then.
    pub fn convert_into(&self, row_json: &str, now: Timestamp, rows: &mut ConvertedRow) -> Result<(), RowProblem> {
        let before = (rows.values.len(), rows.widen.len());
        let converted = self.add_values(row_json, now, rows);
        if converted.is_err() {
            rows.values.truncate(before.0);
            rows.widen.truncate(before.1);
        }
        converted
    }

    fn add_values(&self, row_json: &str, now: Timestamp, row: &mut ConvertedRow) -> Result<(), RowProblem> {
        // Most tables are narrow: their attributes need no allocation.
        let (mut narrow, mut wide) = ([None; 16], Vec::new());
        let found: &mut [Option<(Fit, &str)>] = if self.columns.len() <= narrow.len() {
            &mut narrow[..self.columns.len()]
        } else {
            wide.resize(self.columns.len(), None);
            &mut wide
        };
        let mut next = 0;
        let read = attributes(row_json, |key, raw| {
            // Rows mostly have their attributes in the order of the columns.
            let expected = self.columns.get(next).is_some_and(|column| column.name == *key);
            let place = if expected { Some((next, Fit::Exact)) } else { self.place(&key) };
            if let Some((place, fit)) = place {
                next = place + 1;
                let known = &mut found[place];
                if known.is_none_or(|(known, _)| fit >= known) {
                    *known = Some((fit, raw));
                }
            }
        });
        read.map_err(|error| RowProblem {
            kind: Misfit::NotObject,
            column: String::new(),
            expected: "a JSON object".into(),
            actual: format!("{} ({error})", shown(row_json)),
        })?;
        for (place, (column, found)) in self.columns.iter().zip(found.iter()).enumerate() {
            let value = match *found {
                Some((_, raw)) if raw != "null" => self.value(column, raw, now)?,
                _ => Converted::Fits(default_value(column, now)?),
            };
            row.values.push(match value {
                Converted::Fits(value) => value,
                Converted::Wider(value) => {
                    row.widen.push(place);
                    value
                }
            });
        }
        Ok(())
    }

    fn place(&self, key: &str) -> Option<(usize, Fit)> {
        if let Some(place) = self.places.get(key) {
            return Some((*place, Fit::Exact));
        }
        let normalised = normalize(key);
        let digits = key.bytes().all(|byte| byte.is_ascii_digit());
        let fit = if digits { Fit::Digits } else { Fit::Normalised };
        self.places.get(&normalised).map(|place| (*place, fit))
    }

    fn value(&self, column: &Column, raw: &str, now: Timestamp) -> Result<Converted, RowProblem> {
        let quoted = string(raw);
        let text = quoted.as_deref();
        let fitting = match column.kind {
            ColumnType::BigInt => return big_integer(text.unwrap_or(raw)).ok_or_else(|| problem(column, raw)),
            ColumnType::Serial | ColumnType::Int => {
                text.unwrap_or(raw).parse::<i32>().ok().map(|value| SqlValue::Int(i64::from(value)))
            }
            ColumnType::Double => number(text.unwrap_or(raw)).map(SqlValue::Float),
            ColumnType::Decimal => {
                let digits = text.unwrap_or(raw);
                number(digits).map(|_| SqlValue::Text(digits.to_owned()))
            }
            ColumnType::Boolean => boolean(text.unwrap_or(raw)).map(SqlValue::Bool),
            ColumnType::Timestamp => return self.timestamp(column, raw, text, now).map(Converted::Fits),
            ColumnType::Date => text.and_then(date).map(SqlValue::Text),
            ColumnType::Time => text.and_then(clock).map(SqlValue::Text),
            ColumnType::Uuid => text.and_then(uuid).map(SqlValue::Text),
            ColumnType::Cidr => text.and_then(network).map(SqlValue::Text),
            ColumnType::Varchar => stored_text(raw, quoted),
            ColumnType::Char(length) => {
                let fits = |text: &str| u32::try_from(text.chars().count()).is_ok_and(|count| count <= length);
                if fits(text.unwrap_or(raw)) { stored_text(raw, quoted) } else { None }
            }
        };
        fitting.map(Converted::Fits).ok_or_else(|| problem(column, raw))
    }

    fn timestamp(
        &self,
        column: &Column,
        raw: &str,
        text: Option<&str>,
        now: Timestamp,
    ) -> Result<SqlValue, RowProblem> {
        if let Some((time, stored)) = text.and_then(|text| usual(text, self.utc)) {
            let now = now.as_microsecond();
            let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
            let first = self.window.past.map_or(0, |past| now.saturating_sub(micros(past)).max(0));
            // Outside the window the long way below makes the error.
            if (first..=now.saturating_add(micros(self.window.future))).contains(&time) {
                return Ok(SqlValue::Text(stored));
            }
        }
        let time = match text {
            Some("now" | "now()") => return Ok(SqlValue::Text(stored(now))),
            Some(text) if is_number(text.trim()) => epoch(text.trim()),
            Some(text) => parse_time_or_day(text, &self.zone),
            None if is_number(raw) => epoch(raw),
            None => None,
        };
        let time = time.ok_or_else(|| problem(column, raw))?;
        let first = self.window.past.and_then(|past| now.checked_sub(past).ok()).unwrap_or(Timestamp::UNIX_EPOCH);
        let first = first.max(Timestamp::UNIX_EPOCH);
        let last = now.checked_add(self.window.future).unwrap_or(Timestamp::MAX);
        if time < first || time > last {
            return Err(RowProblem {
                kind: Misfit::TimeWindow,
                column: column.name.clone(),
                expected: format!("a time from {} to {}", stored(first), stored(last)),
                actual: shown(raw),
            });
        }
        Ok(SqlValue::Text(stored(time)))
    }
}

enum Converted {
    Fits(SqlValue),
    /// The value of a column that must become wider first.
    Wider(SqlValue),
}

fn problem(column: &Column, raw: &str) -> RowProblem {
    RowProblem { kind: Misfit::Type, column: column.name.clone(), expected: column.kind.portable(), actual: shown(raw) }
}

/// The start of a value, for an error.
fn shown(raw: &str) -> String {
    const LONGEST: usize = 80;
    match raw.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &raw[..end]),
        None => raw.to_owned(),
    }
}

fn is_number(text: &str) -> bool {
    float(text).is_some()
}

/// A number as JSON and people write it: no `inf`, no `nan`.
fn float(text: &str) -> Option<f64> {
    let begins = text.starts_with(|c: char| c.is_ascii_digit() || c == '-');
    let digits = || text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E'));
    if begins && digits() { text.parse().ok() } else { None }
}

fn number(text: &str) -> Option<f64> {
    float(text.trim()).filter(|value| value.is_finite())
}

fn big_integer(text: &str) -> Option<Converted> {
    if let Ok(value) = text.parse::<i64>() {
        return Some(Converted::Fits(SqlValue::Int(value)));
    }
    // Only a fraction widens; an integer of more than 64 bits would lose digits.
    let fraction = text.contains(['.', 'e', 'E']);
    number(text).filter(|_| fraction).map(|value| Converted::Wider(SqlValue::Float(value)))
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" => Some(true),
        "0" => Some(false),
        text if text.eq_ignore_ascii_case("true") => Some(true),
        text if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

fn date(text: &str) -> Option<String> {
    text.parse::<jiff::civil::Date>().ok().filter(|date| date.year() >= 1).map(|date| date.to_string())
}

fn clock(text: &str) -> Option<String> {
    let time: jiff::civil::Time = text.parse().ok()?;
    let micro = time.subsec_nanosecond() / 1000;
    let whole = format!("{:02}:{:02}:{:02}", time.hour(), time.minute(), time.second());
    Some(if micro == 0 { whole } else { format!("{whole}.{micro:06}") })
}

/// 32 hexadecimal digits with or without dashes and braces, in the form with dashes.
fn uuid(text: &str) -> Option<String> {
    let text = text.strip_prefix("urn:uuid:").unwrap_or(text).trim_start_matches('{').trim_end_matches('}');
    let digits: String = text.chars().filter(|c| *c != '-').collect::<String>().to_ascii_lowercase();
    if digits.len() != 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    Some([&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-"))
}

/// An address in its usual form; its bits only where they are fewer than all.
fn network(text: &str) -> Option<String> {
    let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let address: IpAddr = address.parse().ok()?;
    let all = if address.is_ipv4() { 32 } else { 128 };
    let bits = match bits {
        Some(bits) => bits.parse::<u8>().ok().filter(|bits| *bits <= all)?,
        None => all,
    };
    Some(if bits == all { address.to_string() } else { format!("{address}/{bits}") })
}

/// Text as it is, anything else as its JSON text. PostgreSQL has no character for U+0000, so it is refused everywhere.
fn stored_text(raw: &str, text: Option<Cow<'_, str>>) -> Option<SqlValue> {
    let text = text.map_or_else(|| raw.to_owned(), Cow::into_owned);
    (!text.contains('\0')).then_some(SqlValue::Text(text))
}

fn default_value(column: &Column, now: Timestamp) -> Result<SqlValue, RowProblem> {
    let value = match column.default.as_deref() {
        None => SqlValue::Null,
        Some("now()") => {
            let stored = stored(now);
            match column.kind {
                ColumnType::Date => SqlValue::Text(stored[..10].to_owned()),
                ColumnType::Time => SqlValue::Text(stored[11..].to_owned()),
                _ => SqlValue::Text(stored),
            }
        }
        Some(literal) => literal_value(literal, column.kind),
    };
    if value == SqlValue::Null && column.not_null {
        return Err(RowProblem {
            kind: Misfit::Missing,
            column: column.name.clone(),
            expected: format!("{} NOT NULL", column.kind.portable()),
            actual: "null".into(),
        });
    }
    Ok(value)
}

fn literal_value(literal: &str, kind: ColumnType) -> SqlValue {
    if let Some(text) = literal.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
        return SqlValue::Text(text.replace("''", "'"));
    }
    match (literal, kind) {
        ("true" | "false", _) => SqlValue::Bool(literal == "true"),
        (_, ColumnType::Int | ColumnType::BigInt) if literal.parse::<i64>().is_ok() => {
            literal.parse().map_or(SqlValue::Null, SqlValue::Int)
        }
        (_, ColumnType::Double) => literal.parse().map_or(SqlValue::Null, SqlValue::Float),
        (_, ColumnType::Boolean) => SqlValue::Bool(literal != "0"),
        _ => SqlValue::Text(literal.to_owned()),
    }
}

#[cfg(test)]
mod tests;
