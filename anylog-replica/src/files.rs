//! Files by producer and number, and sets of them.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

use crate::message::{File, RowsHeld};

/// The highest number that a file may have: far from what a counter reaches, and from what arithmetic fears.
pub const HIGHEST: i64 = 1 << 62;

/// A source file: who produced it, and its number in the registry of its producer. Numbers begin with 1; gaps are legal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileKey {
    /// The number of the member that produced it.
    pub producer: i64,
    /// Its number there.
    pub file: i64,
}

impl FileKey {
    /// Whether both numbers are such as members give.
    #[must_use]
    pub fn is_valid(self) -> bool {
        self.producer > 0 && (1..=HIGHEST).contains(&self.file)
    }

    /// All files of a producer.
    pub(crate) fn all_of(producer: i64) -> RangeInclusive<Self> {
        Self { producer, file: i64::MIN }..=Self { producer, file: i64::MAX }
    }

    /// How much of this open file somebody has.
    #[must_use]
    pub fn held(self, ordinal: u64) -> RowsHeld {
        RowsHeld { producer: self.producer, file: self.file, ordinal }
    }
}

impl fmt::Display for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file {} of member {}", self.file, self.producer)
    }
}

impl From<FileKey> for File {
    fn from(key: FileKey) -> Self {
        Self { producer: key.producer, file: key.file }
    }
}

/// Numbers that are no ranges of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "numbers {first} and {last} are no range of files: the first of a range is at least 1, its last no less and at most {HIGHEST}"
)]
pub struct RangeError {
    /// What was to be the first number.
    pub first: i64,
    /// What was to be the last.
    pub last: i64,
}

/// A set of file numbers, as ranges: a member that lacks nothing has one.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct FileSet {
    // First number of each range to its last; ranges neither touch nor overlap.
    ranges: BTreeMap<i64, i64>,
}

impl FileSet {
    /// The set of no files.
    #[must_use]
    pub const fn new() -> Self {
        Self { ranges: BTreeMap::new() }
    }

    /// The ranges, each as first and last number, in order.
    pub fn ranges(&self) -> impl Iterator<Item = (i64, i64)> + '_ {
        self.ranges.iter().map(|(first, last)| (*first, *last))
    }

    /// How many ranges there are.
    #[must_use]
    pub fn fragments(&self) -> usize {
        self.ranges.len()
    }

    /// How many files are in it.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.ranges().fold(0, |sum: u64, (first, last)| sum.saturating_add(last.abs_diff(first)).saturating_add(1))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The lowest number.
    #[must_use]
    pub fn first(&self) -> Option<i64> {
        self.ranges.first_key_value().map(|(first, _)| *first)
    }

    /// The highest number.
    #[must_use]
    pub fn last(&self) -> Option<i64> {
        self.ranges.last_key_value().map(|(_, last)| *last)
    }

    /// Whether a number is in it.
    #[must_use]
    pub fn contains(&self, number: i64) -> bool {
        self.range_of(number).is_some()
    }

    /// Adds a number; answers whether it is new.
    pub fn insert(&mut self, number: i64) -> bool {
        if self.contains(number) {
            return false;
        }
        self.insert_range(number, number);
        true
    }

    /// Adds all numbers from `first` to `last`.
    pub fn insert_range(&mut self, first: i64, last: i64) {
        if first > last {
            return;
        }
        let (mut low, mut high) = (first, last);
        if let Some((start, end)) = self.ranges.range(..=first).next_back().map(|(start, end)| (*start, *end))
            && end >= first.saturating_sub(1)
        {
            low = start;
            high = high.max(end);
        }
        while let Some((start, end)) = self.ranges.range(low..=high.saturating_add(1)).next().map(|(s, e)| (*s, *e)) {
            self.ranges.remove(&start);
            high = high.max(end);
        }
        self.ranges.insert(low, high);
    }

    /// Takes a number out; answers whether it was there.
    pub fn remove(&mut self, number: i64) -> bool {
        let Some((first, last)) = self.range_of(number) else { return false };
        self.ranges.remove(&first);
        if first < number {
            self.ranges.insert(first, number - 1);
        }
        if number < last {
            self.ranges.insert(number + 1, last);
        }
        true
    }

    /// Adds all of another set.
    pub fn extend(&mut self, other: &Self) {
        for (first, last) in other.ranges() {
            self.insert_range(first, last);
        }
    }

    /// What is in this set and not in the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut left = Self::new();
        let mut from = i64::MIN;
        while let Some((first, last)) = self.next_range_beside(other, from) {
            left.ranges.insert(first, last);
            match last.checked_add(1) {
                Some(next) => from = next,
                None => break,
            }
        }
        left
    }

    /// The highest number up to which all are there, from 1 on; 0 when 1 is missing.
    #[must_use]
    pub fn contiguous(&self) -> i64 {
        self.end_of_run(1)
    }

    /// The last number of the range that begins with, or contains, `number`; the number before it when it is not there.
    #[must_use]
    pub fn end_of_run(&self, number: i64) -> i64 {
        self.range_of(number).map_or(number.saturating_sub(1), |(_, last)| last)
    }

    /// The lowest number from `from` on.
    #[must_use]
    pub fn next_from(&self, from: i64) -> Option<i64> {
        if self.contains(from) {
            return Some(from);
        }
        self.ranges.range(from..).next().map(|(first, _)| *first)
    }

    /// The lowest number from `from` on that is in this set and not in the other.
    #[must_use]
    pub fn next_beside(&self, other: &Self, from: i64) -> Option<i64> {
        self.next_range_beside(other, from).map(|(first, _)| first)
    }

    /// First and last number of each range, one after the other, as they travel.
    #[must_use]
    pub fn to_pairs(&self) -> Vec<i64> {
        self.ranges().flat_map(|(first, last)| [first, last]).collect()
    }

    /// A set of ranges as they travel, in any order.
    ///
    /// # Errors
    ///
    /// When a range is none, or a number is no number of a file.
    pub fn from_pairs(pairs: &[i64]) -> Result<Self, RangeError> {
        let mut set = Self::new();
        for pair in pairs.chunks(2) {
            let (first, last) = (pair[0], pair.get(1).copied().unwrap_or(0));
            if first < 1 || last < first || last > HIGHEST {
                return Err(RangeError { first, last });
            }
            set.insert_range(first, last);
        }
        Ok(set)
    }

    // The range in which a number lies.
    fn range_of(&self, number: i64) -> Option<(i64, i64)> {
        let (first, last) = self.ranges.range(..=number).next_back()?;
        (*last >= number).then_some((*first, *last))
    }

    // The first range from `from` on that is in this set and not in the other, as far as it goes in both.
    fn next_range_beside(&self, other: &Self, from: i64) -> Option<(i64, i64)> {
        let mut at = from;
        loop {
            at = self.next_from(at)?;
            let (_, last) = self.range_of(at)?;
            match other.range_of(at) {
                None => {
                    let end = other.ranges.range(at..).next().map_or(last, |(start, _)| last.min(start - 1));
                    return Some((at, end));
                }
                Some((_, end)) => at = end.checked_add(1)?,
            }
        }
    }
}

impl fmt::Debug for FileSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut set = f.debug_set();
        for (first, last) in self.ranges() {
            if first == last {
                set.entry(&first);
            } else {
                set.entry(&(first..=last));
            }
        }
        set.finish()
    }
}

impl FromIterator<i64> for FileSet {
    fn from_iter<I: IntoIterator<Item = i64>>(numbers: I) -> Self {
        let mut set = Self::new();
        for number in numbers {
            set.insert(number);
        }
        set
    }
}
