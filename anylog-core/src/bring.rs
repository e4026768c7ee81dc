//! The `bring` grammar: which values are taken out of JSON documents, and how they are shown.
//!
//! One implementation serves `blockchain get ... bring`, `from !json bring`, and the mapping of messages to rows.
//!
//! ```text
//! bring[.modifier ...] item ... [separator = text]
//!
//! modifier   first | recent | last | unique | json | list | table | sort[(column,...)] | null | count | min | max
//!            | ip_port | children | parents                                          (in any order)
//! item       [key][key]...            a path; [*] first is the policy type, [] alone the type's name
//!            [key][][key]             one value per element of a list
//!            [key]:[key]              both with a colon between; the one that exists when the other is missing
//!            [key(rfind(/))]          a part of the text: find, rfind, prefix(n), suffix(n)
//!            "text" | word            copied as it is
//! ```
//!
//! A path is looked for from the root of a document first; when the document is a policy (an object with one key that
//! holds an object), then also inside it.
//!
//! ```
//! use anylog_core::bring::Bring;
//! let policy = serde_json::json!({"operator": {"ip": "10.0.0.1", "port": 2048}});
//! let bring = Bring::parse("bring [operator][ip]:[operator][port]", None).unwrap();
//! assert_eq!(bring.items().text(&policy).as_deref(), Some("10.0.0.1:2048"));
//! ```

mod items;
mod output;
mod path;
#[cfg(test)]
mod tests;

use crate::error::nearest;
use crate::{CommandError, Node};
pub use items::Items;

/// Every modifier, for messages and for "did you mean".
const MODIFIERS: &[&str] = &[
    "first", "recent", "last", "unique", "json", "list", "table", "sort", "null", "count", "min", "max", "ip_port",
    "children", "parents",
];

/// Which documents of several are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pick {
    First,
    Recent,
}

/// What the values become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Json,
    List,
    Table,
}

/// A figure over all values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Figure {
    Count,
    Min,
    Max,
}

/// A parsed `bring`: its modifiers, its items, its separator.
#[derive(Debug, Clone, Default)]
pub struct Bring {
    items: Items,
    separator: Option<String>,
    pick: Option<Pick>,
    shape: Option<Shape>,
    figure: Option<Figure>,
    unique: bool,
    null: bool,
    // `Some` sorts; an empty list means all columns from the first on.
    sort: Option<Vec<usize>>,
    ip_port: bool,
    children: bool,
    parents: bool,
    // The width at which cells of a table wrap, when the node has one.
    width: Option<usize>,
}

impl Bring {
    /// Reads a text that starts with `bring`. References in it are resolved with `node`; without a node they are
    /// texts like any other.
    ///
    /// # Errors
    /// [`Status::COMMAND_STRUCTURE`](crate::Status::COMMAND_STRUCTURE): an unknown modifier, unbalanced brackets, an unset
    /// reference, or nothing after a bare `bring`.
    pub fn parse(text: &str, node: Option<&Node>) -> Result<Self, CommandError> {
        let text = text.trim();
        let Some(rest) = text.strip_prefix("bring") else {
            return Err(CommandError::structure(format!("Expected 'bring' in '{text}'")));
        };
        let (modifiers, items) = split_modifiers(rest).ok_or_else(|| {
            CommandError::structure(format!("Unknown word in '{text}'")).hint("write bring[.modifier] [key]")
        })?;
        let mut bring = Self::default();
        for modifier in modifiers {
            bring.apply(modifier)?;
        }
        (bring.items, bring.separator) = items::read(items, node)?;
        bring.width = node.map(Node::output_width);
        bring.check()?;
        Ok(bring)
    }

    fn apply(&mut self, modifier: &str) -> Result<(), CommandError> {
        let (name, argument) = match modifier.split_once('(') {
            Some((name, argument)) => (name.trim(), Some(argument.trim_end_matches(')'))),
            None => (modifier.trim(), None),
        };
        match name {
            "first" => self.pick = Some(Pick::First),
            "recent" | "last" => self.pick = Some(Pick::Recent),
            "json" => self.shape = self.shape.or(Some(Shape::Json)),
            "list" => self.shape = Some(Shape::List),
            "table" => self.shape = Some(Shape::Table),
            "count" => self.figure = Some(Figure::Count),
            "min" => self.figure = Some(Figure::Min),
            "max" => self.figure = Some(Figure::Max),
            "unique" => self.unique = true,
            "null" => self.null = true,
            "sort" => self.sort = Some(columns(argument.unwrap_or_default())?),
            "ip_port" => self.ip_port = true,
            "children" => self.children = true,
            "parents" => self.parents = true,
            unknown => return Err(unknown_modifier(unknown)),
        }
        if argument.is_some() && name != "sort" {
            return Err(CommandError::structure(format!("'bring.{name}' takes no argument")));
        }
        Ok(())
    }

    fn check(&self) -> Result<(), CommandError> {
        let whole_documents = self.pick.is_some()
            || self.unique
            || self.shape.is_some()
            || self.figure == Some(Figure::Count)
            || self.ip_port
            || self.children
            || self.parents;
        if self.items.is_empty() && !whole_documents {
            return Err(CommandError::structure("Missing Info after 'bring'")
                .hint("name what to bring, such as: bring [operator][id], or which documents: bring.first"));
        }
        if matches!(self.figure, Some(Figure::Min | Figure::Max)) && self.items.paths() != 1 {
            return Err(CommandError::structure("'bring.min' and 'bring.max' take exactly one [key]"));
        }
        Ok(())
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
        self.pick == Some(Pick::First)
    }

    /// True for `bring.recent` and `bring.last`.
    #[must_use]
    pub fn recent(&self) -> bool {
        self.pick == Some(Pick::Recent)
    }
}

/// Cuts `.first.json [a]` into its modifiers and the rest; `None` when the word goes on otherwise (`bringing`).
fn split_modifiers(text: &str) -> Option<(Vec<&str>, &str)> {
    let mut depth = 0_usize;
    let end = text
        .char_indices()
        .find(|&(_, c)| {
            match c {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == 0 && (c.is_whitespace() || c == '[' || c == '"')
        })
        .map_or(text.len(), |(at, _)| at);
    let (head, rest) = text.split_at(end);
    let Some(modifiers) = head.strip_prefix('.') else {
        return head.is_empty().then_some((Vec::new(), rest));
    };
    Some((modifiers.split('.').collect(), rest))
}

/// The column numbers of `sort(1,0)`.
fn columns(text: &str) -> Result<Vec<usize>, CommandError> {
    text.split(',')
        .map(str::trim)
        .filter(|column| !column.is_empty())
        .map(|column| {
            column.parse().map_err(|_| {
                CommandError::structure(format!("'{column}' is not a column number"))
                    .hint("columns are counted from 0: bring.table.sort(1,0)")
            })
        })
        .collect()
}

fn unknown_modifier(name: &str) -> CommandError {
    let error = CommandError::structure(format!("Unknown modifier '{name}' in 'bring.{name}'"));
    match nearest(name, MODIFIERS.iter().copied()) {
        Some(known) => error.hint(format!("did you mean 'bring.{known}'?")),
        None => error.hint(format!("known: {}", MODIFIERS.join(", "))),
    }
}
