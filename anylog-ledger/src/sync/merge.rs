//! The merge of the local copy with the master's ledger: a pure function.
//!
//! * What the master holds, the copy holds afterwards, as `global`, in the master's order.
//! * A policy that is `local` stays so until it is seen in the master's ledger, and is sent again.
//! * A policy that the master deleted goes, unless the copy's is younger than the deletion.
//! * A `global` policy that the master lacks without having deleted it was lost there: it becomes `local` and is sent again. From
//!   a master that the copy never followed ([`Trust::New`]) it goes instead: it belongs to another network.
//! * What was deleted or replaced here is sent again until the master's ledger shows it, unless the master's policy is younger.

//!
//! What becomes of a policy depends on what copy and master hold under its id, and on nothing else. So after an exchange that brought a
//! difference only the ids that it touches are looked at, and those of which the master has to be told.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::snapshot::{Contents, Deletion};
use crate::{Policy, PolicySet};

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
    /// Its policies.
    pub policies: PolicySet,
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
    /// What the master does not know yet, clusters before what names them.
    pub outgoing: Vec<Outgoing>,
    /// Ids of `global` policies that the master had lost.
    pub lost_at_master: Vec<String>,
    /// The policies that the copy did not hold.
    pub added: Vec<Arc<Policy>>,
    /// Ids of policies that went.
    pub gone: Vec<String>,
    /// Whether something else changed than that policies were added.
    pub rewritten: bool,
    // Ids of which the notes stay.
    notes: HashSet<String>,
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
    let ids = incoming.policies.iter().chain(current.policies.iter()).map(|policy| policy.id().to_owned());
    let notes = current.deleted.iter().map(|note| note.id.clone()).chain(current.replaced.iter().cloned());
    merge_ids(current, incoming, trust, ids.chain(notes).collect())
}

/// As [`merge`] from a master that the copy follows, when it held what the master held before, and `touched` are the ids of what
/// changed there since, and of what the master accepted from here.
#[must_use]
pub fn merge_touched(current: &Contents, incoming: &Incoming, touched: impl IntoIterator<Item = String>) -> Merged {
    let local = current.policies.local().map(|policy| policy.id().to_owned());
    let notes = current.deleted.iter().map(|note| note.id.clone()).chain(current.replaced.iter().cloned());
    let deleted = incoming.deleted.iter().map(|note| note.id.clone());
    let touched = touched.into_iter().chain(local).chain(notes).chain(deleted).collect();
    merge_ids(current, incoming, Trust::Same, touched)
}

fn merge_ids(current: &Contents, incoming: &Incoming, trust: Trust, ids: BTreeSet<String>) -> Merged {
    let merging = Merging {
        current,
        incoming,
        trust,
        deleted_here: current.deleted.iter().map(|note| (note.id.as_str(), note)).collect(),
        deleted_there: incoming.deleted.iter().map(|note| (note.id.as_str(), note.date.as_str())).collect(),
        replaced: current.replaced.iter().map(String::as_str).collect(),
    };
    let mut merged = Merged::default();
    merged.contents.policies = current.policies.clone();
    for id in &ids {
        merging.settle(id, &mut merged);
    }
    // Notes stay in their order, so that a copy that did not change is the same.
    let kept = std::mem::take(&mut merged.notes);
    let stays = |id: &str| kept.contains(id) || !ids.contains(id);
    merged.contents.deleted.extend(current.deleted.iter().filter(|note| stays(&note.id)).cloned());
    merged.contents.replaced.extend(current.replaced.iter().filter(|id| stays(id)).cloned());
    merged.rewritten |= merged.contents.deleted.len() != current.deleted.len();
    merged.rewritten |= merged.contents.replaced.len() != current.replaced.len();
    sort(&mut merged.outgoing);
    merged
}

