//! What cannot be stored: kept, tried again, stored once.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use anylog_ingest::{Message, MessageRows, Remap, RowGroup, SinkError, TableRows, Unmapped};
use anylog_operator::disk::{Disk, DiskFile, MemoryDisk};
use anylog_operator::quarantine::QuarantineFilter;
use anylog_operator::thresholds::TimeRule;

use crate::harness::{TestNode, eventually, numbered, rows};

/// Maps messages `n` or `n,n,...` to rows of table `t`, once it is mended.
struct Mapping {
    mended: AtomicBool,
}

impl Mapping {
    fn on(node: &TestNode) -> Arc<Self> {
        let mapping = Arc::new(Self { mended: AtomicBool::new(false) });
        let offered: Weak<Self> = Arc::downgrade(&mapping);
        node.slot.set_mapping(offered);
        mapping
    }

    fn mend(&self) {
        self.mended.store(true, Ordering::SeqCst);
    }
}

impl Remap for Mapping {
    fn remap(&self, message: &Message) -> Result<RowGroup, Unmapped> {
        let text = std::str::from_utf8(&message.payload)
            .ok()
            .filter(|text| !text.is_empty() && self.mended.load(Ordering::SeqCst));
        let Some(text) = text else { return Err(unmapped(&message.payload, "still no column 'n'")) };
        let rows = text.split(',').map(|n| format!("{{\"n\": {n}}}")).collect();
        let part = TableRows {
            dbms: "d".into(),
            table: "t".into(),
            source: "0".into(),
            instructions: "0".into(),
            rows,
            ..TableRows::default()
        };
        Ok(RowGroup { parts: vec![part], ..RowGroup::default() })
    }
}

fn message(payload: &[u8]) -> Arc<Message> {
    let payload = payload.to_vec().into();
    Arc::new(Message { broker: "local".into(), filter: "a/+".into(), topic: "a/b".into(), payload })
}

fn unmapped(payload: &[u8], reason: &str) -> Unmapped {
    Unmapped {
        message: message(payload),
        origin: "mqtt topic a/b".into(),
        position: 0,
        kind: "mapping",
        column: "n".into(),
        reason: reason.into(),
    }
}

async fn aside(node: &TestNode, payload: &str) {
    let receipt = node.slot.set_aside(unmapped(payload.as_bytes(), "no column 'n'")).await.unwrap();
    assert_eq!((receipt.stored(), receipt.refused().len()), (0, 1));
}

fn all() -> QuarantineFilter {
    QuarantineFilter::default()
}

async fn retried(node: &TestNode) -> (u64, u64, u64) {
    let report = node.operator.retry_quarantine(all(), false).await.unwrap();
    assert_eq!(report.stopped, None);
    (report.tried, report.stored, report.refused)
}

// R13, R14: a message that maps after the mapping was mended is stored, and leaves; the others stay with the new reason.
#[tokio::test(flavor = "multi_thread")]
async fn messages_are_mapped_again() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::running(home.path()).await;
    node.immediate();
    let mapping = Mapping::on(&node);
    aside(&node, "1").await;
    aside(&node, "2,3").await;
    let _ = node.slot.set_aside(unmapped(b"\xff\x00", "not JSON")).await.unwrap();
    let _ = node.slot.set_aside(unmapped(b"", "not JSON")).await.unwrap();
    assert_eq!(retried(&node).await, (4, 0, 4));
    let kept = node.operator.quarantined().unwrap();
    assert!(kept.iter().all(|row| row.tries == 1 && row.reason == "still no column 'n'" && row.kind == "mapping"));
    assert_eq!(kept[2].message.as_ref().unwrap().hex.as_deref(), Some("ff00"), "bytes as they came");
    mapping.mend();
    let dry = node.operator.retry_quarantine(all(), true).await.unwrap();
    assert_eq!((dry.tried, dry.stored, node.count("t")), (4, 2, 0), "a dry run changes nothing: {dry:?}");
    assert_eq!(retried(&node).await, (4, 2, 2));
    assert_eq!(node.integers("t", "n"), [1, 2, 3]);
    assert_eq!(node.operator.quarantined().unwrap().len(), 2);
    assert_eq!(retried(&node).await, (2, 0, 2));
    assert_eq!(node.count("t"), 3);
}

