//! Acknowledged rows survive the end of the process, and are there once.

use super::harness::{Operator, TOPIC, eventually, messages};

#[test]
fn rows_survive_kill_in_immediate_mode() {
    // DUR-2
    let mut node = Operator::start();
    node.publish(TOPIC, 1, "mqttv311", &messages(0..300));
    node.put("other", "streaming", r#"{"value": 1}"#).ok();
    node.kill();
    node.launch();
    assert_eq!((node.count("rand_data"), node.count("other")), (300, 1));
    node.publish(TOPIC, 1, "mqttv5", &messages(300..400));
    assert_eq!(node.count("rand_data"), 400);
    node.post("flush buffers").ok();
    eventually("files and rows agree", || {
        let summary = node.get("get tsd summary where format=json").json();
        (summary["test.rand_data"]["rows"] == 400 && summary["test.other"]["rows"] == 1).then_some(())
    });
}

#[test]
fn rows_survive_kill_in_buffered_mode() {
    // DUR-1, DUR-2
    let mut node = Operator::start();
    node.post("set buffer threshold where time = 600 seconds and volume = 10MB and write_immediate = false").ok();
    node.publish(TOPIC, 1, "mqttv311", &messages(0..300));
    node.kill();
    node.launch();
    assert_eq!(node.count("rand_data"), 300, "rows acknowledged into the journal are replayed");
}

#[test]
fn termination_drains_and_exits_cleanly() {
    // OPS-2
    let mut node = Operator::start();
    node.publish(TOPIC, 1, "mqttv311", &messages(0..100));
    node.signal("-TERM");
    assert_eq!(node.wait().code(), Some(0), "{}", node.log());
    node.launch();
    assert_eq!(node.count("rand_data"), 100);
    node.signal("-INT");
    assert_eq!(node.wait().code(), Some(0), "{}", node.log());
}
