//! The scenarios by name, what each is compared with, and how one slice of it is measured.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::baseline;
use crate::histogram::Histogram;
use crate::message;
use crate::mqtt::publisher::{self, Load, Until};
use crate::mqtt::subscriber::Subscriber;
use crate::postgres::{self, Server};
use crate::process::{DBMS, Mosquitto, Node, TABLE, TOPIC, Usage};
use crate::rest;

/// A scenario or a baseline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// `L`: a bare loop of inserts.
    Loop,
    /// The disk's rate of writes with fdatasync.
    Fdatasync,
    /// mosquitto, 8 connections, window 1,000: messages delivered to a subscriber.
    Mosquitto8x1000,
    /// mosquitto, one connection, window 100.
    Mosquitto1x100,
    /// QoS 1, 8 connections, window 1,000, until queryable.
    Mqtt8x1000,
    /// QoS 1, one connection, window 100.
    Mqtt1x100,
    /// As [`Scenario::Mqtt8x1000`] at half of the rate measured in the same round: the latency counts.
    MqttHalfLoad,
    /// As [`Scenario::Mqtt8x1000`] with `write_immediate = false`.
    MqttBuffered,
    /// QoS 0, 8 connections, as fast as the broker reads.
    Qos0,
    /// QoS 2, 8 connections, window 1,000.
    Qos2,
    /// PUT streaming, batches of 1,000 rows on 4 connections.
    Rest1000,
    /// The server's rate of empty replies: `GET /api/status` on 64 connections.
    RestEmpty,
    /// PUT streaming, one row a request on 64 connections.
    Rest1x64,
    /// A file of rows through the watch directory.
    File,
    /// The same rows by `sqlite3 .import`.
    Import,
    /// One binary COPY of the rows into PostgreSQL, in one transaction.
    PsqlCopy,
    /// As [`Scenario::Mqtt8x1000`], all databases in PostgreSQL.
    MqttPsql,
    /// As [`Scenario::Rest1000`], all databases in PostgreSQL.
    RestPsql,
}

/// What a scenario is held against.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// The rate is at least so many times that of another scenario in the same round.
    Rate {
        /// The other scenario.
        of: Scenario,
        /// At least.
        least: f64,
    },
    /// The rate is at least so many times the smaller of 64 fdatasyncs and the server's empty replies.
    Requests(f64),
    /// The rate lies within a fifth of another scenario's.
    Near(Scenario),
    /// The 99th percentile of the latencies is below 20 times one fdatasync or 20 ms, whichever is more.
    Latency,
    /// The peak of resident memory stays below so many MB.
    Memory(f64),
}

impl Scenario {
    /// All, in the order of a round: a baseline before what is compared with it.
    pub const ALL: &[Self] = &[
        Self::Fdatasync,
        Self::Loop,
        Self::Mosquitto8x1000,
        Self::Mqtt8x1000,
        Self::MqttBuffered,
        Self::MqttHalfLoad,
        Self::Mosquitto1x100,
        Self::Mqtt1x100,
        Self::Qos0,
        Self::Qos2,
        Self::Rest1000,
        Self::RestEmpty,
        Self::Rest1x64,
        Self::Import,
        Self::File,
        Self::PsqlCopy,
        Self::MqttPsql,
        Self::RestPsql,
    ];

    /// Its name in the table and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Loop => "L",
            Self::Fdatasync => "fdatasync",
            Self::Mosquitto8x1000 => "mosquitto-8x1000",
            Self::Mosquitto1x100 => "mosquitto-1x100",
            Self::Mqtt8x1000 => "mqtt-8x1000",
            Self::Mqtt1x100 => "mqtt-1x100",
            Self::MqttHalfLoad => "mqtt-half-load",
            Self::MqttBuffered => "mqtt-buffered",
            Self::Qos0 => "qos0",
            Self::Qos2 => "qos2",
            Self::Rest1000 => "rest-1000",
            Self::RestEmpty => "rest-empty",
            Self::Rest1x64 => "rest-1x64",
            Self::File => "file",
            Self::Import => "import",
            Self::PsqlCopy => "psql-copy",
            Self::MqttPsql => "mqtt-psql",
            Self::RestPsql => "rest-psql",
        }
    }

    /// The scenario of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|scenario| scenario.name().eq_ignore_ascii_case(name))
    }

    /// What it is held against.
    #[must_use]
    pub fn targets(self) -> Vec<Target> {
        let rate = |of, least| Target::Rate { of, least };
        match self {
            Self::Mqtt8x1000 => {
                vec![rate(Self::Loop, 0.5), rate(Self::Mosquitto8x1000, 2.0), Target::Memory(64.0)]
            }
            Self::Mqtt1x100 => vec![rate(Self::Mosquitto1x100, 1.5)],
            Self::MqttHalfLoad => vec![Target::Latency],
            Self::MqttBuffered => vec![Target::Near(Self::Mqtt8x1000)],
            Self::Rest1000 | Self::File => vec![rate(Self::Loop, 0.6)],
            Self::Rest1x64 => vec![Target::Requests(0.6)],
            Self::MqttPsql | Self::RestPsql => vec![rate(Self::PsqlCopy, 0.7)],
            _ => Vec::new(),
        }
    }

    /// Scenarios that have to run before it in a round.
    #[must_use]
    pub fn needs(self) -> Vec<Self> {
        let needed = |target: &Target| match target {
            Target::Rate { of, .. } | Target::Near(of) => vec![*of],
            Target::Latency => vec![Self::Fdatasync],
            Target::Requests(_) => vec![Self::Fdatasync, Self::RestEmpty],
            Target::Memory(_) => Vec::new(),
        };
        let mut needs: Vec<Self> = self.targets().iter().flat_map(needed).collect();
        if self == Self::MqttHalfLoad {
            needs.push(Self::Mqtt8x1000);
        }
        needs
    }
}

