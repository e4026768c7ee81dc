//! One state of a master's ledger, and the differences between states: pure functions.
//!
//! A node that follows a master keeps the edition that it saw last and asks for what is new since. The master answers from its memory of
//! recent changes (`History`). When it does not remember that edition - it was started again, or the node was away for long - the node sends
//! digests of the parts of its edition, parted by id, and gets the parts that differ. So the cost of catching up follows what changed,
//! not what is there. The version of the result is checked against the master's; the whole ledger is the last resort.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use anylog_net::{LedgerBasis, LedgerDifference, LedgerQuestion};
use md5::{Digest, Md5};

use crate::{Policy, PolicySet};

/// Changes that a master remembers, and policies in them.
const CHANGES: usize = 4096;
const CHANGED_POLICIES: usize = 32 * 1024;

/// The number of parts is about the number of policies divided by this, within the bounds.
const POLICIES_IN_A_PART: usize = 8;
const FEWEST_PARTS: usize = 16;
const MOST_PARTS: usize = 8192;

/// One state of a master's ledger: its policies, all `global`.
#[derive(Debug, Clone, Default)]
pub struct Edition {
    /// The policies.
    pub policies: PolicySet,
    /// The version; empty when nothing is known.
    pub version: String,
}

impl Edition {
    /// The edition of these policies.
    #[must_use]
    pub fn new(policies: PolicySet) -> Self {
        let version = policies.version();
        Self { policies, version }
    }

    /// Digests of the parts of the edition.
    #[must_use]
    pub fn digests(&self) -> Vec<u64> {
        let parts = (self.policies.len() / POLICIES_IN_A_PART).clamp(FEWEST_PARTS, MOST_PARTS);
        digests(&self.policies, parts)
    }
}

fn digests(policies: &PolicySet, parts: usize) -> Vec<u64> {
    let mut digests = vec![0_u64; parts];
    for policy in policies.iter() {
        if let Some(digest) = digests.get_mut(part_of(policy.id(), parts)) {
            *digest = digest.wrapping_add(first_eight(policy.digest()));
        }
    }
    digests
}

fn part_of(id: &str, parts: usize) -> usize {
    let hash = first_eight(&Md5::digest(id.as_bytes()).into());
    usize::try_from(hash % parts.max(1) as u64).unwrap_or_default()
}

