//! The functions that a statement may call, and their text for each engine.
//!
//! The list is closed: a caller with read access must not reach functions of an engine that read files, sleep or change settings.

use anylog_dbms::ColumnType;

use super::expr::{Call, Expr, Tongue, write_list, write_order};
use crate::QueryError;

/// Aggregates that are taken apart over several places.
const DECOMPOSED: &[&str] = &["count", "sum", "min", "max", "avg", "range"];

/// Aggregates that need all rows in one place. `moments` is what nodes ask each other for to compute those of [`SPREAD`].
const WHOLE: &[&str] = &["total", "group_concat", "string_agg", "moments", "bool_and", "bool_or"];

/// Variance and its root, which are computed from moments.
const SPREAD: &[&str] = &["stddev", "stddev_pop", "stddev_samp", "variance", "var_pop", "var_samp"];

/// Functions of one row.
const SCALAR: &[&str] = &[
    "abs",
    "bucket",
    "ceil",
    "char_length",
    "coalesce",
    "concat",
    "concat_ws",
    "cos",
    "date_part",
    "date_trunc",
    "degrees",
    "exp",
    "extract",
    "floor",
    "greatest",
    "ifnull",
    "iif",
    "instr",
    "json_extract",
    "least",
    "length",
    "ln",
    "log",
    "log10",
    "lower",
    "ltrim",
    "max",
    "min",
    "mod",
    "nullif",
    "octet_length",
    "pi",
    "power",
    "radians",
    "replace",
    "round",
    "rtrim",
    "sign",
    "sin",
    "sqrt",
    "strftime",
    "strpos",
    "substr",
    "substring",
    "tan",
    "to_char",
    "trim",
    "trunc",
    "unicode",
    "upper",
];

/// Functions that need `over`.
const WINDOW: &[&str] = &[
    "row_number",
    "rank",
    "dense_rank",
    "percent_rank",
    "cume_dist",
    "ntile",
    "lag",
    "lead",
    "first_value",
    "last_value",
    "nth_value",
];

/// The units of `extract` and `date_trunc`.
const UNITS: &[&str] = &["second", "minute", "hour", "day", "week", "month", "year", "dow", "doy", "epoch"];

/// True for functions that take many rows to one value. `min` and `max` of several arguments look at one row.
pub(crate) fn is_aggregate(name: &str, args: usize, star: bool) -> bool {
    match name {
        "min" | "max" => args == 1,
        "count" => star || args == 1,
        _ => DECOMPOSED.contains(&name) || WHOLE.contains(&name) || SPREAD.contains(&name),
    }
}

/// True for aggregates whose value is a function of the values over disjoint parts.
pub(crate) fn is_decomposed(call: &Call) -> bool {
    DECOMPOSED.contains(&call.name.as_str()) && call.aggregates() && !call.distinct && call.over.is_none()
}

/// True for a variance or its root over all values.
pub(crate) fn is_spread(call: &Call) -> bool {
    SPREAD.contains(&call.name.as_str()) && !call.distinct && call.over.is_none()
}

/// Whether a spread is of a sample, and whether it is the root.
pub(crate) fn spread(name: &str) -> Option<(bool, bool)> {
    SPREAD.contains(&name).then(|| (!name.ends_with("_pop"), name.starts_with("stddev")))
}

/// Checks the name and the shape of a call.
pub(crate) fn check(call: &Call) -> Result<(), QueryError> {
    let name = call.name.as_str();
    let known = [DECOMPOSED, WHOLE, SPREAD, SCALAR, WINDOW];
    if !known.iter().any(|names| names.contains(&name)) {
        let names = known.iter().flat_map(|names| names.iter().copied()).chain(["increments", "period", "now"]);
        let nearest = anylog_core::error::nearest(name, names).map(str::to_owned);
        return Err(QueryError::UnknownFunction { function: call.name.clone(), nearest });
    }
    if WINDOW.contains(&name) && call.over.is_none() {
        return Err(QueryError::syntax(format!("{name}() needs a window: {name}() over (order by <column>)")));
    }
    if call.over.is_some() && !WINDOW.contains(&name) && !call.aggregates() {
        return Err(QueryError::syntax(format!("{name}() takes no window")));
    }
    if call.star && name != "count" {
        return Err(QueryError::syntax(format!("{name}(*): only count takes a star")));
    }
    let one = matches!(name, "sum" | "avg" | "range" | "floor" | "ceil" | "total" | "moments")
        || SPREAD.contains(&name)
        || (name == "count" && !call.star);
    if one && call.args.len() != 1 {
        return Err(QueryError::syntax(format!("{name}() takes one argument, {} were given", call.args.len())));
    }
    if matches!(name, "extract" | "date_trunc" | "date_part" | "bucket") {
        check_unit(call)?;
    }
    // SQLite has neither: their text for it repeats the argument.
    if matches!(name, "floor" | "ceil") && call.args.iter().any(|arg| rounding_depth(arg) > 1) {
        return Err(QueryError::unsupported("floor and ceil inside each other", "round once"));
    }
    Ok(())
}

