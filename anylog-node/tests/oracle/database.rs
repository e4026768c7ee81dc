//! The oracle: one SQLite database that holds all rows once.

use rusqlite::Connection;
use rusqlite::functions::{Aggregate, Context, FunctionFlags};
use rusqlite::types::ValueRef;
use serde_json::{Value, json};

use super::rows::{self, Part, Table};

/// The rows that a statement gives, with the names of their columns.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rows {
    pub(crate) names: Vec<String>,
    pub(crate) rows: Vec<Vec<Value>>,
}

pub(crate) struct Oracle {
    connection: Connection,
}

impl Oracle {
    /// A database in `file`, without rows.
    pub(crate) fn new(file: &std::path::Path) -> Self {
        let connection = Connection::open(file).unwrap();
        connection.execute_batch("pragma journal_mode = off; pragma synchronous = off").unwrap();
        for table in Table::ALL {
            let columns: Vec<String> = table.columns().iter().map(|(name, kind)| format!("{name} {kind}")).collect();
            connection.execute_batch(&format!("create table {} ({})", table.name(), columns.join(", "))).unwrap();
        }
        let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
        for (name, sample, root) in [
            ("stddev", true, true),
            ("stddev_samp", true, true),
            ("stddev_pop", false, true),
            ("variance", true, false),
            ("var_samp", true, false),
            ("var_pop", false, false),
        ] {
            connection.create_aggregate_function(name, 1, flags, Spread { sample, root }).unwrap();
        }
        // As Python rounds and formats, whose casts the dialect has.
        connection
            .create_scalar_function("rounded", 2, flags, |context: &Context<'_>| {
                let digits = usize::try_from(context.get::<i64>(1)?).unwrap();
                let value: Option<f64> = context.get(0)?;
                Ok(value.map(|value| format!("{value:.digits$}").parse::<f64>().unwrap()))
            })
            .unwrap();
        connection
            .create_scalar_function("fixed", 2, flags, |context: &Context<'_>| {
                let digits = usize::try_from(context.get::<i64>(1)?).unwrap();
                Ok(context.get::<Option<f64>>(0)?.map(|value| format!("{value:.digits$}")))
            })
            .unwrap();
        connection
            .create_scalar_function("in_zone", 2, flags, |context: &Context<'_>| {
                let zone = jiff::tz::TimeZone::get(&context.get::<String>(1)?).unwrap();
                let shown = |text: String| {
                    let instant: jiff::Timestamp = (text.replace(' ', "T") + "Z").parse().unwrap();
                    zone.to_datetime(instant).strftime("%Y-%m-%d %H:%M:%S.%6f").to_string()
                };
                Ok(context.get::<Option<String>>(0)?.map(shown))
            })
            .unwrap();
        Self { connection }
    }

    pub(crate) fn insert(&mut self, part: &Part) {
        let transaction = self.connection.transaction().unwrap();
        let places = vec!["?"; part.table.columns().len()].join(", ");
        let mut insert = transaction.prepare(&format!("insert into {} values ({places})", part.table.name())).unwrap();
        for n in 0..part.rows {
            insert.execute(rusqlite::params_from_iter(rows::row(part, n).into_iter().map(parameter))).unwrap();
        }
        drop(insert);
        transaction.commit().unwrap();
    }

    /// The rows of a statement. Columns declared as BOOLEAN, and those named, are truth values.
    pub(crate) fn rows(&self, sql: &str, truths: &[&str]) -> Rows {
        let mut statement = self.connection.prepare(sql).unwrap_or_else(|error| panic!("{error} in {sql}"));
        let names: Vec<String> = statement.column_names().into_iter().map(str::to_owned).collect();
        let columns = statement.columns();
        let truth: Vec<bool> = columns
            .iter()
            .map(|column| column.decl_type() == Some("BOOLEAN") || truths.contains(&column.name()))
            .collect();
        drop(columns);
        let mut found = statement.query([]).unwrap();
        let mut rows = Vec::new();
        while let Some(row) = found.next().unwrap_or_else(|error| panic!("{error} in {sql}")) {
            let value = |index: usize| match row.get_ref(index).unwrap() {
                ValueRef::Null => Value::Null,
                ValueRef::Integer(value) if truth[index] => json!(value != 0),
                ValueRef::Integer(value) => json!(value),
                ValueRef::Real(value) => json!(value),
                ValueRef::Text(text) => json!(std::str::from_utf8(text).unwrap()),
                ValueRef::Blob(_) => panic!("a blob in {sql}"),
            };
            rows.push((0..names.len()).map(value).collect());
        }
        Rows { names, rows }
    }
}

fn parameter(value: Value) -> rusqlite::types::Value {
    use rusqlite::types::Value as Sql;
    match value {
        Value::Null => Sql::Null,
        Value::Bool(value) => Sql::Integer(i64::from(value)),
        Value::Number(number) => number.as_i64().map_or_else(|| Sql::Real(number.as_f64().unwrap()), Sql::Integer),
        Value::String(text) => Sql::Text(text),
        other => panic!("{other} is no value of a row"),
    }
}

/// Variance and standard deviation by their definition, over all values at once.
struct Spread {
    sample: bool,
    root: bool,
}

impl Aggregate<Vec<f64>, Option<f64>> for Spread {
    fn init(&self, _: &mut Context<'_>) -> rusqlite::Result<Vec<f64>> {
        Ok(Vec::new())
    }

    fn step(&self, context: &mut Context<'_>, values: &mut Vec<f64>) -> rusqlite::Result<()> {
        values.extend(context.get::<Option<f64>>(0)?);
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, values: Option<Vec<f64>>) -> rusqlite::Result<Option<f64>> {
        let values = values.unwrap_or_default();
        #[expect(clippy::cast_precision_loss, reason = "a number of rows")]
        let count = values.len() as f64;
        let of = count - if self.sample { 1.0 } else { 0.0 };
        if of <= 0.0 {
            return Ok(None);
        }
        let mean = values.iter().sum::<f64>() / count;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / of;
        Ok(Some(if self.root { variance.sqrt() } else { variance }))
    }
}
