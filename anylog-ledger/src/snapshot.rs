//! One state of the ledger, as readers see it: immutable, indexed, with the overlay applied.

mod index;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use crate::sync::edition::version_of;
use crate::{Policy, View};

/// That a policy was deleted, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deletion {
    /// The policy's id.
    pub id: String,
    /// When it was deleted, as a policy's `date`.
    pub date: String,
}

/// What the local copy holds: policies in order, and what this node did to policies that the master does not know yet.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Contents {
    /// The policies in ledger order.
    pub policies: Vec<Arc<Policy>>,
    /// Policies that were deleted here; the master is told again until its ledger lacks them.
    pub deleted: Vec<Deletion>,
    /// Ids whose policy was replaced here; the master is told again until its ledger holds the same content.
    pub replaced: Vec<String>,
}

impl Contents {
    /// The policy of this id.
    #[must_use]
    pub fn policy(&self, id: &str) -> Option<&Arc<Policy>> {
        self.policies.iter().find(|policy| policy.id() == id)
    }

    /// Puts the policies into the order of the ledger: those that a master knows first, then the local ones as they were written.
    pub(crate) fn arrange(&mut self) {
        self.policies.sort_by(|a, b| match (a.is_local(), b.is_local()) {
            (false, false) => a.order(b),
            (a, b) => a.cmp(&b),
        });
    }

    /// Puts a policy where it belongs.
    pub(crate) fn place(&mut self, policy: Arc<Policy>) {
        let before = |known: &Arc<Policy>| match (known.is_local(), policy.is_local()) {
            (false, false) => known.order(&policy).is_lt(),
            (known, _) => !known,
        };
        let at = if policy.is_local() { self.policies.len() } else { self.policies.partition_point(before) };
        self.policies.insert(at, policy);
    }
}

/// One state of the ledger. Cheap to share; computed once after a change.
#[derive(Debug)]
pub struct Snapshot {
    stored: Vec<Arc<Policy>>,
    policies: Vec<Arc<Policy>>,
    by_id: HashMap<String, usize>,
    by_kind: HashMap<String, Vec<usize>>,
    view: OnceLock<Arc<View>>,
    version: OnceLock<String>,
    indexes: index::Indexes,
}

impl Snapshot {
    /// The state of these policies.
    #[must_use]
    pub fn new(stored: Vec<Arc<Policy>>) -> Self {
        let policies = overlaid(&stored);
        let mut by_id = HashMap::with_capacity(policies.len());
        let mut by_kind: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, policy) in policies.iter().enumerate() {
            by_id.entry(policy.id().to_owned()).or_insert(index);
            by_kind.entry(policy.kind().to_owned()).or_default().push(index);
        }
        Self {
            stored,
            policies,
            by_id,
            by_kind,
            view: OnceLock::new(),
            version: OnceLock::new(),
            indexes: index::Indexes::default(),
        }
    }

    /// All policies in order.
    #[must_use]
    pub fn policies(&self) -> &[Arc<Policy>] {
        &self.policies
    }

    /// All policies as they are stored, without the overlay.
    #[must_use]
    pub fn stored(&self) -> &[Arc<Policy>] {
        &self.stored
    }

    /// Whether this is the state of just these policies.
    pub(crate) fn is_of(&self, policies: &[Arc<Policy>]) -> bool {
        self.stored.len() == policies.len() && self.stored.iter().zip(policies).all(|(a, b)| Arc::ptr_eq(a, b))
    }

    /// The policy of this id.
    #[must_use]
    pub fn policy(&self, id: &str) -> Option<&Arc<Policy>> {
        self.by_id.get(id).and_then(|index| self.policies.get(*index))
    }

    /// Among these are all policies of a type (`*`: of all) with `attribute = wanted`, in order; none when that is not known faster
    /// than by looking.
    pub(crate) fn candidates(
        &self,
        kind: &str,
        attribute: &str,
        wanted: &anylog_core::command::Value,
    ) -> Option<Vec<&Arc<Policy>>> {
        let positions = match kind {
            "*" => None,
            kind => Some(self.by_kind.get(kind).map(Vec::as_slice).unwrap_or_default()),
        };
        let found = self.indexes.candidates(&self.policies, positions, kind, attribute, wanted)?;
        Some(found.into_iter().filter_map(|at| self.policies.get(at)).collect())
    }

    /// The policies of a type in order.
    pub fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Arc<Policy>> {
        let indexes = self.by_kind.get(kind).map(Vec::as_slice).unwrap_or_default();
        indexes.iter().filter_map(|index| self.policies.get(*index))
    }

    /// Clusters, operators and tables.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        Arc::clone(self.view.get_or_init(|| Arc::new(View::build(&self.policies))))
    }

    /// MD5 over the digests of the stored policies. Two nodes with equal versions have equal ledgers.
    #[must_use]
    pub fn version(&self) -> String {
        self.version.get_or_init(|| version_of(&self.stored)).clone()
    }
}

