//! The exchange with the other members: links, files, progress.

use std::time::Duration;

use anylog_core::time::{clock_text, policy_date};
use anylog_core::{CommandError, CommandResult, Invocation, Reply, Session, Status, Table};
use serde_json::{Value, json};

use super::heading;
use crate::OperatorService;
use crate::commands::thousands;
use crate::replica::repair::Outcome;
use crate::replica::{LinkStatus, MateStatus, ProducerStatus, Progress, ReplicationStatus};

/// What is said when `run data consumer` was not called.
const NO_CONSUMER: &str = "The consumer is not declared: this member fetches nothing and is not compared. Enable it with: run data \
                           consumer where start_date = -30d";
/// The same of `run data distributor`.
const NO_DISTRIBUTOR: &str = "The distributor is not declared: other members have to ask for this member's files. Enable it with: run \
                              data distributor";

pub(super) async fn consumer(service: &OperatorService, session: &mut Session, call: Invocation) -> CommandResult {
    let status = service.replication().status();
    let last = service.divergence().last();
    if call.options.wants_json() {
        return Ok(Reply::Json(consumer_json(service, &status, last.as_ref())));
    }
    let Some(consumer) = status.consumer else { return Ok(Reply::Text(NO_CONSUMER.to_owned())) };
    let date = |time: Option<jiff::Timestamp>, none: &str| time.map_or_else(|| none.to_owned(), policy_date);
    let progress = &status.progress;
    let total = progress.done.saturating_add(progress.remaining);
    let mut shown = Table::new(["Attribute", "Value"]).title("Consumer");
    let rows = [
        ("Status", state(&status).to_owned()),
        ("Start Date", date(consumer.since, "from the beginning")),
        ("End Date", date(consumer.until, "without end")),
        ("Files Done", format!("{} of {}", thousands(progress.done), thousands(total))),
        ("Rows Done", thousands(progress.rows)),
        ("Files Missing", thousands(progress.remaining)),
        ("Rate", rate(progress)),
        ("Time Left", left(progress)),
        ("Compared Every", spoken(service.divergence().period())),
        ("Last Comparison", last.as_ref().map_or_else(|| "none yet".to_owned(), compared)),
    ];
    for (name, value) in rows {
        shown.push([name.to_owned(), value]);
    }
    if let Some(conflict) = &status.conflict {
        shown.push(["Conflict".to_owned(), conflict.clone()]);
    }
    let width = session.node.output_width();
    let mut text = shown.max_width(width).to_string();
    text.push_str(&format!("\r\n{}", producers(&status).max_width(width)));
    let parked = parked(&status);
    if !parked.is_empty() {
        text.push_str(&format!("\r\n{}", parked.max_width(width)));
    }
    Ok(Reply::Text(text))
}

fn state(status: &ReplicationStatus) -> &'static str {
    match status.consumer {
        None => "Not declared",
        Some(consumer) if !consumer.active => "Suspended",
        Some(_) if !status.running => "Waits for: run operator",
        Some(_) => "Active",
    }
}

fn rate(progress: &Progress) -> String {
    format!("{:.1} files, {:.0} rows a second", progress.files_per_second, progress.rows_per_second)
}

/// How long the rest takes.
fn left(progress: &Progress) -> String {
    match (progress.remaining, progress.estimate) {
        (0, _) => "nothing is missing".to_owned(),
        (_, Some(time)) => clock_text(time),
        (_, None) => "unknown: nothing came in the last minute".to_owned(),
    }
}

fn spoken(period: Duration) -> String {
    match period.as_secs() {
        seconds if seconds.is_multiple_of(60) => format!("{} minutes", seconds / 60),
        seconds => format!("{seconds} seconds"),
    }
}

fn compared(last: &Outcome) -> String {
    let open = last.differences.iter().filter(|difference| !difference.mended).count();
    let silent =
        if last.silent.is_empty() { String::new() } else { format!("; no answer: {}", last.silent.join("; ")) };
    format!(
        "{} tables, {} partitions with {} members: {} files differed, {open} still do{silent}",
        last.tables,
        last.partitions,
        last.members.len(),
        last.differences.len()
    )
}

/// The TSD table in which this node registers a producer's files.
fn tsd_table(status: &ReplicationStatus, producer: i64) -> String {
    if producer == status.member { "tsd_info".to_owned() } else { format!("tsd_{producer}") }
}

fn producers(status: &ReplicationStatus) -> Table {
    let mut shown =
        Table::new(["Member", "TSD Table", "Files", "Highest", "Missing", "Under Way", "Parked"]).title("Producers");
    for producer in &status.producers {
        shown.push([
            producer.producer.to_string(),
            tsd_table(status, producer.producer),
            producer.complete.to_string(),
            producer.highest.to_string(),
            producer.missing.to_string(),
            producer.in_work.len().to_string(),
            producer.parked.len().to_string(),
        ]);
    }
    shown
}

