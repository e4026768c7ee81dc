//! Rows on their way: given their ordinals, written to the journal, applied, and answered for when all of them arrived.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anylog_dbms::DbmsError;
use anylog_ingest::{Delivery, RefusedRow};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::Shared;
use super::room::ROW_BYTES;
use crate::OperatorError;
use crate::apply::{Applier, Batch, Refusal};
use crate::deliveries::Promises;
use crate::fit::{Fitted, Run};
use crate::journal::record::{Entries, Place, Promised};
use crate::journal::{JournalError, Written};
use crate::order::Turn;
use crate::origin::Origin;
use crate::quarantine::Problem;
use crate::replica::Followed;
use crate::segments::{Key, Segment};
use crate::tables::{TableState, zone_name};

/// One part of a message on its way to its segment.
pub(crate) struct Part {
    pub(super) index: usize,
    pub(super) key: Key,
    pub(super) origin: Arc<Origin>,
    pub(super) fitted: Fitted,
}

/// A message on its way to the journal.
pub(crate) struct Shipment {
    pub(crate) parts: Vec<Part>,
    pub(crate) received: Timestamp,
    /// The QoS 2 packets that it came in.
    pub(crate) deliveries: Vec<Delivery>,
    /// What the frame says beside the rows.
    pub(crate) entries: Entries,
    pub(crate) permit: OwnedSemaphorePermit,
}

/// The rows that the engine refused, or why the message is not stored.
pub(super) type Answer = Result<Vec<RefusedRow>, OperatorError>;

/// A run that is in the frame, and what is to be done when the frame is written.
struct Travelling {
    part: usize,
    segment: Arc<Segment>,
    rows: u64,
    /// The ordinal of the last row.
    last: u64,
    bytes: u64,
    apply: Option<(Arc<Applier>, Batch)>,
    /// Memory of rows that are applied behind their acknowledgement.
    room: Option<Arc<OwnedSemaphorePermit>>,
}

/// Collects what becomes of a message, and answers when nothing is under way.
struct Completion {
    /// The QoS 2 packets in the frame.
    deliveries: Vec<Delivery>,
    promises: Promises,
    remaining: AtomicUsize,
    refused: Mutex<Vec<RefusedRow>>,
    error: Mutex<Option<OperatorError>>,
    answer: Mutex<Option<(oneshot::Sender<Answer>, OwnedSemaphorePermit)>>,
}

impl Completion {
    fn finish(&self, count: usize) {
        if self.remaining.fetch_sub(count, Ordering::AcqRel) == count
            && let Some((answer, permit)) = self.answer.lock().take()
        {
            let result = match self.error.lock().take() {
                Some(error) => Err(error),
                None => Ok(std::mem::take(&mut *self.refused.lock())),
            };
            drop(permit);
            // The sender may have gone away; its rows are stored all the same.
            drop(answer.send(result));
        }
    }
}

impl Travelling {
    /// The rows are in the journal: they go to their database, before their message is answered or behind that.
    fn go_on(mut self, sequence: u64, completion: &Arc<Completion>) {
        let Some((applier, mut batch)) = self.apply.take() else {
            self.segment.landed([], true);
            return completion.finish(1);
        };
        batch.sequence = sequence;
        match self.room.take() {
            Some(room) => self.keep(&applier, batch, room, completion),
            None => self.submit(&applier, batch, Arc::clone(completion)),
        }
    }

    /// The message is answered now; its rows are stored in company.
    fn keep(self, applier: &Applier, batch: Batch, room: Arc<OwnedSemaphorePermit>, completion: &Completion) {
        let segment = Arc::clone(&self.segment);
        segment.kept();
        completion.finish(1);
        let bytes = batch.rows.len() * ROW_BYTES + usize::try_from(self.bytes).unwrap_or(0);
        let settled = move |result: Result<Vec<Refusal>, DbmsError>| {
            let refused = result.as_deref().unwrap_or_default().iter().map(|refusal| refusal.ordinal);
            self.segment.let_go(refused, result.is_ok());
            drop(room);
        };
        applier.keep(batch, bytes, segment, Box::new(settled));
    }

    /// The message is answered when its rows are stored.
    fn submit(self, applier: &Applier, batch: Batch, completion: Arc<Completion>) {
        let segment = Arc::clone(&self.segment);
        let settled = move |result: Result<Vec<Refusal>, DbmsError>| {
            match result {
                Ok(refused) => {
                    self.segment.landed(refused.iter().map(|refusal| refusal.ordinal), true);
                    let problem =
                        |refusal: Refusal| Problem::new("database", refusal.reason).of_row(self.part, refusal.position);
                    completion.refused.lock().extend(refused.into_iter().map(problem));
                }
                Err(error) => {
                    self.segment.landed([], false);
                    *completion.error.lock() = Some(error.into());
                }
            }
            completion.finish(1);
        };
        applier.submit(batch, segment, Box::new(settled));
    }
}

/// What a frame carries.
#[derive(Default)]
struct Freight {
    travelling: Vec<Travelling>,
    /// What other members are to have before the message counts.
    followed: Vec<Followed>,
}

