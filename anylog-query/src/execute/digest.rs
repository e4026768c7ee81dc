//! Values as numbers by which they are told apart: sets of them need little memory.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use anylog_dbms::SqlValue;

/// A set of digests.
pub(crate) type Digests = HashSet<u128, Plain>;

/// Digests are hashes already, or numbers, which are spread here.
pub(crate) type Plain = BuildHasherDefault<Spread>;

/// See [`Plain`].
#[derive(Debug, Default)]
pub(crate) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "both halves count")]
    fn write_u128(&mut self, digest: u128) {
        let folded = (digest as u64) ^ ((digest >> 64) as u64).rotate_left(32);
        let spread = folded.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = spread ^ (spread >> 32);
    }
}

/// The kind of a value stands above the 64 bits of a number.
const INTEGER: u128 = 1 << 64;
const FLOAT: u128 = 2 << 64;

/// A value as engines tell it from others: equal numbers are one, whatever their type. Numbers are exact, texts 127 bits of their
/// hash. None for NULL.
pub(crate) fn of_value(value: &SqlValue) -> Option<u128> {
    Some(match value {
        SqlValue::Null => return None,
        SqlValue::Bool(value) => INTEGER | u128::from(*value),
        #[expect(clippy::cast_sign_loss, reason = "the bits count")]
        SqlValue::Int(value) => INTEGER | u128::from(*value as u64),
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
        SqlValue::Float(value) if value.fract() == 0.0 && value.abs() < 9.0e15 => {
            INTEGER | u128::from(*value as i64 as u64)
        }
        SqlValue::Float(value) => FLOAT | u128::from(value.to_bits()),
        SqlValue::Text(text) => top(blake3::hash(text.as_bytes())),
    })
}

/// These values of a row, in their order and exactly.
pub(crate) fn of_row<'a>(values: impl Iterator<Item = &'a SqlValue>, buffer: &mut Vec<u8>) -> u128 {
    buffer.clear();
    for value in values {
        match value {
            SqlValue::Null => buffer.push(0),
            SqlValue::Bool(value) => buffer.extend([1, u8::from(*value)]),
            SqlValue::Int(value) => {
                buffer.push(2);
                buffer.extend(value.to_le_bytes());
            }
            SqlValue::Float(value) => {
                buffer.push(3);
                buffer.extend(value.to_bits().to_le_bytes());
            }
            SqlValue::Text(text) => {
                buffer.push(4);
                buffer.extend((text.len() as u64).to_le_bytes());
                buffer.extend(text.as_bytes());
            }
        }
    }
    top(blake3::hash(buffer))
}

/// 127 bits of a hash; the highest bit tells it from a number.
fn top(hash: blake3::Hash) -> u128 {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.as_bytes()[..16]);
    u128::from_le_bytes(bytes) | (1 << 127)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_numbers_are_one_value() {
        let of = |value: SqlValue| of_value(&value);
        assert_eq!(of(SqlValue::Null), None);
        assert_eq!(of(SqlValue::Int(1)), of(SqlValue::Float(1.0)));
        assert_eq!(of(SqlValue::Bool(false)), of(SqlValue::Float(-0.0)));
        let different = [
            SqlValue::Int(1),
            SqlValue::Int(-1),
            SqlValue::Int(i64::MAX),
            SqlValue::Int(i64::MAX - 1),
            SqlValue::Float(1.5),
            SqlValue::Float(9.1e15),
            SqlValue::Text("1".into()),
            SqlValue::Text(String::new()),
            SqlValue::Text("\u{fc}".into()),
        ];
        let digests: Digests = different.iter().filter_map(of_value).collect();
        assert_eq!(digests.len(), different.len());
    }

    #[test]
    fn rows_are_told_apart_by_all_their_values() {
        let text = |text: &str| SqlValue::Text(text.into());
        let rows = [
            vec![text("ab"), text("c")],
            vec![text("a"), text("bc")],
            vec![text("abc"), SqlValue::Null],
            vec![SqlValue::Null, text("abc")],
            vec![SqlValue::Int(1), SqlValue::Int(2)],
            vec![SqlValue::Int(2), SqlValue::Int(1)],
            vec![SqlValue::Float(1.0), SqlValue::Int(2)],
        ];
        let mut buffer = Vec::new();
        let digests: Digests = rows.iter().map(|row| of_row(row.iter(), &mut buffer)).collect();
        assert_eq!(digests.len(), rows.len());
    }
}
