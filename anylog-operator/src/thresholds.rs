//! When a segment is sealed: `set buffer threshold`.

mod window;

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{RwLock, RwLockReadGuard};

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

/// Members that an acknowledgement can ask for at most.
pub const MOST_COPIES: u32 = 255;

/// What becomes of rows while fewer members can be reached than are to have them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Few {
    /// They wait: their senders are held back.
    #[default]
    Wait,
    /// They are refused with an error.
    Error,
}

impl Few {
    /// The word of the command language.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Few::Wait => "wait",
            Few::Error => "error",
        }
    }
}

impl FromStr for Few {
    type Err = OperatorError;

    fn from_str(word: &str) -> Result<Self, OperatorError> {
        match word.trim().to_lowercase().as_str() {
            "wait" => Ok(Few::Wait),
            "error" => Ok(Few::Error),
            _ => Err(OperatorError::Threshold {
                reason: format!("when_few = {word}: expected wait (senders are held back) or error (rows are refused)"),
            }),
        }
    }
}

/// How many members are to have rows before they are acknowledged: `local`, which is this one, or `replicated(k)`.
///
/// # Errors
/// [`OperatorError::Threshold`] for anything else, and for a number that makes no sense.
pub fn parse_ack(text: &str) -> Result<u32, OperatorError> {
    let wrong = |why: &str| {
        let expected = format!("expected local, or replicated(k) with k from 2 to {MOST_COPIES}, this member included");
        OperatorError::Threshold { reason: format!("ack = {text}: {why}; {expected}") }
    };
    let word = text.trim().to_lowercase();
    if word == "local" {
        return Ok(1);
    }
    let inner =
        word.strip_prefix("replicated").map(str::trim).and_then(|rest| rest.strip_prefix('(')?.strip_suffix(')'));
    let Some(inner) = inner else { return Err(wrong("this is not known")) };
    match inner.trim().parse::<u32>() {
        Ok(copies) if (1..=MOST_COPIES).contains(&copies) => Ok(copies),
        Ok(0) => Err(wrong("rows are on one member at least")),
        Ok(_) => Err(wrong("so many members no cluster has")),
        Err(_) => Err(wrong("the number of members is missing")),
    }
}

/// When a segment is sealed, whether its rows are visible before, and who has them when they are acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threshold {
    /// Age.
    pub time: Duration,
    /// Bytes of its rows as lines.
    pub volume: u64,
    /// Whether rows are applied to the database before they are acknowledged.
    pub immediate: bool,
    /// How many members have rows on stable storage when they are acknowledged, this one included: 1 is `ack = local`.
    pub copies: u32,
    /// What becomes of rows while fewer members can be reached.
    pub few: Few,
}

impl Threshold {
    /// Whether other members are to have rows before they are acknowledged.
    #[must_use]
    pub fn is_replicated(&self) -> bool {
        self.copies > 1
    }

    /// `local` or `replicated(k)`.
    #[must_use]
    pub fn ack(&self) -> String {
        if self.is_replicated() { format!("replicated({})", self.copies) } else { "local".to_owned() }
    }

    /// Whether rows under both thresholds may be in one segment: it is immediate, and followed, as a whole or not at all.
    #[must_use]
    pub(crate) fn goes_with(&self, other: &Threshold) -> bool {
        (self.immediate, self.copies, self.few) == (other.immediate, other.copies, other.few)
    }
}

impl Default for Threshold {
    fn default() -> Self {
        Self { time: DEFAULT_TIME, volume: DEFAULT_VOLUME, immediate: false, copies: 1, few: Few::default() }
    }
}

/// What `set buffer threshold` says of a scope.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ThresholdChange {
    /// Age; the documented default unless given.
    pub time: Option<Duration>,
    /// Bytes; the documented default unless given.
    pub volume: Option<u64>,
    /// Whether rows are applied before they are acknowledged; false unless given.
    pub immediate: Option<bool>,
    /// How many members have acknowledged rows. Unless given it stays: nobody loses a promise by changing something else.
    pub copies: Option<u32>,
    /// What becomes of rows while fewer can be reached. Unless given it stays.
    pub few: Option<Few>,
}

/// Thresholds by scope: of a table, else of its database, else of all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Thresholds {
    default: Threshold,
    scoped: BTreeMap<(String, String), Threshold>,
}

