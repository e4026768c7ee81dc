//! A complete file as it comes from another member.
//!
//! Its bytes are collected in a file of their own, checked as they come, and stored when all are here and are what their name and
//! their hash say ([`store`]). So a content that is damaged leaves no rows, and one that was broken off goes on where it stopped,
//! also after a restart.
//!
//! ```text
//! prep/.incoming/<producer>.<file>.part     the bytes so far
//! prep/.incoming/<producer>.<file>.about    what they are of: a piece without bytes
//! ```

mod away;
mod rows;
mod store;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anylog_replica::FileKey;
use anylog_replica::message::{About, Form, Piece, Want};
use flate2::write::MultiGzDecoder;
use jiff::Timestamp;
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::Semaphore;

use super::copies::bad;
use super::open::whole;
use super::runs::RunList;
use super::work::{Namer, directory};
use crate::OperatorError;
use crate::disk::create_directories;
use crate::error::file_error;
use crate::source_file::ContentHash;
use crate::store::Shared;
pub(crate) use away::take_away;
pub(super) use store::delete_rows;

/// Files that are stored at one time: while one is written into its tables, the other is brought to stable storage.
const AT_ONCE: usize = 2;
/// The longest run list.
const LONGEST_RUNS: u64 = 64 << 20;
/// The most that a file may unpack to.
const LARGEST: u64 = 1 << 36;
/// What nobody went on with for so long is thrown away.
const STALE: Duration = Duration::from_secs(86_400);

/// Files that are on their way here.
#[derive(Debug)]
pub(crate) struct Copying {
    room: Arc<Semaphore>,
    under_way: Mutex<BTreeSet<FileKey>>,
    /// What an earlier run left was looked through.
    cleaned: Mutex<bool>,
}

impl Default for Copying {
    fn default() -> Self {
        Self { room: Arc::new(Semaphore::new(AT_ONCE)), under_way: Mutex::default(), cleaned: Mutex::new(false) }
    }
}

/// A file on its way is collected by one task at a time.
struct UnderWay {
    shared: Arc<Shared>,
    file: FileKey,
}

impl UnderWay {
    fn begin(shared: &Arc<Shared>, file: FileKey) -> Result<Self, OperatorError> {
        if !shared.copying.under_way.lock().insert(file) {
            return Err(OperatorError::Busy { hash: format!("{}.{}", file.producer, file.file) });
        }
        Ok(Self { shared: Arc::clone(shared), file })
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.shared.copying.under_way.lock().remove(&self.file);
    }
}

impl std::fmt::Debug for UnderWay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UnderWay").field("file", &self.file).finish_non_exhaustive()
    }
}

/// A file that is on its way here.
#[derive(Debug)]
pub struct Receiving {
    file: FileKey,
    part: PathBuf,
    about: PathBuf,
    begun: Option<Begun>,
    /// All bytes are here and are what they should be.
    whole: Option<RunList>,
    _under_way: UnderWay,
}

/// The content that is coming.
#[derive(Debug)]
struct Begun {
    about: About,
    content: u64,
    out: File,
    length: u64,
    check: Check,
}

impl Receiving {
    /// Begins to take a file, or goes on with what is left of an earlier attempt. Blocks, for as long as reading that takes.
    ///
    /// # Errors
    /// [`OperatorError::Busy`] when somebody else takes it, and of the file system.
    pub(crate) fn begin(shared: &Arc<Shared>, file: FileKey) -> Result<Self, OperatorError> {
        let directory = directory(&shared.settings());
        clean(shared, &directory);
        let under_way = UnderWay::begin(shared, file)?;
        let path = |kind: &str| directory.join(format!("{}.{}.{kind}", file.producer, file.file));
        let (part, about) = (path("part"), path("about"));
        let mut receiving = Self { file, part, about, begun: None, whole: None, _under_way: under_way };
        if let Err(error) = receiving.resume() {
            tracing::debug!(producer = file.producer, file = file.file, %error, "A file that was broken off begins anew");
            receiving.restart();
        }
        Ok(receiving)
    }

