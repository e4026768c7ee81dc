//! Rows that are in a transaction of their database while the journal writes them.

use std::sync::Arc;

use anylog_dbms::{ConnectRequest, DbmsError, SqlValue};

use crate::gated::{
    GatedDisk, Sync, after_power_loss, everywhere, file_of, gated, is_written_to, mark, partition, send, sent_ahead,
};
use crate::harness::{TestNode, eventually, numbered, rows};

// DUR-1: nobody sees a row, and no mark covers one, before its frame is on stable storage.
#[tokio::test(flavor = "multi_thread")]
async fn rows_are_there_when_their_frame_is() {
    let home = tempfile::tempdir().unwrap();
    let (node, disk) = gated(home.path()).await;
    let sending = sent_ahead(&node, &disk, 1..4).await;
    assert_eq!(node.integers("t", "n"), [0]);
    assert_eq!(mark(&node, &partition(&node)), SqlValue::Int(1));
    disk.let_syncs(Sync::Succeeds);
    assert_eq!(sending.await.unwrap().unwrap().stored(), 3);
    assert_eq!(node.integers("t", "n"), [0, 1, 2, 3]);
    node.operator.flush().await.unwrap();
    everywhere(&node, &[0, 1, 2, 3]).await;
}

// DUR-1: the same of a database in memory, whose readers see what is not committed.
#[tokio::test(flavor = "multi_thread")]
async fn rows_in_memory_are_there_when_their_frame_is() {
    let home = tempfile::tempdir().unwrap();
    let disk = GatedDisk::default();
    let node = TestNode::on_disk(home.path(), Arc::new(disk.clone()));
    let almgm = node.catalog.connect(ConnectRequest::sqlite("almgm", node.directory("dbms_dir"))).unwrap();
    almgm.tsd().unwrap().create().unwrap();
    node.catalog.connect(ConnectRequest::sqlite_memory("d")).unwrap();
    node.run().await;
    node.immediate();
    let _ = node.slot.append(rows("t", numbered(0..1))).await.unwrap();
    disk.let_syncs(Sync::Hangs);
    let sending = send(&node, 1..4);
    eventually("the frame is being written", || disk.hanging() == 1).await;
    assert_eq!(node.integers("t", "n"), [0]);
    disk.let_syncs(Sync::Fails);
    sending.await.unwrap().unwrap_err();
    disk.let_syncs(Sync::Succeeds);
    let _ = node.slot.append(rows("t", numbered(4..5))).await.unwrap();
    assert_eq!(node.integers("t", "n"), [0, 4]);
}

// DUR-1, DUR-2: a frame that is lost leaves nothing behind, and disturbs nobody who comes later.
#[tokio::test(flavor = "multi_thread")]
async fn rows_whose_frame_is_lost_are_nowhere() {
    for keep in [|_| 0, |pending| pending] {
        let home = tempfile::tempdir().unwrap();
        let (node, disk) = gated(home.path()).await;
        let sending = sent_ahead(&node, &disk, 1..4).await;
        // One that is written after it.
        let next = send(&node, 4..5);
        disk.let_syncs(Sync::Fails);
        let error = sending.await.unwrap().unwrap_err();
        assert!(error.to_string().contains("a test lets the sync fail"), "{error}");
        next.await.unwrap().unwrap_err();
        assert_eq!(node.integers("t", "n"), [0]);
        assert_eq!(mark(&node, &partition(&node)), SqlValue::Int(1));
        disk.let_syncs(Sync::Succeeds);
        let _ = node.slot.append(rows("t", numbered(5..7))).await.unwrap();
        assert_eq!(node.integers("t", "n"), [0, 5, 6]);
        assert_eq!(node.operator.load().memory, 0, "nothing is held");
        let node = after_power_loss(home.path(), node, &disk, keep).await;
        everywhere(&node, &[0, 5, 6]).await;
        let _ = node.slot.append(rows("t", numbered(7..8))).await.unwrap();
        node.operator.flush().await.unwrap();
        everywhere(&node, &[0, 5, 6, 7]).await;
    }
}

// A segment with a lost frame is sealed as any other.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_frame_does_not_keep_its_segment_open() {
    let home = tempfile::tempdir().unwrap();
    let (node, disk) = gated(home.path()).await;
    let sending = sent_ahead(&node, &disk, 1..4).await;
    disk.let_syncs(Sync::Fails);
    sending.await.unwrap().unwrap_err();
    disk.let_syncs(Sync::Succeeds);
    assert_eq!(node.operator.flush().await.unwrap(), 1);
    everywhere(&node, &[0]).await;
}

