//! The broker under clients that mean no good, and over a store that does not answer: bounded, and there for the others.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anylog_ingest::broker::{BrokerUsage, MAX_FILTER_BYTES, MAX_PACKET_BYTES, MAX_QUEUE_BYTES, MAX_RETAINED_BYTES};
use support::{DEADLINE, TestNode, until};

/// A client that sends bytes.
struct Raw(TcpStream);

impl Raw {
    fn open(node: &TestNode) -> Self {
        let stream = TcpStream::connect(node.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        Self(stream)
    }

    fn connect(node: &TestNode, id: &str, clean: bool, keep_alive: u16) -> Self {
        let mut client = Self::open(node);
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, u8::from(clean) << 1];
        body.extend(keep_alive.to_be_bytes());
        put_text(&mut body, id.as_bytes());
        client.send(0x10, &body);
        assert_eq!(client.packet().unwrap().0, 2);
        client
    }

    fn send(&mut self, first: u8, body: &[u8]) {
        self.0.write_all(&packet(first, body)).unwrap();
    }

    fn subscribe(&mut self, filter: &str, qos: u8) {
        let mut body = vec![0, 1];
        put_text(&mut body, filter.as_bytes());
        body.push(qos);
        self.send(0x82, &body);
        while self.packet().unwrap().0 != 9 {}
    }

    /// The next packet: its type and its body; none at the end.
    fn packet(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut byte = [0];
        self.0.read_exact(&mut byte).ok()?;
        let kind = byte[0] >> 4;
        let (mut length, mut shift) = (0usize, 0);
        loop {
            self.0.read_exact(&mut byte).ok()?;
            length |= usize::from(byte[0] & 127) << shift;
            shift += 7;
            if byte[0] < 128 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).ok()?;
        Some((kind, body))
    }
}

fn put_text(body: &mut Vec<u8>, text: &[u8]) {
    body.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
    body.extend(text);
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut length = body.len();
    loop {
        packet.push(u8::try_from(length % 128).unwrap() | u8::from(length > 127) << 7);
        length /= 128;
        if length == 0 {
            break;
        }
    }
    packet.extend(body);
    packet
}

fn publish(qos: u8, retain: bool, id: u16, topic: &str, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(payload.len() + 64);
    put_text(&mut body, topic.as_bytes());
    if qos > 0 {
        body.extend(id.to_be_bytes());
    }
    body.extend(payload);
    packet(0x30 | qos << 1 | u8::from(retain), &body)
}

fn usage(node: &TestNode) -> BrokerUsage {
    node.ingest.broker().usage()
}

// R5: with the store blocked for five keep-alives pings are answered, what is held is bounded, nothing is lost, nothing is doubled.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_blocked_for_five_keep_alives_loses_nothing() {
    let node = TestNode::start().await;
    node.map("broker=local", "t", 1, "numbers").await;
    node.sink.hold(true);
    let (node, acknowledged) = tokio::task::spawn_blocking(move || {
        let mut client = Raw::connect(&node, "device", false, 1);
        for n in 1..=2000u16 {
            let message = publish(1, false, n, "t", format!("{{\"n\":{n}}}").as_bytes());
            client.0.write_all(&message).unwrap();
        }
        let (begun, mut pings) = (Instant::now(), 0);
        while begun.elapsed() < Duration::from_millis(5500) {
            client.send(0xc0, &[]);
            assert_eq!(client.packet().unwrap().0, 13, "only pings are answered while the store is blocked");
            pings += 1;
            // Between two pings most of a keep-alive passes.
            std::thread::park_timeout(Duration::from_millis(600));
        }
        assert!(pings >= 5);
        let used = usage(&node);
        assert!(used.held_bytes < 2 * anylog_ingest::broker::MAX_PENDING.1, "{used:?}");
        node.sink.hold(false);
        let mut acknowledged = 0;
        while acknowledged < 2000 {
            acknowledged += usize::from(client.packet().unwrap().0 == 4);
        }
        (node, acknowledged)
    })
    .await
    .unwrap();
    assert_eq!(acknowledged, 2000);
    assert_eq!(node.numbers("test.numbers"), (1..=2000).collect::<Vec<_>>());
    until("the budget is free again", || usage(&node).held_bytes == 0).await;
}

