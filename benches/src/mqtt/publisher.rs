//! A publisher: some connections on one thread, each with a window of messages that wait for their acknowledgement.
//!
//! What may be sent is collected and written with one call, so that the generator takes few system calls from what it measures.

use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;

use super::packets::{self, kind};
use crate::histogram::Histogram;
use crate::message;

/// Bytes that are collected before they are written.
const CHUNK: usize = 64 * 1024;

/// How long an acknowledgement may take before a run is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// The pause between two looks at a schedule.
const TICK: Duration = Duration::from_millis(1);

/// When a publisher ends.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// No message begins after this time; those begun are waited for.
    Time(Duration),
    /// As many messages from each connection.
    Count(u64),
}

/// What a publisher does.
#[derive(Debug, Clone)]
pub struct Load {
    /// Port of the broker on loopback.
    pub port: u16,
    /// Topic of every message.
    pub topic: String,
    /// 0, 1 or 2.
    pub qos: u8,
    /// Connections.
    pub connections: u16,
    /// Messages of a connection that may wait for their acknowledgement; of no meaning at QoS 0.
    pub window: u16,
    /// Bytes of a message, at least [`message::LEN`].
    pub payload: usize,
    /// Messages a second of all connections; none is as many as the windows allow. Latencies are then counted from the time
    /// at which a message was due, so that a broker that holds up the publisher is not spared.
    pub rate: Option<f64>,
    /// When to end.
    pub until: Until,
    /// Number of the first message.
    pub first: u64,
}

/// What a publisher saw.
#[derive(Debug, Clone)]
pub struct Published {
    /// Messages acknowledged; at QoS 0, sent.
    pub messages: u64,
    /// From the first message to the last acknowledgement.
    pub elapsed: Duration,
    /// From a message's write to its PUBACK, at QoS 2 to its PUBREC.
    pub latencies: Histogram,
}

/// Publishes until the load's end and waits for every acknowledgement.
///
/// # Errors
///
/// When a connection breaks, is refused, or an acknowledgement does not arrive within a minute.
pub fn publish(load: &Load) -> io::Result<Published> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut connections = Vec::new();
        for index in 0..load.connections {
            connections.push(Connection::open(load, index).await?);
        }
        let start = Instant::now();
        let tasks: Vec<_> = connections.into_iter().map(|connection| tokio::spawn(connection.run(start))).collect();
        let mut published = Published { messages: 0, elapsed: Duration::ZERO, latencies: Histogram::default() };
        for task in tasks {
            let (messages, latencies) = task.await.map_err(io::Error::other)??;
            published.messages += messages;
            published.latencies.add(&latencies);
        }
        published.elapsed = start.elapsed();
        Ok(published)
    })
}

/// One connection. Message numbers are dealt out in turn, so that all connections together count up.
struct Connection {
    stream: TcpStream,
    load: Load,
    number: u64,
    sent: u64,
    done: u64,
    in_flight: u16,
    next_id: u16,
    /// When the message of a packet id was due; `None` is a free id.
    begun: Vec<Option<Instant>>,
    out: Vec<u8>,
    written: usize,
    input: Vec<u8>,
    latencies: Histogram,
}

impl Connection {
    async fn open(load: &Load, index: u16) -> io::Result<Self> {
        let mut stream = TcpStream::connect(("127.0.0.1", load.port)).await?;
        stream.set_nodelay(true)?;
        let mut out = Vec::with_capacity(2 * CHUNK);
        packets::connect(&mut out, &format!("publisher-{}-{index}", std::process::id()));
        stream.write_all(&out).await?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await?;
        if answer != [kind::CONNACK, 2, 0, 0] {
            return Err(io::Error::other(format!("the broker at port {} answered {answer:?} to CONNECT", load.port)));
        }
        out.clear();
        Ok(Self {
            stream,
            load: load.clone(),
            number: load.first + u64::from(index),
            sent: 0,
            done: 0,
            in_flight: 0,
            next_id: 0,
            begun: vec![None; 1 << 16],
            out,
            written: 0,
            input: Vec::with_capacity(CHUNK),
            latencies: Histogram::default(),
        })
    }

