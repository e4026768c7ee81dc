//! Values of the declared types.

use std::path::Path;
use std::time::Duration;

use jiff::civil;
use jiff::{Span, Timestamp, ToSpan};

use super::super::lexer::lex;
use super::parse_any;
use crate::command::{OptionKind, OptionSpec, OptionValue, Options, Value};
use crate::error::nearest;
use crate::{CommandError, Node, json_text, time};

/// The value as the type that the option declares.
pub(super) fn convert(node: &Node, spec: &OptionSpec, value: Value) -> Result<OptionValue, CommandError> {
    convert_kind(node, spec.name, spec.kind, value)
}

/// True when the text can stand for a positional word of this kind; decides how many words such a value takes.
pub(crate) fn positional_fits(node: &Node, kind: OptionKind, text: &str) -> Result<Value, CommandError> {
    let value = Value::Text(text.to_owned());
    match convert_kind(node, "value", kind, value.clone())? {
        OptionValue::Value(converted) => Ok(converted),
        _ => Ok(value),
    }
}

fn convert_kind(node: &Node, name: &str, kind: OptionKind, value: Value) -> Result<OptionValue, CommandError> {
    let text = value.to_string();
    let text = text.trim();
    let wrong = || {
        CommandError::structure(format!("The value of '{name}' is not of the declared type: '{text}'"))
            .hint(format!("expected {}", kind.describe()))
    };
    let typed = |value: Value| Ok(OptionValue::Value(value));
    match kind {
        OptionKind::Text => typed(value),
        OptionKind::Int => match value {
            Value::Int(_) => typed(value),
            _ => typed(Value::Int(text.parse().map_err(|_| wrong())?)),
        },
        OptionKind::Float => typed(Value::Float(finite(text).ok_or_else(wrong)?)),
        OptionKind::Bool => match (value, text.to_lowercase().as_str()) {
            (Value::Bool(value), _) => typed(Value::Bool(value)),
            (_, "true") => typed(Value::Bool(true)),
            (_, "false") => typed(Value::Bool(false)),
            _ => Err(wrong()),
        },
        OptionKind::Duration => match duration(text) {
            Some(time) if time <= LONGEST => Ok(OptionValue::Duration(time)),
            found => Err(no_duration(wrong(), text, found.is_some())),
        },
        OptionKind::Bytes => bytes(text).map(OptionValue::Bytes).ok_or_else(wrong),
        OptionKind::Frequency => typed(Value::Float(frequency(text).ok_or_else(wrong)?)),
        OptionKind::Address => match is_address(text) {
            true => typed(Value::Text(text.to_owned())),
            false => Err(wrong()),
        },
        OptionKind::Directory => directory(name, text).map(|path| OptionValue::Value(Value::Text(path))),
        OptionKind::Date => date(node, text).map(OptionValue::Date).ok_or_else(wrong),
        OptionKind::Choice(words) => match words.iter().find(|word| word.eq_ignore_ascii_case(text)) {
            Some(word) => typed(Value::Text((*word).to_owned())),
            None => Err(match nearest(text, words.iter().copied()) {
                Some(meant) => wrong().hint(format!("did you mean '{meant}'? expected {}", kind.describe())),
                None => wrong(),
            }),
        },
        OptionKind::Columns => columns(text).map(OptionValue::Columns).ok_or_else(wrong),
        OptionKind::Nested => nested(node, text).map_err(|error| {
            let message = format!("In the list of '{name}': {}", error.message);
            CommandError { message, ..error }
        }),
        OptionKind::Json => typed(Value::Text(match text.starts_with(['{', '[']) {
            true => json_text::expand(node, text),
            false => text.to_owned(),
        })),
    }
}

