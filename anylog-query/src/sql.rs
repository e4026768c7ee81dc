//! The dialect: one SELECT over one table, with times, `increments`, `period` and casts.
//!
//! [`parse`] reads a text without knowing any table; [`bind`](bind::bind) checks it against one.

pub(crate) mod bind;
pub(crate) mod cast;
pub(crate) mod dates;
pub(crate) mod expr;
pub(crate) mod functions;
pub(crate) mod increments;
pub(crate) mod inner;
mod lower;
pub(crate) mod period;
pub(crate) mod scan;

use cast::Cast;
pub(crate) use dates::{Moment, Now};
use increments::Increments;
use lower::{Raw, RawItem};
use period::{Bounds, Period};
use scan::{Kind, Token, at_top, closing, split_commas, title};

use crate::QueryError;

/// A statement that was read and not yet checked against its table.
#[derive(Debug, Clone)]
pub(crate) struct Statement {
    raw: Raw,
    /// For each item of the projection: its name if it has no alias, and its casts.
    extras: Vec<(String, Vec<Cast>)>,
    increments: Option<Increments>,
    /// The period of the condition.
    pub(crate) period: Option<Period>,
    per: Option<String>,
}

impl Statement {
    /// The table that is asked.
    pub(crate) fn table(&self) -> &str {
        &self.raw.table
    }

    /// True when it asks for all columns: `select *`.
    pub(crate) fn asks_for_all(&self) -> bool {
        self.raw.items.contains(&RawItem::All)
    }
}

/// The stack on which statements are read: their trees are walked recursively, to a bounded depth.
const STACK: usize = 16 * 1024 * 1024;

/// Runs `work` with enough stack for the deepest statement that is allowed.
pub(crate) fn on_deep_stack<T>(work: impl FnOnce() -> T) -> T {
    stacker::grow(STACK, work)
}

/// Reads a statement. `bounds` are those of its period, once they are known; until then the period holds for all rows.
pub(crate) fn parse(text: &str, now: &Now, bounds: Option<&Bounds>) -> Result<Statement, QueryError> {
    on_deep_stack(|| read(text, now, bounds))
}

fn read(text: &str, now: &Now, bounds: Option<&Bounds>) -> Result<Statement, QueryError> {
    let mut tokens = scan::scan(text)?;
    while tokens.last().is_some_and(|token| token.symbol(";")) {
        tokens.pop();
    }
    if tokens.iter().any(|token| token.symbol(";")) {
        return Err(QueryError::unsupported("several statements", "send one statement at a time"));
    }
    if !tokens.first().is_some_and(|token| token.is("select")) {
        return Err(QueryError::syntax("this is not a SELECT"));
    }
    let from = at_top(&tokens, |token| token.is("from"));
    let Some(from) = from.first().copied() else {
        return Err(QueryError::syntax("a table is missing: select .. from <table>"));
    };
    let (head, tail) = tokens.split_at(from);
    let mut projection = Projection::read(&head[1..], text, now)?;
    let tail = Tail::read(tail, now, bounds)?;
    if projection.increments.is_some() && tail.period.is_some() {
        return Err(QueryError::unsupported(
            "increments together with period",
            "bound the time with: where <column> >= .. and <column> < ..",
        ));
    }
    let mut sql = vec![Token::made(Kind::Word, "select")];
    sql.append(&mut projection.tokens);
    sql.extend(tail.tokens);
    let mut raw = lower::select(&sql)?;
    match (raw.limit, projection.limit) {
        (Some(_), Some(_)) => return Err(QueryError::syntax("limit is given twice")),
        (None, limit) => raw.limit = limit,
        _ => {}
    }
    if tail.per.is_some() && raw.limit.is_none() {
        return Err(QueryError::syntax("'per' follows a limit: limit n per <column>"));
    }
    let extras = projection.extras;
    Ok(Statement { raw, extras, increments: projection.increments, period: tail.period, per: tail.per })
}

struct Projection {
    tokens: Vec<Token>,
    extras: Vec<(String, Vec<Cast>)>,
    increments: Option<Increments>,
    limit: Option<u64>,
}

