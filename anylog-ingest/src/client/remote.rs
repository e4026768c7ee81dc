//! A client of another broker, over rumqttc with manual acknowledgements.
//!
//! Two loops run side by side. One does nothing but poll the network, so pings flow whatever the store does; the other stores
//! messages, many at a time, and acknowledges them in order. Each connection has an event loop of its own: one that is used again
//! would send acknowledgements of the old connection into the new one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use parking_lot::Mutex;
use rumqttc::mqttbytes::v4::{Packet, Publish, SubscribeFilter, SubscribeReasonCode};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, QoS};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::ConnectionState;
use crate::broker::MAX_PACKET_BYTES;
use crate::intake::{Intake, Standing, Taken};
use crate::subscription::{Subscription, Subscriptions};

/// Messages that may wait for the store, and their bytes.
const MAX_WAITING: (usize, usize) = (8192, 16 * 1024 * 1024);

/// Messages whose rows are stored at the same time.
const AT_ONCE: usize = 512;

/// First and longest pause before the next connection.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// A client of another broker.
#[derive(Debug)]
pub(crate) struct Remote {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) login: Option<(String, String)>,
    pub(crate) client_id: String,
    pub(crate) keep_alive: Duration,
    pub(crate) topics: Vec<Arc<Subscription>>,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) intake: Arc<Intake>,
    state: watch::Sender<ConnectionState>,
    resubscribed: AtomicU64,
    stop: CancellationToken,
}

/// What of a connection matters to the next one.
#[derive(Debug, Default)]
struct Memory {
    /// QoS 1: stored, but the connection broke before the acknowledgement was handed over. By packet id, with a hash of the message.
    stored: HashMap<u16, u64>,
    /// QoS 2: stored, PUBREL has not come.
    received: HashSet<u16>,
    /// Whether a subscription was confirmed in this run.
    subscribed: bool,
}

impl Remote {
    #[allow(clippy::too_many_arguments, reason = "called in one place, with names that tell the arguments apart")]
    pub(crate) fn new(
        host: String,
        port: u16,
        login: Option<(String, String)>,
        client_id: String,
        keep_alive: Duration,
        topics: Vec<Arc<Subscription>>,
        intake: Arc<Intake>,
        stop: CancellationToken,
    ) -> Self {
        let subscriptions = Subscriptions::default();
        for topic in &topics {
            subscriptions.add(Arc::clone(topic));
        }
        let (state, _) = watch::channel(ConnectionState::Connecting);
        let resubscribed = AtomicU64::new(0);
        Self { host, port, login, client_id, keep_alive, topics, subscriptions, intake, state, resubscribed, stop }
    }

    /// How it stands.
    pub(crate) fn state(&self) -> ConnectionState {
        self.state.borrow().clone()
    }

    /// How often it subscribed again on a fresh session.
    pub(crate) fn resubscribed(&self) -> u64 {
        self.resubscribed.load(Ordering::Relaxed)
    }

    /// Ends it. What is being stored is stored to its end.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until the first connection stands or failed.
    pub(crate) async fn first_state(&self) -> ConnectionState {
        let mut states = self.state.subscribe();
        match states.wait_for(|state| *state != ConnectionState::Connecting).await {
            Ok(state) => state.clone(),
            Err(_) => ConnectionState::Lost { reason: "stopped".into() },
        }
    }

