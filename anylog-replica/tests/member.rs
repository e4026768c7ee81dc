//! The rules of a member, one by one.

use anylog_replica::message::{Body, Hello, Holdings, HoldingsOf, Message, Missing, Rows, RowsHeld, Sealed, Want};
use anylog_replica::{Action, Config, Event, FileKey, FileSet, Member};

fn file(producer: i64, file: i64) -> FileKey {
    FileKey { producer, file }
}

fn hello(member: i64) -> Hello {
    Hello { version: 1, member, cluster: "c".to_owned(), key: format!("key {member}"), ..Hello::default() }
}

fn of(producer: i64, ranges: &[i64]) -> HoldingsOf {
    HoldingsOf { producer, ranges: ranges.to_vec(), ..HoldingsOf::default() }
}

/// Member 1 with the mates 2 and 3.
struct Test {
    member: Member,
    now: u64,
}

impl Test {
    fn new() -> Self {
        let config = Config { member: 1, cluster: "c".to_owned(), policy: "p".to_owned(), key: "key 1".to_owned() };
        let mut test = Self { member: Member::new(config), now: 0 };
        test.tell(Event::Set { distributor: true, consumer: true, since: 0 });
        test.tell(Event::Mates(vec![2, 3]));
        test
    }

    fn tell(&mut self, event: Event) -> Vec<Action> {
        self.member.handle(self.now, event)
    }

    fn hear(&mut self, from: i64, body: Body) -> Vec<Action> {
        self.tell(Event::Received(from, body.into()))
    }

    /// A mate comes, and says what it has.
    fn comes(&mut self, mate: i64, of: Vec<HoldingsOf>) -> Vec<Action> {
        self.tell(Event::Up(mate));
        self.hear(mate, Body::Hello(hello(mate)));
        self.hear(mate, Body::Holdings(Holdings { of }))
    }

    fn after(&mut self, millis: u64) -> Vec<Action> {
        self.now += millis;
        self.tell(Event::Tick)
    }

    fn have(&mut self, complete: &[(i64, &[i64])], open: Vec<RowsHeld>, given: i64) {
        let set = |pairs: &[i64]| FileSet::from_pairs(pairs).expect("ranges");
        let complete = complete.iter().map(|(producer, pairs)| (*producer, set(pairs))).collect();
        self.tell(Event::Have { complete, open, given });
    }
}

fn fetched(actions: &[Action]) -> Vec<(i64, FileKey)> {
    let fetch = |action: &Action| match action {
        Action::Fetch { from, want } => Some((*from, FileKey::from(*want))),
        _ => None,
    };
    actions.iter().filter_map(fetch).collect()
}

fn sent(actions: &[Action]) -> Vec<(i64, &Body)> {
    let send = |action: &'_ Action| match action {
        Action::Send(to, Message { body: Some(_) }) => Some(*to),
        _ => None,
    };
    let bodies = actions.iter().filter_map(|action| match action {
        Action::Send(_, Message { body: Some(body) }) => Some(body),
        _ => None,
    });
    actions.iter().filter_map(send).zip(bodies).collect()
}

fn offered(actions: &[Action]) -> Vec<(i64, FileKey)> {
    let offer = |(to, body): (i64, &Body)| match body {
        Body::Offer(file) => Some((to, FileKey::from(*file))),
        _ => None,
    };
    sent(actions).into_iter().filter_map(offer).collect()
}

#[test]
fn what_is_missing_is_asked_of_its_producer_first_and_of_two_files_at_once() {
    let mut test = Test::new();
    let actions = test.comes(2, vec![of(3, &[1, 5])]);
    assert_eq!(fetched(&actions), [(2, file(3, 1)), (2, file(3, 2))], "the producer is not there");
    let actions = test.comes(3, vec![of(3, &[1, 9])]);
    assert_eq!(fetched(&actions), [(3, file(3, 3)), (3, file(3, 4))]);
    // What arrived leaves room to the next; what is stored is told to all.
    assert_eq!(fetched(&test.tell(Event::Arrived(file(3, 3)))), [(3, file(3, 5))]);
    let actions = test.tell(Event::Stored(file(3, 3)));
    let holds = Body::Holds(file(3, 3).into());
    assert_eq!(sent(&actions), [(2, &holds), (3, &holds)]);
    // R6: what was under way on a link that is gone is asked of another one.
    assert_eq!(fetched(&test.tell(Event::Down(3))), []);
    assert_eq!(fetched(&test.tell(Event::Stored(file(3, 1)))), [(2, file(3, 4))]);
    let missing = test.member.producers().into_iter().find(|of| of.producer == 3).unwrap().missing;
    assert_eq!(missing, FileSet::from_pairs(&[2, 2, 4, 9]).unwrap());
}

