//! What an administrator sees and does of a cluster: members in one process.

mod members;
mod repair;
#[path = "../../../anylog-dbms/tests/dbms/server.rs"]
#[allow(
    dead_code,
    unexpected_cfgs,
    reason = "the module belongs to other tests, which use all of it and have features"
)]
mod server;

use serde_json::{Value, json};

use self::members::Members;
use crate::harness::{numbered, rows};

#[tokio::test(flavor = "multi_thread")]
async fn a_member_says_how_it_is_set_up() {
    let homes = tempfile::tempdir().unwrap();
    let members = Members::start(homes.path(), 2).await;
    let setup = members.ask(0, "test cluster setup").await;
    assert_eq!(setup, members.ask(0, "test cluster").await);
    for (name, details) in [
        ("Operator      ", "Running: distributor flag disabled"),
        ("Distributor   ", "Disabled"),
        ("Consumer      ", "Disabled"),
        ("Operator Name ", "op1"),
        ("Member ID     ", "1"),
        ("almgm.tsd_info", "Defined"),
    ] {
        assert!(
            setup.lines().any(|line| line.starts_with(&format!("{name}|")) && line.contains(details)),
            "{name}: {setup}"
        );
    }
    members.ask(0, "run data distributor").await;
    members.ask(0, "run data consumer where start_date = -30d").await;
    let setup: Value = serde_json::from_str(&members.ask(0, "test cluster setup where format = json").await).unwrap();
    assert_eq!((&setup["Distributor"], &setup["Consumer"]), (&json!("Running"), &json!("Running")));
    assert_eq!(setup["Cluster ID"], json!(members.cluster));

    let databases = members.ask(0, "test cluster databases").await;
    assert!(databases.contains("Node_1") && databases.contains("10.0.0.2:32148"), "{databases}");
    assert!(databases.lines().any(|line| line.starts_with("almgm|+")), "{databases}");
}

// R19: who gives no answer is named, with the reason.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_away_is_named() {
    let homes = tempfile::tempdir().unwrap();
    let members = Members::start(homes.path(), 2).await;
    members.wires.set_reachable("10.0.0.2:32148", false);
    for command in ["test cluster databases", "test cluster data"] {
        let shown = members.ask(0, command).await;
        assert!(shown.contains("No answer:\r\nNode_2 (10.0.0.2:32148): "), "{command}: {shown}");
    }
    let shown: Value = serde_json::from_str(&members.ask(0, "test cluster data where format = json").await).unwrap();
    assert!(shown["no_answer"][0].as_str().unwrap().contains("cannot be reached"), "{shown}");
    let repaired = members.ask(0, "repair cluster").await;
    assert!(repaired.contains("compared with no member") && repaired.contains("No answer:\r\nmember 2"), "{repaired}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_consumer_is_told_and_shown() {
    let homes = tempfile::tempdir().unwrap();
    let members = Members::start(homes.path(), 1).await;
    for command in ["get consumer", "get tsd sync status", "get ha cluster status"] {
        assert!(members.ask(0, command).await.contains("run data consumer"), "{command}");
    }
    assert!(members.ask(0, "get distributor").await.contains("run data distributor"));
    let refused = members.nodes[0].execute("set consumer mode = active").await.unwrap_err();
    assert!(refused.hint.unwrap().contains("run data consumer"));
    members.ask(0, "run data consumer where start_date = -30d").await;
    members.ask(0, "set consumer mode = suspend").await;
    assert!(members.ask(0, "get consumer").await.contains("Suspended"));
    members.ask(0, "set consumer mode=active").await;
    members.ask(0, "set consumer repair = 7 minutes").await;
    let shown: Value = serde_json::from_str(&members.ask(0, "get consumer where format = json").await).unwrap();
    assert_eq!(shown["compared_every_seconds"], 420);
    assert!(shown["start_date"].is_string(), "{shown}");
    for wrong in
        ["set consumer mode = on", "set consumer repair = 1 second", "set consumer repair = soon", "set consumer x"]
    {
        let error = members.nodes[0].execute(wrong).await.unwrap_err();
        assert!(error.hint.as_deref().unwrap_or_default().contains("set consumer"), "{wrong}: {error}");
    }
    assert!(members.ask(0, "get peers status where format = json").await.contains("\"members\": []"));
}

