//! Copies that stay open for long do not keep the journal.

use std::path::Path;
use std::sync::Arc;

use anylog_operator::journal::JournalLimits;
use anylog_operator::replica::Followers;
use anylog_operator::thresholds::ThresholdChange;
use anylog_replica::message::RowsHeld;

use crate::harness::{TestNode, eventually, rows};
use crate::replica_open::{Mates, rest};

fn row(n: i64) -> String {
    format!("{{\"at\": \"2026-03-0{}T10:00:00Z\", \"n\": {n}}}", 1 + n % 2)
}

/// A member whose journal has small files.
async fn member(home: &Path) -> TestNode {
    let node = TestNode::start(home);
    node.operator.set_journal_limits(JournalLimits { file_bytes: 2000, write_bytes: 2000, carry_bytes: 6000 });
    node.immediate().partitioned("at").connect();
    node.run_as(8).await;
    node
}

/// The numbers of the journal's files.
fn journal(node: &TestNode) -> Vec<u32> {
    let names = std::fs::read_dir(node.directory("journal_dir")).unwrap();
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut numbers: Vec<u32> = names.filter_map(|entry| name(entry).strip_suffix(".journal")?.parse().ok()).collect();
    numbers.sort_unstable();
    numbers
}

/// Own rows that are sealed, until the journal's oldest file is younger than `file`.
async fn go_on_until_gone(node: &TestNode, file: u32) {
    for n in 0..400 {
        if journal(node).first().is_none_or(|oldest| *oldest > file) {
            return;
        }
        let own = (0..20).map(|at| row(10_000 + n * 20 + at));
        let _ = node.slot.append(rows("own", own)).await.unwrap();
        node.operator.flush().await.unwrap();
    }
    panic!("the journal keeps its files: {:?}", journal(node));
}

// R23: a producer that is away for long costs the rows that it left, and not the journal behind them. They are carried on, over starts,
// each once; rows of a dropped partition do not come back by it.
#[tokio::test(flavor = "multi_thread")]
async fn an_open_copy_does_not_keep_the_journal() {
    let (home, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let a = TestNode::running(home.path()).await;
    let mates = Mates::reachable(2);
    a.operator.follow(Some(Arc::clone(&mates) as Arc<dyn Followers>)).unwrap();
    let two = ThresholdChange { copies: Some(2), ..ThresholdChange::default() };
    a.operator.change_threshold(None, None, two).unwrap();
    let b = member(other.path()).await;
    let mut held = RowsHeld { producer: 7, file: 1, ordinal: 0 };
    for n in 0..6 {
        let sending = tokio::spawn({
            let (slot, group) = (Arc::clone(&a.slot), rows("t", (n * 5..n * 5 + 5).map(row)));
            async move { slot.append(group).await }
        });
        let file = held.key();
        eventually("they are in the journal", || mates.written_of(file) == held.ordinal + 5).await;
        for message in rest(&a.operator, held) {
            held = b.operator.store_rows(message).await.unwrap();
        }
        mates.has(held);
        let _ = sending.await.unwrap().unwrap();
    }
    eventually("they are stored", || b.count("t") == 30).await;
    let first = *journal(&b).last().unwrap();
    let database = b.catalog.get("d").unwrap();
    let dropped = database.dbms().partitions("t").unwrap().remove(0);
    b.catalog.drop_partition(&database, "t", &dropped).unwrap();
    drop(database);
    assert_eq!(b.count("t"), 15);
    go_on_until_gone(&b, first).await;
    let there = rest(&a.operator, RowsHeld { ordinal: 0, ..held });
    let here = rest(&b.operator, RowsHeld { ordinal: 0, ..held });
    assert_eq!(here[0].runs, there[0].runs, "all is there, in its order");
    b.kill().await;
    let b = member(other.path()).await;
    assert_eq!(b.operator.open_files().unwrap(), [held]);
    assert_eq!(b.count("t"), 15, "what was dropped stays away");
    let first = *journal(&b).last().unwrap();
    go_on_until_gone(&b, first).await;
    b.kill().await;
    let b = member(other.path()).await;
    assert_eq!((b.operator.open_files().unwrap(), b.count("t")), (vec![held], 15));
    a.operator.flush().await.unwrap();
    b.operator.seal_copy(mates.sealed()[0].0.clone()).await.unwrap();
    let of_producer = |files: Vec<(String, Vec<String>)>| -> Vec<_> {
        files.into_iter().filter(|(name, _)| name.contains(".t.")).collect()
    };
    assert_eq!(of_producer(a.archived()), of_producer(b.archived()));
    assert_eq!((b.count("t"), b.count("own") % 20), (15, 0));
}
