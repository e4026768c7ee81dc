//! Links to mates: dialled, taken, lost.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anylog_net::{Link, LinkReceiver};
use anylog_replica::Event;
use anylog_replica::message::{Body, Hello, VERSION};
use jiff::Timestamp;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Driver, Input, NotTaken};
use crate::replica::holdings;
use crate::replica::link::{self, PURPOSE, Session};
use crate::tables::blocking;

/// How long a mate may take to take a link.
const PATIENCE: Duration = Duration::from_secs(4);
/// Pause after a link that failed; doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The member with the higher number dials a little later, so that one link is made and not two.
const HEAD_START: Duration = Duration::from_millis(150);
/// Two links that were made within this time were dialled at once, by both sides.
const AT_ONCE: Duration = Duration::from_secs(2);

/// A mate as the ledger tells it.
#[derive(Debug, Clone)]
pub(super) struct Mate {
    pub(super) policy: String,
    pub(super) name: String,
    pub(super) address: String,
    /// Ends its dialler when it leaves the cluster.
    gone: CancellationToken,
    /// Wakes its dialler out of a pause.
    wake: Arc<Notify>,
}

impl Driver {
    /// A number that was drawn while the master was away may have been taken: the master gave another one.
    fn check_number(&self, listed: i64) {
        if listed == self.own.member {
            return;
        }
        let text = format!(
            "This node runs as member {}, and the ledger says that it is member {listed}, because the other number was taken: start \
             the operator again (exit operator, run operator)",
            self.own.member
        );
        if self.notes.lock().trouble(listed, self.shared.node.clock.now(), text.clone()) {
            self.report("Number", text);
        }
    }

    /// Takes up what the ledger tells of the cluster.
    pub(super) fn look_at_ledger(self: &Arc<Self>) {
        let (view, own) = (self.ledger.view(), self.ledger.own_addresses());
        if let Some(own) = view.operator(&self.own.id) {
            let address = own.address();
            let before = std::mem::replace(&mut *self.listed.lock(), address.clone());
            if before != address {
                // Somebody says that this member is elsewhere.
                self.doubt();
            }
            self.check_number(own.member);
        }
        let before = Arc::clone(&self.mates.read());
        let mut now = BTreeMap::new();
        for operator in view.operators_of(&self.own.cluster) {
            if operator.member == self.own.member || operator.id == self.own.id {
                continue;
            }
            let reached = self.ledger.policy(&operator.id).and_then(|policy| own.reach(&policy));
            let address = reached.unwrap_or_else(|| operator.address());
            let (policy, name) = (operator.id.clone(), operator.name.clone());
            let known = before.get(&operator.member);
            let (gone, wake) = known.map_or_else(Default::default, |mate| (mate.gone.clone(), Arc::clone(&mate.wake)));
            if known.is_some_and(|mate| mate.address != address) {
                // R22: the mate is somewhere else now.
                wake.notify_one();
            }
            now.entry(operator.member).or_insert(Mate { policy, name, address, gone, wake });
        }
        let same = now.len() == before.len()
            && now.iter().zip(before.iter()).all(|((a, mate), (b, known))| {
                a == b && mate.policy == known.policy && mate.name == known.name && mate.address == known.address
            });
        if same {
            return;
        }
        let members: Vec<i64> = now.keys().copied().collect();
        let new: Vec<i64> = members.iter().filter(|member| !before.contains_key(member)).copied().collect();
        for (_, left) in before.iter().filter(|(member, _)| !now.contains_key(member)) {
            left.gone.cancel();
        }
        let diallers: Vec<(i64, CancellationToken)> =
            new.into_iter().filter_map(|member| Some((member, now.get(&member)?.gone.clone()))).collect();
        *self.mates.write() = Arc::new(now);
        self.handle(Event::Mates(members));
        for (mate, gone) in diallers {
            let driver = Arc::clone(self);
            self.spawn(async move {
                tokio::select! {
                    () = driver.dial_always(mate) => {}
                    () = gone.cancelled() => {}
                }
            });
        }
        self.changed();
    }

    /// What diallers look at changed.
    fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Dials at once whoever is not linked.
    pub(super) fn wake_diallers(&self) {
        for mate in self.mates.read().values() {
            mate.wake.notify_one();
        }
        self.changed();
    }

    fn mate(&self, mate: i64) -> Option<Mate> {
        self.mates.read().get(&mate).cloned()
    }

    fn is_linked(&self, mate: i64) -> bool {
        self.sessions.lock().contains_key(&mate)
    }

