//! One connection: bytes in, packets through the session, bytes out.
//!
//! The task never waits for one thing alone. While rows are being stored it reads on, answers pings and sends; it stops reading
//! only when the messages that it holds reach a bound, and then the client's own TCP window fills.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::Broker;
use super::client::Attached;
use super::codec::{self, CodecError, Connect, MAX_PACKET_BYTES, Outgoing, Version};
use super::message::Message;
use super::session::{Action, Close, Outcome, Session, wants_retained};
use super::statistics::{Event, PeerStatistics};
use crate::intake::{Standing, Taken};
use crate::subscription::Subscription;

/// How long a client may take for its first packet.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// How long a client may take nothing of what is sent to it.
const WRITE_DEADLINE: Duration = Duration::from_secs(60);

/// The first packet of a client that has not connected yet.
const MAX_CONNECT_BYTES: usize = 256 * 1024;

/// Messages, and their bytes, that one connection may hold while their rows are stored.
pub const MAX_PENDING: (usize, usize) = (4096, 4 * 1024 * 1024);

/// Bytes that wait to be sent before the connection reads no more.
const MAX_UNSENT: usize = 1024 * 1024;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("the client disconnected")]
    Goodbye { will: bool },
    #[error("the connection was closed without DISCONNECT")]
    Closed,
    #[error("the client sent nothing for 1.5 times its keep-alive of {0} s")]
    Silent(u16),
    #[error("the client took nothing for {} s", WRITE_DEADLINE.as_secs())]
    Stuck,
    #[error("another connection took over its client id")]
    TakenOver,
    #[error("the broker stops")]
    Stopped,
    #[error("{1}")]
    Violation(u8, &'static str),
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("no CONNECT within {} s", CONNECT_DEADLINE.as_secs())]
    NoConnect,
}

impl Ended {
    /// Whether the will of the client is published (MQTT-3.1.2-8): not after a DISCONNECT without that wish, and not because the
    /// broker itself stops.
    fn publishes_will(&self) -> bool {
        !matches!(self, Ended::Goodbye { will: false } | Ended::Stopped)
    }

    /// The reason that a version 5 client is told.
    fn reason(&self) -> Option<u8> {
        match self {
            Ended::Violation(reason, _) => Some(*reason),
            Ended::Codec(CodecError::TooLarge(_)) => Some(0x95),
            Ended::Codec(_) => Some(0x81),
            Ended::TakenOver => Some(0x8e),
            Ended::Stopped => Some(0x8b),
            Ended::Silent(_) => Some(0x8d),
            _ => None,
        }
    }

    /// Whether it is worth an entry in the error log.
    fn is_fault(&self) -> bool {
        matches!(self, Ended::Violation(..) | Ended::Codec(_) | Ended::NoConnect | Ended::Stuck)
    }
}

