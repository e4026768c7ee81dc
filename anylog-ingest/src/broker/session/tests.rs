use super::*;

fn publish(id: u16, qos: u8, dup: bool, payload: &str) -> Incoming {
    let message = Message { topic: "t".into(), payload: payload.to_owned().into(), qos, ..Message::default() };
    Incoming::Publish { message, dup, id, alias: false }
}

fn connected() -> Session {
    let mut session = Session::new(Room::default());
    session.attach(Version::V4, u16::MAX, None);
    session
}

fn on(session: &mut Session, packet: Incoming) -> Vec<Action> {
    let mut actions = Vec::new();
    session.on_packet(packet, &mut actions);
    actions
}

fn settle(session: &mut Session, ticket: u64) -> Vec<Action> {
    let mut actions = Vec::new();
    session.settled(ticket, Outcome::Settled, &mut actions);
    actions
}

fn ticket(actions: &[Action]) -> u64 {
    match actions {
        [Action::Accept(Some(ticket), _)] => *ticket,
        other => panic!("expected one message to be accepted: {other:?}"),
    }
}

fn send(packet: Outgoing) -> Vec<Action> {
    vec![Action::Send(packet)]
}

fn message(payload: &str) -> Arc<Message> {
    Arc::new(Message { topic: "t".into(), payload: payload.to_owned().into(), qos: 2, ..Message::default() })
}

// DUR-1, MQTT-4.6.0-2
#[test]
fn acknowledgements_wait_for_the_store_and_keep_their_order() {
    let mut session = connected();
    let first = ticket(&on(&mut session, publish(1, 1, false, "a")));
    let second = ticket(&on(&mut session, publish(2, 1, false, "b")));
    let third = ticket(&on(&mut session, publish(3, 2, false, "c")));
    assert_eq!(settle(&mut session, second), []);
    assert_eq!(settle(&mut session, third), []);
    let all = [Outgoing::PubAck(1), Outgoing::PubAck(2), Outgoing::PubRec(3)].map(Action::Send);
    assert_eq!(settle(&mut session, first), all);
}

#[test]
fn a_message_of_qos_0_waits_for_nothing() {
    assert!(matches!(on(&mut connected(), publish(0, 0, false, "a")).as_slice(), [Action::Accept(None, _)]));
}

// MQTT-4.3.3-2
#[test]
fn qos_2_hands_a_message_on_once_until_its_release() {
    let mut session = connected();
    let first = ticket(&on(&mut session, publish(7, 2, false, "a")));
    assert_eq!(on(&mut session, publish(7, 2, true, "a")), [], "still being stored");
    assert_eq!(settle(&mut session, first), send(Outgoing::PubRec(7)));
    assert_eq!(on(&mut session, publish(7, 2, true, "a")), send(Outgoing::PubRec(7)));
    session.detach();
    session.attach(Version::V4, u16::MAX, None);
    assert_eq!(on(&mut session, publish(7, 2, true, "a")), send(Outgoing::PubRec(7)), "over a reconnect as well");
    assert_eq!(on(&mut session, Incoming::PubRel(7)), send(Outgoing::PubComp(7, true)));
    assert_eq!(on(&mut session, Incoming::PubRel(7)), send(Outgoing::PubComp(7, false)));
    ticket(&on(&mut session, publish(7, 2, false, "b")));
}

// R21
#[test]
fn a_redelivery_is_collapsed_as_long_as_it_has_no_acknowledgement() {
    let mut session = connected();
    let first = ticket(&on(&mut session, publish(1, 1, false, "a")));
    let second = ticket(&on(&mut session, publish(2, 1, false, "b")));
    settle(&mut session, second);
    session.detach();
    session.attach(Version::V4, u16::MAX, None);
    assert_eq!(on(&mut session, publish(1, 1, true, "a")), [], "still being stored: answered when that is done");
    assert_eq!(on(&mut session, publish(2, 1, true, "b")), send(Outgoing::PubAck(2)), "stored already");
    assert_eq!(settle(&mut session, first), send(Outgoing::PubAck(1)));
    ticket(&on(&mut session, publish(1, 1, true, "acknowledged: another message")));
}

