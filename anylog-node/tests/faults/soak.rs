//! A long time at ten times what a site sends, while old partitions are dropped: memory and disk stay as they are.
//!
//! Devices' clocks run fast here: a partition, an hour of theirs, is over after some seconds. Archived source files are not counted: they
//! stay until `delete archive` removes whole days of them.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::chance::{setting, steady};
use super::harness::eventually;
use super::memory::resident;
use super::mqtt::{Heard, Publisher};
use super::node::{Node, TOPIC, put};

/// Rows of one request.
const BATCH: u64 = 500;
/// Of each five rows one comes as a message of its own, the others in batches over REST.
const MESSAGES: u64 = 5;
/// Partitions that the rule leaves.
const KEEP: usize = 3;

/// What devices send, and when.
struct Site {
    started: Instant,
    /// Rows a second.
    rate: u64,
    /// How long a partition lasts.
    partition: Duration,
    /// Acknowledged rows by partition.
    rows: Vec<AtomicU64>,
    stop: AtomicBool,
}

impl Site {
    /// The hour of the devices' clocks.
    fn hour(&self) -> usize {
        (self.started.elapsed().as_micros() / self.partition.as_micros()) as usize
    }

    fn time(hour: usize) -> String {
        format!("2026-03-{:02}T{:02}", 1 + hour / 24, hour % 24)
    }

    fn row(hour: usize, n: u64) -> String {
        format!(
            r#"{{"table": "soak", "timestamp": "{}:{:02}:{:02}Z", "n": {n}, "r": 0}}"#,
            Self::time(hour),
            n / 60 % 60,
            n % 60
        )
    }

    /// How many of a sender's rows are due by now, at its share of the rate.
    fn due(&self, rate: u64) -> u64 {
        (self.started.elapsed().as_secs_f64() * rate as f64) as u64
    }

