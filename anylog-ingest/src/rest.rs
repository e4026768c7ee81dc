//! Rows in the body of a REST request.

use anylog_core::{CommandError, Status};

use crate::json::{Reader, SyntaxError, one_line};

/// Takes a body apart into rows, each the text of a JSON object on one line with its values verbatim. A body is one object, a
/// list of objects, one object per line, or objects separated by commas.
///
/// ```
/// let rows = anylog_ingest::rest::rows_of_body(b"{\"value\": 1.10}\n{\"value\": 2}").unwrap();
/// assert_eq!(rows, [r#"{"value": 1.10}"#, r#"{"value": 2}"#]);
/// ```
///
/// # Errors
/// [`Status::JSON_STRUCTURE`] for a body that is empty, not UTF-8 or not JSON, or an element that is not an object; the message
/// says where.
pub fn rows_of_body(body: &[u8]) -> Result<Vec<String>, CommandError> {
    let text = std::str::from_utf8(body)
        .map_err(|error| failure(&format!("byte {} is not UTF-8", error.valid_up_to())))?
        .trim_start_matches('\u{feff}');
    let mut rows = Vec::new();
    let mut reader = Reader::new(text);
    reader.skip_blank();
    if reader.at_end() {
        return Err(failure("Message Body is empty"));
    }
    while !reader.at_end() {
        let taken = match reader.peek() {
            Some(b'[') => reader.elements(0, |reader, depth| row(reader, depth, &mut rows)),
            _ => row(&mut reader, 0, &mut rows),
        };
        taken.map_err(|error| failure(&error.to_string()))?;
        reader.skip_blank();
        if reader.take(b',') {
            reader.skip_blank();
            if reader.at_end() {
                return Err(failure(&reader.error("expected an object after ','").to_string()));
            }
        }
    }
    Ok(rows)
}

fn row(reader: &mut Reader<'_>, depth: usize, rows: &mut Vec<String>) -> Result<(), SyntaxError> {
    if reader.peek() != Some(b'{') {
        return Err(reader.error("expected a JSON object"));
    }
    let raw = reader.skip(depth)?;
    rows.push(one_line(raw).into_owned());
    Ok(())
}

fn failure(reason: &str) -> CommandError {
    CommandError::new(Status::JSON_STRUCTURE, format!("Failed to process JSON data: {reason}"))
        .hint("send a JSON object, a list of objects, or one object per line")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_shape_of_a_body_gives_its_rows() {
        let expected = [r#"{"a": 1.10}"#, r#"{"b":12345678901234567890}"#];
        for body in [
            "[{\"a\": 1.10}, {\"b\":12345678901234567890}]",
            "{\"a\": 1.10}\n{\"b\":12345678901234567890}\n",
            "\u{feff}{\"a\": 1.10}, {\"b\":12345678901234567890}",
            "{\"a\": 1.10}\r\n\r\n[{\"b\":12345678901234567890}]",
        ] {
            assert_eq!(rows_of_body(body.as_bytes()).unwrap(), expected, "{body}");
        }
        assert_eq!(rows_of_body(b"{\n \"a\": [1,\n2]\n}").unwrap(), [r#"{  "a": [1, 2] }"#]);
        assert!(rows_of_body(b"[]").unwrap().is_empty());
    }

    #[test]
    fn errors_say_where() {
        for (body, expected) in [
            (&b" \n"[..], "Message Body is empty"),
            (b"{\"a\": 1}\n{\"a\": }", "expected a JSON value at line 2 column 7"),
            (b"[1]", "expected a JSON object at line 1 column 2"),
            (b"{\"a\": 1},", "expected an object after ',' at line 1 column 10"),
            (b"{\"a\": \"\xff\"}", "byte 7 is not UTF-8"),
        ] {
            let error = rows_of_body(body).unwrap_err();
            assert_eq!(error.message, format!("Failed to process JSON data: {expected}"));
            assert!(error.hint.is_some());
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_rows_are_lines(body in any::<Vec<u8>>()) {
            if let Ok(rows) = rows_of_body(&body) {
                prop_assert!(rows.iter().all(|row| !row.contains('\n')));
            }
        }
    }
}
