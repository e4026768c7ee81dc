//! The sending side of a connection, which its task shares with those who answer.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Notify;

use super::reply;

/// The connection as those see it who answer.
#[derive(Debug)]
pub(super) struct Line {
    sending: Mutex<Sending>,
    /// Told when the connection's task is to look.
    turned: Notify,
    /// How long a client may take nothing of an answer.
    patience: Duration,
}

#[derive(Debug)]
struct Sending {
    /// None when the connection was handed over.
    write: Option<OwnedWriteHalf>,
    /// A request is not answered yet.
    busy: bool,
    /// The connection ends with the answer to that request.
    last: bool,
    /// What the system did not take of an answer.
    unsent: Vec<u8>,
    /// The connection broke.
    broken: bool,
    /// The connection's task waits for the answer.
    awaited: bool,
}

impl Line {
    pub(super) fn new(write: OwnedWriteHalf, patience: Duration) -> Arc<Self> {
        let sending =
            Sending { write: Some(write), busy: false, last: false, unsent: Vec::new(), broken: false, awaited: false };
        Arc::new(Self { sending: Mutex::new(sending), turned: Notify::new(), patience })
    }

    /// A request is under way; the connection may end with its answer.
    pub(super) fn begins(&self, last: bool) {
        let mut sending = self.sending.lock();
        (sending.busy, sending.last) = (true, last);
    }

    /// The connection ends with the answer under way.
    pub(super) fn ends(&self) {
        self.sending.lock().last = true;
    }

    /// Whether a request is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.sending.lock().busy
    }

    /// Takes the sending side, for who serves the connection from now on.
    pub(super) fn take(&self) -> Option<OwnedWriteHalf> {
        self.sending.lock().write.take()
    }

    /// Returns when the connection's task is to look: then it calls [`Self::send_rest`].
    pub(super) async fn turned(&self) {
        self.turned.notified().await;
    }

    /// Sends an answer, as much of it as the system takes; the connection's task sends the rest.
    pub(super) fn answer(&self, bytes: &[u8]) {
        let mut sending = self.sending.lock();
        let closing = sending.last.then(|| reply::closing(bytes));
        let bytes = closing.as_deref().unwrap_or(bytes);
        let sent = match &sending.write {
            Some(write) => write.try_write(bytes),
            None => Ok(bytes.len()),
        };
        match sent {
            Ok(count) => sending.unsent.extend_from_slice(&bytes[count..]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sending.unsent.extend_from_slice(bytes),
            Err(_) => sending.broken = true,
        }
        sending.busy = false;
        if sending.awaited || sending.broken || !sending.unsent.is_empty() {
            self.turned.notify_one();
        }
    }

    /// Returns when no request is under way and all is sent; false when the connection broke.
    pub(super) async fn is_free(&self) -> bool {
        loop {
            {
                let mut sending = self.sending.lock();
                if sending.broken || (!sending.busy && sending.unsent.is_empty()) {
                    sending.awaited = false;
                    return !sending.broken;
                }
                sending.awaited = true;
            }
            self.turned.notified().await;
            if !self.send_rest().await {
                return false;
            }
        }
    }

    /// Sends what the system did not take at once; false when the connection broke. Nobody answers meanwhile: the next request is
    /// taken when all is sent.
    pub(super) async fn send_rest(&self) -> bool {
        let taken = {
            let mut sending = self.sending.lock();
            let unsent = std::mem::take(&mut sending.unsent);
            if unsent.is_empty() {
                return !sending.broken;
            }
            sending.write.take().map(|write| (write, unsent))
        };
        let Some((mut write, unsent)) = taken else { return false };
        let sent = self.write(&mut write, &unsent).await;
        self.sending.lock().write = Some(write);
        sent
    }

    /// False when the connection broke, or the client takes nothing any more.
    async fn write(&self, write: &mut OwnedWriteHalf, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            match tokio::time::timeout(self.patience, write.write(bytes)).await {
                Ok(Ok(count @ 1..)) => bytes = bytes.get(count..).unwrap_or_default(),
                _ => return false,
            }
        }
        true
    }
}
