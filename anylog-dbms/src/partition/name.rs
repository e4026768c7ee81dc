//! Reading the names of partitions.

use std::collections::BTreeSet;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use super::PartitionUnit;

/// The parts of a partition's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionName {
    /// The table.
    pub table: String,
    /// The fields of the key, as many as the unit has: year, month, day, hour or bucket.
    pub key: Vec<u32>,
    /// The unit.
    pub unit: PartitionUnit,
    /// Units per bucket.
    pub count: u32,
    /// The column.
    pub column: String,
}

impl PartitionName {
    /// Reads `par_<table>_<key>_<u><NN>_<column>`. Table and column may themselves hold fields that look like a key; the
    /// last place where unit and key fit together is taken.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let fields: Vec<&str> = name.strip_prefix("par_")?.split('_').collect();
        (1..fields.len()).rev().find_map(|at| Self::split_at(&fields, at))
    }

    /// The name, when the unit stands in field `at`.
    fn split_at(fields: &[&str], at: usize) -> Option<Self> {
        let (unit, count) = unit_field(fields[at])?;
        let length = match unit {
            PartitionUnit::Year => 1,
            PartitionUnit::Month => 2,
            PartitionUnit::Day => 3,
            PartitionUnit::Hour => 4,
        };
        let start = at.checked_sub(length).filter(|start| *start > 0)?;
        let key: Vec<u32> = fields[start..at].iter().map(|field| number(field)).collect::<Option<_>>()?;
        let column = fields[at + 1..].join("_");
        if column.is_empty() {
            return None;
        }
        Some(Self { table: fields[..start].join("_"), key, unit, count, column })
    }

    /// From when (inclusive) to when (exclusive) the rows are; none when the key is no calendar date.
    #[must_use]
    pub fn range(&self) -> Option<(Timestamp, Timestamp)> {
        let count = i64::from(self.count);
        let field = |at: usize, first: u32| {
            let value = self.key.get(at).copied()?;
            if at + 1 == self.key.len() && self.count > 1 {
                value.checked_mul(self.count)?.checked_add(first)
            } else {
                Some(value)
            }
        };
        let year = i16::try_from(field(0, 0)?).ok()?;
        let month = if self.key.len() > 1 { i8::try_from(field(1, 1)?).ok()? } else { 1 };
        let day = if self.key.len() > 2 { i8::try_from(field(2, 1)?).ok()? } else { 1 };
        let hour = if self.key.len() > 3 { i8::try_from(field(3, 0)?).ok()? } else { 0 };
        let start = Date::new(year, month, day).ok()?.at(0, 0, 0, 0);
        let start = DateTime::new(start.year(), start.month(), start.day(), hour, 0, 0, 0).ok()?;
        let (end, limit) = match self.unit {
            PartitionUnit::Year => (start.checked_add(count.years()).ok()?, None),
            PartitionUnit::Month => (start.checked_add(count.months()).ok()?, Some(next_year(start)?)),
            PartitionUnit::Day => (start.checked_add(count.days()).ok()?, Some(next_month(start)?)),
            PartitionUnit::Hour => (start.checked_add(count.hours()).ok()?, Some(next_day(start)?)),
        };
        let end = limit.map_or(end, |limit| end.min(limit));
        let utc = |at: DateTime| TimeZone::UTC.to_timestamp(at).ok();
        Some((utc(start)?, utc(end)?))
    }
}

/// From when (inclusive) to when (exclusive) the rows of a partition are, told by its name.
#[must_use]
pub fn range(name: &str) -> Option<(Timestamp, Timestamp)> {
    PartitionName::parse(name)?.range()
}

/// Those of the names that are partitions of one of the other names.
fn is_partition_of(name: &str, tables: &BTreeSet<&String>) -> bool {
    PartitionName::parse(name).is_some_and(|partition| tables.contains(&partition.table))
}

/// Names of tables that lie beside their partitions, without the partitions among them.
pub(crate) fn without_partitions(names: Vec<String>) -> Vec<String> {
    let all: BTreeSet<&String> = names.iter().collect();
    names.iter().filter(|name| !is_partition_of(name, &all)).cloned().collect()
}

/// The partitions of a table among the names of tables that lie beside it.
pub(crate) fn partitions_of(table: &str, names: Vec<String>) -> Vec<String> {
    names.into_iter().filter(|name| PartitionName::parse(name).is_some_and(|name| name.table == table)).collect()
}

fn unit_field(field: &str) -> Option<(PartitionUnit, u32)> {
    let mut chars = field.chars();
    let unit = PartitionUnit::from_letter(chars.next()?)?;
    let count = number(chars.as_str())?;
    (field.len() == 3 && count > 0).then_some((unit, count))
}

fn number(field: &str) -> Option<u32> {
    let digits = !field.is_empty() && field.len() <= 6 && field.bytes().all(|byte| byte.is_ascii_digit());
    if digits { field.parse().ok() } else { None }
}

fn next_year(at: DateTime) -> Option<DateTime> {
    Some(Date::new(at.year().checked_add(1)?, 1, 1).ok()?.at(0, 0, 0, 0))
}

fn next_month(at: DateTime) -> Option<DateTime> {
    Date::new(at.year(), at.month(), 1).ok()?.at(0, 0, 0, 0).checked_add(1.month()).ok()
}

fn next_day(at: DateTime) -> Option<DateTime> {
    at.date().at(0, 0, 0, 0).checked_add(1.day()).ok()
}
