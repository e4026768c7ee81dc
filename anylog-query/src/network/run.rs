//! Runs a divided statement: asks for all parts, and puts together what comes.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use anylog_dbms::Engine;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::ask::{Asking, Event, ask};
use super::part::PartRequest;
use super::{AHEAD, Coverage, Network, Spread};
use crate::execute::sorted::{self, Feed, Window};
use crate::execute::{Merging, Row, Sink, size};
use crate::history::Record;
use crate::plan::{Divided, Key};
use crate::sql::expr::Tongue;
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
        let hold = matches!(spread.divided, Divided::Merge(_));
        let until = network.max_time.map(|limit| (tokio::time::Instant::now() + limit, limit));
        let asking = Asking { service: Arc::clone(self), timeout: network.timeout, until, hold };
        let run = Run { service: self, network, coverage, record, asking: Arc::new(asking), spread: &spread };
        match &spread.divided {
            Divided::Rows { skip, limit, .. } => run.rows(*skip, *limit, sink, None),
            Divided::Sorted { keys, width, skip, limit, .. } => {
                run.sorted(Window { keys, width: *width, skip: *skip, limit: *limit }, sink)
            }
            Divided::Merge(merge) => {
                let mut insert = Insert { merging: Merging::new(self.merger(), merge)?, failed: None };
                run.rows(0, None, &mut insert, Some(&*sink))?;
                match insert.failed {
                    Some(error) => Err(error),
                    None => insert.merging.finish(sink),
                }
            }
        }
    }
}

/// Rows on their way to be put together.
struct Insert<'a> {
    merging: Merging<'a>,
    failed: Option<QueryError>,
}

impl Sink for Insert<'_> {
    fn row(&mut self, row: Row) -> ControlFlow<()> {
        self.rows(vec![row])
    }

    fn rows(&mut self, rows: Vec<Row>) -> ControlFlow<()> {
        match self.merging.add(rows) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.failed = Some(error);
                ControlFlow::Break(())
            }
        }
    }
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
        };
        let note = self.record.node(&slot.name, &slot.table.dbms, &slot.table.table);
        let asked = ask(Arc::clone(&self.asking), slot.clone(), request, note, sender.clone(), index);
        Handle::current().spawn(asked);
    }

    /// The rows of all parts as they come, until nobody wants the answer: what goes to `answer`, or to the sink itself.
    fn rows(
        &self,
        skip: u64,
        limit: Option<u64>,
        sink: &mut dyn Sink,
        answer: Option<&dyn Sink>,
    ) -> Result<(), QueryError> {
        let slots = self.spread.slots.len();
        let (sender, mut events) = mpsc::channel(AHEAD * slots.max(1));
        (0..slots).for_each(|index| self.begin(index, &sender));
        drop(sender);
        let (mut skip, mut left) = (skip, limit);
        // What is put together here is handed over at the end, and a missing part of a subset is no error.
        let waits = answer.is_none() && !self.network.subset;
        let mut early = waits.then(|| Early { silent: vec![true; slots], rows: Vec::new(), bytes: 0 });
        while left != Some(0)
            && let Some((part, event)) = next(&mut events, &|| answer.map_or_else(|| sink.closed(), Sink::closed))
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
            Event::Begun(_) => Ok(None),
            Event::Done { address, end } => {
                tracing::debug!(node = %address, rows = end.rows, micros = end.micros, "A node answered its part");
                Ok(None)
            }
            Event::Missing(missing) if self.network.allows(&missing) => {
                self.coverage.misses(&missing);
                Ok(None)
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
