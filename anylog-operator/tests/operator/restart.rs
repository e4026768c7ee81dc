//! A node that ends without a word and comes back.

use std::path::Path;

use std::sync::Arc;

use anylog_ingest::SinkError;
use anylog_operator::disk::{Disk, MemoryDisk};

use crate::harness::{TestNode, eventually, numbered, rows};

pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).into_iter().flatten() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn replace(part: &str, from: &Path, home: &Path) {
    let target = home.join("AnyLog-Network/data").join(part);
    std::fs::remove_dir_all(&target).unwrap();
    copy(&from.join("AnyLog-Network/data").join(part), &target);
}

async fn sealed_everywhere(node: &TestNode, count: i64) {
    eventually("the segments of the run before are sealed", || {
        node.operator.load().closing == 0 && node.registered().iter().all(|(_, hash, _)| !hash.starts_with("open:"))
    })
    .await;
    assert_eq!(node.integers("t", "n"), (0..count).collect::<Vec<_>>(), "each row once");
    assert_eq!(node.registered().iter().map(|(_, _, rows)| rows).sum::<i64>(), count);
    let mut archived: Vec<String> = node.archived().into_iter().flat_map(|(_, rows)| rows).collect();
    archived.sort_by_key(|row| row.trim_matches(|c: char| !c.is_ascii_digit()).parse::<i64>().unwrap());
    assert_eq!(archived, numbered(0..count), "each row in one source file");
}

// DUR-2: rows that were acknowledged in buffered mode are applied inside `connect dbms`, before anybody sees the database.
#[tokio::test(flavor = "multi_thread")]
async fn buffered_rows_are_replayed_before_the_database_is_offered() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::running(home.path()).await;
    node.partitioned("insert_timestamp");
    for n in 0..5 {
        let _ = node.slot.append(rows("t", numbered(n * 2..n * 2 + 2))).await.unwrap();
    }
    assert_eq!(node.count("t"), 0);
    node.kill().await;
    let node = TestNode::start(home.path());
    node.connect();
    assert_eq!(node.integers("t", "n"), (0..10).collect::<Vec<_>>());
    node.run().await;
    sealed_everywhere(&node, 10).await;
}

// DUR-2: rows of a segment of which some were stored while it filled, and some were in memory, are there once each.
#[tokio::test(flavor = "multi_thread")]
async fn a_buffered_segment_that_is_half_stored_is_finished() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::running(home.path()).await;
    node.partitioned("insert_timestamp");
    node.operator.set_threshold(None, None, None, Some(64 << 20), None).unwrap();
    for group in 0..8 {
        let _ = node.slot.append(rows("t", numbered(group * 1000..group * 1000 + 1000))).await.unwrap();
    }
    eventually("some are stored", || node.count("t") > 0).await;
    let _ = node.slot.append(rows("t", numbered(8000..8010))).await.unwrap();
    node.kill().await;
    let node = TestNode::running(home.path()).await;
    sealed_everywhere(&node, 8010).await;
}

// DUR-2: rows that are in the database already are not repeated, through several restarts.
#[tokio::test(flavor = "multi_thread")]
async fn immediate_rows_are_not_repeated() {
    let home = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let node = TestNode::running(home.path()).await;
        node.immediate().partitioned("insert_timestamp");
        let _ = node.slot.append(rows("t", numbered(round * 10..round * 10 + 10))).await.unwrap();
        node.kill().await;
    }
    let node = TestNode::running(home.path()).await;
    sealed_everywhere(&node, 30).await;
}

// DUR-1: the journal is the point of durability: a database that lost its last commits gets them back.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_database_lost_comes_back_from_the_journal() {
    let (home, before) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let node = TestNode::running(home.path()).await;
    node.immediate().partitioned("insert_timestamp");
    let _ = node.slot.append(rows("t", numbered(0..4))).await.unwrap();
    copy(home.path(), before.path());
    let _ = node.slot.append(rows("t", numbered(4..9))).await.unwrap();
    assert_eq!(node.count("t"), 9);
    node.kill().await;
    replace("dbms", before.path(), home.path());
    let node = TestNode::running(home.path()).await;
    sealed_everywhere(&node, 9).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_lost_everything_is_made_again() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::running(home.path()).await;
    node.immediate().partitioned("insert_timestamp");
    let _ = node.slot.append(rows("t", numbered(0..4))).await.unwrap();
    let directory = node.directory("dbms_dir");
    node.kill().await;
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("d.") {
            if path.is_dir() { std::fs::remove_dir_all(path).unwrap() } else { std::fs::remove_file(path).unwrap() }
        }
    }
    let node = TestNode::running(home.path()).await;
    sealed_everywhere(&node, 4).await;
}

