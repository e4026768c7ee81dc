//! A crash at each system call that changes a file: the call is not made any more, and neither is any later one.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::chance::{Chance, seed, setting};
use super::devices::Work;
use super::files::{check_files, check_tables};
use super::load::{Amount, Senders};
use super::node::Node;
use super::record::Record;
use super::strace;

/// Calls that change what the next start finds.
const CALLS: [&str; 8] = ["write", "pwrite64", "fdatasync", "fsync", "rename", "unlink", "ftruncate", "openat"];

/// One crash: load, until the `number`-th `call` of some thread kills the node; then a start without it. Returns whether
/// the node was killed.
fn crash(
    node: &mut Node,
    record: &Record,
    senders: Senders,
    round: u64,
    call: &str,
    number: u64,
    chance: &mut Chance,
) -> (Senders, bool) {
    let output = std::path::Path::new("/dev/null");
    let inject = vec!["-e".to_owned(), format!("inject={call}:signal=KILL:when={number}")];
    // Opening a file for reading changes nothing, but is counted as well.
    node.wrapper = strace::wrapper(output, call, &inject);
    node.spawn();
    let work = Work {
        record: record.clone(),
        round,
        tables: vec!["steady".into(), format!("new_{round}")],
        backfill: true,
        stop: Arc::default(),
    };
    let ports = (node.tcp, node.rest);
    let mut senders = Some(senders);
    let amount = Amount { messages: 12, requests: 4, files: 1 };
    if node.ready_or_ended() {
        let immediate = chance.percent(60);
        let threshold =
            format!("set buffer threshold where time = 1 seconds and volume = 1KB and write_immediate = {immediate}");
        node.request("POST", &[("command", &threshold)], "").ok();
        let load = senders.take().unwrap().start(ports, &node.root(), &work, chance, amount);
        senders = Some(load.join());
        node.request("POST", &[("command", "flush buffers")], "").ok();
    }
    let killed = node.ended();
    if !killed {
        node.kill();
    }
    node.wrapper.clear();
    (senders.expect("the senders came back"), killed)
}

// DUR-1, DUR-2: whichever call is the last one, the next start finds every acknowledged row once, in its table and in one source
// file that is registered.
#[test]
fn a_crash_at_any_system_call_loses_nothing() {
    if !strace::available() {
        return;
    }
    let seed = seed();
    // The long form takes every number of every call until the load comes to its end before it.
    let long = setting("ANYLOG_FAULT_ROUNDS").is_some_and(|rounds| rounds >= 100);
    eprintln!("crash at system calls: ANYLOG_FAULT_SEED={seed}, every call: {long}");
    let mut chance = Chance::new(seed);
    let mut crashes = 0;
    for call in if long { &CALLS[..] } else { &CALLS[..5] } {
        let home = tempfile::tempdir().unwrap();
        let mut node = Node::new(home.path(), &[("PARTITION_COLUMN", "timestamp")]);
        let record = Record::default();
        let mut senders = Senders::new(2);
        let (mut number, mut survived) = (0, 0);
        for round in 0.. {
            number += if long { 1 } else { 1 + chance.below(10) };
            let (back, killed) = crash(&mut node, &record, senders, round, call, number, &mut chance);
            senders = back;
            crashes += u64::from(killed);
            survived += u64::from(!killed);
            node.launch();
            let faults = check_tables(&node, &record, 0);
            assert!(faults.is_empty(), "seed {seed}, {call} number {number}: {faults:#?}");
            node.kill();
            if survived >= 2 || (!long && round == 1) || round == 300 {
                break;
            }
        }
        node.launch();
        let tables: BTreeSet<String> = record.since(0).into_keys().collect();
        let faults = check_files(&node, &tables);
        assert!(faults.is_empty(), "seed {seed}, {call} up to {number}: {faults:#?}");
        eprintln!("  {call}: up to number {number}");
    }
    eprintln!("crash at system calls: {crashes} crashes, 0 rows lost, 0 doubled");
    assert!(crashes > 0, "some call was the last one");
}
