//! Functions, methods, attributes, elements and slices.

use std::cmp::Ordering;

use jiff::SignedDuration;

use super::parse::zone;
use super::value::{Outcome, Value, equal, list, order, text, unfit};
use super::{ExpressionError, MAX_RESULT};
use crate::Node;
use crate::error::nearest;

/// What a function is called with.
#[derive(Debug, Default)]
pub(super) struct Arguments<'a> {
    pub(super) values: Vec<Value>,
    pub(super) named: Vec<(&'a str, Value)>,
}

impl Arguments<'_> {
    fn text(&self, at: usize, of: &str) -> Result<&str, ExpressionError> {
        match self.values.get(at) {
            Some(Value::Text(text)) => Ok(text),
            Some(other) => Err(unfit(format!("'{of}' takes a text, not a value of type {}", other.kind()))),
            None => Err(unfit(format!("'{of}' lacks an argument"))),
        }
    }

    fn count(&self, at: usize, of: &str) -> Result<Option<usize>, ExpressionError> {
        match self.values.get(at) {
            None | Some(Value::None) => Ok(None),
            // A negative number means no limit.
            Some(value) => match value.int() {
                Some(count) => Ok(usize::try_from(count).ok()),
                None => Err(unfit(format!("'{of}' takes a whole number there"))),
            },
        }
    }

    fn only(&self, most: usize, of: &str) -> Result<(), ExpressionError> {
        match self.named.first() {
            Some((name, _)) => Err(unfit(format!("'{of}' has no argument named '{name}'"))),
            None if self.values.len() > most => Err(unfit(format!("'{of}' takes at most {most} arguments"))),
            None => Ok(()),
        }
    }
}

const FUNCTIONS: &[&str] = &["int", "float", "str", "bool", "len", "abs", "round", "min", "max", "sum", "sorted"];

pub(super) fn function(name: &str, arguments: &Arguments<'_>) -> Outcome {
    if !FUNCTIONS.contains(&name) {
        let meant = nearest(name, FUNCTIONS.iter().copied()).map(|known| format!("; did you mean '{known}'?"));
        return Err(unfit(format!("Unknown function '{name}'{}", meant.unwrap_or_default())));
    }
    if matches!(name, "min" | "max" | "sum" | "sorted") {
        return over_many(name, arguments);
    }
    arguments.only(2, name)?;
    let Some(value) = arguments.values.first() else { return Err(unfit(format!("'{name}' lacks an argument"))) };
    match name {
        "int" => int(value),
        "float" => float(value),
        "str" => text(value.to_string()),
        "bool" => Ok(Value::Bool(value.is_true())),
        "len" => match value {
            Value::Text(text) => length(text.chars().count()),
            Value::List(elements) => length(elements.len()),
            other => Err(unfit(format!("'len' does not work on {}", other.kind()))),
        },
        "abs" => match value {
            Value::Float(value) => Ok(Value::Float(value.abs())),
            other => other
                .int()
                .and_then(i64::checked_abs)
                .map(Value::Int)
                .ok_or_else(|| unfit(format!("'abs' does not work on {}", other.kind()))),
        },
        _ => round(value, arguments.count(1, "round")?),
    }
}

fn length(count: usize) -> Outcome {
    i64::try_from(count).map(Value::Int).map_err(|_| ExpressionError::TooLarge { what: "number" })
}

fn int(value: &Value) -> Outcome {
    match value {
        Value::Text(text) => text
            .trim()
            .replace('_', "")
            .parse()
            .map(Value::Int)
            .map_err(|_| unfit(format!("'{}' is not a whole number", shown(text)))),
        // The range test makes the cast exact up to the fraction that is cut.
        Value::Float(value) if value.abs() < 9.2e18 => Ok(Value::Int(value.trunc() as i64)),
        other => other.int().map(Value::Int).ok_or_else(|| unfit(format!("'int' does not work on {other}"))),
    }
}

fn float(value: &Value) -> Outcome {
    match value {
        Value::Text(text) => {
            text.trim().parse().map(Value::Float).map_err(|_| unfit(format!("'{}' is not a number", shown(text))))
        }
        other => {
            other.float().map(Value::Float).ok_or_else(|| unfit(format!("'float' does not work on {}", other.kind())))
        }
    }
}

fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

/// Half goes to the even neighbour.
fn round(value: &Value, digits: Option<usize>) -> Outcome {
    match (value, digits) {
        (Value::Float(value), None) => int(&Value::Float(value.round_ties_even())),
        (Value::Float(value), Some(digits)) => {
            format!("{value:.*}", digits.min(17)).parse().map(Value::Float).map_err(|_| unfit("'round' failed"))
        }
        (other, _) => {
            other.int().map(Value::Int).ok_or_else(|| unfit(format!("'round' does not work on {}", other.kind())))
        }
    }
}

