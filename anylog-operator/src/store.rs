//! The road of a message: converted, placed, written to the journal, applied, acknowledged.

use std::collections::{BTreeSet, HashMap, hash_map::DefaultHasher};
use std::hash::{Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anylog_core::Node;
use anylog_core::node::queues::QueueUse;
use anylog_core::time::stored;
use anylog_dbms::{Catalog, DbmsError, NewFile, SegmentId, TsdStore};
use anylog_ingest::sink::{Issuer, TableRows};
use anylog_ingest::{
    Delivery, FileReceipt, MessageRows, Receipt, RefusedRow, RowGroup, RowSink, SinkError, SourceFile, Unmapped,
};
use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use crate::OperatorError;
use crate::apply::{Applier, Batch, KEPT_LIMIT, Kept, Refusal};
use crate::deliveries::Deliveries;
use crate::disk::Disk;
use crate::fit::{Fitted, Run};
use crate::journal::record::{Entries, Place, SegmentHeader};
use crate::journal::recovery::{RecoveredSegment, Tombstones};
use crate::journal::{Journal, JournalError, Written};
use crate::order::{Order, Turn};
use crate::origin::Origin;
use crate::quarantine::{KeptMessage, Problem, Quarantine, QuarantinedRow, key};
use crate::replica::copies::Turns;
use crate::replica::receive::Copying;
use crate::replica::{Followed, Followers};
use crate::segments::{Key, Segment, Segments};
use crate::stats::Stats;
use crate::tables::{TableState, Tables, blocking, zone_name};
use crate::thresholds::CurrentThresholds;

/// Bytes that rows on their way may take at one time; further senders wait.
pub(crate) const MEMORY_LIMIT: usize = 8 << 20;
/// What a row takes in memory beside its text: its values, and its copy for the journal.
pub(crate) const ROW_BYTES: usize = 300;
/// Bytes that the journal may hold; further senders wait for seals.
pub(crate) const JOURNAL_LIMIT: u64 = 1 << 30;
/// Free bytes on the journal's disk below which nothing more is taken: seals, which free the journal, need some.
pub(crate) const DISK_FLOOR: u64 = 32 << 20;
/// How often the free bytes are looked at.
const DISK_PERIOD: Duration = Duration::from_millis(500);
/// How long a sender waits for room, or for a database that does not answer, before it is asked to try again.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How often a database that fails, or a cluster of which too few members are there, is looked at by who waits for it.
pub(crate) const FAILING_PERIOD: Duration = Duration::from_millis(50);
const OPENING_LOCKS: usize = 64;

/// What a running operator was told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    /// The member id as text, `0` when rows are not registered.
    pub(crate) member: String,
    pub(crate) tsd: Option<Arc<TsdStore>>,
    pub(crate) archive: bool,
    pub(crate) compress: bool,
    pub(crate) archive_dir: PathBuf,
    pub(crate) backup_dir: PathBuf,
    pub(crate) watch_dir: PathBuf,
    pub(crate) error_dir: PathBuf,
    pub(crate) prep_dir: PathBuf,
}

/// What all parts of a store share.
pub(crate) struct Shared {
    pub(crate) node: Arc<Node>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) journal: Journal,
    pub(crate) quarantine: Quarantine,
    pub(crate) tables: Tables,
    pub(crate) stats: Arc<Stats>,
    pub(crate) thresholds: Arc<CurrentThresholds>,
    pub(crate) settings: RwLock<Arc<Settings>>,
    pub(crate) tombstones: RwLock<Tombstones>,
    pub(crate) deliveries: Arc<Deliveries>,
    pub(crate) segments: Mutex<Segments>,
    /// Segments of the run before, by database, until an operator finishes them.
    pub(crate) recovered: Mutex<HashMap<String, Vec<(RecoveredSegment, bool)>>>,
    appliers: Mutex<HashMap<String, Arc<Applier>>>,
    pub(crate) memory: Arc<Semaphore>,
    pub(crate) kept: Kept,
    order: Order,
    disk: Arc<dyn Disk>,
    /// When the disk was looked at last, and whether it was nearly full.
    looked: Mutex<Option<(std::time::Instant, bool)>>,
    opening: Vec<tokio::sync::Mutex<()>>,
    /// Files that are being stored, by hash.
    pub(crate) files_in_work: Mutex<BTreeSet<String>>,
    pub(crate) pruning: Mutex<()>,
    /// It was said that the quarantine is full.
    pub(crate) quarantine_full: AtomicBool,
    /// Wakes the sealer.
    pub(crate) due: Notify,
    /// Wakes who waits for room in the journal.
    pub(crate) released: Notify,
    pub(crate) ending: AtomicBool,
    /// Who follows files of this node while they are open; none while no operator of a cluster runs.
    pub(crate) followers: RwLock<Option<Arc<dyn Followers>>>,
    /// Files of other members to which something is done.
    pub(crate) file_turns: Turns,
    /// Files of other members that are stored, and what is left of those that were on their way.
    pub(crate) copying: Copying,
}