#[test]
fn a_consumer_that_does_not_run_takes_what_is_offered() {
    let mut test = Test::new();
    test.tell(Event::Set { distributor: false, consumer: false, since: 0 });
    assert_eq!(fetched(&test.comes(2, vec![of(2, &[1, 5])])), []);
    assert_eq!(fetched(&test.hear(2, Body::Offer(file(2, 4).into()))), [(2, file(2, 4))]);
}

// R19: a file that cannot be had is parked, named, and tried again; the others go on.
#[test]
fn a_file_that_cannot_be_had_is_parked_and_does_not_stop_the_others() {
    let mut test = Test::new();
    let mut actions = test.comes(2, vec![of(2, &[1, 40])]);
    let mut parked = Vec::new();
    // The first comes never, and all others at once.
    for _ in 0..60 {
        let mut next = Vec::new();
        for (_, file) in fetched(&actions) {
            let failed = Body::Missing(Missing::of(file, "unreadable".to_owned()));
            next.extend(if file.file == 1 { test.hear(2, failed) } else { test.tell(Event::Stored(file)) });
        }
        next.extend(test.after(1_000));
        parked.extend(next.iter().filter(|action| matches!(action, Action::Park { .. })).cloned());
        actions = next;
    }
    assert_eq!(parked, [Action::Park { file: file(2, 1), reason: "unreadable".to_owned() }]);
    let view = test.member.producers().into_iter().find(|of| of.producer == 2).unwrap();
    assert_eq!(view.complete, FileSet::from_pairs(&[2, 40]).unwrap());
    assert_eq!(view.parked.iter().map(|parked| (parked.file, parked.tries)).collect::<Vec<_>>(), [(file(2, 1), 3)]);
    // After five minutes, or at once when another one has it.
    assert_eq!(fetched(&test.after(300_000)), [(2, file(2, 1))]);
    for _ in 0..3 {
        test.hear(2, Body::Missing(Missing::of(file(2, 1), "unreadable".to_owned())));
        test.after(5_000);
    }
    test.comes(3, vec![]);
    assert_eq!(fetched(&test.hear(3, Body::Holds(file(2, 1).into()))), [(3, file(2, 1))]);
}

#[test]
fn own_files_are_offered_in_order_and_what_is_declined_waits() {
    let mut test = Test::new();
    test.have(&[(1, &[1, 9])], vec![], 9);
    let actions = test.comes(2, vec![of(1, &[2, 3])]);
    assert_eq!(offered(&actions), [(2, file(1, 1)), (2, file(1, 4))]);
    assert_eq!(offered(&test.hear(2, Body::Holds(file(1, 1).into()))), [(2, file(1, 5))]);
    let actions = test.hear(2, Body::Missing(Missing::of(file(1, 4), "the disk is full".to_owned())));
    assert_eq!(offered(&actions), [(2, file(1, 6))]);
    let want = Want { producer: 1, file: 5, offset: 7, content: 1 };
    assert_eq!(test.hear(2, Body::Want(want)), [Action::SendFile { to: 2, want }]);
    test.hear(2, Body::Holds(file(1, 5).into()));
    for number in 6..=9 {
        test.hear(2, Body::Holds(file(1, number).into()));
    }
    assert_eq!(offered(&test.after(1_000)), []);
    assert_eq!(offered(&test.after(300_000)), [(2, file(1, 4))]);
    // A file that is not here cannot be given.
    let actions = test.hear(2, Body::Want(Want { producer: 1, file: 77, offset: 0, content: 0 }));
    assert!(matches!(sent(&actions)[..], [(2, Body::Missing(_))]), "{actions:?}");
}

