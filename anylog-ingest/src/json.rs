//! JSON texts taken apart without changing a value.
//!
//! A value that passes through a node must arrive as it was sent: a number of 17 digits, a 64-bit integer, `1.10`. So a message
//! is not turned into numbers and back: each value keeps the slice of text that it was, and rows are put together from slices.

use std::borrow::Cow;

/// Deeper nesting is refused, so that no message can exhaust the stack.
const MAX_DEPTH: usize = 64;

/// A text that is not JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at line {line} column {column}")]
pub(crate) struct SyntaxError {
    /// Line, from 1.
    pub(crate) line: usize,
    /// Column in characters, from 1.
    pub(crate) column: usize,
    /// What was expected.
    pub(crate) reason: &'static str,
}

/// A value of a document, with the text that it was.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node<'a> {
    /// The text of the value, as sent.
    pub(crate) raw: &'a str,
    /// What it is.
    pub(crate) kind: Kind<'a>,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool,
    /// A number; its text is the node's.
    Number,
    /// A text without its escapes.
    Text(Cow<'a, str>),
    /// A list.
    List(Vec<Node<'a>>),
    /// An object, in the order sent.
    Object(Vec<(Cow<'a, str>, Node<'a>)>),
}

impl<'a> Node<'a> {
    /// The attribute of an object; the last one when a key is repeated.
    pub(crate) fn get(&self, key: &str) -> Option<&Node<'a>> {
        match &self.kind {
            Kind::Object(entries) => entries.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The value as a person writes it: a text without quotes, anything else as sent.
    pub(crate) fn plain(&self) -> Cow<'_, str> {
        match &self.kind {
            Kind::Text(text) => Cow::Borrowed(text),
            _ => one_line(self.raw),
        }
    }
}

/// Reads one document.
pub(crate) fn parse(text: &str) -> Result<Node<'_>, SyntaxError> {
    let mut reader = Reader::new(text);
    reader.skip_blank();
    let node = reader.value(0)?;
    reader.skip_blank();
    if reader.at_end() { Ok(node) } else { Err(reader.error("unexpected text after the document")) }
}

/// A JSON text on one line: line ends between its tokens become blanks.
pub(crate) fn one_line(raw: &str) -> Cow<'_, str> {
    // A line end inside a text is always escaped, so any that is there lies between tokens.
    if raw.bytes().any(|b| b == b'\n' || b == b'\r') {
        Cow::Owned(raw.replace(['\n', '\r'], " "))
    } else {
        Cow::Borrowed(raw)
    }
}

/// Appends `text` as a JSON text in quotes.
pub(crate) fn push_quoted(out: &mut String, text: &str) {
    out.push('"');
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..0x20 => "",
            _ => continue,
        };
        out.push_str(&text[plain..at]);
        plain = at + 1;
        if escape.is_empty() {
            out.push_str(&format!("\\u{byte:04x}"));
        } else {
            out.push_str(escape);
        }
    }
    out.push_str(&text[plain..]);
    out.push('"');
}

