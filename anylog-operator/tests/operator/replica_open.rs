//! Files that are followed while they are open: two members in one process, and a hand that carries rows between them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

use anylog_dbms::SqlValue;
use anylog_ingest::SinkError;
use anylog_operator::replica::Followers;
use anylog_operator::thresholds::{Few, ThresholdChange};
use anylog_operator::{OperatorError, OperatorService};
use anylog_replica::FileKey;
use anylog_replica::message::{Rows, RowsHeld, Sealed};
use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::harness::{TestNode, eventually, numbered, rows};

/// What a store tells of its files, and what the test says of the members.
#[derive(Default)]
pub(crate) struct Mates {
    reachable: AtomicU32,
    refuse: AtomicBool,
    opened: Mutex<Vec<FileKey>>,
    /// How often it was asked who can be reached.
    looks: AtomicU32,
    written: Mutex<BTreeMap<FileKey, u64>>,
    sealed: Mutex<Vec<(Sealed, u64)>>,
    /// Up to which ordinal the other members have a file.
    have: watch::Sender<BTreeMap<FileKey, u64>>,
}

impl Mates {
    pub(crate) fn reachable(members: u32) -> Arc<Self> {
        let mates = Self::default();
        mates.reachable.store(members, Ordering::SeqCst);
        Arc::new(mates)
    }

    pub(crate) fn has(&self, held: RowsHeld) {
        let file = held.key();
        self.have.send_modify(|have| *have.entry(file).or_default() = held.ordinal);
    }

    /// Up to which ordinal the store has a file.
    pub(crate) fn written_of(&self, file: FileKey) -> u64 {
        self.written.lock().get(&file).copied().unwrap_or(0)
    }

    pub(crate) fn sealed(&self) -> Vec<(Sealed, u64)> {
        self.sealed.lock().clone()
    }
}

#[async_trait]
impl Followers for Mates {
    fn opened(&self, file: FileKey) {
        self.opened.lock().push(file);
    }

    fn written(&self, held: RowsHeld) {
        let file = held.key();
        assert!(self.opened.lock().contains(&file), "it was opened before");
        let before = self.written.lock().insert(file, held.ordinal);
        assert!(before.is_none_or(|before| before < held.ordinal), "ordinals grow");
    }

    fn complete(&self, sealed: Sealed, rows: u64) {
        self.sealed.lock().push((sealed, rows));
    }

    fn reachable(&self) -> u32 {
        self.looks.fetch_add(1, Ordering::SeqCst);
        self.reachable.load(Ordering::SeqCst)
    }

    async fn copies(
        &self,
        file: FileKey,
        ordinal: u64,
        copies: u32,
        _deadline: Option<Instant>,
    ) -> Result<(), SinkError> {
        assert_eq!(copies, 2);
        if self.refuse.load(Ordering::SeqCst) {
            let (dbms, table, reason) = (String::new(), String::new(), "the other member went away".into());
            return Err(SinkError::TooFewCopies { dbms, table, wanted: copies, reachable: 1, reason });
        }
        let mut have = self.have.subscribe();
        let reached = have.wait_for(|have| have.get(&file).is_some_and(|have| *have >= ordinal));
        reached.await.map(|_| ()).map_err(|_| SinkError::NotRunning)
    }
}

/// A member with everything connected.
async fn member(home: &Path, number: i64) -> TestNode {
    let node = TestNode::start(home);
    node.connect();
    node.run_as(number).await;
    node
}

/// The same with another member of the cluster in the ledger, which cannot be reached: nobody may take what is here for all there is.
async fn member_of_two(home: &Path, number: i64) -> TestNode {
    let node = TestNode::start(home);
    node.connect();
    let own = node.policies_of(number).await;
    if node.ledger.policies("operator").len() == 1 {
        let cluster = node.ledger.policy(&own).unwrap().text("cluster").unwrap().to_owned();
        let other = serde_json::json!({"operator": {"name": "p", "company": "co", "ip": "127.0.0.1", "port": 1,
            "cluster": cluster, "member": number + 1}});
        let other = anylog_ledger::Policy::from_value(other).unwrap();
        node.ledger.insert(other, &anylog_ledger::Destinations::local()).await.unwrap();
    }
    node.run_as(number).await;
    node
}

