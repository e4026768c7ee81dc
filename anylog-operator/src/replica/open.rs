//! Files that are open: their rows as they are handed to mates, and the copies that mates' rows make here.

use std::sync::Arc;

use anylog_replica::FileKey;
use anylog_replica::message::{Rows, RowsHeld, Sealed};

use crate::OperatorError;
use crate::store::Shared;

/// Stores rows of a mate's open file: journal, tables. Says up to which ordinal this member has the file on stable storage; also
/// when the rows did not follow what it has, and were not taken.
pub(crate) async fn store_rows(_shared: &Arc<Shared>, _rows: Rows) -> Result<RowsHeld, OperatorError> {
    Err(OperatorError::NotRunning)
}

/// Rows of an open file behind an ordinal, about as many bytes at most; none when the file is not open here, or not followed.
pub(crate) fn rows_after(
    _shared: &Shared,
    _after: RowsHeld,
    _bytes: usize,
) -> Result<Option<Vec<Rows>>, OperatorError> {
    Ok(None)
}

/// All open files, own and of mates, up to which ordinal they are on stable storage.
pub(crate) fn open_files(_shared: &Shared) -> Vec<RowsHeld> {
    Vec::new()
}

/// Seals the copy of a mate's file. When it returns, the file is complete here.
pub(crate) async fn seal_copy(_shared: &Arc<Shared>, _sealed: Sealed) -> Result<(), OperatorError> {
    Err(OperatorError::NotRunning)
}

/// Goes on with a file of this member of which only mates had rows: it is sealed as an own one.
pub(crate) async fn adopt(_shared: &Arc<Shared>, _file: FileKey) -> Result<(), OperatorError> {
    Err(OperatorError::NotRunning)
}

/// A copy of an open file that is held still, while the whole file is stored over it or taken away.
pub(crate) struct HeldCopy {}

/// Holds the copy of an open file still, if there is one: no rows are added while the guard lives, and none is on its way into a
/// table. What its journal has and its tables lack is stored when the guard is dropped; or never, after [`end_copy`].
pub(crate) async fn hold_copy(_shared: &Arc<Shared>, _file: FileKey) -> Option<HeldCopy> {
    None
}

/// Ends a copy: the file is complete here, or taken away, and its rows in the journal are not needed any more. Blocks.
pub(crate) fn end_copy(_shared: &Arc<Shared>, _copy: HeldCopy) -> Result<(), OperatorError> {
    Ok(())
}
