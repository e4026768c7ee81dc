//! Every point of the life of a copy: rows of another member's open file arrive, and it is sealed. Whatever is left is started from,
//! and all is sent again, as it is over a link that broke.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anylog_ingest::SinkError;
use anylog_operator::replica::Followers;
use anylog_operator::thresholds::ThresholdChange;
use anylog_replica::FileKey;
use anylog_replica::message::{Rows, RowsHeld, Sealed};
use async_trait::async_trait;
use parking_lot::Mutex;

use crate::harness::{TestNode, eventually, rows};
use crate::points::{Fate, fall_back, oldest_allowed};
use crate::tape::{Moment, TapeDisk, copy};

/// Rows of the file, and one of the member that has the copy.
const ROWS: i64 = 9;
const OWN: i64 = 100;

fn row(n: i64) -> String {
    // Three days, so that a message meets several partitions.
    format!("{{\"at\": \"2026-03-0{}T10:00:00Z\", \"n\": {n}}}", 1 + n % 3)
}

/// Members that have everything at once, and note what is sealed.
#[derive(Default)]
struct Quick(Mutex<Vec<Sealed>>);

#[async_trait]
impl Followers for Quick {
    fn opened(&self, _: FileKey) {}

    fn written(&self, _: RowsHeld) {}

    fn complete(&self, sealed: Sealed, _: u64) {
        self.0.lock().push(sealed);
    }

    fn reachable(&self) -> u32 {
        2
    }

    async fn copies(&self, _: FileKey, _: u64, _: u32, _: Option<Instant>) -> Result<(), SinkError> {
        Ok(())
    }
}

/// A file as its producer has it.
struct Produced {
    messages: Vec<Rows>,
    sealed: Sealed,
    archived: Vec<(String, Vec<String>)>,
    registered: Vec<(i64, String, i64)>,
}

async fn produce() -> Produced {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::running(home.path()).await;
    let followers = Arc::new(Quick::default());
    node.operator.follow(Some(Arc::clone(&followers) as Arc<dyn Followers>)).unwrap();
    let change = ThresholdChange { copies: Some(2), ..ThresholdChange::default() };
    node.operator.change_threshold(None, None, change).unwrap();
    let mut messages = Vec::new();
    for numbers in [0..3, 3..4, 4..ROWS] {
        let _ = node.slot.append(rows("t", numbers.map(row))).await.unwrap();
        let file = node.operator.open_files().unwrap()[0];
        let behind = messages.last().and_then(last).unwrap_or(0);
        let after = RowsHeld { ordinal: behind, ..file };
        messages.extend(node.operator.rows_after(after, 1 << 20).unwrap().unwrap());
    }
    node.operator.flush().await.unwrap();
    let sealed = followers.0.lock().pop().unwrap();
    Produced { messages, sealed, archived: node.archived(), registered: node.registered() }
}

fn last(rows: &Rows) -> Option<u64> {
    rows.runs.last().map(|run| run.first + run.rows.len() as u64 - 1)
}

async fn member(home: &Path, disk: TapeDisk, immediate: bool) -> TestNode {
    let node = TestNode::on_disk(home, Arc::new(disk));
    node.operator.set_threshold(None, None, None, None, Some(immediate)).unwrap();
    node.connect();
    node.partitioned("at");
    node.run_as(8).await;
    node
}

/// What the member with the copy does, with its own rows between.
async fn script(home: &Path, produced: &Produced, immediate: bool) -> TapeDisk {
    let tape = TapeDisk::new(home);
    let node = member(home, tape.clone(), immediate).await;
    for (at, message) in produced.messages.iter().enumerate() {
        let held = node.operator.store_rows(message.clone()).await.unwrap();
        // What was told is counted by ordinals, which are the numbers of the rows and one more.
        let told = i64::try_from(held.ordinal).unwrap();
        tape.sender(|sender| sender.acknowledged = (0..told).collect());
        if at == 0 {
            let _ = node.slot.append(rows("t", [row(OWN)])).await.unwrap();
        }
    }
    node.operator.seal_copy(produced.sealed.clone()).await.unwrap();
    tape.keep("sealed".into());
    node.operator.flush().await.unwrap();
    tape.keep("the end".into());
    node.kill().await;
    tape
}