// DUR-3
#[test]
fn a_message_is_acknowledged_when_enough_members_have_its_rows() {
    let mut test = Test::new();
    test.comes(2, vec![]);
    test.comes(3, vec![]);
    test.tell(Event::Opened(file(1, 1)));
    let actions = test.tell(Event::Written(file(1, 1).held(5)));
    let after = file(1, 1).held(0);
    assert_eq!(actions, [Action::SendRows { to: 2, after }, Action::SendRows { to: 3, after }]);
    let wait = |token, ordinal, copies| Event::Await { token, file: file(1, 1), ordinal, copies };
    assert_eq!(test.tell(wait(1, 5, 1)), [Action::Acknowledge(1)]);
    assert_eq!(test.tell(wait(2, 5, 2)), []);
    assert_eq!(test.tell(wait(3, 5, 3)), []);
    assert_eq!(test.tell(wait(4, 6, 2)), []);
    assert_eq!(test.hear(2, Body::RowsHeld(file(1, 1).held(4))), []);
    assert_eq!(test.hear(2, Body::RowsHeld(file(1, 1).held(5))), [Action::Acknowledge(2)]);
    // A copy that was wiped counts no more.
    test.tell(Event::Down(2));
    test.comes(2, vec![]);
    assert_eq!(test.hear(3, Body::RowsHeld(file(1, 1).held(5))), []);
    let actions = test.hear(2, Body::RowsHeld(file(1, 1).held(5)));
    assert!(actions.contains(&Action::Acknowledge(3)), "{actions:?}");
    // Not before it is here too.
    assert_eq!(test.hear(2, Body::RowsHeld(file(1, 1).held(6))), []);
    test.hear(2, Body::RowsHeld(file(1, 1).held(5)));
    // What is withdrawn is not acknowledged; and a mate that has the file completely has all rows.
    test.tell(wait(5, 6, 2));
    test.tell(Event::Withdraw(5));
    test.tell(Event::Written(file(1, 1).held(6)));
    let actions = test.hear(3, Body::Holds(file(1, 1).into()));
    assert!(actions.contains(&Action::Acknowledge(4)) && !actions.contains(&Action::Acknowledge(5)), "{actions:?}");
}

#[test]
fn rows_under_way_are_bounded_and_sent_again_from_where_the_mate_stands() {
    let mut test = Test::new();
    test.comes(2, vec![]);
    test.tell(Event::Opened(file(1, 1)));
    let mut actions = test.tell(Event::Written(file(1, 1).held(100)));
    for sent in 1..=4 {
        let after = file(1, 1).held(sent - 1);
        assert_eq!(actions, [Action::SendRows { to: 2, after }]);
        actions = test.tell(Event::RowsSent { to: 2, sent: file(1, 1).held(sent) });
    }
    assert_eq!(actions, [], "four messages are under way");
    assert_eq!(
        test.hear(2, Body::RowsHeld(file(1, 1).held(1))),
        [Action::SendRows { to: 2, after: file(1, 1).held(4) }]
    );
    test.tell(Event::RowsSent { to: 2, sent: file(1, 1).held(5) });
    // It did not take them: it goes back, once for all that were under way.
    test.now += 2_000;
    assert_eq!(
        test.hear(2, Body::RowsHeld(file(1, 1).held(1))),
        [Action::SendRows { to: 2, after: file(1, 1).held(1) }]
    );
    assert_eq!(test.hear(2, Body::RowsHeld(file(1, 1).held(1))), []);
    assert_eq!(test.hear(2, Body::RowsHeld(file(1, 1).held(1))), []);
    // A mate that says nothing is sent them again.
    for sent in 2..=5 {
        test.tell(Event::RowsSent { to: 2, sent: file(1, 1).held(sent) });
    }
    assert_eq!(test.after(5_000), []);
    assert_eq!(test.after(60_000), [Action::SendRows { to: 2, after: file(1, 1).held(1) }]);
}

