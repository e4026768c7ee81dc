//! Files and directories.

use std::path::Path;
use std::sync::Arc;

use super::{BlockingCall, blocking};
use crate::command::{Command, CommandResult, Declaration};
use crate::{CommandError, Reply, Status};

/// The most entries that a listing shows.
const MAX_ENTRIES: usize = 10_000;

pub(super) fn commands() -> Vec<Arc<dyn Command>> {
    vec![
        blocking(
            Declaration::new("file test", "Tests whether a file is there.")
                .reads()
                .word("path", "the path of the file")
                .returns("True or False")
                .example("if_there = file test !local_scripts/local.al"),
            |call| {
                let path = call.path()?;
                Ok(if path.is_file() { "True" } else { "False" }.into())
            },
        ),
        blocking(
            Declaration::new("get files", "Lists the files of a directory.")
                .reads()
                .word("path", "the directory")
                .returns("one file name per line, sorted")
                .example("get files !err_dir"),
            |call| list(call, |path| path.is_file()),
        ),
        blocking(
            Declaration::new("get directories", "Lists the directories in a directory.")
                .reads()
                .word("path", "the directory")
                .returns("one directory name per line, sorted")
                .example("get directories !archive_dir"),
            |call| list(call, |path| path.is_dir()),
        ),
        blocking(
            Declaration::new("get size", "Shows how many bytes a file takes, or all files below a directory.")
                .reads()
                .word("path", "a file or a directory")
                .returns("bytes")
                .example("get size !archive_dir"),
            size,
        ),
    ]
}

impl BlockingCall {
    /// The path that the call names, if this caller may use it.
    pub(super) fn path(&self) -> Result<std::path::PathBuf, CommandError> {
        let path = self.call.expect_positional("path")?;
        let path = path.trim_matches('\'');
        if path.is_empty() {
            return Err(CommandError::structure("The path is empty"));
        }
        self.node.directories.permit(&self.caller, path)
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> CommandError {
    if error.kind() == std::io::ErrorKind::NotFound {
        return CommandError::new(Status::NO_SUCH_DIRECTORY, format!("'{}' does not exist", path.display()));
    }
    CommandError::new(Status::READ_DIRECTORY, format!("Failed to read '{}': {error}", path.display()))
}

fn list(call: &BlockingCall, wanted: fn(&Path) -> bool) -> CommandResult {
    let path = call.path()?;
    let entries = std::fs::read_dir(&path).map_err(|error| unreadable(&path, &error))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| unreadable(&path, &error))?;
        if wanted(&entry.path()) {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    let left_out = names.len().saturating_sub(MAX_ENTRIES);
    names.truncate(MAX_ENTRIES);
    if left_out > 0 {
        names.push(format!("... and {left_out} more"));
    }
    Ok(if names.is_empty() { Reply::Empty } else { names.join("\r\n").into() })
}

fn size(call: &BlockingCall) -> CommandResult {
    let path = call.path()?;
    let metadata = std::fs::symlink_metadata(&path).map_err(|error| unreadable(&path, &error))?;
    if !metadata.is_dir() {
        return Ok(metadata.len().to_string().into());
    }
    let mut total = 0_u64;
    let mut open = vec![path];
    while let Some(directory) = open.pop() {
        // What vanishes or is closed to this user meanwhile does not count.
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => open.push(entry.path()),
                Ok(metadata) => total = total.saturating_add(metadata.len()),
                Err(_) => {}
            }
        }
    }
    Ok(total.to_string().into())
}
