//! The source file of a segment, in the making.
//!
//! A segment that grows fast has its source file written while it is open, behind the rows that are settled. So sealing it is a
//! matter of its last rows, however large it is. What a crash leaves of such a file is written anew by the next start. Its run list
//! grows with it in memory, and is on stable storage before the file has its name.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Piece;
use crate::OperatorError;
use crate::archive::{self, ArchiveFile};
use crate::journal::Position;
use crate::journal::record::{SegmentHeader, TextRow};
use crate::replica::runs::{Lines, Runs};
use crate::segments::Segment;
use crate::source_file::{ContentHash, SourceKind, SourceName, registered};
use crate::store::{Settings, Shared};

/// A source file that was made.
#[derive(Debug)]
pub(crate) struct Source {
    pub(super) hash: String,
    pub(super) rows: u64,
}

/// A source file in the making.
#[derive(Debug)]
pub(crate) struct SourceWriter {
    hash: ContentHash,
    file: Option<ArchiveFile>,
    runs: Runs,
    lines: Vec<u8>,
}

impl SourceWriter {
    pub(super) fn begin(settings: &Settings, header: &SegmentHeader) -> Result<Self, OperatorError> {
        let file = if settings.archive {
            let directory = archive::day_directory(&settings.archive_dir, header.opened);
            Some(ArchiveFile::begin(&directory, &header.id.to_string(), settings.compress)?)
        } else {
            None
        };
        let (hash, runs) = (ContentHash::new(&header.dbms, &header.table), Runs::new(header.id, Lines::Rows));
        Ok(Self { hash, file, runs, lines: Vec::new() })
    }

    /// Adds the rows that were not refused.
    pub(super) fn add_entries(&mut self, entries: &Piece, refused: &BTreeSet<u64>) -> Result<(), OperatorError> {
        for (_, entry) in entries {
            let row = |(text, ordinal)| TextRow { ordinal, received: entry.received, zone: &entry.zone, text };
            let rows = entry.rows.iter().map(String::as_str).zip(entry.first_ordinal..).map(row);
            self.add(rows, refused)?;
        }
        Ok(())
    }

    fn add<'r>(
        &mut self,
        rows: impl Iterator<Item = TextRow<'r>>,
        refused: &BTreeSet<u64>,
    ) -> Result<(), OperatorError> {
        self.lines.clear();
        for row in rows.filter(|row| !refused.contains(&row.ordinal)) {
            self.lines.extend_from_slice(row.text.as_bytes());
            self.lines.push(b'\n');
            self.runs.push(row.ordinal, 1, row.received, row.zone);
        }
        self.hash.update(&self.lines);
        self.file.as_mut().map_or(Ok(()), |file| file.write(&self.lines))
    }

    /// A segment without rows makes no file.
    pub(super) fn finish(mut self, header: &SegmentHeader) -> Result<Source, OperatorError> {
        let rows = self.runs.rows();
        if rows == 0 {
            self.discard();
            return Ok(Source { hash: format!("void:{}", header.id), rows: 0 });
        }
        let hash = self.hash(header);
        if let Some(file) = self.file.take() {
            let name = SourceName {
                dbms: header.dbms.clone(),
                table: header.table.clone(),
                source: header.source.clone(),
                hash: hash.clone(),
                instructions: header.instructions.clone(),
                registration: header.file_id.map(|id| registered(&header.member, id, header.opened)),
                kind: SourceKind::Json,
                compressed: false,
            };
            file.finish_with(&name.plain(), self.runs.encode())?;
        }
        Ok(Source { hash, rows })
    }

    /// The hash of the rows so far, as the whole of a segment.
    fn hash(&self, header: &SegmentHeader) -> String {
        let identity = header.file_id.map_or_else(|| header.id.to_string(), |id| id.to_string());
        self.hash.clone().of_stream(&header.member, &identity)
    }

    pub(super) fn discard(self) {
        if let Some(file) = self.file {
            file.discard();
        }
    }
}

/// Writes the source file of a copy, save the rows that its producer left out; returns how many rows it has. None when it is not the
/// file that its producer has.
pub(crate) fn write_copy(
    shared: &Shared,
    segment: &Segment,
    left_out: &BTreeSet<u64>,
    hash: &str,
) -> Result<Option<u64>, OperatorError> {
    let header = &segment.header;
    let mut source = SourceWriter::begin(&shared.settings(), header)?;
    let positions = segment.positions(0..usize::MAX);
    let written = shared.journal.each_text_of(header.id, &positions, |rows| source.add(rows.iter().copied(), left_out));
    match written {
        Ok(0) if source.hash(header) == hash => source.finish(header).map(|source| Some(source.rows)),
        Ok(_) => {
            source.discard();
            Ok(None)
        }
        Err(error) => {
            source.discard();
            Err(error)
        }
    }
}

/// What is there of a source file before its segment is sealed.
#[derive(Debug, Default)]
pub(crate) enum Ahead {
    /// Nothing.
    #[default]
    Nothing,
    /// A beginning.
    Begun(Box<Begun>),
    /// It could not be written; the seal tries again.
    GivenUp,
}

/// The beginning of a source file.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(super) source: SourceWriter,
    /// Frames of the segment whose rows are in it.
    pub(super) frames: usize,
    /// Those of them that could not be read.
    pub(super) lost: usize,
}

impl Ahead {
    /// Takes what was begun, or begins.
    pub(super) fn take(&mut self, settings: &Settings, header: &SegmentHeader) -> Result<Box<Begun>, OperatorError> {
        match std::mem::take(self) {
            Ahead::Begun(begun) => Ok(begun),
            _ => Ok(Box::new(Begun { source: SourceWriter::begin(settings, header)?, frames: 0, lost: 0 })),
        }
    }

    /// Gives up what was begun.
    pub(super) fn discard(&mut self) {
        if let Ahead::Begun(begun) = std::mem::take(self) {
            begun.source.discard();
        }
    }
}

impl Begun {
    /// Adds the rows of further frames, which are settled.
    pub(super) fn go_on(
        &mut self,
        shared: &Shared,
        segment: &Segment,
        positions: &[Position],
    ) -> Result<(), OperatorError> {
        let refused = segment.refused();
        let lost = shared
            .journal
            .each_text_of(segment.header.id, positions, |rows| self.source.add(rows.iter().copied(), &refused))?;
        self.frames += positions.len();
        self.lost += lost;
        Ok(())
    }
}

/// Writes the source file of an open segment up to the frame with this number. Blocks.
pub(super) fn advance(shared: &Arc<Shared>, segment: &Arc<Segment>, frames: usize) {
    // When it is being sealed, the rest is done there.
    let Some(mut ahead) = segment.sealing.try_lock() else { return };
    if segment.sealed.is_cancelled() || matches!(*ahead, Ahead::GivenUp) {
        return;
    }
    let went_on = ahead.take(&shared.settings(), &segment.header).and_then(|mut begun| {
        let positions = segment.positions(begun.frames..frames.max(begun.frames));
        match begun.go_on(shared, segment, &positions) {
            Ok(()) => Ok(begun),
            Err(error) => {
                begun.source.discard();
                Err(error)
            }
        }
    });
    *ahead = match went_on {
        Ok(begun) => Ahead::Begun(begun),
        Err(error) => {
            tracing::debug!(%error, "A source file is left to the seal of its segment");
            Ahead::GivenUp
        }
    };
}
