//! QoS 2 over kill -9: whatever moment of the exchange the node ends in, each message is a row once. And what the broker keeps:
//! sessions, what waits for them, retained messages.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use super::harness::{DEADLINE, Operator, TOPIC, eventually};

const PUBACK: u8 = 4;
const PUBREC: u8 = 5;
const PUBCOMP: u8 = 7;

/// An MQTT 3.1.1 client that sends exactly what it is told, when it is told.
struct Raw(TcpStream);

impl Raw {
    /// Connects; returns whether the broker knows the session.
    fn connect(node: &Operator, id: &str, clean: bool) -> (Self, bool) {
        let stream = TcpStream::connect(("127.0.0.1", node.tcp)).expect("the broker listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        let mut client = Self(stream);
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, u8::from(clean) << 1, 0, 60];
        put_text(&mut body, id);
        client.send(0x10, &body);
        let (kind, body) = client.packet();
        assert_eq!((kind, body[1]), (2, 0), "CONNACK that accepts");
        (client, body[0] == 1)
    }

    fn send(&mut self, first: u8, body: &[u8]) {
        let mut packet = vec![first];
        let mut length = body.len();
        loop {
            let more = length > 127;
            packet.push(u8::try_from(length % 128).expect("seven bits") | u8::from(more) << 7);
            length /= 128;
            if !more {
                break;
            }
        }
        packet.extend(body);
        // A node that was killed takes nothing.
        self.0.write_all(&packet).ok();
    }

    fn publish(&mut self, qos: u8, id: u16, dup: bool, payload: &str) {
        let mut body = Vec::new();
        put_text(&mut body, TOPIC);
        body.extend(id.to_be_bytes());
        body.extend(payload.as_bytes());
        self.send(0x30 | qos << 1 | u8::from(dup) << 3, &body);
    }

    fn release(&mut self, id: u16) {
        self.send(0x62, &id.to_be_bytes());
    }

    /// The type of the next packet and its body, or none when the connection has ended.
    fn try_packet(&mut self) -> Option<(u8, Vec<u8>)> {
        self.try_first().map(|(first, body)| (first >> 4, body))
    }

    /// The same with the whole first byte.
    fn try_first(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut byte = [0];
        self.0.read_exact(&mut byte).ok()?;
        let first = byte[0];
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
        Some((first, body))
    }

    fn packet(&mut self) -> (u8, Vec<u8>) {
        self.try_packet().expect("a packet")
    }

    fn expect(&mut self, kind: u8, id: u16) {
        let (got, body) = self.packet();
        assert_eq!((got, u16::from_be_bytes([body[0], body[1]])), (kind, id));
    }
}

fn put_text(body: &mut Vec<u8>, text: &str) {
    body.extend(u16::try_from(text.len()).expect("a short text").to_be_bytes());
    body.extend(text.as_bytes());
}

