//! One call of a command.

use std::ops::Range;

use super::{Options, Value};
use crate::CommandError;

/// A word of a command, as the lexer produced it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The text, without double quotes.
    pub text: String,
    /// True when the word stood in double quotes.
    pub quoted: bool,
    /// Where it stood in the command's text, quotes included, in bytes.
    pub span: Range<usize>,
}

/// A call that was found in the registry and checked against its declaration.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// The text of the command, without an assignment prefix.
    pub source: String,
    /// All words of `source`.
    pub words: Vec<Word>,
    /// How many of the words are the command's own name.
    pub key_words: usize,
    /// The name to which the answer will be assigned, with its `[]` or `{}` suffix.
    pub assign_to: Option<String>,
    /// Positional words by declared name, expanded.
    pub positionals: Vec<(&'static str, Value)>,
    /// The options of the where-list.
    pub options: Options,
}

impl Invocation {
    /// The words after the command's own name, as written.
    #[must_use]
    pub fn rest(&self) -> &[Word] {
        self.words.get(self.key_words..).unwrap_or_default()
    }

    /// The source text after the command's own name, as written.
    #[must_use]
    pub fn rest_text(&self) -> &str {
        match self.rest().first() {
            Some(word) => self.source.get(word.span.start..).unwrap_or_default().trim_end(),
            None => "",
        }
    }

    /// The source text from word `index` on (counted over all words), as written.
    #[must_use]
    pub fn text_from(&self, index: usize) -> &str {
        match self.words.get(index) {
            Some(word) => self.source.get(word.span.start..).unwrap_or_default().trim_end(),
            None => "",
        }
    }

    /// The text of a positional word.
    #[must_use]
    pub fn positional(&self, name: &str) -> Option<&str> {
        self.positional_value(name).and_then(|value| match value {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// A positional word with its type.
    #[must_use]
    pub fn positional_value(&self, name: &str) -> Option<&Value> {
        self.positionals.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// The text of a positional word that must be there; a number is shown as text.
    pub fn expect_positional(&self, name: &str) -> Result<String, CommandError> {
        self.positional_value(name)
            .map(ToString::to_string)
            .ok_or_else(|| CommandError::structure(format!("Missing <{name}> in the command")))
    }
}
