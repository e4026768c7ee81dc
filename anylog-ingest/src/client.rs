//! Message clients: what the node subscribed to, at its own broker, at REST, at other brokers.
//!
//! # Guarantees of a client of another broker
//!
//! * **R1, R2** It comes back after every break, by itself, with growing pauses. On a session that the broker has forgotten it
//!   subscribes again before it reports `Connected`.
//! * **R3** A message is acknowledged only with a receipt for its rows, or when it lies in the error directory.
//! * **R4** Its client id is the same after every start and it asks for a lasting session, so the broker keeps what is
//!   published with QoS 1 and 2 while the node is away.
//! * **R5** A slow store does not stop its pings. What waits for the store is bounded; when the bound is reached the client hangs
//!   up, and the broker sends the rest again later.
//!
//! # Non-guarantees
//!
//! * Messages with QoS 0 are lost when the bound is reached, or when no store runs.
//! * A restart of the node may store a message with QoS 1 or 2 again that was stored but not yet acknowledged.

mod connection;
mod identity;
mod inbound;
mod packet;
mod publish;
mod remote;
mod storer;

use std::sync::Arc;
use std::time::Duration;

pub(crate) use identity::identity;
pub use packet::RECEIVE_MAXIMUM;
pub use publish::{PublishTarget, publish};
pub(crate) use remote::{Address, Remote, fingerprint};
pub use storer::{Load, MAX_WAITING};

use crate::subscription::{Counters, Subscription, Treatment};

/// How long another broker may take to answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// Which broker a message client subscribes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerAddress {
    /// The node's own broker.
    Local,
    /// `POST` requests with `command: data` from this user agent, in lower case.
    Rest {
        /// The product name of the user agent.
        agent: String,
    },
    /// Another broker.
    Remote {
        /// Host name or address.
        host: String,
        /// Port.
        port: u16,
    },
}

impl std::fmt::Display for BrokerAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BrokerAddress::Local => f.write_str("local"),
            BrokerAddress::Rest { .. } => f.write_str("rest"),
            BrokerAddress::Remote { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// A topic to subscribe to.
#[derive(Debug, Clone)]
pub struct TopicSpec {
    /// The topic or filter.
    pub filter: String,
    /// The QoS to ask for.
    pub qos: u8,
    /// What is done with its messages.
    pub treatment: Treatment,
    /// Whether tables are made of whatever comes.
    pub dynamic: bool,
}

/// What a message client is to do.
#[derive(Debug, Clone)]
pub struct ClientSpec {
    /// The broker.
    pub broker: BrokerAddress,
    /// User and password at another broker.
    pub login: Option<(String, String)>,
    /// The client id at another broker; by default one that follows from the node and the topics.
    pub client_id: Option<String>,
    /// How often another broker hears of the client at least.
    pub keep_alive: Duration,
    /// How long another broker may take for the TCP connection, and for its answers up to the one to SUBSCRIBE.
    pub deadline: Duration,
    /// The topics.
    pub topics: Vec<TopicSpec>,
}

impl ClientSpec {
    /// A client of `broker` without login, with a keep-alive of 30 seconds and a deadline of 10 seconds.
    #[must_use]
    pub fn new(broker: BrokerAddress, topics: Vec<TopicSpec>) -> Self {
        Self { broker, login: None, client_id: None, keep_alive: Duration::from_secs(30), deadline: DEADLINE, topics }
    }
}

/// How a client of another broker stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionState {
    /// It connects, or waits for the answer to its subscriptions.
    Connecting,
    /// Its subscriptions are confirmed.
    Connected,
    /// The connection stands, but the broker refused subscriptions; they are asked for again. The others are served.
    Refused {
        /// Which, and why.
        reason: String,
    },
    /// The connection broke; it will be tried again.
    Lost {
        /// Why.
        reason: String,
    },
}

/// A running message client.
#[derive(Debug)]
pub struct MessageClient {
    /// Its number, from 1.
    pub id: u32,
    /// Its broker.
    pub broker: BrokerAddress,
    /// The user at the broker.
    pub user: Option<String>,
    /// Its topics.
    pub subscriptions: Vec<Arc<Subscription>>,
    /// Counts of all its topics.
    pub counters: Arc<Counters>,
    pub(crate) remote: Option<Arc<Remote>>,
}

impl MessageClient {
    /// The connection, as shown.
    #[must_use]
    pub fn connection(&self) -> String {
        match (&self.broker, self.remote.as_ref().map(|remote| remote.state())) {
            (BrokerAddress::Local, _) => "Connected to local Message Server".into(),
            (BrokerAddress::Rest { agent }, _) => format!("Connected to local REST Server, User-Agent: {agent}"),
            (_, Some(ConnectionState::Connected)) => "Connected".into(),
            (_, Some(ConnectionState::Refused { reason })) => format!("Connected, but {reason}"),
            (_, Some(ConnectionState::Lost { reason })) => format!("Not connected: {reason}"),
            _ => "Connecting".into(),
        }
    }

    /// The id under which the client is known at another broker.
    #[must_use]
    pub fn client_id(&self) -> Option<&str> {
        self.remote.as_ref().map(|remote| remote.client_id.as_str())
    }

    /// How often the client had to subscribe again because the broker had forgotten its session.
    #[must_use]
    pub fn resubscribed(&self) -> u64 {
        self.remote.as_ref().map_or(0, |remote| remote.resubscribed())
    }

    /// How often another broker accepted a connection.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.remote.as_ref().map_or(0, |remote| remote.connections())
    }

    /// The version of the protocol that another broker speaks.
    #[must_use]
    pub fn protocol(&self) -> Option<&'static str> {
        self.remote.as_ref().map(|remote| remote.protocol())
    }

    /// What is under way from another broker.
    #[must_use]
    pub fn load(&self) -> Option<Load> {
        self.remote.as_ref().map(|remote| remote.load())
    }
}