#[tokio::test(flavor = "multi_thread")]
async fn digests_are_of_complete_files_only() {
    let homes = tempfile::tempdir().unwrap();
    let members = Members::start(homes.path(), 1).await;
    let node = &members.nodes[0];
    node.partitioned("insert_timestamp").immediate();
    let _ = node.slot.append(rows("t", numbered(0..5))).await.unwrap();
    let told = |text: String| serde_json::from_str::<Value>(&text).unwrap();
    let open = told(members.ask(0, "get cluster digest where format = json").await);
    assert_eq!(open["digests"].as_array().map_or(0, Vec::len), 0, "{open}");
    node.execute("flush buffers").await.unwrap();
    let first = told(members.ask(0, "get cluster digest where dbms = d and table = t and format = json").await);
    let row = &first["digests"][0];
    assert_eq!((&row["files"], &row["rows"], &row["producer"]), (&json!(1), &json!(5), &json!(1)), "{first}");
    assert_eq!(first["files"], "1:1");
    let _ = node.slot.append(rows("t", numbered(5..9))).await.unwrap();
    let again = told(members.ask(0, "get cluster digest where format = json").await);
    assert_eq!(again["digests"], first["digests"], "rows of an open file make no difference");
    node.execute("flush buffers").await.unwrap();
    let upto = told(members.ask(0, "get cluster digest where upto = \"1:1\" and format = json").await);
    assert_eq!(upto["digests"], first["digests"]);
    let both = told(members.ask(0, "get cluster digest where by = file and format = json").await);
    let rows: Vec<_> = both["digests"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row["files"] == 1)
        .map(|row| row["rows"].clone())
        .collect();
    assert_eq!(rows, [json!(5), json!(4)]);
    let shown = members.ask(0, "get cluster digest where table = t").await;
    assert!(shown.contains("Digest") && shown.contains("par_t_"), "{shown}");
    assert!(members.ask(0, "get cluster digest where by = holdings").await.contains("Complete files: 1:1-2"));
    let error = node.execute("get cluster digest where files = seven").await.unwrap_err();
    assert!(error.hint.unwrap().contains("7:1-20"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exchange_is_shown() {
    let homes = tempfile::tempdir().unwrap();
    let members = Members::exchanging(homes.path(), 2).await;
    members.spread(0, "t", 0..5).await;
    members.spread(1, "t", 5..9).await;
    let [own, others] = [0, 1].map(|member: usize| members.nodes[member].registered()[0].0);
    let settled = || {
        let status = members.nodes[0].operator.replication().status();
        status.producers.len() == 2 && status.producers.iter().all(|producer| producer.consensus == producer.highest)
    };
    members.until("all know of all", settled).await;
    let sync = members.ask(0, "get tsd sync status").await;
    assert_eq!(sync, members.ask(0, "get ha cluster status").await);
    let cells = |table: &str| -> Vec<String> {
        let line = sync.lines().find(|line| line.starts_with(table)).unwrap_or_else(|| panic!("{table}: {sync}"));
        line.split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    assert!(sync.contains("Consensus") && sync.contains("Node_2"), "{sync}");
    assert_eq!(cells("tsd_info")[1..4], [own.to_string(), format!("{own} (1 files)"), format!("{own} (1 files)")]);
    assert_eq!(cells("tsd_2")[1], others.to_string());
    let one = members.ask(0, "get tsd sync status where table = tsd_2 and format = json").await;
    let one: Value = serde_json::from_str(&one).unwrap();
    assert_eq!((one.as_array().unwrap().len(), &one[0]["members"]["1"]["files"]), (1, &json!(1)), "{one}");

    let peers = members.ask(0, "get peers status").await;
    assert!(peers.lines().any(|line| line.contains("10.0.0.2:32148") && line.contains("|+")), "{peers}");
    let peers: Value = serde_json::from_str(&members.ask(0, "get peers status where format = json").await).unwrap();
    assert_eq!((&peers["running"], &peers["members"][0]["linked"]), (&json!(true), &json!(true)), "{peers}");
    let consumer: Value = serde_json::from_str(&members.ask(0, "get consumer where format = json").await).unwrap();
    assert_eq!((&consumer["status"], &consumer["files_done"]), (&json!("Active"), &json!(1)), "{consumer}");
    assert_eq!((&consumer["files_missing"], &consumer["rows_done"]), (&json!(0), &json!(4)), "{consumer}");
    let shown = members.ask(0, "get consumer").await;
    assert!(shown.contains("1 of 1") && shown.contains("nothing is missing"), "{shown}");
    let distributor = members.ask(0, "get distributor").await;
    assert!(distributor.contains("Files Offered") && distributor.contains("op2"), "{distributor}");
}
