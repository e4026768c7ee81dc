//! Rows whose columns are known at run time only, read from the server's binary form.

use std::net::{Ipv4Addr, Ipv6Addr};

use anylog_core::time::stored;
use diesel::connection::{DefaultLoadingMode, LoadConnection};
use diesel::data_types::PgNumeric;
use diesel::deserialize::FromSql;
use diesel::pg::{Pg, PgRowByRowLoadingMode, PgValue};
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::Error;
use diesel::row::{Field, Row};
use diesel::sql_types::{BigInt, Bool, Double, Nullable, Numeric, Text, Untyped};
use diesel::{PgConnection, QueryResult, RunQueryDsl};
use jiff::Timestamp;

use crate::SqlValue;
use crate::dbms::Visit;

/// Microseconds from 1970 to the server's epoch, 2000.
const EPOCH: i64 = 946_684_800_000_000;

/// A statement with a `?` for each parameter, prepared once for its text.
pub(super) struct Statement<'a> {
    pub(super) sql: &'a str,
    pub(super) params: &'a [SqlValue],
}

impl QueryFragment<Pg> for Statement<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        for (index, part) in self.sql.split('?').enumerate() {
            if index > 0 {
                match self.params.get(index - 1).unwrap_or(&SqlValue::Null) {
                    SqlValue::Null => out.push_bind_param::<Nullable<Text>, Option<&'static str>>(&None)?,
                    SqlValue::Bool(value) => out.push_bind_param::<Bool, _>(value)?,
                    SqlValue::Int(value) => out.push_bind_param::<BigInt, _>(value)?,
                    SqlValue::Float(value) => out.push_bind_param::<Double, _>(value)?,
                    SqlValue::Text(value) => out.push_bind_param::<Text, _>(value)?,
                }
            }
            out.push_sql(part);
        }
        Ok(())
    }
}

impl QueryId for Statement<'_> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for Statement<'_> {
    type SqlType = Untyped;
}

impl RunQueryDsl<PgConnection> for Statement<'_> {}

/// Runs a statement and collects the rows that it returns.
pub(super) fn collect(connection: &mut PgConnection, statement: Statement<'_>) -> QueryResult<Vec<Vec<SqlValue>>> {
    let mut rows = Vec::new();
    for row in LoadConnection::<DefaultLoadingMode>::load(connection, statement)? {
        rows.push(values(&row?)?);
    }
    Ok(rows)
}

/// Runs a SELECT and hands over its rows as they arrive, until `visit` breaks.
pub(super) fn select(connection: &mut PgConnection, sql: &str, visit: Visit<'_>) -> QueryResult<()> {
    let mut names: Vec<String> = Vec::new();
    for row in LoadConnection::<PgRowByRowLoadingMode>::load(connection, diesel::sql_query(sql))? {
        let row = row?;
        if names.is_empty() {
            let name = |at| row.get(at).and_then(|field| field.field_name().map(str::to_owned)).unwrap_or_default();
            names = (0..row.field_count()).map(name).collect();
        }
        let values = values(&row)?;
        drop(row);
        if visit(&names, values).is_break() {
            break;
        }
    }
    Ok(())
}

fn values<'a>(row: &impl Row<'a, Pg>) -> QueryResult<Vec<SqlValue>> {
    (0..row.field_count())
        .map(|at| match row.get(at) {
            Some(field) => field.value().map_or(Ok(SqlValue::Null), value),
            None => Ok(SqlValue::Null),
        })
        .collect::<diesel::deserialize::Result<Vec<SqlValue>>>()
        .map_err(Error::DeserializationError)
}

/// A value by the number of its type, as the server's catalogue `pg_type` fixes them.
fn value(value: PgValue<'_>) -> diesel::deserialize::Result<SqlValue> {
    let bytes = value.as_bytes();
    Ok(match value.get_oid().get() {
        16 => SqlValue::Bool(bytes.first().is_some_and(|byte| *byte != 0)),
        21 => SqlValue::Int(i64::from(i16::from_be_bytes(bytes.try_into()?))),
        23 => SqlValue::Int(i64::from(i32::from_be_bytes(bytes.try_into()?))),
        26 => SqlValue::Int(i64::from(u32::from_be_bytes(bytes.try_into()?))),
        20 => SqlValue::Int(i64::from_be_bytes(bytes.try_into()?)),
        700 => SqlValue::Float(f64::from(f32::from_be_bytes(bytes.try_into()?))),
        701 => SqlValue::Float(f64::from_be_bytes(bytes.try_into()?)),
        1700 => numeric(<PgNumeric as FromSql<Numeric, Pg>>::from_sql(value)?),
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

/// A whole number that fits as an integer, anything else as a float.
fn numeric(number: PgNumeric) -> SqlValue {
    let (sign, weight, scale, digits) = match number {
        PgNumeric::Positive { weight, scale, digits } => ("", weight, scale, digits),
        PgNumeric::Negative { weight, scale, digits } => ("-", weight, scale, digits),
        PgNumeric::NaN => return SqlValue::Null,
    };
    let group = |at: i32| usize::try_from(at).ok().and_then(|at| digits.get(at)).copied().unwrap_or(0);
    let mut text = sign.to_owned();
    for at in 0..=i32::from(weight).max(0) {
        // Groups of four digits before the point; a negative weight has none.
        text.push_str(&format!("{:04}", if weight < 0 { 0 } else { group(at) }));
    }
    let mut fraction = String::new();
    let mut at = i32::from(weight) + 1;
    if weight < 0 {
        at = 0;
        for _ in 0..(-i32::from(weight) - 1) {
            fraction.push_str("0000");
        }
    }
    while fraction.len() < usize::from(scale) {
        fraction.push_str(&format!("{:04}", group(at)));
        at += 1;
    }
    fraction.truncate(usize::from(scale));
    if scale == 0
        && let Ok(integer) = text.parse()
    {
        return SqlValue::Int(integer);
    }
    format!("{text}.{fraction}0").parse().map_or(SqlValue::Null, SqlValue::Float)
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

fn interval(bytes: &[u8]) -> diesel::deserialize::Result<String> {
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
fn network(bytes: &[u8]) -> diesel::deserialize::Result<String> {
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
