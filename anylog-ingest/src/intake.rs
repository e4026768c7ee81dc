//! The one way from a message to stored rows, whichever road it came by.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anylog_core::Node;
use anylog_core::names::normalize;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::lines::Lines;
use crate::mapping::{Mapper, MappingError};
use crate::sink::{RowGroup, SinkError, SinkSlot};
use crate::subscription::{Subscription, Treatment};

/// Bytes of messages that all connections together may hold while their rows are stored.
pub const BUDGET_BYTES: usize = 64 * 1024 * 1024;

/// First and longest pause before rows are offered to the store again.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// How often a message without acknowledgement is offered to a store that fails.
const VOLATILE_TRIES: u32 = 6;

/// Names of error files in one run; a device that invents topics does not fill the directory.
const ERROR_FILES: usize = 256;

/// How far the sender stands by its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It waits for an acknowledgement, and sends the message again when none comes.
    Acknowledged,
    /// It sent the message and forgot it.
    Volatile,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Stored, or in the quarantine.
    Settled,
    /// Given up because the sender has gone and will send it again.
    Abandoned,
    /// Lost: it came without acknowledgement and could not be stored.
    Dropped,
}

/// Stores the messages of subscribed topics.
pub(crate) struct Intake {
    node: Arc<Node>,
    slot: Arc<SinkSlot>,
    lines: Lines,
    error_files: Mutex<HashSet<String>>,
    pub(crate) budget: Budget,
    quarantined: AtomicU64,
    dropped: AtomicU64,
}

