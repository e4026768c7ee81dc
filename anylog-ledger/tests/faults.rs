//! Whole networks under random faults: lost questions, lost answers, delays, partitions, restarts of nodes and of the master.
//!
//! A failure prints its seed; `LEDGER_SEED=<seed> cargo test -p anylog-ledger --test faults` runs that one again.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use anylog_core::{Caller, CommandError, Node, Session};
use anylog_dbms::{Catalog, catalog::ConnectRequest};
use anylog_ledger::sync::source::MasterSource;
use anylog_ledger::{Destinations, Ledger, Policy, commands};
use anylog_net::{PeerError, PeerReply, PeerRequest, PeerStream, Peers, StreamDeadlines};
use async_trait::async_trait;
use futures_util::stream::StreamExt;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

const MASTER: &str = "10.0.0.1:32048";
const NODES: usize = 3;

/// The network between the nodes.
#[derive(Debug)]
struct Net {
    nodes: Mutex<HashMap<String, Arc<Ledger>>>,
    cut: tokio::sync::watch::Sender<HashSet<String>>,
    chance: Mutex<StdRng>,
    calm: std::sync::atomic::AtomicBool,
}

impl Net {
    fn rolls(&self, percent: u32) -> bool {
        let calm = self.calm.load(std::sync::atomic::Ordering::SeqCst);
        !calm && self.chance.lock().random_range(0..100) < percent
    }

    fn is_cut(&self, address: &str) -> bool {
        self.cut.borrow().contains(address)
    }
}

/// The way of one node into the network.
#[derive(Debug)]
struct Wire {
    net: Arc<Net>,
    own: String,
}

impl Wire {
    fn gone(address: &str) -> PeerError {
        PeerError::Unreachable { address: address.to_owned(), reason: "the network lost it".to_owned() }
    }

    fn reach(&self, address: &str) -> Result<Arc<Ledger>, PeerError> {
        if self.net.is_cut(address) || self.net.is_cut(&self.own) {
            return Err(Self::gone(address));
        }
        self.net.nodes.lock().get(address).cloned().ok_or_else(|| Self::gone(address))
    }
}

async fn answer(ledger: Arc<Ledger>, request: PeerRequest) -> Result<PeerReply, CommandError> {
    match request {
        PeerRequest::LedgerChanges(question) => {
            tokio::task::spawn_blocking(move || ledger.answer_changes(&question)).await.unwrap()
        }
        PeerRequest::Command { text } => {
            let mut session = Session::new(Arc::clone(ledger.node()), Caller::embedded());
            Ok(PeerReply::Text(session.execute(&text).await?.into_text().await?))
        }
        other => panic!("{other:?}"),
    }
}

#[async_trait]
impl Peers for Wire {
    async fn call(&self, address: &str, request: PeerRequest, after: Duration) -> Result<PeerReply, PeerError> {
        if self.net.rolls(30) {
            let pause = self.net.chance.lock().random_range(0..15);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        if self.net.rolls(10) {
            return Err(Self::gone(address));
        }
        let ledger = self.reach(address)?;
        // A caller that gives up does not stop the command.
        let reply = tokio::spawn(answer(ledger, request)).await.unwrap();
        if self.net.rolls(10) || self.reach(address).is_err() {
            return Err(PeerError::TimeOut { address: address.to_owned(), after });
        }
        reply.map_err(|error| PeerError::Refused { address: address.to_owned(), error })
    }

    async fn stream(&self, address: &str, _: PeerRequest, _: StreamDeadlines) -> Result<PeerStream, PeerError> {
        let ledger = self.reach(address)?;
        let pieces = ledger.follow();
        // The subscription must not keep a node alive that was restarted.
        drop(ledger);
        let (net, own, to) = (Arc::clone(&self.net), self.own.clone(), address.to_owned());
        let lost = Self::gone(address);
        let pieces = pieces.map(move |piece| {
            if net.is_cut(&to) || net.is_cut(&own) || net.rolls(5) {
                return Err(lost.clone());
            }
            Ok(piece.unwrap_or_default())
        });
        Ok(pieces.boxed())
    }
}

/// A node with a home that outlives it.
struct Member {
    address: String,
    home: tempfile::TempDir,
    ledger: Arc<Ledger>,
    /// Who holds the ledger when nothing of it is under way: this, and its commands.
    held: usize,
    master: bool,
}

impl Member {
    async fn new(net: &Arc<Net>, address: String, master: bool) -> Self {
        let home = tempfile::tempdir().unwrap();
        let (ledger, held) = Self::launch(net, &address, home.path(), master).await;
        Self { address, home, ledger, held, master }
    }

