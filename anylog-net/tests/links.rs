//! What every way to other nodes must do with links, checked over gRPC and in process.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anylog_core::Status;
use anylog_net::grpc::node_service;
use anylog_net::links::FRAME_BYTES;
use anylog_net::{
    GrpcPeers, Link, LinkHandler, LinkSendError, Links, Listeners, LocalPeers, PeerError, Peers, Protocol,
    ServerAddress, ServerKind,
};
use async_trait::async_trait;
use bytes::Bytes;

const DEADLINE: Duration = Duration::from_secs(20);

/// Gives frames back, counts those that it took, and reads no more when it is told to hold.
#[derive(Default)]
struct Echo {
    taken: AtomicUsize,
    serving: AtomicUsize,
}

struct Serving<'a>(&'a AtomicUsize);

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl LinkHandler for Echo {
    async fn serve(&self, from: SocketAddr, mut link: Link) {
        assert!(from.ip().is_loopback());
        self.serving.fetch_add(1, Ordering::SeqCst);
        let _serving = Serving(&self.serving);
        while let Some(Ok(frame)) = link.receiver.next().await {
            self.taken.fetch_add(1, Ordering::SeqCst);
            match frame.as_ref() {
                b"bye" => {
                    link.sender.send("bye bye".into()).await.unwrap();
                    return;
                }
                b"hold" => return link.sender.ended().await,
                _ => {}
            }
            if link.sender.send(frame).await.is_err() {
                return;
            }
        }
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

async fn next(link: &mut Link) -> Option<Result<Bytes, PeerError>> {
    tokio::time::timeout(DEADLINE, link.receiver.next()).await.expect("a frame or the end")
}

/// The contract of [`Peers::link`].
async fn conforms(peers: Arc<dyn Peers>, address: &str, echo: &Echo) {
    let mut link = peers.link(address, "echo", DEADLINE).await.unwrap();
    // Frames of any size, in order, whole.
    let large = Bytes::from(vec![7; 1_200_000]);
    for frame in [Bytes::from_static(b"hello"), Bytes::new(), large, Bytes::from(vec![1; FRAME_BYTES])] {
        link.sender.send(frame.clone()).await.unwrap();
        assert_eq!(next(&mut link).await, Some(Ok(frame)));
    }
    let too_large = link.sender.send(Bytes::from(vec![1; FRAME_BYTES + 1])).await;
    assert_eq!(too_large, Err(LinkSendError::TooLarge(FRAME_BYTES + 1)));
    // Both directions at once, more than fits anywhere.
    let sender = link.sender.clone();
    let sending = tokio::spawn(async move {
        for number in 0..200_u32 {
            let mut frame = vec![0; 300_000];
            frame[..4].copy_from_slice(&number.to_be_bytes());
            sender.send(frame.into()).await.unwrap();
        }
    });
    for number in 0..200_u32 {
        let frame = next(&mut link).await.unwrap().unwrap();
        assert_eq!((frame.len(), &frame[..4]), (300_000, number.to_be_bytes().as_slice()));
    }
    sending.await.unwrap();

    // What was sent before the end arrives; then it is an end, not an error.
    link.sender.send("bye".into()).await.unwrap();
    assert_eq!(next(&mut link).await, Some(Ok("bye bye".into())));
    assert_eq!(next(&mut link).await, None);
    tokio::time::timeout(DEADLINE, link.sender.ended()).await.expect("the sending half ends too");

    // Who lets go ends the work at the other side.
    let link = peers.link(address, "echo", DEADLINE).await.unwrap();
    until("the link is served", || echo.serving.load(Ordering::SeqCst) == 1).await;
    drop(link);
    until("the link is served no more", || echo.serving.load(Ordering::SeqCst) == 0).await;

    // R23: a side that takes no frames holds the sender up; what is under way stays small.
    let link = peers.link(address, "echo", DEADLINE).await.unwrap();
    let before = echo.taken.load(Ordering::SeqCst);
    link.sender.send("hold".into()).await.unwrap();
    until("it holds", || echo.taken.load(Ordering::SeqCst) > before).await;
    let mut sent = 0;
    let frame = Bytes::from(vec![0; 1 << 20]);
    while tokio::time::timeout(Duration::from_millis(300), link.sender.send(frame.clone())).await.is_ok() {
        sent += 1;
        assert!(sent < 32, "{sent} MiB are under way");
    }
    drop(link);
    until("the held link is served no more", || echo.serving.load(Ordering::SeqCst) == 0).await;

    // Refused: nobody serves that.
    let refused = peers.link(address, "else", DEADLINE).await.unwrap_err();
    let PeerError::Refused { error, .. } = &refused else { panic!("{refused:?}") };
    assert!(error.message.contains("'else'") && error.status == Status::PROCESS_FAILURE, "{error}");
    // Nobody there.
    for nobody in ["127.0.0.1:1", "nonsense"] {
        let error = peers.link(nobody, "echo", DEADLINE).await.unwrap_err();
        assert!(matches!(&error, PeerError::Unreachable { address, .. } if address == nobody), "{error:?}");
    }
}

fn links(echo: &Arc<Echo>) -> Arc<Links> {
    let links = Links::default();
    links.register("echo", Arc::clone(echo) as Arc<dyn LinkHandler>);
    Arc::new(links)
}

#[tokio::test]
async fn in_process_links_conform() {
    let echo = Arc::new(Echo::default());
    let peers = LocalPeers::new();
    peers.add("10.0.0.1:32148", links(&echo));
    peers.add("10.0.0.2:32148", Arc::new(Links::default()));
    conforms(peers.seen_from("10.0.0.2:32148"), "10.0.0.1:32148", &echo).await;
    conforms(peers, "10.0.0.1:32148", &echo).await;
}

#[tokio::test]
async fn grpc_links_conform_and_end_with_their_server() {
    let echo = Arc::new(Echo::default());
    let listeners = Listeners::default();
    let address = ServerAddress::bound_to(SocketAddr::from(([127, 0, 0, 1], 0)));
    let bound = listeners.start(ServerKind::Tcp, Protocol::Grpc, address, node_service(links(&echo))).await.unwrap();
    conforms(GrpcPeers::new(), &bound.to_string(), &echo).await;

    let mut link = GrpcPeers::new().link(&bound.to_string(), "echo", DEADLINE).await.unwrap();
    link.sender.send("hold".into()).await.unwrap();
    until("the link is served", || echo.serving.load(Ordering::SeqCst) == 1).await;
    // OPS-2: a link does not hold up the end of the server.
    let (stopped, ended) =
        tokio::join!(tokio::time::timeout(DEADLINE, listeners.stop(ServerKind::Tcp)), next(&mut link));
    assert!(stopped.unwrap() && !matches!(ended, Some(Ok(_))), "{ended:?}");
    assert_eq!(echo.serving.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_node_that_is_cut_off_loses_its_links_both_ways() {
    let echoes = [Arc::new(Echo::default()), Arc::new(Echo::default())];
    let peers = LocalPeers::new();
    let addresses = ["10.0.0.1:1", "10.0.0.2:1"];
    for (address, echo) in addresses.iter().zip(&echoes) {
        peers.add(*address, links(echo));
    }
    let sights = addresses.map(|address| peers.seen_from(address));
    let mut to_second = sights[0].link(addresses[1], "echo", DEADLINE).await.unwrap();
    let mut to_first = sights[1].link(addresses[0], "echo", DEADLINE).await.unwrap();
    peers.set_reachable(addresses[0], false);
    for link in [&mut to_second, &mut to_first] {
        assert!(matches!(next(link).await, Some(Err(PeerError::Unreachable { .. }))));
        assert_eq!(next(link).await, None);
    }
    until("nobody serves", || echoes.iter().all(|echo| echo.serving.load(Ordering::SeqCst) == 0)).await;
    assert!(sights[0].link(addresses[1], "echo", DEADLINE).await.is_err());
    assert!(sights[1].link(addresses[0], "echo", DEADLINE).await.is_err());
    peers.set_reachable(addresses[0], true);
    let mut again = sights[0].link(addresses[1], "echo", DEADLINE).await.unwrap();
    again.sender.send("hello".into()).await.unwrap();
    assert_eq!(next(&mut again).await, Some(Ok("hello".into())));
}