impl Projection {
    fn read(mut tokens: &[Token], text: &str, now: &Now) -> Result<Self, QueryError> {
        let mut read = Self { tokens: Vec::new(), extras: Vec::new(), increments: None, limit: None };
        if let [word, count, rest @ ..] = tokens
            && (word.is("top") || word.is("limit"))
            && count.kind == Kind::Number
        {
            read.limit = Some(count.text.parse().map_err(|_| QueryError::syntax("limit takes digits only"))?);
            tokens = rest;
        }
        let distinct = tokens.first().is_some_and(|token| token.is("distinct"));
        if distinct {
            read.tokens.push(tokens[0].clone());
            tokens = &tokens[1..];
        }
        for (index, part) in split_commas(tokens).into_iter().enumerate() {
            if let [name, open, ..] = part
                && name.is("increments")
                && open.symbol("(")
            {
                if read.increments.is_some() {
                    return Err(QueryError::Arguments { function: "increments", reason: "it is given twice".into() });
                }
                let close = closing(part, 1)?;
                if close + 1 != part.len() {
                    return Err(QueryError::Arguments {
                        function: "increments",
                        reason: "it takes no name and no cast".into(),
                    });
                }
                read.increments = Some(Increments::parse(&part[2..close])?);
                continue;
            }
            if part.is_empty() {
                return Err(QueryError::syntax("a column is missing in the list after select"));
            }
            let (kept, casts) = take_casts(part, text, now)?;
            if !read.extras.is_empty() {
                read.tokens.push(Token::made(Kind::Symbol, ","));
            }
            let function = distinct && index == 0 && kept.first().is_some_and(|token| token.symbol("("));
            let shown = title(&kept);
            read.extras.push((if function { format!("distinct{shown}") } else { shown }, casts));
            read.tokens.extend(kept);
        }
        if read.extras.is_empty() {
            return Err(QueryError::syntax("name at least one column beside increments(..)"));
        }
        Ok(read)
    }
}

/// The casts of an item, taken out of it: `value::float(2)::str as v`.
fn take_casts(item: &[Token], text: &str, now: &Now) -> Result<(Vec<Token>, Vec<Cast>), QueryError> {
    let Some(first) = at_top(item, |token| token.symbol("::")).first().copied() else {
        return Ok((item.to_vec(), Vec::new()));
    };
    let mut casts = Vec::new();
    let mut at = first;
    while item.get(at).is_some_and(|token| token.symbol("::")) {
        let name = item.get(at + 1).filter(|token| token.kind == Kind::Word);
        let name = name.ok_or_else(|| QueryError::syntax("a cast is missing after '::'"))?;
        at += 2;
        let mut argument = None;
        if item.get(at).is_some_and(|token| token.symbol("(")) {
            let close = closing(item, at)?;
            argument = text.get(item[at].end..item[close].start);
            at = close + 1;
        }
        casts.push(Cast::parse(&name.text, argument, now)?);
    }
    let mut kept = item[..first].to_vec();
    kept.extend_from_slice(&item[at..]);
    Ok((kept, casts))
}

struct Tail {
    tokens: Vec<Token>,
    period: Option<Period>,
    per: Option<String>,
}

const CLAUSES: [&str; 6] = ["where", "group", "having", "order", "limit", "offset"];

impl Tail {
    fn read(tokens: &[Token], now: &Now, bounds: Option<&Bounds>) -> Result<Self, QueryError> {
        check_after_table(tokens)?;
        let mut per = None;
        let mut tokens = tokens.to_vec();
        if let [.., limit, _, word, column] = tokens.as_slice()
            && limit.is("limit")
            && word.is("per")
        {
            per = Some(column.text.trim_matches('"').to_owned());
            tokens.truncate(tokens.len() - 2);
        }
        let clauses = at_top(&tokens, |token| token.kind == Kind::Word && CLAUSES.contains(&token.text.as_str()));
        let mut read = Self { tokens: Vec::new(), period: None, per };
        let mut start = 0;
        for end in clauses.iter().copied().chain([tokens.len()]) {
            let clause = &tokens[start..end];
            match clause.first() {
                Some(word) if word.is("where") => {
                    let condition = period::take(clause, now, bounds, &mut read.period)?;
                    read.tokens.extend(dates::resolve(&condition, now)?);
                }
                Some(word) if word.is("having") => read.tokens.extend(dates::resolve(clause, now)?),
                _ => read.tokens.extend_from_slice(clause),
            }
            start = end;
        }
        Ok(read)
    }
}