    async fn launch(net: &Arc<Net>, address: &str, home: &std::path::Path, master: bool) -> (Arc<Ledger>, usize) {
        let node = Node::builder().home(home).build();
        node.set_address(Some(address.to_owned()));
        let catalog = Catalog::new(Arc::clone(&node));
        if master {
            let (catalog, directory) = (Arc::clone(&catalog), home.join("dbms"));
            let connecting = tokio::task::spawn_blocking(move || {
                std::fs::create_dir_all(&directory).unwrap();
                catalog.connect(ConnectRequest::sqlite("blockchain", directory)).map(|_| ()).unwrap();
            });
            connecting.await.unwrap();
        }
        let wire = Arc::new(Wire { net: Arc::clone(net), own: address.to_owned() });
        let ledger = Ledger::new(Arc::clone(&node), catalog, Arc::clone(&wire) as Arc<dyn Peers>);
        node.registry.register_all(commands::commands(&ledger)).unwrap();
        let held = Arc::strong_count(&ledger);
        net.nodes.lock().insert(address.to_owned(), Arc::clone(&ledger));
        if !master {
            let (ledger, source) = (Arc::clone(&ledger), Arc::new(MasterSource::new(wire, MASTER)));
            // The period is long: what arrives was pushed, or asked for after a failure.
            // Nobody waits for the first exchange, nor does a node that ends.
            let shutdown = node.shutdown.clone();
            tokio::spawn(async move {
                let starting = ledger.start_sync(source, Duration::from_secs(3600), false);
                shutdown.run_until_cancelled(starting).await
            });
        }
        (ledger, held)
    }

    /// Ends the node at once and starts another one in its home.
    async fn restart(&mut self, net: &Arc<Net>) {
        net.nodes.lock().remove(&self.address);
        self.ledger.node().shutdown.cancel();
        // A process that was killed writes nothing more; what this one has begun is waited for.
        let at_rest = async {
            while Arc::strong_count(&self.ledger) > self.held {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), at_rest).await.expect("what was begun comes to its end");
        if self.master {
            let catalog = Arc::clone(self.ledger.catalog());
            tokio::task::spawn_blocking(move || catalog.disconnect("blockchain").map(|_| ())).await.unwrap().ok();
        }
        (self.ledger, self.held) = Self::launch(net, &self.address, self.home.path(), self.master).await;
    }
}

/// What was written, and what its writer was told.
#[derive(Default)]
struct Told {
    /// Ids that the master accepted, as the writer was told.
    accepted: HashSet<String>,
    /// Ids that the writer keeps.
    kept: HashSet<String>,
    /// Ids that somebody deleted.
    deleted: HashSet<String>,
}

fn some_policy(chance: &mut StdRng, serial: usize, clusters: &[String]) -> Policy {
    let value = match chance.random_range(0..3) {
        // Few names, so that nodes contend for them.
        0 => json!({"cluster": {"company": format!("co{serial}"), "name": format!("c{}", chance.random_range(0..12))}}),
        1 if !clusters.is_empty() => json!({"operator": {
            "name": format!("op{serial}"), "company": "co", "ip": "10.1.1.1", "port": 1000 + chance.random_range(0..12),
            "cluster": clusters[chance.random_range(0..clusters.len())]}}),
        _ => json!({"site": {"name": format!("s{serial}"), "text": "x".repeat(chance.random_range(0..50))}}),
    };
    Policy::from_value(value).unwrap()
}

async fn one_history(seed: u64) {
    let mut chance = StdRng::seed_from_u64(seed);
    let net = Arc::new(Net {
        nodes: Mutex::default(),
        cut: tokio::sync::watch::Sender::default(),
        chance: Mutex::new(StdRng::seed_from_u64(seed + 1)),
        calm: false.into(),
    });
    let mut master = Member::new(&net, MASTER.to_owned(), true).await;
    let mut members = Vec::new();
    for number in 0..NODES {
        members.push(Member::new(&net, format!("10.0.0.{}:32148", number + 2), false).await);
    }
    let mut told = Told::default();
    for serial in 0..60 {
        let at = chance.random_range(0..NODES);
        match chance.random_range(0..20) {
            0..=11 => {
                let ledger = &members[at].ledger;
                let clusters: Vec<String> = ledger.policies("cluster").iter().map(|p| p.id().to_owned()).collect();
                let policy = some_policy(&mut chance, serial, &clusters);
                let to =
                    if chance.random_bool(0.8) { Destinations::with_master(MASTER) } else { Destinations::local() };
                if let Ok(written) = ledger.insert(policy, &to).await {
                    told.kept.insert(written.id().to_owned());
                    told.deleted.remove(written.id());
                    if !written.is_local() {
                        told.accepted.insert(written.id().to_owned());
                    }
                }
            }
            12 | 13 => {
                let sites = members[at].ledger.policies("site");
                if !sites.is_empty() {
                    let id = sites[chance.random_range(0..sites.len())].id().to_owned();
                    // Also a deletion whose outcome is not known may take effect.
                    told.deleted.insert(id.clone());
                    members[at].ledger.delete(&id, &Destinations::with_master(MASTER)).await.ok();
                }
            }
            14 | 15 => net.cut.send_modify(|cut| {
                let address = if chance.random_bool(0.3) { MASTER.to_owned() } else { members[at].address.clone() };
                if !cut.remove(&address) {
                    cut.insert(address);
                }
            }),
            16 => members[at].restart(&net).await,
            17 => master.restart(&net).await,
            _ => tokio::time::sleep(Duration::from_millis(chance.random_range(0..30))).await,
        }
    }
    settle(seed, &net, &master, &members).await;
    judge(seed, &told, &master, &members);
    let (kept, accepted, deleted) = (told.kept.len(), told.accepted.len(), told.deleted.len());
    eprintln!(
        "  {kept} written, {accepted} accepted at once, {deleted} deleted, {} at the master",
        at_master(&master).len()
    );
    for member in members.iter().chain([&master]) {
        member.ledger.node().shutdown.cancel();
    }
}

fn at_master(master: &Member) -> Vec<Arc<Policy>> {
    master.ledger.pull().map(|(policies, _)| policies).unwrap_or_default()
}

fn ids<'a>(policies: impl IntoIterator<Item = &'a Arc<Policy>>) -> Vec<String> {
    policies.into_iter().map(|policy| policy.id().to_owned()).collect()
}

