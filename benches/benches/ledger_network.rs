//! A ledger of 10,000 policies in a network of processes.
//!
//! ```sh
//! cargo bench -p anylog-benches --bench ledger_network
//! ```
//!
//! Starts a master, operators and a query node by the scripts of the examples, gives the master 10,000 policies, and measures
//!
//! * **insert**: `blockchain insert .. local = true and master = ..` at the operators, over REST, by one client and by several; each
//!   answer means that the policy is in the master's database on stable storage;
//! * **seen**: from the answer to an insert at an operator until `blockchain get` at the query node shows the policy, while the
//!   synchronisers have a period of 30 seconds;
//! * **get**: `blockchain get site where name = ..` at the query node over REST, each on a connection of its own;
//! * **traffic**: what TCP carries between the query node and the master for one more policy, both ways, when they come one by one, and
//!   in a burst;
//! * **memory**: what one more policy takes of the memory of the query node and the master, over 10,000 more;
//! * **join**: from the start of a process with an empty home until it has the whole ledger.
//!
//! Figures of a machine with 2 cores whose disk takes 0.13 ms for a sync, 10,000 policies, 2 operators:
//!
//! ```text
//! insert,  1 clients        521 policies/s
//! insert,  8 clients       1733 policies/s
//! insert, 64 clients       1845 policies/s
//! seen at the query node     2.5ms, p99 2.8ms
//! get over REST             93.8µs, p99 225.8µs
//! traffic, one by one         659 bytes/policy
//! traffic, in a burst         405 bytes/policy
//! memory, query node         1264 bytes/policy
//! memory, master             1903 bytes/policy
//! join of a fresh node     217.1ms, longest 329.7ms, of 26380 policies
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints measurements")]

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anylog_benches::http;
use anylog_benches::network::{Member, Network};
use anylog_benches::process::eventually;
use anylog_benches::relay::Relay;
use anylog_benches::run::{Words, release_program};

const HELP: &str = "ledger_network [--binary PATH] [--dir PATH] [--policies 10000] [--operators 2]";

struct Arguments {
    binary: PathBuf,
    directory: PathBuf,
    policies: usize,
    operators: usize,
}

fn main() -> ExitCode {
    anylog_benches::run::run("ledger_network", |words| run(&arguments(words)?).map_err(|error| error.to_string()))
}

fn arguments(words: &[String]) -> Result<Arguments, String> {
    let mut read = Arguments {
        binary: PathBuf::new(),
        directory: PathBuf::from(env!("CARGO_TARGET_TMPDIR")),
        policies: 10_000,
        operators: 2,
    };
    let mut words = Words::new(words, HELP);
    while let Some(word) = words.word() {
        match word {
            "--binary" => read.binary = PathBuf::from(words.value()?),
            "--dir" => read.directory = PathBuf::from(words.value()?),
            "--policies" => read.policies = words.number()?,
            "--operators" => read.operators = words.number()?,
            _ => return Err(words.unknown()),
        }
    }
    if read.binary.as_os_str().is_empty() {
        read.binary = release_program()?;
    }
    Ok(read)
}

fn site(number: usize) -> String {
    format!(
        r#"{{"site": {{"name": "site-{number:06}", "company": "company {}", "city": "Sabetha", "loc": "39.8958, -95.9922", "port": 32148}}}}"#,
        number % 20
    )
}

/// Gives the master policies from a file, and waits until all nodes have them.
fn give(network: &Network, from: usize, count: usize) -> io::Result<()> {
    let file = network.master.data().join("policies.json");
    let lines: Vec<String> = (from..from + count)
        .map(|number| {
            let inner = site(number);
            let date = format!("2026-01-01T00:00:00.{number:06}Z");
            inner.replace("\"port\"", &format!("\"id\": \"given-{number}\", \"date\": \"{date}\", \"port\""))
        })
        .collect();
    std::fs::write(&file, lines.join("\n") + "\n")?;
    network.master.post(&format!("blockchain update dbms {}", file.display()))?;
    all_have(network, &format!("site-{:06}", from + count - 1))
}

fn all_have(network: &Network, name: &str) -> io::Result<()> {
    for member in network.operators.iter().chain([&network.query, &network.master]) {
        eventually("a node has all policies", || {
            Ok(member.get(&format!("blockchain get site where name = {name}"))?.contains(name).then_some(()))
        })?;
    }
    Ok(())
}

/// Inserts policies at an operator's port.
fn insert(operator: &Member, master: &str, number: usize) -> io::Result<()> {
    operator
        .post(&format!("blockchain insert where policy = {} and local = true and master = {master}", site(number)))?;
    Ok(())
}

fn median(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    let at = |part: usize| times.get((times.len() * part / 100).min(times.len().saturating_sub(1))).copied();
    (at(50).unwrap_or_default(), at(99).unwrap_or_default())
}

