//! Files dropped into the watch directory.

use std::fs;
use std::path::Path;

use super::harness::{Operator, eventually, files_below};

const ROWS: &str = "{\"timestamp\": \"2026-03-01T10:00:00Z\", \"value\": 1.5}\n{\"timestamp\": \"2026-03-01T10:00:01Z\", \"value\": 2.5}\n";

fn drop_file(node: &Operator, name: &str, text: &str) {
    // Written elsewhere and renamed, as the documented convention asks.
    let data = node.root().join("data");
    let prepared = data.join("prep").join(name);
    fs::write(&prepared, text).expect("a prepared file");
    fs::rename(prepared, data.join("watch").join(name)).expect("a moved file");
}

#[test]
fn a_file_is_ingested_archived_and_refused_the_second_time() {
    let node = Operator::start();
    drop_file(&node, "test.dropped.json", ROWS);
    eventually("its rows are there", || {
        let answer = node.get("sql test format=json and stat=false \"select count(*) as n from dropped\"");
        (answer.status == 200 && answer.json()["Query"][0]["n"] == 2).then_some(())
    });
    eventually("it is archived", || node.archived().iter().any(|path| named(path, "test.dropped.0.")).then_some(()));
    drop_file(&node, "test.dropped.json", ROWS);
    let error = eventually("the second copy is refused", || {
        let errors = files_below(&node.root().join("data/error"));
        errors.into_iter().find(|path| path.to_string_lossy().contains(".err_86."))
    });
    assert!(named(&error, "test.dropped."), "{error:?}");
    assert_eq!(node.count("dropped"), 2);
}

#[test]
fn broken_files_go_to_the_error_directory_with_the_cause_in_their_name() {
    let node = Operator::start();
    drop_file(&node, "test.json", ROWS);
    drop_file(&node, "test.broken.json", "{\"value\": \n");
    drop_file(&node, "nodb.t.json", ROWS);
    for code in ["err_119", "err_67", "err_10"] {
        eventually(code, || {
            let errors = files_below(&node.root().join("data/error"));
            errors.iter().any(|path| path.to_string_lossy().contains(code)).then_some(())
        });
    }
}

fn named(path: &Path, prefix: &str) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
}
