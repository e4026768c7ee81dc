//! SIGTERM and SIGINT while everything is busy.

use std::sync::Arc;
use std::time::Duration;

use super::chance::{Chance, seed};
use super::devices::Work;
use super::files::{check_files, check_tables};
use super::load::{Amount, Senders};
use super::node::{Node, timed};
use super::record::Record;

// OPS-2: the program ends with 0 within five seconds, and nothing that was acknowledged is lost.
#[test]
fn a_busy_node_ends_in_time_and_loses_nothing() {
    let home = tempfile::tempdir().unwrap();
    let seed = seed();
    eprintln!("signals under load: ANYLOG_FAULT_SEED={seed}");
    let mut chance = Chance::new(seed);
    let mut node = Node::running(home.path(), &[]);
    let record = Record::default();
    let mut senders = Senders::new(4);
    for (round, signal) in (0..).zip(["-TERM", "-INT", "-TERM", "-TERM"]) {
        node.post(&format!(
            "set buffer threshold where time = 1 seconds and volume = 20KB and write_immediate = {}",
            round % 2 == 0
        ));
        let work = Work {
            record: record.clone(),
            round,
            tables: vec!["steady".into(), format!("new_{round}")],
            backfill: false,
            stop: Arc::default(),
        };
        let amount = Amount { messages: 100_000, requests: 10_000, files: 2 };
        let load = senders.start((node.tcp, node.rest), &node.root(), &work, &mut chance, amount);
        std::thread::park_timeout(chance.millis(50, 700));
        node.signal(signal);
        let (status, took) = timed(|| node.wait());
        assert_eq!(status.code(), Some(0), "{signal}: {}", node.log());
        assert!(took < Duration::from_secs(5), "{signal}: it took {took:?}");
        senders = load.join();
        node.launch();
        let faults = check_tables(&node, &record, 0);
        assert!(faults.is_empty(), "seed {seed}, after {signal}: {faults:#?}");
    }
    let tables = record.since(0).into_keys().collect();
    let faults = check_files(&node, &tables);
    assert!(faults.is_empty(), "seed {seed}: {faults:#?}");
}
