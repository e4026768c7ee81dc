//! Copies of open files that other members produce: their rows in the journal and the tables of this one.
//!
//! A copy has the segment id of its producer's segment, and its rows their ordinals, times and zones. So whatever brings a row -
//! live, with the whole file, out of the journal after a crash - stores it once: the applied marks of the segment count ordinals.
//!
//! Whoever does something to a file of another member has its [`Turn`] meanwhile. Rows of one file go into the journal one frame
//! after the other, each when the one before it is on stable storage: a copy has no gap that its producer has not.

mod take;
mod turns;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anylog_dbms::{SegmentId, tsd};
use anylog_ingest::SinkError;
use anylog_replica::FileKey;
use anylog_replica::message::About;
use jiff::Timestamp;
use parking_lot::Mutex;

use super::holdings::Registry;
use crate::OperatorError;
use crate::incoming::unfinished;
use crate::journal::record::SegmentHeader;
use crate::seal::{apply_entries, mark_sealed, prune};
use crate::segments::Segment;
use crate::source_file::{SourceKind, SourceName, registered};
use crate::store::Shared;
use crate::tables::blocking;
pub(super) use take::take;
pub(crate) use turns::{Turn, Turns};

/// How long a file of this member waits for what others may have of it while nobody exchanges files with them.
const ALONE: Duration = Duration::from_secs(30);

/// A copy of an open file that another node sends; or a file of this member that others may have more of.
#[derive(Debug)]
pub(crate) struct OpenCopy {
    pub(crate) segment: Arc<Segment>,
    /// Its producer sealed another file than this becomes.
    pub(super) differs: AtomicBool,
    /// A file of this member that others followed before a start.
    pub(super) own: bool,
    /// Since when nobody exchanges files with other members, at an earlier look.
    alone_since: Mutex<Option<Instant>>,
}

impl OpenCopy {
    pub(crate) fn new(segment: Arc<Segment>, own: bool) -> Arc<Self> {
        Arc::new(Self { segment, differs: AtomicBool::new(false), own, alone_since: Mutex::new(None) })
    }

    /// Whether nobody exchanged files with other members for long, whenever this was asked.
    fn is_left_alone(&self, alone: bool) -> bool {
        let mut since = self.alone_since.lock();
        if !alone {
            *since = None;
            return false;
        }
        since.get_or_insert_with(Instant::now).elapsed() >= ALONE
    }
}

pub(super) fn bad(file: FileKey, reason: impl Into<String>) -> OperatorError {
    OperatorError::BadCopy { producer: file.producer, file: file.file, reason: reason.into() }
}

/// Whether a registered file has all its rows here.
pub(crate) fn is_complete(file: &anylog_dbms::TsdFile) -> bool {
    let missing = [tsd::VOID, tsd::TAKEN_AWAY].contains(&file.status1.as_str());
    !unfinished(file) && file.rows > 0 && !missing && !file.hash.starts_with("open:")
}

/// What the rows of a file share, as its producer says.
pub(super) fn header_of(file: FileKey, about: &About) -> Result<SegmentHeader, OperatorError> {
    let id: [u8; 16] = about.segment.as_slice().try_into().map_err(|_| bad(file, "its identity has not 16 bytes"))?;
    let opened = Timestamp::from_microsecond(about.time).map_err(|_| bad(file, "its time is none"))?;
    let member = file.producer.to_string();
    let name = SourceName {
        dbms: about.dbms.clone(),
        table: about.table.clone(),
        source: about.source.clone(),
        hash: "0".into(),
        instructions: about.instructions.clone(),
        registration: Some(registered(&member, file.file, opened)),
        kind: SourceKind::Json,
        compressed: false,
    };
    // What names a file must be what it says, wherever it is read.
    let plain = name.plain();
    if plain.contains(['/', '\\', '\0']) || SourceName::parse(&plain).ok().as_ref() != Some(&name) {
        return Err(bad(file, format!("'{plain}' is no name of a source file")));
    }
    Ok(SegmentHeader {
        id: SegmentId(u128::from_le_bytes(id)),
        dbms: name.dbms,
        table: name.table,
        source: name.source,
        instructions: name.instructions,
        member,
        file_id: Some(file.file),
        opened,
    })
}

