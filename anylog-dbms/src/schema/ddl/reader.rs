//! Reading CREATE texts, ours and those that existing nodes publish.

use super::super::{Column, ColumnType, Index, TableSchema};
use super::bookkeeping;
use crate::DbmsError;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// A name or keyword without quotes, in lower case.
    Word(String),
    /// A name in quotes.
    Name(String),
    /// A text literal.
    Text(String),
    Symbol(char),
}

impl Token {
    fn is(&self, word: &str) -> bool {
        matches!(self, Token::Word(text) if text == word)
    }
}

fn wrong(reason: impl Into<String>) -> DbmsError {
    DbmsError::Declaration { reason: reason.into() }
}

/// Reads the CREATE text of a table policy: a CREATE TABLE and its CREATE INDEX statements. Column types of existing nodes are
/// understood (`timestamp not null default now()`, `char(8)`, `decimal`, `character varying(20)`). The four bookkeeping columns
/// come first in the result, whether and wherever the text has them; other constraints than NOT NULL and DEFAULT are ignored.
///
/// # Errors
/// [`DbmsError::Declaration`] naming what was not understood.
pub fn parse_create(text: &str) -> Result<TableSchema, DbmsError> {
    let tokens = tokens(text)?;
    let mut schema: Option<TableSchema> = None;
    for statement in tokens.split(|token| *token == Token::Symbol(';')).filter(|statement| !statement.is_empty()) {
        let words: Vec<&Token> = statement.iter().filter(|token| !is_noise(token)).collect();
        match words.as_slice() {
            [create, table, rest @ ..] if create.is("create") && table.is("table") && schema.is_none() => {
                schema = Some(read_table(rest)?);
            }
            [create, index, rest @ ..] if create.is("create") && index.is("index") => {
                let schema = schema.as_mut().ok_or_else(|| wrong("an index comes before the table"))?;
                schema.indexes.push(read_index(rest, schema)?);
            }
            _ => return Err(wrong(format!("not a CREATE TABLE or CREATE INDEX text: '{text}'"))),
        }
    }
    schema.ok_or_else(|| wrong(format!("not a CREATE TABLE text: '{text}'")))
}

/// Reads what follows a column's name: type, NOT NULL, DEFAULT.
pub(crate) fn parse_column(name: &str, type_text: &str) -> Result<Column, DbmsError> {
    let tokens = tokens(type_text)?;
    read_column(name, &tokens.iter().collect::<Vec<_>>())
}

fn is_noise(token: &Token) -> bool {
    token.is("unlogged") || token.is("temp") || token.is("temporary")
}

fn tokens(text: &str) -> Result<Vec<Token>, DbmsError> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(&c) = chars.peek() {
        match c {
            c if c.is_whitespace() => {
                chars.next();
            }
            '"' | '|' | '\'' | '`' => {
                chars.next();
                let mut inner = String::new();
                loop {
                    match chars.next() {
                        Some(next) if next == c => {
                            if chars.peek() != Some(&c) {
                                break;
                            }
                            chars.next();
                            inner.push(c);
                        }
                        Some(next) => inner.push(next),
                        None => return Err(wrong(format!("unclosed {c} in '{text}'"))),
                    }
                }
                tokens.push(if c == '\'' { Token::Text(inner) } else { Token::Name(inner) });
            }
            c if c.is_alphanumeric() || c == '_' || c == '.' || !c.is_ascii() => {
                let mut word = String::new();
                while let Some(&c) = chars.peek() {
                    if !(c.is_alphanumeric() || c == '_' || c == '.' || (!c.is_ascii() && !c.is_whitespace())) {
                        break;
                    }
                    word.extend(c.to_lowercase());
                    chars.next();
                }
                tokens.push(Token::Word(word));
            }
            c => {
                chars.next();
                tokens.push(Token::Symbol(c));
            }
        }
    }
    Ok(tokens)
}

fn skip_if_not_exists<'a, 'b>(tokens: &'b [&'a Token]) -> &'b [&'a Token] {
    match tokens {
        [a, b, c, rest @ ..] if a.is("if") && b.is("not") && c.is("exists") => rest,
        _ => tokens,
    }
}

fn name_of(token: &Token) -> Result<String, DbmsError> {
    match token {
        Token::Word(name) | Token::Name(name) if !name.is_empty() => Ok(name.clone()),
        other => Err(wrong(format!("expected a name, found {other:?}"))),
    }
}

