//! Members that are being filled: another one answers, and when all are, the answer says what the one lacks that gave it.

use anylog_query::Committed;
use parking_lot::Mutex;

use super::*;

const MAIN: &str = "10.0.0.2:2001";
const SECOND: &str = "10.0.0.2:2002";
const COUNT: &str = "run client () sql d format=json:list and stat=false \"select count(*) as n from t\"";

/// How many files a member lacks; all members have file 9 of member 1.
#[derive(Debug, Default)]
struct Lacks(Mutex<Option<u64>>);

impl Committed for Lacks {
    fn upto(&self) -> Option<Vec<(i64, i64)>> {
        Some(vec![(1, 9)])
    }

    fn behind(&self) -> Option<u64> {
        *self.0.lock()
    }
}

/// A cluster whose members have the first so many of some rows, and may be told that they lack files.
fn cluster(rows: &[usize]) -> (Net, Vec<Arc<Lacks>>) {
    let net = Net::new(&[(Vec::new(), rows.len())]);
    let mut all = Vec::new();
    for ((_, operator), rows) in net.operators.iter().zip(rows) {
        if *rows > 0 {
            let dbms = operator.catalog.get("d").unwrap();
            let dbms = dbms.dbms();
            dbms.create_table(&schema()).unwrap();
            let own = &some_rows()[..*rows];
            let days = Partitioning::new("timestamp", 1, PartitionUnit::Day).unwrap();
            let names: std::collections::BTreeSet<String> = own.iter().map(|row| days.name("t", row.time)).collect();
            for name in names {
                dbms.create_partition(&schema(), &name).unwrap();
                let of_day = own.iter().filter(|row| days.name("t", row.time) == name);
                store(dbms, &Target::partition("t", &name), of_day);
            }
        }
        let lacks = Arc::new(Lacks::default());
        operator.service.set_committed(Arc::clone(&lacks) as _);
        all.push(lacks);
    }
    (net, all)
}

fn set(lacks: &Lacks, files: u64) {
    *lacks.0.lock() = Some(files);
}

#[test]
fn a_member_that_is_being_filled_leaves_the_answer_to_another_one() {
    // QRY-2: without a table, with some rows, and when it does not know what it lacks.
    for (rows, files) in [(0, 9_000), (20, 17), (20, 0)] {
        let (net, lacks) = cluster(&[rows, 60]);
        set(&lacks[0], files);
        assert_eq!(net.run(COUNT).unwrap(), r#"[{"n":60}]"#);
        assert!(net.run("query status").unwrap().contains(SECOND), "it says who answered");
        for sql in ["select count from t", "select count from t order by count", "select max(count) from t"] {
            let found = net.ask(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
            assert!(found.contains(&vec![Cell::Int(59)]), "{sql}");
        }
        // A question to its own rows alone is answered.
        let (_, own) = &net.operators[0];
        let local =
            runtime().block_on(async { own.run("sql d format=json:list \"select count(*) as n from t\"").await });
        assert_eq!(local.is_ok(), rows > 0);
        // It has what it lacked.
        *lacks[0].0.lock() = None;
        assert_eq!(net.run(COUNT).unwrap(), format!(r#"[{{"n":{rows}}}]"#));
    }
}

#[test]
fn an_answer_of_a_member_that_lacks_files_says_so() {
    // QRY-2: the one that lacks least answers, also while others are away, and what it lacks is told without statistics too.
    let (net, lacks) = cluster(&[20, 40, 60]);
    set(&lacks[0], 9_000);
    set(&lacks[1], 17);
    net.cut("10.0.0.2:2003");
    let answer = net.run(COUNT).unwrap();
    assert!(answer.starts_with(r#"[{"n":40},"#), "{answer}");
    assert!(answer.contains(SECOND) && answer.contains("lacks 17 files of its cluster"), "{answer}");
    assert!(!answer.contains(MAIN) && !answer.contains("9000"), "{answer}");
    for select in ["select count from t", "select count from t order by count", "select max(count) as count from t"] {
        for format in ["json", "json:list", "json:output", "table"] {
            let line = format!("run client () sql d format={format} and stat=false \"{select}\"");
            let answer = net.run(&line).unwrap();
            assert!(answer.contains("39") && answer.contains("lacks 17 files"), "{line}: {answer}");
        }
    }
    // One that knows how much it lacks comes before one that does not.
    set(&lacks[1], 0);
    let answer = net.run(COUNT).unwrap();
    assert!(answer.starts_with(r#"[{"n":20},"#) && answer.contains("lacks 9000 files"), "{answer}");
    net.cut(MAIN);
    let answer = net.run(COUNT).unwrap();
    assert!(answer.starts_with(r#"[{"n":40},"#) && answer.contains("could not hear yet"), "{answer}");
    // The rows of files that all have are here too.
    let committed = net.run(&COUNT.replace("stat=false", "stat=false and committed = true")).unwrap();
    assert_eq!(committed, r#"[{"n":40}]"#);
}

#[test]
fn a_member_that_breaks_off_is_not_replaced_by_one_that_lacks_files() {
    // QRY-2, QRY-3: one that was reached has more rows.
    let (net, lacks) = cluster(&[60, 20]);
    set(&lacks[1], 17);
    for bytes in [0, 7, 30] {
        net.operators[0].1.breaks_after.store(bytes, Ordering::Relaxed);
        for sql in ["select count from t", "select count(*) from t"] {
            let error = net.ask(sql).unwrap_err().to_string();
            assert!(error.contains("lacks 17 files"), "{sql} after {bytes}: {error}");
        }
    }
}
