//! How nodes and clients reach a node: listeners, the node service, peers.

pub mod listener;
pub mod peers;

pub use listener::{Listeners, Protocol, ServerAddress, ServerKind};
pub use peers::{PeerError, PeerReply, PeerRequest, Peers};
