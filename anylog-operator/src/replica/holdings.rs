//! What this member has: complete files by producer, as its registry says.

use anylog_dbms::{TsdError, TsdStore, tsd};
use anylog_replica::{FileKey, FileSet};
use jiff::Timestamp;

use crate::OperatorError;
use crate::store::{Settings, Shared};

/// The registry, and the number of this member.
pub(crate) struct Registry {
    pub(crate) store: TsdStore,
    pub(crate) own: i64,
}

impl Registry {
    /// That of the running operator.
    ///
    /// # Errors
    /// [`OperatorError::NotRegistered`] when rows are not registered, or by no member of a cluster.
    pub(crate) fn of(settings: &Settings) -> Result<Self, OperatorError> {
        let own = settings.member.parse().ok().filter(|own| *own > 0);
        match (&settings.tsd, own) {
            (Some(store), Some(own)) => Ok(Self { store: TsdStore::clone(store), own }),
            _ => Err(OperatorError::NotRegistered),
        }
    }

    /// The table of a producer's files.
    pub(crate) fn table(&self, producer: i64) -> String {
        if producer == self.own { tsd::OWN_TABLE.to_owned() } else { format!("tsd_{producer}") }
    }

    /// The producer whose files a table holds.
    pub(crate) fn producer(&self, table: &str) -> Option<i64> {
        if table == tsd::OWN_TABLE { Some(self.own) } else { table.strip_prefix("tsd_")?.parse().ok() }
    }

    /// What is registered of a file.
    pub(crate) fn get(&self, key: FileKey) -> Result<Option<anylog_dbms::TsdFile>, OperatorError> {
        match self.store.get(&self.table(key.producer), key.file) {
            Err(TsdError::NoTable { .. }) => Ok(None),
            result => Ok(result?),
        }
    }
}

/// The complete files that this member has, by producer; only those registered at or after `since`. Blocks.
///
/// # Errors
/// [`OperatorError::NotRegistered`], and of the registry.
pub(crate) fn complete_files(shared: &Shared, since: Option<Timestamp>) -> Result<Vec<(i64, FileSet)>, OperatorError> {
    let registry = Registry::of(&shared.settings())?;
    let mut all = Vec::new();
    for table in registry.store.tables()? {
        let Some(producer) = registry.producer(&table) else { continue };
        // A table of this member's own number would be of another node that had it.
        if producer == registry.own && table != tsd::OWN_TABLE {
            continue;
        }
        let mut files = FileSet::default();
        for (first, last) in registry.store.complete(&table, since)? {
            files.insert_range(first, last);
        }
        all.push((producer, files));
    }
    Ok(all)
}

/// The highest number that this member gave to a file of its own; 0 when it gave none. Blocks.
///
/// # Errors
/// [`OperatorError::NotRegistered`], and of the registry.
pub(crate) fn given(shared: &Shared) -> Result<i64, OperatorError> {
    Ok(Registry::of(&shared.settings())?.store.given()?)
}

/// Lets the numbers of own files go on behind this one, durably. Blocks.
///
/// # Errors
/// [`OperatorError::NotRegistered`], and of the registry.
pub(crate) fn number_from(shared: &Shared, number: i64) -> Result<(), OperatorError> {
    Ok(Registry::of(&shared.settings())?.store.number_from(number)?)
}
