//! From a checked statement to what runs where.
//!
//! A logical table lies in many places: on nodes, and on each node in the table itself, usually empty, and its partitions. The
//! answer is the same as if all rows lay in one table. How a statement is [`Divided`] depends on the statement alone:
//!
//! | | for | each place | together |
//! |---|---|---|---|
//! | rows | no aggregate, group, order | its rows | one after the other, limit counted over all |
//! | sorted | the same with an order | its rows in order | merged while they stream |
//! | merge, decomposed | count, sum, min, max, avg, range, group by | partial aggregates | aggregates of aggregates |
//! | merge, general | everything else | the columns and rows that matter | the statement itself over them |
//!
//! The places of one node get [`Steps`]: what one place or one server can answer goes there whole ([`Steps::Direct`]), and an order by
//! the time that splits a table is kept by reading place after place ([`Steps::Chain`]).

mod apart;
mod body;
mod decompose;
mod divide;
mod fold;
mod prune;

use anylog_dbms::{ColumnType, Target};

use crate::sql::bind::{Item, Select};
use crate::sql::expr::{Call, Expr, Order, Tongue, quoted_name};
use crate::sql::functions::is_aggregate;
use body::whole;
pub(crate) use divide::{Divided, Key, Merge, MergeColumn, Part, divide, read_columns};
pub(crate) use fold::{Aggregate, Fold, Value};
pub(crate) use prune::targets;

/// What stands for the table of intermediate rows in the last statement of a merge.
pub(crate) const MERGE_TABLE: &str = "\u{1}merge\u{1}";

/// Places that are read side by side to merge their rows in order; each holds a reader.
const MOST_SORTED: usize = 64;

/// Partitions that one statement of a server names when it need not name all: it holds a lock on each and on each of its indexes, of which
/// the server has some thousands for all its statements together.
const MOST_UNITED: usize = 128;

/// The work of a query on one node.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Steps {
    /// One statement in one place. A statement that groups has another form too, which a reader may group.
    Direct { target: Target, sql: String, grouped: Option<Box<Merge>> },
    /// One place after another; `skip` and `limit` count over all.
    Chain { parts: Vec<(Target, String)>, skip: u64, limit: Option<u64> },
    /// The greatest or least time, which is in the first place that has any.
    Extreme { parts: Vec<(Target, String)> },
    /// Rows of all places in order; only the first `width` columns are part of the answer.
    Sorted { parts: Vec<(Target, String)>, keys: Vec<Key>, width: usize, skip: u64, limit: Option<u64> },
    /// Statements in all places, whose rows are put together elsewhere.
    Loose { parts: Vec<(Target, String)> },
    /// Statements in all places, whose rows are then put together.
    Merge { parts: Vec<(Target, String)>, merge: Box<Merge> },
}

impl Steps {
    /// The statements of all places.
    fn parts(&self) -> &[(Target, String)] {
        match self {
            Self::Direct { .. } => &[],
            Self::Chain { parts, .. }
            | Self::Extreme { parts }
            | Self::Loose { parts }
            | Self::Sorted { parts, .. }
            | Self::Merge { parts, .. } => parts,
        }
    }

    /// The statement of the first place, for `query explain`.
    pub(crate) fn remote(&self) -> &str {
        match self {
            Self::Direct { sql, .. } => sql,
            other => other.parts().first().map_or("", |(_, sql)| sql),
        }
    }

    /// The number of places.
    pub(crate) fn places(&self) -> usize {
        self.parts().len().max(1)
    }
}

/// Runs a statement in each place, whose rows another node puts together: they may come in several pieces for a group.
pub(crate) fn loose(select: &Select, engine: Tongue, targets: Vec<Target>) -> Steps {
    let sql = |target: &Target| whole(select, &quoted_name(target.physical()), select.filter.as_ref(), None, 0, engine);
    Steps::Loose { parts: with_sql(targets, sql) }
}

