//! From a line of text to a command that ran.

use std::borrow::Cow;
use std::sync::Arc;

use super::arguments::{self, Arguments};
use super::assign::{self, Target};
use super::expand::{is_reference, value_of, value_of_text};
use super::{lexer, script};
use crate::command::{Command, CommandResult, Invocation, MAX_KEY_WORDS, Word};
use crate::{Access, CommandError, Reply, Session, Status};

/// Commands may contain commands (`if .. then do process ..`) so deep.
const MAX_DEPTH: usize = 40;

/// Commands may hand over to commands (`if .. then do else if ..`) so often.
const MAX_CHAIN: usize = 100;

/// Commands of one word that are never the right side of an assignment: they have no answer, and their names are ordinary
/// words (`state = stop`).
const WITHOUT_ANSWER: [&str; 9] = ["do", "else", "goto", "call", "return", "next", "continue", "stop", "variables"];

/// Runs the commands of a text and writes their outcome to the logs.
pub(super) async fn execute(session: &mut Session, text: &str) -> CommandResult {
    let prepared = prepare(text);
    match prepared {
        Ok((text, words)) => run_all(session, &text, &words).await,
        Err(error) => {
            log(session, text.trim(), &Err(&error));
            Err(error)
        }
    }
}

fn prepare(text: &str) -> Result<(Cow<'_, str>, Vec<Word>), CommandError> {
    let text = script::unfold(text)?;
    let words = lexer::lex(&text)?;
    Ok((text, words))
}

// Scripts run commands that run scripts: the futures on that way are boxed, so that a level takes little stack.

/// Runs the commands between `&` one after the other; the first failure ends the run.
async fn run_all(session: &mut Session, text: &str, words: &[Word]) -> CommandResult {
    let mut answers: Vec<Reply> = Vec::new();
    for words in words.split(|word| is(word, "&")) {
        let (Some(first), Some(last)) = (words.first(), words.last()) else { continue };
        let source = &text[first.span.start..last.span.end];
        let result = Box::pin(run(session, Line::new(source, words))).await;
        log(session, source, &result.as_ref().map(|_| ()));
        let reply = result?;
        if !reply.is_empty() {
            answers.push(reply);
        }
    }
    if answers.len() <= 1 {
        return Ok(answers.pop().unwrap_or(Reply::Empty));
    }
    let mut all = Vec::new();
    for answer in answers {
        all.push(answer.into_text().await?);
    }
    Ok(Reply::Text(all.join("\n")))
}

pub(super) fn is(word: &Word, text: &str) -> bool {
    !word.quoted && word.text == text
}

/// A command that the running one hands over to.
#[derive(Debug)]
pub(crate) struct Then {
    pub(crate) command: String,
    /// The if-flag after it.
    pub(crate) flag: Option<bool>,
    target: Option<Target>,
}

impl Then {
    pub(crate) fn new(command: &str, flag: Option<bool>) -> Self {
        Self { command: command.to_owned(), flag, target: None }
    }
}

/// One command: its text and its words, whose spans count from the start of the text.
struct Line {
    source: String,
    words: Vec<Word>,
}

impl Line {
    fn new(source: &str, words: &[Word]) -> Self {
        let start = words.first().map_or(0, |word| word.span.start);
        let words = words
            .iter()
            .map(|word| Word { span: word.span.start - start..word.span.end - start, ..word.clone() })
            .collect();
        Self { source: source.to_owned(), words }
    }

    /// The same command without its first words.
    fn skip(&self, count: usize) -> Self {
        let words = &self.words[count..];
        let start = words.first().map_or(self.source.len(), |word| word.span.start);
        Self::new(&self.source[start..], words)
    }
}

async fn run(session: &mut Session, line: Line) -> CommandResult {
    if session.depth >= MAX_DEPTH {
        return Err(too_deep());
    }
    session.depth += 1;
    let deeper = Deeper(session);
    run_chain(deeper.0, line).await
}

/// Comes back up when the command ends, also when its future is dropped before.
struct Deeper<'a>(&'a mut Session);

