//! The seam to other nodes.

use std::time::Duration;

use anylog_core::{CommandError, Status};
use async_trait::async_trait;

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
        CommandError::new(status, error.to_string())
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
    async fn answer(&self, from: std::net::SocketAddr, request: PeerRequest) -> Result<PeerReply, CommandError>;
}
