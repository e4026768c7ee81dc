//! Rows on their way: given their ordinals, written to the journal, applied, and answered for when all of them arrived.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anylog_dbms::DbmsError;
use anylog_ingest::{Behind, Delivery, RefusedRow};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::Shared;
use super::room::ROW_BYTES;
use crate::OperatorError;
use crate::apply::{Applier, Batch, Frame, Refusal, Waiting};
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
    pub(super) behind: Behind,
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
    /// They go to their database.
    Apply(Awaited),
    /// They are kept until there are enough of them. Their memory is given back when they are stored.
    Keep(Arc<Applier>, Batch, Arc<OwnedSemaphorePermit>),
}

/// A run whose rows are in the database before their message is answered.
struct Awaited {
    part: usize,
    segment: Arc<Segment>,
    applier: Arc<Applier>,
    batch: Batch,
    behind: Behind,
}

/// Collects what becomes of a message, and answers when nothing is under way.
struct Completion {
    /// The QoS 2 packets in the frame.
    deliveries: Vec<Delivery>,
    promises: Promises,
    remaining: AtomicUsize,
    refused: Mutex<Vec<RefusedRow>>,
    error: Mutex<Option<OperatorError>>,
    answer: Mutex<Option<oneshot::Sender<Answer>>>,
    /// The memory of the rows.
    permit: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Completion {
    /// Something of the message is settled; the last says so to the sender.
    fn finish(&self) {
        if self.remaining.fetch_sub(1, Ordering::AcqRel) == 1 {
            drop(self.permit.lock().take());
            let result = match self.error.lock().take() {
                Some(error) => Err(error),
                None => Ok(std::mem::take(&mut *self.refused.lock())),
            };
            self.answer(result);
        }
    }

    /// Nothing of the message is stored. What of it is on its way to a database need not be waited for; its memory goes with it.
    fn fail(&self, error: OperatorError) {
        self.answer(Err(error));
    }

    fn answer(&self, answer: Answer) {
        if let Some(sender) = self.answer.lock().take() {
            // The sender may have gone away; its rows are stored all the same.
            drop(sender.send(answer));
        }
    }
}

impl Travelling {
    /// The rows are in the journal.
    fn go_on(self, sequence: u64, completion: &Arc<Completion>) {
        let Self { segment, bytes, then, .. } = self;
        match then {
            Then::Nothing => segment.landed([], true),
            Then::Applied => segment.arrived(),
            Then::Apply(mut run) => {
                run.batch.frame = Frame::At(sequence);
                run.submit(Arc::clone(completion));
            }
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
}

impl Awaited {
    /// The message is answered when its rows are stored.
    fn submit(self, completion: Arc<Completion>) {
        let Self { part, segment, applier, batch, behind } = self;
        let arriving = Arriving { part, segment: Arc::clone(&segment), completion: Some(completion), behind };
        applier.submit(batch, segment, Box::new(arriving));
    }
}

/// The rows of a part on their way into a table.
struct Arriving {
    part: usize,
    segment: Arc<Segment>,
    /// None when the message need not wait for them any more.
    completion: Option<Arc<Completion>>,
    behind: Behind,
}

impl Waiting for Arriving {
    fn promised(&mut self) {
        if let Some(completion) = self.completion.take() {
            completion.finish();
        }
    }

    fn are_followed(&self) -> bool {
        self.behind.are_some()
    }

    fn settled(self: Box<Self>, result: Result<Vec<Refusal>, DbmsError>) {
        let Self { part, segment, completion, .. } = *self;
        match result {
            Ok(refused) => {
                segment.landed(refused.iter().map(|refusal| refusal.ordinal), true);
                if let Some(completion) = &completion {
                    let problem =
                        |refusal: Refusal| Problem::new("database", refusal.reason).of_row(part, refusal.position);
                    completion.refused.lock().extend(refused.into_iter().map(problem));
                }
            }
            Err(error) => {
                segment.landed([], false);
                if let Some(completion) = &completion {
                    *completion.error.lock() = Some(error.into());
                }
            }
        }
        if let Some(completion) = completion {
            completion.finish();
        }
    }
}

/// What a frame carries.
#[derive(Default)]
struct Freight {
    travelling: Vec<Travelling>,
    /// Those that go to their database with the frame, ...
    ahead: Vec<Awaited>,
    /// ... and the number of those that follow it.
    behind: usize,
    /// What other members are to have before the message counts.
    followed: Vec<Followed>,
}

impl Freight {
    /// Gives the rows of a part their ordinals in its segment, and adds them to the frame. Rows that are not applied at once are kept
    /// for that when there is `room`; those that are go ahead of it where the engine makes use of that.
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
                    let own = (Arc::clone(&segment), Arc::clone(&applier));
                    let (batch, behind) = (batch(), part.behind.clone());
                    let run = Awaited { part: part.index, segment: own.0, applier: own.1, batch, behind };
                    if part.fitted.table.database.dbms().unseen().is_some() {
                        segment.departs();
                        self.ahead.push(run);
                        Then::Applied
                    } else {
                        self.behind += 1;
                        Then::Apply(run)
                    }
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
            let Freight { travelling, ahead, behind, followed } = freight;
            followed.iter().for_each(|followed| entries.followed(followed.segment()));
            entries.delivered(&deliveries);
            let (sender, receiver) = oneshot::channel();
            let promised: Vec<Promised> = followed.iter().filter_map(Followed::promised).collect();
            let completion = Arc::new(Completion {
                deliveries,
                promises: (!promised.is_empty()).then(|| promised.into()),
                // The frame, and the batches that are ahead of it and behind it.
                remaining: AtomicUsize::new(1 + ahead.len() + behind),
                refused: Mutex::default(),
                error: Mutex::default(),
                answer: Mutex::new(Some(sender)),
                permit: Mutex::new(Some(permit)),
            });
            let (shared, told) = (Arc::clone(self), Arc::clone(&completion));
            let done = move |result| match result {
                Ok(written) => arrived(&shared, travelling, written, &told),
                Err(error) => lost(&travelling, error, &told),
            };
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

/// The frame of a message is written.
fn arrived(shared: &Arc<Shared>, travelling: Vec<Travelling>, written: Written, completion: &Arc<Completion>) {
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
    completion.finish();
}

/// The frame of a message will never be written. The applier sees for itself that its rows are not to be stored.
fn lost(travelling: &[Travelling], error: JournalError, completion: &Completion) {
    travelling.iter().for_each(|run| run.segment.arrived());
    completion.fail(error.into());
}

#[cfg(test)]
mod tests {
    use anylog_dbms::SegmentId;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::journal::record::SegmentHeader;
    use crate::thresholds::Threshold;

    /// A message of one run, on its way to the journal and to a database.
    struct Message {
        segment: Arc<Segment>,
        travelling: Vec<Travelling>,
        completion: Arc<Completion>,
        answer: oneshot::Receiver<Answer>,
        memory: Arc<Semaphore>,
    }

    fn message() -> Message {
        let header = SegmentHeader {
            id: SegmentId(1),
            dbms: "d".into(),
            table: "t".into(),
            source: "0".into(),
            instructions: "0".into(),
            member: "7".into(),
            file_id: None,
            opened: Timestamp::UNIX_EPOCH,
        };
        let segment = Segment::new(header, Threshold { immediate: true, ..Threshold::default() });
        // To the journal, and to the database.
        segment.departs();
        segment.departs();
        let run = Travelling { segment: Arc::clone(&segment), rows: 1, last: 1, bytes: 9, then: Then::Applied };
        let memory = Arc::new(Semaphore::new(1));
        let permit = Arc::clone(&memory).try_acquire_owned().unwrap();
        let (sender, answer) = oneshot::channel();
        let completion = Completion {
            deliveries: Vec::new(),
            promises: None,
            remaining: AtomicUsize::new(2),
            refused: Mutex::default(),
            error: Mutex::default(),
            answer: Mutex::new(Some(sender)),
            permit: Mutex::new(Some(permit)),
        };
        Message { segment, travelling: vec![run], completion: Arc::new(completion), answer, memory }
    }

    fn arriving(segment: &Arc<Segment>, completion: &Arc<Completion>) -> Box<Arriving> {
        let (segment, completion) = (Arc::clone(segment), Some(Arc::clone(completion)));
        Box::new(Arriving { part: 0, segment, completion, behind: Behind::default() })
    }

    fn is_quiet(segment: &Segment) -> bool {
        futures_util::FutureExt::now_or_never(segment.quiet()).is_some()
    }

    // DUR-1: an applying thread that takes nothing more says so before anybody knows that the frame is lost.
    #[test]
    fn a_frame_that_is_lost_behind_an_ended_thread_is_refused_once() {
        let Message { segment, travelling, completion, mut answer, memory } = message();
        let ended = DbmsError::NotConnected { name: "d".into() };
        arriving(&segment, &completion).settled(Err(ended));
        assert!(answer.try_recv().is_err() && !is_quiet(&segment), "the frame is on its way");
        lost(&travelling, JournalError::Closed, &completion);
        assert!(matches!(answer.try_recv(), Ok(Err(_))));
        assert!(is_quiet(&segment) && !segment.is_applied());
        drop(completion);
        assert_eq!(memory.available_permits(), 1, "its memory is free");
    }

    // The sender of a frame that is lost does not wait for a database.
    #[test]
    fn a_lost_frame_is_answered_at_once() {
        let Message { segment, travelling, completion, mut answer, memory } = message();
        let in_line = arriving(&segment, &completion);
        lost(&travelling, JournalError::Closed, &completion);
        assert!(matches!(answer.try_recv(), Ok(Err(_))));
        drop(completion);
        assert_eq!(memory.available_permits(), 0, "its rows are still in memory");
        assert!(!is_quiet(&segment));
        // The applying thread finds it lost.
        segment.arrived();
        drop(in_line);
        assert_eq!((is_quiet(&segment), memory.available_permits()), (true, 1));
        assert!(segment.is_applied(), "nothing is left to the seal");
    }
}
