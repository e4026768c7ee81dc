//! The Rust API: a request and its rows.

mod compile;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anylog_core::Node;
use anylog_dbms::{Catalog, ColumnType, Dbms};
use anylog_ledger::Ledger;
use anylog_net::Peers;
use jiff::tz::TimeZone;
use parking_lot::RwLock;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

pub(crate) use compile::{Found, Plan, part_steps, period_end};

use crate::execute::{self, Kept, Merger, Piece, Progress, Sender};
use crate::history::{History, Parts, Record};
use crate::mode::{Pool, QueryMode, RUNNING, Until};
use crate::network::{Coverage, Network};
use crate::plan::Steps;
use crate::shape::Shaper;
use crate::sql::bind::Select;
use crate::sql::{self, Now};
use crate::{Cell, Committed, Nodes, QueryError};

/// Queries that may wait for those to end.
const WAITING: usize = 256;

/// Answers SQL over the databases of a node.
#[derive(Debug)]
pub struct QueryService {
    node: Arc<Node>,
    catalog: Arc<Catalog>,
    ledger: Arc<Ledger>,
    peers: Arc<dyn Peers>,
    merger: Merger,
    history: History,
    pool: Pool,
    mode: RwLock<QueryMode>,
    waiting: AtomicUsize,
    parts: Parts,
    // Members of a cluster take turns.
    turn: AtomicUsize,
    replication: RwLock<Option<Arc<dyn Committed>>>,
}

/// A SELECT and how its answer is to be shown.
#[derive(Debug, Clone)]
pub struct Request {
    /// The logical database.
    pub dbms: String,
    /// The statement.
    pub sql: String,
    /// The zone in which times of the answer are shown; times in the statement are local to the node.
    pub zone: TimeZone,
    /// Columns in front of those of the statement: their names, and their value in each row.
    pub extend: Vec<(String, String)>,
    /// Where the answer goes, for `query status`: `stdout`, `rest`.
    pub output: String,
    /// Asks other nodes; without it the tables of this node answer.
    pub network: Option<Network>,
    /// Only rows that all members of their cluster are known to have.
    pub committed: bool,
}

impl Request {
    /// A SELECT whose answer is shown in UTC.
    pub fn new(dbms: impl Into<String>, sql: impl Into<String>) -> Self {
        Self {
            dbms: dbms.into(),
            sql: sql.into(),
            zone: TimeZone::UTC,
            extend: Vec::new(),
            output: "rest".to_owned(),
            network: None,
            committed: false,
        }
    }
}

/// The rows of an answer, as they become ready. Dropping it stops the query.
#[derive(Debug)]
pub struct Answer {
    names: Vec<String>,
    shaper: Shaper,
    receiver: mpsc::Receiver<Result<Piece<Head>, QueryError>>,
    record: Arc<Record>,
    coverage: Arc<Coverage>,
    started: Instant,
    until: Option<Until>,
    ended: bool,
}

#[derive(Debug)]
pub(crate) struct Head {
    names: Vec<String>,
    shaper: Shaper,
}

impl Answer {
    /// The names of the columns.
    #[must_use]
    pub fn columns(&self) -> &[String] {
        &self.names
    }

    /// The types of the columns, as far as they are known before the rows.
    pub(crate) fn kinds(&self) -> Vec<Option<ColumnType>> {
        let whole = |kind| if kind == ColumnType::Serial { ColumnType::BigInt } else { kind };
        self.shaper.kinds().into_iter().map(|kind| kind.map(whole)).collect()
    }

    /// The next rows; none at the end. After an error there are no more.
    pub async fn next(&mut self) -> Option<Result<Vec<Vec<Cell>>, QueryError>> {
        loop {
            let received = tokio::select! {
                received = self.receiver.recv() => received,
                () = self.record.asked_to_stop(), if !self.ended => Some(Err(QueryError::Stopped)),
                late = Until::passed(self.until), if !self.ended => Some(Err(late)),
            };
            let shaped = match received {
                None if self.ended => return None,
                None => Err(QueryError::Worker { reason: "it sent no end of the rows".to_owned() }),
                Some(Ok(Piece::Head(_))) => continue,
                Some(Ok(Piece::End)) => {
                    self.ended = true;
                    self.record.complete(Ok(()));
                    return None;
                }
                Some(Ok(Piece::Rows(rows))) => self.shaper.rows(rows),
                Some(Err(error)) => Err(error),
            };
            match shaped {
                Ok(rows) if rows.is_empty() => {}
                Ok(rows) => return Some(Ok(rows)),
                Err(error) => {
                    self.ended = true;
                    self.receiver.close();
                    while self.receiver.try_recv().is_ok() {}
                    self.record.complete(Err(&error));
                    return Some(Err(error));
                }
            }
        }
    }

