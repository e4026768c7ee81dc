//! Time partitions: how a table's rows are split, and what the parts are called.
//!
//! Pure: nothing here knows a database.

mod name;
mod retain;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::DbmsError;
pub use name::{PartitionName, range};
pub(crate) use name::{partitions_of, without_partitions};
pub use retain::{RetainError, expendable, in_time_order, oldest, outdated, oversize, surplus};

/// The unit in which a table is split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PartitionUnit {
    /// Calendar years.
    Year,
    /// Calendar months.
    Month,
    /// Days of a month.
    Day,
    /// Hours of a day.
    Hour,
}

impl PartitionUnit {
    /// The word of the language, in the singular.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            PartitionUnit::Year => "year",
            PartitionUnit::Month => "month",
            PartitionUnit::Day => "day",
            PartitionUnit::Hour => "hour",
        }
    }

    pub(crate) fn letter(self) -> char {
        match self {
            PartitionUnit::Year => 'y',
            PartitionUnit::Month => 'm',
            PartitionUnit::Day => 'd',
            PartitionUnit::Hour => 'h',
        }
    }

    pub(crate) fn from_letter(letter: char) -> Option<Self> {
        match letter {
            'y' => Some(PartitionUnit::Year),
            'm' => Some(PartitionUnit::Month),
            'd' => Some(PartitionUnit::Day),
            'h' => Some(PartitionUnit::Hour),
            _ => None,
        }
    }
}

/// How a table's rows are split: by the time in one column, into buckets of some units. Buckets restart with each
/// parent unit (14 days: the 1st, the 15th and the 29th of each month), so the last of a parent may be short.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Partitioning {
    /// The timestamp column.
    pub column: String,
    /// Units per bucket, 1 to 99.
    pub count: u32,
    /// The unit.
    pub unit: PartitionUnit,
}

impl Partitioning {
    /// A partitioning by a column.
    ///
    /// # Errors
    /// [`DbmsError::Declaration`] when the count is not 1 to 99.
    pub fn new(column: impl Into<String>, count: u32, unit: PartitionUnit) -> Result<Self, DbmsError> {
        if !(1..=99).contains(&count) {
            let reason = format!("a partition of {count} {}s is not possible: the count must be 1 to 99", unit.word());
            return Err(DbmsError::Declaration { reason });
        }
        Ok(Self { column: column.into(), count, unit })
    }

    /// Reads `14 days`, `month`, `2 weeks` (which are 14 days): a count, 1 when absent, and a unit, in any case and number.
    ///
    /// # Errors
    /// [`DbmsError::Declaration`] naming what was not understood.
    pub fn parse_interval(text: &str) -> Result<(u32, PartitionUnit), DbmsError> {
        let wrong = |reason: String| DbmsError::Declaration { reason };
        let words: Vec<&str> = text.split_whitespace().collect();
        let (count, unit) = match words.as_slice() {
            [unit] => (1, *unit),
            [count, unit] => {
                let parsed = count.parse::<u32>().ok();
                (parsed.ok_or_else(|| wrong(format!("partition interval '{text}': '{count}' is not a count")))?, *unit)
            }
            _ => {
                return Err(wrong(format!(
                    "partition interval '{text}': expected a count and a unit, such as 14 days"
                )));
            }
        };
        let lower = unit.to_lowercase();
        let (factor, unit) = match lower.strip_suffix('s').unwrap_or(&lower) {
            "year" => (1, PartitionUnit::Year),
            "month" => (1, PartitionUnit::Month),
            "week" => (7, PartitionUnit::Day),
            "day" => (1, PartitionUnit::Day),
            "hour" => (1, PartitionUnit::Hour),
            _ => {
                return Err(wrong(format!(
                    "partition interval '{text}': '{unit}' is not a unit - use year, month, week, day or hour"
                )));
            }
        };
        match count.checked_mul(factor) {
            Some(count @ 1..=99) => Ok((count, unit)),
            _ => Err(wrong(format!("partition interval '{text}': the count must be 1 to 99"))),
        }
    }

    /// The name of the partition that holds rows of this time: `par_<table>_<key>_<u><NN>_<column>`.
    ///
    /// ```
    /// use anylog_dbms::{PartitionUnit, Partitioning};
    /// let weeks = Partitioning::new("timestamp", 14, PartitionUnit::Day)?;
    /// assert_eq!(weeks.name("t", "2024-08-20T10:00:00Z".parse()?), "par_t_2024_08_01_d14_timestamp");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn name(&self, table: &str, time: Timestamp) -> String {
        let key = self.key(TimeZone::UTC.to_datetime(time));
        format!("par_{table}_{key}_{}{:02}_{}", self.unit.letter(), self.count, self.column)
    }

    /// The time part of a name. The last field counts buckets from zero when a bucket is more than one unit.
    fn key(&self, at: DateTime) -> String {
        let count = i32::try_from(self.count.max(1)).unwrap_or(1);
        let (year, month, day, hour) =
            (i32::from(at.year()), i32::from(at.month()), i32::from(at.day()), i32::from(at.hour()));
        let bucket = |value: i32, first: i32| if count == 1 { value } else { (value - first) / count };
        match self.unit {
            PartitionUnit::Year if count == 1 => format!("{year:04}"),
            PartitionUnit::Year => format!("{}", year / count),
            PartitionUnit::Month => format!("{year:04}_{:02}", bucket(month, 1)),
            PartitionUnit::Day => format!("{year:04}_{month:02}_{:02}", bucket(day, 1)),
            PartitionUnit::Hour => format!("{year:04}_{month:02}_{day:02}_{:02}", bucket(hour, 0)),
        }
    }

    /// From when (inclusive) to when (exclusive) the rows of a partition are, told by its name.
    #[must_use]
    pub fn range(name: &str) -> Option<(Timestamp, Timestamp)> {
        range(name)
    }

    /// `14 days`, `1 month`.
    #[must_use]
    pub fn interval(&self) -> String {
        format!("{} {}{}", self.count, self.unit.word(), if self.count == 1 { "" } else { "s" })
    }
}

#[cfg(test)]
mod tests;