/// Where and how long to measure.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The program under test.
    pub binary: PathBuf,
    /// A directory on the disk that is measured.
    pub directory: PathBuf,
    /// Length of a slice.
    pub slice: Duration,
    /// Bytes of a message.
    pub payload: usize,
    /// Rows of a file.
    pub rows: u64,
}

/// One slice of a scenario.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Rows that can be queried, messages delivered, writes synced.
    pub count: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// Acknowledgements, where there are some.
    pub latencies: Histogram,
    /// What the measured process used meanwhile.
    pub usage: Usage,
    /// What the generator used meanwhile.
    pub generator: Duration,
}

impl Sample {
    /// Counted a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.count as f64 / self.elapsed.as_secs_f64()
    }
}

impl From<baseline::Done> for Sample {
    fn from(done: baseline::Done) -> Self {
        let baseline::Done { count, elapsed, usage } = done;
        Self { count, elapsed, latencies: Histogram::default(), usage, generator: Duration::ZERO }
    }
}

/// Measures one slice. `rate_of` gives the rate of a scenario that ran before in the same round.
///
/// # Errors
///
/// When a process does not start, answers wrongly, or loses a row.
pub fn measure(scenario: Scenario, setting: &Setting, rate_of: impl Fn(Scenario) -> Option<f64>) -> io::Result<Sample> {
    let load = |qos, connections, window| Load {
        port: 0,
        topic: TOPIC.to_owned(),
        qos,
        connections,
        window,
        payload: setting.payload.max(message::LEN),
        rate: None,
        until: Until::Time(setting.slice),
        first: 1,
    };
    let rows = |rows| rest::Ask::Rows { dbms: DBMS.to_owned(), table: TABLE.to_owned(), rows };
    match scenario {
        Scenario::Loop => Ok(baseline::sqlite_loop(&setting.directory, setting.slice)?.into()),
        Scenario::Fdatasync => Ok(baseline::fdatasync(&setting.directory, setting.slice / 4)?.into()),
        Scenario::Mosquitto8x1000 => mosquitto(setting, load(1, 8, 1000)),
        Scenario::Mosquitto1x100 => mosquitto(setting, load(1, 1, 100)),
        Scenario::Mqtt8x1000 => node(setting, load(1, 8, 1000), true, None),
        Scenario::Mqtt1x100 => node(setting, load(1, 1, 100), true, None),
        Scenario::MqttBuffered => node(setting, load(1, 8, 1000), false, None),
        Scenario::MqttPsql => node(setting, load(1, 8, 1000), true, Some(Server::start(&setting.directory)?)),
        Scenario::Qos0 => node(setting, load(0, 8, 1000), true, None),
        Scenario::Qos2 => node(setting, load(2, 8, 1000), true, None),
        Scenario::MqttHalfLoad => {
            let full = rate_of(Scenario::Mqtt8x1000).ok_or_else(|| io::Error::other("the full rate is not known"))?;
            node(setting, Load { rate: Some(full / 2.0), ..load(1, 8, 1000) }, true, None)
        }
        Scenario::Rest1000 => requests(setting, rows(1000), 4, None),
        Scenario::RestPsql => requests(setting, rows(1000), 4, Some(Server::start(&setting.directory)?)),
        Scenario::Rest1x64 => requests(setting, rows(1), 64, None),
        Scenario::RestEmpty => requests(setting, rest::Ask::Path("/api/status".to_owned()), 64, None),
        Scenario::PsqlCopy => Ok(postgres::copy(&setting.directory, setting.slice)?.into()),
        Scenario::Import => Ok(baseline::import(&setting.directory, setting.rows)?.into()),
        Scenario::File => file(setting),
    }
}

/// A node whose databases lie in SQLite, or all at a server.
fn start(setting: &Setting, server: Option<&Server>) -> io::Result<Node> {
    let settings = server.map(Server::settings).unwrap_or_default();
    Node::start_with(&setting.binary, &setting.directory, &settings)
}

