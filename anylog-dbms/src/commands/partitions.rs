//! Declaring and listing partitions.

mod drop;

use std::sync::Arc;

use anylog_core::command::CommandResult;
use anylog_core::{Command, CommandError, Declaration, Invocation, OptionKind, Reply, Table};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use serde_json::json;

use super::{blocking, database_option, logical, shaped, stored_table};
use crate::partition::{in_time_order, range};
use crate::{Catalog, ColumnType, Partitioning};

pub(super) fn commands(catalog: &Arc<Catalog>) -> Vec<Arc<dyn Command>> {
    let mut commands = vec![
        blocking(
            catalog,
            Declaration::new("partition", "Splits the rows of tables by time, from now on.")
                .word("dbms", "the logical database, or * for all")
                .word("table", "the table, or * for all tables of the database")
                .keyword("using")
                .word("column", "the timestamp column; insert_timestamp is always there")
                .keyword("by")
                .rest("interval", true, "a count and year, month, week, day or hour: 14 days")
                .returns("nothing; rows that are stored already stay where they are")
                .example("partition test * using insert_timestamp by 1 day"),
            declare,
        ),
        blocking(
            catalog,
            Declaration::new("get partitions", "Shows how tables are split, or the partitions of a table.")
                .option("dbms", OptionKind::Text, "the logical database")
                .option("table", OptionKind::Text, "the table, or * for all tables of the database")
                .format_option()
                .reads()
                .returns("the declarations; with a table its partitions and their first and last days")
                .example("get partitions where dbms=test and table=rand_data"),
            list,
        ),
        blocking(
            catalog,
            Declaration::new("get partitions info", "Shows the numbered partitions of tables.")
                .required("dbms", OptionKind::Text, "the logical database")
                .option("table", OptionKind::Text, "the table, or * for all tables of the database")
                .format_option()
                .reads()
                .returns("a row per partition: table, number, name, first and last day")
                .example("get partitions info where dbms=test and table=*"),
            info,
        ),
        blocking(
            catalog,
            Declaration::new("get partitions dropped", "Counts the partitions dropped since the start.")
                .format_option()
                .reads()
                .returns("a row per table: how many of its partitions were dropped")
                .example("get partitions dropped"),
            dropped,
        ),
    ];
    commands.extend(drop::commands(catalog));
    commands
}

fn declare(catalog: &Arc<Catalog>, call: &Invocation) -> CommandResult {
    let (dbms, table) = (call.expect_positional("dbms")?, stored_table(&call.expect_positional("table")?));
    let dbms = if dbms == "*" { dbms } else { logical(&dbms) };
    if dbms == "*" && table != "*" {
        return Err(CommandError::structure(format!("'partition * {table}' names a table without its database"))
            .hint("use partition <dbms> <table>, partition <dbms> * or partition * *"));
    }
    let (count, unit) = Partitioning::parse_interval(&call.expect_positional("interval")?)?;
    let column = anylog_core::names::normalize(&call.expect_positional("column")?);
    let partitioning = Partitioning::new(column, count, unit)?;
    check_column(catalog, &dbms, &table, &partitioning)?;
    catalog.declare_partitioning(&dbms, &table, partitioning);
    Ok(Reply::Empty)
}

/// A table that is there already must have the column, and times in it.
fn check_column(catalog: &Catalog, dbms: &str, table: &str, partitioning: &Partitioning) -> Result<(), CommandError> {
    let Ok(database) = catalog.get(dbms) else { return Ok(()) };
    if table == "*" {
        return Ok(());
    }
    let Some(schema) = database.dbms().schema(table)? else { return Ok(()) };
    let column = &partitioning.column;
    let message = match schema.column(column).map(|known| known.kind) {
        Some(ColumnType::Timestamp | ColumnType::Date) => return Ok(()),
        Some(kind) => format!("column '{column}' of table '{dbms}.{table}' holds {} and no times", kind.shown()),
        None => format!("table '{dbms}.{table}' has no column '{column}' to be split by"),
    };
    Err(CommandError::parameter(message).hint(format!("see: get columns where dbms={dbms} and table={table}")))
}

