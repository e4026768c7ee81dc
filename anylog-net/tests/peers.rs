//! What every way to other nodes must do, checked over gRPC and in process.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anylog_core::{CommandError, Status};
use anylog_net::grpc::node_service;
use anylog_net::{
    GrpcPeers, Listeners, LocalPeers, PeerError, PeerReply, PeerRequest, PeerService, Peers, Protocol, ServerAddress,
    ServerKind,
};
use async_trait::async_trait;

const DEADLINE: Duration = Duration::from_secs(10);

/// A node with a ledger of two policies at version `v2`.
#[derive(Default)]
struct FakeNode {
    finished: AtomicUsize,
}

#[async_trait]
impl PeerService for FakeNode {
    async fn answer(&self, from: SocketAddr, request: PeerRequest) -> Result<PeerReply, CommandError> {
        assert!(from.ip().is_loopback());
        match request {
            PeerRequest::Ledger { known_version } => Ok(PeerReply::Ledger {
                version: "v2".into(),
                policies: (known_version != "v2").then(|| vec![r#"{"a": 1}"#.into(), r#"{"b": "ü"}"#.into()]),
            }),
            PeerRequest::Command { text } => match text.as_str() {
                "empty" => Ok(PeerReply::Text(String::new())),
                "long" => Ok(PeerReply::Text("ä€x".repeat(100_000))),
                "fail" => Err(CommandError::new(Status::UNAUTHORIZED, "not you").hint("ask nicely")),
                "slow" => {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    self.finished.fetch_add(1, Ordering::SeqCst);
                    Ok(PeerReply::Text("late".into()))
                }
                other => Ok(PeerReply::Text(format!("ran {other}"))),
            },
        }
    }
}

fn run(text: &str) -> PeerRequest {
    PeerRequest::Command { text: text.into() }
}

/// The contract of [`Peers`].
async fn conforms(peers: Arc<dyn Peers>, address: &str, node: &FakeNode) {
    let call = |request| peers.call(address, request, DEADLINE);
    assert_eq!(call(run("get status")).await, Ok(PeerReply::Text("ran get status".into())));
    assert_eq!(call(run("empty")).await, Ok(PeerReply::Text(String::new())));
    assert_eq!(call(run("long")).await, Ok(PeerReply::Text("ä€x".repeat(100_000))));

    // A command's own error arrives whole.
    let error = CommandError::new(Status::UNAUTHORIZED, "not you").hint("ask nicely");
    assert_eq!(call(run("fail")).await, Err(PeerError::Refused { address: address.into(), error }));

    let ledger = |known: &str| call(PeerRequest::Ledger { known_version: known.into() });
    let policies = Some(vec![r#"{"a": 1}"#.to_owned(), r#"{"b": "ü"}"#.to_owned()]);
    assert_eq!(ledger("").await, Ok(PeerReply::Ledger { version: "v2".into(), policies: policies.clone() }));
    assert_eq!(ledger("v1").await, Ok(PeerReply::Ledger { version: "v2".into(), policies }));
    assert_eq!(ledger("v2").await, Ok(PeerReply::Ledger { version: "v2".into(), policies: None }));

    // Calls run side by side.
    let many = futures_util::future::join_all((0..50).map(|n| call(run(if n % 2 == 0 { "long" } else { "x" })))).await;
    assert!(many.iter().all(Result::is_ok));

    // A deadline is kept, and the command runs to its end all the same.
    let short = Duration::from_millis(30);
    let late = peers.call(address, run("slow"), short).await;
    assert_eq!(late, Err(PeerError::TimeOut { address: address.into(), after: short }));
    tokio::time::timeout(DEADLINE, async {
        while node.finished.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the command ran to its end");
    assert_eq!(call(run("again")).await, Ok(PeerReply::Text("ran again".into())));

    // Nobody there.
    for nobody in ["127.0.0.1:1", "nonsense"] {
        let error = peers.call(nobody, run("x"), DEADLINE).await.unwrap_err();
        assert!(matches!(&error, PeerError::Unreachable { address, .. } if address == nobody), "{error:?}");
        let error = CommandError::from(error);
        assert!(error.status == Status::REFUSED && error.message.contains(nobody) && error.hint.is_some(), "{error}");
    }
}

async fn serve(listeners: &Listeners, port: u16, node: &Arc<FakeNode>) -> SocketAddr {
    let address = ServerAddress::bound_to(SocketAddr::from(([127, 0, 0, 1], port)));
    let service = node_service(Arc::clone(node) as Arc<dyn PeerService>);
    listeners.start(ServerKind::Tcp, Protocol::Grpc, address, service).await.unwrap()
}

#[tokio::test]
async fn in_process_peers_conform() {
    let node = Arc::new(FakeNode::default());
    let peers = LocalPeers::new();
    peers.add("10.0.0.1:32148", Arc::clone(&node) as Arc<dyn PeerService>);
    conforms(peers, "10.0.0.1:32148", &node).await;
}

#[tokio::test]
async fn grpc_peers_conform() {
    let node = Arc::new(FakeNode::default());
    let listeners = Listeners::default();
    let bound = serve(&listeners, 0, &node).await;
    conforms(GrpcPeers::new(), &bound.to_string(), &node).await;
}

#[tokio::test]
async fn a_peer_that_comes_back_is_reached_again() {
    let node = Arc::new(FakeNode::default());
    let listeners = Listeners::default();
    let bound = serve(&listeners, 0, &node).await;
    let address = bound.to_string();
    let peers = GrpcPeers::new();
    assert!(peers.call(&address, run("x"), DEADLINE).await.is_ok());
    listeners.stop(ServerKind::Tcp).await;
    let gone = peers.call(&address, run("x"), DEADLINE).await.unwrap_err();
    assert!(matches!(gone, PeerError::Unreachable { .. }), "{gone:?}");
    serve(&listeners, bound.port(), &node).await;
    assert_eq!(peers.call(&address, run("x"), DEADLINE).await, Ok(PeerReply::Text("ran x".into())));
    assert_eq!(peers.len(), 1);
}