// R13: of a message that leaves, a row that does not fit is a record of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_of_a_message_that_does_not_fit_stays_alone() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::running(home.path()).await;
    let _ = node.slot.append(rows("t", numbered(0..1))).await.unwrap();
    let mapping = Mapping::on(&node);
    aside(&node, "1,[2],3").await;
    mapping.mend();
    assert_eq!(retried(&node).await, (1, 1, 1));
    let kept = node.operator.quarantined().unwrap();
    assert_eq!((kept.len(), kept[0].kind.as_str(), kept[0].row.as_deref()), (1, "type", Some("{\"n\": [2]}")));
    node.kill().await;
    let node = TestNode::running(home.path()).await;
    assert_eq!(node.operator.quarantined().unwrap(), kept, "a restart brings nothing back and loses nothing");
    assert_eq!(node.integers("t", "n"), [0, 1, 3]);
}

// R13, R16: rows are fitted again, by the rules of now.
#[tokio::test(flavor = "multi_thread")]
async fn rows_are_fitted_again() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::running(home.path()).await;
    node.immediate();
    node.execute("set time window where dbms = d and table = t and past = 30 days").await.unwrap();
    let now = node.node.clock.now();
    let batch = [format!("{{\"at\": \"{now}\", \"n\": 0}}"), "{\"at\": \"2001-01-01T00:00:00Z\", \"n\": 1}".into()];
    let receipt = node.slot.append(rows("t", batch)).await.unwrap();
    assert_eq!((receipt.stored(), receipt.refused()[0].kind), (1, "time_window"));
    let shown = node.execute("retry quarantine where dbms = d and table = t").await.unwrap();
    assert!(shown.contains("1 tried, 0 stored") && shown.contains("time_window: 1"), "{shown}");
    node.execute("set time window where dbms = d and table = t and reset = true").await.unwrap();
    let shown = node.execute("retry quarantine where table = other and format = json").await.unwrap();
    assert!(shown.contains("\"tried\": 0"), "{shown}");
    let shown = node.execute("retry quarantine where reason = time_window and dry_run = true").await.unwrap();
    assert!(shown.contains("1 would be stored with 1 rows"), "{shown}");
    let shown = node.execute("retry quarantine where reason = time_window").await.unwrap();
    assert!(shown.contains("1 tried, 1 stored with 1 rows, 0 refused"), "{shown}");
    assert_eq!(node.integers("t", "n"), [0, 1]);
    node.operator.flush().await.unwrap();
    assert_eq!(node.registered().iter().map(|(_, _, rows)| rows).sum::<i64>(), 2, "each row in one source file");
}

// R13: a row that was mapped from a message is mapped again.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_a_better_mapping_makes_is_stored() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::running(home.path()).await;
    let _ = node.slot.append(rows("t", numbered(0..1))).await.unwrap();
    let mapping = Mapping::on(&node);
    let mut group = rows("t", ["{\"n\": \"x\"}".to_owned(), "{\"n\": 5}".to_owned(), "{\"n\": \"y\"}".to_owned()]);
    group.messages = vec![
        MessageRows { part: 0, first: 0, count: 1, message: message(b"4") },
        MessageRows { part: 0, first: 1, count: 2, message: message(b"5,6") },
    ];
    let receipt = node.slot.append(group).await.unwrap();
    assert_eq!((receipt.stored(), receipt.refused().len()), (1, 2));
    assert_eq!(retried(&node).await, (2, 0, 2));
    mapping.mend();
    assert_eq!(retried(&node).await, (2, 2, 0));
    node.operator.flush().await.unwrap();
    assert_eq!(node.integers("t", "n"), [0, 4, 5, 6], "only the rows that were refused are made again");
}

// R14: what is put aside at one moment shares its syncs, and is there after a loss of power.
#[tokio::test(flavor = "multi_thread")]
async fn many_bad_messages_at_once_are_on_stable_storage() {
    let home = tempfile::tempdir().unwrap();
    let disk = MemoryDisk::default();
    let node = TestNode::on_disk(home.path(), Arc::new(disk.clone()));
    node.connect();
    node.run().await;
    let node = Arc::new(node);
    let waiting: Vec<_> = (0..500)
        .map(|n| {
            let node = Arc::clone(&node);
            tokio::spawn(async move { aside(&node, &n.to_string()).await })
        })
        .collect();
    for one in waiting {
        one.await.unwrap();
    }
    Arc::into_inner(node).unwrap().kill().await;
    disk.crash(|_| 0);
    let node = TestNode::on_disk(home.path(), Arc::new(disk));
    node.connect();
    node.run().await;
    assert_eq!(node.operator.quarantined().unwrap().len(), 500);
}

