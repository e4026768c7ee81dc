//! Creating, dropping and describing tables.

use std::collections::BTreeSet;
use std::sync::Arc;

use anylog_core::command::CommandResult;
use anylog_core::{Command, CommandError, Declaration, Invocation, OptionKind, Reply, Status, Table};
use serde_json::json;

use super::{blocking, database_option, logical, shaped, stored_table, table_option};
use crate::partition::{in_time_order, range};
use crate::schema::parse_create;
use crate::{Catalog, Database, DbmsError, TableSchema, Target, tsd};

pub(super) fn commands(catalog: &Arc<Catalog>) -> Vec<Arc<dyn Command>> {
    let of_dbms = |declaration: Declaration| declaration.required("dbms", OptionKind::Text, "the logical database");
    vec![
        blocking(
            catalog,
            of_dbms(
                Declaration::new("create table", "Creates a system table, or a table as its policy describes it.")
                    .word("table", "the table: tsd_info, ledger, or one with a table policy"),
            )
            .returns("nothing; a table that is there already stays")
            .example("create table tsd_info where dbms=almgm"),
            create,
        ),
        blocking(
            catalog,
            of_dbms(
                Declaration::new("drop table", "Drops a table with all its partitions; its policy stays.")
                    .word("table", "the table"),
            )
            .returns("nothing")
            .example("drop table rand_data where dbms=test"),
            drop_table,
        ),
        blocking(
            catalog,
            of_dbms(Declaration::new("get tables", "Lists the tables of a database, here and in the ledger."))
                .option("table", OptionKind::Text, "only this table")
                .format_option()
                .reads()
                .returns("a row per table: whether it is in the local database, whether the ledger has its policy")
                .example("get tables where dbms=*"),
            list,
        ),
        blocking(
            catalog,
            of_dbms(Declaration::new("get columns", "Shows the columns of a table."))
                .required("table", OptionKind::Text, "the table")
                .format_option()
                .reads()
                .returns("a row per column: name and type")
                .example("get columns where dbms=test and table=rand_data"),
            columns,
        ),
        blocking(
            catalog,
            Declaration::new("get rows count", "Counts the rows of tables and partitions.")
                .option("dbms", OptionKind::Text, "only this logical database")
                .option("table", OptionKind::Text, "only this table")
                .option("group", OptionKind::Choice(&["table", "partition"]), "a row per table or per partition")
                .default_is("partition")
                .option("estimate", OptionKind::Bool, "an estimate is enough; the count is exact in any case")
                .format_option()
                .reads()
                .returns("a row per table or partition: how many rows it has")
                .example("get rows count where dbms=test and group=table"),
            rows_count,
        ),
        blocking(
            catalog,
            Declaration::new("info table", "Tells one thing about a table.")
                .word("dbms", "the logical database")
                .word("table", "the table")
                .word("what", "exists, columns or partitions")
                .optional_word("which", "of partitions: first, last, count or dates")
                .reads()
                .returns("true or false, the columns, or the partitions")
                .example("info table almgm tsd_info exists"),
            info,
        ),
    ]
}

fn create(catalog: &Arc<Catalog>, call: &Invocation) -> CommandResult {
    let database = database_option(catalog, call)?;
    let table = stored_table(&call.expect_positional("table")?);
    if table == tsd::OWN_TABLE {
        let store = database.tsd().ok_or_else(|| {
            CommandError::new(Status::TSD, format!("database '{}' cannot hold tsd_info", database.name()))
        })?;
        store.create()?;
        return Ok(Reply::Empty);
    }
    if let Some(create) = catalog.system_table(&table) {
        create(&database)?;
        return Ok(Reply::Empty);
    }
    let text = catalog.table_source().and_then(|source| source.create_text(database.name(), &table));
    let text = text.ok_or_else(|| {
        let message = format!("No table policy describes '{}.{table}'", database.name());
        CommandError::new(Status::NO_TABLE_METADATA, message)
            .hint("a running operator creates tables with the first data that arrives")
    })?;
    let schema = TableSchema { name: table, ..parse_create(&text)? };
    database.dbms().create_table(&schema)?;
    Ok(Reply::Empty)
}