impl Shared {
    pub(crate) fn new(
        node: Arc<Node>,
        catalog: Arc<Catalog>,
        disk: Arc<dyn Disk>,
        journal: Journal,
        tables: Tables,
        stats: Arc<Stats>,
        thresholds: Arc<CurrentThresholds>,
    ) -> Self {
        let error_dir = node.directories.directory(&node.dictionary, "err_dir");
        Self {
            node,
            catalog,
            journal,
            quarantine: Quarantine::new(Arc::clone(&disk), error_dir),
            tables,
            stats,
            thresholds,
            settings: RwLock::default(),
            tombstones: RwLock::default(),
            deliveries: Arc::default(),
            segments: Mutex::default(),
            recovered: Mutex::default(),
            appliers: Mutex::default(),
            memory: Arc::new(Semaphore::new(MEMORY_LIMIT)),
            kept: Kept::default(),
            order: Order::default(),
            disk,
            looked: Mutex::new(None),
            opening: (0..OPENING_LOCKS).map(|_| tokio::sync::Mutex::new(())).collect(),
            files_in_work: Mutex::default(),
            pruning: Mutex::default(),
            quarantine_full: AtomicBool::new(false),
            due: Notify::new(),
            released: Notify::new(),
            ending: AtomicBool::new(false),
            followers: RwLock::default(),
            file_turns: Turns::default(),
            copying: Copying::default(),
        }
    }

