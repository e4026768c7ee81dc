//! Members of a cluster that exchange files and rows, in one process, over links that are cut and healed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anylog_ingest::SinkError;
use anylog_ledger::{Destinations, Policy};
use anylog_net::{Links, LocalPeers};
use anylog_operator::disk::FileDisk;
use anylog_operator::replica::ConsumerStatus;
use anylog_operator::thresholds::{Few, ThresholdChange};
use anylog_operator::{Identity, OperatorConfig, OperatorError, ReplicationStatus};
use serde_json::json;

use crate::harness::{TestNode, numbered, rows};

/// How long a test waits for what must come.
const LONG: Duration = Duration::from_secs(60);

struct Cluster {
    wires: Arc<LocalPeers>,
    homes: tempfile::TempDir,
    policies: Vec<Policy>,
    nodes: Vec<Option<TestNode>>,
}

fn address_of(member: usize) -> String {
    format!("10.0.0.{member}:32148")
}

impl Cluster {
    /// Members 1 to `count`, none of which runs yet.
    async fn new(count: usize) -> Self {
        let homes = tempfile::tempdir().unwrap();
        let scratch = TestNode::start(&homes.path().join("scratch"));
        let to = Destinations::local();
        let cluster = json!({"cluster": {"name": "c", "company": "co"}});
        let cluster = scratch.ledger.insert(Policy::from_value(cluster).unwrap(), &to).await.unwrap();
        let mut policies = vec![(*cluster).clone()];
        for number in 1..=count {
            let operator = json!({"operator": {"name": format!("op{number}"), "company": "co", "port": 32148,
                "ip": format!("10.0.0.{number}"), "cluster": cluster.id(), "member": number}});
            let policy = scratch.ledger.insert(Policy::from_value(operator).unwrap(), &to).await.unwrap();
            policies.push((*policy).clone());
        }
        let nodes = (0..count).map(|_| None).collect();
        Self { wires: LocalPeers::new(), homes, policies, nodes }
    }

    /// All members, running, distributing and consuming.
    async fn running(count: usize) -> Self {
        let mut cluster = Self::new(count).await;
        for member in 1..=count {
            cluster.start(member).await;
        }
        for member in 1..=count {
            cluster.links(member, count - 1).await;
        }
        cluster
    }

    fn home(&self, member: usize) -> PathBuf {
        self.homes.path().join(member.to_string())
    }

    /// A member before its operator runs.
    async fn prepare(&mut self, member: usize, address: &str) -> &TestNode {
        let node = self.node_at(&self.home(member), address).await;
        self.nodes[member - 1].insert(node)
    }

    async fn node_at(&self, home: &std::path::Path, address: &str) -> TestNode {
        let node = TestNode::among(home, Arc::new(FileDisk), address, self.wires.seen_from(address));
        node.connect().immediate();
        for policy in &self.policies {
            if node.ledger.policy(policy.id()).is_none() {
                node.ledger.add(policy.clone()).await.unwrap();
            }
        }
        let links = Links::default();
        node.operator.serve_links(&links);
        self.wires.add(address, Arc::new(links));
        node
    }

    async fn run(&self, node: &TestNode, member: usize) -> Result<(), OperatorError> {
        let config = OperatorConfig {
            identity: Identity::Policy(self.policies[member].id().to_owned()),
            update_tsd_info: true,
            ..OperatorConfig::default()
        };
        node.operator.run(config).await
    }

    async fn start_at(&mut self, member: usize, address: &str) {
        let node = self.prepare(member, address).await;
        node.operator.start_distributor().unwrap();
        self.run(self.node(member), member).await.unwrap();
        // In either order.
        self.node(member).operator.start_consumer(ConsumerStatus { active: true, since: None, until: None }).unwrap();
    }

    async fn start(&mut self, member: usize) {
        self.start_at(member, &address_of(member)).await;
    }

    fn node(&self, member: usize) -> &TestNode {
        self.nodes[member - 1].as_ref().expect("it runs")
    }

    fn status(&self, member: usize) -> ReplicationStatus {
        self.node(member).operator.replication().status()
    }

    /// As a process that is killed.
    async fn kill(&mut self, member: usize) {
        self.wires.remove(&address_of(member));
        self.nodes[member - 1].take().expect("it runs").kill().await;
    }

    /// Takes away all that a member keeps, save what the machine is: its place in the cluster.
    fn wipe(&self, member: usize) {
        std::fs::remove_dir_all(self.home(member)).unwrap();
    }

    async fn write(&self, member: usize, range: std::ops::Range<i64>) {
        let receipt = self.node(member).slot.append(rows("t", numbered(range.clone()))).await.unwrap();
        assert_eq!(receipt.stored(), range.count());
    }

