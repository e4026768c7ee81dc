//! Who follows the files of this node while they are open.
//!
//! The store tells what it wrote, and asks how many members have it. It knows nothing of links and mates: that is the affair of
//! whoever implements [`Followers`].

use std::time::Instant;

use anylog_ingest::SinkError;
use anylog_replica::FileKey;
use anylog_replica::message::{RowsHeld, Sealed};
use async_trait::async_trait;

use crate::store::Shared;

/// The other members of the cluster, as the store sees them.
///
/// What is told is told by the thread that writes the journal, or by one that seals: it must neither block nor take long.
#[async_trait]
pub trait Followers: Send + Sync {
    /// An own file was opened whose rows are to be followed. Rows come later.
    fn opened(&self, file: FileKey);

    /// Rows of an own file that is followed are on stable storage here, up to this ordinal.
    fn written(&self, held: RowsHeld);

    /// An own file is complete: registered and archived. With 0 `rows` it came to nothing.
    fn complete(&self, sealed: Sealed, rows: u64);

    /// How many members would get rows now, this one included.
    fn reachable(&self) -> u32;

    /// Returns when so many members, this one included, have an own file up to this ordinal on stable storage.
    ///
    /// # Errors
    /// [`SinkError::TooFewCopies`] when that is not so at the deadline, [`SinkError::NotRunning`] when nobody exchanges any more.
    async fn copies(
        &self,
        file: FileKey,
        ordinal: u64,
        copies: u32,
        deadline: Option<Instant>,
    ) -> Result<(), SinkError>;
}

impl Shared {
    /// Tells that an own file is complete: its row in the registry is durable.
    pub(crate) fn completed(&self, sealed: Sealed, rows: u64) {
        let followers = self.followers.read().clone();
        if let Some(followers) = followers {
            followers.complete(sealed, rows);
        }
    }
}
