//! From the text of a file to the commands of a script.

use std::borrow::Cow;
use std::collections::HashMap;

use super::super::condition::unquoted;
use super::super::lexer::{Flaw, Unfinished, scan};
use crate::{CommandError, Status};

/// One command of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// The line in the file where it begins, counted from 1.
    pub(super) number: usize,
    /// The command on one line.
    pub(super) text: String,
}

/// A script: its commands, labels and arguments.
#[derive(Debug, Clone, Default)]
pub struct Script {
    pub(super) name: String,
    pub(super) lines: Vec<Line>,
    /// For each label the index of the line after it.
    pub(super) labels: HashMap<String, usize>,
    /// `:name` lines that lack their second colon, with their line numbers: no labels, but worth a hint.
    pub(super) half_labels: Vec<(String, usize)>,
    /// The names of the `variables` line.
    pub(super) variables: Vec<String>,
    /// The index of the first line that runs.
    pub(super) start: usize,
    /// A list of commands rather than a file: its end by an error keeps the status of the command that failed.
    pub(super) list: bool,
}

impl Script {
    /// Reads a script. `name` is what errors call it: a path, as a rule.
    ///
    /// # Errors
    /// A label that stands twice, a block `<` or a brace that is not closed before the end; the message names the line.
    pub fn parse(name: &str, text: &str) -> Result<Self, CommandError> {
        Loader::new(name, false).read(text)?.finish()
    }

    /// The commands of a text that a person typed or pasted. Other than in a file, a command also goes on in the next line while
    /// a `(` is open, as there is somebody to see it.
    ///
    /// # Errors
    /// As [`Script::parse`].
    pub fn typed(text: &str) -> Result<Self, CommandError> {
        Loader::new("terminal", true).read(text)?.finish()
    }

    /// Whether a text that is being typed goes on in the next line: a block `<`, a brace, a bracket or a parenthesis is open.
    #[must_use]
    pub fn goes_on(typed: &str) -> bool {
        Loader::new("terminal", true).read(typed).is_ok_and(|loader| loader.open.is_some())
    }

    /// A script from a list of commands; quotes around a command are dropped.
    pub(super) fn from_commands(name: &str, commands: &[String]) -> Self {
        let lines = commands.iter().enumerate();
        let lines = lines.map(|(index, text)| Line { number: index + 1, text: unquoted(text.trim()).to_owned() });
        Self { name: name.to_owned(), lines: lines.collect(), list: true, ..Self::default() }
    }

    /// What errors call the script.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of commands.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// True when there is nothing to run.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The commands with the numbers of their lines.
    pub fn commands(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines.iter().map(|line| (line.number, line.text.as_str()))
    }
}

enum Kind {
    Block,
    Json,
}

/// A command that is not complete yet.
struct Open {
    kind: Kind,
    number: usize,
    text: String,
}

struct Loader {
    script: Script,
    open: Option<Open>,
    // Whether an open parenthesis continues a command.
    parentheses: bool,
}

impl Loader {
    fn new(name: &str, parentheses: bool) -> Self {
        Self { script: Script { name: name.to_owned(), ..Script::default() }, open: None, parentheses }
    }

