//! What a file's rows should be, told by its archived source file.
//!
//! The source file is checked by the hash in the registry, and its rows are converted as they were when they were stored, with the times
//! of its run list. Where that comes to what a member's tables have, that member is right, whatever others have.

use std::collections::HashMap;
use std::sync::Arc;

use anylog_dbms::SqlRef;
use anylog_dbms::schema::{ConvertedRow, RowConverter};
use anylog_replica::FileKey;

use super::Member;
use super::ask::{By, Question, Row, Told};
use crate::OperatorError;
use crate::replica::copies::is_complete;
use crate::replica::digest::{Digest, RowHasher};
use crate::replica::holdings::Registry;
use crate::replica::serve::{archived, each_archived};
use crate::store::Shared;
use crate::tables::{TableState, blocking};

impl Member {
    /// The digests of archived source files: of those that are asked for, complete here, archived and whole.
    pub(super) async fn tell_sources(&self, question: Question) -> Result<Told, OperatorError> {
        let mut told = Told::default();
        let (Some(dbms), Some(table), Some(files)) = (question.dbms, question.table, question.files) else {
            return Ok(told);
        };
        let database = self.shared.catalog.get(&dbms)?;
        let name = table.clone();
        let there = blocking(move || Ok::<_, OperatorError>(database.dbms().schema(&name)?.is_some())).await?;
        if !there {
            return Ok(told);
        }
        let state = self.shared.tables.ensure_as(&dbms, &table, &[], &[], None).await?;
        for key in files.keys().take(usize::try_from(super::TOGETHER).unwrap_or(usize::MAX)) {
            let (shared, state) = (Arc::clone(&self.shared), Arc::clone(&state));
            match blocking(move || of_archive(&shared, &state, key)).await {
                Ok(None) => {}
                Ok(Some(digest)) => told.digests.push(Row {
                    dbms: dbms.clone(),
                    table: table.clone(),
                    partition: table.clone(),
                    producer: key.producer,
                    file: Some(key.file),
                    files: 1,
                    rows: digest.rows,
                    digest: digest.to_string(),
                    registered: None,
                }),
                // An archive that cannot be used proves nothing.
                Err(error) => {
                    tracing::warn!(producer = key.producer, file = key.file, %error, "An archived file proves nothing")
                }
            }
        }
        Ok(told)
    }

    /// What is asked for proofs.
    pub(super) fn proofs(question: &Question, files: super::Files) -> Question {
        Question { files: Some(files), by: By::Source, ..question.clone() }
    }
}

/// The digest of a file's rows as its archived source file tells it. Blocks.
///
/// # Errors
/// Of the file system, and when the file is not what the registry says.
fn of_archive(shared: &Shared, table: &TableState, key: FileKey) -> Result<Option<Digest>, OperatorError> {
    let settings = shared.settings();
    let registry = Registry::of(&settings)?;
    let Some(known) = registry.get(key)?.filter(is_complete) else { return Ok(None) };
    let Some((list, packed, path)) = archived(&settings, key, &known)? else { return Ok(None) };
    let mut rows = Converting::new(table, key);
    each_archived(&list, &packed, &path, key, &known, |row, received, zone| rows.add(row, received, zone))?;
    Ok(Some(rows.digest))
}

/// Rows made into digests as the table would keep them.
struct Converting<'a> {
    table: &'a TableState,
    hasher: RowHasher,
    /// Where the hasher's columns stand in a stored row.
    places: Vec<Option<usize>>,
    converters: HashMap<Arc<str>, RowConverter>,
    producer: String,
    file: i64,
    digest: Digest,
}

impl<'a> Converting<'a> {
    fn new(table: &'a TableState, key: FileKey) -> Self {
        let hasher = RowHasher::new(&table.schema);
        let place = |name: &String| table.columns.iter().position(|column| column == name);
        let places = hasher.names().iter().map(place).collect();
        let (producer, file) = (key.producer.to_string(), key.file);
        Self { table, hasher, places, converters: HashMap::new(), producer, file, digest: Digest::default() }
    }

    /// A row that does not fit the table is in the quarantine instead.
    fn add(&mut self, row: &str, received: jiff::Timestamp, zone: &Arc<str>) {
        let table = self.table;
        let converter = self.converters.entry(Arc::clone(zone)).or_insert_with(|| table.replay_converter(zone));
        let mut converted = ConvertedRow { values: Vec::new(), widen: Vec::new() };
        if converter.convert_into(row, received, &mut converted).is_err() {
            return;
        }
        let mut values = vec![
            anylog_dbms::SqlValue::Text(anylog_core::time::stored(received)),
            anylog_dbms::SqlValue::Text(self.producer.clone()),
            anylog_dbms::SqlValue::Int(self.file),
        ];
        values.append(&mut converted.values);
        let at =
            |place: &Option<usize>| place.and_then(|at| values.get(at)).map_or(SqlRef::Null, |value| value.as_ref());
        let ordered: Vec<SqlRef<'_>> = self.places.iter().map(at).collect();
        self.digest.add(self.hasher.hash(&ordered));
    }
}
