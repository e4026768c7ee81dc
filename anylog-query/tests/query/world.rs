//! Answers over partitions against one database that holds all rows.

use std::sync::Arc;

use anylog_core::{Caller, Node, Session};
use anylog_dbms::{
    Catalog, Column, ColumnType, ConnectRequest, Dbms, PartitionUnit, Partitioning, SqlValue, TableSchema, Target,
};
use anylog_net::peers::LocalPeers;
use anylog_query::{Cell, QueryError, QueryService, Request};
use jiff::Timestamp;
use proptest::prelude::*;

const COLUMNS: [(&str, ColumnType); 9] = [
    ("row_id", ColumnType::Serial),
    ("insert_timestamp", ColumnType::Timestamp),
    ("tsd_name", ColumnType::Varchar),
    ("tsd_id", ColumnType::Int),
    ("timestamp", ColumnType::Timestamp),
    ("value", ColumnType::Double),
    ("device", ColumnType::Varchar),
    ("count", ColumnType::BigInt),
    ("ok", ColumnType::Boolean),
];

/// Two databases with the same rows: `plain` in one table, `split` in partitions by day.
pub(crate) struct World {
    pub(crate) service: Arc<QueryService>,
    pub(crate) node: Arc<Node>,
    _home: tempfile::TempDir,
}

#[derive(Debug, Clone)]
pub(crate) struct Reading {
    pub(crate) time: Timestamp,
    pub(crate) value: Option<f64>,
    pub(crate) device: Option<String>,
    pub(crate) count: i64,
    pub(crate) ok: Option<bool>,
}

impl Reading {
    pub(crate) fn at(time: &str, value: f64, device: &str, count: i64, ok: bool) -> Self {
        Self { time: time.parse().unwrap(), value: Some(value), device: Some(device.into()), count, ok: Some(ok) }
    }

    /// Its stored values; `source` is the member and the number of the file that it came with.
    fn values(&self, source: Option<(i64, i64)>) -> Vec<SqlValue> {
        let text = |text: String| SqlValue::Text(text);
        vec![
            text(anylog_core::time::stored(self.time)),
            text(source.map_or("0".into(), |(member, _)| member.to_string())),
            source.map_or(SqlValue::Null, |(_, file)| SqlValue::Int(file)),
            text(anylog_core::time::stored(self.time)),
            self.value.map_or(SqlValue::Null, SqlValue::Float),
            self.device.clone().map_or(SqlValue::Null, SqlValue::Text),
            SqlValue::Int(self.count),
            self.ok.map_or(SqlValue::Null, SqlValue::Bool),
        ]
    }
}

pub(crate) fn schema() -> TableSchema {
    let column = |(name, kind): (&str, ColumnType)| Column { name: name.into(), kind, not_null: false, default: None };
    TableSchema { name: "t".into(), columns: COLUMNS.map(column).to_vec(), indexes: Vec::new() }
}

impl World {
    /// In SQLite.
    pub(crate) fn new(rows: &[Reading], partitioning: &Partitioning) -> Self {
        Self::over(rows, partitioning, &|name, home| ConnectRequest::sqlite(name, home))
    }

    /// In databases that `request` asks for.
    pub(crate) fn over(
        rows: &[Reading],
        partitioning: &Partitioning,
        request: &dyn Fn(&str, &std::path::Path) -> ConnectRequest,
    ) -> Self {
        Self::mixed(rows, partitioning, &|_| false, request)
    }

