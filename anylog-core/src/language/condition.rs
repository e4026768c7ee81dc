//! Conditions: `!a == 5 and not !b`.
//!
//! ```text
//! condition := group { ("and" | "or") group }
//! group     := test | ["not"] "(" condition ")"
//! test      := value | "not" value | value operator value
//! operator  := == != < <= > >= contains includes startswith endswith childfrom
//! ```
//!
//! A condition is evaluated strictly from left to right, without precedence: a false test before `and` ends it with false, a
//! true test before `or` ends it with true. So `F and T or T` is false and `T or F and F` is true.
//!
//! A single text is true unless it is empty (`false` and `0` as text are true), a number unless it is 0. Two texts compare
//! without regard to case. When one side is a number the other must be one, too. `childfrom` is true for a direct child of a
//! path, whose separator is the last character of the right side.
//!
//! The module knows no parameters: who evaluates a condition says what its words stand for.

use std::cmp::Ordering;

use super::lexer::lex;
use crate::command::{Value, Word};
use crate::{CommandError, Status};

/// Groups may nest so deep.
const MAX_DEPTH: usize = 16;

/// A condition, ready to be tested as often as wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    first: Term,
    others: Vec<(Connector, Term)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Connector {
    And,
    Or,
}

#[derive(Debug, Clone, PartialEq)]
enum Term {
    Group { negated: bool, condition: Box<Condition> },
    Truth { negated: bool, value: Word },
    Comparison { left: Word, operator: Operator, right: Word },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Contains,
    StartsWith,
    EndsWith,
    ChildFrom,
}

impl Operator {
    fn of(word: &Word) -> Option<Self> {
        if word.quoted {
            return None;
        }
        Some(match word.text.as_str() {
            "==" => Self::Equal,
            "!=" => Self::NotEqual,
            "<" => Self::Less,
            "<=" => Self::LessOrEqual,
            ">" => Self::Greater,
            ">=" => Self::GreaterOrEqual,
            "contains" | "includes" => Self::Contains,
            "startswith" | "startwith" => Self::StartsWith,
            "endswith" => Self::EndsWith,
            "childfrom" => Self::ChildFrom,
            _ => return None,
        })
    }
}

fn is(word: &Word, text: &str) -> bool {
    !word.quoted && word.text == text
}

fn connector(word: &Word) -> Option<Connector> {
    if is(word, "and") {
        Some(Connector::And)
    } else if is(word, "or") {
        Some(Connector::Or)
    } else {
        None
    }
}

impl Condition {
    /// Reads a condition.
    ///
    /// # Errors
    /// [`Status::CONDITION`] with the word that does not fit.
    pub fn parse(words: &[Word]) -> Result<Self, CommandError> {
        Self::parse_at(words, 0)
    }

    /// Tests the condition with the values that `resolve` gives to its operands. Operands after the one that decides
    /// are not resolved.
    ///
    /// # Errors
    /// [`Status::COMMAND_STRUCTURE`] when a number is compared with what is no number.
    pub fn evaluate(&self, resolve: &dyn Fn(&Word) -> Value) -> Result<bool, CommandError> {
        let mut result = self.first.evaluate(resolve)?;
        for (connector, term) in &self.others {
            match connector {
                Connector::And if !result => return Ok(false),
                Connector::Or if result => return Ok(true),
                _ => result = term.evaluate(resolve)?,
            }
        }
        Ok(result)
    }

    fn parse_at(words: &[Word], depth: usize) -> Result<Self, CommandError> {
        if depth > MAX_DEPTH {
            return Err(flaw("its parentheses nest too deep"));
        }
        let (first, mut rest) = term(words, depth)?;
        let mut others = Vec::new();
        while let Some((word, after)) = rest.split_first() {
            let Some(connector) = connector(word) else {
                return Err(unexpected(word));
            };
            let (next, left) = term(after, depth)?;
            others.push((connector, next));
            rest = left;
        }
        Ok(Self { first, others })
    }
}

fn flaw(why: &str) -> CommandError {
    CommandError::new(Status::CONDITION, format!("Failed to parse in \"if\" stmt: {why}"))
}

fn unexpected(word: &Word) -> CommandError {
    let error = CommandError::new(
        Status::CONDITION,
        format!("Failed to parse in \"if\" stmt, missing comparison operator before '{}'", word.text),
    );
    if is(word, "=") {
        return error.hint("to compare write ==");
    }
    error.hint(format!(
        "expected == != < <= > >= contains startswith endswith childfrom, or 'and', 'or', 'then'; \
         a value of several words needs double quotes (at '{}')",
        word.text
    ))
}

