//! The rows of a file, read piece by piece: JSON objects one after the other, each on one line or on several, or lists of them.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use flate2::read::MultiGzDecoder;

use crate::archive::LARGEST_CONTENT;
use crate::error::{OperatorError, file_error};

/// Bytes that are read at one time.
const READ_BYTES: usize = 64 * 1024;
/// The longest row.
const LONGEST_ROW: usize = 16 << 20;

/// Reads a file once. `bytes` gets its content as it is, uncompressed; `row` each row on one line.
pub(super) fn read(
    path: &Path,
    compressed: bool,
    bytes: impl FnMut(&[u8]) -> Result<(), OperatorError>,
    row: impl FnMut(&str) -> Result<(), OperatorError>,
) -> Result<(), OperatorError> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let file = File::open(path).map_err(file_error(path))?;
    match compressed {
        true => read_packed(file, name, LARGEST_CONTENT, bytes, row),
        false => read_from(file, name, u64::MAX, file_error(path), bytes, row),
    }
}

/// The same of what a reader has, compressed; it may unpack to `largest` bytes.
pub(crate) fn read_packed(
    packed: impl Read,
    name: &str,
    largest: u64,
    bytes: impl FnMut(&[u8]) -> Result<(), OperatorError>,
    row: impl FnMut(&str) -> Result<(), OperatorError>,
) -> Result<(), OperatorError> {
    let failed = |error: std::io::Error| wrongly_packed(name, error.to_string());
    read_from(MultiGzDecoder::new(packed), name, largest, failed, bytes, row)
}

fn wrongly_packed(name: &str, reason: String) -> OperatorError {
    OperatorError::Compressed { name: name.to_owned(), reason }
}

fn read_from(
    mut reader: impl Read,
    name: &str,
    largest: u64,
    failed: impl Fn(std::io::Error) -> OperatorError,
    mut bytes: impl FnMut(&[u8]) -> Result<(), OperatorError>,
    mut row: impl FnMut(&str) -> Result<(), OperatorError>,
) -> Result<(), OperatorError> {
    let (mut buffer, mut splitter, mut length) = (vec![0; READ_BYTES], Splitter::new(name), 0u64);
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => return splitter.finish(&mut row),
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(error)),
        };
        length += count as u64;
        if length > largest {
            return Err(wrongly_packed(name, format!("it unpacks to more than {largest} bytes")));
        }
        bytes(&buffer[..count])?;
        splitter.push(&buffer[..count], &mut row)?;
    }
}

/// Where a reader stands between two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Between {
    /// In no list.
    Outside,
    /// Behind `[`: a value or `]`.
    First,
    /// Behind a comma of a list: a value.
    Next,
    /// Behind a value of a list: a comma or `]`.
    After,
}

/// What a value is that has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    /// Nothing has begun.
    Nothing,
    /// Brackets, so many deep.
    Brackets(usize),
    /// A text in quotes, inside so many brackets; whether the next character is escaped.
    Text(usize, bool),
    /// A number or a word.
    Word,
}

/// Splits a text that comes in pieces into its values. Whether a value is JSON is not its affair.
struct Splitter<'n> {
    name: &'n str,
    between: Between,
    within: Within,
    /// The beginning of a value, from earlier pieces.
    begun: Vec<u8>,
    rows: u64,
    /// Bytes before this piece.
    before: u64,
}

impl<'n> Splitter<'n> {
    fn new(name: &'n str) -> Self {
        let (between, within) = (Between::Outside, Within::Nothing);
        Self { name, between, within, begun: Vec::new(), rows: 0, before: 0 }
    }

    fn wrong(&self, reason: impl Into<String>) -> OperatorError {
        OperatorError::Content { name: self.name.to_owned(), reason: reason.into() }
    }

    fn push(
        &mut self,
        piece: &[u8],
        row: &mut impl FnMut(&str) -> Result<(), OperatorError>,
    ) -> Result<(), OperatorError> {
        let mut start = 0;
        let mut at = 0;
        while at < piece.len() {
            if self.within == Within::Nothing {
                start = at;
                self.between_values(piece[at], self.before + at as u64)?;
                at += 1;
                continue;
            }
            if self.within == Within::Word && matches!(piece[at], b' ' | b'\t' | b'\r' | b'\n' | b',' | b']' | b'}') {
                // The byte belongs to what follows.
                self.emit(&piece[start..at], row)?;
                continue;
            }
            let ended = self.inside(piece[at]);
            at += 1;
            if ended {
                self.emit(&piece[start..at], row)?;
            }
        }
        if self.within != Within::Nothing {
            self.begun.extend_from_slice(&piece[start..]);
            if self.begun.len() > LONGEST_ROW {
                return Err(self.wrong(format!("row {} is longer than {LONGEST_ROW} bytes", self.rows + 1)));
            }
        }
        self.before += piece.len() as u64;
        Ok(())
    }

    fn between_values(&mut self, byte: u8, place: u64) -> Result<(), OperatorError> {
        // A byte order mark.
        const MARK: [u8; 3] = [0xef, 0xbb, 0xbf];
        match (byte, self.between) {
            (b' ' | b'\t' | b'\r' | b'\n', _) => {}
            (byte, _) if place < 3 && MARK.get(usize::try_from(place).unwrap_or(3)) == Some(&byte) => {}
            (b'[', Between::Outside) => self.between = Between::First,
            (b']', Between::First | Between::After) => self.between = Between::Outside,
            (b',', Between::After) => self.between = Between::Next,
            (b',' | b']' | b'}' | b':', _) | (_, Between::After) => {
                let byte = char::from(byte);
                return Err(self.wrong(format!("unexpected '{byte}' at byte {place}, behind row {}", self.rows)));
            }
            (b'{' | b'[', _) => self.within = Within::Brackets(1),
            (b'"', _) => self.within = Within::Text(0, false),
            _ => self.within = Within::Word,
        }
        Ok(())
    }

