//! Commands typed by a person.
//!
//! `run client (destination)` alone sends what is typed from then on to other nodes; see
//! [`Typed`](anylog_ledger::client::Typed).

mod foreground;
mod typing;

use std::borrow::Cow;
use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anylog_core::Node;
use anylog_core::language::script::Script;
use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{
    Cmd, ConditionalEventHandler, Config, Context, Editor, Event, EventContext, EventHandler, Helper, KeyEvent,
    Movement, RepeatCount,
};
use tokio::sync::{mpsc, oneshot};

use crate::assembly::NodeApp;
pub(crate) use foreground::Foreground;
use typing::{DefaultDestination, Typing, prompt};

/// Lines that the history keeps.
const HISTORY: usize = 1000;

/// A command from a pipe that is longer, in bytes, runs as it is, complete or not.
const LONGEST: usize = 16 * 1024 * 1024;

/// How often a reader that is turned off looks whether it is turned on again.
const OFF: Duration = Duration::from_millis(250);

/// What a standard input is to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// A person sits at both ends.
    Person,
    /// A pipe or a file.
    Piped,
    /// A terminal that somebody else uses: the node runs in the background, or its output goes elsewhere.
    Foreign,
}

/// What the standard input of this program is.
#[must_use]
pub fn input() -> Input {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Input::Piped;
    }
    // A background job that touches its terminal is stopped by the system.
    let foreground = rustix::termios::tcgetpgrp(&stdin).is_ok_and(|group| group == rustix::process::getpgrp());
    if foreground && std::io::stdout().is_terminal() { Input::Person } else { Input::Foreign }
}

/// Text that was typed, and the way to say that it ran.
type Line = (String, oneshot::Sender<()>);

/// Reads and runs commands of a person until the input ends or the node is to end.
pub async fn run(app: &NodeApp) {
    let before = rustix::termios::tcgetattr(std::io::stdin()).ok();
    let node = Arc::clone(&app.node);
    let to = DefaultDestination::default();
    let shown = Arc::clone(&to);
    run_from(app, to, move |send| read_lines(&node, &shown, send)).await;
    // A reader that still waits for a key left the terminal as it needs it, not as the shell does.
    if app.node.shutdown.is_cancelled()
        && let Some(before) = before
    {
        restore(&before);
    }
}

/// Gives the terminal back as it was, with the pasting of text as the shell knows it.
fn restore(before: &rustix::termios::Termios) {
    let set = rustix::termios::tcsetattr(std::io::stdin(), rustix::termios::OptionalActions::Now, before);
    let shown = std::io::stdout().lock().write_all(b"\x1b[?2004l\r\n").and_then(|()| std::io::stdout().flush());
    if let (Err(error), _) | (_, Err(error)) = (set.map_err(std::io::Error::from), shown) {
        tracing::debug!(%error, "The terminal was not restored");
    }
}

/// Runs the commands of an input that is no terminal, one on a line, until it ends or the node is to end.
pub async fn run_piped(app: &NodeApp) {
    let node = Arc::clone(&app.node);
    run_from(app, DefaultDestination::default(), move |send| read_piped(&node, std::io::stdin().lock(), send)).await;
}

async fn run_from(app: &NodeApp, to: DefaultDestination, read: impl FnOnce(&mpsc::Sender<Line>) + Send + 'static) {
    let (send, mut typed) = mpsc::channel::<Line>(1);
    // Reading blocks, also when the program is to end: so it has a thread of its own that nobody waits for.
    let reader = std::thread::Builder::new().name("terminal".into()).spawn(move || read(&send));
    if let Err(error) = reader {
        tracing::error!(%error, "The terminal cannot be read");
        return;
    }
    let mut typing = Typing::new(app, Arc::clone(&to));
    loop {
        let (text, done) = tokio::select! {
            next = typed.recv() => match next {
                Some(next) => next,
                None => return,
            },
            () = app.node.shutdown.cancelled() => return,
        };
        let at_work = app.foreground.begin();
        let ended = tokio::select! {
            () = typing.execute(&text) => true,
            () = at_work.interrupted() => false,
            () = app.node.shutdown.cancelled() => return,
        };
        drop(at_work);
        if !ended {
            // Where it stood in its script, and what its `if` found, went with it.
            typing = Typing::new(app, Arc::clone(&to));
            typing.show_interrupted(&text);
        }
        if done.send(()).is_err() {
            return;
        }
    }
}

/// Waits while reading is turned off (`set cli off`); false when the node ends meanwhile.
fn reads(node: &Node) -> bool {
    while !node.terminal() && !node.shutdown.is_cancelled() {
        std::thread::sleep(OFF);
    }
    !node.shutdown.is_cancelled()
}

