//! Inner queries: `where device = {select device from alarms where level > 3}`.
//!
//! The inner query runs first, and its values take its place as a list: `=` holds for any of them, `!=` for none. They are those of
//! its first column, or of the one that stands in brackets behind it: `{select .. (column)}`.

use anylog_dbms::{ColumnType, SqlValue};
use jiff::tz::TimeZone;

use super::expr::quoted_text;
use super::scan::{Kind, Token, scan};
use super::{Moment, Now, parse};
use crate::QueryError;
use crate::execute::Row;

/// The most values of an inner query.
const MOST_VALUES: usize = 5_000;

/// An inner query that has none inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inner {
    /// Its statement.
    pub(crate) sql: String,
    /// The column whose values count; the first one when none is named.
    pub(crate) column: Option<String>,
    /// The bytes of the outer statement that its values replace.
    start: usize,
    end: usize,
    compares: Compares,
}

/// How a column is compared with the values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compares {
    /// `=`, and `!=`.
    List { negated: bool },
    /// `in`, which is there already.
    In,
    /// `<` and its like: there must be one value.
    One,
}

/// The first inner query of a statement.
pub(crate) fn find(text: &str, now: &Now) -> Result<Option<Inner>, QueryError> {
    let tokens = scan(text)?;
    let Some(close) = tokens.iter().position(|token| token.symbol("}")) else {
        let open = tokens.iter().any(|token| token.symbol("{"));
        return if open { Err(QueryError::syntax("a bracket '{' is not closed")) } else { Ok(None) };
    };
    let open = tokens[..close].iter().rposition(|token| token.symbol("{"));
    let open = open.ok_or_else(|| QueryError::syntax("a bracket '}' was not opened"))?;
    let form =
        || QueryError::syntax("an inner query stands behind a comparison: where device = {select device from ..}");
    let before = open.checked_sub(1).and_then(|index| tokens.get(index)).ok_or_else(form)?;
    let compares = match before.text.as_str() {
        "=" | "==" => Compares::List { negated: false },
        "!=" | "<>" => Compares::List { negated: true },
        "in" if before.kind == Kind::Word => Compares::In,
        "<" | "<=" | ">" | ">=" => Compares::One,
        _ => return Err(form()),
    };
    let start = if matches!(compares, Compares::List { .. }) { before.start } else { tokens[open].start };
    let (sql, column) = statement(text, &tokens[open + 1..close], now)?;
    Ok(Some(Inner { sql, column, start, end: tokens[close].end, compares }))
}

/// The statement between the brackets, and the column that is named behind it.
fn statement(text: &str, tokens: &[Token], now: &Now) -> Result<(String, Option<String>), QueryError> {
    let of = |tokens: &[Token]| {
        let range = tokens.first().map_or(0, |token| token.start)..tokens.last().map_or(0, |token| token.end);
        text.get(range).unwrap_or_default().to_owned()
    };
    let whole = of(tokens);
    let error = match parse(&whole, now, None) {
        Ok(_) => return Ok((whole, None)),
        Err(error) => error,
    };
    // A name in brackets behind a statement is not part of it.
    if let [sql @ .., opens, column, closes] = tokens
        && opens.symbol("(")
        && closes.symbol(")")
        && matches!(column.kind, Kind::Word | Kind::Quoted)
        && parse(&of(sql), now, None).is_ok()
    {
        return Ok((of(sql), Some(column.text.trim_matches('"').to_owned())));
    }
    Err(error)
}

impl Inner {
    /// The outer statement with the values in the place of the inner query.
    pub(crate) fn filled(
        &self,
        text: &str,
        rows: &[Row],
        column: usize,
        kind: Option<ColumnType>,
    ) -> Result<String, QueryError> {
        let mut values: Vec<String> = rows.iter().filter_map(|row| literal(row.get(column)?, kind)).collect();
        values.sort_unstable();
        values.dedup();
        if values.len() > MOST_VALUES {
            return Err(QueryError::unsupported(
                format!("an inner query with more than {MOST_VALUES} values"),
                "narrow the inner query with where or limit",
            ));
        }
        let list = || if values.is_empty() { "null".to_owned() } else { values.join(", ") };
        let filled = match self.compares {
            Compares::List { negated: false } => format!("in ({})", list()),
            // What has a value differs from all of none.
            Compares::List { negated: true } if values.is_empty() => "is not null".to_owned(),
            Compares::List { negated: true } => format!("not in ({})", list()),
            Compares::In => format!("({})", list()),
            Compares::One if values.len() > 1 => {
                return Err(QueryError::unsupported(
                    format!("a comparison with the {} values of an inner query", values.len()),
                    "compare with one value: {select max(column) from ..}, or use = for any of them",
                ));
            }
            Compares::One => list(),
        };
        let (before, after) = (text.get(..self.start).unwrap_or_default(), text.get(self.end..).unwrap_or_default());
        Ok(format!("{before} {filled} {after}"))
    }
}

