//! Which records are meant.

use jiff::Timestamp;

use super::QuarantinedRow;
use anylog_core::time::stored;

/// Which records are meant; what is not said means all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QuarantineFilter {
    /// Of this database.
    pub dbms: Option<String>,
    /// Of this table.
    pub table: Option<String>,
    /// Of messages of this topic.
    pub topic: Option<String>,
    /// Of this kind, or with these words in the reason.
    pub reason: Option<String>,
    /// Put aside at this time or later.
    pub from: Option<Timestamp>,
    /// Put aside before this time.
    pub to: Option<Timestamp>,
    /// With this key.
    pub id: Option<String>,
}

impl QuarantineFilter {
    /// Whether a record is meant.
    #[must_use]
    pub fn fits(&self, row: &QuarantinedRow) -> bool {
        let same = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
        same(&self.dbms, &row.dbms)
            && same(&self.table, &row.table)
            && same(&self.id, &row.key)
            && self.topic.as_ref().is_none_or(|topic| {
                row.message.as_ref().is_some_and(|message| message.topic == *topic || message.filter == *topic)
                    || row.origin.strip_prefix("mqtt topic ") == Some(topic)
            })
            && self.reason.as_ref().is_none_or(|words| {
                row.kind == *words || row.reason.to_lowercase().contains(&words.to_lowercase())
            })
            // Times are stored in a form whose order is that of the instants.
            && self.from.is_none_or(|from| row.time >= stored(from))
            && self.to.is_none_or(|to| row.time < stored(to))
    }
}