    async fn run(mut self, start: Instant) -> io::Result<(u64, Histogram)> {
        loop {
            let may_send = self.fill(start);
            if !may_send && self.in_flight == 0 && self.out.is_empty() {
                break;
            }
            self.turn().await?;
        }
        if self.load.qos == 0 {
            self.ping().await?;
        }
        Ok((self.done, self.latencies))
    }

    /// Collects the messages that may be sent; false when none will follow.
    fn fill(&mut self, start: Instant) -> bool {
        let now = Instant::now();
        let elapsed = now - start;
        let due = match self.load.until {
            Until::Time(end) if elapsed >= end => return false,
            Until::Time(_) => u64::MAX,
            Until::Count(count) if self.sent >= count => return false,
            Until::Count(count) => count,
        };
        let due = self.interval().map_or(due, |interval| due.min((elapsed.as_secs_f64() / interval) as u64 + 1));
        while self.sent < due && self.in_flight < self.load.window && self.out.len() < CHUNK {
            let begun =
                self.interval().map_or(now, |interval| start + Duration::from_secs_f64(self.sent as f64 * interval));
            self.append_message(begun);
        }
        true
    }

    /// Seconds between two messages of this connection.
    fn interval(&self) -> Option<f64> {
        self.load.rate.map(|rate| f64::from(self.load.connections) / rate)
    }

    fn append_message(&mut self, begun: Instant) {
        let mut id = 0;
        if self.load.qos > 0 {
            id = self.free_id();
            self.begun[usize::from(id)] = Some(begun);
            self.in_flight += 1;
        } else {
            self.done += 1;
        }
        packets::publish(&mut self.out, &self.load.topic, self.load.qos, id, self.load.payload);
        message::append(&mut self.out, self.number, self.load.payload);
        self.number += u64::from(self.load.connections);
        self.sent += 1;
    }

    fn free_id(&mut self) -> u16 {
        loop {
            self.next_id = self.next_id.wrapping_add(1).max(1);
            if self.begun[usize::from(self.next_id)].is_none() {
                return self.next_id;
            }
        }
    }

    /// Waits until the socket is ready, or a message due, and writes and reads what can be.
    async fn turn(&mut self) -> io::Result<()> {
        let interest = if self.out.is_empty() { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
        let patience = if self.load.rate.is_some() { TICK } else { PATIENCE };
        let Ok(ready) = tokio::time::timeout(patience, self.stream.ready(interest)).await else {
            if self.load.rate.is_some() {
                return Ok(());
            }
            return Err(io::Error::other(format!("{} messages were not acknowledged within a minute", self.in_flight)));
        };
        let ready = ready?;
        if ready.is_writable() && !self.out.is_empty() {
            self.write()?;
        }
        if ready.is_readable() {
            self.read()?;
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        match self.stream.try_write(&self.out[self.written..]) {
            Ok(count) => self.written += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
        }
        Ok(())
    }

    fn read(&mut self) -> io::Result<()> {
        match self.stream.try_read_buf(&mut self.input) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
        let now = Instant::now();
        let mut at = 0;
        while let Some((packet, length)) = packets::next(&self.input[at..]) {
            at += length;
            match packet.first {
                kind::PUBACK => {
                    self.record(packet.id, now);
                    self.settle(packet.id);
                }
                kind::PUBREC => {
                    self.record(packet.id, now);
                    packets::short(&mut self.out, kind::PUBREL, packet.id);
                }
                kind::PUBCOMP => self.settle(packet.id),
                _ => {}
            }
        }
        self.input.drain(..at);
        Ok(())
    }

    fn record(&mut self, id: u16, now: Instant) {
        if let Some(begun) = self.begun[usize::from(id)] {
            self.latencies.record(now.saturating_duration_since(begun));
        }
    }

    fn settle(&mut self, id: u16) {
        if self.begun[usize::from(id)].take().is_some() {
            self.in_flight -= 1;
            self.done += 1;
        }
    }

    /// Waits until the broker has read all that was sent.
    async fn ping(&mut self) -> io::Result<()> {
        self.stream.write_all(&[kind::PINGREQ, 0]).await?;
        let mut answer = [0; 2];
        tokio::time::timeout(PATIENCE, self.stream.read_exact(&mut answer)).await??;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
