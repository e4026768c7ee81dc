use anylog_dbms::schema::{infer, parse_create};
use anylog_dbms::{Catalog, ConnectRequest, SegmentId, SqlValue};
use proptest::prelude::*;

use super::*;

const COLUMNS: &str = "CREATE TABLE IF NOT EXISTS t(row_id SERIAL PRIMARY KEY, insert_timestamp TIMESTAMP NOT NULL DEFAULT now(), \
    tsd_name CHAR(3), tsd_id INT, n BIGINT, x DOUBLE PRECISION, s VARCHAR, b BOOLEAN, at TIMESTAMP)";

fn schema() -> TableSchema {
    parse_create(COLUMNS).unwrap()
}

fn sum(hasher: &mut RowHasher, rows: &[Vec<SqlValue>]) -> Digest {
    let mut sum = Digest::default();
    for row in rows {
        let values: Vec<SqlRef<'_>> = row.iter().map(SqlValue::as_ref).collect();
        sum.add(hasher.hash(&values));
    }
    sum
}

fn value() -> impl Strategy<Value = SqlValue> {
    prop_oneof![
        Just(SqlValue::Null),
        any::<bool>().prop_map(SqlValue::Bool),
        any::<i64>().prop_map(SqlValue::Int),
        (-1e15f64..1e15).prop_map(SqlValue::Float),
        "[a-z ]{0,12}".prop_map(SqlValue::Text),
    ]
}

/// Rows in the order of the hashed columns: at, b, insert_timestamp, n, s, tsd_id, x.
fn rows() -> impl Strategy<Value = Vec<Vec<SqlValue>>> {
    prop::collection::vec(prop::collection::vec(value(), 7), 1..20)
}

/// Whether both are kept as the same value of a floating point column.
fn same(a: &SqlValue, b: &SqlValue, column: usize) -> bool {
    let plain = |value: &SqlValue| match value {
        SqlValue::Bool(value) => SqlValue::Int(i64::from(*value)),
        #[allow(clippy::cast_precision_loss)]
        SqlValue::Int(value) if column == 6 => SqlValue::Float(*value as f64),
        SqlValue::Float(value) if *value == 0.0 => SqlValue::Float(0.0),
        other => other.clone(),
    };
    let wide = |value: &SqlValue| match plain(value) {
        SqlValue::Int(value) if column == 6 =>
        {
            #[allow(clippy::cast_precision_loss)]
            SqlValue::Float(value as f64)
        }
        other => other,
    };
    wide(a) == wide(b)
}

proptest! {
    // DUR-6, R20: the order of rows and the parts in which they are read do not matter.
    #[test]
    fn order_and_parts_do_not_matter(rows in rows(), cut in any::<prop::sample::Index>(), seed in any::<u64>()) {
        let mut hasher = RowHasher::new(&schema());
        let whole = sum(&mut hasher, &rows);
        let cut = cut.index(rows.len());
        let mut parts = sum(&mut hasher, &rows[cut..]);
        parts.add(sum(&mut hasher, &rows[..cut]));
        prop_assert_eq!(whole, parts);
        let mut shuffled = rows.clone();
        shuffled.sort_by_key(|row| blake3::hash(format!("{seed}{row:?}").as_bytes()).to_hex().to_string());
        prop_assert_eq!(whole, sum(&mut hasher, &shuffled));
    }

    // R20: any changed value, a row too few and a row too many give another digest.
    #[test]
    fn every_difference_shows(
        rows in rows(),
        at in any::<prop::sample::Index>(),
        column in 0usize..7,
        other in value(),
    ) {
        let mut hasher = RowHasher::new(&schema());
        let whole = sum(&mut hasher, &rows);
        let at = at.index(rows.len());
        if !same(&rows[at][column], &other, column) {
            let mut changed = rows.clone();
            changed[at][column] = other;
            prop_assert_ne!(whole, sum(&mut hasher, &changed));
        }
        let mut doubled = rows.clone();
        doubled.push(rows[at].clone());
        let twice = sum(&mut hasher, &doubled);
        prop_assert_ne!(whole, twice);
        prop_assert_ne!(whole.sum, twice.sum);
        doubled.push(rows[at].clone());
        prop_assert_ne!(whole.sum, sum(&mut hasher, &doubled).sum);
        let mut fewer = rows.clone();
        fewer.remove(at);
        prop_assert_ne!(whole, sum(&mut hasher, &fewer));
    }
}

