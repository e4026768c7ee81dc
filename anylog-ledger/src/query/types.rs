//! Which types of policies a query looks at.

use anylog_core::command::Word;
use anylog_core::language::expand::value_of;
use anylog_core::language::lexer::lex;
use anylog_core::{CommandError, Node};

use crate::{Policy, PolicySet};

/// The first part of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Types {
    /// `*`.
    All,
    /// `operator`, `(operator, query)`.
    Named(Vec<String>),
    /// `root policies`: those that others name as parent and that name none, of all types, of some, or of all but some.
    Roots { include: Option<Vec<String>>, exclude: Vec<String> },
}

impl Types {
    /// Reads the types; the second part is what follows them.
    pub(super) fn parse<'a>(words: &'a [Word], node: &Node) -> Result<(Self, &'a [Word]), CommandError> {
        let Some((first, rest)) = words.split_first() else {
            return Err(CommandError::structure("Missing policy type after 'blockchain get'")
                .hint("name one, several, or all: operator, (operator, query), *"));
        };
        if first.text == "root" && rest.first().is_some_and(|word| word.text == "policies") {
            return Ok(Self::roots(&rest[1..]));
        }
        let text = value_of(node, first).to_string();
        if text.is_empty() {
            return Err(CommandError::structure(format!("Missing dictionary definition for: '{}'", first.text)));
        }
        Ok((Self::named(&text, node)?, rest))
    }

    fn named(text: &str, node: &Node) -> Result<Self, CommandError> {
        let inner = text.strip_prefix('(').and_then(|inner| inner.strip_suffix(')'));
        let mut names = Vec::new();
        for name in inner.unwrap_or(text).split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let word = lex(name)?.into_iter().next();
            names.push(word.map(|word| value_of(node, &word).to_string()).unwrap_or_default());
        }
        if names.is_empty() {
            return Err(CommandError::structure(format!("No policy type in '{text}'")));
        }
        Ok(if names.iter().any(|name| name == "*") { Self::All } else { Self::Named(names) })
    }

    fn roots(words: &[Word]) -> (Self, &[Word]) {
        let end = words
            .iter()
            .position(|word| matches!(word.text.as_str(), "where" | "join" | "merge") || word.text.starts_with("bring"))
            .unwrap_or(words.len());
        let (selection, rest) = words.split_at(end);
        let names = |words: &[Word]| -> Vec<String> {
            let trimmed = words.iter().flat_map(|word| word.text.trim_matches(['(', ')']).split(','));
            trimmed.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
        };
        let (include, exclude) = match selection.split_first() {
            Some((word, types)) if word.text == "include" => (Some(names(types)), Vec::new()),
            Some((word, types)) if word.text == "exclude" => (None, names(types)),
            _ => (None, Vec::new()),
        };
        (Self::Roots { include, exclude }, rest)
    }

    /// The type when it is one, `*` when it is all.
    pub(super) fn one(&self) -> Option<&str> {
        match self {
            Self::All => Some("*"),
            Self::Named(names) => names.first().filter(|_| names.len() == 1).map(String::as_str),
            Self::Roots { .. } => None,
        }
    }

    pub(super) fn include(&self, policy: &Policy, all: &PolicySet) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.iter().any(|name| name == policy.kind()),
            Self::Roots { include, exclude } => {
                let kind = policy.kind().to_owned();
                include.as_ref().is_none_or(|names| names.contains(&kind))
                    && !exclude.contains(&kind)
                    && policy.get("parent").is_none()
                    && super::children_of(policy, all).next().is_some()
            }
        }
    }
}
