//! The value of a word: references to parameters and the environment.
//!
//! | word | value |
//! |---|---|
//! | `!name`, `$NAME` | the parameter, the environment variable; empty text when unset |
//! | `!name.int` `.float` | a number; nothing when unset or not numeric |
//! | `!name.bool` | false when unset or exactly `false`, else true |
//! | `!name.str` `.name` | text; text in lower case with `_` for blanks |
//! | `!name.len` | members of a JSON list or object, else characters |
//! | `!name.replies` `.diff` | collected replies: nodes that answered, nodes that did not |
//! | `!name[2:5]` `[:5]` `[2:]` | characters of the text |
//! | `!name[key][1]` | a member of the JSON text |
//! | `!dir/x/!file`, `!host.$DOMAIN` | a path: each piece that begins with `!` or `$` is replaced; empty when one is unset |
//! | `!!name` | the text `!name`, for the node that receives it |
//! | anything else | the word itself |

use serde_json::Value as Json;

use crate::command::{Value, Word};
use crate::reply::json;
use crate::{Node, names};

/// The value of a word in a value position; an unset reference is empty text.
#[must_use]
pub fn value_of(node: &Node, word: &Word) -> Value {
    value_of_text(node, &word.text)
}

/// As [`value_of`], for a text that no lexer has seen.
///
/// ```
/// use anylog_core::language::expand::value_of_text;
/// use anylog_core::command::Value;
///
/// let node = anylog_core::Node::builder().build();
/// node.dictionary.set("port", "32148");
/// assert_eq!(value_of_text(&node, "!port.int"), Value::Int(32148));
/// assert_eq!(value_of_text(&node, "!absent"), Value::Text(String::new()));
/// ```
#[must_use]
pub fn value_of_text(node: &Node, text: &str) -> Value {
    if !is_reference(text) {
        return Value::Text(text.to_owned());
    }
    reference(node, text).unwrap_or_else(|| Value::Text(String::new()))
}

/// True for a text that stands for another value.
#[must_use]
pub fn is_reference(text: &str) -> bool {
    let inner = text.strip_prefix("\\\"").filter(|_| text.ends_with("\\\"")).unwrap_or(text);
    inner.len() > 1 && inner.starts_with(['!', '$'])
}

/// The value of a reference; nothing when the text is no reference, or an unset one.
#[must_use]
pub fn reference(node: &Node, text: &str) -> Option<Value> {
    if let Some(inner) = text.strip_prefix("\\\"").and_then(|inner| inner.strip_suffix("\\\"")) {
        return reference(node, inner).map(|value| Value::Text(format!("\\\"{value}\\\"")));
    }
    if !is_reference(text) {
        return None;
    }
    if let Some(deferred) = text.strip_prefix("!!") {
        return Some(Value::Text(format!("!{deferred}")));
    }
    // `!x.int` is a suffix, `!dir/x.int` is a path
    match split_suffix(text) {
        (name, Some(_)) if !name[1..].contains(['/', '\\', '!', '$']) => single(node, text),
        (_, Some(_)) => path(node, text),
        _ => single(node, text).or_else(|| path(node, text)),
    }
}

/// The stored text of `!name` or `$NAME`.
fn stored(node: &Node, reference: &str) -> Option<String> {
    if let Some(name) = reference.strip_prefix('!') {
        return node.dictionary.get(name);
    }
    let value = node.dictionary.environment(reference.strip_prefix('$')?)?;
    // a variable may name a parameter as its default
    match value.strip_prefix('!') {
        Some(name) if !name.starts_with('!') => node.dictionary.get(name),
        _ => Some(value),
    }
}

/// A reference that is one name, with its suffix, slice or keys.
fn single(node: &Node, text: &str) -> Option<Value> {
    if let Some(value) = stored(node, text) {
        return Some(Value::Text(value));
    }
    let (name, suffix) = split_suffix(text);
    let whole = stored(node, name);
    let (base, groups) = split_groups(name);
    let value = match whole {
        Some(value) => Some(value),
        None if groups.is_empty() => None,
        None => {
            let (base, inner) = split_suffix(base);
            let value =
                stored(node, base).and_then(|value| groups.iter().try_fold(value, |value, g| member(&value, g)));
            match (value, inner, suffix) {
                // `!x.str[2:5]`: the suffix stands before the slice
                (Some(value), Some(inner), None) => return typed(Some(value), inner),
                (value, _, _) => value,
            }
        }
    };
    match suffix {
        Some(suffix) => typed(value, suffix),
        None => value.map(Value::Text),
    }
}

const SUFFIXES: [&str; 8] = ["str", "int", "float", "bool", "name", "len", "replies", "diff"];

