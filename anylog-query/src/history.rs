//! The queries of the node, for `query status` and the statistics of times; bounded.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::QueryError;
use crate::execute::Progress;
use crate::network::PartRequest;
use crate::plan::{Divided, Steps};
use crate::service::{Found, Plan, Request};
use crate::sql::expr::Tongue;

/// Queries that are remembered.
const SLOTS: usize = 500;
/// Entries of the query log.
const LOG: usize = 1000;
/// Characters of a statement that are remembered: history is bounded in bytes too.
const SHOWN: usize = 2000;
/// Buckets of `get queries time`: up to 1, 2, .. 9 seconds, and over.
const BUCKETS: usize = 10;

/// When something began, and how it ended; the first end counts.
#[derive(Debug)]
struct Course {
    clock: Instant,
    ended: Mutex<Option<(Duration, String)>>,
}

impl Default for Course {
    fn default() -> Self {
        Self { clock: Instant::now(), ended: Mutex::default() }
    }
}

impl Course {
    /// Notes the end. The time that it took; none when it had ended before.
    fn end(&self, status: String) -> Option<Duration> {
        let time = self.clock.elapsed();
        let mut ended = self.ended.lock();
        if ended.is_some() {
            return None;
        }
        *ended = Some((time, status));
        Some(time)
    }

    /// The time that it took, and the status of its end; none while it goes on.
    fn ended(&self) -> Option<(Duration, String)> {
        self.ended.lock().clone()
    }

    /// The time since it began, until its end.
    fn time(&self) -> Duration {
        self.ended.lock().as_ref().map_or_else(|| self.clock.elapsed(), |(time, _)| *time)
    }
}

/// A query.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) id: u64,
    pub(crate) dbms: String,
    pub(crate) sql: String,
    pub(crate) output: String,
    /// Whether it asks other nodes.
    pub(crate) network: bool,
    course: Course,
    progress: Arc<Progress>,
    state: Mutex<State>,
    nodes: Mutex<Vec<NodeNote>>,
    stopped: tokio::sync::Notify,
    timings: Arc<Timings>,
}

/// What a node does for a query.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeNote(Arc<NodeState>);

#[derive(Debug, Default)]
struct NodeState {
    course: Course,
    shown: Mutex<NodeShown>,
}

/// What is shown of a node of a query.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeShown {
    /// The node that was asked last, or the name of its cluster.
    pub(crate) address: String,
    pub(crate) dbms: String,
    pub(crate) table: String,
    pub(crate) places: u32,
    /// The time that the node spent in its database, as it reports.
    pub(crate) database: Duration,
    pub(crate) blocks: u64,
    pub(crate) rows: u64,
    /// How it ended; none while it works.
    pub(crate) ended: Option<String>,
}

impl NodeNote {
    /// A node is asked.
    pub(crate) fn asked(&self, address: &str) {
        self.0.shown.lock().address = address.to_owned();
    }

    /// It sent rows.
    pub(crate) fn rows(&self, rows: u64) {
        let mut shown = self.0.shown.lock();
        shown.blocks += 1;
        shown.rows += rows;
    }

    /// It was done.
    pub(crate) fn database(&self, places: u32, micros: u64) {
        let mut shown = self.0.shown.lock();
        shown.places = places;
        shown.database = Duration::from_micros(micros);
    }

    /// Nothing more comes.
    pub(crate) fn ended(&self, status: &str) {
        self.0.course.end(status.to_owned());
    }

    /// The state now, and for how long the node works or worked.
    pub(crate) fn shown(&self) -> (NodeShown, Duration) {
        let ended = self.0.course.ended().map(|(_, status)| status);
        (NodeShown { ended, ..self.0.shown.lock().clone() }, self.0.course.time())
    }
}

#[derive(Debug, Default)]
struct State {
    explained: Explained,
    stopped: bool,
}

/// How a query is carried out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Explained {
    pub(crate) table: String,
    pub(crate) places: usize,
    pub(crate) remote: String,
    pub(crate) create: String,
    pub(crate) last: String,
    pub(crate) increments: String,
}

impl Record {
    pub(crate) fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    pub(crate) fn rows(&self) -> u64 {
        self.progress.rows.load(Ordering::Relaxed)
    }

    pub(crate) fn blocks(&self) -> u64 {
        self.progress.blocks.load(Ordering::Relaxed)
    }

    /// Whether it has not ended.
    pub(crate) fn is_active(&self) -> bool {
        self.course.ended().is_none()
    }

    pub(crate) fn run_time(&self) -> Duration {
        self.course.time()
    }

    pub(crate) fn status(&self) -> String {
        self.course.ended().map_or_else(|| "Processing Data".to_owned(), |(_, status)| status)
    }

