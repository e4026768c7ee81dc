//! Clients of another broker, which is a mosquitto on a free port.

mod support;

use std::time::Duration;

use anylog_ingest::client::RECEIVE_MAXIMUM;
use rumqttc::mqttbytes::v4::Packet;
use rumqttc::{AsyncClient, Event, MqttOptions, QoS};
use support::{DEADLINE, Mosquitto, TestNode, until};

/// Publishes numbered messages with QoS 1 until each is acknowledged, over any restart of the broker.
async fn publish_all(port: u16, topic: &str, numbers: std::ops::Range<u64>) {
    let numbers: Vec<u64> = numbers.collect();
    for chunk in numbers.chunks(20) {
        let published = tokio::time::timeout(DEADLINE, async {
            // A publisher that loses its connection sends the whole chunk again.
            while publish_chunk(port, topic, chunk).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        assert!(published.await.is_ok(), "{chunk:?} were not acknowledged");
    }
}

async fn publish_chunk(port: u16, topic: &str, numbers: &[u64]) -> Result<(), rumqttc::ConnectionError> {
    let options = MqttOptions::new(format!("publisher-{}", numbers[0]), "127.0.0.1", port);
    let (client, mut events) = AsyncClient::new(options, 100);
    for n in numbers {
        client.try_publish(topic, QoS::AtLeastOnce, false, format!("{{\"n\":{n}}}")).expect("room for every message");
    }
    let mut left = numbers.len();
    while left > 0 {
        if let Event::Incoming(Packet::PubAck(_)) = events.poll().await? {
            left -= 1;
        }
    }
    Ok(())
}

async fn connected(node: &TestNode) {
    let client = node.ingest.clients().remove(0);
    until("the client to be connected", || client.connection() == "Connected").await;
}

fn distinct(mut numbers: Vec<u64>) -> Vec<u64> {
    numbers.dedup();
    numbers
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_another_broker_become_rows() {
    let broker = Mosquitto::start().await;
    let node = TestNode::start().await;
    for qos in 0..3 {
        let line = format!("broker=127.0.0.1 and port={}", broker.port);
        node.map(&line, &format!("plant/{qos}/#"), qos, &format!("q{qos}")).await;
    }
    let target = anylog_ingest::client::PublishTarget { host: "127.0.0.1".into(), port: broker.port, login: None };
    for n in 0..10 {
        for qos in 0..3 {
            let payload = format!("{{\"n\": {n}}}");
            anylog_ingest::client::publish(&target, &format!("plant/{qos}/x"), payload.as_bytes(), qos, false)
                .await
                .unwrap();
        }
    }
    node.sink.stored(30).await;
    for qos in 0..3 {
        assert_eq!(node.numbers(&format!("test.q{qos}")), (0..10).collect::<Vec<_>>());
    }
    let shown = node.run("get msg client").await.unwrap();
    assert!(shown.contains("Connection:   Connected\r\n"), "{shown}");
}

/// How often a broker is restarted: few times in every run, `ANYLOG_FAULT_ROUNDS` times when it is set.
fn rounds() -> u64 {
    std::env::var("ANYLOG_FAULT_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(5)
}

// R1, R2
#[tokio::test(flavor = "multi_thread")]
async fn restarts_of_the_broker_lose_nothing() {
    let mut broker = Mosquitto::start().await;
    let node = TestNode::start().await;
    node.map(&format!("broker=127.0.0.1 and port={}", broker.port), "n", 1, "numbers").await;
    let client = node.ingest.clients().remove(0);
    for round in 0..rounds() {
        let before = client.connections();
        let publishing = tokio::spawn(publish_all(broker.port, "n", round * 100..round * 100 + 100));
        broker.restart().await;
        publishing.await.unwrap();
        until("another connection", || client.connections() > before).await;
        connected(&node).await;
    }
    let all = rounds() * 100;
    until("all numbers", || distinct(node.numbers("test.numbers")).len() as u64 == all).await;
    assert_eq!(distinct(node.numbers("test.numbers")), (0..all).collect::<Vec<_>>());
}

// R1, R2: killed, the broker forgets its sessions and what it held.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_and_forgets_is_subscribed_to_again() {
    let mut broker = Mosquitto::start().await;
    let node = TestNode::start().await;
    node.map(&format!("broker=127.0.0.1 and port={}", broker.port), "n", 1, "numbers").await;
    let client = node.ingest.clients().remove(0);
    for round in 1..=rounds() {
        broker.forget().await;
        until("the client to subscribe again", || client.resubscribed() >= round && client.connection() == "Connected")
            .await;
        publish_all(broker.port, "n", round * 10..round * 10 + 10).await;
        until("the numbers of this round", || distinct(node.numbers("test.numbers")).len() as u64 == round * 10).await;
    }
}

// R2
#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_session_is_subscribed_again_before_connected_is_shown() {
    let broker = Mosquitto::start().await;
    let node = TestNode::start().await;
    node.map(&format!("broker=127.0.0.1 and port={}", broker.port), "n", 1, "numbers").await;
    let client = node.ingest.clients().remove(0);
    // Another connection under the same id with a clean session makes the broker forget.
    let mut options = MqttOptions::new(client.client_id().unwrap(), "127.0.0.1", broker.port);
    options.set_clean_session(true);
    let (_thief, mut events) = AsyncClient::new(options, 10);
    events.poll().await.unwrap();
    drop(events);
    until("the client to subscribe again", || client.resubscribed() >= 1 && client.connection() == "Connected").await;
    publish_all(broker.port, "n", 0..10).await;
    node.sink.stored(10).await;
}

// R4
#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_while_the_client_is_away_comes_when_it_is_back() {
    let broker = Mosquitto::start().await;
    let node = TestNode::start().await;
    let line = format!("broker=127.0.0.1 and port={}", broker.port);
    node.map(&line, "n", 1, "numbers").await;
    let id = node.ingest.clients().remove(0).client_id().unwrap().to_owned();
    node.run("exit msg client all").await.unwrap();
    publish_all(broker.port, "n", 0..1000).await;
    node.map(&line, "n", 1, "numbers").await;
    assert_eq!(node.ingest.clients().remove(0).client_id(), Some(id.as_str()));
    node.sink.stored(1000).await;
    assert_eq!(distinct(node.numbers("test.numbers")), (0..1000).collect::<Vec<_>>());
}

// R3, R5
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_store_holds_acknowledgements_but_not_pings() {
    let broker = Mosquitto::start().await;
    let node = TestNode::start().await;
    let line = format!("broker=127.0.0.1 and port={} and keep_alive=1 second", broker.port);
    node.map(&line, "n", 2, "numbers").await;
    node.sink.hold(true);
    let all = u64::from(RECEIVE_MAXIMUM) * 2;
    publish_all(broker.port, "n", 0..all).await;
    let client = node.ingest.clients().remove(0);
    let in_flight = || client.load().unwrap().in_flight;
    until("the window to be full", || in_flight() == usize::from(RECEIVE_MAXIMUM)).await;
    let begun = tokio::time::Instant::now();
    until("five keep-alives", || begun.elapsed() >= Duration::from_secs(5)).await;
    assert_eq!(in_flight(), usize::from(RECEIVE_MAXIMUM));
    assert_eq!((client.connection().as_str(), client.connections()), ("Connected", 1));
    node.sink.hold(false);
    node.sink.stored(usize::try_from(all).unwrap()).await;
    assert_eq!(node.numbers("test.numbers"), (0..all).collect::<Vec<_>>(), "no message was sent again");
}

// MQTT-4.3.3: a PUBREL of an earlier connection is answered on the next one.
#[tokio::test(flavor = "multi_thread")]
async fn qos_2_over_restarts_of_the_broker_is_stored_and_goes_on() {
    let mut broker = Mosquitto::start().await;
    let node = TestNode::start().await;
    node.map(&format!("broker=127.0.0.1 and port={}", broker.port), "n", 2, "numbers").await;
    for round in 0..5_u64 {
        let publishing = tokio::spawn(publish_all(broker.port, "n", round * 200..round * 200 + 200));
        node.sink.stored(usize::try_from(round).unwrap() * 200 + 10).await;
        broker.restart().await;
        publishing.await.unwrap();
        connected(&node).await;
    }
    until("all numbers", || distinct(node.numbers("test.numbers")).len() == 1000).await;
}

// R1, R25
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_down_is_said_and_connected_to_when_it_is_up() {
    let node = TestNode::start().await;
    let mut broker = Mosquitto::start().await;
    let port = broker.port;
    broker.stop();
    let line = format!(
        "run msg client where broker=127.0.0.1 and port={port} and topic=(name=n and qos=1 and dbms=test and table=numbers and \
         column.n=(value=\"bring [n]\" and type=int))"
    );
    let said = node.run(&line).await.unwrap();
    assert!(
        said.contains(&format!("127.0.0.1:{port}")) && said.contains("refused") && said.contains("trying"),
        "{said}"
    );
    let shown = node.run("get msg client").await.unwrap();
    assert!(shown.contains("Not connected: the broker is not reached"), "{shown}");
    // The same topics again are two clients with one session.
    assert!(node.run(&line).await.is_err());
    broker.restart().await;
    until("the client to be connected", || node.ingest.clients()[0].connection() == "Connected").await;
    let sent =
        format!("mqtt publish where broker=127.0.0.1 and port={port} and topic=n and qos=1 and message={{\"n\": 7}}");
    node.run(&sent).await.unwrap();
    until("the row", || node.numbers("test.numbers") == [7]).await;
    // A client whose broker never comes ends like any other.
    broker.stop();
    node.run("exit msg client all").await.unwrap();
    assert!(node.run(&line).await.unwrap().contains("not connected yet"));
    node.run("exit msg client all").await.unwrap();
    assert!(node.ingest.clients().is_empty());
    // A host that does not exist may be one whose name cannot be looked up yet.
    let unknown = node.run(&line.replace("broker=127.0.0.1", "broker=nobody.invalid")).await.unwrap();
    assert!(unknown.contains("nobody.invalid") && unknown.contains("not found"), "{unknown}");
    node.run("exit msg client all").await.unwrap();
    let error = node
        .run(&format!("mqtt publish where broker=127.0.0.1 and port={port} and topic=t and message=x"))
        .await
        .unwrap_err();
    assert_eq!(error.status.0, 122);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_said_and_the_right_one_lets_in() {
    let broker = Mosquitto::with_user("ann", "secret").await;
    let node = TestNode::start().await;
    let client = |login: &str| {
        format!(
            "run msg client where broker=127.0.0.1 and port={} {login} and topic=(name=n and dbms=test and table=t and \
             column.n=(value=\"bring [n]\" and type=int))",
            broker.port
        )
    };
    for login in ["", "and user=ann and password=wrong"] {
        let error = node.run(&client(login)).await.unwrap_err();
        assert_eq!(error.status.0, 122);
        assert!(error.message.contains("refused the connection: user"), "{error}");
    }
    node.run(&client("and user=ann and password=secret")).await.unwrap();
    let shown = node.run("get msg client").await.unwrap();
    assert!(shown.contains("User:         ann\r\n") && !shown.contains("secret"), "{shown}");
}
