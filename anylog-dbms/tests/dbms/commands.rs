//! The commands, as a person types them.

use std::path::Path;
use std::sync::Arc;

use anylog_core::time::ManualClock;
use anylog_core::{Caller, CommandError, Node, Session, Status};
use anylog_dbms::{Catalog, Database, DbmsError, NewFile, TableSource, Target, TsdUpdate};

use crate::support::{batch, now, table};

pub(crate) struct Typist {
    _home: Option<tempfile::TempDir>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) session: Session,
}

impl Typist {
    pub(crate) fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let typist = Self::at(home.path());
        Self { _home: Some(home), ..typist }
    }

    /// One whose home outlives it.
    pub(crate) fn at(home: &Path) -> Self {
        let node = Node::builder().home(home).clock(ManualClock::new(now())).build();
        let catalog = Catalog::new(Arc::clone(&node));
        node.registry.register_all(anylog_dbms::commands::commands(&catalog)).unwrap();
        Self { _home: None, catalog, session: Session::new(node, Caller::terminal()) }
    }

    pub(crate) async fn run(&mut self, line: &str) -> String {
        self.session.execute(line).await.unwrap_or_else(|error| panic!("{line}: {error}")).into_text().await.unwrap()
    }

    pub(crate) async fn fail(&mut self, line: &str) -> CommandError {
        match self.session.execute(line).await {
            Ok(reply) => panic!("{line} answered {reply:?}"),
            Err(error) => error,
        }
    }

    pub(crate) fn database(&self, name: &str) -> Arc<Database> {
        self.catalog.get(name).unwrap()
    }
}

struct Policies;

impl TableSource for Policies {
    fn create_text(&self, dbms: &str, table: &str) -> Option<String> {
        let text = "CREATE TABLE IF NOT EXISTS rand_data(  row_id SERIAL PRIMARY KEY,  insert_timestamp TIMESTAMP NOT NULL \
                    DEFAULT NOW(),  tsd_name CHAR(3),  tsd_id INT,  timestamp timestamp not null default now(),  value decimal, \
                    ok boolean ); CREATE INDEX rand_data_timestamp_index ON rand_data(timestamp);";
        (dbms == "test" && table == "rand_data").then(|| text.to_owned())
    }

    fn tables(&self, dbms: &str) -> Vec<String> {
        if dbms == "test" { vec!["rand_data".into(), "elsewhere".into()] } else { Vec::new() }
    }
}