// DUR-1
#[test]
fn an_old_result_does_not_acknowledge_a_new_message_of_the_same_id() {
    let mut session = connected();
    let old = ticket(&on(&mut session, publish(1, 1, false, "old")));
    session.detach();
    session.attach(Version::V4, u16::MAX, None);
    let new = ticket(&on(&mut session, publish(1, 1, false, "new")));
    assert_eq!(settle(&mut session, old), []);
    assert_eq!(settle(&mut session, new), send(Outgoing::PubAck(1)));
}

#[test]
fn what_was_given_up_is_accepted_when_it_comes_again() {
    let mut session = connected();
    let first = ticket(&on(&mut session, publish(1, 1, false, "a")));
    let second = ticket(&on(&mut session, publish(2, 1, false, "b")));
    settle(&mut session, second);
    let mut actions = Vec::new();
    session.settled(first, Outcome::Abandoned, &mut actions);
    assert_eq!(actions, send(Outgoing::PubAck(2)));
    ticket(&on(&mut session, publish(1, 1, true, "a")));
}

#[test]
fn pings_are_answered_whatever_waits() {
    let mut session = connected();
    for id in 1..1000 {
        on(&mut session, publish(id, 1, false, "x"));
    }
    assert_eq!(on(&mut session, Incoming::PingReq), send(Outgoing::PingResp));
}

// MQTT5 3.3.4-9, 3.3.2-2, 3.3.2-8
#[test]
fn breaches_of_the_protocol_close_the_connection() {
    let mut session = Session::new(Room::default());
    session.attach(Version::V5, u16::MAX, None);
    for id in 1..=RECEIVE_MAXIMUM {
        on(&mut session, publish(id, 1, false, "x"));
    }
    let closed = |actions: Vec<Action>| match actions.as_slice() {
        [Action::Close(Close::Violation(code, _))] => *code,
        other => panic!("{other:?}"),
    };
    assert_eq!(closed(on(&mut session, publish(RECEIVE_MAXIMUM + 1, 1, false, "x"))), 0x93);
    let wildcard = Message { topic: "a/+".into(), ..Message::default() };
    assert_eq!(
        closed(on(&mut session, Incoming::Publish { message: wildcard, dup: false, id: 0, alias: false })),
        0x90
    );
    assert_eq!(
        closed(on(&mut session, Incoming::Publish { message: Message::default(), dup: false, id: 0, alias: true })),
        0x94
    );
}

#[test]
fn the_window_bounds_what_is_in_flight() {
    let mut session = Session::new(Room::default());
    session.attach(Version::V5, 2, None);
    for n in 0..5 {
        assert!(session.deliver(message(&n.to_string()), 1, false));
    }
    let mut actions = Vec::new();
    session.fill(&mut actions);
    assert_eq!(actions.len(), 2);
    let next = on(&mut session, Incoming::PubAck(1));
    assert!(matches!(next.as_slice(), [Action::Send(Outgoing::Publish { id: 3, .. })]), "{next:?}");
    assert_eq!(on(&mut session, Incoming::PubAck(77)), []);
}

// MQTT-4.4.0-1
#[test]
fn what_is_in_flight_is_sent_again_after_a_reconnect() {
    let mut session = connected();
    session.deliver(message("a"), 1, false);
    session.deliver(message("b"), 2, false);
    session.deliver(message("c"), 2, false);
    let mut actions = Vec::new();
    session.fill(&mut actions);
    assert_eq!(on(&mut session, Incoming::PubRec(2, true)), send(Outgoing::PubRel(2, true)));
    session.detach();
    session.deliver(message("not kept"), 0, false);
    session.deliver(message("kept"), 1, false);
    let again = session.attach(Version::V4, u16::MAX, None);
    assert!(
        matches!(
            again.as_slice(),
            [
                Action::Send(Outgoing::Publish { id: 1, dup: true, .. }),
                Action::Send(Outgoing::PubRel(2, true)),
                Action::Send(Outgoing::Publish { id: 3, dup: true, .. })
            ]
        ),
        "{again:?}"
    );
    let mut actions = Vec::new();
    session.fill(&mut actions);
    assert!(matches!(actions.as_slice(), [Action::Send(Outgoing::Publish { id: 4, dup: false, .. })]), "{actions:?}");
    assert_eq!(on(&mut session, Incoming::PubComp(2)), []);
    assert_eq!(session.dropped(), 1);
}

