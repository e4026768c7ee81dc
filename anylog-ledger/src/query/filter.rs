//! Which policies of its types a query takes.

use anylog_core::command::{Value, Word};
use anylog_core::language::condition::Condition;
use anylog_core::language::expand::{is_reference, value_of};
use anylog_core::language::lexer::{join, lex};
use anylog_core::{CommandError, Node, json_text};
use serde_json::Value as Json;

use crate::Policy;

/// The filter of a query.
#[derive(Debug)]
pub(super) enum Filter {
    /// No filter.
    All,
    /// `a = b and c with d`.
    Pairs(Vec<Pair>),
    /// `[a] contains b or not [c]`; its words are resolved already.
    Condition(Condition),
}

/// One comparison of an attribute.
#[derive(Debug)]
pub(super) struct Pair {
    path: Vec<String>,
    test: Test,
}

#[derive(Debug)]
enum Test {
    /// Equal to this value.
    Equals(Operand),
    /// Contains one of these values: an element of a list, a part of a text.
    ContainsOne(Vec<Value>),
    /// Equal to this JSON value.
    Json(Json),
}

#[derive(Debug)]
enum Operand {
    Value(Value),
    /// An attribute of the policy on the left of a join.
    Left(Vec<String>),
}

impl Filter {
    pub(super) fn parse(words: &[Word], node: &Node) -> Result<Self, CommandError> {
        match words {
            [] => return Err(CommandError::structure("Missing condition after 'where'")),
            [word] if !word.quoted && word.text.starts_with('{') => return Self::from_json(&word.text, node),
            [word] if is_reference(&word.text) => {
                let text = resolved(word, node)?.to_string();
                if text.trim_start().starts_with('{') {
                    return Self::from_json(&text, node);
                }
                return Self::parse(&lex(&text)?, node);
            }
            _ => {}
        }
        let words = match words.split_last() {
            Some((last, before)) if is_operator(last, &["and"]) && !before.is_empty() => before,
            _ => words,
        };
        let terms: Vec<&[Word]> = words.split(|word| !word.quoted && word.text == "and").collect();
        if terms.iter().all(|term| is_pair(term)) {
            let pairs: Result<Vec<Pair>, CommandError> = terms.iter().map(|term| pair(term, node)).collect();
            return Ok(Self::Pairs(pairs?));
        }
        // References are resolved once here, so that the condition needs only the policy.
        let mut resolved_words = Vec::with_capacity(words.len());
        for word in words {
            let mut word = word.clone();
            if is_reference(&word.text) {
                word.text = resolved(&word, node)?.to_string();
                word.quoted = true;
            }
            resolved_words.push(word);
        }
        Ok(Self::Condition(Condition::parse(&resolved_words)?))
    }

    fn from_json(text: &str, node: &Node) -> Result<Self, CommandError> {
        let Json::Object(object) = json_text::read(node, text)? else {
            return Err(CommandError::structure(format!("The filter '{text}' is not a JSON object")));
        };
        let pair = |(name, value): (String, Json)| Pair { path: vec![name], test: Test::Json(value) };
        Ok(Self::Pairs(object.into_iter().map(pair).collect()))
    }

    /// Whether there is no condition.
    pub(super) fn takes_all(&self) -> bool {
        matches!(self, Self::All)
    }

    /// Attributes, each with a value that every match has. `left` is the policy on the left of a join.
    pub(super) fn exact(&self, left: Option<&Policy>) -> Vec<(&str, String)> {
        let Self::Pairs(pairs) = self else { return Vec::new() };
        let exact = |pair: &'_ Pair| match &pair.test {
            Test::Equals(Operand::Value(wanted)) => Some(wanted.to_string()),
            Test::Equals(Operand::Left(path)) => match left.map(|left| values(left, path))?.as_slice() {
                [one] if !one.is_array() && !one.is_object() => Some(from_json(one).to_string()),
                _ => None,
            },
            Test::Json(wanted) if !wanted.is_array() && !wanted.is_object() => Some(from_json(wanted).to_string()),
            Test::Json(_) | Test::ContainsOne(_) => None,
        };
        let named = pairs.iter().filter_map(|pair| match pair.path.as_slice() {
            [attribute] => Some((attribute.as_str(), exact(pair)?)),
            _ => None,
        });
        named.collect()
    }

    pub(super) fn matches(&self, policy: &Policy, left: Option<&Policy>) -> bool {
        match self {
            Self::All => true,
            Self::Pairs(pairs) => pairs.iter().all(|pair| pair.matches(policy, left)),
            // A comparison that makes no sense for this policy, such as a number with a text, does not select it.
            Self::Condition(condition) => condition.evaluate(&|word| operand(policy, word)).unwrap_or(false),
        }
    }
}