fn replicated(node: &TestNode, few: Few, immediate: bool) {
    let change = ThresholdChange { copies: Some(2), few: Some(few), immediate: Some(immediate), ..Default::default() };
    node.operator.change_threshold(None, None, change).unwrap();
}

/// A member 7 whose tables are followed, with its mates.
async fn producer(home: &Path, immediate: bool) -> (TestNode, Arc<Mates>) {
    led_by_hand(member(home, 7).await, immediate)
}

/// Member 7, whose tables are followed, with its mates, and member 8; and whether they store rows before they acknowledge them.
async fn two(home: &Path, other: &Path, immediate: [bool; 2]) -> (TestNode, Arc<Mates>, TestNode) {
    let (a, mates) = producer(home, immediate[0]).await;
    let b = member(other, 8).await;
    b.operator.set_threshold(None, None, None, None, Some(immediate[1])).unwrap();
    (a, mates, b)
}

/// A member whose files are followed by what the test says.
fn led_by_hand(node: TestNode, immediate: bool) -> (TestNode, Arc<Mates>) {
    let mates = Mates::reachable(2);
    replicated(&node, Few::Wait, immediate);
    node.operator.follow(Some(Arc::clone(&mates) as Arc<dyn Followers>)).unwrap();
    (node, mates)
}

/// Everything of an open file behind an ordinal.
pub(crate) fn rest(operator: &OperatorService, after: RowsHeld) -> Vec<Rows> {
    operator.rows_after(after, 1 << 20).unwrap().expect("the file is open and followed")
}

/// Carries what `to` lacks of an open file of `from`.
async fn carry(from: &TestNode, to: &TestNode, file: FileKey) -> RowsHeld {
    let open = to.operator.open_files().unwrap();
    let mut held = RowsHeld { producer: file.producer, file: file.file, ordinal: 0 };
    if let Some(known) = open.iter().find(|known| (known.producer, known.file) == (file.producer, file.file)) {
        held = *known;
    }
    for rows in rest(&from.operator, held) {
        held = to.operator.store_rows(rows).await.unwrap();
    }
    held
}

/// Sends rows as one message; done when they are acknowledged, which takes the mate that gets them meanwhile.
async fn send(from: &TestNode, to: &TestNode, mates: &Mates, table: &str, texts: Vec<String>) -> FileKey {
    let before = mates.written.lock().clone();
    let sending = tokio::spawn({
        let (slot, group) = (Arc::clone(&from.slot), rows(table, texts));
        async move { slot.append(group).await }
    });
    eventually("the rows are in the journal", || *mates.written.lock() != before).await;
    assert!(!sending.is_finished(), "nothing is acknowledged before another member has it");
    let now = mates.written.lock().clone();
    let (file, ordinal) = now.into_iter().find(|(file, at)| before.get(file) != Some(at)).unwrap();
    let held = carry(from, to, file).await;
    assert_eq!(held.ordinal, ordinal);
    mates.has(held);
    let _ = sending.await.unwrap().unwrap();
    file
}

fn sorted(node: &TestNode, column: &str) -> Vec<SqlValue> {
    node.column("t", column)
}

/// Both members have the same rows, as the producer made them.
fn equal(a: &TestNode, b: &TestNode) {
    for column in ["n", "insert_timestamp", "tsd_name", "tsd_id"] {
        assert_eq!(sorted(a, column), sorted(b, column), "{column}");
    }
}

