//! The QoS 2 packets that were stored and not released: what makes exactly once outlive the process.
//!
//! A packet id is in the journal in the same frame as the rows of its message, so both are there after a crash or neither.
//! It leaves by a *released* or *forgotten* entry behind it. Journal files go oldest first, so such an entry lives at least as
//! long as the ids that it concerns; an id that is not released when its file goes is written again into the current file first.
//!
//! A packet whose rows were promised to be on several members says so: when it comes again, it is acknowledged once they are there.
//!
//! The order of entries in the journal is the order of the changes here: both happen under one lock.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anylog_ingest::Delivery;
use parking_lot::Mutex;

use crate::journal::record::{Entries, Promised};
use crate::journal::{Journal, JournalError, Position, Written};

/// The files of one message of which other members are to have rows; none when there is none.
pub(crate) type Promises = Option<Arc<[Promised]>>;

/// Where a packet is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    /// The number of the journal file.
    file: u32,
    promises: Promises,
}

/// Packet ids by client.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Held(HashMap<Arc<str>, BTreeMap<u16, Known>>);

impl Held {
    /// A packet is in a file. What is promised of its rows stays so when it is written again.
    pub(crate) fn add(&mut self, client: &Arc<str>, packet: u16, file: u32, promises: &Promises) {
        if !self.0.contains_key(client) {
            self.0.insert(Arc::clone(client), BTreeMap::new());
        }
        let Some(packets) = self.0.get_mut(client) else { return };
        let known = packets.entry(packet).or_insert(Known { file, promises: None });
        known.file = file;
        if promises.is_some() {
            known.promises.clone_from(promises);
        }
    }

    /// A packet was released; returns the file that it was in.
    pub(crate) fn remove(&mut self, client: &str, packet: u16) -> Option<u32> {
        let packets = self.0.get_mut(client)?;
        let known = packets.remove(&packet);
        if packets.is_empty() {
            self.0.remove(client);
        }
        known.map(|known| known.file)
    }

    /// A session ended; returns its packets, each with the file that it was in.
    pub(crate) fn forget(&mut self, client: &str) -> Option<Vec<(Delivery, u32)>> {
        let (client, packets) = self.0.remove_entry(client)?;
        let delivery = |packet| Delivery { client: Arc::clone(&client), packet };
        Some(packets.into_iter().map(|(packet, known)| (delivery(packet), known.file)).collect())
    }

    /// What is promised of the rows of a packet.
    fn promises(&self, delivery: &Delivery) -> Promises {
        self.0.get(&delivery.client)?.get(&delivery.packet)?.promises.clone()
    }

    /// Whether a packet is held.
    #[must_use]
    pub fn contains(&self, client: &str, packet: u16) -> bool {
        self.0.get(client).is_some_and(|packets| packets.contains_key(&packet))
    }

    /// All packets, by client and id.
    #[must_use]
    pub fn all(&self) -> Vec<Delivery> {
        let mut all: Vec<Delivery> = self.0.iter().flat_map(|(client, packets)| of(client, packets.keys())).collect();
        all.sort();
        all
    }

    /// The packets in files up to this one, with what was promised of their rows.
    fn up_to(&self, file: u32) -> Vec<(Delivery, Promises)> {
        let mut old = Vec::new();
        for (client, packets) in &self.0 {
            let packets = packets.iter().filter(|(_, known)| known.file <= file);
            old.extend(packets.map(|(packet, known)| {
                (Delivery { client: Arc::clone(client), packet: *packet }, known.promises.clone())
            }));
        }
        old
    }
}

fn of<'p>(client: &Arc<str>, packets: impl Iterator<Item = &'p u16>) -> impl Iterator<Item = Delivery> {
    packets.map(|packet| Delivery { client: Arc::clone(client), packet: *packet })
}

/// The packets of a running store.
#[derive(Debug, Default)]
pub(crate) struct Deliveries {
    /// Held from a change to the hand-over of its entry. Not `held`: a journal that is closed answers at once.
    order: Mutex<()>,
    held: Mutex<Held>,
    /// Releases that are not on stable storage yet.
    leaving: AtomicUsize,
}

impl Deliveries {
    /// Takes over what the run before held.
    pub(crate) fn adopt(&self, held: Held) {
        *self.held.lock() = held;
    }

    pub(crate) fn contains(&self, delivery: &Delivery) -> bool {
        self.held.lock().contains(&delivery.client, delivery.packet)
    }

    pub(crate) fn all(&self) -> Vec<Delivery> {
        self.held.lock().all()
    }

    /// What is promised of the rows of these packets, each file once.
    pub(crate) fn promises(&self, deliveries: &[Delivery]) -> Vec<Promised> {
        let held = self.held.lock();
        let mut all: Vec<Promised> = Vec::new();
        for promised in deliveries.iter().filter_map(|delivery| held.promises(delivery)).flat_map(|all| all.to_vec()) {
            match all.iter_mut().find(|known| known.file == promised.file) {
                Some(known) => known.ordinal = known.ordinal.max(promised.ordinal),
                None => all.push(promised),
            }
        }
        all
    }

