//! A full disk stops acknowledgements, not queries, and is recovered from without a restart.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::chance::Chance;
use super::devices::Work;
use super::files::{check_files, check_tables};
use super::harness::{eventually, files_below};
use super::load::{Amount, Senders};
use super::mqtt::Publisher;
use super::node::{Node, TOPIC, put};
use super::record::{Record, Way};
use super::small_disk::SmallDisk;

const ROW: &str = r#"{"timestamp": "2026-03-01T10:00:00Z", "n": 1, "r": 0}"#;

/// Every database of the node passes SQLite's own check.
fn databases_are_whole(node: &Node) {
    for name in ["test", "almgm", "blockchain"] {
        let answer = node.get(&format!("sql {name} format=json and stat=false \"select count(*) from sqlite_master\""));
        assert!(!answer.body.contains("malformed"), "{name}: {}", answer.body);
    }
    let files = files_below(&node.root().join("data/dbms"));
    for file in files.iter().filter(|file| file.extension().is_some_and(|kind| kind == "dbms")) {
        let mut connection = super::sqlite::open(file);
        assert_eq!(super::sqlite::integrity(&mut connection), "ok", "{}", file.display());
    }
}

/// Publishes one row, and says whether it was acknowledged within a time.
fn acknowledged(publisher: &mut Publisher, record: &Record, table: &str, patience: Duration) -> bool {
    let (message, n) = record.begin(Way::Qos1, table, 1, 0);
    let row = format!(r#"{{"table": "{table}", "timestamp": "2026-03-01T10:00:00Z", "n": {n}, "r": 0}}"#);
    publisher.publish(TOPIC, row.as_bytes(), message);
    publisher.flush().unwrap();
    hears(publisher, record, patience)
}

/// Waits for acknowledgements until nothing is in flight; false when that takes longer.
fn hears(publisher: &mut Publisher, record: &Record, patience: Duration) -> bool {
    let end = Instant::now() + patience;
    while publisher.in_flight() > 0 {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        for heard in publisher.hear(left).unwrap() {
            if let super::mqtt::Heard::Taken(message) = heard {
                record.acknowledge(message);
            }
        }
    }
    true
}

// R12, DUR-5: below the floor nothing is acknowledged and queries work; with space again it goes on by itself.
#[test]
fn a_nearly_full_disk_refuses_rows_and_answers_queries() {
    let Some(disk) = SmallDisk::mount(96) else { return };
    let node = Node::running(&disk.path().join("home"), &[]);
    let record = Record::default();
    let mut publisher = Publisher::new("device", 1);
    publisher.connect(node.tcp).unwrap();
    assert!(acknowledged(&mut publisher, &record, "steady", Duration::from_secs(10)));
    disk.fill_to(8 << 20);
    let refusal = eventually("rows are refused", || {
        let answer = put(node.rest, "steady", "streaming", ROW).unwrap();
        (answer.status != 200).then_some(answer)
    });
    assert_eq!(refusal.status, 507, "{}", refusal.body);
    assert!(refusal.body.contains("space"), "the message says what is wrong: {}", refusal.body);
    assert!(!acknowledged(&mut publisher, &record, "steady", Duration::from_millis(700)), "no PUBACK");
    let before = node.rows("select count(*) as n from steady").unwrap();
    assert!(before[0]["n"].as_u64().unwrap() >= 1, "queries work: {before:?}");
    disk.free_space();
    // The device did nothing but wait.
    assert!(hears(&mut publisher, &record, Duration::from_secs(15)), "the acknowledgement comes when there is space");
    assert!(acknowledged(&mut publisher, &record, "steady", Duration::from_secs(10)));
    assert_eq!(put(node.rest, "other", "streaming", ROW).unwrap().status, 200);
    databases_are_whole(&node);
}

// R12, DUR-5: the last byte is used up by somebody else, under load: whatever was acknowledged is there, once; no file is
// corrupt; everything goes on when there is space again.
#[test]
fn the_last_byte_may_be_gone_at_any_moment() {
    let Some(disk) = SmallDisk::mount(128) else { return };
    let seed = super::chance::seed();
    eprintln!("full disk: ANYLOG_FAULT_SEED={seed}");
    let mut chance = Chance::new(seed);
    let mut node = Node::running(&disk.path().join("home"), &[("PARTITION_COLUMN", "timestamp")]);
    let record = Record::default();
    let mut senders = Senders::new(2);
    for round in 0..3 {
        let immediate = round != 1;
        node.post(&format!(
            "set buffer threshold where time = 1 seconds and volume = 4KB and write_immediate = {immediate}"
        ));
        let work = Work {
            record: record.clone(),
            round,
            tables: vec!["steady".into(), format!("new_{round}")],
            backfill: true,
            stop: std::sync::Arc::default(),
        };
        let ports = (node.tcp, node.rest);
        let amount = Amount { messages: 1500, requests: 30, files: 3 };
        let load = senders.start(ports, &node.root(), &work, &mut chance, amount);
        std::thread::park_timeout(chance.millis(50, 400));
        disk.fill_to(0);
        std::thread::park_timeout(chance.millis(500, 1200));
        let answer = node.get("get processes where format=json");
        assert_eq!(answer.status, 200, "the node answers: {}", answer.body);
        if round == 2 {
            // It may also be killed while the disk is full, and is started when there is space.
            node.kill();
            senders = load.join();
            disk.free_space();
            node.launch();
            let work = Work { stop: std::sync::Arc::default(), ..work };
            let amount = Amount { messages: 0, requests: 0, files: 0 };
            senders = senders.start(ports, &node.root(), &work, &mut chance, amount).join();
        } else {
            work.stop.store(true, Ordering::Relaxed);
            disk.free_space();
            senders = load.join();
            // What is acknowledged in buffered mode can be queried when its segment is sealed.
            node.post("flush buffers");
        }
        let faults = check_tables(&node, &record, 0);
        assert!(faults.is_empty(), "round {round}: {faults:#?}");
        databases_are_whole(&node);
    }
    assert!(senders.settled(), "everybody has answers: {senders:?}");
    let tables = record.since(0).into_keys().collect();
    let faults = check_files(&node, &tables);
    assert!(faults.is_empty(), "{faults:#?}");
    let (_, _, acknowledged) = record.counts();
    assert!(acknowledged > 100, "there was load: {acknowledged}");
}