    /// Dials a mate whenever it is not linked.
    async fn dial_always(self: Arc<Self>, mate: i64) {
        let mut changes = self.changes.subscribe();
        let mut pause = FIRST_PAUSE;
        if self.own.member > mate {
            tokio::time::sleep(HEAD_START).await;
        }
        loop {
            changes.borrow_and_update();
            let known = self.mate(mate).filter(|_| self.told.borrow().dials() && !self.is_linked(mate));
            let Some(Mate { address, wake, .. }) = known else {
                if changes.changed().await.is_err() {
                    return;
                }
                continue;
            };
            match self.dial(mate, &address).await {
                Ok(session) => {
                    let began = session.began;
                    session.closed.cancelled().await;
                    // A link that holds is dialled again at once when it breaks, one that does not after a pause.
                    if began.elapsed() > LONGEST_PAUSE {
                        pause = FIRST_PAUSE;
                    }
                }
                Err(reason) => {
                    if self.notes.lock().trouble(mate, self.shared.node.clock.now(), reason.clone()) {
                        tracing::warn!(mate, %address, %reason, "A mate is not linked");
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                () = wake.notified() => pause = FIRST_PAUSE,
            }
        }
    }

    /// How this member greets.
    fn hello(&self) -> Hello {
        Hello {
            version: VERSION,
            member: self.own.member,
            cluster: self.own.cluster.clone(),
            policy: self.own.id.clone(),
            key: self.key.clone(),
            since: self.told.borrow().since(),
        }
    }

    /// Links a mate.
    async fn dial(self: &Arc<Self>, mate: i64, address: &str) -> Result<Arc<Session>, String> {
        let peers = self.ledger.peers();
        let Link { sender, mut receiver } =
            peers.link(address, PURPOSE, PATIENCE).await.map_err(|error| error.to_string())?;
        let greeted = self.hello();
        let message = anylog_replica::message::Message::from(Body::Hello(greeted.clone()));
        sender.send(message.to_bytes().into()).await.map_err(|error| format!("node {address}: {error}"))?;
        let hello = link::greeting(&mut receiver).await.map_err(|reason| format!("node {address}: {reason}"))?;
        if hello.member != mate {
            return Err(format!(
                "node {address} is member {} where member {mate} is expected: its operator policy has a wrong address",
                hello.member
            ));
        }
        let session = Session::begin(mate, sender, Some(greeted));
        match self.join(&session, &hello).await {
            Ok(()) => {
                self.spawn(Arc::clone(self).read(Arc::clone(&session), receiver, hello));
                Ok(session)
            }
            Err(NotTaken::Refused(reason)) => {
                session.send(&Body::Refused(anylog_replica::message::Refused { reason: reason.clone() }).into());
                session.finish();
                Err(format!("node {address}: {reason}"))
            }
            Err(NotTaken::Twice) => {
                session.close();
                Ok(session)
            }
        }
    }

    /// Asks the driver to take a link.
    async fn join(&self, session: &Arc<Session>, hello: &Hello) -> Result<(), NotTaken> {
        let (answer, taken) = oneshot::channel();
        let input = Input::Up { session: Arc::clone(session), hello: hello.clone(), answer };
        let ended = || NotTaken::Refused("the operator of this node ends".to_owned());
        self.inputs.send(input).await.map_err(|_| ended())?;
        taken.await.unwrap_or_else(|_| Err(ended()))
    }

    /// Takes a link, or not.
    pub(super) fn admit(self: &Arc<Self>, session: &Arc<Session>, hello: &Hello) -> Result<(), NotTaken> {
        let objection = self.member.lock().objection(hello);
        if let Some(reason) = objection {
            if self.notes.lock().trouble(session.mate, self.shared.node.clock.now(), reason.clone()) {
                self.report("Conflict", reason.clone());
            }
            return Err(NotTaken::Refused(reason));
        }
        // Of two links that both sides dialled at once, both keep the one that the lower number dialled; else the newer counts, as who
        // dials has lost the older.
        let lower_dialled = |session: &Session| session.dialled == (self.own.member < session.mate);
        if let Some(current) = self.session(session.mate) {
            let at_once = current.began.elapsed() < AT_ONCE && !current.closed.is_cancelled();
            if at_once && lower_dialled(&current) && !lower_dialled(session) {
                return Err(NotTaken::Twice);
            }
            self.let_go(&current);
            current.close();
        }
        self.sessions.lock().insert(session.mate, Arc::clone(session));
        self.notes.lock().up(session.mate, self.shared.node.clock.now());
        tracing::info!(mate = session.mate, dialled = session.dialled, "A mate is linked");
        self.handle(Event::Up(session.mate));
        self.changed();
        Ok(())
    }

    pub(super) fn is_current(&self, session: &Arc<Session>) -> bool {
        self.sessions.lock().get(&session.mate).is_some_and(|current| Arc::ptr_eq(current, session))
    }

    /// What was under way over a link is over.
    fn let_go(self: &Arc<Self>, session: &Session) {
        for file in self.fetches.lost(session.mate) {
            self.handle(Event::Arrived(file));
        }
        // Neither does what was asked for because of that.
        self.fetches.lost(session.mate);
        self.sends.lost(session.mate);
        let traffic = (session.sent.load(Ordering::Relaxed), session.received.load(Ordering::Relaxed));
        self.notes.lock().traffic_of_ended(session.mate, traffic);
    }

    /// A link is at its end.
    pub(super) fn down(self: &Arc<Self>, session: &Arc<Session>, reason: Option<String>) {
        if !self.is_current(session) {
            return;
        }
        self.sessions.lock().remove(&session.mate);
        self.let_go(session);
        let reason = reason.unwrap_or_else(|| "the mate ended the link".to_owned());
        tracing::info!(mate = session.mate, %reason, "A mate is not linked any more");
        // Whoever sees that the mate is away finds that it does not count any more.
        self.handle(Event::Down(session.mate));
        self.notes.lock().down(session.mate, self.shared.node.clock.now(), reason);
        self.changed();
    }

    /// Passes on what comes over a link, until it ends.
    async fn read(self: Arc<Self>, session: Arc<Session>, mut receiver: LinkReceiver, hello: Hello) {
        let reading = async {
            self.pass_on(&session, Body::Hello(hello).into()).await;
            loop {
                match link::receive(&mut receiver).await {
                    Ok(Some((message, length))) => {
                        session.received.fetch_add(length as u64, Ordering::Relaxed);
                        self.pass_on(&session, message).await;
                    }
                    Ok(None) => return None,
                    Err(reason) => return Some(reason),
                }
            }
        };
        let reason = tokio::select! {
            reason = reading => reason,
            () = session.closed.cancelled() => None,
        };
        session.close();
        drop(self.inputs.send(Input::Down { session, reason }).await);
    }

    async fn pass_on(&self, session: &Arc<Session>, message: anylog_replica::message::Message) {
        let mut first = None;
        match &message.body {
            Some(Body::Piece(piece)) => return self.fetches.piece(session.mate, piece.clone()).await,
            Some(Body::Taken(taken)) => {
                let file = taken.key();
                return self.sends.taken(session.mate, file, taken.offset);
            }
            Some(Body::Hello(hello)) if hello.since > 0 => first = self.first_since(hello.since).await,
            _ => {}
        }
        // When nobody listens the driver has ended, and this link with it.
        drop(self.inputs.send(Input::Message { session: Arc::clone(session), message, first }).await);
    }

    /// The first files from a time on, by producer.
    async fn first_since(&self, since: i64) -> Option<Vec<(i64, i64)>> {
        let since = Timestamp::from_microsecond(since).ok()?;
        let shared = Arc::clone(&self.shared);
        let files = blocking(move || holdings::complete_files(&shared, Some(since))).await;
        match files {
            Ok(files) => Some(files.into_iter().filter_map(|(of, files)| Some((of, files.first()?))).collect()),
            Err(error) => {
                tracing::warn!(%error, "Files cannot be chosen by time; a mate is told of all");
                None
            }
        }
    }
}

/// Takes a link that another node asked for, and serves it until it ends.
pub(in crate::replica) async fn accept(driver: Arc<Driver>, from: SocketAddr, mut link: Link) {
    let hello = tokio::select! {
        hello = link::greeting(&mut link.receiver) => hello,
        () = driver.stop.cancelled() => return,
    };
    let hello = match hello {
        Ok(hello) => hello,
        Err(reason) => return tracing::debug!(%from, %reason, "A link that another node asked for did not begin"),
    };
    // Whoever comes is there: what was put off because it was not is tried now.
    if let Some(mate) = driver.mate(hello.member) {
        mate.wake.notify_one();
    } else {
        // Its policy is on its way here.
        driver.ledger.wake_sync();
    }
    let objection = driver.member.lock().objection(&hello);
    if let Some(reason) = objection {
        if driver.notes.lock().trouble(hello.member, driver.shared.node.clock.now(), reason.clone()) {
            driver.report("Conflict", reason.clone());
        }
        return link::refuse(link, reason).await;
    }
    let Link { sender, receiver } = link;
    let session = Session::begin(hello.member, sender, None);
    // The server that ends drops this future, and with it the link.
    let _closing = session.closed.clone().drop_guard();
    match driver.join(&session, &hello).await {
        Ok(()) => {
            driver.spawn(Arc::clone(&driver).read(Arc::clone(&session), receiver, hello));
            session.closed.cancelled().await;
        }
        Err(NotTaken::Twice) => {}
        Err(NotTaken::Refused(reason)) => {
            session.send(&Body::Refused(anylog_replica::message::Refused { reason }).into());
            session.finish();
            session.closed.cancelled().await;
        }
    }
}
