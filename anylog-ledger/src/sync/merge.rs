//! The merge of the local copy with the master's ledger: a pure function.
//!
//! * What the master holds, the copy holds afterwards, as `global`, in the master's order.
//! * A policy that is `local` stays so until it is seen in the master's ledger, and is sent again.
//! * A policy that the master deleted goes, unless the copy's is younger than the deletion.
//! * A `global` policy that the master lacks without having deleted it was lost there: it becomes `local` and is sent again. From
//!   a master that the copy never followed ([`Trust::New`]) it goes instead: it belongs to another network.
//! * What was deleted or replaced here is sent again until the master's ledger shows it, unless the master's policy is younger.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::Policy;
use crate::snapshot::{Contents, Deletion};

/// Whether the copy's `global` policies came from this master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// The copy follows this master: what it lacks without a deletion was lost there.
    Same,
    /// The copy follows it for the first time: what it lacks belongs elsewhere.
    New,
}

/// What a master answers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Incoming {
    /// Its policies in order.
    pub policies: Arc<Vec<Arc<Policy>>>,
    /// What was deleted there.
    pub deleted: Vec<Deletion>,
    /// Ids of policies that it accepted after it gave this answer.
    pub accepted: HashSet<String>,
}

/// Something that the master has to be told.
#[derive(Debug, Clone, PartialEq)]
pub enum Outgoing {
    /// A policy that it lacks.
    Push(Arc<Policy>),
    /// The new content of a policy that it has.
    Replace(Arc<Policy>),
    /// The id of a policy that was deleted.
    Drop(String),
}

/// The merged copy, and what the master has to be told.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Merged {
    /// The copy.
    pub contents: Contents,
    /// What the master does not know yet, in order: a cluster before the operator that names it.
    pub outgoing: Vec<Outgoing>,
    /// Ids of `global` policies that the master had lost.
    pub lost_at_master: Vec<String>,
    /// The policies that the copy did not hold.
    pub added: Vec<Arc<Policy>>,
    /// Whether something else changed than that policies were added.
    pub rewritten: bool,
}

impl Merged {
    /// Whether the merged copy differs from the one before.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        self.rewritten || !self.added.is_empty()
    }
}

/// Merges the copy with what the master answered.
#[must_use]
pub fn merge(current: &Contents, incoming: &Incoming, trust: Trust) -> Merged {
    let mine: HashMap<&str, &Arc<Policy>> = current.policies.iter().map(|policy| (policy.id(), policy)).collect();
    let deleted_here: HashMap<&str, &Deletion> = current.deleted.iter().map(|note| (note.id.as_str(), note)).collect();
    let deleted_there: HashMap<&str, &str> =
        incoming.deleted.iter().map(|note| (note.id.as_str(), note.date.as_str())).collect();
    let mut merged = Merged::default();
    let mut seen: HashSet<&str> = HashSet::new();
    for theirs in incoming.policies.iter() {
        if theirs.id().is_empty() || !seen.insert(theirs.id()) {
            continue;
        }
        if let Some(note) = deleted_here.get(theirs.id())
            && date(theirs) <= note.date.as_str()
        {
            merged.contents.deleted.push((*note).clone());
            merged.outgoing.push(Outgoing::Drop(note.id.clone()));
            merged.rewritten |= mine.contains_key(theirs.id());
            continue;
        }
        match mine.get(theirs.id()) {
            Some(own) if is_replaced(current, own) && date(own) >= date(theirs) && !own.same_content(theirs) => {
                merged.contents.replaced.push(own.id().to_owned());
                merged.contents.policies.push(Arc::clone(own));
                merged.outgoing.push(Outgoing::Replace(Arc::clone(own)));
            }
            // The same text is kept, not copied, so that what holds it need not change.
            Some(own) if own.digest() == theirs.digest() => merged.contents.policies.push(Arc::clone(own)),
            known => {
                let theirs = match theirs.text("ledger") {
                    Some("global") => Arc::clone(theirs),
                    _ => Arc::new(theirs.marked("global")),
                };
                match known {
                    Some(_) => merged.rewritten = true,
                    None => merged.added.push(Arc::clone(&theirs)),
                }
                merged.contents.policies.push(theirs);
            }
        }
    }
    for own in current.policies.iter().filter(|own| !seen.contains(own.id())) {
        let gone = deleted_there.get(own.id()).is_some_and(|deleted| date(own) <= *deleted);
        if gone || (!own.is_local() && trust == Trust::New) {
            merged.rewritten = true;
            continue;
        }
        if !own.is_local() && incoming.accepted.contains(own.id()) {
            merged.contents.policies.push(Arc::clone(own));
            continue;
        }
        if !own.is_local() {
            merged.lost_at_master.push(own.id().to_owned());
            merged.rewritten = true;
        }
        let own = if own.is_local() { Arc::clone(own) } else { Arc::new(own.marked("local")) };
        merged.outgoing.push(Outgoing::Push(Arc::clone(&own)));
        merged.contents.policies.push(own);
    }
    merged.rewritten |= merged.contents.deleted != current.deleted || merged.contents.replaced != current.replaced;
    merged
}

/// What the master has to be told, as far as the copy alone knows.
#[must_use]
pub fn pending(contents: &Contents) -> Vec<Outgoing> {
    let push = |policy: &Arc<Policy>| match contents.replaced.iter().any(|id| id == policy.id()) {
        true => Outgoing::Replace(Arc::clone(policy)),
        false => Outgoing::Push(Arc::clone(policy)),
    };
    let pushes = contents.policies.iter().filter(|policy| policy.is_local()).map(push);
    pushes.chain(contents.deleted.iter().map(|note| Outgoing::Drop(note.id.clone()))).collect()
}

fn is_replaced(contents: &Contents, policy: &Policy) -> bool {
    contents.replaced.iter().any(|id| id == policy.id())
}

fn date(policy: &Policy) -> &str {
    policy.text("date").unwrap_or_default()
}
