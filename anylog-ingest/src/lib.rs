//! From the outside world to rows: mapping, MQTT client, embedded MQTT broker, REST data.
//!
//! Devices speak MQTT and HTTP, in whatever JSON they like; a database wants rows. This crate stands between them: it takes
//! messages from the node's own broker, from other brokers and from REST, maps each to rows as a topic or a policy says, and hands
//! the rows to a [`RowSink`]. Where they are stored is not its affair. That they *are* stored before the sender hears so, is.
//!
//! ```
//! use anylog_ingest::mapping::{Column, Inline, Mapper};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let columns = vec![
//!     Column::new("timestamp", "timestamp", "bring [at]", false)?,
//!     Column::new("value", "float", "bring [readings][][v]", false)?,
//! ];
//! let mapper = Mapper::inline(Inline::new("plant", "bring [machine]", columns)?);
//!
//! let message = br#"{"machine": "Pump 7", "at": "2026-11-23T08:00:00Z", "readings": [{"v": 1.10}, {"v": 2.5}]}"#;
//! let group = mapper.map("plant/pumps", message, jiff::Timestamp::now())?;
//! assert_eq!(group.parts[0].table, "pump_7");
//! assert_eq!(group.parts[0].rows[0], r#"{"timestamp":"2026-11-23T08:00:00Z","value":1.10}"#);
//! assert_eq!(group.parts[0].rows.len(), 2);
//! # Ok(())
//! # }
//! ```
//!
//! # Guarantees
//!
//! * **DUR-1** PUBACK and PUBREC, and the success of a REST call, need a [`Receipt`], which only a mounted store can make.
//! * **R14** A message that cannot be mapped, or whose rows no store will ever take, is written with the reason to the error
//!   directory (`!err_dir/err_<broker>.<topic>.jsonl`), synced, and only then acknowledged. It holds up nobody.
//! * Values go through verbatim: no digit of a number is lost, no text is changed.
//! * Every queue is bounded in bytes or messages; `get local broker` prints the bounds ([`broker`]).
//! * Nothing that a client sends makes the node panic.
//!
//! # Non-guarantees
//!
//! * Messages with QoS 0 are dropped, and counted, when there is no store or no room.
//! * What of the broker outlives a restart, and what does not, says [`broker`].
//!
//! # The rooms
//!
//! | module | holds |
//! |---|---|
//! | [`sink`] | the seam to a store: [`RowSink`], [`Receipt`], [`SinkSlot`] |
//! | [`mapping`] | messages to rows: columns of a topic, policies, raw capture |
//! | [`topic`] | topic filters |
//! | [`subscription`] | what becomes of a topic's messages, and the counts |
//! | [`intake`] | the one way from a message to stored rows, or to the quarantine |
//! | [`broker`] | the embedded MQTT broker |
//! | [`client`] | message clients |
//! | [`rest`] | rows in request bodies |
//! | [`commands`](mod@commands) | `run message broker`, `run msg client`, `get msg client`, `mqtt publish`, ... |

#![forbid(unsafe_code)]

pub mod broker;
pub mod client;
pub mod commands;
pub mod frames;
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
pub use ingest::{Ingest, POLICY};
pub use sink::{
    Behind, Delivery, FileReceipt, Message, MessageRows, Receipt, RefusedRow, Remap, RowGroup, RowSink, SinkError,
    SinkSlot, SourceFile, TableRows, Unmapped,
};
