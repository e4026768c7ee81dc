//! The one writer of a database: statements in transactions, and rows by `COPY`.

use std::num::NonZeroUsize;

use bytes::Bytes;
use futures_util::SinkExt;
use futures_util::future::{join, join3};
use lru::LruCache;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, CopyInSink, Statement as Prepared};

use super::connection::Server;
use super::copy::{Encoder, Encoding};
use super::describe::TYPES;
use super::failure::{self, Failure};
use super::link::{Link, Statement, wait};
use super::names::{at_server, shortened};
use crate::schema::ddl::{of_file, quoted};
use crate::{DbmsError, RowRef, SegmentId, SqlValue};

/// Tables whose columns are remembered, with a prepared COPY each.
const PLANS: usize = 256;

/// Bytes of rows that are handed to the connection at once; the next are made while it sends. The first are few, so that the
/// server begins at once.
const FIRST_CHUNK: usize = 16 << 10;
const CHUNK: usize = 128 << 10;

/// Raises marks, and returns a row for each that was raised.
const RAISE: &str = "INSERT INTO anylog_applied(segment_id, target, last_ordinal) \
    SELECT segment, $2, ordinal FROM unnest($1, $3) AS given(segment, ordinal) \
    ON CONFLICT(segment_id, target) DO UPDATE SET last_ordinal = excluded.last_ordinal \
    WHERE anylog_applied.last_ordinal < excluded.last_ordinal RETURNING 1";

/// How rows go into a table.
struct Plan {
    columns: Vec<String>,
    /// None when a column has a type that only the server can read.
    kinds: Option<Vec<Encoding>>,
    copy: Prepared,
}

/// A connection and what was prepared on it.
struct Session {
    link: Link,
    plans: LruCache<String, Plan>,
    raise: Option<Prepared>,
}

/// The writer.
#[derive(Default)]
pub(super) struct Writer {
    session: Option<Session>,
}

/// What a transaction came to before it failed.
struct Stopped {
    failure: Failure,
    /// Whether the server may have heard of it.
    begun: bool,
    /// Whether the connection cannot be used any more.
    spoiled: bool,
}

impl Stopped {
    /// The server may have heard of the transaction.
    fn begun(failure: Failure) -> Self {
        Self { failure, begun: true, spoiled: false }
    }
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self { failure, begun: false, spoiled: false }
    }
}

impl Writer {
    pub(super) fn new(link: Link) -> Self {
        Self { session: Some(Session::new(link)) }
    }

    /// Whether the connection is there, as far as is known.
    pub(super) fn is_connected(&self) -> bool {
        self.session.as_ref().is_some_and(|session| !session.link.is_closed())
    }

    fn session(&mut self, server: &Server) -> Result<&mut Session, DbmsError> {
        if let Some(closed) = self.session.take_if(|session| session.link.is_closed()) {
            server.is_away(&closed.link.ended().unwrap_or_else(|| "the connection was closed".into()));
        }
        match &mut self.session {
            Some(session) => Ok(session),
            empty => Ok(empty.insert(Session::new(server.writer()?))),
        }
    }

    /// Makes the connection when there is none.
    pub(super) fn connect(&mut self, server: &Server) -> Result<(), DbmsError> {
        self.session(server).map(|_| ())
    }

    /// The columns of tables may have changed.
    pub(super) fn forget_tables(&mut self) {
        if let Some(session) = &mut self.session {
            session.plans.clear();
        }
    }

    /// The columns of a table are others than those that were known.
    fn forget_table(&mut self, physical: &str) {
        if let Some(session) = &mut self.session {
            session.plans.pop(physical);
        }
    }

    /// Runs something that is one transaction for the server, or repeats nothing when it runs twice.
    pub(super) fn run<T>(
        &mut self,
        server: &Server,
        work: impl FnOnce(&Link) -> Result<T, Failure>,
    ) -> Result<T, DbmsError> {
        let session = self.session(server)?;
        work(&session.link).map_err(|failure| self.fail(server, failure))
    }

    fn fail(&mut self, server: &Server, failure: Failure) -> DbmsError {
        if let Failure::Broken(reason) = &failure {
            server.is_away(reason);
            self.session = None;
        }
        failure.statement(server.name(), server.address())
    }

