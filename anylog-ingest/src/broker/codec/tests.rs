use std::sync::Arc;

use proptest::prelude::*;

use super::*;

fn one(bytes: &[u8]) -> Result<Option<BytesMut>, CodecError> {
    frame(&mut BytesMut::from(bytes), MAX_PACKET_BYTES)
}

fn message(topic: &str, payload: &[u8]) -> Message {
    Message {
        topic: topic.into(),
        payload: Bytes::copy_from_slice(payload),
        qos: 1,
        retain: true,
        ..Message::default()
    }
}

#[test]
fn frames_are_cut_where_packets_end() {
    let mut buffer = BytesMut::from(&[0xc0, 0, 0x40, 2, 0, 1, 0x30][..]);
    assert_eq!(frame(&mut buffer, 100).unwrap().unwrap()[..], [0xc0, 0]);
    assert_eq!(frame(&mut buffer, 100).unwrap().unwrap()[..], [0x40, 2, 0, 1]);
    assert_eq!(frame(&mut buffer, 100).unwrap(), None);
}

#[test]
fn lengths_beyond_the_bound_are_refused_before_their_bytes_come() {
    assert_eq!(one(&[0x30, 0xff, 0xff, 0xff, 0x7f]), Err(CodecError::TooLarge(268_435_455 + 5)));
    // 2.2.3: the remaining length has at most four bytes.
    assert!(matches!(one(&[0x30, 0xff, 0xff, 0xff, 0xff, 1]), Err(CodecError::Malformed(_))));
}

#[test]
fn connect_tells_the_version() {
    let v4 = [0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 1, b'a'];
    let connected = connect(BytesMut::from(&v4[..])).unwrap();
    assert_eq!((connected.version, connected.client_id.as_str(), connected.keep_alive), (Version::V4, "a", 60));
    let v5 = [0x10, 14, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 60, 0, 0, 1, b'a'];
    assert_eq!(connect(BytesMut::from(&v5[..])).unwrap().version, Version::V5);
    let old = [0x10, 12, 0, 6, b'M', b'Q', b'I', b's', b'd', b'p', 3, 2, 0, 60];
    assert!(matches!(connect(BytesMut::from(&old[..])), Err(CodecError::Protocol { level: 3, .. })));
    // MQTT-3.1.2-3: the reserved connect flag is zero.
    let mut reserved = v4;
    reserved[9] |= 1;
    assert!(matches!(connect(BytesMut::from(&reserved[..])), Err(CodecError::Malformed(_))));
}

#[test]
fn reserved_flags_and_zero_ids_are_refused() {
    for bytes in
        [&[0x41u8, 2, 0, 1][..], &[0x60, 2, 0, 1], &[0x80, 6, 0, 1, 0, 1, b'a', 0], &[0x40, 2, 0, 0], &[0x40, 1, 1]]
    {
        for version in [Version::V4, Version::V5] {
            assert!(decode(version, BytesMut::from(bytes)).is_err(), "{bytes:?}");
        }
    }
}

#[test]
fn short_forms_of_version_5_are_read() {
    assert_eq!(decode(Version::V5, BytesMut::from(&[0xe0, 0][..])), Ok(Incoming::Disconnect { will: false }));
    assert_eq!(decode(Version::V5, BytesMut::from(&[0xe0, 1, 4][..])), Ok(Incoming::Disconnect { will: true }));
    assert_eq!(decode(Version::V5, BytesMut::from(&[0x40, 3, 0, 7, 0x10][..])), Ok(Incoming::PubAck(7)));
    assert_eq!(decode(Version::V5, BytesMut::from(&[0x50, 3, 0, 7, 0x97][..])), Ok(Incoming::PubRec(7, false)));
}