fn split_suffix(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once('.') {
        Some((name, suffix)) if name.len() > 1 && SUFFIXES.contains(&suffix) => (name, Some(suffix)),
        _ => (text, None),
    }
}

/// Splits `!x[a][b]` into `!x` and `a`, `b`.
fn split_groups(text: &str) -> (&str, Vec<&str>) {
    let mut groups = Vec::new();
    let mut base = text;
    while let Some(open) = base.strip_suffix(']').and_then(|inner| inner.rfind('[')) {
        if open < 2 {
            break;
        }
        groups.insert(0, &base[open + 1..base.len() - 1]);
        base = &base[..open];
    }
    (base, groups)
}

/// A slice of a text, or a member of a JSON text.
fn member(text: &str, group: &str) -> Option<String> {
    if let Some(slice) = slice(text, group) {
        return Some(slice);
    }
    let value: Json = serde_json::from_str(text).ok()?;
    let key = group.trim_matches(['"', '\'']);
    let inner = match &value {
        Json::Object(members) => members.get(key)?,
        Json::Array(items) => items.get(key.parse::<usize>().ok()?)?,
        _ => return None,
    };
    Some(json_text(inner))
}

/// Characters `from:to`; a negative position counts from the end.
fn slice(text: &str, range: &str) -> Option<String> {
    let (from, to) = range.split_once(':')?;
    let length = text.chars().count();
    let position = |bound: &str, default: usize| -> Option<usize> {
        let bound = bound.trim();
        if bound.is_empty() {
            return Some(default);
        }
        let number: i64 = bound.parse().ok()?;
        let magnitude = usize::try_from(number.unsigned_abs()).unwrap_or(usize::MAX);
        Some(if number < 0 { length.saturating_sub(magnitude) } else { magnitude.min(length) })
    };
    let (from, to) = (position(from, 0)?, position(to, length)?);
    Some(text.chars().skip(from).take(to.saturating_sub(from)).collect())
}

/// The text of a JSON value: strings without quotes.
pub(crate) fn json_text(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        other => json::text(other),
    }
}

fn typed(value: Option<String>, suffix: &str) -> Option<Value> {
    let count = |of: fn(&str) -> usize| {
        let count = value.as_deref().map_or(0, of);
        Some(Value::Int(i64::try_from(count).unwrap_or(i64::MAX)))
    };
    match suffix {
        "bool" => Some(Value::Bool(value.is_some_and(|text| text != "false"))),
        "len" => count(length),
        "replies" => count(|text| replies(text).0),
        "diff" => count(|text| replies(text).1),
        "int" => value?.trim().parse().ok().map(Value::Int),
        "float" => value?.trim().parse().ok().filter(|number: &f64| number.is_finite()).map(Value::Float),
        "name" => Some(Value::Text(names::underscore(&value?))),
        _ => Some(Value::Text(value?)),
    }
}

fn length(text: &str) -> usize {
    let json = text.trim_start().starts_with(['[', '{']).then(|| serde_json::from_str(text).ok()).flatten();
    match json {
        Some(Json::Array(items)) => items.len(),
        Some(Json::Object(members)) => members.len(),
        _ => text.chars().count(),
    }
}

/// How many nodes answered and how many did not, from `[[node, reply], ..]` or `{node: reply, ..}`.
fn replies(text: &str) -> (usize, usize) {
    // An empty answer is an answer; `null` stands for none.
    let given = |reply: &Json| !reply.is_null();
    let (all, answered) = match serde_json::from_str(text) {
        Ok(Json::Array(items)) => {
            let answered = items.iter().filter(|item| item.get(1).is_some_and(given)).count();
            (items.len(), answered)
        }
        Ok(Json::Object(members)) => (members.len(), members.values().filter(|reply| given(reply)).count()),
        _ => (0, 0),
    };
    (answered, all - answered)
}

