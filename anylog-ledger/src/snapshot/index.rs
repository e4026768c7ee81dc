//! Which policies have a value of an attribute: made when it is asked for first, for as long as the snapshot lives.
//!
//! An index gives candidates, in ledger order: all policies that satisfy `attribute = value` are among them, and who asks looks at each.

use std::collections::HashMap;
use std::sync::Arc;

use anylog_core::command::Value;
use parking_lot::Mutex;
use serde_json::Value as Json;

use crate::Policy;

/// Fewer policies are looked through as fast as an index.
const LEAST: usize = 64;

/// The most attributes that are indexed; further ones are looked for in all policies.
const MOST: usize = 64;

/// The policies of a type by the values of one attribute.
#[derive(Debug, Default)]
struct Index {
    by_value: HashMap<String, Vec<usize>>,
    /// Those whose value matches everything.
    any: Vec<usize>,
}

/// The indexes of a snapshot: by type, or `*`, and attribute.
#[derive(Debug, Default)]
pub(super) struct Indexes {
    made: Mutex<HashMap<(String, String), Arc<Index>>>,
}

impl Indexes {
    /// Positions in `policies` at which `attribute = wanted` may hold; none when all have to be looked at.
    pub(super) fn candidates(
        &self,
        policies: &[Arc<Policy>],
        positions: Option<&[usize]>,
        kind: &str,
        attribute: &str,
        wanted: &Value,
    ) -> Option<Vec<usize>> {
        if positions.map_or(policies.len(), <[usize]>::len) < LEAST {
            return None;
        }
        let index = self.index(policies, positions, kind, attribute)?;
        let text = wanted.to_string();
        let number = text.trim().parse().ok().map(number_key);
        let keys = [Some(text.to_lowercase()), number];
        let mut found: Vec<usize> = index.any.clone();
        for key in keys.into_iter().flatten() {
            found.extend(index.by_value.get(&key).into_iter().flatten());
        }
        found.sort_unstable();
        found.dedup();
        Some(found)
    }

    fn index(
        &self,
        policies: &[Arc<Policy>],
        positions: Option<&[usize]>,
        kind: &str,
        attribute: &str,
    ) -> Option<Arc<Index>> {
        let key = (kind.to_owned(), attribute.to_owned());
        let mut made = self.made.lock();
        if let Some(index) = made.get(&key) {
            return Some(Arc::clone(index));
        }
        if made.len() >= MOST {
            return None;
        }
        let mut index = Index::default();
        let mut take = |position: usize, policy: &Policy| {
            if let Some(value) = policy.get(attribute) {
                index.add(position, value);
            }
        };
        match positions {
            Some(positions) => {
                positions.iter().filter_map(|at| Some((*at, policies.get(*at)?))).for_each(|(at, p)| take(at, p));
            }
            None => policies.iter().enumerate().for_each(|(at, policy)| take(at, policy)),
        }
        let index = Arc::new(index);
        made.insert(key, Arc::clone(&index));
        Some(index)
    }
}

impl Index {
    fn add(&mut self, position: usize, value: &Json) {
        let key = match value {
            Json::String(text) if text == "*" => return self.any.push(position),
            Json::String(text) => text.to_lowercase(),
            Json::Bool(value) => value.to_string(),
            Json::Number(number) => match number.as_f64() {
                Some(number) => number_key(number),
                None => return,
            },
            // A list that holds the value has it.
            Json::Array(list) => {
                return list
                    .iter()
                    .filter(|element| !element.is_array())
                    .for_each(|element| self.add(position, element));
            }
            Json::Null | Json::Object(_) => return,
        };
        self.by_value.entry(key).or_default().push(position);
    }
}

/// Equal for equal numbers, whole or not, and different from any text.
fn number_key(number: f64) -> String {
    format!("\0{:x}", (number + 0.0).to_bits())
}
