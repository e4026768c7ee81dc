//! Rows that arrive in messages.

use std::sync::Arc;

use anylog_dbms::SqlValue;
use anylog_ingest::{RowGroup, SinkError};
use anylog_operator::{Identity, OperatorConfig, OperatorError};

use crate::harness::{TestNode, eventually, numbered, rows};

// DUR-1: immediate is immediate from the first row of a table never seen before.
#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledged_row_is_there() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::running(home.path()).await;
    node.immediate().partitioned("insert_timestamp");
    let receipt = node.slot.append(rows("t", numbered(0..3))).await.unwrap();
    assert_eq!((receipt.stored(), receipt.refused().len()), (3, 0));
    assert_eq!(node.integers("t", "n"), [0, 1, 2]);
    assert_eq!(node.targets("t").len(), 2, "the rows lie in a partition");
    assert_eq!(node.column("t", "tsd_name"), vec![SqlValue::Text("7".into()); 3]);
    let (file_id, hash, _) = node.registered()[0].clone();
    assert!(hash.starts_with("open:"));
    assert_eq!(node.integers("t", "tsd_id"), [file_id; 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_table_is_published_with_its_cluster() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::running(home.path()).await;
    node.immediate();
    let _ = node.slot.append(rows("t", numbered(0..1))).await.unwrap();
    let view = node.ledger.view();
    assert!(view.table_policy("d", "t").unwrap().text("create").unwrap().contains("CREATE TABLE"));
    let cluster =
        node.ledger.policies("cluster").iter().find(|policy| policy.text("parent").is_none()).unwrap().id().to_owned();
    assert_eq!(view.clusters_with("d", "t"), [cluster.as_str()]);
    let child = node.ledger.policies("cluster").into_iter().find(|policy| policy.text("parent").is_some()).unwrap();
    assert_eq!(child.text("source"), Some("Node at 127.0.0.1:32148"));
}

#[tokio::test(flavor = "multi_thread")]
async fn buffered_rows_are_there_after_a_flush() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::running(home.path()).await;
    node.partitioned("insert_timestamp");
    let _ = node.slot.append(rows("t", numbered(0..5))).await.unwrap();
    assert_eq!(node.count("t"), 0, "they wait in the journal");
    assert_eq!(node.operator.flush().await.unwrap(), 1);
    assert_eq!(node.integers("t", "n"), [0, 1, 2, 3, 4]);
    let files = node.archived();
    assert_eq!(files.len(), 1);
    assert_eq!(files[0].1, numbered(0..5), "the source file holds the rows as they came");
    let (file_id, hash, count) = node.registered()[0].clone();
    assert_eq!(count, 5);
    assert!(files[0].0.starts_with(&format!("d.t.0.{hash}.0.7.{file_id}.")), "{}", files[0].0);
}

// DUR-2: a segment of many pieces keeps its rows and their order, and the engine's refusals stay out of the source file.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_segment_is_sealed_piece_by_piece() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::running(home.path()).await;
    node.operator.set_threshold(None, None, None, Some(64 << 20), None).unwrap();
    let padded = |range: std::ops::Range<i64>| -> Vec<String> {
        range.map(|n| format!("{{\"n\": {n}, \"pad\": \"{:0>100}\"}}", n)).collect()
    };
    let _ = node.slot.append(rows("t", padded(0..1))).await.unwrap();
    let database = Arc::clone(node.catalog.get("d").unwrap().dbms());
    database.execute("CREATE UNIQUE INDEX one_of_each ON t(n)").unwrap();
    for group in 0..30 {
        let first = 1 + group * 1000;
        let _ = node.slot.append(rows("t", padded(first..first + 1000))).await.unwrap();
    }
    // Known only when the rows are applied, so the sender has its receipt by then.
    let _ = node.slot.append(rows("t", padded(15_000..15_001))).await.unwrap();
    let _ = node.slot.append(rows("t", padded(30_001..30_002))).await.unwrap();
    eventually("rows are stored while their segment fills", || node.count("t") > 1).await;
    assert!(node.registered()[0].1.starts_with("open:"), "it is not sealed yet");
    assert_eq!(node.operator.flush().await.unwrap(), 1);
    assert_eq!(node.integers("t", "n"), (0..=30_001).collect::<Vec<_>>());
    assert_eq!(node.archived()[0].1, padded(0..30_002));
    assert_eq!(node.registered()[0].2, 30_002);
}

/// Rows of 100 KB.
fn long(range: std::ops::Range<i64>) -> Vec<String> {
    range.map(|n| format!("{{\"n\": {n}, \"pad\": \"{}\"}}", "x".repeat(100_000))).collect()
}

