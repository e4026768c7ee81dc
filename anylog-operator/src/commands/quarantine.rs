//! The quarantine: listed, tried again, emptied.

use std::collections::BTreeMap;

use anylog_core::names::normalize;
use anylog_core::{CommandError, CommandResult, Invocation, Reply, Session, Table};
use serde_json::{Value, json};

use super::thousands;
use crate::quarantine::{KeptMessage, QuarantineFilter, QuarantinedRow};
use crate::service::OperatorService;
use crate::tables::blocking;

fn filter(call: &Invocation) -> QuarantineFilter {
    let options = &call.options;
    let name = |key: &str| options.text(key).map(|name| normalize(&name));
    QuarantineFilter {
        dbms: name("dbms"),
        table: name("table"),
        // A word before `where` has the same name in `get quarantine`.
        topic: options.text("topic"),
        reason: options.text("reason"),
        from: options.date("from"),
        to: options.date("to"),
        id: options.text("id"),
    }
}

/// Records of one kind for one table.
#[derive(Debug, Default)]
struct Count {
    records: u64,
    oldest: String,
    newest: String,
}

/// What a look at the quarantine found.
#[derive(Debug, Default)]
struct Found {
    records: u64,
    counts: BTreeMap<(String, String, String), Count>,
    /// The newest records, oldest first.
    rows: std::collections::VecDeque<QuarantinedRow>,
}

impl Found {
    fn add(&mut self, row: QuarantinedRow, limit: usize) {
        self.records += 1;
        let count = self.counts.entry((row.kind.clone(), row.dbms.clone(), row.table.clone())).or_default();
        count.records += 1;
        if count.oldest.is_empty() || row.time < count.oldest {
            count.oldest.clone_from(&row.time);
        }
        if row.time > count.newest {
            count.newest.clone_from(&row.time);
        }
        self.rows.push_back(row);
        if self.rows.len() > limit {
            self.rows.pop_front();
        }
    }
}

pub(super) async fn get(service: &OperatorService, session: &mut Session, call: Invocation) -> CommandResult {
    let only_counts = match call.positional("topic").map(str::to_lowercase).as_deref() {
        None => false,
        Some("summary") => true,
        Some(other) => {
            return Err(
                CommandError::structure(format!("get quarantine has no topic '{other}'")).hint("topics: summary")
            );
        }
    };
    let limit = call.options.int("limit").unwrap_or(100);
    let limit =
        usize::try_from(limit).map_err(|_| CommandError::parameter(format!("limit = {limit} is not a count")))?;
    let limit = match limit {
        _ if only_counts => 0,
        0 => usize::MAX,
        limit => limit,
    };
    let (service, filter) = (service.shared_self()?, filter(&call));
    let (found, bytes, most, since) = blocking(move || {
        service.with_quarantine(|quarantine| {
            let mut found = Found::default();
            quarantine.visit(&mut |row| {
                if filter.fits(&row) {
                    found.add(row, limit);
                }
            })?;
            Ok::<_, crate::OperatorError>((found, quarantine.bytes(), quarantine.limit(), quarantine.counts()))
        })
    })
    .await?;
    if call.options.wants_json() {
        let counts: Vec<Value> = found
            .counts
            .iter()
            .map(|((kind, dbms, table), count)| {
                json!({"kind": kind, "dbms": dbms, "table": table, "records": count.records, "oldest": count.oldest,
                    "newest": count.newest})
            })
            .collect();
        let rows: Vec<Value> =
            found.rows.iter().rev().map(|row| serde_json::to_value(row).unwrap_or_default()).collect();
        let since: Vec<Value> = since
            .iter()
            .map(|((kind, dbms, table), records)| json!({"kind": kind, "dbms": dbms, "table": table, "records": records}))
            .collect();
        return Ok(Reply::Json(json!({
            "bytes": bytes, "limit": most, "records": found.records, "counts": counts, "since_start": since, "rows": rows,
        })));
    }
    Ok(Reply::Text(text(&found, bytes, most, session.node.output_width())))
}

fn text(found: &Found, bytes: u64, limit: u64, width: usize) -> String {
    let title = format!(
        "Quarantine: {} records, files of {} bytes of {}",
        thousands(found.records),
        thousands(bytes),
        thousands(limit)
    );
    let mut counts = Table::new(["Kind", "DBMS", "Table", "Records", "Oldest", "Newest"]).title(title);
    for ((kind, dbms, table), count) in &found.counts {
        let records = thousands(count.records);
        counts.push([kind.clone(), dbms.clone(), table.clone(), records, count.oldest.clone(), count.newest.clone()]);
    }
    let mut text = counts.max_width(width).to_string();
    if !found.rows.is_empty() {
        let mut shown = Table::new(["Time", "Kind", "DBMS", "Table", "Origin", "Position", "Reason", "Content", "Id"])
            .max_width(width);
        for row in found.rows.iter().rev() {
            shown.push([
                row.time.clone(),
                row.kind.clone(),
                row.dbms.clone(),
                row.table.clone(),
                row.origin.clone(),
                row.position.to_string(),
                row.reason.clone(),
                content(row),
                row.key.clone(),
            ]);
        }
        text.push_str("\r\n");
        text.push_str(&shown.to_string());
    }
    text
}

/// The row, or the message.
fn content(row: &QuarantinedRow) -> String {
    let message = |message: &KeptMessage| match (&message.text, &message.hex) {
        (Some(text), _) => text.clone(),
        (None, hex) => format!("0x{}", hex.as_deref().unwrap_or_default()),
    };
    row.row.clone().or_else(|| row.message.as_ref().map(message)).unwrap_or_default()
}

pub(super) async fn retry(service: &OperatorService, _: &mut Session, call: Invocation) -> CommandResult {
    let dry_run = call.options.bool("dry_run").unwrap_or(false);
    let report = service.shared_self()?.retry_quarantine(filter(&call), dry_run).await?;
    if call.options.wants_json() {
        return Ok(Reply::Json(json!({
            "tried": report.tried, "stored": report.stored, "rows": report.rows, "refused": report.refused,
            "reasons": report.reasons, "dry_run": dry_run, "stopped": report.stopped,
        })));
    }
    let (left, verb) = if dry_run { ("would be stored", "would stay") } else { ("stored", "refused again") };
    let mut text = format!(
        "{} tried, {} {left} with {} rows, {} {verb}",
        report.tried, report.stored, report.rows, report.refused
    );
    for (kind, count) in &report.reasons {
        text.push_str(&format!("\r\n{kind}: {count}"));
    }
    if let Some(reason) = &report.stopped {
        text.push_str(&format!("\r\nstopped: {reason}"));
    }
    Ok(Reply::Text(text))
}

pub(super) async fn delete(service: &OperatorService, _: &mut Session, call: Invocation) -> CommandResult {
    let filter = filter(&call);
    let all = call.options.bool("all").unwrap_or(false);
    if all != (filter == QuarantineFilter::default()) {
        return Err(CommandError::structure("delete quarantine needs to know which records, or all = true alone")
            .hint("see them with: get quarantine; for example: delete quarantine where reason = not_json"));
    }
    let deleted = service.shared_self()?.delete_quarantine(filter).await?;
    Ok(Reply::Text(format!("{deleted} records deleted")))
}

pub(super) async fn set_limit(service: &OperatorService, _: &mut Session, call: Invocation) -> CommandResult {
    let limit = call.options.bytes("limit").unwrap_or_default();
    if limit == 0 {
        return Err(CommandError::parameter("limit = 0 would hold back every message with a bad row"));
    }
    service.set_quarantine_limit(limit);
    Ok(Reply::Empty)
}
