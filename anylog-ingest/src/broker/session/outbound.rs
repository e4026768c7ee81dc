//! The way out: what waits for the client, what it has not acknowledged.

use std::sync::Arc;

use jiff::Timestamp;

use super::{Action, Change, Flight, FlightState, MAX_QUEUE_BYTES, Queued, Session, packet_id};
use crate::broker::codec::Outgoing;
use crate::broker::message::Message;

impl Session {
    pub(super) fn on_puback(&mut self, id: u16, actions: &mut Vec<Action>) {
        self.land(id, |flight| matches!(&flight.state, FlightState::Published(queued) if queued.qos == 1), actions);
    }

    pub(super) fn on_pubrec(&mut self, id: u16, taken: bool, actions: &mut Vec<Action>) {
        let Some(flight) = self.flights.iter_mut().find(|flight| flight.id == id && flight.is_qos_2()) else {
            return actions.push(Action::Send(Outgoing::PubRel(id, false)));
        };
        if !taken {
            return self.land(id, Flight::is_qos_2, actions);
        }
        let (sequence, booked) = (flight.sequence, flight.booked);
        let before = std::mem::replace(&mut flight.state, FlightState::Released);
        if let FlightState::Published(queued) = before {
            self.free(queued.message.cost());
        }
        let changes = if booked { vec![Change::Taken(sequence)] } else { Vec::new() };
        actions.push(self.confirm(changes, Outgoing::PubRel(id, true)));
    }

    /// The client has a message for good.
    pub(super) fn land(&mut self, id: u16, fits: impl Fn(&Flight) -> bool, actions: &mut Vec<Action>) {
        // Mostly the first.
        let Some(at) = self.flights.iter().position(|flight| flight.id == id && fits(flight)) else { return };
        let Some(flight) = self.flights.remove(at) else { return };
        if let FlightState::Published(queued) = &flight.state {
            self.free(queued.message.cost());
        }
        if flight.booked {
            actions.push(Action::Note(Change::Done(flight.sequence)));
        }
    }

    /// Takes room for a message of QoS 1 or 2 that is written to the book first; returns its place. Without room it is dropped.
    pub(crate) fn reserve(&mut self, message: &Message) -> Option<u64> {
        let cost = message.cost();
        if self.queue_bytes + cost > MAX_QUEUE_BYTES || !self.room.take(cost) {
            self.dropped += 1;
            return None;
        }
        self.queue_bytes += cost;
        self.next_sequence += 1;
        Some(self.next_sequence - 1)
    }

    /// Queues a message that has its room and is in the book.
    pub(crate) fn deliver_reserved(&mut self, sequence: u64, message: Arc<Message>, qos: u8, retain: bool) {
        self.queue.push_back(Queued { message, qos, retain, sequence, booked: true, again: false });
    }

    /// Gives room back because the message will not come.
    pub(crate) fn give_back(&mut self, message: &Message) {
        self.free(message.cost());
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
        let sequence = self.next_sequence;
        self.next_sequence += u64::from(qos > 0);
        self.queue.push_back(Queued { message, qos, retain, sequence, booked: false, again: false });
        true
    }

    /// Sends what waits, as far as the window allows.
    pub(crate) fn fill(&mut self, actions: &mut Vec<Action>) {
        actions.append(&mut self.handed_over);
        while self.online && self.queue.front().is_some_and(|next| self.may_send(next)) {
            let Some(queued) = self.queue.pop_front() else { break };
            if queued.message.cost() > self.max_packet || queued.message.is_expired(self.now) {
                // MQTT5 3.1.2-25: as if it had been sent. MQTT5 3.3.2-5: of no use any more.
                self.dropped += 1;
                self.free(queued.message.cost());
                if queued.booked {
                    actions.push(Action::Note(Change::Done(queued.sequence)));
                }
                continue;
            }
            if queued.qos == 0 {
                self.free(queued.message.cost());
                actions.push(Action::Send(queued.packet(0, false, self.now)));
                continue;
            }
            let (sequence, booked) = (queued.sequence, queued.booked);
            let id = packet_id(sequence);
            actions.push(Action::Send(queued.packet(id, queued.again, self.now)));
            self.flights.push_back(Flight { id, sequence, booked, state: FlightState::Published(queued) });
        }
    }

    fn may_send(&self, next: &Queued) -> bool {
        // Two messages of one packet id are 65,535 places apart: the later one waits for the earlier.
        next.qos == 0
            || (self.flights.len() < self.window
                && self.flights.front().is_none_or(|first| {
                    next.sequence.abs_diff(first.sequence) < u64::from(u16::MAX)
                        || self.flights.iter().all(|flight| flight.id != packet_id(next.sequence))
                }))
    }
}

impl Queued {
    pub(super) fn packet(&self, id: u16, dup: bool, now: Timestamp) -> Outgoing {
        let message = self.message.aged(now).map_or_else(|| Arc::clone(&self.message), Arc::new);
        Outgoing::Publish { message, qos: self.qos, retain: self.retain, dup, id }
    }
}

impl Flight {
    pub(super) fn is_released(&self) -> bool {
        matches!(self.state, FlightState::Released)
    }

    fn is_qos_2(&self) -> bool {
        match &self.state {
            FlightState::Published(queued) => queued.qos == 2,
            FlightState::Released => true,
        }
    }
}
