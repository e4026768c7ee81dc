use proptest::prelude::*;

use super::*;
use crate::schema::{TableSchema, infer, parse_create};

fn now() -> Timestamp {
    "2026-03-04T05:06:07.123456Z".parse().unwrap()
}

fn table(columns: &str) -> TableSchema {
    parse_create(&format!("create table t({columns})")).unwrap()
}

fn converter(columns: &str) -> RowConverter {
    RowConverter::new(&table(columns), TimeZone::UTC, TimeWindow::default())
}

/// The value of one column from one JSON value.
fn one(kind: &str, json: &str) -> Result<SqlValue, RowProblem> {
    let row = converter(&format!("c {kind}")).convert(&format!("{{\"c\":{json}}}"), now())?;
    assert_eq!(row.widen, Vec::<usize>::new(), "{kind} {json}");
    Ok(row.values.into_iter().next().unwrap())
}

fn text(text: &str) -> SqlValue {
    SqlValue::Text(text.to_owned())
}

#[test]
fn values_that_fit() {
    let long = "x".repeat(100_000);
    let cases = [
        ("bigint", "9223372036854775807", SqlValue::Int(i64::MAX)),
        ("bigint", "-9223372036854775808", SqlValue::Int(i64::MIN)),
        ("bigint", "\"42\"", SqlValue::Int(42)),
        ("int", "-2147483648", SqlValue::Int(-2_147_483_648)),
        ("double precision", "0.12345678901234568", SqlValue::Float(0.123_456_789_012_345_68)),
        ("double precision", "1e-320", SqlValue::Float(1e-320)),
        ("double precision", "7", SqlValue::Float(7.0)),
        ("double precision", "\"-1.5\"", SqlValue::Float(-1.5)),
        ("decimal", "12.50", text("12.50")),
        ("boolean", "true", SqlValue::Bool(true)),
        ("boolean", "\"False\"", SqlValue::Bool(false)),
        ("boolean", "1", SqlValue::Bool(true)),
        ("varchar", "\"it's \\\"q\\\" \\u00fc\\ud83d\\ude00\\n\"", text("it's \"q\" \u{fc}\u{1f600}\n")),
        ("varchar", "\"\"", text("")),
        ("varchar", "12.50", text("12.50")),
        ("varchar", "true", text("true")),
        ("varchar", "{\"a\": [1,  2.0], \"b\":{} }", text("{\"a\": [1,  2.0], \"b\":{} }")),
        ("varchar", &format!("\"{long}\""), text(&long)),
        ("char(3)", "\"\u{fc}\u{fc}\u{fc}\"", text("\u{fc}\u{fc}\u{fc}")),
        ("date", "\"2024-02-29\"", text("2024-02-29")),
        ("time", "\"10:11:12.5\"", text("10:11:12.500000")),
        ("uuid", "\"{123E4567E89B12D3A456426614174000}\"", text("123e4567-e89b-12d3-a456-426614174000")),
        ("cidr", "\"10.0.0.0/8\"", text("10.0.0.0/8")),
        ("cidr", "\"fe80::1\"", text("fe80::1")),
        ("timestamp", "\"2026-03-04T07:06:07.5+02:00\"", text("2026-03-04 05:06:07.500000")),
        ("timestamp", "\"2026-03-01\"", text("2026-03-01 00:00:00.000000")),
        ("timestamp", "1700000000", text("2023-11-14 22:13:20.000000")),
        ("timestamp", "1700000000123", text("2023-11-14 22:13:20.123000")),
        ("timestamp", "\"1700000000123456\"", text("2023-11-14 22:13:20.123456")),
        ("timestamp", "1700000000.25", text("2023-11-14 22:13:20.250000")),
        ("timestamp", "\"now()\"", text("2026-03-04 05:06:07.123456")),
    ];
    for (kind, json, expected) in cases {
        assert_eq!(one(kind, json).unwrap(), expected, "{kind} {json}");
    }
}

// R13
#[test]
fn values_that_do_not_fit_name_column_expected_and_actual() {
    for (kind, json) in [
        ("bigint", "9223372036854775808"),
        ("bigint", "true"),
        ("bigint", "\"hot\""),
        ("bigint", "[1]"),
        ("int", "2147483648"),
        ("int", "1.5"),
        ("double precision", "1e999"),
        ("double precision", "\"inf\""),
        ("double precision", "\"nan\""),
        ("double precision", "{}"),
        ("boolean", "2"),
        ("boolean", "\"yes\""),
        ("char(2)", "\"abc\""),
        ("varchar", "\"a\\u0000b\""),
        ("date", "\"2024-02-30\""),
        ("time", "\"25:00:00\""),
        ("uuid", "\"123\""),
        ("cidr", "\"10.0.0.0/33\""),
        ("timestamp", "\"yesterday\""),
        ("timestamp", "true"),
        ("timestamp", "{}"),
    ] {
        let problem = one(kind, json).expect_err(json);
        assert_eq!(problem.column, "c", "{kind} {json}");
        assert!(!problem.expected.is_empty());
        assert_eq!(problem.actual, json);
    }
    let problem = one("bigint", "\"hot\"").unwrap_err();
    assert_eq!(problem.to_string(), "column 'c': expected BIGINT, got \"hot\"");
}

