//! The files of the book: generations, each a copy of the whole state and the changes after it.
//!
//! A generation `<number, 10 digits>.broker` is written under a temporary name, synced and renamed; the one before it is kept, older
//! ones go (R9). When the copy at the beginning of the newest one is damaged, the one before is read first: it ends where the
//! copy was made. Damage never prevents the start (R8): bytes that are no frame are skipped up to the next frame and named.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::record::{FORM, Record, read_frame};
use super::state::State;
use crate::frames::FrameError;

/// A place in a file that holds no frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damage {
    /// The file's name.
    pub(crate) file: String,
    /// Where it begins, in bytes.
    pub(crate) offset: usize,
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
    /// True when nothing readable follows: a write that did not finish, or a damaged end.
    pub(crate) at_end: bool,
    /// What is wrong.
    pub(crate) reason: String,
    /// True when the generation before stands in for it.
    pub(crate) replaced: bool,
}

/// What the files say.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) state: State,
    pub(crate) damages: Vec<Damage>,
    /// The number of the newest generation, 0 when there is none.
    pub(crate) newest: u32,
}

fn name(number: u32) -> String {
    format!("{number:010}.broker")
}

fn generations(directory: &Path) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?.file_name();
        numbers.extend(entry.to_str().and_then(|name| name.strip_suffix(".broker")?.parse::<u32>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Reads the newest generation, and the one before it when that is needed.
pub(crate) fn read(directory: &Path) -> io::Result<Found> {
    fs::create_dir_all(directory)?;
    let mut numbers = generations(directory)?;
    let Some(newest) = numbers.pop() else { return Ok(Found::default()) };
    let mut damages = Vec::new();
    let (frames, copied) = read_generation(directory, newest, &mut damages);
    let mut state = State::default();
    if !copied && let Some(before) = numbers.pop() {
        damages.iter_mut().for_each(|damage| damage.replaced = true);
        let (frames, _) = read_generation(directory, before, &mut damages);
        frames.iter().for_each(|records| state.apply(records));
    }
    frames.iter().for_each(|records| state.apply(records));
    Ok(Found { state, damages, newest })
}

/// The frames of a generation, and whether the copy that it begins with is whole.
fn read_generation(directory: &Path, number: u32, damages: &mut Vec<Damage>) -> (Vec<Vec<Record>>, bool) {
    let bytes = match fs::read(directory.join(name(number))) {
        Ok(bytes) => bytes,
        Err(error) => {
            let reason = format!("cannot be read: {error}");
            let (file, bytes) = (name(number), Vec::new());
            damages.push(Damage { file, offset: 0, bytes, at_end: true, reason, replaced: false });
            return (Vec::new(), false);
        }
    };
    let (mut frames, mut copied, mut offset) = (Vec::new(), false, 0);
    let sound = damages.len();
    while offset < bytes.len() {
        match read_frame(&bytes[offset..]) {
            Ok((records, length)) => {
                copied |= damages.len() == sound && records.contains(&Record::Complete);
                frames.push(records);
                offset += length;
            }
            Err(error) => {
                let end = FORM.next(&bytes, offset + 1, |bytes| read_frame(bytes).is_ok());
                damages.push(damage(number, &bytes, offset, end, error));
                offset = end.unwrap_or(bytes.len());
            }
        }
    }
    (frames, copied)
}

fn damage(number: u32, bytes: &[u8], offset: usize, end: Option<usize>, error: FrameError) -> Damage {
    Damage {
        file: name(number),
        offset,
        bytes: bytes[offset..end.unwrap_or(bytes.len())].to_vec(),
        at_end: end.is_none(),
        reason: error.to_string(),
        replaced: false,
    }
}

/// A generation that is open for changes.
#[derive(Debug)]
pub(crate) struct Generation {
    file: File,
    path: PathBuf,
    /// Bytes in the file, and how many of them were there at its beginning.
    pub(crate) length: u64,
    pub(crate) copied: u64,
}

impl Generation {
    /// Begins a generation with a copy of the state. It counts from its rename on.
    pub(crate) fn begin(directory: &Path, number: u32, state: &State) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let path = directory.join(name(number));
        let temporary = directory.join(format!("{}.tmp", name(number)));
        let mut length = 0u64;
        let mut file = io::BufWriter::with_capacity(256 * 1024, File::create(&temporary)?);
        state.copy(|frame| {
            length += frame.len() as u64;
            file.write_all(frame)
        })?;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        drop(file);
        fs::rename(&temporary, &path)?;
        File::open(directory)?.sync_all()?;
        // In appending mode nothing is ever written behind a hole.
        let file = OpenOptions::new().append(true).open(&path)?;
        let kept = generations(directory)?.into_iter().filter(|known| known + 1 < number);
        for old in kept {
            let path = directory.join(name(old));
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(file = %path.display(), %error, "An old file of the broker stays");
            }
        }
        Ok(Self { file, path, length, copied: length })
    }

    /// Appends frames; with `sync` they are on stable storage when this returns.
    pub(crate) fn append(&mut self, frames: &[u8], sync: bool) -> io::Result<()> {
        self.file.write_all(frames)?;
        if sync {
            self.file.sync_data()?;
        }
        self.length += frames.len() as u64;
        Ok(())
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}
