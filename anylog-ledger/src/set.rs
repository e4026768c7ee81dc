//! A set of policies in ledger order, with what is needed to find them.
//!
//! A set is cheap to clone, and two clones share all that they have in common: a change copies what it touches, a small part of a large
//! ledger. So a reader keeps one state for as long as it looks, and a writer makes the next one, each at a cost that hardly depends
//! on how many policies there are.
//!
//! The order is that of the ledger: what a master knows comes first, by date, then by id; what is only local follows, likewise.

mod index;
mod ordered;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use md5::{Digest, Md5};
use parking_lot::Mutex;
use serde_json::Value;

use crate::Policy;
use index::Index;
use ordered::Ordered;

/// Fewer policies are looked through as fast as an index.
const LEAST: usize = 64;

/// The most attributes that are indexed; further ones are looked for in all policies.
const MOST: usize = 64;

/// The type that stands for all types.
const ANY: &str = "*";

/// Policies with distinct ids, in ledger order.
#[derive(Clone, Default)]
pub struct PolicySet(Arc<Inner>);

/// Indexes by type and attribute.
type Made = HashMap<Arc<(String, String)>, Arc<Index>>;

#[derive(Default)]
struct Inner {
    ordered: Ordered,
    by_id: Index,
    kinds: BTreeMap<Arc<str>, Kind>,
    // The sum of the digests: equal for equal sets, in whatever order they came to be.
    sum: u128,
    // Made when a value is looked for first, and kept up to date from then on. By type, or `*`, and attribute.
    made: Mutex<Made>,
}

impl Clone for Inner {
    fn clone(&self) -> Self {
        Self {
            ordered: self.ordered.clone(),
            by_id: self.by_id.clone(),
            kinds: self.kinds.clone(),
            sum: self.sum,
            made: Mutex::new(self.made.lock().clone()),
        }
    }
}

/// The policies of one type.
#[derive(Clone, Default)]
struct Kind {
    ordered: Ordered,
    sum: u128,
}

impl PolicySet {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.ordered.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All in ledger order; from the end, the local ones come first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Policy>> {
        self.0.ordered.iter()
    }

    /// Those of a type in ledger order; `*` for all.
    pub fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Arc<Policy>> {
        let ordered =
            if kind == ANY { Some(&self.0.ordered) } else { self.0.kinds.get(kind).map(|kind| &kind.ordered) };
        ordered.into_iter().flat_map(Ordered::iter)
    }