/// Serves a connection to its end.
pub(super) async fn serve(broker: &Broker, mut stream: TcpStream, peer: SocketAddr, stop: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "No TCP_NODELAY");
    }
    let statistics = broker.statistics.of(peer.ip());
    let mut buffer = BytesMut::with_capacity(8 * 1024);
    let connect = tokio::select! {
        connect = timeout(CONNECT_DEADLINE, first_packet(&mut stream, &mut buffer)) => connect.unwrap_or(Err(Ended::NoConnect)),
        () = stop.cancelled() => return,
    };
    let accepted = match connect {
        Ok(connect) => accept(connect),
        Err(error) => Err((refusal(&error), error)),
    };
    let (connect, assigned) = match accepted {
        Ok(accepted) => accepted,
        Err((answer, error)) => {
            report(broker, &statistics, Event::Connect, peer, "", &error);
            if let Some((version, answer)) = answer {
                let mut out = BytesMut::new();
                codec::encode(version, &answer, &mut out);
                // The client may have gone; there is nothing left to do for it.
                drop(stream.write_all(&out).await);
            }
            return;
        }
    };
    statistics.success(Event::Connect, broker.now());
    let will = connect.will.clone();
    let attached = broker.clients.attach(&connect, &broker.router);
    let (client, number) = (Arc::clone(&attached.client), attached.number);
    let gone = CancellationToken::new();
    let mut connection = Connection {
        broker,
        statistics: &statistics,
        version: connect.version,
        keep_alive: connect.keep_alive,
        client: Arc::clone(&client),
        buffer,
        out: BytesMut::new(),
        actions: Vec::new(),
        storing: FuturesUnordered::new(),
        pending_bytes: 0,
        gone: gone.clone(),
        taken_over: attached.taken_over.clone(),
    };
    let ended = connection.run(&mut stream, attached, assigned, &stop).await;
    if ended.is_fault() {
        report(broker, &statistics, Event::Protocol, peer, client.id(), &ended);
    } else {
        tracing::debug!(%peer, client = client.id(), reason = %ended, "MQTT connection ended");
    }
    connection.part(&mut stream, &ended).await;
    // A connection that was taken over must not mark the session of its successor.
    broker.clients.detach(&client, number, &broker.router);
    if let Some(will) = will.filter(|_| ended.publishes_will()) {
        broker.accept_volatile(will, client.id()).await;
    }
    // What was being stored is stored to its end; what waits for a store is given up, and the client sends it again.
    gone.cancel();
    connection.drain().await;
}

/// Notes a fault where a person looks for it.
fn report(broker: &Broker, statistics: &PeerStatistics, event: Event, peer: SocketAddr, client: &str, ended: &Ended) {
    let text = ended.to_string();
    statistics.failure(event, broker.now(), ended.reason().unwrap_or(0x80), &text);
    tracing::warn!(%peer, client, reason = %text, "MQTT connection refused or broken");
    broker.node.errors.add(broker.now(), "message broker", "MQTT", format!("{peer} '{client}': {text}"));
}

async fn first_packet(stream: &mut TcpStream, buffer: &mut BytesMut) -> Result<Connect, Ended> {
    loop {
        if let Some(&first) = buffer.first()
            && first >> 4 != 1
        {
            return Err(CodecError::NotConnect.into());
        }
        if let Some(frame) = codec::frame(buffer, MAX_CONNECT_BYTES)? {
            return Ok(codec::connect(frame)?);
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(Ended::Closed);
        }
    }
}

type Refusal = (Option<(Version, Outgoing)>, Ended);

/// Checks what a client asks for, and names one that has no name.
fn accept(mut connect: Connect) -> Result<(Connect, Option<String>), Refusal> {
    if connect.will.as_ref().is_some_and(|will| !crate::topic::valid_topic(&will.topic)) {
        let ended = Ended::Violation(0x90, "the will's topic holds wildcards or is empty");
        return Err((Some((connect.version, Outgoing::Refuse(5, 0x90))), ended));
    }
    if !connect.client_id.is_empty() {
        return Ok((connect, None));
    }
    if connect.version == Version::V4 && !connect.clean {
        // MQTT-3.1.3-8
        let ended = Ended::Violation(0x85, "no client id, but a session that is to be kept");
        return Err((Some((connect.version, Outgoing::Refuse(2, 0x85))), ended));
    }
    let id = super::fresh_client_id();
    connect.client_id.clone_from(&id);
    Ok((connect, Some(id)))
}

/// What a client is told whose first packet was no good (MQTT-3.1.2-2).
fn refusal(ended: &Ended) -> Option<(Version, Outgoing)> {
    match ended {
        Ended::Codec(CodecError::Protocol { level, .. }) => {
            let version = if *level > 4 { Version::V5 } else { Version::V4 };
            Some((version, Outgoing::Refuse(1, 0x84)))
        }
        _ => None,
    }
}

/// A message whose rows are stored: its ticket, its bytes, what became of it.
type Stored = (Option<u64>, usize, Taken);

