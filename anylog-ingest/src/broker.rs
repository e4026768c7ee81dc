//! The embedded MQTT broker, for protocol versions 3.1.1 and 5.
//!
//! Devices publish to the node itself. What a message client of the node subscribed to (`run msg client where broker=local`) is
//! mapped to rows and stored; everything is passed on to MQTT clients that subscribed, as any broker does.
//!
//! # Guarantees
//!
//! * **DUR-1** PUBACK and PUBREC of a message that is mapped are sent only with a [`Receipt`](crate::Receipt) for its rows, or when
//!   the message lies synced in the error directory because it cannot be mapped (R14). A message that nobody maps is acknowledged
//!   when it has been passed on.
//! * QoS 2 stores a message once per packet id until its PUBREL, over reconnects and restarts of the node as long as the session
//!   is kept.
//! * Sessions that outlive their connection, what waits for them and retained messages are on disk when [`Broker::keep_in`] says
//!   where. Messages of MQTT 5 expire.
//! * Pings are answered while the store is slow. Without a store, publishes with QoS 1 and 2 stay unacknowledged, those with QoS 0
//!   are dropped and counted.
//! * Everything is bounded: a packet ([`MAX_PACKET_BYTES`]), what a connection holds ([`MAX_PENDING`]), what all hold
//!   ([`BUDGET_BYTES`](crate::intake::BUDGET_BYTES)), what waits for a client ([`MAX_QUEUE_BYTES`]) and for all
//!   ([`MAX_QUEUES_BYTES`]), sessions ([`MAX_SESSIONS`]), packet ids without release ([`MAX_RECEIVED`]), filters
//!   ([`MAX_FILTER_BYTES`]), connections ([`MAX_CONNECTIONS`]),
//!   retained messages ([`MAX_RETAINED_BYTES`]).
//!
//! # What is on disk when
//!
//! * PUBACK, PUBREC: the rows; the message, when a session that outlives its connection subscribed to it, or when it is retained; the id
//!   of a QoS 2 packet from such a session. What nobody stores and nobody waits for has only been passed on.
//! * SUBACK, UNSUBACK, CONNACK: the subscription, and the session, when it outlives its connection.
//! * PUBREL to a subscriber: that it has the message. PUBCOMP to a publisher: that the packet id is free.
//! * That a subscriber acknowledged, or a client went away, is written soon after: a crash may send a message of QoS 1 again.
//!
//! # Non-guarantees
//!
//! * Messages of QoS 0 do not wait for a client that is away.
//! * A subscriber that does not keep up loses messages, those that do not fit [`MAX_QUEUE_BYTES`]; the publisher is not slowed.
//! * No users and no TLS: anybody who reaches the port may publish.
//! * Shared subscriptions, subscription identifiers and topic aliases are refused, as the CONNACK says.

mod book;
mod client;
pub(crate) mod codec;
mod connection;
mod keep;
mod message;
mod router;
mod routing;
mod session;
mod statistics;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use anylog_core::node::startup::Phase;
use anylog_core::{CommandError, Node, Status};
use anylog_net::listener::ConnectionHandler;
use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::intake::{Intake, Standing, Taken};
use crate::{Delivery, SinkSlot};
pub use client::{MAX_SESSIONS, SESSION_EXPIRY};
pub use codec::MAX_PACKET_BYTES;
pub use connection::MAX_PENDING;
use message::Message;
pub use router::{MAX_RETAINED_BYTES, Router};
pub use session::{MAX_FILTER_BYTES, MAX_QUEUE_BYTES, MAX_QUEUES_BYTES, MAX_RECEIVED};
pub use statistics::EventCount;

/// Connections at one time; further ones are closed.
pub const MAX_CONNECTIONS: usize = 10_000;

/// The broker: serves MQTT connections.
#[derive(Debug)]
pub struct Broker {
    node: Arc<Node>,
    router: Arc<Router>,
    intake: Arc<Intake>,
    clients: client::Clients,
    statistics: statistics::Statistics,
    connections: AtomicUsize,
    /// One caller at a time opens the book.
    keeping: tokio::sync::Mutex<()>,
    /// Packets that were released while no store was there.
    owed: Mutex<Vec<Delivery>>,
}

/// The resources that a broker uses now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokerUsage {
    /// Open connections.
    pub connections: usize,
    /// Sessions, of connected clients and of those that are away.
    pub sessions: usize,
    /// Filters that MQTT clients subscribed to.
    pub subscriptions: usize,
    /// What they take in memory, in bytes.
    pub filter_bytes: usize,
    /// Bytes of messages whose rows are being stored.
    pub held_bytes: usize,
    /// Messages that wait for MQTT clients.
    pub queued: usize,
    /// Their bytes.
    pub queued_bytes: usize,
    /// Messages for MQTT clients that were dropped because they did not fit.
    pub undelivered: u64,
    /// Packet ids of QoS 2 that clients have not released.
    pub received: usize,
    /// Bytes of the file that keeps sessions and retained messages, and the syncs since the start.
    pub book: (u64, u64),
    /// Retained messages.
    pub retained: usize,
    /// Their bytes.
    pub retained_bytes: usize,
    /// Messages that could not be mapped and lie in the error directory.
    pub quarantined: u64,
    /// Messages without acknowledgement (QoS 0) that could not be stored.
    pub dropped: u64,
}

