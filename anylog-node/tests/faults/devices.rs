//! Senders: each a thread that sends until the node is gone or its part is done.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::chance::Chance;
use super::mqtt::{Heard, Publisher};
use super::node::{TOPIC, put};
use super::record::{Record, Way};

/// What all senders of a round know.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    pub(crate) record: Record,
    pub(crate) round: u64,
    /// Tables to send to; the last ones may be new.
    pub(crate) tables: Vec<String>,
    /// Whether rows carry times of many days.
    pub(crate) backfill: bool,
    /// Nothing new is sent once it is set.
    pub(crate) stop: Arc<AtomicBool>,
}

impl Work {
    fn table(&self, chance: &mut Chance) -> String {
        self.tables[usize::try_from(chance.below(self.tables.len() as u64)).unwrap()].clone()
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// One row as JSON. `extra` stands in front of its columns.
    fn row(&self, n: u64, extra: &str, chance: &mut Chance) -> String {
        let (month, day) = match self.backfill {
            // Most rows meet a partition that is there; some make one.
            true if chance.percent(5) => (1 + chance.below(9), 1 + chance.below(28)),
            _ => (3, 1 + chance.below(3)),
        };
        let (minute, second) = (n / 60 % 60, n % 60);
        format!(
            r#"{{{extra}"timestamp": "2026-{month:02}-{day:02}T10:{minute:02}:{second:02}Z", "n": {n}, "r": {}}}"#,
            self.round
        )
    }
}

/// Publishes up to `budget` messages, at most `window` of them in flight, and waits for all acknowledgements; what an earlier
/// connection left open is sent again. Ends early when the connection does.
pub(crate) fn publish(
    publisher: &mut Publisher,
    port: u16,
    work: &Work,
    mut chance: Chance,
    budget: u64,
    window: usize,
) {
    // Whatever is open may have reached the node that was killed.
    let open: Vec<usize> = publisher.open().collect();
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(error) = publisher.connect(port) {
        let refused = error.kind() == io::ErrorKind::ConnectionRefused;
        if !refused || work.stopped() {
            return;
        }
        assert!(Instant::now() < deadline, "publisher {}: {error}", publisher.name);
        std::thread::park_timeout(Duration::from_millis(1));
    }
    open.iter().for_each(|message| work.record.again(*message));
    let way = if publisher.qos == 2 { Way::Qos2 } else { Way::Qos1 };
    let mut left = budget;
    while left > 0 || publisher.in_flight() > 0 {
        while left > 0 && publisher.in_flight() < window && !work.stopped() {
            let table = work.table(&mut chance);
            let (message, n) = work.record.begin(way, &table, 1, work.round);
            let row = work.row(n, &format!(r#""table": "{table}", "#), &mut chance);
            publisher.publish(TOPIC, row.as_bytes(), message);
            left -= 1;
        }
        if work.stopped() {
            left = 0;
        }
        let Ok(heard) = publisher.flush().and_then(|()| publisher.hear(Duration::from_secs(1))) else { break };
        for event in heard {
            if let Heard::Taken(message) = event {
                work.record.acknowledge(message);
            }
        }
    }
    publisher.cut();
}

/// A `PUT` whose answer did not come.
#[derive(Debug, Clone)]
pub(crate) struct Unanswered {
    message: usize,
    mode: &'static str,
    body: String,
}

/// Puts up to `budget` requests: single rows, batches, files. Returns those without an answer. `again` are such of a node that
/// was killed.
pub(crate) fn put_rows(
    port: u16,
    work: &Work,
    mut chance: Chance,
    budget: u64,
    again: Vec<Unanswered>,
) -> Vec<Unanswered> {
    let mut unanswered = Vec::new();
    let repeated: Vec<Unanswered> = again.into_iter().inspect(|request| work.record.again(request.message)).collect();
    let mut fresh = 0;
    let mut queue = repeated.into_iter();
    loop {
        let request = match queue.next() {
            Some(request) => request,
            None if fresh < budget && !work.stopped() => {
                fresh += 1;
                new_put(work, &mut chance)
            }
            None => return unanswered,
        };
        let table = work.record.message(request.message).table;
        match put(port, &table, request.mode, &request.body) {
            Ok(answer) if answer.status == 200 || answer.body.contains("ingested before") => {
                work.record.acknowledge(request.message);
            }
            // A full disk; a database that has to wait for space. Tests where nothing may fail look for such requests.
            Ok(answer) if answer.status >= 500 => unanswered.push(request),
            // The operator of a node that has just started does not run yet; one that ends runs no more.
            Ok(answer) if answer.body.contains("no operator runs") || answer.body.contains("is not connected") => {
                unanswered.push(request);
            }
            Ok(answer) => panic!("PUT {table} {}: {} {}", request.mode, answer.status, answer.body),
            Err(_) => {
                // The node is gone; what is still to be repeated is repeated by the next one.
                unanswered.push(request);
                unanswered.extend(queue);
                return unanswered;
            }
        }
    }
}

fn new_put(work: &Work, chance: &mut Chance) -> Unanswered {
    let table = work.table(chance);
    let (way, mode) = if chance.percent(15) { (Way::PutFile, "file") } else { (Way::Put, "streaming") };
    let rows = if chance.percent(40) { 1 } else { 2 + chance.below(40) };
    let (message, first) = work.record.begin(way, &table, rows, work.round);
    let rows: Vec<String> = (first..first + rows).map(|n| work.row(n, "", chance)).collect();
    Unanswered { message, mode, body: format!("[{}]", rows.join(",\n")) }
}

/// Moves up to `budget` files into the watch directory. A file that is there has been handed over.
pub(crate) fn drop_files(root: &Path, work: &Work, mut chance: Chance, budget: u64) {
    let (prepared, watch) = (root.join("faults-prepared"), root.join("data/watch"));
    std::fs::create_dir_all(&prepared).unwrap();
    std::fs::create_dir_all(&watch).unwrap();
    for _ in 0..budget {
        if work.stopped() {
            return;
        }
        let table = work.table(&mut chance);
        let rows = 1 + chance.below(30);
        let (message, first) = work.record.begin(Way::Watch, &table, rows, work.round);
        let text: String = (first..first + rows).map(|n| work.row(n, "", &mut chance) + "\n").collect();
        let name = format!("test.{table}.w{message}.json");
        std::fs::write(prepared.join(&name), text).unwrap();
        std::fs::rename(prepared.join(&name), watch.join(&name)).unwrap();
        work.record.acknowledge(message);
        std::thread::park_timeout(chance.millis(1, 30));
    }
}
