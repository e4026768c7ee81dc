//! Checks a statement against its table, and completes it: `*`, names of columns, types, times, groups of `increments`.

use anylog_dbms::{ColumnType, TableSchema};
use jiff::Timestamp;

use super::cast::Cast;
use super::expr::{Call, CastType, Expr, Order};
use super::{Moment, Now, RawItem, Statement, functions, increments};
use crate::QueryError;

/// A statement that can be planned.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Select {
    pub(crate) table: String,
    pub(crate) distinct: bool,
    pub(crate) items: Vec<Item>,
    pub(crate) filter: Option<Expr>,
    pub(crate) group: Vec<Expr>,
    pub(crate) having: Option<Expr>,
    pub(crate) order: Vec<Order>,
    pub(crate) limit: Option<u64>,
    pub(crate) offset: u64,
    /// `limit n per <column>`: the name of a column of the answer; `limit` counts for each of its values.
    pub(crate) per: Option<String>,
    /// What `increments` came to, for `query explain`.
    pub(crate) increments: Option<String>,
}

/// A column of the answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Item {
    pub(crate) name: String,
    pub(crate) expr: Expr,
    pub(crate) kind: Option<ColumnType>,
    pub(crate) casts: Vec<Cast>,
}

/// What a statement is checked against.
#[derive(Debug, Clone)]
pub(crate) struct Scope<'a> {
    /// The logical database, for messages.
    pub(crate) dbms: &'a str,
    /// The table.
    pub(crate) schema: &'a TableSchema,
    /// Names of columns that the answer gets in front where it is shown.
    pub(crate) shown: &'a [String],
    /// Columns that each node adds to its rows: they come first in the answer and in its groups.
    pub(crate) added: &'a [String],
    /// What the added or shown columns show, and their names: a statement may name them by either.
    pub(crate) origins: &'a [(String, String)],
    /// Columns whose value is the same in all rows here.
    pub(crate) constants: &'a [(String, Expr)],
}

impl<'a> Scope<'a> {
    /// A table as it is.
    pub(crate) fn new(dbms: &'a str, schema: &'a TableSchema) -> Self {
        Self { dbms, schema, shown: &[], added: &[], origins: &[], constants: &[] }
    }
}

/// Checks `statement` against a table.
pub(crate) fn bind(statement: Statement, scope: &Scope<'_>, now: &Now) -> Result<Select, QueryError> {
    let Scope { dbms, schema, shown: extended, added, origins, constants } = *scope;
    let table = Table { dbms, schema, added, origins, constants, zone: now };
    let Statement { raw, extras, increments, per, .. } = statement;
    let items = table.items(raw.items, extras, extended)?;
    let filter = raw.filter.map(|filter| table.expr(&filter)).transpose()?;
    if let Some(filter) = &filter
        && filter.any(|expr| expr.is_aggregate() || matches!(expr, Expr::Call(Call { over: Some(_), .. })))
    {
        return Err(QueryError::unsupported("an aggregate in WHERE", "filter groups with: having <condition>"));
    }
    let mut group = raw.group.iter().map(|expr| table.named(expr, &items, false)).collect::<Result<Vec<_>, _>>()?;
    let having = raw.having.map(|having| table.aliased(&having, &items)).transpose()?;
    let mut order = Vec::new();
    for entry in raw.order {
        order.push(Order { expr: table.named(&entry.expr, &items, true)?, ..entry });
    }
    if !added.is_empty()
        && (!group.is_empty() || increments.is_some() || items.iter().any(|item| item.expr.any(Expr::is_aggregate)))
    {
        let missing = |name: &&String| !group.iter().any(|key| matches!(key, Expr::Column(known) if known == *name));
        let first: Vec<Expr> = added.iter().filter(missing).map(|name| Expr::Column(name.clone())).collect();
        group.splice(0..0, first);
    }
    let mut info = None;
    if let Some(increments) = increments {
        let column = table.column(increments.column())?;
        if table.kind(&Expr::Column(column.clone())) != Some(ColumnType::Timestamp) {
            return Err(QueryError::Arguments {
                function: "increments",
                reason: format!("column '{column}' holds no time"),
            });
        }
        let bounds = filter.as_ref().map(|filter| bounds_of(filter, &column)).unwrap_or_default();
        let (unit, count) = increments.interval(&bounds, now.instant)?;
        info = Some(format!("{count} {unit:?} of {column}").to_lowercase());
        for key in increments::keys(unit, count, &column) {
            order.push(Order { expr: key.clone(), descending: false, nulls_first: None });
            group.push(key);
        }
    }
    check_names(&items, &per, extended)?;
    check_casts(&items)?;
    Ok(Select {
        table: raw.table,
        distinct: raw.distinct,
        items,
        filter,
        group,
        having,
        order,
        limit: raw.limit,
        offset: raw.offset,
        per,
        increments: info,
    })
}

