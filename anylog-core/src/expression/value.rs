//! Values of expressions and what operators do with them.

use std::cmp::Ordering;
use std::fmt;

use jiff::{SignedDuration, Zoned};

use super::{ExpressionError, MAX_RESULT};

/// A value of an expression.
#[derive(Debug, Clone)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Value>),
    Time(Box<Zoned>),
    Span(SignedDuration),
    /// The module and its classes, which only name functions.
    Module(&'static str),
}

pub(super) type Outcome = Result<Value, ExpressionError>;

/// A value that does not fit.
pub(super) fn unfit(problem: impl Into<String>) -> ExpressionError {
    ExpressionError::Value { problem: problem.into() }
}

impl Value {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::None => "None",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float",
            Value::Text(_) => "str",
            Value::List(_) => "list",
            Value::Time(_) => "datetime",
            Value::Span(_) => "timedelta",
            Value::Module(_) => "module",
        }
    }

    pub(super) fn is_true(&self) -> bool {
        match self {
            Value::None => false,
            Value::Bool(value) => *value,
            Value::Int(value) => *value != 0,
            Value::Float(value) => *value != 0.0,
            Value::Text(text) => !text.is_empty(),
            Value::List(elements) => !elements.is_empty(),
            Value::Span(span) => !span.is_zero(),
            Value::Time(_) | Value::Module(_) => true,
        }
    }

    /// A whole number; truth values count as 0 and 1.
    pub(super) fn int(&self) -> Option<i64> {
        match self {
            Value::Int(value) => Some(*value),
            Value::Bool(value) => Some(i64::from(*value)),
            _ => None,
        }
    }

    pub(super) fn float(&self) -> Option<f64> {
        match self {
            Value::Float(value) => Some(*value),
            // Exactness beyond 2^53 is lost, as with any number that meets a decimal one.
            other => other.int().map(|value| value as f64),
        }
    }

    fn quoted(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Text(text) if text.contains('\'') && !text.contains('"') => write!(f, "\"{text}\""),
            Value::Text(text) => {
                write!(f, "'{}'", text.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n"))
            }
            other => write!(f, "{other}"),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::None => f.write_str("None"),
            Value::Bool(true) => f.write_str("True"),
            Value::Bool(false) => f.write_str("False"),
            Value::Int(value) => write!(f, "{value}"),
            Value::Float(value) => f.write_str(&float_text(*value)),
            Value::Text(text) => f.write_str(text),
            Value::List(elements) => {
                f.write_str("[")?;
                for (index, element) in elements.iter().enumerate() {
                    if index > 0 {
                        f.write_str(", ")?;
                    }
                    element.quoted(f)?;
                }
                f.write_str("]")
            }
            Value::Time(time) => {
                let fraction = if time.subsec_nanosecond() / 1000 == 0 { "" } else { ".%6f" };
                write!(f, "{}", time.strftime(&format!("%Y-%m-%d %H:%M:%S{fraction}")))
            }
            Value::Span(span) => {
                let seconds = span.as_secs();
                let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
                match days {
                    0 => {}
                    1 | -1 => write!(f, "{days} day, ")?,
                    _ => write!(f, "{days} days, ")?,
                }
                write!(f, "{}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60)
            }
            Value::Module(name) => write!(f, "<{name}>"),
        }
    }
}

/// A number as the language writes it: `3.0`, `1e+16`, `5e-05`.
fn float_text(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let text = format!("{value:?}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => {
            let mantissa = mantissa.strip_suffix(".0").unwrap_or(mantissa);
            match exponent.strip_prefix('-') {
                Some(digits) => format!("{mantissa}e-{digits:0>2}"),
                None => format!("{mantissa}e+{exponent:0>2}"),
            }
        }
        None => text,
    }
}

pub(super) fn text(text: String) -> Outcome {
    if text.len() > MAX_RESULT { Err(ExpressionError::TooLarge { what: "text" }) } else { Ok(Value::Text(text)) }
}

pub(super) fn list(elements: Vec<Value>) -> Outcome {
    if elements.len() > MAX_RESULT / 16 {
        return Err(ExpressionError::TooLarge { what: "list" });
    }
    Ok(Value::List(elements))
}

