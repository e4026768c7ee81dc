//! Clients of another broker that fails in exact ways: it is played by the test, packet by packet.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use anylog_ingest::client::{BrokerAddress, ClientSpec, MessageClient, TopicSpec};
use anylog_ingest::mapping::{Column, Inline, Mapper};
use anylog_ingest::subscription::Treatment;
use support::{DEADLINE, TestNode, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

/// A broker that does only what the test says.
struct Fake {
    listener: TcpListener,
    port: u16,
}

/// A client that connected to it.
struct Peer {
    stream: TcpStream,
    /// 4 or 5.
    level: u8,
    client_id: String,
}

impl Fake {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        Self { listener, port }
    }

    async fn socket(&self) -> TcpStream {
        timeout(DEADLINE, self.listener.accept()).await.expect("a connection").unwrap().0
    }

    /// The next client, after its CONNECT.
    async fn client(&self) -> Peer {
        let stream = self.socket().await;
        let mut peer = Peer { stream, level: 4, client_id: String::new() };
        let (first, body) = peer.receive().await;
        assert_eq!(first, 0x10, "the first packet is CONNECT");
        peer.level = body[6];
        // CleanSession is not asked for (R4).
        assert_eq!(body[7] & 2, 0);
        let at = if peer.level == 5 { 11 + usize::from(body[10]) } else { 10 };
        let length = usize::from(u16::from_be_bytes([body[at], body[at + 1]]));
        peer.client_id = String::from_utf8(body[at + 2..at + 2 + length].to_vec()).unwrap();
        peer
    }

    /// The next client, connected and subscribed to its one topic.
    async fn ready(&self, session_present: bool) -> Peer {
        let mut peer = self.client().await;
        peer.accept(session_present).await;
        peer.grant(&[1]).await;
        peer
    }
}

impl Peer {
    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next packet: its first byte and its body.
    async fn receive(&mut self) -> (u8, Vec<u8>) {
        timeout(DEADLINE, async {
            let first = self.stream.read_u8().await.unwrap();
            let (mut length, mut shift) = (0, 0);
            loop {
                let byte = self.stream.read_u8().await.unwrap();
                length |= usize::from(byte & 127) << shift;
                shift += 7;
                if byte < 128 {
                    break;
                }
            }
            let mut body = vec![0; length];
            self.stream.read_exact(&mut body).await.unwrap();
            (first, body)
        })
        .await
        .expect("a packet")
    }

    /// Waits until the client hangs up.
    async fn closed(&mut self) {
        let mut rest = Vec::new();
        // A reset is as good an end.
        drop(timeout(DEADLINE, self.stream.read_to_end(&mut rest)).await.expect("the client hangs up"));
    }

    async fn accept(&mut self, session_present: bool) {
        self.answer(u8::from(session_present), 0).await;
    }

    async fn answer(&mut self, flags: u8, code: u8) {
        if self.level == 5 {
            self.send(&[0x20, 3, flags, code, 0]).await;
        } else {
            self.send(&[0x20, 2, flags, code]).await;
        }
    }

    /// Waits for a SUBSCRIBE and answers it. Returns what follows its packet id.
    async fn grant(&mut self, codes: &[u8]) -> Vec<u8> {
        let (first, body) = self.receive().await;
        assert_eq!(first, 0x82, "SUBSCRIBE");
        let properties = usize::from(self.level == 5);
        let mut answer = vec![0x90, u8::try_from(2 + properties + codes.len()).unwrap(), body[0], body[1]];
        answer.extend(vec![0; properties]);
        answer.extend(codes);
        self.send(&answer).await;
        body[2 + properties..].to_vec()
    }

    async fn publish(&mut self, id: u16, qos: u8, dup: bool, n: u64) {
        let payload = format!("{{\"n\":{n}}}");
        let properties = usize::from(self.level == 5);
        let mut packet = vec![0x30 | qos << 1 | u8::from(dup) << 3];
        packet.push(u8::try_from(5 + properties + payload.len()).unwrap());
        packet.extend([0, 1, b'n']);
        packet.extend(id.to_be_bytes());
        packet.extend(vec![0; properties]);
        packet.extend(payload.as_bytes());
        self.send(&packet).await;
    }

