//! The node's ports. One port may serve several protocols: the first bytes of a connection tell which it is.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use std::net::SocketAddr;
//! use std::sync::Arc;
//!
//! use anylog_net::listener::{ConnectionHandler, Listeners, Protocol, ServerKind};
//! use anylog_net::ServerAddress;
//! use tokio::io::AsyncWriteExt;
//! use tokio::net::TcpStream;
//! use tokio_util::sync::CancellationToken;
//!
//! struct Greeter;
//! #[async_trait::async_trait]
//! impl ConnectionHandler for Greeter {
//!     async fn serve(&self, mut stream: TcpStream, _: SocketAddr, _: CancellationToken) {
//!         stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await.ok();
//!     }
//! }
//!
//! let listeners = Listeners::default();
//! let address = ServerAddress::bound_to("127.0.0.1:0".parse().unwrap());
//! let bound = listeners.start(ServerKind::Rest, Protocol::Http, address, Arc::new(Greeter)).await.unwrap();
//! assert!(TcpStream::connect(bound).await.is_ok());
//! listeners.stop_all().await;
//! # });
//! ```

mod bind;
mod first_bytes;
mod socket;

use std::net::SocketAddr;
use std::sync::Arc;

use anylog_core::{CommandError, Status};
use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

pub use crate::address::{ServerAddress, server_declaration};
pub(crate) use first_bytes::has_sent;
use socket::{Service, Socket};

/// A protocol, told by the first bytes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// gRPC between nodes: the HTTP/2 preface `PRI `.
    Grpc,
    /// HTTP/1.1: a method name.
    Http,
    /// MQTT: a CONNECT packet, first byte 0x10.
    Mqtt,
}

impl Protocol {
    /// What a person calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Grpc => "gRPC",
            Protocol::Http => "HTTP",
            Protocol::Mqtt => "MQTT",
        }
    }
}

/// The three services of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ServerKind {
    /// Messages between nodes.
    Tcp,
    /// REST.
    Rest,
    /// The message broker.
    Broker,
}

impl ServerKind {
    /// All kinds, in the order shown.
    pub const ALL: [ServerKind; 3] = [ServerKind::Tcp, ServerKind::Rest, ServerKind::Broker];

    /// The row of `get connections`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            ServerKind::Tcp => "TCP",
            ServerKind::Rest => "REST",
            ServerKind::Broker => "Messaging",
        }
    }

    /// The commands that start and stop it.
    #[must_use]
    pub fn commands(self) -> (&'static str, &'static str) {
        match self {
            ServerKind::Tcp => ("run tcp server", "exit tcp"),
            ServerKind::Rest => ("run rest server", "exit rest"),
            ServerKind::Broker => ("run message broker", "exit broker"),
        }
    }
}

/// Serves the connections of one protocol.
#[async_trait]
pub trait ConnectionHandler: Send + Sync {
    /// Serves a connection until it ends or `stop` is cancelled. The first bytes were looked at but not taken.
    ///
    /// After `stop` a handler finishes what it acknowledged and returns; one that takes longer than
    /// [`DRAIN_DEADLINE`] is dropped.
    async fn serve(&self, stream: TcpStream, peer: SocketAddr, stop: CancellationToken);
}

/// How long the connections of a stopped server may take to end by themselves.
pub const DRAIN_DEADLINE: std::time::Duration = std::time::Duration::from_secs(3);

/// A running server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningServer {
    /// Which of the services.
    pub kind: ServerKind,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its declared addresses, with a port chosen by the system filled in.
    pub address: ServerAddress,
    /// The address of its socket.
    pub bound: SocketAddr,
    /// Connections open now.
    pub connections: usize,
    /// Connections accepted since the start.
    pub accepted: u64,
}

/// All servers of a node.
#[derive(Debug, Default)]
pub struct Listeners {
    sockets: Mutex<Vec<Arc<Socket>>>,
}

