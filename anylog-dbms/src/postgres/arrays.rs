//! Inserting many rows as one array per column: one prepared statement per table, whatever the number of rows.

use diesel::pg::Pg;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::sql_types::{Array, BigInt, Bool, Double, Nullable, Text};
use diesel::{PgConnection, QueryResult, RunQueryDsl};

use crate::schema::ddl::quoted;
use crate::{ColumnType, SqlValue};

/// The values of one column.
pub(super) enum ColumnArray {
    Integers(Vec<Option<i64>>),
    Floats(Vec<Option<f64>>),
    Booleans(Vec<Option<bool>>),
    Texts(Vec<Option<String>>),
}

/// The values of a column as an array; none when one of them cannot be of the column's type.
pub(super) fn column_array<'a>(kind: ColumnType, values: impl Iterator<Item = &'a SqlValue>) -> Option<ColumnArray> {
    match kind {
        ColumnType::Serial | ColumnType::Int | ColumnType::BigInt => {
            let integer = |value: &SqlValue| match value {
                SqlValue::Null => Some(None),
                SqlValue::Int(value) => Some(Some(*value)),
                SqlValue::Bool(value) => Some(Some(i64::from(*value))),
                _ => None,
            };
            values.map(integer).collect::<Option<_>>().map(ColumnArray::Integers)
        }
        ColumnType::Double => {
            let float = |value: &SqlValue| match value {
                SqlValue::Null => Some(None),
                SqlValue::Float(value) => Some(Some(*value)),
                SqlValue::Int(value) => value.to_string().parse().ok().map(Some),
                _ => None,
            };
            values.map(float).collect::<Option<_>>().map(ColumnArray::Floats)
        }
        ColumnType::Boolean => {
            let boolean = |value: &SqlValue| match value {
                SqlValue::Null => Some(None),
                SqlValue::Bool(value) => Some(Some(*value)),
                SqlValue::Int(value @ (0 | 1)) => Some(Some(*value == 1)),
                _ => None,
            };
            values.map(boolean).collect::<Option<_>>().map(ColumnArray::Booleans)
        }
        _ => {
            let text = |value: &SqlValue| match value {
                SqlValue::Null => None,
                SqlValue::Text(text) => Some(text.clone()),
                SqlValue::Int(value) => Some(value.to_string()),
                SqlValue::Float(value) => Some(format!("{value:?}")),
                SqlValue::Bool(value) => Some(value.to_string()),
            };
            Some(ColumnArray::Texts(values.map(text).collect()))
        }
    }
}

/// What an array is cast to so that it fits the column.
fn cast(kind: ColumnType) -> &'static str {
    match kind {
        ColumnType::Serial | ColumnType::BigInt => "::bigint[]",
        ColumnType::Int => "::int[]",
        ColumnType::Decimal => "::numeric[]",
        ColumnType::Double => "::double precision[]",
        ColumnType::Boolean => "::boolean[]",
        ColumnType::Timestamp => "::timestamp[]",
        ColumnType::Date => "::date[]",
        ColumnType::Time => "::time[]",
        ColumnType::Uuid => "::uuid[]",
        ColumnType::Cidr => "::inet[]",
        ColumnType::Varchar | ColumnType::Char(_) => "::text[]",
    }
}

/// `INSERT INTO t(a, b) SELECT * FROM unnest($1::.., $2::..)`
pub(super) struct Insert<'a> {
    pub(super) physical: &'a str,
    pub(super) columns: &'a [String],
    pub(super) kinds: &'a [ColumnType],
    pub(super) arrays: Vec<ColumnArray>,
}

impl QueryFragment<Pg> for Insert<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("INSERT INTO ");
        out.push_sql(&quoted(self.physical));
        for (index, column) in self.columns.iter().enumerate() {
            out.push_sql(if index == 0 { "(" } else { "," });
            out.push_sql(&quoted(column));
        }
        out.push_sql(") SELECT * FROM unnest(");
        for (index, (array, kind)) in self.arrays.iter().zip(self.kinds).enumerate() {
            if index > 0 {
                out.push_sql(",");
            }
            match array {
                ColumnArray::Integers(values) => out.push_bind_param::<Array<Nullable<BigInt>>, _>(values)?,
                ColumnArray::Floats(values) => out.push_bind_param::<Array<Nullable<Double>>, _>(values)?,
                ColumnArray::Booleans(values) => out.push_bind_param::<Array<Nullable<Bool>>, _>(values)?,
                ColumnArray::Texts(values) => out.push_bind_param::<Array<Nullable<Text>>, _>(values)?,
            }
            out.push_sql(cast(*kind));
        }
        out.push_sql(")");
        Ok(())
    }
}

impl QueryId for Insert<'_> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl RunQueryDsl<PgConnection> for Insert<'_> {}
