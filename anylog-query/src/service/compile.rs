//! From the text of a statement to what is done for it.

use std::ops::ControlFlow;
use std::sync::Arc;

use anylog_dbms::{Dbms, SqlValue, TableSchema, Target};
use jiff::tz::TimeZone;

use super::{QueryService, Request};
use crate::execute::{Kept, Row};
use crate::network::{PartRequest, Spread};
use crate::plan::{self, Steps};
use crate::sql::bind::{Scope, Select, bind};
use crate::sql::dates::Moment;
use crate::sql::expr::{Expr, quoted_name};
use crate::sql::{self, Now};
use crate::{QueryError, committed};

/// A statement that can be carried out.
pub(crate) struct Plan {
    pub(crate) select: Select,
    pub(crate) found: Found,
}

/// Where the rows of an answer are found.
pub(crate) enum Found {
    /// It is known that there are none.
    Nothing,
    /// In a database of this node.
    Here(Arc<dyn Dbms>, Steps),
    /// On several nodes.
    Spread(Box<Spread>),
}

impl QueryService {
    /// Reads, checks and plans a statement over this node; a period is looked up.
    pub(super) fn compile(&self, request: &Request, now: &Now) -> Result<Plan, QueryError> {
        let mut statement = sql::parse(&request.sql, now, None)?;
        let upto = if request.committed { self.committed_files()? } else { None };
        let database = self.catalog.get(&request.dbms)?;
        let dbms = Arc::clone(database.dbms());
        let mut empty = false;
        if let Some(period) = statement.period.take() {
            let leading = Request { sql: period.leading(statement.table()), extend: Vec::new(), ..request.clone() };
            let mut rows = Kept::default();
            let plan = self.compile(&leading, now)?;
            if let Found::Here(dbms, steps) = plan.found {
                self.run_here(&plan.select, &dbms, &steps, &mut rows)?;
            }
            match period_end(&rows.0)? {
                Some(end) => statement = sql::parse(&request.sql, now, Some(&period.bounds(end)?))?,
                None => empty = true,
            }
        }
        let schema = match dbms.schema(statement.table())? {
            Some(schema) => schema,
            None => return Err(unknown_table(&request.dbms, statement.table(), dbms.as_ref())?),
        };
        let shown: Vec<String> = request.extend.iter().map(|(name, _)| name.clone()).collect();
        let scope = Scope { shown: &shown, ..Scope::new(&request.dbms, &schema) };
        let select = only_committed(bind(statement, &scope, now)?, upto.as_deref(), &scope)?;
        if empty {
            return Ok(Plan { select, found: Found::Nothing });
        }
        let steps = steps(&select, dbms.as_ref(), &schema)?;
        Ok(Plan { select, found: Found::Here(dbms, steps) })
    }

    /// The same for the statement of another node, which is complete.
    pub(crate) fn compile_part(
        &self,
        request: &PartRequest,
        dbms: &Arc<dyn Dbms>,
        scope: &Scope<'_>,
        now: &Now,
        upto: Option<&[(i64, i64)]>,
    ) -> Result<(Select, Steps), QueryError> {
        let select = only_committed(bind(sql::parse(&request.sql, now, None)?, scope, now)?, upto, scope)?;
        let steps = part_steps(request, &select, dbms, scope)?;
        Ok((select, steps))
    }
}

/// The statement over the rows of these files, when it is not one over all rows.
fn only_committed(mut select: Select, upto: Option<&[(i64, i64)]>, scope: &Scope<'_>) -> Result<Select, QueryError> {
    if let Some(upto) = upto {
        let committed = committed::condition(upto, scope.dbms, scope.schema)?;
        select.filter = Some(match select.filter.take() {
            None => committed,
            Some(filter) => Expr::binary(filter, "and", committed),
        });
    }
    Ok(select)
}

/// The places of another node's statement on this node, and what runs there.
pub(crate) fn part_steps(
    request: &PartRequest,
    select: &Select,
    dbms: &Arc<dyn Dbms>,
    scope: &Scope<'_>,
) -> Result<Steps, QueryError> {
    if request.loose {
        return Ok(plan::loose(select, dbms.engine().into(), places(select, dbms.as_ref())?));
    }
    steps(select, dbms.as_ref(), scope.schema)
}

/// The places of a table on this node, and what runs there.
pub(super) fn steps(select: &Select, dbms: &dyn Dbms, schema: &TableSchema) -> Result<Steps, QueryError> {
    let kind = |name: &str| schema.column(name).map(|column| column.kind);
    Ok(plan::plan(select, dbms.engine().into(), places(select, dbms)?, &kind))
}

/// The places of a table on this node that may hold rows of an answer.
fn places(select: &Select, dbms: &dyn Dbms) -> Result<Vec<Target>, QueryError> {
    let partitions = dbms.partitions(&select.table)?;
    let mut targets = plan::targets(&select.table, partitions, select.filter.as_ref());
    // The table itself is usually empty beside its partitions; without it there is less to put together.
    if targets.len() > 1 && is_empty(dbms, &targets[0])? {
        targets.remove(0);
    }
    Ok(targets)
}

/// The end of a period: the greatest time that its leading statement found.
pub(crate) fn period_end(rows: &[Row]) -> Result<Option<jiff::Timestamp>, QueryError> {
    match rows.first().and_then(|row| row.first()) {
        None | Some(SqlValue::Null) => Ok(None),
        Some(SqlValue::Text(text)) => {
            let moment = Moment::parse(text, &TimeZone::UTC).and_then(Moment::instant);
            moment.map(Some).ok_or_else(|| not_a_time(text))
        }
        Some(other) => Err(not_a_time(&format!("{other:?}"))),
    }
}

fn is_empty(dbms: &dyn Dbms, target: &Target) -> Result<bool, QueryError> {
    let mut empty = true;
    let sql = format!("select 1 from {} limit 1", quoted_name(target.physical()));
    dbms.query(Some(target), &sql, &mut |_, _| {
        empty = false;
        ControlFlow::Break(())
    })?;
    Ok(empty)
}

fn not_a_time(text: &str) -> QueryError {
    QueryError::Arguments { function: "period", reason: format!("the column holds '{text}', which is not a time") }
}

fn unknown_table(name: &str, table: &str, dbms: &dyn Dbms) -> Result<QueryError, QueryError> {
    let tables = dbms.tables()?;
    let nearest = anylog_core::error::nearest(table, tables.iter().map(String::as_str)).map(str::to_owned);
    Ok(QueryError::UnknownTable { dbms: name.to_owned(), table: table.to_owned(), nearest })
}
