//! The registry of source files, shown and mended.

use std::sync::Arc;

use anylog_core::command::{CommandResult, Positional, PositionalKind};
use anylog_core::time::{file_date, stored};
use anylog_core::{Command, CommandError, Declaration, Invocation, OptionKind, Reply, Status, Table};
use serde_json::json;

use super::blocking;
use crate::Catalog;
use crate::tsd::{OWN_TABLE, TsdError, TsdFile, TsdFilter, TsdStore, TsdSummary};

/// Files shown unless another limit is given.
const LIMIT: i64 = 100;

pub(super) fn commands(catalog: &Arc<Catalog>) -> Vec<Arc<dyn Command>> {
    let filtered = |words, summary| {
        Declaration::new(words, summary)
            .option("table", OptionKind::Text, "a TSD table, or * for all")
            .default_is("tsd_info")
            .option("hash", OptionKind::Text, "only the file with this hash")
            .option("start_date", OptionKind::Date, "only files registered since")
            .option("end_date", OptionKind::Date, "only files registered until")
            .option("complete", OptionKind::Bool, "only files whose rows are all in their table")
            .default_is("false")
            .option("limit", OptionKind::Int, "at most so many files, the newest; 0 for all")
            .default_is("100")
            .format_option()
            .reads()
    };
    let time_file = |words, summary| Declaration::new(words, summary).returns("nothing");
    vec![
        blocking(
            catalog,
            Declaration::new(
                "get tsd list",
                "Lists the TSD tables: tsd_info for own files, tsd_<member> for those of peers.",
            )
            .reads()
            .returns("a table per line")
            .example("get tsd list"),
            list,
        ),
        blocking(
            catalog,
            filtered("get tsd details", "Shows registered source files, newest first.")
                .returns("a row per file")
                .example("get tsd details where table=* and start_date=-3d"),
            details,
        ),
        blocking(
            catalog,
            filtered("get tsd summary", "Sums up registered source files by table.")
                .returns("a row per database and table, and the totals")
                .example("get tsd summary where format=json"),
            summary,
        ),
        blocking(
            catalog,
            filtered(
                "get tsd errors",
                "Shows source files that something is wrong with: those with a status, as names of archived files, and those of \
                 other members that cannot be had.",
            )
                .returns(
                    "a name per line; a TSD table and a number with the reason for a file that is missing; as JSON a \
                     list of the same texts",
                )
                .example("get tsd errors where table=*"),
            errors,
        ),
        blocking(
            catalog,
            time_file("time file drop", "Drops a TSD table, or all of them.")
                .word("table", "the TSD table, or all")
                .example("time file drop tsd_209"),
            drop_table,
        ),
        blocking(
            catalog,
            time_file("time file delete", "Removes one file from the registry, so that it may come again.")
                .positional(Positional {
                    name: "id",
                    kind: PositionalKind::Word(OptionKind::Int),
                    required: true,
                    help: "the number of the file",
                })
                .keyword("from")
                .word("table", "the TSD table")
                .example("time file delete 12 from tsd_info"),
            delete,
        ),
    ]
}

fn store(catalog: &Catalog) -> Result<Arc<TsdStore>, CommandError> {
    catalog.tsd().ok_or_else(|| {
        CommandError::new(Status::TSD, "almgm.tsd_info is not available")
            .hint("connect dbms almgm where type=sqlite, then create table tsd_info where dbms=almgm")
    })
}

fn filter(call: &Invocation) -> Result<TsdFilter, CommandError> {
    let limit = call.options.int("limit").unwrap_or(LIMIT);
    let limit = u32::try_from(limit).map_err(|_| CommandError::parameter(format!("limit={limit} is out of range")))?;
    Ok(TsdFilter {
        hash: call.options.text("hash"),
        start: call.options.date("start_date"),
        end: call.options.date("end_date"),
        complete: call.options.bool("complete").unwrap_or(false),
        limit: Some(limit),
        ..TsdFilter::default()
    })
}

/// The TSD tables that the call asks for.
fn tables(store: &TsdStore, call: &Invocation) -> Result<Vec<String>, CommandError> {
    match call.options.text("table") {
        None => Ok(vec![OWN_TABLE.to_owned()]),
        Some(all) if all == "*" => Ok(store.tables()?),
        Some(table) => Ok(vec![table]),
    }
}

fn list(catalog: &Arc<Catalog>, _: &Invocation) -> CommandResult {
    Ok(Reply::Text(format!("\r\n{}\r\n", store(catalog)?.tables()?.join("\r\n"))))
}

fn title(catalog: &Catalog, table: &str) -> String {
    match catalog.member_id() {
        Some(member) if table == OWN_TABLE => format!("Info on TSD Table: {table} (tsd_{member})"),
        _ => format!("Info on TSD Table: {table}"),
    }
}

fn file_row(file: &TsdFile) -> [String; 10] {
    [
        file.file_id.to_string(),
        file.dbms.clone(),
        file.table.clone(),
        file.source.clone(),
        file.hash.clone(),
        file.instructions.clone(),
        stored(file.time),
        file.rows.to_string(),
        file.status1.clone(),
        file.status2.clone(),
    ]
}

fn details(catalog: &Arc<Catalog>, call: &Invocation) -> CommandResult {
    let (store, filter) = (store(catalog)?, filter(call)?);
    let headings = ["ID", "DBMS", "Table", "Source", "Hash", "Instructions", "Date", "Rows", "Status 1", "Status 2"];
    let mut text = String::new();
    let mut all = serde_json::Map::new();
    for name in tables(&store, call)? {
        let mut table = Table::new(headings).title(title(catalog, &name)).max_width(catalog.node().output_width());
        for file in store.list(&name, &filter)? {
            table.push(file_row(&file));
        }
        text.push_str(&format!("\r\n{table}\r\n"));
        all.insert(name, table.to_json());
    }
    Ok(if call.options.wants_json() { Reply::Json(serde_json::Value::Object(all)) } else { Reply::Text(text) })
}

