//! Messages that came together, on their way to stored rows.
//!
//! What one read from a socket brings is mapped as a whole, stored with one call and acknowledged with one write. Each row knows
//! its message, so that a refused row is counted with the message that it came in.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{join, join_all};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::{Inbound, Intake, Pause, Standing, Taken};
use crate::Receipt;
use crate::mapping::{Failure, Mapper, Parts};
use crate::sink::{Message, MessageRows, RowGroup, SinkError, Unmapped};
use crate::subscription::Subscription;

/// What became of messages, by their place in the run.
type Results = Vec<(usize, Taken)>;

/// Messages for one subscription.
#[derive(Clone, Copy)]
pub(super) struct Run<'r> {
    pub(super) intake: &'r Intake,
    pub(super) subscription: &'r Subscription,
    pub(super) messages: &'r [Inbound<'r>],
    pub(super) now: Timestamp,
    pub(super) standing: Standing,
    pub(super) gone: &'r CancellationToken,
    /// No other subscription gets these messages after this one: what it stores settles their QoS 2 packets.
    pub(super) last: bool,
}

/// Rows of some messages of a run.
struct Mapped<'r> {
    group: RowGroup,
    /// For each part of the group: the messages with rows in it, and the part's rows up to the end of theirs.
    owners: Vec<Vec<(usize, usize)>>,
    /// The messages.
    which: Vec<usize>,
    /// What of them gives no rows.
    failures: Vec<(usize, Failure<'r>)>,
    /// Messages without failure.
    good: usize,
}

impl Mapped<'_> {
    /// The message that a row came in.
    fn message_of(&self, part: usize, row: usize) -> Option<usize> {
        let owners = self.owners.get(part)?;
        owners.get(owners.partition_point(|(_, end)| *end <= row)).map(|(message, _)| *message)
    }
}

impl<'r> Run<'r> {
    /// Stores these messages of the run.
    pub(super) async fn store(&self, mapper: &Mapper, which: Vec<usize>) -> Results {
        let mut mapped = self.map(mapper, which);
        if mapped.failures.is_empty() {
            return self.append(mapper, mapped).await;
        }
        // What gives no rows goes elsewhere, and must not hold up the rest. Its message is settled when both are.
        let failures = std::mem::take(&mut mapped.failures);
        let aside = failures.chunk_by(|a, b| a.0 == b.0).map(|of_one| async move {
            let aside = of_one.iter().map(|(at, failure)| self.set_aside(self.unmapped(*at, failure)));
            let worst = join_all(aside).await.into_iter().find(|taken| *taken != Taken::Settled);
            (of_one[0].0, worst.unwrap_or(Taken::Settled))
        });
        let (mut results, aside) = join(self.append(mapper, mapped), join_all(aside)).await;
        for (at, taken) in aside {
            let stored = results.iter_mut().find(|(known, _)| *known == at);
            match stored {
                Some((_, result)) if *result == Taken::Settled => *result = self.note(at, taken).await,
                _ => {}
            }
        }
        results
    }

    /// Writes messages to a file as they are.
    pub(super) async fn log(&self, which: Vec<usize>) -> Results {
        let logs = which.into_iter().map(|at| async move {
            let message = &self.messages[at];
            let logged = self.intake.log(self.subscription, message.topic, message.payload, self.standing, self.gone);
            (at, self.note(at, logged.await).await)
        });
        join_all(logs).await
    }

    fn map(&self, mapper: &Mapper, which: Vec<usize>) -> Mapped<'r> {
        let mut parts = Parts::at(self.now);
        let mut owners: Vec<Vec<(usize, usize)>> = Vec::new();
        let mut starts: Vec<Vec<usize>> = Vec::new();
        let mut failures: Vec<(usize, Failure<'r>)> = Vec::new();
        let (mut good, mut deliveries) = (0, Vec::new());
        let mut messages: Vec<MessageRows> = Vec::with_capacity(which.len());
        let mut topic: Option<(&str, Arc<str>)> = None;
        for &at in &which {
            let Inbound { topic: name, payload, .. } = &self.messages[at];
            let topic = match &topic {
                Some((known, topic)) if known == name => Arc::clone(topic),
                _ => Arc::clone(&topic.insert((name, Arc::from(*name))).1),
            };
            let message = Arc::new(self.message(Arc::clone(&topic), Bytes::clone(payload)));
            let failed = mapper.map_each_into(name, payload, &mut parts, |_, element, added| {
                let (part, first, count) = (added.part, added.first, added.count);
                if owners.len() <= part {
                    owners.resize_with(part + 1, Vec::new);
                    starts.resize_with(part + 1, Vec::new);
                }
                if owners[part].last().is_none_or(|(last, _)| *last != at) {
                    starts[part].push(first);
                }
                owners[part].push((at, first + count));
                // An element that stands alone is mapped again alone.
                let message = match element.len() == payload.len() {
                    true => Arc::clone(&message),
                    false => Arc::new(self.message(Arc::clone(&topic), payload.slice_ref(element))),
                };
                messages.push(MessageRows { part, first, count, message });
            });
            if failed.is_empty() {
                good += 1;
                deliveries.extend(self.messages[at].delivery.clone().filter(|_| self.last));
            }
            failures.extend(failed.into_iter().map(|failure| (at, failure)));
        }
        let origin = topic.map_or_else(String::new, |(topic, _)| origin(topic));
        let mut parts = parts.into_tables();
        for (part, starts) in parts.iter_mut().zip(starts) {
            part.starts = starts;
        }
        let group = RowGroup { parts, origin, patient: true, deliveries, messages, ..RowGroup::default() };
        Mapped { group, owners, which, failures, good }
    }

