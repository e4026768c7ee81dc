//! Rows between nodes: frames in a stream of bytes, whose pieces may be cut anywhere.
//!
//! ```text
//! frame    length of the rest (4 bytes, little endian), kind (1 byte), content
//! head  1  version (1), engine (1: 1 SQLite, 2 PostgreSQL), columns (2); of committed rows also the number of members (2), then for
//!          each its number (8) and that of its last file which all members have (8)
//! rows  2  rows (4), then the values row by row
//! alive 3  nothing: the node is at work
//! end   4  rows (8), microseconds in the database (8), places read (4), 1 when the node has no such table (1)
//! behind 5 files (8) that the member of a cluster lacks, 0 when it does not know: it refuses, and the stream ends with the error
//! value    0 null; 1 false; 2 true; 3 integer (zigzag varint); 4 float (8); 5 text (varint length, UTF-8)
//! ```
//!
//! A stream that ends without an end frame was broken off. A frame has at most [`MOST`] bytes. Numbers are little endian.

use anylog_dbms::{Engine, SqlValue};
use bytes::Bytes;

use crate::execute::Row;

/// The largest frame; senders cut far earlier, save for a single large row.
const MOST: usize = 64 * 1024 * 1024;
const VERSION: u8 = 1;

const HEAD: u8 = 1;
const ROWS: u8 = 2;
const ALIVE: u8 = 3;
const END: u8 = 4;
const BEHIND: u8 = 5;

/// A frame.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Frame {
    /// Comes first.
    Head { engine: Engine, columns: usize, upto: Option<Vec<(i64, i64)>> },
    /// Some rows.
    Rows(Vec<Row>),
    /// The node is at work.
    Alive,
    /// Comes last.
    End(PartEnd),
    /// The node is being filled and lacks so many files; it refuses.
    Behind(u64),
}

/// What a node says of its part when it is done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PartEnd {
    pub(crate) rows: u64,
    /// Time in the database, in microseconds.
    pub(crate) micros: u64,
    /// Places that were read.
    pub(crate) places: u32,
    /// The node has no such table: it got no rows of it yet.
    pub(crate) no_table: bool,
}

/// Bytes that are no frames.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the rows of another node cannot be read: {0}")]
pub(crate) struct WireError(&'static str);

impl Frame {
    /// The bytes of the frame.
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = vec![0; 4];
        match self {
            Self::Head { engine, columns, upto } => {
                out.extend([HEAD, VERSION, if *engine == Engine::Sqlite { 1 } else { 2 }]);
                out.extend(u16::try_from(*columns).unwrap_or(u16::MAX).to_le_bytes());
                if let Some(upto) = upto {
                    let upto = &upto[..upto.len().min(usize::from(u16::MAX))];
                    out.extend(u16::try_from(upto.len()).unwrap_or(u16::MAX).to_le_bytes());
                    upto.iter().for_each(|(member, file)| {
                        out.extend(member.to_le_bytes());
                        out.extend(file.to_le_bytes());
                    });
                }
            }
            Self::Rows(rows) => {
                out.reserve(rows.len() * 32);
                out.push(ROWS);
                out.extend(u32::try_from(rows.len()).unwrap_or(u32::MAX).to_le_bytes());
                rows.iter().flatten().for_each(|value| encode_value(value, &mut out));
            }
            Self::Alive => out.push(ALIVE),
            Self::End(end) => {
                out.push(END);
                out.extend(end.rows.to_le_bytes());
                out.extend(end.micros.to_le_bytes());
                out.extend(end.places.to_le_bytes());
                out.push(u8::from(end.no_table));
            }
            Self::Behind(files) => {
                out.push(BEHIND);
                out.extend(files.to_le_bytes());
            }
        }
        let length = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
        out[..4].copy_from_slice(&length.to_le_bytes());
        Bytes::from(out)
    }
}

fn encode_value(value: &SqlValue, out: &mut Vec<u8>) {
    match value {
        SqlValue::Null => out.push(0),
        SqlValue::Bool(value) => out.push(1 + u8::from(*value)),
        SqlValue::Int(value) => {
            out.push(3);
            #[expect(clippy::cast_sign_loss, reason = "zigzag: the sign becomes the lowest bit")]
            encode_varint(((value << 1) ^ (value >> 63)) as u64, out);
        }
        SqlValue::Float(value) => {
            out.push(4);
            out.extend(value.to_le_bytes());
        }
        SqlValue::Text(text) => {
            out.push(5);
            encode_varint(text.len() as u64, out);
            out.extend(text.as_bytes());
        }
    }
}

fn encode_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        #[expect(clippy::cast_possible_truncation, reason = "the lowest seven bits")]
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    #[expect(clippy::cast_possible_truncation, reason = "below 128")]
    out.push(value as u8);
}

/// Puts frames together out of pieces.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    bytes: Vec<u8>,
    at: usize,
    columns: usize,
}

