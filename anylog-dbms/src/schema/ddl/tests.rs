use proptest::prelude::*;

use super::*;
use crate::schema::{BOOKKEEPING_COLUMNS, Index};

// A text that an existing node published.
const OF_A_NODE: &str = "CREATE TABLE IF NOT EXISTS t2(  row_id SERIAL PRIMARY KEY,  insert_timestamp TIMESTAMP NOT NULL DEFAULT \
    NOW(),  tsd_name CHAR(3),  tsd_id INT,  timestamp timestamp not null default now(),  value decimal,  device char(2),  count int,  \
    ok boolean ); CREATE INDEX t2_timestamp_index ON t2(timestamp); CREATE INDEX t2_tsd_index ON t2(tsd_name, tsd_id); \
    CREATE INDEX t2_insert_timestamp_index ON t2(insert_timestamp);";

#[test]
fn texts_of_existing_nodes_are_read() {
    let schema = parse_create(OF_A_NODE).unwrap();
    assert_eq!(schema.name, "t2");
    let shown: Vec<String> =
        schema.data_columns().iter().map(|column| format!("{} {}", column.name, column.kind.portable())).collect();
    assert_eq!(shown, ["timestamp TIMESTAMP", "value DECIMAL", "device CHAR(2)", "count INT", "ok BOOLEAN"]);
    let timestamp = schema.column("timestamp").unwrap();
    assert!(timestamp.not_null);
    assert_eq!(timestamp.default.as_deref(), Some("now()"));
    let suffixes: Vec<&str> = schema.indexes.iter().map(|index| index.suffix.as_str()).collect();
    assert_eq!(suffixes, ["timestamp_index", "tsd_index", "insert_timestamp_index"]);
    assert_eq!(schema.indexes[1].columns, ["tsd_name", "tsd_id"]);
}

#[test]
fn other_spellings_are_read() {
    let text = "create unlogged table \"My Table\" (ts timestamp without time zone default current_timestamp, \
        d date not null default (date('now')), n numeric(10, 2) default -1.5, s character varying(20) default 'a,b)'::character varying, \
        |order| double precision null, x integer unique, primary key (row_id), row_id integer primary key autoincrement, \
        `y` text collate nocase default null)";
    let schema = parse_create(text).unwrap();
    assert_eq!(schema.name, "My Table");
    let shown: Vec<(String, Option<&str>)> = schema
        .data_columns()
        .iter()
        .map(|column| (format!("{} {}", column.name, column.kind.portable()), column.default.as_deref()))
        .collect();
    let expected = [
        ("ts TIMESTAMP", Some("now()")),
        ("d DATE", Some("now()")),
        ("n DECIMAL", Some("-1.5")),
        ("s VARCHAR", Some("'a,b)'")),
        ("order DOUBLE PRECISION", None),
        ("x INT", None),
        ("y VARCHAR", None),
    ];
    assert_eq!(shown, expected.map(|(text, default)| (text.to_owned(), default)));
    assert_eq!(schema.columns.len(), BOOKKEEPING_COLUMNS + 7);
    assert_eq!(schema.columns[0].kind, ColumnType::Serial);
}

#[test]
fn other_texts_are_errors_that_say_why() {
    for (text, why) in [
        ("", "CREATE TABLE"),
        ("drop table t", "CREATE TABLE"),
        ("create table t(a int); drop table t", "CREATE TABLE"),
        ("create index i on t(a)", "before the table"),
        ("create table t", "parentheses"),
        ("create table t(a int", "parentheses"),
        ("create table t(a)", "'a'"),
        ("create table t(a geometry)", "'geometry'"),
        ("create table t(a int, a int)", "twice"),
        ("create table t(a int default (select 1))", "default"),
        ("create table t(a varchar default 'x)", "unclosed"),
        ("create table t(a int); create index t_b on t(b)", "'b'"),
        ("create table t(a int); create index u_a on u(a)", "'u'"),
    ] {
        let error = parse_create(text).expect_err(text).to_string();
        assert!(error.contains(why), "{text}: {error}");
    }
}

#[test]
fn long_names_of_indexes_stay_different() {
    let table = "t".repeat(60);
    let (one, two) = (bounded(&format!("{table}_alpha_index")), bounded(&format!("{table}_beta_index")));
    assert_ne!(one, two);
    assert!(one.len() <= MAX_NAME && two.len() <= MAX_NAME);
    assert!(bounded(&"ü".repeat(60)).len() <= MAX_NAME);
    assert_eq!(bounded("short"), "short");
}

fn any_name() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[a-z_][a-z0-9_]{0,12}",
        1 => proptest::sample::select(RESERVED).prop_map(str::to_owned),
        1 => "[a-zäöü中 %|\"'0-9]{1,8}",
    ]
}

fn any_column() -> impl Strategy<Value = Column> {
    let kind = prop_oneof![
        Just(ColumnType::Int),
        Just(ColumnType::BigInt),
        Just(ColumnType::Decimal),
        Just(ColumnType::Double),
        Just(ColumnType::Boolean),
        Just(ColumnType::Timestamp),
        Just(ColumnType::Date),
        Just(ColumnType::Time),
        Just(ColumnType::Uuid),
        Just(ColumnType::Varchar),
        (1u32..300).prop_map(ColumnType::Char),
        Just(ColumnType::Cidr),
    ];
    (any_name(), kind, any::<bool>(), proptest::option::of("[a-z';|,()\"]{0,8}"), any::<i32>()).prop_map(
        |(name, kind, not_null, text, number)| {
            let default = text.map(|text| match kind {
                ColumnType::Timestamp | ColumnType::Date | ColumnType::Time => "now()".to_owned(),
                ColumnType::Int | ColumnType::BigInt | ColumnType::Decimal | ColumnType::Double => number.to_string(),
                ColumnType::Boolean => (number > 0).to_string(),
                _ => format!("'{}'", text.replace('\'', "''")),
            });
            Column { name, kind, not_null, default }
        },
    )
}

proptest! {
    #[test]
    fn texts_read_back(name in any_name(), data in proptest::collection::vec(any_column(), 0..8)) {
        let mut schema = TableSchema { name, columns: bookkeeping(), indexes: Vec::new() };
        for column in data {
            if schema.column(&column.name).is_none() {
                schema.indexes.push(Index { suffix: format!("{}_index", column.name), columns: vec![column.name.clone(), "tsd_id".into()] });
                schema.columns.push(column);
            }
        }
        let text = create_text(&schema);
        prop_assert_eq!(parse_create(&text).map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?, schema);
    }

    #[test]
    fn never_panics(text in "\\PC{0,80}", close in "(create|table|index|on|t|a|int|default|not|null|\\(|\\)|,|;|'|\"|[|]| ){0,30}") {
        drop((parse_create(&text), parse_create(&close), parse_create(&format!("create table t({close})"))));
    }
}