async fn recover(moment: &Moment, older: Option<&Moment>, fate: Fate, produced: &Produced, immediate: bool) {
    let what = format!("before '{}', {fate:?}, databases of '{:?}'", moment.next, older.map(|older| &older.next));
    let home = tempfile::tempdir().unwrap();
    copy(moment.home.path(), home.path());
    if let Some(older) = older {
        fall_back(older.home.path(), home.path());
    }
    let node = member(home.path(), fate.left_of(moment), immediate).await;
    let file = FileKey { producer: produced.sealed.producer, file: produced.sealed.file };
    let copy_here = || {
        let open = node.operator.open_files().unwrap();
        open.into_iter().find(|held| (held.producer, held.file) == (file.producer, file.file))
    };
    let complete = !node.registered_in("tsd_7").is_empty();
    let held = copy_here().map_or(0, |held| held.ordinal);
    assert!(complete || held >= moment.acknowledged.len() as u64, "{what}: told more than is held, which is {held}");
    // The link broke: everything comes again.
    for message in &produced.messages {
        let held = node.operator.store_rows(message.clone()).await.unwrap();
        assert!(Some(held.ordinal) >= last(message), "{what}: {held:?}");
    }
    node.operator.seal_copy(produced.sealed.clone()).await.unwrap_or_else(|error| panic!("{what}: {error}"));
    node.operator.flush().await.unwrap();
    eventually("nothing is open", || copy_here().is_none() && node.operator.load().closing == 0).await;
    let stored = node.integers("t", "n");
    let mut counts: BTreeMap<i64, usize> = BTreeMap::new();
    stored.iter().for_each(|n| *counts.entry(*n).or_default() += 1);
    counts.remove(&OWN);
    assert_eq!(counts, (0..ROWS).map(|n| (n, 1)).collect(), "{what}: each row once");
    let of_producer: Vec<_> = node.archived().into_iter().filter(|(name, _)| name.contains(".7.")).collect();
    assert_eq!(of_producer, produced.archived, "{what}: the file of its producer");
    assert_eq!(node.registered_in("tsd_7"), produced.registered, "{what}");
    node.kill().await;
}

async fn every_moment(immediate: bool) {
    let produced = produce().await;
    assert_eq!(produced.messages.len(), 3);
    let home = tempfile::tempdir().unwrap();
    let tape = script(home.path(), &produced, immediate).await;
    let moments = tape.moments();
    assert!(moments.len() > 15, "the script does something: {}", moments.len());
    for (at, moment) in moments.iter().enumerate() {
        recover(moment, None, Fate::Dropped, &produced, immediate).await;
        if moment.next.starts_with("sync") || moment.next.contains("second half") {
            recover(moment, None, Fate::Torn, &produced, immediate).await;
            recover(moment, None, Fate::Kept, &produced, immediate).await;
        }
        if let Some(older) = oldest_allowed(&moments, at) {
            recover(moment, Some(older), Fate::Dropped, &produced, immediate).await;
        }
    }
}

// DUR-2, DUR-3, R7: whichever is the last step before the power fails, what a member said it has of another's open file it has, and
// after all came again each row is there once, in the very file that its producer has.
#[tokio::test(flavor = "multi_thread")]
async fn power_may_fail_before_every_operation_of_an_immediate_copy() {
    every_moment(true).await;
}

// DUR-2, DUR-3, R7, as above.
#[tokio::test(flavor = "multi_thread")]
async fn power_may_fail_before_every_operation_of_a_buffered_copy() {
    every_moment(false).await;
}