fn drop_table(catalog: &Arc<Catalog>, call: &Invocation) -> CommandResult {
    let database = database_option(catalog, call)?;
    let table = stored_table(&call.expect_positional("table")?);
    known_schema(&database, &table)?;
    catalog.drop_table(&database, &table)?;
    Ok(Reply::Empty)
}

/// The schema of a table that must be there.
pub(super) fn known_schema(database: &Database, table: &str) -> Result<TableSchema, CommandError> {
    let schema = database.dbms().schema(table)?;
    schema.ok_or_else(|| DbmsError::NoTable { dbms: database.name().to_owned(), table: table.to_owned() }.into())
}

/// The databases that the option `dbms` names: one, or all when it is `*` or absent.
fn chosen(catalog: &Catalog, call: &Invocation) -> Result<Vec<Arc<Database>>, CommandError> {
    match call.options.text("dbms").as_deref() {
        None | Some("*") => Ok(catalog.list()),
        Some(name) => Ok(vec![catalog.get(&logical(name))?]),
    }
}

fn list(catalog: &Arc<Catalog>, call: &Invocation) -> CommandResult {
    let name = call.options.expect_text("dbms")?;
    let only = call.options.text("table").filter(|table| table != "*").map(|table| stored_table(&table));
    let mut all = serde_json::Map::new();
    let mut table = Table::new(["Database", "Table name", "Local DBMS", "Blockchain"]);
    // A database that only the ledger knows is shown too.
    let names: Vec<String> = if name == "*" {
        catalog.list().iter().map(|database| database.name().to_owned()).collect()
    } else {
        vec![logical(&name)]
    };
    for dbms in names {
        let in_ledger: BTreeSet<String> =
            catalog.table_source().map(|source| source.tables(&dbms).into_iter().collect()).unwrap_or_default();
        let local = match catalog.get(&dbms) {
            Ok(database) => local_tables(&database, only.as_deref())?,
            Err(error) if in_ledger.is_empty() => return Err(error.into()),
            Err(_) => BTreeSet::new(),
        };
        let mut shown = dbms.clone();
        let mut object = serde_json::Map::new();
        for name in local.union(&in_ledger).filter(|name| is_chosen(name, only.as_deref())) {
            let (here, there) = (local.contains(name), in_ledger.contains(name));
            let mark = |is: bool| if is { " V" } else { " -" };
            table.push([std::mem::take(&mut shown).as_str(), name, mark(here), mark(there)]);
            object.insert(name.clone(), json!({"local": here, "blockchain": there}));
        }
        if !object.is_empty() {
            all.insert(dbms, serde_json::Value::Object(object));
        }
    }
    if call.options.wants_json() {
        return Ok(Reply::Json(serde_json::Value::Object(all)));
    }
    Ok(Reply::Table(table.max_width(catalog.node().output_width())))
}

/// Whether a name is the table that was asked for, or a partition of it.
fn is_chosen(name: &str, only: Option<&str>) -> bool {
    only.is_none_or(|only| {
        name == only || crate::partition::PartitionName::parse(name).is_some_and(|p| p.table == only)
    })
}

/// The tables of a database and their partitions.
fn local_tables(database: &Database, only: Option<&str>) -> Result<BTreeSet<String>, CommandError> {
    let mut names = BTreeSet::new();
    for table in database.dbms().tables()? {
        if only.is_none_or(|only| only == table) {
            names.extend(database.dbms().partitions(&table)?);
            names.insert(table);
        }
    }
    Ok(names)
}

fn columns(catalog: &Arc<Catalog>, call: &Invocation) -> CommandResult {
    let database = database_option(catalog, call)?;
    columns_of(catalog, call, &database, &table_option(call)?)
}

