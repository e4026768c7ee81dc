use anylog_ledger::Policy;
use jiff::Timestamp;
use proptest::prelude::*;

use super::*;

const NOW: &str = "2026-11-23T08:00:00.123456Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn columns(list: &[(&str, &str, &str, bool)]) -> Vec<Column> {
    list.iter().map(|(name, kind, value, optional)| Column::new(name, kind, value, *optional).unwrap()).collect()
}

fn inline(dbms: &str, table: &str, list: &[(&str, &str, &str, bool)]) -> Mapper {
    Mapper::inline(Inline::new(dbms, table, columns(list)).unwrap())
}

fn seed() -> Mapper {
    let list = [("timestamp", "timestamp", "bring [timestamp]", false), ("value", "float", "bring [value]", false)];
    inline("test", "rand_data", &list)
}

fn rows(mapper: &Mapper, message: &str) -> Vec<(String, Vec<String>)> {
    let group = mapper.map("plant/a", message.as_bytes(), now()).unwrap();
    group.parts.into_iter().map(|part| (format!("{}.{}", part.dbms, part.table), part.rows)).collect()
}

fn rows_of_one(mapper: &Mapper, message: &str) -> Vec<String> {
    rows(mapper, message).into_iter().flat_map(|(_, rows)| rows).collect()
}

fn policy(text: &str) -> Mapper {
    let policy = Policy::from_json_text(text).unwrap();
    Mapper::policies(vec![PolicyMapping::from_policy(&policy).unwrap()])
}

