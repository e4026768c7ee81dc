//! Answers that wait for stable storage: to SUBSCRIBE, to PUBREC, to PUBREL of a kept session.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{FuturesOrdered, FuturesUnordered};
use tokio_util::sync::CancellationToken;

use crate::Delivery;
use crate::broker::Broker;
use crate::broker::book::{Book, Record};
use crate::broker::client::Client;
use crate::broker::codec::Outgoing;
use crate::broker::routing::Routing;
use crate::broker::session::Change;

/// How long storage that failed is left alone.
const PAUSE: Duration = Duration::from_millis(250);

/// How long a release waits for a store to be mounted; later the store hears of it when it is.
const STORE_DEADLINE: Duration = Duration::from_secs(10);

/// Answers that may wait for one connection before it reads no more.
pub(super) const MAX_ANSWERS: usize = 1024;

/// What is on stable storage now.
pub(super) enum Answer {
    /// This may be sent.
    Send(Outgoing),
    /// These packet ids are free.
    Released(Vec<u16>),
    /// Nothing more is to be done; or the connection has gone, and the client asks again.
    Done,
}

type Waiting<'b> = Pin<Box<dyn Future<Output = Answer> + Send + 'b>>;

/// The answers of a connection that wait.
#[derive(Default)]
pub(super) struct Answers<'b> {
    /// In the order in which they were asked for (MQTT-4.6.0-4).
    confirms: FuturesOrdered<Waiting<'b>>,
    releases: FuturesUnordered<Waiting<'b>>,
    /// Packet ids that the client released, and whether they are in the book; they go together.
    released: Vec<(u16, bool)>,
}

impl<'b> Answers<'b> {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.confirms.len() + self.releases.len() + self.released.len()
    }

    /// The next one that may go; none when none waits.
    pub(super) async fn next(&mut self) -> Option<Answer> {
        tokio::select! {
            Some(answer) = self.confirms.next() => Some(answer),
            Some(answer) = self.releases.next() => Some(answer),
            else => None,
        }
    }

    /// Writes changes, then `packet` may go.
    pub(super) fn confirm(
        &mut self,
        broker: &'b Broker,
        client: &Client,
        changes: Vec<Change>,
        packet: Outgoing,
        gone: &CancellationToken,
    ) {
        let Some(book) = broker.clients.book() else {
            return self.confirms.push_back(Box::pin(std::future::ready(Answer::Send(packet))));
        };
        let records: Vec<Record> = changes.into_iter().map(|change| client.record(change)).collect();
        let gone = gone.clone();
        let first = begin(book, &records);
        self.confirms.push_back(Box::pin(async move {
            if write(book, records, first, &gone).await { Answer::Send(packet) } else { Answer::Done }
        }));
    }

    /// A message for this very client is on its way into the book; it comes by itself when it is there.
    pub(super) fn follow(&mut self, routing: Routing, gone: &CancellationToken) {
        let gone = gone.clone();
        self.releases.push(Box::pin(async move {
            routing.settle(&gone).await;
            Answer::Done
        }));
    }

    /// The client released a packet id.
    pub(super) fn release(&mut self, id: u16, booked: bool) {
        self.released.push((id, booked));
    }

    /// Begins to write what was released since the last call.
    pub(super) fn launch(&mut self, broker: &'b Broker, client: &Arc<Client>, gone: &CancellationToken) {
        if self.released.is_empty() {
            return;
        }
        let (released, client, gone) = (std::mem::take(&mut self.released), Arc::clone(client), gone.clone());
        self.releases.push(Box::pin(async move {
            let key = client.key().text();
            let booked = released.iter().filter(|(_, booked)| *booked);
            let records: Vec<Record> = booked.map(|(id, _)| Record::Released(Arc::clone(key), *id)).collect();
            if let Some(book) = broker.clients.book().filter(|_| !records.is_empty()) {
                let first = begin(book, &records);
                if !write(book, records, first, &gone).await {
                    return Answer::Done;
                }
            }
            let delivery = |(packet, _): &(u16, bool)| Delivery { client: Arc::clone(key), packet: *packet };
            let deliveries = released.iter().map(delivery).collect();
            if tell_store(broker, deliveries, &gone).await {
                Answer::Released(released.into_iter().map(|(id, _)| id).collect())
            } else {
                Answer::Done
            }
        }));
    }
}

type Written = tokio::sync::oneshot::Receiver<bool>;

/// Hands records over now, so that they come before those that are handed over later.
fn begin(book: &Book, records: &[Record]) -> Written {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    // Who waited may have gone.
    book.submit(records.to_vec(), move |result| {
        sender.send(result.is_ok()).ok();
    });
    receiver
}

async fn write(book: &Book, records: Vec<Record>, mut written: Written, gone: &CancellationToken) -> bool {
    while !written.await.unwrap_or(false) {
        tokio::select! {
            () = gone.cancelled() => return false,
            () = tokio::time::sleep(PAUSE) => {}
        }
        written = begin(book, &records);
    }
    true
}

/// Tells the store that packet ids are free. Returns when that is on stable storage.
async fn tell_store(broker: &Broker, mut deliveries: Vec<Delivery>, gone: &CancellationToken) -> bool {
    let slot = broker.intake.slot();
    let sink = tokio::select! {
        sink = slot.mounted() => sink,
        () = gone.cancelled() => return false,
        () = tokio::time::sleep(STORE_DEADLINE) => {
            // A broker without a store must answer as well. Nothing new is stored before the store hears of this.
            broker.owe(deliveries);
            return true;
        }
    };
    let mut sink = sink;
    deliveries.extend(broker.take_owed());
    loop {
        match sink.release(deliveries.clone()).await {
            Ok(()) => return true,
            Err(error) => tracing::warn!(%error, "The end of QoS 2 packets is not written yet; PUBCOMP waits"),
        }
        tokio::select! {
            () = gone.cancelled() => return false,
            () = tokio::time::sleep(PAUSE) => {}
        }
        sink = tokio::select! {
            sink = slot.mounted() => sink,
            () = gone.cancelled() => return false,
        };
    }
}
