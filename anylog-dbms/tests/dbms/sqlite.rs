//! What only SQLite promises: files.

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anylog_dbms::{ConnectRequest, DbmsError, Engine, RowRef, SegmentId, SqlValue, Target, Unseen};

use crate::conformance;
use crate::support::{batch, catalog, catalog as support_catalog, table, text, value};

#[test]
fn files_conform() {
    let (home, catalog) = catalog();
    let database = catalog.connect(ConnectRequest::sqlite("conform", home.path().join("with % ? # blanks"))).unwrap();
    conformance::all(&database);
}

#[test]
fn memory_conforms() {
    let (_home, catalog) = catalog();
    let database = catalog.connect(ConnectRequest::sqlite_memory("conform")).unwrap();
    conformance::all(&database);
}

#[test]
fn memory_of_two_nodes_is_separate() {
    let ((_one, first), (_two, second)) = (catalog(), catalog());
    let first = first.connect(ConnectRequest::sqlite_memory("system_query")).unwrap();
    let second = second.connect(ConnectRequest::sqlite_memory("system_query")).unwrap();
    first.dbms().create_table(&table("t", &[r#"{"v":1}"#])).unwrap();
    assert_eq!(second.dbms().tables().unwrap(), Vec::<String>::new());
}

#[test]
fn what_was_stored_is_there_after_a_new_start() {
    let (home, catalog) = catalog();
    let request = ConnectRequest::sqlite("kept", home.path());
    let schema = table("t", &[r#"{"timestamp":"2026-01-01 00:00:00Z","v":1}"#]);
    let target = Target::partition("t", "par_t_2026_01_01_d01_timestamp");
    {
        let database = catalog.connect(request.clone()).unwrap();
        database.dbms().create_table(&schema).unwrap();
        database.dbms().create_partition(&schema, target.physical()).unwrap();
        let (columns, values) = batch(&schema, &[r#"{"v":5}"#]);
        database.dbms().apply(&target, &columns, &values, &[(SegmentId(4), 11)]).unwrap();
        database.dbms().sync().unwrap();
    }
    catalog.disconnect("kept").unwrap();
    let database = catalog.connect(request).unwrap();
    assert_eq!(database.dbms().schema("t").unwrap().unwrap().columns, schema.columns);
    assert_eq!(database.dbms().count(&target).unwrap(), 1);
    assert_eq!(database.dbms().applied(&target, SegmentId(4)).unwrap(), Some(11));
    database.dbms().forget(&[SegmentId(4)]).unwrap();
    assert_eq!(database.dbms().applied(&target, SegmentId(4)).unwrap(), None);
}

// R20: digests of a partition are remembered for as long as nothing was written to it.
#[test]
fn a_partition_that_was_written_has_another_version() {
    let (home, catalog) = catalog();
    let schema = table("t", &[r#"{"timestamp":"2026-01-01 00:00:00Z","v":1}"#]);
    let target = Target::partition("t", "par_t_2026_01_01_d01_timestamp");
    let database = catalog.connect(ConnectRequest::sqlite("d", home.path())).unwrap();
    let dbms = database.dbms();
    dbms.create_table(&schema).unwrap();
    dbms.create_partition(&schema, target.physical()).unwrap();
    let age = |seconds: u64| {
        for entry in fs::read_dir(home.path().join("d.parts/t")).unwrap() {
            let file = fs::File::options().write(true).open(entry.unwrap().path()).unwrap();
            let written = file.metadata().unwrap().modified().unwrap();
            file.set_modified(written - std::time::Duration::from_secs(seconds)).unwrap();
        }
    };
    let write = |ordinal: u64| {
        let (columns, values) = batch(&schema, &[r#"{"v":5}"#]);
        dbms.apply(&target, &columns, &values, &[(SegmentId(4), ordinal)]).unwrap();
        dbms.sync().unwrap();
    };
    write(1);
    assert_eq!(dbms.version(&target).unwrap(), None, "what was written just now may be written again at the same time");
    age(60);
    let version = dbms.version(&target).unwrap();
    assert!(version.is_some());
    assert_eq!(dbms.count(&target).unwrap(), 1);
    assert_eq!(dbms.version(&target).unwrap(), version, "reading changes nothing");
    write(2);
    age(30);
    assert_ne!(dbms.version(&target).unwrap(), version);
    let memory = catalog.connect(ConnectRequest::sqlite_memory("m")).unwrap();
    assert_eq!(memory.dbms().version(&Target::table("t")).unwrap(), None);
}

// DUR-2: the files of a process that was killed, as power loss leaves them after a sync: without the shared index.
#[test]
fn what_was_synced_is_there_after_a_crash() {
    let (home, catalog) = catalog();
    let database = catalog.connect(ConnectRequest::sqlite("crash", home.path().join("a"))).unwrap();
    let schema = table("t", &[r#"{"v":1}"#]);
    let targets = [Target::table("t"), Target::partition("t", "par_t_2026_y01_insert_timestamp")];
    database.dbms().create_table(&schema).unwrap();
    database.dbms().create_partition(&schema, targets[1].physical()).unwrap();
    let (columns, values) = batch(&schema, &[r#"{"v":5}"#; 100]);
    for target in &targets {
        database.dbms().apply(target, &columns, &values, &[(SegmentId(1), 99)]).unwrap();
    }
    database.dbms().sync().unwrap();
    copy_without_index(&home.path().join("a"), &home.path().join("b"));
    let (_other_home, other) = support_catalog();
    let copy = other.connect(ConnectRequest::sqlite("crash", home.path().join("b"))).unwrap();
    for target in &targets {
        // A reader comes first: it finds the log of a writer that is gone.
        assert_eq!(copy.dbms().count(target).unwrap(), 100);
        assert_eq!(copy.dbms().applied(target, SegmentId(1)).unwrap(), Some(99));
        copy.dbms().apply(target, &columns, &values, &[]).unwrap();
        assert_eq!(copy.dbms().count(target).unwrap(), 200);
    }
}

fn copy_without_index(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap();
        if path.is_dir() {
            copy_without_index(&path, &to.join(name));
        } else if !name.to_string_lossy().ends_with("-shm") {
            fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

// DUR-2: a partition whose creation was cut off is made anew.
#[test]
fn an_unfinished_partition_is_no_partition() {
    let (home, catalog) = catalog();
    let database = catalog.connect(ConnectRequest::sqlite("half", home.path())).unwrap();
    let schema = table("t", &[r#"{"v":1}"#]);
    let partition = "par_t_2026_01_01_d01_insert_timestamp";
    let directory = home.path().join("half.parts/t");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join(format!("{partition}.dbms.new")), b"half a file").unwrap();
    assert_eq!(database.dbms().partitions("t").unwrap(), Vec::<String>::new());
    database.dbms().create_partition(&schema, partition).unwrap();
    assert_eq!(database.dbms().partitions("t").unwrap(), [partition]);
    assert_eq!(database.dbms().count(&Target::partition("t", partition)).unwrap(), 0);
}

fn used_blocks(directory: &Path) -> u64 {
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let own = entry.metadata().unwrap();
            if own.is_dir() { used_blocks(&entry.path()) } else { own.blocks() }
        })
        .sum()
}

// R10
#[test]
fn a_dropped_partition_gives_its_space_back() {
    let (home, catalog) = catalog();
    let database = catalog.connect(ConnectRequest::sqlite("space", home.path())).unwrap();
    let schema = table("t", &[r#"{"v":"x"}"#]);
    let partition = "par_t_2026_01_01_d01_insert_timestamp";
    let target = Target::partition("t", partition);
    let before = used_blocks(home.path());
    database.dbms().create_partition(&schema, partition).unwrap();
    let json = format!(r#"{{"v":"{}"}}"#, "x".repeat(1000));
    let (columns, values) = batch(&schema, &vec![json.as_str(); 5000]);
    database.dbms().apply(&target, &columns, &values, &[]).unwrap();
    let full = used_blocks(home.path());
    assert!(full > before + 9000, "{full} blocks are in use, {before} were before");
    // An open reader does not keep the space either.
    let mut visited = 0;
    let ended = database.dbms().query(Some(&target), &format!("SELECT v FROM {partition}"), &mut |_, _| {
        visited += 1;
        if visited == 1 {
            database.dbms().drop_partition("t", partition).unwrap();
        }
        ControlFlow::Continue(())
    });
    assert!(matches!(ended, Err(DbmsError::Statement { .. })), "{ended:?}");
    assert_eq!(visited, 1);
    let after = used_blocks(home.path());
    assert!(after - before < (full - before) / 10, "{after} of {full} blocks are in use still, {before} were before");
}

// DUR-4: a damaged partition is put aside; the others are used.
#[test]
fn a_damaged_partition_does_not_stop_the_database() {
    let (home, catalog) = catalog();
    let request = ConnectRequest::sqlite("hurt", home.path());
    let database = catalog.connect(request.clone()).unwrap();
    let schema = table("t", &[r#"{"v":1}"#]);
    database.dbms().create_table(&schema).unwrap();
    let names =
        ["par_t_2026_y01_insert_timestamp", "par_t_2027_y01_insert_timestamp", "par_t_2028_y01_insert_timestamp"];
    let (columns, values) = batch(&schema, &[r#"{"v":1}"#]);
    for name in names {
        database.dbms().create_partition(&schema, name).unwrap();
        database.dbms().apply(&Target::partition("t", name), &columns, &values, &[]).unwrap();
    }
    drop(database);
    catalog.disconnect("hurt").unwrap();
    let file = |name: &str| home.path().join(format!("hurt.parts/t/{name}.dbms"));
    fs::write(file(names[0]), vec![0; 8192]).unwrap();
    fs::write(file(names[1]), b"").unwrap();
    let database = catalog.connect(request).unwrap();
    assert_eq!(database.dbms().partitions("t").unwrap(), names[2..]);
    assert_eq!(database.dbms().count(&Target::partition("t", names[2])).unwrap(), 1);
    assert!(file(names[0]).with_extension("dbms.damaged").exists(), "its bytes are kept");
    database.dbms().create_partition(&schema, names[0]).unwrap();
    database.dbms().apply(&Target::partition("t", names[0]), &columns, &values, &[]).unwrap();
    assert_eq!(database.dbms().count(&Target::partition("t", names[0])).unwrap(), 1);
}

// R18
#[test]
fn a_reader_that_stands_still_does_not_let_the_log_grow() {
    let (home, catalog) = catalog();
    let database = catalog.connect(ConnectRequest::sqlite("log", home.path())).unwrap();
    let schema = table("t", &[r#"{"v":"x"}"#]);
    database.dbms().create_table(&schema).unwrap();
    let target = Target::table("t");
    let json = format!(r#"{{"v":"{}"}}"#, "x".repeat(20_000));
    let (columns, values) = batch(&schema, &vec![json.as_str(); 20]);
    database.dbms().apply(&target, &columns, &values, &[]).unwrap();
    let log = home.path().join("log.dbms-wal");
    let mut longest = 0;
    let ended = database.dbms().query(None, "SELECT v FROM t", &mut |_, _| {
        for _ in 0..250 {
            database.dbms().apply(&target, &columns, &values, &[]).unwrap();
            longest = longest.max(fs::metadata(&log).unwrap().len());
        }
        ControlFlow::Continue(())
    });
    assert!(ended.is_err(), "the reader was ended");
    for _ in 0..70 {
        database.dbms().apply(&target, &columns, &values, &[]).unwrap();
    }
    let log = fs::metadata(&log).unwrap().len();
    assert!(log < 100 << 20, "the log has {log} bytes, the longest was {longest}");
}

#[test]
fn files_lie_where_documented_and_can_be_deleted() {
    let (home, catalog) = catalog();
    let request = ConnectRequest::sqlite("place", home.path());
    let database = catalog.connect(request.clone()).unwrap();
    let schema = table("t", &[r#"{"v":1}"#]);
    database.dbms().create_table(&schema).unwrap();
    database.dbms().create_partition(&schema, "par_t_2026_y01_insert_timestamp").unwrap();
    assert!(home.path().join("place.dbms").is_file());
    assert!(home.path().join("place.parts/t/par_t_2026_y01_insert_timestamp.dbms").is_file());
    assert_eq!(database.dbms().info().storage, home.path().join("place.dbms").display().to_string());
    assert_eq!(database.dbms().engine(), Engine::Sqlite);
    assert!(catalog.drop_database(&request).is_err(), "connected databases are not deleted");
    drop(database);
    catalog.disconnect("place").unwrap();
    catalog.drop_database(&request).unwrap();
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
    assert!(matches!(catalog.drop_database(&request), Err(DbmsError::Connect { .. })));
    for bad in ["", "..", "a/b"] {
        assert!(catalog.connect(ConnectRequest::sqlite(bad, home.path())).is_err());
    }
}

// R17: another program that holds a file for long costs time, not rows: nothing of them is wrong.
#[test]
fn a_file_that_another_program_holds_is_waited_for() {
    let (home, catalog) = catalog();
    let database = catalog.connect(ConnectRequest::sqlite("held", home.path())).unwrap();
    let schema = table("t", &[r#"{"v":1}"#]);
    database.dbms().create_table(&schema).unwrap();
    let (columns, values) = batch(&schema, &[r#"{"v":5}"#]);
    let store = || database.dbms().apply(&Target::table("t"), &columns, &values, &[(SegmentId(1), 1)]);
    let mut files = fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().path());
    let file = files.find(|path| path.extension().is_some_and(|kind| kind == "dbms")).unwrap();
    let other = rusqlite::Connection::open(file).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = store().unwrap_err();
    assert!(matches!(&error, DbmsError::Unavailable { reason, .. } if reason.contains("locked")), "{error}");
    other.execute_batch("COMMIT").unwrap();
    store().unwrap();
    assert_eq!(database.dbms().count(&Target::table("t")).unwrap(), 1);
}

#[test]
fn a_table_of_another_program_can_be_read() {
    let (home, catalog) = catalog();
    let database = catalog.connect(ConnectRequest::sqlite("foreign", home.path())).unwrap();
    database.dbms().execute("create table f(a geometry, b blob, c)").unwrap();
    database.dbms().execute("insert into f values ('x', x'00ff', null)").unwrap();
    assert_eq!(database.dbms().schema("f").unwrap().unwrap().columns.len(), 3);
    assert_eq!(value(database.dbms().as_ref(), None, "select b from f"), text("00ff"));
    assert_eq!(value(database.dbms().as_ref(), None, "select c from f"), SqlValue::Null);
}

// Logs are moved into their files beside the writer, also while partitions are dropped and made again under the same name.
#[test]
fn logs_are_moved_beside_the_writer() {
    let (home, catalog) = catalog();
    let database = catalog.connect(ConnectRequest::sqlite("busy", home.path())).unwrap();
    let dbms = database.dbms();
    let schema = table("t", &[r#"{"v":1}"#]);
    dbms.create_table(&schema).unwrap();
    let json: Vec<String> = (0..20_000).map(|n| format!("{{\"v\":{n}}}")).collect();
    let json: Vec<&str> = json.iter().map(String::as_str).collect();
    let (columns, values) = batch(&schema, &json);
    let target = Target::partition("t", "par_t_2026_01_01_d01_insert_timestamp");
    let file = home.path().join(format!("busy.parts/t/{}.dbms", target.physical()));
    for round in 0..6 {
        dbms.create_partition(&schema, target.physical()).unwrap();
        for (ordinal, rows) in (1..).zip(values.chunks(500)) {
            dbms.apply(&target, &columns, rows, &[(SegmentId(round), ordinal)]).unwrap();
        }
        assert_eq!(dbms.count(&target).unwrap(), 20_000);
        assert_eq!(value(dbms.as_ref(), Some(&target), "PRAGMA integrity_check"), text("ok"));
        if round < 5 {
            dbms.drop_partition("t", target.physical()).unwrap();
        }
    }
    // Nobody writes any more, and the writer alone moves a log of this length only when it ends.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while fs::metadata(&file).unwrap().len() < 500_000 {
        assert!(std::time::Instant::now() < deadline, "the log is not moved into its file");
        std::thread::yield_now();
    }
}

// Rows that come for many days in turns: a file that was closed for each would be synced each time.
#[test]
fn files_of_many_partitions_stay_open() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    if limit.is_some_and(|limit| limit < 8192) {
        eprintln!("skipped: so few files may be open that partitions are closed");
        return;
    }
    let (home, catalog) = catalog();
    let database = catalog.connect(ConnectRequest::sqlite("test", home.path())).unwrap();
    let schema = table("t", &[r#"{"v":1}"#]);
    database.dbms().create_table(&schema).unwrap();
    let (columns, values) = batch(&schema, &[r#"{"v":1}"#]);
    let names: Vec<String> =
        (0..60).map(|day| format!("par_t_2026_{:02}_{:02}_d01_insert_timestamp", 1 + day / 28, 1 + day % 28)).collect();
    for name in &names {
        database.dbms().create_partition(&schema, name).unwrap();
        database.dbms().apply(&Target::partition("t", name), &columns, &values, &[]).unwrap();
    }
    let own = home.path().join("test.parts/t");
    let open =
        std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let logs = open.filter(|path| path.starts_with(&own) && path.to_string_lossy().ends_with("-wal")).count();
    assert_eq!(logs, names.len());
    // What is dropped is closed.
    database.dbms().drop_partitions("t", &names, &mut |_| {}).unwrap();
    let open =
        std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    assert_eq!(open.filter(|path| path.starts_with(&own)).count(), 0);
}

fn until_looked_for(unseen: &Unseen) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !unseen.is_looked_for() {
        assert!(Instant::now() < deadline, "somebody waits for the rows");
        std::thread::yield_now();
    }
}

// DUR-1: who begins to read waits for rows that count as stored, in their place alone.
#[test]
fn promised_rows_are_waited_for() {
    let (home, catalog) = catalog();
    let database = catalog.connect(ConnectRequest::sqlite("d", home.path())).unwrap();
    let dbms = database.dbms().as_ref();
    let schema = table("t", &[r#"{"v":1}"#]);
    dbms.create_table(&schema).unwrap();
    let partition = |day: u8| Target::partition("t", format!("par_t_2026_03_{day:02}_d01_insert_timestamp"));
    for day in [1, 2] {
        dbms.create_partition(&schema, partition(day).physical()).unwrap();
    }
    let (columns, values) = batch(&schema, &[r#"{"v":1}"#; 3]);
    let rows: Vec<RowRef<'_>> = values.iter().map(|row| RowRef { shared: &[], own: row }).collect();
    let unseen = dbms.unseen().unwrap();
    for target in [partition(1), Target::table("t")] {
        std::thread::scope(|threads| {
            let mut reader = None;
            let mut promise = None;
            let stored = dbms.apply_growing(&target, &columns, &mut |transaction| {
                transaction.store(&rows, &[])?;
                assert_eq!(dbms.count(&target).unwrap(), 0);
                promise = unseen.promise(&target);
                reader = Some(threads.spawn(|| dbms.count(&target).unwrap()));
                until_looked_for(unseen);
                assert_eq!(dbms.count(&partition(2)).unwrap(), 0, "another place is not waited for");
                Ok(true)
            });
            assert!(stored.unwrap());
            drop(promise);
            assert_eq!(reader.unwrap().join().unwrap(), 3);
        });
    }
}

// DUR-1: who connects a database anew finds what counted as stored when it was disconnected.
#[test]
fn a_database_is_disconnected_when_promises_are_kept() {
    let (home, catalog) = catalog();
    let database = catalog.connect(ConnectRequest::sqlite("d", home.path())).unwrap();
    let (unseen, target) = (database.dbms().unseen().unwrap(), Target::table("t"));
    let promise = unseen.promise(&target).unwrap();
    std::thread::scope(|threads| {
        let disconnecting = threads.spawn(|| catalog.disconnect("d").unwrap());
        until_looked_for(unseen);
        assert!(!disconnecting.is_finished(), "it waits for the rows");
        catalog.get("d").unwrap();
        drop(promise);
    });
    catalog.get("d").unwrap_err();
    assert!(unseen.promise(&target).is_none());
}

// DUR-5, R13: a statement for whose rows there is no space ends its transaction. That is told, and no row is refused for it.
#[test]
fn a_disk_that_is_full_in_the_middle_of_a_transaction_is_told() {
    let (home, catalog) = catalog();
    let database = catalog.connect(ConnectRequest::sqlite("d", home.path())).unwrap();
    let dbms = database.dbms().as_ref();
    let schema = table("t", &[r#"{"v":1}"#]);
    dbms.create_table(&schema).unwrap();
    let (columns, values) = batch(&schema, &[r#"{"v":1}"#; 3000]);
    let rows: Vec<RowRef<'_>> = values.iter().map(|row| RowRef { shared: &[], own: row }).collect();
    let target = Target::table("t");
    dbms.execute("PRAGMA max_page_count=16").unwrap();
    for _ in 0..2 {
        let error = dbms.apply_rows(&target, &columns, &rows, &[]).unwrap_err();
        assert!(matches!(error, DbmsError::DiskFull { .. }), "{error}");
        let error =
            dbms.apply_growing(&target, &columns, &mut |open| open.store(&rows, &[]).map(|()| true)).unwrap_err();
        assert!(matches!(error, DbmsError::DiskFull { .. }), "{error}");
    }
    dbms.apply_rows(&target, &columns, &rows[..9], &[]).unwrap();
    dbms.execute("PRAGMA max_page_count=100000").unwrap();
    dbms.apply_rows(&target, &columns, &rows, &[]).unwrap();
    assert_eq!(dbms.count(&target).unwrap(), 3009);
}
