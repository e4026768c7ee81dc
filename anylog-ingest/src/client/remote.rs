//! A client of another broker: it connects, and connects again, for as long as it lives.
//!
//! Two loops run side by side: one serves the connection, the other stores ([`Storer`]). Neither waits for the other, so a slow store
//! stops no ping, and messages that are being stored outlive the connection that they came by.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::ConnectionState;
use super::Encryption;
use super::connection::{Connection, Ended, Stream, open};
use super::storer::{Load, Storer};
use crate::broker::codec::Version;
use crate::subscription::Subscription;

/// First and longest pause before the next connection.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// Longest pause after a connection that was subscribed, but brought nothing.
const SHORT_BACK_OFF: Duration = Duration::from_secs(5);

/// How often a broker that took a version of the protocol before may hang up on it before the other one is tried.
const VERSION_FAULTS: u32 = 3;

/// A client of another broker.
#[derive(Debug)]
pub(crate) struct Remote {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) login: Option<(String, String)>,
    pub(super) tls: Option<Encryption>,
    pub(super) client_id: String,
    pub(super) keep_alive: Duration,
    pub(super) deadline: Duration,
    pub(super) topics: Vec<Arc<Subscription>>,
    pub(super) storer: Storer,
    pub(super) stop: CancellationToken,
    /// Cancelled when it has ended and nothing of it is being stored any more.
    ended: CancellationToken,
    state: watch::Sender<ConnectionState>,
    /// Connections that the broker accepted.
    connections: AtomicU64,
    resubscribed: AtomicU64,
    /// Whether a session at the broker was there before in this run.
    had_session: AtomicBool,
    speaks_v5: AtomicBool,
}

/// Where a client connects to, and as whom.
#[derive(Debug)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) login: Option<(String, String)>,
    pub(crate) tls: Option<Encryption>,
    pub(crate) client_id: String,
    pub(crate) keep_alive: Duration,
    /// For the TCP connection, and for the answers up to the one to SUBSCRIBE.
    pub(crate) deadline: Duration,
}

impl Remote {
    pub(crate) fn new(
        address: Address,
        topics: Vec<Arc<Subscription>>,
        intake: Arc<crate::intake::Intake>,
        slot: Arc<crate::SinkSlot>,
        stop: CancellationToken,
    ) -> Self {
        let Address { host, port, login, tls, client_id, keep_alive, deadline } = address;
        let keeper = format!("client of {host}:{port} as {client_id}");
        Self {
            storer: Storer::new(intake, slot, &topics, keeper.into()),
            host,
            port,
            login,
            tls,
            client_id,
            keep_alive,
            deadline,
            topics,
            stop,
            ended: CancellationToken::new(),
            state: watch::Sender::new(ConnectionState::Connecting),
            connections: AtomicU64::new(0),
            resubscribed: AtomicU64::new(0),
            had_session: AtomicBool::new(false),
            speaks_v5: AtomicBool::new(false),
        }
    }

    /// How it stands.
    pub(crate) fn state(&self) -> ConnectionState {
        self.state.borrow().clone()
    }

    pub(super) fn set_state(&self, state: ConnectionState) {
        match &state {
            ConnectionState::Connected => {
                tracing::info!(broker = %self.host, port = self.port, "Subscriptions confirmed by the message broker");
            }
            ConnectionState::Refused { reason } | ConnectionState::Lost { reason, .. } => {
                tracing::warn!(broker = %self.host, port = self.port, %reason, "Not connected to the message broker");
            }
            ConnectionState::Connecting => {}
        }
        self.state.send_replace(state);
    }

    /// How often it subscribed again on a fresh session.
    pub(crate) fn resubscribed(&self) -> u64 {
        self.resubscribed.load(Ordering::Relaxed)
    }