/// `from t wehre ..`: a word after the table that is nearly a clause is meant as one, not as another name of the table.
fn check_after_table(tokens: &[Token]) -> Result<(), QueryError> {
    let Some(word) = tokens.get(2).filter(|token| token.kind == Kind::Word) else { return Ok(()) };
    if CLAUSES.contains(&word.text.as_str()) || word.is("as") {
        return Ok(());
    }
    match anylog_core::error::nearest(&word.text, CLAUSES) {
        Some(clause) => {
            Err(QueryError::syntax(format!("'{}' after the table name: did you mean '{clause}'?", word.text)))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::tz::TimeZone;

    pub(crate) fn now() -> Now {
        Now { instant: "2026-11-23T05:00:00Z".parse().unwrap(), zone: TimeZone::UTC }
    }

    fn error(text: &str) -> String {
        let error = anylog_core::CommandError::from(parse(text, &now(), None).unwrap_err());
        format!("{} {error}", error.status.0)
    }

    #[test]
    fn what_is_left_out_says_what_to_write() {
        // R25
        for (text, expected) in [
            ("selec * fro t", "134 Error in SQL statement: this is not a SELECT"),
            ("select 1", "a table is missing"),
            ("select a from t1 x, t2 y", "46 Non supported SQL: a join of several tables - query one table at a time"),
            ("select a from t join u on t.a = u.a", "JOIN"),
            ("select a from (select a from t)", "a sub-select in FROM - name a table after FROM"),
            ("select a from t where a in (select a from u)", "a sub-select - write the inner query in braces"),
            ("select a from t union select a from u", "UNION"),
            ("with x as (select 1) select a from t", "this is not a SELECT"),
            ("select a from t; drop table t", "several statements"),
            ("select a from t limit x", "limit takes digits only"),
            ("select a from t wehre a = 1", "did you mean 'where'"),
            ("select pg_read_file('/etc/passwd') from t", "function 'pg_read_file' is not known"),
            ("select cuont(a) from t", "did you mean 'count'?"),
            ("select sum(a, b) from t", "sum() takes one argument"),
            ("select a from db.t", "name only the table"),
            ("select row_number() from t", "row_number() needs a window"),
            ("select increments(hour, 1, ts) from t", "name at least one column"),
            (
                "select increments(hour, 1, ts), a from t where period(day, 1, now(), ts)",
                "increments together with period",
            ),
            ("select a::flaot(2) from t", "195 Unknown cast 'flaot' - did you mean 'float'?"),
            ("select a, from t", "a column is missing"),
            ("select a from t where a = 'x", "is not closed"),
            ("select a from t where (a = 1", "Expected"),
        ] {
            let error = error(text);
            assert!(error.contains(expected), "{text}\n  gave: {error}\n  want: {expected}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let deep = format!("select {}a{} from t", "(".repeat(5000), ")".repeat(5000));
        assert!(parse(&deep, &now(), None).is_err());
        let long = format!("select a from t where {}", vec!["a = 1"; 10_000].join(" or "));
        assert!(parse(&long, &now(), None).is_err());
        let allowed = format!("select a from t where {}", vec!["a = 1"; 240].join(" or "));
        assert!(parse(&allowed, &now(), None).is_ok());
        let list = format!("select a from t where a in ({})", vec!["1"; 10_000].join(","));
        assert!(parse(&list, &now(), None).is_ok());
    }

    #[test]
    fn forms_of_limit() {
        let parsed = |text: &str| {
            let statement = parse(text, &now(), None).unwrap();
            (statement.raw.limit, statement.per)
        };
        assert_eq!(parsed("select top 5 a from t"), (Some(5), None));
        assert_eq!(parsed("select limit 6 a from t;"), (Some(6), None));
        assert_eq!(parsed("select a from t order by a desc limit 3 per device"), (Some(3), Some("device".into())));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "\\PC*") {
            parse(&text, &now(), None).ok();
        }

        #[test]
        fn no_words_of_the_dialect_panic(words in proptest::collection::vec(proptest::sample::select(&[
            "select", "from", "t", "where", "group by", "order by", "limit", "per", "(", ")", ",", "*", "count", "'x'", "1", "increments",
            "period", "hour", "now()", "-", "3d", "::", "float(2)", "as", "and", "or", "not", "between", "in", "is", "null", "case", "when",
            "then", "end", "distinct", "extract(", "date(", "'2026-01-01 00:00:00'", "over", "partition by", "=", "<", ";", ".", "top",
        ][..]), 0..30)) {
            parse(&format!("select {}", words.join(" ")), &now(), None).ok();
        }
    }
}
