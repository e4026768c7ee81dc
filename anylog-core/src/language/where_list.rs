//! Where-lists: `key = value and key = value`.

use crate::command::{Declaration, OptionValue, Options, Value, Word};
use crate::{CommandError, Node};

/// Reads the where-list of a declared command.
pub fn parse(node: &Node, _declaration: &Declaration, words: &[Word]) -> Result<Options, CommandError> {
    parse_any(node, words)
}

/// Reads a where-list that takes any key; values in parentheses stay text.
pub fn parse_any(_node: &Node, words: &[Word]) -> Result<Options, CommandError> {
    let mut options = Options::default();
    for term in words.split(|word| word.text == "and") {
        if let [key, _, value] = term {
            options.push(key.text.clone(), OptionValue::Value(Value::Text(value.text.clone())));
        }
    }
    Ok(options)
}
