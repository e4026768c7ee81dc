//! From the text of a command to its words.
//!
//! The text is scanned once, left to right; blanks are space, tab and line end. What stands at the start of a word decides
//! how the word ends:
//!
//! | start of a word | the word |
//! |---|---|
//! | `#` | comment: the rest of the line is dropped |
//! | `"` | up to the next `"`; the quotes are removed. There is no escape |
//! | `'` or `` ` `` | up to the same quote; the quotes stay |
//! | `\"` | up to the next `\"`; both marks stay |
//! | `(` | up to the balancing `)`, content untouched |
//! | `{` | up to the balancing `}`, content untouched; braces in JSON strings do not count |
//! | `[` | up to the balancing `]`; goes on when `[` or `:` follows directly |
//! | `=` `+` `<` `>` `==` `!=` `<=` `>=` `->` `&` | the operator itself |
//! | anything else | up to a blank or an operator; `now()`, `table[dbms]` and `a"b` are one word |
//!
//! A carriage return that does not end a line makes the rest of the text one last word.

use crate::command::Word;
use crate::{CommandError, Status};

/// What a text lacks to be a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// `"` without its partner.
    Quote,
    /// `(` without its partner.
    Parenthesis,
    /// `{` without its partner.
    Brace,
    /// `[` without its partner.
    Bracket,
}

/// A text that ends inside a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unfinished {
    /// What is open.
    pub(crate) flaw: Flaw,
    /// Where it opened, in bytes.
    pub(crate) at: usize,
}

impl Unfinished {
    /// True when more lines may complete the text: a JSON text that spans several lines.
    pub(crate) fn may_continue(self) -> bool {
        matches!(self.flaw, Flaw::Brace | Flaw::Bracket)
    }

    pub(crate) fn error(self, text: &str) -> CommandError {
        let (status, what, open) = match self.flaw {
            Flaw::Quote => (Status::COMMAND_STRUCTURE, "a closing quote", '"'),
            Flaw::Parenthesis => (Status::COMMAND_STRUCTURE, "a closing ')'", '('),
            Flaw::Brace => (Status::MISSING_BRACKETS, "a closing '}'", '{'),
            Flaw::Bracket => (Status::MISSING_BRACKETS, "a closing ']'", '['),
        };
        let from: String = text.get(self.at..).unwrap_or_default().chars().take(40).collect();
        CommandError::new(status, format!("The command lacks {what}: '{open}' opens at '{from}'"))
    }
}

/// The words of a command.
///
/// The spans are byte ranges of `text`, quotes included. A separator `&` between commands is a word of its own.
///
/// # Errors
/// [`Status::COMMAND_STRUCTURE`] for an open quote or parenthesis, [`Status::MISSING_BRACKETS`] for an open brace or bracket.
///
/// ```
/// use anylog_core::language::lexer::lex;
/// let words: Vec<String> = lex("x=(name=a and b=\"c d\") \"y z\"").unwrap().into_iter().map(|word| word.text).collect();
/// assert_eq!(words, ["x", "=", "(name=a and b=\"c d\")", "y z"]);
/// ```
pub fn lex(text: &str) -> Result<Vec<Word>, CommandError> {
    scan(text).map_err(|unfinished| unfinished.error(text))
}

/// As [`lex`], with an error that says where the open word began.
pub(crate) fn scan(text: &str) -> Result<Vec<Word>, Unfinished> {
    let mut scanner = Scanner { text, bytes: text.as_bytes(), at: 0, words: Vec::new() };
    while scanner.skip_blanks() {
        scanner.word()?;
    }
    Ok(scanner.words)
}

/// The words as one text: one blank where blanks stood between them, nothing where none stood.
///
/// ```
/// use anylog_core::language::lexer::{join, lex};
/// assert_eq!(join(&lex("30   seconds").unwrap()), "30 seconds");
/// assert_eq!(join(&lex("http://host?a=b").unwrap()), "http://host?a=b");
/// ```
#[must_use]
pub fn join(words: &[Word]) -> String {
    let mut out = String::new();
    let mut end = None;
    for word in words {
        if end.is_some_and(|end| end < word.span.start) {
            out.push(' ');
        }
        out.push_str(&word.text);
        end = Some(word.span.end);
    }
    out
}

struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    words: Vec<Word>,
}

impl Scanner<'_> {
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    /// A carriage return before a line end or at the end of the text is a blank.
    fn is_blank(&self, at: usize) -> bool {
        match self.bytes.get(at) {
            Some(b' ' | b'\t' | b'\n') => true,
            Some(b'\r') => matches!(self.bytes.get(at + 1), None | Some(b'\n')),
            _ => false,
        }
    }

    fn skip_blanks(&mut self) -> bool {
        loop {
            while self.is_blank(self.at) {
                self.at += 1;
            }
            if self.peek(0) != b'#' {
                return self.at < self.bytes.len();
            }
            while self.at < self.bytes.len() && self.peek(0) != b'\n' {
                self.at += 1;
            }
        }
    }

    fn push(&mut self, start: usize, end: usize) {
        self.words.push(Word { text: self.text[start..end].to_owned(), quoted: false, span: start..end });
        self.at = end;
    }

    fn word(&mut self) -> Result<(), Unfinished> {
        let start = self.at;
        match self.peek(0) {
            b'\r' => {
                let rest = self.text[start + 1..].trim_end();
                let end = start + 1 + rest.len();
                self.words.push(Word { text: rest.to_owned(), quoted: true, span: start..end });
                self.at = self.bytes.len();
            }
            b'"' => {
                let length = self.text[start + 1..].find('"').ok_or(Unfinished { flaw: Flaw::Quote, at: start })?;
                let end = start + 1 + length;
                self.words.push(Word {
                    text: self.text[start + 1..end].to_owned(),
                    quoted: true,
                    span: start..end + 1,
                });
                self.at = end + 1;
            }
            b'\\' if self.peek(1) == b'"' => {
                let length = self.text[start + 2..].find("\\\"").ok_or(Unfinished { flaw: Flaw::Quote, at: start })?;
                self.push(start, start + length + 4);
            }
            quote @ (b'\'' | b'`') => match self.text[start + 1..].find(char::from(quote)) {
                Some(length) => self.push(start, start + length + 2),
                // an apostrophe in plain text
                None => return self.plain(start),
            },
            b'(' => {
                let end = balanced(self.text, start).ok_or(Unfinished { flaw: Flaw::Parenthesis, at: start })?;
                self.push(start, end);
            }
            b'{' => {
                let end = balanced(self.text, start).ok_or(Unfinished { flaw: Flaw::Brace, at: start })?;
                self.push(start, end);
            }
            b'[' => {
                let end = balanced(self.text, start).ok_or(Unfinished { flaw: Flaw::Bracket, at: start })?;
                self.at = end;
                if matches!(self.peek(0), b'[' | b':') {
                    return self.plain(start);
                }
                self.push(start, end);
            }
            _ => match self.operator() {
                0 => return self.plain(start),
                length => self.push(start, start + length),
            },
        }
        Ok(())
    }

    /// The length of the operator that stands here, or 0.
    fn operator(&self) -> usize {
        match (self.peek(0), self.peek(1)) {
            (b'=' | b'!' | b'<' | b'>', b'=') | (b'-', b'>') => 2,
            (b'=' | b'+' | b'<' | b'>' | b'&', _) => 1,
            _ => 0,
        }
    }

    /// An ordinary word that began at `start` and goes on here.
    fn plain(&mut self, start: usize) -> Result<(), Unfinished> {
        let first = self.words.is_empty();
        while self.at < self.bytes.len() && !self.is_blank(self.at) {
            match self.peek(0) {
                b'\r' => break,
                // `->` is an operator only as a word of its own, which `operator` saw already
                b'-' if self.at > start && self.peek(1) == b'>' => self.at += 1,
                b'(' => {
                    self.at =
                        balanced(self.text, self.at).ok_or(Unfinished { flaw: Flaw::Parenthesis, at: self.at })?;
                }
                b'[' => {
                    self.at = balanced(self.text, self.at).ok_or(Unfinished { flaw: Flaw::Bracket, at: self.at })?;
                }
                b'{' if first && self.at > start && self.peek(1) == b'}' => self.at += 2,
                b'{' if self.at > start => break,
                _ if self.operator() > 0 && self.at > start => break,
                _ => self.at += 1,
            }
        }
        self.push(start, self.at);
        Ok(())
    }
}