#[test]
fn a_copy_with_all_rows_is_sealed_and_another_one_is_fetched() {
    let mut test = Test::new();
    test.comes(2, vec![HoldingsOf { open: vec![file(2, 1).held(3), file(2, 2).held(3)], given: 2, ..of(2, &[]) }]);
    for number in [1, 2] {
        let rows = Rows { producer: 2, file: number, ..Rows::default() };
        assert_eq!(test.hear(2, Body::Rows(rows.clone())), [Action::StoreRows { from: 2, rows }]);
    }
    let actions = test.tell(Event::RowsStored { from: 2, held: file(2, 1).held(3) });
    assert_eq!(sent(&actions), [(2, &Body::RowsHeld(file(2, 1).held(3)))]);
    let about = anylog_replica::message::About { rows: 3, ..Default::default() };
    let sealed =
        |number| Sealed { producer: 2, file: number, ordinal: 3, about: Some(about.clone()), ..Sealed::default() };
    assert_eq!(test.hear(2, Body::Sealed(sealed(1))), [Action::Seal(sealed(1))]);
    // Rows that are being stored are waited for.
    assert_eq!(test.hear(2, Body::Sealed(sealed(2))), []);
    let actions = test.tell(Event::RowsStored { from: 2, held: file(2, 2).held(2) });
    assert_eq!(fetched(&actions), [(2, file(2, 2))]);
    // A copy that cannot be sealed is fetched too.
    let actions = test.tell(Event::Failed { file: file(2, 1), from: None, reason: "rows differ".to_owned() });
    assert_eq!(fetched(&actions), [(2, file(2, 1))]);
}

/// What this member said that it has of producer 2, by mates.
fn told(actions: &[Action]) -> Vec<(i64, Vec<i64>, Vec<RowsHeld>)> {
    let told = |(to, body): (i64, &Body)| match body {
        Body::Holdings(Holdings { of }) => {
            let of = of.iter().find(|of| of.producer == 2).cloned().unwrap_or_default();
            Some((to, of.ranges, of.open))
        }
        _ => None,
    };
    sent(actions).into_iter().filter_map(told).collect()
}

// DUR-3, DUR-6: a producer that lost its disk seals the longest copy that it is told of; no copy becomes longer afterwards.
#[test]
fn a_mate_is_told_what_is_here_when_what_was_under_way_of_its_files_ended() {
    let mut test = Test::new();
    test.comes(2, vec![HoldingsOf { open: vec![file(2, 1).held(5)], given: 1, ..of(2, &[]) }]);
    let rows = |number| Rows { producer: 2, file: number, ..Rows::default() };
    test.hear(2, Body::Rows(rows(1)));
    test.hear(2, Body::Rows(rows(1)));
    let about = anylog_replica::message::About { rows: 5, ..Default::default() };
    let sealed = Sealed { producer: 2, file: 1, ordinal: 5, about: Some(about), ..Sealed::default() };
    assert_eq!(test.hear(2, Body::Sealed(sealed.clone())), []);
    // The mate comes again, perhaps on an empty disk; another one is told at once.
    test.tell(Event::Up(2));
    assert_eq!(told(&test.hear(2, Body::Hello(hello(2)))), []);
    test.tell(Event::Up(3));
    assert_eq!(told(&test.hear(3, Body::Hello(hello(3)))), [(3, vec![], vec![])]);
    assert_eq!(told(&test.after(60_000)), []);
    // Also when it was looked what is here.
    let have = Event::Have { complete: vec![], open: vec![file(2, 1).held(1)], given: 0 };
    assert_eq!(told(&test.tell(have)), [(3, vec![], vec![file(2, 1).held(1)])]);
    assert_eq!(told(&test.tell(Event::RowsStored { from: 2, held: file(2, 1).held(3) })), []);
    let actions = test.tell(Event::RowsStored { from: 2, held: file(2, 1).held(5) });
    assert!(actions.contains(&Action::Seal(sealed)), "{actions:?}");
    assert_eq!(told(&actions), [], "the copy is being sealed");
    let actions = test.tell(Event::Stored(file(2, 1)));
    assert_eq!(told(&actions), [(2, vec![1, 1], vec![])]);
    assert_eq!(told(&test.after(1_000)), [], "once is enough");
}

