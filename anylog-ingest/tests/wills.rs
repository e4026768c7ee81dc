//! Wills of MQTT 5 that wait for their client (MQTT5 3.1.3.2.2), and messages that expire.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod support;

use std::time::{Duration, Instant};

use bytes::Bytes;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectProperties, LastWill, LastWillProperties, Packet, PublishProperties};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use support::{DEADLINE, TestNode};

fn options(node: &TestNode, id: &str, clean: bool) -> MqttOptions {
    let mut options = MqttOptions::new(id, "127.0.0.1", node.address.port());
    options.set_keep_alive(Duration::from_secs(30)).set_clean_start(clean);
    let properties = ConnectProperties { session_expiry_interval: Some(600), ..ConnectProperties::new() };
    options.set_connect_properties(properties);
    options
}

fn with_will(node: &TestNode, id: &str, clean: bool, delay: u32) -> EventLoop {
    let properties = LastWillProperties {
        delay_interval: Some(delay),
        payload_format_indicator: None,
        message_expiry_interval: None,
        content_type: Some("text/plain".into()),
        response_topic: None,
        correlation_data: Some(Bytes::from_static(b"7")),
        user_properties: vec![("a".into(), "b".into())],
    };
    let mut options = options(node, id, clean);
    options.set_last_will(LastWill::new("wills", id, QoS::AtLeastOnce, false, Some(properties)));
    AsyncClient::new(options, 10).1
}

async fn connected(events: &mut EventLoop) {
    loop {
        let event = tokio::time::timeout(DEADLINE, events.poll()).await.expect("in time").unwrap();
        if matches!(event, Event::Incoming(Packet::ConnAck(_))) {
            return;
        }
    }
}

async fn subscriber(node: &TestNode) -> (AsyncClient, EventLoop) {
    let (client, mut events) = AsyncClient::new(options(node, "subscriber", true), 10);
    client.subscribe("wills", QoS::AtLeastOnce).await.unwrap();
    loop {
        let event = tokio::time::timeout(DEADLINE, events.poll()).await.expect("in time").unwrap();
        if matches!(event, Event::Incoming(Packet::SubAck(_))) {
            return (client, events);
        }
    }
}

/// The next message.
async fn next(events: &mut EventLoop) -> (Bytes, Option<PublishProperties>) {
    loop {
        let event = tokio::time::timeout(DEADLINE, events.poll()).await.expect("a message in time").unwrap();
        if let Event::Incoming(Packet::Publish(publish)) = event {
            return (publish.payload, publish.properties);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_will_waits_for_its_client() {
    let node = TestNode::start().await;
    let (_client, mut events) = subscriber(&node).await;
    let mut gone = with_will(&node, "gone", false, 1);
    connected(&mut gone).await;
    let before = Instant::now();
    // The connection ends without DISCONNECT.
    drop(gone);
    let (payload, properties) = next(&mut events).await;
    let properties = properties.unwrap();
    assert_eq!(payload, "gone");
    assert!(before.elapsed() >= Duration::from_secs(1), "{:?}", before.elapsed());
    assert_eq!(properties.content_type.as_deref(), Some("text/plain"));
    assert_eq!(properties.user_properties, [("a".to_owned(), "b".to_owned())]);
    // A client that takes up its session again has no will; one that begins a new session ends the old one, and with it the wait.
    let mut back = with_will(&node, "back", false, 2);
    connected(&mut back).await;
    drop(back);
    let mut again = with_will(&node, "back", false, 0);
    connected(&mut again).await;
    let mut anew = with_will(&node, "anew", false, 600);
    connected(&mut anew).await;
    drop(anew);
    let mut clean = with_will(&node, "anew", true, 600);
    connected(&mut clean).await;
    assert_eq!(next(&mut events).await.0, "anew");
    let mut late = with_will(&node, "late", false, 3);
    connected(&mut late).await;
    drop(late);
    // Later than the will of `back` would have come.
    assert_eq!(next(&mut events).await.0, "late");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retained_message_expires() {
    let node = TestNode::start().await;
    let publish = |seconds: &'static str, text: &'static str| {
        let port = node.address.port().to_string();
        let status = std::process::Command::new("mosquitto_pub")
            .args(["-h", "127.0.0.1", "-p", &port, "-V", "mqttv5", "-q", "1", "-r"])
            .args(["-t", text, "-m", text, "-D", "publish", "message-expiry-interval", seconds])
            .status();
        assert!(status.expect("mosquitto_pub is installed").success());
    };
    publish("1", "short");
    publish("600", "long");
    let published = Instant::now();
    support::until("the first one expires", || published.elapsed() > Duration::from_millis(1100)).await;
    let (client, mut events) = AsyncClient::new(options(&node, "subscriber", true), 10);
    client.subscribe("#", QoS::AtLeastOnce).await.unwrap();
    let (payload, properties) = next(&mut events).await;
    assert_eq!(payload, "long");
    let left = properties.unwrap().message_expiry_interval.unwrap();
    assert!((500..600).contains(&left), "{left}");
}