// DUR-2, R23: when the database falls behind, rows are acknowledged from the journal all the same, take no more memory, and are
// stored when their segment is sealed.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_find_no_memory_are_stored_from_the_journal() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::running(home.path()).await;
    node.operator.set_threshold(None, None, None, Some(64 << 20), None).unwrap();
    let _ = node.slot.append(rows("t", long(0..1))).await.unwrap();
    let other = rusqlite::Connection::open(node.directory("dbms_dir").join("d.dbms")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    for group in 0..16 {
        let first = 1 + group * 10;
        let _ = node.slot.append(rows("t", long(first..first + 10))).await.unwrap();
    }
    let queues = node.operator.queues();
    let kept = queues.iter().find(|queue| queue.name == "buffered rows in memory").unwrap();
    assert!(kept.used > 0 && Some(kept.used) <= kept.bound, "{kept:?}");
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(node.operator.flush().await.unwrap(), 1);
    assert_eq!(node.integers("t", "n"), (0..=160).collect::<Vec<_>>());
    assert_eq!(node.archived()[0].1, long(0..161));
    assert!(node.operator.quarantined().unwrap().is_empty());
    let queues = node.operator.queues();
    assert_eq!(queues.iter().find(|queue| queue.name == "buffered rows in memory").unwrap().used, 0);
}

// DUR-2: rows that are in memory are not those of a database that was disconnected, though it has its name.
#[tokio::test(flavor = "multi_thread")]
async fn buffered_rows_go_to_the_database_that_is_connected_when_they_are_stored() {
    for emptied in [false, true] {
        let home = tempfile::tempdir().unwrap();
        let node = TestNode::running(home.path()).await;
        node.operator.set_threshold(None, None, None, Some(64 << 20), None).unwrap();
        // Some are stored before, by their number.
        let _ = node.slot.append(rows("t", long(0..40))).await.unwrap();
        eventually("the first rows are stored", || node.count("t") == 40).await;
        let _ = node.slot.append(rows("t", numbered(40..43))).await.unwrap();
        node.catalog.disconnect("d").unwrap();
        let request = anylog_dbms::ConnectRequest::sqlite("d", node.directory("dbms_dir"));
        if emptied {
            node.catalog.drop_database(&request).unwrap();
        }
        node.catalog.connect(request).unwrap();
        let _ = node.slot.append(rows("t", numbered(43..45))).await.unwrap();
        node.operator.flush().await.unwrap();
        let stored = node.integers("t", "n");
        assert!(stored.ends_with(&[40, 41, 42, 43, 44]), "emptied: {emptied}: {stored:?}");
        assert!(emptied || stored.len() == 45, "{stored:?}");
        assert_eq!(stored.iter().collect::<std::collections::BTreeSet<_>>().len(), stored.len(), "no row twice");
        assert_eq!(node.registered().iter().map(|(_, _, rows)| rows).sum::<i64>(), 45);
    }
}

// DUR-2: rows of one message that go to several partitions are stored, and archived, once each.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_for_several_partitions_is_sealed_once() {
    for immediate in [true, false] {
        let home = tempfile::tempdir().unwrap();
        let node = TestNode::running(home.path()).await;
        node.partitioned("at");
        node.operator.set_threshold(None, None, None, None, Some(immediate)).unwrap();
        let days: Vec<String> = (1..6).map(|n| format!("{{\"at\": \"2026-03-0{n}T10:00:00Z\", \"n\": {n}}}")).collect();
        let _ = node.slot.append(rows("t", days.clone())).await.unwrap();
        node.operator.flush().await.unwrap();
        assert_eq!(node.integers("t", "n"), [1, 2, 3, 4, 5], "immediate: {immediate}");
        assert_eq!(node.archived()[0].1, days, "immediate: {immediate}");
        assert_eq!(node.registered()[0].2, 5);
    }
}

