//! Files that are open: their rows as they are handed to mates, and the copies that mates' rows make here.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anylog_dbms::{NewFile, TsdError};
use anylog_replica::FileKey;
use anylog_replica::message::{About, Rows, RowsHeld, Run, Sealed};

use super::Followers;
use super::copies::{self, OpenCopy, Turn};
use super::holdings::Registry;
use super::receive::delete_rows;
use crate::OperatorError;
use crate::journal::record::{SegmentHeader, TextRow};
use crate::seal::seal_copy as write_copy;
use crate::segments::Segment;
use crate::service::OperatorService;
use crate::store::{Shared, placeholder};
use crate::tables::blocking;

/// Bytes of rows in one message at most, save that a longer row travels alone.
const MESSAGE_BYTES: usize = 256 << 10;
/// What a row takes in a message beside its text.
const ROW_BYTES: usize = 8;

/// Stores rows of a mate's open file: journal, tables. Says up to which ordinal this member has the file on stable storage; also
/// when the rows did not follow what it has, and were not taken.
///
/// # Errors
/// [`OperatorError::BadCopy`] for rows that make no sense, and why the journal or the database takes none at the moment.
pub(crate) async fn store_rows(shared: &Arc<Shared>, rows: Rows) -> Result<RowsHeld, OperatorError> {
    let shared = Arc::clone(shared);
    whole(async move { copies::take(&shared, rows).await }).await
}

/// Does something that must not be left in the middle, whatever becomes of who asked for it.
pub(super) async fn whole<T: Send + 'static>(
    work: impl Future<Output = Result<T, OperatorError>> + Send + 'static,
) -> Result<T, OperatorError> {
    let failed = |error| {
        let reason = format!("a task of an open file ended: {error}");
        OperatorError::from(anylog_ingest::SinkError::Failed { reason })
    };
    tokio::spawn(work).await.unwrap_or_else(|error| Err(failed(error)))
}

/// Rows of an open file behind an ordinal, about as many bytes at most, and one row at least if there is any; none when the file is
/// not open here, or nobody follows it. Blocks, for as long as reading takes.
///
/// # Errors
/// [`OperatorError::NotGiven`] when they cannot be read back from the journal.
pub(crate) fn rows_after(shared: &Shared, after: RowsHeld, bytes: usize) -> Result<Option<Vec<Rows>>, OperatorError> {
    let file = after.key();
    let mut again = true;
    loop {
        let segment = {
            let segments = shared.segments.lock();
            let copy = segments.copies.get(&file).map(|copy| &copy.segment);
            segments.followed.get(&file).or(copy).cloned()
        };
        let Some(segment) = segment else { return Ok(None) };
        let Some((previous, positions)) = segment.frames_after(after.ordinal, bytes as u64) else { return Ok(None) };
        let mut messages = Messages::new(file, &segment.header, after.ordinal, previous, bytes);
        // Whoever reads gives up with an error; this one has enough.
        let read = shared.journal.each_text_of(segment.header.id, &positions, |rows| messages.add(rows).ok_or(()));
        match read {
            Ok(lost) if lost > 0 && again => again = false,
            Ok(lost) if lost > 0 => {
                let reason = format!("{lost} frames cannot be read back from the journal");
                return Err(OperatorError::NotGiven { producer: file.producer, file: file.file, reason });
            }
            Ok(_) | Err(()) => {
                let create = || shared.tables.create_text(&segment.header.dbms, &segment.header.table);
                let create = (after.ordinal == 0).then(create).flatten().unwrap_or_default();
                return Ok(Some(messages.finish(create)));
            }
        }
    }
}

/// Rows on their way into messages.
struct Messages<'h> {
    file: FileKey,
    header: &'h SegmentHeader,
    behind: u64,
    /// The last row that was passed over or added.
    last: u64,
    bytes: usize,
    full: usize,
    done: Vec<Rows>,
    current: Rows,
    current_bytes: usize,
}

impl<'h> Messages<'h> {
    fn new(file: FileKey, header: &'h SegmentHeader, behind: u64, previous: u64, full: usize) -> Self {
        let current = Rows::default();
        Self { file, header, behind, last: previous, bytes: 0, full, done: Vec::new(), current, current_bytes: 0 }
    }

