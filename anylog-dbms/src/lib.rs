//! Logical databases over SQLite and PostgreSQL: tables derived from JSON rows, split into time partitions.
//!
//! A node stores what devices send before anybody declared a table. This crate is the store below that: it derives a table from
//! the first rows ([`schema::infer`]), converts each row to the table's columns without losing a digit
//! ([`schema::RowConverter`]), splits rows by time ([`Partitioning`]), and keeps them in a physical database behind one trait
//! ([`Dbms`]). A row is a JSON object on one line.
//!
//! # From JSON to SQL
//!
//! ```
//! use std::ops::ControlFlow;
//! use anylog_dbms::schema::{RowConverter, TimeWindow, infer};
//! use anylog_dbms::{Catalog, ConnectRequest, PartitionUnit, Partitioning, SqlValue, Target};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let home = tempfile::tempdir()?;
//! let catalog = Catalog::new(anylog_core::Node::builder().home(home.path()).build());
//! let database = catalog.connect(ConnectRequest::sqlite("test", home.path()))?;
//!
//! let rows = [r#"{"timestamp":"2026-03-04 05:06:07.5","value":2.5,"device":"d1"}"#];
//! let table = infer("rand_data", &rows, &[], true)?;
//! database.dbms().create_table(&table)?;
//!
//! let now = "2026-03-04T05:06:08Z".parse()?;
//! let days = Partitioning::new("insert_timestamp", 1, PartitionUnit::Day)?;
//! let target = Target::partition("rand_data", days.name("rand_data", now));
//! database.dbms().create_partition(&table, target.physical())?;
//!
//! let converter = RowConverter::new(&table, jiff::tz::TimeZone::UTC, TimeWindow::default());
//! let columns: Vec<String> = table.data_columns().iter().map(|column| column.name.clone()).collect();
//! let values = vec![converter.convert(rows[0], now)?.values];
//! # let (columns, values) = {
//! #     let mut columns = columns; columns.push("insert_timestamp".into());
//! #     let mut values = values; values[0].push(SqlValue::Text(anylog_core::time::stored(now)));
//! #     (columns, values)
//! # };
//! database.dbms().apply(&target, &columns, &values, &[])?;
//!
//! let sql = format!("SELECT timestamp, value FROM {}", target.physical());
//! database.dbms().query(Some(&target), &sql, &mut |names, row| {
//!     assert_eq!(names, ["timestamp", "value"]);
//!     assert_eq!(row, [SqlValue::Text("2026-03-04 05:06:07.500000".into()), SqlValue::Float(2.5)]);
//!     ControlFlow::Continue(())
//! })?;
//! # Ok(())
//! # }
//! ```
//!
//! # What is guaranteed
//! * [`Dbms::apply`] stores all its rows and its marks, or nothing. A row that the engine refuses is named by its place.
//! * What was stored is durable after [`Dbms::sync`]; tables, partitions, [`Dbms::execute`] and the registry of source files
//!   ([`TsdStore`]) are durable when their call returns.
//! * Integers keep 64 bits, floats 17 digits, text every character, nested JSON its very text; times are stored in UTC with
//!   microseconds. A value that its column cannot hold is a [`schema::RowProblem`], never a guess.
//! * Readers and the writer do not wait for each other, save for rows that count as stored and are on their way ([`growing`]). Dropping a partition gives its space back, also on a full disk.
//! * A database is offered under its name only after every [`ConnectHook`] ran.
//!
//! # What is not
//! * Rows of one call that go to several partitions are several transactions, one per file: the marks tell how far each got.
//! * SQLite does not check the length of `CHAR(n)` or the range of `INT`; [`schema::RowConverter`] does. `DECIMAL` is kept with 15
//!   digits by SQLite.
//! * PostgreSQL takes names of at most 63 bytes. A longer one is shortened there, and whole everywhere else; who looks with other
//!   programs finds the whole one in the comment on the table or column.
//! * Declarations of partitions live as long as the node: scripts declare them at each start.
//!
//! # The rooms
//!
//! | module | holds |
//! |---|---|
//! | [`catalog`] | the logical databases of a node, hooks, declarations of partitions |
//! | [`dbms`], [`value`], [`error`] | the trait of a physical database, its values and errors |
//! | [`growing`] | transactions that grow while rows come, rows that count as stored before these end |
//! | [`schema`] | tables: derived from rows, written and read as CREATE texts; times and rows converted |
//! | [`partition`] | names, ranges and retention of partitions; pure |
//! | [`sqlite`], [`postgres`] | the engines |
//! | [`tsd`] | the registry of source files |
//! | [`commands`] | the commands over all of this |

#![forbid(unsafe_code)]

pub mod catalog;
pub mod commands;
pub mod dbms;
pub mod error;
pub mod growing;
pub mod partition;
pub mod postgres;
pub mod schema;
pub mod sqlite;
pub mod tsd;
pub mod value;

pub use catalog::{Catalog, ConnectHook, ConnectRequest, Database, DropHook, MissingFile, MissingFiles, TableSource};
pub use dbms::{Checked, Dbms, DbmsInfo, Engine, RowRef, Scan, SegmentId, Target, Visit, Wanted};
pub use error::DbmsError;
pub use growing::{Grow, Growing, Marks, Promise, Unseen};
pub use partition::{PartitionUnit, Partitioning};
pub use schema::{Column, ColumnType, TableSchema};
pub use tsd::{NewFile, TsdError, TsdFile, TsdFilter, TsdStore, TsdSummary, TsdUpdate};
pub use value::{SqlRef, SqlValue};
