//! Values in the server's binary form: parameters, and the columns of rows whose types are known at run time only.

use std::error::Error;
use std::net::{Ipv4Addr, Ipv6Addr};

use anylog_core::time::stored;
use jiff::Timestamp;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use crate::SqlValue;

/// Microseconds from 1970 to the server's epoch, 2000.
pub(super) const EPOCH: i64 = 946_684_800_000_000;

type Problem = Box<dyn Error + Sync + Send>;

/// A statement with `$1`, `$2` for each `?`.
pub(super) fn numbered(sql: &str) -> String {
    let mut text = String::with_capacity(sql.len() + 8);
    for (index, part) in sql.split('?').enumerate() {
        if index > 0 {
            text.push_str(&format!("${index}"));
        }
        text.push_str(part);
    }
    text
}

/// A parameter.
#[derive(Debug)]
pub(super) struct Param<'a>(pub(super) &'a SqlValue);

impl Param<'_> {
    /// The type that the server is told.
    pub(super) fn kind(&self) -> Type {
        match self.0 {
            SqlValue::Null | SqlValue::Text(_) => Type::TEXT,
            SqlValue::Bool(_) => Type::BOOL,
            SqlValue::Int(_) => Type::INT8,
            SqlValue::Float(_) => Type::FLOAT8,
        }
    }
}

