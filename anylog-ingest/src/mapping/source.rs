//! Where a value comes from: a compiled `bring`.

use std::borrow::Cow;
use std::cell::OnceCell;

use anylog_core::CommandError;
use anylog_core::bring::Items;

use super::types::{self, Form};
use crate::json::{Kind, Node};

/// A message, or one reading of it.
#[derive(Debug)]
pub(crate) struct Document<'d> {
    /// The values as sent.
    pub(crate) root: &'d Node<'d>,
    // Only items with functions and literals need the document as numbers and texts.
    value: OnceCell<serde_json::Value>,
}

impl<'d> Document<'d> {
    /// The document under this node.
    pub(crate) fn new(root: &'d Node<'d>) -> Self {
        Self { root, value: OnceCell::new() }
    }

    fn value(&self) -> &serde_json::Value {
        self.value.get_or_init(|| serde_json::from_str(self.root.raw).unwrap_or_default())
    }
}

/// A value that was found.
#[derive(Debug, Clone)]
pub(crate) enum Found<'d> {
    /// A value as sent.
    Node(&'d Node<'d>),
    /// A text put together from values and literals.
    Text(String),
}

impl Found<'_> {
    /// Writes the value into a row.
    pub(crate) fn write(&self, form: Form, out: &mut String) {
        match self {
            Found::Node(node) => types::write(form, node, out),
            Found::Text(text) => types::write_text(form, text, out),
        }
    }

    /// The value as a person writes it.
    pub(crate) fn plain(&self) -> Cow<'_, str> {
        match self {
            Found::Node(node) => node.plain(),
            Found::Text(text) => Cow::Borrowed(text),
        }
    }

    /// Whether it is JSON's null.
    pub(crate) fn is_null(&self) -> bool {
        matches!(self, Found::Node(Node { kind: Kind::Null, .. }))
    }
}

/// What a source found in a document.
#[derive(Debug)]
pub(crate) enum Cell<'d> {
    /// One value, or none.
    One(Option<Found<'d>>),
    /// One per element of a list, each there or not.
    Many(Vec<Option<Found<'d>>>),
}

#[derive(Debug, Clone)]
enum Step {
    /// `[name]`; digits are the position in a list as well.
    Name(Box<str>, Option<usize>),
    /// `[]`.
    Each,
}

#[derive(Debug, Clone)]
enum Way {
    /// One path: `[a][b]`, `[readings][][value]`.
    Path(Vec<Step>),
    /// Anything else of the `bring` grammar.
    Items(Items),
}

/// A compiled `bring`.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    text: String,
    way: Way,
}

impl Source {
    /// Reads the items of a `bring`; the word itself may be there or not.
    pub(crate) fn parse(text: &str) -> Result<Self, CommandError> {
        let items = without_bring(text).unwrap_or(text).trim();
        let way = match path(items) {
            Some(steps) => Way::Path(steps),
            None => Way::Items(Items::parse(items)?),
        };
        Ok(Self { text: items.to_owned(), way })
    }

    /// The source when `text` begins with the word `bring`.
    pub(crate) fn of_bring(text: &str) -> Option<Result<Self, CommandError>> {
        without_bring(text).map(Self::parse)
    }

    /// The items as written.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Whether it gives a value per element of a list.
    pub(crate) fn is_list(&self) -> bool {
        match &self.way {
            Way::Path(steps) => steps.iter().any(|step| matches!(step, Step::Each)),
            Way::Items(items) => items.is_list(),
        }
    }

    /// Whether it begins at an element of a message that is itself a list: `[][value]`, `[0][value]`.
    pub(crate) fn starts_in_list(&self) -> bool {
        match &self.way {
            Way::Path(steps) => matches!(steps.first(), Some(Step::Each | Step::Name(_, Some(_)))),
            Way::Items(_) => self.text.starts_with("[]"),
        }
    }

    /// What a document holds there.
    pub(crate) fn find<'d>(&self, document: &Document<'d>) -> Cell<'d> {
        match &self.way {
            Way::Path(steps) if self.is_list() => {
                let mut found = Vec::new();
                if walk(document.root, steps, &mut found) { Cell::Many(found) } else { Cell::One(None) }
            }
            Way::Path(steps) => Cell::One(descend(document.root, steps).map(Found::Node)),
            Way::Items(items) if items.is_list() => {
                let values = items.values(document.value());
                Cell::Many(values.into_iter().map(|value| Some(Found::Text(plain(value)))).collect())
            }
            Way::Items(items) => Cell::One(items.text(document.value()).map(Found::Text)),
        }
    }

    /// The one value that a document holds there; the first one of a list.
    pub(crate) fn first<'d>(&self, document: &Document<'d>) -> Option<Found<'d>> {
        match self.find(document) {
            Cell::One(found) => found,
            Cell::Many(found) => found.into_iter().next().flatten(),
        }
    }
}

