use std::collections::BTreeSet;
use std::fs;

use bytes::Bytes;
use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::broker::codec::SubscribeOptions;
use crate::broker::message::Message;

fn wait(book: &Book, records: Vec<Record>) -> Result<(), BookError> {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    book.submit(records, move |result| sender.send(result).unwrap());
    receiver.recv().unwrap()
}

fn open(directory: &Path) -> (Book, State, Vec<Damage>) {
    let mut damages = Vec::new();
    let (book, state) = Book::open(directory, |damage| damages.push(damage.clone())).unwrap();
    (book, state, damages)
}

fn session(number: usize) -> Record {
    Record::Session { client: number.to_string().into(), expiry: 60, ends: None }
}

fn numbers(state: &State) -> BTreeSet<u64> {
    state.sessions.keys().map(|client| client.parse().unwrap()).collect()
}

fn files(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A book of two generations: sessions 0 to 2 in the copy of the second, 3 to 5 behind it.
fn two_generations(directory: &Path) -> (Vec<u8>, usize) {
    for half in [0..3, 3..6] {
        let (book, _, _) = open(directory);
        half.for_each(|number| wait(&book, vec![session(number)]).unwrap());
        book.close();
    }
    assert_eq!(files(directory), ["0000000001.broker", "0000000002.broker"]);
    let bytes = fs::read(directory.join("0000000002.broker")).unwrap();
    let mut copied = 0;
    while !record::read_frame(&bytes[copied..]).unwrap().0.contains(&Record::Complete) {
        copied += record::read_frame(&bytes[copied..]).unwrap().1;
    }
    let copied = copied + record::read_frame(&bytes[copied..]).unwrap().1;
    (bytes, copied)
}

// R8, R9, DUR-4: any byte may be wrong: the book opens and names the place. In the copy that a file begins with it costs nothing,
// because the file before is there; behind it costs the change that it is in.
#[test]
fn every_flipped_byte_costs_one_change_at_most() {
    let directory = tempfile::tempdir().unwrap();
    let (bytes, copied) = two_generations(directory.path());
    let change = (bytes.len() - copied) / 3;
    let file = directory.path().join("0000000002.broker");
    for at in 0..bytes.len() {
        for flip in [0x01, 0xFF] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            fs::write(&file, damaged).unwrap();
            let found = files::read(directory.path()).unwrap();
            let hurt = (at >= copied).then(|| 3 + ((at - copied) / change) as u64);
            let expected = (0..6).filter(|number| Some(*number) != hurt).collect();
            assert_eq!(numbers(&found.state), expected, "byte {at} flipped by {flip:#x}");
            assert_eq!((found.damages.len(), found.damages[0].replaced), (1, at < copied));
            assert_eq!(found.damages[0].file, "0000000002.broker");
        }
    }
}

#[test]
fn every_truncation_keeps_the_changes_before_it() {
    let directory = tempfile::tempdir().unwrap();
    let (bytes, copied) = two_generations(directory.path());
    let change = (bytes.len() - copied) / 3;
    for length in 0..bytes.len() {
        fs::write(directory.path().join("0000000002.broker"), &bytes[..length]).unwrap();
        let found = files::read(directory.path()).unwrap();
        let whole = 3 + length.saturating_sub(copied) as u64 / change as u64;
        assert_eq!(numbers(&found.state), (0..whole).collect(), "{length} bytes");
    }
}

// R9: NULs after power loss, a file that is gone, a directory full of rubbish.
#[test]
fn whatever_lies_there_the_book_opens_and_says_so_once() {
    let directory = tempfile::tempdir().unwrap();
    let (mut bytes, _) = two_generations(directory.path());
    bytes.extend([0; 4096]);
    fs::write(directory.path().join("0000000002.broker"), &bytes).unwrap();
    fs::write(directory.path().join("0000000003.broker.tmp"), "half a copy").unwrap();
    fs::write(directory.path().join("notes"), "").unwrap();
    let (book, state, damages) = open(directory.path());
    assert_eq!((numbers(&state).len(), damages.len(), damages[0].at_end), (6, 1, true));
    book.close();
    let (book, state, damages) = open(directory.path());
    assert_eq!((numbers(&state).len(), damages.len()), (6, 0));
    wait(&book, vec![session(6)]).unwrap();
    book.close();
    for file in files(directory.path()) {
        fs::write(directory.path().join(file), "rubbish").unwrap();
    }
    let (book, state, damages) = open(directory.path());
    assert_eq!((numbers(&state).len(), damages.len()), (0, 2));
    wait(&book, vec![session(7)]).unwrap();
    book.close();
    assert_eq!(numbers(&open(directory.path()).1), [7].into());
}

