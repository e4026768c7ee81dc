//! One record as a line: JSON, ended by its own checksum.

use super::QuarantinedRow;
use crate::error::OperatorError;

const MARK: &str = ",\"crc\":\"";
/// The mark, eight digits, quote, brace.
const TAIL: usize = MARK.len() + 8 + 2;

/// Records as lines.
pub(super) fn encode(rows: &[QuarantinedRow]) -> Result<Vec<u8>, OperatorError> {
    let mut lines = Vec::new();
    for row in rows {
        let json = serde_json::to_vec(row)
            .map_err(|error| OperatorError::Content { name: row.key.clone(), reason: error.to_string() })?;
        push(&mut lines, &json);
    }
    Ok(lines)
}

/// The line that ends a file that was written anew.
pub(super) fn end(lines: usize) -> Vec<u8> {
    let mut line = Vec::new();
    push(&mut line, format!("{{\"end\":{lines}}}").as_bytes());
    line
}

/// Whether a line is such an end.
pub(super) fn is_end(line: &[u8]) -> bool {
    line.starts_with(b"{\"end\":") && checked(line).is_some()
}

fn push(lines: &mut Vec<u8>, json: &[u8]) {
    let body = json.strip_suffix(b"}").unwrap_or(json);
    lines.extend_from_slice(body);
    lines.extend_from_slice(MARK.as_bytes());
    lines.extend_from_slice(format!("{:08x}", crc32fast::hash(body)).as_bytes());
    lines.extend_from_slice(b"\"}\n");
}

/// The JSON of a line without its checksum's attribute and closing brace, when the checksum fits.
fn checked(line: &[u8]) -> Option<&[u8]> {
    let (body, tail) = line.split_at_checked(line.len().checked_sub(TAIL)?)?;
    let digits = tail.strip_prefix(MARK.as_bytes())?.strip_suffix(b"\"}")?;
    let crc = u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    (crc == crc32fast::hash(body)).then_some(body)
}

/// The record of a line without its end; none when it is damaged.
pub(super) fn decode(line: &[u8]) -> Option<QuarantinedRow> {
    checked(line)?;
    serde_json::from_slice(line).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::KeptMessage;
    use super::*;

    fn record() -> impl Strategy<Value = QuarantinedRow> {
        ("[0-9a-f]{1,8}:[0-9]{1,4}", "\\PC{0,20}", "\\PC{0,20}", any::<Option<String>>(), any::<Option<String>>())
            .prop_map(|(key, reason, topic, row, text)| QuarantinedRow {
                key,
                reason,
                row,
                message: text.map(|text| KeptMessage { topic, text: Some(text), ..KeptMessage::default() }),
                ..QuarantinedRow::default()
            })
    }

    proptest! {
        #[test]
        fn a_record_comes_back(record in record()) {
            let line = encode(std::slice::from_ref(&record)).unwrap();
            prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            prop_assert_eq!(decode(&line[..line.len() - 1]), Some(record));
        }

        // DUR-4
        #[test]
        fn a_flipped_byte_is_seen(record in record(), at: prop::sample::Index, flip in 1u8..) {
            let mut line = encode(&[record]).unwrap();
            line.pop();
            let at = at.index(line.len());
            line[at] ^= flip;
            // Digits of the checksum may be written in capitals: that is the same number.
            prop_assert!(decode(&line).is_none() || flip == 0x20);
        }

        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            drop(decode(&bytes));
            is_end(&bytes);
        }
    }

    #[test]
    fn an_end_is_no_record_with_a_key() {
        let end = end(3);
        assert!(is_end(&end[..end.len() - 1]));
        assert_eq!(decode(&end[..end.len() - 1]).unwrap().key, "");
        assert!(!is_end(b"{\"end\":3}"));
    }
}
