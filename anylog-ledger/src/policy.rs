//! Policies: JSON objects with one key, the type.

pub mod id;
pub mod python_text;

use std::cmp::Ordering;
use std::sync::OnceLock;

use anylog_core::reply::json;
use md5::{Digest, Md5};
use serde_json::{Map, Value};

use crate::LedgerError;

/// A policy: its type and the object under it. Attributes keep their order, because ids depend on it.
#[derive(Debug, Clone)]
pub struct Policy {
    root: Value,
    kind: Box<str>,
    id: Box<str>,
    digest: OnceLock<[u8; 16]>,
}

impl PartialEq for Policy {
    fn eq(&self, other: &Self) -> bool {
        self.root == other.root
    }
}

impl Policy {
    /// A policy from a JSON value: an object with one key that holds an object. A list of one such object is taken as
    /// that object.
    ///
    /// # Errors
    /// [`LedgerError::Structure`] for any other shape.
    pub fn from_value(value: Value) -> Result<Self, LedgerError> {
        let structure = |problem: String| LedgerError::Structure { problem };
        let root = match value {
            Value::Array(mut list) if list.len() == 1 => list.remove(0),
            other => other,
        };
        let Value::Object(object) = &root else {
            return Err(structure(format!("this is {}", describe(&root))));
        };
        let mut keys = object.iter();
        let (Some((kind, inner)), None) = (keys.next(), keys.next()) else {
            return Err(structure(format!("this one has {} keys", object.len())));
        };
        let Value::Object(inner) = inner else {
            return Err(structure(format!("'{kind}' holds {}", describe(inner))));
        };
        let id = id_of(inner);
        let kind = kind.as_str().into();
        Ok(Self { root: compact(root), kind, id, digest: OnceLock::new() })
    }

    /// A policy of this type with this content.
    #[must_use]
    pub fn new(kind: impl Into<String>, inner: Map<String, Value>) -> Self {
        let kind: String = kind.into();
        let id = id_of(&inner);
        let mut root = Map::with_capacity(1);
        root.insert(kind.clone(), compact(Value::Object(inner)));
        Self { root: Value::Object(root), kind: kind.into(), id, digest: OnceLock::new() }
    }

    /// A policy from its JSON text, strictly read.
    ///
    /// # Errors
    /// [`LedgerError::Structure`] when the text is not JSON or not a policy.
    pub fn from_json_text(text: &str) -> Result<Self, LedgerError> {
        let value = serde_json::from_str(text)
            .map_err(|error| LedgerError::Structure { problem: format!("this is not JSON: {error}") })?;
        Self::from_value(value)
    }

    /// The type: `operator`, `cluster`, `table`, or any other name.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The id; empty until [`Policy::prepare`].
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The object under the type.
    #[must_use]
    pub fn inner(&self) -> &Map<String, Value> {
        match self.root.get(&*self.kind) {
            Some(Value::Object(inner)) => inner,
            _ => unreachable!("invariant: a policy's root holds its type and an object"),
        }
    }

    /// The whole policy as JSON: `{type: {...}}`.
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.root
    }

    /// An attribute.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.inner().get(name)
    }

    /// An attribute that is a text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Value::as_str)
    }

    /// An attribute as text, whatever its type; numbers and booleans as JSON shows them.
    #[must_use]
    pub fn shown(&self, name: &str) -> Option<String> {
        self.get(name).map(shown)
    }

    /// The policy on one line, with a blank after `,` and `:`.
    #[must_use]
    pub fn to_json_text(&self) -> String {
        json::text(&self.root)
    }

    /// MD5 of the text on one line: equal for equal texts. Computed once.
    #[must_use]
    pub fn digest(&self) -> &[u8; 16] {
        self.digest.get_or_init(|| Md5::digest(self.to_json_text().as_bytes()).into())
    }

    /// The order of policies in the ledger: by date, then by id. It depends on the policies alone, so that all nodes agree.
    #[must_use]
    pub fn order(&self, other: &Policy) -> Ordering {
        let mine = self.text("date").unwrap_or_default();
        let theirs = other.text("date").unwrap_or_default();
        mine.cmp(theirs).then_with(|| self.id.cmp(&other.id))
    }

    /// The same policy with another value of an attribute, appended when it is new. Its id follows an `id`.
    #[must_use]
    pub fn with(&self, name: &str, value: impl Into<Value>) -> Self {
        let mut inner = self.inner().clone();
        inner.insert(name.to_owned(), value.into());
        Self::new(self.kind(), inner)
    }

    /// The same policy without an attribute.
    #[must_use]
    pub fn without(&self, name: &str) -> Self {
        let mut inner = self.inner().clone();
        inner.shift_remove(name);
        Self::new(self.kind(), inner)
    }

    /// Whether the policy is not yet in the master's ledger, as far as this node knows.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.text("ledger") == Some("local")
    }

    /// The same policy with its `ledger` mark, which is always the last attribute.
    #[must_use]
    pub(crate) fn marked(&self, ledger: &str) -> Self {
        self.without("ledger").with("ledger", ledger)
    }

    /// The attributes in which two policies differ, as far as they are a part of what is published: `date` and `ledger` are the ledger's,
    /// `source` says who published it. So is a member number that was drawn.
    #[must_use]
    pub(crate) fn differences<'a>(&'a self, other: &'a Policy) -> Vec<&'a str> {
        let drawn = &*self.kind == "operator" && self.without("member").computed_id() == self.id();
        let names = self.inner().keys().chain(other.inner().keys().filter(|name| self.get(name).is_none()));
        let counts = |name: &&String| {
            let name = name.as_str();
            !matches!(name, "id" | "date" | "ledger" | "source") && (name != "member" || !drawn)
        };
        names.filter(counts).filter(|name| self.get(name) != other.get(name)).map(String::as_str).collect()
    }

    /// Whether this is the same policy as one that is known under its id.
    #[must_use]
    pub(crate) fn repeats(&self, known: &Policy) -> bool {
        self.kind == known.kind && self.id == known.id && self.differences(known).is_empty()
    }

    /// The content that makes two copies of a policy the same: all but `ledger` and `date`.
    #[must_use]
    pub(crate) fn same_content(&self, other: &Policy) -> bool {
        let content = |policy: &Policy| {
            let mut inner = policy.inner().clone();
            inner.shift_remove("ledger");
            inner.shift_remove("date");
            inner
        };
        self.kind == other.kind && content(self) == content(other)
    }
}

/// The id in a policy's content; empty when there is none.
fn id_of(inner: &Map<String, Value>) -> Box<str> {
    match inner.get("id") {
        None | Some(Value::Null) => Box::default(),
        Some(Value::String(id)) => id.as_str().into(),
        Some(other) => other.to_string().into(),
    }
}

/// The same value in as little memory as it needs: a map that grew entry by entry has room for as many again.
fn compact(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut exact = Map::with_capacity(map.len());
            for (mut name, value) in map {
                name.shrink_to_fit();
                exact.insert(name, compact(value));
            }
            Value::Object(exact)
        }
        Value::Array(list) => Value::Array(list.into_iter().map(compact).collect()),
        Value::String(mut text) => {
            text.shrink_to_fit();
            Value::String(text)
        }
        other => other,
    }
}

/// A JSON value as text without quotes around a text.
#[must_use]
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => json::text(other),
    }
}

/// What a JSON value is, for messages.
fn describe(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
