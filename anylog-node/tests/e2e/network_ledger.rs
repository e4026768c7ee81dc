//! The ledger of a network of real processes: nodes that insert at once, a master that is killed meanwhile, a master on PostgreSQL.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::Value;

use super::harness::server::Server;
use super::harness::{Answer, DEADLINE, Operator, eventually};

fn master() -> Operator {
    Operator::start_script("network/master.al", &[])
}

fn address(master: &Operator) -> String {
    format!("127.0.0.1:{}", master.tcp)
}

/// Nodes with names of their own that follow a master, started at once.
fn followers<const N: usize>(master: &Operator, script: &str, names: [&str; N]) -> [Operator; N] {
    let ledger = address(master);
    std::thread::scope(|scope| {
        let start = |name| {
            let ledger = ledger.as_str();
            scope.spawn(move || Operator::start_script(script, &[("LEDGER_CONN", ledger), ("NODE_NAME", name)]))
        };
        names.map(start).map(|starting| starting.join().unwrap())
    })
}

/// Inserts as a script does: here, and at the master.
fn insert(node: &Operator, master: &str, policy: &str) -> Answer {
    node.post(&format!("blockchain insert where policy = {policy} and local = true and master = {master}"))
}

/// Lets nodes insert at once; their answers.
fn insert_at_once(nodes: &[&Operator], master: &str, policies: &[String]) -> Vec<Answer> {
    std::thread::scope(|scope| {
        let inserts =
            nodes.iter().zip(policies).map(|(node, policy)| scope.spawn(move || insert(node, master, policy)));
        let inserts: Vec<_> = inserts.collect();
        inserts.into_iter().map(|insert| insert.join().unwrap()).collect()
    })
}

fn names(node: &Operator, kind: &str, attribute: &str) -> BTreeSet<String> {
    let text = |policy: &Value| match &policy[kind][attribute] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    node.policies(kind).iter().map(text).collect()
}

// LED-4
fn versions_agree(nodes: &[&Operator]) {
    eventually("all nodes have one version", || {
        let versions: BTreeSet<String> = nodes.iter().map(|node| node.get("get metadata version").ok()).collect();
        (versions.len() == 1).then_some(())
    });
}

#[test]
fn operators_of_the_eleven_steps_that_start_at_once_share_a_ledger() {
    let master = master();
    let nodes = followers(&master, "operator.al", ["north", "south", "west"]);
    for node in &nodes {
        assert_eq!(node.errors(), Vec::<Value>::new(), "{}", node.log());
        eventually("it knows the others", || (names(node, "operator", "name").len() == 3).then_some(()));
    }
    // LED-2: one cluster, three members of it.
    assert_eq!(master.policies("cluster").len(), 1);
    assert_eq!(names(&master, "operator", "cluster").len(), 1);
    eventually("the master knows all", || (names(&master, "operator", "member").len() == 3).then_some(()));
    versions_agree(&[&master, &nodes[0], &nodes[1], &nodes[2]]);
    assert!(nodes.iter().all(|node| names(node, "operator", "ledger") == BTreeSet::from(["global".to_owned()])));
}

