//! PostgreSQL: a logical database is a database of the server, made on demand; a partition is a table of its own beside its
//! parent.
//!
//! Every commit is durable when the call returns, as the server is configured (`synchronous_commit`), so [`Dbms::sync`] has
//! nothing to do. With `unlog` the server keeps no log of the tables: they are faster, and empty after a crash of the server.
//!
//! A connection that was lost is made again with the next call. A write whose commit got no answer is reported as failed, and
//! the applied marks tell whether it happened.

mod arrays;
mod connection;
mod describe;
mod failure;
mod rows;

use std::collections::HashMap;

use diesel::connection::{Connection, SimpleConnection};
use diesel::result::Error;
use diesel::{PgConnection, QueryResult, RunQueryDsl};
use parking_lot::Mutex;

use crate::dbms::Visit;
use crate::partition::{partitions_of, without_partitions};
use crate::schema::ddl::{check_name, quoted, statements};
use crate::{Checked, ColumnType, ConnectRequest, Dbms, DbmsError, DbmsInfo, Engine, SegmentId, SqlValue, TableSchema, Target};
use arrays::{Insert, column_array};
use connection::{Pool, Server};
use rows::{Statement, collect, select};

/// Rows per statement, which bounds the memory that one takes.
const ROWS: usize = 5000;

const MARKS: &str = "CREATE TABLE IF NOT EXISTS anylog_applied(segment_id TEXT NOT NULL, target TEXT NOT NULL, \
                     last_ordinal BIGINT NOT NULL, PRIMARY KEY(segment_id, target))";

/// A PostgreSQL database.
#[derive(Debug)]
pub struct PostgresDbms {
    name: String,
    server: Server,
    autocommit: bool,
    unlog: bool,
    writer: Mutex<Writer>,
    readers: Pool,
}

#[derive(Default)]
struct Writer {
    connection: Option<PgConnection>,
    // Column types by physical table; cleared when a table changes.
    kinds: HashMap<String, HashMap<String, ColumnType>>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("connected", &self.connection.is_some()).finish_non_exhaustive()
    }
}

impl PostgresDbms {
    pub(crate) fn connect(request: &ConnectRequest) -> Result<Self, DbmsError> {
        let server = Server::of(request);
        let mut connection = server.connect_or_create()?;
        connection.batch_execute(MARKS).map_err(|error| failure::connect(&request.name, error))?;
        let readers = Pool::new(server.clone());
        Ok(Self {
            name: request.name.clone(),
            server,
            autocommit: request.autocommit,
            unlog: request.unlog,
            writer: Mutex::new(Writer { connection: Some(connection), kinds: HashMap::new() }),
            readers,
        })
    }

    /// Drops the database at its server.
    pub(crate) fn delete(request: &ConnectRequest) -> Result<(), DbmsError> {
        let mut connection = Server::of(request).maintenance()?;
        connection
            .batch_execute(&format!("DROP DATABASE {}", quoted(&request.name)))
            .map_err(|error| failure::connect(&request.name, error))
    }

    /// Runs a statement with `?` for each parameter and returns the rows that it returns.
    pub(crate) fn change(&self, sql: &str, params: &[SqlValue]) -> Result<Vec<Vec<SqlValue>>, DbmsError> {
        self.write(|connection, _| collect(connection, Statement { sql, params }))
    }

    /// Runs a SELECT with `?` for each parameter.
    pub(crate) fn rows(&self, sql: &str, params: &[SqlValue]) -> Result<Vec<Vec<SqlValue>>, DbmsError> {
        self.readers.with(|connection, _| collect(connection, Statement { sql, params }))
    }

    /// Runs `work` in a transaction. The connection is made again when it turns out lost before anything was done.
    fn write<T>(
        &self,
        mut work: impl FnMut(&mut PgConnection, &mut HashMap<String, HashMap<String, ColumnType>>) -> QueryResult<T>,
    ) -> Result<T, DbmsError> {
        let mut writer = self.writer.lock();
        let Writer { connection, kinds } = &mut *writer;
        for attempt in 0.. {
            let open = match connection {
                Some(open) => open,
                None => connection.insert(self.server.connect()?),
            };
            let mut begun = false;
            let result = open.transaction(|open| {
                begun = true;
                work(open, kinds)
            });
            match result {
                Ok(value) => return Ok(value),
                Err(error) if failure::is_lost(&error) => {
                    *connection = None;
                    if begun || attempt > 0 {
                        return Err(failure::statement(&self.name, &error));
                    }
                }
                Err(error) => return Err(failure::statement(&self.name, &error)),
            }
        }
        unreachable!("invariant: the loop ends at its second turn at the latest")
    }

    /// Runs statements that change tables, in one transaction.
    fn change_tables(&self, sql: &str) -> Result<(), DbmsError> {
        // A reader that stands still must not hold the node up for ever.
        let sql = format!("SET LOCAL lock_timeout = '30s'; {sql}");
        self.write(|connection, kinds| {
            kinds.clear();
            connection.batch_execute(&sql)
        })
    }

