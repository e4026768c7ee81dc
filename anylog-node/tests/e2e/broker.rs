//! The embedded broker under ordinary MQTT clients.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::harness::{Operator, TOPIC, messages};

#[test]
fn every_quality_of_service_and_both_protocol_versions_store_rows() {
    let node = Operator::start();
    let mut expected = 0;
    for version in ["mqttv311", "mqttv5"] {
        for qos in [1, 2] {
            node.publish(TOPIC, qos, version, &messages(0..50));
            expected += 50;
            assert_eq!(node.count("rand_data"), expected, "{version} at QoS {qos}");
        }
    }
    node.publish(TOPIC, 0, "mqttv311", &messages(0..50));
    super::harness::eventually("QoS 0 rows arrive", || (node.count("rand_data") == expected + 50).then_some(()));
}

#[test]
fn ordinary_subscribers_get_what_is_published() {
    let node = Operator::start();
    let port = node.tcp.to_string();
    let mut subscribers: Vec<_> = ["plant/+/temperature", "plant/#", "plant/1/temperature"]
        .into_iter()
        .map(|filter| {
            // stdbuf: into a pipe the client would keep its lines until it ends.
            let mut child = Command::new("stdbuf")
                .args([
                    "-oL",
                    "mosquitto_sub",
                    "-h",
                    "127.0.0.1",
                    "-p",
                    &port,
                    "-t",
                    filter,
                    "-q",
                    "1",
                    "-C",
                    "2",
                    "-W",
                    "20",
                    "-v",
                    "-d",
                ])
                .stdout(Stdio::piped())
                .spawn()
                .expect("mosquitto_sub is installed");
            let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
            // The debug output tells when the subscription is acknowledged.
            let mut line = String::new();
            while !line.contains("Subscribed") {
                line.clear();
                assert!(output.read_line(&mut line).expect("readable") > 0, "no SUBACK for {filter}");
            }
            (filter, child, output)
        })
        .collect();
    node.publish("plant/1/temperature", 1, "mqttv311", "20.5\n21.5\n");
    for (filter, child, output) in &mut subscribers {
        let received: Vec<String> =
            output.lines().map_while(Result::ok).filter(|line| line.starts_with("plant/1/temperature")).collect();
        assert_eq!(received, ["plant/1/temperature 20.5", "plant/1/temperature 21.5"], "{filter}");
        assert!(child.wait().expect("ends").success());
    }
}

#[test]
fn a_message_that_cannot_be_mapped_does_not_hold_up_the_others() {
    let node = Operator::start();
    // R14
    let mut lines = messages(0..20);
    lines.push_str("not json\n{\"value\": 1}\n[1,2\n");
    lines.push_str(&messages(20..40));
    node.publish(TOPIC, 1, "mqttv311", &lines);
    assert_eq!(node.count("rand_data"), 40);
    let clients = node.get("get msg client").ok();
    assert!(clients.contains("43"), "all messages are counted: {clients}");
}
