//! A table of intermediate rows, for what an engine does better: windows, distinct sums, orders of many places.
//!
//! Each query has a SQLite database of its own: queries do not wait for each other's writer, and everything that a query took is
//! given back with it. It lies in memory while it is small, then in files below `!tmp_dir`, which are removed with it.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anylog_dbms::{Catalog, ConnectRequest, Database, SqlValue, Target};

use super::merge::{Held, Merger};
use super::{BATCH_ROWS, Row, Sink, size};
use crate::QueryError;
use crate::plan::{MERGE_TABLE, MergeColumn};
use crate::sql::expr::quoted_name;

/// The table.
const TABLE: &str = "query_rows";

/// The column that tells of which part a row is. No column of a statement has such a name.
const PART: &str = "#part";

/// Bytes of rows that stay in memory.
const IN_MEMORY: u64 = 32 * 1024 * 1024;

/// Bytes of rows that a query may have in files.
const IN_FILES: u64 = 4 * 1024 * 1024 * 1024;

/// Numbers the databases over all services of the program: those in memory share their names.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Rows that go into the table together.
const TOGETHER: usize = 8 * BATCH_ROWS;

/// The table of intermediate rows, in a database that ends with it. The fields are dropped in their order: files after the database.
pub(crate) struct MergeTable {
    catalog: Arc<Catalog>,
    database: Arc<Database>,
    name: String,
    create: String,
    columns: Vec<String>,
    /// Rows that are not in the table yet.
    waiting: Vec<Row>,
    bytes: u64,
    held: Option<Held>,
    files: Option<Files>,
    directory: PathBuf,
}

/// A directory that is removed with its owner.
struct Files(PathBuf);

impl Drop for Files {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(directory = %self.0.display(), %error, "Intermediate rows of a query were not removed");
        }
    }
}

/// Where queries of a node keep rows that are too many for its memory.
pub(crate) fn directory(node: &anylog_core::Node) -> PathBuf {
    node.directories.root().join("data/tmp/queries")
}

impl MergeTable {
    /// An empty table.
    pub(super) fn create(merger: &Merger, columns: &[MergeColumn]) -> Result<Self, QueryError> {
        let name = format!("query_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let list: Vec<String> =
            columns.iter().map(|column| format!("{} {}", quoted_name(&column.name), column.declared)).collect();
        let create = format!("create table {TABLE} ({}, {} integer)", list.join(", "), quoted_name(PART));
        let catalog = Catalog::new(Arc::clone(&merger.node));
        let database = catalog.connect(ConnectRequest::sqlite_memory(&name))?;
        database.dbms().execute(&create)?;
        let columns = columns.iter().map(|column| column.name.clone()).chain([PART.to_owned()]).collect();
        Ok(Self {
            directory: directory(&merger.node).join(&name),
            catalog,
            database,
            name,
            create,
            columns,
            waiting: Vec::new(),
            bytes: 0,
            held: Some(merger.held()),
            files: None,
        })
    }

    /// Adds rows of a part.
    pub(super) fn insert(&mut self, part: usize, rows: Vec<Row>) -> Result<(), QueryError> {
        let bytes = rows.iter().map(|row| size(row) as u64).sum();
        self.bytes += bytes;
        let number = i64::try_from(part).unwrap_or(i64::MAX);
        self.waiting.extend(rows.into_iter().map(|mut row| {
            row.push(SqlValue::Int(number));
            row
        }));
        match &self.held {
            Some(held) if self.bytes <= IN_MEMORY => held.take(bytes)?,
            Some(_) => self.move_to_files()?,
            None if self.bytes > IN_FILES => return Err(QueryError::Volume { limit: IN_FILES }),
            None => {}
        }
        if self.waiting.len() >= TOGETHER { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), QueryError> {
        let rows = std::mem::take(&mut self.waiting);
        Ok(self.database.dbms().apply(&Target::table(TABLE), &self.columns, &rows, &[])?)
    }

    /// Drops the rows of a part.
    pub(super) fn forget(&mut self, part: usize) -> Result<(), QueryError> {
        self.flush()?;
        self.database.dbms().execute(&format!("delete from {TABLE} where {} = {part}", quoted_name(PART)))?;
        Ok(())
    }

    /// Leaves the memory.
    fn move_to_files(&mut self) -> Result<(), QueryError> {
        std::fs::create_dir_all(&self.directory).map_err(|error| QueryError::Worker {
            reason: format!("{} cannot be made for intermediate rows: {error}", self.directory.display()),
        })?;
        let files = Files(self.directory.clone());
        let in_files = self.catalog.connect(ConnectRequest::sqlite(format!("{}_files", self.name), &self.directory))?;
        in_files.dbms().execute(&self.create)?;
        let mut failed = Ok(());
        let mut rows = Vec::new();
        self.database.dbms().query(None, &format!("select * from {TABLE}"), &mut |_, row| {
            rows.push(row);
            if rows.len() >= TOGETHER {
                failed = in_files.dbms().apply(&Target::table(TABLE), &self.columns, &rows, &[]);
                rows.clear();
            }
            if failed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        failed?;
        in_files.dbms().apply(&Target::table(TABLE), &self.columns, &rows, &[])?;
        self.database = in_files;
        self.catalog.disconnect(&self.name)?;
        (self.files, self.held) = (Some(files), None);
        Ok(())
    }

    /// Runs the last statement over the rows.
    pub(super) fn last(mut self, last: &str, sink: &mut dyn Sink) -> Result<(), QueryError> {
        self.flush()?;
        let sql = last.replace(MERGE_TABLE, &quoted_name(TABLE));
        Ok(self.database.dbms().query(None, &sql, &mut |_, row| sink.row(row))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execute::Kept;

    #[test]
    fn many_rows_lie_in_files_that_are_removed() {
        let home = tempfile::tempdir().unwrap();
        let merger = Merger::new(anylog_core::Node::builder().home(home.path()).build());
        let column = |name: &str, declared| MergeColumn { name: name.to_owned(), declared };
        let mut table = MergeTable::create(&merger, &[column("n", "integer"), column("text", "text")]).unwrap();
        let text = "x".repeat(1000);
        for part in 0..4 {
            for piece in 0..50i64 {
                let rows =
                    (0..200).map(|n| vec![SqlValue::Int(piece * 200 + n), SqlValue::Text(text.clone())]).collect();
                table.insert(part, rows).unwrap();
            }
            if part == 1 {
                table.forget(0).unwrap();
            }
        }
        assert!(table.files.is_some(), "{} bytes", table.bytes);
        assert_eq!(std::fs::read_dir(directory(&merger.node)).unwrap().count(), 1);
        table.forget(2).unwrap();
        let mut kept = Kept::default();
        let last = format!("select count(*), count(distinct n), sum(length(text)) from {MERGE_TABLE}");
        table.last(&last, &mut kept).unwrap();
        assert_eq!(kept.0, [vec![SqlValue::Int(20_000), SqlValue::Int(10_000), SqlValue::Int(20_000_000)]]);
        assert_eq!(std::fs::read_dir(directory(&merger.node)).unwrap().count(), 0);
    }
}
