//! Over nodes that reach each other in process.

mod behind;
mod committed;
mod limits;
mod members;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anylog_core::reply::Chunks;
use anylog_core::{Caller, CommandError, Node, Reply, Session};
use anylog_dbms::{Catalog, ConnectRequest, PartitionUnit, Partitioning, Target};
use anylog_ledger::{Ledger, Policy};
use anylog_net::peers::LocalPeers;
use anylog_net::{PeerReply, PeerRequest, PeerService};
use anylog_query::{Cell, Network, QueryError, QueryService, Request};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::json;

use crate::world::{Reading, World, readings, runtime, schema, sorted, statements, store};

/// Clusters by their members; the rows of a cluster are on each of its members.
struct Net {
    peers: Arc<LocalPeers>,
    operators: Vec<(String, Arc<Operator>)>,
    service: Arc<QueryService>,
    node: Arc<Node>,
    _homes: Vec<tempfile::TempDir>,
}

/// A node that answers, and may break off.
struct Operator {
    node: Arc<Node>,
    catalog: Arc<Catalog>,
    service: Arc<QueryService>,
    /// Bytes after which an answer breaks off.
    breaks_after: AtomicUsize,
    /// Says nothing.
    mute: AtomicBool,
}

impl Operator {
    async fn run(&self, text: &str) -> Result<Reply, CommandError> {
        if self.mute.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        Session::new(Arc::clone(&self.node), Caller::embedded()).execute(text).await
    }
}

#[async_trait]
impl PeerService for Operator {
    async fn answer(&self, _: SocketAddr, request: PeerRequest) -> Result<PeerReply, CommandError> {
        let PeerRequest::Command { text } = request else { return Err(CommandError::process("another question")) };
        Ok(PeerReply::Text(self.run(&text).await?.into_text().await?))
    }

    async fn stream(&self, _: SocketAddr, request: PeerRequest) -> Result<Chunks, CommandError> {
        let PeerRequest::Command { text } = request else { return Err(CommandError::process("another question")) };
        let Reply::Stream { chunks, .. } = self.run(&text).await? else {
            return Err(CommandError::process("not a stream"));
        };
        let mut left = self.breaks_after.load(Ordering::Relaxed);
        let broken = chunks.flat_map(move |chunk| {
            let pieces: Vec<Result<Bytes, CommandError>> = match chunk {
                Ok(bytes) if bytes.len() <= left => {
                    left -= bytes.len();
                    vec![Ok(bytes)]
                }
                Ok(bytes) => {
                    let piece = bytes.slice(..left);
                    left = 0;
                    vec![Ok(piece), Err(CommandError::new(anylog_core::Status::NETWORK, "the connection broke"))]
                }
                Err(error) => vec![Err(error)],
            };
            futures_util::stream::iter(pieces)
        });
        Ok(broken.boxed())
    }
}

type Parts = (Arc<Node>, Arc<Catalog>, Arc<Ledger>, Arc<QueryService>, tempfile::TempDir);

fn node_at(peers: &Arc<LocalPeers>, address: &str) -> Parts {
    let home = tempfile::tempdir().unwrap();
    let node = Node::builder().home(home.path()).build();
    node.set_address(Some(address.to_owned()));
    let catalog = Catalog::new(Arc::clone(&node));
    let ledger = Ledger::new(Arc::clone(&node), Arc::clone(&catalog), Arc::clone(peers) as _);
    let service =
        QueryService::new(Arc::clone(&node), Arc::clone(&catalog), Arc::clone(&ledger), Arc::clone(peers) as _);
    node.registry.register_all(anylog_query::commands(Arc::clone(&service))).unwrap();
    node.registry.register_all(anylog_ledger::commands::commands(&ledger)).unwrap();
    ledger.set_network_sql(anylog_query::network_sql(Arc::clone(&service)));
    (node, catalog, ledger, service, home)
}