// R23
#[test]
fn what_waits_for_a_client_is_bounded() {
    let mut session = connected();
    session.detach();
    let big = Arc::new(Message { payload: vec![0; 1024 * 1024].into(), ..Message::default() });
    let taken = (0..20).filter(|_| session.deliver(Arc::clone(&big), 1, false)).count();
    assert!(taken < 8, "{taken}");
    assert_eq!(session.dropped(), 20 - u64::try_from(taken).unwrap());
}

#[test]
fn subscriptions_are_answered_one_by_one() {
    let mut session = connected();
    let filter =
        |path: &str, qos| Filter { path: path.into(), options: SubscribeOptions { qos, ..Default::default() } };
    let actions = on(
        &mut session,
        Incoming::Subscribe { id: 9, filters: vec![filter("a/#", 2), filter("a/#/b", 0), filter("$share/g/a", 1)] },
    );
    assert!(
        matches!(actions.as_slice(), [Action::Send(Outgoing::SubAck(9, codes)), Action::Subscribe { existed: false, .. }] if codes == &[2, 0x80, 0x80]),
        "{actions:?}"
    );
    let actions = on(&mut session, Incoming::Unsubscribe { id: 10, filters: vec!["a/#".into(), "b".into()] });
    assert_eq!(actions, [Action::Unsubscribe("a/#".into()), Action::Send(Outgoing::UnsubAck(10, vec![0, 0x11]))]);
}

// R23
#[test]
fn what_waits_for_all_clients_is_bounded_and_freed() {
    let room = Room::default();
    let big = Arc::new(Message { payload: vec![0; 4 * 1024 * 1024].into(), ..Message::default() });
    let mut sessions: Vec<Session> = (0..100).map(|_| Session::new(room.clone())).collect();
    sessions.iter_mut().for_each(|session| drop(session.attach(Version::V4, u16::MAX, None)));
    let taken =
        sessions.iter_mut().filter_map(|session| session.deliver(Arc::clone(&big), 1, false).then_some(())).count();
    assert!((20..32).contains(&taken), "{taken}");
    assert!(room.used() <= MAX_QUEUES_BYTES);
    let first = &mut sessions[0];
    first.fill(&mut Vec::new());
    let before = room.used();
    assert_eq!(on(first, Incoming::PubAck(1)), []);
    assert_eq!(room.used(), before - big.cost());
    drop(sessions);
    assert_eq!(room.used(), 0);
}

fn kept(sessions: impl IntoIterator<Item = (u64, u8, bool)>, received: impl IntoIterator<Item = u16>) -> Session {
    let waiting = |(sequence, qos, taken)| {
        let waiting = Waiting { message: message(&format!("{sequence}")), qos, retain: false, taken };
        (sequence, waiting)
    };
    let kept = Kept {
        queue: sessions.into_iter().map(waiting).collect(),
        received: received.into_iter().collect(),
        ..Kept::default()
    };
    Session::restore(Room::default(), &kept)
}

