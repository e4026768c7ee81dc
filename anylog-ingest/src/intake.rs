//! The one way from a message to stored rows, whichever road it came by.

mod run;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anylog_core::Node;
use anylog_core::names::normalize;
use bytes::Bytes;
use run::Run;
use tokio_util::sync::CancellationToken;

use crate::lines::Lines;
use crate::sink::{Delivery, SinkError, SinkSlot, Unmapped};
use crate::subscription::{Subscription, Treatment};

/// Bytes of messages that all connections together may hold while their rows are stored.
pub const BUDGET_BYTES: usize = 16 * 1024 * 1024;

/// First and longest pause before rows are offered to the store again.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// How often a message without acknowledgement is offered to a store that fails.
const VOLATILE_TRIES: u32 = 6;

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

/// A message as it came.
#[derive(Debug, Clone)]
pub(crate) struct Inbound<'m> {
    pub(crate) topic: &'m str,
    pub(crate) payload: &'m Bytes,
    /// The QoS 2 packet that it came in.
    pub(crate) delivery: Option<Delivery>,
}

/// Stores the messages of subscribed topics.
pub(crate) struct Intake {
    node: Arc<Node>,
    slot: Arc<SinkSlot>,
    lines: Lines,
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
            budget: Budget::default(),
            quarantined: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    /// Where the store is.
    pub(crate) fn slot(&self) -> &Arc<SinkSlot> {
        &self.slot
    }

    /// Messages that went to the quarantine.
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

    /// Treats a message as every one of `subscriptions` says, as [`Self::take_many`] does.
    pub(crate) async fn take(
        &self,
        subscriptions: &[Arc<Subscription>],
        topic: &str,
        payload: &Bytes,
        standing: Standing,
        gone: &CancellationToken,
    ) -> Taken {
        let message = Inbound { topic, payload, delivery: None };
        let taken = self.take_many(subscriptions, &[message], standing, gone).await;
        taken.first().copied().unwrap_or(Taken::Settled)
    }

    /// Treats messages that came together as every one of `subscriptions` says, and says of each what became of it. Their rows
    /// are stored together; when that fails for a reason that may be one message's alone, each is stored by itself. Errors of
    /// the store that may pass are waited for, as long as the sender is there: `gone` says that it is not.
    pub(crate) async fn take_many(
        &self,
        subscriptions: &[Arc<Subscription>],
        messages: &[Inbound<'_>],
        standing: Standing,
        gone: &CancellationToken,
    ) -> Vec<Taken> {
        let mut taken = vec![Taken::Settled; messages.len()];
        for (at, subscription) in subscriptions.iter().enumerate() {
            // A message that was given up will be sent again; nothing more is done with it now.
            let which: Vec<usize> = (0..messages.len()).filter(|at| taken[*at] != Taken::Abandoned).collect();
            if which.is_empty() {
                break;
            }
            let now = self.node.clock.now();
            subscription.arrived(now, which.len());
            let last = at + 1 == subscriptions.len();
            let run = Run { intake: self, subscription, messages, now, standing, gone, last };
            let results = match &subscription.treatment {
                Treatment::Map(mapper) => run.store(mapper, which).await,
                Treatment::LogOnly => run.log(which).await,
            };
            for (message, result) in results {
                if result != Taken::Settled {
                    taken[message] = result;
                }
            }
        }
        let dropped = taken.iter().filter(|taken| **taken == Taken::Dropped).count();
        self.dropped.fetch_add(dropped as u64, Ordering::Relaxed);
        taken
    }

    /// Waits before another try; or says what becomes of a message that is not tried again.
    async fn wait(
        &self,
        pause: &mut Pause,
        error: &SinkError,
        standing: Standing,
        gone: &CancellationToken,
    ) -> Option<Taken> {
        let without_store = *error == SinkError::NotRunning;
        if standing == Standing::Volatile && (without_store || pause.is_last()) {
            return Some(Taken::Dropped);
        }
        tokio::select! {
            () = gone.cancelled() => match standing {
                Standing::Acknowledged => return Some(Taken::Abandoned),
                Standing::Volatile => pause.wait().await,
            },
            _ = self.slot.mounted(), if without_store => {}
            () = pause.wait(), if !without_store => {}
        }
        None
    }

    /// Hands a message that gives no rows to the store's quarantine. Only then may it be acknowledged (R14).
    async fn set_aside(
        &self,
        unmapped: Unmapped,
        subscription: &Subscription,
        standing: Standing,
        gone: &CancellationToken,
    ) -> Taken {
        subscription.failed(self.node.clock.now(), 1, &unmapped.reason);
        let mut pause = Pause::new(standing);
        loop {
            match self.slot.set_aside(unmapped.clone()).await {
                Ok(_receipt) => {
                    self.quarantined.fetch_add(1, Ordering::Relaxed);
                    return Taken::Settled;
                }
                Err(error) => {
                    if pause.tries == 0 {
                        tracing::error!(topic = %subscription.filter, %error, "A message that gives no rows cannot be put aside; it stays unacknowledged");
                    }
                    if let Some(taken) = self.wait(&mut pause, &error, standing, gone).await {
                        return taken;
                    }
                }
            }
        }
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
            subscription.succeeded(1);
        }
        taken
    }

    async fn write(&self, path: PathBuf, line: String, standing: Standing, gone: &CancellationToken) -> Taken {
        let mut pause = Pause::new(standing);
        while let Err(error) = self.lines.append(path.clone(), line.clone()).await {
            tracing::error!(%error, "Cannot write a message to its log; it stays unacknowledged");
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
}

impl std::fmt::Debug for Intake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intake").field("slot", &self.slot).field("budget", &self.budget).finish_non_exhaustive()
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

impl Held<'_> {
    /// Takes more.
    pub(crate) fn grow(&mut self, bytes: usize) {
        self.budget.used.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
