//! The segments that are open, and those on their way to be sealed.

mod segment;

use std::collections::HashMap;
use std::sync::Arc;

use anylog_replica::FileKey;
use jiff::Timestamp;

use crate::replica::copies::OpenCopy;
use crate::thresholds::LEAST_INTERVAL;
pub(crate) use segment::Segment;

/// Segments of a database that wait to be sealed, or are being sealed, beyond which none is closed for its volume.
const BACKLOG: usize = 8;

/// What the rows of a segment have in common: database, table, source, mapping.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) dbms: String,
    pub(crate) table: String,
    pub(crate) source: String,
    pub(crate) instructions: String,
}

/// The segments of a store.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    pub(crate) open: HashMap<Key, Arc<Segment>>,
    /// Closed for rows, not sealed yet.
    pub(crate) closing: Vec<Arc<Segment>>,
    /// Those of them, open or closing, whose rows other members read meanwhile.
    pub(crate) followed: HashMap<FileKey, Arc<Segment>>,
    /// Copies of open files that other nodes send.
    pub(crate) copies: HashMap<FileKey, Arc<OpenCopy>>,
    last_seal: HashMap<Key, Timestamp>,
}

impl Segments {
    /// Closes a segment for rows, if it is the open one of its key.
    pub(crate) fn close(&mut self, key: &Key, segment: &Arc<Segment>, now: Timestamp) {
        if self.open.get(key).is_some_and(|open| Arc::ptr_eq(open, segment)) {
            self.open.remove(key);
            self.last_seal.insert(key.clone(), now);
            self.closing.push(Arc::clone(segment));
        }
    }

    /// Closes every segment that reached a threshold, or all; returns how many. While the sealer has enough to do with a database,
    /// its segments are not closed for their volume: fewer and larger seals cost less.
    pub(crate) fn close_due(&mut self, now: Timestamp, all: bool) -> usize {
        let mut due: Vec<(Key, Arc<Segment>)> = self
            .open
            .iter()
            .filter(|(key, segment)| all || segment.due(now, self.last_seal.get(*key).copied()))
            .map(|(key, segment)| (key.clone(), Arc::clone(segment)))
            .collect();
        if !all && self.closing.len() + due.len() > BACKLOG {
            due.sort_by_key(|(_, segment)| segment.header.opened);
            let mut backlog: HashMap<String, usize> = HashMap::new();
            for segment in &self.closing {
                *backlog.entry(segment.header.dbms.clone()).or_default() += 1;
            }
            due.retain(|(key, segment)| {
                let backlog = backlog.entry(key.dbms.clone()).or_default();
                let closes = *backlog < BACKLOG || segment.overdue(now);
                *backlog += usize::from(closes);
                closes
            });
        }
        for (key, segment) in &due {
            self.close(key, segment, now);
        }
        // Only recent seals matter.
        self.last_seal.retain(|_, last| now.duration_since(*last).unsigned_abs() < LEAST_INTERVAL);
        due.len()
    }

    /// Open segments whose source files are worth going on with, and up to which frame.
    pub(crate) fn growing(&self) -> Vec<(Arc<Segment>, usize)> {
        let growing = |segment: &Arc<Segment>| Some((Arc::clone(segment), segment.settled_frames()?));
        self.open.values().filter_map(growing).collect()
    }

    /// Adds segments of the run before that are to be sealed.
    pub(crate) fn finish(&mut self, segments: impl IntoIterator<Item = Arc<Segment>>) {
        for segment in segments {
            let followed = segment.file().filter(|_| segment.followed_ordinal() > 0);
            self.followed.extend(followed.map(|file| (file, Arc::clone(&segment))));
            self.closing.push(segment);
        }
    }

    /// Forgets a sealed segment.
    pub(crate) fn done(&mut self, segment: &Arc<Segment>) {
        self.closing.retain(|closing| !Arc::ptr_eq(closing, segment));
        if let Some(file) = segment.file() {
            self.followed.remove(&file);
        }
    }
}

#[cfg(test)]
mod tests;