/// A value as it is written in a statement; none for NULL.
fn literal(value: &SqlValue, kind: Option<ColumnType>) -> Option<String> {
    Some(match value {
        SqlValue::Null => return None,
        SqlValue::Bool(value) => value.to_string(),
        SqlValue::Int(value) if kind == Some(ColumnType::Boolean) => (*value != 0).to_string(),
        SqlValue::Int(value) => value.to_string(),
        SqlValue::Float(value) if value.is_finite() => format!("{value:?}"),
        SqlValue::Float(_) => return None,
        // Stored times are UTC, those of a statement local.
        SqlValue::Text(text) if kind == Some(ColumnType::Timestamp) => {
            let moment = Moment::parse(text, &TimeZone::UTC);
            quoted_text(&moment.map_or_else(|| text.clone(), Moment::literal))
        }
        SqlValue::Text(text) => quoted_text(text),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Now {
        Now { instant: "2026-11-23T05:00:00Z".parse().unwrap(), zone: TimeZone::UTC }
    }

    fn filled(text: &str, values: &[SqlValue], kind: Option<ColumnType>) -> Result<String, QueryError> {
        let rows: Vec<Row> = values.iter().map(|value| vec![value.clone()]).collect();
        find(text, &now()).unwrap().unwrap().filled(text, &rows, 0, kind)
    }

    #[test]
    fn values_take_the_place_of_an_inner_query() {
        let text = |text: &str| SqlValue::Text(text.into());
        let sql = |condition: &str| format!("select a from t where {condition} order by a");
        for (condition, values, kind, expected) in [
            (
                "b = {select b from u}",
                vec![text("x"), text("it's"), SqlValue::Null, text("x")],
                None,
                "b  in ('it''s', 'x') ",
            ),
            ("b = {select b from u}", vec![], None, "b  in (null) "),
            ("b != {select b from u where c = 1 (b)}", vec![SqlValue::Int(7)], None, "b  not in (7) "),
            ("b <> {select b from u}", vec![], None, "b  is not null "),
            ("b in {select b from u}", vec![SqlValue::Float(1.5)], None, "b in  (1.5) "),
            ("b > {select max(b) from u}", vec![SqlValue::Int(3)], None, "b >  3 "),
            ("ok = {select ok from u}", vec![SqlValue::Int(1)], Some(ColumnType::Boolean), "ok  in (true) "),
            (
                "ts = {select max(ts) from u}",
                vec![text("2026-11-20 01:02:03.500000")],
                Some(ColumnType::Timestamp),
                "ts  in ('2026-11-20T01:02:03.500000Z') ",
            ),
        ] {
            assert_eq!(filled(&sql(condition), &values, kind).unwrap(), sql(expected), "{condition}");
        }
        assert!(filled(&sql("b < {select b from u}"), &[SqlValue::Int(1), SqlValue::Int(2)], None).is_err());
    }

    #[test]
    fn the_innermost_query_is_first() {
        let text = "select a from t where b = {select b from u where c = {select c from v (c)}}";
        let inner = find(text, &now()).unwrap().unwrap();
        assert_eq!((inner.sql.as_str(), inner.column.as_deref()), ("select c from v", Some("c")));
        assert_eq!(find("select a from t", &now()).unwrap(), None);
        for wrong in [
            "select a from t where b = {select",
            "select a } from t",
            "select {select b from u} from t",
            "{select a from t}",
        ] {
            assert!(find(wrong, &now()).is_err(), "{wrong}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "(\\PC|[{}()=]){0,40}") {
            find(&text, &now()).ok();
        }
    }
}
