//! PostgreSQL: a logical database is a database of the server, made on demand; a partition is a table of its own beside its
//! parent.
//!
//! Rows go in by binary `COPY`, in one transaction with their applied marks. Every commit is durable when the call returns, as
//! the server is configured (`synchronous_commit`), so [`Dbms::sync`] has nothing to do. With `unlog` the server keeps no log
//! of the tables: they are faster, and empty after a crash of the server.
//!
//! A connection that broke is made again with the next call; [`Dbms::trouble`] says what is going on meanwhile. When it breaks
//! under a commit nobody knows whether that happened. The marks tell: rows whose marks stand already are not stored again, so
//! the same call may be repeated until it succeeds ([`DbmsError::Unavailable`] says that it may).
//!
//! # Connection texts
//!
//! `connect dbms x where type=psql and connection="..."` takes what PostgreSQL's own programs take: `host=... sslmode=...` or
//! `postgresql://user:password@host:port/database?sslmode=...`. Its `dbname` is the name at the server, when that is not the
//! logical name. TLS needs the feature `postgres-tls`.

mod connection;
mod copy;
mod describe;
mod failure;
mod known;
mod link;
mod names;
mod options;
mod pool;
mod tls;
mod values;
mod writer;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::dbms::{Visit, Wanted};
use crate::partition::{partitions_of, without_partitions};
use crate::schema::ddl::{check_name, of_file, quoted, statements};
use crate::{
    Checked, ColumnType, ConnectRequest, Dbms, DbmsError, DbmsInfo, Engine, RowRef, SegmentId, SqlValue, TableSchema,
    Target,
};
use connection::Server;
use failure::Failure;
use known::Known;
use link::Statement;
use names::{at_server, comments, shortened};
pub(crate) use options::without_database;
use pool::Pool;
use writer::Writer;

const MARKS: &str = "CREATE TABLE IF NOT EXISTS anylog_applied(segment_id TEXT NOT NULL, target TEXT NOT NULL, \
                     last_ordinal BIGINT NOT NULL, PRIMARY KEY(segment_id, target))";

/// Bytes of a table's name by which its partitions are sought: they are in the names of all of them, also of those that are shortened.
const MOST_PREFIX: usize = 40;

/// Tables that one transaction changes. It holds locks on each and on its indexes, of which a server has some thousands.
const TOGETHER: usize = 64;

/// How long a change of tables waits for readers before it ends them, and for whoever else uses them after that.
const LOCK_TIMEOUTS: [&str; 2] = ["SET LOCAL lock_timeout = '1s'", "SET LOCAL lock_timeout = '30s'"];

/// Ends the node's own connections that use a table. A reader that nobody reads from any more hears of nothing less.
const END_READERS: &str = "SELECT count(pg_terminate_backend(a.pid)) FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid \
    WHERE l.relation = to_regclass(quote_ident(current_schema()) || '.' || quote_ident(?)) AND l.granted \
    AND a.usename = current_user AND a.application_name = current_setting('application_name') AND a.pid <> pg_backend_pid()";

/// A PostgreSQL database.
#[derive(Debug)]
pub struct PostgresDbms {
    server: Server,
    autocommit: bool,
    unlog: bool,
    writer: Mutex<Writer>,
    readers: Pool,
    known: Known,
}

impl PostgresDbms {
    pub(crate) fn connect(request: &ConnectRequest) -> Result<Self, DbmsError> {
        let server = Server::of(request)?;
        let link = server.connect_or_create()?;
        link.batch(MARKS).map_err(|failure| failure.connect(server.name(), server.address()))?;
        Ok(Self {
            autocommit: request.autocommit,
            unlog: request.unlog,
            writer: Mutex::new(Writer::new(link)),
            readers: Pool::new(server.clone()),
            known: Known::default(),
            server,
        })
    }

    /// Drops the database at its server.
    pub(crate) fn delete(request: &ConnectRequest) -> Result<(), DbmsError> {
        let server = Server::of(request)?;
        let maintenance = server.maintenance()?;
        maintenance
            .batch(&format!("DROP DATABASE {}", quoted(server.database())))
            .map_err(|failure| failure.connect(server.name(), server.address()))
    }

