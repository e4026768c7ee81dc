//! The sync before each acknowledgement, seen from outside: a process that is killed keeps what it wrote to the page cache, so
//! kill -9 alone cannot show that a sync is missing.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::harness::{eventually, source_files};
use super::mqtt::{Heard, Publisher};
use super::node::{Node, TOPIC, put};
use super::strace::{self, Call};

/// Numbers that stand nowhere else in a trace.
const MARK: u64 = 1_900_000_000;
const WRITES: &str = "write,writev,pwrite64,sendto,sendmsg,fdatasync,fsync,rename,renameat,renameat2,mkdir,mkdirat";

fn row(n: u64, extra: &str) -> String {
    format!(r#"{{{extra}"timestamp": "2026-03-01T10:00:00Z", "n": {n}, "r": 0}}"#)
}

/// Publishes messages one at a time; returns when each was acknowledged, in seconds since 1970.
fn publish_one_by_one(port: u16, qos: u8, numbers: std::ops::Range<u64>) -> Vec<(u64, f64)> {
    let mut publisher = Publisher::new(&format!("traced-{qos}"), qos);
    publisher.connect(port).unwrap();
    let mut times = Vec::new();
    for n in numbers {
        publisher.publish(TOPIC, row(n, r#""table": "traced", "#).as_bytes(), 0);
        publisher.flush().unwrap();
        let end = std::time::Instant::now() + Duration::from_secs(60);
        while publisher.in_flight() > 0 {
            assert!(std::time::Instant::now() < end, "message {n} is acknowledged");
            for heard in publisher.hear(Duration::from_secs(5)).unwrap() {
                if matches!(heard, Heard::Taken(_)) {
                    times.push((n, now()));
                }
            }
        }
    }
    times
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// The write of a row into the journal, and the sync that first followed it on that file.
fn journal_sync(calls: &[Call], n: u64) -> Vec<(&Call, Option<&Call>)> {
    let digits = n.to_string();
    let writes =
        calls.iter().filter(|call| call.writes() && call.file().ends_with(".journal") && call.text().contains(&digits));
    let sync =
        |write: &Call| calls.iter().find(|call| call.syncs() && call.file() == write.file() && call.begin > write.end);
    writes.map(|write| (write, sync(write))).collect()
}

fn trace_of(home: &tempfile::TempDir) -> PathBuf {
    home.path().join("trace.txt")
}

/// Waits until the tracer has written everything that the node did.
fn read_whole(node: &mut Node, home: &tempfile::TempDir) -> Vec<Call> {
    node.signal("-TERM");
    assert_eq!(node.wait().code(), Some(0), "{}", node.log());
    let output = trace_of(home);
    let mut before = 0;
    eventually("the tracer is done", || {
        let length = std::fs::metadata(&output).map_or(0, |data| data.len());
        let same = length == before && length > 0;
        before = length;
        same.then_some(())
    });
    strace::read(&output)
}

// DUR-1, R3: between a message and its PUBACK, PUBREC or 200 lies a sync of the journal that began after the message was written.
#[test]
fn a_sync_stands_before_each_acknowledgement() {
    if !strace::available() {
        return;
    }
    for immediate in [true, false] {
        let home = tempfile::tempdir().unwrap();
        let mut node = Node::new(home.path(), &[]);
        node.wrapper = strace::wrapper(&trace_of(&home), WRITES, &[]);
        node.launch();
        node.post(&format!(
            "set buffer threshold where time = 600 seconds and volume = 10MB and write_immediate = {immediate}"
        ));
        let (tcp, rest) = (node.tcp, node.rest);
        let count = 12;
        let once = std::thread::spawn(move || publish_one_by_one(tcp, 1, MARK..MARK + count));
        let exactly = std::thread::spawn(move || publish_one_by_one(tcp, 2, MARK + 100..MARK + 100 + count));
        for n in MARK + 200..MARK + 200 + count {
            assert_eq!(put(rest, "traced", "streaming", &row(n, "")).unwrap().status, 200);
        }
        assert_eq!(once.join().unwrap().len() + exactly.join().unwrap().len(), 2 * usize::try_from(count).unwrap());
        node.post("flush buffers");
        let archived = source_files(&node.root());
        let calls = read_whole(&mut node, &home);
        let acknowledgements = |starts: &'static str, port: u16, holds: &'static str| {
            let at = format!("127.0.0.1:{port}->");
            let found = calls.iter().filter(move |call| {
                call.writes()
                    && call.file().contains(&at)
                    && call.text().starts_with(starts)
                    && call.text().contains(holds)
            });
            found.collect::<Vec<_>>()
        };
        for (first, acknowledgements) in [
            // Each client had one message at a time, so the k-th acknowledgement is that of the k-th message.
            (MARK, acknowledgements(r"@\2", tcp, "")),
            (MARK + 100, acknowledgements(r"P\2", tcp, "")),
            (MARK + 200, acknowledgements("HTTP/1.", rest, "AnyLog.hash")),
        ] {
            assert_eq!(acknowledgements.len() as u64, count, "acknowledgements of {first} and following");
            for (n, acknowledgement) in (first..).zip(acknowledgements) {
                let synced = journal_sync(&calls, n)
                    .into_iter()
                    .any(|(_, sync)| sync.is_some_and(|sync| sync.result == 0 && sync.end < acknowledgement.begin));
                assert!(synced, "row {n}: no sync of the journal between its write and its acknowledgement");
            }
        }
        assert!(!archived.is_empty());
        for file in archived {
            sealed_in_order(&calls, &file);
        }
    }
}

/// A source file stands for rows that are durable in their database; it is itself durable before the registry names it.
fn sealed_in_order(calls: &[Call], file: &std::path::Path) {
    let name = file.to_str().unwrap();
    let renamed = calls
        .iter()
        .find(|call| call.name.starts_with("rename") && call.arguments.contains(&format!("\"{name}\"")))
        .unwrap_or_else(|| panic!("{name} gets its name by a rename"));
    // rename("from", "to"), renameat(directory, "from", directory, "to").
    let temporary = renamed.arguments.split('"').nth(1).unwrap_or_default();
    let synced = calls
        .iter()
        .any(|call| call.syncs() && call.result == 0 && call.file() == temporary && call.end < renamed.begin);
    assert!(synced, "{name} is synced before it has its name");
    let directory = file.parent().unwrap().to_str().unwrap();
    for made in calls.iter().filter(|call| call.name.starts_with("mkdir") && call.result == 0) {
        let name = made.arguments.split('"').nth(1).unwrap_or_default();
        if !name.contains("/archive/") || !directory.starts_with(name) {
            continue;
        }
        let above = std::path::Path::new(name).parent().unwrap().to_str().unwrap();
        let durable = calls
            .iter()
            .any(|call| call.syncs() && call.file() == above && call.begin > made.end && call.end < renamed.begin);
        assert!(durable, "the name of the directory {name} is synced");
    }
    let after = |from: usize, end: &str| {
        calls
            .iter()
            .find(|call| call.syncs() && call.result == 0 && call.begin > from && call.file().ends_with(end))
            .unwrap_or_else(|| panic!("{name}: '{end}' is synced as well"))
    };
    let rows = calls.iter().filter(|call| {
        let log = call.file().contains("/test.parts/traced/") && call.file().ends_with("-wal");
        log && call.writes() && call.end < renamed.begin
    });
    if let Some(last) = rows.max_by_key(|call| call.end) {
        let durable = calls.iter().any(|call| {
            call.syncs() && call.file() == last.file() && call.begin > last.end && call.end < renamed.begin
        });
        assert!(durable, "the rows of {name} are synced in their database before it has its name");
    }
    // The name, then the registry, then the journal that lets go of the rows.
    let named = after(renamed.end, directory);
    let registered = after(named.end, "/almgm.dbms-wal");
    after(registered.end, ".journal");
}

// DUR-1: a sync of the journal that fails acknowledges nothing. What the file holds then is not known, so a later sync of it
// counts for nothing: the row is written again elsewhere, and acknowledged after that sync.
#[test]
fn a_sync_that_fails_acknowledges_nothing() {
    if !strace::available() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let mut node = Node::new(home.path(), &[]);
    let journals = (1..200).map(|n| node.root().join(format!("data/journal/{n:010}.journal")));
    let mut options = strace::only(journals);
    options.extend(["-e".to_owned(), "inject=fdatasync:error=EIO:when=4..7".to_owned()]);
    node.wrapper = strace::wrapper(&trace_of(&home), "write,pwrite64,fdatasync", &options);
    node.launch();
    let tcp = node.tcp;
    let publishing = std::thread::spawn(move || publish_one_by_one(tcp, 1, MARK..MARK + 12));
    let mut acknowledged = Vec::new();
    let (mut refused, mut n) = (0, MARK + 200);
    while n < MARK + 212 {
        let answer = put(node.rest, "traced", "streaming", &row(n, "")).unwrap();
        if answer.status == 200 {
            acknowledged.push((n, now()));
            n += 1;
        } else {
            refused += 1;
            assert!(refused < 100, "{}", answer.body);
        }
    }
    acknowledged.extend(publishing.join().unwrap());
    assert_eq!(acknowledged.len(), 24);
    let count = node.rows("select count(*) as n from traced").unwrap();
    assert!(count[0]["n"].as_u64().unwrap() >= 24, "{count:?}");
    let calls = read_whole(&mut node, &home);
    let failed = calls.iter().filter(|call| call.syncs() && call.result != 0).count();
    assert!(failed >= 3, "syncs failed: {failed}");
    for (n, at) in acknowledged {
        let synced = journal_sync(&calls, n)
            .into_iter()
            .any(|(_, sync)| sync.is_some_and(|sync| sync.result == 0 && sync.ended_at <= at));
        assert!(synced, "row {n} was acknowledged without a sync that succeeded");
    }
    // The journal's file whose sync failed holds rows that were not acknowledged, perhaps; nothing acknowledged is lost.
    node.wrapper.clear();
    node.launch();
    let count = node.rows("select count(distinct n) as n from traced").unwrap();
    assert_eq!(count[0]["n"].as_u64(), Some(24), "{count:?}");
}