#[test]
fn a_digest_reads_as_it_is_written() {
    let digest = Digest { rows: 3, sum: 0xfe };
    assert_eq!(Digest::parse(3, &digest.to_string()), Some(digest));
    assert_eq!(Digest::parse(3, "no digits"), None);
}

/// A row of file 5 of member 7, as the operator stores it.
fn stored(n: i64) -> Vec<SqlValue> {
    let time = SqlValue::Text("2026-11-23 05:22:00.000001".into());
    vec![time.clone(), SqlValue::Text("7".into()), SqlValue::Int(5), SqlValue::Int(n), SqlValue::Float(0.5), time]
}

#[test]
fn files_of_a_table_are_told_apart() {
    let home = tempfile::tempdir().unwrap();
    let catalog = Catalog::new(anylog_core::Node::builder().home(home.path()).build());
    let database = catalog.connect(ConnectRequest::sqlite("d", home.path())).unwrap();
    let (dbms, schema) = (database.dbms(), schema());
    dbms.create_table(&schema).unwrap();
    let target = Target::table("t");
    let columns = ["insert_timestamp", "tsd_name", "tsd_id", "n", "x", "at"].map(str::to_owned);
    let mut rows: Vec<Vec<SqlValue>> = (0..10).map(stored).collect();
    rows[9][2] = SqlValue::Int(6);
    rows[8][1] = SqlValue::Text("0".into());
    rows[7][2] = SqlValue::Null;
    dbms.apply(&target, &columns, &rows, &[(SegmentId(1), 10)]).unwrap();
    let all = of_target(&**dbms, &schema, &target, None).unwrap();
    let key = |producer, file| FileKey { producer, file };
    assert_eq!(
        all.iter().map(|(key, digest)| (*key, digest.rows)).collect::<Vec<_>>(),
        [(key(0, 5), 1), (key(7, 5), 7), (key(7, 6), 1)]
    );
    let some = of_target(&**dbms, &schema, &target, Some(&[key(7, 6), key(9, 1)])).unwrap();
    assert_eq!(some.len(), 1);
    assert_eq!(some[&key(7, 6)], all[&key(7, 6)]);
    dbms.execute("UPDATE t SET n = 99 WHERE n = 3").unwrap();
    let changed = of_target(&**dbms, &schema, &target, None).unwrap();
    assert_eq!(changed[&key(7, 5)].rows, 7);
    assert_ne!(changed[&key(7, 5)], all[&key(7, 5)]);
    assert_eq!(changed[&key(7, 6)], all[&key(7, 6)]);
}

// A column that became wider, and one that is empty, change nothing.
#[test]
fn what_a_table_may_differ_in_without_other_rows() {
    let rows = r#"{"n": 1, "extra": null}"#;
    let narrow = infer("t", &[rows], &[("n".into(), "bigint".into())], true).unwrap();
    let wide = infer("t", &[rows], &[("n".into(), "double".into()), ("extra".into(), "varchar".into())], true).unwrap();
    let digest = |schema: &TableSchema, n: SqlRef<'_>| {
        let mut hasher = RowHasher::new(schema);
        let mut names: Vec<&str> = schema.columns.iter().map(|column| column.name.as_str()).collect();
        names.retain(|name| !matches!(*name, "row_id" | "tsd_name"));
        names.sort_unstable();
        let values: Vec<SqlRef<'_>> = names.iter().map(|name| if *name == "n" { n } else { SqlRef::Null }).collect();
        hasher.hash(&values)
    };
    assert_eq!(digest(&wide, SqlRef::Int(1)), digest(&wide, SqlRef::Float(1.0)));
    assert_eq!(digest(&wide, SqlRef::Float(-0.0)), digest(&wide, SqlRef::Int(0)));
    let mut with_extra = narrow.clone();
    with_extra.columns.push(anylog_dbms::Column {
        name: "extra2".into(),
        kind: ColumnType::Varchar,
        not_null: false,
        default: None,
    });
    assert_eq!(digest(&narrow, SqlRef::Int(1)), digest(&with_extra, SqlRef::Int(1)));
}
