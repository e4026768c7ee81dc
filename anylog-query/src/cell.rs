//! One value of an answer, typed by the declared type of its column.

use anylog_dbms::{ColumnType, SqlValue};
use jiff::tz::TimeZone;

use crate::sql::Moment;

/// A value as it is shown.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// No value.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number; shown with `.0` when it is whole.
    Float(f64),
    /// An exact number in its own digits.
    Number(String),
    /// Text, times included.
    Text(String),
}

impl Cell {
    /// The value that an engine gave for a column of this type; without a type the value speaks for itself.
    pub(crate) fn typed(value: SqlValue, kind: Option<ColumnType>) -> Self {
        match (kind, value) {
            (_, SqlValue::Null) => Self::Null,
            (Some(ColumnType::Boolean), SqlValue::Int(value)) => Self::Bool(value != 0),
            (Some(ColumnType::Boolean), SqlValue::Text(text)) => match text.to_lowercase().as_str() {
                "t" | "true" | "1" => Self::Bool(true),
                "f" | "false" | "0" => Self::Bool(false),
                _ => Self::Text(text),
            },
            (Some(kind), SqlValue::Bool(value)) if is_integer(kind) => Self::Int(i64::from(value)),
            (_, SqlValue::Bool(value)) => Self::Bool(value),
            #[expect(clippy::cast_precision_loss, reason = "the column is declared as a float")]
            (Some(ColumnType::Double), SqlValue::Int(value)) => Self::Float(value as f64),
            (Some(kind), SqlValue::Int(value)) if is_text(kind) => Self::Text(value.to_string()),
            (_, SqlValue::Int(value)) => Self::Int(value),
            (Some(kind), SqlValue::Float(value)) if is_text(kind) => Self::Text(format!("{value:?}")),
            (Some(kind), SqlValue::Float(value)) if is_integer(kind) => {
                whole(value).map_or(Self::Float(value), Self::Int)
            }
            (_, SqlValue::Float(value)) => Self::Float(value),
            (Some(ColumnType::Decimal), SqlValue::Text(text)) if is_json_number(&text) => Self::Number(text),
            (Some(ColumnType::Double), SqlValue::Text(text)) => match text.parse::<f64>() {
                Ok(value) if value.is_finite() => Self::Float(value),
                _ => Self::Text(text),
            },
            (Some(kind), SqlValue::Text(text)) if is_integer(kind) => match text.parse() {
                Ok(value) => Self::Int(value),
                Err(_) => Self::Text(text),
            },
            (_, SqlValue::Text(text)) => Self::Text(text),
        }
    }

    /// A stored time shown in a zone; anything else unchanged.
    pub(crate) fn in_zone(self, zone: &TimeZone) -> Self {
        let Self::Text(text) = &self else { return self };
        // Times of the stored form are UTC and need no look.
        if *zone == TimeZone::UTC && text.len() == 26 {
            return self;
        }
        match Moment::parse(text, &TimeZone::UTC) {
            Some(Moment::Instant(instant)) => Self::Text(shown(instant, zone)),
            _ => self,
        }
    }

    /// The text of the value without quotes; none for null.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Null => None,
            Self::Bool(value) => Some(value.to_string()),
            Self::Int(value) => Some(value.to_string()),
            Self::Float(value) if value.is_finite() => Some(format!("{value:?}")),
            Self::Float(_) => None,
            Self::Number(text) | Self::Text(text) => Some(text.clone()),
        }
    }

    /// Appends the value as JSON.
    pub(crate) fn write_json(&self, out: &mut String) {
        match self {
            Self::Text(text) => write_json_string(text, out),
            Self::Null => out.push_str("null"),
            other => out.push_str(other.text().as_deref().unwrap_or("null")),
        }
    }
}

/// A text in JSON quotes.
pub(crate) fn json_string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    write_json_string(text, &mut out);
    out
}

/// Appends a text in JSON quotes.
fn write_json_string(text: &str, out: &mut String) {
    out.push('"');
    if text.bytes().any(|byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
        let quoted = serde_json::Value::from(text).to_string();
        out.push_str(&quoted[1..]);
        return;
    }
    out.push_str(text);
    out.push('"');
}

/// `YYYY-MM-DD HH:MM:SS.ffffff` in a zone.
pub(crate) fn shown(instant: jiff::Timestamp, zone: &TimeZone) -> String {
    let civil = zone.to_datetime(instant);
    let date = civil.date();
    let (hour, minute, second, micro) =
        (civil.hour(), civil.minute(), civil.second(), civil.subsec_nanosecond() / 1000);
    format!("{date} {hour:02}:{minute:02}:{second:02}.{micro:06}")
}

fn is_integer(kind: ColumnType) -> bool {
    matches!(kind, ColumnType::Serial | ColumnType::Int | ColumnType::BigInt)
}

fn is_text(kind: ColumnType) -> bool {
    matches!(
        kind,
        ColumnType::Timestamp
            | ColumnType::Date
            | ColumnType::Time
            | ColumnType::Uuid
            | ColumnType::Varchar
            | ColumnType::Char(_)
            | ColumnType::Cidr
    )
}

fn whole(value: f64) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
    (value.fract() == 0.0 && value.abs() < 9.0e15).then_some(value as i64)
}

fn is_json_number(text: &str) -> bool {
    text.parse::<f64>().is_ok_and(f64::is_finite) && serde_json::from_str::<serde_json::Number>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(value: SqlValue, kind: Option<ColumnType>) -> String {
        let mut out = String::new();
        Cell::typed(value, kind).write_json(&mut out);
        out
    }

    #[test]
    fn declared_types_rule() {
        use ColumnType::{BigInt, Boolean, Decimal, Double, Timestamp, Varchar};
        for (value, kind, expected) in [
            (SqlValue::Int(1), Some(Boolean), "true"),
            (SqlValue::Int(0), Some(Boolean), "false"),
            (SqlValue::Int(3), Some(Double), "3.0"),
            (SqlValue::Float(3.25), Some(Double), "3.25"),
            (SqlValue::Float(0.1 + 0.2), Some(Double), "0.30000000000000004"),
            (SqlValue::Int(i64::MAX), Some(BigInt), "9223372036854775807"),
            (SqlValue::Text("12.500".into()), Some(Decimal), "12.500"),
            (SqlValue::Text("a\"b".into()), Some(Varchar), r#""a\"b""#),
            (SqlValue::Int(40001), Some(Varchar), r#""40001""#),
            (SqlValue::Null, Some(Timestamp), "null"),
            (SqlValue::Float(f64::NAN), None, "null"),
            (SqlValue::Int(7), None, "7"),
        ] {
            assert_eq!(json(value.clone(), kind), expected, "{value:?} as {kind:?}");
        }
    }

    #[test]
    fn times_are_shown_in_the_zone() {
        let zone = TimeZone::get("America/New_York").unwrap();
        let cell = |text: &str| Cell::Text(text.into());
        assert_eq!(cell("2026-11-20 01:02:03.456000").in_zone(&zone), cell("2026-11-19 20:02:03.456000"));
        assert_eq!(cell("2026-11-20T01:02:03.5Z").in_zone(&TimeZone::UTC), cell("2026-11-20 01:02:03.500000"));
        assert_eq!(cell("soon").in_zone(&zone), cell("soon"));
    }
}
