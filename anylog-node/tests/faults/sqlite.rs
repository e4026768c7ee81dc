//! SQLite under load: a lock that is never seen outside, a log that a reader cannot make grow without end.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::Text;

use super::chance::{Chance, setting, steady};
use super::devices::{Work, publish, put_rows};
use super::files::{check_files, check_tables};
use super::harness::files_below;
use super::mqtt::Publisher;
use super::node::Node;
use super::record::Record;

/// Opens a database file beside the node.
pub(crate) fn open(path: &Path) -> SqliteConnection {
    let uri = format!("file:{}?mode=rw", path.display());
    let mut connection = SqliteConnection::establish(&uri).unwrap();
    connection.batch_execute("PRAGMA busy_timeout=10000").unwrap();
    connection
}

#[derive(QueryableByName)]
struct Verdict {
    #[diesel(sql_type = Text)]
    integrity_check: String,
}

/// SQLite's own check of a database: `ok`, or what is wrong.
pub(crate) fn integrity(connection: &mut SqliteConnection) -> String {
    let rows: Vec<Verdict> = diesel::sql_query("PRAGMA integrity_check").load(connection).unwrap();
    rows.into_iter().map(|row| row.integrity_check).collect::<Vec<_>>().join("; ")
}

// R17: 16 streams beside 8 queries: nobody is told that a database is locked.
#[test]
fn nobody_sees_a_locked_database() {
    let home = tempfile::tempdir().unwrap();
    let node = Node::running(home.path(), &[("PARTITION_COLUMN", "timestamp")]);
    node.post("set buffer threshold where time = 1 seconds and volume = 200KB and write_immediate = true");
    let record = Record::default();
    let work = Work {
        record: record.clone(),
        round: 0,
        tables: (0..4).map(|n| format!("shared_{n}")).collect(),
        backfill: true,
        stop: Arc::default(),
    };
    let mut chance = Chance::new(17);
    let (tcp, rest) = (node.tcp, node.rest);
    let streams: Vec<_> = (0..16)
        .map(|n| {
            let (work, chance) = (work.clone(), chance.branch());
            std::thread::spawn(move || {
                if n < 8 {
                    let mut publisher = Publisher::new(&format!("stream-{n}"), 1);
                    publish(&mut publisher, tcp, &work, chance, u64::MAX, 20);
                    assert_eq!(publisher.in_flight(), 0, "every message was acknowledged");
                } else {
                    let unanswered = put_rows(rest, &work, chance, u64::MAX, Vec::new());
                    assert!(unanswered.is_empty(), "every request was answered");
                }
            })
        })
        .collect();
    let asked = Arc::new(AtomicU64::new(0));
    let queries: Vec<_> = (0..8)
        .map(|n| {
            let (work, asked) = (work.clone(), Arc::clone(&asked));
            std::thread::spawn(move || {
                let table = format!("shared_{}", n % 4);
                let select = format!("select count(*), min(n), max(n) from {table} where r = 0");
                let command = format!("sql test format=json and stat=false \"{select}\"");
                while !work.stop.load(Ordering::Relaxed) {
                    let answer = super::node::request(rest, "GET", &[("command", &command)], "").unwrap();
                    // The table comes with its first row.
                    assert!(
                        answer.status == 200 || asked.load(Ordering::Relaxed) < 8 || answer.body.contains(&table),
                        "{}",
                        answer.body
                    );
                    assert!(!answer.body.contains("locked") && !answer.body.contains("busy"), "{}", answer.body);
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    std::thread::park_timeout(steady());
    work.stop.store(true, Ordering::Relaxed);
    for thread in streams.into_iter().chain(queries) {
        thread.join().expect("no stream and no query failed");
    }
    let faults = check_tables(&node, &record, 0);
    assert!(faults.is_empty(), "{faults:#?}");
    let errors = node.get("get error log").body + &node.log();
    assert!(!errors.contains("locked") && !errors.contains("busy"), "{errors}");
    let tables: BTreeSet<String> = record.since(0).into_keys().collect();
    let faults = check_files(&node, &tables);
    assert!(faults.is_empty(), "{faults:#?}");
    let (_, _, acknowledged) = record.counts();
    eprintln!(
        "R17: {acknowledged} rows by 16 streams beside {} queries in {:?}",
        asked.load(Ordering::Relaxed),
        steady()
    );
}

/// The longest write-ahead log of the node, in bytes.
fn longest_log(node: &Node) -> u64 {
    let logs = files_below(&node.root().join("data/dbms"));
    let logs = logs.iter().filter(|file| file.to_string_lossy().ends_with("-wal"));
    logs.filter_map(|file| Some(std::fs::metadata(file).ok()?.len())).max().unwrap_or(0)
}

// R18: a query that nobody reads on pins an old state; the write-ahead log stays below 64 MB nevertheless.
#[test]
fn an_abandoned_query_does_not_make_the_log_grow() {
    let home = tempfile::tempdir().unwrap();
    let node = Node::running(home.path(), &[]);
    node.post("set buffer threshold where time = 60 seconds and volume = 20MB and write_immediate = true");
    let filler = "x".repeat(2000);
    let rows = |first: u64, count: u64| {
        let rows = (first..first + count)
            .map(|n| format!(r#"{{"timestamp": "2026-03-01T10:00:00Z", "n": {n}, "r": 0, "filler": "{filler}"}}"#));
        format!("[{}]", rows.collect::<Vec<_>>().join(","))
    };
    // More than the buffers between the node and a client take.
    for batch in 0..10 {
        assert_eq!(super::node::put(node.rest, "pinned", "streaming", &rows(batch * 1000, 1000)).unwrap().status, 200);
    }
    let mut abandoned = TcpStream::connect(("127.0.0.1", node.rest)).unwrap();
    let command = "sql test format=json and stat=false \"select * from pinned\"";
    abandoned
        .write_all(format!("GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: anylog\r\ncommand: {command}\r\n\r\n").as_bytes())
        .unwrap();
    let mut first = [0; 1024];
    assert!(abandoned.read(&mut first).unwrap() > 0, "the answer begins, and is not read on");
    let mut longest = 0;
    // In the short form just beyond the limit; in the long form several times that.
    let megabytes = if setting("ANYLOG_FAULT_SECONDS").is_some_and(|seconds| seconds > 30) { 400 } else { 90 };
    let started = Instant::now();
    for batch in 10..10 + megabytes / 2 {
        assert_eq!(super::node::put(node.rest, "pinned", "streaming", &rows(batch * 1000, 1000)).unwrap().status, 200);
        longest = longest.max(longest_log(&node));
    }
    eprintln!(
        "R18: {megabytes} MB beside an abandoned query in {:?}: the longest log had {} KB",
        started.elapsed(),
        longest >> 10
    );
    // One transaction more than the limit may be in the log when it is looked at.
    assert!(longest < (64 << 20) + (8 << 20), "{longest} bytes");
    let count = node.rows("select count(*) as n from pinned").unwrap();
    assert_eq!(count[0]["n"].as_u64(), Some(10_000 + megabytes / 2 * 1000));
    drop(abandoned);
}
