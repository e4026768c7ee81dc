//! From the outside world to rows: mapping, MQTT client, embedded MQTT broker, REST data.

pub mod broker;
pub mod client;
pub mod commands;
mod ingest;
pub mod intake;
mod json;
mod lines;
pub mod mapping;
pub mod rest;
pub mod sink;
pub mod subscription;
pub mod topic;

pub use broker::{Broker, Router};
pub use commands::commands;
pub use ingest::Ingest;
pub use sink::{FileReceipt, Receipt, RefusedRow, RowGroup, RowSink, SinkError, SinkSlot, SourceFile, TableRows};
