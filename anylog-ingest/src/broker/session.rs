//! The state of one client's session, as a plain state machine: packets and results go in, actions come out. It holds no socket,
//! clock or task, so that a test can drive it through any order of events.
//!
//! # What it promises
//!
//! * PUBACK and PUBREC are sent in the order of the publishes (MQTT-4.6.0-2, -3), and only after [`Session::settled`] said that
//!   the message is on stable storage (DUR-1).
//! * A publish that comes again with DUP while its packet id has no acknowledgement is not handed on a second time (R21); with
//!   QoS 2 never before its PUBREL (MQTT-4.3.3-2), also over a reconnect.
//! * An acknowledgement for a publish of an earlier connection is sent only after this connection has sent that publish again: its
//!   packet id may mean another message now.
//! * Messages to the client leave in order, at most `window` of them without acknowledgement, and those of QoS 1 and 2 are sent
//!   again after a reconnect (MQTT-4.4.0-1). What waits is bounded in bytes; what does not fit is dropped and counted.
//! * A session that is kept over restarts ([`super::book`]) says what must be on stable storage before an answer goes. The packet id
//!   of a message follows from its place in the queue, so that it is the same after a restart.

mod outbound;
mod room;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::Timestamp;

use super::book::state::{Kept, Waiting};
use super::codec::{Filter, Incoming, Outgoing, RECEIVE_MAXIMUM, Retained, SubscribeOptions, Version};
use super::message::Message;
use crate::topic;
pub(crate) use room::Room;
pub use room::{MAX_FILTER_BYTES, MAX_QUEUES_BYTES, MAX_RECEIVED};
use room::{filter_cost, take};

/// Bytes of messages that may wait for one client, or for its acknowledgement.
pub const MAX_QUEUE_BYTES: usize = 8 * 1024 * 1024;

/// Messages of QoS 1 and 2 that may be without the client's acknowledgement.
const MAX_WINDOW: u16 = 64;

/// Filters that one client may have, and what they may take in memory.
const MAX_FILTERS: (usize, usize) = (10_000, 24 * 1024 * 1024);

/// What a client may always hold.
const FAIR_RECEIVED: usize = 64;

/// What a connection does after an event.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    /// Send this packet.
    Send(Outgoing),
    /// Route and store this message; call [`Session::settled`] with the ticket when that is done. No ticket: nobody waits.
    Accept(Option<u64>, Message),
    /// Route messages of this filter to the client. `existed`: it replaces a subscription.
    Subscribe { filter: Filter, existed: bool },
    /// Stop doing so.
    Unsubscribe(String),
    /// Send this packet when these changes of a kept session are on stable storage.
    Confirm(Vec<Change>, Outgoing),
    /// Write this change of a kept session; nobody waits for it.
    Note(Change),
    /// The client released a packet id. Call [`Session::released`] when it is on stable storage that the id is free. `booked`: the id
    /// is in the book.
    Release { id: u16, booked: bool },
    /// End the connection.
    Close(Close),
}

/// A change of a session that is kept over restarts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// A filter came or was replaced.
    Subscribed(String, SubscribeOptions),
    /// A filter went.
    Unsubscribed(String),
    /// The client has a message for good.
    Done(u64),
    /// The client has a message of QoS 2 and waits for its release.
    Taken(u64),
}

/// The packet of a QoS 2 publish of a kept session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) id: u16,
    /// The client sent it before.
    pub(crate) dup: bool,
    /// It is in the book: the message was passed on.
    pub(crate) routed: bool,
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Close {
    /// The client said goodbye. `will`: it wants its will published nevertheless.
    Client { will: bool },
    /// The client broke the protocol: the reason code of version 5, and what it did.
    Violation(u8, &'static str),
}

/// What became of a message that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It may be acknowledged: its rows have receipts, or it lies in the quarantine, or nobody stores it.
    Settled,
    /// It was given up without a trace; the client will send it again.
    Abandoned,
}

#[derive(Debug)]
struct Pending {
    ticket: u64,
    id: u16,
    qos: u8,
    settled: bool,
    /// Sent, or sent again, on the connection that is open now.
    claimed: bool,
    dup: bool,
    routed: bool,
}

