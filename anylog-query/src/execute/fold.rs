//! Puts groups together in memory; see [`crate::plan::Fold`].

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashMap;

use anylog_dbms::SqlValue;

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
#[derive(Clone)]
enum Sum {
    None,
    Int(i64),
    /// A sum of floats and what its rounding lost.
    Float(f64, f64),
    Least(SqlValue),
    Most(SqlValue),
}

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
        let parts: Box<[Part]> = row.iter().map(Part::of).collect();
        let place = match self.places.get(&parts) {
            Some(place) => *place,
            None => {
                // The key is kept twice.
                self.held.take(2 * size(&row) as u64 + 32 * values.len() as u64 + 64)?;
                self.groups.push(Group { keys: row, sums: vec![Sum::None; self.fold.aggregates.len()] });
                self.places.insert(parts, self.groups.len() - 1);
                self.groups.len() - 1
            }
        };
        let Some(group) = self.groups.get_mut(place) else { return Ok(()) };
        for ((sum, kind), value) in group.sums.iter_mut().zip(&self.fold.aggregates).zip(values) {
            sum.add(*kind, value)?;
        }
        Ok(())
    }

    /// Hands the rows of the answer over.
    pub(crate) fn finish(mut self, sink: &mut dyn Sink) -> Result<(), QueryError> {
        let fold = self.fold;
        if fold.keys == 0 && self.groups.is_empty() {
            // An aggregate of nothing has a value too.
            self.groups.push(Group { keys: Vec::new(), sums: vec![Sum::None; fold.aggregates.len()] });
        }
        drop(self.places);
        let mut groups: Vec<Values> = Vec::with_capacity(self.groups.len());
        for Group { keys, sums } in self.groups {
            let group = Values { keys, aggregates: sums.into_iter().map(Sum::value).collect() };
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
    fn add(&mut self, kind: Aggregate, value: SqlValue) -> Result<(), QueryError> {
        if value == SqlValue::Null {
            return Ok(());
        }
        let old = std::mem::replace(self, Self::None);
        *self = match (kind, old) {
            (Aggregate::Sum, old) => old.plus(&value)?,
            (Aggregate::Min, Self::Least(least)) if compare_values(&least, &value) != Ordering::Greater => {
                Self::Least(least)
            }
            (Aggregate::Min, _) => Self::Least(value),
            (Aggregate::Max, Self::Most(most)) if compare_values(&most, &value) != Ordering::Less => Self::Most(most),
            (Aggregate::Max, _) => Self::Most(value),
        };
        Ok(())
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

    fn value(self) -> SqlValue {
        match self {
            Self::None => SqlValue::Null,
            Self::Int(value) => SqlValue::Int(value),
            Self::Float(sum, lost) => SqlValue::Float(sum + lost),
            Self::Least(value) | Self::Most(value) => value,
        }
    }
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
