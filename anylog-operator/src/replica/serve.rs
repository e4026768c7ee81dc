//! A complete file as it is given to another member: its run list, and behind it the source file, compressed.
//!
//! Where the archived file or its run list is gone or damaged, the content is made of the rows in the tables ([`rows`]). Either way it is a file
//! on this disk before its first byte is given, so that any part of it can be read again.

mod rows;

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anylog_dbms::{NewFile, SegmentId, TsdFile};
use anylog_replica::FileKey;
use anylog_replica::message::{About, Form};
use flate2::write::GzEncoder;
use jiff::Timestamp;

use super::copies::is_complete;
use super::holdings::Registry;
use super::runs::{Line, RunList};
use super::work::{Namer, nameless};
use crate::OperatorError;
use crate::archive::{self, LARGEST_CONTENT, LEVEL};
use crate::error::file_error;
use crate::incoming::rows::read_packed;
use crate::source_file::{ContentHash, SourceKind, SourceName, registered};
use crate::store::{Settings, Shared};
pub(super) use rows::{condition, quoted, targets};

/// What another member gets of a file.
#[derive(Debug)]
pub struct Content {
    /// What the file is.
    pub about: About,
    /// Names the bytes: the same name, the same bytes. Never 0.
    pub content: u64,
    /// How many bytes there are.
    pub length: u64,
    runs: Vec<u8>,
    file: File,
    path: PathBuf,
}

impl Content {
    fn new(mut about: About, runs: Vec<u8>, form: Form, mut file: File, path: PathBuf) -> Result<Self, OperatorError> {
        let mut namer = Namer::new(form);
        namer.update(&runs);
        let bytes = namer.update_all(&mut file, &path)?;
        about.form = form.into();
        about.runs = runs.len() as u64;
        Ok(Self { content: namer.name(), length: about.runs + bytes, about, runs, file, path })
    }

    /// Reads bytes from a place on; returns how many, 0 only at the end. Blocks.
    ///
    /// # Errors
    /// [`OperatorError::File`] when the disk fails.
    pub fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<usize, OperatorError> {
        let front = usize::try_from(offset).ok().and_then(|offset| self.runs.get(offset..)).unwrap_or_default();
        if !front.is_empty() {
            let count = front.len().min(bytes.len());
            bytes[..count].copy_from_slice(&front[..count]);
            return Ok(count);
        }
        let from = offset - self.runs.len() as u64;
        let mut filled = 0;
        while filled < bytes.len() {
            match self.file.read_at(&mut bytes[filled..], from + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(file_error(&self.path)(error)),
            }
        }
        Ok(filled)
    }
}

/// Opens a file that is complete here. Blocks, for as long as reading it through takes.
///
/// # Errors
/// [`OperatorError::NotGiven`] when it is not complete here, or nothing of it is left.
pub(crate) fn open_content(shared: &Shared, file: FileKey) -> Result<Content, OperatorError> {
    let settings = shared.settings();
    let registry = Registry::of(&settings)?;
    let known = registry.get(file)?.filter(is_complete);
    let known = known.ok_or_else(|| not_given(file, "it is not complete here"))?;
    let mut about = about(&known);
    about.create = shared.tables.create_text(&known.dbms, &known.table).unwrap_or_default();
    match checked(&settings, file, &known) {
        Ok(Some((list, content, path))) => {
            about.segment = list.segment().0.to_le_bytes().to_vec();
            return Content::new(about, list.into_bytes(), Form::Archive, content, path);
        }
        Ok(None) => {}
        Err(error) => {
            let text = format!(
                "The archived file of file {} of member {} is damaged, and its rows in the tables are given to other members instead: \
                 {error}",
                file.file, file.producer
            );
            tracing::error!("{text}");
            shared.node.errors.add(shared.node.clock.now(), "replica", "Damaged archive", text);
        }
    }
    let (runs, content) = rows::make(shared, &settings, file, &known)?;
    Content::new(about, runs, Form::Rows, content, settings.prep_dir.clone())
}

/// The registry on a file.
fn about(file: &TsdFile) -> About {
    About {
        dbms: file.dbms.clone(),
        table: file.table.clone(),
        source: file.source.clone(),
        instructions: file.instructions.clone(),
        time: file.time.as_microsecond(),
        hash: file.hash.clone(),
        rows: u64::try_from(file.rows).unwrap_or_default(),
        ..About::default()
    }
}

/// What mates are told of a file that came whole and is complete.
pub(crate) fn sealed(
    file: FileKey,
    known: &TsdFile,
    segment: SegmentId,
    lines: u64,
) -> anylog_replica::message::Sealed {
    let about = About { segment: segment.0.to_le_bytes().to_vec(), ..about(known) };
    anylog_replica::message::Sealed {
        producer: file.producer,
        file: file.file,
        ordinal: lines,
        about: Some(about),
        ..anylog_replica::message::Sealed::default()
    }
}