// DUR-2: counts agree everywhere, however the rows are grouped.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_rows_are_a_thousand_rows_everywhere() {
    let home = tempfile::tempdir().unwrap();
    let node = Arc::new(TestNode::running(home.path()).await);
    node.immediate().partitioned("insert_timestamp");
    let senders: Vec<_> = (0..20)
        .map(|sender| {
            let node = Arc::clone(&node);
            tokio::spawn(async move {
                for n in 0..50 {
                    let first = sender * 50 + n;
                    let _ = node.slot.append(rows("t", numbered(first..first + 1))).await.unwrap();
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    assert_eq!(node.count("t"), 1000);
    node.operator.flush().await.unwrap();
    assert_eq!(node.integers("t", "n"), (0..1000).collect::<Vec<_>>());
    let archived: usize = node.archived().iter().map(|(_, rows)| rows.len()).sum();
    assert_eq!(archived, 1000);
    assert_eq!(node.registered().iter().map(|(_, _, rows)| rows).sum::<i64>(), 1000);
    let load = node.operator.load();
    assert!(load.frames.1 < load.frames.0, "messages share syncs: {load:?}");
    assert_eq!(load.memory, 0, "nothing is held when nothing is under way");
}

// R13: one bad row costs itself only, and is kept with the reason.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_row_goes_to_the_quarantine_alone() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::running(home.path()).await;
    node.immediate();
    let _ = node.slot.append(rows("t", numbered(0..1))).await.unwrap();
    let mut batch = numbered(1..4);
    batch[1] = "{\"n\": \"warm\"}".into();
    let receipt = node.slot.append(rows("t", batch)).await.unwrap();
    assert_eq!(receipt.stored(), 2);
    assert_eq!(receipt.refused().len(), 1);
    assert_eq!((receipt.refused()[0].part, receipt.refused()[0].row), (0, 1));
    let refused = &receipt.refused()[0];
    assert!(refused.reason.contains("'n'"), "{}", refused.reason);
    assert_eq!((refused.kind, refused.column.as_str(), refused.actual.as_str()), ("type", "n", "\"warm\""));
    assert!(!refused.expected.is_empty());
    assert_eq!(node.integers("t", "n"), [0, 1, 3]);
    let kept = node.operator.quarantined().unwrap();
    assert_eq!(
        (kept[0].row.as_deref().unwrap(), kept[0].origin.as_str(), kept[0].position),
        ("{\"n\": \"warm\"}", "test", 1)
    );
    let receipt = node.slot.append(rows("t", ["nonsense".to_owned()])).await.unwrap();
    assert_eq!((receipt.stored(), receipt.refused().len()), (0, 1), "a message of bad rows is taken and put aside");
    node.operator.flush().await.unwrap();
    assert_eq!(node.registered().iter().map(|(_, _, rows)| rows).sum::<i64>(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_integer_column_widens_for_a_fraction() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::running(home.path()).await;
    node.immediate().partitioned("insert_timestamp");
    let _ = node.slot.append(rows("t", numbered(1..2))).await.unwrap();
    let receipt = node.slot.append(rows("t", ["{\"n\": 2}".to_owned(), "{\"n\": 2.5}".to_owned()])).await.unwrap();
    assert_eq!(receipt.stored(), 2);
    let sum: f64 = node
        .column("t", "n")
        .iter()
        .map(|value| match value {
            SqlValue::Int(1) => 1.0,
            SqlValue::Int(2) => 2.0,
            SqlValue::Float(value) => *value,
            other => panic!("{other:?}"),
        })
        .sum();
    assert!((sum - 5.5).abs() < 1e-9);
    let create = node.ledger.view().table_policy("d", "t").unwrap().text("create").unwrap().to_uppercase();
    assert!(create.contains("DOUBLE"), "{create}");
}

// Decisions: streams are never deduplicated by content.
#[tokio::test(flavor = "multi_thread")]
async fn two_equal_batches_are_two_batches() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::running(home.path()).await;
    for _ in 0..2 {
        let _ = node.slot.append(rows("t", numbered(0..2))).await.unwrap();
        node.operator.flush().await.unwrap();
    }
    assert_eq!(node.count("t"), 4);
    let hashes: std::collections::BTreeSet<_> = node.registered().into_iter().map(|(_, hash, _)| hash).collect();
    assert_eq!(hashes.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn turning_immediate_on_loses_no_buffered_row() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::running(home.path()).await;
    let _ = node.slot.append(rows("t", numbered(0..2))).await.unwrap();
    node.immediate();
    let _ = node.slot.append(rows("t", numbered(2..4))).await.unwrap();
    assert!(node.count("t") >= 2, "the immediate rows are there");
    node.operator.flush().await.unwrap();
    assert_eq!(node.integers("t", "n"), [0, 1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_go_to_the_partition_of_their_time() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::running(home.path()).await;
    node.immediate().partitioned("at");
    let times = ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-01-01T12:00:00Z"];
    let batch = times.map(|at| format!("{{\"at\": \"{at}\", \"v\": 1}}"));
    let receipt = node.slot.append(rows("t", batch)).await.unwrap();
    assert_eq!(receipt.stored(), 3, "{:?}", receipt.refused());
    let counts: Vec<u64> =
        node.targets("t").iter().map(|target| node.catalog.get("d").unwrap().dbms().count(target).unwrap()).collect();
    assert_eq!(counts, [0, 2, 1]);
    node.operator.flush().await.unwrap();
    assert_eq!(node.count("t"), 3, "sealing repeats nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_stored_is_refused_with_the_status() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::start(home.path());
    node.connect();
    assert_eq!(node.slot.append(rows("t", numbered(0..1))).await.unwrap_err(), SinkError::NotRunning);
    let _ = node.policies().await;
    let config = OperatorConfig { create_table: false, update_tsd_info: true, ..OperatorConfig::default() };
    node.operator.run(config.clone()).await.unwrap();
    assert_eq!(node.operator.run(config).await.unwrap_err(), OperatorError::Running);
    let refused = node.slot.append(rows("t", numbered(0..1))).await.unwrap_err();
    assert!(matches!(refused, SinkError::Table { status, .. } if status.0 == 171), "{refused:?}");
    let mut unknown: RowGroup = rows("t", numbered(0..1));
    unknown.parts[0].dbms = "nowhere".into();
    assert_eq!(node.slot.append(unknown).await.unwrap_err(), SinkError::UnknownDbms { dbms: "nowhere".into() });
    node.operator.exit().await.unwrap();
    let config = OperatorConfig { limit_tables: vec![("d".into(), "none".into())], ..OperatorConfig::default() };
    assert!(matches!(node.operator.run(config).await.unwrap_err(), OperatorError::UnknownTable { .. }));
    let config = OperatorConfig { identity: Identity::Policy("gone".into()), ..OperatorConfig::default() };
    assert_eq!(node.operator.run(config).await.unwrap_err().status().0, 113);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limited_operator_takes_its_tables_only() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::running(home.path()).await;
    let _ = node.slot.append(rows("t", numbered(0..1))).await.unwrap();
    node.operator.exit().await.unwrap();
    let config = OperatorConfig { limit_tables: vec![("d".into(), "t".into())], ..OperatorConfig::default() };
    node.operator.run(config).await.unwrap();
    let _ = node.slot.append(rows("t", numbered(1..2))).await.unwrap();
    let refused = node.slot.append(rows("u", numbered(0..1))).await.unwrap_err();
    assert!(matches!(refused, SinkError::Table { status, .. } if status.0 == 130));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_partition_is_made_again_for_new_rows() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::running(home.path()).await;
    node.immediate().partitioned("insert_timestamp");
    let _ = node.slot.append(rows("t", numbered(0..2))).await.unwrap();
    let partition = node.targets("t")[1].partition.clone().unwrap();
    let database = node.catalog.get("d").unwrap();
    node.catalog.drop_partition(&database, "t", &partition).unwrap();
    assert_eq!(node.count("t"), 0);
    let _ = node.slot.append(rows("t", numbered(2..3))).await.unwrap();
    assert_eq!(node.integers("t", "n"), [2]);
    node.operator.flush().await.unwrap();
    assert_eq!(node.integers("t", "n"), [2], "sealing does not bring dropped rows back");
}

// The same of rows that are still in memory when their partition is dropped.
#[tokio::test(flavor = "multi_thread")]
async fn buffered_rows_of_a_dropped_partition_are_not_stored() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::running(home.path()).await;
    node.partitioned("insert_timestamp");
    let _ = node.slot.append(rows("t", numbered(0..2))).await.unwrap();
    let partition = node.targets("t")[1].partition.clone().unwrap();
    let database = node.catalog.get("d").unwrap();
    node.catalog.drop_partition(&database, "t", &partition).unwrap();
    let _ = node.slot.append(rows("t", numbered(2..3))).await.unwrap();
    node.operator.flush().await.unwrap();
    assert_eq!(node.integers("t", "n"), [2]);
}

// The first rows of a table wait until it is made, and those around a segment's end until the next is registered: later ones
// must not overtake them.
#[tokio::test(flavor = "multi_thread")]
async fn rows_keep_the_order_in_which_they_were_handed_over() {
    use futures_util::StreamExt;
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::running(home.path()).await;
    node.immediate().partitioned("insert_timestamp");
    let mut sending = futures_util::stream::FuturesUnordered::new();
    for n in 0..600 {
        sending.push(node.slot.append(rows("t", numbered(n..n + 1))));
        if n % 20 == 19 {
            // A client with 20 messages in flight sends the next when one is acknowledged.
            let _ = sending.next().await.unwrap().unwrap();
        }
        if n % 200 == 199 {
            node.operator.flush().await.unwrap();
        }
    }
    while let Some(receipt) = sending.next().await {
        let _ = receipt.unwrap();
    }
    let target = node.targets("t").pop().unwrap();
    let sql = format!("SELECT n FROM {} ORDER BY row_id", target.physical());
    let mut stored = Vec::new();
    let mut visit = |_: &[String], mut row: Vec<SqlValue>| {
        stored.push(row.remove(0));
        std::ops::ControlFlow::Continue(())
    };
    node.catalog.get("d").unwrap().dbms().query(Some(&target), &sql, &mut visit).unwrap();
    assert_eq!(stored, (0..600).map(SqlValue::Int).collect::<Vec<_>>());
}