    /// Adds rows; none when that is enough.
    fn add(&mut self, rows: &[TextRow<'_>]) -> Option<()> {
        for row in rows {
            if row.ordinal > self.behind {
                let bytes = row.text.len() + ROW_BYTES;
                if self.bytes > 0 && self.bytes + bytes > self.full {
                    return None;
                }
                self.push(row, bytes);
            }
            self.last = row.ordinal;
        }
        Some(())
    }

    fn push(&mut self, row: &TextRow<'_>, bytes: usize) {
        if self.current_bytes > 0 && self.current_bytes + bytes > MESSAGE_BYTES {
            self.done.push(std::mem::take(&mut self.current));
            self.current_bytes = 0;
        }
        if self.current.runs.is_empty() {
            self.current.previous = self.last;
        }
        let received = row.received.as_microsecond();
        let joins = |run: &&mut Run| {
            run.first + run.rows.len() as u64 == row.ordinal && run.received == received && run.zone == row.zone
        };
        match self.current.runs.last_mut().filter(joins) {
            Some(run) => run.rows.push(row.text.to_owned()),
            None => {
                let (zone, rows) = (row.zone.to_owned(), vec![row.text.to_owned()]);
                self.current.runs.push(Run { first: row.ordinal, received, zone, rows });
            }
        }
        self.bytes += bytes;
        self.current_bytes += bytes;
    }

    fn finish(mut self, create: String) -> Vec<Rows> {
        if !self.current.runs.is_empty() {
            self.done.push(self.current);
        }
        let about = about_open(self.header);
        for (at, rows) in self.done.iter_mut().enumerate() {
            (rows.producer, rows.file) = (self.file.producer, self.file.file);
            let create = if at == 0 { create.clone() } else { String::new() };
            rows.about = Some(About { create, ..about.clone() });
        }
        self.done
    }
}

/// What an open file is.
fn about_open(header: &SegmentHeader) -> About {
    About {
        segment: header.id.0.to_le_bytes().to_vec(),
        dbms: header.dbms.clone(),
        table: header.table.clone(),
        source: header.source.clone(),
        instructions: header.instructions.clone(),
        time: header.opened.as_microsecond(),
        ..About::default()
    }
}

/// What mates are told of a segment that became a file; none when it is not registered.
pub(crate) fn sealed(segment: &Segment, hash: &str, rows: u64) -> Option<Sealed> {
    let FileKey { producer, file } = segment.file()?;
    let about = About { hash: hash.to_owned(), rows, ..about_open(&segment.header) };
    let refused = segment.refused().into_iter().collect();
    Some(Sealed { producer, file, ordinal: segment.written_ordinal(), about: Some(about), refused })
}

/// All files that are open here, own and of mates, and up to which ordinal they are on stable storage; 0 for own ones that nobody
/// follows: their rows come with the whole file.
pub(crate) fn open_files(shared: &Shared) -> Vec<RowsHeld> {
    let held = |file: FileKey, ordinal| RowsHeld { producer: file.producer, file: file.file, ordinal };
    let mut files: Vec<RowsHeld> = {
        let segments = shared.segments.lock();
        let own = segments.open.values().chain(&segments.closing);
        let own = own.filter_map(|segment| Some((segment.file()?, segment.followed_ordinal())));
        let copies = segments.copies.iter().map(|(file, copy)| (*file, copy.segment.written_ordinal()));
        own.chain(copies).map(|(file, ordinal)| held(file, ordinal)).collect()
    };
    for (segment, _) in shared.recovered.lock().values().flatten() {
        let header = &segment.header;
        if let (Ok(producer), Some(file)) = (header.member.parse(), header.file_id) {
            files.push(held(FileKey { producer, file }, segment.lasts.last().copied().unwrap_or(0)));
        }
    }
    files.sort_by_key(|held| (held.producer, held.file));
    files
}

/// Seals the copy of a mate's file. When it returns, the file is complete here.
///
/// # Errors
/// [`OperatorError::NotGiven`] when rows are missing here, or are other ones than its producer has: the whole file is needed then.
pub(crate) async fn seal_copy(shared: &Arc<Shared>, sealed: Sealed) -> Result<(), OperatorError> {
    let shared = Arc::clone(shared);
    whole(async move { seal(&shared, sealed).await }).await
}

async fn seal(shared: &Arc<Shared>, sealed: Sealed) -> Result<(), OperatorError> {
    let file = sealed.key();
    let missing = |reason: String| OperatorError::NotGiven { producer: file.producer, file: file.file, reason };
    let about = sealed.about.ok_or_else(|| copies::bad(file, "nothing is said about it"))?;
    let turn = shared.file_turns.take(file).await;
    let Some(copy) = copy_of(shared, file) else {
        let registry = Registry::of(&shared.settings())?;
        let known = blocking(move || registry.get(file)).await?;
        return if known.is_some_and(|known| copies::is_complete(&known)) {
            Ok(())
        } else {
            Err(copies::not_here(file))
        };
    };
    if about.rows == 0 {
        return give_up(shared, file, copy).await;
    }
    let header = copies::header_of(file, &about)?;
    if header != *copy.segment.header {
        return Err(copies::bad(file, "it has another identity than the rows that came before"));
    }
    let ordinal = copy.segment.written_ordinal();
    if ordinal < sealed.ordinal {
        return Err(missing(format!("rows up to ordinal {ordinal} of {} are here", sealed.ordinal)));
    }
    copies::comes_to_rest(&copy.segment).await;
    let (own, refused): (_, BTreeSet<u64>) = (Arc::clone(shared), sealed.refused.into_iter().collect());
    let complete = blocking(move || complete(&own, file, &copy, &about, &refused)).await?;
    drop(turn);
    if complete {
        return Ok(());
    }
    // What is here was promised to be here: it stays until the whole file takes its place.
    Err(missing("the rows that came while it was open are others than those of its producer".to_owned()))
}

/// Gives up the copy of a file that came to nothing: its producer put all its rows into its quarantine.
async fn give_up(shared: &Arc<Shared>, file: FileKey, copy: Arc<OpenCopy>) -> Result<(), OperatorError> {
    copies::comes_to_rest(&copy.segment).await;
    copy.segment.leave_to_marks();
    let shared = Arc::clone(shared);
    blocking(move || {
        let header = &copy.segment.header;
        delete_rows(&shared, &header.dbms, &header.table, file, &HashSet::new())?;
        shared.catalog.get(&header.dbms)?.dbms().sync()?;
        copies::end(&shared, file, &copy.segment)
    })
    .await
}

fn copy_of(shared: &Shared, file: FileKey) -> Option<Arc<OpenCopy>> {
    shared.segments.lock().copies.get(&file).cloned()
}

/// Makes a complete file of a copy at rest; false when it is another than its producer's. Blocks.
fn complete(
    shared: &Arc<Shared>,
    file: FileKey,
    copy: &OpenCopy,
    about: &About,
    refused: &BTreeSet<u64>,
) -> Result<bool, OperatorError> {
    let segment = &copy.segment;
    let header = &segment.header;
    copies::store_rest(shared, segment)?;
    let Some(rows) = write_copy(shared, segment, refused, &about.hash)? else {
        copy.differs.store(true, Ordering::Relaxed);
        return Ok(false);
    };
    shared.catalog.get(&header.dbms)?.dbms().sync()?;
    let registry = Registry::of(&shared.settings())?;
    let new = new_file(header, about.hash.clone());
    registry.store.register_complete(&registry.table(file.producer), file.file, &new, rows)?;
    copies::end(shared, file, segment)?;
    let now = shared.now();
    shared.stats.table(&header.dbms, &header.table, |stats| {
        stats.files += 1;
        stats.last_file = Some(now);
    });
    Ok(true)
}

fn new_file(header: &SegmentHeader, hash: String) -> NewFile {
    NewFile {
        dbms: header.dbms.clone(),
        table: header.table.clone(),
        source: header.source.clone(),
        hash,
        instructions: header.instructions.clone(),
        time: header.opened,
    }
}

/// Goes on with a file of this member of which only mates had rows: it is sealed as an own one, which says that it is complete.
///
/// # Errors
/// That no rows of it are here, and of the registry.
pub(crate) async fn adopt(shared: &Arc<Shared>, file: FileKey) -> Result<(), OperatorError> {
    let shared = Arc::clone(shared);
    whole(async move {
        let _turn = shared.file_turns.take(file).await;
        let registry = Registry::of(&shared.settings())?;
        if file.producer != registry.own {
            return Err(copies::bad(file, format!("this is member {}, which did not produce it", registry.own)));
        }
        let Some(copy) = copy_of(&shared, file) else { return adopted(&shared, registry, file).await };
        let segment = Arc::clone(&copy.segment);
        let new = new_file(&segment.header, placeholder(segment.header.id));
        // From here on it is an own one, also for a start that finds its rows in the journal.
        blocking(move || registry.store.register_open(file.file, &new)).await?;
        let mut segments = shared.segments.lock();
        segments.copies.remove(&file);
        segments.finish([segment]);
        drop(segments);
        shared.due.notify_one();
        Ok(())
    })
    .await
}

/// Whether a file without a copy was adopted before.
async fn adopted(shared: &Shared, registry: Registry, file: FileKey) -> Result<(), OperatorError> {
    if shared.segments.lock().closing.iter().any(|segment| segment.file() == Some(file)) {
        return Ok(());
    }
    let known = blocking(move || match registry.get(file) {
        Err(OperatorError::Tsd(TsdError::NoTable { .. })) => Ok(None),
        result => result,
    })
    .await?;
    if known.is_some_and(|known| copies::is_complete(&known)) { Ok(()) } else { Err(copies::not_here(file)) }
}

/// A file of whose copy nobody else adds, stores or seals rows while this lives.
#[derive(Debug)]
pub(crate) struct HeldCopy {
    file: FileKey,
    copy: Option<Arc<OpenCopy>>,
    _turn: Turn,
}

/// Holds the copy of a file still, if there is one, and lets none begin: no rows are added while the guard lives, and none is on its
/// way into a table. To be called before anything else stores rows of the file, or removes them. What the journal has of the copy
/// and its tables lack is stored after the guard was dropped, by the applied marks; or never, after [`end_copy`].
pub(crate) async fn hold_copy(shared: &Arc<Shared>, file: FileKey) -> HeldCopy {
    let turn = shared.file_turns.take(file).await;
    let copy = copy_of(shared, file);
    if let Some(copy) = &copy {
        copies::comes_to_rest(&copy.segment).await;
        // Others store rows of the segment now. Its own go by the marks from here on.
        copy.segment.leave_to_marks();
    }
    HeldCopy { file, copy, _turn: turn }
}

impl HeldCopy {
    /// Whether its producer has other rows in the file: those of the copy are to be replaced.
    pub(crate) fn differs(&self) -> bool {
        self.copy.as_ref().is_some_and(|copy| copy.differs.load(Ordering::Relaxed))
    }

