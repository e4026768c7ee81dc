//! One connection to another broker: bytes in, packets to the [`Storer`], acknowledgements out.
//!
//! The task never waits for one thing alone. It stops reading only when what waits for the store reaches a bound; then the broker's
//! TCP window fills, and pings go on.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::ConnectionState;
use super::packet::{self, Hello, Incoming};
use super::remote::Remote;
use crate::broker::codec::{CodecError, Version, frame};

/// Bytes that wait to be sent before the connection reads no more.
const MAX_UNSENT: usize = 256 * 1024;

/// What is read at once.
const READ_BYTES: usize = 64 * 1024;

/// How long messages that are being stored may take when the client is stopped, so that they are acknowledged.
const GRACE: Duration = Duration::from_secs(1);

/// First and longest pause before a subscription that was refused is asked for again.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// No timer is set further ahead.
const HOUR: Duration = Duration::from_secs(3600);

/// What a connection runs over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("the client was stopped")]
    Stopped,
    #[error("the host '{0}' was not found: {1}")]
    UnknownHost(String, std::io::Error),
    #[error("the broker is not reached: {0}")]
    Unreached(std::io::Error),
    #[error("no answer to {0} within {1:?}")]
    NoAnswer(&'static str, Duration),
    #[error("{}", packet::refusal(*.0, *.1))]
    Refused(Version, u8, Option<String>),
    #[error("the broker hung up before it answered to CONNECT, as a port for TLS does when tls = true is missing")]
    ClosedAtOnce,
    #[error("the broker closed the connection")]
    Closed,
    #[error("the broker was silent for 1.5 times the keep-alive of {} s", .0.as_secs())]
    Silent(Duration),
    #[error("the broker takes nothing that is sent to it")]
    Stuck,
    #[error("{}", packet::farewell(*.0))]
    Farewell(u8, Option<String>),
    #[error("the broker speaks TLS; add tls = true")]
    Tls,
    #[error("TLS failed: {0}")]
    Untrusted(std::io::Error),
    #[error("TLS did not begin, perhaps because this port has none: {0}")]
    NoTls(std::io::Error),
    #[error("what answers there is no MQTT broker: {0}")]
    NoBroker(CodecError),
    #[error("the broker broke the protocol: {0}")]
    Codec(#[from] CodecError),
    #[error("the connection broke: {0}")]
    Io(#[from] std::io::Error),
}

impl Ended {
    /// For a person, with the broker's own words.
    pub(super) fn text(&self) -> String {
        match self {
            Ended::Refused(_, _, Some(words)) | Ended::Farewell(_, Some(words)) if !words.is_empty() => {
                format!("{self}: {words}")
            }
            _ => self.to_string(),
        }
    }

    /// Whether the next attempt will end in the same way unless somebody changes something.
    pub(super) fn is_lasting(&self) -> bool {
        match self {
            Ended::Refused(version, code, _) => !packet::is_passing(*version, *code),
            Ended::Tls | Ended::Untrusted(_) | Ended::NoBroker(_) => true,
            // Alerts of TLS: the broker may refuse a certificate after the connection has begun.
            Ended::Io(error) => error.kind() == std::io::ErrorKind::InvalidData,
            _ => false,
        }
    }

    /// Whether the broker may speak another version of the protocol: it says so, or went without a word.
    pub(super) fn is_about_version(&self) -> bool {
        matches!(self, Ended::Refused(_, 1 | 0x84, _) | Ended::ClosedAtOnce)
    }
}

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// CONNECT is sent.
    Greeting,
    /// SUBSCRIBE is sent for the first time.
    Subscribing,
    /// SUBSCRIBE is answered.
    Ready,
}

/// An open connection.
pub(super) struct Connection<'r> {
    remote: &'r Remote,
    version: Version,
    phase: Phase,
    opened: Instant,
    keep_alive: Duration,
    heard: Instant,
    spoke: Instant,
    /// A PINGREQ that nothing came after.
    ping: Option<Instant>,
    buffer: BytesMut,
    out: BytesMut,
    /// The topics of the SUBSCRIBE that is not answered, by their place.
    asked: Vec<usize>,
    subscribe_id: u16,
    /// Topics that the broker refused, and when they are asked for again.
    refused: Vec<(usize, u8)>,
    ask_at: Option<Instant>,
    ask_pause: Duration,
    /// What is written may stay in buffers of the connection until it is flushed.
    buffers: bool,
    /// When subscriptions were confirmed.
    pub(super) ready: Option<Instant>,
    /// Whether messages came.
    pub(super) served: bool,
}

