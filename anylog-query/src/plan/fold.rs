//! Aggregates of partial aggregates without an engine: what most statements need at the end.
//!
//! The last statement of a decomposed query is arithmetic over sums, minima and maxima of groups. When it is no more than that it is
//! computed here, with SQLite's rules for values; else a database in memory does it.

use anylog_dbms::SqlValue;

use super::divide::Key;
use crate::sql::expr::{Call, CastType, Expr, Order};
use crate::sql::functions::spread;

/// How groups are put together.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fold {
    /// The first columns of each row are the keys of its group.
    pub(crate) keys: usize,
    /// What becomes of the other columns.
    pub(crate) aggregates: Vec<Aggregate>,
    /// The columns of the answer.
    pub(crate) items: Vec<Value>,
    pub(crate) having: Option<Value>,
    /// What orders the answer; the columns of the keys count over these.
    pub(crate) order: Vec<Value>,
    pub(crate) order_keys: Vec<Key>,
    pub(crate) skip: u64,
    pub(crate) limit: Option<u64>,
}

/// What becomes of the values of a column in a group; NULL does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aggregate {
    Sum,
    Min,
    Max,
    /// The number of different values.
    Distinct,
    /// Number, mean and squares of distances, in a text of three numbers.
    Moments,
}

/// An expression over the keys and aggregates of a group.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Key(usize),
    Aggregate(usize),
    Constant(SqlValue),
    Coalesce(Vec<Value>),
    Nullif(Box<Value>, Box<Value>),
    Abs(Box<Value>),
    /// The variance, or its root, that moments come to: of a sample or of all there is.
    Spread {
        moments: Box<Value>,
        sample: bool,
        root: bool,
    },
    Double(Box<Value>),
    Binary(Box<Value>, &'static str, Box<Value>),
}

/// The names of the columns of partial rows.
pub(super) struct Names<'a> {
    pub(super) keys: usize,
    /// Values behind the keys of which the different ones are counted.
    pub(super) distinct: usize,
    /// All columns; the partial aggregates are the last.
    pub(super) partial: &'a [(Expr, String)],
}

impl Names<'_> {
    fn aggregates(&self) -> Option<Vec<Aggregate>> {
        let kind = |expr: &Expr| match expr {
            Expr::Call(call) => match call.name.as_str() {
                "count" | "sum" => Some(Aggregate::Sum),
                "min" => Some(Aggregate::Min),
                "max" => Some(Aggregate::Max),
                "moments" => Some(Aggregate::Moments),
                _ => None,
            },
            _ => None,
        };
        let counted = std::iter::repeat_n(Some(Aggregate::Distinct), self.distinct);
        let partial = self.partial.iter().skip(self.keys + self.distinct).map(|(expr, _)| kind(expr));
        counted.chain(partial).collect()
    }

    fn column(&self, name: &str) -> Option<usize> {
        self.partial.iter().position(|(_, known)| known == name)
    }

    /// The same expression over keys and aggregates; none when it is more than that.
    fn value(&self, expr: &Expr) -> Option<Value> {
        let boxed = |expr: &Expr| self.value(expr).map(Box::new);
        Some(match expr {
            Expr::Column(name) => Value::Key(self.column(name).filter(|column| *column < self.keys)?),
            Expr::Number(text) => Value::Constant(match text.parse() {
                Ok(whole) => SqlValue::Int(whole),
                Err(_) => SqlValue::Float(text.parse().ok()?),
            }),
            Expr::Null => Value::Constant(SqlValue::Null),
            Expr::Call(Call { name, args, .. }) => match (name.as_str(), args.as_slice()) {
                ("sum" | "min" | "max" | "count", [Expr::Column(name)]) => {
                    Value::Aggregate(self.column(name)?.checked_sub(self.keys)?)
                }
                (name, [Expr::Column(moments)]) if spread(name).is_some() => {
                    let (sample, root) = spread(name)?;
                    let moments = Box::new(Value::Aggregate(self.column(moments)?.checked_sub(self.keys)?));
                    Value::Spread { moments, sample, root }
                }
                ("coalesce", args) => Value::Coalesce(args.iter().map(|arg| self.value(arg)).collect::<Option<_>>()?),
                ("nullif", [left, right]) => Value::Nullif(boxed(left)?, boxed(right)?),
                ("abs", [of]) => Value::Abs(boxed(of)?),
                _ => return None,
            },
            Expr::Cast(of, CastType::Double) => Value::Double(boxed(of)?),
            Expr::Binary(
                left,
                op @ ("+" | "-" | "*" | "/" | "=" | "<>" | "<" | "<=" | ">" | ">=" | "and" | "or"),
                right,
            ) => Value::Binary(boxed(left)?, op, boxed(right)?),
            _ => return None,
        })
    }

    /// The last statement of a decomposed query, when it can be computed here.
    pub(super) fn fold(
        &self,
        items: &[(Expr, String)],
        having: Option<&Expr>,
        order: &[Order],
        skip: u64,
        limit: Option<u64>,
    ) -> Option<Fold> {
        let having = match having {
            Some(having) => Some(self.value(having)?),
            None => None,
        };
        let key = |(column, order): (usize, &Order)| Key {
            column,
            descending: order.descending,
            nulls_first: order.nulls_first.unwrap_or(!order.descending),
            text: false,
        };
        let mut order_keys: Vec<Key> = order.iter().enumerate().map(key).collect();
        let mut order: Vec<Value> = order.iter().map(|order| self.value(&order.expr)).collect::<Option<_>>()?;
        // Behind the order that was asked for that of the keys: an engine gives its groups so too.
        for index in 0..self.keys {
            order_keys.push(Key { column: order.len(), descending: false, nulls_first: true, text: false });
            order.push(Value::Key(index));
        }
        Some(Fold {
            keys: self.keys,
            aggregates: self.aggregates()?,
            items: items.iter().map(|(expr, _)| self.value(expr)).collect::<Option<_>>()?,
            having,
            order,
            order_keys,
            skip,
            limit,
        })
    }
}
