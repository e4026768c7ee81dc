//! From the parser's tree to expressions of the dialect; refuses what the dialect leaves out and says what to write instead.

use sqlparser::ast::{
    self, BinaryOperator, CeilFloorKind, DataType, Distinct, DuplicateTreatment, FunctionArg, FunctionArgExpr,
    FunctionArguments, GroupByExpr, LimitClause, OrderByKind, OrderBySort, SelectItem, SetExpr, Statement, TableFactor,
    TrimWhereField, UnaryOperator, Value, WindowType,
};
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::Parser;

use super::expr::{Call, CastType, Expr, Order, Window};
use super::functions;
use super::scan::{self, Token};
use crate::QueryError;

/// The most operators in a statement: bounds the depth of its tree, which is walked recursively.
const MAX_OPERATORS: usize = 500;

/// The deepest nesting of brackets.
const MAX_NESTING: usize = 50;

/// A SELECT as written: names not yet checked against a table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Raw {
    pub(crate) table: String,
    pub(crate) distinct: bool,
    pub(crate) items: Vec<RawItem>,
    pub(crate) filter: Option<Expr>,
    pub(crate) group: Vec<Expr>,
    pub(crate) having: Option<Expr>,
    pub(crate) order: Vec<Order>,
    pub(crate) limit: Option<u64>,
    pub(crate) offset: u64,
}

/// One entry of the projection.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RawItem {
    /// `*`.
    All,
    /// An expression, with `as <name>` if given.
    One(Expr, Option<String>),
}

/// Reads one SELECT.
pub(crate) fn select(tokens: &[Token]) -> Result<Raw, QueryError> {
    check_depth(tokens)?;
    let sql = scan::join(tokens);
    let mut statements = Parser::new(&GenericDialect {})
        .with_recursion_limit(MAX_NESTING * 2)
        .try_with_sql(&sql)
        .and_then(|mut parser| parser.parse_statements())
        .map_err(|error| QueryError::syntax(parser_text(&error.to_string())))?;
    let query = match (statements.pop(), statements.is_empty()) {
        (Some(Statement::Query(query)), true) => *query,
        (Some(_), false) => return Err(QueryError::unsupported("several statements", "send one statement at a time")),
        _ => return Err(QueryError::syntax("this is not a SELECT")),
    };
    lower_query(query)
}

fn parser_text(error: &str) -> String {
    let text = error.strip_prefix("sql parser error: ").unwrap_or(error);
    // The place counts in a text that was put together from tokens: it would mislead.
    text.split(" at Line:").next().unwrap_or(text).to_owned()
}

fn check_depth(tokens: &[Token]) -> Result<(), QueryError> {
    let mut depth = 0usize;
    let mut operators = 0usize;
    for token in tokens {
        match token.text.as_str() {
            "(" | "case" => depth += 1,
            ")" | "end" => depth = depth.saturating_sub(1),
            "and" | "or" | "not" | "is" | "between" | "like" | "ilike" | "in" => operators += 1,
            "," | "." => {}
            _ if token.kind == scan::Kind::Symbol => operators += 1,
            _ => {}
        }
        if depth > MAX_NESTING {
            return Err(QueryError::unsupported(
                format!("more than {MAX_NESTING} brackets inside each other"),
                "split the query",
            ));
        }
    }
    if operators > MAX_OPERATORS {
        return Err(QueryError::unsupported(
            format!("more than {MAX_OPERATORS} operators in a statement"),
            "write long lists of values as: <column> in (v1, v2, ..)",
        ));
    }
    Ok(())
}