/// Ends all faults and waits until every node shows what the master holds, and keeps to itself only what was refused.
async fn settle(seed: u64, net: &Arc<Net>, master: &Member, members: &[Member]) {
    net.calm.store(true, std::sync::atomic::Ordering::SeqCst);
    net.cut.send_modify(HashSet::clear);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    for member in members {
        member.ledger.wake_sync();
    }
    loop {
        let wanted = at_master(master);
        let settled = members.iter().all(|member| {
            let contents = member.ledger.contents();
            let (local, global): (Vec<_>, Vec<_>) = contents.policies.iter().partition(|policy| policy.is_local());
            let refused = member.ledger.sync_state().map(|state| state.stats.refused).unwrap_or_default();
            let named = |policy: &Arc<Policy>| refused.iter().any(|text| text.contains(policy.id()));
            // LED-4
            let same =
                global.len() == wanted.len() && global.iter().zip(&wanted).all(|(a, b)| a.digest() == b.digest());
            same && local.iter().all(|policy| named(policy)) && contents.deleted.is_empty()
        });
        if settled {
            return;
        }
        if tokio::time::Instant::now() > deadline {
            for member in members {
                let contents = member.ledger.contents();
                eprintln!("{}: {:?}", member.address, member.ledger.sync_state().map(|state| state.stats));
                let lines: Vec<String> = contents.policies.iter().map(|policy| policy.to_json_text()).collect();
                eprintln!("{}\n{:?}", lines.join("\n"), contents.deleted);
            }
            panic!("LEDGER_SEED={seed}: the nodes did not come to agree; at the master: {:?}", ids(&wanted));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn judge(seed: u64, told: &Told, master: &Member, members: &[Member]) {
    let there = at_master(master);
    let known: HashSet<String> = ids(&there).into_iter().collect();
    // LED-1
    for id in told.accepted.difference(&told.deleted) {
        assert!(known.contains(id), "LEDGER_SEED={seed}: {id} was accepted and is not at the master");
    }
    // LED-2
    let problems = anylog_ledger::validate::problems(&there.iter().cloned().collect());
    assert!(problems.is_empty(), "LEDGER_SEED={seed}: {problems:?}");
    // LED-3
    for id in told.kept.difference(&told.deleted) {
        let somewhere = known.contains(id) || members.iter().any(|member| member.ledger.policy(id).is_some());
        assert!(somewhere, "LEDGER_SEED={seed}: {id} was written and is lost");
    }
    // LED-4: of nodes without refused policies also the versions are equal.
    let clean = members.iter().filter(|member| !member.ledger.policies("*").iter().any(|policy| policy.is_local()));
    let versions: HashSet<String> = clean.map(|member| member.ledger.version()).collect();
    assert!(versions.len() <= 1, "LEDGER_SEED={seed}: {versions:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn networks_under_faults_lose_nothing_and_agree() {
    let seeds: Vec<u64> = match std::env::var("LEDGER_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None => (0..7).chain([rand::rng().random_range(100..1_000_000)]).collect(),
    };
    for seed in seeds {
        eprintln!("LEDGER_SEED={seed}");
        one_history(seed).await;
    }
}
