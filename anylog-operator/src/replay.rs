//! What happens to the journal's rows when a node comes back, and to a partition's rows when it is dropped.

use std::sync::{Arc, Weak};

use anylog_dbms::{ConnectHook, Database, DbmsError, DropHook};
use anylog_replica::FileKey;

use crate::journal::JournalError;
use crate::journal::record::{Entries, SegmentHeader};
use crate::replica::copies::{OpenCopy, is_complete};
use crate::replica::holdings::Registry;
use crate::seal::apply_entries;
use crate::segments::Segment;
use crate::service::OperatorService;
use crate::store::{Shared, placeholder};

/// Replays a database's rows inside `connect dbms`, before the database is offered.
pub(crate) struct Replay(pub(crate) Weak<OperatorService>);

impl ConnectHook for Replay {
    fn before_offer(&self, database: &Arc<Database>) -> Result<(), DbmsError> {
        let Some(service) = self.0.upgrade() else { return Ok(()) };
        if database.is_system() || !service.has_journal() {
            return Ok(());
        }
        let failed = |reason: String| DbmsError::Connect {
            name: database.name().to_owned(),
            reason: format!("replay of the journal: {reason}"),
        };
        let shared = service.shared().map_err(|error| failed(error.to_string()))?;
        replay(&shared, database);
        service.finish_recovered(&shared);
        Ok(())
    }
}

/// Applies the journal's rows of a database. Rows that cannot be stored now - the disk is full, the file of their partition is
/// damaged - do not keep the database from being used: they stay in the journal, and the sealing of their segment tries again.
fn replay(shared: &Arc<Shared>, database: &Arc<Database>) {
    let segments = shared.recovered.lock().remove(database.name()).unwrap_or_default();
    let mut done = Vec::with_capacity(segments.len());
    for (segment, applied) in segments {
        let table = &segment.header.table;
        let mut applied = applied;
        if !applied {
            let each = |entries: Vec<_>| apply_entries(shared, database, &segment.header, &entries).map(|_| ());
            match shared.journal.each_rows_of(segment.header.id, &segment.positions, each) {
                Ok(_) => {
                    applied = true;
                    tracing::info!(dbms = database.name(), table, rows = segment.rows, "Journal replayed");
                }
                Err(error) => {
                    let rows = segment.rows;
                    let text = format!(
                        "{rows} acknowledged rows of {}.{table} cannot be stored at the moment and stay in the journal: {error}",
                        database.name()
                    );
                    tracing::error!("{text}");
                    shared.node.errors.add(shared.node.clock.now(), "operator", "Journal not replayed", text);
                }
            }
        }
        done.push((segment, applied));
    }
    shared.recovered.lock().entry(database.name().to_owned()).or_default().extend(done);
}

/// Segments of the run before, of connected databases, that go on.
pub(crate) struct Ready {
    /// Own ones, to be sealed.
    pub(crate) own: Vec<Arc<Segment>>,
    /// Copies of files of other members, which wait for more rows; and own files that were followed, of which others may have more.
    pub(crate) copies: Vec<(FileKey, Arc<OpenCopy>)>,
}

/// Takes the segments of the run before whose databases are connected. Blocks.
pub(crate) fn ready(shared: &Arc<Shared>) -> Ready {
    let mut recovered = shared.recovered.lock();
    let connected: Vec<String> = recovered.keys().filter(|dbms| shared.catalog.get(dbms).is_ok()).cloned().collect();
    let segments: Vec<_> = connected.iter().filter_map(|dbms| recovered.remove(dbms)).flatten().collect();
    drop(recovered);
    let mut ready = Ready { own: Vec::new(), copies: Vec::new() };
    for (segment, applied) in segments {
        let refused = shared.quarantine.ordinals(segment.header.id);
        let standing = match (segment.copy, segment.followed) {
            (false, false) => Standing::Own,
            (_, followed) => standing(shared, &segment.header, !followed),
        };
        if standing == Standing::Own {
            ready.own.push(Segment::recovered(&segment, refused));
            continue;
        }
        let copy = Segment::recovered(&segment, refused);
        // One that is complete is looked after as one that lacks rows, which ends it.
        if applied && standing == Standing::Open {
            copy.catch_up();
        }
        ready.copies.extend(copy.file().map(|file| (file, OpenCopy::new(copy, segment.followed))));
    }
    ready
}