// DUR-2, R13: power fails in the middle of a retry. What was stored is not stored again, what was not is still there.
#[tokio::test(flavor = "multi_thread")]
async fn power_may_fail_in_the_middle_of_a_retry() {
    for (round, immediate) in [(0_u64, true), (1, false), (2, true), (3, false)] {
        let home = tempfile::tempdir().unwrap();
        let disk = MemoryDisk::default();
        let start = async |disk: &MemoryDisk| {
            let node = TestNode::on_disk(home.path(), Arc::new(disk.clone()));
            node.connect();
            node.run().await;
            node.partitioned("insert_timestamp");
            node.operator.set_threshold(None, None, None, Some(400), Some(immediate)).unwrap();
            node
        };
        let node = start(&disk).await;
        let _ = node.slot.append(rows("t", ["{\"n\": 0}".to_owned()])).await.unwrap();
        let mapping = Mapping::on(&node);
        // Every seventh message has a row that never fits.
        let bad = |n: i64| n % 7 == 0;
        for n in 1..600 {
            aside(&node, &if bad(n) { format!("{n},[0]") } else { n.to_string() }).await;
        }
        mapping.mend();
        let frames = node.operator.load().frames.0;
        let operator = Arc::clone(&node.operator);
        let retrying = tokio::spawn(async move { operator.retry_quarantine(all(), false).await });
        eventually("some records are stored", || node.operator.load().frames.0 > frames + 60 * (round + 1)).await;
        disk.set_capacity(0);
        drop(retrying.await.unwrap());
        node.kill().await;
        disk.crash(|pending| pending / 2);
        disk.set_capacity(usize::MAX);
        let node = start(&disk).await;
        let mapping = Mapping::on(&node);
        mapping.mend();
        let before = node.integers("t", "n");
        assert!(before.len() > 20, "the power failed in the middle: {}", before.len());
        let report = node.operator.retry_quarantine(all(), false).await.unwrap();
        assert_eq!(report.stopped, None);
        node.operator.flush().await.unwrap();
        assert_eq!(node.integers("t", "n"), (0..600).collect::<Vec<_>>(), "each row once; round {round}");
        let left = node.operator.quarantined().unwrap();
        let bad = (1..600).filter(|n| bad(*n)).count();
        assert_eq!(left.len(), bad, "each row that never fits once");
        assert!(left.iter().all(|row| row.kind == "type"));
        assert_eq!(node.registered().iter().map(|(_, _, rows)| rows).sum::<i64>(), 600);
    }
}

// R13: a caller that goes away in the middle of a retry leaves nothing that is stored twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_may_go_away_in_the_middle_of_a_retry() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::running(home.path()).await;
    node.immediate();
    let mapping = Mapping::on(&node);
    for n in 0..300 {
        aside(&node, &n.to_string()).await;
    }
    mapping.mend();
    let operator = Arc::clone(&node.operator);
    let caller = tokio::spawn(async move { operator.retry_quarantine(all(), false).await });
    eventually("some records are stored", || node.count("t") > 10).await;
    caller.abort();
    drop(caller.await);
    eventually("the records have left", || node.operator.quarantined().unwrap().is_empty()).await;
    // The first retry may be at its last step still.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let report = loop {
        match node.operator.retry_quarantine(all(), false).await {
            Ok(report) => break report,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((report.tried, report.stored, report.refused), (0, 0, 0));
    assert_eq!(node.integers("t", "n"), (0..300).collect::<Vec<_>>());
}

/// A disk on which no further file of the quarantine can be made, while it is told so.
#[derive(Debug, Default)]
struct Stubborn {
    files: MemoryDisk,
    fails: AtomicBool,
}

impl Disk for Stubborn {
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
    fn create(&self, path: &Path) -> std::io::Result<Box<dyn DiskFile>> {
        let quarantine = path.file_name().unwrap().to_str().unwrap().starts_with("quarantine.");
        if quarantine && self.fails.load(Ordering::SeqCst) {
            return Err(std::io::Error::other("no more files"));
        }
        self.files.create(path)
    }
    fn truncate(&self, path: &Path, length: u64) -> std::io::Result<()> {
        self.files.truncate(path, length)
    }
    fn remove(&self, path: &Path) -> std::io::Result<()> {
        self.files.remove(path)
    }
}