fn summary_row(sum: &TsdSummary) -> [String; 11] {
    [
        sum.dbms.clone(),
        sum.table.clone(),
        stored(sum.start),
        sum.from_id.to_string(),
        stored(sum.end),
        sum.to_id.to_string(),
        sum.files.to_string(),
        sum.sources.to_string(),
        sum.status1.to_string(),
        sum.status2.to_string(),
        sum.rows.to_string(),
    ]
}

fn summary(catalog: &Arc<Catalog>, call: &Invocation) -> CommandResult {
    let (store, filter) = (store(catalog)?, filter(call)?);
    let headings = [
        "DBMS",
        "Table",
        "Start Date",
        "From ID",
        "End Date",
        "To ID",
        "Files Count",
        "Source Count",
        "Status 1",
        "Status 2",
        "Total Rows",
    ];
    let mut text = String::new();
    let mut totals: std::collections::BTreeMap<(String, String), (i64, i64)> = std::collections::BTreeMap::new();
    for name in tables(&store, call)? {
        let mut table = Table::new(headings).title(title(catalog, &name)).max_width(catalog.node().output_width());
        for sum in store.summary(&name, &filter)? {
            let total = totals.entry((sum.dbms.clone(), sum.table.clone())).or_default();
            *total = (total.0 + sum.files, total.1 + sum.rows);
            table.push(summary_row(&sum));
        }
        text.push_str(&format!("\r\n{table}\r\n"));
    }
    if call.options.wants_json() {
        let object = totals
            .iter()
            .map(|((dbms, table), (files, rows))| (format!("{dbms}.{table}"), json!({"files": files, "rows": rows})));
        return Ok(Reply::Json(serde_json::Value::Object(object.collect())));
    }
    let mut total = Table::new(["DBMS", "Table", "Files Count", "Total Rows"]).title("Total all TSD Tables");
    for ((dbms, table), (files, rows)) in totals {
        total.push([dbms, table, files.to_string(), rows.to_string()]);
    }
    Ok(Reply::Text(format!("{text}{total}")))
}

/// `dbms.table.source.hash.instructions.member.id.date.json`
fn archived_name(file: &TsdFile, member: &str) -> String {
    let TsdFile { file_id, dbms, table, source, hash, instructions, time, .. } = file;
    format!("{dbms}.{table}.{source}.{hash}.{instructions}.{member}.{file_id}.{}.json", file_date(*time))
}

fn errors(catalog: &Arc<Catalog>, call: &Invocation) -> CommandResult {
    let store = store(catalog)?;
    let filter = TsdFilter { errors: true, ..filter(call)? };
    let tables = tables(&store, call)?;
    let missing = missing(catalog, &tables, call);
    let mut names = Vec::new();
    for table in &tables {
        let own = catalog.member_id().map_or_else(|| "0".to_owned(), |member| member.to_string());
        let member = table.strip_prefix("tsd_").filter(|_| table != OWN_TABLE).map_or(own, str::to_owned);
        match store.list(table, &filter) {
            Ok(files) => names.extend(files.iter().map(|file| archived_name(file, &member))),
            // Nothing of this member came yet, which is what is wrong.
            Err(TsdError::NoTable { .. }) if !missing.is_empty() => {}
            Err(error) => return Err(error.into()),
        }
    }
    names.extend(missing);
    if call.options.wants_json() {
        return Ok(Reply::Json(json!(names)));
    }
    Ok(Reply::Text(names.join("\r\n")))
}

/// Files of other members that cannot be had, which no table knows yet.
fn missing(catalog: &Catalog, tables: &[String], call: &Invocation) -> Vec<String> {
    let all = call.options.text("table").is_some_and(|table| table == "*");
    // A file that is not registered has neither a hash nor a time.
    if ["hash", "start_date", "end_date"].iter().any(|option| call.options.has(option)) {
        return Vec::new();
    }
    let own = catalog.member_id();
    let table_of = |producer: i64| match own {
        Some(own) if producer.unsigned_abs() == own => OWN_TABLE.to_owned(),
        _ => format!("tsd_{producer}"),
    };
    let missing = catalog.missing_files().into_iter().map(|file| (table_of(file.producer), file));
    let asked = missing.filter(|(table, _)| all || tables.contains(table));
    asked.map(|(table, file)| format!("{table} {}: {}", file.file_id, file.reason)).collect()
}

fn drop_table(catalog: &Arc<Catalog>, call: &Invocation) -> CommandResult {
    let store = store(catalog)?;
    let table = call.expect_positional("table")?;
    let chosen = if table == "all" { store.tables()? } else { vec![table] };
    for table in chosen {
        store.drop_table(&table)?;
    }
    Ok(Reply::Empty)
}

fn delete(catalog: &Arc<Catalog>, call: &Invocation) -> CommandResult {
    let (id, table) = (call.expect_positional("id")?, call.expect_positional("table")?);
    let number = id.parse().map_err(|_| CommandError::parameter(format!("'{id}' is not the number of a file")))?;
    if store(catalog)?.delete(&table, number)? {
        return Ok(Reply::Empty);
    }
    Err(CommandError::new(Status::TSD, format!("no file {id} is registered in '{table}'")).hint("see: get tsd details"))
}
