//! Transactions that store rows.

use std::path::Path;

use diesel::result::Error;
use diesel::{QueryResult, RunQueryDsl, SqliteConnection};

use super::{Handle, Writer, mark, unmark};
use crate::growing::{Grow, Growing, Marks};
use crate::schema::ddl::{of_file, quoted};
use crate::sqlite::checkpoint::Care;
use crate::sqlite::connection::Place;
use crate::sqlite::failure;
use crate::sqlite::rows::{Bind, Insert, chunks};
use crate::{DbmsError, RowRef, SegmentId};

/// What one call stores.
pub(in crate::sqlite) struct Stored<'a> {
    /// The source file - its member and its number - whose rows go.
    pub(in crate::sqlite) replaced: Option<(&'a str, i64)>,
    pub(in crate::sqlite) columns: &'a [String],
    pub(in crate::sqlite) rows: &'a [RowRef<'a>],
    pub(in crate::sqlite) marks: &'a [(SegmentId, u64)],
}

/// The statement that stores rows in a physical table.
struct Shape<'a> {
    physical: &'a str,
    columns: usize,
    prefix: String,
    binds: Vec<Bind>,
}

impl Shape<'_> {
    /// Refuses the first row that has not a value for each column.
    fn check(&self, rows: &[RowRef<'_>]) -> Result<(), DbmsError> {
        let Some(index) = rows.iter().position(|row| row.width() != self.columns) else { return Ok(()) };
        let reason = format!("the row has {} values for {} columns", rows[index].width(), self.columns);
        Err(DbmsError::RowRefused { index, reason })
    }
}

/// A transaction that is open.
struct Filling<'t> {
    connection: &'t mut SqliteConnection,
    shape: &'t Shape<'t>,
    rows: usize,
    marks: Marks,
}

impl Filling<'_> {
    fn replace(&mut self, (member, file): (&str, i64), marks: &[(SegmentId, u64)]) -> QueryResult<()> {
        let physical = self.shape.physical;
        let sql = format!("DELETE FROM {} WHERE {}", quoted(physical), of_file(member, file));
        diesel::sql_query(sql).execute(self.connection)?;
        marks.iter().try_for_each(|(segment, _)| unmark(self.connection, *segment, physical))
    }

    fn store(&mut self, rows: &[RowRef<'_>], marks: &[(SegmentId, u64)]) -> QueryResult<()> {
        let Shape { columns, prefix, binds, .. } = self.shape;
        for rows in chunks(rows, *columns) {
            Insert { prefix, binds, rows }.execute(self.connection)?;
        }
        self.rows += rows.len();
        self.marks.raise_all(marks);
        Ok(())
    }
}

/// The same for those who do not know of SQLite.
struct Open<'f, 't> {
    filling: &'f mut Filling<'t>,
    name: &'f str,
}