/// Plans a statement over places that hold its rows. There is always one: the table itself.
pub(crate) fn plan(
    select: &Select,
    engine: Tongue,
    targets: Vec<Target>,
    kind: &dyn Fn(&str) -> Option<ColumnType>,
) -> Steps {
    let (limit, skip) = counted(select);
    if let [target] = targets.as_slice() {
        let sql = whole(select, &quoted_name(target.physical()), select.filter.as_ref(), limit, skip, engine);
        return single(select, engine, target, sql, kind);
    }
    let mut targets = targets;
    if let Some(Order { expr: Expr::Column(column), descending, .. }) = select.order.first()
        && is_plain(select)
        && let Some(ordered) = prune::in_time_order(&targets, column, *descending)
    {
        let sql = |target: &Target| {
            let most = limit.map(|limit| limit.saturating_add(skip));
            whole(select, &quoted_name(target.physical()), select.filter.as_ref(), most, 0, engine)
        };
        targets = ordered;
        return Steps::Chain { parts: with_sql(targets, sql), skip, limit };
    }
    if let Some(ordered) = extreme(select, &targets) {
        let sql =
            |target: &Target| whole(select, &quoted_name(target.physical()), select.filter.as_ref(), None, 0, engine);
        return Steps::Extreme { parts: with_sql(ordered, sql) };
    }
    let divided = divide(select, kind);
    if engine == Tongue::Postgres && !matches!(divided, Divided::Rows { .. }) {
        return match divided {
            Divided::Merge(merge) if merge.fold.is_some() && targets.len() > MOST_UNITED => {
                unions(select, &targets, merge)
            }
            _ => union(select, &targets, limit, skip),
        };
    }
    match divided {
        Divided::Rows { part, skip, limit } => {
            Steps::Chain { parts: with_sql(targets, |target| part.sql(target.physical(), engine)), skip, limit }
        }
        Divided::Sorted { .. } if targets.len() > MOST_SORTED => {
            let merge = Box::new(divide::general(select, kind));
            Steps::Merge { parts: with_sql(targets, |target| merge.part.sql(target.physical(), engine)), merge }
        }
        Divided::Sorted { part, keys, width, skip, limit } => {
            let parts = with_sql(targets, |target| part.sql(target.physical(), engine));
            Steps::Sorted { parts, keys, width, skip, limit }
        }
        Divided::Merge(merge) => {
            let sql = |target: &Target| {
                let apart = apart::sql(&merge.part, target.physical(), kind).filter(|_| engine == Tongue::Sqlite);
                apart.unwrap_or_else(|| merge.part.sql(target.physical(), engine))
            };
            Steps::Merge { parts: with_sql(targets, sql), merge }
        }
    }
}

/// The whole statement in its only place.
fn single(
    select: &Select,
    engine: Tongue,
    target: &Target,
    sql: String,
    kind: &dyn Fn(&str) -> Option<ColumnType>,
) -> Steps {
    let direct = |grouped| Steps::Direct { target: target.clone(), sql, grouped };
    if engine != Tongue::Sqlite || is_plain(select) {
        return direct(None);
    }
    match divide(select, kind) {
        Divided::Merge(merge) if merge.fold.is_some() && merge.part.group.is_empty() => {
            match apart::sql(&merge.part, target.physical(), kind) {
                Some(sql) => Steps::Merge { parts: vec![(target.clone(), sql)], merge },
                None => direct(None),
            }
        }
        Divided::Merge(merge) if merge.fold.is_some() => direct(Some(merge)),
        _ => direct(None),
    }
}

/// The places in the order in which they may hold the value of a lone `max` or `min` of the time that splits the table.
fn extreme(select: &Select, targets: &[Target]) -> Option<Vec<Target>> {
    let alone = select.group.is_empty() && select.having.is_none() && select.order.is_empty() && !select.distinct;
    let [Item { expr: Expr::Call(Call { name, args, distinct: false, over: None, .. }), .. }] = select.items.as_slice()
    else {
        return None;
    };
    let [Expr::Column(column)] = args.as_slice() else { return None };
    let alone = alone && select.limit.is_none() && select.offset == 0 && matches!(name.as_str(), "min" | "max");
    prune::in_time_order(targets, column, name == "max").filter(|_| alone)
}

fn with_sql(targets: Vec<Target>, sql: impl Fn(&Target) -> String) -> Vec<(Target, String)> {
    targets
        .into_iter()
        .map(|target| {
            let sql = sql(&target);
            (target, sql)
        })
        .collect()
}

/// Limit and offset as they count over all rows. With `limit n per column` the rows are counted where they are shown.
fn counted(select: &Select) -> (Option<u64>, u64) {
    if select.per.is_some() { (None, 0) } else { (select.limit, select.offset) }
}

/// All places lie in one database: it can see them as one table.
fn union(select: &Select, targets: &[Target], limit: Option<u64>, skip: u64) -> Steps {
    let sql = whole(select, &united(select, targets), select.filter.as_ref(), limit, skip, Tongue::Postgres);
    let target = targets.first().cloned().unwrap_or_else(|| Target::table(select.table.clone()));
    Steps::Direct { target, sql, grouped: None }
}

/// It sees some of them at a time, and their groups are put together here.
fn unions(select: &Select, targets: &[Target], merge: Box<Merge>) -> Steps {
    let part = |targets: &[Target]| {
        // Not the name of one partition: when one of them is gone, the others are not.
        (Target::table(select.table.clone()), merge.part.sql_from(&united(select, targets), Tongue::Postgres))
    };
    let parts = targets.chunks(MOST_UNITED).map(part).collect();
    Steps::Merge { parts, merge }
}

/// The rows of several places as those of one table.
fn united(select: &Select, targets: &[Target]) -> String {
    let columns = read_columns(select, true);
    let list = if columns.is_empty() {
        "1".to_owned()
    } else {
        columns.iter().map(|name| quoted_name(name)).collect::<Vec<_>>().join(", ")
    };
    let parts: Vec<String> =
        targets.iter().map(|target| format!("select {list} from {}", quoted_name(target.physical()))).collect();
    format!("({}) as t", parts.join(" union all "))
}

