//! Whatever comes over a link, a member goes on.

use anylog_replica::message::{
    About, Body, DecodeError, File, Hello, Holdings, HoldingsOf, LARGEST, Message, Missing, Refused, Rows, RowsHeld,
    Run, Sealed, Want,
};
use anylog_replica::{Action, Config, Event, FileKey, FileSet, Member};
use proptest::collection::vec;
use proptest::prelude::*;

fn config() -> Config {
    Config { member: 1, cluster: "c".to_owned(), policy: "p".to_owned(), key: "k".to_owned() }
}

/// Numbers as they come, and as nobody would send them.
fn number() -> impl Strategy<Value = i64> {
    prop_oneof![8 => 1_i64..6, 1 => Just(0), 1 => any::<i64>()]
}

fn ordinal() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0_u64..20, 1 => any::<u64>()]
}

fn held() -> impl Strategy<Value = RowsHeld> {
    (number(), number(), ordinal()).prop_map(|(producer, file, ordinal)| RowsHeld { producer, file, ordinal })
}

fn file() -> impl Strategy<Value = File> {
    (number(), number()).prop_map(|(producer, file)| File { producer, file })
}

fn about() -> impl Strategy<Value = Option<About>> {
    proptest::option::of((0_u64..3).prop_map(|rows| About { rows, ..About::default() }))
}

fn holdings() -> impl Strategy<Value = Holdings> {
    let ranges = prop_oneof![
        9 => vec((1_i64..9, 0_i64..3), 0..3).prop_map(|r| r.into_iter().flat_map(|(first, more)| [first, first + more]).collect()),
        1 => vec(any::<i64>(), 0..5),
    ];
    let of = (number(), number(), ranges, vec(held(), 0..3), number(), number());
    let of = of.prop_map(|(producer, given, ranges, open, before, passed)| HoldingsOf {
        producer,
        given,
        ranges,
        open,
        before: if before < 5 { 0 } else { before },
        passed: if passed < 5 { 0 } else { passed },
    });
    vec(of, 0..4).prop_map(|of| Holdings { of })
}

