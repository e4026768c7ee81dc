//! A complete file as it is given to another member.

use anylog_replica::FileKey;
use anylog_replica::message::About;

use crate::OperatorError;
use crate::store::Shared;

/// What another member gets of a file.
#[derive(Debug)]
pub(crate) struct Content {
    /// What the file is.
    pub(crate) about: About,
    /// Names the bytes: the same name, the same bytes. Never 0.
    pub(crate) content: u64,
    /// How many bytes there are.
    pub(crate) length: u64,
}

impl Content {
    /// Reads bytes from a place on; returns how many there were, 0 only behind the end. Blocks.
    pub(crate) fn read_at(&self, _offset: u64, _bytes: &mut [u8]) -> Result<usize, OperatorError> {
        Err(OperatorError::NotRunning)
    }
}

/// Opens a file that is complete here. Blocks.
pub(crate) fn open_content(_shared: &Shared, _file: FileKey) -> Result<Content, OperatorError> {
    Err(OperatorError::NotRunning)
}
