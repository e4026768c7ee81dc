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
    task: Option<JoinHandle<()>>,
}

impl Default for Fetches {
    fn default() -> Self {
        Self { files: Mutex::default(), begun: AtomicU64::new(0), storing: Semaphore::new(STORING) }
    }
}

impl Fetches {
    /// A piece came. Waits for room when the mate sends more ahead than it should.
    pub(super) async fn piece(&self, from: i64, piece: Piece) {
        let file = FileKey { producer: piece.producer, file: piece.file };
        let pieces =
            self.files.lock().get(&file).filter(|fetch| fetch.from == from).and_then(|fetch| fetch.pieces.clone());
        if let Some(pieces) = pieces {
            // What nobody waits for any more is passed over.
            drop(pieces.send(piece).await);
        }
    }

    /// A mate does not give a file after all.
    pub(super) fn give_up(&self, file: FileKey, from: i64) {
        if let Some(fetch) = self.files.lock().get_mut(&file).filter(|fetch| fetch.from == from) {
            fetch.pieces = None;
        }
    }

    /// A mate's link is at its end: no more pieces come from it.
    pub(super) fn lost(&self, mate: i64) {
        self.files.lock().values_mut().filter(|fetch| fetch.from == mate).for_each(|fetch| fetch.pieces = None);
    }
}

impl Driver {
    /// Asks a mate for a file, and stores what comes.
    pub(super) fn fetch(self: &Arc<Self>, from: i64, want: Want) {
        let file = FileKey { producer: want.producer, file: want.file };
        let Some(session) = self.session(from) else { return };
        let (pieces, coming) = mpsc::channel(PIECES);
        let id = self.fetches.begun.fetch_add(1, Ordering::Relaxed);
        // The task has no sender of its own: it is to see when nobody sends any more.
        let earlier = self.fetches.files.lock().insert(file, Fetch { id, from, pieces: Some(pieces), task: None });
        let driver = Arc::clone(self);
        let task = self.spawn(async move {
            // One at a time: both would write to one temporary file.
            if let Some(task) = earlier.and_then(|earlier| earlier.task) {
                drop(task.await);
            }
            let outcome = driver.receive(&session, file, coming).await;
            {
                let mut files = driver.fetches.files.lock();
                if files.get(&file).is_some_and(|fetch| fetch.id == id) {
                    files.remove(&file);
                }
            }
            match outcome {
                Ok(true) => driver.tell(Event::Stored(file)).await,
                // The link broke, or the mate does not give it: that is told by itself.
                Ok(false) => {}
                Err(error) => driver.failed(file, Some(from), error).await,
            }
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