fn rounding_depth(expr: &Expr) -> usize {
    let own = usize::from(matches!(expr, Expr::Call(call) if matches!(call.name.as_str(), "floor" | "ceil")));
    own + expr.children().into_iter().map(rounding_depth).max().unwrap_or(0)
}

fn check_unit(call: &Call) -> Result<(), QueryError> {
    match call.args.as_slice() {
        [Expr::Text(unit), _, Expr::Number(_)] if call.name == "bucket" && UNITS.contains(&unit.as_str()) => Ok(()),
        [Expr::Text(unit), _] if call.name != "bucket" && UNITS.contains(&unit.as_str()) => Ok(()),
        [Expr::Text(unit), ..] => {
            Err(QueryError::syntax(format!("{}: '{unit}' is not one of {}", call.name, UNITS.join(", "))))
        }
        _ => Err(QueryError::syntax(format!("{} takes a unit in quotes and a column", call.name))),
    }
}

/// The type of a call's value, when it is known; `of` tells the type of an argument.
pub(crate) fn type_of(call: &Call, of: &dyn Fn(&Expr) -> Option<ColumnType>) -> Option<ColumnType> {
    let first = || call.args.first().and_then(of);
    match call.name.as_str() {
        "count" | "row_number" | "rank" | "dense_rank" | "ntile" | "length" | "char_length" | "instr" | "strpos" => {
            Some(ColumnType::BigInt)
        }
        "avg" | "total" | "sqrt" | "exp" | "ln" | "log" | "log10" | "percent_rank" | "cume_dist" => {
            Some(ColumnType::Double)
        }
        name if SPREAD.contains(&name) => Some(ColumnType::Double),
        "sum" | "range" => match first()? {
            ColumnType::Serial | ColumnType::Int => Some(ColumnType::BigInt),
            kind @ (ColumnType::BigInt | ColumnType::Double | ColumnType::Decimal) => Some(kind),
            _ => None,
        },
        "min" | "max" | "greatest" | "least" | "coalesce" | "ifnull" | "nullif" | "abs" | "lag" | "lead"
        | "first_value" | "last_value" | "nth_value" => first(),
        "bucket" => Some(ColumnType::BigInt),
        "date_trunc" => Some(ColumnType::Timestamp),
        "bool_and" | "bool_or" => Some(ColumnType::Boolean),
        "lower" | "upper" | "concat" | "concat_ws" | "substr" | "substring" | "trim" | "ltrim" | "rtrim"
        | "replace" | "to_char" | "strftime" | "group_concat" | "string_agg" | "moments" => Some(ColumnType::Varchar),
        _ => None,
    }
}