/// The comma-separated items of a list in parentheses that is the whole of `tokens`.
fn items<'a, 'b>(tokens: &'b [&'a Token]) -> Result<Vec<&'b [&'a Token]>, DbmsError> {
    let inner = match tokens {
        [first, inner @ .., last] if **first == Token::Symbol('(') && **last == Token::Symbol(')') => inner,
        _ => return Err(wrong("expected a list in parentheses")),
    };
    let mut depth = 0_i32;
    let mut items = Vec::new();
    let mut start = 0;
    for (at, token) in inner.iter().enumerate() {
        match token {
            Token::Symbol('(') => depth += 1,
            Token::Symbol(')') => depth -= 1,
            Token::Symbol(',') if depth == 0 => {
                items.push(&inner[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        if depth < 0 {
            return Err(wrong("unbalanced parentheses"));
        }
    }
    if depth != 0 {
        return Err(wrong("unbalanced parentheses"));
    }
    items.push(&inner[start..]);
    Ok(items)
}

fn read_table(tokens: &[&Token]) -> Result<TableSchema, DbmsError> {
    let [name, list @ ..] = skip_if_not_exists(tokens) else {
        return Err(wrong("the table has no name"));
    };
    let name = name_of(name)?;
    let mut columns: Vec<Column> = Vec::new();
    for item in items(list)? {
        let [first, rest @ ..] = item else { continue };
        let constraint = ["primary", "unique", "constraint", "foreign", "check"];
        if constraint.iter().any(|word| first.is(word)) && !rest.is_empty() && ColumnType::parse(&words(rest)).is_none()
        {
            continue;
        }
        let column = read_column(&name_of(first)?, rest)?;
        if columns.iter().any(|known| known.name == column.name) {
            return Err(wrong(format!("table '{name}' has the column '{}' twice", column.name)));
        }
        columns.push(column);
    }
    let mut ordered = bookkeeping();
    for column in &mut ordered {
        if let Some(place) = columns.iter().position(|given| given.name == column.name) {
            let given = columns.remove(place);
            if column.kind != ColumnType::Serial {
                *column = given;
            }
        }
    }
    ordered.append(&mut columns);
    Ok(TableSchema { name, columns: ordered, indexes: Vec::new() })
}

fn words(tokens: &[&Token]) -> String {
    let text = |token: &&Token| match token {
        Token::Word(text) | Token::Name(text) | Token::Text(text) => text.clone(),
        Token::Symbol(symbol) => symbol.to_string(),
    };
    tokens.iter().map(text).collect::<Vec<_>>().join(" ")
}

const AFTER_TYPE: &[&str] = &[
    "not",
    "null",
    "default",
    "primary",
    "unique",
    "check",
    "references",
    "constraint",
    "collate",
    "autoincrement",
    "generated",
];

fn read_column(name: &str, tokens: &[&Token]) -> Result<Column, DbmsError> {
    let is_after_type = |token: &&&Token| AFTER_TYPE.iter().any(|word| token.is(word));
    let type_length = tokens.iter().take_while(|token| !is_after_type(token)).count();
    let (type_tokens, rest) = tokens.split_at(type_length);
    let type_text = words(type_tokens);
    let mut kind = ColumnType::parse(&type_text)
        .ok_or_else(|| wrong(format!("column '{name}': '{type_text}' is not a known type")))?;
    let pair = |one: &str, two: &str| rest.windows(2).any(|window| window[0].is(one) && window[1].is(two));
    let counted = rest.iter().any(|token| token.is("autoincrement")) || name == "row_id";
    if pair("primary", "key") && counted && matches!(kind, ColumnType::Int | ColumnType::BigInt) {
        kind = ColumnType::Serial;
    }
    let not_null = pair("not", "null");
    let default = match rest.iter().position(|token| token.is("default")) {
        Some(at) => read_default(name, kind, &rest[at + 1..])?,
        None => None,
    };
    Ok(Column { name: name.to_owned(), kind, not_null, default })
}

/// The default as a literal or `now()`; `null` is no default.
fn read_default(name: &str, kind: ColumnType, tokens: &[&Token]) -> Result<Option<String>, DbmsError> {
    let is_time = matches!(kind, ColumnType::Timestamp | ColumnType::Date | ColumnType::Time);
    let now = |token: &&Token| match token {
        Token::Word(word) => {
            matches!(word.as_str(), "now" | "current_timestamp" | "current_date" | "current_time" | "localtimestamp")
        }
        Token::Text(text) => text == "now",
        _ => false,
    };
    if is_time && tokens.iter().any(now) {
        return Ok(Some("now()".to_owned()));
    }
    let opened = tokens.iter().take_while(|token| ***token == Token::Symbol('(')).count();
    let number = |word: &str| word.parse::<f64>().is_ok() && word.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let numeric = matches!(kind, ColumnType::Int | ColumnType::BigInt | ColumnType::Double | ColumnType::Decimal);
    match &tokens[opened..] {
        // PostgreSQL shows `'-5'::bigint`.
        [Token::Text(text), ..] if numeric && text.parse::<f64>().is_ok() => Ok(Some(text.clone())),
        [Token::Text(text), ..] => Ok(Some(format!("'{}'", text.replace('\'', "''")))),
        [Token::Word(word), ..] if word == "null" => Ok(None),
        [Token::Word(word), ..] if word == "true" || word == "false" => Ok(Some(word.clone())),
        [Token::Word(word), ..] if number(word) => Ok(Some(word.clone())),
        [Token::Symbol('-'), Token::Word(word), ..] if number(word) => Ok(Some(format!("-{word}"))),
        [Token::Word(word), ..] if word == "nextval" => Ok(None),
        other => Err(wrong(format!("column '{name}': the default '{}' is neither a literal nor now()", words(other)))),
    }
}

fn read_index(tokens: &[&Token], schema: &TableSchema) -> Result<Index, DbmsError> {
    match skip_if_not_exists(tokens) {
        [name, on, table, list @ ..] if on.is("on") => {
            let table = name_of(table)?;
            if table != schema.name {
                return Err(wrong(format!("an index on '{table}' stands in the text of table '{}'", schema.name)));
            }
            let name = name_of(name)?;
            let suffix = name.strip_prefix(&table).and_then(|rest| rest.strip_prefix('_'));
            let suffix = suffix.filter(|suffix| !suffix.is_empty()).unwrap_or(&name).to_owned();
            let columns = items(list)?
                .into_iter()
                .map(|item| item.first().map_or_else(|| Err(wrong("an index without columns")), |token| name_of(token)))
                .collect::<Result<Vec<String>, _>>()?;
            if let Some(unknown) = columns.iter().find(|column| schema.column(column).is_none()) {
                return Err(wrong(format!("an index names the column '{unknown}', which the table does not have")));
            }
            Ok(Index { suffix, columns })
        }
        _ => Err(wrong(format!("not a CREATE INDEX text: '{}'", words(tokens)))),
    }
}
