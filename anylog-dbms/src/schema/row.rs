//! One JSON row as an ordered list of borrowed keys and unparsed values.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A key of a row, borrowed unless it holds an escape.
pub(crate) struct Key<'a>(pub(crate) Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an attribute name")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

/// Calls `each` with every attribute of a JSON object, in the order of the text. Some may be called for
/// twice, in the same order, and after an error as well.
pub(crate) fn attributes<'a>(
    json: &'a str,
    mut each: impl FnMut(Cow<'a, str>, &'a str),
) -> Result<(), serde_json::Error> {
    match flat(json, &mut each) {
        Some(()) => Ok(()),
        None => every(json, each),
    }
}

/// Reads an object of texts without escapes, numbers and words, as nearly all rows are; none for anything else, which the full
/// reader judges.
fn flat<'a>(json: &'a str, each: &mut impl FnMut(Cow<'a, str>, &'a str)) -> Option<()> {
    let bytes = json.as_bytes();
    let blank = |mut at: usize| {
        while matches!(bytes.get(at), Some(b' ' | b'\t')) {
            at += 1;
        }
        at
    };
    let mut at = blank(0);
    if bytes.get(at) != Some(&b'{') {
        return None;
    }
    loop {
        let key = blank(at + 1);
        let end = plain_text(bytes, key)?;
        let colon = blank(end);
        if bytes.get(colon) != Some(&b':') {
            return None;
        }
        let value = blank(colon + 1);
        let value_end = match *bytes.get(value)? {
            b'"' => plain_text(bytes, value)?,
            b'-' | b'0'..=b'9' => number(bytes, value)?,
            _ => value + ["true", "false", "null"].iter().find(|word| json[value..].starts_with(**word))?.len(),
        };
        each(Cow::Borrowed(&json[key + 1..end - 1]), &json[value..value_end]);
        at = blank(value_end);
        match bytes.get(at)? {
            b',' => {}
            b'}' => return (blank(at + 1) == bytes.len()).then_some(()),
            _ => return None,
        }
    }
}

/// The end of a text in quotes that begins at `at`; none when it holds an escape or what must be escaped.
fn plain_text(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at) != Some(&b'"') {
        return None;
    }
    let rest = &bytes[at + 1..];
    let end = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20))?;
    (rest[end] == b'"').then_some(at + end + 2)
}

/// The end of a number that begins at `at`.
fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let digits = |from: usize| {
        let count = bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        (count > 0).then_some(from + count)
    };
    let first = at + usize::from(bytes[at] == b'-');
    let mut end = digits(first.min(bytes.len()))?;
    if bytes[first] == b'0' && end > first + 1 {
        return None;
    }
    if bytes.get(end) == Some(&b'.') {
        end = digits(end + 1)?;
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        end = digits((end + 1 + sign).min(bytes.len()))?;
    }
    Some(end)
}

/// As [`attributes`], calling for nothing twice, for whoever counts.
pub(crate) fn every<'a>(json: &'a str, each: impl FnMut(Cow<'a, str>, &'a str)) -> Result<(), serde_json::Error> {
    struct RowVisitor<F>(F);
    impl<'de, F: FnMut(Cow<'de, str>, &'de str)> Visitor<'de> for RowVisitor<F> {
        type Value = ();
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON object")
        }
        fn visit_map<M: MapAccess<'de>>(mut self, mut map: M) -> Result<(), M::Error> {
            while let Some(Key(key)) = map.next_key::<Key<'de>>()? {
                let value: &'de RawValue = map.next_value()?;
                (self.0)(key, value.get());
            }
            Ok(())
        }
    }
    let mut deserializer = serde_json::Deserializer::from_str(json);
    deserializer.deserialize_map(RowVisitor(each))?;
    deserializer.end()
}

/// The text of a JSON string, borrowed when it holds no escape.
pub(crate) fn string(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(raw).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Attributes = Vec<(String, String)>;

    fn read<E>(read: impl FnOnce(&mut dyn FnMut(Cow<'_, str>, &str)) -> Result<(), E>) -> Option<Attributes> {
        let mut found = Vec::new();
        read(&mut |key, raw| found.push((key.into_owned(), raw.to_owned()))).ok().map(|()| found)
    }

    fn agree(json: &str) -> bool {
        let whole = read(|each| every(json, each));
        match read(|mut each| flat(json, &mut each).ok_or(())) {
            Some(quick) => whole == Some(quick),
            None => true,
        }
    }

    #[test]
    fn usual_rows_take_the_quick_way() {
        let row = r#"{ "timestamp":"2026-03-01T10:00:00Z", "value" : -20.5e3,"on":true, "x":null,"n":0}"#;
        assert!(flat(row, &mut |_, _| ()).is_some() && agree(row));
        for other in ["", "{", "{}", "[]", r#"{"a":01}"#, r#"{"a":1.}"#, r#"{"a":-}"#, r#"{"a":{}}"#, r#"{"a":1}x"#] {
            assert!(flat(other, &mut |_, _| ()).is_none(), "{other}");
        }
    }

    proptest! {
        #[test]
        fn both_ways_agree(json in r#"\{("[a-b\\]{0,2}" ?: ?(-?[0-9.eE+]{1,4}|"[a-zé\\"]{0,3}"|true|null|\[\]),? ?){0,3}\}? ?"#) {
            prop_assert!(agree(&json), "{}", json);
        }

        #[test]
        fn any_text_is_survived(json: String) {
            prop_assert!(agree(&json));
        }
    }
}
