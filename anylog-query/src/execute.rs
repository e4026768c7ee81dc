//! Runs a plan on blocking threads and hands rows to a receiver, with bounded memory.

pub(crate) mod digest;
mod fold;
mod gather;
mod merge;
pub(crate) mod sorted;
mod table;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anylog_dbms::{Dbms, DbmsError, SqlValue, Target, Wanted};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::QueryError;
use crate::plan::Steps;
pub(crate) use merge::{Held, Merger, Merging};
pub(crate) use table::directory;

/// A row as an engine gave it.
pub(crate) type Row = Vec<SqlValue>;

/// Rows in one piece on their way to the receiver.
const BATCH_ROWS: usize = 256;
/// Bytes after which a piece is sent although it has few rows.
const BATCH_BYTES: usize = 64 * 1024;
/// Pieces that wait for the receiver.
const BATCHES: usize = 4;
/// How long a receiver may read nothing before its query ends: an open reader keeps a database from reclaiming space (R18).
const STALL: Duration = Duration::from_secs(120);
/// How often a reader that waits looks whether its database wants it to end.
const LOOK: Duration = Duration::from_millis(50);

/// What a query has done so far; for `query status`.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) blocks: AtomicU64,
    pub(crate) rows: AtomicU64,
    /// Time in databases, in microseconds.
    pub(crate) database: AtomicU64,
}

/// Takes rows one by one and may stop.
pub(crate) trait Sink: Send {
    /// The next row.
    fn row(&mut self, row: Row) -> ControlFlow<()>;

    /// The next rows.
    fn rows(&mut self, rows: Vec<Row>) -> ControlFlow<()> {
        for row in rows {
            self.row(row)?;
        }
        ControlFlow::Continue(())
    }

    /// True when nobody wants more rows.
    fn closed(&self) -> bool {
        false
    }

    /// Tells the opposite of [`Self::closed`] while the sink takes rows elsewhere.
    fn wanted(&self) -> Box<dyn Fn() -> bool + Send + Sync> {
        Box::new(|| true)
    }
}

/// Keeps the rows: for statements of one row.
#[derive(Debug, Default)]
pub(crate) struct Kept(pub(crate) Vec<Row>);

impl Sink for Kept {
    fn row(&mut self, row: Row) -> ControlFlow<()> {
        self.0.push(row);
        ControlFlow::Continue(())
    }
}

/// Plans of one query: each is made because a partition of the one before was dropped.
const PLANS: u32 = 4;

/// Runs a plan to its end, or until the sink stops it. When a place that it needs was dropped meanwhile, before its first row, the plan
/// that `again` makes is run instead. Blocks.
pub(crate) fn run(
    dbms: &Arc<dyn Dbms>,
    steps: &Steps,
    again: &dyn Fn() -> Result<Steps, QueryError>,
    merger: &Merger,
    sink: &mut dyn Sink,
) -> Result<(), QueryError> {
    let mut result = run_once(dbms, steps, merger, sink);
    for _ in 1..PLANS {
        if !matches!(result, Err(QueryError::Dbms(DbmsError::NoTable { .. }))) {
            break;
        }
        result = run_once(dbms, &again()?, merger, sink);
    }
    result
}

fn run_once(dbms: &Arc<dyn Dbms>, steps: &Steps, merger: &Merger, sink: &mut dyn Sink) -> Result<(), QueryError> {
    let wanted = sink.wanted();
    match steps {
        Steps::Direct { target, sql, grouped } => match grouped {
            Some(merge) if merger.group(dbms, target, merge, sink)? => Ok(()),
            _ => read(dbms, target, sql, &wanted, &mut |row| sink.row(row)),
        },
        Steps::Chain { parts, skip, limit } => {
            let (mut skip, mut left) = (*skip, *limit);
            for (target, sql) in parts {
                let mut stopped = sink.closed() || left == Some(0);
                if stopped {
                    break;
                }
                read_part(dbms, target, sql, &wanted, &mut |row| {
                    if skip > 0 {
                        skip -= 1;
                        return ControlFlow::Continue(());
                    }
                    let flow = sink.row(row);
                    left = left.map(|left| left.saturating_sub(1));
                    stopped = flow.is_break() || left == Some(0);
                    if stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                })?;
                if stopped {
                    break;
                }
            }
            Ok(())
        }
        Steps::Extreme { parts } => {
            let mut found = None;
            for (target, sql) in parts {
                read_part(dbms, target, sql, &wanted, &mut |row| {
                    found = Some(row).filter(|row| row.iter().any(|value| *value != SqlValue::Null));
                    ControlFlow::Break(())
                })?;
                if found.is_some() || sink.closed() {
                    break;
                }
            }
            let _one_row = sink.row(found.unwrap_or_else(|| vec![SqlValue::Null]));
            Ok(())
        }
        Steps::Sorted { parts, keys, width, skip, limit } => {
            let window = sorted::Window { keys, width: *width, skip: *skip, limit: *limit };
            sorted::run(dbms, parts, window, sink)
        }
        Steps::Merge { parts, merge } => merger.run(dbms, parts, merge, sink),
        Steps::Loose { parts } => merger.pass(dbms, parts, sink),
    }
}

/// As [`read`] for one place of several: a partition that was dropped before its first row has none.
fn read_part(
    dbms: &Arc<dyn Dbms>,
    target: &Target,
    sql: &str,
    wanted: Wanted<'_>,
    row: &mut dyn FnMut(Row) -> ControlFlow<()>,
) -> Result<(), QueryError> {
    match read(dbms, target, sql, wanted, row) {
        Err(error) if is_dropped(target, &error) => Ok(()),
        result => result,
    }
}