    /// Reads what an earlier attempt left.
    fn resume(&mut self) -> Result<(), OperatorError> {
        let state = match std::fs::read(&self.about) {
            Ok(state) => state,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(file_error(&self.about)(error)),
        };
        let state = Piece::decode(state.as_slice()).map_err(|error| bad(self.file, error.to_string()))?;
        let about = state.about.ok_or_else(|| bad(self.file, "nothing is said about it"))?;
        let mut check = Check::new(self.file, &about)?;
        let failed = file_error(&self.part);
        let mut part = File::options().read(true).append(true).open(&self.part).map_err(&failed)?;
        let (mut buffer, mut length) = (vec![0; 128 << 10], 0u64);
        loop {
            match part.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    check.add(&buffer[..count])?;
                    length += count as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
        self.begun = Some(Begun { about, content: state.content, out: part, length, check });
        Ok(())
    }

    /// What is to be asked for: the rest of the content of which some bytes are there already, or all of it.
    #[must_use]
    pub fn want(&self) -> Want {
        let (offset, content) = self.begun.as_ref().map_or((0, 0), |begun| (begun.length, begun.content));
        Want { producer: self.file.producer, file: self.file.file, offset, content }
    }

    /// What the file is, as far as that was said.
    #[must_use]
    pub fn about(&self) -> Option<&About> {
        self.begun.as_ref().map(|begun| &begun.about)
    }

    /// Takes the next bytes; true when all are here and are what they should be. Blocks.
    ///
    /// # Errors
    /// [`OperatorError::BadCopy`]: nothing of them is kept then, and [`Self::want`] asks for all anew; and of the file system.
    pub fn take(&mut self, piece: Piece) -> Result<bool, OperatorError> {
        let taken = self.add(&piece);
        if taken.is_err() {
            self.restart();
        }
        taken
    }

    fn add(&mut self, piece: &Piece) -> Result<bool, OperatorError> {
        if (piece.producer, piece.file) != (self.file.producer, self.file.file) {
            return Err(bad(self.file, format!("a piece of file {} of member {} came", piece.file, piece.producer)));
        }
        if self.begun.as_ref().is_none_or(|begun| begun.content != piece.content) {
            self.start(piece)?;
        }
        let Some(begun) = &mut self.begun else { return Ok(false) };
        if piece.offset != begun.length {
            let reason =
                format!("bytes from {} on came where those from {} on were wanted", piece.offset, begun.length);
            return Err(bad(self.file, reason));
        }
        begun.check.add(&piece.bytes)?;
        begun.out.write_all(&piece.bytes).map_err(file_error(&self.part))?;
        begun.length += piece.bytes.len() as u64;
        if piece.last {
            self.whole = Some(begun.check.finish(&begun.about, begun.content)?);
        }
        Ok(piece.last)
    }

    /// Begins with a content of which nothing is here.
    fn start(&mut self, piece: &Piece) -> Result<(), OperatorError> {
        let about = piece.about.clone().ok_or_else(|| bad(self.file, "its first piece says nothing about it"))?;
        let check = Check::new(self.file, &about)?;
        self.restart();
        if let Some(directory) = self.part.parent() {
            create_directories(directory).map_err(file_error(directory))?;
        }
        let out = File::create(&self.part).map_err(file_error(&self.part))?;
        let state = Piece {
            producer: self.file.producer,
            file: self.file.file,
            content: piece.content,
            about: Some(about.clone()),
            ..Piece::default()
        };
        // A loss of power may cost it, and then the file begins anew.
        std::fs::write(&self.about, state.encode_to_vec()).map_err(file_error(&self.about))?;
        self.begun = Some(Begun { about, content: piece.content, out, length: 0, check });
        Ok(())
    }

    fn restart(&mut self) {
        (self.begun, self.whole) = (None, None);
        remove(&self.about);
        remove(&self.part);
    }

    /// Stores the file whose bytes are all here. It is durable and complete on return, and stored once, however often this is done and
    /// wherever its rows came from before.
    ///
    /// # Errors
    /// [`OperatorError::Conflict`] when another file is complete under its number; what comes later than its bytes may be tried again.
    pub(crate) async fn store(mut self, shared: &Arc<Shared>) -> Result<(), OperatorError> {
        let (Some(list), Some(begun)) = (self.whole.take(), &self.begun) else {
            return Err(bad(self.file, "not all of its bytes are here"));
        };
        let arrived = store::Arrived {
            file: self.file,
            about: begun.about.clone(),
            content: begun.content,
            list,
            part: self.part.clone(),
            state: self.about.clone(),
        };
        let shared = Arc::clone(shared);
        let work = whole(async move {
            let stored = store::store(&shared, arrived).await;
            let useless = matches!(stored, Err(OperatorError::BadCopy { .. } | OperatorError::Conflict { .. }));
            if stored.is_ok() || useless {
                self.restart();
            }
            stored
        });
        work.await
    }

    /// Gives up: what came so far is removed.
    pub fn discard(mut self) {
        self.restart();
    }
}

fn remove(path: &Path) {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(file = %path.display(), %error, "What came of a file stays");
        }
        _ => {}
    }
}