// A restart: what waits keeps its packet ids, in order; what may have been sent says so; releases come again.
#[test]
fn a_kept_session_goes_on_where_it_was() {
    let mut session = kept([(65_533, 1, false), (65_534, 2, true), (65_535, 2, false)], []);
    let mut actions = session.attach(Version::V4, u16::MAX, None);
    session.fill(&mut actions);
    assert!(
        matches!(
            actions.as_slice(),
            [
                Action::Send(Outgoing::PubRel(65_535, true)),
                Action::Send(Outgoing::Publish { id: 65_534, dup: true, qos: 1, .. }),
                Action::Send(Outgoing::Publish { id: 1, dup: true, qos: 2, .. })
            ]
        ),
        "{actions:?}"
    );
    assert_eq!(on(&mut session, Incoming::PubAck(65_534)), [Action::Note(Change::Done(65_533))]);
    assert_eq!(on(&mut session, Incoming::PubComp(65_535)), [Action::Note(Change::Done(65_534))]);
    let taken = Action::Confirm(vec![Change::Taken(65_535)], Outgoing::PubRel(1, true));
    assert_eq!(on(&mut session, Incoming::PubRec(1, true)), [taken], "PUBREL waits until it is written");
    assert_eq!(session.reserve(&message("next")), Some(65_536));
    session.deliver_reserved(65_536, message("next"), 1, false);
    let mut actions = Vec::new();
    session.fill(&mut actions);
    assert!(matches!(actions.as_slice(), [Action::Send(Outgoing::Publish { id: 2, dup: false, .. })]), "{actions:?}");
}

// DUR-2, MQTT-4.3.3-2: after a restart a packet that comes again is looked at once more, and its parts that are done are not repeated;
// one that does not say that it comes again is another message.
#[test]
fn a_packet_that_comes_again_after_a_restart_is_known() {
    let mut session = kept([], [5, 6]);
    session.attach(Version::V5, u16::MAX, None);
    let again = ticket(&on(&mut session, publish(5, 2, true, "a")));
    assert_eq!(session.packet(again), Some(Packet { id: 5, dup: true, routed: true }));
    assert_eq!(settle(&mut session, again), send(Outgoing::PubRec(5)));
    assert_eq!(on(&mut session, publish(5, 2, true, "a")), send(Outgoing::PubRec(5)));
    let other = ticket(&on(&mut session, publish(6, 2, false, "b")));
    assert_eq!(session.packet(other), Some(Packet { id: 6, dup: false, routed: false }));
    let unknown = ticket(&on(&mut session, publish(7, 2, true, "c")));
    assert_eq!(session.packet(unknown), Some(Packet { id: 7, dup: true, routed: false }));
    session.booked(7);
    assert_eq!(on(&mut session, Incoming::PubRel(5)), [Action::Release { id: 5, booked: true }]);
    assert_eq!(on(&mut session, Incoming::PubRel(5)), [Action::Release { id: 5, booked: true }], "until it is written");
    let mut actions = Vec::new();
    session.released(5, &mut actions);
    session.released(9, &mut actions);
    assert_eq!(actions, [Outgoing::PubComp(5, true), Outgoing::PubComp(9, false)].map(Action::Send));
    let next = ticket(&on(&mut session, publish(5, 2, true, "d")));
    assert_eq!(
        session.packet(next),
        Some(Packet { id: 5, dup: true, routed: false }),
        "the id means another message now"
    );
}

#[test]
fn subscriptions_of_a_kept_session_are_answered_when_they_are_written() {
    let mut session = kept([], []);
    session.attach(Version::V4, u16::MAX, None);
    let filter = Filter { path: "a".into(), options: SubscribeOptions::default() };
    let actions = on(&mut session, Incoming::Subscribe { id: 1, filters: vec![filter] });
    assert!(
        matches!(&actions[0], Action::Confirm(changes, Outgoing::SubAck(1, _)) if matches!(&changes[..], [Change::Subscribed(f, _)] if f == "a")),
        "{actions:?}"
    );
    let actions = on(&mut session, Incoming::Unsubscribe { id: 2, filters: vec!["a".into(), "b".into()] });
    assert!(matches!(&actions[1], Action::Confirm(changes, _) if changes == &[Change::Unsubscribed("a".into())]));
}

