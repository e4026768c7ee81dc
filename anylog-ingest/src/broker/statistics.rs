//! What clients did, by address: the rows of `get local broker`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;

use super::codec::Incoming;

/// Addresses that are told apart; later ones are counted together.
const MAX_ADDRESSES: usize = 1000;

/// What a client did. The order is that of [`Event::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    Connect,
    Publish,
    Subscribe,
    Unsubscribe,
    Ping,
    Disconnect,
    /// It broke the protocol.
    Protocol,
}

impl Event {
    const ALL: [Event; 7] = [
        Event::Connect,
        Event::Publish,
        Event::Subscribe,
        Event::Unsubscribe,
        Event::Ping,
        Event::Disconnect,
        Event::Protocol,
    ];

    fn name(self) -> &'static str {
        match self {
            Event::Connect => "CONNECT",
            Event::Publish => "PUBLISH",
            Event::Subscribe => "SUBSCRIBE",
            Event::Unsubscribe => "UNSUBSCRIBE",
            Event::Ping => "PINGREQ",
            Event::Disconnect => "DISCONNECT",
            Event::Protocol => "PROTOCOL",
        }
    }
}

/// One row: an address and an event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventCount {
    /// The address; `others` for those beyond the bound.
    pub address: String,
    /// CONNECT, PUBLISH, ...
    pub event: &'static str,
    /// How often it went well.
    pub success: u64,
    /// When it went well last.
    pub last_success: Option<Timestamp>,
    /// How often it failed.
    pub errors: u64,
    /// When it failed last.
    pub last_error: Option<Timestamp>,
    /// The MQTT 5 reason code of the last failure.
    pub error_code: u8,
    /// What the last failure was.
    pub details: String,
}

/// The counts of one address.
#[derive(Debug, Default)]
pub(super) struct PeerStatistics {
    events: Mutex<[EventCount; 7]>,
}

impl PeerStatistics {
    fn with(&self, event: Event, change: impl FnOnce(&mut EventCount)) {
        change(&mut self.events.lock()[event as usize]);
    }

    pub(super) fn success(&self, event: Event, now: Timestamp) {
        self.with(event, |count| {
            count.success += 1;
            count.last_success = Some(now);
        });
    }

    pub(super) fn failure(&self, event: Event, now: Timestamp, code: u8, details: &str) {
        self.with(event, |count| {
            count.errors += 1;
            count.last_error = Some(now);
            count.error_code = code;
            details.clone_into(&mut count.details);
        });
    }

    /// Adds what a connection counted for itself.
    pub(super) fn add(&self, tally: &mut Tally, now: Timestamp) {
        if tally.0 == [0; 7] {
            return;
        }
        let counted = std::mem::take(&mut tally.0);
        let mut events = self.events.lock();
        for (count, counted) in events.iter_mut().zip(counted).filter(|(_, counted)| *counted > 0) {
            count.success += counted;
            count.last_success = Some(now);
        }
    }
}

/// What a connection counts without asking anybody, until it has worked on all that it read.
#[derive(Debug, Default)]
pub(super) struct Tally([u64; 7]);

impl Tally {
    pub(super) fn count(&mut self, packet: &Incoming) {
        let event = match packet {
            Incoming::Publish { .. } => Event::Publish,
            Incoming::Subscribe { .. } => Event::Subscribe,
            Incoming::Unsubscribe { .. } => Event::Unsubscribe,
            Incoming::PingReq => Event::Ping,
            Incoming::Disconnect { .. } => Event::Disconnect,
            _ => return,
        };
        self.0[event as usize] += 1;
    }
}

/// The counts of all addresses.
#[derive(Debug, Default)]
pub(super) struct Statistics {
    by_address: Mutex<BTreeMap<Option<IpAddr>, Arc<PeerStatistics>>>,
}

impl Statistics {
    pub(super) fn of(&self, address: IpAddr) -> Arc<PeerStatistics> {
        let mut by_address = self.by_address.lock();
        let full = by_address.len() >= MAX_ADDRESSES && !by_address.contains_key(&Some(address));
        Arc::clone(by_address.entry((!full).then_some(address)).or_default())
    }

    pub(super) fn rows(&self) -> Vec<EventCount> {
        let by_address = self.by_address.lock().clone();
        let mut rows = Vec::new();
        for (address, statistics) in by_address {
            let counts = statistics.events.lock().clone();
            for (event, count) in Event::ALL.into_iter().zip(counts) {
                if count.success + count.errors > 0 {
                    let address = address.map_or_else(|| "others".to_owned(), |address| address.to_string());
                    rows.push(EventCount { address, event: event.name(), ..count });
                }
            }
        }
        rows
    }
}
