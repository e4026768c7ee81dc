//! Dropping partitions of files: space comes back in all circumstances.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use anylog_dbms::{ConnectRequest, Database, DbmsError, DropHook, Target};

use crate::small_disk::SmallDisk;
use crate::support::{batch, catalog, rows, table};

const NAMES: [&str; 3] = [
    "par_t_2026_01_01_d01_insert_timestamp",
    "par_t_2026_01_02_d01_insert_timestamp",
    "par_t_2026_01_03_d01_insert_timestamp",
];

/// Partitions of so many rows of a kilobyte.
fn fill(database: &Database, count: usize) {
    let schema = table("t", &[r#"{"v":"x"}"#]);
    database.dbms().create_table(&schema).unwrap();
    let json = format!(r#"{{"v":"{}"}}"#, "x".repeat(1000));
    let (columns, values) = batch(&schema, &vec![json.as_str(); count]);
    for name in NAMES {
        database.dbms().create_partition(&schema, name).unwrap();
        database.dbms().apply(&Target::partition("t", name), &columns, &values, &[]).unwrap();
    }
}

fn size(database: &Database, partition: &str) -> u64 {
    database.dbms().size(&Target::partition("t", partition)).unwrap().unwrap()
}

// R10: the space is back when the call returns, although a statement that shows no row has the file open.
#[test]
fn a_busy_reader_does_not_keep_the_space() {
    let Some(disk) = SmallDisk::mount(96) else { return };
    let (_home, catalog) = catalog();
    let database = catalog.connect(ConnectRequest::sqlite("space", disk.path())).unwrap();
    fill(&database, 12_000);
    let target = Target::partition("t", NAMES[0]);
    let (started, begins) = mpsc::sync_channel(1);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            // The rows are far more than a reader keeps in memory, and what it looks for is not there.
            let sql = format!("SELECT 1 UNION ALL SELECT count(*) FROM {0} a, {0} b WHERE a.v < b.v", NAMES[0]);
            database.dbms().query(Some(&target), &sql, &mut |_, _| {
                started.send(()).ok();
                ControlFlow::Continue(())
            })
        });
        begins.recv().unwrap();
        let (bytes, before) = (size(&database, NAMES[0]), disk.free());
        assert!(bytes > 12_000_000, "{bytes}");
        database.dbms().drop_partition("t", NAMES[0]).unwrap();
        let back = disk.free().saturating_sub(before);
        assert!(back >= bytes / 10 * 9, "{back} of {bytes} bytes are back");
        let ended = reader.join().unwrap();
        assert!(
            matches!(ended, Err(DbmsError::Statement { ref reason, .. }) if reason.contains("dropped")),
            "{ended:?}"
        );
    });
    drop(database);
    catalog.disconnect("space").unwrap();
}

// R10: with not a byte left. The log of a partition that was written last is not in its file yet.
#[test]
fn a_full_disk_gets_its_space_back() {
    let Some(disk) = SmallDisk::mount(64) else { return };
    let (_home, catalog) = catalog();
    let database = catalog.connect(ConnectRequest::sqlite("space", disk.path())).unwrap();
    fill(&database, 8_000);
    disk.fill_to(0);
    for name in NAMES {
        let (bytes, before) = (size(&database, name), disk.free());
        catalog.drop_partition(&database, "t", name).unwrap();
        let back = disk.free().saturating_sub(before);
        assert!(back >= bytes / 10 * 9, "{back} of {bytes} bytes are back");
    }
    assert_eq!(database.dbms().partitions("t").unwrap(), Vec::<String>::new());
    disk.free_space();
    drop(database);
    catalog.disconnect("space").unwrap();
}

/// A note that needs space, and finds none for its first calls.
struct Full {
    calls: AtomicUsize,
    failures: usize,
}

impl DropHook for Full {
    fn before_drop(&self, database: &Database, _: &str, _: &str) -> Result<(), DbmsError> {
        if self.calls.fetch_add(1, Ordering::Relaxed) < self.failures {
            return Err(DbmsError::DiskFull { name: database.name().to_owned() });
        }
        Ok(())
    }
}

fn files(directory: &Path) -> Vec<String> {
    let names = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| !name.ends_with("-wal") && !name.ends_with("-shm")).collect();
    names.sort();
    names
}

// R10: what a full disk cannot note is noted in the space of the partition itself.
#[test]
fn a_drop_that_cannot_be_noted_makes_its_own_space() {
    let (home, catalog) = catalog();
    let database = catalog.connect(ConnectRequest::sqlite("space", home.path())).unwrap();
    fill(&database, 100);
    let hook = Arc::new(Full { calls: AtomicUsize::new(0), failures: 1 });
    catalog.set_drop_hook(hook.clone());
    catalog.drop_partition(&database, "t", NAMES[0]).unwrap();
    assert_eq!(hook.calls.load(Ordering::Relaxed), 2);
    assert_eq!(
        files(&home.path().join("space.parts/t")),
        NAMES[1..].iter().map(|name| format!("{name}.dbms")).collect::<Vec<_>>()
    );
}

