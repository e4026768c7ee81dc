//! The scripts that run on a node.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::debug::Debugged;
use crate::Node;

/// A script that runs: a row of `get user threads`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningScript {
    /// The thread it runs on.
    pub thread: String,
    /// Its file.
    pub script: String,
    /// The line that runs.
    pub line: usize,
    /// The command of that line.
    pub command: String,
    /// Since when it runs.
    pub since: Timestamp,
}

/// The scripts of a node, over all threads.
#[derive(Debug)]
pub struct Scripts {
    // `exit scripts` counts up; a script ends when the number is not the one that it began with
    generation: watch::Sender<u64>,
    next: AtomicU64,
    running: Mutex<BTreeMap<u64, RunningScript>>,
    threads: Mutex<BTreeSet<String>>,
    pub(super) debugged: Mutex<HashMap<String, Debugged>>,
    pub(super) released: Notify,
    merged: Notify,
}

impl Default for Scripts {
    fn default() -> Self {
        Self {
            generation: watch::Sender::new(0),
            next: AtomicU64::new(0),
            running: Mutex::default(),
            threads: Mutex::default(),
            debugged: Mutex::default(),
            released: Notify::new(),
            merged: Notify::new(),
        }
    }
}

impl Scripts {
    /// The scripts that run now, in the order of their start.
    #[must_use]
    pub fn running(&self) -> Vec<RunningScript> {
        self.running.lock().values().cloned().collect()
    }

    /// Ends every script that runs now: `exit scripts`. Scripts that start later are not touched.
    pub fn end_all(&self) {
        self.generation.send_modify(|generation| *generation += 1);
        self.released.notify_waiters();
    }

    /// Wakes every `wait .. for sync`; to be called whenever the local copy of the metadata was brought up to date.
    pub fn metadata_merged(&self) {
        self.merged.notify_waiters();
    }

    pub(crate) async fn next_merge(&self) {
        self.merged.notified().await;
    }

    /// How often running scripts were ended.
    pub(super) fn generation(&self) -> u64 {
        *self.generation.borrow()
    }

    /// Returns when scripts that began at `generation` are to end, also when that was said before the call.
    pub(crate) async fn end_of(&self, generation: u64) {
        // The sender lives as long as the node.
        drop(self.generation.subscribe().wait_for(|now| *now != generation).await);
    }
}

/// The name of a thread that runs a script; free again when it is dropped.
#[derive(Debug)]
pub(super) struct ThreadName {
    node: Arc<Node>,
    pub(super) name: String,
}

impl ThreadName {
    /// A name made from that of the script; none when `limit` threads run.
    pub(super) fn reserve(node: &Arc<Node>, stem: &str, limit: usize) -> Option<Self> {
        let mut taken = node.scripts.threads.lock();
        if taken.len() >= limit {
            return None;
        }
        let names = std::iter::once(stem.to_owned()).chain((2..).map(|number: u64| format!("{stem}-{number}")));
        let name = names.into_iter().find(|name| !taken.contains(name))?;
        taken.insert(name.clone());
        drop(taken);
        Some(Self { node: Arc::clone(node), name })
    }
}

impl Drop for ThreadName {
    fn drop(&mut self) {
        self.node.scripts.set_debug(&self.name, None);
        self.node.scripts.threads.lock().remove(&self.name);
    }
}

/// The entry of one running script; leaves the list when it is dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    node: Arc<Node>,
    id: u64,
    generation: u64,
}

impl Ticket {
    /// `generation` is that of the script's frame.
    pub(super) fn enter(node: &Arc<Node>, thread: &str, script: &str, generation: u64) -> Self {
        let scripts = &node.scripts;
        let id = scripts.next.fetch_add(1, Ordering::Relaxed);
        let entry = RunningScript {
            thread: thread.to_owned(),
            script: script.to_owned(),
            line: 0,
            command: String::new(),
            since: node.clock.now(),
        };
        scripts.running.lock().insert(id, entry);
        Self { node: Arc::clone(node), id, generation }
    }

    pub(super) fn at(&self, line: usize, command: &str) {
        if let Some(entry) = self.node.scripts.running.lock().get_mut(&self.id) {
            entry.line = line;
            entry.command.clear();
            entry.command.push_str(command);
        }
    }

    /// True after `exit scripts`, and when the node shuts down.
    pub(super) fn ended(&self) -> bool {
        *self.node.scripts.generation.borrow() != self.generation || self.node.shutdown.is_cancelled()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.node.scripts.running.lock().remove(&self.id);
    }
}
