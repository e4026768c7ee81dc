//! Expressions of the dialect, and their text for an engine.
//!
//! The tree holds what the dialect allows and nothing else, so that what reaches an engine was checked node by node. Every
//! binary operation is written in brackets: the text needs no rules of precedence.

use anylog_dbms::Engine;

/// For whom a text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tongue {
    /// SQLite.
    Sqlite,
    /// PostgreSQL.
    Postgres,
    /// The dialect itself: for another node, which reads and checks it as it does a user's statement.
    Dialect,
}

impl From<Engine> for Tongue {
    fn from(engine: Engine) -> Self {
        match engine {
            Engine::Sqlite => Self::Sqlite,
            Engine::Postgres => Self::Postgres,
        }
    }
}

/// An expression.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Expr {
    /// A column by its normalised name.
    Column(String),
    /// `null`.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// A number as written.
    Number(String),
    /// A text without its quotes.
    Text(String),
    /// An operator before its operand: `not`, `-`.
    Unary(&'static str, Box<Expr>),
    /// An operator between its operands.
    Binary(Box<Expr>, &'static str, Box<Expr>),
    /// `is [not] null|true|false`; the text holds the words after `is`.
    Is(Box<Expr>, &'static str),
    /// `[not] between`.
    Between { expr: Box<Expr>, negated: bool, low: Box<Expr>, high: Box<Expr> },
    /// `[not] in (..)`.
    In { expr: Box<Expr>, negated: bool, list: Vec<Expr> },
    /// `[not] like`, `[not] ilike`.
    Like { expr: Box<Expr>, negated: bool, any_case: bool, pattern: Box<Expr>, escape: Option<Box<Expr>> },
    /// `case`.
    Case { operand: Option<Box<Expr>>, branches: Vec<(Expr, Expr)>, otherwise: Option<Box<Expr>> },
    /// `cast(.. as ..)`.
    Cast(Box<Expr>, CastType),
    /// A function.
    Call(Call),
}

/// The types of `cast(.. as ..)` inside a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CastType {
    /// Integer.
    Integer,
    /// Floating point.
    Double,
    /// Text.
    Text,
}

/// A call of a function. `extract(unit from x)` is `extract` of the unit's text and x.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Call {
    /// The name in lower case.
    pub(crate) name: String,
    /// The arguments.
    pub(crate) args: Vec<Expr>,
    /// True for `count(*)`.
    pub(crate) star: bool,
    /// True for `count(distinct x)`.
    pub(crate) distinct: bool,
    /// The window of a window function.
    pub(crate) over: Option<Window>,
}

/// `over (partition by .. order by ..)`.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Window {
    /// The expressions of `partition by`.
    pub(crate) partition: Vec<Expr>,
    /// The expressions of `order by`.
    pub(crate) order: Vec<Order>,
}

/// One expression of `order by`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Order {
    /// What to order by.
    pub(crate) expr: Expr,
    /// `desc`.
    pub(crate) descending: bool,
    /// `nulls first`, `nulls last`.
    pub(crate) nulls_first: Option<bool>,
}

impl Expr {
    /// A function with these arguments.
    pub(crate) fn call(name: &str, args: Vec<Expr>) -> Self {
        Self::Call(Call { name: name.to_owned(), args, ..Call::default() })
    }

    /// An operator between two operands.
    pub(crate) fn binary(left: Expr, op: &'static str, right: Expr) -> Self {
        Self::Binary(Box::new(left), op, Box::new(right))
    }

    /// The terms that `and` joins.
    pub(crate) fn terms(&self) -> Vec<&Expr> {
        match self {
            Self::Binary(left, "and", right) => [left.terms(), right.terms()].concat(),
            other => vec![other],
        }
    }

    /// True for a function that takes many rows to one value, and is not a window function.
    pub(crate) fn is_aggregate(&self) -> bool {
        matches!(self, Self::Call(call) if call.over.is_none() && call.aggregates())
    }

