//! Which policies have a value: candidates, which who asks looks at.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Arc, LazyLock};

use serde_json::Value;

use super::ordered::{Ordered, order};
use crate::Policy;

/// In how many parts an index is kept. A change copies one part when it is shared.
const PARTS: usize = 64;

/// Different in every process, so that nobody can choose texts that meet.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Policies of one key. Mostly it is one.
#[derive(Clone)]
enum Found {
    One(Arc<Policy>),
    Several(Ordered),
}

/// Policies by the hash of a value.
#[derive(Clone)]
pub(super) struct Index {
    parts: Vec<Arc<HashMap<u64, Found>>>,
    /// Those whose value stands for every value.
    any: Ordered,
}

impl Default for Index {
    fn default() -> Self {
        Self { parts: vec![Arc::default(); PARTS], any: Ordered::default() }
    }
}

/// The key of a text, as it is.
pub(super) fn text_key(text: &str) -> u64 {
    HASHER.hash_one(text)
}

/// The key of a number: the same however it is written, and another than that of any text.
fn number_key(number: f64) -> u64 {
    HASHER.hash_one(((number + 0.0).to_bits(), "number"))
}

fn part_of(key: u64) -> usize {
    usize::try_from(key % PARTS as u64).unwrap_or_default()
}

impl Index {
    /// The policies of a key.
    pub(super) fn found(&self, key: u64) -> impl Iterator<Item = &Arc<Policy>> {
        let found = self.parts.get(part_of(key)).and_then(|part| part.get(&key));
        let (one, several) = match found {
            Some(Found::One(policy)) => (Some(policy), None),
            Some(Found::Several(policies)) => (None, Some(policies)),
            None => (None, None),
        };
        one.into_iter().chain(several.into_iter().flat_map(Ordered::iter))
    }

    pub(super) fn add(&mut self, key: u64, policy: &Arc<Policy>) {
        let Some(part) = self.parts.get_mut(part_of(key)) else { return };
        let part = Arc::make_mut(part);
        match part.get_mut(&key) {
            None => drop(part.insert(key, Found::One(Arc::clone(policy)))),
            Some(Found::Several(policies)) => policies.insert(Arc::clone(policy)),
            Some(found @ Found::One(_)) => {
                let mut policies = Ordered::default();
                if let Found::One(first) = &*found {
                    policies.insert(Arc::clone(first));
                }
                policies.insert(Arc::clone(policy));
                *found = Found::Several(policies);
            }
        }
    }

    pub(super) fn take(&mut self, key: u64, policy: &Policy) {
        let Some(part) = self.parts.get_mut(part_of(key)) else { return };
        let part = Arc::make_mut(part);
        match part.get_mut(&key) {
            Some(Found::Several(policies)) if policies.len() > 1 => policies.remove(policy),
            Some(_) => drop(part.remove(&key)),
            None => {}
        }
    }

    /// Adds a policy under its value of the attribute.
    pub(super) fn add_value(&mut self, value: Option<&Value>, policy: &Arc<Policy>) {
        for key in keys(value) {
            match key {
                Some(key) => self.add(key, policy),
                None => self.any.insert(Arc::clone(policy)),
            }
        }
    }

    pub(super) fn take_value(&mut self, value: Option<&Value>, policy: &Policy) {
        for key in keys(value) {
            match key {
                Some(key) => self.take(key, policy),
                None => self.any.remove(policy),
            }
        }
    }

    /// How many candidates there are for a value.
    pub(super) fn count(&self, value: &str) -> usize {
        let keys = wanted(value);
        let of = |key: u64| match self.parts.get(part_of(key)).and_then(|part| part.get(&key)) {
            Some(Found::One(_)) => 1,
            Some(Found::Several(policies)) => policies.len(),
            None => 0,
        };
        self.any.len() + keys.into_iter().flatten().map(of).sum::<usize>()
    }

    /// All policies that may have the value, in order.
    pub(super) fn candidates(&self, value: &str) -> Vec<Arc<Policy>> {
        let [text, number] = wanted(value);
        let mut found: Vec<Arc<Policy>> = text.into_iter().flat_map(|key| self.found(key)).cloned().collect();
        let ordered = found.len();
        found.extend(number.into_iter().flat_map(|key| self.found(key)).cloned());
        found.extend(self.any.iter().cloned());
        if found.len() > ordered {
            found.sort_by(|a, b| order(a, b));
            found.dedup_by(|a, b| Arc::ptr_eq(a, b));
        }
        found
    }
}

/// The keys under which a wanted value may be found: as a text, as a number.
fn wanted(value: &str) -> [Option<u64>; 2] {
    [Some(text_key(&value.to_lowercase())), value.trim().parse().ok().map(number_key)]
}

/// The keys of a stored value, each once; one that is none stands for every value.
fn keys(value: Option<&Value>) -> Vec<Option<u64>> {
    let mut keys = Vec::new();
    match value {
        None | Some(Value::Null | Value::Object(_)) => {}
        Some(Value::Array(list)) => {
            // A list that holds the value has it.
            let elements = list.iter().filter(|element| !element.is_array());
            keys.extend(elements.flat_map(|element| self::keys(Some(element))));
            keys.sort_unstable();
            keys.dedup();
        }
        Some(Value::String(text)) if text == "*" => keys.push(None),
        Some(Value::String(text)) => keys.push(Some(text_key(&text.to_lowercase()))),
        Some(Value::Bool(value)) => keys.push(Some(text_key(if *value { "true" } else { "false" }))),
        Some(Value::Number(number)) => keys.extend(number.as_f64().map(|number| Some(number_key(number)))),
    }
    keys
}
