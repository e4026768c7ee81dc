//! Who follows the files of this node while they are open.
//!
//! The store tells what it wrote, and asks how many members have it. It knows nothing of links and mates: that is the affair of
//! whoever implements [`Followers`].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anylog_dbms::SegmentId;
use anylog_ingest::{RowGroup, SinkError};
use anylog_replica::FileKey;
use anylog_replica::message::{RowsHeld, Sealed};
use async_trait::async_trait;

use crate::journal::record::Promised;
use crate::segments::Segment;
use crate::store::{FAILING_PERIOD, PATIENCE, Shared};
use crate::thresholds::{Few, Threshold};

/// How often somebody who waits for other members looks whether the node ends.
const ENDING_PERIOD: Duration = Duration::from_millis(100);

/// The other members of the cluster, as the store sees them.
///
/// What is told is told by the thread that writes the journal, or by one that seals: it must neither block nor take long.
#[async_trait]
pub trait Followers: Send + Sync {
    /// An own file was opened, whether its rows are to be followed or not. Rows come later.
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

/// Rows of a message that other members are to have before it is acknowledged.
#[derive(Debug)]
pub(crate) struct Followed {
    segment: Arc<Segment>,
    /// The last of them.
    ordinal: u64,
}

impl Followed {
    pub(crate) fn segment(&self) -> SegmentId {
        self.segment.header.id
    }

    /// The same, for when the message comes again.
    pub(crate) fn promised(&self) -> Option<Promised> {
        let (header, file) = (&self.segment.header, self.segment.file()?);
        Some(Promised { dbms: header.dbms.clone(), table: header.table.clone(), file, ordinal: self.ordinal })
    }

    /// Adds rows of a message, up to an ordinal.
    pub(crate) fn note(followed: &mut Vec<Followed>, segment: &Arc<Segment>, ordinal: u64) {
        match followed.iter_mut().find(|known| Arc::ptr_eq(&known.segment, segment)) {
            Some(known) => known.ordinal = ordinal,
            None => followed.push(Followed { segment: Arc::clone(segment), ordinal }),
        }
    }
}

impl Shared {
    pub(crate) fn followers(&self) -> Option<Arc<dyn Followers>> {
        self.followers.read().clone()
    }

    /// Tells that an own file is complete: its row in the registry is durable.
    pub(crate) fn completed(&self, sealed: Sealed, rows: u64) {
        if let Some(followers) = self.followers() {
            followers.complete(sealed, rows);
        }
    }

    /// Tells what a frame of the journal brought to segments that are followed.
    pub(crate) fn tell_followers<'s>(&self, written: impl Iterator<Item = (&'s Arc<Segment>, u64)>) {
        let Some(followers) = self.followers() else { return };
        // Runs of one segment lie together in a frame: only the last is told.
        let mut told: Option<RowsHeld> = None;
        for (segment, ordinal) in written.filter(|(segment, _)| segment.is_followed()) {
            let Some(FileKey { producer, file }) = segment.file() else { continue };
            if let Some(before) = told.filter(|held| (held.producer, held.file) != (producer, file)) {
                followers.written(before);
            }
            told = Some(RowsHeld { producer, file, ordinal });
        }
        if let Some(held) = told {
            followers.written(held);
        }
    }

    /// Waits for as many members as the tables of a message ask for, or says that there are too few: never are rows taken under a
    /// lesser promise. Nothing of the message is taken up meanwhile.
    pub(crate) async fn members_are_reached(&self, group: &RowGroup) -> Result<(), SinkError> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let Some((threshold, error)) = self.too_few(group) else { return Ok(()) };
            if self.ending.load(Ordering::Relaxed) {
                return Err(SinkError::NotRunning);
            }
            // Without an exchange no waiting helps.
            let waits = threshold.few == Few::Wait && self.followers.read().is_some();
            if !waits || (!group.patient && tokio::time::Instant::now() >= deadline) {
                return Err(error);
            }
            tokio::time::sleep(FAILING_PERIOD).await;
        }
    }

    /// The first table of a message that asks for more members than can be reached.
    fn too_few(&self, group: &RowGroup) -> Option<(Threshold, SinkError)> {
        let followers = self.followers();
        let reachable = followers.as_ref().map_or(1, |followers| followers.reachable());
        let filled = group.parts.iter().filter(|part| !part.rows.is_empty());
        filled.into_iter().find_map(|part| {
            let threshold = self.thresholds.read().of(&part.dbms, &part.table);
            let short = threshold.is_replicated() && (reachable < threshold.copies || followers.is_none());
            short.then(|| {
                let reason = match followers {
                    Some(_) => "the other members of the cluster are away; nothing of the rows is stored",
                    None => {
                        "this node exchanges no files with others; it does when it runs an operator with a policy of a cluster, \
                         rows are registered, and 'run data distributor' was called"
                    }
                };
                let (dbms, table) = (part.dbms.clone(), part.table.clone());
                (threshold, SinkError::TooFewCopies { dbms, table, wanted: threshold.copies, reachable, reason: reason.into() })
            })
        })
    }

    /// Returns when the members that acknowledged rows are promised on have them. The rows are stored here by now: who would send
    /// them again, and so have them twice, waits as long as it takes; who cannot wait is told.
    pub(crate) async fn members_have(&self, followed: Vec<Followed>, patient: bool) -> Result<(), SinkError> {
        let deadline = (!patient).then(|| Instant::now() + PATIENCE);
        for Followed { segment, ordinal } in followed {
            let wanted = segment.threshold.copies;
            let error = |reachable: u32, why: &str| SinkError::TooFewCopies {
                dbms: segment.header.dbms.clone(),
                table: segment.header.table.clone(),
                wanted,
                reachable,
                reason: format!("{why}; this node has the rows, and sending them again may store them twice"),
            };
            let (Some(followers), Some(file)) = (self.followers(), segment.file()) else {
                return Err(error(1, "the exchange with other members ended"));
            };
            let copied = tokio::select! {
                copied = followers.copies(file, ordinal, wanted, deadline) => copied,
                () = self.ends() => Err(SinkError::NotRunning),
            };
            copied.map_err(|failed| match failed {
                SinkError::TooFewCopies { reachable, reason, .. } => error(reachable, &reason),
                other => other,
            })?;
        }
        Ok(())
    }

    /// Returns when as many members as its table asks for now have rows that are here from before.
    pub(crate) async fn is_kept(&self, promised: Promised) -> Result<(), SinkError> {
        let Promised { dbms, table, file, ordinal } = promised;
        let wanted = self.thresholds.read().of(&dbms, &table).copies;
        if wanted <= 1 {
            return Ok(());
        }
        let Some(followers) = self.followers() else {
            let reason = "this node exchanges no files with others at the moment; it has the rows".to_owned();
            return Err(SinkError::TooFewCopies { dbms, table, wanted, reachable: 1, reason });
        };
        tokio::select! {
            copied = followers.copies(file, ordinal, wanted, None) => copied,
            () = self.ends() => Err(SinkError::NotRunning),
        }
    }

    /// Returns when the node ends.
    async fn ends(&self) {
        while !self.ending.load(Ordering::Relaxed) {
            tokio::time::sleep(ENDING_PERIOD).await;
        }
    }
}
