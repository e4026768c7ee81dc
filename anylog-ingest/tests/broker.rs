//! The broker with real clients: rumqttc of both versions, mosquitto_pub and mosquitto_sub.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use anylog_ingest::SinkError;
use rumqttc::mqttbytes::v4::Packet;
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, QoS};
use support::{DEADLINE, TestNode, until};

fn client(node: &TestNode, id: &str) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new(id, "127.0.0.1", node.address.port());
    options.set_keep_alive(Duration::from_secs(5));
    AsyncClient::new(options, 10_000)
}

/// Polls until `enough` says so.
async fn poll(events: &mut EventLoop, what: &str, mut enough: impl FnMut(&Event) -> bool) {
    let polled = tokio::time::timeout(DEADLINE, async {
        loop {
            let event = events.poll().await.unwrap_or_else(|error| panic!("{what}: {error}"));
            if enough(&event) {
                return;
            }
        }
    });
    assert!(polled.await.is_ok(), "in vain waited for: {what}");
}

async fn acknowledgements(events: &mut EventLoop, mut count: usize) {
    poll(events, "acknowledgements", |event| {
        if matches!(event, Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_))) {
            count -= 1;
        }
        count == 0
    })
    .await;
}

fn publish_with_mosquitto(node: &TestNode, arguments: &[&str]) {
    let status = Command::new("mosquitto_pub")
        .args(["-h", "127.0.0.1", "-p", &node.address.port().to_string()])
        .args(arguments)
        .status()
        .expect("mosquitto_pub is installed");
    assert!(status.success());
}

