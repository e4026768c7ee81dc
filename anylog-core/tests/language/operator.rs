//! The deployment of an operator node, step by step, against commands that only record how they were called.

use std::sync::Arc;

use anylog_core::command::OptionValue;
use anylog_core::{CommandResult, Declaration, Invocation, OptionKind, Options, Reply, Session, command};
use parking_lot::Mutex;

use crate::support::Bench;

#[derive(Debug, Default)]
struct Calls(Mutex<Vec<String>>);

fn shown(options: &Options) -> String {
    let shown: Vec<String> = options
        .iter()
        .map(|(name, value)| match value {
            OptionValue::Value(value) => format!("{name}={value}"),
            OptionValue::Nested(inner) => format!("{name}=({})", shown(inner)),
            OptionValue::Duration(duration) => format!("{name}={}s", duration.as_secs()),
            other => format!("{name}={other:?}"),
        })
        .collect();
    shown.join(" ")
}

/// Notes the call; `blockchain get` knows nothing until something was inserted.
async fn record(calls: &Calls, _: &mut Session, call: Invocation) -> CommandResult {
    let key = call.words[..call.key_words].iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ");
    let positionals: Vec<String> = call.positionals.iter().map(|(_, value)| value.to_string()).collect();
    let mut line = key.clone();
    for part in [positionals.join(" "), shown(&call.options)] {
        if !part.is_empty() {
            line = format!("{line} {part}");
        }
    }
    if call.positionals.is_empty() && call.options.is_empty() {
        line = call.source.clone();
    }
    let mut calls = calls.0.lock();
    calls.push(line);
    let known = calls.iter().any(|call| call.starts_with("blockchain insert"));
    Ok(match key.as_str() {
        "get hostname" => Reply::Text("edge-host".into()),
        "blockchain get" if known && call.source.contains("[cluster][id]") => Reply::Text("cluster-1\n".into()),
        "blockchain get" if call.source.contains("[operator][id]") => Reply::Text("operator-1".into()),
        _ => Reply::Empty,
    })
}

fn declarations() -> Vec<Declaration> {
    let text = OptionKind::Text;
    let server = |words| {
        Declaration::new(words, "")
            .word("external_ip", "")
            .word("external_port", "")
            .optional_word("ip", "")
            .optional_word("port", "")
    };
    vec![
        Declaration::new("get hostname", "").reads(),
        Declaration::new("create work directories", ""),
        server("run tcp server"),
        server("run rest server"),
        server("run message broker"),
        Declaration::new("connect dbms", "")
            .word("dbms", "")
            .required("type", text, "")
            .option("ip", text, "")
            .option("port", OptionKind::Int, "")
            .option("user", text, "")
            .option("password", text, "")
            .option("memory", OptionKind::Bool, ""),
        Declaration::new("create table", "").word("table", "").required("dbms", text, ""),
        Declaration::new("run scheduler", "").optional_word("id", ""),
        Declaration::new("run blockchain sync", "")
            .option("source", text, "")
            .option("time", OptionKind::Duration, "")
            .option("dest", text, "")
            .option("connection", OptionKind::Address, ""),
        Declaration::new("blockchain get", "").grammar("<type> where ...").reads(),
        Declaration::new("blockchain prepare policy", "").word("policy", ""),
        Declaration::new("blockchain insert", "")
            .required("policy", OptionKind::Json, "")
            .option("local", OptionKind::Bool, "")
            .option("master", OptionKind::Address, ""),
        Declaration::new("partition", "").grammar("<dbms> <table> using <column> by <interval>"),
        Declaration::new("schedule", "").grammar("time = <interval> and name = <name> task <command>"),
        Declaration::new("run mqtt client", "")
            .alias("run msg client")
            .option("broker", text, "")
            .option("port", OptionKind::Int, "")
            .option("log", OptionKind::Bool, "")
            .repeated("topic", OptionKind::Nested, ""),
        Declaration::new("set buffer threshold", "").option("write_immediate", OptionKind::Bool, ""),
        Declaration::new("run data distributor", ""),
        Declaration::new("run operator", "")
            .option("create_table", OptionKind::Bool, "")
            .option("update_tsd_info", OptionKind::Bool, "")
            .option("archive", OptionKind::Bool, "")
            .option("distributor", OptionKind::Bool, "")
            .option("master", text, "")
            .option("policy", text, ""),
    ]
}

