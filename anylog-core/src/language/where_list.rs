//! Where-lists: `key = value and key = value`, checked against a command's declaration.
//!
//! Terms are separated by the word `and`; one at the end is tolerated. Several words on a side of `=` are joined as they
//! stand (`time = 30 seconds`). Keys and values may be references; an unset one is an error. A value in parentheses adds
//! several values to an option that may repeat (`(a, b)`), or is a list of its own for a nested option, inside which any key may
//! stand and further parentheses stay text for the command to read.

mod convert;

use super::condition::unquoted;
use super::expand::{is_reference, reference, value_of};
use super::lexer::join;
use crate::command::{Declaration, OptionKind, OptionSpec, OptionValue, Options, Value, Word};
use crate::error::nearest;
use crate::{CommandError, Node};
pub(crate) use convert::positional_fits;

/// Reads the where-list of a declared command; `words` are those after `where`.
///
/// The options come under their declared names, whatever alias was used.
///
/// # Errors
/// [`Status::COMMAND_STRUCTURE`](crate::Status::COMMAND_STRUCTURE): a term without `=`, an unknown or missing key, a unique key
/// with several values, the same pair twice, an unset reference, a value that is not of the declared type.
pub fn parse(node: &Node, declaration: &Declaration, words: &[Word]) -> Result<Options, CommandError> {
    let mut options = Options::default();
    let mut given: Vec<(String, String)> = Vec::new();
    for term in terms(words)? {
        let key = key_of(node, term.key)?;
        let Some(spec) = spec_of(declaration, &key) else {
            if !declaration.any_option {
                return Err(unknown_key(declaration, &key));
            }
            let value = value_or_text(node, &key, term.value)?;
            note(&mut given, &key, &value.to_string(), false)?;
            options.push(key, OptionValue::Value(value));
            continue;
        };
        for value in values(node, spec, term.value)? {
            note(&mut given, spec.name, &value.to_string(), spec.repeated)?;
            options.push(spec.name, convert::convert(node, spec, value)?);
        }
    }
    match declaration.options.iter().find(|spec| spec.required && !options.has(spec.name)) {
        Some(spec) => Err(CommandError::structure(format!(
            "Missing '{}' in command variables of '{}'",
            spec.name, declaration.words
        ))
        .hint(format!("usage: {}", declaration.usage()))),
        None => Ok(options),
    }
}

/// Reads a where-list that takes any key. Values are resolved; those in parentheses stay text, so that their reader can
/// hand the inside to [`lex`](super::lexer::lex) and this function again. A key may repeat.
///
/// # Errors
/// [`Status::COMMAND_STRUCTURE`](crate::Status::COMMAND_STRUCTURE): a term without `=`, an unset reference.
pub fn parse_any(node: &Node, words: &[Word]) -> Result<Options, CommandError> {
    let mut options = Options::default();
    for term in terms(words)? {
        let key = key_of(node, term.key)?;
        let value = value_or_text(node, &key, term.value)?;
        options.push(key, OptionValue::Value(value));
    }
    Ok(options)
}

struct Term<'a> {
    key: &'a [Word],
    value: &'a [Word],
}

fn is(word: &Word, text: &str) -> bool {
    !word.quoted && word.text == text
}

/// Splits the list into terms and each term at its first `=`.
fn terms(words: &[Word]) -> Result<Vec<Term<'_>>, CommandError> {
    let mut parts: Vec<&[Word]> = words.split(|word| is(word, "and")).collect();
    // nothing after the last `and` is tolerated
    if parts.last().is_some_and(|part| part.is_empty()) {
        parts.pop();
    }
    if parts.is_empty() {
        return Err(CommandError::structure("The list of options is empty: expected key = value"));
    }
    parts.into_iter().map(split_term).collect()
}

fn split_term(words: &[Word]) -> Result<Term<'_>, CommandError> {
    let Some(sign) = words.iter().position(|word| is(word, "=")) else {
        let text = join(words);
        return Err(if text.is_empty() {
            CommandError::structure("A term is missing between two 'and'")
        } else {
            CommandError::structure(format!("Missing '=' in '{text}'")).hint("write key = value and key = value")
        });
    };
    let (key, value) = (&words[..sign], &words[sign + 1..]);
    let shown = join(key);
    if key.is_empty() {
        return Err(CommandError::structure(format!("Missing key before '= {}'", join(value))));
    }
    if value.is_empty() {
        return Err(CommandError::structure(format!("Missing value of '{shown}'"))
            .hint("a value that begins with # or has blanks or '=' needs double quotes"));
    }
    // `a = 1 b = 2`: a second pair, not a value with '=' in it such as `host=1`
    if let Some(second) = value.iter().position(|word| is(word, "=")).filter(|second| *second >= 2) {
        let before = &value[second - 1];
        if value[second - 2].span.end < before.span.start {
            return Err(CommandError::structure(format!("Missing 'and' before '{} ='", before.text))
                .hint("put a value that holds '=' in double quotes"));
        }
    }
    Ok(Term { key, value })
}

