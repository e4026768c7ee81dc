//! What does not map or fit: kept, listed, tried again, stored once.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::Command;

use serde_json::{Value, json};

use super::harness::{Operator, TOPIC, eventually, messages};

/// Messages that the operator script does not map: the value stands under another name.
fn misnamed(numbers: std::ops::Range<u64>) -> String {
    let mut lines = String::new();
    for n in numbers {
        writeln!(lines, r#"{{"timestamp": "2026-03-01T12:00:00Z", "reading": {n}}}"#).expect("text grows");
    }
    lines
}

/// Maps the topic anew, as the messages are.
fn mend(node: &Operator) {
    node.post("exit msg client all").ok();
    node.post(
        "run msg client where broker=local and topic=(name=anylog-demo and dbms=test and table=rand_data and qos=1 and \
         column.timestamp.timestamp=\"bring [timestamp]\" and column.value=(type=float and value=\"bring [reading]\"))",
    )
    .ok();
}

fn quarantine(node: &Operator) -> Value {
    node.get("get quarantine where limit = 0 and format = json").json()
}

fn retry(node: &Operator, filter: &str) -> Value {
    let answer = node.post(&format!("retry quarantine where {filter} and format = json"));
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

/// Publishes one message from a file, or without any payload.
fn publish_one(node: &Operator, arguments: &[&str]) {
    let port = node.tcp.to_string();
    let sent = Command::new("mosquitto_pub")
        .args(["-h", "127.0.0.1", "-p", &port, "-t", TOPIC, "-q", "1"])
        .args(arguments)
        .status()
        .expect("mosquitto_pub is installed");
    assert!(sent.success());
}

/// The whole numbers among the values of the table, sorted.
fn readings(node: &Operator) -> Vec<u64> {
    let rows = node.rows("select value from rand_data order by value");
    let whole = rows.iter().filter_map(|row| row["value"].as_f64()).filter(|value| value.fract() == 0.0);
    whole.map(|value| format!("{value}").parse().expect("a whole number")).collect()
}

#[test]
fn messages_are_stored_after_the_mapping_is_mended() {
    // R13, R14
    let node = Operator::start();
    let binary = node.home.path().join("binary");
    std::fs::write(&binary, [0xff, 0x00, 0xfe]).expect("a file");
    publish_one(&node, &["-f", binary.to_str().expect("a path")]);
    publish_one(&node, &["-n"]);
    node.publish(
        TOPIC,
        1,
        "mqttv311",
        &format!("{}{}not json\n{}", messages(0..20), misnamed(0..25), messages(20..40)),
    );
    node.publish(TOPIC, 2, "mqttv5", &misnamed(25..50));
    assert_eq!(node.count("rand_data"), 40, "the others are stored");
    let kept = quarantine(&node);
    assert_eq!(kept["records"], 53, "each bad one was acknowledged after it was kept: {kept}");
    let kinds: Vec<_> =
        kept["counts"].as_array().expect("counts").iter().map(|one| (&one["kind"], &one["records"])).collect();
    assert_eq!(kinds, [(&json!("mapping"), &json!(50)), (&json!("not_json"), &json!(3))]);
    let early = retry(&node, "topic = anylog-demo");
    assert_eq!((&early["tried"], &early["stored"]), (&json!(53), &json!(0)), "{early}");
    mend(&node);
    let dry = retry(&node, "reason = mapping and dry_run = true");
    assert_eq!((&dry["tried"], &dry["stored"]), (&json!(50), &json!(50)), "{dry}");
    assert_eq!(node.count("rand_data"), 40);
    let report = retry(&node, "reason = mapping");
    assert_eq!(
        (&report["stored"], &report["rows"], &report["refused"]),
        (&json!(50), &json!(50), &json!(0)),
        "{report}"
    );
    assert_eq!(readings(&node), (0..50).collect::<Vec<_>>());
    assert_eq!(quarantine(&node)["records"], 3);
    assert_eq!(node.post("delete quarantine where reason = not_json").ok(), "3 records deleted");
    node.post("flush buffers").ok();
    eventually("files and rows agree", || {
        (node.get("get tsd summary where format=json").json()["test.rand_data"]["rows"] == 90).then_some(())
    });
}

#[test]
fn rows_over_rest_are_listed_and_tried_again() {
    // R13, R16
    let node = Operator::start();
    node.put("mixed", "streaming", r#"{"at": "2026-03-01T10:00:00Z", "v": 1}"#).ok();
    node.post("set time window where dbms = test and table = mixed and past = 3650 days and future = 1 day").ok();
    let body = r#"[{"at": "2026-03-01T10:00:00Z", "v": 2}, {"at": "2026-03-01T10:00:00Z", "v": "many"},
        {"at": "2001-03-01T10:00:00Z", "v": 3}]"#;
    let answer = node.put("mixed", "streaming", body);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer = answer.json();
    assert_eq!(answer["AnyLog.stored"], 1);
    let refused = answer["AnyLog.refused"].as_array().expect("a list");
    assert_eq!(refused.len(), 2);
    assert_eq!(
        (&refused[0]["row"], &refused[0]["column"], &refused[0]["kind"]),
        (&json!(2), &json!("v"), &json!("type"))
    );
    assert_eq!(refused[0]["actual"], "\"many\"");
    assert!(refused[0]["expected"].as_str().is_some_and(|text| !text.is_empty()), "{refused:?}");
    assert_eq!((&refused[1]["row"], &refused[1]["kind"]), (&json!(3), &json!("time_window")));
    let none = node.put("mixed", "streaming", r#"{"at": 0, "v": []}"#);
    assert_eq!(none.status, 400, "{}", none.body);
    assert_eq!(none.json()["refused"][0]["row"], 1);
    node.post("set time window where dbms = test and table = mixed and reset = true").ok();
    let report = retry(&node, "dbms = test and table = mixed");
    assert_eq!(
        (&report["tried"], &report["stored"], &report["refused"]),
        (&json!(3), &json!(1), &json!(2)),
        "{report}"
    );
    assert_eq!(node.count("mixed"), 3);
    let text = node.post("retry quarantine where table = mixed").ok();
    assert!(text.contains("2 tried, 0 stored") && text.contains("type: 2"), "{text}");
}

#[test]
fn a_kill_in_the_middle_of_a_retry_repeats_nothing() {
    // DUR-2, R13
    let mut node = Operator::start();
    const MESSAGES: u64 = 5000;
    node.publish(TOPIC, 1, "mqttv311", &misnamed(0..MESSAGES));
    mend(&node);
    let rest = node.rest;
    let retrying = std::thread::spawn(move || {
        let url = format!("http://127.0.0.1:{rest}");
        Command::new("curl").args(["-s", "-X", "POST", "-H", "command: retry quarantine", &url]).output().is_ok()
    });
    // The table is made by the retry itself.
    eventually("some records are stored", || {
        let answer = node.get("sql test format=json and stat=false \"select count(*) as n from rand_data\"");
        let stored = serde_json::from_str::<Value>(&answer.body).ok()?["Query"][0]["n"].as_u64()?;
        (stored > 50).then_some(())
    });
    node.kill();
    retrying.join().expect("curl ends");
    node.launch();
    let before = readings(&node);
    assert_eq!(before.iter().collect::<BTreeSet<_>>().len(), before.len(), "no row twice");
    let left = quarantine(&node)["records"].as_u64().expect("a count");
    assert!(left > 0, "the node was killed in the middle");
    assert_eq!(before.len() as u64 + left, MESSAGES, "each message is a row or a record, never both");
    mend(&node);
    let report = retry(&node, "topic = anylog-demo");
    assert_eq!(
        (&report["tried"], &report["stored"], &report["stopped"]),
        (&json!(left), &json!(left), &Value::Null),
        "{report}"
    );
    assert_eq!(readings(&node), (0..MESSAGES).collect::<Vec<_>>());
    assert_eq!(quarantine(&node)["records"], 0);
}

#[test]
fn a_row_that_a_policy_does_not_map_stands_alone() {
    // R13
    let node = Operator::start();
    let insert = |name: &str| {
        let policy = json!({"mapping": {"id": "levels", "dbms": "test", "table": "levels", "readings": name, "schema": {
            "level": {"type": "float", "bring": "[l]"}}}});
        node.post(&format!("blockchain insert where policy = {policy} and local = true and master = !ledger_conn"))
            .ok();
    };
    insert("r");
    let headers = ["dbms: test", "table: levels", "mode: streaming", "instructions: levels"];
    let body = r#"[{"r": [{"l": 1}, {"l": 2}]}, {"readings": [{"l": 3}]}, {"r": [{"l": 4}, {"l": "high"}]}]"#;
    let answer = node.request("PUT", &headers, body);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer = answer.json();
    assert_eq!((&answer["AnyLog.stored"], node.count("levels")), (&json!(3), 3));
    let refused: Vec<_> = answer["AnyLog.refused"].as_array().expect("a list").iter().collect();
    assert_eq!(refused.len(), 2, "{answer}");
    assert_eq!(
        (&refused[0]["row"], &refused[0]["kind"]),
        (&json!(2), &json!("mapping")),
        "rows of the request are named"
    );
    assert_eq!((&refused[1]["row"], &refused[1]["column"]), (&json!(3), &json!("level")));
    let none = node.request("PUT", &headers, r#"[{"other": 1}]"#);
    assert_eq!(none.status, 400, "{}", none.body);
    assert_eq!(quarantine(&node)["records"], 3);
}

#[test]
fn elements_of_a_posted_list_stand_alone() {
    // R13
    let node = Operator::start();
    node.post(
        "run msg client where broker=rest and user-agent=anylog and topic=(name=new-data and dbms=test and table=posted and \
         column.timestamp.timestamp=now and column.value=(type=float and value=\"bring [value]\"))",
    )
    .ok();
    let post =
        |body: &str| node.request("POST", &["command: data", "topic: new-data", "User-Agent: AnyLog/1.23"], body);
    assert_eq!(post(r#"{"value": 0}"#).status, 200);
    let answer = post(r#"[{"value": 1}, {"reading": 2}, {"value": "high"}, {"value": 4}]"#);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer = answer.json();
    assert_eq!((&answer["AnyLog.stored"], node.count("posted")), (&json!(2), 3));
    let refused: Vec<_> =
        answer["AnyLog.refused"].as_array().expect("a list").iter().map(|row| (&row["row"], &row["kind"])).collect();
    assert_eq!(
        refused,
        [(&json!(2), &json!("mapping")), (&json!(3), &json!("type"))],
        "elements of the list are named"
    );
    assert_eq!(post(r#"[{"reading": 1}, 7]"#).status, 400, "none was accepted");
    node.post("exit msg client 2").ok();
    node.post(
        "run msg client where broker=rest and user-agent=anylog and topic=(name=new-data and dbms=test and table=posted and \
         column.timestamp.timestamp=now and column.value=(type=float and value=\"bring [reading]\" and optional=true))",
    )
    .ok();
    let report = retry(&node, "topic = new-data");
    assert_eq!((&report["tried"], &report["stored"]), (&json!(2), &json!(2)), "{report}");
    assert_eq!(node.rows("select value from posted where value = 2").len(), 1);
    assert_eq!((node.count("posted"), &quarantine(&node)["records"]), (5, &json!(0)));
}