// R23: retained messages of ever new topics take what they may and no more; the broker goes on.
#[tokio::test(flavor = "multi_thread")]
async fn retained_messages_of_endless_topics_are_bounded() {
    let node = TestNode::start().await;
    let directory = node.home.path().join("kept");
    node.ingest.broker().keep_in(&directory).await.unwrap();
    let node = tokio::task::spawn_blocking(move || {
        let mut client = Raw::connect(&node, "device", true, 0);
        let payload = vec![b'x'; 1024];
        let mut bytes = Vec::new();
        for n in 0..70_000 {
            bytes.extend(publish(0, true, 0, &format!("retained/{n}"), &payload));
            if bytes.len() > 1 << 20 {
                client.0.write_all(&bytes).unwrap();
                bytes.clear();
            }
        }
        bytes.extend(publish(1, false, 1, "end", b""));
        client.0.write_all(&bytes).unwrap();
        assert_eq!(client.packet().unwrap().0, 4);
        node
    })
    .await
    .unwrap();
    let used = usage(&node);
    assert!(used.retained > 40_000 && used.retained_bytes <= MAX_RETAINED_BYTES, "{used:?}");
    // The changes outweigh the copy at most once.
    assert!(used.book.0 < 3 * MAX_RETAINED_BYTES as u64, "{used:?}");
}

// R23: a subscriber that takes nothing costs its own messages and nobody's time.
#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_takes_nothing_is_bounded_and_slows_nobody() {
    let node = TestNode::start().await;
    let (node, subscriber) = tokio::task::spawn_blocking(move || {
        let mut subscriber = Raw::connect(&node, "slow", false, 0);
        subscriber.subscribe("flood", 1);
        let mut publisher = Raw::connect(&node, "fast", true, 0);
        let payload = vec![b'x'; 64 * 1024];
        for n in 1..=500u16 {
            publisher.0.write_all(&publish(1, false, n, "flood", &payload)).unwrap();
            assert_eq!(publisher.packet().unwrap().0, 4, "the publisher is acknowledged");
        }
        (node, subscriber)
    })
    .await
    .unwrap();
    let used = usage(&node);
    assert!(used.queued_bytes <= MAX_QUEUE_BYTES && used.undelivered > 300, "{used:?}");
    drop(subscriber);
}

// Connections that begin and do not go on, and packets that are larger than anything.
#[tokio::test(flavor = "multi_thread")]
async fn half_open_connections_and_huge_packets_go_without_harm() {
    let node = TestNode::start().await;
    let node = tokio::task::spawn_blocking(move || {
        let half_open: Vec<Raw> = (0..100)
            .map(|n| {
                let mut client = Raw::open(&node);
                let begun = packet(0x10, &[0; 100]);
                client.0.write_all(&begun[..n % 50]).unwrap();
                client
            })
            .collect();
        // A length of 200 MB, announced in five bytes.
        for first in [0x10, 0x32] {
            let mut client = if first == 0x10 { Raw::open(&node) } else { Raw::connect(&node, "huge", true, 0) };
            client.0.write_all(&[first, 0xff, 0xff, 0xff, 0x5f]).unwrap();
            assert!(client.packet().is_none(), "the connection is closed");
        }
        let mut client = Raw::connect(&node, "large", true, 0);
        client.0.write_all(&publish(1, false, 1, "t", &vec![0; MAX_PACKET_BYTES - 100])).unwrap();
        assert_eq!(client.packet().unwrap().0, 4);
        let id = "x".repeat(2000);
        let mut client = Raw::open(&node);
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0];
        put_text(&mut body, id.as_bytes());
        client.send(0x10, &body);
        assert_eq!(client.packet().unwrap(), (2, vec![0, 2]), "such a client id is refused");
        for client in half_open {
            let (mut client, mut rest) = (client.0, Vec::new());
            client.read_to_end(&mut rest).unwrap();
        }
        node
    })
    .await
    .unwrap();
    until("all connections are gone", || usage(&node).connections == 0).await;
}

// R23: filters are bounded in number and in bytes.
#[tokio::test(flavor = "multi_thread")]
async fn endless_subscriptions_are_refused() {
    let node = TestNode::start().await;
    let refused = tokio::task::spawn_blocking(move || {
        let mut client = Raw::connect(&node, "greedy", true, 0);
        let mut refused = 0;
        for n in 0..80u16 {
            let mut body = n.saturating_add(1).to_be_bytes().to_vec();
            for m in 0..10 {
                put_text(&mut body, format!("{n}/{m}/{}", "x/".repeat(120)).as_bytes());
                body.push(0);
            }
            client.send(0x82, &body);
            let (kind, codes) = client.packet().unwrap();
            assert_eq!(kind, 9);
            refused += codes[2..].iter().filter(|code| **code == 0x80).count();
        }
        let used = usage(&node);
        assert!(used.filter_bytes <= MAX_FILTER_BYTES && used.subscriptions < 600, "{used:?}");
        refused
    })
    .await
    .unwrap();
    assert!(refused > 150, "{refused}");
}
