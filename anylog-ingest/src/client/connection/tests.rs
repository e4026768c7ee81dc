//! Connections over a pipe in memory, with a broker that plays exact packets, in simulated time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anylog_core::Node;
use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::client::remote::Address;
use crate::client::storer::MAX_WAITING;
use crate::intake::Intake;
use crate::mapping::{Column, Inline, Mapper};
use crate::sink::{
    Delivery, FileReceipt, Issuer, Receipt, RowGroup, RowSink, SinkError, SinkSlot, SourceFile, Unmapped,
};
use crate::subscription::{Counters, Subscription, Treatment};

const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// A store that can be held back.
struct Held {
    issuer: Issuer,
    open: tokio::sync::watch::Sender<bool>,
    rows: Mutex<Vec<String>>,
    /// Packet ids of QoS 2.
    packets: Mutex<BTreeSet<u16>>,
}

impl Held {
    async fn is_open(&self) -> Result<(), SinkError> {
        let mut open = self.open.subscribe();
        open.wait_for(|open| *open).await.map_err(|_| SinkError::NotRunning)?;
        Ok(())
    }
}

#[async_trait]
impl RowSink for Held {
    async fn append(&self, group: RowGroup) -> Result<Receipt, SinkError> {
        self.is_open().await?;
        self.packets.lock().extend(group.deliveries.iter().map(|delivery| delivery.packet));
        let rows: Vec<String> = group.parts.into_iter().flat_map(|part| part.rows).collect();
        let count = rows.len();
        self.rows.lock().extend(rows);
        Ok(Receipt::issue(&self.issuer, count, Vec::new()))
    }

    async fn set_aside(&self, _: Unmapped) -> Result<Receipt, SinkError> {
        Ok(Receipt::issue(&self.issuer, 0, Vec::new()))
    }

    fn holds(&self, delivery: &Delivery) -> bool {
        self.packets.lock().contains(&delivery.packet)
    }

    async fn release(&self, deliveries: Vec<Delivery>) -> Result<(), SinkError> {
        self.is_open().await?;
        self.packets.lock().retain(|packet| deliveries.iter().all(|released| released.packet != *packet));
        Ok(())
    }

    async fn forget(&self, _: &str) -> Result<(), SinkError> {
        self.is_open().await?;
        self.packets.lock().clear();
        Ok(())
    }

    async fn store_file(&self, _: SourceFile) -> Result<FileReceipt, SinkError> {
        Err(SinkError::NotRunning)
    }
}

/// A client over a pipe, and the broker's end of it.
struct Bench {
    remote: Arc<Remote>,
    store: Arc<Held>,
    broker: DuplexStream,
    served: JoinHandle<Ended>,
    _home: tempfile::TempDir,
}

impl Bench {
    /// A client whose pipe to the broker takes `pipe` bytes.
    fn new(pipe: usize) -> Self {
        let home = tempfile::tempdir().unwrap();
        let node = Node::builder().home(home.path()).build();
        node.directories.create().unwrap();
        let slot = SinkSlot::new();
        let store = slot.mount(|issuer| {
            let open = tokio::sync::watch::Sender::new(true);
            Arc::new(Held { issuer, open, rows: Mutex::default(), packets: Mutex::default() })
        });
        let column = Column::new("n", "int", "bring [n]", false).unwrap();
        let mapper = Mapper::inline(Inline::new("test", "numbers", vec![column]).unwrap());
        let topic = crate::ingest::subscription(
            &crate::client::TopicSpec { filter: "n".into(), qos: 1, treatment: Treatment::Map(mapper), dynamic: false },
            "fake:1883",
            &Arc::new(Counters::default()),
        );
        let topics: Vec<Arc<Subscription>> = vec![topic];
        let intake = Arc::new(Intake::new(node, Arc::clone(&slot)));
        let address = Address {
            host: "fake".into(),
            port: 1883,
            login: None,
            tls: None,
            client_id: "anylog1".into(),
            keep_alive: KEEP_ALIVE,
            deadline: Duration::from_secs(5),
        };
        let remote = Arc::new(Remote::new(address, topics, intake, slot, CancellationToken::new()));
        let (broker, client) = duplex(pipe);
        let (serving, storing) = (Arc::clone(&remote), Arc::clone(&remote));
        tokio::spawn(async move { storing.storer.run(&storing.stop).await });
        let served = tokio::spawn(async move { Connection::new(&serving, Version::V4).serve(client).await });
        Self { remote, store, broker, served, _home: home }
    }

