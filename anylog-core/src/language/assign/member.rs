//! Members of JSON texts: `name[key] = value` and `set policy`.

use serde_json::Value as Json;

use super::super::condition::unquoted;
use super::super::execute::is;
use super::super::expand::{is_reference, value_of, value_of_text};
use super::super::lexer::{balanced, join};
use crate::command::{Value, Word};
use crate::reply::json;
use crate::{CommandError, Node, Status, json_text};

/// The keys of `[a]['b'][!c]`; references are resolved, quotes removed.
pub(super) fn keys(node: &Node, text: &str) -> Result<Vec<String>, CommandError> {
    let mut keys = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let end = balanced(text, at).filter(|_| text.as_bytes()[at] == b'[').ok_or_else(|| {
            CommandError::structure(format!("'{text}' is no list of keys")).hint("write [key1][key2]")
        })?;
        let raw = text[at + 1..end - 1].trim();
        let key = match raw.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')) {
            Some(inner) => inner.to_owned(),
            None if is_reference(raw) => value_of_text(node, raw).to_string(),
            None => unquoted(raw).to_owned(),
        };
        if key.is_empty() {
            return Err(CommandError::structure(format!("A key is empty in '{text}'")));
        }
        keys.push(key);
        at = end;
        while text[at..].starts_with(' ') {
            at += 1;
        }
    }
    Ok(keys)
}

/// A value as JSON: typed values keep their type, JSON texts become JSON, all else is a string without single quotes.
pub(super) fn json_of(node: &Node, value: Value) -> Json {
    match value {
        Value::Int(number) => Json::from(number),
        Value::Float(number) => Json::from(number),
        Value::Bool(value) => Json::from(value),
        Value::Text(text) => {
            let is_json = text.trim_start().starts_with(['{', '[']);
            let read = if is_json { json_text::read(node, &text).ok() } else { None };
            read.unwrap_or_else(|| Json::from(unquoted(&text)))
        }
    }
}

/// Changes one member of the JSON text that a parameter holds; an empty string removes it.
pub(super) fn update(node: &Node, name: &str, keys: &[String], value: Json, append: bool) -> Result<(), CommandError> {
    let mut root = match node.dictionary.get(name) {
        Some(text) => json_text::read(node, &text).map_err(|error| {
            let message = format!("'{name}' holds no JSON text whose members can be set: {}", error.message);
            CommandError { message, ..error }
        })?,
        None => Json::Object(serde_json::Map::new()),
    };
    let (last, parents) =
        keys.split_last().ok_or_else(|| CommandError::structure(format!("Missing [key] after '{name}'")))?;
    let mut parent = &mut root;
    for (depth, key) in parents.iter().enumerate() {
        parent = child(parent, key).ok_or_else(|| {
            let path: String = keys[..=depth].iter().map(|key| format!("[{key}]")).collect();
            CommandError::structure(format!("Error in depth of assignment key: '{name}' has no {path}"))
                .hint(format!("make it first: set policy {name} {path} = {{}}"))
        })?;
    }
    let remove = value.as_str() == Some("") && !append;
    match parent {
        Json::Object(members) if append => match members.entry(last.clone()).or_insert_with(|| Json::Array(Vec::new()))
        {
            Json::Array(items) => items.push(value),
            _ => return Err(CommandError::structure(format!("[{last}] of '{name}' is no list to append to"))),
        },
        Json::Object(members) if remove => drop(members.shift_remove(last)),
        Json::Object(members) => drop(members.insert(last.clone(), value)),
        Json::Array(items) => match last.parse::<usize>().ok().filter(|index| *index < items.len()) {
            Some(index) if remove => drop(items.remove(index)),
            Some(index) => items[index] = value,
            None => {
                return Err(CommandError::structure(format!("The list in '{name}' has no element [{last}]"))
                    .hint(format!("it has {} elements, counted from 0", items.len())));
            }
        },
        _ => {
            return Err(CommandError::structure(format!(
                "Error in depth of assignment key: [{last}] of '{name}' lies in a plain value"
            )));
        }
    }
    node.dictionary.set(name, json::text(&root));
    Ok(())
}

fn child<'a>(parent: &'a mut Json, key: &str) -> Option<&'a mut Json> {
    let inner = match parent {
        Json::Object(members) => members.get_mut(key)?,
        Json::Array(items) => items.get_mut(key.parse::<usize>().ok()?)?,
        _ => return None,
    };
    matches!(inner, Json::Object(_) | Json::Array(_)).then_some(inner)
}

/// `set policy name [k1][k2] = v and [k3] = v2`; `words` are those after `set policy`.
pub(crate) fn set_policy(node: &Node, words: &[Word]) -> Result<(), CommandError> {
    let usage = "write set policy <name> [key1][key2] = <value> [and [key3] = <value>]";
    let Some((first, rest)) = words.split_first() else {
        return Err(CommandError::structure("Missing the name of the policy").hint(usage));
    };
    let text = first.text.strip_prefix('!').unwrap_or(&first.text);
    let (name, glued) = text.split_at(text.find('[').unwrap_or(text.len()));
    if name.is_empty() {
        return Err(CommandError::structure("Missing the name of the policy").hint(usage));
    }
    let mut glued = glued.to_owned();
    for term in split_terms(rest) {
        let sign = term.iter().position(|word| is(word, "=") || is(word, "+"));
        let Some((before, sign, value)) = sign.map(|at| (&term[..at], &term[at], &term[at + 1..])) else {
            return Err(CommandError::structure(format!("Missing '=' in '{}{}'", glued, join(term))).hint(usage));
        };
        let mut key_text = std::mem::take(&mut glued);
        for word in before {
            key_text.push_str(&word.text);
        }
        if value.is_empty() {
            return Err(CommandError::structure(format!("Missing value of {key_text}"))
                .hint("to remove a member assign \"\" to it"));
        }
        update(node, name, &keys(node, &key_text)?, policy_value(node, value)?, is(sign, "+"))?;
    }
    Ok(())
}

/// Splits at each `and` that a key follows; another `and` belongs to a text.
fn split_terms(words: &[Word]) -> Vec<&[Word]> {
    let mut terms = Vec::new();
    let mut start = 0;
    for (at, word) in words.iter().enumerate() {
        let key_follows = words.get(at + 1).is_some_and(|next| !next.quoted && next.text.starts_with('['));
        if is(word, "and") && key_follows {
            terms.push(&words[start..at]);
            start = at + 1;
        }
    }
    terms.push(&words[start..]);
    terms
}

fn policy_value(node: &Node, words: &[Word]) -> Result<Json, CommandError> {
    match words {
        [word] if word.quoted && !is_reference(&word.text) => Ok(Json::from(unquoted(&word.text))),
        [word] if !word.quoted && word.text.starts_with(['{', '[']) => {
            json_text::read(node, &word.text).map_err(|error| {
                CommandError::new(Status::JSON_STRUCTURE, format!("'{}' is not JSON: {}", word.text, error.message))
            })
        }
        [word] => Ok(json_of(node, value_of(node, word))),
        _ => Ok(json_of(node, super::literal(node, words)?)),
    }
}