    /// The same with some rows left in the table itself, as before it was split.
    pub(crate) fn mixed(
        rows: &[Reading],
        partitioning: &Partitioning,
        unsplit: &dyn Fn(&Reading) -> bool,
        request: &dyn Fn(&str, &std::path::Path) -> ConnectRequest,
    ) -> Self {
        let home = tempfile::tempdir().unwrap();
        let node = Node::builder().home(home.path()).build();
        let catalog = Catalog::new(Arc::clone(&node));
        let peers = LocalPeers::new();
        let ledger = anylog_ledger::Ledger::new(Arc::clone(&node), Arc::clone(&catalog), Arc::clone(&peers) as _);
        let service = QueryService::new(Arc::clone(&node), Arc::clone(&catalog), ledger, peers);
        let connect = |name: &str| {
            let database = catalog.connect(request(name, home.path())).unwrap();
            database.dbms().drop_table("t").unwrap();
            database.dbms().create_table(&schema()).unwrap();
            Arc::clone(database.dbms())
        };
        let (plain, split) = (connect("plain"), connect("split"));
        store(&plain, &Target::table("t"), rows.iter());
        store(&split, &Target::table("t"), rows.iter().filter(|row| unsplit(row)));
        let rows: Vec<Reading> = rows.iter().filter(|row| !unsplit(row)).cloned().collect();
        let mut names: Vec<String> = rows.iter().map(|row| partitioning.name("t", row.time)).collect();
        names.sort();
        names.dedup();
        for name in names {
            split.create_partition(&schema(), &name).unwrap();
            let own = rows.iter().filter(|row| partitioning.name("t", row.time) == name);
            store(&split, &Target::partition("t", &name), own);
        }
        for command in anylog_query::commands(Arc::clone(&service)) {
            node.registry.register(command).unwrap();
        }
        Self { service, node, _home: home }
    }

    pub(crate) fn by_day(rows: &[Reading]) -> Self {
        Self::new(rows, &Partitioning::new("timestamp", 1, PartitionUnit::Day).unwrap())
    }

    pub(crate) fn ask(&self, dbms: &str, sql: &str) -> Result<Vec<Vec<Cell>>, QueryError> {
        runtime().block_on(async {
            let mut answer = self.service.select(Request::new(dbms, sql)).await?;
            let mut rows = Vec::new();
            while let Some(more) = answer.next().await {
                rows.extend(more?);
            }
            Ok(rows)
        })
    }

    pub(crate) fn run(&self, line: &str) -> Result<String, String> {
        self.run_as(Caller::embedded(), line)
    }

    pub(crate) fn run_as(&self, caller: Caller, line: &str) -> Result<String, String> {
        runtime().block_on(async {
            let mut session = Session::new(Arc::clone(&self.node), caller);
            let reply = session.execute(line).await.map_err(|error| format!("{} {error}", error.status.0))?;
            reply.into_text().await.map_err(|error| format!("late {} {error}", error.status.0))
        })
    }
}

impl Drop for World {
    // Commands and node hold each other: the files are given back by hand.
    fn drop(&mut self) {
        for name in ["plain", "split"] {
            self.service.catalog().disconnect(name).ok();
        }
    }
}

pub(crate) fn store<'a>(dbms: &Arc<dyn Dbms>, target: &Target, rows: impl Iterator<Item = &'a Reading>) {
    store_of(dbms, target, None, rows);
}

pub(crate) fn store_of<'a>(
    dbms: &Arc<dyn Dbms>,
    target: &Target,
    source: Option<(i64, i64)>,
    rows: impl Iterator<Item = &'a Reading>,
) {
    let columns: Vec<String> = COLUMNS[1..].iter().map(|(name, _)| (*name).to_owned()).collect();
    let rows: Vec<Vec<SqlValue>> = rows.map(|row| row.values(source)).collect();
    dbms.apply(target, &columns, &rows, &[]).unwrap();
}

pub(crate) fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: std::sync::OnceLock<tokio::runtime::Runtime> = std::sync::OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap())
}

pub(crate) fn three_days() -> World {
    World::by_day(&[
        Reading::at("2026-11-20T01:02:03.456Z", 3.25, "d1", 7, false),
        Reading::at("2026-11-20T01:40:00Z", 4.0, "d2", 8, true),
        Reading::at("2026-11-21T05:00:59.600Z", 1.5, "d1", 9, true),
        Reading::at("2026-11-22T23:59:59.999999Z", 10.0, "d3", 10, false),
    ])
}

/// Rows without an order, as texts; floats to nine digits.
pub(crate) fn sorted(rows: &[Vec<Cell>], ordered: bool) -> Vec<String> {
    let cell = |cell: &Cell| match cell {
        Cell::Float(value) => format!("{value:.9e}"),
        other => format!("{other:?}"),
    };
    let mut texts: Vec<String> = rows.iter().map(|row| row.iter().map(cell).collect::<Vec<_>>().join("|")).collect();
    if !ordered {
        texts.sort();
    }
    texts
}

