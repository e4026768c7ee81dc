//! One answer out of many nodes.
//!
//! The statement is divided as it is over partitions ([`crate::plan`]): each cluster that holds a part of the table gets the same
//! partial statement, in the dialect, and answers with rows in frames ([`wire`]). One member of a cluster is asked; when it fails
//! before any of its rows was handed on, the next one is asked within the same query. Aggregates are put together only when a part is
//! complete, so a node may fail at any time; rows that stream to the caller end with an error instead.
//!
//! Rows of a part are kept in bounded pieces: a node is held up while nobody takes its rows.

mod ask;
mod choose;
mod part;
mod run;
mod sent;
mod wire;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use anylog_core::{CommandError, Status};
use anylog_dbms::{Column, ColumnType, SqlValue, TableSchema};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::execute::Kept;
use crate::history::Record;
use crate::plan::{self, Divided, Part};
use crate::service::{Found, Plan};
use crate::sql::bind::Scope;
use crate::sql::expr::CastType;
use crate::sql::{self, Now};
use crate::{QueryError, QueryService, Request};
use ask::{Again, Asking, Event, Missing, ask};
use choose::Slot;
pub(crate) use part::PartRequest;

/// Pieces of rows of one node that wait to be taken.
const AHEAD: usize = 4;

/// A query over several nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Who is asked.
    pub destination: Destination,
    /// Answer without the nodes that cannot be reached, and name them; else a missing node is an error.
    pub subset: bool,
    /// Ask the main member of each cluster; else all take turns.
    pub main: bool,
    /// Tables that are treated as the one that the statement names: database, when it is another, and table.
    pub include: Vec<(Option<String>, String)>,
    /// Columns in front that each node fills: names, and what they show (`@table_name`, `+variable`).
    pub extend: Vec<(String, String)>,
    /// How long a node may send no row.
    pub timeout: Option<Duration>,
    /// How long the query may take.
    pub max_time: Option<Duration>,
    /// Answer without the nodes that cannot be reached, and name them.
    pub send_any: bool,
    /// Answer without the nodes that were reached and gave no whole answer, and name them.
    pub reply_any: bool,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            destination: Destination::Tables,
            subset: false,
            main: true,
            include: Vec::new(),
            extend: Vec::new(),
            timeout: None,
            max_time: None,
            send_any: false,
            reply_any: false,
        }
    }
}

impl Network {
    /// Whether an answer may lack this part.
    fn allows(&self, missing: &Missing) -> bool {
        let unreached = |error: &CommandError| error.status == Status::REFUSED;
        let unreached = missing.reasons.iter().all(|(_, error)| unreached(error));
        self.subset || if unreached { self.send_any } else { self.reply_any }
    }
}

/// Who is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A member of each cluster that holds the table, as the ledger tells.
    Tables,
    /// These nodes, by `ip:port`.
    Nodes(Vec<String>),
}

/// How complete an answer is (QRY-2).
#[derive(Debug, Default)]
pub(crate) struct Coverage {
    asked: Mutex<u64>,
    missing: Mutex<Vec<String>>,
}

impl Coverage {
    /// An answer of this node alone.
    pub(crate) fn own() -> Arc<Self> {
        Arc::new(Self { asked: Mutex::new(1), missing: Mutex::default() })
    }

    /// The nodes asked, and those that gave no answer or lack files.
    pub(crate) fn get(&self) -> crate::Nodes {
        crate::Nodes { asked: *self.asked.lock(), missing: self.missing.lock().clone() }
    }

    fn asks(&self, nodes: usize) {
        let mut asked = self.asked.lock();
        *asked = (*asked).max(nodes as u64);
    }

    fn misses(&self, missing: &Missing) {
        let text = missing.to_string();
        let mut known = self.missing.lock();
        if !known.contains(&text) {
            known.push(text);
        }
    }
}

impl Missing {
    /// The documented status of the last failure.
    fn status(&self) -> Status {
        self.reasons.last().map_or(Status::NO_OPERATOR, |(_, error)| error.status)
    }
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.reasons.is_empty() {
            return write!(f, "cluster '{}': no active operator", self.name);
        }
        // A node that was asked for by its address is its own name.
        if !self.reasons.iter().any(|(address, _)| *address == self.name) {
            write!(f, "cluster '{}': ", self.name)?;
        }
        for (index, (address, error)) in self.reasons.iter().enumerate() {
            let separator = if index > 0 { "; " } else { "" };
            // The address stands in most messages.
            let message = &error.message;
            if message.contains(address.as_str()) {
                write!(f, "{separator}{message}")?;
            } else {
                write!(f, "{separator}{address}: {message}")?;
            }
        }
        Ok(())
    }
}