#[test]
fn what_is_written_another_codec_reads() {
    let publish =
        |id| Outgoing::Publish { message: Arc::new(message("a/b", b"xyz")), qos: 1, retain: true, dup: true, id };
    let mut out = BytesMut::new();
    for packet in
        [publish(7), Outgoing::SubAck(3, vec![0, 1, 0x80]), Outgoing::UnsubAck(4, vec![0]), Outgoing::PubRel(5, true)]
    {
        assert!(encode(Version::V4, &packet, &mut out));
    }
    let v4::Packet::Publish(read) = v4::Packet::read(&mut out, 1000).unwrap() else { panic!("PUBLISH") };
    assert_eq!(
        (read.topic.as_str(), read.pkid, read.dup, read.retain, &read.payload[..]),
        ("a/b", 7, true, true, &b"xyz"[..])
    );
    assert!(matches!(v4::Packet::read(&mut out, 1000), Ok(v4::Packet::SubAck(ack)) if ack.return_codes.len() == 3));
    assert!(matches!(v4::Packet::read(&mut out, 1000), Ok(v4::Packet::UnsubAck(ack)) if ack.pkid == 4));
    assert!(matches!(v4::Packet::read(&mut out, 1000), Ok(v4::Packet::PubRel(rel)) if rel.pkid == 5));
    let connack = Outgoing::ConnAck { session_present: true, assigned_id: Some("x".into()), session_expiry: Some(9) };
    for packet in [
        connack,
        publish(8),
        Outgoing::PubComp(9, false),
        Outgoing::UnsubAck(4, vec![0x11]),
        Outgoing::Disconnect(0x8e),
    ] {
        assert!(encode(Version::V5, &packet, &mut out));
    }
    let v5::Packet::ConnAck(read) = v5::Packet::read(&mut out, None).unwrap() else { panic!("CONNACK") };
    assert_eq!(read.properties.unwrap().assigned_client_identifier.as_deref(), Some("x"));
    assert!(
        matches!(v5::Packet::read(&mut out, None), Ok(v5::Packet::Publish(p)) if p.pkid == 8 && p.payload == "xyz")
    );
    assert!(matches!(v5::Packet::read(&mut out, None), Ok(v5::Packet::PubComp(p)) if p.pkid == 9));
    assert!(matches!(v5::Packet::read(&mut out, None), Ok(v5::Packet::UnsubAck(_))));
    assert!(matches!(v5::Packet::read(&mut out, None), Ok(v5::Packet::Disconnect(_))));
    assert!(out.is_empty());
}

proptest! {
    #[test]
    fn garbage_is_an_error_never_a_panic(bytes in any::<Vec<u8>>()) {
        let mut buffer = BytesMut::from(&bytes[..]);
        while let Ok(Some(packet)) = frame(&mut buffer, 1 << 20) {
            drop(connect(packet.clone()));
            drop(decode(Version::V4, packet.clone()));
            drop(decode(Version::V5, packet));
        }
    }

    #[test]
    fn damaged_packets_are_never_a_panic(
        kind in 1u8..16, flags in 0u8..16, body in proptest::collection::vec(prop_oneof![0u8..8, any::<u8>()], 0..60),
    ) {
        let mut packet = BytesMut::from(&[kind << 4 | flags, u8::try_from(body.len()).unwrap()][..]);
        packet.extend_from_slice(&body);
        drop(connect(packet.clone()));
        drop(decode(Version::V4, packet.clone()));
        drop(decode(Version::V5, packet));
    }

    #[test]
    fn publishes_round_trip(
        topic in "[a-z/ü]{1,40}", payload in any::<Vec<u8>>(), qos in 0u8..3, id in 1u16.., dup: bool, retain: bool, v5: bool,
    ) {
        let version = if v5 { Version::V5 } else { Version::V4 };
        let sent = Message { topic, payload: payload.into(), qos, retain, ..Message::default() };
        let mut out = BytesMut::new();
        let packet = Outgoing::Publish { message: Arc::new(sent.clone()), qos, retain, dup, id };
        prop_assert!(encode(version, &packet, &mut out));
        let whole = frame(&mut out, MAX_PACKET_BYTES).unwrap().unwrap();
        let id = if qos == 0 { 0 } else { id };
        prop_assert_eq!(decode(version, whole).unwrap(), Incoming::Publish { message: sent, dup, id, alias: false });
    }
}
