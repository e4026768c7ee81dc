//! Expressions and commands of the host.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command as Process;

use super::simple;
use crate::command::{Command, CommandResult, Declaration, Invocation, Method, Word};
use crate::language::expand::{is_reference, reference};
use crate::{CommandError, Node, Reply, Session, Status, command, expression};

/// How long a command of the host may take unless `timeout =` says otherwise.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The longest timeout that is accepted.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// The most output that is kept, in bytes.
const MAX_OUTPUT: u64 = 1024 * 1024;

pub(super) fn commands() -> Vec<Arc<dyn Command>> {
    vec![
        simple(
            Declaration::new("python", "Evaluates an expression of texts, numbers and times.")
                .method(Method::Any)
                .grammar("<expression>")
                .returns("the value as text")
                .example("host = python !ledger_conn.split(\":\")[0]")
                .example("errors = python int(!errin) + int(!errout)"),
            |session, call| Ok(expression::evaluate(&session.node, source(call))?.into()),
        ),
        command(
            Declaration::new("system", "Runs a command of the host in a shell. References are replaced before.")
                .grammar("[timeout = <seconds>] <shell command>")
                .returns("what the command printed; output on its error channel is a failure")
                .example("system timeout = 10 df -h | grep /dev"),
            Arc::new(()),
            |_, session, call| Box::pin(system(session, call)),
        ),
    ]
}

/// The expression; one that stands whole in double quotes means what is inside.
fn source(call: &Invocation) -> &str {
    match call.rest() {
        [word] if word.quoted => &word.text,
        _ => call.rest_text(),
    }
}

async fn system(session: &mut Session, call: Invocation) -> CommandResult {
    let (timeout, words) = timeout(call.rest())?;
    let line = shell_line(&session.node, &call.source, words)?;
    if line.trim().is_empty() {
        return Err(CommandError::structure("'system' needs a command").hint("write: system ls -l"));
    }
    run(&session.node, &line, timeout).await.map(Reply::Text)
}

fn timeout(words: &[Word]) -> Result<(Duration, &[Word]), CommandError> {
    let [name, equals, value, rest @ ..] = words else { return Ok((TIMEOUT, words)) };
    if name.text != "timeout" || equals.text != "=" {
        return Ok((TIMEOUT, words));
    }
    let seconds: u64 = value.text.parse().map_err(|_| {
        CommandError::new(
            Status::TIMEOUT_VALUE,
            format!("Error timeout value: '{}' is not a number of seconds", value.text),
        )
    })?;
    let rest = match rest {
        [unit, rest @ ..] if matches!(unit.text.as_str(), "second" | "seconds") => rest,
        rest => rest,
    };
    Ok((Duration::from_secs(seconds).min(LONGEST), rest))
}

/// The text for the shell: as written, with words that are references replaced.
fn shell_line(node: &Node, source: &str, words: &[Word]) -> Result<String, CommandError> {
    // A command that stands whole in double quotes means what is inside.
    if let [word] = words
        && word.quoted
        && !is_reference(&word.text)
    {
        return Ok(word.text.clone());
    }
    let mut line = String::new();
    let Some(mut at) = words.first().map(|word| word.span.start) else { return Ok(line) };
    for word in words {
        line.push_str(source.get(at..word.span.start).unwrap_or_default());
        at = word.span.end;
        if word.text.starts_with('!') && is_reference(&word.text) {
            let value = reference(node, &word.text).ok_or_else(|| {
                CommandError::structure(format!("Missing dictionary definition for: '{}'", word.text))
                    .hint("set it first, or put the word in single quotes")
            })?;
            line.push_str(&value.to_string());
        } else {
            line.push_str(source.get(word.span.clone()).unwrap_or(&word.text));
        }
    }
    Ok(line)
}

async fn run(node: &Node, line: &str, timeout: Duration) -> Result<String, CommandError> {
    let failed =
        |problem: String| CommandError::new(Status::SYSTEM_CALL, format!("{}: {problem}", Status::SYSTEM_CALL.text()));
    let mut process = Process::new("/bin/sh");
    process.arg("-c").arg(line).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    // A group of its own, so that a pipeline ends as a whole.
    process.process_group(0).envs(node.dictionary.environment_entries());
    let mut child = process.spawn().map_err(|error| failed(format!("the shell did not start: {error}")))?;
    let group = child.id();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let finished = async {
        let (output, errors) = tokio::join!(read(stdout), read(stderr));
        let status = child.wait().await;
        (output, errors, status)
    };
    let Ok((output, errors, status)) = tokio::time::timeout(timeout, finished).await else {
        end_group(group);
        return Err(failed(format!("'{line}' did not end within {} seconds", timeout.as_secs()))
            .hint("give it more time: system timeout = 60 <command>"));
    };
    let status = status.map_err(|error| failed(format!("'{line}' cannot be waited for: {error}")))?;
    if !errors.trim().is_empty() {
        return Err(failed(format!("'{line}' reported: {}", errors.trim())));
    }
    // `grep` that finds nothing ends with 1 and is no failure; a missing program or a signal is.
    if status.code().is_none_or(|code| code >= 126) {
        return Err(failed(format!("'{line}' ended with {status}")));
    }
    let lines: Vec<&str> = output.trim_end_matches(['\r', '\n']).lines().collect();
    Ok(lines.join("\r\n"))
}

/// Reads a channel to its end; what is too much is thrown away.
async fn read(channel: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut channel) = channel else { return String::new() };
    let mut kept = Vec::new();
    if (&mut channel).take(MAX_OUTPUT).read_to_end(&mut kept).await.is_ok() {
        drop(tokio::io::copy(&mut channel, &mut tokio::io::sink()).await);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

fn end_group(leader: Option<u32>) {
    let leader = leader.and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
    if let Some(leader) = leader
        && let Err(error) = rustix::process::kill_process_group(leader, rustix::process::Signal::KILL)
    {
        // It may have ended by itself in between.
        tracing::debug!(%error, "A command of the host could not be ended");
    }
}
