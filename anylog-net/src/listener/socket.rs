//! One bound port and the services that share it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anylog_core::CommandError;
use parking_lot::{Mutex, RwLock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::first_bytes::{self, Verdict};
use super::{ConnectionHandler, Protocol, RunningServer, ServerAddress, ServerKind};

/// Connections that one port holds at once. Further ones wait in the system's backlog.
const MAX_CONNECTIONS: usize = 4096;

/// Pause after the system refused to hand over a connection (no file handles left), so that the loop does not spin.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);

/// One service at a port.
pub(super) struct Service {
    kind: ServerKind,
    protocol: Protocol,
    address: ServerAddress,
    bound: SocketAddr,
    handler: Arc<dyn ConnectionHandler>,
    /// Asks connections to end.
    stop: CancellationToken,
    /// Drops those that did not.
    kill: CancellationToken,
    connections: TaskTracker,
    accepted: AtomicU64,
}

impl Service {
    pub(super) fn new(
        kind: ServerKind,
        protocol: Protocol,
        address: ServerAddress,
        bound: SocketAddr,
        handler: Arc<dyn ConnectionHandler>,
    ) -> Arc<Self> {
        Arc::new(Self {
            kind,
            protocol,
            address,
            bound,
            handler,
            stop: CancellationToken::new(),
            kill: CancellationToken::new(),
            connections: TaskTracker::new(),
            accepted: AtomicU64::new(0),
        })
    }

    fn running(&self) -> RunningServer {
        RunningServer {
            kind: self.kind,
            protocol: self.protocol,
            address: self.address.clone(),
            bound: self.bound,
            connections: self.connections.len(),
            accepted: self.accepted.load(Ordering::Relaxed),
        }
    }

    /// Whether a connection that came in at `local` is meant for this service: one that was declared for a single address
    /// does not answer on the others of a shared port.
    fn reachable_at(&self, local: SocketAddr) -> bool {
        self.bound.ip().is_unspecified() || self.bound.ip() == local.ip()
    }

    async fn serve(&self, stream: TcpStream, peer: SocketAddr) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        let work = self.connections.track_future(self.handler.serve(stream, peer, self.stop.clone()));
        tokio::select! {
            () = work => {}
            () = self.kill.cancelled() => tracing::debug!(%peer, "Connection dropped after the drain deadline"),
        }
    }

    /// Ends all connections: first by asking, after `deadline` by dropping.
    pub(super) async fn drain(&self, deadline: Duration) {
        self.stop.cancel();
        self.connections.close();
        if tokio::time::timeout(deadline, self.connections.wait()).await.is_err() {
            self.kill.cancel();
            self.connections.wait().await;
        }
    }
}

/// The services of one port, and what it served before.
#[derive(Default)]
struct Services {
    running: Vec<Arc<Service>>,
    /// Protocols of services that were stopped: who speaks one of them came to the right port at the wrong time.
    ended: Vec<Protocol>,
}

/// One bound port.
pub(super) struct Socket {
    pub(super) local: SocketAddr,
    services: Arc<RwLock<Services>>,
    closed: CancellationToken,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

impl Socket {
    /// Starts to accept connections.
    pub(super) fn open(listener: TcpListener) -> Result<Arc<Self>, CommandError> {
        let local = listener
            .local_addr()
            .map_err(|error| CommandError::process(format!("The address of a new socket is unknown: {error}")))?;
        let services = Arc::new(RwLock::new(Services::default()));
        let closed = CancellationToken::new();
        let accepting = tokio::spawn(accept(listener, Arc::clone(&services), closed.clone()));
        Ok(Arc::new(Self { local, services, closed, accepting: Mutex::new(Some(accepting)) }))
    }

    pub(super) fn add(&self, service: Arc<Service>) {
        let mut services = self.services.write();
        services.ended.retain(|ended| *ended != service.protocol);
        services.running.push(service);
    }

    pub(super) fn remove(&self, kind: ServerKind) -> Option<Arc<Service>> {
        let mut services = self.services.write();
        let index = services.running.iter().position(|service| service.kind == kind)?;
        let service = services.running.remove(index);
        services.ended.push(service.protocol);
        Some(service)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.services.read().running.is_empty()
    }

    pub(super) fn serves(&self, protocol: Protocol) -> bool {
        self.services.read().running.iter().any(|service| service.protocol == protocol)
    }

