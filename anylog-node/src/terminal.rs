//! Commands typed by a person.

use std::borrow::Cow;
use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;
use std::sync::Arc;

use anylog_core::{Node, Reply};
use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Config, Context, Editor, Helper};
use tokio::sync::{mpsc, oneshot};

use crate::assembly::NodeApp;
use crate::program::terminal_session;

/// Lines that the history keeps.
const HISTORY: usize = 1000;

/// True when a person sits at both ends.
#[must_use]
pub fn is_interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// A line that was typed, and the way to say that it ran.
type Typed = (String, oneshot::Sender<()>);

/// Reads and runs commands of a person until the input ends or the node is to end.
pub async fn run(app: &NodeApp) {
    let node = Arc::clone(&app.node);
    run_from(app, move |send| read_lines(&node, send)).await;
}

/// Runs the commands of an input that is no terminal, one on a line, until it ends or the node is to end.
pub async fn run_piped(app: &NodeApp) {
    run_from(app, |send| read_piped(std::io::stdin().lock(), send)).await;
}

async fn run_from(app: &NodeApp, read: impl FnOnce(&mpsc::Sender<Typed>) + Send + 'static) {
    let (send, mut typed) = mpsc::channel::<Typed>(1);
    // Reading blocks, also when the program is to end: so it has a thread of its own that nobody waits for.
    let reader = std::thread::Builder::new().name("terminal".into()).spawn(move || read(&send));
    if let Err(error) = reader {
        tracing::error!(%error, "The terminal cannot be read");
        return;
    }
    let mut session = terminal_session(app);
    loop {
        let (line, done) = tokio::select! {
            next = typed.recv() => match next {
                Some(next) => next,
                None => return,
            },
            () = app.node.shutdown.cancelled() => return,
        };
        let outcome = tokio::select! {
            outcome = session.execute(&line) => outcome,
            () = app.node.shutdown.cancelled() => return,
        };
        match outcome {
            Ok(reply) => show(&session, reply).await,
            Err(error) => session.console.print(&error.to_string()),
        }
        if done.send(()).is_err() {
            return;
        }
    }
}

async fn show(session: &anylog_core::Session, reply: Reply) {
    match reply.into_text().await {
        Ok(text) if text.is_empty() => {}
        Ok(text) => session.console.print(text.trim_end_matches(['\r', '\n'])),
        Err(error) => session.console.print(&error.to_string()),
    }
}

/// Reads lines until the end of input or Ctrl-C on an empty line.
fn read_lines(node: &Arc<Node>, send: &mpsc::Sender<Typed>) {
    let config = Config::builder().max_history_size(HISTORY).map(rustyline::config::Builder::build);
    let editor = config.and_then(Editor::<Language, FileHistory>::with_config);
    let mut editor = match editor {
        Ok(editor) => editor,
        Err(error) => {
            tracing::error!(%error, "The terminal cannot be read");
            return;
        }
    };
    editor.set_helper(Some(Language { keys: node.registry.keys() }));
    let history = history_file(node);
    if let Err(error) = editor.load_history(&history) {
        tracing::debug!(%error, "No history was loaded");
    }
    loop {
        match editor.readline(&format!("AL {} > ", node.name())) {
            Ok(line) if line.trim().is_empty() => {}
            Ok(line) => {
                let kept = editor.add_history_entry(line.as_str()).and_then(|_| editor.save_history(&history));
                if let Err(error) = kept {
                    tracing::debug!(%error, "The history was not saved");
                }
                if !hand_over(send, joined(&line)) {
                    return;
                }
            }
            Err(ReadlineError::Interrupted | ReadlineError::Eof) => return,
            Err(error) => {
                tracing::error!(%error, "The terminal cannot be read any more");
                return;
            }
        }
    }
}

/// Reads lines; one that is not complete is followed by the next.
fn read_piped(input: impl BufRead, send: &mpsc::Sender<Typed>) {
    let mut command = String::new();
    for line in input.lines() {
        let line = match line {
            Ok(line) => line,
            Err(error) => {
                tracing::error!(%error, "The input cannot be read any more");
                return;
            }
        };
        command.push_str(&line);
        command.push('\n');
        if goes_on(&command) {
            continue;
        }
        let complete = joined(&std::mem::take(&mut command));
        if !complete.is_empty() && !hand_over(send, complete) {
            return;
        }
    }
    let rest = joined(&command);
    if !rest.is_empty() {
        hand_over(send, rest);
    }
}

