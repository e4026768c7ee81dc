//! A full disk stops acknowledgements, not queries, and is recovered from without a restart.

use std::os::unix::fs::MetadataExt;
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
    files_are_whole(node);
}

fn files_are_whole(node: &Node) {
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

/// Rows of a kilobyte of one day.
fn fill_day(node: &Node, day: u32) {
    let row = |n: u32| {
        let (minute, second, text) = (n / 60 % 60, n % 60, "x".repeat(1000));
        format!(r#"{{"timestamp": "2026-03-{day:02}T10:{minute:02}:{second:02}Z", "n": {n}, "text": "{text}"}}"#)
    };
    for first in (0..4000).step_by(500) {
        let rows: Vec<String> = (first..first + 500).map(row).collect();
        let answer = put(node.rest, "big", "streaming", &format!("[{}]", rows.join(","))).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
}

// R10, R12, DUR-5: on a disk without a free byte old partitions are dropped, and their space is there when the command returns: for
// rows again, and not for those that went, after a kill as well.
#[test]
fn old_partitions_make_room_on_a_full_disk() {
    let Some(disk) = SmallDisk::mount(160) else { return };
    let mut node = Node::running(&disk.path().join("home"), &[("PARTITION_COLUMN", "timestamp")]);
    (1..=4).for_each(|day| fill_day(&node, day));
    let days = |node: &Node| {
        [1, 2, 3, 4].map(|day| {
            let from =
                format!("timestamp >= '2026-03-{day:02} 00:00:00' and timestamp < '2026-03-{:02} 00:00:00'", day + 1);
            node.rows(&format!("select count(*) as n from big where {from}")).unwrap()[0]["n"].as_u64().unwrap()
        })
    };
    assert_eq!(days(&node), [4000; 4]);
    let partition = |day: u32| {
        let name = format!("par_big_2026_03_{day:02}_d01_timestamp.dbms");
        node_files(&node).into_iter().filter(|file| file.to_string_lossy().contains(&name)).collect::<Vec<_>>()
    };
    let bytes: u64 = (1..=2).flat_map(partition).map(|file| std::fs::metadata(file).unwrap().blocks() * 512).sum();
    assert!(bytes > 8_000_000, "{bytes}");
    disk.fill_to(0);
    let before = disk.free();
    node.post("drop partition where dbms=test and table=big and keep=2");
    let back = disk.free().saturating_sub(before);
    assert!(back >= bytes / 10 * 9, "{back} of {bytes} bytes are back");
    assert_eq!(days(&node), [0, 0, 4000, 4000]);
    // All that may go goes, and it is said that this is not enough.
    disk.fill_to(0);
    assert_eq!(put(node.rest, "big", "streaming", ROW).unwrap().status, 507);
    let command = "drop partition where dbms=test and table=* and min_free=10GB";
    let failed = node.request("POST", &[("command", command)], "").unwrap();
    assert!(failed.status != 200 && failed.body.contains("only active partitions are left"), "{}", failed.body);
    assert_eq!(days(&node), [0, 0, 0, 4000]);
    let events = node.get("get event log where format=json").body;
    assert!(events.contains("par_big_2026_03_01_d01_timestamp") && events.contains("keep=2"), "{events}");
    node.kill();
    disk.free_space();
    node.launch();
    assert_eq!(days(&node), [0, 0, 0, 4000], "what was dropped stays dropped");
    assert_eq!(put(node.rest, "big", "streaming", ROW).unwrap().status, 200);
    databases_are_whole(&node);
}

fn node_files(node: &Node) -> Vec<std::path::PathBuf> {
    files_below(&node.root().join("data/dbms"))
}

// R12, DUR-5: the last byte is used up by somebody else, under load: whatever was acknowledged is there, once; no file is
// corrupt; everything goes on when there is space again.
#[test]
fn the_last_byte_may_be_gone_at_any_moment() {
    uses_the_last_byte_up(4096);
}

// DUR-5: the same where blocks are smaller than a page of memory, and files that are mapped have holes.
#[test]
fn the_last_byte_may_be_gone_on_a_disk_with_small_blocks() {
    uses_the_last_byte_up(1024);
}

fn uses_the_last_byte_up(block: u32) {
    let Some(disk) = SmallDisk::mount_with(128, block) else { return };
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
            let deadline = Instant::now() + Duration::from_secs(60);
            // A node that has just started may ask a sender to come again.
            loop {
                let amount = Amount { messages: 0, requests: 0, files: 0 };
                senders = senders.start(ports, &node.root(), &work, &mut chance, amount).join();
                if senders.settled() || Instant::now() > deadline {
                    break;
                }
            }
        } else {
            work.stop.store(true, Ordering::Relaxed);
            disk.free_space();
            senders = load.join();
            // What is acknowledged in buffered mode can be queried when its segment is sealed.
            node.post("flush buffers");
        }
        let faults = check_tables(&node, &record, 0);
        assert!(faults.is_empty(), "round {round}: {faults:#?}");
        if block < 4096 {
            // The node holds its files for itself, and maps nothing.
            let shared = node_files(&node).into_iter().find(|file| file.to_string_lossy().ends_with("-shm"));
            assert_eq!(shared, None);
            node.signal("-TERM");
            assert!(node.wait().success());
            files_are_whole(&node);
            node.launch();
        } else {
            databases_are_whole(&node);
        }
    }
    assert!(senders.settled(), "everybody has answers: {senders:?}");
    let tables = record.since(0).into_keys().collect();
    let faults = check_files(&node, &tables);
    assert!(faults.is_empty(), "{faults:#?}");
    let (_, _, acknowledged) = record.counts();
    assert!(acknowledged > 100, "there was load: {acknowledged}");
}
