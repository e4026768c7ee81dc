//! From a checked statement to what runs where.
//!
//! A logical table is the table itself, usually empty, and its partitions. The answer is the same as if all rows lay in one table:
//!
//! | plan | for | work |
//! |---|---|---|
//! | [`Steps::Direct`] | one place, or an engine that holds all places | the whole statement there |
//! | [`Steps::Chain`] | no aggregate, group, order; or an order by the time that splits the table | place after place, limit counted over all |
//! | [`Steps::Merge`], decomposed | count, sum, min, max, avg, range, group by | partial aggregates of each place, put together at the end |
//! | [`Steps::Merge`], general | everything else | the columns and rows that matter, the statement itself over them |

mod decompose;
mod prune;

use anylog_dbms::{ColumnType, Engine, Target};

use crate::sql::bind::Select;
use crate::sql::expr::{Expr, Order, quoted_name, write_list, write_order};
use crate::sql::functions::is_aggregate;
pub(crate) use prune::targets;

/// What stands for the table of intermediate rows in [`Steps::Merge`].
pub(crate) const MERGE_TABLE: &str = "\u{1}merge\u{1}";

/// The work of a query.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Steps {
    /// One statement in one place.
    Direct { target: Target, sql: String },
    /// One place after another; `skip` and `limit` count over all.
    Chain { parts: Vec<(Target, String)>, skip: u64, limit: Option<u64> },
    /// Statements in all places, then one over their rows.
    Merge { parts: Vec<(Target, String)>, columns: Vec<MergeColumn>, last: String },
}

/// A column of the table of intermediate rows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MergeColumn {
    pub(crate) name: String,
    /// The type in SQLite, so that values compare as in the table that they come from.
    pub(crate) declared: &'static str,
}

impl Steps {
    /// The statement of the first place, for `query explain`.
    pub(crate) fn remote(&self) -> &str {
        match self {
            Self::Direct { sql, .. } => sql,
            Self::Chain { parts, .. } | Self::Merge { parts, .. } => parts.first().map_or("", |(_, sql)| sql),
        }
    }

    /// The number of places.
    pub(crate) fn places(&self) -> usize {
        match self {
            Self::Direct { .. } => 1,
            Self::Chain { parts, .. } | Self::Merge { parts, .. } => parts.len(),
        }
    }
}

/// Plans a statement over places that hold its rows. There is always one: the table itself.
pub(crate) fn plan(
    select: &Select,
    engine: Engine,
    targets: Vec<Target>,
    kind: &dyn Fn(&str) -> Option<ColumnType>,
) -> Steps {
    // With `limit n per column` the rows are counted where they are shown.
    let (limit, skip) = if select.per.is_some() { (None, 0) } else { (select.limit, select.offset) };
    if let [target] = targets.as_slice() {
        let sql = whole(select, &quoted_name(target.physical()), select.filter.as_ref(), limit, skip, engine);
        return Steps::Direct { target: target.clone(), sql };
    }
    let aggregates = any(select, |expr| expr.is_aggregate());
    let windows = any(select, |expr| matches!(expr, Expr::Call(call) if call.over.is_some()));
    let grouped = aggregates || !select.group.is_empty() || select.having.is_some();
    let plain = !grouped && !select.distinct && !windows;
    let targets = match select.order.first() {
        None if plain => return chain(select, engine, targets, limit, skip),
        Some(Order { expr: Expr::Column(column), descending, .. }) if plain => {
            match prune::in_time_order(&targets, column, *descending) {
                Some(ordered) => return chain(select, engine, ordered, limit, skip),
                None => targets,
            }
        }
        _ => targets,
    };
    if engine == Engine::Postgres {
        return union(select, &targets, limit, skip);
    }
    if !windows && let Some(split) = decompose::split(select) {
        return split.steps(select, engine, targets, limit, skip);
    }
    general(select, engine, targets, limit, skip, plain, kind)
}

/// Place after place; each may have to give all rows of the answer.
fn chain(select: &Select, engine: Engine, targets: Vec<Target>, limit: Option<u64>, skip: u64) -> Steps {
    let most = limit.map(|limit| limit.saturating_add(skip));
    let part = |target: Target| {
        let sql = whole(select, &quoted_name(target.physical()), select.filter.as_ref(), most, 0, engine);
        (target, sql)
    };
    Steps::Chain { parts: targets.into_iter().map(part).collect(), skip, limit }
}