/// A packet id of QoS 2 that waits for PUBREL.
#[derive(Debug, Clone, Copy, Default)]
struct Received {
    /// All is done for its message. Not so after a restart: then only parts of it may be.
    complete: bool,
    /// It is in the book.
    booked: bool,
}

#[derive(Debug)]
struct Queued {
    message: Arc<Message>,
    qos: u8,
    retain: bool,
    /// Its place among the messages of QoS 1 and 2, which its packet id follows from.
    sequence: u64,
    /// It is in the book.
    booked: bool,
    /// The client may have got it before.
    again: bool,
}

/// A message of QoS 1 or 2 that was sent.
#[derive(Debug)]
struct Flight {
    id: u16,
    sequence: u64,
    booked: bool,
    state: FlightState,
}

#[derive(Debug)]
enum FlightState {
    /// PUBLISH sent; waits for PUBACK or PUBREC.
    Published(Queued),
    /// PUBREL sent; waits for PUBCOMP.
    Released,
}

fn packet_id(sequence: u64) -> u16 {
    u16::try_from(sequence % u64::from(u16::MAX)).unwrap_or(0) + 1
}

/// The session of one client.
#[derive(Debug)]
pub(crate) struct Session {
    version: Version,
    online: bool,
    /// Kept over restarts.
    kept: bool,
    now: Timestamp,
    next_ticket: u64,
    pending: VecDeque<Pending>,
    /// Packet ids of QoS 2 among the pending.
    storing: HashSet<u16>,
    /// Pending ones that no publish of this connection waits for.
    unclaimed: usize,
    /// QoS 1: stored, but the connection had gone before the acknowledgement.
    stored: HashSet<u16>,
    /// QoS 2: stored, PUBREL has not come.
    received: HashMap<u16, Received>,
    queue: VecDeque<Queued>,
    /// Bytes of the queue and of the flights.
    queue_bytes: usize,
    room: Room,
    flights: VecDeque<Flight>,
    next_sequence: u64,
    window: usize,
    max_packet: usize,
    filters: HashMap<String, SubscribeOptions>,
    filter_bytes: usize,
    dropped: u64,
    /// What an earlier connection left for the one that is open now.
    handed_over: Vec<Action>,
}

impl Session {
    /// A session without state; what waits for it takes from `room`.
    pub(crate) fn new(room: Room) -> Self {
        Self {
            version: Version::V4,
            online: false,
            kept: false,
            now: Timestamp::UNIX_EPOCH,
            next_ticket: 0,
            pending: VecDeque::new(),
            storing: HashSet::new(),
            unclaimed: 0,
            stored: HashSet::new(),
            received: HashMap::new(),
            queue: VecDeque::new(),
            queue_bytes: 0,
            room,
            flights: VecDeque::new(),
            next_sequence: 0,
            window: usize::from(MAX_WINDOW),
            max_packet: usize::MAX,
            filters: HashMap::new(),
            filter_bytes: 0,
            dropped: 0,
            handed_over: Vec::new(),
        }
    }

    /// A session as it was kept over a restart.
    pub(crate) fn restore(room: Room, kept: &Kept) -> Self {
        let mut session = Self::new(room);
        session.kept = true;
        session.filters = kept.filters.iter().map(|(filter, options)| (filter.clone(), *options)).collect();
        session.filter_bytes = kept.filters.keys().map(|filter| filter_cost(filter)).sum();
        session.room.0.filters.fetch_add(session.filter_bytes, Ordering::Relaxed);
        session.next_sequence = kept.queue.last_key_value().map_or(0, |(last, _)| last + 1);
        for (at, (sequence, Waiting { message, qos, retain, taken })) in kept.queue.iter().enumerate() {
            let (sequence, booked) = (*sequence, true);
            if *taken {
                let state = FlightState::Released;
                session.flights.push_back(Flight { id: packet_id(sequence), sequence, booked, state });
                continue;
            }
            let again = at < usize::from(MAX_WINDOW);
            session.queue_bytes += message.cost();
            session.room.0.bytes.fetch_add(message.cost(), Ordering::Relaxed);
            let message = Arc::clone(message);
            session.queue.push_back(Queued { message, qos: *qos, retain: *retain, sequence, booked, again });
        }
        for packet in &kept.received {
            session.receive(*packet, |received| received.booked = true);
        }
        session
    }

    /// Whether the session is kept over restarts; it says what must be written from now on.
    pub(crate) fn keep_on_disk(&mut self, kept: bool) {
        self.kept = kept;
    }

