//! What only PostgreSQL promises: a server.

use std::time::{Duration, Instant};

use anylog_dbms::{ConnectRequest, Dbms, DbmsError, Engine, SegmentId, SqlValue, Target};

use crate::server::Server;
use crate::support::{batch, catalog, rows, table, text, value};
use crate::{conformance, tsd};

#[test]
fn a_server_conforms() {
    let server = Server::shared();
    let (_home, catalog) = catalog();
    let database = catalog.connect(server.request("conform")).unwrap();
    conformance::all(&database);
}

#[test]
fn unlogged_tables_conform() {
    let server = Server::shared();
    let (_home, catalog) = catalog();
    let mut request = server.request("conform_unlogged");
    request.unlog = true;
    let database = catalog.connect(request).unwrap();
    conformance::all(&database);
}

#[test]
fn postgres_keeps_the_registry() {
    let server = Server::shared();
    let (_home, catalog) = catalog();
    tsd::conforms(&catalog.connect(server.request("almgm")).unwrap());
    assert!(catalog.tsd().is_some());
    tsd::numbers_begin_anywhere(&catalog.connect(server.request("numbers")).unwrap());
}

#[test]
fn databases_are_made_and_dropped_on_demand() {
    let server = Server::shared();
    let (_home, catalog) = catalog();
    let request = server.request("it's \"odd\"");
    let database = catalog.connect(request.clone()).unwrap();
    assert_eq!(database.dbms().engine(), Engine::Postgres);
    assert_eq!(database.dbms().info().ip_port, format!("127.0.0.1:{}", server.port));
    database.dbms().create_table(&table("t", &[r#"{"v":1}"#])).unwrap();
    assert_eq!(database.dbms().tables().unwrap(), ["t"]);
    drop(database);
    catalog.disconnect(&request.name).unwrap();
    catalog.drop_database(&request).unwrap();
    assert!(matches!(catalog.drop_database(&request), Err(DbmsError::Connect { .. })));
    let again = catalog.connect(request).unwrap();
    assert_eq!(again.dbms().tables().unwrap(), Vec::<String>::new());
}

#[test]
fn a_lost_connection_is_made_again() {
    let server = Server::start();
    let (_home, catalog) = catalog();
    let database = catalog.connect(server.request("lost")).unwrap();
    let schema = table("t", &[r#"{"v":1}"#]);
    database.dbms().create_table(&schema).unwrap();
    let (columns, values) = batch(&schema, &[r#"{"v":1}"#]);
    let target = Target::table("t");
    database.dbms().apply(&target, &columns, &values, &[]).unwrap();
    assert_eq!(database.dbms().count(&target).unwrap(), 1);
    server.restart();
    database.dbms().apply(&target, &columns, &values, &[]).unwrap();
    assert_eq!(database.dbms().count(&target).unwrap(), 2);
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let (_home, catalog) = catalog();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let request = anylog_dbms::ConnectRequest::postgres("x", "127.0.0.1", port, "u", "secret");
    assert!(!format!("{request:?}").contains("secret"));
    let error = catalog.connect(request).unwrap_err().to_string();
    assert!(error.contains(&port.to_string()), "{error}");
    assert!(!error.contains("secret"), "{error}");
}

// R3, DUR-2: a commit that nobody heard of is not repeated.
#[test]
fn rows_whose_marks_stand_are_not_stored_again() {
    let server = Server::shared();
    let (_home, catalog) = catalog();
    let database = catalog.connect(server.request("marks")).unwrap();
    let schema = table("t", &[r#"{"v":1}"#]);
    database.dbms().create_table(&schema).unwrap();
    let (columns, values) = batch(&schema, &[r#"{"v":1}"#, r#"{"v":2}"#]);
    let target = Target::table("t");
    let (one, two) = (SegmentId(1), SegmentId(2));
    for _ in 0..3 {
        database.dbms().apply(&target, &columns, &values, &[(one, 7), (two, 1)]).unwrap();
    }
    assert_eq!(database.dbms().count(&target).unwrap(), 2);
    database.dbms().apply(&target, &columns, &values, &[(one, 9), (two, 1)]).unwrap();
    assert_eq!(database.dbms().count(&target).unwrap(), 4);
    assert_eq!(database.dbms().applied(&target, one).unwrap(), Some(9));
}

/// Stores batches of ten rows with growing marks, each until it succeeds, while the server goes down again and again.
fn store_while(dbms: &dyn Dbms, batches: u64, go_down: impl FnOnce() + Send) {
    let schema = table("t", &[r#"{"v":1}"#]);
    dbms.create_table(&schema).unwrap();
    let target = Target::table("t");
    let deadline = Instant::now() + Duration::from_secs(120);
    std::thread::scope(|scope| {
        let down = scope.spawn(go_down);
        let mut batches_done = 0;
        while batches_done < batches || !down.is_finished() {
            let first = batches_done * 10;
            let json: Vec<String> = (first..first + 10).map(|v| format!(r#"{{"v":{v}}}"#)).collect();
            let json: Vec<&str> = json.iter().map(String::as_str).collect();
            let (columns, values) = batch(&schema, &json);
            while let Err(error) = dbms.apply(&target, &columns, &values, &[(SegmentId(5), first + 10)]) {
                assert!(matches!(error, DbmsError::Unavailable { .. }), "{error}");
                assert!(Instant::now() < deadline, "{error}");
                std::thread::park_timeout(Duration::from_millis(5));
            }
            batches_done += 1;
        }
        let expected = i64::try_from(batches_done * 10).unwrap();
        let counts = rows(dbms, None, "SELECT count(*), count(DISTINCT v), max(v) FROM t");
        let int = SqlValue::Int;
        assert_eq!(counts, [[int(expected), int(expected), int(expected - 1)]]);
    });
}

// R3, DUR-2: exactly once over kill -9 of the server, restarts, and connections that are cut.
#[test]
fn rows_are_stored_once_however_the_server_goes_down() {
    let server = Server::start();
    let (_home, catalog) = catalog();
    let database = catalog.connect(server.request("killed")).unwrap();
    let other = catalog.connect(server.request("other")).unwrap();
    store_while(database.dbms().as_ref(), 100, || {
        for round in 0..6_u64 {
            std::thread::park_timeout(Duration::from_millis(40 + round * 13));
            match round % 3 {
                0 => {
                    server.kill();
                    server.start_again();
                }
                1 => server.restart(),
                _ => {
                    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'killed'";
                    other.dbms().query(None, sql, &mut |_, _| std::ops::ControlFlow::Continue(())).unwrap();
                }
            }
        }
    });
}

#[test]
fn a_server_that_is_away_is_shown_until_it_is_back() {
    let server = Server::start();
    let (_home, catalog) = catalog();
    let database = catalog.connect(server.request("away")).unwrap();
    assert_eq!(database.dbms().trouble(), None);
    server.stop();
    let error = database.dbms().tables().unwrap_err();
    assert!(matches!(error, DbmsError::Unavailable { .. }), "{error}");
    let trouble = database.dbms().trouble().unwrap();
    assert!(trouble.contains("connecting again") && trouble.contains("refused"), "{trouble}");
    server.start_again();
    // Looking tries it.
    assert_eq!(database.dbms().trouble(), None);
    assert!(database.dbms().tables().unwrap().is_empty());
}

#[test]
fn errors_carry_the_words_and_the_code_of_the_server() {
    let server = Server::shared();
    let (_home, catalog) = catalog();
    let database = catalog.connect(server.request("errors")).unwrap();
    let dbms = database.dbms().as_ref();
    let ask =
        |sql: &str| dbms.query(None, sql, &mut |_, _| std::ops::ControlFlow::Continue(())).unwrap_err().to_string();
    let error = ask("SELECT 1 / 0");
    assert!(error.contains("division by zero (SQLSTATE 22012)"), "{error}");
    let error = ask("SELECT lenght('x')");
    assert!(error.contains("function lenght(unknown) does not exist") && error.contains("42883"), "{error}");
    let error = dbms.execute("INSERT INTO absent VALUES (1)").unwrap_err();
    assert_eq!(error, DbmsError::NoTable { dbms: "errors".into(), table: "absent".into() });
    dbms.execute("CREATE TABLE u(v INT UNIQUE)").unwrap();
    dbms.execute("INSERT INTO u VALUES (1)").unwrap();
    let error = dbms.execute("INSERT INTO u VALUES (1)").unwrap_err();
    assert!(
        matches!(&error, DbmsError::Unique { reason } if reason.contains("(v)=(1)") && reason.contains("23505")),
        "{error}"
    );
    // A row that the server refuses is named, by a constraint of the user as well as by the length of an index entry.
    let columns = ["v".to_owned()];
    let values: Vec<Vec<SqlValue>> = (2..9).map(|v| vec![SqlValue::Int(if v == 7 { 1 } else { v })]).collect();
    let error = dbms.apply(&Target::table("u"), &columns, &values, &[]).unwrap_err();
    assert!(matches!(error, DbmsError::RowRefused { index: 5, .. }), "{error}");
    dbms.execute("CREATE TABLE l(v VARCHAR)").unwrap();
    dbms.execute("CREATE INDEX ON l(v)").unwrap();
    let noise: String = (0..20_000_u64).map(|n| char::from(b'!' + u8::try_from(n * n % 7919 % 90).unwrap())).collect();
    let values = [vec![text("short")], vec![text(&noise)]];
    let error = dbms.apply(&Target::table("l"), &columns, &values, &[]).unwrap_err();
    assert!(matches!(&error, DbmsError::RowRefused { index: 1, reason } if reason.contains("54000")), "{error}");
    assert_eq!(dbms.count(&Target::table("l")).unwrap(), 0);
}

#[test]
fn tables_that_a_person_made_take_rows() {
    let server = Server::shared();
    let (_home, catalog) = catalog();
    let database = catalog.connect(server.request("foreign")).unwrap();
    let dbms = database.dbms().as_ref();
    dbms.execute("CREATE DOMAIN percent AS INT CHECK (VALUE BETWEEN 0 AND 100)").unwrap();
    dbms.execute(
        "CREATE TABLE made(small SMALLINT, single REAL, exact NUMERIC(12,3), at TIMESTAMPTZ, doc JSONB, raw JSON, word CHAR(3), \
         share percent)",
    )
    .unwrap();
    let columns: Vec<String> =
        ["small", "single", "exact", "at", "doc", "raw", "word", "share"].map(str::to_owned).to_vec();
    let row = |share| {
        vec![
            SqlValue::Int(-3),
            SqlValue::Float(0.5),
            text("-1.5e3"),
            text("2026-03-04 05:06:07.000001"),
            text(r#"{"a": [1, "é"]}"#),
            text(r#"{"b":  2}"#),
            text("ab"),
            SqlValue::Int(share),
        ]
    };
    dbms.apply(&Target::table("made"), &columns, &[row(7)], &[]).unwrap();
    let error = dbms.apply(&Target::table("made"), &columns, &[row(8), row(101)], &[]).unwrap_err();
    assert!(matches!(error, DbmsError::RowRefused { index: 1, .. }), "{error}");
    let found = rows(dbms, None, "SELECT * FROM made");
    let mut expected = row(7);
    expected[2] = SqlValue::Float(-1500.0);
    expected[6] = text("ab ");
    assert_eq!(found, [expected]);

    // Types that only the server can read, and a table that changes behind the node's back.
    dbms.execute("CREATE TYPE mood AS ENUM ('good', 'bad')").unwrap();
    dbms.execute("CREATE TABLE odd(v BIGINT, m mood, i INTERVAL)").unwrap();
    let columns = ["v", "m", "i"].map(str::to_owned).to_vec();
    let row = |mood: &str| vec![SqlValue::Int(1), text(mood), text("2 days")];
    dbms.apply(&Target::table("odd"), &columns, &[row("good")], &[]).unwrap();
    let error = dbms.apply(&Target::table("odd"), &columns, &[row("bad"), row("so\t\\so")], &[]).unwrap_err();
    assert!(matches!(error, DbmsError::RowRefused { index: 1, .. }), "{error}");
    assert_eq!(value(dbms, None, "SELECT m || ' ' || i FROM odd"), text("good 2 days"));
    let second = catalog.connect(ConnectRequest { name: "psql".into(), ..behind(&server) }).unwrap();
    second.dbms().execute("ALTER TABLE made ALTER COLUMN small TYPE BIGINT").unwrap();
    let columns = vec!["small".to_owned()];
    dbms.apply(&Target::table("made"), &columns, &[vec![SqlValue::Int(1 << 40)]], &[]).unwrap();
}

/// The database `foreign` under another logical name.
fn behind(server: &Server) -> ConnectRequest {
    let connection = format!("postgresql://anylog@127.0.0.1:{}/foreign?application_name=person", server.port);
    ConnectRequest {
        connection,
        ip: String::new(),
        user: String::new(),
        port: None,
        ..ConnectRequest::postgres("", "", 0, "", "")
    }
}

#[test]
fn a_connection_text_may_name_the_database() {
    let server = Server::shared();
    let (_home, catalog) = catalog();
    let connection = format!("host=127.0.0.1 port={} user=anylog dbname='plant 1'", server.port);
    let request = |name: &str, connection: &str| ConnectRequest {
        connection: connection.into(),
        port: None,
        ..ConnectRequest::postgres(name, "", 0, "", "")
    };
    let database = catalog.connect(request("plant", &connection)).unwrap();
    assert_eq!(database.dbms().info().ip_port, format!("127.0.0.1:{}", server.port));
    assert_eq!(value(database.dbms().as_ref(), None, "SELECT current_database()::text"), text("plant 1"));
    // A database that names no server lies at the same one, under its own name.
    let mut next = request("next", "");
    catalog.complete_server(&mut next);
    let next = catalog.connect(next).unwrap();
    assert_eq!(value(next.dbms().as_ref(), None, "SELECT current_database()::text"), text("next"));
    for wrong in ["host", "host=127.0.0.1 colour=red", "sslmode=sometimes", "sslmode=verify-full"] {
        let error = catalog.connect(request("wrong", wrong)).unwrap_err();
        assert!(matches!(error, DbmsError::Declaration { .. }), "{wrong}: {error}");
    }
}

#[test]
fn a_table_is_as_a_person_would_have_made_it() {
    let server = Server::shared();
    let (_home, catalog) = catalog();
    let database = catalog.connect(server.request("person")).unwrap();
    let json = r#"{"timestamp":"2026-01-01 00:00:00Z","pump":"a","bar":2.5,"count":7,"on":true,"order":null}"#;
    let schema = table("pumps", &[json]);
    database.dbms().create_table(&schema).unwrap();
    let partition = "par_pumps_2026_01_01_d01_timestamp";
    database.dbms().create_partition(&schema, partition).unwrap();
    for name in ["pumps", partition] {
        let columns = format!(
            "SELECT column_name::text, data_type::text, is_nullable::text FROM information_schema.columns \
             WHERE table_name = '{name}' ORDER BY ordinal_position"
        );
        let found: Vec<String> = rows(database.dbms().as_ref(), None, &columns)
            .iter()
            .map(|row| {
                row.iter()
                    .map(|cell| if let SqlValue::Text(text) = cell { text.as_str() } else { "?" })
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect();
        let expected = [
            "row_id bigint NO",
            "insert_timestamp timestamp without time zone NO",
            "tsd_name character varying YES",
            "tsd_id integer YES",
            "timestamp timestamp without time zone NO",
            "pump character varying YES",
            "bar double precision YES",
            "count bigint YES",
            "on boolean YES",
            "order character varying YES",
        ];
        assert_eq!(found, expected);
        let indexes = format!(
            "SELECT regexp_replace(indexdef, '^.* USING ', '') FROM pg_indexes WHERE tablename = '{name}' ORDER BY 1"
        );
        let found = rows(database.dbms().as_ref(), None, &indexes);
        let expected =
            ["btree (\"timestamp\")", "btree (insert_timestamp)", "btree (row_id)", "btree (tsd_name, tsd_id)"];
        assert_eq!(found, expected.map(|index| vec![text(index)]));
        let key = format!("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = '{name}'::regclass");
        assert_eq!(rows(database.dbms().as_ref(), None, &key), [[text("PRIMARY KEY (row_id)")]]);
    }
}

// R10: a query that nobody reads on does not keep a partition from being dropped.
#[test]
fn a_reader_that_stands_still_is_ended_by_a_drop() {
    let server = Server::shared();
    let (_home, catalog) = catalog();
    let database = catalog.connect(server.request("held")).unwrap();
    let schema = table("t", &[r#"{"v":1}"#]);
    let partition = "par_t_2026_01_01_d01_insert_timestamp";
    database.dbms().create_table(&schema).unwrap();
    database.dbms().create_partition(&schema, partition).unwrap();
    let (columns, values) = batch(&schema, &[r#"{"v":1}"#]);
    let target = Target::partition("t", partition);
    database.dbms().apply(&target, &columns, &values, &[]).unwrap();
    let (started, begins) = std::sync::mpsc::sync_channel(1);
    let (go_on, held) = std::sync::mpsc::sync_channel::<()>(1);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let sql = format!("SELECT v, repeat('x', 1000) FROM {partition}, generate_series(1, 1000000)");
            let mut held = Some(held);
            database.dbms().query(Some(&target), &sql, &mut |_, _| {
                if let Some(held) = held.take() {
                    started.send(()).unwrap();
                    held.recv().ok();
                }
                std::ops::ControlFlow::Continue(())
            })
        });
        begins.recv().unwrap();
        database.dbms().drop_partition("t", partition).unwrap();
        drop(go_on);
        let ended = reader.join().unwrap().unwrap_err();
        assert!(matches!(ended, DbmsError::Unavailable { .. }), "{ended}");
    });
    assert!(database.dbms().partitions("t").unwrap().is_empty());
    database.dbms().apply(&Target::table("t"), &columns, &values, &[]).unwrap();
}

// What tables look like is kept for a moment: changes of the node's own are seen at once, those of others soon.
#[test]
fn changes_of_tables_are_seen() {
    let server = Server::shared();
    let (_home, catalog) = catalog();
    let database = catalog.connect(server.request("seen")).unwrap();
    let other = catalog.connect(ConnectRequest {
        connection: format!("host=127.0.0.1 port={} user=anylog dbname=seen", server.port),
        port: None,
        ..ConnectRequest::postgres("seen_by_a_person", "", 0, "", "")
    });
    let (dbms, other) = (database.dbms().as_ref(), other.unwrap());
    assert_eq!(dbms.schema("t").unwrap(), None);
    let schema = table("t", &[r#"{"v":1}"#]);
    dbms.create_table(&schema).unwrap();
    assert!(dbms.schema("t").unwrap().is_some() && dbms.partitions("t").unwrap().is_empty());
    // A longer name that begins in the same way is another table's.
    let names = ["par_t_2026_01_01_d01_insert_timestamp", "par_t_1_2026_01_01_d01_insert_timestamp"];
    dbms.create_partition(&schema, names[0]).unwrap();
    dbms.create_partition(&schema, names[1]).unwrap();
    assert_eq!(dbms.partitions("t").unwrap(), names[..1]);
    assert_eq!(dbms.partitions("t_1").unwrap(), names[1..]);
    dbms.execute("ALTER TABLE t ADD COLUMN w BIGINT").unwrap();
    assert!(dbms.schema("t").unwrap().unwrap().column("w").is_some());
    other.dbms().execute("ALTER TABLE t ADD COLUMN x BIGINT").unwrap();
    other.dbms().execute(&format!("DROP TABLE {}", names[0])).unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while dbms.schema("t").unwrap().unwrap().column("x").is_none() || !dbms.partitions("t").unwrap().is_empty() {
        assert!(Instant::now() < end);
        std::thread::park_timeout(Duration::from_millis(20));
    }
    // A statement that fails makes the next look be a real one.
    dbms.partitions("t_1").unwrap();
    other.dbms().execute(&format!("DROP TABLE {}", names[1])).unwrap();
    dbms.query(None, &format!("SELECT v FROM {}", names[1]), &mut |_, _| std::ops::ControlFlow::Continue(()))
        .unwrap_err();
    assert!(dbms.partitions("t_1").unwrap().is_empty());
}