    /// The policy of this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Arc<Policy>> {
        self.0.by_id.found(index::text_key(id)).find(|policy| policy.id() == id)
    }

    /// Those that no master knows, as far as this node knows, in the order in which they were written.
    pub fn local(&self) -> impl Iterator<Item = &Arc<Policy>> {
        let count = self.iter().rev().take_while(|policy| policy.is_local()).count();
        self.0.ordered.last(count)
    }

    /// Puts a policy where it belongs. One of the same id makes room for it, and is returned.
    pub fn insert(&mut self, policy: Arc<Policy>) -> Option<Arc<Policy>> {
        let before = self.remove(policy.id());
        let opened = policy;
        let policy = Policy::resting(&opened);
        let inner = Arc::make_mut(&mut self.0);
        inner.sum = inner.sum.wrapping_add(number(&policy));
        inner.ordered.insert(Arc::clone(&policy));
        inner.by_id.add(index::text_key(policy.id()), &policy);
        let kind = inner.kinds.entry(Arc::from(policy.kind())).or_default();
        kind.sum = kind.sum.wrapping_add(number(&policy));
        kind.ordered.insert(Arc::clone(&policy));
        inner.each_index(&opened, |index, value| index.add_value(Some(value), &policy));
        before
    }

    /// Takes the policy of this id out.
    pub fn remove(&mut self, id: &str) -> Option<Arc<Policy>> {
        let policy = Arc::clone(self.get(id)?);
        let inner = Arc::make_mut(&mut self.0);
        inner.sum = inner.sum.wrapping_sub(number(&policy));
        inner.ordered.remove(&policy);
        inner.by_id.take(index::text_key(id), &policy);
        if let Some(kind) = inner.kinds.get_mut(policy.kind()) {
            kind.sum = kind.sum.wrapping_sub(number(&policy));
            kind.ordered.remove(&policy);
            if kind.ordered.len() == 0 {
                inner.kinds.remove(policy.kind());
            }
        }
        inner.each_index(&policy, |index, value| index.take_value(Some(value), &policy));
        Some(policy)
    }

    /// Equal for sets of the same texts: 32 hexadecimal digits.
    #[must_use]
    pub fn version(&self) -> String {
        let mut hash = Md5::new();
        if !self.is_empty() {
            hash.update(self.0.sum.to_be_bytes());
            hash.update((self.len() as u64).to_be_bytes());
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether both hold the same policies of these types; of all for `*`.
    pub(crate) fn is_same(&self, other: &PolicySet, kinds: &[&str]) -> bool {
        let content = |set: &PolicySet, kind: &str| match kind {
            ANY => (set.len(), set.0.sum),
            kind => set.0.kinds.get(kind).map_or((0, 0), |kind| (kind.ordered.len(), kind.sum)),
        };
        kinds.iter().all(|kind| content(self, kind) == content(other, kind))
    }

    /// Policies of a type (`*`: of all) in ledger order, among them all that have each of these values. Values compare as texts without
    /// case, or as numbers; a stored `*` has every value, a stored list has those in it.
    #[must_use]
    pub fn candidates(&self, kind: &str, values: &[(&str, &str)]) -> Vec<Arc<Policy>> {
        let all = || self.of_kind(kind).cloned().collect();
        if self.count(kind) < LEAST {
            return all();
        }
        let found = values.iter().filter_map(|(attribute, value)| {
            let index = self.index(kind, attribute)?;
            Some((index.count(value), index, *value))
        });
        // One look at the fewest is enough: who asks looks at each.
        match found.min_by_key(|(count, ..)| *count) {
            Some((_, index, value)) => index.candidates(value),
            None => all(),
        }
    }

    /// As [`Self::candidates`], for values as policies hold them. A list or object cannot be looked for.
    pub(crate) fn with_values(&self, kind: &str, values: &[(&str, &Value)]) -> Vec<Arc<Policy>> {
        let scalar = |value: &Value| !matches!(value, Value::Array(_) | Value::Object(_) | Value::Null);
        let texts: Vec<(&str, String)> = values
            .iter()
            .filter(|(_, value)| scalar(value))
            .map(|(name, value)| (*name, crate::policy::shown(value)))
            .collect();
        let texts: Vec<(&str, &str)> = texts.iter().map(|(name, text)| (*name, text.as_str())).collect();
        self.candidates(kind, &texts)
    }

    fn count(&self, kind: &str) -> usize {
        if kind == ANY { self.len() } else { self.0.kinds.get(kind).map_or(0, |kind| kind.ordered.len()) }
    }

    fn index(&self, kind: &str, attribute: &str) -> Option<Arc<Index>> {
        let key = (kind.to_owned(), attribute.to_owned());
        let mut made = self.0.made.lock();
        if let Some(index) = made.get(&key) {
            return Some(Arc::clone(index));
        }
        if made.len() >= MOST {
            return None;
        }
        let mut index = Index::default();
        for policy in self.of_kind(kind) {
            index.add_value(policy.opened().get(attribute), policy);
        }
        let index = Arc::new(index);
        made.insert(Arc::new(key), Arc::clone(&index));
        Some(index)
    }
}

impl Inner {
    /// Changes the indexes that a policy belongs to.
    fn each_index(&mut self, policy: &Policy, change: impl Fn(&mut Index, &Value)) {
        let made = self.made.get_mut();
        if made.is_empty() {
            return;
        }
        let policy = policy.opened();
        for (key, index) in made {
            let (kind, attribute) = &**key;
            if (kind == ANY || kind == policy.kind())
                && let Some(value) = policy.get(attribute)
            {
                change(Arc::make_mut(index), value);
            }
        }
    }
}

/// The digest of a policy as a number.
fn number(policy: &Policy) -> u128 {
    u128::from_be_bytes(*policy.digest())
}

impl FromIterator<Arc<Policy>> for PolicySet {
    /// Of policies with one id the first counts.
    fn from_iter<I: IntoIterator<Item = Arc<Policy>>>(policies: I) -> Self {
        let mut inner = Inner::default();
        let mut kinds: BTreeMap<Arc<str>, Vec<Arc<Policy>>> = BTreeMap::new();
        let mut all: Vec<Arc<Policy>> = Vec::new();
        for policy in policies {
            let key = index::text_key(policy.id());
            if inner.by_id.found(key).any(|known| known.id() == policy.id()) {
                continue;
            }
            let policy = Policy::resting(&policy);
            inner.by_id.add(key, &policy);
            all.push(policy);
        }
        all.sort_by(|a, b| ordered::order(a, b));
        for policy in &all {
            inner.sum = inner.sum.wrapping_add(number(policy));
            match kinds.get_mut(policy.kind()) {
                Some(kind) => kind.push(Arc::clone(policy)),
                None => drop(kinds.insert(Arc::from(policy.kind()), vec![Arc::clone(policy)])),
            }
        }
        inner.ordered = Ordered::from_sorted(&all);
        for (kind, policies) in kinds {
            let sum = policies.iter().fold(0_u128, |sum, policy| sum.wrapping_add(number(policy)));
            inner.kinds.insert(kind, Kind { ordered: Ordered::from_sorted(&policies), sum });
        }
        Self(Arc::new(inner))
    }
}

impl Extend<Arc<Policy>> for PolicySet {
    fn extend<I: IntoIterator<Item = Arc<Policy>>>(&mut self, policies: I) {
        for policy in policies {
            self.insert(policy);
        }
    }
}

impl PartialEq for PolicySet {
    fn eq(&self, other: &Self) -> bool {
        self.is_same(other, &[ANY])
    }
}

impl Eq for PolicySet {}

impl fmt::Debug for PolicySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|policy| policy.to_json_text())).finish()
    }
}

#[cfg(test)]
mod tests;
