//! Aggregates of a whole place that its indexes answer: the number of its rows, the first and the last time.
//!
//! SQLite takes a lone `min`, `max` or `count(*)` from an index; several of them in one statement read all rows. So each is asked for
//! by itself.

use anylog_dbms::ColumnType;

use super::divide::Part;
use crate::sql::expr::{Call, Expr, Tongue, quoted_name};

/// The statement of a place, when all that it asks for lies in indexes: those of times are always there.
pub(super) fn sql(part: &Part, table: &str, kind: &dyn Fn(&str) -> Option<ColumnType>) -> Option<String> {
    let whole = part.group.is_empty() && part.filter.is_none() && !part.distinct && part.limit.is_none();
    if !whole || part.items.len() < 2 || !part.items.iter().all(|(expr, _)| is_indexed(expr, kind)) {
        return None;
    }
    let table = quoted_name(table);
    let item = |(expr, name): &(Expr, String)| {
        format!("(select {} from {table}) as {}", expr.sql(Tongue::Sqlite), quoted_name(name))
    };
    Some(format!("select {}", part.items.iter().map(item).collect::<Vec<_>>().join(", ")))
}

fn is_indexed(expr: &Expr, kind: &dyn Fn(&str) -> Option<ColumnType>) -> bool {
    let Expr::Call(Call { name, args, star, distinct: false, over: None }) = expr else { return false };
    match (name.as_str(), args.as_slice()) {
        ("count", []) => *star,
        ("min" | "max", [Expr::Column(column)]) => kind(column) == Some(ColumnType::Timestamp),
        _ => false,
    }
}