/// Whether an error says that a partition is gone.
fn is_dropped(target: &Target, error: &QueryError) -> bool {
    target.partition.is_some() && matches!(error, QueryError::Dbms(DbmsError::NoTable { .. }))
}

/// Runs one statement where a target's rows lie.
fn read(
    dbms: &Arc<dyn Dbms>,
    target: &Target,
    sql: &str,
    wanted: Wanted<'_>,
    row: &mut dyn FnMut(Row) -> ControlFlow<()>,
) -> Result<(), QueryError> {
    Ok(dbms.query_while(Some(target), sql, wanted, &mut |_, values| row(values))?)
}

/// The sending end of a stream of rows.
pub(crate) struct Sender<H> {
    channel: mpsc::Sender<Result<Piece<H>, QueryError>>,
    runtime: Handle,
    rows: Vec<Row>,
    bytes: usize,
    stalled: bool,
    waited: Duration,
    progress: Arc<Progress>,
    /// How many bytes the rows may take, and how many they took.
    most: Option<u64>,
    sent: u64,
}

/// What a stream carries: first the head, then rows.
#[derive(Debug)]
pub(crate) enum Piece<H> {
    /// What is known before the first row.
    Head(H),
    /// Some rows.
    Rows(Vec<Row>),
    /// There are no more rows. A stream that ends without it lost its worker.
    End,
}

/// A stream of rows. Dropping the receiver stops the readers.
pub(crate) fn stream<H>(
    runtime: Handle,
    progress: Arc<Progress>,
    most: Option<u64>,
) -> (Sender<H>, mpsc::Receiver<Result<Piece<H>, QueryError>>) {
    let (channel, receiver) = mpsc::channel(BATCHES);
    let sender = Sender {
        channel,
        runtime,
        rows: Vec::new(),
        bytes: 0,
        stalled: false,
        waited: Duration::ZERO,
        progress,
        most,
        sent: 0,
    };
    (sender, receiver)
}

impl<H: Send> Sender<H> {
    /// Sends the head.
    pub(crate) fn head(&mut self, head: H) {
        // A receiver that is gone needs no head.
        let _gone = self.send(Ok(Piece::Head(head)));
    }

    /// Sends what is left, and how the query ended.
    pub(crate) fn finish(mut self, result: Result<(), QueryError>) {
        if let Some(limit) = self.exceeded() {
            let _gone = self.send(Err(QueryError::VolumeLimit { limit }));
            return;
        }
        if !self.rows.is_empty() {
            let _gone = self.flush();
        }
        let result = if self.stalled { Err(QueryError::Stalled { seconds: STALL.as_secs() }) } else { result };
        let _gone = self.send(result.map(|()| Piece::End));
    }

    /// The bound on the rows' bytes, when they are more.
    fn exceeded(&self) -> Option<u64> {
        self.most.filter(|most| self.sent > *most)
    }

    /// How long the receiver kept the rows waiting.
    pub(crate) fn waited(&self) -> Duration {
        self.waited
    }

    fn send(&mut self, piece: Result<Piece<H>, QueryError>) -> ControlFlow<()> {
        let piece = match self.channel.try_send(piece) {
            Ok(()) => return ControlFlow::Continue(()),
            Err(mpsc::error::TrySendError::Closed(_)) => return ControlFlow::Break(()),
            Err(mpsc::error::TrySendError::Full(piece)) => piece,
        };
        let started = Instant::now();
        let flow = self.wait(piece);
        self.waited += started.elapsed();
        flow
    }

    /// Waits until the receiver takes more, for as long as it may keep the rows waiting and the reader is not told to end.
    fn wait(&mut self, piece: Result<Piece<H>, QueryError>) -> ControlFlow<()> {
        let since = Instant::now();
        loop {
            let reserving = async { tokio::time::timeout(LOOK, self.channel.reserve()).await };
            match self.runtime.block_on(reserving) {
                Ok(Ok(place)) => {
                    place.send(piece);
                    return ControlFlow::Continue(());
                }
                Ok(Err(_)) => return ControlFlow::Break(()),
                // The database may need the space that this reader keeps (R18); its error says so then.
                Err(_) if anylog_dbms::sqlite::told_to_end() => return ControlFlow::Break(()),
                Err(_) if since.elapsed() > STALL => {
                    self.stalled = true;
                    return ControlFlow::Break(());
                }
                Err(_) => {}
            }
        }
    }

    fn flush(&mut self) -> ControlFlow<()> {
        self.progress.blocks.fetch_add(1, Ordering::Relaxed);
        self.progress.rows.fetch_add(self.rows.len() as u64, Ordering::Relaxed);
        self.bytes = 0;
        let rows = std::mem::take(&mut self.rows);
        self.send(Ok(Piece::Rows(rows)))
    }
}

impl<H: Send + 'static> Sink for Sender<H> {
    fn row(&mut self, row: Row) -> ControlFlow<()> {
        let bytes = size(&row);
        self.bytes += bytes;
        self.sent += bytes as u64;
        if self.exceeded().is_some() {
            return ControlFlow::Break(());
        }
        self.rows.push(row);
        if self.rows.len() >= BATCH_ROWS || self.bytes >= BATCH_BYTES {
            self.flush()
        } else {
            ControlFlow::Continue(())
        }
    }

    fn closed(&self) -> bool {
        self.channel.is_closed()
    }

    fn wanted(&self) -> Box<dyn Fn() -> bool + Send + Sync> {
        let channel = self.channel.clone();
        Box::new(move || !channel.is_closed())
    }
}

/// About the memory that a row takes.
pub(crate) fn size(row: &[SqlValue]) -> usize {
    let text = |value: &SqlValue| if let SqlValue::Text(text) = value { text.len() } else { 0 };
    size_of_val(row) + row.iter().map(text).sum::<usize>()
}
