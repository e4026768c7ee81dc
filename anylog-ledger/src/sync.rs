//! Synchronisation: how the local copy follows the master's ledger, and how what was written here reaches it.

pub mod edition;
pub mod exchange;
pub mod merge;
pub mod source;
