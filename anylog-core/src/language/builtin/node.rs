//! The node itself: its name, state, processes, home.

use std::sync::Arc;

use super::output::on_off;
use super::{BlockingCall, blocking, simple};
use crate::command::{Command, CommandResult, Declaration, Invocation, OptionKind};
use crate::language::expand::{is_reference, reference};
use crate::{CommandError, Reply, Session, Status, Table};

/// What `get version` answers. It must begin with the product's word: scripts take their branch by it.
fn version_text() -> String {
    format!("AnyLog Version: {} (Rust)", env!("CARGO_PKG_VERSION"))
}

pub(super) fn commands() -> Vec<Arc<dyn Command>> {
    let mut commands = views();
    commands.extend(settings());
    commands
}

fn views() -> Vec<Arc<dyn Command>> {
    vec![
        simple(
            Declaration::new("get version", "Shows the version of the node's program.")
                .reads()
                .format_option()
                .returns("`AnyLog Version: x.y.z (Rust)`; as JSON version and node_name")
                .example("get version"),
            get_version,
        ),
        simple(
            Declaration::new("get node name", "Shows the name and the address of the node.")
                .reads()
                .returns("name@ip:port")
                .example("get node name"),
            |session, _| Ok(assigned_name(session).into()),
        ),
        simple(
            Declaration::new("get status", "Shows that the node runs.")
                .reads()
                .option("format", OptionKind::Choice(&["table", "json", "mcp"]), "layout of the answer")
                .default_is("table")
                .repeated("include", OptionKind::Text, "a reference whose value is shown as well")
                .returns(
                    "`name@ip:port running`, what is overloaded, and whether the start script failed; as JSON assigned_name, \
                     status, Status, profiling, the included names, overload when something is, and start when it failed",
                )
                .example("get status where format = json and include = !cluster_id"),
            get_status,
        ),
        simple(
            Declaration::new("get processes", "Shows which processes of the node run.")
                .reads()
                .format_option()
                .returns("a table with Process, Status, Details; or a JSON object by process")
                .example("get processes where format = json"),
            get_processes,
        ),
        simple(
            Declaration::new("get hostname", "Shows the name of the computer.")
                .reads()
                .returns("the name")
                .example("hostname = get hostname"),
            |_, _| Ok(super::network::hostname().into()),
        ),
        simple(
            Declaration::new("get user threads", "Shows the scripts that run.")
                .reads()
                .alias("get threads")
                .alias("get system threads")
                .format_option()
                .returns("a table with Thread, Script, Line, Command, Since")
                .example("get user threads"),
            get_threads,
        ),
    ]
}

fn settings() -> Vec<Arc<dyn Command>> {
    vec![
        simple(
            Declaration::new("set node name", "Names the node.")
                .word("name", "the name")
                .returns("nothing")
                .example("set node name op1"),
            |session, call| {
                session.node.set_name(call.expect_positional("name")?);
                Ok(Reply::Empty)
            },
        ),
        simple(
            Declaration::new(
                "set anylog home",
                "Moves the node to another home directory and sets the documented paths again.",
            )
            .alias("set edgelake home")
            .word("directory", "a directory that can be written")
            .returns("nothing")
            .example("set anylog home /app"),
            set_home,
        ),
        blocking(
            Declaration::new("create work directories", "Makes the directories that the node keeps its files in.")
                .returns("nothing")
                .example("create work directories"),
            create_directories,
        ),
        simple(
            Declaration::new("set remote admin", "Allows or forbids administration of the node from other addresses.")
                .word("state", "on or off")
                .returns("nothing")
                .example("set remote admin on"),
            set_remote_admin,
        ),
        simple(
            Declaration::new("set exception traceback", "Adds details to the program's log when a command fails.")
                .alias("set error traceback")
                .alias("set traceback")
                .word("state", "on or off")
                .returns("nothing")
                .example("set exception traceback on"),
            set_traceback,
        ),
        simple(
            Declaration::new("set authentication", "Accepted as off, which it is; rights go by the caller's address.")
                .word("state", "off")
                .returns("nothing")
                .example("set authentication off"),
            set_authentication,
        ),
        simple(
            Declaration::new("exit node", "Ends the node: nothing acknowledged is lost.")
                .returns("nothing")
                .example("exit node"),
            |session, _| {
                session.node.shutdown.cancel();
                Ok(Reply::Empty)
            },
        ),
    ]
}

fn assigned_name(session: &Session) -> String {
    format!("{}@{}", session.node.name(), session.node.address())
}

fn get_version(session: &mut Session, call: &Invocation) -> CommandResult {
    if call.options.wants_json() {
        return Ok(Reply::Json(serde_json::json!({"version": version_text(), "node_name": assigned_name(session)})));
    }
    Ok(version_text().into())
}

/// What `get status` says after a start script that failed.
const FAILED_START: &str = "the start script failed: messages of MQTT clients that nobody takes are not acknowledged until \
                            a script succeeds (process <file>)";

