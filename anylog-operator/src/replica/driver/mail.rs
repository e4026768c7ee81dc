//! What the store leaves word of, without waiting.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anylog_ingest::SinkError;
use anylog_replica::message::{RowsHeld, Sealed};
use anylog_replica::{Event, FileKey};
use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::Driver;
use crate::replica::Followers;

/// Word that was left. What is written of a file is told once, however often it was said: the mailbox holds no more than there are open files,
/// files that were sealed, and messages that wait.
#[derive(Default)]
pub(super) struct Mailbox {
    mail: Mutex<Mail>,
    comes: Notify,
}

#[derive(Default)]
struct Mail {
    opened: Vec<FileKey>,
    written: BTreeMap<FileKey, u64>,
    complete: Vec<(Sealed, u64)>,
    /// Waits, and withdrawals of waits, in their order.
    waits: Vec<Event>,
    lost: Vec<FileKey>,
    told: bool,
    look: bool,
}

impl Mailbox {
    fn put(&self, put: impl FnOnce(&mut Mail)) {
        put(&mut self.mail.lock());
        self.comes.notify_one();
    }

    /// Returns when there is something, or was.
    pub(super) async fn comes(&self) {
        self.comes.notified().await;
    }
}

/// Messages that wait for mates.
#[derive(Default)]
pub(super) struct Waiting {
    tokens: AtomicU64,
    /// None when nobody exchanges any more.
    messages: Mutex<Option<HashMap<u64, oneshot::Sender<()>>>>,
    ended: std::sync::atomic::AtomicBool,
}

impl Waiting {
    fn add(&self) -> Option<(u64, oneshot::Receiver<()>)> {
        if self.ended.load(Ordering::Acquire) {
            return None;
        }
        let token = self.tokens.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.messages.lock().get_or_insert_default().insert(token, sender);
        Some((token, receiver))
    }

    fn remove(&self, token: u64) -> Option<oneshot::Sender<()>> {
        self.messages.lock().as_mut()?.remove(&token)
    }

    /// Members enough have what a message waits for.
    pub(super) fn done(&self, token: u64) {
        if let Some(waiting) = self.remove(token) {
            // It may have stopped waiting.
            waiting.send(()).ok();
        }
    }

    /// Whoever waits is told that nobody exchanges any more.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        *self.messages.lock() = None;
    }
}

/// A message that waits, until it is dropped.
struct Wait<'a> {
    driver: &'a Driver,
    token: u64,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if self.driver.waiting.remove(self.token).is_some() {
            self.driver.mailbox.put(|mail| mail.waits.push(Event::Withdraw(self.token)));
        }
    }
}

impl Driver {
    /// Tells the member what was left for it.
    pub(super) fn open_mail(self: &Arc<Self>) {
        let mail = std::mem::take(&mut *self.mailbox.mail.lock());
        if mail.told {
            self.settings();
        }
        for file in mail.opened {
            self.handle(Event::Opened(file));
        }
        for (file, ordinal) in mail.written {
            self.handle(Event::Written(file.held(ordinal)));
        }
        for event in mail.waits {
            self.handle(event);
        }
        for (sealed, rows) in mail.complete {
            self.handle(Event::Complete { sealed, rows });
        }
        for file in mail.lost {
            self.handle(Event::Lost(file));
        }
        if mail.look {
            self.look_again();
        }
    }

    /// What it was told to do changed.
    pub(in crate::replica) fn tell_settings(&self, told: super::Told) {
        self.told.send_replace(told);
        self.mailbox.put(|mail| mail.told = true);
    }

    /// A file was taken away here and is to be fetched anew.
    pub(in crate::replica) fn refetch(&self, file: FileKey) {
        self.mailbox.put(|mail| mail.lost.push(file));
    }

    /// Looks again at what is here, and dials at once.
    pub(in crate::replica) fn kick(&self) {
        self.mailbox.put(|mail| mail.look = true);
    }

    /// Reads again what is here, and tells the member.
    fn look_again(self: &Arc<Self>) {
        self.wake_diallers();
        // What is sealed and stored while it is read is not forgotten.
        self.handle(Event::Look);
        let driver = Arc::clone(self);
        self.spawn(async move {
            match driver.have().await {
                Ok(have) => driver.tell(have).await,
                Err(error) => tracing::warn!(%error, "What this member has cannot be read"),
            }
        });
    }
}

#[async_trait]
impl Followers for Driver {
    fn opened(&self, file: FileKey) {
        self.mailbox.put(|mail| mail.opened.push(file));
    }

    fn written(&self, held: RowsHeld) {
        self.mailbox.put(|mail| {
            let ordinal = mail.written.entry(FileKey::from(held)).or_default();
            *ordinal = held.ordinal.max(*ordinal);
        });
    }

    fn complete(&self, sealed: Sealed, rows: u64) {
        self.mailbox.put(|mail| mail.complete.push((sealed, rows)));
    }

    fn reachable(&self) -> u32 {
        self.reachable.load(Ordering::Relaxed)
    }

    async fn copies(
        &self,
        file: FileKey,
        ordinal: u64,
        copies: u32,
        deadline: Option<Instant>,
    ) -> Result<(), SinkError> {
        let Some((token, done)) = self.waiting.add() else { return Err(SinkError::NotRunning) };
        let _wait = Wait { driver: self, token };
        self.mailbox.put(|mail| mail.waits.push(Event::Await { token, file, ordinal, copies }));
        let done = async { done.await.map_err(|_| SinkError::NotRunning) };
        let Some(deadline) = deadline else { return done.await };
        match tokio::time::timeout_at(deadline.into(), done).await {
            Ok(done) => done,
            Err(_) => Err(SinkError::TooFewCopies {
                // Whoever asked knows of which table the rows are.
                dbms: String::new(),
                table: String::new(),
                wanted: copies,
                reachable: self.reachable(),
                reason: "not enough members of the cluster said in time that they have the rows".to_owned(),
            }),
        }
    }
}
