//! `committed = true` over clusters of several members, which hold different rows of the files that not all of them have.

use std::collections::BTreeMap;

use anylog_ledger::Destinations;
use anylog_query::Committed;
use parking_lot::Mutex;

use super::*;
use crate::world::store_of;

/// A row, and the file that it came with: the member that produced it and its number there.
type Filed = (Reading, (i64, i64));

/// What a member knows of the others, and how many files it lacks itself.
#[derive(Debug, Default)]
struct Known {
    upto: Mutex<Option<Vec<(i64, i64)>>>,
    behind: Mutex<Option<u64>>,
}

impl Committed for Known {
    fn upto(&self) -> Option<Vec<(i64, i64)>> {
        self.upto.lock().clone()
    }

    fn behind(&self) -> Option<u64> {
        *self.behind.lock()
    }
}

/// A net of clusters, each with the rows of its members, who know who they are and may be told what the others have.
struct Cluster {
    net: Net,
    known: Vec<Arc<Known>>,
}

impl Cluster {
    fn new(clusters: &[Vec<Vec<Filed>>]) -> Self {
        let empty: Vec<(Vec<Reading>, usize)> = clusters.iter().map(|members| (Vec::new(), members.len())).collect();
        let net = Net::new(&empty);
        let policies: Vec<Arc<Policy>> = net.service.ledger().policies("*");
        let mut known = Vec::new();
        for ((address, operator), rows) in net.operators.iter().zip(clusters.iter().flatten()) {
            let ledger = operator.service.ledger();
            for policy in &policies {
                runtime().block_on(ledger.add(Policy::clone(policy))).unwrap();
            }
            let id = ledger.view().operator_at(address).unwrap().id.clone();
            ledger.set_own_operator(&id).unwrap();
            hold(&operator.catalog, rows);
            let knows = Arc::new(Known::default());
            operator.service.set_committed(Arc::clone(&knows) as _);
            known.push(knows);
        }
        Self { net, known }
    }

    fn tell(&self, operator: usize, upto: &[(i64, i64)]) {
        *self.known[operator].upto.lock() = Some(upto.to_vec());
    }

    fn ask(&self, sql: &str) -> Result<Vec<Vec<Cell>>, QueryError> {
        let network = Some(Network::default());
        self.net.ask_for(Request { network, committed: true, ..Request::new("d", sql) })
    }

    /// The same at one operator, without the network.
    fn ask_at(&self, operator: usize, sql: &str) -> Result<Vec<Vec<Cell>>, QueryError> {
        let service = &self.net.operators[operator].1.service;
        runtime().block_on(async {
            let mut answer = service.select(Request { committed: true, ..Request::new("d", sql) }).await?;
            let mut rows = Vec::new();
            while let Some(more) = answer.next().await {
                rows.extend(more?);
            }
            Ok(rows)
        })
    }
}

fn hold(catalog: &Catalog, rows: &[Filed]) {
    let database = catalog.get("d").unwrap();
    let dbms = database.dbms();
    dbms.create_table(&schema()).unwrap();
    let days = Partitioning::new("timestamp", 1, PartitionUnit::Day).unwrap();
    let mut placed: BTreeMap<(String, (i64, i64)), Vec<&Reading>> = BTreeMap::new();
    for (row, file) in rows {
        placed.entry((days.name("t", row.time), *file)).or_default().push(row);
    }
    for ((partition, file), rows) in placed {
        dbms.create_partition(&schema(), &partition).unwrap();
        store_of(dbms, &Target::partition("t", &partition), Some(file), rows.into_iter());
    }
}

