//! SQL over a network of real processes that run the scripts of the examples: one answer out of many nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::harness::server::Server;
use super::harness::{Answer, Operator, eventually, publish};

/// A reading of a pump; numbers are exact in binary, so that sums are equal however they are put together.
#[derive(Debug, Clone, Copy)]
struct Reading {
    second: u32,
    pump: u32,
    temperature: f64,
}

impl Reading {
    fn time(&self) -> String {
        format!("2026-03-01 10:{:02}:{:02}.000000", self.second / 60, self.second % 60)
    }

    fn device(&self) -> String {
        format!("pump-{}", self.pump)
    }
}

/// Readings of one cluster. Pump 9 is seen by every cluster.
fn readings(cluster: u32) -> Vec<Reading> {
    (0..60)
        .map(|n| Reading {
            second: n * 7 + cluster,
            pump: if n % 4 == 0 { 9 } else { cluster },
            temperature: 50.0 + f64::from(cluster) * 4.0 + f64::from(n) / 8.0,
        })
        .collect()
}

struct Network {
    master: Operator,
    operators: Vec<Operator>,
    query: Operator,
    all: Vec<Reading>,
    // After the nodes, which are to end first.
    _servers: Vec<Server>,
}

impl Network {
    /// A master, operators in these clusters and a query node. Each operator gets the readings of its cluster over MQTT; the
    /// first member of a cluster is the one that is asked.
    fn start(clusters: &[u32]) -> Self {
        Self::start_with(clusters, &[])
    }

    /// The same; the databases of some operators, by their number, lie in PostgreSQL.
    fn start_with(clusters: &[u32], in_postgres: &[usize]) -> Self {
        let mut servers = Vec::new();
        let master = Operator::start_script("network/master.al", &[]);
        let ledger = format!("127.0.0.1:{}", master.tcp);
        let mut seen = BTreeSet::new();
        let mut all = Vec::new();
        let mut operators = Vec::new();
        for (number, cluster) in clusters.iter().enumerate() {
            let first = seen.insert(cluster);
            let (node, name) = (format!("operator-{number}"), format!("cluster-{cluster}"));
            let main = first.to_string();
            let mut settings = vec![
                ("LEDGER_CONN", ledger.as_str()),
                ("NODE_NAME", &node),
                ("CLUSTER_NAME", &name),
                ("MAIN", &main),
                // The master tells of changes; the period is not what the tests wait for.
                ("SYNC_TIME", "60 seconds"),
            ];
            let server = in_postgres.contains(&number).then(Server::start);
            let port = server.as_ref().map(|server| server.port.to_string()).unwrap_or_default();
            if server.is_some() {
                settings.extend([("DB_TYPE", "psql"), ("DB_IP", "127.0.0.1"), ("DB_PORT", port.as_str())]);
            }
            servers.extend(server);
            let operator = Operator::start_script("network/operator.al", &settings);
            publish(operator.tcp, "plant/pumps", 1, "mqttv311", &lines(&readings(*cluster)));
            operators.push(operator);
            if first {
                all.extend(readings(*cluster));
            }
        }
        let query =
            Operator::start_script("network/query.al", &[("LEDGER_CONN", &ledger), ("SYNC_TIME", "60 seconds")]);
        let network = Self { master, operators, query, all, _servers: servers };
        // Acknowledged rows can be queried; that the clusters have the table travels with the ledger.
        eventually("the query node knows where the table is", || {
            let members = network.query.get("get data nodes where dbms = plant and format = json");
            let nodes: Value = serde_json::from_str(&members.body).ok()?;
            let with_table = nodes.as_array()?.iter().filter(|node| node["Table"] == "pumps").count();
            (with_table == clusters.len()).then_some(())
        });
        network
    }

    /// A statement over the network, with further headers.
    fn ask(&self, options: &str, select: &str, headers: &[&str]) -> Answer {
        let command = format!("command: sql plant format=json and timezone=utc{options} \"{select}\"");
        let mut all = vec!["destination: network", command.as_str()];
        all.extend(headers);
        self.query.request("GET", &all, "")
    }

    /// The rows of a statement, which must be the same over REST and by the command.
    fn rows(&self, select: &str) -> Vec<Value> {
        let over_rest = self.ask(" and stat=false", select, &[]).ok();
        let command = format!("run client () sql plant format=json and timezone=utc and stat=false \"{select}\"");
        assert_eq!(self.query.get(&command).ok().trim(), over_rest.trim(), "{select}");
        let answer: Value = serde_json::from_str(&over_rest).unwrap();
        answer["Query"].as_array().cloned().unwrap_or_default()
    }