    fn table_names(&self) -> Result<Vec<String>, DbmsError> {
        let rows = self.rows(describe::TABLES, &[])?;
        Ok(rows.into_iter().filter_map(|mut row| text(row.pop()?)).collect())
    }

    fn no_table(&self, table: &str) -> DbmsError {
        DbmsError::NoTable { dbms: self.name.clone(), table: table.to_owned() }
    }
}

fn text(value: SqlValue) -> Option<String> {
    match value {
        SqlValue::Text(text) => Some(text),
        _ => None,
    }
}

impl Dbms for PostgresDbms {
    fn engine(&self) -> Engine {
        Engine::Postgres
    }

    fn info(&self) -> DbmsInfo {
        let unlog = if self.unlog { ", Unlogged" } else { "" };
        DbmsInfo {
            ip_port: self.server.address(),
            configuration: format!("Autocommit {}{unlog}", if self.autocommit { "On" } else { "Off" }),
            storage: "Persistent".into(),
        }
    }

    fn tables(&self) -> Result<Vec<String>, DbmsError> {
        Ok(without_partitions(self.table_names()?))
    }

    fn schema(&self, table: &str) -> Result<Option<TableSchema>, DbmsError> {
        let param = [SqlValue::Text(table.to_owned())];
        let columns = self.rows(describe::COLUMNS, &param)?;
        let indexes = self.rows(describe::INDEXES, &param)?;
        Ok(describe::schema(table, &columns, &indexes))
    }

    fn create_table(&self, schema: &TableSchema) -> Result<(), DbmsError> {
        check_name(&schema.name, Engine::Postgres)?;
        self.change_tables(&statements(schema, &schema.name, Engine::Postgres, self.unlog).join(";\n"))
    }

    fn widen_column(&self, table: &str, column: &str, to: ColumnType) -> Result<(), DbmsError> {
        let mut schema = self.schema(table)?.ok_or_else(|| self.no_table(table))?;
        if !schema.widen(column, to)? {
            return Ok(());
        }
        let mut names = self.partitions(table)?;
        names.push(table.to_owned());
        let alter = |name: &String| {
            format!("ALTER TABLE {} ALTER COLUMN {} TYPE {}", quoted(name), quoted(column), to.portable())
        };
        self.change_tables(&names.iter().map(alter).collect::<Vec<_>>().join(";\n"))
    }

    fn drop_table(&self, table: &str) -> Result<(), DbmsError> {
        let mut names = self.partitions(table)?;
        names.push(table.to_owned());
        self.change_tables(&names.iter().map(|name| drop_text(name)).collect::<Vec<_>>().join(";\n"))
    }

    fn partitions(&self, table: &str) -> Result<Vec<String>, DbmsError> {
        check_name(table, Engine::Postgres)?;
        Ok(partitions_of(table, self.table_names()?))
    }

    fn create_partition(&self, schema: &TableSchema, partition: &str) -> Result<(), DbmsError> {
        check_name(partition, Engine::Postgres)?;
        self.change_tables(&statements(schema, partition, Engine::Postgres, self.unlog).join(";\n"))
    }

    fn drop_partition(&self, table: &str, partition: &str) -> Result<(), DbmsError> {
        if !self.partitions(table)?.iter().any(|known| known == partition) {
            return Err(self.no_table(partition));
        }
        self.change_tables(&drop_text(partition))
    }

    fn apply(
        &self,
        target: &Target,
        columns: &[String],
        rows: &[Vec<SqlValue>],
        marks: &[(SegmentId, u64)],
    ) -> Result<(), DbmsError> {
        if let Some(index) = rows.iter().position(|row| row.len() != columns.len()) {
            let reason = format!("the row has {} values for {} columns", rows[index].len(), columns.len());
            return Err(DbmsError::RowRefused { index, reason });
        }
        let physical = target.physical();
        let mut refused: Option<(usize, String)> = None;
        let stored = self.write(|connection, known| {
            if !rows.is_empty() {
                let kinds = kinds(connection, known, physical, columns)?;
                let insert = Insertion { physical, columns, kinds: &kinds };
                let inserted = connection.transaction(|connection| insert.run(connection, rows));
                if let Err(error) = inserted {
                    refused = insert.refused_row(connection, rows, &error)?;
                    return Err(error);
                }
            }
            marks.iter().try_for_each(|(segment, ordinal)| mark(connection, *segment, physical, *ordinal))
        });
        match (stored, refused) {
            (Err(_), Some((index, reason))) => Err(DbmsError::RowRefused { index, reason }),
            (stored, _) => stored,
        }
    }

    fn applied(&self, target: &Target, segment: SegmentId) -> Result<Option<u64>, DbmsError> {
        let sql = "SELECT last_ordinal FROM anylog_applied WHERE segment_id = ? AND target = ?";
        let params = [SqlValue::Text(segment.to_string()), SqlValue::Text(target.physical().to_owned())];
        Ok(match self.rows(sql, &params)?.first().and_then(|row| row.first()) {
            Some(SqlValue::Int(ordinal)) => u64::try_from(*ordinal).ok(),
            _ => None,
        })
    }

