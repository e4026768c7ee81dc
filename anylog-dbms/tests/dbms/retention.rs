//! The rules by which partitions go, as commands.

use anylog_core::Status;
use anylog_dbms::{Database, Target};

use crate::commands::Typist;
use crate::small_disk::SmallDisk;
use crate::support::{batch, table};

/// Daily partitions of a table, each of so many rows of a kilobyte. The clock stands at 2026-03-04.
fn fill(database: &Database, name: &str, days: &[&str], rows: usize) {
    let schema = table(name, &[r#"{"v":"x"}"#]);
    database.dbms().create_table(&schema).unwrap();
    let json = format!(r#"{{"v":"{}"}}"#, "x".repeat(1000));
    let (columns, values) = batch(&schema, &vec![json.as_str(); rows]);
    for day in days {
        let partition = partition(name, day);
        database.dbms().create_partition(&schema, &partition).unwrap();
        if rows > 0 {
            database.dbms().apply(&Target::partition(name, partition), &columns, &values, &[]).unwrap();
        }
    }
}

fn partition(table: &str, day: &str) -> String {
    format!("par_{table}_2026_{day}_d01_insert_timestamp")
}

fn days(typist: &Typist, table: &str) -> Vec<String> {
    let partitions = typist.database("test").dbms().partitions(table).unwrap();
    let prefix = format!("par_{table}_2026_");
    partitions.iter().map(|name| name.strip_prefix(&prefix).unwrap()[..5].to_owned()).collect()
}

fn events(typist: &Typist) -> Vec<String> {
    let messages = typist.session.node.events.messages();
    messages.into_iter().filter(|event| event.kind == "Partitions dropped").map(|event| event.text).collect()
}

async fn connected() -> Typist {
    let mut typist = Typist::new();
    typist.run("connect dbms test where type=sqlite").await;
    typist
}

#[tokio::test]
async fn partitions_go_by_count_and_the_event_log_tells() {
    let mut typist = connected().await;
    let names = ["02_20", "02_21", "02_22", "02_23", "02_24", "02_25", "02_26", "02_27", "03_04"];
    fill(&typist.database("test"), "t", &names, 1);
    fill(&typist.database("test"), "u", &names[..2], 1);
    typist.run("drop partition where dbms=test and table=* and keep=3").await;
    assert_eq!(days(&typist, "t"), names[6..]);
    assert_eq!(days(&typist, "u"), names[..2]);
    let told = events(&typist);
    assert_eq!(told.len(), 1, "{told:?}");
    let expected = format!("test.t: 6 partitions from {} to {} (", partition("t", "02_20"), partition("t", "02_25"));
    assert!(told[0].starts_with(&expected) && told[0].ends_with("B), by keep=3"), "{told:?}");
    // Two are kept besides the active one, whatever is asked.
    typist.run("drop partition where dbms=test and table=t and keep=0").await;
    assert_eq!(days(&typist, "t"), ["03_04"]);
    let error = typist.fail("drop partition where dbms=test and table=t").await;
    assert_eq!(error.status, Status::DROP_PARTITION_FAILED);
    assert!(error.message.contains("no partition besides the active one"), "{error:?}");
    // By name it goes all the same, and with the table.
    typist.run(&format!("drop partition {} where dbms=test and table=t", partition("t", "03_04"))).await;
    typist.run("drop table u where dbms=test").await;
    let told = events(&typist);
    assert!(told.last().unwrap().contains(", with their table"), "{told:?}");
    assert!(typist.run("get partitions dropped where format=json").await.contains(r#""Dropped": "9""#));
}

#[tokio::test]
async fn partitions_go_by_age() {
    let mut typist = connected().await;
    fill(&typist.database("test"), "t", &["02_20", "03_01", "03_02", "03_03", "03_04"], 0);
    // At 05:06 of the 4th the last row of the 2nd may be 29 hours old.
    typist.run("drop partition where dbms=test and table=t and max_age=30 hours").await;
    assert_eq!(days(&typist, "t"), ["03_02", "03_03", "03_04"]);
    // Nothing to do is no failure: a schedule asks again and again.
    typist.run("drop partition where dbms=test and table=t and max_age=30 hours").await;
    typist.run("drop partition where dbms=test and table=t and max_age=1 second and keep=5").await;
    assert_eq!(days(&typist, "t"), ["03_04"]);
}

#[tokio::test]
async fn partitions_go_by_the_bytes_of_their_table() {
    let mut typist = connected().await;
    let names = ["02_20", "03_01", "03_02", "03_03", "03_04"];
    fill(&typist.database("test"), "t", &names, 1000);
    fill(&typist.database("test"), "u", &names[1..], 1000);
    let size = |name: &str| {
        let database = typist.database("test");
        let partitions = database.dbms().partitions(name).unwrap();
        let of = |partition| database.dbms().size(&Target::partition(name, partition)).unwrap().unwrap();
        partitions.into_iter().map(of).sum::<u64>()
    };
    let (t, u) = (size("t"), size("u"));
    assert!(t > 5_000_000 && u > 4_000_000, "{t} {u}");
    typist.run(&format!("drop partition where dbms=test and table=* and max_size={}", u + 1000)).await;
    assert_eq!(days(&typist, "t"), names[1..]);
    assert_eq!(days(&typist, "u"), names[1..]);
    let error = typist.fail("drop partition where dbms=test and table=t and max_size=10KB").await;
    assert_eq!(error.status, Status::DROP_PARTITION_FAILED);
    assert!(error.message.contains("the active partitions alone take"), "{error:?}");
    assert_eq!(days(&typist, "t"), ["03_04"]);
    // The older form counts all tables of the database together.
    let most = u / 2;
    typist.run(&format!("event drop_old_partitions where dbms_name=test and max_size={most}")).await;
    assert_eq!([days(&typist, "t"), days(&typist, "u")], [["03_04"], ["03_04"]]);
    let error = typist.fail("drop partition * where dbms=test and table=t and max_size=1KB").await;
    assert_eq!(error.status, Status::COMMAND_STRUCTURE);
}

#[tokio::test]
async fn sizes_in_memory_are_not_known() {
    let mut typist = Typist::new();
    typist.run("connect dbms test where type=sqlite and memory=true").await;
    fill(&typist.database("test"), "t", &["03_03", "03_04"], 1);
    for rule in ["max_size=1KB", "min_free=1KB"] {
        let error = typist.fail(&format!("drop partition where dbms=test and table=t and {rule}")).await;
        assert!(error.message.contains("not known"), "{error:?}");
    }
    typist.run("drop partition where dbms=test and table=t and keep=1").await;
    assert_eq!(days(&typist, "t"), ["03_04"]);
}

// R10, R12: the oldest of all tables go until the disk has room again; also when it has none at all.
#[tokio::test]
async fn partitions_go_until_the_disk_is_free_enough() {
    let Some(disk) = SmallDisk::mount(96) else { return };
    {
        let mut typist = Typist::at(disk.path());
        typist.run("create work directories").await;
        typist.run("connect dbms test where type=sqlite").await;
        fill(&typist.database("test"), "t", &["02_20", "02_22", "02_24", "03_04"], 4000);
        fill(&typist.database("test"), "u", &["02_21", "02_23", "03_04"], 4000);
        disk.fill_to(0);
        // Two of some 5 MB.
        typist.run("drop partition where dbms=test and table=* and min_free=7MB").await;
        assert!(disk.free() >= 7 << 20, "{}", disk.free());
        assert_eq!(days(&typist, "t"), ["02_22", "02_24", "03_04"]);
        assert_eq!(days(&typist, "u"), ["02_23", "03_04"]);
        typist.run("drop partition where dbms=test and table=* and min_free=7MB").await;
        assert_eq!(days(&typist, "u"), ["02_23", "03_04"], "there is nothing to do");
        let error = typist.fail("drop partition where dbms=test and table=* and min_free=80MB").await;
        assert_eq!(error.status, Status::DROP_PARTITION_FAILED);
        assert!(error.message.contains("only active partitions are left"), "{error:?}");
        assert_eq!([days(&typist, "t"), days(&typist, "u")], [["03_04"], ["03_04"]]);
        disk.free_space();
        // Its files are closed, or the disk could not be taken away.
        typist.run("disconnect dbms test").await;
    }
}