#[test]
fn committed_rows_are_those_that_all_members_have() {
    // QRY-1: as one database answers that holds only these rows.
    let drawn = readings().prop_flat_map(|rows| {
        let count = rows.len();
        let files = proptest::collection::vec((1i64..3, 1i64..6), count);
        // Which members have a row of a file that not all have.
        let somewhere = proptest::collection::vec(0u8..8, count);
        (Just(rows), files, somewhere)
    });
    let drawn = (drawn, 0i64..6, 0i64..6, proptest::collection::vec(statements(), 12), 0usize..4);
    let default = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { default.cases } else { 8 };
    let mut runner = TestRunner::new(ProptestConfig { cases, max_shrink_iters: 30, ..default });
    let outcome = runner.run(&drawn, |((rows, files, somewhere), first, second, statements, away)| {
        let upto = [(1, first), (2, second)];
        let is_committed = |file: &(i64, i64)| upto.iter().any(|(member, last)| *member == file.0 && file.1 <= *last);
        let filed: Vec<Filed> = rows.into_iter().zip(files).collect();
        let (alone, shared) = filed.split_at(filed.len() / 4);
        let of_member = |member: u32| -> Vec<Filed> {
            let here = |((_, file), at): &(&Filed, &u8)| is_committed(file) || *at >> member & 1 == 1;
            shared.iter().zip(&somewhere).filter(here).map(|(row, _)| row.clone()).collect()
        };
        let cluster = Cluster::new(&[vec![alone.to_vec()], (0..3).map(of_member).collect()]);
        (1..4).for_each(|operator| cluster.tell(operator, &upto));
        if away > 0 {
            cluster.net.cut(&cluster.net.operators[away].0);
        }
        // All rows of the cluster of one member, and the committed ones of the other.
        let expected = shared.iter().filter(|(_, file)| is_committed(file)).chain(alone).map(|(row, _)| row.clone());
        let world = World::by_day(&expected.collect::<Vec<_>>());
        let committed = shared.iter().filter(|(_, file)| is_committed(file)).map(|(row, _)| row.clone());
        let shared_world = World::by_day(&committed.collect::<Vec<_>>());
        for (sql, ordered) in statements {
            let fail = |error: QueryError| TestCaseError::fail(format!("{sql}: {error}"));
            let plain = world.ask("plain", &sql).map_err(fail)?;
            let spread = cluster.ask(&sql).map_err(fail)?;
            prop_assert_eq!(sorted(&spread, ordered), sorted(&plain, ordered), "{}", &sql);
            let plain = shared_world.ask("plain", &sql).map_err(fail)?;
            let local = cluster.ask_at(3, &sql).map_err(fail)?;
            prop_assert_eq!(sorted(&local, ordered), sorted(&plain, ordered), "{} at one operator", &sql);
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// Rows that are equal but for their file, of which there are four.
fn equal_rows(files: std::ops::RangeInclusive<i64>) -> Vec<Filed> {
    files
        .flat_map(|file| {
            (0..500).map(move |n| {
                let time = format!("2026-11-{:02}T00:00:00Z", 20 + n % 3);
                (Reading::at(&time, f64::from(n % 5), "device", i64::from(n % 7), true), (1, file))
            })
        })
        .collect()
}

#[test]
fn a_member_that_takes_over_answers_for_the_same_files() {
    // QRY-3: what members know of each other differs while files are confirmed.
    let (all, more) = (equal_rows(1..=3), equal_rows(1..=4));
    let world = World::by_day(&all.iter().map(|(row, _)| row.clone()).collect::<Vec<_>>());
    // Up to the head of the answer, and beyond.
    for bytes in [30, 3_000, 20_000] {
        let cluster = Cluster::new(&[vec![all.clone(), more.clone()]]);
        cluster.tell(0, &[(1, 3)]);
        cluster.tell(1, &[(1, 1)]);
        cluster.net.operators[0].1.breaks_after.store(bytes, Ordering::Relaxed);
        for (sql, ordered) in [
            ("select timestamp, value, count from t", false),
            ("select timestamp, value from t order by timestamp, value", true),
            ("select value, count(*), sum(count) from t group by value order by value", true),
        ] {
            let found = cluster.ask(sql).unwrap_or_else(|error| panic!("{sql} after {bytes}: {error}"));
            let expected = world.ask("plain", sql).unwrap();
            assert!(sorted(&found, ordered) == sorted(&expected, ordered), "{sql} after {bytes}");
        }
    }
}

#[test]
fn a_member_that_lost_files_since_does_not_take_over_for_them() {
    // QRY-3: the first one has not heard yet that the second one came back with an empty disk.
    let (all, left) = (equal_rows(1..=3), equal_rows(1..=1));
    let (stream, sorted, merged) =
        ("select value from t", "select value from t order by value", "select count(*) from t");
    for (bytes, sql) in [(30, stream), (30, sorted), (30, merged), (3_000, stream), (3_000, sorted)] {
        let cluster = Cluster::new(&[vec![all.clone(), left.clone()]]);
        cluster.tell(0, &[(1, 3)]);
        cluster.tell(1, &[(1, 1)]);
        *cluster.known[1].behind.lock() = Some(2);
        cluster.net.operators[0].1.breaks_after.store(bytes, Ordering::Relaxed);
        let found = cluster.ask(sql).map(|rows| rows.len());
        let error = found.expect_err(sql).to_string();
        assert!(error.contains("lacks 2 files"), "{sql} after {bytes}: {error}");
    }
}

#[test]
fn a_member_that_does_not_know_is_replaced_by_one_that_does() {
    // QRY-3, R24
    let rows = equal_rows(1..=2);
    let cluster = Cluster::new(&[vec![rows.clone(), rows.clone(), rows]]);
    let net = &cluster.net;
    let count =
        "run client () sql d committed = true and format=json:list and stat=false \"select count(*) as n from t\"";
    let error = net.run(count).unwrap_err();
    assert!(error.starts_with("192 "), "{error}");
    assert!(error.contains("3 members of the cluster 'c0'") && error.contains("run data distributor"), "{error}"); // R25
    assert!(error.contains("leave committed out"), "{error}");
    assert!(net.run(&count.replace("committed = true and ", "")).unwrap().contains(r#""n":1000"#));
    cluster.tell(2, &[(1, 1)]);
    assert_eq!(net.run(count).unwrap(), r#"[{"n":500}]"#);
    assert!(net.run("query status").unwrap().contains("10.0.0.2:2003"), "it says who answered");
    // One that knows of no file yet is believed.
    cluster.tell(0, &[]);
    assert_eq!(net.run(count).unwrap(), r#"[{"n":0}]"#);
    // A member that the cluster lost is waited for no longer.
    let own = net.operators[0].1.service.ledger();
    let mates: Vec<String> =
        own.view().operators_of("c0").filter(|mate| mate.member > 1).map(|mate| mate.id.clone()).collect();
    for mate in mates {
        runtime().block_on(own.delete(&mate, &Destinations::local())).unwrap();
    }
    assert_eq!(net.run(count).unwrap(), r#"[{"n":1000}]"#);
}
