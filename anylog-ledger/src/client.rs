//! Commands for other nodes: `run client <destination> <command>`.
//!
//! ```text
//! call        := "run client" destination command
//! destination := ip:port | ip port | !reference | "(" [ item { "," item } ] ")"
//! item        := ip:port | !reference | "blockchain get" query [ bring ] | types "where" filter
//!              | ("company" | "dbms" | "table" | "subset" | "timeout") "=" value
//! ```
//!
//! A list in parentheses may be empty for SQL only: the nodes that hold the data are found in the ledger. References that are whole words
//! of the command are replaced here, `!!name` goes as `!name`.
//!
//! Calls run side by side, each with the deadline of the list (`timeout`), else [`DEADLINE`]. Answers are held whole, at most
//! [`ANSWERS_BYTES`] together.

mod collect;
mod destination;
pub(crate) mod files;
mod typed;

use std::sync::Arc;
use std::time::Duration;

use anylog_core::command::Word;
use anylog_core::language::expand::{is_reference, value_of_text};
use anylog_core::language::lexer::lex;
use anylog_core::{Access, CommandError, CommandResult, Node, Session, Status, json_text, reply};
use anylog_net::{PeerError, PeerReply, PeerRequest};
use async_trait::async_trait;
use futures_util::stream::{self, Stream, StreamExt};
use serde_json::Value;

use crate::Ledger;
pub(crate) use collect::{Collections, collect};
pub use destination::Destination;
pub use typed::{Typed, calls};

/// How long a node may take for its answer when the destination names no `timeout`.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The most text that the answers to one call may have together.
pub const ANSWERS_BYTES: usize = 256 * 1024 * 1024;

/// The most nodes that one destination may name.
pub const MOST_NODES: usize = 4096;

/// Nodes asked at once.
const AT_ONCE: usize = 64;

/// Replies longer than this begin on a line of their own.
const LONG_REPLY: usize = 120;

/// SQL over several nodes as one answer; given by the crate that can.
#[async_trait]
pub trait NetworkSql: Send + Sync {
    /// Answers `sql <dbms> ...` from the nodes of the destination; from those that the ledger names when it names none.
    async fn sql(&self, session: &mut Session, destination: &Destination, command: &str) -> CommandResult;
}

/// The answer of one node.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The node's address as it was asked.
    pub node: String,
    /// Its reply, or why there is none.
    pub reply: Result<String, CommandError>,
}

impl Answer {
    /// As a person sees it.
    pub(crate) fn block(&self) -> String {
        match &self.reply {
            Ok(text) => block(&self.node, text),
            Err(error) => block(&self.node, &format!("Failed: {error}")),
        }
    }
}

/// Why a node gave no answer, with its address, which stands in most messages.
pub(crate) fn named(node: &str, error: &CommandError) -> String {
    let message = &error.message;
    if message.contains(node) { message.clone() } else { format!("node {node}: {message}") }
}

impl Ledger {
    /// Lets `run client` answer SQL from several nodes as one answer.
    pub fn set_network_sql(&self, sql: Arc<dyn NetworkSql>) {
        *self.network_sql.write() = Some(sql);
    }

    /// What answers SQL from several nodes.
    #[must_use]
    pub fn network_sql(&self) -> Option<Arc<dyn NetworkSql>> {
        self.network_sql.read().clone()
    }

    /// Runs a command at several nodes; gives their answers as they arrive.
    pub fn ask_nodes(
        &self,
        nodes: &[String],
        command: &str,
        deadline: Duration,
    ) -> impl Stream<Item = Answer> + Send + 'static {
        let ledger = self.shared();
        let command = command.to_owned();
        let mut left = ANSWERS_BYTES;
        let answers = stream::iter(nodes.to_vec()).map(move |node| {
            let (ledger, text) = (Arc::clone(&ledger), command.clone());
            async move {
                let reply = ledger.peers.call(&node, PeerRequest::Command { text }, deadline).await;
                ledger.note_answer(&node, reply.as_ref().err());
                Answer { reply: text_of(&node, reply), node }
            }
        });
        answers.buffer_unordered(AT_ONCE).map(move |mut answer| {
            let length = answer.reply.as_ref().map_or(0, String::len);
            if length > left {
                answer.reply = Err(too_much());
            } else {
                left -= length;
            }
            answer
        })
    }

    /// Remembers whether an operator answers.
    fn note_answer(&self, node: &str, error: Option<&PeerError>) {
        if self.view().operator_at(node).is_some() {
            self.report_node(node, !matches!(error, Some(PeerError::Unreachable { .. } | PeerError::TimeOut { .. })));
        }
    }
}