fn lower_query(query: ast::Query) -> Result<Raw, QueryError> {
    refuse(query.with.is_some(), "WITH", "write one SELECT from one table")?;
    refuse(query.fetch.is_some(), "FETCH", "use: limit n")?;
    let extras = !query.locks.is_empty()
        || query.for_clause.is_some()
        || query.settings.is_some()
        || query.format_clause.is_some()
        || !query.pipe_operators.is_empty();
    refuse(extras, "a clause after LIMIT", "end the statement after limit")?;
    let select = match *query.body {
        SetExpr::Select(select) => *select,
        SetExpr::SetOperation { .. } => {
            return Err(QueryError::unsupported("UNION", "include other tables with: include = (table, ..)"));
        }
        _ => return Err(QueryError::syntax("this is not a SELECT")),
    };
    let mut names = Names { qualifiers: Vec::new() };
    let table = table_name(&select, &mut names)?;
    let (limit, offset) = limits(query.limit_clause)?;
    let order = match query.order_by.map(|order| order.kind) {
        None => Vec::new(),
        Some(OrderByKind::Expressions(list)) => {
            list.into_iter().map(|order| names.order(order)).collect::<Result<_, _>>()?
        }
        Some(OrderByKind::All(_)) => return Err(QueryError::unsupported("ORDER BY ALL", "name the columns")),
    };
    lower_select(select, &names, Raw { table, order, limit, offset, ..EMPTY })
}

const EMPTY: Raw = Raw {
    table: String::new(),
    distinct: false,
    items: Vec::new(),
    filter: None,
    group: Vec::new(),
    having: None,
    order: Vec::new(),
    limit: None,
    offset: 0,
};

fn lower_select(select: ast::Select, names: &Names, mut raw: Raw) -> Result<Raw, QueryError> {
    let extras = select.select_modifiers.is_some()
        || select.top.is_some()
        || select.exclude.is_some()
        || !select.lateral_views.is_empty()
        || select.prewhere.is_some()
        || !select.connect_by.is_empty()
        || !select.cluster_by.is_empty()
        || !select.distribute_by.is_empty()
        || !select.sort_by.is_empty()
        || !select.named_window.is_empty()
        || select.qualify.is_some()
        || select.value_table_mode.is_some();
    refuse(extras, "a clause of another SQL dialect", "use where, group by, having, order by and limit")?;
    refuse(select.into.is_some(), "SELECT INTO", "name the result table with the option: table = <name>")?;
    raw.distinct = match select.distinct {
        None | Some(Distinct::All) => false,
        Some(Distinct::Distinct) => true,
        Some(Distinct::On(_)) => return Err(QueryError::unsupported("DISTINCT ON", "use distinct or group by")),
    };
    for item in select.projection {
        raw.items.push(match item {
            SelectItem::Wildcard(_) => RawItem::All,
            SelectItem::QualifiedWildcard(..) => RawItem::All,
            SelectItem::UnnamedExpr(expr) => RawItem::One(names.expr(expr)?, None),
            SelectItem::ExprWithAlias { expr, alias } => RawItem::One(names.expr(expr)?, Some(alias.value)),
            SelectItem::ExprWithAliases { .. } => return Err(QueryError::syntax("a column takes one name")),
        });
    }
    raw.filter = select.selection.map(|filter| names.expr(filter)).transpose()?;
    raw.having = select.having.map(|having| names.expr(having)).transpose()?;
    raw.group = match select.group_by {
        GroupByExpr::Expressions(list, modifiers) if modifiers.is_empty() => {
            list.into_iter().map(|expr| names.expr(expr)).collect::<Result<_, _>>()?
        }
        _ => return Err(QueryError::unsupported("this form of GROUP BY", "list the columns: group by a, b")),
    };
    Ok(raw)
}

fn table_name(select: &ast::Select, names: &mut Names) -> Result<String, QueryError> {
    let join = "query one table at a time; JOIN is not distributed";
    let [from] = select.from.as_slice() else {
        return Err(match select.from.len() {
            0 => QueryError::syntax("a table is missing: select .. from <table>"),
            _ => QueryError::unsupported("a join of several tables", join),
        });
    };
    refuse(!from.joins.is_empty(), "JOIN", join)?;
    let TableFactor::Table { name, alias, args: None, .. } = &from.relation else {
        return Err(QueryError::unsupported("a sub-select in FROM", "name a table after FROM"));
    };
    let parts: Vec<String> =
        name.0.iter().filter_map(|part| part.as_ident()).map(|ident| ident.value.clone()).collect();
    let [table] = parts.as_slice() else {
        return Err(QueryError::unsupported(
            format!("the table name '{name}'"),
            "name only the table: the database stands before the statement",
        ));
    };
    names.qualifiers.push(table.clone());
    names.qualifiers.extend(alias.iter().map(|alias| alias.name.value.clone()));
    Ok(table.clone())
}

