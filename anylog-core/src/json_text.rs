//! JSON as people write it in commands: with references inside, single quotes, and other spellings.
//!
//! A command that *uses* a JSON text calls [`read`]; until then the text is kept as written, references included.
//!
//! ```
//! use anylog_core::{Node, json_text};
//! let node = Node::builder().build();
//! node.dictionary.set("company", "New Company");
//! node.dictionary.set("port", "32148");
//! let policy = json_text::read(&node, r#"{'operator': {"company": !company, "port": !port.int, "main": True}}"#).unwrap();
//! assert_eq!(policy, serde_json::json!({"operator": {"company": "New Company", "port": 32148, "main": true}}));
//! ```

use serde_json::Value as Json;

use crate::command::Value;
use crate::language::expand::reference;
use crate::{CommandError, Node, Status};

/// How deep references to JSON texts that hold references are followed.
const MAX_DEPTH: usize = 8;

/// The most text that expansion makes, in bytes.
const MAX_EXPANDED: usize = 16 * 1024 * 1024;

/// Replaces every reference `!name` outside quotes by its value as JSON: text in quotes, typed references (`!port.int`)
/// bare, a value that is an object or a list bare, with its own references replaced. An unset reference stays as it is.
///
/// A reference follows the start of the text, a blank, `:`, `,`, `[` or `{`.
#[must_use]
pub fn expand(node: &Node, text: &str) -> String {
    expand_to(node, text, 0)
}

fn expand_to(node: &Node, text: &str, depth: usize) -> String {
    let mut out = String::with_capacity(text.len());
    let mut quote = None;
    let mut escaped = false;
    let mut before = ' ';
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        let starts_reference = quote.is_none() && c == '!' && (before.is_whitespace() || ":,[{".contains(before));
        before = c;
        if starts_reference && out.len() < MAX_EXPANDED {
            let name = reference_at(&text[at..]);
            if let Some(value) = Some(name).filter(|name| name.len() > 1).and_then(|name| reference(node, name)) {
                out.push_str(&as_json(node, &value, depth));
                for _ in 1..name.chars().count() {
                    before = chars.next().map_or(' ', |(_, c)| c);
                }
                continue;
            }
        }
        match quote {
            Some(open) if c == open && !escaped => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            _ => {}
        }
        escaped = quote.is_some() && c == '\\' && !escaped;
        out.push(c);
    }
    out
}

/// The reference at the start of a text: `!`, then letters, digits, `_`, `.`.
fn reference_at(text: &str) -> &str {
    let end = text.get(1..).and_then(|name| name.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.')));
    let name = end.map_or(text, |end| &text[..=end]);
    name.trim_end_matches('.')
}

/// A value as it stands in JSON.
fn as_json(node: &Node, value: &Value, depth: usize) -> String {
    match value {
        Value::Text(text) => {
            let trimmed = text.trim();
            let bare = (trimmed.starts_with('{') && trimmed.ends_with('}'))
                || (trimmed.starts_with('[') && trimmed.ends_with(']'));
            match bare {
                true if depth < MAX_DEPTH => expand_to(node, trimmed, depth + 1),
                true => trimmed.to_owned(),
                false => Json::from(text.as_str()).to_string(),
            }
        }
        Value::Float(number) => Json::from(*number).to_string(),
        other => other.to_string(),
    }
}

/// Reads a JSON text tolerantly: strictly first; then single quotes, `None`, `True`, `False` and a comma before a closing
/// bracket; then `|` in place of `"`. Integers of 64 bits and numbers of 17 digits keep their value.
///
/// # Errors
/// [`Status::JSON_STRUCTURE`] with the position and the reference that was not replaced.
pub fn parse(text: &str) -> Result<Json, CommandError> {
    let strict = match serde_json::from_str(text) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    if let Some(value) = tolerant(text) {
        return Ok(value);
    }
    // A bar may be meant as a quote: policies are carried that way through shells and headers.
    if text.contains('|')
        && !text.contains('"')
        && let Ok(value) = serde_json::from_str(&text.replace('|', "\""))
    {
        return Ok(value);
    }
    Err(failure(text, &strict))
}

/// [`expand`], then [`parse`].
///
/// # Errors
/// Those of [`parse`].
pub fn read(node: &Node, text: &str) -> Result<Json, CommandError> {
    parse(&expand(node, text))
}

fn tolerant(text: &str) -> Option<Json> {
    serde_json::from_str(&normalized(text)?).ok()
}

/// The text with double quotes and JSON's own words; `None` when quotes do not close.
fn normalized(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len() + 8);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if c == '"' || c == '\'' {
            let (inner, after) = quoted(rest, c)?;
            out.push_str(&inner);
            rest = after;
        } else if c.is_alphabetic() {
            let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
            out.push_str(match &rest[..end] {
                "True" | "TRUE" => "true",
                "False" | "FALSE" => "false",
                "None" | "NULL" | "Null" => "null",
                word => word,
            });
            rest = &rest[end..];
        } else if c == ',' && rest[1..].trim_start().starts_with([']', '}']) {
            rest = &rest[1..];
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    Some(out)
}

/// The quoted text at the start of `text` as a JSON string, and what follows it.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let inner = text.get(1..)?;
    let mut out = String::from('"');
    let mut chars = inner.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            c if c == quote => {
                out.push('"');
                return Some((out, &inner[at + 1..]));
            }
            '"' => out.push_str("\\\""),
            '\\' => match chars.next()?.1 {
                '\'' => out.push('\''),
                escaped => out.extend(['\\', escaped]),
            },
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c => out.push(c),
        }
    }
    None
}