/// The position after the bracket that closes the one at `start`.
///
/// Only brackets of the same kind count. Inside braces and brackets those in double quotes do not, so that any JSON text is one
/// word; when the quotes themselves do not balance, every bracket counts.
pub(crate) fn balanced(text: &str, start: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let (open, close) = match bytes.get(start)? {
        b'(' => (b'(', b')'),
        b'[' => (b'[', b']'),
        b'{' => (b'{', b'}'),
        _ => return None,
    };
    if open == b'(' {
        return count_brackets(bytes, start, open, close, Quotes::Plain)
            .or_else(|| count_brackets(bytes, start, open, close, Quotes::Ignored));
    }
    count_brackets(bytes, start, open, close, Quotes::Json)
        .or_else(|| count_brackets(bytes, start, open, close, Quotes::Ignored))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    /// JSON strings: a backslash protects the next character.
    Json,
    /// Quoted words: no escape.
    Plain,
    /// Quotes are ordinary characters.
    Ignored,
}

fn count_brackets(bytes: &[u8], start: usize, open: u8, close: u8, quotes: Quotes) -> Option<usize> {
    let mut depth = 0usize;
    let mut in_quotes = false;
    let mut at = start;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        if byte == b'"' && quotes != Quotes::Ignored {
            in_quotes = !in_quotes;
        } else if in_quotes {
            if byte == b'\\' && quotes == Quotes::Json {
                at += 1;
            }
        } else if byte == open {
            depth += 1;
        } else if byte == close {
            depth -= 1;
            if depth == 0 {
                return Some(at);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        lex(text).unwrap().into_iter().map(|word| word.text).collect()
    }

    #[test]
    fn words_of_commands() {
        let cases: &[(&str, &[&str])] = &[
            ("", &[]),
            ("  \t\r\n", &[]),
            ("# only a comment", &[]),
            ("get status # now", &["get", "status"]),
            ("get status # now\n where", &["get", "status", "where"]),
            ("x=1", &["x", "=", "1"]),
            (
                "topic=(name=a and column.v=(value=b and type=int))",
                &["topic", "=", "(name=a and column.v=(value=b and type=int))"],
            ),
            (r#"["a b", "c"]"#, &[r#"["a b", "c"]"#]),
            (r#"{"k": !v}"#, &[r#"{"k": !v}"#]),
            ("a!=b", &["a", "!=", "b"]),
            ("if !a=b", &["if", "!a", "=", "b"]),
            ("0.0, 0.0", &["0.0,", "0.0"]),
            ("a==b", &["a", "==", "b"]),
            ("a<=b>=c<d>e", &["a", "<=", "b", ">=", "c", "<", "d", ">", "e"]),
            ("a -> b", &["a", "->", "b"]),
            ("a --> b", &["a", "--", ">", "b"]),
            ("mqtt4AnyLog!", &["mqtt4AnyLog!"]),
            ("user@host:mqtt4AnyLog!x", &["user@host:mqtt4AnyLog!x"]),
            (r#"print "a b" "" "!x""#, &["print", "a b", "", "!x"]),
            (r#""a"b"#, &["a", "b"]),
            (r#"a"b c"d"#, &["a\"b", "c\"d"]),
            ("'a b' `c d`", &["'a b'", "`c d`"]),
            ("it 'tis", &["it", "'tis"]),
            (r#"\"!x y\" z"#, &[r#"\"!x y\""#, "z"]),
            ("now() sort(1,0) f(a (b) c)d", &["now()", "sort(1,0)", "f(a (b) c)d"]),
            ("(a \")\" b) c", &["(a \")\" b)", "c"]),
            ("table[dbms]=x", &["table[dbms]", "=", "x"]),
            ("node_insight[Free Space Percent] = 5", &["node_insight[Free Space Percent]", "=", "5"]),
            ("x[] = y", &["x[]", "=", "y"]),
            ("x{} = y", &["x{}", "=", "y"]),
            ("a x{} = y", &["a", "x", "{}", "=", "y"]),
            ("[a][b]:[c][d] e", &["[a][b]:[c][d]", "e"]),
            ("bring [a] : [b]", &["bring", "[a]", ":", "[b]"]),
            (r#"p={"a": {"b": "}"}} z"#, &["p", "=", r#"{"a": {"b": "}"}}"#, "z"]),
            (r#"{"a": "\"}"} z"#, &[r#"{"a": "\"}"}"#, "z"]),
            ("{'it': 5\"} z", &["{'it': 5\"}", "z"]),
            ("!ip + : + !port", &["!ip", "+", ":", "+", "!port"]),
            ("a & b&c", &["a", "&", "b", "&", "c"]),
            ("C/sub/#", &["C/sub/#"]),
            ("name=\"#\" x", &["name", "=", "#", "x"]),
            ("set script\ra b # c", &["set", "script", "a b # c"]),
            ("größe=é", &["größe", "=", "é"]),
            ("} ] )", &["}", "]", ")"]),
        ];
        for (text, expected) in cases {
            assert_eq!(words(text), *expected, "{text}");
        }
    }

    #[test]
    fn what_is_open_is_named() {
        for (text, status, place) in [
            ("x = (a", Status::COMMAND_STRUCTURE, "(a"),
            ("x = f(a", Status::COMMAND_STRUCTURE, "(a"),
            ("x = {a", Status::MISSING_BRACKETS, "{a"),
            ("x = [a", Status::MISSING_BRACKETS, "[a"),
            ("x = t[a", Status::MISSING_BRACKETS, "[a"),
            ("x = \"a", Status::COMMAND_STRUCTURE, "\"a"),
        ] {
            let error = lex(text).unwrap_err();
            assert_eq!(error.status, status, "{text}");
            assert!(error.message.contains(place), "{error}");
        }
    }

    #[test]
    fn only_double_quotes_are_removed_and_remembered() {
        let words = lex(r#"a "b c" 'd'"#).unwrap();
        assert_eq!(words.iter().map(|word| word.quoted).collect::<Vec<_>>(), [false, true, false]);
        assert_eq!(words[1].span, 2..7);
        assert_eq!(words[2].span, 8..11);
    }

    #[test]
    fn joining_keeps_gaps() {
        for (text, joined) in
            [("a  b", "a b"), ("a=b", "a=b"), ("a = b", "a = b"), ("+1d", "+1d"), ("\"a b\"  c", "a b c"), ("", "")]
        {
            assert_eq!(join(&lex(text).unwrap()), joined);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics_and_spans_are_right(text in "\\PC{0,40}|[a!=<>()\\[\\]{}\"'`\\\\#&+\r\n -]{0,40}") {
            let Ok(words) = lex(&text) else { return Ok(()) };
            let mut end = 0;
            for word in &words {
                // spans ascend, lie inside the text and hold the word
                proptest::prop_assert!(word.span.start >= end && word.span.end <= text.len() && word.span.start < word.span.end);
                proptest::prop_assert!(text[word.span.clone()].contains(&word.text));
                end = word.span.end;
            }
            // between words are blanks and comments only
            let comments = text.contains('#');
            let mut end = 0;
            for word in &words {
                let gap = &text[end..word.span.start];
                proptest::prop_assert!(comments || gap.chars().all(|c| c.is_ascii_whitespace()), "{:?}", gap);
                end = word.span.end;
            }
        }

        #[test]
        fn the_source_of_a_word_is_that_word_again(text in "[a-z!=<>()\\[\\]{}\"' -]{0,30}") {
            let Ok(words) = lex(&text) else { return Ok(()) };
            if let Some(last) = words.last() {
                let again = lex(&text[words[0].span.start..last.span.end]).unwrap();
                let texts = |words: &[Word]| words.iter().map(|word| word.text.clone()).collect::<Vec<_>>();
                proptest::prop_assert_eq!(texts(&again), texts(&words));
            }
        }
    }
}