    /// Keeps the client connected until it is stopped.
    pub(crate) async fn run(self: Arc<Self>) {
        let memory = Mutex::new(Memory::default());
        let mut pause = BACK_OFF.0;
        while !self.stop.is_cancelled() {
            let reason = self.connection(&memory).await;
            if self.stop.is_cancelled() {
                break;
            }
            let was_connected = self.state.borrow().clone() == ConnectionState::Connected;
            tracing::warn!(broker = %self.host, port = self.port, %reason, "Connection to the message broker lost");
            self.state.send_replace(ConnectionState::Lost { reason });
            pause = if was_connected { BACK_OFF.0 } else { (pause * 2).min(BACK_OFF.1) };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.cancelled() => {}
            }
        }
        tracing::info!(broker = %self.host, port = self.port, "Message client ended");
    }

    /// One connection, from CONNECT to its end; the reason of the end.
    async fn connection(&self, memory: &Mutex<Memory>) -> String {
        let mut options = MqttOptions::new(&self.client_id, &self.host, self.port);
        options.set_clean_session(false).set_manual_acks(true).set_keep_alive(self.keep_alive);
        options.set_max_packet_size(MAX_PACKET_BYTES, MAX_PACKET_BYTES);
        if let Some((user, password)) = &self.login {
            options.set_credentials(user, password);
        }
        let (client, mut events) = AsyncClient::new(options, AT_ONCE);
        self.remember_received(&mut events, memory);
        let (sender, receiver) = mpsc::channel(MAX_WAITING.0);
        let waiting = AtomicUsize::new(0);
        let gone = CancellationToken::new();
        let network = async {
            let reason = self.network(&client, &mut events, memory, sender, &waiting).await;
            gone.cancel();
            reason
        };
        let (reason, ()) = tokio::join!(network, self.store(&client, memory, receiver, &waiting, &gone));
        reason
    }

    /// Tells a new event loop which QoS 2 messages it has: it takes a PUBREL of any other for a breach of the protocol.
    fn remember_received(&self, events: &mut EventLoop, memory: &Mutex<Memory>) {
        for id in &memory.lock().received {
            let mut publish = Publish::new("", QoS::ExactlyOnce, Vec::new());
            publish.pkid = *id;
            if let Err(error) = events.state.handle_incoming_packet(Packet::Publish(publish)) {
                tracing::debug!(%error, id, "A received packet id was not restored");
            }
        }
        events.state.events.clear();
    }

    async fn network(
        &self,
        client: &AsyncClient,
        events: &mut EventLoop,
        memory: &Mutex<Memory>,
        sender: mpsc::Sender<Publish>,
        waiting: &AtomicUsize,
    ) -> String {
        loop {
            let event = tokio::select! {
                event = events.poll() => event,
                () = self.stop.cancelled() => {
                    return self.part(client, events).await;
                }
            };
            let handled = match event {
                Ok(Event::Incoming(packet)) => self.incoming(packet, client, memory, &sender, waiting),
                Ok(Event::Outgoing(_)) => Ok(()),
                Err(error) => Err(error.to_string()),
            };
            if let Err(reason) = handled {
                return reason;
            }
        }
    }

    /// Says goodbye, as far as the broker listens.
    async fn part(&self, client: &AsyncClient, events: &mut EventLoop) -> String {
        if client.try_disconnect().is_ok() {
            let goodbye = async { while events.poll().await.is_ok() {} };
            // A broker that does not answer keeps the session all the same.
            drop(tokio::time::timeout(Duration::from_millis(500), goodbye).await);
        }
        "stopped".to_owned()
    }

    fn incoming(
        &self,
        packet: Packet,
        client: &AsyncClient,
        memory: &Mutex<Memory>,
        sender: &mpsc::Sender<Publish>,
        waiting: &AtomicUsize,
    ) -> Result<(), String> {
        match packet {
            Packet::ConnAck(ack) => {
                let mut memory = memory.lock();
                if !ack.session_present {
                    memory.stored.clear();
                    memory.received.clear();
                    self.resubscribed.fetch_add(u64::from(memory.subscribed), Ordering::Relaxed);
                }
                if ack.session_present && memory.subscribed {
                    self.state.send_replace(ConnectionState::Connected);
                    return Ok(());
                }
                let filters =
                    self.topics.iter().map(|topic| SubscribeFilter::new(topic.filter.clone(), qos(topic.qos)));
                client.try_subscribe_many(filters).map_err(|error| error.to_string())
            }
            Packet::SubAck(ack) => {
                let refused = ack.return_codes.iter().position(|code| *code == SubscribeReasonCode::Failure);
                if let Some(topic) = refused.and_then(|at| self.topics.get(at)) {
                    return Err(format!("the broker refused the subscription of '{}'", topic.filter));
                }
                memory.lock().subscribed = true;
                self.state.send_replace(ConnectionState::Connected);
                Ok(())
            }
            Packet::Publish(publish) => self.publish(publish, sender, waiting),
            Packet::PubRel(release) => {
                memory.lock().received.remove(&release.pkid);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn publish(&self, publish: Publish, sender: &mpsc::Sender<Publish>, waiting: &AtomicUsize) -> Result<(), String> {
        let bytes = cost(&publish);
        let volatile = publish.qos == QoS::AtMostOnce;
        let fits = waiting.load(Ordering::Relaxed) + bytes <= MAX_WAITING.1;
        if fits {
            // Counted before it is sent: the other loop may be done with it at once.
            waiting.fetch_add(bytes, Ordering::Relaxed);
            if sender.try_send(publish).is_ok() {
                return Ok(());
            }
            waiting.fetch_sub(bytes, Ordering::Relaxed);
        }
        if volatile {
            self.intake.count_dropped();
            return Ok(());
        }
        // Hanging up keeps the message: the broker sends it again, with all that is not acknowledged.
        Err("more messages than the node can store; they will be fetched again".to_owned())
    }

    async fn store(
        &self,
        client: &AsyncClient,
        memory: &Mutex<Memory>,
        mut receiver: mpsc::Receiver<Publish>,
        waiting: &AtomicUsize,
        gone: &CancellationToken,
    ) {
        let mut storing = FuturesOrdered::new();
        let mut open = true;
        while open || !storing.is_empty() {
            tokio::select! {
                publish = receiver.recv(), if open && storing.len() < AT_ONCE => match publish {
                    Some(publish) => storing.push_back(self.take(publish, memory, gone)),
                    None => open = false,
                },
                Some((publish, taken)) = storing.next() => {
                    waiting.fetch_sub(cost(&publish), Ordering::Relaxed);
                    if taken == Taken::Settled && publish.qos != QoS::AtMostOnce {
                        self.acknowledge(client, &publish, memory, gone).await;
                    }
                }
            }
        }
    }

    async fn take(&self, publish: Publish, memory: &Mutex<Memory>, gone: &CancellationToken) -> (Publish, Taken) {
        let again = {
            let mut memory = memory.lock();
            match publish.qos {
                QoS::AtMostOnce => false,
                QoS::AtLeastOnce => {
                    let known = memory.stored.remove(&publish.pkid);
                    publish.dup && known == Some(hash(&publish))
                }
                QoS::ExactlyOnce => memory.received.contains(&publish.pkid),
            }
        };
        if again {
            return (publish, Taken::Settled);
        }
        let standing = match publish.qos {
            QoS::AtMostOnce => Standing::Volatile,
            // What has not begun when the connection is gone comes again on the next one.
            _ if gone.is_cancelled() => return (publish, Taken::Abandoned),
            _ => Standing::Acknowledged,
        };
        let subscriptions = self.subscriptions.of(&publish.topic);
        let taken = self.intake.take(&subscriptions, &publish.topic, &publish.payload, standing, gone).await;
        (publish, taken)
    }

    async fn acknowledge(
        &self,
        client: &AsyncClient,
        publish: &Publish,
        memory: &Mutex<Memory>,
        gone: &CancellationToken,
    ) {
        if publish.qos == QoS::ExactlyOnce {
            memory.lock().received.insert(publish.pkid);
        }
        let sent = tokio::select! {
            sent = client.ack(publish) => sent.is_ok() && !gone.is_cancelled(),
            () = gone.cancelled() => false,
        };
        if !sent && publish.qos == QoS::AtLeastOnce {
            memory.lock().stored.insert(publish.pkid, hash(publish));
        }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn cost(publish: &Publish) -> usize {
    128 + publish.topic.len() + publish.payload.len()
}

fn hash(publish: &Publish) -> u64 {
    fingerprint([publish.topic.as_bytes(), &publish.payload])
}

pub(super) fn qos(level: u8) -> QoS {
    rumqttc::mqttbytes::qos(level).unwrap_or(QoS::AtLeastOnce)
}

/// FNV-1a over some texts: the same in every version and on every machine, which a client id has to be.
pub(crate) fn fingerprint<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for byte in part.iter().chain(&[0xff]) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}