    /// Hands rows to the store until it takes them. What could not be mapped is somebody else's affair.
    fn append<'a>(
        &'a self,
        mapper: &'a Mapper,
        mut mapped: Mapped<'r>,
    ) -> Pin<Box<dyn Future<Output = Results> + Send + 'a>>
    where
        'r: 'a,
    {
        Box::pin(async move {
            let mut pause = Pause::new(self.standing);
            loop {
                let group = std::mem::take(&mut mapped.group);
                if group.deliveries.is_empty() && group.parts.iter().all(|part| part.rows.is_empty()) {
                    self.subscription.succeeded(mapped.good);
                    return all(&mapped.which, Taken::Settled);
                }
                let several_databases = group.parts.windows(2).any(|parts| parts[0].dbms != parts[1].dbms);
                let error = match self.intake.slot.append(group).await {
                    Ok(receipt) => {
                        self.count(&mapped, &receipt);
                        return all(&mapped.which, Taken::Settled);
                    }
                    Err(error) => error,
                };
                if mapped.which.len() > 1 && (!error.may_retry() || several_databases) {
                    // The reason may be one message's alone, or one database's.
                    return self.one_by_one(mapper, &mapped.which).await;
                }
                if let Some(results) = self.after(&error, &mut pause, &mapped.which).await {
                    return results;
                }
                // The store keeps the rows of a failed call, and mapping is pure: another try makes the same rows again, so that
                // the many messages that succeed at once need no copy.
                mapped = self.map(mapper, mapped.which);
            }
        })
    }

    /// What to do after a failed call: a result for all messages, or none when it is tried again.
    async fn after(&self, error: &SinkError, pause: &mut Pause, which: &[usize]) -> Option<Results> {
        if !error.may_retry() {
            let aside = which.iter().map(|at| async { (*at, self.set_aside(self.refused(*at, error)).await) });
            return Some(join_all(aside).await);
        }
        if pause.tries == 0 {
            // Further tries are the same failure.
            let topic = &self.subscription.filter;
            tracing::warn!(%topic, %error, "Rows are not stored yet; their messages stay unacknowledged");
            self.subscription.failed(self.intake.node.clock.now(), which.len(), &error.to_string());
        }
        self.intake.wait(pause, error, self.standing, self.gone).await.map(|taken| all(which, taken))
    }

    /// Stores each message by itself: one that fails must not cost the others.
    async fn one_by_one(&self, mapper: &Mapper, which: &[usize]) -> Results {
        let alone = which.iter().map(|at| self.append(mapper, self.map(mapper, vec![*at])));
        join_all(alone).await.into_iter().flatten().collect()
    }

    /// Counts messages whose rows are stored, or lie in the store's quarantine with their reasons.
    fn count(&self, mapped: &Mapped<'_>, receipt: &Receipt) {
        let mut refused: Vec<(usize, &str)> = receipt
            .refused()
            .iter()
            .filter_map(|row| Some((mapped.message_of(row.part, row.row)?, row.reason.as_str())))
            .collect();
        refused.sort_by_key(|(message, _)| *message);
        refused.dedup_by_key(|(message, _)| *message);
        self.subscription.succeeded(mapped.good.saturating_sub(refused.len()));
        for (_, reason) in refused {
            self.subscription.failed(self.intake.node.clock.now(), 1, reason);
        }
    }

    async fn set_aside(&self, unmapped: Unmapped) -> Taken {
        self.intake.set_aside(unmapped, self.subscription, self.standing, self.gone).await
    }

    fn message(&self, topic: Arc<str>, payload: Bytes) -> Message {
        let (broker, filter) = &self.subscription.shared;
        Message { broker: Arc::clone(broker), filter: Arc::clone(filter), topic, payload }
    }

    fn unmapped(&self, at: usize, failure: &Failure<'_>) -> Unmapped {
        let Inbound { topic, payload, .. } = &self.messages[at];
        Unmapped {
            message: Arc::new(self.message(Arc::from(*topic), payload.slice_ref(failure.payload))),
            origin: origin(topic),
            position: failure.position,
            kind: failure.error.kind(),
            column: failure.error.column().to_owned(),
            reason: failure.error.to_string(),
        }
    }

    /// A message whose rows the store does not take, now or later.
    fn refused(&self, at: usize, error: &SinkError) -> Unmapped {
        let Inbound { topic, payload, .. } = &self.messages[at];
        Unmapped {
            message: Arc::new(self.message(Arc::from(*topic), Bytes::clone(payload))),
            origin: origin(topic),
            position: 0,
            kind: "table",
            column: String::new(),
            reason: error.to_string(),
        }
    }

    /// Tells the store of a QoS 2 packet whose message is kept elsewhere.
    async fn note(&self, at: usize, taken: Taken) -> Taken {
        let delivery = self.messages[at].delivery.clone().filter(|_| self.last && taken == Taken::Settled);
        if let Some(delivery) = delivery {
            let group = RowGroup { deliveries: vec![delivery], ..RowGroup::default() };
            if let Err(error) = self.intake.slot.append(group).await {
                // The message is safe; sent again after a crash, it would be kept twice.
                tracing::warn!(%error, "A QoS 2 packet is not remembered over a restart");
            }
        }
        taken
    }
}

fn origin(topic: &str) -> String {
    format!("mqtt topic {topic}")
}

fn all(which: &[usize], taken: Taken) -> Results {
    which.iter().map(|at| (*at, taken)).collect()
}
