//! The node's parameters: one flat map of names to texts, shared by all threads, and the view of the environment.

use std::collections::BTreeMap;

use parking_lot::RwLock;

/// Names and their texts. Names are case-sensitive; setting a name to empty text removes it; an absent name reads as
/// absent, never as an error.
#[derive(Debug, Default)]
pub struct Dictionary {
    entries: RwLock<BTreeMap<String, String>>,
    // `$NAME = v` writes here: the process environment itself is never changed while threads run.
    environment: RwLock<BTreeMap<String, String>>,
}

impl Dictionary {
    /// An empty dictionary over the process environment.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The text stored under `name`; a name that ends `[]` or `{}` means the same key without the suffix.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<String> {
        self.entries.read().get(key(name)).cloned()
    }

    /// Stores `value` under `name`; empty text removes the name.
    pub fn set(&self, name: &str, value: impl Into<String>) {
        let value = value.into();
        let mut entries = self.entries.write();
        if value.is_empty() {
            entries.remove(key(name));
        } else {
            entries.insert(key(name).to_owned(), value);
        }
    }

    /// Stores `value` unless the name is there already.
    pub fn set_default(&self, name: &str, value: impl Into<String>) {
        self.entries.write().entry(key(name).to_owned()).or_insert_with(|| value.into());
    }

    /// Removes a name and returns what it held.
    pub fn remove(&self, name: &str) -> Option<String> {
        self.entries.write().remove(key(name))
    }

    /// All entries, sorted by name.
    #[must_use]
    pub fn entries(&self) -> Vec<(String, String)> {
        self.entries.read().iter().map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// The environment variable `name`: one set by a command, else that of the process. Empty counts as absent.
    #[must_use]
    pub fn environment(&self, name: &str) -> Option<String> {
        let own = self.environment.read().get(name).cloned();
        own.or_else(|| std::env::var(name).ok()).filter(|value| !value.is_empty())
    }

    /// Sets an environment variable for this node's commands and for the processes that it starts.
    pub fn set_environment(&self, name: &str, value: impl Into<String>) {
        self.environment.write().insert(name.to_owned(), value.into());
    }

    /// The process environment with this node's own settings over it, sorted by name.
    #[must_use]
    pub fn environment_entries(&self) -> Vec<(String, String)> {
        let mut all: BTreeMap<String, String> =
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect();
        all.extend(self.environment.read().clone());
        all.into_iter().collect()
    }
}

fn key(name: &str) -> &str {
    name.strip_suffix("[]").or_else(|| name.strip_suffix("{}")).unwrap_or(name)
}