fn is_operator(word: &Word, operators: &[&str]) -> bool {
    !word.quoted && operators.contains(&word.text.as_str())
}

/// `path = value` or `path with value`, and no other operator.
fn is_pair(words: &[Word]) -> bool {
    let equals = |word: &&Word| is_operator(word, &["=", "with"]);
    words.len() >= 3
        && words.iter().filter(equals).count() == 1
        && words.get(1).is_some_and(|word| equals(&word))
        && !words[0].text.starts_with('(')
        && !words.iter().any(|word| is_operator(word, &["==", "!=", "<", ">", "<=", ">=", "or", "contains"]))
}

fn pair(words: &[Word], node: &Node) -> Result<Pair, CommandError> {
    let [key, operator, value @ ..] = words else {
        return Err(CommandError::structure("A comparison needs a name, '=' and a value"));
    };
    let key_text = if is_reference(&key.text) { resolved(key, node)?.to_string() } else { key.text.clone() };
    let path = path(&key_text)?;
    let test = match (operator.text.as_str(), value) {
        ("with", [list]) if !list.quoted && list.text.starts_with('[') => Test::ContainsOne(elements(list, node)?),
        ("with", _) => Test::ContainsOne(vec![whole(value, node)?]),
        (_, [left]) if !left.quoted && left.text.starts_with('[') => {
            Test::Equals(Operand::Left(self::path(&left.text)?))
        }
        _ => Test::Equals(Operand::Value(whole(value, node)?)),
    };
    Ok(Pair { path, test })
}

/// A value of one or several words.
fn whole(words: &[Word], node: &Node) -> Result<Value, CommandError> {
    match words {
        [word] if word.quoted && !is_reference(&word.text) => Ok(Value::Text(word.text.clone())),
        [word] => match resolved(word, node)? {
            Value::Text(text) => Ok(Value::Text(unquoted(&text).to_owned())),
            typed => Ok(typed),
        },
        words => Ok(Value::Text(join(words))),
    }
}

fn elements(word: &Word, node: &Node) -> Result<Vec<Value>, CommandError> {
    let Json::Array(list) = json_text::read(node, &word.text)? else {
        return Err(CommandError::structure(format!("'{}' is not a list", word.text)));
    };
    Ok(list.iter().map(from_json).collect())
}

fn resolved(word: &Word, node: &Node) -> Result<Value, CommandError> {
    let value = value_of(node, word);
    if value.is_empty() && is_reference(&word.text) {
        return Err(CommandError::structure(format!("Missing dictionary definition for: '{}'", word.text)));
    }
    Ok(value)
}

fn unquoted(text: &str) -> &str {
    text.strip_prefix('\'').and_then(|inner| inner.strip_suffix('\'')).unwrap_or(text)
}

/// The steps of `a`, `a[b]`, `[a][b]`, with or without quotes inside the brackets.
fn path(text: &str) -> Result<Vec<String>, CommandError> {
    let wrong = || CommandError::structure(format!("'{text}' is not an attribute such as name, table[dbms] or [a][b]"));
    let (first, mut rest) = text.split_at(text.find('[').unwrap_or(text.len()));
    let mut path: Vec<String> = Vec::new();
    if !first.is_empty() {
        path.push(first.to_owned());
    }
    while let Some(inner) = rest.strip_prefix('[') {
        let (key, after) = inner.split_once(']').ok_or_else(wrong)?;
        path.push(key.trim().trim_matches(['"', '\'']).to_owned());
        rest = after;
    }
    if rest.is_empty() && !path.is_empty() && path.iter().all(|key| !key.is_empty()) { Ok(path) } else { Err(wrong()) }
}