/// Reads values one after the other.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    /// At the beginning of `text`.
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The next byte.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Whether all was read.
    pub(crate) fn at_end(&self) -> bool {
        self.at >= self.text.len()
    }

    /// Skips blanks and line ends.
    pub(crate) fn skip_blank(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Skips this byte when it is next.
    pub(crate) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// An error at this position.
    pub(crate) fn error(&self, reason: &'static str) -> SyntaxError {
        let before = self.text.get(..self.at).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        SyntaxError {
            line: before.bytes().filter(|b| *b == b'\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            reason,
        }
    }

    /// Reads the next value whole.
    pub(crate) fn value(&mut self, depth: usize) -> Result<Node<'a>, SyntaxError> {
        let start = self.at;
        let kind = match self.peek() {
            Some(b'{') => self.object(depth)?,
            Some(b'[') => self.list(depth)?,
            Some(b'"') => Kind::Text(self.text_value()?),
            Some(b'-' | b'0'..=b'9') => {
                self.number()?;
                Kind::Number
            }
            _ => self.word()?,
        };
        Ok(Node { raw: &self.text[start..self.at], kind })
    }

    /// Checks the next value without keeping it, and returns its text.
    pub(crate) fn skip(&mut self, depth: usize) -> Result<&'a str, SyntaxError> {
        let start = self.at;
        match self.peek() {
            Some(b'{') => self.entries(depth, |_, reader, depth| reader.skip(depth).map(|_| ()))?,
            Some(b'[') => self.elements(depth, |reader, depth| reader.skip(depth).map(|_| ()))?,
            Some(b'"') => drop(self.text_value()?),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            _ => drop(self.word()?),
        }
        Ok(&self.text[start..self.at])
    }

    fn object(&mut self, depth: usize) -> Result<Kind<'a>, SyntaxError> {
        let mut entries = Vec::new();
        self.entries(depth, |key, reader, depth| {
            entries.push((key, reader.value(depth)?));
            Ok(())
        })?;
        Ok(Kind::Object(entries))
    }

    fn list(&mut self, depth: usize) -> Result<Kind<'a>, SyntaxError> {
        let mut elements = Vec::new();
        self.elements(depth, |reader, depth| {
            elements.push(reader.value(depth)?);
            Ok(())
        })?;
        Ok(Kind::List(elements))
    }

    fn entries(
        &mut self,
        depth: usize,
        mut entry: impl FnMut(Cow<'a, str>, &mut Self, usize) -> Result<(), SyntaxError>,
    ) -> Result<(), SyntaxError> {
        self.sequence(depth, b'}', "expected ',' or '}'", |reader, depth| {
            if reader.peek() != Some(b'"') {
                return Err(reader.error("expected an attribute name in double quotes"));
            }
            let key = reader.text_value()?;
            reader.skip_blank();
            if !reader.take(b':') {
                return Err(reader.error("expected ':'"));
            }
            reader.skip_blank();
            entry(key, reader, depth)
        })
    }

    /// Reads the elements of a list; the reader stands at its `[`.
    pub(crate) fn elements(
        &mut self,
        depth: usize,
        element: impl FnMut(&mut Self, usize) -> Result<(), SyntaxError>,
    ) -> Result<(), SyntaxError> {
        self.sequence(depth, b']', "expected ',' or ']'", element)
    }

    fn sequence(
        &mut self,
        depth: usize,
        end: u8,
        expected: &'static str,
        mut item: impl FnMut(&mut Self, usize) -> Result<(), SyntaxError>,
    ) -> Result<(), SyntaxError> {
        if depth >= MAX_DEPTH {
            return Err(self.error("nested too deeply"));
        }
        self.at += 1;
        self.skip_blank();
        if self.take(end) {
            return Ok(());
        }
        loop {
            item(self, depth + 1)?;
            self.skip_blank();
            if self.take(end) {
                return Ok(());
            }
            if !self.take(b',') {
                return Err(self.error(expected));
            }
            self.skip_blank();
        }
    }

    fn word(&mut self) -> Result<Kind<'a>, SyntaxError> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        for (word, kind) in [("true", Kind::Bool), ("false", Kind::Bool), ("null", Kind::Null)] {
            if rest.starts_with(word) {
                self.at += word.len();
                return Ok(kind);
            }
        }
        Err(self.error("expected a JSON value"))
    }

    fn digits(&mut self) -> Result<(), SyntaxError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err(self.error("expected a digit")) } else { Ok(()) }
    }

    fn number(&mut self) -> Result<(), SyntaxError> {
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        } else if matches!(self.peek(), Some(b'0'..=b'9')) {
            return Err(self.error("a number must not begin with 0"));
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if !self.take(b'+') {
                self.take(b'-');
            }
            self.digits()?;
        }
        Ok(())
    }

    fn text_value(&mut self) -> Result<Cow<'a, str>, SyntaxError> {
        self.at += 1;
        let start = self.at;
        let mut decoded: Option<String> = None;
        let mut plain = start;
        loop {
            match self.peek() {
                Some(b'"') => {
                    let tail = &self.text[plain..self.at];
                    self.at += 1;
                    return Ok(match decoded {
                        None => Cow::Borrowed(tail),
                        Some(mut text) => {
                            text.push_str(tail);
                            Cow::Owned(text)
                        }
                    });
                }
                Some(b'\\') => {
                    let text = decoded.get_or_insert_with(String::new);
                    text.push_str(&self.text[plain..self.at]);
                    self.at += 1;
                    let c = self.escape()?;
                    text.push(c);
                    plain = self.at;
                }
                Some(0..0x20) => return Err(self.error("a control character in a text must be escaped")),
                Some(_) => self.at += 1,
                None => return Err(self.error("a text without its closing quote")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, SyntaxError> {
        let Some(byte) = self.peek() else { return Err(self.error("a text without its closing quote")) };
        let c = match byte {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                self.at += 1;
                return self.unicode();
            }
            _ => return Err(self.error("unknown escape")),
        };
        self.at += 1;
        Ok(c)
    }

    fn unicode(&mut self) -> Result<char, SyntaxError> {
        let first = self.hex()?;
        let code = if (0xd800..0xdc00).contains(&first) {
            if !(self.take(b'\\') && self.take(b'u')) {
                return Err(self.error("half of a surrogate pair"));
            }
            let second = self.hex()?;
            if !(0xdc00..0xe000).contains(&second) {
                return Err(self.error("half of a surrogate pair"));
            }
            0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)
        } else {
            first
        };
        char::from_u32(code).ok_or_else(|| self.error("half of a surrogate pair"))
    }

    fn hex(&mut self) -> Result<u32, SyntaxError> {
        let digits = self.text.get(self.at..self.at + 4).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let code = code.ok_or_else(|| self.error("expected four hexadecimal digits"))?;
        self.at += 4;
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_keep_their_text() {
        let text = r#"{"a": 12345678901234567890123, "b" : [1.10, "x\u00e9\n", null], "c": {"d": -0.5e+7}}"#;
        let node = parse(text).unwrap();
        assert_eq!(node.get("a").unwrap().raw, "12345678901234567890123");
        let Kind::List(b) = &node.get("b").unwrap().kind else { panic!("a list") };
        assert_eq!(b[0].raw, "1.10");
        assert_eq!(b[1].plain(), "xé\n");
        assert_eq!(node.get("c").unwrap().raw, r#"{"d": -0.5e+7}"#);
    }

    #[test]
    fn errors_have_a_position() {
        for (text, line, column) in
            [("", 1, 1), ("{\"a\": 1,\n  b: 2}", 2, 3), ("[1 2]", 1, 4), ("{\"a\": 01}", 1, 8), ("1 x", 1, 3)]
        {
            let error = parse(text).unwrap_err();
            assert_eq!((error.line, error.column), (line, column), "{text}: {error}");
        }
    }

    #[test]
    fn deep_nesting_is_an_error() {
        let text = "[".repeat(100_000);
        assert_eq!(parse(&text).unwrap_err().reason, "nested too deeply");
    }

    proptest! {
        #[test]
        fn never_panics(text in ".*") {
            drop(parse(&text));
        }

        #[test]
        fn agrees_with_another_reader(text in r#"[\[\]{}",:0-9a-z\\ .eu+-]{0,40}"#) {
            let other = serde_json::from_str::<&serde_json::value::RawValue>(&text);
            prop_assert_eq!(parse(&text).is_ok(), other.is_ok(), "{}", text);
        }

        #[test]
        fn quoting_round_trips(text in any::<String>()) {
            let mut quoted = String::new();
            push_quoted(&mut quoted, &text);
            let node = parse(&quoted).unwrap();
            prop_assert_eq!(node.plain(), text);
        }
    }
}
