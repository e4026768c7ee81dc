//! The ports of a node: shared by protocols, robust against what a network sends, free again after a stop.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anylog_core::Status;
use anylog_net::{ConnectionHandler, Listeners, Protocol, ServerAddress, ServerKind};
use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(10);

/// Sends its name and all that it reads, until the client ends or the server stops.
struct Echo(&'static str);

#[async_trait]
impl ConnectionHandler for Echo {
    async fn serve(&self, mut stream: TcpStream, _: SocketAddr, stop: CancellationToken) {
        stream.write_all(self.0.as_bytes()).await.ok();
        let mut buffer = [0; 64];
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    stream.write_all(b"bye").await.ok();
                    return;
                }
                read = stream.read(&mut buffer) => match read {
                    Ok(0) | Err(_) => return,
                    Ok(count) => stream.write_all(&buffer[..count]).await.unwrap_or_default(),
                },
            }
        }
    }
}

/// Never ends by itself.
struct Stubborn;

#[async_trait]
impl ConnectionHandler for Stubborn {
    async fn serve(&self, _stream: TcpStream, _: SocketAddr, _: CancellationToken) {
        std::future::pending::<()>().await;
    }
}

fn loopback(port: u16) -> ServerAddress {
    ServerAddress::bound_to(SocketAddr::from(([127, 0, 0, 1], port)))
}

async fn read_exactly(stream: &mut TcpStream, expected: &str) {
    let mut buffer = vec![0; expected.len()];
    timeout(DEADLINE, stream.read_exact(&mut buffer)).await.expect("in time").expect("bytes arrive");
    assert_eq!(String::from_utf8_lossy(&buffer), expected);
}

/// Reads until the other side closes, however it closes.
async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let mut buffer = [0; 256];
    loop {
        match timeout(DEADLINE, stream.read(&mut buffer)).await.expect("closed in time") {
            Ok(0) | Err(_) => return String::from_utf8_lossy(&all).into_owned(),
            Ok(count) => all.extend_from_slice(&buffer[..count]),
        }
    }
}

#[tokio::test]
async fn one_port_serves_three_protocols() {
    let listeners = Listeners::default();
    let tcp = listeners.start(ServerKind::Tcp, Protocol::Grpc, loopback(0), Arc::new(Echo("grpc"))).await.unwrap();
    for (kind, protocol, name) in
        [(ServerKind::Rest, Protocol::Http, "http"), (ServerKind::Broker, Protocol::Mqtt, "mqtt")]
    {
        let bound = listeners.start(kind, protocol, loopback(tcp.port()), Arc::new(Echo(name))).await.unwrap();
        assert_eq!(bound, tcp);
    }
    for (first, name) in [(&b"PRI * HTTP/2.0"[..], "grpc"), (b"GET / HTTP/1.1", "http"), (&[0x10, 0x0c], "mqtt")] {
        let mut stream = TcpStream::connect(tcp).await.unwrap();
        stream.write_all(first).await.unwrap();
        read_exactly(&mut stream, name).await;
    }
    // Stopping one leaves the others.
    assert!(listeners.stop(ServerKind::Broker).await);
    assert!(!listeners.stop(ServerKind::Broker).await);
    let mut refused = TcpStream::connect(tcp).await.unwrap();
    refused.write_all(&[0x10, 0x0c]).await.unwrap();
    assert_eq!(read_to_end(&mut refused).await, "");
    let kinds: Vec<ServerKind> = listeners.addresses().iter().map(|running| running.kind).collect();
    assert_eq!(kinds, [ServerKind::Tcp, ServerKind::Rest]);
    assert_eq!(listeners.address(ServerKind::Tcp).unwrap().address.external, tcp.to_string());
}

#[tokio::test]
async fn a_slow_first_byte_is_waited_for() {
    let listeners = Listeners::default();
    let bound = listeners.start(ServerKind::Rest, Protocol::Http, loopback(0), Arc::new(Echo("http"))).await.unwrap();
    let mut stream = TcpStream::connect(bound).await.unwrap();
    for byte in b"GET /" {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    read_exactly(&mut stream, "httpGET /").await;
}

#[tokio::test]
async fn other_protocols_and_garbage_are_refused_and_the_port_lives_on() {
    let listeners = Listeners::default();
    let bound = listeners.start(ServerKind::Broker, Protocol::Mqtt, loopback(0), Arc::new(Echo("mqtt"))).await.unwrap();
    let mut http = TcpStream::connect(bound).await.unwrap();
    http.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let answer = read_to_end(&mut http).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("This port serves MQTT"), "{answer}");
    for garbage in [&b"\0\0\0\0"[..], b"\x16\x03\x01\x02", b"PRI * HTTP/2.0\r\n\r\n", b"hello\r\n", &[0xff; 64]] {
        let mut stream = TcpStream::connect(bound).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        assert_eq!(read_to_end(&mut stream).await, "", "{garbage:?}");
    }
    let mut mqtt = TcpStream::connect(bound).await.unwrap();
    mqtt.write_all(&[0x10]).await.unwrap();
    read_exactly(&mut mqtt, "mqtt").await;
}

