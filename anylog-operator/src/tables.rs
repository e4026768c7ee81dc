//! The tables that rows go to: known, found or made at the first row.
//!
//! A table that was never seen is created before its first row is acknowledged: its schema comes from the table policy, else
//! from the local table, else from declared types and the data; its policy and the cluster's child policy are published; the
//! table is created and brought to stable storage.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use anylog_core::Status;
use anylog_core::time::stored;
use anylog_dbms::schema::{RowConverter, TimeWindow, create_text, infer, parse_create};
use anylog_dbms::{Catalog, ColumnType, Database, DbmsError, SqlValue, TableSchema};
use anylog_ingest::SinkError;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use parking_lot::{Mutex, RwLock};

use crate::OperatorError;
use crate::journal::record::SegmentHeader;
use crate::publish::Publisher;
use crate::thresholds::{TimeRule, TimeRules};

/// The columns that the operator fills, before those of the data.
const OWN_COLUMNS: [&str; 3] = ["insert_timestamp", "tsd_name", "tsd_id"];

/// A table that rows can be stored in. Replaced as a whole when anything about it changes.
#[derive(Debug)]
pub(crate) struct TableState {
    pub(crate) dbms: String,
    pub(crate) table: String,
    pub(crate) database: Arc<Database>,
    pub(crate) schema: TableSchema,
    pub(crate) converter: RowConverter,
    pub(crate) zone: TimeZone,
    /// The columns of a stored row: the operator's own, then those of the data.
    pub(crate) columns: Vec<String>,
    rule: TimeRule,
    partitions: Mutex<HashSet<String>>,
}

impl TableState {
    fn new(dbms: &str, database: Arc<Database>, schema: TableSchema, zone: TimeZone, rule: TimeRule) -> Self {
        let own = OWN_COLUMNS.iter().map(|name| (*name).to_owned());
        let columns = own.chain(schema.data_columns().iter().map(|column| column.name.clone())).collect();
        Self {
            dbms: dbms.to_owned(),
            table: schema.name.clone(),
            converter: RowConverter::new(&schema, zone.clone(), rule.window),
            columns,
            database,
            schema,
            zone,
            rule,
            partitions: Mutex::default(),
        }
    }

    /// A converter for rows that were accepted before: the zone of that time, and no window.
    pub(crate) fn replay_converter(&self, zone: &str) -> RowConverter {
        let unlimited = TimeWindow { past: None, future: std::time::Duration::from_secs(u64::from(u32::MAX)) };
        RowConverter::new(&self.schema, zone_from(zone), unlimited)
    }

    /// The values of the operator's own columns.
    pub(crate) fn own_values(&self, segment: &SegmentHeader, received: Timestamp) -> Vec<SqlValue> {
        let file_id = segment.file_id.map_or(SqlValue::Null, SqlValue::Int);
        vec![SqlValue::Text(stored(received)), SqlValue::Text(segment.member.clone()), file_id]
    }

    /// How many values the data of a row has.
    pub(crate) fn data_width(&self) -> usize {
        self.columns.len() - OWN_COLUMNS.len()
    }

    /// Which value of a row decides its partition, when the operator's time does not.
    pub(crate) fn place_of(&self, column: &str) -> Option<usize> {
        self.schema.data_columns().iter().position(|known| known.name == column)
    }

    /// Whether this is the column of the time of arrival.
    pub(crate) fn is_arrival(&self, column: &str) -> bool {
        column == OWN_COLUMNS[0]
    }

    /// The time that decides a row's partition; none when the row has none.
    pub(crate) fn partition_time(&self, column: &str, received: Timestamp, data: &[SqlValue]) -> Option<Timestamp> {
        if column == OWN_COLUMNS[0] {
            return Some(received);
        }
        let index = self.schema.data_columns().iter().position(|known| known.name == column)?;
        match data.get(index)? {
            SqlValue::Text(text) => {
                let civil: jiff::civil::DateTime = text.parse().ok()?;
                Some(civil.to_zoned(TimeZone::UTC).ok()?.timestamp())
            }
            _ => None,
        }
    }

