//! The demo, as somebody who has just installed the program runs it.

use std::process::{Command, Stdio};

#[test]
fn the_demo_shows_rows_arriving_and_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().expect("a temporary directory");
    let output = Command::new(env!("CARGO_BIN_EXE_anylog-node"))
        .args(["demo", "--seconds", "3"])
        .env("TMPDIR", temporary.path())
        // What a person has set for a node of their own does not reach the demo.
        .env("LEDGER_CONN", "192.0.2.1:32048")
        .env("DB_TYPE", "nonsense")
        .stdin(Stdio::null())
        .output()
        .expect("the program runs");
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{shown}{errors}");
    let last = shown.lines().rev().find(|line| line.contains("Rows in the database")).expect("a summary");
    let numbers: Vec<u64> =
        last.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect();
    assert!(numbers.len() == 2 && numbers[0] > 50, "{shown}");
    assert!(numbers[1] >= numbers[0], "every acknowledged message is a row: {shown}"); // DUR-1
    for word in ["curl", "mosquitto_pub", "anylog-node exec", "pump-", "1 partition"] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    assert_eq!(std::fs::read_dir(temporary.path()).expect("the directory").count(), 0, "the home is removed");
}
