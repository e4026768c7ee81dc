//! Questions for the rows that all members have, while some lack a part.

use std::time::Duration;

use serde_json::Value;

use super::check::converge;
use super::http::request;
use super::load::put_rows;
use super::network::{Cluster, DBMS, Reach, table};
use super::node::eventually;
use super::record::Record;

/// The count of a table's rows as the query node answers.
fn count(cluster: &Cluster, committed: bool) -> Result<u64, String> {
    let select = "select count(*) as n from plain";
    let command = format!("sql {DBMS} format=json and stat=false and committed={committed} \"{select}\"");
    let headers = [("command", command.as_str()), ("destination", "network")];
    let answer = request(cluster.query.ports().rest, "GET", &headers, "", Duration::from_secs(30)).unwrap();
    let value: Option<Value> = serde_json::from_str(&answer.body).ok();
    value.and_then(|value| value["Query"][0]["n"].as_u64()).ok_or(answer.body)
}

// R24: rows count as committed when the last member has them; a member that was started since does not know that of one that is
// down, and leaves the answer to one that does.
#[test]
fn committed_rows_are_those_that_every_member_has() {
    let mut cluster = Cluster::start(3, Reach::Direct);
    let record = Record::default();
    let put = |cluster: &Cluster, member: usize| {
        assert!(put_rows(&record, cluster.members[member].ports().rest, table("plain"), member, 40));
    };
    put(&cluster, 0);
    put(&cluster, 1);
    converge(&cluster, &record, 0, "before a member goes");
    let before = eventually("all rows are committed", || {
        let all = count(&cluster, false).ok()?;
        (count(&cluster, true).ok()? == all).then_some(all)
    });
    cluster.members[2].kill();
    put(&cluster, 0);
    let all = eventually("the others have the new rows", || {
        let all = count(&cluster, false).ok()?;
        cluster.members[0].post("flush buffers");
        let held =
            |member: &super::node::Node| member.rows(DBMS, "select count(*) as n from plain").ok()?[0]["n"].as_u64();
        (all > before && cluster.members[..2].iter().all(|member| held(member) == Some(all))).then_some(all)
    });
    assert_eq!(count(&cluster, true), Ok(before), "one member lacks the rows that came since");
    // The member that is asked first forgets what it heard of the one that is down.
    cluster.members[0].kill();
    cluster.spawn(0);
    cluster.members[0].ready();
    assert_eq!(count(&cluster, true), Ok(before));
    assert_eq!(count(&cluster, false), Ok(all));
    cluster.spawn(2);
    cluster.members[2].ready();
    eventually("the new rows are committed", || (count(&cluster, true) == Ok(all)).then_some(()));
    // A cluster whose members know nothing of each other does not say that its rows are committed.
    cluster.members[1].kill();
    cluster.members[2].kill();
    cluster.members[0].kill();
    cluster.spawn(0);
    cluster.members[0].ready();
    assert_eq!(count(&cluster, false), Ok(all));
    let error = count(&cluster, true).unwrap_err();
    assert!(error.contains("3 members") && error.contains("not known"), "{error}");
}
