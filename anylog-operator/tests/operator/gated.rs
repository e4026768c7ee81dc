//! A node whose journal lies on a disk whose syncs are in the hands of a test.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anylog_dbms::{SqlValue, Target};
use anylog_ingest::{Receipt, SinkError};
use anylog_operator::disk::{Disk, DiskFile, MemoryDisk};
use parking_lot::{Condvar, Mutex};
use tokio::task::JoinHandle;

use crate::harness::{TestNode, eventually, numbered, rows};

/// What becomes of a sync.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sync {
    #[default]
    Succeeds,
    /// Until something else is said.
    Hangs,
    Fails,
    Panics,
}

#[derive(Debug, Default)]
struct Gate {
    state: Mutex<GateState>,
    told: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    sync: Sync,
    /// Syncs that hang.
    hanging: usize,
    /// So many of them succeed all the same.
    passing: usize,
}

/// A disk whose syncs are in the hands of a test.
#[derive(Debug, Default, Clone)]
pub(crate) struct GatedDisk {
    pub(crate) disk: MemoryDisk,
    gate: Arc<Gate>,
}

impl GatedDisk {
    pub(crate) fn let_syncs(&self, sync: Sync) {
        self.gate.state.lock().sync = sync;
        self.gate.told.notify_all();
    }

    /// Lets one sync that hangs, or the next one, succeed.
    pub(crate) fn let_one_sync(&self) {
        self.gate.state.lock().passing += 1;
        self.gate.told.notify_all();
    }

    /// Syncs that hang.
    pub(crate) fn hanging(&self) -> usize {
        self.gate.state.lock().hanging
    }
}

impl GatedDisk {
    /// The journal in `own` as power that fails now leaves it, for a copy of the node's home: `keep` bytes of what was not synced.
    pub(crate) fn left_by_a_crash(&self, own: &Path, home: &Path, copy: &Path, keep: usize) -> MemoryDisk {
        let (left, other) = (MemoryDisk::default(), self.disk.copy());
        other.crash(|pending| pending.min(keep));
        let at = copy.join(own.strip_prefix(home).unwrap());
        for name in other.list(own).unwrap() {
            let mut file = left.create(&at.join(&name)).unwrap();
            file.append(&other.read(&own.join(&name)).unwrap()).unwrap();
            file.sync().unwrap();
        }
        left
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
        let mut state = self.gate.state.lock();
        state.hanging += 1;
        while state.sync == Sync::Hangs && state.passing == 0 {
            self.gate.told.wait(&mut state);
        }
        state.hanging -= 1;
        match state.sync {
            Sync::Hangs => state.passing -= 1,
            Sync::Fails => return Err(io::Error::other("a test lets the sync fail")),
            Sync::Panics => panic!("a test lets the journal panic"),
            Sync::Succeeds => {}
        }
        self.file.sync()
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
pub(crate) async fn gated(home: &Path) -> (TestNode, GatedDisk) {
    let disk = GatedDisk::default();
    let node = TestNode::on_disk(home, Arc::new(disk.clone()));
    node.connect();
    node.run().await;
    node.immediate().partitioned("insert_timestamp");
    let _ = node.slot.append(rows("t", numbered(0..1))).await.unwrap();
    (node, disk)
}

/// What a sender hears.
pub(crate) type Sent = Result<Receipt, SinkError>;

pub(crate) fn send(node: &TestNode, numbers: std::ops::Range<i64>) -> JoinHandle<Sent> {
    let slot = Arc::clone(&node.slot);
    tokio::spawn(async move { slot.append(rows("t", numbered(numbers))).await })
}

/// The partition that has the rows.
pub(crate) fn partition(node: &TestNode) -> Target {
    node.targets("t").pop().unwrap()
}

/// Rows that wait for the thread that stores them.
pub(crate) fn waiting(node: &TestNode) -> u64 {
    let queues = node.operator.queues();
    queues.iter().find(|queue| queue.name == "rows for database d").map_or(0, |queue| queue.used)
}

/// Memory of rows whose senders wait.
pub(crate) fn held(node: &TestNode) -> u64 {
    let queues = node.operator.queues();
    queues.iter().find(|queue| queue.name == "rows on their way").map_or(0, |queue| queue.used)
}

/// The file of a partition.
pub(crate) fn file_of(node: &TestNode, partition: &Target) -> PathBuf {
    let name = format!("{}.dbms", partition.physical());
    node.directory("dbms_dir").join("d.parts").join(&partition.table).join(name)
}

/// Whether somebody has a transaction open in the file of a partition.
pub(crate) fn is_written_to(node: &TestNode, partition: &Target) -> bool {
    let other = rusqlite::Connection::open(file_of(node, partition)).unwrap();
    other.busy_timeout(std::time::Duration::ZERO).unwrap();
    other.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_err()
}

/// Sends rows whose frame hangs in the journal's sync, and waits until they are in a transaction.
pub(crate) async fn sent_ahead(node: &TestNode, disk: &GatedDisk, numbers: std::ops::Range<i64>) -> JoinHandle<Sent> {
    disk.let_syncs(Sync::Hangs);
    let sending = send(node, numbers);
    let partition = partition(node);
    eventually("the rows are ahead of their frame", || disk.hanging() == 1 && is_written_to(node, &partition)).await;
    assert!(!sending.is_finished(), "an acknowledgement needs the frame");
    sending
}

/// The largest mark in a partition.
pub(crate) fn mark(node: &TestNode, partition: &Target) -> SqlValue {
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
pub(crate) async fn everywhere(node: &TestNode, expected: &[i64]) {
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
pub(crate) async fn after_power_loss(
    home: &Path,
    node: TestNode,
    disk: &GatedDisk,
    keep: fn(usize) -> usize,
) -> TestNode {
    node.kill().await;
    disk.disk.crash(keep);
    let node = TestNode::on_disk(home, Arc::new(disk.clone()));
    node.connect();
    node.run().await;
    node.immediate().partitioned("insert_timestamp");
    node
}