    /// The expressions directly inside this one.
    pub(crate) fn children(&self) -> Vec<&Expr> {
        match self {
            Self::Column(_) | Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_) => Vec::new(),
            Self::Unary(_, inner) | Self::Is(inner, _) | Self::Cast(inner, _) => vec![inner],
            Self::Binary(left, _, right) => vec![left, right],
            Self::Between { expr, low, high, .. } => vec![expr, low, high],
            Self::In { expr, list, .. } => std::iter::once(expr.as_ref()).chain(list).collect(),
            Self::Like { expr, pattern, escape, .. } => {
                [Some(expr), Some(pattern), escape.as_ref()].into_iter().flatten().map(AsRef::as_ref).collect()
            }
            Self::Case { operand, branches, otherwise } => operand
                .iter()
                .map(AsRef::as_ref)
                .chain(branches.iter().flat_map(|(condition, result)| [condition, result]))
                .chain(otherwise.iter().map(AsRef::as_ref))
                .collect(),
            Self::Call(call) => {
                let window = call
                    .over
                    .iter()
                    .flat_map(|over| over.partition.iter().chain(over.order.iter().map(|order| &order.expr)));
                call.args.iter().chain(window).collect()
            }
        }
    }

    /// Visits this expression and all inside it.
    pub(crate) fn visit<'a>(&'a self, seen: &mut dyn FnMut(&'a Expr)) {
        seen(self);
        for child in self.children() {
            child.visit(seen);
        }
    }

    /// True when the condition holds for this expression or one inside it.
    pub(crate) fn any(&self, matches: fn(&Expr) -> bool) -> bool {
        matches(self) || self.children().into_iter().any(|child| child.any(matches))
    }

    /// This expression with the direct children replaced.
    pub(crate) fn map<E>(&self, change: &mut dyn FnMut(&Expr) -> Result<Expr, E>) -> Result<Expr, E> {
        let mut boxed = |expr: &Expr| change(expr).map(Box::new);
        Ok(match self {
            Self::Column(_) | Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_) => self.clone(),
            Self::Unary(op, inner) => Self::Unary(op, boxed(inner)?),
            Self::Is(inner, what) => Self::Is(boxed(inner)?, what),
            Self::Cast(inner, to) => Self::Cast(boxed(inner)?, *to),
            Self::Binary(left, op, right) => Self::Binary(boxed(left)?, op, boxed(right)?),
            Self::Between { expr, negated, low, high } => {
                Self::Between { expr: boxed(expr)?, negated: *negated, low: boxed(low)?, high: boxed(high)? }
            }
            Self::In { expr, negated, list } => Self::In {
                expr: boxed(expr)?,
                negated: *negated,
                list: list.iter().map(change).collect::<Result<_, E>>()?,
            },
            Self::Like { expr, negated, any_case, pattern, escape } => Self::Like {
                expr: boxed(expr)?,
                negated: *negated,
                any_case: *any_case,
                pattern: boxed(pattern)?,
                escape: escape.as_ref().map(|escape| boxed(escape)).transpose()?,
            },
            Self::Case { operand, branches, otherwise } => Self::Case {
                operand: operand.as_ref().map(|operand| boxed(operand)).transpose()?,
                otherwise: otherwise.as_ref().map(|otherwise| boxed(otherwise)).transpose()?,
                branches: branches
                    .iter()
                    .map(|(condition, result)| Ok((change(condition)?, change(result)?)))
                    .collect::<Result<_, E>>()?,
            },
            Self::Call(call) => Self::Call(call.map(change)?),
        })
    }

    /// The text for an engine.
    pub(crate) fn sql(&self, engine: Tongue) -> String {
        let mut out = String::new();
        self.write(engine, &mut out);
        out
    }

    pub(crate) fn write(&self, engine: Tongue, out: &mut String) {
        match self {
            Self::Column(name) => out.push_str(&quoted_name(name)),
            Self::Null => out.push_str("null"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Number(text) => out.push_str(text),
            Self::Text(text) => out.push_str(&quoted_text(text)),
            Self::Unary(op, inner) => write_parts(
                engine,
                out,
                &[Part::Text("("), Part::Text(op), Part::Text(" "), Part::Expr(inner), Part::Text(")")],
            ),
            Self::Binary(left, op, right) if engine == Tongue::Dialect => {
                out.push('(');
                left.write_before(op, out);
                out.push(' ');
                out.push_str(op);
                out.push(' ');
                right.write(engine, out);
                out.push(')');
            }
            Self::Binary(left, op, right) => write_parts(
                engine,
                out,
                &[
                    Part::Text("("),
                    Part::Expr(left),
                    Part::Text(" "),
                    Part::Text(op),
                    Part::Text(" "),
                    Part::Expr(right),
                    Part::Text(")"),
                ],
            ),
            Self::Is(inner, what) => {
                write_parts(
                    engine,
                    out,
                    &[Part::Text("("), Part::Expr(inner), Part::Text(" is "), Part::Text(what), Part::Text(")")],
                );
            }
            Self::Between { expr, negated, low, high } => {
                let word = if *negated { " not between " } else { " between " };
                write_parts(
                    engine,
                    out,
                    &[
                        Part::Text("("),
                        Part::Expr(expr),
                        Part::Text(word),
                        Part::Expr(low),
                        Part::Text(" and "),
                        Part::Expr(high),
                        Part::Text(")"),
                    ],
                );
            }
            Self::In { expr, negated, list } => {
                write_parts(
                    engine,
                    out,
                    &[Part::Text("("), Part::Expr(expr), Part::Text(if *negated { " not in (" } else { " in (" })],
                );
                write_list(engine, out, list);
                out.push_str("))");
            }
            Self::Like { expr, negated, any_case, pattern, escape } => {
                // SQLite's LIKE ignores the case of ASCII letters already and has no ILIKE.
                let word = if *any_case && engine != Tongue::Sqlite { "ilike " } else { "like " };
                write_parts(
                    engine,
                    out,
                    &[
                        Part::Text("("),
                        Part::Expr(expr),
                        Part::Text(if *negated { " not " } else { " " }),
                        Part::Text(word),
                        Part::Expr(pattern),
                    ],
                );
                if let Some(escape) = escape {
                    write_parts(engine, out, &[Part::Text(" escape "), Part::Expr(escape)]);
                }
                out.push(')');
            }
            Self::Case { operand, branches, otherwise } => {
                out.push_str("case");
                if let Some(operand) = operand {
                    write_parts(engine, out, &[Part::Text(" "), Part::Expr(operand)]);
                }
                for (condition, result) in branches {
                    write_parts(
                        engine,
                        out,
                        &[Part::Text(" when "), Part::Expr(condition), Part::Text(" then "), Part::Expr(result)],
                    );
                }
                if let Some(otherwise) = otherwise {
                    write_parts(engine, out, &[Part::Text(" else "), Part::Expr(otherwise)]);
                }
                out.push_str(" end");
            }
            Self::Cast(inner, to) => {
                let word = match (to, engine) {
                    (CastType::Integer, Tongue::Sqlite) => "integer",
                    (CastType::Integer, Tongue::Postgres | Tongue::Dialect) => "bigint",
                    (CastType::Double, Tongue::Sqlite) => "real",
                    (CastType::Double, Tongue::Postgres | Tongue::Dialect) => "double precision",
                    (CastType::Text, _) => "text",
                };
                write_parts(
                    engine,
                    out,
                    &[Part::Text("cast("), Part::Expr(inner), Part::Text(" as "), Part::Text(word), Part::Text(")")],
                );
            }
            Self::Call(call) => super::functions::write(call, engine, out),
        }
    }
}

