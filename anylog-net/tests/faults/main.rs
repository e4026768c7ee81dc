//! Nodes that ask each other over links that fail.

// A test fails by panicking.
#![allow(clippy::unwrap_used)]

mod links;
mod proxy;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anylog_core::reply::Chunks;
use anylog_core::{CommandError, Status};
use anylog_net::grpc::{Patience, node_service_with};
use anylog_net::{
    GrpcPeers, Listeners, PeerError, PeerReply, PeerRequest, PeerService, Peers, Protocol, ServerAddress, ServerKind,
    StreamDeadlines,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use proxy::{Link, Proxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// How long a test waits for what must come.
const LONG: Duration = Duration::from_secs(30);

/// How long a call waits for what never comes.
const SHORT: Duration = Duration::from_millis(200);

/// Both sides notice soon.
const HASTY: Patience = Patience {
    open: Duration::from_millis(500),
    silence: Duration::from_millis(100),
    answer: Duration::from_millis(300),
};

/// Answers commands with themselves, and streams without end.
#[derive(Default)]
struct Echo {
    at_work: Arc<AtomicUsize>,
}

struct AtWork(Arc<AtomicUsize>);

impl AtWork {
    fn begin(counter: &Arc<AtomicUsize>) -> Self {
        counter.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(counter))
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl PeerService for Echo {
    async fn answer(&self, _: SocketAddr, request: PeerRequest) -> Result<PeerReply, CommandError> {
        let PeerRequest::Command { text } = request else { panic!("{request:?}") };
        if text == "never" {
            let _at_work = AtWork::begin(&self.at_work);
            std::future::pending::<()>().await;
        }
        Ok(PeerReply::Text(text))
    }

    async fn stream(&self, _: SocketAddr, _: PeerRequest) -> Result<Chunks, CommandError> {
        let at_work = AtWork::begin(&self.at_work);
        let endless = stream::repeat_with(move || {
            let _ = &at_work;
            Ok(Bytes::from_static(&[b'x'; 10_000]))
        });
        Ok(endless.boxed())
    }
}

/// A node behind a link, and the way there.
struct World {
    node: Arc<Echo>,
    listeners: Listeners,
    bound: SocketAddr,
    proxy: Proxy,
    peers: Arc<GrpcPeers>,
}

impl World {
    async fn new() -> Self {
        let node = Arc::new(Echo::default());
        let listeners = Listeners::default();
        let bound = serve(&listeners, 0, &node).await;
        let proxy = Proxy::to(bound).await;
        Self { node, listeners, bound, proxy, peers: GrpcPeers::with_patience(HASTY) }
    }

    fn address(&self) -> String {
        self.proxy.address.to_string()
    }

    async fn ask(&self, text: &str, deadline: Duration) -> Result<PeerReply, PeerError> {
        let address = self.address();
        let asked = self.peers.call(&address, PeerRequest::Command { text: text.into() }, deadline);
        tokio::time::timeout(LONG, asked).await.expect("a call ends")
    }

    async fn stream(&self, deadlines: StreamDeadlines) -> Result<anylog_net::PeerStream, PeerError> {
        let address = self.address();
        let asked = self.peers.stream(&address, PeerRequest::Command { text: "endless".into() }, deadlines);
        tokio::time::timeout(LONG, asked).await.expect("a call ends")
    }

    async fn answers(&self) {
        assert_eq!(self.ask("hello", LONG).await, Ok(PeerReply::Text("hello".into())));
    }

    fn late(&self) -> PeerError {
        PeerError::TimeOut { address: self.address(), after: SHORT }
    }
}

async fn serve(listeners: &Listeners, port: u16, node: &Arc<Echo>) -> SocketAddr {
    let address = ServerAddress::bound_to(SocketAddr::from(([127, 0, 0, 1], port)));
    let service = node_service_with(Arc::clone(node) as Arc<dyn PeerService>, HASTY);
    listeners.start(ServerKind::Tcp, Protocol::Grpc, address, service).await.unwrap()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, waiting).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

#[tokio::test]
async fn a_peer_that_accepts_and_never_answers_is_told_within_the_deadline() {
    let world = World::new().await;
    world.proxy.set(Link::Swallows);
    for _ in 0..3 {
        assert_eq!(world.ask("hello", SHORT).await, Err(world.late()));
        assert_eq!(world.stream(StreamDeadlines::each(SHORT)).await.err(), Some(world.late()));
    }
    let told = CommandError::from(world.late());
    assert!(told.status == Status::TIME_OUT && told.message.contains(&world.address()), "{told}"); // R25
    // It comes back: the next call does not wait for the dead connection.
    world.proxy.set(Link::Carries);
    world.answers().await;
}

#[tokio::test]
async fn a_connection_that_leads_nowhere_is_left_before_its_calls_time_out() {
    let world = World::new().await;
    world.answers().await;
    let waiting = tokio::join!(world.ask("never", LONG), async {
        until("the command runs", || world.node.at_work.load(Ordering::SeqCst) == 1).await;
        world.proxy.set(Link::Swallows);
    });
    // The keep-alive found out, long before the deadline.
    assert!(matches!(&waiting.0, Err(PeerError::Unreachable { .. })), "{waiting:?}");
    world.proxy.set(Link::Carries);
    world.answers().await;
}

#[tokio::test]
async fn an_answer_that_stops_in_the_middle_ends_with_an_error_and_frees_its_node() {
    for link in [Link::Swallows, Link::Resets] {
        let world = World::new().await;
        let mut pieces = world.stream(StreamDeadlines { first: LONG, next: SHORT }).await.unwrap();
        for _ in 0..10 {
            pieces.next().await.unwrap().unwrap();
        }
        world.proxy.set(link);
        let mut last = Ok(Bytes::new());
        while let Some(piece) = tokio::time::timeout(LONG, pieces.next()).await.expect("a piece or the end") {
            last = piece;
        }
        match (link, &last) {
            (Link::Swallows, Err(error)) => assert_eq!(*error, world.late()),
            (_, Err(PeerError::Unreachable { address, reason })) => {
                assert!(*address == world.address() && !reason.is_empty(), "{reason}");
            }
            (_, other) => panic!("{link:?}: {other:?}"),
        }
        // The node behind a silent link finds out by its own keep-alive.
        until("the node gives the answer up", || world.node.at_work.load(Ordering::SeqCst) == 0).await;
        world.proxy.set(Link::Carries);
        world.answers().await;
    }
}

#[tokio::test]
async fn a_peer_that_is_down_says_why_and_comes_back() {
    let world = World::new().await;
    let direct = |text: &str, deadline| {
        let (peers, address, text) = (Arc::clone(&world.peers), world.bound.to_string(), text.to_owned());
        async move { peers.call(&address, PeerRequest::Command { text }, deadline).await }
    };
    assert!(direct("x", LONG).await.is_ok());
    world.listeners.stop(ServerKind::Tcp).await;
    // Also when the pause between attempts has grown beyond the deadline of a call.
    for _ in 0..8 {
        let error = direct("x", SHORT).await.unwrap_err();
        let PeerError::Unreachable { address, reason } = &error else { panic!("{error:?}") };
        assert!(*address == world.bound.to_string() && !reason.is_empty(), "{error}");
    }
    serve(&world.listeners, world.bound.port(), &world.node).await;
    assert_eq!(direct("back", LONG).await, Ok(PeerReply::Text("back".into())));
}

#[tokio::test]
async fn a_link_that_fails_again_and_again_costs_the_calls_that_met_it() {
    let world = World::new().await;
    for round in 0..20 {
        world.answers().await;
        let link = if round % 2 == 0 { Link::Resets } else { Link::Swallows };
        world.proxy.set(link);
        assert!(world.ask("hello", SHORT).await.is_err(), "{link:?}");
        world.proxy.set(Link::Carries);
    }
    world.answers().await;
    // Calls share a connection as long as it works.
    let before = world.proxy.accepted();
    futures_util::future::join_all((0..50).map(|_| world.answers())).await;
    assert_eq!(world.proxy.accepted(), before);
    assert!(world.proxy.carried() > 0);
}

#[tokio::test]
async fn a_connection_that_does_not_begin_does_not_stay() {
    let world = World::new().await;
    for begun in [&b"PRI "[..], b"PRI * HTTP/2.0\r\n\r\n"] {
        let mut connection = TcpStream::connect(world.bound).await.unwrap();
        connection.write_all(begun).await.unwrap();
        let mut rest = Vec::new();
        // The node ends it; how, does not matter.
        tokio::time::timeout(LONG, connection.read_to_end(&mut rest)).await.expect("the node ends it").ok();
        assert!(rest.is_empty());
    }
    // Complete, but silent from then on: its keep-alive goes unanswered.
    let mut connection = TcpStream::connect(world.bound).await.unwrap();
    connection.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(LONG, connection.read_to_end(&mut rest)).await.expect("the node ends it").ok();
    world.answers().await;
}

#[tokio::test]
async fn what_answers_but_is_no_node_is_told() {
    for (answer, told) in [
        (&b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"[..], "reached"),
        (b"\x20\x02\0\x01", "reached"),
        (b"", "reached"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let answering = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.write_all(answer).await.ok();
            }
        });
        let asked = GrpcPeers::with_patience(HASTY);
        let asked = asked.call(&address, PeerRequest::Command { text: "x".into() }, LONG).await;
        let error = CommandError::from(asked.unwrap_err());
        assert!(error.message.contains(&address) && error.message.contains(told) && error.hint.is_some(), "{error}");
        answering.abort();
    }
}
