//! Nodes and a master: verdicts (LED-1, LED-2), offline work (LED-3), convergence (LED-4).

// A test fails by panicking.
#![allow(clippy::unwrap_used)]

// Each of the tests uses a part of it.
#[allow(dead_code)]
mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anylog_core::Status;
use anylog_ledger::sync::source::MasterSource;
use anylog_ledger::{Destinations, LedgerError, PushHow};
use anylog_net::{PeerReply, Peers};
use serde_json::json;
use support::{TestNode, Wires, policy, until};

const MASTER: &str = "10.0.0.1:32048";

fn source(wires: &Arc<Wires>) -> Arc<MasterSource> {
    Arc::new(MasterSource::new(Arc::clone(wires) as Arc<dyn Peers>, MASTER))
}

async fn network(nodes: usize) -> (Arc<Wires>, TestNode, Vec<TestNode>) {
    let wires = Arc::new(Wires::default());
    let master = TestNode::new(&wires, MASTER, true);
    master.run("create table ledger where dbms = blockchain").await.ok();
    let nodes: Vec<TestNode> =
        (2..2 + nodes).map(|i| TestNode::new(&wires, &format!("10.0.0.{i}:32148"), false)).collect();
    for node in nodes.iter().chain([&master]) {
        let warning = node.ledger.start_sync(source(&wires), Duration::from_secs(3600), false).await.unwrap();
        assert_eq!(warning, None);
    }
    (wires, master, nodes)
}

