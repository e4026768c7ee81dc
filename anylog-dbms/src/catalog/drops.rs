//! Dropping partitions and tables, and saying so.

use std::collections::BTreeMap;

use super::{Catalog, Database};
use crate::{DbmsError, Target};

/// Partitions that are noted and dropped at once. The note of one and the syncs of its going cost more than all the rest; but of those
/// that are noted, a crash leaves some that are there still.
const TOGETHER: usize = 128;

/// Partitions that were dropped, and the bytes that they took: by table, in the order in which they went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dropped(Vec<(String, Vec<String>, u64)>);

impl Dropped {
    fn add(&mut self, table: &str, partition: &str, bytes: u64) {
        match self.0.iter_mut().find(|(known, ..)| known == table) {
            Some((_, names, sum)) => {
                names.push(partition.to_owned());
                *sum += bytes;
            }
            None => self.0.push((table.to_owned(), vec![partition.to_owned()], bytes)),
        }
    }

    /// Whether nothing was dropped.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many partitions were dropped.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.iter().map(|(_, names, _)| names.len()).sum()
    }

    /// The bytes that they took, as far as the engine tells.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|(.., bytes)| bytes).sum()
    }
}

impl Catalog {
    /// Drops one partition, after the drop hook agreed. On a disk so full that the hook cannot note it the partition is emptied first.
    ///
    /// # Errors
    /// Of the hook or the engine; the partition is still there then, or emptied and dropped with the next call or connect.
    pub fn drop_partition(&self, database: &Database, table: &str, partition: &str) -> Result<(), DbmsError> {
        self.drop_one(database, table, partition).map(|_| ())
    }

    fn drop_one(&self, database: &Database, table: &str, partition: &str) -> Result<u64, DbmsError> {
        let bytes = database.dbms.size(&Target::partition(table, partition))?.unwrap_or(0);
        let hook = self.drop_hook.read().clone();
        if let Some(hook) = hook {
            match hook.before_drop(database, table, partition) {
                Err(DbmsError::DiskFull { .. }) => {
                    database.dbms.empty_partition(table, partition)?;
                    hook.before_drop(database, table, partition)?;
                }
                result => result?,
            }
        }
        database.dbms.drop_partition(table, partition)?;
        self.count_drop(database, table);
        Ok(bytes)
    }

    fn count_drop(&self, database: &Database, table: &str) {
        *self.dropped.lock().entry((database.name.clone(), table.to_owned())).or_default() += 1;
    }

    /// Drops partitions, oldest first as they are given, until one cannot be dropped. What was dropped is added to `dropped`; one that
    /// somebody else drops meanwhile is not.
    ///
    /// # Errors
    /// As [`Self::drop_partition`].
    pub fn drop_partitions(
        &self,
        database: &Database,
        table: &str,
        partitions: &[String],
        dropped: &mut Dropped,
    ) -> Result<(), DbmsError> {
        let hook = self.drop_hook.read().clone();
        for partitions in partitions.chunks(TOGETHER) {
            match hook.as_ref().map_or(Ok(()), |hook| hook.before_drops(database, table, partitions)) {
                // Each makes the space for its own note.
                Err(DbmsError::DiskFull { .. }) => self.drop_each(database, table, partitions, dropped)?,
                result => {
                    result?;
                    self.drop_together(database, table, partitions, dropped)?;
                }
            }
        }
        Ok(())
    }