    /// Tells the time, for messages that expire.
    pub(crate) fn tell_time(&mut self, now: Timestamp) {
        self.now = now;
    }

    fn receive(&mut self, id: u16, change: impl FnOnce(&mut Received)) {
        let before = self.received.len();
        change(self.received.entry(id).or_default());
        self.room.0.received.fetch_add(self.received.len() - before, Ordering::Relaxed);
    }

    /// The packet id of a message that was accepted, when a kept session holds it until its release.
    pub(crate) fn packet(&self, ticket: u64) -> Option<Packet> {
        let at = self.pending.binary_search_by_key(&ticket, |pending| pending.ticket).ok()?;
        let Pending { id, qos, dup, routed, .. } = self.pending[at];
        (self.kept && qos == 2 && id != 0).then_some(Packet { id, dup, routed })
    }

    /// The packet id of a publish is in the book, with everybody that the message waits for.
    pub(crate) fn booked(&mut self, id: u16) {
        self.receive(id, |received| received.booked = true);
    }

    /// It is on stable storage that a packet id is free.
    pub(crate) fn released(&mut self, id: u16, actions: &mut Vec<Action>) {
        let known = self.received.remove(&id).is_some();
        self.room.0.received.fetch_sub(usize::from(known), Ordering::Relaxed);
        if self.online {
            actions.push(Action::Send(Outgoing::PubComp(id, known)));
        }
    }

    /// Leaves acknowledgements to the connection that took over; it takes them with [`Session::fill`].
    pub(crate) fn hand_over(&mut self, actions: &mut Vec<Action>) {
        if self.online {
            self.handed_over.append(actions);
        }
        actions.clear();
    }

    /// A connection begins. Messages that the client has not acknowledged are sent again.
    pub(crate) fn attach(&mut self, version: Version, receive_maximum: u16, max_packet: Option<u32>) -> Vec<Action> {
        self.version = version;
        self.online = true;
        self.window = usize::from(receive_maximum.min(MAX_WINDOW));
        self.max_packet = max_packet.map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
        self.flights
            .iter()
            .map(|flight| {
                Action::Send(match &flight.state {
                    FlightState::Published(queued) => queued.packet(flight.id, true, self.now),
                    FlightState::Released => Outgoing::PubRel(flight.id, true),
                })
            })
            .collect()
    }

    /// The connection ended.
    pub(crate) fn detach(&mut self) {
        self.online = false;
        self.handed_over.clear();
        for pending in &mut self.pending {
            pending.claimed = false;
        }
        let mut unclaimed = std::mem::take(&mut self.pending);
        unclaimed.retain(|pending| !(pending.settled && self.keep(pending)));
        self.unclaimed = unclaimed.len();
        self.pending = unclaimed;
        // QoS 0 is not kept for a client that is away.
        let mut freed = 0;
        self.queue.retain(|queued| {
            freed += if queued.qos > 0 { 0 } else { queued.message.cost() };
            queued.qos > 0
        });
        self.free(freed);
    }

    fn free(&mut self, bytes: usize) {
        self.queue_bytes -= bytes;
        self.room.give(bytes);
    }

    /// The filters that the client has, with their options.
    pub(crate) fn subscriptions(&self) -> impl Iterator<Item = (&str, SubscribeOptions)> {
        self.filters.iter().map(|(filter, options)| (filter.as_str(), *options))
    }

    /// The filters that the client has.
    pub(crate) fn filters(&self) -> impl Iterator<Item = &str> {
        self.filters.keys().map(String::as_str)
    }

    /// Messages that wait for the client.
    pub(crate) fn queued(&self) -> usize {
        self.queue.len() + self.flights.len()
    }