    /// Stores rows and raises marks in one transaction. When the marks stand there already, an earlier call whose commit
    /// was not heard of did it, and nothing is stored again. Rows of a source file that are `replaced` go in the same transaction, with
    /// the marks: it does the same however often it runs.
    pub(super) fn store(
        &mut self,
        server: &Server,
        physical: &str,
        replaced: Option<(&str, i64)>,
        columns: &[String],
        rows: &[RowRef<'_>],
        marks: &[(SegmentId, u64)],
    ) -> Result<(), DbmsError> {
        let marks = Marks::of(marks);
        let deleted = replaced.map(|(member, file_id)| marks.deleted_with(physical, &of_file(member, file_id)));
        for last in [false, true] {
            let session = self.session(server)?;
            let Err(stopped) = session.store(physical, deleted.as_deref(), columns, rows, &marks) else {
                return Ok(());
            };
            if stopped.spoiled {
                self.session = None;
            }
            let repeats_nothing = !stopped.begun || !marks.segments.is_empty() || deleted.is_some();
            match &stopped.failure {
                Failure::Broken(_) if !last && repeats_nothing => drop(self.fail(server, stopped.failure)),
                failure if !last && failure::is_about_types(failure) => self.forget_table(physical),
                failure if failure.code() == "42P01" => {
                    self.forget_table(physical);
                    let (dbms, table) = (server.name().to_owned(), physical.to_owned());
                    return Err(DbmsError::NoTable { dbms, table });
                }
                _ => return Err(self.fail(server, stopped.failure)),
            }
        }
        unreachable!("invariant: the second turn returns")
    }
}

/// Marks as the parameters of [`RAISE`].
struct Marks {
    segments: Vec<String>,
    ordinals: Vec<i64>,
}

impl Marks {
    /// Each segment once, as the server wants it.
    fn of(marks: &[(SegmentId, u64)]) -> Self {
        let mut highest: std::collections::BTreeMap<SegmentId, u64> = std::collections::BTreeMap::new();
        for (segment, ordinal) in marks {
            let known = highest.entry(*segment).or_default();
            *known = (*known).max(*ordinal);
        }
        let ordinals = highest.values().map(|ordinal| i64::try_from(*ordinal).unwrap_or(i64::MAX)).collect();
        Self { segments: highest.keys().map(SegmentId::to_string).collect(), ordinals }
    }

    /// The statements that delete rows of a table and these marks of it.
    fn deleted_with(&self, physical: &str, rows: &str) -> String {
        let mut sql = format!("DELETE FROM {} WHERE {rows}", quoted(physical));
        if !self.segments.is_empty() {
            let segments: Vec<String> = self.segments.iter().map(|segment| format!("'{segment}'")).collect();
            let (target, segments) = (physical.replace('\'', "''"), segments.join(","));
            sql.push_str(&format!(
                "; DELETE FROM anylog_applied WHERE target = '{target}' AND segment_id IN ({segments})"
            ));
        }
        sql
    }
}

impl Session {
    fn new(link: Link) -> Self {
        Self { link, plans: LruCache::new(NonZeroUsize::new(PLANS).unwrap_or(NonZeroUsize::MIN)), raise: None }
    }

    fn failure(&self, error: &tokio_postgres::Error) -> Failure {
        self.link.failure(error)
    }

