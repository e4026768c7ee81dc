//! The node's ports. One port may serve several protocols: the first bytes of a connection tell which it is.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

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

/// The addresses of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    /// The address published to other nodes, `ip:port`.
    pub external: String,
    /// The address on the local network, `ip:port`.
    pub internal: String,
    /// Whether it listens on the internal address only; otherwise on all.
    pub bind: bool,
    /// Worker threads as declared; shown, and the bound on requests at work at once.
    pub threads: usize,
}

/// Serves the connections of one protocol.
#[async_trait]
pub trait ConnectionHandler: Send + Sync {
    /// Serves a connection until it ends or `stop` is cancelled. The first bytes were looked at but not taken.
    async fn serve(&self, stream: TcpStream, peer: SocketAddr, stop: CancellationToken);
}

/// All servers of a node.
#[derive(Debug, Default)]
pub struct Listeners {}

impl Listeners {
    /// Starts a server, sharing the port with another kind of server when it is bound already. Returns when the socket
    /// is bound.
    pub async fn start(
        &self,
        kind: ServerKind,
        protocol: Protocol,
        address: ServerAddress,
        handler: Arc<dyn ConnectionHandler>,
    ) -> Result<SocketAddr, anylog_core::CommandError> {
        let _ = (kind, protocol, address, handler);
        Err(anylog_core::CommandError::process("not started"))
    }
}
