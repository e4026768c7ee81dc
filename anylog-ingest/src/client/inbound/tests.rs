use std::collections::HashSet;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

fn message(id: u16, qos: u8, dup: bool) -> Publish {
    Publish { topic: "t".into(), payload: Bytes::new(), qos, retain: false, dup, id }
}

fn acks(inbound: &mut Inbound) -> Vec<(Ack, u16)> {
    let mut acks = Vec::new();
    inbound.acknowledge(|ack, id| acks.push((ack, id)));
    acks
}

fn new(arrival: Arrival) -> u64 {
    match arrival {
        Arrival::New(ticket) => ticket,
        other => panic!("not simply new: {other:?}"),
    }
}

// MQTT-4.6.0-2
#[test]
fn acknowledgements_leave_in_the_order_of_receipt() {
    let mut inbound = Inbound::default();
    inbound.opened(false);
    let first = new(inbound.publish(&message(1, 1, false), 10));
    let second = new(inbound.publish(&message(2, 1, false), 20));
    inbound.settled(second, true);
    assert_eq!(acks(&mut inbound), []);
    inbound.settled(first, true);
    assert_eq!(acks(&mut inbound), [(Ack::Stored, 1), (Ack::Stored, 2)]);
    assert_eq!(inbound.in_flight(), 0);
}

// R21
#[test]
fn what_is_being_stored_when_the_connection_breaks_is_acknowledged_on_the_next_one() {
    let mut inbound = Inbound::default();
    inbound.opened(false);
    let one = new(inbound.publish(&message(1, 1, false), 10));
    let two = new(inbound.publish(&message(2, 1, false), 20));
    inbound.settled(one, true);
    inbound.opened(true);
    assert_eq!(acks(&mut inbound), [], "the broker has not sent them again");
    assert_eq!(inbound.publish(&message(1, 1, true), 10), Arrival::Known);
    assert_eq!(inbound.publish(&message(2, 1, true), 20), Arrival::Known);
    assert_eq!(acks(&mut inbound), [(Ack::Stored, 1)]);
    inbound.settled(two, true);
    assert_eq!(acks(&mut inbound), [(Ack::Stored, 2)]);
}

#[test]
fn an_id_that_means_another_message_is_stored() {
    let mut inbound = Inbound::default();
    inbound.opened(false);
    let one = new(inbound.publish(&message(1, 1, false), 10));
    inbound.settled(one, true);
    inbound.opened(true);
    // Not sent again but new, although it holds the same.
    let again = new(inbound.publish(&message(1, 1, false), 10));
    inbound.settled(again, true);
    assert_eq!(acks(&mut inbound), [(Ack::Stored, 1)]);
    // Other content under the same id.
    let two = new(inbound.publish(&message(2, 1, false), 20));
    inbound.opened(true);
    let other = new(inbound.publish(&message(2, 1, true), 21));
    inbound.settled(two, true);
    assert_eq!(acks(&mut inbound), []);
    inbound.settled(other, true);
    assert_eq!(acks(&mut inbound), [(Ack::Stored, 2)]);
    assert!(inbound.entries.is_empty() && inbound.by_id.is_empty());
}

#[test]
fn a_session_that_is_forgotten_takes_its_ids_with_it() {
    let mut inbound = Inbound::default();
    inbound.opened(false);
    let one = new(inbound.publish(&message(1, 1, false), 10));
    inbound.opened(false);
    inbound.settled(one, true);
    assert!(inbound.entries.is_empty());
    new(inbound.publish(&message(1, 1, true), 10));
}

// MQTT-4.3.3-2
#[test]
fn qos_2_is_stored_once_until_it_is_released() {
    let mut inbound = Inbound::default();
    inbound.opened(false);
    let one = new(inbound.publish(&message(1, 2, false), 10));
    inbound.settled(one, true);
    assert_eq!(acks(&mut inbound), [(Ack::Received, 1)]);
    inbound.opened(true);
    assert_eq!(inbound.publish(&message(1, 2, true), 10), Arrival::Known);
    assert_eq!(acks(&mut inbound), [(Ack::Received, 1)]);
    inbound.released(1);
    let again = new(inbound.publish(&message(1, 2, false), 10));
    inbound.settled(again, true);
    acks(&mut inbound);
    // A broker that lost its last steps gives the id to another message.
    assert!(matches!(inbound.publish(&message(1, 2, false), 11), Arrival::Instead(_)));
}

