//! Groups the rows of a place while they are read.
//!
//! SQLite sorts rows to group them. A hash of the groups that are known so far needs no order, and each place has few groups compared
//! with its rows: the same partial rows come out in a third of the time. Keys that are parts of a time are cut out of its text here.
//!
//! What is not understood here - a statement of another form, a value of a type that nobody expects in its column, more groups than
//! [`MOST_BYTES`] hold - is left to the engine: nothing was handed on by then.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use anylog_dbms::{Dbms, SqlRef, SqlValue, Target};

use super::Row;
use crate::QueryError;
use crate::plan::Part;
use crate::sql::expr::{Call, Expr, Tongue};
use crate::sql::functions;

/// About the bytes that the groups of one place may take.
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// Values that a row may have.
const MOST_INPUTS: usize = 16;

/// Rows after which a reader looks whether it is to stop.
const LOOK: u32 = 1024;

/// How the rows of a place are grouped.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Gather {
    /// The statement that gives the rows; its columns are the inputs.
    rows: Part,
    keys: Vec<Key>,
    /// When all keys come out of one time: that input, and how many of its characters they need.
    time: Option<(usize, usize)>,
    aggregates: Vec<Aggregate>,
}

/// What tells the groups apart.
#[derive(Debug, Clone, PartialEq)]
enum Key {
    /// An input.
    Value(usize),
    /// The first characters of a time, and what stands for the others.
    Truncated { input: usize, length: usize, rest: &'static str },
    /// A number inside a time, divided.
    Interval { input: usize, digits: Range<usize>, count: i64 },
}

/// A partial aggregate of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aggregate {
    CountAll,
    Count(usize),
    Sum(usize),
    Min(usize),
    Max(usize),
}

/// The engine has to do it.
struct Unexpected;

impl Gather {
    /// For the statement of a place, when that only groups.
    pub(super) fn of(part: &Part) -> Option<Self> {
        let plain = !part.distinct && part.order.is_empty() && part.limit.is_none() && !part.group.is_empty();
        let keyed = part.items.len() >= part.group.len()
            && part.items.iter().zip(&part.group).all(|((expr, _), key)| expr == key);
        if !plain || !keyed {
            return None;
        }
        let mut inputs = Inputs::default();
        let keys: Vec<Key> = part.group.iter().map(|key| inputs.key(key)).collect::<Option<_>>()?;
        let aggregates = part.items.iter().skip(part.group.len());
        let aggregates = aggregates.map(|(expr, _)| inputs.aggregate(expr)).collect::<Option<_>>()?;
        let named = |(at, expr): (usize, Expr)| (expr, format!("#{at}"));
        let items: Vec<(Expr, String)> = inputs.0.into_iter().enumerate().map(named).collect();
        if items.is_empty() || items.len() > MOST_INPUTS {
            return None;
        }
        let rows = Part { items, group: Vec::new(), ..part.clone() };
        let time = time_of(&keys);
        Some(Self { rows, keys, time, aggregates })
    }

