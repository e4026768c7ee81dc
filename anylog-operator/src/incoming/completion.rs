//! What follows when all rows of a file are in their tables: archived with its run list, registered with its number of rows, made
//! known to other members, and taken out of the watch directory.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use anylog_dbms::{TsdStore, TsdUpdate, tsd};
use anylog_replica::FileKey;

use super::chunks::Applied;
use super::registration::{Registered, segment_of};
use crate::OperatorError;
use crate::disk::sync_directory;
use crate::error::file_error;
use crate::journal::record::SegmentHeader;
use crate::replica::runs::{Lines, Runs};
use crate::replica::serve;
use crate::source_file::SourceName;
use crate::store::{Settings, Shared};
use crate::tables::blocking;

pub(super) async fn complete(
    shared: &Arc<Shared>,
    settings: &Settings,
    name: &SourceName,
    registered: &Registered,
    path: PathBuf,
    applied: Applied,
    count: usize,
) -> Result<(), OperatorError> {
    let header = segment_of(name, registered);
    let (shared, settings) = (Arc::clone(shared), settings.clone());
    let (plain, table, segment) = (name.plain(), registered.table.clone(), header.id);
    blocking(move || {
        let database = shared.catalog.get(&header.dbms)?;
        database.dbms().sync()?;
        if let Some(file) = applied.archived {
            let runs = settings.archive.then(|| runs_of(&header, &applied.zones, &shared.quarantine.ordinals(segment)));
            file.finish_with(&plain, runs.and_then(Runs::encode))?;
        }
        let rows = (count - applied.refused.len()) as u64;
        if let (Some(store), Some(file_id)) = (&settings.tsd, header.file_id) {
            store.update(&table, file_id, &TsdUpdate { rows: Some(rows), ..TsdUpdate::default() })?;
            tell(&shared, store, &header, &table, count as u64)?;
        }
        std::fs::remove_file(&path).map_err(file_error(&path))?;
        sync_directory(&settings.watch_dir).map_err(file_error(&settings.watch_dir))?;
        database.dbms().forget(&[segment])?;
        shared.quarantine.sealed(segment);
        Ok::<_, OperatorError>(())
    })
    .await
}

/// The run list of a file of which all rows came at one time, and some were refused.
fn runs_of(header: &SegmentHeader, zones: &[(u64, String)], refused: &BTreeSet<u64>) -> Runs {
    let mut runs = Runs::new(header.id, Lines::All);
    let mut first = 1;
    for (count, zone) in zones {
        let end = first + count;
        for refused in refused.range(first..end) {
            runs.push(first, refused - first, header.opened, zone);
            first = refused + 1;
        }
        runs.push(first, end - first, header.opened, zone);
        first = end;
    }
    runs
}

/// Tells the other members of the cluster that a file of this one is complete.
fn tell(
    shared: &Shared,
    store: &TsdStore,
    header: &SegmentHeader,
    table: &str,
    lines: u64,
) -> Result<(), OperatorError> {
    let (Ok(producer), Some(file)) = (header.member.parse(), header.file_id) else { return Ok(()) };
    if table == tsd::OWN_TABLE
        && let Some(known) = store.get(table, file)?
    {
        let rows = u64::try_from(known.rows).unwrap_or_default();
        shared.completed(serve::sealed(FileKey { producer, file }, &known, header.id, lines), rows);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use anylog_dbms::SegmentId;
    use jiff::Timestamp;

    use super::*;
    use crate::replica::runs::RunList;

    #[test]
    fn refused_rows_are_in_no_run() {
        let header = SegmentHeader {
            id: SegmentId(9),
            dbms: "d".into(),
            table: "t".into(),
            source: "0".into(),
            instructions: "0".into(),
            member: "7".into(),
            file_id: Some(1),
            opened: Timestamp::from_microsecond(5).unwrap(),
        };
        let zones = [(4, "UTC".to_owned()), (3, "Asia/Tokyo".to_owned())];
        let runs = runs_of(&header, &zones, &BTreeSet::from([1, 3, 7]));
        let list = RunList::decode(runs.encode().unwrap()).unwrap();
        let found: Vec<(u64, u64, String)> =
            list.iter().map(|run| (run.first, run.count, run.zone.to_string())).collect();
        let zone = |name: &str| name.to_owned();
        assert_eq!(found, [(2, 1, zone("UTC")), (4, 1, zone("UTC")), (5, 2, zone("Asia/Tokyo"))]);
        assert_eq!(list.lines(), Lines::All);
    }
}