// R10: several that cannot be noted together are noted one by one, each in the space of its own.
#[test]
fn drops_that_cannot_be_noted_together_make_space_one_by_one() {
    let (home, catalog) = catalog();
    let database = catalog.connect(ConnectRequest::sqlite("space", home.path())).unwrap();
    fill(&database, 100);
    // The note for both, then that for the first of them.
    let hook = Arc::new(Full { calls: AtomicUsize::new(0), failures: 2 });
    catalog.set_drop_hook(hook.clone());
    let mut dropped = anylog_dbms::catalog::Dropped::default();
    let names: Vec<String> = NAMES[..2].iter().map(|name| (*name).to_owned()).collect();
    catalog.drop_partitions(&database, "t", &names, &mut dropped).unwrap();
    assert_eq!(hook.calls.load(Ordering::Relaxed), 4);
    assert_eq!((dropped.count(), dropped.bytes() > 0), (2, true));
    assert_eq!(files(&home.path().join("space.parts/t")), [format!("{}.dbms", NAMES[2])]);
    assert_eq!(catalog.dropped_partitions(), [("space".to_owned(), "t".to_owned(), 2)]);
}

// R10, DUR-4: a crash between the two finds the partition emptied: its drop is finished by the next connect.
#[test]
fn an_emptied_partition_is_dropped_by_the_next_start() {
    let (home, catalog) = catalog();
    let request = ConnectRequest::sqlite("space", home.path());
    let database = catalog.connect(request.clone()).unwrap();
    fill(&database, 2_000);
    catalog.set_drop_hook(Arc::new(Full { calls: AtomicUsize::new(0), failures: usize::MAX }));
    for name in &NAMES[..2] {
        let error = catalog.drop_partition(&database, "t", name).unwrap_err();
        assert!(matches!(error, DbmsError::DiskFull { .. }), "{error}");
        assert_eq!(database.dbms().size(&Target::partition("t", *name)).unwrap(), Some(0));
    }
    // It is no partition any more, and can be made again.
    assert_eq!(database.dbms().partitions("t").unwrap(), NAMES[2..]);
    assert_eq!(database.dbms().emptied_partitions().unwrap().len(), 2);
    let schema = table("t", &[r#"{"v":"x"}"#]);
    database.dbms().create_partition(&schema, NAMES[1]).unwrap();
    // A crash may come even before the emptied file has its other name.
    let directory = home.path().join("space.parts/t");
    let emptied = directory.join(format!("{}.dbms.dropped", NAMES[0]));
    std::fs::rename(&emptied, directory.join(format!("{}.dbms", NAMES[0]))).unwrap();
    drop(database);
    catalog.disconnect("space").unwrap();
    let hook = Arc::new(Full { calls: AtomicUsize::new(0), failures: 0 });
    catalog.set_drop_hook(hook.clone());
    let database = catalog.connect(request).unwrap();
    assert_eq!(hook.calls.load(Ordering::Relaxed), 1, "the note comes before the replay of the journal");
    assert_eq!(database.dbms().partitions("t").unwrap(), NAMES[1..]);
    assert_eq!(files(&directory), NAMES[1..].iter().map(|name| format!("{name}.dbms")).collect::<Vec<_>>());
}

// DUR-2: a crash in the middle of a drop may leave the log of a partition whose file is gone. It must not become that of the next.
#[test]
fn a_log_that_was_left_is_not_that_of_the_next_partition() {
    let (home, catalog) = catalog();
    let database = catalog.connect(ConnectRequest::sqlite("space", home.path())).unwrap();
    fill(&database, 50);
    let file = home.path().join(format!("space.parts/t/{}.dbms", NAMES[0]));
    let log = file.with_extension("dbms-wal");
    let old = std::fs::read(&log).unwrap();
    assert!(!old.is_empty(), "its rows are in the log");
    database.dbms().drop_partition("t", NAMES[0]).unwrap();
    std::fs::write(&log, old).unwrap();
    let schema = table("t", &[r#"{"v":"x"}"#]);
    database.dbms().create_partition(&schema, NAMES[0]).unwrap();
    let target = Target::partition("t", NAMES[0]);
    assert_eq!(database.dbms().count(&target).unwrap(), 0);
    let whole = rows(database.dbms().as_ref(), Some(&target), "PRAGMA integrity_check");
    assert_eq!(whole, [[crate::support::text("ok")]]);
}