/// Removes what earlier runs left and nobody goes on with. Once in a run.
fn clean(shared: &Shared, directory: &Path) {
    let mut cleaned = shared.copying.cleaned.lock();
    if std::mem::replace(&mut *cleaned, true) {
        return;
    }
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let modified = entry.metadata().and_then(|data| data.modified()).ok();
        let modified = modified.and_then(|time| Timestamp::try_from(time).ok());
        let is_stale = modified.is_none_or(|time| shared.now().duration_since(time).unsigned_abs() > STALE);
        let is_part = path.extension().is_some_and(|kind| kind == "part" || kind == "about");
        if is_stale || !is_part {
            remove(&path);
        }
    }
}

/// Whether bytes are what they should be, told as they come.
#[derive(Debug)]
struct Check {
    file: FileKey,
    form: Form,
    namer: Namer,
    /// Bytes of the run list that are still to come.
    front: u64,
    runs: Vec<u8>,
    content: MultiGzDecoder<Unpacked>,
}

#[derive(Debug)]
struct Unpacked {
    hash: ContentHash,
    length: u64,
}

impl Write for Unpacked {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.length += bytes.len() as u64;
        if self.length > LARGEST {
            return Err(std::io::Error::other(format!("it unpacks to more than {LARGEST} bytes")));
        }
        self.hash.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Check {
    fn new(file: FileKey, about: &About) -> Result<Self, OperatorError> {
        let form = Form::try_from(about.form).ok().filter(|form| *form != Form::Unknown);
        let form = form.ok_or_else(|| bad(file, format!("form {} of its content is not known here", about.form)))?;
        if about.runs == 0 || about.runs > LONGEST_RUNS {
            return Err(bad(file, format!("its run list would have {} bytes", about.runs)));
        }
        let hash = ContentHash::new(&about.dbms, &about.table);
        let content = MultiGzDecoder::new(Unpacked { hash, length: 0 });
        Ok(Self { file, form, namer: Namer::new(form), front: about.runs, runs: Vec::new(), content })
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), OperatorError> {
        self.namer.update(bytes);
        let front = usize::try_from(self.front).unwrap_or(usize::MAX).min(bytes.len());
        let (runs, content) = bytes.split_at(front);
        self.runs.extend_from_slice(runs);
        self.front -= front as u64;
        self.content.write_all(content).map_err(|error| bad(self.file, format!("it cannot be unpacked: {error}")))
    }

    /// The run list, when all bytes are what they should be.
    fn finish(&mut self, about: &About, content: u64) -> Result<RunList, OperatorError> {
        let file = self.file;
        if self.namer.name() != content {
            return Err(bad(file, "its bytes are others than their name says"));
        }
        self.content.try_finish().map_err(|error| bad(file, format!("it cannot be unpacked: {error}")))?;
        if self.form == Form::Archive {
            let hash = &self.content.get_ref().hash;
            let of_stream = || hash.clone().of_stream(&file.producer.to_string(), &file.file.to_string());
            let of_file = || hash.clone().of_file();
            if about.hash != of_stream() && about.hash != of_file() {
                return Err(bad(file, format!("its rows are not those of hash {}", about.hash)));
            }
        }
        let list = RunList::decode(std::mem::take(&mut self.runs));
        list.map_err(|error| bad(file, format!("its run list: {error}")))
    }
}
