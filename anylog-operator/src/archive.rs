//! Source files that are done: `archive/YY/MM/DD/<name>.json.gz`, and when their rows came:
//! `archive/YY/MM/DD/.runs/<name>.json.runs`.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::disk::{create_directories, sync_directory, write_durably};
use crate::error::{OperatorError, file_error};

/// The most that a compressed file may unpack to.
pub const LARGEST_CONTENT: u64 = 1 << 30;

/// Rows of one table resemble each other: the fastest level takes a fraction of the time of the usual one, and little more room.
pub(crate) const LEVEL: Compression = Compression::fast();

/// The directory of a day.
#[must_use]
pub fn day_directory(archive: &Path, time: Timestamp) -> PathBuf {
    directory_of(archive, TimeZone::UTC.to_datetime(time).date())
}

/// The directory of a calendar day.
#[must_use]
pub fn directory_of(archive: &Path, day: Date) -> PathBuf {
    archive.join(format!("{:02}/{:02}/{:02}", day.year().rem_euclid(100), day.month(), day.day()))
}

/// The directory of the run lists of a day's files. It is no archived file, and goes with its day.
const RUNS: &str = ".runs";

/// The run list of a source file, by the file's directory and its name without `.gz`.
#[must_use]
pub fn runs_path(directory: &Path, plain: &str) -> PathBuf {
    directory.join(RUNS).join(format!("{plain}.runs"))
}

/// Finds a source file by its directory and its name without `.gz`: its path, and whether it is compressed.
#[must_use]
pub fn find(directory: &Path, plain: &str) -> Option<(PathBuf, bool)> {
    let (packed, plain) = (directory.join(format!("{plain}.gz")), directory.join(plain));
    if packed.is_file() { Some((packed, true)) } else { plain.is_file().then_some((plain, false)) }
}

/// Removes a source file and its run list; what is not there is fine. Durable on return.
pub fn remove(directory: &Path, plain: &str) -> Result<(), OperatorError> {
    let packed = directory.join(format!("{plain}.gz"));
    for path in [packed, directory.join(plain), runs_path(directory, plain)] {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(file_error(&path)(error)),
            _ => {}
        }
    }
    match sync_directory(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(file_error(directory)(error)),
        _ => Ok(()),
    }
}

/// Writes a source file into a directory, durably; a repeated call writes the same file. Returns its path.
pub fn write(directory: &Path, name: &str, content: &[u8], compress: bool) -> Result<PathBuf, OperatorError> {
    let path = directory.join(if compress { format!("{name}.gz") } else { name.to_owned() });
    let written = if compress {
        pack(content).and_then(|packed| write_durably(&path, &packed))
    } else {
        write_durably(&path, content)
    };
    written.map_err(file_error(&path))?;
    Ok(path)
}

/// A source file that is written piece by piece. It has its name when it is finished; what a crash leaves of it ends with `.tmp`.
#[derive(Debug)]
pub struct ArchiveFile {
    temporary: PathBuf,
    file: Content,
}

#[derive(Debug)]
enum Content {
    Plain(BufWriter<File>),
    Packed(GzEncoder<BufWriter<File>>),
}

impl ArchiveFile {
    /// Begins a file in a directory. Two files that are written at one time have different `work` names.
    pub fn begin(directory: &Path, work: &str, compress: bool) -> Result<Self, OperatorError> {
        let temporary = directory.join(format!("{work}.tmp"));
        let begin = || -> std::io::Result<Content> {
            create_directories(directory)?;
            let file = BufWriter::with_capacity(64 * 1024, File::create(&temporary)?);
            Ok(if compress { Content::Packed(GzEncoder::new(file, LEVEL)) } else { Content::Plain(file) })
        };
        let file = begin().map_err(file_error(&temporary))?;
        Ok(Self { temporary, file })
    }

    /// Writes the next bytes of its content.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), OperatorError> {
        let written = match &mut self.file {
            Content::Plain(file) => file.write_all(bytes),
            Content::Packed(file) => file.write_all(bytes),
        };
        written.map_err(file_error(&self.temporary))
    }

    /// As [`Self::finish`], with the run list of its rows, which is there before the file is. Without one, another list of that name
    /// goes.
    pub(crate) fn finish_with(self, name: &str, runs: Option<Vec<u8>>) -> Result<PathBuf, OperatorError> {
        let path = runs_path(self.temporary.parent().unwrap_or(Path::new(".")), name);
        let written = match runs {
            Some(runs) => write_durably(&path, &runs),
            None => match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
        };
        written.map_err(file_error(&path))?;
        self.finish(name)
    }

    /// As [`Self::finish_with`], for a content that was compressed already and written as it is.
    pub(crate) fn finish_packed(self, name: &str, runs: &[u8]) -> Result<PathBuf, OperatorError> {
        let path = runs_path(self.temporary.parent().unwrap_or(Path::new(".")), name);
        write_durably(&path, runs).map_err(file_error(&path))?;
        self.finish(&format!("{name}.gz"))
    }

    /// Gives it its name, durably. Returns its path.
    pub fn finish(self, name: &str) -> Result<PathBuf, OperatorError> {
        let Self { temporary, file } = self;
        let (mut path, mut name) = (temporary.clone(), name.to_owned());
        let finish = || -> std::io::Result<()> {
            let file = match file {
                Content::Plain(file) => file,
                Content::Packed(encoder) => {
                    name.push_str(".gz");
                    encoder.finish()?
                }
            };
            file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
            path.set_file_name(&name);
            std::fs::rename(&temporary, &path)?;
            sync_directory(path.parent().unwrap_or(Path::new(".")))
        };
        finish().map_err(file_error(&temporary))?;
        Ok(path)
    }

    /// Gives it up.
    pub fn discard(self) {
        if let Err(error) = std::fs::remove_file(&self.temporary) {
            tracing::debug!(file = %self.temporary.display(), %error, "An unfinished source file stays");
        }
    }
}

