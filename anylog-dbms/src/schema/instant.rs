//! From the times that devices send to instants.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};

/// Reads a time as devices write it: `YYYY-MM-DD HH:MM[:SS[.f]]` or with `T`, an optional `Z` or offset (`+hh:mm`, `+hhmm`,
/// `+hh`), or `MM/DD/YYYY HH:MM:SS AM|PM` with an optional offset. Digits beyond the microsecond are cut off.
///
/// A time without an offset is meant in `zone`. Where the zone's clock was put back, the first of both instants is meant; where
/// it was put forward, the time is taken by the offset before the gap.
///
/// ```
/// use anylog_dbms::schema::parse_time;
/// use jiff::tz::TimeZone;
/// let time = parse_time("2024-08-20T10:00:00.123456789+02:00", &TimeZone::UTC).unwrap();
/// assert_eq!(time.to_string(), "2024-08-20T08:00:00.123456Z");
/// ```
#[must_use]
pub fn parse_time(text: &str, zone: &TimeZone) -> Option<Timestamp> {
    let text = text.trim();
    let (civil, rest) = iso(text).or_else(|| us(text))?;
    match offset(rest.trim_start())? {
        Some(offset) => offset.to_timestamp(civil).ok(),
        None => zone.to_ambiguous_timestamp(civil).compatible().ok(),
    }
}

/// Reads the usual form in UTC, `YYYY-MM-DDTHH:MM:SS[.f][Z]` (a blank for the `T`, and no `Z` only when `utc` says that times
/// without an offset are in UTC): microseconds since 1970, and the stored form. None for any other, which [`parse_time`] reads.
pub(crate) fn usual(text: &str, utc: bool) -> Option<(i64, String)> {
    let (micros, fraction) = usual_parts(text, utc)?;
    let mut stored = String::with_capacity(26);
    stored.push_str(&text[..10]);
    stored.push(' ');
    stored.push_str(&text[11..19]);
    stored.push('.');
    stored.extend(fraction.iter().map(|digit| char::from(*digit)));
    Some((micros, stored))
}

/// Microseconds since 1970 of a time in the stored form; none of any other.
pub(crate) fn micros(text: &str) -> Option<i64> {
    usual_parts(text, true).map(|(micros, _)| micros)
}

/// Microseconds since 1970, and the digits of the fraction.
fn usual_parts(text: &str, utc: bool) -> Option<(i64, [u8; 6])> {
    let bytes = text.as_bytes();
    let two = |at: usize| -> Option<i64> {
        let (tens, ones) = (bytes[at].wrapping_sub(b'0'), bytes[at + 1].wrapping_sub(b'0'));
        (tens < 10 && ones < 10).then_some(i64::from(tens * 10 + ones))
    };
    let marks = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if bytes.len() < 19 || !matches!(bytes[10], b'T' | b' ') || marks.iter().any(|(at, mark)| bytes[*at] != *mark) {
        return None;
    }
    let (year, month, day) = (two(0)? * 100 + two(2)?, two(5)?, two(8)?);
    let (hour, minute, second) = (two(11)?, two(14)?, two(17)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=days).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut rest = &bytes[19..];
    let (mut micros, mut fraction) = (0, *b"000000");
    if let Some((b'.', digits)) = rest.split_first() {
        let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let kept = count.min(6);
        fraction[..kept].copy_from_slice(&digits[..kept]);
        micros = fraction.iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
        rest = &digits[count..];
        if count == 0 {
            return None;
        }
    }
    match rest {
        b"Z" => {}
        b"" if utc => {}
        _ => return None,
    }
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    Some((seconds * 1_000_000 + micros, fraction))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar, by counting years from March so that leap days come last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468
}

/// As [`parse_time`], and also a calendar day, which means its first instant.
pub(crate) fn parse_time_or_day(text: &str, zone: &TimeZone) -> Option<Timestamp> {
    parse_time(text, zone).or_else(|| {
        let (date, rest) = iso_date(text.trim())?;
        let (year, month, day) = date;
        let civil = DateTime::new(year, month, day, 0, 0, 0, 0).ok().filter(|_| rest.is_empty())?;
        zone.to_ambiguous_timestamp(civil).compatible().ok()
    })
}

