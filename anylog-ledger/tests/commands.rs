//! The commands, as scripts and clients write them.

// A test fails by panicking.
#![allow(clippy::unwrap_used)]

// Each of the tests uses a part of it.
#[allow(dead_code)]
mod support;

use std::sync::Arc;

use anylog_core::Status;
use serde_json::{Value, json};
use support::{TestNode, Wires, policy};

const OWN: &str = "127.0.0.1:32148";

/// A node that is its own master, as in the documented deployment.
async fn own_master() -> (Arc<Wires>, TestNode) {
    let wires = Arc::new(Wires::default());
    let node = TestNode::new(&wires, OWN, true);
    let dictionary = &node.ledger.node().dictionary;
    for (name, value) in [
        ("hostname", "vm"),
        ("node_name", "seed-operator"),
        ("company_name", "New Company"),
        ("ip", "127.0.0.1"),
        ("external_ip", "127.0.0.1"),
        ("anylog_server_port", "32148"),
        ("anylog_rest_port", "32149"),
        ("default_dbms", "test"),
        ("cluster_name", "seed-cluster"),
        ("sync_time", "30 seconds"),
        ("loc", "37.425423, -122.078360"),
        ("country", "US"),
        ("state", "CA"),
        ("city", "Mountain View"),
        ("ledger_conn", OWN),
    ] {
        dictionary.set(name, value);
    }
    (wires, node)
}

const CLUSTER: &str = r#"new_policy={"cluster": {"company": !company_name, "dbms": !default_dbms, "name": !cluster_name, "master": !ledger_conn}}"#;
const OPERATOR: &str = r#"new_policy={"operator": {"hostname": !hostname, "name": !node_name, "company": !company_name,
    "local_ip": !ip, "ip": !external_ip, "port" : !anylog_server_port.int, "rest_port": !anylog_rest_port.int,
    "cluster": !cluster_id, "loc": !loc, "country": !country, "state": !state, "city": !city}}"#;