impl Expr {
    /// The left operand of `op` in the dialect. Long chains need no brackets, whose depth is bounded where they are read.
    fn write_before(&self, op: &str, out: &mut String) {
        let class = |op: &str| match op {
            "and" => 1,
            "or" => 2,
            "+" | "-" => 3,
            "*" | "/" | "%" => 4,
            "||" => 5,
            _ => 0,
        };
        match self {
            Self::Binary(left, own, right) if class(own) > 0 && class(own) == class(op) => {
                left.write_before(own, out);
                out.push(' ');
                out.push_str(own);
                out.push(' ');
                right.write(Tongue::Dialect, out);
            }
            other => other.write(Tongue::Dialect, out),
        }
    }
}

impl Call {
    /// True for functions that take many rows to one value.
    pub(crate) fn aggregates(&self) -> bool {
        super::functions::is_aggregate(&self.name, self.args.len(), self.star)
    }

    fn map<E>(&self, change: &mut dyn FnMut(&Expr) -> Result<Expr, E>) -> Result<Call, E> {
        let over = match &self.over {
            None => None,
            Some(over) => Some(Window {
                partition: over.partition.iter().map(&mut *change).collect::<Result<_, E>>()?,
                order: over
                    .order
                    .iter()
                    .map(|order| Ok(Order { expr: change(&order.expr)?, ..order.clone() }))
                    .collect::<Result<_, E>>()?,
            }),
        };
        let args = self.args.iter().map(change).collect::<Result<_, E>>()?;
        Ok(Call { args, over, ..self.clone() })
    }
}

enum Part<'a> {
    Text(&'a str),
    Expr(&'a Expr),
}

fn write_parts(engine: Tongue, out: &mut String, parts: &[Part<'_>]) {
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Expr(expr) => expr.write(engine, out),
        }
    }
}

/// Expressions with commas between them.
pub(crate) fn write_list(engine: Tongue, out: &mut String, list: &[Expr]) {
    for (index, expr) in list.iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        expr.write(engine, out);
    }
}

/// `order by` expressions with commas between them.
pub(crate) fn write_order(engine: Tongue, out: &mut String, list: &[Order]) {
    for (index, order) in list.iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        order.expr.write(engine, out);
        if order.descending {
            out.push_str(" desc");
        }
        match order.nulls_first {
            Some(true) => out.push_str(" nulls first"),
            Some(false) => out.push_str(" nulls last"),
            None => {}
        }
    }
}

/// A name in double quotes.
pub(crate) fn quoted_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text in single quotes.
pub(crate) fn quoted_text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