    fn read(mut self, text: &str) -> Result<Self, CommandError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (index, line) in text.lines().enumerate() {
            self.line(index + 1, line.trim())?;
        }
        Ok(self)
    }

    fn error(&self, status: Status, number: usize, what: &str) -> CommandError {
        CommandError::new(status, format!("In script '{}' at line {number}: {what}", self.script.name))
    }

    fn line(&mut self, number: usize, line: &str) -> Result<(), CommandError> {
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        match self.open.take() {
            Some(Open { kind: Kind::Block, number, text }) => self.block(number, text, line),
            Some(Open { kind: Kind::Json, number, text }) => self.json(number, text, line),
            None => {
                if let Some(label) = line.strip_prefix(':') {
                    return self.label(number, label);
                }
                match line.strip_prefix('<') {
                    Some(rest) => self.block(number, String::new(), rest),
                    None => self.json(number, String::new(), line),
                }
            }
        }
    }

    fn label(&mut self, number: usize, text: &str) -> Result<(), CommandError> {
        let Some((name, _)) = text.split_once(':') else {
            self.script.half_labels.push((text.trim().to_owned(), number));
            return Ok(());
        };
        let name = name.trim().to_owned();
        if self.script.labels.contains_key(&name) {
            return Err(self
                .error(Status::COMMAND_STRUCTURE, number, &format!("the label ':{name}:' stands twice"))
                .hint("give each label its own name"));
        }
        self.script.labels.insert(name, self.script.lines.len());
        Ok(())
    }

    /// A line of a block; the block ends with a line that ends `>`.
    fn block(&mut self, number: usize, mut text: String, line: &str) -> Result<(), CommandError> {
        let line = without_comment(line);
        let (line, closed) = match line.strip_suffix('>') {
            Some(line) => (line.trim(), true),
            None => (line, false),
        };
        if !text.is_empty() && !line.is_empty() {
            text.push(' ');
        }
        text.push_str(line);
        match closed {
            true => self.command(number, text),
            false => {
                self.open = Some(Open { kind: Kind::Block, number, text });
                Ok(())
            }
        }
    }

    /// A plain line, or one more line of a command whose braces are open.
    fn json(&mut self, number: usize, mut text: String, line: &str) -> Result<(), CommandError> {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(line);
        let parentheses = self.parentheses;
        let open =
            |unfinished: Unfinished| unfinished.may_continue() || (parentheses && unfinished.flaw == Flaw::Parenthesis);
        if scan(&text).is_err_and(open) {
            self.open = Some(Open { kind: Kind::Json, number, text });
            return Ok(());
        }
        self.command(number, text)
    }

    fn command(&mut self, number: usize, text: String) -> Result<(), CommandError> {
        if text.is_empty() {
            return Ok(());
        }
        let Some(list) = text.strip_prefix("variables").map(str::trim_start).filter(|list| list.starts_with('('))
        else {
            self.script.lines.push(Line { number, text });
            return Ok(());
        };
        let inner = without_comment(list).strip_prefix('(').and_then(|inner| inner.strip_suffix(')'));
        let inner = inner.ok_or_else(|| {
            self.error(Status::COMMAND_STRUCTURE, number, "the list of 'variables' is not closed")
                .hint("write variables (name, name)")
        })?;
        self.script.variables = inner
            .split(',')
            .map(|name| name.trim().trim_start_matches('!').to_owned())
            .filter(|name| !name.is_empty())
            .collect();
        self.script.start = self.script.lines.len();
        Ok(())
    }

    fn finish(self) -> Result<Script, CommandError> {
        match &self.open {
            None => Ok(self.script),
            Some(Open { kind: Kind::Block, number, .. }) => Err(self
                .error(Status::MISSING_BRACKETS, *number, "the block that opens with '<' here is never closed")
                .hint("end its last line with '>'")),
            Some(Open { kind: Kind::Json, number, text }) => {
                let cause = scan(text).err().map(|unfinished| unfinished.error(text).message).unwrap_or_default();
                Err(self.error(
                    Status::MISSING_BRACKETS,
                    *number,
                    &format!("a bracket that opens here is never closed. {cause}"),
                ))
            }
        }
    }
}

/// The line without a comment at its end: `#` after a blank and outside quotes begins one.
fn without_comment(line: &str) -> &str {
    let mut quote = None;
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '#' && before.is_whitespace() => return line[..at].trim_end(),
            None if c == '"' => quote = Some(c),
            None if c == '\'' && before.is_whitespace() && line[at + 1..].contains('\'') => quote = Some(c),
            None => {}
        }
        before = c;
    }
    line.trim_end()
}

