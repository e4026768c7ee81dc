//! The seam to other nodes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anylog_core::{CommandError, Status};
use async_trait::async_trait;
use parking_lot::RwLock;

/// What a node asks of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerRequest {
    /// Run a command there.
    Command {
        /// The command's text.
        text: String,
    },
    /// Give the ledger, unless it is still this version.
    Ledger {
        /// The version that the asking node holds; empty when it holds none.
        known_version: String,
    },
}

/// What another node answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerReply {
    /// The text of a command's answer.
    Text(String),
    /// The ledger: its version, and the policies in order as JSON texts, or none when the version did not change.
    Ledger {
        /// The version now.
        version: String,
        /// The policies, one JSON text each.
        policies: Option<Vec<String>>,
    },
}

/// Why another node gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// Nobody listens there, or the connection broke.
    #[error("node {address} cannot be reached: {reason}")]
    Unreachable {
        /// Its address.
        address: String,
        /// The cause.
        reason: String,
    },
    /// It did not answer in time.
    #[error("node {address} did not answer within {} seconds", .after.as_secs())]
    TimeOut {
        /// Its address.
        address: String,
        /// The time that it was given.
        after: Duration,
    },
    /// It answered with an error.
    #[error("node {address} answered: {error}")]
    Refused {
        /// Its address.
        address: String,
        /// Its error.
        error: CommandError,
    },
}

impl From<PeerError> for CommandError {
    fn from(error: PeerError) -> Self {
        let status = match &error {
            PeerError::Unreachable { .. } => Status::REFUSED,
            PeerError::TimeOut { .. } => Status::TIME_OUT,
            PeerError::Refused { error, .. } => error.status,
        };
        let hint = match &error {
            PeerError::Refused { error, .. } => error.hint.clone(),
            _ => Some("check that the node runs and that its TCP server listens at this address".to_owned()),
        };
        let message = match &error {
            PeerError::Refused { address, error } => format!("node {address} answered: {}", error.message),
            other => other.to_string(),
        };
        CommandError { status, message, hint }
    }
}

/// The way to other nodes.
#[async_trait]
pub trait Peers: Send + Sync + std::fmt::Debug {
    /// Asks the node at `address` (`host:port` of its TCP server) and waits at most `deadline`.
    async fn call(&self, address: &str, request: PeerRequest, deadline: Duration) -> Result<PeerReply, PeerError>;
}

/// What a node answers to others; implemented where the node is put together.
#[async_trait]
pub trait PeerService: Send + Sync {
    /// Answers one request from `from`.
    async fn answer(&self, from: SocketAddr, request: PeerRequest) -> Result<PeerReply, CommandError>;
}

/// Other nodes in the same process: for tests and simulations.
///
/// A node can be cut off and joined again, as a network does it.
#[derive(Default)]
pub struct LocalPeers {
    nodes: RwLock<HashMap<String, Member>>,
}

#[derive(Clone)]
struct Member {
    service: Arc<dyn PeerService>,
    reachable: bool,
}

impl LocalPeers {
    /// No nodes.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Puts a node at `address`.
    pub fn add(&self, address: impl Into<String>, service: Arc<dyn PeerService>) {
        self.nodes.write().insert(address.into(), Member { service, reachable: true });
    }

    /// Cuts a node off, or joins it again.
    pub fn set_reachable(&self, address: &str, reachable: bool) {
        if let Some(member) = self.nodes.write().get_mut(address) {
            member.reachable = reachable;
        }
    }
}

impl std::fmt::Debug for LocalPeers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.nodes.read().keys()).finish()
    }
}

#[async_trait]
impl Peers for LocalPeers {
    async fn call(&self, address: &str, request: PeerRequest, deadline: Duration) -> Result<PeerReply, PeerError> {
        let member = self.nodes.read().get(address).filter(|member| member.reachable).cloned();
        let address = address.to_owned();
        let Some(member) = member else {
            return Err(PeerError::Unreachable { address, reason: "nobody listens there".into() });
        };
        let from = SocketAddr::from(([127, 0, 0, 1], 0));
        // In a task of its own, as over a network: a caller that gives up does not stop the command.
        let answering = tokio::spawn(async move { member.service.answer(from, request).await });
        match tokio::time::timeout(deadline, answering).await {
            Err(_) => Err(PeerError::TimeOut { address, after: deadline }),
            Ok(Ok(answer)) => answer.map_err(|error| PeerError::Refused { address, error }),
            Ok(Err(error)) => Err(PeerError::Refused {
                address,
                error: CommandError::process(format!("it ended abnormally: {error}")),
            }),
        }
    }
}
