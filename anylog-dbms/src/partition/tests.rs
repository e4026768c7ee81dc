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

#[test]
fn the_oldest_go_and_the_active_stays() {
    let names: Vec<String> = ["2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"]
        .iter()
        .map(|day| named(1, PartitionUnit::Day, &format!("{day}T00:00:00Z")))
        .collect();
    let now = time("2026-01-03T12:00:00Z");
    assert_eq!(oldest(&names), Ok(names[0].clone()));
    assert_eq!(oldest(&names[..1]), Err(RetainError::OnlyActive));
    assert_eq!(oldest(&[]), Err(RetainError::OnlyActive));
    assert_eq!(surplus(&names, 3, now), Ok(vec![names[0].clone()]));
    assert_eq!(surplus(&names, 1, now), Ok(names[..2].to_vec()));
    assert_eq!(surplus(&names, 0, now), Ok(names[..2].to_vec()));
    assert_eq!(surplus(&names, 4, now), Err(RetainError::NotMore { count: 4, keep: 4 }));
    // After the interval changed, names are not in time order.
    let mixed = vec![
        named(1, PartitionUnit::Month, "2026-02-01T00:00:00Z"),
        named(1, PartitionUnit::Day, "2026-01-05T00:00:00Z"),
    ];
    assert_eq!(oldest(&mixed), Ok(mixed[1].clone()));
}

proptest! {
    #[test]
    fn a_name_tells_table_column_and_a_range_that_holds_the_time(
        seconds in 0i64..16_725_225_600,
        count in 1u32..=99,
        unit in prop_oneof![Just(PartitionUnit::Year), Just(PartitionUnit::Month), Just(PartitionUnit::Day), Just(PartitionUnit::Hour)],
        table in "[a-z][a-z0-9]{0,6}(_[a-z0-9]{1,4}){0,2}",
        column in "[a-z]{4,9}(_[a-z]{4,9})?",
    ) {
        let at = Timestamp::from_second(seconds).unwrap();
        let partitioning = Partitioning::new(column.clone(), count, unit).unwrap();
        let name = partitioning.name(&table, at);
        let parsed = PartitionName::parse(&name).unwrap();
        prop_assert_eq!((parsed.table.as_str(), parsed.column.as_str(), parsed.count, parsed.unit), (table.as_str(), column.as_str(), count, unit));
        let (start, end) = range(&name).unwrap();
        prop_assert!(start <= at && at < end, "{} is {} to {}", name, start, end);
        prop_assert_eq!(partitioning.name(&table, start), name.clone());
        let last = end.checked_sub(jiff::Span::new().microseconds(1)).unwrap();
        prop_assert_eq!(partitioning.name(&table, last), name);
    }

    #[test]
    fn never_panics(name in "\\PC{0,60}", close in "par_(t_)?[0-9_]{0,30}[ymdh]?[0-9]{0,3}_?[a-z_]{0,5}") {
        drop((range(&name), range(&close), PartitionName::parse(&close), Partitioning::parse_interval(&name)));
    }
}