/// All places lie in one database: it can see them as one table.
fn union(select: &Select, targets: &[Target], limit: Option<u64>, skip: u64) -> Steps {
    let columns = read_columns(select, true);
    let list = if columns.is_empty() {
        "1".to_owned()
    } else {
        columns.iter().map(|name| quoted_name(name)).collect::<Vec<_>>().join(", ")
    };
    let parts: Vec<String> =
        targets.iter().map(|target| format!("select {list} from {}", quoted_name(target.physical()))).collect();
    let from = format!("({}) as t", parts.join(" union all "));
    let sql = whole(select, &from, select.filter.as_ref(), limit, skip, Engine::Postgres);
    let target = targets.first().cloned().unwrap_or_else(|| Target::table(select.table.clone()));
    Steps::Direct { target, sql }
}

/// The columns that matter, and the statement itself over them.
fn general(
    select: &Select,
    engine: Engine,
    targets: Vec<Target>,
    limit: Option<u64>,
    skip: u64,
    plain: bool,
    kind: &dyn Fn(&str) -> Option<ColumnType>,
) -> Steps {
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
    let top = limit.filter(|_| plain).map(|limit| limit.saturating_add(skip));
    let body = Body {
        items: &items,
        distinct: ignores_repeats(select),
        filter: select.filter.as_ref(),
        order: if top.is_some() { &select.order } else { &[] },
        limit: top,
        ..Body::EMPTY
    };
    let parts = targets
        .into_iter()
        .map(|target| {
            let sql = body.over(&quoted_name(target.physical()), engine);
            (target, sql)
        })
        .collect();
    let last = whole(select, MERGE_TABLE, None, limit, skip, Engine::Sqlite);
    Steps::Merge { parts, columns, last }
}

/// True when equal rows count once: each aggregate is of distinct values, a minimum or a maximum.
fn ignores_repeats(select: &Select) -> bool {
    let counts_all = any(select, |expr| match expr {
        Expr::Call(call) if call.over.is_some() => true,
        Expr::Call(call) if is_aggregate(&call.name, call.args.len(), call.star) => {
            !call.distinct && call.name != "min" && call.name != "max" && call.name != "range"
        }
        _ => false,
    });
    let some = select.distinct || any(select, |expr| expr.is_aggregate());
    some && !counts_all
}

fn any(select: &Select, matches: fn(&Expr) -> bool) -> bool {
    outputs(select).any(|expr| expr.any(matches))
}

/// All expressions that are computed after rows were chosen.
fn outputs(select: &Select) -> impl Iterator<Item = &Expr> {
    let items = select.items.iter().map(|item| &item.expr);
    items.chain(&select.group).chain(&select.having).chain(select.order.iter().map(|order| &order.expr))
}

fn read_columns(select: &Select, with_filter: bool) -> Vec<String> {
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

/// The parts of a SELECT that is written for an engine.
#[derive(Clone)]
struct Body<'a> {
    items: &'a [(Expr, String)],
    distinct: bool,
    from: &'a str,
    filter: Option<&'a Expr>,
    group: &'a [Expr],
    having: Option<&'a Expr>,
    order: &'a [Order],
    limit: Option<u64>,
    skip: u64,
}

impl Body<'_> {
    const EMPTY: Body<'static> = Body {
        items: &[],
        distinct: false,
        from: "",
        filter: None,
        group: &[],
        having: None,
        order: &[],
        limit: None,
        skip: 0,
    };

    /// The text with another table.
    fn over(&self, from: &str, engine: Engine) -> String {
        Body { from, ..self.clone() }.sql(engine)
    }

    fn sql(&self, engine: Engine) -> String {
        let mut out = String::from(if self.distinct { "select distinct " } else { "select " });
        for (index, (expr, name)) in self.items.iter().enumerate() {
            if index > 0 {
                out.push_str(", ");
            }
            expr.write(engine, &mut out);
            if !matches!(expr, Expr::Column(column) if column == name) {
                out.push_str(" as ");
                out.push_str(&quoted_name(name));
            }
        }
        out.push_str(" from ");
        out.push_str(self.from);
        if let Some(filter) = self.filter {
            out.push_str(" where ");
            filter.write(engine, &mut out);
        }
        if !self.group.is_empty() {
            out.push_str(" group by ");
            write_list(engine, &mut out, self.group);
        }
        if let Some(having) = self.having {
            out.push_str(" having ");
            having.write(engine, &mut out);
        }
        if !self.order.is_empty() {
            out.push_str(" order by ");
            write_order(engine, &mut out, self.order);
        }
        match (self.limit, self.skip, engine) {
            (Some(limit), 0, _) => out.push_str(&format!(" limit {}", limit.min(i64::MAX.unsigned_abs()))),
            (Some(limit), skip, _) => {
                out.push_str(&format!(" limit {} offset {skip}", limit.min(i64::MAX.unsigned_abs())))
            }
            (None, 0, _) => {}
            (None, skip, Engine::Sqlite) => out.push_str(&format!(" limit -1 offset {skip}")),
            (None, skip, Engine::Postgres) => out.push_str(&format!(" offset {skip}")),
        }
        out
    }
}

