//! The commands over servers, as a script gives them.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;

use anylog_core::{Caller, CommandError, Node, Session, Status};
use anylog_net::grpc::node_service;
use anylog_net::{Listeners, PeerReply, PeerRequest, PeerService, ServerKind};
use async_trait::async_trait;

struct Nobody;

#[async_trait]
impl PeerService for Nobody {
    async fn answer(&self, _: SocketAddr, _: PeerRequest) -> Result<PeerReply, CommandError> {
        Ok(PeerReply::Text(String::new()))
    }
}

fn node() -> (Session, Arc<Listeners>) {
    let node = Node::builder().build();
    let listeners = Arc::new(Listeners::default());
    node.registry.register_all(anylog_net::commands(Arc::clone(&listeners), node_service(Arc::new(Nobody)))).unwrap();
    anylog_net::register_processes(&node, &listeners);
    (Session::new(node, Caller::embedded()), listeners)
}

async fn text(session: &mut Session, command: &str) -> String {
    session.execute(command).await.unwrap_or_else(|error| panic!("{command}: {error}")).into_text().await.unwrap()
}

#[tokio::test]
async fn the_documented_spelling_binds_the_internal_address() {
    let (mut session, listeners) = node();
    for (name, value) in [("external_ip", "203.0.113.9"), ("ip", "127.0.0.1"), ("port", "0")] {
        session.node.dictionary.set(name, value);
    }
    session.execute("run tcp server !external_ip !port !ip !port").await.unwrap();
    let running = listeners.address(ServerKind::Tcp).unwrap();
    let port = running.bound.port();
    assert_eq!(running.bound, SocketAddr::from(([127, 0, 0, 1], port)));
    assert_eq!(session.node.address(), format!("203.0.113.9:{port}"), "other nodes are told the external address");
    let expected = format!(
        "\r\nType      External Address  Internal Address Bind Address    \r\n---------|-----------------|----------------|---------------|\r\n\
         TCP      |203.0.113.9:{port}|127.0.0.1:{port} |127.0.0.1:{port}|\r\n\
         REST     |Not declared     |Not declared    |Not declared   |\r\n\
         Messaging|Not declared     |Not declared    |Not declared   |\r\n"
    );
    // Ports have four or five digits; the layout above is that of five.
    if port >= 10_000 {
        assert_eq!(text(&mut session, "get connections").await, expected);
    }
    let json: serde_json::Value =
        serde_json::from_str(&text(&mut session, "get connections where format=json").await).unwrap();
    assert_eq!(json["TCP"]["external"], format!("203.0.113.9:{port}"));
    assert_eq!(json["TCP"]["local"], format!("127.0.0.1:{port}"));
    assert_eq!(json["TCP"]["bind"], format!("127.0.0.1:{port}"));
    assert_eq!(json["Messaging"]["external"], "Not declared");
    let processes = session.node.processes.states();
    let (_, tcp) = processes.iter().find(|(name, _)| *name == "TCP").unwrap();
    assert_eq!(tcp.details, format!("Listening on: 203.0.113.9:{port} and 127.0.0.1:{port}, Threads Pool: 6"));
}

#[tokio::test]
async fn servers_start_and_stop_in_any_case() {
    let (mut session, listeners) = node();
    let run = "run tcp server where external_ip=127.0.0.1 and external_port=0 and bind=true and threads=3";
    for exit in ["exit tcp", "exit TCP"] {
        session.execute(run).await.unwrap();
        assert_eq!(listeners.address(ServerKind::Tcp).unwrap().address.threads, 3);
        session.execute(exit).await.unwrap();
        assert!(listeners.addresses().is_empty());
    }
    let error = session.execute("exit REST").await.unwrap_err();
    assert!(error.hint.as_deref().unwrap_or_default().contains("run rest server"), "{error}");
}

#[tokio::test]
async fn wrong_calls_name_the_mistake() {
    let (mut session, listeners) = node();
    let cases = [
        ("run tcp server where external_ip=127.0.0.1", Status::COMMAND_PARAMETERS, "Missing port"),
        ("run tcp server where external_port=7000", Status::MISSING_IP, "Missing IP"),
        ("run tcp server 127.0.0.1 seven", Status::PORT_VALUE, "seven"),
        ("run tcp server 192.0.2.7 7000", Status::CONNECTION, "192.0.2.7"),
    ];
    for (command, status, words) in cases {
        let error = session.execute(command).await.unwrap_err();
        assert_eq!(error.status, status, "{command}: {error}");
        assert!(error.message.contains(words) && error.hint.is_some(), "{command}: {error}");
    }
    // OPS-1
    let error = session.execute("run tcp server where external_ip=127.0.0.1 and external_prot=7000").await.unwrap_err();
    assert!(error.to_string().contains("external_port"), "{error}");
    assert!(listeners.addresses().is_empty());
}
