//! Files that arrive whole.

use anylog_dbms::{NewFile, SqlValue};
use anylog_ingest::{SinkError, SourceFile};
use anylog_ledger::{Destinations, Policy};
use anylog_operator::source_file::content_hash;
use serde_json::json;

use crate::harness::{TestNode, eventually, numbered};

fn file(table: &str, rows: Vec<String>) -> SourceFile {
    SourceFile {
        dbms: "d".into(),
        table: table.into(),
        source: "0".into(),
        instructions: "0".into(),
        rows,
        origin: "rest".into(),
    }
}

fn text(rows: &[String]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

/// Writes elsewhere and renames, as the convention of the watch directory asks.
fn deliver(node: &TestNode, name: &str, content: &[u8]) {
    let prepared = node.directory("prep_dir").join("delivery");
    std::fs::write(&prepared, content).unwrap();
    std::fs::rename(prepared, node.directory("watch_dir").join(name)).unwrap();
}

fn names(node: &TestNode, directory: &str) -> Vec<String> {
    let entries = std::fs::read_dir(node.directory(directory)).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_stored_once() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::running(home.path()).await;
    node.partitioned("insert_timestamp");
    let stored = node.slot.store_file(file("t", numbered(0..12))).await.unwrap();
    assert_eq!(stored.receipt.stored(), 12);
    assert_eq!(stored.hash, content_hash("d", "t", &[text(&numbered(0..12)).as_bytes()]));
    assert_eq!(node.integers("t", "n"), (0..12).collect::<Vec<_>>());
    let again = node.slot.store_file(file("t", numbered(0..12))).await.unwrap_err();
    assert_eq!(again, SinkError::DuplicateFile { hash: stored.hash.clone() });
    assert_eq!(node.count("t"), 12);
    assert_eq!(node.registered(), [(1, stored.hash.clone(), 12)]);
    let archived = node.archived();
    assert!(archived[0].0.starts_with(&format!("d.t.0.{}.0.7.1.", stored.hash)));
    assert_eq!(archived[0].1, numbered(0..12));
    assert!(names(&node, "watch_dir").is_empty() && names(&node, "prep_dir").is_empty());
    let other = node.slot.store_file(file("u", numbered(0..12))).await.unwrap();
    assert_ne!(other.hash, stored.hash, "the same content for another table is another file");
}

// R13
#[tokio::test(flavor = "multi_thread")]
async fn bad_rows_of_a_file_are_named() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::running(home.path()).await;
    let _ = node.slot.store_file(file("t", numbered(0..2))).await.unwrap();
    let mut mixed = numbered(2..5);
    mixed[1] = "{\"n\": [1]}".into();
    let stored = node.slot.store_file(file("t", mixed)).await.unwrap();
    assert_eq!(stored.receipt.stored(), 2);
    assert_eq!(stored.receipt.refused()[0].row, 1);
    assert_eq!(node.integers("t", "n"), [0, 1, 2, 4]);
    assert_eq!(node.registered()[1].2, 2);
}

// A crash between a file's registration and its rows: the same file is taken up, under the same number.
#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_file_is_finished() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::running(home.path()).await;
    let hash = content_hash("d", "t", &[text(&numbered(0..4)).as_bytes()]);
    let registered = NewFile {
        dbms: "d".into(),
        table: "t".into(),
        source: "0".into(),
        hash: hash.clone(),
        instructions: "0".into(),
        time: node.node.clock.now(),
    };
    let id = node.catalog.tsd().unwrap().register(&registered).unwrap();
    let _ = node.slot.store_file(file("t", numbered(0..4))).await.unwrap();
    assert_eq!(node.registered(), [(id, hash, 4)]);
    assert_eq!(node.integers("t", "tsd_id"), [id; 4]);
}

