//! The local copy survives damage (DUR-4, R9): it always loads, what is intact is there, and the damage is named.

// A test fails by panicking.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use anylog_ledger::Policy;
use anylog_ledger::snapshot::{Contents, Deletion};
use anylog_ledger::store::file::LedgerFile;
use serde_json::json;

fn policy(id: &str) -> Policy {
    Policy::from_value(json!({"site": {"name": format!("näme {id}"), "id": id, "ledger": "global"}})).unwrap()
}

fn contents(ids: &[&str]) -> Contents {
    Contents { policies: ids.iter().map(|id| Arc::new(policy(id))).collect(), ..Contents::default() }
}

fn ids(contents: &Contents) -> Vec<String> {
    contents.policies.iter().map(|policy| policy.id().to_owned()).collect()
}

/// A copy of three policies: two from a rewrite, one appended.
fn sample(directory: &std::path::Path) -> LedgerFile {
    let file = LedgerFile::new(directory.join("blockchain").join("blockchain.json"));
    file.rewrite(&contents(&["a", "b"])).unwrap();
    file.append(&[Arc::new(policy("c"))]).unwrap();
    file
}

/// A copy like `original` in another directory, with one of its files changed; nothing is synced, so that thousands are made quickly.
fn damaged(original: &LedgerFile, directory: &std::path::Path, name: &str, bytes: &[u8]) -> LedgerFile {
    let path = directory.join("blockchain.json");
    for entry in std::fs::read_dir(original.path().parent().unwrap()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), directory.join(entry.file_name())).unwrap();
    }
    std::fs::write(directory.join(name), bytes).unwrap();
    LedgerFile::new(path)
}

#[test]
fn an_intact_copy_loads_without_a_word() {
    let directory = tempfile::tempdir().unwrap();
    let file = sample(directory.path());
    let loaded = file.load().unwrap();
    assert_eq!(ids(&loaded.contents), ["a", "b", "c"]);
    assert!(loaded.damage.is_empty(), "{:?}", loaded.damage);
}

#[test]
fn notes_of_what_was_done_here_survive() {
    let directory = tempfile::tempdir().unwrap();
    let file = sample(directory.path());
    let note = Deletion { id: "b".to_owned(), date: "2026-01-01T00:00:00.000000Z".to_owned() };
    file.append_deleted(&note).unwrap();
    let mut loaded = file.load().unwrap().contents;
    assert_eq!(ids(&loaded), ["a", "c"]);
    assert_eq!(loaded.deleted, std::slice::from_ref(&note));
    loaded.replaced.push("a".to_owned());
    file.rewrite(&loaded).unwrap();
    assert_eq!(file.load().unwrap().contents, loaded);
}

#[test]
fn a_policy_that_was_deleted_and_written_again_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let file = sample(directory.path());
    file.append_deleted(&Deletion { id: "b".to_owned(), date: "2026-01-01T00:00:00.000000Z".to_owned() }).unwrap();
    file.append(&[Arc::new(policy("b"))]).unwrap();
    let loaded = file.load().unwrap();
    assert_eq!(ids(&loaded.contents), ["a", "b", "c"]);
    assert!(loaded.contents.deleted.is_empty() && loaded.damage.is_empty(), "{:?}", loaded.damage);
}

#[test]
fn of_two_lines_of_a_policy_the_later_counts() {
    let directory = tempfile::tempdir().unwrap();
    let file = sample(directory.path());
    file.append(&[Arc::new(policy("b").with("name", "again"))]).unwrap();
    let loaded = file.load().unwrap();
    assert_eq!(ids(&loaded.contents), ["a", "b", "c"]);
    assert_eq!(loaded.contents.policy("b").unwrap().text("name"), Some("again"));
    assert!(loaded.damage.is_empty(), "{:?}", loaded.damage);
    assert_eq!(LedgerFile::import(file.path()).unwrap().policies, loaded.contents.policies);
}

#[test]
fn every_truncation_is_named_and_costs_only_what_is_cut() {
    let directory = tempfile::tempdir().unwrap();
    let original = sample(directory.path());
    let bytes = std::fs::read(original.path()).unwrap();
    for length in 0..bytes.len() {
        let directory = tempfile::tempdir().unwrap();
        let file = damaged(&original, directory.path(), "blockchain.json", &bytes[..length]);
        let loaded = file.load().unwrap();
        assert!(!loaded.damage.is_empty(), "cut at {length}");
        let whole_lines = bytes[..length].iter().filter(|byte| **byte == b'\n').count();
        assert!(loaded.contents.policies.len() >= whole_lines, "cut at {length}: {:?}", loaded.damage);
        // The repaired copy is sound, and can be appended to.
        file.append(&[Arc::new(policy("d"))]).unwrap();
        let again = file.load().unwrap();
        assert!(again.damage.is_empty(), "cut at {length}: {:?}", again.damage);
        assert_eq!(again.contents.policies.len(), loaded.contents.policies.len() + 1);
    }
}