/// A table by its database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableName {
    dbms: String,
    table: String,
}

/// A statement divided over nodes.
pub(crate) struct Spread {
    divided: Divided,
    slots: Vec<Slot>,
    /// What the statement may name; see [`PartRequest`].
    columns: Vec<(String, String)>,
    /// Only rows that all members of their cluster have.
    committed: bool,
}

impl Spread {
    /// The statement of the nodes.
    pub(crate) fn part(&self) -> &Part {
        match &self.divided {
            Divided::Rows { part, .. } | Divided::Sorted { part, .. } => part,
            Divided::Merge(merge) => &merge.part,
        }
    }

    pub(crate) fn divided(&self) -> &Divided {
        &self.divided
    }
}

impl QueryService {
    /// Reads, checks and divides a statement.
    pub(crate) fn compile_network(
        self: &Arc<Self>,
        request: &Request,
        network: &Network,
        now: &Now,
        coverage: &Coverage,
        record: &Record,
    ) -> Result<Plan, QueryError> {
        let mut statement = sql::parse(&request.sql, now, None)?;
        let mut nothing = false;
        if let Some(period) = statement.period.take() {
            let leading = Request { sql: period.leading(statement.table()), ..request.clone() };
            let plain = Network { extend: Vec::new(), ..network.clone() };
            let Plan { select: _, found } = self.compile_network(&leading, &plain, now, coverage, record)?;
            let mut rows = Kept::default();
            if let Found::Spread(spread) = found {
                self.run_network(&plain, *spread, coverage, record, &mut rows)?;
            }
            match crate::service::period_end(&rows.0)? {
                Some(end) => statement = sql::parse(&request.sql, now, Some(&period.bounds(end)?))?,
                None => nothing = true,
            }
        }
        let tables = tables(network, &request.dbms, statement.table());
        let slots = self.slots(network, &tables)?;
        coverage.asks(distinct(&slots));
        let schema = self.network_schema(&tables, &slots, statement.asks_for_all())?;
        let added: Vec<String> = network.extend.iter().map(|(name, _)| name.clone()).collect();
        let origins = crate::extend::origins(&network.extend);
        let scope = Scope { added: &added, origins: &origins, ..Scope::new(&request.dbms, &schema) };
        let select = sql::bind::bind(statement, &scope, now)?;
        if nothing {
            return Ok(Plan { select, found: Found::Nothing });
        }
        let kind = |name: &str| schema.column(name).map(|column| column.kind);
        let divided = plan::divide(&select, &kind);
        let columns = plan::read_columns(&select, true)
            .into_iter()
            .filter_map(|name| {
                let word = PartRequest::word(cast_type(kind(&name)?));
                Some((name, word.to_owned()))
            })
            .collect();
        Ok(Plan {
            select,
            found: Found::Spread(Box::new(Spread { divided, slots, columns, committed: request.committed })),
        })
    }

    /// The columns of a table: those of its policy, else of the table here, else as the first node tells that has it.
    /// With `all` columns asked for, included tables must have the same.
    fn network_schema(
        self: &Arc<Self>,
        tables: &[TableName],
        slots: &[Slot],
        all: bool,
    ) -> Result<TableSchema, QueryError> {
        let schemas = tables.iter().map(|table| self.schema_of(table, slots)).collect::<Result<Vec<_>, _>>()?;
        let mut schemas = schemas.into_iter();
        let Some(first) = schemas.next() else { return Err(QueryError::syntax("a table is missing")) };
        for (other, table) in schemas.zip(&tables[1..]) {
            let names = |schema: &TableSchema| -> Vec<String> {
                schema.data_columns().iter().map(|column| column.name.clone()).collect()
            };
            if all && names(&first) != names(&other) {
                return Err(QueryError::unsupported(
                    format!("'*' with '{}.{}' included: its columns are others", table.dbms, table.table),
                    "name the columns after select; those that a table lacks are null",
                ));
            }
            // A column of one type cannot be taken for one of another.
            let differs = |column: &&Column| {
                first.column(&column.name).is_some_and(|own| cast_type(own.kind) != cast_type(column.kind))
            };
            if let Some(column) = other.columns.iter().find(differs) {
                return Err(QueryError::unsupported(
                    format!(
                        "including '{}.{}': its column '{}' has another type",
                        table.dbms, table.table, column.name
                    ),
                    "leave the table out, or query it alone",
                ));
            }
        }
        Ok(first)
    }

