//! `wait`.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::super::condition::Condition;
use super::super::execute::is;
use super::super::where_list::strict;
use super::{flow, test, truth};
use crate::command::{Command, CommandResult, Declaration, Invocation, Method};
use crate::{CommandError, Reply, Session, Status, command};

pub(super) fn commands() -> Vec<Arc<dyn Command>> {
    vec![flow!(
        Declaration::new("wait", "Waits some seconds, or until a condition holds.")
            .method(Method::Any)
            .grammar("<seconds> [for <condition> | for sync]")
            .returns("whether the condition came true, when assigned")
            .example("wait 5")
            .example("wait 30 for !operator_status == active"),
        wait
    )]
}

/// How often a condition is tested.
const INTERVAL: Duration = Duration::from_secs(1);

async fn wait(session: &mut Session, call: Invocation) -> CommandResult {
    let usage = "write wait <seconds>, wait <seconds> for <condition>, or wait <seconds> for sync";
    let words = call.rest();
    let seconds = words.first().ok_or_else(|| CommandError::structure("Missing seconds after 'wait'").hint(usage))?;
    let value = strict(&session.node, seconds)?.to_string();
    let duration = value.trim().parse().ok().and_then(|seconds: f64| Duration::try_from_secs_f64(seconds).ok());
    let duration = duration.ok_or_else(|| {
        CommandError::new(Status::TIMEOUT_VALUE, format!("Error timeout value: '{value}' is no number of seconds"))
            .hint(usage)
    })?;
    let met = match &words[1..] {
        [] => {
            pause(session, duration).await;
            true
        }
        [unit] if is(unit, "seconds") || is(unit, "second") => {
            pause(session, duration).await;
            true
        }
        [first, sync] if is(first, "for") && is(sync, "sync") => {
            let node = Arc::clone(&session.node);
            tokio::select! {
                () = node.scripts.next_merge() => true,
                _ = pause(session, duration) => false,
            }
        }
        [first, rest @ ..] if is(first, "for") => wait_for(session, &Condition::parse(rest)?, duration).await?,
        [word, ..] => {
            return Err(CommandError::structure(format!("Unexpected word '{}' in 'wait'", word.text)).hint(usage));
        }
    };
    Ok(if call.assign_to.is_some() { truth(met) } else { Reply::Empty })
}

async fn wait_for(session: &Session, condition: &Condition, duration: Duration) -> Result<bool, CommandError> {
    // a time beyond the calendar of the clock waits without end
    let end = Instant::now().checked_add(duration);
    loop {
        if test(session, condition)? {
            return Ok(true);
        }
        let left = end.map_or(INTERVAL, |end| end.saturating_duration_since(Instant::now()));
        if left.is_zero() || !pause(session, left.min(INTERVAL)).await {
            return test(session, condition);
        }
    }
}

/// Waits; false when it was cut short, because the node ends or `exit scripts` ended the script.
async fn pause(session: &Session, duration: Duration) -> bool {
    let scripts = &session.node.scripts;
    let generation = session.scripts.last().map(|frame| frame.generation);
    tokio::select! {
        () = sleep(duration) => true,
        () = session.node.shutdown.cancelled() => false,
        () = scripts.end_of(generation.unwrap_or_default()), if generation.is_some() => false,
    }
}