impl Intake {
    pub(crate) fn new(node: Arc<Node>, slot: Arc<SinkSlot>) -> Self {
        Self {
            node,
            slot,
            lines: Lines::default(),
            error_files: Mutex::default(),
            budget: Budget::default(),
            quarantined: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    /// Messages that went to the error directory.
    pub(crate) fn quarantined(&self) -> u64 {
        self.quarantined.load(Ordering::Relaxed)
    }

    /// Messages without acknowledgement that were lost.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Counts a message without acknowledgement that was lost before it got here.
    pub(crate) fn count_dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Treats a message as every one of `subscriptions` says. Errors of the store that may pass are waited for, as long as
    /// the sender is there: `gone` says that it is not.
    pub(crate) async fn take(
        &self,
        subscriptions: &[Arc<Subscription>],
        topic: &str,
        payload: &[u8],
        standing: Standing,
        gone: &CancellationToken,
    ) -> Taken {
        let mut taken = Taken::Settled;
        for subscription in subscriptions {
            let now = self.node.clock.now();
            subscription.arrived(now);
            let one = match &subscription.treatment {
                Treatment::Map(mapper) => {
                    let message = Mapped { subscription, mapper, topic, payload, now };
                    self.store(&message, standing, gone).await
                }
                Treatment::LogOnly => self.log(subscription, topic, payload, standing, gone).await,
            };
            if one != Taken::Settled {
                taken = one;
            }
            if taken == Taken::Abandoned {
                break;
            }
        }
        if taken == Taken::Dropped {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    async fn store(&self, message: &Mapped<'_>, standing: Standing, gone: &CancellationToken) -> Taken {
        let Mapped { subscription, topic, payload, .. } = *message;
        let mut pause = Pause::new(standing);
        loop {
            // A store that fails keeps the rows, and mapping is pure: another try makes the same rows again, so that the many
            // messages that succeed at once need no copy.
            let rows = match message.rows() {
                Ok(rows) => rows,
                Err(error) => {
                    return self.set_aside(subscription, topic, payload, &error.to_string(), standing, gone).await;
                }
            };
            if rows.parts.iter().all(|part| part.rows.is_empty()) {
                subscription.succeeded();
                return Taken::Settled;
            }
            let error = match self.slot.append(rows).await {
                Ok(receipt) => {
                    match receipt.refused().first() {
                        None => subscription.succeeded(),
                        // The row is in the store's quarantine with its reason, so the message is settled all the same.
                        Some(refused) => subscription.failed(self.node.clock.now(), &refused.reason),
                    }
                    return Taken::Settled;
                }
                Err(error) => error,
            };
            subscription.failed_once(&pause, self.node.clock.now(), &error);
            if !error.may_retry() {
                return self.set_aside(subscription, topic, payload, &error.to_string(), standing, gone).await;
            }
            let without_store = error == SinkError::NotRunning;
            if standing == Standing::Volatile && (without_store || pause.is_last()) {
                return Taken::Dropped;
            }
            tokio::select! {
                () = gone.cancelled() => match standing {
                    Standing::Acknowledged => return Taken::Abandoned,
                    Standing::Volatile => pause.wait().await,
                },
                _ = self.slot.mounted(), if without_store => {}
                () = pause.wait(), if !without_store => {}
            }
        }
    }

    /// Writes a message that cannot become rows to the error directory, with the reason. Only then may it be acknowledged (R14).
    async fn set_aside(
        &self,
        subscription: &Subscription,
        topic: &str,
        payload: &[u8],
        reason: &str,
        standing: Standing,
        gone: &CancellationToken,
    ) -> Taken {
        let now = self.node.clock.now();
        subscription.failed(now, reason);
        let directory = self.node.directories.directory(&self.node.dictionary, "err_dir");
        let path = directory.join(self.error_file(&subscription.broker, topic));
        let line =
            line(&[("time", &anylog_core::time::policy_date(now)), ("reason", reason), ("topic", topic)], payload);
        let taken = self.write(path, line, standing, gone).await;
        if taken == Taken::Settled {
            self.quarantined.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    async fn log(
        &self,
        subscription: &Subscription,
        topic: &str,
        payload: &[u8],
        standing: Standing,
        gone: &CancellationToken,
    ) -> Taken {
        let directory = self.node.directories.directory(&self.node.dictionary, "prep_dir");
        let path = directory.join(format!("msg_{}.json", normalize(&subscription.broker)));
        let taken = self.write(path, line(&[("topic", topic)], payload), standing, gone).await;
        if taken == Taken::Settled {
            subscription.succeeded();
        }
        taken
    }

    async fn write(&self, path: PathBuf, line: String, standing: Standing, gone: &CancellationToken) -> Taken {
        let mut pause = Pause::new(standing);
        while let Err(error) = self.lines.append(path.clone(), line.clone()).await {
            tracing::error!(%error, "Cannot write a message to the error directory; it stays unacknowledged");
            if pause.is_last() {
                return Taken::Dropped;
            }
            tokio::select! {
                () = gone.cancelled(), if standing == Standing::Acknowledged => return Taken::Abandoned,
                () = pause.wait() => {}
            }
        }
        Taken::Settled
    }

    /// The name of the file for failed messages of a topic: `err_<broker>.<topic>.jsonl`.
    fn error_file(&self, broker: &str, topic: &str) -> String {
        let topic: String = normalize(topic).chars().filter(char::is_ascii).take(80).collect();
        let name = format!("err_{}.{topic}.jsonl", normalize(broker));
        let mut known = self.error_files.lock();
        if known.contains(&name) || (known.len() < ERROR_FILES && known.insert(name.clone())) {
            return name;
        }
        format!("err_{}.other_topics.jsonl", normalize(broker))
    }
}

impl std::fmt::Debug for Intake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intake").field("slot", &self.slot).field("budget", &self.budget).finish_non_exhaustive()
    }
}

/// A message on its way to rows.
struct Mapped<'m> {
    subscription: &'m Subscription,
    mapper: &'m Mapper,
    topic: &'m str,
    payload: &'m [u8],
    now: Timestamp,
}

impl Mapped<'_> {
    fn rows(&self) -> Result<RowGroup, MappingError> {
        let mut group = self.mapper.map(self.topic, self.payload, self.now)?;
        group.origin = format!("mqtt topic {}", self.topic);
        group.patient = true;
        Ok(group)
    }
}

impl Subscription {
    /// Counts the first failure of a message; its further tries are the same failure.
    fn failed_once(&self, pause: &Pause, now: Timestamp, error: &SinkError) {
        if pause.tries == 0 && error.may_retry() {
            tracing::warn!(topic = %self.filter, %error, "Rows are not stored yet; their message stays unacknowledged");
            self.failed(now, &error.to_string());
        }
    }
}

/// A JSON object on one line: these attributes, then the message.
fn line(attributes: &[(&str, &str)], payload: &[u8]) -> String {
    let mut line = String::with_capacity(payload.len() + 128);
    for (name, value) in attributes {
        line.push(if line.is_empty() { '{' } else { ',' });
        crate::json::push_quoted(&mut line, name);
        line.push(':');
        crate::json::push_quoted(&mut line, value);
    }
    match std::str::from_utf8(payload) {
        Ok(text) => {
            line.push_str(",\"msg\":");
            crate::json::push_quoted(&mut line, text);
        }
        Err(_) => {
            line.push_str(",\"msg_hex\":\"");
            for byte in payload {
                line.push_str(&format!("{byte:02x}"));
            }
            line.push('"');
        }
    }
    line.push('}');
    line
}

/// Growing pauses between tries.
struct Pause {
    tries: u32,
    next: Duration,
    last: u32,
}

impl Pause {
    fn new(standing: Standing) -> Self {
        let last = if standing == Standing::Volatile { VOLATILE_TRIES } else { u32::MAX };
        Self { tries: 0, next: BACK_OFF.0, last }
    }

    fn is_last(&self) -> bool {
        self.tries >= self.last
    }

    async fn wait(&mut self) {
        self.tries = self.tries.saturating_add(1);
        let pause = self.next;
        self.next = (pause * 2).min(BACK_OFF.1);
        tokio::time::sleep(pause).await;
    }
}

/// The bytes of messages that all connections hold. A connection that finds it used up reads no further until some are free.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    used: AtomicUsize,
}

impl Budget {
    /// Bytes in use.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether there is room.
    pub(crate) fn has_room(&self) -> bool {
        self.used() < BUDGET_BYTES
    }

    /// Takes bytes; they are free again when the guard is dropped.
    pub(crate) fn hold(&self, bytes: usize) -> Held<'_> {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        Held { budget: self, bytes }
    }
}

/// Bytes in use.
#[derive(Debug)]
pub(crate) struct Held<'b> {
    budget: &'b Budget,
    bytes: usize,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
