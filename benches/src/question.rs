//! What is asked of a network, of one operator and of bare sqlite3, and how long the answers take.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::http;
use crate::network::Member;

/// The database and the table of the operators.
pub const DBMS: &str = "plant";
/// See [`DBMS`].
pub const TABLE: &str = "readings";

/// Devices of each operator.
const DEVICES: u64 = 100;

/// A statement.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    /// What it shows.
    pub name: &'static str,
    /// In the dialect.
    pub sql: &'static str,
    /// The same for bare SQLite, where that is a comparison; the shortest text that gives the same groups.
    pub bare: Option<&'static str>,
}

/// The statements. `readings` has the columns `timestamp`, `device`, `temperature`, `pressure`.
pub const QUESTIONS: &[Question] = &[
    Question { name: "count(*)", sql: "select count(*) from readings", bare: Some("select count(*) from readings") },
    Question { name: "first and last time", sql: "select min(timestamp), max(timestamp) from readings", bare: None },
    Question {
        name: "min max avg",
        sql: "select min(temperature), max(temperature), avg(temperature) from readings",
        bare: Some("select min(temperature), max(temperature), avg(temperature) from readings"),
    },
    Question {
        name: "group by device",
        sql: "select device, count(*), min(temperature), max(temperature), avg(temperature) from readings group by device",
        bare: Some(
            "select device, count(*), min(temperature), max(temperature), avg(temperature) from readings group by device",
        ),
    },
    Question {
        name: "increments day",
        sql: "select increments(day, 1, timestamp), max(timestamp), min(temperature), max(temperature), avg(temperature) from readings",
        bare: Some(
            "select max(timestamp), min(temperature), max(temperature), avg(temperature) from readings group by substr(timestamp, 1, 10)",
        ),
    },
    Question {
        name: "increments hour",
        sql: "select increments(hour, 1, timestamp), max(timestamp), min(temperature), max(temperature), avg(temperature) from readings",
        bare: Some(
            "select max(timestamp), min(temperature), max(temperature), avg(temperature) from readings group by substr(timestamp, 1, 13)",
        ),
    },
    Question {
        name: "increments 5 min",
        sql: "select increments(minute, 5, timestamp), max(timestamp), min(temperature), max(temperature), avg(temperature) from readings",
        bare: Some(
            "select max(timestamp), min(temperature), max(temperature), avg(temperature) from readings \
             group by substr(timestamp, 1, 13), cast(substr(timestamp, 15, 2) as integer) / 5",
        ),
    },
    Question {
        name: "increments minute",
        sql: "select increments(minute, 1, timestamp), max(timestamp), min(temperature), max(temperature), avg(temperature) from readings",
        bare: Some(
            "select max(timestamp), min(temperature), max(temperature), avg(temperature) from readings group by substr(timestamp, 1, 16)",
        ),
    },
    Question {
        name: "period day",
        sql: "select count(*), min(temperature), max(temperature), avg(temperature) from readings where period(day, 1, now(), timestamp)",
        bare: None,
    },
    Question {
        name: "period 3 days, group by",
        sql: "select device, count(*), avg(temperature) from readings where period(day, 3, now(), timestamp) group by device",
        bare: None,
    },
    Question {
        name: "where, one hour",
        sql: "select count(*), avg(temperature) from readings where timestamp >= '2026-03-03 10:00:00' and timestamp < '2026-03-03 11:00:00'",
        bare: None,
    },
    Question {
        name: "where, a condition on a value",
        sql: "select count(*) from readings where temperature > 59.5",
        bare: Some("select count(*) from readings where temperature > 59.5"),
    },
];

/// Writes row `n` of `rows` of an operator: times are spread evenly over the days from 2026-03-01, values look like chance.
///
/// # Errors
///
/// When it cannot be written.
pub fn write_row(out: &mut impl Write, operator: u64, n: u64, rows: u64, days: u64) -> io::Result<()> {
    let micros = n * (days * 86_400_000_000 / rows.max(1)) + operator * 7;
    let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
    let (day, hour, minute, second) = (seconds / 86_400 + 1, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let chance = (n + operator * rows).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let device = chance % DEVICES + operator * DEVICES / 2;
    let (temperature, pressure) = (chance / DEVICES % 8000, chance / 800_000 % 900);
    writeln!(
        out,
        r#"{{"timestamp": "2026-03-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z", "device": "pump-{device:03}", "temperature": {}.{:02}, "pressure": {}.{}}}"#,
        temperature / 100,
        temperature % 100,
        pressure / 10,
        pressure % 10,
    )
}

/// How long a statement took.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// From connecting to the last byte, as the client sees it.
    pub total: Duration,
    /// The time in the database that each operator reports for its part; for `period` that of both its steps.
    pub database: Vec<Duration>,
}

impl Asked {
    /// The longest that an operator reports.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.database.iter().max().copied().unwrap_or_default()
    }
}