/// All values at a path; a list of objects is looked through.
fn values<'a>(policy: &'a Policy, path: &'a [String]) -> Vec<&'a Json> {
    let inner = policy.inner();
    let steps = match path {
        // `[operator][name]` and `[*][name]` are paths from the root.
        [first, rest @ ..]
            if !rest.is_empty() && !inner.contains_key(first) && (first == policy.kind() || first == "*") =>
        {
            rest
        }
        all => all,
    };
    let Some((first, rest)) = steps.split_first() else { return Vec::new() };
    let mut found: Vec<&Json> = inner.get(first).into_iter().collect();
    for step in rest {
        found = found.into_iter().flat_map(|value| member(value, step)).collect();
    }
    found
}

fn member<'a>(value: &'a Json, step: &str) -> Vec<&'a Json> {
    match value {
        Json::Object(object) => object.get(step).into_iter().collect(),
        Json::Array(list) => match step.parse::<usize>() {
            Ok(index) => list.get(index).into_iter().collect(),
            Err(_) => list.iter().filter_map(|element| element.get(step)).collect(),
        },
        _ => Vec::new(),
    }
}

impl Pair {
    fn matches(&self, policy: &Policy, left: Option<&Policy>) -> bool {
        let values = values(policy, &self.path);
        match &self.test {
            Test::Equals(Operand::Value(wanted)) => values.iter().any(|value| equal(value, wanted)),
            Test::Equals(Operand::Left(path)) => {
                let wanted = left.map(|left| self::values(left, path)).unwrap_or_default();
                wanted.iter().any(|wanted| values.iter().any(|value| equal(value, &from_json(wanted))))
            }
            Test::ContainsOne(wanted) => wanted.iter().any(|wanted| values.iter().any(|value| contains(value, wanted))),
            Test::Json(wanted) => values.iter().any(|value| match wanted {
                Json::Array(_) | Json::Object(_) => *value == wanted,
                scalar => equal(value, &from_json(scalar)),
            }),
        }
    }
}

/// Whether a stored value is the wanted one, or a list that holds it.
fn equal(stored: &Json, wanted: &Value) -> bool {
    match stored {
        Json::String(text) => text == "*" || text.to_lowercase() == wanted.to_string().to_lowercase(),
        Json::Number(number) => match (number.as_i64(), integer(wanted)) {
            (Some(stored), Some(wanted)) => stored == wanted,
            _ => wanted.to_string().trim().parse::<f64>().is_ok_and(|wanted| number.as_f64() == Some(wanted)),
        },
        Json::Bool(stored) => wanted.to_string().eq_ignore_ascii_case(if *stored { "true" } else { "false" }),
        Json::Array(list) => list.iter().any(|element| !element.is_array() && equal(element, wanted)),
        Json::Null | Json::Object(_) => false,
    }
}

fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Int(value) => Some(*value),
        other => other.to_string().trim().parse().ok(),
    }
}

fn contains(stored: &Json, wanted: &Value) -> bool {
    match stored {
        Json::String(text) => text == "*" || text.to_lowercase().contains(&wanted.to_string().to_lowercase()),
        other => equal(other, wanted),
    }
}

fn from_json(value: &Json) -> Value {
    match value {
        Json::Null => Value::Text(String::new()),
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match number.as_i64() {
            Some(value) => Value::Int(value),
            None => number.as_f64().map_or_else(|| Value::Text(number.to_string()), Value::Float),
        },
        Json::String(text) => Value::Text(text.clone()),
        other => Value::Text(anylog_core::reply::json::text(other)),
    }
}

/// An operand of a condition: an attribute in brackets, or the word itself.
fn operand(policy: &Policy, word: &Word) -> Value {
    if word.quoted || !word.text.starts_with('[') {
        return Value::Text(word.text.clone());
    }
    match path(&word.text) {
        Ok(path) => values(policy, &path).first().map_or_else(|| Value::Text(String::new()), |value| from_json(value)),
        Err(_) => Value::Text(word.text.clone()),
    }
}