fn message(n: u32) -> String {
    format!(r#"{{"timestamp": "2026-03-01T10:00:00Z", "value": {n}.5}}"#)
}

/// The numbers of all stored messages, sorted.
fn stored(node: &Operator) -> Vec<u32> {
    // There is no table before the first row.
    if node.get("sql test format=json \"select value from rand_data\"").status == 404 {
        return Vec::new();
    }
    let rows = node.rows("select value from rand_data");
    let number = |row: &serde_json::Value| row["value"].as_f64().or_else(|| row["value"].as_str()?.parse().ok());
    let mut numbers: Vec<u32> = rows.iter().map(|row| number(row).expect("a number") as u32).collect();
    numbers.sort_unstable();
    numbers
}

// DUR-2
#[test]
fn a_packet_is_stored_once_wherever_the_exchange_is_cut() {
    let mut node = Operator::start();
    let (mut client, present) = Raw::connect(&node, "device", false);
    assert!(!present);
    // Between PUBLISH and PUBREC: the row is there, the client has not heard of it.
    client.publish(2, 1, false, &message(1));
    eventually("the row", || (stored(&node) == [1]).then_some(()));
    node.kill();
    node.launch();
    let (mut client, present) = Raw::connect(&node, "device", false);
    assert!(present, "the session outlives the process");
    client.publish(2, 1, true, &message(1));
    client.expect(PUBREC, 1);
    assert_eq!(stored(&node), [1]);
    // Between PUBREC and PUBREL, with another message under way.
    client.publish(2, 2, false, &message(2));
    client.expect(PUBREC, 2);
    node.kill();
    node.launch();
    let (mut client, present) = Raw::connect(&node, "device", false);
    assert!(present);
    for id in [1, 2] {
        client.publish(2, id, true, &message(id.into()));
        client.expect(PUBREC, id);
    }
    assert_eq!(stored(&node), [1, 2]);
    // After PUBREL: the answer is lost.
    client.release(1);
    client.expect(PUBCOMP, 1);
    node.kill();
    node.launch();
    let (mut client, _) = Raw::connect(&node, "device", false);
    client.release(1);
    client.expect(PUBCOMP, 1);
    client.release(2);
    client.expect(PUBCOMP, 2);
    // The ids mean other messages now, also those whose first sending got lost.
    client.publish(2, 1, true, &message(3));
    client.expect(PUBREC, 1);
    client.publish(2, 2, false, &message(4));
    client.expect(PUBREC, 2);
    assert_eq!(stored(&node), [1, 2, 3, 4]);
    // A clean session forgets.
    let (mut client, present) = Raw::connect(&node, "device", true);
    assert!(!present);
    client.publish(2, 1, true, &message(5));
    client.expect(PUBREC, 1);
    assert_eq!(stored(&node), [1, 2, 3, 4, 5]);
}

// DUR-1, DUR-2, R21: a client that follows the standard, a node that is killed again and again: QoS 2 is stored once; QoS 1 at least
// once, and twice only what was sent twice because it had no acknowledgement.
#[test]
fn nothing_is_lost_and_qos_2_is_not_doubled_over_many_kills() {
    let mut node = Operator::start();
    let mut next = 0u32;
    let mut open: Vec<(u16, u8, u32, bool)> = Vec::new();
    let mut resent = Vec::new();
    let mut once = Vec::new();
    let mut sent = 0;
    for round in 0..6u32 {
        let (mut client, present) = Raw::connect(&node, "device", false);
        assert_eq!(present, round > 0);
        for (id, qos, number, received) in &open {
            if *received {
                client.release(*id);
            } else {
                client.publish(*qos, *id, true, &message(*number));
                if *qos == 1 {
                    resent.push(*number);
                }
            }
        }
        while open.len() < 60 {
            next += 1;
            let id = (1..).find(|id| open.iter().all(|(known, ..)| known != id)).expect("a free id");
            let qos = if next.is_multiple_of(3) { 1 } else { 2 };
            if qos == 2 {
                once.push(next);
            }
            open.push((id, qos, next, false));
            client.publish(qos, id, false, &message(next));
            sent += 1;
        }
        // Some answers come; then the node is killed in the middle of the others. The last round ends in peace.
        let last = round == 5;
        let mut answers = 0;
        while !open.is_empty() && (last || answers < 20 + round * 7) {
            let Some((kind, body)) = client.try_packet() else { break };
            answers += 1;
            let id = u16::from_be_bytes([body[0], body[1]]);
            match kind {
                PUBACK | PUBCOMP => open.retain(|(known, ..)| *known != id),
                PUBREC => {
                    open.iter_mut().filter(|(known, ..)| *known == id).for_each(|packet| packet.3 = true);
                    client.release(id);
                }
                other => panic!("packet type {other}"),
            }
        }
        if !last {
            node.kill();
            node.launch();
        }
    }
    assert!(open.is_empty() && sent > 100);
    let stored = stored(&node);
    for number in 1..=next {
        let times = stored.iter().filter(|known| **known == number).count();
        let allowed = 1 + resent.iter().filter(|known| **known == number).count();
        assert!(times >= 1, "{number} is lost");
        assert!(times <= allowed, "{number} is stored {times} times");
        assert!(times == 1 || !once.contains(&number), "QoS 2: {number} is stored {times} times");
    }
}

/// A subscriber that follows the standard; what it knows outlives its connections.
#[derive(Default)]
struct Subscriber {
    /// Packet ids of QoS 2 that wait for PUBREL.
    received: HashSet<u16>,
    got: Vec<u32>,
}

impl Subscriber {
    /// Takes what comes until the connection ends.
    fn listen(me: &Mutex<Self>, client: &mut Raw) {
        while let Some((first, body)) = client.try_first() {
            let mut me = me.lock().expect("no panic");
            match first >> 4 {
                3 => {
                    let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
                    let id = u16::from_be_bytes([body[2 + topic], body[3 + topic]]);
                    let message: serde_json::Value = serde_json::from_slice(&body[4 + topic..]).expect("a message");
                    let number = message["value"].as_f64().expect("a number") as u32;
                    let qos = first >> 1 & 3;
                    if qos == 1 || me.received.insert(id) {
                        me.got.push(number);
                    }
                    client.send(if qos == 1 { 0x40 } else { 0x50 }, &id.to_be_bytes());
                }
                6 => {
                    me.received.remove(&u16::from_be_bytes([body[0], body[1]]));
                    client.send(0x70, &body[..2]);
                }
                9 => {}
                other => panic!("packet type {other}"),
            }
        }
    }
}

// DUR-2: from a publisher over the node to a subscriber, both with sessions that are kept, while the node is killed again and again:
// QoS 2 comes once, in the table and at the subscriber, whichever of the two was written when the node ended.
#[test]
fn subscribers_get_qos_2_once_over_many_kills() {
    let mut node = Operator::start();
    let subscriber = Arc::new(Mutex::new(Subscriber::default()));
    let (mut client, _) = Raw::connect(&node, "subscriber", false);
    let mut filter = vec![0, 1];
    put_text(&mut filter, TOPIC);
    filter.push(2);
    client.send(0x82, &filter);
    assert_eq!(client.packet().0, 9);
    drop(client);
    let mut next = 0u32;
    let mut open: Vec<(u16, u32, bool)> = Vec::new();
    let mut rounds = 0..6u32;
    while let Some(round) = rounds.next() {
        let last = rounds.is_empty();
        let (mut listening, present) = Raw::connect(&node, "subscriber", false);
        assert!(present);
        let stop = listening.0.try_clone().expect("a second handle");
        let me = Arc::clone(&subscriber);
        let listener = std::thread::spawn(move || Subscriber::listen(&me, &mut listening));
        let (mut client, _) = Raw::connect(&node, "publisher", false);
        for (id, number, received) in &open {
            if *received { client.release(*id) } else { client.publish(2, *id, true, &message(*number)) }
        }
        while open.len() < 40 {
            next += 1;
            let id = (1..).find(|id| open.iter().all(|(known, ..)| known != id)).expect("a free id");
            open.push((id, next, false));
            client.publish(2, id, false, &message(next));
        }
        let mut answers = 0;
        while !open.is_empty() && (last || answers < 5 + round * 11) {
            let Some((kind, body)) = client.try_packet() else { break };
            answers += 1;
            let id = u16::from_be_bytes([body[0], body[1]]);
            if kind == PUBCOMP {
                open.retain(|(known, ..)| *known != id);
            } else {
                assert_eq!(kind, PUBREC);
                open.iter_mut().filter(|(known, ..)| *known == id).for_each(|packet| packet.2 = true);
                client.release(id);
            }
        }
        if last {
            let all = |me: &Mutex<Subscriber>| me.lock().expect("no panic").got.len() >= next as usize;
            eventually("the subscriber has all", || all(&subscriber).then_some(()));
            stop.shutdown(std::net::Shutdown::Both).expect("an open connection");
        } else {
            node.kill();
            node.launch();
        }
        listener.join().expect("the subscriber follows");
    }
    let mut got = std::mem::take(&mut subscriber.lock().expect("no panic").got);
    got.sort_unstable();
    assert_eq!(got, (1..=next).collect::<Vec<_>>(), "each once");
    assert_eq!(stored(&node), got, "and each is a row");
}

// R14 with QoS 2: what cannot be mapped is put aside once.
#[test]
fn a_packet_that_gives_no_row_is_put_aside_once() {
    let mut node = Operator::start();
    let (mut client, _) = Raw::connect(&node, "device", false);
    client.publish(2, 9, false, "no json");
    client.expect(PUBREC, 9);
    let aside = |node: &Operator| {
        let files = super::harness::files_below(&node.root().join("data/error"));
        let texts = files.iter().filter_map(|file| std::fs::read_to_string(file).ok());
        texts.map(|text| text.matches("no json").count()).sum::<usize>()
    };
    let before = aside(&node);
    assert!(before > 0, "it is put aside before PUBREC");
    node.kill();
    node.launch();
    let (mut client, _) = Raw::connect(&node, "device", false);
    client.publish(2, 9, true, "no json");
    client.expect(PUBREC, 9);
    assert_eq!(aside(&node), before);
}

fn mosquitto(node: &Operator, program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(["-h", "127.0.0.1", "-p", &node.tcp.to_string()]).args(arguments).stdin(Stdio::null());
    command
}

/// What a subscriber with a session of its own gets, until it has as much as it wants.
fn receive(node: &Operator, version: &str, count: usize) -> Vec<String> {
    let (count, filter) = (count.to_string(), "kept/+");
    let arguments = ["-V", version, "-c", "-i", version, "-q", "2", "-t", filter, "-C", &count, "-W", "20", "-v"];
    let mut arguments = arguments.to_vec();
    if version == "mqttv5" {
        arguments.extend(["-x", "3600"]);
    }
    let output = mosquitto(node, "mosquitto_sub", &arguments).output().expect("mosquitto_sub is installed");
    String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect()
}

fn send(node: &Operator, topic: &str, more: &[&str]) {
    let mut arguments = vec!["-q", "2", "-t", topic];
    arguments.extend(more);
    let status = mosquitto(node, "mosquitto_pub", &arguments).status().expect("mosquitto_pub is installed");
    assert!(status.success());
}

// A session with what waits for it, and retained messages, outlive kill -9.
#[test]
fn what_waits_for_a_subscriber_outlives_a_kill() {
    let mut node = Operator::start();
    send(&node, "kept/gone", &["-m", "x", "-r"]);
    send(&node, "kept/gone", &["-n", "-r"]);
    send(&node, "kept/first", &["-m", "retained", "-r"]);
    for version in ["mqttv311", "mqttv5"] {
        assert_eq!(receive(&node, version, 1), ["kept/first retained"]);
    }
    let mut expected = Vec::new();
    for round in 0..3 {
        for n in 0..5 {
            let (topic, text) = (format!("kept/{round}"), n.to_string());
            send(&node, &topic, &["-m", &text]);
            expected.push(format!("{topic} {text}"));
        }
        node.kill();
        node.launch();
    }
    for version in ["mqttv311", "mqttv5"] {
        // Subscribing again brings the retained message again.
        let mut got = receive(&node, version, expected.len() + 1);
        got.retain(|line| line != "kept/first retained");
        assert_eq!(got, expected, "{version}: all of it, once, in order");
    }
    node.kill();
    node.launch();
    let fresh = mosquitto(&node, "mosquitto_sub", &["-t", "kept/+", "-C", "1", "-W", "20", "-v"]).output();
    assert_eq!(fresh.expect("mosquitto_sub ends").stdout, b"kept/first retained\n");
    assert!(node.get("get local broker").ok().contains("sessions"));
}

// R8, R9: a damaged file of the broker is named and costs no start.
#[test]
fn a_damaged_file_of_the_broker_is_named_and_does_not_prevent_the_start() {
    let mut node = Operator::start();
    send(&node, "kept/first", &["-m", "retained", "-r"]);
    node.kill();
    let files = super::harness::files_below(&node.root().join("data/broker"));
    let newest = files.iter().rfind(|file| file.extension().is_some_and(|it| it == "broker")).expect("a file");
    let mut bytes = std::fs::read(newest).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    std::fs::write(newest, bytes).expect("writable");
    node.launch();
    let name = newest.file_name().and_then(|name| name.to_str()).expect("a name");
    assert!(node.errors().iter().any(|entry| entry.to_string().contains(name)), "{:?}", node.errors());
    node.publish(TOPIC, 2, "mqttv311", &message(1));
    assert_eq!(stored(&node), [1]);
}
