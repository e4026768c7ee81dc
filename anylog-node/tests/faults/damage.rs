//! Every file of a node, damaged: cut off, zeroed, a byte flipped. The node starts, says which file it is, serves the rest, and
//! ends when it is told to.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::chance::{Chance, seed, setting};
use super::devices::{Work, put_rows};
use super::harness::files_below;
use super::mqtt::Publisher;
use super::node::{Node, put, timed};
use super::record::Record;

/// What is done to a file.
#[derive(Debug, Clone, Copy)]
enum Harm {
    /// Only so many bytes are left.
    Cut(usize),
    /// All bytes are 0, as after a power failure on some file systems.
    Zeros,
    /// A byte is another one.
    Flip(usize, u8),
}

impl Harm {
    fn draw(chance: &mut Chance, length: usize) -> Self {
        let at = usize::try_from(chance.below(length.max(1) as u64)).unwrap();
        match chance.below(5) {
            0 => Harm::Cut(0),
            1 => Harm::Cut(at),
            2 => Harm::Zeros,
            _ => Harm::Flip(at, 1 << chance.below(8)),
        }
    }

    fn apply(self, path: &Path) {
        let mut bytes = fs::read(path).unwrap();
        match self {
            Harm::Cut(length) => bytes.truncate(length),
            Harm::Zeros => bytes.fill(0),
            Harm::Flip(at, bit) => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= bit;
                }
            }
        }
        fs::write(path, bytes).unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => copy(&entry.path(), &target),
            kind if kind.is_file() => drop(fs::copy(entry.path(), target).unwrap()),
            _ => {}
        }
    }
}

/// A home with everything in it: sealed and open segments, a quarantine, policies, sessions. Its node was killed.
fn template() -> (tempfile::TempDir, Node) {
    let home = tempfile::tempdir().unwrap();
    let mut node = Node::running(home.path(), &[("PARTITION_COLUMN", "timestamp")]);
    let record = Record::default();
    let work =
        Work { record, round: 0, tables: vec!["steady".into()], backfill: false, stop: std::sync::Arc::default() };
    let unanswered = put_rows(node.rest, &work, Chance::new(1), 5, Vec::new());
    assert!(unanswered.is_empty());
    node.post("flush buffers");
    put(node.rest, "steady", "streaming", r#"{"timestamp": "no time", "n": 1, "r": 0}"#).unwrap();
    let mut device = Publisher::new("device", 2);
    super::devices::publish(&mut device, node.tcp, &work, Chance::new(2), 5, 1);
    let unanswered = put_rows(node.rest, &work, Chance::new(3), 3, Vec::new());
    assert!(unanswered.is_empty());
    node.kill();
    (home, node)
}

/// The files that a start reads, by their paths in the home.
fn files(home: &Path) -> Vec<PathBuf> {
    let all = files_below(home).into_iter();
    let inside = all.filter_map(|path| Some(path.strip_prefix(home).ok()?.to_owned()));
    inside.filter(|path| !path.ends_with("node.log") && !path.ends_with("operator.al")).collect()
}

/// Starts a copy of a home with one file damaged. Says what is wrong with what came of it.
fn survives(template: &Path, like: &Node, file: &Path, harm: Harm) -> Result<(), String> {
    let home = tempfile::tempdir().unwrap();
    copy(template, home.path());
    fs::remove_file(home.path().join("node.log")).ok();
    harm.apply(&home.path().join(file));
    let mut node = Node::new(home.path(), &[("PARTITION_COLUMN", "timestamp")]);
    (node.tcp, node.rest) = (like.tcp, like.rest);
    node.spawn();
    let database = file.to_string_lossy().contains("/dbms/");
    let what = format!("{} {harm:?}", file.display());
    let runs = node.settles();
    if node.ended() {
        return Err(format!("{what}: the node ended: {}", node.log()));
    }
    if !runs && !database {
        return Err(format!("{what}: the operator does not run: {}", node.log()));
    }
    if runs {
        let answer = node.get("sql test format=json and stat=false \"select count(*) as n from steady\"");
        if answer.status != 200 && !database {
            return Err(format!("{what}: {}", answer.body));
        }
        let stored = put(node.rest, "other", "streaming", r#"{"timestamp": "2026-03-01T10:00:00Z", "n": 1, "r": 0}"#);
        let stored = stored.map_err(|error| error.to_string())?;
        if stored.status != 200 && !database {
            return Err(format!("{what}: {}", stored.body));
        }
    } else {
        // A database that cannot be opened is named where a person looks.
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let named = name.split('.').next().unwrap_or_default();
        if !node.log().contains(named) {
            return Err(format!("{what}: the log does not name {named}: {}", node.log()));
        }
    }
    if node.log().contains("panicked") {
        return Err(format!("{what}: {}", node.log()));
    }
    node.signal("-TERM");
    let (status, took) = timed(|| node.wait());
    if status.code() != Some(0) || took > Duration::from_secs(5) {
        return Err(format!("{what}: SIGTERM ended with {status} after {took:?}"));
    }
    Ok(())
}

// R8, R9, DUR-4: a damaged file never keeps a node from starting.
#[test]
fn a_damaged_file_does_not_stop_the_start() {
    let seed = seed();
    let mut chance = Chance::new(seed);
    let (home, node) = template();
    let files = files(home.path());
    let rounds = setting("ANYLOG_FAULT_ROUNDS").unwrap_or(12);
    eprintln!("damage: ANYLOG_FAULT_SEED={seed}, {} files, {rounds} starts", files.len());
    let mut failed = Vec::new();
    for round in 0..rounds {
        // Each file once before any file twice.
        let start = seed % files.len() as u64;
        let file = &files[usize::try_from((start + round) % files.len() as u64).unwrap()];
        let length = usize::try_from(fs::metadata(home.path().join(file)).unwrap().len()).unwrap();
        failed.extend(survives(home.path(), &node, file, Harm::draw(&mut chance, length)).err());
    }
    assert!(failed.is_empty(), "seed {seed}: {} of {rounds}: {failed:#?}", failed.len());
}
