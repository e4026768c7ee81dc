//! Whether all members hold the same, and whether it is what was sent.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::network::{Cluster, DBMS, TABLES, Table};
use super::node::{Node, patience};
use super::record::{Faults, Record};

/// A convergence that takes longer is told of.
const SLOW: Duration = Duration::from_secs(5);

/// Rows of a table by their number, each as everything that must be equal on all members.
type Rows = HashMap<u64, Vec<String>>;

/// Rows of a table that a member holds, from a phase on. A table that is not there has none.
fn rows(node: &Node, table: Table, since: u64) -> Rows {
    let select =
        format!("select n, p, timestamp, insert_timestamp, tsd_name, tsd_id from {} where r >= {since}", table.name);
    let mut rows = Rows::new();
    for row in node.rows(DBMS, &select).unwrap_or_default() {
        rows.entry(row["n"].as_u64().unwrap_or(u64::MAX)).or_default().push(row.to_string());
    }
    rows.values_mut().for_each(|copies| copies.sort());
    rows
}

/// The rows of each table on the first member, and where the others differ from it.
fn equal_rows(cluster: &Cluster, since: u64, faults: &mut Faults) -> Vec<(Table, Rows)> {
    let mut all = Vec::new();
    for table in TABLES {
        let mut members = cluster.members.iter().map(|node| (node, rows(node, table, since)));
        let Some((first, expected)) = members.next() else { continue };
        for (node, found) in members {
            let mut numbers: Vec<u64> = expected.keys().chain(found.keys()).copied().collect();
            numbers.retain(|n| expected.get(n) != found.get(n));
            numbers.sort_unstable();
            numbers.dedup();
            if let Some(n) = numbers.first() {
                faults.push(format!(
                    "{}: {} rows differ on {} and {}, such as {:?} and {:?}",
                    table.name,
                    numbers.len(),
                    first.name,
                    node.name,
                    expected.get(n),
                    found.get(n)
                ));
            }
        }
        all.push((table, expected));
    }
    all
}

/// The complete files of a registry: rows and hash by number.
fn registered(node: &Node, registry: &str) -> BTreeMap<i64, String> {
    let select = format!("select file_id, dbms_name, table_name, file_hash, rows from {registry}");
    let rows = node.rows("almgm", &select).unwrap_or_default();
    let complete = |row: &&Value| {
        let open = row["file_hash"].as_str().is_none_or(|hash| hash.starts_with("open:"));
        row["rows"].as_i64().unwrap_or(0) > 0 && !open
    };
    rows.iter().filter(complete).filter_map(|row| Some((row["file_id"].as_i64()?, row.to_string()))).collect()
}

/// Each member has the files of each producer as the producer itself has them.
fn equal_registries(cluster: &Cluster, numbers: &[i64], faults: &mut Faults) {
    for (producer, number) in cluster.members.iter().zip(numbers) {
        let own = registered(producer, "tsd_info");
        for mate in cluster.members.iter().filter(|mate| mate.name != producer.name) {
            let theirs = registered(mate, &format!("tsd_{number}"));
            let mut files: Vec<&i64> = own.keys().chain(theirs.keys()).collect();
            files.retain(|file| own.get(file) != theirs.get(file));
            if let Some(file) = files.first() {
                faults.push(format!(
                    "{} files of {} differ on {}, such as {file}: {:?} and {:?}",
                    files.len(),
                    producer.name,
                    mate.name,
                    own.get(file),
                    theirs.get(file)
                ));
            }
        }
    }
}

/// What the query node answers for the whole cluster.
fn equal_answers(cluster: &Cluster, since: u64, held: &[(Table, Rows)], faults: &mut Faults) {
    for (table, rows) in held {
        let select = format!("select count(*) as rows, sum(n) as total from {} where r >= {since}", table.name);
        let count: usize = rows.values().map(Vec::len).sum();
        let total: u64 = rows.iter().map(|(n, copies)| n * copies.len() as u64).sum();
        match cluster.query.network_rows(DBMS, &select) {
            Ok(answer) => {
                let number = |name: &str| answer.first().and_then(|row| row[name].as_f64()).unwrap_or(0.0);
                if (number("rows"), number("total")) != (count as f64, total as f64) {
                    faults.push(format!("{}: the query node answers {answer:?}, not {count} and {total}", table.name));
                }
            }
            Err(_) if count == 0 => {}
            Err(error) => faults.push(format!("{}: the query node answers {error}", table.name)),
        }
    }
}

/// Nothing panicked, and nothing went to the quarantine.
fn quiet_logs(cluster: &Cluster, faults: &mut Faults) {
    for node in cluster.members.iter().chain([&cluster.master, &cluster.query]) {
        let log = node.log();
        faults
            .extend(log.lines().filter(|line| line.contains("panicked")).map(|line| format!("{}: {line}", node.name)));
        let Ok(files) = std::fs::read_dir(node.data().join("error")) else { continue };
        // The end of a write that was cut off is put aside; it was never acknowledged.
        let files = files.flatten().map(|file| file.file_name().to_string_lossy().into_owned());
        let strange = files.filter(|name| !name.ends_with(".damaged"));
        faults.extend(strange.map(|name| format!("{}: in the error directory: {name}", node.name)));
    }
}

/// All faults of the moment, in rows of a phase and later ones.
fn faults(cluster: &Cluster, record: &Record, since: u64, numbers: &[i64]) -> Faults {
    let mut faults = Faults::new();
    let held = equal_rows(cluster, since, &mut faults);
    equal_registries(cluster, numbers, &mut faults);
    // What is on its way is not lost: only equal members are held against the record.
    if faults.is_empty() {
        equal_answers(cluster, since, &held, &mut faults);
        for (table, rows) in &held {
            let counts = rows.iter().map(|(n, copies)| (*n, u32::try_from(copies.len()).unwrap())).collect();
            faults.extend(record.compare(*table, since, counts));
        }
    }
    quiet_logs(cluster, &mut faults);
    faults
}

/// Waits until all members are equal and hold what was sent from a phase on; fails with what is wrong when they do not get there.
pub(crate) fn converge(cluster: &Cluster, record: &Record, since: u64, when: &str) {
    let (start, numbers) = (Instant::now(), cluster.numbers());
    let mut last = None;
    loop {
        let looked = Instant::now();
        let faults = faults(cluster, record, since, &numbers);
        if faults.is_empty() {
            if start.elapsed() > SLOW {
                eprintln!("{when}: equal after {:.1?}; until then {last:?}", start.elapsed());
            }
            return;
        }
        if start.elapsed() > patience() {
            let shown: Vec<&String> = faults.iter().take(12).collect();
            let status = |node: &Node| {
                let said =
                    ["get tsd sync status", "get consumer", "get peers status"].map(|asked| node.get(asked).body);
                format!("--- {}: {}", node.name, said.join("\n"))
            };
            let status: Vec<String> = cluster.members.iter().map(status).collect();
            panic!("{when}: {} faults: {shown:#?}\n{}", faults.len(), status.join("\n"));
        }
        last = faults.into_iter().next();
        // Looking costs the nodes time too.
        std::thread::park_timeout(looked.elapsed().max(Duration::from_millis(100)));
    }
}