impl Thresholds {
    /// Sets the threshold of a scope; what is not given takes the documented default, save that who has acknowledged rows stays.
    /// Time and volume 0 on a database or table remove its own threshold.
    ///
    /// # Errors
    /// [`OperatorError::Threshold`] for a table without a database, 0 for all, and a removal that sets something.
    pub fn set(
        &mut self,
        dbms: Option<&str>,
        table: Option<&str>,
        change: ThresholdChange,
    ) -> Result<(), OperatorError> {
        let wrong = |reason: &str| Err(OperatorError::Threshold { reason: reason.to_owned() });
        let ThresholdChange { time, volume, immediate, copies, few } = change;
        let before = dbms.map_or(self.default, |dbms| self.of(dbms, table.unwrap_or("*")));
        let threshold = Threshold {
            time: time.unwrap_or(DEFAULT_TIME),
            volume: volume.unwrap_or(DEFAULT_VOLUME),
            immediate: immediate.unwrap_or(false),
            copies: copies.unwrap_or(before.copies),
            few: few.unwrap_or(before.few),
        };
        let removes = time == Some(Duration::ZERO) && volume == Some(0);
        match (dbms, table) {
            (None, Some(_)) => wrong("a threshold of a table needs its database: add dbms = <name>"),
            (Some(_), _) if removes && (copies.is_some() || few.is_some()) => wrong(
                "time 0 and volume 0 remove what was said of the table or database: ack and when_few cannot be set with them",
            ),
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

    /// Whether any table asks for rows on several members.
    #[must_use]
    pub fn any_replicated(&self) -> bool {
        self.default.is_replicated() || self.scoped.values().any(Threshold::is_replicated)
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

/// The thresholds that hold now.
#[derive(Debug, Default)]
pub(crate) struct CurrentThresholds {
    rules: RwLock<Thresholds>,
    /// Some table asks for rows on several members. Beside the rules, so that who has none of these pays nothing for them.
    replicated: AtomicBool,
}

impl CurrentThresholds {
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Thresholds> {
        self.rules.read()
    }

    pub(crate) fn set(
        &self,
        dbms: Option<&str>,
        table: Option<&str>,
        change: ThresholdChange,
    ) -> Result<(), OperatorError> {
        let mut rules = self.rules.write();
        rules.set(dbms, table, change)?;
        self.replicated.store(rules.any_replicated(), Ordering::Release);
        Ok(())
    }

    /// Whether any table asks for rows on several members.
    pub(crate) fn any_replicated(&self) -> bool {
        self.replicated.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn change(time: Option<Duration>, volume: Option<u64>, immediate: Option<bool>) -> ThresholdChange {
        ThresholdChange { time, volume, immediate, ..ThresholdChange::default() }
    }

    #[test]
    fn the_narrowest_scope_holds() {
        let mut thresholds = Thresholds::default();
        let seconds = |count| Some(Duration::from_secs(count));
        thresholds.set(None, None, change(None, None, Some(true))).unwrap();
        thresholds.set(Some("d"), None, change(seconds(5), None, None)).unwrap();
        thresholds.set(Some("d"), Some("t"), change(None, Some(7), None)).unwrap();
        assert_eq!(thresholds.of("x", "y"), Threshold { immediate: true, ..Threshold::default() });
        assert_eq!(thresholds.of("d", "u").time, Duration::from_secs(5));
        assert_eq!(thresholds.of("d", "t"), Threshold { volume: 7, ..Threshold::default() });
        thresholds.set(Some("d"), Some("t"), change(seconds(0), Some(0), None)).unwrap();
        assert_eq!(thresholds.of("d", "t").time, Duration::from_secs(5));
    }

    #[test]
    fn what_is_not_given_is_reset() {
        let mut thresholds = Thresholds::default();
        thresholds.set(None, None, change(Some(Duration::from_secs(5)), Some(9), Some(true))).unwrap();
        thresholds.set(None, None, change(None, Some(20), None)).unwrap();
        assert_eq!(thresholds.default_threshold(), Threshold { volume: 20, ..Threshold::default() });
        assert!(thresholds.set(None, Some("t"), change(None, Some(1), None)).is_err());
    }

    // DUR-3: who asked for rows on two members does not lose that by changing a volume.
    #[test]
    fn an_acknowledgement_is_never_made_to_mean_less_by_the_way() {
        let mut thresholds = Thresholds::default();
        let two = ThresholdChange { copies: Some(2), few: Some(Few::Error), ..ThresholdChange::default() };
        thresholds.set(Some("d"), None, two).unwrap();
        thresholds.set(Some("d"), Some("t"), change(None, Some(7), None)).unwrap();
        thresholds.set(Some("d"), None, change(None, Some(9), None)).unwrap();
        for table in ["t", "u"] {
            let threshold = thresholds.of("d", table);
            assert_eq!((threshold.copies, threshold.few, threshold.ack()), (2, Few::Error, "replicated(2)".into()));
        }
        assert!(thresholds.any_replicated());
        let contradiction = ThresholdChange { time: Some(Duration::ZERO), volume: Some(0), ..two };
        let error = thresholds.set(Some("d"), Some("t"), contradiction).unwrap_err().to_string();
        assert!(error.contains("ack and when_few"), "{error}");
        let local = ThresholdChange { copies: Some(1), ..ThresholdChange::default() };
        thresholds.set(Some("d"), Some("t"), local).unwrap();
        assert_eq!((thresholds.of("d", "t").ack(), thresholds.of("d", "u").copies), ("local".into(), 2));
    }

    #[test]
    fn acknowledgements_are_parsed_and_checked() {
        assert_eq!(parse_ack("local").unwrap(), 1);
        assert_eq!(parse_ack(" Replicated ( 3 ) ").unwrap(), 3);
        for wrong in ["replicated(0)", "replicated(256)", "replicated", "replicated()", "replicated(-1)", "2", "remote"]
        {
            let text = parse_ack(wrong).unwrap_err().to_string();
            assert!(text.contains(wrong) && text.contains("expected local, or replicated(k)"), "{text}");
        }
        assert!("never".parse::<Few>().unwrap_err().to_string().contains("expected wait"));
    }

    proptest! {
        #[test]
        fn any_acknowledgement_is_survived(text in "\\PC{0,20}") {
            drop(parse_ack(&text));
        }

        #[test]
        fn what_is_shown_is_understood(copies in 1..=MOST_COPIES) {
            let threshold = Threshold { copies, ..Threshold::default() };
            prop_assert_eq!(parse_ack(&threshold.ack()).unwrap(), copies);
        }
    }
}