#[test]
fn the_documented_mapping_keeps_values_as_sent() {
    let group = seed()
        .map("t", br#"{"timestamp": "2026-11-23 07:00:00.000001", "value": 0.12345678901234567, "x": 1}"#, now())
        .unwrap();
    let [part] = group.parts.as_slice() else { panic!("one part") };
    assert_eq!((part.dbms.as_str(), part.table.as_str(), part.source.as_str()), ("test", "rand_data", "0"));
    assert_eq!(part.rows, [r#"{"timestamp":"2026-11-23 07:00:00.000001","value":0.12345678901234567}"#]);
    let declared: Vec<_> = part.declared.iter().map(|(name, kind)| (name.as_str(), kind.as_str())).collect();
    assert_eq!(declared, [("timestamp", "timestamp"), ("value", "float")]);
}

#[test]
fn every_kind_of_value_is_mapped() {
    for (kind, value, message, expected) in [
        ("timestamp", "now", "{}", r#"{"c":"2026-11-23T08:00:00.123456Z"}"#),
        ("int", "bring [a]", r#"{"a": 9007199254740993}"#, r#"{"c":9007199254740993}"#),
        ("int", "bring [a]", r#"{"a": "12"}"#, r#"{"c":12}"#),
        ("str", "bring [a]", r#"{"a": 12}"#, r#"{"c":"12"}"#),
        ("str", "constant text", "{}", r#"{"c":"constant text"}"#),
        ("int", "5", "{}", r#"{"c":5}"#),
        ("bool", "bring [a]", r#"{"a": true}"#, r#"{"c":true}"#),
        ("float", "bring [a]", r#"{"a": null}"#, r#"{"c":null}"#),
        ("str", "bring [a][b]", r#"{"a": {"b": "x\"y"}}"#, r#"{"c":"x\"y"}"#),
        ("str", "bring [a]", "{\"a\": {\"b\":\n 1}}", r#"{"c":{"b":  1}}"#),
    ] {
        assert_eq!(rows_of_one(&inline("d", "t", &[("c", kind, value, false)]), message), [expected], "{kind} {value}");
    }
}

#[test]
fn a_list_makes_a_row_per_element_and_repeats_scalars() {
    let mapper = inline(
        "bring [metadata][company]",
        "machine",
        &[
            ("ts", "timestamp", "now", false),
            ("id", "str", "bring [id]", false),
            ("v", "float", "bring [readings][][v]", true),
        ],
    );
    let message = r#"{"metadata": {"company": "New Co"}, "id": "m1", "readings": [{"v": 1.0}, {"w": 2}, {"v": 3.50}]}"#;
    assert_eq!(
        rows(&mapper, message),
        [(
            "new_co.machine".to_owned(),
            vec![
                format!(r#"{{"ts":"{NOW}","id":"m1","v":1.0}}"#),
                format!(r#"{{"ts":"{NOW}","id":"m1"}}"#),
                format!(r#"{{"ts":"{NOW}","id":"m1","v":3.50}}"#),
            ]
        )]
    );
    assert!(rows(&mapper, r#"{"metadata": {"company": "c"}, "id": 1, "readings": []}"#).is_empty());
}

#[test]
fn names_by_reading_make_several_tables() {
    let mapper = inline("d", "bring [r][][name]", &[("v", "bring [r][][type]", "bring [r][][v]", false)]);
    let message = r#"{"r": [{"name": "A-1", "v": "1", "type": "int"}, {"name": "b", "v": 2, "type": "str"}, {"name": "A-1", "v": "3", "type": "int"}]}"#;
    assert_eq!(
        rows(&mapper, message),
        [
            ("d.a_1".to_owned(), vec![r#"{"v":1}"#.to_owned(), r#"{"v":3}"#.to_owned()]),
            ("d.b".to_owned(), vec![r#"{"v":"2"}"#.to_owned()])
        ]
    );
}

#[test]
fn a_list_of_messages_is_mapped_one_by_one_or_not_at_all() {
    let mapper = inline("d", "t", &[("v", "int", "bring [v]", false)]);
    assert_eq!(rows_of_one(&mapper, r#"[{"v": 1}, {"v": 2}]"#), [r#"{"v":1}"#, r#"{"v":2}"#]);
    assert!(mapper.map("t", br#"[{"v": 1}, {"w": 2}]"#, now()).is_err());
    let by_element = inline("d", "t", &[("v", "int", "bring [][v]", false)]);
    assert_eq!(rows_of_one(&by_element, r#"[{"v": 1}, {"v": 2}]"#), [r#"{"v":1}"#, r#"{"v":2}"#]);
}

#[test]
fn each_error_has_its_status_and_names_its_cause() {
    let names = inline("bring [d]", "bring [t]", &[("v", "int", "bring [v]", false)]);
    let types = inline("d", "t", &[("v", "bring [k][]", "bring [v][]", false)]);
    for (mapper, message, status, text) in [
        (&names, &b"not json"[..], 158, "expected a JSON value at line 1 column 1"),
        (&names, b"", 158, "expected a JSON value"),
        (&names, b"\xff\xfe", 158, "byte 0 is not UTF-8"),
        (&names, b"12", 158, "not a JSON object"),
        (&names, br#"{"d": "x", "t": "y"}"#, 125, "column 'v' under '[v]'"),
        (&names, br#"{"v": 1, "t": "y"}"#, 126, "under 'bring [d]'"),
        (&names, br#"{"v": 1, "d": "x", "t": " "}"#, 127, "under 'bring [t]'"),
        (&types, br#"{"v": [1, 2, 3], "k": ["int", "int"]}"#, 125, "2 types for 3 values"),
        (&types, br#"{"v": [1], "k": ["colour"]}"#, 125, "'colour' is not a type"),
    ] {
        let error = mapper.map("t", message, now()).unwrap_err();
        assert_eq!(error.status().0, status, "{error}");
        assert!(error.to_string().contains(text), "{error}");
        assert!(CommandError::from(error).hint.is_some());
    }
}

#[test]
fn declarations_are_checked() {
    assert_eq!(Column::new("v", "colour", "bring [v]", false).unwrap_err().status.0, 124);
    assert_eq!(Column::new(" ", "int", "1", false).unwrap_err().status.0, 124);
    assert_eq!(Inline::new("d", "t", Vec::new()).unwrap_err().status.0, 124);
    let twice = columns(&[("a", "int", "1", false), ("A", "int", "2", false)]);
    assert!(Inline::new("d", "t", twice).unwrap_err().message.contains("declared twice"));
}

#[test]
fn raw_messages_become_columns_as_they_are() {
    let raw = |table| Mapper::raw(Raw { dbms: "d".into(), table });
    assert_eq!(
        rows(&raw(RawTable::LastLevel), r#"{"a": 1.10}"#),
        [("d.a".to_owned(), vec![r#"{"a": 1.10}"#.to_owned()])]
    );
    assert_eq!(rows(&raw(RawTable::WholeTopic), "7")[0].0, "d.plant_a");
    assert_eq!(rows(&raw(RawTable::Prefixed("p".into())), "true")[0].0, "d.p_a");
    assert_eq!(
        rows_of_one(&raw(RawTable::Fixed("t".into())), "on \"x\""),
        [format!(r#"{{"timestamp":"{NOW}","value":"on \"x\""}}"#)]
    );
}

#[test]
fn a_mapping_policy_is_applied_reading_by_reading() {
    let mapper = policy(
        r#"{"mapping": {"id": "p1", "dbms": "bring [company]", "table": "readings", "readings": "list",
            "source": {"bring": "[device]", "default": "12"},
            "schema": {
                "ts": {"type": "timestamp", "bring": "[at]", "apply": "epoch_to_datetime", "default": "now()"},
                "company": {"type": "string", "root": true},
                "value": {"type": "float", "default": 0.5},
                "size": [
                    {"type": "int", "bring": "[small]", "script": ["if [kind] == big then ignore attribute"]},
                    {"type": "int", "bring": "[large]"}
                ],
                "__skip__": {"type": "int", "script": ["if [value] == 99 then ignore event"]}
            }}}"#,
    );
    let message = r#"{"company": "Acme Inc", "device": "Pump 7", "list": [
        {"at": 1700000000123, "value": 1.10, "kind": "small", "small": 1, "large": 2},
        {"kind": "big", "small": 1, "large": 2},
        {"value": 99}]}"#;
    let group = mapper.map("t", message.as_bytes(), now()).unwrap();
    let [part] = group.parts.as_slice() else { panic!("one part: {group:?}") };
    assert_eq!((part.dbms.as_str(), part.source.as_str(), part.instructions.as_str()), ("acme_inc", "pump_7", "p1"));
    assert_eq!(
        part.rows,
        [
            r#"{"ts":"2023-11-14T22:13:20.123000Z","company":"Acme Inc","value":1.10,"size":1}"#.to_owned(),
            format!(r#"{{"ts":"{NOW}","company":"Acme Inc","value":0.5,"size":2}}"#),
        ]
    );
    assert!(part.declared.contains(&("value".into(), "float".into())));
}

#[test]
fn a_star_copies_attributes() {
    let all = policy(
        r#"{"mapping": {"id": "s", "dbms": "d", "table": "t", "schema": {"*": {"type": "*", "bring": ["*"]}}}}"#,
    );
    assert_eq!(rows_of_one(&all, r#"{"A b": 1.0, "c": [1,2]}"#), [r#"{"a_b":1.0,"c":[1,2]}"#]);
    let named = policy(
        r#"{"mapping": {"id": "s", "dbms": "d", "table": "t", "schema": {"*": {"type": "*", "bring": ["o", "s"]}}}}"#,
    );
    assert_eq!(
        rows_of_one(&named, r#"{"o": {"x": 1, "y": "2"}, "s": "{\"z\": 3}", "not": 4}"#),
        [r#"{"o_x":1,"o_y":"2","s_z":3}"#]
    );
}

#[test]
fn a_transform_policy_sorts_attributes_by_their_names() {
    let mapper = policy(
        r#"{"transform": {"id": "plc", "dbms": "plant", "table": "re.group(1)", "column": "re.group(2)",
            "re_match": "^(\\w+)\\.(\\w+)$", "schema": {"unit": "re.group(1)"}}}"#,
    );
    assert_eq!(
        rows(&mapper, r#"{"pump.speed": 1.50, "fan.temp": 20, "pump.temp": 30, "other": 1}"#),
        [
            ("plant.pump".to_owned(), vec![r#"{"unit":"pump","speed":1.50,"temp":30}"#.to_owned()]),
            ("plant.fan".to_owned(), vec![r#"{"unit":"fan","temp":20}"#.to_owned()]),
        ]
    );
}

#[test]
fn a_schema_makes_a_row_for_each_list_of_its_parameters() {
    let policy = r#"{"mapping": {"id": "p", "dbms": "d", "table": "t", "params": [["temp_1", "cellar", 7], ["temp_2", "roof", null]],
        "schema": {
            "at": {"type": "timestamp", "bring": "[at]"},
            "value": {"type": "float", "bring": "[params.0]"},
            "place": {"type": "varchar", "bring": "[no]", "default": "the params.1"},
            "number": {"type": "int", "bring": "[no]", "default": "params.2"}
        }}}"#;
    let policy = Policy::from_json_text(policy).unwrap();
    let mapper = Mapper::policies(vec![PolicyMapping::from_policy(&policy).unwrap()]);
    let message = r#"{"at": "2026-11-23 08:00:00", "temp_1": 20.5, "temp_2": 21}"#;
    assert_eq!(
        rows_of_one(&mapper, message),
        [
            r#"{"at":"2026-11-23 08:00:00","value":20.5,"place":"the cellar","number":7}"#,
            r#"{"at":"2026-11-23 08:00:00","value":21,"place":"the roof","number":null}"#,
        ]
    );
}

#[test]
fn policies_that_are_not_understood_are_refused_by_name() {
    for (text, cause) in [
        (r#"{"mapping": {"id": "p", "table": "t", "schema": {}}}"#, "'dbms'"),
        (r#"{"mapping": {"id": "p", "dbms": "d", "table": "t"}}"#, "'schema'"),
        (r#"{"mapping": {"id": "p", "dbms": "d", "table": "t", "schema": {"a": {"type": "colour"}}}}"#, "'colour'"),
        (
            r#"{"mapping": {"id": "p", "dbms": "d", "table": "t", "schema": {"a": {"type": "int", "apply": "magic"}}}}"#,
            "magic",
        ),
        (
            r#"{"mapping": {"id": "p", "dbms": "d", "table": "t", "schema": {"a": {"type": "int", "script": ["rm -rf"]}}}}"#,
            "rm -rf",
        ),
        (r#"{"mapping": {"id": "p", "dbms": "d", "table": "t", "import": {}, "schema": {}}}"#, "'import'"),
        (r#"{"mapping": {"id": "p", "dbms": "d", "table": "t", "params": [], "schema": {}}}"#, "'params'"),
        (
            r#"{"mapping": {"id": "p", "dbms": "d", "table": "t", "params": [["a"]], "schema": {"v": {"type": "int", "default": "params.1"}}}}"#,
            "'params.1'",
        ),
        (r#"{"cluster": {"id": "p"}}"#, "'cluster'"),
    ] {
        let policy = Policy::from_json_text(text).unwrap();
        let error = PolicyMapping::from_policy(&policy).unwrap_err();
        assert_eq!(error.status.0, 87, "{error}");
        assert!(error.message.contains(cause), "{error}");
    }
}

proptest! {
    #[test]
    fn mapping_never_panics(message in any::<Vec<u8>>(), topic in ".*") {
        for mapper in [seed(), Mapper::raw(Raw { dbms: "d".into(), table: RawTable::LastLevel })] {
            drop(mapper.map(&topic, &message, now()));
        }
    }

    #[test]
    fn mapping_of_json_gives_json_lines(message in r#"[\[\]{}",:0-9a-z ]{0,60}"#) {
        let list = [("a", "str", "bring [a]", true), ("b", "int", "bring [b][][c]", true), ("now", "timestamp", "now", false)];
        if let Ok(group) = inline("d", "t", &list).map("t", message.as_bytes(), now()) {
            for row in group.parts.iter().flat_map(|part| &part.rows) {
                prop_assert!(!row.contains('\n'));
                prop_assert!(serde_json::from_str::<serde_json::Value>(row).is_ok(), "{}", row);
            }
        }
    }

    #[test]
    fn numbers_survive_to_the_last_digit(number in -1.0e300f64..1.0e300, integer in any::<i64>()) {
        let mapper = inline("d", "t", &[("f", "float", "bring [f]", false), ("i", "int", "bring [i]", false)]);
        let row = format!(r#"{{"f":{number:?},"i":{integer}}}"#);
        prop_assert_eq!(rows_of_one(&mapper, &row), [row.clone()]);
    }
}

// R15
#[test]
fn a_mapping_says_in_which_zone_times_are_meant() {
    let column = || Column::new("at", "timestamp", "bring [at]", false).unwrap();
    let mapper = |column: Column| Mapper::inline(Inline::new("d", "t", vec![column]).unwrap());
    let message = r#"{"at": "2024-07-15 12:00:00"}"#;
    assert_eq!(rows_of_one(&mapper(column()), message), [r#"{"at":"2024-07-15 12:00:00"}"#], "the node's zone decides");
    let berlin = mapper(column().in_zone("Europe/Berlin").unwrap());
    assert_eq!(rows_of_one(&berlin, message), [r#"{"at":"2024-07-15T10:00:00.000000Z"}"#]);
    assert_eq!(rows_of_one(&berlin, r#"{"at": 1700000000}"#), [r#"{"at":1700000000}"#]);
    assert_eq!(column().in_zone("Berlin").unwrap_err().status.0, 124);
    let number = Column::new("n", "int", "bring [n]", false).unwrap();
    assert!(number.in_zone("UTC").unwrap_err().message.contains("timestamps"));
    let of_policy = |whole: &str, column: &str| {
        policy(&format!(
            r#"{{"mapping": {{"id": "p", "dbms": "d", "table": "t"{whole},
                "schema": {{"at": {{"type": "timestamp", "bring": "[at]"{column}}}, "v": {{"type": "str"}}}}}}}}"#
        ))
    };
    let message = r#"{"at": "2024-01-15 12:00:00", "v": "2024-01-15 12:00:00"}"#;
    for (whole, column, expected) in [
        ("", "", "2024-01-15 12:00:00"),
        (r#", "timezone": "Europe/Berlin""#, "", "2024-01-15T11:00:00.000000Z"),
        ("", r#", "timezone": "+05:30""#, "2024-01-15T06:30:00.000000Z"),
        (r#", "timezone": "Europe/Berlin""#, r#", "timezone": "UTC""#, "2024-01-15T12:00:00.000000Z"),
    ] {
        let expected = format!(r#"{{"at":"{expected}","v":"2024-01-15 12:00:00"}}"#);
        assert_eq!(rows_of_one(&of_policy(whole, column), message), [expected], "texts stay as they are");
    }
    let wrong = Policy::from_json_text(
        r#"{"mapping": {"id": "p", "dbms": "d", "table": "t", "timezone": "Mars", "schema": {"at": {"type": "timestamp"}}}}"#,
    );
    assert!(PolicyMapping::from_policy(&wrong.unwrap()).unwrap_err().message.contains("'Mars' is not a time zone"));
}

// R15: epochs of a policy are told by their magnitude, as everywhere.
#[test]
fn a_policy_reads_epochs_of_every_unit() {
    let mapper = policy(
        r#"{"mapping": {"id": "p", "dbms": "d", "table": "t",
            "schema": {"at": {"type": "timestamp", "bring": "[at]", "apply": "epoch_to_datetime"}}}}"#,
    );
    for (number, expected) in [
        ("1700000000", "2023-11-14T22:13:20.000000Z"),
        ("\"1700000000\"", "2023-11-14T22:13:20.000000Z"),
        ("1700000000123", "2023-11-14T22:13:20.123000Z"),
        ("1700000000123456", "2023-11-14T22:13:20.123456Z"),
        ("1700000000123456789", "2023-11-14T22:13:20.123456Z"),
        ("1700000000.5", "2023-11-14T22:13:20.500000Z"),
        // Milliseconds before September 2001 have twelve digits.
        ("999999999999", "2001-09-09T01:46:39.999000Z"),
        ("900000000", "1998-07-09T16:00:00.000000Z"),
    ] {
        let row = format!(r#"{{"at":"{expected}"}}"#);
        assert_eq!(rows_of_one(&mapper, &format!(r#"{{"at": {number}}}"#)), [row], "{number}");
    }
    assert_eq!(rows_of_one(&mapper, r#"{"at": "soon"}"#), [r#"{"at":"soon"}"#]);
}

// R13
#[test]
fn an_element_that_does_not_map_stands_alone() {
    let payload = br#"[{"timestamp": 1, "value": 1}, {"value": 2}, 3, {"timestamp": 4, "value": 4}]"#;
    let (group, failures) = seed().map_each("t", payload, now());
    assert_eq!(group.parts.len(), 1);
    assert_eq!(group.parts[0].rows, [r#"{"timestamp":1,"value":1}"#, r#"{"timestamp":4,"value":4}"#]);
    let failures: Vec<_> =
        failures.iter().map(|one| (one.position, one.payload, one.error.kind(), one.error.column())).collect();
    assert_eq!(failures, [(1, &br#"{"value": 2}"#[..], "mapping", "timestamp"), (2, b"3", "not_json", "")]);
    for whole in [&b""[..], b"\xff\x00", b"{\"n\":", b"7", b"{\"value\": 1}"] {
        let (group, failures) = seed().map_each("t", whole, now());
        assert_eq!((group.parts.len(), failures.len(), failures[0].payload), (0, 1, whole));
    }
}
