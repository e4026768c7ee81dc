//! Between the connection and the store: messages that wait, and messages whose rows are being stored.
//!
//! The connection puts messages in and takes out which acknowledgements are due. A task of its own stores them, many at a time. So
//! a store that is slow, or gone, holds up neither pings nor a new connection.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::fingerprint;
use super::inbound::{Arrival, Inbound};
use super::packet::{Ack, Publish};
use crate::intake::{self, Intake, Standing, Taken};
use crate::sink::{Delivery, SinkSlot};
use crate::subscription::{Subscription, Subscriptions};

/// Messages that may wait for the store or be stored, and their bytes.
pub const MAX_WAITING: (usize, usize) = (8192, 16 * 1024 * 1024);

/// Groups of messages that are stored at the same time. While they are, what comes gathers for the next one.
const AT_ONCE: usize = 16;

/// Messages of a group, and their bytes.
const GROUP: (usize, usize) = (1024, 1024 * 1024);

/// Retained messages that are remembered, so that a broker that sends them for each SUBSCRIBE does not repeat them.
const RETAINED: usize = 4096;

/// Pause before a store that failed is asked again.
const AGAIN: std::time::Duration = std::time::Duration::from_millis(500);

struct Job {
    /// None with QoS 0.
    ticket: Option<u64>,
    publish: Publish,
    /// The QoS 2 packet, if its id may still mean this message to the broker.
    delivery: Option<Delivery>,
    /// Whether the store is asked if it holds the message from an earlier run.
    ask: bool,
}

#[derive(Default)]
struct State {
    inbound: Inbound,
    queue: VecDeque<Job>,
    /// Messages and bytes in the queue and being stored.
    waiting: (usize, usize),
    /// Packet ids whose PUBREL came, before and after the store let go of them.
    releases: BTreeSet<u16>,
    released: Vec<u16>,
    /// Counts the connections.
    connection: u64,
    /// The broker forgot the session, and the store has to forget its packet ids before it takes messages of the new one.
    forget: bool,
    /// Content of the retained messages that were stored, by topic.
    retained: HashMap<u64, u64>,
}

/// What of the messages of a client is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Messages that wait for the store or are being stored.
    pub messages: usize,
    /// Their bytes.
    pub bytes: usize,
    /// Messages with QoS 1 and 2 of this connection without acknowledgement.
    pub in_flight: usize,
}

/// The messages of a client on their way to the store.
pub(super) struct Storer {
    state: Mutex<State>,
    intake: Arc<Intake>,
    slot: Arc<SinkSlot>,
    subscriptions: Subscriptions,
    /// Under which the store keeps the packet ids of QoS 2.
    client: Arc<str>,
    /// There is something to store.
    work: Notify,
    /// There may be something to acknowledge.
    pub(super) due: Notify,
}

enum Done {
    Stored(Vec<(Job, Taken)>),
    /// Packet ids that the store has let go of, and the connection by which they were released.
    Released(Vec<u16>, u64),
    Forgotten,
}

/// What the store is asked for next.
enum Next {
    Store(Vec<Job>),
    Release(Vec<u16>, u64),
    Forget,
}

impl Storer {
    pub(super) fn new(
        intake: Arc<Intake>,
        slot: Arc<SinkSlot>,
        topics: &[Arc<Subscription>],
        client: Arc<str>,
    ) -> Self {
        let subscriptions = Subscriptions::default();
        for topic in topics {
            subscriptions.add(Arc::clone(topic));
        }
        let (work, due) = (Notify::new(), Notify::new());
        Self { state: Mutex::default(), intake, slot, subscriptions, client, work, due }
    }

    /// A connection was accepted.
    pub(super) fn opened(&self, session_present: bool) {
        let mut state = self.state.lock();
        state.inbound.opened(session_present);
        // A PUBREL whose PUBCOMP was not sent comes again; a PUBCOMP too many would be for another message.
        state.releases.clear();
        state.released.clear();
        state.connection += 1;
        if !session_present {
            state.forget = true;
            for job in &mut state.queue {
                job.delivery = None;
            }
        }
        drop(state);
        self.work.notify_one();
    }

    /// Takes a message in.
    pub(super) fn put(&self, publish: Publish) {
        let mut state = self.state.lock();
        let repeated = publish.retain && state.is_repeated(&publish);
        let mut ask = true;
        let ticket = if publish.qos == 0 {
            // Half of the room is kept for messages that somebody waits for, so that these never stop the reading.
            let full = state.waiting.0 >= MAX_WAITING.0 / 2 || state.waiting.1 + publish.cost() > MAX_WAITING.1 / 2;
            if full && !repeated {
                self.intake.count_dropped();
            }
            if full || repeated {
                return;
            }
            None
        } else {
            let (ticket, instead) = match state.inbound.publish(&publish, content(&publish)) {
                Arrival::New(ticket) => (Some(ticket), false),
                Arrival::Instead(ticket) => (Some(ticket), true),
                Arrival::Known => (None, false),
            };
            ask = !instead;
            if let Some(ticket) = ticket.filter(|_| repeated) {
                state.inbound.settled(ticket, true);
            }
            if ticket.is_none() || repeated {
                self.due.notify_one();
                return;
            }
            ticket
        };
        state.waiting.0 += 1;
        state.waiting.1 += publish.cost();
        let delivery = (publish.qos == 2).then(|| Delivery { client: Arc::clone(&self.client), packet: publish.id });
        state.queue.push_back(Job { ticket, publish, delivery, ask });
        drop(state);
        self.work.notify_one();
    }

