//! Rows of open files: to mates, and of mates.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use anylog_replica::message::{Body, Rows, RowsHeld};
use anylog_replica::{Event, FileKey};
use parking_lot::Mutex;

use super::Driver;
use crate::replica::open;
use crate::tables::blocking;

/// Bytes of rows that are read and sent at once.
const TOGETHER: usize = 512 * 1024;

/// Rows that came and are not stored yet, by file: those of a file are stored one after the other. How many there can be is bounded by what
/// mates may have under way.
#[derive(Default)]
pub(super) struct RowQueues {
    files: Mutex<HashMap<FileKey, VecDeque<(i64, Rows)>>>,
}

impl RowQueues {
    /// Adds rows. True when nobody stores rows of the file yet.
    fn push(&self, file: FileKey, from: i64, rows: Rows) -> bool {
        let mut files = self.files.lock();
        let is_idle = !files.contains_key(&file);
        files.entry(file).or_default().push_back((from, rows));
        is_idle
    }

    /// The next rows of a file; none ends the work at it.
    fn pop(&self, file: FileKey) -> Option<(i64, Rows)> {
        let mut files = self.files.lock();
        let next = files.get_mut(&file)?.pop_front();
        if next.is_none() {
            files.remove(&file);
        }
        next
    }
}

/// The last ordinal of rows.
fn last(rows: &Rows) -> Option<u64> {
    let run = rows.runs.iter().rev().find(|run| !run.rows.is_empty())?;
    Some(run.first + run.rows.len() as u64 - 1)
}

fn count(rows: &Rows) -> u64 {
    rows.runs.iter().map(|run| run.rows.len() as u64).sum()
}

impl Driver {
    /// Sends rows of an open file behind an ordinal.
    pub(super) fn send_rows(self: &Arc<Self>, to: i64, after: RowsHeld) {
        let Some(session) = self.session(to) else { return };
        let driver = Arc::clone(self);
        self.spawn(async move {
            let shared = Arc::clone(&driver.shared);
            let read = blocking(move || open::rows_after(&shared, after, TOGETHER)).await;
            let event = match read {
                Ok(Some(all)) => {
                    let mut sent = after;
                    for rows in all {
                        sent.ordinal = last(&rows).unwrap_or(sent.ordinal);
                        driver.notes.lock().rows_sent(to, count(&rows));
                        session.send(&Body::Rows(rows).into());
                    }
                    Event::RowsSent { to, sent }
                }
                Ok(None) => {
                    let file = FileKey::from(after);
                    Event::CannotSend { to, file, reason: format!("{file} is not open here") }
                }
                Err(error) => {
                    tracing::warn!(%error, mate = to, "Rows of an open file cannot be read for a mate");
                    Event::CannotSend { to, file: FileKey::from(after), reason: error.to_string() }
                }
            };
            driver.tell(event).await;
        });
    }

    /// Stores rows that a mate sent, behind those of the same file that came before.
    pub(super) fn store_rows(self: &Arc<Self>, from: i64, rows: Rows) {
        let file = rows.key();
        if !self.rows.push(file, from, rows) {
            return;
        }
        let driver = Arc::clone(self);
        self.spawn(async move {
            while let Some((from, rows)) = driver.rows.pop(file) {
                let count = count(&rows);
                match open::store_rows(&driver.shared, rows).await {
                    Ok(held) => {
                        driver.notes.lock().rows_stored(from, count);
                        driver.tell(Event::RowsStored { from, held }).await;
                    }
                    Err(error) => {
                        tracing::debug!(%file, mate = from, %error, "Rows of a mate were not stored");
                        driver.tell(Event::RowsFailed { from, file }).await;
                    }
                }
            }
        });
    }
}