/// Attributes that an overlay changes, and its date.
type Change<'a> = (&'a serde_json::Map<String, Value>, &'a str);

/// Applies `anmp` policies: `{"anmp": {<policy id>: {attribute: value}, "id": .., "date": ..}}`. The newest date wins for each
/// attribute; a list attribute is extended. The dates stay in the policy under `anmp`. What is stored does not change.
fn overlaid(stored: &[Arc<Policy>]) -> Vec<Arc<Policy>> {
    let mut overlays: Vec<&Arc<Policy>> = stored.iter().filter(|policy| policy.kind() == "anmp").collect();
    if overlays.is_empty() {
        return stored.to_vec();
    }
    overlays.sort_by_key(|policy| policy.text("date").unwrap_or_default().to_owned());
    let mut changes: HashMap<&str, Vec<Change<'_>>> = HashMap::new();
    for overlay in overlays {
        let date = overlay.text("date").unwrap_or_default();
        for (id, attributes) in overlay.inner() {
            if let Value::Object(attributes) = attributes {
                changes.entry(id).or_default().push((attributes, date));
            }
        }
    }
    let apply = |policy: &Arc<Policy>| match changes.get(policy.id()) {
        Some(changes) if policy.kind() != "anmp" => Arc::new(changed(policy, changes)),
        _ => Arc::clone(policy),
    };
    stored.iter().map(apply).collect()
}

fn changed(policy: &Policy, changes: &[Change<'_>]) -> Policy {
    let mut inner = policy.inner().clone();
    let mut dates = serde_json::Map::new();
    for (attributes, date) in changes {
        for (name, value) in *attributes {
            // The identity of a policy is not the overlay's to change.
            if matches!(name.as_str(), "id" | "date" | "ledger" | "anmp") {
                continue;
            }
            match (inner.get_mut(name), value) {
                (Some(Value::Array(list)), Value::Array(more)) => {
                    let new: Vec<Value> = more.iter().filter(|element| !list.contains(element)).cloned().collect();
                    list.extend(new);
                }
                _ => {
                    inner.insert(name.clone(), value.clone());
                }
            }
            dates.insert(name.clone(), Value::from(*date));
        }
    }
    inner.insert("anmp".to_owned(), Value::Object(dates));
    Policy::new(policy.kind(), inner)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn snapshot(values: &[Value]) -> Snapshot {
        Snapshot::new(values.iter().map(|value| Arc::new(Policy::from_value(value.clone()).unwrap())).collect())
    }

    #[test]
    fn the_newest_overlay_wins_for_each_attribute() {
        let snapshot = snapshot(&[
            json!({"anmp": {"p": {"city": "new", "tags": ["b"]}, "id": "n2", "date": "2026-02-01T00:00:00Z"}}),
            json!({"site": {"id": "p", "city": "old", "tags": ["a"]}}),
            json!({"anmp": {"p": {"city": "older", "state": "CA"}, "id": "n1", "date": "2026-01-01T00:00:00Z"}}),
        ]);
        let policy = snapshot.policy("p").unwrap();
        assert_eq!(policy.text("city"), Some("new"));
        assert_eq!(policy.text("state"), Some("CA"));
        assert_eq!(policy.get("tags"), Some(&json!(["a", "b"])));
        assert_eq!(snapshot.stored()[1].text("city"), Some("old"));
        assert_eq!(snapshot.of_kind("anmp").count(), 2);
    }

    #[test]
    fn the_version_depends_on_content_and_order() {
        let (a, b) = (json!({"site": {"id": "a"}}), json!({"site": {"id": "b"}}));
        let version = snapshot(&[a.clone(), b.clone()]).version();
        assert_eq!(version, snapshot(&[a.clone(), b.clone()]).version());
        assert_ne!(version, snapshot(&[b, a]).version());
        assert_eq!(snapshot(&[]).version(), "d41d8cd98f00b204e9800998ecf8427e");
    }
}
