//! Debugging of scripts.

use std::sync::Arc;

use super::super::script::{Mode, Release};
use super::flow;
use crate::command::{Command, CommandResult, Declaration, Invocation, OptionKind, Positional, PositionalKind};
use crate::{CommandError, Reply, Session, Status, Surface, command};

pub(super) fn commands() -> Vec<Arc<dyn Command>> {
    let modes = Positional {
        name: "mode",
        kind: PositionalKind::Word(OptionKind::Choice(&["on", "off", "interactive"])),
        required: true,
        help: "shows each command, or lets it wait for 'next'",
    };
    vec![
        flow!(
            Declaration::new("set debug", "Shows each command of the scripts of a thread.")
                .positional(modes)
                .optional_word("thread", "another thread than this one")
                .returns("nothing; each command is shown before it runs")
                .example("set debug on"),
            set_debug
        ),
        flow!(
            Declaration::new("next", "Runs the next command of a thread that is debugged.")
                .optional_word("thread", "needed when several are debugged")
                .returns("nothing; an error when no thread waits")
                .example("next"),
            next
        ),
        flow!(
            Declaration::new("continue", "Runs the remaining commands of a thread that is debugged.")
                .optional_word("thread", "needed when several are debugged")
                .returns("nothing; an error when no thread waits")
                .example("continue"),
            continue_
        ),
        flow!(
            Declaration::new("stop", "Ends the script of a thread that is debugged.")
                .optional_word("thread", "the thread, or all")
                .returns("nothing; an error when no thread waits")
                .example("stop"),
            stop
        ),
    ]
}

async fn set_debug(session: &mut Session, call: Invocation) -> CommandResult {
    let thread = call.positional("thread").unwrap_or(&session.thread);
    let mode = match call.positional("mode") {
        Some("off") => None,
        Some("interactive") => {
            let own = thread == session.thread && session.scripts.is_empty();
            if own || (thread == "main" && session.caller.surface == Surface::Terminal) {
                return Err(CommandError::new(
                    Status::DEBUG_REFUSED,
                    format!("The thread '{thread}' reads the input and cannot wait for 'next'"),
                )
                .hint("run the script with: thread <path>, and name that thread"));
            }
            Some(Mode::Interactive)
        }
        _ => Some(Mode::On),
    };
    session.node.scripts.set_debug(thread, mode);
    Ok(Reply::Empty)
}

async fn next(session: &mut Session, call: Invocation) -> CommandResult {
    release(session, &call, Release::Next)
}

async fn continue_(session: &mut Session, call: Invocation) -> CommandResult {
    release(session, &call, Release::Continue)
}

async fn stop(session: &mut Session, call: Invocation) -> CommandResult {
    release(session, &call, Release::Stop)
}

fn release(session: &Session, call: &Invocation, release: Release) -> CommandResult {
    let scripts = &session.node.scripts;
    let waiting = scripts.interactive();
    let chosen: Vec<&String> = match (call.positional("thread"), waiting.as_slice()) {
        (Some("all"), all) => all.iter().collect(),
        (Some(name), all) => all.iter().filter(|thread| *thread == name).collect(),
        (None, [only]) => vec![only],
        (None, _) => Vec::new(),
    };
    if chosen.is_empty() {
        let error = CommandError::parameter("No thread to go on with was named, or it is not debugged interactively");
        return Err(match waiting.is_empty() {
            true => error.hint("start with: set debug interactive <thread>"),
            false => error.hint(format!("name one of: {}", waiting.join(", "))),
        });
    }
    for thread in chosen {
        scripts.release(thread, release);
    }
    Ok(Reply::Empty)
}
