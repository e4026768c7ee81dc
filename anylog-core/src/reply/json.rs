//! JSON texts in the layout that clients of such nodes know: one line, a blank after `,` and `:`.

use std::io;

use serde::Serialize;
use serde_json::ser::Formatter;

struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

/// `value` on one line with a blank after `,` and `:`.
///
/// ```
/// assert_eq!(anylog_core::reply::json::text(&serde_json::json!({"a": [1, "x"]})), r#"{"a": [1, "x"]}"#);
/// ```
#[must_use]
pub fn text(value: &serde_json::Value) -> String {
    let mut out = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, Spaced);
    value.serialize(&mut serializer).expect("invariant: a JSON value serialises into memory");
    String::from_utf8(out).expect("invariant: JSON text is UTF-8")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::text;

    #[test]
    fn one_line_with_blanks() {
        let value = json!({"a": {"b": [], "c": {}}, "d": [1, 2.5, null, true, "x: y, z"]});
        assert_eq!(text(&value), r#"{"a": {"b": [], "c": {}}, "d": [1, 2.5, null, true, "x: y, z"]}"#);
    }

    proptest! {
        #[test]
        fn it_is_the_same_value(key in "\\PC*", texts in prop::collection::vec("\\PC*", 0..4), number in any::<f64>(), count in any::<u64>()) {
            let value = json!({key: texts, "n": [number, count]});
            let read: Value = serde_json::from_str(&text(&value)).unwrap();
            prop_assert_eq!(read, value);
        }
    }
}
