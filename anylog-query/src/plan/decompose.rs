//! Takes aggregates apart: partial values for each place, and how to put them together.
//!
//! | aggregate | partial | together |
//! |---|---|---|
//! | `count(x)` | `count(x)` | sum |
//! | `sum(x)` `min(x)` `max(x)` | the same | the same |
//! | `avg(x)` | `sum(x * 1.0)`, `count(x)` | sum / sum, null when none |
//! | `range(x)` | `min(x)`, `max(x)` | max - min |
//! | `stddev(x)` `variance(x)`, .. | `moments(x)` | from the moments of all |
//! | `count(distinct x)` | x, which is grouped by too | the number of its different values |

use anylog_dbms::ColumnType;

use super::body::Body;
use super::divide::{Merge, MergeColumn, Part};
use super::fold::Names;
use super::{MERGE_TABLE, counted};
use crate::sql::bind::Select;
use crate::sql::expr::{Call, CastType, Expr, Order, Tongue};
use crate::sql::functions::{is_decomposed, is_spread};

/// A statement taken apart.
pub(super) struct Split {
    /// What each place computes, under these names.
    partial: Vec<(Expr, String)>,
    group: Vec<Expr>,
    /// Values that each place groups by too, as only different ones count.
    distinct: Vec<Expr>,
    items: Vec<(Expr, String)>,
    final_group: Vec<Expr>,
    having: Option<Expr>,
    order: Vec<Order>,
}

/// Takes a statement apart; none when its answer is no function of partial values.
pub(super) fn split(select: &Select, kind: &dyn Fn(&str) -> Option<ColumnType>) -> Option<Split> {
    let aggregates = super::any(select, |expr| expr.is_aggregate());
    let mut group = select.group.clone();
    if select.distinct {
        // Distinct rows are the groups of all columns.
        if aggregates || !group.is_empty() || select.having.is_some() {
            return None;
        }
        group = select.items.iter().map(|item| item.expr.clone()).collect();
    } else if !aggregates && group.is_empty() {
        return None;
    }
    let mut parts = Parts { group: &group, distinct: Vec::new(), aggregates: Vec::new(), kind };
    let items =
        select.items.iter().map(|item| Some((parts.last(&item.expr)?, item.name.clone()))).collect::<Option<_>>()?;
    let having = match &select.having {
        Some(having) => Some(parts.last(having)?),
        None => None,
    };
    let order = select
        .order
        .iter()
        .map(|order| Some(Order { expr: parts.last(&order.expr)?, ..order.clone() }))
        .collect::<Option<_>>()?;
    let keys = group.iter().enumerate().map(|(index, expr)| (expr.clone(), group_name(index)));
    let counted = parts.distinct.iter().enumerate().map(|(index, expr)| (expr.clone(), distinct_name(index)));
    let values = parts.aggregates.iter().enumerate().map(|(index, expr)| (expr.clone(), aggregate_name(index)));
    let partial: Vec<(Expr, String)> = keys.chain(counted).chain(values).collect();
    let distinct = parts.distinct;
    let final_group = (0..group.len()).map(|index| Expr::Column(group_name(index))).collect();
    Some(Split { partial, items, final_group, having, order, group, distinct })
}

impl Split {
    /// The statement of each place, and the one over their rows; none when no engine could run that one.
    pub(super) fn merge(self, select: &Select) -> Option<Merge> {
        let moments = self.partial.iter().any(|(expr, _)| matches!(expr, Expr::Call(call) if call.name == "moments"));
        let (limit, skip) = counted(select);
        // Without a declared type the values keep the type that each place gave them.
        let columns = self.partial.iter().map(|(_, name)| MergeColumn { name: name.clone(), declared: "" }).collect();
        let last = Body {
            items: &self.items,
            from: MERGE_TABLE,
            group: &self.final_group,
            having: self.having.as_ref(),
            order: &self.order,
            limit,
            skip,
            ..Body::EMPTY
        };
        let last = last.sql(Tongue::Sqlite);
        let names = Names { keys: self.group.len(), distinct: self.distinct.len(), partial: &self.partial };
        let fold = names.fold(&self.items, self.having.as_ref(), &self.order, skip, limit);
        // Different values are many: the places of a node need not put them together for each other.
        let loose = !self.distinct.is_empty();
        let part = Part {
            items: self.partial,
            distinct: false,
            filter: select.filter.clone(),
            group: self.group.into_iter().chain(self.distinct).collect(),
            order: Vec::new(),
            limit: None,
        };
        // What moments come to is computed without an engine only.
        (fold.is_some() || !moments).then_some(Merge { part, columns, last, fold, loose })
    }
}

