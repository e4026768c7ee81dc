//! Files that are registered and will never come: a crash came between the registration and the first row, or between the
//! registration of a file over REST and its way into the watch directory. Nothing of them was acknowledged. They are marked
//! void, so that nobody waits for them, and give their hash free, so that the same content can come again.

use std::collections::HashSet;
use std::sync::Arc;

use anylog_dbms::{SegmentId, TsdFile, TsdFilter, TsdUpdate, tsd};

use crate::OperatorError;
use crate::archive;
use crate::incoming::unfinished;
use crate::source_file::{SourceKind, SourceName, registered};
use crate::store::{Settings, Shared};

/// How many of the newest registered files are looked at.
const SEARCH: u32 = 10_000;

/// Marks registered files void that no segment and no file stands behind. To be called before files are taken. Blocks.
pub(crate) fn mark_void(shared: &Arc<Shared>) -> Result<(), OperatorError> {
    let settings = shared.settings();
    let Some(store) = settings.tsd.clone() else { return Ok(()) };
    let mut alive: HashSet<SegmentId> = HashSet::new();
    {
        let segments = shared.segments.lock();
        alive.extend(segments.open.values().chain(&segments.closing).map(|segment| segment.header.id));
        // Files of this node that come home from mates: one of them may be adopted at this moment.
        alive.extend(segments.copies.values().map(|copy| copy.segment.header.id));
    }
    for segments in shared.recovered.lock().values() {
        alive.extend(segments.iter().map(|(segment, _)| segment.header.id));
    }
    let filter = TsdFilter { limit: Some(SEARCH), ..TsdFilter::default() };
    for file in store.list(tsd::OWN_TABLE, &filter)? {
        let void = match file.hash.strip_prefix("open:") {
            Some(id) => u128::from_str_radix(id, 16).is_ok_and(|id| !alive.contains(&SegmentId(id))),
            None => unfinished(&file) && !shared.files_in_work.lock().contains(&file.hash) && !lies(&settings, &file),
        };
        if void {
            // Hashes are unique in the registry, and the same content may come to nothing more than once.
            let hash = match file.hash.strip_prefix("open:") {
                Some(segment) => format!("void:{segment}"),
                None => format!("void:{}.{}", file.file_id, file.hash),
            };
            let update = TsdUpdate {
                hash: Some(hash),
                rows: Some(0),
                status1: Some("void".into()),
                status2: Some("No rows came for this file".into()),
            };
            store.update(tsd::OWN_TABLE, file.file_id, &update)?;
        }
    }
    Ok(())
}

/// Whether a registered file is on its way, or done: all its rows may have been refused.
fn lies(settings: &Settings, file: &TsdFile) -> bool {
    let name = SourceName {
        dbms: file.dbms.clone(),
        table: file.table.clone(),
        source: file.source.clone(),
        hash: file.hash.clone(),
        instructions: file.instructions.clone(),
        registration: Some(registered(&settings.member, file.file_id, file.time)),
        kind: SourceKind::Json,
        compressed: false,
    };
    let plain = name.plain();
    let archived = archive::day_directory(&settings.archive_dir, file.time);
    [&settings.watch_dir, &archived, &settings.backup_dir, &settings.error_dir]
        .into_iter()
        .any(|directory| directory.join(&plain).exists() || directory.join(format!("{plain}.gz")).exists())
}