fn get_status(session: &mut Session, call: &Invocation) -> CommandResult {
    let state = if session.node.shutdown.is_cancelled() { "ending" } else { "running" };
    let included = included(session, call)?;
    let overload = session.node.queues.overload();
    if call.options.text("format").is_none_or(|format| format == "table") {
        let mut text = format!("{} {state}", assigned_name(session));
        for full in &overload {
            text.push_str(&format!("\r\noverloaded: {full}"));
        }
        if session.node.startup.has_failed() {
            text.push_str(&format!("\r\n{FAILED_START}"));
        }
        for (name, value) in included {
            text.push_str(&format!("\r\n{name}: {}", crate::language::expand::json_text(&value)));
        }
        return Ok(text.into());
    }
    // Both spellings of the key are in use among clients.
    let mut object = serde_json::json!({
        "assigned_name": assigned_name(session),
        "status": state,
        "Status": state,
        "profiling": false,
    });
    if !overload.is_empty() {
        object["overload"] = overload.into();
    }
    if session.node.startup.has_failed() {
        object["start"] = "failed".into();
    }
    for (name, value) in included {
        object[name] = value;
    }
    Ok(Reply::Json(object))
}

/// The names and values of `include = !name`. The names are read from the words as written.
fn included(session: &Session, call: &Invocation) -> Result<Vec<(String, serde_json::Value)>, CommandError> {
    let mut found = Vec::new();
    for term in call.rest().windows(3).filter(|term| term[0].text == "include" && term[1].text == "=") {
        let list = term[2].text.trim_start_matches('(').trim_end_matches(')');
        for word in list.split(',').map(str::trim) {
            if !is_reference(word) {
                return Err(CommandError::structure(format!("'{word}' is not a reference"))
                    .hint("include takes names of parameters: include = !cluster_id"));
            }
            let value = match reference(&session.node, word) {
                Some(crate::command::Value::Int(value)) => value.into(),
                Some(crate::command::Value::Float(value)) => value.into(),
                Some(crate::command::Value::Bool(value)) => value.into(),
                Some(crate::command::Value::Text(text)) => super::parameters::visible(session, word, text).into(),
                None => "".into(),
            };
            let name = word.trim_start_matches(['!', '$']);
            let name = name.split_once('.').map_or(name, |(name, _)| name);
            found.push((name.to_owned(), value));
        }
    }
    Ok(found)
}

fn get_processes(session: &mut Session, call: &Invocation) -> CommandResult {
    let status = |running: bool| if running { "Running" } else { "Not declared" };
    let states = session.node.processes.states();
    if call.options.wants_json() {
        let mut object = serde_json::Map::new();
        for (name, state) in states {
            let mut row = serde_json::Map::from_iter([("Status".to_owned(), status(state.running).into())]);
            if !state.details.is_empty() {
                row.insert("Details".to_owned(), state.details.into());
            }
            object.insert(name.to_owned(), row.into());
        }
        return Ok(Reply::Json(object.into()));
    }
    let mut table = Table::new(["Process", "Status", "Details"]).indent(4).max_width(session.node.output_width());
    for (name, state) in states {
        table.push([name, status(state.running), &state.details]);
    }
    Ok(table.into())
}

fn get_threads(session: &mut Session, call: &Invocation) -> CommandResult {
    let mut table = Table::new(["Thread", "Script", "Line", "Command", "Since"]).max_width(session.node.output_width());
    for script in session.node.scripts.running() {
        // A line may hold a password.
        let command = crate::language::secrets::masked(&script.command).into_owned();
        let since = crate::time::stored(script.since);
        table.push([script.thread, script.script, script.line.to_string(), command, since]);
    }
    Ok(if call.options.wants_json() { Reply::Json(table.to_json()) } else { table.into() })
}

fn set_home(session: &mut Session, call: &Invocation) -> CommandResult {
    let directory = call.expect_positional("directory")?;
    let path = session.permit_path(&directory)?;
    let wrong = |status, problem: &str| {
        CommandError::new(status, format!("{}: '{directory}' {problem}", status.text()))
            .hint("create the directory and give this user the right to write into it")
    };
    if !path.is_dir() {
        return Err(wrong(Status::NO_SUCH_DIRECTORY, "is not a directory"));
    }
    if rustix::fs::access(&path, rustix::fs::Access::WRITE_OK).is_err() {
        return Err(wrong(Status::NOT_WRITABLE, "cannot be written"));
    }
    session.node.directories.set_home(path, &session.node.dictionary);
    Ok(Reply::Empty)
}

fn create_directories(call: &BlockingCall) -> CommandResult {
    let directories = &call.node.directories;
    directories.create().map_err(|error| {
        CommandError::new(
            Status::NOT_WRITABLE,
            format!("Failed to create the work directories below '{}': {error}", directories.root().display()),
        )
        .hint("choose a directory that can be written: set anylog home <directory>")
    })?;
    Ok(Reply::Empty)
}

fn set_remote_admin(session: &mut Session, call: &Invocation) -> CommandResult {
    let on = on_off(call, "state")?;
    // Who was let in from another address cannot keep the door open, nor shut out those at the node.
    if session.caller.is_remote() {
        return Err(CommandError::new(
            Status::UNAUTHORIZED,
            "Unauthorized command: 'set remote admin' is refused from other addresses",
        )
        .hint("run it at the node itself"));
    }
    session.node.set_remote_admin(on);
    tracing::info!(allowed = on, "Administration from other addresses was set");
    Ok(Reply::Empty)
}

fn set_traceback(session: &mut Session, call: &Invocation) -> CommandResult {
    session.node.set_traceback(on_off(call, "state")?);
    Ok(Reply::Empty)
}

fn set_authentication(_: &mut Session, call: &Invocation) -> CommandResult {
    if on_off(call, "state")? {
        return Err(CommandError::parameter("This node has no authentication of users")
            .hint("rights go by the caller's address: see help set remote admin"));
    }
    Ok(Reply::Empty)
}
