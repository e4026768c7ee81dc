//! The merge converges and loses nothing (LED-3, LED-4).

// A test fails by panicking.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use anylog_ledger::snapshot::{Contents, Deletion};
use anylog_ledger::sync::merge::{Incoming, Outgoing, Trust, merge, merge_touched, pending};
use anylog_ledger::{Policy, PolicySet};
use proptest::prelude::*;
use serde_json::json;

fn policy(id: u8, date: u32, text: u8, ledger: &str) -> Policy {
    let date = format!("2026-01-01T00:00:00.{date:06}Z");
    let inner = json!({"name": text, "id": format!("p{id}"), "date": date, "ledger": ledger});
    Policy::from_value(json!({"site": inner})).unwrap()
}

fn set<const N: usize>(policies: [Policy; N]) -> PolicySet {
    policies.into_iter().map(Arc::new).collect()
}

/// A master as the merge sees it: what it is told takes effect at once.
#[derive(Debug, Clone, Default)]
struct Master {
    policies: Vec<Policy>,
    deleted: Vec<Deletion>,
    clock: u32,
}

impl Master {
    fn take(&mut self, outgoing: &Outgoing) {
        match outgoing {
            Outgoing::Push(policy) => self.push(policy),
            Outgoing::Replace(policy) => match self.policies.iter_mut().find(|known| known.id() == policy.id()) {
                Some(known) => *known = policy.with("ledger", "global"),
                None => self.push(policy),
            },
            Outgoing::Drop(id) => self.delete(id),
        }
    }

    fn push(&mut self, policy: &Policy) {
        let date = policy.text("date").unwrap_or_default();
        let gone = self.deleted.iter().any(|note| note.id == policy.id() && note.date.as_str() >= date);
        if !gone && !self.policies.iter().any(|known| known.id() == policy.id()) {
            self.policies.push(policy.with("ledger", "global"));
        }
    }

    fn delete(&mut self, id: &str) {
        self.policies.retain(|policy| policy.id() != id);
        self.deleted.retain(|note| note.id != id);
        self.deleted.push(Deletion { id: id.to_owned(), date: format!("2026-01-01T00:00:00.{:06}Z", self.clock) });
    }

    fn answer(&self) -> Incoming {
        let there = |id: &str| self.policies.iter().any(|policy| policy.id() == id);
        let deleted = self.deleted.iter().filter(|note| !there(&note.id)).cloned().collect();
        Incoming { policies: self.policies.iter().cloned().map(Arc::new).collect(), deleted, ..Incoming::default() }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Insert { node: usize, id: u8 },
    Replace { node: usize, id: u8 },
    Delete { node: usize, id: u8 },
    DeleteAtMaster { id: u8 },
    Exchange { node: usize, reaches: usize },
    LoseMaster { keep: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3usize, 0..12u8).prop_map(|(node, id)| Step::Insert { node, id }),
        2 => (0..3usize, 0..12u8).prop_map(|(node, id)| Step::Replace { node, id }),
        1 => (0..3usize, 0..12u8).prop_map(|(node, id)| Step::Delete { node, id }),
        1 => (0..12u8).prop_map(|id| Step::DeleteAtMaster { id }),
        5 => (0..3usize, 0..4usize).prop_map(|(node, reaches)| Step::Exchange { node, reaches }),
        1 => (0..4usize).prop_map(|keep| Step::LoseMaster { keep }),
    ]
}