/// A path: the word is cut before `!`, `$`, `.`, `/`, `\` and each piece that is a reference is replaced.
fn path(node: &Node, text: &str) -> Option<Value> {
    let cuts = text.char_indices().skip(1).filter(|(_, c)| matches!(c, '!' | '$' | '.' | '/' | '\\'));
    let cuts: Vec<usize> = cuts.map(|(at, _)| at).collect();
    if cuts.is_empty() {
        return None;
    }
    let mut out = String::new();
    let starts = std::iter::once(0).chain(cuts.iter().copied());
    let ends = cuts.iter().copied().chain(std::iter::once(text.len()));
    for (start, end) in starts.zip(ends) {
        let piece = &text[start..end];
        if piece.starts_with(['!', '$']) {
            let value = stored(node, piece)?;
            // `!dir/` + `/x` is one separator when the directory ends with one
            out.push_str(if text[end..].starts_with('/') { value.strip_suffix('/').unwrap_or(&value) } else { &value });
        } else if cfg!(unix) && piece.starts_with('\\') {
            out.push('/');
            out.push_str(&piece[1..]);
        } else {
            out.push_str(piece);
        }
    }
    Some(Value::Text(out))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn node(entries: &[(&str, &str)]) -> Arc<Node> {
        let node = Node::builder().build();
        for (name, value) in entries {
            match name.strip_prefix('$') {
                Some(name) => node.dictionary.set_environment(name, *value),
                None => node.dictionary.set(name, *value),
            }
        }
        node
    }

    #[test]
    fn references_have_values() {
        let node = node(&[
            ("x", "abcdef"),
            ("n", " 42 "),
            ("f", "2.5"),
            ("off", "false"),
            ("city", "Mountain View"),
            ("list", r#"["a", {"k": "v"}, 3]"#),
            ("dir", "/data/"),
            ("host", "node1"),
            ("$EDGE_TEST_DOMAIN", "example.org"),
            ("$EDGE_TEST_INDIRECT", "!host"),
            ("a.b", "dotted"),
            ("replies", r#"[["1:1", "ok"], ["2:2", ""], ["3:3", null]]"#),
            ("map", r#"{"1:1": "ok", "2:2": null}"#),
        ]);
        let text = |text: &str| Value::Text(text.to_owned());
        for (word, expected) in [
            ("plain", text("plain")),
            ("Node !x", text("Node !x")),
            ("(!x, b)", text("(!x, b)")),
            ("'!x'", text("'!x'")),
            ("!", text("!")),
            ("$", text("$")),
            ("!x", text("abcdef")),
            ("!unset", text("")),
            ("$EDGE_TEST_UNSET", text("")),
            ("!!x", text("!x")),
            ("!x.str", text("abcdef")),
            ("!n.int", Value::Int(42)),
            ("!x.int", text("")),
            ("!unset.int", text("")),
            ("!f.float", Value::Float(2.5)),
            ("!f.int", text("")),
            ("!off.bool", Value::Bool(false)),
            ("!unset.bool", Value::Bool(false)),
            ("!x.bool", Value::Bool(true)),
            ("!city.name", text("mountain_view")),
            ("!x.len", Value::Int(6)),
            ("!list.len", Value::Int(3)),
            ("!unset.len", Value::Int(0)),
            ("!replies.replies", Value::Int(2)),
            ("!replies.diff", Value::Int(1)),
            ("!map.diff", Value::Int(1)),
            ("!x.diff", Value::Int(0)),
            ("!x[2:5]", text("cde")),
            ("!x[:2]", text("ab")),
            ("!x[2:]", text("cdef")),
            ("!x[-2:]", text("ef")),
            ("!x[4:2]", text("")),
            ("!x[0:99]", text("abcdef")),
            ("!n[1:3].int", Value::Int(42)),
            ("!list[0]", text("a")),
            ("!list[1][k]", text("v")),
            ("!list[2].int", Value::Int(3)),
            ("!list[9]", text("")),
            ("!a.b", text("dotted")),
            ("!dir/x/y.al", text("/data/x/y.al")),
            ("!dir/!host.al", text("/data/node1.al")),
            ("!host.$EDGE_TEST_DOMAIN", text("node1.example.org")),
            ("$EDGE_TEST_DOMAIN/x", text("example.org/x")),
            ("$EDGE_TEST_INDIRECT", text("node1")),
            ("!dir/!unset", text("")),
            ("!unset/x", text("")),
            ("!dir/x.int", text("/data/x.int")),
            ("!dir/x.bool", text("/data/x.bool")),
            ("\\\"!host\\\"", text("\\\"node1\\\"")),
        ] {
            assert_eq!(value_of_text(&node, word), expected, "{word}");
        }
    }

    #[test]
    fn an_unset_reference_is_told_from_an_empty_one() {
        let node = node(&[("x", "1")]);
        assert_eq!(reference(&node, "!unset"), None);
        assert_eq!(reference(&node, "plain"), None);
        assert_eq!(reference(&node, "é.int"), None);
        assert_eq!(reference(&node, "!x"), Some(Value::Text("1".into())));
        assert!(is_reference("!x") && is_reference("$X") && !is_reference("x") && !is_reference("!"));
    }

    proptest::proptest! {
        #[test]
        fn no_word_panics(text in "[!$]?[a-z.\\[\\]:/!$é\\\\\"-]{0,20}") {
            let node = node(&[("a", "{\"b\": [1, \"é\"]}"), ("b", "émile")]);
            let value = value_of_text(&node, &text);
            // an unresolved piece never leaks into a value
            if !is_reference(&text) {
                proptest::prop_assert_eq!(value, Value::Text(text));
            }
        }
    }
}
