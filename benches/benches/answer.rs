//! What a statement costs beside its rows: reading and checking its text, dividing it over places, putting groups together, writing.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use anylog_core::{Node, time};
use anylog_dbms::{
    Catalog, Column, ColumnType, ConnectRequest, PartitionUnit, Partitioning, SqlValue, TableSchema, Target,
};
use anylog_ledger::Ledger;
use anylog_net::peers::LocalPeers;
use anylog_query::{Cell, Format, Nodes, QueryService, Request, Writer};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use jiff::{Timestamp, ToSpan};

const DAYS: i64 = 10;
const MINUTES: i64 = 1440;

/// A service over `few`, a table of one row, and `minutes`, ten partitions with a row for each minute of a day.
fn service(home: &std::path::Path) -> Arc<QueryService> {
    let node = Node::builder().home(home).build();
    let catalog = Catalog::new(Arc::clone(&node));
    let database = catalog.connect(ConnectRequest::sqlite("bench", home)).expect("a database");
    let dbms = database.dbms();
    let kinds = [("timestamp", ColumnType::Timestamp), ("device", ColumnType::Varchar), ("value", ColumnType::Double)];
    let column = |(name, kind): (&str, ColumnType)| Column { name: name.into(), kind, not_null: false, default: None };
    let schema =
        |name: &str| TableSchema { name: name.into(), columns: kinds.map(column).to_vec(), indexes: Vec::new() };
    let columns = kinds.map(|(name, _)| name.to_owned());
    let start: Timestamp = "2026-03-01T00:00:00Z".parse().expect("a time");
    let row = |minute: i64| {
        let at = start.checked_add(minute.minutes()).expect("in range");
        let device = SqlValue::Text(format!("pump-{}", minute % 100));
        vec![SqlValue::Text(time::stored(at)), device, SqlValue::Float(minute as f64 / 8.0)]
    };
    for name in ["few", "minutes"] {
        dbms.create_table(&schema(name)).expect("a table");
    }
    dbms.apply(&Target::table("few"), &columns, &[row(0)], &[]).expect("stored");
    let partitioning = Partitioning::new("timestamp", 1, PartitionUnit::Day).expect("days");
    for day in 0..DAYS {
        let rows: Vec<Vec<SqlValue>> = (day * MINUTES..(day + 1) * MINUTES).map(row).collect();
        let from = start.checked_add((24 * day).hours()).expect("in range");
        let target = Target::partition("minutes", partitioning.name("minutes", from));
        dbms.create_partition(&schema("minutes"), target.physical()).expect("a partition");
        dbms.apply(&target, &columns, &rows, &[]).expect("stored");
    }
    let peers = LocalPeers::new();
    let ledger = Ledger::new(Arc::clone(&node), Arc::clone(&catalog), Arc::clone(&peers) as _);
    QueryService::new(node, catalog, ledger, peers)
}

async fn ask(service: &Arc<QueryService>, sql: &str) -> usize {
    let mut answer = service.select(Request::new("bench", sql)).await.expect("an answer");
    let mut rows = 0;
    while let Some(more) = answer.next().await {
        rows += more.expect("rows").len();
    }
    rows
}

fn answers(c: &mut Criterion) {
    let home = tempfile::tempdir().expect("a temporary directory");
    let service = service(home.path());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut group = c.benchmark_group("answer");
    for (name, sql) in [
        ("one row of one place", "select device, value from few"),
        ("an aggregate of one place", "select count(*), avg(value) from few where device like 'pump%'"),
        ("first and last time of 10 places", "select min(timestamp), max(timestamp) from minutes"),
        ("100 groups of 14,400 rows in 10 places", "select device, count(*), avg(value) from minutes group by device"),
        (
            "14,400 groups of as many rows in 10 places",
            "select increments(minute, 1, timestamp), max(timestamp), avg(value) from minutes",
        ),
        ("14,400 rows in order out of 10 places", "select device, value from minutes order by value desc"),
        (
            "a period in 1 of 10 places",
            "select count(*), avg(value) from minutes where period(hour, 1, now(), timestamp)",
        ),
    ] {
        group.bench_function(name, |b| b.iter(|| runtime.block_on(ask(&service, black_box(sql)))));
    }
    group.finish();
}

fn texts(c: &mut Criterion) {
    const ROWS: usize = 1000;
    let rows: Vec<Vec<Cell>> = (0..ROWS)
        .map(|n| {
            let text = |text: String| Cell::Text(text);
            vec![text(format!("2026-03-01 00:00:00.{n:06}")), text(format!("pump-{n}")), Cell::Float(n as f64 / 8.0)]
        })
        .collect();
    let mut group = c.benchmark_group("rows to text");
    group.throughput(Throughput::Elements(ROWS as u64));
    for (name, format) in [("json", Format::Json), ("json:list", Format::JsonList), ("table", Format::Table)] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let names = ["timestamp", "device", "value"].map(str::to_owned).to_vec();
                let mut writer = Writer::new(format, true, false, names);
                writer.rows(black_box(rows.clone())) + &writer.finish(Duration::ZERO, Nodes::all(1))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, answers, texts);
criterion_main!(benches);
