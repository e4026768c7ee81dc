//! Partitions through the commands, on both engines.

use anylog_core::Status;
use anylog_dbms::{PartitionUnit, Partitioning, SegmentId, SqlValue, TableSchema, Target};
use serde_json::{Value, json};

use crate::commands::Typist;
use crate::server::Server;
use crate::support::{batch, table, value};

/// Runs a test on SQLite, in files and in memory, and on a server.
async fn on_all_engines(name: &str, test: impl AsyncFn(&mut Typist, &str)) {
    let mut typist = Typist::new();
    typist.run("create work directories").await;
    typist.run("connect dbms files where type=sqlite").await;
    test(&mut typist, "files").await;
    typist.run("connect dbms ram where type=sqlite and memory=true").await;
    test(&mut typist, "ram").await;
    let server = Server::shared();
    let request = format!("type=psql and user=anylog and ip=127.0.0.1 and port={}", server.port);
    typist.run(&format!("connect dbms {name} where {request}")).await;
    test(&mut typist, name).await;
    typist.run(&format!("disconnect dbms {name}")).await;
}

/// Rows with a number, a text, a truth value and a time, each in the partition of its day.
fn fill(typist: &Typist, dbms: &str, days: &[&str]) {
    let database = typist.database(dbms);
    let schema = table("t", &[r#"{"timestamp":"2026-01-01 00:00:00Z","n":1,"words":"x","ok":true,"real":0.5}"#]);
    database.dbms().create_table(&schema).unwrap();
    let partitioning = Partitioning::new("timestamp", 1, PartitionUnit::Day).unwrap();
    for (n, day) in days.iter().enumerate() {
        let at = format!("{day}T23:59:59.999999Z");
        let name = partitioning.name("t", at.parse().unwrap());
        database.dbms().create_partition(&schema, &name).unwrap();
        let one =
            json!({"timestamp": at, "n": n, "words": "it's \"so\"\n\u{fc}", "ok": true, "real": 0.25}).to_string();
        let other = json!({"timestamp": at, "n": i64::MAX, "words": null, "ok": false}).to_string();
        let (columns, rows) = batch(&schema, &[&one, &other]);
        database.dbms().apply(&Target::partition("t", &name), &columns, &rows, &[]).unwrap();
    }
}

// Month ends, leap days and year ends: as a person is shown them, and as they are listed and counted.
#[tokio::test]
async fn partitions_are_listed_in_the_order_of_time() {
    on_all_engines("listed", async |typist, dbms| {
        fill(typist, dbms, &["2023-12-31", "2024-01-01", "2024-02-29", "2024-03-01"]);
        // The interval was another one before.
        let schema = typist.database(dbms).dbms().schema("t").unwrap().unwrap();
        typist.database(dbms).dbms().create_partition(&schema, "par_t_202_y10_timestamp").unwrap();
        typist.database(dbms).dbms().create_partition(&schema, "par_t_2024_02_02_d14_timestamp").unwrap();
        let shown = typist.run(&format!("get partitions where dbms={dbms} and table=t and format=json")).await;
        let shown: Vec<Value> = serde_json::from_str(&shown).unwrap();
        let shown: Vec<String> = shown
            .iter()
            .map(|row| format!("{} {} {}", row["Partition Name"], row["Start Date"], row["End Date"]).replace('"', ""))
            .collect();
        assert_eq!(
            shown,
            [
                "par_t_202_y10_timestamp 2020-01-01 2029-12-31",
                "par_t_2023_12_31_d01_timestamp 2023-12-31 2023-12-31",
                "par_t_2024_01_01_d01_timestamp 2024-01-01 2024-01-01",
                "par_t_2024_02_02_d14_timestamp 2024-02-29 2024-02-29",
                "par_t_2024_02_29_d01_timestamp 2024-02-29 2024-02-29",
                "par_t_2024_03_01_d01_timestamp 2024-03-01 2024-03-01",
            ]
        );
        assert_eq!(typist.run(&format!("info table {dbms} t partitions first")).await, "par_t_202_y10_timestamp");
        assert_eq!(typist.run(&format!("info table {dbms} t partitions last")).await, "par_t_2024_03_01_d01_timestamp");
        assert_eq!(typist.run(&format!("info table {dbms} t partitions count")).await, "6");
        assert_eq!(typist.run(&format!("info table {dbms} t exists")).await, "true");
        assert!(typist.run(&format!("info table {dbms} t columns")).await.contains("words"));
        let dates = typist.run(&format!("info table {dbms} t partitions dates")).await;
        assert!(dates.ends_with("2024-02-29 2024-02-29\r\n2024-03-01 2024-03-01"), "{dates}");
        let info = typist.run(&format!("get partitions info where dbms={dbms} and table=t")).await;
        assert!(info.contains("      6|par_t_2024_03_01_d01_timestamp"), "{info}");
        let count = typist.run(&format!("get rows count where dbms={dbms} and table=t and group=table")).await;
        assert!(count.contains("|         8|"), "{count}");
        let error = typist.fail(&format!("info table {dbms} t partitions middle")).await;
        assert!(error.hint.is_some());
        typist.run(&format!("drop table t where dbms={dbms}")).await;
        assert_eq!(typist.run(&format!("info table {dbms} t partitions count")).await, "0");
        assert_eq!(typist.run(&format!("info table {dbms} t exists")).await, "false");
    })
    .await;
}

// By hand a partition is a table as any other.
#[tokio::test]
async fn a_partition_can_be_named_as_a_table() {
    on_all_engines("named", async |typist, dbms| {
        fill(typist, dbms, &["2024-02-29", "2024-03-01"]);
        let database = typist.database(dbms);
        let target = Target::table("par_t_2024_02_29_d01_timestamp");
        let named = format!("SELECT count(*) FROM {}", target.physical());
        assert_eq!(value(database.dbms().as_ref(), Some(&target), &named), SqlValue::Int(2));
        assert_eq!(database.dbms().count(&target).unwrap(), 2);
        assert_eq!(database.dbms().schema(target.physical()).unwrap().unwrap().columns.len(), 9);
        assert_eq!(database.dbms().schema("par_t_2024_02_28_d01_timestamp").unwrap(), None);
        assert!(!database.dbms().tables().unwrap().contains(&target.table));
    })
    .await;
}

fn lines(file: &str) -> Vec<Value> {
    std::fs::read_to_string(file).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn rows_are_backed_up() {
    on_all_engines("kept", async |typist, dbms| {
        fill(typist, dbms, &["2024-02-29", "2024-03-01", "2024-03-02"]);
        let home = typist.session.node.directories.home();
        let command = format!("backup partition where dbms={dbms} and table=t and partition=first and format=json");
        let answer: Vec<Value> = serde_json::from_str(&typist.run(&command).await).unwrap();
        let file = answer[0]["File"].as_str().unwrap().to_owned();
        assert!(file.ends_with(&format!("/{dbms}.t.par_t_2024_02_29_d01_timestamp.json")), "{file}");
        let rows = lines(&file);
        assert_eq!(rows.len(), 2);
        let first = rows.iter().find(|row| row["n"] == 0).unwrap();
        assert_eq!(first["timestamp"], "2024-02-29 23:59:59.999999");
        assert_eq!(
            (&first["words"], &first["ok"], &first["real"]),
            (&json!("it's \"so\"\n\u{fc}"), &json!(true), &json!(0.25))
        );
        let other = rows.iter().find(|row| row["n"] == i64::MAX).unwrap();
        assert_eq!((&other["words"], &other["ok"]), (&Value::Null, &json!(false)));
        assert!(first.get("row_id").is_none());

        let dest = home.join(format!("elsewhere-{dbms}"));
        std::fs::create_dir(&dest).unwrap();
        let to = format!("dest={}", dest.display());
        typist.run(&format!("backup table where dbms={dbms} and table=t and {to}")).await;
        let files = || std::fs::read_dir(&dest).unwrap().count();
        assert_eq!(files(), 3, "the table itself is empty");
        typist.run(&format!("backup partition where dbms={dbms} and table=t and partition=all and {to}")).await;
        assert_eq!(files(), 3);
        let name = "par_t_2024_03_02_d01_timestamp";
        for which in [name, "last"] {
            let answer = typist
                .run(&format!("backup partition where dbms={dbms} and table=t and partition={which} and {to}"))
                .await;
            assert!(answer.contains(name), "{answer}");
        }
        let error =
            typist.fail(&format!("backup partition where dbms={dbms} and table=t and partition=none and {to}")).await;
        assert_eq!(error.status, Status::NO_TABLE_METADATA);
        assert_eq!(
            typist.fail(&format!("backup table where dbms={dbms} and table=absent and {to}")).await.status,
            Status::NO_TABLE_METADATA
        );
        typist.fail(&format!("backup table where dbms={dbms} and table=t and dest=/nowhere/at/all")).await;
    })
    .await;
}

// Every documented form of drop, on every engine. The clock stands at 2026-03-04.
#[tokio::test]
async fn partitions_are_dropped_in_all_forms() {
    on_all_engines("dropped", async |typist, dbms| {
        let all = ["2026-01-31", "2026-02-01", "2026-02-28", "2026-03-01", "2026-03-03", "2026-03-04"];
        fill(typist, dbms, &all);
        let left = |typist: &Typist| typist.database(dbms).dbms().partitions("t").unwrap().len();
        typist.run(&format!("drop partition where dbms={dbms} and table=t")).await;
        assert_eq!(left(typist), 5);
        typist.run(&format!("drop partition par_t_2026_02_28_d01_timestamp where dbms={dbms} and table=t")).await;
        assert_eq!(left(typist), 4);
        let error =
            typist.fail(&format!("drop partition par_t_2026_02_28_d01_timestamp where dbms={dbms} and table=t")).await;
        assert_eq!(error.status, Status::DROP_PARTITION_FAILED);
        typist.run(&format!("drop partition where dbms={dbms} and table=t and keep=3")).await;
        assert_eq!(left(typist), 3);
        for keep in [3, 4] {
            let error = typist.fail(&format!("drop partition where dbms={dbms} and table=t and keep={keep}")).await;
            assert_eq!(error.status, Status::DROP_PARTITION_FAILED);
        }
        typist.run(&format!("drop partition where dbms={dbms} and table=* and keep=3")).await;
        typist.run(&format!("drop partition where dbms={dbms} and table=t and max_age=2 days")).await;
        assert_eq!(left(typist), 2);
        typist.run(&format!("drop partition where dbms={dbms} and table=* and keep=0")).await;
        assert_eq!(left(typist), 1);
        typist.run(&format!("drop partition * where dbms={dbms} and table=t")).await;
        assert_eq!(left(typist), 0);
        assert_eq!(
            typist.fail(&format!("drop partition where dbms={dbms} and table=absent")).await.status,
            Status::DROP_PARTITION_FAILED
        );
        typist.run(&format!("drop partition * where dbms={dbms} and table=*")).await;
        typist.fail(&format!("drop partition x where dbms={dbms} and table=*")).await;
        typist.fail(&format!("drop partition x where dbms={dbms} and table=t and keep=1")).await;
        typist.fail(&format!("drop partition where dbms={dbms} and table=t and keep=-1")).await;
    })
    .await;
}

// What the engines limit is not met by users: names of all lengths, names that SQL keeps for itself.
#[tokio::test]
async fn names_may_be_long_or_reserved() {
    on_all_engines("names", async |typist, dbms| {
        let database = typist.database(dbms);
        let dbms = database.dbms();
        let partitioning = Partitioning::new("insert_timestamp", 12, PartitionUnit::Hour).unwrap();
        let (long, longer) = ("x".repeat(60), "y".repeat(60) + &"\u{fc}".repeat(65));
        let column = "c".repeat(80);
        for name in ["select", "order", "par", "par_x", "t_2024_01", "gr\u{f6}\u{df}e", "t'", &long, &longer] {
            let row = json!({"where": 1, "group": "x", &column: 1, format!("{column}2"): 2}).to_string();
            let schema = table(name, &[&row]);
            dbms.create_table(&schema).unwrap_or_else(|error| panic!("{name}: {error}"));
            let days = ["2024-02-29T11:59:59Z", "2024-02-29T12:00:00Z", "2024-03-01T12:00:00Z"];
            let names: Vec<String> = days.iter().map(|day| partitioning.name(name, day.parse().unwrap())).collect();
            let (columns, rows) = batch(&schema, &[&row]);
            for partition in &names {
                dbms.create_partition(&schema, partition).unwrap_or_else(|error| panic!("{partition}: {error}"));
                let target = Target::partition(name, partition);
                let marks = [(SegmentId(7), 3)];
                dbms.apply(&target, &columns, &rows, &marks).unwrap();
                dbms.apply(&target, &columns, &rows, &[]).unwrap();
                assert_eq!(dbms.count(&target).unwrap(), 2);
                assert_eq!(dbms.applied(&target, SegmentId(7)).unwrap(), Some(3));
                let sql = format!("SELECT sum(\"{column}2\") FROM \"{partition}\" WHERE \"where\" = 1");
                assert!(matches!(value(dbms.as_ref(), Some(&target), &sql), SqlValue::Int(4) | SqlValue::Float(4.0)));
            }
            assert_eq!(dbms.partitions(name).unwrap(), names);
            assert!(dbms.tables().unwrap().contains(&name.to_owned()), "{name}");
            assert_eq!(dbms.schema(name).unwrap().unwrap().columns, schema.columns);
            assert_eq!(dbms.schema(&names[0]).unwrap().unwrap().columns, schema.columns);
            dbms.drop_partition(name, &names[1]).unwrap();
            assert_eq!(dbms.applied(&Target::partition(name, &names[1]), SegmentId(7)).unwrap(), None);
            assert_eq!(dbms.partitions(name).unwrap(), [names[0].clone(), names[2].clone()]);
            dbms.drop_table(name).unwrap();
            assert_eq!((dbms.schema(name).unwrap(), dbms.partitions(name).unwrap()), (None, Vec::new()));
        }
        let error = dbms.create_table(&table(&"x".repeat(191), &[r#"{"v":1}"#])).unwrap_err();
        assert!(error.to_string().contains("at most 190"), "{error}");
    })
    .await;
}

// Thousands of tables, each split; and one table of hundreds of partitions.
#[tokio::test]
async fn tables_may_be_thousands() {
    on_all_engines("thousands", async |typist, dbms| {
        let database = typist.database(dbms);
        let dbms = database.dbms();
        let schema = table("t", &[r#"{"v":1}"#]);
        let (columns, rows) = batch(&schema, &[r#"{"v":1}"#]);
        // Each is several syncs in files.
        let many = if database.name() == "files" { 100 } else { 2000 };
        for number in 0..many {
            let name = format!("t{number}");
            dbms.create_table(&TableSchema { name: name.clone(), ..schema.clone() }).unwrap();
            if number % 5 == 0 {
                let name = format!(
                    "par_t0_{}_{:02}_{:02}_d01_insert_timestamp",
                    2020 + number / 1000,
                    number / 100 % 10 + 1,
                    number % 100 / 5 + 1
                );
                dbms.create_partition(&TableSchema { name: "t0".into(), ..schema.clone() }, &name).unwrap();
                dbms.apply(&Target::partition("t0", name), &columns, &rows, &[]).unwrap();
            }
        }
        assert_eq!(dbms.tables().unwrap().len(), many);
        assert_eq!(dbms.partitions("t0").unwrap().len(), many / 5);
        assert_eq!(dbms.partitions("t1").unwrap(), Vec::<String>::new());
    })
    .await;
}