#[test]
fn changes_that_outweigh_the_state_begin_a_new_file() {
    let directory = tempfile::tempdir().unwrap();
    let (book, _, _) = open(directory.path());
    let message = |byte: u8| {
        let payload = Bytes::from(vec![byte; 1 << 20]);
        let message = Message { topic: "t".into(), payload, retain: true, ..Message::default() };
        vec![Record::Message(Arc::new(message)), Record::Retained]
    };
    for byte in 0..40 {
        wait(&book, message(byte)).unwrap();
    }
    book.close();
    assert!(book.bytes() < 10 << 20, "{} bytes", book.bytes());
    let names = files(directory.path());
    assert_eq!(names.len(), 2, "the newest and the one before: {names:?}");
    let (_, state, _) = open(directory.path());
    assert_eq!(state.retained["t"].payload[0], 39);
}

// DUR-5: nothing is acknowledged that is not written; when the disk works again, so does the book.
#[test]
fn a_disk_that_fails_is_an_error_until_it_works_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("broker");
    fs::write(&path, "in the way").unwrap();
    assert!(Book::open(&path, |_| {}).is_err());
    fs::remove_file(&path).unwrap();
    let (book, _, _) = open(&path);
    wait(&book, vec![session(0)]).unwrap();
    book.close();
    let (book, _, _) = open(&path);
    fs::remove_dir_all(&path).unwrap();
    fs::write(&path, "in the way").unwrap();
    let error = wait(&book, vec![session(1)]).unwrap_err();
    assert!(error.to_string().contains("broker"), "{error}");
    // Nobody waits for this, so it has happened.
    book.note(session(2));
    fs::remove_file(&path).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while wait(&book, vec![session(3)]).is_err() {
        assert!(Instant::now() < deadline, "the disk works again");
        std::thread::yield_now();
    }
    book.close();
    assert_eq!(numbers(&open(&path).1), [0, 2, 3].into());
    assert_eq!(wait(&book, vec![]), Err(BookError::Closed));
}

fn change() -> impl Strategy<Value = Vec<Record>> {
    let client = || (0..3u8).prop_map(|number| Arc::<str>::from(format!("c{number}")));
    let message = (0..3u8, any::<u8>()).prop_map(|(topic, byte)| {
        let payload = Bytes::from(vec![byte]);
        Record::Message(Arc::new(Message { topic: format!("t{topic}"), payload, ..Message::default() }))
    });
    let queued = |client: Arc<str>, sequence| Record::Queued { client, sequence, qos: 2, retain: false };
    prop_oneof![
        (client(), proptest::option::of(1i64..9)).prop_map(|(client, ends)| {
            let ends = ends.map(|ends| Timestamp::from_second(ends).unwrap());
            vec![Record::Session { client, expiry: 9, ends }]
        }),
        client().prop_map(|client| vec![Record::Ended(client)]),
        (client(), 0..3u8).prop_map(|(client, n)| vec![Record::Subscribed(
            client,
            format!("f{n}"),
            SubscribeOptions::default()
        )]),
        (client(), 0..3u8).prop_map(|(client, n)| vec![Record::Unsubscribed(client, format!("f{n}"))]),
        (message.clone(), client(), client(), 0..5u64, any::<u16>()).prop_map(
            move |(message, a, b, sequence, packet)| {
                vec![message, queued(Arc::clone(&a), sequence), queued(b, sequence), Record::Received(a, packet)]
            }
        ),
        message.prop_map(|message| vec![message, Record::Retained]),
        (0..3u8).prop_map(|topic| vec![Record::Removed(format!("t{topic}"))]),
        (client(), 0..5u64).prop_map(|(client, sequence)| vec![Record::Done(client, sequence)]),
        (client(), 0..5u64).prop_map(|(client, sequence)| vec![Record::Taken(client, sequence)]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    // What is read is the sum of all changes; a copy of it says the same, and reading changes over their own sum changes nothing.
    #[test]
    fn the_state_is_the_sum_of_the_changes(changes in proptest::collection::vec(change(), 0..60)) {
        let mut state = State::default();
        changes.iter().for_each(|records| state.apply(records));
        let mut copy = State::default();
        state
            .copy(|frame| {
                let (records, length) = record::read_frame(frame).unwrap();
                assert_eq!(length, frame.len());
                copy.apply(&records);
                Ok::<(), ()>(())
            })
            .unwrap();
        prop_assert_eq!(&copy, &state);
        state
            .copy(|frame| {
                copy.apply(&record::read_frame(frame).unwrap().0);
                Ok::<(), ()>(())
            })
            .unwrap();
        prop_assert_eq!(&copy, &state);
    }

    #[test]
    fn what_was_told_to_be_written_is_read(changes in proptest::collection::vec(change(), 0..30), breaks in any::<[u8; 2]>()) {
        let directory = tempfile::tempdir().unwrap();
        let mut state = State::default();
        let (mut book, _, _) = open(directory.path());
        for (at, records) in changes.iter().enumerate() {
            if breaks.iter().any(|place| usize::from(*place) % 30 == at) {
                book.close();
                book = open(directory.path()).0;
            }
            wait(&book, records.clone()).unwrap();
            state.apply(records);
        }
        // As after a kill: the thread is not asked to end.
        prop_assert_eq!(files::read(directory.path()).unwrap().state, state);
    }
}
