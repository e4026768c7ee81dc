//! The query language.

use std::sync::Arc;

use anylog_core::{CommandError, Reply};

use crate::{Ledger, Policy};

impl Ledger {
    /// The answer to what follows `blockchain get`.
    pub fn query(&self, text: &str) -> Result<Reply, CommandError> {
        let _ = text;
        Ok(Reply::Empty)
    }

    /// The policies selected by what follows `blockchain get`.
    pub fn select(&self, text: &str) -> Result<Vec<Arc<Policy>>, CommandError> {
        let _ = text;
        Ok(Vec::new())
    }
}