#[test]
fn a_mate_is_told_what_is_here_when_what_was_under_way_failed_and_new_work_does_not_hold_it() {
    let mut test = Test::new();
    test.comes(2, vec![HoldingsOf { open: vec![file(2, 1).held(5)], given: 9, ..of(2, &[7, 7]) }]);
    test.tell(Event::Up(3));
    test.hear(3, Body::Hello(hello(3)));
    let rows = |number| Rows { producer: 2, file: number, ..Rows::default() };
    test.hear(2, Body::Rows(rows(1)));
    test.hear(3, Body::Rows(rows(2)));
    test.tell(Event::Arrived(file(2, 7)));
    test.tell(Event::Up(2));
    assert_eq!(told(&test.hear(2, Body::Hello(hello(2)))), []);
    // More of the same file comes from another one.
    test.hear(3, Body::Rows(rows(2)));
    test.hear(3, Body::Rows(rows(1)));
    let failed = |number, from| Event::Failed { file: file(2, number), from: Some(from), reason: "full".to_owned() };
    assert_eq!(told(&test.tell(Event::RowsFailed { from: 2, file: file(2, 1) })), []);
    assert_eq!(told(&test.tell(Event::RowsStored { from: 3, held: file(2, 2).held(4) })), [], "file 7 is being stored");
    assert_eq!(told(&test.tell(failed(7, 2))), [(2, vec![], vec![file(2, 2).held(4)])]);
}

// R19: rows that cannot be stored are no failure of the whole file, which comes from the same mate.
#[test]
fn rows_that_fail_do_not_end_the_fetch_of_their_file() {
    let mut test = Test::new();
    test.comes(3, vec![HoldingsOf { open: vec![file(2, 1).held(5)], ..of(2, &[]) }]);
    test.hear(3, Body::Rows(Rows { producer: 2, file: 1, ..Rows::default() }));
    assert_eq!(fetched(&test.hear(3, Body::Holds(file(2, 1).into()))), [(3, file(2, 1))]);
    assert_eq!(test.tell(Event::RowsFailed { from: 3, file: file(2, 1) }), []);
    assert_eq!(test.member.mates()[1].fetching, [file(2, 1)]);
    let failed = Event::Failed { file: file(2, 1), from: Some(3), reason: "full".to_owned() };
    assert!(matches!(sent(&test.tell(failed))[..], [(3, Body::Missing(_))]));
    assert_eq!(test.member.mates()[1].fetching, []);
}

#[test]
fn open_files_whose_producer_is_away_are_named() {
    let mut test = Test::new();
    test.have(&[], vec![file(2, 1).held(5), file(1, 4).held(1)], 4);
    test.after(1_000);
    test.after(6_000);
    assert_eq!(test.member.orphans(), [(file(2, 1).held(5), 7_000)]);
    test.comes(2, vec![HoldingsOf { open: vec![file(2, 1).held(5)], ..of(2, &[]) }]);
    assert_eq!(test.member.orphans(), []);
    test.tell(Event::Down(2));
    test.after(2_000);
    assert_eq!(test.member.orphans(), [(file(2, 1).held(5), 2_000)]);
    test.tell(Event::Stored(file(2, 1)));
    assert_eq!(test.member.orphans(), []);
}