/// One exchange of which only the first `reaches` messages arrive. `seen` is what the node merged last.
fn exchange(node: &mut Contents, seen: &mut PolicySet, master: &mut Master, reaches: usize) -> bool {
    let answer = master.answer();
    let merged = merge(node, &answer, Trust::Same);
    // Who looks only at what the master changed comes to the same.
    let ids = answer.policies.iter().chain(seen.iter()).map(|policy| policy.id().to_owned());
    let touched = ids.filter(|id| answer.policies.get(id) != seen.get(id));
    assert_eq!(merge_touched(node, &answer, touched), merged);
    *seen = answer.policies;
    // What has to be written follows from what changed.
    assert_eq!(merged.is_changed(), merged.contents != *node);
    *node = merged.contents;
    for outgoing in merged.outgoing.iter().take(reaches) {
        master.take(outgoing);
    }
    merged.outgoing.is_empty()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// After any history and quiet exchanges all nodes hold what the master holds (LED-4), and every policy that was written and not
    /// deleted is there (LED-3), also when the master lost a part of its ledger.
    #[test]
    fn nodes_converge_and_nothing_is_lost(steps in proptest::collection::vec(step(), 1..60)) {
        let mut nodes = vec![Contents::default(); 3];
        let mut seen = vec![PolicySet::default(); 3];
        let mut master = Master::default();
        let mut written: std::collections::BTreeSet<String> = Default::default();
        let mut deleted: std::collections::BTreeSet<String> = Default::default();
        for (time, step) in (1u32..).zip(&steps) {
            master.clock = time;
            match step {
                Step::Insert { node, id } => {
                    let policy = policy(*id, time, 0, "local");
                    if nodes[*node].policy(policy.id()).is_none() {
                        written.insert(policy.id().to_owned());
                        nodes[*node].deleted.retain(|note| note.id != policy.id());
                        nodes[*node].policies.insert(Arc::new(policy));
                    }
                }
                Step::Replace { node, id } => {
                    let new = policy(*id, time, 1, "local");
                    let contents = &mut nodes[*node];
                    if contents.policy(new.id()).is_some() {
                        if !contents.replaced.contains(&new.id().to_owned()) {
                            contents.replaced.push(new.id().to_owned());
                        }
                        contents.policies.insert(Arc::new(new));
                    }
                }
                Step::Delete { node, id } => {
                    let id = format!("p{id}");
                    let contents = &mut nodes[*node];
                    if contents.policy(&id).is_some() {
                        contents.policies.remove(&id);
                        contents.replaced.retain(|known| *known != id);
                        contents.deleted.retain(|note| note.id != id);
                        let date = format!("2026-01-01T00:00:00.{time:06}Z");
                        contents.deleted.push(Deletion { id: id.clone(), date });
                        deleted.insert(id);
                    }
                }
                Step::DeleteAtMaster { id } => {
                    let id = format!("p{id}");
                    if master.policies.iter().any(|policy| policy.id() == id) {
                        master.delete(&id);
                        deleted.insert(id);
                    }
                }
                Step::Exchange { node, reaches } => {
                    exchange(&mut nodes[*node], &mut seen[*node], &mut master, *reaches);
                }
                Step::LoseMaster { keep } => {
                    // What no node has seen yet is only at the master: losing it is beyond any merge.
                    let seen: Vec<String> = nodes.iter().flat_map(|node| node.policies.iter().map(|p| p.id().to_owned())).collect();
                    let mut kept = 0;
                    master.policies.retain(|policy| {
                        kept += 1;
                        kept <= *keep || !seen.contains(&policy.id().to_owned())
                    });
                }
            }
        }
        master.clock = 999_999;
        for _ in 0..6 {
            for (node, seen) in nodes.iter_mut().zip(&mut seen) {
                exchange(node, seen, &mut master, usize::MAX);
            }
        }
        let answer = master.answer();
        let at_master: Vec<&str> = answer.policies.iter().map(|policy| policy.id()).collect();
        for node in &nodes {
            let here: Vec<&str> = node.policies.iter().map(|policy| policy.id()).collect();
            prop_assert_eq!(&here, &at_master);
            prop_assert!(node.policies.iter().all(|policy| !policy.is_local()));
            prop_assert!(pending(node).is_empty());
            for (here, there) in node.policies.iter().zip(answer.policies.iter()) {
                prop_assert_eq!(here.value(), there.value());
            }
        }
        for id in written.difference(&deleted) {
            prop_assert!(at_master.contains(&id.as_str()), "{} is lost", id);
        }
    }

    /// Merging twice with the same answer changes nothing.
    #[test]
    fn the_merge_is_idempotent(
        mine in proptest::collection::vec((0..8u8, 0..9u32, 0..2u8, proptest::bool::ANY), 0..8),
        theirs in proptest::collection::vec((0..8u8, 0..9u32, 0..2u8), 0..8),
    ) {
        let mut contents = Contents::default();
        for (id, date, text, local) in mine {
            let policy = policy(id, date, text, if local { "local" } else { "global" });
            if contents.policy(policy.id()).is_none() {
                contents.policies.insert(Arc::new(policy));
            }
        }
        let policies = theirs.into_iter().map(|(id, date, text)| Arc::new(policy(id, date, text, "global")));
        let incoming = Incoming { policies: policies.collect(), ..Incoming::default() };
        let once = merge(&contents, &incoming, Trust::Same);
        let twice = merge(&once.contents, &incoming, Trust::Same);
        prop_assert_eq!(once.contents, twice.contents);
        prop_assert_eq!(once.outgoing, twice.outgoing);
    }
}

#[test]
fn a_policy_stays_local_until_the_master_shows_it() {
    // LED-3
    let own = Arc::new(policy(1, 1, 0, "local"));
    let contents = Contents { policies: set([own.as_ref().clone()]), ..Contents::default() };
    let merged = merge(&contents, &Incoming::default(), Trust::New);
    assert_eq!(merged.outgoing, [Outgoing::Push(own)]);
    assert!(merged.contents.policy("p1").unwrap().is_local());
    let incoming = Incoming { policies: set([policy(1, 1, 0, "global")]), ..Incoming::default() };
    let merged = merge(&merged.contents, &incoming, Trust::Same);
    assert!(merged.outgoing.is_empty() && !merged.contents.policy("p1").unwrap().is_local());
}

#[test]
fn the_policies_of_another_network_do_not_follow_a_node() {
    let contents =
        Contents { policies: set([policy(1, 1, 0, "global"), policy(2, 1, 0, "local")]), ..Contents::default() };
    let incoming = Incoming { policies: set([policy(3, 1, 0, "global")]), ..Incoming::default() };
    let merged = merge(&contents, &incoming, Trust::New);
    let ids: Vec<&str> = merged.contents.policies.iter().map(|policy| policy.id()).collect();
    assert_eq!(ids, ["p3", "p2"]);
    assert_eq!(merged.outgoing.len(), 1);
}

#[test]
fn a_policy_deleted_at_the_master_is_not_brought_back_by_a_node_that_held_it() {
    let contents = Contents { policies: set([policy(1, 1, 0, "local")]), ..Contents::default() };
    let deleted = vec![Deletion { id: "p1".to_owned(), date: "2026-01-01T00:00:00.000002Z".to_owned() }];
    let merged = merge(
        &contents,
        &Incoming { policies: PolicySet::default(), deleted: deleted.clone(), ..Incoming::default() },
        Trust::Same,
    );
    assert!(merged.contents.policies.is_empty() && merged.outgoing.is_empty());
    // One that was made again after the deletion is.
    let contents = Contents { policies: set([policy(1, 3, 0, "local")]), ..Contents::default() };
    let merged =
        merge(&contents, &Incoming { policies: PolicySet::default(), deleted, ..Incoming::default() }, Trust::Same);
    assert_eq!(merged.outgoing.len(), 1);
}
