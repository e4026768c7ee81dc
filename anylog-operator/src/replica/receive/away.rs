//! A file that is taken away, in order to be fetched from another member.
//!
//! The registry says so, durably: from then on nobody is given the file, and whoever stores it again replaces its rows. Until then they
//! stay in the tables: a query is better served with a file that differs in some row than with none of its rows. So does its archived
//! file, which may be the last that is right.

use std::sync::Arc;

use anylog_dbms::tsd;
use anylog_replica::FileKey;

use crate::OperatorError;
use crate::replica::copies::{bad, is_complete};
use crate::replica::holdings::Registry;
use crate::replica::open::{HeldCopy, end_copy, hold_copy, whole};
use crate::replica::serve;
use crate::store::Shared;
use crate::tables::blocking;

/// Takes a file away, of whichever producer: it is not complete here until it is stored again.
///
/// # Errors
/// Of the registry and the journal; it may be called again.
pub(crate) async fn take_away(shared: &Arc<Shared>, file: FileKey) -> Result<(), OperatorError> {
    let shared = Arc::clone(shared);
    whole(async move {
        let held = hold_copy(&shared, file).await;
        blocking(move || take(&shared, file, &held)).await
    })
    .await
}

fn take(shared: &Arc<Shared>, file: FileKey, held: &HeldCopy) -> Result<(), OperatorError> {
    let registry = Registry::of(&shared.settings())?;
    let Some(known) = registry.get(file)?.filter(|known| known.status1 != tsd::VOID) else { return Ok(()) };
    if !is_complete(&known) && known.status1 != tsd::TAKEN_AWAY {
        return Err(bad(file, "it is not complete here"));
    }
    let what = serve::registered_as(&known);
    registry.store.take_away(&registry.table(file.producer), file.file, &what)?;
    // What the journal has of it must not come back over the rows that take their place.
    end_copy(shared, held)
}
