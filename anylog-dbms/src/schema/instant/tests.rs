use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::*;

fn utc(text: &str) -> Option<String> {
    parse_time(text, &TimeZone::UTC).map(|time| time.to_string())
}

// R15
#[test]
fn times_with_an_offset_become_utc() {
    let expected = Some("2024-08-20T08:00:00.5Z".to_owned());
    for text in [
        "2024-08-20T08:00:00.5Z",
        "2024-08-20 08:00:00.500000z",
        "2024-08-20T10:00:00.5+02:00",
        "2024-08-20 10:00:00.5 +0200",
        "2024-08-20 10:00:00,5+02",
        "2024-08-20T02:30:00.5-05:30",
        "  2024-08-20T08:00:00.5 UTC ",
    ] {
        assert_eq!(utc(text), expected, "{text}");
    }
    assert_eq!(utc("08/20/2024 01:02:03 PM +0200").as_deref(), Some("2024-08-20T11:02:03Z"));
    assert_eq!(utc("8/2/2024 12:00:00 AM").as_deref(), Some("2024-08-02T00:00:00Z"));
    assert_eq!(utc("2024-08-20T08:00:00.123456999Z").as_deref(), Some("2024-08-20T08:00:00.123456Z"));
}

// R15
#[test]
fn times_without_an_offset_are_in_the_zone() {
    let berlin = TimeZone::get("Europe/Berlin").unwrap();
    let at = |text: &str| parse_time(text, &berlin).map(|time| time.to_string());
    assert_eq!(at("2024-01-15 12:00:00").as_deref(), Some("2024-01-15T11:00:00Z"));
    assert_eq!(at("2024-07-15 12:00:00").as_deref(), Some("2024-07-15T10:00:00Z"));
    // The clock goes from 02:00 to 03:00: the offset before the gap holds.
    assert_eq!(at("2024-03-31 02:30:00").as_deref(), Some("2024-03-31T01:30:00Z"));
    // The clock goes from 03:00 back to 02:00: the first 02:30 is meant.
    assert_eq!(at("2024-10-27 02:30:00").as_deref(), Some("2024-10-27T00:30:00Z"));
    // An offset in the text wins.
    assert_eq!(at("2024-07-15 12:00:00Z").as_deref(), Some("2024-07-15T12:00:00Z"));
}

#[test]
fn what_is_no_time_is_none() {
    for text in [
        "",
        "today",
        "2024",
        "2024-08-20",
        "2024-13-01 00:00:00",
        "2024-02-30 00:00:00",
        "2024-08-20 24:00:00",
        "2024-08-20T08:00:00.Z",
        "2024-08-20T08:00:00+2",
        "2024-08-20T08:00:00 CET",
        "2024-08-20 08",
        "08/20/2024 13:00:00 PM",
        "2024-08-20T08:00:00+99:00",
        "２０２４-08-20 08:00:00",
        "1234567890",
    ] {
        assert_eq!(utc(text), None, "{text}");
    }
}

// R15
#[test]
fn numbers_are_epochs_by_magnitude() {
    let text = |number: &str| epoch(number).map(|time| time.to_string());
    let expected = Some("2023-11-14T22:13:20Z".to_owned());
    for number in ["1700000000", "1700000000000", "1700000000000000", "1700000000000000000", "1.7e9", "1700000000.0"] {
        assert_eq!(text(number), expected, "{number}");
    }
    assert_eq!(text("1700000000.123456789").as_deref(), Some("2023-11-14T22:13:20.123456Z"));
    assert_eq!(text("1700000000123.4").as_deref(), Some("2023-11-14T22:13:20.1234Z"));
    assert_eq!(text("0").as_deref(), Some("1970-01-01T00:00:00Z"));
    assert_eq!(text("-1.5").as_deref(), Some("1969-12-31T23:59:58.5Z"));
    for number in ["", "-", ".", ".5", "1e400", "x", "1_000", "99999999999999999999999999999999999999999999"] {
        assert_eq!(text(number), None, "{number}");
    }
}

#[test]
fn days_begin_at_midnight_of_the_zone() {
    let zone = TimeZone::fixed(jiff::tz::offset(2));
    let day = |text| parse_time_or_day(text, &zone).map(|time| time.to_string());
    assert_eq!(day("2024-08-20").as_deref(), Some("2024-08-19T22:00:00Z"));
    assert_eq!(day("2024-08-20x"), None);
}

proptest! {
    #[test]
    fn never_panics(text in "\\PC{0,40}", digits in "[-0-9.eE+]{0,40}") {
        let _ = (parse_time(&text, &TimeZone::UTC), parse_time_or_day(&digits, &TimeZone::UTC));
        let _ = (epoch(&text), epoch(&digits));
    }

    #[test]
    fn stored_times_read_back(microseconds in 0i64..4_102_444_800_000_000) {
        let time = Timestamp::from_microsecond(microseconds).unwrap();
        prop_assert_eq!(parse_time(&anylog_core::time::stored(time), &TimeZone::UTC), Some(time));
        prop_assert_eq!(parse_time(&anylog_core::time::policy_date(time), &TimeZone::UTC), Some(time));
    }
}

proptest::proptest! {
    #[test]
    fn the_quick_way_agrees_with_the_full_one(
        (year, month, day) in (0u16..2100, 0u8..14, 0u8..33),
        (hour, minute, second) in (0u8..25, 0u8..61, 0u8..61),
        fraction in "(\\.[0-9]{0,8})?",
        end in "(Z|z| |\\+00:00)?",
        between in "[T t]",
    ) {
        let text = format!("{year:04}-{month:02}-{day:02}{between}{hour:02}:{minute:02}:{second:02}{fraction}{end}");
        if let Some((micros, stored)) = usual(&text, true) {
            let full = parse_time(&text, &TimeZone::UTC).unwrap();
            proptest::prop_assert_eq!(micros, full.as_microsecond(), "{}", text);
            proptest::prop_assert_eq!(stored, anylog_core::time::stored(full));
        }
    }

    #[test]
    fn the_quick_way_survives_any_text(text: String) {
        drop(usual(&text, true));
    }
}

#[test]
fn usual_times_take_the_quick_way() {
    assert!(usual("2026-03-01T10:00:00Z", false).is_some());
    assert!(usual("2024-02-29 10:00:00.5Z", false).is_some());
    assert!(usual("2026-03-01 10:00:00.123456789", true).is_some());
    for other in [
        "2026-03-01 10:00:00",
        "2026-02-29T10:00:00Z",
        "2026-03-01T24:00:00Z",
        "2026-03-01T10:00:00.Z",
        "2026-03-01T1é:00:00Z",
    ] {
        assert!(usual(other, false).is_none(), "{other}");
    }
}

// R15, R16: where the units meet.
#[test]
fn the_magnitude_of_an_epoch_decides_its_unit() {
    for (number, expected) in [
        ("99999999999", "5138-11-16T09:46:39Z"),
        ("100000000000", "1973-03-03T09:46:40Z"),
        ("99999999999999", "5138-11-16T09:46:39.999Z"),
        ("100000000000000", "1973-03-03T09:46:40Z"),
        ("99999999999999999", "5138-11-16T09:46:39.999999Z"),
        ("100000000000000000", "1973-03-03T09:46:40Z"),
        ("1", "1970-01-01T00:00:01Z"),
    ] {
        assert_eq!(epoch(number).map(|time| time.to_string()).as_deref(), Some(expected), "{number}");
    }
}
