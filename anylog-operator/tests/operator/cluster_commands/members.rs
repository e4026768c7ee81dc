//! Members of one cluster in one process.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anylog_core::{Caller, CommandError, Node, Session, Surface};
use anylog_dbms::ConnectRequest;
use anylog_ledger::{Destinations, Policy};
use anylog_net::{LinkHandler, Links, LocalPeers, PeerReply, PeerRequest, PeerService};
use anylog_operator::disk::FileDisk;
use anylog_operator::{Identity, OperatorConfig};
use serde_json::{Value, json};

use crate::harness::{TestNode, numbered, rows};

/// Members ask from other machines: they may read and add data, no more.
const FAR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 99)), 5000);
/// How long a test waits for what must come.
const LONG: Duration = Duration::from_secs(60);

/// What a member answers to others: commands, and links.
struct Answering {
    node: Arc<Node>,
    links: Links,
}

#[async_trait::async_trait]
impl PeerService for Answering {
    async fn answer(&self, _: SocketAddr, request: PeerRequest) -> Result<PeerReply, CommandError> {
        let PeerRequest::Command { text } = request else {
            return Err(CommandError::process("only commands are answered"));
        };
        let mut session = Session::new(Arc::clone(&self.node), Caller::network(Surface::Peer, FAR, false));
        Ok(PeerReply::Text(session.execute(&text).await?.into_text().await?))
    }

    fn link(&self, from: SocketAddr, purpose: &str) -> Result<Arc<dyn LinkHandler>, CommandError> {
        self.links.link(from, purpose)
    }
}

/// Members 1, 2, ... at `10.0.0.<number>:32148`.
pub(super) struct Members {
    pub(super) wires: Arc<LocalPeers>,
    pub(super) nodes: Vec<TestNode>,
    /// The id of their cluster.
    pub(super) cluster: String,
}

impl Members {
    /// Starts members with a home below `homes` each.
    pub(super) async fn start(homes: &Path, count: usize) -> Self {
        Self::start_on(homes, count, &|_| None).await
    }

    /// The same, with the database `d` where it is said.
    async fn start_on(homes: &Path, count: usize, on: &dyn Fn(usize) -> Option<ConnectRequest>) -> Self {
        let wires = LocalPeers::new();
        let mut nodes = Vec::new();
        for number in 1..=count {
            let address = format!("10.0.0.{number}:32148");
            let home = homes.join(number.to_string());
            let node = TestNode::among(&home, Arc::new(FileDisk), &address, wires.seen_from(address.as_str()));
            if let Some(request) = on(number) {
                let almgm = node.catalog.connect(ConnectRequest::sqlite("almgm", node.directory("dbms_dir"))).unwrap();
                almgm.tsd().unwrap().create().unwrap();
                let catalog = Arc::clone(&node.catalog);
                tokio::task::spawn_blocking(move || catalog.connect(request)).await.unwrap().unwrap();
            } else {
                node.connect();
            }
            node.register();
            node.node.registry.register_all(anylog_dbms::commands::commands(&node.catalog)).unwrap();
            let links = Links::default();
            node.operator.serve_links(&links);
            wires.add(address, Arc::new(Answering { node: Arc::clone(&node.node), links }));
            nodes.push(node);
        }
        let to = Destinations::local();
        let first = &nodes[0].ledger;
        let cluster = Policy::from_value(json!({"cluster": {"name": "c", "company": "co"}})).unwrap();
        let cluster = first.insert(cluster, &to).await.unwrap().id().to_owned();
        for number in 1..=count {
            let operator = json!({"operator": {"name": format!("op{number}"), "company": "co", "port": 32148,
                "ip": format!("10.0.0.{number}"), "cluster": cluster, "member": number}});
            first.insert(Policy::from_value(operator).unwrap(), &to).await.unwrap();
        }
        for other in &nodes[1..] {
            for policy in first.policies("*") {
                other.ledger.add((*policy).clone()).await.unwrap();
            }
        }
        for (index, node) in nodes.iter().enumerate() {
            let own = node.ledger.view().operators().iter().find(|own| own.name == format!("op{}", index + 1)).cloned();
            let config = OperatorConfig {
                identity: Identity::Policy(own.unwrap().id),
                update_tsd_info: true,
                ..OperatorConfig::default()
            };
            node.operator.run(config).await.unwrap();
        }
        Self { wires, nodes, cluster }
    }