    /// The next packets with a packet id.
    async fn acks(&mut self, count: usize) -> Vec<(u8, u16)> {
        let mut acks = Vec::new();
        while acks.len() < count {
            let (first, body) = self.receive().await;
            if first != 0xc0 {
                acks.push((first, u16::from_be_bytes([body[0], body[1]])));
            }
        }
        acks
    }
}

fn topic(filter: &str) -> TopicSpec {
    let column = Column::new("n", "int", "bring [n]", false).unwrap();
    let mapper = Mapper::inline(Inline::new("test", "numbers", vec![column]).unwrap());
    TopicSpec { filter: filter.into(), qos: 1, treatment: Treatment::Map(mapper), dynamic: false }
}

fn spec(port: u16, topics: &[&str]) -> ClientSpec {
    let broker = BrokerAddress::Remote { host: "127.0.0.1".into(), port };
    ClientSpec::new(broker, topics.iter().map(|filter| topic(filter)).collect())
}

/// A client that is connected to the fake broker.
async fn start(node: &TestNode, broker: &Fake, spec: ClientSpec) -> (Peer, Arc<MessageClient>) {
    let (started, peer) = tokio::join!(node.ingest.start_client(spec), broker.ready(false));
    started.unwrap();
    (peer, node.ingest.clients().remove(0))
}

// R1
#[tokio::test(flavor = "multi_thread")]
async fn connected_is_said_after_the_answer_to_subscribe() {
    let (broker, node) = (Fake::start().await, TestNode::start().await);
    let ingest = Arc::clone(&node.ingest);
    let spec = spec(broker.port, &["n"]);
    let starting = tokio::spawn(async move { ingest.start_client(spec).await });
    let mut peer = broker.client().await;
    peer.accept(false).await;
    let (first, body) = peer.receive().await;
    assert_eq!(first, 0x82);
    tokio::task::yield_now().await;
    assert!(!starting.is_finished(), "SUBSCRIBE is not answered yet");
    peer.send(&[0x90, 4, body[0], body[1], 0, 1]).await;
    starting.await.unwrap().unwrap();
    assert_eq!(node.ingest.clients().remove(0).connection(), "Connected");
}

// R1, R2
#[tokio::test(flavor = "multi_thread")]
async fn every_topic_is_subscribed_again_on_every_connection() {
    let (broker, node) = (Fake::start().await, TestNode::start().await);
    let ready = async |session_present: bool| {
        let mut peer = broker.client().await;
        peer.accept(session_present).await;
        let filters = peer.grant(&[1, 1]).await;
        assert_eq!(filters.iter().filter(|byte| b"ab".contains(byte)).count(), 2, "{filters:?}");
        peer
    };
    let (started, peer) = tokio::join!(node.ingest.start_client(spec(broker.port, &["a", "b"])), ready(false));
    started.unwrap();
    let client = node.ingest.clients().remove(0);
    let connected = || client.connection() == "Connected";
    drop(peer);
    // With a session, and without one.
    let peer = ready(true).await;
    until("the client to be connected", || client.connections() == 2 && connected()).await;
    assert_eq!(client.resubscribed(), 0);
    drop(peer);
    let _peer = ready(false).await;
    until("the client to be connected", || client.connections() == 3 && connected()).await;
    assert_eq!(client.resubscribed(), 1);
    let shown = node.run("get msg client").await.unwrap();
    assert!(shown.contains("Resubscribed: 1\r\n"), "{shown}");
}

