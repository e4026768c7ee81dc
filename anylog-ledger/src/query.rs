//! The query language: what follows `blockchain get`.
//!
//! ```text
//! query  := types [ [where] filter ] [ ("join" | "merge") "(" blockchain get query ")" ] [ bring ]
//! types  := name | "*" | "(" name { "," name } ")" | !reference | "root policies" [ ("include" | "exclude") name ... ]
//! filter := pair { "and" pair } | condition | JSON object
//! pair   := path "=" value | path "with" ( value | "[" value ... "]" )
//! path   := name | name "[" key "]" ... | "[" key "]" ...
//! ```
//!
//! A path is relative to the object under the type; one that begins with the type itself (`[operator][name]`) is understood as
//! well. Pairs compare texts without case, numbers as numbers; a stored `*` matches everything, a stored list matches when it
//! holds the value, a path through a list of objects matches when one of them does. A condition is that of `if`, with
//! `[attribute]` as value. What is not pairs is read as a condition.

mod filter;
mod types;

use std::borrow::Cow;
use std::sync::Arc;

use anylog_core::bring::Bring;
use anylog_core::command::Word;
use anylog_core::language::lexer::lex;
use anylog_core::{CommandError, Node, Reply};
use serde_json::Value;

use crate::address::OwnAddresses;
use crate::snapshot::Snapshot;
use crate::{Ledger, Policy, PolicySet};
use filter::Filter;
use types::Types;

/// Which copy of the policies a query looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// With the overlay of `anmp` policies: `blockchain get`.
    Overlaid,
    /// As they are stored: `blockchain read`.
    Stored,
}

/// How policies found for each policy are put to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// One result for each pair; a policy without partner is left out.
    Join,
    /// Attributes that are missing are copied from the partners; a policy without partner stays as it is.
    Merge,
}

/// A parsed query.
#[derive(Debug)]
pub struct Query {
    types: Types,
    filter: Filter,
    other: Option<(How, Box<Query>)>,
    bring: Option<Bring>,
}

impl Query {
    /// Reads what follows `blockchain get`. References are resolved with `node`.
    ///
    /// # Errors
    /// A text that is no query, or a reference that is not set.
    pub fn parse(text: &str, node: &Node) -> Result<Self, CommandError> {
        Self::parse_at(text, node, 0)
    }

    fn parse_at(text: &str, node: &Node, depth: usize) -> Result<Self, CommandError> {
        if depth > 4 {
            return Err(CommandError::structure("Too many joins inside each other"));
        }
        let words = lex(text)?;
        let bring_at =
            find(&words, |word| word.text == "bring" || word.text.starts_with("bring.")).unwrap_or(words.len());
        let bring = match words.get(bring_at) {
            Some(word) => Some(Bring::parse(text.get(word.span.start..).unwrap_or_default(), Some(node))?),
            None => None,
        };
        let words = &words[..bring_at];
        let other_at = find(words, |word| matches!(word.text.as_str(), "join" | "merge")).unwrap_or(words.len());
        let other = match words.get(other_at..) {
            Some([how, inner]) => Some((how_of(how), Box::new(Self::parse_at(other_query(inner)?, node, depth + 1)?))),
            Some([how, ..]) => {
                return Err(CommandError::structure(format!("'{}' takes one query in parentheses", how.text))
                    .hint(format!("{} (blockchain get cluster where id = [operator][cluster])", how.text)));
            }
            _ => None,
        };
        let (types, rest) = Types::parse(&words[..other_at], node)?;
        let filter = match rest.split_first() {
            None => Filter::All,
            Some((word, [])) if word.text.starts_with('{') => Filter::parse(rest, node)?,
            Some((word, filter)) if !word.quoted && word.text == "where" => Filter::parse(filter, node)?,
            Some((word, _)) => {
                return Err(CommandError::structure(format!("Unexpected word '{}' in 'blockchain get'", word.text))
                    .hint("after the type follow: where, join, merge, bring"));
            }
        };
        Ok(Self { types, filter, other, bring })
    }

    /// The policies that satisfy the query, in ledger order, before join, merge and bring.
    ///
    /// # Errors
    /// A condition that cannot be evaluated.
    pub fn matches(
        &self,
        snapshot: &Snapshot,
        look: Look,
        left: Option<&Policy>,
    ) -> Result<Vec<Arc<Policy>>, CommandError> {
        let policies = match look {
            Look::Overlaid => snapshot.policies(),
            Look::Stored => snapshot.stored(),
        };
        let fits = |policy: &&Arc<Policy>| self.types.include(policy, policies) && self.filter.matches(policy, left);
        // Those that only had to be looked at stay at rest.
        let looks = |policy: &&Arc<Policy>| {
            self.types.include(policy, policies)
                && (self.filter.takes_all() || self.filter.matches(&policy.opened(), left))
        };
        let exact = self.filter.exact(left);
        Ok(match self.types.one() {
            Some(kind) if !exact.is_empty() => {
                let wanted: Vec<(&str, &str)> = exact.iter().map(|(name, value)| (*name, value.as_str())).collect();
                policies.candidates(kind, &wanted).into_iter().filter(|policy| fits(&policy)).collect()
            }
            Some(kind) => policies.of_kind(kind).filter(looks).cloned().collect(),
            None => policies.iter().filter(looks).cloned().collect(),
        })
    }

