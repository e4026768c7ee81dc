//! Casts of output columns: `value::float(2)`, `timestamp::timezone(pt)`, applied to each row after the query, left to right.
//!
//! NULL passes through. A column with a cast is not converted to the zone of the answer: its time is UTC unless a cast says otherwise.

mod arithmetic;
mod spec;

use jiff::tz::TimeZone;

use super::dates::{Moment, Now};
use crate::cell::{Cell, shown};
use crate::{QueryError, zone};
use spec::FormatSpec;

/// One cast of a column.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cast {
    source: String,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Float { digits: usize },
    FloatText { digits: usize },
    Int,
    Str,
    Left(usize),
    Right(usize),
    StripLeft,
    StripRight,
    Format(FormatSpec),
    Datetime(String),
    Timezone(TimeZone),
    Timediff(Operand),
    Replace { old: String, new: String },
    Function(arithmetic::Formula),
}

#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Instant(jiff::Timestamp),
    Column(String),
}

const NAMES: [&str; 13] = [
    "float", "int", "str", "ljust", "rjust", "lstrip", "rstrip", "format", "datetime", "timezone", "timediff",
    "replace", "function",
];

/// The row that a cast works in.
pub(crate) struct Row<'a> {
    pub(crate) names: &'a [String],
    pub(crate) cells: &'a [Cell],
}

impl Row<'_> {
    fn get(&self, name: &str) -> Option<&Cell> {
        self.names.iter().position(|known| known == name).and_then(|index| self.cells.get(index))
    }
}

impl Cast {
    /// Reads a cast: its name and the text inside its brackets.
    pub(crate) fn parse(name: &str, argument: Option<&str>, now: &Now) -> Result<Self, QueryError> {
        let argument = argument.unwrap_or_default().trim();
        let source = if argument.is_empty() { name.to_owned() } else { format!("{name}({argument})") };
        let wrong = |function: &'static str, reason: &str| QueryError::Arguments {
            function,
            reason: format!("{source}: {reason}"),
        };
        let count = |function| {
            argument
                .parse::<usize>()
                .ok()
                .filter(|n| *n <= 1000)
                .ok_or_else(|| wrong(function, "write a number, such as (20)"))
        };
        let kind = match known(name)? {
            "float" => match argument.strip_prefix('%') {
                Some(digits) => {
                    Kind::FloatText { digits: decimals(digits).ok_or_else(|| wrong("float", "write float(%2)"))? }
                }
                None if argument.is_empty() => Kind::Float { digits: 17 },
                None => Kind::Float { digits: decimals(argument).ok_or_else(|| wrong("float", "write float(2)"))? },
            },
            "int" => Kind::Int,
            "str" => Kind::Str,
            "ljust" => Kind::Left(count("ljust")?),
            "rjust" => Kind::Right(count("rjust")?),
            "lstrip" => Kind::StripLeft,
            "rstrip" => Kind::StripRight,
            "format" => Kind::Format(
                FormatSpec::parse(unquoted(argument))
                    .ok_or_else(|| wrong("format", "write a format such as (:,) (:.3f) (:08.3f) (:x)"))?,
            ),
            "datetime" => Kind::Datetime(unquoted(argument).to_owned()),
            "timezone" => Kind::Timezone(zone::parse(unquoted(argument), &now.zone).map_err(|_| {
                wrong("timezone", "write utc, local, pt, mt, ct, et or a name such as America/New_York")
            })?),
            "timediff" => Kind::Timediff(
                operand(argument, now).ok_or_else(|| wrong("timediff", "write a time in quotes, now() or a column"))?,
            ),
            "replace" => {
                let (old, new) =
                    argument.split_once(" by ").ok_or_else(|| wrong("replace", "write replace(old by new)"))?;
                Kind::Replace { old: unquoted(old.trim()).to_owned(), new: unquoted(new.trim()).to_owned() }
            }
            _ => Kind::Function(arithmetic::Formula::parse(argument).map_err(|reason| wrong("function", &reason))?),
        };
        Ok(Self { source, kind })
    }

    /// The columns of the answer that the cast reads beside its own.
    pub(crate) fn columns(&self) -> Vec<&str> {
        match &self.kind {
            Kind::Timediff(Operand::Column(name)) => vec![name],
            Kind::Function(formula) => formula.columns(),
            _ => Vec::new(),
        }
    }

    /// The value after the cast.
    pub(crate) fn apply(&self, cell: Cell, row: &Row<'_>) -> Result<Cell, QueryError> {
        let Some(text) = cell.text() else { return Ok(Cell::Null) };
        let failed = |reason: &str| QueryError::Cast {
            value: text.clone(),
            cast: self.source.clone(),
            reason: reason.to_owned(),
        };
        let number =
            || text.trim().parse::<f64>().ok().filter(|n| n.is_finite()).ok_or_else(|| failed("it is not a number"));
        let moment = || instant(&text).ok_or_else(|| failed("it is not a time"));
        Ok(match &self.kind {
            Kind::Float { digits } => Cell::Float(rounded(number()?, *digits)),
            Kind::FloatText { digits } => Cell::Text(spec::thousands(&format!("{:.digits$}", number()?))),
            Kind::Int => match (&cell, text.trim().parse::<i64>()) {
                (Cell::Bool(value), _) => Cell::Int(i64::from(*value)),
                (_, Ok(value)) => Cell::Int(value),
                _ => Cell::Int(truncated(number()?).ok_or_else(|| failed("it is out of range"))?),
            },
            Kind::Str => Cell::Text(text),
            Kind::Left(width) => Cell::Text(format!("{:<width$}", text.chars().take(*width).collect::<String>())),
            Kind::Right(width) => {
                let skip = text.chars().count().saturating_sub(*width);
                Cell::Text(format!("{:>width$}", text.chars().skip(skip).collect::<String>()))
            }
            Kind::StripLeft => Cell::Text(text.trim_start().to_owned()),
            Kind::StripRight => Cell::Text(text.trim_end().to_owned()),
            Kind::Format(spec) => {
                Cell::Text(spec.apply(&cell).ok_or_else(|| failed("the format does not suit the value"))?)
            }
            Kind::Datetime(pattern) => {
                let civil = TimeZone::UTC.to_datetime(moment()?);
                // Six digits are what `%f` means in such formats.
                let pattern = pattern.replace("%f", "%6f");
                let shown = jiff::fmt::strtime::format(&pattern, civil).map_err(|error| failed(&error.to_string()))?;
                Cell::Text(shown)
            }
            Kind::Timezone(zone) => {
                let mut text = shown(moment()?, zone);
                text.truncate(19);
                Cell::Text(text)
            }
            Kind::Timediff(other) => {
                let other = match other {
                    Operand::Instant(instant) => *instant,
                    Operand::Column(name) => {
                        let cell = row
                            .get(name)
                            .ok_or_else(|| failed(&format!("there is no column '{name}' in the answer")))?;
                        match cell.text() {
                            None => return Ok(Cell::Null),
                            Some(text) => instant(&text).ok_or_else(|| failed(&format!("'{text}' is not a time")))?,
                        }
                    }
                };
                Cell::Text(difference(moment()?, other))
            }
            Kind::Replace { old, new } => Cell::Text(text.replacen(old.as_str(), new, 1)),
            Kind::Function(formula) => {
                let value = formula.evaluate(&|name| row.get(name)?.text()?.trim().parse().ok());
                let value = value
                    .ok_or_else(|| failed("a column in it is missing or not a number, or the result is not finite"))?;
                match truncated(value) {
                    Some(whole) if value.fract() == 0.0 => Cell::Int(whole),
                    _ => Cell::Float(value),
                }
            }
        })
    }
}

