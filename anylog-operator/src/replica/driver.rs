//! Runs the member: what happened goes in, what it wants is done.
//!
//! One task hands the member what happened, in order, and does what it wants; whatever waits - links, disks, databases - is a task of its
//! own that tells how it ended. Threads that must not wait - who writes the journal, who seals - leave word in a mailbox.

mod act;
mod dial;
mod fetch;
mod lacking;
mod mail;
mod notes;
mod numbers;
mod rows;
mod send;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anylog_ledger::{Ledger, OperatorNode};
use anylog_replica::message::Hello;
use anylog_replica::{Config, Event, FileKey, Member};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::link::Session;
use super::{holdings, open};
use crate::OperatorError;
use crate::store::Shared;
use crate::tables::blocking;
use dial::Mate;
use fetch::Fetches;
use mail::{Mailbox, Waiting};
use notes::Notes;
use rows::RowQueues;
use send::Sends;

pub(super) use act::Told;
pub(super) use dial::accept;

/// What waits for the member. Who reads a link waits when there is no room.
const INPUTS: usize = 256;
/// How often the member hears that time passed.
const TICK: Duration = Duration::from_millis(250);
/// How long the end of a driver waits for what is under way.
const END: Duration = Duration::from_millis(1000);

/// What the driver is told.
pub(super) enum Input {
    /// A link is greeted on both sides. Answers why it is not taken.
    Up { session: Arc<Session>, hello: Hello, answer: oneshot::Sender<Result<(), NotTaken>> },
    /// A message came. A greeting comes with the first files that its `since` asks for.
    Message { session: Arc<Session>, message: anylog_replica::message::Message, first: Option<Vec<(i64, i64)>> },
    /// A link is at its end.
    Down { session: Arc<Session>, reason: Option<String> },
    /// Something that the member wanted is done, or failed.
    Event(Event),
}

/// Why a link is not taken.
pub(super) enum NotTaken {
    /// There is another one between the same nodes, which both sides prefer.
    Twice,
    /// The other side is told why.
    Refused(String),
}

/// A member at work.
pub(super) struct Driver {
    pub(super) shared: Arc<Shared>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) own: OperatorNode,
    pub(super) key: String,
    member: Mutex<Member>,
    told: watch::Sender<Told>,
    inputs: mpsc::Sender<Input>,
    mailbox: Mailbox,
    waiting: Waiting,
    reachable: AtomicU32,
    /// The mates as the ledger tells them.
    mates: RwLock<Arc<BTreeMap<i64, Mate>>>,
    sessions: Mutex<BTreeMap<i64, Arc<Session>>>,
    /// Counts changes of what the diallers look at.
    changes: watch::Sender<u64>,
    fetches: Fetches,
    sends: Sends,
    rows: RowQueues,
    notes: Mutex<Notes>,
    /// Tells this process from others.
    instance: String,
    /// It is being looked whether another node has this member's number; and that it has.
    doubts: AtomicBool,
    conflict: watch::Sender<Option<String>>,
    /// Where the ledger says that this member is.
    listed: Mutex<String>,
    pub(super) stop: CancellationToken,
    tasks: TaskTracker,
    began: Instant,
}

/// What a driver is started with.
pub(super) struct Start {
    pub(super) shared: Arc<Shared>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) own: OperatorNode,
    pub(super) key: String,
    pub(super) told: Told,
    pub(super) instance: String,
    /// Where it is told that another node has this member's number.
    pub(super) conflict: watch::Sender<Option<String>>,
}