    /// Runs a statement with `?` for each parameter and returns the rows that it returns.
    pub(crate) fn change(&self, sql: &str, params: &[SqlValue]) -> Result<Vec<Vec<SqlValue>>, DbmsError> {
        self.writer.lock().run(&self.server, |link| link.rows(&Statement { sql, params }))
    }

    /// Runs a SELECT with `?` for each parameter.
    pub(crate) fn rows(&self, sql: &str, params: &[SqlValue]) -> Result<Vec<Vec<SqlValue>>, DbmsError> {
        self.readers.with(|link, _| Ok((link.rows(&Statement { sql, params })?, ControlFlow::Continue(()))))
    }

    /// Runs statements that change tables, in one transaction. They may be repeated, as nobody knows whether they happened when
    /// the connection breaks. `used` are tables whose readers are ended when they do not end by themselves.
    fn change_tables(&self, sql: &str, used: &[String]) -> Result<(), DbmsError> {
        let [quick, patient] = LOCK_TIMEOUTS.map(|timeout| format!("{timeout}; {}", shortened(sql)));
        let mut writer = self.writer.lock();
        writer.forget_tables();
        let changed = writer.run(&self.server, |link| match link.batch(&quick) {
            Err(failure) if failure.code() == "55P03" => {
                for table in used {
                    let params = [SqlValue::Text(at_server(table).into_owned())];
                    link.rows(&Statement { sql: END_READERS, params: &params })?;
                }
                link.batch(&patient)
            }
            result => result,
        });
        self.known.forget();
        changed
    }

    /// The names of partitions of a table, as the server has them now.
    fn partition_names(&self, table: &str) -> Result<Vec<String>, DbmsError> {
        // Long names are shortened behind this.
        let mut end = MOST_PREFIX.min(table.len());
        while !table.is_char_boundary(end) {
            end -= 1;
        }
        let first = format!("par_{}", &table[..end]);
        let last = format!("{first}\u{10ffff}");
        let rows = self.rows(describe::PARTITIONS, &[SqlValue::Text(first), SqlValue::Text(last)])?;
        Ok(partitions_of(table, rows.into_iter().filter_map(|mut row| text(row.pop()?)).collect()))
    }

    /// The schema of a table, as the server has it now.
    fn described(&self, table: &str) -> Result<Option<TableSchema>, DbmsError> {
        let param = [SqlValue::Text(at_server(table).into_owned())];
        let columns = self.rows(describe::COLUMNS, &param)?;
        let indexes = self.rows(describe::INDEXES, &param)?;
        Ok(describe::schema(table, &columns, &indexes))
    }

    fn table_names(&self) -> Result<Vec<String>, DbmsError> {
        let rows = self.rows(describe::TABLES, &[])?;
        Ok(rows.into_iter().filter_map(|mut row| text(row.pop()?)).collect())
    }

    /// Creates a table under a physical name.
    fn create(&self, schema: &TableSchema, physical: &str) -> Result<(), DbmsError> {
        check_name(physical)?;
        let mut sql = statements(schema, physical, Engine::Postgres, self.unlog);
        sql.extend(comments(schema, physical));
        self.change_tables(&sql.join(";\n"), &[])
    }

    /// Drops tables in one transaction.
    fn drop_all(&self, names: &[String]) -> Result<(), DbmsError> {
        self.change_tables(&names.iter().map(|name| drop_text(name)).collect::<Vec<_>>().join(";\n"), names)
    }

    fn no_table(&self, table: &str) -> DbmsError {
        DbmsError::NoTable { dbms: self.server.name().to_owned(), table: table.to_owned() }
    }

