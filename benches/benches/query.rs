//! SQL over a network of real processes: see the documentation of `anylog_benches`.
//!
//! Starts a master, operators and a query node by the scripts of the examples, gives each operator its rows by a file, and prints
//! three tables.
//!
//! * **latency**: at the client over REST, beside the time that each operator reports for its part of the same query. Operators
//!   that wait for each other's processors say nothing about the network, so there are as many rounds as there are operators:
//!   one operator with all processors; two, each on a processor of its own; and so on as long as there are processors; then all
//!   of them together wherever they find one, which is marked when there are more operators than processors.
//! * **one engine**: one operator beside the same statement in a sqlite3 process on a file that holds its table in one piece.
//! * **stream**: all rows of all operators; the most memory that the query node took for it.
//!
//! Rounds are interleaved, and the medians are shown; ratios are taken within a round.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints measurements")]

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anylog_benches::http;
use anylog_benches::network::{Member, Network};
use anylog_benches::question::{self, Asked, DBMS, QUESTIONS, Question, TABLE};
use anylog_benches::run::{Words, release_program};

const HELP: &str = "query [latency] [engine] [stream] [--rows 1000000] [--days 10] [--operators 3] [--rounds 7] [--ask TEXT] [--binary PATH] [--dir PATH] [--wait]";

struct Arguments {
    parts: Vec<String>,
    rows: u64,
    days: u64,
    operators: usize,
    rounds: usize,
    ask: String,
    binary: PathBuf,
    directory: PathBuf,
    wait: bool,
}

fn main() -> ExitCode {
    anylog_benches::run::run("query", |words| run(&arguments(words)?).map_err(|error| error.to_string()))
}

fn arguments(words: &[String]) -> Result<Arguments, String> {
    let mut read = Arguments {
        parts: Vec::new(),
        rows: 1_000_000,
        days: 10,
        operators: 3,
        rounds: 7,
        ask: String::new(),
        binary: PathBuf::new(),
        directory: PathBuf::from(env!("CARGO_TARGET_TMPDIR")),
        wait: false,
    };
    let mut words = Words::new(words, HELP);
    while let Some(word) = words.word() {
        match word {
            "latency" | "engine" | "stream" => read.parts.push(word.to_owned()),
            "--rows" => read.rows = words.number()?,
            "--days" => read.days = words.number::<u64>()?.min(31),
            "--operators" => read.operators = words.number()?,
            "--rounds" => read.rounds = words.number()?,
            "--ask" => read.ask = words.value()?.to_owned(),
            "--binary" => read.binary = PathBuf::from(words.value()?),
            "--dir" => read.directory = PathBuf::from(words.value()?),
            "--wait" => read.wait = true,
            _ => return Err(words.unknown()),
        }
    }
    if read.parts.is_empty() {
        read.parts = ["latency", "engine", "stream"].map(str::to_owned).to_vec();
    }
    if read.binary.as_os_str().is_empty() {
        read.binary = release_program()?;
    }
    Ok(read)
}

fn run(arguments: &Arguments) -> io::Result<()> {
    let directory = tempfile::TempDir::new_in(&arguments.directory)?;
    let network = Network::start(&arguments.binary, directory.path(), arguments.operators)?;
    network.load(arguments.rows, arguments.days)?;
    println!(
        "{} operators with {} rows each in {} partitions",
        network.operators.len(),
        arguments.rows,
        network.operators.first().map_or(Ok(0), |operator| operator.partitions().map(|files| files.len()))?
    );
    if arguments.wait {
        println!("query node: http://127.0.0.1:{}; end with the return key", network.query.rest);
        for (number, operator) in network.operators.iter().enumerate() {
            println!("operator {}: http://127.0.0.1:{}, {}", number + 1, operator.rest, operator.data().display());
        }
        io::stdin().read_line(&mut String::new())?;
    }
    let wanted = |part: &str| arguments.parts.iter().any(|wanted| wanted == part);
    let questions: Vec<&Question> =
        QUESTIONS.iter().filter(|question| question.name.contains(arguments.ask.as_str())).collect();
    if wanted("latency") {
        latency(&network, &questions, arguments.rounds)?;
    }
    if wanted("engine") {
        engine(&network, &questions, directory.path(), arguments.rounds)?;
    }
    if wanted("stream") {
        stream(&network, arguments.rows)?;
    }
    Ok(())
}

