//! Files of mates: asked for, taken piece by piece, stored.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anylog_replica::message::{Body, Piece, Taken, Want};
use anylog_replica::{Event, FileKey};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::Driver;
use crate::OperatorError;
use crate::replica::link::Session;
use crate::replica::receive::Receiving;
use crate::tables::blocking;

/// Pieces that may wait to be taken. Who gives a file sends no more ahead.
const PIECES: usize = 8;
/// How long the next piece may take.
const SILENCE: Duration = Duration::from_secs(60);
/// Files that are stored at once: the rows that devices send come first.
const STORING: usize = 1;

/// Files on their way here.
pub(super) struct Fetches {
    files: Mutex<HashMap<FileKey, Fetch>>,
    begun: AtomicU64,
    storing: Semaphore,
}

struct Fetch {
    /// Tells it from others of the same file.
    id: u64,
    from: i64,
    /// None when no more pieces come: the task ends, and whoever fetches the file next waits for that.
    pieces: Option<mpsc::Sender<Piece>>,
    /// The last piece came.
    whole: bool,
    /// Tells whether the file was stored.
    task: Option<JoinHandle<bool>>,
}

impl Default for Fetches {
    fn default() -> Self {
        Self { files: Mutex::default(), begun: AtomicU64::new(0), storing: Semaphore::new(STORING) }
    }
}

impl Fetches {
    /// A piece came. Waits for room when the mate sends more ahead than it should.
    pub(super) async fn piece(&self, from: i64, piece: Piece) {
        let file = piece.key();
        let pieces =
            self.files.lock().get(&file).filter(|fetch| fetch.from == from).and_then(|fetch| fetch.pieces.clone());
        let Some(pieces) = pieces else { return };
        let last = piece.last;
        // What nobody waits for any more is passed over.
        if pieces.send(piece).await.is_ok() && last {
            let mut files = self.files.lock();
            let same = |fetch: &&mut Fetch| fetch.pieces.as_ref().is_some_and(|known| known.same_channel(&pieces));
            if let Some(fetch) = files.get_mut(&file).filter(same) {
                fetch.whole = true;
            }
        }
    }

    /// A mate does not give a file after all.
    pub(super) fn give_up(&self, file: FileKey, from: i64) {
        if let Some(fetch) = self.files.lock().get_mut(&file).filter(|fetch| fetch.from == from) {
            fetch.pieces = None;
        }
    }

    /// A mate's link is at its end: no more pieces come from it. Returns the files of which it sent all.
    pub(super) fn lost(&self, mate: i64) -> Vec<FileKey> {
        let mut files = self.files.lock();
        files.values_mut().filter(|fetch| fetch.from == mate).for_each(|fetch| fetch.pieces = None);
        let whole = |(file, fetch): (&FileKey, &Fetch)| (fetch.from == mate && fetch.whole).then_some(*file);
        files.iter().filter_map(whole).collect()
    }

    /// Forgets a fetch; false when another one took its place.
    fn end(&self, file: FileKey, id: u64) -> bool {
        let mut files = self.files.lock();
        let current = files.get(&file).is_some_and(|fetch| fetch.id == id);
        if current {
            files.remove(&file);
        }
        current
    }
}

