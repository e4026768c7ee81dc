//! Who gets a message: the topics of message clients, the subscriptions of MQTT clients, the retained messages.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::client::Client;
use super::codec::SubscribeOptions;
use super::message::Message;
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

    /// The retained messages under a filter.
    pub(super) fn retained_for(&self, filter: &str) -> Vec<Arc<Message>> {
        let retained = self.retained.lock();
        if !crate::topic::has_wildcard(filter) {
            return retained.by_topic.get(filter).cloned().into_iter().collect();
        }
        retained.by_topic.values().filter(|message| matches(filter, &message.topic)).cloned().collect()
    }

    /// Passes a message to every MQTT client that subscribed to it, once each, and retains it when it says so. `from` is the
    /// client that published it.
    pub(super) fn route(&self, message: Message, from: &str) {
        let retain = message.retain;
        if !retain && self.clients.read().is_empty() {
            return;
        }
        let message = Arc::new(message);
        if retain {
            self.retain(&message);
        }
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
        for (client, qos, flag) in targets {
            client.deliver(&message, qos.min(message.qos), flag);
        }
    }

    /// Keeps the last retained message of a topic; one without payload removes it (MQTT-3.3.1-10).
    fn retain(&self, message: &Arc<Message>) {
        let mut retained = self.retained.lock();
        if let Some(old) = retained.by_topic.remove(&message.topic) {
            retained.bytes -= old.cost();
        }
        if message.payload.is_empty() {
            return;
        }
        if retained.bytes + message.cost() > MAX_RETAINED_BYTES {
            retained.refused += 1;
            tracing::warn!(topic = %message.topic, "Message not retained: the retained messages take all the room they may");
            return;
        }
        retained.bytes += message.cost();
        retained.by_topic.insert(message.topic.clone(), Arc::clone(message));
    }
}
