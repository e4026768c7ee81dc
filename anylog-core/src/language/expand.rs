//! The value of a word: references to parameters and the environment.

use crate::Node;
use crate::command::{Value, Word};

/// The value of a word in a value position; an unset reference is empty text.
#[must_use]
pub fn value_of(node: &Node, word: &Word) -> Value {
    value_of_text(node, &word.text)
}

/// As [`value_of`], for a text that no lexer has seen.
#[must_use]
pub fn value_of_text(node: &Node, text: &str) -> Value {
    if text.starts_with(['!', '$']) {
        return reference(node, text).unwrap_or_else(|| Value::Text(String::new()));
    }
    Value::Text(text.to_owned())
}

/// The value of a reference, or nothing when it is unset.
#[must_use]
pub fn reference(node: &Node, text: &str) -> Option<Value> {
    let value = match text.split_at_checked(1)? {
        ("!", name) => node.dictionary.get(name),
        ("$", name) => node.dictionary.environment(name),
        _ => None,
    };
    value.map(Value::Text)
}
