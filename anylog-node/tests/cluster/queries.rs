//! Questions to a cluster that lacks a member.

use serde_json::Value;

use super::check::converge;
use super::load::put_rows;
use super::network::{Cluster, DBMS, Reach, table};
use super::node::eventually;
use super::record::Record;

/// What the query node answers.
fn answers(cluster: &Cluster) -> Vec<Result<Vec<Value>, String>> {
    let statements = [
        "select count(*) as n, sum(n) as total from kept",
        "select avg(n) as mean, count(distinct p) as producers from plain",
        "select p, count(*) as rows, min(timestamp) as first, max(n) as last from kept_days group by p order by p",
        "select n, p, timestamp from plain_days order by n",
    ];
    statements.iter().map(|statement| cluster.query.network_rows(DBMS, statement)).collect()
}

// R24, QRY-3: rows that only one member was sent are answered by its mates when it is gone, and when only one is left.
#[test]
fn mates_answer_for_what_another_was_sent() {
    let mut cluster = Cluster::start(3, Reach::Direct);
    let record = Record::default();
    for member in 0..3 {
        for name in ["kept", "kept_days", "plain", "plain_days"] {
            let port = cluster.members[member].ports().rest;
            assert!(put_rows(&record, port, table(name), member, 25));
        }
    }
    converge(&cluster, &record, 0, "before members go");
    let complete = answers(&cluster);
    assert!(complete.iter().all(Result::is_ok), "{complete:?}");
    cluster.members[0].kill();
    assert_eq!(answers(&cluster), complete);
    cluster.members[2].terminate();
    assert_eq!(answers(&cluster), complete);
    // Nobody is left.
    cluster.members[1].kill();
    assert!(answers(&cluster).iter().all(Result::is_err));
    cluster.all_ready();
    eventually("all of it is answered again", || (answers(&cluster) == complete).then_some(()));
}