impl Decoder {
    /// Takes the next piece.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        if self.at > 0 {
            self.bytes.drain(..self.at);
            self.at = 0;
        }
        self.bytes.extend_from_slice(piece);
    }

    /// The next whole frame; none while it is not there yet.
    pub(crate) fn frame(&mut self) -> Result<Option<Frame>, WireError> {
        let rest = &self.bytes[self.at..];
        let Some((length, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length == 0 || length > MOST {
            return Err(WireError("a frame has a wrong length"));
        }
        let Some(content) = rest.get(..length) else { return Ok(None) };
        let frame = decode(&mut Reader(content), self.columns)?;
        if let Frame::Head { columns, .. } = &frame {
            self.columns = *columns;
        }
        self.at += 4 + length;
        Ok(Some(frame))
    }
}

fn decode(content: &mut Reader<'_>, columns: usize) -> Result<Frame, WireError> {
    let frame = match content.byte()? {
        HEAD => {
            if content.byte()? != VERSION {
                return Err(WireError("it speaks another version: bring both nodes to one version"));
            }
            let engine = if content.byte()? == 1 { Engine::Sqlite } else { Engine::Postgres };
            let columns = usize::from(u16::from_le_bytes(content.array()?));
            let upto = if content.0.is_empty() { None } else { Some(content.files()?) };
            Frame::Head { engine, columns, upto }
        }
        ROWS => {
            let count = u32::from_le_bytes(content.array()?) as usize;
            // Each value takes a byte at least: a false count reserves no memory.
            if columns == 0 || count.saturating_mul(columns) > content.0.len() {
                return Err(WireError("a frame is shorter than its rows"));
            }
            let row = |_| (0..columns).map(|_| content.value()).collect::<Result<Row, _>>();
            Frame::Rows((0..count).map(row).collect::<Result<_, _>>()?)
        }
        ALIVE => Frame::Alive,
        END => Frame::End(PartEnd {
            rows: u64::from_le_bytes(content.array()?),
            micros: u64::from_le_bytes(content.array()?),
            places: u32::from_le_bytes(content.array()?),
            no_table: content.byte()? == 1,
        }),
        BEHIND => Frame::Behind(u64::from_le_bytes(content.array()?)),
        _ => return Err(WireError("a frame of an unknown kind")),
    };
    if content.0.is_empty() { Ok(frame) } else { Err(WireError("a frame is longer than its content")) }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, WireError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (array, rest) = self.0.split_first_chunk::<N>().ok_or(WireError("a frame is cut"))?;
        self.0 = rest;
        Ok(*array)
    }

    fn files(&mut self) -> Result<Vec<(i64, i64)>, WireError> {
        let count = u16::from_le_bytes(self.array()?);
        (0..count).map(|_| Ok((i64::from_le_bytes(self.array()?), i64::from_le_bytes(self.array()?)))).collect()
    }

    fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError("a number is too long"))
    }

    fn value(&mut self) -> Result<SqlValue, WireError> {
        Ok(match self.byte()? {
            0 => SqlValue::Null,
            1 => SqlValue::Bool(false),
            2 => SqlValue::Bool(true),
            3 => {
                let raw = self.varint()?;
                #[expect(clippy::cast_possible_wrap, reason = "zigzag: the lowest bit is the sign")]
                let value = (raw >> 1) as i64 ^ -((raw & 1) as i64);
                SqlValue::Int(value)
            }
            4 => SqlValue::Float(f64::from_le_bytes(self.array()?)),
            5 => {
                let length = usize::try_from(self.varint()?).map_err(|_| WireError("a text is too long"))?;
                if length > self.0.len() {
                    return Err(WireError("a text is cut"));
                }
                let (text, rest) = self.0.split_at(length);
                self.0 = rest;
                let text = std::str::from_utf8(text).map_err(|_| WireError("a text is not UTF-8"))?;
                SqlValue::Text(text.to_owned())
            }
            _ => return Err(WireError("a value of an unknown kind")),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = SqlValue> {
        prop_oneof![
            Just(SqlValue::Null),
            any::<bool>().prop_map(SqlValue::Bool),
            any::<i64>().prop_map(SqlValue::Int),
            any::<f64>().prop_filter("equal to itself", |value| !value.is_nan()).prop_map(SqlValue::Float),
            "\\PC{0,12}".prop_map(SqlValue::Text),
        ]
    }

    proptest! {
        #[test]
        fn frames_survive_any_cut(rows in proptest::collection::vec(proptest::collection::vec(value(), 3), 0..20), cut in 1usize..40,
            upto in proptest::option::of(proptest::collection::vec(any::<(i64, i64)>(), 0..3))) {
            let end = PartEnd { rows: rows.len() as u64, micros: 7, places: 2, no_table: false };
            let head = Frame::Head { engine: Engine::Sqlite, columns: 3, upto };
            let frames = [Frame::Behind(end.rows), head, Frame::Alive, Frame::Rows(rows), Frame::End(end)];
            let bytes: Vec<u8> = frames.iter().flat_map(|frame| frame.encode().to_vec()).collect();
            let mut decoder = Decoder::default();
            let mut read = Vec::new();
            for piece in bytes.chunks(cut) {
                decoder.push(piece);
                while let Some(frame) = decoder.frame().unwrap() {
                    read.push(frame);
                }
            }
            prop_assert_eq!(read, frames);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), columns in 0usize..4) {
            let mut decoder = Decoder { columns, ..Decoder::default() };
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.frame() {}
        }
    }
}