fn run(arguments: &Arguments) -> io::Result<()> {
    let directory = tempfile::TempDir::new_in(&arguments.directory)?;
    let network = Network::start(&arguments.binary, directory.path(), arguments.operators)?;
    let master = format!("127.0.0.1:{}", network.master.tcp);
    let relay = Relay::to(network.master.tcp)?;
    let measured = Network::join(&arguments.binary, directory.path(), "measured", relay.port)?;
    give(&network, 0, arguments.policies)?;
    let mut next = 1_000_000;

    println!("{} policies, {} operators\n", arguments.policies, arguments.operators);
    for clients in [1, 8, 64] {
        let (count, start) = (if clients == 1 { 300 } else { 2_000 }, Instant::now());
        let taken = AtomicUsize::new(0);
        std::thread::scope(|scope| -> io::Result<()> {
            let work = |client: usize| {
                let (network, master, taken) = (&network, master.as_str(), &taken);
                move || -> io::Result<()> {
                    let operator = &network.operators[client % network.operators.len()];
                    while let Some(at) = Some(taken.fetch_add(1, Ordering::Relaxed)).filter(|at| *at < count) {
                        insert(operator, master, next + at)?;
                    }
                    Ok(())
                }
            };
            let clients: Vec<_> = (0..clients).map(|client| scope.spawn(work(client))).collect();
            clients.into_iter().try_for_each(|client| client.join().expect("a client"))
        })?;
        println!("insert, {clients:>2} clients   {:>8.0} policies/s", count as f64 / start.elapsed().as_secs_f64());
        next += count;
    }
    all_have(&network, &format!("site-{:06}", next - 1))?;

    let mut times = Vec::new();
    for _ in 0..20 {
        insert(&network.operators[0], &master, next)?;
        let start = Instant::now();
        let question = format!("blockchain get site where name = site-{next:06}");
        eventually("it is seen", || Ok(network.query.get(&question)?.contains("Sabetha").then_some(())))?;
        times.push(start.elapsed());
        next += 1;
    }
    let (middle, most) = median(times);
    println!("seen at the query node {middle:>9.1?}, p99 {most:.1?}");

    let mut times = Vec::new();
    for number in 0..2_000 {
        let question = format!("command: blockchain get site where name = site-{:06}\r\n", number % arguments.policies);
        let start = Instant::now();
        let answer = http::request(network.query.rest, "GET", &question, b"")?;
        times.push(start.elapsed());
        if !String::from_utf8_lossy(&answer.body).contains("Sabetha") {
            return Err(io::Error::other("a policy is missing"));
        }
    }
    let (middle, most) = median(times);
    println!("get over REST          {middle:>9.1?}, p99 {most:.1?}");

    for (how, count, pause) in [("one by one", 50, Duration::from_millis(100)), ("in a burst", 2_000, Duration::ZERO)] {
        let before = relay.bytes();
        for _ in 0..count {
            insert(&network.operators[0], &master, next)?;
            next += 1;
            std::thread::sleep(pause);
        }
        let last = format!("site-{:06}", next - 1);
        eventually("the measured node has all", || {
            Ok(measured.get(&format!("blockchain get site where name = {last}"))?.contains(&last).then_some(()))
        })?;
        println!("traffic, {how}    {:>8} bytes/policy", (relay.bytes() - before) / count as u64);
    }

    let memory = || -> io::Result<[u64; 2]> {
        let of = |member: &Member| {
            member.forget_peak()?;
            member.peak_memory()
        };
        Ok([of(&network.query)?, of(&network.master)?])
    };
    let before = memory()?;
    give(&network, arguments.policies, arguments.policies)?;
    // What was needed only on the way is given back after a while.
    std::thread::sleep(Duration::from_secs(5));
    let after = memory()?;
    for (name, at) in [("query node", 0), ("master", 1)] {
        let more = after[at].saturating_sub(before[at]) / arguments.policies as u64;
        println!("memory, {name:<10}     {more:>8} bytes/policy");
    }

    let mut times = Vec::new();
    for number in 0..3 {
        let start = Instant::now();
        let name = format!("fresh-{number}");
        let fresh = Network::join(&arguments.binary, directory.path(), &name, network.master.tcp)?;
        eventually("it has the ledger", || {
            // Its own policy is one more for all.
            let version = fresh.get("get metadata version")?;
            Ok((version == network.master.get("get metadata version")?).then_some(()))
        })?;
        times.push(start.elapsed());
    }
    let (middle, most) = median(times);
    let all = network.master.get("blockchain get * bring.count")?;
    println!("join of a fresh node   {middle:>9.1?}, longest {most:.1?}, of {} policies", all.trim());
    Ok(())
}
