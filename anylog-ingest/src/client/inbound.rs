//! What a client owes its broker: the state of the packets that were received and are not acknowledged. A plain state machine: no
//! socket, clock or task.
//!
//! # What it promises
//!
//! * Acknowledgements leave in the order in which the messages came on this connection (MQTT-4.6.0-2, -3), each after its message
//!   is settled (DUR-1).
//! * A message that is sent again while it is being stored, or whose acknowledgement could not be sent, is not stored again (R21).
//!   With QoS 2 never before its PUBREL (MQTT-4.3.3-2).
//! * An acknowledgement for a message of an earlier connection is sent only after the broker sent that message again: its packet id
//!   may mean another message now.

use std::collections::{HashMap, VecDeque};

use super::packet::{Ack, Publish};

/// What to do with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// Store it, and say so under this ticket.
    New(u64),
    /// The same, and its packet id meant another message of QoS 2 before, which the broker never released.
    Instead(u64),
    /// Nothing: it is stored, or being stored, already.
    Known,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Storing,
    Settled,
    Abandoned,
}

#[derive(Debug)]
struct Entry {
    id: u16,
    qos: u8,
    content: u64,
    state: State,
    /// Whether it was received on the connection that is open.
    claimed: bool,
}

/// The packets of QoS 1 and 2 that were received.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    next: u64,
    entries: HashMap<u64, Entry>,
    /// Entries of this connection, in the order of receipt.
    order: VecDeque<u64>,
    /// The entry of each packet id without acknowledgement.
    by_id: HashMap<u16, u64>,
    /// QoS 2: PUBREC is out, PUBREL has not come. With the content.
    received: HashMap<u16, u64>,
}

impl Inbound {
    /// A connection was accepted. Without a session at the broker its packet ids mean nothing any more.
    pub(super) fn opened(&mut self, session_present: bool) {
        self.order.clear();
        if !session_present {
            self.by_id.clear();
            self.received.clear();
        }
        for entry in self.entries.values_mut() {
            entry.claimed = false;
        }
        let known = &self.by_id;
        self.entries.retain(|ticket, entry| known.get(&entry.id) == Some(ticket) || entry.state == State::Storing);
    }

    /// A message with QoS 1 or 2 came. `content` is a hash of its topic and payload.
    pub(super) fn publish(&mut self, publish: &Publish, content: u64) -> Arrival {
        if publish.qos == 2 && self.received.get(&publish.id) == Some(&content) {
            self.enter(publish, content, State::Settled);
            return Arrival::Known;
        }
        // A broker that came back with an older state gives an id to another message.
        let instead = publish.qos == 2 && self.received.remove(&publish.id).is_some();
        if let Some(ticket) = self.by_id.get(&publish.id).copied()
            && let Some(entry) = self.entries.get_mut(&ticket)
            && entry.content == content
            && entry.qos == publish.qos
            && entry.state != State::Abandoned
            && (publish.dup || publish.qos == 2)
        {
            if !entry.claimed {
                entry.claimed = true;
                self.order.push_back(ticket);
            }
            return Arrival::Known;
        }
        let ticket = self.enter(publish, content, State::Storing);
        if instead { Arrival::Instead(ticket) } else { Arrival::New(ticket) }
    }

    fn enter(&mut self, publish: &Publish, content: u64, state: State) -> u64 {
        self.next += 1;
        let ticket = self.next;
        let entry = Entry { id: publish.id, qos: publish.qos, content, state, claimed: true };
        self.entries.insert(ticket, entry);
        if let Some(older) = self.by_id.insert(publish.id, ticket)
            && self.entries.get(&older).is_some_and(|older| !older.claimed && older.state != State::Storing)
        {
            self.entries.remove(&older);
        }
        self.order.push_back(ticket);
        ticket
    }

    /// A message is stored, or lies in the error directory; or it was given up, and the broker has to send it again.
    pub(super) fn settled(&mut self, ticket: u64, stored: bool) {
        let Some(entry) = self.entries.get_mut(&ticket) else { return };
        entry.state = if stored { State::Settled } else { State::Abandoned };
        if !entry.claimed && self.by_id.get(&entry.id) != Some(&ticket) {
            self.entries.remove(&ticket);
        }
    }

    /// Takes the acknowledgements that may be sent now.
    pub(super) fn acknowledge(&mut self, mut send: impl FnMut(Ack, u16)) {
        while let Some(ticket) = self.order.front() {
            let Some(entry) = self.entries.get(ticket) else {
                self.order.pop_front();
                continue;
            };
            if entry.state != State::Settled {
                return;
            }
            if self.by_id.get(&entry.id) == Some(ticket) {
                self.by_id.remove(&entry.id);
            }
            if entry.qos == 2 {
                self.received.insert(entry.id, entry.content);
                send(Ack::Received, entry.id);
            } else {
                send(Ack::Stored, entry.id);
            }
            self.entries.remove(ticket);
            self.order.pop_front();
        }
    }

    /// PUBREL came: the id may mean another message from now on.
    pub(super) fn released(&mut self, id: u16) {
        self.received.remove(&id);
    }

    /// Messages of this connection without acknowledgement.
    pub(super) fn in_flight(&self) -> usize {
        self.order.len()
    }

    /// Whether messages are being stored.
    pub(super) fn is_storing(&self) -> bool {
        self.entries.values().any(|entry| entry.state == State::Storing)
    }
}

#[cfg(test)]
mod tests;