// R13: when the file of the records cannot be written after they were stored, they are not stored again, before a restart or
// after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_written_after_a_retry_repeats_nothing() {
    let home = tempfile::tempdir().unwrap();
    let disk = Arc::new(Stubborn::default());
    let start = async || {
        let node = TestNode::on_disk(home.path(), Arc::clone(&disk) as Arc<dyn Disk>);
        node.connect();
        node.run().await;
        node
    };
    let node = start().await;
    for n in 0..50 {
        aside(&node, &n.to_string()).await;
    }
    // The last one never maps, so that the file is written anew.
    aside(&node, "").await;
    disk.fails.store(true, Ordering::SeqCst);
    let mapping = Mapping::on(&node);
    mapping.mend();
    for _ in 0..2 {
        assert!(node.operator.retry_quarantine(all(), false).await.is_err(), "the file is not written");
    }
    node.kill().await;
    let node = start().await;
    let mapping = Mapping::on(&node);
    mapping.mend();
    assert!(node.operator.retry_quarantine(all(), false).await.is_err());
    disk.fails.store(false, Ordering::SeqCst);
    assert_eq!(retried(&node).await, (1, 0, 1));
    node.operator.flush().await.unwrap();
    assert_eq!(node.integers("t", "n"), (0..50).collect::<Vec<_>>());
}

// DUR-4: a damaged line costs itself, is kept, and stops nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_line_costs_itself_only() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::running(home.path()).await;
    for n in 0..3 {
        aside(&node, &n.to_string()).await;
    }
    let directory = node.directory("err_dir");
    node.kill().await;
    let names = |ending: &str| -> Vec<std::path::PathBuf> {
        let files = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.to_str().unwrap().ends_with(ending)).collect()
    };
    let file = names(".jsonl").remove(0);
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    bytes.extend_from_slice(b"{\"key\": torn");
    std::fs::write(&file, bytes).unwrap();
    let node = TestNode::running(home.path()).await;
    let kept = node.operator.quarantined().unwrap();
    let texts: Vec<_> = kept.iter().map(|row| row.message.as_ref().unwrap().text.clone().unwrap()).collect();
    assert_eq!(texts, ["0", "2"]);
    assert_eq!(names(".damaged").len(), 2, "what is damaged is kept");
    Mapping::on(&node).mend();
    aside(&node, "3").await;
    assert_eq!(retried(&node).await.0, 3, "nothing maps, nothing stops");
}

// R14: a full quarantine takes nothing more, says so, and loses nothing; rows that fit go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_quarantine_refuses_what_would_go_there() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::running(home.path()).await;
    node.execute("set quarantine where limit = 2KB").await.unwrap();
    let _ = node.slot.append(rows("t", numbered(0..1))).await.unwrap();
    let error = loop {
        match node.slot.set_aside(unmapped(b"some payload", "no")).await {
            Ok(receipt) => assert_eq!(receipt.refused().len(), 1),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, SinkError::QuarantineFull { limit: 2048, .. }) && error.may_retry(), "{error}");
    let kept = node.operator.quarantined().unwrap().len();
    let mixed = node.slot.append(rows("t", ["{\"n\": 7}".to_owned(), "{\"n\": []}".to_owned()])).await;
    assert!(matches!(mixed, Err(SinkError::QuarantineFull { .. })), "not one of its rows is stored");
    let _ = node.slot.append(rows("t", numbered(1..2))).await.unwrap();
    assert!(node.node.errors.messages().iter().any(|message| message.text.contains("quarantine is full")));
    assert!(node.execute("get streaming queues").await.unwrap().contains("is not acknowledged"));
    assert!(node.execute("get status").await.unwrap().contains("overloaded: quarantine: full"));
    let deleted = node.execute("delete quarantine where reason = mapping").await.unwrap();
    assert_eq!(deleted, format!("{kept} records deleted"));
    assert_eq!(node.execute("get status").await.unwrap().lines().count(), 1);
    aside(&node, "again").await;
    node.operator.flush().await.unwrap();
    assert_eq!(node.integers("t", "n"), [0, 1]);
}

// Deleted rows stay deleted, also when the segment that they were refused from is replayed.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_does_not_come_back() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::running(home.path()).await;
    for n in 0..4 {
        aside(&node, &n.to_string()).await;
    }
    let id = node.operator.quarantined().unwrap()[1].key.clone();
    let one = QuarantineFilter { id: Some(id), ..all() };
    assert_eq!(node.operator.delete_quarantine(one).await.unwrap(), 1);
    let texts = |node: &TestNode| -> Vec<String> {
        let kept = node.operator.quarantined().unwrap();
        kept.iter().map(|row| row.message.as_ref().unwrap().text.clone().unwrap()).collect()
    };
    assert_eq!(texts(&node), ["0", "2", "3"]);
    node.kill().await;
    let node = TestNode::running(home.path()).await;
    assert_eq!(texts(&node), ["0", "2", "3"]);
    assert!(node.execute("delete quarantine").await.unwrap_err().to_string().contains("all = true"));
    assert_eq!(node.execute("delete quarantine where all = true").await.unwrap(), "3 records deleted");
    assert_eq!(quarantine_files(&node.directory("err_dir")), 0, "a file without records is removed");
}

