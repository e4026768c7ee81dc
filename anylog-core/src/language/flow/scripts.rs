//! Commands that run scripts and steer the running one.

use std::sync::Arc;

use super::super::execute::is;
use super::super::expand::{reference, value_of};
use super::super::script::{Flow, OnError, run_file, start_thread};
use super::{flow, open, outside_script};
use crate::command::{Command, CommandResult, Declaration, Invocation, Word};
use crate::{CommandError, Reply, Session, Status, command};

pub(super) fn commands() -> Vec<Arc<dyn Command>> {
    vec![
        flow!(
            Declaration::new("process", "Runs a script and waits for its end.")
                .grammar("<path> [<argument> ...]")
                .returns("nothing; what the script prints goes to the console")
                .example("process !local_scripts/main.al"),
            process
        ),
        flow!(
            Declaration::new("thread", "Runs a script on a thread of its own.")
                .grammar("<path> [<argument> ...]")
                .returns("nothing; the thread shows in 'get user threads'")
                .example("thread !local_scripts/watch.al"),
            thread
        ),
        flow!(
            open("goto", "Continues a script after a label.")
                .grammar("<label>")
                .returns("nothing; an error when the script has no such label")
                .example("goto retry"),
            goto
        ),
        flow!(
            open("call", "Continues a script after a label, until 'return'.")
                .grammar("<label>")
                .returns("nothing; an error when the script has no such label")
                .example("call cleanup"),
            call_label
        ),
        flow!(
            open("return", "Comes back to the line after the last 'call'; without one ends the script.")
                .returns("nothing")
                .example("return"),
            return_
        ),
        flow!(
            open("end script", "Ends this script with success.")
                .alias("end_script")
                .alias("end-script")
                .returns("nothing")
                .example("end script"),
            end_script
        ),
        flow!(
            Declaration::new("exit scripts", "Ends this script, its callers, and all scripts that run on the node.")
                .returns("nothing")
                .example("exit scripts"),
            exit_scripts
        ),
        flow!(
            open("on error", "Decides what a script does after a failing command.")
                .grammar("ignore | goto <label> | call <label> | end script")
                .returns("nothing; it counts until the script ends or the next 'on error'")
                .example("on error goto failed"),
            on_error
        ),
        flow!(
            open("variables", "Names the arguments of a script; stands before its first command.")
                .grammar("(<name>, <name>)")
                .returns("nothing; the names are in the dictionary while the script runs")
                .example("variables (dbms, table)"),
            variables
        ),
    ]
}

/// The path of a script and its arguments: `a + b` is one path.
fn path_and_arguments(session: &Session, words: &[Word]) -> Result<(String, Vec<String>), CommandError> {
    let node = &session.node;
    let mut end = 1;
    while words.get(end).is_some_and(|word| is(word, "+")) {
        end += 2;
    }
    let Some(path_words) = words.get(..end) else {
        return Err(CommandError::structure("Missing the path of the script").hint("write process <path>"));
    };
    let mut path = String::new();
    for word in path_words.iter().step_by(2) {
        // an unset variable would name another file
        let text = match word.text.starts_with(['!', '$']) {
            true => reference(node, &word.text).ok_or_else(|| {
                CommandError::new(Status::NO_SCRIPT, format!("Failed to read script: '{}' has no value", word.text))
                    .hint("set the variables of the path first")
            })?,
            false => value_of(node, word),
        };
        path.push_str(super::super::condition::unquoted(&text.to_string()));
    }
    let arguments = words[end..].iter().map(|word| value_of(node, word).to_string()).collect();
    Ok((path, arguments))
}

async fn process(session: &mut Session, call: Invocation) -> CommandResult {
    let (path, arguments) = path_and_arguments(session, call.rest())?;
    let path = session.permit_path(&path)?;
    run_file(session, &path, &arguments).await?;
    if session.scripts.is_empty() {
        session.node.startup.mend();
    }
    Ok(Reply::Empty)
}

async fn thread(session: &mut Session, call: Invocation) -> CommandResult {
    let (path, arguments) = path_and_arguments(session, call.rest())?;
    let path = session.permit_path(&path)?;
    start_thread(session, &path, arguments).await?;
    Ok(Reply::Empty)
}

/// Asks the running script for a step.
fn steer(session: &mut Session, call: &Invocation, flow: Flow) -> CommandResult {
    let frame = session.scripts.last_mut().ok_or_else(|| outside_script(call))?;
    frame.flow = Some(flow);
    Ok(Reply::Empty)
}

fn label(call: &Invocation, words: &[Word]) -> Result<String, CommandError> {
    match words {
        [label] => Ok(label.text.trim_matches(':').to_owned()),
        _ => Err(CommandError::structure(format!("'{}' does not name one label", call.source))),
    }
}

async fn goto(session: &mut Session, call: Invocation) -> CommandResult {
    let label = label(&call, call.rest())?;
    steer(session, &call, Flow::Goto(label))
}

async fn call_label(session: &mut Session, call: Invocation) -> CommandResult {
    let label = label(&call, call.rest())?;
    steer(session, &call, Flow::Call(label))
}

async fn return_(session: &mut Session, call: Invocation) -> CommandResult {
    steer(session, &call, Flow::Return)
}

async fn end_script(session: &mut Session, call: Invocation) -> CommandResult {
    steer(session, &call, Flow::EndScript)
}

async fn exit_scripts(session: &mut Session, _: Invocation) -> CommandResult {
    session.node.scripts.end_all();
    Ok(Reply::Empty)
}

async fn on_error(session: &mut Session, call: Invocation) -> CommandResult {
    let words = call.rest();
    let policy = match words.first().map(|word| word.text.as_str()) {
        Some("ignore") if words.len() == 1 => OnError::Ignore,
        Some("goto") => OnError::Goto(label(&call, &words[1..])?),
        Some("call") => OnError::Call(label(&call, &words[1..])?),
        Some("end") if words.len() == 2 && is(&words[1], "script") => OnError::EndScript,
        Some("end_script" | "end-script") if words.len() == 1 => OnError::EndScript,
        _ => {
            return Err(CommandError::structure(format!("Unknown policy in '{}'", call.source))
                .hint("write on error ignore | goto <label> | call <label> | end script"));
        }
    };
    // at a terminal and in a list of commands there is no script whose policy it could be
    if let Some(frame) = session.scripts.last_mut() {
        frame.on_error = policy;
    }
    Ok(Reply::Empty)
}

/// The line is read when the script is loaded; as a command it does nothing but belong into a script.
async fn variables(_: &mut Session, call: Invocation) -> CommandResult {
    Err(outside_script(&call).hint("a script begins with the line: variables (name, name)"))
}