fn plain(value: serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text,
        value => value.to_string(),
    }
}

fn without_bring(text: &str) -> Option<&str> {
    let rest = text.trim_start().strip_prefix("bring")?;
    // `bring.first [x]`: a message gives each value once, so the modifiers that choose among policies say nothing here.
    let rest = if rest.starts_with('.') { &rest[rest.find([' ', '[']).unwrap_or(rest.len())..] } else { rest };
    rest.starts_with([' ', '\t', '[', '"']).then(|| rest.trim_start())
}

/// The steps of a text that is one path and nothing else.
fn path(text: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut rest = text;
    while let Some(inner) = rest.strip_prefix('[') {
        let (name, after) = inner.split_once(']')?;
        rest = after;
        let name = name.trim();
        if name.is_empty() {
            steps.push(Step::Each);
            continue;
        }
        let name = name.trim_matches(['"', '\'']);
        if name == "*" || name.contains(['(', '[', '!']) {
            return None;
        }
        steps.push(Step::Name(name.into(), name.parse().ok()));
    }
    (rest.is_empty() && !steps.is_empty()).then_some(steps)
}

fn step<'d>(node: &'d Node<'d>, name: &str, index: Option<usize>) -> Option<&'d Node<'d>> {
    match (&node.kind, index) {
        (Kind::List(elements), Some(index)) => elements.get(index),
        _ => node.get(name),
    }
}

fn descend<'d>(node: &'d Node<'d>, steps: &[Step]) -> Option<&'d Node<'d>> {
    steps.iter().try_fold(node, |node, at| match at {
        Step::Name(name, index) => step(node, name, *index),
        Step::Each => None,
    })
}

/// Adds what every element gives; false when the list itself is missing.
fn walk<'d>(node: &'d Node<'d>, steps: &[Step], out: &mut Vec<Option<Found<'d>>>) -> bool {
    let Some(each) = steps.iter().position(|step| matches!(step, Step::Each)) else {
        out.push(descend(node, steps).map(Found::Node));
        return true;
    };
    let Some(list) = descend(node, &steps[..each]) else { return false };
    let rest = &steps[each + 1..];
    match &list.kind {
        Kind::List(elements) => {
            for element in elements {
                if !walk(element, rest, out) {
                    out.push(None);
                }
            }
            true
        }
        // A single object in the place of a list is a list of one.
        Kind::Object(_) => walk(list, rest, out),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    fn texts(source: &str, message: &str) -> Vec<Option<String>> {
        let node = json::parse(message).unwrap();
        match Source::parse(source).unwrap().find(&Document::new(&node)) {
            Cell::One(found) => vec![found.map(|f| f.plain().into_owned())],
            Cell::Many(found) => found.into_iter().map(|f| f.map(|f| f.plain().into_owned())).collect(),
        }
    }

    #[test]
    fn paths_find_values_as_sent() {
        let message = r#"{"a": {"b": [1.50, {"c": "x"}]}, "r": [{"v": 1}, {"w": 2}, {"v": 3}], "7": "seven"}"#;
        assert_eq!(texts("bring [a][b][0]", message), [Some("1.50".into())]);
        assert_eq!(texts("[a]['b'][1][c]", message), [Some("x".into())]);
        assert_eq!(texts("[r][][v]", message), [Some("1".into()), None, Some("3".into())]);
        assert_eq!(texts("[7]", message), [Some("seven".into())]);
        assert_eq!(texts("[a][x]", message), [None]);
        assert_eq!(texts("[x][][v]", message), [None]);
        assert_eq!(texts("[a][][b][]", message), [Some("1.50".into()), Some(r#"{"c": "x"}"#.into())]);
    }

    #[test]
    fn the_word_bring_is_told_from_names_that_begin_like_it() {
        assert!(Source::of_bring("bring [a]").is_some());
        assert!(Source::of_bring("bring.first [a]").is_some());
        assert!(Source::of_bring("bringer").is_none());
        assert!(Source::parse("[r][][v]").unwrap().is_list());
        assert!(Source::parse("[][v]").unwrap().starts_in_list());
    }
}
