//! When a segment is sealed: `set buffer threshold`.

mod window;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::OperatorError;
pub use window::{DEFAULT_PARTITIONS, TimeRule, TimeRules};

/// The time after which a segment is sealed, unless it is said otherwise.
pub const DEFAULT_TIME: Duration = Duration::from_secs(60);
/// The bytes after which a segment is sealed, unless it is said otherwise.
pub const DEFAULT_VOLUME: u64 = 10_000;
/// A segment that has so many bytes is sealed at once; below, a key seals at most once a second.
pub const LARGEST_SEGMENT: u64 = 64 << 20;
/// The least time between two seals of a key for volume.
pub const LEAST_INTERVAL: Duration = Duration::from_secs(1);

/// When a segment is sealed, and whether its rows are visible before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threshold {
    /// Age.
    pub time: Duration,
    /// Bytes of its rows as lines.
    pub volume: u64,
    /// Whether rows are applied to the database before they are acknowledged.
    pub immediate: bool,
}

impl Default for Threshold {
    fn default() -> Self {
        Self { time: DEFAULT_TIME, volume: DEFAULT_VOLUME, immediate: false }
    }
}

/// Thresholds by scope: of a table, else of its database, else of all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Thresholds {
    default: Threshold,
    scoped: BTreeMap<(String, String), Threshold>,
}

impl Thresholds {
    /// Sets the threshold of a scope; what is not given takes the documented default. Time and volume 0 on a database or
    /// table remove its own threshold.
    ///
    /// # Errors
    /// [`OperatorError::Threshold`] for a table without a database, or 0 for all.
    pub fn set(
        &mut self,
        dbms: Option<&str>,
        table: Option<&str>,
        time: Option<Duration>,
        volume: Option<u64>,
        immediate: Option<bool>,
    ) -> Result<(), OperatorError> {
        let wrong = |reason: &str| Err(OperatorError::Threshold { reason: reason.to_owned() });
        let threshold = Threshold {
            time: time.unwrap_or(DEFAULT_TIME),
            volume: volume.unwrap_or(DEFAULT_VOLUME),
            immediate: immediate.unwrap_or(false),
        };
        let removes = time == Some(Duration::ZERO) && volume == Some(0);
        match (dbms, table) {
            (None, Some(_)) => wrong("a threshold of a table needs its database: add dbms = <name>"),
            (None, None) if threshold.time.is_zero() => wrong("the time of all buffers cannot be 0"),
            (None, None) => {
                self.default = threshold;
                Ok(())
            }
            (Some(dbms), table) => {
                let key = (dbms.to_owned(), table.unwrap_or("*").to_owned());
                if removes {
                    self.scoped.remove(&key);
                } else {
                    self.scoped.insert(key, threshold);
                }
                Ok(())
            }
        }
    }

    /// The threshold that holds for a table.
    #[must_use]
    pub fn of(&self, dbms: &str, table: &str) -> Threshold {
        if self.scoped.is_empty() {
            return self.default;
        }
        let scope = |table: &str| self.scoped.get(&(dbms.to_owned(), table.to_owned()));
        scope(table).or_else(|| scope("*")).copied().unwrap_or(self.default)
    }

    /// The threshold that holds where no other does.
    #[must_use]
    pub fn default_threshold(&self) -> Threshold {
        self.default
    }

    /// The thresholds of databases (table `*`) and tables.
    pub fn scoped(&self) -> impl Iterator<Item = (&str, &str, Threshold)> {
        self.scoped.iter().map(|((dbms, table), threshold)| (dbms.as_str(), table.as_str(), *threshold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_scope_holds() {
        let mut thresholds = Thresholds::default();
        let seconds = |count| Some(Duration::from_secs(count));
        thresholds.set(None, None, None, None, Some(true)).unwrap();
        thresholds.set(Some("d"), None, seconds(5), None, None).unwrap();
        thresholds.set(Some("d"), Some("t"), None, Some(7), None).unwrap();
        assert_eq!(thresholds.of("x", "y"), Threshold { immediate: true, ..Threshold::default() });
        assert_eq!(thresholds.of("d", "u").time, Duration::from_secs(5));
        assert_eq!(thresholds.of("d", "t"), Threshold { volume: 7, ..Threshold::default() });
        thresholds.set(Some("d"), Some("t"), seconds(0), Some(0), None).unwrap();
        assert_eq!(thresholds.of("d", "t").time, Duration::from_secs(5));
    }

    #[test]
    fn what_is_not_given_is_reset() {
        let mut thresholds = Thresholds::default();
        thresholds.set(None, None, Some(Duration::from_secs(5)), Some(9), Some(true)).unwrap();
        thresholds.set(None, None, None, Some(20), None).unwrap();
        assert_eq!(thresholds.default_threshold(), Threshold { volume: 20, ..Threshold::default() });
        assert!(thresholds.set(None, Some("t"), None, Some(1), None).is_err());
    }
}
