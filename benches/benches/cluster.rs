//! What it takes to hold the same on all members of a cluster.
//!
//! ```sh
//! cargo bench -p anylog-benches --bench cluster                     # three rounds of 1,000,000 rows
//! cargo bench -p anylog-benches --bench cluster -- catchup          # one part of it: catchup, ingest or join
//! cargo bench -p anylog-benches --bench cluster -- --small --rounds 1 --binary target/debug/anylog-node
//! ```
//!
//! * **catchup**: a member is away while its mates take rows, as files in the watch directory and as streams over REST; from its start
//!   until it holds them all, beside the time that one operator without mates takes for a file of as many rows;
//! * **ingest**: publishers at QoS 1 at 30 % of the rate that a member can take, while all members are there, and while one comes
//!   back to what it missed;
//! * **join**: a new member, until it holds 30 days in 14 tables: 420 partitions. What it says of its progress is printed.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints measurements")]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anylog_benches::cluster::{Cluster, DBMS, PUBLISHED, TOPIC, hand_over, held, prepare};
use anylog_benches::message;
use anylog_benches::mqtt::publisher::{self, Load, Published, Until};
use anylog_benches::report::median;
use anylog_benches::rest;
use anylog_benches::run::release_program;

const HELP: &str = "cluster [catchup|ingest|join ...] [--rounds 3] [--rows 1000000] [--seconds 4] [--small] [--binary PATH] [--dir PATH]";

const PARTS: [&str; 3] = ["catchup", "ingest", "join"];

/// Files in which the rows come.
const FILES: u64 = 10;

/// The share of the measured maximum at which ingestion goes on.
const SHARE: f64 = 0.3;

struct Arguments {
    parts: BTreeSet<String>,
    rounds: usize,
    rows: u64,
    slice: Duration,
    /// Tables and days of the member that joins, rows of each day and table.
    join: (u64, u64, u64),
    binary: PathBuf,
    directory: PathBuf,
}

fn main() -> ExitCode {
    anylog_benches::run::run("cluster", |words| run(&arguments(words)?).map_err(|error| error.to_string()))
}

fn arguments(words: &[String]) -> Result<Arguments, String> {
    let mut read = Arguments {
        parts: BTreeSet::new(),
        rounds: 3,
        rows: 1_000_000,
        slice: Duration::from_secs(4),
        join: (14, 30, 2_000),
        binary: PathBuf::new(),
        directory: PathBuf::from(env!("CARGO_TARGET_TMPDIR")),
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value: {HELP}"));
        let number = |text: &String| text.parse::<f64>().map_err(|_| format!("{word} needs a number, not '{text}'"));
        match word.as_str() {
            "--rounds" => read.rounds = number(value()?)? as usize,
            "--rows" => read.rows = number(value()?)? as u64,
            "--seconds" => {
                read.slice = Duration::try_from_secs_f64(number(value()?)?).map_err(|error| error.to_string())?;
            }
            "--small" => {
                read.rows = 50_000;
                read.slice = Duration::from_secs(1);
                read.join = (3, 7, 200);
            }
            "--binary" => read.binary = PathBuf::from(value()?),
            "--dir" => read.directory = PathBuf::from(value()?),
            part if PARTS.contains(&part) => {
                read.parts.insert(part.to_owned());
            }
            other => return Err(format!("'{other}' is not known: {HELP}")),
        }
    }
    if read.parts.is_empty() {
        read.parts.extend(PARTS.map(str::to_owned));
    }
    if read.binary.as_os_str().is_empty() {
        read.binary = release_program()?;
    }
    Ok(read)
}

/// What is asked of a figure.
#[derive(Clone, Copy)]
enum Asked {
    Nothing,
    AtLeast(f64),
    AtMost(f64),
}

use Asked::{AtLeast, AtMost, Nothing};

/// What is measured, in the order of the table: its name, in words, and what is asked of it.
const FIGURES: [(&str, &str, Asked); 13] = [
    ("file", "a file at an operator without mates, rows/s", Nothing),
    ("caught-files", "catching up with files, rows/s", Nothing),
    ("caught-files-ratio", "  / a file at an operator without mates", AtLeast(0.5)),
    ("caught-streams", "catching up with streams, rows/s", Nothing),
    ("caught-streams-ratio", "  / a file at an operator without mates", AtLeast(0.5)),
    ("most", "the most that a member takes at QoS 1, rows/s", Nothing),
    ("calm-rate", "30 % of it, rows/s", Nothing),
    ("calm-p99", "  99th percentile of the acknowledgements, ms", Nothing),
    ("busy-rate", "the same while a member catches up, rows/s", Nothing),
    ("busy-rate-ratio", "  / without", AtLeast(0.95)),
    ("busy-p99", "  99th percentile of the acknowledgements, ms", Nothing),
    ("busy-p99-ratio", "  / without", AtMost(1.5)),
    ("join", "a new member until it is complete, s", Nothing),
];