    pub(super) fn service_of(&self, kind: ServerKind) -> Option<RunningServer> {
        self.services.read().running.iter().find(|service| service.kind == kind).map(|service| service.running())
    }

    /// Stops accepting; the port is free when this returns.
    pub(super) async fn close(&self) {
        self.closed.cancel();
        let accepting = self.accepting.lock().take();
        if let Some(accepting) = accepting
            && let Err(error) = accepting.await
        {
            tracing::error!(%error, local = %self.local, "The accept loop failed");
        }
    }
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let services: Vec<_> = self.services.read().running.iter().map(|service| service.running()).collect();
        f.debug_struct("Socket").field("local", &self.local).field("services", &services).finish_non_exhaustive()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

/// Accepts until `closed`. Connections that wait for their first bytes end with the socket.
async fn accept(listener: TcpListener, services: Arc<RwLock<Services>>, closed: CancellationToken) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let next = async {
            let permit = Arc::clone(&permits).acquire_owned().await.expect("invariant: the semaphore is never closed");
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            next = next => next,
            () = closed.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let services = Arc::clone(&services);
                let closed = closed.clone();
                tokio::spawn(async move {
                    let _permit = permit;
                    connection(stream, peer, &services, &closed).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "A connection could not be accepted");
                tokio::time::sleep(ACCEPT_BACK_OFF).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, services: &RwLock<Services>, closed: &CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, %peer, "The connection ended before it began");
        return;
    }
    let verdict = tokio::select! {
        verdict = first_bytes::look(&stream, first_bytes::DEADLINE) => verdict,
        () = closed.cancelled() => return,
    };
    let verdict = match verdict {
        Ok(verdict) => verdict,
        Err(error) => {
            tracing::debug!(%error, %peer, "A connection told no protocol");
            return;
        }
    };
    let service = match (verdict, stream.local_addr()) {
        (Verdict::Known(protocol), Ok(local)) => {
            let services = services.read();
            services.running.iter().find(|service| service.protocol == protocol && service.reachable_at(local)).cloned()
        }
        _ => None,
    };
    match service {
        Some(service) => service.serve(stream, peer).await,
        None => {
            let (offered, ended) = {
                let services = services.read();
                let offered: Vec<&str> = services.running.iter().map(|service| service.protocol.name()).collect();
                // A port without any service belongs to a node that starts or ends.
                let ended = services.running.is_empty()
                    || matches!(verdict, Verdict::Known(protocol) if services.ended.contains(&protocol));
                (offered.join(" and "), ended)
            };
            refuse(stream, peer, verdict, &offered, ended).await;
        }
    }
}

/// Closes a connection whose protocol is not served at this port; one that speaks HTTP is told why. A protocol that was served
/// until now will be again when the node is back: its senders are to try again, not to give up.
async fn refuse(mut stream: TcpStream, peer: SocketAddr, verdict: Verdict, offered: &str, ended: bool) {
    match verdict {
        _ if ended => tracing::debug!(%peer, ?verdict, "A connection came for a service that was stopped"),
        Verdict::Tls => tracing::warn!(%peer, offered, "A TLS connection was refused: this port is served without TLS"),
        _ => tracing::warn!(%peer, offered, ?verdict, "A connection was refused: this port serves another protocol"),
    }
    if verdict == Verdict::Known(Protocol::Http) {
        let (status, text) = if ended {
            (
                "503 Service Unavailable\r\nRetry-After: 1",
                "REST was stopped at this port. Try again later.\r\n".to_owned(),
            )
        } else {
            let text =
                format!("This port serves {offered}, not HTTP. See `get connections` for the address of REST.\r\n");
            ("400 Bad Request", text)
        };
        let head = format!("HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n");
        let reply = format!("{head}Content-Length: {}\r\n\r\n{text}", text.len());
        let farewell = async {
            stream.write_all(reply.as_bytes()).await?;
            stream.shutdown().await?;
            // Unread bytes at close would reset the connection and take the reply with them.
            let mut rest = [0_u8; 1024];
            while stream.read(&mut rest).await? > 0 {}
            std::io::Result::Ok(())
        };
        if !matches!(tokio::time::timeout(Duration::from_secs(1), farewell).await, Ok(Ok(()))) {
            tracing::debug!(%peer, "The refusal was not read");
        }
    }
}