    fn at_work(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn took(&self, hour: usize, rows: u64) {
        self.rows[hour].fetch_add(rows, Ordering::Relaxed);
    }

    fn put(&self, port: u16) {
        let rate = self.rate - self.rate / MESSAGES;
        let mut sent = 0;
        while self.at_work() {
            if self.due(rate) < sent + BATCH {
                std::thread::park_timeout(Duration::from_millis(2));
                continue;
            }
            let hour = self.hour();
            let rows: Vec<String> = (sent..sent + BATCH).map(|n| Self::row(hour, n)).collect();
            let answer = put(port, "soak", "streaming", &format!("[{}]", rows.join(","))).unwrap();
            assert_eq!(answer.status, 200, "{}", answer.body);
            self.took(hour, BATCH);
            sent += BATCH;
        }
    }

    fn publish(&self, port: u16) {
        let rate = self.rate / MESSAGES;
        let mut publisher = Publisher::new("soak", 1);
        publisher.connect(port).unwrap();
        let mut sent = 0u64;
        while self.at_work() || publisher.in_flight() > 0 {
            let hour = self.hour();
            while self.at_work() && sent < self.due(rate) && publisher.in_flight() < 500 {
                // What tells messages apart says which hour each belongs to.
                publisher.publish(TOPIC, Self::row(hour, sent).as_bytes(), hour);
                sent += 1;
            }
            publisher.flush().unwrap();
            for heard in publisher.hear(Duration::from_millis(5)).unwrap() {
                if let Heard::Taken(hour) = heard {
                    self.took(hour, 1);
                }
            }
        }
    }
}

/// What the node takes.
#[derive(Debug, Clone, Copy)]
struct Sample {
    minutes: f64,
    memory: f64,
    disk: f64,
}

/// Bytes that the files below a directory take on disk, without the archive.
fn disk(root: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| {
        // Files come and go.
        let Ok(kind) = entry.metadata() else { return 0 };
        match kind.is_dir() {
            true if entry.file_name() == "archive" => 0,
            true => disk(&entry.path()),
            false => kind.blocks() * 512,
        }
    };
    entries.map(size).sum()
}

/// The mean of some samples, and by how many hundredths of it they rise in a minute: the line of least squares.
fn slope(samples: &[Sample], of: fn(&Sample) -> f64) -> (f64, f64) {
    let count = samples.len() as f64;
    let mean = |of: &dyn Fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let (middle, level) = (mean(&|sample| sample.minutes), mean(&of));
    let spread = |sample: &Sample| (sample.minutes - middle).powi(2);
    let both = |sample: &Sample| (sample.minutes - middle) * (of(sample) - level);
    let rise = samples.iter().map(both).sum::<f64>() / samples.iter().map(spread).sum::<f64>();
    (level, rise / level * 100.0)
}

// R11, R23
#[test]
fn memory_and_disk_are_flat_while_old_partitions_are_dropped() {
    let span = setting("ANYLOG_SOAK_SECONDS").map_or(steady() * 2, Duration::from_secs);
    let rate = setting("ANYLOG_SOAK_ROWS").unwrap_or(10_000);
    let partition = (span / 24).clamp(Duration::from_millis(500), Duration::from_secs(20));
    let home = tempfile::tempdir().unwrap();
    let rule = [("PARTITION_COLUMN", "timestamp"), ("PARTITION_INTERVAL", "1 hour")];
    let node = Node::running(home.path(), &rule);
    node.post("set buffer threshold where time = 5 seconds and volume = 1MB and write_immediate = true");
    node.post(&format!(
        "schedule time = 1 second and name = old task drop partition where dbms = test and table = soak and keep = {KEEP}"
    ));
    let hours = (span.as_micros() / partition.as_micros()) as usize + 1000;
    let site = Arc::new(Site {
        started: Instant::now(),
        rate,
        partition,
        rows: (0..hours).map(|_| AtomicU64::new(0)).collect(),
        stop: AtomicBool::new(false),
    });
    let (putting, publishing, (tcp, rest)) = (Arc::clone(&site), Arc::clone(&site), (node.tcp, node.rest));
    let senders = [std::thread::spawn(move || putting.put(rest)), std::thread::spawn(move || publishing.publish(tcp))];
    let mut samples = Vec::new();
    while site.started.elapsed() < span && senders.iter().all(|sender| !sender.is_finished()) {
        std::thread::park_timeout(Duration::from_millis(500));
        let minutes = site.started.elapsed().as_secs_f64() / 60.0;
        samples.push(Sample { minutes, memory: resident(node.pid()) as f64, disk: disk(home.path()) as f64 / 1024.0 });
        // Somebody looks at the newest rows.
        node.rows("select count(*) as n, max(n) as last from soak where period(minute, 5, now(), timestamp)").ok();
    }
    site.stop.store(true, Ordering::Relaxed);
    senders.into_iter().for_each(|sender| sender.join().expect("no sender failed"));

    let rows: u64 = site.rows.iter().map(|rows| rows.load(Ordering::Relaxed)).sum();
    let took = site.started.elapsed().as_secs_f64();
    let warm = &samples[samples.len() / 4..];
    let ((memory, memory_rise), (files, files_rise)) = (slope(warm, |s| s.memory), slope(warm, |s| s.disk));
    let most = samples.iter().map(|sample| sample.memory).fold(0.0, f64::max);
    eprintln!(
        "R11: {rows} rows in {took:.0} s, {:.0}/s, {} partitions; memory {memory:.0} KiB, {memory_rise:+.2} % a minute, at most {most:.0} KiB; \
         disk {files:.0} KiB, {files_rise:+.2} % a minute",
        rows as f64 / took,
        site.hour() + 1
    );
    // A partition is dropped up to a second after the next one began.
    let many = eventually("old partitions are gone", || {
        let shown = node.get("get partitions where dbms = test and table = soak and format = json").body;
        let many = shown.matches("par_soak_").count();
        (many <= KEEP).then_some(many)
    });
    assert!(many > 0);
    assert!(most < f64::from(200 << 10), "at most {most} KiB");
    if span >= Duration::from_secs(120) {
        assert!(memory_rise < 1.0, "memory grows by {memory_rise} % a minute");
        assert!(files_rise < 1.0, "files grow by {files_rise} % a minute");
    }
    // What was acknowledged for the newest partitions is there.
    let newest = (0..hours).rev().filter(|hour| site.rows[*hour].load(Ordering::Relaxed) > 0).take(2);
    for hour in newest {
        let (from, to) = (Site::time(hour), Site::time(hour + 1));
        let found = node
            .rows(&format!(
                "select count(*) as n from soak where timestamp >= '{from}:00:00Z' and timestamp < '{to}:00:00Z'"
            ))
            .unwrap();
        assert_eq!(found[0]["n"], site.rows[hour].load(Ordering::Relaxed), "rows of {from}");
    }
}