impl Broker {
    /// A broker whose messages are routed by `router` and stored through `slot`.
    pub fn new(node: Arc<Node>, slot: Arc<SinkSlot>, router: Arc<Router>) -> Arc<Self> {
        let intake = Arc::new(Intake::new(Arc::clone(&node), slot));
        Self::with_intake(node, intake, router)
    }

    pub(crate) fn with_intake(node: Arc<Node>, intake: Arc<Intake>, router: Arc<Router>) -> Arc<Self> {
        Arc::new(Self {
            node,
            router,
            intake,
            clients: client::Clients::default(),
            statistics: statistics::Statistics::default(),
            connections: AtomicUsize::new(0),
            keeping: tokio::sync::Mutex::default(),
            owed: Mutex::default(),
        })
    }

    /// Who gets which topic.
    #[must_use]
    pub fn router(&self) -> &Arc<Router> {
        &self.router
    }

    /// What clients did, by address.
    #[must_use]
    pub fn events(&self) -> Vec<EventCount> {
        self.statistics.rows()
    }

    /// The resources in use; their bounds are constants of this module.
    #[must_use]
    pub fn usage(&self) -> BrokerUsage {
        let (queued, undelivered) = self.clients.backlog();
        let (retained, retained_bytes) = self.router.retained();
        BrokerUsage {
            connections: self.connections.load(Ordering::Relaxed),
            sessions: self.clients.len(),
            subscriptions: self.router.subscriptions(),
            filter_bytes: self.clients.filter_bytes(),
            held_bytes: self.intake.budget.used(),
            queued,
            queued_bytes: self.clients.queued_bytes(),
            undelivered,
            received: self.clients.received(),
            book: self.clients.book().map_or((0, 0), |book| (book.bytes(), book.syncs())),
            retained,
            retained_bytes,
            quarantined: self.intake.quarantined(),
            dropped: self.intake.dropped(),
        }
    }

    /// Whether nobody takes a topic, and it is not known that nobody is to: the start script did not come to its end.
    pub(crate) fn is_early(&self, topic: &str) -> bool {
        self.node.startup.phase() != Phase::Over && !self.router.has_takers(topic)
    }

    /// Publishes a message as a client would: it is passed on, mapped and stored. Returns when its rows are stored; with QoS 0 a
    /// message that cannot be stored is dropped.
    ///
    /// # Errors
    /// A topic with wildcards, a QoS above 2, a node without a store for a mapped message.
    pub async fn publish(&self, topic: &str, payload: &[u8], qos: u8, retain: bool) -> Result<(), CommandError> {
        if !crate::topic::valid_topic(topic) {
            return Err(CommandError::parameter(format!("'{topic}' is not a topic to publish to"))
                .hint("a topic is not empty and holds neither '+' nor '#'"));
        }
        if qos > 2 {
            return Err(CommandError::parameter(format!("'{qos}' is not a quality of service")).hint("use 0, 1 or 2"));
        }
        let message = Message {
            topic: topic.to_owned(),
            payload: Bytes::copy_from_slice(payload),
            qos,
            retain,
            expires: None,
            properties: None,
        };
        match self.accept_volatile(message, "").await {
            Taken::Settled => Ok(()),
            Taken::Abandoned | Taken::Dropped => {
                Err(CommandError::new(Status::OPERATOR_NOT_RUNNING, format!("The message on '{topic}' was not stored"))
                    .hint("see: get msg client"))
            }
        }
    }

    /// Passes on and stores a message that nobody would send again.
    async fn accept_volatile(&self, mut message: Message, from: &str) -> Taken {
        message.begin(self.now());
        let mappings = self.router.mappings(&message.topic);
        let routing = self.router.route(message.clone(), from, self.clients.book(), None);
        if let Some(routing) = routing.filter(|_| message.qos > 0)
            && !routing.settle(&self.node.shutdown.child_token()).await
        {
            return Taken::Dropped;
        }
        if mappings.is_empty() {
            return Taken::Settled;
        }
        let _held = self.intake.budget.hold(message.cost());
        let here = CancellationToken::new();
        self.intake.take(&mappings, &message.topic, &message.payload, Standing::Volatile, &here).await
    }

    fn now(&self) -> Timestamp {
        self.node.clock.now()
    }
}

/// A client id for a client that gives none, unlike any other of this run.
pub(crate) fn fresh_client_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("auto-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

#[async_trait]
impl ConnectionHandler for Broker {
    async fn serve(&self, stream: TcpStream, peer: SocketAddr, stop: CancellationToken) {
        let before = self.connections.fetch_add(1, Ordering::Relaxed);
        let counted = Counted(&self.connections);
        if before >= MAX_CONNECTIONS {
            tracing::warn!(%peer, bound = MAX_CONNECTIONS, "MQTT connection refused: there are too many");
            return;
        }
        connection::serve(self, stream, peer, stop).await;
        drop(counted);
    }
}

/// Counts a connection out, also when its task is dropped.
struct Counted<'c>(&'c AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