#[test]
fn nodes_that_insert_at_once_learn_who_was_first() {
    let master = master();
    let ledger = address(&master);
    let [one, two] = followers(&master, "network/query.al", ["one", "two"]);
    for round in 0..8 {
        // The same policy: both have it.
        let same = format!(r#"{{"cluster": {{"name": "same{round}", "company": "co"}}}}"#);
        let answers = insert_at_once(&[&one, &two], &ledger, &[same.clone(), same.clone()]);
        assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
        // Two with one name: one has it, the other is told of that one. LED-2
        let policies = [0, 1].map(|n| format!(r#"{{"cluster": {{"name": "c{round}", "company": "co{n}"}}}}"#));
        let answers = insert_at_once(&[&one, &two], &ledger, &policies);
        let told: Vec<&Answer> = answers.iter().filter(|answer| answer.status != 200).collect();
        let won = master.post(&format!("blockchain get cluster where name = c{round} bring [cluster][id]")).ok();
        assert!(told.len() == 1 && told[0].body.contains(won.trim().trim_matches('"')), "{won} {answers:?}");
        // Two with one address.
        let id = one.post(&format!("blockchain get cluster where name = same{round} bring [cluster][id]")).ok();
        let policies = [0, 1].map(|n| {
            format!(
                r#"{{"operator": {{"name": "op{round}-{n}", "company": "co", "ip": "10.0.0.1", "port": {}, "cluster": "{}"}}}}"#,
                7000 + round,
                id.trim().trim_matches('"')
            )
        });
        let answers = insert_at_once(&[&one, &two], &ledger, &policies);
        let told: Vec<&Answer> = answers.iter().filter(|answer| answer.status != 200).collect();
        assert!(told.len() == 1 && told[0].body.contains("10.0.0.1:700"), "{answers:?}");
    }
    versions_agree(&[&master, &one, &two]);
    assert_eq!((master.policies("cluster").len(), master.policies("operator").len()), (16, 8));
}

#[test]
fn what_is_inserted_while_the_master_is_killed_is_there_afterwards() {
    let mut master = master();
    let ledger = address(&master);
    let nodes = followers(&master, "network/query.al", ["one", "two", "three"]);
    let stop = AtomicBool::new(false);
    // LED-1, LED-3: whatever was answered with 200 is in the ledger of all in the end.
    let written: Vec<BTreeSet<String>> = std::thread::scope(|scope| {
        let writers: Vec<_> = nodes
            .iter()
            .enumerate()
            .map(|(number, node)| {
                let (stop, ledger) = (&stop, ledger.as_str());
                scope.spawn(move || {
                    let mut written = BTreeSet::new();
                    while !stop.load(Ordering::Relaxed) {
                        let name = format!("n{number}-{}", written.len());
                        insert(node, ledger, &format!(r#"{{"site": {{"name": "{name}"}}}}"#)).ok();
                        written.insert(name);
                    }
                    written
                })
            })
            .collect();
        let count = |node: &Operator| node.policies("site").len();
        for _ in 0..3 {
            let before = count(&nodes[0]);
            eventually("policies come in", || (count(&nodes[0]) > before + 10).then_some(()));
            master.kill();
            let before = count(&nodes[1]);
            eventually("policies come in without the master", || (count(&nodes[1]) > before + 5).then_some(()));
            master.launch();
        }
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    let all: BTreeSet<String> = written.into_iter().flatten().collect();
    for node in nodes.iter().chain([&master]) {
        eventually("all policies are everywhere", || (names(node, "site", "name") == all).then_some(()));
    }
    versions_agree(&[&master, &nodes[0], &nodes[1], &nodes[2]]);
    let local = master.get("blockchain get * where ledger = local bring.count").ok();
    assert!(["", "0", "[]"].contains(&local.trim()), "{local}");
}

#[test]
fn the_file_of_the_copy_is_complete_after_a_kill_and_after_an_end() {
    let mut master = master();
    let ledger = address(&master);
    let [mut node] = followers(&master, "network/query.al", ["one"]);
    let lines = |node: &Operator| -> usize {
        let text = std::fs::read_to_string(node.root().join("blockchain/blockchain.json")).unwrap_or_default();
        text.lines()
            .filter(|line| line.contains("\"site\""))
            .inspect(|line| drop(serde_json::from_str::<Value>(line).unwrap()))
            .count()
    };
    for number in 0..30 {
        insert(&node, &ledger, &format!(r#"{{"site": {{"name": "s{number}"}}}}"#)).ok();
    }
    assert_eq!(lines(&node), 30, "each is in the file when its insert returns");
    node.kill();
    master.kill();
    assert_eq!(lines(&node), 30);
    // Without a master, from its own copy.
    node.launch();
    assert_eq!(names(&node, "site", "name").len(), 30);
    insert(&node, &ledger, r#"{"site": {"name": "meanwhile"}}"#).ok();
    node.kill();
    node.launch();
    assert_eq!(names(&node, "site", "ledger"), BTreeSet::from(["global".to_owned(), "local".to_owned()]));
    master.launch();
    eventually("it is global", || (names(&node, "site", "ledger").len() == 1).then_some(()));
    versions_agree(&[&master, &node]);
    // What became global is so in the file, a moment later and after an orderly end.
    node.signal("-TERM");
    assert!(node.wait().success());
    let text = std::fs::read_to_string(node.root().join("blockchain/blockchain.json")).unwrap();
    assert!(text.lines().count() >= 31 && !text.contains(r#""ledger": "local""#), "{text}");
}

#[test]
fn a_master_on_postgresql_gives_the_same_verdicts() {
    let server = Server::start();
    let port = server.port.to_string();
    let settings = [("DB_TYPE", "psql"), ("DB_IP", "127.0.0.1"), ("DB_PORT", port.as_str()), ("DB_USER", "anylog")];
    let mut master = Operator::start_script("network/master.al", &settings);
    assert!(master.get("get databases").ok().contains("psql"), "the ledger lies in PostgreSQL");
    let ledger = address(&master);
    let [one, two] = followers(&master, "network/query.al", ["one", "two"]);
    for round in 0..5 {
        let policies = [0, 1].map(|n| format!(r#"{{"cluster": {{"name": "it's {round}", "company": "co{n}"}}}}"#));
        let answers = insert_at_once(&[&one, &two], &ledger, &policies);
        // LED-2
        assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1, "{answers:?}");
        let same = format!(r#"{{"site": {{"name": "s{round}"}}}}"#);
        let answers = insert_at_once(&[&one, &two], &ledger, &[same.clone(), same]);
        assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    }
    let seen = Instant::now();
    insert(&one, &ledger, r#"{"site": {"name": "last"}}"#).ok();
    eventually("the other node sees it", || names(&two, "site", "name").contains("last").then_some(()));
    assert!(seen.elapsed() < DEADLINE);
    // LED-1, over a kill of the master and a restart of its database server.
    master.kill();
    server.restart();
    master.launch();
    let id = two.post("blockchain get site where name = s3 bring [site][id]").ok();
    let id = id.trim().trim_matches('"');
    two.post(&format!("blockchain delete policy where id = {id} and local = true and master = {ledger}")).ok();
    insert(&one, &ledger, r#"{"site": {"name": "later"}}"#).ok();
    versions_agree(&[&master, &one, &two]);
    assert_eq!(names(&master, "site", "name"), ["last", "later", "s0", "s1", "s2", "s4"].map(str::to_owned).into());
    assert_eq!(master.policies("cluster").len(), 5);
}
