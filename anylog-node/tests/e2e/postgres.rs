//! The eleven steps on PostgreSQL.

use serde_json::{Value, json};

use super::harness::server::Server;
use super::harness::{Operator, TOPIC, eventually, messages};

#[test]
fn the_script_runs_on_postgresql_and_rows_survive_kill() {
    let server = Server::start();
    let port = server.port.to_string();
    let mut node = Operator::start_with(&[("DB_TYPE", "psql"), ("DB_IP", "127.0.0.1"), ("DB_PORT", &port)]);
    assert_eq!(node.errors(), Vec::<Value>::new());
    node.publish(TOPIC, 1, "mqttv311", &messages(0..200));
    assert_eq!(node.count("rand_data"), 200);
    node.put(
        "mixed",
        "streaming",
        r#"{"name": "é \"x\"", "big": 9223372036854775807, "on": true, "none": null, "list": [1, 2.50]}"#,
    )
    .ok();
    let row = &node.rows("select * from mixed")[0];
    assert_eq!((&row["name"], &row["big"], &row["on"]), (&json!("é \"x\""), &json!(i64::MAX), &json!(true)));
    assert_eq!((&row["none"], &row["list"]), (&Value::Null, &json!("[1, 2.50]")));

    node.kill();
    node.launch();
    assert_eq!(node.count("rand_data"), 200);
    node.post("flush buffers").ok();
    eventually("files and rows agree", || {
        let summary = node.get("get tsd summary where format=json").json();
        (summary["test.rand_data"]["rows"] == 200).then_some(())
    });
    let partitions = node.get("get partitions where dbms=test and table=rand_data").ok();
    assert!(partitions.contains("par_rand_data_20"), "{partitions}");
}

// OPS-3
#[test]
fn rows_are_refused_with_the_reason_while_the_server_is_away() {
    let server = Server::start();
    let port = server.port.to_string();
    let node = Operator::start_with(&[("DB_TYPE", "psql"), ("DB_IP", "127.0.0.1"), ("DB_PORT", &port)]);
    let row = r#"{"timestamp": "2026-11-20T00:00:00Z", "v": 1}"#;
    node.put("pumps", "streaming", row).ok();
    server.stop();
    let refused = node.put("pumps", "streaming", row);
    assert_eq!(refused.status, 503, "{refused:?}");
    let error = refused.json();
    let text = error["local_msg"].as_str().unwrap();
    let address = format!("127.0.0.1:{port}");
    assert!(text.contains("at the moment") && text.contains(&address) && text.contains("get databases"), "{text}");
    let asked = node.get("sql test format=json \"select v from pumps\"");
    assert!(asked.status == 503 && asked.body.contains(&address), "{asked:?}");
    server.start_again();
    // The row that was refused late may be there: its sender had no answer.
    eventually("rows are taken again", || (node.put("pumps", "streaming", row).status == 200).then_some(()));
    assert!(node.count("pumps") >= 2);
}
