//! Buffers, thresholds and queues.

use anylog_core::{CommandError, CommandResult, Invocation, Reply, Session, Table};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::show::since;
use super::thousands;
use crate::service::OperatorService;
use crate::thresholds::{Threshold, TimeRule};

pub(super) async fn show(service: &OperatorService, session: &mut Session, call: Invocation) -> CommandResult {
    let json = call.options.wants_json();
    match call.positional("topic").map(str::to_lowercase).as_deref() {
        None => {
            let (mut tables, values) = buffers(service, session.node.clock.now());
            if json {
                return Ok(Reply::Json(values));
            }
            let (queues, _) = queues(session);
            let width = session.node.output_width();
            tables = tables.max_width(width);
            Ok(Reply::Text(format!("{tables}\r\n{}", queues.max_width(width))))
        }
        Some("config") => Ok(thresholds(service, json)),
        Some("queues") => {
            let (table, values) = queues(session);
            Ok(if json { Reply::Json(values) } else { Reply::Table(table) })
        }
        Some(other) => {
            Err(CommandError::structure(format!("get streaming has no topic '{other}'")).hint("topics: config, queues"))
        }
    }
}

/// Every queue of the node, with what it holds and may hold (R23).
fn queues(session: &Session) -> (Table, Value) {
    let mut shown = Table::new(["Part", "Queue", "Unit", "In use", "Bound", "State"]).title("Queues");
    let mut values = Vec::new();
    for (owner, queue) in session.node.queues.all() {
        let state = queue.overload();
        values.push(json!({
            "part": owner, "queue": queue.name, "unit": queue.unit, "used": queue.used, "bound": queue.bound,
            "overload": state,
        }));
        let bound = queue.bound.map(thousands).unwrap_or_default();
        let state = if state.is_some() { queue.trouble.unwrap_or_else(|| "full".to_owned()) } else { String::new() };
        shown.push([owner.to_owned(), queue.name, queue.unit.to_owned(), thousands(queue.used), bound, state]);
    }
    (shown, Value::Array(values))
}

fn buffers(service: &OperatorService, now: Timestamp) -> (Table, Value) {
    let headings = [
        "\nDBMS-Table",
        "Put\nfiles",
        "Put\nRows",
        "Streaming\nCalls",
        "Streaming\nRows",
        "Cached\nRows",
        "Counter\nImmediate",
        "Threshold\nVolume(KB)",
        "Buffer\nFill(%)",
        "Threshold\nTime(sec)",
        "Time Left\n(Sec)",
        "Last Process\nHH:MM:SS",
    ];
    let mut shown = Table::new(headings).title("Statistics");
    let open = service.open_segments();
    let thresholds = service.thresholds();
    let mut values = Vec::new();
    for ((dbms, table), stats) in service.stats().tables() {
        let threshold = thresholds.of(&dbms, &table);
        let own: Vec<_> = open.iter().filter(|segment| segment.dbms == dbms && segment.table == table).collect();
        let rows: u64 = own.iter().map(|segment| segment.rows).sum();
        let bytes: u64 = own.iter().map(|segment| segment.bytes).sum();
        let fill = bytes.saturating_mul(1000) / threshold.volume.max(1);
        let fill = f64::from(u32::try_from(fill.min(1000)).unwrap_or(1000)) / 10.0;
        let age = own.iter().map(|segment| now.duration_since(segment.opened).unsigned_abs()).max();
        let left = age.map_or(0, |age| threshold.time.saturating_sub(age).as_secs());
        let name = format!("{dbms}.{table}");
        let last = stats.last_insert.max(stats.last_file);
        let (volume, time) = (threshold.volume / 1024, threshold.time.as_secs());
        values.push(json!({
            "table": name, "File Put": stats.put_files, "File Rows": stats.put_rows, "Streaming Put": stats.calls,
            "Streaming Rows": stats.rows, "Streaming Cached": rows, "Immediate": stats.immediate_rows,
            "Threshold Volume": volume, "% Buffer Fill": fill, "Threshold Time": time, "Time Left": left,
            "Last Process": since(now, last),
        }));
        shown.push([
            name,
            stats.put_files.to_string(),
            stats.put_rows.to_string(),
            stats.calls.to_string(),
            stats.rows.to_string(),
            rows.to_string(),
            stats.immediate_rows.to_string(),
            volume.to_string(),
            format!("{fill:.1}"),
            time.to_string(),
            left.to_string(),
            since(now, last),
        ]);
    }
    (shown, Value::Array(values))
}

