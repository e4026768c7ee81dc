//! Which partitions go when a table may keep only some.

use jiff::Timestamp;

use super::name::range;

/// Why no partition may be dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RetainError {
    /// There is none, or only the one that rows go into.
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
fn in_time_order(partitions: &[String]) -> Vec<&String> {
    let mut ordered: Vec<&String> = partitions.iter().collect();
    ordered.sort_by_key(|name| (range(name).map(|(start, _)| start), (*name).clone()));
    ordered
}

/// Whether rows may go into the partition now: its range holds `now` or lies ahead.
fn is_active(partition: &str, now: Timestamp) -> bool {
    range(partition).is_some_and(|(_, end)| end > now)
}

/// The oldest partition, unless it is the only one.
///
/// # Errors
/// [`RetainError::OnlyActive`] when there is at most one.
pub fn oldest(partitions: &[String]) -> Result<String, RetainError> {
    match in_time_order(partitions).as_slice() {
        [] | [_] => Err(RetainError::OnlyActive),
        [first, ..] => Ok((*first).clone()),
    }
}

/// The oldest partitions, so many that `keep` are left, and never one that is active at `now`.
///
/// # Errors
/// [`RetainError::NotMore`] when there are not more than `keep`.
pub fn surplus(partitions: &[String], keep: usize, now: Timestamp) -> Result<Vec<String>, RetainError> {
    if partitions.len() <= keep {
        return Err(RetainError::NotMore { count: partitions.len(), keep });
    }
    let ordered = in_time_order(partitions);
    let surplus = partitions.len() - keep;
    Ok(ordered.into_iter().take(surplus).filter(|name| !is_active(name, now)).cloned().collect())
}
