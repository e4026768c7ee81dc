//! The thread that writes a quarantine: everything that waits goes into one write and one sync.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use tokio::sync::{Semaphore, oneshot};

use super::files::Files;
use crate::error::OperatorError;

/// Bytes that may wait for the disk; who comes later waits for room.
const WAITING_BYTES: usize = 8 << 20;
/// The most that one write takes, save that a longer piece is written alone.
const WRITE_BYTES: usize = 1 << 20;

type Done = Box<dyn FnOnce(Result<(), OperatorError>) + Send>;

#[derive(Default)]
struct Queue {
    pieces: VecDeque<(Vec<u8>, Done)>,
    started: bool,
    closed: bool,
}

struct Shared {
    files: Arc<Files>,
    queue: Mutex<Queue>,
    arrived: Condvar,
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    room: Arc<Semaphore>,
}

impl Writer {
    pub(super) fn new(files: Arc<Files>) -> Self {
        let shared = Shared { files, queue: Mutex::default(), arrived: Condvar::new() };
        Self { shared: Arc::new(shared), room: Arc::new(Semaphore::new(WAITING_BYTES)) }
    }

    /// Bytes that wait, and the most that may.
    pub(super) fn waiting(&self) -> (u64, u64) {
        ((WAITING_BYTES - self.room.available_permits().min(WAITING_BYTES)) as u64, WAITING_BYTES as u64)
    }

    /// Writes lines. Returns when they are on stable storage.
    pub(super) async fn write(&self, lines: Vec<u8>) -> Result<(), OperatorError> {
        let wanted = u32::try_from(lines.len().min(WAITING_BYTES)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(wanted).await.map_err(|_| OperatorError::NotRunning)?;
        let (sender, receiver) = oneshot::channel();
        self.submit(
            lines,
            Box::new(move |result| {
                drop(room);
                // A waiter that went away does not mind.
                drop(sender.send(result));
            }),
        );
        receiver.await.unwrap_or(Err(OperatorError::NotRunning))
    }

    /// The same on this thread.
    pub(super) fn write_blocking(&self, lines: Vec<u8>) -> Result<(), OperatorError> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        self.submit(
            lines,
            Box::new(move |result| {
                // The other end waits until it has this.
                drop(sender.send(result));
            }),
        );
        receiver.recv().unwrap_or(Err(OperatorError::NotRunning))
    }

    fn submit(&self, lines: Vec<u8>, done: Done) {
        let mut queue = self.shared.queue.lock();
        if queue.closed {
            drop(queue);
            return done(Err(OperatorError::NotRunning));
        }
        if !queue.started {
            // A node without bad rows has no thread for them.
            let shared = Arc::clone(&self.shared);
            let thread = std::thread::Builder::new().name("quarantine".into()).spawn(move || shared.run());
            if let Err(error) = thread {
                drop(queue);
                let reason = format!("no thread for the quarantine: {error}");
                return done(Err(anylog_ingest::SinkError::Failed { reason }.into()));
            }
            queue.started = true;
        }
        queue.pieces.push_back((lines, done));
        drop(queue);
        self.shared.arrived.notify_one();
    }

    pub(super) fn close(&self) {
        self.shared.queue.lock().closed = true;
        self.shared.arrived.notify_one();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn run(&self) {
        while let Some((lines, done)) = self.take() {
            let result = self.files.append(&lines);
            done.into_iter().for_each(|done| done(result.clone()));
        }
    }

    fn take(&self) -> Option<(Vec<u8>, Vec<Done>)> {
        let mut queue = self.queue.lock();
        while queue.pieces.is_empty() {
            if queue.closed {
                return None;
            }
            self.arrived.wait(&mut queue);
        }
        let (mut lines, mut all) = (Vec::new(), Vec::new());
        while let Some((piece, _)) = queue.pieces.front() {
            if !all.is_empty() && lines.len() + piece.len() > WRITE_BYTES {
                break;
            }
            if let Some((piece, done)) = queue.pieces.pop_front() {
                lines.extend_from_slice(&piece);
                all.push(done);
            }
        }
        Some((lines, all))
    }
}
