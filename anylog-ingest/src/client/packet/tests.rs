use proptest::prelude::*;

use super::*;
use crate::broker::codec::frame;

fn one(bytes: &[u8]) -> BytesMut {
    frame(&mut BytesMut::from(bytes), MAX_PACKET_BYTES).unwrap().expect("a whole packet")
}

fn hello() -> Hello<'static> {
    Hello { client_id: "anylog1", login: Some(("ann", "secret")), keep_alive: 30 }
}

// R4: the session lasts.
#[test]
fn connect_asks_for_a_lasting_session_in_both_versions() {
    let mut out = BytesMut::new();
    connect(Version::V4, hello(), &mut out).unwrap();
    let read = crate::broker::codec::connect(one(&out)).unwrap();
    assert!(!read.clean && read.client_id == "anylog1" && read.keep_alive == 30);
    let mut out = BytesMut::new();
    connect(Version::V5, hello(), &mut out).unwrap();
    let read = crate::broker::codec::connect(one(&out)).unwrap();
    assert!(!read.clean && read.session_expiry == u32::MAX && read.receive_maximum == RECEIVE_MAXIMUM);
}

#[test]
fn subscribe_is_read_by_a_broker_in_both_versions() {
    for version in [Version::V4, Version::V5] {
        let mut out = BytesMut::new();
        subscribe(version, 7, &[("a/#", 1), ("b", 2)], &mut out).unwrap();
        let crate::broker::codec::Incoming::Subscribe { id, filters } =
            crate::broker::codec::decode(version, one(&out)).unwrap()
        else {
            panic!("not a SUBSCRIBE");
        };
        let filters: Vec<_> = filters.into_iter().map(|filter| (filter.path, filter.options.qos)).collect();
        assert_eq!((id, filters), (7, vec![("a/#".to_owned(), 1), ("b".to_owned(), 2)]));
    }
}

#[test]
fn a_connack_is_read_with_or_without_properties() {
    let ack = |code, session_present, keep_alive, reason: Option<&str>| Incoming::ConnAck {
        session_present,
        code,
        keep_alive,
        reason: reason.map(str::to_owned),
    };
    assert_eq!(decode(Version::V5, one(&[0x20, 2, 0, 1])).unwrap(), ack(1, false, None, None));
    assert_eq!(decode(Version::V5, one(&[0x20, 3, 1, 0, 0])).unwrap(), ack(0, true, None, None));
    let all = [0x20, 13, 0, 0x86, 10, 0x13, 0, 9, 0x24, 1, 0x1f, 0, 2, b'n', b'o'];
    assert_eq!(decode(Version::V5, one(&all)).unwrap(), ack(0x86, false, Some(9), Some("no")));
}

#[test]
fn codes_of_a_suback_are_read_in_both_versions() {
    let ack = Incoming::SubAck { id: 3, codes: vec![1, 0x80] };
    assert_eq!(decode(Version::V4, one(&[0x90, 4, 0, 3, 1, 0x80])).unwrap(), ack);
    assert_eq!(decode(Version::V5, one(&[0x90, 5, 0, 3, 0, 1, 0x80])).unwrap(), ack);
}

#[test]
fn a_goodbye_says_why() {
    let goodbye = |code| Incoming::Disconnect { code, reason: None };
    assert_eq!(decode(Version::V5, one(&[0xe0, 0])).unwrap(), goodbye(0));
    assert_eq!(decode(Version::V5, one(&[0xe0, 1, 0x8e])).unwrap(), goodbye(0x8e));
    assert!(farewell(0x8e).contains("client id"));
    assert!(decode(Version::V4, one(&[0xe0, 0])).is_err());
}

#[test]
fn a_publish_with_qos_needs_a_packet_id() {
    assert!(decode(Version::V4, one(&[0x32, 5, 0, 1, b'a', 0, 0])).is_err());
    let Incoming::Publish(publish) = decode(Version::V4, one(&[0x3a, 6, 0, 1, b'a', 0, 9, b'x'])).unwrap() else {
        panic!("not a PUBLISH");
    };
    assert_eq!((publish.id, publish.qos, publish.dup, publish.topic.as_str()), (9, 1, true, "a"));
}

proptest! {
    // Nothing that a broker sends makes the node panic.
    #[test]
    fn any_bytes_are_a_packet_or_an_error(first in any::<u8>(), rest in prop::collection::vec(any::<u8>(), 0..100)) {
        let mut bytes = vec![first, u8::try_from(rest.len()).unwrap()];
        bytes.extend(rest);
        for version in [Version::V4, Version::V5] {
            drop(decode(version, one(&bytes)));
        }
    }
}