impl Net {
    /// Each cluster with its rows and the number of its members.
    fn new(clusters: &[(Vec<Reading>, usize)]) -> Self {
        let peers = LocalPeers::new();
        let (node, _, ledger, service, home) = node_at(&peers, "10.0.0.1:1000");
        let mut homes = vec![home];
        let mut operators = Vec::new();
        let add = |policy: serde_json::Value| {
            runtime().block_on(ledger.add(Policy::from_value(policy).unwrap())).unwrap();
        };
        add(json!({"table": {"name": "t", "dbms": "d", "create": anylog_dbms::schema::create_text(&schema())}}));
        for (index, (rows, members)) in clusters.iter().enumerate() {
            let cluster = format!("c{index}");
            add(json!({"cluster": {"id": cluster, "name": cluster, "company": "co",
                "table": [{"dbms": "d", "name": "t"}, {"dbms": "d", "name": "u"}]}}));
            for member in 1..=*members {
                let port = 2000 + index * 10 + member;
                let address = format!("10.0.0.2:{port}");
                add(
                    json!({"operator": {"name": format!("o{port}"), "company": "co", "cluster": cluster, "ip": "10.0.0.2",
                    "port": port, "member": member, "main": member == 1}}),
                );
                let (node, catalog, _, service, home) = node_at(&peers, &address);
                node.dictionary.set("site", format!("s{index}"));
                fill(&catalog, home.path(), rows);
                let operator = Arc::new(Operator {
                    node,
                    catalog,
                    service,
                    breaks_after: AtomicUsize::new(usize::MAX),
                    mute: AtomicBool::new(false),
                });
                peers.add(address.clone(), Arc::clone(&operator) as _);
                operators.push((address, operator));
                homes.push(home);
            }
        }
        Self { peers, operators, service, node, _homes: homes }
    }

    fn ask(&self, sql: &str) -> Result<Vec<Vec<Cell>>, QueryError> {
        self.ask_with(sql, Network::default())
    }

    fn ask_with(&self, sql: &str, network: Network) -> Result<Vec<Vec<Cell>>, QueryError> {
        self.ask_for(Request { network: Some(network), ..Request::new("d", sql) })
    }

    fn ask_for(&self, request: Request) -> Result<Vec<Vec<Cell>>, QueryError> {
        runtime().block_on(async {
            let mut answer = self.service.select(request).await?;
            let mut rows = Vec::new();
            while let Some(more) = answer.next().await {
                rows.extend(more?);
            }
            Ok(rows)
        })
    }

    fn run(&self, line: &str) -> Result<String, String> {
        runtime().block_on(async {
            let mut session = Session::new(Arc::clone(&self.node), Caller::embedded());
            let reply = session.execute(line).await.map_err(|error| format!("{} {error}", error.status.0))?;
            reply.into_text().await.map_err(|error| format!("late {} {error}", error.status.0))
        })
    }

    fn cut(&self, address: &str) {
        self.peers.set_reachable(address, false);
    }
}

impl Drop for Net {
    // Commands and node hold each other: the files are given back by hand.
    fn drop(&mut self) {
        for (_, operator) in &self.operators {
            operator.catalog.disconnect("d").ok();
        }
    }
}

/// A table in partitions by day. Without rows the table is not there yet, as on an operator that got no data.
fn fill(catalog: &Catalog, home: &std::path::Path, rows: &[Reading]) {
    let database = catalog.connect(ConnectRequest::sqlite("d", home)).unwrap();
    let dbms = database.dbms();
    if rows.is_empty() {
        return;
    }
    dbms.create_table(&schema()).unwrap();
    let days = Partitioning::new("timestamp", 1, PartitionUnit::Day).unwrap();
    let mut names: Vec<String> = rows.iter().map(|row| days.name("t", row.time)).collect();
    names.sort();
    names.dedup();
    for name in names {
        dbms.create_partition(&schema(), &name).unwrap();
        store(dbms, &Target::partition("t", &name), rows.iter().filter(|row| days.name("t", row.time) == name));
    }
}