impl Drop for Deeper<'_> {
    fn drop(&mut self) {
        self.0.depth -= 1;
        self.0.then = None;
    }
}

fn too_deep() -> CommandError {
    CommandError::structure("Commands inside commands nest too deep")
        .hint("a script that starts itself, or 'do' and 'then' without end")
}

/// Runs a command and what it hands over: the command after `then`, `do` or `else`. A loop, so that such a chain takes no stack.
async fn run_chain(session: &mut Session, line: Line) -> CommandResult {
    let mut line = line;
    let mut flag = None;
    let mut targets = Vec::new();
    let mut result = Err(too_deep());
    for _ in 0..MAX_CHAIN {
        result = run_line(session, line).await;
        let Some(next) = session.then.take() else { break };
        // the flag is that of the first 'if', whatever the commands after it tested
        flag = flag.or(next.flag);
        targets.extend(next.target);
        line = match lexer::lex(&next.command) {
            Ok(words) => Line::new(&next.command, &words),
            Err(error) => {
                result = Err(error);
                break;
            }
        };
        result = Err(too_deep());
    }
    if flag.is_some() {
        session.if_flag = flag;
    }
    for target in targets.iter().rev() {
        result = fill(session, target, result).await;
    }
    result
}

async fn run_line(session: &mut Session, line: Line) -> CommandResult {
    match line.words.as_slice() {
        [] => Ok(Reply::Empty),
        [word] if !word.quoted && is_reference(&word.text) => {
            session.require(Access::Read, &word.text)?;
            Ok(shown(value_of(&session.node, word).to_string()))
        }
        [_, sign, ..] if is(sign, "=") => Box::pin(assignment(session, line)).await,
        [_, sign, ..] if is(sign, "+") => {
            session.require(Access::Read, &line.source)?;
            assign::concatenate(&session.node, &line.words).map(shown)
        }
        _ => match find(session, &line.words) {
            Some((command, key_words)) => Box::pin(call(session, &command, key_words, line, None)).await,
            None => set_literal(session, &line),
        },
    }
}

fn shown(text: String) -> Reply {
    if text.is_empty() { Reply::Empty } else { Reply::Text(text) }
}

/// The command that the words begin with. A reference among them stands for its value; a quoted word is never part of a name.
fn find(session: &Session, words: &[Word]) -> Option<(Arc<dyn Command>, usize)> {
    let texts = key_texts(session, words);
    let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
    session.node.registry.find(&texts)
}

fn key_texts<'a>(session: &Session, words: &'a [Word]) -> Vec<Cow<'a, str>> {
    let key = words.iter().take(MAX_KEY_WORDS).take_while(|word| !word.quoted);
    key.map(|word| match is_reference(&word.text) {
        true => Cow::Owned(value_of_text(&session.node, &word.text).to_string()),
        false => Cow::Borrowed(word.text.as_str()),
    })
    .collect()
}

/// Checks the caller's rights and the shape of the call, and runs it.
async fn call(
    session: &mut Session,
    command: &Arc<dyn Command>,
    key_words: usize,
    line: Line,
    assign_to: Option<String>,
) -> CommandResult {
    authorize(session, command, &line.words)?;
    let arguments = arguments::parse(&session.node, command.declaration(), &line.words[key_words..])?;
    run_call(session, command, key_words, line, assign_to, arguments).await
}

fn authorize(session: &Session, command: &Arc<dyn Command>, words: &[Word]) -> Result<(), CommandError> {
    let texts: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
    session.require(command.declaration().access_of(&texts), command.declaration().words)
}

async fn run_call(
    session: &mut Session,
    command: &Arc<dyn Command>,
    key_words: usize,
    line: Line,
    assign_to: Option<String>,
    arguments: Arguments,
) -> CommandResult {
    let Arguments { positionals, options } = arguments;
    let call = Invocation { source: line.source, words: line.words, key_words, assign_to, positionals, options };
    command.run(session, call).await
}

