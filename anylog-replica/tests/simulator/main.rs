//! A cluster under schedules of faults, drawn from seeds: the machines are those of the program, what runs them is simulated.
//!
//! `ANYLOG_SIM_SEEDS` says how many schedules, `ANYLOG_SIM_SEED` with which one to begin; `ANYLOG_SIM_TRACE` prints what happens.
//! A schedule that breaks a promise is named with the command that runs it again.

// A schedule is printed on demand.
#![allow(clippy::print_stdout)]

mod act;
mod disk;
mod failures;
mod network;
mod node;
mod oracle;
mod schedule;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use world::Sabotage;

/// Schedules of one run, when nothing else is said.
const SCHEDULES: u64 = 600;

/// Schedules that broke a promise once.
const ONCE_BROKEN: [u64; 4] = [301, 2_042, 230_827, 231_401];

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// The first schedule that breaks a promise; how many rows were acknowledged, by copies.
fn run_schedules(
    first: u64,
    count: u64,
    sabotage: Sabotage,
) -> Result<std::collections::BTreeMap<u32, u64>, (u64, String)> {
    let next = AtomicU64::new(first);
    let stop = AtomicBool::new(false);
    let failures = Mutex::new(Vec::new());
    let acknowledged = Mutex::new(std::collections::BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count || stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let outcome = std::panic::catch_unwind(|| schedule::run(seed, sabotage));
                    match outcome.unwrap_or_else(|_| Err("a panic".to_owned())) {
                        Ok(world) => {
                            let mut all = acknowledged.lock().expect("no panic");
                            for (copies, rows) in world.oracle.acknowledged {
                                *all.entry(copies).or_default() += rows;
                            }
                        }
                        Err(violation) => {
                            failures.lock().expect("no panic").push((seed, violation));
                            stop.store(true, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().expect("no panic");
    failures.sort_unstable();
    match failures.into_iter().next() {
        Some(failure) => Err(failure),
        None => Ok(acknowledged.into_inner().expect("no panic")),
    }
}

// DUR-3, DUR-6, R6, R7, R19, R20, R21, R22, R23.
#[test]
fn no_schedule_of_faults_breaks_a_promise() {
    let first = setting("ANYLOG_SIM_SEED").unwrap_or(1);
    let count = setting("ANYLOG_SIM_SEEDS").unwrap_or(SCHEDULES);
    match run_schedules(first, count, Sabotage::None) {
        Ok(acknowledged) => {
            println!("{count} schedules; rows acknowledged by copies: {acknowledged:?}");
            // Else nothing was shown.
            assert!(count < 100 || [1, 2, 3].iter().all(|copies| acknowledged.contains_key(copies)));
        }
        Err((seed, violation)) => panic!(
            "seed {seed}: {violation}\nagain, with all that happens:\n  ANYLOG_SIM_SEED={seed} ANYLOG_SIM_SEEDS=1 ANYLOG_SIM_TRACE=1 \
             cargo test -p anylog-replica --test simulator no_schedule -- --nocapture"
        ),
    }
}

// DUR-3, DUR-6.
#[test]
fn schedules_that_broke_a_promise_once_do_so_no_more() {
    for seed in ONCE_BROKEN {
        if let Err((seed, violation)) = run_schedules(seed, 1, Sabotage::None) {
            panic!("seed {seed}: {violation}");
        }
    }
}

/// A fault of whoever runs the members is found within so many schedules, with the promise that it breaks.
fn is_found(sabotage: Sabotage, within: u64, promises: &[&str]) {
    let Err((seed, violation)) = run_schedules(1, within, sabotage) else {
        panic!("{within} schedules did not show that it {sabotage:?}");
    };
    println!("{sabotage:?}: seed {seed}: {violation}");
    assert!(promises.iter().any(|promise| violation.contains(promise)), "{sabotage:?}: seed {seed}: {violation}");
}

#[test]
fn an_acknowledgement_that_is_given_early_is_found() {
    is_found(Sabotage::AcknowledgesEarly, 200, &["is acknowledged as on"]);
}

#[test]
fn an_answer_before_the_sync_is_found() {
    is_found(Sabotage::AnswersBeforeSync, 500, &["is acknowledged as on", "was acknowledged"]);
}

#[test]
fn a_file_that_is_not_stored_is_found() {
    is_found(Sabotage::LosesFiles, 200, &["lacks file", "open", "was acknowledged", "is acknowledged as on"]);
}

#[test]
fn rows_that_do_not_follow_are_found() {
    is_found(Sabotage::TakesGaps, 2_000, &["is acknowledged as on", "was acknowledged", "at member"]);
}

#[test]
fn numbers_that_are_given_twice_are_found() {
    is_found(
        Sabotage::NumbersAnew,
        500,
        &["and in", "it is ordinal", "at member", "was acknowledged", "is acknowledged", "open"],
    );
}

#[test]
fn a_failure_that_is_not_told_is_found() {
    is_found(Sabotage::HidesFailures, 500, &["lacks file", "open", "not at rest", "waits"]);
}
