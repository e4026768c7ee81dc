//! The places that may hold rows of an answer.

use anylog_dbms::Target;
use anylog_dbms::partition::PartitionName;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::sql::Moment;
use crate::sql::expr::Expr;

/// The table itself and those of its partitions whose time may satisfy the condition. Only conditions that `and` joins count; the
/// table itself has no time and is always asked.
pub(crate) fn targets(table: &str, partitions: Vec<String>, filter: Option<&Expr>) -> Vec<Target> {
    let kept = partitions.into_iter().filter(|name| may_hold(name, filter));
    std::iter::once(Target::table(table)).chain(kept.map(|name| Target::partition(table, name))).collect()
}

/// The places in the order of a time column, when each holds an interval of its own; else none.
pub(crate) fn in_time_order(targets: &[Target], column: &str, descending: bool) -> Option<Vec<Target>> {
    let mut ranges = Vec::with_capacity(targets.len());
    for target in targets {
        let name = PartitionName::parse(target.partition.as_deref()?)?;
        if name.column != column {
            return None;
        }
        ranges.push((name.range()?, target.clone()));
    }
    ranges.sort_by_key(|((from, _), _)| *from);
    if ranges.windows(2).any(|pair| pair[0].0.1 > pair[1].0.0) {
        return None;
    }
    if descending {
        ranges.reverse();
    }
    Some(ranges.into_iter().map(|(_, target)| target).collect())
}

fn may_hold(partition: &str, filter: Option<&Expr>) -> bool {
    let Some(filter) = filter else { return true };
    let Some(name) = PartitionName::parse(partition) else { return true };
    let Some((from, until)) = name.range() else { return true };
    filter.terms().into_iter().all(|term| satisfiable(term, &name.column, from, until))
}

/// False only when no time in `from..until` satisfies the condition.
fn satisfiable(term: &Expr, column: &str, from: Timestamp, until: Timestamp) -> bool {
    let is_column = |expr: &Expr| matches!(expr, Expr::Column(name) if name == column);
    let instant = |expr: &Expr| match expr {
        Expr::Text(text) => Moment::parse(text, &TimeZone::UTC)?.instant(),
        _ => None,
    };
    let compare = |op: &str, bound: Timestamp| match op {
        "<" => from < bound,
        "<=" => from <= bound,
        // Bounds are whole microseconds like stored times, so one that is `until` itself leaves nothing below it.
        ">" | ">=" => bound < until,
        "=" => from <= bound && bound < until,
        _ => true,
    };
    match term {
        Expr::Binary(left, op, right) if is_column(left) => instant(right).is_none_or(|bound| compare(op, bound)),
        Expr::Binary(left, op, right) if is_column(right) => {
            let turned = match *op {
                "<" => ">",
                "<=" => ">=",
                ">" => "<",
                ">=" => "<=",
                other => other,
            };
            instant(left).is_none_or(|bound| compare(turned, bound))
        }
        Expr::Between { expr, negated: false, low, high } if is_column(expr) => {
            instant(low).is_none_or(|low| compare(">=", low)) && instant(high).is_none_or(|high| compare("<=", high))
        }
        Expr::In { expr, negated: false, list } if is_column(expr) => {
            list.iter().any(|value| instant(value).is_none_or(|bound| compare("=", bound)))
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_have_an_order_when_they_do_not_overlap() {
        let targets: Vec<Target> = NAMES.iter().map(|name| Target::partition("t", *name)).collect();
        let mut turned = targets.clone();
        turned.reverse();
        assert_eq!(in_time_order(&turned, "ts", false), Some(targets.clone()));
        assert_eq!(in_time_order(&targets, "ts", true), Some(turned));
        assert_eq!(in_time_order(&targets, "value", true), None);
        let overlapping = [targets[0].clone(), Target::partition("t", "par_t_2026_11_01_d07_ts")];
        assert_eq!(in_time_order(&overlapping, "ts", false), None);
        assert_eq!(in_time_order(&[Target::table("t")], "ts", false), None);
    }

    const NAMES: [&str; 3] = ["par_t_2026_11_00_d14_ts", "par_t_2026_11_01_d14_ts", "par_t_2026_11_02_d14_ts"];

    fn kept(filter: Expr) -> Vec<usize> {
        let targets = targets("t", NAMES.map(str::to_owned).to_vec(), Some(&filter));
        assert_eq!(targets[0], Target::table("t"), "the table itself is always asked");
        let names: Vec<&str> = targets[1..].iter().map(Target::physical).collect();
        (0..3).filter(|index| names.contains(&NAMES[*index])).collect()
    }

    fn ts(op: &'static str, day: &str) -> Expr {
        Expr::binary(Expr::Column("ts".into()), op, Expr::Text(format!("{day} 00:00:00.000000")))
    }

    #[test]
    fn conditions_on_the_time_leave_partitions_out() {
        assert_eq!(kept(ts(">=", "2026-11-15")), [1, 2]);
        assert_eq!(kept(ts("<", "2026-11-15")), [0]);
        assert_eq!(kept(ts("<=", "2026-11-15")), [0, 1]);
        assert_eq!(kept(ts("=", "2026-11-29")), [2]);
        assert_eq!(kept(ts(">", "2026-12-01")), [] as [usize; 0]);
        assert_eq!(kept(Expr::binary(ts(">", "2026-11-10"), "and", ts("<", "2026-11-20"))), [0, 1]);
        assert_eq!(kept(Expr::binary(ts(">", "2026-12-01"), "or", ts("<", "2020-01-01"))), [0, 1, 2]);
        let other = Expr::binary(Expr::Column("value".into()), "=", Expr::Text("2020-01-01".into()));
        assert_eq!(kept(other), [0, 1, 2]);
    }
}
