//! Puts groups together in memory; see [`crate::plan::Fold`].

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashMap;

use anylog_dbms::SqlValue;

use super::digest::{self, Digests};
use super::sorted::{compare_by, compare_values};
use super::{Held, Row, Sink, size};
use crate::QueryError;
use crate::plan::{Aggregate, Fold, Value};

/// Groups that are being put together.
pub(crate) struct Folding<'a> {
    fold: &'a Fold,
    held: Held,
    places: HashMap<Box<[Part]>, usize>,
    groups: Vec<Group>,
}

struct Group {
    keys: Row,
    sums: Vec<Sum>,
}

/// A key as it is compared: equal numbers are one key, whatever their type.
#[derive(PartialEq, Eq, Hash)]
enum Part {
    Null,
    Int(i64),
    Float(u64),
    Text(String),
}

/// What has come of a column of a group.
enum Sum {
    None,
    Int(i64),
    /// A sum of floats and what its rounding lost.
    Float(f64, f64),
    Least(SqlValue),
    Most(SqlValue),
    /// The different values, by their digests.
    Different(Digests),
    Moments(Moments),
}

/// Number of values, their mean, and the sum of the squares of their distances from it.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    /// Reads three numbers with blanks between.
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(' ').map(str::parse::<f64>);
        let (count, mean, squares) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
        (count > 0.0).then_some(Self { count, mean, squares })
    }

    /// Those of the values of both.
    fn and(self, other: Self) -> Self {
        let count = self.count + other.count;
        let distance = other.mean - self.mean;
        Self {
            count,
            mean: self.mean + distance * (other.count / count),
            squares: self.squares + other.squares + distance * distance * (self.count * other.count / count),
        }
    }

    /// The variance, or its root.
    fn spread(self, sample: bool, root: bool) -> SqlValue {
        let of = self.count - if sample { 1.0 } else { 0.0 };
        if of <= 0.0 {
            return SqlValue::Null;
        }
        let variance = self.squares / of;
        SqlValue::Float(if root { variance.sqrt() } else { variance })
    }
}

/// About the memory that one of many digests takes in its set.
const DIGEST_BYTES: u64 = 32;

impl<'a> Folding<'a> {
    /// No groups.
    pub(crate) fn new(fold: &'a Fold, held: Held) -> Self {
        Self { fold, held, places: HashMap::new(), groups: Vec::new() }
    }

    /// Adds partial rows.
    pub(crate) fn add(&mut self, rows: Vec<Row>) -> Result<(), QueryError> {
        for row in rows {
            self.row(row)?;
        }
        Ok(())
    }

    fn row(&mut self, mut row: Row) -> Result<(), QueryError> {
        let values = row.split_off(self.fold.keys.min(row.len()));
        let place = self.place(row)?;
        let Self { fold, held, groups, .. } = self;
        let Some(group) = groups.get_mut(place) else { return Ok(()) };
        for ((sum, kind), value) in group.sums.iter_mut().zip(&fold.aggregates).zip(values) {
            if sum.add(*kind, value)? {
                held.take(DIGEST_BYTES)?;
            }
        }
        Ok(())
    }

    /// The place of the group with these keys.
    fn place(&mut self, keys: Row) -> Result<usize, QueryError> {
        let parts: Box<[Part]> = keys.iter().map(Part::of).collect();
        if let Some(place) = self.places.get(&parts) {
            return Ok(*place);
        }
        // The key is kept twice.
        self.held.take(2 * size(&keys) as u64 + 32 * self.fold.aggregates.len() as u64 + 64)?;
        self.groups.push(Group { keys, sums: self.nothing() });
        self.places.insert(parts, self.groups.len() - 1);
        Ok(self.groups.len() - 1)
    }

    fn nothing(&self) -> Vec<Sum> {
        self.fold.aggregates.iter().map(|_| Sum::None).collect()
    }