fn parked(status: &ReplicationStatus) -> Table {
    let mut shown =
        Table::new(["Member", "File", "Since", "Reason"]).title("Parked files, which are tried again later");
    for parked in status.producers.iter().flat_map(|producer| &producer.parked) {
        shown.push([
            parked.file.producer.to_string(),
            parked.file.file.to_string(),
            policy_date(parked.since),
            parked.reason.clone(),
        ]);
    }
    shown
}

fn consumer_json(service: &OperatorService, status: &ReplicationStatus, last: Option<&Outcome>) -> Value {
    let progress = &status.progress;
    let producer = |producer: &ProducerStatus| {
        let parked = producer.parked.iter().map(
            |parked| json!({"file": parked.file.file, "since": policy_date(parked.since), "reason": parked.reason}),
        );
        json!({
            "member": producer.producer, "table": tsd_table(status, producer.producer), "files": producer.complete,
            "highest": producer.highest, "missing": producer.missing, "under_way": producer.in_work.len(),
            "consensus": producer.consensus, "parked": parked.collect::<Vec<_>>(),
        })
    };
    json!({
        "status": state(status),
        "start_date": status.consumer.and_then(|consumer| consumer.since).map(policy_date),
        "end_date": status.consumer.and_then(|consumer| consumer.until).map(policy_date),
        "files_done": progress.done,
        "files_total": progress.done.saturating_add(progress.remaining),
        "files_missing": progress.remaining,
        "rows_done": progress.rows,
        "files_per_second": progress.files_per_second,
        "rows_per_second": progress.rows_per_second,
        "seconds_left": progress.estimate.map(|time| time.as_secs()),
        "conflict": status.conflict,
        "producers": status.producers.iter().map(producer).collect::<Vec<_>>(),
        "compared_every_seconds": service.divergence().period().as_secs(),
        "last_comparison": last,
    })
}

pub(super) async fn set_consumer(service: &OperatorService, _: &mut Session, call: Invocation) -> CommandResult {
    let setting = call.expect_positional("setting")?;
    let wrong = || {
        CommandError::structure(format!("set consumer does not know '{setting}'"))
            .hint("set consumer mode = active|suspend, or set consumer repair = 15 minutes")
    };
    let (key, value) = setting.split_once('=').ok_or_else(wrong)?;
    match (key.trim().to_lowercase().as_str(), value.trim().to_lowercase().as_str()) {
        ("mode", mode @ ("active" | "suspend")) => {
            service.replication().set_consumer_mode(mode == "active").map_err(|error| {
                CommandError::new(error.status(), "no data consumer was started on this node")
                    .hint("start it with: run data consumer where start_date = -30d")
            })?;
            Ok(Reply::Empty)
        }
        ("repair", period) => {
            let too_short = || {
                CommandError::parameter(format!("repair = {period} is no time of at least 10 seconds"))
                    .hint("for example: set consumer repair = 15 minutes")
            };
            let period = anylog_core::time::interval(period).ok_or_else(too_short)?;
            if period < Duration::from_secs(10) {
                return Err(too_short());
            }
            service.divergence().set_period(period);
            Ok(Reply::Empty)
        }
        _ => Err(wrong()),
    }
}

fn link(mate: &MateStatus) -> (&'static str, String, String) {
    match &mate.link {
        LinkStatus::Up(since) => ("+", policy_date(*since), String::new()),
        LinkStatus::Down { since, error } => (
            "-",
            since.map(policy_date).unwrap_or_default(),
            error.as_ref().map(|(time, reason)| format!("{}: {reason}", policy_date(*time))).unwrap_or_default(),
        ),
    }
}

