//! Lines on stable storage: messages that could not be mapped, and raw logs of messages.
//!
//! One thread writes. It takes all lines that wait, appends them to their files, syncs each file once, and only then answers: ten
//! thousand malformed messages cost as many syncs as there were pauses between them.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tokio::sync::{mpsc, oneshot};

/// Lines that may wait for the disk; who comes later waits for room.
const WAITING: usize = 1024;

/// Files that are kept open.
const OPEN_FILES: usize = 64;

struct Line {
    path: PathBuf,
    text: String,
    done: oneshot::Sender<Result<(), String>>,
}

/// Appends lines to files and syncs them.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    sender: OnceLock<mpsc::Sender<Line>>,
}

impl Lines {
    /// Appends a line to the file at `path`, which is made when it is not there. Returns when the line is on stable storage.
    pub(crate) async fn append(&self, path: PathBuf, text: String) -> Result<(), String> {
        let sender = self.sender.get_or_init(|| {
            let (sender, receiver) = mpsc::channel(WAITING);
            // The thread ends when the last sender is gone; without a thread, every line fails with this reason.
            let started = std::thread::Builder::new().name("ingest-lines".into()).spawn(move || write_all(receiver));
            if let Err(error) = started {
                tracing::error!(%error, "Cannot start the thread that writes the error files");
            }
            sender
        });
        let (done, answer) = oneshot::channel();
        let gone = || "the writer of the error files has stopped".to_owned();
        sender.send(Line { path, text, done }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

fn write_all(mut receiver: mpsc::Receiver<Line>) {
    let mut files: HashMap<PathBuf, File> = HashMap::new();
    let mut batch = Vec::with_capacity(WAITING);
    while receiver.blocking_recv_many(&mut batch, WAITING) > 0 {
        let mut by_path: HashMap<PathBuf, Vec<Line>> = HashMap::new();
        for line in batch.drain(..) {
            by_path.entry(line.path.clone()).or_default().push(line);
        }
        for (path, lines) in by_path {
            let written = write(&mut files, &path, &lines).map_err(|error| format!("'{}': {error}", path.display()));
            if written.is_err() {
                files.remove(&path);
            }
            for line in lines {
                // Who asked may have gone; the line is there nevertheless.
                drop(line.done.send(written.clone()));
            }
        }
    }
}

fn write(files: &mut HashMap<PathBuf, File>, path: &Path, lines: &[Line]) -> io::Result<()> {
    // A file that somebody moved away or removed is made anew.
    if !files.contains_key(path) || !path.exists() {
        if files.len() >= OPEN_FILES {
            files.clear();
        }
        files.insert(path.to_owned(), open(path)?);
    }
    let Some(file) = files.get_mut(path) else { return Err(io::Error::other("not open")) };
    let mut bytes = Vec::with_capacity(lines.iter().map(|line| line.text.len() + 1).sum());
    for line in lines {
        bytes.extend_from_slice(line.text.as_bytes());
        bytes.push(b'\n');
    }
    file.write_all(&bytes)?;
    file.sync_data()
}

fn open(path: &Path) -> io::Result<File> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    // Without this the name itself may be lost with the power.
    File::open(directory)?.sync_all()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_in_their_files_when_the_answer_comes() {
        let directory = tempfile::tempdir().unwrap();
        let lines = Lines::default();
        let (a, b) = (directory.path().join("err/a.jsonl"), directory.path().join("err/b.jsonl"));
        let all = (0..50).map(|n| lines.append(if n % 2 == 0 { a.clone() } else { b.clone() }, format!("line {n}")));
        for written in futures_util::future::join_all(all).await {
            written.unwrap();
        }
        assert_eq!(fs::read_to_string(&a).unwrap().lines().count(), 25);
        fs::remove_file(&b).unwrap();
        lines.append(b.clone(), "again".into()).await.unwrap();
        assert_eq!(fs::read_to_string(&b).unwrap(), "again\n");
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_made_is_an_error_with_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Lines::default().append(file.join("below"), "x".into()).await.unwrap_err();
        assert!(error.contains("below"), "{error}");
    }
}
