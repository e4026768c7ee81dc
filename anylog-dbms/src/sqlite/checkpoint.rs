//! Logs moved into their files beside the writer.
//!
//! A commit appends to the write-ahead log of a file. Moving the log into the file syncs both, which takes as long as hundreds of
//! commits; so a thread of its own does it. A log begins anew only when all of it was moved, and the writer adds to it
//! meanwhile: so the thread goes over it until little is left, and moves that little while the writer waits.
//!
//! Whoever syncs a file of the same disk meanwhile waits for all that is written: the journal, on which every acknowledgement
//! depends, for the whole log. So a log is synced in pieces while it grows, and little is left when it is moved.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use parking_lot::Mutex;

use super::connection::{Mode, Place, open};
use super::failure;
use super::layout::sync_log;
use super::rows::select;
use super::writer::Writer;
use crate::SqlValue;

/// Files that may wait; when there are more, the writer moves their logs itself in the end.
const WAITING: usize = 64;

/// A log with fewer pages is left to grow.
const SHORT: i64 = 1_000;

/// When a pass beside the writer had no more pages to move, the writer is made to wait for the last one.
const LITTLE: i64 = 300;

/// Passes beside the writer at most.
const PASSES: u32 = 4;

/// Rows, or commits, after which a log is moved into its file: some megabytes.
const MOVED: (usize, u32) = (16_384, 256);

/// Rows, or commits, after which what a log has is written to the disk: half a megabyte, about.
const PIECE: (usize, u32) = (MOVED.0 / 8, MOVED.1 / 8);

/// What a log needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Care {
    /// Nothing.
    None,
    /// What was added is to be written to the disk.
    Sync,
    /// It is to be moved into its file.
    Move,
}

/// How much a log grew since it was cared for last.
#[derive(Debug, Default)]
pub(super) struct Growth {
    unmoved: (usize, u32),
    unsynced: (usize, u32),
}

impl Growth {
    /// Counts a commit of so many rows.
    pub(super) fn add(&mut self, rows: usize) -> Care {
        let reaches = |(had, commits): &mut (usize, u32), most: (usize, u32)| {
            (*had, *commits) = (*had + rows, *commits + 1);
            let reached = *had >= most.0 || *commits >= most.1;
            if reached {
                (*had, *commits) = (0, 0);
            }
            reached
        };
        let synced = reaches(&mut self.unsynced, PIECE);
        match reaches(&mut self.unmoved, MOVED) {
            true => Care::Move,
            false if synced => Care::Sync,
            false => Care::None,
        }
    }
}

/// The thread that moves logs into their files.
#[derive(Debug)]
pub(super) struct Checkpointer {
    asked: Option<SyncSender<(Place, Care)>>,
    /// Held while a file is worked on.
    working: Arc<Mutex<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Checkpointer {
    /// Starts the thread. Without one the writer does all of it.
    pub(super) fn start(name: &str, writer: Arc<Mutex<Writer>>) -> Self {
        let (sender, receiver) = sync_channel(WAITING);
        let working = Arc::<Mutex<()>>::default();
        let (own, dbms) = (Arc::clone(&working), name.to_owned());
        let thread = std::thread::Builder::new()
            .name(format!("log {name}"))
            .spawn(move || run(&dbms, &receiver, &own, &writer))
            .inspect_err(|error| tracing::warn!(%error, "No thread for write-ahead logs; the writer moves them"))
            .ok();
        Self { asked: Some(sender), working, thread }
    }

    /// Asks for a file's log to be cared for some time.
    pub(super) fn ask(&self, place: &Place, care: Care) {
        if care == Care::None || place.file().is_none() {
            return;
        }
        if let Some(asked) = &self.asked
            && let Err(TrySendError::Full(asked)) = asked.try_send((place.clone(), care))
        {
            tracing::debug!(?asked, "A log waits: many files are written to");
        }
    }

    /// Runs `work` while no file is worked on: a file that is removed must not be open, or its log would be taken for that of a
    /// file that is made in its place.
    pub(super) fn paused<T>(&self, work: impl FnOnce() -> T) -> T {
        let _nobody_works = self.working.lock();
        work()
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.asked = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("The thread for write-ahead logs ended with a panic");
        }
    }
}

fn run(dbms: &str, asked: &Receiver<(Place, Care)>, working: &Mutex<()>, writer: &Mutex<Writer>) {
    while let Ok(first) = asked.recv() {
        for (place, care) in together(first, asked.try_iter()) {
            match care {
                Care::None => {}
                Care::Sync => {
                    if let Err(error) = sync(&place, working) {
                        // Nobody is told a second time, so it is noted for who relies on the log.
                        tracing::warn!(%error, ?place, "A write-ahead log cannot be synced");
                        writer.lock().distrust(place.file().map(Path::to_owned));
                    }
                }
                Care::Move => move_log(dbms, &place, working, writer),
            }
        }
    }
}

/// Who asked twice meanwhile is served once, with what needs more.
fn together(first: (Place, Care), others: impl Iterator<Item = (Place, Care)>) -> Vec<(Place, Care)> {
    let mut places = vec![first];
    for (place, care) in others {
        match places.iter_mut().find(|(known, _)| *known == place) {
            Some((_, known)) => *known = (*known).max(care),
            None => places.push((place, care)),
        }
    }
    places
}

