//! A value in a database.

/// A value as it is bound to a statement or read from a result.
#[derive(Debug, Clone, PartialEq)]
pub enum SqlValue {
    /// No value.
    Null,
    /// A truth value. SQLite stores 0 and 1 and gives them back as [`SqlValue::Int`]; the declared column type tells.
    Bool(bool),
    /// A 64-bit integer.
    Int(i64),
    /// A 64-bit float.
    Float(f64),
    /// Text, and every type that is stored as text: timestamps, nested JSON, UUIDs.
    Text(String),
}