/// The cast that a name means; only its first letters count.
fn known(name: &str) -> Result<&'static str, QueryError> {
    let name = name.to_lowercase();
    NAMES.iter().copied().find(|known| name.starts_with(known)).ok_or_else(|| {
        let nearest = anylog_core::error::nearest(&name, NAMES).map(str::to_owned);
        QueryError::UnknownCast { cast: name.clone(), nearest }
    })
}

fn decimals(text: &str) -> Option<usize> {
    text.trim().parse().ok().filter(|digits| *digits <= 17)
}

fn unquoted(text: &str) -> &str {
    let text = text.trim();
    ['\'', '"'].iter().find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote)).unwrap_or(text)
}

fn operand(argument: &str, now: &Now) -> Option<Operand> {
    if argument.replace(' ', "").eq_ignore_ascii_case("now()") {
        return Some(Operand::Instant(now.instant));
    }
    if argument.starts_with(['\'', '"']) {
        return Moment::parse(unquoted(argument), &now.zone)?.instant().map(Operand::Instant);
    }
    let name = argument.to_lowercase();
    (!name.is_empty()).then_some(Operand::Column(name))
}

/// A stored time: the first 26 characters of its text, in UTC.
fn instant(text: &str) -> Option<jiff::Timestamp> {
    let text: String = text.trim().chars().take(26).collect();
    Moment::parse(&text, &TimeZone::UTC)?.instant()
}

fn rounded(value: f64, digits: usize) -> f64 {
    if digits >= 17 { value } else { format!("{value:.digits$}").parse().unwrap_or(value) }
}

fn truncated(value: f64) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
    (value.abs() < 9.2e18).then_some(value.trunc() as i64)
}

