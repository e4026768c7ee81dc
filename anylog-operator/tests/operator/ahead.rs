//! Rows that are in a transaction of their database while the journal writes them.

use std::io;
use std::path::Path;
use std::sync::Arc;

use anylog_dbms::{ConnectRequest, DbmsError, SqlValue, Target};
use anylog_ingest::{Receipt, SinkError};
use anylog_operator::disk::{Disk, DiskFile, MemoryDisk};
use parking_lot::{Condvar, Mutex};
use tokio::task::JoinHandle;

use crate::harness::{TestNode, eventually, numbered, rows};

/// What becomes of a sync.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Sync {
    #[default]
    Succeeds,
    /// Until something else is said.
    Hangs,
    Fails,
    Panics,
}

#[derive(Debug, Default)]
struct Gate {
    sync: Mutex<(Sync, usize)>,
    told: Condvar,
}

/// A disk whose syncs are in the hands of a test.
#[derive(Debug, Default, Clone)]
struct GatedDisk {
    disk: MemoryDisk,
    gate: Arc<Gate>,
}

impl GatedDisk {
    fn let_syncs(&self, sync: Sync) {
        self.gate.sync.lock().0 = sync;
        self.gate.told.notify_all();
    }

    /// Syncs that hang.
    fn hanging(&self) -> usize {
        self.gate.sync.lock().1
    }
}

struct GatedFile {
    file: Box<dyn DiskFile>,
    gate: Arc<Gate>,
}

impl DiskFile for GatedFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.append(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut sync = self.gate.sync.lock();
        sync.1 += 1;
        while sync.0 == Sync::Hangs {
            self.gate.told.wait(&mut sync);
        }
        sync.1 -= 1;
        match sync.0 {
            Sync::Fails => Err(io::Error::other("a test lets the sync fail")),
            Sync::Panics => panic!("a test lets the journal panic"),
            _ => self.file.sync(),
        }
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.file.truncate(length)
    }
}

impl Disk for GatedDisk {
    fn create_directory(&self, directory: &Path) -> io::Result<()> {
        self.disk.create_directory(directory)
    }
    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.disk.list(directory)
    }
    fn length(&self, path: &Path) -> io::Result<u64> {
        self.disk.length(path)
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.disk.read(path)
    }
    fn read_pieces(&self, path: &Path, pieces: &[(u64, usize)]) -> io::Result<Vec<Vec<u8>>> {
        self.disk.read_pieces(path, pieces)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(GatedFile { file: self.disk.create(path)?, gate: Arc::clone(&self.gate) }))
    }
    fn truncate(&self, path: &Path, length: u64) -> io::Result<()> {
        self.disk.truncate(path, length)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }
}

/// A node on such a disk, with one row in its table.
async fn gated(home: &Path) -> (TestNode, GatedDisk) {
    let disk = GatedDisk::default();
    let node = TestNode::on_disk(home, Arc::new(disk.clone()));
    node.connect();
    node.run().await;
    node.immediate().partitioned("insert_timestamp");
    let _ = node.slot.append(rows("t", numbered(0..1))).await.unwrap();
    (node, disk)
}

fn send(node: &TestNode, numbers: std::ops::Range<i64>) -> JoinHandle<Result<Receipt, SinkError>> {
    let slot = Arc::clone(&node.slot);
    tokio::spawn(async move { slot.append(rows("t", numbered(numbers))).await })
}

/// The partition that has the rows.
fn partition(node: &TestNode) -> Target {
    node.targets("t").pop().unwrap()
}

/// Whether somebody has a transaction open in the file of a partition.
fn is_written_to(node: &TestNode, partition: &Target) -> bool {
    let name = format!("{}.dbms", partition.physical());
    let path = node.directory("dbms_dir").join("d.parts").join(&partition.table).join(name);
    let other = rusqlite::Connection::open(path).unwrap();
    other.busy_timeout(std::time::Duration::ZERO).unwrap();
    other.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_err()
}

/// Sends rows whose frame hangs in the journal's sync, and waits until they are in a transaction.
async fn sent_ahead(
    node: &TestNode,
    disk: &GatedDisk,
    numbers: std::ops::Range<i64>,
) -> JoinHandle<Result<Receipt, SinkError>> {
    disk.let_syncs(Sync::Hangs);
    let sending = send(node, numbers);
    let partition = partition(node);
    eventually("the rows are ahead of their frame", || disk.hanging() == 1 && is_written_to(node, &partition)).await;
    assert!(!sending.is_finished(), "an acknowledgement needs the frame");
    sending
}

/// The largest mark in a partition.
fn mark(node: &TestNode, partition: &Target) -> SqlValue {
    let mut mark = SqlValue::Null;
    let mut visit = |_: &[String], mut row: Vec<SqlValue>| {
        mark = row.remove(0);
        std::ops::ControlFlow::Continue(())
    };
    let database = node.catalog.get("d").unwrap();
    let sql = "SELECT max(last_ordinal) FROM anylog_applied";
    database.dbms().query(Some(partition), sql, &mut visit).unwrap();
    mark
}

/// Table, source files and registry tell of the same rows.
async fn everywhere(node: &TestNode, expected: &[i64]) {
    eventually("nothing is to be sealed", || {
        node.operator.load().closing == 0 && node.registered().iter().all(|(_, hash, _)| !hash.starts_with("open:"))
    })
    .await;
    assert_eq!(node.integers("t", "n"), expected);
    let mut archived: Vec<String> = node.archived().into_iter().flat_map(|(_, rows)| rows).collect();
    archived.sort();
    let mut lines: Vec<String> = expected.iter().map(|n| format!("{{\"n\": {n}}}")).collect();
    lines.sort();
    assert_eq!(archived, lines);
    assert_eq!(node.registered().iter().map(|(_, _, rows)| *rows as usize).sum::<usize>(), expected.len());
}

/// The same node after a loss of power that left a part of what was not synced.
async fn after_power_loss(home: &Path, node: TestNode, disk: &GatedDisk, keep: fn(usize) -> usize) -> TestNode {
    node.kill().await;
    disk.disk.crash(keep);
    let node = TestNode::on_disk(home, Arc::new(disk.clone()));
    node.connect();
    node.run().await;
    node.immediate().partitioned("insert_timestamp");
    node
}

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
        let journal = MemoryDisk::default();
        let (own, other) = (node.directory("journal_dir"), disk.disk.copy());
        other.crash(|pending| pending.min(keep));
        let at = left.path().join(own.strip_prefix(home.path()).unwrap());
        for name in other.list(&own).unwrap() {
            let mut file = journal.create(&at.join(&name)).unwrap();
            file.append(&other.read(&own.join(&name)).unwrap()).unwrap();
            file.sync().unwrap();
        }
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
    let name = format!("{}.dbms", partition.physical());
    let path = node.directory("dbms_dir").join("d.parts/t").join(name);
    let sql = format!("CREATE UNIQUE INDEX one_of_each ON {}(n)", partition.physical());
    rusqlite::Connection::open(path).unwrap().execute_batch(&sql).unwrap();
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