/// Writes what a log has to the disk. A place that is gone needs nothing.
fn sync(place: &Place, working: &Mutex<()>) -> io::Result<()> {
    let _open = working.lock();
    place.file().map_or(Ok(false), sync_log).map(drop)
}

fn move_log(dbms: &str, place: &Place, working: &Mutex<()>, writer: &Mutex<Writer>) {
    let mut before = 0;
    let mut log = Log::default();
    for _ in 0..PASSES {
        let open = working.lock();
        log = pass(dbms, place);
        drop(open);
        if log.failed {
            break;
        }
        // What a pass found to do tells what the writer adds meanwhile.
        if log.pages - before <= LITTLE {
            break;
        }
        before = log.moved;
    }
    // A log that a reader keeps is not worth a wait of the writer; nor is one that is short.
    let rest = !log.failed && log.pages > SHORT && log.pages == log.moved;
    if rest || log.failed {
        // In the order in which a partition is dropped.
        let mut writer = writer.lock();
        let _open = working.lock();
        if log.failed || pass(dbms, place).failed {
            writer.distrust(place.file().map(Path::to_owned));
        }
    }
}

/// What a pass saw.
#[derive(Default)]
struct Log {
    /// Pages of the log when the pass began.
    pages: i64,
    /// Those of them that are in the file now.
    moved: i64,
    /// The disk failed. A log is synced before it is moved, so what the disk has of it is not known.
    failed: bool,
}

/// Moves what may be moved.
fn pass(dbms: &str, place: &Place) -> Log {
    let mut seen = Log::default();
    if !place.exists() {
        return seen;
    }
    // Opened for this alone: a file that nobody writes to any more is not kept open.
    let moved = open(dbms, place, Mode::Write).map(|mut connection| {
        select(&mut connection, "PRAGMA wal_checkpoint(PASSIVE)", &mut |_, row| {
            if let [_, SqlValue::Int(pages), SqlValue::Int(moved)] = row.as_slice() {
                seen = Log { pages: *pages, moved: *moved, failed: false };
            }
            ControlFlow::Continue(())
        })
    });
    match moved {
        Ok(Ok(())) => {}
        Ok(Err(error)) if failure::is_of_the_disk(&error) => {
            tracing::warn!(dbms, %error, ?place, "A write-ahead log cannot be moved into its file");
            seen.failed = true;
        }
        Ok(Err(error)) => tracing::debug!(dbms, %error, "A log is not moved now"),
        Err(error) => tracing::debug!(dbms, %error, "A log is not moved now"),
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_synced_in_pieces_until_it_is_moved() {
        // One row with each commit, many rows with few, and one commit of all.
        for (rows, commits) in [(1, 256), (1024, 16), (20_000, 1)] {
            let mut growth = Growth::default();
            for round in 0..3 {
                let cares: Vec<Care> = (0..commits).map(|_| growth.add(rows)).collect();
                let count = |care| cares.iter().filter(|known| **known == care).count();
                assert_eq!(cares.last(), Some(&Care::Move), "{rows} rows, round {round}");
                let synced = if commits == 1 { 0 } else { 7 };
                assert_eq!((count(Care::Move), count(Care::Sync)), (1, synced), "{rows} rows, round {round}");
            }
        }
    }

    #[test]
    fn a_log_that_is_to_be_moved_need_not_be_synced() {
        let place = |name: &str| Place::File(name.into());
        let asked = [("b", Care::Sync), ("a", Care::Move), ("a", Care::Sync), ("b", Care::Sync)];
        let asked = asked.into_iter().map(|(name, care)| (place(name), care));
        let served = together((place("a"), Care::Sync), asked);
        assert_eq!(served, [(place("a"), Care::Move), (place("b"), Care::Sync)]);
    }

    #[test]
    fn only_a_sync_that_fails_is_a_failure() {
        let directory = tempfile::tempdir().unwrap();
        let (file, working) = (directory.path().join("d.dbms"), Mutex::default());
        let place = Place::File(file.clone());
        sync(&place, &working).unwrap();
        std::fs::write(directory.path().join("d.dbms-wal"), "a log").unwrap();
        sync(&place, &working).unwrap();
        std::fs::remove_file(directory.path().join("d.dbms-wal")).unwrap();
        // A device cannot be synced.
        std::os::unix::fs::symlink("/dev/null", directory.path().join("d.dbms-wal")).unwrap();
        sync(&place, &working).unwrap_err();
        sync(&Place::Memory("m".into()), &working).unwrap();
    }

    // A log is synced before it is moved: when that failed, no later sync tells.
    #[test]
    fn a_log_that_cannot_be_moved_is_not_trusted() {
        use crate::sqlite::SqliteDbms;
        use crate::sqlite::layout::{Layout, beside};
        use crate::{ConnectRequest, Dbms as _};

        let directory = tempfile::tempdir().unwrap();
        let request = ConnectRequest::sqlite("d", directory.path());
        let dbms = SqliteDbms::open(&request).unwrap();
        dbms.execute("CREATE TABLE t AS SELECT zeroblob(100000) AS v").unwrap();
        let (place, working) = (Layout::of(&request).unwrap().main(), Mutex::default());
        let log = beside(place.file().unwrap(), "-wal");
        let length = std::fs::metadata(&log).unwrap().len();
        // The last page of it cannot be read.
        std::fs::File::options().write(true).open(&log).unwrap().set_len(length - 1000).unwrap();
        move_log("d", &place, &working, &dbms.writer);
        assert_eq!(dbms.writer.lock().distrusted(), [place]);
    }
}