fn limits(clause: Option<LimitClause>) -> Result<(Option<u64>, u64), QueryError> {
    match clause {
        None => Ok((None, 0)),
        Some(LimitClause::LimitOffset { limit, offset, limit_by }) if limit_by.is_empty() => {
            let limit = limit.map(|limit| digits(&limit, "limit")).transpose()?;
            Ok((limit, offset.map(|offset| digits(&offset.value, "offset")).transpose()?.unwrap_or(0)))
        }
        Some(LimitClause::OffsetCommaLimit { offset, limit }) => {
            Ok((Some(digits(&limit, "limit")?), digits(&offset, "offset")?))
        }
        Some(_) => Err(QueryError::unsupported("LIMIT BY", "use: limit n per <column>")),
    }
}

fn digits(expr: &ast::Expr, word: &str) -> Result<u64, QueryError> {
    expr.to_string().parse().map_err(|_| QueryError::syntax(format!("'{word} {expr}': {word} takes digits only")))
}

fn refuse(found: bool, what: &str, instead: &str) -> Result<(), QueryError> {
    if found { Err(QueryError::unsupported(what, instead)) } else { Ok(()) }
}

/// The names by which columns may be qualified.
struct Names {
    qualifiers: Vec<String>,
}

impl Names {
    fn boxed(&self, expr: ast::Expr) -> Result<Box<Expr>, QueryError> {
        self.expr(expr).map(Box::new)
    }

    fn list(&self, list: Vec<ast::Expr>) -> Result<Vec<Expr>, QueryError> {
        list.into_iter().map(|expr| self.expr(expr)).collect()
    }

