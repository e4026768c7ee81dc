//! One connection: bytes in, packets through the session, bytes out.
//!
//! The task never waits for one thing alone. While rows are being stored it reads on, answers pings and sends; it stops reading
//! only when the messages that it holds reach a bound, and then the client's own TCP window fills.

mod answers;
mod begin;
mod ended;
mod run;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anylog_core::node::startup::Phase;
use bytes::{Buf, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use answers::{Answer, Answers, MAX_ANSWERS};
use begin::{accept, first_packet, refusal};
pub(super) use ended::Ended;
use run::{MAX_AT_STORE, Run, Stored, store};

use super::Broker;
use super::book::Record;
use super::client::{Attached, Client};
use super::codec::{self, Filter, MAX_PACKET_BYTES, Outgoing, Version};
use super::message::Message;
use super::routing::{Routing, Target};
use super::session::{Action, Close, Outcome, Packet, Session, wants_retained};
use super::statistics::{Event, PeerStatistics, Tally};
use crate::Delivery;
use crate::intake::Taken;

/// How long a client may take for its first packet.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// How long a client may take nothing of what is sent to it.
const WRITE_DEADLINE: Duration = Duration::from_secs(60);

/// Messages, and their bytes, that one connection may hold until their rows are stored.
pub const MAX_PENDING: (usize, usize) = (4096, 4 * 1024 * 1024);

/// The least and the most that one read takes: an idle connection holds little memory, a busy one is read in few calls.
const READ_BYTES: (usize, usize) = (4 * 1024, 64 * 1024);

/// Bytes that wait to be sent before the connection reads no more.
const MAX_UNSENT: usize = 1024 * 1024;

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
    let mut attached = broker.clients.attach(&connect, &broker.router, broker.now());
    broker.forget_ended();
    keep(broker, std::mem::take(&mut attached.records)).await;
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
        in_work: Vec::new(),
        run: Run::new(broker),
        ready: VecDeque::new(),
        at_store: 0,
        storing: FuturesUnordered::new(),
        answers: Answers::default(),
        pending: (0, 0),
        read_bytes: READ_BYTES.0,
        gone: gone.clone(),
        taken_over: attached.taken_over.clone(),
        tally: Tally::default(),
        now: broker.now(),
        started: false,
    };
    let next = attached.taken_over.clone();
    let delay = Duration::from_secs(connect.will_delay.min(attached.expiry).into());
    let ended = connection.run(&mut stream, attached, assigned, &stop).await;
    if ended.is_fault() {
        report(broker, &statistics, Event::Protocol, peer, client.id(), &ended);
    } else {
        tracing::debug!(%peer, client = client.id(), reason = %ended, "MQTT connection ended");
    }
    connection.part(&mut stream, &ended).await;
    // A connection that was taken over must not mark the session of its successor.
    broker.clients.detach(&client, number, &broker.router, broker.now());
    broker.forget_ended();
    let mut will = will.filter(|_| ended.publishes_will());
    if delay.is_zero()
        && let Some(will) = will.take()
    {
        broker.accept_volatile(will, client.id()).await;
    }
    // What was being stored is stored to its end; what waits for a store is given up, and the client sends it again.
    gone.cancel();
    connection.drain().await;
    drop(connection);
    drop(stream);
    if let Some(will) = will
        && !comes_back(broker, &client, delay, &next, &stop).await
    {
        broker.accept_volatile(will, client.id()).await;
    }
}

/// Whether a client takes up its session again before its will is due (MQTT5 3.1.3.2.2). A will is not published because the
/// broker stops.
async fn comes_back(
    broker: &Broker,
    client: &Arc<Client>,
    delay: Duration,
    next: &CancellationToken,
    stop: &CancellationToken,
) -> bool {
    tokio::select! {
        () = stop.cancelled() => true,
        () = next.cancelled() => broker.clients.goes_on(client),
        () = tokio::time::sleep(delay) => false,
    }
}

/// Writes what is to be kept of a session, before its client hears that it has one. On a disk that fails the client is served
/// nevertheless; its acknowledgements wait.
async fn keep(broker: &Broker, records: Vec<Record>) {
    if let Some(book) = broker.clients.book().filter(|_| !records.is_empty())
        && let Err(error) = book.write(records).await
    {
        tracing::warn!(%error, "A session is not kept over a restart yet");
    }
}

/// Notes a fault where a person looks for it.
fn report(broker: &Broker, statistics: &PeerStatistics, event: Event, peer: SocketAddr, client: &str, ended: &Ended) {
    let text = ended.to_string();
    statistics.failure(event, broker.now(), ended.reason().unwrap_or(0x80), &text);
    tracing::warn!(%peer, client, reason = %text, "MQTT connection refused or broken");
    broker.node.errors.add(broker.now(), "message broker", "MQTT", format!("{peer} '{client}': {text}"));
}

