//! Scripts in mapping policies: what to leave out, and when.

use anylog_core::language::condition::Condition;
use anylog_core::language::lexer;
use anylog_core::{CommandError, Status};

use super::source::{Document, Source};

/// What a script decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Go on as declared.
    Continue,
    /// Leave the column out.
    IgnoreAttribute,
    /// Leave the row out.
    IgnoreEvent,
}

/// What is ignored.
#[derive(Debug, Clone, Copy)]
enum Act {
    Attribute,
    Event,
    Script,
}

#[derive(Debug, Clone)]
struct Line {
    condition: Option<Condition>,
    act: Act,
}

/// A compiled script: lines `if <condition> then ignore attribute|event|script`, or without the condition.
#[derive(Debug, Clone, Default)]
pub(super) struct Script(Vec<Line>);

impl Script {
    /// Reads a script as a policy holds it: a list of lines, or one line.
    pub(super) fn parse(value: Option<&serde_json::Value>) -> Result<Self, CommandError> {
        let lines: Vec<&str> = match value {
            None | Some(serde_json::Value::Null) => Vec::new(),
            Some(serde_json::Value::String(line)) => vec![line],
            Some(serde_json::Value::Array(lines)) => {
                let text = |line: &serde_json::Value| line.as_str().is_none();
                if lines.iter().any(text) {
                    return Err(wrong("a script is a list of texts"));
                }
                lines.iter().filter_map(|line| line.as_str()).collect()
            }
            Some(_) => return Err(wrong("a script is a list of texts")),
        };
        lines.into_iter().filter(|line| !line.trim().is_empty()).map(line).collect::<Result<_, _>>().map(Self)
    }

    /// Runs the script over a reading.
    pub(super) fn run(&self, reading: &Document<'_>) -> Verdict {
        for line in &self.0 {
            let holds = match &line.condition {
                None => true,
                // A condition that cannot be evaluated on this reading does not hold.
                Some(condition) => condition.evaluate(&|word| value(word, reading)).unwrap_or(false),
            };
            match (holds, line.act) {
                (false, _) => {}
                (true, Act::Attribute) => return Verdict::IgnoreAttribute,
                (true, Act::Event) => return Verdict::IgnoreEvent,
                (true, Act::Script) => return Verdict::Continue,
            }
        }
        Verdict::Continue
    }
}

fn value(word: &anylog_core::command::Word, reading: &Document<'_>) -> anylog_core::command::Value {
    let text = if !word.quoted && word.text.starts_with('[') {
        let source = Source::parse(&word.text).ok();
        let found = source.and_then(|source| source.first(reading).filter(|found| !found.is_null()));
        found.map(|found| found.plain().into_owned()).unwrap_or_default()
    } else {
        word.text.clone()
    };
    anylog_core::command::Value::Text(text)
}

fn line(text: &str) -> Result<Line, CommandError> {
    let words = lexer::lex(text)?;
    let (condition, command) = if words.first().is_some_and(|word| word.text == "if") {
        let then = words.iter().position(|word| !word.quoted && word.text == "then");
        let then = then.ok_or_else(|| wrong(&format!("'{text}' has no 'then'")))?;
        (Some(Condition::parse(&words[1..then])?), &words[then + 1..])
    } else {
        (None, &words[..])
    };
    let command: Vec<&str> = command.iter().map(|word| word.text.as_str()).collect();
    let act = match command.as_slice() {
        ["ignore", "attribute"] => Act::Attribute,
        ["ignore", "event"] => Act::Event,
        ["ignore", "script"] => Act::Script,
        _ => return Err(wrong(&format!("'{text}' is not a command of a mapping script"))),
    };
    Ok(Line { condition, act })
}

fn wrong(problem: &str) -> CommandError {
    CommandError::new(Status::WRONG_POLICY, format!("Script in a mapping policy: {problem}"))
        .hint("lines are: if [<attribute>] <op> <value> then ignore attribute|event|script")
}