// Every step of a seal can be repeated: states that a crash leaves between two steps, composed of copies of before and after.
#[tokio::test(flavor = "multi_thread")]
async fn a_seal_is_finished_from_wherever_it_stopped() {
    for (immediate, after) in [
        (true, &["archive"][..]),
        (false, &["archive"][..]),
        (true, &["archive", "dbms"][..]),
        (false, &["archive", "dbms"][..]),
        (true, &["archive", "dbms", "journal"][..]),
    ] {
        let (home, open, sealed) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let node = TestNode::running(home.path()).await;
        node.partitioned("insert_timestamp");
        node.operator.set_threshold(None, None, None, None, Some(immediate)).unwrap();
        let _ = node.slot.append(rows("t", numbered(0..6))).await.unwrap();
        copy(home.path(), open.path());
        node.operator.flush().await.unwrap();
        copy(home.path(), sealed.path());
        node.kill().await;
        for part in after {
            replace(part, sealed.path(), open.path());
        }
        let node = TestNode::running(open.path()).await;
        sealed_everywhere(&node, 6).await;
        assert_eq!(node.archived().len(), 1, "a repeated seal makes the same file");
    }
}

// R8, DUR-4: a damaged journal costs the damaged message, is kept and named, and stops nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_journal_does_not_stop_the_start() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::running(home.path()).await;
    for n in 0..3 {
        let _ = node.slot.append(rows("t", numbered(n..n + 1))).await.unwrap();
    }
    let (journal, errors) = (node.directory("journal_dir"), node.directory("err_dir"));
    node.kill().await;
    let file = std::fs::read_dir(&journal).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    std::fs::write(&file, bytes).unwrap();
    let node = TestNode::running(home.path()).await;
    assert_eq!(node.integers("t", "n"), [0, 2]);
    let kept = std::fs::read_dir(&errors).unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    assert_eq!(kept.filter(|name| name.ends_with(".damaged")).count(), 1);
    assert!(node.node.errors.messages().iter().any(|message| message.text.contains("is damaged at byte")));
    let _ = node.slot.append(rows("t", numbered(3..4))).await.unwrap();
    node.operator.flush().await.unwrap();
    assert_eq!(node.integers("t", "n"), [0, 2, 3]);
}

// A dropped partition stays dropped, whatever the journal still holds.
#[tokio::test(flavor = "multi_thread")]
async fn replay_does_not_bring_dropped_rows_back() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::running(home.path()).await;
    node.immediate().partitioned("insert_timestamp");
    let _ = node.slot.append(rows("t", numbered(0..2))).await.unwrap();
    let partition = node.targets("t")[1].partition.clone().unwrap();
    node.catalog.drop_partition(&node.catalog.get("d").unwrap(), "t", &partition).unwrap();
    let _ = node.slot.append(rows("t", numbered(2..3))).await.unwrap();
    node.kill().await;
    let node = TestNode::running(home.path()).await;
    assert_eq!(node.integers("t", "n"), [2]);
}

// The same of the rows of a table without partitions: neither sealing nor replay makes the table again for them.
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_table_stays_dropped() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::running(home.path()).await;
    node.immediate();
    let _ = node.slot.append(rows("t", numbered(0..2))).await.unwrap();
    let database = node.catalog.get("d").unwrap();
    node.catalog.drop_table(&database, "t").unwrap();
    node.operator.flush().await.unwrap();
    assert_eq!(database.dbms().schema("t").unwrap(), None, "sealing does not bring dropped rows back");
    let _ = node.slot.append(rows("t", numbered(2..3))).await.unwrap();
    assert_eq!(node.integers("t", "n"), [2]);
    node.catalog.drop_table(&database, "t").unwrap();
    drop(database);
    let _ = node.slot.append(rows("t", numbered(3..4))).await.unwrap();
    node.kill().await;
    let node = TestNode::running(home.path()).await;
    assert_eq!(node.integers("t", "n"), [3]);
}

// OPS-2: a drain acknowledges what is under way, refuses what comes later, and loses nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_lost_nothing() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::running(home.path()).await;
    node.immediate();
    let slot = std::sync::Arc::clone(&node.slot);
    let sending = tokio::spawn(async move {
        let mut acknowledged = 0;
        while slot.append(rows("t", numbered(acknowledged..acknowledged + 1))).await.is_ok() {
            acknowledged += 1;
        }
        acknowledged
    });
    eventually("some rows are stored", || node.count("t") > 20).await;
    let started = std::time::Instant::now();
    node.operator.drain().await;
    assert!(started.elapsed() < std::time::Duration::from_secs(5));
    let acknowledged = sending.await.unwrap();
    node.kill().await;
    let node = TestNode::running(home.path()).await;
    let stored = node.integers("t", "n");
    assert!(stored.len() as i64 >= acknowledged && stored.len() as i64 <= acknowledged + 1);
    assert_eq!(stored, (0..stored.len() as i64).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registered_file_without_rows_is_void() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::running(home.path()).await;
    let _ = node.slot.append(rows("t", numbered(0..1))).await.unwrap();
    let journal = node.directory("journal_dir");
    node.kill().await;
    for entry in std::fs::read_dir(journal).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let node = TestNode::running(home.path()).await;
    let files = node.registered();
    assert!(files[0].1.starts_with("void:"), "{files:?}");
}

