//! What happens to the journal's rows when a node comes back, and to a partition's rows when it is dropped.

use std::sync::{Arc, Weak};

use anylog_dbms::{ConnectHook, Database, DbmsError, DropHook};

use crate::journal::record::Entries;
use crate::seal::apply_entries;
use crate::segments::Segment;
use crate::service::OperatorService;
use crate::store::Shared;

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
        replay(&shared, database).map_err(|error| failed(error.to_string()))?;
        service.finish_recovered(&shared);
        Ok(())
    }
}

fn replay(shared: &Arc<Shared>, database: &Arc<Database>) -> Result<(), crate::OperatorError> {
    let segments = shared.recovered.lock().remove(database.name()).unwrap_or_default();
    let mut done = Vec::with_capacity(segments.len());
    let mut result = Ok(());
    for (segment, applied) in segments {
        if !applied && result.is_ok() {
            let each = |entries: Vec<_>| apply_entries(shared, database, &segment.header, &entries).map(|_| ());
            result = shared.journal.each_rows_of(segment.header.id, &segment.positions, each).map(|_| ());
            tracing::info!(
                dbms = database.name(),
                table = segment.header.table,
                rows = segment.rows,
                "Journal replayed"
            );
        }
        let applied = applied || result.is_ok();
        done.push((segment, applied));
    }
    shared.recovered.lock().entry(database.name().to_owned()).or_default().extend(done);
    result
}

/// Segments of the run before, of connected databases, ready to be sealed.
pub(crate) fn ready(shared: &Arc<Shared>) -> Result<Vec<Arc<Segment>>, crate::OperatorError> {
    let mut recovered = shared.recovered.lock();
    let connected: Vec<String> = recovered.keys().filter(|dbms| shared.catalog.get(dbms).is_ok()).cloned().collect();
    let segments: Vec<_> = connected.iter().filter_map(|dbms| recovered.remove(dbms)).flatten().collect();
    drop(recovered);
    Ok(segments
        .iter()
        .map(|(segment, _)| Segment::recovered(segment, shared.quarantine.ordinals(segment.header.id)))
        .collect())
}

/// Writes the tombstone of a partition before it is dropped.
pub(crate) struct Bury(pub(crate) Weak<OperatorService>);

impl DropHook for Bury {
    fn before_drop(&self, database: &Database, table: &str, partition: &str) -> Result<(), DbmsError> {
        let Some(service) = self.0.upgrade() else { return Ok(()) };
        if database.is_system() || !service.has_journal() {
            return Ok(());
        }
        let failed = |reason: String| DbmsError::Statement { engine: "journal".into(), reason };
        let shared = service.shared().map_err(|error| failed(error.to_string()))?;
        let mut entries = Entries::default();
        entries.dropped(database.name(), table, partition);
        let written = shared.journal.write_blocking(entries).map_err(|error| failed(error.to_string()))?;
        shared.tombstones.write().add(database.name(), table, partition, written.sequence);
        shared.tables.forget_partition(database.name(), table, partition);
        Ok(())
    }
}