    fn address(&self, operator: usize) -> String {
        format!("127.0.0.1:{}", self.operators[operator].tcp)
    }

    fn versions_agree(&self) {
        let nodes = || self.operators.iter().chain([&self.master, &self.query]);
        eventually("all nodes have one version of the ledger", || {
            let versions: BTreeSet<String> = nodes().map(|node| node.get("get metadata version").body).collect();
            (versions.len() == 1).then_some(())
        });
    }
}

fn lines(readings: &[Reading]) -> String {
    readings.iter().fold(String::new(), |mut lines, reading| {
        let (time, device, temperature) = (reading.time().replace(' ', "T"), reading.device(), reading.temperature);
        writeln!(
            lines,
            r#"{{"timestamp": "{time}Z", "device": "{device}", "temperature": {temperature}, "pressure": 4.5, "vibration": 1.5}}"#
        )
        .unwrap();
        lines
    })
}

fn count(rows: usize) -> Vec<Value> {
    vec![json!({ "n": rows })]
}

const COUNT: &str = "select count(*) as n from pumps";

// QRY-1
#[test]
fn a_statement_over_three_clusters_is_that_over_all_their_rows() {
    statements_are_those_over_all_rows(&Network::start(&[1, 2, 3]));
}

// QRY-1
#[test]
fn a_statement_over_both_engines_is_that_over_all_their_rows() {
    statements_are_those_over_all_rows(&Network::start_with(&[1, 2, 3], &[0, 2]));
}

