//! All databases in PostgreSQL, and a server that is killed, restarted and stopped under load; the node is killed in between.
//!
//! A round sets senders to work and lets the server or the node go down at a random moment. Before anything is sent again the tables
//! hold every row that was acknowledged, and none more often than its sender asked for. In the end source files, registry and tables
//! agree, row by row.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::chance::{Chance, seed, setting};
use super::devices::Work;
use super::files::{check_files, check_tables};
use super::harness::server::Server;
use super::harness::{DEADLINE, eventually};
use super::load::{Amount, Senders};
use super::node::Node;
use super::record::{Faults, Record, none};

/// What happens to the server in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Accident {
    /// `kill -9` of all its processes, and a start.
    ServerKilled,
    /// An orderly restart, which cuts connections and rolls transactions back.
    ServerRestarted,
    /// It is away for a while.
    ServerAway,
    /// `kill -9` of the node.
    NodeKilled,
    /// `kill -9` of both.
    BothKilled,
}

const ACCIDENTS: [Accident; 5] = [
    Accident::ServerKilled,
    Accident::NodeKilled,
    Accident::ServerRestarted,
    Accident::BothKilled,
    Accident::ServerAway,
];

struct Site {
    node: Node,
    server: Server,
    record: Record,
    chance: Chance,
    _directory: tempfile::TempDir,
}

impl Site {
    fn new(mut chance: Chance) -> Self {
        let server = Server::start();
        let directory = tempfile::tempdir().unwrap();
        let port = server.port.to_string();
        let settings =
            [("DB_TYPE", "psql"), ("DB_IP", "127.0.0.1"), ("DB_PORT", &port), ("PARTITION_COLUMN", "timestamp")];
        let node = Node::running(directory.path(), &settings);
        Self { node, server, record: Record::default(), chance: chance.branch(), _directory: directory }
    }

    fn work(&mut self, round: u64, first_sight: bool) -> Work {
        let mut tables = vec!["steady".to_owned(), "other".to_owned()];
        tables.extend(first_sight.then(|| format!("new_{round}")));
        Work { record: self.record.clone(), round, tables, backfill: true, stop: std::sync::Arc::default() }
    }

    /// Sends while the accident happens, until everybody has an answer or lost the node.
    fn round(&mut self, round: u64, accident: Accident, senders: Senders) -> Senders {
        // Immediate and buffered in turn, each with every accident; small thresholds, so that segments are sealed meanwhile.
        let immediate = (round / ACCIDENTS.len() as u64).is_multiple_of(2) != self.chance.percent(20);
        let (seconds, volume) = (1 + self.chance.below(3), 2 + self.chance.below(60));
        self.node.post(&format!(
            "set buffer threshold where time = {seconds} seconds and volume = {volume}KB and write_immediate = {immediate}"
        ));
        let first_sight = self.chance.percent(50);
        let work = self.work(round, first_sight);
        let amount = Amount { messages: 200 + self.chance.below(400), requests: 10 + self.chance.below(30), files: 3 };
        let ports = (self.node.tcp, self.node.rest);
        let load = senders.start(ports, &self.node.root(), &work, &mut self.chance, amount);
        std::thread::park_timeout(self.chance.millis(5, 400));
        match accident {
            Accident::ServerKilled => self.server.kill(),
            Accident::ServerRestarted | Accident::ServerAway => self.server.stop(),
            Accident::NodeKilled => self.node.kill(),
            Accident::BothKilled => {
                self.server.kill();
                self.node.kill();
            }
        }
        if accident == Accident::ServerAway {
            self.is_said_to_be_away();
            std::thread::park_timeout(self.chance.millis(500, 1500));
        }
        if accident != Accident::NodeKilled {
            self.server.start_again();
        }
        if matches!(accident, Accident::NodeKilled | Accident::BothKilled) {
            work.stop.store(true, Ordering::Relaxed);
            let senders = load.join();
            self.node.launch();
            return senders;
        }
        load.join()
    }

    /// What is wrong with the tables. Buffered rows come with the sealing of their segment, so they have some time.
    fn faults(&self) -> Faults {
        let mut faults = check_tables(&self.node, &self.record, 0);
        let deadline = Instant::now() + DEADLINE;
        while !faults.is_empty() && Instant::now() < deadline {
            faults = check_tables(&self.node, &self.record, 0);
        }
        faults
    }

    /// What somebody who looks is told, and that queries fail with the reason, not for ever.
    fn is_said_to_be_away(&self) {
        eventually("the server is said to be away", || {
            let databases = self.node.get("get databases").body;
            (databases.contains("Status") && databases.contains("connecting again")).then_some(())
        });
        let answer = self.node.get("sql test format=json \"select count(*) from steady\"");
        assert!(answer.status >= 400 && answer.body.contains("cannot be used at the moment"), "{answer:?}");
    }
}

// R3, DUR-1, DUR-2: a server that is killed, restarted, stopped; a node that is killed.
#[test]
fn acknowledged_rows_survive_whatever_happens_to_the_server() {
    let (seed, rounds) = (seed(), setting("ANYLOG_FAULT_ROUNDS").unwrap_or(6));
    eprintln!("postgres: {rounds} rounds, ANYLOG_FAULT_SEED={seed}");
    let mut site = Site::new(Chance::new(seed));
    let mut senders = Senders::new(4);
    for round in 0..rounds {
        let accident = ACCIDENTS[usize::try_from(round).unwrap() % ACCIDENTS.len()];
        senders = site.round(round, accident, senders);
        none(site.faults(), &format!("seed {seed}, round {round}, {accident:?}"));
        eprintln!("  {round} {accident:?}: messages, rows, acknowledged {:?}", site.record.counts());
    }
    // Everybody gets an answer now; what was sent again must not have doubled anything.
    let amount = Amount { messages: 0, requests: 0, files: 0 };
    let work = site.work(rounds, false);
    let ports = (site.node.tcp, site.node.rest);
    senders = senders.start(ports, &site.node.root(), &work, &mut site.chance, amount).join();
    assert!(senders.settled(), "seed {seed}: every sender has its answers: {senders:?}");
    none(site.faults(), &format!("seed {seed}, when all is answered"));
    let tables: BTreeSet<String> = site.record.since(0).into_keys().collect();
    none(check_files(&site.node, &tables), &format!("seed {seed}, source files"));
    site.node.signal("-TERM");
    assert_eq!(site.node.wait().code(), Some(0), "{}", site.node.log());
}
