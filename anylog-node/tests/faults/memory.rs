//! Memory while more comes than the disk takes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::chance::{Chance, steady};
use super::devices::{Work, publish, put_rows};
use super::files::check_tables;
use super::mqtt::Publisher;
use super::node::Node;
use super::record::Record;
use super::strace;

/// Resident memory of a process in KiB.
pub(super) fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

// R11, R23: each sync takes 50 ms, as on a bad SD card, and senders offer all that they can: what waits stays bounded, and
// everything that was acknowledged is there.
#[test]
fn memory_is_flat_when_the_disk_is_slow() {
    if !strace::available() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let mut node = Node::new(home.path(), &[]);
    let slow = vec!["-e".to_owned(), "inject=fdatasync:delay_exit=50000".to_owned()];
    node.wrapper = strace::wrapper(std::path::Path::new("/dev/null"), "fdatasync", &slow);
    node.launch();
    node.post("set buffer threshold where time = 2 seconds and volume = 100KB and write_immediate = true");
    let record = Record::default();
    let work =
        Work { record: record.clone(), round: 0, tables: vec!["slow".into()], backfill: false, stop: Arc::default() };
    let mut chance = Chance::new(11);
    let (tcp, rest) = (node.tcp, node.rest);
    let senders: Vec<_> = (0..10)
        .map(|n| {
            let (work, chance) = (work.clone(), chance.branch());
            std::thread::spawn(move || {
                if n < 8 {
                    let mut publisher = Publisher::new(&format!("eager-{n}"), 1);
                    publish(&mut publisher, tcp, &work, chance, u64::MAX, 2000);
                } else {
                    put_rows(rest, &work, chance, u64::MAX, Vec::new());
                }
            })
        })
        .collect();
    let span = steady() * 2;
    let mut samples = Vec::new();
    let started = Instant::now();
    while started.elapsed() < span {
        std::thread::park_timeout(Duration::from_millis(100));
        samples.push(resident(node.pid()));
    }
    work.stop.store(true, Ordering::Relaxed);
    for sender in senders {
        sender.join().expect("no sender failed");
    }
    let third = samples.len() / 3;
    let mean = |part: &[u64]| part.iter().sum::<u64>() / part.len().max(1) as u64;
    let (middle, last) = (mean(&samples[third..2 * third]), mean(&samples[2 * third..]));
    let most = samples.iter().max().copied().unwrap_or(0);
    let (_, sent, _) = record.counts();
    eprintln!("R23: {sent} rows offered in {span:?} to a slow disk: {middle} KiB, then {last} KiB, at most {most} KiB");
    assert!(most < 200 << 10, "at most {most} KiB");
    assert!(last < middle + middle / 4 + 4096, "memory grows: {middle} KiB, then {last} KiB: {samples:?}");
    let faults = check_tables(&node, &record, 0);
    assert!(faults.is_empty(), "{faults:#?}");
}