impl ToSql for Param<'_> {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Problem> {
        match self.0 {
            SqlValue::Null => Ok(IsNull::Yes),
            SqlValue::Bool(value) => value.to_sql(kind, out),
            SqlValue::Int(value) => value.to_sql(kind, out),
            SqlValue::Float(value) => value.to_sql(kind, out),
            SqlValue::Text(value) => value.to_sql(kind, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// A value of any type.
pub(super) struct Decoded(pub(super) SqlValue);

impl<'a> FromSql<'a> for Decoded {
    fn from_sql(kind: &Type, bytes: &'a [u8]) -> Result<Self, Problem> {
        value(kind.oid(), bytes).map(Self)
    }

    fn from_sql_null(_: &Type) -> Result<Self, Problem> {
        Ok(Self(SqlValue::Null))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// A value by the number of its type, as the server's catalogue `pg_type` fixes them.
fn value(kind: u32, bytes: &[u8]) -> Result<SqlValue, Problem> {
    Ok(match kind {
        16 => SqlValue::Bool(bytes.first().is_some_and(|byte| *byte != 0)),
        21 => SqlValue::Int(i64::from(i16::from_be_bytes(bytes.try_into()?))),
        23 => SqlValue::Int(i64::from(i32::from_be_bytes(bytes.try_into()?))),
        26 => SqlValue::Int(i64::from(u32::from_be_bytes(bytes.try_into()?))),
        20 => SqlValue::Int(i64::from_be_bytes(bytes.try_into()?)),
        700 => SqlValue::Float(f64::from(f32::from_be_bytes(bytes.try_into()?))),
        701 => SqlValue::Float(f64::from_be_bytes(bytes.try_into()?)),
        1700 => numeric(bytes)?,
        1114 | 1184 => SqlValue::Text(timestamp(i64::from_be_bytes(bytes.try_into()?))),
        1082 => SqlValue::Text(date(i32::from_be_bytes(bytes.try_into()?))),
        1083 => SqlValue::Text(clock(i64::from_be_bytes(bytes.try_into()?))),
        1186 => SqlValue::Text(interval(bytes)?),
        2950 => SqlValue::Text(uuid(bytes)),
        650 | 869 => SqlValue::Text(network(bytes)?),
        17 => SqlValue::Text(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
        // jsonb begins with a version.
        3802 => SqlValue::Text(String::from_utf8_lossy(bytes.get(1..).unwrap_or_default()).into_owned()),
        _ => SqlValue::Text(String::from_utf8_lossy(bytes).into_owned()),
    })
}

/// A whole number that fits as an integer, anything else as a float. Groups of four decimal digits: count, weight of the first,
/// sign, digits after the point, groups.
fn numeric(bytes: &[u8]) -> Result<SqlValue, Problem> {
    let short = |at: usize| -> Result<u16, Problem> {
        let bytes = bytes.get(2 * at..2 * at + 2).ok_or("a numeric value is cut off")?;
        Ok(u16::from_be_bytes(bytes.try_into()?))
    };
    let (count, weight) = (usize::from(short(0)?), i32::from(short(1)?.cast_signed()));
    let (sign, scale) = match short(2)? {
        0x0000 => ("", usize::from(short(3)?)),
        0x4000 => ("-", usize::from(short(3)?)),
        0xD000 => return Ok(SqlValue::Float(f64::INFINITY)),
        0xF000 => return Ok(SqlValue::Float(f64::NEG_INFINITY)),
        _ => return Ok(SqlValue::Null),
    };
    let group = |place: i32| -> Result<u16, Problem> {
        match usize::try_from(weight - place) {
            Ok(at) if at < count => short(4 + at),
            _ => Ok(0),
        }
    };
    let mut text = sign.to_owned();
    for place in (0..=weight.max(0)).rev() {
        text.push_str(&format!("{:04}", group(place)?));
    }
    let mut fraction = String::new();
    let mut place = -1;
    while fraction.len() < scale {
        fraction.push_str(&format!("{:04}", group(place)?));
        place -= 1;
    }
    fraction.truncate(scale);
    if scale == 0
        && let Ok(integer) = text.parse()
    {
        return Ok(SqlValue::Int(integer));
    }
    Ok(format!("{text}.{fraction}0").parse().map_or(SqlValue::Null, SqlValue::Float))
}
fn timestamp(microseconds: i64) -> String {
    match microseconds {
        i64::MAX => "infinity".to_owned(),
        i64::MIN => "-infinity".to_owned(),
        value => value
            .checked_add(EPOCH)
            .and_then(|value| Timestamp::from_microsecond(value).ok())
            .map_or_else(|| "out of range".to_owned(), stored),
    }
}

fn date(days: i32) -> String {
    let microseconds = i64::from(days).checked_mul(86_400_000_000);
    microseconds.map(timestamp).and_then(|text| text.get(..10).map(str::to_owned)).unwrap_or_default()
}

fn clock(microseconds: i64) -> String {
    let (seconds, micro) = (microseconds / 1_000_000, microseconds % 1_000_000);
    let whole = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if micro == 0 { whole } else { format!("{whole}.{micro:06}") }
}

fn interval(bytes: &[u8]) -> Result<String, Problem> {
    let micro = i64::from_be_bytes(bytes.get(..8).unwrap_or_default().try_into()?);
    let days = i32::from_be_bytes(bytes.get(8..12).unwrap_or_default().try_into()?);
    let months = i32::from_be_bytes(bytes.get(12..16).unwrap_or_default().try_into()?);
    let mut parts = Vec::new();
    for (count, unit) in [(months, "months"), (days, "days")] {
        if count != 0 {
            parts.push(format!("{count} {unit}"));
        }
    }
    let sign = if micro < 0 { "-" } else { "" };
    parts.push(format!("{sign}{}", clock(micro.saturating_abs())));
    Ok(parts.join(" "))
}

fn uuid(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// Family, bits, whether it is a cidr, length, address.
fn network(bytes: &[u8]) -> Result<String, Problem> {
    let bits = bytes.get(1).copied().unwrap_or_default();
    let cidr = bytes.get(2).copied().unwrap_or_default() != 0;
    let address = bytes.get(4..).unwrap_or_default();
    let (text, most) = if address.len() == 4 {
        (Ipv4Addr::from(<[u8; 4]>::try_from(address)?).to_string(), 32)
    } else {
        (Ipv6Addr::from(<[u8; 16]>::try_from(address)?).to_string(), 128)
    };
    Ok(if bits == most && !cidr { text } else { format!("{text}/{bits}") })
}