fn thresholds(service: &OperatorService, wants_json: bool) -> Reply {
    let thresholds = service.thresholds();
    let default = thresholds.default_threshold();
    let load = service.load();
    let streamer = if service.streamer_runs() { "Running" } else { "Not declared" };
    let flushed: u64 = service.stats().tables().values().map(|stats| stats.rows).sum();
    let immediate = |immediate: bool| if immediate { "True" } else { "False" }.to_owned();
    let mut entries = vec![
        ("Threshold Time".to_owned(), default.time.as_secs().to_string()),
        ("Threshold Volume".to_owned(), thousands(default.volume)),
        ("Write Immediate".to_owned(), immediate(default.immediate)),
        ("Acknowledged When".to_owned(), acknowledged(default)),
        ("Buffered Rows".to_owned(), thousands(load.buffered)),
        ("Flushed Rows".to_owned(), thousands(flushed.saturating_sub(load.buffered))),
        ("Closing Buffers".to_owned(), load.closing.to_string()),
        ("Memory Used".to_owned(), thousands(load.memory as u64)),
        ("Memory Limit".to_owned(), thousands(crate::store::MEMORY_LIMIT as u64)),
        ("Journal Bytes".to_owned(), thousands(load.journal)),
        ("Journal Limit".to_owned(), thousands(crate::store::JOURNAL_LIMIT)),
        ("Disk Floor".to_owned(), thousands(crate::store::DISK_FLOOR)),
        ("Journal Messages".to_owned(), thousands(load.frames.0)),
        ("Journal Syncs".to_owned(), thousands(load.frames.1)),
    ];
    for (dbms, table, threshold) in thresholds.scoped() {
        let text = format!(
            "{} seconds, {} bytes, immediate {}, {}",
            threshold.time.as_secs(),
            thousands(threshold.volume),
            immediate(threshold.immediate),
            acknowledged(threshold)
        );
        entries.push((format!("{dbms}.{table}"), text));
    }
    for (scope, rule) in windows(service) {
        entries.push((format!("Time Window{scope}"), rule));
    }
    if wants_json {
        let mut object: Map<String, Value> =
            entries.into_iter().map(|(name, value)| (name, Value::from(value.replace(',', "")))).collect();
        object.insert("Streamer".into(), streamer.into());
        return Reply::Json(Value::Object(object));
    }
    let mut shown = Table::new(["Threshold", "Value", "Streamer"]).title("Flush Thresholds");
    for (index, (name, value)) in entries.into_iter().enumerate() {
        shown.push([name, value, if index == 0 { streamer.to_owned() } else { String::new() }]);
    }
    Reply::Table(shown)
}

/// Who has rows when they are acknowledged, and what becomes of them while too few can be reached.
fn acknowledged(threshold: Threshold) -> String {
    match threshold.is_replicated() {
        true => format!("{} else {}", threshold.ack(), threshold.few.as_str()),
        false => threshold.ack(),
    }
}

/// The time windows by scope; that of the node first.
fn windows(service: &OperatorService) -> Vec<(String, String)> {
    let windows = service.time_windows();
    let text = |rule: TimeRule| {
        let past = rule.window.past.map_or_else(|| "1970".to_owned(), |past| format!("{} seconds ago", past.as_secs()));
        let future = rule.window.future.as_secs();
        format!("from {past} to {future} seconds ahead and at most {} partitions", rule.partitions)
    };
    let mut shown = vec![(String::new(), text(windows.node()))];
    shown.extend(windows.scoped().map(|(dbms, table, rule)| (format!(" {dbms}.{table}"), text(rule))));
    shown
}
