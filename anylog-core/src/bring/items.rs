//! Items of a `bring`: paths into a document, literals, functions on texts.

use serde_json::Value;

use crate::CommandError;

/// The items of a `bring`, without modifiers.
#[derive(Debug, Clone, Default)]
pub struct Items {}

impl Items {
    /// Reads items such as `[operator][ip] ":" [operator][port]`. A leading word `bring` is skipped.
    ///
    /// # Errors
    /// Unbalanced brackets or quotes, an unknown function.
    pub fn parse(text: &str) -> Result<Self, CommandError> {
        let _ = text;
        Ok(Self {})
    }

    /// The values of a document, typed as they are in it: one for a plain path, one per element for a path through a list
    /// (`[readings][][value]`), none when missing.
    #[must_use]
    pub fn values(&self, document: &Value) -> Vec<Value> {
        let _ = document;
        Vec::new()
    }

    /// True when an item walks through a list, so that a document may give several values.
    #[must_use]
    pub fn is_list(&self) -> bool {
        false
    }

    /// All values of a document and the literals between them as one text; `None` when no path gave a value.
    #[must_use]
    pub fn text(&self, document: &Value) -> Option<String> {
        let _ = document;
        None
    }
}
