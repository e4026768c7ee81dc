//! Times in a statement: literals, `now()`, `date(..)`, `timestamp(..)` and offsets such as `- 3 days`.
//!
//! Every such form becomes one literal in UTC, computed where the statement was issued, so that all places that answer see the same
//! `now()`. Compared with a timestamp column, a literal takes the stored form `YYYY-MM-DD HH:MM:SS.ffffff`: texts of one form
//! compare as the instants do.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

use super::scan::{Kind, Token, closing};
use crate::QueryError;

/// The instant and the zone that a statement is read in.
#[derive(Debug, Clone)]
pub(crate) struct Now {
    /// `now()`.
    pub(crate) instant: Timestamp,
    /// The zone of literals without an offset.
    pub(crate) zone: TimeZone,
}

/// A date or an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// A day, which no zone moves.
    Day(Date),
    /// An instant.
    Instant(Timestamp),
}

impl Moment {
    /// Reads `YYYY-MM-DD`, or a date and a time with a blank or `T` between. With `T` or an offset it is UTC or that offset, else
    /// local time of `zone`.
    pub(crate) fn parse(text: &str, zone: &TimeZone) -> Option<Self> {
        let text = text.trim();
        let bytes = text.as_bytes();
        let dashed =
            bytes.len() >= 10 && bytes[4] == b'-' && bytes[7] == b'-' && bytes[..4].iter().all(u8::is_ascii_digit);
        if !dashed {
            return None;
        }
        if bytes.len() == 10 {
            return text.parse().ok().map(Self::Day);
        }
        let utc = matches!(bytes[10], b'T' | b't');
        if !utc && bytes[10] != b' ' {
            return None;
        }
        let time = text.get(11..)?;
        if let Some(zulu) = time.strip_suffix(['Z', 'z']) {
            let civil = civil(text.get(..10)?, zulu.trim_end())?;
            return TimeZone::UTC.to_timestamp(civil).ok().map(Self::Instant);
        }
        if let Some(sign) = time.rfind(['+', '-']) {
            let shift = offset_seconds(&time[sign..])?;
            let civil = civil(text.get(..10)?, time[..sign].trim_end())?;
            let instant = TimeZone::UTC.to_timestamp(civil).ok()?;
            return instant.checked_sub(Span::new().seconds(shift)).ok().map(Self::Instant);
        }
        let civil = civil(text.get(..10)?, time)?;
        let zone = if utc { &TimeZone::UTC } else { zone };
        zone.to_timestamp(civil).ok().map(Self::Instant)
    }

    /// The text in a statement: `YYYY-MM-DD`, or `YYYY-MM-DDTHH:MM:SS.ffffffZ`.
    pub(crate) fn literal(self) -> String {
        match self {
            Self::Day(day) => day.to_string(),
            Self::Instant(instant) => anylog_core::time::policy_date(instant),
        }
    }

    /// The instant; a day begins at midnight UTC.
    pub(crate) fn instant(self) -> Option<Timestamp> {
        match self {
            Self::Day(day) => TimeZone::UTC.to_timestamp(day.to_datetime(Time::midnight())).ok(),
            Self::Instant(instant) => Some(instant),
        }
    }

    fn shift(self, sign: i64, count: i64, unit: Unit) -> Option<Self> {
        let span = unit.span(sign.checked_mul(count)?)?;
        match self {
            Self::Day(day) if unit.is_calendar() => day.checked_add(span).ok().map(Self::Day),
            moment => add(moment.instant()?, span).map(Self::Instant),
        }
    }
}

fn civil(date: &str, time: &str) -> Option<DateTime> {
    let date: Date = date.parse().ok()?;
    if !time.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let time: Time = match time.len() {
        2 => format!("{time}:00").parse().ok()?,
        _ => time.parse().ok()?,
    };
    Some(date.to_datetime(time))
}

fn offset_seconds(text: &str) -> Option<i64> {
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let digits: String = text[1..].chars().filter(|c| *c != ':').collect();
    if !matches!(digits.len(), 2 | 4) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let hours: i64 = digits[..2].parse().ok()?;
    let minutes: i64 = if digits.len() == 4 { digits[2..].parse().ok()? } else { 0 };
    Some(sign * (hours * 3600 + minutes * 60))
}