/// Asks the query node for an answer of these operators.
///
/// # Errors
///
/// When there is no answer, or not all of these operators took part in it.
pub fn over_network(query: &Member, operators: &[Member], sql: &str) -> io::Result<Asked> {
    let nodes: Vec<String> = operators.iter().map(|operator| format!("127.0.0.1:{}", operator.tcp)).collect();
    let headers = format!("destination: {}\r\ncommand: sql {DBMS} format=json \"{sql}\"\r\n", nodes.join(", "));
    let start = Instant::now();
    let answer = http::request(query.rest, "GET", &headers, b"")?;
    let total = start.elapsed();
    let text = String::from_utf8_lossy(&answer.body);
    if answer.status != 200 || !text.ends_with(&format!("\"Nodes\": {}}}]}}", operators.len())) {
        return Err(io::Error::other(format!("{sql}: status {}: {text:.500}", answer.status)));
    }
    let reported = database_times(&query.get("query destination")?);
    let of = |node: &String| reported.iter().filter(|(address, _)| address == node).map(|(_, time)| *time).sum();
    Ok(Asked { total, database: nodes.iter().map(of).collect() })
}

/// Nodes and their times in the table of `query destination`: job, node, database, table, seconds, statement.
fn database_times(table: &str) -> Vec<(String, Duration)> {
    let read = |line: &str| {
        let fields: Vec<&str> = line.split('|').map(str::trim).collect();
        let seconds: f64 = fields.get(4)?.parse().ok()?;
        Some(((*fields.get(1)?).to_owned(), Duration::try_from_secs_f64(seconds).ok()?))
    };
    table.lines().filter_map(read).collect()
}

/// Asks one operator for the answer of its own rows.
///
/// # Errors
///
/// When there is none.
pub fn at_operator(operator: &Member, sql: &str) -> io::Result<Duration> {
    let headers = format!("command: sql {DBMS} format=json and stat=false \"{sql}\"\r\n");
    let start = Instant::now();
    let answer = http::request(operator.rest, "GET", &headers, b"")?;
    let total = start.elapsed();
    if answer.status == 200 { Ok(total) } else { Err(io::Error::other(format!("{sql}: status {}", answer.status))) }
}

/// Asks a new sqlite3 process; its start counts.
///
/// # Errors
///
/// When it fails.
pub fn at_sqlite(file: &Path, sql: &str) -> io::Result<Duration> {
    let start = Instant::now();
    let status = Command::new("sqlite3").arg(file).arg(sql).stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    let total = start.elapsed();
    if status.success() { Ok(total) } else { Err(io::Error::other(format!("sqlite3 ended with {status}: {sql}"))) }
}

/// Puts the rows of an operator's partitions into one table of one file, with the same columns and indexes, in the order in
/// which they were stored.
///
/// # Errors
///
/// When SQLite fails.
pub fn in_one_piece(partitions: &[PathBuf], directory: &Path) -> io::Result<PathBuf> {
    let file = directory.join("one.dbms");
    let copy = || -> rusqlite::Result<()> {
        let one = Connection::open(&file)?;
        one.execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;")?;
        for (number, partition) in partitions.iter().enumerate() {
            let name = partition.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            one.execute("ATTACH ?1 AS part", [partition.to_string_lossy()])?;
            if number == 0 {
                let sql =
                    "SELECT sql FROM part.sqlite_master WHERE tbl_name = ?1 AND sql IS NOT NULL ORDER BY type DESC";
                let texts: Vec<String> =
                    one.prepare(sql)?.query_map([&name], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
                texts.iter().try_for_each(|text| one.execute_batch(&text.replace(&name, TABLE)))?;
            }
            let columns = "insert_timestamp, tsd_name, tsd_id, timestamp, device, temperature, pressure";
            one.execute_batch(&format!(
                "INSERT INTO main.{TABLE}({columns}) SELECT {columns} FROM part.\"{name}\" ORDER BY row_id; DETACH part;"
            ))?;
        }
        one.execute_batch("PRAGMA wal_checkpoint(TRUNCATE);")
    };
    copy().map_err(io::Error::other)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_operators_are_read() {
        let table = "Job Destination     DBMS  Table    DBMS Time Command\n\
                     ---|---------------|-----|--------|---------|-----------------------------|\n\
                     \x20 7|127.0.0.1:32148|plant|readings| 0.020500|select count(*) from readings|\n";
        let read = database_times(table);
        assert_eq!(read, [("127.0.0.1:32148".to_owned(), Duration::from_micros(20_500))]);
    }

    #[test]
    fn rows_cover_their_days() {
        let row = |n| {
            let mut out = Vec::new();
            write_row(&mut out, 1, n, 1_000_000, 10).expect("written");
            let row: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
            assert!(row["temperature"].is_f64() && row["pressure"].is_f64(), "{row}");
            row["timestamp"].as_str().expect("a time").to_owned()
        };
        assert_eq!(row(0), "2026-03-01T00:00:00.000007Z");
        assert_eq!(row(999_999), "2026-03-10T23:59:59.136007Z");
    }
}