    /// The current time in whole microseconds, as it is stored.
    pub(crate) fn now(&self) -> Timestamp {
        let now = self.node.clock.now();
        Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
    }

    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read())
    }

    pub(crate) fn applier(self: &Arc<Self>, dbms: &str) -> Result<Arc<Applier>, OperatorError> {
        let mut appliers = self.appliers.lock();
        if let Some(applier) = appliers.get(dbms) {
            return Ok(Arc::clone(applier));
        }
        let applier = Applier::start(dbms, Arc::clone(self))
            .map_err(|error| SinkError::Failed { reason: format!("no thread for database {dbms}: {error}") })?;
        appliers.insert(dbms.to_owned(), Arc::clone(&applier));
        Ok(applier)
    }

    /// Makes a database, or all, store the rows that are kept in memory behind their acknowledgement.
    pub(crate) fn urge(&self, dbms: Option<&str>) {
        let appliers = self.appliers.lock();
        let asked = appliers.iter().filter(|(name, _)| dbms.is_none_or(|dbms| dbms == name.as_str()));
        asked.for_each(|(_, applier)| applier.urge());
    }

    /// Ends the threads. What is in the journal and not applied is applied by the next start.
    pub(crate) fn end(&self) {
        self.ending.store(true, Ordering::SeqCst);
        for applier in self.appliers.lock().values() {
            applier.close();
        }
        self.quarantine.close();
        self.due.notify_waiters();
        self.released.notify_waiters();
    }

    /// The open segment of a key, opened when there is none.
    async fn open_segment(&self, key: &Key) -> Result<Arc<Segment>, OperatorError> {
        let threshold = self.thresholds.read().of(&key.dbms, &key.table);
        let current = || {
            let mut segments = self.segments.lock();
            let open = segments.open.get(key).cloned()?;
            if open.threshold.goes_with(&threshold) && !open.is_left() {
                return Some(open);
            }
            // A segment is immediate as a whole or not at all: marks count its rows in order. For the same reason no rows follow
            // those that could not be stored. And mates follow it from its first row on or not at all.
            segments.close(key, &open, self.now());
            self.due.notify_one();
            None
        };
        if let Some(open) = current() {
            return Ok(open);
        }
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let lock = usize::try_from(hasher.finish() % OPENING_LOCKS as u64).unwrap_or(0);
        let _one_at_a_time = self.opening[lock].lock().await;
        if let Some(open) = current() {
            return Ok(open);
        }
        let (id, opened, settings) = (SegmentId(rand::random()), self.now(), self.settings());
        let file_id = match settings.tsd.clone() {
            Some(tsd) => {
                let file = NewFile {
                    dbms: key.dbms.clone(),
                    table: key.table.clone(),
                    source: key.source.clone(),
                    hash: placeholder(id),
                    instructions: key.instructions.clone(),
                    time: opened,
                };
                Some(blocking(move || tsd.register(&file)).await?)
            }
            None => None,
        };
        let header = SegmentHeader {
            id,
            dbms: key.dbms.clone(),
            table: key.table.clone(),
            source: key.source.clone(),
            instructions: key.instructions.clone(),
            member: if file_id.is_some() { settings.member.clone() } else { "0".to_owned() },
            file_id,
            opened,
        };
        let segment = Segment::new(header, threshold);
        let mut segments = self.segments.lock();
        segments.open.insert(key.clone(), Arc::clone(&segment));
        if let Some(file) = segment.file() {
            if segment.is_followed() {
                segments.followed.insert(file, Arc::clone(&segment));
            }
            drop(segments);
            if let Some(followers) = self.followers() {
                followers.opened(file);
            }
        }
        Ok(segment)
    }

    /// Puts rows aside. Returns when they are on stable storage.
    pub(crate) async fn put_aside(&self, rows: Vec<QuarantinedRow>) -> Result<(), OperatorError> {
        if rows.is_empty() {
            return Ok(());
        }
        let result = self.quarantine.add(&rows).await;
        match &result {
            Err(error @ OperatorError::QuarantineFull { .. }) => {
                if !self.quarantine_full.swap(true, Ordering::Relaxed) {
                    let text = format!("{error}: what does not fit or map is not acknowledged; see get quarantine");
                    tracing::error!("{text}");
                    self.node.errors.add(self.node.clock.now(), "operator", "Quarantine full", text);
                }
            }
            Ok(()) => self.quarantine_full.store(false, Ordering::Relaxed),
            Err(_) => {}
        }
        result
    }

    /// Fails while the journal's disk is nearly full; goes on by itself when there is space again.
    pub(crate) fn check_space(&self) -> Result<(), SinkError> {
        let mut looked = self.looked.lock();
        let full = match *looked {
            Some((at, full)) if at.elapsed() < DISK_PERIOD => full,
            before => {
                let free = self.disk.free(self.journal.directory());
                let full = free.is_some_and(|free| free < DISK_FLOOR);
                if full && !before.is_some_and(|(_, full)| full) {
                    tracing::error!(
                        free,
                        floor = DISK_FLOOR,
                        "The disk of the journal is nearly full: no rows are taken"
                    );
                }
                *looked = Some((std::time::Instant::now(), full));
                full
            }
        };
        if full { Err(SinkError::DiskFull) } else { Ok(()) }
    }

    /// What waits, and how much may.
    pub(crate) fn queues(&self) -> Vec<QueueUse> {
        let memory = MEMORY_LIMIT.saturating_sub(self.memory.available_permits());
        let (waiting, most) = self.quarantine.waiting();
        let mut queues = vec![
            QueueUse::bytes("rows on their way", memory as u64, MEMORY_LIMIT as u64),
            QueueUse::bytes("buffered rows in memory", self.kept.used(), KEPT_LIMIT as u64),
            QueueUse::bytes("journal", self.journal.bytes(), JOURNAL_LIMIT),
            QueueUse::bytes("quarantine", self.quarantine.bytes(), self.quarantine.limit()),
            QueueUse::bytes("records for the quarantine", waiting, most),
        ];
        // Rows that wait for a database are on their way: their bytes are counted above.
        for (dbms, applier) in self.appliers.lock().iter() {
            let (name, used) = (format!("rows for database {dbms}"), applier.waiting());
            queues.push(QueueUse { name, unit: "rows", used, ..QueueUse::default() });
        }
        if self.quarantine_full.load(Ordering::Relaxed) {
            queues.push(QueueUse::trouble("quarantine", "full: what does not fit or map is not acknowledged"));
        }
        if self.check_space().is_err() {
            queues.push(QueueUse::trouble("disk of the journal", "nearly full"));
        }
        let failing = self.stats.all_failing();
        queues.extend(failing.into_iter().map(|(dbms, error)| QueueUse::trouble(format!("database {dbms}"), error)));
        queues.sort_by(|a, b| (a.unit, &a.name).cmp(&(b.unit, &b.name)));
        queues
    }

    pub(crate) async fn room(&self) -> Result<(), SinkError> {
        self.check_space()?;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while self.journal.bytes() > JOURNAL_LIMIT {
            let released = self.released.notified();
            self.due.notify_one();
            if self.journal.bytes() > JOURNAL_LIMIT && tokio::time::timeout_at(deadline, released).await.is_err() {
                return Err(SinkError::Overloaded);
            }
        }
        Ok(())
    }
}

