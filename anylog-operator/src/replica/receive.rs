//! A complete file as it comes from another member.

use std::sync::Arc;

use anylog_replica::FileKey;
use anylog_replica::message::{Piece, Want};

use crate::OperatorError;
use crate::store::Shared;

/// A file that is on its way here.
#[derive(Debug)]
pub(crate) struct Receiving {
    file: FileKey,
}

impl Receiving {
    /// Begins to take a file, or goes on with what is left of an earlier attempt. Blocks.
    pub(crate) fn begin(_shared: &Shared, file: FileKey) -> Result<Self, OperatorError> {
        Ok(Self { file })
    }

    /// What is to be asked for: the rest of the content of which some bytes are there already, or all of it.
    pub(crate) fn want(&self) -> Want {
        Want { producer: self.file.producer, file: self.file.file, offset: 0, content: 0 }
    }

    /// Takes the next bytes; true when all are here and are what they should be. Blocks.
    ///
    /// # Errors
    /// [`OperatorError::BadCopy`]: nothing of them is kept then, and [`Self::want`] asks for all anew.
    pub(crate) fn take(&mut self, _piece: Piece) -> Result<bool, OperatorError> {
        Err(OperatorError::NotRunning)
    }

    /// Stores the file whose bytes are all here. It is durable and complete on return, and stored once, however often this is done.
    pub(crate) async fn store(self, _shared: &Arc<Shared>) -> Result<(), OperatorError> {
        Err(OperatorError::NotRunning)
    }

    /// Gives up: what came so far is removed.
    pub(crate) fn discard(self) {}
}

/// Removes what bytes of files that were never stored an earlier run left, save of files that are still wanted. Blocks.
pub(crate) fn clean(_shared: &Shared) {}

/// Takes a file away, of whichever producer, in order to fetch it from another member: its rows, its archived file, and its
/// completeness. What a crash leaves of that is finished when the file is stored or taken away again.
pub(crate) async fn take_away(_shared: &Arc<Shared>, _file: FileKey) -> Result<(), OperatorError> {
    Err(OperatorError::NotRunning)
}