fn at_master(master: &TestNode) -> Vec<String> {
    match master.ledger.answer("").unwrap() {
        PeerReply::Ledger { policies: Some(lines), .. } => {
            lines.into_iter().filter(|line| !line.starts_with("{\"deleted\"")).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn cluster(name: &str) -> anylog_ledger::Policy {
    policy(json!({"cluster": {"company": "co", "name": name}}))
}

fn operator(name: &str, cluster: &str, port: u16) -> anylog_ledger::Policy {
    policy(json!({"operator": {"name": name, "company": "co", "ip": "10.9.9.9", "port": port, "cluster": cluster}}))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_policy_is_at_the_master_and_reaches_all_nodes() {
    let (_, master, nodes) = network(2).await;
    let to = Destinations::with_master(MASTER);
    let cluster = nodes[0].ledger.insert(cluster("c"), &to).await.unwrap();
    // LED-1: when the call returns the policy is in the master's database.
    assert_eq!(at_master(&master).len(), 1);
    let operator = nodes[0].ledger.insert(operator("op", cluster.id(), 1), &to).await.unwrap();
    assert!((1..=255).contains(&operator.get("member").and_then(serde_json::Value::as_i64).unwrap()));
    assert_eq!(at_master(&master).len(), 2);
    nodes[1].ledger.wake_sync();
    until("the other node has the policies", || nodes[1].ledger.policies("*").len() == 2).await;
    // LED-4
    until("the node's own copy is global", || !nodes[0].ledger.policies("*").iter().any(|policy| policy.is_local()))
        .await;
    master.ledger.wake_sync();
    until("all versions are equal", || {
        let version = master.ledger.version();
        nodes.iter().all(|node| node.ledger.version() == version)
    })
    .await;
    assert_eq!(nodes[1].ledger.view().operators().len(), 1);
    assert_eq!(nodes[1].ledger.policy(operator.id()).unwrap().get("member"), operator.get("member"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_told_at_once_and_once() {
    // The period of the synchronisers is an hour: what arrives was pushed.
    let (_, master, nodes) = network(3).await;
    until("all follow", || {
        nodes.iter().all(|node| node.ledger.sync_state().is_some_and(|state| state.stats.following))
    })
    .await;
    let written = nodes[0].ledger.insert(cluster("c"), &Destinations::with_master(MASTER)).await.unwrap();
    // What the master that is followed accepted is global at once.
    assert!(!written.is_local());
    until("it is everywhere", || nodes.iter().all(|node| node.ledger.policy(written.id()).is_some())).await;
    // LED-4
    master.ledger.wake_sync();
    until("versions are equal", || nodes.iter().all(|node| node.ledger.version() == nodes[0].ledger.version())).await;
    assert!(nodes.iter().all(|node| node.ledger.policies("*").iter().all(|policy| !policy.is_local())));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_operators_with_one_address_exactly_one_wins() {
    // LED-2: all nodes think that the address is free; the master knows better.
    let (_, master, nodes) = network(4).await;
    let to = Destinations::with_master(MASTER);
    let cluster = nodes[0].ledger.insert(cluster("c"), &to).await.unwrap();
    for node in &nodes {
        node.ledger.wake_sync();
        until("the cluster is known", || node.ledger.policy(cluster.id()).is_some()).await;
    }
    let attempts: Vec<_> = (0..16)
        .map(|i| {
            let ledger = Arc::clone(&nodes[i % 4].ledger);
            let policy = operator(&format!("op{i}"), cluster.id(), 32148);
            tokio::spawn(async move { ledger.insert(policy, &Destinations::with_master(MASTER)).await })
        })
        .collect();
    let mut won = 0;
    for attempt in attempts {
        match attempt.await.unwrap() {
            Ok(_) => won += 1,
            Err(error) => assert_eq!(error.status(), Status::NON_UNIQUE_ADDRESS, "{error}"),
        }
    }
    assert_eq!(won, 1);
    assert_eq!(at_master(&master).iter().filter(|line| line.starts_with("{\"operator\"")).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_insert_the_same_at_once_get_the_same() {
    // LED-2
    let (_, master, nodes) = network(3).await;
    for round in 0..20 {
        let name = format!("c{round}");
        let attempts: Vec<_> = (0..6)
            .map(|i| {
                let (ledger, policy) = (Arc::clone(&nodes[i % 3].ledger), cluster(&name));
                tokio::spawn(async move { ledger.insert(policy, &Destinations::with_master(MASTER)).await })
            })
            .collect();
        let mut ids = std::collections::HashSet::new();
        for attempt in attempts {
            ids.insert(attempt.await.unwrap().unwrap().id().to_owned());
        }
        assert_eq!((ids.len(), at_master(&master).len()), (1, round + 1));
    }
    master.ledger.wake_sync();
    until("versions are equal", || nodes.iter().all(|node| node.ledger.version() == master.ledger.version())).await;
    // Again, later, and only here: nothing changes.
    let version = master.ledger.version();
    for to in [Destinations::with_master(MASTER), Destinations::local()] {
        let known = nodes[1].ledger.insert(cluster("c3"), &to).await.unwrap();
        assert!(!known.is_local());
    }
    assert_eq!(nodes[1].ledger.version(), version);
    // An id of one's own says nothing about the content.
    let own = policy(json!({"site": {"id": "mine", "name": "s"}}));
    nodes[0].ledger.insert(own.clone(), &Destinations::with_master(MASTER)).await.unwrap();
    let error = nodes[0].ledger.insert(own, &Destinations::with_master(MASTER)).await.unwrap_err();
    assert_eq!(error.status(), Status::DUPLICATE_OBJECT_ID);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_different_policies_with_one_name_one_wins_and_the_others_are_told_which() {
    let (_, master, nodes) = network(3).await;
    for round in 0..10 {
        let attempts: Vec<_> = (0..3)
            .map(|i| {
                let ledger = Arc::clone(&nodes[i].ledger);
                let policy = policy(json!({"cluster": {"company": format!("co{i}"), "name": format!("c{round}")}}));
                tokio::spawn(async move { ledger.insert(policy, &Destinations::with_master(MASTER)).await })
            })
            .collect();
        let (mut won, mut told) = (Vec::new(), Vec::new());
        for attempt in attempts {
            match attempt.await.unwrap() {
                Ok(policy) => won.push(policy.id().to_owned()),
                Err(error) => told.push(error.to_string()),
            }
        }
        assert!(won.len() == 1 && told.iter().all(|text| text.contains(&won[0])), "{won:?} {told:?}");
    }
    assert_eq!(at_master(&master).len(), 10);
}

/// The member numbers of a cluster's operators.
/// Two nodes that know a cluster.
async fn two_of_a_cluster(to: &Destinations) -> (Arc<Wires>, TestNode, Vec<TestNode>, Arc<anylog_ledger::Policy>) {
    let (wires, master, nodes) = network(2).await;
    let cluster = nodes[0].ledger.insert(cluster("c"), to).await.unwrap();
    nodes[1].ledger.wake_sync();
    until("the cluster is known", || nodes[1].ledger.policy(cluster.id()).is_some()).await;
    (wires, master, nodes, cluster)
}

fn members(node: &TestNode) -> Vec<i64> {
    let numbers = node.ledger.policies("operator").into_iter();
    let mut numbers: Vec<i64> = numbers.map(|policy| policy.get("member").unwrap().as_i64().unwrap()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_member_numbers_that_were_drawn_at_once_are_drawn_again() {
    let to = Destinations::with_master(MASTER);
    let (wires, master, nodes, cluster) = two_of_a_cluster(&to).await;
    // Of 255 numbers each node draws 60 without knowing of the other, first at once, then while the master is away.
    for (first, offline) in [(1_u16, false), (101, true)] {
        wires.cut(MASTER, offline);
        let attempts: Vec<_> = (0..60_u16)
            .map(|i| {
                let ledger = Arc::clone(&nodes[usize::from(i % 2)].ledger);
                let (policy, to) = (operator(&format!("op{}", first + i), cluster.id(), first + i), to.clone());
                tokio::spawn(async move { ledger.insert(policy, &to).await })
            })
            .collect();
        for attempt in attempts {
            attempt.await.unwrap().unwrap();
        }
    }
    wires.cut(MASTER, false);
    nodes.iter().for_each(|node| node.ledger.wake_sync());
    until("the master has all", || at_master(&master).len() == 121).await;
    master.ledger.wake_sync();
    for node in nodes.iter().chain([&master]) {
        until("all are known", || node.ledger.version() == master.ledger.version() && members(node).len() == 120).await;
        assert!(node.ledger.sync_state().unwrap().stats.refused.is_empty());
    }
    // A number that somebody asked for is nobody else's.
    let taken = members(&master)[0];
    let policy = operator("own", cluster.id(), 999).with("member", taken);
    let error = nodes[0].ledger.insert(policy, &to).await.unwrap_err();
    assert_eq!(error.status(), Status::NON_UNIQUE_VALUES, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_until_its_operator_is_published_knows_its_number() {
    let to = Destinations::with_master(MASTER);
    let (wires, _master, nodes, cluster) = two_of_a_cluster(&to).await;
    wires.cut(MASTER, true);
    let mut own = Vec::new();
    for i in 0..120_u16 {
        let node = &nodes[usize::from(i % 2)];
        let policy = node.ledger.insert(operator(&format!("op{i}"), cluster.id(), 1 + i), &to).await.unwrap();
        own.push((node, policy.id().to_owned()));
    }
    assert!(!nodes[0].ledger.published(&own[0].1, std::time::Duration::from_millis(1)).await);
    wires.cut(MASTER, false);
    let mut numbers = BTreeSet::new();
    for (node, id) in &own {
        assert!(node.ledger.published(id, std::time::Duration::from_secs(30)).await);
        numbers.insert(node.ledger.policy(id).unwrap().get("member").unwrap().as_i64().unwrap());
    }
    assert_eq!(numbers.len(), own.len(), "each has a number of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_local_inserts_of_one_address_have_one_winner() {
    let wires = Arc::new(Wires::default());
    let node = TestNode::new(&wires, "10.0.0.2:32148", false);
    let cluster = node.ledger.add(cluster("c")).await.unwrap();
    let attempts: Vec<_> = (0..12)
        .map(|i| {
            let (ledger, policy) = (Arc::clone(&node.ledger), operator(&format!("op{i}"), cluster.id(), 32148));
            tokio::spawn(async move { ledger.add(policy).await })
        })
        .collect();
    let mut won = 0;
    for attempt in attempts {
        won += usize::from(attempt.await.unwrap().is_ok());
    }
    assert_eq!(won, 1);
    assert_eq!(node.reopened(&wires).policies("operator").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_offline_reaches_the_master_later() {
    let (wires, master, nodes) = network(1).await;
    wires.cut(MASTER, true);
    let to = Destinations::with_master(MASTER);
    let written = nodes[0].ledger.write(cluster("c"), &to).await.unwrap();
    assert_eq!(written.warnings.len(), 1);
    let operator = nodes[0].ledger.insert(operator("op", written.policy.id(), 1), &to).await.unwrap();
    assert!(operator.is_local());
    let error = nodes[0]
        .ledger
        .insert(cluster("d"), &Destinations { local: false, masters: vec![MASTER.to_owned()] })
        .await
        .unwrap_err();
    assert!(matches!(error, LedgerError::NoVerdict { .. }), "{error}");
    // A restart keeps it. LED-3
    assert_eq!(nodes[0].reopened(&wires).policies("*").len(), 2);
    wires.cut(MASTER, false);
    nodes[0].ledger.wake_sync();
    until("the master has both", || at_master(&master).len() == 2).await;
    until("both are global", || nodes[0].ledger.policies("*").iter().all(|policy| !policy.is_local())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_policy_is_not_written_anywhere() {
    let (_, master, nodes) = network(2).await;
    let to = Destinations::with_master(MASTER);
    nodes[0].ledger.insert(cluster("c"), &to).await.unwrap();
    let other = policy(json!({"cluster": {"company": "other", "name": "c"}}));
    // The second node has not seen the first cluster's name when it asks, or it has: refused it is.
    let error = nodes[1].ledger.insert(other, &to).await.unwrap_err();
    assert_eq!(error.status(), Status::NON_UNIQUE_VALUES, "{error}");
    assert_eq!(at_master(&master).len(), 1);
    // Another content under the id that the definition gives it is told apart.
    let other = policy(json!({"cluster": {"company": "co", "name": "c", "dbms": "d"}}));
    let error = nodes[1].ledger.insert(other, &to).await.unwrap_err();
    assert_eq!(error.status(), Status::DUPLICATE_OBJECT_ID, "{error}");
    assert!(error.to_string().contains("'dbms'"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_the_master_keeps_refusing_is_named_and_holds_up_nothing() {
    let (wires, master, nodes) = network(2).await;
    // The second node writes without knowing what the first wrote.
    nodes[1].ledger.stop_sync().unwrap();
    nodes[0].ledger.add(cluster("same")).await.unwrap();
    nodes[0].ledger.add(policy(json!({"site": {"name": "s"}}))).await.unwrap();
    until("the first node's policies are there", || at_master(&master).len() == 2).await;
    let clash = policy(json!({"cluster": {"company": "other", "name": "same"}}));
    nodes[1].ledger.add(clash).await.unwrap();
    nodes[1].ledger.start_sync(source(&wires), Duration::from_secs(3600), false).await.unwrap();
    until("the refusal is named", || nodes[1].ledger.sync_state().is_some_and(|state| state.stats.refused.len() == 1))
        .await;
    until("the other policy arrives", || nodes[1].ledger.policies("site").len() == 1).await;
    assert_eq!(nodes[1].ledger.policies("cluster").len(), 2);
    assert_eq!(at_master(&master).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_widened_table_reaches_the_other_nodes() {
    let (_, master, nodes) = network(2).await;
    let to = Destinations::with_master(MASTER);
    let table = policy(json!({"table": {"name": "t", "dbms": "d", "create": "narrow"}}));
    let table = nodes[0].ledger.insert(table, &to).await.unwrap();
    nodes[0].ledger.replace(table.with("create", "wide"), &to).await.unwrap();
    assert!(at_master(&master)[0].contains("wide"));
    nodes[1].ledger.wake_sync();
    until("the other node sees it", || {
        nodes[1].ledger.view().table_policy("D", "T").is_some_and(|table| table.text("create") == Some("wide"))
    })
    .await;
    until("nothing is left to tell", || nodes[0].ledger.contents().replaced.is_empty()).await;
    // A push may widen a table, and nothing else.
    let other = table.with("name", "other").to_json_text();
    assert_eq!(master.run(&format!("blockchain push update {other}")).await.unwrap_err().status, Status::WRONG_POLICY);
    let wrong = policy(json!({"site": {"id": table.id(), "name": "x"}}));
    assert!(nodes[0].ledger.replace(wrong, &to).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_reaches_all_nodes_also_when_it_was_made_offline() {
    let (wires, master, nodes) = network(2).await;
    let to = Destinations::with_master(MASTER);
    let one = nodes[0].ledger.insert(policy(json!({"site": {"name": "1"}})), &to).await.unwrap();
    let two = nodes[0].ledger.insert(policy(json!({"site": {"name": "2"}})), &to).await.unwrap();
    nodes[1].ledger.wake_sync();
    until("both are known", || nodes[1].ledger.policies("site").len() == 2).await;
    nodes[0].ledger.delete(one.id(), &to).await.unwrap();
    wires.cut(MASTER, true);
    assert_eq!(nodes[0].ledger.delete(two.id(), &to).await.unwrap().len(), 1);
    assert!(nodes[0].ledger.policies("site").is_empty());
    assert!(nodes[0].reopened(&wires).policies("site").is_empty());
    wires.cut(MASTER, false);
    nodes[0].ledger.wake_sync();
    until("the master lacks both", || at_master(&master).is_empty()).await;
    nodes[1].ledger.wake_sync();
    until("the other node lacks both", || nodes[1].ledger.policies("site").is_empty()).await;
    // The same definition may come again.
    nodes[1].ledger.insert(policy(json!({"site": {"name": "1"}})), &to).await.unwrap();
    assert_eq!(at_master(&master).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_lost_its_database_gets_the_ledger_back() {
    let (wires, master, nodes) = network(2).await;
    let to = Destinations::with_master(MASTER);
    for name in ["a", "b", "c"] {
        nodes[0].ledger.insert(cluster(name), &to).await.unwrap();
    }
    until("all are global", || nodes[0].ledger.policies("*").iter().all(|policy| !policy.is_local())).await;
    master.ledger.stop_sync().unwrap();
    // Nobody gives it back before it was looked at.
    wires.cut(MASTER, true);
    master.run("blockchain drop table").await.unwrap();
    until("the table is dropped", || at_master(&master).is_empty()).await;
    wires.cut(MASTER, false);
    nodes[0].ledger.wake_sync();
    until("the master has all again", || at_master(&master).len() == 3).await;
    assert_eq!(nodes[0].ledger.policies("cluster").len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_not_there_yet_is_waited_for() {
    let wires = Arc::new(Wires::default());
    let master = TestNode::new(&wires, MASTER, true);
    let node = TestNode::new(&wires, "10.0.0.2:32148", false);
    wires.cut(MASTER, true);
    let (ledger, source) = (Arc::clone(&node.ledger), source(&wires));
    let start = tokio::spawn(async move { ledger.start_sync(source, Duration::from_secs(3600), false).await });
    until("a first try failed", || node.ledger.sync_state().is_some_and(|state| state.stats.failed > 0)).await;
    master.ledger.push(&cluster("c"), "10.0.0.9", PushHow::New).unwrap();
    wires.cut(MASTER, false);
    // R19: the retry comes by itself.
    assert_eq!(start.await.unwrap().unwrap(), None);
    assert_eq!(node.ledger.policies("cluster").len(), 1);
    let again = node.ledger.start_sync(
        Arc::new(MasterSource::new(Arc::clone(&wires) as Arc<dyn Peers>, MASTER)),
        Duration::from_secs(1),
        false,
    );
    assert_eq!(again.await.unwrap_err().status(), Status::PROCESS_RUNNING);
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_of_any_kind_reach_the_master_unchanged() {
    let (_, master, nodes) = network(1).await;
    let texts = [
        "it's",
        "say \"hi\"",
        "# no comment",
        "a & b",
        "<b> x </b>",
        "{ [ ( ",
        ") ] }",
        "!ip and $HOME",
        "back\\slash \\\"",
        "tab\tline\nend\r",
        "pipe|pipe",
        "ünï 東京 🚢",
        "a = b and c = d",
        "\u{1}",
        "",
        "join (x) bring [a]",
    ];
    nodes[0].ledger.node().dictionary.set("ip", "expanded");
    master.ledger.node().dictionary.set("ip", "expanded");
    for text in texts {
        let written = policy(json!({"site": {"name": text, "list": [text, {"deep": text}]}}));
        let written = nodes[0].ledger.insert(written, &Destinations::with_master(MASTER)).await;
        let written = written.unwrap_or_else(|error| panic!("{text:?}: {error}"));
        let line = at_master(&master).into_iter().find(|line| line.contains(written.id())).unwrap();
        let there: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(there["site"]["name"], text);
        assert_eq!(there["site"]["list"][1]["deep"], text);
    }
    until("all are global", || nodes[0].ledger.policies("*").iter().all(|policy| !policy.is_local())).await;
    assert_eq!(nodes[0].ledger.policies("site").len(), texts.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_of_several_words_can_be_deleted() {
    let (_, master, nodes) = network(1).await;
    let to = Destinations::with_master(MASTER);
    nodes[0].ledger.insert(policy(json!({"site": {"id": "my own id", "name": "x"}})), &to).await.unwrap();
    nodes[0].ledger.delete("my own id", &to).await.unwrap();
    assert!(at_master(&master).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_may_keep_the_ledger_in_a_database_and_seed_from_each_other() {
    let (wires, master, nodes) = network(1).await;
    let to = Destinations::with_master(MASTER);
    for name in ["a", "b"] {
        nodes[0].ledger.insert(cluster(name), &to).await.unwrap();
    }
    let second = TestNode::new(&wires, "10.0.0.99:32148", true);
    second.ledger.create_table().unwrap();
    assert_eq!(second.ledger.start_sync(source(&wires), Duration::from_secs(3600), true).await.unwrap(), None);
    until("the follower's database holds both", || at_master(&second).len() == 2).await;
    let third = TestNode::new(&wires, "10.0.0.98:32148", false);
    third.run("blockchain seed from 10.0.0.99:32148").await.unwrap();
    assert_eq!(third.ledger.version(), second.ledger.version());
    // A ledger taken from the node's own database.
    second.ledger.stop_sync().unwrap();
    second.ledger.push(&cluster("c"), "10.0.0.99", PushHow::New).unwrap();
    second.run("run blockchain sync where source = dbms and time = 1 hour and dest = file").await.unwrap();
    assert_eq!(second.ledger.policies("cluster").len(), 3);
    drop(master);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_switches_network_leaves_the_old_one_behind() {
    let (wires, _master, nodes) = network(1).await;
    nodes[0].ledger.insert(cluster("old"), &Destinations::with_master(MASTER)).await.unwrap();
    until("it is global", || nodes[0].ledger.policies("*").iter().all(|policy| !policy.is_local())).await;
    let other = TestNode::new(&wires, "10.7.7.7:32048", true);
    other.ledger.push(&cluster("new"), "10.7.7.7", PushHow::New).unwrap();
    nodes[0].run("blockchain switch network where master = 10.7.7.7:32048").await.unwrap();
    until("only the new network is there", || {
        let names: Vec<_> = nodes[0].ledger.policies("*").iter().map(|policy| policy.shown("name")).collect();
        names == [Some("new".to_owned())]
    })
    .await;
    assert_eq!(at_master(&other).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_never_asks_by_itself_can_be_waited_for() {
    let (wires, _, nodes) = network(1).await;
    nodes[0].ledger.stop_sync().unwrap();
    nodes[0].ledger.start_sync(source(&wires), Duration::MAX, false).await.unwrap();
    let written = nodes[0].ledger.insert(cluster("c"), &Destinations::with_master(MASTER)).await.unwrap();
    nodes[0].run(&format!("blockchain wait where id = {}", written.id())).await.unwrap();
}
