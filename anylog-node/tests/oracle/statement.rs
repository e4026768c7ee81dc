//! Statements with what the oracle is asked instead.
//!
//! ```text
//! # a title
//! & options of the next statement: include = (archive)
//! ~ columns of the next statement that are truth values and not columns of the table
//! select .. as it is written in the dialect
//! = select .. of the oracle; without it the oracle is asked the same
//! ! text: the statement is an error that says this
//! ```
//!
//! In the oracle's text `@inc(unit,n,column)` are the expressions of an interval of time.

/// One statement.
#[derive(Debug, Clone, Default)]
pub(crate) struct Statement {
    pub(crate) select: String,
    pub(crate) oracle: String,
    pub(crate) options: String,
    pub(crate) truths: Vec<String>,
    /// What it must say when it is refused.
    pub(crate) refused: Vec<String>,
}

impl Statement {
    /// True when the order of its rows is told.
    pub(crate) fn ordered(&self) -> bool {
        self.oracle.contains("order by")
    }

    /// True when it makes sense at the first operator alone, which has not all tables.
    pub(crate) fn is_plain(&self) -> bool {
        self.options.is_empty() && !self.select.contains("from sparse")
    }
}

/// Reads the statements of a file.
pub(crate) fn read(text: &str) -> Vec<Statement> {
    let mut statements: Vec<Statement> = Vec::new();
    let mut next = Statement::default();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("# ") && *line != "#") {
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        match mark {
            "&" => next.options = rest.to_owned(),
            "~" => next.truths = rest.split(',').map(|name| name.trim().to_owned()).collect(),
            "=" => statements.last_mut().expect("a statement before").oracle = expanded(rest),
            "!" => statements.last_mut().expect("a statement before").refused.push(rest.to_owned()),
            _ => {
                let statement = std::mem::take(&mut next);
                statements.push(Statement { select: line.to_owned(), oracle: line.to_owned(), ..statement });
            }
        }
    }
    statements
}

/// `@inc(unit,n,column)` as the expressions that an interval is grouped and ordered by.
fn expanded(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("@inc(") {
        let (arguments, tail) = after.split_once(')').expect("a closed bracket");
        let parts: Vec<&str> = arguments.split(',').map(str::trim).collect();
        let [unit, count, column] = parts.as_slice() else { panic!("three arguments: {arguments}") };
        out.push_str(before);
        let part =
            |from: usize, length: usize| format!("cast(substr({column}, {from}, {length}) as integer) / {count}");
        out.push_str(&match *unit {
            "second" => format!("substr({column}, 1, 16), {}", part(18, 2)),
            "minute" => format!("substr({column}, 1, 13), {}", part(15, 2)),
            "hour" => format!("substr({column}, 1, 10), {}", part(12, 2)),
            "day" => format!("substr({column}, 1, 7), {}", part(9, 2)),
            "month" => format!("substr({column}, 1, 4), {}", part(6, 2)),
            "year" => part(1, 4),
            other => panic!("an interval of {other}"),
        });
        rest = tail;
    }
    out + rest
}
