//! What queries do and did: `query status`, `query explain`, times and the log.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anylog_core::time::clock_text;
use anylog_core::{
    Command, CommandError, CommandResult, Declaration, Invocation, OptionKind, Reply, Session, Table, command,
};

use crate::QueryService;
use crate::history::{LogMode, Record};

const NONE: &str = "Job instances do not contain queries info";

pub(super) fn commands(service: Arc<QueryService>) -> Vec<Arc<dyn Command>> {
    let which = |words, summary| {
        Declaration::new(words, summary)
            .reads()
            .optional_word("id", "number of a query, or all; the last one when absent")
    };
    let plain = Declaration::new;
    let service = Arc::new(service);
    let state = || Arc::clone(&service);
    vec![
        command(
            which("query status", "Shows what queries do or did.")
                .alias("job status")
                .returns("a table")
                .example("query status all"),
            state(),
            |service, _, call| Box::pin(async move { status(chosen(service, &call)?) }),
        ),
        command(
            plain("job active", "Shows what the queries do that have not ended.")
                .reads()
                .returns("a table; a sentence when there are none")
                .example("job active"),
            state(),
            |service, _, _| {
                Box::pin(async move {
                    let active: Vec<_> =
                        service.history().all().into_iter().filter(|record| record.is_active()).collect();
                    if active.is_empty() { Ok("No query is at work".into()) } else { status(active) }
                })
            },
        ),
        command(
            which("query explain", "Shows how queries are carried out.")
                .returns("a list for each query")
                .example("query explain"),
            state(),
            |service, session, call| Box::pin(async move { explain(service, session, &call) }),
        ),
        command(
            which("query destination", "Shows where queries are answered.")
                .returns("a table")
                .example("query destination all"),
            state(),
            |service, session, call| Box::pin(async move { destination(service, session, &call) }),
        ),
        command(
            plain("job stop", "Ends queries; the nodes that work on them stop.")
                .optional_word("id", "number of a query, or all; the last one when absent")
                .returns("an object that names what was stopped")
                .example("job stop 3"),
            state(),
            |service, _, call| Box::pin(async move { stop(service, &call) }),
        ),
        command(
            plain("get operator execution", "Shows what this node does and did for queries of other nodes.")
                .reads()
                .option("node", OptionKind::Text, "only queries of this node: ip:port or ip")
                .option("job", OptionKind::Text, "only the query of this number there")
                .returns("a table; times are in seconds")
                .example("get operator execution where node = 10.0.0.25:32148 and job = 3"),
            state(),
            |service, _, call| Box::pin(async move { Ok(execution(service, &call)) }),
        ),
        command(
            plain("get queries time", "Counts queries by their time.")
                .reads()
                .returns("a list")
                .example("get queries time"),
            state(),
            |service, _, _| Box::pin(async move { times(service) }),
        ),
        command(
            plain("reset query timer", "Counts the times of queries from now on.")
                .returns("nothing")
                .example("reset query timer"),
            state(),
            |service, _, _| {
                Box::pin(async move {
                    service.history().reset_times();
                    Ok(Reply::Empty)
                })
            },
        ),
        command(
            plain("set query log", "Keeps statements with their times.")
                .rest("mode", true, "on, off, or profile N seconds for those that took as long")
                .returns("nothing")
                .example("set query log profile 5 seconds"),
            state(),
            |service, _, call| Box::pin(async move { set_log(service, &call) }),
        ),
        command(
            plain("get query log", "Shows the statements that the log keeps.")
                .reads()
                .returns("a list")
                .example("get query log"),
            state(),
            |service, _, _| Box::pin(async move { log(service) }),
        ),
    ]
}

fn chosen(service: &QueryService, call: &Invocation) -> Result<Vec<Arc<Record>>, CommandError> {
    let records = service.history().all();
    let wanted = call.positional_value("id").map(ToString::to_string);
    match wanted.as_deref() {
        None => Ok(records.last().cloned().into_iter().collect()),
        Some("all") => Ok(records),
        Some(text) => {
            let id: u64 = text.parse().map_err(|_| {
                CommandError::parameter(format!("'{text}' is not the number of a query")).hint("use a number, or all")
            })?;
            Ok(records.into_iter().filter(|record| record.id == id).collect())
        }
    }
}

fn status(records: Vec<Arc<Record>>) -> CommandResult {
    if records.is_empty() {
        return Ok(NONE.into());
    }
    let mut table =
        Table::new(["Job", "ID", "Output", "Run Time", "Operator", "Par", "Status", "Blocks", "Rows", "Command"]);
    for record in records {
        let places = record.explained().places;
        table.push([
            format!("{:04}", record.id % 500),
            record.id.to_string(),
            record.output.clone(),
            clock_text(record.run_time()),
            "All".to_owned(),
            "---".to_owned(),
            record.status(),
            record.blocks().to_string(),
            record.rows().to_string(),
            record.sql.clone(),
        ]);
        let line = |time: Duration, node: String, places: String, status: String, blocks: u64, rows: u64| {
            let none = String::new;
            [
                none(),
                none(),
                none(),
                clock_text(time),
                node,
                places,
                status,
                blocks.to_string(),
                rows.to_string(),
                none(),
            ]
        };
        let nodes = record.nodes();
        // A query that failed before it asked anybody has no further lines.
        if nodes.is_empty() && !record.network {
            let (status, places) = (record.status(), places.to_string());
            table.push(line(record.run_time(), "local".to_owned(), places, status, record.blocks(), record.rows()));
        }
        for node in nodes {
            let (shown, time) = node.shown();
            let status = shown.ended.unwrap_or_else(|| "Processing".to_owned());
            table.push(line(time, shown.address, shown.places.to_string(), status, shown.blocks, shown.rows));
        }
    }
    Ok(table.into())
}

