//! The MQTT clients that the broker knows, connected or with a session that waits for them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::book::state::State;
use super::book::{Book, Key, Record};
use super::codec::{Connect, Version};
use super::message::Message;
use super::router::Router;
use super::session::{Action, Change, Room, Session};

/// Sessions that are kept for clients that are away; the one that is away longest gives way.
pub const MAX_SESSIONS: usize = 10_000;

/// How often sessions whose time is over are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// How long a session waits for its client at most.
pub const SESSION_EXPIRY: Duration = Duration::from_secs(24 * 3600);

/// A client: its session, and the connection that it has now.
#[derive(Debug)]
pub(super) struct Client {
    key: Key,
    /// The session is in the book.
    kept: AtomicBool,
    pub(super) session: Mutex<Session>,
    pub(super) wake: Notify,
    connection: Mutex<Connection>,
}

#[derive(Debug)]
struct Connection {
    /// Counts connections, so that an old one does not take away the state of a new one.
    number: u64,
    /// Cancelled when another connection takes over.
    taken_over: CancellationToken,
    /// When the session ends; none while the client is connected.
    ends: Option<Instant>,
    /// How long the session waits after the connection.
    expiry: Duration,
}

impl Client {
    /// The client identifier.
    pub(super) fn id(&self) -> &str {
        self.key.client()
    }

    /// The name of its session, which no other session has.
    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// Whether its session is kept over restarts.
    pub(super) fn is_kept(&self) -> bool {
        self.kept.load(Ordering::Relaxed)
    }

    fn keep(&self, kept: bool) {
        self.kept.store(kept, Ordering::Relaxed);
        self.session.lock().keep_on_disk(kept);
    }

    /// A change of its session, as it is written.
    pub(super) fn record(&self, change: Change) -> Record {
        let client = Arc::clone(self.key.text());
        match change {
            Change::Subscribed(filter, options) => Record::Subscribed(client, filter, options),
            Change::Unsubscribed(filter) => Record::Unsubscribed(client, filter),
            Change::Done(sequence) => Record::Done(client, sequence),
            Change::Taken(sequence) => Record::Taken(client, sequence),
        }
    }

    /// The whole session, when it is kept from now on.
    fn records(&self, expiry: u32) -> Vec<Record> {
        let client = || Arc::clone(self.key.text());
        let mut records = vec![Record::Session { client: client(), expiry, ends: None }];
        let session = self.session.lock();
        records.extend(session.subscriptions().map(|(filter, of)| Record::Subscribed(client(), filter.to_owned(), of)));
        records
    }

    /// Gives a message to the client, now or when it comes back.
    pub(super) fn deliver(&self, message: &Arc<Message>, qos: u8, retain: bool) {
        if self.session.lock().deliver(Arc::clone(message), qos, retain) {
            self.wake.notify_one();
        }
    }
}

/// What a connection gets for its CONNECT.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) client: Arc<Client>,
    pub(super) number: u64,
    pub(super) taken_over: CancellationToken,
    pub(super) session_present: bool,
    /// What the session sends first.
    pub(super) actions: Vec<Action>,
    /// What must be in the book before the client hears that it has a session.
    pub(super) records: Vec<Record>,
    /// How long the session is kept, in seconds.
    pub(super) expiry: u32,
}

/// All clients.
#[derive(Debug)]
pub(super) struct Clients {
    by_id: Mutex<HashMap<String, Arc<Client>>>,
    /// What waits for them.
    room: Room,
    swept: Mutex<Instant>,
    book: OnceLock<Arc<Book>>,
    /// Sessions that ended; the store may forget their packets.
    ended: Mutex<Vec<Key>>,
}

impl Default for Clients {
    fn default() -> Self {
        Self {
            by_id: Mutex::default(),
            room: Room::default(),
            swept: Mutex::new(Instant::now()),
            book: OnceLock::new(),
            ended: Mutex::default(),
        }
    }
}

impl Clients {
    /// How many sessions there are.
    pub(super) fn len(&self) -> usize {
        self.by_id.lock().len()
    }