    /// The nodes that were asked, and those that gave no answer. Complete after the last row.
    #[must_use]
    pub fn nodes(&self) -> Nodes {
        self.coverage.get()
    }

    /// The number of the query at this node.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.record.id
    }

    /// Time since the request.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.record.stop();
    }
}

impl QueryService {
    /// A service over the databases of `catalog`; `ledger` tells on which other nodes tables are, `peers` leads to them.
    #[must_use]
    pub fn new(node: Arc<Node>, catalog: Arc<Catalog>, ledger: Arc<Ledger>, peers: Arc<dyn Peers>) -> Arc<Self> {
        let merger = Merger::new(Arc::clone(&node));
        // What queries left there when the program was killed.
        std::fs::remove_dir_all(execute::directory(&node)).ok();
        Arc::new(Self {
            node,
            catalog,
            ledger,
            peers,
            merger,
            history: History::default(),
            pool: Pool::new(RUNNING),
            mode: RwLock::default(),
            waiting: AtomicUsize::new(0),
            parts: Parts::default(),
            turn: AtomicUsize::new(0),
            replication: RwLock::default(),
        })
    }

    /// The node that it serves.
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// The databases that it reads.
    #[must_use]
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// The ledger that tells where tables are.
    #[must_use]
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    pub(crate) fn peers(&self) -> &Arc<dyn Peers> {
        &self.peers
    }

    pub(crate) fn merger(&self) -> &Merger {
        &self.merger
    }