fn key_of(node: &Node, words: &[Word]) -> Result<String, CommandError> {
    resolve(node, "key", words).map(|value| value.to_string())
}

fn unset(reference: &str) -> CommandError {
    CommandError::structure(format!("Missing dictionary definition for: '{reference}'"))
        .hint(format!("set it first: set {} = <value>", reference.trim_start_matches('!')))
}

/// The value of one word; an unset reference is an error.
pub(crate) fn strict(node: &Node, word: &Word) -> Result<Value, CommandError> {
    if is_reference(&word.text) {
        return reference(node, &word.text).filter(|value| !value.is_empty()).ok_or_else(|| unset(&word.text));
    }
    match value_of(node, word) {
        // '...' keeps a text from being expanded; the quotes are no part of it
        Value::Text(text) if !word.quoted => Ok(Value::Text(unquoted(&text).to_owned())),
        value => Ok(value),
    }
}

/// The value of one side of a term.
fn resolve(node: &Node, name: &str, words: &[Word]) -> Result<Value, CommandError> {
    if let [word] = words {
        let value = strict(node, word)?;
        if value.is_empty() {
            return Err(CommandError::structure(format!("The value of '{name}' is empty")));
        }
        return Ok(value);
    }
    let resolved: Result<Vec<Word>, CommandError> = words
        .iter()
        .map(|word| Ok(Word { text: strict(node, word)?.to_string(), quoted: word.quoted, span: word.span.clone() }))
        .collect();
    Ok(Value::Text(join(&resolved?)))
}

fn in_parentheses(words: &[Word]) -> Option<&str> {
    match words {
        [word] if !word.quoted => word.text.strip_prefix('(')?.strip_suffix(')'),
        _ => None,
    }
}

fn value_or_text(node: &Node, key: &str, words: &[Word]) -> Result<Value, CommandError> {
    match (in_parentheses(words), words) {
        (Some(_), [word]) => Ok(Value::Text(word.text.clone())),
        _ => resolve(node, key, words),
    }
}

/// The values of a term: several when a repeatable option is given a list in parentheses.
fn values(node: &Node, spec: &OptionSpec, words: &[Word]) -> Result<Vec<Value>, CommandError> {
    let splits = spec.repeated && !matches!(spec.kind, OptionKind::Nested | OptionKind::Columns | OptionKind::Json);
    let Some(inner) = in_parentheses(words).filter(|_| splits) else {
        return Ok(vec![value_or_text(node, spec.name, words)?]);
    };
    let items = inner.split(',').map(|item| item.trim().trim_matches('"')).filter(|item| !item.is_empty());
    items
        .map(|item| match is_reference(item) {
            true => reference(node, item).ok_or_else(|| unset(item)),
            false => Ok(Value::Text(item.to_owned())),
        })
        .collect()
}

fn spec_of<'a>(declaration: &'a Declaration, key: &str) -> Option<&'a OptionSpec> {
    declaration.options.iter().find(|spec| spec.name == key || spec.aliases.contains(&key))
}

fn unknown_key(declaration: &Declaration, key: &str) -> CommandError {
    let names =
        declaration.options.iter().flat_map(|spec| std::iter::once(spec.name).chain(spec.aliases.iter().copied()));
    let error = CommandError::structure(format!("Unknown key in AnyLog command: '{key}' in '{}'", declaration.words));
    if let Some(meant) = nearest(key, names) {
        return error.hint(format!("did you mean '{meant}'?"));
    }
    let known: Vec<&str> = declaration.options.iter().map(|spec| spec.name).collect();
    if known.is_empty() { error } else { error.hint(format!("keys of this command: {}", known.join(", "))) }
}

/// Remembers a pair and refuses what may not repeat.
fn note(given: &mut Vec<(String, String)>, key: &str, value: &str, repeated: bool) -> Result<(), CommandError> {
    for (known, other) in given.iter().filter(|(known, _)| known == key) {
        if other == value {
            return Err(CommandError::structure(format!("Duplicate key value pair: {known} = {value}")));
        }
        if !repeated {
            return Err(CommandError::structure(format!(
                "Multiple values to key: {known} = {other} and {known} = {value}"
            )));
        }
    }
    given.push((key.to_owned(), value.to_owned()));
    Ok(())
}

#[cfg(test)]
mod tests;
