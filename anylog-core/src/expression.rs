//! The expressions of the command `python`: a small evaluator for texts, numbers and times. No interpreter of the host
//! is involved, so an expression can neither reach files nor run without end.
//!
//! | kind | what is understood |
//! |---|---|
//! | values | `!name`, `!name.int`, `!name.float`, `$NAME`, `'text'`, `"text"`, numbers, `True`, `False`, `None`, `[a, b]` |
//! | operators | `+ - * / // % **`, `== != < <= > >=`, `in`, `not in`, `and`, `or`, `not`, `a if c else b`, `x[i]`, `x[i:j]` |
//! | functions | `int float str bool len abs round min max sum sorted` |
//! | methods of texts | `split rsplit splitlines strip lstrip rstrip replace upper lower title capitalize find rfind index count startswith endswith join zfill isdigit isalpha isalnum` |
//! | times | `datetime.datetime.now()`, `datetime.datetime.utcnow()`, `datetime.timedelta(days=1)`, `strftime`, `isoformat`, `timestamp`, `year` ... `second` |
//!
//! ```
//! let node = anylog_core::Node::builder().build();
//! node.dictionary.set("ledger", "10.0.0.1:32048");
//! assert_eq!(anylog_core::expression::evaluate(&node, "!ledger.split(':')[0] + ':' + str(4000 + 28)").unwrap(), "10.0.0.1:4028");
//! ```

mod call;
mod parse;
#[cfg(test)]
mod tests;
mod value;

use crate::{CommandError, Node, Status};

/// The longest expression, in bytes.
pub const MAX_LENGTH: usize = 16 * 1024;

/// The longest text that an expression may make, in bytes; and elements of a list.
pub const MAX_RESULT: usize = 1024 * 1024;

/// How deep an expression may be nested.
const MAX_DEPTH: usize = 64;

/// Why an expression has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExpressionError {
    /// The text is no expression.
    #[error("{problem} at position {at}")]
    Syntax {
        /// What is wrong.
        problem: String,
        /// Where, in bytes.
        at: usize,
    },
    /// A reference has no value.
    #[error("Missing dictionary definition for: '{name}'")]
    Unset {
        /// The reference.
        name: String,
    },
    /// A function, method or operator cannot work on what it was given.
    #[error("{problem}")]
    Value {
        /// What does not fit.
        problem: String,
    },
    /// The expression, or a value in it, is too large.
    #[error("The {what} is too large")]
    TooLarge {
        /// What is.
        what: &'static str,
    },
}

impl From<ExpressionError> for CommandError {
    fn from(error: ExpressionError) -> Self {
        let message = format!("{}: {error}", Status::EXPRESSION.text());
        match error {
            ExpressionError::Unset { name } => CommandError::new(Status::PROCESS_FAILURE, message)
                .hint(format!("set it first: set {} = <value>", name.trim_start_matches(['!', '$']))),
            ExpressionError::Syntax { .. } => CommandError::new(Status::EXPRESSION, message)
                .hint("put texts in quotes, such as: python !ip + ':4028'"),
            _ => CommandError::new(Status::EXPRESSION, message),
        }
    }
}

/// The value of an expression as text.
///
/// # Errors
/// The text is no expression, a reference is unset, a value does not fit, or something grew too large.
pub fn evaluate(node: &Node, text: &str) -> Result<String, ExpressionError> {
    parse::evaluate(node, text).map(|value| value.to_string())
}
