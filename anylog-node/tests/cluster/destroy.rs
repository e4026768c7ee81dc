//! The member that took a message is destroyed with its disk right after it acknowledged.

use std::collections::BTreeSet;
use std::time::Duration;

use super::chance::{Chance, setting};
use super::check::converge;
use super::load::message;
use super::mqtt::{Heard, Publisher};
use super::network::{Cluster, DBMS, Reach, TOPIC, Table, table};
use super::node::Node;
use super::record::{Record, Way};

// DUR-3: with ack = replicated(2) an acknowledged row survives the loss of the disk that took it.
#[test]
fn acknowledged_rows_survive_the_disk_that_took_them() {
    let rounds = setting("ANYLOG_CLUSTER_ROUNDS").unwrap_or(5);
    let seed = setting("ANYLOG_CHAOS_SEED").unwrap_or(1);
    eprintln!("destruction: {rounds} rounds, ANYLOG_CHAOS_SEED={seed}");
    let mut cluster = Cluster::start(3, Reach::OverLinks);
    let (record, mut chance) = (Record::default(), Chance::new(seed));
    for round in 0..rounds {
        let victim = usize::try_from(round % 3).unwrap();
        let kept = if chance.percent(50) { table("kept") } else { table("kept_days") };
        publish_until(&cluster, &record, kept, victim, &mut chance);
        let node = &mut cluster.members[victim];
        node.kill();
        node.wipe();
        record.loses(victim);
        survivors_have(&cluster, &record, victim, &format!("seed {seed}, round {round}"));
        cluster.all_ready();
        converge(&cluster, &record, round, &format!("seed {seed}, round {round}, filled again"));
        record.next_phase();
    }
    converge(&cluster, &record, 0, &format!("seed {seed}, after {rounds} rounds"));
    eprintln!("destruction: {rounds} rounds with seed {seed}: {}: 0 lost", record.counts());
}

/// Publishes messages until so many as chance wants are acknowledged, and not an instant longer.
fn publish_until(cluster: &Cluster, record: &Record, table: Table, member: usize, chance: &mut Chance) {
    let mut publisher = Publisher::new(&format!("device-{}", record.phase()), 1);
    publisher.connect(cluster.members[member].ports().tcp).unwrap();
    let (count, wanted) = (1 + chance.below(30), 1 + chance.below(10));
    for _ in 0..count {
        let (number, n) = record.begin(Way::Qos1, table, member, 1);
        publisher.publish(TOPIC, message(table, n, member, record.phase()).as_bytes(), number);
    }
    publisher.flush().unwrap();
    let losses = record.losses(member);
    let mut told = 0;
    while told < wanted.min(count) {
        for event in publisher.hear(Duration::from_secs(30)).expect("an acknowledgement") {
            if let Heard::Taken(message) = event {
                record.acknowledge(message, losses);
                told += 1;
            }
        }
    }
}

/// Each row that was acknowledged so far is on a member that still is there, and can be queried.
fn survivors_have(cluster: &Cluster, record: &Record, victim: usize, when: &str) {
    for name in ["kept", "kept_days"] {
        let survivors = cluster.members.iter().enumerate().filter(|(member, _)| *member != victim);
        let numbers = |node: &Node| {
            let rows = node.rows(DBMS, &format!("select n from {name}")).unwrap_or_default();
            rows.iter().filter_map(|row| row["n"].as_u64()).collect::<Vec<_>>()
        };
        let held: BTreeSet<u64> = survivors.flat_map(|(_, node)| numbers(node)).collect();
        let lost: Vec<u64> = record.acknowledged(name).into_iter().filter(|n| !held.contains(n)).collect();
        assert!(lost.is_empty(), "{when}: {name}: acknowledged rows are on no survivor: {lost:?}");
    }
}