impl Shared {
    /// Waits a while for databases that fail. Their rows do not go into the journal meanwhile, nor take memory: a database that
    /// is away for a day must not stop the others.
    pub(crate) async fn databases_work<'d>(
        &self,
        databases: impl Iterator<Item = &'d str> + Clone,
    ) -> Result<(), SinkError> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let Some(error) = databases.clone().find_map(|dbms| self.stats.failing(dbms)) else { return Ok(()) };
            if tokio::time::Instant::now() >= deadline || self.ending.load(Ordering::Relaxed) {
                return Err(failing(&error));
            }
            tokio::time::sleep(FAILING_PERIOD).await;
        }
    }
}

/// What a sender is told of a database that takes no rows at the moment.
fn failing(error: &DbmsError) -> SinkError {
    match error {
        DbmsError::DiskFull { .. } => SinkError::DiskFull,
        error @ DbmsError::Unavailable { .. } => SinkError::Unavailable { reason: error.to_string() },
        error => SinkError::Failed { reason: error.to_string() },
    }
}

/// The hash of a segment in `tsd_info` while it is open.
pub(crate) fn placeholder(segment: SegmentId) -> String {
    format!("open:{segment}")
}

/// One part of a message on its way to its segment.
pub(crate) struct Part {
    index: usize,
    key: Key,
    origin: Arc<Origin>,
    fitted: Fitted,
}

/// The rows that the engine refused, or why the message is not stored.
type Answer = Result<Vec<RefusedRow>, OperatorError>;

/// Collects what becomes of a message, and answers when nothing is under way.
struct Completion {
    /// The QoS 2 packets in the frame.
    deliveries: Vec<Delivery>,
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

/// The rows of a message, ready to be sent, and those that do not fit.
pub(crate) struct Prepared {
    pub(crate) parts: Vec<Part>,
    pub(crate) refused: Vec<RefusedRow>,
    pub(crate) aside: Vec<QuarantinedRow>,
}

impl Prepared {
    /// How many rows are ready.
    pub(crate) fn rows(&self) -> usize {
        self.parts.iter().flat_map(|part| &part.fitted.runs).map(|run| run.rows.len()).sum()
    }
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

/// The message that a row was mapped from.
fn kept(messages: &[MessageRows], part: usize, row: usize) -> Option<KeptMessage> {
    // Rows of one long list must not each carry the whole of it.
    const CARRIED: usize = 64 * 1024;
    let bearable = |known: &MessageRows| known.count == 1 || known.count * known.message.payload.len() <= CARRIED;
    let holds = |known: &MessageRows| known.part == part && (known.first..known.first + known.count).contains(&row);
    let known = messages.iter().find(|known| holds(known)).filter(|known| bearable(known))?;
    Some(KeptMessage::of(&known.message, Some(row - known.first)))
}

/// The store of a running operator.
pub(crate) struct Store {
    pub(crate) shared: Arc<Shared>,
    issuer: Issuer,
}

impl Store {
    pub(crate) fn new(shared: Arc<Shared>, issuer: Issuer) -> Arc<Self> {
        Arc::new(Self { shared, issuer })
    }