/// Compresses bytes.
pub fn pack(content: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), LEVEL);
    encoder.write_all(content)?;
    encoder.finish()
}

/// Unpacks a compressed file, up to [`LARGEST_CONTENT`].
///
/// # Errors
/// [`OperatorError::Compressed`] when it is not a gzip file or is too large.
pub fn unpack(name: &str, packed: &[u8]) -> Result<Vec<u8>, OperatorError> {
    let wrong = |reason: String| OperatorError::Compressed { name: name.to_owned(), reason };
    let mut content = Vec::new();
    let mut limited = MultiGzDecoder::new(packed).take(LARGEST_CONTENT + 1);
    limited.read_to_end(&mut content).map_err(|error| wrong(error.to_string()))?;
    if content.len() as u64 > LARGEST_CONTENT {
        return Err(wrong(format!("it unpacks to more than {LARGEST_CONTENT} bytes")));
    }
    Ok(content)
}

/// The names of the files of a day, sorted.
pub fn list(archive: &Path, day: Date) -> Result<Vec<String>, OperatorError> {
    list_in(&directory_of(archive, day))
}

fn list_in(directory: &Path) -> Result<Vec<String>, OperatorError> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(file_error(directory)(error)),
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| !name.ends_with(".tmp") && !name.starts_with('.'))
        .collect();
    names.sort();
    Ok(names)
}

/// Removes the directories of days before `first_kept`; returns how many files went. What is not named like a day is left
/// alone.
pub fn delete_before(archive: &Path, first_kept: Date) -> Result<usize, OperatorError> {
    let mut removed = 0;
    for year in numbered(archive)? {
        for month in numbered(&year.1)? {
            for day in numbered(&month.1)? {
                let numbers = (i16::try_from(2000 + year.0), i8::try_from(month.0), i8::try_from(day.0));
                let (Ok(y), Ok(m), Ok(d)) = numbers else { continue };
                if Date::new(y, m, d).is_ok_and(|date| date < first_kept) {
                    removed += list_in(&day.1)?.len();
                    std::fs::remove_dir_all(&day.1).map_err(file_error(&day.1))?;
                }
            }
            remove_when_empty(&month.1);
        }
        remove_when_empty(&year.1);
    }
    Ok(removed)
}

fn remove_when_empty(directory: &Path) {
    if std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none())
        && let Err(error) = std::fs::remove_dir(directory)
    {
        tracing::debug!(directory = %directory.display(), %error, "An empty archive directory stays");
    }
}

/// Directories named by two digits.
fn numbered(directory: &Path) -> Result<Vec<(i32, PathBuf)>, OperatorError> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(file_error(directory)(error)),
    };
    let mut found: Vec<(i32, PathBuf)> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok().filter(|name| name.len() == 2)?;
            Some((name.parse().ok()?, entry.path()))
        })
        .filter(|(_, path)| path.is_dir())
        .collect();
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_days_go_and_the_rest_stays() {
        let archive = tempfile::tempdir().unwrap();
        for day in ["2026-10-31", "2026-11-01", "2026-11-22"] {
            let directory = directory_of(archive.path(), day.parse().unwrap());
            write(&directory, "d.t.json", b"{}\n", true).unwrap();
            write_durably(&runs_path(&directory, "d.t.json"), b"runs").unwrap();
        }
        std::fs::create_dir_all(archive.path().join("notes")).unwrap();
        assert_eq!(delete_before(archive.path(), "2026-11-02".parse().unwrap()).unwrap(), 2);
        assert!(!archive.path().join("26/10").exists());
        assert_eq!(list(archive.path(), "2026-11-22".parse().unwrap()).unwrap(), ["d.t.json.gz"]);
        assert!(archive.path().join("notes").exists());
    }

    #[test]
    fn a_file_is_found_and_removed_with_its_runs() {
        let archive = tempfile::tempdir().unwrap();
        let directory = directory_of(archive.path(), "2026-11-22".parse().unwrap());
        remove(&directory, "d.t.json").unwrap();
        for compress in [true, false] {
            let path = write(&directory, "d.t.json", b"{}\n", compress).unwrap();
            write_durably(&runs_path(&directory, "d.t.json"), b"runs").unwrap();
            assert_eq!(find(&directory, "d.t.json"), Some((path, compress)));
            remove(&directory, "d.t.json").unwrap();
            assert_eq!(find(&directory, "d.t.json"), None);
            assert!(!runs_path(&directory, "d.t.json").exists());
        }
    }

    #[test]
    fn what_was_packed_is_unpacked() {
        assert_eq!(unpack("x", &pack(b"rows").unwrap()).unwrap(), b"rows");
        assert!(unpack("x", b"no gzip").is_err());
    }
}