// DUR-1, DUR-2: power fails while rows are ahead of their frame, and between the frame's sync and the commit, which are the same to the
// database: its log may hold pages of a transaction that was not committed.
#[tokio::test(flavor = "multi_thread")]
async fn rows_ahead_survive_power_loss_by_their_frame_alone() {
    for (keep, expected) in [(0, &[0][..]), (usize::MAX, &[0, 1, 2, 3])] {
        let (home, left) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (node, disk) = gated(home.path()).await;
        let sending = sent_ahead(&node, &disk, 1..4).await;
        crate::restart::copy(home.path(), left.path());
        let journal = disk.left_by_a_crash(&node.directory("journal_dir"), home.path(), left.path(), keep);
        disk.let_syncs(Sync::Succeeds);
        let _ = sending.await.unwrap().unwrap();
        node.kill().await;
        let node = TestNode::on_disk(left.path(), Arc::new(journal));
        node.connect();
        node.run().await;
        everywhere(&node, expected).await;
    }
}

// What was on its way when its partition was dropped went with it, at once and after a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_is_dropped_while_rows_are_ahead() {
    let home = tempfile::tempdir().unwrap();
    let (node, disk) = gated(home.path()).await;
    let sending = sent_ahead(&node, &disk, 1..4).await;
    let (catalog, partition) = (Arc::clone(&node.catalog), partition(&node));
    let dropping = tokio::task::spawn_blocking(move || -> Result<(), DbmsError> {
        let database = catalog.get("d")?;
        catalog.drop_partition(&database, "t", partition.physical()).map(drop)
    });
    disk.let_syncs(Sync::Succeeds);
    let _ = sending.await.unwrap().unwrap();
    dropping.await.unwrap().unwrap();
    assert_eq!(node.count("t"), 0);
    let _ = node.slot.append(rows("t", numbered(9..10))).await.unwrap();
    assert_eq!(node.integers("t", "n"), [9]);
    let node = after_power_loss(home.path(), node, &disk, |_| 0).await;
    assert_eq!(node.integers("t", "n"), [9]);
}

// DUR-1: the database is free again, nothing of the rows is in it, and senders hear of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_panics_holds_nobody_up() {
    let home = tempfile::tempdir().unwrap();
    let (node, disk) = gated(home.path()).await;
    let sending = sent_ahead(&node, &disk, 1..4).await;
    disk.let_syncs(Sync::Panics);
    sending.await.unwrap().unwrap_err();
    let partition = partition(&node);
    eventually("the transaction is undone", || !is_written_to(&node, &partition)).await;
    assert_eq!(node.integers("t", "n"), [0]);
    node.slot.append(rows("t", numbered(4..5))).await.unwrap_err();
    disk.let_syncs(Sync::Succeeds);
    let node = after_power_loss(home.path(), node, &disk, |_| 0).await;
    everywhere(&node, &[0]).await;
    let _ = node.slot.append(rows("t", numbered(5..6))).await.unwrap();
    assert_eq!(node.integers("t", "n"), [0, 5]);
}

// R13: a row that the engine refuses is found while the frame is on its way, and put aside when it landed.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_row_waits_for_the_frame() {
    let home = tempfile::tempdir().unwrap();
    let (node, disk) = gated(home.path()).await;
    let partition = partition(&node);
    let sql = format!("CREATE UNIQUE INDEX one_of_each ON {}(n)", partition.physical());
    rusqlite::Connection::open(file_of(&node, &partition)).unwrap().execute_batch(&sql).unwrap();
    disk.let_syncs(Sync::Hangs);
    let slot = Arc::clone(&node.slot);
    let sending = tokio::spawn(async move { slot.append(rows("t", numbered(0..3))).await });
    eventually("the frame is being written", || disk.hanging() == 1).await;
    assert!(node.operator.quarantined().unwrap().is_empty());
    disk.let_syncs(Sync::Succeeds);
    let receipt = sending.await.unwrap().unwrap();
    assert_eq!((receipt.stored(), receipt.refused().len()), (2, 1));
    assert_eq!(node.integers("t", "n"), [0, 1, 2]);
    assert_eq!(node.operator.quarantined().unwrap().len(), 1);
}