    pub(crate) async fn prepare(&self, group: RowGroup, received: Timestamp) -> Result<Prepared, SinkError> {
        let mut parts = Vec::with_capacity(group.parts.len());
        let (mut refused, mut aside) = (Vec::new(), Vec::new());
        let message = SegmentId(rand::random());
        for (index, part) in group.parts.into_iter().enumerate().filter(|(_, part)| !part.rows.is_empty()) {
            let TableRows { dbms, table, source, instructions, declared, rows, starts } = part;
            let origin = Arc::new(Origin::of_several(&group.origin, starts));
            let fitted = self.shared.fit(&dbms, &table, rows, &declared, received).await?;
            for (position, problem, text) in &fitted.refused {
                let key = key(message, aside.len() as u64 + 1);
                let record = QuarantinedRow::of_row(key, stored(received), (&dbms, &table), problem, text.clone());
                let record = record.mapped(&source, &instructions);
                let mut record = record.from(origin.text(), origin.position(*position));
                record.message = kept(&group.messages, index, *position);
                aside.push(record);
                self.shared.stats.error(false, received, &dbms, &table, 27, &problem.reason);
                refused.push(problem.clone().of_row(index, *position));
            }
            parts.push(Part { index, key: Key { dbms, table, source, instructions }, origin, fitted });
        }
        Ok(Prepared { parts, refused, aside })
    }

    /// Lets a message in when there is room for it. Before anything is waited for, it takes its turn: the order of the calls is the
    /// order of the rows.
    pub(crate) async fn admit(
        &self,
        group: &RowGroup,
        bytes: usize,
    ) -> Result<(Turn<'_>, OwnedSemaphorePermit), SinkError> {
        let filled = group.parts.iter().filter(|part| !part.rows.is_empty());
        let turn = self.shared.order.turn(filled.map(|part| (part.dbms.as_str(), part.table.as_str())));
        self.shared.room().await?;
        self.shared.databases_work(group.parts.iter().map(|part| part.dbms.as_str())).await?;
        if self.shared.thresholds.any_replicated() {
            self.shared.members_are_reached(group).await?;
        }
        turn.comes_to_memory().await;
        let wanted = u32::try_from(bytes.min(MEMORY_LIMIT)).unwrap_or(u32::MAX);
        let permit =
            Arc::clone(&self.shared.memory).acquire_many_owned(wanted).await.map_err(|_| SinkError::NotRunning)?;
        turn.holds_memory();
        Ok((turn, permit))
    }

    /// Sends rows, waits until they are settled and counts them. Returns those that the engine refused.
    pub(crate) async fn ship(
        &self,
        turn: Turn<'_>,
        shipment: Shipment,
        patient: bool,
    ) -> Result<Vec<RefusedRow>, SinkError> {
        let received = shipment.received;
        let counts: Vec<(String, String, u64)> = shipment
            .parts
            .iter()
            .map(|part| {
                let rows = part.fitted.runs.iter().map(|run| run.rows.len() as u64).sum();
                (part.key.dbms.clone(), part.key.table.clone(), rows)
            })
            .collect();
        let databases: BTreeSet<String> = counts.iter().map(|(dbms, _, _)| dbms.clone()).collect();
        let (receiver, followed) = self.send(turn, shipment).await?;
        let late = self.wait(receiver, &databases, patient).await?;
        if !followed.is_empty() {
            self.shared.members_have(followed, patient).await?;
        }
        for (dbms, table, rows) in counts {
            let immediate = self.shared.thresholds.read().of(&dbms, &table).immediate;
            self.shared.stats.table(&dbms, &table, |stats| {
                stats.calls += 1;
                stats.rows += rows;
                stats.first_insert.get_or_insert(received);
                stats.last_insert = Some(received);
                if immediate {
                    stats.immediate_rows += rows;
                    stats.immediate_inserts += 1;
                    stats.stored += rows;
                }
            });
        }
        Ok(late)
    }

