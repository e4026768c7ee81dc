//! The local copy: what it holds, and what its file still lacks.
//!
//! What a master does not know is on stable storage before a write returns. What a master knows is written to the file at once, and reaches
//! stable storage a little later: a computer that loses its power finds it at the master. A change of what the file holds already - a policy
//! that became global, was replaced or deleted at the master - makes the file anew, for many changes together: it costs as much as the
//! ledger is large, and losing it costs one more exchange.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Ledger, blocking};
use crate::snapshot::{Contents, Deletion, Snapshot};
use crate::store::file::LedgerFile;
use crate::sync::merge::Merged;
use crate::{LedgerError, Policy};

/// How long a change waits for others before the file is made anew or reaches stable storage.
const PAUSE: Duration = Duration::from_millis(250);
/// Making files takes at most this part of the time.
const SHARE: u32 = 20;

/// The local copy.
pub(crate) struct LocalCopy {
    pub(crate) file: LedgerFile,
    pub(crate) contents: Contents,
    /// The source and the version of its ledger that were merged last, unless something else happened to the copy since.
    pub(crate) merged: Option<(String, String)>,
    // Set when the copy could not be read: then nothing may be written over it.
    pub(super) unreadable: Option<LedgerError>,
    lacks: Lacks,
}

/// What the file lacks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Lacks {
    #[default]
    Nothing,
    /// Stable storage.
    Sync,
    /// Changes of what it holds.
    Changes,
}

impl LocalCopy {
    /// Reads the copy at a path. The second part are sentences on what was wrong with it.
    pub(super) fn load(path: PathBuf) -> (Self, Vec<String>) {
        let file = LedgerFile::new(path);
        let (contents, unreadable, damage) = match file.load() {
            Ok(loaded) => (loaded.contents, None, loaded.damage),
            Err(error) => (Contents::default(), Some(error.clone()), vec![error.to_string()]),
        };
        (Self { file, contents, merged: None, unreadable, lacks: Lacks::Nothing }, damage)
    }

    /// Adds a policy. One that no master knows is on stable storage when this returns.
    pub(crate) fn add(&mut self, policy: Arc<Policy>) -> Result<(), LedgerError> {
        self.file.append(std::slice::from_ref(&policy))?;
        self.lacks = self.lacks.max(Lacks::Sync);
        if policy.is_local() {
            self.file.sync()?;
        }
        self.contents.deleted.retain(|note| note.id != policy.id());
        self.contents.policies.insert(policy);
        Ok(())
    }

    /// Deletes a policy and notes it, on stable storage.
    pub(crate) fn delete(&mut self, deletion: Deletion) -> Result<(), LedgerError> {
        // Only an append: the copy stays readable at every instant, and the note removes the policy when it is read.
        self.file.append_deleted(&deletion)?;
        self.contents.policies.remove(&deletion.id);
        self.contents.replaced.retain(|id| *id != deletion.id);
        self.contents.deleted.retain(|note| note.id != deletion.id);
        self.contents.deleted.push(deletion);
        self.lacks = Lacks::Changes;
        Ok(())
    }

    /// Takes a merged copy.
    pub(crate) fn take(&mut self, merged: &Merged) -> Result<(), LedgerError> {
        if merged.rewritten {
            self.lacks = Lacks::Changes;
        }
        if !merged.added.is_empty() {
            // Also before the file is made anew: what is new is there at once.
            self.file.append(&merged.added)?;
            self.lacks = self.lacks.max(Lacks::Sync);
        }
        self.contents = merged.contents.clone();
        Ok(())
    }

    /// Makes the copy anew, on stable storage.
    pub(crate) fn rewrite(&mut self, contents: Contents) -> Result<(), LedgerError> {
        self.file.rewrite(&contents)?;
        self.contents = contents;
        self.merged = None;
        self.lacks = Lacks::Nothing;
        Ok(())
    }

    /// Gives the file what it lacks.
    fn flush(&mut self) -> Result<(), LedgerError> {
        match self.lacks {
            Lacks::Nothing => return Ok(()),
            Lacks::Sync => self.file.sync()?,
            Lacks::Changes => self.file.rewrite(&self.contents)?,
        }
        self.lacks = Lacks::Nothing;
        Ok(())
    }
}

impl Ledger {
    /// Changes the local copy on a blocking thread; readers see the change when it returned.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut LocalCopy) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let ledger = self.shared();
        blocking(move || {
            let mut copy = ledger.copy.lock();
            if copy.as_ref().is_some_and(|copy| copy.unreadable.is_some()) {
                // What the system refused once it may grant now.
                *copy = None;
            }
            let copy = ledger.loaded(&mut copy);
            if let Some(error) = &copy.unreadable {
                return Err(error.clone());
            }
            let result = change(copy);
            ledger.show(copy);
            if copy.lacks > Lacks::Nothing {
                ledger.flush_soon();
            }
            result
        })
        .await
    }

    /// Lets readers see the copy as it is.
    fn show(&self, copy: &LocalCopy) {
        let mut snapshot = self.snapshot.write();
        let policies = copy.contents.policies.clone();
        *snapshot = match snapshot.take().filter(|(path, _)| path == copy.file.path()) {
            Some((path, before)) if before.stored() == &policies => Some((path, before)),
            before => {
                let next = match before {
                    Some((_, before)) => Snapshot::after(policies, &before),
                    None => Snapshot::new(policies),
                };
                self.notices.send_modify(|count| *count = count.wrapping_add(1));
                Some((copy.file.path().to_owned(), Arc::new(next)))
            }
        };
    }

    /// Gives the file what it lacks, now.
    ///
    /// # Errors
    /// What the operating system refuses; it is tried again with the next change.
    pub async fn flush(&self) -> Result<(), LedgerError> {
        let ledger = self.shared();
        blocking(move || ledger.copy.lock().as_mut().map_or(Ok(()), LocalCopy::flush)).await
    }

    /// Gives the file what it lacks a little later, unless that is on its way.
    fn flush_soon(&self) {
        let mut pause = self.flushing.lock();
        let Some(wait) = pause.take() else { return };
        drop(pause);
        let (ledger, shutdown) = (Arc::downgrade(&self.shared()), self.node.shutdown.clone());
        tokio::spawn(async move {
            tokio::select! {
                // The last time is the business of who ends the node.
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            let Some(ledger) = ledger.upgrade() else { return };
            let began = Instant::now();
            // From here on changes ask again.
            *ledger.flushing.lock() = Some(PAUSE);
            if let Err(error) = ledger.flush().await {
                tracing::error!(%error, "The local copy of the ledger cannot be written");
                ledger.node.errors.add(ledger.node.clock.now(), "ledger", "Blockchain", error.to_string());
            }
            if let Some(pause) = ledger.flushing.lock().as_mut() {
                *pause = PAUSE.max(began.elapsed() * SHARE);
            }
        });
    }
}
