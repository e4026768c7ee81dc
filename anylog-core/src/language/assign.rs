//! Assignments: where a value goes, and what a literal right side is worth.

mod member;

use serde_json::Value as Json;

use super::execute::is;
use super::expand::{is_reference, value_of};
use super::lexer::join;
use crate::command::{Value, Word};
use crate::{CommandError, Node, Reply, Session, Status, json_text};
pub(super) use member::set_policy;

/// The left side of an assignment.
#[derive(Debug)]
pub(super) enum Target {
    /// A parameter; the name keeps its `[]` or `{}` suffix.
    Parameter(String),
    /// `$NAME`.
    Environment(String),
    /// `name[key][key]`: a member of the JSON text of a parameter.
    Member {
        /// The parameter.
        name: String,
        /// The keys, outermost first.
        keys: Vec<String>,
    },
    /// `[file = .., key = .., show = ..]`: a file that receives an answer.
    File(FileTarget),
}

/// A file that receives an answer.
#[derive(Debug, Default)]
pub(super) struct FileTarget {
    path: String,
    key: Option<String>,
    show: bool,
}

impl Target {
    pub(super) fn parse(node: &Node, text: &str) -> Result<Self, CommandError> {
        if let Some(inner) = text.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
            return file_target(node, inner).map(Target::File);
        }
        if let Some(name) = text.strip_prefix('$').filter(|name| !name.is_empty()) {
            return Ok(Target::Environment(name.to_owned()));
        }
        let name = text.strip_prefix('!').unwrap_or(text);
        let (name, keys) = match name.find('[').filter(|_| name.ends_with(']') && !name.ends_with("[]")) {
            Some(open) => (&name[..open], member::keys(node, &name[open..])?),
            None => (name, Vec::new()),
        };
        if name.trim_end_matches("[]").trim_end_matches("{}").is_empty() {
            return Err(CommandError::structure(format!("'{text}' is no name to assign to")));
        }
        Ok(match keys.is_empty() {
            true => Target::Parameter(name.to_owned()),
            false => Target::Member { name: name.to_owned(), keys },
        })
    }

    /// The name as a command sees it that fills it itself.
    pub(super) fn name(&self) -> &str {
        match self {
            Target::Parameter(name) | Target::Environment(name) | Target::Member { name, .. } => name,
            Target::File(file) => &file.path,
        }
    }

    /// Stores a literal value.
    pub(super) fn store(&self, node: &Node, value: Value) -> Result<(), CommandError> {
        match self {
            Target::Parameter(name) => node.dictionary.set(name, value.to_string()),
            Target::Environment(name) => node.dictionary.set_environment(name, value.to_string()),
            Target::Member { name, keys } => member::update(node, name, keys, member::json_of(node, value), false)?,
            Target::File(_) => {
                return Err(CommandError::structure("Only the answer of a command can be written to a file"));
            }
        }
        Ok(())
    }

    /// Stores the answer of a command.
    pub(super) async fn fill(&self, session: &Session, reply: Reply) -> Result<(), CommandError> {
        let empty = matches!(reply, Reply::Empty);
        let text = reply.into_text().await?;
        let text = text.trim_end_matches(['\n', '\r']).to_owned();
        match self {
            // a collecting command has filled the name itself
            Target::Parameter(name) if empty && collects(name) => Ok(()),
            Target::File(file) => file.write(session, &text).await,
            _ => self.store(&session.node, Value::Text(text)),
        }
    }

    /// Removes an older collection, so that answers that are still arriving can be read.
    pub(super) fn clear_collection(&self, node: &Node) {
        match self {
            Target::Parameter(name) if collects(name) => drop(node.dictionary.remove(name)),
            _ => {}
        }
    }

    /// Removes what a failed command was to fill.
    pub(super) fn remove(&self, node: &Node) {
        match self {
            Target::Parameter(name) => drop(node.dictionary.remove(name)),
            Target::Environment(name) => node.dictionary.set_environment(name, ""),
            Target::Member { .. } | Target::File(_) => {}
        }
    }
}

/// True for `name[]` and `name{}`, which collect answers.
fn collects(name: &str) -> bool {
    name.ends_with("[]") || name.ends_with("{}")
}

fn file_target(node: &Node, inner: &str) -> Result<FileTarget, CommandError> {
    let mut target = FileTarget::default();
    for term in inner.split(',') {
        let (key, value) = term.split_once('=').ok_or_else(|| {
            CommandError::structure(format!("'{}' is no key = value of a file to write to", term.trim()))
                .hint("write [file = <path>, key = <key>, show = true] = <command>")
        })?;
        let value = super::expand::value_of_text(node, value.trim().trim_matches('"')).to_string();
        match key.trim() {
            "file" => target.path = value,
            "key" => target.key = Some(value),
            "show" => target.show = value.eq_ignore_ascii_case("true"),
            other => {
                return Err(CommandError::structure(format!("Unknown key '{other}'")).hint("keys: file, key, show"));
            }
        }
    }
    if target.path.is_empty() {
        return Err(CommandError::structure("Missing 'file' in the brackets before '='"));
    }
    Ok(target)
}

impl FileTarget {
    async fn write(&self, session: &Session, text: &str) -> Result<(), CommandError> {
        let path = session.permit_path(&self.path)?;
        let inner = match &self.key {
            Some(key) => {
                let value: Json = json_text::parse(text)?;
                let inner = value.get(key.as_str()).ok_or_else(|| {
                    CommandError::new(Status::JSON_STRUCTURE, format!("The answer has no key '{key}'"))
                })?;
                super::expand::json_text(inner)
            }
            None => text.to_owned(),
        };
        if self.show {
            session.console.print(&inner);
        }
        tokio::fs::write(&path, inner).await.map_err(|error| {
            CommandError::new(Status::WRITE_FAILURE, format!("Failed to write '{}': {error}", path.display()))
        })
    }
}

/// The value of a right side that is no command: one word is expanded, operands around `+` are concatenated, several words are a
/// text as they stand.
pub(super) fn literal(node: &Node, words: &[Word]) -> Result<Value, CommandError> {
    match words {
        [word] if is(word, "''") || is(word, "``") => Ok(Value::Text(String::new())),
        [word] => Ok(value_of(node, word)),
        [_, sign, ..] if is(sign, "+") => concatenate(node, words).map(Value::Text),
        _ => Ok(Value::Text(join(words))),
    }
}

/// `a + b + c` as one text without blanks; words that are references are resolved.
pub(super) fn concatenate(node: &Node, words: &[Word]) -> Result<String, CommandError> {
    let flaw = |why: &str| {
        CommandError::new(Status::CONCATENATION, format!("Concatenating strings failed: {why} in '{}'", join(words)))
            .hint("write operand + operand; an operand with blanks needs double quotes")
    };
    let mut out = String::new();
    for (index, word) in words.iter().enumerate() {
        match (index % 2 == 0, is(word, "+")) {
            (true, false) if is_reference(&word.text) => out.push_str(&value_of(node, word).to_string()),
            (true, false) => out.push_str(&word.text),
            (true, true) => return Err(flaw("an operand is missing")),
            (false, true) if index + 1 == words.len() => return Err(flaw("an operand is missing after the last '+'")),
            (false, true) => {}
            (false, false) => return Err(flaw(&format!("'+' is missing before '{}'", word.text))),
        }
    }
    Ok(out)
}
