//! What the broker keeps over restarts, as the sum of all records: a pure function of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;

use super::record::{Record, put_frame};
use crate::broker::codec::SubscribeOptions;
use crate::broker::message::Message;

/// About how long the frames of a copy of the whole state are, in records and in bytes.
const FRAME_RECORDS: usize = 1024;
const FRAME_BYTES: usize = 1 << 20;

/// Sessions and retained messages.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct State {
    pub(crate) sessions: HashMap<Arc<str>, Kept>,
    pub(crate) retained: HashMap<String, Arc<Message>>,
}

/// A session.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Kept {
    /// Seconds for which it waits for its client.
    pub(crate) expiry: u32,
    /// When it ends; none while its client was connected.
    pub(crate) ends: Option<Timestamp>,
    pub(crate) filters: BTreeMap<String, SubscribeOptions>,
    /// What waits for the client or for its acknowledgement, in order.
    pub(crate) queue: BTreeMap<u64, Waiting>,
    /// QoS 2 packets of the client that were passed on and not released.
    pub(crate) received: BTreeSet<u16>,
}

/// A message that waits for a client.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Waiting {
    pub(crate) message: Arc<Message>,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    /// The client has it: only the end of the exchange is open.
    pub(crate) taken: bool,
}

impl State {
    /// Adds the records of a frame. Those that speak of what is not there - its record is lost - change nothing.
    pub(crate) fn apply(&mut self, records: &[Record]) {
        let mut message: Option<&Arc<Message>> = None;
        for record in records {
            match record {
                Record::Message(it) => message = Some(it),
                Record::Retained => {
                    if let Some(message) = message {
                        self.retained.insert(message.topic.clone(), Arc::clone(message));
                    }
                }
                Record::Removed(topic) => drop(self.retained.remove(topic)),
                Record::Session { client, expiry, ends } => {
                    let session = self.sessions.entry(Arc::clone(client)).or_default();
                    (session.expiry, session.ends) = (*expiry, *ends);
                }
                Record::Ended(client) => drop(self.sessions.remove(client)),
                Record::Queued { client, sequence, qos, retain } => {
                    if let (Some(session), Some(message)) = (self.sessions.get_mut(client), message) {
                        let message = Arc::clone(message);
                        let waiting = Waiting { message, qos: *qos, retain: *retain, taken: false };
                        session.queue.entry(*sequence).or_insert(waiting);
                    }
                }
                Record::Subscribed(client, filter, options) => self.change(client, |session| {
                    session.filters.insert(filter.clone(), *options);
                }),
                Record::Unsubscribed(client, filter) => self.change(client, |session| {
                    session.filters.remove(filter);
                }),
                Record::Done(client, sequence) => self.change(client, |session| {
                    session.queue.remove(sequence);
                }),
                Record::Taken(client, sequence) => self.change(client, |session| {
                    session.queue.entry(*sequence).and_modify(|waiting| waiting.taken = true);
                }),
                Record::Received(client, packet) => self.change(client, |session| {
                    session.received.insert(*packet);
                }),
                Record::Released(client, packet) => self.change(client, |session| {
                    session.received.remove(packet);
                }),
                Record::Complete => {}
            }
        }
    }

    fn change(&mut self, client: &str, change: impl FnOnce(&mut Kept)) {
        if let Some(session) = self.sessions.get_mut(client) {
            change(session);
        }
    }

    /// Writes the whole state as frames, the last of which says that it is complete. `out` gets one frame at a time.
    pub(crate) fn copy<E>(&self, out: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut frames = Frames { out, buffer: Vec::new(), records: Vec::new(), bytes: 0 };
        for message in self.retained.values() {
            frames.add([Record::Message(Arc::clone(message)), Record::Retained])?;
        }
        let mut queued: HashMap<*const Message, (&Arc<Message>, Vec<Record>)> = HashMap::new();
        for (client, session) in &self.sessions {
            let Kept { expiry, ends, .. } = *session;
            frames.add([Record::Session { client: Arc::clone(client), expiry, ends }])?;
            for (filter, options) in &session.filters {
                frames.add([Record::Subscribed(Arc::clone(client), filter.clone(), *options)])?;
            }
            for packet in &session.received {
                frames.add([Record::Received(Arc::clone(client), *packet)])?;
            }
            for (sequence, Waiting { message, qos, retain, taken }) in &session.queue {
                let (_, of) = queued.entry(Arc::as_ptr(message)).or_insert_with(|| (message, Vec::new()));
                let (client, sequence) = (Arc::clone(client), *sequence);
                of.push(Record::Queued { client: Arc::clone(&client), sequence, qos: *qos, retain: *retain });
                of.extend(taken.then_some(Record::Taken(client, sequence)));
            }
        }
        // Behind all sessions: a message that waits for many is written once.
        for (message, of) in queued.into_values() {
            for of in of.chunks(FRAME_RECORDS) {
                frames.add(std::iter::once(Record::Message(Arc::clone(message))).chain(of.iter().cloned()))?;
            }
        }
        frames.add([Record::Complete])?;
        frames.end()
    }
}

/// Bundles records into frames of bounded size.
struct Frames<W> {
    out: W,
    buffer: Vec<u8>,
    records: Vec<Record>,
    bytes: usize,
}

impl<E, W: FnMut(&[u8]) -> Result<(), E>> Frames<W> {
    /// Adds records that stay in one frame.
    fn add(&mut self, records: impl IntoIterator<Item = Record>) -> Result<(), E> {
        for record in records {
            self.bytes += record.cost();
            self.records.push(record);
        }
        if self.records.len() >= FRAME_RECORDS || self.bytes >= FRAME_BYTES { self.end() } else { Ok(()) }
    }

    fn end(&mut self) -> Result<(), E> {
        self.buffer.clear();
        put_frame(&self.records, &mut self.buffer);
        self.records.clear();
        self.bytes = 0;
        (self.out)(&self.buffer)
    }
}
