//! A message on its way into the book: whom it waits for, whether it is retained, the packet that it came in.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::book::{Book, Record};
use super::client::Client;
use super::message::Message;

/// How long a book that failed is left alone.
const PAUSE: Duration = Duration::from_millis(250);

/// A kept session that a message waits for.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) client: Arc<Client>,
    /// The place in its queue.
    pub(super) sequence: u64,
    pub(super) qos: u8,
    pub(super) retain: bool,
}

/// A message that must be in the book before it is acknowledged. Its subscribers get it when it is there, so that none sees a
/// message that a crash takes back.
#[derive(Debug)]
pub(super) struct Routing {
    book: Arc<Book>,
    message: Arc<Message>,
    records: Vec<Record>,
    targets: Vec<Target>,
    written: oneshot::Receiver<bool>,
}

impl Routing {
    /// Hands a message to the book; the order of the calls is the order in which subscribers get messages.
    pub(super) fn begin(
        book: &Arc<Book>,
        message: Arc<Message>,
        targets: Vec<Target>,
        retained: Option<Record>,
        packet: Option<Record>,
    ) -> Self {
        let mut records = Vec::with_capacity(targets.len() + 3);
        if !targets.is_empty() || matches!(retained, Some(Record::Retained)) {
            records.push(Record::Message(Arc::clone(&message)));
        }
        records.extend(retained);
        records.extend(targets.iter().map(|target| Record::Queued {
            client: Arc::clone(target.client.key().text()),
            sequence: target.sequence,
            qos: target.qos,
            retain: target.retain,
        }));
        records.extend(packet);
        let written = submit(book, &records, &message, &targets);
        Self { book: Arc::clone(book), message, records, targets, written }
    }

    /// Returns when the message is in the book, or false when its sender has gone before that could be done.
    pub(super) async fn settle(mut self, gone: &CancellationToken) -> bool {
        loop {
            if (&mut self.written).await.unwrap_or(false) {
                return true;
            }
            tokio::select! {
                () = gone.cancelled() => {
                    self.give_up();
                    return false;
                }
                () = tokio::time::sleep(PAUSE) => {}
            }
            self.written = submit(&self.book, &self.records, &self.message, &self.targets);
        }
    }

    fn give_up(&self) {
        for target in &self.targets {
            target.client.session.lock().give_back(&self.message);
        }
    }
}

fn submit(book: &Book, records: &[Record], message: &Arc<Message>, targets: &[Target]) -> oneshot::Receiver<bool> {
    let (sender, receiver) = oneshot::channel();
    let (message, targets) = (Arc::clone(message), targets.to_vec());
    book.submit(records.to_vec(), move |result| {
        if result.is_ok() {
            for Target { client, sequence, qos, retain } in targets {
                client.session.lock().deliver_reserved(sequence, Arc::clone(&message), qos, retain);
                client.wake.notify_one();
            }
        }
        // The sender may have gone; the message waits for its subscribers all the same.
        sender.send(result.is_ok()).ok();
    });
    receiver
}

#[cfg(test)]
mod tests;
