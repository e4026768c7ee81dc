//! Connecting, hooks and declarations.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anylog_dbms::{ConnectHook, ConnectRequest, Database, DbmsError, DropHook, PartitionUnit, Partitioning, Target};

use crate::support::{batch, catalog, table};

struct Counting {
    calls: AtomicUsize,
    fails: bool,
}

impl ConnectHook for Counting {
    fn before_offer(&self, database: &Arc<Database>) -> Result<(), DbmsError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if self.fails {
            return Err(DbmsError::Declaration { reason: format!("replay into {} failed", database.name()) });
        }
        // The hook may write: that is what it is for.
        let schema = table("replayed", &[r#"{"v":1}"#]);
        database.dbms().create_table(&schema)?;
        let (columns, rows) = batch(&schema, &[r#"{"v":1}"#]);
        database.dbms().apply(&Target::table("replayed"), &columns, &rows, &[])
    }
}

#[test]
fn hooks_run_before_a_database_is_offered() {
    let (home, catalog) = catalog();
    let hook = Arc::new(Counting { calls: AtomicUsize::new(0), fails: false });
    catalog.add_hook(hook.clone());
    let database = catalog.connect(ConnectRequest::sqlite("test", home.path())).unwrap();
    assert_eq!(database.dbms().count(&Target::table("replayed")).unwrap(), 1);
    // The same again is the same database, and nothing is replayed.
    let again = catalog.connect(ConnectRequest::sqlite("test", home.path())).unwrap();
    assert!(Arc::ptr_eq(&database, &again));
    assert_eq!(hook.calls.load(Ordering::Relaxed), 1);
    let conflict = catalog.connect(ConnectRequest::sqlite_memory("test")).unwrap_err();
    assert!(matches!(conflict, DbmsError::Conflict { .. }), "{conflict}");
}

#[test]
fn a_hook_that_fails_keeps_the_database_from_being_offered() {
    let (home, catalog) = catalog();
    catalog.add_hook(Arc::new(Counting { calls: AtomicUsize::new(0), fails: true }));
    let error = catalog.connect(ConnectRequest::sqlite("test", home.path())).unwrap_err();
    assert_eq!(error.to_string(), "replay into test failed");
    assert!(matches!(catalog.get("test"), Err(DbmsError::NotConnected { .. })));
}

struct Refusing;

impl DropHook for Refusing {
    fn before_drop(&self, _: &Database, _: &str, partition: &str) -> Result<(), DbmsError> {
        Err(DbmsError::Declaration { reason: format!("{partition} stays") })
    }
}

#[test]
fn a_drop_hook_that_fails_keeps_the_partition() {
    let (home, catalog) = catalog();
    let database = catalog.connect(ConnectRequest::sqlite("test", home.path())).unwrap();
    let schema = table("t", &[r#"{"v":1}"#]);
    let partition = "par_t_2026_y01_insert_timestamp";
    database.dbms().create_table(&schema).unwrap();
    database.dbms().create_partition(&schema, partition).unwrap();
    catalog.set_drop_hook(Arc::new(Refusing));
    assert!(catalog.drop_partition(&database, "t", partition).is_err());
    assert!(catalog.drop_table(&database, "t").is_err());
    assert_eq!(database.dbms().partitions("t").unwrap(), [partition]);
    assert_eq!(database.dbms().tables().unwrap(), ["t"]);
}

#[test]
fn the_nearest_declaration_holds() {
    let (_home, catalog) = catalog();
    let by = |count| Partitioning::new("insert_timestamp", count, PartitionUnit::Day).unwrap();
    assert_eq!(catalog.partitioning("d", "t"), None);
    catalog.declare_partitioning("*", "*", by(1));
    assert_eq!(catalog.partitioning("d", "t"), Some(by(1)));
    catalog.declare_partitioning("d", "*", by(2));
    catalog.declare_partitioning("d", "t", by(3));
    assert_eq!(catalog.partitioning("d", "t"), Some(by(3)));
    assert_eq!(catalog.partitioning("d", "other"), Some(by(2)));
    assert_eq!(catalog.partitioning("e", "t"), Some(by(1)));
    catalog.declare_partitioning("d", "t", by(4));
    assert_eq!(catalog.partitioning("d", "t"), Some(by(4)));
    assert_eq!(catalog.partitionings().len(), 3);
}
