//! Sets of files of several producers, and their short text: `7:1-20,25 9:1-4`.

use std::collections::BTreeMap;
use std::fmt;

use anylog_replica::{FileKey, FileSet};

/// Numbers of files by producer, as ranges in order that do not touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Files(BTreeMap<i64, Vec<(i64, i64)>>);

impl Files {
    /// From sets by producer.
    pub(crate) fn of(sets: &[(i64, FileSet)]) -> Self {
        let mut files = Self::default();
        for (producer, set) in sets {
            set.ranges().for_each(|(first, last)| files.insert(*producer, first, last));
        }
        files
    }

    /// Just these files.
    pub(crate) fn just(keys: impl IntoIterator<Item = FileKey>) -> Self {
        let mut files = Self::default();
        keys.into_iter().for_each(|key| files.insert(key.producer, key.file, key.file));
        files
    }

    /// Reads the text of a set.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut files = Self::default();
        for of_one in text.split_whitespace() {
            let (producer, ranges) = of_one.split_once(':')?;
            let producer = producer.parse().ok()?;
            for range in ranges.split(',') {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                files.insert(producer, first.parse().ok()?, last.parse().ok()?);
            }
        }
        Some(files)
    }

    /// Adds a range of a producer.
    pub(crate) fn insert(&mut self, producer: i64, first: i64, last: i64) {
        if first > last {
            return;
        }
        let ranges = self.0.entry(producer).or_default();
        // What touches or overlaps becomes one range.
        let from = ranges.partition_point(|(_, end)| end.saturating_add(1) < first);
        let to = ranges.partition_point(|(begin, _)| *begin <= last.saturating_add(1));
        let first = ranges.get(from).filter(|_| from < to).map_or(first, |(begin, _)| first.min(*begin));
        let last = ranges[from..to].last().map_or(last, |(_, end)| last.max(*end));
        ranges.splice(from..to, [(first, last)]);
    }

    pub(crate) fn contains(&self, key: FileKey) -> bool {
        let Some(ranges) = self.0.get(&key.producer) else { return false };
        let at = ranges.partition_point(|(_, end)| *end < key.file);
        ranges.get(at).is_some_and(|(begin, _)| *begin <= key.file)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.values().all(Vec::is_empty)
    }

    /// How many files these are.
    pub(crate) fn count(&self) -> u64 {
        self.0.values().flatten().map(|(first, last)| last.abs_diff(*first) + 1).sum()
    }

    /// Producer, first and last number of each range.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (i64, i64, i64)> + '_ {
        self.0.iter().flat_map(|(producer, ranges)| ranges.iter().map(|(first, last)| (*producer, *first, *last)))
    }

    /// One after the other.
    pub(crate) fn keys(&self) -> impl Iterator<Item = FileKey> + '_ {
        self.0.iter().flat_map(|(producer, ranges)| {
            let numbers = ranges.iter().flat_map(|(first, last)| *first..=*last);
            numbers.map(|file| FileKey { producer: *producer, file })
        })
    }

    /// The files that are in both.
    pub(crate) fn both(&self, other: &Self) -> Self {
        let mut both = Self::default();
        for (producer, ranges) in &self.0 {
            let theirs = other.0.get(producer).map_or(&[][..], Vec::as_slice);
            let (mut a, mut b) = (0, 0);
            while let (Some(mine), Some(other)) = (ranges.get(a), theirs.get(b)) {
                both.insert(*producer, mine.0.max(other.0), mine.1.min(other.1));
                if mine.1 < other.1 { a += 1 } else { b += 1 }
            }
        }
        both
    }

    /// The files that are not in the other.
    pub(crate) fn without(&self, other: &Self) -> Self {
        let mut left = Self::default();
        for (producer, ranges) in &self.0 {
            let theirs = other.0.get(producer).map_or(&[][..], Vec::as_slice);
            for (first, last) in ranges {
                let mut next = *first;
                for (begin, end) in theirs.iter().filter(|(begin, end)| end >= first && begin <= last) {
                    left.insert(*producer, next, begin.saturating_sub(1));
                    next = end.saturating_add(1).max(next);
                }
                left.insert(*producer, next, *last);
            }
        }
        left
    }

    /// Only those of one producer.
    pub(crate) fn of_producer(&self, producer: i64) -> Self {
        Self(self.0.get(&producer).map(|ranges| (producer, ranges.clone())).into_iter().collect())
    }
}

impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (producer, ranges) in self.0.iter().filter(|(_, ranges)| !ranges.is_empty()) {
            write!(f, "{separator}{producer}:")?;
            separator = " ";
            for (at, (first, last)) in ranges.iter().enumerate() {
                let comma = if at > 0 { "," } else { "" };
                if first == last { write!(f, "{comma}{first}")? } else { write!(f, "{comma}{first}-{last}")? }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn set() -> impl Strategy<Value = (Files, BTreeSet<(i64, i64)>)> {
        prop::collection::vec((1i64..3, 1i64..30, 0i64..6), 0..12).prop_map(|ranges| {
            let (mut files, mut all) = (Files::default(), BTreeSet::new());
            for (producer, first, more) in ranges {
                files.insert(producer, first, first + more);
                all.extend((first..=first + more).map(|file| (producer, file)));
            }
            (files, all)
        })
    }

    fn members(files: &Files) -> BTreeSet<(i64, i64)> {
        files.keys().map(|key| (key.producer, key.file)).collect()
    }

    proptest! {
        #[test]
        fn it_is_a_set((a, a_all) in set(), (b, b_all) in set()) {
            prop_assert_eq!(members(&a), a_all.clone());
            prop_assert_eq!(a.count(), a_all.len() as u64);
            prop_assert_eq!(members(&a.both(&b)), &a_all & &b_all);
            prop_assert_eq!(members(&a.without(&b)), &a_all - &b_all);
            prop_assert_eq!(Files::parse(&a.to_string()), Some(a.clone()));
            for producer in 1..3 {
                for file in 0..40 {
                    prop_assert_eq!(a.contains(FileKey { producer, file }), a_all.contains(&(producer, file)));
                }
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9:, -]{0,20}") {
            if let Some(files) = Files::parse(&text) {
                prop_assert_eq!(Files::parse(&files.to_string()), Some(files));
            }
        }
    }

    #[test]
    fn the_text_is_short() {
        let mut files = Files::default();
        for (producer, first, last) in [(7, 1, 20), (9, 1, 4), (7, 25, 25), (7, 21, 21)] {
            files.insert(producer, first, last);
        }
        assert_eq!(files.to_string(), "7:1-21,25 9:1-4");
        assert_eq!(Files::parse("7:x"), None);
        assert_eq!(Files::default().to_string(), "");
    }
}
