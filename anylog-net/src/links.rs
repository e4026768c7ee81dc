//! Links: both sides send frames, in order, until one of them lets go.
//!
//! A link is asked for with a *purpose*, a word by which the other node finds out who is to serve it ([`Links`]). What the frames say is the
//! affair of those two. A link is given up when the other side is silent for longer than [`SILENCE`], so a network that swallows everything is
//! noticed like a connection that is closed.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use std::net::SocketAddr;
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use anylog_net::{Link, LinkHandler, Links, LocalPeers, Peers};
//!
//! struct Echo;
//! #[async_trait::async_trait]
//! impl LinkHandler for Echo {
//!     async fn serve(&self, _: SocketAddr, mut link: Link) {
//!         while let Some(Ok(frame)) = link.receiver.next().await {
//!             if link.sender.send(frame).await.is_err() {
//!                 return;
//!             }
//!         }
//!     }
//! }
//!
//! let links = Arc::new(Links::default());
//! links.register("echo", Arc::new(Echo));
//! let peers = LocalPeers::new();
//! peers.add("10.0.0.1:32148", links);
//!
//! let mut link = peers.link("10.0.0.1:32148", "echo", Duration::from_secs(5)).await.unwrap();
//! link.sender.send("hello".into()).await.unwrap();
//! assert_eq!(link.receiver.next().await, Some(Ok("hello".into())));
//! # });
//! ```

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anylog_core::CommandError;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use parking_lot::RwLock;
use tokio::sync::mpsc;

use crate::peers::{PeerError, PeerReply, PeerRequest, PeerService};

/// The largest frame. A sender that has more to say sends several.
pub const FRAME_BYTES: usize = 17 * 1024 * 1024;

/// Frames that wait in this process to be sent. Who sends more waits.
pub(crate) const FRAMES_AHEAD: usize = 2;

/// A link whose other side gives no sign of life for so long is at its end.
pub const SILENCE: Duration = Duration::from_secs(9);

/// Both halves of a link. It ends when both are dropped, or when the other side drops its own.
#[derive(Debug)]
pub struct Link {
    /// Where frames to the other side go.
    pub sender: LinkSender,
    /// Where its frames come from.
    pub receiver: LinkReceiver,
}

/// The link is at its end; why, the receiving half tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkSendError {
    /// The other side has gone.
    #[error("the link is at its end")]
    Ended,
    /// The frame is larger than [`FRAME_BYTES`].
    #[error("a frame of {0} bytes is larger than a link carries")]
    TooLarge(usize),
}

/// The half that sends.
#[derive(Debug, Clone)]
pub struct LinkSender {
    frames: mpsc::Sender<Bytes>,
}

impl LinkSender {
    pub(crate) fn new(frames: mpsc::Sender<Bytes>) -> Self {
        Self { frames }
    }

    /// Sends a frame. Waits while the other side takes frames more slowly than they come, so memory stays bounded.
    ///
    /// A frame that was sent may be lost with the link.
    ///
    /// # Errors
    /// [`LinkSendError::Ended`] when the link is at its end, [`LinkSendError::TooLarge`].
    pub async fn send(&self, frame: Bytes) -> Result<(), LinkSendError> {
        if frame.len() > FRAME_BYTES {
            return Err(LinkSendError::TooLarge(frame.len()));
        }
        self.frames.send(frame).await.map_err(|_| LinkSendError::Ended)
    }

    /// Returns when the other side has gone.
    pub async fn ended(&self) {
        self.frames.closed().await;
    }
}

/// The half that receives.
pub struct LinkReceiver {
    frames: BoxStream<'static, Result<Bytes, PeerError>>,
}

impl LinkReceiver {
    pub(crate) fn new(frames: BoxStream<'static, Result<Bytes, PeerError>>) -> Self {
        Self { frames }
    }

    /// The next frame, in the order in which they were sent. None when the other side ended the link; an error is the last.
    pub async fn next(&mut self) -> Option<Result<Bytes, PeerError>> {
        self.frames.next().await
    }
}

impl std::fmt::Debug for LinkReceiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkReceiver").finish_non_exhaustive()
    }
}

/// Serves the links of a purpose.
#[async_trait]
pub trait LinkHandler: Send + Sync {
    /// Serves a link that another node asked for, until it ends: the receiver says so, and [`LinkSender::ended`] to who does not
    /// receive. Dropped when the node's server stops.
    async fn serve(&self, from: SocketAddr, link: Link);
}

/// Who serves links, by purpose. By itself it is a [`PeerService`] that answers nothing else, for tests and simulations.
#[derive(Default)]
pub struct Links {
    handlers: RwLock<HashMap<String, Arc<dyn LinkHandler>>>,
}

impl Links {
    /// From now on links of this purpose are served by `handler`.
    pub fn register(&self, purpose: impl Into<String>, handler: Arc<dyn LinkHandler>) {
        self.handlers.write().insert(purpose.into(), handler);
    }

    /// Who serves links of this purpose.
    ///
    /// # Errors
    /// An unknown purpose is one of a node of another version.
    pub fn handler(&self, purpose: &str) -> Result<Arc<dyn LinkHandler>, CommandError> {
        self.handlers.read().get(purpose).cloned().ok_or_else(|| unknown(purpose))
    }
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.handlers.read().keys()).finish()
    }
}

#[async_trait]
impl PeerService for Links {
    async fn answer(&self, _: SocketAddr, _: PeerRequest) -> Result<PeerReply, CommandError> {
        Err(CommandError::process("This node serves links only"))
    }

    fn link(&self, _: SocketAddr, purpose: &str) -> Result<Arc<dyn LinkHandler>, CommandError> {
        self.handler(purpose)
    }
}

pub(crate) fn unknown(purpose: &str) -> CommandError {
    CommandError::process(format!("This node serves no links for '{purpose}'")).hint("bring both nodes to one version")
}
