//! Clocks and the texts in which times are stored and shown.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// The source of the current time. Injected, so that a simulator can move it.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The current instant.
    fn now(&self) -> Timestamp;
}

/// The computer's own clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A clock that stands still until it is moved; for tests.
#[derive(Debug)]
pub struct ManualClock(parking_lot::Mutex<Timestamp>);

impl ManualClock {
    /// A clock that shows `start`.
    #[must_use]
    pub fn new(start: Timestamp) -> Arc<Self> {
        Arc::new(Self(parking_lot::Mutex::new(start)))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        let mut now = self.0.lock();
        *now = now.checked_add(by).unwrap_or(Timestamp::MAX);
    }

    /// Sets the clock.
    pub fn set(&self, to: Timestamp) {
        *self.0.lock() = to;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.lock()
    }
}

/// `YYYY-MM-DD HH:MM:SS.ffffff` in UTC: the stored form of every timestamp.
#[must_use]
pub fn stored(time: Timestamp) -> String {
    let civil = TimeZone::UTC.to_datetime(time);
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}.{:06}",
        civil.year(),
        civil.month(),
        civil.day(),
        civil.hour(),
        civil.minute(),
        civil.second(),
        civil.subsec_nanosecond() / 1000
    )
}

/// `YYYY-MM-DDTHH:MM:SS.ffffffZ`: the form of a policy's `date` and of time bounds between nodes.
#[must_use]
pub fn policy_date(time: Timestamp) -> String {
    let mut text = stored(time).replacen(' ', "T", 1);
    text.push('Z');
    text
}

/// `YYMMDDHHMMSS` in UTC: the date segment of a source file's name.
#[must_use]
pub fn file_date(time: Timestamp) -> String {
    let civil = TimeZone::UTC.to_datetime(time);
    format!(
        "{:02}{:02}{:02}{:02}{:02}{:02}",
        civil.year().rem_euclid(100),
        civil.month(),
        civil.day(),
        civil.hour(),
        civil.minute(),
        civil.second()
    )
}

/// `HH:MM:SS` of a duration in whole seconds; hours grow past two digits.
#[must_use]
pub fn clock_text(duration: Duration) -> String {
    let seconds = duration.as_secs();
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Reads `N unit` (second, minute, hour, day, week; plural and case ignored) as a duration.
///
/// ```
/// use std::time::Duration;
/// assert_eq!(anylog_core::time::interval("30 seconds"), Some(Duration::from_secs(30)));
/// assert_eq!(anylog_core::time::interval("soon"), None);
/// ```
#[must_use]
pub fn interval(text: &str) -> Option<Duration> {
    let (count, unit) = text.trim().split_once(char::is_whitespace)?;
    let count: u64 = count.parse().ok()?;
    let unit = unit.trim().to_lowercase();
    let seconds = match unit.strip_suffix('s').unwrap_or(&unit) {
        "second" => 1,
        "minute" => 60,
        "hour" => 3600,
        "day" => 86_400,
        "week" => 604_800,
        _ => return None,
    };
    Some(Duration::from_secs(count.checked_mul(seconds)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_a_time() {
        let time: Timestamp = "2026-11-23T05:22:00.000349Z".parse().unwrap();
        assert_eq!(stored(time), "2026-11-23 05:22:00.000349");
        assert_eq!(policy_date(time), "2026-11-23T05:22:00.000349Z");
        assert_eq!(file_date(time), "261123052200");
        assert_eq!(clock_text(Duration::from_secs(360_061)), "100:01:01");
    }

    #[test]
    fn intervals() {
        for (text, seconds) in
            [("30 seconds", 30), ("1 Minute", 60), (" 2  hours ", 7200), ("1 day", 86_400), ("1 weeks", 604_800)]
        {
            assert_eq!(interval(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for text in
            ["30", "x seconds", "1 fortnight", "", "99999999999999999999 days", "9999999999999999 weeks", "-1 day"]
        {
            assert_eq!(interval(text), None, "{text}");
        }
    }

    #[test]
    fn a_manual_clock_moves_when_told() {
        let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
        clock.advance(Duration::from_secs(5));
        assert_eq!(clock.now().as_second(), 5);
        clock.advance(Duration::from_secs(u64::MAX));
        assert_eq!(clock.now(), Timestamp::MAX);
    }

    proptest::proptest! {
        #[test]
        fn stored_times_sort_and_come_back(a in -62_135_596_800_000_000_i64..253_402_207_200_000_000, b in -62_135_596_800_000_000_i64..253_402_207_200_000_000) {
            let at = |micros| Timestamp::from_microsecond(micros).unwrap();
            proptest::prop_assert_eq!(stored(at(a)).cmp(&stored(at(b))), a.cmp(&b));
            proptest::prop_assert_eq!(policy_date(at(a)).parse::<Timestamp>().unwrap(), at(a));
        }
    }
}
