//! `increments(unit, n, column)`: one row per interval of time.
//!
//! A bucket is the time cut to the next larger unit together with the number of the interval inside it, so buckets restart with
//! each larger unit: 7 days are the days 1-6, 7-13, 14-20, .. of a month.

use jiff::Timestamp;

use super::dates::Unit;
use super::expr::Expr;
use super::scan::{Kind, Token, split_commas};
use crate::QueryError;

/// Points of `increments(column)`.
const DEFAULT_POINTS: u64 = 1000;

/// What the call asks for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Increments {
    /// Intervals of so many units.
    Every { unit: Unit, count: u64, column: String },
    /// So many points between the two bounds in the condition.
    Points { points: u64, column: String },
}

impl Increments {
    /// Reads the arguments.
    pub(crate) fn parse(args: &[Token]) -> Result<Self, QueryError> {
        let wrong = |reason: &str| QueryError::Arguments {
            function: "increments",
            reason: format!("{reason}; write increments(unit, n, column) or increments(column, points)"),
        };
        let parts = split_commas(args);
        let single: Vec<&Token> = parts.iter().filter_map(|part| part.first().filter(|_| part.len() == 1)).collect();
        if single.len() != parts.len() {
            return Err(wrong("each argument is one word"));
        }
        let positive = |token: &Token| token.text.parse::<u64>().ok().filter(|count| *count > 0);
        match single.as_slice() {
            [column] if is_name(column) => Ok(Self::Points { points: DEFAULT_POINTS, column: name(column) }),
            [column, points] if is_name(column) => {
                let points = positive(points).ok_or_else(|| wrong("points is a number above 0"))?;
                Ok(Self::Points { points, column: name(column) })
            }
            [points, column] if is_name(column) => {
                let points = positive(points).ok_or_else(|| wrong("points is a number above 0"))?;
                Ok(Self::Points { points, column: name(column) })
            }
            [unit, count, column] if is_name(column) => {
                let unit = Unit::word(&unit.text).ok_or_else(|| {
                    wrong(&format!("'{}' is not second, minute, hour, day, week, month or year", unit.text))
                })?;
                let count = positive(count)
                    .filter(|count| *count <= 1_000_000)
                    .ok_or_else(|| wrong("n is a number above 0"))?;
                Ok(Self::Every { unit, count, column: name(column) })
            }
            _ => Err(wrong(&format!("{} arguments were given", parts.len()))),
        }
    }

    /// The column that holds the time.
    pub(crate) fn column(&self) -> &str {
        match self {
            Self::Every { column, .. } | Self::Points { column, .. } => column,
        }
    }

    /// The unit and the count; `bounds` are the instants that the condition compares the column with, in their order.
    pub(crate) fn interval(&self, bounds: &[Timestamp], now: Timestamp) -> Result<(Unit, u64), QueryError> {
        match self {
            Self::Every { unit: Unit::Week, count, .. } => Ok((Unit::Day, count * 7)),
            Self::Every { unit, count, .. } => Ok((*unit, *count)),
            Self::Points { points, column } => {
                let Some(first) = bounds.first() else {
                    return Err(QueryError::Arguments {
                        function: "increments",
                        reason: format!(
                            "Missing or wrong where condition in an increment query: bound the time, such as where {column} >= now() - 1 day"
                        ),
                    });
                };
                let second = bounds.get(1).copied().unwrap_or(now);
                Ok(estimate(second.duration_since(*first).as_secs_f64().abs(), *points))
            }
        }
    }
}

fn is_name(token: &Token) -> bool {
    matches!(token.kind, Kind::Word | Kind::Quoted)
}

fn name(token: &Token) -> String {
    token.text.trim_matches('"').to_owned()
}

/// The interval that gives about so many points over so many seconds: the largest unit that fits, rounded.
fn estimate(seconds: f64, points: u64) -> (Unit, u64) {
    const UNITS: [(Unit, f64); 7] = [
        (Unit::Year, 365.25 * 86_400.0),
        (Unit::Month, 30.44 * 86_400.0),
        (Unit::Week, 604_800.0),
        (Unit::Day, 86_400.0),
        (Unit::Hour, 3600.0),
        (Unit::Minute, 60.0),
        (Unit::Second, 1.0),
    ];
    #[expect(clippy::cast_precision_loss, reason = "points are few")]
    let each = seconds / points as f64;
    let found = UNITS.into_iter().find(|(_, length)| each >= *length);
    let Some((unit, length)) = found else { return (Unit::Second, 1) };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a positive number of units, saturating"
    )]
    let count = ((each / length).round() as u64).max(1);
    if unit == Unit::Week { (Unit::Day, count * 7) } else { (unit, count) }
}

/// The expressions whose values name a bucket, largest part first.
pub(crate) fn keys(unit: Unit, count: u64, column: &str) -> Vec<Expr> {
    let (part, larger) = match unit {
        Unit::Second => ("second", Some("minute")),
        Unit::Minute => ("minute", Some("hour")),
        Unit::Hour => ("hour", Some("day")),
        Unit::Day | Unit::Week => ("day", Some("month")),
        Unit::Month => ("month", Some("year")),
        Unit::Year => ("year", None),
    };
    let of = |unit: &str| vec![Expr::Text(unit.to_owned()), Expr::Column(column.to_owned())];
    let number = of(part).into_iter().chain([Expr::Number(count.to_string())]).collect();
    let larger = larger.map(|larger| Expr::call("date_trunc", of(larger)));
    larger.into_iter().chain([Expr::call("bucket", number)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::scan::scan;

    #[test]
    fn points_choose_the_documented_interval() {
        let hour = 3600.0;
        for (seconds, expected) in [
            (hour, (Unit::Second, 4)),
            (6.0 * hour, (Unit::Second, 22)),
            (24.0 * hour, (Unit::Minute, 1)),
            (30.0 * 24.0 * hour, (Unit::Minute, 43)),
            (365.0 * 24.0 * hour, (Unit::Hour, 9)),
            (10.0, (Unit::Second, 1)),
            (0.0, (Unit::Second, 1)),
        ] {
            assert_eq!(estimate(seconds, 1000), expected, "{seconds} s");
        }
    }

    #[test]
    fn reads_all_forms() {
        let parse = |text: &str| Increments::parse(&scan(text).unwrap());
        let every = |unit, count| Increments::Every { unit, count, column: "ts".into() };
        let points = |points| Increments::Points { points, column: "ts".into() };
        assert_eq!(parse("hour, 1, ts").unwrap(), every(Unit::Hour, 1));
        assert_eq!(parse("Minutes,5,ts").unwrap(), every(Unit::Minute, 5));
        assert_eq!(parse("ts").unwrap(), points(1000));
        assert_eq!(parse("ts, 50").unwrap(), points(50));
        assert_eq!(parse("50, ts").unwrap(), points(50));
        assert_eq!(every(Unit::Week, 2).interval(&[], Timestamp::UNIX_EPOCH).unwrap(), (Unit::Day, 14));
        for wrong in ["", "hour, 0, ts", "fortnight, 1, ts", "hour, 1, ts, x", "a b, 1", "hour, 1, 2"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
