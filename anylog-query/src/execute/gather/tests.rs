//! What is grouped here is what the engine groups.

use anylog_core::Node;
use anylog_dbms::{Catalog, Column, ColumnType, ConnectRequest, Database, TableSchema};
use proptest::prelude::*;

use super::*;
use crate::plan::{Divided, divide};
use crate::sql::bind::{Scope, bind};
use crate::sql::{Now, parse};

const COLUMNS: [(&str, ColumnType); 5] = [
    ("ts", ColumnType::Timestamp),
    ("device", ColumnType::Varchar),
    ("value", ColumnType::Double),
    ("number", ColumnType::BigInt),
    ("on_line", ColumnType::Boolean),
];

fn schema() -> TableSchema {
    let column = |(name, kind): (&str, ColumnType)| Column { name: name.into(), kind, not_null: false, default: None };
    TableSchema { name: "t".into(), columns: COLUMNS.map(column).to_vec(), indexes: Vec::new() }
}

fn database(rows: &[Row]) -> Arc<Database> {
    let catalog = Catalog::new(Node::builder().build());
    let database = catalog.connect(ConnectRequest::sqlite_memory("gather")).unwrap();
    let list = "ts timestamp, device varchar, value double precision, number bigint, on_line boolean";
    database.dbms().execute(&format!("create table t ({list})")).unwrap();
    let columns = COLUMNS.map(|(name, _)| name.to_owned());
    database.dbms().apply(&Target::table("t"), &columns, rows, &[]).unwrap();
    database
}

fn part(sql: &str) -> Part {
    let now = Now { instant: "2026-11-23T05:00:00Z".parse().unwrap(), zone: jiff::tz::TimeZone::UTC };
    let schema = schema();
    let select = bind(parse(sql, &now, None).unwrap(), &Scope::new("d", &schema), &now).unwrap();
    match divide(&select, &|name| schema.column(name).map(|column| column.kind)) {
        Divided::Merge(merge) => merge.part,
        other => panic!("{sql}: {other:?}"),
    }
}

/// The partial rows of a statement as they are grouped here, none when that is left to the engine; and as the engine groups them.
fn grouped(database: &Database, sql: &str) -> (Option<Vec<Row>>, Result<Vec<Row>, QueryError>) {
    let (target, part) = (Target::table("t"), part(sql));
    let gather = Gather::of(&part).unwrap_or_else(|| panic!("not grouped here: {sql}"));
    let mut here = Vec::new();
    let done = gather.read(database.dbms(), &target, &|| false, &mut |row| {
        here.push(row);
        ControlFlow::Continue(())
    });
    let mut there = Vec::new();
    let sql = part.sql("t", Tongue::Sqlite);
    let result = crate::execute::read(database.dbms(), &target, &sql, &|| true, &mut |row| {
        there.push(row);
        ControlFlow::Continue(())
    });
    (done.unwrap().then_some(here), result.map(|()| there))
}

/// Rows in an order of their own, floats rounded: sums depend on the order of their addition.
fn comparable(rows: Vec<Row>) -> Vec<String> {
    let text = |value: SqlValue| match value {
        SqlValue::Float(value) if value != 0.0 => format!("{value:.9e}"),
        SqlValue::Float(_) => "Int(0)".to_owned(),
        other => format!("{other:?}"),
    };
    let mut rows: Vec<String> =
        rows.into_iter().map(|row| row.into_iter().map(text).collect::<Vec<_>>().join(", ")).collect();
    rows.sort();
    rows
}

const STATEMENTS: [&str; 12] = [
    "select device, count(*), count(value), sum(value), min(value), max(value), avg(value) from t group by device",
    "select device, on_line, sum(number), avg(number), min(ts), max(ts) from t where value > -500 group by device, on_line",
    "select increments(second, 7, ts), max(ts), min(value), avg(value) from t",
    "select increments(minute, 5, ts), max(ts), count(*) from t",
    "select increments(hour, 1, ts), min(ts), max(ts), avg(value) from t where device is not null",
    "select increments(day, 7, ts), min(device), max(device), sum(number) from t",
    "select increments(month, 1, ts), device, range(value) from t group by device",
    "select increments(year, 1, ts), count(*) from t",
    "select distinct device, number from t",
    "select upper(device), number % 3, count(*), sum(value * 2) from t group by upper(device), number % 3",
    "select extract(hour from ts), date_trunc('week', ts), count(ts) from t group by extract(hour from ts), date_trunc('week', ts)",
    "select value, count(*) from t group by value having count(*) > 1 order by value limit 3",
];

