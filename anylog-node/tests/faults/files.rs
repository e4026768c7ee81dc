//! What a node holds, compared with what was sent: tables, source files, the registry.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anylog_operator::archive::unpack;
use anylog_operator::source_file::{SourceName, content_hash, stream_hash};
use serde_json::Value;

use super::harness::{eventually, files_below, source_files};
use super::node::Node;
use super::record::{Faults, Record, compare};

/// Waits until every file of the watch directory is stored.
fn watched_files_are_taken(node: &Node) {
    eventually("the files of the watch directory are stored", || {
        let left = files_below(&node.root().join("data/watch"));
        left.is_empty().then_some(())
    });
}

/// How often each row number of a table is stored, from a round on.
fn stored(node: &Node, table: &str, since: u64) -> Result<HashMap<u64, u32>, String> {
    let mut counts = HashMap::new();
    for row in node.rows(&format!("select n from {table} where r >= {since}"))? {
        let n = row["n"].as_u64().ok_or_else(|| format!("{table}: a row without number: {row}"))?;
        *counts.entry(n).or_default() += 1;
    }
    Ok(counts)
}

/// Compares the tables with what was sent from a round on.
pub(crate) fn check_tables(node: &Node, record: &Record, since: u64) -> Faults {
    watched_files_are_taken(node);
    let mut faults = Faults::new();
    for (table, sent) in record.since(since) {
        let stored = match stored(node, &table, since) {
            Ok(stored) => stored,
            // A table that no row was acknowledged for need not be there.
            Err(_) if sent.iter().all(|message| !message.acknowledged) => HashMap::new(),
            Err(error) => {
                faults.push(format!("{table}: {error}"));
                continue;
            }
        };
        compare(&table, &sent, stored, &mut faults);
    }
    check_log(node, &mut faults);
    faults
}

/// Nothing panicked and nothing went to the quarantine.
fn check_log(node: &Node, faults: &mut Faults) {
    let log = node.log();
    faults.extend(log.lines().filter(|line| line.contains("panicked")).map(str::to_owned));
    for file in files_below(&node.root().join("data/error")) {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // The end of a write that was cut off is put aside; it was never acknowledged.
        if !name.ends_with(".damaged") {
            faults.push(format!(
                "in the error directory: {name}: {}",
                std::fs::read_to_string(&file).unwrap_or_default()
            ));
        }
    }
}

/// Seals everything and compares tables, source files and registry: each row in exactly one file, each file registered under its
/// hash with as many rows as it has.
pub(crate) fn check_files(node: &Node, tables: &BTreeSet<String>) -> Faults {
    let mut faults = Faults::new();
    node.post("flush buffers");
    eventually("all segments are sealed", || {
        let open = registered(node).values().filter(|file| file.0.starts_with("open:")).count();
        (open == 0).then_some(())
    });
    let registered = registered(node);
    let mut in_files: BTreeMap<String, HashMap<(u64, i64), u32>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for path in source_files(&node.root()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Ok(parsed) = SourceName::parse(&name) else {
            faults.push(format!("in the archive: {name}"));
            continue;
        };
        let content = unpack(&name, &std::fs::read(&path).unwrap_or_default()).unwrap_or_default();
        let Some(by) = &parsed.registration else {
            faults.push(format!("a source file without registration: {name}"));
            continue;
        };
        let streamed = stream_hash(&parsed.dbms, &parsed.table, &content, &by.member, &by.file_id.to_string());
        let whole = content_hash(&parsed.dbms, &parsed.table, &[&content]);
        if parsed.hash != streamed && parsed.hash != whole {
            faults.push(format!("{name}: its content has the hash {streamed} or {whole}"));
        }
        if !seen.insert(by.file_id) {
            faults.push(format!("{name}: a second source file of its number"));
        }
        let numbers = numbers(&name, &content, &mut faults);
        match registered.get(&by.file_id) {
            Some((hash, rows)) if *hash == parsed.hash && *rows == numbers.len() as i64 => {}
            other => faults.push(format!("{name} with {} rows is registered as {other:?}", numbers.len())),
        }
        for n in numbers {
            *in_files.entry(parsed.table.clone()).or_default().entry((n, by.file_id)).or_default() += 1;
        }
    }
    for (id, (hash, rows)) in &registered {
        if !seen.contains(id) && (!hash.starts_with("void:") || *rows != 0) {
            faults.push(format!("registered, but not in the archive: file {id} with {rows} rows, hash {hash}"));
        }
    }
    for table in tables {
        let files = in_files.remove(table).unwrap_or_default();
        let Ok(rows) = node.rows(&format!("select n, tsd_id from {table}")) else {
            if !files.is_empty() {
                faults.push(format!("{table} is in source files, but not there"));
            }
            continue;
        };
        let mut stored: HashMap<(u64, i64), u32> = HashMap::new();
        for row in rows {
            let file = row["tsd_id"].as_i64().unwrap_or(-1);
            *stored.entry((row["n"].as_u64().unwrap_or(u64::MAX), file)).or_default() += 1;
        }
        if stored != files {
            let mut only_stored: Vec<_> = stored.iter().filter(|(row, count)| files.get(row) != Some(count)).collect();
            let mut only_files: Vec<_> = files.iter().filter(|(row, count)| stored.get(row) != Some(count)).collect();
            only_stored.sort();
            only_files.sort();
            only_stored.truncate(5);
            only_files.truncate(5);
            faults.push(format!("{table}: (row, file) in the table {only_stored:?}, in files {only_files:?}"));
        }
    }
    faults
}

fn numbers(name: &str, content: &[u8], faults: &mut Faults) -> Vec<u64> {
    let mut numbers = Vec::new();
    for value in serde_json::Deserializer::from_slice(content).into_iter::<Value>() {
        match value {
            Ok(Value::Array(rows)) => numbers.extend(rows.iter().filter_map(|row| row["n"].as_u64())),
            Ok(row) => numbers.extend(row["n"].as_u64()),
            Err(error) => faults.push(format!("{name}: {error}")),
        }
    }
    numbers
}

/// The registered files: hash and rows by number.
fn registered(node: &Node) -> BTreeMap<i64, (String, i64)> {
    let answer = node.get("sql almgm format=json and stat=false \"select file_id, file_hash, rows from tsd_info\"");
    let value: Value = serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.body));
    let rows = value["Query"].as_array().cloned().unwrap_or_default();
    let file = |row: &Value| {
        let hash = row["file_hash"].as_str().unwrap_or_default().to_owned();
        Some((row["file_id"].as_i64()?, (hash, row["rows"].as_i64().unwrap_or(0))))
    };
    rows.iter().filter_map(file).collect()
}
