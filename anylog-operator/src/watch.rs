//! The watch directory: files that are ready to be stored.
//!
//! Whoever writes there makes the file elsewhere and renames it: a file whose type is json, sql or gz is taken as it is. A file
//! that cannot be stored goes to the error directory as `<name>.err_<status>.<unique>.<type>`; one that only has to wait (a full
//! disk, a database that does not answer) stays.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anylog_core::Status;
use anylog_ingest::SinkError;
use notify::Watcher;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::OperatorError;
use crate::error::file_error;
use crate::incoming;
use crate::source_file::SourceName;
use crate::store::Shared;

/// The directory is read this often, whatever the operating system says of changes.
const RESCAN: Duration = Duration::from_secs(2);
/// A file that had to wait is tried again after this.
const RETRY: Duration = Duration::from_secs(5);

/// Stores files of the watch directory until cancelled.
pub(crate) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let directory = shared.settings().watch_dir.clone();
    let changed = Arc::new(Notify::new());
    let _watcher = watcher(&directory, Arc::clone(&changed));
    let mut waiting: HashMap<PathBuf, Instant> = HashMap::new();
    while !stop.is_cancelled() {
        for path in scan(&directory) {
            if stop.is_cancelled() {
                return;
            }
            if waiting.get(&path).is_some_and(|since| since.elapsed() < RETRY) {
                continue;
            }
            waiting.remove(&path);
            if let Err(error) = incoming::take(&shared, &path).await
                && !dispose(&shared, &path, &error)
            {
                waiting.insert(path, Instant::now());
            }
        }
        waiting.retain(|path, _| path.exists());
        tokio::select! {
            () = stop.cancelled() => return,
            () = changed.notified() => {}
            () = tokio::time::sleep(RESCAN) => {}
        }
    }
}

fn watcher(directory: &Path, changed: Arc<Notify>) -> Option<notify::RecommendedWatcher> {
    let started = notify::recommended_watcher(move |event| {
        if tells(&event) {
            changed.notify_one();
        }
    })
    .and_then(|mut watcher| watcher.watch(directory, notify::RecursiveMode::NonRecursive).map(|()| watcher));
    match started {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(directory = %directory.display(), %error, "No notice of changes in the watch directory; it is read from time to time");
            None
        }
    }
}

/// Whether a notice may mean a new file. Reading the directory makes notices of its own: heeding them would be an endless loop.
fn tells(event: &notify::Result<notify::Event>) -> bool {
    use notify::EventKind;
    use notify::event::{AccessKind, AccessMode};
    match event {
        Ok(event) => match event.kind {
            EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
            EventKind::Remove(_) => false,
            _ => true,
        },
        // Notices were lost: the directory is read.
        Err(_) => true,
    }
}

/// The files that are ready, oldest first.
fn scan(directory: &Path) -> Vec<PathBuf> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::warn!(directory = %directory.display(), %error, "The watch directory cannot be read");
            return Vec::new();
        }
    };
    let mut files: Vec<(std::time::SystemTime, PathBuf)> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let data = entry.metadata().ok().filter(std::fs::Metadata::is_file)?;
            let path = entry.path();
            let kind = path.extension()?.to_str()?;
            matches!(kind, "json" | "sql" | "gz").then_some((data.modified().ok()?, path))
        })
        .collect();
    files.sort();
    files.into_iter().map(|(_, path)| path).collect()
}

/// Puts a file that failed where it belongs; false when it stays and is tried again.
fn dispose(shared: &Shared, path: &Path, error: &OperatorError) -> bool {
    if matches!(error, OperatorError::Busy { .. }) {
        return false;
    }
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let parsed = SourceName::parse(name).ok();
    let (dbms, table) = parsed.as_ref().map_or(("", ""), |name| (&name.dbms, &name.table));
    let now = shared.now();
    shared.stats.error(false, now, dbms, table, error.status().0, &error.to_string());
    let promised = parsed
        .as_ref()
        .and_then(|name| name.registration.as_ref())
        .is_some_and(|by| by.member == shared.settings().member);
    let passes = match error {
        OperatorError::Sink(SinkError::UnknownDbms { .. }) => promised,
        OperatorError::Sink(error) => error.may_retry(),
        OperatorError::Journal(_) | OperatorError::Dbms(_) | OperatorError::Tsd(_) | OperatorError::File { .. } => true,
        _ => false,
    };
    if passes || !path.exists() {
        tracing::warn!(file = name, %error, "A file waits in the watch directory");
        return false;
    }
    tracing::error!(file = name, %error, "A file was put into the error directory");
    shared.node.errors.add(now, "operator", error.status().text(), format!("{name}: {error}"));
    match move_aside(&shared.settings().error_dir, path, code(error), now.as_microsecond()) {
        Ok(_) => true,
        Err(error) => {
            tracing::error!(file = name, %error, "A file cannot be moved to the error directory");
            false
        }
    }
}

/// The number in the name of a file that failed. A database that is not connected is 10 in file names, as documented, and 50
/// in replies.
fn code(error: &OperatorError) -> u16 {
    match error {
        OperatorError::Sink(SinkError::UnknownDbms { .. }) => Status::DBMS_NOT_OPEN.0,
        other => other.status().0,
    }
}

/// Moves a file to the error directory under a name that tells why; returns the new path.
fn move_aside(directory: &Path, path: &Path, status: u16, unique: i64) -> Result<PathBuf, OperatorError> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("file");
    let (stem, kind) = match name.strip_suffix(".gz").and_then(|name| name.rsplit_once('.')) {
        Some((stem, kind)) => (stem, format!("{kind}.gz")),
        None => name.rsplit_once('.').map_or((name, "json".to_owned()), |(stem, kind)| (stem, kind.to_owned())),
    };
    std::fs::create_dir_all(directory).map_err(file_error(directory))?;
    let target = directory.join(format!("{stem}.err_{status}.{unique}.{kind}"));
    std::fs::rename(path, &target).map_err(file_error(path))?;
    Ok(target)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn looking_into_the_directory_is_no_notice() {
        let directory = tempfile::tempdir().unwrap();
        let (heard, ignored) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (one, other) = (Arc::clone(&heard), Arc::clone(&ignored));
        let mut watcher = notify::recommended_watcher(move |event| {
            if tells(&event) { &one } else { &other }.fetch_add(1, Ordering::SeqCst);
        })
        .unwrap();
        watcher.watch(directory.path(), notify::RecursiveMode::NonRecursive).unwrap();
        let until = |count: &AtomicUsize, least: usize| {
            let deadline = Instant::now() + Duration::from_secs(10);
            while count.load(Ordering::SeqCst) < least {
                assert!(Instant::now() < deadline, "no notice came");
                std::thread::yield_now();
            }
        };
        for _ in 0..10 {
            assert!(scan(directory.path()).is_empty());
        }
        until(&ignored, 1);
        assert_eq!(heard.load(Ordering::SeqCst), 0);
        std::fs::write(directory.path().join("d.t.json"), "{}").unwrap();
        until(&heard, 1);
    }
}
