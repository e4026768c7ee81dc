//! Whether this member lacks more than comes late in everyday work.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anylog_replica::FileKey;
use anylog_replica::member::ProducerView;

use super::Driver;

/// Files that may be under way.
const MANY: u64 = 16;
/// How long a file may be under way.
const LATE: Duration = Duration::from_secs(30);
/// How long a file of a mate may be open without its producer before that is reported.
const ORPHANED: Duration = Duration::from_secs(600);

/// What is known of the files that are missing.
#[derive(Debug, Default)]
pub(super) struct Lacking {
    /// The first missing file of each producer, and since when it is that.
    first: BTreeMap<i64, (i64, Instant)>,
    behind: Option<u64>,
}

impl Lacking {
    /// Looks at what is missing now. `heard` is false when there are mates and none of them said yet what it has.
    fn look(&mut self, now: Instant, producers: &[ProducerView], heard: bool) {
        let missing: u64 = producers.iter().map(|producer| producer.missing.len()).sum();
        let firsts = producers.iter().filter_map(|view| Some((view.producer, view.missing.first()?)));
        let since = |(producer, file): (i64, i64)| {
            let known = self.first.get(&producer).filter(|(known, _)| *known == file);
            (producer, (file, known.map_or(now, |(_, since)| *since)))
        };
        self.first = firsts.map(since).collect();
        let late = self.first.values().any(|(_, since)| now.saturating_duration_since(*since) > LATE);
        let empty = producers.iter().all(|producer| producer.complete.is_empty());
        self.behind = match missing {
            0 if empty && !heard => Some(0),
            missing => (missing > MANY || late).then_some(missing),
        };
    }
}

impl Driver {
    /// Looks whether this member lacks files.
    pub(super) fn look_what_is_lacking(&self) {
        let mates = self.mates.read().len();
        let (producers, unheard) = {
            let member = self.member.lock();
            (member.producers(), member.unheard().len())
        };
        let heard = mates == 0 || unheard < mates;
        self.notes.lock().lacking.look(Instant::now(), &producers, heard);
    }

    /// Reports files that stay open because their producers are away for long, each once.
    pub(super) fn look_at_orphans(&self) {
        let orphans = self.member.lock().orphans();
        let late: BTreeMap<FileKey, u64> = orphans
            .into_iter()
            .filter(|(_, millis)| u128::from(*millis) >= ORPHANED.as_millis())
            .map(|(held, _)| (FileKey::from(held), held.ordinal))
            .collect();
        let known = {
            let files: BTreeSet<FileKey> = late.keys().copied().collect();
            std::mem::replace(&mut self.notes.lock().orphans, files)
        };
        for (file, ordinal) in late.into_iter().filter(|(file, _)| !known.contains(file)) {
            let FileKey { producer, file } = file;
            self.report(
                "Open file",
                format!(
                    "File {file} of member {producer} is open for more than {} minutes without its producer: its rows, up to number \
                     {ordinal}, are in the tables and stay there. It is complete when member {producer} is back, also on an \
                     empty disk",
                    ORPHANED.as_secs() / 60
                ),
            );
        }
    }

    /// As `Replication::behind` tells.
    pub(in crate::replica) fn behind(&self) -> Option<u64> {
        self.notes.lock().lacking.behind
    }
}

#[cfg(test)]
mod tests {
    use anylog_replica::FileSet;

    use super::*;

    fn view(producer: i64, complete: u64, missing: (i64, i64)) -> ProducerView {
        let set = |first: i64, last: i64| {
            let mut files = FileSet::new();
            if first <= last {
                files.insert_range(first, last);
            }
            files
        };
        ProducerView {
            producer,
            given: 0,
            complete: set(1, complete.try_into().unwrap()),
            mates: Vec::new(),
            missing: set(missing.0, missing.1),
            in_work: Vec::new(),
            parked: Vec::new(),
            consensus: 0,
        }
    }

    #[test]
    fn files_on_their_way_are_no_gap() {
        // QRY-2
        let mut lacking = Lacking::default();
        let start = Instant::now();
        let mut after = |seconds: u64, views: &[ProducerView], heard: bool| {
            lacking.look(start + Duration::from_secs(seconds), views, heard);
            lacking.behind
        };
        assert_eq!(after(0, &[view(1, 9, (10, 25))], true), None);
        assert_eq!(after(1, &[view(1, 9, (10, 20)), view(2, 0, (1, 6))], true), Some(17), "too many");
        // Others are missing each time.
        assert_eq!(after(20, &[view(1, 19, (20, 21))], true), None);
        assert_eq!(after(40, &[view(1, 21, (22, 23))], true), None);
        assert_eq!(after(60, &[view(1, 23, (24, 24))], true), None);
        // One that does not come.
        assert_eq!(after(90, &[view(1, 23, (24, 30))], true), None);
        assert_eq!(after(91, &[view(1, 23, (24, 30))], true), Some(7), "too late");
        assert_eq!(after(92, &[view(1, 30, (31, 31))], true), None);
        // Nothing is here, and nobody said what there is.
        assert_eq!(after(93, &[view(1, 0, (1, 0))], false), Some(0));
        assert_eq!(after(94, &[view(1, 0, (1, 0))], true), None);
        assert_eq!(after(95, &[view(1, 3, (1, 0))], false), None);
    }
}