    pub(crate) fn explained(&self) -> Explained {
        self.state.lock().explained.clone()
    }

    /// Notes how the query is carried out.
    pub(crate) fn planned(&self, plan: &Plan) {
        let select = &plan.select;
        let mut explained = Explained {
            table: select.table.clone(),
            increments: select.increments.clone().unwrap_or_default(),
            ..Explained::default()
        };
        let (columns, last) = match &plan.found {
            Found::Nothing => (&[] as &[_], None),
            Found::Here(_, steps) => {
                explained.places = steps.places();
                explained.remote = shortened(steps.remote());
                match steps {
                    Steps::Merge { merge, .. } => (merge.columns.as_slice(), Some(&merge.last)),
                    _ => (&[] as &[_], None),
                }
            }
            Found::Spread(spread) => {
                explained.remote = shortened(&spread.part().sql(&select.table, Tongue::Dialect));
                match spread.divided() {
                    Divided::Merge(merge) => (merge.columns.as_slice(), Some(&merge.last)),
                    _ => (&[] as &[_], None),
                }
            }
        };
        if let Some(last) = last {
            let list =
                columns.iter().map(|column| format!("{} {}", column.name, column.declared).trim_end().to_owned());
            explained.create = format!("create table query_{} ({});", self.id, list.collect::<Vec<_>>().join(", "));
            explained.last = shortened(&last.replace(crate::plan::MERGE_TABLE, &format!("query_{}", self.id)));
        }
        self.state.lock().explained = explained;
    }

    /// Notes that a part of the data is asked for.
    pub(crate) fn node(&self, name: &str, dbms: &str, table: &str) -> NodeNote {
        let note = NodeNote::default();
        {
            let mut shown = note.0.shown.lock();
            shown.address = name.to_owned();
            shown.dbms = dbms.to_owned();
            shown.table = table.to_owned();
        }
        self.nodes.lock().push(note.clone());
        note
    }

    /// The nodes that were asked.
    pub(crate) fn nodes(&self) -> Vec<NodeNote> {
        self.nodes.lock().clone()
    }

    /// Asks the query to end: `job stop`. False when it has ended.
    pub(crate) fn ask_to_stop(&self) -> bool {
        if !self.is_active() {
            return false;
        }
        self.state.lock().stopped = true;
        self.stopped.notify_one();
        true
    }

    /// Returns when somebody asked the query to end.
    pub(crate) async fn asked_to_stop(&self) {
        loop {
            if self.state.lock().stopped {
                return;
            }
            self.stopped.notified().await;
        }
    }

    /// Notes the end of the query; the first end counts.
    pub(crate) fn complete(&self, result: Result<(), &QueryError>) {
        let status = match result {
            Ok(()) if self.rows() == 0 => "Empty set".to_owned(),
            Ok(()) => "Completed".to_owned(),
            Err(error) => format!("Error: {error}"),
        };
        self.end(status);
    }

    /// Notes that the receiver left before the end.
    pub(crate) fn stop(&self) {
        self.end("Stopped".to_owned());
    }

    fn end(&self, status: String) {
        if let Some(time) = self.course.end(status) {
            self.timings.note(time, self.rows(), &self.dbms, &self.sql);
        }
    }
}

fn shortened(sql: &str) -> String {
    match sql.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{} ..", &sql[..end]),
        None => sql.to_owned(),
    }
}

/// When the query log keeps a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum LogMode {
    /// Never.
    #[default]
    Off,
    /// Always.
    All,
    /// When it took at least so long.
    Slow(Duration),
}

/// Times of queries, and the log.
#[derive(Debug)]
struct Timings(Mutex<Times>);

#[derive(Debug)]
struct Times {
    since: Instant,
    buckets: [u64; BUCKETS],
    mode: LogMode,
    log: VecDeque<Logged>,
}

/// An entry of the query log.
#[derive(Debug, Clone)]
pub(crate) struct Logged {
    pub(crate) time: Duration,
    pub(crate) rows: u64,
    pub(crate) dbms: String,
    pub(crate) sql: String,
}

impl Timings {
    fn note(&self, time: Duration, rows: u64, dbms: &str, sql: &str) {
        let mut times = self.0.lock();
        let bucket = usize::try_from(time.as_secs()).unwrap_or(BUCKETS).min(BUCKETS - 1);
        times.buckets[bucket] += 1;
        let kept = match times.mode {
            LogMode::Off => false,
            LogMode::All => true,
            LogMode::Slow(least) => time >= least,
        };
        if kept {
            if times.log.len() == LOG {
                times.log.pop_front();
            }
            times.log.push_back(Logged { time, rows, dbms: dbms.to_owned(), sql: sql.to_owned() });
        }
    }
}