fn some_rows() -> Vec<Reading> {
    let devices = ["d1", "d2", "ünï"];
    (0..60i64)
        .map(|n| {
            let time = format!("2026-11-{:02}T{:02}:{:02}:{:02}.{:06}Z", 20 + n % 3, n % 24, n, (n * 7) % 60, n);
            let index = usize::try_from(n % 3).unwrap();
            let mut row = Reading::at(&time, f64::from(i32::try_from(n).unwrap()) / 4.0, devices[index], n, n % 2 == 0);
            if n % 10 == 3 {
                row.value = None;
            }
            row
        })
        .collect()
}

/// The same rows in three clusters, the last of two members, and in one database.
fn three_clusters() -> (Net, World) {
    let rows = some_rows();
    let part = |index: usize| -> Vec<Reading> {
        rows.iter().enumerate().filter(|(n, _)| n % 3 == index).map(|(_, row)| row.clone()).collect()
    };
    (Net::new(&[(part(0), 1), (part(1), 1), (part(2), 2)]), World::by_day(&rows))
}

/// Statements that the property test does not draw, and whether they order their rows.
const STATEMENTS: [(&str, bool); 33] = [
    ("select device, stddev(value), var_pop(count), avg(value) from t group by device order by device", true),
    ("select round(stddev(value), 6) as s, variance(count) as v, stddev_pop(value) from t where device = 'd1'", false),
    (
        "select device, count(distinct value) * 2 as n, count(distinct count) from t group by device order by n, device",
        true,
    ),
    ("select increments(hour, 2, timestamp), max(timestamp) as timestamp, avg(value) as value from t", true),
    (
        "select increments(minute, 30, timestamp), max(timestamp) as timestamp, avg(value) as value from t where timestamp > '2026-11-20T12:00:00Z' limit 5",
        true,
    ),
    ("select device, sum(count) as value from t group by device order by value desc", true),
    ("select min(timestamp) as timestamp, device from t group by device order by timestamp desc", true),
    ("select max(count) as g0, device as a0 from t group by device order by device", true),
    ("select value from t where value is null or value = 0.25 order by value", true),
    ("select timestamp, value, device, count, ok from t where device = 'ünï'", false),
    ("select device as value, value as device from t order by value, device limit 7", true),
    ("select value from t order by timestamp desc limit 5 offset 3", true),
    ("select count, device from t order by device desc, count", true),
    ("select count from t order by value desc, count limit 10", true),
    ("select avg(value)::float(2) as v, device from t group by device order by device", true),
    ("select count(distinct device), count(*), count(value) from t", false),
    ("select device, count(distinct ok) from t group by device order by device", true),
    ("select distinct device, ok from t order by device, ok", true),
    ("select increments(second, 7, timestamp), min(timestamp), count(*) from t", true),
    ("select increments(minute, 15, timestamp), max(value), min(timestamp) from t", true),
    ("select increments(hour, 6, timestamp), device, avg(value), min(timestamp) from t group by device", false),
    ("select increments(day, 2, timestamp), sum(count) from t where value > 3", true),
    ("select increments(week, 1, timestamp), count(*) from t", true),
    ("select increments(month, 1, timestamp), count(*) from t", true),
    (
        "select increments(timestamp, 20), count(*), min(timestamp) from t where timestamp >= '2026-11-20' and timestamp < '2026-11-23'",
        true,
    ),
    ("select timestamp, value from t where period(hour, 12, '2026-11-22', timestamp)", false),
    ("select count(*), max(timestamp) from t where period(day, 1, now(), timestamp, and device = 'd2')", false),
    ("select value from t where period(day, 1, '2020-01-01', timestamp)", false),
    ("select device, value from t order by value desc, device limit 2 per device", true),
    ("select count(*), sum(value), min(device) from t where value > 9999", false),
    ("select device, row_number() over (order by count) as n from t order by n limit 5", true),
    (
        "select date_trunc('day', timestamp) as day, extract(hour from timestamp) as h, count(*) from t group by day, h having count(*) > 1 order by day, h",
        true,
    ),
    (
        "select count(*) from t where not (device like 'd%' or value between 2 and 4) and (count + 1 - 2 + 3) * 2 % 7 <> 1",
        false,
    ),
];