/// The first term of `words` and what follows it.
fn term(words: &[Word], depth: usize) -> Result<(Term, &[Word]), CommandError> {
    let (negated, words) = match words.split_first() {
        Some((word, after)) if is(word, "not") => (true, after),
        _ => (false, words),
    };
    let Some((left, rest)) = words.split_first() else {
        return Err(flaw(if negated { "a value is missing after 'not'" } else { "a test is missing" }));
    };
    if connector(left).is_some() || Operator::of(left).is_some() || is(left, "=") {
        return Err(flaw(&format!("a value is missing before '{}'", left.text)));
    }
    let group = left.text.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')).filter(|_| !left.quoted);
    if let Some(inner) = group {
        let condition = Box::new(Condition::parse_at(&lex(inner)?, depth + 1)?);
        return Ok((Term::Group { negated, condition }, rest));
    }
    let Some((operator, after)) = rest.split_first().and_then(|(word, after)| Some((Operator::of(word)?, after)))
    else {
        return Ok((Term::Truth { negated, value: left.clone() }, rest));
    };
    if negated {
        return Err(
            flaw("'not' stands before a single value only").hint("write != instead, or put the test in parentheses")
        );
    }
    let Some((right, rest)) = after.split_first().filter(|(word, _)| connector(word).is_none()) else {
        return Err(flaw(&format!("a value is missing after '{}'", rest[0].text)));
    };
    Ok((Term::Comparison { left: left.clone(), operator, right: right.clone() }, rest))
}

impl Term {
    fn evaluate(&self, resolve: &dyn Fn(&Word) -> Value) -> Result<bool, CommandError> {
        match self {
            Term::Group { negated, condition } => Ok(condition.evaluate(resolve)? != *negated),
            Term::Truth { negated, value } => Ok(truth(&resolve(value)) != *negated),
            Term::Comparison { left, operator, right } => compare(&resolve(left), *operator, &resolve(right)),
        }
    }
}

fn truth(value: &Value) -> bool {
    match value {
        Value::Text(text) => !text.is_empty(),
        Value::Int(number) => *number != 0,
        Value::Float(number) => *number != 0.0,
        Value::Bool(value) => *value,
    }
}

/// A text as it is compared: lower case, without the single quotes around it.
fn comparable(value: &Value) -> String {
    let text = value.to_string();
    unquoted(&text).to_lowercase()
}

/// A text without one pair of single quotes around it.
pub(crate) fn unquoted(text: &str) -> &str {
    text.strip_prefix('\'').and_then(|inner| inner.strip_suffix('\'')).unwrap_or(text)
}

fn compare(left: &Value, operator: Operator, right: &Value) -> Result<bool, CommandError> {
    let ordering = match operator {
        Operator::Contains => return Ok(comparable(left).contains(&comparable(right))),
        Operator::StartsWith => return Ok(comparable(left).starts_with(&comparable(right))),
        Operator::EndsWith => return Ok(comparable(left).ends_with(&comparable(right))),
        Operator::ChildFrom => return Ok(is_child(&comparable(left), &comparable(right))),
        _ => order(left, right)?,
    };
    Ok(match operator {
        Operator::Equal => ordering == Ordering::Equal,
        Operator::NotEqual => ordering != Ordering::Equal,
        Operator::Less => ordering == Ordering::Less,
        Operator::LessOrEqual => ordering != Ordering::Greater,
        Operator::Greater => ordering == Ordering::Greater,
        _ => ordering != Ordering::Less,
    })
}

fn order(left: &Value, right: &Value) -> Result<Ordering, CommandError> {
    match (left, right) {
        (Value::Text(_), Value::Text(_)) => Ok(comparable(left).cmp(&comparable(right))),
        (Value::Bool(_), _) | (_, Value::Bool(_)) => Ok(boolean(left)?.cmp(&boolean(right)?)),
        _ => match (integer(left), integer(right)) {
            (Some(left), Some(right)) => Ok(left.cmp(&right)),
            _ => Ok(number(left)?.total_cmp(&number(right)?)),
        },
    }
}

fn boolean(value: &Value) -> Result<bool, CommandError> {
    match value {
        Value::Bool(value) => return Ok(*value),
        Value::Text(_) => match comparable(value).as_str() {
            "true" => return Ok(true),
            "false" | "" => return Ok(false),
            _ => {}
        },
        _ => {}
    }
    Err(CommandError::structure(format!("'{value}' is compared with a truth value but is neither true nor false")))
}

fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        Value::Text(text) => unquoted(text).trim().parse().ok(),
        _ => None,
    }
}

fn number(value: &Value) -> Result<f64, CommandError> {
    let number = match value {
        Value::Float(number) => Some(*number),
        // the nearest float: only the order counts here
        Value::Int(number) => number.to_string().parse().ok(),
        Value::Text(text) => unquoted(text).trim().parse().ok(),
        Value::Bool(_) => None,
    };
    number
        .filter(|number: &f64| !number.is_nan())
        // one zero, so that -0.0 == 0
        .map(|number| number + 0.0)
        .ok_or_else(|| CommandError::structure(format!("'{value}' is compared with a number but is none")))
}