// R1
#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_is_refused_is_said_and_asked_for_again() {
    let (broker, node) = (Fake::start().await, TestNode::start().await);
    let refusing = async {
        let mut peer = broker.client().await;
        peer.accept(false).await;
        peer.grant(&[1, 0x87]).await;
        peer.closed().await;
    };
    let (started, ()) = tokio::join!(node.ingest.start_client(spec(broker.port, &["a", "b"])), refusing);
    let error = started.unwrap_err();
    assert_eq!(error.status.0, 122);
    assert!(error.message.contains("'b'") && error.message.contains("permission"), "{error}");
    assert!(node.ingest.clients().is_empty());

    let (peer, client) = start(&node, &broker, spec(broker.port, &["n"])).await;
    drop(peer);
    let mut peer = broker.client().await;
    peer.accept(true).await;
    peer.grant(&[0x80]).await;
    until("the refusal to be shown", || client.connection().contains("refused the subscription of 'n'")).await;
    // On the same connection, after a while.
    peer.grant(&[1]).await;
    until("the client to be connected", || client.connection() == "Connected").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_hangs_is_left_and_shown_with_the_step() {
    let (broker, node) = (Fake::start().await, TestNode::start().await);
    let mut spec = spec(broker.port, &["n"]);
    spec.deadline = Duration::from_millis(300);
    // It takes the connection and says nothing.
    let unreached = || node.ingest.clients().first().and_then(|client| client.unreached()).unwrap_or_default();
    let (started, _socket) = tokio::join!(node.ingest.start_client(spec.clone()), broker.socket());
    started.unwrap();
    assert!(unreached().contains("no answer to CONNECT within 300ms"), "{}", unreached());
    node.ingest.stop_clients();
    // It says nothing after CONNACK.
    let hanging = async {
        let mut peer = broker.client().await;
        peer.accept(false).await;
        peer.closed().await;
    };
    let (started, ()) = tokio::join!(node.ingest.start_client(spec), hanging);
    started.unwrap();
    assert!(unreached().contains("no answer to SUBSCRIBE within 300ms"), "{}", unreached());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_dead_is_replaced_in_one_and_a_half_keep_alives() {
    let (broker, node) = (Fake::start().await, TestNode::start().await);
    let mut spec = spec(broker.port, &["n"]);
    spec.keep_alive = Duration::from_secs(1);
    let (mut silent, client) = start(&node, &broker, spec).await;
    let begun = Instant::now();
    // The socket stays open, and no byte comes.
    let _peer = broker.ready(true).await;
    let took = begun.elapsed();
    // How much longer is looked at in simulated time, beside the connection.
    assert!(took > Duration::from_secs(1), "{took:?}");
    until("the client to be connected", || client.connection() == "Connected").await;
    assert_eq!(silent.receive().await.0, 0xc0, "a ping was sent first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_hangs_up_each_time_is_asked_less_and_less() {
    let (broker, node) = (Fake::start().await, TestNode::start().await);
    let (peer, client) = start(&node, &broker, spec(broker.port, &["n"])).await;
    drop(peer);
    let mut gaps = Vec::new();
    let mut last = Instant::now();
    for round in 0..6 {
        // Before CONNECT, and after the subscription.
        if round % 2 == 0 {
            drop(broker.socket().await);
        } else {
            drop(broker.ready(true).await);
        }
        gaps.push(last.elapsed());
        last = Instant::now();
    }
    let total: Duration = gaps.iter().sum();
    // Half of 0.1, 0.2, 0.4 ... at least: each pause is drawn from the upper half of its length.
    assert!(total > Duration::from_millis(1500), "{gaps:?}");
    assert!(gaps[5] > gaps[1] * 2, "{gaps:?}");
    until("the reason to be shown", || client.connection().starts_with("Not connected: ")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_what_to_do() {
    let (broker, node) = (Fake::start().await, TestNode::start().await);
    for (code, words) in [(0x86, "user or password is wrong"), (0x87, "do not permit"), (0x85, "client_id")] {
        let refusing = async {
            let mut peer = broker.client().await;
            peer.answer(0, code).await;
            peer.closed().await;
        };
        let (started, ()) = tokio::join!(node.ingest.start_client(spec(broker.port, &["n"])), refusing);
        let error = started.unwrap_err();
        assert!(error.message.contains(words), "{error}");
        assert!(error.hint.is_some());
    }
    // What passes by itself is waited for.
    let busy = async {
        broker.client().await.answer(0, 0x89).await;
        broker.ready(false).await
    };
    let (started, _peer) = tokio::join!(node.ingest.start_client(spec(broker.port, &["n"])), busy);
    started.unwrap();
    let client = node.ingest.clients().remove(0);
    until("the client to be connected", || client.connection() == "Connected").await;
    let mut nowhere = spec(1883, &["n"]);
    nowhere.broker = BrokerAddress::Remote { host: "no-such-host.invalid".into(), port: 1883 };
    node.ingest.start_client(nowhere).await.unwrap();
    let error = node.ingest.clients().iter().find_map(|client| client.unreached()).unwrap();
    assert!(error.contains("the host 'no-such-host.invalid' was not found"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_client_shows_why_it_is_refused() {
    let (broker, node) = (Fake::start().await, TestNode::start().await);
    let (peer, client) = start(&node, &broker, spec(broker.port, &["n"])).await;
    drop(peer);
    // The password was changed meanwhile.
    let mut peer = broker.client().await;
    peer.answer(0, 0x86).await;
    until("the reason to be shown", || client.connection().contains("user or password is wrong")).await;
    let _peer = broker.ready(true).await;
    until("the client to be connected", || client.connection() == "Connected").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_of_version_3_1_1_is_spoken_to_in_its_version() {
    let (broker, node) = (Fake::start().await, TestNode::start().await);
    let old = async {
        let mut peer = broker.client().await;
        assert_eq!(peer.level, 5);
        peer.send(&[0x20, 2, 0, 1]).await;
        drop(peer);
        let mut peer = broker.ready(false).await;
        assert_eq!(peer.level, 4);
        peer.publish(1, 1, false, 7).await;
        assert_eq!(peer.acks(1).await, [(0x40, 1)]);
        drop(peer);
        // It is remembered.
        assert_eq!(broker.ready(true).await.level, 4);
    };
    let (started, ()) = tokio::join!(node.ingest.start_client(spec(broker.port, &["n"])), old);
    started.unwrap();
    assert_eq!(node.ingest.clients().remove(0).protocol(), Some("MQTT 3.1.1"));
}

// R21, MQTT-4.6.0-2
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_again_while_it_is_stored_is_stored_once_and_acknowledged_in_order() {
    let (broker, node) = (Fake::start().await, TestNode::start().await);
    let (mut peer, client) = start(&node, &broker, spec(broker.port, &["n"])).await;
    node.sink.hold(true);
    for n in 1..=5 {
        peer.publish(n, 1 + u8::from(n == 3), false, n.into()).await;
    }
    until("all to arrive", || client.load().unwrap().in_flight == 5).await;
    drop(peer);
    // The store holds the messages, and the connection comes back all the same.
    let mut peer = broker.ready(true).await;
    for n in 1..=5 {
        peer.publish(n, 1 + u8::from(n == 3), true, n.into()).await;
    }
    peer.publish(6, 1, false, 6).await;
    until("all to arrive", || client.load().unwrap().in_flight == 6).await;
    node.sink.hold(false);
    assert_eq!(peer.acks(6).await, [(0x40, 1), (0x40, 2), (0x50, 3), (0x40, 4), (0x40, 5), (0x40, 6)]);
    assert_eq!(node.numbers("test.numbers"), (1..=6).collect::<Vec<_>>());
}

// MQTT-4.3.3-2
#[tokio::test(flavor = "multi_thread")]
async fn qos_2_is_stored_once_over_breaks_and_a_release_of_an_earlier_connection_is_answered() {
    let (broker, node) = (Fake::start().await, TestNode::start().await);
    let (mut peer, _client) = start(&node, &broker, spec(broker.port, &["n"])).await;
    peer.publish(9, 2, false, 1).await;
    assert_eq!(peer.acks(1).await, [(0x50, 9)]);
    drop(peer);
    let mut peer = broker.ready(true).await;
    peer.publish(9, 2, true, 1).await;
    assert_eq!(peer.acks(1).await, [(0x50, 9)]);
    drop(peer);
    let mut peer = broker.ready(true).await;
    // Released on another connection than the one that it was received on, and twice.
    for _ in 0..2 {
        peer.send(&[0x62, 2, 0, 9]).await;
        assert_eq!(peer.acks(1).await, [(0x70, 9)]);
    }
    assert_eq!(node.numbers("test.numbers"), [1]);
    peer.publish(9, 2, false, 2).await;
    assert_eq!(peer.acks(1).await, [(0x50, 9)]);
    assert_eq!(node.numbers("test.numbers"), [1, 2]);
}

// R2: a session that the broker forgot takes its packet ids with it.
#[tokio::test(flavor = "multi_thread")]
async fn an_id_of_a_forgotten_session_means_another_message() {
    let (broker, node) = (Fake::start().await, TestNode::start().await);
    let (mut peer, _client) = start(&node, &broker, spec(broker.port, &["n"])).await;
    peer.publish(9, 2, false, 1).await;
    assert_eq!(peer.acks(1).await, [(0x50, 9)]);
    drop(peer);
    let mut peer = broker.ready(false).await;
    peer.publish(9, 2, false, 1).await;
    assert_eq!(peer.acks(1).await, [(0x50, 9)]);
    assert_eq!(node.numbers("test.numbers"), [1, 1], "two messages with the same content");
}

// R14
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_mapped_is_acknowledged_in_its_turn() {
    let (broker, node) = (Fake::start().await, TestNode::start().await);
    let (mut peer, client) = start(&node, &broker, spec(broker.port, &["n"])).await;
    for n in 1..=300_u16 {
        if n % 3 == 0 {
            let properties = usize::from(peer.level == 5);
            let mut packet = vec![0x32, u8::try_from(6 + properties).unwrap(), 0, 1, b'n'];
            packet.extend(n.to_be_bytes());
            packet.extend(vec![0; properties]);
            packet.push(0xff);
            peer.send(&packet).await;
        } else {
            peer.publish(n, 1, false, n.into()).await;
        }
    }
    let acks = peer.acks(300).await;
    assert!(acks.iter().map(|(_, id)| *id).eq(1..=300), "{acks:?}");
    // The order of the rows is that of the messages.
    let rows: Vec<String> = (1..=300).filter(|n| n % 3 != 0).map(|n| format!("{{\"n\":{n}}}")).collect();
    assert_eq!(node.sink.rows("test.numbers"), rows);
    let counts = client.counters.counts();
    assert_eq!((counts.messages, counts.success, counts.errors), (300, 200, 100));
}

// R4
#[tokio::test(flavor = "multi_thread")]
async fn the_client_id_is_the_same_after_a_start_and_another_one_elsewhere() {
    let broker = Fake::start().await;
    let node = TestNode::start().await;
    let (peer, client) = start(&node, &broker, spec(broker.port, &["n"])).await;
    let id = peer.client_id.clone();
    assert_eq!(client.client_id(), Some(id.as_str()));
    node.run("exit msg client all").await.unwrap();
    drop(peer);
    let (peer, _client) = start(&node, &broker, spec(broker.port, &["n"])).await;
    assert_eq!(peer.client_id, id);
    // Other topics, another client.
    let (_, other) = tokio::join!(node.ingest.start_client(spec(broker.port, &["m"])), broker.ready(false));
    assert_ne!(other.client_id, id);
    // Another node, another client, with the same topics and names.
    let elsewhere = TestNode::start().await;
    let (peer, _client) = start(&elsewhere, &broker, spec(broker.port, &["n"])).await;
    assert_ne!(peer.client_id, id);
}

// MQTT-4.3.3-2: the successor of a client waits until what the client was storing is stored.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_ended_and_started_again_stores_qos_2_once() {
    let (broker, node) = (Fake::start().await, TestNode::start().await);
    let (mut peer, client) = start(&node, &broker, spec(broker.port, &["n"])).await;
    node.sink.hold(true);
    peer.publish(9, 1, false, 1).await;
    until("the message to arrive", || client.load().unwrap().in_flight == 1).await;
    node.sink.waiting(1).await;
    node.run("exit msg client all").await.unwrap();
    let ingest = Arc::clone(&node.ingest);
    let again = spec(broker.port, &["n"]);
    let starting = tokio::spawn(async move { ingest.start_client(again).await });
    // No other connection while the message is being stored.
    assert!(timeout(Duration::from_millis(300), broker.listener.accept()).await.is_err());
    node.sink.hold(false);
    let _peer = broker.ready(true).await;
    starting.await.unwrap().unwrap();
    assert_eq!(node.numbers("test.numbers"), [1]);
    let mut same_id = spec(broker.port, &["m"]);
    same_id.client_id = node.ingest.clients().remove(0).client_id().map(str::to_owned);
    let error = node.ingest.start_client(same_id).await.unwrap_err();
    assert!(error.message.contains("is used by message client 0002"), "{error}");
}

/// Any bytes from a broker end the connection at worst; the client comes back.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_breaks_the_protocol_is_left_and_met_again() {
    let (broker, node) = (Fake::start().await, TestNode::start().await);
    let (mut peer, client) = start(&node, &broker, spec(broker.port, &["n"])).await;
    peer.send(&[0x82, 3, 0, 1, 0]).await;
    peer.closed().await;
    until("the reason to be shown", || client.connection().contains("broke the protocol")).await;
    let mut peer = broker.ready(true).await;
    // A packet that is announced larger than any that is taken.
    peer.send(&[0x30, 0xff, 0xff, 0xff, 0x7f]).await;
    peer.closed().await;
    let mut peer = broker.ready(true).await;
    peer.publish(1, 1, false, 1).await;
    assert_eq!(peer.acks(1).await, [(0x40, 1)]);
}