#[test]
fn an_answer_over_nodes_is_that_of_one_database() {
    // QRY-1
    let (net, world) = three_clusters();
    for (sql, ordered) in STATEMENTS {
        let plain = world.ask("plain", sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        let spread = net.ask(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert_eq!(sorted(&spread, ordered), sorted(&plain, ordered), "{sql}");
    }
    let all = net.ask("select * from t").unwrap();
    assert_eq!((all.len(), all[0].len()), (60, 9));
}

#[test]
fn any_statement_over_any_nodes_is_that_of_one_database() {
    // QRY-1
    let placed = readings().prop_flat_map(|rows| {
        let places = proptest::collection::vec(0usize..3, rows.len());
        (Just(rows), places)
    });
    let drawn = prop_oneof![statements(), dialect()];
    // One member of the cluster that has two may be away.
    let worlds = (placed, proptest::collection::vec(drawn, 30), proptest::option::of(2011usize..2013));
    // A failing case is printed with its rows and statements; more are drawn with PROPTEST_CASES.
    let default = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { default.cases } else { 12 };
    let mut runner = TestRunner::new(ProptestConfig { cases, max_shrink_iters: 30, ..default });
    let outcome = runner.run(&worlds, |((rows, places), statements, away)| {
        let of = |cluster: usize| -> Vec<Reading> {
            rows.iter().zip(&places).filter(|(_, place)| **place == cluster).map(|(row, _)| row.clone()).collect()
        };
        let net = Net::new(&[(of(0), 1), (of(1), 2), (of(2), 1)]);
        if let Some(away) = away {
            net.cut(&format!("10.0.0.2:{away}"));
        }
        let world = World::by_day(&rows);
        for (sql, ordered) in statements {
            let plain = world.ask("plain", &sql).map_err(|error| TestCaseError::fail(format!("{sql}: {error}")))?;
            let spread = net.ask(&sql).map_err(|error| TestCaseError::fail(format!("{sql}: {error}")))?;
            prop_assert_eq!(sorted(&spread, ordered), sorted(&plain, ordered), "{}", sql);
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// What the dialect adds to SQL.
fn dialect() -> impl Strategy<Value = (String, bool)> {
    let select = |list: Vec<&'static str>| proptest::sample::select(list);
    let filter = select(vec![
        "",
        " where value > 1",
        " where device <> 'it''s' and (count > 1 or ok is null)",
        " where timestamp >= '2026-10-28' and timestamp < '2026-11-08T12:00:00Z'",
        " where device is null or lower(device) = 'd3'",
        " where not (value between -10 and 10) or count % 3 = 1",
        " where value > 5000000",
    ]);
    let unit = select(vec!["second", "minute", "hour", "day", "week", "month", "year", "hours", "days"]);
    let period = (
        select(vec!["hour", "day", "week", "month"]),
        1u32..4,
        select(vec!["now()", "'2026-11-03'", "'2026-10-31T10:00:00Z'"]),
    );
    let kept = select(vec!["", ", and value > 0", ", and device = 'd1' and count < 5"]);
    let limit = select(vec!["", " limit 1", " limit 4", " limit 3 offset 2", " limit 0"]);
    let aggregates = select(vec![
        "count(*)",
        "avg(value)::float(3) as v, count(value)",
        "max(timestamp), min(device), range(count)",
        "sum(value) / count(*) as mean, avg(value) * 2 as twice",
        "count(distinct device), count(distinct count)",
        "min(timestamp)::datetime(%Y-%m-%d) as day, max(ok)",
    ]);
    let order = select(vec![
        "device desc, timestamp, count, value",
        "value nulls last, timestamp, count, device",
        "abs(value) desc, timestamp, count, device",
        "ok, count desc, timestamp, value, device",
        "timestamp desc, count, value, device",
    ]);
    prop_oneof![
        (unit, 1u32..40, filter.clone(), aggregates.clone(), limit.clone()).prop_map(|(unit, n, filter, list, limit)| {
            (format!("select increments({unit}, {n}, timestamp), {list} from t{filter}{limit}"), true)
        }),
        (filter.clone(), aggregates.clone()).prop_map(|(filter, list)| {
            (format!("select increments(hour, 7, timestamp), device, {list} from t{filter} group by device order by device"), true)
        }),
        (period, kept, aggregates.clone()).prop_map(|((unit, n, at, ), kept, list)| {
            (format!("select {list} from t where period({unit}, {n}, {at}, timestamp{kept})"), false)
        }),
        (filter.clone(), order, limit.clone()).prop_map(|(filter, order, limit)| {
            (format!("select timestamp, value::str as shown, device, count::float(%1) as c from t{filter} order by {order}{limit}"), true)
        }),
        filter.clone().prop_map(|filter| {
            (format!("select device, count, value from t{filter} order by count, value, device, timestamp limit 2 per device"), true)
        }),
        (filter.clone(), aggregates, limit).prop_map(|(filter, list, limit)| {
            let group = "upper(coalesce(device, 'none'))";
            (format!("select {group} as name, {list} from t{filter} group by {group} having count(*) > 1 order by name desc{limit}"), true)
        }),
        filter.prop_map(|filter| (format!("select distinct device, count % 2 = 0 as even from t{filter} order by even, device limit 4"), true)),
    ]
}

const COUNT: &str = "run client () sql d format=json:list \"select count(*) as n from t\"";

#[test]
fn a_failed_operator_is_replaced_by_a_member_of_its_cluster() {
    // QRY-3
    let (net, _) = three_clusters();
    let complete = r#"[{"n":60},
{"Statistics":[{"Count": 1,"Time":"00:00:00","Nodes": 3}]}]"#;
    net.cut("10.0.0.2:2021");
    assert_eq!(net.run(COUNT).unwrap(), complete);
    // It is known by now and not asked first.
    let status = net.run("query status").unwrap();
    assert!(status.contains("10.0.0.2:2022"), "{status}");
    assert_eq!(net.run(COUNT).unwrap(), complete);
}

#[test]
fn an_operator_that_breaks_off_is_replaced_and_no_row_comes_twice() {
    // QRY-3
    for bytes in [0, 3, 9, 20, 40, 70, 100] {
        let (net, world) = three_clusters();
        let (_, main) = &net.operators[2];
        main.breaks_after.store(bytes, Ordering::Relaxed);
        let sql = "select device, count(*), avg(value) from t group by device order by device";
        assert_eq!(sorted(&net.ask(sql).unwrap(), true), sorted(&world.ask("plain", sql).unwrap(), true), "{bytes}");
        // Another member goes on where rows stream.
        for (sql, ordered) in [
            ("select count from t", false),
            ("select device from t", false),
            ("select device, value from t order by device, value", true),
            ("select value, ok from t order by timestamp desc, count", true),
        ] {
            assert_eq!(
                sorted(&net.ask(sql).unwrap(), ordered),
                sorted(&world.ask("plain", sql).unwrap(), ordered),
                "{sql}"
            );
        }
    }
}

#[test]
fn a_long_stream_is_taken_over_in_the_middle() {
    // QRY-3: many rows are equal, and come as often as they are there.
    let rows: Vec<Reading> = (0..20_000i64)
        .map(|n| {
            let time = format!("2026-11-{:02}T00:{:02}:00Z", 20 + n % 3, n % 60);
            Reading::at(&time, f64::from(i32::try_from(n % 7).unwrap()), "device", n % 50, n % 2 == 0)
        })
        .collect();
    let net = Net::new(&[(rows.clone(), 3)]);
    let world = World::by_day(&rows);
    for bytes in [1_000, 30_000, 100_000, 250_000] {
        for (sql, ordered) in [
            ("select value, device, count, ok from t", false),
            ("select row_id, device, count from t", false),
            ("select value, count from t order by count, value", true),
            ("select value, count from t order by count desc, value limit 9000 offset 100", true),
            ("select count(distinct count), count(distinct value), sum(count) from t", true),
            ("select count, row_number() over (order by count, value, timestamp, ok) as n from t order by n", true),
        ] {
            // Two of three break off; who is asked first takes turns.
            for (at, (_, operator)) in net.operators.iter().enumerate() {
                operator.breaks_after.store(if at < 2 { bytes } else { usize::MAX }, Ordering::Relaxed);
            }
            let network = Network { main: false, ..Network::default() };
            let found = net.ask_with(sql, network).unwrap_or_else(|error| panic!("{sql} after {bytes}: {error}"));
            let keep = |rows: Vec<Vec<Cell>>| -> Vec<Vec<Cell>> {
                if !sql.contains("row_id") {
                    return rows;
                }
                rows.into_iter().map(|row| row[1..].to_vec()).collect()
            };
            let expected = keep(world.ask("plain", sql).unwrap());
            assert!(sorted(&keep(found), ordered) == sorted(&expected, ordered), "{sql} after {bytes}");
        }
    }
}

#[test]
fn a_missing_cluster_is_an_error_or_named() {
    // QRY-2
    let (net, _) = three_clusters();
    net.cut("10.0.0.2:2001");
    let error = net.run(COUNT).unwrap_err();
    assert!(error.starts_with("208 No answer for a part of the data: cluster 'c0': node 10.0.0.2:2001"), "{error}");
    assert!(error.contains("subset = true"), "{error}"); // R25
    let missing = "\"Target Nodes\": 3,\"Participating Nodes\": 2,\"Missing Nodes\":[\"cluster 'c0': node 10.0.0.2:2001 cannot be reached";
    for statistics in ["true", "false"] {
        let line = COUNT.replace("()", "(subset = true)").replace("format", &format!("stat={statistics} and format"));
        let answer = net.run(&line).unwrap();
        assert!(answer.starts_with(r#"[{"n":40}"#) && answer.contains(missing), "{answer}");
        serde_json::from_str::<serde_json::Value>(&answer).unwrap();
    }
    let rows = "run client (subset=true) sql d stat=false and format=table \"select count from t where count < 3\"";
    assert!(net.run(rows).unwrap().contains("Missing Nodes"));
    net.cut("10.0.0.2:2021");
    net.cut("10.0.0.2:2022");
    let error = net.run("run client () sql d \"select count from t order by count\"").unwrap_err();
    assert!(error.contains("10.0.0.2:20"), "{error}");
}

#[test]
fn a_silent_operator_is_given_up() {
    // QRY-2, QRY-3
    let (net, _) = three_clusters();
    net.operators[2].1.mute.store(true, Ordering::Relaxed);
    let line = COUNT.replace("()", "(timeout = 1)");
    assert!(net.run(&line).unwrap().contains(r#""n":60"#));
    net.operators[0].1.mute.store(true, Ordering::Relaxed);
    assert!(net.run(&line).unwrap_err().starts_with("26 "));
    // The rows of the others wait until it is clear whether there is an answer.
    let error = net.run("run client (timeout = 1) sql d \"select count from t\"").unwrap_err();
    assert!(error.starts_with("26 "), "{error}");
    let slow = net.run("run client () sql d max_time = 1 \"select count(*) from t\"").unwrap_err();
    assert!(slow.starts_with("77 the query took longer than max_time"), "{slow}");
}

#[test]
fn nodes_may_be_named_or_take_turns() {
    let (net, _) = three_clusters();
    let count = |nodes: &str, options: &str| {
        let line =
            format!("run client ({nodes}) sql d format=json:list and stat=false{options} \"select count(*) from t\"");
        net.run(&line)
    };
    assert_eq!(count("10.0.0.2:2001", "").unwrap(), r#"[{"count(*)":20}]"#);
    assert_eq!(count("10.0.0.2:2001, 10.0.0.2:2011", "").unwrap(), r#"[{"count(*)":40}]"#);
    // Members of one cluster hold the same rows.
    assert_eq!(count("10.0.0.2:2021, 10.0.0.2:2022", "").unwrap(), r#"[{"count(*)":20}]"#);
    assert_eq!(count("dbms = d and table = t", "").unwrap(), r#"[{"count(*)":60}]"#);
    assert!(count("10.0.0.9:9", "").unwrap_err().starts_with("208 "));
    let asked = |nodes: &str| -> Vec<String> {
        (0..4)
            .map(|_| {
                count("", &format!(" and nodes = {nodes}")).unwrap();
                net.run("query status").unwrap()
            })
            .collect()
    };
    assert!(asked("main").iter().all(|status| status.contains("10.0.0.2:2021")));
    let turns = asked("all");
    assert!(turns.iter().any(|status| status.contains("10.0.0.2:2021")));
    assert!(turns.iter().any(|status| status.contains("10.0.0.2:2022")));
    assert!(count("", " and nodes = some").unwrap_err().contains("use main or all"));
}

#[test]
fn nodes_add_columns_and_tables_are_included() {
    let (net, _) = three_clusters();
    let run = |line: &str| net.run(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    assert_eq!(
        run(
            "run client () sql d format=json:list and stat=false and extend=(+site, @table_name as tbl) \"select count(*) as n from t order by site\""
        ),
        "[{\"site\":\"s0\",\"tbl\":\"t\",\"n\":20},\n{\"site\":\"s1\",\"tbl\":\"t\",\"n\":20},\n{\"site\":\"s2\",\"tbl\":\"t\",\"n\":20}]"
    );
    assert_eq!(
        run(
            "run client () sql d format=json:list and stat=false and extend=(@ip, @port) \"select ip, count from t where count = 4\""
        ),
        "[{\"ip\":\"10.0.0.2\",\"port\":\"2011\",\"count\":4}]"
    );
    // No node has the included table yet.
    net.node.dictionary.set("x", "1");
    let error = net.run("run client () sql d include=(u) \"select count(*) from t\"").unwrap_err();
    assert!(error.contains("no table 'd.u'"), "{error}");
    let other = schema();
    let columns: Vec<_> = other.columns.iter().filter(|column| column.name != "value").cloned().collect();
    for (_, operator) in &net.operators {
        let line = "sql d \"create table u (row_id integer primary key, insert_timestamp timestamp, tsd_name varchar, tsd_id integer, timestamp timestamp, device varchar, count bigint)\"";
        runtime().block_on(Session::new(Arc::clone(&operator.node), Caller::embedded()).execute(line)).unwrap();
        let line = "sql d \"insert into u (timestamp, device, count) values ('2026-11-20 00:00:00.000000', 'u1', 5)\"";
        runtime().block_on(Session::new(Arc::clone(&operator.node), Caller::embedded()).execute(line)).unwrap();
    }
    assert!(columns.len() < other.columns.len());
    assert_eq!(
        run(
            "run client () sql d format=json:list and stat=false and include=(u) and extend=(@table_name) \"select count(*), count(value), max(count) from t\""
        ),
        "[{\"table_name\":\"t\",\"count(*)\":60,\"count(value)\":54,\"max(count)\":59},\n{\"table_name\":\"u\",\"count(*)\":3,\"count(value)\":0,\"max(count)\":5}]"
    );
    assert_eq!(
        run(
            "run client () sql d format=json:list and stat=false and include=(d.u) \"select device, value from t where count = 5 order by device limit 2\""
        ),
        "[{\"device\":\"u1\",\"value\":null},\n{\"device\":\"u1\",\"value\":null}]"
    );
}

#[test]
fn rows_go_to_files_and_tables() {
    let (net, _) = three_clusters();
    let catalog = net.service.catalog();
    let file = tempfile::tempdir().unwrap();
    let path = file.path().join("rows.json");
    let line = format!(
        "run client () sql d format=json:list and stat=false and dest=file and file={} \"select count from t order by count limit 2\"",
        path.display()
    );
    assert_eq!(net.run(&line).unwrap(), r#"{"Reply": "Query output written to file", "Rows": 2}"#);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "[{\"count\":0},\n{\"count\":1}]");
    let line = "run client () sql d table=result \"select device, count(*) as n, avg(value)::float(1) as v from t group by device order by device\"";
    assert!(net.run(line).unwrap_err().starts_with("10 Local query database not available"));
    catalog.connect(ConnectRequest::sqlite_memory("system_query")).unwrap();
    assert_eq!(net.run(line).unwrap(), r#"{"Query.output.all": "Data in table 'result'"}"#);
    let kept = "sql system_query format=json:list and stat=false \"select * from result where n = 20 order by device limit 1\"";
    assert_eq!(net.run(kept).unwrap(), r#"[{"device":"d1","n":20,"v":7.4}]"#);
    net.run(&line.replace("table", "drop=false and table")).unwrap();
    assert_eq!(
        net.run("sql system_query format=json:list and stat=false \"select count(*) from result\"").unwrap(),
        r#"[{"count(*)":6}]"#
    );
    let reader = Caller::embedded().limited_to(anylog_core::Access::Read);
    let refused = runtime().block_on(Session::new(Arc::clone(&net.node), reader).execute(line)).unwrap_err();
    assert_eq!(refused.status, anylog_core::Status::UNAUTHORIZED);
}

#[test]
fn errors_over_the_network_name_the_cause() {
    // R25
    let (net, _) = three_clusters();
    for (line, expected) in [
        (
            "run client () sql d \"select vlaue from t\"",
            "46 Non supported SQL: Column 'vlaue' is not recognized in table: d.t - did you mean 'value'?",
        ),
        (
            "run client () sql d \"select value from tt\"",
            "73 Failed to identify destination nodes for 'select' command - Using DBMS: d Table: tt - did you mean 't'?",
        ),
        ("run client () sql d \"delete from t\"", "Only SELECT runs over the network"),
        ("run client (10.0.0.2:2001) sql other \"select value from t\"", "database 'other' is not connected"),
        ("run client () sql d \"select median(value) from t\"", "function 'median' is not known"),
        ("run client () sql d \"select value from t where value = (select max(value) from t)\"", "{select"),
        ("query part zz", "it is not hexadecimal"),
    ] {
        let error = net.run(line).expect_err(line);
        assert!(error.contains(expected), "{line}\n gave {error}\n want {expected}");
    }
}

#[test]
fn a_query_that_waits_for_nodes_can_be_stopped() {
    let (net, _) = three_clusters();
    net.operators[0].1.mute.store(true, Ordering::Relaxed);
    let (service, node) = (Arc::clone(&net.service), Arc::clone(&net.node));
    let asked = runtime().spawn(async move {
        let request = Request { network: Some(Network::default()), ..Request::new("d", "select count(*) from t") };
        let mut answer = service.select(request).await?;
        answer.next().await.transpose()
    });
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    let stopped = loop {
        let mut session = Session::new(Arc::clone(&node), Caller::embedded());
        let text = runtime().block_on(async { session.execute("job stop").await.unwrap().into_text().await.unwrap() });
        if text.contains("stoped") || std::time::Instant::now() > deadline {
            break text;
        }
        std::thread::yield_now();
    };
    assert_eq!(stopped, r#"{"job 1 status":"stoped"}"#);
    let started = std::time::Instant::now();
    assert_eq!(runtime().block_on(asked).unwrap(), Err(QueryError::Stopped));
    assert!(started.elapsed() < Duration::from_secs(3), "it waited for the silent node");
    assert!(net.run("query status").unwrap().contains("Error: the query was stopped"));
}

#[test]
fn a_caller_that_leaves_stops_the_nodes() {
    let rows: Vec<Reading> = (0..40_000i64)
        .map(|n| Reading::at("2026-11-20T00:00:00Z", f64::from(i32::try_from(n).unwrap()), "device", n, true))
        .collect();
    let net = Net::new(&[(rows.clone(), 1), (rows, 1)]);
    runtime().block_on(async {
        let request = Request { network: Some(Network::default()), ..Request::new("d", "select * from t") };
        let mut answer = net.service.select(request).await.unwrap();
        assert!(!answer.next().await.unwrap().unwrap().is_empty());
    });
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    for (_, operator) in &net.operators {
        loop {
            let mut session = Session::new(Arc::clone(&operator.node), Caller::embedded());
            let shown = runtime()
                .block_on(async { session.execute("get operator execution").await.unwrap().into_text().await });
            if shown.unwrap().contains("Stopped") {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "the node goes on");
            std::thread::yield_now();
        }
    }
    assert_eq!(net.ask("select count from t order by count").unwrap().len(), 80_000);
}