impl Freight {
    /// Gives the rows of a part their ordinals in its segment, and adds them to the frame. Rows that are not applied at once are kept
    /// for that when there is `room`.
    fn load(
        &mut self,
        entries: &mut Entries,
        part: Part,
        (segment, applier): (Arc<Segment>, Arc<Applier>),
        received: Timestamp,
        room: Option<&Arc<OwnedSemaphorePermit>>,
    ) {
        let immediate = segment.threshold.immediate;
        let applied = immediate || segment.keeps(room.is_some());
        let zone = zone_name(&part.fitted.table.zone);
        for run in part.fitted.runs {
            let place = Place { partition: run.partition.as_deref(), zone: &zone, received };
            let rows = run.rows.len() as u64;
            let first = segment.give_ordinals(rows);
            let texts: Vec<&str> = run.rows.iter().map(|row| row.text.as_str()).collect();
            entries.rows(&segment.header, place, first, &texts);
            let bytes = texts.iter().map(|text| text.len() as u64 + 1).sum();
            segment.departs();
            let room = room.filter(|_| !immediate).map(Arc::clone);
            let apply = applied.then(|| {
                let batch = batch(&part.fitted.table, &segment, run, first, received, Arc::clone(&part.origin));
                (Arc::clone(&applier), batch)
            });
            let last = first + rows.saturating_sub(1);
            if segment.is_followed() {
                Followed::note(&mut self.followed, &segment, last);
            }
            let segment = Arc::clone(&segment);
            self.travelling.push(Travelling { part: part.index, segment, rows, last, bytes, apply, room });
        }
    }
}

impl Shared {
    /// Gives the rows their ordinals and hands the frame to the journal; the order of both is the same, and that of the turns.
    /// Returns where the answer comes, and what other members are to have before it counts.
    pub(super) async fn send(
        self: &Arc<Self>,
        turn: Turn<'_>,
        shipment: Shipment,
    ) -> Result<(oneshot::Receiver<Answer>, Vec<Followed>), OperatorError> {
        let Shipment { mut parts, received, deliveries, mut entries, permit } = shipment;
        turn.comes_to_journal().await;
        loop {
            let mut targets = Vec::with_capacity(parts.len());
            for part in &parts {
                let segment = self.open_segment(&part.key).await?;
                targets.push((segment, self.applier(&part.key.dbms)?));
            }
            let room = self.keeping_room(&parts, &targets).await;
            let segments = self.segments.lock();
            let open = |part: &Part, segment: &Arc<Segment>| {
                segments.open.get(&part.key).is_some_and(|open| Arc::ptr_eq(open, segment))
            };
            if !parts.iter().zip(&targets).all(|(part, (segment, _))| open(part, segment)) {
                continue;
            }
            let mut freight = Freight::default();
            for (part, target) in std::mem::take(&mut parts).into_iter().zip(targets) {
                freight.load(&mut entries, part, target, received, room.as_ref());
            }
            let Freight { travelling, followed } = freight;
            followed.iter().for_each(|followed| entries.followed(followed.segment()));
            entries.delivered(&deliveries);
            let (sender, receiver) = oneshot::channel();
            let promised: Vec<Promised> = followed.iter().filter_map(Followed::promised).collect();
            let completion = Arc::new(Completion {
                deliveries,
                promises: (!promised.is_empty()).then(|| promised.into()),
                remaining: AtomicUsize::new(travelling.len()),
                refused: Mutex::default(),
                error: Mutex::default(),
                answer: Mutex::new(Some((sender, permit))),
            });
            let shared = Arc::clone(self);
            self.journal.submit(entries, Box::new(move |result| arrived(&shared, travelling, result, &completion)));
            return Ok((receiver, followed));
        }
    }

    /// Memory for the rows of a message that go to buffered segments and may be kept there; none when there is no such row, or no
    /// memory.
    async fn keeping_room(
        &self,
        parts: &[Part],
        targets: &[(Arc<Segment>, Arc<Applier>)],
    ) -> Option<Arc<OwnedSemaphorePermit>> {
        let buffered = parts.iter().zip(targets).filter(|(_, (segment, _))| !segment.threshold.immediate);
        let keeping = buffered.filter(|(_, (segment, _))| segment.keeps(true)).map(|(part, _)| part);
        let rows = keeping.flat_map(|part| &part.fitted.runs).flat_map(|run| &run.rows);
        let bytes = rows.map(|row| row.text.len() + ROW_BYTES).sum();
        if bytes == 0 { None } else { self.kept.room(bytes, || self.urge(None)).await }
    }
}

fn batch(
    table: &Arc<TableState>,
    segment: &Arc<Segment>,
    mut run: Run,
    first: u64,
    received: Timestamp,
    origin: Arc<Origin>,
) -> Batch {
    let mark = first + (run.rows.len() as u64).saturating_sub(1);
    for (row, ordinal) in run.rows.iter_mut().zip(first..) {
        row.ordinal = ordinal;
    }
    Batch {
        segment: Arc::clone(&segment.header),
        table: Arc::clone(table),
        partition: run.partition,
        sequence: 0,
        shared: table.own_values(&segment.header, received),
        rows: run.rows,
        values: run.values,
        origin,
        mark,
    }
}

/// The frame of a message is written, or will never be.
fn arrived(
    shared: &Arc<Shared>,
    travelling: Vec<Travelling>,
    result: Result<Written, JournalError>,
    completion: &Arc<Completion>,
) {
    let written = match result {
        Ok(written) => written,
        Err(error) => {
            travelling.iter().for_each(|run| run.segment.lost());
            *completion.error.lock() = Some(error.into());
            return completion.finish(travelling.len());
        }
    };
    shared.deliveries.written(&completion.deliveries, written.position, &completion.promises);
    for run in &travelling {
        run.segment.written(written.position, run.last, run.rows, run.bytes);
    }
    if travelling.iter().any(|run| run.segment.is_followed()) {
        shared.tell_followers(travelling.iter().map(|run| (&run.segment, run.last)));
    }
    for run in travelling {
        if run.segment.size().1 > run.segment.threshold.volume {
            shared.due.notify_one();
        }
        run.go_on(written.sequence, completion);
    }
}