impl Driver {
    /// Asks a mate for a file, and stores what comes.
    pub(super) fn fetch(self: &Arc<Self>, from: i64, want: Want) {
        let file = want.key();
        let Some(session) = self.session(from) else { return };
        let (pieces, coming) = mpsc::channel(PIECES);
        let id = self.fetches.begun.fetch_add(1, Ordering::Relaxed);
        // The task has no sender of its own: it is to see when nobody sends any more.
        let fetch = Fetch { id, from, pieces: Some(pieces), whole: false, task: None };
        let earlier = self.fetches.files.lock().insert(file, fetch);
        let driver = Arc::clone(self);
        let task = self.spawn(async move {
            // One at a time: both would write to one temporary file.
            let earlier = earlier.and_then(|earlier| earlier.task);
            if let Some(task) = earlier
                && task.await.unwrap_or(false)
            {
                // It was stored after all, and that was told.
                driver.fetches.end(file, id);
                return true;
            }
            let outcome = driver.receive(&session, file, coming).await;
            let current = driver.fetches.end(file, id);
            match outcome {
                Ok(true) => {
                    driver.tell(Event::Stored(file)).await;
                    return true;
                }
                // The link broke, or the mate does not give it: that is told by itself.
                Ok(false) => {}
                Err(error) if current => driver.failed(file, Some(from), error).await,
                Err(error) => tracing::debug!(%file, mate = from, %error, "A file is fetched from another mate by now"),
            }
            false
        });
        if let Some(fetch) = self.fetches.files.lock().get_mut(&file).filter(|fetch| fetch.id == id) {
            fetch.task = Some(task);
        }
    }

    /// Takes a file and stores it; false when it stopped coming because the link ended or it was given up.
    async fn receive(
        &self,
        session: &Session,
        file: FileKey,
        mut coming: mpsc::Receiver<Piece>,
    ) -> Result<bool, OperatorError> {
        let shared = Arc::clone(&self.shared);
        let mut receiving = blocking(move || Receiving::begin(&shared, file)).await?;
        session.send(&Body::Want(receiving.want()).into());
        let mut rows = 0;
        loop {
            let piece = match tokio::time::timeout(SILENCE, coming.recv()).await {
                Ok(Some(piece)) => piece,
                Ok(None) => return Ok(false),
                Err(_) => {
                    return Err(OperatorError::BadCopy {
                        producer: file.producer,
                        file: file.file,
                        reason: format!("nothing came of it for {} seconds", SILENCE.as_secs()),
                    });
                }
            };
            let offset = piece.offset + piece.bytes.len() as u64;
            rows = piece.about.as_ref().map_or(rows, |about| about.rows);
            let (taken, complete) = blocking(move || {
                let complete = receiving.take(piece)?;
                Ok::<_, OperatorError>((receiving, complete))
            })
            .await?;
            receiving = taken;
            if complete {
                break;
            }
            session.send(&Body::Taken(Taken { producer: file.producer, file: file.file, offset }).into());
        }
        self.tell(Event::Arrived(file)).await;
        // Closed only with this value.
        let Ok(_turn) = self.fetches.storing.acquire().await else { return Ok(false) };
        receiving.store(&self.shared).await?;
        self.notes.lock().stored(file, Some(session.mate), rows);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // R6: what a mate sent before its link ended is on its way to the disk, and said to be so before the end of the link is.
    #[tokio::test]
    async fn a_file_that_came_before_its_link_ended_is_known() {
        let fetches = Fetches::default();
        let of = |file| FileKey { producer: 3, file };
        let mut coming = Vec::new();
        for (file, from) in [(1, 2), (2, 2), (3, 4)] {
            let (pieces, come) = mpsc::channel(PIECES);
            coming.push(come);
            let fetch = Fetch { id: file as u64, from, pieces: Some(pieces), whole: false, task: None };
            fetches.files.lock().insert(of(file), fetch);
        }
        let piece = |file, last| Piece { producer: 3, file, last, ..Piece::default() };
        fetches.piece(2, piece(1, true)).await;
        fetches.piece(2, piece(2, false)).await;
        fetches.piece(4, piece(3, true)).await;
        // From somebody who was not asked.
        fetches.piece(4, piece(2, true)).await;
        assert_eq!(fetches.lost(2), [of(1)]);
        assert!(coming[0].recv().await.is_some_and(|piece| piece.last));
        assert!(coming[0].recv().await.is_none());
        assert!(!fetches.end(of(1), 9) && fetches.end(of(1), 1));
        assert_eq!(fetches.lost(2), []);
    }
}
