//! The commands of ingestion, as scripts write them.

mod support;

use std::sync::Arc;

use support::TestNode;

async fn status(node: &TestNode, line: &str) -> (u16, String) {
    let error = node.run(line).await.expect_err(line);
    (error.status.0, error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn step_10_of_the_deployment_document_runs_as_written() {
    let node = TestNode::start().await;
    for (name, value) in [
        ("port", "32148"),
        ("mqtt_log", "false"),
        ("mqtt_topic_name", "anylog-demo"),
        ("mqtt_topic_dbms", "test"),
        ("mqtt_topic_table", "rand_data"),
        ("mqtt_column_timestamp", "bring [timestamp]"),
        ("mqtt_column_value", "bring [value]"),
        ("mqtt_column_value_type", "float"),
    ] {
        node.node.dictionary.set(name, value);
    }
    node.run(
        "run mqtt client where broker=local and port=!port and log=!mqtt_log and topic=(
           name=!mqtt_topic_name and
           dbms=!mqtt_topic_dbms and
           table=!mqtt_topic_table and
           column.timestamp.timestamp=!mqtt_column_timestamp and
           column.value=(value=!mqtt_column_value and type=!mqtt_column_value_type)
        )",
    )
    .await
    .unwrap();
    let message = r#"{"timestamp": "2026-11-23 08:00:00", "value": 210.5}"#;
    node.node.dictionary.set("msg", message);
    node.run("mqtt publish where broker=local and topic=anylog-demo and message=!msg").await.unwrap();
    assert_eq!(node.sink.rows("test.rand_data"), [r#"{"timestamp":"2026-11-23 08:00:00","value":210.5}"#]);
    let types = [("timestamp", "timestamp"), ("value", "float")].map(|(name, kind)| (name.to_owned(), kind.to_owned()));
    assert_eq!(node.sink.declared("test.rand_data"), types);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_shown_in_the_documented_layout() {
    let node = TestNode::start().await;
    assert_eq!(node.run("get msg client").await.unwrap().trim(), "No message client subscriptions");
    node.run(
        "run msg client where broker=local and topic=(name=t1q and dbms=peerdb and table=mqi and \
         column.timestamp.timestamp=\"bring [timestamp]\" and column.value=(value=\"bring [value]\" and type=float))",
    )
    .await
    .unwrap();
    let shown = node.run("get msg client where topic=t1q").await.unwrap().replace("\r\n", "\n");
    let expected = "
Subscription ID: 0001
User:         unused
Broker:       local
Connection:   Connected to local Message Server

     Messages    Success     Errors      Last message time    Last error time      Last Error
     ----------  ----------  ----------  -------------------  -------------------  ----------------------------------
              0           0           0
     
     Subscribed Topics:
     Topic Dynamic QOS DBMS   Table Column name Column Type Mapping Function Optional Policies 
     -----|-------|---|------|-----|-----------|-----------|----------------|--------|--------|
     t1q  |False  |  0|peerdb|mqi  |timestamp  |timestamp  |['[timestamp]'] |False   |        |
          |False  |   |      |     |value      |float      |['[value]']     |False   |        |

";
    assert_eq!(shown, expected);
    let json = node.run("get msg clients where id=1 and format=json").await.unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["topics"][0]["columns"][1]["mapping"], "[value]");
    let brokers = node.run("get msg brokers").await.unwrap();
    assert!(brokers.contains("local |t1q  |"), "{brokers}");
    assert_eq!(node.run("get msg rules").await.unwrap(), "No rules for messages");
    let (code, told) =
        status(&node, "set msg rule r if ip = 10.0.0.1 then dbms = d and table = t and syslog = true").await;
    assert!(code == 2 && told.contains("run msg client where broker=local"), "{told}");
    assert!(node.run("get msg client where detailed=true").await.unwrap().contains("Resubscribed: 0"));
    assert_eq!(status(&node, "exit msg client 7").await.0, 128);
    node.run("exit msg client 0001").await.unwrap();
    assert_eq!(node.run("get mqtt client").await.unwrap().trim(), "No message client subscriptions");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_declarations_are_refused_and_leave_nothing_behind() {
    let node = TestNode::start().await;
    let run = |topics: &str| format!("run msg client where broker=local and {topics}");
    let good = "topic=(name=a and dbms=d and table=t and column.v.int=\"bring [v]\")";
    for (topics, code, cause) in [
        ("topic=(name=b and dbms=d and table=t)", 124, "without columns"),
        ("topic=(name=b and table=t and column.v.int=1)", 124, "without a database"),
        ("topic=(name=b and dbms=d and column.v.int=1)", 124, "without a table"),
        ("topic=(dbms=d and table=t and column.v.int=1)", 124, "without a name"),
        ("topic=(name=b and dbms=d and table=t and colum.v.int=1)", 124, "colum.v.int"),
        ("topic=(name=b and dbms=d and table=t and column.v.colour=1)", 124, "'colour' is not a type"),
        ("topic=(name=b and dbms=d and table=t and column.v=(value=1))", 124, "without 'type'"),
        ("topic=(name=\"a/#/b\" and dbms=d and table=t and column.v.int=1)", 124, "is not a topic"),
        ("topic=(name=b and qos=3 and dbms=d and table=t and column.v.int=1)", 2, "quality of service"),
        ("topic=(name=!unset and dbms=d and table=t and column.v.int=1)", 2, "unset"),
        ("topic=(name=b and policy=no-such-policy)", 124, "no-such-policy"),
        (&format!("{good} and {}", good.replace("table=t", "table=u")), 124, "subscribed at broker"),
    ] {
        let (status, text) = status(&node, &run(topics)).await;
        assert_eq!(status, code, "{topics}: {text}");
        assert!(text.contains(cause), "{topics}: {text}");
    }
    assert!(node.ingest.clients().is_empty());
    node.run(&run(good)).await.unwrap();
    assert_eq!(status(&node, &run(good)).await.0, 124);
    node.run("exit mqtt").await.unwrap();
    node.run(&run(good)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_own_broker_by_its_address_is_local() {
    let node = TestNode::start().await;
    let port = node.address.port();
    let topic = "topic=(name=a and dbms=d and table=t and column.v.int=\"bring [v]\")";
    node.run(&format!("run msg client where broker=127.0.0.1 and port={port} and {topic}")).await.unwrap();
    assert_eq!(node.ingest.clients()[0].broker.to_string(), "local");
    assert_eq!(status(&node, &format!("run msg client where broker=local and {topic}")).await.0, 124);
    let message = "mqtt publish where broker=127.0.0.1 and topic=a and qos=1 and message={\"v\": 7}";
    node.run(&format!("{message} and port={port}")).await.unwrap();
    assert_eq!(node.sink.rows("d.t"), [r#"{"v":7}"#]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rest_data_is_mapped_by_user_agent_and_topic() {
    let node = TestNode::start().await;
    node.run(
        "run msg client where broker=rest and user-agent=AnyLog/1.23 and log=false and topic=(name=new-data and \
         dbms=\"bring [dbms]\" and table=\"bring [table]\" and column.value=(value=\"bring [value]\" and type=float))",
    )
    .await
    .unwrap();
    let body = r#"[{"dbms": "a", "table": "x", "value": 1.10}, {"dbms": "a", "table": "y", "value": 2}]"#;
    let receipt = node.ingest.rest_message("AnyLog", Some("new-data"), body, "rest 10.0.0.7").await.unwrap();
    assert_eq!(receipt.stored(), 2);
    assert_eq!(
        (node.sink.rows("a.x"), node.sink.rows("a.y")),
        (vec![r#"{"value":1.10}"#.into()], vec![r#"{"value":2}"#.into()])
    );
    let receipt =
        node.ingest.rest_message("anylog", None, r#"{"dbms": "a", "table": "x", "value": 3}"#, "rest").await.unwrap();
    assert_eq!(receipt.stored(), 1);
    for (agent, topic, body, code) in [
        ("curl", None, "{}", 163),
        ("anylog", Some("other"), "{}", 154),
        ("anylog", None, "not json", 158),
        ("anylog", None, r#"{"table": "x", "value": 3}"#, 126),
        ("anylog", None, r#"{"dbms": "a", "table": "x"}"#, 125),
    ] {
        let error = node.ingest.rest_message(agent, topic, body, "rest").await.unwrap_err();
        assert_eq!(error.status.0, code, "{error}");
    }
    node.slot.unmount();
    let error = node
        .ingest
        .rest_message("anylog", None, r#"{"dbms": "a", "table": "x", "value": 3}"#, "rest")
        .await
        .unwrap_err();
    assert_eq!(error.status.http(), 503);
    assert!(node.ingest.knows_agent("AnyLog") && !node.ingest.knows_agent("curl"));
    node.run("exit msg client all").await.unwrap();
    assert!(!node.ingest.knows_agent("anylog"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_most_exact_topic_of_a_broker_is_applied() {
    let node = TestNode::start().await;
    node.map("broker=local", "a/#", 0, "all").await;
    node.map("broker=local", "a/b", 0, "exact").await;
    for topic in ["a", "a/b", "a/b/c"] {
        node.ingest.publish(topic, b"{\"n\": 1}", 1, false).await.unwrap();
    }
    assert_eq!((node.sink.rows("test.all").len(), node.sink.rows("test.exact").len()), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_log_and_dynamic_topics_take_any_message() {
    let node = TestNode::start().await;
    node.run("run msg client where broker=local and only_log=true and topic=(name=log)").await.unwrap();
    node.run("run msg client where broker=local and topic=(name=\"any/#\" and dbms=d and dynamic=true)").await.unwrap();
    node.ingest.publish("log", b"plain \"text\"", 1, false).await.unwrap();
    node.ingest.publish("any/pump", b"{\"speed\": 1.50}", 1, false).await.unwrap();
    node.ingest.publish("any/fan", b"7", 1, false).await.unwrap();
    let prep = node.node.directories.directory(&node.node.dictionary, "prep_dir");
    assert_eq!(
        std::fs::read_to_string(prep.join("msg_local.json")).unwrap(),
        "{\"topic\":\"log\",\"msg\":\"plain \\\"text\\\"\"}\n"
    );
    assert_eq!(node.sink.rows("d.pump"), [r#"{"speed": 1.50}"#]);
    assert!(node.sink.rows("d.fan")[0].ends_with(r#""value":7}"#));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_and_the_clients_are_processes() {
    let node = TestNode::start().await;
    let state = |name: &str| node.node.processes.states().into_iter().find(|(known, _)| *known == name).unwrap().1;
    assert!(!state("MQTT").running);
    node.map("broker=local", "t", 0, "t").await;
    assert!(state("MQTT").running);
    assert!(state("MSG Broker").details.starts_with("Listening on: 127.0.0.1:"), "{:?}", state("MSG Broker"));
    assert!(node.listeners.stop(anylog_net::ServerKind::Broker).await);
    assert!(!state("MSG Broker").running);
    node.run(&format!("run message broker 127.0.0.1 {0} 127.0.0.1 {0}", node.address.port())).await.unwrap();
    assert!(state("MSG Broker").running);
    let shown = node.run("get local broker").await.unwrap();
    assert!(shown.contains("Message Broker Stat") && shown.contains("Message Broker Resources"), "{shown}");
    drop(Arc::clone(&node.sink));
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_is_checked() {
    let node = TestNode::start().await;
    for line in [
        "mqtt publish where broker=local and topic=\"a/+\" and message=x",
        "mqtt publish where broker=local and topic=a and message=x and qos=3",
        "mqtt publish where broker=rest and user-agent=x and topic=a and message=x",
        "mqtt publish where broker=local and topic=a",
    ] {
        let (_, text) = status(&node, line).await;
        assert!(text.len() > 10, "{text}");
    }
}

// R15
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_says_in_which_zone_its_times_are_meant() {
    let node = TestNode::start().await;
    node.run(
        "run msg client where broker=local and topic=(name=a and dbms=test and table=times and timezone=Europe/Berlin and \
         column.at.timestamp=\"bring [at]\" and column.utc=(type=timestamp and value=\"bring [utc]\" and timezone=UTC))",
    )
    .await
    .unwrap();
    node.node.dictionary.set("msg", r#"{"at": "2024-07-15 12:00:00", "utc": "2024-07-15 12:00:00"}"#);
    node.run("mqtt publish where broker=local and topic=a and message=!msg").await.unwrap();
    let expected = r#"{"at":"2024-07-15T10:00:00.000000Z","utc":"2024-07-15T12:00:00.000000Z"}"#;
    assert_eq!(node.sink.rows("test.times"), [expected]);
    let topic = |inner: &str| {
        format!("run msg client where broker=local and topic=(name=b and dbms=test and table=t and {inner})")
    };
    let (code, text) = status(&node, &topic("timezone=Mars and column.at.timestamp=\"bring [at]\"")).await;
    assert!(code == 124 && text.contains("Mars") && text.contains("Europe/Berlin"), "{text}");
    let (code, text) = status(&node, &topic("timezone=UTC and column.n.int=\"bring [n]\"")).await;
    assert!(code == 124 && text.contains("no timestamp column"), "{text}");
}