    /// Adds the groups of another part of the rows.
    pub(crate) fn absorb(&mut self, other: Self) -> Result<(), QueryError> {
        if self.groups.is_empty() {
            *self = other;
            return Ok(());
        }
        for Group { keys, sums } in other.groups {
            let place = self.place(keys)?;
            let Some(group) = self.groups.get_mut(place) else { continue };
            for ((sum, kind), more) in group.sums.iter_mut().zip(&self.fold.aggregates).zip(sums) {
                self.held.take(DIGEST_BYTES * sum.absorb(*kind, more)?)?;
            }
        }
        Ok(())
    }

    /// Hands the rows of the answer over.
    pub(crate) fn finish(mut self, sink: &mut dyn Sink) -> Result<(), QueryError> {
        let fold = self.fold;
        if fold.keys == 0 && self.groups.is_empty() {
            // An aggregate of nothing has a value too.
            let sums = self.nothing();
            self.groups.push(Group { keys: Vec::new(), sums });
        }
        drop(self.places);
        let mut groups: Vec<Values> = Vec::with_capacity(self.groups.len());
        for Group { keys, sums } in self.groups {
            let values = sums.into_iter().zip(&fold.aggregates).map(|(sum, kind)| sum.value(*kind));
            let group = Values { keys, aggregates: values.collect() };
            if fold.having.as_ref().is_none_or(|having| truth(&group.of(having)) == Some(true)) {
                groups.push(group);
            }
        }
        groups.sort_unstable_by(|left, right| in_order(fold, left, right));
        let skip = usize::try_from(fold.skip).unwrap_or(usize::MAX);
        let limit = fold.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        for group in groups.into_iter().skip(skip).take(limit) {
            let row = fold.items.iter().map(|value| group.of(value).into_owned()).collect();
            if sink.row(row).is_break() {
                break;
            }
        }
        Ok(())
    }
}

