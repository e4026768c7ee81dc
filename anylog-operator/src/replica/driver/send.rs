//! Files that mates want: read piece by piece, as fast as they are taken.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anylog_replica::message::{Body, Piece, Want};
use anylog_replica::{Event, FileKey};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use super::Driver;
use crate::OperatorError;
use crate::replica::link::Session;
use crate::replica::serve;
use crate::tables::blocking;

/// The size of a piece.
const PIECE: usize = 256 * 1024;
/// Bytes of a file that may be under way.
const WINDOW: u64 = 4 * PIECE as u64;
/// How long a mate may leave pieces untaken.
const STALLED: Duration = Duration::from_secs(60);
/// Files that are read at once for one mate: one at the end of a slow link does not hold up the others.
const READING: usize = 2;

/// Files on their way to mates.
#[derive(Default)]
pub(super) struct Sends {
    /// Where each mate says how much it took.
    taken: Mutex<HashMap<(i64, FileKey), watch::Sender<u64>>>,
    reading: Mutex<HashMap<i64, Arc<Semaphore>>>,
}

impl Sends {
    /// Whose permits the files of a mate are read with.
    fn reading(&self, mate: i64) -> Arc<Semaphore> {
        Arc::clone(self.reading.lock().entry(mate).or_insert_with(|| Arc::new(Semaphore::new(READING))))
    }

    /// A mate took a file up to this place.
    pub(super) fn taken(&self, mate: i64, file: FileKey, offset: u64) {
        if let Some(taken) = self.taken.lock().get(&(mate, file)) {
            taken.send_replace(offset);
        }
    }

    /// Begins to give a mate a file; an earlier wish of the mate for the same file ends.
    fn begin(&self, mate: i64, file: FileKey) -> watch::Receiver<u64> {
        let (sender, taken) = watch::channel(0);
        self.taken.lock().insert((mate, file), sender);
        taken
    }

    /// A file was given, or cannot be. Forgets it, unless the mate wished for it again.
    fn end(&self, mate: i64, file: FileKey) {
        let mut taken = self.taken.lock();
        if taken.get(&(mate, file)).is_some_and(|sender| sender.receiver_count() == 0) {
            taken.remove(&(mate, file));
        }
    }

    /// A mate does not take a file after all.
    pub(super) fn give_up(&self, mate: i64, file: FileKey) {
        self.taken.lock().remove(&(mate, file));
    }

    /// A mate's link is at its end.
    pub(super) fn lost(&self, mate: i64) {
        self.taken.lock().retain(|(to, _), _| *to != mate);
    }
}

fn not_given(file: FileKey, reason: String) -> OperatorError {
    OperatorError::NotGiven { producer: file.producer, file: file.file, reason }
}

impl Driver {
    /// Gives a mate a file.
    pub(super) fn send_file(self: &Arc<Self>, to: i64, want: Want) {
        let file = want.key();
        let Some(session) = self.session(to) else { return };
        let taken = self.sends.begin(to, file);
        let driver = Arc::clone(self);
        self.spawn(async move {
            let given = driver.give(&session, want, taken).await;
            driver.sends.end(to, file);
            match given {
                Ok(true) => driver.notes.lock().sent(to),
                Ok(false) => {}
                Err(error) => {
                    let reason = error.to_string();
                    tracing::debug!(%file, mate = to, %reason, "A file cannot be given to a mate");
                    driver.tell(Event::CannotSend { to, file, reason }).await;
                }
            }
        });
    }

    /// Sends the pieces of a file; false when the mate, or its link, has gone.
    async fn give(
        &self,
        session: &Session,
        want: Want,
        mut taken: watch::Receiver<u64>,
    ) -> Result<bool, OperatorError> {
        let file = want.key();
        let shared = Arc::clone(&self.shared);
        let reading = self.sends.reading(session.mate);
        // It is never closed.
        let Ok(_turn) = reading.acquire().await else { return Ok(false) };
        let content = Arc::new(blocking(move || serve::open_content(&shared, file)).await?);
        let goes_on = want.content == content.content && want.offset <= content.length;
        let begin = if goes_on { want.offset } else { 0 };
        let (mut offset, mut about) = (begin, Some(content.about.clone()));
        loop {
            let waits = async { taken.wait_for(|taken| offset < begin.max(*taken) + WINDOW).await.is_ok() };
            match tokio::time::timeout(STALLED, waits).await {
                Ok(true) => {}
                // Whoever says how much was taken has gone.
                Ok(false) => return Ok(false),
                Err(_) => {
                    let reason = format!("the mate took nothing of it for {} seconds", STALLED.as_secs());
                    return Err(not_given(file, reason));
                }
            }
            let source = Arc::clone(&content);
            let bytes = blocking(move || {
                let mut bytes = vec![0; PIECE];
                let mut filled = 0;
                while filled < bytes.len() {
                    match source.read_at(offset + filled as u64, &mut bytes[filled..])? {
                        0 => break,
                        count => filled += count,
                    }
                }
                bytes.truncate(filled);
                Ok::<_, OperatorError>(bytes)
            })
            .await?;
            let end = offset + bytes.len() as u64;
            if bytes.is_empty() && end < content.length {
                return Err(not_given(file, "it became shorter while it was read".to_owned()));
            }
            let last = end >= content.length;
            let piece = Piece {
                producer: file.producer,
                file: file.file,
                content: content.content,
                offset,
                bytes,
                last,
                about: about.take(),
            };
            if !session.send_piece(&Body::Piece(piece).into()).await {
                return Ok(false);
            }
            if last {
                return Ok(true);
            }
            offset = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // R23: what is known of files on their way goes with them.
    #[test]
    fn files_that_were_given_are_forgotten() {
        let (sends, file) = (Sends::default(), FileKey { producer: 1, file: 2 });
        let first = sends.begin(3, file);
        let second = sends.begin(3, file);
        assert!(first.has_changed().is_err(), "its sender is gone");
        drop(first);
        sends.end(3, file);
        sends.taken(3, file, 9);
        assert_eq!(*second.borrow(), 9);
        drop(second);
        sends.end(3, file);
        assert!(sends.taken.lock().is_empty());
    }
}