fn finite(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

const DAY: u64 = 86_400;

/// About ten thousand years: what is added to a time, or a part of it, can still be counted.
const LONGEST: Duration = Duration::from_secs(3_650_000 * DAY);

/// Says more of a text that is no duration, or one that is too long.
fn no_duration(wrong: CommandError, text: &str, too_long: bool) -> CommandError {
    let units = ["seconds", "minutes", "hours", "days", "weeks"];
    let (count, unit) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let unit = unit.trim().to_lowercase();
    let known = units.iter().any(|known| known.trim_end_matches('s') == unit.trim_end_matches('s'));
    let counts = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
    if too_long || (counts && (known || unit.is_empty())) {
        return wrong.hint(format!("the longest time is {} days", LONGEST.as_secs() / DAY));
    }
    match nearest(&unit, units) {
        Some(meant) if !known => wrong.hint(format!("did you mean the unit '{meant}'?")),
        _ => wrong,
    }
}

/// `N unit`; a number alone counts seconds.
fn duration(text: &str) -> Option<Duration> {
    time::interval(text).or_else(|| text.parse().ok().map(Duration::from_secs))
}

fn bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim().to_ascii_uppercase().as_str() {
        "" | "B" | "BYTES" => 1,
        "K" | "KB" => 1 << 10,
        "M" | "MB" => 1 << 20,
        "G" | "GB" => 1 << 30,
        "T" | "TB" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// Seconds between repetitions.
fn frequency(text: &str) -> Option<f64> {
    let lower = text.to_lowercase();
    let seconds = match lower.strip_suffix("hz") {
        Some(hertz) => 1.0 / finite(hertz.trim())?,
        None => finite(lower.trim_end_matches("seconds").trim_end_matches("second").trim())?,
    };
    (seconds.is_finite() && seconds > 0.0).then_some(seconds)
}

fn is_address(text: &str) -> bool {
    let host_ok = |host: &str| !host.is_empty() && !host.contains(char::is_whitespace);
    text.rsplit_once(':').is_some_and(|(host, port)| {
        host_ok(host) && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()
    })
}

fn directory(name: &str, text: &str) -> Result<String, CommandError> {
    let path = Path::new(text);
    let metadata = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_dir);
    let Some(metadata) = metadata else {
        return Err(CommandError::new(
            crate::Status::NO_SUCH_DIRECTORY,
            format!("The value of '{name}' is not a directory: '{text}'"),
        )
        .hint("make it first: create work directories, or system mkdir"));
    };
    if metadata.permissions().readonly() {
        return Err(CommandError::structure(format!("The directory of '{name}' is not writable: '{text}'")));
    }
    let mut text = text.to_owned();
    if !text.ends_with(std::path::MAIN_SEPARATOR) {
        text.push(std::path::MAIN_SEPARATOR);
    }
    Ok(text)
}

/// A timestamp; a date or time without an offset is meant in the node's time zone; `-3d` and `+1h` are relative to now.
fn date(node: &Node, text: &str) -> Option<Timestamp> {
    let now = node.clock.now();
    if text == "now" || text == "now()" {
        return Some(now);
    }
    if let Some(past) = text.strip_prefix('-') {
        return now.to_zoned(node.time_zone()).checked_sub(span(past)?).ok().map(|zoned| zoned.timestamp());
    }
    if let Some(ahead) = text.strip_prefix('+') {
        return now.to_zoned(node.time_zone()).checked_add(span(ahead)?).ok().map(|zoned| zoned.timestamp());
    }
    let iso = text.replacen(' ', "T", 1);
    if let Ok(time) = iso.parse::<Timestamp>() {
        return Some(time);
    }
    // without an offset, and only then: a time that names its zone is not silently moved
    let civil = iso.parse::<civil::DateTime>().or_else(|_| iso.parse::<civil::Date>().map(|day| day.at(0, 0, 0, 0)));
    let zoned = civil.ok()?.to_zoned(node.time_zone()).ok()?;
    Some(zoned.timestamp())
}

fn span(text: &str) -> Option<Span> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: i64 = number.parse().ok().filter(|number| *number < 1_000_000)?;
    Some(match unit.trim().to_lowercase().as_str() {
        "s" | "second" | "seconds" => number.seconds(),
        "m" | "minute" | "minutes" => number.minutes(),
        "h" | "hour" | "hours" => number.hours(),
        "d" | "day" | "days" => number.days(),
        "w" | "week" | "weeks" => number.weeks(),
        "month" | "months" => Span::new().try_months(number).ok()?,
        "y" | "year" | "years" => Span::new().try_years(number).ok()?,
        _ => return None,
    })
}

fn columns(text: &str) -> Option<Vec<usize>> {
    let inner = text.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')).unwrap_or(text);
    inner.split(',').map(|column| column.trim().parse().ok()).collect()
}

fn nested(node: &Node, text: &str) -> Result<OptionValue, CommandError> {
    let inner = text.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')).ok_or_else(|| {
        CommandError::structure(format!("'{text}' is not a list in parentheses"))
            .hint("write (key = value and key = value)")
    })?;
    let options: Options = parse_any(node, &lex(inner)?)?;
    Ok(OptionValue::Nested(options))
}
