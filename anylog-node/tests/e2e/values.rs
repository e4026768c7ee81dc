//! Values arrive unharmed.

use serde_json::{Value, json};

use super::harness::Operator;

#[test]
fn values_survive_the_way_in_and_out() {
    let node = Operator::start();
    let row = r#"{"name": "Pümpe \"7\" 'x' \\ 漢字 😀", "big": 9223372036854775807, "small": -9223372036854775808,
        "precise": 0.12345678901234567, "tiny": 1e-300, "on": true, "off": false, "nothing": null, "empty": "",
        "when": "2026-03-01T12:30:45.123456+02:00", "nested": {"a": [1, {"b": "c"}], "z": 1.0}, "list": [1, 2.50, "x"]}"#;
    node.put("values_in", "streaming", &row.replace('\n', " ")).ok();
    let rows = node.rows("select * from values_in");
    let stored = &rows[0];
    assert_eq!(stored["name"], "Pümpe \"7\" 'x' \\ 漢字 😀");
    assert_eq!(stored["big"], json!(i64::MAX));
    assert_eq!(stored["small"], json!(i64::MIN));
    assert_eq!(stored["precise"], json!(0.123_456_789_012_345_67));
    assert_eq!(stored["tiny"], json!(1e-300));
    assert_eq!((&stored["on"], &stored["off"]), (&json!(true), &json!(false)));
    assert_eq!(stored["nothing"], Value::Null);
    assert_eq!(stored["empty"], "");
    assert_eq!(stored["when"], "2026-03-01 10:30:45.123456", "stored in UTC");
    assert_eq!(stored["nested"], r#"{"a": [1, {"b": "c"}], "z": 1.0}"#, "verbatim");
    assert_eq!(stored["list"], r#"[1, 2.50, "x"]"#, "verbatim");
}

#[test]
fn a_column_that_began_with_integers_takes_fractions() {
    let node = Operator::start();
    node.put("widening", "streaming", r#"{"value": 1}"#).ok();
    node.put("widening", "streaming", r#"{"value": 1.5}"#).ok();
    let sum = node.rows("select sum(value) as total, count(*) as n from widening");
    assert_eq!((&sum[0]["total"], &sum[0]["n"]), (&json!(2.5), &json!(2)));
    let table =
        node.policies("table").into_iter().find(|policy| policy["table"]["name"] == "widening").expect("a policy");
    assert!(table["table"]["create"].as_str().expect("text").to_lowercase().contains("value double"), "{table}");
}