/// Messages through a node until a query finds them all.
fn node(setting: &Setting, mut load: Load, immediate: bool, server: Option<Server>) -> io::Result<Sample> {
    let node = start(setting, server.as_ref())?;
    if !immediate {
        node.command("set buffer threshold where write_immediate = false")?;
    }
    load.port = node.broker;
    let (before, own) = (node.usage()?, own_cpu()?);
    let start = Instant::now();
    let published = publisher::publish(&load)?;
    let (count, elapsed) = if load.qos == 0 {
        node_has_settled(&node, start)?
    } else {
        if !immediate {
            node.command("flush buffers")?;
        }
        node.wait_for_rows(TABLE, Node::FIRST_ROWS + published.messages)?;
        (published.messages, start.elapsed())
    };
    let usage = node.usage()?.since(before);
    Ok(Sample { count, elapsed, latencies: published.latencies, usage, generator: own_cpu()?.saturating_sub(own) })
}

/// At QoS 0 the broker may drop what it cannot keep: waits until the rows stop growing for half a second.
fn node_has_settled(node: &Node, start: Instant) -> io::Result<(u64, Duration)> {
    let (mut rows, mut since) = (node.rows(TABLE)?, Instant::now());
    while since.elapsed() < Duration::from_millis(500) {
        std::thread::sleep(Duration::from_millis(20));
        let now = node.rows(TABLE)?;
        if now > rows {
            (rows, since) = (now, Instant::now());
        }
    }
    Ok((rows.saturating_sub(Node::FIRST_ROWS), since - start))
}

/// Messages through mosquitto until a subscriber has them all.
fn mosquitto(setting: &Setting, mut load: Load) -> io::Result<Sample> {
    let broker = Mosquitto::start(&setting.directory)?;
    let subscriber = Subscriber::start(broker.port, &load.topic)?;
    load.port = broker.port;
    let (before, own) = (broker.usage()?, own_cpu()?);
    let start = Instant::now();
    let published = publisher::publish(&load)?;
    subscriber.wait_for(published.messages)?;
    let elapsed = start.elapsed();
    let usage = broker.usage()?.since(before);
    let generator = own_cpu()?.saturating_sub(own);
    Ok(Sample { count: published.messages, elapsed, latencies: published.latencies, usage, generator })
}

/// Requests to a node; rows until a query finds them all.
fn requests(setting: &Setting, ask: rest::Ask, connections: u16, server: Option<Server>) -> io::Result<Sample> {
    let node = start(setting, server.as_ref())?;
    let rows = match ask {
        rest::Ask::Rows { rows, .. } => rows,
        rest::Ask::Path(_) => 0,
    };
    let payload = setting.payload.max(message::LEN);
    let load = rest::Load { port: node.rest, ask, connections, payload, duration: setting.slice, first: 1 };
    let (before, own) = (node.usage()?, own_cpu()?);
    let start = Instant::now();
    let answered = rest::run(&load)?;
    node.wait_for_rows(TABLE, Node::FIRST_ROWS + answered.requests * rows)?;
    let elapsed = start.elapsed();
    let usage = node.usage()?.since(before);
    let generator = own_cpu()?.saturating_sub(own);
    Ok(Sample { count: answered.requests * rows.max(1), elapsed, latencies: answered.latencies, usage, generator })
}

/// A file moved into the watch directory until a query finds all its rows.
fn file(setting: &Setting) -> io::Result<Sample> {
    let node = Node::start(&setting.binary, &setting.directory)?;
    let name = format!("{DBMS}.{TABLE}.json");
    let prepared = node.data().join("prep").join(&name);
    let mut out = BufWriter::new(File::create(&prepared)?);
    let mut line = Vec::new();
    for n in 1..=setting.rows {
        line.clear();
        message::append(&mut line, n, setting.payload.max(message::LEN));
        line.push(b'\n');
        out.write_all(&line)?;
    }
    out.into_inner()?.sync_all()?;
    let (before, own) = (node.usage()?, own_cpu()?);
    let start = Instant::now();
    std::fs::rename(prepared, node.data().join("watch").join(name))?;
    node.wait_for_rows(TABLE, Node::FIRST_ROWS + setting.rows)?;
    let elapsed = start.elapsed();
    let usage = node.usage()?.since(before);
    let generator = own_cpu()?.saturating_sub(own);
    Ok(Sample { count: setting.rows, elapsed, latencies: Histogram::default(), usage, generator })
}

fn own_cpu() -> io::Result<Duration> {
    Ok(Usage::of(std::process::id())?.cpu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_scenario_needs_runs_before_it() {
        for (at, scenario) in Scenario::ALL.iter().enumerate() {
            assert_eq!(Scenario::named(scenario.name()), Some(*scenario));
            for needed in scenario.needs() {
                assert!(Scenario::ALL[..at].contains(&needed), "{} needs {}", scenario.name(), needed.name());
            }
        }
    }

    #[test]
    fn mosquitto_delivers_every_message() {
        let directory = tempfile::tempdir().expect("a directory");
        let setting = Setting {
            binary: PathBuf::new(),
            directory: directory.path().to_owned(),
            slice: Duration::from_millis(50),
            payload: message::LEN,
            rows: 0,
        };
        let sample = measure(Scenario::Mosquitto8x1000, &setting, |_| None).expect("measured");
        assert!(sample.count > 0);
        assert_eq!(sample.latencies.count(), sample.count);
        assert!(sample.usage.peak_memory > 0);
    }
}