fn first_eight(digest: &[u8; 16]) -> u64 {
    digest.iter().take(8).fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

/// What came from one version to the next.
#[derive(Debug, Clone)]
struct Change {
    from: String,
    written: Vec<Arc<Policy>>,
    // With the date of the deletion; an empty one when the policy was lost without a note.
    gone: Vec<(String, String)>,
}

/// The recent changes of a ledger, oldest first; each begins at the version at which the one before ended.
#[derive(Debug, Default)]
pub(crate) struct History {
    changes: VecDeque<Change>,
    policies: usize,
}

impl History {
    /// Remembers that policies were added to the edition of this version.
    pub(crate) fn added(&mut self, from: String, written: Vec<Arc<Policy>>) {
        self.push(Change { from, written, gone: Vec::new() });
    }

    /// Remembers that policies were deleted from the edition of this version, with the dates of the deletions.
    pub(crate) fn deleted(&mut self, from: String, gone: Vec<(String, String)>) {
        self.push(Change { from, written: Vec::new(), gone });
    }

    /// Remembers what happened between two editions. `deletions` holds at least those that happened in between.
    pub(crate) fn changed(&mut self, before: &Edition, after: &Edition, deletions: &HashMap<String, String>) {
        let is_new = |policy: &&Arc<Policy>| {
            before.policies.get(policy.id()).is_none_or(|known| known.digest() != policy.digest())
        };
        let written = after.policies.iter().filter(is_new).cloned().collect();
        let gone = before.policies.iter().map(|policy| policy.id()).filter(|id| after.policies.get(id).is_none());
        let gone = gone.map(|id| (id.to_owned(), deletions.get(id).cloned().unwrap_or_default())).collect();
        self.push(Change { from: before.version.clone(), written, gone });
    }

    fn push(&mut self, change: Change) {
        let size = |change: &Change| change.written.len() + change.gone.len();
        self.policies += size(&change);
        self.changes.push_back(change);
        while self.changes.len() > CHANGES || self.policies > CHANGED_POLICIES {
            let Some(oldest) = self.changes.pop_front() else { break };
            self.policies -= size(&oldest);
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// What was written and what went since a version; none when it is not remembered.
    pub(crate) fn since(&self, version: &str) -> Option<LedgerChanges> {
        // A version may come back, when what was written was deleted; the youngest is the shortest way.
        let begin = self.changes.iter().rposition(|change| change.from == version)?;
        let mut last: HashMap<&str, Last<'_>> = HashMap::new();
        for change in self.changes.iter().skip(begin) {
            last.extend(change.written.iter().map(|policy| (policy.id(), Last::Written(policy))));
            last.extend(change.gone.iter().map(|(id, date)| (id.as_str(), Last::Gone(date))));
        }
        let mut changes = LedgerChanges::default();
        for (id, last) in last {
            match last {
                Last::Written(policy) => changes.written.push(Arc::clone(policy)),
                Last::Gone(date) => changes.gone.push((id.to_owned(), date.to_owned())),
            }
        }
        Some(changes)
    }
}

/// What happened to a policy last.
enum Last<'a> {
    Written(&'a Arc<Policy>),
    Gone(&'a str),
}

/// What came of several changes.
#[derive(Debug, Default)]
pub(crate) struct LedgerChanges {
    /// The policies that were written and are there.
    pub(crate) written: Vec<Arc<Policy>>,
    /// Ids that went, with the dates of their deletions.
    pub(crate) gone: Vec<(String, String)>,
}

/// What a master answers. `deletions` are those that are remembered, of policies that are not there.
pub(crate) fn answer(
    question: &LedgerQuestion,
    now: &Edition,
    history: &History,
    deletions: &HashMap<String, String>,
) -> LedgerDifference {
    let lines =
        |policies: &mut dyn Iterator<Item = &Arc<Policy>>| policies.map(|policy| policy.to_json_text()).collect();
    let pair = |(id, date): (&String, &String)| (id.clone(), date.clone());
    let version = now.version.clone();
    if question.whole || (question.known_version.is_empty() && question.digests.is_empty()) {
        let policies = lines(&mut now.policies.iter());
        let deleted = deletions.iter().map(pair).collect();
        return LedgerDifference { version, basis: LedgerBasis::Whole, policies, deleted };
    }
    if question.known_version == now.version {
        return LedgerDifference { version, basis: LedgerBasis::Known, policies: Vec::new(), deleted: Vec::new() };
    }
    if let Some(changes) = history.since(&question.known_version) {
        let policies = lines(&mut changes.written.iter());
        return LedgerDifference { version, basis: LedgerBasis::Known, policies, deleted: changes.gone };
    }
    let count = question.digests.len();
    if count == 0 {
        return LedgerDifference { version, basis: LedgerBasis::Unknown, policies: Vec::new(), deleted: Vec::new() };
    }
    let mine = digests(&now.policies, count);
    let differ: Vec<bool> = mine.iter().zip(&question.digests).map(|(mine, theirs)| mine != theirs).collect();
    let differs = |id: &str| differ.get(part_of(id, count)).copied().unwrap_or(true);
    let policies = lines(&mut now.policies.iter().filter(|policy| differs(policy.id())));
    let deleted = deletions.iter().filter(|(id, _)| differs(id)).map(pair).collect();
    let parts = differ.iter().zip(0_u32..).filter(|(differs, _)| **differs).map(|(_, part)| part).collect();
    LedgerDifference { version, basis: LedgerBasis::Parts(parts), policies, deleted }
}

/// The master's edition after a difference, and the ids that it touched; none when that is many, or all.
pub(crate) type Applied = (Edition, Option<Vec<String>>);

/// The master's edition, made of the one that was known and a difference; `parts` is how many digests were sent. None when it is not
/// the edition that the master has: then the whole ledger has to be asked for.
pub(crate) fn apply(known: &Edition, difference: &LedgerDifference, parts: usize) -> Option<Applied> {
    let written = difference.policies.iter().filter_map(|line| match Policy::from_json_text(line) {
        Ok(policy) if !policy.id().is_empty() => Some(Arc::new(policy)),
        Ok(_) => {
            tracing::warn!("The master sent a policy without id");
            None
        }
        Err(error) => {
            tracing::warn!(%error, "The master sent what is no policy");
            None
        }
    });
    let (policies, touched) = match &difference.basis {
        LedgerBasis::Whole => (kept(known, &mut written.into_iter()).collect(), None),
        LedgerBasis::Parts(exchanged) => {
            let exchanged: HashSet<usize> = exchanged.iter().filter_map(|part| usize::try_from(*part).ok()).collect();
            let mut policies: PolicySet = known
                .policies
                .iter()
                .filter(|policy| !exchanged.contains(&part_of(policy.id(), parts)))
                .cloned()
                .collect();
            policies.extend(kept(known, &mut written.into_iter()));
            (policies, None)
        }
        LedgerBasis::Known | LedgerBasis::Unknown => {
            let mut policies = known.policies.clone();
            let mut touched: Vec<String> = Vec::new();
            for (id, _) in &difference.deleted {
                policies.remove(id);
                touched.push(id.clone());
            }
            for policy in kept(known, &mut written.into_iter()) {
                touched.push(policy.id().to_owned());
                policies.insert(policy);
            }
            (policies, Some(touched))
        }
    };
    let edition = Edition::new(policies);
    if edition.version == difference.version {
        return Some((edition, touched));
    }
    // Of a whole ledger the version is the master's, also when it counts differently: it has to be known again.
    let whole = difference.basis == LedgerBasis::Whole;
    whole.then(|| (Edition { version: difference.version.clone(), ..edition }, None))
}

/// Policies that were sent. One whose text is known is the known one, so that what holds it need not change.
fn kept<'a>(
    known: &'a Edition,
    sent: &'a mut dyn Iterator<Item = Arc<Policy>>,
) -> impl Iterator<Item = Arc<Policy>> + 'a {
    sent.map(|policy| match known.policies.get(policy.id()) {
        Some(same) if same.digest() == policy.digest() => Arc::clone(same),
        _ => policy,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn policy(id: u16, content: u8) -> Arc<Policy> {
        let date = format!("2026-01-01T00:00:{:02}Z", id % 60);
        let inner = json!({"id": format!("p{id}"), "content": content, "date": date, "ledger": "global"});
        Arc::new(Policy::from_value(json!({"site": inner})).unwrap())
    }

    /// A master's past as steps: write a policy with a content, or delete one.
    fn replay(steps: &[(u16, Option<u8>)]) -> (Vec<Edition>, History, HashMap<String, String>) {
        let mut history = History::default();
        let mut editions = vec![Edition::new(PolicySet::default())];
        let mut deletions: HashMap<String, String> = HashMap::new();
        for (id, content) in steps {
            let before = editions.last().unwrap().clone();
            let name = format!("p{id}");
            let mut policies = before.policies.clone();
            policies.remove(&name);
            deletions.remove(&name);
            match content {
                Some(content) if before.policies.get(&name).is_none() => {
                    policies.insert(policy(*id, *content));
                    history.added(before.version, vec![policy(*id, *content)]);
                    editions.push(Edition::new(policies));
                    continue;
                }
                Some(content) => drop(policies.insert(policy(*id, *content))),
                None => drop(deletions.insert(name, "2026-02-01".to_owned())),
            }
            let after = Edition::new(policies);
            if after.version != before.version {
                history.changed(&before, &after, &deletions);
                editions.push(after);
            }
        }
        (editions, history, deletions)
    }

    fn ask(known: &Edition, digests: Vec<u64>) -> LedgerQuestion {
        LedgerQuestion { known_version: known.version.clone(), digests, whole: false }
    }

    proptest! {
        /// From any edition a node comes to the present one, by memory, by parts, and by the whole. LED-4
        #[test]
        fn a_difference_leads_to_the_present_edition(
            steps in proptest::collection::vec((0..40_u16, proptest::option::weighted(0.7, 0..4_u8)), 0..80),
            from in 0..80_usize,
        ) {
            let (editions, history, deletions) = replay(&steps);
            let now = editions.last().unwrap();
            let known = &editions[from.min(editions.len() - 1)];
            let remembered = answer(&ask(known, Vec::new()), now, &history, &deletions);
            prop_assert_eq!(&remembered.basis, &LedgerBasis::Known);
            prop_assert_eq!(&apply(known, &remembered, 0).unwrap().0.version, &now.version);

            let forgotten = History::default();
            let unknown = answer(&ask(known, Vec::new()), now, &forgotten, &deletions);
            prop_assert_eq!(unknown.basis == LedgerBasis::Known, known.version == now.version);
            let digests = known.digests();
            let parts = digests.len();
            let by_parts = answer(&ask(known, digests), now, &forgotten, &deletions);
            prop_assert_eq!(&apply(known, &by_parts, parts).unwrap().0.version, &now.version);

            let whole = answer(&LedgerQuestion { whole: true, ..LedgerQuestion::default() }, now, &history, &deletions);
            prop_assert_eq!(&apply(known, &whole, 0).unwrap().0.version, &now.version);
        }
    }

    #[test]
    fn catching_up_costs_what_changed() {
        let known = Edition::new((0..10_000).map(|id| policy(id, 0)).collect());
        let mut more = known.policies.clone();
        more.insert(policy(10_001, 1));
        let now = Edition::new(more);
        let by_parts = answer(&ask(&known, known.digests()), &now, &History::default(), &HashMap::new());
        let bytes: usize = by_parts.policies.iter().map(String::len).sum();
        assert!(by_parts.policies.len() < 50 && bytes < 5_000, "{} policies", by_parts.policies.len());
        assert!(known.digests().len() * 8 <= 16 * 1024);
    }

    #[test]
    fn a_wrong_basis_is_noticed() {
        let edition = |ids: &[u16]| Edition::new(ids.iter().map(|id| policy(*id, 0)).collect());
        let now = edition(&[1, 2]);
        let mut history = History::default();
        history.added(edition(&[1]).version, vec![policy(2, 0)]);
        let known = Edition { version: edition(&[1]).version, ..edition(&[3]) };
        let difference = answer(&ask(&known, Vec::new()), &now, &history, &HashMap::new());
        assert!(apply(&known, &difference, 0).is_none());
    }
}