// A crash between a file's registration and its way into the watch directory, and nobody sends it again: nobody waits for it
// either, and the same content can come later.
#[tokio::test(flavor = "multi_thread")]
async fn a_registered_file_that_never_came_is_void() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::running(home.path()).await;
    let refused = node.slot.store_file(file("t", vec!["{\"n\": 1}".into(), "{\"n\": [1]}".into()])).await.unwrap();
    let hash = content_hash("d", "t", &[text(&numbered(0..4)).as_bytes()]);
    let registered = NewFile {
        dbms: "d".into(),
        table: "t".into(),
        source: "0".into(),
        hash: hash.clone(),
        instructions: "0".into(),
        time: node.node.clock.now(),
    };
    let id = node.catalog.tsd().unwrap().register(&registered).unwrap();
    node.kill().await;
    let node = TestNode::running(home.path()).await;
    let files = node.registered();
    assert_eq!(files[0].1, refused.hash, "a file that lies in the archive stays what it is");
    assert_eq!(files[1], (id, format!("void:{id}.{hash}"), 0));
    // And it may come to nothing once more.
    let second = node.catalog.tsd().unwrap().register(&registered).unwrap();
    node.kill().await;
    let node = TestNode::running(home.path()).await;
    assert_eq!(node.registered()[2], (second, format!("void:{second}.{hash}"), 0));
    let stored = node.slot.store_file(file("t", numbered(0..4))).await.unwrap();
    assert_eq!((stored.hash.clone(), stored.receipt.stored()), (hash, 4));
    assert_eq!(node.registered()[3].2, 4);
}

// A crash after everything but the removal of the file: it carries the node's own number, and is not a duplicate.
#[tokio::test(flavor = "multi_thread")]
async fn an_own_file_that_is_left_in_the_watch_directory_repeats_nothing() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::start(home.path());
    node.connect();
    node.run().await;
    let rows = numbered(0..4);
    let hash = content_hash("d", "t", &[text(&rows).as_bytes()]);
    let registered = NewFile {
        dbms: "d".into(),
        table: "t".into(),
        source: "0".into(),
        hash: hash.clone(),
        instructions: "0".into(),
        time: "2026-11-23T05:23:40.609731Z".parse().unwrap(),
    };
    let id = node.catalog.tsd().unwrap().register(&registered).unwrap();
    deliver(&node, &format!("d.t.0.{hash}.0.7.{id}.261123052340.json"), text(&rows).as_bytes());
    eventually("the file is stored", || node.registered()[0].2 == 4 && names(&node, "watch_dir").is_empty()).await;
    assert_eq!(node.count("t"), 4);
    assert!(names(&node, "err_dir").is_empty());
    assert_eq!(node.archived()[0].0, format!("d.t.0.{hash}.0.7.{id}.261123052340.json.gz"));
}