/// First and last day of a range, or hours when it is shorter than a day.
pub(super) fn shown_range(start: Timestamp, end: Timestamp) -> (String, String) {
    let last = end.checked_sub(Span::new().microseconds(1)).unwrap_or(end);
    let civil = |time| TimeZone::UTC.to_datetime(time);
    let (first, last_civil) = (civil(start), civil(last));
    if end.duration_since(start).as_hours() < 24 {
        let hour = |at: jiff::civil::DateTime| format!("{} {:02}:00", at.date(), at.hour());
        return (hour(first), hour(last_civil));
    }
    (first.date().to_string(), last_civil.date().to_string())
}

fn dates(partition: &str) -> (String, String) {
    range(partition).map(|(start, end)| shown_range(start, end)).unwrap_or_default()
}

fn list(catalog: &Arc<Catalog>, call: &Invocation) -> CommandResult {
    if !call.options.has("dbms") {
        return Ok(declarations(catalog, call));
    }
    let mut table = Table::new(["Partition Name", "Start Date", "End Date"]);
    for (_, partition) in partitions(catalog, call)? {
        let (start, end) = dates(&partition);
        table.push([partition, start, end]);
    }
    Ok(shaped(catalog, call, table))
}

/// The partitions of the tables that the call names, with their tables.
fn partitions(catalog: &Catalog, call: &Invocation) -> Result<Vec<(String, String)>, CommandError> {
    let database = database_option(catalog, call)?;
    let only = call.options.text("table").map_or_else(|| "*".to_owned(), |table| stored_table(&table));
    let tables = if only == "*" { database.dbms().tables()? } else { vec![only] };
    let mut found = Vec::new();
    for table in tables {
        let ordered = in_time_order(database.dbms().partitions(&table)?);
        found.extend(ordered.into_iter().map(|partition| (table.clone(), partition)));
    }
    Ok(found)
}

fn declarations(catalog: &Catalog, call: &Invocation) -> Reply {
    let declared = catalog.partitionings();
    let unit = |value: &Partitioning| format!("{}{}", value.unit.word(), if value.count == 1 { "" } else { "s" });
    if call.options.wants_json() {
        let object = declared.iter().map(|(dbms, table, value)| {
            let declaration = json!({"count": value.count, "unit": unit(value), "column": value.column});
            (format!("{dbms}.{table}"), declaration)
        });
        return Reply::Json(serde_json::Value::Object(object.collect()));
    }
    if declared.is_empty() {
        return Reply::Text("No partitions declared".into());
    }
    let line = |(dbms, table, value): &(String, String, Partitioning)| {
        format!("\r\n{dbms}.{table} : ({}, '{}', '{}')", value.count, unit(value), value.column)
    };
    Reply::Text(format!("{}\r\n", declared.iter().map(line).collect::<String>()))
}

fn info(catalog: &Arc<Catalog>, call: &Invocation) -> CommandResult {
    let dbms = call.options.expect_text("dbms")?;
    let headings = ["Table", "Counter", "Partition", "Start Date", "End Data"];
    let mut shown = Table::new(headings).title(format!("Partitions in DBMS: '{}'", logical(&dbms))).indent(4);
    let mut last = String::new();
    let mut counter = 0;
    for (table, partition) in partitions(catalog, call)? {
        counter = if table == last { counter + 1 } else { 1 };
        let (start, end) = dates(&partition);
        // As text a table's name stands once; a program gets it in each row.
        let name = if table == last && !call.options.wants_json() { String::new() } else { table.clone() };
        shown.push([name, counter.to_string(), partition, start, end]);
        last = table;
    }
    Ok(shaped(catalog, call, shown))
}

fn dropped(catalog: &Arc<Catalog>, call: &Invocation) -> CommandResult {
    let mut shown = Table::new(["DBMS", "Table", "Dropped"]);
    for (dbms, table, count) in catalog.dropped_partitions() {
        shown.push([dbms, table, count.to_string()]);
    }
    Ok(shaped(catalog, call, shown))
}