    fn expr(&self, expr: ast::Expr) -> Result<Expr, QueryError> {
        use ast::Expr as Sql;
        Ok(match expr {
            Sql::Identifier(name) => Expr::Column(name.value),
            Sql::CompoundIdentifier(parts) => self.qualified(parts)?,
            Sql::Value(value) => literal(value.value)?,
            Sql::Nested(inner) => self.expr(*inner)?,
            Sql::IsNull(inner) => Expr::Is(self.boxed(*inner)?, "null"),
            Sql::IsNotNull(inner) => Expr::Is(self.boxed(*inner)?, "not null"),
            Sql::IsTrue(inner) => Expr::Is(self.boxed(*inner)?, "true"),
            Sql::IsNotTrue(inner) => Expr::Is(self.boxed(*inner)?, "not true"),
            Sql::IsFalse(inner) => Expr::Is(self.boxed(*inner)?, "false"),
            Sql::IsNotFalse(inner) => Expr::Is(self.boxed(*inner)?, "not false"),
            Sql::UnaryOp { op, expr } => Expr::Unary(unary(op)?, self.boxed(*expr)?),
            Sql::BinaryOp { left, op, right } => Expr::Binary(self.boxed(*left)?, binary(&op)?, self.boxed(*right)?),
            Sql::Between { expr, negated, low, high } => {
                Expr::Between { expr: self.boxed(*expr)?, negated, low: self.boxed(*low)?, high: self.boxed(*high)? }
            }
            Sql::InList { expr, list, negated } => {
                Expr::In { expr: self.boxed(*expr)?, negated, list: self.list(list)? }
            }
            Sql::Like { negated, any: false, expr, pattern, escape_char } => {
                self.like(*expr, negated, false, *pattern, escape_char)?
            }
            Sql::ILike { negated, any: false, expr, pattern, escape_char } => {
                self.like(*expr, negated, true, *pattern, escape_char)?
            }
            Sql::Case { operand, conditions, else_result, .. } => Expr::Case {
                operand: operand.map(|operand| self.boxed(*operand)).transpose()?,
                branches: conditions
                    .into_iter()
                    .map(|when| Ok((self.expr(when.condition)?, self.expr(when.result)?)))
                    .collect::<Result<_, QueryError>>()?,
                otherwise: else_result.map(|result| self.boxed(*result)).transpose()?,
            },
            Sql::Cast { expr, data_type, format: None, .. } => Expr::Cast(self.boxed(*expr)?, cast_type(&data_type)?),
            Sql::Extract { field, expr, .. } => {
                self.call("extract", vec![Expr::Text(field.to_string().to_lowercase()), self.expr(*expr)?])?
            }
            Sql::Ceil { expr, field: CeilFloorKind::DateTimeField(ast::DateTimeField::NoDateTime) } => {
                self.call("ceil", vec![self.expr(*expr)?])?
            }
            Sql::Floor { expr, field: CeilFloorKind::DateTimeField(ast::DateTimeField::NoDateTime) } => {
                self.call("floor", vec![self.expr(*expr)?])?
            }
            Sql::Substring { expr, substring_from: Some(from), substring_for, .. } => {
                let mut args = vec![self.expr(*expr)?, self.expr(*from)?];
                args.extend(substring_for.map(|length| self.expr(*length)).transpose()?);
                self.call("substr", args)?
            }
            Sql::Trim { trim_where, trim_what, expr, trim_characters } => {
                let name = match trim_where {
                    None | Some(TrimWhereField::Both) => "trim",
                    Some(TrimWhereField::Leading) => "ltrim",
                    Some(TrimWhereField::Trailing) => "rtrim",
                };
                let mut args = vec![self.expr(*expr)?];
                args.extend(trim_what.map(|what| self.expr(*what)).transpose()?);
                args.extend(self.list(trim_characters.unwrap_or_default())?);
                self.call(name, args)?
            }
            Sql::Position { expr, r#in } => self.call("instr", vec![self.expr(*r#in)?, self.expr(*expr)?])?,
            Sql::Function(function) => self.function(function)?,
            Sql::Subquery(_) | Sql::InSubquery { .. } | Sql::Exists { .. } => {
                return Err(QueryError::unsupported(
                    "a sub-select",
                    "write the inner query in braces, whose values are compared with: where <column> = {select <column> from ..}",
                ));
            }
            other => {
                return Err(QueryError::unsupported(
                    format!("the expression '{other}'"),
                    "use columns, numbers, 'texts', operators and functions",
                ));
            }
        })
    }

    fn qualified(&self, mut parts: Vec<ast::Ident>) -> Result<Expr, QueryError> {
        let shown = parts.iter().map(|part| part.value.as_str()).collect::<Vec<_>>().join(".");
        let column = parts.pop().map(|part| part.value).unwrap_or_default();
        match parts.last() {
            Some(qualifier) if self.qualifiers.contains(&qualifier.value) => Ok(Expr::Column(column)),
            _ => {
                Err(QueryError::unsupported(format!("the name '{shown}'"), format!("write only the column: {column}")))
            }
        }
    }

    fn like(
        &self,
        expr: ast::Expr,
        negated: bool,
        any_case: bool,
        pattern: ast::Expr,
        escape: Option<Box<ast::Expr>>,
    ) -> Result<Expr, QueryError> {
        Ok(Expr::Like {
            expr: self.boxed(expr)?,
            negated,
            any_case,
            pattern: self.boxed(pattern)?,
            escape: escape.map(|escape| self.boxed(*escape)).transpose()?,
        })
    }

    fn order(&self, order: ast::OrderByExpr) -> Result<Order, QueryError> {
        let descending = match order.options.sort {
            None | Some(OrderBySort::Asc) => false,
            Some(OrderBySort::Desc) => true,
            Some(OrderBySort::Using(_)) => return Err(QueryError::unsupported("ORDER BY .. USING", "use asc or desc")),
        };
        Ok(Order { expr: self.expr(order.expr)?, descending, nulls_first: order.options.nulls_first })
    }

    fn call(&self, name: &str, args: Vec<Expr>) -> Result<Expr, QueryError> {
        let call = Call { name: name.to_owned(), args, ..Call::default() };
        functions::check(&call)?;
        Ok(Expr::Call(call))
    }

    fn function(&self, function: ast::Function) -> Result<Expr, QueryError> {
        let name = function.name.to_string();
        let odd = function.filter.is_some()
            || !function.within_group.is_empty()
            || function.null_treatment.is_some()
            || function.parameters != FunctionArguments::None;
        refuse(odd, &format!("this form of {name}()"), "call it with plain arguments")?;
        let mut call = Call { name: name.clone(), ..Call::default() };
        match function.args {
            FunctionArguments::List(list) if list.clauses.is_empty() => {
                call.distinct = list.duplicate_treatment == Some(DuplicateTreatment::Distinct);
                for arg in list.args {
                    match arg {
                        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => call.args.push(self.expr(expr)?),
                        FunctionArg::Unnamed(FunctionArgExpr::Wildcard) => call.star = true,
                        _ => {
                            return Err(QueryError::unsupported(
                                format!("an argument of {name}()"),
                                "use plain arguments",
                            ));
                        }
                    }
                }
            }
            _ => return Err(QueryError::unsupported(format!("this form of {name}()"), "call it with plain arguments")),
        }
        if matches!(call.name.as_str(), "date_trunc" | "date_part" | "bucket")
            && let Some(Expr::Text(unit)) = call.args.first_mut()
        {
            *unit = unit.to_lowercase();
        }
        call.over = match function.over {
            None => None,
            Some(WindowType::WindowSpec(window)) if window.window_frame.is_none() && window.window_name.is_none() => {
                let order = window.order_by.into_iter().map(|order| self.order(order)).collect::<Result<_, _>>()?;
                Some(Window { partition: self.list(window.partition_by)?, order })
            }
            Some(_) => {
                return Err(QueryError::unsupported("this form of OVER", "use: over (partition by a order by b)"));
            }
        };
        functions::check(&call)?;
        Ok(Expr::Call(call))
    }
}

fn literal(value: Value) -> Result<Expr, QueryError> {
    Ok(match value {
        Value::Number(text, _) => Expr::Number(text),
        Value::SingleQuotedString(text) => Expr::Text(text),
        Value::Boolean(value) => Expr::Bool(value),
        Value::Null => Expr::Null,
        other => return Err(QueryError::unsupported(format!("the literal {other}"), "use numbers and 'texts'")),
    })
}

fn unary(op: UnaryOperator) -> Result<&'static str, QueryError> {
    match op {
        UnaryOperator::Not => Ok("not"),
        UnaryOperator::Minus => Ok("-"),
        UnaryOperator::Plus => Ok("+"),
        other => Err(QueryError::unsupported(format!("the operator {other}"), "use not, + and -")),
    }
}