    /// Whether the value ends with this byte.
    fn inside(&mut self, byte: u8) -> bool {
        self.within = match (self.within, byte) {
            (Within::Text(depth, true), _) => Within::Text(depth, false),
            (Within::Text(depth, false), b'\\') => Within::Text(depth, true),
            (Within::Text(0, false), b'"') => return true,
            (Within::Text(depth, false), b'"') => Within::Brackets(depth),
            (Within::Brackets(depth), b'"') => Within::Text(depth, false),
            (Within::Brackets(depth), b'{' | b'[') => Within::Brackets(depth + 1),
            (Within::Brackets(1), b'}' | b']') => return true,
            (Within::Brackets(depth), b'}' | b']') => Within::Brackets(depth - 1),
            (same, _) => same,
        };
        false
    }

    fn emit(
        &mut self,
        end: &[u8],
        row: &mut impl FnMut(&str) -> Result<(), OperatorError>,
    ) -> Result<(), OperatorError> {
        self.within = Within::Nothing;
        self.rows += 1;
        if self.between != Between::Outside {
            self.between = Between::After;
        }
        let mut begun = std::mem::take(&mut self.begun);
        let bytes = if begun.is_empty() {
            end
        } else {
            begun.extend_from_slice(end);
            &begun
        };
        let text = std::str::from_utf8(bytes).map_err(|error| self.wrong(format!("row {}: {error}", self.rows)))?;
        // Line ends in a JSON text stand only between tokens, where a blank does as well.
        let result = if text.contains(['\n', '\r']) { row(&text.replace(['\n', '\r'], " ")) } else { row(text) };
        begun.clear();
        self.begun = begun;
        result
    }

    fn finish(mut self, row: &mut impl FnMut(&str) -> Result<(), OperatorError>) -> Result<(), OperatorError> {
        if self.within == Within::Word {
            self.emit(&[], row)?;
        }
        if self.within != Within::Nothing {
            return Err(self.wrong(format!("it ends within row {}", self.rows + 1)));
        }
        match (self.between, self.rows) {
            (Between::Outside, 0) => Err(self.wrong("it holds no rows")),
            (Between::Outside, _) => Ok(()),
            _ => Err(self.wrong(format!("it ends within a list, behind row {}", self.rows))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The rows of a text that comes in pieces of some length.
    fn split(text: &[u8], length: usize) -> Result<Vec<String>, OperatorError> {
        let (mut splitter, mut rows) = (Splitter::new("x"), Vec::new());
        let mut row = |text: &str| {
            rows.push(text.to_owned());
            Ok(())
        };
        text.chunks(length).try_for_each(|piece| splitter.push(piece, &mut row))?;
        splitter.finish(&mut row)?;
        Ok(rows)
    }

    /// The same by a reader that holds the whole text.
    fn whole(text: &str) -> Option<Vec<String>> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut rows = Vec::new();
        for value in serde_json::Deserializer::from_str(text).into_iter::<&serde_json::value::RawValue>() {
            let raw = value.ok()?.get();
            match raw.starts_with('[') {
                true => {
                    let list: Vec<&serde_json::value::RawValue> = serde_json::from_str(raw).ok()?;
                    rows.extend(list.iter().map(|row| row.get().replace(['\n', '\r'], " ")));
                }
                false => rows.push(raw.replace(['\n', '\r'], " ")),
            }
        }
        (!rows.is_empty()).then_some(rows)
    }

    #[test]
    fn rows_may_stand_on_one_line_or_several() {
        let text = "\u{feff}{\"a\":\"}[\\\"\"}\n{\n \"a\": 2\n}\n[{\"a\":3},\n{\"a\":[4]}] 5 \"six\"";
        for length in 1..text.len() {
            let rows = split(text.as_bytes(), length).unwrap();
            assert_eq!(rows, ["{\"a\":\"}[\\\"\"}", "{  \"a\": 2 }", "{\"a\":3}", "{\"a\":[4]}", "5", "\"six\""]);
        }
        for (text, reason) in [
            ("{\"a\":1}\n{\"a\":", "ends within row 2"),
            (" \n", "no rows"),
            ("[]", "no rows"),
            ("[{}", "within a list"),
            ("[{} {}]", "unexpected '{' at byte 4"),
            ("{}]", "unexpected ']'"),
        ] {
            let error = split(text.as_bytes(), 64).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_reader_of_the_whole(
            text in r#"(\{"a":(1|"[x\\\\"{}\[\]]{0,3}"|\[1, ?2\])\}|[\[\],\n ]|\{\}){0,8}"#,
            length in 1usize..9,
        ) {
            let rows = split(text.as_bytes(), length).ok();
            let valid = |rows: &Vec<String>| rows.iter().all(|row| serde_json::from_str::<serde::de::IgnoredAny>(row).is_ok());
            prop_assert_eq!(rows.filter(valid), whole(&text), "{}", text);
        }

        #[test]
        fn any_content_is_survived(content: Vec<u8>, length in 1usize..9) {
            drop(split(&content, length));
        }
    }
}
