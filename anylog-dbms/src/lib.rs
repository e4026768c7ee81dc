//! Logical databases over SQLite and PostgreSQL, split into time partitions.

pub mod catalog;
pub mod commands;
pub mod dbms;
pub mod error;
pub mod partition;
pub mod postgres;
pub mod schema;
pub mod sqlite;
pub mod tsd;
pub mod value;

pub use catalog::{Catalog, ConnectHook, ConnectRequest, Database, DropHook, TableSource};
pub use dbms::{Dbms, DbmsInfo, Engine, SegmentId, Target};
pub use error::DbmsError;
pub use partition::{PartitionUnit, Partitioning};
pub use schema::{Column, ColumnType, TableSchema};
pub use tsd::{NewFile, TsdError, TsdFile, TsdFilter, TsdStore, TsdSummary, TsdUpdate};
pub use value::SqlValue;