/// An instant moved by a span; months and years are steps of the calendar in UTC.
pub(crate) fn add(instant: Timestamp, span: Span) -> Option<Timestamp> {
    let moved = TimeZone::UTC.to_datetime(instant).checked_add(span).ok()?;
    TimeZone::UTC.to_timestamp(moved).ok()
}

/// A unit of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
}

impl Unit {
    /// The unit of a word, singular or plural, or of its letter: `t` is a minute, `m` a month.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        let word = word.to_lowercase();
        Some(match word.as_str() {
            "s" => Self::Second,
            "t" => Self::Minute,
            "h" => Self::Hour,
            "d" => Self::Day,
            "w" => Self::Week,
            "m" => Self::Month,
            "y" => Self::Year,
            _ => Self::word(&word)?,
        })
    }

    /// The unit of a whole word.
    pub(crate) fn word(word: &str) -> Option<Self> {
        Some(match word.strip_suffix('s').unwrap_or(word) {
            "second" => Self::Second,
            "minute" => Self::Minute,
            "hour" => Self::Hour,
            "day" => Self::Day,
            "week" => Self::Week,
            "month" => Self::Month,
            "year" => Self::Year,
            _ => return None,
        })
    }

    fn is_calendar(self) -> bool {
        matches!(self, Self::Day | Self::Week | Self::Month | Self::Year)
    }

    /// The length in seconds; none for months and years.
    pub(crate) fn seconds(self) -> Option<f64> {
        match self {
            Self::Second => Some(1.0),
            Self::Minute => Some(60.0),
            Self::Hour => Some(3600.0),
            Self::Day => Some(86_400.0),
            Self::Week => Some(604_800.0),
            Self::Month | Self::Year => None,
        }
    }

    /// This many units.
    pub(crate) fn span(self, count: i64) -> Option<Span> {
        let span = Span::new();
        match self {
            Self::Second => span.try_seconds(count),
            Self::Minute => span.try_minutes(count),
            Self::Hour => span.try_hours(count),
            Self::Day => span.try_days(count),
            Self::Week => span.try_weeks(count),
            Self::Month => span.try_months(count),
            Self::Year => span.try_years(count),
        }
        .ok()
    }
}

/// Replaces every time in a condition by a literal in UTC.
pub(crate) fn resolve(tokens: &[Token], now: &Now) -> Result<Vec<Token>, QueryError> {
    let mut out: Vec<Token> = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        if let Some((moment, next)) = moment_at(tokens, at, now)? {
            out.push(Token::made(Kind::Text, format!("'{}'", moment.literal())));
            at = next;
        } else {
            // `timestamp '2026-01-01'`: the word adds nothing.
            let typed = ["timestamp", "date"].iter().any(|word| tokens[at].is(word))
                && tokens.get(at + 1).is_some_and(|token| token.kind == Kind::Text);
            if !typed {
                out.push(tokens[at].clone());
            }
            at += 1;
        }
    }
    Ok(out)
}

/// The time that begins at a token, its offsets applied, and the index of the token after it.
pub(crate) fn moment_at(tokens: &[Token], at: usize, now: &Now) -> Result<Option<(Moment, usize)>, QueryError> {
    let Some((base, mut next)) = base_at(tokens, at, now)? else { return Ok(None) };
    let mut moment = base;
    while let Some((sign, count, unit, after)) = offset_at(tokens, next, true)? {
        moment = moment.shift(sign, count, unit).ok_or_else(outside)?;
        next = after;
    }
    Ok(Some((moment, next)))
}