/// True when each row of the answer is one row of the table.
fn is_plain(select: &Select) -> bool {
    let grouped = any(select, |expr| expr.is_aggregate()) || !select.group.is_empty() || select.having.is_some();
    !grouped && !select.distinct && !has_windows(select)
}

fn has_windows(select: &Select) -> bool {
    any(select, |expr| matches!(expr, Expr::Call(call) if call.over.is_some()))
}

fn any(select: &Select, matches: fn(&Expr) -> bool) -> bool {
    outputs(select).any(|expr| expr.any(matches))
}

/// All expressions that are computed after rows were chosen.
fn outputs(select: &Select) -> impl Iterator<Item = &Expr> {
    let items = select.items.iter().map(|item| &item.expr);
    items.chain(&select.group).chain(&select.having).chain(select.order.iter().map(|order| &order.expr))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::bind::{Scope, bind};
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

    fn planned(sql: &str, engine: Tongue, targets: &[&str]) -> Steps {
        let now = Now { instant: "2026-11-23T05:00:00Z".parse().unwrap(), zone: jiff::tz::TimeZone::UTC };
        let schema = schema();
        let select = bind(parse(sql, &now, None).unwrap(), &Scope::new("d", &schema), &now).unwrap();
        let targets = targets.iter().map(|name| Target::partition("t", *name)).collect();
        plan(&select, engine, targets, &|name| schema.column(name).map(|column| column.kind))
    }

    fn over_parts(sql: &str) -> Steps {
        planned(sql, Tongue::Sqlite, &PARTS)
    }

    #[test]
    fn one_place_runs_the_statement_itself() {
        let Steps::Direct { sql, .. } =
            planned("select max(value) as m from t where ts > '2026-11-20'", Tongue::Sqlite, &PARTS[..1])
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
        assert!(matches!(over_parts("select value from t order by value"), Steps::Sorted { .. }));
    }

    #[test]
    fn aggregates_are_taken_apart() {
        let Steps::Merge { parts, merge } = over_parts("select device, avg(value), count(*) from t group by device")
        else {
            panic!("not a merge");
        };
        let partial = r#"select "device" as "g0", sum("value") as "a0", count("value") as "a1", count(*) as "a2" from "par_t_2026_11_20_d01_ts" group by "device""#;
        assert_eq!(parts[0].1, partial);
        assert!(merge.last.ends_with(r#"group by "g0""#), "{}", merge.last);
    }

    #[test]
    fn what_cannot_be_taken_apart_reads_only_what_it_needs() {
        let Steps::Merge { parts, .. } = over_parts("select count(distinct device) from t where value > 3") else {
            panic!("not a merge")
        };
        let different =
            r#"select "device" as "d0" from "par_t_2026_11_20_d01_ts" where ("value" > 3) group by "device""#;
        assert_eq!(parts[0].1, different);
        let Steps::Merge { parts, .. } = over_parts("select stddev(value), round(variance(value)) from t") else {
            panic!("not a merge")
        };
        assert!(parts[0].1.starts_with(r#"select "value" from"#), "{}", parts[0].1);
        let Steps::Merge { parts, .. } = over_parts("select device, stddev(value) from t group by device") else {
            panic!("not a merge")
        };
        assert!(parts[0].1.contains(r#"moments("value")"#), "{}", parts[0].1);
        let Steps::Merge { parts, .. } = over_parts("select sum(distinct value) from t") else { panic!("not a merge") };
        assert_eq!(parts[0].1, r#"select distinct "value" from "par_t_2026_11_20_d01_ts""#);
        let Steps::Sorted { parts, width, .. } = over_parts("select device from t order by value limit 3") else {
            panic!("not sorted")
        };
        assert!(parts[0].1.ends_with(r#"order by "value" nulls first limit 3"#), "{}", parts[0].1);
        assert_eq!(width, 1);
    }

    #[test]
    fn one_server_sees_hundreds_of_places_in_groups() {
        let names: Vec<String> = (0..300).map(|n| format!("par_t_{}_y01_ts", 2000 + n)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let Steps::Merge { parts, .. } =
            planned("select device, count(*) from t group by device", Tongue::Postgres, &names)
        else {
            panic!("not a merge");
        };
        assert_eq!(parts.len(), 3);
        assert!(parts.iter().all(|(target, _)| target.partition.is_none()));
        assert!(parts[2].1.ends_with(r#"from "par_t_2299_y01_ts") as t group by "device""#), "{}", parts[2].1);
        let whole = planned("select device from t order by value", Tongue::Postgres, &names);
        assert!(matches!(whole, Steps::Direct { .. }));
    }

    #[test]
    fn one_server_sees_all_places_as_one_table() {
        let Steps::Direct { sql, .. } =
            planned("select increments(day, 7, ts), max(value) from t", Tongue::Postgres, &PARTS)
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
