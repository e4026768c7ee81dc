//! Both engines give the same back for what was sent, and read the same tables out of the same rows.

use std::sync::Arc;

use anylog_dbms::schema::{RowConverter, TimeWindow, epoch, infer, parse_time};
use anylog_dbms::{ColumnType, Database, Dbms, SqlValue, TableSchema, Target};
use jiff::tz::TimeZone;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::conformance::every_type;
use crate::server::Server;
use crate::support::{catalog, now, rows};

/// The columns of the rows: integers, fractions, both in turn, texts, flags, times, nested values, anything.
const NAMES: [&str; 8] = ["whole", "real", "mixed", "word", "on", "timestamp", "nested", "größe.x"];

fn integers() -> impl Strategy<Value = i64> {
    prop_oneof![any::<i64>(), -5_i64..5, Just(i64::MAX), Just(i64::MIN), Just(9_007_199_254_740_993)]
}

fn floats() -> impl Strategy<Value = f64> {
    let finite = any::<f64>().prop_filter("JSON has no other", |value| value.is_finite());
    prop_oneof![finite, Just(0.1), Just(-0.5), Just(f64::MAX), Just(f64::MIN_POSITIVE), Just(0.123_456_789_012_345_68)]
}

fn texts() -> impl Strategy<Value = String> {
    let any_text = any::<String>().prop_map(|text| text.replace('\0', ""));
    prop_oneof![
        any_text,
        ".{0,20}",
        Just(String::new()),
        Just("it's \"quoted\" \\ | \t\n\r ; -- \\N \\. 中😀 \u{301}\u{200b}".to_owned()),
        Just("{\"a\": [1, null]}".to_owned()),
    ]
}

/// A time within the window, with microseconds, as a device writes it.
fn times() -> impl Strategy<Value = String> {
    (0_i64..1_772_000_000_000_000, 0..3).prop_map(|(micros, form)| {
        let time = jiff::Timestamp::from_microsecond(micros).unwrap();
        match form {
            0 => time.to_string(),
            1 => anylog_core::time::stored(time),
            _ => micros.to_string(),
        }
    })
}

fn nested() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        integers().prop_map(Value::from),
        texts().prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec(("[a-z]{1,5}", inner), 0..3)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect()))
        ]
    })
}

/// A row: each attribute is there, null, or missing.
fn row() -> impl Strategy<Value = Value> {
    let mixed = prop_oneof![integers().prop_map(Value::from), floats().prop_map(Value::from)];
    let values = (
        integers().prop_map(Value::from),
        floats().prop_map(Value::from),
        mixed,
        texts().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        times().prop_map(Value::from),
        nested(),
        texts().prop_map(Value::from),
    );
    (values, proptest::collection::vec(0..8, NAMES.len())).prop_map(|(values, presence)| {
        let (a, b, c, d, e, f, g, h) = values;
        let pairs = NAMES.into_iter().zip([a, b, c, d, e, f, g, h]).zip(presence);
        let object = pairs.filter_map(|((name, value), presence)| match presence {
            0 => None,
            1 => Some((name.to_owned(), Value::Null)),
            _ => Some((name.to_owned(), value)),
        });
        Value::Object(object.collect())
    })
}

/// Batches as they arrive: the first makes the table, later ones may need wider columns.
fn batches() -> impl Strategy<Value = Vec<Vec<Value>>> {
    proptest::collection::vec(proptest::collection::vec(row(), 1..8), 1..4)
}

