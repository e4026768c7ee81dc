use proptest::prelude::*;

use super::*;

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn named(count: u32, unit: PartitionUnit, at: &str) -> String {
    Partitioning::new("timestamp", count, unit).unwrap().name("t", time(at))
}

#[test]
fn names_are_the_documented_ones() {
    use PartitionUnit::{Day, Hour, Month, Year};
    for (count, unit, at, expected) in [
        (14, Day, "2024-08-20T00:00:00Z", "par_t_2024_08_01_d14_timestamp"),
        (1, Day, "2024-08-20T23:59:59Z", "par_t_2024_08_20_d01_timestamp"),
        (7, Day, "2026-10-03T00:00:00Z", "par_t_2026_10_00_d07_timestamp"),
        (7, Day, "2026-11-28T00:00:00Z", "par_t_2026_11_03_d07_timestamp"),
        (12, Hour, "2026-07-10T13:00:00Z", "par_t_2026_07_10_01_h12_timestamp"),
        (1, Hour, "2026-07-10T13:00:00Z", "par_t_2026_07_10_13_h01_timestamp"),
        (1, Month, "2026-07-10T13:00:00Z", "par_t_2026_07_m01_timestamp"),
        (3, Month, "2026-07-10T13:00:00Z", "par_t_2026_02_m03_timestamp"),
        (1, Year, "2026-07-10T13:00:00Z", "par_t_2026_y01_timestamp"),
        (10, Year, "2026-07-10T13:00:00Z", "par_t_202_y10_timestamp"),
    ] {
        assert_eq!(named(count, unit, at), expected);
    }
    let partitioning = Partitioning::new("insert_timestamp", 12, PartitionUnit::Hour).unwrap();
    let name = partitioning.name("node_insight", time("2026-07-10T13:00:00Z"));
    assert_eq!(name, "par_node_insight_2026_07_10_01_h12_insert_timestamp");
}