// DUR-5: a full disk stops acknowledgements, not queries; it goes on by itself when there is space.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_acknowledgements_only() {
    let home = tempfile::tempdir().unwrap();
    let disk = MemoryDisk::default();
    let node = TestNode::on_disk(home.path(), Arc::new(disk.clone()));
    node.connect();
    node.run().await;
    node.immediate();
    let _ = node.slot.append(rows("t", numbered(0..2))).await.unwrap();
    disk.set_capacity(0);
    assert_eq!(node.slot.append(rows("t", numbered(2..3))).await.unwrap_err(), SinkError::DiskFull);
    assert_eq!(node.count("t"), 2);
    disk.set_capacity(usize::MAX);
    let _ = node.slot.append(rows("t", numbered(3..4))).await.unwrap();
    assert_eq!(node.integers("t", "n"), [0, 1, 3]);
    node.operator.flush().await.unwrap();
    assert_eq!(node.registered().iter().map(|(_, _, rows)| rows).sum::<i64>(), 3);
}

// DUR-1, DUR-2: power fails at any acknowledgement; what was not synced is gone. Acknowledged rows are there, each once.
#[tokio::test(flavor = "multi_thread")]
async fn power_may_fail_at_any_moment() {
    for (round, immediate) in [(0, true), (1, false), (2, true), (3, false)] {
        let home = tempfile::tempdir().unwrap();
        let disk = MemoryDisk::default();
        let node = TestNode::on_disk(home.path(), Arc::new(disk.clone()));
        node.connect();
        node.run().await;
        node.partitioned("insert_timestamp");
        node.operator.set_threshold(None, None, None, Some(200), Some(immediate)).unwrap();
        let senders: Vec<_> = (0..4)
            .map(|sender| {
                let slot = Arc::clone(&node.slot);
                tokio::spawn(async move {
                    let mut acknowledged = Vec::new();
                    for n in 0..400 {
                        let first = sender * 10_000 + n * 2;
                        if slot.append(rows("t", numbered(first..first + 2))).await.is_err() {
                            break;
                        }
                        acknowledged.extend([first, first + 1]);
                    }
                    acknowledged
                })
            })
            .collect();
        eventually("some messages are written", || node.operator.load().frames.0 > 40 * (round + 1)).await;
        // From here on nothing reaches the disk; what is in flight gets no answer.
        disk.set_capacity(0);
        let mut acknowledged = Vec::new();
        for sender in senders {
            acknowledged.extend(sender.await.unwrap());
        }
        node.kill().await;
        disk.crash(|pending| pending / 2);
        disk.set_capacity(usize::MAX);
        let node = TestNode::on_disk(home.path(), Arc::new(disk.clone()));
        node.connect();
        node.run().await;
        let stored = node.integers("t", "n");
        let distinct: std::collections::BTreeSet<i64> = stored.iter().copied().collect();
        assert_eq!(distinct.len(), stored.len(), "no row twice");
        assert!(acknowledged.iter().all(|row| distinct.contains(row)), "every acknowledged row is there");
        assert!(!disk.list(&node.directory("journal_dir")).unwrap().is_empty());
    }
}

#[derive(Debug, Default)]
struct NearlyFull {
    files: MemoryDisk,
    free: std::sync::atomic::AtomicU64,
}

impl Disk for NearlyFull {
    fn create_directory(&self, directory: &Path) -> std::io::Result<()> {
        self.files.create_directory(directory)
    }
    fn list(&self, directory: &Path) -> std::io::Result<Vec<String>> {
        self.files.list(directory)
    }
    fn length(&self, path: &Path) -> std::io::Result<u64> {
        self.files.length(path)
    }
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        self.files.read(path)
    }
    fn read_pieces(&self, path: &Path, pieces: &[(u64, usize)]) -> std::io::Result<Vec<Vec<u8>>> {
        self.files.read_pieces(path, pieces)
    }
    fn create(&self, path: &Path) -> std::io::Result<Box<dyn anylog_operator::disk::DiskFile>> {
        self.files.create(path)
    }
    fn truncate(&self, path: &Path, length: u64) -> std::io::Result<()> {
        self.files.truncate(path, length)
    }
    fn remove(&self, path: &Path) -> std::io::Result<()> {
        self.files.remove(path)
    }
    fn free(&self, _: &Path) -> Option<u64> {
        Some(self.free.load(std::sync::atomic::Ordering::Relaxed))
    }
}

// R12: below the floor rows are refused with a clear error, and taken again when space returns.
#[tokio::test(flavor = "multi_thread")]
async fn a_nearly_full_disk_refuses_rows_until_space_returns() {
    let home = tempfile::tempdir().unwrap();
    let disk = Arc::new(NearlyFull::default());
    let node = TestNode::on_disk(home.path(), Arc::clone(&disk) as Arc<dyn Disk>);
    node.connect();
    node.run().await;
    assert_eq!(node.slot.append(rows("t", numbered(0..1))).await.unwrap_err(), SinkError::DiskFull);
    disk.free.store(1 << 40, std::sync::atomic::Ordering::Relaxed);
    let nearly_full = || node.operator.queues().iter().any(|queue| queue.name == "disk of the journal");
    eventually("the space is seen", || !nearly_full()).await;
    let _ = node.slot.append(rows("t", numbered(0..1))).await.unwrap();
    node.operator.flush().await.unwrap();
    assert_eq!(node.count("t"), 1);
}
