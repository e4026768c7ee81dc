//! Messages that come together: stored with few calls, each with its own fate.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;

use anylog_ingest::subscription::Counts;
use support::{DEADLINE, TestNode};

/// A publish with QoS 1.
fn publish(topic: &str, id: u16, payload: &str) -> Vec<u8> {
    let length = u8::try_from(2 + topic.len() + 2 + payload.len()).unwrap();
    assert!(length < 128, "one byte of length is enough");
    let mut packet = vec![0x32, length, 0, u8::try_from(topic.len()).unwrap()];
    packet.extend_from_slice(topic.as_bytes());
    packet.extend_from_slice(&id.to_be_bytes());
    packet.extend_from_slice(payload.as_bytes());
    packet
}

/// Sends all publishes with one write, and reads the packet ids of the acknowledgements.
fn send(node: &TestNode, messages: &[(&str, String)]) -> Vec<u16> {
    let mut socket = TcpStream::connect(node.address).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.write_all(&[0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 1, b'p']).unwrap();
    let mut answer = [0; 4];
    socket.read_exact(&mut answer).unwrap();
    let packets: Vec<u8> = (1..).zip(messages).flat_map(|(id, (topic, payload))| publish(topic, id, payload)).collect();
    socket.write_all(&packets).unwrap();
    let acknowledged = messages.iter().map(|_| {
        socket.read_exact(&mut answer).unwrap();
        assert_eq!(answer[..2], [0x40, 2]);
        u16::from_be_bytes([answer[2], answer[3]])
    });
    acknowledged.collect()
}

fn counts(node: &TestNode) -> Counts {
    node.ingest.clients()[0].counters.counts()
}

fn numbered(topic: &'static str, numbers: std::ops::Range<u32>) -> Vec<(&'static str, String)> {
    numbers.map(|n| (topic, format!("{{\"n\":{n}}}"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_one_read_are_one_call_and_keep_their_order() {
    let node = TestNode::start().await;
    node.map("broker=local", "t", 1, "numbers").await;
    let acknowledged = send(&node, &numbered("t", 0..800));
    assert_eq!(acknowledged, (1..=800).collect::<Vec<_>>());
    let rows: Vec<String> = (0..800).map(|n| format!("{{\"n\":{n}}}")).collect();
    assert_eq!(node.sink.rows("test.numbers"), rows);
    assert!(node.sink.groups().len() < 100, "{} calls for 800 messages", node.sink.groups().len());
    let counts = counts(&node);
    assert_eq!((counts.messages, counts.success, counts.errors), (800, 800, 0));
}

// R13, R14: a message that cannot be mapped, and a row that does not fit, cost nobody else anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_message_and_a_bad_row_stand_alone() {
    let node = TestNode::start().await;
    node.map("broker=local", "t", 1, "numbers").await;
    node.sink.misfit("{\"n\":17}");
    let mut messages = numbered("t", 0..50);
    messages[30].1 = "not json".into();
    assert_eq!(send(&node, &messages), (1..=50).collect::<Vec<_>>());
    let expected: Vec<u64> = (0..50).filter(|n| ![17, 30].contains(n)).collect();
    assert_eq!(node.numbers("test.numbers"), expected);
    let aside = node.sink.aside();
    assert_eq!((aside.len(), &aside[0].message.payload[..]), (1, &b"not json"[..]));
    let counts = counts(&node);
    assert_eq!((counts.messages, counts.success, counts.errors), (50, 48, 2));
}

// R14: what the store takes of no message alone is stored message by message.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_excluded_costs_its_own_messages_only() {
    let node = TestNode::start().await;
    node.run("run msg client where broker=local and topic=(name=t and qos=1 and dbms=test and table=\"bring [k]\" and column.n=(value=\"bring [n]\" and type=int))")
        .await
        .unwrap();
    node.sink.exclude("bad");
    let messages: Vec<(&str, String)> = (0..40)
        .map(|n| ("t", format!("{{\"k\":\"{}\",\"n\":{n}}}", if n % 10 == 3 { "bad" } else { "good" })))
        .collect();
    assert_eq!(send(&node, &messages), (1..=40).collect::<Vec<_>>());
    assert_eq!(node.numbers("test.good"), (0..40).filter(|n| n % 10 != 3).collect::<Vec<_>>());
    assert_eq!(node.sink.aside().len(), 4);
    let counts = counts(&node);
    assert_eq!((counts.messages, counts.success, counts.errors), (40, 36, 4));
}
