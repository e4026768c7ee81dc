//! Which member of a cluster answers: `nodes = main` and `nodes = all`, with members down before and within the query.

use super::*;

/// Who answered a count over `nodes`, as `query status` shows, whose answer is complete.
fn answered(net: &Net, nodes: &str) -> String {
    let line = format!(
        "run client () sql d nodes = {nodes} and format=json:list \"select count(*) as n, sum(count) as s from t\""
    );
    let answer = net.run(&line).unwrap_or_else(|error| panic!("{nodes}: {error}"));
    assert!(answer.starts_with(r#"[{"n":60,"s":1770},"#) && answer.contains(r#""Nodes": 1}"#), "{answer}");
    let status = net.run("query status").unwrap();
    let shown = |(address, _): &&(String, Arc<Operator>)| status.contains(address.as_str());
    let who: Vec<&str> = net.operators.iter().filter(shown).map(|(address, _)| address.as_str()).collect();
    let [one] = who.as_slice() else { panic!("one answers for a cluster: {status}") };
    (*one).to_owned()
}

const MAIN: &str = "10.0.0.2:2001";

fn break_all(net: &Net, which: &[usize], bytes: usize) {
    for at in which {
        net.operators[*at].1.breaks_after.store(bytes, Ordering::Relaxed);
    }
}

#[test]
fn the_main_member_answers_while_it_can() {
    // R24
    let net = Net::new(&[(some_rows(), 3)]);
    for _ in 0..4 {
        assert_eq!(answered(&net, "main"), MAIN);
    }
    // It breaks off: another one answers within the query, and it is asked first again.
    for bytes in [0, 7, 30] {
        break_all(&net, &[0], bytes);
        assert_ne!(answered(&net, "main"), MAIN);
    }
    break_all(&net, &[0], usize::MAX);
    assert_eq!(answered(&net, "main"), MAIN);
    // It is down: the others take turns, also when one of them breaks off.
    net.cut(MAIN);
    let turns: std::collections::BTreeSet<String> = (0..6).map(|_| answered(&net, "main")).collect();
    assert_eq!(turns.into_iter().collect::<Vec<_>>(), ["10.0.0.2:2002", "10.0.0.2:2003"]);
    break_all(&net, &[1], 5);
    for _ in 0..2 {
        assert_eq!(answered(&net, "main"), "10.0.0.2:2003");
    }
}

#[test]
fn all_members_take_turns() {
    // R24
    let net = Net::new(&[(some_rows(), 3)]);
    let turns = |count: usize| -> std::collections::BTreeMap<String, usize> {
        let mut turns = std::collections::BTreeMap::new();
        (0..count).for_each(|_| *turns.entry(answered(&net, "all")).or_default() += 1);
        turns
    };
    assert_eq!(turns(6).into_values().collect::<Vec<_>>(), [2, 2, 2]);
    // Members that are down or break off are replaced within the query.
    net.cut(MAIN);
    assert_eq!(turns(6).len(), 2);
    break_all(&net, &[1], 9);
    assert_eq!(turns(4).into_keys().collect::<Vec<_>>(), ["10.0.0.2:2003"]);
    // Nobody is left: QRY-2.
    break_all(&net, &[2], 9);
    let error = net.run("run client () sql d nodes = all \"select count(*) from t\"").unwrap_err();
    for part in ["cluster 'c0'", MAIN, "10.0.0.2:2002", "10.0.0.2:2003"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_cluster_without_a_main_member_takes_turns() {
    let net = Net::new(&[(some_rows(), 2)]);
    let ledger = net.service.ledger();
    let main = ledger.view().operator_at(MAIN).unwrap().id.clone();
    let changed = json!({"anmp": {main: {"main": false}}});
    runtime().block_on(ledger.add(Policy::from_value(changed).unwrap())).unwrap();
    let who: std::collections::BTreeSet<String> = (0..4).map(|_| answered(&net, "main")).collect();
    assert_eq!(who.len(), 2);
}