/// `a operator b` for an arithmetic operator.
pub(super) fn arithmetic(operator: &str, a: Value, b: Value) -> Outcome {
    match (operator, a, b) {
        ("+", Value::Text(a), Value::Text(b)) => text(a + &b),
        ("+", Value::List(mut a), Value::List(b)) => {
            a.extend(b);
            list(a)
        }
        ("+", Value::Time(time), Value::Span(span)) | ("+", Value::Span(span), Value::Time(time)) => moved(&time, span),
        ("-", Value::Time(time), Value::Span(span)) => moved(&time, -span),
        ("-", Value::Time(a), Value::Time(b)) => Ok(Value::Span(a.duration_since(&b))),
        ("+", Value::Span(a), Value::Span(b)) => a.checked_add(b).map(Value::Span).ok_or_else(too_large_number),
        ("-", Value::Span(a), Value::Span(b)) => a.checked_sub(b).map(Value::Span).ok_or_else(too_large_number),
        ("*", Value::Text(unit), count) | ("*", count, Value::Text(unit)) if count.int().is_some() => {
            repeated(&unit, count.int().unwrap_or(0))
        }
        ("%", Value::Text(_), _) => Err(unfit("Formatting with '%' is not known; join texts with +")),
        (operator, a, b) => numbers(operator, &a, &b),
    }
}

fn moved(time: &Zoned, span: SignedDuration) -> Outcome {
    time.checked_add(span).map(|time| Value::Time(Box::new(time))).map_err(|_| unfit("The time is out of range"))
}

fn repeated(unit: &str, count: i64) -> Outcome {
    let count = usize::try_from(count).unwrap_or(0);
    if unit.len().saturating_mul(count) > MAX_RESULT {
        return Err(ExpressionError::TooLarge { what: "text" });
    }
    Ok(Value::Text(unit.repeat(count)))
}

fn too_large_number() -> ExpressionError {
    ExpressionError::TooLarge { what: "number" }
}

fn numbers(operator: &str, a: &Value, b: &Value) -> Outcome {
    if let (Some(a), Some(b)) = (a.int(), b.int())
        && operator != "/"
        && !(operator == "**" && b < 0)
    {
        return integers(operator, a, b);
    }
    let (Some(x), Some(y)) = (a.float(), b.float()) else {
        let hint = match (a, b) {
            (Value::Text(_), other) | (other, Value::Text(_)) if operator == "+" => {
                format!(
                    "; make a text of the {} with str(), or a number of the text with int() or float()",
                    other.kind()
                )
            }
            _ => String::new(),
        };
        return Err(unfit(format!("'{operator}' does not work on {} and {}{hint}", a.kind(), b.kind())));
    };
    if y == 0.0 && matches!(operator, "/" | "//" | "%") {
        return Err(unfit("Division by zero"));
    }
    Ok(Value::Float(match operator {
        "+" => x + y,
        "-" => x - y,
        "*" => x * y,
        "/" => x / y,
        "//" => (x / y).floor(),
        "%" => x - y * (x / y).floor(),
        _ => x.powf(y),
    }))
}

fn integers(operator: &str, a: i64, b: i64) -> Outcome {
    let result = match operator {
        "+" => a.checked_add(b),
        "-" => a.checked_sub(b),
        "*" => a.checked_mul(b),
        "//" | "%" if b == 0 => return Err(unfit("Division by zero")),
        // Rounded down, so that the rest has the sign of the divisor.
        "//" => a.checked_div(b).map(|quotient| if a % b != 0 && (a < 0) != (b < 0) { quotient - 1 } else { quotient }),
        "%" => a.checked_rem(b).map(|rest| if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest }),
        _ => u32::try_from(b).ok().and_then(|power| a.checked_pow(power)),
    };
    result.map(Value::Int).ok_or_else(too_large_number)
}

/// Whether two values are the same; numbers of different kinds are compared as numbers.
pub(super) fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::None, Value::None) => true,
        (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        _ => order(a, b) == Some(Ordering::Equal),
    }
}

/// The order of two values; nothing when they cannot be compared.
pub(super) fn order(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
        (Value::Time(a), Value::Time(b)) => Some(a.cmp(b)),
        (Value::Span(a), Value::Span(b)) => Some(a.cmp(b)),
        (a, b) => match (a.int(), b.int()) {
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            _ => a.float()?.partial_cmp(&b.float()?),
        },
    }
}