    /// Bytes of messages that wait for clients.
    pub(super) fn queued_bytes(&self) -> usize {
        self.room.used()
    }

    /// Packet ids of QoS 2 that their clients did not release.
    pub(super) fn received(&self) -> usize {
        self.room.received()
    }

    /// Bytes of the filters of all clients.
    pub(super) fn filter_bytes(&self) -> usize {
        self.room.filters()
    }

    /// The book of sessions, when they are kept.
    pub(super) fn book(&self) -> Option<&Arc<Book>> {
        self.book.get()
    }

    /// Sessions that ended since the last call.
    pub(super) fn take_ended(&self) -> Vec<Key> {
        std::mem::take(&mut *self.ended.lock())
    }

    /// Whether a session is known by this name.
    pub(super) fn knows(&self, key: &Key) -> bool {
        self.by_id.lock().get(key.client()).is_some_and(|client| client.key == *key)
    }

    /// Takes up the sessions of the run before, and keeps all from now on.
    pub(super) fn restore(&self, book: Arc<Book>, state: &State, router: &Router, now: Timestamp) {
        let mut by_id = self.by_id.lock();
        for (text, kept) in &state.sessions {
            let expiry = Duration::from_secs(u64::from(kept.expiry)).min(SESSION_EXPIRY);
            let left =
                kept.ends.map_or(expiry, |ends| Duration::try_from(ends.duration_since(now)).unwrap_or_default());
            let known = Key::read(text).filter(|key| !left.is_zero() && !by_id.contains_key(key.client()));
            let Some(key) = known else {
                book.note(Record::Ended(Arc::clone(text)));
                continue;
            };
            let ends = Some(Instant::now() + left.min(SESSION_EXPIRY));
            let connection = Connection { number: 0, taken_over: CancellationToken::new(), ends, expiry };
            let client = Arc::new(Client {
                session: Mutex::new(Session::restore(self.room.clone(), kept)),
                kept: AtomicBool::new(true),
                wake: Notify::new(),
                connection: Mutex::new(connection),
                key,
            });
            kept.filters.iter().for_each(|(filter, options)| router.subscribe(&client, filter, *options));
            by_id.insert(client.id().to_owned(), client);
        }
        // Somebody else was quicker: then its book holds.
        drop(self.book.set(book));
    }

    /// Messages that wait for clients, and messages for clients that were dropped.
    pub(super) fn backlog(&self) -> (usize, u64) {
        let clients: Vec<Arc<Client>> = self.by_id.lock().values().cloned().collect();
        clients.iter().fold((0, 0), |(queued, dropped), client| {
            let session = client.session.lock();
            (queued + session.queued(), dropped + session.dropped())
        })
    }

    /// A client connects: its old connection ends (MQTT-3.1.4-2), its session is taken up or begun anew.
    pub(super) fn attach(&self, connect: &Connect, router: &Router, time: Timestamp) -> Attached {
        let now = Instant::now();
        let asked = match connect.version {
            Version::V4 if connect.clean => Duration::ZERO,
            Version::V4 => SESSION_EXPIRY,
            Version::V5 => Duration::from_secs(u64::from(connect.session_expiry)),
        };
        let expiry = asked.min(SESSION_EXPIRY);
        let mut by_id = self.by_id.lock();
        self.sweep(&mut by_id, router, now);
        let mut number = 1;
        let mut kept = None;
        if let Some(known) = by_id.get(&connect.client_id).cloned() {
            let connection = known.connection.lock();
            connection.taken_over.cancel();
            number = connection.number + 1;
            let expired = connection.ends.is_some_and(|ends| ends <= now);
            drop(connection);
            if connect.clean || expired {
                self.forget(&known, router);
            } else {
                kept = Some(known);
            }
        }
        let session_present = kept.is_some();
        let taken_over = CancellationToken::new();
        let state = Connection { number, taken_over: taken_over.clone(), ends: None, expiry };
        let client = match kept {
            Some(client) => {
                client.session.lock().detach();
                *client.connection.lock() = state;
                client
            }
            None => Arc::new(Client {
                key: Key::new(&connect.client_id),
                kept: AtomicBool::new(false),
                session: Mutex::new(Session::new(self.room.clone())),
                wake: Notify::new(),
                connection: Mutex::new(state),
            }),
        };
        by_id.insert(connect.client_id.clone(), Arc::clone(&client));
        let expiry = u32::try_from(expiry.as_secs()).unwrap_or(u32::MAX);
        let records = self.keep(&client, expiry);
        drop(by_id);
        let mut session = client.session.lock();
        session.tell_time(time);
        let actions = session.attach(connect.version, connect.receive_maximum, connect.max_packet);
        drop(session);
        Attached { client, number, taken_over, session_present, actions, records, expiry }
    }

