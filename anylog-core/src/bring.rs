//! The `bring` grammar: which values are taken out of JSON documents, and how they are shown.
//!
//! One implementation serves `blockchain get ... bring`, `from !json bring`, and the mapping of messages to rows.

mod items;

use serde_json::Value;

use crate::{CommandError, Node, Reply};
pub use items::Items;

/// A parsed `bring`: its modifiers, its items, its separator.
#[derive(Debug, Clone, Default)]
pub struct Bring {
    items: Items,
    ip_port: bool,
    children: bool,
    parents: bool,
    first: bool,
    recent: bool,
}

impl Bring {
    /// Reads a text that starts with `bring`. References in it are resolved with `node`.
    ///
    /// # Errors
    /// An unknown modifier, unbalanced brackets, an unset reference, or nothing after a bare `bring`.
    pub fn parse(text: &str, node: Option<&Node>) -> Result<Self, CommandError> {
        let _ = node;
        Ok(Self { items: Items::parse(text)?, ..Self::default() })
    }

    /// The items after the modifiers.
    #[must_use]
    pub fn items(&self) -> &Items {
        &self.items
    }

    /// True for `bring.ip_port`: the ledger answers with addresses of nodes.
    #[must_use]
    pub fn ip_port(&self) -> bool {
        self.ip_port
    }

    /// True for `bring.children`: the ledger replaces each policy by those whose `parent` it is.
    #[must_use]
    pub fn children(&self) -> bool {
        self.children
    }

    /// True for `bring.parents`: the ledger replaces each policy by those that it names as `parent`.
    #[must_use]
    pub fn parents(&self) -> bool {
        self.parents
    }

    /// True for `bring.first`.
    #[must_use]
    pub fn first(&self) -> bool {
        self.first
    }

    /// True for `bring.recent` and `bring.last`.
    #[must_use]
    pub fn recent(&self) -> bool {
        self.recent
    }

    /// The answer over these documents; [`Reply::Empty`] when none gives anything.
    ///
    /// # Errors
    /// Values that the modifiers cannot work on.
    pub fn evaluate(&self, documents: &[&Value]) -> Result<Reply, CommandError> {
        let _ = documents;
        Ok(Reply::Empty)
    }
}