fn check_names(items: &[Item], per: &Option<String>, extended: &[String]) -> Result<(), QueryError> {
    let names: Vec<&String> = extended.iter().chain(items.iter().map(|item| &item.name)).collect();
    for (index, name) in names.iter().enumerate() {
        if names[..index].contains(name) {
            return Err(QueryError::DuplicateName { name: (*name).clone() });
        }
    }
    match per {
        Some(per) if !names.contains(&per) => Err(QueryError::unsupported(
            format!("limit .. per {per}"),
            format!("name the column after select too: {per}"),
        )),
        _ => Ok(()),
    }
}

fn check_casts(items: &[Item]) -> Result<(), QueryError> {
    for item in items {
        for column in item.casts.iter().flat_map(Cast::columns) {
            if !items.iter().any(|item| item.name == column) {
                let function = "cast";
                let reason = format!("'{column}' in a cast of '{}' is not a column of the answer", item.name);
                return Err(QueryError::Arguments { function, reason });
            }
        }
    }
    Ok(())
}

/// The instants that AND-ed conditions compare a column with, in their order.
pub(crate) fn bounds_of(filter: &Expr, column: &str) -> Vec<Timestamp> {
    let is_column = |expr: &Expr| matches!(expr, Expr::Column(name) if name == column);
    let instant = |expr: &Expr| match expr {
        Expr::Text(text) => Moment::parse(text, &jiff::tz::TimeZone::UTC)?.instant(),
        _ => None,
    };
    let mut bounds = Vec::new();
    for term in filter.terms() {
        match term {
            Expr::Binary(left, "<" | "<=" | ">" | ">=", right) if is_column(left) => bounds.extend(instant(right)),
            Expr::Binary(left, "<" | "<=" | ">" | ">=", right) if is_column(right) => bounds.extend(instant(left)),
            Expr::Between { expr, negated: false, low, high } if is_column(expr) => {
                bounds.extend(instant(low).into_iter().chain(instant(high)));
            }
            _ => {}
        }
    }
    bounds
}

struct Table<'a> {
    dbms: &'a str,
    schema: &'a TableSchema,
    added: &'a [String],
    origins: &'a [(String, String)],
    constants: &'a [(String, Expr)],
    zone: &'a Now,
}

