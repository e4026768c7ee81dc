//! Runs a divided statement: asks for all parts, and puts together what comes.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use anylog_dbms::Engine;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::ask::{Again, Asking, Event, ask};
use super::part::PartRequest;
use super::{AHEAD, Coverage, Network, Spread};
use crate::execute::sorted::{self, Feed, Window};
use crate::execute::{Merging, Row, Sink, size};
use crate::history::Record;
use crate::plan::{Divided, Key, Merge, Part};
use crate::sql::expr::{Expr, Tongue};
use crate::{QueryError, QueryService};

/// How often a query that waits for nodes looks whether somebody still wants its answer.
const LOOK: Duration = Duration::from_millis(100);

/// Rows, in bytes, that wait for nodes that have not begun to answer.
const EARLY: usize = 1024 * 1024;

impl QueryService {
    /// Asks the nodes and hands the rows of the answer over. Blocks.
    pub(crate) fn run_network(
        self: &Arc<Self>,
        network: &Network,
        spread: Spread,
        coverage: &Coverage,
        record: &Record,
        sink: &mut dyn Sink,
    ) -> Result<(), QueryError> {
        let now = tokio::time::Instant::now();
        let until = network.max_time.and_then(|limit| Some((now.checked_add(limit)?, limit)));
        let again = match &spread.divided {
            Divided::Merge(_) => Again::FromTheStart,
            Divided::Rows { part, .. } | Divided::Sorted { part, .. } => {
                Again::WithoutRowsThatCame(same_on_all_members(part, network))
            }
        };
        let asking = Asking { service: Arc::clone(self), timeout: network.timeout, until, again };
        let asking = Arc::new(asking);
        let run = Run { service: self, network, coverage, record, asking, spread: &spread, missing: Cell::new(0) };
        match &spread.divided {
            Divided::Rows { skip, limit, .. } => run.rows(*skip, *limit, sink),
            Divided::Sorted { keys, width, skip, limit, .. } => {
                run.sorted(Window { keys, width: *width, skip: *skip, limit: *limit }, sink)
            }
            Divided::Merge(merge) => run.merge(merge, sink),
        }
    }
}

/// Columns that each member of a cluster fills with values of its own.
const BOOKKEEPING: [&str; 4] = ["row_id", "insert_timestamp", "tsd_name", "tsd_id"];

/// The columns whose values are the same on all members of a cluster. What a node adds to rows of its own differs.
fn same_on_all_members(part: &Part, network: &Network) -> Vec<usize> {
    let own =
        |name: &String| BOOKKEEPING.contains(&name.as_str()) || network.extend.iter().any(|(added, _)| added == name);
    let differs = |expr: &Expr| {
        let mut found = false;
        expr.visit(&mut |expr| found |= matches!(expr, Expr::Column(name) if own(name)));
        found
    };
    let columns = part.items.iter().enumerate().filter(|(_, (expr, _))| !differs(expr));
    columns.map(|(index, _)| index).collect()
}

/// Rows that come before every node has begun to answer: while none was handed over, an error can be the whole answer.
struct Early {
    /// Which parts nothing was heard of.
    silent: Vec<bool>,
    rows: Vec<Row>,
    bytes: usize,
}

impl Early {
    /// Takes the rows that came of a part; gives all that wait when they need to wait no longer.
    fn take(&mut self, part: usize, rows: Vec<Row>) -> Option<Vec<Row>> {
        if let Some(silent) = self.silent.get_mut(part) {
            *silent = false;
        }
        self.bytes += rows.iter().map(|row| size(row)).sum::<usize>();
        self.rows.extend(rows);
        let over = self.bytes >= EARLY || !self.silent.contains(&true);
        over.then(|| std::mem::take(&mut self.rows))
    }
}

/// One run of a query.
struct Run<'a> {
    service: &'a Arc<QueryService>,
    network: &'a Network,
    coverage: &'a Coverage,
    record: &'a Record,
    asking: Arc<Asking>,
    spread: &'a Spread,
    /// Parts that nobody answered for.
    missing: Cell<usize>,
}

