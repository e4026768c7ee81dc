//! Times without an offset: the zone that a mapping declares for them (R15).
//!
//! A time with an offset or `Z` means what it says, a number is an epoch. Only a time without an offset needs a zone: that of the
//! mapping when it declares one, else that of the node (`set time zone`, UTC until then). It is never guessed from the computer's
//! clock. Where the clock of the zone was put back, the first of both instants is meant; where it was put forward, the time is
//! taken by the offset before the gap.

use anylog_core::{CommandError, Status};
use anylog_dbms::schema::parse_time;
use jiff::tz::{Offset, TimeZone};

use super::source::Found;
use super::types::Form;
use crate::json::{self, Kind, Node};

/// A zone by its name, such as `Europe/Berlin`, `UTC`, `+02:00`.
pub(super) fn parse(name: &str) -> Result<TimeZone, String> {
    let name = name.trim();
    if name.eq_ignore_ascii_case("utc") || name == "Z" {
        return Ok(TimeZone::UTC);
    }
    offset(name)
        .map(TimeZone::fixed)
        .or_else(|| TimeZone::get(name).ok())
        .ok_or_else(|| format!("'{name}' is not a time zone"))
}

/// `+hh:mm`, `-hhmm`, `+hh`.
fn offset(text: &str) -> Option<Offset> {
    let (sign, digits) = match text.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let digits = digits.replacen(':', "", 1);
    if !matches!(digits.len(), 2 | 4) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (hours, minutes) = digits.split_at(2);
    let minutes: i32 = if minutes.is_empty() { 0 } else { minutes.parse().ok().filter(|minutes| *minutes < 60)? };
    Offset::from_seconds(sign * (hours.parse::<i32>().ok()? * 3600 + minutes * 60)).ok()
}

/// The error of a declaration with a zone that is none.
pub(super) fn declared(name: &str) -> Result<TimeZone, CommandError> {
    parse(name).map_err(|problem| {
        CommandError::new(Status::MESSAGE_DECLARATION, problem)
            .hint("zones are written as Europe/Berlin, UTC or +02:00")
    })
}

/// Writes a value for a column whose times are meant in `zone`: a time as UTC, anything else as without a zone.
pub(super) fn write(zone: &TimeZone, found: &Found<'_>, form: Form, out: &mut String) {
    let text = match found {
        Found::Node(Node { kind: Kind::Text(text), .. }) => text.as_ref(),
        Found::Node(_) => return found.write(form, out),
        Found::Text(text) => text.as_str(),
    };
    match parse_time(text, zone) {
        Some(time) => json::push_quoted(out, &anylog_core::time::policy_date(time)),
        None => found.write(form, out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // R15
    #[test]
    fn times_are_meant_in_the_declared_zone() {
        let written = |zone: &str, value: &str| {
            let mut out = String::new();
            let node = json::parse(value).unwrap();
            write(&parse(zone).unwrap(), &Found::Node(&node), Form::Verbatim, &mut out);
            out
        };
        for (zone, value, expected) in [
            ("Europe/Berlin", r#""2024-01-15 12:00:00""#, r#""2024-01-15T11:00:00.000000Z""#),
            ("Europe/Berlin", r#""2024-07-15T12:00:00.5""#, r#""2024-07-15T10:00:00.500000Z""#),
            // The clock is put forward at 02:00: the offset before the gap holds.
            ("Europe/Berlin", r#""2024-03-31 02:30:00""#, r#""2024-03-31T01:30:00.000000Z""#),
            ("America/New_York", r#""2024-03-10 02:30:00""#, r#""2024-03-10T07:30:00.000000Z""#),
            // The clock is put back at 03:00: the first of both is meant.
            ("Europe/Berlin", r#""2024-10-27 02:30:00""#, r#""2024-10-27T00:30:00.000000Z""#),
            ("America/New_York", r#""2024-11-03 01:30:00""#, r#""2024-11-03T05:30:00.000000Z""#),
            ("+05:30", r#""2024-01-15 12:00:00""#, r#""2024-01-15T06:30:00.000000Z""#),
            ("-08", r#""2024-01-15 12:00:00""#, r#""2024-01-15T20:00:00.000000Z""#),
            // What says where it is meant is taken at its word; epochs have no zone.
            ("Europe/Berlin", r#""2024-07-15T12:00:00Z""#, r#""2024-07-15T12:00:00.000000Z""#),
            ("Europe/Berlin", r#""2024-07-15T12:00:00-04:00""#, r#""2024-07-15T16:00:00.000000Z""#),
            ("Europe/Berlin", "1700000000123", "1700000000123"),
            ("Europe/Berlin", r#""1700000000""#, r#""1700000000""#),
            // What is no time is left as it is, and refused by its column.
            ("Europe/Berlin", r#""soon""#, r#""soon""#),
            ("Europe/Berlin", "null", "null"),
        ] {
            assert_eq!(written(zone, value), expected, "{zone} {value}");
        }
    }

    #[test]
    fn what_is_no_zone_is_an_error() {
        for name in ["", "Berlin", "+2", "+25:99", "+02:60", "+ab", "é"] {
            assert!(parse(name).is_err(), "{name}");
        }
        assert!(declared("Europe/Berlln").unwrap_err().message.contains("Berlln"));
    }
}
