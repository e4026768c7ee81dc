//! CREATE texts.

use crate::{DbmsError, TableSchema};

/// The portable CREATE text of a table policy.
#[must_use]
pub fn create_text(_schema: &TableSchema) -> String {
    String::new()
}

/// Reads a CREATE text.
pub fn parse_create(_text: &str) -> Result<TableSchema, DbmsError> {
    Err(DbmsError::Declaration { reason: "not available".into() })
}
