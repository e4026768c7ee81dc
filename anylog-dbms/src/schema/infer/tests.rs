use super::*;
use crate::schema::create_text;

fn kinds(rows: &[&str]) -> Vec<(String, ColumnType)> {
    let schema = infer("t", rows, &[], false).unwrap();
    schema.data_columns().iter().map(|column| (column.name.clone(), column.kind)).collect()
}

fn kind(json: &str) -> ColumnType {
    kinds(&[&format!("{{\"c\":{json}}}")])[0].1
}

#[test]
fn types_are_wide() {
    use ColumnType::{BigInt, Boolean, Double, Timestamp, Varchar};
    for (json, expected) in [
        ("1", BigInt),
        ("-99999999999", BigInt),
        ("9223372036854775808", Varchar),
        ("1.5", Double),
        ("1e3", Double),
        ("1e999", Varchar),
        ("true", Boolean),
        ("null", Varchar),
        ("\"\"", Varchar),
        ("\"12\"", Varchar),
        ("\"1.5\"", Varchar),
        ("\"true\"", Varchar),
        ("\"2024-08-20\"", Varchar),
        ("\"10:00:00\"", Varchar),
        ("\"123e4567-e89b-12d3-a456-426614174000\"", Varchar),
        ("\"2024-08-20 10:00:00\"", Timestamp),
        ("\"2024-08-20T10:00:00.123456Z\"", Timestamp),
        ("\"08/20/2024 10:00:00 AM +0000\"", Timestamp),
        ("{\"a\":1}", Varchar),
        ("[1]", Varchar),
    ] {
        assert_eq!(kind(json), expected, "{json}");
    }
}

#[test]
fn rows_that_differ_find_a_type_for_both() {
    use ColumnType::{BigInt, Double, Timestamp, Varchar};
    for (one, two, expected) in [
        ("1", "2.5", Double),
        ("2.5", "1", Double),
        ("null", "1", BigInt),
        ("1", "null", BigInt),
        ("1", "true", Varchar),
        ("1", "\"x\"", Varchar),
        ("\"2024-08-20 10:00:00\"", "\"x\"", Varchar),
        ("\"2024-08-20 10:00:00\"", "null", Timestamp),
    ] {
        let rows = [format!("{{\"c\":{one}}}"), format!("{{\"c\":{two}}}")];
        assert_eq!(kinds(&[&rows[0], &rows[1]])[0].1, expected, "{one} {two}");
    }
}

#[test]
fn epochs_are_times_in_columns_named_for_it() {
    use ColumnType::{BigInt, Timestamp, Varchar};
    for (row, expected) in [
        (r#"{"timestamp":1700000000000}"#, Timestamp),
        (r#"{"ts":1700000000}"#, Timestamp),
        (r#"{"timestamp":12}"#, BigInt),
        (r#"{"uptime":1700000000}"#, BigInt),
        (r#"{"value":1700000000000}"#, BigInt),
        (r#"{"event_time":"1700000000"}"#, Timestamp),
        (r#"{"value":"1700000000"}"#, Varchar),
    ] {
        assert_eq!(kinds(&[row])[0].1, expected, "{row}");
    }
}

#[test]
fn columns_come_in_order_of_appearance_and_declared_ones_first() {
    let rows = [r#"{"b":1,"Row_ID":7,"Pump Speed":2}"#, "no json", r#"{"a":1,"pump-speed":2.5,"":1}"#];
    let names: Vec<String> = kinds(&rows).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["b", "pump_speed", "a"]);
    let declared =
        [("ts".to_owned(), "timestamp".to_owned()), ("a".to_owned(), "decimal not null default 3".to_owned())];
    let schema = infer("t", &rows, &declared, true).unwrap();
    let names: Vec<&str> = schema.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["row_id", "insert_timestamp", "tsd_name", "tsd_id", "ts", "a", "b", "pump_speed"]);
    assert_eq!(schema.column("a").unwrap().kind, ColumnType::Decimal);
    assert_eq!(schema.column("a").unwrap().default.as_deref(), Some("3"));
    assert_eq!(schema.column("ts").unwrap().default.as_deref(), Some("now()"));
    let suffixes: Vec<&str> = schema.indexes.iter().map(|index| index.suffix.as_str()).collect();
    assert_eq!(suffixes, ["ts_index", "tsd_index", "insert_timestamp_index"]);
}

#[test]
fn the_text_is_the_documented_one() {
    let row = r#"{"timestamp":"2024-08-20 10:00:00","value":2.5,"my_sensor_id":"s1","order":1}"#;
    let schema = infer("rand_data", &[row], &[], true).unwrap();
    assert_eq!(
        create_text(&schema),
        "CREATE TABLE IF NOT EXISTS rand_data(  row_id SERIAL PRIMARY KEY,  insert_timestamp TIMESTAMP NOT NULL DEFAULT NOW(),  \
         tsd_name CHAR(3),  tsd_id INT,  timestamp TIMESTAMP NOT NULL DEFAULT NOW(),  value DOUBLE PRECISION,  \
         my_sensor_id VARCHAR,  |order| BIGINT ); CREATE INDEX rand_data_my_sensor_id_index ON rand_data(my_sensor_id); \
         CREATE INDEX rand_data_timestamp_index ON rand_data(timestamp); \
         CREATE INDEX rand_data_tsd_index ON rand_data(tsd_name, tsd_id); \
         CREATE INDEX rand_data_insert_timestamp_index ON rand_data(insert_timestamp);"
    );
}

#[test]
fn what_cannot_be_a_table_is_an_error() {
    assert!(infer("t", &["[]", "x"], &[], false).unwrap_err().to_string().contains("JSON object"));
    let declared = [("a".to_owned(), "geometry".to_owned())];
    assert!(infer("t", &[], &declared, false).unwrap_err().to_string().contains("'geometry'"));
    let wide: String = (0..2000).map(|n| format!("\"c{n}\":1,")).collect();
    assert!(infer("t", &[&format!("{{{wide}\"x\":1}}")], &[], false).unwrap_err().to_string().contains("2005 columns"));
}