    fn forget(&self, segments: &[SegmentId]) -> Result<(), DbmsError> {
        self.write(|connection, _| {
            for segment in segments {
                let params = [SqlValue::Text(segment.to_string())];
                let sql = "DELETE FROM anylog_applied WHERE segment_id = ?";
                Statement { sql, params: &params }.execute(connection)?;
            }
            Ok(())
        })
    }

    fn sync(&self) -> Result<(), DbmsError> {
        Ok(())
    }

    fn query(&self, _target: Option<&Target>, sql: &str, visit: Visit<'_>) -> Result<(), DbmsError> {
        self.readers.with(|connection, visited| {
            select(connection, sql, &mut |names, row| {
                *visited = true;
                visit(names, row)
            })
        })
    }

    fn execute(&self, sql: &str) -> Result<u64, DbmsError> {
        let changed = self.write(|connection, kinds| {
            kinds.clear();
            diesel::sql_query(sql).execute(connection)
        })?;
        Ok(u64::try_from(changed).unwrap_or(0))
    }

    fn execute_all(&self, statements: &[Checked]) -> Result<bool, DbmsError> {
        let mut failed = false;
        let result = self.write(|connection, kinds| {
            kinds.clear();
            for statement in statements {
                if !statement.holds(diesel::sql_query(&statement.sql).execute(connection)?) {
                    failed = true;
                    return Err(diesel::result::Error::RollbackTransaction);
                }
            }
            Ok(())
        });
        if failed { Ok(false) } else { result.map(|()| true) }
    }

    fn count(&self, target: &Target) -> Result<u64, DbmsError> {
        let sql = format!("SELECT count(*) FROM {}", quoted(target.physical()));
        match self.rows(&sql, &[])?.first().and_then(|row| row.first()) {
            Some(SqlValue::Int(count)) => Ok(u64::try_from(*count).unwrap_or(0)),
            _ => Ok(0),
        }
    }
}

fn drop_text(physical: &str) -> String {
    let literal = physical.replace('\'', "''");
    format!("DROP TABLE IF EXISTS {} CASCADE; DELETE FROM anylog_applied WHERE target = '{literal}'", quoted(physical))
}

/// The types of columns of a physical table; a column that it does not have is taken as text, and the server says so.
fn kinds(
    connection: &mut PgConnection,
    known: &mut HashMap<String, HashMap<String, ColumnType>>,
    physical: &str,
    columns: &[String],
) -> QueryResult<Vec<ColumnType>> {
    if !known.contains_key(physical) {
        let params = [SqlValue::Text(physical.to_owned())];
        let rows = collect(connection, Statement { sql: describe::COLUMNS, params: &params })?;
        let schema = describe::schema(physical, &rows, &[]);
        if let Some(schema) = schema {
            let kinds = schema.columns.into_iter().map(|column| (column.name, column.kind)).collect();
            known.insert(physical.to_owned(), kinds);
        }
    }
    let kind = |column| known.get(physical).and_then(|kinds| kinds.get(column)).copied();
    Ok(columns.iter().map(|column| kind(column).unwrap_or(ColumnType::Varchar)).collect())
}

struct Insertion<'a> {
    physical: &'a str,
    columns: &'a [String],
    kinds: &'a [ColumnType],
}

impl Insertion<'_> {
    fn run(&self, connection: &mut PgConnection, rows: &[Vec<SqlValue>]) -> QueryResult<()> {
        for rows in rows.chunks(ROWS) {
            let arrays = self
                .kinds
                .iter()
                .enumerate()
                .map(|(at, kind)| column_array(*kind, rows.iter().map(|row| &row[at])))
                .collect::<Option<Vec<_>>>()
                .ok_or_else(|| Error::SerializationError("a value does not fit its column".into()))?;
            Insert { physical: self.physical, columns: self.columns, kinds: self.kinds, arrays }.execute(connection)?;
        }
        Ok(())
    }

    /// The first row that the table refuses, and why; none when the error is not about values. Each row is tried inside a
    /// savepoint, so the transaction goes on.
    fn refused_row(
        &self,
        connection: &mut PgConnection,
        rows: &[Vec<SqlValue>],
        error: &Error,
    ) -> QueryResult<Option<(usize, String)>> {
        if !failure::is_about_values(error) {
            return Ok(None);
        }
        for (index, row) in rows.iter().enumerate() {
            let tried = connection.transaction(|connection| self.run(connection, std::slice::from_ref(row)));
            if let Err(error) = tried {
                return Ok(Some((index, error.to_string())));
            }
        }
        Ok(None)
    }
}

fn mark(connection: &mut PgConnection, segment: SegmentId, target: &str, ordinal: u64) -> QueryResult<()> {
    let sql = "INSERT INTO anylog_applied(segment_id, target, last_ordinal) VALUES (?, ?, ?) \
               ON CONFLICT(segment_id, target) DO UPDATE \
               SET last_ordinal = greatest(anylog_applied.last_ordinal, excluded.last_ordinal)";
    let params = [
        SqlValue::Text(segment.to_string()),
        SqlValue::Text(target.to_owned()),
        SqlValue::Int(i64::try_from(ordinal).unwrap_or(i64::MAX)),
    ];
    Statement { sql, params: &params }.execute(connection)?;
    Ok(())
}
