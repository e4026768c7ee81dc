//! Rows read back from the journal.

use anylog_dbms::SegmentId;

use super::record::{self, Entry, RowsEntry, TextRow, read_frame};
use super::{Journal, Position, file_name};

/// Bytes of frames that are read back at one time.
const PIECE_BYTES: u64 = 512 << 10;

/// Frames that were read.
struct ReadPiece {
    bytes: Vec<Vec<u8>>,
    /// Where each lies in them, if it could be read.
    frames: Vec<(Position, Option<(usize, usize)>)>,
}

/// Runs of frames that lie near each other in one file.
fn pieces(positions: &[Position]) -> impl Iterator<Item = &[Position]> {
    let mut rest = positions;
    std::iter::from_fn(move || {
        let first = rest.first()?;
        let near = |at: &&Position| {
            at.file == first.file && at.offset >= first.offset && at.end() - u64::from(first.offset) <= PIECE_BYTES
        };
        let count = rest.iter().take_while(near).count().max(1);
        let (piece, later) = rest.split_at(count);
        rest = later;
        Some(piece)
    })
}

impl Journal {
    /// The rows of a segment in these frames, each with its frame's sequence. A frame that cannot be read any more is named in
    /// the log and left out; the number of such frames comes second.
    pub fn rows_of(&self, segment: SegmentId, positions: &[Position]) -> (Vec<(u64, RowsEntry)>, usize) {
        let mut rows = Vec::new();
        let each = |piece: Vec<(u64, RowsEntry)>| {
            rows.extend(piece);
            Ok::<_, std::convert::Infallible>(())
        };
        match self.each_rows_of(segment, positions, each) {
            Ok(lost) => (rows, lost),
            Err(never) => match never {},
        }
    }

    /// As [`Self::rows_of`], handing over the rows in pieces, so that a large segment need not be held as a whole. Ends with the
    /// first error of `each`.
    pub fn each_rows_of<E>(
        &self,
        segment: SegmentId,
        positions: &[Position],
        mut each: impl FnMut(Vec<(u64, RowsEntry)>) -> Result<(), E>,
    ) -> Result<usize, E> {
        let mut lost = 0;
        for piece in pieces(positions) {
            let (rows, bad) = self.read_rows(segment, piece);
            lost += bad;
            if !rows.is_empty() {
                each(rows)?;
            }
        }
        Ok(lost)
    }

    /// Hands the rows of a segment in these frames over in pieces of many, each row with what the journal says of it, without
    /// making anything of them. Ends with the first error of `each`; else the number of frames that cannot be read any more.
    pub(crate) fn each_text_of<E>(
        &self,
        segment: SegmentId,
        positions: &[Position],
        mut each: impl FnMut(&[TextRow<'_>]) -> Result<(), E>,
    ) -> Result<usize, E> {
        let mut lost = 0;
        for piece in pieces(positions) {
            let read = self.read_piece(piece);
            let mut rows = Vec::new();
            for (at, bytes) in &read.frames {
                let before = rows.len();
                let found = bytes.and_then(|(which, from)| {
                    let bytes = read.bytes.get(which)?.get(from..)?;
                    record::each_row(bytes, segment, |row| rows.push(row)).ok()
                });
                if found.is_none() {
                    rows.truncate(before);
                    lost += 1;
                    self.name_lost(at);
                }
            }
            if !rows.is_empty() {
                each(&rows)?;
            }
        }
        Ok(lost)
    }

    /// The rows of a segment in frames of one file that lie near each other.
    fn read_rows(&self, segment: SegmentId, piece: &[Position]) -> (Vec<(u64, RowsEntry)>, usize) {
        let read = self.read_piece(piece);
        let (mut rows, mut lost) = (Vec::new(), 0);
        for (at, bytes) in &read.frames {
            match bytes.and_then(|(which, from)| read_frame(read.bytes.get(which)?.get(from..)?).ok()) {
                Some((frame, _)) => {
                    let own = frame.entries.into_iter().filter_map(|entry| match entry {
                        Entry::Rows(entry) if entry.segment.id == segment => Some((frame.sequence, entry)),
                        _ => None,
                    });
                    rows.extend(own);
                }
                None => {
                    lost += 1;
                    self.name_lost(at);
                }
            }
        }
        (rows, lost)
    }

    fn name_lost(&self, at: &Position) {
        let file = self.shared.directory.join(file_name(at.file));
        let file = file.display();
        tracing::error!(%file, offset = at.offset, "A journal frame is damaged; its rows are lost");
    }

    /// Reads frames of one file that lie near each other, with one call. One that fails must not cost its neighbours: then each is
    /// read alone.
    fn read_piece(&self, piece: &[Position]) -> ReadPiece {
        let mut read = ReadPiece { bytes: Vec::new(), frames: Vec::with_capacity(piece.len()) };
        let (Some(first), Some(last)) = (piece.first(), piece.last()) else { return read };
        let path = self.shared.directory.join(file_name(first.file));
        let from_disk = |from: u32, to: u64| {
            let length = usize::try_from(to - u64::from(from)).unwrap_or(usize::MAX);
            let read = self.shared.disk.read_pieces(&path, &[(u64::from(from), length)]);
            read.ok().and_then(|mut pieces| pieces.pop())
        };
        if let Some(together) = from_disk(first.offset, last.end()) {
            read.bytes.push(together);
            let from = |at: &Position| usize::try_from(at.offset - first.offset).unwrap_or(usize::MAX);
            read.frames.extend(piece.iter().map(|at| (*at, Some((0, from(at))))));
            return read;
        }
        for at in piece {
            let alone = from_disk(at.offset, at.end());
            read.frames.push((*at, alone.is_some().then_some((read.bytes.len(), 0))));
            read.bytes.extend(alone);
        }
        read
    }
}
