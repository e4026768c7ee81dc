//! How nodes and clients reach a node: its ports, the messages between nodes, the way to other nodes.
//!
//! Every service of a node - messages from other nodes, REST, the message broker - listens at an address of its own or
//! shares one: the first bytes of a connection tell its protocol. What a service does with a connection is its own
//! affair ([`ConnectionHandler`]); this crate binds, tells apart, counts, bounds and drains.
//!
//! Nodes ask each other through the seam [`Peers`]: over gRPC ([`grpc::GrpcPeers`]) in a node, in process
//! ([`peers::LocalPeers`]) in tests and simulations.
//!
//! # Asking another node
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use std::net::SocketAddr;
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use anylog_core::CommandError;
//! use anylog_net::grpc::{GrpcPeers, node_service};
//! use anylog_net::listener::{Listeners, Protocol, ServerAddress, ServerKind};
//! use anylog_net::peers::{PeerReply, PeerRequest, PeerService, Peers};
//!
//! struct Echo;
//! #[async_trait::async_trait]
//! impl PeerService for Echo {
//!     async fn answer(&self, _: SocketAddr, request: PeerRequest) -> Result<PeerReply, CommandError> {
//!         Ok(PeerReply::Text(format!("{request:?}")))
//!     }
//! }
//!
//! let listeners = Listeners::default();
//! let address = ServerAddress::bound_to("127.0.0.1:0".parse().unwrap());
//! let bound = listeners.start(ServerKind::Tcp, Protocol::Grpc, address, node_service(Arc::new(Echo))).await.unwrap();
//!
//! let request = PeerRequest::Command { text: "get status".into() };
//! let reply = GrpcPeers::new().call(&bound.to_string(), request, Duration::from_secs(5)).await.unwrap();
//! assert_eq!(reply, PeerReply::Text(r#"Command { text: "get status" }"#.into()));
//! # });
//! ```
//!
//! # Guarantees
//! * A server that was started is bound: the next command finds it. A server that was stopped has freed its port.
//! * Connections, pieces, messages and answers are bounded; a slow or silent peer costs a bounded time.
//! * A command that was called over the network runs to its end, also when the caller has gone.
//! * An answer that is streamed ([`Peers::stream`]) takes bounded memory at both ends whatever its
//!   length, and the work for it ends when the caller drops it.
//! * A link ([`Peers::link`]) carries frames in order, holds a sender up that is faster than the other side, and ends when the other
//!   side gives no sign of life for [`links::SILENCE`].
//!
//! # Non-guarantees
//! * No encryption and no proof of identity between nodes: rights follow the address of the caller. Use a private
//!   network, or an overlay.
//! * A call that fails may have run at the peer; asking twice is the caller's decision.
//!
//! # The rooms
//!
//! | module | holds |
//! |---|---|
//! | [`address`] | the addresses of a server, as a call gives them |
//! | [`listener`] | ports, first bytes, shared sockets, draining |
//! | [`peers`] | the seam to other nodes, and the in-process one |
//! | [`links`] | frames both ways, until one side lets go |
//! | [`grpc`] | messages between nodes over gRPC |
//! | [`commands`](mod@commands) | `run tcp server`, `exit ...`, `get connections` |

#![forbid(unsafe_code)]

pub mod address;
pub mod commands;
pub mod grpc;
pub mod links;
pub mod listener;
mod local;
pub mod peers;

pub use address::ServerAddress;
pub use commands::{commands, register_processes};
pub use grpc::GrpcPeers;
pub use links::{Link, LinkHandler, LinkReceiver, LinkSendError, LinkSender, Links};
pub use listener::{ConnectionHandler, Listeners, Protocol, RunningServer, ServerKind, server_declaration};
pub use peers::{
    FOLLOW_SILENCE, LedgerBasis, LedgerDifference, LedgerQuestion, LocalPeers, PeerError, PeerReply, PeerRequest,
    PeerService, PeerStream, Peers, StreamDeadlines,
};