    fn store(
        &mut self,
        physical: &str,
        deleted: Option<&str>,
        columns: &[String],
        rows: &[RowRef<'_>],
        marks: &Marks,
    ) -> Result<(), Stopped> {
        if self.raise.is_none() {
            let kinds = [Type::TEXT_ARRAY, Type::TEXT, Type::INT8_ARRAY];
            let prepared = wait(self.link.client.prepare_typed(RAISE, &kinds));
            self.raise = Some(prepared.map_err(|error| self.failure(&error))?);
        }
        if rows.is_empty() {
            if let Some(deleted) = deleted {
                // Several statements that are sent together are one transaction.
                self.link.batch(deleted).map_err(Stopped::begun)?;
            }
            let raised = wait(raise(&self.link.client, self.raise.as_ref(), marks, physical));
            return raised.map(|_| ()).map_err(|error| Stopped::begun(self.failure(&error)));
        }
        self.plan(physical, columns)?;
        let Self { link, plans, raise: raising } = self;
        let Some(plan) = plans.get(physical) else { return Ok(()) };
        // All three are sent at once; the server takes them in order.
        let client = &link.client;
        let begin = deleted.map_or_else(|| "BEGIN".to_owned(), |deleted| format!("BEGIN; {deleted}"));
        let begin = client.batch_execute(&begin);
        let raised = raise(client, raising.as_ref(), marks, physical);
        let (begun, raised, copy) = wait(join3(begin, raised, client.copy_in::<_, Bytes>(&plan.copy)));
        let result = match (begun.and(raised), copy) {
            // What tokio-postgres sends to end a COPY that the server did not begin is answered once more than it expects: the next
            // statement would get that answer. The end of the connection ends the transaction, too.
            (Err(error), Err(_)) | (Ok(_), Err(error)) => {
                return Err(Stopped { spoiled: true, ..Stopped::begun(link.failure(&error)) });
            }
            (Err(error), Ok(_)) => Err(link.failure(&error)),
            (Ok(0), Ok(copy)) if !marks.segments.is_empty() => {
                // The server waits for rows until the sink is gone.
                drop(copy);
                tracing::debug!(table = physical, rows = rows.len(), "Rows were stored by an earlier call");
                link.batch("ROLLBACK").map_err(Stopped::begun)?;
                return Ok(());
            }
            (Ok(_), Ok(copy)) => send(link, copy, plan, physical, rows),
        };
        match result {
            Ok(Ended::Committed) => Ok(()),
            Ok(Ended::Refused(failure)) => Err(Stopped::begun(failure)),
            Err(failure) => {
                if !matches!(failure, Failure::Broken(_)) {
                    link.batch("ROLLBACK").map_err(Stopped::begun)?;
                }
                Err(Stopped::begun(failure))
            }
        }
    }

    /// Sees to it that the way into a table is known.
    fn plan(&mut self, physical: &str, columns: &[String]) -> Result<(), Failure> {
        if self.plans.get(physical).is_some_and(|plan| plan.columns == columns) {
            return Ok(());
        }
        let params = [SqlValue::Text(physical.to_owned())];
        let types = self.link.rows(&Statement { sql: TYPES, params: &params })?;
        let kind = |column: &String| {
            let known = |row: &&Vec<SqlValue>| row.first() == Some(&SqlValue::Text(at_server(column).into_owned()));
            match types.iter().find(known).and_then(|row| row.get(1)) {
                Some(SqlValue::Int(kind)) => Encoding::of(*kind),
                _ => None,
            }
        };
        let kinds: Option<Vec<Encoding>> = columns.iter().map(kind).collect();
        let names: Vec<String> = columns.iter().map(|column| quoted(column)).collect();
        let form = if kinds.is_some() { "binary" } else { "text" };
        let sql = format!("COPY {}({}) FROM STDIN (FORMAT {form})", quoted(physical), names.join(", "));
        let copy = wait(self.link.client.prepare(&shortened(&sql))).map_err(|error| self.failure(&error))?;
        self.plans.put(physical.to_owned(), Plan { columns: columns.to_vec(), kinds, copy });
        Ok(())
    }
}

async fn raise(
    client: &Client,
    statement: Option<&Prepared>,
    marks: &Marks,
    physical: &str,
) -> Result<usize, tokio_postgres::Error> {
    match statement {
        Some(statement) if !marks.segments.is_empty() => {
            let rows = client.query(statement, &[&marks.segments, &physical, &marks.ordinals]).await?;
            Ok(rows.len())
        }
        _ => Ok(0),
    }
}

/// How a transaction ended at the server.
enum Ended {
    Committed,
    /// It was rolled back.
    Refused(Failure),
}

/// Sends the rows and commits. On an error the transaction is still open.
fn send(
    link: &Link,
    copy: CopyInSink<Bytes>,
    plan: &Plan,
    physical: &str,
    rows: &[RowRef<'_>],
) -> Result<Ended, Failure> {
    let mut copy = std::pin::pin!(copy);
    let mut encoder = Encoder::new(&plan.columns, plan.kinds.as_deref());
    let mut enough = FIRST_CHUNK;
    for row in rows {
        // The end of `copy` without `finish` tells the server that the rows are not complete.
        encoder.row(*row)?;
        if encoder.len() >= enough {
            enough = CHUNK;
            wait(copy.send(Bytes::from(encoder.take(CHUNK)))).map_err(|error| link.failure(&error))?;
        }
    }
    wait(copy.feed(Bytes::from(encoder.end()))).map_err(|error| link.failure(&error))?;
    // The commit is under way with the last rows: when they are refused, it ends the transaction without storing anything.
    let (copied, committed) = wait(join(copy.as_mut().finish(), link.client.batch_execute("COMMIT")));
    let refusal = |error: &tokio_postgres::Error| {
        let index = error.as_db_error().and_then(|error| failure::refused_row(physical, error));
        match index.filter(|index| *index < rows.len()) {
            Some(index) => Failure::Row { index, reason: failure::chain(error) },
            None => link.failure(error),
        }
    };
    match (copied, committed) {
        (Ok(_), Ok(())) => Ok(Ended::Committed),
        (Err(error), _) | (Ok(_), Err(error)) => Ok(Ended::Refused(refusal(&error))),
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("connected", &self.is_connected()).finish_non_exhaustive()
    }
}