/// The figures of one round by name.
type Round = BTreeMap<&'static str, f64>;

fn run(arguments: &Arguments) -> io::Result<()> {
    let mut rounds: Vec<Round> = Vec::new();
    for number in 1..=arguments.rounds {
        let mut round = Round::new();
        for part in &arguments.parts {
            let directory = tempfile::TempDir::new_in(&arguments.directory)?;
            let arguments = (arguments, directory.path().to_owned());
            match part.as_str() {
                "catchup" => catch_up(&arguments, &mut round)?,
                "ingest" => ingest(&arguments, &mut round)?,
                _ => join(&arguments, &mut round, number == 1)?,
            }
        }
        eprintln!("round {number}: {round:.2?}");
        rounds.push(round);
    }
    println!("{}", table(&rounds));
    Ok(())
}

fn table(rounds: &[Round]) -> String {
    let mut out = format!("{:<50} {:>12} {:>23}  {:>8}\n", "", "median", "min..max", "asked");
    for (name, what, asked) in FIGURES {
        let values: Vec<f64> = rounds.iter().filter_map(|round| round.get(name).copied()).collect();
        if values.is_empty() {
            continue;
        }
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(0.0, f64::max);
        let middle = median(values);
        let digits = if middle < 100.0 { 2 } else { 0 };
        let (asked, met) = match asked {
            Nothing => (String::new(), ""),
            AtLeast(limit) => (format!(">= {limit}"), if middle >= limit { "met" } else { "MISSED" }),
            AtMost(limit) => (format!("<= {limit}"), if middle <= limit { "met" } else { "MISSED" }),
        };
        let range = format!("{least:.digits$}..{most:.digits$}");
        out.push_str(&format!("{what:<50} {middle:>12.digits$} {range:>23}  {asked:>8}  {met}\n"));
    }
    out
}

/// Where a part runs.
type Place<'a> = (&'a Arguments, PathBuf);

/// Rows of one file.
fn each(arguments: &Arguments) -> u64 {
    arguments.rows / FILES
}

/// Gives the first member files of rows while the last one is away, and waits until it and the second have them.
fn miss(cluster: &mut Cluster, arguments: &Arguments, table: &str) -> io::Result<()> {
    let last = cluster.members.len() - 1;
    cluster.members[last].stop();
    let prepared = prepare(&cluster.members[0], table, FILES, each(arguments), FILES)?;
    hand_over(&cluster.members[0], &prepared)?;
    (0..last).try_for_each(|member| cluster.wait_for(member, table, each(arguments) * FILES).map(|_| ()))
}

fn catch_up((arguments, directory): &Place<'_>, round: &mut Round) -> io::Result<()> {
    let rows = each(arguments) * FILES;
    let alone = Cluster::start(&arguments.binary, directory, 1, "insert_timestamp")?;
    let prepared = prepare(&alone.members[0], "alone", 1, rows, 1)?;
    let start = Instant::now();
    hand_over(&alone.members[0], &prepared)?;
    alone.wait_for(0, "alone", rows)?;
    let file = rows as f64 / start.elapsed().as_secs_f64();
    drop(alone);
    round.insert("file", file);

    let mut cluster = Cluster::start(&arguments.binary, directory, 3, "insert_timestamp")?;
    miss(&mut cluster, arguments, "missed")?;
    let start = Instant::now();
    cluster.members[2].start_again()?;
    cluster.wait_for(2, "missed", rows)?;
    let rate = rows as f64 / start.elapsed().as_secs_f64();
    round.extend([("caught-files", rate), ("caught-files-ratio", rate / file)]);

    cluster.members[2].stop();
    let sent = stream(&cluster, rows)?;
    cluster.members[0].post("flush buffers")?;
    cluster.wait_for(1, "streamed", sent)?;
    let start = Instant::now();
    cluster.members[2].start_again()?;
    cluster.wait_for(2, "streamed", sent)?;
    let rate = sent as f64 / start.elapsed().as_secs_f64();
    round.extend([("caught-streams", rate), ("caught-streams-ratio", rate / file)]);
    Ok(())
}

/// Puts rows at the first member, a thousand a request, until there are as many; says how many there are.
fn stream(cluster: &Cluster, rows: u64) -> io::Result<u64> {
    let ask = rest::Ask::Rows { dbms: DBMS.to_owned(), table: "streamed".to_owned(), rows: 1000 };
    let mut load = rest::Load {
        port: cluster.members[0].rest,
        ask,
        connections: 4,
        payload: message::LEN,
        duration: Duration::from_millis(200),
        first: 1,
    };
    let mut sent = 0;
    while sent < rows {
        load.first = sent + 1;
        sent += rest::run(&load)?.requests * 1000;
    }
    Ok(sent)
}