    /// Rows of `t` are acknowledged when two members have them. Not by a command: commands hold the node for as long as it lives.
    fn replicated(&self, member: usize, few: Few) {
        let change =
            ThresholdChange { copies: Some(2), few: Some(few), immediate: Some(true), ..ThresholdChange::default() };
        self.node(member).operator.change_threshold(Some("d"), Some("t"), change).unwrap();
    }

    async fn seal(&self, member: usize) {
        self.node(member).operator.flush().await.unwrap();
    }

    async fn links(&self, member: usize, count: usize) {
        self.until(&format!("member {member} is linked to {count}"), || {
            self.status(member).mates.iter().filter(|mate| mate.link.is_up()).count() == count
        })
        .await;
    }

    async fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + LONG;
        while !condition() {
            if Instant::now() > deadline {
                let nodes = self.nodes.iter().flatten();
                let told = |node: &TestNode| (node.operator.replication().status(), node.node.errors.messages());
                panic!("in time: {what}: {:#?}", nodes.map(told).collect::<Vec<_>>());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// All members have these rows, once.
    async fn all_have(&self, range: std::ops::Range<i64>) {
        for member in (1..=self.nodes.len()).filter(|member| self.nodes[member - 1].is_some()) {
            let wanted: Vec<i64> = range.clone().collect();
            self.until(&format!("member {member} has rows {range:?}"), || {
                self.node(member).count("t") >= wanted.len() as u64
            })
            .await;
            assert_eq!(self.node(member).integers("t", "n"), wanted, "member {member}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_each_member_come_to_all_once() {
    let cluster = Cluster::running(3).await;
    for member in 1..=3_usize {
        let from = (member as i64 - 1) * 20;
        cluster.write(member, from..from + 10).await;
        cluster.seal(member).await;
        cluster.write(member, from + 10..from + 20).await;
        cluster.seal(member).await;
    }
    cluster.all_have(0..60).await;
    // Each file is registered at each member under its producer and number, and archived.
    for member in 1..=3 {
        cluster
            .until("all is told", || {
                let status = cluster.status(member);
                status.producers.iter().all(|producer| producer.complete == 2 && producer.missing == 0)
                    && status.producers.iter().all(|producer| producer.consensus == producer.highest)
            })
            .await;
        for producer in (1..=3).filter(|producer| *producer != member) {
            let here = cluster.node(member).registered_in(&format!("tsd_{producer}"));
            assert_eq!(here, cluster.node(producer).registered(), "{producer} at {member}");
        }
        assert_eq!(cluster.node(member).archived().len(), 6, "member {member}");
    }
    // R21: identical content sent twice is two files, and stays two.
    cluster.write(1, 60..61).await;
    cluster.seal(1).await;
    cluster.write(1, 60..61).await;
    cluster.seal(1).await;
    for member in 1..=3 {
        cluster.until("both are there", || cluster.node(member).count("t") == 62).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_cut_off_is_caught_up_when_it_is_back() {
    let cluster = Cluster::running(3).await;
    cluster.write(1, 0..10).await;
    cluster.seal(1).await;
    cluster.all_have(0..10).await;
    cluster.wires.set_reachable(&address_of(2), false);
    for member in [1, 3] {
        cluster.links(member, 1).await;
    }
    cluster.links(2, 0).await;
    // Both sides go on.
    cluster.write(1, 10..20).await;
    cluster.seal(1).await;
    cluster.write(2, 20..30).await;
    cluster.seal(2).await;
    cluster.write(3, 30..40).await;
    cluster.seal(3).await;
    cluster.until("the others exchange theirs", || cluster.node(3).count("t") == 30).await;
    assert_eq!(cluster.node(2).count("t"), 20);
    // R6: nothing new has to come for what waits to go.
    cluster.wires.set_reachable(&address_of(2), true);
    cluster.all_have(0..40).await;
    let cause = cluster.status(1).mates[0].counts;
    assert!(cause.links >= 2, "{cause:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_lost_its_disk_is_filled_again_and_never_reuses_a_number() {
    let mut cluster = Cluster::running(2).await;
    cluster.write(1, 0..10).await;
    cluster.seal(1).await;
    cluster.write(2, 10..20).await;
    cluster.seal(2).await;
    cluster.all_have(0..20).await;
    let numbers: Vec<i64> = cluster.node(1).registered().into_iter().map(|(id, _, _)| id).collect();
    cluster.kill(1).await;
    cluster.wipe(1);
    cluster.start(1).await;
    cluster.all_have(0..20).await;
    cluster.write(1, 20..30).await;
    cluster.seal(1).await;
    cluster.all_have(0..30).await;
    let now: Vec<i64> = cluster.node(1).registered().into_iter().map(|(id, _, _)| id).collect();
    assert!(now.len() == 2 && now[0] == numbers[0] && now[1] > numbers[0], "{numbers:?} {now:?}");
}

// DUR-3
#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_of_two_means_that_two_have_it() {
    let mut cluster = Cluster::running(2).await;
    for member in 1..=2 {
        cluster.replicated(member, Few::Error);
    }
    for from in 0..20 {
        cluster.write(1, from * 10..from * 10 + 10).await;
        let wanted = (from as u64 + 1) * 10;
        cluster.until("rows of the open file can be queried there", || cluster.node(2).count("t") == wanted).await;
    }
    cluster.seal(1).await;
    cluster
        .until("the copy is sealed too", || cluster.node(2).registered_in("tsd_1") == cluster.node(1).registered())
        .await;
    cluster.all_have(0..200).await;
    // Never a silent downgrade.
    cluster.wires.set_reachable(&address_of(2), false);
    cluster.links(1, 0).await;
    let error = cluster.node(1).slot.append(rows("t", numbered(200..201))).await.unwrap_err();
    assert!(matches!(error, SinkError::TooFewCopies { wanted: 2, reachable: 1, .. }), "{error:?}");
    cluster.wires.set_reachable(&address_of(2), true);
    cluster.links(1, 1).await;
    cluster.replicated(1, Few::Wait);
    cluster.write(1, 200..210).await;
    // The node that took it goes, with its disk: the survivor has all.
    cluster.kill(1).await;
    cluster.wipe(1);
    cluster.until("the survivor has all", || cluster.node(2).count("t") == 210).await;
    assert_eq!(cluster.node(2).integers("t", "n"), (0..210).collect::<Vec<_>>());
    cluster.start(1).await;
    cluster.all_have(0..210).await;
}

// R22
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_comes_back_elsewhere_is_the_same_member() {
    let mut cluster = Cluster::running(2).await;
    for round in 0..5_i64 {
        let from = round * 20;
        cluster.write(1, from..from + 10).await;
        cluster.kill(2).await;
        cluster.wires.remove(&format!("10.0.1.{round}:700"));
        cluster.seal(1).await;
        cluster.start_at(2, &format!("10.0.1.{}:700", round + 1)).await;
        cluster.links(1, 1).await;
        cluster.write(2, from + 10..from + 20).await;
        cluster.seal(2).await;
        cluster.all_have(0..from + 20).await;
        // Its own policy says where it is.
        let own = cluster.node(2).ledger.own_operator().unwrap();
        assert_eq!((own.ip, own.port, own.member), (format!("10.0.1.{}", round + 1), 700, 2));
    }
}

// R22: a number is of one node; who is where the ledger says stays.
#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_are_never_one_member() {
    let cluster = Cluster::running(2).await;
    let elsewhere = "10.0.9.9:700";
    let other = cluster.node_at(&cluster.homes.path().join("other"), elsewhere).await;
    other.operator.start_distributor().unwrap();
    let taken = cluster.run(&other, 2).await.unwrap_err();
    assert!(
        matches!(&taken, OperatorError::MemberTaken { member: 2, address, .. } if *address == address_of(2)),
        "{taken:?}"
    );
    assert!(matches!(other.slot.append(rows("t", numbered(0..1))).await, Err(SinkError::NotRunning)));

    // While the first is cut off the other takes its place, and says where it is.
    cluster.wires.set_reachable(&address_of(2), false);
    cluster.links(1, 0).await;
    cluster.run(&other, 2).await.unwrap();
    cluster.links(1, 1).await;
    let policy = other.ledger.policy(cluster.policies[2].id()).unwrap();
    assert_eq!((policy.text("ip"), policy.get("port")), (Some("10.0.9.9"), Some(&json!(700))));

    // When the first is back, its mate knows the other one, and the ledger tells it where its number is: it takes no more rows.
    cluster.wires.set_reachable(&address_of(2), true);
    cluster.node(2).ledger.replace((*policy).clone(), &Destinations::local()).await.unwrap();
    cluster.until("the first gives way", || cluster.status(2).conflict.is_some()).await;
    let conflict = cluster.status(2).conflict.unwrap();
    assert!(conflict.contains("10.0.9.9:700"), "{conflict}");
    let refused = cluster.node(2).slot.append(rows("t", numbered(0..1)));
    assert!(matches!(refused.await, Err(SinkError::NotRunning)));
    let receipt = other.slot.append(rows("t", numbered(0..1))).await.unwrap();
    assert_eq!(receipt.stored(), 1);
}
