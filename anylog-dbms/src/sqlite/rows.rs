//! Rows whose table and columns are known at run time only.

use std::collections::HashMap;

use diesel::connection::{DefaultLoadingMode, LoadConnection};
use diesel::deserialize::FromSql;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::row::{Field, Row};
use diesel::sql_types::{BigInt, Binary, Double, Nullable, Text, Untyped};
use diesel::sqlite::{Sqlite, SqliteType};
use diesel::{QueryResult, RunQueryDsl, SqliteConnection};

use crate::dbms::Visit;
use crate::{RowRef, SqlValue};

/// How a NULL of a column is bound: as its values are, so that both use one prepared statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bind {
    Integer,
    Float,
    Text,
}

/// Bind kinds by column name.
pub(super) type Binds = HashMap<String, Bind>;

/// Rows of one statement. SQLite takes at most [`MAX_PARAMETERS`] values in one.
pub(super) struct Insert<'a> {
    /// `INSERT INTO "t"("a","b") VALUES `
    pub(super) prefix: &'a str,
    pub(super) binds: &'a [Bind],
    pub(super) rows: &'a [RowRef<'a>],
}

const MAX_PARAMETERS: usize = 32_000;

/// Rows per statement; few different numbers, so that few statements are prepared.
const ROWS: usize = 50;

/// Splits rows so that the number of rows per statement is [`ROWS`] or a power of two.
pub(super) fn chunks<'r, 'v>(rows: &'r [RowRef<'v>], columns: usize) -> impl Iterator<Item = &'r [RowRef<'v>]> {
    let most = (MAX_PARAMETERS / columns.max(1)).clamp(1, ROWS);
    let most = if most == ROWS { ROWS } else { 1 << most.ilog2() };
    let mut rest = rows;
    std::iter::from_fn(move || {
        let count = match rest.len() {
            0 => return None,
            left if left >= most => most,
            left => 1 << left.ilog2(),
        };
        let (chunk, left) = rest.split_at(count);
        rest = left;
        Some(chunk)
    })
}

impl QueryFragment<Sqlite> for Insert<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql(self.prefix);
        for (index, row) in self.rows.iter().enumerate() {
            out.push_sql(if index == 0 { "(" } else { ",(" });
            for (column, value) in row.values().enumerate() {
                if column > 0 {
                    out.push_sql(",");
                }
                bind(&mut out, value, self.binds.get(column).copied().unwrap_or(Bind::Text))?;
            }
            out.push_sql(")");
        }
        Ok(())
    }
}

fn bind<'b>(out: &mut AstPass<'_, 'b, Sqlite>, value: &'b SqlValue, kind: Bind) -> QueryResult<()> {
    match (value, kind) {
        (SqlValue::Null, Bind::Integer) => out.push_bind_param::<Nullable<BigInt>, Option<i64>>(&None),
        (SqlValue::Null, Bind::Float) => out.push_bind_param::<Nullable<Double>, Option<f64>>(&None),
        (SqlValue::Null, Bind::Text) => out.push_bind_param::<Nullable<Text>, Option<&'static str>>(&None),
        (SqlValue::Bool(true), _) => out.push_bind_param::<BigInt, i64>(&1),
        (SqlValue::Bool(false), _) => out.push_bind_param::<BigInt, i64>(&0),
        (SqlValue::Int(value), _) => out.push_bind_param::<BigInt, _>(value),
        (SqlValue::Float(value), _) => out.push_bind_param::<Double, _>(value),
        (SqlValue::Text(value), _) => out.push_bind_param::<Text, _>(value),
    }
}

impl QueryId for Insert<'_> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl RunQueryDsl<SqliteConnection> for Insert<'_> {}

/// Runs a SELECT and hands over its rows, until `visit` breaks.
pub(super) fn select(connection: &mut SqliteConnection, sql: &str, visit: Visit<'_>) -> QueryResult<()> {
    let rows = LoadConnection::<DefaultLoadingMode>::load(connection, diesel::sql_query(sql))?;
    let mut names: Vec<String> = Vec::new();
    for row in rows {
        let row = row?;
        let count = row.field_count();
        if names.len() != count {
            names = (0..count)
                .map(|at| row.get(at).and_then(|f| f.field_name().map(str::to_owned)).unwrap_or_default())
                .collect();
        }
        let values = values(&row)?;
        drop(row);
        if visit(&names, values).is_break() {
            break;
        }
    }
    Ok(())
}

fn values<'a>(row: &impl Row<'a, Sqlite>) -> QueryResult<Vec<SqlValue>> {
    (0..row.field_count())
        .map(|at| row.get(at).map_or(Ok(SqlValue::Null), |field| value(&field)))
        .collect::<diesel::deserialize::Result<Vec<SqlValue>>>()
        .map_err(diesel::result::Error::DeserializationError)
}

fn value<'a>(field: &impl Field<'a, Sqlite>) -> diesel::deserialize::Result<SqlValue> {
    let Some(value) = field.value() else { return Ok(SqlValue::Null) };
    match value.value_type() {
        None => Ok(SqlValue::Null),
        Some(SqliteType::Text) => <String as FromSql<Text, Sqlite>>::from_sql(value).map(SqlValue::Text),
        Some(SqliteType::Double | SqliteType::Float) => {
            <f64 as FromSql<Double, Sqlite>>::from_sql(value).map(SqlValue::Float)
        }
        Some(SqliteType::Binary) => {
            let bytes = <Vec<u8> as FromSql<Binary, Sqlite>>::from_sql(value)?;
            Ok(SqlValue::Text(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
        }
        Some(_) => <i64 as FromSql<BigInt, Sqlite>>::from_sql(value).map(SqlValue::Int),
    }
}

/// A statement with a `?` for each parameter, prepared once for its text.
pub(super) struct Statement<'a> {
    pub(super) sql: &'a str,
    pub(super) params: &'a [SqlValue],
}

impl QueryFragment<Sqlite> for Statement<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        for (index, part) in self.sql.split('?').enumerate() {
            if index > 0 {
                bind(&mut out, self.params.get(index - 1).unwrap_or(&SqlValue::Null), Bind::Text)?;
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

impl RunQueryDsl<SqliteConnection> for Statement<'_> {}

/// Runs a statement and collects the rows that it returns.
pub(super) fn collect(connection: &mut SqliteConnection, statement: Statement<'_>) -> QueryResult<Vec<Vec<SqlValue>>> {
    let mut rows = Vec::new();
    for row in LoadConnection::<DefaultLoadingMode>::load(connection, statement)? {
        rows.push(values(&row?)?);
    }
    Ok(rows)
}