/// The whole statement over one place.
fn whole(select: &Select, from: &str, filter: Option<&Expr>, limit: Option<u64>, skip: u64, engine: Engine) -> String {
    let items: Vec<(Expr, String)> = select.items.iter().map(|item| (item.expr.clone(), item.name.clone())).collect();
    let body = Body {
        items: &items,
        distinct: select.distinct,
        from,
        filter,
        group: &select.group,
        having: select.having.as_ref(),
        order: &select.order,
        limit,
        skip,
    };
    body.sql(engine)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::bind::bind;
    use crate::sql::{Now, parse};
    use anylog_dbms::{Column, TableSchema};

    const PARTS: [&str; 2] = ["par_t_2026_11_20_d01_ts", "par_t_2026_11_21_d01_ts"];

    fn schema() -> TableSchema {
        let column = |name: &str, kind| Column { name: name.into(), kind, not_null: false, default: None };
        let columns = vec![
            column("ts", ColumnType::Timestamp),
            column("value", ColumnType::Double),
            column("device", ColumnType::Varchar),
        ];
        TableSchema { name: "t".into(), columns, indexes: Vec::new() }
    }

    fn planned(sql: &str, engine: Engine, targets: &[&str]) -> Steps {
        let now = Now { instant: "2026-11-23T05:00:00Z".parse().unwrap(), zone: jiff::tz::TimeZone::UTC };
        let schema = schema();
        let select = bind(parse(sql, &now, None).unwrap(), "d", &schema, &[], &now).unwrap();
        let targets = targets.iter().map(|name| Target::partition("t", *name)).collect();
        plan(&select, engine, targets, &|name| schema.column(name).map(|column| column.kind))
    }

    fn over_parts(sql: &str) -> Steps {
        planned(sql, Engine::Sqlite, &PARTS)
    }

    #[test]
    fn one_place_runs_the_statement_itself() {
        let Steps::Direct { sql, .. } =
            planned("select max(value) as m from t where ts > '2026-11-20'", Engine::Sqlite, &PARTS[..1])
        else {
            panic!("not direct");
        };
        let expected =
            r#"select max("value") as "m" from "par_t_2026_11_20_d01_ts" where ("ts" > '2026-11-20 00:00:00.000000')"#;
        assert_eq!(sql, expected);
    }

    #[test]
    fn rows_without_an_order_come_place_after_place() {
        let Steps::Chain { parts, skip, limit } = over_parts("select value from t limit 5 offset 2") else {
            panic!("not a chain")
        };
        assert_eq!((skip, limit, parts.len()), (2, Some(5), 2));
        assert!(parts[1].1.ends_with("limit 7"), "{}", parts[1].1);
    }

    #[test]
    fn rows_in_the_order_of_time_need_no_merge() {
        let Steps::Chain { parts, .. } = over_parts("select value from t order by ts desc, value") else {
            panic!("not a chain")
        };
        assert_eq!(parts[0].0.physical(), PARTS[1]);
        assert!(matches!(over_parts("select value from t order by value"), Steps::Merge { .. }));
    }

    #[test]
    fn aggregates_are_taken_apart() {
        let Steps::Merge { parts, last, .. } = over_parts("select device, avg(value), count(*) from t group by device")
        else {
            panic!("not a merge");
        };
        let partial = r#"select "device" as "g0", sum(("value" * 1.0)) as "a0", count("value") as "a1", count(*) as "a2" from "par_t_2026_11_20_d01_ts" group by "device""#;
        assert_eq!(parts[0].1, partial);
        assert!(last.ends_with(r#"group by "g0""#), "{last}");
    }

    #[test]
    fn what_cannot_be_taken_apart_reads_only_what_it_needs() {
        let Steps::Merge { parts, .. } = over_parts("select count(distinct device) from t where value > 3") else {
            panic!("not a merge")
        };
        assert_eq!(parts[0].1, r#"select distinct "device" from "par_t_2026_11_20_d01_ts" where ("value" > 3)"#);
        let Steps::Merge { parts, .. } = over_parts("select device from t order by value limit 3") else {
            panic!("not a merge")
        };
        assert!(parts[0].1.ends_with(r#"order by "value" limit 3"#), "{}", parts[0].1);
    }

    #[test]
    fn one_server_sees_all_places_as_one_table() {
        let Steps::Direct { sql, .. } =
            planned("select increments(day, 7, ts), max(value) from t", Engine::Postgres, &PARTS)
        else {
            panic!("not direct");
        };
        assert!(sql.contains(r#"from "par_t_2026_11_20_d01_ts" union all select"#), "{sql}");
        assert!(
            sql.contains(
                "group by date_trunc('month', \"ts\"), cast(floor(floor(extract(day from \"ts\")) / 7) as bigint)"
            ),
            "{sql}"
        );
    }
}