/// Sends a command and waits until it ran; false when nobody runs commands any more.
fn hand_over(send: &mpsc::Sender<Typed>, command: String) -> bool {
    let (done, wait) = oneshot::channel();
    send.blocking_send((command, done)).is_ok() && wait.blocking_recv().is_ok()
}

/// Whether a command is to be continued on the next line: `<...>` or a JSON brace is open.
fn goes_on(text: &str) -> bool {
    let text = text.trim();
    if text.starts_with('<') {
        return !text.ends_with('>');
    }
    if text.starts_with('#') {
        return false;
    }
    let (mut open, mut quoted) = (0_i32, false);
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            '{' | '[' if !quoted => open += 1,
            '}' | ']' if !quoted => open -= 1,
            _ => {}
        }
    }
    open > 0 && !quoted
}

/// `<home>/AnyLog-Network/anylog/history`, or a file for temporary use when that directory is not there.
fn history_file(node: &Node) -> PathBuf {
    let directory = node.directories.directory(&node.dictionary, "id_dir");
    let writable = directory.metadata().is_ok_and(|metadata| !metadata.permissions().readonly());
    if writable { directory.join("history") } else { std::env::temp_dir().join("anylog-node-history") }
}

/// A command over several lines as one: lines trimmed and joined, the `<...>` around it taken off.
fn joined(text: &str) -> String {
    let line = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    match line.strip_prefix('<').and_then(|inner| inner.strip_suffix('>')) {
        Some(inner) => inner.trim().to_owned(),
        None => line,
    }
}

/// Completion from the declared commands, and lines that go on while `<...>` or a brace is open.
#[derive(Debug)]
struct Language {
    keys: Vec<String>,
}

impl Completer for Language {
    type Candidate = Pair;

    fn complete(&self, line: &str, position: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        Ok((0, completions(&self.keys, line.get(..position).unwrap_or(line))))
    }
}

/// The declared commands that begin with what was typed, up to the end of the next word.
fn completions(keys: &[String], typed: &str) -> Vec<Pair> {
    let typed = typed.trim_start();
    let mut candidates: Vec<String> = keys
        .iter()
        .filter(|key| key.starts_with(typed) && key.len() > typed.len())
        .map(|key| {
            let end = key[typed.len()..].char_indices().skip(1).find(|(_, c)| *c == ' ');
            key[..end.map_or(key.len(), |(at, _)| typed.len() + at)].to_owned()
        })
        .collect();
    candidates.sort();
    candidates.dedup();
    candidates.into_iter().map(|text| Pair { display: text.clone(), replacement: text }).collect()
}

impl Validator for Language {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(if goes_on(context.input()) { ValidationResult::Incomplete } else { ValidationResult::Valid(None) })
    }
}

impl Hinter for Language {
    type Hint = String;
}

impl Highlighter for Language {
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _: bool) -> Cow<'b, str> {
        Cow::Borrowed(prompt)
    }
}

impl Helper for Language {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_goes_on_while_something_is_open() {
        for (text, open) in [
            ("<a = {\"x\": 1}", true),
            ("<a = {\"x\": 1}>", false),
            ("a = {\"x\": [1,", true),
            ("a = {\"x\": [1,\n2]}", false),
            ("print \"{\"", false),
            ("# {", false),
        ] {
            assert_eq!(goes_on(text), open, "{text}");
        }
    }

    #[test]
    fn completion_goes_word_by_word() {
        let keys: Vec<String> = ["get status", "get streaming", "get rest calls", "set x"].map(str::to_owned).to_vec();
        let texts =
            |typed: &str| completions(&keys, typed).into_iter().map(|pair| pair.replacement).collect::<Vec<_>>();
        assert_eq!(texts("g"), ["get"]);
        assert_eq!(texts("get s"), ["get status", "get streaming"]);
        assert_eq!(texts("get r"), ["get rest"]);
        assert_eq!(texts("get status"), Vec::<String>::new());
    }

    #[test]
    fn a_block_of_lines_is_one_command() {
        assert_eq!(joined("<a = {\n \"b\": 1\n}>"), "a = { \"b\": 1 }");
        assert_eq!(joined("get status"), "get status");
    }
}
