//! The commands that steer other commands: conditions, jumps, scripts, waiting, debugging.

mod debugging;
mod scripts;
mod waiting;

use std::sync::Arc;

use super::condition::Condition;
use super::execute::{Then, is};
use super::expand::value_of;
use super::where_list::strict;
use crate::command::{Command, CommandResult, Declaration, Invocation, Method, Value, Word};
use crate::{CommandError, Node, Reply, Session, Status, command};

/// Registers the commands of this module.
pub(crate) fn register_flow(node: &Arc<Node>) {
    let commands =
        conditions().into_iter().chain(scripts::commands()).chain(waiting::commands()).chain(debugging::commands());
    node.registry.register_all(commands).expect("invariant: the flow commands are declared once");
}

/// A command that works on the session alone.
macro_rules! flow {
    ($declaration:expr, $handler:path) => {
        command($declaration, Arc::new(()), |_, session, call| Box::pin($handler(session, call)))
    };
}
use flow;

/// A flow command checks no rights of its own: the command inside is checked when it runs.
fn open(words: &'static str, summary: &'static str) -> Declaration {
    Declaration::new(words, summary).reads().method(Method::Any)
}

fn conditions() -> Vec<Arc<dyn Command>> {
    vec![
        flow!(
            open("if", "Tests a condition; 'do' and 'else' lines that follow depend on it.")
                .grammar("<condition> [then [<command>]]")
                .returns("True or False without 'then', else the answer of the command")
                .example("if !port.int > 32000 and not !policy then print ready"),
            if_
        ),
        flow!(
            open("do", "Runs a command when the last condition was true.")
                .grammar("<command>")
                .returns("the answer of the command")
                .example("do print ready"),
            do_
        ),
        flow!(
            open("else", "Runs a command when the last condition was false.")
                .grammar("<command>")
                .returns("the answer of the command")
                .example("else goto not_ready"),
            else_
        ),
        flow!(
            open("incr", "Adds to an integer.")
                .grammar("<value> [<step>]")
                .returns("the sum")
                .example("counter = incr !counter"),
            incr
        ),
        flow!(
            Declaration::new("set policy", "Changes members of a policy that a parameter holds.")
                .grammar("<name> [key][key] = <value> [and [key] = <value> ...] | <name> [key] + <element>")
                .returns("nothing; the parameter holds the changed policy")
                .example("set policy new_policy [operator][port] = !anylog_server_port.int"),
            set_policy
        ),
    ]
}

/// The condition in `words`, up to `then`, and the index of the word after `then`.
fn condition(words: &[Word]) -> Result<(Condition, Option<usize>), CommandError> {
    let then = words.iter().position(|word| is(word, "then"));
    let condition = Condition::parse(&words[..then.unwrap_or(words.len())])?;
    Ok((condition, then.map(|then| then + 1)))
}

fn test(session: &Session, condition: &Condition) -> Result<bool, CommandError> {
    let node = &session.node;
    condition.evaluate(&|word| value_of(node, word))
}

fn truth(value: bool) -> Reply {
    Reply::Text(if value { "True" } else { "False" }.to_owned())
}

async fn if_(session: &mut Session, call: Invocation) -> CommandResult {
    let (condition, command) = condition(call.rest())?;
    let result = test(session, &condition)?;
    session.if_flag = Some(result);
    let text = command.map(|command| call.text_from(call.key_words + command));
    match text {
        None => Ok(truth(result)),
        Some("") if call.assign_to.is_some() => Ok(truth(result)),
        Some("") => Ok(Reply::Empty),
        Some(text) => {
            if result {
                session.then = Some(Then::new(text, Some(result)));
            }
            Ok(Reply::Empty)
        }
    }
}

async fn do_(session: &mut Session, call: Invocation) -> CommandResult {
    branch(session, &call, "do", true)
}

async fn else_(session: &mut Session, call: Invocation) -> CommandResult {
    branch(session, &call, "else", false)
}

fn branch(session: &mut Session, call: &Invocation, word: &str, when: bool) -> CommandResult {
    let text = call.rest_text();
    if text.is_empty() {
        return Err(CommandError::structure(format!("Missing the command after '{word}'"))
            .hint(format!("write {word} <command> on one line")));
    }
    match session.if_flag {
        None => Err(CommandError::structure(format!("'{word}' without an 'if' before it: '{word} {text}'"))),
        Some(flag) => {
            if flag == when {
                session.then = Some(Then::new(text, None));
            }
            Ok(Reply::Empty)
        }
    }
}

async fn incr(session: &mut Session, call: Invocation) -> CommandResult {
    let integer = |word: &Word| -> Result<i64, CommandError> {
        let value = strict(&session.node, word)?;
        let number = match &value {
            Value::Int(number) => Some(*number),
            other => other.to_string().trim().parse().ok(),
        };
        number.ok_or_else(|| CommandError::parameter(format!("'{value}' ({}) is not an integer", word.text)))
    };
    let (value, step) = match call.rest() {
        [value] => (integer(value)?, 1),
        [value, step] => (integer(value)?, integer(step)?),
        _ => {
            return Err(
                CommandError::structure("'incr' takes a value and a step").hint("write n = incr !n, or n = incr !n 5")
            );
        }
    };
    let sum =
        value.checked_add(step).ok_or_else(|| CommandError::parameter(format!("{value} + {step} is too large")))?;
    Ok(Reply::Text(sum.to_string()))
}

async fn set_policy(session: &mut Session, call: Invocation) -> CommandResult {
    super::assign::set_policy(&session.node, call.rest())?;
    Ok(Reply::Empty)
}

/// An error for a command that has a meaning only inside a script.
fn outside_script(call: &Invocation) -> CommandError {
    CommandError::new(Status::SCRIPT_COMMAND, format!("'{}' works only in a script", call.source))
        .hint("put the commands in a file and run it with: process <path>")
}
