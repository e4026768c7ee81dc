//! `period(unit, n, date-time, column [, and <filter>])`: the rows of the last interval that has any, at or before a time.
//!
//! It takes two steps: the greatest time E at or before the date-time, among the rows that the filter keeps; then the rows after
//! E - n units, up to E, that the filter keeps.

use jiff::{Span, Timestamp};

use super::dates::{Moment, Now, Unit, add, moment_at, not_a_date};
use super::expr::{quoted_name, quoted_text};
use super::scan::{Kind, Token, closing, join, split_commas};
use crate::QueryError;

/// A period that was read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Period {
    unit: Unit,
    count: f64,
    at: Moment,
    column: String,
    filter: Option<String>,
}

/// The interval of a period.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bounds {
    /// Rows are later than this.
    pub(crate) after: Timestamp,
    /// Rows are not later than this.
    pub(crate) until: Timestamp,
}

impl Period {
    /// The statement that finds the end of the interval.
    pub(crate) fn leading(&self, table: &str) -> String {
        let column = quoted_name(&self.column);
        let filter = self.filter.as_ref().map(|filter| format!(" and ({filter})")).unwrap_or_default();
        let at = quoted_text(&self.at.literal());
        format!("select max({column}) from {} where {column} <= {at}{filter}", quoted_name(table))
    }

    /// The interval that ends at `end`.
    pub(crate) fn bounds(&self, end: Timestamp) -> Result<Bounds, QueryError> {
        let wrong = |reason: &str| QueryError::Arguments { function: "period", reason: reason.to_owned() };
        let outside = || wrong("it leads outside the calendar");
        #[expect(clippy::cast_possible_truncation, reason = "checked to be whole or bounded")]
        let span = match self.unit.seconds() {
            Some(seconds) => {
                let micros = self.count * seconds * 1e6;
                if micros > 9e17 {
                    return Err(outside());
                }
                Span::new().try_microseconds(micros as i64).map_err(|_| outside())?
            }
            None if self.count.fract() == 0.0 && self.count < 1e5 => {
                self.unit.span(self.count as i64).ok_or_else(outside)?
            }
            None => return Err(wrong("months and years are counted in whole numbers")),
        };
        let after = add(end, -span).ok_or_else(outside)?;
        Ok(Bounds { after, until: end })
    }

    fn condition(&self, bounds: Option<&Bounds>) -> String {
        let Some(bounds) = bounds else { return "(1 = 1)".to_owned() };
        let column = quoted_name(&self.column);
        let filter = self.filter.as_ref().map(|filter| format!(" and ({filter})")).unwrap_or_default();
        let (after, until) = (Moment::Instant(bounds.after).literal(), Moment::Instant(bounds.until).literal());
        format!("({column} > '{after}' and {column} <= '{until}'{filter})")
    }
}

/// Takes the period out of a condition; in its place stands the interval, or what is always true while it is not known.
pub(crate) fn take(
    tokens: &[Token],
    now: &Now,
    bounds: Option<&Bounds>,
    found: &mut Option<Period>,
) -> Result<Vec<Token>, QueryError> {
    let call = tokens.windows(2).position(|pair| pair[0].is("period") && pair[1].symbol("("));
    let Some(start) = call else { return Ok(tokens.to_vec()) };
    let close = closing(tokens, start + 1)?;
    let period = parse(&tokens[start + 2..close], now)?;
    let rest = &tokens[close + 1..];
    if rest.windows(2).any(|pair| pair[0].is("period") && pair[1].symbol("(")) {
        return Err(QueryError::Arguments { function: "period", reason: "it is given twice".to_owned() });
    }
    let mut out = tokens[..start].to_vec();
    out.extend(super::scan::scan(&period.condition(bounds))?);
    out.extend_from_slice(rest);
    *found = Some(period);
    Ok(out)
}

