//! Data over REST: PUT streaming, PUT file, POST with a topic.

use super::harness::{Operator, eventually};

const ROW: &str = r#"{"timestamp": "2026-03-01T10:00:00Z", "device": "p1", "value": 1.5}"#;

#[test]
fn put_streaming_takes_every_shape_of_body() {
    let node = Operator::start();
    let bodies = [ROW.to_owned(), format!("[{ROW},{ROW}]"), format!("{ROW}\n{ROW}\n{ROW}\n"), format!("{ROW},{ROW}")];
    for (body, rows) in bodies.iter().zip([1, 3, 6, 8]) {
        let answer = node.put("stream", "streaming", body);
        assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"AnyLog.status":"Success", "AnyLog.hash": "0" }"#));
        assert_eq!(node.count("stream"), rows);
    }
}

#[test]
fn put_file_is_refused_the_second_time() {
    let node = Operator::start();
    let body = format!("[{ROW},{ROW}]");
    let answer = node.put("filed", "file", &body);
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.json()["AnyLog.hash"].as_str().expect("a hash").len(), 32);
    eventually("its rows are there", || (node.count("filed") == 2).then_some(()));
    let again = node.put("filed", "file", &body);
    assert_eq!(again.status, 409, "{}", again.body);
    assert!(again.body.contains("ingested before") || again.body.contains("Duplicate"), "{}", again.body);
    assert_eq!(node.count("filed"), 2);
    assert_eq!(node.put("other", "file", &body).status, 200, "another table is another file");
}

#[test]
fn the_default_mode_is_file() {
    let node = Operator::start();
    let answer = node.request("PUT", &["dbms: test", "table: defaults"], ROW);
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.json()["AnyLog.hash"].as_str().map(str::len), Some(32));
}

#[test]
fn post_with_a_topic_is_mapped() {
    let node = Operator::start();
    node.post(
        "run msg client where broker=rest and user-agent=anylog and topic=(name=new-data and dbms=\"bring [dbms]\" and \
         table=\"bring [table]\" and column.timestamp.timestamp=now and column.value=(type=float and value=\"bring [value]\"))",
    )
    .ok();
    let body =
        r#"[{"dbms": "test", "table": "posted", "value": 3.5}, {"dbms": "test", "table": "posted", "value": 4}]"#;
    let answer = node.request("POST", &["command: data", "topic: new-data", "User-Agent: AnyLog/1.23"], body);
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    assert_eq!(node.count("posted"), 2);
}

#[test]
fn refused_rows_are_listed_and_the_others_are_stored() {
    // R13
    let node = Operator::start();
    node.put("mixed", "streaming", r#"{"value": 1.5}"#).ok();
    let answer = node.put("mixed", "streaming", "[{\"value\": 2.5}, {\"value\": \"many\"}, {\"value\": 3.5}]");
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(answer.body.contains("value") && answer.body.contains("many"), "{}", answer.body);
    assert_eq!(node.count("mixed"), 3);
    let none = node.put("mixed", "streaming", r#"{"value": "many"}"#);
    assert_eq!(none.status, 400, "{}", none.body);
}

#[test]
fn data_that_cannot_arrive_is_an_error() {
    let node = Operator::start();
    let cases: &[(&[&str], u16, &str)] = &[
        (&["table: t", "mode: streaming"], 400, "dbms"),
        (&["dbms: test", "mode: streaming"], 400, "table"),
        (&["dbms: nodb", "table: t", "mode: streaming"], 404, "nodb"),
        (&["dbms: nodb", "table: t", "mode: file"], 404, "nodb"),
        (&["dbms: test", "table: t", "mode: zap"], 400, "zap"),
        (&["dbms: test", "table: t", "type: csv"], 400, "csv"),
    ];
    for (headers, status, names) in cases {
        let answer = node.request("PUT", headers, ROW);
        assert_eq!((answer.status, answer.body.contains(names)), (*status, true), "{headers:?}: {}", answer.body);
    }
    for body in ["", "hello", "{\"a\": ", "[1, 2]", "\u{0}\u{1}"] {
        let answer = node.put("t", "streaming", body);
        assert_eq!(answer.status, 400, "{body:?}: {}", answer.body);
    }
    node.post("exit operator").ok();
    let answer = node.put("t", "streaming", ROW);
    assert_eq!((answer.status, answer.body.contains("operator")), (503, true), "{}", answer.body);
}

#[test]
fn instructions_name_a_mapping_policy() {
    let node = Operator::start();
    let policy = r#"<m={"mapping": {"id": "pumps", "dbms": "test", "table": "mapped", "schema": {
        "level": {"type": "float", "bring": "[l]"}}}}>"#;
    let insert = "command: blockchain insert where policy=!m and local=true";
    node.request("POST", &[insert, "User-Agent: AnyLog/1.23"], &policy.replace('\n', " ")).ok();
    let headers = |id: &'static str| ["dbms: test", "table: mapped", "mode: streaming", id];
    node.request("PUT", &headers("instructions: pumps"), r#"[{"l": 1.5, "x": 1}, {"l": 2}]"#).ok();
    assert_eq!(node.rows("select level from mapped")[1]["level"], 2.0);
    let unknown = node.request("PUT", &headers("instructions: nosuch"), r#"{"l": 1}"#);
    assert_eq!((unknown.status, unknown.body.contains("nosuch")), (400, true), "{}", unknown.body);
}