/// `name = ...`: runs the right side when it is a complete command, else stores it.
async fn assignment(session: &mut Session, line: Line) -> CommandResult {
    session.require(Access::Admin, &format!("{} = ...", line.words[0].text))?;
    let target = Target::parse(&session.node, &line.words[0].text)?;
    let right = line.skip(2);
    if right.words.is_empty() {
        return Err(CommandError::structure(format!("Missing value after '{} ='", line.words[0].text))
            .hint(format!("to remove the name: {} = \"\"", line.words[0].text)));
    }
    let Some((command, key_words, arguments)) = complete_command(session, &right)? else {
        target.store(&session.node, assign::literal(&session.node, &right.words)?)?;
        return Ok(Reply::Empty);
    };
    authorize(session, &command, &right.words)?;
    target.clear_collection(&session.node);
    let result = run_call(session, &command, key_words, right, Some(target.name().to_owned()), arguments).await;
    if let Some(next) = &mut session.then {
        // `name = if .. then <command>` gets the answer of the command
        next.target = Some(target);
        return Ok(Reply::Empty);
    }
    fill(session, &target, result).await
}

/// Stores the answer of a command; a failing one leaves the name undefined.
async fn fill(session: &Session, target: &Target, result: CommandResult) -> CommandResult {
    let answer = match result {
        Ok(reply) => target.fill(session, reply).await,
        Err(error) => Err(error),
    };
    if answer.is_err() {
        target.remove(&session.node);
    }
    answer.map(|()| Reply::Empty)
}

type Complete = (Arc<dyn Command>, usize, Arguments);

/// The command on the right side of an assignment, when the words are a complete one. A single word never is
/// (`default_dbms = test`), and a command named by one word must also have its declared shape.
fn complete_command(session: &Session, line: &Line) -> Result<Option<Complete>, CommandError> {
    if line.words.len() < 2 || WITHOUT_ANSWER.contains(&line.words[0].text.as_str()) || is(&line.words[1], "+") {
        return Ok(None);
    }
    let Some((command, key_words)) = find(session, &line.words) else { return Ok(None) };
    match arguments::parse(&session.node, command.declaration(), &line.words[key_words..]) {
        Ok(arguments) => Ok(Some((command, key_words, arguments))),
        Err(_) if key_words == 1 => Ok(None),
        Err(error) => Err(error),
    }
}

/// `set name = value`, which counts only when no command has these words.
fn set_literal(session: &Session, line: &Line) -> CommandResult {
    match line.words.as_slice() {
        [set, name, sign, value @ ..] if is(set, "set") && is(sign, "=") => {
            session.require(Access::Admin, &format!("set {} = ...", name.text))?;
            if value.is_empty() {
                return Err(CommandError::structure(format!("Missing value after 'set {} ='", name.text)));
            }
            let target = Target::parse(&session.node, &name.text)?;
            target.store(&session.node, assign::literal(&session.node, value)?)?;
            Ok(Reply::Empty)
        }
        words => Err(unrecognized(session, words)),
    }
}

fn unrecognized(session: &Session, words: &[Word]) -> CommandError {
    let texts = key_texts(session, words);
    let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
    let shown: String = lexer::join(words).chars().take(80).collect();
    let error = CommandError::new(Status::UNRECOGNIZED_COMMAND, format!("Unrecognized Command: '{shown}'"));
    match session.node.registry.suggest(&texts) {
        Some(meant) => error.hint(format!("did you mean '{meant}'?")),
        None => error.hint("'help' lists the commands"),
    }
}

/// Notes the outcome of a command in the event log, a failure in the error log as well.
fn log(session: &Session, source: &str, result: &Result<(), &CommandError>) {
    let node = &session.node;
    let now = node.clock.now();
    let source = super::secrets::masked(source);
    match result {
        Ok(()) => node.events.add(now, &session.thread, Status::SUCCESS.text(), format!("(ok) {source}")),
        Err(error) => {
            let kind = error.status.text();
            node.events.add(now, &session.thread, kind, format!("(Failed: {kind}) {source}"));
            node.errors.add(now, &session.thread, kind, format!("{source} --> {error}"));
        }
    }
}