fn stop(service: &Arc<QueryService>, call: &Invocation) -> CommandResult {
    let records = chosen(service, call)?;
    let stopped = records.iter().filter(|record| record.ask_to_stop());
    let lines: Vec<String> = stopped.map(|record| format!("{{\"job {} status\":\"stoped\"}}", record.id)).collect();
    Ok(if lines.is_empty() { "No query is at work".into() } else { Reply::Text(lines.join("\n")) })
}

fn execution(service: &Arc<QueryService>, call: &Invocation) -> Reply {
    let (node, job) = (call.options.text("node"), call.options.text("job"));
    let of_node = |from: &str, node: &str| from == node || from.rsplit_once(':').is_some_and(|(ip, _)| ip == node);
    let headings = ["Node", "Job", "DBMS", "Table", "Par", "Status", "Blocks", "Rows", "DBMS Time", "Time", "SQL"];
    let mut table = Table::new(headings);
    for part in service.parts().all() {
        let wanted = node.as_ref().is_none_or(|node| of_node(&part.from, node))
            && job.as_ref().is_none_or(|job| *job == part.job.to_string());
        if !wanted {
            continue;
        }
        let (time, status) = part.state();
        let progress = part.progress();
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        table.push([
            part.from.clone(),
            part.job.to_string(),
            part.dbms.clone(),
            part.table.clone(),
            part.places().to_string(),
            status,
            count(&progress.blocks).to_string(),
            count(&progress.rows).to_string(),
            format!("{:.6}", Duration::from_micros(count(&progress.database)).as_secs_f64()),
            format!("{:.6}", time.as_secs_f64()),
            part.sql.clone(),
        ]);
    }
    if table.is_empty() { "No other node asked for a part of a query".into() } else { table.into() }
}

fn explain(service: &Arc<QueryService>, session: &Session, call: &Invocation) -> CommandResult {
    let records = chosen(service, call)?;
    if records.is_empty() {
        return Ok(NONE.into());
    }
    let mut table = Table::new(["", ""]).max_width(session.node.output_width());
    for record in records {
        let explained = record.explained();
        let lines = [
            ("Job ID", record.id.to_string()),
            ("Remote DBMS", record.dbms.clone()),
            ("Remote Table", explained.table),
            ("Source Command", record.sql.clone()),
            ("Remote Query", explained.remote),
            ("Local Create", explained.create),
            ("Local Query", explained.last),
            ("Increment Info", explained.increments),
        ];
        for (title, text) in lines.into_iter().filter(|(_, text)| !text.is_empty()) {
            table.push([title.to_owned(), text]);
        }
    }
    Ok(table.into())
}

fn destination(service: &Arc<QueryService>, session: &Session, call: &Invocation) -> CommandResult {
    let records = chosen(service, call)?;
    if records.is_empty() {
        return Ok(NONE.into());
    }
    let mut table = Table::new(["Job", "Destination", "DBMS", "Table", "DBMS Time", "Command"]);
    for record in records {
        let nodes = record.nodes();
        if nodes.is_empty() && !record.network {
            let table_name = record.explained().table;
            let address = session.node.address();
            table.push([
                record.id.to_string(),
                address,
                record.dbms.clone(),
                table_name,
                String::new(),
                record.sql.clone(),
            ]);
        }
        for node in nodes {
            let (shown, _) = node.shown();
            let time = format!("{:.6}", shown.database.as_secs_f64());
            table.push([record.id.to_string(), shown.address, shown.dbms, shown.table, time, record.sql.clone()]);
        }
    }
    Ok(table.into())
}

fn times(service: &Arc<QueryService>) -> CommandResult {
    let (buckets, since) = service.history().times();
    let mut text = String::from("\r\n");
    for (index, count) in buckets.iter().enumerate() {
        let line = match index + 1 {
            seconds if seconds == buckets.len() => format!("Over   {index:>2} sec.: {count}\r\n"),
            seconds => format!("Up to  {seconds:>2} sec.: {count}\r\n"),
        };
        text.push_str(&line);
    }
    let total: u64 = buckets.iter().sum();
    text.push_str(&format!("Total queries: {total}\r\n"));
    text.push_str(&format!("Time interval: {} (sec.) : {} (H:M:S)\r\n", since.as_secs(), clock_text(since)));
    Ok(Reply::Text(text))
}

fn set_log(service: &Arc<QueryService>, call: &Invocation) -> CommandResult {
    let words = call.expect_positional("mode")?.to_lowercase();
    let parts: Vec<&str> = words.split_whitespace().collect();
    let mode = match parts.as_slice() {
        ["on"] => LogMode::All,
        ["off"] => LogMode::Off,
        ["profile", seconds, ..] if seconds.parse::<u32>().is_ok() => {
            LogMode::Slow(Duration::from_secs(seconds.parse().unwrap_or_default()))
        }
        _ => {
            return Err(CommandError::structure(format!("set query log {words} is not understood"))
                .hint("use on, off or profile N seconds"));
        }
    };
    service.history().set_log(mode);
    Ok(Reply::Empty)
}

fn log(service: &Arc<QueryService>) -> CommandResult {
    let (mode, entries) = service.history().log();
    if entries.is_empty() {
        let text = if mode == LogMode::Off {
            "Query log is off - turn it on with: set query log on"
        } else {
            "Query log is empty"
        };
        return Ok(text.into());
    }
    let line = |entry: crate::history::Logged| {
        format!("Sec: {:.3} Rows: {} DBMS: {} SQL: {}", entry.time.as_secs_f64(), entry.rows, entry.dbms, entry.sql)
    };
    Ok(Reply::Text(entries.into_iter().map(line).collect::<Vec<_>>().join("\r\n")))
}
