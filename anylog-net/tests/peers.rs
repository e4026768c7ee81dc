//! What every way to other nodes must do, checked over gRPC and in process.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anylog_core::reply::Chunks;
use anylog_core::{CommandError, Status};
use anylog_net::grpc::node_service;
use anylog_net::{
    GrpcPeers, Listeners, LocalPeers, PeerError, PeerReply, PeerRequest, PeerService, Peers, Protocol, ServerAddress,
    ServerKind, StreamDeadlines,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};

const DEADLINE: Duration = Duration::from_secs(10);

/// The size of the chunks of long answers.
const CHUNK: usize = 200_000;

/// A node with a ledger of two policies at version `v2`.
#[derive(Default)]
struct FakeNode {
    /// Lets the slow command go on.
    go_on: tokio::sync::Notify,
    finished: AtomicUsize,
    /// Streamed answers that are being made.
    at_work: Arc<AtomicUsize>,
    /// Chunks made of the huge answer.
    made: Arc<AtomicUsize>,
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
                    self.go_on.notified().await;
                    self.finished.fetch_add(1, Ordering::SeqCst);
                    Ok(PeerReply::Text("late".into()))
                }
                other => Ok(PeerReply::Text(format!("ran {other}"))),
            },
            other => panic!("{other:?}"),
        }
    }

    async fn stream(&self, _: SocketAddr, request: PeerRequest) -> Result<Chunks, CommandError> {
        let PeerRequest::Command { text } = request else { panic!("{request:?}") };
        let chunk = || Ok(Bytes::from_static(&[b'x'; CHUNK]));
        let at_work = AtWork::begin(&self.at_work);
        match text.as_str() {
            "nothing" => Ok(stream::empty().boxed()),
            "fail" => Err(CommandError::new(Status::UNAUTHORIZED, "not you").hint("ask nicely")),
            "break" => Ok(stream::iter([chunk(), Err(CommandError::new(Status::DISK_FULL, "no more"))]).boxed()),
            "hang" => std::future::pending().await,
            "stall" => Ok(stream::iter([chunk()]).chain(stream::pending().map(move |()| at_work.held())).boxed()),
            // A gigabyte, made piece by piece.
            "huge" => {
                let made = Arc::clone(&self.made);
                let pieces = stream::iter(0..1024 * 1024 * 1024 / CHUNK).map(move |_| {
                    let _ = &at_work;
                    made.fetch_add(1, Ordering::SeqCst);
                    chunk()
                });
                Ok(pieces.boxed())
            }
            other => {
                Ok(stream::iter(other.bytes().map(|byte| Ok(Bytes::from(vec![byte]))).collect::<Vec<_>>()).boxed())
            }
        }
    }
}

/// Counts answers that are being made.
struct AtWork(Arc<AtomicUsize>);

impl AtWork {
    fn begin(counter: &Arc<AtomicUsize>) -> Self {
        counter.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(counter))
    }

    fn held(&self) -> Result<Bytes, CommandError> {
        unreachable!("nothing follows a pending stream, {} at work", self.0.load(Ordering::SeqCst))
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

/// The contract of [`Peers::stream`].
async fn streams_conform(peers: Arc<dyn Peers>, address: &str, node: &FakeNode) {
    let ask = |text: &str, deadlines| peers.stream(address, run(text), deadlines);
    let patient = StreamDeadlines::each(DEADLINE);
    let whole = |pieces: Vec<Result<Bytes, PeerError>>| {
        pieces.into_iter().map(|piece| String::from_utf8(piece.unwrap().to_vec()).unwrap()).collect::<String>()
    };
    assert_eq!(whole(ask("abc", patient).await.unwrap().collect().await), "abc");
    assert_eq!(ask("nothing", patient).await.unwrap().count().await, 0);

    // An error before the first piece is an error of the question, so that it can be put to another node.
    let error = CommandError::new(Status::UNAUTHORIZED, "not you").hint("ask nicely");
    let refused = ask("fail", patient).await.err();
    assert_eq!(refused, Some(PeerError::Refused { address: address.into(), error }));
    // A later one ends the stream.
    let broken: Vec<_> = ask("break", patient).await.unwrap().collect().await;
    let received: usize = broken.iter().flatten().map(Bytes::len).sum();
    assert_eq!(received, CHUNK);
    assert!(matches!(broken.last(), Some(Err(PeerError::Refused { error, .. })) if error.status == Status::DISK_FULL));

    // Deadlines: for the first piece, and for each further one. Both end the work at the other node.
    let short = Duration::from_millis(50);
    let late = ask("hang", StreamDeadlines { first: short, next: DEADLINE }).await.err();
    assert_eq!(late, Some(PeerError::TimeOut { address: address.into(), after: short }));
    until("the hanging answer is given up", || node.at_work.load(Ordering::SeqCst) == 0).await;
    let mut stalled = ask("stall", StreamDeadlines { first: DEADLINE, next: short }).await.unwrap();
    let mut last = None;
    while let Some(piece) = stalled.next().await {
        last = Some(piece);
    }
    assert_eq!(last, Some(Err(PeerError::TimeOut { address: address.into(), after: short })));
    drop(stalled);
    until("the stalled answer is given up", || node.at_work.load(Ordering::SeqCst) == 0).await;

    // R23: a slow reader holds the maker up; what is under way stays small.
    let mut huge = ask("huge", patient).await.unwrap();
    let mut taken = 0;
    for _ in 0..20 {
        taken += huge.next().await.unwrap().unwrap().len();
        // Answered over the same connection, so the maker had its turn as well.
        assert_eq!(peers.call(address, run("x"), DEADLINE).await, Ok(PeerReply::Text("ran x".into())));
    }
    let under_way = node.made.load(Ordering::SeqCst) * CHUNK - taken;
    assert!(under_way < 16 * 1024 * 1024, "{under_way} bytes under way");
    // Letting go ends the work.
    drop(huge);
    until("the huge answer is given up", || node.at_work.load(Ordering::SeqCst) == 0).await;
    assert!(node.made.load(Ordering::SeqCst) * CHUNK < 64 * 1024 * 1024);

    for nobody in ["127.0.0.1:1", "nonsense"] {
        let error = peers.stream(nobody, run("x"), patient).await.err();
        assert!(matches!(&error, Some(PeerError::Unreachable { address, .. }) if address == nobody), "{error:?}");
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
    let short = Duration::from_millis(300);
    let late = peers.call(address, run("slow"), short).await;
    assert_eq!(late, Err(PeerError::TimeOut { address: address.into(), after: short }));
    assert_eq!(node.finished.load(Ordering::SeqCst), 0);
    node.go_on.notify_one();
    until("the command ran to its end", || node.finished.load(Ordering::SeqCst) == 1).await;
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
    conforms(Arc::clone(&peers) as Arc<dyn Peers>, "10.0.0.1:32148", &node).await;
    streams_conform(peers, "10.0.0.1:32148", &node).await;
}

#[tokio::test]
async fn grpc_peers_conform() {
    let node = Arc::new(FakeNode::default());
    let listeners = Listeners::default();
    let bound = serve(&listeners, 0, &node).await;
    let peers = GrpcPeers::new();
    conforms(Arc::clone(&peers) as Arc<dyn Peers>, &bound.to_string(), &node).await;
    streams_conform(peers, &bound.to_string(), &node).await;
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