pub(crate) fn readings() -> impl Strategy<Value = Vec<Reading>> {
    let reading = (
        0i64..20 * 86_400_000_000,
        proptest::option::weighted(0.9, prop_oneof![(-50i32..50).prop_map(f64::from), -1e6f64..1e6]),
        proptest::option::weighted(0.9, proptest::sample::select(vec!["d1", "d2", "D3", "it's", ""])),
        prop_oneof![-5i64..5, Just(i64::from(i32::MAX)), Just(1_700_000_000_000_000_000)],
        proptest::option::of(any::<bool>()),
    );
    let reading = reading.prop_map(|(micros, value, device, count, ok)| Reading {
        time: "2026-10-25T00:00:00Z".parse::<Timestamp>().unwrap() + jiff::SignedDuration::from_micros(micros),
        value,
        device: device.map(str::to_owned),
        count,
        ok,
    });
    proptest::collection::vec(reading, 0..40)
}

pub(crate) fn statements() -> impl Strategy<Value = (String, bool)> {
    let condition = proptest::sample::select(vec![
        "value > 3",
        "device = 'd1'",
        "device is not null",
        "timestamp >= '2026-10-30'",
        "timestamp < '2026-11-05 12:00:00'",
        "timestamp between '2026-10-28' and '2026-11-02T00:00:00Z'",
        "ok",
        "not ok",
        "count in (1, 2, 3)",
        "(value < 0 or timestamp > '2026-11-01')",
        "device like 'd%'",
    ]);
    let filter = proptest::collection::vec(condition, 0..3)
        .prop_map(|terms| if terms.is_empty() { String::new() } else { format!(" where {}", terms.join(" and ")) });
    let aggregates = proptest::sample::subsequence((0..14).collect::<Vec<usize>>(), 1..4);
    const AGGREGATES: [&str; 14] = [
        "count(*)",
        "count(value)",
        "sum(value)",
        "min(value)",
        "max(timestamp)",
        "avg(value)",
        "avg(count)",
        "range(value)",
        "count(distinct device)",
        "max(device)",
        "min(ok)",
        "max(value) - min(value)",
        "sum(value * 2) + count(*)",
        "total(value)",
    ];
    let aggregates =
        aggregates.prop_map(|chosen| chosen.into_iter().map(|index| AGGREGATES[index]).collect::<Vec<_>>().join(", "));
    let key = proptest::sample::select(vec!["device", "ok", "date_trunc('day', timestamp)", "count % 2"]);
    let unit = proptest::sample::select(vec!["minute, 7", "hour, 5", "day, 3", "week, 1", "month, 1", "year, 1"]);
    let limit =
        proptest::option::of(0u32..5).prop_map(|limit| limit.map(|n| format!(" limit {n}")).unwrap_or_default());
    prop_oneof![
        filter.clone().prop_map(|filter| (format!("select timestamp, value, device, count, ok from t{filter}"), false)),
        (filter.clone(), limit.clone(), proptest::sample::select(vec!["", " desc"]))
            .prop_map(|(filter, limit, way)| (format!("select timestamp, count, value, device from t{filter} order by timestamp{way}, count, value, device{limit}"), true)),
        (filter.clone(), limit.clone())
            .prop_map(|(filter, limit)| (format!("select count, value, device from t{filter} order by value desc, count, device{limit}"), true)),
        (filter.clone(), aggregates.clone()).prop_map(|(filter, list)| (format!("select {list} from t{filter}"), false)),
        (filter.clone(), aggregates.clone(), key.clone(), limit.clone())
            .prop_map(|(filter, list, key, limit)| (format!("select {key} as k, {list} from t{filter} group by {key} order by k{limit}"), true)),
        (filter.clone(), aggregates.clone(), key.clone())
            .prop_map(|(filter, list, key)| (format!("select {key} as k, {list} from t{filter} group by k having count(*) > 1"), false)),
        (filter.clone(), key).prop_map(|(filter, key)| (format!("select distinct {key} as k, ok from t{filter}"), false)),
        (filter, aggregates, unit)
            .prop_map(|(filter, list, unit)| (format!("select increments({unit}, timestamp), {list} from t{filter}"), true)),
    ]
}
