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

/// A value of a row that is being read, without a copy of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SqlRef<'a> {
    // Another order than rusqlite's: values are written and read part by part, which a processor can follow while they are on their
    // way to memory. A copy of the whole has to wait for that, for each value of each row.
    /// The bytes of a text as the database holds them; it does not promise that they are UTF-8.
    Text(&'a [u8]),
    /// A 64-bit float.
    Float(f64),
    /// A 64-bit integer; of SQLite truth values too.
    Int(i64),
    /// Bytes that are no text.
    Blob(&'a [u8]),
    /// No value.
    Null,
}

impl SqlRef<'_> {
    /// A copy; bytes that are no text are written in hexadecimal digits.
    #[must_use]
    pub fn to_value(self) -> SqlValue {
        match self {
            Self::Null => SqlValue::Null,
            Self::Int(value) => SqlValue::Int(value),
            Self::Float(value) => SqlValue::Float(value),
            Self::Text(bytes) => SqlValue::Text(String::from_utf8_lossy(bytes).into_owned()),
            Self::Blob(bytes) => SqlValue::Text(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
        }
    }
}

impl SqlValue {
    /// The value without a copy.
    #[must_use]
    pub fn as_ref(&self) -> SqlRef<'_> {
        match self {
            Self::Null => SqlRef::Null,
            Self::Bool(value) => SqlRef::Int(i64::from(*value)),
            Self::Int(value) => SqlRef::Int(*value),
            Self::Float(value) => SqlRef::Float(*value),
            Self::Text(text) => SqlRef::Text(text.as_bytes()),
        }
    }
}
