//! A file of another member into the tables, the archive and the registry of this one.
//!
//! 1. Its rows are stored ([`rows`]), with applied marks. A pause follows each chunk: a member that catches up does not take the
//!    processors and the disk from acknowledgements.
//!    The marks are those of its open segment, so rows that came while it was open are not stored again.
//! 2. The databases are synced, and the file is archived under its name, with its run list.
//! 3. The registry says that it is complete.
//! 4. A copy of the open file is let go, or the marks are forgotten.
//!
//! Each step can be repeated. What is made of rows, and what replaces a file that was taken away, comes *anew*: ordinals are others
//! there, or the open segment's marks stand for rows that are to go. The registry says first that the file is taken away, so each
//! later attempt is one of this kind too; each begins from the first row, and goes by no marks of the attempts before. The rows that
//! are here stay until others take their place, partition by partition.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use anylog_dbms::{Database, DbmsError, NewFile, SqlRef, Target, TsdFile, tsd};
use anylog_replica::FileKey;
use anylog_replica::message::{About, Form};

use super::rows::apply_rows;
use crate::OperatorError;
use crate::archive::{self, ArchiveFile};
use crate::disk::sync_directory;
use crate::error::file_error;
use crate::journal::record::SegmentHeader;
use crate::replica::copies::{bad, header_of, is_complete};
use crate::replica::holdings::Registry;
use crate::replica::open::{HeldCopy, end_copy, hold_copy};
use crate::replica::runs::RunList;
use crate::replica::serve;
use crate::store::{Settings, Shared};
use crate::tables::blocking;

/// A file whose bytes are all here.
pub(super) struct Arrived {
    pub(super) file: FileKey,
    pub(super) about: About,
    pub(super) content: u64,
    pub(super) list: RunList,
    /// Its bytes, and what says of what they are.
    pub(super) part: PathBuf,
    pub(super) state: PathBuf,
}

pub(super) async fn store(shared: &Arc<Shared>, arrived: Arrived) -> Result<(), OperatorError> {
    let room = Arc::clone(&shared.copying.room).acquire_owned().await;
    let _room = room.map_err(|_| OperatorError::NotRunning)?;
    let settings = shared.settings();
    let (file, registry) = (arrived.file, Registry::of(&settings)?);
    let held = Arc::new(hold_copy(shared, file).await);
    let known = blocking(move || registry.get(file)).await?;
    if let Some(known) = known.as_ref().filter(|known| is_complete(known)) {
        return already(shared, &held, known, &arrived).await;
    }
    let own = settings.member == file.producer.to_string();
    if own && known.as_ref().is_some_and(|known| known.hash.starts_with("open:") && known.status1.is_empty()) {
        return Err(bad(file, "it is open here"));
    }
    let anew = arrived.about.form == Form::Rows as i32
        || held.differs()
        || known.as_ref().is_some_and(|known| known.status1 == tsd::TAKEN_AWAY);
    let header = Arc::new(header(&arrived, anew)?);
    // Everything from here on needs the database.
    shared.catalog.get(&header.dbms)?;
    let arrived = Arc::new(arrived);
    if anew {
        let (shared, header, held, arrived, known) =
            (Arc::clone(shared), Arc::clone(&header), Arc::clone(&held), Arc::clone(&arrived), known.clone());
        blocking(move || begin_anew(&shared, &header, &held, &arrived, known.as_ref())).await?;
    }
    let replaced = apply_rows(shared, &header, &arrived, anew).await?;
    let own = Arc::clone(shared);
    let finishing = Finishing { settings, header, held, arrived, known, replaced: anew.then_some(replaced) };
    blocking(move || finishing.finish(&own)).await
}

/// The file is complete already: what was left to do is done.
async fn already(
    shared: &Arc<Shared>,
    held: &Arc<HeldCopy>,
    known: &TsdFile,
    arrived: &Arrived,
) -> Result<(), OperatorError> {
    if known.hash != arrived.about.hash {
        let FileKey { producer, file } = arrived.file;
        let (known, other) = (known.hash.clone(), arrived.about.hash.clone());
        return Err(OperatorError::Conflict { producer, file, known, other });
    }
    let (shared, held) = (Arc::clone(shared), Arc::clone(held));
    blocking(move || end_copy(&shared, &held)).await
}

/// What the rows share. With marks of their own they do not go by those of the open file.
fn header(arrived: &Arrived, anew: bool) -> Result<SegmentHeader, OperatorError> {
    let Arrived { file, about, content, list, .. } = arrived;
    if about.hash.is_empty() || about.hash.contains(':') || about.rows == 0 {
        return Err(bad(*file, "it is not complete where it comes from"));
    }
    let segment = if anew {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"copy");
        for number in [file.producer, file.file] {
            hasher.update(&number.to_le_bytes());
        }
        hasher.update(&content.to_le_bytes());
        hasher.finalize().as_bytes()[..16].to_vec()
    } else {
        list.segment().0.to_le_bytes().to_vec()
    };
    header_of(*file, &About { segment, ..about.clone() })
}

