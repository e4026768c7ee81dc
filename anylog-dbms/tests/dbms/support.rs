//! What several tests use.

use std::ops::ControlFlow;
use std::sync::Arc;

use anylog_core::Node;
use anylog_dbms::schema::{RowConverter, TimeWindow, infer};
use anylog_dbms::{Catalog, Dbms, SqlValue, TableSchema, Target};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A catalog of a node at home in a temporary directory.
pub(crate) fn catalog() -> (tempfile::TempDir, Arc<Catalog>) {
    let home = tempfile::tempdir().unwrap();
    let node = Node::builder().home(home.path()).build();
    (home, Catalog::new(node))
}

/// All rows of a query.
pub(crate) fn rows(dbms: &dyn Dbms, target: Option<&Target>, sql: &str) -> Vec<Vec<SqlValue>> {
    let mut rows = Vec::new();
    dbms.query(target, sql, &mut |_, row| {
        rows.push(row);
        ControlFlow::Continue(())
    })
    .unwrap_or_else(|error| panic!("{sql}: {error}"));
    rows
}

/// The value of a query for one.
pub(crate) fn value(dbms: &dyn Dbms, target: Option<&Target>, sql: &str) -> SqlValue {
    rows(dbms, target, sql).remove(0).remove(0)
}

pub(crate) fn now() -> Timestamp {
    "2026-03-04T05:06:07.123456Z".parse().unwrap()
}

/// A table from JSON rows.
pub(crate) fn table(name: &str, json: &[&str]) -> TableSchema {
    infer(name, json, &[], true).unwrap()
}

/// The columns that an insert names, and the rows converted, with bookkeeping.
pub(crate) fn batch(schema: &TableSchema, json: &[&str]) -> (Vec<String>, Vec<Vec<SqlValue>>) {
    let columns = schema.columns.iter().skip(1).map(|column| column.name.clone()).collect();
    let converter = RowConverter::new(schema, TimeZone::UTC, TimeWindow::default());
    let rows = json
        .iter()
        .map(|json| {
            let mut row = vec![text("2026-03-04 05:06:07.123456"), text("17"), SqlValue::Int(3)];
            row.extend(converter.convert(json, now()).unwrap().values);
            row
        })
        .collect();
    (columns, rows)
}

pub(crate) fn text(text: &str) -> SqlValue {
    SqlValue::Text(text.to_owned())
}