    /// PUBREL came.
    pub(super) fn release(&self, id: u16) {
        let mut state = self.state.lock();
        state.inbound.released(id);
        state.releases.insert(id);
        drop(state);
        self.work.notify_one();
    }

    /// Whether more messages may be taken in. One always may.
    pub(super) fn has_room(&self) -> bool {
        let waiting = self.state.lock().waiting;
        waiting.0 == 0 || (waiting.0 < MAX_WAITING.0 && waiting.1 < MAX_WAITING.1 && self.intake.budget.has_room())
    }

    /// Takes the acknowledgements that are due.
    pub(super) fn acknowledge(&self, mut send: impl FnMut(Ack, u16)) {
        let mut state = self.state.lock();
        state.inbound.acknowledge(&mut send);
        for id in state.released.drain(..) {
            send(Ack::Complete, id);
        }
    }

    /// Whether messages with QoS 1 or 2 are being stored.
    pub(super) fn is_storing(&self) -> bool {
        self.state.lock().inbound.is_storing()
    }

    pub(super) fn load(&self) -> Load {
        let state = self.state.lock();
        Load { messages: state.waiting.0, bytes: state.waiting.1, in_flight: state.inbound.in_flight() }
    }

    /// Stores until `stop`; what is being stored then is stored to its end, what waits for a store is given up.
    pub(super) async fn run(&self, stop: &CancellationToken) {
        let mut busy: FuturesUnordered<BoxFuture<'_, Done>> = FuturesUnordered::new();
        // Packet ids are released by one call at a time, and forgotten while nothing else is done.
        let mut releasing = false;
        let mut forgetting = false;
        loop {
            while !forgetting
                && !stop.is_cancelled()
                && let Some(next) = self.next(busy.len(), releasing)
            {
                match next {
                    Next::Store(jobs) => busy.push(Box::pin(self.store(jobs, stop))),
                    Next::Release(ids, connection) => {
                        releasing = true;
                        busy.push(Box::pin(self.release_all(ids, connection, stop)));
                    }
                    Next::Forget => {
                        forgetting = true;
                        busy.push(Box::pin(self.forget(stop)));
                    }
                }
            }
            tokio::select! {
                Some(done) = busy.next() => {
                    releasing &= !matches!(done, Done::Released(..));
                    forgetting &= !matches!(done, Done::Forgotten);
                    self.done(done);
                }
                () = self.work.notified() => {}
                () = stop.cancelled(), if busy.is_empty() => break,
            }
        }
        self.give_up();
    }

    fn next(&self, busy: usize, releasing: bool) -> Option<Next> {
        let mut state = self.state.lock();
        if state.forget {
            // Messages of the old session would leave their packet ids in the store when they end after it was told to forget.
            if busy > 0 {
                return None;
            }
            state.forget = false;
            return Some(Next::Forget);
        }
        if !releasing && !state.releases.is_empty() {
            let ids = std::mem::take(&mut state.releases).into_iter().collect();
            return Some(Next::Release(ids, state.connection));
        }
        if busy >= AT_ONCE {
            return None;
        }
        state.next_group().map(Next::Store)
    }

    /// Stores messages that came together.
    async fn store(&self, jobs: Vec<Job>, stop: &CancellationToken) -> Done {
        let bytes = jobs.iter().map(|job| job.publish.cost()).sum();
        let _held = self.intake.budget.hold(bytes);
        let Some(first) = jobs.first() else { return Done::Stored(Vec::new()) };
        let (standing, subscriptions) = (first.standing(), self.subscriptions.of(&first.publish.topic));
        let Some(known) = self.known(&jobs, stop).await else {
            return Done::Stored(jobs.into_iter().map(|job| (job, Taken::Abandoned)).collect());
        };
        let new = jobs.iter().zip(&known).filter(|(_, known)| !**known).map(|(job, _)| intake::Inbound {
            topic: &job.publish.topic,
            payload: &job.publish.payload,
            delivery: job.delivery.clone(),
        });
        let new: Vec<intake::Inbound<'_>> = new.collect();
        let mut taken = self.intake.take_many(&subscriptions, &new, standing, stop).await.into_iter();
        let mut of_job = |known: bool| if known { Taken::Settled } else { taken.next().unwrap_or(Taken::Abandoned) };
        let taken: Vec<Taken> = known.into_iter().map(&mut of_job).collect();
        Done::Stored(jobs.into_iter().zip(taken).collect())
    }