const WHICH: &str =
    "operator where ip = !external_ip and local_ip = !ip and company=!company_name and port=!anylog_server_port";

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_deployment_publishes_its_policies_once() {
    let (_wires, node) = own_master().await;
    node.run("run blockchain sync where source=master and time=!sync_time and dest=file and connection=!ledger_conn")
        .await
        .unwrap();
    let error = node
        .run("run blockchain sync where source=master and time=!sync_time and dest=file and connection=!ledger_conn")
        .await
        .unwrap_err();
    assert_eq!(error.status, Status::PROCESS_RUNNING);
    for _ in 0..2 {
        for line in [
            CLUSTER,
            "policy = blockchain get cluster where name=!cluster_name and company=!company_name bring.first",
            "if not !policy then blockchain prepare policy !new_policy",
            "if not !policy then blockchain insert where policy=!new_policy and local=true and master=!ledger_conn",
            "cluster_id = blockchain get cluster where name=!cluster_name and company=!company_name bring.first [cluster][id]",
            OPERATOR,
        ] {
            node.run(line).await.unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        node.run(&format!("policy = blockchain get {WHICH}")).await.unwrap();
        node.run("if not !policy then blockchain prepare policy !new_policy").await.unwrap();
        node.run("if not !policy then blockchain insert where policy=!new_policy and local=true and").await.unwrap();
    }
    node.run(&format!("operator_id = blockchain get {WHICH} bring [operator][id] ")).await.unwrap();
    let id = node.ledger.node().dictionary.get("operator_id").unwrap();
    assert_eq!(id.len(), 32);
    let operator = node.ledger.set_own_operator(&id).unwrap();
    assert_eq!((operator.port, operator.rest_port), (32148, Some(32149)));
    assert_eq!(node.ledger.policies("*").len(), 2);
    // Synchronisation delivers the operator, which was inserted locally only.
    support::until("all is global", || node.ledger.policies("*").iter().all(|policy| !policy.is_local())).await;
    let text = node.run("get synchronizer").await.unwrap();
    assert!(text.contains("Running") && text.contains(OWN), "{text}");
    assert_eq!(node.run("get metadata version").await.unwrap(), node.ledger.version());
    node.run("run blockchain sync").await.unwrap();
    node.run("exit synchronizer").await.unwrap();
    assert_eq!(node.run("run blockchain sync").await.unwrap_err().status, Status::SYNC_NOT_RUNNING);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_view_is_shown_as_documented() {
    let (_wires, node) = own_master().await;
    let add = |value: Value| {
        let ledger = Arc::clone(&node.ledger);
        async move { ledger.add(policy(value)).await.unwrap() }
    };
    let cluster = add(json!({"cluster": {"company": "Peer Co", "name": "c"}})).await;
    add(json!({"cluster": {"parent": cluster.id(), "company": "Peer Co", "name": "c",
        "table": [{"dbms": "peerdb", "name": "t2"}, {"dbms": "peerdb", "name": "t1"}]}}))
    .await;
    let operator = add(json!({"operator": {"name": "op1", "company": "Peer Co", "ip": "127.0.0.1", "port": 32148,
        "local_ip": "127.0.0.1", "cluster": cluster.id(), "member": 209}}))
    .await;
    let text = node.run("get data nodes where dbms = PeerDB").await.unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[1].starts_with("Company DBMS   Table Cluster ID"), "{text}");
    assert!(lines[3].starts_with("Peer Co|peerdb|t2   |"), "{text}");
    let rows: Value =
        serde_json::from_str(&node.run("get data nodes where table = t1 and format=json").await.unwrap()).unwrap();
    assert_eq!(rows[0]["Member ID"], 209);
    assert_eq!(rows[0]["Main"], " -");
    assert_eq!(rows[0]["External IP/Port"], "127.0.0.1:32148");
    assert_eq!(rows.as_array().unwrap().len(), 1);
    let sorted: Value =
        serde_json::from_str(&node.run("get data nodes where sort = (2) and format = json").await.unwrap()).unwrap();
    assert_eq!(sorted[0]["Table"], "t1");
    node.ledger.set_own_operator(operator.id()).unwrap();
    let info = node.run("get cluster info").await.unwrap();
    assert!(
        info.contains(&format!("Cluster ID  : {}", cluster.id())) && info.contains("Peer Co|peerdb|t2   |"),
        "{info}"
    );
    node.ledger.report_node("127.0.0.1:32148", false);
    assert!(node.run("get members status").await.unwrap().contains("not responding"));
    assert!(node.run("get virtual tables").await.unwrap().contains("t1"));
    assert!(node.run("get network databases").await.unwrap().contains("peerdb"));
    assert!(node.run("blockchain query metadata").await.unwrap().contains("[209 local not responding]"));
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_are_written_tested_compared_and_deleted() {
    let (_wires, node) = own_master().await;
    node.run("p = create policy site where name = one and company = \"New Company\"").await.unwrap();
    node.run("blockchain prepare policy !p").await.unwrap();
    let id = node.run("blockchain get id !p").await.unwrap();
    node.run("blockchain add !p").await.unwrap();
    assert_eq!(
        node.run(&format!("x = blockchain test {id}")).await.map(|_| node.ledger.node().dictionary.get("x")).unwrap(),
        Some("true".to_owned())
    );
    assert_eq!(node.run("blockchain add !p").await.unwrap_err().status, Status::DUPLICATE_OBJECT_ID);
    assert_eq!(node.run("blockchain insert where policy = !p").await.unwrap_err().status, Status::COMMAND_STRUCTURE);
    node.run("blockchain wait where policy = !p").await.unwrap();
    node.run("blockchain wait for !p").await.unwrap();
    let report = node.run("blockchain test").await.unwrap();
    assert!(report.contains("validated"), "{report}");
    node.run("q = create policy site where name = two").await.unwrap();
    assert!(node.run("get policies diff !p !q").await.unwrap().contains("[\"one\", \"two\"]"));
    node.run(&format!("blockchain delete policy where id = {id} and local = true")).await.unwrap();
    let error = node.run(&format!("blockchain delete policy where id = {id} and local = true")).await.unwrap_err();
    assert_eq!(error.status, Status::NO_POLICY);
    let error = node
        .run("blockchain insert where policy = {\"operator\": {\"name\": \"x\"}} and local = true")
        .await
        .unwrap_err();
    assert_eq!(error.status, Status::WRONG_POLICY);
    assert!(node.run("blockchain commit to optimism !p").await.unwrap_err().hint.is_some());
    let operator = node.run("create policy query with defaults where name = q1 and company = co").await.unwrap();
    let operator: Value = serde_json::from_str(&operator).unwrap();
    assert_eq!(operator["query"]["port"], 32348);
    assert_eq!(operator["query"]["ip"], "127.0.0.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_master_table_is_filled_shown_and_emptied() {
    let (_wires, node) = own_master().await;
    node.run("blockchain create table").await.unwrap();
    node.run("blockchain push {'site': {'name': \"it's\"}}").await.unwrap();
    node.run("blockchain push {'site': {'name': 'b'}}").await.unwrap();
    let id = node.run("blockchain get id {'site': {'name': 'b'}}").await.unwrap();
    assert_eq!(
        node.run("blockchain push {'site': {'name': 'b'}}").await.unwrap_err().status,
        Status::DUPLICATE_OBJECT_ID
    );
    node.run("blockchain push ignore {'site': {'name': 'b'}}").await.unwrap();
    let shown: Value = serde_json::from_str(&node.run("blockchain pull to stdout").await.unwrap()).unwrap();
    assert_eq!(shown.as_array().unwrap().len(), 2);
    assert_eq!(shown[0]["site"]["name"], "it's");
    assert_eq!(shown[0]["site"]["ledger"], "global");
    node.run(&format!("blockchain replace policy {id} with {{'site': {{'name': 'c'}}}}")).await.unwrap();
    assert!(node.run("blockchain pull to stdout").await.unwrap().contains("\"c\""));
    node.run("blockchain pull to json").await.unwrap();
    node.run("blockchain pull to sql").await.unwrap();
    node.run("blockchain update file").await.unwrap();
    assert_eq!(node.ledger.policies("site").len(), 2);
    let sql = std::fs::read_to_string(node.ledger.path().with_extension("sql")).unwrap();
    assert!(sql.contains("it''s") && sql.lines().count() == 2, "{sql}");
    node.run("blockchain drop policy where id = blockchain get site bring [*][id] separator = ,").await.unwrap();
    assert_eq!(node.run("blockchain pull to stdout").await.unwrap(), "[]");
    assert_eq!(
        node.run(&format!("blockchain drop policy where id = {id}")).await.unwrap_err().status,
        Status::NO_POLICY
    );
    assert_eq!(node.run("blockchain update dbms").await.unwrap(), "added 2 from 2");
    assert_eq!(node.run("blockchain drop by host 127.0.0.1").await.unwrap(), "2 policies dropped");
    node.run("blockchain delete local file").await.unwrap();
    assert!(node.ledger.policies("*").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_ledger_database_says_how_to_get_one() {
    let wires = Arc::new(Wires::default());
    let node = TestNode::new(&wires, OWN, false);
    let error = node.run("blockchain push {'site': {'name': 'b'}}").await.unwrap_err();
    assert_eq!(error.status, Status::DBMS_NOT_CONNECTED);
    assert!(error.hint.unwrap().contains("connect dbms blockchain"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_sets_up_the_node() {
    let (_wires, node) = own_master().await;
    let config = json!({"config": {"name": "setup", "id": "cfg", "script": [
        "set first = 1", "'second = !first'", "if !second then set third = \"a b\""]}});
    node.ledger.add(policy(config)).await.unwrap();
    node.run("config from policy where id = cfg").await.unwrap();
    assert_eq!(node.ledger.node().dictionary.get("second").as_deref(), Some("1"));
    assert_eq!(node.ledger.node().dictionary.get("third").as_deref(), Some("a b"));
    assert_eq!(node.run("config from policy where id = gone").await.unwrap_err().status, Status::NO_POLICY);
    let failing = json!({"config": {"name": "bad", "id": "bad", "script": ["set fourth = 4", "no such command", "set fifth = 5"]}});
    node.ledger.add(policy(failing)).await.unwrap();
    let error = node.run("config from policy where id = bad").await.unwrap_err();
    assert_eq!(error.status, Status::UNRECOGNIZED_COMMAND);
    assert!(error.message.contains("on line 2"), "{error}");
    assert_eq!(node.ledger.node().dictionary.get("fifth"), None);
    let shown = node.run("get config policies").await.unwrap();
    assert!(shown.contains("bad") && shown.contains("141"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_blockchain_get_of_real_scripts_is_understood() {
    let (_wires, node) = own_master().await;
    let dictionary = &node.ledger.node().dictionary;
    for (name, value) in [
        ("node_type", "operator"),
        ("mapping_id", "m"),
        ("policy_id", "p"),
        ("node_id", "n"),
        ("org", "o"),
        ("hardware", "h"),
    ] {
        dictionary.set(name, value);
    }
    for line in [
        "blockchain get mapping where id = !mapping_id",
        "blockchain get (schedule, config) where id = !policy_id bring.last",
        "blockchain get !node_type where name=!node_name and company=!company_name bring.first",
        "blockchain get config where node_type = !node_type and company = !company_name bring.first [*][id]",
        "blockchain get hzn where node_id = !node_id and org=!org and hardware=!hardware",
        "blockchain get (operator, query) bring.ip_port",
        "blockchain get master bring.ip_port",
        "blockchain get operator bring.last [operator][ip] : [operator][port]",
        "blockchain get license bring.last [*][activation_key]",
        "blockchain get aggregation where dbms=!default_dbms and table=t and value_column=v bring [*][id]",
        "blockchain get operator bring.table [*][name] [*][ip] [*][port]",
        "blockchain get operator where [country] contains US bring.table [*][name] [*][country]",
        "blockchain get operator where [company] == \"New Company\" bring [*][name] \" : \" [*][ip] separator = \\n",
        "blockchain get * where [id] = \"x\" bring.children",
        "blockchain get root policies",
        "blockchain get security_group where group_name = !node_type",
        "blockchain read *",
        "blockchain get *",
    ] {
        node.run(line).await.unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_starts_the_servers_that_it_declares() {
    use anylog_core::{Declaration, OptionKind, Reply, command};
    let (_wires, node) = own_master().await;
    let started: Arc<parking_lot::Mutex<Vec<String>>> = Arc::default();
    for words in ["run tcp server", "run rest server", "run message broker"] {
        let declaration =
            ["external_ip", "internal_ip"].iter().fold(Declaration::new(words, "A server."), |declaration, name| {
                declaration.option(name, OptionKind::Text, "an address")
            });
        let declaration = declaration
            .option("external_port", OptionKind::Int, "a port")
            .option("internal_port", OptionKind::Int, "a port")
            .option("bind", OptionKind::Bool, "one address only")
            .option("threads", OptionKind::Int, "threads");
        let server =
            command(declaration, Arc::clone(&started), |started: &parking_lot::Mutex<Vec<String>>, _, call| {
                Box::pin(async move {
                    started.lock().push(call.source.clone());
                    Ok(Reply::Empty)
                })
            });
        node.ledger.node().registry.register(server).unwrap();
    }
    let config = json!({"config": {"id": "cfg", "ip": "'!external_ip'", "local_ip": "'!ip'", "port": "'!anylog_server_port.int'",
        "local_port": "'!anylog_server_port.int'", "rest_port": "'!anylog_rest_port.int'", "broker_port": "!unset_port",
        "rest_bind": false, "tcp_threads": 3}});
    node.ledger.add(policy(config)).await.unwrap();
    node.run("config from policy where id = cfg").await.unwrap();
    assert_eq!(
        *started.lock(),
        [
            "run tcp server where external_ip = 127.0.0.1 and external_port = 32148 and internal_ip = 127.0.0.1 and \
         internal_port = 32148 and bind = false and threads = 3",
            "run rest server where external_ip = 127.0.0.1 and external_port = 32149 and internal_ip = 127.0.0.1 and \
         internal_port = 32149 and bind = false and threads = 8",
        ]
    );
    // What runs with these addresses is left alone; another address restarts it.
    let processes = &node.ledger.node().processes;
    let details = "Listening on: 127.0.0.1:32148, Threads Pool: 3";
    processes.register("TCP", move || anylog_core::node::processes::ProcessState::running(details));
    let details = "Listening on: 127.0.0.1:1, Threads Pool: 3";
    processes.register("REST", move || anylog_core::node::processes::ProcessState::running(details));
    let exit = command(
        Declaration::new("exit rest", "Ends it."),
        Arc::clone(&started),
        |started: &parking_lot::Mutex<Vec<String>>, _, call| {
            Box::pin(async move {
                started.lock().push(call.source.clone());
                Ok(Reply::Empty)
            })
        },
    );
    node.ledger.node().registry.register(exit).unwrap();
    started.lock().clear();
    node.run("config from policy where id = cfg").await.unwrap();
    assert_eq!(started.lock().len(), 2, "{:?}", started.lock());
    assert_eq!(started.lock()[0], "exit rest");
    assert!(started.lock()[1].starts_with("run rest server"));
    node.ledger.add(policy(json!({"config": {"id": "bad", "ip": "!ip", "port": "x"}}))).await.unwrap();
    assert_eq!(node.run("config from policy where id = bad").await.unwrap_err().status, Status::PORT_VALUE);
}

#[tokio::test]
async fn the_catalog_can_create_the_ledger_table() {
    let (_wires, node) = own_master().await;
    let catalog = node.ledger.catalog();
    let create = catalog.system_table("ledger").unwrap();
    let database = catalog.get("blockchain").unwrap();
    create(&database).unwrap();
    create(&database).unwrap();
    assert!(node.ledger.is_master());
    node.ledger.add(policy(json!({"table": {"name": "T1", "dbms": "D", "create": "CREATE TABLE t1"}}))).await.unwrap();
    let source = catalog.table_source().unwrap();
    assert_eq!(source.create_text("d", "t1").as_deref(), Some("CREATE TABLE t1"));
    assert_eq!(source.tables("d"), ["T1"]);
}
