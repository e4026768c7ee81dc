//! A master, a query node and operators in three clusters, the last of which has two members with the same rows.

use std::thread;

use serde_json::{Value, json};

use super::database::Oracle;
use super::harness::{Answer, Operator, eventually};
use super::rows::{self, Part, Table};

/// The cluster of each operator.
pub(crate) const CLUSTER_OF: [u64; 4] = [0, 1, 2, 2];

/// Rows in one request.
fn piece(part: &Part) -> u64 {
    (part.rows / 100).max(1000)
}

/// How each cluster splits its tables by time.
const INTERVALS: [&str; 3] = ["1 month", "1 year", "14 days"];

pub(crate) struct Network {
    pub(crate) operators: Vec<Operator>,
    pub(crate) query: Operator,
    /// Nobody asks it, but the others follow it.
    _master: Operator,
    /// All rows once.
    pub(crate) oracle: Oracle,
    /// Those of the first cluster.
    pub(crate) first: Oracle,
    _home: tempfile::TempDir,
}

/// Where rows of a table are.
fn parts(rows: u64, now: i64) -> Vec<Part> {
    let part = |table, cluster, rows| Part { table, cluster, rows, now };
    let readings = (0..3).map(|cluster| part(Table::Readings, cluster, rows));
    let few = (rows / 4).min(20_000);
    readings
        .chain([part(Table::Archive, 0, few), part(Table::Archive, 2, few / 2), part(Table::Sparse, 1, few / 3)])
        .collect()
}

impl Network {
    /// With so many rows of `readings` in each cluster.
    pub(crate) fn start(rows: u64) -> Self {
        let now = jiff::Timestamp::now().as_second() / 3600 * 3600;
        Self::of(&parts(rows, now))
    }

    pub(crate) fn of(parts: &[Part]) -> Self {
        let master = Operator::start_script("network/master.al", &[("SYNC_TIME", "60 seconds")]);
        let ledger = format!("127.0.0.1:{}", master.tcp);
        for table in Table::ALL {
            let policy = json!({"table": {"name": table.name(), "dbms": "plant", "create": table.create()}});
            let insert =
                format!("command: blockchain insert where policy = !new_policy and local = true and master = {ledger}");
            master.request("POST", &[&insert], &format!("<new_policy = {policy}>")).ok();
        }
        let operators = thread::scope(|scope| {
            let starting: Vec<_> = (0..CLUSTER_OF.len())
                .map(|number| {
                    let ledger = &ledger;
                    scope.spawn(move || operator(number, ledger))
                })
                .collect();
            starting.into_iter().map(|starting| starting.join().unwrap()).collect()
        });
        let settings = [("LEDGER_CONN", ledger.as_str()), ("SYNC_TIME", "60 seconds")];
        let query = Operator::start_script("network/query.al", &settings);
        let home = tempfile::tempdir().unwrap();
        let mut oracle = Oracle::new(&home.path().join("all.db"));
        let mut first = Oracle::new(&home.path().join("first.db"));
        let own: Vec<Part> = parts.iter().filter(|part| part.cluster == 0).copied().collect();
        thread::scope(|scope| {
            let operators: &Vec<Operator> = &operators;
            for (operator, cluster) in operators.iter().zip(CLUSTER_OF) {
                let parts = parts.iter().filter(move |part| part.cluster == cluster);
                scope.spawn(move || parts.for_each(|part| load(operator, part)));
            }
            parts.iter().for_each(|part| oracle.insert(part));
            own.iter().for_each(|part| first.insert(part));
        });
        let network = Self { operators, query, _master: master, oracle, first, _home: home };
        network.wait_for_tables(parts);
        network
    }

    /// The clusters that have a table travel with the ledger.
    fn wait_for_tables(&self, parts: &[Part]) {
        let members = |part: &Part| CLUSTER_OF.iter().filter(|cluster| **cluster == part.cluster).count();
        eventually("the query node knows where the tables are", || {
            let nodes = self.query.get("get data nodes where dbms = plant and format = json");
            let nodes: Value = serde_json::from_str(&nodes.body).ok()?;
            let nodes = nodes.as_array()?;
            let known = |table: Table| {
                let expected: usize = parts.iter().filter(|part| part.table == table).map(members).sum();
                nodes.iter().filter(|node| node["Table"] == table.name()).count() == expected
            };
            Table::ALL.into_iter().all(known).then_some(())
        });
    }

    /// The answer of the query node to `sql plant <options> "<select>"` over the network, with further headers.
    pub(crate) fn ask(&self, options: &str, select: &str, headers: &[&str]) -> Answer {
        let quote = super::statements::quote(select);
        let command = format!("command: sql plant {options} {quote}{select}{quote}");
        let mut all = vec!["destination: network", command.as_str()];
        all.extend(headers);
        self.query.request("GET", &all, "")
    }

    /// Waits until every cluster answers again.
    pub(crate) fn wait_for_answers(&self) {
        eventually("all clusters answer", || {
            (self.ask("format = json", "select count(*) as n from readings", &[]).status == 200).then_some(())
        });
    }

    pub(crate) fn address(&self, operator: usize) -> String {
        format!("127.0.0.1:{}", self.operators[operator].tcp)
    }
}

fn operator(number: usize, ledger: &str) -> Operator {
    let cluster = usize::try_from(CLUSTER_OF[number]).unwrap();
    let (node, name) = (format!("operator-{number}"), format!("cluster-{cluster}"));
    let main = (number < 3).to_string();
    let settings = [
        ("LEDGER_CONN", ledger),
        ("NODE_NAME", &node),
        ("CLUSTER_NAME", &name),
        ("MAIN", &main),
        ("PARTITION_COLUMN", "timestamp"),
        ("PARTITION_INTERVAL", INTERVALS[cluster]),
        ("PARTITION_KEEP", "100000"),
        ("SYNC_TIME", "60 seconds"),
    ];
    Operator::start_script("network/operator.al", &settings)
}

/// Gives an operator its rows. The members of a cluster get the same files.
fn load(operator: &Operator, part: &Part) {
    let mut stored = 0;
    let mode = if part.cluster == 2 { "mode: file" } else { "mode: streaming" };
    let table = format!("table: {}", part.table.name());
    let headers = ["type: json", "dbms: plant", table.as_str(), mode, "Content-Type: text/plain"];
    while stored < part.rows {
        let end = part.rows.min(stored + piece(part));
        let answer = operator.request("PUT", &headers, &rows::body(part, stored..end)).ok();
        assert!(answer.contains("Success"), "{answer}");
        stored = end;
    }
    let count = format!("sql plant format = json and stat = false \"select count(*) as n from {}\"", part.table.name());
    eventually("all rows are there", || {
        let answer: Value = serde_json::from_str(&operator.get(&count).body).ok()?;
        (answer["Query"][0]["n"] == part.rows).then_some(())
    });
}
