//! What every engine promises.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anylog_dbms::schema::{Column, Index};
use anylog_dbms::{
    Checked, ColumnType, Database, Dbms, DbmsError, Growing, RowRef, SegmentId, SqlValue, TableSchema, Target,
};

use crate::support::{batch, rows, table, text, value};

/// Runs the whole suite on one database, which is empty.
pub(crate) fn all(database: &Arc<Database>) {
    let dbms = database.dbms().as_ref();
    schemas_come_back(dbms);
    values_come_back(dbms);
    names_may_be_keywords(dbms);
    partitions_are_separate(dbms);
    many_partitions_go_together(dbms);
    marks_go_with_the_rows(dbms);
    rows_are_stored_when_they_may_be(dbms);
    a_refused_row_is_named_and_nothing_is_stored(dbms);
    rows_of_a_source_file_are_deleted(dbms);
    rows_of_a_source_file_are_replaced_at_once(database);
    integers_become_floats(dbms);
    a_reader_may_stop(dbms);
    readers_and_a_writer_do_not_disturb_each_other(database);
    dropped_tables_are_gone(dbms);
    absent_tables_are_said_to_be_absent(dbms);
}

fn rows_of_a_source_file_are_deleted(dbms: &dyn Dbms) {
    let schema = table("taken", &[r#"{"v":1}"#]);
    dbms.create_table(&schema).unwrap();
    let partition = Target::partition("taken", "par_taken_2026_03_d04_insert_timestamp");
    dbms.create_partition(&schema, partition.physical()).unwrap();
    // More than one step takes, of file 3 of member 17; some of others.
    let json: Vec<String> = (0..12_000).map(|number| format!("{{\"v\":{number}}}")).collect();
    let json: Vec<&str> = json.iter().map(String::as_str).collect();
    for target in [Target::table("taken"), partition.clone()] {
        let (columns, mut values) = batch(&schema, &json);
        values[0][2] = SqlValue::Int(4);
        values[1][1] = text("7");
        dbms.apply(&target, &columns, &values, &[]).unwrap();
    }
    for target in [Target::table("taken"), partition.clone()] {
        assert_eq!(dbms.delete_file(&target, "17", 3).unwrap(), 11_998);
        assert_eq!(dbms.delete_file(&target, "17", 3).unwrap(), 0);
        assert_eq!(dbms.delete_file(&target, "it's", 3).unwrap(), 0);
        dbms.sync().unwrap();
        assert_eq!(dbms.count(&target).unwrap(), 2);
    }
}

// DUR-6: whoever reads meanwhile sees the old rows or the new ones, and each time all of them.
fn rows_of_a_source_file_are_replaced_at_once(database: &Arc<Database>) {
    let dbms = database.dbms().as_ref();
    let schema = table("replaced", &[r#"{"v":1}"#]);
    dbms.create_table(&schema).unwrap();
    let target = Target::table("replaced");
    let of = |values: std::ops::Range<i64>| {
        let json: Vec<String> = values.map(|number| format!("{{\"v\":{number}}}")).collect();
        batch(&schema, &json.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let (columns, mut others) = of(0..2);
    others[0][2] = SqlValue::Int(4);
    others[1][1] = text("7");
    dbms.apply(&target, &columns, &others, &[]).unwrap();
    let segment = SegmentId(0x5e6);
    let replace = |values: std::ops::Range<i64>, mark: u64| {
        let (columns, rows) = of(values);
        let rows: Vec<RowRef<'_>> = rows.iter().map(|row| RowRef { shared: &[], own: row }).collect();
        dbms.replace_file(&target, ("17", 3), &columns, &rows, &[(segment, mark)])
    };
    replace(0..3000, 3000).unwrap();
    let (done, in_memory) = (AtomicBool::new(false), dbms.info().storage == "MEMORY");
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut looks = 0;
            while !done.load(Ordering::Relaxed) || looks == 0 {
                let rows = dbms.count(&target).unwrap();
                // In memory readers see what is not committed yet.
                assert!(rows == 3002 || in_memory, "{rows} rows");
                looks += 1;
            }
        });
        for turn in 1..=10 {
            // A mark that is lower than the one before is no reason to store nothing.
            replace(turn * 3000..(turn + 1) * 3000, 3000 - turn as u64).unwrap();
            assert_eq!(dbms.applied(&target, segment).unwrap(), Some(3000 - turn as u64));
        }
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
    // Nothing at all, when one of the rows is refused.
    let (columns, mut rows) = of(0..3);
    rows[1][0] = SqlValue::Null;
    let refused: Vec<RowRef<'_>> = rows.iter().map(|row| RowRef { shared: &[], own: row }).collect();
    let error = dbms.replace_file(&target, ("17", 3), &columns, &refused, &[(segment, 9)]).unwrap_err();
    assert!(matches!(error, DbmsError::RowRefused { index: 1, .. }), "{error}");
    assert_eq!((dbms.count(&target).unwrap(), dbms.applied(&target, segment).unwrap()), (3002, Some(2990)));
    // No rows take the place of rows, too.
    dbms.replace_file(&target, ("17", 3), &columns, &[], &[(segment, 5)]).unwrap();
    assert_eq!((dbms.count(&target).unwrap(), dbms.applied(&target, segment).unwrap()), (2, Some(5)));
    dbms.forget(&[segment]).unwrap();
}

fn column(name: &str, kind: ColumnType) -> Column {
    Column { name: name.into(), kind, not_null: false, default: None }
}

/// A table with a column of every type.
pub(crate) fn every_type(name: &str) -> TableSchema {
    let mut schema = table(name, &[r#"{"timestamp":"2026-01-01T00:00:00Z"}"#]);
    schema.columns.extend([
        column("small", ColumnType::Int),
        column("big", ColumnType::BigInt),
        column("exact", ColumnType::Decimal),
        column("real", ColumnType::Double),
        column("yes", ColumnType::Boolean),
        column("day", ColumnType::Date),
        column("clock", ColumnType::Time),
        column("id", ColumnType::Uuid),
        column("words", ColumnType::Varchar),
        column("code", ColumnType::Char(8)),
        column("net", ColumnType::Cidr),
        Column { default: Some("'a''b'".into()), ..column("with_default", ColumnType::Varchar) },
        Column { default: Some("42".into()), not_null: true, ..column("answer", ColumnType::BigInt) },
    ]);
    schema
}

fn schemas_come_back(dbms: &dyn Dbms) {
    let mut schema = every_type("every_type");
    dbms.create_table(&schema).unwrap();
    dbms.create_table(&schema).unwrap();
    let mut found = dbms.schema("every_type").unwrap().unwrap();
    let by_suffix = |a: &Index, b: &Index| a.suffix.cmp(&b.suffix);
    schema.indexes.sort_by(by_suffix);
    found.indexes.sort_by(by_suffix);
    assert_eq!(found, schema);
    assert!(dbms.tables().unwrap().contains(&"every_type".to_owned()));
    assert_eq!(dbms.schema("nothing_here").unwrap(), None);
    dbms.drop_table("every_type").unwrap();
}

fn values_come_back(dbms: &dyn Dbms) {
    let schema = every_type("every_value");
    dbms.create_table(&schema).unwrap();
    let json = [
        r#"{"timestamp":"2026-03-01 10:00:00.123456Z","small":-7,"big":9223372036854775807,"exact":12.50,
            "real":0.12345678901234568,"yes":true,"day":"2026-02-28","clock":"10:11:12","id":"123E4567-E89B-12D3-A456-426614174000",
            "words":"it's \"quoted\" | \\ ; -- \u00fc\u4e2d\ud83d\ude00\n","code":"abc ","net":"10.0.0.7/24"}"#,
        r#"{"timestamp":"2026-03-01 10:00:01Z","big":-9223372036854775808,"real":1e300,"yes":false,"words":{"a": [1, 2]}}"#,
        r#"{"big":null,"real":null}"#,
    ];
    let json: Vec<String> = json.iter().map(|row| row.replace('\n', " ")).collect();
    let json: Vec<&str> = json.iter().map(String::as_str).collect();
    let (columns, values) = batch(&schema, &json);
    dbms.apply(&Target::table("every_value"), &columns, &values, &[]).unwrap();
    let sql = "SELECT timestamp, small, big, real, yes, day, clock, id, words, code, tsd_name, tsd_id, with_default, answer \
               FROM every_value ORDER BY row_id";
    let found = rows(dbms, None, sql);
    let yes = |row: &Vec<SqlValue>| row[4] == SqlValue::Bool(true) || row[4] == SqlValue::Int(1);
    assert_eq!(found.len(), 3);
    assert_eq!(found[0][0], text("2026-03-01 10:00:00.123456"));
    assert_eq!(found[0][1], SqlValue::Int(-7));
    assert_eq!(found[0][2], SqlValue::Int(i64::MAX));
    assert_eq!(found[0][3], SqlValue::Float(0.123_456_789_012_345_68));
    assert!(yes(&found[0]) && !yes(&found[1]));
    assert_eq!(found[0][5], text("2026-02-28"));
    assert_eq!(found[0][6], text("10:11:12"));
    assert_eq!(found[0][7], text("123e4567-e89b-12d3-a456-426614174000"));
    assert_eq!(found[0][8], text("it's \"quoted\" | \\ ; -- \u{fc}\u{4e2d}\u{1f600}\n"));
    assert_eq!(found[0][9], text("abc "));
    assert_eq!(found[0][10], text("17"));
    assert_eq!(found[0][11], SqlValue::Int(3));
    assert_eq!(found[0][12], text("a'b"));
    assert_eq!(found[1][2], SqlValue::Int(i64::MIN));
    assert_eq!(found[1][3], SqlValue::Float(1e300));
    assert_eq!(found[1][8], text(r#"{"a": [1, 2]}"#));
    assert_eq!(found[2][0], text("2026-03-04 05:06:07.123456"));
    assert_eq!(found[2][2], SqlValue::Null);
    assert_eq!(found[2][13], SqlValue::Int(42));
    assert_eq!(value(dbms, None, "SELECT exact FROM every_value WHERE exact = 12.5"), SqlValue::Float(12.5));
    assert_eq!(value(dbms, None, "SELECT sum(small) FROM every_value"), SqlValue::Int(-7));
    assert_eq!(
        value(dbms, None, "SELECT count(*) FROM every_value WHERE timestamp < '2026-03-01 10:00:01'"),
        SqlValue::Int(1)
    );
    assert_eq!(dbms.count(&Target::table("every_value")).unwrap(), 3);
    for sql in [sql, "SELECT big, words FROM every_value ORDER BY row_id", "SELECT * FROM every_value ORDER BY row_id"]
    {
        values_are_read_where_they_lie(dbms, sql);
    }
    dbms.drop_table("every_value").unwrap();
}

fn values_are_read_where_they_lie(dbms: &dyn Dbms, sql: &str) {
    let copies = rows(dbms, None, sql);
    let mut at = 0;
    dbms.scan(None, sql, &mut |row| {
        let found: Vec<SqlValue> = row.iter().map(|value| value.to_value()).collect();
        let copy: Vec<SqlValue> = copies[at].iter().map(|value| value.as_ref().to_value()).collect();
        assert_eq!(found, copy, "{sql}");
        at += 1;
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(at, copies.len(), "{sql}");
}

fn names_may_be_keywords(dbms: &dyn Dbms) {
    let schema = table("order", &[r#"{"select":1,"from":"x","größe":2.5}"#]);
    dbms.create_table(&schema).unwrap();
    let (columns, values) = batch(&schema, &[r#"{"Select":5,"from":"y","GRÖSSE":1,"größe":0.5}"#]);
    dbms.apply(&Target::table("order"), &columns, &values, &[]).unwrap();
    let found = rows(dbms, None, r#"SELECT "select", "from", "größe" FROM "order""#);
    assert_eq!(found, [[SqlValue::Int(5), text("y"), SqlValue::Float(0.5)]]);
    dbms.drop_table("order").unwrap();
}

fn partitions_are_separate(dbms: &dyn Dbms) {
    let schema = table("split", &[r#"{"timestamp":"2026-01-01 00:00:00Z","v":1}"#]);
    dbms.create_table(&schema).unwrap();
    dbms.create_table(&table("split_2026", &[r#"{"v":1}"#])).unwrap();
    // Many partitions, more than connections that are kept open.
    let names: Vec<String> = (1..=28).map(|day| format!("par_split_2026_01_{day:02}_d01_timestamp")).collect();
    for (day, name) in names.iter().enumerate() {
        dbms.create_partition(&schema, name).unwrap();
        dbms.create_partition(&schema, name).unwrap();
        let json = format!(r#"{{"timestamp":"2026-01-{:02} 12:00:00Z","v":{day}}}"#, day + 1);
        let (columns, values) = batch(&schema, &[&json, &json]);
        dbms.apply(&Target::partition("split", name), &columns, &values, &[]).unwrap();
    }
    dbms.sync().unwrap();
    assert_eq!(dbms.partitions("split").unwrap(), names);
    assert_eq!(dbms.partitions("split_2026").unwrap(), Vec::<String>::new());
    assert!(!dbms.tables().unwrap().iter().any(|table| table.starts_with("par_")));
    for (day, name) in names.iter().enumerate() {
        let target = Target::partition("split", name);
        assert_eq!(dbms.count(&target).unwrap(), 2);
        let sql = format!("SELECT min(v) FROM {name}");
        assert_eq!(value(dbms, Some(&target), &sql), SqlValue::Int(i64::try_from(day).unwrap()));
    }
    assert_eq!(dbms.count(&Target::table("split")).unwrap(), 0);
    dbms.drop_partition("split", &names[3]).unwrap();
    assert!(matches!(dbms.drop_partition("split", &names[3]), Err(DbmsError::NoTable { .. })));
    assert_eq!(dbms.partitions("split").unwrap().len(), 27);
    // The same name may come again, and is empty then.
    dbms.create_partition(&schema, &names[3]).unwrap();
    assert_eq!(dbms.count(&Target::partition("split", &names[3])).unwrap(), 0);
    dbms.drop_table("split").unwrap();
    assert_eq!(dbms.partitions("split").unwrap(), Vec::<String>::new());
    assert!(!dbms.tables().unwrap().contains(&"split".to_owned()));
    dbms.drop_table("split_2026").unwrap();
}

fn marks_go_with_the_rows(dbms: &dyn Dbms) {
    let schema = table("marked", &[r#"{"v":1}"#]);
    dbms.create_table(&schema).unwrap();
    let partition = "par_marked_2026_01_d01_v".to_owned();
    let partition = partition.replace("2026_01", "2026_01_01");
    dbms.create_partition(&schema, &partition).unwrap();
    let (one, two) = (SegmentId(1), SegmentId(u128::MAX));
    let targets = [Target::table("marked"), Target::partition("marked", &partition)];
    let (columns, values) = batch(&schema, &[r#"{"v":1}"#]);
    for target in &targets {
        assert_eq!(dbms.applied(target, one).unwrap(), None);
        dbms.apply(target, &columns, &values, &[(one, 7), (two, 1)]).unwrap();
        dbms.apply(target, &columns, &[], &[(one, 9)]).unwrap();
        assert_eq!(dbms.applied(target, one).unwrap(), Some(9));
        assert_eq!(dbms.applied(target, two).unwrap(), Some(1));
        assert_eq!(dbms.count(target).unwrap(), 1);
    }
    dbms.forget(&[one]).unwrap();
    for target in &targets {
        assert_eq!(dbms.applied(target, one).unwrap(), None);
        assert_eq!(dbms.applied(target, two).unwrap(), Some(1));
    }
    // A segment that was never met is no error.
    dbms.forget(&[SegmentId(99), two]).unwrap();
    assert_eq!(dbms.applied(&targets[1], two).unwrap(), None);
    dbms.drop_table("marked").unwrap();
}

// DUR-1: nobody sees a row before the end; without leave nothing is stored, not even a mark.
fn rows_are_stored_when_they_may_be(dbms: &dyn Dbms) {
    let schema = table("awaited", &[r#"{"v":1}"#]);
    dbms.create_table(&schema).unwrap();
    let partition = Target::partition("awaited", "par_awaited_2026_03_01_d01_insert_timestamp");
    dbms.create_partition(&schema, partition.physical()).unwrap();
    let (columns, values) = batch(&schema, &[r#"{"v":1}"#; 300]);
    let rows: Vec<RowRef<'_>> = values.iter().map(|row| RowRef { shared: &[], own: row }).collect();
    for target in [Target::table("awaited"), partition] {
        let segment = SegmentId(8);
        let (mut before, mut last) = (0, None);
        for (mark, leave) in [(1, false), (2, true), (3, false), (4, true)] {
            let mut asked = 0;
            let mut grow = |transaction: &mut dyn Growing| {
                for (rows, mark) in [(&rows[..100], mark - 1), (&[], 0), (&rows[100..], mark)] {
                    transaction.store(rows, &[(segment, mark)])?;
                    assert_eq!(dbms.count(&target).unwrap(), before, "nobody sees them yet");
                }
                asked += 1;
                Ok(leave)
            };
            let stored = dbms.apply_growing(&target, &columns, &mut grow).unwrap();
            assert_eq!((stored, asked), (leave, 1));
            if leave {
                (before, last) = (before + 300, Some(mark));
            }
            assert_eq!(dbms.count(&target).unwrap(), before);
            assert_eq!(dbms.applied(&target, segment).unwrap(), last);
        }
        // Others are not concerned by what was undone.
        dbms.apply(&target, &columns, &values, &[(segment, 5)]).unwrap();
        assert_eq!((dbms.count(&target).unwrap(), dbms.applied(&target, segment).unwrap()), (900, Some(5)));
        dbms.forget(&[segment]).unwrap();
    }
    // What is refused is refused, with leave or without it.
    let mut refused = values.clone();
    refused[1][0] = SqlValue::Null;
    let refused: Vec<RowRef<'_>> = refused.iter().map(|row| RowRef { shared: &[], own: row }).collect();
    let target = Target::table("awaited");
    let mut grow = |transaction: &mut dyn Growing| {
        transaction.store(&rows, &[(SegmentId(8), 9)])?;
        transaction.store(&refused, &[])?;
        Ok(true)
    };
    dbms.apply_growing(&target, &columns, &mut grow).unwrap_err();
    let narrow = [RowRef { shared: &[], own: &values[0][1..] }];
    let error = dbms.apply_growing(&target, &columns, &mut |rows| rows.store(&narrow, &[]).map(|()| true)).unwrap_err();
    assert!(matches!(error, DbmsError::RowRefused { index: 0, .. }), "{error}");
    assert_eq!((dbms.count(&target).unwrap(), dbms.applied(&target, SegmentId(8)).unwrap()), (900, None));
    dbms.drop_table("awaited").unwrap();
}

// R13
fn a_refused_row_is_named_and_nothing_is_stored(dbms: &dyn Dbms) {
    let mut schema = table("strict", &[r#"{"v":1}"#]);
    schema.columns[4].not_null = true;
    dbms.create_table(&schema).unwrap();
    let columns = vec!["insert_timestamp".to_owned(), "v".to_owned()];
    let row = |v| vec![text("2026-01-01 00:00:00.000000"), v];
    let mut values: Vec<Vec<SqlValue>> = (0..130).map(|v| row(SqlValue::Int(v))).collect();
    values[107] = row(SqlValue::Null);
    let target = Target::table("strict");
    let marks = [(SegmentId(5), 129)];
    let error = dbms.apply(&target, &columns, &values, &marks).unwrap_err();
    assert!(matches!(error, DbmsError::RowRefused { index: 107, .. }), "{error}");
    assert_eq!(dbms.count(&target).unwrap(), 0);
    assert_eq!(dbms.applied(&target, SegmentId(5)).unwrap(), None);
    values.remove(107);
    dbms.apply(&target, &columns, &values, &marks).unwrap();
    assert_eq!(dbms.count(&target).unwrap(), 129);
    assert_eq!(value(dbms, None, "SELECT sum(v) FROM strict"), SqlValue::Int(129 * 130 / 2 - 107));
    dbms.drop_table("strict").unwrap();
}

fn integers_become_floats(dbms: &dyn Dbms) {
    let schema = table("wide", &[r#"{"v":1}"#]);
    dbms.create_table(&schema).unwrap();
    let partition = "par_wide_2026_m01_insert_timestamp".replace("2026_m", "2026_01_m");
    dbms.create_partition(&schema, &partition).unwrap();
    let targets = [Target::table("wide"), Target::partition("wide", &partition)];
    for target in &targets {
        let (columns, values) = batch(&schema, &[r#"{"v":3}"#]);
        dbms.apply(target, &columns, &values, &[]).unwrap();
        // A reader that knows the old type is kept open.
        assert_eq!(dbms.count(target).unwrap(), 1);
    }
    dbms.widen_column("wide", "v", ColumnType::Double).unwrap();
    dbms.widen_column("wide", "v", ColumnType::Double).unwrap();
    let wider = dbms.schema("wide").unwrap().unwrap();
    assert_eq!(wider.column("v").unwrap().kind, ColumnType::Double);
    for target in &targets {
        let (columns, values) = batch(&wider, &[r#"{"v":2.5}"#]);
        dbms.apply(target, &columns, &values, &[]).unwrap();
        let sql = format!("SELECT v, v / 2 FROM {} ORDER BY v", target.physical());
        let float = SqlValue::Float;
        assert_eq!(rows(dbms, Some(target), &sql), [[float(2.5), float(1.25)], [float(3.0), float(1.5)]]);
    }
    assert!(dbms.widen_column("wide", "absent", ColumnType::Double).is_err());
    assert!(dbms.widen_column("wide", "v", ColumnType::BigInt).is_err());
    dbms.drop_table("wide").unwrap();
}

fn a_reader_may_stop(dbms: &dyn Dbms) {
    let schema = table("long", &[r#"{"v":1}"#]);
    dbms.create_table(&schema).unwrap();
    let json: Vec<String> = (0..1000).map(|v| format!(r#"{{"v":{v}}}"#)).collect();
    let json: Vec<&str> = json.iter().map(String::as_str).collect();
    let (columns, values) = batch(&schema, &json);
    dbms.apply(&Target::table("long"), &columns, &values, &[]).unwrap();
    let mut seen = 0;
    dbms.query(None, "SELECT v FROM long ORDER BY v", &mut |names, _| {
        assert_eq!(names, ["v"]);
        seen += 1;
        if seen == 10 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .unwrap();
    assert_eq!(seen, 10);
    assert_eq!(value(dbms, None, "SELECT count(*) FROM long"), SqlValue::Int(1000));
    assert!(dbms.query(None, "DELETE FROM long", &mut |_, _| ControlFlow::Continue(())).is_err());
    assert_eq!(dbms.execute("DELETE FROM long WHERE v >= 500").unwrap(), 500);

    // Several statements are done together or not at all.
    let delete = |from: i32| Checked::any(format!("DELETE FROM long WHERE v >= {from}"));
    let one = |v: i32| Checked::just(1, format!("UPDATE long SET v = -1 WHERE v = {v}"));
    assert!(!dbms.execute_all(&[delete(400), one(1), one(450)]).unwrap());
    assert_eq!(value(dbms, None, "SELECT count(*) FROM long WHERE v >= 0"), SqlValue::Int(500));
    assert!(dbms.execute_all(&[delete(400), Checked::any("DELETE FROM nothing_there")]).is_err());
    assert_eq!(value(dbms, None, "SELECT count(*) FROM long WHERE v >= 0"), SqlValue::Int(500));
    assert!(dbms.execute_all(&[delete(400), one(1), one(2)]).unwrap());
    assert_eq!(value(dbms, None, "SELECT count(*) FROM long WHERE v >= 0"), SqlValue::Int(398));
    dbms.drop_table("long").unwrap();
}

// R17
fn readers_and_a_writer_do_not_disturb_each_other(database: &Arc<Database>) {
    const BATCHES: i64 = 60;
    const WRITERS: i64 = 4;
    let schema = table("busy", &[r#"{"v":1}"#]);
    database.dbms().create_table(&schema).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut last = 0;
                while !done.load(Ordering::Acquire) {
                    let SqlValue::Int(count) = value(database.dbms().as_ref(), None, "SELECT count(*) FROM busy")
                    else {
                        panic!("count is a number");
                    };
                    assert!(count >= last, "rows do not vanish: {count} after {last}");
                    last = count;
                }
            });
        }
        let writers: Vec<_> = (0..WRITERS)
            .map(|_| {
                scope.spawn(|| {
                    let (columns, values) = batch(&schema, &[r#"{"v":1}"#; 20]);
                    for _ in 0..BATCHES {
                        database.dbms().apply(&Target::table("busy"), &columns, &values, &[]).unwrap();
                    }
                })
            })
            .collect();
        let results: Vec<_> = writers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Release);
        assert!(results.iter().all(Result::is_ok));
    });
    assert_eq!(database.dbms().count(&Target::table("busy")).unwrap(), u64::try_from(BATCHES * WRITERS * 20).unwrap());
    database.dbms().drop_table("busy").unwrap();
}

fn many_partitions_go_together(dbms: &dyn Dbms) {
    let schema = table("many", &[r#"{"v":1}"#]);
    dbms.create_table(&schema).unwrap();
    // More than one transaction of a server drops.
    let names: Vec<String> = (0..70)
        .map(|day| format!("par_many_2026_{:02}_{:02}_d01_insert_timestamp", 1 + day / 28, 1 + day % 28))
        .collect();
    let (columns, values) = batch(&schema, &[r#"{"v":1}"#]);
    for name in &names {
        dbms.create_partition(&schema, name).unwrap();
        dbms.apply(&Target::partition("many", name), &columns, &values, &[(SegmentId(3), 1)]).unwrap();
    }
    let mut asked = names[..68].to_vec();
    asked.insert(1, "par_many_2020_01_01_d01_insert_timestamp".to_owned());
    let mut gone = Vec::new();
    dbms.drop_partitions("many", &asked, &mut |name| gone.push(name.to_owned())).unwrap();
    assert_eq!(gone, names[..68]);
    assert_eq!(dbms.partitions("many").unwrap(), names[68..]);
    // Their marks went with them.
    assert_eq!(dbms.applied(&Target::partition("many", &names[0]), SegmentId(3)).unwrap(), None);
    dbms.create_partition(&schema, &names[0]).unwrap();
    assert_eq!(dbms.count(&Target::partition("many", &names[0])).unwrap(), 0);
    assert_eq!(dbms.count(&Target::partition("many", &names[69])).unwrap(), 1);
    dbms.drop_table("many").unwrap();
    assert!(dbms.partitions("many").unwrap().is_empty());
}

fn dropped_tables_are_gone(dbms: &dyn Dbms) {
    let schema = table("gone", &[r#"{"v":1}"#]);
    dbms.create_table(&schema).unwrap();
    dbms.drop_table("gone").unwrap();
    dbms.drop_table("gone").unwrap();
    assert_eq!(dbms.schema("gone").unwrap(), None);
    for bad in ["", "../x", "a/b", ".x", "anylog_applied", "a\"b"] {
        assert!(dbms.create_table(&TableSchema { name: bad.into(), ..schema.clone() }).is_err(), "{bad}");
    }
}

fn absent_tables_are_said_to_be_absent(dbms: &dyn Dbms) {
    let never = &mut |_: &[String], _: Vec<SqlValue>| ControlFlow::Continue(());
    let absent = Target::partition("absent", "par_absent_2026_y01_v");
    for error in [
        dbms.query(Some(&absent), "SELECT * FROM par_absent_2026_y01_v", never).unwrap_err(),
        dbms.query(None, "SELECT * FROM absent", never).unwrap_err(),
        dbms.apply(&absent, &["v".to_owned()], &[vec![SqlValue::Int(1)]], &[]).unwrap_err(),
        dbms.apply(&Target::table("absent"), &["v".to_owned()], &[vec![SqlValue::Int(1)]], &[]).unwrap_err(),
    ] {
        assert!(matches!(error, DbmsError::NoTable { .. }), "{error:?}");
    }
    // Whoever comes after such an error is not concerned.
    let schema = table("present", &[r#"{"v":1}"#]);
    dbms.create_table(&schema).unwrap();
    let (columns, values) = batch(&schema, &[r#"{"v":1}"#]);
    for turn in 1..=100 {
        let error = dbms.apply(&absent, &["v".to_owned()], &[vec![SqlValue::Int(1)]], &[(SegmentId(9), turn)]);
        let error = error.unwrap_err();
        assert!(matches!(error, DbmsError::NoTable { .. }), "turn {turn}: {error:?}");
        dbms.apply(&Target::table("present"), &columns, &values, &[(SegmentId(9), turn)]).unwrap();
    }
    assert_eq!(dbms.count(&Target::table("present")).unwrap(), 100);
    dbms.drop_table("present").unwrap();
}
