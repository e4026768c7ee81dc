//! Files between nodes: `run client (x) file get <there> [<here>]`, `run client (x) file copy <here, with *> [<there>]`.
//!
//! A file is fetched as a stream and sent in parts, each acknowledged, so that any size takes bounded memory at both ends. It appears under its
//! name when it is whole and on stable storage. Paths of another node are its own: it takes only those in its work directories.

use std::io::SeekFrom;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anylog_core::{CommandError, Session, Status};
use anylog_net::{PeerRequest, StreamDeadlines};
use futures_util::StreamExt;
use rand::Rng;
use tokio::fs::{self, File, OpenOptions};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

use super::text_of;
use crate::Ledger;

/// The most files that one command copies.
const MOST_FILES: usize = 10_000;

/// Bytes of a part that is sent.
pub(crate) const PART: usize = 256 * 1024;

/// Fetches a file of another node; returns how many bytes it has.
pub(crate) async fn get(
    ledger: &Ledger,
    node: &str,
    there: &str,
    here: &Path,
    deadline: Duration,
) -> Result<u64, CommandError> {
    let request = PeerRequest::Command { text: format!("file read \"{there}\"") };
    let mut pieces = ledger.peers.stream(node, request, StreamDeadlines::each(deadline)).await?;
    let transfer = transfer_number();
    let temporary = temporary(here, &transfer);
    let mut file = File::create(&temporary).await.map_err(|error| failed(&temporary, &error))?;
    let received = async {
        let mut length = 0;
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            file.write_all(&piece).await.map_err(|error| failed(&temporary, &error))?;
            length += piece.len() as u64;
        }
        finish(&mut file, &temporary, here).await?;
        Ok(length)
    };
    let received: Result<u64, CommandError> = received.await;
    if received.is_err() {
        // What is left of a broken transfer helps nobody; that it cannot be removed is no news.
        fs::remove_file(&temporary).await.ok();
    }
    received
}

/// Sends a file to another node; returns how many bytes it has.
pub(crate) async fn send(
    ledger: &Ledger,
    node: &str,
    here: &Path,
    there: &str,
    deadline: Duration,
) -> Result<u64, CommandError> {
    let mut file = File::open(here).await.map_err(|error| failed(here, &error))?;
    let transfer = transfer_number();
    let mut offset = 0;
    loop {
        let part = read_part(&mut file).await.map_err(|error| failed(here, &error))?;
        let last = part.len() < PART;
        let text = format!("file write part \"{there}\" {transfer} {offset} x{} {last}", hex(&part));
        text_of(node, ledger.peers.call(node, PeerRequest::Command { text }, deadline).await)?;
        offset += part.len() as u64;
        if last {
            return Ok(offset);
        }
    }
}

/// Copies a file of this node; returns how many bytes it has.
pub(crate) async fn duplicate(from: &Path, to: &Path) -> Result<u64, CommandError> {
    let mut source = File::open(from).await.map_err(|error| failed(from, &error))?;
    let temporary = temporary(to, &transfer_number());
    let copied: Result<u64, CommandError> = async {
        let mut file = File::create(&temporary).await.map_err(|error| failed(&temporary, &error))?;
        let bytes = tokio::io::copy(&mut source, &mut file).await.map_err(|error| failed(&temporary, &error))?;
        finish(&mut file, &temporary, to).await?;
        Ok(bytes)
    }
    .await;
    if copied.is_err() {
        // As of a broken transfer.
        fs::remove_file(&temporary).await.ok();
    }
    copied
}

async fn read_part(file: &mut File) -> std::io::Result<Vec<u8>> {
    let mut part = Vec::with_capacity(PART);
    file.take(PART as u64).read_to_end(&mut part).await?;
    Ok(part)
}

/// One part of a file that another node sends.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) path: PathBuf,
    pub(crate) transfer: String,
    pub(crate) offset: u64,
    pub(crate) data: Vec<u8>,
    pub(crate) last: bool,
}

impl Part {
    /// Writes the part; the last one makes the file appear.
    pub(crate) async fn write(self) -> Result<(), CommandError> {
        let temporary = temporary(&self.path, &self.transfer);
        let failed = |error: std::io::Error| failed(&temporary, &error);
        let mut file = OpenOptions::new()
            .create(self.offset == 0)
            .truncate(self.offset == 0)
            .write(true)
            .open(&temporary)
            .await
            .map_err(failed)?;
        let length = file.metadata().await.map_err(failed)?.len();
        if length != self.offset {
            return Err(CommandError::new(
                Status::WRITE_FAILURE,
                format!("A part of '{}' begins at {} and {length} bytes are there", self.path.display(), self.offset),
            )
            .hint("send the file again"));
        }
        file.seek(SeekFrom::Start(self.offset)).await.map_err(failed)?;
        file.write_all(&self.data).await.map_err(failed)?;
        if self.last {
            return finish(&mut file, &temporary, &self.path).await;
        }
        file.flush().await.map_err(failed)
    }
}

