//! The open segment of a table, opened when there is none.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use anylog_dbms::{NewFile, SegmentId};

use super::Shared;
use crate::OperatorError;
use crate::journal::record::SegmentHeader;
use crate::segments::{Key, Segment};
use crate::tables::blocking;

/// How many segments may be opened at one time; those of one key are opened one after the other.
pub(super) const OPENING_LOCKS: usize = 64;

impl Shared {
    /// The open segment of a key, opened when there is none.
    pub(super) async fn open_segment(&self, key: &Key) -> Result<Arc<Segment>, OperatorError> {
        let threshold = self.thresholds.read().of(&key.dbms, &key.table);
        let current = || {
            let mut segments = self.segments.lock();
            let open = segments.open.get(key).cloned()?;
            if open.threshold.goes_with(&threshold) && !open.is_left() {
                return Some(open);
            }
            // A segment is immediate as a whole or not at all: marks count its rows in order. For the same reason no rows follow
            // those that could not be stored. And mates follow it from its first row on or not at all.
            segments.close(key, &open, self.now());
            self.due.notify_one();
            None
        };
        if let Some(open) = current() {
            return Ok(open);
        }
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let lock = usize::try_from(hasher.finish() % OPENING_LOCKS as u64).unwrap_or(0);
        let _one_at_a_time = self.opening[lock].lock().await;
        if let Some(open) = current() {
            return Ok(open);
        }
        let (id, opened, settings) = (SegmentId(rand::random()), self.now(), self.settings());
        let file_id = match settings.tsd.clone() {
            Some(tsd) => {
                let file = NewFile {
                    dbms: key.dbms.clone(),
                    table: key.table.clone(),
                    source: key.source.clone(),
                    hash: placeholder(id),
                    instructions: key.instructions.clone(),
                    time: opened,
                };
                Some(blocking(move || tsd.register(&file)).await?)
            }
            None => None,
        };
        let header = SegmentHeader {
            id,
            dbms: key.dbms.clone(),
            table: key.table.clone(),
            source: key.source.clone(),
            instructions: key.instructions.clone(),
            member: if file_id.is_some() { settings.member.clone() } else { "0".to_owned() },
            file_id,
            opened,
        };
        let segment = Segment::new(header, threshold);
        let mut segments = self.segments.lock();
        segments.open.insert(key.clone(), Arc::clone(&segment));
        if let Some(file) = segment.file() {
            if segment.is_followed() {
                segments.followed.insert(file, Arc::clone(&segment));
            }
            drop(segments);
            if let Some(followers) = self.followers() {
                followers.opened(file);
            }
        }
        Ok(segment)
    }
}

/// The hash of a segment in `tsd_info` while it is open.
pub(crate) fn placeholder(segment: SegmentId) -> String {
    format!("open:{segment}")
}
