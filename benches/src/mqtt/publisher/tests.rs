use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

use super::*;
use crate::mqtt::subscriber::Subscriber;

/// What a connection of the broker below saw.
#[derive(Debug, Default)]
struct Seen {
    messages: u64,
    most_in_flight: usize,
    payloads: HashSet<Vec<u8>>,
}

/// A broker for one connection. It answers only when nothing more arrives, so that windows fill.
fn broker(listener: TcpListener) -> JoinHandle<Seen> {
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        stream.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
        let (mut input, mut out, mut buffer) = (Vec::new(), Vec::new(), [0; 4096]);
        let (mut seen, mut in_flight) = (Seen::default(), HashSet::new());
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => return seen,
                Ok(read) => input.extend_from_slice(&buffer[..read]),
                Err(_) => {
                    stream.write_all(&out).expect("written");
                    out.clear();
                    in_flight.clear();
                }
            }
            while let Some((packet, length)) = packets::next(&input) {
                match packet.first {
                    0x10 => stream.write_all(&[kind::CONNACK, 2, 0, 0]).expect("written"),
                    kind::PINGREQ => stream.write_all(&[kind::PINGRESP, 0]).expect("written"),
                    kind::PUBREL => packets::short(&mut out, kind::PUBCOMP, packet.id),
                    publish => {
                        seen.messages += 1;
                        seen.payloads.insert(input[length - message::LEN..length].to_vec());
                        if publish & 6 > 0 {
                            assert!(in_flight.insert(packet.id), "packet id {} is used twice", packet.id);
                            seen.most_in_flight = seen.most_in_flight.max(in_flight.len());
                            let answer = if publish & 6 == 2 { kind::PUBACK } else { kind::PUBREC };
                            packets::short(&mut out, answer, packet.id);
                        }
                    }
                }
                input.drain(..length);
            }
        }
    })
}

fn run(qos: u8, rate: Option<f64>) -> (Published, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let broker = broker(listener);
    let load = Load {
        port,
        topic: "t".to_owned(),
        qos,
        connections: 1,
        window: 7,
        payload: message::LEN,
        rate,
        until: Until::Count(30),
        first: 0,
    };
    (publish(&load).expect("published"), broker.join().expect("the broker saw only right packets"))
}

#[test]
fn all_messages_are_acknowledged_within_the_window() {
    for qos in [1, 2] {
        let (published, seen) = run(qos, None);
        assert_eq!((published.messages, seen.messages, seen.payloads.len()), (30, 30, 30), "QoS {qos}");
        assert_eq!(published.latencies.count(), 30);
        assert_eq!(seen.most_in_flight, 7, "QoS {qos}");
        assert!(published.latencies.max() >= Duration::from_millis(20), "the broker answers after 20 ms");
    }
}

#[test]
fn at_qos_0_all_was_read_when_the_publisher_ends() {
    let (published, seen) = run(0, None);
    assert_eq!((published.messages, seen.messages), (30, 30));
    assert_eq!(published.latencies.count(), 0);
}

#[test]
fn a_rate_spreads_the_messages_and_counts_latency_from_when_they_were_due() {
    let (published, seen) = run(1, Some(300.0));
    assert_eq!(seen.messages, 30);
    assert!(published.elapsed >= Duration::from_millis(96), "{:?}", published.elapsed);
}

#[test]
fn a_subscriber_counts_and_acknowledges() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let broker = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        stream.write_all(&[kind::CONNACK, 2, 0, 0, kind::SUBACK, 3, 0, 1, 1]).expect("written");
        let mut out = Vec::new();
        for id in 1..=3 {
            packets::publish(&mut out, "t", 1, id, 2);
            out.extend_from_slice(b"{}");
        }
        stream.write_all(&out).expect("written");
        acknowledged(stream)
    });
    let subscriber = Subscriber::start(port, "t").expect("subscribed");
    subscriber.wait_for(3).expect("received");
    assert_eq!(broker.join().expect("acknowledged"), [1, 2, 3]);
    assert_eq!(subscriber.received(), 3);
}

/// The ids of three PUBACKs.
fn acknowledged(mut stream: TcpStream) -> Vec<u16> {
    let (mut input, mut ids) = (Vec::new(), Vec::new());
    while ids.len() < 3 {
        let mut buffer = [0; 256];
        let read = stream.read(&mut buffer).expect("packets");
        input.extend_from_slice(&buffer[..read]);
        while let Some((packet, length)) = packets::next(&input) {
            if packet.first == kind::PUBACK {
                ids.push(packet.id);
            }
            input.drain(..length);
        }
    }
    ids
}