#[test]
fn a_producer_without_its_disk_adopts_the_longest_copy_of_all_mates() {
    let mut test = Test::new();
    let open = |ordinal| HoldingsOf { open: vec![file(1, 7).held(ordinal)], ..of(1, &[1, 5]) };
    let actions = test.comes(2, vec![open(4)]);
    assert!(actions.contains(&Action::NumberFrom(1_007)), "{actions:?}");
    let want = Body::WantRows(file(1, 7).held(0));
    assert!(sent(&actions).contains(&(2, &want)), "{actions:?}");
    for number in 1..=5 {
        test.tell(Event::Stored(file(1, number)));
    }
    let rows = Rows { producer: 1, file: 7, ..Rows::default() };
    assert_eq!(test.hear(2, Body::Rows(rows.clone())), [Action::StoreRows { from: 2, rows: rows.clone() }]);
    let actions = test.tell(Event::RowsStored { from: 2, held: file(1, 7).held(4) });
    assert!(!actions.contains(&Action::Adopt(file(1, 7))), "member 3 was not heard: {actions:?}");
    assert_eq!(test.member.unheard(), [3]);
    assert!(!test.after(3_600_000).contains(&Action::Adopt(file(1, 7))));
    let actions = test.comes(3, vec![open(6)]);
    assert_eq!(sent(&actions), [(3, &Body::WantRows(file(1, 7).held(4)))]);
    test.hear(3, Body::Rows(rows));
    let actions = test.tell(Event::RowsStored { from: 3, held: file(1, 7).held(6) });
    assert!(actions.contains(&Action::Adopt(file(1, 7))), "{actions:?}");
    // Those who follow it are told that it is sealed.
    let sealed = Sealed { producer: 1, file: 7, ordinal: 6, ..Sealed::default() };
    let actions = test.tell(Event::Complete { sealed, rows: 6 });
    assert_eq!(sent(&actions).iter().filter(|(_, body)| matches!(body, Body::Sealed(_))).count(), 2, "{actions:?}");
}

#[test]
fn survivors_bring_an_orphan_to_one_length() {
    let mut test = Test::new();
    test.have(&[], vec![file(3, 1).held(2)], 0);
    test.comes(3, vec![HoldingsOf { open: vec![file(3, 1).held(9)], given: 1, ..of(3, &[]) }]);
    assert_eq!(sent(&test.comes(2, vec![HoldingsOf { open: vec![file(3, 1).held(5)], ..of(3, &[]) }])), []);
    let actions = test.tell(Event::Down(3));
    // The mate is told how much is here, and asked for what is not.
    let bodies = [Body::RowsHeld(file(3, 1).held(2)), Body::WantRows(file(3, 1).held(2))];
    assert_eq!(sent(&actions), [(2, &bodies[0]), (2, &bodies[1])]);
    // And who asks is answered.
    let actions = test.hear(2, Body::WantRows(file(3, 1).held(0)));
    assert_eq!(actions, [Action::SendRows { to: 2, after: file(3, 1).held(0) }]);
}

// R22
#[test]
fn nodes_that_are_not_who_they_should_be_are_refused() {
    let mut test = Test::new();
    let conflict = |actions: &[Action], with: i64, word: &str| {
        let refused =
            |(to, body): &(i64, &Body)| *to == with && matches!(body, Body::Refused(r) if r.reason.contains(word));
        let said = |action: &Action| matches!(action, Action::Conflict { with: w, reason } if *w == with && reason.contains(word));
        assert!(sent(actions).iter().any(refused) && actions.iter().any(said), "{word}: {actions:?}");
    };
    test.tell(Event::Up(2));
    conflict(&test.hear(2, Body::Hello(Hello { cluster: "d".to_owned(), ..hello(2) })), 2, "cluster 'd'");
    test.tell(Event::Up(2));
    conflict(&test.hear(2, Body::Hello(hello(3))), 2, "wrong address");
    test.tell(Event::Up(2));
    conflict(&test.hear(2, Body::Hello(hello(1))), 2, "itself");
    test.tell(Event::Up(2));
    conflict(
        &test.hear(2, Body::Hello(Hello { key: "other".to_owned(), ..hello(1) })),
        2,
        "two nodes have the number 1",
    );
    assert!(test.member.mates()[0].refused.is_some());
    // Another node with the number of a mate that is linked; on an empty disk it is let in when the link is gone.
    test.comes(2, vec![]);
    let other = Hello { key: "other".to_owned(), ..hello(2) };
    assert!(test.member.objection(&other).is_some() && test.member.objection(&hello(2)).is_none());
    test.tell(Event::Up(2));
    conflict(&test.hear(2, Body::Hello(other.clone())), 2, "two nodes have the number 2");
    test.tell(Event::Down(2));
    test.tell(Event::Up(2));
    assert!(test.member.objection(&other).is_none());
    let actions = test.hear(2, Body::Hello(other));
    assert!(matches!(sent(&actions)[..], [(2, Body::Holdings(_))]), "{actions:?}");
    assert!(test.member.mates()[0].refused.is_none());
}