    /// What the rows of the copy share, if there is one.
    pub(crate) fn header(&self) -> Option<&SegmentHeader> {
        self.copy.as_ref().map(|copy| &*copy.segment.header)
    }
}

/// Ends a copy, if there is one: the file is complete here, or taken away, and its rows in the journal are not needed any more. The
/// databases were synced. Blocks.
pub(crate) fn end_copy(shared: &Arc<Shared>, held: &HeldCopy) -> Result<(), OperatorError> {
    match &held.copy {
        Some(copy) => copies::end(shared, held.file, &copy.segment),
        None => Ok(()),
    }
}

/// Open files, as whoever exchanges them with other members needs them.
impl OperatorService {
    /// Says who follows the files of this node while they are open; none ends that. To be called while an operator runs.
    ///
    /// # Errors
    /// [`OperatorError::NotRunning`].
    pub fn follow(&self, followers: Option<Arc<dyn Followers>>) -> Result<(), OperatorError> {
        *self.open_store()?.followers.write() = followers;
        Ok(())
    }

    pub(super) fn open_store(&self) -> Result<Arc<Shared>, OperatorError> {
        if self.state().is_some() { self.shared() } else { Err(OperatorError::NotRunning) }
    }

    /// Stores rows of another member's open file. Says up to which ordinal this member has the file on stable storage; also when the
    /// rows did not follow what it has, and were not taken.
    ///
    /// # Errors
    /// [`OperatorError::NotRunning`], [`OperatorError::BadCopy`] for rows that make no sense, and why the journal or the database
    /// takes none at the moment.
    pub async fn store_rows(&self, rows: Rows) -> Result<RowsHeld, OperatorError> {
        store_rows(&self.open_store()?, rows).await
    }

