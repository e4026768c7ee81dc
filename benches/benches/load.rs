//! The load harness: see the documentation of `anylog_benches`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints measurements")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anylog_benches::message;
use anylog_benches::report::{self, Round};
use anylog_benches::run::{Words, release_program};
use anylog_benches::scenario::{Sample, Scenario, Setting, measure};

const HELP: &str = "load [SCENARIO ...] [--rounds 5] [--seconds 4] [--binary PATH] [--dir PATH] [--payload 53] [--rows 1000000] [--json FILE] [--alone]";

struct Arguments {
    scenarios: BTreeSet<Scenario>,
    rounds: usize,
    setting: Setting,
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    anylog_benches::run::run("load", |words| run(&arguments(words)?))
}

fn arguments(words: &[String]) -> Result<Arguments, String> {
    let names = || Scenario::ALL.iter().map(|scenario| scenario.name()).collect::<Vec<_>>().join(" ");
    let (mut asked, mut rounds, mut seconds, mut payload, mut alone) = (BTreeSet::new(), 5, 4.0, message::LEN, false);
    let mut rows = 1_000_000;
    let (mut binary, mut json) = (None, None);
    let mut directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let mut words = Words::new(words, HELP);
    while let Some(word) = words.word() {
        match word {
            "--rounds" => rounds = words.number()?,
            "--seconds" => seconds = words.number()?,
            "--rows" => rows = words.number()?,
            "--payload" => payload = words.number()?,
            "--binary" => binary = Some(PathBuf::from(words.value()?)),
            "--dir" => directory = PathBuf::from(words.value()?),
            "--json" => json = Some(PathBuf::from(words.value()?)),
            "--alone" => alone = true,
            name => {
                let known = Scenario::named(name);
                asked.insert(known.ok_or_else(|| format!("'{name}' is no scenario: {HELP}\nscenarios: {}", names()))?);
            }
        }
    }
    if asked.is_empty() {
        asked.extend(Scenario::ALL);
    }
    let mut scenarios = asked.clone();
    for scenario in Scenario::ALL.iter().rev() {
        if scenarios.contains(scenario) && !alone {
            scenarios.extend(scenario.needs());
        }
    }
    let slice = Duration::try_from_secs_f64(seconds).map_err(|error| format!("--seconds: {error}"))?;
    let binary = binary.map_or_else(release_program, Ok)?;
    Ok(Arguments { scenarios, rounds, setting: Setting { binary, directory, slice, payload, rows }, json })
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let mut rounds = Vec::new();
    for number in 1..=arguments.rounds {
        let mut round = Round::new();
        for scenario in Scenario::ALL.iter().filter(|scenario| arguments.scenarios.contains(scenario)) {
            let sample = measure(*scenario, &arguments.setting, |of| round.get(&of).map(Sample::rate))
                .map_err(|error| format!("{}: {error}", scenario.name()))?;
            eprintln!("round {number}: {:<17} {:>10.0}/s", scenario.name(), sample.rate());
            round.insert(*scenario, sample);
        }
        rounds.push(round);
    }
    println!("{}", report::table(&rounds));
    if let Some(file) = &arguments.json {
        let text = serde_json::to_string_pretty(&report::json(&rounds)).map_err(|error| error.to_string())?;
        std::fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(())
}