#[test]
fn ranges_are_clipped_to_the_parent() {
    for (name, start, end) in [
        ("par_t_2026_10_00_d07_timestamp", "2026-10-01T00:00:00Z", "2026-10-08T00:00:00Z"),
        ("par_t_2026_11_04_d07_timestamp", "2026-11-29T00:00:00Z", "2026-12-01T00:00:00Z"),
        ("par_t_2024_02_02_d14_timestamp", "2024-02-29T00:00:00Z", "2024-03-01T00:00:00Z"),
        ("par_t_2026_07_10_01_h12_timestamp", "2026-07-10T12:00:00Z", "2026-07-11T00:00:00Z"),
        ("par_t_2026_07_10_04_h05_timestamp", "2026-07-10T20:00:00Z", "2026-07-11T00:00:00Z"),
        ("par_t_2026_12_m01_timestamp", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ("par_t_2026_02_m05_timestamp", "2026-11-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ("par_t_202_y10_timestamp", "2020-01-01T00:00:00Z", "2030-01-01T00:00:00Z"),
    ] {
        assert_eq!(range(name), Some((time(start), time(end))), "{name}");
    }
    for name in [
        "",
        "t",
        "par_t",
        "par_t_2026_13_01_d01_x",
        "par_t_2026_02_30_d01_x",
        "par_2026_y01_x",
        "par_t_2026_y00_x",
        "par_t_2026_y01_",
    ] {
        assert_eq!(range(name), None, "{name}");
    }
}

#[test]
fn intervals_are_read() {
    use PartitionUnit::{Day, Hour, Month, Year};
    for (text, expected) in [
        ("day", (1, Day)),
        ("1 day", (1, Day)),
        ("14 Days", (14, Day)),
        (" 2  weeks ", (14, Day)),
        ("month", (1, Month)),
        ("3 months", (3, Month)),
        ("12 hours", (12, Hour)),
        ("years", (1, Year)),
    ] {
        assert_eq!(Partitioning::parse_interval(text).unwrap(), expected, "{text}");
    }
    for text in ["", "0 days", "100 days", "15 weeks", "x days", "1 minute", "1 day 2", "-1 day", "99999999999 days"] {
        assert!(Partitioning::parse_interval(text).is_err(), "{text}");
    }
}

#[test]
fn names_of_similar_tables_are_told_apart() {
    let tables = ["a", "a_2024", "a_b", "a_2024_01"];
    for table in tables {
        for unit in [PartitionUnit::Year, PartitionUnit::Month, PartitionUnit::Day, PartitionUnit::Hour] {
            let partitioning = Partitioning::new("ts", 1, unit).unwrap();
            let name = partitioning.name(table, time("2024-01-02T03:00:00Z"));
            assert_eq!(PartitionName::parse(&name).unwrap().table, table, "{name}");
        }
    }
}

fn days(days: &[&str]) -> Vec<String> {
    days.iter().map(|day| named(1, PartitionUnit::Day, &format!("{day}T00:00:00Z"))).collect()
}

#[test]
fn the_oldest_go_and_the_active_stays() {
    let names = days(&["2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"]);
    let now = time("2026-01-03T12:00:00Z");
    assert_eq!(oldest(&names, now), Ok(names[0].clone()));
    assert_eq!(oldest(&names[..1], now), Err(RetainError::OnlyActive));
    assert_eq!(oldest(&names[2..], now), Err(RetainError::OnlyActive));
    assert_eq!(oldest(&[], now), Err(RetainError::OnlyActive));
    assert_eq!(surplus(&names, 3, now), Ok(vec![names[0].clone()]));
    assert_eq!(surplus(&names, 1, now), Ok(names[..2].to_vec()));
    assert_eq!(surplus(&names, 0, now), Ok(names[..2].to_vec()));
    assert_eq!(surplus(&names, 4, now), Err(RetainError::NotMore { count: 4, keep: 4 }));
    // Rows of the past go into the newest.
    assert_eq!(surplus(&names, 0, time("2030-01-01T00:00:00Z")), Ok(names[..3].to_vec()));
    // After the interval changed, names are not in time order.
    let mixed = vec![
        named(1, PartitionUnit::Month, "2026-02-01T00:00:00Z"),
        named(1, PartitionUnit::Day, "2026-01-05T00:00:00Z"),
        named(10, PartitionUnit::Year, "2012-01-01T00:00:00Z"),
    ];
    assert_eq!(oldest(&mixed, time("2026-03-01T00:00:00Z")), Ok(mixed[2].clone()));
    assert_eq!(in_time_order(mixed.clone()), [mixed[2].clone(), mixed[1].clone(), mixed[0].clone()]);
}

#[test]
fn partitions_go_by_age_and_by_size() {
    let names = days(&["2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"]);
    let now = time("2026-01-04T12:00:00Z");
    let hours = |hours: u64| std::time::Duration::from_secs(hours * 3600);
    // A partition goes when its last row is old enough, not when its first is.
    assert_eq!(outdated(&names, hours(24), now), names[..2]);
    assert_eq!(outdated(&names, hours(12), now), names[..3]);
    assert_eq!(outdated(&names, hours(0), now), names[..3]);
    assert_eq!(outdated(&names, hours(61), now), names[..0]);
    assert_eq!(outdated(&names, std::time::Duration::MAX, now), names[..0]);
    let bytes = |name: &str| if name == names[3] { 50 } else { 10 };
    assert_eq!(oversize(&names, bytes, 80, now), (Vec::new(), 80));
    assert_eq!(oversize(&names, bytes, 79, now), (names[..1].to_vec(), 70));
    assert_eq!(oversize(&names, bytes, 60, now), (names[..2].to_vec(), 60));
    assert_eq!(oversize(&names, bytes, 0, now), (names[..3].to_vec(), 50));
    assert_eq!(oversize(&names[3..], bytes, 0, now), (Vec::new(), 50));
}

/// Times at which buckets begin and end: around month ends, leap days, year ends and midnights.
fn edges() -> impl Strategy<Value = Timestamp> {
    let around =
        (1970i16..=2399, 1i8..=12, prop_oneof![Just(0i8), Just(1), Just(27), Just(28)], -2i64..=2, 0i64..=86_400);
    around.prop_map(|(year, month, day, micros, seconds)| {
        let first = jiff::civil::date(year, month, 1);
        let day = first.checked_add(jiff::Span::new().days(day)).unwrap();
        // Half of them at midnight, where all units change.
        let seconds = if seconds % 2 == 0 { 0 } else { seconds };
        let at = jiff::tz::TimeZone::UTC.to_timestamp(day.at(0, 0, 0, 0)).unwrap();
        let at = at.checked_add(jiff::Span::new().seconds(seconds).microseconds(micros)).unwrap();
        at.max(Timestamp::UNIX_EPOCH)
    })
}

fn unit() -> impl Strategy<Value = PartitionUnit> {
    use PartitionUnit::{Day, Hour, Month, Year};
    prop_oneof![Just(Year), Just(Month), Just(Day), Just(Hour)]
}

proptest! {
    #[test]
    fn a_name_tells_table_column_and_a_range_that_holds_the_time(
        at in prop_oneof![edges(), (0i64..16_725_225_600).prop_map(|seconds| Timestamp::from_second(seconds).unwrap())],
        count in 1u32..=99,
        unit in unit(),
        table in "[a-z][a-z0-9]{0,6}(_[a-z0-9]{1,4}){0,2}",
        column in "[a-z]{4,9}(_[a-z]{4,9})?",
    ) {
        let partitioning = Partitioning::new(column.clone(), count, unit).unwrap();
        let name = partitioning.name(&table, at);
        let parsed = PartitionName::parse(&name).unwrap();
        prop_assert_eq!((parsed.table.as_str(), parsed.column.as_str(), parsed.count, parsed.unit), (table.as_str(), column.as_str(), count, unit));
        let (start, end) = range(&name).unwrap();
        prop_assert!(start <= at && at < end, "{} is {} to {}", name, start, end);
        prop_assert_eq!(partitioning.name(&table, start), name.clone());
        let last = end.checked_sub(jiff::Span::new().microseconds(1)).unwrap();
        prop_assert_eq!(partitioning.name(&table, last), name.clone());
        // The next begins where it ends: no time is in none, none in two.
        let next = range(&partitioning.name(&table, end)).unwrap();
        prop_assert_eq!(next.0, end);
        // It lies in one parent unit, with which buckets begin anew.
        let parent = match unit {
            PartitionUnit::Year => return Ok(()),
            PartitionUnit::Month => PartitionUnit::Year,
            PartitionUnit::Day => PartitionUnit::Month,
            PartitionUnit::Hour => PartitionUnit::Day,
        };
        let parent = Partitioning::new(column, 1, parent).unwrap();
        prop_assert_eq!(parent.name(&table, start), parent.name(&table, last));
    }

    #[test]
    fn rules_leave_the_active_partition(
        starts in proptest::collection::btree_set(0u32..400, 0..30),
        count in 1u32..=40,
        unit in unit(),
        now in 0i64..400,
        keep in 0usize..12,
        most in 0u64..300,
    ) {
        let day = |day: i64| Timestamp::from_second(1_700_000_000 + day * 86_400).unwrap();
        let partitioning = Partitioning::new("ts", count, unit).unwrap();
        let mut names: Vec<String> = starts.iter().map(|start| partitioning.name("t", day(i64::from(*start)))).collect();
        names.dedup();
        let now = day(now);
        let active = |name: &String| Some(name) == names.last() || range(name).unwrap().1 > now;
        let may_go = expendable(&names, now);
        prop_assert_eq!(&may_go, &names.iter().filter(|name| !active(name)).cloned().collect::<Vec<_>>());
        match surplus(&names, keep, now) {
            Err(_) => prop_assert!(names.len() <= keep),
            Ok(gone) => prop_assert_eq!(&gone[..], &may_go[..(names.len() - keep).min(may_go.len())]),
        }
        let bytes = |name: &str| name.len() as u64;
        let (gone, left) = oversize(&names, bytes, most, now);
        prop_assert_eq!(&gone[..], &may_go[..gone.len()]);
        prop_assert!(left <= most || gone.len() == may_go.len());
        // Not one more than needed.
        if let Some(last) = gone.last() {
            prop_assert!(left + bytes(last) > most);
        }
    }

    #[test]
    fn never_panics(name in "\\PC{0,60}", close in "par_(t_)?[0-9_]{0,30}[ymdh]?[0-9]{0,3}_?[a-z_]{0,5}") {
        drop((range(&name), range(&close), PartitionName::parse(&close), Partitioning::parse_interval(&name)));
    }
}