const PARAMETERS: &str = r#"
on error end script
hostname = get hostname
set node_name = an-operator
set company_name = "New Company"
set ip = 127.0.0.1
set external_ip = 127.0.0.1
set anylog_server_port = 32148
set anylog_rest_port = 32149
set db_type = sqlite
set db_ip = 127.0.0.1
set db_port = 5432
set db_user = anylog
set db_password = demo
set memory = true
sync_time = 30 seconds
set default_dbms = test
set table_name = *
set partition_column = insert_timestamp
partition_interval = 1 day
partition_sync = 1 day
set partition_keep = 3
set cluster_name = a-cluster
set loc = "37.425423, -122.078360"
set country = US
set state = CA
set city = "Mountain View"
set mqtt_log = false
set mqtt_topic_name = anylog-demo
set mqtt_topic_dbms = test
set mqtt_topic_table = rand_data
mqtt_column_timestamp = bring [timestamp]
mqtt_column_value = bring [value]
set mqtt_column_value_type = float
if $EDGE_TEST_NODE_NAME then node_name = $EDGE_TEST_NODE_NAME
if $EDGE_TEST_UNSET then set ip = $EDGE_TEST_UNSET
set port = !anylog_server_port
ledger_conn = !external_ip + : + !anylog_server_port
create work directories
"#;

const STEPS: &str = r#"
# servers
run tcp server !external_ip !anylog_server_port !ip !anylog_server_port
run rest server !ip !anylog_rest_port
run message broker !external_ip !anylog_server_port !ip !anylog_server_port
# databases
connect dbms almgm where type=!db_type and ip=!db_ip and port=!db_port and user=!db_user and password=!db_password
create table tsd_info where dbms=almgm
connect dbms system_query where type=!db_type and memory=!memory
# scheduler, synchronisation
run scheduler 1
run blockchain sync where source=master and time=!sync_time and dest=file and connection=!ledger_conn
# cluster
<new_policy={"cluster": {
    "company": !company_name,
    "name": !cluster_name,
    "master": !ledger_conn
}}>

policy = blockchain get cluster where name=!cluster_name and company=!company_name bring.first

if not !policy
do blockchain prepare policy !new_policy
do blockchain insert where policy=!new_policy and local=true and master=!ledger_conn

cluster_id = blockchain get cluster where name=!cluster_name and company=!company_name bring.first [cluster][id]
<new_policy={"operator": {
    "hostname": !hostname,
    "port" : !anylog_server_port.int,
    "cluster": !cluster_id,
    "loc": !loc,
    "city": !city
}}>
policy = blockchain get operator where ip = !external_ip and local_ip = !ip and company=!company_name and port=!anylog_server_port

if not !policy then
do blockchain prepare policy !new_policy
do blockchain insert where policy=!new_policy and local=true and

# partitions
partition !default_dbms !table_name using !partition_column by !partition_interval
schedule time=!partition_sync and name="Drop Partitions" task drop partition where dbms=!default_dbms and table =!table_name and keep=!partition_keep

# mqtt
<run mqtt client where broker=local and port=!port and log=!mqtt_log and topic=(
   name=!mqtt_topic_name and
   dbms=!mqtt_topic_dbms and
   table=!mqtt_topic_table and
   column.timestamp.timestamp=!mqtt_column_timestamp and
   column.value=(value=!mqtt_column_value and type=!mqtt_column_value_type)
)>

set buffer threshold where write_immediate = true

run data distributor  # Optional

operator_id = blockchain get operator where ip = !external_ip and local_ip = !ip and company=!company_name and port=!anylog_server_port bring [operator][id]
run operator where create_table=true and update_tsd_info=true and archive=true and distributor=true and master=!ledger_conn and policy=!operator_id
"#;