    /// Makes the table, and a partition of it, unless they are there. Blocks.
    pub(crate) fn create(&self, partition: Option<&str>) -> Result<(), DbmsError> {
        let dbms = self.database.dbms();
        dbms.create_table(&self.schema)?;
        match partition {
            Some(partition) => {
                dbms.create_partition(&self.schema, partition)?;
                self.partitions.lock().insert(partition.to_owned());
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Whether the partition was made or seen by this process.
    pub(crate) fn knows_partition(&self, partition: &str) -> bool {
        self.partitions.lock().contains(partition)
    }

    /// Whether rows may make another partition beside that of the present.
    pub(crate) fn takes_partitions(&self) -> bool {
        self.partitions.lock().len() < self.rule.partitions
    }

    /// How many partitions it may have before rows make no further ones.
    pub(crate) fn partition_limit(&self) -> usize {
        self.rule.partitions
    }

    /// Notes the partitions that are there. Blocks.
    fn see_partitions(&self) -> Result<(), DbmsError> {
        let there = self.database.dbms().partitions(&self.table)?;
        self.partitions.lock().extend(there);
        Ok(())
    }

    /// Forgets that a partition is there.
    pub(crate) fn forget_partition(&self, partition: &str) {
        self.partitions.lock().remove(partition);
    }
}

/// The name under which a zone is kept in the journal.
pub(crate) fn zone_name(zone: &TimeZone) -> String {
    match zone.iana_name() {
        Some(name) => name.to_owned(),
        None => {
            zone.to_fixed_offset().map_or_else(|_| "UTC".to_owned(), |offset| format!("offset:{}", offset.seconds()))
        }
    }
}

fn zone_from(name: &str) -> TimeZone {
    if let Ok(zone) = TimeZone::get(name) {
        return zone;
    }
    // A fixed offset, kept as seconds east of Greenwich.
    let seconds = name.strip_prefix("offset:").and_then(|seconds| seconds.parse().ok());
    let offset = seconds.and_then(|seconds| jiff::tz::Offset::from_seconds(seconds).ok());
    offset.map_or(TimeZone::UTC, TimeZone::fixed)
}

/// What `run operator` says about tables.
#[derive(Debug, Clone, Default)]
pub(crate) struct TableRules {
    /// Whether unknown tables are created.
    pub(crate) create: bool,
    /// The only tables allowed, as `dbms.table`; none: all.
    pub(crate) only: Option<BTreeSet<(String, String)>>,
    /// Whether rows carry ids of `tsd_info`.
    pub(crate) registered: bool,
}

/// All tables seen since the start.
#[derive(Debug)]
pub(crate) struct Tables {
    catalog: Arc<Catalog>,
    publisher: Publisher,
    rules: RwLock<TableRules>,
    windows: RwLock<TimeRules>,
    known: RwLock<HashMap<(String, String), Arc<TableState>>>,
    // Tables are made one at a time: the first sender makes it, the others wait and find it.
    making: tokio::sync::Mutex<()>,
}

impl Tables {
    pub(crate) fn new(catalog: Arc<Catalog>, publisher: Publisher) -> Self {
        Self {
            catalog,
            publisher,
            rules: RwLock::default(),
            windows: RwLock::default(),
            known: RwLock::default(),
            making: tokio::sync::Mutex::default(),
        }
    }

    pub(crate) fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    pub(crate) fn set_rules(&self, rules: TableRules) {
        *self.rules.write() = rules;
        self.known.write().clear();
    }

    pub(crate) fn set_windows(&self, windows: TimeRules) {
        *self.windows.write() = windows;
        self.known.write().clear();
    }

    /// A converter for rows of a table that does not exist, as it would be made of these rows.
    pub(crate) fn converter_of_new(
        &self,
        dbms: &str,
        table: &str,
        rows: &[String],
        declared: &[(String, String)],
    ) -> Result<RowConverter, DbmsError> {
        let published = self.publisher.create_text(dbms, table).and_then(|text| parse_create(&text).ok());
        let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
        let schema = match published {
            Some(published) => published,
            None => infer(table, &rows, declared, true)?,
        };
        Ok(RowConverter::new(&schema, self.catalog.node().time_zone(), self.rule(dbms, table).window))
    }

    fn rule(&self, dbms: &str, table: &str) -> TimeRule {
        self.windows.read().of(dbms, table)
    }

    /// Forgets a dropped partition: rows that come later make it anew.
    pub(crate) fn forget_partition(&self, dbms: &str, table: &str, partition: &str) {
        if let Some(state) = self.known.read().get(&(dbms.to_owned(), table.to_owned())) {
            state.forget_partition(partition);
        }
    }

    /// Forgets a dropped table: rows that come later make it anew.
    pub(crate) fn forget_table(&self, dbms: &str, table: &str) {
        self.known.write().remove(&(dbms.to_owned(), table.to_owned()));
    }

    fn cached(&self, dbms: &str, table: &str) -> Result<Option<Arc<TableState>>, SinkError> {
        let known = self.known.read().get(&(dbms.to_owned(), table.to_owned())).cloned();
        let Some(state) = known else { return Ok(None) };
        let connected = self.catalog.get(dbms).map_err(|_| SinkError::UnknownDbms { dbms: dbms.to_owned() })?;
        let fresh = Arc::ptr_eq(&connected, &state.database) && state.zone == self.catalog.node().time_zone();
        Ok(fresh.then_some(state))
    }

    /// The table for these rows, made when it is new.
    pub(crate) async fn ensure(
        &self,
        dbms: &str,
        table: &str,
        rows: &[String],
        declared: &[(String, String)],
    ) -> Result<Arc<TableState>, SinkError> {
        self.ensure_as(dbms, table, rows, declared, None).await
    }

    /// As [`Self::ensure`]; for rows of another member, with the text that creates their table there, if it is known. It counts when
    /// the table is neither here nor published.
    pub(crate) async fn ensure_as(
        &self,
        dbms: &str,
        table: &str,
        rows: &[String],
        declared: &[(String, String)],
        create: Option<&str>,
    ) -> Result<Arc<TableState>, SinkError> {
        if let Some(state) = self.cached(dbms, table)? {
            return Ok(state);
        }
        let database = self.catalog.get(dbms).map_err(|_| SinkError::UnknownDbms { dbms: dbms.to_owned() })?;
        let rules = self.rules.read().clone();
        let refused = |status: Status, reason: &str| SinkError::Table {
            dbms: dbms.to_owned(),
            table: table.to_owned(),
            reason: reason.to_owned(),
            status,
        };
        if rules.only.as_ref().is_some_and(|only| !only.contains(&(dbms.to_owned(), table.to_owned()))) {
            return Err(refused(Status::TABLE_EXCLUDED, "limit_tables of the operator excludes it"));
        }
        // Before the lock: nobody else's table waits for this policy.
        if create.is_some_and(str::is_empty) && self.local_schema(&database, table).await?.is_none() {
            self.publisher.await_table(dbms, table).await;
        }
        let _one_at_a_time = self.making.lock().await;
        if let Some(state) = self.cached(dbms, table)? {
            return Ok(state);
        }
        let local = self.local_schema(&database, table).await?;
        let published = self.publisher.create_text(dbms, table).map(|text| parse_create(&text));
        let published =
            published.transpose().map_err(|error| refused(Status::INCONSISTENT_DECLARATION, &error.to_string()))?;
        let schema = match (local, published) {
            (Some(local), Some(published)) if same_columns(&local, &published) => published,
            (Some(local), Some(_)) => local,
            (Some(_), None) if !rules.create => {
                return Err(refused(
                    Status::CREATE_NOT_ALLOWED,
                    "the operator runs with create_table = false, and no policy describes it",
                ));
            }
            (Some(local), None) => {
                let source = format!("Local schema from {}", self.catalog.node().address());
                self.publisher.publish_table(dbms, table, &create_text(&local), &source).await?;
                local
            }
            (None, _) if !rules.create => {
                return Err(refused(Status::CREATE_NOT_ALLOWED, "the operator runs with create_table = false"));
            }
            (None, Some(published)) => published,
            (None, None) => {
                let given = create.filter(|text| !text.is_empty()).and_then(|text| parse_create(text).ok());
                let schema = match given.filter(|schema| schema.name == table) {
                    Some(given) => given,
                    None => {
                        let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
                        infer(table, &rows, declared, rules.registered).map_err(OperatorError::from)?
                    }
                };
                self.publisher.publish_table(dbms, table, &create_text(&schema), "Processing JSON file").await?;
                schema
            }
        };
        if rules.create {
            self.publisher.publish_location(dbms, table).await?;
        }
        let zone = self.catalog.node().time_zone();
        let state = Arc::new(TableState::new(dbms, database, schema, zone, self.rule(dbms, table)));
        let creating = Arc::clone(&state);
        blocking(move || {
            creating.create(None)?;
            creating.see_partitions()?;
            // The journal relies on the table: it must outlive a power loss as the journal does.
            creating.database.dbms().sync()
        })
        .await?;
        self.remember(&state);
        Ok(state)
    }

    /// The text that creates a table; none when it is not known.
    pub(crate) fn create_text(&self, dbms: &str, table: &str) -> Option<String> {
        let known = self.known.read().get(&(dbms.to_owned(), table.to_owned())).map(|state| create_text(&state.schema));
        known.or_else(|| self.publisher.create_text(dbms, table))
    }

    /// The table for rows of the journal; nothing is published. Blocks.
    pub(crate) fn for_rows(
        &self,
        database: &Arc<Database>,
        table: &str,
        rows: &[String],
    ) -> Result<Arc<TableState>, DbmsError> {
        let known = self.known.read().get(&(database.name().to_owned(), table.to_owned())).cloned();
        if let Some(known) = known.filter(|known| Arc::ptr_eq(&known.database, database)) {
            return Ok(known);
        }
        let local = database.dbms().schema(table)?;
        let published = self.publisher.create_text(database.name(), table).and_then(|text| parse_create(&text).ok());
        let schema = match (local, published) {
            (Some(local), Some(published)) if same_columns(&local, &published) => published,
            (Some(local), _) => local,
            (None, Some(published)) => published,
            (None, None) => {
                let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
                infer(table, &rows, &[], true)?
            }
        };
        let zone = self.catalog.node().time_zone();
        let state =
            TableState::new(database.name(), Arc::clone(database), schema, zone, self.rule(database.name(), table));
        state.create(None)?;
        Ok(Arc::new(state))
    }

    async fn local_schema(&self, database: &Arc<Database>, table: &str) -> Result<Option<TableSchema>, SinkError> {
        let (dbms, table) = (Arc::clone(database.dbms()), table.to_owned());
        Ok(blocking(move || dbms.schema(&table)).await?)
    }

    fn remember(&self, state: &Arc<TableState>) {
        self.known.write().insert((state.dbms.clone(), state.table.clone()), Arc::clone(state));
    }

    /// Makes columns of a table wide enough for a fraction, in the database and in the policy.
    pub(crate) async fn widen(
        &self,
        state: &Arc<TableState>,
        columns: &BTreeSet<usize>,
    ) -> Result<Arc<TableState>, SinkError> {
        let _one_at_a_time = self.making.lock().await;
        let current = self.cached(&state.dbms, &state.table)?.unwrap_or_else(|| Arc::clone(state));
        let mut schema = current.schema.clone();
        let mut names = Vec::new();
        for index in columns {
            let at = anylog_dbms::schema::BOOKKEEPING_COLUMNS + index;
            if let Some(column) = schema.columns.get_mut(at)
                && column.kind == ColumnType::BigInt
            {
                column.kind = ColumnType::Double;
                names.push(column.name.clone());
            }
        }
        if names.is_empty() {
            return Ok(current);
        }
        let (database, table) = (Arc::clone(&current.database), current.table.clone());
        blocking(move || {
            names.iter().try_for_each(|name| database.dbms().widen_column(&table, name, ColumnType::Double))?;
            database.dbms().sync()
        })
        .await?;
        self.publisher.update_table(&current.dbms, &current.table, &create_text(&schema)).await?;
        let wide =
            TableState::new(&current.dbms, Arc::clone(&current.database), schema, current.zone.clone(), current.rule);
        *wide.partitions.lock() = current.partitions.lock().clone();
        let wide = Arc::new(wide);
        self.remember(&wide);
        Ok(wide)
    }

    /// Makes a partition unless this process knows it.
    pub(crate) async fn ensure_partition(&self, state: &Arc<TableState>, partition: &str) -> Result<(), SinkError> {
        if state.knows_partition(partition) {
            return Ok(());
        }
        // Senders that come together wait for one of them, not each on a thread of its own.
        let _one_at_a_time = self.making.lock().await;
        if state.knows_partition(partition) {
            return Ok(());
        }
        let (state, partition) = (Arc::clone(state), partition.to_owned());
        Ok(blocking(move || state.create(Some(&partition))).await?)
    }
}

/// Whether two schemas have the same columns, whatever their types: the local table and its policy.
fn same_columns(a: &TableSchema, b: &TableSchema) -> bool {
    let names = |schema: &TableSchema| -> BTreeSet<String> {
        schema.columns.iter().map(|column| column.name.clone()).collect()
    };
    names(a) == names(b)
}

/// Runs database work on a blocking thread.
pub(crate) async fn blocking<T: Send + 'static, E: Into<OperatorError> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, OperatorError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(Into::into),
        Err(error) => Err(SinkError::Failed { reason: format!("a database task ended: {error}") }.into()),
    }
}

#[cfg(test)]
mod tests;