    /// Gives the rows their ordinals and hands the frame to the journal; the order of both is the same, and that of the turns.
    /// Returns where the answer comes, and what other members are to have before it counts.
    async fn send(
        &self,
        turn: Turn<'_>,
        shipment: Shipment,
    ) -> Result<(oneshot::Receiver<Answer>, Vec<Followed>), OperatorError> {
        let Shipment { mut parts, received, deliveries, mut entries, permit } = shipment;
        turn.comes_to_journal().await;
        loop {
            let mut targets = Vec::with_capacity(parts.len());
            for part in &parts {
                let segment = self.shared.open_segment(&part.key).await?;
                targets.push((segment, self.shared.applier(&part.key.dbms)?));
            }
            let room = self.room(&parts, &targets).await;
            let segments = self.shared.segments.lock();
            let open = |part: &Part, segment: &Arc<Segment>| {
                segments.open.get(&part.key).is_some_and(|open| Arc::ptr_eq(open, segment))
            };
            if !parts.iter().zip(&targets).all(|(part, (segment, _))| open(part, segment)) {
                continue;
            }
            let (mut travelling, mut followed) = (Vec::new(), Vec::new());
            for (part, (segment, applier)) in std::mem::take(&mut parts).into_iter().zip(targets) {
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
                    let room = room.clone().filter(|_| !immediate);
                    let apply = applied.then(|| {
                        let batch = batch(&part.fitted.table, &segment, run, first, received, Arc::clone(&part.origin));
                        (Arc::clone(&applier), batch)
                    });
                    let segment = Arc::clone(&segment);
                    let last = first + rows.saturating_sub(1);
                    if segment.is_followed() {
                        Followed::note(&mut followed, &segment, last);
                    }
                    travelling.push(Travelling { part: part.index, segment, rows, last, bytes, apply, room });
                }
            }
            followed.iter().for_each(|followed| entries.followed(followed.segment()));
            entries.delivered(&deliveries);
            let (sender, receiver) = oneshot::channel();
            let completion = Arc::new(Completion {
                deliveries,
                remaining: AtomicUsize::new(travelling.len()),
                refused: Mutex::default(),
                error: Mutex::default(),
                answer: Mutex::new(Some((sender, permit))),
            });
            let shared = Arc::clone(&self.shared);
            self.shared
                .journal
                .submit(entries, Box::new(move |result| arrived(&shared, travelling, result, &completion)));
            return Ok((receiver, followed));
        }
    }

    /// Memory for the rows of a message that go to buffered segments and may be kept there; none when there is no such row, or no
    /// memory.
    async fn room(
        &self,
        parts: &[Part],
        targets: &[(Arc<Segment>, Arc<Applier>)],
    ) -> Option<Arc<OwnedSemaphorePermit>> {
        let buffered = parts.iter().zip(targets).filter(|(_, (segment, _))| !segment.threshold.immediate);
        let keeping = buffered.filter(|(_, (segment, _))| segment.keeps(true)).map(|(part, _)| part);
        let rows = keeping.flat_map(|part| &part.fitted.runs).flat_map(|run| &run.rows);
        let bytes = rows.map(|row| row.text.len() + ROW_BYTES).sum();
        if bytes == 0 { None } else { self.shared.kept.room(bytes, || self.shared.urge(None)).await }
    }

    /// The receipt of a message of which no row goes into the journal; that it came does, when it may come again.
    async fn without_rows(&self, deliveries: Vec<Delivery>, refused: Vec<RefusedRow>) -> Result<Receipt, SinkError> {
        if !deliveries.is_empty() {
            self.shared.room().await?;
            self.shared.deliveries.note(&self.shared.journal, deliveries).await.map_err(OperatorError::from)?;
        }
        Ok(Receipt::issue(&self.issuer, 0, refused))
    }