    fn drop_each(
        &self,
        database: &Database,
        table: &str,
        partitions: &[String],
        dropped: &mut Dropped,
    ) -> Result<(), DbmsError> {
        for partition in partitions {
            match self.drop_one(database, table, partition) {
                Ok(bytes) => dropped.add(table, partition, bytes),
                Err(DbmsError::NoTable { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Drops partitions to which the hook agreed.
    fn drop_together(
        &self,
        database: &Database,
        table: &str,
        partitions: &[String],
        dropped: &mut Dropped,
    ) -> Result<(), DbmsError> {
        let mut bytes = BTreeMap::new();
        for partition in partitions {
            bytes.insert(partition.as_str(), database.dbms.size(&Target::partition(table, partition))?.unwrap_or(0));
        }
        database.dbms.drop_partitions(table, partitions, &mut |partition| {
            dropped.add(table, partition, bytes.get(partition).copied().unwrap_or(0));
            self.count_drop(database, table);
        })
    }

    /// Writes into the event log what was dropped of a database, and why.
    pub fn report_drops(&self, database: &Database, dropped: &Dropped, why: &str) {
        let now = self.node.clock.now();
        for (table, names, bytes) in &dropped.0 {
            let text = format!("{}.{table}: {}{why}", database.name, shown(names, *bytes));
            tracing::info!("Partitions dropped: {text}");
            self.node.events.add(now, "partitions", "Partitions dropped", text);
        }
    }

    /// Drops what an earlier run emptied and could not drop: before its rows could come back out of the journal.
    pub(super) fn finish_drops(&self, database: &Database) {
        let mut dropped = Dropped::default();
        let mut finish = || -> Result<(), DbmsError> {
            for (table, partition) in database.dbms.emptied_partitions()? {
                self.drop_partitions(database, &table, &[partition], &mut dropped)?;
            }
            Ok(())
        };
        let finished = finish();
        self.report_drops(database, &dropped, ", emptied by an earlier run on a full disk");
        if let Err(error) = finished {
            tracing::error!(dbms = database.name, %error, "A partition that was emptied is still to be dropped");
        }
    }

    /// How many partitions were dropped since the start: database, table, count.
    #[must_use]
    pub fn dropped_partitions(&self) -> Vec<(String, String, u64)> {
        self.dropped.lock().iter().map(|((dbms, table), count)| (dbms.clone(), table.clone(), *count)).collect()
    }

    /// Drops a table and its partitions, after the drop hook agreed to each.
    ///
    /// # Errors
    /// Of the hook or the engine; partitions that were dropped before stay dropped.
    pub fn drop_table(&self, database: &Database, table: &str) -> Result<(), DbmsError> {
        let partitions = database.dbms.partitions(table)?;
        let mut dropped = Dropped::default();
        let result = self.drop_partitions(database, table, &partitions, &mut dropped);
        self.report_drops(database, &dropped, ", with their table");
        result?;
        let hook = self.drop_hook.read().clone();
        if let Some(hook) = hook {
            hook.before_drop_table(database, table)?;
        }
        database.dbms.drop_table(table)
    }
}

/// `partitions a, b (12.5 MB)`. Many are told by the first and the last.
fn shown(names: &[String], bytes: u64) -> String {
    const FEW: usize = 5;
    let size = if bytes > 0 { format!(" ({})", shown_bytes(bytes)) } else { String::new() };
    match names {
        [one] => format!("partition {one}{size}"),
        [first, .., last] if names.len() > FEW => format!("{} partitions from {first} to {last}{size}", names.len()),
        few => format!("partitions {}{size}", few.join(", ")),
    }
}

/// `12.5 MB`, in binary multiples as options are read.
pub(crate) fn shown_bytes(bytes: u64) -> String {
    let units = [(40, "TB"), (30, "GB"), (20, "MB"), (10, "KB")];
    let unit = units.into_iter().find(|(shift, _)| bytes >> shift > 0);
    match unit {
        Some((shift, unit)) => {
            let tenths = (u128::from(bytes) * 10) >> shift;
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_told_shortly() {
        let names: Vec<String> = (0..7).map(|n| format!("p{n}")).collect();
        assert_eq!(shown(&names[..1], 0), "partition p0");
        assert_eq!(shown(&names[..2], 1536), "partitions p0, p1 (1.5 KB)");
        assert_eq!(shown(&names, 12 << 30), "7 partitions from p0 to p6 (12.0 GB)");
        assert_eq!(shown_bytes(1023), "1023 bytes");
        assert_eq!(shown_bytes(u64::MAX), "16777215.9 TB");
    }
}