/// The command inside `< ... >` as one line; any other text as it is.
pub(crate) fn unfold(text: &str) -> Result<Cow<'_, str>, CommandError> {
    let trimmed = text.trim();
    let Some(rest) = trimmed.strip_prefix('<') else { return Ok(Cow::Borrowed(text)) };
    let lines = rest.lines().map(str::trim).filter(|line| !line.starts_with('#')).map(without_comment);
    let joined = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    let inner = joined.strip_suffix('>').ok_or_else(|| {
        CommandError::new(Status::MISSING_BRACKETS, "The block that opens with '<' is never closed")
            .hint("end the command with '>'")
    })?;
    Ok(Cow::Owned(inner.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(text: &str) -> Vec<(usize, String)> {
        let script = Script::parse("test.al", text).unwrap();
        script.commands().map(|(number, text)| (number, text.to_owned())).collect()
    }

    #[test]
    fn lines_blocks_and_json() {
        let text = "\
# comment
  get status

<run mqtt client where broker=local # the own one
   # all topics
   and topic=(
     name=\"#\" and
     dbms=test
)>
<one line>
x = {\"a\":
  {\"b\": !c}
}
y = [1,
2]
:label: anything
:half
print \"a # b\" # c
";
        assert_eq!(
            commands(text),
            [
                (2, "get status".to_owned()),
                (4, "run mqtt client where broker=local and topic=( name=\"#\" and dbms=test )".to_owned()),
                (10, "one line".to_owned()),
                (11, "x = {\"a\":\n{\"b\": !c}\n}".to_owned()),
                (14, "y = [1,\n2]".to_owned()),
                (18, "print \"a # b\" # c".to_owned()),
            ]
        );
        let script = Script::parse("test.al", text).unwrap();
        assert_eq!(script.labels.get("label"), Some(&5));
        assert_eq!(script.half_labels, [("half".to_owned(), 17)]);
    }

    #[test]
    fn what_is_open_at_the_end_names_its_line() {
        for (text, line, status) in [
            ("get status\n<x = 1\ny", "line 2", Status::MISSING_BRACKETS),
            ("get status\n\nx = {\n\"a\": 1\n", "line 3", Status::MISSING_BRACKETS),
            (":a:\nx\n:a:\n", "line 3", Status::COMMAND_STRUCTURE),
            ("variables (a", "line 1", Status::COMMAND_STRUCTURE),
        ] {
            let error = Script::parse("test.al", text).unwrap_err();
            assert!(error.message.contains(line) && error.message.contains("test.al"), "{error}");
            assert_eq!(error.status, status);
        }
    }

    #[test]
    fn files_of_other_systems() {
        assert_eq!(commands("\u{feff}get status\r\n# x\r\nx = {\r\n}\r\n").len(), 2);
    }

    #[test]
    fn variables_name_the_arguments_and_the_start() {
        let script = Script::parse("test.al", "never\nvariables (a, !b)\nprint !a").unwrap();
        assert_eq!((script.variables.as_slice(), script.start), (&["a".to_owned(), "b".to_owned()][..], 1));
    }

    #[test]
    fn typed_commands_go_on_while_something_is_open() {
        for (text, open) in [
            ("<a = {\"x\": 1}", true),
            ("<a = {\"x\": 1}>", false),
            ("a = {\"x\": [1,", true),
            ("a = {\"x\": [1,\n2]}", false),
            ("run msg client where topic = (name = a and", true),
            ("print \"{\"", false),
            ("print it's", false),
            ("print \"a (b\" and (", true),
            ("# {", false),
            ("get status", false),
            ("", false),
        ] {
            assert_eq!(Script::goes_on(text), open, "{text}");
        }
        let pasted = Script::typed("get status\nx = (a,\nb)\n\n!x\n").unwrap();
        assert_eq!(pasted.commands().map(|(_, text)| text).collect::<Vec<_>>(), ["get status", "x = (a,\nb)", "!x"]);
        assert!(Script::parse("file.al", "x = (a\nb)").unwrap().len() == 2, "in a file the line itself is wrong");
    }

    #[test]
    fn blocks_at_the_terminal() {
        assert_eq!(unfold("get status").unwrap(), "get status");
        assert_eq!(unfold(" <x = 1>\n").unwrap(), "x = 1");
        assert_eq!(unfold("<x = (a # b\n # c\n and d)>").unwrap(), "x = (a and d)");
        assert!(unfold("<x").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_file_panics(text in "([<>{}\\[\\]:#\"'a-zé ]{0,12}\n){0,8}") {
            if let Ok(script) = Script::parse("x", &text) {
                for (_, command) in script.commands() {
                    proptest::prop_assert!(!command.is_empty());
                }
            }
            drop(unfold(&text));
        }
    }
}
