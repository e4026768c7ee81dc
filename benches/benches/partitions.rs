//! A table of many partitions: what they cost beside a table without, and what their dropping gives back.
//!
//! Partitions and rows are made first. Then, over the same files, with the release program: its start, with and without the
//! partitions; rows sent to the newest partition and to the table without partitions, in turns; a query over one day, through the
//! table, over a table that has the rows of that day alone, and with SQLite on the partition's file; statements over all partitions;
//! all partitions but three dropped. In the end stands what is asked of each.
//!
//! Ten million rows take 1.7 GB and some minutes to make; `--rows 2000000` is quicker, and shows more of what a request costs beside
//! its rows.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints measurements")]

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anylog_benches::message;
use anylog_benches::partitions::{FLAT, Home, Running, SPLIT};
use anylog_benches::rest::{Ask, Load, run};
use anylog_benches::run::{Words, release_program};

const HELP: &str =
    "partitions [--partitions 400] [--rows 10000000] [--rounds 5] [--seconds 2] [--binary PATH] [--dir PATH]";

/// Starts of each kind, and repetitions of each query.
const STARTS: usize = 5;
const REPEATED: usize = 61;

struct Arguments {
    partitions: u32,
    rows: u64,
    rounds: usize,
    slice: Duration,
    binary: Option<PathBuf>,
    directory: PathBuf,
}

fn main() -> ExitCode {
    anylog_benches::run::run("partitions", |words| measure(&arguments(words)?).map_err(|error| error.to_string()))
}

fn arguments(words: &[String]) -> Result<Arguments, String> {
    let mut arguments = Arguments {
        partitions: 400,
        rows: 10_000_000,
        rounds: 5,
        slice: Duration::from_secs(2),
        binary: None,
        directory: PathBuf::from(env!("CARGO_TARGET_TMPDIR")),
    };
    let mut words = Words::new(words, HELP);
    while let Some(word) = words.word() {
        match word {
            "--partitions" => arguments.partitions = words.number::<u32>()?.max(4),
            "--rows" => arguments.rows = words.number()?,
            "--rounds" => arguments.rounds = words.number()?,
            "--seconds" => arguments.slice = Duration::from_secs(words.number()?),
            "--binary" => arguments.binary = Some(PathBuf::from(words.value()?)),
            "--dir" => arguments.directory = PathBuf::from(words.value()?),
            _ => return Err(words.unknown()),
        }
    }
    Ok(arguments)
}

fn measure(arguments: &Arguments) -> io::Result<()> {
    let binary = arguments.binary.clone().map_or_else(|| release_program().map_err(io::Error::other), Ok)?;
    let rows = arguments.rows / u64::from(arguments.partitions);
    let begun = Instant::now();
    let (home, small) =
        (Home::make(&arguments.directory, arguments.partitions, rows)?, Home::make(&arguments.directory, 0, rows)?);
    println!(
        "{} partitions of {rows} rows, {:.0} MB, made in {:.0} s",
        arguments.partitions,
        megabytes(home.bytes()?),
        begun.elapsed().as_secs_f64()
    );
    let mut judged = Judged::default();
    starts(&home, &small, &binary, &mut judged)?;
    let (node, _) = home.start(&binary, &one_day(&home, SPLIT))?;
    queries(&home, &node, &mut judged)?;
    whole(&node)?;
    inserts(arguments, &node, &mut judged)?;
    drops(&home, &node, arguments.partitions, &mut judged)?;
    judged.print();
    Ok(())
}