    /// The one number that a SELECT returns.
    fn number(&self, sql: &str, params: &[SqlValue]) -> Result<Option<u64>, DbmsError> {
        Ok(match self.rows(sql, params)?.first().and_then(|row| row.first()) {
            Some(SqlValue::Int(number)) => u64::try_from(*number).ok(),
            _ => None,
        })
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
            ip_port: self.server.address().to_owned(),
            configuration: format!("Autocommit {}{unlog}", if self.autocommit { "On" } else { "Off" }),
            storage: "Persistent".into(),
        }
    }

    fn trouble(&self) -> Option<String> {
        // A writer that is busy has its connection, or knows that it has none.
        if let Some(mut writer) = self.writer.try_lock()
            && !writer.is_connected()
        {
            writer.connect(&self.server).ok();
        }
        self.server.trouble()
    }

    fn tables(&self) -> Result<Vec<String>, DbmsError> {
        Ok(without_partitions(self.table_names()?))
    }

    fn schema(&self, table: &str) -> Result<Option<TableSchema>, DbmsError> {
        let look = || Ok(self.described(table)?.map(Arc::new));
        Ok(self.known.of(&self.known.schemas, table, look)?.map(|schema| (*schema).clone()))
    }

    fn create_table(&self, schema: &TableSchema) -> Result<(), DbmsError> {
        self.create(schema, &schema.name)
    }

    fn widen_column(&self, table: &str, column: &str, to: ColumnType) -> Result<(), DbmsError> {
        let mut schema = self.described(table)?.ok_or_else(|| self.no_table(table))?;
        if !schema.widen(column, to)? {
            return Ok(());
        }
        // The parent last: until it is wider, the whole call can be repeated.
        let mut names = self.partition_names(table)?;
        names.push(table.to_owned());
        let alter = |name: &String| {
            format!("ALTER TABLE {} ALTER COLUMN {} TYPE {}", quoted(name), quoted(column), to.portable())
        };
        for names in names.chunks(TOGETHER) {
            self.change_tables(&names.iter().map(alter).collect::<Vec<_>>().join(";\n"), names)?;
        }
        Ok(())
    }

    fn drop_table(&self, table: &str) -> Result<(), DbmsError> {
        // The parent last: until it is gone, the whole call can be repeated.
        let mut names = self.partition_names(table)?;
        names.push(table.to_owned());
        names.chunks(TOGETHER).try_for_each(|names| self.drop_all(names))
    }

    fn partitions(&self, table: &str) -> Result<Vec<String>, DbmsError> {
        check_name(table)?;
        let look = || Ok(Some(self.partition_names(table)?.into()));
        Ok(self.known.of(&self.known.partitions, table, look)?.map(|names| names.to_vec()).unwrap_or_default())
    }

    fn create_partition(&self, schema: &TableSchema, partition: &str) -> Result<(), DbmsError> {
        self.create(schema, partition)
    }

    fn drop_partition(&self, table: &str, partition: &str) -> Result<(), DbmsError> {
        if !self.partition_names(table)?.iter().any(|known| known == partition) {
            return Err(self.no_table(partition));
        }
        self.drop_all(&[partition.to_owned()])
    }

    fn drop_partitions(
        &self,
        table: &str,
        partitions: &[String],
        dropped: &mut dyn FnMut(&str),
    ) -> Result<(), DbmsError> {
        let there: BTreeSet<String> = self.partition_names(table)?.into_iter().collect();
        let chosen: Vec<String> = partitions.iter().filter(|name| there.contains(*name)).cloned().collect();
        for names in chosen.chunks(TOGETHER) {
            self.drop_all(names)?;
            names.iter().for_each(|name| dropped(name));
        }
        Ok(())
    }

    fn size(&self, target: &Target) -> Result<Option<u64>, DbmsError> {
        let sql = "SELECT pg_total_relation_size(to_regclass(quote_ident(current_schema()) || '.' || quote_ident(?)))";
        self.number(sql, &[SqlValue::Text(at_server(target.physical()).into_owned())])
    }

    fn free(&self) -> Result<Option<u64>, DbmsError> {
        // Of a server on another machine, or one that does not tell its directory, nothing is known.
        if !is_local(self.server.address()) {
            return Ok(None);
        }
        let directory = match self.rows("SELECT current_setting('data_directory')", &[]) {
            Ok(mut rows) => rows.pop().and_then(|mut row| text(row.pop()?)),
            Err(DbmsError::Statement { .. }) => None,
            Err(error) => return Err(error),
        };
        let disk = directory.and_then(|directory| rustix::fs::statvfs(directory).ok());
        Ok(disk.map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize)))
    }

    fn apply(
        &self,
        target: &Target,
        columns: &[String],
        rows: &[Vec<SqlValue>],
        marks: &[(SegmentId, u64)],
    ) -> Result<(), DbmsError> {
        let rows: Vec<RowRef<'_>> = rows.iter().map(|row| RowRef { shared: &[], own: row }).collect();
        self.apply_rows(target, columns, &rows, marks)
    }

    fn apply_rows(
        &self,
        target: &Target,
        columns: &[String],
        rows: &[RowRef<'_>],
        marks: &[(SegmentId, u64)],
    ) -> Result<(), DbmsError> {
        self.writer.lock().store(&self.server, &at_server(target.physical()), None, columns, rows, marks)
    }

    fn replace_file(
        &self,
        target: &Target,
        file: (&str, i64),
        columns: &[String],
        rows: &[RowRef<'_>],
        marks: &[(SegmentId, u64)],
    ) -> Result<(), DbmsError> {
        self.writer.lock().store(&self.server, &at_server(target.physical()), Some(file), columns, rows, marks)
    }

    fn delete_file(&self, target: &Target, member: &str, file_id: i64) -> Result<u64, DbmsError> {
        let name = quoted(&at_server(target.physical()));
        let sql = format!("DELETE FROM {name} WHERE {}", of_file(member, file_id));
        self.writer.lock().run(&self.server, |link| link.changed(&sql))
    }

    fn applied(&self, target: &Target, segment: SegmentId) -> Result<Option<u64>, DbmsError> {
        let sql = "SELECT last_ordinal FROM anylog_applied WHERE segment_id = ? AND target = ?";
        self.number(
            sql,
            &[SqlValue::Text(segment.to_string()), SqlValue::Text(at_server(target.physical()).into_owned())],
        )
    }

    fn forget(&self, segments: &[SegmentId]) -> Result<(), DbmsError> {
        for segments in segments.chunks(1000) {
            let literals: Vec<String> = segments.iter().map(|segment| format!("'{segment}'")).collect();
            self.change(&format!("DELETE FROM anylog_applied WHERE segment_id IN ({})", literals.join(",")), &[])?;
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), DbmsError> {
        Ok(())
    }

    fn query(&self, target: Option<&Target>, sql: &str, visit: Visit<'_>) -> Result<(), DbmsError> {
        self.query_while(target, sql, &|| true, visit)
    }

    fn query_while(
        &self,
        _target: Option<&Target>,
        sql: &str,
        wanted: Wanted<'_>,
        visit: Visit<'_>,
    ) -> Result<(), DbmsError> {
        let sql = shortened(sql);
        // Question marks of the statement are its own.
        let read = self.readers.with(|link, visited| {
            let flow = link.each(&Statement::plain(&sql), wanted, &mut |names, row| {
                *visited = true;
                visit(names, row)
            })?;
            Ok(((), flow))
        });
        // Somebody else may have changed the table.
        read.inspect_err(|_| self.known.forget())
    }

    fn execute(&self, sql: &str) -> Result<u64, DbmsError> {
        let mut writer = self.writer.lock();
        writer.forget_tables();
        let changed = writer.run(&self.server, |link| link.changed(sql));
        self.known.forget();
        changed
    }

    fn execute_all(&self, statements: &[Checked]) -> Result<bool, DbmsError> {
        let mut writer = self.writer.lock();
        writer.forget_tables();
        let done = writer.run(&self.server, |link| {
            link.batch("BEGIN")?;
            let run = || -> Result<bool, Failure> {
                for statement in statements {
                    let changed = usize::try_from(link.changed(&statement.sql)?).unwrap_or(usize::MAX);
                    if !statement.holds(changed) {
                        return Ok(false);
                    }
                }
                Ok(true)
            };
            let done = run();
            link.batch(if matches!(done, Ok(true)) { "COMMIT" } else { "ROLLBACK" })?;
            done
        });
        self.known.forget();
        done
    }

    fn count(&self, target: &Target) -> Result<u64, DbmsError> {
        let name = quoted(&at_server(target.physical()));
        Ok(self.number(&format!("SELECT count(*) FROM {name}"), &[])?.unwrap_or_default())
    }
}

/// Whether an address `host:port` is that of this machine.
fn is_local(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.starts_with('/') || matches!(host, "127.0.0.1" | "localhost" | "::1" | "[::1]")
}

fn drop_text(physical: &str) -> String {
    let literal = at_server(physical).replace('\'', "''");
    format!("DROP TABLE IF EXISTS {} CASCADE; DELETE FROM anylog_applied WHERE target = '{literal}'", quoted(physical))
}
