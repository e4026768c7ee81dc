//! The textual form over which ids are computed: that of Python's `str(dict)`.
//!
//! ```
//! use anylog_ledger::policy::python_text::python_text;
//! let value = serde_json::json!({"a": ["x", true, null, 1, 2.0], "b": "it's"});
//! assert_eq!(python_text(&value), r#"{'a': ['x', True, None, 1, 2.0], 'b': "it's"}"#);
//! ```

use serde_json::{Number, Value};

/// A JSON value as Python's `str` shows it: single quotes, `True`, `False`, `None`, a blank after `,` and `:`.
#[must_use]
pub fn python_text(value: &Value) -> String {
    let mut out = String::new();
    write_value(&mut out, value);
    out
}

fn write_value(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("None"),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::Number(number) => out.push_str(&number_text(number)),
        Value::String(text) => write_text(out, text),
        Value::Array(list) => {
            out.push('[');
            for (index, element) in list.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                write_value(out, element);
            }
            out.push(']');
        }
        Value::Object(object) => {
            out.push('{');
            for (index, (key, element)) in object.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                write_text(out, key);
                out.push_str(": ");
                write_value(out, element);
            }
            out.push('}');
        }
    }
}

/// Integers as they are; floats in the shortest form that reads back, with an exponent below 1e-4 and from 1e16 on.
fn number_text(number: &Number) -> String {
    if number.is_i64() || number.is_u64() {
        return number.to_string();
    }
    let Some(float) = number.as_f64() else { return number.to_string() };
    let magnitude = float.abs();
    if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        // Rust writes 1e-5 and 1e16, Python 1e-05 and 1e+16.
        let text = format!("{float:e}");
        let Some((mantissa, exponent)) = text.split_once('e') else { return text };
        let (sign, digits) = match exponent.strip_prefix('-') {
            Some(digits) => ('-', digits),
            None => ('+', exponent),
        };
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    format!("{float:?}")
}

/// Single quotes, unless the text holds a single quote and no double quote; backslash, controls and what Python does
/// not print are escaped.
fn write_text(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if is_printable(c) => out.push(c),
            c => {
                let code = u32::from(c);
                out.push_str(&match code {
                    0..=0xff => format!("\\x{code:02x}"),
                    0x100..=0xffff => format!("\\u{code:04x}"),
                    _ => format!("\\U{code:08x}"),
                });
            }
        }
    }
    out.push(quote);
}

/// What Python's `str.isprintable` says of the characters that turn up in texts: controls, separators other than the
/// blank, format characters, private use and the ends of planes are not printable.
fn is_printable(c: char) -> bool {
    let code = u32::from(c);
    if c.is_control() {
        return false;
    }
    !matches!(code,
        0xa0 | 0xad | 0x600..=0x605 | 0x61c | 0x6dd | 0x70f | 0x890..=0x891 | 0x8e2 | 0x1680 | 0x180e
        | 0x2000..=0x200f | 0x2028..=0x202f | 0x205f..=0x206f | 0x3000 | 0xe000..=0xf8ff | 0xfeff
        | 0xfff0..=0xfffb | 0x1bca0..=0x1bca3 | 0x1d173..=0x1d17a | 0xe0000..=0xe0fff | 0xf0000..)
        && code & 0xfffe != 0xfffe
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_choose_the_quote_that_python_chooses() {
        for (text, wanted) in [
            ("plain", "'plain'"),
            ("it's", "\"it's\""),
            ("say \"hi\"", "'say \"hi\"'"),
            ("it's \"both\"", "'it\\'s \"both\"'"),
            ("tab\tnew\nline", "'tab\\tnew\\nline'"),
            ("back\\slash", "'back\\\\slash'"),
            ("\u{1}\u{7f}\u{a0}", "'\\x01\\x7f\\xa0'"),
            ("\u{200b}\u{feff}", "'\\u200b\\ufeff'"),
            ("Zürich 東京 🚢", "'Zürich 東京 🚢'"),
        ] {
            assert_eq!(python_text(&json!(text)), wanted);
        }
    }

    #[test]
    fn numbers_are_written_as_python_writes_them() {
        for (text, wanted) in [
            ("1", "1"),
            ("18446744073709551615", "18446744073709551615"),
            ("1.0", "1.0"),
            ("0.1", "0.1"),
            ("1e5", "100000.0"),
            ("1e16", "1e+16"),
            ("1.5e300", "1.5e+300"),
            ("123456789012345680.0", "1.2345678901234568e+17"),
            ("0.0001", "0.0001"),
            ("0.00001", "1e-05"),
            ("37.425423", "37.425423"),
        ] {
            let value: Value = serde_json::from_str(text).unwrap();
            assert_eq!(python_text(&value), wanted, "{text}");
        }
    }

    #[test]
    fn containers_have_a_blank_after_comma_and_colon() {
        let value = json!({"a": {}, "b": [], "c": [{"x": false}, null]});
        assert_eq!(python_text(&value), "{'a': {}, 'b': [], 'c': [{'x': False}, None]}");
    }
}