/// Where a file is archived, and its name there without `.gz`.
pub(super) fn place(settings: &Settings, file: FileKey, what: &NewFile) -> (PathBuf, String) {
    let name = SourceName {
        dbms: what.dbms.clone(),
        table: what.table.clone(),
        source: what.source.clone(),
        hash: what.hash.clone(),
        instructions: what.instructions.clone(),
        registration: Some(registered(&file.producer.to_string(), file.file, what.time)),
        kind: SourceKind::Json,
        compressed: false,
    };
    (archive::day_directory(&settings.archive_dir, what.time), name.plain())
}

/// What registers a file that is registered.
pub(super) fn registered_as(known: &TsdFile) -> NewFile {
    NewFile {
        dbms: known.dbms.clone(),
        table: known.table.clone(),
        source: known.source.clone(),
        hash: known.hash.clone(),
        instructions: known.instructions.clone(),
        time: known.time,
    }
}

/// The archived file and its run list, as far as they are there.
pub(super) fn archived(
    settings: &Settings,
    file: FileKey,
    known: &TsdFile,
) -> Result<Option<(RunList, File, PathBuf)>, OperatorError> {
    let (directory, plain) = place(settings, file, &registered_as(known));
    let Some((path, packed)) = archive::find(&directory, &plain) else { return Ok(None) };
    let runs = archive::runs_path(&directory, &plain);
    let list = match std::fs::read(&runs) {
        Ok(bytes) => RunList::decode(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(file_error(&runs)(error)),
    };
    let list = list.map_err(|error| OperatorError::File { path: runs, reason: error.to_string() })?;
    let content = File::open(&path).map_err(file_error(&path))?;
    let content = if packed { content } else { pack(settings, content, &path)? };
    Ok(Some((list, content, path)))
}

/// As [`archived`], when the file is what the registry says: who gets one that is not could not use it, and would ask again.
fn checked(
    settings: &Settings,
    file: FileKey,
    known: &TsdFile,
) -> Result<Option<(RunList, File, PathBuf)>, OperatorError> {
    let Some((list, content, path)) = archived(settings, file, known)? else { return Ok(None) };
    each_archived(&list, &content, &path, file, known, |_, _, _| {})?;
    Ok(Some((list, content, path)))
}

/// Reads the rows of an archived file, with the time at which each came and its zone, and sees whether it is what the registry says.
///
/// # Errors
/// [`OperatorError::Compressed`], [`OperatorError::Content`] when it is another one: rows were handed over by then.
pub(super) fn each_archived(
    list: &RunList,
    mut packed: &File,
    path: &Path,
    file: FileKey,
    known: &TsdFile,
    mut row: impl FnMut(&str, Timestamp, &Arc<str>),
) -> Result<(), OperatorError> {
    packed.seek(SeekFrom::Start(0)).map_err(file_error(path))?;
    let name = path.display().to_string();
    let wrong = |reason: &str| OperatorError::Content { name: name.clone(), reason: reason.to_owned() };
    let mut hash = ContentHash::new(&known.dbms, &known.table);
    let bytes = |bytes: &[u8]| {
        hash.update(bytes);
        Ok(())
    };
    let mut lines = list.of_lines();
    read_packed(packed, &name, LARGEST_CONTENT, bytes, |text| match lines.next() {
        Line::Row(_, received, zone) => {
            row(text, received, &zone);
            Ok(())
        }
        Line::Refused => Ok(()),
        Line::Beyond => Err(wrong("it has more rows than its run list")),
    })?;
    if !lines.is_done() {
        return Err(wrong("it has fewer rows than its run list"));
    }
    let of_stream = hash.clone().of_stream(&file.producer.to_string(), &file.file.to_string());
    if known.hash != of_stream && known.hash != hash.of_file() {
        return Err(wrong("its content is not that of its hash in the registry"));
    }
    Ok(())
}

/// A file compressed. The same bytes make the same.
fn pack(settings: &Settings, mut content: File, path: &Path) -> Result<File, OperatorError> {
    let mut encoder = GzEncoder::new(nameless(settings)?, LEVEL);
    let packed = std::io::copy(&mut content, &mut encoder).and_then(|_| encoder.finish());
    packed.and_then(|mut file| file.flush().map(|()| file)).map_err(file_error(path))
}

fn not_given(file: FileKey, reason: impl Into<String>) -> OperatorError {
    OperatorError::NotGiven { producer: file.producer, file: file.file, reason: reason.into() }
}
