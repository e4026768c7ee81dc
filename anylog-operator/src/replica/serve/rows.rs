//! A file's content made of its rows in the tables: its archived file is gone.
//!
//! A row becomes the JSON text that makes the same values again: texts stay texts, also those of nested JSON; times are those in
//! the table, which are in UTC; of a truth value, a number or a null nothing is lost. What the node itself adds is left out: when a row
//! came is in the run list.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;

use anylog_dbms::schema::parse_time;
use anylog_dbms::{ColumnType, Database, Engine, SegmentId, SqlRef, TableSchema, Target, TsdFile};
use anylog_replica::FileKey;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::not_given;
use crate::OperatorError;
use crate::archive::LEVEL;
use crate::error::file_error;
use crate::replica::runs::{Lines, Runs};
use crate::replica::work::nameless;
use crate::store::{Settings, Shared};

/// Makes the content of a file: its run list, and its rows, compressed.
pub(super) fn make(
    shared: &Shared,
    settings: &Settings,
    file: FileKey,
    known: &TsdFile,
) -> Result<(Vec<u8>, File), OperatorError> {
    let database = shared.catalog.get(&known.dbms)?;
    let schema = database.dbms().schema(&known.table)?;
    let schema = schema.ok_or_else(|| not_given(file, "neither its archived file nor its table is here"))?;
    let select = Select::of(&schema, database.dbms().engine(), file);
    let packed = GzEncoder::new(BufWriter::new(nameless(settings)?), LEVEL);
    let mut writer = Writer { runs: Runs::new(SegmentId(0), Lines::Rows), packed, line: Vec::new(), failed: None };
    for target in targets(&database, &known.table)? {
        let visit = &mut |row: &[SqlRef<'_>]| writer.add(&select, row);
        match database.dbms().scan(Some(&target), &select.sql(&target), visit) {
            // It was dropped meanwhile.
            Err(anylog_dbms::DbmsError::NoTable { .. }) => {}
            result => result?,
        }
        if let Some(reason) = writer.failed.take() {
            return Err(not_given(file, reason));
        }
    }
    if writer.runs.rows() == 0 {
        return Err(not_given(file, "its archived file is gone, and no rows of it are in the tables"));
    }
    let path = &settings.prep_dir;
    let buffered = writer.packed.finish().map_err(file_error(path))?;
    let content = buffered.into_inner().map_err(|error| file_error(path)(error.into_error()))?;
    let runs = writer.runs.encode().ok_or_else(|| not_given(file, "its rows came at times that are none"))?;
    Ok((runs, content))
}

/// Where rows of a table may lie.
pub(in crate::replica) fn targets(database: &Database, table: &str) -> Result<Vec<Target>, OperatorError> {
    let partitions = database.dbms().partitions(table)?;
    let parts = partitions.into_iter().map(|partition| Target::partition(table, partition));
    Ok(std::iter::once(Target::table(table)).chain(parts).collect())
}

pub(in crate::replica) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The condition of the rows of a file.
pub(in crate::replica) fn condition(file: FileKey) -> String {
    format!("tsd_name = '{}' AND tsd_id = {}", file.producer, file.file)
}

/// How rows of a file are read.
struct Select {
    columns: String,
    condition: String,
    /// The key of each data column as JSON, with a colon, and its type.
    keys: Vec<(String, ColumnType)>,
}

impl Select {
    fn of(schema: &TableSchema, engine: Engine, file: FileKey) -> Self {
        let mut columns = vec!["insert_timestamp".to_owned()];
        let mut keys = Vec::new();
        for column in schema.data_columns() {
            let name = quoted(&column.name);
            // PostgreSQL would give these as floats.
            let exact = engine == Engine::Postgres && column.kind == ColumnType::Decimal;
            columns.push(if exact { format!("{name}::text") } else { name });
            let key = serde_json::Value::String(column.name.clone());
            keys.push((format!("{key}:"), column.kind));
        }
        Self { columns: columns.join(", "), condition: condition(file), keys }
    }

    fn sql(&self, target: &Target) -> String {
        let table = quoted(target.physical());
        format!("SELECT {} FROM {table} WHERE {} ORDER BY row_id", self.columns, self.condition)
    }
}

struct Writer {
    runs: Runs,
    packed: GzEncoder<BufWriter<File>>,
    line: Vec<u8>,
    failed: Option<String>,
}

impl Writer {
    fn add(&mut self, select: &Select, row: &[SqlRef<'_>]) -> ControlFlow<()> {
        let Some((received, values)) = row.split_first() else { return ControlFlow::Break(()) };
        let added =
            received_at(*received).ok_or_else(|| "a row has no time of arrival".to_owned()).and_then(|received| {
                self.line.clear();
                text(select, values, &mut self.line);
                self.runs.push(self.runs.rows() + 1, 1, received, "UTC");
                self.packed.write_all(&self.line).map_err(|error| error.to_string())
            });
        match added {
            Ok(()) => ControlFlow::Continue(()),
            Err(reason) => {
                self.failed = Some(reason);
                ControlFlow::Break(())
            }
        }
    }
}

fn received_at(value: SqlRef<'_>) -> Option<Timestamp> {
    match value {
        SqlRef::Text(text) => parse_time(std::str::from_utf8(text).ok()?, &TimeZone::UTC),
        _ => None,
    }
}

/// A row as JSON on one line.
fn text(select: &Select, values: &[SqlRef<'_>], line: &mut Vec<u8>) {
    line.push(b'{');
    for ((key, kind), value) in select.keys.iter().zip(values) {
        if line.len() > 1 {
            line.push(b',');
        }
        line.extend(key.as_bytes());
        let value = match (*value, kind) {
            (SqlRef::Null, _) => serde_json::Value::Null,
            (SqlRef::Int(value), ColumnType::Boolean) => (value != 0).into(),
            (SqlRef::Int(value), _) => value.into(),
            (SqlRef::Float(value), _) => value.into(),
            (SqlRef::Text(text), _) => String::from_utf8_lossy(text).into_owned().into(),
            (bytes @ SqlRef::Blob(_), _) => match bytes.to_value() {
                anylog_dbms::SqlValue::Text(text) => text.into(),
                _ => serde_json::Value::Null,
            },
        };
        line.extend(value.to_string().as_bytes());
    }
    line.extend(b"}\n");
}