/// Opens a TCP connection within the deadline.
pub(super) async fn open(host: &str, port: u16, deadline: Duration) -> Result<TcpStream, Ended> {
    let opened = async {
        let addresses: Vec<_> = tokio::net::lookup_host((host, port))
            .await
            .map_err(|error| Ended::UnknownHost(host.to_owned(), error))?
            .collect();
        TcpStream::connect(addresses.as_slice()).await.map_err(Ended::Unreached)
    };
    let stream =
        tokio::time::timeout(deadline, opened).await.unwrap_or(Err(Ended::NoAnswer("a TCP connection", deadline)))?;
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "No TCP_NODELAY");
    }
    Ok(stream)
}

#[derive(Debug, PartialEq, Eq)]
enum Written {
    Some,
    Nothing,
    Flushed,
}

/// Writes some of `out`, or flushes what was written when there is no more.
async fn write_or_flush(writer: &mut (impl AsyncWrite + Unpin), out: &mut BytesMut) -> std::io::Result<Written> {
    if out.is_empty() {
        return writer.flush().await.map(|()| Written::Flushed);
    }
    Ok(if writer.write_buf(out).await? == 0 { Written::Nothing } else { Written::Some })
}

impl<'r> Connection<'r> {
    pub(super) fn new(remote: &'r Remote, version: Version) -> Self {
        let now = Instant::now();
        Self {
            remote,
            version,
            phase: Phase::Greeting,
            opened: now,
            keep_alive: remote.keep_alive,
            heard: now,
            spoke: now,
            ping: None,
            buffer: BytesMut::with_capacity(READ_BYTES),
            out: BytesMut::new(),
            asked: Vec::new(),
            subscribe_id: 0,
            refused: Vec::new(),
            ask_at: None,
            ask_pause: ASK_AGAIN.0,
            buffers: remote.tls.is_some(),
            ready: None,
            served: false,
        }
    }

    /// Whether the broker answered to CONNECT with yes.
    pub(super) fn is_accepted(&self) -> bool {
        self.phase != Phase::Greeting
    }

    /// Serves the connection to its end.
    pub(super) async fn serve(&mut self, mut stream: impl Stream) -> Ended {
        let seconds = u16::try_from(self.keep_alive.as_secs()).unwrap_or(u16::MAX).max(1);
        self.keep_alive = Duration::from_secs(seconds.into());
        let login = self.remote.login.as_ref().map(|(user, password)| (user.as_str(), password.as_str()));
        let hello = Hello { client_id: &self.remote.client_id, login, keep_alive: seconds };
        if let Err(error) = packet::connect(self.version, hello, &mut self.out) {
            return error.into();
        }
        match self.work(&mut stream).await {
            Ok(()) => {
                self.part(&mut stream).await;
                Ended::Stopped
            }
            Err(ended) => ended,
        }
    }

    async fn work(&mut self, stream: &mut impl Stream) -> Result<(), Ended> {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let remote = self.remote;
        let mut wrote = Instant::now();
        let mut stopping: Option<Instant> = None;
        let mut unflushed = false;
        loop {
            self.packets()?;
            self.acknowledge();
            let now = Instant::now();
            if stopping.is_some_and(|end| now >= end || (!remote.storer.is_storing() && self.out.is_empty())) {
                return Ok(());
            }
            let reads = stopping.is_none() && self.may_read();
            if !reads {
                // Nothing can be heard while nothing is read.
                (self.heard, self.opened, self.ping) = (now, now, None);
            }
            if self.out.is_empty() {
                wrote = now;
            }
            // Here and not below: a broker that always sends leaves no time for timers.
            self.tick(now, wrote)?;
            let sends = !self.out.is_empty();
            let timer = self.timer(wrote).min(stopping.unwrap_or(now + HOUR));
            tokio::select! {
                biased;
                () = remote.stop.cancelled(), if stopping.is_none() => stopping = Some(now + GRACE),
                written = write_or_flush(&mut writer, &mut self.out), if sends || unflushed => {
                    if written? == Written::Nothing {
                        return Err(Ended::Closed);
                    }
                    unflushed = sends && self.buffers;
                    if sends {
                        wrote = Instant::now();
                        self.spoke = wrote;
                    }
                }
                read = reader.read_buf(&mut self.buffer), if reads => {
                    let gone = match read {
                        Ok(count) => count == 0,
                        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => true,
                        Err(error) => return Err(error.into()),
                    };
                    if gone {
                        return Err(if self.phase == Phase::Greeting { Ended::ClosedAtOnce } else { Ended::Closed });
                    }
                    self.heard = Instant::now();
                    self.ping = None;
                    self.buffer.reserve(READ_BYTES / 2);
                }
                () = remote.storer.due.notified() => {}
                () = sleep_until(timer) => {}
            }
        }
    }