// R13: like rows that are put with `instructions`.
#[tokio::test(flavor = "multi_thread")]
async fn files_with_instructions_are_mapped_by_their_policy() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::running(home.path()).await;
    let policy = json!({"mapping": {"id": "pumps", "dbms": "d", "table": "m", "schema": {
        "level": {"type": "float", "bring": "[l]"}, "name": {"type": "string", "bring": "[pump][name]"}}}});
    node.ledger.insert(Policy::from_value(policy).unwrap(), &Destinations::local()).await.unwrap();
    let rows = "{\"l\": 1.5, \"pump\": {\"name\": \"a\"}}\n[5, {\"l\": 2, \"pump\": {\"name\": \"b\"}}]\n";
    deliver(&node, "d.m.src1.0.pumps.json", rows.as_bytes());
    let found = || -> Vec<Vec<SqlValue>> {
        let Ok(database) = node.catalog.get("d") else { return Vec::new() };
        let mut rows = Vec::new();
        let select = "select level, name from m order by level";
        // The table may not be there yet.
        database
            .dbms()
            .query(None, select, &mut |_, row| {
                rows.push(row);
                std::ops::ControlFlow::Continue(())
            })
            .ok();
        rows
    };
    let row = |level: f64, name: &str| vec![SqlValue::Float(level), SqlValue::Text(name.to_owned())];
    eventually("the rows are mapped", || names(&node, "watch_dir").is_empty() && found().len() == 2).await;
    assert_eq!(found(), [row(1.5, "a"), row(2.0, "b")]);
    let aside = || node.operator.quarantined().unwrap();
    assert_eq!(aside().len(), 1, "{:?}", aside());
    assert!(aside()[0].message.as_ref().is_some_and(|message| message.filter == "pumps"), "{:?}", aside());
    let archived = node.archived();
    assert!(archived[0].0.starts_with("d.m.src1.") && archived[0].0.contains(".pumps.7.1."), "{archived:?}");
    assert_eq!(archived[0].1.len(), 2);
    let failed = || {
        let mut names = names(&node, "err_dir");
        names.retain(|name| name.contains(".err_"));
        names.sort();
        names
    };
    assert!(names(&node, "prep_dir").is_empty() && failed().is_empty(), "{:?}", failed());
    // Packed, and in the shape of the table already.
    let packed = anylog_operator::archive::pack(b"{\"level\": 7, \"name\": \"c\"}\n").unwrap();
    deliver(&node, "d.m.src1.0.pumps.json.gz", &packed);
    eventually("the packed file is stored", || found().len() == 3).await;
    assert_eq!(found()[2], row(7.0, "c"));
    // The same again, no policy, and one for another table.
    deliver(&node, "d.m.src1.0.pumps.json", rows.as_bytes());
    deliver(&node, "d.m.0.0.nobody.json", b"{\"l\": 1}");
    deliver(&node, "d.other.0.0.pumps.json", b"{\"l\": 1, \"pump\": {\"name\": \"a\"}}");
    eventually("three are put aside", || failed().len() == 3).await;
    let errors = failed();
    for (name, start) in
        errors.iter().zip(["d.m.0.0.nobody.err_85.", "d.m.src1.0.pumps.err_86.", "d.other.0.0.pumps.err_85."])
    {
        assert!(name.starts_with(start), "{name} {start}");
    }
    assert_eq!((found().len(), aside().len()), (3, 1), "nothing is there twice");
    assert!(names(&node, "prep_dir").is_empty(), "{:?}", names(&node, "prep_dir"));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_the_watch_directory_are_stored_or_put_aside() {
    let home = tempfile::tempdir().unwrap();
    let node = TestNode::running(home.path()).await;
    let packed = anylog_operator::archive::pack(text(&numbered(0..3)).as_bytes()).unwrap();
    deliver(&node, "d.t.json.gz", &packed);
    deliver(&node, "d.u.src1.json", b"{\"n\": 1}\n{\n  \"n\": 2\n}\n");
    eventually("both are stored", || node.count("t") == 3 && node.count("u") == 2).await;
    deliver(&node, "d.t.again.json", text(&numbered(0..3)).as_bytes());
    deliver(&node, "d.v.json", b"{\"n\": 1}\n{\"n\":");
    deliver(&node, "d.t.0.0.0.1.json", b"{\"n\": 1}");
    deliver(&node, "gone.t.json", b"{\"n\": 1}");
    deliver(&node, "d.t.0.0.0.99.5.261123052340.json", b"{\"n\": 8}");
    eventually("five are put aside", || names(&node, "err_dir").len() == 5).await;
    let mut aside = names(&node, "err_dir");
    aside.sort();
    for (name, start) in aside.iter().zip([
        "d.t.0.0.0.1.err_119.",
        "d.t.0.0.0.99.5.261123052340.err_131.",
        "d.t.again.err_86.",
        "d.v.err_67.",
        "gone.t.err_10.",
    ]) {
        assert!(name.starts_with(start) && name.ends_with(".json"), "{name} {start}");
    }
    eventually("the directory is empty", || names(&node, "watch_dir").is_empty()).await;
    assert_eq!(node.count("t"), 3);
    assert_eq!(node.registered().len(), 2, "what was put aside is not registered");
}
