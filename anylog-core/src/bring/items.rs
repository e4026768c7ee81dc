//! Items of a `bring`: paths into a document, literals between them.

use serde_json::Value;

use super::path::{Path, Segment};
use crate::language::expand::reference;
use crate::{CommandError, Node};

/// One item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    /// `[a][b]`, or several joined by colons in one word.
    Paths(Vec<Path>),
    /// Text copied as it is.
    Literal(String),
}

/// The items of a `bring`, without modifiers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Items(pub(super) Vec<Item>);

impl Items {
    /// Reads items such as `[operator][ip] ":" [operator][port]`. A leading word `bring` is skipped. References are
    /// not resolved: a mapping is read when its references were replaced already.
    ///
    /// # Errors
    /// [`Status::COMMAND_STRUCTURE`](crate::Status::COMMAND_STRUCTURE): unbalanced brackets or quotes, a misspelt function, a separator.
    pub fn parse(text: &str) -> Result<Self, CommandError> {
        let text = text.trim();
        let text = match text.strip_prefix("bring") {
            Some(rest) if rest.is_empty() || rest.starts_with([' ', '\t', '[', '"']) => rest,
            Some(rest) if rest.starts_with('.') => {
                return Err(CommandError::structure(format!("'{text}' takes no modifiers here"))
                    .hint("one document is mapped at a time: write bring [key]"));
            }
            _ => text,
        };
        match read(text, None)? {
            (_, Some(_)) => Err(CommandError::structure(format!("A separator has no use in '{text}'"))),
            (items, None) if items.paths() == 0 => {
                Err(CommandError::structure(format!("Missing [key] in '{text}'")).hint("write bring [key]"))
            }
            (items, None) => Ok(items),
        }
    }

    /// True when there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many of the items look into the document.
    pub(super) fn paths(&self) -> usize {
        self.0.iter().filter(|item| matches!(item, Item::Paths(_))).count()
    }

    /// True when an item walks through a list, so that a document may give several values.
    #[must_use]
    pub fn is_list(&self) -> bool {
        self.0.iter().any(|item| matches!(item, Item::Paths(paths) if paths.iter().any(Path::is_list)))
    }

    /// The values of a document.
    ///
    /// A single plain path gives one value typed as it is in the document (`null` included), or none when it is missing.
    /// A path through a list (`[readings][][value]`) gives one value per element, `null` where an element lacks it, so that
    /// several such paths over one list stay parallel. Several items give texts: one, or one per element.
    #[must_use]
    pub fn values(&self, document: &Value) -> Vec<Value> {
        if let [Item::Paths(paths)] = self.0.as_slice() {
            return joined(paths, document).unwrap_or_default();
        }
        if !self.is_list() {
            return self.text(document).map(Value::String).into_iter().collect();
        }
        let columns: Vec<Option<Vec<Value>>> = self
            .0
            .iter()
            .map(|item| match item {
                Item::Paths(paths) => joined(paths, document),
                Item::Literal(text) => Some(vec![Value::from(text.as_str())]),
            })
            .collect();
        let rows = columns.iter().flatten().map(Vec::len).max().unwrap_or(0);
        let cell = |column: &Option<Vec<Value>>, row: usize| {
            let values = column.as_deref().unwrap_or_default();
            let value = if values.len() == 1 { values.first() } else { values.get(row) };
            value.map(text_of).unwrap_or_default()
        };
        (0..rows).map(|row| columns.iter().map(|column| cell(column, row)).collect::<String>().into()).collect()
    }

    /// All values of a document and the literals between them as one text; `None` when no path gave a value. A path
    /// through a list gives a JSON list.
    #[must_use]
    pub fn text(&self, document: &Value) -> Option<String> {
        let mut found = false;
        let mut out = String::new();
        for item in &self.0 {
            match item {
                Item::Literal(text) => out.push_str(text),
                Item::Paths(paths) => {
                    if let Some(value) = single(paths, document) {
                        found = true;
                        out.push_str(&text_of(&value));
                    }
                }
            }
        }
        found.then_some(out)
    }
}

/// The values of paths joined by colons: of the one that exists, or of both with a colon between.
fn joined(paths: &[Path], document: &Value) -> Option<Vec<Value>> {
    if let [path] = paths {
        return path.values(document);
    }
    let (nulls, mut found): (Vec<_>, Vec<_>) =
        paths.iter().filter_map(|path| path.values(document)).partition(|values| values.iter().all(Value::is_null));
    // `null` counts as missing beside another value.
    if found.len() <= 1 {
        return found.pop().or_else(|| nulls.into_iter().next());
    }
    let rows = found.iter().map(Vec::len).max().unwrap_or(0);
    let cell = |values: &Vec<Value>, row: usize| {
        let value = if values.len() == 1 { values.first() } else { values.get(row) };
        value.map(text_of).unwrap_or_default()
    };
    Some(
        (0..rows)
            .map(|row| found.iter().map(|values| cell(values, row)).collect::<Vec<_>>().join(":").into())
            .collect(),
    )
}

/// As [`joined`], with a list in one value; `null` counts as missing.
pub(super) fn single(paths: &[Path], document: &Value) -> Option<Value> {
    if let [path] = paths {
        let mut values = path.values(document).filter(|values| !values.iter().all(Value::is_null))?;
        return if path.is_list() { Some(Value::Array(values)) } else { values.pop() };
    }
    let mut values = joined(paths, document).filter(|values| !values.iter().all(Value::is_null))?;
    if paths.iter().any(Path::is_list) { Some(Value::Array(values)) } else { values.pop() }
}

