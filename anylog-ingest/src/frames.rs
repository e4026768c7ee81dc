//! Frames: what append logs are made of.
//!
//! ```text
//! frame    marker      4   of the log; bytes that no UTF-8 text holds
//!          length      4   bytes of the body, little endian
//!          checksum    4   CRC-32 of length and body
//!          body            length bytes
//! ```
//!
//! A frame is there whole or not at all. The marker begins with `FF FE`, so that no text can look like a frame when a reader
//! searches behind a damaged place. What a body means is the affair of each log: the operator's journal, and the book of the
//! broker.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};

/// Marker, length and checksum.
pub const HEADER_BYTES: usize = 12;

/// The frames of one kind of log.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    /// The first bytes of a frame.
    pub marker: [u8; 4],
    /// The shortest body, in bytes.
    pub least: usize,
    /// The longest body, in bytes.
    pub most: usize,
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The bytes do not begin with the marker.
    #[error("no frame begins here")]
    Marker,
    /// The length cannot be right.
    #[error("impossible length")]
    Length,
    /// The bytes end within the frame.
    #[error("the file ends within a frame")]
    Short,
    /// The checksum does not fit.
    #[error("wrong checksum")]
    Checksum,
    /// The checksum fits, but the body is not understood.
    #[error("unknown content")]
    Content,
}

impl Form {
    /// Appends a frame whose body is what `body` appends.
    pub fn put(&self, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
        let start = out.len();
        out.extend_from_slice(&self.marker);
        out.extend_from_slice(&[0; 8]);
        body(out);
        let begin = start + HEADER_BYTES;
        let length = u32::try_from(out.len() - begin).unwrap_or(u32::MAX).to_le_bytes();
        let checksum = checksum(&length, &out[begin..]);
        out[start + 4..start + 8].copy_from_slice(&length);
        out[start + 8..begin].copy_from_slice(&checksum.to_le_bytes());
    }

    /// The body of the frame at the beginning of `bytes`, checked. The frame takes [`HEADER_BYTES`] more.
    ///
    /// # Errors
    /// [`FrameError`], but not [`FrameError::Content`].
    pub fn body<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8], FrameError> {
        if !bytes.starts_with(&self.marker[..bytes.len().min(4)]) {
            return Err(FrameError::Marker);
        }
        let header = bytes.get(..HEADER_BYTES).ok_or(FrameError::Short)?;
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let length = usize::try_from(word(4)).map_err(|_| FrameError::Length)?;
        if !(self.least..=self.most).contains(&length) {
            return Err(FrameError::Length);
        }
        let body = bytes.get(HEADER_BYTES..HEADER_BYTES + length).ok_or(FrameError::Short)?;
        if checksum(&header[4..8], body) == word(8) { Ok(body) } else { Err(FrameError::Checksum) }
    }

    /// Where the next frame may begin, at `from` or later, behind a damaged place: where the marker stands and `whole` agrees.
    pub fn next(&self, bytes: &[u8], from: usize, whole: impl Fn(&[u8]) -> bool) -> Option<usize> {
        (from..bytes.len().saturating_sub(self.marker.len()))
            .filter(|at| bytes[*at] == self.marker[0] && bytes[*at..].starts_with(&self.marker))
            .find(|at| whole(&bytes[*at..]))
    }
}

fn checksum(length: &[u8], body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(length);
    crc.update(body);
    crc.finalize()
}

/// Appends a number of bytes or things: 4 bytes, little endian.
pub fn put_length(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
}

/// Appends bytes behind their number.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// A body that is being read. Each call takes something from its beginning; none when it is not there.
#[derive(Debug, Clone)]
pub struct Cursor<'a>(pub &'a [u8]);

impl<'a> Cursor<'a> {
    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// So many bytes.
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    fn array<const COUNT: usize>(&mut self) -> Option<[u8; COUNT]> {
        self.take(COUNT)?.try_into().ok()
    }

