//! What runs on a node: the rows of `get processes`.

use std::sync::Arc;

use parking_lot::RwLock;

/// The state of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessState {
    /// Whether it runs.
    pub running: bool,
    /// What a person wants to know of it; may be empty.
    pub details: String,
}

impl ProcessState {
    /// A process that was not started.
    #[must_use]
    pub fn not_declared() -> Self {
        Self { running: false, details: String::new() }
    }

    /// A running process.
    pub fn running(details: impl Into<String>) -> Self {
        Self { running: true, details: details.into() }
    }
}

type Probe = Arc<dyn Fn() -> ProcessState + Send + Sync>;

/// The documented processes in their order; others follow. Clients look rows up by name, so each is always shown.
const ORDER: &[&str] = &[
    "TCP",
    "REST",
    "MCP",
    "Operator",
    "Publisher",
    "Distributor",
    "Consumer",
    "Blockchain Sync",
    "Scheduler",
    "Blobs Archiver",
    "MQTT",
    "MSG Client Pool",
    "MSG Broker",
    "SMTP",
    "Streamer",
    "UNS Streamer",
    "Query Pool",
    "Kafka Consumer",
    "gRPC",
    "PLC Client",
    "Pull Processes",
    "Video Processes",
];

/// All processes that crates told the node of.
#[derive(Default)]
pub struct Processes {
    probes: RwLock<Vec<(&'static str, Probe)>>,
}

impl Processes {
    /// Adds a process; `probe` is asked at each `get processes`.
    pub fn register(&self, name: &'static str, probe: impl Fn() -> ProcessState + Send + Sync + 'static) {
        let mut probes = self.probes.write();
        probes.retain(|(known, _)| *known != name);
        probes.push((name, Arc::new(probe)));
        probes.sort_by_key(|(name, _)| ORDER.iter().position(|known| known == name).unwrap_or(ORDER.len()));
    }

    /// The state of every process, in the documented order; one that nobody registered is not declared.
    #[must_use]
    pub fn states(&self) -> Vec<(&'static str, ProcessState)> {
        let probes = self.probes.read().clone();
        let missing = ORDER.iter().filter(|name| probes.iter().all(|(known, _)| known != *name));
        let mut states: Vec<(&'static str, ProcessState)> =
            missing.map(|name| (*name, ProcessState::not_declared())).collect();
        states.extend(probes.iter().map(|(name, probe)| (*name, probe())));
        states.sort_by_key(|(name, _)| ORDER.iter().position(|known| known == name).unwrap_or(ORDER.len()));
        states
    }
}

impl std::fmt::Debug for Processes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.states()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documented_rows_come_first_and_in_order() {
        let processes = Processes::default();
        processes.register("Own", || ProcessState::running("here"));
        processes.register("REST", || ProcessState::running("old"));
        processes.register("REST", || ProcessState::running("new"));
        let states = processes.states();
        let names: Vec<&str> = states.iter().map(|(name, _)| *name).collect();
        assert_eq!(names[..2], ["TCP", "REST"]);
        assert_eq!(names.last(), Some(&"Own"));
        assert_eq!(states[0].1, ProcessState::not_declared());
        assert_eq!(states[1].1.details, "new");
        assert_eq!(names.len(), ORDER.len() + 1);
    }
}
