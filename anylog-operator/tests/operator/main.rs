//! The operator over real SQLite databases and real files.

// Helpers of tests fail as tests do; receipts are looked at only where a test is about them.
#![allow(clippy::unwrap_used, clippy::let_underscore_must_use)]

mod ahead;
mod cluster_commands;
mod deliveries;
mod files;
mod gated;
mod growing;
mod harness;
mod quarantine;
mod replica_carry;
mod replica_files;
mod replica_link;
mod replica_open;
mod restart;
mod streams;
