//! Running a script.

use std::path::Path;

use serde_json::Value as Json;

use super::super::expand::{json_text, value_of_text};
use super::load::{Line, Script};
use super::running::{ThreadName, Ticket};
use super::{Flow, Frame, MAX_SCRIPT_DEPTH, OnError, debug};
use crate::{CommandError, Session, Status};

/// The largest script file, in bytes.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// Scripts that may run on threads of their own at once.
const MAX_THREADS: usize = 256;

/// Runs a script file, or the commands of a JSON file.
pub(crate) async fn run_file(session: &mut Session, path: &Path, arguments: &[String]) -> Result<(), CommandError> {
    let text = read(path).await?;
    let name = path.display().to_string();
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")) {
        return Box::pin(run_json(session, &name, &text)).await;
    }
    let script = Script::parse(&name, &text)?;
    Box::pin(run(session, &script, arguments)).await
}

/// Runs a script file on a thread of its own. The file is read and checked before.
pub(crate) async fn start_thread(
    session: &Session,
    path: &Path,
    arguments: Vec<String>,
) -> Result<String, CommandError> {
    let text = read(path).await?;
    let script = Script::parse(&path.display().to_string(), &text)?;
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let name = ThreadName::reserve(&session.node, &stem, MAX_THREADS).ok_or_else(|| {
        CommandError::new(Status::OVERLOADED, format!("{MAX_THREADS} scripts run on threads of their own already"))
            .hint("see them with: get user threads")
    })?;
    let thread = name.name.clone();
    let mut fork = session.fork(thread.clone());
    tokio::spawn(async move {
        if let Err(error) = run(&mut fork, &script, &arguments).await {
            let node = &fork.node;
            let text = format!("thread {} --> {error}", script.name);
            node.errors.add(node.clock.now(), &fork.thread, error.status.text(), text);
        }
        drop(name);
    });
    Ok(thread)
}

async fn read(path: &Path) -> Result<String, CommandError> {
    let failed = |why: String| {
        CommandError::new(Status::NO_SCRIPT, format!("Failed to read script '{}': {why}", path.display()))
            .hint("check the path; variables in it need their value set")
    };
    let metadata = tokio::fs::metadata(path).await.map_err(|error| failed(error.to_string()))?;
    if !metadata.is_file() {
        return Err(failed("not a file".to_owned()));
    }
    if metadata.len() > MAX_FILE {
        return Err(failed(format!("larger than {MAX_FILE} bytes")));
    }
    tokio::fs::read_to_string(path).await.map_err(|error| failed(error.to_string()))
}

/// Runs a script in a frame of its own; the if-flag of the session is the same before and after.
pub(super) async fn run(session: &mut Session, script: &Script, arguments: &[String]) -> Result<(), CommandError> {
    bind(session, script, arguments)?;
    let inside = Inside::enter(session, &script.name)?;
    let ticket = Ticket::enter(&inside.session.node, &inside.session.thread, &script.name, inside.generation());
    Box::pin(lines(inside.session, script, &ticket)).await
}

/// A session with a frame of its own for a script. The frame goes when the script ends, also when its future is dropped before, and
/// the if-flag is then as it was.
struct Inside<'a> {
    session: &'a mut Session,
    flag: Option<bool>,
}

impl<'a> Inside<'a> {
    /// Opens a frame, as long as the scripts do not nest too deep.
    fn enter(session: &'a mut Session, name: &str) -> Result<Self, CommandError> {
        if session.scripts.len() >= MAX_SCRIPT_DEPTH {
            return Err(CommandError::process(format!(
                "Scripts call scripts deeper than {MAX_SCRIPT_DEPTH}; not started: '{name}'"
            ))
            .hint("a script that processes itself never ends; use a label and goto"));
        }
        let generation = session.node.scripts.generation();
        session.scripts.push(Frame { generation, ..Frame::default() });
        let flag = session.if_flag;
        Ok(Self { session, flag })
    }

