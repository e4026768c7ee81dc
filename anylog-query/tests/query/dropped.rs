//! Partitions that are dropped between the look at a table and the reading of its rows.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anylog_dbms::{
    ColumnType, ConnectRequest, Dbms, DbmsError, DbmsInfo, Engine, PartitionUnit, Partitioning, SegmentId, SqlValue,
    TableSchema, Target, Visit,
};

use crate::server::Server;
use crate::world::{Reading, World, sorted};

/// A database that tells of a partition which is gone when somebody comes to read it.
#[derive(Debug)]
struct Stale {
    real: Arc<dyn Dbms>,
    gone: &'static str,
    /// How many of the next looks see it.
    looks: AtomicUsize,
}

type Done<T = ()> = Result<T, DbmsError>;

impl Dbms for Stale {
    fn partitions(&self, table: &str) -> Done<Vec<String>> {
        let mut names = self.real.partitions(table)?;
        let seen = self.looks.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |looks| looks.checked_sub(1));
        names.extend(seen.is_ok().then(|| self.gone.to_owned()));
        names.sort();
        Ok(names)
    }

    fn engine(&self) -> Engine {
        self.real.engine()
    }

    fn info(&self) -> DbmsInfo {
        self.real.info()
    }

    fn tables(&self) -> Done<Vec<String>> {
        self.real.tables()
    }

    fn schema(&self, table: &str) -> Done<Option<TableSchema>> {
        self.real.schema(table)
    }

    fn create_table(&self, schema: &TableSchema) -> Done {
        self.real.create_table(schema)
    }

    fn widen_column(&self, table: &str, column: &str, to: ColumnType) -> Done {
        self.real.widen_column(table, column, to)
    }

    fn drop_table(&self, table: &str) -> Done {
        self.real.drop_table(table)
    }

    fn create_partition(&self, schema: &TableSchema, partition: &str) -> Done {
        self.real.create_partition(schema, partition)
    }

    fn drop_partition(&self, table: &str, partition: &str) -> Done {
        self.real.drop_partition(table, partition)
    }

    fn apply(&self, target: &Target, columns: &[String], rows: &[Vec<SqlValue>], marks: &[(SegmentId, u64)]) -> Done {
        self.real.apply(target, columns, rows, marks)
    }

    fn applied(&self, target: &Target, segment: SegmentId) -> Done<Option<u64>> {
        self.real.applied(target, segment)
    }

    fn forget(&self, segments: &[SegmentId]) -> Done {
        self.real.forget(segments)
    }

    fn sync(&self) -> Done {
        self.real.sync()
    }

    fn query(&self, target: Option<&Target>, sql: &str, visit: Visit<'_>) -> Done {
        self.real.query(target, sql, visit)
    }

    fn execute(&self, sql: &str) -> Done<u64> {
        self.real.execute(sql)
    }

    fn execute_all(&self, statements: &[anylog_dbms::Checked]) -> Done<bool> {
        self.real.execute_all(statements)
    }

    fn count(&self, target: &Target) -> Done<u64> {
        self.real.count(target)
    }
}

const GONE: &str = "par_t_2026_11_22_d01_timestamp";