fn body() -> impl Strategy<Value = Body> {
    let hello = (1_i64..6, 0_u8..8).prop_map(|(member, other)| Hello {
        version: 1,
        member,
        cluster: if other == 0 { "d" } else { "c" }.to_owned(),
        key: if other == 1 { "l" } else { "k" }.to_owned(),
        ..Hello::default()
    });
    let rows = (held(), ordinal(), about()).prop_map(|(held, previous, about)| Rows {
        producer: held.producer,
        file: held.file,
        about,
        previous,
        runs: vec![Run { first: held.ordinal, rows: vec!["{}".to_owned()], ..Run::default() }],
    });
    let sealed = (held(), about()).prop_map(|(held, about)| Sealed {
        producer: held.producer,
        file: held.file,
        ordinal: held.ordinal,
        about,
        ..Sealed::default()
    });
    prop_oneof![
        4 => hello.prop_map(Body::Hello),
        4 => holdings().prop_map(Body::Holdings),
        3 => file().prop_map(Body::Holds),
        3 => file().prop_map(Body::Offer),
        3 => (held(), ordinal()).prop_map(|(held, content)| {
            Body::Want(Want { producer: held.producer, file: held.file, offset: held.ordinal, content })
        }),
        2 => (file(), any::<bool>())
            .prop_map(|(file, lost)| Body::Missing(Missing { lost, ..Missing::of(file.into(), "none".to_owned()) })),
        4 => rows.prop_map(Body::Rows),
        4 => held().prop_map(Body::RowsHeld),
        3 => sealed.prop_map(Body::Sealed),
        3 => held().prop_map(Body::WantRows),
        1 => Just(Body::Refused(Refused { reason: "no".to_owned() })),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let mate = || 1_i64..6;
    let key = || (number(), number()).prop_map(|(producer, file)| FileKey { producer, file });
    let have = (vec((number(), vec(1_i64..9, 0..4)), 0..3), vec(held(), 0..3), number());
    prop_oneof![
        12 => (mate(), body()).prop_map(|(from, body)| Event::Received(from, body.into())),
        4 => mate().prop_map(Event::Up),
        1 => mate().prop_map(Event::Down),
        2 => Just(Event::Tick),
        1 => Just(Event::Look),
        1 => (any::<bool>(), any::<bool>(), 0_i64..2).prop_map(|(distributor, consumer, since)| Event::Set {
            distributor,
            consumer,
            since,
        }),
        1 => vec(mate(), 0..5).prop_map(Event::Mates),
        1 => (mate(), vec((number(), number()), 0..3)).prop_map(|(mate, first)| Event::Narrow { mate, first }),
        1 => have.prop_map(|(complete, open, given)| Event::Have {
            complete: complete.into_iter().map(|(producer, files)| (producer, files.into_iter().collect::<FileSet>())).collect(),
            open,
            given,
        }),
        1 => key().prop_map(Event::Opened),
        2 => held().prop_map(Event::Written),
        1 => (held(), 0_u64..3).prop_map(|(held, rows)| Event::Complete {
            sealed: Sealed { producer: held.producer, file: held.file, ordinal: held.ordinal, ..Sealed::default() },
            rows,
        }),
        2 => (any::<u8>(), key(), ordinal(), 0_u32..4).prop_map(|(token, file, ordinal, copies)| Event::Await {
            token: u64::from(token),
            file,
            ordinal,
            copies,
        }),
        1 => any::<u8>().prop_map(|token| Event::Withdraw(u64::from(token))),
        2 => (mate(), held()).prop_map(|(from, held)| Event::RowsStored { from, held }),
        1 => key().prop_map(Event::Arrived),
        2 => key().prop_map(Event::Stored),
        2 => (key(), proptest::option::of(mate())).prop_map(|(file, from)| Event::Failed { file, from, reason: "no".to_owned() }),
        2 => (mate(), key()).prop_map(|(from, file)| Event::RowsFailed { from, file }),
        2 => (mate(), held()).prop_map(|(to, sent)| Event::RowsSent { to, sent }),
        1 => (mate(), key()).prop_map(|(to, file)| Event::CannotSend { to, file, reason: "no".to_owned() }),
        1 => key().prop_map(Event::Lost),
    ]
}

/// Looks at everything that a member shows.
fn look(member: &Member) {
    for mate in member.mates() {
        assert!(mate.offered.len() <= 2 && mate.fetching.len() <= 4 && mate.sending.len() <= 16, "{mate:?}");
    }
    for producer in member.producers() {
        assert!(producer.consensus >= 0, "{producer:?}");
    }
    assert!(member.reachable() as usize <= 1 + member.mates().len());
}

proptest! {
    #[test]
    fn bytes_are_messages_or_an_error(bytes in vec(any::<u8>(), 0..300)) {
        if let Ok(message) = Message::from_bytes(&bytes) {
            let mut member = Member::new(config());
            for event in [Event::Mates(vec![2]), Event::Up(2), Event::Received(2, message)] {
                drop(member.handle(0, event));
            }
            look(&member);
        }
    }

    #[test]
    fn messages_come_back_from_bytes(body in body(), cut in 0_usize..40) {
        let message = Message::from(body);
        let bytes = message.to_bytes();
        prop_assert_eq!(Message::from_bytes(&bytes).unwrap(), message);
        // A part of a message is another one, or none.
        drop(Message::from_bytes(&bytes[..bytes.len().saturating_sub(cut)]));
    }

    #[test]
    fn no_event_brings_a_member_down(
        clock in vec(0_u64..700_000, 60),
        events in vec(event(), 1..60),
        greet in any::<bool>(),
    ) {
        let mut member = Member::new(config());
        let mut now = 0;
        let mut begin = vec![
            Event::Set { distributor: true, consumer: true, since: 0 },
            Event::Mates(vec![2, 3, 4]),
            Event::Up(2),
            Event::Up(3),
        ];
        if greet {
            for from in [2, 3] {
                let hello = Hello { version: 1, member: from, cluster: "c".to_owned(), ..Hello::default() };
                begin.push(Event::Received(from, Body::Hello(hello).into()));
                begin.push(Event::Received(from, Body::Holdings(Holdings::default()).into()));
            }
        }
        for (i, event) in begin.into_iter().chain(events).enumerate() {
            now += if i % 3 == 0 { clock[i % clock.len()] } else { 1 };
            let actions = member.handle(now, event);
            prop_assert!(actions.len() < 200, "{actions:?}");
            // Nothing is sent to who is not of the cluster.
            for action in &actions {
                if let Action::Send(to, _) | Action::Fetch { from: to, .. } | Action::SendFile { to, .. } = action {
                    prop_assert!((1..6).contains(to), "{action:?}");
                }
            }
            look(&member);
        }
    }
}

#[test]
fn a_message_that_is_too_long_is_not_read() {
    assert!(matches!(Message::from_bytes(&vec![0; LARGEST + 1]), Err(DecodeError::TooLong(_))));
    assert!(matches!(Message::from_bytes(&[0xff; 9]), Err(DecodeError::Malformed { .. })));
}

#[test]
fn a_member_with_a_million_gaps_is_heard_and_filled() {
    let ranges: Vec<i64> = (0..500_000).flat_map(|i| [60_000_000 + i * 4, 60_000_001 + i * 4]).collect();
    let of = HoldingsOf { producer: 2, given: 70_000_000, ranges, ..HoldingsOf::default() };
    let message = Message::from(Body::Holdings(Holdings { of: vec![of] }));
    let bytes = message.to_bytes();
    assert!(bytes.len() < LARGEST, "{} bytes", bytes.len());
    let mut member = Member::new(config());
    let hello = Hello { version: 1, member: 2, cluster: "c".to_owned(), ..Hello::default() };
    let mut actions = Vec::new();
    for event in [
        Event::Set { distributor: true, consumer: true, since: 0 },
        Event::Mates(vec![2]),
        Event::Up(2),
        Event::Received(2, Body::Hello(hello).into()),
        Event::Received(2, Message::from_bytes(&bytes).unwrap()),
    ] {
        actions.extend(member.handle(0, event));
    }
    // It is asked for file by file, and each next one is found without looking at all of them.
    let mut fetched = 0_i64;
    for _ in 0..20_000 {
        let next: Vec<FileKey> = actions
            .drain(..)
            .filter_map(|action| match action {
                Action::Fetch { want, .. } => Some(FileKey::from(want)),
                _ => None,
            })
            .collect();
        for file in next {
            fetched += 1;
            actions.extend(member.handle(1, Event::Arrived(file)));
            actions.extend(member.handle(1, Event::Stored(file)));
        }
    }
    assert!(fetched >= 20_000, "{fetched} files");
    // The next that is missing is the first that this member does not have.
    let missing = 60_000_000 + fetched / 2 * 4 + fetched % 2;
    assert_eq!(member.consensus(2), missing - 1);
}