    /// The same after CONNECT and SUBSCRIBE were answered.
    async fn ready(pipe: usize) -> Self {
        let mut bench = Self::new(pipe);
        assert_eq!(bench.receive().await[0], 0x10);
        bench.send(&[0x20, 2, 0, 0]).await;
        let subscribe = bench.receive().await;
        assert_eq!(subscribe[0], 0x82);
        assert_eq!(bench.remote.state(), ConnectionState::Connecting, "connected before SUBACK");
        bench.send(&[0x90, 3, subscribe[2], subscribe[3], 1]).await;
        assert_eq!(bench.remote.first_state().await, ConnectionState::Connected);
        bench
    }

    /// Returns when every task waits for something else than this: simulated time passes only then.
    async fn at_rest(&self) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.broker.write_all(bytes).await.unwrap();
    }

    /// The next packet of the client. All of them are shorter than 128 bytes.
    async fn receive(&mut self) -> Vec<u8> {
        let mut packet = vec![0; 2];
        self.broker.read_exact(&mut packet).await.unwrap();
        let mut rest = vec![0; usize::from(packet[1])];
        self.broker.read_exact(&mut rest).await.unwrap();
        packet.extend(rest);
        packet
    }

    async fn ended(self) -> Ended {
        self.served.await.unwrap()
    }
}

/// A PUBLISH with QoS 1 of a message of `padding` more bytes.
fn publish(id: u16, padding: usize) -> Vec<u8> {
    let payload = format!("{{\"n\":{id},\"x\":\"{}\"}}", "x".repeat(padding));
    let mut length = 2 + 1 + 2 + payload.len();
    let mut packet = vec![0x32];
    while length > 127 {
        packet.push(u8::try_from(length & 127).unwrap() | 128);
        length >>= 7;
    }
    packet.push(u8::try_from(length).unwrap());
    packet.extend([0, 1, b'n']);
    packet.extend(id.to_be_bytes());
    packet.extend(payload.as_bytes());
    packet
}

