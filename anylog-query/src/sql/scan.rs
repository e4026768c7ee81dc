//! Splits a statement into words, numbers, quoted texts and symbols, each with its place.
//!
//! The dialect has forms that no SQL parser reads (`value::float(2)`, `period(...)`, `now() - 3d`, `limit 5 per device`). They are
//! found among these tokens and taken out or replaced; what is left is plain SQL.

use crate::QueryError;

/// The longest statement in bytes.
pub(crate) const MAX_BYTES: usize = 256 * 1024;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Letters, digits, `_` and everything beyond ASCII.
    Word,
    /// Digits with a fraction or exponent.
    Number,
    /// `'...'` with `''` inside for one quote.
    Text,
    /// A name in double quotes.
    Quoted,
    /// One operator or bracket.
    Symbol,
}

/// A token and its place in the statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// What it is.
    pub(crate) kind: Kind,
    /// Words in lower case; quoted texts with their quotes; else as written.
    pub(crate) text: String,
    /// Where it begins, in bytes.
    pub(crate) start: usize,
    /// Where it ends.
    pub(crate) end: usize,
}

impl Token {
    /// A token that was not written by the user.
    pub(crate) fn made(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), start: 0, end: 0 }
    }

    /// True for this word, which must be given in lower case.
    pub(crate) fn is(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text == word
    }

    /// True for this symbol.
    pub(crate) fn symbol(&self, symbol: &str) -> bool {
        self.kind == Kind::Symbol && self.text == symbol
    }

    /// The content of a quoted text.
    pub(crate) fn unquoted(&self) -> Option<String> {
        (self.kind == Kind::Text).then(|| self.text[1..self.text.len() - 1].replace("''", "'"))
    }
}

const LONG_SYMBOLS: &[&str] = &["::", "<=", ">=", "<>", "!=", "||", "=="];

/// All tokens of a statement.
pub(crate) fn scan(text: &str) -> Result<Vec<Token>, QueryError> {
    if text.len() > MAX_BYTES {
        return Err(QueryError::syntax(format!("the statement is longer than {MAX_BYTES} bytes")));
    }
    let mut tokens: Vec<Token> = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        }
        let (kind, length) = next(&text[at..], c, tokens.last())?;
        let raw = &text[at..at + length];
        let shown = if kind == Kind::Word { raw.to_lowercase() } else { raw.to_owned() };
        tokens.push(Token { kind, text: shown, start: at, end: at + length });
        at += length;
    }
    Ok(tokens)
}

fn next(rest: &str, c: char, previous: Option<&Token>) -> Result<(Kind, usize), QueryError> {
    if is_word(c) && !c.is_ascii_digit() {
        return Ok((Kind::Word, length_while(rest, is_word)));
    }
    let after_name = previous.is_some_and(|token| matches!(token.kind, Kind::Word | Kind::Quoted));
    let fraction = c == '.' && !after_name && rest[1..].starts_with(|c: char| c.is_ascii_digit());
    if c.is_ascii_digit() || fraction {
        return Ok((Kind::Number, number_length(rest)));
    }
    match c {
        '\'' => Ok((Kind::Text, quoted_length(rest, '\'')?)),
        '"' => Ok((Kind::Quoted, quoted_length(rest, '"')?)),
        _ if rest.starts_with("--") || rest.starts_with("/*") => {
            Err(QueryError::unsupported("comments in a statement", "leave them out"))
        }
        _ => {
            let long = LONG_SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol));
            Ok((Kind::Symbol, long.map_or(c.len_utf8(), |symbol| symbol.len())))
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '@'
}

fn length_while(text: &str, keep: fn(char) -> bool) -> usize {
    text.find(|c: char| !keep(c)).unwrap_or(text.len())
}

fn number_length(text: &str) -> usize {
    let digits = |text: &str| length_while(text, |c| c.is_ascii_digit());
    let mut length = digits(text);
    if text[length..].starts_with('.') {
        length += 1 + digits(&text[length + 1..]);
    }
    let exponent = &text[length..];
    if exponent.starts_with(['e', 'E']) {
        let sign = usize::from(exponent[1..].starts_with(['+', '-']));
        let power = digits(&exponent[1 + sign..]);
        if power > 0 {
            length += 1 + sign + power;
        }
    }
    length
}

fn quoted_length(text: &str, quote: char) -> Result<usize, QueryError> {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == quote {
            if chars.peek().is_some_and(|(_, next)| *next == quote) {
                chars.next();
            } else {
                return Ok(at + 1);
            }
        }
    }
    let shown: String = text.chars().take(20).collect();
    Err(QueryError::syntax(format!("the quote that opens {shown} is not closed")))
}

/// Index of the bracket that closes the one at `open`.
pub(crate) fn closing(tokens: &[Token], open: usize) -> Result<usize, QueryError> {
    let mut depth = 0usize;
    for (index, token) in tokens.iter().enumerate().skip(open) {
        if token.symbol("(") {
            depth += 1;
        } else if token.symbol(")") {
            depth = depth.saturating_sub(1);
            if depth == 0 {
                return Ok(index);
            }
        }
    }
    Err(QueryError::syntax("a bracket '(' is not closed"))
}

/// Indexes of the tokens at bracket depth 0 that satisfy a condition.
pub(crate) fn at_top(tokens: &[Token], mut matches: impl FnMut(&Token) -> bool) -> Vec<usize> {
    let mut depth = 0usize;
    let mut found = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        if token.symbol("(") {
            depth += 1;
        } else if token.symbol(")") {
            depth = depth.saturating_sub(1);
        } else if depth == 0 && matches(token) {
            found.push(index);
        }
    }
    found
}

/// The parts between the top-level commas.
pub(crate) fn split_commas(tokens: &[Token]) -> Vec<&[Token]> {
    let mut parts = Vec::new();
    let mut start = 0;
    for comma in at_top(tokens, |token| token.symbol(",")) {
        parts.push(&tokens[start..comma]);
        start = comma + 1;
    }
    parts.push(&tokens[start..]);
    parts
}

/// The tokens as a text that a SQL parser reads.
pub(crate) fn join(tokens: &[Token]) -> String {
    tokens.iter().map(|token| token.text.as_str()).collect::<Vec<_>>().join(" ")
}

/// The tokens as a name for a column of the answer: `count(*)`, `avg(value)`.
pub(crate) fn title(tokens: &[Token]) -> String {
    let mut title = String::new();
    let mut touches = false;
    for token in tokens {
        let solid = token.kind != Kind::Symbol;
        if solid && touches {
            title.push(' ');
        }
        title.push_str(&token.text);
        touches = solid;
    }
    title
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(sql: &str) -> Vec<String> {
        scan(sql).unwrap().into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn splits_the_forms_of_the_dialect() {
        assert_eq!(texts("SELECT Value::float(2)"), ["select", "value", "::", "float", "(", "2", ")"]);
        assert_eq!(texts("ts >= now()-3d"), ["ts", ">=", "now", "(", ")", "-", "3", "d"]);
        assert_eq!(texts("a='It''s'"), ["a", "=", "'It''s'"]);
        assert_eq!(texts("1.5e3 .5 t.c 2e"), ["1.5e3", ".5", "t", ".", "c", "2", "e"]);
        assert!(scan("where a = 'x").is_err());
        assert!(scan("select 1 -- x").is_err());
    }

    #[test]
    fn names_columns_of_the_answer() {
        assert_eq!(title(&scan("COUNT ( * )").unwrap()), "count(*)");
        assert_eq!(title(&scan("case when a then 1 end").unwrap()), "case when a then 1 end");
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "\\PC*") {
            scan(&text).ok();
        }
    }
}