// MQTT5 3.3.2-5, 3.3.2-6
#[test]
fn messages_expire_while_they_wait_and_tell_what_is_left() {
    let at = |seconds| Timestamp::from_second(seconds).unwrap();
    let mut session = Session::new(Room::default());
    session.tell_time(at(0));
    session.attach(Version::V5, u16::MAX, None);
    let expiring = |seconds| {
        let mut message = Message { topic: "t".into(), qos: 1, ..Message::default() };
        message.properties.get_or_insert_with(Box::default).message_expiry_interval = Some(seconds);
        message.begin(at(0));
        Arc::new(message)
    };
    for seconds in [10, 100] {
        session.deliver(expiring(seconds), 1, false);
    }
    session.tell_time(at(10));
    let mut actions = Vec::new();
    session.fill(&mut actions);
    let [Action::Send(Outgoing::Publish { message, .. })] = actions.as_slice() else { panic!("{actions:?}") };
    assert_eq!(message.properties.as_ref().unwrap().message_expiry_interval, Some(90));
    assert_eq!(session.dropped(), 1);
}

// R23
#[test]
fn filters_are_bounded_in_bytes_and_freed() {
    let room = Room::default();
    let filter = |n: usize| {
        let path = format!("{n}/{}", "x/".repeat(100));
        Filter { path, options: SubscribeOptions::default() }
    };
    let mut sessions: Vec<Session> = (0..8).map(|_| Session::new(room.clone())).collect();
    let mut accepted = 0;
    for session in &mut sessions {
        session.attach(Version::V4, u16::MAX, None);
        for n in 0..1000 {
            let actions = on(session, Incoming::Subscribe { id: 1, filters: vec![filter(n)] });
            accepted += actions.iter().filter(|action| matches!(action, Action::Subscribe { .. })).count();
        }
    }
    assert!(room.filters() <= MAX_FILTER_BYTES && room.filters() > MAX_FILTER_BYTES - 60_000, "{}", room.filters());
    assert!((1500..4000).contains(&accepted), "{accepted}");
    let before = room.filters();
    on(&mut sessions[0], Incoming::Unsubscribe { id: 2, filters: vec![filter(0).path, filter(0).path] });
    assert_eq!(room.filters(), before - filter_cost(&filter(0).path));
    drop(sessions);
    assert_eq!(room.filters(), 0);
}

// R23
#[test]
fn packets_without_release_are_bounded() {
    let room = Room::default();
    room.0.received.store(MAX_RECEIVED, Ordering::Relaxed);
    let mut session = Session::new(room.clone());
    session.attach(Version::V4, u16::MAX, None);
    for id in 1..=64 {
        let stored = ticket(&on(&mut session, publish(id, 2, false, "x")));
        settle(&mut session, stored);
    }
    let actions = on(&mut session, publish(65, 2, false, "x"));
    assert!(matches!(actions.as_slice(), [Action::Close(Close::Violation(0x97, _))]), "{actions:?}");
    assert_eq!(room.received(), MAX_RECEIVED + 64);
    drop(session);
    assert_eq!(room.received(), MAX_RECEIVED);
}

mod schedules {
    //! Random schedules of a client that follows the standard, and of one that forgets its state.