    fn schema_of(self: &Arc<Self>, table: &TableName, slots: &[Slot]) -> Result<TableSchema, QueryError> {
        let view = self.ledger().view();
        let text = view.table_policy(&table.dbms, &table.table).and_then(|policy| policy.text("create"));
        if let Some(schema) = text.and_then(|text| anylog_dbms::schema::parse_create(text).ok()) {
            return Ok(schema);
        }
        if let Ok(database) = self.catalog().get(&table.dbms)
            && let Some(schema) = database.dbms().schema(&table.table)?
        {
            return Ok(schema);
        }
        let unknown =
            || QueryError::UnknownTable { dbms: table.dbms.clone(), table: table.table.clone(), nearest: None };
        let slots: VecDeque<&Slot> = slots.iter().filter(|slot| slot.table == *table).collect();
        let mut failure = None;
        for slot in slots {
            match self.described(slot) {
                Ok(Some(schema)) => return Ok(schema),
                Ok(None) => {}
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(unknown))
    }

    /// The columns of a table as a node tells them; none when it has no such table.
    fn described(self: &Arc<Self>, slot: &Slot) -> Result<Option<TableSchema>, QueryError> {
        let (sender, mut events) = mpsc::channel(AHEAD);
        let request = PartRequest {
            from: self.node().address(),
            dbms: slot.table.dbms.clone(),
            table: slot.table.table.clone(),
            ..PartRequest::default()
        };
        let asking = Asking { service: Arc::clone(self), timeout: None, until: None, again: Again::FromTheStart };
        let note = crate::history::NodeNote::default();
        Handle::current().spawn(ask(Arc::new(asking), slot.clone(), request, note, sender, 0));
        let mut schema = None;
        while let Some((_, event)) = events.blocking_recv() {
            match event {
                Event::Rows(rows) => {
                    if let Some(Some(SqlValue::Text(text))) = rows.first().map(|row| row.first()) {
                        schema = Some(anylog_dbms::schema::parse_create(text)?);
                    }
                }
                Event::Begun(_) | Event::Again | Event::Lacking(_) | Event::Done { .. } => {}
                Event::Missing(missing) => return Err(missing.into()),
                Event::Failed(error) => return Err(error),
            }
        }
        Ok(schema)
    }
}

impl From<Missing> for QueryError {
    fn from(missing: Missing) -> Self {
        if missing.reasons.is_empty() {
            return QueryError::NoOperator { cluster: missing.name };
        }
        let error = missing.reasons.last().map(|(_, error)| error.clone());
        let (status, hint) = error.map_or((Status::REFUSED, None), |error| (error.status, error.hint));
        QueryError::MissingNode { text: missing.to_string(), status, hint }
    }
}

/// The tables that are asked: that of the statement first.
fn tables(network: &Network, dbms: &str, table: &str) -> Vec<TableName> {
    let name = |dbms: &str, table: &str| TableName { dbms: dbms.to_owned(), table: table.to_owned() };
    let mut tables = vec![name(dbms, table)];
    for (other, table) in &network.include {
        let included = name(other.as_deref().unwrap_or(dbms), table);
        if !tables.contains(&included) {
            tables.push(included);
        }
    }
    tables
}

/// The number of nodes that slots stand for: one that holds two tables counts once.
fn distinct(slots: &[Slot]) -> usize {
    // Clusters of two companies may have one name.
    let node = |slot: &Slot| (slot.name.clone(), slot.candidates.iter().map(|node| node.address.clone()).min());
    let mut nodes: Vec<_> = slots.iter().map(node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes.len()
}

fn cast_type(kind: ColumnType) -> CastType {
    match kind {
        ColumnType::Serial | ColumnType::Int | ColumnType::BigInt | ColumnType::Boolean => CastType::Integer,
        ColumnType::Double | ColumnType::Decimal => CastType::Double,
        _ => CastType::Text,
    }
}
