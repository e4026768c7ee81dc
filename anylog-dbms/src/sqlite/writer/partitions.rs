//! The files of partitions come and go.

use diesel::connection::SimpleConnection;

use super::{Handle, MARKS, Writer, log_bytes};
use crate::schema::ddl::statements;
use crate::sqlite::connection::{Mode, Place, open};
use crate::sqlite::failure;
use crate::sqlite::layout::{Contents, beside, empty, remove_names, sync_directory, unlink};
use crate::{DbmsError, Engine, TableSchema};

impl Writer {
    /// Makes the file of a partition under another name and renames it, so that a file that is there is complete.
    pub(in crate::sqlite) fn create_partition(
        &mut self,
        place: &Place,
        schema: &TableSchema,
        partition: &str,
    ) -> Result<(), DbmsError> {
        let sql = statements(schema, partition, Engine::Sqlite, false).join(";\n");
        let Some(path) = place.file() else {
            let main = self.main_place.clone();
            return self.change(&main, |connection| connection.batch_execute(&sql));
        };
        if self.partitions.contains(place) || path.exists() {
            return Ok(());
        }
        let io = |error: std::io::Error| failure::io(&self.name, &error);
        let directory = path.parent().unwrap_or(path);
        if !directory.exists() {
            std::fs::create_dir_all(directory).map_err(io)?;
            for made in directory.ancestors().take(2) {
                sync_directory(made).map_err(io)?;
            }
        }
        let unfinished = beside(path, ".new");
        unlink(&unfinished).map_err(io)?;
        let mut handle = Handle::new(open(&self.name, &Place::File(unfinished.clone()), Mode::Create)?);
        // Closing the only connection moves its log into the file as well, but says nothing when there is no space for it.
        handle
            .transaction(|connection| connection.batch_execute(&format!("{sql};\n{MARKS}")))
            .and_then(|()| handle.connection.batch_execute("PRAGMA wal_checkpoint(TRUNCATE)"))
            .map_err(|error| failure::statement(&self.name, &error))?;
        drop(handle);
        if log_bytes(&Place::File(unfinished.clone())) > 0 {
            return Err(io(std::io::ErrorKind::StorageFull.into()));
        }
        // A crash in the middle of a drop may have left the log of a predecessor, which must not become that of this file.
        unlink(path).map_err(io)?;
        std::fs::rename(&unfinished, path).and_then(|()| sync_directory(path)).map_err(io)
    }

    /// Takes the names of partitions in files of one directory away, in this order until one cannot be taken, and gives what they held:
    /// of as many as are gone. This needs no space. Nothing when a crash may bring the names back: they must not be those of empty files.
    pub(in crate::sqlite) fn drop_files(&mut self, places: &[&Place]) -> (usize, Vec<Contents>, Result<(), DbmsError>) {
        let mut contents = Vec::with_capacity(places.len());
        let mut remove = || -> std::io::Result<()> {
            for path in places.iter().filter_map(|place| place.file()) {
                let held = Contents::of(path);
                remove_names(path)?;
                contents.push(held);
            }
            Ok(())
        };
        let removed = remove();
        // Once for all.
        let gone = contents.len();
        let last = places[..gone].last().and_then(|place| place.file());
        let synced = last.map_or(Ok(()), sync_directory);
        if synced.is_err() {
            contents.clear();
        }
        places[..gone].iter().for_each(|place| self.forget_place(place));
        (gone, contents, synced.and(removed).map_err(|error| failure::io(&self.name, &error)))
    }

    /// Gives the bytes of a partition back that is to be dropped, in place.
    pub(in crate::sqlite) fn empty_partition(&mut self, place: &Place) -> Result<(), DbmsError> {
        let Some(path) = place.file() else { return Ok(()) };
        self.forget_place(place);
        empty(path).map_err(|error| failure::io(&self.name, &error))
    }

    fn forget_place(&mut self, place: &Place) {
        self.partitions.pop(place);
        if let Some(path) = place.file() {
            self.dirty.remove(path);
        }
        for places in self.marked.values_mut() {
            places.remove(place);
        }
    }
}