fn text_of(node: &str, reply: Result<PeerReply, PeerError>) -> Result<String, CommandError> {
    match reply {
        Ok(PeerReply::Text(text)) => Ok(text),
        Ok(_) => Err(CommandError::new(Status::NETWORK, format!("node {node} answered another question"))),
        Err(error) => Err(error.into()),
    }
}

fn too_much() -> CommandError {
    CommandError::new(
        Status::VOLUME_EXCEEDED,
        format!("The answers are longer than {} MB together", ANSWERS_BYTES / 1024 / 1024),
    )
    .hint("ask fewer nodes, or for less")
}

/// The right that a caller needs to have a command run at other nodes: what it would need here. To them the request comes from this
/// node, so what carries commands of its own needs an administrator.
#[must_use]
pub fn forward_access(node: &Node, command: &str) -> Access {
    const CARRIERS: [&str; 12] = [
        "if",
        "do",
        "else",
        "process",
        "thread",
        "call",
        "schedule",
        "config",
        "for",
        "set",
        "create policy",
        "system",
    ];
    let Ok(words) = lex(command) else { return Access::Admin };
    let parts = words.split(|word| !word.quoted && word.text == "&");
    let access = |words: &[Word]| {
        let texts: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
        let assigns = texts.get(1).is_some_and(|sign| *sign == "=");
        if assigns || texts.first().is_some_and(|first| CARRIERS.contains(first)) {
            return Access::Admin;
        }
        if let ["run", "client", ..] = texts.as_slice() {
            return match Call::of_words(command, words) {
                Ok(call) if !call.command.is_empty() => forward_access(node, call.command),
                _ => Access::Admin,
            };
        }
        node.registry.find(&texts).map_or(Access::Admin, |(command, _)| command.declaration().access_of(&texts))
    };
    parts.map(access).max().unwrap_or(Access::Admin)
}

/// A call of `run client` taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call<'a> {
    /// The destination as written; `ip port` as two words.
    pub(crate) destination: &'a str,
    /// The command as written.
    pub(crate) command: &'a str,
}

impl<'a> Call<'a> {
    /// Takes `words`, which begin with `run client`, apart; their spans count in `source`.
    pub(crate) fn of_words(source: &'a str, words: &[Word]) -> Result<Self, CommandError> {
        let [_, _, first, rest @ ..] = words else {
            return Err(CommandError::new(Status::NO_DESTINATION, "Missing destination after 'run client'")
                .hint("name one: run client (10.0.0.1:32148) get status"));
        };
        // An address of two words: `10.0.0.1 32148`. No command begins with a number.
        let port = |word: &Word| !word.quoted && word.text.parse::<u16>().is_ok();
        let two = !first.text.starts_with('(') && !first.text.contains(':') && rest.first().is_some_and(port);
        let (last, rest) = if two { (&rest[0], &rest[1..]) } else { (first, rest) };
        let end = words.last().map_or(last.span.end, |word| word.span.end);
        let start = rest.first().map_or(end, |word| word.span.start);
        Ok(Self {
            destination: source.get(first.span.start..last.span.end).unwrap_or_default(),
            command: source.get(start..end).unwrap_or_default().trim(),
        })
    }
}

/// The command as it is sent: references that are whole words are replaced by their values, `!!name` by `!name`.
///
/// # Errors
/// A reference that is not set.
pub fn outgoing(node: &Node, command: &str) -> Result<String, CommandError> {
    let mut out = String::with_capacity(command.len());
    let mut end = 0;
    for word in lex(command)? {
        if !is_reference(&word.text) {
            continue;
        }
        let value = value_of_text(node, &word.text).to_string();
        if value.is_empty() {
            return Err(CommandError::structure(format!("Missing dictionary definition for: '{}'", word.text))
                .hint(format!("for a parameter of the other node write !{}", word.text)));
        }
        out.push_str(command.get(end..word.span.start).unwrap_or_default());
        out.push_str(&as_word(node, &value, word.quoted));
        end = word.span.end;
    }
    out.push_str(command.get(end..).unwrap_or_default());
    Ok(out)
}

/// A value as one word of a command.
fn as_word(node: &Node, value: &str, quoted: bool) -> String {
    let enclosed =
        [('{', '}'), ('[', ']')].iter().any(|(open, close)| value.starts_with(*open) && value.ends_with(*close));
    if enclosed {
        // What the JSON refers to is here, not there.
        return json_text::expand(node, value);
    }
    let one_word = lex(value).is_ok_and(|words| words.len() == 1) && !value.contains(char::is_whitespace);
    if (one_word && !quoted) || value.contains('"') { value.to_owned() } else { format!("\"{value}\"") }
}