fn row() -> impl Strategy<Value = Row> {
    let int = |range: std::ops::Range<i64>| range.prop_map(SqlValue::Int);
    let ts = (2023u32..2027, 1u32..13, 1u32..29, 0u32..24, 0u32..60, 0u32..60, 0u32..1_000_000).prop_map(
        |(year, month, day, hour, minute, second, micro)| {
            SqlValue::Text(format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{micro:06}"))
        },
    );
    let device = prop_oneof!["[ab]{0,2}", "ü[ä中]?"].prop_map(SqlValue::Text);
    let value =
        prop_oneof![(-1000i32..1000).prop_map(|n| SqlValue::Float(f64::from(n) / 8.0)), Just(SqlValue::Float(-0.0))];
    let or_null = |some: BoxedStrategy<SqlValue>| prop_oneof![6 => some, 1 => Just(SqlValue::Null)];
    (
        or_null(ts.boxed()),
        or_null(device.boxed()),
        or_null(value.boxed()),
        or_null(int(-9..9).boxed()),
        or_null(int(0..2).boxed()),
    )
        .prop_map(|(ts, device, value, number, on_line)| vec![ts, device, value, number, on_line])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    // QRY-1
    #[test]
    fn groups_are_those_of_the_engine(rows in proptest::collection::vec(row(), 0..60)) {
        let database = database(&rows);
        for sql in STATEMENTS {
            let (here, there) = grouped(&database, sql);
            let here = here.unwrap_or_else(|| panic!("left to the engine: {sql}"));
            prop_assert_eq!(comparable(here), comparable(there.unwrap()), "{}", sql);
        }
    }
}

fn with(changed: &[(usize, SqlValue)]) -> Row {
    let text = |text: &str| SqlValue::Text(text.into());
    let mut row =
        vec![text("2026-03-01 10:11:12.500000"), text("a"), SqlValue::Float(1.5), SqlValue::Int(3), SqlValue::Int(1)];
    for (at, value) in changed {
        row[*at] = value.clone();
    }
    row
}

#[test]
fn what_is_not_expected_is_left_to_the_engine() {
    let text = |text: &str| SqlValue::Text(text.into());
    let hours = "select increments(hour, 1, ts), max(value) from t";
    for (row, sql) in [
        (with(&[(0, text("2026-03-01"))]), hours),
        (with(&[(0, text("2026-03-01T10:11:12Z"))]), hours),
        (with(&[(0, text("soon"))]), hours),
        (with(&[(0, SqlValue::Int(5))]), hours),
        (with(&[(2, text("12 bar"))]), "select device, sum(value) from t group by device"),
        (with(&[(2, text("12 bar"))]), "select device, min(value) from t group by device"),
        (with(&[(3, SqlValue::Int(i64::MAX))]), "select device, sum(number) from t group by device"),
    ] {
        let database = database(&[with(&[]), row]);
        let (here, there) = grouped(&database, sql);
        assert_eq!(here, None, "{sql}");
        // A sum that is too large is an error of the engine.
        assert_eq!(there.is_err(), sql.contains("number"), "{sql}");
    }
    // An index may be named by its number there, so such a group is not taken over.
    assert_eq!(Gather::of(&part("select distinct 1 from t")), None);
    assert_eq!(Gather::of(&part("select max(value) from t")), None);
}

#[test]
fn groups_are_bounded() {
    let long = "x".repeat(64 * 1024);
    let rows: Vec<Row> = (0..200).map(|n| with(&[(1, SqlValue::Text(format!("{n}{long}")))])).collect();
    let (here, there) = grouped(&database(&rows), "select device, count(*) from t group by device");
    assert_eq!((here, there.unwrap().len()), (None, 200));
}

#[test]
fn a_reader_that_is_to_stop_stops() {
    let rows: Vec<Row> = (0..3000).map(|_| with(&[])).collect();
    let database = database(&rows);
    let part = part("select device, count(*) from t group by device");
    let mut found = Vec::new();
    let target = Target::table("t");
    let take = &mut |row| {
        found.push(row);
        ControlFlow::Continue(())
    };
    assert!(Gather::of(&part).unwrap().read(database.dbms(), &target, &|| true, take).unwrap());
    assert_ne!(found.first().and_then(|row| row.get(1)), Some(&SqlValue::Int(3000)));
}
