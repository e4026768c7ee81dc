//! Commands that look.

use std::collections::BTreeMap;
use std::time::Duration;

use anylog_core::time::clock_text;
use anylog_core::{CommandError, CommandResult, Invocation, Reply, Session, Table};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::act::seconds;
use super::{day, thousands};
use crate::archive;
use crate::service::OperatorService;
use crate::stats::{ErrorStats, TableStats};
use crate::tables::blocking;

type Tables = BTreeMap<(String, String), TableStats>;

pub(super) fn since(now: Timestamp, time: Option<Timestamp>) -> String {
    clock_text(time.map_or(Duration::ZERO, |time| now.duration_since(time).unsigned_abs()))
}

/// A database's name is shown in its first row only.
fn rows(tables: &Tables) -> impl Iterator<Item = (&str, &str, &TableStats)> {
    let mut last = "";
    tables.iter().map(move |((dbms, table), stats)| {
        let shown = if last == dbms { "" } else { dbms.as_str() };
        last = dbms;
        (shown, table.as_str(), stats)
    })
}

fn by_database(tables: &Tables, values: impl Fn(&TableStats) -> Value) -> Value {
    let mut all = Map::new();
    for ((dbms, table), stats) in tables {
        let entry = all.entry(dbms.clone()).or_insert_with(|| Value::Object(Map::new()));
        if let Some(entry) = entry.as_object_mut() {
            entry.insert(table.clone(), values(stats));
        }
    }
    Value::Object(all)
}

pub(super) async fn operator(service: &OperatorService, session: &mut Session, call: Invocation) -> CommandResult {
    let topic = call.positional("topic").map(str::to_lowercase);
    let now = session.node.clock.now();
    let all: &[&str] = &["json", "sql", "inserts", "error"];
    let topics: &[&str] = match topic.as_deref() {
        None => all,
        Some("json") => &["json"],
        Some("sql") => &["sql"],
        Some("inserts") => &["inserts"],
        Some("error" | "errors") => &["error"],
        Some("summary") => &["summary"],
        Some("config") => &["config"],
        Some(other) => {
            return Err(CommandError::structure(format!("get operator has no topic '{other}'"))
                .hint("topics: json, sql, inserts, error, summary, config"));
        }
    };
    let parts: Vec<(Table, Value)> = topics.iter().map(|topic| section(service, session, topic, now)).collect();
    if call.options.wants_json() {
        let mut values: Vec<Value> = parts.into_iter().map(|(_, value)| value).collect();
        return Ok(Reply::Json(if topic.is_some() { values.remove(0) } else { Value::Array(values) }));
    }
    let width = session.node.output_width();
    let texts: Vec<String> = parts.into_iter().map(|(table, _)| table.max_width(width).to_string()).collect();
    Ok(Reply::Text(texts.join("\r\n")))
}

pub(super) async fn stats(service: &OperatorService, session: &mut Session, call: Invocation) -> CommandResult {
    let now = session.node.clock.now();
    let topic = call.options.text("topic").unwrap_or_else(|| "summary".to_owned());
    let (table, mut value) = section(service, session, &topic, now);
    if !call.options.wants_json() {
        return Ok(Reply::Text(table.max_width(session.node.output_width()).to_string()));
    }
    if topic == "summary"
        && let Some(object) = value.as_object_mut()
    {
        *object = std::mem::take(object).into_iter().map(|(name, value)| (name.to_lowercase(), value)).collect();
        object.insert("timestamp".into(), anylog_core::time::stored(now).into());
    }
    Ok(Reply::Json(value))
}

pub(super) async fn reset_stats(service: &OperatorService, _: &mut Session, _: Invocation) -> CommandResult {
    service.stats().reset();
    service.with_quarantine(crate::quarantine::Quarantine::reset_counts);
    Ok(Reply::Empty)
}

fn section(service: &OperatorService, session: &Session, topic: &str, now: Timestamp) -> (Table, Value) {
    let tables = service.stats().tables();
    match topic {
        "json" => files("Stats: OPERATOR JSON", &tables, now),
        // No SQL files are made: rows go to the database directly.
        "sql" => files("Stats: OPERATOR SQL", &Tables::new(), now),
        "inserts" => inserts(&tables, now),
        "error" => errors(service, now),
        "summary" => summary(service, session, &tables, now),
        _ => config(service, now),
    }
}

fn files(title: &str, tables: &Tables, now: Timestamp) -> (Table, Value) {
    let mut shown = Table::new(["DBMS", "Table", "Files", "Immediate", "Timestamp", "Elapsed_time"]).title(title);
    for (dbms, table, stats) in rows(tables) {
        shown.push([
            dbms.to_owned(),
            table.to_owned(),
            stats.files.to_string(),
            stats.immediate_files.to_string(),
            seconds(stats.last_file).to_string(),
            since(now, stats.last_file),
        ]);
    }
    let value = by_database(tables, |stats| {
        json!([stats.files, stats.immediate_files, seconds(stats.last_file), since(now, stats.last_file)])
    });
    (shown, value)
}

