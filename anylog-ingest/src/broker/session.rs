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

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::codec::{Filter, Incoming, Outgoing, RECEIVE_MAXIMUM, Retained, SubscribeOptions, Version};
use super::message::Message;
use crate::topic;

/// Bytes of messages that may wait for one client, or for its acknowledgement.
pub const MAX_QUEUE_BYTES: usize = 8 * 1024 * 1024;

/// Bytes of messages that may wait for all clients together.
pub const MAX_QUEUES_BYTES: usize = 128 * 1024 * 1024;

/// Messages of QoS 1 and 2 that may be without the client's acknowledgement.
const MAX_WINDOW: u16 = 64;

/// Filters that one client may have.
const MAX_FILTERS: usize = 10_000;

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
    /// End the connection.
    Close(Close),
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
}

/// The bytes of messages that wait for all clients.
#[derive(Debug, Clone, Default)]
pub(crate) struct Room(Arc<AtomicUsize>);

impl Room {
    /// Bytes in use.
    pub(crate) fn used(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> bool {
        let fits = |used: usize| (used + bytes <= MAX_QUEUES_BYTES).then_some(used + bytes);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    fn give(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Queued {
    message: Arc<Message>,
    qos: u8,
    retain: bool,
}

#[derive(Debug)]
enum Flight {
    /// PUBLISH sent; waits for PUBACK or PUBREC.
    Published(Queued),
    /// PUBREL sent; waits for PUBCOMP.
    Released,
}

/// The session of one client.
#[derive(Debug)]
pub(crate) struct Session {
    version: Version,
    online: bool,
    next_ticket: u64,
    pending: VecDeque<Pending>,
    /// QoS 1: stored, but the connection had gone before the acknowledgement.
    stored: HashSet<u16>,
    /// QoS 2: stored, PUBREL has not come.
    received: HashSet<u16>,
    queue: VecDeque<Queued>,
    /// Bytes of the queue and of the flights.
    queue_bytes: usize,
    room: Room,
    flights: VecDeque<(u16, Flight)>,
    next_id: u16,
    window: usize,
    max_packet: usize,
    filters: HashMap<String, SubscribeOptions>,
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
            next_ticket: 0,
            pending: VecDeque::new(),
            stored: HashSet::new(),
            received: HashSet::new(),
            queue: VecDeque::new(),
            queue_bytes: 0,
            room,
            flights: VecDeque::new(),
            next_id: 0,
            window: usize::from(MAX_WINDOW),
            max_packet: usize::MAX,
            filters: HashMap::new(),
            dropped: 0,
            handed_over: Vec::new(),
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
            .map(|(id, flight)| {
                Action::Send(match flight {
                    Flight::Published(queued) => queued.packet(*id, true),
                    Flight::Released => Outgoing::PubRel(*id, true),
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
            Incoming::PubAck(id) => self.on_puback(id),
            Incoming::PubRec(id, taken) => self.on_pubrec(id, taken, actions),
            Incoming::PubRel(id) => {
                let known = self.received.remove(&id);
                actions.push(Action::Send(Outgoing::PubComp(id, known)));
            }
            Incoming::PubComp(id) => self.flights.retain(|(known, flight)| !(*known == id && flight.is_released())),
            Incoming::Subscribe { id, filters } => self.on_subscribe(id, filters, actions),
            Incoming::Unsubscribe { id, filters } => self.on_unsubscribe(id, filters, actions),
            // Answered at once, whatever else waits (MQTT-3.12.4-1).
            Incoming::PingReq => actions.push(Action::Send(Outgoing::PingResp)),
            Incoming::Disconnect { will } => actions.push(Action::Close(Close::Client { will })),
        }
        self.fill(actions);
    }

    fn on_publish(&mut self, message: Message, dup: bool, id: u16, alias: bool, actions: &mut Vec<Action>) {
        if alias {
            return actions.push(Action::Close(Close::Violation(0x94, "topic alias, though none is allowed")));
        }
        if !topic::valid_topic(&message.topic) {
            return actions
                .push(Action::Close(Close::Violation(0x90, "PUBLISH to a topic with wildcards or without name")));
        }
        match message.qos {
            0 => return actions.push(Action::Accept(None, message)),
            1 if dup && self.claim(id, 1) => return,
            1 if dup && self.stored.remove(&id) => return actions.push(Action::Send(Outgoing::PubAck(id))),
            1 => drop(self.stored.remove(&id)),
            _ if self.received.contains(&id) => return actions.push(Action::Send(Outgoing::PubRec(id))),
            _ if self.claim(id, 2) => return,
            _ => {}
        }
        if self.version == Version::V5 && self.unacknowledged() >= usize::from(RECEIVE_MAXIMUM) {
            // MQTT5 3.3.4-9
            return actions.push(Action::Close(Close::Violation(0x93, "more publishes than the receive maximum")));
        }
        // The id means another message from now on.
        self.pending.iter_mut().filter(|p| p.id == id && !p.claimed).for_each(|pending| pending.id = 0);
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        self.pending.push_back(Pending { ticket, id, qos: message.qos, settled: false, claimed: true });
        actions.push(Action::Accept(Some(ticket), message));
    }

    /// A publish that is being stored came again: it is answered on this connection when that is done.
    fn claim(&mut self, id: u16, qos: u8) -> bool {
        let found = self.pending.iter_mut().find(|pending| pending.id == id && pending.qos == qos);
        found.map(|pending| pending.claimed = true).is_some()
    }

    fn unacknowledged(&self) -> usize {
        self.pending.iter().filter(|pending| pending.claimed).count() + self.received.len()
    }

    /// A message that was accepted is stored, or was given up.
    pub(crate) fn settled(&mut self, ticket: u64, outcome: Outcome, actions: &mut Vec<Action>) {
        let Ok(at) = self.pending.binary_search_by_key(&ticket, |pending| pending.ticket) else { return };
        if outcome == Outcome::Abandoned {
            self.pending.remove(at);
        } else {
            self.pending[at].settled = true;
        }
        // What nobody on this connection waits for does not hold up the others.
        let mut at = 0;
        while let Some(pending) = self.pending.get(at) {
            match (pending.claimed && self.online, pending.settled) {
                (false, true) => {
                    if let Some(pending) = self.pending.remove(at) {
                        self.keep(&pending);
                    }
                }
                (false, false) => at += 1,
                (true, false) => break,
                (true, true) => {
                    let Some(pending) = self.pending.remove(at) else { break };
                    if pending.qos == 1 {
                        actions.push(Action::Send(Outgoing::PubAck(pending.id)));
                    } else {
                        self.received.insert(pending.id);
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
                self.stored.insert(pending.id)
            } else {
                self.received.insert(pending.id)
            };
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
            } else if self.filters.len() >= MAX_FILTERS && !self.filters.contains_key(&filter.path) {
                codes.push(if self.version == Version::V5 { 0x97 } else { 0x80 });
            } else {
                codes.push(filter.options.qos);
                let existed = self.filters.insert(filter.path.clone(), filter.options).is_some();
                accepted.push(Action::Subscribe { filter, existed });
            }
        }
        // The answer first, then retained messages.
        actions.push(Action::Send(Outgoing::SubAck(id, codes)));
        actions.extend(accepted);
    }

    fn on_unsubscribe(&mut self, id: u16, filters: Vec<String>, actions: &mut Vec<Action>) {
        let mut codes = Vec::with_capacity(filters.len());
        for filter in filters {
            let known = self.filters.remove(&filter).is_some();
            codes.push(if known { 0 } else { 0x11 });
            if known {
                actions.push(Action::Unsubscribe(filter));
            }
        }
        actions.push(Action::Send(Outgoing::UnsubAck(id, codes)));
    }

    fn on_puback(&mut self, id: u16) {
        let mut freed = 0;
        self.flights.retain(|(known, flight)| match flight {
            Flight::Published(queued) if *known == id && queued.qos == 1 => {
                freed += queued.message.cost();
                false
            }
            _ => true,
        });
        self.free(freed);
    }

    fn on_pubrec(&mut self, id: u16, taken: bool, actions: &mut Vec<Action>) {
        let flight = self.flights.iter_mut().find(|(known, flight)| *known == id && flight.is_qos_2());
        match flight {
            Some((_, flight)) => {
                let before = std::mem::replace(flight, Flight::Released);
                if taken {
                    actions.push(Action::Send(Outgoing::PubRel(id, true)));
                } else {
                    self.flights.retain(|(known, _)| *known != id);
                }
                if let Flight::Published(queued) = before {
                    self.free(queued.message.cost());
                }
            }
            None => actions.push(Action::Send(Outgoing::PubRel(id, false))),
        }
    }

    /// Queues a message for the client. Returns false when it was dropped.
    pub(crate) fn deliver(&mut self, message: Arc<Message>, qos: u8, retain: bool) -> bool {
        let cost = message.cost();
        let unfit = (qos == 0 && !self.online) || self.queue_bytes + cost > MAX_QUEUE_BYTES;
        if unfit || !self.room.take(cost) {
            self.dropped += 1;
            return false;
        }
        self.queue_bytes += cost;
        self.queue.push_back(Queued { message, qos, retain });
        true
    }

    /// Sends what waits, as far as the window allows.
    pub(crate) fn fill(&mut self, actions: &mut Vec<Action>) {
        actions.append(&mut self.handed_over);
        while self.online && self.queue.front().is_some_and(|next| next.qos == 0 || self.flights.len() < self.window) {
            let Some(queued) = self.queue.pop_front() else { break };
            if queued.message.cost() > self.max_packet {
                // MQTT5 3.1.2-25: as if it had been sent.
                self.dropped += 1;
                self.free(queued.message.cost());
                continue;
            }
            if queued.qos == 0 {
                self.free(queued.message.cost());
                actions.push(Action::Send(queued.packet(0, false)));
                continue;
            }
            let id = self.free_id();
            actions.push(Action::Send(queued.packet(id, false)));
            self.flights.push_back((id, Flight::Published(queued)));
        }
    }

    fn free_id(&mut self) -> u16 {
        loop {
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            let id = self.next_id;
            // At most `window` ids are taken, so a free one is near.
            if self.flights.iter().all(|(known, _)| *known != id) {
                return id;
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.room.give(self.queue_bytes);
    }
}

impl Queued {
    fn packet(&self, id: u16, dup: bool) -> Outgoing {
        Outgoing::Publish { message: Arc::clone(&self.message), qos: self.qos, retain: self.retain, dup, id }
    }
}

impl Flight {
    fn is_released(&self) -> bool {
        matches!(self, Flight::Released)
    }

    fn is_qos_2(&self) -> bool {
        match self {
            Flight::Published(queued) => queued.qos == 2,
            Flight::Released => true,
        }
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