    /// The answer; [`Reply::Empty`] when nothing matches.
    ///
    /// # Errors
    /// Values that `bring` cannot work on.
    pub fn run(&self, snapshot: &Snapshot, look: Look, own: &OwnAddresses) -> Result<Reply, CommandError> {
        let mut found = self.matches(snapshot, look, None)?;
        if let Some(bring) = &self.bring {
            if bring.children() {
                found = children(&found, snapshot.policies());
            }
            if bring.parents() {
                let parents = found.iter().filter_map(|policy| snapshot.policy(policy.text("parent")?));
                let parents: PolicySet = parents.cloned().collect();
                found = parents.iter().cloned().collect();
            }
            if bring.ip_port() {
                return Ok(addresses(&found, own));
            }
        }
        let documents = match &self.other {
            None => found.iter().map(|policy| policy.document()).collect(),
            Some((How::Join, query)) => join(&found, query, snapshot, look)?,
            Some((How::Merge, query)) => merge(&found, query, snapshot, look)?,
        };
        if documents.is_empty() {
            return Ok(Reply::Empty);
        }
        match &self.bring {
            Some(bring) => bring.evaluate(&documents.iter().map(AsRef::as_ref).collect::<Vec<&Value>>()),
            None => Ok(Reply::Json(Value::Array(documents.into_iter().map(Cow::into_owned).collect()))),
        }
    }
}

/// The first word outside quotes that satisfies `is` and is no value, that is, does not follow `=`.
fn find(words: &[Word], is: impl Fn(&Word) -> bool) -> Option<usize> {
    (0..words.len()).find(|index| {
        let after_equals = index
            .checked_sub(1)
            .and_then(|before| words.get(before))
            .is_some_and(|word| !word.quoted && matches!(word.text.as_str(), "=" | "==" | "with"));
        !words[*index].quoted && !after_equals && is(&words[*index])
    })
}

fn how_of(word: &Word) -> How {
    if word.text == "join" { How::Join } else { How::Merge }
}

/// What follows `blockchain get` in `(blockchain get ...)`.
fn other_query(word: &Word) -> Result<&str, CommandError> {
    let inner = word.text.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')).map(str::trim);
    let inner = inner.filter(|_| !word.quoted).and_then(|inner| {
        let rest = inner.strip_prefix("blockchain")?.trim_start();
        rest.strip_prefix("get").or_else(|| rest.strip_prefix("read"))
    });
    inner.ok_or_else(|| CommandError::structure(format!("Expected (blockchain get ...) and found '{}'", word.text)))
}

/// The policies that name one of these as parent, in ledger order.
fn children(found: &[Arc<Policy>], all: &PolicySet) -> Vec<Arc<Policy>> {
    let children = found.iter().flat_map(|policy| children_of(policy, all));
    let children: PolicySet = children.collect();
    children.iter().cloned().collect()
}

fn children_of<'a>(policy: &'a Policy, all: &PolicySet) -> impl Iterator<Item = Arc<Policy>> + 'a {
    let candidates = all.candidates("*", &[("parent", policy.id())]);
    candidates.into_iter().filter(|other| other.text("parent") == Some(policy.id()))
}

fn addresses(found: &[Arc<Policy>], own: &OwnAddresses) -> Reply {
    let mut addresses: Vec<String> = Vec::new();
    for address in found.iter().filter_map(|policy| own.reach(policy)) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() { Reply::Empty } else { Reply::Text(addresses.join(",")) }
}

fn join<'a>(
    found: &[Arc<Policy>],
    query: &Query,
    snapshot: &Snapshot,
    look: Look,
) -> Result<Vec<Cow<'a, Value>>, CommandError> {
    let mut documents = Vec::new();
    for left in found {
        for right in query.matches(snapshot, look, Some(left))? {
            let mut document = left.value().clone();
            if let Value::Object(object) = &mut document {
                let mut name = right.kind().to_owned();
                // Two policies of one type both stay.
                while object.contains_key(&name) {
                    name.push_str("_joined");
                }
                object.insert(name, Value::Object(right.inner().clone()));
            }
            documents.push(Cow::Owned(document));
        }
    }
    Ok(documents)
}

fn merge<'a>(
    found: &[Arc<Policy>],
    query: &Query,
    snapshot: &Snapshot,
    look: Look,
) -> Result<Vec<Cow<'a, Value>>, CommandError> {
    let mut documents = Vec::new();
    for left in found {
        let mut inner = left.inner().clone();
        for right in query.matches(snapshot, look, Some(left))? {
            for (name, value) in right.inner() {
                inner.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
        documents.push(Cow::Owned(Policy::new(left.kind(), inner).value().clone()));
    }
    Ok(documents)
}

impl Ledger {
    /// The answer to what follows `blockchain get`; [`Reply::Empty`] when nothing matches.
    ///
    /// # Errors
    /// A text that is no query.
    pub fn query(&self, text: &str) -> Result<Reply, CommandError> {
        self.look(text, Look::Overlaid)
    }

    /// As [`Ledger::query`], with or without the overlay.
    ///
    /// # Errors
    /// A text that is no query.
    pub fn look(&self, text: &str, look: Look) -> Result<Reply, CommandError> {
        Query::parse(text, self.node())?.run(&self.snapshot(), look, &self.own_addresses())
    }

    /// The policies selected by what follows `blockchain get`; join, merge and bring do not matter.
    ///
    /// # Errors
    /// A text that is no query.
    pub fn select(&self, text: &str) -> Result<Vec<Arc<Policy>>, CommandError> {
        Query::parse(text, self.node())?.matches(&self.snapshot(), Look::Overlaid, None)
    }
}

#[cfg(test)]
mod tests;