fn columns_of(catalog: &Catalog, call: &Invocation, database: &Database, table: &str) -> CommandResult {
    let schema = known_schema(database, table)?;
    if call.options.wants_json() {
        let object = schema.columns.iter().map(|column| (column.name.clone(), json!(column.kind.shown())));
        return Ok(Reply::Json(serde_json::Value::Object(object.collect())));
    }
    let title = format!("Schema for DBMS: '{}' and Table: '{table}'", database.name());
    let mut shown = Table::new(["Column Name", "Column Type"]).title(title);
    for column in &schema.columns {
        shown.push([column.name.clone(), column.kind.shown()]);
    }
    Ok(Reply::Table(shown.max_width(catalog.node().output_width())))
}

fn rows_count(catalog: &Arc<Catalog>, call: &Invocation) -> CommandResult {
    let only = call.options.text("table").filter(|table| table != "*").map(|table| stored_table(&table));
    let by_table = call.options.text("group").is_some_and(|group| group == "table");
    let mut shown = Table::new(["DBMS Name", "Table Name", "Rows Count"]);
    for database in chosen(catalog, call)? {
        let mut name = database.name().to_owned();
        let mut push = |table: &str, count: u64| {
            // As text a name stands once; a program gets it in each row.
            let dbms = if call.options.wants_json() { name.clone() } else { std::mem::take(&mut name) };
            shown.push([dbms, table.to_owned(), count.to_string()]);
        };
        for table in database.dbms().tables()? {
            if only.as_deref().is_some_and(|only| only != table) {
                continue;
            }
            let own = database.dbms().count(&Target::table(&table))?;
            let partitions = counted_partitions(&database, &table)?;
            if by_table {
                push(&table, own + partitions.iter().map(|(_, count)| count).sum::<u64>());
                continue;
            }
            if partitions.is_empty() || own > 0 {
                push(&table, own);
            }
            for (partition, count) in partitions {
                push(&partition, count);
            }
        }
    }
    Ok(shaped(catalog, call, shown))
}

/// Partitions and how many rows they have. One that is dropped meanwhile is left out.
fn counted_partitions(database: &Database, table: &str) -> Result<Vec<(String, u64)>, CommandError> {
    let mut counted = Vec::new();
    for partition in database.dbms().partitions(table)? {
        match database.dbms().count(&Target::partition(table, &partition)) {
            Ok(count) => counted.push((partition, count)),
            Err(DbmsError::NoTable { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(counted)
}

fn info(catalog: &Arc<Catalog>, call: &Invocation) -> CommandResult {
    let database = catalog.get(&logical(&call.expect_positional("dbms")?))?;
    let table = stored_table(&call.expect_positional("table")?);
    let (what, which) = (call.expect_positional("what")?, call.positional("which"));
    match (what.as_str(), which) {
        ("exists", None) => Ok(Reply::Text(database.dbms().schema(&table)?.is_some().to_string())),
        ("columns", None) => columns_of(catalog, call, &database, &table),
        ("partitions", which) => {
            let names = in_time_order(database.dbms().partitions(&table)?);
            partitions_info(which, &names)
        }
        _ => Err(CommandError::structure(format!("'info table' does not tell '{what} {}'", which.unwrap_or_default()))
            .hint("use exists, columns, or partitions [first|last|count|dates]")),
    }
}

fn partitions_info(which: Option<&str>, names: &[String]) -> CommandResult {
    Ok(match which {
        None => Reply::Text(names.join("\r\n")),
        Some("first") => Reply::Text(names.first().cloned().unwrap_or_default()),
        Some("last") => Reply::Text(names.last().cloned().unwrap_or_default()),
        Some("count") => Reply::Text(names.len().to_string()),
        Some("dates") => {
            let dates = names.iter().filter_map(|name| range(name));
            let dates = dates.map(|(start, end)| super::partitions::shown_range(start, end));
            Reply::Text(dates.map(|(start, end)| format!("{start} {end}")).collect::<Vec<_>>().join("\r\n"))
        }
        Some(other) => {
            return Err(CommandError::structure(format!("'info table' does not tell 'partitions {other}'"))
                .hint("use partitions [first|last|count|dates]"));
        }
    })
}
