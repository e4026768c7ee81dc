//! What becomes of the messages of a topic, and how many there were.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};

use crate::mapping::Mapper;
use crate::topic::TopicTree;

/// Counts of messages, with the last failure.
#[derive(Debug, Default)]
pub struct Counters {
    messages: AtomicU64,
    success: AtomicU64,
    errors: AtomicU64,
    last: Mutex<Last>,
}

#[derive(Debug, Default, Clone)]
struct Last {
    message: Option<Timestamp>,
    error: Option<Timestamp>,
    text: String,
}

/// Counts at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    /// Messages that came.
    pub messages: u64,
    /// Messages whose rows are stored.
    pub success: u64,
    /// Messages that could not be mapped or stored.
    pub errors: u64,
    /// When the last one came.
    pub last_message: Option<Timestamp>,
    /// When the last one failed.
    pub last_error: Option<Timestamp>,
    /// Why.
    pub last_error_text: String,
}

impl Counters {
    pub(crate) fn arrived(&self, now: Timestamp, messages: u64) {
        self.messages.fetch_add(messages, Ordering::Relaxed);
        self.last.lock().message = Some(now);
    }

    pub(crate) fn succeeded(&self, messages: u64) {
        self.success.fetch_add(messages, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self, now: Timestamp, messages: u64, text: &str) {
        self.errors.fetch_add(messages, Ordering::Relaxed);
        let mut last = self.last.lock();
        last.error = Some(now);
        text.clone_into(&mut last.text);
    }

    /// The counts now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let last = self.last.lock().clone();
        Counts {
            messages: self.messages.load(Ordering::Relaxed),
            success: self.success.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            last_message: last.message,
            last_error: last.error,
            last_error_text: last.text,
        }
    }
}

/// What is done with the messages of a topic.
#[derive(Debug, Clone)]
pub enum Treatment {
    /// They are mapped to rows and stored.
    Map(Mapper),
    /// They are appended as they are to a file in the `prep_dir`.
    LogOnly,
}

/// A subscribed topic of a message client.
#[derive(Debug)]
pub struct Subscription {
    /// The topic or filter.
    pub filter: String,
    /// The QoS that is asked of the broker.
    pub qos: u8,
    /// What is done with its messages.
    pub treatment: Treatment,
    /// Whether tables are made of whatever comes.
    pub dynamic: bool,
    /// The broker as the client named it: `local`, `rest`, `host:port`.
    pub broker: String,
    /// Broker and filter again, as the messages of the topic share them.
    pub(crate) shared: (Arc<str>, Arc<str>),
    /// Counts of this topic.
    pub counters: Counters,
    /// Counts of the client that the topic belongs to.
    pub client: Arc<Counters>,
}

impl Subscription {
    /// Messages came.
    pub(crate) fn arrived(&self, now: Timestamp, messages: usize) {
        self.counters.arrived(now, messages as u64);
        self.client.arrived(now, messages as u64);
    }

    /// Messages are stored.
    pub(crate) fn succeeded(&self, messages: usize) {
        self.counters.succeeded(messages as u64);
        self.client.succeeded(messages as u64);
    }

    /// Messages failed, for one reason.
    pub(crate) fn failed(&self, now: Timestamp, messages: usize, text: &str) {
        self.counters.failed(now, messages as u64, text);
        self.client.failed(now, messages as u64, text);
    }
}

/// The subscribed topics of one broker.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    tree: RwLock<TopicTree<Arc<Subscription>>>,
}

impl Subscriptions {
    /// Adds a topic; false when it is subscribed already.
    pub(crate) fn add(&self, subscription: Arc<Subscription>) -> bool {
        let mut tree = self.tree.write();
        let mut taken = false;
        tree.visit_filter(&subscription.filter, |_| taken = true);
        if !taken {
            let filter = subscription.filter.clone();
            tree.insert(&filter, subscription);
        }
        !taken
    }

    /// True without topics.
    pub(crate) fn is_empty(&self) -> bool {
        self.tree.read().is_empty()
    }

    /// Removes a topic.
    pub(crate) fn remove(&self, subscription: &Arc<Subscription>) {
        self.tree.write().remove(&subscription.filter, |known| Arc::ptr_eq(known, subscription));
    }

    /// The subscriptions of a topic: the one of its own name, else every filter that matches.
    pub(crate) fn of(&self, topic: &str) -> Vec<Arc<Subscription>> {
        let tree = self.tree.read();
        let mut found = Vec::new();
        let mut exact = false;
        tree.visit(topic, |subscription, is_exact| {
            if is_exact && !exact {
                exact = true;
                found.clear();
            }
            if is_exact == exact {
                found.push(Arc::clone(subscription));
            }
        });
        found
    }
}