/// Looks after the copies: rows that could not be stored are, when their database works. Comes about once a second.
pub(crate) fn tend(shared: &Arc<Shared>) {
    let copies: Vec<(FileKey, Arc<OpenCopy>)> = {
        let segments = shared.segments.lock();
        segments.copies.iter().map(|(file, copy)| (*file, Arc::clone(copy))).collect()
    };
    super::carry::begin(shared);
    for (file, copy) in copies {
        let dbms = &copy.segment.header.dbms;
        if !copy.segment.is_applied() {
            let works = shared.catalog.get(dbms).is_ok() && shared.stats.failing(dbms).is_none();
            if let Some(turn) = works.then(|| shared.file_turns.try_take(file)).flatten() {
                tokio::spawn(catch_up(Arc::clone(shared), copy, turn));
            }
            continue;
        }
        // A file of this member that others may have more of waits for them, unless there is nobody to ask.
        if copy.is_left_alone(copy.own && shared.followers.read().is_none()) {
            tokio::spawn(adopt_alone(Arc::clone(shared), file));
        }
    }
}

/// Goes on with a file of this member without asking others.
async fn adopt_alone(shared: Arc<Shared>, file: FileKey) {
    if let Err(error) = super::open::adopt(&shared, file).await {
        tracing::debug!(%error, "A file of this member stays open for now");
    }
}

/// Stores what the journal has of a copy and its tables lack.
async fn catch_up(shared: Arc<Shared>, copy: Arc<OpenCopy>, turn: Turn) {
    comes_to_rest(&copy.segment).await;
    let (own, segment) = (Arc::clone(&shared), Arc::clone(&copy.segment));
    let stored = blocking(move || store_rest(&own, &segment)).await;
    let header = &copy.segment.header;
    if let Err(error) = stored {
        tracing::warn!(dbms = header.dbms, table = header.table, %error, "Rows of another member stay in the journal for now");
        return;
    }
    // It was stored whole, and a crash came before its end was noted.
    let Some(file) = copy.segment.file() else { return };
    let ended = blocking(move || end_complete(&shared, file, &copy.segment)).await;
    if let Err(error) = ended {
        tracing::debug!(%error, "The end of a copy is noted later");
    }
    drop(turn);
}

/// Ends a copy of a file that is complete here. Blocks.
fn end_complete(shared: &Arc<Shared>, file: FileKey, segment: &Arc<Segment>) -> Result<(), OperatorError> {
    let known = Registry::of(&shared.settings())?.get(file)?;
    if known.is_some_and(|known| is_complete(&known)) {
        shared.catalog.get(&segment.header.dbms)?.dbms().sync()?;
        end(shared, file, segment)?;
    }
    Ok(())
}

/// Returns when nothing of a segment is on its way into a table.
pub(super) async fn comes_to_rest(segment: &Segment) {
    segment.quiet().await;
}

/// Stores the rows of a segment at rest that the applied marks do not cover. Blocks.
pub(crate) fn store_rest(shared: &Arc<Shared>, segment: &Arc<Segment>) -> Result<(), OperatorError> {
    if segment.is_applied() {
        return Ok(());
    }
    let header = &segment.header;
    let database = shared.catalog.get(&header.dbms)?;
    let positions = segment.positions(0..usize::MAX);
    let each = |entries: Vec<_>| apply_entries(shared, &database, header, &entries).map(|_| ());
    shared.journal.each_rows_of(header.id, &positions, each)?;
    segment.catch_up();
    Ok(())
}

/// Says in the journal that a copy is not needed any more, and forgets it. Blocks.
pub(super) fn end(shared: &Arc<Shared>, file: FileKey, segment: &Segment) -> Result<(), OperatorError> {
    mark_sealed(shared, segment)?;
    shared.segments.lock().copies.remove(&file);
    prune(shared);
    Ok(())
}

/// What is refused when an operator without a registry is asked for a copy.
pub(super) fn not_here(file: FileKey) -> OperatorError {
    SinkError::Failed { reason: format!("no rows of file {} of member {} are open here", file.file, file.producer) }
        .into()
}