/// Makes a whole file appear under its name.
async fn finish(file: &mut File, temporary: &Path, path: &Path) -> Result<(), CommandError> {
    file.sync_all().await.map_err(|error| failed(temporary, &error))?;
    fs::rename(temporary, path).await.map_err(|error| failed(path, &error))?;
    match path.parent().filter(|directory| cfg!(unix) && !directory.as_os_str().is_empty()) {
        Some(directory) => {
            let directory = File::open(directory).await.map_err(|error| failed(path, &error))?;
            directory.sync_all().await.map_err(|error| failed(path, &error))
        }
        None => Ok(()),
    }
}

/// The file of a transfer that is not whole yet. The watch directory leaves files of this type alone.
fn temporary(path: &Path, transfer: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{transfer}.transfer"));
    PathBuf::from(name)
}

fn transfer_number() -> String {
    format!("{:016x}", rand::rng().random::<u64>())
}

fn failed(path: &Path, error: &std::io::Error) -> CommandError {
    let status = match error.kind() {
        std::io::ErrorKind::NotFound => Status::NO_SUCH_FILE,
        std::io::ErrorKind::StorageFull => Status::DISK_FULL,
        _ => Status::WRITE_FAILURE,
    };
    CommandError::new(status, format!("File '{}' failed: {error}", path.display()))
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value & 15)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

/// The bytes of `x...`; none for what is no such text.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix('x')?.as_bytes();
    let value = |digit: &u8| char::from(*digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let pairs = digits.chunks(2).map(|pair| match pair {
        [high, low] => Some((value(high)? << 4) | value(low)?),
        _ => None,
    });
    pairs.collect()
}

/// The name of a file at the end of a path.
pub(crate) fn file_name(path: &str) -> Result<&str, CommandError> {
    let name = path.rsplit(['/', '\\']).next().unwrap_or_default();
    // The name becomes a part of a path and of a command of the other node.
    if matches!(name, "" | "." | "..") || name.contains(['"', '\n', '\r', '\0']) {
        return Err(CommandError::structure(format!("'{path}' names no file")));
    }
    Ok(name)
}

/// The files here that a path names: itself, or those whose names fit the `*` in its last part.
pub(crate) async fn chosen(session: &Session, path: &str) -> Result<Vec<PathBuf>, CommandError> {
    let (directory, pattern) = path.rsplit_once('/').map_or((".", path), |(directory, name)| (directory, name));
    if !pattern.contains('*') {
        return Ok(vec![session.permit_path(path)?]);
    }
    if directory.contains('*') {
        return Err(CommandError::structure(format!("'{path}': only the name of a file may hold '*'")));
    }
    let listed = session.permit_path(if directory.is_empty() { "/" } else { directory })?;
    let unreadable = |error| failed(&listed, &error);
    let mut entries = fs::read_dir(&listed).await.map_err(unreadable)?;
    let mut found = Vec::new();
    while let Some(entry) = entries.next_entry().await.map_err(unreadable)? {
        let name = entry.file_name();
        if !name.to_str().is_some_and(|name| fits(pattern, name)) {
            continue;
        }
        // A link may lead out of the directories that this caller may use; then it is left out like any other file that is not his.
        let Ok(permitted) = session.permit_path(&entry.path().to_string_lossy()) else { continue };
        if fs::metadata(&permitted).await.is_ok_and(|metadata| metadata.is_file()) {
            found.push(entry.path());
        }
        if found.len() > MOST_FILES {
            return Err(CommandError::parameter(format!("More than {MOST_FILES} files fit '{path}'"))
                .hint("copy them in groups, by more of their names"));
        }
    }
    found.sort();
    if found.is_empty() {
        return Err(CommandError::new(Status::NO_FILES, format!("No file fits '{path}'")));
    }
    Ok(found)
}

/// Whether a name fits a pattern in which `*` stands for any characters.
fn fits(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    // Without a `*` the pattern is the name.
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// The path of a file here: the one that is named, else the same name in the directory for temporary files.
pub(crate) fn here(session: &Session, named: Option<&str>, there: &str) -> Result<PathBuf, CommandError> {
    match named {
        Some(path) => session.permit_path(path),
        None => Ok(session.directory("tmp_dir").join(file_name(there)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, name, expected) in [
            ("*", "a.json", true),
            ("bl*.js*", "block.json", true),
            ("bl*.js*", "block.txt", false),
            ("*.json", "a.json.gz", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("*ü*", "grün", true),
            ("a**b", "ab", true),
            ("a", "ab", false),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_name_is_no_way_and_no_command() {
        for path in ["", "a/", "..", "/x/..", "a\\..", ".", "a\"b", "a\nb"] {
            assert!(file_name(path).is_err(), "{path:?}");
        }
        assert_eq!(file_name("/x/y z.json"), Ok("y z.json"));
    }

    proptest::proptest! {
        #[test]
        fn patterns_fit_as_their_expressions_do(pattern in "[ab*]{0,8}", name in "[ab]{0,8}") {
            fn slow(pattern: &[u8], name: &[u8]) -> bool {
                match pattern {
                    [] => name.is_empty(),
                    [b'*', rest @ ..] => (0..=name.len()).any(|at| slow(rest, &name[at..])),
                    [c, rest @ ..] => name.first() == Some(c) && slow(rest, &name[1..]),
                }
            }
            proptest::prop_assert_eq!(fits(&pattern, &name), slow(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