struct Connection<'b> {
    broker: &'b Broker,
    statistics: &'b PeerStatistics,
    version: Version,
    keep_alive: u16,
    client: Arc<super::client::Client>,
    buffer: BytesMut,
    out: BytesMut,
    actions: Vec<Action>,
    storing: FuturesUnordered<std::pin::Pin<Box<dyn Future<Output = Stored> + Send + 'b>>>,
    pending_bytes: usize,
    /// The connection has ended: what waits for a store is given up.
    gone: CancellationToken,
    /// The session belongs to another connection now.
    taken_over: CancellationToken,
}

impl<'b> Connection<'b> {
    async fn run(
        &mut self,
        stream: &mut TcpStream,
        attached: Attached,
        assigned_id: Option<String>,
        stop: &CancellationToken,
    ) -> Ended {
        let session_present = attached.session_present;
        let session_expiry = (self.version == Version::V5).then_some(attached.expiry);
        self.send(&Outgoing::ConnAck { session_present, assigned_id, session_expiry });
        self.actions = attached.actions;
        match self.work(stream, stop).await {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    async fn work(
        &mut self,
        stream: &mut TcpStream,
        stop: &CancellationToken,
    ) -> Result<std::convert::Infallible, Ended> {
        let (mut reader, mut writer) = stream.split();
        // Late by more than 1.5 times its keep-alive, a client is gone (MQTT-3.1.2-24).
        let silence = Duration::from_millis(u64::from(self.keep_alive) * 1500);
        let mut heard = Instant::now();
        let mut sent = Instant::now();
        let client = Arc::clone(&self.client);
        let taken_over = self.taken_over.clone();
        loop {
            self.act()?;
            self.packets()?;
            let reads = self.may_read();
            let sends = !self.out.is_empty();
            if !sends {
                sent = Instant::now();
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(Ended::Stopped),
                () = taken_over.cancelled() => return Err(Ended::TakenOver),
                Some(stored) = self.storing.next() => self.stored(stored),
                written = writer.write_buf(&mut self.out), if sends => {
                    written?;
                    sent = Instant::now();
                }
                () = client.wake.notified() => {
                    if let Err(ended) = self.with_session(Session::fill) {
                        // The call was meant for the other connection.
                        client.wake.notify_one();
                        return Err(ended);
                    }
                }
                read = reader.read_buf(&mut self.buffer), if reads => {
                    if read? == 0 {
                        return Err(Ended::Closed);
                    }
                    heard = Instant::now();
                }
                () = tokio::time::sleep_until(heard + silence), if reads && self.keep_alive > 0 => {
                    return Err(Ended::Silent(self.keep_alive));
                }
                () = tokio::time::sleep_until(sent + WRITE_DEADLINE), if sends => return Err(Ended::Stuck),
            }
            if !reads {
                // Nothing can be heard while nothing is read.
                heard = Instant::now();
            }
        }
    }

    /// Whether more messages may be taken in. One always may, so that a full budget stops nobody for good.
    fn may_read(&self) -> bool {
        self.out.len() < MAX_UNSENT
            && (self.storing.is_empty()
                || (self.storing.len() < MAX_PENDING.0
                    && self.pending_bytes < MAX_PENDING.1
                    && self.broker.intake.budget.has_room()))
    }

    /// Works on the packets that have come whole.
    fn packets(&mut self) -> Result<(), Ended> {
        while self.may_read() {
            let Some(frame) = codec::frame(&mut self.buffer, MAX_PACKET_BYTES)? else { break };
            let packet = codec::decode(self.version, frame)?;
            self.statistics.packet(&packet, self.broker.now());
            self.with_session(|session, actions| session.on_packet(packet, actions))?;
            self.act()?;
        }
        Ok(())
    }

    /// Works on the session, unless it belongs to another connection now. It changes hands under its lock.
    fn with_session(&mut self, work: impl FnOnce(&mut Session, &mut Vec<Action>)) -> Result<(), Ended> {
        let mut session = self.client.session.lock();
        if self.taken_over.is_cancelled() {
            return Err(Ended::TakenOver);
        }
        work(&mut session, &mut self.actions);
        Ok(())
    }

    /// Does what the session decided.
    fn act(&mut self) -> Result<(), Ended> {
        while !self.actions.is_empty() {
            for action in std::mem::take(&mut self.actions) {
                match action {
                    Action::Send(packet) => self.send(&packet),
                    Action::Accept(ticket, message) => self.accept(ticket, message),
                    Action::Subscribe { filter, existed } => {
                        self.broker.router.subscribe(&self.client, &filter.path, filter.options);
                        if wants_retained(filter.options, existed) {
                            let retained = self.broker.router.retained_for(&filter.path);
                            let mut session = self.client.session.lock();
                            for message in retained {
                                let qos = filter.options.qos.min(message.qos);
                                session.deliver(message, qos, true);
                            }
                            session.fill(&mut self.actions);
                        }
                    }
                    Action::Unsubscribe(filter) => self.broker.router.unsubscribe(&self.client, &filter),
                    Action::Close(Close::Client { will }) => return Err(Ended::Goodbye { will }),
                    Action::Close(Close::Violation(reason, text)) => return Err(Ended::Violation(reason, text)),
                }
            }
        }
        Ok(())
    }

    fn send(&mut self, packet: &Outgoing) {
        if !codec::encode(self.version, packet, &mut self.out) {
            tracing::debug!(client = self.client.id(), ?packet, "Packet not sent: its version has none");
        }
    }

    /// Passes a message to whoever subscribed to it and begins to store it.
    fn accept(&mut self, ticket: Option<u64>, message: Message) {
        let mappings = self.broker.router.mappings(&message.topic);
        if mappings.is_empty() {
            self.broker.router.route(message, self.client.id());
            if let Some(ticket) = ticket {
                self.client.session.lock().settled(ticket, Outcome::Settled, &mut self.actions);
            }
            return;
        }
        self.broker.router.route(message.clone(), self.client.id());
        let bytes = message.cost();
        self.pending_bytes += bytes;
        let standing = if ticket.is_some() { Standing::Acknowledged } else { Standing::Volatile };
        let store = store(self.broker, mappings, message, standing, self.gone.clone());
        self.storing.push(Box::pin(async move { (ticket, bytes, store.await) }));
    }

    /// A message is settled, so that its acknowledgement may go.
    fn stored(&mut self, (ticket, bytes, taken): Stored) {
        self.pending_bytes -= bytes;
        let outcome = match taken {
            Taken::Settled => Outcome::Settled,
            Taken::Abandoned | Taken::Dropped => Outcome::Abandoned,
        };
        let Some(ticket) = ticket else { return };
        let mut session = self.client.session.lock();
        if self.taken_over.is_cancelled() {
            let mut actions = Vec::new();
            session.settled(ticket, outcome, &mut actions);
            session.hand_over(&mut actions);
            drop(session);
            self.client.wake.notify_one();
        } else {
            session.settled(ticket, outcome, &mut self.actions);
        }
    }

    /// Sends what is left, as far as the client takes it at once, and why the connection ends.
    async fn part(&mut self, stream: &mut TcpStream, ended: &Ended) {
        if let Some(reason) = ended.reason() {
            self.send(&Outgoing::Disconnect(reason));
        }
        let writes = async {
            while self.out.has_remaining() {
                stream.write_buf(&mut self.out).await?;
            }
            stream.shutdown().await
        };
        // The client may have gone; it was told as far as possible.
        drop(timeout(Duration::from_secs(1), writes).await);
    }

    /// Waits until everything that is being stored is settled. Acknowledgements that result are for the session only, or for the
    /// connection that took over.
    async fn drain(&mut self) {
        while let Some(stored) = self.storing.next().await {
            self.stored(stored);
            // The socket is closed; the session remembers what was not acknowledged.
            self.actions.clear();
        }
    }
}

async fn store(
    broker: &Broker,
    mappings: Vec<Arc<Subscription>>,
    message: Message,
    standing: Standing,
    gone: CancellationToken,
) -> Taken {
    let _held = broker.intake.budget.hold(message.cost());
    broker.intake.take(&mappings, &message.topic, &message.payload, standing, &gone).await
}
