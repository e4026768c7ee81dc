//! The row of a file in the registry, and the segment that follows from it.

use std::path::Path;
use std::sync::Arc;

use anylog_dbms::{NewFile, SegmentId, TsdError, TsdFile, TsdStore, tsd};
use anylog_ingest::SinkError;
use jiff::Timestamp;
use md5::{Digest, Md5};

use crate::OperatorError;
use crate::error::file_error;
use crate::journal::record::SegmentHeader;
use crate::source_file::SourceName;
use crate::store::{Settings, Shared};
use crate::tables::blocking;

/// Where a file is registered.
pub(super) struct Registered {
    pub(super) table: String,
    pub(super) member: String,
    pub(super) file_id: Option<i64>,
    pub(super) time: Timestamp,
    /// It was taken up before, and a crash came.
    pub(super) resumed: bool,
}

/// Registers a file: its row in the registry from now on stands for it.
pub(super) async fn register(
    shared: &Arc<Shared>,
    settings: &Settings,
    name: &SourceName,
    path: &Path,
) -> Result<Registered, OperatorError> {
    let Some(store) = settings.tsd.clone() else {
        let modified = std::fs::metadata(path).and_then(|data| data.modified()).map_err(file_error(path))?;
        let time = Timestamp::try_from(modified).unwrap_or_else(|_| shared.now());
        let time = Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time);
        return Ok(Registered { table: String::new(), member: "0".into(), file_id: None, time, resumed: true });
    };
    let file = NewFile {
        dbms: name.dbms.clone(),
        table: name.table.clone(),
        source: name.source.clone(),
        hash: name.hash.clone(),
        instructions: name.instructions.clone(),
        time: shared.now(),
    };
    let duplicate = OperatorError::from(SinkError::DuplicateFile { hash: name.hash.clone() });
    match &name.registration {
        Some(by) if by.member != settings.member => {
            if !shared.tables.publisher().is_peer(&by.member) {
                return Err(OperatorError::UnknownMember { name: name.plain(), member: by.member.clone() });
            }
            let (member, file_id) = (by.member.clone(), by.file_id);
            blocking(move || register_peer(&store, &member, file_id, &file)).await?.ok_or(duplicate)
        }
        _ => {
            let own = settings.member.clone();
            let by = name.registration.as_ref().map(|by| by.file_id);
            blocking(move || register_own(&store, own, by, &file)).await?.ok_or(duplicate)
        }
    }
}

/// A registered file that nobody finished: a crash came between its registration and its rows.
pub(crate) fn unfinished(file: &TsdFile) -> bool {
    file.rows == 0 && file.status1.is_empty()
}

fn adopted(table: &str, member: String, file: &TsdFile) -> Registered {
    Registered { table: table.to_owned(), member, file_id: Some(file.file_id), time: file.time, resumed: true }
}

/// Registers a file of this node; none when it is a duplicate.
fn register_own(
    store: &TsdStore,
    member: String,
    named: Option<i64>,
    file: &NewFile,
) -> Result<Option<Registered>, OperatorError> {
    let known = |store: &TsdStore| -> Result<Option<TsdFile>, OperatorError> { Ok(store.find(&file.hash)?) };
    let found = match known(store)? {
        Some(found) => found,
        None => match store.register(file) {
            Ok(file_id) => {
                return Ok(Some(Registered {
                    table: tsd::OWN_TABLE.into(),
                    member,
                    file_id: Some(file_id),
                    time: file.time,
                    resumed: false,
                }));
            }
            Err(TsdError::Duplicate { .. }) => match known(store)? {
                Some(found) => found,
                None => return Ok(None),
            },
            Err(error) => return Err(error.into()),
        },
    };
    // A file that carries its own number was taken before and is still here: it is finished, even if only its removal is left.
    let own = named == Some(found.file_id);
    Ok((own || unfinished(&found)).then(|| adopted(tsd::OWN_TABLE, member, &found)))
}

/// Registers a file of a peer; none when it is a duplicate.
fn register_peer(
    store: &TsdStore,
    member: &str,
    file_id: i64,
    file: &NewFile,
) -> Result<Option<Registered>, OperatorError> {
    let table = format!("tsd_{member}");
    match store.register_peer(member, file_id, file) {
        Ok(()) => Ok(Some(Registered {
            table,
            member: member.to_owned(),
            file_id: Some(file_id),
            time: file.time,
            resumed: false,
        })),
        Err(TsdError::Duplicate { .. }) => {
            let found = store.get(&table, file_id)?;
            let found = found.filter(|found| found.hash == file.hash && unfinished(found));
            Ok(found.map(|found| adopted(&table, member.to_owned(), &found)))
        }
        Err(error) => Err(error.into()),
    }
}

/// The segment of a file: the same whenever the file is taken up again.
pub(super) fn segment_of(name: &SourceName, registered: &Registered) -> SegmentHeader {
    let mut md5 = Md5::new();
    for text in ["file:", &name.dbms, ".", &name.table, ".", &name.hash, ".", &registered.member, "."] {
        md5.update(text.as_bytes());
    }
    md5.update(registered.file_id.unwrap_or(0).to_le_bytes());
    SegmentHeader {
        id: SegmentId(u128::from_le_bytes(md5.finalize().into())),
        dbms: name.dbms.clone(),
        table: name.table.clone(),
        source: name.source.clone(),
        instructions: name.instructions.clone(),
        member: registered.member.clone(),
        file_id: registered.file_id,
        opened: registered.time,
    }
}
