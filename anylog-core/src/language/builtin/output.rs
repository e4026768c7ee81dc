//! Printing, and the queue of messages for the terminal.

use std::sync::Arc;

use super::simple;
use crate::command::{Command, CommandResult, Declaration, Invocation, Method, OptionKind, Value};
use crate::language::expand::value_of;
use crate::{CommandError, Node, Reply, Session, json_text};

/// Messages that the echo queue keeps unless it is reset to another size.
const ECHO_ENTRIES: usize = 20;

pub(super) fn commands() -> Vec<Arc<dyn Command>> {
    vec![
        simple(
            Declaration::new(
                "print",
                "Prints its words; a reference is replaced by its value, an unset one by nothing.",
            )
            .method(Method::Any)
            .grammar("<word> ...")
            .returns("nothing: the text goes to the terminal of who runs it")
            .example("print \"Operator \" !node_name \" is up\""),
            print,
        ),
        simple(
            Declaration::new("echo", "Puts its words into the echo queue; prints them when the queue is off.")
                .method(Method::Any)
                .grammar("<word> ...")
                .returns("nothing: the text goes to the queue or to the terminal")
                .example("echo \"partition dropped: \" !partition_name"),
            echo,
        ),
        simple(
            Declaration::new(
                "set echo queue",
                "Keeps messages of echo and of failed scripts instead of printing them.",
            )
            .word("state", "on or off")
            .returns("nothing")
            .example("set echo queue on"),
            set_echo_queue,
        ),
        simple(
            Declaration::new("get echo queue", "Shows the messages in the echo queue.")
                .reads()
                .returns("one line per message, or `Message Queue not declared`")
                .example("get echo queue"),
            get_echo_queue,
        ),
        simple(
            Declaration::new("reset echo queue", "Empties the echo queue.")
                .option("size", OptionKind::Int, "messages kept from now on")
                .default_is("20")
                .returns("nothing")
                .example("reset echo queue where size = 50"),
            reset_echo_queue,
        ),
        simple(
            Declaration::new("set output table width", "Sets the width at which the cells of tables wrap.")
                .positional(crate::command::Positional {
                    name: "width",
                    kind: crate::command::PositionalKind::Word(OptionKind::Int),
                    required: true,
                    help: "characters, at least 40",
                })
                .returns("nothing")
                .example("set output table width 120"),
            set_output_width,
        ),
        simple(
            Declaration::new("set cli", "Turns reading of commands from the terminal on or off.")
                .word("state", "on or off")
                .returns("nothing")
                .example("set cli off"),
            set_cli,
        ),
    ]
}

/// `on` or `off`.
pub(super) fn on_off(call: &Invocation, name: &str) -> Result<bool, CommandError> {
    let state = call.expect_positional(name)?;
    match state.to_lowercase().as_str() {
        "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        _ => Err(CommandError::structure(format!("'{state}' is neither 'on' nor 'off'"))),
    }
}

/// The words of a call with references replaced, joined by blanks.
fn joined(node: &Node, call: &Invocation) -> String {
    let shown = |word: &crate::command::Word| match value_of(node, word) {
        Value::Text(text) => match text.strip_prefix('\'').and_then(|inner| inner.strip_suffix('\'')) {
            Some(inner) => inner.to_owned(),
            None => text,
        },
        other => other.to_string(),
    };
    call.rest().iter().map(shown).collect::<Vec<_>>().join(" ")
}

fn print(session: &mut Session, call: &Invocation) -> CommandResult {
    let text = joined(&session.node, call);
    session.console.print(&text);
    Ok(Reply::Empty)
}

fn echo(session: &mut Session, call: &Invocation) -> CommandResult {
    let mut text = joined(&session.node, call);
    if text.trim_start().starts_with(['{', '[']) {
        text = json_text::expand(&session.node, &text);
    }
    if session.node.echo.is_enabled() {
        session.node.echo.add(session.node.clock.now(), &session.thread, "echo", text);
    } else {
        session.console.print(&text);
    }
    Ok(Reply::Empty)
}

fn set_echo_queue(session: &mut Session, call: &Invocation) -> CommandResult {
    let on = on_off(call, "state")?;
    if on && !session.node.echo.is_enabled() {
        session.node.echo.set_limit(ECHO_ENTRIES);
    }
    session.node.echo.set_enabled(on);
    Ok(Reply::Empty)
}

fn get_echo_queue(session: &mut Session, _: &Invocation) -> CommandResult {
    if !session.node.echo.is_enabled() {
        return Ok("Message Queue not declared".into());
    }
    let line = |message: crate::node::messages::Message| {
        let times = if message.count > 1 { format!(" ({} times)", message.count) } else { String::new() };
        format!("[{}] [{}] {}{times}", crate::time::stored(message.time), message.thread, message.text)
    };
    Ok(session.node.echo.messages().into_iter().map(line).collect::<Vec<_>>().join("\r\n").into())
}

fn reset_echo_queue(session: &mut Session, call: &Invocation) -> CommandResult {
    session.node.echo.clear();
    if let Some(size) = call.options.int("size") {
        let size = usize::try_from(size).ok().filter(|size| (1..=10_000).contains(size));
        session
            .node
            .echo
            .set_limit(size.ok_or_else(|| CommandError::parameter("The echo queue keeps 1 to 10000 messages"))?);
    }
    Ok(Reply::Empty)
}

fn set_output_width(session: &mut Session, call: &Invocation) -> CommandResult {
    let text = call.expect_positional("width")?;
    let width: usize = text
        .parse()
        .ok()
        .filter(|width| (40..=10_000).contains(width))
        .ok_or_else(|| CommandError::parameter(format!("'{text}' is not a width between 40 and 10000")))?;
    session.node.set_output_width(width);
    Ok(Reply::Empty)
}

fn set_cli(session: &mut Session, call: &Invocation) -> CommandResult {
    session.node.set_terminal(on_off(call, "state")?);
    Ok(Reply::Empty)
}
