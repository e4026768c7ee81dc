//! The destination that a terminal sends its commands to.
//!
//! `run client (10.0.0.1:32148)` alone sets it: what is typed from then on runs there. `run client ()` or `run client .` takes it
//! back. A command behind a dot runs here all the same: `. get status`.

use anylog_core::command::Word;
use anylog_core::language::lexer::lex;
use anylog_core::{CommandError, Session};

use super::{Call, Destination};
use crate::Ledger;

/// What a typed line means to a terminal with a default destination, or without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Typed {
    /// Run these commands here, one after the other; those for other nodes begin with `run client`.
    Run(Vec<String>),
    /// Send what is typed from now on to this destination.
    To(String),
    /// Run what is typed from now on here.
    Here,
}

impl Typed {
    /// Reads a typed command; `to` is the default destination.
    #[must_use]
    pub fn read(line: &str, to: Option<&str>) -> Self {
        let line = line.trim();
        if let Some(own) = line.strip_prefix('.') {
            return Self::Run(vec![own.trim().to_owned()]);
        }
        let as_it_is = || Self::Run(vec![line.to_owned()]);
        // What cannot be read, the language says better.
        let Ok(words) = lex(line) else { return as_it_is() };
        if is_call(&words) {
            return match Call::of_words(line, &words) {
                Ok(Call { destination: "()" | ".", command: "" }) => Self::Here,
                Ok(Call { destination, command: "" }) => Self::To(destination.to_owned()),
                _ => as_it_is(),
            };
        }
        let assigned = matches!(words.as_slice(), [_, sign, rest @ ..] if sign.text == "=" && is_call(rest));
        match to {
            Some(to) if !assigned => Self::Run(forwarded(to, line, &words)),
            _ => as_it_is(),
        }
    }
}

fn is_call(words: &[Word]) -> bool {
    matches!(words, [run, client, ..] if !run.quoted && run.text == "run" && client.text == "client")
}

/// The calls that run a command line at a destination: one for each part between `&`.
///
/// # Errors
/// When the line cannot be taken apart into words.
pub fn calls(destination: &str, line: &str) -> Result<Vec<String>, CommandError> {
    Ok(forwarded(destination, line, &lex(line)?))
}

fn forwarded(destination: &str, line: &str, words: &[Word]) -> Vec<String> {
    let part = |words: &[Word]| {
        let range = words.first()?.span.start..words.last()?.span.end;
        Some(format!("run client {destination} {}", line.get(range)?))
    };
    words.split(|word| !word.quoted && word.text == "&").filter_map(part).collect()
}

impl Ledger {
    /// Checks that a default destination names somebody now. It is read again for each command: what the ledger says may change.
    ///
    /// # Errors
    /// As `run client` gives for it.
    pub async fn check_destination(&self, session: &mut Session, text: &str) -> Result<(), CommandError> {
        let mut destination = Destination::parse(session, text).await?;
        destination.add_holders(self)?;
        if destination.nodes.is_empty() { Err(super::destination::nowhere(text)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(lines: &[&str]) -> Typed {
        Typed::Run(lines.iter().map(|line| (*line).to_owned()).collect())
    }

    #[test]
    fn a_destination_alone_is_the_default_from_then_on() {
        for (line, to) in [
            ("run client (a:1)", "(a:1)"),
            ("run client a:1", "a:1"),
            (" run client 10.0.0.1 32148 ", "10.0.0.1 32148"),
            ("run client !dest", "!dest"),
            ("run client (operator where name = a, subset = true)", "(operator where name = a, subset = true)"),
        ] {
            for before in [None, Some("(b:2)")] {
                assert_eq!(Typed::read(line, before), Typed::To(to.to_owned()), "{line}");
            }
        }
        for line in ["run client ()", "run client .", "run client () "] {
            assert_eq!(Typed::read(line, Some("(a:1)")), Typed::Here, "{line}");
        }
    }

    #[test]
    fn what_is_typed_goes_to_the_default() {
        let to = Some("(a:1, subset = true)");
        for (line, expected) in [
            ("get status", run(&["run client (a:1, subset = true) get status"])),
            ("x = get  status", run(&["run client (a:1, subset = true) x = get  status"])),
            (
                "get status & print \"a & b\"",
                run(&["run client (a:1, subset = true) get status", "run client (a:1, subset = true) print \"a & b\""]),
            ),
            (". get status", run(&["get status"])),
            (".get status", run(&["get status"])),
            ("run client () sql d \"select 1\"", run(&["run client () sql d \"select 1\""])),
            ("run client (b:2) get status", run(&["run client (b:2) get status"])),
            ("x = run client (b:2) get status", run(&["x = run client (b:2) get status"])),
            ("run client", run(&["run client"])),
            ("print \"a", run(&["print \"a"])),
        ] {
            assert_eq!(Typed::read(line, to), expected, "{line}");
        }
        for line in ["get status", "a & b"] {
            assert_eq!(Typed::read(line, None), run(&[line]));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_line_panics(line in "[a-z.:&=()\"' !<>{}]{0,40}") {
            if let Typed::Run(commands) = Typed::read(&line, None) {
                proptest::prop_assert_eq!(commands.len(), 1);
            }
            if let Typed::Run(commands) = Typed::read(&line, Some("(a:1)")) {
                proptest::prop_assert!(commands.iter().all(|command| command.len() < line.len() + 25));
            }
        }
    }
}