impl Listeners {
    /// Starts a server, sharing the port with another kind of server when it is bound already. Returns when the socket
    /// is bound.
    ///
    /// # Errors
    /// Status 136 when this kind of server runs already, 81 when the address is taken or is not one of this machine, 21
    /// when a host name does not resolve.
    pub async fn start(
        &self,
        kind: ServerKind,
        protocol: Protocol,
        address: ServerAddress,
        handler: Arc<dyn ConnectionHandler>,
    ) -> Result<SocketAddr, CommandError> {
        let wanted = bind::resolve(&address).await?;
        let mut sockets = self.sockets.lock();
        if let Some(running) = sockets.iter().find_map(|socket| socket.service_of(kind)) {
            return Err(already_running(kind, &running, &address));
        }
        let shared = sockets.iter().find(|socket| bind::covers(socket.local, wanted)).cloned();
        let socket = match shared {
            Some(socket) if socket.serves(protocol) => {
                return Err(in_use(&address, "another server of the same protocol"));
            }
            Some(socket) => socket,
            None => {
                if let Some(other) = sockets.iter().find(|socket| bind::overlaps(socket.local, wanted)) {
                    return Err(in_use(&address, &format!("this node at {}", other.local))
                        .hint("use the same address and bind for servers that share a port, or another port"));
                }
                let socket = Socket::open(bind::listen(&address, wanted)?)?;
                sockets.push(Arc::clone(&socket));
                socket
            }
        };
        let bound = SocketAddr::new(wanted.ip(), socket.local.port());
        let address = address.with_port(bound.port());
        tracing::info!(kind = kind.label(), %bound, "Server started");
        socket.add(Service::new(kind, protocol, address, bound, handler));
        Ok(bound)
    }

    /// Stops a server: takes no more connections, lets the open ones drain, and frees the port when no other server
    /// shares it. False when no such server runs.
    pub async fn stop(&self, kind: ServerKind) -> bool {
        let removed = {
            let mut sockets = self.sockets.lock();
            let found = sockets.iter().enumerate().find_map(|(index, socket)| {
                let service = socket.remove(kind)?;
                Some((index, Arc::clone(socket), service))
            });
            found.map(|(index, socket, service)| {
                let empty = socket.is_empty();
                if empty {
                    sockets.remove(index);
                }
                (socket, service, empty)
            })
        };
        let Some((socket, service, last)) = removed else { return false };
        if last {
            socket.close().await;
        }
        service.drain(DRAIN_DEADLINE).await;
        tracing::info!(kind = kind.label(), "Server stopped");
        true
    }

    /// Stops all servers at once.
    pub async fn stop_all(&self) {
        futures_util::future::join_all(ServerKind::ALL.map(|kind| self.stop(kind))).await;
    }

    /// The running servers, in the order of [`ServerKind::ALL`].
    #[must_use]
    pub fn addresses(&self) -> Vec<RunningServer> {
        let sockets = self.sockets.lock();
        ServerKind::ALL.iter().filter_map(|kind| sockets.iter().find_map(|socket| socket.service_of(*kind))).collect()
    }

    /// One running server.
    #[must_use]
    pub fn address(&self, kind: ServerKind) -> Option<RunningServer> {
        self.sockets.lock().iter().find_map(|socket| socket.service_of(kind))
    }

    /// `Listening on: ip:port[ and ip:port], Threads Pool: n`, the documented details of a process row.
    #[must_use]
    pub fn details(&self, kind: ServerKind) -> Option<String> {
        let address = self.address(kind)?.address;
        let second =
            if address.internal == address.external { String::new() } else { format!(" and {}", address.internal) };
        Some(format!("Listening on: {}{second}, Threads Pool: {}", address.external, address.threads))
    }
}

fn already_running(kind: ServerKind, running: &RunningServer, wanted: &ServerAddress) -> CommandError {
    let (_, exit) = kind.commands();
    if running.address.listening_on() == wanted.listening_on() {
        return in_use(wanted, &format!("the {} server that runs already", kind.label()))
            .hint(format!("nothing to do, or restart it after: {exit}"));
    }
    CommandError::new(
        Status::PROCESS_RUNNING,
        format!("The {} server runs already, at {}", kind.label(), running.address.listening_on()),
    )
    .hint(format!("stop it first with: {exit}"))
}

fn in_use(address: &ServerAddress, by: &str) -> CommandError {
    CommandError::new(Status::CONNECTION, format!("Host and port '{}' already in use by {by}", address.listening_on()))
}
