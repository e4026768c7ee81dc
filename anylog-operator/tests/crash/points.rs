//! Every point of a scripted run, started from.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anylog_ingest::SourceFile;
use anylog_operator::source_file::{SourceName, content_hash, stream_hash};

use crate::harness::{TestNode, eventually, rows};
use crate::tape::{Moment, TapeDisk, copy};

/// Where the files of database `d` lie.
fn databases(home: &Path) -> PathBuf {
    home.join("AnyLog-Network/data/dbms")
}

/// A row so long that it is stored before its segment is sealed, in buffered mode too.
const LONG: i64 = 7;

fn row(n: i64) -> String {
    let note = "x".repeat(if n == LONG { 2_100_000 } else { 1 });
    // Three days, so that a message meets several partitions.
    format!("{{\"at\": \"2026-03-0{}T10:00:00Z\", \"n\": {n}, \"note\": \"{note}\"}}", 1 + n % 3)
}

/// Hands rows over as one message and notes the receipt.
async fn send(node: &TestNode, tape: &TapeDisk, numbers: std::ops::Range<i64>) {
    tape.sender(|sender| sender.sent.extend(numbers.clone()));
    let _ = node.slot.append(rows("t", numbers.clone().map(row))).await.unwrap();
    tape.sender(|sender| sender.acknowledged.extend(numbers));
}

/// Rows, seals, a file, another seal: everything that a day brings.
async fn script(home: &Path, immediate: bool) -> TapeDisk {
    let tape = TapeDisk::new(home);
    let node = TestNode::on_disk(home, Arc::new(tape.clone()));
    node.connect();
    node.run().await;
    node.partitioned("at");
    node.operator.set_threshold(None, None, None, None, Some(immediate)).unwrap();
    send(&node, &tape, 0..4).await;
    send(&node, &tape, 4..5).await;
    node.operator.flush().await.unwrap();
    send(&node, &tape, 5..8).await;
    eventually("they are stored while their segment is open", || node.integers("t", "n").contains(&LONG)).await;
    tape.keep("stored before the seal".into());
    tape.sender(|sender| sender.sent.extend(8..11));
    let file = SourceFile {
        dbms: "d".into(),
        table: "t".into(),
        source: "0".into(),
        instructions: "0".into(),
        rows: (8..11).map(row).collect(),
        origin: "test".into(),
    };
    let _ = node.slot.store_file(file).await.unwrap();
    tape.sender(|sender| sender.acknowledged.extend(8..11));
    // A file does not go through the journal: the databases are synced before its answer.
    tape.rely();
    // The other way from here on: a segment is immediate as a whole or not at all.
    node.operator.set_threshold(None, None, None, None, Some(!immediate)).unwrap();
    send(&node, &tape, 11..13).await;
    node.operator.flush().await.unwrap();
    tape.keep("the end".into());
    node.kill().await;
    tape
}

/// A way in which power may fail.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fate {
    /// Nothing that was not synced is there.
    Dropped,
    /// All bytes are there, synced or not.
    Kept,
    /// A part of the bytes that were not synced is there.
    Torn,
}

impl Fate {
    /// The journal that is left of a moment.
    pub(crate) fn left_of(self, moment: &Moment) -> TapeDisk {
        let journal = moment.journal.copy();
        journal.crash(|pending| match self {
            Fate::Dropped => 0,
            Fate::Kept => pending,
            Fate::Torn => pending / 3,
        });
        TapeDisk::after(journal)
    }
}

/// Starts from a moment. `older` is an earlier one, whose state the databases fell back to.
async fn recover(moment: &Moment, older: Option<&Moment>, fate: Fate) {
    let what = format!("before '{}', {fate:?}, databases of '{:?}'", moment.next, older.map(|older| &older.next));
    let home = tempfile::tempdir().unwrap();
    copy(moment.home.path(), home.path());
    if let Some(older) = older {
        fall_back(older.home.path(), home.path());
    }
    let node = TestNode::on_disk(home.path(), Arc::new(fate.left_of(moment)));
    node.connect();
    node.run().await;
    node.partitioned("at");
    eventually("the segments of the run before are sealed", || {
        node.operator.load().closing == 0
            && std::fs::read_dir(node.directory("watch_dir")).unwrap().next().is_none()
            && node.registered().iter().all(|(_, hash, _)| !hash.starts_with("open:"))
    })
    .await;
    // And it goes on from there.
    let _ = node.slot.append(rows("t", [row(100)])).await.unwrap();
    node.operator.flush().await.unwrap();
    let stored = node.integers("t", "n");
    let distinct: BTreeSet<i64> = stored.iter().copied().collect();
    assert_eq!(distinct.len(), stored.len(), "{what}: a row twice: {stored:?}");
    let lost: Vec<_> = moment.acknowledged.iter().filter(|n| !distinct.contains(n)).collect();
    assert!(lost.is_empty(), "{what}: acknowledged rows lost: {lost:?}");
    let strange: Vec<_> = distinct.iter().filter(|n| **n != 100 && !moment.sent.contains(n)).collect();
    assert!(strange.is_empty(), "{what}: rows that nobody sent: {strange:?}");
    files_agree(&node, &distinct, &what);
    node.kill().await;
}