    pub(crate) fn parts(&self) -> &Parts {
        &self.parts
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Says where it is known which rows all members of this node's cluster have.
    pub fn set_committed(&self, replication: Arc<dyn Committed>) {
        *self.replication.write() = Some(replication);
    }

    pub(crate) fn replication(&self) -> Option<Arc<dyn Committed>> {
        self.replication.read().clone()
    }

    /// What the node allows queries.
    #[must_use]
    pub fn mode(&self) -> QueryMode {
        *self.mode.read()
    }

    /// Changes what the node allows queries that begin from now on.
    pub fn set_mode(&self, mode: QueryMode) {
        *self.mode.write() = mode;
    }

    pub(crate) fn turn(&self) -> &AtomicUsize {
        &self.turn
    }

    /// Runs a SELECT over the databases of this node, or over other nodes. Returns when the columns are known; rows follow.
    ///
    /// # Errors
    /// All of [`QueryError`], when they are found before the first row.
    pub async fn select(self: &Arc<Self>, request: Request) -> Result<Answer, QueryError> {
        let started = Instant::now();
        let record = self.history.begin(&request);
        let result = self.start(request, Arc::clone(&record), started).await;
        if let Err(error) = &result {
            record.complete(Err(error));
        }
        result
    }

    async fn start(
        self: &Arc<Self>,
        request: Request,
        record: Arc<Record>,
        started: Instant,
    ) -> Result<Answer, QueryError> {
        let permit = self.permit().await?;
        let progress: Arc<Progress> = Arc::clone(record.progress());
        // Limits are those of the node that reads the rows; parts of a query over the network have them where they run.
        let mode = if request.network.is_some() { QueryMode::default() } else { self.mode() };
        let until = mode.until();
        let (mut sender, mut receiver) =
            execute::stream::<Head>(tokio::runtime::Handle::current(), progress, mode.max_volume);
        let service = Arc::clone(self);
        let note = Arc::clone(&record);
        let coverage = if request.network.is_some() { Arc::default() } else { Coverage::own() };
        let covered = Arc::clone(&coverage);
        // The task ends by itself: at the end of its rows, or when the receiver is dropped.
        let _detached = tokio::task::spawn_blocking(move || {
            let _until_the_last_row = permit;
            let result = service.work(request, &note, &covered, &mut sender);
            sender.finish(result);
        });
        let first = tokio::select! {
            biased;
            late = Until::passed(until) => Some(Err(late)),
            first = receiver.recv() => first,
        };
        match first {
            Some(Ok(Piece::Head(Head { names, shaper }))) => {
                Ok(Answer { names, shaper, receiver, record, coverage, started, until, ended: false })
            }
            Some(Err(error)) => Err(error),
            Some(Ok(Piece::Rows(_) | Piece::End)) | None => {
                Err(QueryError::Worker { reason: "it sent no columns".to_owned() })
            }
        }
    }

    /// Compiles a query, tells its columns and sends its rows. Blocks.
    fn work(
        self: &Arc<Self>,
        request: Request,
        record: &Record,
        coverage: &Coverage,
        sender: &mut Sender<Head>,
    ) -> Result<(), QueryError> {
        let now = Now { instant: self.node.clock.now(), zone: self.node.time_zone() };
        let request = self.without_inner(request, &now, coverage, record)?;
        let plan = sql::on_deep_stack(|| match &request.network {
            Some(network) => self.compile_network(&request, network, &now, coverage, record),
            None => self.compile(&request, &now),
        })?;
        record.planned(&plan);
        let names = request.extend.iter().map(|(name, _)| name.clone());
        let names: Vec<String> = names.chain(plan.select.items.iter().map(|item| item.name.clone())).collect();
        let shaper = Shaper::new(&plan.select, request.zone.clone(), request.extend.clone(), names.clone());
        sender.head(Head { names, shaper });
        match (plan.found, &request.network) {
            (Found::Here(dbms, steps), _) => self.run_here(&plan.select, &dbms, &steps, sender),
            (Found::Spread(spread), Some(network)) => self.run_network(network, *spread, coverage, record, sender),
            (Found::Nothing | Found::Spread(_), _) => Ok(()),
        }
    }

    /// Runs what was planned over the databases of this node.
    fn run_here(
        &self,
        select: &Select,
        dbms: &Arc<dyn Dbms>,
        planned: &Steps,
        sink: &mut dyn execute::Sink,
    ) -> Result<(), QueryError> {
        let again = || match dbms.schema(&select.table)? {
            Some(schema) => compile::steps(select, dbms.as_ref(), &schema),
            // The error of the run stands.
            None => Ok(planned.clone()),
        };
        execute::run(dbms, planned, &again, &self.merger, sink)
    }

    /// Runs the inner queries of a statement and puts their values in their place.
    fn without_inner(
        self: &Arc<Self>,
        mut request: Request,
        now: &Now,
        coverage: &Coverage,
        record: &Record,
    ) -> Result<Request, QueryError> {
        // Each one that is filled in is gone; there is no more room for them than in the statement.
        while let Some(inner) = sql::inner::find(&request.sql, now)? {
            let network = request.network.clone();
            let network = network.map(|network| Network { include: Vec::new(), extend: Vec::new(), ..network });
            let asked = Request { sql: inner.sql.clone(), extend: Vec::new(), network, ..request.clone() };
            let plan = sql::on_deep_stack(|| match &asked.network {
                Some(network) => self.compile_network(&asked, network, now, coverage, record),
                None => self.compile(&asked, now),
            })?;
            let items = &plan.select.items;
            let column = match &inner.column {
                None => 0,
                Some(name) => items.iter().position(|item| item.name == *name).ok_or_else(|| {
                    QueryError::syntax(format!("'{name}' is not a column of the inner query's answer"))
                })?,
            };
            let kind = items.get(column).and_then(|item| item.kind);
            let mut rows = Kept::default();
            match (plan.found, &asked.network) {
                (Found::Here(dbms, steps), _) => self.run_here(&plan.select, &dbms, &steps, &mut rows)?,
                (Found::Spread(spread), Some(network)) => {
                    self.run_network(network, *spread, coverage, record, &mut rows)?
                }
                (Found::Nothing | Found::Spread(_), _) => {}
            }
            request.sql = inner.filled(&request.sql, &rows.0, column, kind)?;
        }
        Ok(request)
    }

    /// Waits until one more query may run.
    async fn permit(&self) -> Result<OwnedSemaphorePermit, QueryError> {
        struct Waits<'a>(&'a AtomicUsize);
        impl Drop for Waits<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let waiting = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _one_more = Waits(&self.waiting);
        if waiting >= WAITING {
            return Err(QueryError::Overloaded { waiting });
        }
        let permit = self.pool.own().acquire_owned().await;
        permit.map_err(|error| QueryError::Worker { reason: error.to_string() })
    }

    /// Runs a statement that is not a SELECT in the main database and returns the number of changed rows. Blocks.
    ///
    /// # Errors
    /// Of the database; and [`QueryError::Unsupported`] for an UPDATE or DELETE of a table in partitions, whose rows lie elsewhere.
    pub fn execute(&self, dbms: &str, sql: &str) -> Result<u64, QueryError> {
        let database = self.catalog.get(dbms)?;
        let sql = sql.trim().trim_end_matches(';');
        let tokens = sql::scan::scan(sql)?;
        let table = match tokens.as_slice() {
            [verb, table, ..] if verb.is("update") => Some(table),
            [verb, from, table, ..] if verb.is("delete") && from.is("from") => Some(table),
            _ => None,
        };
        if let Some(table) = table.map(|token| token.text.trim_matches('"'))
            && !database.dbms().partitions(table)?.is_empty()
        {
            return Err(QueryError::unsupported(
                format!("changing rows of '{dbms}.{table}', which is split in partitions"),
                format!("drop whole partitions with: drop partition <name> where dbms = {dbms} and table = {table}"),
            ));
        }
        Ok(database.dbms().execute(sql)?)
    }
}