#[tokio::test]
async fn databases_are_connected_listed_and_dropped() {
    let mut typist = Typist::new();
    assert_eq!(typist.run("get databases").await, "No DBMS connections found");
    let answer = typist.run("connect dbms test where type=sqlite and ip=127.0.0.1 and port=5432 and user=a").await;
    assert_eq!(answer, "Database test using sqlite connected!");
    typist.run("connect dbms test where type=sqlite").await;
    assert_eq!(
        typist.run("connect dbms system_query where type=sqlite and memory=true").await,
        "Database system_query using sqlite connected!"
    );
    let shown = typist.run("get databases").await;
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[1], "Active DBMS Connections");
    assert!(lines[4].starts_with("system_query|sqlite       |system|Local  |Autocommit On, RAM"), "{shown}");
    assert!(lines[5].starts_with("test        |sqlite       |user  |Local  |Autocommit On"), "{shown}");
    assert!(lines[5].contains("test.dbms"), "{shown}");
    assert!(typist.run("get databases where format=json").await.contains(r#""storage": "MEMORY""#));

    assert_eq!(typist.fail("connect dbms x where type=oracle").await.status, Status::WRONG_DBMS_TYPE);
    assert_eq!(typist.fail("connect dbms x where user=a").await.status, Status::COMMAND_STRUCTURE);
    assert_eq!(typist.fail("connect dbms x where type=psql and port=many").await.status, Status::PORT_VALUE);
    assert_eq!(typist.fail("connect dbms test where type=sqlite and memory=true").await.status, Status::CONNECTION);
    assert!(typist.fail("drop dbms test from sqlite").await.message.contains("disconnect dbms test"));
    typist.run("disconnect dbms test").await;
    assert_eq!(typist.fail("disconnect dbms test").await.status, Status::DBMS_NOT_CONNECTED);
    typist.run("drop dbms test from sqlite").await;
    typist.run("connect dbms test where type=sqlite").await;
    typist.run("disconnect dbms test").await;
    typist.run("drop dbms test where type=sqlite").await;
}

#[tokio::test]
async fn tables_are_created_described_and_dropped() {
    let mut typist = Typist::new();
    typist.run("connect dbms test where type=sqlite").await;
    assert_eq!(typist.fail("create table rand_data where dbms=test").await.status, Status::NO_TABLE_METADATA);
    typist.catalog.set_table_source(Arc::new(Policies));
    typist.run("create table rand_data where dbms=test").await;
    typist.run("create table rand_data where dbms=test").await;
    assert_eq!(typist.fail("create table rand_data where dbms=none").await.status, Status::DBMS_NOT_CONNECTED);
    assert_eq!(typist.run("info table test rand_data exists").await, "true");
    assert_eq!(typist.run("info table test absent exists").await, "false");
    assert_eq!(
        typist.run("get tables where dbms=test").await,
        "\r\nDatabase Table name Local DBMS Blockchain \r\n--------|----------|----------|----------|\r\n\
         test    |elsewhere | -        | V        |\r\n        |rand_data | V        | V        |\r\n"
    );
    assert_eq!(
        typist.run("get tables where dbms=* and format=json").await,
        r#"{"test": {"elsewhere": {"local": false, "blockchain": true}, "rand_data": {"local": true, "blockchain": true}}}"#
    );
    let columns = typist.run("get columns where dbms=test and table=rand_data and format=json").await;
    assert_eq!(
        columns,
        r#"{"row_id": "integer", "insert_timestamp": "timestamp without time zone", "tsd_name": "char(3)", "tsd_id": "int", "timestamp": "timestamp without time zone", "value": "decimal", "ok": "boolean"}"#
    );
    let text = typist.run("get columns where dbms=test and table=rand_data").await;
    assert!(text.starts_with("\r\nSchema for DBMS: 'test' and Table: 'rand_data'\r\nColumn Name"), "{text}");
    fn ledger(database: &Database) -> Result<(), DbmsError> {
        database.dbms().execute("create table if not exists ledger(id text)").map(|_| ())
    }
    typist.catalog.register_system_table("ledger", ledger);
    typist.run("create table ledger where dbms=test").await;
    assert_eq!(typist.run("info table test ledger exists").await, "true");
    typist.run("drop table rand_data where dbms=test").await;
    assert_eq!(typist.fail("drop table rand_data where dbms=test").await.status, Status::NO_TABLE_METADATA);
}

#[tokio::test]
async fn partitions_are_declared_listed_and_dropped() {
    let mut typist = Typist::new();
    typist.run("connect dbms test where type=sqlite").await;
    assert_eq!(typist.run("get partitions").await, "No partitions declared");
    typist.run("partition test * using insert_timestamp by 1 day").await;
    typist.run("partition test t using timestamp by 7 days").await;
    typist.run("set interval = 2 weeks").await;
    typist.run("partition * * using insert_timestamp by !interval").await;
    assert_eq!(
        typist.run("get partitions").await,
        "\r\n*.* : (14, 'days', 'insert_timestamp')\r\ntest.* : (1, 'day', 'insert_timestamp')\r\ntest.t : (7, 'days', 'timestamp')\r\n"
    );
    assert!(typist.fail("partition test t using timestamp by 2 moons").await.message.contains("moons"));
    assert!(typist.fail("partition * t using timestamp by day").await.message.contains("without its database"));

    let schema = table("t", &[r#"{"timestamp":"2026-01-01 00:00:00Z","v":1}"#]);
    let database = typist.database("test");
    database.dbms().create_table(&schema).unwrap();
    assert!(typist.fail("partition test t using nothing by day").await.message.contains("no column 'nothing'"));
    assert!(typist.fail("partition test t using v by day").await.message.contains("'v' of table 'test.t' holds"));
    let partitioning = typist.catalog.partitioning("test", "t").unwrap();
    let days = ["2026-02-05", "2026-02-12", "2026-03-01", "2026-03-04", "2026-03-08"];
    for day in days {
        let name = partitioning.name("t", format!("{day}T00:00:00Z").parse().unwrap());
        database.dbms().create_partition(&schema, &name).unwrap();
        let (columns, rows) = batch(&schema, &[r#"{"v":1}"#]);
        database.dbms().apply(&Target::partition("t", &name), &columns, &rows, &[]).unwrap();
    }
    assert_eq!(
        typist.run("get partitions where dbms=test and table=t").await,
        "\r\nPartition Name                 Start Date End Date   \r\n------------------------------|----------|----------|\r\n\
         par_t_2026_02_00_d07_timestamp|2026-02-01|2026-02-07|\r\npar_t_2026_02_01_d07_timestamp|2026-02-08|2026-02-14|\r\n\
         par_t_2026_03_00_d07_timestamp|2026-03-01|2026-03-07|\r\npar_t_2026_03_01_d07_timestamp|2026-03-08|2026-03-14|\r\n"
    );
    let info = typist.run("get partitions info where dbms=test and table=*").await;
    assert!(info.starts_with("\r\n    Partitions in DBMS: 'test'\r\n    Table Counter Partition"), "{info}");
    assert!(info.contains("    t    |      1|par_t_2026_02_00_d07_timestamp|2026-02-01|2026-02-07|"), "{info}");
    assert_eq!(typist.run("info table test t partitions count").await, "4");
    assert_eq!(typist.run("info table test t partitions first").await, "par_t_2026_02_00_d07_timestamp");
    assert_eq!(
        typist.run("get rows count where dbms=test and group=table").await,
        "\r\nDBMS Name Table Name Rows Count \r\n---------|----------|----------|\r\ntest     |t         |         5|\r\n"
    );
    assert!(typist.run("get rows count").await.contains("         |par_t_2026_03_00_d07_timestamp|         2|"));

    // Without keep the oldest goes.
    typist.run("drop partition where dbms=test and table=t").await;
    assert_eq!(typist.run("info table test t partitions count").await, "3");
    assert_eq!(
        typist.fail("drop partition where dbms=test and table=t and keep=3").await.status,
        Status::DROP_PARTITION_FAILED
    );
    // Neither what is active now nor what lies ahead goes for keep.
    typist.run("drop partition where dbms=test and table=* and keep=0").await;
    assert_eq!(typist.run("info table test t partitions first").await, "par_t_2026_03_00_d07_timestamp");
    assert_eq!(typist.run("info table test t partitions count").await, "2");
    typist.run("drop partition where dbms=test and table=* and keep=3").await;
    assert!(typist.fail("drop partition par_x where dbms=test and table=t").await.message.contains("par_x"));
    typist.run("drop partition par_t_2026_03_00_d07_timestamp where dbms=test and table=t").await;
    assert_eq!(typist.fail("drop partition where dbms=test and table=t").await.status, Status::DROP_PARTITION_FAILED);
    typist.run("drop partition * where dbms=test and table=t").await;
    assert_eq!(typist.run("info table test t partitions count").await, "0");
    assert!(typist.run("get partitions dropped").await.contains("test|t    |      4|"));
}

#[tokio::test]
async fn the_registry_is_shown_and_mended() {
    let mut typist = Typist::new();
    let error = typist.fail("get tsd list").await;
    assert!(error.hint.unwrap().contains("connect dbms almgm"));
    typist.run("connect dbms almgm where type=sqlite").await;
    typist.run("create table tsd_info where dbms=almgm").await;
    typist.run("create table tsd_info where dbms=almgm").await;
    let store = typist.catalog.tsd().unwrap();
    for (table, hash) in [("t2", "a1"), ("t1", "b2")] {
        let file = NewFile {
            dbms: "peerdb".into(),
            table: table.into(),
            source: "0".into(),
            hash: hash.into(),
            instructions: "0".into(),
            time: now(),
        };
        let id = store.register(&file).unwrap();
        store.update("tsd_info", id, &TsdUpdate { rows: Some(3), ..TsdUpdate::default() }).unwrap();
        store.register_peer("7", id, &file).unwrap();
    }
    assert_eq!(typist.run("get tsd list").await, "\r\ntsd_info\r\ntsd_7\r\n");
    let details = typist.run("get tsd details").await;
    assert!(
        details.contains("Info on TSD Table: tsd_info\r\nID DBMS   Table Source Hash Instructions Date"),
        "{details}"
    );
    assert!(details.contains(" 2|peerdb|t1   |     0|b2  |           0|2026-03-04 05:06:07.123456|   3|"), "{details}");
    assert!(!details.contains("tsd_7"));
    assert!(typist.run("get tsd details where table=*").await.contains("tsd_7"));
    assert!(typist.run("get tsd details where hash=a1").await.contains("|t2   |"));
    assert!(
        !typist.run("get tsd details where end_date=-1d").await.contains("|t2   |") || now() < jiff::Timestamp::now()
    );
    let summary = typist.run("get tsd summary").await;
    assert!(summary.contains("Total all TSD Tables\r\nDBMS   Table Files Count Total Rows"), "{summary}");
    assert_eq!(
        typist.run("get tsd summary where table=tsd_info and format=json").await,
        r#"{"peerdb.t1": {"files": 1, "rows": 3}, "peerdb.t2": {"files": 1, "rows": 3}}"#
    );
    store.update("tsd_7", 1, &TsdUpdate { status1: Some("01".into()), ..TsdUpdate::default() }).unwrap();
    assert_eq!(typist.run("get tsd errors where table=*").await, "peerdb.t2.0.a1.0.7.1.260304050607.json");
    typist.catalog.set_missing_files(std::sync::Arc::new(|| {
        let missing =
            |producer, reason: &str| anylog_dbms::MissingFile { producer, file_id: 12, reason: reason.into() };
        vec![missing(7, "no member has it"), missing(9, "its content is damaged")]
    }));
    let errors = typist.run("get tsd errors where table=*").await;
    assert!(errors.ends_with("tsd_7 12: no member has it\r\ntsd_9 12: its content is damaged"), "{errors}");
    assert_eq!(typist.run("get tsd errors where table=tsd_9").await, "tsd_9 12: its content is damaged");
    assert_eq!(typist.run("get tsd errors").await, "");
    assert_eq!(
        typist.run("get tsd summary where table=* and complete=true and format=json").await,
        r#"{"peerdb.t1": {"files": 1, "rows": 3}, "peerdb.t2": {"files": 1, "rows": 3}}"#
    );
    assert_eq!(typist.fail("get tsd details where table=users").await.status, Status::TSD);
    typist.run("time file delete 1 from tsd_info").await;
    assert_eq!(typist.fail("time file delete 1 from tsd_info").await.status, Status::TSD);
    typist.run("time file drop tsd_7").await;
    assert_eq!(typist.run("get tsd list").await, "\r\ntsd_info\r\n");
    typist.run("time file drop all").await;
    assert_eq!(typist.fail("get tsd list").await.status, Status::TSD);
}
