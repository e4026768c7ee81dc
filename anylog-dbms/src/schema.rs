//! Tables and their columns: derived from data, written as text, read from text, filled from JSON rows.

mod convert;
pub(crate) mod ddl;
mod infer;
mod instant;
mod row;
mod types;

pub use convert::{ConvertedRow, Misfit, RowConverter, RowProblem, TimeWindow};
pub use ddl::{create_text, parse_create};
pub use infer::infer;
pub(crate) use instant::micros;
pub use instant::{epoch, parse_time};

use crate::DbmsError;

/// The portable type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ColumnType {
    /// The key that the database itself counts.
    Serial,
    /// 32-bit integer.
    Int,
    /// 64-bit integer.
    BigInt,
    /// Exact decimal; only where declared.
    Decimal,
    /// 64-bit float.
    Double,
    /// Truth value.
    Boolean,
    /// Instant in UTC with microseconds.
    Timestamp,
    /// Calendar day.
    Date,
    /// Time of day.
    Time,
    /// UUID.
    Uuid,
    /// Text of any length.
    Varchar,
    /// Text of at most this many characters; only where declared.
    Char(u32),
    /// Network address.
    Cidr,
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Normalised name.
    pub name: String,
    /// Its type.
    pub kind: ColumnType,
    /// Whether NULL is refused.
    pub not_null: bool,
    /// SQL text of its default, such as `now()` or `'x'`.
    pub default: Option<String>,
}

/// An index of a table. Its name is `<table>_<suffix>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// The end of the name: `timestamp_index`, `tsd_index`.
    pub suffix: String,
    /// The columns.
    pub columns: Vec<String>,
}

/// A table: the four bookkeeping columns `row_id`, `insert_timestamp`, `tsd_name`, `tsd_id`, then those of the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSchema {
    /// Normalised name.
    pub name: String,
    /// All columns in order, bookkeeping first.
    pub columns: Vec<Column>,
    /// The indexes.
    pub indexes: Vec<Index>,
}

/// How many columns of each table the node itself fills: `row_id`, `insert_timestamp`, `tsd_name`, `tsd_id`.
pub const BOOKKEEPING_COLUMNS: usize = 4;

/// Whether the node itself fills the column of this name; data cannot.
pub(crate) fn is_bookkeeping(name: &str) -> bool {
    matches!(name, "row_id" | "insert_timestamp" | "tsd_name" | "tsd_id")
}

impl TableSchema {
    /// The column of this name.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The columns that come from the data.
    #[must_use]
    pub fn data_columns(&self) -> &[Column] {
        self.columns.get(BOOKKEEPING_COLUMNS..).unwrap_or_default()
    }

    /// Makes a column wider; false when it is so already.
    ///
    /// # Errors
    /// [`DbmsError::Declaration`] when there is no such column, or values would not stay as they are.
    pub fn widen(&mut self, column: &str, to: ColumnType) -> Result<bool, DbmsError> {
        let Some(found) = self.columns.iter_mut().find(|known| known.name == column) else {
            return Err(DbmsError::Declaration { reason: format!("table '{}' has no column '{column}'", self.name) });
        };
        match (found.kind, to) {
            (known, to) if known == to => Ok(false),
            (ColumnType::Int | ColumnType::BigInt, ColumnType::Double) | (ColumnType::Int, ColumnType::BigInt) => {
                found.kind = to;
                Ok(true)
            }
            (known, to) => Err(DbmsError::Declaration {
                reason: format!(
                    "column '{column}' of table '{}' is {} and cannot become {}: only integers become wider",
                    self.name,
                    known.portable(),
                    to.portable()
                ),
            }),
        }
    }
}