    /// Messages to the client that were dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// A packet came.
    pub(crate) fn on_packet(&mut self, packet: Incoming, actions: &mut Vec<Action>) {
        match packet {
            Incoming::Publish { message, dup, id, alias } => self.on_publish(message, dup, id, alias, actions),
            Incoming::PubAck(id) => self.on_puback(id, actions),
            Incoming::PubRec(id, taken) => self.on_pubrec(id, taken, actions),
            Incoming::PubRel(id) if self.kept => {
                let booked = self.received.get(&id).is_some_and(|received| received.booked);
                actions.push(Action::Release { id, booked });
            }
            Incoming::PubRel(id) => self.released(id, actions),
            Incoming::PubComp(id) => self.land(id, |flight| flight.is_released(), actions),
            Incoming::Subscribe { id, filters } => self.on_subscribe(id, filters, actions),
            Incoming::Unsubscribe { id, filters } => self.on_unsubscribe(id, filters, actions),
            // Answered at once, whatever else waits (MQTT-3.12.4-1).
            Incoming::PingReq => actions.push(Action::Send(Outgoing::PingResp)),
            Incoming::Disconnect { will } => actions.push(Action::Close(Close::Client { will })),
        }
        self.fill(actions);
    }

    fn on_publish(&mut self, mut message: Message, dup: bool, id: u16, alias: bool, actions: &mut Vec<Action>) {
        if alias {
            return actions.push(Action::Close(Close::Violation(0x94, "topic alias, though none is allowed")));
        }
        if !topic::valid_topic(&message.topic) {
            return actions
                .push(Action::Close(Close::Violation(0x90, "PUBLISH to a topic with wildcards or without name")));
        }
        message.begin(self.now);
        match message.qos {
            0 => return actions.push(Action::Accept(None, message)),
            1 if dup && self.claim(id, 1) => return,
            1 if dup && self.stored.remove(&id) => return actions.push(Action::Send(Outgoing::PubAck(id))),
            1 => drop(self.stored.remove(&id)),
            _ if self.received.get(&id).is_some_and(|received| received.complete) => {
                return actions.push(Action::Send(Outgoing::PubRec(id)));
            }
            _ if self.storing.contains(&id) && self.claim(id, 2) => return,
            _ => {}
        }
        if message.qos == 2 && self.received.len() >= FAIR_RECEIVED && self.room.received() >= MAX_RECEIVED {
            return actions.push(Action::Close(Close::Violation(0x97, "too many packets without release")));
        }
        // After a restart a packet that comes again may be half done; one that does not say so is another message.
        let routed = dup && message.qos == 2 && self.received.get(&id).is_some_and(|received| received.booked);
        if self.version == Version::V5 && self.too_many_unacknowledged() {
            // MQTT5 3.3.4-9
            return actions.push(Action::Close(Close::Violation(0x93, "more publishes than the receive maximum")));
        }
        // The id means another message from now on.
        if self.unclaimed > 0 {
            self.pending.iter_mut().filter(|p| p.id == id && !p.claimed).for_each(|pending| pending.id = 0);
        }
        self.next_ticket += 1;
        let (ticket, qos) = (self.next_ticket, message.qos);
        if qos == 2 {
            self.storing.insert(id);
        }
        self.pending.push_back(Pending { ticket, id, qos, settled: false, claimed: true, dup, routed });
        actions.push(Action::Accept(Some(ticket), message));
    }

    /// A publish that is being stored came again: it is answered on this connection when that is done.
    fn claim(&mut self, id: u16, qos: u8) -> bool {
        let found = self.pending.iter_mut().find(|pending| pending.id == id && pending.qos == qos);
        let Some(pending) = found else { return false };
        self.unclaimed -= usize::from(!pending.claimed);
        pending.claimed = true;
        true
    }

    fn too_many_unacknowledged(&self) -> bool {
        let limit = usize::from(RECEIVE_MAXIMUM);
        // Most of the time the rough count says it.
        self.pending.len() + self.received.len() >= limit
            && self.pending.len() - self.unclaimed + self.received.values().filter(|one| one.complete).count() >= limit
    }

    fn take_pending(&mut self, at: usize) -> Option<Pending> {
        let pending = self.pending.remove(at)?;
        self.unclaimed -= usize::from(!pending.claimed);
        if pending.qos == 2 {
            self.storing.remove(&pending.id);
        }
        Some(pending)
    }