fn in_order(fold: &Fold, left: &Values, right: &Values) -> Ordering {
    let orders = fold.order.iter().zip(&fold.order_keys);
    let compared = orders.map(|(value, key)| compare_by(key, &left.of(value), &right.of(value)));
    compared.into_iter().find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

impl Part {
    fn of(value: &SqlValue) -> Self {
        match value {
            SqlValue::Null => Self::Null,
            SqlValue::Bool(value) => Self::Int(i64::from(*value)),
            SqlValue::Int(value) => Self::Int(*value),
            #[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
            SqlValue::Float(value) if value.fract() == 0.0 && value.abs() < 9.0e15 => Self::Int(*value as i64),
            SqlValue::Float(value) => Self::Float(value.to_bits()),
            SqlValue::Text(text) => Self::Text(text.clone()),
        }
    }
}

impl Sum {
    /// Adds a value; true when it takes more memory.
    fn add(&mut self, kind: Aggregate, value: SqlValue) -> Result<bool, QueryError> {
        if kind == Aggregate::Distinct {
            let Some(digest) = digest::of_value(&value) else { return Ok(false) };
            if !matches!(self, Self::Different(_)) {
                *self = Self::Different(Digests::default());
            }
            let Self::Different(known) = self else { return Ok(false) };
            return Ok(known.insert(digest));
        }
        if value == SqlValue::Null {
            return Ok(false);
        }
        let old = std::mem::replace(self, Self::None);
        *self = match (kind, old) {
            (Aggregate::Moments, old) => {
                let SqlValue::Text(text) = &value else { return Err(not_moments()) };
                let moments = Moments::parse(text).ok_or_else(not_moments)?;
                Self::Moments(if let Self::Moments(old) = old { old.and(moments) } else { moments })
            }
            (Aggregate::Sum | Aggregate::Distinct, old) => old.plus(&value)?,
            (Aggregate::Min, Self::Least(least)) if compare_values(&least, &value) != Ordering::Greater => {
                Self::Least(least)
            }
            (Aggregate::Min, _) => Self::Least(value),
            (Aggregate::Max, Self::Most(most)) if compare_values(&most, &value) != Ordering::Less => Self::Most(most),
            (Aggregate::Max, _) => Self::Most(value),
        };
        Ok(false)
    }

    /// Adds what came of other rows; the number of digests that were not known.
    fn absorb(&mut self, kind: Aggregate, other: Self) -> Result<u64, QueryError> {
        match (&mut *self, other) {
            (_, Self::None) => {}
            (Self::None, other) => {
                let more = if let Self::Different(digests) = &other { digests.len() as u64 } else { 0 };
                *self = other;
                return Ok(more);
            }
            (Self::Different(known), Self::Different(mut more)) => {
                // The smaller set goes into the larger one.
                if known.len() < more.len() {
                    std::mem::swap(known, &mut more);
                }
                let before = known.len();
                known.extend(more);
                return Ok((known.len() - before) as u64);
            }
            (_, Self::Float(sum, lost)) => {
                self.add(kind, SqlValue::Float(sum))?;
                self.add(kind, SqlValue::Float(lost))?;
            }
            (_, other) => {
                self.add(kind, other.value(kind))?;
            }
        }
        Ok(0)
    }

    fn plus(self, value: &SqlValue) -> Result<Self, QueryError> {
        let number = number(value);
        Ok(match (self, number) {
            (Self::Int(sum), Number::Int(value)) => Self::Int(sum.checked_add(value).ok_or_else(overflow)?),
            (Self::Float(sum, lost), number) => {
                // Neumaier's sum: what the addition rounds away is kept.
                let value = number.float();
                let total = sum + value;
                let rounded = if sum.abs() >= value.abs() { (sum - total) + value } else { (value - total) + sum };
                Self::Float(total, if rounded.is_finite() { lost + rounded } else { lost })
            }
            (Self::Int(sum), Number::Float(value)) => {
                Self::Float(Number::Int(sum).float(), 0.0).plus(&SqlValue::Float(value))?
            }
            (_, Number::Int(value)) => Self::Int(value),
            (_, Number::Float(value)) => Self::Float(value, 0.0),
        })
    }

    fn value(self, kind: Aggregate) -> SqlValue {
        match self {
            Self::None if kind == Aggregate::Distinct => SqlValue::Int(0),
            Self::None => SqlValue::Null,
            Self::Moments(Moments { count, mean, squares }) => SqlValue::Text(format!("{count} {mean:e} {squares:e}")),
            Self::Different(digests) => SqlValue::Int(i64::try_from(digests.len()).unwrap_or(i64::MAX)),
            Self::Int(value) => SqlValue::Int(value),
            Self::Float(sum, lost) => SqlValue::Float(sum + lost),
            Self::Least(value) | Self::Most(value) => value,
        }
    }
}

fn not_moments() -> QueryError {
    QueryError::Worker { reason: "a node sent no moments of its values".to_owned() }
}

fn overflow() -> QueryError {
    QueryError::Arguments {
        function: "sum",
        reason: "the sum is too large for a whole number; write sum(<column> * 1.0)".to_owned(),
    }
}

#[derive(Clone, Copy)]
enum Number {
    Int(i64),
    Float(f64),
}

impl Number {
    #[expect(clippy::cast_precision_loss, reason = "as the engine does it")]
    fn float(self) -> f64 {
        match self {
            Self::Int(value) => value as f64,
            Self::Float(value) => value,
        }
    }
}

/// A value as a number; a text that is none counts as zero.
fn number(value: &SqlValue) -> Number {
    match value {
        SqlValue::Null => Number::Int(0),
        SqlValue::Bool(value) => Number::Int(i64::from(*value)),
        SqlValue::Int(value) => Number::Int(*value),
        SqlValue::Float(value) => Number::Float(*value),
        SqlValue::Text(text) => match text.parse() {
            Ok(value) => Number::Int(value),
            Err(_) => Number::Float(text.parse().unwrap_or(0.0)),
        },
    }
}

/// The keys and aggregates of one group.
struct Values {
    keys: Row,
    aggregates: Row,
}

impl Values {
    fn of<'a>(&'a self, value: &'a Value) -> Cow<'a, SqlValue> {
        let of = |values: &'a Row, index: usize| values.get(index).map_or(NULL, Cow::Borrowed);
        match value {
            Value::Key(index) => of(&self.keys, *index),
            Value::Aggregate(index) => of(&self.aggregates, *index),
            Value::Constant(value) => Cow::Borrowed(value),
            Value::Coalesce(values) => {
                let mut values = values.iter().map(|value| self.of(value));
                values.find(|value| **value != SqlValue::Null).unwrap_or(NULL)
            }
            Value::Nullif(left, right) => {
                let (left, right) = (self.of(left), self.of(right));
                let equal = *right != SqlValue::Null && compare_values(&left, &right) == Ordering::Equal;
                if equal { NULL } else { left }
            }
            Value::Abs(of) => match self.of(of).as_ref() {
                SqlValue::Null => NULL,
                value => Cow::Owned(match number(value) {
                    Number::Int(value) => value.checked_abs().map_or(SqlValue::Null, SqlValue::Int),
                    Number::Float(value) => SqlValue::Float(value.abs()),
                }),
            },
            Value::Spread { moments, sample, root } => match self.of(moments).as_ref() {
                SqlValue::Text(text) => {
                    Moments::parse(text).map_or(NULL, |found| Cow::Owned(found.spread(*sample, *root)))
                }
                _ => NULL,
            },
            Value::Double(of) => match self.of(of).as_ref() {
                SqlValue::Null => NULL,
                value => Cow::Owned(SqlValue::Float(number(value).float())),
            },
            Value::Binary(left, op, right) => Cow::Owned(binary(&self.of(left), op, &self.of(right))),
        }
    }
}

const NULL: Cow<'static, SqlValue> = Cow::Owned(SqlValue::Null);

fn binary(left: &SqlValue, op: &str, right: &SqlValue) -> SqlValue {
    let known = |value: Option<bool>| value.map_or(SqlValue::Null, |value| SqlValue::Int(i64::from(value)));
    match op {
        "and" => known(match (truth(left), truth(right)) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            _ => None,
        }),
        "or" => known(match (truth(left), truth(right)) {
            (Some(true), _) | (_, Some(true)) => Some(true),
            (Some(false), Some(false)) => Some(false),
            _ => None,
        }),
        _ if *left == SqlValue::Null || *right == SqlValue::Null => SqlValue::Null,
        "=" => known(Some(compare_values(left, right).is_eq())),
        "<>" => known(Some(compare_values(left, right).is_ne())),
        "<" => known(Some(compare_values(left, right).is_lt())),
        "<=" => known(Some(compare_values(left, right).is_le())),
        ">" => known(Some(compare_values(left, right).is_gt())),
        ">=" => known(Some(compare_values(left, right).is_ge())),
        _ => arithmetic(number(left), op, number(right)),
    }
}

fn arithmetic(left: Number, op: &str, right: Number) -> SqlValue {
    if let (Number::Int(left), Number::Int(right)) = (left, right) {
        let exact = match op {
            "+" => left.checked_add(right),
            "-" => left.checked_sub(right),
            "*" => left.checked_mul(right),
            _ if right == 0 => return SqlValue::Null,
            _ => left.checked_div(right),
        };
        if let Some(exact) = exact {
            return SqlValue::Int(exact);
        }
    }
    let (left, right) = (left.float(), right.float());
    let value = match op {
        "+" => left + right,
        "-" => left - right,
        "*" => left * right,
        _ if right == 0.0 => return SqlValue::Null,
        _ => left / right,
    };
    if value.is_nan() { SqlValue::Null } else { SqlValue::Float(value) }
}

fn truth(value: &SqlValue) -> Option<bool> {
    match value {
        SqlValue::Null => None,
        other => Some(number(other).float() != 0.0),
    }
}
