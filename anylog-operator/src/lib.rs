//! Rows to durable storage.

pub mod archive;
pub mod commands;
pub mod disk;
pub mod error;
pub mod journal;
pub mod quarantine;
pub mod service;
pub mod source_file;
pub mod stats;
pub mod thresholds;

mod apply;
mod incoming;
mod publish;
mod replay;
mod seal;
mod segments;
mod store;
mod tables;
mod watch;

pub use commands::commands;
pub use error::OperatorError;
pub use service::{Identity, Load, OpenSegment, OperatorConfig, OperatorService, OperatorState};