fn answers_do_not_miss_it(world: &World, looks: usize) {
    let real = Arc::clone(world.service.catalog().get("split").unwrap().dbms());
    let stale = Arc::new(Stale { real, gone: GONE, looks: AtomicUsize::new(0) });
    world.service.catalog().attach("stale", stale.clone()).unwrap();
    let statements = [
        // One place, which is gone: what has no rows still counts them.
        "select count(*), max(value) from t where timestamp >= '2026-11-22' and timestamp < '2026-11-23'",
        "select value from t where timestamp >= '2026-11-22' and timestamp < '2026-11-23'",
        "select device, count(*) from t where timestamp >= '2026-11-22' and timestamp < '2026-11-23' group by device",
        // Several.
        "select count(*), sum(value), avg(value) from t",
        "select device, sum(value) from t group by device order by device",
        "select value from t order by value",
        "select value from t order by timestamp desc",
        "select value from t order by timestamp desc limit 1",
        "select max(timestamp) from t",
        "select distinct device from t order by device",
        "select count(distinct device), stddev(value) from t",
        "select increments(day, 1, timestamp), count(*) from t",
        "select value from t where period(day, 2, now(), timestamp)",
    ];
    for sql in statements {
        let right = world.ask("plain", sql).unwrap();
        stale.looks.store(looks, Ordering::Relaxed);
        let answer = world.ask("stale", sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert_eq!(answer, right, "{sql}");
        assert!(stale.looks.load(Ordering::Relaxed) < looks, "{sql} did not look");
    }
}

fn readings() -> [Reading; 3] {
    [
        Reading::at("2026-11-20T01:02:03.456Z", 3.25, "d1", 7, false),
        Reading::at("2026-11-20T01:40:00Z", 4.0, "d2", 8, true),
        Reading::at("2026-11-21T05:00:59.600Z", 1.5, "d1", 9, true),
    ]
}

// QRY-1
#[test]
fn a_partition_that_goes_before_its_first_row_has_none() {
    answers_do_not_miss_it(&World::by_day(&readings()), 2);
}

// QRY-1: one statement over all partitions finds one of them gone.
#[test]
fn a_partition_that_goes_before_its_first_row_has_none_on_postgres() {
    let server = Server::start();
    let days = Partitioning::new("timestamp", 1, PartitionUnit::Day).unwrap();
    let request = |name: &str, _: &std::path::Path| -> ConnectRequest { server.request(name) };
    answers_do_not_miss_it(&World::over(&readings(), &days, &request), 2);
}

// A plan is not made again for ever.
#[test]
fn a_place_that_is_never_there_is_named() {
    let world = World::by_day(&readings());
    let real = Arc::clone(world.service.catalog().get("split").unwrap().dbms());
    let stale = Arc::new(Stale { real, gone: GONE, looks: AtomicUsize::new(usize::MAX) });
    world.service.catalog().attach("stale", stale).unwrap();
    let sql = "select count(*) from t where timestamp >= '2026-11-22' and timestamp < '2026-11-23'";
    let error = world.ask("stale", sql).unwrap_err();
    assert!(error.to_string().contains(GONE), "{error}");
}

// More partitions than one statement of a server should name: QRY-1.
#[test]
fn hundreds_of_partitions_on_postgres_are_one_table() {
    let server = Server::start();
    let rows: Vec<Reading> = (0..300_i64)
        .map(|day| {
            let time =
                "2026-01-01T12:00:00Z".parse::<jiff::Timestamp>().unwrap() + jiff::SignedDuration::from_hours(24 * day);
            let device = ["d1", "d2", "d3"][usize::try_from(day % 3).unwrap()];
            #[expect(clippy::cast_precision_loss, reason = "a small number")]
            Reading::at(&time.to_string(), day as f64 / 4.0, device, day, day % 2 == 0)
        })
        .collect();
    let days = Partitioning::new("timestamp", 1, PartitionUnit::Day).unwrap();
    let world = World::over(&rows, &days, &|name, _| server.request(name));
    for sql in [
        "select count(*), sum(count), avg(value), min(timestamp), max(device) from t",
        "select device, count(*), sum(value), stddev(value) from t where value > 3 group by device order by device",
        "select date_trunc('month', timestamp) as m, avg(count) from t group by m order by m desc limit 3",
        "select increments(day, 20, timestamp), max(value) from t",
        "select count(distinct device) from t",
        "select value, device from t order by device, value desc limit 7",
        "select value from t order by timestamp desc limit 200",
        "select device, count(*) from t group by device having count(*) > 1000",
    ] {
        let ordered = sql.contains("order by");
        let (plain, split) = (world.ask("plain", sql).unwrap(), world.ask("split", sql).unwrap());
        assert_eq!(sorted(&split, ordered), sorted(&plain, ordered), "{sql}");
    }
}
