//! The operator in the command language.

use crate::harness::{TestNode, numbered, rows};

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_start_works() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::start(home.path());
    node.connect();
    let id = node.policies().await;
    node.node.dictionary.set("operator_id", id.clone());
    node.execute("set buffer threshold where write_immediate = true").await.unwrap();
    node.execute("run data distributor").await.unwrap();
    node.execute("run streamer").await.unwrap();
    let start = "run operator where create_table=true and update_tsd_info=true and archive=true and distributor=true \
                 and policy=!operator_id";
    node.execute(start).await.unwrap();
    assert_eq!(node.execute(start).await.unwrap_err().status.0, 136);
    assert_eq!(node.execute("run streamer").await.unwrap_err().status.0, 136);
    let _ = node.slot.append(rows("t", numbered(0..3))).await.unwrap();
    assert_eq!(node.count("t"), 3);
    let config = node.execute("get operator config where format = json").await.unwrap();
    assert!(config.contains(&id) && config.contains("\"Member\": \"7\"") && config.contains("Active"), "{config}");
    let streaming = node.execute("get streaming where format = json").await.unwrap();
    assert!(streaming.contains("\"Streaming Rows\": 3") && streaming.contains("\"Immediate\": 3"), "{streaming}");
    node.execute("flush buffers").await.unwrap();
    let operator = node.execute("get operator").await.unwrap();
    for title in ["Stats: OPERATOR JSON", "Stats: OPERATOR SQL", "Stats: OPERATOR INSERTS", "Stats: OPERATOR ERROR"] {
        assert!(operator.contains(title), "{operator}");
    }
    let summary = node.execute("get operator summary where format = json").await.unwrap();
    assert!(summary.contains("\"Total rows\": \"3\""), "{summary}");
    let today = &anylog_core::time::stored(node.node.clock.now())[..10];
    let archived = node.execute(&format!("get archived files {today}")).await.unwrap();
    assert!(archived.starts_with("d.t.0.") && archived.ends_with(".json.gz"), "{archived}");
    assert_eq!(node.execute("delete archive where days = 1").await.unwrap(), "0 archived files removed");
    let states = node.node.processes.states();
    let operator = &states.iter().find(|(name, _)| *name == "Operator").unwrap().1;
    assert!(operator.running && operator.details.starts_with("Cluster Member: True"), "{operator:?}");
    node.execute("exit operator").await.unwrap();
    assert_eq!(node.execute("flush buffers").await.unwrap_err().status.0, 192);
    assert_eq!(node.execute("exit operator").await.unwrap_err().status.0, 192);
}

#[tokio::test(flavor = "multi_thread")]
async fn thresholds_are_scoped_and_checked() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::start(home.path());
    node.execute("set buffer threshold where dbms = d and table = t and time = 7 seconds and volume = 77KB")
        .await
        .unwrap();
    let config = node.execute("get streaming config").await.unwrap();
    assert!(config.contains("7 seconds, 78,848 bytes") && config.contains("10,000"), "{config}");
    assert_eq!(
        node.execute("set buffer threshold where table = t and time = 7 seconds").await.unwrap_err().status.0,
        40
    );
    assert_eq!(node.execute("set buffer threshold where dbms = d").await.unwrap_err().status.0, 2);
    let unknown = node.execute("set buffer threshold where tiem = 7 seconds").await.unwrap_err();
    assert!(unknown.to_string().contains("time"), "{unknown}");
}

// R16: times that cannot be believed are put aside.
#[tokio::test(flavor = "multi_thread")]
async fn unbelievable_times_go_to_the_quarantine() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::running(home.path()).await;
    node.execute("set time window where past = 30 days and future = 1 hour").await.unwrap();
    let now = node.node.clock.now();
    let batch = [format!("{{\"at\": \"{now}\"}}"), "{\"at\": \"1999-01-01T00:00:00Z\"}".to_owned()];
    let receipt = node.slot.append(rows("t", batch)).await.unwrap();
    assert_eq!((receipt.stored(), receipt.refused().len()), (1, 1));
    let shown = node.execute("get quarantine where dbms = d and table = t and format = json").await.unwrap();
    assert!(shown.contains("1999-01-01") && shown.contains("'at'"), "{shown}");
    assert!(node.execute("get quarantine where table = other and format = json").await.unwrap().contains("[]"));
}