fn base_at(tokens: &[Token], at: usize, now: &Now) -> Result<Option<(Moment, usize)>, QueryError> {
    let token = &tokens[at];
    let opens = tokens.get(at + 1).is_some_and(|token| token.symbol("("));
    if token.is("now") && opens && tokens.get(at + 2).is_some_and(|token| token.symbol(")")) {
        return Ok(Some((Moment::Instant(now.instant), at + 3)));
    }
    if (token.is("date") || token.is("timestamp")) && opens {
        let close = closing(tokens, at + 1)?;
        let args = &tokens[at + 2..close];
        if args.iter().all(|token| token.kind == Kind::Text || token.symbol(",")) {
            let texts: Vec<String> = args.iter().filter_map(Token::unquoted).collect();
            let moment = modified(&texts, now)?;
            let moment = match moment {
                Moment::Instant(instant) if token.is("date") => Moment::Day(TimeZone::UTC.to_datetime(instant).date()),
                other => other,
            };
            return Ok(Some((moment, close + 1)));
        }
        return Ok(None);
    }
    if token.kind == Kind::Text && offset_at(tokens, at + 1, true)?.is_some() {
        let text = token.unquoted().unwrap_or_default();
        let moment = Moment::parse(&text, &now.zone);
        return moment.map(|moment| Some((moment, at + 1))).ok_or_else(|| not_a_date(&text));
    }
    let after_operand = at.checked_sub(1).is_some_and(|before| {
        let before = &tokens[before];
        let word = before.kind == Kind::Word
            && !matches!(before.text.as_str(), "between" | "and" | "or" | "in" | "not" | "where");
        word || matches!(before.kind, Kind::Number | Kind::Text | Kind::Quoted) || before.symbol(")")
    });
    if after_operand {
        return Ok(None);
    }
    let Some((sign, count, unit, next)) = offset_at(tokens, at, false)? else { return Ok(None) };
    let moment = Moment::Instant(now.instant).shift(sign, count, unit);
    moment.map(|moment| Some((moment, next))).ok_or_else(outside)
}

fn outside() -> QueryError {
    QueryError::syntax("an offset leads outside the calendar")
}

type Offset = (i64, i64, Unit, usize);

/// `[+|-] n unit` or `[+|-] interval 'n unit'` at a token, and the index of the token after it.
fn offset_at(tokens: &[Token], at: usize, signed: bool) -> Result<Option<Offset>, QueryError> {
    let (sign, number) = match tokens.get(at) {
        Some(token) if token.symbol("-") => (-1, at + 1),
        Some(token) if token.symbol("+") => (1, at + 1),
        _ if signed => return Ok(None),
        _ => (1, at),
    };
    let (Some(first), Some(second)) = (tokens.get(number), tokens.get(number + 1)) else { return Ok(None) };
    if first.is("interval") && second.kind == Kind::Text {
        let text = second.unquoted().unwrap_or_default();
        let (count, unit) = text.trim().split_once(char::is_whitespace).unwrap_or_default();
        let parsed = count.parse().ok().zip(Unit::parse(unit.trim()));
        let (count, unit) =
            parsed.ok_or_else(|| QueryError::syntax(format!("interval '{text}': write interval 'n unit'")))?;
        return Ok(Some((sign, count, unit, number + 2)));
    }
    if first.kind != Kind::Number || second.kind != Kind::Word {
        return Ok(None);
    }
    // A function or a qualified name is not a unit.
    let called = tokens.get(number + 2).is_some_and(|token| token.symbol("(") || token.symbol("."));
    match (first.text.parse(), Unit::parse(&second.text)) {
        (Ok(count), Some(unit)) if !called => Ok(Some((sign, count, unit, number + 2))),
        _ => Ok(None),
    }
}

/// `date('now', 'start of month', '+1 month', '-1 day')`.
fn modified(texts: &[String], now: &Now) -> Result<Moment, QueryError> {
    let mut moment = Moment::Instant(now.instant);
    for (index, text) in texts.iter().enumerate() {
        let text = text.trim().to_lowercase();
        moment = match text.as_str() {
            "now" => moment,
            _ if text.starts_with("start of ") => start_of(&text["start of ".len()..], moment)?,
            _ if index == 0 && text.starts_with(|c: char| c.is_ascii_digit()) => {
                Moment::parse(&text, &now.zone).ok_or_else(|| not_a_date(&text))?
            }
            _ => {
                let tokens = super::scan::scan(&text)?;
                match offset_at(&tokens, 0, false)? {
                    Some((sign, count, unit, next)) if next == tokens.len() => {
                        moment.shift(sign, count, unit).ok_or_else(outside)?
                    }
                    _ => {
                        return Err(QueryError::syntax(format!(
                            "the date modifier '{text}' is not one of: now, start of year|month|day, +n unit, -n unit"
                        )));
                    }
                }
            }
        };
    }
    Ok(moment)
}

fn start_of(unit: &str, moment: Moment) -> Result<Moment, QueryError> {
    let day = match moment {
        Moment::Day(day) => day,
        Moment::Instant(instant) => TimeZone::UTC.to_datetime(instant).date(),
    };
    let day = match unit.trim() {
        "year" => Date::new(day.year(), 1, 1).map_err(|_| outside())?,
        "month" => day.first_of_month(),
        "day" => day,
        other => return Err(QueryError::syntax(format!("'start of {other}': use start of year, month or day"))),
    };
    Moment::Day(day).instant().map(Moment::Instant).ok_or_else(outside)
}