fn inserts(tables: &Tables, now: Timestamp) -> (Table, Value) {
    let headings =
        ["DBMS", "Table", "First insert", "Last insert", "Batch inserts", "Immediate inserts", "DBMS Seconds"];
    let mut shown = Table::new(headings).title("Stats: OPERATOR INSERTS");
    for (dbms, table, stats) in rows(tables) {
        shown.push([
            dbms.to_owned(),
            table.to_owned(),
            since(now, stats.first_insert),
            since(now, stats.last_insert),
            stats.batch_inserts.to_string(),
            stats.immediate_inserts.to_string(),
            format!("{:.3}", stats.database_time.as_secs_f64()),
        ]);
    }
    let value = by_database(tables, |stats| {
        json!([
            seconds(stats.first_insert),
            seconds(stats.last_insert),
            since(now, stats.first_insert),
            since(now, stats.last_insert),
            stats.batch_inserts,
            stats.immediate_inserts,
            stats.database_time.as_secs_f64(),
        ])
    });
    (shown, value)
}

fn errors(service: &OperatorService, now: Timestamp) -> (Table, Value) {
    let headings =
        ["Type", "Counter", "Timestamp", "Elapsed time", "Dbms name", "Table name", "Last error", "Last error text"];
    let mut shown = Table::new(headings).title("Stats: OPERATOR ERROR");
    let (json_errors, sql_errors) = service.stats().errors();
    let mut values = Vec::new();
    for (kind, error) in [("JSON Errors", json_errors), ("SQL Errors", sql_errors)] {
        let ErrorStats { count, time, dbms, table, status, text } = error;
        values.push(json!({
            "type": kind, "counter": count, "timestamp": seconds(time), "elapsed time": since(now, time),
            "dbms name": dbms, "table name": table, "last error": status, "last error text": text,
        }));
        shown.push([
            kind.to_owned(),
            count.to_string(),
            seconds(time).to_string(),
            since(now, time),
            dbms,
            table,
            status.to_string(),
            text,
        ]);
    }
    (shown, Value::Array(values))
}

fn summary(service: &OperatorService, session: &Session, tables: &Tables, now: Timestamp) -> (Table, Value) {
    let state = service.state();
    let started = state.as_ref().map(|state| state.started);
    let processing: Duration = tables.values().map(|stats| stats.database_time).sum();
    let last = tables.values().filter_map(|stats| stats.last_insert).max();
    let [(new_rows, new_errors), (total_rows, total_errors)] = service.stats().summary();
    let running = started.map_or(0.0, |started| now.duration_since(started).as_secs_f64());
    let rate =
        if running > 0.0 { u32::try_from(total_rows).map_or(f64::from(u32::MAX), f64::from) / running } else { 0.0 };
    let cells = [
        ("Node name", format!("{}@{}", session.node.name(), session.node.address())),
        ("Status", status(state.is_some())),
        ("Operational time", since(now, started)),
        ("Processing time", clock_text(processing)),
        ("Elapsed time", since(now, last)),
        ("New rows", new_rows.to_string()),
        ("Total rows", total_rows.to_string()),
        ("New errors", new_errors.to_string()),
        ("Total errors", total_errors.to_string()),
        ("Avg. rows/sec", format!("{rate:.2}")),
    ];
    one_row("Stats: OPERATOR SUMMARY", &cells)
}

fn config(service: &OperatorService, now: Timestamp) -> (Table, Value) {
    let state = service.state();
    let started = state.as_ref().map(|state| state.started);
    let own = state.as_ref().and_then(|state| state.own.clone());
    let cells = [
        ("Status", status(state.is_some())),
        ("Operational time", since(now, started)),
        ("Timestamp", thousands(u64::try_from(seconds(started)).unwrap_or(0))),
        ("Member", own.as_ref().map_or_else(|| "0".to_owned(), |own| own.member.to_string())),
        ("Policy", own.as_ref().map_or_else(String::new, |own| own.id.clone())),
        ("Cluster", own.as_ref().map_or_else(String::new, |own| own.cluster.clone())),
    ];
    one_row("Stats: OPERATOR CONFIG", &cells)
}

fn status(running: bool) -> String {
    if running { "Active" } else { "Not running" }.to_owned()
}

fn one_row(title: &str, cells: &[(&str, String)]) -> (Table, Value) {
    let mut shown = Table::new(cells.iter().map(|(heading, _)| *heading)).title(title);
    shown.push(cells.iter().map(|(_, cell)| cell.clone()));
    let value: Map<String, Value> =
        cells.iter().map(|(heading, cell)| ((*heading).to_owned(), Value::from(cell.as_str()))).collect();
    (shown, Value::Object(value))
}

pub(super) async fn archived(service: &OperatorService, _: &mut Session, call: Invocation) -> CommandResult {
    let day = day(&call.expect_positional("day")?)?;
    let directory = service.directory("archive_dir");
    let names = blocking(move || archive::list(&directory, day)).await?;
    if call.options.wants_json() {
        return Ok(Reply::Json(names.into()));
    }
    Ok(Reply::Text(names.join("\r\n")))
}
