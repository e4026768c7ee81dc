//! The commands of a node, found by their words.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

use super::Command;
use crate::error::nearest;

/// The longest key, in words.
pub(crate) const MAX_KEY_WORDS: usize = 6;

/// Two commands claim the same words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the command '{words}' is declared twice")]
pub struct DuplicateCommand {
    /// The words.
    pub words: String,
}

/// The commands of a node. Keys are compared word by word; the longest key that begins a call wins.
#[derive(Debug, Default)]
pub struct Registry {
    commands: RwLock<BTreeMap<String, Arc<dyn Command>>>,
}

impl Registry {
    /// Adds a command under all its spellings.
    pub fn register(&self, command: Arc<dyn Command>) -> Result<(), DuplicateCommand> {
        let mut commands = self.commands.write();
        let keys: Vec<&'static str> = command.declaration().keys().collect();
        if let Some(taken) = keys.iter().find(|key| commands.contains_key(**key)) {
            return Err(DuplicateCommand { words: (*taken).to_owned() });
        }
        for key in keys {
            commands.insert(key.to_owned(), Arc::clone(&command));
        }
        Ok(())
    }

    /// Adds several commands.
    pub fn register_all(&self, commands: impl IntoIterator<Item = Arc<dyn Command>>) -> Result<(), DuplicateCommand> {
        commands.into_iter().try_for_each(|command| self.register(command))
    }

    /// The command whose key is the longest that begins `words`, and how many words the key takes.
    #[must_use]
    pub fn find(&self, words: &[&str]) -> Option<(Arc<dyn Command>, usize)> {
        let commands = self.commands.read();
        let mut key = String::with_capacity(64);
        let mut ends = [0; MAX_KEY_WORDS];
        let mut count = 0;
        for word in words.iter().take(MAX_KEY_WORDS) {
            if count > 0 {
                key.push(' ');
            }
            key.push_str(word);
            ends[count] = key.len();
            count += 1;
        }
        (0..count).rev().find_map(|last| {
            let command = commands.get(&key[..ends[last]])?;
            Some((Arc::clone(command), last + 1))
        })
    }

    /// The key nearest to the beginning of `words`, for "did you mean".
    #[must_use]
    pub fn suggest(&self, words: &[&str]) -> Option<String> {
        let commands = self.commands.read();
        let keys: Vec<&str> = commands.keys().map(String::as_str).collect();
        (1..=words.len().min(MAX_KEY_WORDS)).rev().find_map(|count| {
            let typed = words[..count].join(" ");
            let same_length = keys.iter().copied().filter(|key| key.split(' ').count() == count);
            nearest(&typed, same_length).map(str::to_owned)
        })
    }

    /// Every command once, in the order of its first key.
    #[must_use]
    pub fn commands(&self) -> Vec<Arc<dyn Command>> {
        let commands = self.commands.read();
        commands
            .iter()
            .filter(|(key, command)| command.declaration().words == key.as_str())
            .map(|(_, command)| Arc::clone(command))
            .collect()
    }

    /// Every key, aliases included, sorted.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        self.commands.read().keys().cloned().collect()
    }
}
