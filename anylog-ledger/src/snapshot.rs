//! One state of the ledger, as readers see it: immutable, indexed, with the overlay applied.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use crate::set::PolicySet;
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
    /// The policies.
    pub policies: PolicySet,
    /// Policies that were deleted here; the master is told again until its ledger lacks them.
    pub deleted: Vec<Deletion>,
    /// Ids whose policy was replaced here; the master is told again until its ledger holds the same content.
    pub replaced: Vec<String>,
}

impl Contents {
    /// The policy of this id.
    #[must_use]
    pub fn policy(&self, id: &str) -> Option<&Arc<Policy>> {
        self.policies.get(id)
    }
}

/// What the view is derived of.
const VIEWED: [&str; 3] = ["cluster", "operator", "table"];

/// One state of the ledger. Cheap to make after a change, and to share.
#[derive(Debug)]
pub struct Snapshot {
    stored: PolicySet,
    policies: PolicySet,
    view: OnceLock<Arc<View>>,
}

impl Snapshot {
    /// The state of these policies.
    #[must_use]
    pub fn new(stored: PolicySet) -> Self {
        let policies = overlaid(&stored);
        Self { stored, policies, view: OnceLock::new() }
    }

    /// The state of these policies, which came of another one: what did not change is not derived again.
    pub(crate) fn after(stored: PolicySet, before: &Snapshot) -> Self {
        let snapshot = Self::new(stored);
        if let Some(view) = before.view.get()
            && snapshot.policies.is_same(&before.policies, &VIEWED)
        {
            return Self { view: OnceLock::from(Arc::clone(view)), ..snapshot };
        }
        snapshot
    }

    /// All policies in order, with the overlay.
    #[must_use]
    pub fn policies(&self) -> &PolicySet {
        &self.policies
    }

    /// All policies as they are stored, without the overlay.
    #[must_use]
    pub fn stored(&self) -> &PolicySet {
        &self.stored
    }

    /// The policy of this id.
    #[must_use]
    pub fn policy(&self, id: &str) -> Option<&Arc<Policy>> {
        self.policies.get(id)
    }

    /// The policies of a type in order.
    pub fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Arc<Policy>> {
        self.policies.of_kind(kind)
    }

    /// Clusters, operators and tables.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        Arc::clone(self.view.get_or_init(|| Arc::new(View::build(&self.policies))))
    }

    /// Two nodes with equal versions have equal ledgers.
    #[must_use]
    pub fn version(&self) -> String {
        self.stored.version()
    }
}

/// Attributes that an overlay changes, and its date.
type Change<'a> = (&'a serde_json::Map<String, Value>, &'a str);

/// Applies `anmp` policies: `{"anmp": {<policy id>: {attribute: value}, "id": .., "date": ..}}`. The newest date wins for each
/// attribute; a list attribute is extended. The dates stay in the policy under `anmp`. What is stored does not change.
fn overlaid(stored: &PolicySet) -> PolicySet {
    let mut policies = stored.clone();
    let mut overlays: Vec<&Arc<Policy>> = stored.of_kind("anmp").collect();
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
    for (id, changes) in changes {
        if let Some(policy) = stored.get(id).filter(|policy| policy.kind() != "anmp") {
            policies.insert(Arc::new(changed(policy, &changes)));
        }
    }
    policies
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
        assert_eq!(snapshot.stored().get("p").unwrap().text("city"), Some("old"));
        assert_eq!(snapshot.of_kind("anmp").count(), 2);
    }
}
