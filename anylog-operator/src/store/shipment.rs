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
use crate::apply::{Applier, Batch, Frame, Refusal};
use crate::deliveries::Promises;
use crate::fit::{Fitted, Run};
use crate::journal::record::{Entries, Place, Promised};
use crate::journal::{JournalError, Landing, Written};
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
    segment: Arc<Segment>,
    rows: u64,
    /// The ordinal of the last row.
    last: u64,
    bytes: u64,
    then: Then,
}

/// What is to be done with rows whose frame is written.
enum Then {
    /// Nothing: the seal stores them.
    Nothing,
    /// The database has them, and waits for the frame.
    Applied,
    /// They are kept until there are enough of them. Their memory is given back when they are stored.
    Keep(Arc<Applier>, Batch, Arc<OwnedSemaphorePermit>),
}

/// A run whose rows go to the database before their frame is written.
struct Ahead {
    part: usize,
    segment: Arc<Segment>,
    applier: Arc<Applier>,
    batch: Batch,
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
    /// The rows are in the journal.
    fn go_on(self, sequence: u64) {
        let Self { segment, bytes, then, .. } = self;
        match then {
            Then::Nothing => segment.landed([], true),
            Then::Applied => segment.arrived(),
            Then::Keep(applier, mut batch, room) => {
                batch.frame = Frame::At(sequence);
                segment.kept();
                let bytes = batch.rows.len() * ROW_BYTES + usize::try_from(bytes).unwrap_or(0);
                let kept = Arc::clone(&segment);
                let settled = move |result: Result<Vec<Refusal>, DbmsError>| {
                    let refused = result.as_deref().unwrap_or_default().iter().map(|refusal| refusal.ordinal);
                    kept.let_go(refused, result.is_ok());
                    drop(room);
                };
                applier.keep(batch, bytes, segment, Box::new(settled));
            }
        }
    }

    /// The rows are not in the journal, and nowhere else.
    fn lost(&self) {
        self.segment.arrived();
        if matches!(self.then, Then::Applied) {
            // The applier says nothing of them.
            self.segment.arrived();
        }
    }
}

impl Ahead {
    /// The message is answered when its rows are stored.
    fn submit(self, completion: Arc<Completion>) {
        let Self { part, segment, applier, batch } = self;
        let own = Arc::clone(&segment);
        let settled = move |result: Result<Vec<Refusal>, DbmsError>| {
            match result {
                Ok(refused) => {
                    own.landed(refused.iter().map(|refusal| refusal.ordinal), true);
                    let problem =
                        |refusal: Refusal| Problem::new("database", refusal.reason).of_row(part, refusal.position);
                    completion.refused.lock().extend(refused.into_iter().map(problem));
                }
                Err(error) => {
                    own.landed([], false);
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
    ahead: Vec<Ahead>,
    /// What other members are to have before the message counts.
    followed: Vec<Followed>,
}

impl Freight {
    /// Gives the rows of a part their ordinals in its segment, and adds them to the frame. Rows that are not applied at once are kept
    /// for that when there is `room`; those that are go ahead of it.
    fn load(
        &mut self,
        entries: &mut Entries,
        part: Part,
        (segment, applier): (Arc<Segment>, Arc<Applier>),
        received: Timestamp,
        room: Option<&Arc<OwnedSemaphorePermit>>,
        landing: &Arc<Landing>,
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
            let last = first + rows.saturating_sub(1);
            if segment.is_followed() {
                Followed::note(&mut self.followed, &segment, last);
            }
            let batch = || {
                let origin = Arc::clone(&part.origin);
                batch(&part.fitted.table, &segment, run, first, received, (origin, Arc::clone(landing)))
            };
            let then = match room {
                _ if !applied => Then::Nothing,
                Some(room) if !immediate => Then::Keep(Arc::clone(&applier), batch(), Arc::clone(room)),
                _ => {
                    segment.departs();
                    let (segment, applier) = (Arc::clone(&segment), Arc::clone(&applier));
                    self.ahead.push(Ahead { part: part.index, segment, applier, batch: batch() });
                    Then::Applied
                }
            };
            self.travelling.push(Travelling { segment: Arc::clone(&segment), rows, last, bytes, then });
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
            let (mut freight, landing) = (Freight::default(), Arc::<Landing>::default());
            for (part, target) in std::mem::take(&mut parts).into_iter().zip(targets) {
                freight.load(&mut entries, part, target, received, room.as_ref(), &landing);
            }
            let Freight { travelling, ahead, followed } = freight;
            followed.iter().for_each(|followed| entries.followed(followed.segment()));
            entries.delivered(&deliveries);
            let (sender, receiver) = oneshot::channel();
            let promised: Vec<Promised> = followed.iter().filter_map(Followed::promised).collect();
            let completion = Arc::new(Completion {
                deliveries,
                promises: (!promised.is_empty()).then(|| promised.into()),
                // The frame, and the batches that are ahead of it.
                remaining: AtomicUsize::new(1 + ahead.len()),
                refused: Mutex::default(),
                error: Mutex::default(),
                answer: Mutex::new(Some((sender, permit))),
            });
            let (shared, told) = (Arc::clone(self), Arc::clone(&completion));
            let count = ahead.len();
            let done = move |result| arrived(&shared, travelling, count, result, &told);
            self.journal.submit_watched(entries, landing, Box::new(done));
            // Their order is that of the frames.
            ahead.into_iter().for_each(|run| run.submit(Arc::clone(&completion)));
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
    (origin, landing): (Arc<Origin>, Arc<Landing>),
) -> Batch {
    let mark = first + (run.rows.len() as u64).saturating_sub(1);
    for (row, ordinal) in run.rows.iter_mut().zip(first..) {
        row.ordinal = ordinal;
    }
    Batch {
        segment: Arc::clone(&segment.header),
        table: Arc::clone(table),
        partition: run.partition,
        frame: Frame::Coming(landing),
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
    ahead: usize,
    result: Result<Written, JournalError>,
    completion: &Completion,
) {
    let written = match result {
        Ok(written) => written,
        Err(error) => {
            travelling.iter().for_each(Travelling::lost);
            *completion.error.lock() = Some(error.into());
            return completion.finish(1 + ahead);
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
        run.go_on(written.sequence);
    }
    completion.finish(1);
}
