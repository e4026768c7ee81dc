//! Files by producer and number, and sets of them.

use std::collections::BTreeMap;

/// A source file: who produced it, and its number in the registry of its producer. Numbers begin with 1; gaps are legal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileKey {
    /// The number of the member that produced it.
    pub producer: i64,
    /// Its number there.
    pub file: i64,
}

/// A set of file numbers, as ranges: a member that lacks nothing has one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileSet {
    // First number of each range to its last; ranges neither touch nor overlap.
    ranges: BTreeMap<i64, i64>,
}

impl FileSet {
    /// The ranges, each as first and last number, in order.
    pub fn ranges(&self) -> impl Iterator<Item = (i64, i64)> + '_ {
        self.ranges.iter().map(|(first, last)| (*first, *last))
    }

    /// Adds the numbers from `first` to `last`.
    pub fn insert_range(&mut self, first: i64, last: i64) {
        if first > last {
            return;
        }
        let (mut first, mut last) = (first, last);
        // What touches or overlaps becomes one range.
        while let Some((known, end)) = self.ranges.range(..=last.saturating_add(1)).next_back().map(|(a, b)| (*a, *b)) {
            if end.saturating_add(1) < first {
                break;
            }
            self.ranges.remove(&known);
            (first, last) = (first.min(known), last.max(end));
        }
        self.ranges.insert(first, last);
    }
}
