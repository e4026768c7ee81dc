//! A client of a broker that speaks TLS.

#![allow(clippy::unwrap_used)]

mod support;

use support::{Mosquitto, TestNode, until};

fn line(host: &str, port: u16, tls: &str) -> String {
    format!(
        "run msg client where broker={host} and port={port} {tls} and topic=(name=n and qos=1 and dbms=test and table=numbers \
         and column.n=(value=\"bring [n]\" and type=int))"
    )
}

/// Different numbers that are stored.
fn distinct(node: &TestNode) -> usize {
    node.numbers("test.numbers").into_iter().collect::<std::collections::BTreeSet<_>>().len()
}

/// Publishes numbered messages over TLS.
fn publish(broker: &Mosquitto, numbers: std::ops::Range<u64>) {
    use std::io::Write;
    let mut command = std::process::Command::new("mosquitto_pub");
    command.args(["-h", "localhost", "-p", &broker.port.to_string(), "-t", "n", "-q", "1", "-l"]);
    command.args(["--cafile", &broker.file("ca.pem"), "--cert", &broker.file("client.pem")]);
    command.args(["--key", &broker.file("client.key")]).stdin(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let lines: String = numbers.map(|n| format!("{{\"n\": {n}}}\n")).collect();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_come_over_tls_also_after_a_restart() {
    let node = TestNode::start().await;
    let mut broker = Mosquitto::with_tls(false).await;
    let tls = format!("and tls=true and ca_file={}", broker.file("ca.pem"));
    assert_eq!(node.run(&line("localhost", broker.port, &tls)).await.unwrap(), "");
    let client = node.ingest.clients().remove(0);
    assert!(client.connection() == "Connected" && client.protocol() == Some("MQTT 5 over TLS"), "{client:?}");
    publish(&broker, 0..2000);
    until("all rows", || distinct(&node) == 2000).await;
    // R1
    broker.restart().await;
    until("the client to be connected", || client.connection() == "Connected" && client.connections() == 2).await;
    publish(&broker, 2000..2010);
    until("all rows", || distinct(&node) == 2010).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_shows_its_certificate_when_it_is_asked() {
    let node = TestNode::start().await;
    let broker = Mosquitto::with_tls(true).await;
    let ca = format!("and tls=true and ca_file={}", broker.file("ca.pem"));
    let own = format!("{ca} and cert_file={} and key_file={}", broker.file("client.pem"), broker.file("client.key"));
    let refused = node.run(&line("localhost", broker.port, &ca)).await.unwrap_err();
    assert!(refused.status.0 == 122 && refused.message.to_lowercase().contains("certificate"), "{refused}");
    assert_eq!(node.run(&line("localhost", broker.port, &own)).await.unwrap(), "");
    assert_eq!(node.ingest.clients()[0].connection(), "Connected");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_tls_is_said() {
    let node = TestNode::start().await;
    let broker = Mosquitto::with_tls(false).await;
    let plain = Mosquitto::start().await;
    let ca = broker.file("ca.pem");
    let (key, none) = (broker.file("server.key"), broker.file("nothing.pem"));
    for (host, port, tls, told) in [
        // The issuer is not trusted, and the certificate is for another host.
        ("localhost", broker.port, "and tls=true".to_owned(), "UnknownIssuer"),
        ("127.0.0.1", broker.port, format!("and tls=true and ca_file={ca}"), "not valid for name"),
        ("localhost", broker.port, format!("and tls=true and ca_file={none}"), "nothing.pem"),
        ("localhost", broker.port, format!("and tls=true and ca_file={key}"), "holds no certificate"),
        ("localhost", broker.port, format!("and ca_file={ca}"), "add tls = true"),
        ("localhost", broker.port, format!("and tls=true and ca_file={ca} and cert_file={ca}"), "belong together"),
        (
            "localhost",
            broker.port,
            format!("and tls=true and ca_file={ca} and cert_file={ca} and key_file={ca}"),
            "ca.pem",
        ),
        ("local", broker.port, "and tls=true".to_owned(), "leave tls out"),
    ] {
        let error = node.run(&line(host, port, &tls)).await.unwrap_err();
        assert!(error.to_string().contains(told), "{host} {tls}: {error}");
    }
    assert!(node.ingest.clients().is_empty());
    // A broker with TLS may hang up before its alert is read.
    let said = match node.run(&line("localhost", broker.port, "")).await {
        Ok(said) => said,
        Err(error) => error.to_string(),
    };
    assert!(said.contains("tls = true"), "{said}");
    node.ingest.stop_clients();
    // A broker without TLS hangs up, as one does that is about to restart: the client goes on trying.
    let said = node.run(&line("localhost", plain.port, &format!("and tls=true and ca_file={ca}"))).await.unwrap();
    assert!(said.contains("TLS did not begin, perhaps because this port has none"), "{said}");
}
