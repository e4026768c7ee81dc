//! Links over networks that fail.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anylog_net::grpc::{Patience, node_service, node_service_with};
use anylog_net::links::SILENCE;
use anylog_net::{
    GrpcPeers, Link, LinkHandler, Links, Listeners, PeerError, Peers, Protocol, ServerAddress, ServerKind,
};
use async_trait::async_trait;
use bytes::Bytes;

use crate::proxy::{self, Proxy};
use crate::{HASTY, LONG, until};

/// Sends frames as fast as they are taken, and takes all; counts the links that are served.
#[derive(Default)]
struct Flood {
    serving: AtomicUsize,
    ended: AtomicUsize,
}

#[async_trait]
impl LinkHandler for Flood {
    async fn serve(&self, _: SocketAddr, mut link: Link) {
        self.serving.fetch_add(1, Ordering::SeqCst);
        let quiet = matches!(link.receiver.next().await, Some(Ok(frame)) if frame == "quiet");
        let flood = async {
            while !quiet && link.sender.send(Bytes::from(vec![5; 700_000])).await.is_ok() {}
            if quiet {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = flood => {}
            () = async { while let Some(Ok(_)) = link.receiver.next().await {} } => {}
        }
        self.ended.fetch_add(1, Ordering::SeqCst);
    }
}

struct Linked {
    flood: Arc<Flood>,
    _listeners: Listeners,
    proxy: Proxy,
    peers: Arc<GrpcPeers>,
}

impl Linked {
    async fn new(patience: Option<Patience>) -> Self {
        let flood = Arc::new(Flood::default());
        let links = Arc::new(Links::default());
        links.register("flood", Arc::clone(&flood) as Arc<dyn LinkHandler>);
        let listeners = Listeners::default();
        let address = ServerAddress::bound_to(SocketAddr::from(([127, 0, 0, 1], 0)));
        let (service, peers) = match patience {
            Some(patience) => (node_service_with(links, patience), GrpcPeers::with_patience(patience)),
            None => (node_service(links), GrpcPeers::new()),
        };
        let bound = listeners.start(ServerKind::Tcp, Protocol::Grpc, address, service).await.unwrap();
        Self { flood, _listeners: listeners, proxy: Proxy::to(bound).await, peers }
    }

    async fn link(&self, first: &'static str) -> Link {
        let link = self.peers.link(&self.proxy.address.to_string(), "flood", LONG).await.unwrap();
        link.sender.send(first.into()).await.unwrap();
        until("the link is served", || self.flood.serving.load(Ordering::SeqCst) > 0).await;
        link
    }

    /// Takes frames until the link breaks.
    async fn broken(&self, link: &mut Link) -> PeerError {
        loop {
            match tokio::time::timeout(LONG, link.receiver.next()).await.expect("a frame or the end") {
                Some(Ok(frame)) => assert_eq!(frame.len(), 700_000),
                Some(Err(error)) => return error,
                None => panic!("a cut link ended as if it was meant to"),
            }
        }
    }
}

#[tokio::test]
async fn a_link_that_is_cut_in_the_middle_of_frames_ends_on_both_sides() {
    for met in [proxy::Link::Swallows, proxy::Link::Resets] {
        let linked = Linked::new(Some(HASTY)).await;
        let mut link = linked.link("go").await;
        for _ in 0..5 {
            assert_eq!(link.receiver.next().await.unwrap().unwrap().len(), 700_000);
        }
        linked.proxy.set(met);
        let error = linked.broken(&mut link).await;
        assert!(matches!(&error, PeerError::Unreachable { reason, .. } if !reason.is_empty()), "{error:?}");
        until("the other side ends too", || linked.flood.ended.load(Ordering::SeqCst) == 1).await;
        tokio::time::timeout(LONG, link.sender.ended()).await.expect("the sending half ends");
        // It heals: a new link is a matter of asking.
        linked.proxy.set(proxy::Link::Carries);
        let mut again = linked.link("go").await;
        assert_eq!(again.receiver.next().await.unwrap().unwrap().len(), 700_000);
    }
}

#[tokio::test]
async fn an_idle_link_that_swallows_everything_is_noticed_by_both_sides_in_time() {
    // R6: with the times of a node, not those of a test.
    let linked = Linked::new(None).await;
    let mut link = linked.link("quiet").await;
    linked.proxy.set(proxy::Link::Swallows);
    let cut = std::time::Instant::now();
    let error = linked.broken(&mut link).await;
    assert!(matches!(error, PeerError::Unreachable { .. }), "{error:?}");
    until("the other side ends too", || linked.flood.ended.load(Ordering::SeqCst) == 1).await;
    let promised = [Patience::LINKING, Patience::ANSWERING].map(|patience| patience.silence + patience.answer);
    assert!(promised.iter().all(|time| *time <= SILENCE), "{promised:?}");
    // Far beyond what is promised, for machines that are busy: without keep-alives it would never end.
    assert!(cut.elapsed() < LONG);
}
