//! Complete files, as whoever exchanges them with other members needs them.

use anylog_replica::{FileKey, FileSet};
use jiff::Timestamp;

use super::holdings;
use super::receive::{Receiving, take_away};
use super::serve::{Content, open_content};
use crate::OperatorError;
use crate::service::OperatorService;

impl OperatorService {
    /// The complete files that this member has, by producer; only those registered at or after `since`. Blocks.
    ///
    /// # Errors
    /// [`OperatorError::NotRunning`], [`OperatorError::NotRegistered`], and of the registry.
    pub fn complete_files(&self, since: Option<Timestamp>) -> Result<Vec<(i64, FileSet)>, OperatorError> {
        holdings::complete_files(&*self.open_store()?, since)
    }

    /// The highest number that this member gave to a file of its own; 0 when it gave none. Blocks.
    ///
    /// # Errors
    /// As [`Self::complete_files`].
    pub fn highest_file(&self) -> Result<i64, OperatorError> {
        holdings::given(&*self.open_store()?)
    }

    /// Lets the numbers of own files go on behind this one, durably. Blocks.
    ///
    /// # Errors
    /// As [`Self::complete_files`].
    pub fn number_files_from(&self, number: i64) -> Result<(), OperatorError> {
        holdings::number_from(&*self.open_store()?, number)
    }

    /// Opens a file that is complete here, for another member: from its archived file, or, where that is gone, from its rows. Blocks.
    ///
    /// # Errors
    /// [`OperatorError::NotRunning`], [`OperatorError::NotGiven`] when it is not complete here, or nothing of it is left.
    pub fn give_file(&self, file: FileKey) -> Result<Content, OperatorError> {
        open_content(&*self.open_store()?, file)
    }

    /// Begins to take a file from another member, or goes on with what is left of an earlier attempt. Blocks.
    ///
    /// # Errors
    /// [`OperatorError::NotRunning`], [`OperatorError::Busy`] when it is being taken, and of the file system.
    pub fn receive_file(&self, file: FileKey) -> Result<Receiving, OperatorError> {
        Receiving::begin(&self.open_store()?, file)
    }

    /// Stores a file whose bytes are all here. It is durable and complete on return, and stored once, however often this is done and
    /// wherever its rows came from before.
    ///
    /// # Errors
    /// [`OperatorError::Conflict`] when another file is complete under its number; what else may pass is told by its own error, and
    /// the bytes are kept then.
    pub async fn store_file(&self, receiving: Receiving) -> Result<(), OperatorError> {
        receiving.store(&self.open_store()?).await
    }

    /// Takes a file away, of whichever producer, in order to fetch it from another member: it is not complete here, and given to nobody.
    /// Its rows stay in the tables until those of the file that is stored take their place.
    ///
    /// # Errors
    /// Of the registry and the journal.
    pub async fn take_file_away(&self, file: FileKey) -> Result<(), OperatorError> {
        take_away(&self.open_store()?, file).await
    }
}