struct Connection<'b> {
    broker: &'b Broker,
    statistics: &'b PeerStatistics,
    version: Version,
    keep_alive: u16,
    client: Arc<super::client::Client>,
    buffer: BytesMut,
    out: BytesMut,
    actions: Vec<Action>,
    /// The other list, empty while nothing is acted on.
    in_work: Vec<Action>,
    /// Messages that came last, to which more may come.
    run: Run<'b>,
    /// Messages that came before those, and go to the store first.
    ready: VecDeque<Run<'b>>,
    /// Messages that are with the store.
    at_store: usize,
    /// Answers that wait for stable storage.
    answers: Answers<'b>,
    storing: FuturesUnordered<std::pin::Pin<Box<dyn Future<Output = Stored> + Send + 'b>>>,
    /// Messages, and their bytes, that came and are not settled.
    pending: (usize, usize),
    /// How much the next read takes.
    read_bytes: usize,
    /// The connection has ended: what waits for a store is given up.
    gone: CancellationToken,
    /// The session belongs to another connection now.
    taken_over: CancellationToken,
    /// Packets since the last read.
    tally: Tally,
    /// The time, as it was when the task last woke up.
    now: Timestamp,
    /// The start of the node is over, and stays so: nothing needs to be asked for each message.
    started: bool,
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
        // One timer, set anew only when it fires: a deadline that was moved on meanwhile is looked at again.
        let mut deadline = std::pin::pin!(tokio::time::sleep_until(heard + WRITE_DEADLINE));
        if self.keep_alive > 0 {
            deadline.as_mut().reset(heard + silence.min(WRITE_DEADLINE));
        }
        let client = Arc::clone(&self.client);
        let taken_over = self.taken_over.clone();
        loop {
            self.now = self.broker.now();
            self.started = self.started || self.broker.node.startup.phase() == Phase::Over;
            self.act()?;
            self.packets()?;
            let reads = self.may_read();
            if reads {
                self.make_room();
            }
            let room = self.buffer.spare_capacity_mut().len();
            let sends = !self.out.is_empty();
            if !sends {
                sent = Instant::now();
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(Ended::Stopped),
                () = taken_over.cancelled() => return Err(Ended::TakenOver),
                Some(stored) = self.storing.next() => self.stored(stored),
                Some(answer) = self.answers.next() => self.answered(answer)?,
                written = writer.write_buf(&mut self.out), if sends => {
                    written?;
                    sent = Instant::now();
                }
                () = client.wake.notified() => {
                    self.now = self.broker.now();
                    if let Err(ended) = self.with_session(Session::fill) {
                        // The call was meant for the other connection.
                        client.wake.notify_one();
                        return Err(ended);
                    }
                }
                read = reader.read_buf(&mut self.buffer), if reads => {
                    match read? {
                        0 => return Err(Ended::Closed),
                        bytes => self.adapt(bytes, room),
                    }
                    heard = Instant::now();
                }
                () = self.broker.node.startup.begun(), if self.begins() => {}
                () = &mut deadline => {
                    let now = Instant::now();
                    let (hears, takes) = (if reads { heard } else { now }, if sends { sent } else { now });
                    if self.keep_alive > 0 && hears + silence <= now {
                        return Err(Ended::Silent(self.keep_alive));
                    }
                    if takes + WRITE_DEADLINE <= now {
                        return Err(Ended::Stuck);
                    }
                    let late = if self.keep_alive > 0 { hears + silence } else { now + WRITE_DEADLINE };
                    deadline.as_mut().reset(late.min(takes + WRITE_DEADLINE));
                }
            }
            if !reads {
                // Nothing can be heard while nothing is read.
                heard = Instant::now();
            }
        }
    }

    /// Whether more messages may be taken in. One always may, so that a full budget stops nobody for good.
    fn may_read(&self) -> bool {
        !self.holds()
            && self.out.len() < MAX_UNSENT
            && self.answers.len() < MAX_ANSWERS
            && (self.pending.0 == 0
                || (self.pending.0 < MAX_PENDING.0
                    && self.pending.1 < MAX_PENDING.1
                    && self.broker.intake.budget.has_room()))
    }

    /// Whether a message waits for the end of the start script: a topic that is not mapped yet is not one that nobody wants,
    /// and the message would be acknowledged and stored nowhere (DUR-1).
    fn holds(&self) -> bool {
        self.begins() && self.buffer.first().is_some_and(|first| first >> 4 == 3)
    }

    /// Whether the start script runs.
    fn begins(&self) -> bool {
        !self.started && self.broker.node.startup.phase() == Phase::Begins
    }

    /// Whether a message comes too early. The client keeps it when its connection ends without an acknowledgement (DUR-1).
    fn is_early(&self, message: &Message) -> bool {
        !self.started && message.qos > 0 && !message.retain && self.broker.is_early(&message.topic)
    }

    /// Room for the next read.
    fn make_room(&mut self) {
        if self.buffer.is_empty() && self.buffer.capacity() > 2 * self.read_bytes {
            self.buffer = BytesMut::with_capacity(self.read_bytes);
        }
        self.buffer.reserve(self.read_bytes);
    }

    /// Reads more at once while reads are full, less when they are nearly empty.
    fn adapt(&mut self, bytes: usize, room: usize) {
        if bytes >= room {
            self.read_bytes = (self.read_bytes * 2).min(READ_BYTES.1);
        } else if bytes < self.read_bytes / 8 {
            self.read_bytes = (self.read_bytes / 2).max(READ_BYTES.0);
        }
    }

    /// Works on the packets that have come whole.
    fn packets(&mut self) -> Result<(), Ended> {
        while self.may_read() {
            let Some(frame) = codec::frame(&mut self.buffer, MAX_PACKET_BYTES)? else { break };
            let packet = codec::decode(self.version, frame)?;
            self.tally.count(&packet);
            self.with_session(|session, actions| session.on_packet(packet, actions))?;
            self.act()?;
        }
        self.launch();
        self.statistics.add(&mut self.tally, self.now);
        Ok(())
    }

    /// Works on the session, unless it belongs to another connection now. It changes hands under its lock.
    fn with_session(&mut self, work: impl FnOnce(&mut Session, &mut Vec<Action>)) -> Result<(), Ended> {
        let mut session = self.client.session.lock();
        if self.taken_over.is_cancelled() {
            return Err(Ended::TakenOver);
        }
        session.tell_time(self.now);
        work(&mut session, &mut self.actions);
        Ok(())
    }

    /// Does what the session decided.
    fn act(&mut self) -> Result<(), Ended> {
        // Two lists that change places: no memory is taken for each packet.
        let mut actions = std::mem::take(&mut self.in_work);
        while !self.actions.is_empty() {
            std::mem::swap(&mut self.actions, &mut actions);
            for action in actions.drain(..) {
                match action {
                    Action::Send(packet) => self.send(&packet),
                    Action::Accept(ticket, message) if self.is_early(&message) => {
                        return Err(self.refuse(ticket, message));
                    }
                    Action::Accept(ticket, message) => self.accept(ticket, message),
                    Action::Subscribe { filter, existed } => {
                        self.broker.router.subscribe(&self.client, &filter.path, filter.options);
                        if wants_retained(filter.options, existed) {
                            self.send_retained(&filter);
                        }
                    }
                    Action::Unsubscribe(filter) => self.broker.router.unsubscribe(&self.client, &filter),
                    Action::Confirm(changes, packet) => {
                        self.answers.confirm(self.broker, &self.client, changes, packet, &self.gone);
                    }
                    Action::Note(change) => {
                        if let Some(book) = self.broker.clients.book() {
                            book.note(self.client.record(change));
                        }
                    }
                    Action::Release { id, booked } => self.answers.release(id, booked),
                    Action::Close(Close::Client { will }) => return Err(Ended::Goodbye { will }),
                    Action::Close(Close::Violation(reason, text)) => return Err(Ended::Violation(reason, text)),
                }
            }
        }
        self.in_work = actions;
        Ok(())
    }

    /// Gives the client the retained messages of a new subscription.
    fn send_retained(&mut self, filter: &Filter) {
        let retained = self.broker.router.retained_for(&filter.path, self.now);
        let kept = self.broker.clients.book().filter(|_| self.client.is_kept());
        let mut session = self.client.session.lock();
        for message in retained {
            let qos = filter.options.qos.min(message.qos);
            let Some(book) = kept.filter(|_| qos > 0) else {
                session.deliver(message, qos, true);
                continue;
            };
            // All that a kept session numbers is in the book: after a restart no packet id means two messages.
            if let Some(sequence) = session.reserve(&message) {
                let target = Target { client: Arc::clone(&self.client), sequence, qos, retain: true };
                self.answers.follow(Routing::begin(book, message, vec![target], None, None), &self.gone);
            }
        }
        session.fill(&mut self.actions);
    }

    fn send(&mut self, packet: &Outgoing) {
        if !codec::encode(self.version, packet, &mut self.out) {
            tracing::debug!(client = self.client.id(), ?packet, "Packet not sent: its version has none");
        }
    }

    /// Leaves a message with its client, which sends it again on its next connection.
    fn refuse(&mut self, ticket: Option<u64>, message: Message) -> Ended {
        if let Some(ticket) = ticket {
            self.client.session.lock().settled(ticket, Outcome::Abandoned, &mut self.actions);
        }
        Ended::Early(message.topic)
    }

    /// Passes a message to whoever subscribed to it and puts it to those that are stored next.
    fn accept(&mut self, ticket: Option<u64>, message: Message) {
        let mappings = match self.run.mappings_of(&message.topic) {
            Some(known) => known.to_vec(),
            None => self.broker.router.mappings(&message.topic),
        };
        let packet = match ticket {
            Some(ticket) if message.qos == 2 => self.client.session.lock().packet(ticket),
            _ => None,
        };
        let routing = if packet.is_some_and(|packet| packet.routed) { None } else { self.route(&message, packet) };
        if mappings.is_empty() && routing.is_none() {
            if let Some(ticket) = ticket {
                self.client.session.lock().settled(ticket, Outcome::Settled, &mut self.actions);
            }
            return;
        }
        if !self.run.takes(ticket, &message, &mappings) {
            self.close_run();
        }
        let bytes = message.cost();
        self.run.held.grow(bytes);
        self.pending.0 += 1;
        self.pending.1 += bytes;
        self.run.mappings = mappings;
        self.run.routings.extend(routing.map(|routing| (self.run.tickets.len(), routing)));
        self.run.packets.push(packet.map(|packet| {
            let client = Arc::clone(self.client.key().text());
            (Delivery { client, packet: packet.id }, packet.dup)
        }));
        self.run.tickets.push(ticket);
        self.run.messages.push(message);
        self.run.bytes += bytes;
    }

    /// Passes a message to whoever subscribed to it.
    fn route(&self, message: &Message, packet: Option<Packet>) -> Option<Routing> {
        let router = &self.broker.router;
        if !message.retain && !router.has_clients() {
            return None;
        }
        let packet = packet.map(|packet| (self.client.key(), packet.id));
        router.route(message.clone(), self.client.id(), self.broker.clients.book(), packet)
    }

    /// The messages that came last go to the store as they are.
    fn close_run(&mut self) {
        if !self.run.messages.is_empty() {
            let run = std::mem::replace(&mut self.run, Run::new(self.broker));
            self.ready.push_back(run);
        }
    }

    /// Begins to store messages, as many as may be with the store, and to write which packets were released. Messages that have to
    /// wait make larger groups.
    fn launch(&mut self) {
        self.answers.launch(self.broker, &self.client, &self.gone);
        while self.at_store < MAX_AT_STORE {
            if self.ready.is_empty() {
                self.close_run();
            }
            let Some(run) = self.ready.pop_front() else { break };
            self.at_store += run.messages.len();
            self.storing.push(Box::pin(store(self.broker, run, self.gone.clone())));
        }
    }

    /// Messages are settled, so that their acknowledgements may go.
    fn stored(&mut self, Stored { tickets, bytes, taken, booked }: Stored) {
        self.pending.0 -= tickets.len();
        self.pending.1 -= bytes;
        self.at_store -= tickets.len();
        self.launch();
        let mut session = self.client.session.lock();
        let taken_over = self.taken_over.is_cancelled();
        let mut handed_over = Vec::new();
        let actions = if taken_over { &mut handed_over } else { &mut self.actions };
        booked.into_iter().for_each(|packet| session.booked(packet));
        for (ticket, taken) in tickets.into_iter().zip(taken) {
            let outcome = match taken {
                Taken::Settled => Outcome::Settled,
                Taken::Abandoned | Taken::Dropped => Outcome::Abandoned,
            };
            if let Some(ticket) = ticket {
                session.settled(ticket, outcome, actions);
            }
        }
        if taken_over {
            session.hand_over(&mut handed_over);
            drop(session);
            self.client.wake.notify_one();
        }
    }

    /// Something that had to be on stable storage is.
    fn answered(&mut self, answer: Answer) -> Result<(), Ended> {
        match answer {
            Answer::Send(packet) => self.send(&packet),
            Answer::Released(packets) => {
                let mut session = self.client.session.lock();
                packets.into_iter().for_each(|packet| session.released(packet, &mut self.actions));
                drop(session);
                if self.taken_over.is_cancelled() {
                    return Err(Ended::TakenOver);
                }
            }
            Answer::Done => {}
        }
        Ok(())
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
        self.launch();
        // The last packets may have ended the connection.
        self.statistics.add(&mut self.tally, self.now);
        while let Some(stored) = self.storing.next().await {
            self.stored(stored);
            // The socket is closed; the session remembers what was not acknowledged.
            self.actions.clear();
        }
    }
}