    /// Keeps a session over restarts when it outlives its connection; returns what is to be written.
    fn keep(&self, client: &Client, expiry: u32) -> Vec<Record> {
        let (was, is) = (client.is_kept(), expiry > 0 && self.book.get().is_some());
        let text = || Arc::clone(client.key.text());
        client.keep(is);
        match (was, is) {
            (true, true) => vec![Record::Session { client: text(), expiry, ends: None }],
            (false, true) => client.records(expiry),
            (true, false) => vec![Record::Ended(text())],
            (false, false) => Vec::new(),
        }
    }

    /// A session ended.
    fn forget(&self, client: &Arc<Client>, router: &Router) {
        let filters: Vec<String> = client.session.lock().filters().map(str::to_owned).collect();
        for filter in filters {
            router.unsubscribe(client, &filter);
        }
        if client.is_kept() {
            client.keep(false);
            if let Some(book) = self.book.get() {
                book.note(Record::Ended(Arc::clone(client.key.text())));
            }
            self.ended.lock().push(client.key.clone());
        }
    }

    /// Whether the session of a client still goes on: the same one, connected again or waiting.
    pub(super) fn goes_on(&self, client: &Arc<Client>) -> bool {
        self.by_id.lock().get(client.id()).is_some_and(|known| Arc::ptr_eq(known, client))
    }

    /// A connection ended. Its session waits for the client, or ends with it.
    pub(super) fn detach(&self, client: &Arc<Client>, number: u64, router: &Router, time: Timestamp) {
        let mut by_id = self.by_id.lock();
        let mut connection = client.connection.lock();
        if connection.number != number {
            return;
        }
        client.session.lock().detach();
        if connection.expiry.is_zero() {
            drop(connection);
            self.forget(client, router);
            if by_id.get(client.id()).is_some_and(|known| Arc::ptr_eq(known, client)) {
                by_id.remove(client.id());
            }
        } else {
            connection.ends = Some(Instant::now() + connection.expiry);
            if let Some(book) = self.book.get().filter(|_| client.is_kept()) {
                let expiry = u32::try_from(connection.expiry.as_secs()).unwrap_or(u32::MAX);
                let ends = time.checked_add(connection.expiry).ok();
                book.note(Record::Session { client: Arc::clone(client.key.text()), expiry, ends });
            }
        }
    }

    /// Ends sessions whose time is over, and the oldest one when there are too many.
    fn sweep(&self, by_id: &mut HashMap<String, Arc<Client>>, router: &Router, now: Instant) {
        let full = by_id.len() >= MAX_SESSIONS;
        let mut swept = self.swept.lock();
        if !full && now.duration_since(*swept) < SWEEP_EVERY {
            return;
        }
        *swept = now;
        let away = |client: &Client| client.connection.lock().ends;
        let mut gone: Vec<(Instant, String)> =
            by_id.values().filter_map(|client| Some((away(client)?, client.id().to_owned()))).collect();
        gone.sort();
        // A tenth at once, so that a full house is not searched at every connection.
        let room = if full { MAX_SESSIONS / 10 } else { 0 };
        for (at, (ends, id)) in gone.into_iter().enumerate() {
            if (ends <= now || at < room)
                && let Some(client) = by_id.remove(&id)
            {
                tracing::info!(client = %id, expired = ends <= now, "The session of a client that is away was ended");
                self.forget(&client, router);
            }
        }
    }
}
