//! `get cluster digest`, `repair cluster`.

use anylog_core::names::normalize;
use anylog_core::{CommandError, CommandResult, Invocation, Reply, Session, Table};
use serde_json::json;

use super::member;
use crate::OperatorService;
use crate::replica::repair::ask::{By, Question};
use crate::replica::repair::files::Files;
use crate::replica::repair::{Outcome, Scope};

pub(super) async fn digest(service: &OperatorService, session: &mut Session, call: Invocation) -> CommandResult {
    let options = &call.options;
    let name = |key: &str| options.text(key).map(|name| normalize(&name));
    let mut files = options.text("files").map(|text| read_files(&text)).transpose()?;
    if let Some(text) = options.text("upto") {
        let upto = upto(&text)?;
        files = Some(files.map_or(upto.clone(), |files| files.both(&upto)));
    }
    let by = options.text("by").map_or_else(By::default, |word| By::parse(&word));
    let question = Question {
        dbms: name("dbms"),
        table: name("table"),
        partition: name("partition"),
        producer: options.int("producer"),
        files,
        by,
    };
    let told = member(service)?.tell(question).await?;
    if options.wants_json() {
        let value = serde_json::to_value(&told).map_err(|error| CommandError::process(error.to_string()))?;
        return Ok(Reply::Json(value));
    }
    let width = session.node.output_width();
    if by == By::Holdings {
        let mut shown = Table::new(["DBMS", "Table", "Partitions"]).title(format!("Complete files: {}", told.files));
        for table in &told.tables {
            let parts = if table.connected { (table.parts.len() - 1).to_string() } else { "not connected".to_owned() };
            shown.push([table.dbms.clone(), table.table.clone(), parts]);
        }
        return Ok(Reply::Table(shown.max_width(width)));
    }
    let headings =
        ["DBMS", "Table", "Partition", "Producer", if by == By::File { "File" } else { "Files" }, "Rows", "Digest"];
    let mut shown = Table::new(headings);
    for row in told.digests.iter().filter(|row| row.files > 0) {
        shown.push([
            row.dbms.clone(),
            row.table.clone(),
            if row.partition == row.table { String::new() } else { row.partition.clone() },
            row.producer.to_string(),
            row.file.map_or_else(|| row.files.to_string(), |file| file.to_string()),
            row.rows.to_string(),
            row.digest.clone(),
        ]);
    }
    Ok(Reply::Table(shown.max_width(width)))
}

fn read_files(text: &str) -> Result<Files, CommandError> {
    Files::parse(text).ok_or_else(|| {
        CommandError::parameter(format!("'{text}' names no files"))
            .hint("write producer:numbers, such as 7:1-20,25 9:1-4")
    })
}

/// All files of producers up to a number.
fn upto(text: &str) -> Result<Files, CommandError> {
    let mut files = Files::default();
    for key in read_files(text)?.ranges() {
        let (producer, _, last) = key;
        files.insert(producer, 1, last);
    }
    Ok(files)
}

pub(super) async fn repair(service: &OperatorService, session: &mut Session, call: Invocation) -> CommandResult {
    let options = &call.options;
    let name = |key: &str| options.text(key).map(|name| normalize(&name));
    let files = options.text("files").map(|text| read_files(&text)).transpose()?;
    if files.as_ref().is_some_and(|files| files.count() > crate::replica::repair::TOGETHER) {
        return Err(CommandError::parameter(format!(
            "files names more than {} files",
            crate::replica::repair::TOGETHER
        ))
        .hint("name fewer, or none: repair cluster where dbms = ... and table = ..."));
    }
    let scope = Scope { dbms: name("dbms"), table: name("table"), files, gentle: false };
    let outcome = member(service)?.repair(scope).await?;
    if options.wants_json() {
        return Ok(Reply::Json(serde_json::to_value(&outcome).unwrap_or_else(|_| json!({}))));
    }
    Ok(Reply::Text(text(&outcome, session.node.output_width())))
}

fn text(outcome: &Outcome, width: usize) -> String {
    let numbers = |members: &[i64]| members.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let with = if outcome.members.is_empty() {
        "no member".to_owned()
    } else {
        format!("members {}", numbers(&outcome.members))
    };
    let mut text = format!(
        "\r\n{} tables and {} partitions compared with {with}: {} files differed\r\n",
        outcome.tables,
        outcome.partitions,
        outcome.differences.len()
    );
    if !outcome.differences.is_empty() {
        let mut shown = Table::new(["DBMS", "Table", "Producer", "File", "Rows", "Right", "Wrong", "Done"]);
        for difference in &outcome.differences {
            let rows: Vec<String> = difference.rows.iter().map(|(member, rows)| format!("{member}: {rows}")).collect();
            shown.push([
                difference.dbms.clone(),
                difference.table.clone(),
                difference.producer.to_string(),
                difference.file.to_string(),
                rows.join(", "),
                numbers(&difference.right),
                numbers(&difference.wrong),
                difference.done.clone(),
            ]);
        }
        text.push_str(&shown.max_width(width).to_string());
    }
    for (title, lines) in [("No answer", &outcome.silent), ("Not compared", &outcome.skipped)] {
        if !lines.is_empty() {
            text.push_str(&format!("\r\n{title}:\r\n{}\r\n", lines.join("\r\n")));
        }
    }
    text
}