// DUR-3: an acknowledgement waits for the other member; what it has are the very same rows, once.
#[tokio::test(flavor = "multi_thread")]
async fn rows_are_acknowledged_when_another_member_has_them() {
    let (home, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (a, mates, b) = two(home.path(), other.path(), [true, false]).await;
    b.immediate().partitioned("insert_timestamp");
    let file = send(&a, &b, &mates, "t", numbered(0..5)).await;
    assert_eq!(file.producer, 7);
    assert_eq!(send(&a, &b, &mates, "t", numbered(5..6)).await, file);
    eventually("they are stored there", || b.count("t") == 6).await;
    assert_eq!(b.targets("t").len(), 2, "in the partitions of that member");
    equal(&a, &b);
    // R21: what comes again is known.
    for again in rest(&a.operator, RowsHeld { producer: 7, file: file.file, ordinal: 0 }) {
        assert_eq!(b.operator.store_rows(again).await.unwrap().ordinal, 6);
    }
    let part = rest(&a.operator, RowsHeld { producer: 7, file: file.file, ordinal: 3 });
    assert_eq!((part[0].previous, part[0].runs[0].first, part[0].runs[0].rows.len()), (3, 4, 2));
    // What does not follow is not taken.
    let mut gap = part[0].clone();
    gap.runs.truncate(1);
    gap.previous = 8;
    gap.runs[0].first = 9;
    assert_eq!(b.operator.store_rows(gap).await.unwrap().ordinal, 6);
    assert_eq!((b.count("t"), b.registered().len()), (6, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_sealed_as_its_producer_sealed_it() {
    let (home, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (a, mates, b) = two(home.path(), other.path(), [false, false]).await;
    let file = send(&a, &b, &mates, "t", numbered(0..500)).await;
    send(&a, &b, &mates, "t", numbered(500..501)).await;
    let late = tokio::spawn({
        let (slot, group) = (Arc::clone(&a.slot), rows("t", numbered(501..503)));
        async move { slot.append(group).await }
    });
    eventually("more is written", || mates.written.lock().get(&file) == Some(&503)).await;
    a.operator.flush().await.unwrap();
    let (sealed, count) = mates.sealed().pop().unwrap();
    assert_eq!((sealed.ordinal, count), (503, 503));
    // It is sealed there already; what is missing here is not made up for.
    let error = b.operator.seal_copy(sealed.clone()).await.unwrap_err();
    assert!(matches!(error, OperatorError::NotGiven { .. }), "{error}");
    assert!(error.to_string().contains("up to ordinal 501 of 503"), "{error}");
    let missing = Rows {
        producer: 7,
        file: file.file,
        previous: 501,
        about: sealed.about.clone(),
        runs: vec![anylog_replica::message::Run {
            first: 502,
            received: a.node.clock.now().as_microsecond(),
            zone: "UTC".into(),
            rows: numbered(501..503),
        }],
    };
    mates.has(b.operator.store_rows(missing).await.unwrap());
    let _ = late.await.unwrap().unwrap();
    b.operator.seal_copy(sealed.clone()).await.unwrap();
    b.operator.seal_copy(sealed.clone()).await.unwrap();
    assert_eq!(a.archived(), b.archived(), "the same file under the same name");
    assert_eq!(a.registered(), b.registered_in("tsd_7"));
    assert_eq!(b.integers("t", "n"), (0..503).collect::<Vec<_>>());
    assert_eq!(b.operator.open_files().unwrap(), []);
    let late = rest_or_none(&b, file);
    assert_eq!(late, None, "it is open no more");
    // R21: rows that come after all are known.
    let again = Rows { previous: 0, about: sealed.about.clone(), ..first_rows(&sealed, numbered(0..2)) };
    assert_eq!(b.operator.store_rows(again).await.unwrap().ordinal, 2);
    assert_eq!(b.count("t"), 503);
}

fn rest_or_none(node: &TestNode, file: FileKey) -> Option<Vec<Rows>> {
    node.operator.rows_after(RowsHeld { producer: file.producer, file: file.file, ordinal: 0 }, 1000).unwrap()
}

fn first_rows(sealed: &Sealed, texts: Vec<String>) -> Rows {
    let run = anylog_replica::message::Run { first: 1, received: 0, zone: "UTC".into(), rows: texts };
    Rows { producer: sealed.producer, file: sealed.file, runs: vec![run], ..Rows::default() }
}

// DUR-2, DUR-3: a member that is killed has its copy as it was, and goes on with it; it does not seal it by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_survives_a_kill() {
    for immediate in [true, false] {
        let (home, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (a, mates, b) = two(home.path(), other.path(), [immediate, immediate]).await;
        let file = send(&a, &b, &mates, "t", numbered(0..4)).await;
        send(&a, &b, &mates, "t", numbered(4..7)).await;
        b.kill().await;
        let b = TestNode::start(other.path());
        b.operator.set_threshold(None, None, None, None, Some(immediate)).unwrap();
        b.connect();
        b.run_as(8).await;
        assert_eq!(b.operator.open_files().unwrap(), [RowsHeld { producer: 7, file: file.file, ordinal: 7 }]);
        assert_eq!(b.integers("t", "n"), (0..7).collect::<Vec<_>>(), "what the journal had is replayed");
        // A third member gets it from here, as from its producer.
        let here = rest_or_none(&b, file).unwrap();
        let there = rest_or_none(&a, file).unwrap();
        assert_eq!(here[0].runs, there[0].runs);
        send(&a, &b, &mates, "t", numbered(7..9)).await;
        a.operator.flush().await.unwrap();
        b.operator.flush().await.unwrap();
        assert_eq!(b.registered_in("tsd_7"), [], "its producer seals it");
        b.operator.seal_copy(mates.sealed()[0].0.clone()).await.unwrap();
        assert_eq!(a.archived(), b.archived());
        equal(&a, &b);
        // And once more: it stays complete.
        b.kill().await;
        let b = member(other.path(), 8).await;
        assert_eq!((b.operator.open_files().unwrap(), b.count("t")), (vec![], 9));
        assert_eq!(a.registered(), b.registered_in("tsd_7"));
    }
}

// DUR-3: the producer lost its disk. What its mate has comes home, and is sealed under the number that it had.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_file_comes_home() {
    let (home, other, fresh) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (a, mates, b) = two(home.path(), other.path(), [true, false]).await;
    let file = send(&a, &b, &mates, "t", numbered(0..3)).await;
    send(&a, &b, &mates, "t", numbered(3..5)).await;
    a.kill().await;
    let (a, mates) = led_by_hand(member_of_two(fresh.path(), 7).await, true);
    assert!(a.operator.adopt(file).await.is_err(), "there is nothing to adopt");
    let all = rest_or_none(&b, file).unwrap();
    let (mut first, mut second) = (all[0].clone(), all[0].clone());
    first.runs.truncate(1);
    second.runs.remove(0);
    second.previous = 3;
    assert_eq!(a.operator.store_rows(first).await.unwrap().ordinal, 3);
    // A half that is here is no file yet, whatever happens.
    a.kill().await;
    drop(mates);
    let a = member_of_two(fresh.path(), 7).await;
    assert_eq!(a.operator.open_files().unwrap(), [RowsHeld { producer: 7, file: file.file, ordinal: 3 }]);
    assert_eq!((a.registered(), a.archived()), (vec![], vec![]));
    assert_eq!(a.operator.store_rows(second).await.unwrap().ordinal, 5);
    let mates = Mates::reachable(2);
    a.operator.follow(Some(Arc::clone(&mates) as Arc<dyn Followers>)).unwrap();
    a.operator.adopt(file).await.unwrap();
    a.operator.adopt(file).await.unwrap();
    eventually("it is sealed", || !mates.sealed().is_empty()).await;
    let (sealed, count) = mates.sealed()[0].clone();
    assert_eq!((sealed.file, sealed.ordinal, count), (file.file, 5, 5));
    eventually("it is done", || a.operator.load().closing == 0).await;
    assert_eq!(a.operator.open_files().unwrap(), []);
    b.operator.seal_copy(sealed).await.unwrap();
    assert_eq!((a.archived().len(), a.archived()), (1, b.archived()));
    assert_eq!(a.registered(), b.registered_in("tsd_7"));
    eventually("its rows are there", || a.count("t") == 5).await;
    equal(&a, &b);
    // Numbers go on behind it.
    a.immediate();
    let (slot, group) = (Arc::clone(&a.slot), rows("u", numbered(0..1)));
    let local = ThresholdChange { copies: Some(1), ..ThresholdChange::default() };
    a.operator.change_threshold(None, None, local).unwrap();
    let _ = slot.append(group).await.unwrap();
    assert!(a.registered().last().unwrap().0 > file.file);
}

// DUR-3: after a kill a mate may have more of a file than its producer. So the producer waits until it is told to go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_followed_file_waits_for_what_others_have() {
    let (home, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (a, mates) = led_by_hand(member_of_two(home.path(), 7).await, false);
    let b = member(other.path(), 8).await;
    b.immediate();
    let file = send(&a, &b, &mates, "t", numbered(0..3)).await;
    a.kill().await;
    // Rows that are not here any more: a disk that lied.
    let more = Rows {
        producer: 7,
        file: file.file,
        previous: 3,
        about: rest_or_none(&b, file).unwrap()[0].about.clone(),
        runs: vec![anylog_replica::message::Run {
            first: 4,
            received: b.node.clock.now().as_microsecond(),
            zone: "UTC".into(),
            rows: numbered(3..5),
        }],
    };
    b.operator.store_rows(more).await.unwrap();
    let (a, mates) = led_by_hand(member_of_two(home.path(), 7).await, false);
    assert_eq!(a.operator.open_files().unwrap(), [RowsHeld { producer: 7, file: file.file, ordinal: 3 }]);
    assert_eq!(a.integers("t", "n"), [0, 1, 2], "they can be queried");
    // New rows go to another file.
    let new = send(&a, &b, &mates, "t", numbered(10..11)).await;
    assert!(new.file > file.file);
    for rows in rest(&b.operator, RowsHeld { producer: 7, file: file.file, ordinal: 3 }) {
        assert_eq!(a.operator.store_rows(rows).await.unwrap().ordinal, 5);
    }
    a.kill().await;
    let (a, mates) = led_by_hand(member_of_two(home.path(), 7).await, false);
    a.operator.adopt(file).await.unwrap();
    eventually("it is sealed", || !mates.sealed().is_empty()).await;
    b.operator.seal_copy(mates.sealed()[0].0.clone()).await.unwrap();
    a.operator.adopt(new).await.unwrap();
    eventually("the other too", || mates.sealed().len() == 2).await;
    b.operator.seal_copy(mates.sealed()[1].0.clone()).await.unwrap();
    eventually("all is done", || a.operator.open_files().unwrap().is_empty()).await;
    assert_eq!((a.archived().len(), a.archived()), (2, b.archived()));
    assert_eq!(a.integers("t", "n"), [0, 1, 2, 3, 4, 10]);
    equal(&a, &b);
}

// A copy that is not what its producer sealed stays until the whole file takes its place; that of a file without rows goes.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_differs_is_not_sealed() {
    let (home, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (a, mates, b) = two(home.path(), other.path(), [true, true]).await;
    let file = send(&a, &b, &mates, "t", numbered(0..3)).await;
    eventually("they are stored there", || b.count("t") == 3).await;
    a.operator.flush().await.unwrap();
    let (sealed, _) = mates.sealed().pop().unwrap();
    let mut differs = sealed.clone();
    differs.refused = vec![2];
    let error = b.operator.seal_copy(differs).await.unwrap_err();
    assert!(matches!(error, OperatorError::NotGiven { .. }), "{error}");
    assert_eq!((b.count("t"), b.archived(), b.registered_in("tsd_7")), (3, vec![], vec![]));
    assert_eq!(b.operator.open_files().unwrap()[0].ordinal, 3);
    let nothing = Sealed { producer: 7, file: file.file, about: Some(Default::default()), ..Sealed::default() };
    b.operator.seal_copy(nothing).await.unwrap();
    assert_eq!((b.count("t"), b.operator.open_files().unwrap()), (0, vec![]));
    b.kill().await;
    let b = member(other.path(), 8).await;
    assert_eq!((b.count("t"), b.operator.open_files().unwrap()), (0, vec![]), "it does not come back");
}

// A database that is away for a while gets the rows that came meanwhile, once.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_outlasts_its_database() {
    for immediate in [true, false] {
        let (home, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (a, mates, b) = two(home.path(), other.path(), [true, immediate]).await;
        let file = send(&a, &b, &mates, "t", numbered(0..3)).await;
        b.catalog.disconnect("d").unwrap();
        let again = rest_or_none(&a, file).unwrap().remove(0);
        assert_eq!(b.operator.store_rows(again).await.unwrap().ordinal, 3);
        b.catalog.connect(anylog_dbms::ConnectRequest::sqlite("d", b.directory("dbms_dir"))).unwrap();
        send(&a, &b, &mates, "t", numbered(3..6)).await;
        a.operator.flush().await.unwrap();
        b.operator.seal_copy(mates.sealed()[0].0.clone()).await.unwrap();
        assert_eq!(a.archived(), b.archived());
        equal(&a, &b);
    }
}

// DUR-3: with when_few = error too few members are an error, before anything is stored; it says how many of how many.
#[tokio::test(flavor = "multi_thread")]
async fn too_few_members_are_an_error() {
    let home = tempfile::tempdir().unwrap();
    let (a, mates) = producer(home.path(), true).await;
    replicated(&a, Few::Error, true);
    mates.reachable.store(1, Ordering::SeqCst);
    let error = a.slot.append(rows("t", numbered(0..1))).await.unwrap_err();
    assert!(matches!(&error, SinkError::TooFewCopies { wanted: 2, reachable: 1, .. }), "{error:?}");
    assert!(error.to_string().contains("nothing of the rows is stored"), "{error}");
    assert_eq!(anylog_core::CommandError::from(error).status, anylog_core::Status::OVERLOADED);
    assert_eq!((a.count("t"), a.registered().len()), (0, 0));
    // A member that goes away in the middle.
    mates.reachable.store(2, Ordering::SeqCst);
    mates.refuse.store(true, Ordering::SeqCst);
    let error = a.slot.append(rows("t", numbered(0..1))).await.unwrap_err();
    assert!(error.to_string().contains("'d.t' needs its rows on 2 members"), "{error}");
    assert!(error.to_string().contains("sending them again may store them twice"), "{error}");
    assert_eq!(a.count("t"), 1);
    // Nobody exchanges anything: waiting would not help either.
    a.operator.follow(None).unwrap();
    replicated(&a, Few::Wait, true);
    let error = a.slot.append(rows("t", numbered(1..2))).await.unwrap_err();
    assert!(error.to_string().contains("run data distributor"), "{error}");
    assert_eq!(a.count("t"), 1);
}

// DUR-3: with when_few = wait senders are held back, and go on when the other member is back.
#[tokio::test(flavor = "multi_thread")]
async fn too_few_members_are_waited_for() {
    let (home, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (a, mates, b) = two(home.path(), other.path(), [true, false]).await;
    mates.reachable.store(1, Ordering::SeqCst);
    let sending = tokio::spawn({
        let (slot, mut group) = (Arc::clone(&a.slot), rows("t", numbered(0..2)));
        group.patient = true;
        async move { slot.append(group).await }
    });
    // Others are not held back by it.
    let local = ThresholdChange { copies: Some(1), immediate: Some(true), ..ThresholdChange::default() };
    a.operator.change_threshold(Some("d"), Some("u"), local).unwrap();
    for n in 0..20 {
        let _ = a.slot.append(rows("u", numbered(n..n + 1))).await.unwrap();
    }
    let looks = mates.looks.load(Ordering::SeqCst);
    eventually("the sender looked again", || mates.looks.load(Ordering::SeqCst) > looks + 2).await;
    assert!(!sending.is_finished() && a.count("t") == 0 && mates.written.lock().is_empty());
    mates.reachable.store(2, Ordering::SeqCst);
    eventually("it goes on", || !mates.written.lock().is_empty()).await;
    let file = *mates.written.lock().keys().next().unwrap();
    mates.has(carry(&a, &b, file).await);
    assert_eq!(sending.await.unwrap().unwrap().stored(), 2);
    assert_eq!(mates.written.lock().len(), 1, "nobody follows a table that did not ask for it");
    assert_eq!(mates.opened.lock().len(), 2, "that there is a file of it is said all the same");
}

// A segment is followed as a whole or not at all.
#[tokio::test(flavor = "multi_thread")]
async fn another_acknowledgement_begins_another_file() {
    let (home, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (a, mates, b) = two(home.path(), other.path(), [true, false]).await;
    let file = send(&a, &b, &mates, "t", numbered(0..1)).await;
    let local = ThresholdChange { copies: Some(1), immediate: Some(true), ..ThresholdChange::default() };
    a.operator.change_threshold(None, None, local).unwrap();
    let _ = a.slot.append(rows("t", numbered(1..2))).await.unwrap();
    eventually("the followed one is sealed", || mates.sealed().len() == 1).await;
    assert_eq!(mates.sealed()[0].0.file, file.file);
    let open = a.operator.open_files().unwrap();
    let new = open.last().unwrap();
    assert!(new.file > file.file && new.ordinal == 0, "{open:?}");
    assert_eq!(a.operator.rows_after(RowsHeld { ordinal: 0, ..*new }, 1000).unwrap(), None, "nobody follows it");
    a.operator.flush().await.unwrap();
    let (sealed, count) = mates.sealed().pop().unwrap();
    assert_eq!((sealed.file, count), (new.file, 1), "that it is complete is said all the same");
}

// A row that fits at its producer and not here is put aside here, once, and costs no other row; the file is that of its producer.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_does_not_fit_here_is_put_aside_here() {
    let (home, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (a, mates, b) = two(home.path(), other.path(), [true, true]).await;
    // The same columns with another type.
    let _ = b.slot.append(rows("t", ["{\"v\": 1}".to_owned()])).await.unwrap();
    b.operator.flush().await.unwrap();
    let texts: Vec<String> = ["\"a\"", "2", "\"b\"", "4"].iter().map(|v| format!("{{\"v\": {v}}}")).collect();
    let file = send(&a, &b, &mates, "t", texts).await;
    eventually("what fits is stored", || b.count("t") == 3).await;
    assert_eq!(b.integers("t", "v"), [1, 2, 4]);
    assert_eq!(b.operator.quarantined().unwrap().len(), 2);
    b.kill().await;
    let b = member(other.path(), 8).await;
    assert_eq!(b.operator.open_files().unwrap(), [RowsHeld { producer: 7, file: file.file, ordinal: 4 }]);
    a.operator.flush().await.unwrap();
    b.operator.seal_copy(mates.sealed()[0].0.clone()).await.unwrap();
    assert_eq!((b.integers("t", "v"), b.operator.quarantined().unwrap().len()), (vec![1, 2, 4], 2));
    let of_producer = |files: Vec<(String, Vec<String>)>| -> Vec<_> {
        files.into_iter().filter(|(name, _)| name.contains(".7.")).collect()
    };
    assert_eq!(of_producer(a.archived()), of_producer(b.archived()));
}

// What comes over a link is looked at before it is believed.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_make_no_sense_are_refused() {
    let (home, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (a, mates, b) = two(home.path(), other.path(), [true, true]).await;
    let file = send(&a, &b, &mates, "t", numbered(0..3)).await;
    eventually("they are stored there", || b.count("t") == 3).await;
    let good = rest_or_none(&a, file).unwrap().remove(0);
    let wrong = |change: &dyn Fn(&mut Rows)| {
        let mut rows = good.clone();
        rows.file += 1;
        change(&mut rows);
        rows
    };
    fn about(rows: &mut Rows) -> &mut anylog_replica::message::About {
        rows.about.as_mut().unwrap()
    }
    let changes: [&dyn Fn(&mut Rows); 8] = [
        &|rows| rows.file = 0,
        &|rows| rows.runs[0].first = 0,
        &|rows| rows.runs[0].first = u64::MAX,
        &|rows| rows.runs[0].received = i64::MAX,
        &|rows| rows.runs[0].rows[0].push('\n'),
        &|rows| about(rows).segment.clear(),
        &|rows| about(rows).table = "../t".into(),
        &|rows| about(rows).source = "a.b".into(),
    ];
    for (at, change) in changes.iter().enumerate() {
        let error = b.operator.store_rows(wrong(*change)).await.unwrap_err();
        assert!(matches!(error, OperatorError::BadCopy { .. }), "{at}: {error}");
    }
    let mut other_file = good.clone();
    about(&mut other_file).segment[0] ^= 1;
    other_file.previous = 3;
    other_file.runs[0].first = 4;
    assert!(b.operator.store_rows(other_file).await.is_err(), "another file under its number");
    assert_eq!((b.operator.open_files().unwrap().len(), b.count("t")), (1, 3));
}

// `set buffer threshold ... ack =`, and what is shown of it.
#[tokio::test(flavor = "multi_thread")]
async fn acknowledgements_are_set_and_shown() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::start(home.path());
    let set =
        "set buffer threshold where dbms_name = d and table_name = t and ack = replicated(2) and when_few = error";
    node.execute(set).await.unwrap();
    let shown = node.execute("get streaming config").await.unwrap();
    assert!(shown.contains("replicated(2) else error") && shown.contains("local"), "{shown}");
    let threshold = node.operator.thresholds().of("d", "t");
    assert_eq!((threshold.copies, threshold.few), (2, Few::Error));
    for (wrong, says) in [
        ("ack = replicated(0)", "at least"),
        ("ack = replicated(300)", "no cluster has"),
        ("ack = everywhere", "expected local, or replicated(k)"),
        ("when_few = panic", "expected wait"),
    ] {
        let error = node.execute(&format!("set buffer threshold where {wrong}")).await.unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
    assert_eq!(node.operator.thresholds().of("d", "t").copies, 2);
}