/// Reads a number as an epoch, its unit told by its magnitude: seconds below 10^11, milliseconds below 10^14,
/// microseconds below 10^17, else nanoseconds. Digits beyond the microsecond are cut off.
///
/// ```
/// use anylog_dbms::schema::epoch;
/// assert_eq!(epoch("1700000000"), epoch("1700000000000"));
/// assert_eq!(epoch("1700000000.5").unwrap().to_string(), "2023-11-14T22:13:20.5Z");
/// ```
#[must_use]
pub fn epoch(number: &str) -> Option<Timestamp> {
    let (negative, digits) = match number.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, number),
    };
    let plain;
    let digits = if digits.contains(['e', 'E']) {
        let value: f64 = digits.parse().ok()?;
        if !(0.0..1e19).contains(&value) {
            return None;
        }
        plain = format!("{value:.6}");
        plain.as_str()
    } else {
        digits
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let whole: i128 = whole.parse().ok()?;
    let unit: i128 = match whole {
        0..100_000_000_000 => 1_000_000_000,
        100_000_000_000..100_000_000_000_000 => 1_000_000,
        100_000_000_000_000..100_000_000_000_000_000 => 1_000,
        _ => 1,
    };
    let billionths: i128 = format!("{:0<9}", fraction.get(..9).unwrap_or(fraction)).parse().ok()?;
    let nanoseconds = whole.checked_mul(unit)? + billionths * unit / 1_000_000_000;
    let microseconds = nanoseconds / 1_000;
    let microseconds = i64::try_from(if negative { -microseconds } else { microseconds }).ok()?;
    Timestamp::from_microsecond(microseconds).ok()
}

/// `count` digits at the start.
fn digits(text: &str, count: usize) -> Option<(i32, &str)> {
    let head = text.get(..count)?;
    if !head.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((head.parse().ok()?, &text[count..]))
}

fn small(text: &str, count: usize) -> Option<(i8, &str)> {
    let (value, rest) = digits(text, count)?;
    Some((i8::try_from(value).ok()?, rest))
}

fn iso_date(text: &str) -> Option<((i16, i8, i8), &str)> {
    let (year, rest) = digits(text, 4)?;
    let (month, rest) = small(rest.strip_prefix('-')?, 2)?;
    let (day, rest) = small(rest.strip_prefix('-')?, 2)?;
    Some(((i16::try_from(year).ok()?, month, day), rest))
}

fn iso(text: &str) -> Option<(DateTime, &str)> {
    let ((year, month, day), rest) = iso_date(text)?;
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (hour, rest) = small(rest, 2)?;
    let (minute, rest) = small(rest.strip_prefix(':')?, 2)?;
    let (second, rest) = match rest.strip_prefix(':') {
        Some(rest) => small(rest, 2)?,
        None => (0, rest),
    };
    let (microseconds, rest) = match rest.strip_prefix(['.', ',']) {
        Some(rest) => fraction(rest)?,
        None => (0, rest),
    };
    Some((DateTime::new(year, month, day, hour, minute, second, microseconds * 1000).ok()?, rest))
}

fn fraction(text: &str) -> Option<(i32, &str)> {
    let length = text.bytes().take_while(u8::is_ascii_digit).count();
    let (all, rest) = text.split_at(length);
    if all.is_empty() {
        return None;
    }
    let microseconds = format!("{:0<6}", all.get(..6).unwrap_or(all)).parse().ok()?;
    Some((microseconds, rest))
}

fn us(text: &str) -> Option<(DateTime, &str)> {
    let (month, rest) = text.split_once('/')?;
    let (day, rest) = rest.split_once('/')?;
    let (year, rest) = digits(rest, 4)?;
    let (clock, rest) = rest.strip_prefix(' ')?.split_once(' ')?;
    let mut fields = clock.split(':').map(|field| field.parse::<i8>().ok());
    let (hour, minute, second) = (fields.next()??, fields.next()??, fields.next()??);
    let (half, rest) = (rest.get(..2)?, &rest[2..]);
    let hour = match (half.to_ascii_uppercase().as_str(), hour) {
        ("AM", 12) => 0,
        ("PM", 12) => 12,
        ("AM", 1..12) => hour,
        ("PM", 1..12) => hour + 12,
        _ => return None,
    };
    let (month, day) = (month.parse().ok()?, day.parse().ok()?);
    let civil = DateTime::new(i16::try_from(year).ok()?, month, day, hour, minute, second, 0).ok()?;
    (fields.next().is_none()).then_some((civil, rest))
}

/// The offset that is the whole rest of a text; `Some(None)` when nothing is left.
fn offset(text: &str) -> Option<Option<Offset>> {
    if text.is_empty() {
        return Some(None);
    }
    if text.eq_ignore_ascii_case("z") || text.eq_ignore_ascii_case("utc") {
        return Some(Some(Offset::UTC));
    }
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, rest) = digits(&text[1..], 2)?;
    let (minutes, rest) = if rest.is_empty() { (0, rest) } else { digits(rest.strip_prefix(':').unwrap_or(rest), 2)? };
    if !rest.is_empty() || minutes > 59 {
        return None;
    }
    Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok().map(Some)
}

#[cfg(test)]
mod tests;
