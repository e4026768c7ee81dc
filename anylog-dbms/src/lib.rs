//! Logical databases over SQLite and PostgreSQL, split into time partitions.

pub mod dbms;
pub mod error;
pub mod schema;
pub mod value;

pub use dbms::{Dbms, DbmsInfo, Engine, SegmentId, Target};
pub use error::DbmsError;
pub use schema::{Column, ColumnType, TableSchema};
pub use value::SqlValue;
