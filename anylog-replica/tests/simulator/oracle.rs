//! What must hold, whatever happens.

use std::collections::BTreeMap;

use anylog_replica::FileKey;

use crate::disk::{Disk, Row};

/// What became of a row.
#[derive(Debug)]
struct Sent {
    file: FileKey,
    ordinal: u64,
    /// To how many copies its message was acknowledged.
    acknowledged: Option<u32>,
    /// How many disks were lost that had it.
    lost_disks: u32,
    /// No disk had it any more, and more disks were lost than its acknowledgement speaks of; or its file came to nothing.
    excused: bool,
}

/// All rows that were ever sent, and what the members owe.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    rows: BTreeMap<Row, Sent>,
    /// How many were acknowledged, by copies.
    pub(crate) acknowledged: BTreeMap<u32, u64>,
}

/// A promise that was broken.
pub(crate) type Violation = String;

impl Oracle {
    pub(crate) fn sent(&mut self, row: Row, file: FileKey, ordinal: u64) {
        let sent = Sent { file, ordinal, acknowledged: None, lost_disks: 0, excused: false };
        self.rows.insert(row, sent);
    }

    /// Rows of a file that comes to nothing are owed to nobody.
    pub(crate) fn void(&mut self, row: Row) {
        if let Some(sent) = self.rows.get_mut(&row) {
            sent.excused = true;
        }
    }

    /// Whether a row must be somewhere, or may come to be.
    pub(crate) fn owed(&self, row: Row) -> bool {
        self.rows.get(&row).is_some_and(|sent| !sent.excused)
    }

    /// DUR-3: nothing is acknowledged before so many members had it.
    pub(crate) fn acknowledged(&mut self, row: Row, copies: u32, disks: &[Disk]) -> Result<(), Violation> {
        let Some(sent) = self.rows.get_mut(&row).filter(|sent| !sent.excused) else { return Ok(()) };
        sent.acknowledged = Some(copies);
        *self.acknowledged.entry(copies).or_default() += 1;
        let there = disks.iter().filter(|disk| disk.has(sent.file, sent.ordinal, row)).count() as u32;
        if there == 0 || there + sent.lost_disks < copies {
            return Err(format!(
                "row {row}, ordinal {} of {}, is acknowledged as on {copies} members and is on {there}",
                sent.ordinal, sent.file
            ));
        }
        Ok(())
    }

    /// DUR-3: rows that left a disk that is still there must be on another.
    pub(crate) fn removed(
        &mut self,
        rows: impl IntoIterator<Item = Row>,
        disks: &[Disk],
        how: &str,
    ) -> Result<(), Violation> {
        for row in rows {
            let Some(sent) = self.rows.get(&row).filter(|sent| !sent.excused) else { continue };
            let there = disks.iter().any(|disk| disk.has(sent.file, sent.ordinal, row));
            if let (Some(copies), false) = (sent.acknowledged, there) {
                return Err(format!(
                    "row {row}, ordinal {} of {}, was acknowledged as on {copies} members and is gone from the last disk that \
                     had it: {how}",
                    sent.ordinal, sent.file
                ));
            }
        }
        Ok(())
    }

    /// DUR-3: a disk is lost; `disks` are those that are left.
    pub(crate) fn disk_lost(&mut self, lost: &Disk, disks: &[Disk]) -> Result<(), Violation> {
        for (file, ordinal, row) in lost.rows() {
            let Some(sent) = self.rows.get_mut(&row).filter(|sent| !sent.excused) else { continue };
            sent.lost_disks += 1;
            if disks.iter().any(|disk| disk.has(file, ordinal, row)) {
                continue;
            }
            match sent.acknowledged {
                Some(copies) if sent.lost_disks < copies => {
                    return Err(format!(
                        "row {row}, ordinal {ordinal} of {file}, was acknowledged as on {copies} members and is lost with {} disks",
                        sent.lost_disks
                    ));
                }
                _ => sent.excused = true,
            }
        }
        Ok(())
    }

    /// R21: no row is twice on a disk.
    pub(crate) fn once(&self, disk: &Disk, name: usize) -> Result<(), Violation> {
        let mut seen: BTreeMap<Row, FileKey> = BTreeMap::new();
        for (file, ordinal, row) in disk.rows() {
            if let Some(other) = seen.insert(row, file) {
                return Err(format!("member {name} has row {row} in {file} and in {other}"));
            }
            let sent = self.rows.get(&row).ok_or_else(|| format!("member {name} has row {row}, that nobody sent"))?;
            if (sent.file, sent.ordinal) != (file, ordinal) {
                return Err(format!(
                    "member {name} has row {row} as ordinal {ordinal} of {file}; it is ordinal {} of {}",
                    sent.ordinal, sent.file
                ));
            }
        }
        Ok(())
    }

    /// DUR-6, R20: after quiet all disks have the same files with the same rows, and all that was acknowledged.
    pub(crate) fn converged(&self, disks: &[Disk]) -> Result<(), Violation> {
        let Some(first) = disks.first() else { return Ok(()) };
        for (name, disk) in (1..).zip(disks) {
            if let Some(file) = disk.open.keys().next() {
                return Err(format!("member {name} has {file} open"));
            }
            for (file, rows) in &first.complete {
                match disk.complete.get(file) {
                    None => return Err(format!("member {name} lacks {file}")),
                    Some(other) if other != rows => {
                        return Err(format!("{file} is {rows:?} at member 1 and {other:?} at member {name}"));
                    }
                    Some(_) => {}
                }
            }
            if let Some(file) = disk.complete.keys().find(|file| !first.complete.contains_key(file)) {
                return Err(format!("member 1 lacks {file}, which member {name} has"));
            }
        }
        for (row, sent) in self.rows.iter().filter(|(_, sent)| sent.acknowledged.is_some() && !sent.excused) {
            if !first.has(sent.file, sent.ordinal, *row) {
                return Err(format!(
                    "row {row}, ordinal {} of {}, was acknowledged and is nowhere",
                    sent.ordinal, sent.file
                ));
            }
        }
        Ok(())
    }
}