/// Writes a call for an engine.
pub(crate) fn write(call: &Call, engine: Tongue, out: &mut String) {
    match (call.name.as_str(), call.args.as_slice()) {
        ("range", [of]) if engine != Tongue::Dialect => {
            let of = of.sql(engine);
            out.push_str(&format!("abs(max({of}) - min({of}))"));
        }
        ("moments", [of]) if engine == Tongue::Postgres => {
            let of = format!("cast({} as double precision)", of.sql(engine));
            out.push_str(&format!("(count({of}) || ' ' || avg({of}) || ' ' || (var_pop({of}) * count({of})))"));
        }
        ("extract" | "date_part", [unit, of]) if engine == Tongue::Dialect => {
            out.push_str("date_part(");
            write_list(engine, out, &[unit.clone(), of.clone()]);
            out.push(')');
        }
        ("extract" | "date_part", [Expr::Text(unit), of]) => extract(unit, &of.sql(engine), engine, out),
        // Which interval inside the next larger unit: the whole part first, so that 59.6 seconds belong to second 59.
        ("bucket", [Expr::Text(unit), of, Expr::Number(count)]) if engine != Tongue::Dialect => {
            let mut part = String::new();
            extract(unit, &of.sql(engine), engine, &mut part);
            out.push_str(&if engine == Tongue::Sqlite {
                format!("(cast({part} as integer) / {count})")
            } else {
                format!("cast(floor(floor({part}) / {count}) as bigint)")
            });
        }
        ("floor" | "ceil", [of]) if engine == Tongue::Sqlite => {
            let of = of.sql(engine);
            out.push_str(&if call.name == "floor" {
                format!("(cast({of} as integer) - ({of} < cast({of} as integer)))")
            } else {
                format!("(cast({of} as integer) + ({of} > cast({of} as integer)))")
            });
        }
        ("date_trunc", [Expr::Text(unit), of]) if engine == Tongue::Sqlite => truncate(unit, &of.sql(engine), out),
        (name, args) => {
            let name = match (name, engine) {
                // Truth values are 0 and 1 there.
                ("greatest" | "bool_or", Tongue::Sqlite) => "max",
                ("least" | "bool_and", Tongue::Sqlite) => "min",
                ("max", Tongue::Postgres) if args.len() > 1 => "greatest",
                ("min", Tongue::Postgres) if args.len() > 1 => "least",
                ("ifnull", Tongue::Postgres) => "coalesce",
                ("group_concat", Tongue::Postgres) => "string_agg",
                ("instr", Tongue::Postgres) => "strpos",
                ("strpos", Tongue::Sqlite) => "instr",
                ("char_length", Tongue::Sqlite) => "length",
                (name, _) => name,
            };
            out.push_str(name);
            out.push('(');
            if call.distinct {
                out.push_str("distinct ");
            }
            if call.star {
                out.push('*');
            }
            write_list(engine, out, args);
            out.push(')');
        }
    }
    if let Some(over) = &call.over {
        out.push_str(" over (");
        if !over.partition.is_empty() {
            out.push_str("partition by ");
            write_list(engine, out, &over.partition);
        }
        if !over.order.is_empty() {
            out.push_str(if over.partition.is_empty() { "order by " } else { " order by " });
            write_order(engine, out, &over.order);
        }
        out.push(')');
    }
}

/// Times are stored in SQLite as `YYYY-MM-DD HH:MM:SS.ffffff`, so their parts are cut out of the text. The engine's own
/// functions round to milliseconds, which moves a time at the end of a second into the next.
fn extract(unit: &str, of: &str, engine: Tongue, out: &mut String) {
    if engine == Tongue::Postgres {
        out.push_str(&format!("extract({unit} from {of})"));
        return;
    }
    out.push_str(&match unit {
        "year" => format!("cast(substr({of}, 1, 4) as integer)"),
        "month" => format!("cast(substr({of}, 6, 2) as integer)"),
        "day" => format!("cast(substr({of}, 9, 2) as integer)"),
        "hour" => format!("cast(substr({of}, 12, 2) as integer)"),
        "minute" => format!("cast(substr({of}, 15, 2) as integer)"),
        "second" => format!("cast(substr({of}, 18) as real)"),
        "dow" => format!("cast(strftime('%w', {of}) as integer)"),
        "doy" => format!("cast(strftime('%j', {of}) as integer)"),
        "week" => format!("cast(strftime('%V', {of}) as integer)"),
        _ => format!("cast(strftime('%s', {of}) as integer)"),
    });
}

/// What of `YYYY-MM-DD HH:MM:SS.ffffff` stays, and what follows it.
pub(crate) fn truncated(unit: &str) -> Option<(usize, &'static str)> {
    Some(match unit {
        "second" => (19, ".000000"),
        "minute" => (16, ":00.000000"),
        "hour" => (13, ":00:00.000000"),
        "day" => (10, " 00:00:00.000000"),
        "month" => (7, "-01 00:00:00.000000"),
        "year" => (4, "-01-01 00:00:00.000000"),
        _ => return None,
    })
}

fn truncate(unit: &str, of: &str, out: &mut String) {
    match truncated(unit) {
        Some((length, rest)) => out.push_str(&format!("(substr({of}, 1, {length}) || '{rest}')")),
        // The Monday on or before the day.
        None => out.push_str(&format!("(date(substr({of}, 1, 10), '-6 days', 'weekday 1') || ' 00:00:00.000000')")),
    }
}
