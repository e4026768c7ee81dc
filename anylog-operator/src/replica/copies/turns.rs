//! Whose turn it is to do something to a file.

use std::collections::HashMap;
use std::sync::Arc;

use anylog_replica::FileKey;
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

/// Who does something to a file of another member has its turn.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    lanes: Lanes,
    carrier: Arc<tokio::sync::Mutex<()>>,
}

type Lanes = Arc<Mutex<HashMap<FileKey, Arc<tokio::sync::Mutex<()>>>>>;

/// A turn. It is given up when this is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    file: FileKey,
    lanes: Lanes,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    fn lane(&self, file: FileKey) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(self.lanes.lock().entry(file).or_default())
    }

    /// Returns when nobody else does anything to the file.
    pub(crate) async fn take(&self, file: FileKey) -> Turn {
        let guard = self.lane(file).lock_owned().await;
        Turn { file, lanes: Arc::clone(&self.lanes), guard: Some(guard) }
    }

    /// The right to carry rows on in the journal, if nobody has it.
    pub(in crate::replica) fn carrier(&self) -> Option<OwnedMutexGuard<()>> {
        Arc::clone(&self.carrier).try_lock_owned().ok()
    }

    /// A turn, if nobody has it.
    pub(super) fn try_take(&self, file: FileKey) -> Option<Turn> {
        let guard = self.lane(file).try_lock_owned().ok()?;
        Some(Turn { file, lanes: Arc::clone(&self.lanes), guard: Some(guard) })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut lanes = self.lanes.lock();
        self.guard = None;
        // Who waits holds the lane too.
        if lanes.get(&self.file).is_some_and(|lane| Arc::strong_count(lane) == 1) {
            lanes.remove(&self.file);
        }
    }
}
