//! Commands that change something.

use anylog_core::names::normalize;
use anylog_core::{CommandError, CommandResult, Invocation, Reply, Session};
use anylog_dbms::schema::TimeWindow;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

use super::directory;
use crate::replica::ConsumerStatus;
use crate::thresholds::{ThresholdChange, TimeRule, parse_ack};
use crate::{Identity, OperatorConfig, OperatorError, OperatorService, archive};

pub(super) async fn run_operator(service: &OperatorService, session: &mut Session, call: Invocation) -> CommandResult {
    let service = service.shared_self()?;
    let options = &call.options;
    let flag = |name: &str, default: bool| options.bool(name).unwrap_or(default);
    let mut directories = Vec::new();
    for name in ["watch_dir", "err_dir", "bkup_dir", "archive_dir", "distr_dir"] {
        if let Some(path) = directory(session, &call, name)? {
            directories.push((name, path));
        }
    }
    let threads = options.int("threads").unwrap_or(1);
    let threads = u32::try_from(threads).ok().filter(|count| (1..=10).contains(count)).ok_or_else(|| {
        CommandError::parameter(format!("threads = {threads} is not possible")).hint("give a number from 1 to 10")
    })?;
    let config = OperatorConfig {
        identity: match options.text("policy") {
            Some(id) if id.is_empty() => {
                return Err(CommandError::parameter("the policy id is empty")
                    .hint("an operator policy of this node: blockchain get operator bring [operator][id]"));
            }
            Some(id) => Identity::Policy(id),
            None => Identity::ByAddress,
        },
        create_table: flag("create_table", true),
        update_tsd_info: flag("update_tsd_info", false),
        archive: flag("archive_json", true),
        compress: flag("compress_json", true),
        distributor: flag("distributor", false),
        master: options.text("master_node"),
        company: options.text("company"),
        limit_tables: limit_tables(&options.texts("limit_tables"))?,
        threads,
        directories,
    };
    service.run(config).await?;
    Ok(Reply::Empty)
}

fn limit_tables(texts: &[String]) -> Result<Vec<(String, String)>, CommandError> {
    let split = |text: &String| match text.split_once('.') {
        Some((dbms, table)) if !dbms.is_empty() && !table.is_empty() => Ok((normalize(dbms), normalize(table))),
        _ => Err(CommandError::parameter(format!("limit_tables: '{text}' is not dbms.table"))),
    };
    texts.iter().map(split).collect()
}

pub(super) async fn exit_operator(service: &OperatorService, _: &mut Session, _: Invocation) -> CommandResult {
    service.exit().await?;
    Ok(Reply::Empty)
}

pub(super) async fn run_streamer(service: &OperatorService, _: &mut Session, _: Invocation) -> CommandResult {
    started(service.start_streamer(), "streamer")
}

pub(super) async fn run_distributor(service: &OperatorService, _: &mut Session, _: Invocation) -> CommandResult {
    started(service.start_distributor(), "data distributor")
}

pub(super) async fn exit_distributor(service: &OperatorService, _: &mut Session, _: Invocation) -> CommandResult {
    ended(service.end_distributor(), "data distributor")
}

pub(super) async fn run_consumer(service: &OperatorService, _: &mut Session, call: Invocation) -> CommandResult {
    let options = &call.options;
    let (since, until) = (options.date("start_date"), options.date("end_date"));
    if let (Some(since), Some(until)) = (since, until)
        && until <= since
    {
        return Err(CommandError::parameter("end_date is not later than start_date")
            .hint("for example: run data consumer where start_date = -30d"));
    }
    let active = options.text("mode").is_none_or(|mode| mode == "active");
    started(service.start_consumer(ConsumerStatus { active, since, until }), "data consumer")
}

pub(super) async fn exit_consumer(service: &OperatorService, _: &mut Session, _: Invocation) -> CommandResult {
    ended(service.end_consumer(), "data consumer")
}

fn ended(result: Result<(), OperatorError>, what: &str) -> CommandResult {
    match result {
        Ok(()) => Ok(Reply::Empty),
        Err(error) => Err(CommandError::new(error.status(), format!("no {what} runs on this node"))),
    }
}

fn started(result: Result<(), OperatorError>, what: &str) -> CommandResult {
    match result {
        Ok(()) => Ok(Reply::Empty),
        Err(error) => Err(CommandError::new(error.status(), format!("a {what} runs already on this node"))),
    }
}

pub(super) async fn set_threshold(service: &OperatorService, _: &mut Session, call: Invocation) -> CommandResult {
    let options = &call.options;
    let (time, volume) = (options.duration("time"), options.bytes("volume"));
    let immediate = options.bool("write_immediate");
    let copies = options.text("ack").map(|ack| parse_ack(&ack)).transpose()?;
    let few = options.text("when_few").map(|word| word.parse()).transpose()?;
    let change = ThresholdChange { time, volume, immediate, copies, few };
    if change == ThresholdChange::default() {
        return Err(CommandError::structure(
            "set buffer threshold needs time, volume, write_immediate, ack or when_few",
        )
        .hint("for example: set buffer threshold where time = 60 seconds and volume = 10KB"));
    }
    let name = |key: &str| options.text(key).map(|name| normalize(&name));
    service.change_threshold(name("dbms").as_deref(), name("table").as_deref(), change)?;
    Ok(Reply::Empty)
}

pub(super) async fn flush_buffers(service: &OperatorService, _: &mut Session, _: Invocation) -> CommandResult {
    service.flush().await?;
    Ok(Reply::Empty)
}

pub(super) async fn set_time_window(service: &OperatorService, _: &mut Session, call: Invocation) -> CommandResult {
    let options = &call.options;
    let (past, future, partitions) = (options.duration("past"), options.duration("future"), options.int("partitions"));
    let given = past.is_some() || future.is_some() || partitions.is_some();
    let resets = options.bool("reset").unwrap_or(false);
    if given == resets {
        return Err(CommandError::structure("set time window needs past, future or partitions; or reset = true alone")
            .hint("for example: set time window where past = 365 days and future = 1 day"));
    }
    let default = TimeRule::default();
    let partitions = match partitions {
        None => default.partitions,
        Some(count) => usize::try_from(count)
            .ok()
            .filter(|count| *count > 0)
            .ok_or_else(|| CommandError::parameter(format!("partitions = {count} is not a number of partitions")))?,
    };
    let window = TimeWindow { past, future: future.unwrap_or(default.window.future) };
    let name = |key: &str| options.text(key).map(|name| normalize(&name));
    let rule = (!resets).then_some(TimeRule { window, partitions });
    service.set_time_window(name("dbms").as_deref(), name("table").as_deref(), rule)?;
    Ok(Reply::Empty)
}

pub(super) async fn delete_archive(
    service: &OperatorService,
    session: &mut Session,
    call: Invocation,
) -> CommandResult {
    let days = call.options.int("days").unwrap_or(-1);
    let today = session.node.clock.now().to_zoned(TimeZone::UTC).date();
    let first_kept = Span::new()
        .try_days(days)
        .ok()
        .filter(|_| days >= 0)
        .and_then(|span| today.checked_sub(span).ok())
        .ok_or_else(|| CommandError::parameter(format!("days = {days} is not a number of days")))?;
    let directory = service.directory("archive_dir");
    let removed = crate::tables::blocking(move || archive::delete_before(&directory, first_kept)).await?;
    Ok(Reply::Text(format!("{removed} archived files removed")))
}

/// Seconds since 1970, as older clients show times.
pub(super) fn seconds(time: Option<Timestamp>) -> i64 {
    time.map_or(0, Timestamp::as_second)
}