    /// Which messages of QoS 2 an earlier run of this node stored. None: stopped before there was a store to ask.
    async fn known(&self, jobs: &[Job], stop: &CancellationToken) -> Option<Vec<bool>> {
        let asked = |job: &Job| job.delivery.clone().filter(|_| job.ask);
        let deliveries: Vec<Delivery> = jobs.iter().filter_map(asked).collect();
        if deliveries.is_empty() {
            return Some(vec![false; jobs.len()]);
        }
        let held = tokio::select! {
            held = self.slot.held(&deliveries) => held,
            () = stop.cancelled() => return None,
        };
        let mut held = held.into_iter();
        let holds = |job: &Job| asked(job).is_some() && held.next().unwrap_or(false);
        Some(jobs.iter().map(holds).collect())
    }

    /// Has the store let go of packet ids. PUBCOMP waits for it: a store that keeps an id would take the next message for this one.
    async fn release_all(&self, ids: Vec<u16>, connection: u64, stop: &CancellationToken) -> Done {
        let deliveries: Vec<Delivery> =
            ids.iter().map(|id| Delivery { client: Arc::clone(&self.client), packet: *id }).collect();
        let released = self.until_done(stop, Some(deliveries)).await;
        Done::Released(if released { ids } else { Vec::new() }, connection)
    }

    async fn forget(&self, stop: &CancellationToken) -> Done {
        self.until_done(stop, None).await;
        Done::Forgotten
    }

    /// Has the store release packet ids, or forget all of this client, however often it fails; false when it was stopped before.
    async fn until_done(&self, stop: &CancellationToken, release: Option<Vec<Delivery>>) -> bool {
        let done = async {
            loop {
                let sink = self.slot.mounted().await;
                let answer = match &release {
                    Some(deliveries) => sink.release(deliveries.clone()).await,
                    None => sink.forget(&self.client).await,
                };
                let Err(error) = answer else { return };
                tracing::warn!(client = %self.client, %error, "The store does not let go of packet ids yet");
                tokio::time::sleep(AGAIN).await;
            }
        };
        tokio::select! {
            () = done => true,
            () = stop.cancelled() => false,
        }
    }

    fn done(&self, done: Done) {
        let mut state = self.state.lock();
        match done {
            Done::Stored(jobs) => {
                for (job, taken) in jobs {
                    state.waiting.0 -= 1;
                    state.waiting.1 -= job.publish.cost();
                    let settled = taken == Taken::Settled;
                    if settled && job.publish.retain {
                        state.remember(&job.publish);
                    }
                    if let Some(ticket) = job.ticket {
                        state.inbound.settled(ticket, settled);
                    }
                }
            }
            Done::Released(ids, connection) if connection == state.connection => state.released.extend(ids),
            Done::Released(..) | Done::Forgotten => {}
        }
        drop(state);
        self.due.notify_one();
    }

    /// What has not begun comes again: the broker keeps it.
    fn give_up(&self) {
        let mut state = self.state.lock();
        for job in std::mem::take(&mut state.queue) {
            if let Some(ticket) = job.ticket {
                state.inbound.settled(ticket, false);
            }
        }
        state.waiting = (0, 0);
        drop(state);
        self.due.notify_one();
    }
}

impl Job {
    fn standing(&self) -> Standing {
        if self.ticket.is_none() { Standing::Volatile } else { Standing::Acknowledged }
    }
}

impl State {
    /// Takes the messages of one topic that stand next to each other, so that they are mapped and stored as one.
    fn next_group(&mut self) -> Option<Vec<Job>> {
        let mut bytes = 0;
        let first = self.queue.front()?;
        let mut joins = |job: &Job| {
            bytes += job.publish.cost();
            job.publish.topic == first.publish.topic && job.standing() == first.standing() && bytes <= GROUP.1
        };
        let many = self.queue.iter().skip(1).take(GROUP.0 - 1).take_while(|job| joins(job)).count() + 1;
        Some(self.queue.drain(..many).collect())
    }

    /// Whether a retained message was stored after an earlier SUBSCRIBE, and is sent because of another one.
    fn is_repeated(&self, publish: &Publish) -> bool {
        self.retained.get(&fingerprint([publish.topic.as_bytes()])) == Some(&content(publish))
    }

    fn remember(&mut self, publish: &Publish) {
        if self.retained.len() >= RETAINED {
            self.retained.clear();
        }
        self.retained.insert(fingerprint([publish.topic.as_bytes()]), content(publish));
    }
}

fn content(publish: &Publish) -> u64 {
    fingerprint([publish.topic.as_bytes(), &publish.payload])
}

impl std::fmt::Debug for Storer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Storer").field("client", &self.client).field("load", &self.load()).finish_non_exhaustive()
    }
}
