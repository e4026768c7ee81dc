//! The master's table, the same on both databases.

// A test fails by panicking.
#![allow(clippy::unwrap_used)]

// The server of the database crate's tests serves here too.
#[allow(dead_code, missing_docs, unexpected_cfgs)]
#[path = "../../anylog-dbms/tests/dbms/server.rs"]
mod server;

use std::sync::Arc;

use anylog_core::Node;
use anylog_dbms::{Catalog, ConnectRequest};
use anylog_ledger::Policy;
use anylog_ledger::store::master::{MasterTable, Row};
use serde_json::json;

fn site(id: &str, name: &str, date: &str) -> Policy {
    Policy::from_value(json!({"site": {"id": id, "name": name, "company": "it's", "date": date}})).unwrap()
}

fn row(policy: Policy, host: &str) -> Row {
    Row { policy: Arc::new(policy), host: host.to_owned() }
}

fn insert(table: &MasterTable, policy: Policy, host: &str) -> bool {
    table.insert_if(&[row(policy, host)], table.mark().unwrap()).unwrap()
}

fn ids(table: &MasterTable) -> Vec<String> {
    table.policies().unwrap().iter().map(|policy| policy.id().to_owned()).collect()
}

fn conforms(request: ConnectRequest) {
    let catalog = Catalog::new(Node::builder().build());
    let database = catalog.connect(request).unwrap();
    let table = MasterTable::new(Arc::clone(database.dbms()));
    assert!(!table.exists().unwrap());
    table.create().unwrap();
    table.create().unwrap();
    assert!(table.exists().unwrap());

    // A write succeeds only when nothing was written since the mark.
    let empty = table.mark().unwrap();
    let first = site("b", "x'y\\z 東京", "2026-02-01T00:00:00.000001Z");
    assert!(table.insert_if(&[row(first, "10.0.0.1")], empty).unwrap());
    assert!(table.mark().unwrap().is_after(empty, 1));
    assert!(!table.insert_if(&[row(site("c", "c", "2026-02-01T00:00:00Z"), "10.0.0.1")], empty).unwrap());
    assert!(insert(&table, site("a", "a", "2026-01-01T00:00:00.000000Z"), "10.0.0.2"));
    assert!(insert(&table, site("z", "z", "no date at all"), "10.0.0.2"));
    assert_eq!(ids(&table), ["a", "b", "z"], "ordered by date");
    let stored = table.policies().unwrap();
    assert_eq!(stored[1].text("name"), Some("x'y\\z 東京"));
    assert_eq!(stored[1].text("ledger"), Some("global"));
    // An id is unique whatever happens.
    let again =
        [row(site("y", "y", "2026-03-01T00:00:00Z"), "h"), row(site("a", "again", "2026-03-01T00:00:00Z"), "h")];
    let mark = table.mark().unwrap();
    assert!(table.insert_if(&again, mark).is_err());
    assert_eq!(table.mark().unwrap(), mark, "what fails leaves nothing behind");

    let new = |name: &str| row(site("b", name, "2026-04-01T00:00:00Z"), "h");
    assert!(table.replace_if(&new("new"), mark).unwrap());
    assert_ne!(table.mark().unwrap(), mark, "a replacement is seen by who compares marks");
    assert!(!table.replace_if(&new("newer"), mark).unwrap());
    assert_eq!(table.policies().unwrap()[1].text("name"), Some("new"));
    assert!(insert(&table, site("d", "d", "2026-05-01T00:00:00Z"), "h"));

    let delete = |ids: &[&str]| {
        let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
        table.delete_if(&ids, "2026-06-01T00:00:00Z", table.mark().unwrap()).unwrap()
    };
    assert!(!delete(&["d", "nobody"]), "all or none");
    assert!(ids(&table).contains(&"d".to_owned()));
    assert!(delete(&["a"]));
    assert!(!delete(&["a"]));
    let gone: Vec<String> = table.deletions().unwrap().into_iter().map(|note| note.id).collect();
    assert_eq!(gone, ["a"]);
    assert!(insert(&table, site("a", "back", "2026-07-01T00:00:00Z"), "h"));
    assert!(table.deletions().unwrap().is_empty());

    // Several nodes that write at once to what they saw: one of them does.
    let mark = table.mark().unwrap();
    let won = std::thread::scope(|scope| {
        let writes: Vec<_> = (0..6)
            .map(|number| {
                let row = row(site(&format!("w{number}"), "w", "2026-08-01T00:00:00Z"), "w");
                let table = &table;
                scope.spawn(move || table.insert_if(&[row], mark).unwrap())
            })
            .collect();
        writes.into_iter().map(|write| usize::from(write.join().unwrap())).sum::<usize>()
    });
    assert_eq!((won, table.ids_of_host("w").unwrap().len()), (1, 1));
    assert!(delete(&[table.ids_of_host("w").unwrap()[0].as_str()]));

    assert_eq!(table.ids_of_host("10.0.0.2").unwrap(), ["z"]);
    let statements = table.inserts().unwrap();
    assert_eq!(statements.len(), 4);
    assert!(statements.iter().all(|statement| statement.contains("'it''s'")));
    table.drop().unwrap();
    assert!(!table.exists().unwrap());
}

#[test]
fn the_table_in_sqlite() {
    conforms(ConnectRequest::sqlite_memory("blockchain"));
    let directory = tempfile::tempdir().unwrap();
    conforms(ConnectRequest::sqlite("blockchain", directory.path()));
}

#[test]
fn the_table_in_postgresql() {
    let server = server::Server::shared();
    conforms(server.request("blockchain"));
}