impl Table<'_> {
    fn items(
        &self,
        raw: Vec<RawItem>,
        extras: Vec<(String, Vec<Cast>)>,
        extended: &[String],
    ) -> Result<Vec<Item>, QueryError> {
        let added = self.added.iter().map(|name| Item {
            name: name.clone(),
            expr: Expr::Column(name.clone()),
            kind: Some(ColumnType::Varchar),
            casts: Vec::new(),
        });
        let mut items: Vec<Item> = added.collect();
        for (item, (title, casts)) in raw.into_iter().zip(extras) {
            match item {
                RawItem::All if !casts.is_empty() => {
                    return Err(QueryError::syntax("'*' takes no cast: name the column"));
                }
                RawItem::All => items.extend(self.schema.columns.iter().map(|column| Item {
                    name: column.name.clone(),
                    expr: Expr::Column(column.name.clone()),
                    kind: Some(column.kind),
                    casts: Vec::new(),
                })),
                RawItem::One(Expr::Column(name), _)
                    if (extended.contains(&name) || self.added.contains(&name) || self.origin(&name).is_some())
                        && self.schema.column(&name).is_none() => {}
                RawItem::One(expr, alias) => {
                    let written = expr;
                    let expr = self.expr(&written)?;
                    self.check_range(&expr)?;
                    let name = match (alias, &expr, &written) {
                        (Some(alias), ..) => alias,
                        // `select distinct(column)` is named as the call that it looks like.
                        _ if title.starts_with("distinct(") => title,
                        (None, Expr::Column(name), _) => name.clone(),
                        // A constant stands for the column.
                        (None, _, Expr::Column(name)) => name.clone(),
                        _ => title,
                    };
                    items.push(Item { name, kind: self.kind(&expr), expr, casts });
                }
            }
        }
        Ok(items)
    }

    fn check_range(&self, expr: &Expr) -> Result<(), QueryError> {
        let mut wrong = None;
        expr.visit(&mut |expr| {
            if let Expr::Call(call) = expr
                && call.name == "range"
                && matches!(
                    call.args.first().and_then(|arg| self.kind(arg)),
                    Some(ColumnType::Timestamp | ColumnType::Varchar)
                )
            {
                wrong =
                    Some(QueryError::Arguments { function: "range", reason: "the column holds no numbers".to_owned() });
            }
        });
        wrong.map_or(Ok(()), Err)
    }

    /// The name of the added column that shows what a statement names.
    fn origin(&self, name: &str) -> Option<&String> {
        self.origins.iter().find(|(origin, _)| origin == name).map(|(_, added)| added)
    }

    /// A column by its stored name, or the value that stands for it here.
    fn value(&self, name: &str) -> Result<Expr, QueryError> {
        match self.constants.iter().find(|(known, _)| known == name) {
            Some((_, value)) => Ok(value.clone()),
            None => self.column(name).map(Expr::Column),
        }
    }

    /// The stored name of a column.
    fn column(&self, name: &str) -> Result<String, QueryError> {
        let lower = name.to_lowercase();
        if let Some(column) = self.schema.column(name).or_else(|| self.schema.column(&lower)) {
            return Ok(column.name.clone());
        }
        let is_origin = |added: &&String| self.origin(&lower) == Some(*added);
        if let Some(added) = self.added.iter().find(|added| **added == name || **added == lower || is_origin(added)) {
            return Ok(added.clone());
        }
        let known = self.schema.columns.iter().map(|column| column.name.as_str());
        Err(QueryError::UnknownColumn {
            column: name.to_owned(),
            dbms: self.dbms.to_owned(),
            table: self.schema.name.clone(),
            nearest: anylog_core::error::nearest(&lower, known).map(str::to_owned),
        })
    }

    /// An expression over the columns of the table.
    fn expr(&self, expr: &Expr) -> Result<Expr, QueryError> {
        let bound = match expr {
            Expr::Column(name) => return self.value(name),
            other => other.map(&mut |child| self.expr(child))?,
        };
        self.with_times(bound)
    }

    /// An entry of `group by` or `order by`: a column of the table, a name or a number of the answer's columns. As in SQL, the
    /// answer's names come first in `order by` and last in `group by`.
    fn named(&self, expr: &Expr, items: &[Item], answer_first: bool) -> Result<Expr, QueryError> {
        match expr {
            Expr::Number(text) => {
                let item = text.parse::<usize>().ok().and_then(|number| items.get(number.checked_sub(1)?));
                item.map(|item| item.expr.clone())
                    .ok_or_else(|| QueryError::syntax(format!("'{text}' is not the number of a column of the answer")))
            }
            Expr::Column(name) if answer_first => match items.iter().find(|item| item.name == *name) {
                Some(item) => Ok(item.expr.clone()),
                None => self.value(name),
            },
            other => self.aliased(other, items),
        }
    }

    /// An expression over the columns of the table, else over the names of the answer.
    fn aliased(&self, expr: &Expr, items: &[Item]) -> Result<Expr, QueryError> {
        let bound = match expr {
            Expr::Column(name) => {
                return match (self.value(name), items.iter().find(|item| item.name == *name)) {
                    (Err(_), Some(item)) => Ok(item.expr.clone()),
                    (value, _) => value,
                };
            }
            other => other.map(&mut |child| self.aliased(child, items))?,
        };
        self.with_times(bound)
    }

    /// Texts that are compared with a time take its stored form.
    fn with_times(&self, expr: Expr) -> Result<Expr, QueryError> {
        Ok(match expr {
            Expr::Binary(left, op @ ("=" | "<>" | "<" | "<=" | ">" | ">="), right) => {
                let (left_kind, right_kind) = (self.kind(&left), self.kind(&right));
                let left = self.stored(*left, right_kind)?;
                let right = self.stored(*right, left_kind)?;
                Expr::binary(left, op, right)
            }
            Expr::Between { expr, negated, low, high } => {
                let kind = self.kind(&expr);
                let (low, high) = (Box::new(self.stored(*low, kind)?), Box::new(self.stored(*high, kind)?));
                Expr::Between { expr, negated, low, high }
            }
            Expr::In { expr, negated, list } => {
                let kind = self.kind(&expr);
                let list = list.into_iter().map(|value| self.stored(value, kind)).collect::<Result<_, _>>()?;
                Expr::In { expr, negated, list }
            }
            other => other,
        })
    }

    fn stored(&self, expr: Expr, kind: Option<ColumnType>) -> Result<Expr, QueryError> {
        let Expr::Text(text) = &expr else { return Ok(expr) };
        let parse = || Moment::parse(text, &self.zone.zone).ok_or_else(|| super::dates::not_a_date(text));
        let outside = || super::dates::not_a_date(text);
        match kind {
            Some(ColumnType::Timestamp) => {
                let instant = parse()?.instant().ok_or_else(outside)?;
                Ok(Expr::Text(anylog_core::time::stored(instant)))
            }
            Some(ColumnType::Date) => {
                let instant = parse()?.instant().ok_or_else(outside)?;
                Ok(Expr::Text(anylog_core::time::stored(instant).chars().take(10).collect()))
            }
            _ => Ok(expr),
        }
    }

    /// The type of an expression's value, when it is known.
    fn kind(&self, expr: &Expr) -> Option<ColumnType> {
        match expr {
            Expr::Column(name) if self.added.contains(name) => Some(ColumnType::Varchar),
            Expr::Column(name) => self.schema.column(name).map(|column| column.kind),
            Expr::Bool(_) | Expr::Is(..) | Expr::Between { .. } | Expr::In { .. } | Expr::Like { .. } => {
                Some(ColumnType::Boolean)
            }
            Expr::Unary("not", _) => Some(ColumnType::Boolean),
            Expr::Unary(_, inner) => self.kind(inner),
            Expr::Binary(_, "=" | "<>" | "<" | "<=" | ">" | ">=" | "and" | "or", _) => Some(ColumnType::Boolean),
            Expr::Binary(_, "||", _) | Expr::Text(_) => Some(ColumnType::Varchar),
            Expr::Binary(left, _, right) => match (self.kind(left), self.kind(right)) {
                (Some(ColumnType::Double), _) | (_, Some(ColumnType::Double)) => Some(ColumnType::Double),
                _ => None,
            },
            Expr::Case { branches, .. } => branches.first().and_then(|(_, result)| self.kind(result)),
            Expr::Cast(_, CastType::Integer) => Some(ColumnType::BigInt),
            Expr::Cast(_, CastType::Double) => Some(ColumnType::Double),
            Expr::Cast(_, CastType::Text) => Some(ColumnType::Varchar),
            Expr::Call(call) => functions::type_of(call, &|arg| self.kind(arg)),
            Expr::Null | Expr::Number(_) => None,
        }
    }
}
