//! Message clients: what the node subscribed to, at its own broker, at REST, at other brokers.
//!
//! # Guarantees of a client of another broker
//!
//! * **R1, R2** A broker that is down when the client starts is connected to when it is up. The client comes back after every break, by
//!   itself, with growing pauses that differ from client to client. On every connection
//!   it subscribes to all its topics, and it reports `Connected` after the broker's answer. A topic that the broker refuses is named,
//!   and asked for again; the others are served.
//! * **R3** A message is acknowledged only with a receipt for its rows, or when it lies in the quarantine. Acknowledgements leave in the
//!   order of receipt (MQTT-4.6.0-2).
//! * **R4** It asks for a lasting session with QoS 1, under a client id that is the same after every start and that no other node has
//!   (`!id_dir/message_client.id`), so the broker keeps what is published while the node is away.
//! * **R5** A slow store does not stop its pings, nor a new connection. What waits for the store is bounded ([`MAX_WAITING`]); at the bound
//!   the client reads no more, and the broker's TCP window fills. With version 5 the broker sends at most [`RECEIVE_MAXIMUM`] messages
//!   without acknowledgement.
//! * **R21** A message that is sent again while it is being stored, also over a new connection, is stored once.
//! * A message with QoS 2 is stored once over any end of the node, when the store keeps packet ids
//!   ([`RowSink::holds`](crate::RowSink::holds)).
//! * A broker that hangs, at any step, is left: after the deadline while connecting, after 1.5 keep-alives of silence later.
//! * Any bytes that a broker sends end the connection at worst.
//!
//! # Non-guarantees
//!
//! * Messages with QoS 0 are lost when half of the bound is reached, or when no store runs.
//! * A message with QoS 1 is stored again when its acknowledgement did not reach the broker, or the node ended before it was sent.
//! * A client whose topics change has another client id. The broker keeps the session of the old one until it expires there.
//! * Connections to other brokers are encrypted only where [`ClientSpec::tls`] says so; single messages ([`publish()`]) never are.

mod connection;
mod identity;
mod inbound;
mod packet;
mod publish;
mod remote;
mod storer;
mod tls;

use std::sync::Arc;
use std::time::Duration;

pub(crate) use identity::identity;
pub use packet::RECEIVE_MAXIMUM;
pub use publish::{PublishTarget, publish};
pub(crate) use remote::{Address, Remote, fingerprint};
pub use storer::{Load, MAX_WAITING};
pub(crate) use tls::Encryption;
pub use tls::Tls;

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
    /// Encrypts the connection to another broker.
    pub tls: Option<Tls>,
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
        Self {
            broker,
            login: None,
            tls: None,
            client_id: None,
            keep_alive: Duration::from_secs(30),
            deadline: DEADLINE,
            topics,
        }
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
    /// There is no connection; it will be tried again.
    Lost {
        /// Why.
        reason: String,
        /// Whether somebody has to change something first: the broker refuses the client, or is none. A broker that is down
        /// or cannot be reached comes back by itself.
        lasting: bool,
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
            (_, Some(ConnectionState::Lost { reason, .. })) => format!("Not connected: {reason}"),
            _ => "Connecting".into(),
        }
    }

    /// Why another broker cannot be reached at the moment.
    #[must_use]
    pub fn unreached(&self) -> Option<String> {
        match self.remote.as_ref()?.state() {
            ConnectionState::Lost { reason, .. } => Some(reason),
            ConnectionState::Connecting => Some("it has not answered yet".to_owned()),
            ConnectionState::Connected | ConnectionState::Refused { .. } => None,
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