#[test]
fn what_was_given_up_is_stored_when_it_comes_again() {
    let mut inbound = Inbound::default();
    inbound.opened(false);
    let one = new(inbound.publish(&message(1, 1, false), 10));
    inbound.settled(one, false);
    assert_eq!(acks(&mut inbound), []);
    inbound.opened(true);
    new(inbound.publish(&message(1, 1, true), 10));
}

/// What a broker and a store may do, in any order.
#[derive(Debug, Clone)]
enum Step {
    /// The broker sends the next message, if its window has room.
    Send(u8),
    /// The store settles one of those that it holds.
    Store(prop::sample::Index),
    /// The connection breaks; the broker sends all again that it holds, with DUP.
    Break,
    /// Acknowledgements reach the broker.
    Deliver,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u8..3).prop_map(Step::Send),
        4 => any::<prop::sample::Index>().prop_map(Step::Store),
        1 => Just(Step::Break),
        4 => Just(Step::Deliver),
    ]
}

/// A broker with a window of four packet ids.
#[derive(Default)]
struct Model {
    inbound: Inbound,
    /// Id, QoS, content, and with QoS 2 whether PUBREC came.
    sent: Vec<(u16, u8, u64, bool)>,
    storing: Vec<(u64, u64)>,
    stored: Vec<u64>,
    contents: u64,
}

impl Model {
    fn arrive(&mut self, id: u16, qos: u8, content: u64, dup: bool) {
        if let Arrival::New(ticket) = self.inbound.publish(&message(id, qos, dup), content) {
            self.storing.push((ticket, content));
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Send(qos) => {
                let used: HashSet<u16> = self.sent.iter().map(|sent| sent.0).collect();
                if let Some(id) = (1..=4).find(|id| !used.contains(id)) {
                    self.contents += 1;
                    self.sent.push((id, *qos, self.contents, false));
                    self.arrive(id, *qos, self.contents, false);
                }
            }
            Step::Store(which) if !self.storing.is_empty() => {
                let (ticket, content) = self.storing.swap_remove(which.index(self.storing.len()));
                self.stored.push(content);
                self.inbound.settled(ticket, true);
            }
            Step::Store(_) => {}
            Step::Break => {
                self.inbound.opened(true);
                for (id, qos, content, recorded) in self.sent.clone() {
                    if !recorded {
                        self.arrive(id, qos, content, true);
                    }
                }
            }
            Step::Deliver => self.deliver(),
        }
    }

    fn deliver(&mut self) {
        for (ack, id) in acks(&mut self.inbound) {
            let at = self.sent.iter().position(|sent| sent.0 == id).expect("an id that the broker uses");
            let (_, qos, content, _) = self.sent[at];
            assert!(self.stored.contains(&content), "acknowledged before it was stored");
            assert_eq!(ack == Ack::Received, qos == 2);
            let unanswered = self.sent.iter().position(|sent| !sent.3);
            assert_eq!(unanswered, Some(at), "not in the order of receipt");
            self.sent[at].3 = true;
            // PUBREL and PUBCOMP follow at once.
            self.inbound.released(id);
            self.sent.remove(at);
        }
    }
}

proptest! {
    // DUR-1, R21: acknowledged means stored, once, in order, over any breaks of the connection.
    #[test]
    fn any_schedule_stores_each_message_once(steps in prop::collection::vec(step(), 0..200)) {
        let mut model = Model::default();
        for step in &steps {
            model.step(step);
        }
        while let Some((ticket, content)) = model.storing.pop() {
            model.stored.push(content);
            model.inbound.settled(ticket, true);
        }
        model.deliver();
        prop_assert!(model.sent.is_empty());
        let mut stored = model.stored.clone();
        stored.sort_unstable();
        prop_assert_eq!(stored, (1..=model.contents).collect::<Vec<_>>());
        prop_assert!(model.inbound.entries.is_empty() && model.inbound.by_id.is_empty());
    }
}