#[test]
fn a_member_that_keeps_only_the_newest_is_not_filled_with_the_old() {
    let mut test = Test::new();
    test.have(&[(1, &[1, 9]), (3, &[1, 4])], vec![], 9);
    test.tell(Event::Up(2));
    // Member 2 asked for a time from which on files 6 of member 1 and 3 of member 3 are.
    test.tell(Event::Narrow { mate: 2, first: vec![(1, 6), (3, 3)] });
    let actions = test.hear(2, Body::Hello(Hello { since: 99, ..hello(2) }));
    let [(2, Body::Holdings(told))] = &sent(&actions)[..] else { panic!("{actions:?}") };
    let told: Vec<_> = told.of.iter().map(|of| (of.producer, of.before, of.ranges.clone())).collect();
    assert_eq!(told, [(1, 5, vec![6, 9]), (3, 2, vec![3, 4])]);
    // It says that it does not want them, and they count as held by it.
    let actions = test.hear(2, Body::Holdings(Holdings { of: vec![HoldingsOf { passed: 5, ..of(1, &[6, 6]) }] }));
    assert_eq!(offered(&actions), [(2, file(1, 7)), (2, file(1, 8))]);
    test.comes(3, vec![of(1, &[1, 9])]);
    assert_eq!(test.member.consensus(1), 6);

    // And the other way round.
    let mut test = Test::new();
    test.tell(Event::Set { distributor: true, consumer: true, since: 99 });
    let actions = test.comes(2, vec![HoldingsOf { before: 5, given: 7, ..of(2, &[6, 7]) }]);
    assert_eq!(fetched(&actions), [(2, file(2, 6)), (2, file(2, 7))]);
    let [(2, Body::Holdings(told))] = &sent(&actions)[..] else { panic!("{actions:?}") };
    assert_eq!(told.of.iter().map(|of| (of.producer, of.passed)).collect::<Vec<_>>(), [(1, 0), (2, 5)]);
}

#[test]
fn consensus_counts_what_exists_and_stops_at_open_files() {
    let mut test = Test::new();
    test.have(&[(1, &[1, 3, 5, 9])], vec![file(1, 10).held(3)], 12);
    assert_eq!(test.member.consensus(1), 0, "nobody else was heard");
    test.comes(2, vec![of(1, &[1, 3, 5, 9])]);
    test.comes(3, vec![of(1, &[1, 3, 5, 7, 9, 9])]);
    // 4 does not exist, and 8 is missing at a mate.
    assert_eq!(test.member.consensus(1), 7);
    test.hear(3, Body::Holds(file(1, 8).into()));
    assert_eq!(test.member.consensus(1), 9, "10 is open");
    // The last word of a mate counts while it is away.
    test.tell(Event::Down(3));
    assert_eq!(test.member.consensus(1), 9);
    // A gap may be an open file of a producer that was not heard; not of one that belongs to the cluster no more.
    test.have(&[(4, &[1, 2, 4, 5]), (3, &[1, 1, 3, 3])], vec![], 12);
    for mate in [2, 3] {
        test.comes(mate, vec![of(4, &[1, 2, 4, 5]), of(3, &[1, 1, 3, 3])]);
    }
    assert_eq!((test.member.consensus(4), test.member.consensus(3)), (5, 1));
    test.comes(3, vec![HoldingsOf { given: 3, ..of(3, &[1, 1, 3, 3]) }, of(4, &[1, 2, 4, 5])]);
    assert_eq!(test.member.consensus(3), 3);
}

#[test]
fn a_file_that_came_to_nothing_goes_everywhere() {
    let mut test = Test::new();
    test.comes(2, vec![]);
    test.tell(Event::Opened(file(1, 1)));
    test.tell(Event::Written(file(1, 1).held(2)));
    test.tell(Event::Await { token: 1, file: file(1, 1), ordinal: 2, copies: 2 });
    let sealed = Sealed { producer: 1, file: 1, ordinal: 2, ..Sealed::default() };
    let actions = test.tell(Event::Complete { sealed, rows: 0 });
    assert!(actions.contains(&Action::Acknowledge(1)), "{actions:?}");
    assert!(matches!(sent(&actions)[..], [(2, Body::Sealed(_))]), "{actions:?}");
    // A mate that has rows of it is told, and not asked for them.
    let actions = test.comes(3, vec![HoldingsOf { open: vec![file(1, 1).held(2)], ..of(1, &[]) }]);
    assert!(matches!(sent(&actions)[..], [(3, Body::Sealed(_))]), "{actions:?}");
    assert_eq!(test.member.consensus(1), 1);
}