fn group_name(index: usize) -> String {
    format!("g{index}")
}

fn distinct_name(index: usize) -> String {
    format!("d{index}")
}

fn aggregate_name(index: usize) -> String {
    format!("a{index}")
}

struct Parts<'a> {
    group: &'a [Expr],
    distinct: Vec<Expr>,
    aggregates: Vec<Expr>,
    kind: &'a dyn Fn(&str) -> Option<ColumnType>,
}

impl Parts<'_> {
    /// The expression over the partial values; none when it needs a row's own value or another aggregate.
    fn last(&mut self, expr: &Expr) -> Option<Expr> {
        if let Some(index) = self.group.iter().position(|key| key == expr) {
            return Some(Expr::Column(group_name(index)));
        }
        match expr {
            Expr::Column(_) => None,
            Expr::Call(call) if call.over.is_some() => None,
            Expr::Call(call) if call.distinct && call.name == "count" => self.count_distinct(call),
            Expr::Call(call) if call.distinct && matches!(call.name.as_str(), "min" | "max") => {
                self.last(&Expr::Call(Call { distinct: false, ..call.clone() }))
            }
            Expr::Call(call) if is_spread(call) => {
                let moments = Call { name: "moments".to_owned(), ..call.clone() };
                Some(self.over(&call.name, Expr::Call(moments)))
            }
            Expr::Call(call) if call.aggregates() => is_decomposed(call).then(|| self.aggregate(call)),
            other => other.map(&mut |child| self.last(child).ok_or(())).ok(),
        }
    }

    /// `count(distinct value)` over the values of all places.
    fn count_distinct(&mut self, call: &Call) -> Option<Expr> {
        let [of] = call.args.as_slice() else { return None };
        // A place would take a number after GROUP BY for that of a column.
        if !of.any(|expr| matches!(expr, Expr::Column(_))) {
            return None;
        }
        let known = self.distinct.iter().position(|other| other == of);
        let index = known.unwrap_or_else(|| {
            self.distinct.push(of.clone());
            self.distinct.len() - 1
        });
        let value = vec![Expr::Column(distinct_name(index))];
        Some(Expr::Call(Call { name: "count".to_owned(), args: value, distinct: true, ..Call::default() }))
    }

    fn aggregate(&mut self, call: &Call) -> Expr {
        let own = Expr::Call(call.clone());
        let of = call.args.first().cloned().unwrap_or(Expr::Null);
        match call.name.as_str() {
            // Without any partial value - no place has the table - there are none to count.
            "count" => {
                let sum = self.over("sum", own);
                Expr::call("coalesce", vec![sum, Expr::Number("0".to_owned())])
            }
            "avg" => {
                // The product keeps sums of large whole numbers from overflowing, as an average does.
                let is_float = matches!(&of, Expr::Column(name) if (self.kind)(name) == Some(ColumnType::Double));
                let real =
                    if is_float { of.clone() } else { Expr::binary(of.clone(), "*", Expr::Number("1.0".to_owned())) };
                let sum = self.over("sum", Expr::call("sum", vec![real]));
                let count = self.over("sum", Expr::call("count", vec![of]));
                let count = Expr::call("nullif", vec![count, Expr::Number("0".to_owned())]);
                Expr::binary(Expr::Cast(Box::new(sum), CastType::Double), "/", count)
            }
            "range" => {
                let least = self.over("min", Expr::call("min", vec![of.clone()]));
                let most = self.over("max", Expr::call("max", vec![of]));
                Expr::call("abs", vec![Expr::binary(most, "-", least)])
            }
            same => {
                let same = same.to_owned();
                self.over(&same, own)
            }
        }
    }

    /// `function(partial value)`.
    fn over(&mut self, function: &str, partial: Expr) -> Expr {
        let known = self.aggregates.iter().position(|other| *other == partial);
        let index = known.unwrap_or_else(|| {
            self.aggregates.push(partial);
            self.aggregates.len() - 1
        });
        Expr::call(function, vec![Expr::Column(aggregate_name(index))])
    }
}
