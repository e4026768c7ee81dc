//! Help, derived from the declarations.

use std::sync::Arc;

use super::simple;
use crate::command::{Command, CommandResult, Declaration, Invocation};
use crate::language::reference;
use crate::{CommandError, Reply, Session, Status, Table};

pub(super) fn commands() -> Vec<Arc<dyn Command>> {
    vec![
        simple(
            Declaration::new("help", "Shows the commands that begin with some words, or all about one.")
                .reads()
                .grammar("[<word> ...]")
                .returns("a list of commands with their summaries, or usage, options, access and examples of one")
                .example("help run operator"),
            help,
        ),
        simple(
            Declaration::new("help index", "Shows the first words of commands, or the commands that mention a word.")
                .reads()
                .grammar("[<word>]")
                .returns("a list")
                .example("help index partition"),
            index,
        ),
    ]
}

fn words_of(call: &Invocation) -> String {
    let words: Vec<&str> = call.rest().iter().map(|word| word.text.as_str()).collect();
    words.join(" ")
}

fn help(session: &mut Session, call: &Invocation) -> CommandResult {
    let words = words_of(call);
    let commands = session.node.registry.commands();
    let declarations: Vec<&Declaration> = commands.iter().map(|command| command.declaration()).collect();
    if words.is_empty() {
        return Ok(listing(session, &declarations));
    }
    let begins = |declaration: &&&Declaration| {
        declaration.keys().any(|key| key == words || key.strip_prefix(&words).is_some_and(|rest| rest.starts_with(' ')))
    };
    let found: Vec<&Declaration> = declarations.iter().filter(begins).copied().collect();
    let exact = declarations.iter().find(|declaration| declaration.keys().any(|key| key == words)).copied();
    match (exact, found.as_slice()) {
        (Some(only), [_]) => Ok(reference::text(only).into()),
        (None, [only]) => Ok(reference::text(only).into()),
        (Some(exact), many) => {
            let longer: Vec<&Declaration> = many.iter().filter(|other| other.words != exact.words).copied().collect();
            let list = listing(session, &longer);
            let Reply::Table(list) = list else { return Ok(list) };
            Ok(format!("{}\r\n{list}", reference::text(exact)).into())
        }
        (None, []) => Err(unknown(session, &words)),
        (None, many) => Ok(listing(session, many)),
    }
}

fn unknown(session: &Session, words: &str) -> CommandError {
    let error = CommandError::new(Status::UNRECOGNIZED_COMMAND, format!("No command begins with '{words}'"));
    match session.node.registry.suggest(&words.split(' ').collect::<Vec<_>>()) {
        Some(known) => error.hint(format!("did you mean '{known}'?")),
        None => error.hint("find commands by a word: help index <word>"),
    }
}

fn listing(session: &Session, declarations: &[&Declaration]) -> Reply {
    let mut table = Table::new(["Command", "Summary"]).max_width(session.node.output_width());
    for declaration in declarations {
        table.push([declaration.words, declaration.summary]);
    }
    table.into()
}

fn index(session: &mut Session, call: &Invocation) -> CommandResult {
    let word = words_of(call).to_lowercase();
    let commands = session.node.registry.commands();
    if word.is_empty() {
        let mut firsts: Vec<&str> =
            commands.iter().filter_map(|command| command.declaration().words.split(' ').next()).collect();
        firsts.dedup();
        return Ok(firsts.join("\r\n").into());
    }
    let mentions = |declaration: &&Declaration| {
        let options = declaration.options.iter().flat_map(|option| [option.name, option.help]);
        let texts = declaration.keys().chain([declaration.summary]).chain(options);
        texts.map(str::to_lowercase).any(|text| text.contains(&word))
    };
    let found: Vec<&Declaration> = commands.iter().map(|command| command.declaration()).filter(mentions).collect();
    if found.is_empty() { Err(unknown(session, &word)) } else { Ok(listing(session, &found)) }
}