    async fn wait(
        &self,
        mut receiver: oneshot::Receiver<Answer>,
        databases: &BTreeSet<String>,
        patient: bool,
    ) -> Result<Vec<RefusedRow>, SinkError> {
        loop {
            match tokio::time::timeout(PATIENCE, &mut receiver).await {
                Ok(Ok(result)) => return Ok(result?),
                Ok(Err(_)) => return Err(SinkError::NotRunning),
                // The rows are in the journal and will be applied. Who would send them again, and so have them twice, waits.
                Err(_) if patient => {}
                // Who cannot wait learns that this takes longer.
                Err(_) => {
                    if let Some(error) = databases.iter().find_map(|dbms| self.shared.stats.failing(dbms)) {
                        return Err(failing(&error));
                    }
                }
            }
        }
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
    shared.deliveries.written(&completion.deliveries, written.position);
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
        let Some((applier, mut batch)) = run.apply else {
            run.segment.landed([], true);
            completion.finish(1);
            continue;
        };
        batch.sequence = written.sequence;
        let segment = Arc::clone(&run.segment);
        if let Some(room) = run.room {
            segment.kept();
            completion.finish(1);
            let bytes = batch.rows.len() * ROW_BYTES + usize::try_from(run.bytes).unwrap_or(0);
            let settled = move |result: Result<Vec<Refusal>, DbmsError>| {
                let refused = result.as_deref().unwrap_or_default().iter().map(|refusal| refusal.ordinal);
                run.segment.let_go(refused, result.is_ok());
                drop(room);
            };
            applier.keep(batch, bytes, segment, Box::new(settled));
            continue;
        }
        let completion = Arc::clone(completion);
        let settled =
            move |result: Result<Vec<Refusal>, DbmsError>| {
                match result {
                    Ok(refused) => {
                        run.segment.landed(refused.iter().map(|refusal| refusal.ordinal), true);
                        let refused = refused.into_iter();
                        completion.refused.lock().extend(refused.map(|refusal| {
                            Problem::new("database", refusal.reason).of_row(run.part, refusal.position)
                        }));
                    }
                    Err(error) => {
                        run.segment.landed([], false);
                        *completion.error.lock() = Some(error.into());
                    }
                }
                completion.finish(1);
            };
        applier.submit(batch, segment, Box::new(settled));
    }
}

#[async_trait]
impl RowSink for Store {
    async fn append(&self, mut group: RowGroup) -> Result<Receipt, SinkError> {
        if self.shared.ending.load(Ordering::Relaxed) {
            return Err(SinkError::NotRunning);
        }
        let bytes: usize = group.parts.iter().flat_map(|part| &part.rows).map(|row| row.len() + ROW_BYTES).sum();
        if bytes == 0 {
            return self.without_rows(group.deliveries, Vec::new()).await;
        }
        let text: usize = group.parts.iter().flat_map(|part| &part.rows).map(|row| row.len() + 64).sum();
        if text > crate::journal::record::MAX_BODY_BYTES / 2 {
            return Err(SinkError::Failed {
                reason: format!("a message of {text} bytes is larger than the journal takes"),
            });
        }
        let (turn, permit) = self.admit(&group, bytes).await?;
        let received = self.shared.now();
        let (patient, deliveries) = (group.patient, std::mem::take(&mut group.deliveries));
        let prepared = self.prepare(group, received).await?;
        let (rows, mut refused) = (prepared.rows(), prepared.refused);
        self.shared.put_aside(prepared.aside).await?;
        if rows == 0 {
            return self.without_rows(deliveries, refused).await;
        }
        let shipment = Shipment { parts: prepared.parts, received, deliveries, entries: Entries::default(), permit };
        let late = self.ship(turn, shipment, patient).await?;
        let stored = rows - late.len().min(rows);
        refused.extend(late);
        refused.sort_by_key(|row| (row.part, row.row));
        Ok(Receipt::issue(&self.issuer, stored, refused))
    }

    async fn set_aside(&self, unmapped: Unmapped) -> Result<Receipt, SinkError> {
        if self.shared.ending.load(Ordering::Relaxed) {
            return Err(SinkError::NotRunning);
        }
        let now = self.shared.now();
        let Unmapped { message, origin, position, kind, column, reason } = unmapped;
        let problem = Problem { kind, column, reason, ..Problem::default() };
        self.shared.stats.error(false, now, "", "", 158, &problem.reason);
        let mut record = QuarantinedRow::default().because(&problem).from(&origin, position);
        record.key = key(SegmentId(rand::random()), 1);
        record.time = stored(now);
        record.message = Some(KeptMessage::of(&message, None));
        self.shared.put_aside(vec![record]).await?;
        Ok(Receipt::issue(&self.issuer, 0, vec![problem.of_row(0, position)]))
    }

    async fn store_file(&self, file: SourceFile) -> Result<FileReceipt, SinkError> {
        let stored = crate::incoming::put(&self.shared, file).await?;
        Ok(FileReceipt { hash: stored.hash, receipt: Receipt::issue(&self.issuer, stored.rows, stored.refused) })
    }

    fn holds(&self, delivery: &Delivery) -> bool {
        self.shared.deliveries.contains(delivery)
    }

    fn deliveries(&self) -> Vec<Delivery> {
        self.shared.deliveries.all()
    }

    async fn release(&self, deliveries: Vec<Delivery>) -> Result<(), SinkError> {
        let released = self.shared.deliveries.release(&self.shared.journal, deliveries).await;
        released.map_err(|error| OperatorError::from(error).into())
    }

    async fn forget(&self, client: &str) -> Result<(), SinkError> {
        let forgotten = self.shared.deliveries.forget(&self.shared.journal, client).await;
        forgotten.map_err(|error| OperatorError::from(error).into())
    }
}