fn failure(text: &str, error: &serde_json::Error) -> CommandError {
    let unresolved = unresolved(text);
    let place = format!("line {}, column {}", error.line(), error.column());
    let near = text.lines().nth(error.line().saturating_sub(1)).unwrap_or_default();
    let near: String = near.chars().skip(error.column().saturating_sub(20)).take(40).collect();
    let message = format!("Error in JSON Structure at {place}, near '{}'", near.trim());
    let error = CommandError::new(Status::JSON_STRUCTURE, message);
    match unresolved {
        Some(name) => error.hint(format!("the reference '{name}' has no value; set it first")),
        None if text.trim().is_empty() => error.hint("the text is empty"),
        None => error.hint("check quotes, commas and brackets"),
    }
}

/// The first reference outside quotes that was not replaced.
fn unresolved(text: &str) -> Option<&str> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match quote {
            Some(open) if c == open && !escaped => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c == '!' => {
                let name = reference_at(&text[at..]);
                if name.len() > 1 {
                    return Some(name);
                }
            }
            _ => {}
        }
        escaped = quote.is_some() && c == '\\' && !escaped;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn node() -> std::sync::Arc<Node> {
        let node = Node::builder().build();
        for (name, value) in [
            ("company", "New Company"),
            ("port", "32148"),
            ("share", "0.1"),
            ("big", "9223372036854775807"),
            ("quote", "say \"hi\"\nthere"),
            ("inner", "{\"a\": !port.int}"),
            ("list", "[1, 2]"),
            ("loop", "{\"a\": !loop}"),
            ("off", "false"),
        ] {
            node.dictionary.set(name, value);
        }
        node
    }

    #[test]
    fn references_become_json() {
        let node = node();
        let cases = [
            (r#"{"c": !company}"#, json!({"c": "New Company"})),
            (r#"{"p":!port.int, "q" : !port}"#, json!({"p": 32148, "q": "32148"})),
            (r#"{"s": !share.float, "b": !off.bool}"#, json!({"s": 0.1, "b": false})),
            (r#"{"b": !big.int}"#, json!({"b": 9_223_372_036_854_775_807_i64})),
            (r#"{"q": !quote}"#, json!({"q": "say \"hi\"\nthere"})),
            (r#"{"i": !inner, "l":[!list,!port.int]}"#, json!({"i": {"a": 32148}, "l": [[1, 2], 32148]})),
            (r#"{"keep": "!company", "x": 'see !company'}"#, json!({"keep": "!company", "x": "see !company"})),
            (r#"{"name": "it's", "c": !company}"#, json!({"name": "it's", "c": "New Company"})),
            (r#"{"len": !list.len, "n": !company.name}"#, json!({"len": 2, "n": "new_company"})),
        ];
        for (text, expected) in cases {
            assert_eq!(read(&node, text).unwrap(), expected, "{text}");
        }
        assert_eq!(expand(&node, "{\"a\": !nobody}"), "{\"a\": !nobody}");
        // A reference to itself ends.
        assert!(expand(&node, "!loop").len() < 200);
    }

    #[test]
    fn other_spellings_are_read() {
        let cases = [
            ("{'a': 'b', 'c': [True, None, False]}", json!({"a": "b", "c": [true, null, false]})),
            ("{|a|: |b|}", json!({"a": "b"})),
            ("{\"a\": \"x|y\"}", json!({"a": "x|y"})),
            ("{'a': 'say \"x\"', 'b': 'it\\'s', 'c': \"it's\"}", json!({"a": "say \"x\"", "b": "it's", "c": "it's"})),
            ("{'a': 1, 'b': [1,2,],}", json!({"a": 1, "b": [1, 2]})),
            ("{\"text\": \"two\nlines\"}", json!({"text": "two\nlines"})),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn numbers_survive() {
        // R-numbers: nothing between a device and the table may round.
        for text in ["9223372036854775807", "18446744073709551615", "0.30000000000000004", "123456789.12345679"] {
            assert_eq!(crate::reply::json::text(&parse(&format!("[{text}]")).unwrap()), format!("[{text}]"));
        }
    }

    #[test]
    fn errors_name_place_and_reference() {
        let error = read(&node(), "{\"a\": 1,\n \"b\": !nobody.int}").unwrap_err();
        assert_eq!(error.status, Status::JSON_STRUCTURE);
        assert!(error.message.contains("line 2"), "{error}");
        assert!(error.hint.unwrap().contains("!nobody.int"));
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,80}") {
            drop(parse(&text));
            drop(expand(&Node::builder().build(), &text));
        }

        #[test]
        fn odd_spellings_never_panic(text in "[!{}\\[\\]\"'|:, a-c.\\\\TrueNone\\n]{0,60}") {
            let node = node();
            drop(read(&node, &text));
        }

        #[test]
        fn strict_json_is_untouched(text in "\\PC*", number in any::<i64>(), float in any::<f64>()) {
            prop_assume!(float.is_finite());
            let value = json!({"t": text, "n": number, "f": float, "l": [text, null, true]});
            prop_assert_eq!(parse(&value.to_string()).unwrap(), value);
        }

        #[test]
        fn any_text_survives_as_a_reference(value in "[^{\\[]\\PC*") {
            let node = Node::builder().build();
            node.dictionary.set("x", value.clone());
            prop_assert_eq!(read(&node, "{\"v\": !x}").unwrap(), json!({"v": value}));
        }
    }
}
