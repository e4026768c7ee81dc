//! Rows in the form that `COPY ... FROM STDIN` takes: binary when the types of all columns are known here, else text.

use std::net::IpAddr;

use jiff::tz::TimeZone;

use super::failure::Failure;
use super::values::EPOCH;
use crate::schema::parse_time;
use crate::{RowRef, SqlValue};

/// What opens and ends rows in binary form.
const HEAD: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const TAIL: [u8; 2] = (-1_i16).to_be_bytes();

/// How the values of a column are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Numeric,
    Timestamp,
    Date,
    Time,
    Uuid,
    Text,
    Jsonb,
    Network,
}

impl Encoding {
    /// Of a type by its number in the server's catalogue; none of one that only the server can read.
    pub(super) fn of(kind: i64) -> Option<Self> {
        Some(match kind {
            16 => Encoding::Bool,
            21 => Encoding::Int2,
            23 => Encoding::Int4,
            20 => Encoding::Int8,
            700 => Encoding::Float4,
            701 => Encoding::Float8,
            1700 => Encoding::Numeric,
            1114 | 1184 => Encoding::Timestamp,
            1082 => Encoding::Date,
            1083 => Encoding::Time,
            2950 => Encoding::Uuid,
            25 | 1042 | 1043 | 19 | 114 => Encoding::Text,
            3802 => Encoding::Jsonb,
            650 | 869 => Encoding::Network,
            _ => return None,
        })
    }

    fn shown(self) -> &'static str {
        match self {
            Encoding::Bool => "boolean",
            Encoding::Int2 => "smallint",
            Encoding::Int4 => "integer",
            Encoding::Int8 => "bigint",
            Encoding::Float4 => "real",
            Encoding::Float8 => "double precision",
            Encoding::Numeric => "numeric",
            Encoding::Timestamp => "timestamp",
            Encoding::Date => "date",
            Encoding::Time => "time",
            Encoding::Uuid => "uuid",
            Encoding::Text => "text",
            Encoding::Jsonb => "jsonb",
            Encoding::Network => "network address",
        }
    }
}

/// Collects rows as bytes.
#[derive(Debug)]
pub(super) struct Encoder<'a> {
    columns: &'a [String],
    /// None: all values are written as text.
    kinds: Option<&'a [Encoding]>,
    bytes: Vec<u8>,
    rows: usize,
}

