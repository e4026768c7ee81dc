use crate::schema::infer;

use super::*;

fn stored(directory: &Path) -> (SqliteDbms, Target, std::path::PathBuf) {
    let dbms = SqliteDbms::open(&ConnectRequest::sqlite("d", directory)).unwrap();
    let schema = infer("t", &[r#"{"v":1}"#], &[], true).unwrap();
    dbms.create_table(&schema).unwrap();
    let target = Target::table("t");
    let columns = ["insert_timestamp".to_owned(), "v".to_owned()];
    let row = vec![SqlValue::Text("2026-01-01 00:00:00.000000".into()), SqlValue::Int(1)];
    dbms.apply(&target, &columns, &[row], &[(SegmentId(1), 1)]).unwrap();
    (dbms, target, directory.join("d.dbms"))
}

// DUR-2: a second sync of a log tells nothing of what the first one lost, so the log is not relied on any more.
#[test]
fn a_log_that_failed_to_be_synced_is_written_anew() {
    let directory = tempfile::tempdir().unwrap();
    let (dbms, target, file) = stored(directory.path());
    let log = || std::fs::metadata(layout::beside(&file, "-wal")).unwrap().len();
    dbms.sync().unwrap();
    assert!(log() > 0, "a log that is synced stays");
    dbms.writer.lock().distrust([file.clone()]);
    // Somebody else reads what is in it.
    let other = rusqlite::Connection::open(&file).unwrap();
    other.execute_batch("BEGIN; SELECT count(*) FROM t").unwrap();
    let columns = ["v".to_owned()];
    let row = vec![SqlValue::Int(2)];
    drop(dbms.apply(&target, &columns, &[row], &[]));
    assert!(dbms.sync().is_err(), "it cannot be moved");
    assert!(dbms.sync().is_err(), "nor is that forgotten");
    other.execute_batch("ROLLBACK").unwrap();
    dbms.sync().unwrap();
    assert_eq!(log(), 0, "all of it is in the file");
    assert!(dbms.count(&target).unwrap() > 0);
    assert_eq!(dbms.applied(&target, SegmentId(1)).unwrap(), Some(1));
    // A file that is gone is no trouble.
    dbms.writer.lock().distrust([directory.path().join("gone.dbms")]);
    dbms.sync().unwrap();
}
