//! Transactions that grow while rows come, and rows that count as stored before their transaction ends.
//!
//! A transaction costs as much for a few rows as for many. Where rows come a few at a time and one after the other, a transaction
//! stays open as long as more of them come ([`Dbms::apply_growing`]), and whoever knows that the rows are safe - they are in a journal -
//! may say that they are stored before it ends. That is a [`Promise`]: as long as there is one, who begins to read where the rows
//! lie waits for its end, so nobody ever misses a row that was said to be stored.
//!
//! [`Dbms::apply_growing`]: crate::Dbms::apply_growing

use parking_lot::{Condvar, Mutex};

use crate::{DbmsError, RowRef, SegmentId, SqlValue, Target};

/// A transaction that more rows can be put into.
pub trait Growing {
    /// Stores rows, and how far each segment is applied to the target with them. After an error the transaction is only to be undone.
    ///
    /// # Errors
    /// As those of [`Dbms::apply`](crate::Dbms::apply); a row that is refused is counted from the first of these rows.
    fn store(&mut self, rows: &[RowRef<'_>], marks: &[(SegmentId, u64)]) -> Result<(), DbmsError>;
}

/// Fills a transaction, and says whether it is to be committed.
pub type Grow<'a> = &'a mut (dyn FnMut(&mut dyn Growing) -> Result<bool, DbmsError> + 'a);

/// How far segments are applied with several batches: the highest ordinal of each, as [`Dbms::apply`](crate::Dbms::apply) takes it.
#[derive(Debug, Default)]
pub struct Marks(Vec<(SegmentId, u64)>);

impl Marks {
    /// The segment is applied up to this ordinal, or a higher one that was said before.
    pub fn raise(&mut self, segment: SegmentId, ordinal: u64) {
        match self.0.iter_mut().find(|(known, _)| *known == segment) {
            Some((_, known)) => *known = (*known).max(ordinal),
            None => self.0.push((segment, ordinal)),
        }
    }

    /// [`Self::raise`] for each.
    pub(crate) fn raise_all(&mut self, marks: &[(SegmentId, u64)]) {
        marks.iter().for_each(|(segment, ordinal)| self.raise(*segment, *ordinal));
    }

    /// One for each segment.
    #[must_use]
    pub fn all(&self) -> &[(SegmentId, u64)] {
        &self.0
    }
}

/// Rows that are kept until all of them have come.
#[derive(Debug, Default)]
struct Collected {
    rows: Vec<Vec<SqlValue>>,
    marks: Marks,
}

impl Growing for Collected {
    fn store(&mut self, rows: &[RowRef<'_>], marks: &[(SegmentId, u64)]) -> Result<(), DbmsError> {
        self.rows.extend(rows.iter().map(|row| row.values().cloned().collect()));
        self.marks.raise_all(marks);
        Ok(())
    }
}

/// Does what [`Dbms::apply_growing`](crate::Dbms::apply_growing) does with one call for all rows, for engines whose transactions do not grow.
pub(crate) fn at_once(
    grow: Grow<'_>,
    apply: impl FnOnce(&[Vec<SqlValue>], &[(SegmentId, u64)]) -> Result<(), DbmsError>,
) -> Result<bool, DbmsError> {
    let mut collected = Collected::default();
    let stored = grow(&mut collected)?;
    if stored {
        apply(&collected.rows, collected.marks.all())?;
    }
    Ok(stored)
}

/// The rows of a database that count as stored and cannot be seen yet: those of one place at a time.
#[derive(Debug, Default)]
pub struct Unseen {
    promised: Mutex<Promised>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Promised {
    /// The partition, or none for the main database, of the rows that there are.
    place: Option<Option<String>>,
    /// How many promises ended.
    ended: u64,
    /// Somebody waits for the one that there is.
    looked_for: bool,
    /// There will be no other.
    closed: bool,
}

impl Unseen {
    /// From now on who begins to read where the target's rows lie waits until the promise is dropped. One who made a promise makes
    /// no other before that. None when the database is being disconnected: who connects it anew would not wait.
    #[must_use]
    pub fn promise(&self, target: &Target) -> Option<Promise<'_>> {
        let mut promised = self.promised.lock();
        if promised.closed {
            return None;
        }
        promised.place = Some(target.partition.clone());
        Some(Promise(self))
    }

    /// Nothing is promised from now on. Returns when what is promised now can be read.
    pub(crate) fn close(&self) {
        let mut promised = self.promised.lock();
        promised.closed = true;
        while promised.place.is_some() {
            promised.looked_for = true;
            self.ended.wait(&mut promised);
        }
    }

    /// Whether somebody waits to read the rows.
    #[must_use]
    pub fn is_looked_for(&self) -> bool {
        self.promised.lock().looked_for
    }

    /// Returns when what is promised of a target now, or of the main database, can be read.
    pub(crate) fn wait(&self, target: Option<&Target>) {
        let partition = target.and_then(|target| target.partition.as_ref());
        let mut promised = self.promised.lock();
        let before = promised.ended;
        while promised.ended == before && promised.place.as_ref().is_some_and(|place| place.as_ref() == partition) {
            promised.looked_for = true;
            self.ended.wait(&mut promised);
        }
    }
}

/// Rows count as stored. Dropped when they can be read.
#[derive(Debug)]
pub struct Promise<'u>(&'u Unseen);

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        let mut promised = self.0.promised.lock();
        let (ended, closed) = (promised.ended.wrapping_add(1), promised.closed);
        *promised = Promised { ended, closed, ..Promised::default() };
        drop(promised);
        self.0.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn until_looked_for(unseen: &Unseen) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !unseen.is_looked_for() {
            assert!(Instant::now() < deadline, "somebody waits to read");
            std::thread::yield_now();
        }
    }

    #[test]
    fn who_reads_waits_for_the_rows_of_its_place() {
        let unseen = Unseen::default();
        let (here, other) = (Target::partition("t", "par_t_1"), Target::partition("t", "par_t_2"));
        unseen.wait(Some(&here));
        let promise = unseen.promise(&here).expect("it is open");
        unseen.wait(Some(&other));
        unseen.wait(None);
        assert!(!unseen.is_looked_for());
        std::thread::scope(|threads| {
            let readers = [(); 2].map(|()| threads.spawn(|| unseen.wait(Some(&here))));
            until_looked_for(&unseen);
            assert!(!readers.iter().all(std::thread::ScopedJoinHandle::is_finished));
            drop(promise);
        });
        assert!(!unseen.is_looked_for());
        // Tables without partitions lie in the main database.
        let promise = unseen.promise(&Target::table("t")).expect("it is open");
        unseen.wait(Some(&here));
        std::thread::scope(|threads| {
            let reader = threads.spawn(|| unseen.wait(None));
            until_looked_for(&unseen);
            drop(promise);
            reader.join().expect("it goes on");
        });
    }
}
