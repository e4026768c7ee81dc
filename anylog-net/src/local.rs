//! The in-process way to other nodes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anylog_core::CommandError;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use parking_lot::RwLock;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::links::{FRAMES_AHEAD, Link, LinkReceiver, LinkSender};
use crate::peers::{PeerError, PeerReply, PeerRequest, PeerService, PeerStream, Peers, StreamDeadlines, begun};

/// Other nodes in the same process: for tests and simulations.
///
/// A node can be cut off and joined again, as a network does it. [`LocalPeers::seen_from`] gives each node its own sight of the network, so
/// that one that is cut off reaches nobody either.
#[derive(Default)]
pub struct LocalPeers {
    nodes: RwLock<HashMap<String, Member>>,
}

#[derive(Clone)]
struct Member {
    service: Arc<dyn PeerService>,
    /// Cancelled when the node is cut off: its links end. None while it is.
    up: Option<CancellationToken>,
}

impl LocalPeers {
    /// No nodes.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Puts a node at `address`.
    pub fn add(&self, address: impl Into<String>, service: Arc<dyn PeerService>) {
        let member = Member { service, up: Some(CancellationToken::new()) };
        if let Some(Member { up: Some(up), .. }) = self.nodes.write().insert(address.into(), member) {
            up.cancel();
        }
    }

    /// Takes a node away, as a process that ends.
    pub fn remove(&self, address: &str) {
        if let Some(Member { up: Some(up), .. }) = self.nodes.write().remove(address) {
            up.cancel();
        }
    }

    /// Cuts a node off, or joins it again.
    pub fn set_reachable(&self, address: &str, reachable: bool) {
        if let Some(member) = self.nodes.write().get_mut(address) {
            match (&member.up, reachable) {
                (Some(up), false) => {
                    up.cancel();
                    member.up = None;
                }
                (None, true) => member.up = Some(CancellationToken::new()),
                _ => {}
            }
        }
    }

    /// The network as the node at `address` sees it: while that is cut off, or not there, it reaches nobody.
    pub fn seen_from(self: &Arc<Self>, address: impl Into<String>) -> Arc<dyn Peers> {
        Arc::new(Sight { network: Arc::clone(self), own: address.into() })
    }

    /// The node at an address, and what is cancelled when it is cut off.
    fn member(&self, address: &str) -> Result<(Arc<dyn PeerService>, CancellationToken), PeerError> {
        let member = self.nodes.read().get(address).cloned();
        let reached = member.and_then(|member| Some((member.service, member.up?)));
        reached.ok_or_else(|| PeerError::Unreachable {
            address: address.to_owned(),
            reason: "nobody listens there".into(),
        })
    }

    /// A link that ends when one of its nodes is cut off: this one, or the asking one by `own`.
    fn connect(&self, address: &str, purpose: &str, own: Option<CancellationToken>) -> Result<Link, PeerError> {
        let (service, up) = self.member(address)?;
        let from = SocketAddr::from(([127, 0, 0, 1], 0));
        let refused = |error| PeerError::Refused { address: address.to_owned(), error };
        let handler = service.link(from, purpose).map_err(refused)?;
        let (cut, over) = (up.child_token(), CancellationToken::new());
        if let Some(own) = own {
            let (cut, over) = (cut.clone(), over.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = own.cancelled() => cut.cancel(),
                    () = over.cancelled() => {}
                }
            });
        }
        let (near, to_far) = half(address, cut.clone());
        let (far, to_near) = half("127.0.0.1:0", cut.clone());
        let theirs = Link { sender: far, receiver: to_far };
        tokio::spawn(async move {
            let _over = over.drop_guard();
            tokio::select! {
                () = handler.serve(from, theirs) => {}
                () = cut.cancelled() => {}
            }
        });
        Ok(Link { sender: near, receiver: to_near })
    }
}

/// One direction of a link: where frames are put in, and where they come out. `cut` ends it in the middle.
fn half(address: &str, cut: CancellationToken) -> (LinkSender, LinkReceiver) {
    let (sender, frames) = mpsc::channel::<Bytes>(FRAMES_AHEAD);
    let broken = PeerError::Unreachable { address: address.to_owned(), reason: "the link was cut".into() };
    let frames = stream::unfold(Some((frames, cut, broken)), |state| async {
        let (mut frames, cut, broken) = state?;
        tokio::select! {
            biased;
            () = cut.cancelled() => Some((Err(broken), None)),
            frame = frames.recv() => Some((Ok(frame?), Some((frames, cut, broken)))),
        }
    });
    (LinkSender::new(sender), LinkReceiver::new(frames.boxed()))
}

impl std::fmt::Debug for LocalPeers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.nodes.read().keys()).finish()
    }
}

#[async_trait]
impl Peers for LocalPeers {
    async fn call(&self, address: &str, request: PeerRequest, deadline: Duration) -> Result<PeerReply, PeerError> {
        let (service, _) = self.member(address)?;
        let address = address.to_owned();
        let from = SocketAddr::from(([127, 0, 0, 1], 0));
        // In a task of its own, as over a network: a caller that gives up does not stop the command.
        let answering = tokio::spawn(async move { service.answer(from, request).await });
        match tokio::time::timeout(deadline, answering).await {
            Err(_) => Err(PeerError::TimeOut { address, after: deadline }),
            Ok(Ok(answer)) => answer.map_err(|error| PeerError::Refused { address, error }),
            Ok(Err(error)) => Err(PeerError::Refused {
                address,
                error: CommandError::process(format!("it ended abnormally: {error}")),
            }),
        }
    }

    async fn stream(
        &self,
        address: &str,
        request: PeerRequest,
        deadlines: StreamDeadlines,
    ) -> Result<PeerStream, PeerError> {
        let (service, _) = self.member(address)?;
        let from = SocketAddr::from(([127, 0, 0, 1], 0));
        let to = address.to_owned();
        let refused = move |error| PeerError::Refused { address: to.clone(), error };
        let asking = async {
            let pieces = service.stream(from, request).await.map_err(&refused)?;
            Ok(pieces.map(move |piece| piece.map_err(&refused)).boxed())
        };
        begun(address, asking, deadlines).await
    }

    async fn link(&self, address: &str, purpose: &str, _: Duration) -> Result<Link, PeerError> {
        self.connect(address, purpose, None)
    }
}

/// The network as one node sees it.
#[derive(Debug)]
struct Sight {
    network: Arc<LocalPeers>,
    own: String,
}

impl Sight {
    /// What is cancelled when this node is cut off.
    fn up(&self, address: &str) -> Result<CancellationToken, PeerError> {
        let cut = |_| PeerError::Unreachable { address: address.to_owned(), reason: "this node is cut off".into() };
        self.network.member(&self.own).map(|(_, up)| up).map_err(cut)
    }
}

#[async_trait]
impl Peers for Sight {
    async fn call(&self, address: &str, request: PeerRequest, deadline: Duration) -> Result<PeerReply, PeerError> {
        self.up(address)?;
        self.network.call(address, request, deadline).await
    }

    async fn stream(
        &self,
        address: &str,
        request: PeerRequest,
        deadlines: StreamDeadlines,
    ) -> Result<PeerStream, PeerError> {
        self.up(address)?;
        self.network.stream(address, request, deadlines).await
    }

    async fn link(&self, address: &str, purpose: &str, _: Duration) -> Result<Link, PeerError> {
        let own = self.up(address)?;
        self.network.connect(address, purpose, Some(own))
    }
}
