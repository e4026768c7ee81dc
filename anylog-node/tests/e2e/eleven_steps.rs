//! The eleven steps that deploy an Operator, in their documented spelling.

use serde_json::Value;

use super::harness::{Operator, TOPIC, engine, eventually, messages};

#[test]
fn every_line_of_the_script_succeeds() {
    let node = Operator::start();
    assert_eq!(node.errors(), Vec::<Value>::new());
    let processes = node.get("get processes where format=json").json();
    for running in ["TCP", "REST", "MSG Broker", "Operator", "Blockchain Sync", "Scheduler", "Distributor"] {
        assert_eq!(processes[running]["Status"], "Running", "{running}: {processes}");
    }
    assert!(processes["Distributor"]["Details"].as_str().expect("details").contains("no peers"), "{processes}");
    let databases = node.get("get databases where format=json").json();
    for connected in ["almgm", "test", "system_query", "blockchain"] {
        assert_eq!(databases[connected]["dbms_type"], engine(), "{databases}");
    }
    // PostgreSQL has no databases in memory; the option is ignored there.
    let storage = if engine() == "psql" { "Persistent" } else { "MEMORY" };
    assert_eq!(databases["system_query"]["storage"], storage);
    let connections = node.get("get connections where format=json").json();
    let port = format!("127.0.0.1:{}", node.tcp);
    assert_eq!(connections["TCP"]["external"], Value::from(port.as_str()));
    assert_eq!(connections["Messaging"]["bind"], Value::from(port.as_str()), "the broker shares the port");
    let tasks = node.get("get scheduler 1").ok();
    assert!(tasks.contains("Drop Partitions") && tasks.contains("drop partition where dbms"), "{tasks}");
}

#[test]
fn policies_are_declared_once_and_reach_the_master() {
    let mut node = Operator::start();
    let (clusters, operators) = (node.policies("cluster"), node.policies("operator"));
    assert_eq!((clusters.len(), operators.len()), (1, 1));
    assert_eq!(operators[0]["operator"]["cluster"], clusters[0]["cluster"]["id"]);
    assert_eq!(operators[0]["operator"]["port"], Value::from(node.tcp), "the port is a number");
    let member = operators[0]["operator"]["member"].as_u64().expect("a member id");
    assert!((1..=255).contains(&member));
    // The insert of the document's step 8 names no master: synchronisation delivers the policy.
    eventually("the operator policy is in the master's ledger", || {
        let rows = node.get("sql blockchain format=json and stat=false \"select policy_type from ledger\"").ok();
        rows.contains("operator").then_some(())
    });
    eventually("the local copy says so", || {
        (node.policies("operator")[0]["operator"]["ledger"] == "global").then_some(())
    });

    node.signal("-TERM");
    assert_eq!(node.wait().code(), Some(0), "{}", node.log()); // OPS-2
    node.launch();
    assert_eq!(node.errors(), Vec::<Value>::new());
    let ids = |policies: &[Value], kind: &str| policies.iter().map(|p| p[kind]["id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(&node.policies("cluster"), "cluster"), ids(&clusters, "cluster"));
    assert_eq!(ids(&node.policies("operator"), "operator"), ids(&operators, "operator"));
}

#[test]
fn a_thousand_messages_are_rows_when_they_are_acknowledged() {
    let node = Operator::start();
    node.publish(TOPIC, 1, "mqttv311", &messages(0..1000));
    assert_eq!(node.count("rand_data"), 1000, "queryable at once");

    let columns = node.get("get columns where dbms=test and table=rand_data and format=json").json();
    let names: Vec<&str> = columns.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(names, ["row_id", "insert_timestamp", "tsd_name", "tsd_id", "timestamp", "value"]);

    let partitions = node.get("get partitions where dbms=test and table=rand_data and format=json").ok();
    assert!(partitions.contains("par_rand_data_20") && partitions.contains("_d01_insert_timestamp"), "{partitions}");

    let tables = node.policies("table");
    assert_eq!(tables[0]["table"]["name"], "rand_data");
    let create = tables[0]["table"]["create"].as_str().expect("a create text").to_lowercase();
    assert!(create.contains("create table if not exists rand_data"), "{create}");
    let children: Vec<Value> =
        node.policies("cluster").into_iter().filter(|policy| !policy["cluster"]["parent"].is_null()).collect();
    assert_eq!(children.len(), 1);
    assert_eq!(children[0]["cluster"]["table"][0]["name"], "rand_data");

    let member = node.policies("operator")[0]["operator"]["member"].to_string();
    let owners = node.rows("select tsd_name, count(*) as n from rand_data group by tsd_name");
    assert_eq!(owners[0]["tsd_name"], Value::from(member.as_str()), "each row names its producer");

    assert_eq!(node.post("flush buffers").status, 200);
    let archived = eventually("the archive holds the source files", || {
        let summary = node.get("get tsd summary where format=json").json();
        (summary["test.rand_data"]["rows"] == 1000).then(|| node.archived())
    });
    let mut lines = 0;
    for file in &archived {
        let name = file.file_name().expect("a name").to_string_lossy().into_owned();
        let stem = name.strip_suffix(".json.gz").expect("gzipped JSON");
        assert_eq!(stem.split('.').count(), 8, "{name}");
        assert!(stem.starts_with("test.rand_data.0."), "{name}");
        let text = std::process::Command::new("gzip").arg("-dc").arg(file).output().expect("gzip runs").stdout;
        lines += text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
    }
    assert_eq!(lines, 1000, "{archived:?}");
}