/// `'x'` is not a date.
pub(crate) fn not_a_date(text: &str) -> QueryError {
    QueryError::syntax(format!(
        "'{text}' is not a date: write 'YYYY-MM-DD HH:MM:SS' (local time), 'YYYY-MM-DDTHH:MM:SSZ' (UTC) or now() - 3 days"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::scan::{join, scan};

    fn now() -> Now {
        Now {
            instant: "2026-11-23T05:25:14.123456Z".parse().unwrap(),
            zone: TimeZone::get("America/New_York").unwrap(),
        }
    }

    fn resolved(text: &str) -> String {
        join(&resolve(&scan(text).unwrap(), &now()).unwrap())
    }

    #[test]
    fn times_become_utc_literals() {
        for (text, expected) in [
            ("ts > now()", "ts > '2026-11-23T05:25:14.123456Z'"),
            ("ts > now() - 3 days", "ts > '2026-11-20T05:25:14.123456Z'"),
            ("ts >= now()-3d and a = 1", "ts >= '2026-11-20T05:25:14.123456Z' and a = 1"),
            ("ts > -3d", "ts > '2026-11-20T05:25:14.123456Z'"),
            ("ts>=- 1 hour", "ts >= '2026-11-23T04:25:14.123456Z'"),
            ("ts > -5t", "ts > '2026-11-23T05:20:14.123456Z'"),
            ("ts > -1m", "ts > '2026-10-23T05:25:14.123456Z'"),
            ("ts > now() - 1 year + 1 second", "ts > '2025-11-23T05:25:15.123456Z'"),
            ("ts > now() - interval '2 weeks'", "ts > '2026-11-09T05:25:14.123456Z'"),
            ("ts = date()", "ts = '2026-11-23'"),
            ("ts = date('now','start of month','+1 month','-1 day')", "ts = '2026-11-30'"),
            ("ts > timestamp('now','start of year')", "ts > '2026-01-01T00:00:00.000000Z'"),
            ("ts > '2026-03-01 10:00:00' - 1 day", "ts > '2026-02-28T15:00:00.000000Z'"),
            ("ts > timestamp '2026-03-01'", "ts > '2026-03-01'"),
            ("ts between -2d and -1d", "ts between '2026-11-21T05:25:14.123456Z' and '2026-11-22T05:25:14.123456Z'"),
            ("a - 3 > 2 and b = '2026-01-01'", "a - 3 > 2 and b = '2026-01-01'"),
        ] {
            assert_eq!(resolved(text), expected, "{text}");
        }
    }

    #[test]
    fn literals_without_an_offset_are_local() {
        // R15
        let zone = now().zone;
        for (text, expected) in [
            ("2026-01-02", Some("2026-01-02")),
            ("2026-01-02 03:04:05", Some("2026-01-02T08:04:05.000000Z")),
            ("2026-07-02 03:04", Some("2026-07-02T07:04:00.000000Z")),
            ("2026-01-02T03:04:05.5", Some("2026-01-02T03:04:05.500000Z")),
            ("2026-01-02 03:04:05Z", Some("2026-01-02T03:04:05.000000Z")),
            ("2026-01-02T03:04:05+02:00", Some("2026-01-02T01:04:05.000000Z")),
            ("2026-13-02 03:04:05", None),
            ("d1", None),
            ("2026-01-02 noon", None),
        ] {
            assert_eq!(Moment::parse(text, &zone).map(Moment::literal).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_date_says_so() {
        let tokens = scan("ts > 'yesterday' - 1 day").unwrap();
        assert!(resolve(&tokens, &now()).unwrap_err().to_string().contains("'yesterday' is not a date"));
        let tokens = scan("ts > date('now', 'begin of month')").unwrap();
        assert!(resolve(&tokens, &now()).is_err());
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "[a-z0-9 ()'+,:TZ-]*") {
            if let Ok(tokens) = scan(&text) {
                resolve(&tokens, &now()).ok();
            }
            Moment::parse(&text, &now().zone);
        }

        #[test]
        fn any_text_as_a_moment(text in "\\PC{0,30}") {
            Moment::parse(&text, &TimeZone::UTC);
        }
    }
}
