//! Transactions that grow while more rows come, whose rows are acknowledged before they end.

use std::sync::Arc;

use anylog_dbms::DbmsError;
use anylog_ingest::Behind;
use tokio::task::JoinHandle;

use crate::gated::{
    GatedDisk, Sent, Sync, after_power_loss, everywhere, file_of, gated, held, is_written_to, partition, send,
    sent_ahead, waiting,
};
use crate::harness::{TestNode, eventually, numbered, rows};

/// Rows 1 to 3 are acknowledged, in a transaction that waits for the frame of row 4.
async fn acknowledged_and_open(node: &TestNode, disk: &GatedDisk) -> JoinHandle<Sent> {
    let sending = sent_ahead(node, disk, 1..4).await;
    let before = held(node);
    let next = send(node, 4..5);
    eventually("the next row is on its way", || held(node) > before).await;
    disk.let_one_sync();
    assert_eq!(sending.await.unwrap().unwrap().stored(), 3);
    let partition = partition(node);
    eventually("the next row waits for its frame", || disk.hanging() == 1 && is_written_to(node, &partition)).await;
    assert!(!next.is_finished());
    next
}

// DUR-1: who asks finds what was acknowledged, and nothing that is not on stable storage, however long the journal takes.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_is_found() {
    let home = tempfile::tempdir().unwrap();
    let (node, disk) = gated(home.path()).await;
    let next = acknowledged_and_open(&node, &disk).await;
    assert_eq!(node.integers("t", "n"), [0, 1, 2, 3]);
    assert!(!next.is_finished());
    disk.let_syncs(Sync::Succeeds);
    let _ = next.await.unwrap().unwrap();
    assert_eq!(node.integers("t", "n"), [0, 1, 2, 3, 4]);
    node.operator.flush().await.unwrap();
    everywhere(&node, &[0, 1, 2, 3, 4]).await;
}

// DUR-1, DUR-2: rows that are acknowledged do not go with those that follow them and are lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_frame_takes_no_acknowledged_row_with_it() {
    for keep in [|_| 0, |pending| pending] {
        let home = tempfile::tempdir().unwrap();
        let (node, disk) = gated(home.path()).await;
        let next = acknowledged_and_open(&node, &disk).await;
        disk.let_syncs(Sync::Fails);
        next.await.unwrap().unwrap_err();
        assert_eq!(node.integers("t", "n"), [0, 1, 2, 3]);
        disk.let_syncs(Sync::Succeeds);
        let _ = node.slot.append(rows("t", numbered(5..6))).await.unwrap();
        assert_eq!(node.operator.load().memory, 0, "nothing is held");
        let node = after_power_loss(home.path(), node, &disk, keep).await;
        everywhere(&node, &[0, 1, 2, 3, 5]).await;
    }
}

// R13: nor with one that the engine refuses.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_row_takes_no_acknowledged_row_with_it() {
    let home = tempfile::tempdir().unwrap();
    let (node, disk) = gated(home.path()).await;
    let partition = partition(&node);
    let sql = format!("CREATE UNIQUE INDEX one_of_each ON {}(n)", partition.physical());
    rusqlite::Connection::open(file_of(&node, &partition)).unwrap().execute_batch(&sql).unwrap();
    let next = acknowledged_and_open(&node, &disk).await;
    // Row 2 is there.
    let before = held(&node);
    let again = send(&node, 2..3);
    eventually("it is on its way", || held(&node) > before).await;
    assert_eq!(node.integers("t", "n"), [0, 1, 2, 3]);
    disk.let_syncs(Sync::Succeeds);
    let (next, again) = (next.await.unwrap().unwrap(), again.await.unwrap().unwrap());
    assert_eq!((next.stored(), again.stored(), again.refused().len()), (1, 0, 1));
    assert_eq!(node.integers("t", "n"), [0, 1, 2, 3, 4]);
    assert_eq!(node.operator.quarantined().unwrap().len(), 1);
}