/// Stores the batches as the operator does, and returns the table as it is in the end, its rows, and how many were refused.
fn store(database: &Database, batches: &[Vec<Value>]) -> (TableSchema, Vec<Vec<SqlValue>>, usize) {
    let dbms: &dyn Dbms = database.dbms().as_ref();
    let texts = |batch: &[Value]| batch.iter().map(Value::to_string).collect::<Vec<String>>();
    let first = texts(&batches[0]);
    let first: Vec<&str> = first.iter().map(String::as_str).collect();
    let mut schema = infer("equal", &first, &[], true).unwrap();
    dbms.create_table(&schema).unwrap();
    let mut refused = 0;
    for batch in batches {
        let mut values = Vec::new();
        for text in texts(batch) {
            let converter = RowConverter::new(&schema, TimeZone::UTC, TimeWindow::default());
            let Ok(row) = converter.convert(&text, now()) else {
                refused += 1;
                continue;
            };
            for column in &row.widen {
                let name = schema.data_columns()[*column].name.clone();
                dbms.widen_column("equal", &name, ColumnType::Double).unwrap();
                schema.widen(&name, ColumnType::Double).unwrap();
            }
            values.push(row.values);
        }
        let columns: Vec<String> = schema.data_columns().iter().map(|column| column.name.clone()).collect();
        dbms.apply(&Target::table("equal"), &columns, &values, &[]).unwrap();
    }
    let names: Vec<String> = schema.data_columns().iter().map(|column| format!("\"{}\"", column.name)).collect();
    let found = rows(dbms, None, &format!("SELECT {} FROM equal ORDER BY row_id", names.join(", ")));
    let described = dbms.schema("equal").unwrap().unwrap();
    dbms.drop_table("equal").unwrap();
    (described, found, refused)
}

/// A value as its column means it.
fn meant(kind: ColumnType, value: SqlValue) -> SqlValue {
    match (kind, value) {
        (ColumnType::Boolean, SqlValue::Int(value)) => SqlValue::Bool(value != 0),
        (_, value) => value,
    }
}

/// What a sender may expect to read: the very values, times in UTC.
fn expected(kind: ColumnType, sent: &Value) -> Option<SqlValue> {
    Some(match (kind, sent) {
        (ColumnType::Timestamp, Value::String(text)) => {
            let time = parse_time(text, &TimeZone::UTC).or_else(|| epoch(text))?;
            SqlValue::Text(anylog_core::time::stored(time))
        }
        (ColumnType::Timestamp, _) => SqlValue::Text(anylog_core::time::stored(now())),
        (_, Value::Null) => SqlValue::Null,
        (ColumnType::BigInt, value) => SqlValue::Int(value.as_i64()?),
        (ColumnType::Double, value) => SqlValue::Float(value.as_f64()?),
        (ColumnType::Boolean, value) => SqlValue::Bool(value.as_bool()?),
        (ColumnType::Varchar, Value::String(text)) => SqlValue::Text(text.clone()),
        (ColumnType::Varchar, value) => SqlValue::Text(value.to_string()),
        _ => return None,
    })
}

fn engines(server: &Arc<Server>, name: &str) -> (tempfile::TempDir, Arc<Database>, Arc<Database>) {
    let (home, catalog) = catalog();
    let sqlite = catalog.connect(anylog_dbms::ConnectRequest::sqlite("lite", home.path())).unwrap();
    let postgres = catalog.connect(server.request(name)).unwrap();
    (home, sqlite, postgres)
}