    /// A message that was accepted is stored, or was given up.
    pub(crate) fn settled(&mut self, ticket: u64, outcome: Outcome, actions: &mut Vec<Action>) {
        let Ok(at) = self.pending.binary_search_by_key(&ticket, |pending| pending.ticket) else { return };
        if outcome == Outcome::Abandoned {
            self.take_pending(at);
        } else {
            self.pending[at].settled = true;
        }
        // What nobody on this connection waits for does not hold up the others.
        let mut at = 0;
        while let Some(pending) = self.pending.get(at) {
            match (pending.claimed && self.online, pending.settled) {
                (false, true) => {
                    if let Some(pending) = self.take_pending(at) {
                        self.keep(&pending);
                    }
                }
                (false, false) => at += 1,
                (true, false) => break,
                (true, true) => {
                    let Some(pending) = self.take_pending(at) else { break };
                    if pending.qos == 1 {
                        actions.push(Action::Send(Outgoing::PubAck(pending.id)));
                    } else {
                        self.receive(pending.id, |received| received.complete = true);
                        actions.push(Action::Send(Outgoing::PubRec(pending.id)));
                    }
                }
            }
        }
    }

    /// Remembers that a publish was stored whose acknowledgement could not be sent.
    fn keep(&mut self, pending: &Pending) -> bool {
        if pending.id != 0 {
            if pending.qos == 1 {
                self.stored.insert(pending.id);
            } else {
                self.receive(pending.id, |received| received.complete = true);
            }
        }
        true
    }

    fn on_subscribe(&mut self, id: u16, filters: Vec<Filter>, actions: &mut Vec<Action>) {
        let mut codes = Vec::with_capacity(filters.len());
        let mut accepted = Vec::new();
        for filter in filters {
            if !topic::valid_filter(&filter.path) {
                codes.push(if self.version == Version::V5 { 0x8f } else { 0x80 });
            } else if filter.path.starts_with("$share/") {
                codes.push(if self.version == Version::V5 { 0x9e } else { 0x80 });
            } else if !self.take_room_for(&filter.path) {
                codes.push(if self.version == Version::V5 { 0x97 } else { 0x80 });
            } else {
                codes.push(filter.options.qos);
                let existed = self.filters.insert(filter.path.clone(), filter.options).is_some();
                accepted.push(Action::Subscribe { filter, existed });
            }
        }
        // The answer first, then retained messages.
        let changes = accepted.iter().filter_map(|action| match action {
            Action::Subscribe { filter, .. } => Some(Change::Subscribed(filter.path.clone(), filter.options)),
            _ => None,
        });
        let changes = changes.collect();
        actions.push(self.confirm(changes, Outgoing::SubAck(id, codes)));
        actions.extend(accepted);
    }

    fn take_room_for(&mut self, filter: &str) -> bool {
        if self.filters.contains_key(filter) {
            return true;
        }
        let ((filters, bytes), cost) = (MAX_FILTERS, filter_cost(filter));
        let takes = self.filters.len() < filters
            && self.filter_bytes + cost <= bytes
            && take(&self.room.0.filters, cost, MAX_FILTER_BYTES);
        self.filter_bytes += if takes { cost } else { 0 };
        takes
    }

    /// An answer that goes when changes are on stable storage, or at once when the session is not kept.
    fn confirm(&self, changes: Vec<Change>, answer: Outgoing) -> Action {
        if self.kept && !changes.is_empty() { Action::Confirm(changes, answer) } else { Action::Send(answer) }
    }

    fn on_unsubscribe(&mut self, id: u16, filters: Vec<String>, actions: &mut Vec<Action>) {
        let mut codes = Vec::with_capacity(filters.len());
        let mut changes = Vec::new();
        for filter in filters {
            let known = self.filters.remove(&filter).is_some();
            codes.push(if known { 0 } else { 0x11 });
            if known {
                self.filter_bytes -= filter_cost(&filter);
                self.room.0.filters.fetch_sub(filter_cost(&filter), Ordering::Relaxed);
                changes.push(Change::Unsubscribed(filter.clone()));
                actions.push(Action::Unsubscribe(filter));
            }
        }
        actions.push(self.confirm(changes, Outgoing::UnsubAck(id, codes)));
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.room.give(self.queue_bytes);
        self.room.0.received.fetch_sub(self.received.len(), Ordering::Relaxed);
        self.room.0.filters.fetch_sub(self.filter_bytes, Ordering::Relaxed);
    }
}

/// Whether retained messages are sent for a subscription.
pub(crate) fn wants_retained(options: SubscribeOptions, existed: bool) -> bool {
    match options.retained {
        Retained::Always => true,
        Retained::IfNew => !existed,
        Retained::Never => false,
    }
}

#[cfg(test)]
mod tests;
