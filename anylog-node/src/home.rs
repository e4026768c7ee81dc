//! The home directory, and the lock that keeps a second node out of it.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anylog_core::CommandError;
use rustix::fs::{FlockOperation, flock};

/// The file that is locked, in the home directory.
const LOCK: &str = ".anylog-node.lock";

/// The home directory: the argument, else `ANYLOG_HOME`, else `EDGELAKE_HOME`, else the working directory.
#[must_use]
pub fn home(argument: Option<PathBuf>) -> PathBuf {
    let of_environment = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    argument
        .or_else(|| of_environment("ANYLOG_HOME"))
        .or_else(|| of_environment("EDGELAKE_HOME"))
        .unwrap_or_else(|| PathBuf::from("."))
}

/// Says that a home directory is in use. The system gives the lock back when the process ends, however it ends.
#[derive(Debug)]
pub struct HomeLock {
    // None where the directory takes no file; nothing is stored there either.
    _file: Option<File>,
}

/// Locks a home directory for one node: two would write the same journal and the same ledger.
///
/// # Errors
/// Another process holds the lock; its id is named.
pub fn lock(home: &Path) -> Result<HomeLock, CommandError> {
    let path = home.join(LOCK);
    let opened = std::fs::create_dir_all(home)
        .and_then(|()| File::options().read(true).write(true).create(true).truncate(false).open(&path));
    let mut file = match opened {
        Ok(file) => file,
        Err(error) => {
            tracing::warn!(%error, file = %path.display(), "The home directory takes no files");
            return Ok(HomeLock { _file: None });
        }
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            let read = file.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
            let holder = if read { format!(" (process {})", holder.trim()) } else { String::new() };
            return Err(CommandError::process(format!("A node runs in '{}' already{holder}", home.display()))
                .hint("end it, or give this one its own directory with --home"));
        }
        Err(error) => {
            tracing::warn!(%error, file = %path.display(), "The home directory cannot be locked on this file system");
            return Ok(HomeLock { _file: None });
        }
    }
    let told = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    if let Err(error) = told {
        tracing::debug!(%error, "The lock does not name its holder");
    }
    Ok(HomeLock { _file: Some(file) })
}
