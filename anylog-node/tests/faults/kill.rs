//! kill -9 at random moments under load.
//!
//! A home lives for some rounds. In each, a mixture of senders that the seed decides works until the process is killed; the
//! process starts again, and before anything is sent again the tables must hold every row that was acknowledged, and none more
//! often than its sender asked for. Then everything without an acknowledgement is sent again as the protocol wants it: MQTT with
//! DUP and the same packet id, REST as the same request. When a home's rounds are over, its source files and their registry must
//! agree with the tables, row by row.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::chance::{Chance, seed, setting};
use super::devices::Work;
use super::files::{check_files, check_tables};
use super::load::{Amount, Senders};
use super::node::Node;
use super::record::{Record, Way, none};

/// Rounds that share a home.
const ROUNDS_OF_A_HOME: u64 = 50;

/// What all rounds did together.
#[derive(Debug, Default)]
struct Totals {
    rounds: u64,
    kills: u64,
    kills_in_start: u64,
    messages: u64,
    rows: u64,
    acknowledged: u64,
    ways: std::collections::BTreeMap<Way, u64>,
}

// R3, DUR-1, DUR-2: kill -9 at random moments: acknowledged rows are stored, once.
#[test]
fn acknowledged_rows_survive_kill_at_any_moment() {
    let (seed, rounds) = (seed(), setting("ANYLOG_FAULT_ROUNDS").unwrap_or(6));
    eprintln!("kill -9: {rounds} rounds, ANYLOG_FAULT_SEED={seed}");
    let started = Instant::now();
    let mut totals = Totals::default();
    let mut home = 0;
    // In the short form both ways of partitioning get their rounds.
    let of_a_home = ROUNDS_OF_A_HOME.min(rounds.div_ceil(2)).max(1);
    while totals.rounds < rounds {
        let of_this = of_a_home.min(rounds - totals.rounds);
        // Each home can be repeated alone: its chance follows from the seed and its number.
        let chance = Chance::new(seed.wrapping_add(home * 1_000_003));
        Home::new(chance, home % 2 == 1).live(of_this, &mut totals, &format!("seed {seed}, home {home}"));
        home += 1;
        eprintln!("  after {:?}: {totals:?}", started.elapsed());
    }
    eprintln!(
        "kill -9: {} rounds with seed {seed} in {:?}: {} kills ({} while starting), {} rows acknowledged of {} sent in {} \
         messages; 0 lost, 0 doubled; acknowledged by way: {:?}",
        totals.rounds,
        started.elapsed(),
        totals.kills,
        totals.kills_in_start,
        totals.acknowledged,
        totals.rows,
        totals.messages,
        totals.ways,
    );
}

struct Home {
    node: Node,
    record: Record,
    chance: Chance,
    backfill: bool,
    // After the node, whose last words are in it.
    _directory: tempfile::TempDir,
}

impl Home {
    fn new(mut chance: Chance, backfill: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let column = if backfill { "timestamp" } else { "insert_timestamp" };
        let node = Node::new(directory.path(), &[("PARTITION_COLUMN", column)]);
        Self { _directory: directory, node, record: Record::default(), chance: chance.branch(), backfill }
    }

    fn live(mut self, rounds: u64, totals: &mut Totals, what: &str) {
        let mut senders = Senders::new(4);
        let mut looked_at = 0;
        self.node.spawn();
        for round in 0..rounds {
            // Devices do not wait until a node is ready: sometimes they are back before its script has come to its end.
            let early = self.chance.percent(25);
            if !early {
                self.node.ready();
                none(check_tables(&self.node, &self.record, looked_at), &format!("{what}, before round {round}"));
                looked_at = round.saturating_sub(1);
            }
            senders = self.round(round, early, senders, totals);
            totals.rounds += 1;
        }
        self.node.ready();
        none(check_tables(&self.node, &self.record, 0), &format!("{what}, after all rounds"));
        // Everybody gets an answer now; what was sent again must not have doubled anything.
        let amount = Amount { messages: 0, requests: 0, files: 0 };
        let work = self.work(rounds, false);
        let ports = (self.node.tcp, self.node.rest);
        senders = senders.start(ports, &self.node.root(), &work, &mut self.chance, amount).join();
        assert!(senders.settled(), "{what}: every sender has its answers: {senders:?}");
        none(check_tables(&self.node, &self.record, 0), &format!("{what}, when all is answered"));
        let tables: BTreeSet<String> = self.record.since(0).into_keys().collect();
        none(check_files(&self.node, &tables), &format!("{what}, source files"));
        let (messages, rows, acknowledged) = self.record.counts();
        totals.messages += messages;
        totals.rows += rows;
        totals.acknowledged += acknowledged;
        for (way, rows) in self.record.by_way() {
            *totals.ways.entry(way).or_default() += rows;
        }
        self.node.signal("-TERM");
        assert_eq!(self.node.wait().code(), Some(0), "{what}: {}", self.node.log());
    }

    /// Tables of a round: two that are known, and sometimes new ones.
    fn work(&mut self, round: u64, first_sight: bool) -> Work {
        let mut tables = vec!["steady".to_owned(), format!("shift_{}", round / 10)];
        if first_sight {
            tables.extend((0..=self.chance.below(2)).map(|n| format!("new_{round}_{n}")));
        }
        Work { record: self.record.clone(), round, tables, backfill: self.backfill, stop: std::sync::Arc::default() }
    }

    /// Sets the senders to work, kills the node at a random moment, and starts it again.
    fn round(&mut self, round: u64, early: bool, senders: Senders, totals: &mut Totals) -> Senders {
        let immediate = self.chance.percent(60);
        // Small thresholds, so that segments are sealed while the load runs.
        let (seconds, volume) = (1 + self.chance.below(3), 2 + self.chance.below(60));
        if !early {
            self.node.post(&format!(
                "set buffer threshold where time = {seconds} seconds and volume = {volume}KB and \
                 write_immediate = {immediate}"
            ));
        }
        let first_sight = self.chance.percent(50);
        let work = self.work(round, first_sight);
        let amount = Amount {
            messages: 50 + self.chance.below(450),
            requests: 5 + self.chance.below(40),
            files: self.chance.below(5),
        };
        let ports = (self.node.tcp, self.node.rest);
        let load = senders.start(ports, &self.node.root(), &work, &mut self.chance, amount);
        let moment = match self.chance.below(10) {
            0 => self.chance.millis(1, 10),
            1 => self.chance.millis(500, 1500),
            _ => self.chance.millis(5, 300),
        };
        std::thread::park_timeout(moment);
        self.node.kill();
        totals.kills += 1;
        work.stop.store(true, Ordering::Relaxed);
        let senders = load.join();
        self.node.spawn();
        // Sometimes the start itself, and what it finishes, is cut off as well.
        while self.chance.percent(20) {
            std::thread::park_timeout(self.chance.millis(1, 80));
            self.node.kill();
            totals.kills_in_start += 1;
            self.node.spawn();
        }
        senders
    }
}