/// What was measured beside what is asked.
#[derive(Default)]
struct Judged(Vec<(String, String, &'static str, bool)>);

impl Judged {
    fn add(&mut self, what: impl Into<String>, measured: String, asked: &'static str, met: bool) {
        self.0.push((what.into(), measured, asked, met));
    }

    fn print(&self) {
        println!("\nin short");
        for (what, measured, asked, met) in &self.0 {
            println!("{what:<58} {measured:>10}   asked {asked:<12} {}", if *met { "met" } else { "MISSED" });
        }
    }
}

const AGGREGATE: &str = "select count(*), min(value), max(value), avg(value)";

fn one_day(home: &Home, table: &str) -> String {
    sql(home, AGGREGATE, table, 2, "")
}

fn condition(home: &Home, age: u32) -> String {
    let day = |age| home.day(age).strftime("%Y-%m-%d %H:%M:%S").to_string();
    format!("insert_timestamp >= '{}' and insert_timestamp < '{}'", day(age), day(age - 1))
}

fn sql(home: &Home, select: &str, table: &str, age: u32, rest: &str) -> String {
    format!("sql test format=json and stat=false \"{select} from {table} where {}{rest}\"", condition(home, age))
}

fn starts(home: &Home, small: &Home, binary: &Path, judged: &mut Judged) -> io::Result<()> {
    let mut took: [[Vec<Duration>; 3]; 2] = Default::default();
    for _ in 0..STARTS {
        for (took, home) in took.iter_mut().zip([home, small]) {
            let (node, times) = home.start(binary, &one_day(home, SPLIT))?;
            took.iter_mut().zip(times).for_each(|(all, time)| all.push(time));
            node.terminate()?;
        }
    }
    let [with, without] = took;
    let ready = millis(median(with[1].clone()));
    judged.add("start of the node, until its operator runs", format!("{ready:.0} ms"), "< 300 ms", ready < 300.0);
    println!("\nstart, median of {STARTS}                     with      without partitions");
    for (what, (with, without)) in
        ["first REST answer", "the operator runs", "one day is counted"].iter().zip(with.into_iter().zip(without))
    {
        println!("{what:<30} {:>9.1} ms {:>9.1} ms", millis(median(with)), millis(median(without)));
    }
    Ok(())
}

/// Statements over one day: what they select, and what follows the condition.
const QUERIES: [(&str, &str, &str); 3] = [
    ("aggregates of a day", AGGREGATE, ""),
    ("aggregates with a filter", AGGREGATE, " and value > 500"),
    ("some rows of a day", "select timestamp, value", " and value > 980 order by timestamp limit 500"),
];

fn queries(home: &Home, node: &Running, judged: &mut Judged) -> io::Result<()> {
    println!(
        "\na query over one day, a quarter of {REPEATED}  table    by its name    rows of a day alone    SQLite on the file"
    );
    for (what, select, rest) in QUERIES {
        let (mut split, mut named, mut flat, mut bare) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let partition = home.partition(0);
        for round in 0..REPEATED {
            // The newest day: the table without partitions has the same rows.
            let over = |table: &str| {
                let sql = format!("{select} from {table} where {}{rest}", condition_of_newest(home));
                node.command("GET", &format!("sql test format=json and stat=false \"{sql}\""))
            };
            // One that is not counted, as the node rested; then in turns.
            let (rows, _) = over(SPLIT)?;
            let mut ways = [(&mut split, SPLIT), (&mut named, partition.as_str()), (&mut flat, FLAT)];
            ways.rotate_left(round % 3);
            for (times, table) in ways {
                let (same, took) = over(table)?;
                if rows != same {
                    return Err(io::Error::other(format!("{what}: {rows} and {same} are not the same")));
                }
                times.push(took);
            }
            let sql = format!("{select} from {partition} where {}{rest}", condition_of_newest(home));
            bare.push(by_sqlite(&home.partition_file(0), &sql)?);
        }
        let [split, named, flat, bare] = [split, named, flat, bare].map(|times| millis(quiet(times)));
        for (beside, by_hand) in [("of the partition by its name", named), ("of SQLite on its file", bare)] {
            let ratio = split / by_hand;
            judged.add(format!("{what}, {beside}"), format!("{ratio:.2}"), "<= 1.2", ratio <= 1.2);
        }
        println!(
            "{what:<34} {split:>7.2} ms {named:>7.2} ms = {:.2} {flat:>9.2} ms = {:.2} {bare:>12.2} ms = {:.2}",
            split / named,
            split / flat,
            split / bare
        );
    }
    Ok(())
}

/// Statements over all partitions.
const WHOLE: [(&str, &str); 4] = [
    ("number of rows", "select count(*) from"),
    ("first and last time", "select min(insert_timestamp), max(insert_timestamp) from"),
    ("an average", "select avg(value) from"),
    ("groups of a column", "select tsd_name, count(*), avg(value) from"),
];

fn whole(node: &Running) -> io::Result<()> {
    println!("\na query over all partitions, median of {STARTS}");
    for (what, select) in WHOLE {
        let group = if what.starts_with("groups") { " group by tsd_name" } else { "" };
        let sql = format!("sql test format=json and stat=false \"{select} {SPLIT}{group}\"");
        let times: io::Result<Vec<Duration>> = (0..STARTS).map(|_| Ok(node.command("GET", &sql)?.1)).collect();
        println!("{what:<34} {:>9.1} ms", millis(median(times?)));
    }
    Ok(())
}

fn condition_of_newest(home: &Home) -> String {
    let day = home.day(0).strftime("%Y-%m-%d %H:%M:%S");
    format!("insert_timestamp >= '{day}'")
}

/// The statement on the file, on a connection of its own as a person has it, prepared anew.
fn by_sqlite(file: &Path, sql: &str) -> io::Result<Duration> {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = rusqlite::Connection::open_with_flags(file, flags).map_err(io::Error::other)?;
    let start = Instant::now();
    let mut statement = connection.prepare(sql).map_err(io::Error::other)?;
    let columns = statement.column_count();
    let mut rows = statement.query(()).map_err(io::Error::other)?;
    while let Some(row) = rows.next().map_err(io::Error::other)? {
        for column in 0..columns {
            std::hint::black_box(row.get::<_, rusqlite::types::Value>(column).map_err(io::Error::other)?);
        }
    }
    Ok(start.elapsed())
}

fn inserts(arguments: &Arguments, node: &Running, judged: &mut Judged) -> io::Result<()> {
    let rate = |table: &str| -> io::Result<f64> {
        let ask = Ask::Rows { dbms: "test".to_owned(), table: table.to_owned(), rows: 1000 };
        let load =
            Load { port: node.rest, ask, connections: 2, payload: message::LEN, duration: arguments.slice, first: 0 };
        let answered = run(&load)?;
        Ok(answered.requests as f64 * 1000.0 / answered.elapsed.as_secs_f64())
    };
    for table in [SPLIT, FLAT] {
        rate(table)?;
    }
    let (mut split, mut flat, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..arguments.rounds {
        let (one, other) = (rate(SPLIT)?, rate(FLAT)?);
        split.push(one);
        flat.push(other);
        ratios.push(one / other);
    }
    println!("\nrows/s, 1000 a request, median of {} rounds", arguments.rounds);
    println!("{:<34} {:>9.0}", "into the newest partition", middle(split));
    println!("{:<34} {:>9.0}", "into a table without partitions", middle(flat));
    let ratio = middle(ratios);
    println!("{:<34} {ratio:>9.2}", "ratio within a round");
    judged.add("rows into the newest partition, of an unsplit table", format!("{ratio:.2}"), ">= 0.9", ratio >= 0.9);
    Ok(())
}

fn drops(home: &Home, node: &Running, partitions: u32, judged: &mut Judged) -> io::Result<()> {
    let (bytes, free) = (home.bytes()?, home.free()?);
    let going: u64 = (3..partitions)
        .filter_map(|age| std::fs::metadata(home.partition_file(age)).ok())
        .map(|known| known.len())
        .sum();
    let kept: u64 =
        (0..3).filter_map(|age| std::fs::metadata(home.partition_file(age)).ok()).map(|known| known.len()).sum();
    let (_, took) = node.command("POST", &format!("drop partition where dbms=test and table={SPLIT} and keep=3"))?;
    let (left, now) = (home.bytes()?, home.free()?);
    println!("\ndrop partition ... keep=3 of {partitions}");
    println!("{:<34} {:>9.2} s", "until its answer", took.as_secs_f64());
    println!("{:<34} {:>9.0} MB", "files before", megabytes(bytes));
    println!(
        "{:<34} {:>9.0} MB, of which {:.0} MB in three partitions",
        "files after",
        megabytes(left),
        megabytes(kept)
    );
    println!("{:<34} {:>9.0} MB", "free on the disk, more", megabytes(now.saturating_sub(free)));
    judged.add(
        format!("drop partition ... keep=3 of {partitions}"),
        format!("{:.2} s", took.as_secs_f64()),
        "< 5 s",
        took < Duration::from_secs(5),
    );
    let back = bytes.saturating_sub(left) as f64 / going.max(1) as f64;
    judged.add("its bytes that are back", format!("{:.0} %", back * 100.0), ">= 90 %", back >= 0.9);
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// The time that a quarter of them stay below: what else goes on at a machine only adds.
fn quiet(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 4).copied().unwrap_or_default()
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