fn is_child(path: &str, parent: &str) -> bool {
    let Some(separator) = parent.chars().next_back() else { return false };
    path.strip_prefix(parent).is_some_and(|child| !child.is_empty() && !child.contains(separator))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(word: &Word) -> Value {
        match word.text.as_str() {
            "T" => Value::Bool(true),
            "F" => Value::Bool(false),
            "!unset" | "!unset.int" => Value::Text(String::new()),
            "!five.int" => Value::Int(5),
            "!half.float" => Value::Float(0.5),
            "!zero.int" => Value::Int(0),
            "!text" => Value::Text("Mountain View".into()),
            other => Value::Text(other.to_owned()),
        }
    }

    fn test(condition: &str) -> Result<bool, CommandError> {
        Condition::parse(&lex(condition)?)?.evaluate(&resolve)
    }

    #[test]
    fn conditions_have_the_documented_outcome() {
        for (condition, expected) in [
            // order of evaluation: no precedence, the first test that decides ends it
            ("F and T or T", false),
            ("T or F and F", true),
            ("T and F or T", true),
            ("(F) and (T) or (T)", false),
            ("F or T", true),
            ("T and T and F", false),
            ("(F or T) and T", true),
            ("(T and (F or T))", true),
            ("not (F or T)", false),
            // truth
            ("!unset", false),
            ("not !unset", true),
            ("false", true),
            ("0", true),
            ("!zero.int", false),
            ("not !zero.int", true),
            ("!half.float", true),
            ("\"\"", false),
            // comparison
            ("!text == \"mountain VIEW\"", true),
            ("!text != 'Mountain View'", false),
            ("a < B", true),
            ("b<=b", true),
            ("!five.int == 5", true),
            ("!five.int > 10", false),
            ("5 > 10", true),
            ("!five.int >= 4.5", true),
            ("!half.float < !five.int", true),
            ("!five.int != 5.0", false),
            ("!unset.int < 1", true),
            ("!unset.int > 0", false),
            ("T == true", true),
            ("F == TRUE", false),
            ("!unset == \"\"", true),
            ("!text contains view", true),
        ] {
            assert_eq!(test(condition), Ok(expected), "{condition}");
        }
    }

    #[test]
    fn text_operators() {
        for (condition, expected) in [
            ("!text includes TAIN", true),
            ("!text startswith mount", true),
            ("!text startwith view", false),
            ("!text endswith View", true),
            ("a/b/c childfrom a/b/", true),
            ("a/b/c/d childfrom a/b/", false),
            ("a/b/ childfrom a/b/", false),
            ("x/b childfrom a/", false),
            ("!text contains !unset", true),
        ] {
            assert_eq!(test(condition), Ok(expected), "{condition}");
        }
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        for condition in [
            "",
            "not",
            "!x goto l",
            "!x = 5",
            "!x ==",
            "!x == and T",
            "and T",
            "T and",
            "== 5",
            "T T",
            "!x is declared",
            "!x not declared",
            "()",
            "not !x == 5",
            "!city == New York",
        ] {
            assert_eq!(test(condition).unwrap_err().status, Status::CONDITION, "{condition}");
        }
        assert_eq!(test("!x = 5").unwrap_err().hint.as_deref(), Some("to compare write =="));
        assert_eq!(test("!five.int == five").unwrap_err().status, Status::COMMAND_STRUCTURE);
        assert_eq!(test("!five.int == T").unwrap_err().status, Status::COMMAND_STRUCTURE);
        let deep = format!("{}T{}", "(".repeat(500), ")".repeat(500));
        assert_eq!(test(&deep).unwrap_err().status, Status::CONDITION);
    }

    #[test]
    fn operands_after_the_decision_are_not_resolved() {
        let resolve = |word: &Word| {
            assert_ne!(word.text, "never");
            Value::Bool(word.text == "T")
        };
        let condition = Condition::parse(&lex("T or never").unwrap()).unwrap();
        assert!(condition.evaluate(&resolve).unwrap());
    }

    proptest::proptest! {
        #[test]
        fn no_condition_panics(words in proptest::collection::vec(
            proptest::sample::select(vec!["T", "F", "and", "or", "not", "==", "<", "contains", "(", ")", "!five.int", "''", "'"]), 0..12))
        {
            let result = test(&words.join(" "));
            proptest::prop_assert!(result.is_ok() || !result.unwrap_err().message.is_empty());
        }

        #[test]
        fn evaluation_is_strictly_left_to_right(
            first: bool, rest in proptest::collection::vec((proptest::bool::ANY, proptest::bool::ANY), 0..8))
        {
            let name = |value| if value { "T" } else { "F" };
            let mut text = name(first).to_owned();
            let mut expected = first;
            let mut decided = false;
            for (and, value) in rest {
                text.push_str(if and { " and " } else { " or " });
                text.push_str(name(value));
                decided |= expected != and;
                if !decided {
                    expected = value;
                }
            }
            proptest::prop_assert_eq!(test(&text), Ok(expected));
        }
    }
}