/// A value as text: strings as they are, `null` as nothing, everything else as JSON.
pub(super) fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => crate::reply::json::text(other),
    }
}

/// Reads items and the separator.
pub(super) fn read(text: &str, node: Option<&Node>) -> Result<(Items, Option<String>), CommandError> {
    let mut cursor = Cursor { text, at: 0 };
    let mut items = Vec::new();
    let mut separator = None;
    loop {
        cursor.blanks();
        let Some(next) = cursor.peek() else { break };
        match next {
            '[' => items.push(Item::Paths(cursor.paths(node)?)),
            '"' | '\'' => items.push(Item::Literal(unescape(cursor.quoted(next)?))),
            _ => {
                let word = cursor.word();
                let after = cursor.rest().trim_start();
                match word {
                    "and" if after.starts_with("separator") => {}
                    "separator" if after.starts_with('=') => separator = Some(cursor.separator(node)?),
                    _ if word.starts_with("separator=") => {
                        cursor.at -= word.len() - "separator".len();
                        separator = Some(cursor.separator(node)?);
                    }
                    "and" | "python" if after.starts_with("python") || after.starts_with('=') => {
                        return Err(CommandError::structure("'python =' is not known in 'bring'")
                            .hint("assign the value first, then use: python <expression>"));
                    }
                    _ => items.push(Item::Literal(resolve(word, node)?)),
                }
            }
        }
    }
    Ok((Items(items), separator))
}

struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn blanks(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    /// A word up to a blank, a path or a quote.
    fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c: char| c.is_whitespace() || c == '[' || c == '"').unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    /// A text in quotes; a backslash protects the quote.
    fn quoted(&mut self, quote: char) -> Result<&'a str, CommandError> {
        let inner = self.rest().get(1..).unwrap_or_default();
        let mut escaped = false;
        for (at, c) in inner.char_indices() {
            if c == quote && !escaped {
                self.at += at + 2;
                return Ok(&inner[..at]);
            }
            escaped = c == '\\' && !escaped;
        }
        Err(CommandError::structure(format!("Missing closing {quote} after {quote}{inner}")))
    }

    /// `[a][b]:[c][d]`.
    fn paths(&mut self, node: Option<&Node>) -> Result<Vec<Path>, CommandError> {
        let mut paths = vec![self.path(node)?];
        while self.rest().starts_with(":[") {
            self.at += 1;
            paths.push(self.path(node)?);
        }
        Ok(paths)
    }

    /// `[a][b]`.
    fn path(&mut self, node: Option<&Node>) -> Result<Path, CommandError> {
        let mut segments = Vec::new();
        while self.rest().starts_with('[') {
            let inner = self.bracket()?;
            let key =
                if inner.starts_with('!') || inner.starts_with('$') { resolve(inner, node)? } else { inner.to_owned() };
            segments.push(Segment::parse(&key, segments.is_empty())?);
        }
        Ok(Path::new(segments))
    }

    /// The text between `[` and its `]`; a quoted key may hold brackets.
    fn bracket(&mut self) -> Result<&'a str, CommandError> {
        let rest = self.rest();
        let inner = rest.get(1..).unwrap_or_default();
        let missing = || CommandError::structure(format!("Missing ']' after '{}'", shortened(rest)));
        let skip = match inner.chars().next() {
            Some(quote @ ('"' | '\'')) => inner[1..].find(quote).map_or(0, |end| end + 2),
            _ => 0,
        };
        let end = skip + inner[skip..].find(']').ok_or_else(missing)?;
        self.at += end + 2;
        Ok(inner[..end].trim())
    }

    /// The text after `separator`.
    fn separator(&mut self, node: Option<&Node>) -> Result<String, CommandError> {
        self.blanks();
        self.at += 1; // the equals sign
        self.blanks();
        match self.peek() {
            Some(quote @ ('"' | '\'')) => Ok(unescape(self.quoted(quote)?)),
            Some(_) => {
                let rest = self.rest();
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                self.at += end;
                Ok(unescape(&resolve(&rest[..end], node)?))
            }
            None => Err(CommandError::structure("Missing text after 'separator ='")),
        }
    }
}

/// A word, or the value of the reference that it is.
fn resolve(word: &str, node: Option<&Node>) -> Result<String, CommandError> {
    let Some(node) = node.filter(|_| word.len() > 1 && word.starts_with(['!', '$'])) else {
        return Ok(unescape(word));
    };
    reference(node, word).map(|value| value.to_string()).ok_or_else(|| {
        CommandError::structure(format!("Missing dictionary definition for: '{word}'"))
            .hint("set it first, or check its spelling with: get dictionary")
    })
}

/// `\n`, `\t`, `\r`, `\"`, `\'` and `\\` as the characters that they stand for.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some(c @ ('"' | '\'' | '\\')) => out.push(c),
            Some(c) => out.extend(['\\', c]),
            None => out.push('\\'),
        }
    }
    out
}

/// The beginning of a text, for messages.
pub(super) fn shortened(text: &str) -> String {
    const SHOWN: usize = 60;
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}