#[test]
fn every_flipped_byte_is_named_and_costs_at_most_its_lines() {
    let directory = tempfile::tempdir().unwrap();
    let original = sample(directory.path());
    let bytes = std::fs::read(original.path()).unwrap();
    for position in 0..bytes.len() {
        for mask in [0x01u8, 0x80] {
            let directory = tempfile::tempdir().unwrap();
            let mut changed = bytes.clone();
            changed[position] ^= mask;
            let file = damaged(&original, directory.path(), "blockchain.json", &changed);
            let loaded = file.load().unwrap();
            assert!(!loaded.damage.is_empty(), "byte {position} ^ {mask}");
            // A damaged line end joins two lines; anything else concerns one.
            let lost = 3 - loaded.contents.policies.len();
            assert!(lost <= if bytes[position] == b'\n' { 2 } else { 1 }, "byte {position}: {:?}", loaded.damage);
            for policy in loaded.contents.policies.iter() {
                assert!(["a", "b", "c"].contains(&policy.id()), "byte {position}: a changed policy was taken");
            }
            assert!(file.load().unwrap().damage.is_empty(), "byte {position}: the copy was not repaired");
        }
    }
}

#[test]
fn every_flipped_byte_of_the_checks_is_survived() {
    let directory = tempfile::tempdir().unwrap();
    let original = sample(directory.path());
    let bytes = std::fs::read(directory.path().join("blockchain").join("blockchain.json.check")).unwrap();
    for position in 0..bytes.len() {
        let directory = tempfile::tempdir().unwrap();
        let mut changed = bytes.clone();
        changed[position] ^= 0x04;
        let file = damaged(&original, directory.path(), "blockchain.json.check", &changed);
        let loaded = file.load().unwrap();
        assert_eq!(ids(&loaded.contents), ["a", "b", "c"], "byte {position}: {:?}", loaded.damage);
    }
}

#[test]
fn a_file_of_nulls_falls_back_to_the_previous_copy() {
    let directory = tempfile::tempdir().unwrap();
    let file = sample(directory.path());
    file.rewrite(&contents(&["a", "b", "x"])).unwrap();
    let length = std::fs::metadata(file.path()).unwrap().len();
    std::fs::write(file.path(), vec![0; usize::try_from(length).unwrap()]).unwrap();
    let loaded = file.load().unwrap();
    // What the previous generation holds unchanged is restored from there; x was never in it.
    assert_eq!(ids(&loaded.contents), ["a", "b"]);
    assert!(loaded.damage.iter().any(|text| text.contains("restored")), "{:?}", loaded.damage);
    assert!(loaded.damage.iter().any(|text| text.contains("policy x was lost")), "{:?}", loaded.damage);
}

#[test]
fn a_crash_between_the_renames_of_a_rewrite_leaves_one_generation() {
    let directory = tempfile::tempdir().unwrap();
    let file = sample(directory.path());
    // The present copy became the previous one, and the new one has not its name yet.
    std::fs::rename(file.path(), file.sibling("old")).unwrap();
    let loaded = file.load().unwrap();
    assert_eq!(ids(&loaded.contents), ["a", "b", "c"]);
    assert!(!loaded.damage.is_empty());
    assert_eq!(ids(&file.load().unwrap().contents), ["a", "b", "c"]);
}

#[test]
fn lines_that_were_appended_just_before_a_crash_need_no_checks() {
    let directory = tempfile::tempdir().unwrap();
    let file = sample(directory.path());
    let checks = directory.path().join("blockchain").join("blockchain.json.check");
    let before = std::fs::read(&checks).unwrap();
    file.append(&["d", "e", "f"].map(|id| Arc::new(policy(id)))).unwrap();
    // The crash fell between the lines and their checks, or into the checks.
    let after = std::fs::read(&checks).unwrap();
    for length in before.len()..after.len() {
        let directory = tempfile::tempdir().unwrap();
        let file = damaged(&file, directory.path(), "blockchain.json.check", &after[..length]);
        let loaded = file.load().unwrap();
        assert_eq!(ids(&loaded.contents), ["a", "b", "c", "d", "e", "f"], "{length}: {:?}", loaded.damage);
        assert!(file.load().unwrap().damage.is_empty());
    }
    // A line without check in the middle is none of them.
    let directory = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(file.path()).unwrap();
    let text = text.replacen("näme b", "näme x", 1);
    let file = damaged(&file, directory.path(), "blockchain.json", text.as_bytes());
    assert_eq!(ids(&file.load().unwrap().contents), ["a", "c", "d", "e", "f"]);
}

#[test]
fn a_copy_without_checks_is_taken_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("blockchain.json");
    std::fs::write(&path, "{\"site\": {\"id\": \"a\"}}\n\n  \nnot json\n{\"site\":{\"id\":\"b\"}}\n").unwrap();
    let file = LedgerFile::new(&path);
    let loaded = file.load().unwrap();
    assert_eq!(ids(&loaded.contents), ["a", "b"]);
    assert_eq!(loaded.damage.len(), 1, "{:?}", loaded.damage);
    assert!(loaded.damage[0].contains("line 4"));
    assert!(std::fs::read_to_string(directory.path().join("blockchain.json.damaged")).unwrap().contains("not json"));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_load(copy in proptest::collection::vec(proptest::num::u8::ANY, 0..200), checks in "[0-9a-f \n]{0,120}") {
        let directory = tempfile::tempdir().unwrap();
        let file = LedgerFile::new(directory.path().join("blockchain.json"));
        std::fs::write(file.path(), copy).unwrap();
        std::fs::write(directory.path().join("blockchain.json.check"), checks).unwrap();
        file.load().unwrap();
        proptest::prop_assert!(file.load().unwrap().damage.is_empty());
    }
}
