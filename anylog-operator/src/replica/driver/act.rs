//! What the member wants is done.

use std::sync::Arc;
use std::time::Duration;

use anylog_replica::message::{Body, Message, Sealed};
use anylog_replica::{Action, Event, FileKey};

use super::Driver;
use crate::replica::link::Session;
use crate::replica::status::ConsumerStatus;
use crate::replica::{holdings, open};
use crate::tables::blocking;

/// How long after numbers could not be settled it is tried again: a number that mates know must not be given to another file.
const NUMBER_AGAIN: Duration = Duration::from_millis(500);

/// What the commands said.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::replica) struct Told {
    pub(in crate::replica) distributor: bool,
    pub(in crate::replica) consumer: Option<ConsumerStatus>,
    /// Mates are dialled whatever else was said: this member's registry is empty.
    pub(in crate::replica) asks: bool,
}

impl Told {
    /// Whether mates are dialled.
    pub(super) fn dials(&self) -> bool {
        self.distributor || self.consumer.is_some() || self.asks
    }

    /// From when on files are fetched, in microseconds since 1970; 0: all.
    pub(super) fn since(&self) -> i64 {
        let since = self.consumer.and_then(|consumer| consumer.since);
        since.map_or(0, |since| since.as_microsecond().max(0))
    }
}

impl Driver {
    /// Tells the member what it is to do.
    pub(super) fn settings(self: &Arc<Self>) {
        let told = *self.told.borrow();
        let consumer = told.consumer.is_some_and(|consumer| consumer.active);
        self.handle(Event::Set { distributor: told.distributor, consumer, since: told.since() });
        self.wake_diallers();
    }

    /// Does what the member wants. What takes long becomes a task.
    pub(super) fn act(self: &Arc<Self>, action: Action) {
        match action {
            Action::Send(to, message) => self.send(to, &message),
            Action::Fetch { from, want } => self.fetch(from, want),
            Action::SendFile { to, want } => self.send_file(to, want),
            Action::SendRows { to, after } => self.send_rows(to, after),
            Action::StoreRows { from, rows } => self.store_rows(from, rows),
            Action::Seal(sealed) => self.seal_copy(sealed),
            Action::Adopt(file) => self.adopt(file),
            Action::Acknowledge(token) => self.waiting.done(token),
            Action::NumberFrom(number) => self.number_from(number),
            Action::Park { file, reason } => self.park(file, reason),
            Action::Conflict { with, reason } => self.conflict(with, reason),
        }
    }

    fn send(&self, to: i64, message: &Message) {
        let Some(session) = self.session(to) else { return };
        self.notes.lock().message(to, message);
        session.send(message);
        if let Some(Body::Refused(_)) = message.body {
            session.finish();
        }
    }

    pub(super) fn session(&self, mate: i64) -> Option<Arc<Session>> {
        self.sessions.lock().get(&mate).cloned()
    }

    fn seal_copy(self: &Arc<Self>, sealed: Sealed) {
        let driver = Arc::clone(self);
        self.spawn(async move {
            let file = sealed.key();
            let rows = sealed.about.as_ref().map_or(0, |about| about.rows);
            match open::seal_copy(&driver.shared, sealed).await {
                Ok(()) => {
                    driver.notes.lock().stored(file, None, rows);
                    driver.tell(Event::Stored(file)).await;
                }
                Err(error) => driver.failed(file, None, error).await,
            }
        });
    }

    fn adopt(self: &Arc<Self>, file: FileKey) {
        let driver = Arc::clone(self);
        self.spawn(async move {
            // That it is complete is told by who seals it.
            if let Err(error) = open::adopt(&driver.shared, file).await {
                driver.failed(file, None, error).await;
            }
        });
    }

    fn number_from(self: &Arc<Self>, number: i64) {
        let driver = Arc::clone(self);
        tracing::info!(number, "Mates know files of this member up to this number: numbering goes on behind it");
        self.spawn(async move {
            let mut reported = false;
            loop {
                let shared = Arc::clone(&driver.shared);
                let Err(error) = blocking(move || holdings::number_from(&shared, number)).await else { return };
                if !std::mem::replace(&mut reported, true) {
                    driver.report(
                        "Numbering",
                        format!(
                            "The numbers of source files cannot go on behind {number}, and that is tried again: {error}"
                        ),
                    );
                }
                tokio::time::sleep(NUMBER_AGAIN).await;
            }
        });
    }

    fn park(&self, file: FileKey, reason: String) {
        let text = format!("{file} cannot be had, and is tried again later: {reason}");
        let now = self.shared.node.clock.now();
        if self.notes.lock().parked(file, now) {
            self.report("Parked file", text);
        }
    }

    fn conflict(self: &Arc<Self>, with: i64, reason: String) {
        if self.notes.lock().trouble(with, self.shared.node.clock.now(), reason.clone()) {
            self.report("Conflict", reason);
        }
        if let Some(session) = self.session(with) {
            session.finish();
        }
        self.doubt();
    }

    /// Writes an error to the log, and where commands show it.
    pub(super) fn report(&self, kind: &str, text: String) {
        tracing::error!("{text}");
        self.shared.node.errors.add(self.shared.node.clock.now(), "replica", kind, text);
    }

    /// What came from a mate, save pieces.
    pub(super) fn message(self: &Arc<Self>, session: &Arc<Session>, message: Message) {
        let mate = session.mate;
        match &message.body {
            Some(Body::Missing(missing)) => {
                self.fetches.give_up(missing.key(), mate);
                self.sends.give_up(mate, missing.key());
            }
            Some(Body::Refused(refused)) => {
                self.notes.lock().trouble(mate, self.shared.node.clock.now(), refused.reason.clone());
                session.finish();
                self.doubt();
            }
            Some(Body::Hello(hello)) => self.notes.lock().version(mate, hello.version),
            _ => {}
        }
        self.handle(Event::Received(mate, message));
    }
}