#[test]
fn both_engines_give_back_the_values_that_were_sent() {
    let server = Server::shared();
    let (_home, sqlite, postgres) = engines(&server, "equal_sent");
    let config = Config { cases: 96, failure_persistence: None, ..Config::default() };
    let tried = TestRunner::new(config).run(&batches(), |batches| {
        let (lite_schema, lite_rows, lite_refused) = store(&sqlite, &batches);
        let (schema, found, refused) = store(&postgres, &batches);
        prop_assert_eq!(&schema.columns, &lite_schema.columns);
        prop_assert_eq!(refused, lite_refused);
        prop_assert_eq!(found.len(), lite_rows.len());
        for (row, lite_row) in found.iter().zip(&lite_rows) {
            for ((value, lite_value), column) in row.iter().zip(lite_row).zip(schema.data_columns()) {
                let lite_value = meant(column.kind, lite_value.clone());
                prop_assert_eq!(value, &lite_value, "column {}", column.name);
            }
        }
        if refused == 0 && batches.len() == 1 {
            for (row, sent) in found.iter().zip(batches.iter().flatten()) {
                for (value, column) in row.iter().zip(schema.data_columns()) {
                    let name = if column.name == "größe_x" { "größe.x" } else { &column.name };
                    if let Some(expected) = expected(column.kind, &sent[name]) {
                        prop_assert_eq!(value, &expected, "column {}", column.name);
                    }
                }
            }
        }
        Ok(())
    });
    tried.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn both_engines_widen_a_column_in_all_partitions() {
    let server = Server::shared();
    let (_home, sqlite, postgres) = engines(&server, "equal_wide");
    let batches = [vec![json!({"v": 1}), json!({"v": 1_i64 << 52})], vec![json!({"v": 2.5}), json!({"v": 3})]];
    let float = SqlValue::Float;
    for database in [&sqlite, &postgres] {
        let (schema, found, refused) = store(database, &batches);
        assert_eq!(refused, 0);
        assert_eq!(schema.column("v").unwrap().kind, ColumnType::Double);
        assert_eq!(found, [[float(1.0)], [float(4_503_599_627_370_496.0)], [float(2.5)], [float(3.0)]]);
    }
}

/// Rows for the declared types that data alone never gives.
fn declared() -> impl Strategy<Value = Value> {
    let decimals = prop_oneof![
        (any::<i32>(), 0_u32..5)
            .prop_map(|(digits, scale)| format!("{}", f64::from(digits) / 10_f64.powi(scale.try_into().unwrap()))),
        Just("0.00".to_owned()),
        Just("-12.50".to_owned()),
        Just("1e3".to_owned()),
        Just("1.5E-5".to_owned()),
    ];
    let addresses = prop_oneof![
        any::<std::net::Ipv4Addr>().prop_map(|address| address.to_string()),
        (any::<std::net::Ipv4Addr>(), 0..33).prop_map(|(address, bits)| format!("{address}/{bits}")),
        any::<std::net::Ipv6Addr>().prop_map(|address| address.to_string().to_uppercase()),
        (any::<std::net::Ipv6Addr>(), 0..129).prop_map(|(address, bits)| format!("{address}/{bits}")),
    ];
    let days =
        (1_i16..9999, 1_i8..13, 1_i8..29).prop_map(|(year, month, day)| format!("{year:04}-{month:02}-{day:02}"));
    let clocks = (0..24, 0..60, 0..60, 0..1_000_000).prop_map(|(hour, minute, second, micro)| match micro % 3 {
        0 => format!("{hour:02}:{minute:02}:{second:02}"),
        _ => format!("{hour:02}:{minute:02}:{second:02}.{micro:06}"),
    });
    let ids = any::<u128>().prop_map(|id| format!("{id:032X}"));
    (any::<i32>(), decimals, days, clocks, ids, "\\PC{0,8}", addresses).prop_map(|(small, exact, day, clock, id, code, net)| {
        json!({"small": small, "exact": exact, "day": day, "clock": clock, "id": id, "code": code, "net": net})
    })
}

#[test]
fn both_engines_give_back_the_values_of_declared_types() {
    let server = Server::shared();
    let (_home, sqlite, postgres) = engines(&server, "equal_declared");
    let schema = every_type("declared");
    let names: Vec<String> = schema.data_columns().iter().map(|column| column.name.clone()).collect();
    let converter = RowConverter::new(&schema, TimeZone::UTC, TimeWindow::default());
    let config = Config { cases: 48, failure_persistence: None, ..Config::default() };
    let tried = TestRunner::new(config).run(&proptest::collection::vec(declared(), 1..20), |sent| {
        let values: Vec<Vec<SqlValue>> =
            sent.iter().map(|row| converter.convert(&row.to_string(), now()).unwrap().values).collect();
        let read = |database: &Database| {
            let dbms = database.dbms().as_ref();
            dbms.create_table(&schema).unwrap();
            dbms.apply(&Target::table("declared"), &names, &values, &[]).unwrap();
            let found = rows(dbms, None, &format!("SELECT {} FROM declared ORDER BY row_id", names.join(", ")));
            dbms.drop_table("declared").unwrap();
            found
        };
        for (row, lite_row) in read(&postgres).iter().zip(read(&sqlite)) {
            for ((value, lite_value), column) in row.iter().zip(lite_row).zip(schema.data_columns()) {
                let number = |value: &SqlValue| match value {
                    SqlValue::Int(value) => value.to_string().parse::<f64>().ok(),
                    SqlValue::Float(value) => Some(*value),
                    _ => None,
                };
                if column.kind == ColumnType::Decimal {
                    prop_assert_eq!(number(value), number(&lite_value), "{:?} {:?}", value, lite_value);
                } else {
                    prop_assert_eq!(value, &meant(column.kind, lite_value), "column {}", column.name);
                }
            }
        }
        Ok(())
    });
    tried.unwrap_or_else(|error| panic!("{error}"));
}