fn binary(op: &BinaryOperator) -> Result<&'static str, QueryError> {
    Ok(match op {
        BinaryOperator::Plus => "+",
        BinaryOperator::Minus => "-",
        BinaryOperator::Multiply => "*",
        BinaryOperator::Divide => "/",
        BinaryOperator::Modulo => "%",
        BinaryOperator::StringConcat => "||",
        BinaryOperator::Gt => ">",
        BinaryOperator::Lt => "<",
        BinaryOperator::GtEq => ">=",
        BinaryOperator::LtEq => "<=",
        BinaryOperator::Eq => "=",
        BinaryOperator::NotEq => "<>",
        BinaryOperator::And => "and",
        BinaryOperator::Or => "or",
        other => {
            return Err(QueryError::unsupported(
                format!("the operator {other}"),
                "use = != < <= > >= and or + - * / % || like in between",
            ));
        }
    })
}

fn cast_type(data_type: &DataType) -> Result<CastType, QueryError> {
    let text = data_type.to_string().to_lowercase();
    let name = text.split(['(', ' ']).next().unwrap_or_default();
    match name {
        "int" | "integer" | "bigint" | "smallint" | "int4" | "int8" => Ok(CastType::Integer),
        "float" | "double" | "real" | "numeric" | "decimal" | "float8" | "float4" => Ok(CastType::Double),
        "text" | "varchar" | "char" | "character" | "string" => Ok(CastType::Text),
        _ => Err(QueryError::unsupported(format!("a cast to {text}"), "cast to integer, double precision or text")),
    }
}
