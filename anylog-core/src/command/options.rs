//! Resolved values, and the options of a where-list.

use std::time::Duration;

use jiff::Timestamp;

use crate::CommandError;

/// A value after expansion. A reference suffix (`.int`, `.float`, `.bool`) gives it a type; all else is text.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Text, JSON included.
    Text(String),
    /// Integer.
    Int(i64),
    /// Number.
    Float(f64),
    /// Truth value.
    Bool(bool),
}

impl Value {
    /// True for empty text.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Value::Text(text) if text.is_empty())
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Text(text) => f.write_str(text),
            Value::Int(value) => write!(f, "{value}"),
            Value::Float(value) => write!(f, "{value:?}"),
            Value::Bool(value) => write!(f, "{value}"),
        }
    }
}

/// The value of one option, checked against its declared type.
#[derive(Debug, Clone, PartialEq)]
pub enum OptionValue {
    /// Text; also addresses, directories, choices and JSON. Keeps the type of a typed reference.
    Value(Value),
    /// A duration.
    Duration(Duration),
    /// A number of bytes.
    Bytes(u64),
    /// An instant.
    Date(Timestamp),
    /// Column numbers.
    Columns(Vec<usize>),
    /// An inner list.
    Nested(Options),
}

/// The options of a call, in the order given.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options {
    entries: Vec<(String, OptionValue)>,
}

impl Options {
    /// Adds an option under its declared name.
    pub fn push(&mut self, name: impl Into<String>, value: OptionValue) {
        self.entries.push((name.into(), value));
    }

    /// All options in the order given.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &OptionValue)> {
        self.entries.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// True when no option was given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// True when the option was given.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The first value of an option.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&OptionValue> {
        self.entries.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// All values of an option.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a OptionValue> {
        self.entries.iter().filter(move |(key, _)| key == name).map(|(_, value)| value)
    }

    /// The text of an option.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<String> {
        match self.get(name)? {
            OptionValue::Value(value) => Some(value.to_string()),
            _ => None,
        }
    }

    /// All texts of an option.
    #[must_use]
    pub fn texts(&self, name: &str) -> Vec<String> {
        let text = |value: &OptionValue| match value {
            OptionValue::Value(value) => Some(value.to_string()),
            _ => None,
        };
        self.all(name).filter_map(text).collect()
    }

    /// The integer of an option declared `Int`.
    #[must_use]
    pub fn int(&self, name: &str) -> Option<i64> {
        match self.get(name)? {
            OptionValue::Value(Value::Int(value)) => Some(*value),
            OptionValue::Value(Value::Text(text)) => text.parse().ok(),
            _ => None,
        }
    }

    /// The number of an option declared `Float` or `Frequency`.
    #[must_use]
    pub fn float(&self, name: &str) -> Option<f64> {
        match self.get(name)? {
            OptionValue::Value(Value::Int(value)) => value.to_string().parse().ok(),
            OptionValue::Value(Value::Float(value)) => Some(*value),
            OptionValue::Value(Value::Text(text)) => text.parse().ok(),
            _ => None,
        }
    }

    /// The truth value of an option declared `Bool`.
    #[must_use]
    pub fn bool(&self, name: &str) -> Option<bool> {
        match self.get(name)? {
            OptionValue::Value(Value::Bool(value)) => Some(*value),
            OptionValue::Value(Value::Text(text)) => match text.to_lowercase().as_str() {
                "true" => Some(true),
                "false" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }

    /// The duration of an option declared `Duration`.
    #[must_use]
    pub fn duration(&self, name: &str) -> Option<Duration> {
        match self.get(name)? {
            OptionValue::Duration(value) => Some(*value),
            _ => None,
        }
    }

    /// The bytes of an option declared `Bytes`.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Option<u64> {
        match self.get(name)? {
            OptionValue::Bytes(value) => Some(*value),
            _ => None,
        }
    }

    /// The instant of an option declared `Date`.
    #[must_use]
    pub fn date(&self, name: &str) -> Option<Timestamp> {
        match self.get(name)? {
            OptionValue::Date(value) => Some(*value),
            _ => None,
        }
    }

    /// The column numbers of an option declared `Columns`.
    #[must_use]
    pub fn columns(&self, name: &str) -> Option<&[usize]> {
        match self.get(name)? {
            OptionValue::Columns(value) => Some(value),
            _ => None,
        }
    }

    /// All inner lists of an option declared `Nested`.
    pub fn nested<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Options> {
        self.all(name).filter_map(|value| match value {
            OptionValue::Nested(options) => Some(options),
            _ => None,
        })
    }

    /// The text of an option that must be there.
    pub fn expect_text(&self, name: &str) -> Result<String, CommandError> {
        self.text(name).ok_or_else(|| CommandError::structure(format!("Missing '{name}' in command variables")))
    }

    /// True when `format = json` was given.
    #[must_use]
    pub fn wants_json(&self) -> bool {
        self.text("format").is_some_and(|format| format.eq_ignore_ascii_case("json"))
    }
}