    /// Whether more messages may be taken in. The answer to CONNECT holds none.
    fn may_read(&self) -> bool {
        self.phase == Phase::Greeting || (self.out.len() < MAX_UNSENT && self.remote.storer.has_room())
    }

    /// When [`Connection::tick`] has something to do if nothing comes. `wrote`: since when the broker takes nothing.
    fn timer(&self, wrote: Instant) -> Instant {
        if self.phase == Phase::Greeting {
            return self.opened + self.remote.deadline;
        }
        let traffic = if !self.out.is_empty() {
            self.stuck_at(wrote)
        } else if let Some(since) = self.ping {
            self.silent_at(since)
        } else {
            self.ping_at()
        };
        let answer = if self.phase == Phase::Ready { traffic } else { traffic.min(self.opened + self.remote.deadline) };
        answer.min(self.ask_at.unwrap_or(answer))
    }

    /// A ping is due when the broker has heard nothing for a keep-alive, or nothing was heard from it.
    fn ping_at(&self) -> Instant {
        self.heard.min(self.spoke) + self.keep_alive
    }

    /// A broker is gone half a keep-alive after a ping that nothing came after: 1.5 times the keep-alive after the last sign.
    fn silent_at(&self, ping: Instant) -> Instant {
        ping + self.keep_alive / 2
    }

    fn stuck_at(&self, wrote: Instant) -> Instant {
        wrote + self.keep_alive * 3 / 2
    }

    /// Does what is due by the clock.
    fn tick(&mut self, now: Instant, wrote: Instant) -> Result<(), Ended> {
        if self.phase != Phase::Ready && now >= self.opened + self.remote.deadline {
            let step = if self.phase == Phase::Greeting { "CONNECT" } else { "SUBSCRIBE" };
            return Err(Ended::NoAnswer(step, self.remote.deadline));
        }
        if self.phase == Phase::Greeting {
            return Ok(());
        }
        if !self.out.is_empty() {
            return if now >= self.stuck_at(wrote) { Err(Ended::Stuck) } else { Ok(()) };
        }
        match self.ping {
            Some(since) if now >= self.silent_at(since) => return Err(Ended::Silent(self.keep_alive)),
            None if now >= self.ping_at() => {
                packet::ping(&mut self.out);
                self.ping = Some(now);
            }
            _ => {}
        }
        if self.ask_at.is_some_and(|at| now >= at) {
            self.ask_at = None;
            self.ask_pause = (self.ask_pause * 2).min(ASK_AGAIN.1);
            let topics = self.refused.iter().map(|(at, _)| *at).collect();
            self.subscribe(topics)?;
        }
        Ok(())
    }

    /// Works on the packets that have come whole.
    fn packets(&mut self) -> Result<(), Ended> {
        if self.phase == Phase::Greeting && !self.buffer.is_empty() {
            match self.buffer[0] {
                0x20 => {}
                // An alert of TLS.
                0x15 | 0x16 => return Err(Ended::Tls),
                first => {
                    return Err(Ended::NoBroker(CodecError::Malformed(format!("first byte {first:#04x}"))));
                }
            }
        }
        while self.may_read() {
            let Some(frame) = frame(&mut self.buffer, packet::MAX_PACKET_BYTES)? else { break };
            self.packet(packet::decode(self.version, frame)?)?;
        }
        Ok(())
    }

