//! Many tables at first sight, from many senders at once, with partitions that are made on the fly.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::chance::{Chance, seed};
use super::devices::{Work, put_rows};
use super::files::{check_files, check_tables};
use super::load::{Amount, Senders};
use super::node::Node;
use super::record::Record;

// DUR-1, in immediate mode: when the last acknowledgement has arrived every row can be queried, without a flush or a restart.
#[test]
fn rows_of_new_tables_and_partitions_are_there_when_they_are_acknowledged() {
    let home = tempfile::tempdir().unwrap();
    let seed = seed();
    eprintln!("new tables: ANYLOG_FAULT_SEED={seed}");
    let mut chance = Chance::new(seed);
    let node = Node::running(home.path(), &[("PARTITION_COLUMN", "timestamp")]);
    let record = Record::default();
    let mut senders = Senders::new(4);
    for round in 0..2 {
        let work = Work {
            record: record.clone(),
            round,
            // All senders meet the same new tables at the same time.
            tables: (0..8).map(|n| format!("fresh_{round}_{n}")).collect(),
            backfill: true,
            stop: Arc::default(),
        };
        let amount = Amount { messages: 80, requests: 0, files: 0 };
        let load = senders.start((node.tcp, node.rest), &node.root(), &work, &mut chance, amount);
        let putters: Vec<_> = (0..6)
            .map(|_| {
                let (work, chance, rest) = (work.clone(), chance.branch(), node.rest);
                std::thread::spawn(move || put_rows(rest, &work, chance, 8, Vec::new()))
            })
            .collect();
        for putter in putters {
            assert!(putter.join().unwrap().is_empty(), "every request has an answer");
        }
        senders = load.join();
        assert!(senders.settled(), "every message has an acknowledgement: {senders:?}");
        let faults = check_tables(&node, &record, 0);
        assert!(faults.is_empty(), "seed {seed}, round {round}: {faults:#?}");
    }
    let (messages, rows, acknowledged) = record.counts();
    assert_eq!(rows, acknowledged, "{messages} messages");
    let tables: BTreeSet<String> = record.since(0).into_keys().collect();
    let faults = check_files(&node, &tables);
    assert!(faults.is_empty(), "seed {seed}: {faults:#?}");
}