    fn generation(&self) -> u64 {
        self.session.scripts.last().map_or_else(|| self.session.node.scripts.generation(), |frame| frame.generation)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.session.scripts.pop();
        self.session.if_flag = self.flag;
    }
}

fn bind(session: &Session, script: &Script, arguments: &[String]) -> Result<(), CommandError> {
    if script.variables.len() != arguments.len() {
        return Err(CommandError::new(
            Status::ARGUMENT_MISMATCH,
            format!(
                "Script '{}' takes {} arguments ({}), given: {}",
                script.name,
                script.variables.len(),
                script.variables.join(", "),
                arguments.len()
            ),
        ));
    }
    for (name, value) in script.variables.iter().zip(arguments) {
        session.node.dictionary.set(name, value.clone());
    }
    Ok(())
}

async fn lines(session: &mut Session, script: &Script, ticket: &Ticket) -> Result<(), CommandError> {
    let mut at = script.start;
    while let Some(line) = script.lines.get(at) {
        if ticket.ended() || !debug::pause(session, line.number, &line.text, || ticket.ended()).await {
            return Ok(());
        }
        ticket.at(line.number, &line.text);
        let result = Box::pin(run_line(session, line)).await;
        let Some(frame) = session.scripts.last_mut() else { return Ok(()) };
        let flow = frame.flow.take();
        let next = match result {
            Ok(()) => follow(frame, script, at, flow),
            Err(error) => after_error(frame, script, at, &error),
        };
        let next = match next {
            Ok(next) => next,
            Err(error) => {
                report(session, script, line, &error);
                return Err(error);
            }
        };
        let Some(next) = next else { return Ok(()) };
        if next != at + 1 {
            // a loop of jumps leaves room for others
            tokio::task::yield_now().await;
        }
        at = next;
    }
    Ok(())
}

async fn run_line(session: &mut Session, line: &Line) -> Result<(), CommandError> {
    let result = match session.execute(&line.text).await {
        Ok(reply) => reply.into_text().await,
        Err(error) => Err(error),
    };
    match result {
        Ok(text) => {
            debug::show(session, line.number, &line.text, Status::SUCCESS.text());
            if !text.is_empty() {
                session.console.print(&text);
            }
            Ok(())
        }
        Err(error) => {
            debug::show(session, line.number, &line.text, error.status.text());
            Err(error)
        }
    }
}

/// The line after a command that succeeded; nothing at the end of the script.
fn follow(frame: &mut Frame, script: &Script, at: usize, flow: Option<Flow>) -> Result<Option<usize>, CommandError> {
    match flow {
        None => Ok(Some(at + 1)),
        Some(Flow::Goto(label)) => {
            let next = destination(script, at, "goto", &label)?;
            frame.last_target = Some(label);
            Ok(Some(next))
        }
        Some(Flow::Call(label)) => {
            let next = destination(script, at, "call", &label)?;
            call(frame, script, at)?;
            frame.last_target = Some(label);
            Ok(Some(next))
        }
        Some(Flow::Return) => {
            frame.last_target = None;
            Ok(frame.calls.pop())
        }
        Some(Flow::EndScript) => Ok(None),
    }
}

fn call(frame: &mut Frame, script: &Script, at: usize) -> Result<(), CommandError> {
    const MAX_CALLS: usize = 1000;
    if frame.calls.len() >= MAX_CALLS {
        return Err(located(
            Status::PROCESS_FAILURE,
            script,
            at,
            &CommandError::process(format!("{MAX_CALLS} calls without a return"))
                .hint("end what 'call' starts with 'return'"),
        ));
    }
    frame.calls.push(at + 1);
    Ok(())
}

fn destination(script: &Script, at: usize, command: &str, label: &str) -> Result<usize, CommandError> {
    if let Some(line) = script.labels.get(label) {
        return Ok(*line);
    }
    let error =
        CommandError::structure(format!("Script includes {command} command without declared destination: '{label}'"));
    let half = script.half_labels.iter().find(|(name, _)| name == label);
    let near = crate::error::nearest(label, script.labels.keys().map(String::as_str));
    let error = match (half, near) {
        (Some((name, number)), _) => error.hint(format!("line {number} lacks its second colon: write :{name}:")),
        (None, Some(near)) => error.hint(format!("did you mean '{near}'?")),
        (None, None) => error.hint(format!("declare it with a line :{label}:")),
    };
    Err(located(error.status, script, at, &error))
}