/// `HH:MM:SS.f` between two instants, with a sign when the first is the earlier one.
fn difference(first: jiff::Timestamp, second: jiff::Timestamp) -> String {
    let micros = (first.as_microsecond() - second.as_microsecond()).unsigned_abs();
    let sign = if first < second { "-" } else { "" };
    let seconds = micros / 1_000_000;
    format!("{sign}{:02}:{:02}:{:02}.{:06}", seconds / 3600, seconds / 60 % 60, seconds % 60, micros % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Now {
        Now { instant: "2026-11-23T05:00:00Z".parse().unwrap(), zone: TimeZone::UTC }
    }

    fn cast(name: &str, argument: &str, cell: Cell) -> Result<Cell, QueryError> {
        let names = ["value".to_owned(), "other".to_owned(), "start".to_owned()];
        let cells = [cell.clone(), Cell::Float(4.0), Cell::Text("2026-11-20 01:00:00.000000".into())];
        Cast::parse(name, Some(argument), &now())?.apply(cell, &Row { names: &names, cells: &cells })
    }

    fn text(text: &str) -> Cell {
        Cell::Text(text.into())
    }

    #[test]
    fn documented_casts() {
        let time = || text("2026-11-20 01:02:03.456000");
        for (name, argument, cell, expected) in [
            ("float", "2", Cell::Float(2.34567), Cell::Float(2.35)),
            ("float", "%2", Cell::Float(1_234_567.891), text("1,234,567.89")),
            ("float", "1", text("2.25"), Cell::Float(2.2)),
            ("int", "", Cell::Float(3.99), Cell::Int(3)),
            ("int", "", Cell::Float(-3.99), Cell::Int(-3)),
            ("str", "", Cell::Int(7), text("7")),
            ("ljust", "5", text("ab"), text("ab   ")),
            ("ljust", "19", time(), text("2026-11-20 01:02:03")),
            ("rjust", "5", text("ab"), text("   ab")),
            ("rjust", "3", text("abcdef"), text("def")),
            ("lstrip", "", text("  a "), text("a ")),
            ("rstrip", "", text("  a "), text("  a")),
            ("format", ":,", Cell::Int(1_234_567), text("1,234,567")),
            ("format", "':b'", Cell::Int(5), text("101")),
            ("format", ":x", Cell::Int(255), text("ff")),
            ("format", ":o", Cell::Int(8), text("10")),
            ("format", ":e", Cell::Float(12345.678), text("1.234568e+04")),
            ("format", ":.3f", Cell::Float(2.34567), text("2.346")),
            ("format", ":08.3f", Cell::Float(2.34567), text("0002.346")),
            ("datetime", "%Y/%m/%d %H:%M", time(), text("2026/11/20 01:02")),
            ("datetime", "%S.%f", time(), text("03.456000")),
            ("timezone", "et", time(), text("2026-11-19 20:02:03")),
            ("timediff", "'2026-11-20 01:00:00'", time(), text("00:02:03.456000")),
            ("timediff", "start", time(), text("00:02:03.456000")),
            ("timediff", "now()", time(), text("-75:57:56.544000")),
            ("replace", "d by device ", text("d1 d2"), text("device1 d2")),
            ("function", "[value] * 2 + [other]", Cell::Int(3), Cell::Int(10)),
            ("function", "([value] - 32) / 1.8", Cell::Float(212.0), Cell::Int(100)),
            ("float", "2", Cell::Null, Cell::Null),
        ] {
            assert_eq!(cast(name, argument, cell.clone()).unwrap(), expected, "{cell:?}::{name}({argument})");
        }
    }

    #[test]
    fn failures_say_which_value() {
        let error = cast("float", "2", text("warm")).unwrap_err();
        assert_eq!(error.to_string(), "Failed to cast 'warm' with float(2): it is not a number");
        let error = cast("flaot", "2", Cell::Null).unwrap_err();
        assert!(matches!(error, QueryError::UnknownCast { nearest: Some(name), .. } if name == "float"));
        for (name, argument) in
            [("float", "x"), ("ljust", ""), ("format", "?"), ("replace", "a"), ("function", "[a"), ("timezone", "mars")]
        {
            assert!(cast(name, argument, Cell::Int(1)).is_err(), "{name}({argument})");
        }
        assert!(cast("function", "1 / 0", Cell::Int(1)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn never_panics(name in proptest::sample::select(&NAMES[..]), argument in "\\PC{0,20}", value in "\\PC{0,30}") {
            cast(name, &argument, Cell::Text(value)).ok();
        }

        #[test]
        fn numbers_in_any_format(argument in ":[<>^+ #0]{0,2}[0-9]{0,2},?(\\.[0-9]{1,2})?[bdeEfFgGnoxX%s]?", value: f64, whole: i64) {
            cast("format", &argument, Cell::Float(value)).ok();
            cast("format", &argument, Cell::Int(whole)).ok();
        }
    }
}
