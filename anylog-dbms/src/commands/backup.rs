//! Rows of tables and partitions as files of JSON lines.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anylog_core::command::CommandResult;
use anylog_core::{Command, CommandError, Declaration, Invocation, OptionKind, Status, Table};
use serde_json::Value;

use super::tables::known_schema;
use super::{blocking, database_option, shaped, table_option};
use crate::partition::in_time_order;
use crate::schema::ddl::quoted;
use crate::{Catalog, ColumnType, Database, DbmsError, SqlValue, TableSchema, Target};

pub(super) fn commands(catalog: &Arc<Catalog>) -> Vec<Arc<dyn Command>> {
    let of_table = |words, summary| {
        Declaration::new(words, summary).required("dbms", OptionKind::Text, "the logical database").required(
            "table",
            OptionKind::Text,
            "the table",
        )
    };
    let to = |declaration: Declaration| {
        declaration
            .option("dest", OptionKind::Directory, "the directory of the files")
            .default_is("!bkup_dir")
            .format_option()
            .returns("a row per file: its name and how many rows it has")
    };
    vec![
        blocking(
            catalog,
            to(of_table("backup table", "Writes the rows of a table and all its partitions into files of JSON lines."))
                .example("backup table where dbms=test and table=rand_data and dest=!bkup_dir"),
            table,
        ),
        blocking(
            catalog,
            to(of_table("backup partition", "Writes the rows of partitions into files of JSON lines.").option(
                "partition",
                OptionKind::Text,
                "the name of one partition, first, last or all",
            ))
            .default_is("all")
            .example("backup partition where dbms=test and table=rand_data and partition=first and dest=!bkup_dir"),
            partition,
        ),
    ]
}

fn table(catalog: &Arc<Catalog>, call: &Invocation) -> CommandResult {
    let database = database_option(catalog, call)?;
    let table = table_option(call)?;
    let schema = known_schema(&database, &table)?;
    let partitions = partitions(&database, &table)?;
    let own = Target::table(&table);
    let mut targets = partitions;
    // The table itself is usually empty beside its partitions.
    if targets.is_empty() || database.dbms().count(&own)? > 0 {
        targets.insert(0, own);
    }
    write(catalog, call, &database, &schema, &targets)
}

fn partition(catalog: &Arc<Catalog>, call: &Invocation) -> CommandResult {
    let database = database_option(catalog, call)?;
    let table = table_option(call)?;
    let schema = known_schema(&database, &table)?;
    let mut targets = partitions(&database, &table)?;
    let which = call.options.text("partition").unwrap_or_else(|| "all".to_owned());
    match which.as_str() {
        "all" => {}
        "first" => targets.truncate(1),
        "last" => targets = targets.pop().into_iter().collect(),
        name => targets.retain(|target| target.physical() == name),
    }
    if targets.is_empty() {
        let dbms = database.name();
        return Err(CommandError::new(
            Status::NO_TABLE_METADATA,
            format!("No partition of '{dbms}.{table}' is '{which}'"),
        )
        .hint(format!("see: get partitions where dbms={dbms} and table={table}")));
    }
    write(catalog, call, &database, &schema, &targets)
}

/// The partitions in time order.
fn partitions(database: &Database, table: &str) -> Result<Vec<Target>, DbmsError> {
    let names = in_time_order(database.dbms().partitions(table)?);
    Ok(names.into_iter().map(|partition| Target::partition(table, partition)).collect())
}

fn write(
    catalog: &Catalog,
    call: &Invocation,
    database: &Database,
    schema: &TableSchema,
    targets: &[Target],
) -> CommandResult {
    let node = catalog.node();
    let directory = match call.options.text("dest") {
        Some(given) => PathBuf::from(given),
        None => node.directories.directory(&node.dictionary, "bkup_dir"),
    };
    let failed = |error: io::Error| {
        let status =
            if error.kind() == io::ErrorKind::StorageFull { Status::DISK_FULL } else { Status::PROCESS_FAILURE };
        CommandError::new(status, format!("Backup into '{}' failed: {error}", directory.display()))
    };
    fs::create_dir_all(&directory).map_err(failed)?;
    let mut shown = Table::new(["File", "Rows"]);
    for target in targets {
        match write_target(database, schema, target, &directory) {
            Ok((file, rows)) => shown.push([file.display().to_string(), rows.to_string()]),
            // It was dropped meanwhile.
            Err(Failure::Dbms(DbmsError::NoTable { .. })) if targets.len() > 1 => {}
            Err(Failure::Dbms(error)) => return Err(error.into()),
            Err(Failure::Io(error)) => return Err(failed(error)),
        }
    }
    Ok(shaped(catalog, call, shown))
}

enum Failure {
    Dbms(DbmsError),
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Io(error)
    }
}

/// `<dbms>.<table>[.<partition>].json`: a name under which the watch directory takes the rows again. The file is there whole or
/// not at all.
fn write_target(
    database: &Database,
    schema: &TableSchema,
    target: &Target,
    directory: &Path,
) -> Result<(PathBuf, u64), Failure> {
    let names = [Some(database.name()), Some(target.table.as_str()), target.partition.as_deref()];
    let name = names.into_iter().flatten().collect::<Vec<_>>().join(".");
    let (path, unfinished) = (directory.join(format!("{name}.json")), directory.join(format!("{name}.json.tmp")));
    let written = write_rows(database, schema, target, &unfinished);
    let rows = written.inspect_err(|_| {
        // What is half a backup is none.
        drop(fs::remove_file(&unfinished));
    })?;
    fs::rename(&unfinished, &path)?;
    File::open(directory)?.sync_all()?;
    Ok((path, rows))
}

fn write_rows(database: &Database, schema: &TableSchema, target: &Target, path: &Path) -> Result<u64, Failure> {
    // Numbers of rows are those of their partition only.
    let columns = || schema.columns.iter().filter(|column| column.kind != ColumnType::Serial);
    let kinds: Vec<ColumnType> = columns().map(|column| column.kind).collect();
    let list: Vec<String> = columns().map(|column| quoted(&column.name)).collect();
    let sql = format!("SELECT {} FROM {}", list.join(", "), quoted(target.physical()));
    let mut file = BufWriter::new(File::create(path)?);
    let (mut rows, mut result) = (0, Ok(()));
    let read = database.dbms().query(Some(target), &sql, &mut |names, row| {
        result = write_row(&mut file, names, &kinds, row);
        rows += 1;
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    result?;
    read.map_err(Failure::Dbms)?;
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok(rows)
}

fn write_row(out: &mut impl Write, names: &[String], kinds: &[ColumnType], row: Vec<SqlValue>) -> io::Result<()> {
    let mut before = "{";
    for ((name, kind), value) in names.iter().zip(kinds).zip(row) {
        out.write_all(before.as_bytes())?;
        serde_json::to_writer(&mut *out, name)?;
        out.write_all(b": ")?;
        serde_json::to_writer(&mut *out, &json(*kind, value))?;
        before = ", ";
    }
    out.write_all(b"}\n")
}

fn json(kind: ColumnType, value: SqlValue) -> Value {
    match value {
        SqlValue::Null => Value::Null,
        SqlValue::Bool(value) => Value::Bool(value),
        // SQLite has no truth values of its own.
        SqlValue::Int(value) if kind == ColumnType::Boolean => Value::Bool(value != 0),
        SqlValue::Int(value) => Value::from(value),
        SqlValue::Float(value) => Value::from(value),
        SqlValue::Text(text) => Value::String(text),
    }
}