/// What is shown of a mate under a heading.
type Column = (&'static str, fn(&MateStatus) -> String);

/// A table with a row for each mate: who and where it is, whether it is linked, and more.
fn by_mate(title: &str, mates: &[MateStatus], more: &[Column]) -> Table {
    let first: [Column; 4] = [
        ("Member", |mate| mate.member.to_string()),
        ("Name", |mate| mate.name.clone()),
        ("Address", |mate| mate.address.clone()),
        ("Linked", |mate| link(mate).0.to_owned()),
    ];
    let columns = || first.iter().chain(more);
    let mut shown = Table::new(columns().map(|(heading, _)| *heading)).title(title);
    for mate in mates {
        shown.push(columns().map(|(_, cell)| cell(mate)));
    }
    shown
}

pub(super) async fn distributor(service: &OperatorService, session: &mut Session, call: Invocation) -> CommandResult {
    let status = service.replication().status();
    if call.options.wants_json() {
        let member = |mate: &MateStatus| {
            let counts = &mate.counts;
            json!({
                "member": mate.member, "name": mate.name, "address": mate.address, "linked": mate.link.is_up(),
                "files_offered": counts.offered, "files_sent": counts.sent, "rows_sent": counts.rows_sent,
                "bytes_sent": counts.bytes_sent, "bytes_per_second": mate.rate.0,
            })
        };
        let members: Vec<Value> = status.mates.iter().map(member).collect();
        return Ok(Reply::Json(json!({"running": status.distributor, "members": members})));
    }
    if !status.distributor {
        return Ok(Reply::Text(NO_DISTRIBUTOR.to_owned()));
    }
    let columns: [Column; 5] = [
        ("Files Offered", |mate| thousands(mate.counts.offered)),
        ("Files Sent", |mate| thousands(mate.counts.sent)),
        ("Rows Sent", |mate| thousands(mate.counts.rows_sent)),
        ("Bytes Sent", |mate| thousands(mate.counts.bytes_sent)),
        ("Bytes/Second", |mate| format!("{:.0}", mate.rate.0)),
    ];
    let shown = by_mate("Distributor", &status.mates, &columns);
    Ok(Reply::Table(shown.max_width(session.node.output_width())))
}

pub(super) async fn peers(service: &OperatorService, session: &mut Session, call: Invocation) -> CommandResult {
    let status = service.replication().status();
    if call.options.wants_json() {
        let member = |mate: &MateStatus| {
            let counts = &mate.counts;
            let (_, since, error) = link(mate);
            json!({
                "member": mate.member, "name": mate.name, "address": mate.address, "policy": mate.policy,
                "linked": mate.link.is_up(), "since": since, "version": mate.version, "files_offered": counts.offered,
                "files_sent": counts.sent, "files_fetched": counts.fetched, "rows_sent": counts.rows_sent,
                "rows_stored": counts.rows_stored, "bytes_sent": counts.bytes_sent,
                "bytes_received": counts.bytes_received, "bytes_per_second": [mate.rate.0, mate.rate.1],
                "links": counts.links, "failed": counts.failed, "error": error,
            })
        };
        let members: Vec<Value> = status.mates.iter().map(member).collect();
        return Ok(Reply::Json(json!({"running": status.running, "conflict": status.conflict, "members": members})));
    }
    if !status.running {
        return Ok(Reply::Text(
            "No operator runs: there are no links. Start one with: run operator where policy = <id>".into(),
        ));
    }
    let columns: [Column; 9] = [
        ("Since", |mate| link(mate).1),
        ("Version", |mate| mate.version.map(|version| version.to_string()).unwrap_or_default()),
        ("Files Sent", |mate| thousands(mate.counts.sent)),
        ("Files Fetched", |mate| thousands(mate.counts.fetched)),
        ("Rows Sent", |mate| thousands(mate.counts.rows_sent)),
        ("Rows Stored", |mate| thousands(mate.counts.rows_stored)),
        ("Links", |mate| mate.counts.links.to_string()),
        ("Failed", |mate| mate.counts.failed.to_string()),
        ("Last Error", |mate| link(mate).2),
    ];
    let title = match &status.conflict {
        Some(conflict) => format!("Members of the cluster. Conflict: {conflict}"),
        None => "Members of the cluster".to_owned(),
    };
    let shown = by_mate(&title, &status.mates, &columns);
    Ok(Reply::Table(shown.max_width(session.node.output_width())))
}

pub(super) async fn sync(service: &OperatorService, session: &mut Session, call: Invocation) -> CommandResult {
    let status = service.replication().status();
    if status.consumer.is_none() {
        return match call.options.wants_json() {
            true => Err(CommandError::new(Status::OPERATOR_NOT_RUNNING, NO_CONSUMER)),
            false => Ok(Reply::Text(NO_CONSUMER.to_owned())),
        };
    }
    let wanted = call.options.text("table");
    let rows: Vec<(String, &ProducerStatus)> = status
        .producers
        .iter()
        .map(|producer| (tsd_table(&status, producer.producer), producer))
        .filter(|(table, _)| wanted.as_ref().is_none_or(|wanted| wanted == "*" || wanted == table))
        .collect();
    if call.options.wants_json() {
        let row = |(table, producer): &(String, &ProducerStatus)| {
            let mut members = serde_json::Map::new();
            let own = json!({"files": producer.complete, "highest": producer.highest});
            members.insert(status.member.to_string(), own);
            for (member, files, highest) in &producer.mates {
                members.insert(member.to_string(), json!({"files": files, "highest": highest}));
            }
            json!({"table": table, "producer": producer.producer, "consensus": producer.consensus, "members": members})
        };
        return Ok(Reply::Json(rows.iter().map(row).collect()));
    }
    let own = service.ledger().own_operator().map(|own| own.address()).unwrap_or_default();
    let mut headings = vec!["TSD Table".to_owned(), "Consensus".to_owned(), heading(status.member, &own)];
    headings.extend(status.mates.iter().map(|mate| heading(mate.member, &mate.address)));
    let mut shown = Table::new(headings);
    let cell = |files: u64, highest: i64| format!("{highest} ({files} files)");
    for (table, producer) in rows {
        let mut cells = vec![table, producer.consensus.to_string(), cell(producer.complete, producer.highest)];
        for mate in &status.mates {
            let has = producer.mates.iter().find(|(member, ..)| *member == mate.member);
            cells.push(match has {
                Some((_, files, highest)) => cell(*files, *highest),
                None if mate.link.is_up() => cell(0, 0),
                None => "?".to_owned(),
            });
        }
        shown.push(cells);
    }
    Ok(Reply::Table(shown.max_width(session.node.output_width())))
}