// R14: a device that comes while the node ends keeps its data and tries again.
#[tokio::test]
async fn a_service_that_was_stopped_is_unavailable_not_wrong() {
    let listeners = Listeners::default();
    let bound = listeners.start(ServerKind::Rest, Protocol::Http, loopback(0), Arc::new(Echo("http"))).await.unwrap();
    let shared = loopback(bound.port());
    listeners.start(ServerKind::Broker, Protocol::Mqtt, shared.clone(), Arc::new(Echo("mqtt"))).await.unwrap();
    assert!(listeners.stop(ServerKind::Rest).await);
    let mut late = TcpStream::connect(bound).await.unwrap();
    late.write_all(b"PUT / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let answer = read_to_end(&mut late).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("Retry-After"), "{answer}");
    listeners.start(ServerKind::Rest, Protocol::Http, shared, Arc::new(Echo("again "))).await.unwrap();
    let mut back = TcpStream::connect(bound).await.unwrap();
    back.write_all(b"GET /").await.unwrap();
    read_exactly(&mut back, "again GET /").await;
}

#[tokio::test]
async fn a_taken_address_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let listeners = Listeners::default();
    let error = listeners.start(ServerKind::Tcp, Protocol::Grpc, loopback(port), Arc::new(Stubborn)).await.unwrap_err();
    assert_eq!(error.status, Status::CONNECTION);
    assert!(
        error.message.contains(&format!("127.0.0.1:{port}")) && error.message.contains("another program"),
        "{error}"
    );
    assert!(error.hint.is_some());
    assert!(listeners.addresses().is_empty());
}

#[tokio::test]
async fn the_same_server_twice_is_an_error_that_names_the_way_out() {
    let listeners = Listeners::default();
    let bound = listeners.start(ServerKind::Tcp, Protocol::Grpc, loopback(0), Arc::new(Stubborn)).await.unwrap();
    let same = listeners.start(ServerKind::Tcp, Protocol::Grpc, loopback(bound.port()), Arc::new(Stubborn)).await;
    assert_eq!(same.unwrap_err().status, Status::CONNECTION);
    let other = listeners.start(ServerKind::Tcp, Protocol::Grpc, loopback(0), Arc::new(Stubborn)).await.unwrap_err();
    assert_eq!(other.status, Status::PROCESS_RUNNING);
    assert!(other.hint.unwrap().contains("exit tcp"));
    // All addresses of a port cannot be had while one of them is in use.
    let all = ServerAddress { bind: false, ..loopback(bound.port()) };
    let error = listeners.start(ServerKind::Rest, Protocol::Http, all, Arc::new(Stubborn)).await.unwrap_err();
    assert!(error.message.contains("this node"), "{error}");
}

#[tokio::test]
async fn a_stop_drains_and_frees_the_port() {
    let listeners = Listeners::default();
    let bound = listeners.start(ServerKind::Rest, Protocol::Http, loopback(0), Arc::new(Echo("http"))).await.unwrap();
    let mut stream = TcpStream::connect(bound).await.unwrap();
    stream.write_all(b"GET ").await.unwrap();
    read_exactly(&mut stream, "httpGET ").await;
    assert_eq!(listeners.address(ServerKind::Rest).unwrap().connections, 1);
    assert!(timeout(DEADLINE, listeners.stop(ServerKind::Rest)).await.unwrap());
    assert_eq!(read_to_end(&mut stream).await, "bye");
    // The port can be bound again at once, although a connection has just ended there.
    let again = listeners.start(ServerKind::Rest, Protocol::Http, loopback(bound.port()), Arc::new(Echo("http"))).await;
    assert_eq!(again.unwrap(), bound);
}

#[tokio::test]
async fn a_connection_that_does_not_end_is_dropped_after_the_drain_deadline() {
    let listeners = Listeners::default();
    let bound = listeners.start(ServerKind::Rest, Protocol::Http, loopback(0), Arc::new(Stubborn)).await.unwrap();
    let mut stream = TcpStream::connect(bound).await.unwrap();
    stream.write_all(b"GET ").await.unwrap();
    let connected = async {
        while listeners.address(ServerKind::Rest).unwrap().connections == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, connected).await.unwrap();
    let start = tokio::time::Instant::now();
    assert!(listeners.stop(ServerKind::Rest).await);
    assert!(start.elapsed() >= anylog_net::listener::DRAIN_DEADLINE);
    assert_eq!(read_to_end(&mut stream).await, "");
}