impl Growing for Open<'_, '_> {
    fn store(&mut self, rows: &[RowRef<'_>], marks: &[(SegmentId, u64)]) -> Result<(), DbmsError> {
        self.filling.shape.check(rows)?;
        self.filling.store(rows, marks).map_err(|error| failure::statement(self.name, &error))
    }
}

impl Handle {
    fn shape<'a>(&mut self, physical: &'a str, columns: &[String]) -> Result<Shape<'a>, DbmsError> {
        let binds = self.binds(physical, columns)?;
        let names: Vec<String> = columns.iter().map(|column| quoted(column)).collect();
        // OR FAIL: a statement that fails need not be undone by itself, for which SQLite would keep copies of pages, because the
        // transaction is undone as a whole.
        let prefix = format!("INSERT OR FAIL INTO {}({}) VALUES ", quoted(physical), names.join(","));
        Ok(Shape { physical, columns: columns.len(), prefix, binds })
    }

    /// Runs a transaction that `fill` fills. Returns how many rows and which marks were stored; none when `fill` said no.
    fn fill(
        &mut self,
        shape: &Shape<'_>,
        mut fill: impl FnMut(&mut Filling<'_>) -> QueryResult<bool>,
    ) -> QueryResult<Option<(usize, Marks)>> {
        self.set_durable(false)?;
        let filled = self.transaction(|connection| {
            let mut filling = Filling { connection, shape, rows: 0, marks: Marks::default() };
            if !fill(&mut filling)? {
                return Err(Error::RollbackTransaction);
            }
            let Filling { connection, rows, marks, .. } = filling;
            marks.all().iter().try_for_each(|(segment, last)| mark(connection, *segment, shape.physical, *last))?;
            Ok((rows, marks))
        });
        match filled {
            Err(Error::RollbackTransaction) => Ok(None),
            filled => filled.map(Some),
        }
    }

    /// The first row that the table refuses, and why. Stores nothing.
    fn refused_row(&mut self, shape: &Shape<'_>, rows: &[RowRef<'_>]) -> Option<(usize, String)> {
        let mut refused = None;
        let tried: QueryResult<()> = self.transaction(|connection| {
            for (index, row) in rows.iter().enumerate() {
                let insert = Insert { prefix: &shape.prefix, binds: &shape.binds, rows: std::slice::from_ref(row) };
                if let Err(error) = insert.execute(connection) {
                    refused = Some((index, error.to_string()));
                    break;
                }
            }
            Err(Error::RollbackTransaction)
        });
        tried.err().and(refused)
    }
}

impl Writer {
    /// Stores rows and marks, in the place of the rows of a source file, if one is named. Says what the log of the place needs then.
    pub(in crate::sqlite) fn apply(
        &mut self,
        place: &Place,
        physical: &str,
        stored: &Stored<'_>,
    ) -> Result<Care, DbmsError> {
        let Stored { replaced, columns, rows, marks } = *stored;
        let name = self.name.clone();
        let handle = self.handle(place)?;
        let shape = handle.shape(physical, columns)?;
        shape.check(rows)?;
        let filled = handle.fill(&shape, |filling| {
            replaced.map_or(Ok(()), |file| filling.replace(file, marks))?;
            filling.store(rows, marks)?;
            Ok(true)
        });
        match filled {
            Ok(filled) => Ok(filled.map_or(Care::None, |filled| self.filled(place, filled))),
            Err(error) if failure::is_about_values(&error) => {
                let refused = |(index, reason)| DbmsError::RowRefused { index, reason };
                Err(handle.refused_row(&shape, rows).map_or_else(|| failure::statement(&name, &error), refused))
            }
            Err(error) => Err(failure::statement(&name, &error)),
        }
    }

    /// Stores what `grow` puts into a transaction; none when it says that nothing is to be stored.
    pub(in crate::sqlite) fn apply_growing(
        &mut self,
        place: &Place,
        physical: &str,
        columns: &[String],
        grow: Grow<'_>,
    ) -> Result<Option<Care>, DbmsError> {
        let name = self.name.clone();
        let handle = self.handle(place)?;
        let shape = handle.shape(physical, columns)?;
        let (mut begun, mut failed) = (false, None);
        let filled = handle.fill(&shape, |filling| {
            // Rows come once, however often a transaction is tried.
            if std::mem::replace(&mut begun, true) {
                return Ok(false);
            }
            Ok(grow(&mut Open { filling, name: &name }).unwrap_or_else(|error| {
                failed = Some(error);
                false
            }))
        });
        match failed {
            Some(error) => Err(error),
            None => {
                let filled = filled.map_err(|error| failure::statement(&name, &error))?;
                Ok(filled.map(|filled| self.filled(place, filled)))
            }
        }
    }

    /// Notes what a transaction stored, and says what the log of the place needs.
    fn filled(&mut self, place: &Place, (rows, marks): (usize, Marks)) -> Care {
        self.dirty.extend(place.file().map(Path::to_owned));
        for (segment, _) in marks.all() {
            self.marked.entry(*segment).or_default().insert(place.clone());
        }
        let Ok(handle) = self.handle(place) else { return Care::None };
        handle.unseen = handle.unseen.saturating_sub(1);
        handle.growth.add(rows)
    }
}