fn publish(cluster: &Cluster, rate: Option<f64>, length: Duration, first: u64) -> io::Result<Published> {
    publisher::publish(&Load {
        port: cluster.members[0].tcp,
        topic: TOPIC.to_owned(),
        qos: 1,
        connections: 8,
        window: 1000,
        payload: message::LEN,
        rate,
        until: Until::Time(length),
        first,
    })
}

fn ingest((arguments, directory): &Place<'_>, round: &mut Round) -> io::Result<()> {
    let mut cluster = Cluster::start(&arguments.binary, directory, 3, "insert_timestamp")?;
    let rate = |published: &Published| published.messages as f64 / published.elapsed.as_secs_f64();
    let p99 = |published: &Published| published.latencies.quantile(0.99).as_secs_f64() * 1e3;
    // With the first messages the table is made.
    let mut sent = publish(&cluster, Some(1000.0), arguments.slice / 10, 1)?.messages;
    let most = publish(&cluster, None, arguments.slice, sent + 1)?;
    sent += most.messages;
    let share = rate(&most) * SHARE;
    settled(&cluster, sent)?;
    let calm = publish(&cluster, Some(share), arguments.slice, sent + 1)?;
    sent += calm.messages;
    settled(&cluster, sent)?;

    miss(&mut cluster, arguments, "missed")?;
    let starting = Instant::now();
    cluster.members[2].start_again()?;
    let cluster = &cluster;
    let (busy, caught) = std::thread::scope(|scope| {
        let waiting = scope.spawn(move || {
            let caught = cluster.wait_for(2, "missed", each(arguments) * FILES);
            caught.map(|_| starting.elapsed())
        });
        let busy = publish(cluster, Some(share), arguments.slice, sent + 1);
        (busy, waiting.join().map_err(|_| io::Error::other("the watching thread failed")))
    });
    let (busy, caught) = (busy?, caught??);
    sent += busy.messages;
    settled(cluster, sent)?;
    eprintln!("  the member had caught up after {caught:.1?}, the load lasted {:.1?}", busy.elapsed);
    round.extend([
        ("most", rate(&most)),
        ("calm-rate", rate(&calm)),
        ("calm-p99", p99(&calm)),
        ("busy-rate", rate(&busy)),
        ("busy-rate-ratio", rate(&busy) / rate(&calm)),
        ("busy-p99", p99(&busy)),
        ("busy-p99-ratio", p99(&busy) / p99(&calm)),
    ]);
    Ok(())
}

/// Waits until all members have what was published.
fn settled(cluster: &Cluster, rows: u64) -> io::Result<()> {
    cluster.members[0].post("flush buffers")?;
    (0..cluster.members.len()).try_for_each(|member| cluster.wait_for(member, PUBLISHED, rows).map(|_| ()))
}

fn join((arguments, directory): &Place<'_>, round: &mut Round, show: bool) -> io::Result<()> {
    let mut cluster = Cluster::start(&arguments.binary, directory, 2, "timestamp")?;
    let (tables, days, rows) = arguments.join;
    let names: Vec<String> = (0..tables).map(|table| format!("history_{table}")).collect();
    for (number, name) in names.iter().enumerate() {
        // Both members have produced some of it.
        let member = &cluster.members[number % 2];
        hand_over(member, &prepare(member, name, days, rows, days)?)?;
    }
    for name in &names {
        cluster.wait_for(0, name, days * rows)?;
        cluster.wait_for(1, name, days * rows)?;
    }
    let start = Instant::now();
    let fresh = cluster.join()?;
    let mut said = Vec::new();
    for name in &names {
        while held(fresh, name)? < days * rows {
            said.push((start.elapsed(), fresh.get("get consumer")?));
            if start.elapsed() > Duration::from_secs(300) {
                return Err(io::Error::other(format!("not complete in time: {}", said.pop().unwrap_or_default().1)));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let took = start.elapsed();
    for name in &names {
        cluster.wait_for(2, name, days * rows)?;
    }
    if show {
        let partitions = cluster.members[2].partitions_of(DBMS)?;
        println!(
            "{} rows in {partitions} partitions after {took:.1?}; on the way the new member said:",
            tables * days * rows
        );
        for at in [0, said.len() / 2] {
            said.get(at).iter().for_each(|(time, text)| println!("after {time:.1?}:\n{text}\n"));
        }
    }
    round.insert("join", took.as_secs_f64());
    Ok(())
}