fn quarantine_files(directory: &Path) -> usize {
    let names = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("quarantine.")).count()
}

// R16: a burst of random times makes a bounded number of partitions, and the present goes on.
#[tokio::test(flavor = "multi_thread")]
async fn random_times_make_few_partitions() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::running(home.path()).await;
    node.immediate().partitioned("at");
    node.operator.set_time_window(Some("d"), None, Some(TimeRule { partitions: 5, ..TimeRule::default() })).unwrap();
    let now = node.node.clock.now();
    let day = |n: i64| {
        let at = jiff::Timestamp::from_second(n * 86_400 * 3 + 1000).unwrap();
        format!("{{\"at\": \"{at}\", \"n\": {n}}}")
    };
    let (mut stored, mut refused) = (0, Vec::new());
    for n in 0..40 {
        let receipt = node.slot.append(rows("t", [day(n)])).await.unwrap();
        stored += receipt.stored();
        refused.extend(receipt.refused().iter().map(|row| row.kind));
    }
    let present = node.slot.append(rows("t", [format!("{{\"at\": \"{now}\", \"n\": 100}}")])).await.unwrap();
    assert_eq!((stored, present.stored()), (5, 1), "the present is always stored");
    assert_eq!(refused, vec!["partition_limit"; 35]);
    assert_eq!(node.targets("t").len() - 1, 6);
    node.kill().await;
    let node = TestNode::running(home.path()).await;
    node.immediate().partitioned("at");
    node.operator.set_time_window(Some("d"), None, Some(TimeRule { partitions: 5, ..TimeRule::default() })).unwrap();
    let receipt = node.slot.append(rows("t", [day(60)])).await.unwrap();
    assert_eq!(receipt.stored(), 0, "partitions of the run before count");
    assert_eq!(retried(&node).await, (36, 0, 36));
    node.operator.set_time_window(Some("d"), None, None).unwrap();
    assert_eq!(retried(&node).await, (36, 36, 0));
    // R16: the time of the device and the time of receipt are both there.
    assert_eq!(node.column("t", "insert_timestamp").len(), 42);
    assert_eq!(node.column("t", "at").len(), 42);
}

// R13: counters by reason, and the listing with its totals.
#[tokio::test(flavor = "multi_thread")]
async fn the_quarantine_is_counted_and_listed() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::running(home.path()).await;
    let _ = node.slot.append(rows("t", numbered(0..1))).await.unwrap();
    let _ = node
        .slot
        .append(rows("t", ["{\"n\": []}".to_owned(), "7".to_owned(), "{\"n\": {}}".to_owned()]))
        .await
        .unwrap();
    aside(&node, "x").await;
    let listed = node.execute("get quarantine where format = json").await.unwrap();
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["records"], 4);
    let counts: Vec<_> = listed["counts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| (c["kind"].as_str().unwrap(), c["records"].as_u64().unwrap()))
        .collect();
    assert_eq!(counts, [("mapping", 1), ("not_object", 1), ("type", 2)]);
    assert_eq!(listed["rows"][0]["message"]["topic"], "a/b", "newest first");
    assert_eq!(listed["rows"][1]["column"], "n");
    assert!(listed["bytes"].as_u64().unwrap() > 0 && listed["limit"].as_u64().unwrap() > 0);
    let summary = node.execute("get quarantine summary where topic = a/b").await.unwrap();
    assert!(summary.contains("1 records") && summary.contains("mapping") && !summary.contains("type"), "{summary}");
    assert_eq!(listed["since_start"][2], serde_json::json!({"kind": "type", "dbms": "d", "table": "t", "records": 2}));
    node.execute("reset stats where service = operator and topic = summary").await.unwrap();
    let summary = node.execute("get quarantine summary where format = json").await.unwrap();
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    assert_eq!((&summary["since_start"], &summary["records"]), (&serde_json::json!([]), &serde_json::json!(4)));
    let stats = node.execute("get stats where service = operator and topic = summary and format = json").await.unwrap();
    let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
    assert_eq!(stats["status"], "Active");
    assert!(stats["total rows"].is_string() && stats["timestamp"].is_string(), "{stats}");
}