    /// Rows of an open file behind an ordinal, about as many bytes at most, and one row at least if there is any; none when the file
    /// is not open here, or nobody follows it. Blocks.
    ///
    /// # Errors
    /// [`OperatorError::NotRunning`], [`OperatorError::NotGiven`] when they cannot be read back from the journal.
    pub fn rows_after(&self, after: RowsHeld, bytes: usize) -> Result<Option<Vec<Rows>>, OperatorError> {
        rows_after(&*self.open_store()?, after, bytes)
    }

    /// All files that are open here, own and of mates, and up to which ordinal they are on stable storage; 0 for own ones that nobody
    /// follows.
    ///
    /// # Errors
    /// [`OperatorError::NotRunning`].
    pub fn open_files(&self) -> Result<Vec<RowsHeld>, OperatorError> {
        Ok(open_files(&*self.open_store()?))
    }

    /// Seals the copy of another member's file, which that member sealed. When it returns, the file is complete here.
    ///
    /// # Errors
    /// [`OperatorError::NotRunning`], [`OperatorError::NotGiven`] when the whole file is needed.
    pub async fn seal_copy(&self, sealed: Sealed) -> Result<(), OperatorError> {
        seal_copy(&self.open_store()?, sealed).await
    }

    /// Goes on with a file of this member of which only mates had rows: it is sealed as an own one.
    ///
    /// # Errors
    /// [`OperatorError::NotRunning`], that no rows of it are here, and of the registry.
    pub async fn adopt(&self, file: FileKey) -> Result<(), OperatorError> {
        adopt(&self.open_store()?, file).await
    }
}
