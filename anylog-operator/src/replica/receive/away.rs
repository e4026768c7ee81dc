//! A file that is taken away, in order to be fetched from another member.
//!
//! First the registry says so, durably: from then on nobody is given the file, and who stores it again begins with removing what is
//! left of its rows. So a crash between any two steps costs nothing.

use std::sync::Arc;

use anylog_dbms::{NewFile, tsd};
use anylog_replica::FileKey;

use super::store::delete_rows;
use crate::OperatorError;
use crate::archive;
use crate::replica::copies::bad;
use crate::replica::holdings::Registry;
use crate::replica::open::{HeldCopy, end_copy, hold_copy, whole};
use crate::replica::serve;
use crate::store::Shared;
use crate::tables::blocking;

/// Takes a file away, of whichever producer: its rows, its archived file, its copy when it is open. Its registry row says so until it
/// is stored again.
///
/// # Errors
/// Of the registry, the database and the file system; it may be called again.
pub(crate) async fn take_away(shared: &Arc<Shared>, file: FileKey) -> Result<(), OperatorError> {
    let shared = Arc::clone(shared);
    whole(async move {
        let held = hold_copy(&shared, file).await;
        blocking(move || take(&shared, file, &held)).await
    })
    .await
}

fn take(shared: &Arc<Shared>, file: FileKey, held: &HeldCopy) -> Result<(), OperatorError> {
    let settings = shared.settings();
    let registry = Registry::of(&settings)?;
    let known = registry.get(file)?;
    if let Some(known) = &known {
        if known.status1 == tsd::VOID {
            return Ok(());
        }
        if file.producer == registry.own && known.hash.starts_with("open:") {
            return Err(bad(file, "it is open here"));
        }
    }
    let what = match (&known, held.header()) {
        (Some(known), _) => serve::registered_as(known),
        (None, Some(header)) => NewFile {
            dbms: header.dbms.clone(),
            table: header.table.clone(),
            source: header.source.clone(),
            hash: format!("away:{}", header.id),
            instructions: header.instructions.clone(),
            time: header.opened,
        },
        // Nothing is known of it.
        (None, None) => return Ok(()),
    };
    registry.store.take_away(&registry.table(file.producer), file.file, &what)?;
    // Its rows go: they must not come back out of the journal.
    end_copy(shared, held)?;
    delete_rows(shared, &what.dbms, &what.table, file, None)?;
    shared.catalog.get(&what.dbms)?.dbms().sync()?;
    let (directory, plain) = serve::place(&settings, file, &what);
    archive::remove(&directory, &plain)
}
