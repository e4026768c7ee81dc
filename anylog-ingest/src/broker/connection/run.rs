//! Messages that came with one read: stored with one call, and acknowledged together.

use std::sync::Arc;

use futures_util::future::{join, join_all};
use tokio_util::sync::CancellationToken;

use crate::Delivery;
use crate::broker::Broker;
use crate::broker::message::Message;
use crate::broker::routing::Routing;
use crate::intake::{Held, Inbound, Standing, Taken};
use crate::subscription::Subscription;

/// Messages, and their bytes, that are stored with one call.
const MAX_RUN: (usize, usize) = (512, 256 * 1024);

/// Messages of one connection that are with the store. More of them are stored no faster, and as rows they take several times the
/// memory that they take as messages.
pub(super) const MAX_AT_STORE: usize = 512;

/// Messages of one topic client that came together and are stored together.
pub(super) struct Run<'b> {
    pub(super) mappings: Vec<Arc<Subscription>>,
    /// None for messages that nobody waits for; all of a run are alike.
    pub(super) tickets: Vec<Option<u64>>,
    pub(super) messages: Vec<Message>,
    /// For each message: the QoS 2 packet of a kept session, and whether it was sent before.
    pub(super) packets: Vec<Option<(Delivery, bool)>>,
    /// Which messages are on their way into the book.
    pub(super) routings: Vec<(usize, Routing)>,
    pub(super) bytes: usize,
    /// Their part of what all connections may hold.
    pub(super) held: Held<'b>,
}

impl<'b> Run<'b> {
    pub(super) fn new(broker: &'b Broker) -> Self {
        Self {
            mappings: Vec::new(),
            tickets: Vec::new(),
            messages: Vec::new(),
            packets: Vec::new(),
            routings: Vec::new(),
            bytes: 0,
            held: broker.intake.budget.hold(0),
        }
    }

    fn standing(&self) -> Standing {
        if self.tickets.iter().any(Option::is_some) { Standing::Acknowledged } else { Standing::Volatile }
    }

    /// Whether another message may go with these.
    pub(super) fn takes(&self, ticket: Option<u64>, message: &Message, mappings: &[Arc<Subscription>]) -> bool {
        let known = self.mappings.iter().map(Arc::as_ptr);
        self.messages.len() < MAX_RUN.0
            && self.bytes + message.cost() <= MAX_RUN.1
            && self.tickets.last().is_none_or(|last| last.is_some() == ticket.is_some())
            && known.eq(mappings.iter().map(Arc::as_ptr))
    }

    /// The mappings of a message, when they are known from the one before it.
    pub(super) fn mappings_of(&self, topic: &str) -> Option<&[Arc<Subscription>]> {
        let last = self.messages.last()?;
        (last.topic == topic).then_some(&self.mappings)
    }
}

/// Messages whose rows are stored.
pub(super) struct Stored {
    pub(super) tickets: Vec<Option<u64>>,
    pub(super) bytes: usize,
    /// What became of each.
    pub(super) taken: Vec<Taken>,
    /// Packet ids that are in the book, with all that the message waits for.
    pub(super) booked: Vec<u16>,
}

/// Stores messages that came together, and waits until those that wait for somebody are in the book.
pub(super) async fn store(broker: &Broker, mut run: Run<'_>, gone: CancellationToken) -> Stored {
    let routings = std::mem::take(&mut run.routings);
    let routed = join_all(routings.into_iter().map(|(at, routing)| {
        let gone = gone.clone();
        async move { (at, routing.settle(&gone).await) }
    }));
    let (mut taken, routed) = join(store_rows(broker, &run, &gone), routed).await;
    let mut booked = Vec::new();
    for (at, routed) in routed {
        if !routed {
            taken[at] = Taken::Abandoned;
        } else if let Some((delivery, _)) = &run.packets[at] {
            booked.push(delivery.packet);
        }
    }
    Stored { tickets: run.tickets, bytes: run.bytes, taken, booked }
}

async fn store_rows(broker: &Broker, run: &Run<'_>, gone: &CancellationToken) -> Vec<Taken> {
    let mut taken = vec![Taken::Settled; run.messages.len()];
    if run.mappings.is_empty() {
        return taken;
    }
    let Some(held) = held(broker, run, gone).await else { return vec![Taken::Abandoned; run.messages.len()] };
    let which: Vec<usize> = (0..run.messages.len()).filter(|at| !held.contains(at)).collect();
    let messages: Vec<Inbound<'_>> = which
        .iter()
        .map(|at| {
            let message = &run.messages[*at];
            let delivery = run.packets[*at].as_ref().map(|(delivery, _)| delivery.clone());
            Inbound { topic: &message.topic, payload: &message.payload, delivery }
        })
        .collect();
    let stored = broker.intake.take_many(&run.mappings, &messages, run.standing(), gone).await;
    which.into_iter().zip(stored).for_each(|(at, stored)| taken[at] = stored);
    taken
}

/// Messages whose rows the store has from before a restart: their packets come again. None when the connection has gone before
/// the store said so.
async fn held(broker: &Broker, run: &Run<'_>, gone: &CancellationToken) -> Option<Vec<usize>> {
    let again = run.packets.iter().enumerate().filter_map(|(at, packet)| match packet {
        Some((delivery, true)) => Some((at, delivery.clone())),
        _ => None,
    });
    let (places, again): (Vec<usize>, Vec<Delivery>) = again.unzip();
    if again.is_empty() {
        return Some(Vec::new());
    }
    let held = tokio::select! {
        held = broker.intake.slot().held(&again) => held,
        () = gone.cancelled() => return None,
    };
    Some(places.into_iter().zip(held).filter_map(|(at, held)| held.then_some(at)).collect())
}