// DUR-1, DUR-5: nor with some for which there is no space: these wait for it, and none of them is refused.
#[tokio::test(flavor = "multi_thread")]
async fn rows_without_space_take_no_acknowledged_row_with_them() {
    let home = tempfile::tempdir().unwrap();
    let disk = GatedDisk::default();
    let node = TestNode::on_disk(home.path(), Arc::new(disk.clone()));
    node.connect();
    node.run().await;
    node.immediate();
    let _ = node.slot.append(rows("t", numbered(0..1))).await.unwrap();
    let database = node.catalog.get("d").unwrap();
    database.dbms().execute("PRAGMA max_page_count=16").unwrap();
    disk.let_syncs(Sync::Hangs);
    let sending = send(&node, 1..4);
    eventually("they are ahead of their frame", || disk.hanging() == 1 && waiting(&node) == 0).await;
    let before = held(&node);
    let next = send(&node, 4..4000);
    eventually("the next rows are on their way", || held(&node) > before).await;
    disk.let_one_sync();
    assert_eq!(sending.await.unwrap().unwrap().stored(), 3);
    assert_eq!(node.integers("t", "n"), [0, 1, 2, 3]);
    disk.let_syncs(Sync::Succeeds);
    let fails = || node.operator.queues().iter().any(|queue| queue.name == "database d");
    eventually("there is no space for the next", fails).await;
    assert_eq!(node.integers("t", "n"), [0, 1, 2, 3]);
    database.dbms().execute("PRAGMA max_page_count=100000").unwrap();
    assert_eq!(next.await.unwrap().unwrap().stored(), 3996);
    assert_eq!(node.integers("t", "n"), (0..4000).collect::<Vec<_>>());
    assert!(node.operator.quarantined().unwrap().is_empty());
}

// DUR-2: power fails while acknowledged rows are in a transaction.
#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_rows_survive_their_transaction() {
    let (home, left) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (node, disk) = gated(home.path()).await;
    let next = acknowledged_and_open(&node, &disk).await;
    crate::restart::copy(home.path(), left.path());
    let journal = disk.left_by_a_crash(&node.directory("journal_dir"), home.path(), left.path(), 0);
    disk.let_syncs(Sync::Succeeds);
    let _ = next.await.unwrap().unwrap();
    node.kill().await;
    let node = TestNode::on_disk(left.path(), Arc::new(journal));
    node.connect();
    node.run().await;
    everywhere(&node, &[0, 1, 2, 3]).await;
}

// Rows that were acknowledged go with their partition, as others do.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_is_dropped_with_acknowledged_rows_on_their_way() {
    let home = tempfile::tempdir().unwrap();
    let (node, disk) = gated(home.path()).await;
    let next = acknowledged_and_open(&node, &disk).await;
    let (catalog, partition) = (Arc::clone(&node.catalog), partition(&node));
    let dropping = tokio::task::spawn_blocking(move || -> Result<(), DbmsError> {
        let database = catalog.get("d")?;
        catalog.drop_partition(&database, "t", partition.physical()).map(drop)
    });
    disk.let_syncs(Sync::Succeeds);
    let _ = next.await.unwrap().unwrap();
    dropping.await.unwrap().unwrap();
    assert_eq!(node.count("t"), 0);
    let node = after_power_loss(home.path(), node, &disk, |_| 0).await;
    assert_eq!(node.count("t"), 0);
}

// DUR-1: when all are answered, all are committed: whoever opens the file finds them.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn when_all_are_answered_all_are_committed() {
    let home = tempfile::tempdir().unwrap();
    let (node, _disk) = gated(home.path()).await;
    let file = rusqlite::Connection::open(file_of(&node, &partition(&node))).unwrap();
    let sql = format!("SELECT count(*) FROM {}", partition(&node).physical());
    let mut sent = 1;
    for round in 0..100 {
        let senders: Vec<_> =
            (0..1 + round % 7).map(|sender| send(&node, sent + sender * 3..sent + sender * 3 + 3)).collect();
        for sender in senders {
            sent += sender.await.unwrap().unwrap().stored() as i64;
        }
        let found: i64 = file.query_row(&sql, (), |row| row.get(0)).unwrap();
        assert_eq!(found, sent, "round {round}");
    }
    assert_eq!(node.integers("t", "n"), (0..sent).collect::<Vec<_>>());
}

// DUR-1: rows behind which others are known to come are acknowledged before these are here, and found.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_others_follow_are_found_and_stored_without_them() {
    let home = tempfile::tempdir().unwrap();
    let (node, _disk) = gated(home.path()).await;
    let behind = Behind::default();
    behind.set(1);
    let file = rusqlite::Connection::open(file_of(&node, &partition(&node))).unwrap();
    let sql = format!("SELECT count(*) FROM {}", partition(&node).physical());
    for number in 1..50 {
        let group = anylog_ingest::RowGroup { behind: behind.clone(), ..rows("t", numbered(number..number + 1)) };
        let _ = node.slot.append(group).await.unwrap();
        if number % 2 == 0 {
            assert_eq!(node.integers("t", "n"), (0..=number).collect::<Vec<_>>());
        }
    }
    // Those who were to follow do not come.
    eventually("all are committed", || file.query_row(&sql, (), |row| row.get::<_, i64>(0)).unwrap() == 50).await;
}