fn over_many(name: &str, arguments: &Arguments<'_>) -> Outcome {
    arguments.only(1000, name)?;
    let values = match arguments.values.as_slice() {
        [Value::List(elements)] => elements,
        values => values,
    };
    let comparable =
        |a: &Value, b: &Value| order(a, b).ok_or_else(|| unfit(format!("'{name}' cannot compare its arguments")));
    match name {
        "sum" => values.iter().try_fold(Value::Int(0), |sum, value| super::value::arithmetic("+", sum, value.clone())),
        "sorted" => {
            let mut sorted = values.to_vec();
            for pair in values.windows(2) {
                comparable(&pair[0], &pair[1])?;
            }
            sorted.sort_by(|a, b| order(a, b).unwrap_or(Ordering::Equal));
            list(sorted)
        }
        _ => {
            let wanted = if name == "min" { Ordering::Less } else { Ordering::Greater };
            let mut best = values.first().ok_or_else(|| unfit(format!("'{name}' lacks an argument")))?;
            for value in values {
                if comparable(value, best)? == wanted {
                    best = value;
                }
            }
            Ok(best.clone())
        }
    }
}

pub(super) fn method(node: &Node, value: &Value, name: &str, arguments: &Arguments<'_>) -> Outcome {
    match value {
        Value::Text(text) => text_method(text, name, arguments),
        Value::Time(time) => {
            arguments.only(1, name)?;
            match name {
                "strftime" => strftime(time, arguments.text(0, name)?),
                "isoformat" => text(time.strftime("%Y-%m-%dT%H:%M:%S%.f").to_string()),
                "timestamp" => Ok(Value::Float(time.timestamp().as_microsecond() as f64 / 1e6)),
                _ => Err(unknown("datetime", name, &["strftime", "isoformat", "timestamp"])),
            }
        }
        Value::Span(span) if name == "total_seconds" => Ok(Value::Float(span.as_secs_f64())),
        Value::List(elements) => match name {
            "count" => length(
                elements.iter().filter(|element| arguments.values.first().is_some_and(|v| equal(v, element))).count(),
            ),
            "index" => elements
                .iter()
                .position(|element| arguments.values.first().is_some_and(|v| equal(v, element)))
                .map_or_else(|| Err(unfit("The list does not hold that value")), length),
            _ => Err(unknown("list", name, &["count", "index"])),
        },
        Value::Module(_) => match name {
            "now" | "utcnow" | "today" => {
                arguments.only(0, name)?;
                Ok(Value::Time(Box::new(node.clock.now().to_zoned(zone(node, name == "utcnow")))))
            }
            "timedelta" => span(arguments),
            _ => Err(unknown("datetime", name, &["now", "utcnow", "timedelta"])),
        },
        other => Err(unfit(format!("A value of type {} has no method '{name}'", other.kind()))),
    }
}