/// What is to become of a segment that other members know, as its row in the registry says.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    /// It is sealed as an own one.
    Own,
    /// It was sealed, which the journal does not say.
    Complete,
    /// It waits for more.
    Open,
}

fn standing(shared: &Shared, header: &SegmentHeader, copy: bool) -> Standing {
    let (Ok(registry), Some(file), Ok(producer)) =
        (Registry::of(&shared.settings()), header.file_id, header.member.parse::<i64>())
    else {
        return if copy { Standing::Open } else { Standing::Own };
    };
    let known = registry.get(FileKey { producer, file }).ok().flatten();
    match (copy, known) {
        // A file that came home from mates was taken for an own one.
        (true, Some(known)) if producer == registry.own && known.hash == placeholder(header.id) => Standing::Own,
        (true, Some(known)) if is_complete(&known) => Standing::Complete,
        (true, _) => Standing::Open,
        // Under another number, or without its row, nobody waits for it.
        (false, Some(known)) if producer == registry.own && known.hash == placeholder(header.id) => Standing::Open,
        (false, _) => Standing::Own,
    }
}

/// Stands for the rows of a table that lie in none of its partitions.
pub(crate) const WHOLE_TABLE: &str = "";

/// Stands for the partition of rows whose partition was dropped, when they are written again.
pub(crate) const DROPPED: &str = "\u{1}dropped";

/// Writes the tombstones of partitions, or of a table's own rows, before it is dropped.
pub(crate) struct Bury(pub(crate) Weak<OperatorService>);

impl DropHook for Bury {
    fn before_drop(&self, database: &Database, table: &str, partition: &str) -> Result<(), DbmsError> {
        self.bury(database, table, &[partition])
    }

    fn before_drops(&self, database: &Database, table: &str, partitions: &[String]) -> Result<(), DbmsError> {
        let partitions: Vec<&str> = partitions.iter().map(String::as_str).collect();
        self.bury(database, table, &partitions)
    }

    fn before_drop_table(&self, database: &Database, table: &str) -> Result<(), DbmsError> {
        self.bury(database, table, &[WHOLE_TABLE])
    }
}

impl Bury {
    /// One write of the journal for all of them.
    fn bury(&self, database: &Database, table: &str, partitions: &[&str]) -> Result<(), DbmsError> {
        let Some(service) = self.0.upgrade() else { return Ok(()) };
        if database.is_system() || !service.has_journal() {
            return Ok(());
        }
        let failed = |reason: String| DbmsError::Statement { engine: "journal".into(), reason };
        let shared = service.shared().map_err(|error| failed(error.to_string()))?;
        note(&service, &shared, database.name(), table, partitions);
        let mut entries = Entries::default();
        partitions.iter().for_each(|partition| entries.dropped(database.name(), table, partition));
        let written = shared.journal.write_blocking(entries).map_err(|error| match error {
            // Dropping is what a full disk needs: it is made possible without this note.
            JournalError::Full { .. } => DbmsError::DiskFull { name: database.name().to_owned() },
            error => failed(error.to_string()),
        })?;
        for partition in partitions {
            shared.tombstones.write().add(database.name(), table, partition, written.sequence, &written.position);
            match *partition {
                WHOLE_TABLE => shared.tables.forget_table(database.name(), table),
                partition => shared.tables.forget_partition(database.name(), table, partition),
            }
        }
        Ok(())
    }
}

/// Notes for the other members of the cluster that these rows go on purpose. Without the note their age tells nearly the same, so
/// it never keeps a partition from being dropped.
fn note<'a>(service: &OperatorService, shared: &Shared, dbms: &str, table: &'a str, partitions: &[&'a str]) {
    let Ok(files) = crate::replica::repair::drops::known_files(shared) else { return };
    let part = |partition: &&'a str| if *partition == WHOLE_TABLE { table } else { *partition };
    let parts: Vec<&str> = partitions.iter().map(part).collect();
    if let Err(error) = service.divergence().drops.note(&service.dropped_list(), dbms, table, &parts, &files) {
        tracing::warn!(dbms, table, partitions = ?parts, %error, "That they are dropped cannot be noted for other members");
    }
}
