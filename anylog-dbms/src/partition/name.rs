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
        Some(Parts::of(name)?.owned())
    }

    /// From when (inclusive) to when (exclusive) the rows are; none when the key is no calendar date.
    #[must_use]
    pub fn range(&self) -> Option<(Timestamp, Timestamp)> {
        time_range(&self.key, self.unit, self.count)
    }
}

/// Fields of a key at most.
const MOST_FIELDS: usize = 4;

/// A name taken apart in place: a table may have hundreds of partitions, and each query looks at the names of all.
struct Parts<'a> {
    table: &'a str,
    key: [u32; MOST_FIELDS],
    fields: usize,
    unit: PartitionUnit,
    count: u32,
    column: &'a str,
}

impl<'a> Parts<'a> {
    fn of(name: &'a str) -> Option<Self> {
        let body = name.strip_prefix("par_")?;
        let mut end = body.len();
        while let Some(at) = body[..end].rfind('_') {
            // The field between this underscore and the next one to the right may be the unit.
            if end < body.len()
                && let Some(parts) = Self::split_at(body, at, end)
            {
                return Some(parts);
            }
            end = at;
        }
        None
    }

    /// The name, when the unit stands between two underscores.
    fn split_at(body: &'a str, before: usize, after: usize) -> Option<Self> {
        let (unit, count) = unit_field(&body[before + 1..after])?;
        let column = &body[after + 1..];
        if column.is_empty() {
            return None;
        }
        let fields = match unit {
            PartitionUnit::Year => 1,
            PartitionUnit::Month => 2,
            PartitionUnit::Day => 3,
            PartitionUnit::Hour => 4,
        };
        let (mut key, mut end) = ([0; MOST_FIELDS], before);
        for field in key[..fields].iter_mut().rev() {
            let start = body[..end].rfind('_')?;
            *field = number(&body[start + 1..end])?;
            end = start;
        }
        Some(Self { table: &body[..end], key, fields, unit, count, column })
    }

    fn key(&self) -> &[u32] {
        &self.key[..self.fields]
    }

    fn owned(&self) -> PartitionName {
        PartitionName {
            table: self.table.to_owned(),
            key: self.key().to_vec(),
            unit: self.unit,
            count: self.count,
            column: self.column.to_owned(),
        }
    }
}

fn time_range(key: &[u32], unit: PartitionUnit, count: u32) -> Option<(Timestamp, Timestamp)> {
    let field = |at: usize, first: u32| {
        let value = key.get(at).copied()?;
        if at + 1 == key.len() && count > 1 { value.checked_mul(count)?.checked_add(first) } else { Some(value) }
    };
    let count = i64::from(count);
    let year = i16::try_from(field(0, 0)?).ok()?;
    let month = if key.len() > 1 { i8::try_from(field(1, 1)?).ok()? } else { 1 };
    let day = if key.len() > 2 { i8::try_from(field(2, 1)?).ok()? } else { 1 };
    let hour = if key.len() > 3 { i8::try_from(field(3, 0)?).ok()? } else { 0 };
    let start = Date::new(year, month, day).ok()?.at(0, 0, 0, 0);
    let start = DateTime::new(start.year(), start.month(), start.day(), hour, 0, 0, 0).ok()?;
    let (end, limit) = match unit {
        PartitionUnit::Year => (start.checked_add(count.years()).ok()?, None),
        PartitionUnit::Month => (start.checked_add(count.months()).ok()?, Some(next_year(start)?)),
        PartitionUnit::Day => (start.checked_add(count.days()).ok()?, Some(next_month(start)?)),
        PartitionUnit::Hour => (start.checked_add(count.hours()).ok()?, Some(next_day(start)?)),
    };
    let end = limit.map_or(end, |limit| end.min(limit));
    let utc = |at: DateTime| TimeZone::UTC.to_timestamp(at).ok();
    Some((utc(start)?, utc(end)?))
}

/// From when (inclusive) to when (exclusive) the rows of a partition are, told by its name.
#[must_use]
pub fn range(name: &str) -> Option<(Timestamp, Timestamp)> {
    let parts = Parts::of(name)?;
    time_range(parts.key(), parts.unit, parts.count)
}

/// Those of the names that are partitions of one of the other names.
fn is_partition_of(name: &str, tables: &BTreeSet<&str>) -> bool {
    Parts::of(name).is_some_and(|parts| tables.contains(parts.table))
}

/// Names of tables that lie beside their partitions, without the partitions among them.
pub(crate) fn without_partitions(names: Vec<String>) -> Vec<String> {
    let all: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    names.iter().filter(|name| !is_partition_of(name, &all)).cloned().collect()
}

/// The partitions of a table among the names of tables that lie beside it.
pub(crate) fn partitions_of(table: &str, names: Vec<String>) -> Vec<String> {
    names.into_iter().filter(|name| Parts::of(name).is_some_and(|parts| parts.table == table)).collect()
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