    /// A number, little endian.
    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    /// A number, little endian.
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    /// A number, little endian.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// A number, little endian.
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A number, little endian.
    pub fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }

    /// A number, little endian.
    pub fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    /// Bytes behind their number.
    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.u32()?).ok()?;
        self.take(length)
    }

    /// Text behind the number of its bytes.
    pub fn str(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    /// The same with its own memory.
    pub fn text(&mut self) -> Option<String> {
        self.str().map(str::to_owned)
    }

    /// A time in microseconds since 1970, UTC.
    pub fn time(&mut self) -> Option<jiff::Timestamp> {
        jiff::Timestamp::from_microsecond(self.i64()?).ok()
    }
}

/// What waits for the thread that writes a log: it takes all that came while it was writing, so one sync serves many.
#[derive(Debug)]
pub struct Line<T> {
    queue: Mutex<Queue<T>>,
    arrived: Condvar,
}

#[derive(Debug)]
struct Queue<T> {
    items: VecDeque<T>,
    closed: bool,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { queue: Mutex::new(Queue { items: VecDeque::new(), closed: false }), arrived: Condvar::new() }
    }
}

impl<T> Line<T> {
    /// Puts something at the end.
    ///
    /// # Errors
    /// Gives it back when the line is closed.
    pub fn push(&self, item: T) -> Result<(), T> {
        let mut queue = self.queue.lock();
        if queue.closed {
            return Err(item);
        }
        queue.items.push_back(item);
        drop(queue);
        self.arrived.notify_one();
        Ok(())
    }

    /// Takes nothing more in. What waits can be taken out still.
    pub fn close(&self) {
        self.queue.lock().closed = true;
        self.arrived.notify_one();
    }

    /// Waits for something, and takes all that is there, in order, until it costs more than `most`; the first in any case. None when
    /// the line is closed and empty.
    pub fn gather(&self, most: usize, cost: impl Fn(&T) -> usize) -> Option<Vec<T>> {
        let mut queue = self.queue.lock();
        while queue.items.is_empty() {
            if queue.closed {
                return None;
            }
            self.arrived.wait(&mut queue);
        }
        let (mut group, mut sum) = (Vec::new(), 0);
        while let Some(item) = queue.items.front() {
            sum += cost(item);
            if !group.is_empty() && sum > most {
                break;
            }
            group.extend(queue.items.pop_front());
        }
        Some(group)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FORM: Form = Form { marker: [0xFF, 0xFE, b'T', b'T'], least: 1, most: 100 };

    #[test]
    fn what_waits_is_taken_together_up_to_a_bound() {
        let line = Line::default();
        for item in [50, 1, 2, 3, 9] {
            line.push(item).unwrap();
        }
        line.close();
        assert_eq!(line.push(7), Err(7));
        let mut taken = Vec::new();
        while let Some(group) = line.gather(6, |item| *item) {
            taken.push(group);
        }
        assert_eq!(taken, [vec![50], vec![1, 2, 3], vec![9]]);
    }

    proptest! {
        // R8: a frame behind a damaged place is found again, and a flipped byte is seen.
        #[test]
        fn frames_are_found_behind_damage(
            noise in proptest::collection::vec(any::<u8>(), 0..40),
            body in proptest::collection::vec(any::<u8>(), 1..100),
            at: prop::sample::Index,
            flip in 1u8..,
        ) {
            let mut bytes = noise.clone();
            FORM.put(&mut bytes, |out| out.extend_from_slice(&body));
            let whole = |bytes: &[u8]| FORM.body(bytes).is_ok();
            prop_assert_eq!(FORM.body(&bytes[noise.len()..]), Ok(&body[..]));
            prop_assert_eq!(FORM.next(&bytes, 0, whole), Some(noise.len()));
            let at = noise.len() + at.index(bytes.len() - noise.len());
            bytes[at] ^= flip;
            prop_assert!(FORM.body(&bytes[noise.len()..]).is_err());
        }

        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            prop_assert!(FORM.body(&bytes).is_err());
            let mut cursor = Cursor(&bytes);
            while cursor.text().is_some() || cursor.u8().is_some() {}
            prop_assert!(cursor.is_empty());
        }
    }
}