#[test]
fn a_file_that_is_fetched_anew_counts_as_missing_until_it_is_there() {
    let mut test = Test::new();
    test.have(&[(1, &[1, 2])], vec![], 2);
    test.comes(2, vec![of(1, &[1, 2])]);
    test.comes(3, vec![of(1, &[1, 2])]);
    assert_eq!(test.member.consensus(1), 2);
    let actions = test.tell(Event::Lost(file(1, 2)));
    assert_eq!(fetched(&actions).len(), 1, "{actions:?}");
    let lost = sent(&actions).iter().filter(|(_, body)| matches!(body, Body::Missing(m) if m.lost)).count();
    assert_eq!((lost, test.member.consensus(1)), (2, 1));
    test.tell(Event::Stored(file(1, 2)));
    assert_eq!(test.member.consensus(1), 2);
    // A mate that lost one is offered it.
    let lost = Missing { lost: true, ..Missing::of(file(1, 1), "anew".to_owned()) };
    assert_eq!(offered(&test.hear(2, Body::Missing(lost))), [(2, file(1, 1))]);
}

#[test]
fn what_changes_while_it_is_looked_what_is_here_is_not_forgotten() {
    let mut test = Test::new();
    test.have(&[(1, &[1, 2]), (2, &[1, 1])], vec![file(1, 3).held(2), file(1, 4).held(2), file(2, 2).held(1)], 4);
    test.comes(2, vec![of(1, &[1, 2]), of(2, &[1, 3])]);
    test.tell(Event::Written(file(1, 4).held(2)));
    test.tell(Event::Look);
    let sealed = |number| Sealed { producer: 1, file: number, ordinal: 2, ..Sealed::default() };
    test.tell(Event::Complete { sealed: sealed(3), rows: 2 });
    test.tell(Event::Written(file(1, 4).held(9)));
    test.tell(Event::Opened(file(1, 5)));
    test.tell(Event::Stored(file(2, 2)));
    test.tell(Event::Lost(file(1, 2)));
    // It was read before all that.
    test.have(&[(1, &[1, 2]), (2, &[1, 1])], vec![file(1, 3).held(2), file(1, 4).held(2), file(2, 2).held(1)], 4);
    let view = |test: &Test, of: i64| {
        test.member.producers().into_iter().find(|view| view.producer == of).expect("known").complete
    };
    assert_eq!(view(&test, 1), FileSet::from_pairs(&[1, 1, 3, 3]).unwrap());
    assert_eq!(view(&test, 2), FileSet::from_pairs(&[1, 2]).unwrap());
    let actions = test.tell(Event::Await { token: 1, file: file(1, 4), ordinal: 9, copies: 1 });
    assert_eq!(actions, [Action::Acknowledge(1)]);
}

#[test]
fn who_is_not_of_the_cluster_gets_nothing() {
    let mut test = Test::new();
    assert_eq!(test.tell(Event::Up(9)), []);
    assert_eq!(test.hear(9, Body::Hello(hello(9))), []);
    assert_eq!(test.hear(9, Body::Holdings(Holdings { of: vec![of(9, &[1, 3])] })), []);
    assert_eq!(test.hear(9, Body::Want(Want { producer: 1, file: 1, offset: 0, content: 0 })), []);
    // The ledger came late.
    let actions = test.tell(Event::Mates(vec![2, 3, 9]));
    assert!(matches!(sent(&actions)[..], [(9, Body::Hello(_)), (9, Body::Holdings(_))]), "{actions:?}");
    assert_eq!(fetched(&actions), [(9, file(9, 1)), (9, file(9, 2))]);
    assert_eq!(test.member.reachable(), 2);
}
