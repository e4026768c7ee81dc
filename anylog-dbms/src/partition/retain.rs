//! Which partitions go when a table may keep only some.
//!
//! What a rule chooses is never the active partition: one whose range holds the present or lies ahead, nor the newest, which rows go
//! into when they tell of times long past.

use std::time::Duration;

use jiff::Timestamp;

use super::name::range;

/// Why no partition may be dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RetainError {
    /// There is none, or only such that rows go into.
    #[error("there is no partition besides the active one")]
    OnlyActive,
    /// There are not more than should be kept.
    #[error("there are {count} partitions and {keep} are to be kept")]
    NotMore {
        /// How many there are.
        count: usize,
        /// How many are to be kept.
        keep: usize,
    },
}

/// Partitions in time order; names that tell no time come first, by name.
#[must_use]
pub fn in_time_order(mut partitions: Vec<String>) -> Vec<String> {
    partitions.sort_by_cached_key(|name| (range(name).map(|(start, _)| start), name.clone()));
    partitions
}

/// The partitions that are not active, the oldest first.
#[must_use]
pub fn expendable(partitions: &[String], now: Timestamp) -> Vec<String> {
    let mut ordered = in_time_order(partitions.to_vec());
    let _newest = ordered.pop();
    ordered.retain(|name| range(name).is_none_or(|(_, end)| end <= now));
    ordered
}

/// The oldest partition, unless it is active.
///
/// # Errors
/// [`RetainError::OnlyActive`] when there is no other.
pub fn oldest(partitions: &[String], now: Timestamp) -> Result<String, RetainError> {
    expendable(partitions, now).into_iter().next().ok_or(RetainError::OnlyActive)
}

/// The oldest partitions, so many that `keep` are left, and never one that is active at `now`.
///
/// # Errors
/// [`RetainError::NotMore`] when there are not more than `keep`.
pub fn surplus(partitions: &[String], keep: usize, now: Timestamp) -> Result<Vec<String>, RetainError> {
    if partitions.len() <= keep {
        return Err(RetainError::NotMore { count: partitions.len(), keep });
    }
    let mut surplus = expendable(partitions, now);
    surplus.truncate(partitions.len() - keep);
    Ok(surplus)
}

/// The partitions all of whose rows are older than `age`.
#[must_use]
pub fn outdated(partitions: &[String], age: Duration, now: Timestamp) -> Vec<String> {
    // An age that reaches beyond the calendar is that of no row.
    let Ok(bound) = now.checked_sub(age) else { return Vec::new() };
    let mut outdated = expendable(partitions, now);
    outdated.retain(|name| range(name).is_some_and(|(_, end)| end <= bound));
    outdated
}

/// The oldest partitions, so many that the others take at most `most` bytes, as far as they are not active; and the bytes that
/// are left then. `bytes` tells how many a partition takes.
#[must_use]
pub fn oversize(partitions: &[String], bytes: impl Fn(&str) -> u64, most: u64, now: Timestamp) -> (Vec<String>, u64) {
    let mut left: u64 = partitions.iter().map(|name| bytes(name)).sum();
    let mut gone = expendable(partitions, now);
    let enough = gone.iter().position(|name| {
        let fits = left <= most;
        if !fits {
            left = left.saturating_sub(bytes(name));
        }
        fits
    });
    gone.truncate(enough.unwrap_or(gone.len()));
    (gone, left)
}
