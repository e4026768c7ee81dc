//! SQL over tables that lie on many nodes and in many partitions, with the output formats of the network.
//!
//! A table lies in many places: each cluster of operators holds a part of its rows, and each operator keeps them in partitions by
//! time. This crate answers one SELECT as if all rows lay in one table, and writes the answer in the documented formats.
//!
//! ```
//! use anylog_query::{Cell, Format, Nodes, Writer};
//!
//! let mut writer = Writer::new(Format::Json, false, false, vec!["device".into(), "value".into()]);
//! let text = writer.rows(vec![vec![Cell::Text("d1".into()), Cell::Float(3.0)]]) + &writer.finish(std::time::Duration::ZERO, Nodes::all(1));
//! assert_eq!(text, r#"{"Query":[{"device":"d1","value":3.0}]}"#);
//! ```
//!
//! # Guarantees
//!
//! * **QRY-1** the answer over many places equals the answer of one database that holds all rows; floats within 1e-9 relative.
//! * **QRY-2** an answer that lacks a node says so, whatever format and options were asked for; it is only given when the query
//!   allows it ([`Network::subset`]).
//! * **QRY-3** a node that fails is replaced by another member of its cluster within the query, at any time. Aggregates begin again with
//!   that one; of rows that stream it gives those that did not come yet, as long as fewer than 2 million of its part came.
//! * An answer that breaks off after its first rows says so: its text ends with an `Error`, and its connection breaks.
//! * A statement is checked node by node before an engine sees it: one table, known columns, a closed list of functions. A caller
//!   with read access cannot write, read files or sleep through an engine.
//! * Memory is bounded: rows stream in small pieces, what all queries put together stays under 256 MB or a query fails with status
//!   76 (a count of different values takes 32 bytes for each, a group its keys); rows that an engine puts together leave the memory
//!   for files at 32 MB a query and may take 4 GB there; 16 queries run at a time (`set query pool`), 256 wait, and further ones are refused with status 240.
//! * An error before the first row is an error of the command. Dropping an answer stops its readers; so does a receiver that
//!   reads nothing for two minutes.
//!
//! # What it does not do
//!
//! * Joins, sub-selects, UNION and WITH are refused, with what to write instead.
//! * `order by a, b desc` is SQL: only `b` descends.
//! * An ORDER BY over more than 64 partitions of one node puts the rows into a table to sort them, unless it begins with the time
//!   that splits the table. One by texts over nodes with PostgreSQL, which has an order of its own, holds the rows in memory.
//! * Aggregates that cannot be taken apart (`sum(distinct x)`, `group_concat`) and windows take the columns that they need to the
//!   asking node.
//! * Members of one cluster with engines of different kinds do not take over from each other in the middle of rows that stream.
//! * A statement that finds no row cannot be stopped before its engine is done.
//!
//! # The way of a statement
//!
//! | module | step |
//! |---|---|
//! | `sql` | text to a checked statement: times, `increments`, `period`, casts |
//! | `plan` | which places, and what runs there |
//! | `execute` | readers on blocking threads, the merge of intermediate rows |
//! | `network` | which nodes, their parts in frames of rows, fail-over; [`Network`] says who is asked |
//! | `shape` | declared types, casts, zone, extended columns |
//! | [`Writer`] | text |
//! | [`QueryService`] | all of it; [`commands()`] is its language |
//!
//! [`dialect`] describes what a statement may say.

#![forbid(unsafe_code)]

mod cell;
mod commands;
mod committed;
mod error;
mod execute;
mod extend;
mod format;
mod history;
mod mode;
mod network;
mod plan;
mod service;
mod shape;
mod sql;
mod zone;

#[doc = include_str!("dialect.md")]
pub mod dialect {}

pub use cell::Cell;
pub use commands::{commands, network_sql};
pub use committed::Committed;
pub use error::QueryError;
pub use format::{Format, Nodes, Statistics, Writer};
pub use mode::QueryMode;
pub use network::{Destination, Network};
pub use service::{Answer, QueryService, Request};
