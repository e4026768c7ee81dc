//! The demos, as somebody who has just installed the program runs them.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

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

/// The network demo with its homes in `temporary`.
fn network(temporary: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_anylog-node"));
    command.args(["demo", "--network"]).env("TMPDIR", temporary).env("LEDGER_CONN", "192.0.2.1:32048");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The network demo at work.
struct Running {
    demo: Child,
    shown: BufReader<ChildStdout>,
    /// The processes of its nodes.
    nodes: Vec<u32>,
}

impl Running {
    /// Starts the demo and waits for the first line of its dashboard.
    fn start(temporary: &Path) -> Self {
        let mut demo = network(temporary).spawn().expect("the program runs");
        let shown = BufReader::new(demo.stdout.take().expect("a pipe"));
        let mut running = Self { demo, shown, nodes: Vec::new() };
        let mut line = String::new();
        while !line.contains(" s  master") {
            line.clear();
            assert!(running.shown.read_line(&mut line).expect("text") > 0, "the demo ended early");
            if let Some((_, rest)) = line.split_once("process ") {
                running.nodes.extend(rest.split_whitespace().next().and_then(|id| id.parse::<u32>().ok()));
            }
        }
        assert_eq!(running.nodes.len(), 5);
        assert!(running.nodes.iter().all(|node| runs(*node)));
        running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.demo.kill().ok();
        self.demo.wait().ok();
    }
}

/// Whether a process runs; one that ended and was not waited for does not.
fn runs(process: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    status.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
}

#[test]
fn the_network_demo_loses_nothing_and_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().expect("a temporary directory");
    let output = network(temporary.path()).args(["--seconds", "4"]).output().expect("the program runs");
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{shown}{}", String::from_utf8_lossy(&output.stderr));
    let number = |line: &str, word: &str| -> u64 {
        let line = shown.lines().find(|shown| shown.starts_with(line)).unwrap_or_else(|| panic!("{line}: {shown}"));
        let (_, after) = line.rsplit_once(word).expect("a number");
        after.trim_end_matches('.').trim().parse().expect("a number")
    };
    let acknowledged = number("Messages acknowledged", "= ");
    assert!(acknowledged > 100, "{shown}");
    // DUR-1, QRY-3
    for line in ["Rows by the query node", "Rows after operator-2 ended"] {
        assert!(number(line, ": ") >= acknowledged, "{shown}");
    }
    for word in ["cluster north", "cluster south", "pump-4", "\"Nodes\": 2", "do not replicate yet", "All nodes ended."]
    {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    assert_eq!(std::fs::read_dir(temporary.path()).expect("the directory").count(), 0, "the homes are removed");
}

#[test]
fn the_nodes_of_the_network_demo_end_with_it() {
    let temporary = tempfile::tempdir().expect("a temporary directory");
    let mut running = Running::start(temporary.path());
    running.demo.kill().expect("the demo is killed");
    running.demo.wait().expect("the demo ended");
    let end = Instant::now() + Duration::from_secs(30);
    while running.nodes.iter().any(|node| runs(*node)) {
        assert!(Instant::now() < end, "nodes stay: {:?}", running.nodes);
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[test]
fn a_signal_ends_the_network_demo_in_order() {
    let temporary = tempfile::tempdir().expect("a temporary directory");
    let mut running = Running::start(temporary.path());
    let sent = Command::new("kill").args(["-INT", &running.demo.id().to_string()]).status().expect("kill runs");
    assert!(sent.success());
    let mut rest = String::new();
    running.shown.read_to_string(&mut rest).expect("text");
    assert!(running.demo.wait().expect("the demo ended").success(), "{rest}");
    assert!(rest.contains("Rows by the query node") && rest.contains("All nodes ended.\n"), "{rest}");
    assert!(!running.nodes.iter().any(|node| runs(*node)));
    assert_eq!(std::fs::read_dir(temporary.path()).expect("the directory").count(), 0, "the homes are removed");
}
