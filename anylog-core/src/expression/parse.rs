//! Reads an expression and evaluates it on the way.

use std::cmp::Ordering;

use jiff::tz::TimeZone;

use super::call::{self, Arguments};
use super::value::{Outcome, Value, arithmetic, equal, list, order, unfit};
use super::{ExpressionError, MAX_DEPTH, MAX_LENGTH};
use crate::Node;
use crate::language::expand;

pub(super) fn evaluate(node: &Node, text: &str) -> Outcome {
    if text.len() > MAX_LENGTH {
        return Err(ExpressionError::TooLarge { what: "expression" });
    }
    let mut reader = Reader { node, text, at: 0, depth: 0, skipping: false };
    let value = reader.expression()?;
    match reader.peek() {
        None => Ok(value),
        Some(c) => Err(reader.wrong(format!("'{c}' was not expected"))),
    }
}

struct Reader<'a> {
    node: &'a Node,
    text: &'a str,
    at: usize,
    depth: usize,
    // Set while the side of an `and`, `or` or `if` is read that does not count.
    skipping: bool,
}

const OPERATORS: &[&str] = &["**", "//", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "<", ">"];

impl<'a> Reader<'a> {
    fn wrong(&self, problem: impl Into<String>) -> ExpressionError {
        ExpressionError::Syntax { problem: problem.into(), at: self.at }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// The next character after blanks; nothing at the end or at a comment.
    fn peek(&mut self) -> Option<char> {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
        self.rest().chars().next().filter(|c| *c != '#')
    }

    fn take(&mut self, symbol: char) -> bool {
        let found = self.peek() == Some(symbol);
        if found {
            self.at += symbol.len_utf8();
        }
        found
    }

    fn expect(&mut self, symbol: char) -> Result<(), ExpressionError> {
        if self.take(symbol) {
            return Ok(());
        }
        Err(self.wrong(format!("Missing '{symbol}'")))
    }

    fn operator(&mut self, among: &[&'static str]) -> Option<&'static str> {
        self.peek()?;
        let found = OPERATORS.iter().find(|operator| self.rest().starts_with(**operator))?;
        let found = among.iter().find(|operator| *operator == found)?;
        self.at += found.len();
        Some(found)
    }

    /// A name that comes next, without taking it.
    fn name(&mut self) -> &'a str {
        self.peek();
        let rest = self.rest();
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        let end = rest.find(|c: char| !is_name(c)).unwrap_or(rest.len());
        if rest.starts_with(|c: char| c.is_ascii_digit()) { "" } else { &rest[..end] }
    }

    fn keyword(&mut self, word: &str) -> bool {
        let found = self.name() == word;
        if found {
            self.at += word.len();
        }
        found
    }

    /// Reads something whose value does not count, so its faults do not either.
    fn skipped(&mut self, skip: bool, read: impl FnOnce(&mut Self) -> Outcome) -> Outcome {
        let before = self.skipping;
        self.skipping |= skip;
        let value = read(self);
        self.skipping = before;
        value
    }

    /// The value of a step, or nothing of it while it does not count.
    fn counted(&self, value: impl FnOnce() -> Outcome) -> Outcome {
        if self.skipping { Ok(Value::None) } else { value() }
    }

    fn expression(&mut self) -> Outcome {
        if self.depth >= MAX_DEPTH {
            return Err(ExpressionError::TooLarge { what: "depth of the expression" });
        }
        self.depth += 1;
        let value = self.choice();
        self.depth -= 1;
        value
    }

    /// `a if c else b`. The value before `if` is read first, so it must be sound in itself.
    fn choice(&mut self) -> Outcome {
        let value = self.either()?;
        if !self.keyword("if") {
            return Ok(value);
        }
        let condition = self.either()?.is_true();
        if !self.keyword("else") {
            return Err(self.wrong("Missing 'else'"));
        }
        let other = self.skipped(condition, Self::expression)?;
        Ok(if condition { value } else { other })
    }

    fn either(&mut self) -> Outcome {
        let mut value = self.both()?;
        while self.keyword("or") {
            let decided = value.is_true();
            let other = self.skipped(decided, Self::both)?;
            value = if decided { value } else { other };
        }
        Ok(value)
    }

    fn both(&mut self) -> Outcome {
        let mut value = self.negation()?;
        while self.keyword("and") {
            let decided = !value.is_true();
            let other = self.skipped(decided, Self::negation)?;
            value = if decided { value } else { other };
        }
        Ok(value)
    }

    fn negation(&mut self) -> Outcome {
        let mut negated = None;
        while self.keyword("not") {
            negated = Some(!negated.unwrap_or(false));
        }
        let value = self.comparison()?;
        Ok(match negated {
            Some(negated) => Value::Bool(value.is_true() != negated),
            None => value,
        })
    }

    fn comparison(&mut self) -> Outcome {
        let mut left = self.sum()?;
        let mut result = None;
        loop {
            let start = self.at;
            let operator = match self.operator(&["==", "!=", "<=", ">=", "<", ">"]) {
                Some(operator) => operator,
                None if self.keyword("in") => "in",
                None if self.keyword("not") => {
                    if !self.keyword("in") {
                        self.at = start;
                        break;
                    }
                    "not in"
                }
                None => break,
            };
            let right = self.sum()?;
            let holds = if self.skipping { false } else { compare(operator, &left, &right)? };
            result = Some(result.unwrap_or(true) && holds);
            left = right;
        }
        Ok(result.map_or(left, Value::Bool))
    }

    fn sum(&mut self) -> Outcome {
        let mut value = self.product()?;
        while let Some(operator) = self.operator(&["+", "-"]) {
            let right = self.product()?;
            value = self.counted(|| arithmetic(operator, value, right))?;
        }
        Ok(value)
    }

    fn product(&mut self) -> Outcome {
        let mut value = self.signed()?;
        while let Some(operator) = self.operator(&["*", "//", "/", "%"]) {
            let right = self.signed()?;
            value = self.counted(|| arithmetic(operator, value, right))?;
        }
        Ok(value)
    }

    fn signed(&mut self) -> Outcome {
        let mut negative = false;
        let mut signs = false;
        while let Some(operator) = self.operator(&["+", "-"]) {
            negative ^= operator == "-";
            signs = true;
        }
        let value = self.power()?;
        if !signs {
            return Ok(value);
        }
        self.counted(|| arithmetic(if negative { "-" } else { "+" }, Value::Int(0), value))
    }

    fn power(&mut self) -> Outcome {
        let value = self.postfix()?;
        if self.operator(&["**"]).is_none() {
            return Ok(value);
        }
        if self.depth >= MAX_DEPTH {
            return Err(ExpressionError::TooLarge { what: "depth of the expression" });
        }
        self.depth += 1;
        let exponent = self.signed();
        self.depth -= 1;
        let exponent = exponent?;
        self.counted(|| arithmetic("**", value, exponent))
    }

    /// A value followed by `[i]`, `[i:j]`, `.method(...)`, `.attribute`.
    fn postfix(&mut self) -> Outcome {
        let mut value = self.atom()?;
        loop {
            if self.take('[') {
                value = self.index(value)?;
            } else if self.rest().starts_with('.') {
                self.at += 1;
                let name = self.name();
                if name.is_empty() {
                    return Err(self.wrong("Missing a name after '.'"));
                }
                self.at += name.len();
                value = if self.take('(') {
                    let arguments = self.arguments()?;
                    let node = self.node;
                    self.counted(|| call::method(node, &value, name, &arguments))?
                } else {
                    self.counted(|| call::attribute(&value, name))?
                };
            } else {
                return Ok(value);
            }
        }
    }

    fn index(&mut self, value: Value) -> Outcome {
        let bound = |reader: &mut Self| -> Result<Option<Value>, ExpressionError> {
            match reader.peek() {
                Some(':' | ']') => Ok(None),
                _ => reader.expression().map(Some),
            }
        };
        let from = bound(self)?;
        if self.take(':') {
            let to = bound(self)?;
            self.expect(']')?;
            return self.counted(|| call::slice(&value, from.as_ref(), to.as_ref()));
        }
        self.expect(']')?;
        let from = from.ok_or_else(|| self.wrong("Missing a number between '[' and ']'"))?;
        self.counted(|| call::element(&value, &from))
    }

    fn atom(&mut self) -> Outcome {
        match self.peek() {
            None => Err(self.wrong("The expression ends too early")),
            Some('(') => {
                self.at += 1;
                let value = self.expression()?;
                self.expect(')')?;
                Ok(value)
            }
            Some('[') => {
                self.at += 1;
                let mut elements = Vec::new();
                while !self.take(']') {
                    elements.push(self.expression()?);
                    if !self.take(',') {
                        self.expect(']')?;
                        break;
                    }
                }
                list(elements)
            }
            Some(quote @ ('"' | '\'')) => self.quoted(quote).map(Value::Text),
            Some('!' | '$') => self.reference(),
            Some(c) if c.is_ascii_digit() || c == '.' => self.number(),
            Some(c) => {
                let name = self.name();
                if name.is_empty() {
                    return Err(self.wrong(format!("'{c}' was not expected")));
                }
                let start = self.at;
                self.at += name.len();
                self.named(name, start)
            }
        }
    }

    fn named(&mut self, name: &'a str, start: usize) -> Outcome {
        match name {
            "True" | "true" => return Ok(Value::Bool(true)),
            "False" | "false" => return Ok(Value::Bool(false)),
            "None" => return Ok(Value::None),
            "datetime" => return Ok(Value::Module("datetime")),
            "timedelta" => {
                self.expect('(')?;
                let arguments = self.arguments()?;
                return call::span(&arguments);
            }
            _ => {}
        }
        if self.take('(') {
            let arguments = self.arguments()?;
            return self.counted(|| call::function(name, &arguments));
        }
        self.at = start;
        Err(self.wrong(format!("Unknown name '{name}'; a text needs quotes, a parameter a '!'")))
    }

    fn arguments(&mut self) -> Result<Arguments<'a>, ExpressionError> {
        let mut arguments = Arguments::default();
        while !self.take(')') {
            let start = self.at;
            let name = self.name();
            self.at += name.len();
            if !name.is_empty() && self.peek() == Some('=') && !self.rest().starts_with("==") {
                self.at += 1;
                arguments.named.push((name, self.expression()?));
            } else {
                self.at = start;
                arguments.values.push(self.expression()?);
            }
            if !self.take(',') {
                self.expect(')')?;
                break;
            }
        }
        Ok(arguments)
    }

    fn quoted(&mut self, quote: char) -> Result<String, ExpressionError> {
        let mut out = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                c if c == quote => {
                    self.at += at + 1;
                    return Ok(out);
                }
                '\\' => match chars.next() {
                    Some((_, 'n')) => out.push('\n'),
                    Some((_, 't')) => out.push('\t'),
                    Some((_, 'r')) => out.push('\r'),
                    Some((_, c @ ('\\' | '\'' | '"'))) => out.push(c),
                    Some((_, c)) => out.extend(['\\', c]),
                    None => break,
                },
                c => out.push(c),
            }
        }
        Err(self.wrong(format!("Missing closing {quote}")))
    }

    fn number(&mut self) -> Outcome {
        let rest = self.rest();
        let bytes = rest.as_bytes();
        let mut end = 0;
        while let Some(byte) = bytes.get(end) {
            let exponent_sign = matches!(byte, b'+' | b'-') && end > 0 && matches!(bytes[end - 1], b'e' | b'E');
            if !(byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_') || exponent_sign) {
                break;
            }
            end += 1;
        }
        let digits = rest[..end].replace('_', "");
        let value = match digits.parse() {
            Ok(value) => Value::Int(value),
            Err(_) => match digits.parse::<f64>() {
                Ok(value) => Value::Float(value),
                Err(_) => return Err(self.wrong(format!("'{}' is not a number", &rest[..end]))),
            },
        };
        self.at += end;
        Ok(value)
    }

    /// `!name`, with `.int`, `.float`, `.bool`, `.str`, `.name` or `.len` unless that is a method.
    fn reference(&mut self) -> Outcome {
        const SUFFIXES: &[&str] = &["int", "float", "bool", "str", "name", "len"];
        let start = self.at;
        self.at += 1;
        let name = self.name();
        if name.is_empty() && !self.rest().starts_with(|c: char| c.is_ascii_digit()) {
            return Err(self.wrong("Missing a name after '!'"));
        }
        let end = self.rest().find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(self.rest().len());
        self.at += end;
        if self.rest().starts_with('.') {
            let before = self.at;
            self.at += 1;
            let suffix = self.name();
            let after = self.text.get(self.at + suffix.len()..).unwrap_or_default();
            self.at = before;
            if SUFFIXES.contains(&suffix) && !after.starts_with('(') {
                self.at += 1 + suffix.len();
            }
        }
        let word = &self.text[start..self.at];
        if self.skipping {
            return Ok(Value::None);
        }
        match expand::reference(self.node, word) {
            Some(crate::command::Value::Text(text)) => Ok(Value::Text(text.replace(['\r', '\n'], " "))),
            Some(crate::command::Value::Int(value)) => Ok(Value::Int(value)),
            Some(crate::command::Value::Float(value)) => Ok(Value::Float(value)),
            Some(crate::command::Value::Bool(value)) => Ok(Value::Bool(value)),
            None => Err(ExpressionError::Unset { name: word.to_owned() }),
        }
    }
}

fn compare(operator: &str, left: &Value, right: &Value) -> Result<bool, ExpressionError> {
    let contains = || match (right, left) {
        (Value::Text(text), Value::Text(part)) => Ok(text.contains(part.as_str())),
        (Value::List(elements), value) => Ok(elements.iter().any(|element| equal(element, value))),
        _ => Err(unfit(format!("'in' does not work on {} and {}", left.kind(), right.kind()))),
    };
    let ordered = || {
        order(left, right)
            .ok_or_else(|| unfit(format!("'{operator}' does not work on {} and {}", left.kind(), right.kind())))
    };
    match operator {
        "==" => Ok(equal(left, right)),
        "!=" => Ok(!equal(left, right)),
        "in" => contains(),
        "not in" => contains().map(|found| !found),
        "<" => ordered().map(Ordering::is_lt),
        "<=" => ordered().map(Ordering::is_le),
        ">" => ordered().map(Ordering::is_gt),
        _ => ordered().map(Ordering::is_ge),
    }
}

/// The time zone of `now()`.
pub(super) fn zone(node: &Node, utc: bool) -> TimeZone {
    if utc { TimeZone::UTC } else { node.time_zone() }
}