/// Puts clusters before what names them.
fn sort(outgoing: &mut [Outgoing]) {
    outgoing.sort_by_cached_key(|one| match one {
        Outgoing::Drop(id) => (0, String::new(), id.clone()),
        Outgoing::Push(policy) | Outgoing::Replace(policy) => {
            let rank = match (policy.kind(), policy.get("parent")) {
                ("cluster", None) => 1,
                ("cluster", Some(_)) => 2,
                _ => 3,
            };
            (rank, date(policy).to_owned(), policy.id().to_owned())
        }
    });
}

/// A merge under way.
struct Merging<'a> {
    current: &'a Contents,
    incoming: &'a Incoming,
    trust: Trust,
    deleted_here: HashMap<&'a str, &'a Deletion>,
    deleted_there: HashMap<&'a str, &'a str>,
    replaced: HashSet<&'a str>,
}

impl Merging<'_> {
    /// Decides on one id.
    fn settle(&self, id: &str, merged: &mut Merged) {
        match (self.current.policies.get(id), self.incoming.policies.get(id)) {
            (own, Some(theirs)) => self.settle_known(own, theirs, merged),
            (Some(own), None) => self.settle_missing(own, merged),
            // A deletion that the master shows.
            (None, None) => {}
        }
    }

    /// The master holds it.
    fn settle_known(&self, own: Option<&Arc<Policy>>, theirs: &Arc<Policy>, merged: &mut Merged) {
        let policies = &mut merged.contents.policies;
        if let Some(note) = self.deleted_here.get(theirs.id())
            && date(theirs) <= note.date.as_str()
        {
            merged.notes.insert(note.id.clone());
            merged.outgoing.push(Outgoing::Drop(note.id.clone()));
            if policies.remove(theirs.id()).is_some() {
                merged.gone.push(theirs.id().to_owned());
                merged.rewritten = true;
            }
            return;
        }
        match own {
            Some(own) if self.replaced.contains(own.id()) && date(own) >= date(theirs) && !own.same_content(theirs) => {
                merged.notes.insert(own.id().to_owned());
                merged.outgoing.push(Outgoing::Replace(Arc::clone(own)));
            }
            // The same text is kept, not copied, so that what holds it need not change.
            Some(own) if own.digest() == theirs.digest() => {}
            known => {
                let is_global = theirs.opened().text("ledger") == Some("global");
                let theirs = if is_global { Arc::clone(theirs) } else { Arc::new(theirs.marked("global")) };
                match known {
                    Some(_) => merged.rewritten = true,
                    None => merged.added.push(Arc::clone(&theirs)),
                }
                policies.insert(theirs);
            }
        }
    }

    /// The copy holds it, and the master does not.
    fn settle_missing(&self, own: &Arc<Policy>, merged: &mut Merged) {
        let policies = &mut merged.contents.policies;
        let gone = self.deleted_there.get(own.id()).is_some_and(|deleted| date(own) <= *deleted);
        if gone || (!own.is_local() && self.trust == Trust::New) {
            policies.remove(own.id());
            merged.gone.push(own.id().to_owned());
            merged.rewritten = true;
            return;
        }
        if !own.is_local() && self.incoming.accepted.contains(own.id()) {
            return;
        }
        let mut own = Arc::clone(own);
        if !own.is_local() {
            merged.lost_at_master.push(own.id().to_owned());
            merged.rewritten = true;
            own = Arc::new(own.marked("local"));
            policies.insert(Arc::clone(&own));
        }
        merged.outgoing.push(Outgoing::Push(own));
    }
}

/// What the master has to be told, as far as the copy alone knows.
#[must_use]
pub fn pending(contents: &Contents) -> Vec<Outgoing> {
    let push = |policy: &Arc<Policy>| match contents.replaced.iter().any(|id| id == policy.id()) {
        true => Outgoing::Replace(Arc::clone(policy)),
        false => Outgoing::Push(Arc::clone(policy)),
    };
    let pushes = contents.policies.local().map(push);
    let mut outgoing: Vec<Outgoing> =
        pushes.chain(contents.deleted.iter().map(|note| Outgoing::Drop(note.id.clone()))).collect();
    sort(&mut outgoing);
    outgoing
}

fn date(policy: &Policy) -> &str {
    policy.date()
}
