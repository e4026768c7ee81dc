//! Policies: JSON objects with one key, the type.

pub mod id;
pub mod python_text;

use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::{Arc, OnceLock};

use anylog_core::reply::json;
use md5::{Digest, Md5};
use serde_json::{Map, Value};

use crate::LedgerError;

/// The mark of a policy that no master knows.
const LOCAL: &str = "local";

/// A policy: its type and the object under it. Attributes keep their order, because ids depend on it.
///
/// A ledger holds many policies that nobody looks at. Such a policy rests as its text, with beside it what is asked of all policies;
/// its attributes are read from the text when they are asked for.
#[derive(Debug, Clone)]
pub struct Policy {
    kind: Box<str>,
    id: Box<str>,
    date: Box<str>,
    local: bool,
    // At least one of the two is there.
    root: OnceLock<Box<Value>>,
    line: Option<Box<str>>,
    digest: OnceLock<[u8; 16]>,
}

impl PartialEq for Policy {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind && self.id == other.id && self.document() == other.document()
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
        let (kind, id, date) = (kind.as_str().into(), id_of(inner), text_of(inner, "date"));
        let local = inner.get("ledger").and_then(Value::as_str) == Some(LOCAL);
        let root = OnceLock::from(Box::new(root));
        Ok(Self { kind, id, date, local, root, line: None, digest: OnceLock::new() })
    }

    /// A policy of this type with this content.
    #[must_use]
    pub fn new(kind: impl Into<String>, inner: Map<String, Value>) -> Self {
        let kind: String = kind.into();
        let (id, date) = (id_of(&inner), text_of(&inner, "date"));
        let local = inner.get("ledger").and_then(Value::as_str) == Some(LOCAL);
        let root = Value::Object(Map::from_iter([(kind.clone(), Value::Object(inner))]));
        let root = OnceLock::from(Box::new(root));
        Self { kind: kind.into(), id, date, local, root, line: None, digest: OnceLock::new() }
    }

    /// The same policy at rest: in as little memory as it needs.
    #[must_use]
    pub(crate) fn resting(policy: &Arc<Policy>) -> Arc<Policy> {
        if policy.line.is_some() && policy.root.get().is_none() {
            return Arc::clone(policy);
        }
        Arc::new(Self {
            kind: policy.kind.clone(),
            id: policy.id.clone(),
            date: policy.date.clone(),
            local: policy.local,
            root: OnceLock::new(),
            line: Some(policy.to_json_text().into()),
            digest: policy.digest.clone(),
        })
    }

    /// The whole policy as JSON, without keeping it when the policy is at rest.
    #[must_use]
    pub fn document(&self) -> Cow<'_, Value> {
        match self.root.get() {
            Some(root) => Cow::Borrowed(root),
            None => Cow::Owned(self.read()),
        }
    }

    /// The policy with its attributes at hand, without keeping them when it is at rest.
    #[must_use]
    pub(crate) fn opened(&self) -> Cow<'_, Policy> {
        match self.root.get() {
            Some(_) => Cow::Borrowed(self),
            None => Cow::Owned(Self { root: OnceLock::from(Box::new(self.read())), ..self.clone() }),
        }
    }

    /// The content, to be changed.
    fn to_inner(&self) -> Map<String, Value> {
        match self.document() {
            Cow::Borrowed(_) => self.inner().clone(),
            Cow::Owned(mut root) => match root.get_mut(&*self.kind).map(Value::take) {
                Some(Value::Object(inner)) => inner,
                _ => unreachable!("invariant: a policy's root holds its type and an object"),
            },
        }
    }

    fn read(&self) -> Value {
        let line = self.line.as_deref().expect("invariant: a policy has its text or its attributes");
        serde_json::from_str(line).expect("invariant: the text was made of the attributes")
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
        match self.value().get(&*self.kind) {
            Some(Value::Object(inner)) => inner,
            _ => unreachable!("invariant: a policy's root holds its type and an object"),
        }
    }

    /// The whole policy as JSON: `{type: {...}}`.
    #[must_use]
    pub fn value(&self) -> &Value {
        self.root.get_or_init(|| Box::new(self.read()))
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

    /// When it was written; empty when it does not say.
    #[must_use]
    pub fn date(&self) -> &str {
        &self.date
    }

    /// An attribute as text, whatever its type; numbers and booleans as JSON shows them.
    #[must_use]
    pub fn shown(&self, name: &str) -> Option<String> {
        self.get(name).map(shown)
    }

    /// The policy on one line, with a blank after `,` and `:`.
    #[must_use]
    pub fn to_json_text(&self) -> String {
        match (&self.line, self.root.get()) {
            (Some(line), _) => line.to_string(),
            (None, Some(root)) => json::text(root),
            (None, None) => json::text(self.value()),
        }
    }

    /// MD5 of the text on one line: equal for equal texts. Computed once.
    #[must_use]
    pub fn digest(&self) -> &[u8; 16] {
        self.digest.get_or_init(|| match &self.line {
            Some(line) => Md5::digest(line.as_bytes()).into(),
            None => Md5::digest(self.to_json_text().as_bytes()).into(),
        })
    }

    /// The order of policies in the ledger: by date, then by id. It depends on the policies alone, so that all nodes agree.
    #[must_use]
    pub fn order(&self, other: &Policy) -> Ordering {
        self.date.cmp(&other.date).then_with(|| self.id.cmp(&other.id))
    }

    /// The same policy with another value of an attribute, appended when it is new. Its id follows an `id`.
    #[must_use]
    pub fn with(&self, name: &str, value: impl Into<Value>) -> Self {
        let mut inner = self.to_inner();
        inner.insert(name.to_owned(), value.into());
        Self::new(self.kind(), inner)
    }

    /// The same policy without an attribute.
    #[must_use]
    pub fn without(&self, name: &str) -> Self {
        let mut inner = self.to_inner();
        inner.shift_remove(name);
        Self::new(self.kind(), inner)
    }

    /// Whether the policy is not yet in the master's ledger, as far as this node knows.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.local
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
            let mut inner = policy.to_inner();
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

/// An attribute that is a text; empty when it is none.
fn text_of(inner: &Map<String, Value>, name: &str) -> Box<str> {
    inner.get(name).and_then(Value::as_str).unwrap_or_default().into()
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