impl<'a> Encoder<'a> {
    pub(super) fn new(columns: &'a [String], kinds: Option<&'a [Encoding]>) -> Self {
        let bytes = if kinds.is_some() { HEAD.to_vec() } else { Vec::new() };
        Self { columns, kinds, bytes, rows: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes what was collected so far; about as many bytes as `next` will follow.
    pub(super) fn take(&mut self, next: usize) -> Vec<u8> {
        std::mem::replace(&mut self.bytes, Vec::with_capacity(next + next / 8))
    }

    /// Takes the rest, after the last row.
    pub(super) fn end(mut self) -> Vec<u8> {
        if self.kinds.is_some() {
            self.bytes.extend(TAIL);
        }
        self.bytes
    }

    /// Adds a row; says which one it is when a value does not fit its column.
    pub(super) fn row(&mut self, row: RowRef<'_>) -> Result<(), Failure> {
        let index = self.rows;
        self.rows += 1;
        if row.width() != self.columns.len() {
            let reason = format!("the row has {} values for {} columns", row.width(), self.columns.len());
            return Err(Failure::Row { index, reason });
        }
        let Some(kinds) = self.kinds else {
            text_row(row, &mut self.bytes);
            return Ok(());
        };
        let count = i16::try_from(kinds.len()).unwrap_or(i16::MAX);
        self.bytes.extend(count.to_be_bytes());
        for (at, (value, kind)) in row.values().zip(kinds).enumerate() {
            if binary(value, *kind, &mut self.bytes).is_none() {
                let column = self.columns.get(at).map(String::as_str).unwrap_or_default();
                let reason = format!("column '{column}': expected {}, got {}", kind.shown(), shown(value));
                return Err(Failure::Row { index, reason });
            }
        }
        Ok(())
    }
}

/// A value for a message, not too long.
fn shown(value: &SqlValue) -> String {
    let text = text(value).unwrap_or_else(|| "null".into());
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push_str("...");
    }
    format!("'{short}'")
}

fn text(value: &SqlValue) -> Option<String> {
    Some(match value {
        SqlValue::Null => return None,
        SqlValue::Bool(value) => value.to_string(),
        SqlValue::Int(value) => value.to_string(),
        SqlValue::Float(value) => format!("{value:?}"),
        SqlValue::Text(text) => text.clone(),
    })
}

fn text_row(row: RowRef<'_>, out: &mut Vec<u8>) {
    for (at, value) in row.values().enumerate() {
        if at > 0 {
            out.push(b'\t');
        }
        let Some(text) = text(value) else {
            out.extend(br"\N");
            continue;
        };
        for byte in text.bytes() {
            match byte {
                b'\\' => out.extend(br"\\"),
                b'\t' => out.extend(br"\t"),
                b'\n' => out.extend(br"\n"),
                b'\r' => out.extend(br"\r"),
                byte => out.push(byte),
            }
        }
    }
    out.push(b'\n');
}

/// A length and the value; none when the value is not of the type.
fn binary(value: &SqlValue, kind: Encoding, out: &mut Vec<u8>) -> Option<()> {
    fn put<const N: usize>(out: &mut Vec<u8>, bytes: [u8; N]) {
        out.extend((N as i32).to_be_bytes());
        out.extend(bytes);
    }
    if *value == SqlValue::Null {
        out.extend((-1_i32).to_be_bytes());
        return Some(());
    }
    match kind {
        Encoding::Bool => put(out, [u8::from(boolean(value)?)]),
        Encoding::Int2 => put(out, i16::try_from(integer(value)?).ok()?.to_be_bytes()),
        Encoding::Int4 => put(out, i32::try_from(integer(value)?).ok()?.to_be_bytes()),
        Encoding::Int8 => put(out, integer(value)?.to_be_bytes()),
        #[allow(clippy::cast_possible_truncation, reason = "the column holds no more")]
        Encoding::Float4 => put(out, (float(value)? as f32).to_be_bytes()),
        Encoding::Float8 => put(out, float(value)?.to_be_bytes()),
        Encoding::Numeric => sized(out, &numeric(&text(value)?)?)?,
        Encoding::Timestamp => put(out, timestamp(words(value)?)?.to_be_bytes()),
        Encoding::Date => put(out, date(words(value)?)?.to_be_bytes()),
        Encoding::Time => put(out, clock(words(value)?)?.to_be_bytes()),
        Encoding::Uuid => put(out, uuid(words(value)?)?),
        Encoding::Network => sized(out, &network(words(value)?)?)?,
        Encoding::Text => match value {
            SqlValue::Text(text) => storable(out, text)?,
            other => storable(out, &text(other)?)?,
        },
        Encoding::Jsonb => {
            let text = text(value)?;
            storable(out, &format!("\u{1}{text}"))?;
        }
    }
    Some(())
}

fn sized(out: &mut Vec<u8>, bytes: &[u8]) -> Option<()> {
    out.extend(i32::try_from(bytes.len()).ok()?.to_be_bytes());
    out.extend(bytes);
    Some(())
}

/// The server has no character for U+0000.
fn storable(out: &mut Vec<u8>, text: &str) -> Option<()> {
    if text.as_bytes().contains(&0) { None } else { sized(out, text.as_bytes()) }
}

fn words(value: &SqlValue) -> Option<&str> {
    match value {
        SqlValue::Text(text) => Some(text),
        _ => None,
    }
}

fn boolean(value: &SqlValue) -> Option<bool> {
    match value {
        SqlValue::Bool(value) => Some(*value),
        SqlValue::Int(value @ (0 | 1)) => Some(*value == 1),
        _ => None,
    }
}

fn integer(value: &SqlValue) -> Option<i64> {
    match value {
        SqlValue::Int(value) => Some(*value),
        SqlValue::Bool(value) => Some(i64::from(*value)),
        _ => None,
    }
}

fn float(value: &SqlValue) -> Option<f64> {
    match value {
        SqlValue::Float(value) => Some(*value),
        SqlValue::Int(value) => value.to_string().parse().ok(),
        _ => None,
    }
}

/// Groups of four digits: count, weight of the first, sign, digits after the point, groups.
fn numeric(text: &str) -> Option<Vec<u8>> {
    // As many digits as the server takes.
    const BEFORE: i64 = 131_072;
    const AFTER: i64 = 16_383;
    let text = text.trim();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (0x4000_u16, digits),
        None => (0, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (digits, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
    if all.is_empty() || !all.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // The place of the point in `all`, which may lie before or behind it.
    let point = i64::try_from(whole.len()).ok()?.checked_add(exponent)?;
    let length = i64::try_from(all.len()).ok()?;
    let scale = (length - point).max(0);
    if point > BEFORE || scale > AFTER {
        return None;
    }
    let digit = |at: i64| usize::try_from(at).ok().and_then(|at| all.get(at)).map_or(0, |digit| digit - b'0');
    // Places of groups from the point on: -1 is the last group before it.
    let first = -((point.max(0) + 3) / 4);
    let last = (scale + 3) / 4;
    let group = |place: i64| (0..4).fold(0_u16, |value, at| value * 10 + u16::from(digit(point + place * 4 + at)));
    let mut groups: Vec<u16> = (first..last).map(group).collect();
    let leading = groups.iter().take_while(|group| **group == 0).count();
    groups.drain(..leading);
    while groups.last() == Some(&0) {
        groups.pop();
    }
    let weight = if groups.is_empty() { 0 } else { -first - 1 - i64::try_from(leading).ok()? };
    let sign = if groups.is_empty() { 0 } else { sign };
    let head = [u16::try_from(groups.len()).ok()?, i16::try_from(weight).ok()?.cast_unsigned(), sign];
    let numbers = head.into_iter().chain([u16::try_from(scale).ok()?]).chain(groups);
    Some(numbers.flat_map(u16::to_be_bytes).collect())
}

/// Microseconds since 2000. Times come as [`stored`](anylog_core::time::stored) writes them; others are read as well.
fn timestamp(text: &str) -> Option<i64> {
    let micros = match crate::schema::micros(text) {
        Some(micros) => micros,
        None => parse_time(text, &TimeZone::UTC)?.as_microsecond(),
    };
    micros.checked_sub(EPOCH)
}

fn date(text: &str) -> Option<i32> {
    let day: jiff::civil::Date = text.parse().ok()?;
    let since = jiff::civil::date(2000, 1, 1).until((jiff::Unit::Day, day)).ok()?;
    Some(since.get_days())
}

fn clock(text: &str) -> Option<i64> {
    let time: jiff::civil::Time = text.parse().ok()?;
    let seconds = i64::from(time.hour()) * 3600 + i64::from(time.minute()) * 60 + i64::from(time.second());
    Some(seconds * 1_000_000 + i64::from(time.subsec_nanosecond() / 1000))
}

fn uuid(text: &str) -> Option<[u8; 16]> {
    let mut digits = text.bytes().filter(|byte| !matches!(byte, b'-' | b'{' | b'}'));
    let mut bytes = [0; 16];
    for byte in &mut bytes {
        let mut half = || char::from(digits.next()?).to_digit(16);
        *byte = u8::try_from(half()? * 16 + half()?).ok()?;
    }
    digits.next().is_none().then_some(bytes)
}

/// Family, bits, whether it is a cidr, length, address.
fn network(text: &str) -> Option<Vec<u8>> {
    let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let (family, address) = match address.parse::<IpAddr>().ok()? {
        IpAddr::V4(address) => (2, address.octets().to_vec()),
        IpAddr::V6(address) => (3, address.octets().to_vec()),
    };
    let most = u8::try_from(address.len() * 8).ok()?;
    let bits = match bits {
        Some(bits) => bits.parse().ok().filter(|bits| *bits <= most)?,
        None => most,
    };
    let mut bytes = vec![family, bits, 0, u8::try_from(address.len()).ok()?];
    bytes.extend(address);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(text: &str) -> Vec<i16> {
        let bytes = numeric(text).unwrap();
        bytes.chunks(2).map(|pair| i16::from_be_bytes([pair[0], pair[1]])).collect()
    }

    #[test]
    fn decimals_are_groups_of_four_digits() {
        assert_eq!(groups("0"), [0, 0, 0, 0]);
        assert_eq!(groups("-0.00"), [0, 0, 0, 2]);
        assert_eq!(groups("12345.6"), [3, 1, 0, 1, 1, 2345, 6000]);
        assert_eq!(groups("-0.00012"), [2, -1, 0x4000, 5, 1, 2000]);
        assert_eq!(groups("1e8"), [1, 2, 0, 0, 1]);
        assert_eq!(groups("1.5E-5"), [1, -2, 0, 6, 1500]);
        assert_eq!(groups("120000"), [1, 1, 0, 0, 12, 0].into_iter().take(5).collect::<Vec<_>>().as_slice());
        for wrong in ["", "-", "1.2.3", "x", "1e", "1e999999", "1e-99999", "NaN"] {
            assert_eq!(numeric(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn times_are_counted_from_2000() {
        assert_eq!(timestamp("2000-01-01 00:00:00.000001"), Some(1));
        assert_eq!(timestamp("1999-12-31 23:59:59.000000"), Some(-1_000_000));
        assert_eq!(timestamp("2024-02-29T12:00:00+02:00"), timestamp("2024-02-29 10:00:00.000000"));
        assert_eq!(timestamp("yesterday"), None);
        assert_eq!(date("2000-03-01"), Some(60));
        assert_eq!(date("1999-12-31"), Some(-1));
        assert_eq!(clock("00:00:01.5"), Some(1_500_000));
    }

    #[test]
    fn a_value_that_does_not_fit_is_named() {
        let columns = ["a".to_owned(), "b".to_owned()];
        let kinds = [Encoding::Int4, Encoding::Bool];
        let mut encoder = Encoder::new(&columns, Some(&kinds));
        let row = |values: &[SqlValue]| -> Vec<SqlValue> { values.to_vec() };
        let good = row(&[SqlValue::Int(1), SqlValue::Bool(true)]);
        encoder.row(RowRef { shared: &[], own: &good }).unwrap();
        for bad in [row(&[SqlValue::Int(1 << 40), SqlValue::Null]), row(&[SqlValue::Null])] {
            let failure = encoder.row(RowRef { shared: &[], own: &bad }).unwrap_err();
            assert!(matches!(failure, Failure::Row { index: 1 | 2, .. }), "{failure:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_encoded_or_refused(text in ".{0,40}") {
            let value = SqlValue::Text(text.clone());
            for kind in [16, 21, 23, 20, 700, 701, 1700, 1114, 1082, 1083, 2950, 25, 3802, 869] {
                let mut out = Vec::new();
                if binary(&value, Encoding::of(kind).unwrap(), &mut out).is_some() {
                    let length = i32::from_be_bytes(out[..4].try_into().unwrap());
                    proptest::prop_assert_eq!(usize::try_from(length).unwrap(), out.len() - 4);
                }
            }
        }

        #[test]
        fn decimals_of_any_form_keep_their_digits(whole in "[0-9]{0,12}", fraction in "[0-9]{1,12}", exponent in -20_i32..20) {
            let text = format!("{whole}.{fraction}e{exponent}");
            let numbers = groups(&text);
            let weight = i32::from(numbers[1]);
            let value: f64 = numbers[4..]
                .iter()
                .enumerate()
                .map(|(at, group)| f64::from(*group) * 10_000_f64.powi(weight - i32::try_from(at).unwrap()))
                .sum();
            let expected: f64 = text.parse().unwrap();
            proptest::prop_assert!((value - expected).abs() <= expected.abs() * 1e-12, "{value} {expected}");
        }
    }
}
