//! Over SQLite, a file for each partition.

use anylog_core::{Access, Caller};
use anylog_dbms::{ConnectRequest, PartitionUnit, Partitioning};
use anylog_query::{Cell, Request};
use jiff::Timestamp;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::world::{Reading, World, readings, runtime, sorted, statements, three_days};

#[test]
fn aggregates_over_partitions_are_those_of_all_rows() {
    // QRY-1
    let world = three_days();
    let sql =
        "select count(*), min(value), max(value), avg(value), sum(count), range(value), count(distinct device) from t";
    let rows = world.ask("split", sql).unwrap();
    let expected = [
        Cell::Int(4),
        Cell::Float(1.5),
        Cell::Float(10.0),
        Cell::Float(4.6875),
        Cell::Int(34),
        Cell::Float(8.5),
        Cell::Int(3),
    ];
    assert_eq!(rows, [expected]);
    let rows =
        world.ask("split", "select min(value), count(*), avg(value), sum(count) from t where value > 999").unwrap();
    assert_eq!(rows, [[Cell::Null, Cell::Int(0), Cell::Null, Cell::Null]]);
}

#[test]
fn every_plan_answers_as_one_table() {
    // QRY-1
    let world = three_days();
    for (sql, ordered) in [
        ("select * from t where device = 'd1' and ok", false),
        ("select timestamp, value from t order by value desc limit 2", true),
        ("select timestamp, value from t order by value limit 2 offset 1", true),
        ("select value from t order by timestamp desc", true),
        ("select device, count(*), avg(value) from t group by device order by device", true),
        ("select device, max(value) - min(value) as spread from t group by device having count(*) > 1", false),
        ("select distinct device from t order by device desc", true),
        ("select distinct(device) from t", false),
        ("select max(timestamp) from t where device = 'd1'", false),
        ("select min(timestamp) from t where timestamp > '2026-11-21' and value > 1", false),
        ("select max(timestamp) from t where value > 999", false),
        ("select count(distinct device), count(*) from t", false),
        ("select device, row_number() over (order by value) as n from t order by n", true),
        (
            "select case when value > 3 then 'high' else 'low' end as level, count(*) from t group by level order by 1",
            true,
        ),
        ("select date_trunc('hour', timestamp) as h, sum(count) from t group by h order by h", true),
        ("select extract(minute from timestamp) as m, value from t order by m, value", true),
        ("select increments(minute, 30, timestamp), min(timestamp), max(timestamp), count(*) from t", true),
        (
            "select increments(timestamp, 10), count(*) from t where timestamp >= '2026-11-20' and timestamp < '2026-11-23'",
            true,
        ),
        ("select increments(day, 1, timestamp), device, max(value) from t group by device order by device", true),
        ("select avg(value) + 1, floor(max(value)), upper(min(device)) from t", false),
        ("select count(*) from t where timestamp between '2026-11-20 00:00:00' and '2026-11-21 12:00:00'", false),
        ("select value from t where period(day, 1, '2026-11-22', timestamp)", false),
        ("select count(*) from t where period(hour, 1, now(), timestamp, and device = 'd1')", false),
        ("select value from t where ok is true or value is null", false),
        ("select sum(value) from t where device in ('d1', 'd2') and device not like '%2'", false),
        (
            "select date_trunc('day', timestamp) as timestamp, count(*) as value from t group by 1 order by timestamp",
            true,
        ),
        ("select device, max(value) as value from t group by device order by value", true),
        ("select group_concat(device) from t where device = 'd3'", false),
        ("select lower(device) as d, count(*) from t group by lower(device) order by count(*) desc, d", true),
    ] {
        let plain = world.ask("plain", sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        let split = world.ask("split", sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert!(!plain.is_empty(), "{sql}");
        // Each partition counts its own rows.
        let keep = |rows: &[Vec<Cell>]| {
            rows.iter()
                .map(|row| if sql.contains('*') && row.len() == 9 { row[1..].to_vec() } else { row.clone() })
                .collect::<Vec<_>>()
        };
        assert_eq!(sorted(&keep(&split), ordered), sorted(&keep(&plain), ordered), "{sql}");
    }
}

#[test]
fn seconds_near_the_next_minute_stay_in_their_bucket() {
    let world = three_days();
    let sql =
        "select increments(second, 30, timestamp), count(*) from t where device = 'd1' and timestamp > '2026-11-21'";
    assert_eq!(world.ask("split", sql).unwrap(), [[Cell::Int(1)]]);
    let sql = "select extract(second from timestamp) as s from t where timestamp > '2026-11-22'";
    assert_eq!(world.ask("split", sql).unwrap(), [[Cell::Float(59.999999)]]);
}

#[test]
fn a_period_ends_at_the_last_row_before_its_time() {
    let world = three_days();
    let values = |sql: &str| sorted(&world.ask("split", sql).unwrap(), false).len();
    assert_eq!(values("select value from t where period(day, 1, '2026-11-21T06:00:00Z', timestamp)"), 1);
    assert_eq!(values("select value from t where period(day, 2, '2026-11-21T06:00:00Z', timestamp)"), 3);
    assert_eq!(values("select value from t where period(day, 9, now(), timestamp, and device = 'd2')"), 1);
    assert_eq!(values("select value from t where period(day, 1, '2020-01-01', timestamp)"), 0);
}

#[test]
fn the_command_answers_in_the_documented_formats() {
    let world = three_days();
    let run = |line: &str| world.run(line).unwrap();
    assert_eq!(
        run("sql split format=json and stat=false \"select timestamp, value, ok from t limit 2\""),
        "{\"Query\":[{\"timestamp\":\"2026-11-20 01:02:03.456000\",\"value\":3.25,\"ok\":false},\
         {\"timestamp\":\"2026-11-20 01:40:00.000000\",\"value\":4.0,\"ok\":true}]}"
    );
    assert_eq!(run("sql split format = json:list and stat = false select count(*) from t;"), "[{\"count(*)\":4}]");
    assert_eq!(
        run("sql split format=json \"select count(*) from t where value > 3\""),
        "{\"Query\":[{\"count(*)\":3}],\n\"Statistics\":[{\"Count\": 1,\"Time\":\"00:00:00\",\"Nodes\": 1}]}"
    );
    assert_eq!(
        run("sql split stat=false \"select value from t where value > 999\""),
        "{\"reply\" : \"Empty data set\"}"
    );
    assert_eq!(
        run("sql split format=table and stat=false \"select value from t where value > 9\""),
        "\nvalue\n----- \n 10.0\n"
    );
    assert_eq!(
        run(
            "sql split timezone = et and stat=false \"select timestamp, timestamp::timezone(utc) as u, value::int from t where value = 3.25\""
        ),
        "{\"Query\":[{\"timestamp\":\"2026-11-19 20:02:03.456000\",\"u\":\"2026-11-20 01:02:03\",\"value\":3}]}"
    );
    world.node.dictionary.set("db", "split");
    world.node.dictionary.set("least", "9");
    world.node.dictionary.set("who", "d'1");
    assert_eq!(
        run("sql split stat=false \"select count(*) from t where device = '!who' or device = 'no !who'\""),
        "{\"Query\":[{\"count(*)\":0}]}"
    );
    assert_eq!(
        run("sql !db stat=false \"select value from t where value > !least\""),
        "{\"Query\":[{\"value\":10.0}]}"
    );
    assert_eq!(
        run(
            "sql split stat=false and extend = (@table_name as tbl, @dbms_name) \"select tbl, max(value) as m from t\""
        ),
        "{\"Query\":[{\"tbl\":\"t\",\"dbms_name\":\"split\",\"m\":10.0}]}"
    );
    assert_eq!(
        run("sql split stat=false \"select device, value from t order by value desc limit 1 per device\""),
        "{\"Query\":[{\"device\":\"d3\",\"value\":10.0},{\"device\":\"d2\",\"value\":4.0},{\"device\":\"d1\",\"value\":3.25}]}"
    );
}

#[test]
fn errors_name_the_cause_and_the_next_step() {
    // R25
    let world = three_days();
    for (line, expected) in [
        (
            "sql split \"select vlaue from t\"",
            "46 Non supported SQL: Column 'vlaue' is not recognized in table: split.t - did you mean 'value'?",
        ),
        (
            "sql split \"select value from tt\"",
            "45 Failed to load table metadata: no table 'split.tt' - did you mean 't'?",
        ),
        ("sql nodb \"select value from t\"", "50 database 'nodb' is not connected"),
        ("sql split formt=json \"select value from t\"", "did you mean 'format'?"),
        ("sql split format=xml \"select value from t\"", "use json, json:list, json:output or table"),
        ("sql split nodes=all \"select value from t\"", "not available in a local query"),
        ("sql split timezone=mars \"select value from t\"", "timezone = mars is not known"),
        ("sql split \"select value, value from t\"", "Duplicate projected column names"),
        ("sql split \"select value from t where timestamp > 'soon'\"", "'soon' is not a date"),
        ("sql split drop table t", "There is no SQL statement"),
        ("sql split", "There is no SQL statement"),
        ("sql split \"select device::float(2) from t\"", "194 Failed to cast 'd1' with float(2)"),
        ("sql split \"select value from t where sum(value) > 1\"", "an aggregate in WHERE"),
        (
            "sql split \"select increments(timestamp), count(*) from t\"",
            "Missing or wrong where condition in an increment query",
        ),
        ("sql split \"select value from t where value > !nothing\"", "Missing dictionary definition for: '!nothing'"),
    ] {
        let error = world.run(line).expect_err(line);
        assert!(error.contains(expected), "{line}\n gave {error}\n want {expected}");
    }
}

#[test]
fn only_administrators_change_data() {
    let world = three_days();
    let reader = || Caller::embedded().limited_to(Access::Read);
    for line in [
        "sql plain delete from t",
        "sql plain \"delete from t\"",
        "sql plain title = select and stat = true delete from t",
    ] {
        let error = world.run_as(reader(), line).expect_err(line);
        assert!(error.starts_with("212") || error.starts_with("2 "), "{line}: {error}");
    }
    let count = "sql plain format=json:list and stat=false \"select count(*) from t\"";
    assert_eq!(world.run_as(reader(), count).unwrap(), "[{\"count(*)\":4}]");
    let split = world.run("sql split delete from t").unwrap_err();
    assert!(split.contains("drop whole partitions with"), "{split}");
    world.run("sql plain \"delete from t where device = 'd1'\"").unwrap();
    assert_eq!(world.run(count).unwrap(), "[{\"count(*)\":2}]");
}

#[test]
fn queries_are_remembered() {
    let world = three_days();
    world.run("sql split \"select count(*) from t\"").unwrap();
    world.run("sql split \"select nosuch from t\"").ok();
    let status = world.run("query status all").unwrap();
    assert!(status.contains("Completed") && status.contains("Error: Non supported SQL"), "{status}");
    let explained = world.run("query explain 1").unwrap();
    assert!(explained.contains("Remote Query") && explained.contains("select count(*) as \"a0\""), "{explained}");
    assert!(world.run("get queries time").unwrap().contains("Total queries: 2"));
    world.run("reset query timer").unwrap();
    assert!(world.run("get queries time").unwrap().contains("Total queries: 0"));
}

#[test]
fn a_long_answer_streams_and_stops_when_nobody_reads() {
    let start: Timestamp = "2026-11-20T00:00:00Z".parse().unwrap();
    let rows: Vec<Reading> = (0..20_000)
        .map(|n| Reading {
            time: start + jiff::SignedDuration::from_secs(n * 13),
            value: Some(0.5),
            device: Some(format!("d{}", n % 7)),
            count: n,
            ok: None,
        })
        .collect();
    let world = World::by_day(&rows);
    runtime().block_on(async {
        let mut answer = world.service.select(Request::new("split", "select * from t")).await.unwrap();
        let mut count = 0;
        while let Some(rows) = answer.next().await {
            let rows = rows.unwrap();
            assert!(rows.len() <= 256);
            count += rows.len();
        }
        assert_eq!(count, 20_000);
        let mut answer = world.service.select(Request::new("split", "select * from t")).await.unwrap();
        answer.next().await.unwrap().unwrap();
        drop(answer);
    });
    let status = world.run("query status").unwrap();
    assert!(status.contains("Stopped"), "{status}");
    assert_eq!(
        sorted(&world.ask("split", "select count from t order by count desc limit 1").unwrap(), true),
        ["Int(19999)"]
    );
}

#[test]
fn many_queries_at_once_all_answer() {
    let world = three_days();
    runtime().block_on(async {
        let asked = (0..60).map(|n| {
            let service = std::sync::Arc::clone(&world.service);
            tokio::spawn(async move {
                let sql = format!("select device, sum(count) + {n} as s from t group by device order by s");
                let mut answer = service.select(Request::new("split", sql)).await?;
                let mut rows = Vec::new();
                while let Some(more) = answer.next().await {
                    rows.extend(more?);
                }
                Ok::<_, anylog_query::QueryError>((n, rows))
            })
        });
        for task in asked.collect::<Vec<_>>() {
            let (n, rows) = task.await.unwrap().unwrap();
            let sums: Vec<&Cell> = rows.iter().map(|row| &row[1]).collect();
            assert_eq!(sums, [&Cell::Int(8 + n), &Cell::Int(10 + n), &Cell::Int(16 + n)]);
        }
    });
}

#[test]
fn any_statement_over_any_partitions_equals_one_table() {
    // QRY-1
    let partitioning = prop_oneof![
        Just((1, PartitionUnit::Day)),
        Just((7, PartitionUnit::Day)),
        Just((14, PartitionUnit::Day)),
        Just((12, PartitionUnit::Hour)),
        Just((1, PartitionUnit::Month)),
    ];
    let worlds = (readings(), partitioning, 0i64..4, proptest::collection::vec(statements(), 25));
    let mut runner = TestRunner::new(ProptestConfig { cases: 16, max_shrink_iters: 60, ..ProptestConfig::default() });
    let outcome = runner.run(&worlds, |(rows, (count, unit), unsplit, statements)| {
        let partitioning = Partitioning::new("timestamp", count, unit).unwrap();
        let sqlite = |name: &str, home: &std::path::Path| ConnectRequest::sqlite(name, home);
        let unsplit = |row: &Reading| unsplit == 0 && row.time.as_microsecond() % 3 == 0;
        let world = World::mixed(&rows, &partitioning, &unsplit, &sqlite);
        for (sql, ordered) in statements {
            let plain = world.ask("plain", &sql).map_err(|error| TestCaseError::fail(format!("{sql}: {error}")))?;
            let split = world.ask("split", &sql).map_err(|error| TestCaseError::fail(format!("{sql}: {error}")))?;
            prop_assert_eq!(sorted(&split, ordered), sorted(&plain, ordered), "{}", sql);
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