    fn packet(&mut self, packet: Incoming) -> Result<(), Ended> {
        match packet {
            Incoming::ConnAck { session_present, code, keep_alive, reason } => {
                if self.phase != Phase::Greeting {
                    return Err(CodecError::Malformed("a second CONNACK".into()).into());
                }
                if code != 0 {
                    return Err(Ended::Refused(self.version, code, reason));
                }
                if let Some(seconds) = keep_alive.filter(|seconds| *seconds > 0) {
                    self.keep_alive = Duration::from_secs(seconds.into());
                }
                self.remote.accepted(self.version, session_present);
                self.phase = Phase::Subscribing;
                (self.heard, self.spoke) = (Instant::now(), Instant::now());
                self.subscribe((0..self.remote.topics.len()).collect())
            }
            Incoming::SubAck { id, codes } => self.subscribed(id, &codes),
            Incoming::Publish(publish) => {
                self.served = true;
                self.remote.storer.put(publish);
                Ok(())
            }
            Incoming::PubRel(id) => {
                self.remote.storer.release(id);
                Ok(())
            }
            Incoming::PingResp => Ok(()),
            Incoming::Disconnect { code, reason } => Err(Ended::Farewell(code, reason)),
        }
    }

    /// Asks for topics, by their place.
    fn subscribe(&mut self, topics: Vec<usize>) -> Result<(), Ended> {
        self.subscribe_id = self.subscribe_id.checked_add(1).unwrap_or(1);
        let known = &self.remote.topics;
        let filters: Vec<(&str, u8)> =
            topics.iter().filter_map(|at| known.get(*at)).map(|topic| (topic.filter.as_ref(), topic.qos)).collect();
        packet::subscribe(self.version, self.subscribe_id, &filters, &mut self.out)?;
        self.asked = topics;
        Ok(())
    }

    /// The broker answered to SUBSCRIBE: a code for each topic.
    fn subscribed(&mut self, id: u16, codes: &[u8]) -> Result<(), Ended> {
        if id != self.subscribe_id || codes.len() != self.asked.len() {
            return Err(CodecError::Malformed("a SUBACK that answers no SUBSCRIBE".into()).into());
        }
        let asked = std::mem::take(&mut self.asked);
        self.refused = asked.iter().copied().zip(codes.iter().copied()).filter(|(_, code)| *code >= 0x80).collect();
        for (at, code) in asked.iter().zip(codes) {
            let Some(topic) = self.remote.topics.get(*at) else { continue };
            if *code < topic.qos {
                tracing::warn!(topic = %topic.filter, asked = topic.qos, granted = code, "The broker grants a lower QoS than asked for");
            }
        }
        self.phase = Phase::Ready;
        let state = match self.refused.first() {
            None => {
                self.ready.get_or_insert_with(Instant::now);
                ConnectionState::Connected
            }
            Some(_) => {
                self.ask_at = Some(Instant::now() + self.ask_pause);
                ConnectionState::Refused { reason: self.refusal() }
            }
        };
        self.remote.set_state(state);
        Ok(())
    }

    fn refusal(&self) -> String {
        let names = self.refused.iter().filter_map(|(at, code)| {
            let topic = self.remote.topics.get(*at)?;
            Some(format!("'{}' ({}, code {code:#04x})", topic.filter, packet::refused_filter(*code)))
        });
        format!("the broker refused the subscription of {}", names.collect::<Vec<_>>().join(", "))
    }

    fn acknowledge(&mut self) {
        if self.phase != Phase::Greeting {
            let out = &mut self.out;
            self.remote.storer.acknowledge(|ack, id| packet::acknowledge(ack, id, out));
        }
    }

    /// Says goodbye, as far as the broker listens. The session stays.
    async fn part(&mut self, stream: &mut impl Stream) {
        packet::disconnect(&mut self.out);
        let goodbye = async {
            stream.write_all(&self.out).await?;
            stream.shutdown().await
        };
        // A broker that does not listen keeps the session all the same.
        drop(timeout_at(Instant::now() + GRACE, goodbye).await);
    }
}

#[cfg(test)]
mod tests;