// R1
#[tokio::test(start_paused = true)]
async fn a_broker_that_falls_silent_is_found_gone_in_one_and_a_half_keep_alives() {
    let mut bench = Bench::ready(1 << 16).await;
    let last = Instant::now();
    assert_eq!(bench.receive().await, [0xc0, 0], "a ping first");
    assert!(last.elapsed().abs_diff(KEEP_ALIVE) < Duration::from_millis(100), "{:?}", last.elapsed());
    let ended = bench.ended().await;
    assert!(matches!(ended, Ended::Silent(_)), "{ended}");
    let gone = last.elapsed();
    assert!(gone > KEEP_ALIVE && gone <= KEEP_ALIVE * 3 / 2 + Duration::from_millis(10), "{gone:?}");
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_answers_to_pings_is_not_left() {
    let mut bench = Bench::ready(1 << 16).await;
    for _ in 0..20 {
        assert_eq!(timeout(KEEP_ALIVE * 2, bench.receive()).await.unwrap(), [0xc0, 0]);
        bench.send(&[0xd0, 0]).await;
    }
    assert!(!bench.served.is_finished());
}

// A broker that always sends has to hear something all the same.
#[tokio::test(start_paused = true)]
async fn pings_go_on_while_messages_come_that_need_no_answer() {
    let mut bench = Bench::ready(1 << 16).await;
    let begun = Instant::now();
    loop {
        bench.send(&[0x30, 8, 0, 1, b'n', b'{', b'}', b' ', b' ', b' ']).await;
        if let Ok(packet) = timeout(Duration::from_millis(100), bench.receive()).await {
            assert_eq!(packet, [0xc0, 0]);
            break;
        }
        assert!(begun.elapsed() < KEEP_ALIVE * 3 / 2, "no ping in time");
    }
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_reads_nothing_is_left() {
    let Bench { broker, served, .. } = Bench::ready(32).await;
    let begun = Instant::now();
    // It sends, but never takes an acknowledgement.
    let (_reader, mut writer) = tokio::io::split(broker);
    tokio::spawn(async move { while writer.write_all(&publish(1, 0)).await.is_ok() {} });
    let ended = timeout(KEEP_ALIVE * 2, served).await.expect("it is left in time").unwrap();
    assert!(matches!(ended, Ended::Stuck), "{ended}");
    assert!(begun.elapsed() >= KEEP_ALIVE);
}

#[tokio::test(start_paused = true)]
async fn every_answer_has_a_deadline() {
    let bench = Bench::new(1 << 16);
    let begun = Instant::now();
    let ended = bench.ended().await;
    assert!(matches!(ended, Ended::NoAnswer("CONNECT", _)), "{ended}");
    assert_eq!(begun.elapsed().as_secs(), 5);

    let mut bench = Bench::new(1 << 16);
    bench.receive().await;
    bench.send(&[0x20, 2, 0, 0]).await;
    bench.receive().await;
    let ended = bench.ended().await;
    assert!(matches!(ended, Ended::NoAnswer("SUBSCRIBE", _)), "{ended}");
    assert_eq!(ended.to_string(), "no answer to SUBSCRIBE within 5s");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_broker_is_named() {
    for (answer, words) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "no MQTT broker"),
        (&[0x15, 3, 1, 0, 2, 2, 70], "TLS"),
        (&[0x20, 2, 0, 5], "user and password"),
        (&[0x20, 2, 0, 2], "client id"),
    ] {
        let mut bench = Bench::new(1 << 16);
        bench.receive().await;
        bench.send(answer).await;
        let text = bench.ended().await.text();
        assert!(text.contains(words), "{text}");
    }
}

// R5: the store is held back for five keep-alives.
#[tokio::test(start_paused = true)]
async fn a_store_that_is_held_back_stops_no_pings_and_loses_nothing() {
    let bench = Bench::ready(1 << 16).await;
    bench.store.open.send_replace(false);
    let sent = 2 * MAX_WAITING.1 / 16_384;
    let (mut reader, mut writer) = tokio::io::split(bench.broker);
    let sending = tokio::spawn(async move {
        for id in 0..sent {
            writer.write_all(&publish(u16::try_from(id + 1).unwrap(), 16_384)).await.unwrap();
        }
        writer
    });
    let mut next = async || {
        let mut packet = [0; 2];
        reader.read_exact(&mut packet).await.unwrap();
        let mut rest = vec![0; usize::from(packet[1])];
        reader.read_exact(&mut rest).await.unwrap();
        (packet[0], rest)
    };
    for _ in 0..5 {
        let (first, _) = timeout(KEEP_ALIVE * 2, next()).await.expect("a ping");
        assert_eq!(first, 0xc0, "acknowledged without a receipt");
    }
    // R23: it reads no further than its bound.
    let load = bench.remote.load();
    assert!(load.bytes >= MAX_WAITING.1 && load.bytes <= MAX_WAITING.1 + 64 * 1024, "{load:?}");
    assert!(!sending.is_finished());
    assert_eq!(bench.remote.state(), ConnectionState::Connected);
    bench.store.open.send_replace(true);
    let mut id = 0_u16;
    while usize::from(id) < sent {
        let (first, rest) = timeout(KEEP_ALIVE, next()).await.expect("acknowledgements");
        if first == 0x40 {
            id += 1;
            // MQTT-4.6.0-2
            assert_eq!(u16::from_be_bytes([rest[0], rest[1]]), id);
        }
    }
    drop(sending.await.unwrap());
    assert_eq!(bench.store.rows.lock().len(), sent);
    assert_eq!(bench.remote.load().bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_stopped_acknowledges_what_is_stored_and_says_goodbye() {
    let mut bench = Bench::ready(1 << 16).await;
    bench.store.open.send_replace(false);
    bench.send(&publish(7, 0)).await;
    bench.at_rest().await;
    assert_eq!(bench.remote.load().messages, 1);
    bench.remote.stop();
    bench.at_rest().await;
    assert!(!bench.served.is_finished(), "a message is being stored");
    bench.store.open.send_replace(true);
    assert_eq!(bench.receive().await, [0x40, 2, 0, 7]);
    assert_eq!(bench.receive().await, [0xe0, 0]);
    assert!(matches!(bench.ended().await, Ended::Stopped));
}

/// A message with QoS 2.
fn message(id: u16) -> packet::Publish {
    let payload = format!("{{\"n\":{id}}}").into();
    packet::Publish { topic: "n".into(), payload, qos: 2, retain: false, dup: true, id }
}

impl Bench {
    /// A client whose messages the test hands to the storer itself.
    fn without_connection() -> Self {
        let bench = Self::new(64);
        bench.served.abort();
        bench
    }

    /// The acknowledgements that are due when nothing more happens.
    async fn due(&self) -> Vec<(packet::Ack, u16)> {
        self.at_rest().await;
        let mut due = Vec::new();
        self.remote.storer.acknowledge(|ack, id| due.push((ack, id)));
        due
    }
}

// MQTT-4.3.3-2: over an end of the process, as the store remembers it.
#[tokio::test(start_paused = true)]
async fn what_an_earlier_run_stored_is_acknowledged_and_not_stored_again() {
    let bench = Bench::without_connection();
    bench.store.packets.lock().insert(9);
    bench.remote.storer.opened(true);
    bench.remote.storer.put(message(9));
    bench.remote.storer.put(message(10));
    assert_eq!(bench.due().await, [(packet::Ack::Received, 9), (packet::Ack::Received, 10)]);
    assert_eq!(*bench.store.rows.lock(), ["{\"n\":10}"]);
}

// R2
#[tokio::test(start_paused = true)]
async fn the_store_forgets_the_packets_of_a_session_before_it_takes_those_of_the_next() {
    let bench = Bench::without_connection();
    bench.remote.storer.opened(true);
    bench.store.open.send_replace(false);
    // One is being stored, one waits, when the broker forgets the session and uses the ids again.
    bench.remote.storer.put(message(9));
    assert_eq!(bench.due().await, []);
    bench.remote.storer.opened(false);
    bench.remote.storer.put(message(9));
    bench.store.open.send_replace(true);
    assert_eq!(bench.due().await, [(packet::Ack::Received, 9)]);
    assert_eq!(bench.store.rows.lock().len(), 2);
}

// MQTT-4.3.3-2: the broker may mean another message by the id after the first PUBCOMP.
#[tokio::test(start_paused = true)]
async fn a_release_is_answered_once_and_after_the_store_let_go() {
    let bench = Bench::without_connection();
    bench.remote.storer.opened(true);
    bench.remote.storer.put(message(9));
    assert_eq!(bench.due().await, [(packet::Ack::Received, 9)]);
    bench.store.open.send_replace(false);
    bench.remote.storer.release(9);
    assert_eq!(bench.due().await, [], "the store holds the id still");
    // The connection breaks, and the broker releases it again.
    bench.remote.storer.opened(true);
    bench.remote.storer.release(9);
    bench.store.open.send_replace(true);
    assert_eq!(bench.due().await, [(packet::Ack::Complete, 9)]);
    assert_eq!(bench.due().await, []);
    assert!(bench.store.packets.lock().is_empty());
}