    /// Members whose files come to all.
    pub(super) async fn exchanging(homes: &Path, count: usize) -> Self {
        Self::exchanging_on(homes, count, &|_| None).await
    }

    /// The same, with the database `d` where it is said.
    pub(super) async fn exchanging_on(
        homes: &Path,
        count: usize,
        on: &dyn Fn(usize) -> Option<ConnectRequest>,
    ) -> Self {
        let members = Self::start_on(homes, count, on).await;
        for member in 0..count {
            members.ask(member, "run data distributor").await;
            members.ask(member, "run data consumer where start_date = -30d").await;
        }
        for node in &members.nodes {
            members
                .until("all are linked", || {
                    let status = node.operator.replication().status();
                    status.mates.iter().filter(|mate| mate.link.is_up()).count() == count - 1
                })
                .await;
        }
        // The comparison that a new link brings is over: none comes by itself while a test looks.
        for member in 0..count {
            let deadline = Instant::now() + LONG;
            loop {
                let shown: Value =
                    serde_json::from_str(&members.ask(member, "get consumer where format = json").await).unwrap();
                if count == 1 || !shown["last_comparison"].is_null() {
                    break;
                }
                assert!(Instant::now() < deadline, "in time: members were compared: {shown}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        members
    }

    /// Stores rows at a member, as one file, and waits until all members have it.
    pub(super) async fn spread(&self, member: usize, table: &str, range: std::ops::Range<i64>) {
        self.spread_rows(member, table, numbered(range)).await;
    }

    /// The same of any rows.
    pub(super) async fn spread_rows(&self, member: usize, table: &str, all: Vec<String>) {
        let _ = self.nodes[member].slot.append(rows(table, all)).await.unwrap();
        self.nodes[member].operator.flush().await.unwrap();
        let files = || self.nodes[member].registered();
        let table = format!("tsd_{}", member + 1);
        for (other, node) in self.nodes.iter().enumerate().filter(|(other, _)| *other != member) {
            self.until(&format!("member {} has all", other + 1), || node.registered_in(&table) == files()).await;
        }
    }

    /// Waits until a condition holds.
    pub(super) async fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + LONG;
        while !condition() {
            if Instant::now() > deadline {
                let states: Vec<_> = self.nodes.iter().map(|node| node.operator.replication().status()).collect();
                panic!("in time: {what}: {states:#?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The digests that a member tells of its rows.
    pub(super) async fn digests(&self, member: usize) -> Value {
        let told: Value =
            serde_json::from_str(&self.ask(member, "get cluster digest where format = json").await).unwrap();
        told["digests"].clone()
    }

    /// All members have the same rows.
    pub(super) async fn agree(&self) -> bool {
        let first = self.digests(0).await;
        for member in 1..self.nodes.len() {
            if self.digests(member).await != first {
                return false;
            }
        }
        true
    }

    /// Changes a member's rows behind its back.
    pub(super) fn meddle(&self, member: usize, table: &str, sql: impl Fn(&str) -> String) {
        let directory = self.nodes[member].directory("dbms_dir").join("d.parts").join(table);
        let mut changed = 0;
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|kind| kind != "dbms") {
                continue;
            }
            let database = rusqlite::Connection::open(&path).unwrap();
            database.busy_timeout(LONG).unwrap();
            let partition = path.file_stem().unwrap().to_str().unwrap().to_owned();
            changed += database.execute(&sql(&partition), []).unwrap();
        }
        assert!(changed > 0, "something was changed");
    }

    /// What a member answers to a command.
    pub(super) async fn ask(&self, member: usize, command: &str) -> String {
        self.nodes[member].execute(command).await.unwrap_or_else(|error| panic!("{command}: {error}"))
    }
}
