//! Who gets a message: the topics of message clients, the subscriptions of MQTT clients, the retained messages.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};

use super::book::state::State;
use super::book::{Book, Key, Record};
use super::client::Client;
use super::codec::SubscribeOptions;
use super::message::Message;
use super::routing::{Routing, Target};
use crate::subscription::{Subscription, Subscriptions};
use crate::topic::{TopicTree, matches};

/// Bytes of retained messages that are kept; what does not fit is passed on but not retained.
pub const MAX_RETAINED_BYTES: usize = 64 * 1024 * 1024;

/// Who gets which topic.
#[derive(Debug, Default)]
pub struct Router {
    mappings: Subscriptions,
    clients: RwLock<TopicTree<Route>>,
    retained: Mutex<RetainedMessages>,
}

#[derive(Debug)]
struct Route {
    client: Arc<Client>,
    options: SubscribeOptions,
}

#[derive(Debug, Default)]
struct RetainedMessages {
    by_topic: HashMap<String, Arc<Message>>,
    bytes: usize,
    refused: u64,
}

impl Router {
    /// A router that knows nobody.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Adds the topic of a message client; false when the topic is subscribed already.
    pub fn attach(&self, subscription: Arc<Subscription>) -> bool {
        self.mappings.add(subscription)
    }

    /// Removes the topic of a message client.
    pub fn detach(&self, subscription: &Arc<Subscription>) {
        self.mappings.remove(subscription);
    }

    /// The message clients' topics for a message: the one of its own name, else every filter that matches.
    #[must_use]
    pub fn mappings(&self, topic: &str) -> Vec<Arc<Subscription>> {
        self.mappings.of(topic)
    }

    /// Filters of MQTT clients.
    #[must_use]
    pub fn subscriptions(&self) -> usize {
        self.clients.read().len()
    }

    /// Retained messages and their bytes.
    #[must_use]
    pub fn retained(&self) -> (usize, usize) {
        let retained = self.retained.lock();
        (retained.by_topic.len(), retained.bytes)
    }

    /// Whether any MQTT client subscribed to anything.
    pub(super) fn has_clients(&self) -> bool {
        !self.clients.read().is_empty()
    }

    /// Whether a message client or an MQTT client subscribed to a topic.
    pub(super) fn has_takers(&self, topic: &str) -> bool {
        let mut found = !self.mappings(topic).is_empty();
        self.clients.read().visit(topic, |_, _| found = true);
        found
    }

    /// Adds or replaces a client's subscription.
    pub(super) fn subscribe(&self, client: &Arc<Client>, filter: &str, options: SubscribeOptions) {
        let mut clients = self.clients.write();
        clients.remove(filter, |route| Arc::ptr_eq(&route.client, client));
        clients.insert(filter, Route { client: Arc::clone(client), options });
    }

    /// Removes a client's subscription.
    pub(super) fn unsubscribe(&self, client: &Arc<Client>, filter: &str) {
        self.clients.write().remove(filter, |route| Arc::ptr_eq(&route.client, client));
    }

    /// The retained messages under a filter that are of use at this time.
    pub(super) fn retained_for(&self, filter: &str, now: Timestamp) -> Vec<Arc<Message>> {
        let retained = self.retained.lock();
        let fresh = |message: &&Arc<Message>| !message.is_expired(now);
        if !crate::topic::has_wildcard(filter) {
            return retained.by_topic.get(filter).filter(fresh).cloned().into_iter().collect();
        }
        let fits = |message: &&Arc<Message>| matches(filter, &message.topic);
        retained.by_topic.values().filter(fits).filter(fresh).cloned().collect()
    }

    /// Passes a message to every MQTT client that subscribed to it, once each, and retains it when it says so. `from` is the
    /// client that published it, `packet` the QoS 2 packet that it came in. What must be in the book before an acknowledgement -
    /// and before kept sessions get the message - is on its way there when this returns.
    pub(super) fn route(
        &self,
        message: Message,
        from: &str,
        book: Option<&Arc<Book>>,
        packet: Option<(&Key, u16)>,
    ) -> Option<Routing> {
        let retain = message.retain;
        if !retain && self.clients.read().is_empty() {
            return None;
        }
        let message = Arc::new(message);
        let retained = if retain { self.retain(&message) } else { None };
        let mut targets: Vec<(Arc<Client>, u8, bool)> = Vec::new();
        self.clients.read().visit(&message.topic, |route, _| {
            if route.options.no_local && route.client.id() == from {
                return;
            }
            let as_published = retain && route.options.retain_as_published;
            // Overlapping subscriptions give one message with the highest QoS (MQTT-3.3.5-1).
            match targets.iter_mut().find(|(client, ..)| Arc::ptr_eq(client, &route.client)) {
                Some((_, qos, flag)) => {
                    *qos = (*qos).max(route.options.qos);
                    *flag |= as_published;
                }
                None => targets.push((Arc::clone(&route.client), route.options.qos, as_published)),
            }
        });
        let mut kept = Vec::new();
        for (client, qos, retain) in targets {
            let qos = qos.min(message.qos);
            if book.is_none() || qos == 0 || !client.is_kept() {
                client.deliver(&message, qos, retain);
                continue;
            }
            let sequence = client.session.lock().reserve(&message);
            kept.extend(sequence.map(|sequence| Target { client, sequence, qos, retain }));
        }
        let book = book.filter(|_| !kept.is_empty() || retained.is_some())?;
        let packet = packet.map(|(key, id)| Record::Received(Arc::clone(key.text()), id));
        Some(Routing::begin(book, message, kept, retained, packet))
    }

    /// Takes over the retained messages of the run before.
    pub(super) fn restore(&self, state: &State) {
        let mut retained = self.retained.lock();
        for (topic, message) in &state.retained {
            if !retained.by_topic.contains_key(topic) {
                retained.bytes += message.cost();
                retained.by_topic.insert(topic.clone(), Arc::clone(message));
            }
        }
    }

    /// Keeps the last retained message of a topic; one without payload removes it (MQTT-3.3.1-10). Returns the change.
    fn retain(&self, message: &Arc<Message>) -> Option<Record> {
        let mut retained = self.retained.lock();
        let old = retained.by_topic.remove(&message.topic);
        retained.bytes -= old.as_ref().map_or(0, |old| old.cost());
        let removed = || old.as_ref().map(|_| Record::Removed(message.topic.clone()));
        if message.payload.is_empty() {
            return removed();
        }
        if retained.bytes + message.cost() > MAX_RETAINED_BYTES {
            if retained.refused.is_multiple_of(1000) {
                tracing::warn!(topic = %message.topic, "Messages are not retained: those that are take all the room they may");
            }
            retained.refused += 1;
            return removed();
        }
        retained.bytes += message.cost();
        retained.by_topic.insert(message.topic.clone(), Arc::clone(message));
        Some(Record::Retained)
    }
}