/// The client's time beside that of the operators.
fn latency(network: &Network, questions: &[&Question], rounds: usize) -> io::Result<()> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    for count in 1..=network.operators.len() {
        let operators = &network.operators[..count];
        let arranged = arrange(operators, processors)?;
        println!("\nlatency, {count} operators: {arranged}; milliseconds");
        println!("{:<32}{:>10}{:>10}{:>8}{:>9}  operators", "", "client", "longest", "ratio", "excess");
        let mut answers: Vec<Vec<Asked>> = vec![Vec::new(); questions.len()];
        // One round more: the first fills caches.
        for round in 0..=rounds {
            for (question, answers) in questions.iter().zip(&mut answers) {
                let asked = question::over_network(&network.query, operators, question.sql)?;
                if round > 0 {
                    answers.push(asked);
                }
            }
        }
        for (question, answers) in questions.iter().zip(&answers) {
            print_latency(question, answers);
        }
    }
    arrange(&network.operators, 0).map(|_| ())
}

/// Gives each operator a processor of its own while there are enough; says how it was done.
fn arrange(operators: &[Member], processors: usize) -> io::Result<String> {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    let everywhere = format!("0-{}", all - 1);
    if operators.len() > 1 && operators.len() <= processors {
        operators.iter().enumerate().try_for_each(|(number, operator)| operator.pin(&number.to_string()))?;
        return Ok(format!("each on a processor of its own, of {all}"));
    }
    operators.iter().try_for_each(|operator| operator.pin(&everywhere))?;
    let shared = if operators.len() > all { ", which they share: more operators than processors" } else { "" };
    Ok(format!("on all {all} processors{shared}"))
}

fn print_latency(question: &Question, answers: &[Asked]) {
    let mut answers: Vec<&Asked> = answers.iter().collect();
    // The round in the middle, by what came on top of the database: its times belong together.
    answers.sort_by_key(|asked| asked.total.saturating_sub(asked.longest()));
    let Some(middle) = answers.get(answers.len() / 2) else { return };
    let (total, longest) = (milliseconds(middle.total), milliseconds(middle.longest()));
    let operators: Vec<String> = middle.database.iter().map(|time| format!("{:.1}", milliseconds(*time))).collect();
    let ratio = total / longest.max(0.001);
    // What the aim allows: 1.3 times the longest and 5 ms.
    let beyond = if total > 1.3 * longest + 5.0 { "  over 1.3 x + 5 ms" } else { "" };
    println!(
        "{:<32}{total:>10.2}{longest:>10.2}{ratio:>8.2}{:>9.2}  {}{beyond}",
        question.name,
        total - longest,
        operators.join(" ")
    );
}

/// One operator beside sqlite3.
fn engine(network: &Network, questions: &[&Question], directory: &Path, rounds: usize) -> io::Result<()> {
    let Some(operator) = network.operators.first() else { return Ok(()) };
    anylog_benches::process::ensure("sqlite3", "sqlite3")?;
    let file = question::in_one_piece(&operator.partitions()?, directory)?;
    println!("\none engine: one operator beside sqlite3 on one file; milliseconds");
    println!("{:<32}{:>10}{:>10}{:>8}", "", "operator", "sqlite3", "faster");
    for question in questions {
        let Some(bare) = question.bare else { continue };
        let mut pairs = Vec::new();
        for round in 0..=rounds {
            let pair = (question::at_operator(operator, question.sql)?, question::at_sqlite(&file, bare)?);
            if round > 0 {
                pairs.push(pair);
            }
        }
        let faster = |pair: &(Duration, Duration)| pair.1.as_secs_f64() / pair.0.as_secs_f64();
        pairs.sort_by(|left, right| faster(left).total_cmp(&faster(right)));
        let Some(middle) = pairs.get(pairs.len() / 2) else { continue };
        println!(
            "{:<32}{:>10.2}{:>10.2}{:>8.2}",
            question.name,
            milliseconds(middle.0),
            milliseconds(middle.1),
            faster(middle)
        );
    }
    std::fs::remove_file(file)
}

/// All rows of all operators.
fn stream(network: &Network, rows: u64) -> io::Result<()> {
    network.query.forget_peak()?;
    let headers = format!("destination: network\r\ncommand: sql {DBMS} format=json \"select * from {TABLE}\"\r\n");
    let download = http::download(network.query.rest, &headers)?;
    let all = rows * network.operators.len() as u64;
    println!("\nstream: select * of {all} rows");
    println!(
        "first byte after {:.1} ms, {:.0} MB in {:.1} s, {:.0} rows/s; peak memory of the query node {:.0} MB",
        milliseconds(download.first),
        download.bytes as f64 / 1e6,
        download.last.as_secs_f64(),
        all as f64 / download.last.as_secs_f64(),
        network.query.peak_memory()? as f64 / f64::from(1 << 20)
    );
    Ok(())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
