//! Taking up what the run before kept.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anylog_core::{CommandError, Status};

use super::Broker;
use super::book::{Book, Damage, Key};
use crate::Delivery;

impl Broker {
    /// Keeps sessions, what waits for them and retained messages in a directory, and takes up what is there from before. Damage
    /// is named in the error log and prevents nothing. A second call changes nothing.
    ///
    /// # Errors
    /// A directory that cannot be made or read.
    pub async fn keep_in(self: &Arc<Self>, directory: &Path) -> Result<(), CommandError> {
        let _one_at_a_time = self.keeping.lock().await;
        if self.clients.book().is_some() {
            return Ok(());
        }
        let (me, path) = (Arc::clone(self), directory.to_owned());
        let opened = tokio::task::spawn_blocking(move || Book::open(&path, |damage| me.report_damage(damage)));
        let failed = |error: String| {
            CommandError::new(
                Status::WRITE_FAILURE,
                format!("The broker cannot keep sessions in '{}': {error}", directory.display()),
            )
            .hint("check that the directory can be written")
        };
        let (book, state) = opened.await.map_err(|e| failed(e.to_string()))?.map_err(|e| failed(e.to_string()))?;
        tracing::info!(
            sessions = state.sessions.len(),
            retained = state.retained.len(),
            "The broker took up what it kept"
        );
        self.router.restore(&state);
        let book = Arc::new(book);
        self.clients.restore(Arc::clone(&book), &state, &self.router, self.now());
        tokio::spawn(Arc::clone(self).attend_store());
        let stop = self.node.shutdown.child_token();
        tokio::spawn(async move {
            stop.cancelled().await;
            // Changes that nobody waited for are written as well.
            tokio::task::spawn_blocking(move || book.close());
        });
        Ok(())
    }

    fn report_damage(&self, damage: &Damage) {
        let directory = self.node.directories.directory(&self.node.dictionary, "err_dir");
        let path: PathBuf = directory.join(format!("{}.{}.damaged", damage.file, damage.offset));
        let effect = match (damage.replaced, damage.at_end) {
            (true, _) => "the file before stands in for it",
            (false, true) => "what was written last may be missing",
            (false, false) => "one change is missing, all others are there",
        };
        let text = format!(
            "File {} of the message broker is damaged at byte {} ({} bytes): {}; {effect}. Its bytes are kept in '{}'",
            damage.file,
            damage.offset,
            damage.bytes.len(),
            damage.reason,
            path.display()
        );
        tracing::error!("{text}");
        self.node.errors.add(self.now(), "message broker", "Damaged file", text);
        let kept = std::fs::create_dir_all(&directory).and_then(|()| std::fs::write(&path, &damage.bytes));
        if let Err(error) = kept {
            tracing::error!(file = %path.display(), %error, "The damaged bytes cannot be kept");
        }
    }

    /// Tells each store that is mounted what was released without it, and which sessions have ended.
    async fn attend_store(self: Arc<Self>) {
        let slot = Arc::clone(self.intake.slot());
        let stop = self.node.shutdown.child_token();
        let me = Arc::downgrade(&self);
        drop(self);
        let sink = tokio::select! {
            sink = slot.mounted() => sink,
            () = stop.cancelled() => return,
        };
        let Some(broker) = me.upgrade() else { return };
        if let Err(error) = sink.release(broker.take_owed()).await {
            tracing::warn!(%error, "The end of QoS 2 packets is not written");
        }
        let mut gone: Vec<Arc<str>> = sink.deliveries().into_iter().map(|delivery| delivery.client).collect();
        gone.dedup();
        // Those of the node's own clients at other brokers are theirs to forget.
        gone.retain(|session| Key::read(session).is_some_and(|key| !broker.clients.knows(&key)));
        for session in gone {
            if let Err(error) = sink.forget(&session).await {
                tracing::warn!(%error, "The packets of a session that has ended stay in the journal until the next start");
            }
        }
    }

    /// Lets the store forget the packets of sessions that ended.
    pub(super) fn forget_ended(&self) {
        let ended = self.clients.take_ended();
        let Some(sink) = self.intake.slot().get().filter(|_| !ended.is_empty()) else { return };
        tokio::spawn(async move {
            for key in ended {
                // What stays is forgotten after the next start: its session is not known then.
                if let Err(error) = sink.forget(key.text()).await {
                    tracing::debug!(%error, "The packets of a session that has ended stay in the journal until the next start");
                }
            }
        });
    }

    /// Packets that were released without a store since the last call.
    pub(super) fn take_owed(&self) -> Vec<Delivery> {
        std::mem::take(&mut *self.owed.lock())
    }

    /// Notes packets that were released while no store was there.
    pub(super) fn owe(&self, deliveries: Vec<Delivery>) {
        let mut owed = self.owed.lock();
        let room = super::session::MAX_RECEIVED.saturating_sub(owed.len());
        if deliveries.len() > room {
            let lost = deliveries.len() - room;
            tracing::warn!(lost, "Too many QoS 2 packets end while no store is mounted; their ids stay in the journal");
        }
        owed.extend(deliveries.into_iter().take(room));
    }
}
