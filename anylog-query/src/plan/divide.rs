//! How a statement is divided over places, whatever these are: partitions of a node, or nodes.

use anylog_dbms::ColumnType;

use super::body::{Body, whole};
use super::fold::Fold;
use super::{MERGE_TABLE, counted, decompose, has_windows, ignores_repeats, is_plain, outputs};
use crate::sql::bind::Select;
use crate::sql::expr::{Expr, Order, Tongue, quoted_name};

/// A divided statement.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Divided {
    /// The rows of all places; `skip` and `limit` count over all.
    Rows { part: Part, skip: u64, limit: Option<u64> },
    /// Rows that each place gives in order. Only the first `width` columns are part of the answer.
    Sorted { part: Part, keys: Vec<Key>, width: usize, skip: u64, limit: Option<u64> },
    /// A table of the rows of all places, and a statement over it.
    Merge(Box<Merge>),
}

/// See [`Divided::Merge`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Merge {
    pub(crate) part: Part,
    pub(crate) columns: Vec<MergeColumn>,
    /// The statement over the rows of all places, in SQLite's text; their table is [`MERGE_TABLE`].
    pub(crate) last: String,
    /// The same without an engine, when it is simple enough.
    pub(crate) fold: Option<Fold>,
    /// Whether a node may send the rows of its places as they are, without putting them together.
    pub(crate) loose: bool,
}

/// A column of the table of intermediate rows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MergeColumn {
    pub(crate) name: String,
    /// The type in SQLite, so that values compare as in the table that they come from.
    pub(crate) declared: &'static str,
}

/// A column by which rows are in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) column: usize,
    pub(crate) descending: bool,
    pub(crate) nulls_first: bool,
    /// Whether texts decide: engines may order them in different ways.
    pub(crate) text: bool,
}

/// The statement of each place, whose table is not yet named.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Part {
    pub(crate) items: Vec<(Expr, String)>,
    pub(crate) distinct: bool,
    pub(crate) filter: Option<Expr>,
    pub(crate) group: Vec<Expr>,
    pub(crate) order: Vec<Order>,
    pub(crate) limit: Option<u64>,
}

impl Part {
    /// The text over one table.
    pub(crate) fn sql(&self, table: &str, tongue: Tongue) -> String {
        self.sql_from(&quoted_name(table), tongue)
    }

    /// The text over what stands behind FROM.
    pub(super) fn sql_from(&self, from: &str, tongue: Tongue) -> String {
        let body = Body {
            items: &self.items,
            distinct: self.distinct,
            from,
            filter: self.filter.as_ref(),
            group: &self.group,
            order: &self.order,
            limit: self.limit,
            ..Body::EMPTY
        };
        body.sql(tongue)
    }
}

/// Divides a statement; `kind` tells the types of columns.
pub(crate) fn divide(select: &Select, kind: &dyn Fn(&str) -> Option<ColumnType>) -> Divided {
    if is_plain(select) {
        return if select.order.is_empty() { rows(select) } else { sorted(select, kind) };
    }
    if !has_windows(select)
        && let Some(merge) = decompose::split(select, kind).and_then(|split| split.merge(select))
    {
        return Divided::Merge(Box::new(merge));
    }
    Divided::Merge(Box::new(general(select, kind)))
}

/// Each place may have to give all rows of the answer.
fn rows(select: &Select) -> Divided {
    let (limit, skip) = counted(select);
    let part = Part {
        items: select.items.iter().map(|item| (item.expr.clone(), item.name.clone())).collect(),
        distinct: false,
        filter: select.filter.clone(),
        group: Vec::new(),
        order: Vec::new(),
        limit: limit.map(|limit| limit.saturating_add(skip)),
    };
    Divided::Rows { part, skip, limit }
}

/// Rows in order; what orders them and is not shown comes behind the columns that are.
fn sorted(select: &Select, kind: &dyn Fn(&str) -> Option<ColumnType>) -> Divided {
    let (limit, skip) = counted(select);
    // No column of a table has such a name, so that an order by a column cannot be taken for one by a name of the answer.
    let name = |index: usize| format!("#{index}");
    let mut items: Vec<(Expr, String)> =
        select.items.iter().enumerate().map(|(index, item)| (item.expr.clone(), name(index))).collect();
    let width = items.len();
    let mut keys = Vec::new();
    let mut order = Vec::new();
    for wanted in &select.order {
        let known = items.iter().position(|(expr, _)| *expr == wanted.expr);
        let column = known.unwrap_or_else(|| {
            items.push((wanted.expr.clone(), name(items.len())));
            items.len() - 1
        });
        // SQLite's order when nothing is said; other engines have another.
        let nulls_first = wanted.nulls_first.unwrap_or(!wanted.descending);
        let text = match &wanted.expr {
            Expr::Column(name) => kind(name).is_none_or(|kind| declared(Some(kind)) == "text" && !is_time(kind)),
            _ => true,
        };
        keys.push(Key { column, descending: wanted.descending, nulls_first, text });
        order.push(Order { nulls_first: Some(nulls_first), ..wanted.clone() });
    }
    let limited = limit.map(|limit| limit.saturating_add(skip));
    let filter = select.filter.clone();
    let part = Part { items, distinct: false, filter, group: Vec::new(), order, limit: limited };
    Divided::Sorted { part, keys, width, skip, limit }
}

fn is_time(kind: ColumnType) -> bool {
    matches!(kind, ColumnType::Timestamp | ColumnType::Date | ColumnType::Time)
}

/// The columns that matter, and the statement itself over them.
pub(super) fn general(select: &Select, kind: &dyn Fn(&str) -> Option<ColumnType>) -> Merge {
    let (limit, skip) = counted(select);
    let names = read_columns(select, false);
    let mut columns: Vec<MergeColumn> =
        names.iter().map(|name| MergeColumn { name: name.clone(), declared: declared(kind(name)) }).collect();
    let mut items: Vec<(Expr, String)> = names.iter().map(|name| (Expr::Column(name.clone()), name.clone())).collect();
    if items.is_empty() {
        // Only the number of rows matters: count(distinct 1).
        items.push((Expr::Number("1".to_owned()), "one".to_owned()));
        columns.push(MergeColumn { name: "one".to_owned(), declared: "integer" });
    }
    // The first rows of all are among the first rows of each place.
    let top = limit.filter(|_| is_plain(select)).map(|limit| limit.saturating_add(skip));
    let part = Part {
        items,
        distinct: ignores_repeats(select),
        filter: select.filter.clone(),
        group: Vec::new(),
        order: if top.is_some() { select.order.clone() } else { Vec::new() },
        limit: top,
    };
    Merge {
        part,
        columns,
        last: whole(select, MERGE_TABLE, None, limit, skip, Tongue::Sqlite),
        fold: None,
        loose: false,
    }
}

/// The columns that a statement reads; those of its condition only `with_filter`.
pub(crate) fn read_columns(select: &Select, with_filter: bool) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut note = |expr: &Expr| {
        expr.visit(&mut |expr| {
            if let Expr::Column(name) = expr
                && !names.contains(name)
            {
                names.push(name.clone());
            }
        });
    };
    outputs(select).for_each(&mut note);
    if with_filter {
        select.filter.iter().for_each(&mut note);
    }
    names
}

fn declared(kind: Option<ColumnType>) -> &'static str {
    match kind {
        None => "",
        Some(ColumnType::Serial | ColumnType::Int | ColumnType::BigInt | ColumnType::Boolean) => "integer",
        Some(ColumnType::Double) => "real",
        Some(ColumnType::Decimal) => "numeric",
        Some(_) => "text",
    }
}