/// Answers for a program: an object by node when some answered in JSON, with the texts of others as `messages` and the reasons of
/// those that gave no answer as `Missing Nodes`; else one text after another.
#[must_use]
pub fn joined(answers: &[Answer]) -> String {
    let mut json = serde_json::Map::new();
    let mut messages = String::new();
    let mut missing = Vec::new();
    for Answer { node, reply } in answers {
        match reply.as_ref().map(|text| (text, serde_json::from_str::<Value>(text))) {
            Ok((_, Ok(value @ (Value::Object(_) | Value::Array(_))))) => {
                json.insert(node.clone(), value);
            }
            Ok((text, _)) => messages.push_str(&block(node, text)),
            Err(error) => missing.push(named(node, error)),
        }
    }
    if json.is_empty() {
        return answers.iter().map(Answer::block).collect();
    }
    if !messages.is_empty() {
        json.insert("messages".to_owned(), Value::from(messages));
    }
    if !missing.is_empty() {
        json.insert("Missing Nodes".to_owned(), Value::from(missing));
    }
    reply::json::text(&Value::Object(json))
}

/// The answer of one node for a person.
pub(crate) fn block(node: &str, text: &str) -> String {
    let long = text.len() > LONG_REPLY || text.contains('\n');
    let separator = if long { "\r\n" } else { " " };
    format!("\r\n[From Node {node}]{separator}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(source: &str) -> Result<(String, String), CommandError> {
        let words = lex(source).unwrap();
        Call::of_words(source, &words).map(|call| (call.destination.to_owned(), call.command.to_owned()))
    }

    #[test]
    fn a_call_is_taken_apart() {
        for (source, destination, command) in [
            ("run client 10.0.0.1:7 get status", "10.0.0.1:7", "get status"),
            ("run client 10.0.0.1 7 get status", "10.0.0.1 7", "get status"),
            ("run client !ip 7 get status", "!ip 7", "get status"),
            ("run client (a:1, b:2) sql d \"select 1\"", "(a:1, b:2)", "sql d \"select 1\""),
            ("run client () sql d \"select 1\"", "()", "sql d \"select 1\""),
            ("run client !dest  print  \"a  b\" ", "!dest", "print  \"a  b\""),
            ("run client (operator where (a = b)) get  status", "(operator where (a = b))", "get  status"),
            ("run client (a:1)", "(a:1)", ""),
        ] {
            assert_eq!(call(source).unwrap(), (destination.to_owned(), command.to_owned()), "{source}");
        }
        assert_eq!(call("run client").unwrap_err().status, Status::NO_DESTINATION);
    }

    #[test]
    fn whole_words_are_replaced_before_sending() {
        let node = Node::builder().build();
        for (name, value) in [
            ("x", "7"),
            ("city", "New York"),
            ("p", r#"{"a": {"port": !x.int, "c": !city}}"#),
            ("quoted", "say \"hi\""),
        ] {
            node.dictionary.set(name, value);
        }
        for (command, sent) in [
            ("get status", "get status"),
            ("print  !x   a", "print  7   a"),
            ("print !city", "print \"New York\""),
            ("print \"!x\" b", "print \"7\" b"),
            ("get !!x", "get !x"),
            ("blockchain push !p", r#"blockchain push {"a": {"port": 7, "c": "New York"}}"#),
            ("print a!x (!x)", "print a!x (!x)"),
        ] {
            assert_eq!(outgoing(&node, command).unwrap(), sent, "{command}");
        }
        assert!(outgoing(&node, "print !unset").unwrap_err().hint.unwrap().contains("!!unset"));
    }

    #[test]
    fn answers_are_joined_in_the_documented_shape() {
        let join = |answers: &[(&str, &str)]| {
            let reply = |text: &str| match text.strip_prefix("! ") {
                Some(error) => Err(CommandError::process(error)),
                None => Ok(text.to_owned()),
            };
            let answers: Vec<Answer> =
                answers.iter().map(|(node, text)| Answer { node: (*node).to_owned(), reply: reply(text) }).collect();
            joined(&answers)
        };
        assert_eq!(join(&[("a:1", "x"), ("b:2", "y\nz")]), "\r\n[From Node a:1] x\r\n[From Node b:2]\r\ny\nz");
        assert_eq!(
            join(&[("a:1", r#"{"k": 1}"#), ("b:2", "down")]),
            r#"{"a:1": {"k": 1}, "messages": "\r\n[From Node b:2] down"}"#
        );
        // QRY-2, for commands: a node that gave no answer is named, with its reason.
        assert_eq!(
            join(&[("a:1", "[1]"), ("b:2", "! node b:2 cannot be reached: refused"), ("c:3", "! full")]),
            r#"{"a:1": [1], "Missing Nodes": ["node b:2 cannot be reached: refused", "node c:3: full"]}"#
        );
        assert_eq!(join(&[("a:1", "x"), ("b:2", "! gone")]), "\r\n[From Node a:1] x\r\n[From Node b:2] Failed: gone");
    }
}