    /// Reads a place and hands its partial rows over. False when the engine has to group them; then there are none.
    pub(super) fn read(
        &self,
        dbms: &Arc<dyn Dbms>,
        target: &Target,
        stopped: &dyn Fn() -> bool,
        take: &mut dyn FnMut(Row) -> ControlFlow<()>,
    ) -> Result<bool, QueryError> {
        let sql = self.rows.sql(target.physical(), Tongue::Sqlite);
        let mut groups = Groups::new(self);
        let (mut understood, mut until_look) = (true, LOOK);
        dbms.scan(Some(target), &sql, &mut |row| {
            until_look -= 1;
            if until_look == 0 {
                until_look = LOOK;
                if stopped() {
                    return ControlFlow::Break(());
                }
            }
            understood = groups.add(row).is_ok();
            if understood { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        if understood {
            groups.finish(take);
        }
        Ok(understood)
    }
}

/// See [`Gather::time`].
fn time_of(keys: &[Key]) -> Option<(usize, usize)> {
    let parts = keys.iter().map(|key| match key {
        Key::Value(_) => None,
        Key::Truncated { input, length, .. } => Some((*input, *length)),
        Key::Interval { input, digits, .. } => Some((*input, digits.end)),
    });
    let parts: Vec<(usize, usize)> = parts.collect::<Option<_>>()?;
    let (first, _) = *parts.first()?;
    let same = parts.iter().all(|(input, _)| *input == first);
    same.then_some((first, parts.iter().map(|(_, length)| *length).max()?))
}

/// The expressions that the engine computes for each row.
#[derive(Default)]
struct Inputs(Vec<Expr>);

impl Inputs {
    fn place(&mut self, expr: &Expr) -> usize {
        let known = self.0.iter().position(|other| other == expr);
        known.unwrap_or_else(|| {
            self.0.push(expr.clone());
            self.0.len() - 1
        })
    }

    fn key(&mut self, expr: &Expr) -> Option<Key> {
        // Where the engine groups, a number stands for a column.
        if !expr.any(|expr| matches!(expr, Expr::Column(_))) {
            return None;
        }
        let Expr::Call(Call { name, args, over: None, .. }) = expr else { return Some(Key::Value(self.place(expr))) };
        match (name.as_str(), args.as_slice()) {
            ("date_trunc", [Expr::Text(unit), of]) => {
                if let Some((length, rest)) = functions::truncated(unit) {
                    return Some(Key::Truncated { input: self.place(of), length, rest });
                }
            }
            ("bucket", [Expr::Text(unit), of, Expr::Number(count)]) => {
                let count = count.parse().ok().filter(|count| *count > 0);
                if let (Some(digits), Some(count)) = (digits(unit), count) {
                    return Some(Key::Interval { input: self.place(of), digits, count });
                }
            }
            _ => {}
        }
        Some(Key::Value(self.place(expr)))
    }

    fn aggregate(&mut self, expr: &Expr) -> Option<Aggregate> {
        let Expr::Call(call @ Call { distinct: false, over: None, .. }) = expr else { return None };
        match (call.name.as_str(), call.args.as_slice()) {
            ("count", []) if call.star => Some(Aggregate::CountAll),
            ("count", [of]) => Some(Aggregate::Count(self.place(of))),
            ("sum", [of]) => Some(Aggregate::Sum(self.place(of))),
            ("min", [of]) => Some(Aggregate::Min(self.place(of))),
            ("max", [of]) => Some(Aggregate::Max(self.place(of))),
            _ => None,
        }
    }
}

/// Where the number of a unit stands.
fn digits(unit: &str) -> Option<Range<usize>> {
    Some(match unit {
        "second" => 17..19,
        "minute" => 14..16,
        "hour" => 11..13,
        "day" => 8..10,
        "month" => 5..7,
        "year" => 0..4,
        _ => return None,
    })
}

/// True for a time as it is stored, whole or without what follows the seconds.
fn is_stored_time(text: &[u8]) -> bool {
    const FORM: &[u8; 19] = b"0000-00-00 00:00:00";
    let fits = |(found, form): (&u8, &u8)| if *form == b'0' { found.is_ascii_digit() } else { found == form };
    text.len() >= FORM.len()
        && text.iter().zip(FORM).all(fits)
        && (text.len() == FORM.len() || text[FORM.len()] == b'.')
}

/// The groups of a place.
struct Groups<'a> {
    gather: &'a Gather,
    places: HashMap<Box<[u8]>, usize>,
    /// The keys of all groups, one group after the other, and their sums.
    keys: Vec<SqlValue>,
    sums: Vec<Sum>,
    bytes: usize,
    /// The key of the row and that of the one before it, which often has the same.
    key: Vec<u8>,
    last: Vec<u8>,
    /// The characters of the time of the row before, when that is all that the keys need.
    time: Vec<u8>,
    at: usize,
}

impl<'a> Groups<'a> {
    fn new(gather: &'a Gather) -> Self {
        let (keys, sums) = (Vec::new(), Vec::new());
        Self {
            gather,
            places: HashMap::new(),
            keys,
            sums,
            bytes: 0,
            key: Vec::new(),
            last: Vec::new(),
            time: Vec::new(),
            at: 0,
        }
    }

    fn add(&mut self, row: &[SqlRef<'_>]) -> Result<(), Unexpected> {
        if !self.is_same_time(row) {
            self.find(row)?;
        }
        let count = self.gather.aggregates.len();
        let sums = self.sums.get_mut(self.at * count..).unwrap_or_default();
        for (aggregate, sum) in self.gather.aggregates.iter().zip(sums) {
            sum.add(*aggregate, row)?;
        }
        Ok(())
    }

    /// Whether the time from which all keys come is that of the row before.
    fn is_same_time(&mut self, row: &[SqlRef<'_>]) -> bool {
        let Some((at, length)) = self.gather.time else { return false };
        let SqlRef::Text(text) = input(row, at) else {
            self.time.clear();
            return false;
        };
        let Some(start) = text.get(..length) else { return false };
        if self.time == start {
            return true;
        }
        self.time.clear();
        self.time.extend_from_slice(start);
        false
    }

    /// The group of a row.
    fn find(&mut self, row: &[SqlRef<'_>]) -> Result<(), Unexpected> {
        self.key.clear();
        for key in &self.gather.keys {
            key.write(row, &mut self.key)?;
        }
        if self.key != self.last || self.places.is_empty() {
            self.at = match self.places.get(self.key.as_slice()) {
                Some(at) => *at,
                None => self.begin(row)?,
            };
            std::mem::swap(&mut self.key, &mut self.last);
        }
        Ok(())
    }

    /// A new group.
    fn begin(&mut self, row: &[SqlRef<'_>]) -> Result<usize, Unexpected> {
        let at = self.places.len();
        let (keys, count) = (&self.gather.keys, self.gather.aggregates.len());
        self.bytes += 2 * self.key.len() + 64 + keys.len() * size_of::<SqlValue>() + count * (size_of::<Sum>() + 32);
        if self.bytes > MOST_BYTES {
            return Err(Unexpected);
        }
        for key in keys {
            self.keys.push(key.value(row)?);
        }
        self.sums.extend(self.gather.aggregates.iter().map(|aggregate| Sum::of(*aggregate)));
        self.places.insert(self.key.as_slice().into(), at);
        Ok(at)
    }

    fn finish(self, take: &mut dyn FnMut(Row) -> ControlFlow<()>) {
        let (width, count) = (self.gather.keys.len(), self.gather.aggregates.len());
        let (mut keys, mut sums) = (self.keys.into_iter(), self.sums.into_iter());
        for _ in 0..self.places.len() {
            let mut row = Vec::with_capacity(width + count);
            row.extend(keys.by_ref().take(width));
            row.extend(sums.by_ref().take(count).map(Sum::value));
            if take(row).is_break() {
                return;
            }
        }
    }
}

/// An input, where it lies; see [`SqlRef`].
fn input<'r, 'v>(row: &'r [SqlRef<'v>], at: usize) -> &'r SqlRef<'v> {
    row.get(at).unwrap_or(&SqlRef::Null)
}

impl Key {
    /// Appends what equal keys have in common, and others have not.
    fn write(&self, row: &[SqlRef<'_>], out: &mut Vec<u8>) -> Result<(), Unexpected> {
        match self {
            Self::Value(at) => match input(row, *at) {
                SqlRef::Null => out.push(0),
                SqlRef::Int(value) => write_int(*value, out),
                #[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
                SqlRef::Float(value) if value.fract() == 0.0 && value.abs() < 9.0e15 => write_int(*value as i64, out),
                SqlRef::Float(value) => {
                    out.push(2);
                    out.extend_from_slice(&value.to_bits().to_le_bytes());
                }
                SqlRef::Text(text) => write_text(text, out)?,
                SqlRef::Blob(_) => return Err(Unexpected),
            },
            Self::Truncated { input: at, length, .. } => match input(row, *at) {
                SqlRef::Null => out.push(0),
                SqlRef::Text(text) if is_stored_time(text) => write_text(&text[..*length], out)?,
                _ => return Err(Unexpected),
            },
            Self::Interval { input: at, digits, count } => match input(row, *at) {
                SqlRef::Null => out.push(0),
                SqlRef::Text(text) if is_stored_time(text) => write_int(interval(text, digits, *count), out),
                _ => return Err(Unexpected),
            },
        }
        Ok(())
    }

    /// The key as the engine would give it.
    fn value(&self, row: &[SqlRef<'_>]) -> Result<SqlValue, Unexpected> {
        Ok(match self {
            Self::Value(at) => input(row, *at).to_value(),
            Self::Truncated { input: at, length, rest } => match input(row, *at) {
                SqlRef::Null => SqlValue::Null,
                SqlRef::Text(text) => {
                    let kept = text.get(..*length).and_then(|text| std::str::from_utf8(text).ok()).ok_or(Unexpected)?;
                    SqlValue::Text(format!("{kept}{rest}"))
                }
                _ => return Err(Unexpected),
            },
            Self::Interval { input: at, digits, count } => match input(row, *at) {
                SqlRef::Null => SqlValue::Null,
                SqlRef::Text(text) => SqlValue::Int(interval(text, digits, *count)),
                _ => return Err(Unexpected),
            },
        })
    }
}

fn interval(text: &[u8], digits: &Range<usize>, count: i64) -> i64 {
    let digits = text.get(digits.clone()).unwrap_or_default();
    digits.iter().fold(0, |number, digit| number * 10 + i64::from(digit.saturating_sub(b'0'))) / count
}

fn write_int(value: i64, out: &mut Vec<u8>) {
    out.push(1);
    out.extend_from_slice(&value.to_le_bytes());
}

fn write_text(text: &[u8], out: &mut Vec<u8>) -> Result<(), Unexpected> {
    out.push(3);
    out.extend_from_slice(&u32::try_from(text.len()).map_err(|_| Unexpected)?.to_le_bytes());
    out.extend_from_slice(text);
    Ok(())
}

/// What has come of an aggregate of a group.
#[derive(Debug, Clone, PartialEq)]
enum Sum {
    /// Of no value yet, which is NULL.
    None,
    /// A count, or a sum of whole numbers.
    Int(i64),
    /// A sum of floats and what its rounding lost.
    Float(f64, f64),
    /// The least or greatest value.
    Number(f64),
    Text(Vec<u8>),
}

impl Sum {
    fn of(aggregate: Aggregate) -> Self {
        match aggregate {
            Aggregate::CountAll | Aggregate::Count(_) => Self::Int(0),
            Aggregate::Sum(_) | Aggregate::Min(_) | Aggregate::Max(_) => Self::None,
        }
    }

    fn add(&mut self, aggregate: Aggregate, row: &[SqlRef<'_>]) -> Result<(), Unexpected> {
        match aggregate {
            Aggregate::CountAll => self.count(),
            Aggregate::Count(at) if matches!(input(row, at), SqlRef::Null) => {}
            Aggregate::Count(_) => self.count(),
            Aggregate::Sum(at) => self.plus(input(row, at))?,
            Aggregate::Min(at) => self.extreme(input(row, at), Ordering::Less)?,
            Aggregate::Max(at) => self.extreme(input(row, at), Ordering::Greater)?,
        }
        Ok(())
    }

    fn count(&mut self) {
        if let Self::Int(count) = self {
            *count += 1;
        }
    }

    /// As SQLite adds: whole numbers exactly, floats with what rounding loses.
    #[expect(clippy::cast_precision_loss, reason = "as the engine does it")]
    fn plus(&mut self, value: &SqlRef<'_>) -> Result<(), Unexpected> {
        match (&mut *self, value) {
            (_, SqlRef::Null) => {}
            (Self::None, SqlRef::Int(value)) => *self = Self::Int(*value),
            (Self::None, SqlRef::Float(value)) => *self = Self::Float(*value, 0.0),
            // The engine says what is wrong with a sum that is too large.
            (Self::Int(sum), SqlRef::Int(value)) => *sum = sum.checked_add(*value).ok_or(Unexpected)?,
            (Self::Int(sum), SqlRef::Float(value)) => {
                *self = Self::Float(*sum as f64, 0.0);
                self.plus_float(*value);
            }
            (Self::Float(..), SqlRef::Int(value)) => self.plus_float(*value as f64),
            (Self::Float(..), SqlRef::Float(value)) => self.plus_float(*value),
            _ => return Err(Unexpected),
        }
        Ok(())
    }

    /// Neumaier's sum.
    fn plus_float(&mut self, value: f64) {
        let Self::Float(sum, lost) = self else { return };
        let total = *sum + value;
        let rounded = if sum.abs() >= value.abs() { (*sum - total) + value } else { (value - total) + *sum };
        if rounded.is_finite() {
            *lost += rounded;
        }
        *sum = total;
    }

    /// Takes a value that comes before or after the one that is known.
    fn extreme(&mut self, value: &SqlRef<'_>, wanted: Ordering) -> Result<(), Unexpected> {
        match (&mut *self, value) {
            (_, SqlRef::Null) => {}
            (Self::Int(known), SqlRef::Int(value)) => {
                if value.cmp(known) == wanted {
                    *known = *value;
                }
            }
            (Self::Number(known), SqlRef::Float(value)) => {
                if (*value).partial_cmp(known) == Some(wanted) {
                    *known = *value;
                }
            }
            (Self::Text(known), SqlRef::Text(text)) => {
                if (*text).cmp(known.as_slice()) == wanted {
                    known.clear();
                    known.extend_from_slice(text);
                }
            }
            (Self::None, SqlRef::Int(value)) => *self = Self::Int(*value),
            (Self::None, SqlRef::Float(value)) => *self = Self::Number(*value),
            (Self::None, SqlRef::Text(text)) => *self = Self::Text(text.to_vec()),
            // Values of several types in one column have an order that the engine knows.
            _ => return Err(Unexpected),
        }
        Ok(())
    }

    fn value(self) -> SqlValue {
        match self {
            Self::None => SqlValue::Null,
            Self::Int(value) => SqlValue::Int(value),
            Self::Float(sum, lost) => SqlValue::Float(sum + lost),
            Self::Number(value) => SqlValue::Float(value),
            Self::Text(text) => SqlRef::Text(&text).to_value(),
        }
    }
}

#[cfg(test)]
mod tests;
