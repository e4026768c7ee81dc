//! Messages between nodes over gRPC: the service that answers, the pool that asks.
//!
//! A command's answer comes in pieces of [`PIECE_BYTES`]; a command's own error travels as a message with its
//! documented status, so only a broken connection is a gRPC error. Messages are bounded by [`MESSAGE_BYTES`], a
//! command's whole answer by [`ANSWER_BYTES`].

mod client;
mod ledger;
mod link;
mod server;

use std::time::Duration;

pub use client::GrpcPeers;
pub use server::{node_service, node_service_with};

/// How long one side of a connection bears with the silence of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// How long a connection may take to open, and its first bytes to come.
    pub open: Duration,
    /// A connection with work on it that is silent for so long is asked whether the other side is still there.
    pub silence: Duration,
    /// How long the other side may take to say so; then the connection is given up.
    pub answer: Duration,
}

impl Patience {
    /// Of the side that asks.
    pub const ASKING: Self =
        Self { open: Duration::from_secs(5), silence: Duration::from_secs(10), answer: Duration::from_secs(5) };

    /// Of the side that answers: together no more than [`crate::links::SILENCE`], as links are served too.
    pub const ANSWERING: Self =
        Self { open: Duration::from_secs(10), silence: Duration::from_secs(4), answer: Duration::from_secs(5) };

    /// Of the side that asked for a link: it finds out before its mate does, and dials again.
    pub const LINKING: Self =
        Self { open: Duration::from_secs(3), silence: Duration::from_secs(3), answer: Duration::from_secs(4) };
}

/// The largest message that either side takes.
pub const MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// The largest answer of one command that the asking side holds.
pub const ANSWER_BYTES: usize = 256 * 1024 * 1024;

/// The size of the pieces in which a command's answer is sent.
pub const PIECE_BYTES: usize = 64 * 1024;

/// The generated messages and service of `proto/node.proto`.
#[allow(missing_docs, unreachable_pub, missing_debug_implementations, clippy::all, clippy::pedantic)]
pub mod proto {
    tonic::include_proto!("anylog.node.v1");
}

impl From<anylog_core::CommandError> for proto::Failure {
    fn from(error: anylog_core::CommandError) -> Self {
        Self { status: u32::from(error.status.0), message: error.message, hint: error.hint.unwrap_or_default() }
    }
}

impl From<proto::Failure> for anylog_core::CommandError {
    fn from(failure: proto::Failure) -> Self {
        // A status that does not fit comes from a node of another version.
        let status = u16::try_from(failure.status).map_or(anylog_core::Status::PROCESS_FAILURE, anylog_core::Status);
        Self { status, message: failure.message, hint: Some(failure.hint).filter(|hint| !hint.is_empty()) }
    }
}