impl Driver {
    /// Starts a member: what is here is read, then links are made. From now on files can be told to it.
    ///
    /// # Errors
    /// [`OperatorError::NotRegistered`], and of the registry.
    pub(super) async fn start(start: Start) -> Result<Arc<Self>, OperatorError> {
        let Start { shared, ledger, own, key, told, instance, conflict } = start;
        let listed = Mutex::new(own.address());
        let (inputs, received) = mpsc::channel(INPUTS);
        let config =
            Config { member: own.member, cluster: own.cluster.clone(), policy: own.id.clone(), key: key.clone() };
        let driver = Arc::new(Self {
            shared,
            ledger,
            own,
            key,
            member: Mutex::new(Member::new(config)),
            told: watch::channel(told).0,
            inputs,
            mailbox: Mailbox::default(),
            waiting: Waiting::default(),
            reachable: AtomicU32::new(1),
            mates: RwLock::default(),
            sessions: Mutex::default(),
            changes: watch::channel(0).0,
            fetches: Fetches::default(),
            sends: Sends::default(),
            rows: RowQueues::default(),
            notes: Mutex::default(),
            instance,
            doubts: AtomicBool::new(false),
            conflict,
            listed,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            began: Instant::now(),
        });
        let have = driver.have().await?;
        driver.settings();
        // Mates first: an own open file is not taken for all there is before it is known who may have more of it.
        driver.look_at_ledger();
        driver.handle(have);
        driver.look_what_is_lacking();
        driver.tasks.spawn(Arc::clone(&driver).drive(received));
        Ok(driver)
    }

    async fn drive(self: Arc<Self>, mut inputs: mpsc::Receiver<Input>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                // What the store says comes before what mates say of it.
                () = self.mailbox.comes() => self.open_mail(),
                input = inputs.recv() => match input {
                    Some(input) => self.take(input),
                    None => break,
                },
                _ = tick.tick() => {
                    self.open_mail();
                    self.look_at_ledger();
                    self.handle(Event::Tick);
                    self.look_what_is_lacking();
                    self.look_at_orphans();
                    self.note_traffic();
                }
            }
        }
        self.waiting.end();
    }

    /// Ends it: links first. What is being stored is left to the next start when it takes long.
    pub(super) async fn end(&self) {
        self.abandon();
        self.tasks.close();
        if tokio::time::timeout(END, self.tasks.wait()).await.is_err() {
            tracing::debug!("Files of mates are still being stored; what is left is fetched again");
        }
    }

    /// Ends it without waiting.
    pub(super) fn abandon(&self) {
        self.stop.cancel();
        for session in std::mem::take(&mut *self.sessions.lock()).into_values() {
            session.close();
        }
        self.waiting.end();
    }

    /// Runs until the driver ends.
    fn spawn<T: Default + Send + 'static>(
        self: &Arc<Self>,
        task: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                done = task => done,
                () = stop.cancelled() => T::default(),
            }
        })
    }

    /// What is on this node's disk.
    async fn have(&self) -> Result<Event, OperatorError> {
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            // Open ones first: one that is sealed meanwhile is then told twice, and not left out.
            let open = open::open_files(&shared);
            let complete = holdings::complete_files(&shared, None)?;
            Ok::<_, OperatorError>(Event::Have { complete, open, given: holdings::given(&shared)? })
        })
        .await
    }

    /// Hands the member what happened, and does what it wants. Only by the task that drives.
    fn handle(self: &Arc<Self>, event: Event) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let actions = {
            let mut member = self.member.lock();
            let actions = member.handle(now, event);
            self.reachable.store(member.reachable(), Ordering::Relaxed);
            actions
        };
        for action in actions {
            self.act(action);
        }
    }

    fn take(self: &Arc<Self>, input: Input) {
        match input {
            Input::Up { session, hello, answer } => {
                let taken = self.admit(&session, &hello);
                // Who dialled has gone when nobody listens.
                drop(answer.send(taken));
            }
            Input::Message { session, message, first } => {
                if self.is_current(&session) {
                    if let Some(first) = first {
                        self.handle(Event::Narrow { mate: session.mate, first });
                    }
                    self.message(&session, message);
                }
            }
            Input::Down { session, reason } => self.down(&session, reason),
            Input::Event(event) => {
                self.note_event(&event);
                self.handle(event);
            }
        }
    }

    /// Tells the member how something ended.
    async fn tell(&self, event: Event) {
        // Nobody listens when the driver has ended.
        drop(self.inputs.send(Input::Event(event)).await);
    }

    async fn failed(&self, file: FileKey, from: Option<i64>, error: impl std::fmt::Display) {
        let reason = error.to_string();
        tracing::debug!(%file, ?from, %reason, "A file of a mate was not stored");
        self.tell(Event::Failed { file, from, reason }).await;
    }
}