impl Run<'_> {
    /// Begins to ask for a part.
    fn begin(&self, index: usize, sender: &mpsc::Sender<(usize, Event)>) {
        let Some(slot) = self.spread.slots.get(index) else { return };
        let request = PartRequest {
            from: self.service.node().address(),
            id: self.record.id,
            dbms: slot.table.dbms.clone(),
            table: slot.table.table.clone(),
            sql: self.spread.part().sql(&slot.table.table, Tongue::Dialect),
            columns: self.spread.columns.clone(),
            added: self.network.extend.clone(),
            loose: matches!(&self.spread.divided, Divided::Merge(merge) if merge.loose),
            committed: self.spread.committed,
            upto: None,
            although_behind: false,
        };
        let note = self.record.node(&slot.name, &slot.table.dbms, &slot.table.table);
        let asked = ask(Arc::clone(&self.asking), slot.clone(), request, note, sender.clone(), index);
        Handle::current().spawn(asked);
    }

    /// Asks for all parts at once.
    fn begin_all(&self) -> mpsc::Receiver<(usize, Event)> {
        let slots = self.spread.slots.len();
        let (sender, events) = mpsc::channel(AHEAD * slots.max(1));
        (0..slots).for_each(|index| self.begin(index, &sender));
        events
    }

    /// The answer that comes of the rows of all parts.
    fn merge(&self, merge: &Merge, sink: &mut dyn Sink) -> Result<(), QueryError> {
        let mut events = self.begin_all();
        let mut merging = Merging::new(self.service.merger(), merge)?;
        while let Some((part, event)) = next(&mut events, &|| sink.closed()) {
            match event {
                Event::Rows(rows) => merging.add(part, rows)?,
                Event::Again => merging.forget(part)?,
                Event::Done { .. } => merging.complete(part)?,
                missing @ Event::Missing(_) => {
                    merging.forget(part)?;
                    self.rows_of(missing)?;
                }
                other => {
                    self.rows_of(other)?;
                }
            }
        }
        merging.finish(sink)
    }

    /// The rows of all parts as they come, until nobody wants more.
    fn rows(&self, skip: u64, limit: Option<u64>, sink: &mut dyn Sink) -> Result<(), QueryError> {
        let slots = self.spread.slots.len();
        let mut events = self.begin_all();
        let (mut skip, mut left) = (skip, limit);
        // A missing part of a subset is no error.
        let waits = !self.network.subset;
        let mut early = waits.then(|| Early { silent: vec![true; slots], rows: Vec::new(), bytes: 0 });
        while left != Some(0)
            && let Some((part, event)) = next(&mut events, &|| sink.closed())
        {
            let mut rows = self.rows_of(event)?.unwrap_or_default();
            if skip > 0 {
                let skipped = rows.len().min(usize::try_from(skip).unwrap_or(usize::MAX));
                rows.drain(..skipped);
                skip -= skipped as u64;
            }
            if let Some(left) = &mut left {
                rows.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= rows.len() as u64;
            }
            if let Some(waiting) = &mut early {
                let Some(all) = waiting.take(part, rows) else { continue };
                (early, rows) = (None, all);
            }
            if !rows.is_empty() && sink.rows(rows).is_break() {
                return Ok(());
            }
        }
        // The limit may be reached while nodes are silent.
        let _nothing_follows = early.map(|early| sink.rows(early.rows));
        Ok(())
    }

    /// The rows of all parts, each in order, in one order.
    fn sorted(&self, window: Window<'_>, sink: &mut dyn Sink) -> Result<(), QueryError> {
        let mut receivers = Vec::with_capacity(self.spread.slots.len());
        for index in 0..self.spread.slots.len() {
            let (sender, events) = mpsc::channel(AHEAD);
            self.begin(index, &sender);
            receivers.push(events);
        }
        let mut begun = Vec::with_capacity(receivers.len());
        let mut own_order = false;
        for mut events in receivers {
            match next(&mut events, &|| sink.closed()) {
                Some((_, Event::Begun(engine))) => own_order |= engine != Engine::Sqlite,
                Some((_, event)) => {
                    self.rows_of(event)?;
                }
                None => {}
            }
            begun.push(events);
        }
        let feeds = begun.into_iter().map(|mut events| {
            let feed = move || {
                while let Some((_, event)) = events.blocking_recv() {
                    if let Some(rows) = self.rows_of(event)? {
                        return Ok(Some(rows));
                    }
                }
                Ok(None)
            };
            Box::new(feed) as Feed<'_>
        });
        if own_order && window.keys.iter().any(|key: &Key| key.text) {
            return self.sort_here(feeds.collect(), window, sink);
        }
        sorted::merge(feeds.collect(), window, sink)
    }

    /// Engines order texts by rules of their own: the rows are put into one order here.
    fn sort_here(&self, feeds: Vec<Feed<'_>>, window: Window<'_>, sink: &mut dyn Sink) -> Result<(), QueryError> {
        let held = self.service.merger().held();
        let mut all = Vec::new();
        for mut feed in feeds {
            while let Some(rows) = feed()? {
                held.take(rows.iter().map(|row| size(row) as u64).sum())?;
                all.extend(rows);
            }
        }
        all.sort_by(|left, right| sorted::compare(window.keys, left, right));
        let mut all = Some(all);
        sorted::merge(vec![Box::new(move || Ok(all.take()))], window, sink)
    }

    /// The rows of an event; none when it has another meaning.
    fn rows_of(&self, event: Event) -> Result<Option<Vec<Row>>, QueryError> {
        match event {
            Event::Rows(rows) => Ok(Some(rows)),
            // What came before counts: only rows that did not come follow.
            Event::Begun(_) | Event::Again => Ok(None),
            Event::Lacking(missing) => {
                self.coverage.misses(&missing);
                Ok(None)
            }
            Event::Done { address, end } => {
                tracing::debug!(node = %address, rows = end.rows, micros = end.micros, "A node answered its part");
                Ok(None)
            }
            Event::Missing(missing) if self.network.allows(&missing) => {
                self.coverage.misses(&missing);
                let missing_now = self.missing.get() + 1;
                self.missing.set(missing_now);
                if missing_now < self.spread.slots.len() {
                    return Ok(None);
                }
                // The answer of nobody would look like that of empty tables.
                Err(QueryError::NobodyAnswered {
                    text: self.coverage.get().missing.join("; "),
                    status: missing.status(),
                })
            }
            Event::Missing(missing) => Err(missing.into()),
            Event::Failed(error) => Err(error),
        }
    }
}

/// The next event and its part; none at the end, or when nobody wants the answer any more.
fn next(events: &mut mpsc::Receiver<(usize, Event)>, closed: &dyn Fn() -> bool) -> Option<(usize, Event)> {
    loop {
        match Handle::current().block_on(async { tokio::time::timeout(LOOK, events.recv()).await }) {
            Ok(event) => return event,
            Err(_) if closed() => return None,
            Err(_) => {}
        }
    }
}
