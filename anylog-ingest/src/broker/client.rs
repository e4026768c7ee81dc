//! The MQTT clients that the broker knows, connected or with a session that waits for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::codec::{Connect, Version};
use super::message::Message;
use super::router::Router;
use super::session::{Action, Room, Session};

/// Sessions that are kept for clients that are away; the one that is away longest gives way.
pub const MAX_SESSIONS: usize = 10_000;

/// How often sessions whose time is over are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// How long a session waits for its client at most.
pub const SESSION_EXPIRY: Duration = Duration::from_secs(24 * 3600);

/// A client: its session, and the connection that it has now.
#[derive(Debug)]
pub(super) struct Client {
    id: String,
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
        &self.id
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
}

impl Default for Clients {
    fn default() -> Self {
        Self { by_id: Mutex::default(), room: Room::default(), swept: Mutex::new(Instant::now()) }
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

    /// Messages that wait for clients, and messages for clients that were dropped.
    pub(super) fn backlog(&self) -> (usize, u64) {
        let clients: Vec<Arc<Client>> = self.by_id.lock().values().cloned().collect();
        clients.iter().fold((0, 0), |(queued, dropped), client| {
            let session = client.session.lock();
            (queued + session.queued(), dropped + session.dropped())
        })
    }

    /// A client connects: its old connection ends (MQTT-3.1.4-2), its session is taken up or begun anew.
    pub(super) fn attach(&self, connect: &Connect, router: &Router) -> Attached {
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
                forget(&known, router);
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
                id: connect.client_id.clone(),
                session: Mutex::new(Session::new(self.room.clone())),
                wake: Notify::new(),
                connection: Mutex::new(state),
            }),
        };
        by_id.insert(connect.client_id.clone(), Arc::clone(&client));
        drop(by_id);
        let actions = client.session.lock().attach(connect.version, connect.receive_maximum, connect.max_packet);
        let expiry = u32::try_from(expiry.as_secs()).unwrap_or(u32::MAX);
        Attached { client, number, taken_over, session_present, actions, expiry }
    }

    /// A connection ended. Its session waits for the client, or ends with it.
    pub(super) fn detach(&self, client: &Arc<Client>, number: u64, router: &Router) {
        let mut by_id = self.by_id.lock();
        let mut connection = client.connection.lock();
        if connection.number != number {
            return;
        }
        client.session.lock().detach();
        if connection.expiry.is_zero() {
            drop(connection);
            forget(client, router);
            if by_id.get(client.id()).is_some_and(|known| Arc::ptr_eq(known, client)) {
                by_id.remove(client.id());
            }
        } else {
            connection.ends = Some(Instant::now() + connection.expiry);
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
            by_id.values().filter_map(|client| Some((away(client)?, client.id.clone()))).collect();
        gone.sort();
        // A tenth at once, so that a full house is not searched at every connection.
        let room = if full { MAX_SESSIONS / 10 } else { 0 };
        for (at, (ends, id)) in gone.into_iter().enumerate() {
            if (ends <= now || at < room)
                && let Some(client) = by_id.remove(&id)
            {
                tracing::info!(client = %id, expired = ends <= now, "The session of a client that is away was ended");
                forget(&client, router);
            }
        }
    }
}

fn forget(client: &Arc<Client>, router: &Router) {
    let filters: Vec<String> = client.session.lock().filters().map(str::to_owned).collect();
    for filter in filters {
        router.unsubscribe(client, &filter);
    }
}
