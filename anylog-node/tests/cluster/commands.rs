//! What the commands say of a cluster.

use super::check::converge;
use super::load::put_rows;
use super::network::{Cluster, Reach, TABLES, table};
use super::node::eventually;
use super::record::Record;

#[test]
fn the_state_of_a_cluster_is_shown() {
    let cluster = Cluster::start(3, Reach::Direct);
    let (record, numbers) = (Record::default(), cluster.numbers());
    for table in TABLES {
        for (member, node) in cluster.members.iter().enumerate() {
            assert!(put_rows(&record, node.ports().rest, table, member, 10));
        }
    }
    converge(&cluster, &record, 0, "before it is shown");
    let node = &cluster.members[1];

    let setup = node.text("test cluster setup");
    for word in
        ["Operator", "Distributor", "Consumer", "Operator Name", "member-1", "Member ID", "Cluster ID", "Defined"]
    {
        assert!(setup.contains(word), "{word}: {setup}");
    }
    assert!(setup.contains(&numbers[1].to_string()), "{setup}");

    let status = node.text("get tsd sync status");
    assert_eq!(status, node.text("get ha cluster status"));
    assert!(status.contains("Consensus"), "{status}");
    // What this member produced is in tsd_info, what its mates did in tables of theirs.
    assert!(status.contains(&format!("tsd_{}", numbers[0])), "{status}");

    let data = node.text("test cluster data");
    for table in TABLES {
        assert!(data.contains(&format!("plant.{}", table.name)), "{}: {data}", table.name);
    }
    for number in &numbers {
        assert!(data.contains(&number.to_string()), "{number}: {data}");
    }
    let partitions = node.text("test cluster partitions");
    assert!(partitions.contains("plain_days"), "{partitions}");
    let databases = node.text("test cluster databases");
    assert!(databases.contains("plant") && databases.contains("almgm"), "{databases}");

    for command in ["get consumer", "get distributor", "get peers status", "get cluster info", "get data nodes"] {
        assert!(!node.text(command).trim().is_empty(), "{command}");
    }
    let processes = node.json("get processes where format=json");
    for name in ["Operator", "Distributor", "Consumer"] {
        assert_eq!(processes[name]["Status"], "Running", "{processes}");
    }
}

#[test]
fn members_without_differences_have_one_digest() {
    let cluster = Cluster::start(2, Reach::Direct);
    let record = Record::default();
    for (member, node) in cluster.members.iter().enumerate() {
        assert!(put_rows(&record, node.ports().rest, table("plain_days"), member, 40));
        assert!(put_rows(&record, node.ports().rest, table("kept"), member, 40));
    }
    converge(&cluster, &record, 0, "before digests are compared");
    // DUR-6
    eventually("digests are equal", || {
        let digests: Vec<String> =
            cluster.members.iter().map(|node| node.text("get cluster digest where format = json")).collect();
        (digests[0] == digests[1]).then_some(())
    });
}