// R16
#[test]
fn times_outside_the_window_are_refused() {
    for json in [
        "0.0e0",
        "-1",
        "\"1969-12-31 23:59:59Z\"",
        "\"2026-03-05 05:06:08Z\"",
        "\"9920-01-01 00:00:00\"",
        "32503680000",
    ] {
        let refused = one("timestamp", json);
        // The first instant of 1970 itself is inside.
        assert_eq!(refused.is_err(), json != "0.0e0", "{json}");
    }
    assert!(one("timestamp", "\"2026-03-05 05:06:07Z\"").is_ok());
    let window = TimeWindow { past: Some(Duration::from_secs(3600)), future: Duration::ZERO };
    let narrow = RowConverter::new(&table("c timestamp"), TimeZone::UTC, window);
    assert!(narrow.convert(r#"{"c":"2026-03-04 04:06:07.123456"}"#, now()).is_ok());
    let problem = narrow.convert(r#"{"c":"2026-03-04 04:06:07"}"#, now()).unwrap_err();
    assert_eq!(problem.expected, "a time from 2026-03-04 04:06:07.123456 to 2026-03-04 05:06:07.123456");
}

#[test]
fn a_fraction_asks_for_a_wider_column() {
    let converter = converter("a bigint, b bigint, c double precision");
    let row = converter.convert(r#"{"a":1,"b":2.5,"c":3}"#, now()).unwrap();
    assert_eq!(row.values, [SqlValue::Int(1), SqlValue::Float(2.5), SqlValue::Float(3.0)]);
    assert_eq!(row.widen, [1]);
    assert_eq!(converter.convert(r#"{"a":1e3}"#, now()).unwrap().widen, [0]);
}

#[test]
fn keys_are_found_exactly_or_by_their_normalised_form() {
    let converter = converter("_40001 bigint, pump_speed bigint, x bigint");
    let row = converter.convert(r#"{"40001":1,"Pump Speed":2,"X":3,"x":4,"unknown":{"deep":[]}}"#, now()).unwrap();
    assert_eq!(row.values, [SqlValue::Int(1), SqlValue::Int(2), SqlValue::Int(4)]);
    let row = converter.convert(r#"{"x":4,"X":3,"pump-speed":1,"pump.speed":2,"pump_\u0073peed":9}"#, now()).unwrap();
    assert_eq!(row.values, [SqlValue::Null, SqlValue::Int(9), SqlValue::Int(4)]);
}

#[test]
fn what_is_missing_takes_the_default() {
    let columns = "a varchar default 'it''s', b bigint default -7, c timestamp not null default now(), d boolean default true, \
                   e double precision default 1.5, f varchar, g date default now(), h bigint not null";
    let converter = converter(columns);
    let row = converter.convert(r#"{"h":1,"f":null,"a":null}"#, now()).unwrap();
    let expected = [
        text("it's"),
        SqlValue::Int(-7),
        text("2026-03-04 05:06:07.123456"),
        SqlValue::Bool(true),
        SqlValue::Float(1.5),
        SqlValue::Null,
        text("2026-03-04"),
        SqlValue::Int(1),
    ];
    assert_eq!(row.values, expected);
    let problem = converter.convert(r#"{"h":null}"#, now()).unwrap_err();
    assert_eq!(problem.to_string(), "column 'h': expected BIGINT NOT NULL, got null");
}

#[test]
fn what_is_no_object_is_a_problem_of_the_row() {
    for json in ["", "[]", "1", "null", "{", r#"{"c":1"#, r#"{"c":1} x"#, r#"{"c":}"#, "\u{0}", r#"{"c":01}"#] {
        let problem = converter("c bigint").convert(json, now()).expect_err(json);
        assert_eq!((problem.column.as_str(), problem.expected.as_str()), ("", "a JSON object"), "{json}");
    }
}

proptest! {
    #[test]
    fn never_panics(json in "\\PC{0,60}", value in "[-0-9.eE\"truefalsn{}\\[\\]:, Z]{0,30}") {
        let converter = converter("a timestamp, b bigint, c double precision, d boolean, e varchar, f char(3), g decimal");
        drop(converter.convert(&json, now()));
        for key in ["a", "b", "c", "d", "e", "f", "g"] {
            drop(converter.convert(&format!("{{\"{key}\":{value}}}"), now()));
        }
    }

    // What the data itself derived holds the data, and integers and floats come back to the last digit.
    #[test]
    fn derived_tables_hold_their_rows(int in any::<i64>(), float in any::<f64>().prop_filter("finite", |f| f.is_finite()), words in ".*") {
        let words = words.replace('\0', "");
        let json = serde_json::json!({"i": int, "f": float, "w": words, "b": true, "n": null}).to_string();
        let schema = infer("t", &[&json], &[], false).unwrap();
        let row = RowConverter::new(&schema, TimeZone::UTC, TimeWindow { past: None, future: Duration::MAX }).convert(&json, now()).unwrap();
        prop_assert_eq!(&row.values[0], &SqlValue::Int(int));
        prop_assert_eq!(&row.values[1], &SqlValue::Float(float));
        prop_assert_eq!(&row.values[3], &SqlValue::Bool(true));
        prop_assert_eq!(&row.values[4], &SqlValue::Null);
        if let SqlValue::Text(stored) = &row.values[2] {
            if schema.data_columns()[2].kind == crate::ColumnType::Varchar {
                prop_assert_eq!(stored, &words);
            }
        } else {
            prop_assert!(false, "text is stored as text");
        }
    }
}