fn unknown(kind: &str, name: &str, known: &[&'static str]) -> ExpressionError {
    let meant = nearest(name, known.iter().copied()).map(|known| format!("; did you mean '{known}'?"));
    unfit(format!("A value of type {kind} has no '{name}'{}", meant.unwrap_or_default()))
}

fn strftime(time: &jiff::Zoned, format: &str) -> Outcome {
    // Microseconds always have six digits.
    let format = format.replace("%f", "%6f");
    jiff::fmt::strtime::format(&format, time)
        .map_err(|error| unfit(format!("'{}' is not a time format: {error}", shown(&format))))
        .and_then(text)
}

pub(super) fn span(arguments: &Arguments<'_>) -> Outcome {
    let mut seconds = 0.0;
    if let Some(days) = arguments.values.first() {
        seconds += days.float().ok_or_else(|| unfit("'timedelta' takes numbers"))? * 86_400.0;
    }
    for (name, value) in &arguments.named {
        let unit = match *name {
            "weeks" => 604_800.0,
            "days" => 86_400.0,
            "hours" => 3600.0,
            "minutes" => 60.0,
            "seconds" => 1.0,
            "milliseconds" => 1e-3,
            "microseconds" => 1e-6,
            other => return Err(unfit(format!("'timedelta' has no argument named '{other}'"))),
        };
        seconds += value.float().ok_or_else(|| unfit("'timedelta' takes numbers"))? * unit;
    }
    SignedDuration::try_from_secs_f64(seconds)
        .map(Value::Span)
        .map_err(|_| ExpressionError::TooLarge { what: "time span" })
}

pub(super) fn attribute(value: &Value, name: &str) -> Outcome {
    match (value, name) {
        (Value::Module("datetime"), "datetime" | "date") => Ok(Value::Module("datetime.datetime")),
        (Value::Module(_), "timezone") => Ok(Value::Module("datetime.timezone")),
        (Value::Time(time), "year") => Ok(Value::Int(time.year().into())),
        (Value::Time(time), "month") => Ok(Value::Int(time.month().into())),
        (Value::Time(time), "day") => Ok(Value::Int(time.day().into())),
        (Value::Time(time), "hour") => Ok(Value::Int(time.hour().into())),
        (Value::Time(time), "minute") => Ok(Value::Int(time.minute().into())),
        (Value::Time(time), "second") => Ok(Value::Int(time.second().into())),
        (Value::Time(time), "microsecond") => Ok(Value::Int((time.subsec_nanosecond() / 1000).into())),
        (Value::Span(span), "days") => Ok(Value::Int(span.as_secs().div_euclid(86_400))),
        (Value::Span(span), "seconds") => Ok(Value::Int(span.as_secs().rem_euclid(86_400))),
        (other, name) => Err(unfit(format!("A value of type {} has no attribute '{name}'", other.kind()))),
    }
}

const TEXT_METHODS: &[&str] = &[
    "split",
    "rsplit",
    "splitlines",
    "strip",
    "lstrip",
    "rstrip",
    "replace",
    "upper",
    "lower",
    "title",
    "capitalize",
    "find",
    "rfind",
    "index",
    "count",
    "startswith",
    "endswith",
    "join",
    "zfill",
    "isdigit",
    "isnumeric",
    "isalpha",
    "isalnum",
];

fn text_method(value: &str, name: &str, arguments: &Arguments<'_>) -> Outcome {
    arguments.only(3, name)?;
    let all = |test: fn(char) -> bool| Ok(Value::Bool(!value.is_empty() && value.chars().all(test)));
    match name {
        "split" | "rsplit" => split(value, name == "rsplit", arguments),
        "splitlines" => list(value.lines().map(|line| Value::Text(line.to_owned())).collect()),
        "strip" => stripped(value, arguments, name, true, true),
        "lstrip" => stripped(value, arguments, name, true, false),
        "rstrip" => stripped(value, arguments, name, false, true),
        "replace" => replace(value, arguments),
        "upper" => text(value.to_uppercase()),
        "lower" => text(value.to_lowercase()),
        "title" => text(titled(value)),
        "capitalize" => text(capitalized(value)),
        "find" => Ok(position(value, value.find(arguments.text(0, name)?))),
        "rfind" => Ok(position(value, value.rfind(arguments.text(0, name)?))),
        "index" => match value.find(arguments.text(0, name)?) {
            Some(at) => Ok(position(value, Some(at))),
            None => Err(unfit(format!("The text does not hold '{}'", shown(arguments.text(0, name)?)))),
        },
        "count" => length(value.matches(arguments.text(0, name)?).count()),
        "startswith" => Ok(Value::Bool(value.starts_with(arguments.text(0, name)?))),
        "endswith" => Ok(Value::Bool(value.ends_with(arguments.text(0, name)?))),
        "join" => join(value, arguments),
        "zfill" => zero_filled(value, arguments.count(0, name)?.unwrap_or(0)),
        "isdigit" | "isnumeric" => all(char::is_numeric),
        "isalpha" => all(char::is_alphabetic),
        "isalnum" => all(char::is_alphanumeric),
        _ => Err(unknown("str", name, TEXT_METHODS)),
    }
}

/// Splits at a separator, or at blanks; at most `count` times, from the left or the right.
fn split(value: &str, from_right: bool, arguments: &Arguments<'_>) -> Outcome {
    let limit = arguments.count(1, "split")?.unwrap_or(MAX_RESULT);
    let parts: Vec<&str> = match arguments.values.first() {
        None | Some(Value::None) => return blanks(value, from_right, limit),
        Some(_) => match arguments.text(0, "split")? {
            "" => return Err(unfit("'split' takes a separator that is not empty")),
            separator if from_right => {
                let mut parts: Vec<&str> = value.rsplitn(limit + 1, separator).collect();
                parts.reverse();
                parts
            }
            separator => value.splitn(limit + 1, separator).collect(),
        },
    };
    list(parts.into_iter().map(|part| Value::Text(part.to_owned())).collect())
}

fn blanks(value: &str, from_right: bool, limit: usize) -> Outcome {
    let mut parts = Vec::new();
    let mut rest = value.trim();
    while !rest.is_empty() {
        let cut = if from_right { rest.rfind(char::is_whitespace) } else { rest.find(char::is_whitespace) };
        let Some(at) = cut.filter(|_| parts.len() < limit) else {
            parts.push(rest);
            break;
        };
        let (left, right) = rest.split_at(at);
        let (part, other) = if from_right { (right.trim(), left.trim()) } else { (left.trim(), right.trim()) };
        parts.push(part);
        rest = other;
    }
    if from_right {
        parts.reverse();
    }
    list(parts.into_iter().map(|part| Value::Text(part.to_owned())).collect())
}

fn stripped(value: &str, arguments: &Arguments<'_>, name: &str, start: bool, end: bool) -> Outcome {
    let characters = match arguments.values.first() {
        None | Some(Value::None) => None,
        Some(_) => Some(arguments.text(0, name)?),
    };
    let matches = |c: char| characters.map_or(c.is_whitespace(), |characters| characters.contains(c));
    let value = if start { value.trim_start_matches(matches) } else { value };
    text(if end { value.trim_end_matches(matches) } else { value }.to_owned())
}

fn replace(value: &str, arguments: &Arguments<'_>) -> Outcome {
    let (from, to) = (arguments.text(0, "replace")?, arguments.text(1, "replace")?);
    let count = arguments.count(2, "replace")?.unwrap_or(usize::MAX);
    let found = if from.is_empty() { value.chars().count() + 1 } else { value.matches(from).count() };
    if found.min(count).saturating_mul(to.len()).saturating_add(value.len()) > 2 * MAX_RESULT {
        return Err(ExpressionError::TooLarge { what: "text" });
    }
    text(value.replacen(from, to, count))
}

fn join(separator: &str, arguments: &Arguments<'_>) -> Outcome {
    let Some(Value::List(elements)) = arguments.values.first() else { return Err(unfit("'join' takes a list")) };
    let mut out = String::new();
    for (index, element) in elements.iter().enumerate() {
        let Value::Text(element) = element else {
            return Err(unfit(format!("'join' takes a list of texts; one is of type {}", element.kind())));
        };
        if index > 0 {
            out.push_str(separator);
        }
        out.push_str(element);
        if out.len() > MAX_RESULT {
            return Err(ExpressionError::TooLarge { what: "text" });
        }
    }
    Ok(Value::Text(out))
}

fn zero_filled(value: &str, width: usize) -> Outcome {
    if width > MAX_RESULT {
        return Err(ExpressionError::TooLarge { what: "text" });
    }
    let missing = width.saturating_sub(value.chars().count());
    let (sign, digits) = value.split_at(usize::from(value.starts_with(['+', '-'])));
    text(format!("{sign}{}{digits}", "0".repeat(missing)))
}

fn titled(value: &str) -> String {
    let mut inside = false;
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        if inside {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        inside = c.is_alphabetic();
    }
    out
}

fn capitalized(value: &str) -> String {
    let mut chars = value.chars();
    chars
        .next()
        .map(|first| first.to_uppercase().chain(chars.flat_map(char::to_lowercase)).collect())
        .unwrap_or_default()
}

/// A position in characters, -1 for none.
fn position(value: &str, at: Option<usize>) -> Value {
    Value::Int(at.and_then(|at| i64::try_from(value[..at].chars().count()).ok()).unwrap_or(-1))
}

/// A position counted from the end when it is negative.
fn from_end(index: i64, length: usize) -> Option<usize> {
    match usize::try_from(index) {
        Ok(index) => Some(index),
        Err(_) => length.checked_sub(usize::try_from(index.unsigned_abs()).ok()?),
    }
}

pub(super) fn element(value: &Value, index: &Value) -> Outcome {
    let number =
        index.int().ok_or_else(|| unfit(format!("An element is named by a whole number, not by {}", index.kind())))?;
    let found = match value {
        Value::Text(text) => {
            let at = from_end(number, text.chars().count());
            at.and_then(|at| text.chars().nth(at)).map(|c| Value::Text(c.to_string()))
        }
        Value::List(elements) => from_end(number, elements.len()).and_then(|at| elements.get(at)).cloned(),
        other => return Err(unfit(format!("A value of type {} has no elements", other.kind()))),
    };
    found.ok_or_else(|| unfit(format!("There is no element {number}")))
}

pub(super) fn slice(value: &Value, from: Option<&Value>, to: Option<&Value>) -> Outcome {
    let length = match value {
        Value::Text(text) => text.chars().count(),
        Value::List(elements) => elements.len(),
        other => return Err(unfit(format!("A value of type {} has no parts", other.kind()))),
    };
    let bound = |bound: Option<&Value>, open: usize| match bound {
        None | Some(Value::None) => Ok(open),
        Some(bound) => match bound.int() {
            Some(number) => Ok(from_end(number, length).unwrap_or(0).min(length)),
            None => Err(unfit("The bounds of a part are whole numbers")),
        },
    };
    let (from, to) = (bound(from, 0)?, bound(to, length)?);
    let count = to.saturating_sub(from);
    match value {
        Value::Text(value) => text(value.chars().skip(from).take(count).collect()),
        Value::List(elements) => list(elements.iter().skip(from).take(count).cloned().collect()),
        _ => Ok(Value::None),
    }
}
