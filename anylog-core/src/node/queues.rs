//! What waits on a node, and how much may: the queues of `get streaming`, the overload of `get status` (R23).

use std::sync::Arc;

use parking_lot::RwLock;

/// One bounded resource at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QueueUse {
    /// What it is: `journal`, `rows on their way`.
    pub name: String,
    /// What is counted: `bytes`, `messages`.
    pub unit: &'static str,
    /// How much is in use.
    pub used: u64,
    /// How much may be; none when nothing waits there for room.
    pub bound: Option<u64>,
    /// Why nothing more is taken at the moment, when that is not for lack of room.
    pub trouble: Option<String>,
}

impl QueueUse {
    /// A bounded number of bytes.
    pub fn bytes(name: impl Into<String>, used: u64, bound: u64) -> Self {
        Self { name: name.into(), unit: "bytes", used, bound: Some(bound), trouble: None }
    }

    /// A state in which nothing is taken.
    pub fn trouble(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { name: name.into(), unit: "bytes", trouble: Some(reason.into()), ..Self::default() }
    }

    /// Why nothing more is taken at the moment; none when there is room.
    #[must_use]
    pub fn overload(&self) -> Option<String> {
        if let Some(trouble) = &self.trouble {
            return Some(format!("{}: {trouble}", self.name));
        }
        let bound = self.bound.filter(|bound| *bound > 0 && self.used >= *bound)?;
        Some(format!("{}: {} of {bound} {}", self.name, self.used, self.unit))
    }
}

type Probe = Arc<dyn Fn() -> Vec<QueueUse> + Send + Sync>;

/// All queues that crates told the node of.
#[derive(Default)]
pub struct Queues {
    probes: RwLock<Vec<(&'static str, Probe)>>,
}

impl Queues {
    /// Adds the queues of a part of the node; `probe` is asked whenever somebody looks.
    pub fn register(&self, owner: &'static str, probe: impl Fn() -> Vec<QueueUse> + Send + Sync + 'static) {
        let mut probes = self.probes.write();
        probes.retain(|(known, _)| *known != owner);
        probes.push((owner, Arc::new(probe)));
    }

    /// Every queue, by owner.
    #[must_use]
    pub fn all(&self) -> Vec<(&'static str, QueueUse)> {
        let probes = self.probes.read().clone();
        probes.into_iter().flat_map(|(owner, probe)| probe().into_iter().map(move |queue| (owner, queue))).collect()
    }

    /// Why the node takes nothing more somewhere at the moment; empty when all is well.
    #[must_use]
    pub fn overload(&self) -> Vec<String> {
        self.all().iter().filter_map(|(_, queue)| queue.overload()).collect()
    }
}

impl std::fmt::Debug for Queues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.probes.read().iter().map(|(owner, _)| owner)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_full_and_what_fails_is_overload() {
        let queues = Queues::default();
        queues.register("store", || vec![QueueUse::bytes("journal", 5, 10), QueueUse::bytes("rows", 10, 10)]);
        queues.register("dbms", || vec![QueueUse::trouble("database d", "disk full")]);
        assert_eq!(queues.overload(), ["rows: 10 of 10 bytes", "database d: disk full"]);
        assert_eq!(queues.all().len(), 3);
        queues.register("store", Vec::new);
        queues.register("dbms", Vec::new);
        assert!(queues.overload().is_empty());
    }
}