/// Ctrl-C drops the line that is being typed; on an empty one it ends the node, as Ctrl-D does. While a command is at work it is a
/// signal: see [`Foreground`].
struct DropLine;

impl ConditionalEventHandler for DropLine {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, context: &EventContext<'_>) -> Option<Cmd> {
        Some(if context.line().is_empty() { Cmd::Interrupt } else { Cmd::Kill(Movement::WholeBuffer) })
    }
}

fn editor(node: &Node) -> rustyline::Result<Editor<Language, FileHistory>> {
    let config = Config::builder().max_history_size(HISTORY)?.build();
    let mut editor = Editor::with_config(config)?;
    editor.set_helper(Some(Language { keys: node.registry.keys() }));
    editor.bind_sequence(KeyEvent::ctrl('C'), EventHandler::Conditional(Box::new(DropLine)));
    Ok(editor)
}

/// Reads lines until the end of input or Ctrl-C on an empty line.
fn read_lines(node: &Arc<Node>, to: &DefaultDestination, send: &mpsc::Sender<Line>) {
    let mut editor = match editor(node) {
        Ok(editor) => editor,
        Err(error) => {
            tracing::error!(%error, "The terminal cannot be read");
            return;
        }
    };
    let history = history_file(node);
    if let Err(error) = editor.load_history(&history) {
        tracing::debug!(%error, "No history was loaded");
    }
    while reads(node) {
        match editor.readline(&prompt(&node.name(), to)) {
            Ok(line) if line.trim().is_empty() => {}
            Ok(line) => {
                // The directory may have been made by a command meanwhile.
                let history = history_file(node);
                let kept = editor.add_history_entry(line.as_str()).and_then(|_| editor.save_history(&history));
                if let Err(error) = kept {
                    tracing::debug!(%error, "The history was not saved");
                }
                if !hand_over(send, line) {
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
fn read_piped(node: &Node, mut input: impl BufRead, send: &mpsc::Sender<Line>) {
    let mut command = String::new();
    while reads(node) {
        let mut line = Vec::new();
        match input.read_until(b'\n', &mut line) {
            Ok(0) => break,
            Ok(_) => command.push_str(&String::from_utf8_lossy(&line)),
            Err(error) => {
                // A service may be started without any standard input.
                tracing::debug!(%error, "The input cannot be read any more");
                break;
            }
        }
        if Script::goes_on(&command) && command.len() < LONGEST {
            continue;
        }
        let complete = std::mem::take(&mut command);
        if !complete.trim().is_empty() && !hand_over(send, complete) {
            return;
        }
    }
    if !command.trim().is_empty() {
        hand_over(send, command);
    }
}

/// Sends text and waits until it ran; false when nobody runs commands any more.
fn hand_over(send: &mpsc::Sender<Line>, text: String) -> bool {
    let (done, wait) = oneshot::channel();
    send.blocking_send((text, done)).is_ok() && wait.blocking_recv().is_ok()
}

/// `<home>/AnyLog-Network/anylog/history`, or a file for temporary use when that directory is not there.
fn history_file(node: &Node) -> PathBuf {
    let directory = node.directories.directory(&node.dictionary, "id_dir");
    let writable = directory.metadata().is_ok_and(|metadata| !metadata.permissions().readonly());
    if writable { directory.join("history") } else { std::env::temp_dir().join("anylog-node-history") }
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
        Ok(if Script::goes_on(context.input()) { ValidationResult::Incomplete } else { ValidationResult::Valid(None) })
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

    #[tokio::test(flavor = "multi_thread")]
    async fn an_interrupted_command_ends_and_the_next_one_runs() {
        let home = tempfile::tempdir().unwrap();
        let app = NodeApp::build(home.path()).unwrap();
        assert!(!app.foreground.interrupt(), "nothing is at work: the node is meant");
        let interrupted = Arc::clone(&app);
        let read = move |send: &mpsc::Sender<Line>| {
            let until = std::time::Instant::now() + Duration::from_secs(10);
            let waits = std::thread::spawn(move || {
                while !interrupted.foreground.interrupt() && std::time::Instant::now() < until {
                    std::thread::yield_now();
                }
            });
            assert!(hand_over(send, "wait 3600".to_owned()));
            waits.join().unwrap();
            assert!(hand_over(send, "x = 1 & y = 2".to_owned()));
        };
        let all = run_from(&app, DefaultDestination::default(), read);
        tokio::time::timeout(Duration::from_secs(30), all).await.expect("the wait is over");
        assert_eq!(app.node.dictionary.get("y").map(|value| value.to_string()), Some("2".to_owned()));
        assert!(!app.node.shutdown.is_cancelled());
        assert!(!app.foreground.interrupt());
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
}
