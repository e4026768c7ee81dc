//! Members that are filled by their mates: new ones, emptied ones, ones whose data differ.

use std::fs;
use std::path::{Path, PathBuf};

use super::check::converge;
use super::load::put_rows;
use super::network::{Cluster, DBMS, Reach, TABLES, table};
use super::node::eventually;
use super::record::Record;

/// Gives each member rows for each table, in so many requests, and waits until all have all.
fn loaded(cluster: &Cluster, requests: u64) -> Record {
    let record = Record::default();
    for table in TABLES {
        for (member, node) in cluster.members.iter().enumerate() {
            for _ in 0..requests {
                assert!(put_rows(&record, node.ports().rest, table, member, 20));
            }
        }
    }
    converge(cluster, &record, 0, "before anything happens");
    record
}

#[test]
fn a_new_member_gets_all_and_says_how_far_it_is() {
    let mut cluster = Cluster::start(2, Reach::Direct);
    let record = loaded(&cluster, 3);
    let number = cluster.join();
    converge(&cluster, &record, 0, "after a member joined");
    eventually("the new member says that it lacks nothing", || {
        let said = cluster.members[number].text("get consumer");
        (!said.trim().is_empty() && !said.contains("in work")).then_some(())
    });
    // It is one of them from then on.
    assert!(put_rows(&record, cluster.members[number].ports().rest, table("kept"), number, 20));
    cluster.members[0].kill();
    assert!(put_rows(&record, cluster.members[number].ports().rest, table("kept"), number, 20));
    cluster.all_ready();
    converge(&cluster, &record, 0, "after it produced rows itself");
}

// DUR-6: files whose archive is gone are made again of the rows.
#[test]
fn an_emptied_member_is_filled_from_rows_where_archives_are_gone() {
    let mut cluster = Cluster::start(3, Reach::Direct);
    let record = loaded(&cluster, 2);
    for node in &cluster.members {
        let archive = node.data().join("archive");
        fs::remove_dir_all(&archive).unwrap();
        fs::create_dir(&archive).unwrap();
    }
    cluster.members[1].kill();
    cluster.members[1].wipe();
    cluster.all_ready();
    converge(&cluster, &record, 0, "after a member was emptied");
}

fn databases_below(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            databases_below(&path, found);
        } else if path.extension().is_some_and(|end| end == "dbms") {
            found.push(path);
        }
    }
}

/// Takes rows away behind the back of a node that does not run; says how many.
fn take_rows(data: &Path) -> usize {
    let mut files = Vec::new();
    databases_below(&data.join("dbms").join(format!("{DBMS}.parts")), &mut files);
    let mut taken = 0;
    for file in files {
        let connection = rusqlite::Connection::open(file).unwrap();
        let tables: Vec<String> = {
            let select = "select m.name from sqlite_master m join pragma_table_info(m.name) c where m.type = 'table' and c.name = 'n'";
            let mut statement = connection.prepare(select).unwrap();
            let names = statement.query_map([], |row| row.get(0)).unwrap();
            names.map(Result::unwrap).collect()
        };
        for table in tables {
            taken += connection.execute(&format!("delete from \"{table}\" where n % 7 = 3"), []).unwrap();
        }
    }
    taken
}

// R20, DUR-6: a difference that no registry knows of is found by digests and mended.
#[test]
fn a_member_that_lost_rows_behind_its_back_is_repaired() {
    let mut cluster = Cluster::start(3, Reach::Direct);
    let record = loaded(&cluster, 2);
    cluster.members[2].terminate();
    assert!(take_rows(&cluster.members[2].data()) > 0);
    cluster.all_ready();
    cluster.members[2].post("repair cluster");
    converge(&cluster, &record, 0, "after a repair");
}
