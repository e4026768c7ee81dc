//! Paths into a document.

use serde_json::Value;

use crate::CommandError;
use crate::error::nearest;

/// A step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment {
    /// A key of an object; digits also count elements of a list.
    Key { key: String, part: Option<Part> },
    /// `[*]` at the start: the only key of a policy.
    Type,
    /// `[]`: every element of a list.
    Each,
}

/// A part of a text value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// The text before the first occurrence.
    Before(String),
    /// The text after the last occurrence.
    After(String),
    /// The first characters.
    Prefix(usize),
    /// The last characters.
    Suffix(usize),
}

const PARTS: &[&str] = &["find", "rfind", "prefix", "suffix"];

impl Segment {
    pub(super) fn parse(text: &str, first: bool) -> Result<Self, CommandError> {
        if text.is_empty() {
            return Ok(Segment::Each);
        }
        if text == "*" && first {
            return Ok(Segment::Type);
        }
        let (key, part) = split_part(text)?;
        Ok(Segment::Key { key: unquoted(key).to_owned(), part })
    }
}

/// Cuts `path(rfind(/))` into the key and the part of its text.
fn split_part(text: &str) -> Result<(&str, Option<Part>), CommandError> {
    let call = text.strip_suffix("))").and_then(|call| call.split_once('('));
    let Some((key, call)) = call else { return Ok((text, None)) };
    let Some((name, argument)) = call.split_once('(') else { return Ok((text, None)) };
    let characters = || {
        argument
            .trim()
            .parse()
            .map_err(|_| CommandError::structure(format!("'{argument}' is not a number of characters in '[{text}]'")))
    };
    let part = match name.trim() {
        "find" => Part::Before(unquoted(argument).to_owned()),
        "rfind" => Part::After(unquoted(argument).to_owned()),
        "prefix" => Part::Prefix(characters()?),
        "suffix" => Part::Suffix(characters()?),
        other => {
            return match nearest(other, PARTS.iter().copied()) {
                Some(known) => Err(CommandError::structure(format!("Unknown function '{other}' in '[{text}]'"))
                    .hint(format!("did you mean '{known}'?"))),
                // A key may hold parentheses of its own.
                None => Ok((text, None)),
            };
        }
    };
    Ok((key.trim_end(), Some(part)))
}

fn unquoted(text: &str) -> &str {
    let text = text.trim();
    for quote in ['"', '\''] {
        if text.len() >= 2
            && let Some(inner) = text.strip_prefix(quote).and_then(|inner| inner.strip_suffix(quote))
        {
            return inner;
        }
    }
    text
}

/// A path: steps from the root of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path {
    segments: Vec<Segment>,
}

impl Path {
    pub(super) fn new(segments: Vec<Segment>) -> Self {
        Self { segments }
    }

    /// True when it may give several values of one document.
    pub(super) fn is_list(&self) -> bool {
        self.segments.len() > 1 && self.segments.contains(&Segment::Each)
    }

    /// The name of its column: the last key; `policy` for the type's name.
    pub(super) fn label(&self) -> String {
        let key = |segment: &Segment| match segment {
            Segment::Key { key, .. } => Some(key.clone()),
            Segment::Type | Segment::Each => None,
        };
        self.segments.iter().rev().find_map(key).unwrap_or_else(|| "policy".to_owned())
    }

    /// The values in a document; `None` when the path does not lead anywhere.
    pub(super) fn values(&self, document: &Value) -> Option<Vec<Value>> {
        if self.segments == [Segment::Each] && !document.is_array() {
            return policy_type(document).map(|name| vec![Value::from(name)]);
        }
        self.walk_all(document).or_else(|| self.walk_all(inner(document)?))
    }

    fn walk_all(&self, document: &Value) -> Option<Vec<Value>> {
        let mut out = Vec::new();
        walk(document, &self.segments, true, &mut out).then_some(out)
    }
}

/// Follows the segments and collects what they lead to; false when they lead nowhere.
fn walk(value: &Value, segments: &[Segment], at_root: bool, out: &mut Vec<Value>) -> bool {
    let Some((segment, rest)) = segments.split_first() else {
        out.push(value.clone());
        return true;
    };
    match segment {
        Segment::Type => inner(value).is_some_and(|inner| walk(inner, rest, false, out)),
        Segment::Each => match value {
            Value::Array(elements) => {
                for element in elements {
                    // An element without the value keeps its place.
                    if !walk(element, rest, false, out) {
                        out.push(Value::Null);
                    }
                }
                true
            }
            _ if at_root => inner(value).is_some_and(|inner| walk(inner, rest, false, out)),
            _ => false,
        },
        Segment::Key { key, part } => {
            let Some(child) = child(value, key) else { return false };
            match part {
                Some(part) if rest.is_empty() => match part.of(child) {
                    Some(text) => walk(&Value::String(text), rest, false, out),
                    None => false,
                },
                _ => walk(child, rest, false, out),
            }
        }
    }
}

fn child<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Object(members) => members.get(key),
        Value::Array(elements) => match key.strip_prefix('-') {
            Some(from_end) => elements.get(elements.len().checked_sub(from_end.parse().ok()?)?),
            None => elements.get(key.parse::<usize>().ok()?),
        },
        _ => None,
    }
}

impl Part {
    fn of(&self, value: &Value) -> Option<String> {
        let text = match value {
            Value::Null | Value::Array(_) | Value::Object(_) => return None,
            other => super::items::text_of(other),
        };
        let part = match self {
            Part::Before(mark) => text.find(mark.as_str()).map(|at| text[..at].to_owned()),
            Part::After(mark) => text.rfind(mark.as_str()).map(|at| text[at + mark.len()..].to_owned()),
            Part::Prefix(count) => Some(text.chars().take(*count).collect()),
            Part::Suffix(count) => {
                let skip = text.chars().count().saturating_sub(*count);
                Some(text.chars().skip(skip).collect())
            }
        };
        // A text without the mark is taken whole.
        Some(part.unwrap_or(text))
    }
}

/// The object inside a policy: the value of its only key.
pub(super) fn inner(document: &Value) -> Option<&Value> {
    let members = document.as_object().filter(|members| members.len() == 1)?;
    members.values().next().filter(|value| value.is_object())
}

/// The type of a policy: its only key.
fn policy_type(document: &Value) -> Option<&str> {
    let members = document.as_object().filter(|members| members.len() == 1)?;
    members.keys().next().map(String::as_str)
}