    /// Connections that the broker accepted.
    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// The protocol of the last connection.
    pub(crate) fn protocol(&self) -> &'static str {
        match (self.speaks_v5.load(Ordering::Relaxed), self.tls.is_some()) {
            (true, false) => "MQTT 5",
            (true, true) => "MQTT 5 over TLS",
            (false, false) => "MQTT 3.1.1",
            (false, true) => "MQTT 3.1.1 over TLS",
        }
    }

    /// What is under way.
    pub(crate) fn load(&self) -> Load {
        self.storer.load()
    }

    /// Ends it. What is being stored is stored to its end.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Whether it has the session of `address`.
    pub(crate) fn is_at(&self, address: &Address) -> bool {
        (&self.host, self.port, &self.client_id) == (&address.host, address.port, &address.client_id)
    }

    /// Whether it has ended, and nothing of it is being stored.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Waits until the first connection stands or failed.
    pub(crate) async fn first_state(&self) -> ConnectionState {
        let mut states = self.state.subscribe();
        match states.wait_for(|state| *state != ConnectionState::Connecting).await {
            Ok(state) => state.clone(),
            Err(_) => ConnectionState::Lost { reason: Ended::Stopped.text(), lasting: true },
        }
    }

    /// Keeps the client connected, and stores, until it is stopped.
    pub(crate) async fn run(self: Arc<Self>) {
        tokio::join!(self.storer.run(&self.stop), self.stay_connected());
        self.ended.cancel();
        tracing::info!(broker = %self.host, port = self.port, "Message client ended");
    }

    async fn stay_connected(&self) {
        let mut pause = Pause::default();
        let mut version = Versions::default();
        while !self.stop.is_cancelled() {
            let mut connection = Connection::new(self, version.next);
            let ended = tokio::select! {
                opened = self.open() => match opened {
                    Ok(stream) => connection.serve(stream).await,
                    Err(ended) => ended,
                },
                () = self.stop.cancelled() => break,
            };
            if self.stop.is_cancelled() || version.turn(&ended, connection.is_accepted()) {
                continue;
            }
            self.set_state(ConnectionState::Lost { reason: ended.text(), lasting: ended.is_lasting() });
            tokio::select! {
                () = tokio::time::sleep(pause.after(Stood::of(&connection, &ended))) => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    /// Opens a connection, and encrypts it when it is to be.
    async fn open(&self) -> Result<Box<dyn Stream>, Ended> {
        let stream = open(&self.host, self.port, self.deadline).await?;
        match &self.tls {
            None => Ok(Box::new(stream)),
            Some(tls) => Ok(Box::new(tls.begin(stream, self.deadline).await?)),
        }
    }

    /// The broker accepted a connection.
    pub(super) fn accepted(&self, version: Version, session_present: bool) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.speaks_v5.store(version == Version::V5, Ordering::Relaxed);
        if self.had_session.swap(true, Ordering::Relaxed) && !session_present {
            self.resubscribed.fetch_add(1, Ordering::Relaxed);
        }
        self.storer.opened(session_present);
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Which version of the protocol the broker speaks: 5 is tried first, because its window is as wide as the client wants.
#[derive(Debug)]
struct Versions {
    next: Version,
    /// It was accepted before.
    known: bool,
    /// Connections in a row that failed over the version, perhaps.
    faults: u32,
}

impl Default for Versions {
    fn default() -> Self {
        Self { next: Version::V5, known: false, faults: 0 }
    }
}

impl Versions {
    /// Learns from the end of a connection; true when the other version is to be tried at once.
    fn turn(&mut self, ended: &Ended, accepted: bool) -> bool {
        if accepted {
            (self.known, self.faults) = (true, 0);
            return false;
        }
        let silent = matches!(ended, Ended::NoAnswer("CONNECT", _));
        if !ended.is_about_version() && !silent {
            return false;
        }
        self.faults += 1;
        let says_so = matches!(ended, Ended::Refused(..));
        if self.known && !says_so && self.faults < VERSION_FAULTS {
            return false;
        }
        self.known = false;
        self.next = if self.next == Version::V5 { Version::V4 } else { Version::V5 };
        // Both in a row and no more, so that a broker that refuses either is not asked without a pause.
        self.faults % 2 == 1 && !silent
    }
}

/// How good a connection was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stood {
    /// Its subscriptions were never confirmed, or another client with the same id threw it out.
    Never,
    /// It was subscribed for so long, and brought nothing.
    For(Duration),
    /// It brought messages.
    Well,
}

impl Stood {
    fn of(connection: &Connection<'_>, ended: &Ended) -> Self {
        match connection.ready {
            None => Stood::Never,
            Some(_) if matches!(ended, Ended::Farewell(0x8e, _)) => Stood::Never,
            Some(_) if connection.served => Stood::Well,
            Some(since) => Stood::For(since.elapsed()),
        }
    }
}

/// Growing pauses between connections.
#[derive(Debug, Default)]
struct Pause {
    last: Duration,
}

impl Pause {
    /// The pause after a connection. One that brought messages, or stood at least as long as the pause before it, ends the growth; so
    /// a broker that restarts often is met again soon, and one that takes each connection and ends it at once is not asked without end.
    fn after(&mut self, stood: Stood) -> Duration {
        let longer = (self.last * 2).max(BACK_OFF.0);
        self.last = match stood {
            Stood::Never => longer.min(BACK_OFF.1),
            Stood::For(time) if time < self.last => longer.min(SHORT_BACK_OFF),
            Stood::For(_) | Stood::Well => BACK_OFF.0,
        };
        // Clients of one broker that restarts do not all come at the same moment.
        let chance = std::hash::RandomState::new().build_hasher().finish() % 1000;
        self.last / 2 + self.last.mul_f64(f64::from(u32::try_from(chance).unwrap_or(0)) / 2000.0)
    }
}

/// FNV-1a over some texts: the same in every version and on every machine, which a client id has to be.
pub(crate) fn fingerprint<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for byte in part.iter().chain(&[0xff]) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_a_connection_is_of_use() {
        for (stood, longest) in [(Stood::Never, BACK_OFF.1), (Stood::For(Duration::ZERO), SHORT_BACK_OFF)] {
            let mut pause = Pause::default();
            let mut last = pause.after(Stood::Never);
            for _ in 0..20 {
                let next = pause.after(stood);
                assert!(next <= longest && next * 4 >= last, "{next:?} after {last:?}");
                last = next;
            }
            assert!(last >= longest / 2);
            assert!(pause.after(Stood::For(Duration::from_secs(60))) <= BACK_OFF.0);
            pause.after(Stood::Never);
            assert!(pause.after(Stood::Well) <= BACK_OFF.0);
        }
    }

    #[test]
    fn a_version_that_is_refused_gives_way_to_the_other_once_without_a_pause() {
        let refused = || Ended::Refused(Version::V5, 1, None);
        let mut versions = Versions::default();
        assert!(versions.turn(&refused(), false));
        assert_eq!(versions.next, Version::V4);
        assert!(!versions.turn(&Ended::Closed, true));
        assert_eq!(versions.next, Version::V4);
        // A broker that restarts behind a proxy hangs up at once; it speaks what it spoke before.
        assert!(!versions.turn(&Ended::ClosedAtOnce, false));
        assert_eq!(versions.next, Version::V4);

        let mut versions = Versions::default();
        assert!(versions.turn(&Ended::ClosedAtOnce, false));
        assert!(!versions.turn(&Ended::ClosedAtOnce, false), "both were tried");
    }
}