/// Each row of the table in one source file, under its true hash, registered with as many rows as it has.
fn files_agree(node: &TestNode, stored: &BTreeSet<i64>, what: &str) {
    let registered: BTreeMap<i64, (String, i64)> =
        node.registered().into_iter().map(|(id, hash, rows)| (id, (hash, rows))).collect();
    let mut archived = BTreeMap::new();
    let mut files = BTreeSet::new();
    for (name, lines) in node.archived() {
        assert!(!name.ends_with(".tmp") || lines.is_empty(), "{what}: {name}");
        let parsed = SourceName::parse(&name).unwrap();
        let by = parsed.registration.clone().unwrap();
        let content: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let streamed = stream_hash("d", "t", content.as_bytes(), &by.member, &by.file_id.to_string());
        let whole = content_hash("d", "t", &[content.as_bytes()]);
        assert!(parsed.hash == streamed || parsed.hash == whole, "{what}: {name} has another hash");
        assert_eq!(registered.get(&by.file_id), Some(&(parsed.hash, lines.len() as i64)), "{what}: {name}");
        assert!(files.insert(by.file_id), "{what}: a second file of number {}", by.file_id);
        for line in lines {
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            let before = archived.insert(value["n"].as_i64().unwrap(), by.file_id);
            assert_eq!(before, None, "{what}: a row in two files: {line}");
        }
    }
    for (id, (hash, rows)) in &registered {
        assert!(files.contains(id) || (hash.starts_with("void:") && *rows == 0), "{what}: file {id} {hash} is missing");
    }
    let in_table: BTreeMap<i64, i64> = {
        let numbers = ordered(node, "n");
        numbers.into_iter().zip(ordered(node, "tsd_id")).collect()
    };
    assert_eq!(in_table.keys().copied().collect::<BTreeSet<_>>(), *stored);
    assert_eq!(in_table, archived, "{what}: rows and the files that they name");
}

/// A column of all rows, in the order of the rows.
fn ordered(node: &TestNode, column: &str) -> Vec<i64> {
    let database = node.catalog.get("d").unwrap();
    let mut values = Vec::new();
    for target in node.targets("t") {
        let sql = format!("SELECT {column} FROM {} ORDER BY row_id", target.physical());
        let mut visit = |_: &[String], row: Vec<anylog_dbms::SqlValue>| {
            if let Some(anylog_dbms::SqlValue::Int(value)) = row.first() {
                values.push(*value);
            }
            std::ops::ControlFlow::Continue(())
        };
        database.dbms().query(Some(&target), &sql, &mut visit).unwrap();
    }
    values
}

/// Puts the files of database `d` back to what they were. The registry and the ledger commit durably: they stay.
pub(crate) fn fall_back(older: &Path, home: &Path) {
    let (from, to) = (databases(older), databases(home));
    let own = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("d."));
    for entry in std::fs::read_dir(&to).into_iter().flatten().flatten().filter(|entry| own(&entry.path())) {
        if entry.path().is_dir() {
            std::fs::remove_dir_all(entry.path()).unwrap();
        } else {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    for entry in std::fs::read_dir(&from).into_iter().flatten().flatten().filter(|entry| own(&entry.path())) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The oldest moment whose databases a power failure may bring back: since then the journal did not say that it relies on them.
pub(crate) fn oldest_allowed(moments: &[Moment], at: usize) -> Option<&Moment> {
    let oldest = (0..at).rev().take_while(|earlier| moments[*earlier].relied == moments[at].relied).last()?;
    // A table is durable when its first row is journalled.
    moments.get(oldest).filter(|moment| databases(moment.home.path()).join("d.dbms").exists())
}

/// Starts from every moment of a run, in every variant.
async fn every_moment(immediate: bool) {
    let home = tempfile::tempdir().unwrap();
    let tape = script(home.path(), immediate).await;
    let moments = tape.moments();
    // Frames that come together are written by one operation, so their number varies.
    assert!(moments.len() > 20, "the script does something: {}", moments.len());
    for (at, moment) in moments.iter().enumerate() {
        recover(moment, None, Fate::Dropped).await;
        if moment.next.starts_with("sync") || moment.next.contains("second half") {
            recover(moment, None, Fate::Torn).await;
            recover(moment, None, Fate::Kept).await;
        }
        if let Some(older) = oldest_allowed(&moments, at) {
            recover(moment, Some(older), Fate::Dropped).await;
        }
    }
}

// DUR-1, DUR-2: written / synced / applied / archived / registered / sealed / removed: whichever is the last step before the
// power fails, every acknowledged row is in its table once and in one registered source file, and no other row is there twice.
#[tokio::test(flavor = "multi_thread")]
async fn power_may_fail_before_every_operation_of_an_immediate_run() {
    every_moment(true).await;
}

// DUR-1, DUR-2, as above.
#[tokio::test(flavor = "multi_thread")]
async fn power_may_fail_before_every_operation_of_a_buffered_run() {
    every_moment(false).await;
}
