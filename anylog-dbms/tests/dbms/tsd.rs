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
    complete_files(&store);
}

fn complete_files(store: &anylog_dbms::TsdStore) {
    let given = store.given().unwrap();
    assert!(given >= 3);
    let complete = |table: &str| store.complete(table, None).unwrap();
    let before = complete("tsd_info");
    // Files of a peer, in any order; numbers may be left out.
    for (file_id, second) in [(5, 50), (1, 10), (2, 20), (9, 90), (3, 30)] {
        store.register_complete("tsd_88", file_id, &new_file("a", &format!("p{file_id}"), second), 4).unwrap();
    }
    assert_eq!(complete("tsd_88"), [(1, 3), (5, 5), (9, 9)]);
    assert_eq!(store.complete("tsd_88", Some(new_file("a", "", 20).time)).unwrap(), [(2, 3), (5, 5), (9, 9)]);
    assert_eq!(complete("tsd_info"), before);
    // The same once more, and another one under its number or with its hash.
    store.register_complete("tsd_88", 5, &new_file("a", "p5", 50), 4).unwrap();
    for (file_id, hash) in [(5, "other"), (6, "p5")] {
        let error = store.register_complete("tsd_88", file_id, &new_file("a", hash, 50), 4).unwrap_err();
        assert_eq!(error, TsdError::Duplicate { table: "tsd_88".into(), hash: hash.into() });
    }
    assert_eq!(store.get("tsd_88", 5).unwrap().unwrap().hash, "p5");
    // What was taken away, is open or came to nothing is not complete, and gives way.
    let away = TsdUpdate { rows: Some(0), status1: Some(anylog_dbms::tsd::TAKEN_AWAY.into()), ..TsdUpdate::default() };
    assert!(store.update("tsd_88", 2, &away).unwrap());
    assert_eq!(complete("tsd_88"), [(1, 1), (3, 3), (5, 5), (9, 9)]);
    store.register_complete("tsd_88", 2, &new_file("a", "p2 anew", 20), 5).unwrap();
    let again = store.get("tsd_88", 2).unwrap().unwrap();
    assert_eq!((again.hash.as_str(), again.rows, again.status1.as_str()), ("p2 anew", 5, ""));
    assert_eq!(complete("tsd_88"), [(1, 3), (5, 5), (9, 9)]);

    // Own files under their own numbers; counting goes on behind them.
    store.register_complete("tsd_info", given + 10, &new_file("a", "own", 5), 1).unwrap();
    assert_eq!(store.given().unwrap(), given + 10);
    let open = store.register(&new_file("a", "open:1", 6)).unwrap();
    assert_eq!(open, given + 11);
    assert!(!complete("tsd_info").iter().any(|(first, last)| (*first..=*last).contains(&open)));
    store.number_from(given + 1000).unwrap();
    store.number_from(5).unwrap();
    assert_eq!(store.given().unwrap(), given + 1000);
    assert_eq!(store.register(&new_file("a", "behind", 7)).unwrap(), given + 1001);
}

// Numbers begin where they are told to also before the first file.
pub(crate) fn numbers_begin_anywhere(database: &Arc<Database>) {
    let store = database.tsd().unwrap();
    store.create().unwrap();
    assert_eq!(store.given().unwrap(), 0);
    store.number_from(1).unwrap();
    assert_eq!(store.given().unwrap(), 1);
    store.number_from(60_000_000).unwrap();
    assert_eq!(store.register(&new_file("a", "first", 0)).unwrap(), 60_000_001);
    assert_eq!(store.given().unwrap(), 60_000_001);
}

#[test]
fn sqlite_keeps_the_registry() {
    let (home, catalog) = catalog();
    let database = catalog.connect(ConnectRequest::sqlite("almgm", home.path())).unwrap();
    assert!(catalog.tsd().is_none());
    conforms(&database);
    assert!(catalog.tsd().is_some());
    numbers_begin_anywhere(&catalog.connect(ConnectRequest::sqlite("numbers", home.path())).unwrap());
}
