//! Senders: for each member one that puts rows over REST and one that publishes them at QoS 1.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::chance::Chance;
use super::http::{Answer, request};
use super::mqtt::{Heard, Publisher};
use super::network::{Cluster, DBMS, TABLES, TOPIC, Table};
use super::node::{Ports, patience};
use super::record::{Record, Way};

/// How long a request waits for its answer, which comes late while a mate that must have the rows is away.
const ANSWER: Duration = Duration::from_secs(15);

/// A pause before somebody who was not reached is tried again.
const AGAIN: Duration = Duration::from_millis(20);

/// Messages of a publisher that may be without an acknowledgement.
const WINDOW: usize = 20;

/// One row as JSON. `extra` stands in front of its columns.
pub(crate) fn row(n: u64, node: usize, phase: u64, extra: &str) -> String {
    let (day, minute, second) = (1 + n % 5, n / 60 % 60, n % 60);
    format!(
        r#"{{{extra}"timestamp": "2026-03-{day:02}T10:{minute:02}:{second:02}Z", "n": {n}, "p": {node}, "r": {phase}}}"#
    )
}

/// One row as a message, which names its table.
pub(crate) fn message(table: Table, n: u64, node: usize, phase: u64) -> String {
    row(n, node, phase, &format!(r#""table": "{}", "#, table.name))
}

/// `PUT` of rows as a stream.
pub(crate) fn put(port: u16, table: Table, body: &str) -> std::io::Result<Answer> {
    let headers = [
        ("type", "json"),
        ("dbms", DBMS),
        ("table", table.name),
        ("mode", "streaming"),
        ("Content-Type", "text/plain"),
    ];
    request(port, "PUT", &headers, body, ANSWER)
}

/// Puts rows with numbers of the record; returns whether they were acknowledged.
pub(crate) fn put_rows(record: &Record, port: u16, table: Table, node: usize, rows: u64) -> bool {
    let (losses, phase) = (record.losses(node), record.phase());
    let (message, first) = record.begin(Way::Put, table, node, rows);
    let rows: Vec<String> = (first..first + rows).map(|n| row(n, node, phase, "")).collect();
    match put(port, table, &format!("[{}]", rows.join(",\n"))) {
        Ok(answer) if answer.status == 200 && answer.body.contains("Success") => {
            record.acknowledge(message, losses);
            true
        }
        // Whether the rows are there is not known. A node that has just started does not take rows yet.
        Ok(answer) if answer.status >= 500 || answer.body.contains("no operator runs") => false,
        Ok(answer) if answer.body.contains("is not connected") => false,
        Ok(answer) => panic!("PUT to {} of member {node}: {} {}", table.name, answer.status, answer.body),
        Err(_) => false,
    }
}

/// What senders keep over the end of a phase.
#[derive(Debug)]
pub(crate) struct Senders {
    publishers: Vec<Publisher>,
}

/// Senders at work.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    publishers: Vec<JoinHandle<Publisher>>,
    puts: Vec<JoinHandle<()>>,
}

/// What a sender knows.
#[derive(Debug, Clone)]
struct Work {
    record: Record,
    node: usize,
    address: Arc<Mutex<Ports>>,
    tables: Vec<Table>,
    stop: Arc<AtomicBool>,
    chance: Chance,
}

impl Work {
    fn table(&mut self) -> Table {
        self.tables[usize::try_from(self.chance.below(self.tables.len() as u64)).unwrap()]
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Senders {
    pub(crate) fn new(members: usize) -> Self {
        Self { publishers: (0..members).map(|n| Publisher::new(&format!("device-{n}"), 1)).collect() }
    }

    /// Sets all of them to work.
    pub(crate) fn start(self, cluster: &Cluster, record: &Record, chance: &mut Chance) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let mut load = Load { stop: Arc::clone(&stop), publishers: Vec::new(), puts: Vec::new() };
        for (node, mut publisher) in self.publishers.into_iter().enumerate() {
            let mut work = || Work {
                record: record.clone(),
                node,
                address: cluster.members[node].address(),
                tables: TABLES.to_vec(),
                stop: Arc::clone(&stop),
                chance: chance.branch(),
            };
            let (putting, publishing) = (work(), work());
            load.puts.push(std::thread::spawn(move || keep_putting(putting)));
            load.publishers.push(std::thread::spawn(move || {
                keep_publishing(&mut publisher, publishing);
                publisher
            }));
        }
        load
    }
}

impl Load {
    /// Ends the load and waits until every message that can be sent again is acknowledged. All members must run.
    pub(crate) fn settle(self) -> Senders {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.puts {
            thread.join().expect("a REST client that did not fail");
        }
        let publishers = self.publishers.into_iter();
        Senders { publishers: publishers.map(|thread| thread.join().expect("a publisher that did not fail")).collect() }
    }
}

fn keep_putting(mut work: Work) {
    while !work.stopped() {
        let (table, rows) = (work.table(), 1 + work.chance.below(20));
        let port = work.address.lock().rest;
        // Rows for a node that is not there need no number.
        if TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::park_timeout(AGAIN);
            continue;
        }
        let pause = match put_rows(&work.record, port, table, work.node, rows) {
            true => work.chance.millis(5, 60),
            false => AGAIN,
        };
        std::thread::park_timeout(pause);
    }
}

fn keep_publishing(publisher: &mut Publisher, mut work: Work) {
    let mut ended = None;
    let mut connected = None;
    loop {
        if work.stopped() {
            if publisher.in_flight() == 0 {
                return publisher.cut();
            }
            let end = *ended.get_or_insert_with(|| Instant::now() + patience());
            assert!(
                Instant::now() < end,
                "member {}: {} messages without acknowledgement, to {:?}",
                work.node,
                publisher.in_flight(),
                publisher.open().map(|message| work.record.table_of(message).name).collect::<Vec<_>>()
            );
        }
        let Some(losses) = connected else {
            let losses = work.record.losses(work.node);
            let open: Vec<usize> = publisher.open().collect();
            if publisher.connect(work.address.lock().tcp).is_ok() {
                open.into_iter().for_each(|message| work.record.again(message));
                connected = Some(losses);
            } else {
                std::thread::park_timeout(AGAIN);
            }
            continue;
        };
        while !work.stopped() && publisher.in_flight() < WINDOW {
            let table = work.table();
            let (number, n) = work.record.begin(Way::Qos1, table, work.node, 1);
            publisher.publish(TOPIC, message(table, n, work.node, work.record.phase()).as_bytes(), number);
        }
        match publisher.flush().and_then(|()| publisher.hear(Duration::from_millis(200))) {
            Ok(heard) => {
                for event in heard {
                    if let Heard::Taken(message) = event {
                        work.record.acknowledge(message, losses);
                    }
                }
            }
            Err(_) => {
                publisher.cut();
                connected = None;
            }
        }
        std::thread::park_timeout(work.chance.millis(5, 60));
    }
}
