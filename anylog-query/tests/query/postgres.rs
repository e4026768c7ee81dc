//! Over PostgreSQL, a table for each partition.

use anylog_dbms::{PartitionUnit, Partitioning};
use anylog_query::Cell;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::server::Server;
use crate::world::{Reading, World, readings, sorted, statements};

fn world(server: &Server, rows: &[Reading], count: u32, unit: PartitionUnit) -> World {
    World::over(rows, &Partitioning::new("timestamp", count, unit).unwrap(), &|name, _| server.request(name))
}

#[test]
fn the_dialect_runs_on_postgres() {
    // QRY-1
    let server = Server::start();
    let rows = [
        Reading::at("2026-11-20T01:02:03.456Z", 3.25, "d1", 7, false),
        Reading::at("2026-11-20T01:40:00Z", 4.0, "d2", 8, true),
        Reading::at("2026-11-21T05:00:59.600Z", 1.5, "d1", 9, true),
    ];
    let world = world(&server, &rows, 1, PartitionUnit::Day);
    let ask = |sql: &str| world.ask("split", sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let text = |text: &str| Cell::Text(text.into());
    assert_eq!(
        ask("select timestamp, value, ok, count from t where device = 'd1' order by timestamp desc limit 1"),
        [[text("2026-11-21 05:00:59.600000"), Cell::Float(1.5), Cell::Bool(true), Cell::Int(9)]]
    );
    assert_eq!(
        ask("select count(*), avg(value), sum(count), range(value), max(timestamp) from t"),
        [[Cell::Int(3), Cell::Float(8.75 / 3.0), Cell::Int(24), Cell::Float(2.5), text("2026-11-21 05:00:59.600000")]]
    );
    assert_eq!(
        ask("select increments(second, 30, timestamp), min(timestamp), count(*) from t where timestamp > '2026-11-21'"),
        [[text("2026-11-21 05:00:59.600000"), Cell::Int(1)]]
    );
    assert_eq!(ask("select value from t where period(day, 1, now(), timestamp)"), [[Cell::Float(1.5)]]);
    assert_eq!(ask("select distinct device from t where value > 1 order by device"), [[text("d1")], [text("d2")]]);
    assert_eq!(ask("select count(*) from t where device = 'is it?'"), [[Cell::Int(0)]]);
}

#[test]
fn any_statement_over_any_partitions_equals_one_table() {
    // QRY-1
    let server = Server::start();
    let units =
        prop_oneof![Just((1, PartitionUnit::Day)), Just((7, PartitionUnit::Day)), Just((1, PartitionUnit::Month))];
    let worlds = (readings(), units, proptest::collection::vec(statements(), 25));
    let mut runner = TestRunner::new(ProptestConfig { cases: 4, max_shrink_iters: 20, ..ProptestConfig::default() });
    let outcome = runner.run(&worlds, |(rows, (count, unit), statements)| {
        let world = world(&server, &rows, count, unit);
        // SQLite's own aggregate.
        for (sql, ordered) in
            statements.into_iter().filter(|(sql, _)| !sql.contains("total(") && !sql.contains("min(ok)"))
        {
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
