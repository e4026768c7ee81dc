//! An MQTT 3.1.1 publisher with a persistent session, every packet of which is under the test's control. What it has in flight
//! outlives the connection, and the node: a new connection sends it again, with DUP and under the same packet ids.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How far a message has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// PUBLISH is sent.
    Published,
    /// PUBREC came, PUBREL is sent.
    Released,
}

#[derive(Debug)]
struct Flight {
    id: u16,
    /// The number by which the test knows it.
    message: usize,
    phase: Phase,
    packet: Vec<u8>,
}

/// What the broker said of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// PUBACK or PUBREC: the broker has it.
    Taken(usize),
    /// PUBACK or PUBCOMP: nothing is open any more.
    Done,
}

/// A publisher: its name, its quality of service, what it has in flight.
#[derive(Debug)]
pub(crate) struct Publisher {
    pub(crate) name: String,
    pub(crate) qos: u8,
    next_id: u16,
    flights: VecDeque<Flight>,
    stream: Option<TcpStream>,
    unread: Vec<u8>,
    unsent: Vec<u8>,
}

fn text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(&u16::try_from(text.len()).expect("a short text").to_be_bytes());
    out.extend_from_slice(text);
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut length = body.len();
    loop {
        let low = u8::try_from(length % 128).expect("seven bits");
        length /= 128;
        out.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

/// A whole packet at the beginning of `bytes`: its first byte, where its body is.
fn frame(bytes: &[u8]) -> Option<(u8, std::ops::Range<usize>)> {
    let first = *bytes.first()?;
    let mut length = 0;
    for (at, byte) in bytes.iter().enumerate().skip(1).take(4) {
        length |= usize::from(byte & 0x7f) << (7 * (at - 1));
        if byte & 0x80 == 0 {
            let body = at + 1..at + 1 + length;
            return (bytes.len() >= body.end).then_some((first, body));
        }
    }
    None
}

impl Publisher {
    pub(crate) fn new(name: &str, qos: u8) -> Self {
        Self {
            name: name.to_owned(),
            qos,
            next_id: 0,
            flights: VecDeque::new(),
            stream: None,
            unread: Vec::new(),
            unsent: Vec::new(),
        }
    }

    /// How many messages are without their last packet.
    pub(crate) fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// The messages that the broker has not said to have. A sender that ends here would not know of them.
    pub(crate) fn open(&self) -> impl Iterator<Item = usize> + '_ {
        self.flights.iter().filter(|flight| flight.phase == Phase::Published).map(|flight| flight.message)
    }

    /// Connects. What is open is sent again with the next [`Self::flush`]. Returns whether the broker knew the session.
    pub(crate) fn connect(&mut self, port: u16) -> io::Result<bool> {
        self.unread.clear();
        self.unsent.clear();
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.set_write_timeout(Some(Duration::from_secs(30)))?;
        let mut body = Vec::new();
        text(&mut body, b"MQTT");
        // Version 4, a session that is kept, keep-alive of a minute.
        body.extend_from_slice(&[4, 0, 0, 60]);
        text(&mut body, self.name.as_bytes());
        stream.write_all(&packet(0x10, &body))?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer)?;
        if answer[..2] != [0x20, 2] || answer[3] != 0 {
            return Err(io::Error::other(format!("refused: {answer:?}")));
        }
        for flight in &mut self.flights {
            match flight.phase {
                Phase::Published => {
                    flight.packet[0] |= 0x08;
                    self.unsent.extend_from_slice(&flight.packet);
                }
                Phase::Released => self.unsent.extend(packet(0x62, &flight.id.to_be_bytes())),
            }
        }
        self.stream = Some(stream);
        Ok(answer[2] & 1 == 1)
    }

    /// Publishes a message; it leaves with [`Self::flush`].
    pub(crate) fn publish(&mut self, topic: &str, payload: &[u8], message: usize) {
        loop {
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            if self.flights.iter().all(|flight| flight.id != self.next_id) {
                break;
            }
        }
        let mut body = Vec::new();
        text(&mut body, topic.as_bytes());
        body.extend_from_slice(&self.next_id.to_be_bytes());
        body.extend_from_slice(payload);
        let packet = packet(0x30 | self.qos << 1, &body);
        self.unsent.extend_from_slice(&packet);
        self.flights.push_back(Flight { id: self.next_id, message, phase: Phase::Published, packet });
    }

    /// Sends what waits.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        stream.write_all(&self.unsent)?;
        self.unsent.clear();
        Ok(())
    }

    /// Waits for packets, answers them, and says what they mean. Empty after `patience` without a packet.
    pub(crate) fn hear(&mut self, patience: Duration) -> io::Result<Vec<Heard>> {
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        stream.set_read_timeout(Some(patience))?;
        let mut bytes = [0; 16 * 1024];
        match stream.read(&mut bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => self.unread.extend_from_slice(&bytes[..read]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        }
        let mut heard = Vec::new();
        while let Some((first, body)) = frame(&self.unread) {
            let id = self.unread.get(body.start..body.start + 2).map_or(0, |id| u16::from_be_bytes([id[0], id[1]]));
            self.unread.drain(..body.end);
            heard.extend(self.on_packet(first, id));
        }
        self.flush()?;
        Ok(heard)
    }

    fn on_packet(&mut self, first: u8, id: u16) -> Option<Heard> {
        let at = self.flights.iter().position(|flight| flight.id == id);
        match (first >> 4, at) {
            // PUBACK.
            (4, Some(at)) if self.qos == 1 => self.flights.remove(at).map(|flight| Heard::Taken(flight.message)),
            // PUBREC.
            (5, Some(at)) if self.qos == 2 => {
                self.flights[at].phase = Phase::Released;
                self.unsent.extend(packet(0x62, &id.to_be_bytes()));
                Some(Heard::Taken(self.flights[at].message))
            }
            // PUBCOMP.
            (7, Some(at)) if self.flights[at].phase == Phase::Released => {
                self.flights.remove(at);
                Some(Heard::Done)
            }
            // PINGRESP.
            (13, _) => None,
            _ => panic!("publisher {}: unexpected packet {first:#x} for packet id {id}", self.name),
        }
    }

    /// Ends the connection without a word.
    pub(crate) fn cut(&mut self) {
        self.stream = None;
    }
}