/// The last queries.
#[derive(Debug)]
pub(crate) struct History {
    next: AtomicU64,
    records: Mutex<VecDeque<Arc<Record>>>,
    timings: Arc<Timings>,
}

impl Default for History {
    fn default() -> Self {
        let times = Times { since: Instant::now(), buckets: [0; BUCKETS], mode: LogMode::Off, log: VecDeque::new() };
        Self { next: AtomicU64::new(1), records: Mutex::default(), timings: Arc::new(Timings(Mutex::new(times))) }
    }
}

impl History {
    /// Notes a query that begins.
    pub(crate) fn begin(&self, request: &Request) -> Arc<Record> {
        let record = Arc::new(Record {
            id: self.next.fetch_add(1, Ordering::Relaxed),
            dbms: request.dbms.clone(),
            sql: shortened(&request.sql),
            output: request.output.clone(),
            network: request.network.is_some(),
            course: Course::default(),
            progress: Arc::default(),
            state: Mutex::default(),
            nodes: Mutex::default(),
            stopped: tokio::sync::Notify::new(),
            timings: Arc::clone(&self.timings),
        });
        let mut records = self.records.lock();
        if records.len() == SLOTS {
            records.pop_front();
        }
        records.push_back(Arc::clone(&record));
        record
    }

    /// All queries that are remembered, oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<Record>> {
        self.records.lock().iter().cloned().collect()
    }

    /// Queries by time in seconds, and since when they are counted.
    pub(crate) fn times(&self) -> ([u64; BUCKETS], Duration) {
        let times = self.timings.0.lock();
        (times.buckets, times.since.elapsed())
    }

    /// Counts times from now on.
    pub(crate) fn reset_times(&self) {
        let mut times = self.timings.0.lock();
        times.buckets = [0; BUCKETS];
        times.since = Instant::now();
    }

    /// Changes which queries the log keeps.
    pub(crate) fn set_log(&self, mode: LogMode) {
        let mut times = self.timings.0.lock();
        times.mode = mode;
        if mode == LogMode::Off {
            times.log.clear();
        }
    }

    /// The log, oldest first, and which queries it keeps.
    pub(crate) fn log(&self) -> (LogMode, Vec<Logged>) {
        let times = self.timings.0.lock();
        (times.mode, times.log.iter().cloned().collect())
    }
}

/// The parts of other nodes' queries, for `get operator execution`; bounded.
#[derive(Debug, Default)]
pub(crate) struct Parts(Mutex<VecDeque<Arc<PartRecord>>>);

/// A part of another node's query.
#[derive(Debug)]
pub(crate) struct PartRecord {
    pub(crate) from: String,
    pub(crate) job: u64,
    pub(crate) dbms: String,
    pub(crate) table: String,
    pub(crate) sql: String,
    places: AtomicU64,
    course: Course,
    progress: Arc<Progress>,
}

impl Parts {
    /// Notes a part that begins.
    pub(crate) fn begin(&self, request: &PartRequest) -> Arc<PartRecord> {
        let record = Arc::new(PartRecord {
            from: request.from.clone(),
            job: request.id,
            dbms: request.dbms.clone(),
            table: request.table.clone(),
            sql: shortened(&request.sql),
            places: AtomicU64::new(0),
            course: Course::default(),
            progress: Arc::default(),
        });
        let mut parts = self.0.lock();
        if parts.len() == SLOTS {
            parts.pop_front();
        }
        parts.push_back(Arc::clone(&record));
        record
    }

    /// All parts that are remembered, oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<PartRecord>> {
        self.0.lock().iter().cloned().collect()
    }
}

impl PartRecord {
    pub(crate) fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    pub(crate) fn planned(&self, places: u32) {
        self.places.store(u64::from(places), Ordering::Relaxed);
    }

    pub(crate) fn places(&self) -> u64 {
        self.places.load(Ordering::Relaxed)
    }

    /// Notes the end of the part; the first end counts.
    pub(crate) fn complete(&self, result: &Result<(), QueryError>) {
        let status = match result {
            Ok(()) => "Completed".to_owned(),
            Err(error) => format!("Error: {error}"),
        };
        self.course.end(status);
    }

    /// Notes that the asking node left before the end.
    pub(crate) fn stop(&self) {
        self.course.end("Stopped".to_owned());
    }

    /// The time since the request, and the state.
    pub(crate) fn state(&self) -> (Duration, String) {
        self.course.ended().unwrap_or_else(|| (self.course.time(), "Processing".to_owned()))
    }
}