#[tokio::test]
async fn the_eleven_steps_of_an_operator() {
    let mut bench = Bench::new();
    bench.node.dictionary.set_environment("EDGE_TEST_NODE_NAME", "from-environment");
    let calls = Arc::new(Calls::default());
    for declaration in declarations() {
        let fake =
            command(declaration, Arc::clone(&calls), |calls, session, call| Box::pin(record(calls, session, call)));
        // what the crate itself offers runs for real
        drop(bench.node.registry.register(fake));
    }
    let (result, printed) = bench.process(&format!("{PARAMETERS}{STEPS}")).await;
    result.unwrap_or_else(|error| panic!("{error}\n{printed:?}"));

    let own = ["get hostname", "create work directories", "run scheduler", "schedule"];
    let calls: Vec<String> =
        calls.0.lock().iter().filter(|call| !own.iter().any(|own| call.starts_with(own))).cloned().collect();
    let operator = bench.get("hostname").unwrap();
    let operator = format!(
        "blockchain insert policy={{\"operator\": {{ \"hostname\": \"{operator}\", \"port\" : 32148, \"cluster\": \"cluster-1\", \
         \"loc\": \"37.425423, -122.078360\", \"city\": \"Mountain View\" }}}} local=true"
    );
    assert_eq!(
        calls,
        [
            "run tcp server 127.0.0.1 32148 127.0.0.1 32148",
            "run rest server 127.0.0.1 32149",
            "run message broker 127.0.0.1 32148 127.0.0.1 32148",
            "connect dbms almgm type=sqlite ip=127.0.0.1 port=5432 user=anylog password=demo",
            "create table tsd_info dbms=almgm",
            "connect dbms system_query type=sqlite memory=true",
            "run blockchain sync source=master time=30s dest=file connection=127.0.0.1:32148",
            "blockchain get cluster where name=!cluster_name and company=!company_name bring.first",
            "blockchain prepare policy {\"cluster\": { \"company\": !company_name, \"name\": !cluster_name, \"master\": !ledger_conn }}",
            "blockchain insert policy={\"cluster\": { \"company\": \"New Company\", \"name\": \"a-cluster\", \
             \"master\": \"127.0.0.1:32148\" }} local=true master=127.0.0.1:32148",
            "blockchain get cluster where name=!cluster_name and company=!company_name bring.first [cluster][id]",
            "blockchain get operator where ip = !external_ip and local_ip = !ip and company=!company_name and port=!anylog_server_port",
            "blockchain prepare policy {\"operator\": { \"hostname\": !hostname, \"port\" : !anylog_server_port.int, \
             \"cluster\": !cluster_id, \"loc\": !loc, \"city\": !city }}",
            operator.as_str(),
            "partition !default_dbms !table_name using !partition_column by !partition_interval",
            "run mqtt client broker=local port=32148 log=false topic=(name=anylog-demo dbms=test table=rand_data \
             column.timestamp.timestamp=bring [timestamp] \
             column.value=(value=!mqtt_column_value and type=!mqtt_column_value_type))",
            "set buffer threshold write_immediate=true",
            "run data distributor",
            "blockchain get operator where ip = !external_ip and local_ip = !ip and company=!company_name and \
             port=!anylog_server_port bring [operator][id]",
            "run operator create_table=true update_tsd_info=true archive=true distributor=true master=127.0.0.1:32148 \
             policy=operator-1",
        ]
    );
    for (name, value) in [
        ("node_name", "from-environment"),
        ("default_dbms", "test"),
        ("sync_time", "30 seconds"),
        ("mqtt_column_value", "bring [value]"),
        ("ledger_conn", "127.0.0.1:32148"),
        ("table_name", "*"),
        ("cluster_id", "cluster-1"),
        ("ip", "127.0.0.1"),
    ] {
        assert_eq!(bench.get(name).as_deref(), Some(value), "{name}");
    }
}
