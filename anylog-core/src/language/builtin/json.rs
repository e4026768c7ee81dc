//! JSON texts: `json`, `from ... bring`.

use std::sync::Arc;

use super::simple;
use crate::bring::Bring;
use crate::command::{Command, CommandResult, Declaration, Invocation, Method, Word};
use crate::language::expand::reference;
use crate::{CommandError, Node, Reply, Session, json_text};

pub(super) fn commands() -> Vec<Arc<dyn Command>> {
    vec![
        simple(
            Declaration::new("json", "Shows a JSON text with its references replaced, or tests that it is one.")
                .method(Method::Any)
                .grammar("!<name> | {...} [test]")
                .returns("the JSON text; with `test`: true or false")
                .example("json !new_policy")
                .example("is_policy = json !new_policy test"),
            json,
        ),
        simple(
            Declaration::new("from", "Takes values out of a JSON object or list.")
                .method(Method::Any)
                .grammar("!<name>[(<element>)] bring[.<modifier> ...] [<key>] ... [separator = <text>]")
                .returns("the values as text, a list, JSON or a table, as the modifiers say")
                .example("from !conn_info bring [Messaging][external]")
                .example("from !policies(2) bring [operator][ip] \":\" [operator][port]"),
            from,
        ),
    ]
}

/// The JSON text that a word holds or names.
fn text_of(node: &Node, word: &Word) -> Result<String, CommandError> {
    if !word.text.starts_with(['!', '$']) {
        return Ok(word.text.clone());
    }
    reference(node, &word.text).map(|value| value.to_string()).ok_or_else(|| {
        CommandError::structure(format!("Missing dictionary definition for: '{}'", word.text))
            .hint("list what is defined with: get dictionary")
    })
}

fn json(session: &mut Session, call: &Invocation) -> CommandResult {
    let (word, test) = match call.rest() {
        [word] => (word, false),
        [word, test] if test.text == "test" => (word, true),
        [_, other] => {
            return Err(CommandError::structure(format!("Unknown word '{}' after 'json'", other.text))
                .hint("write: json !name, or: json !name test"));
        }
        _ => return Err(CommandError::structure("'json' takes one JSON text").hint("write: json !name [test]")),
    };
    let value = text_of(&session.node, word).and_then(|text| json_text::read(&session.node, &text));
    match (value, test) {
        (value, true) => Ok(if value.is_ok() { "true" } else { "false" }.into()),
        (value, false) => value.map(Reply::Json),
    }
}

fn from(session: &mut Session, call: &Invocation) -> CommandResult {
    let words = call.rest();
    let is_bring = |word: &Word| !word.quoted && word.text.starts_with("bring");
    let (Some(source), Some(at)) = (words.first(), words.iter().skip(1).position(is_bring)) else {
        return Err(
            CommandError::structure("'from' needs a JSON text and what to bring").hint("write: from !name bring [key]")
        );
    };
    let bring = Bring::parse(call.text_from(call.key_words + 1 + at), Some(&session.node))?;
    if bring.ip_port() || bring.children() || bring.parents() {
        return Err(CommandError::structure("'ip_port', 'children' and 'parents' look into the ledger")
            .hint("use: blockchain get ... bring.ip_port"));
    }
    let (name, element) = element(source)?;
    let value = json_text::read(&session.node, &text_of(&session.node, &name)?)?;
    let documents: Vec<&serde_json::Value> = match (&value, element) {
        (serde_json::Value::Array(elements), Some(index)) => vec![elements.get(index).ok_or_else(|| {
            CommandError::parameter(format!("'{}' has no element {index}", name.text))
                .hint(format!("it has {}; elements are counted from 0", elements.len()))
        })?],
        (_, Some(_)) => return Err(CommandError::parameter(format!("'{}' is not a list", name.text))),
        (serde_json::Value::Array(elements), None) => elements.iter().collect(),
        (other, None) => vec![other],
    };
    bring.evaluate(&documents)
}

/// Cuts `!list(2)` into the reference and the number of the element.
fn element(word: &Word) -> Result<(Word, Option<usize>), CommandError> {
    let call = word.text.strip_suffix(')').filter(|text| text.starts_with('!')).and_then(|text| text.split_once('('));
    let Some((name, index)) = call else { return Ok((word.clone(), None)) };
    let index = index.trim().parse().map_err(|_| {
        CommandError::structure(format!("'{index}' is not the number of an element in '{}'", word.text))
    })?;
    Ok((Word { text: name.to_owned(), ..word.clone() }, Some(index)))
}