fn parse(args: &[Token], now: &Now) -> Result<Period, QueryError> {
    let wrong = |reason: String| QueryError::Arguments {
        function: "period",
        reason: format!(
            "{reason}; write period(unit, n, date-time, column) or period(unit, n, date-time, column, and <filter>)"
        ),
    };
    let parts = split_commas(args);
    let (unit, count, at, column, filter) = match parts.as_slice() {
        [[unit], [count], at, [column]] => (unit, count, *at, column, None),
        [[unit], [count], at, [column], filter @ ..] => (unit, count, *at, column, Some(filter)),
        _ => return Err(wrong(format!("{} arguments were given", parts.len()))),
    };
    let parsed_unit = Unit::word(&unit.text)
        .ok_or_else(|| wrong(format!("'{}' is not second, minute, hour, day, week, month or year", unit.text)))?;
    let number: Option<f64> = count.text.parse().ok().filter(|n: &f64| n.is_finite() && *n > 0.0);
    let count = number.ok_or_else(|| wrong(format!("'{}' is not a number above 0", count.text)))?;
    let at = match (at, at.first().filter(|_| !at.is_empty())) {
        ([literal], _) if literal.kind == Kind::Text => {
            let text = literal.unquoted().unwrap_or_default();
            Moment::parse(&text, &now.zone).ok_or_else(|| not_a_date(&text))?
        }
        (tokens, Some(_)) => match moment_at(tokens, 0, now)? {
            Some((moment, next)) if next == tokens.len() => moment,
            _ => return Err(wrong(format!("'{}' is not a date-time", join(tokens)))),
        },
        _ => return Err(wrong("the date-time is missing".to_owned())),
    };
    let filter = match filter {
        None => None,
        Some([[word, rest @ ..], more @ ..]) if word.is("and") && !rest.is_empty() => {
            let more = more.iter().map(|part| format!(", {}", join(part)));
            Some(std::iter::once(join(rest)).chain(more).collect::<String>())
        }
        Some(_) => return Err(wrong("the filter begins with 'and'".to_owned())),
    };
    Ok(Period { unit: parsed_unit, count, at, column: column.text.trim_matches('"').to_owned(), filter })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::scan::scan;

    fn now() -> Now {
        Now { instant: "2026-11-23T05:00:00Z".parse().unwrap(), zone: jiff::tz::TimeZone::UTC }
    }

    fn read(text: &str) -> Result<Period, QueryError> {
        parse(&scan(text).unwrap(), &now())
    }

    #[test]
    fn the_interval_ends_at_the_last_row() {
        let period = read("hour, 12, now(), timestamp, and device = 'a,b'").unwrap();
        assert_eq!(
            period.leading("t"),
            r#"select max("timestamp") from "t" where "timestamp" <= '2026-11-23T05:00:00.000000Z' and (device = 'a,b')"#
        );
        let end: Timestamp = "2026-11-20T01:02:03.456Z".parse().unwrap();
        for (text, after) in [
            ("hour, 12, now(), ts", "2026-11-19T13:02:03.456Z"),
            ("week, 2, now(), ts", "2026-11-06T01:02:03.456Z"),
            ("month, 1, now(), ts", "2026-10-20T01:02:03.456Z"),
            ("day, 0.5, '2026-11-21', ts", "2026-11-19T13:02:03.456Z"),
            ("days, 1, now() - 1 day, ts", "2026-11-19T01:02:03.456Z"),
        ] {
            let bounds = read(text).unwrap().bounds(end).unwrap();
            assert_eq!(bounds, Bounds { after: after.parse().unwrap(), until: end }, "{text}");
        }
    }

    #[test]
    fn wrong_arguments_are_named() {
        for text in [
            "",
            "hour",
            "hour, 0, now(), ts",
            "eon, 1, now(), ts",
            "hour, 1, soon, ts",
            "hour, 1, now(), ts, device = 1",
            "hour, 1, , ts",
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.starts_with("Inconsistent arguments for function: 'period'"), "{text}: {error}");
        }
    }
}
