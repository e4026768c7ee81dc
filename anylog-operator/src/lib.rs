//! Rows to durable storage: journal, apply, seal, watch directory, archive, quarantine.

pub mod disk;
pub mod journal;