    /// The frame with these packets is written.
    pub(crate) fn written(&self, deliveries: &[Delivery], position: Position, promises: &Promises) {
        if deliveries.is_empty() {
            return;
        }
        let mut held = self.held.lock();
        for delivery in deliveries {
            held.add(&delivery.client, delivery.packet, position.file(), promises);
        }
    }

    /// Writes packets whose messages gave no rows. Returns when they are on stable storage.
    pub(crate) async fn note(
        self: &Arc<Self>,
        journal: &Journal,
        deliveries: Vec<Delivery>,
    ) -> Result<(), JournalError> {
        let mut entries = Entries::default();
        entries.delivered(&deliveries);
        let me = Arc::clone(self);
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let done = move |result: Result<Written, JournalError>| {
            if let Ok(written) = &result {
                me.written(&deliveries, written.position, &None);
            }
            // A waiter that went away does not mind.
            drop(sender.send(result.map(|_| ())));
        };
        journal.submit(entries, Box::new(done));
        receiver.await.unwrap_or(Err(JournalError::Closed))
    }

    /// Releases packets. Returns when that is on stable storage; after an error they are held as before.
    pub(crate) async fn release(
        self: &Arc<Self>,
        journal: &Journal,
        deliveries: Vec<Delivery>,
    ) -> Result<(), JournalError> {
        let written = {
            let _in_order = self.order.lock();
            let mut held = self.held.lock();
            let file = |held: &mut Held, delivery: &Delivery| held.remove(&delivery.client, delivery.packet);
            let known: Vec<(Delivery, u32)> =
                deliveries.into_iter().filter_map(|one| file(&mut held, &one).map(|file| (one, file))).collect();
            drop(held);
            // Who releases a packet twice must not overtake the first release.
            if known.is_empty() && self.leaving.load(Ordering::SeqCst) == 0 {
                return Ok(());
            }
            let mut entries = Entries::default();
            let released: Vec<Delivery> = known.iter().map(|(delivery, _)| delivery.clone()).collect();
            entries.released(&released);
            self.leave(journal, entries, known)
        };
        written.await.unwrap_or(Err(JournalError::Closed))
    }

    /// Releases all packets of a client. Returns when that is on stable storage; after an error they are held as before.
    pub(crate) async fn forget(self: &Arc<Self>, journal: &Journal, client: &str) -> Result<(), JournalError> {
        let written = {
            let _in_order = self.order.lock();
            let Some(known) = self.held.lock().forget(client) else { return Ok(()) };
            let mut entries = Entries::default();
            entries.forgotten(client);
            self.leave(journal, entries, known)
        };
        written.await.unwrap_or(Err(JournalError::Closed))
    }

    /// Hands a release to the journal. When it cannot be written the packets come back, also if nobody waits any more.
    fn leave(
        self: &Arc<Self>,
        journal: &Journal,
        entries: Entries,
        known: Vec<(Delivery, u32)>,
    ) -> tokio::sync::oneshot::Receiver<Result<(), JournalError>> {
        self.leaving.fetch_add(1, Ordering::SeqCst);
        let me = Arc::clone(self);
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let done = move |result: Result<Written, JournalError>| {
            if result.is_err() {
                let mut held = me.held.lock();
                for (delivery, file) in &known {
                    held.add(&delivery.client, delivery.packet, *file, &None);
                }
            }
            me.leaving.fetch_sub(1, Ordering::SeqCst);
            // A waiter that went away does not mind.
            drop(sender.send(result.map(|_| ())));
        };
        journal.submit(entries, Box::new(done));
        receiver
    }

    /// Writes the packets of files up to this one again, because those files go. Blocks until it is on stable storage.
    pub(crate) fn carry(&self, journal: &Journal, file: u32) -> Result<(), JournalError> {
        let (written, old) = {
            let _in_order = self.order.lock();
            let old = self.held.lock().up_to(file);
            if old.is_empty() {
                return Ok(());
            }
            let mut entries = Entries::default();
            // Each run becomes one entry: what is promised concerns the next one only.
            for run in old.chunk_by(|a, b| a.0.client == b.0.client && a.1 == b.1) {
                run[0].1.iter().flat_map(|promises| promises.iter()).for_each(|promised| entries.promised(promised));
                entries.delivered(&run.iter().map(|(delivery, _)| delivery.clone()).collect::<Vec<_>>());
            }
            (submit(journal, entries), old)
        };
        let written = written.blocking_recv().unwrap_or(Err(JournalError::Closed))?;
        let mut held = self.held.lock();
        for (Delivery { client, packet }, promises) in old {
            if held.contains(&client, packet) {
                held.add(&client, packet, written.position.file(), &promises);
            }
        }
        Ok(())
    }
}

fn submit(journal: &Journal, entries: Entries) -> tokio::sync::oneshot::Receiver<Result<Written, JournalError>> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    // A waiter that went away does not mind.
    journal.submit(entries, Box::new(move |result| drop(sender.send(result))));
    receiver
}