/// Says durably that the rows that are here of the file are to go, and lets go of its copy. Blocks.
fn begin_anew(
    shared: &Arc<Shared>,
    header: &SegmentHeader,
    held: &HeldCopy,
    arrived: &Arrived,
    known: Option<&TsdFile>,
) -> Result<(), OperatorError> {
    let Arrived { file, about, part, state, .. } = arrived;
    if known.is_none_or(|known| known.status1 != tsd::TAKEN_AWAY) {
        let registry = Registry::of(&shared.settings())?;
        // Its hash may be another number's until the file is complete.
        let what = NewFile { hash: format!("away:{}", header.id), ..what(header, about) };
        registry.store.take_away(&registry.table(file.producer), file.file, &what)?;
    }
    if held.header().is_some() {
        // Rows that this member told others to have are on stable storage before those of the copy go.
        let synced = [part, state].into_iter().try_for_each(|path| File::open(path)?.sync_all());
        synced.and_then(|()| sync_directory(part.parent().unwrap_or(part))).map_err(file_error(part))?;
        end_copy(shared, held)?;
    }
    Ok(())
}

/// What registers the file.
fn what(header: &SegmentHeader, about: &About) -> NewFile {
    NewFile {
        dbms: header.dbms.clone(),
        table: header.table.clone(),
        source: header.source.clone(),
        hash: about.hash.clone(),
        instructions: header.instructions.clone(),
        time: header.opened,
    }
}

/// Deletes the rows of a file, save from the partitions that are `kept`; none is the table itself. Blocks.
pub(in crate::replica) fn delete_rows(
    shared: &Shared,
    dbms: &str,
    table: &str,
    file: FileKey,
    kept: &HashSet<Option<String>>,
) -> Result<(), OperatorError> {
    let database = shared.catalog.get(dbms)?;
    if database.dbms().schema(table)?.is_none() {
        return Ok(());
    }
    let member = file.producer.to_string();
    for target in serve::targets(&database, table)?.iter().filter(|target| !kept.contains(&target.partition)) {
        // Most have none: looking there costs little, and disturbs nobody.
        if has_rows(&database, target, file)? {
            database.dbms().delete_file(target, &member, file.file)?;
        }
    }
    Ok(())
}

fn has_rows(database: &Database, target: &Target, file: FileKey) -> Result<bool, OperatorError> {
    let mut found = false;
    let visit = &mut |_: &[SqlRef<'_>]| {
        found = true;
        ControlFlow::Break(())
    };
    let sql = format!("SELECT 1 FROM {} WHERE {} LIMIT 1", serve::quoted(target.physical()), serve::condition(file));
    match database.dbms().scan(Some(target), &sql, visit) {
        // It was dropped meanwhile.
        Err(DbmsError::NoTable { .. }) => Ok(false),
        result => Ok(result.map(|()| found)?),
    }
}

/// A file whose rows are in the tables.
struct Finishing {
    settings: Arc<Settings>,
    header: Arc<SegmentHeader>,
    held: Arc<HeldCopy>,
    arrived: Arc<Arrived>,
    known: Option<TsdFile>,
    /// Where its rows took the place of others, when it came anew.
    replaced: Option<HashSet<Option<String>>>,
}

impl Finishing {
    /// Steps 2 to 4. Blocks.
    fn finish(&self, shared: &Arc<Shared>) -> Result<(), OperatorError> {
        let Self { settings, header, held, arrived, known, replaced } = self;
        let Arrived { file, about, .. } = &**arrived;
        if let Some(replaced) = replaced {
            // What was here where none of the new rows lies.
            delete_rows(shared, &header.dbms, &header.table, *file, replaced)?;
        }
        let database = shared.catalog.get(&header.dbms)?;
        database.dbms().sync()?;
        let new = what(header, about);
        if settings.archive && about.form == Form::Archive as i32 {
            put_into_archive(settings, header, &new, arrived)?;
        } else if replaced.is_some() {
            // What was archived was of the rows that went.
            let (directory, plain) = serve::place(settings, *file, &new);
            archive::remove(&directory, &plain)?;
        }
        if let Some(known) = known.as_ref().filter(|known| known.hash != new.hash && replaced.is_some()) {
            let (directory, plain) = serve::place(settings, *file, &serve::registered_as(known));
            archive::remove(&directory, &plain)?;
        }
        let registry = Registry::of(settings)?;
        registry.store.register_complete(&registry.table(file.producer), file.file, &new, about.rows)?;
        shared.quarantine.sealed(header.id);
        if held.header().is_some() && replaced.is_none() {
            // The marks go with the copy's place in the journal.
            return end_copy(shared, held);
        }
        Ok(database.dbms().forget(&[header.id])?)
    }
}

/// Copies the compressed rows, under the file's name.
fn put_into_archive(
    settings: &Settings,
    header: &SegmentHeader,
    what: &NewFile,
    arrived: &Arrived,
) -> Result<(), OperatorError> {
    let Arrived { file, about, list, part, .. } = arrived;
    let (directory, plain) = serve::place(settings, *file, what);
    let mut copy = ArchiveFile::begin(&directory, &header.id.to_string(), false)?;
    let mut fill = || -> Result<(), OperatorError> {
        let failed = file_error(part);
        let mut from = File::open(part).map_err(&failed)?;
        from.seek(SeekFrom::Start(about.runs)).map_err(&failed)?;
        let mut buffer = vec![0; 128 << 10];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => copy.write(&buffer[..count])?,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
    };
    match fill() {
        Ok(()) => copy.finish_packed(&plain, list.bytes()).map(|_| ()),
        Err(error) => {
            copy.discard();
            Err(error)
        }
    }
}