    use std::collections::{BTreeMap, HashMap, HashSet};

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Publish {
            qos: u8,
        },
        /// The store is done with one of the messages that it holds.
        Settle {
            which: usize,
            outcome: bool,
        },
        /// The connection breaks and comes back; the client sends again what it has no acknowledgement for, or has forgotten it.
        Reconnect {
            forgets: bool,
        },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1u8..=2).prop_map(|qos| Step::Publish { qos }),
            4 => (any::<usize>(), prop::bool::weighted(0.9)).prop_map(|(which, outcome)| Step::Settle { which, outcome }),
            1 => prop::bool::weighted(0.3).prop_map(|forgets| Step::Reconnect { forgets }),
        ]
    }

    #[derive(Debug, Default)]
    struct World {
        next_content: u32,
        /// Messages of the client without acknowledgement, by packet id: quality and content.
        unacknowledged: BTreeMap<u16, (u8, u32)>,
        /// What the store holds, by ticket.
        storing: BTreeMap<u64, u32>,
        stored: HashSet<u32>,
        handed_on: HashMap<u32, usize>,
        given_up: HashSet<u32>,
        forgot: bool,
    }

    impl World {
        fn packet(id: u16, qos: u8, dup: bool, content: u32) -> Incoming {
            publish(id, qos, dup, &content.to_string())
        }

        /// Plays the client's part for what the session sends.
        fn see(&mut self, session: &mut Session, actions: Vec<Action>) -> Result<(), TestCaseError> {
            for action in actions {
                match action {
                    Action::Accept(Some(ticket), message) => {
                        let content: u32 = std::str::from_utf8(&message.payload).unwrap().parse().unwrap();
                        self.storing.insert(ticket, content);
                        *self.handed_on.entry(content).or_default() += 1;
                    }
                    Action::Send(Outgoing::PubAck(id)) => {
                        if let Some((qos, content)) = self.unacknowledged.remove(&id) {
                            prop_assert_eq!(qos, 1);
                            // DUR-1: acknowledged is stored.
                            prop_assert!(self.stored.contains(&content), "{} acknowledged, not stored", content);
                        }
                    }
                    Action::Send(Outgoing::PubRec(id)) => {
                        if let Some((_, content)) = self.unacknowledged.remove(&id) {
                            // A client that forgot its state may meet the memory of its former self; then QoS 2 says nothing.
                            prop_assert!(
                                self.forgot || self.stored.contains(&content),
                                "{} received, not stored",
                                content
                            );
                        }
                        let released = on(session, Incoming::PubRel(id));
                        prop_assert_eq!(released, send(Outgoing::PubComp(id, true)));
                    }
                    other => prop_assert!(false, "unexpected {:?}", other),
                }
            }
            Ok(())
        }

        fn play(&mut self, session: &mut Session, step: Step) -> Result<(), TestCaseError> {
            match step {
                Step::Publish { qos } => {
                    let Some(id) = (1..=8).find(|id| !self.unacknowledged.contains_key(id)) else { return Ok(()) };
                    self.next_content += 1;
                    self.unacknowledged.insert(id, (qos, self.next_content));
                    let actions = on(session, Self::packet(id, qos, false, self.next_content));
                    self.see(session, actions)
                }
                Step::Settle { which, outcome } => {
                    let Some((&ticket, &content)) = self.storing.iter().nth(which % self.storing.len().max(1)) else {
                        return Ok(());
                    };
                    self.storing.remove(&ticket);
                    if outcome {
                        self.stored.insert(content)
                    } else {
                        self.given_up.insert(content)
                    };
                    let outcome = if outcome { Outcome::Settled } else { Outcome::Abandoned };
                    let mut actions = Vec::new();
                    session.settled(ticket, outcome, &mut actions);
                    self.see(session, actions)
                }
                Step::Reconnect { forgets } => {
                    session.detach();
                    let actions = session.attach(Version::V4, u16::MAX, None);
                    self.see(session, actions)?;
                    if forgets {
                        self.unacknowledged.clear();
                        self.forgot = true;
                    }
                    for (id, (qos, content)) in self.unacknowledged.clone() {
                        let actions = on(session, Self::packet(id, qos, true, content));
                        self.see(session, actions)?;
                    }
                    Ok(())
                }
            }
        }
    }

    proptest! {
        // DUR-1, R21
        #[test]
        fn acknowledged_is_stored_and_redelivery_is_collapsed(steps in proptest::collection::vec(step(), 1..80)) {
            let (mut session, mut world) = (connected(), World::default());
            for step in steps {
                world.play(&mut session, step)?;
            }
            if !world.forgot {
                for (content, times) in &world.handed_on {
                    prop_assert!(*times == 1 || world.given_up.contains(content), "{} handed on {} times", content, times);
                }
            }
        }
    }
}
