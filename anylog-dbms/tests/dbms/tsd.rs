//! The registry of source files, on both engines.

use std::sync::Arc;

use anylog_dbms::{ConnectRequest, Database, NewFile, TsdError, TsdFilter, TsdUpdate};
use jiff::Timestamp;

use crate::support::catalog;

fn new_file(table: &str, hash: &str, second: i64) -> NewFile {
    NewFile {
        dbms: "test".into(),
        table: table.into(),
        source: "0".into(),
        hash: hash.into(),
        instructions: "0".into(),
        time: Timestamp::from_microsecond(1_772_600_000_000_001 + second * 1_000_000).unwrap(),
    }
}

pub(crate) fn conforms(database: &Arc<Database>) {
    let store = database.tsd().unwrap();
    assert!(!store.exists());
    assert!(matches!(store.list("tsd_info", &TsdFilter::default()), Err(TsdError::NoTable { .. })));
    store.create().unwrap();
    store.create().unwrap();
    assert!(store.exists());
    let first = store.register(&new_file("a", "h1", 0)).unwrap();
    let second = store.register(&new_file("a", "h2", 1)).unwrap();
    let third = store.register(&new_file("b", "it's", 2)).unwrap();
    assert_eq!((first, second, third), (1, 2, 3));
    let duplicate = store.register(&new_file("c", "h1", 3)).unwrap_err();
    assert_eq!(duplicate, TsdError::Duplicate { table: "tsd_info".into(), hash: "h1".into() });

    let update = TsdUpdate { rows: Some(7), status1: Some("01".into()), ..TsdUpdate::default() };
    assert!(store.update("tsd_info", second, &update).unwrap());
    assert!(!store.update("tsd_info", 99, &update).unwrap());
    let taken = TsdUpdate { hash: Some("h1".into()), ..TsdUpdate::default() };
    assert!(matches!(store.update("tsd_info", second, &taken), Err(TsdError::Duplicate { .. })));

    let found = store.find("h2").unwrap().unwrap();
    assert_eq!((found.file_id, found.rows, found.status1.as_str(), found.status2.as_str()), (second, 7, "01", ""));
    assert_eq!(found.time, new_file("a", "h2", 1).time);
    assert_eq!(store.find("it's").unwrap().unwrap().table, "b");
    assert_eq!(store.find("absent").unwrap(), None);
    assert_eq!(store.get("tsd_info", first).unwrap().unwrap().hash, "h1");

    let ids = |filter: &TsdFilter| -> Vec<i64> {
        store.list("tsd_info", filter).unwrap().iter().map(|file| file.file_id).collect()
    };
    assert_eq!(ids(&TsdFilter::default()), [3, 2, 1]);
    assert_eq!(ids(&TsdFilter { limit: Some(2), ..TsdFilter::default() }), [3, 2]);
    assert_eq!(ids(&TsdFilter { limit: Some(0), ..TsdFilter::default() }), [3, 2, 1]);
    assert_eq!(ids(&TsdFilter { errors: true, ..TsdFilter::default() }), [2]);
    assert_eq!(ids(&TsdFilter { table: Some("a".into()), ..TsdFilter::default() }), [2, 1]);
    let time = Some(new_file("a", "", 1).time);
    assert_eq!(ids(&TsdFilter { start: time, ..TsdFilter::default() }), [3, 2]);
    assert_eq!(ids(&TsdFilter { end: time, ..TsdFilter::default() }), [2, 1]);

    let summary = store.summary("tsd_info", &TsdFilter::default()).unwrap();
    assert_eq!(summary.len(), 2);
    let a = &summary[0];
    assert_eq!((a.table.as_str(), a.from_id, a.to_id, a.files, a.rows, a.status1), ("a", 1, 2, 2, 7, 2));
    assert_eq!(a.start, new_file("a", "", 0).time);

    store.register_peer("209", 41, &new_file("a", "h1", 0)).unwrap();
    store.register_peer("209", 42, &new_file("a", "h2", 0)).unwrap();
    assert!(matches!(store.register_peer("209", 42, &new_file("a", "h3", 0)), Err(TsdError::Duplicate { .. })));
    assert!(matches!(store.register_peer("209", 43, &new_file("a", "h2", 0)), Err(TsdError::Duplicate { .. })));
    assert!(matches!(store.register_peer("x; drop", 43, &new_file("a", "h2", 0)), Err(TsdError::NoTable { .. })));
    store.register_peer("7", 1, &new_file("a", "h1", 0)).unwrap();
    assert_eq!(store.tables().unwrap(), ["tsd_info", "tsd_7", "tsd_209"]);
    assert_eq!(store.get("tsd_209", 41).unwrap().unwrap().hash, "h1");

    assert!(store.delete("tsd_info", third).unwrap());
    assert!(!store.delete("tsd_info", third).unwrap());
    // A number is never given twice.
    assert!(store.register(&new_file("b", "h4", 4)).unwrap() > third);
    store.drop_table("tsd_7").unwrap();
    assert_eq!(store.tables().unwrap(), ["tsd_info", "tsd_209"]);
}

#[test]
fn sqlite_keeps_the_registry() {
    let (home, catalog) = catalog();
    let database = catalog.connect(ConnectRequest::sqlite("almgm", home.path())).unwrap();
    assert!(catalog.tsd().is_none());
    conforms(&database);
    assert!(catalog.tsd().is_some());
}
