//! The way of a row: body to JSON texts, table from data, JSON to values, values to SQLite.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use std::hint::black_box;

use anylog_benches::readings;
use anylog_core::Node;
use anylog_dbms::catalog::{Catalog, ConnectRequest};
use anylog_dbms::schema::{RowConverter, TimeWindow, infer};
use anylog_dbms::{SegmentId, SqlValue, Target};
use anylog_ingest::rest::rows_of_body;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const BATCH: usize = 1000;

fn rows(c: &mut Criterion) {
    let texts = readings(BATCH);
    let borrowed: Vec<&str> = texts.iter().map(String::as_str).collect();
    let body = format!("[{}]", texts.join(","));
    let mut group = c.benchmark_group("rows");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("body to rows", |b| b.iter(|| rows_of_body(black_box(body.as_bytes()))));
    group.bench_function("infer a table", |b| b.iter(|| infer("pumps", black_box(&borrowed), &[], true)));

    let schema = infer("pumps", &borrowed, &[], true).expect("a table");
    let converter = RowConverter::new(&schema, jiff::tz::TimeZone::UTC, TimeWindow::default());
    let now = "2026-03-02T00:00:00Z".parse().expect("a time");
    let convert = || -> Vec<Vec<SqlValue>> {
        texts.iter().map(|text| converter.convert(text, now).expect("a row that fits").values).collect()
    };
    group.bench_function("JSON to values", |b| b.iter(|| black_box(convert())));

    let home = tempfile::tempdir().expect("a temporary directory");
    let catalog = Catalog::new(Node::builder().home(home.path()).build());
    let database = catalog.connect(ConnectRequest::sqlite("bench", home.path())).expect("a database");
    database.dbms().create_table(&schema).expect("a table");
    let columns: Vec<String> = schema.columns.iter().skip(1).map(|column| column.name.clone()).collect();
    let values: Vec<Vec<SqlValue>> = convert()
        .into_iter()
        .map(|data| {
            let own =
                [SqlValue::Text("2026-03-02 00:00:00.000000".into()), SqlValue::Text("1".into()), SqlValue::Int(1)];
            own.into_iter().chain(data).collect()
        })
        .collect();
    let target = Target::table("pumps");
    let mut ordinal = 0;
    group.bench_function("values to SQLite, 1000 a transaction", |b| {
        b.iter_batched(
            || {
                ordinal += BATCH as u64;
                ordinal
            },
            |ordinal| database.dbms().apply(&target, &columns, &values, &[(SegmentId(1), ordinal)]).expect("stored"),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, rows);
criterion_main!(benches);
