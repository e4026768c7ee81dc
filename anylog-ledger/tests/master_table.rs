//! The master's table, the same on both databases.

// A test fails by panicking.
#![allow(clippy::unwrap_used)]

// The server of the database crate's tests serves here too.
#[allow(dead_code, missing_docs)]
#[path = "../../anylog-dbms/tests/dbms/server.rs"]
mod server;

use std::sync::Arc;

use anylog_core::Node;
use anylog_dbms::{Catalog, ConnectRequest};
use anylog_ledger::Policy;
use anylog_ledger::store::master::MasterTable;
use serde_json::json;

fn site(id: &str, name: &str, date: &str) -> Policy {
    Policy::from_value(json!({"site": {"id": id, "name": name, "company": "it's", "date": date}})).unwrap()
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
    assert!(table.insert_if(&site("b", "x'y\\z 東京", "2026-02-01T00:00:00.000001Z"), "10.0.0.1", empty).unwrap());
    assert!(!table.insert_if(&site("c", "c", "2026-02-01T00:00:00Z"), "10.0.0.1", empty).unwrap());
    assert!(
        table.insert_if(&site("a", "a", "2026-01-01T00:00:00.000000Z"), "10.0.0.2", table.mark().unwrap()).unwrap()
    );
    assert!(table.insert_if(&site("z", "z", "no date at all"), "10.0.0.2", table.mark().unwrap()).unwrap());
    assert_eq!(ids(&table), ["a", "b", "z"], "ordered by date");
    let stored = table.policies().unwrap();
    assert_eq!(stored[1].text("name"), Some("x'y\\z 東京"));
    assert_eq!(stored[1].text("ledger"), Some("global"));
    // An id is unique whatever happens.
    assert!(table.insert_if(&site("a", "again", "2026-03-01T00:00:00Z"), "h", table.mark().unwrap()).is_err());

    let mark = table.mark().unwrap();
    assert!(table.replace_if(&site("b", "new", "2026-04-01T00:00:00Z"), "h", mark).unwrap());
    assert_ne!(table.mark().unwrap(), mark, "a replacement is seen by who compares marks");
    assert!(!table.replace_if(&site("b", "newer", "2026-04-01T00:00:00Z"), "h", mark).unwrap());
    assert_eq!(table.policies().unwrap()[1].text("name"), Some("new"));
    assert!(table.insert_if(&site("d", "d", "2026-05-01T00:00:00Z"), "h", table.mark().unwrap()).unwrap());

    assert!(table.delete("a", "2026-06-01T00:00:00Z").unwrap());
    assert!(!table.delete("a", "2026-06-01T00:00:00Z").unwrap());
    let gone: Vec<String> = table.deletions().unwrap().into_iter().map(|note| note.id).collect();
    assert_eq!(gone, ["a"]);
    assert!(table.insert_if(&site("a", "back", "2026-07-01T00:00:00Z"), "h", table.mark().unwrap()).unwrap());
    assert!(table.deletions().unwrap().is_empty());

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