/// The line after a command that failed, or the error with which the script ends.
fn after_error(
    frame: &mut Frame,
    script: &Script,
    at: usize,
    error: &CommandError,
) -> Result<Option<usize>, CommandError> {
    let syntax = matches!(error.status.0, 1 | 2 | 112);
    let jump = |label: &String| !syntax && frame.last_target.as_ref() != Some(label);
    match &frame.on_error {
        OnError::Ignore => Ok(Some(at + 1)),
        OnError::Goto(label) if jump(label) => destination(script, at, "goto", label).map(Some),
        OnError::Call(label) if jump(label) => {
            let next = destination(script, at, "call", label)?;
            call(frame, script, at)?;
            Ok(Some(next))
        }
        OnError::Undeclared if !syntax && !script.list => Err(located(Status::SCRIPT_ERROR, script, at, error)),
        _ => Err(located(error.status, script, at, error)),
    }
}

/// The error of a script: it names script, line, command and cause.
fn located(status: Status, script: &Script, at: usize, cause: &CommandError) -> CommandError {
    let (number, command) = script.lines.get(at).map_or((0, ""), |line| (line.number, line.text.as_str()));
    let command: String = super::super::secrets::masked(command).chars().take(200).collect();
    CommandError {
        status,
        message: format!(
            "Script '{}' terminated on line {number} with error: '{}' in command '{command}' --> {}",
            script.name,
            cause.status.text(),
            cause.message
        ),
        hint: cause.hint.clone(),
    }
}

/// Shows the end of a script by an error, on the console or in the echo queue.
fn report(session: &Session, script: &Script, line: &Line, error: &CommandError) {
    let node = &session.node;
    let command = super::super::secrets::masked(&line.text);
    if node.echo.is_enabled() {
        let text = format!("Error executing: [{command}] Message: [{error}]");
        node.echo.add(node.clock.now(), &session.thread, error.status.text(), text);
        return;
    }
    session.console.print(&format!(
        "Script terminated: Error: '[{:04}] {command} --> {}' in file {}",
        line.number,
        error.status.text(),
        script.name
    ));
}

/// Runs the settings and commands of `{"config": [{"setting": {..}, "commands": [..]}]}`. Errors are shown and do not end it.
async fn run_json(session: &mut Session, name: &str, text: &str) -> Result<(), CommandError> {
    let flawed = |what: &str| {
        CommandError::new(Status::JSON_STRUCTURE, format!("Script '{name}': {what}"))
            .hint("expected {\"config\": [{\"setting\": {name: value}, \"commands\": [command, ..]}, ..]}")
    };
    let document = crate::json_text::parse(text).map_err(|error| flawed(&error.message))?;
    let sections = document.get("config").and_then(Json::as_array).ok_or_else(|| flawed("no list 'config'"))?;
    let inside = Inside::enter(session, name)?;
    let generation = inside.generation();
    let session = &mut *inside.session;
    let ticket = Ticket::enter(&session.node, &session.thread, name, generation);
    for (number, section) in sections.iter().enumerate() {
        let settings = section.get("setting").and_then(Json::as_object);
        for (key, value) in settings.into_iter().flatten() {
            let value = value_of_text(&session.node, &json_text(value)).to_string();
            session.node.dictionary.set(key, value);
        }
        for command in section.get("commands").and_then(Json::as_array).into_iter().flatten() {
            if ticket.ended() {
                break;
            }
            let line = Line { number: number + 1, text: json_text(command) };
            ticket.at(line.number, &line.text);
            if let Err(error) = run_line(session, &line).await {
                session.console.print(&format!("{} --> {error}", super::super::secrets::masked(&line.text)));
            }
        }
    }
    Ok(())
}