// DUR-1
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_before_its_receipt() {
    let node = TestNode::start().await;
    node.map("broker=local", "t", 1, "numbers").await;
    node.sink.hold(true);
    let (client, mut events) = client(&node, "a");
    for n in 0..50 {
        let qos = if n % 2 == 0 { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
        client.publish("t", qos, false, format!("{{\"n\":{n}}}")).await.unwrap();
    }
    let mut pings = 0;
    poll(&mut events, "two pings while the store is held back", |event| {
        let Event::Incoming(packet) = event else { return false };
        assert!(!matches!(packet, Packet::PubAck(_) | Packet::PubRec(_)), "{packet:?} before the receipt");
        pings += usize::from(matches!(packet, Packet::PingResp));
        pings == 2
    })
    .await;
    assert_eq!(node.sink.waiting_now(), 50, "all publishes of a connection are stored at the same time");
    node.sink.hold(false);
    acknowledgements(&mut events, 50).await;
    assert_eq!(node.numbers("test.numbers"), (0..50).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn mosquitto_pub_is_served_in_both_versions_and_all_qualities() {
    let node = TestNode::start().await;
    node.map("broker=local", "plant/+/n", 2, "numbers").await;
    let mut n = 0;
    for version in ["mqttv311", "mqttv5"] {
        for qos in ["0", "1", "2"] {
            publish_with_mosquitto(
                &node,
                &["-V", version, "-q", qos, "-t", "plant/x/n", "-m", &format!("{{\"n\": {n}}}")],
            );
            n += 1;
        }
    }
    node.sink.stored(6).await;
    assert_eq!(node.numbers("test.numbers"), [0, 1, 2, 3, 4, 5]);
    assert_eq!(node.sink.declared("test.numbers"), [("n".to_owned(), "int".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn mosquitto_sub_gets_what_it_subscribed_to() {
    let node = TestNode::start().await;
    publish_with_mosquitto(&node, &["-r", "-q", "1", "-t", "a/kept", "-m", "retained"]);
    let port = node.address.port().to_string();
    for version in ["mqttv311", "mqttv5"] {
        for qos in ["0", "1", "2"] {
            let arguments =
                ["-h", "127.0.0.1", "-p", &port, "-V", version, "-q", qos, "-t", "a/#", "-v", "-C", "3", "-W", "20"];
            let mut subscriber = Command::new("mosquitto_sub")
                .args(arguments)
                .stdout(Stdio::piped())
                .spawn()
                .expect("mosquitto_sub is installed");
            let broker = node.ingest.broker();
            until("the subscription", || broker.usage().subscriptions == 1).await;
            publish_with_mosquitto(&node, &["-q", "2", "-V", version, "-t", "a/b", "-m", "one"]);
            publish_with_mosquitto(&node, &["-q", "2", "-t", "b", "-m", "not for it"]);
            publish_with_mosquitto(&node, &["-q", "2", "-t", "a", "-m", "two"]);
            let mut output = String::new();
            subscriber.stdout.take().unwrap().read_to_string(&mut output).unwrap();
            assert!(subscriber.wait().unwrap().success());
            assert_eq!(output, "a/kept retained\na/b one\na two\n", "{version} QoS {qos}");
            until("the end of the session", || broker.usage().subscriptions == 0).await;
        }
    }
}

// R14
#[tokio::test(flavor = "multi_thread")]
async fn messages_that_cannot_be_mapped_are_kept_with_their_reason_and_acknowledged() {
    let node = TestNode::start().await;
    node.map("broker=local", "t", 1, "numbers").await;
    let (client, mut events) = client(&node, "a");
    let payloads: [&[u8]; 4] = [b"", b"\xff\x00", b"{\"n\":", b"{\"m\": 1}"];
    for n in 0..100_usize {
        client.publish("t", QoS::AtLeastOnce, false, payloads[n % 4]).await.unwrap();
        client.publish("t", QoS::AtLeastOnce, false, format!("{{\"n\":{n}}}")).await.unwrap();
    }
    acknowledgements(&mut events, 200).await;
    assert_eq!(node.numbers("test.numbers"), (0..100).collect::<Vec<_>>());
    let aside = node.sink.aside();
    assert_eq!(aside.len(), 100);
    for (unmapped, n) in aside.iter().zip(0..) {
        let message = &unmapped.message;
        assert_eq!((&*message.broker, &*message.filter, &*message.topic), ("local", "t", "t"));
        assert_eq!(&message.payload[..], payloads[n % 4], "as it came");
        assert!(unmapped.reason.len() > 10 && unmapped.origin == "mqtt topic t");
        assert_eq!(unmapped.kind, if n % 4 == 3 { "mapping" } else { "not_json" });
    }
    assert_eq!(aside[3].column, "n");
    let shown = node.run("get local broker").await.unwrap();
    assert!(shown.contains("messages in the quarantine") && shown.contains("100"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_for_a_table_that_cannot_be_is_kept_too() {
    let node = TestNode::start().await;
    node.map("broker=local", "t", 1, "numbers").await;
    node.sink.fail(Some(SinkError::UnknownDbms { dbms: "test".into() }));
    let (client, mut events) = client(&node, "a");
    client.publish("t", QoS::ExactlyOnce, false, "{\"n\":1}").await.unwrap();
    acknowledgements(&mut events, 1).await;
    assert!(node.sink.aside()[0].reason.contains("not connected"), "{:?}", node.sink.aside());
}

// R13: an element of a list that does not map stands alone.
#[tokio::test(flavor = "multi_thread")]
async fn an_element_that_does_not_map_does_not_take_the_others_with_it() {
    let node = TestNode::start().await;
    node.map("broker=local", "t", 1, "numbers").await;
    let (client, mut events) = client(&node, "a");
    client.publish("t", QoS::AtLeastOnce, false, r#"[{"n": 1}, {"m": 2}, {"n": 3}, 4]"#).await.unwrap();
    acknowledgements(&mut events, 1).await;
    assert_eq!(node.numbers("test.numbers"), [1, 3]);
    let aside: Vec<_> = node.sink.aside().into_iter().map(|one| (one.position, one.message.payload.clone())).collect();
    assert_eq!(aside, [(1, r#"{"m": 2}"#.into()), (3, "4".into())]);
}

// R14: without a place in the quarantine there is no acknowledgement, and nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_quarantine_holds_the_acknowledgement_back() {
    let node = TestNode::start().await;
    node.map("broker=local", "t", 1, "numbers").await;
    node.sink.fail_aside(Some(SinkError::QuarantineFull { bytes: 10, limit: 10 }));
    let (client, mut events) = client(&node, "a");
    client.publish("t", QoS::AtLeastOnce, false, "not json").await.unwrap();
    let emptied = async {
        until("the message is refused once", || node.sink.aside_tried() > 0).await;
        assert!(node.sink.aside().is_empty());
        node.sink.fail_aside(None);
    };
    tokio::join!(acknowledgements(&mut events, 1), emptied);
    assert_eq!(node.sink.aside().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_that_may_pass_are_waited_for() {
    let node = TestNode::start().await;
    node.map("broker=local", "t", 1, "numbers").await;
    node.sink.fail(Some(SinkError::DiskFull));
    let (client, mut events) = client(&node, "a");
    client.publish("t", QoS::AtLeastOnce, false, "{\"n\":1}").await.unwrap();
    poll(&mut events, "a ping", |event| {
        assert!(!matches!(event, Event::Incoming(Packet::PubAck(_))), "acknowledged on a full disk");
        matches!(event, Event::Incoming(Packet::PingResp))
    })
    .await;
    node.sink.fail(None);
    acknowledgements(&mut events, 1).await;
    assert_eq!(node.numbers("test.numbers"), [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_store_publishes_wait_and_qos_0_is_counted() {
    let node = TestNode::start().await;
    node.map("broker=local", "t", 1, "numbers").await;
    node.slot.unmount();
    let (client, mut events) = client(&node, "a");
    client.publish("t", QoS::AtMostOnce, false, "{\"n\":0}").await.unwrap();
    client.publish("t", QoS::AtLeastOnce, false, "{\"n\":1}").await.unwrap();
    client.publish("unmapped", QoS::AtLeastOnce, false, "free").await.unwrap();
    poll(&mut events, "a ping", |event| {
        assert!(!matches!(event, Event::Incoming(Packet::PubAck(_))), "acknowledged without a store");
        matches!(event, Event::Incoming(Packet::PingResp))
    })
    .await;
    assert_eq!(node.ingest.broker().usage().dropped, 1);
    let sink = std::sync::Arc::clone(&node.sink);
    node.slot.mount(|_| sink);
    acknowledgements(&mut events, 2).await;
    assert_eq!(node.numbers("test.numbers"), [1]);
}

// R5, R23
#[tokio::test(flavor = "multi_thread")]
async fn what_a_connection_holds_is_bounded_and_none_of_it_is_lost() {
    const MESSAGES: u16 = 2000;
    const PADDING: usize = 12_000;
    let node = TestNode::start().await;
    node.map("broker=local", "t", 1, "numbers").await;
    node.sink.hold(true);
    let mut socket = TcpStream::connect(node.address).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.write_all(&[0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, 1, b'f']).unwrap();
    let mut writer = socket.try_clone().unwrap();
    // A client without a window of its own: it sends everything at once and reads the answers afterwards.
    let flood = std::thread::spawn(move || {
        for id in 1..=MESSAGES {
            let payload = format!("{{\"n\":{id},\"padding\":\"{}\"}}", "x".repeat(PADDING));
            let length = 5 + payload.len();
            let mut packet =
                vec![0x32, u8::try_from(length % 128).unwrap() | 0x80, u8::try_from(length / 128).unwrap()];
            packet.extend([0, 1, b't']);
            packet.extend(id.to_be_bytes());
            packet.extend(payload.as_bytes());
            writer.write_all(&packet).unwrap();
        }
    });
    let broker = node.ingest.broker();
    let (_, bytes) = anylog_ingest::broker::MAX_PENDING;
    until("the bound to be reached", || broker.usage().held_bytes + PADDING + 1024 > bytes).await;
    assert!(broker.usage().held_bytes < bytes + PADDING + 1024, "{:?}", broker.usage());
    node.sink.hold(false);
    let answers = tokio::task::spawn_blocking(move || {
        let mut answers = vec![0; 4 + 4 * usize::from(MESSAGES)];
        socket.read_exact(&mut answers).unwrap();
        answers
    });
    let answers = answers.await.unwrap();
    flood.join().unwrap();
    let ids: Vec<u16> = answers[4..].chunks(4).map(|ack| u16::from_be_bytes([ack[2], ack[3]])).collect();
    assert_eq!(ids, (1..=MESSAGES).collect::<Vec<_>>(), "acknowledged in order");
    assert_eq!(node.numbers("test.numbers"), (1..=u64::from(MESSAGES)).collect::<Vec<_>>());
    assert_eq!(broker.usage().held_bytes, 0);
}

// R21
#[tokio::test(flavor = "multi_thread")]
async fn a_redelivery_over_a_reconnect_is_stored_once() {
    let node = TestNode::start().await;
    node.map("broker=local", "t", 2, "numbers").await;
    node.sink.hold(true);
    let connect = [0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 0, 0, 60, 0, 1, b'p'];
    let publish = |first: u8, id: u8| [&[first, 12, 0, 1, b't', 0, id][..], b"{\"n\":1}"].concat();
    let mut socket = TcpStream::connect(node.address).unwrap();
    socket.write_all(&connect).unwrap();
    socket.write_all(&publish(0x32, 1)).unwrap();
    socket.write_all(&publish(0x34, 2)).unwrap();
    node.sink.waiting(2).await;
    drop(socket);
    let mut socket = TcpStream::connect(node.address).unwrap();
    socket.write_all(&connect).unwrap();
    socket.write_all(&publish(0x3a, 1)).unwrap();
    socket.write_all(&publish(0x3c, 2)).unwrap();
    let mut answer = [0; 4];
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [0x20, 2, 1, 0], "the session is present");
    node.sink.hold(false);
    let mut answer = [0; 8];
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [0x40, 2, 0, 1, 0x50, 2, 0, 2]);
    // QoS 2: discarded until the release, answered each time.
    socket.write_all(&publish(0x3c, 2)).unwrap();
    socket.write_all(&[0x62, 2, 0, 2]).unwrap();
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [0x50, 2, 0, 2, 0x70, 2, 0, 2]);
    assert_eq!(node.numbers("test.numbers"), [1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_wait_for_a_client_with_a_lasting_session() {
    let node = TestNode::start().await;
    let options = || {
        let mut options = MqttOptions::new("away", "127.0.0.1", node.address.port());
        options.set_clean_session(false);
        options
    };
    let (away, mut events) = AsyncClient::new(options(), 10);
    away.subscribe("a/#", QoS::ExactlyOnce).await.unwrap();
    poll(&mut events, "SUBACK", |event| matches!(event, Event::Incoming(Packet::SubAck(_)))).await;
    drop((away, events));
    publish_with_mosquitto(&node, &["-q", "1", "-t", "a/b", "-m", "while away"]);
    publish_with_mosquitto(&node, &["-q", "0", "-t", "a/b", "-m", "volatile"]);
    publish_with_mosquitto(&node, &["-q", "2", "-t", "a/c", "-m", "again"]);
    let (_away, mut events) = AsyncClient::new(options(), 10);
    let mut got = Vec::new();
    poll(&mut events, "both messages", |event| {
        if let Event::Incoming(Packet::Publish(publish)) = event {
            got.push(String::from_utf8(publish.payload.to_vec()).unwrap());
        }
        got.len() == 2
    })
    .await;
    assert_eq!(got, ["while away", "again"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_id_is_taken_over_and_a_will_is_published() {
    let node = TestNode::start().await;
    let (watcher, mut watched) = client(&node, "watcher");
    watcher.subscribe("will", QoS::AtLeastOnce).await.unwrap();
    poll(&mut watched, "SUBACK", |event| matches!(event, Event::Incoming(Packet::SubAck(_)))).await;
    let mut options = MqttOptions::new("twin", "127.0.0.1", node.address.port());
    options.set_last_will(rumqttc::LastWill::new("will", "gone", QoS::AtLeastOnce, false));
    let (_first, mut first) = AsyncClient::new(options, 10);
    poll(&mut first, "CONNACK", |event| matches!(event, Event::Incoming(Packet::ConnAck(_)))).await;
    let (_second, mut second) = client(&node, "twin");
    poll(&mut second, "CONNACK", |event| matches!(event, Event::Incoming(Packet::ConnAck(_)))).await;
    // MQTT-3.1.4-2: the first connection ends; MQTT-3.1.2-8: its will is published.
    assert!(tokio::time::timeout(DEADLINE, first.poll()).await.unwrap().is_err());
    poll(
        &mut watched,
        "the will",
        |event| matches!(event, Event::Incoming(Packet::Publish(publish)) if publish.payload == "gone"),
    )
    .await;
}

// MQTT-3.1.2-24
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_client_is_hung_up_on() {
    let node = TestNode::start().await;
    let mut socket = TcpStream::connect(node.address).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.write_all(&[0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 1, 0, 1, b's']).unwrap();
    let begun = std::time::Instant::now();
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, [0x20, 2, 0, 0]);
    assert!(begun.elapsed() >= Duration::from_millis(1400), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_ends_its_own_connection_only() {
    let node = TestNode::start().await;
    node.map("broker=local", "t", 1, "numbers").await;
    let broker = node.ingest.broker();
    let connect = [0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 1, b'g'];
    for garbage in [
        &b"\x10\x05hello"[..],
        b"\x10\xff\xff\xff\xff\xff",
        b"\x10\x0c\x00\x04MQTT\x09\x02\x00\x3c\x00\x00",
        &[&connect[..], &[0xf0, 0]].concat(),
        &[&connect[..], &[0x30, 0xff, 0xff, 0xff, 0x7f]].concat(),
        &[&connect[..], &connect[..]].concat(),
        &[&connect[..], &[0x32, 7, 0, 3, b'a', b'/', b'+', 0, 1]].concat(),
    ] {
        let mut socket = TcpStream::connect(node.address).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.write_all(garbage).unwrap();
        let mut rest = Vec::new();
        // A reset is as good an end as any.
        drop(socket.read_to_end(&mut rest));
    }
    let (client, mut events) = client(&node, "good");
    client.publish("t", QoS::AtLeastOnce, false, "{\"n\":1}").await.unwrap();
    acknowledgements(&mut events, 1).await;
    until("all faults to be counted", || broker.events().iter().map(|event| event.errors).sum::<u64>() >= 7).await;
    assert!(node.node.errors.messages().iter().any(|message| message.kind == "MQTT"));
    until("all connections to end", || broker.usage().connections == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_connections_are_served() {
    let node = TestNode::start().await;
    node.map("broker=local", "many/#", 1, "numbers").await;
    let connections: Vec<_> = (0..300).map(|n| client(&node, &format!("c{n}"))).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for (n, (client, mut events)) in connections.into_iter().enumerate() {
        tasks.spawn(async move {
            for m in 0..10 {
                client
                    .publish(format!("many/{n}"), QoS::AtLeastOnce, false, format!("{{\"n\":{}}}", n * 10 + m))
                    .await
                    .unwrap();
            }
            acknowledgements(&mut events, 10).await;
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(node.numbers("test.numbers"), (0..3000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn version_5_clients_get_reasons_and_properties() {
    use rumqttc::v5::mqttbytes::v5::{Packet, PublishProperties};
    use rumqttc::v5::{AsyncClient, Event, MqttOptions};
    let node = TestNode::start().await;
    node.map("broker=local", "t", 2, "numbers").await;
    let (client, mut events) = AsyncClient::new(MqttOptions::new("v5", "127.0.0.1", node.address.port()), 10);
    let properties = PublishProperties { user_properties: vec![("unit".into(), "bar".into())], ..Default::default() };
    let qos = rumqttc::v5::mqttbytes::QoS::ExactlyOnce;
    client.subscribe("t", qos).await.unwrap();
    client.publish_with_properties("t", qos, false, "{\"n\":5}", properties.clone()).await.unwrap();
    let (mut got, mut done) = (None, false);
    let polled = tokio::time::timeout(DEADLINE, async {
        while got.is_none() || !done {
            match events.poll().await.unwrap() {
                Event::Incoming(Packet::Publish(publish)) => got = publish.properties,
                Event::Incoming(Packet::PubComp(_)) => done = true,
                Event::Incoming(Packet::ConnAck(ack)) => {
                    let properties = ack.properties.unwrap();
                    assert_eq!(properties.shared_subscription_available, Some(0));
                    assert_eq!(properties.topic_alias_max, None);
                }
                _ => {}
            }
        }
    });
    polled.await.unwrap();
    assert_eq!(got.unwrap().user_properties, properties.user_properties);
    assert_eq!(node.numbers("test.numbers"), [5]);
}

// OPS-2
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_broker_frees_its_port_and_keeps_what_it_acknowledged() {
    let node = TestNode::start().await;
    node.map("broker=local", "t", 1, "numbers").await;
    let (client, mut events) = client(&node, "a");
    client.publish("t", QoS::AtLeastOnce, false, "{\"n\":1}").await.unwrap();
    acknowledgements(&mut events, 1).await;
    assert!(node.listeners.stop(anylog_net::ServerKind::Broker).await);
    assert!(TcpStream::connect(node.address).is_err());
    assert_eq!(node.numbers("test.numbers"), [1]);
}
