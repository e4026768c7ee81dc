//! Types that a mapping may declare, and how a value of each is written into a row.

use std::borrow::Cow;

use crate::json::{self, Kind, Node};

/// How values of a declared type are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// In quotes, also when the message holds a number.
    Text,
    /// Without quotes, also when the message holds the number as a text.
    Number,
    /// `true` or `false`.
    Bool,
    /// As sent.
    Verbatim,
}

/// A declared type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeclaredType {
    /// The normalised name, such as `varchar`, `int`, `char(8)`.
    pub(crate) name: Cow<'static, str>,
    /// How its values are written.
    pub(crate) form: Form,
}

/// The spellings of each normalised type.
const NAMES: &[(&str, Form, &[&str])] = &[
    (
        "varchar",
        Form::Text,
        &[
            "varchar",
            "str",
            "string",
            "text",
            "char varying",
            "bytestring",
            "nodeid",
            "expandednodeid",
            "qualifiedname",
            "qualifiedmame",
            "localizedtext",
            "variant",
            "datavalue",
            "diagnosticinfo",
        ],
    ),
    ("int", Form::Number, &["int", "integer", "int16", "uint16", "int32", "uint32", "sbyte", "statuscode"]),
    ("bigint", Form::Number, &["bigint", "int64", "uint64"]),
    ("float", Form::Number, &["float", "float64", "decimal", "numeric", "double"]),
    ("char", Form::Text, &["char", "character"]),
    ("char(1)", Form::Text, &["byte"]),
    ("bool", Form::Bool, &["bool", "boolean"]),
    ("timestamp", Form::Verbatim, &["timestamp", "datetime"]),
    ("date", Form::Verbatim, &["date"]),
    ("time", Form::Verbatim, &["time"]),
    ("uuid", Form::Text, &["uuid"]),
];

impl DeclaredType {
    /// The type of this name in any documented spelling; `None` when there is none.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let name = name.trim().to_lowercase();
        let find = |word: &str| NAMES.iter().find(|(_, _, spellings)| spellings.contains(&word));
        if let Some((normal, form, _)) = find(&name) {
            return Some(Self { name: Cow::Borrowed(normal), form: *form });
        }
        if let Some(length) = name.strip_prefix("character(").or_else(|| name.strip_prefix("char(")) {
            let length: u32 = length.strip_suffix(')')?.trim().parse().ok()?;
            return Some(Self { name: Cow::Owned(format!("char({length})")), form: Form::Text });
        }
        // `timestamp not null default now()`: what follows the first blank belongs to the table, not to the values.
        let (first, _) = name.split_once(' ')?;
        find(first).map(|(normal, form, _)| Self { name: Cow::Borrowed(normal), form: *form })
    }
}

/// Writes a value of a message.
pub(crate) fn write(form: Form, node: &Node<'_>, out: &mut String) {
    match (&node.kind, form) {
        (Kind::Text(text), Form::Number) if is_number(text.trim()) => out.push_str(text.trim()),
        (Kind::Text(text), Form::Bool) => match truth(text) {
            Some(truth) => out.push_str(truth),
            None => out.push_str(node.raw),
        },
        (Kind::Number | Kind::Bool, Form::Text) => {
            out.push('"');
            out.push_str(node.raw);
            out.push('"');
        }
        _ => out.push_str(&json::one_line(node.raw)),
    }
}

/// Writes a text that was put together, or a constant.
pub(crate) fn write_text(form: Form, text: &str, out: &mut String) {
    match form {
        Form::Number if is_number(text.trim()) => out.push_str(text.trim()),
        Form::Bool if truth(text).is_some() => out.push_str(truth(text).unwrap_or_default()),
        _ => json::push_quoted(out, text),
    }
}

fn is_number(text: &str) -> bool {
    matches!(json::parse(text), Ok(Node { kind: Kind::Number, .. }))
}

fn truth(text: &str) -> Option<&'static str> {
    match text.trim() {
        t if t.eq_ignore_ascii_case("true") => Some("true"),
        t if t.eq_ignore_ascii_case("false") => Some("false"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(name: &str, value: &str) -> String {
        let mut out = String::new();
        write(DeclaredType::parse(name).unwrap().form, &json::parse(value).unwrap(), &mut out);
        out
    }

    #[test]
    fn spellings_are_normalised() {
        for (spelling, normal) in [
            ("STR", "varchar"),
            ("Integer", "int"),
            ("uint64", "bigint"),
            ("double", "float"),
            ("character(12)", "char(12)"),
            ("timestamp not null default now()", "timestamp"),
            ("byte", "char(1)"),
        ] {
            assert_eq!(DeclaredType::parse(spelling).unwrap().name, normal);
        }
        assert_eq!(DeclaredType::parse("colour"), None);
        assert_eq!(DeclaredType::parse("char(x)"), None);
    }

    #[test]
    fn values_are_written_by_type_and_else_verbatim() {
        for (name, value, expected) in [
            ("int", r#""12""#, "12"),
            ("int", r#""abc""#, r#""abc""#),
            ("float", "0.12345678901234567", "0.12345678901234567"),
            ("bigint", "18446744073709551616", "18446744073709551616"),
            ("str", "12", r#""12""#),
            ("str", r#""a\u00e9""#, r#""a\u00e9""#),
            ("str", "null", "null"),
            ("bool", r#""True""#, "true"),
            ("timestamp", "1700000000000", "1700000000000"),
            ("str", "{\"a\":\n1}", "{\"a\": 1}"),
        ] {
            assert_eq!(written(name, value), expected, "{name} {value}");
        }
    }
}