/// The network holds the readings of three clusters.
fn statements_are_those_over_all_rows(network: &Network) {
    let all = &network.all;
    let temperatures = || all.iter().map(|reading| reading.temperature);
    assert_eq!(network.rows(COUNT), count(180));

    let rows = network.rows(
        "select count(*) as n, min(temperature) as low, max(temperature) as high, sum(temperature) as total from pumps",
    );
    let low = temperatures().fold(f64::INFINITY, f64::min);
    let high = temperatures().fold(f64::NEG_INFINITY, f64::max);
    assert_eq!(rows, [json!({"n": 180, "low": low, "high": high, "total": temperatures().sum::<f64>()})]);

    let mut devices: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for reading in all {
        devices.entry(reading.device()).or_default().push(reading.temperature);
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / f64::from(u32::try_from(values.len()).unwrap());
    let expected: Vec<Value> =
        devices.iter().map(|(device, of)| json!({"device": device, "n": of.len(), "mean": mean(of)})).collect();
    let select = "select device, count(*) as n, avg(temperature) as mean from pumps group by device order by device";
    assert_eq!(network.rows(select), expected);
    assert_eq!(network.rows("select count(distinct device) as n from pumps"), count(devices.len()));

    let mut newest: Vec<&Reading> = all.iter().filter(|reading| reading.temperature > 60.0).collect();
    newest.sort_by_key(|reading| (std::cmp::Reverse(reading.second), reading.pump));
    let expected: Vec<Value> = newest[..7]
        .iter()
        .map(|reading| json!({"timestamp": reading.time(), "device": reading.device(), "temperature": reading.temperature}))
        .collect();
    let select =
        "select timestamp, device, temperature from pumps where temperature > 60 order by timestamp desc limit 7";
    assert_eq!(network.rows(select), expected);

    let mut minutes: BTreeMap<u32, usize> = BTreeMap::new();
    all.iter().for_each(|reading| *minutes.entry(reading.second / 60).or_default() += 1);
    let expected: Vec<Value> = minutes.values().map(|n| json!({ "n": n })).collect();
    assert_eq!(network.rows("select increments(minute, 1, timestamp), count(*) as n from pumps"), expected);

    // Only the nodes that are named.
    let one = format!("destination: {},{}", network.address(0), network.address(2));
    let command = format!("command: sql plant format=json and stat=false \"{COUNT}\"");
    assert_eq!(network.query.request("GET", &[&one, &command], "").json()["Query"], json!(count(120)));

    // How many nodes answered, and what is wrong with a statement.
    assert_eq!(network.ask("", COUNT, &[]).json()["Statistics"][0]["Nodes"], 3);
    let wrong = network.ask("", "select count(*) from pump", &[]);
    assert!(wrong.status == 404 && wrong.body.contains("'pumps'"), "{wrong:?}");
    let wrong = network.ask("", "select temprature from pumps", &[]);
    assert!(wrong.status == 400 && wrong.body.contains("'temperature'"), "{wrong:?}");
}

#[test]
fn a_mate_answers_and_what_is_missing_is_named() {
    // Operators 1 and 2 are one cluster and got the same rows.
    let mut network = Network::start(&[1, 2, 2]);
    assert_eq!(network.rows(COUNT), count(120));
    let by_device = "select device, count(*) as n, avg(temperature) as mean from pumps group by device order by device";
    let complete = network.rows(by_device);

    // QRY-3: the first statement after the loss is answered already.
    network.operators[1].kill();
    assert_eq!(network.rows(by_device), complete);
    assert_eq!(network.ask("", COUNT, &[]).json()["Statistics"][0]["Nodes"], 2);

    // QRY-2: without a mate it is an error that names the node and what to do, also while rows would come from the others.
    network.operators[0].kill();
    let lost = network.address(0);
    for statement in [COUNT, "select timestamp, device from pumps", by_device] {
        let answer = network.ask("", statement, &[]);
        assert!(answer.status == 502 && answer.body.contains(&lost), "{answer:?}");
        assert!(answer.body.contains("subset"), "{answer:?}");
    }
    // QRY-2: or a partial answer that says so, also without statistics.
    for options in ["", " and stat=false"] {
        let partial = network.ask(options, COUNT, &["subset: true"]);
        assert_eq!(partial.status, 200, "{partial:?}");
        let partial = partial.json();
        assert_eq!(partial["Query"], json!(count(60)));
        let statistics = &partial["Statistics"][0];
        assert_eq!((&statistics["Target Nodes"], &statistics["Participating Nodes"]), (&json!(2), &json!(1)));
        assert!(statistics["Missing Nodes"][0].as_str().unwrap().contains(&lost), "{partial}");
    }
    let command = format!("run client (subset = true) sql plant format=json \"{COUNT}\"");
    let by_command = network.query.get(&command);
    assert!(by_command.status == 200 && by_command.body.contains(&lost), "{by_command:?}");

    // Back again, it is asked at once: nobody else can answer for its cluster.
    network.operators[0].launch();
    assert_eq!(network.rows(by_device), complete);
}

#[test]
fn members_that_start_together_share_one_cluster() {
    let master = Operator::start_script("network/master.al", &[]);
    let ledger = format!("127.0.0.1:{}", master.tcp);
    // LED-2: each of them finds no cluster and declares it.
    let members: Vec<Operator> = std::thread::scope(|scope| {
        let start = |name| {
            let ledger = &ledger;
            scope.spawn(move || {
                let settings = [("LEDGER_CONN", ledger.as_str()), ("NODE_NAME", name), ("CLUSTER_NAME", "south")];
                Operator::start_script("network/operator.al", &settings)
            })
        };
        let starting = ["a", "b", "c"].map(start);
        starting.map(|member| member.join().unwrap()).into()
    });
    assert_eq!(master.policies("cluster").len(), 1);
    eventually("each knows all", || members.iter().all(|member| member.policies("operator").len() == 3).then_some(()));
}

#[test]
fn queries_need_no_master_and_new_tables_are_known_when_it_is_back() {
    let mut network = Network::start(&[1, 2]);
    network.master.kill();
    assert_eq!(network.rows(COUNT), count(120));
    // A table that is made meanwhile is this operator's own until the master is back.
    let tank = r#"[{"tank": "a", "level": 2.5}, {"tank": "b", "level": 3.5}]"#;
    let headers = ["type: json", "dbms: plant", "table: tanks", "mode: streaming", "Content-Type: text/plain"];
    let stored = network.operators[1].request("PUT", &headers, tank);
    assert_eq!(stored.status, 200, "{stored:?}");
    publish(network.operators[0].tcp, "plant/pumps", 1, "mqttv5", &lines(&readings(3)));
    assert_eq!(network.rows(COUNT), count(180));
    let unknown = network.ask("", "select count(*) as n from tanks", &[]);
    assert!(unknown.status == 404 && unknown.body.contains("tanks"), "{unknown:?}");

    network.master.launch();
    // LED-3, LED-4
    eventually("the query node knows the table", || {
        (network.ask("", "select count(*) as n from tanks", &[]).status == 200).then_some(())
    });
    let levels = network.rows("select tank, level from tanks order by tank");
    assert_eq!(levels, [json!({"tank": "a", "level": 2.5}), json!({"tank": "b", "level": 3.5})]);
    network.versions_agree();

    // The policies of a node that starts again are the ones that it has.
    network.operators[0].kill();
    network.operators[0].launch();
    assert_eq!(network.rows(COUNT), count(180));
    assert_eq!(network.query.policies("operator").len(), 2);
    network.versions_agree();
}
