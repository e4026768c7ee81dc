//! What members ask each other about their rows, and answer: `get cluster digest`.

use anylog_dbms::Database;
use anylog_replica::FileKey;
use serde::{Deserialize, Serialize};

use super::drops::Dropped;
use super::files::Files;
use crate::OperatorError;
use crate::replica::digest::Digest;
use crate::replica::digest::table::{Digests, parts};
use crate::replica::holdings::{Registry, complete_files};
use crate::store::Shared;

/// How far digests are taken apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum By {
    /// No digests: which files, tables and partitions there are, and which were dropped.
    Holdings,
    /// By table, partition and producer.
    #[default]
    Partition,
    /// By file as well.
    File,
    /// By file, and not of the tables but of the archived source files: what the rows should be.
    Source,
}

impl By {
    pub(crate) const WORDS: &[&str] = &["holdings", "partition", "file", "source"];

    pub(crate) fn parse(word: &str) -> Self {
        match word {
            "holdings" => By::Holdings,
            "file" => By::File,
            "source" => By::Source,
            _ => By::Partition,
        }
    }

    fn word(self) -> &'static str {
        Self::WORDS[match self {
            By::Holdings => 0,
            By::Partition => 1,
            By::File => 2,
            By::Source => 3,
        }]
    }
}

/// What is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) dbms: Option<String>,
    pub(crate) table: Option<String>,
    /// A partition, or the table's own name for its rows that lie in none.
    pub(crate) partition: Option<String>,
    pub(crate) producer: Option<i64>,
    /// Only rows of these files.
    pub(crate) files: Option<Files>,
    pub(crate) by: By,
}

impl Question {
    /// As a command for another member.
    pub(crate) fn command(&self) -> String {
        let mut command = format!("get cluster digest where by = {} and format = json", self.by.word());
        for (key, value) in [("dbms", &self.dbms), ("table", &self.table), ("partition", &self.partition)] {
            if let Some(value) = value {
                command.push_str(&format!(" and {key} = \"{value}\""));
            }
        }
        if let Some(producer) = self.producer {
            command.push_str(&format!(" and producer = {producer}"));
        }
        if let Some(files) = &self.files {
            command.push_str(&format!(" and files = \"{files}\""));
        }
        command
    }

    fn wants(&self, dbms: &str, table: &str) -> bool {
        let wanted = |wanted: &Option<String>, name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
        wanted(&self.dbms, dbms) && wanted(&self.table, table)
    }
}

/// What a member answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    /// The member; only when it is asked what it has. Members with the same rows give the same answer otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) member: Option<i64>,
    /// The files that it has completely.
    pub(crate) files: String,
    /// Its tables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) tables: Vec<TableParts>,
    /// What it dropped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) dropped: Vec<Dropped>,
    /// Its rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) digests: Vec<Row>,
}

/// A table that files are registered for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TableParts {
    pub(crate) dbms: String,
    pub(crate) table: String,
    /// Whether its database is connected.
    pub(crate) connected: bool,
    /// Its partitions, and its own name.
    pub(crate) parts: Vec<String>,
}

/// Rows of some files in a part of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) dbms: String,
    pub(crate) table: String,
    pub(crate) partition: String,
    pub(crate) producer: i64,
    /// The file, when digests are by file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<i64>,
    /// How many files.
    pub(crate) files: u64,
    pub(crate) rows: u64,
    /// 32 hexadecimal digits.
    pub(crate) digest: String,
    /// How many rows the registry says that the file has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) registered: Option<u64>,
}

impl Row {
    /// What it says of the rows; nothing when its text makes no sense.
    pub(crate) fn counted(&self) -> Option<Digest> {
        Digest::parse(self.rows, &self.digest)
    }
}

/// The files that are complete here. Blocks.
pub(crate) fn complete(shared: &Shared) -> Result<Files, OperatorError> {
    Ok(Files::of(&complete_files(shared, None)?))
}

/// The tables that files are registered for. Blocks.
fn tables(shared: &Shared, question: &Question) -> Result<Vec<(String, String)>, OperatorError> {
    let registry = Registry::of(&shared.settings())?;
    let mut tables = std::collections::BTreeSet::new();
    for name in registry.store.tables()? {
        for sum in registry.store.summary(&name, &anylog_dbms::TsdFilter::default())? {
            if question.wants(&sum.dbms, &sum.table) {
                tables.insert((sum.dbms, sum.table));
            }
        }
    }
    Ok(tables.into_iter().collect())
}

/// Answers a question about the rows of this member. Blocks; who calls holds [`Digests::reading`].
///
/// # Errors
/// [`OperatorError::NotRegistered`], of the registry, and of the databases.
pub(crate) fn tell(
    shared: &Shared,
    digests: &Digests,
    dropped: impl FnOnce() -> Vec<Dropped>,
    question: &Question,
) -> Result<Told, OperatorError> {
    let registry = Registry::of(&shared.settings())?;
    let complete_before = complete(shared)?;
    let mut wanted = complete_before.clone();
    if let Some(files) = &question.files {
        wanted = wanted.both(files);
    }
    if let Some(producer) = question.producer {
        wanted = wanted.of_producer(producer);
    }
    let member = (question.by == By::Holdings).then_some(registry.own);
    let mut told = Told { member, files: complete_before.to_string(), ..Told::default() };
    for (dbms, table) in tables(shared, question)? {
        let database = match shared.catalog.get(&dbms) {
            Ok(database) => database,
            // Who asks for this table is told why there is no answer.
            Err(error) if question.table.is_some() && question.by != By::Holdings => return Err(error.into()),
            Err(_) => {
                told.tables.push(TableParts { dbms, table, connected: false, parts: Vec::new() });
                continue;
            }
        };
        if question.by == By::Holdings {
            let parts = parts(&database, &table)?;
            told.tables.push(TableParts { dbms, table, connected: true, parts });
            continue;
        }
        digests_of(digests, &database, &table, question, &wanted, &registry, &mut told.digests)?;
    }
    if question.by == By::Holdings {
        told.dropped = dropped();
    }
    if question.by == By::File {
        // A file that was taken away meanwhile is not compared.
        told.files = complete_before.both(&complete(shared)?).to_string();
    }
    Ok(told)
}

fn digests_of(
    digests: &Digests,
    database: &Database,
    table: &str,
    question: &Question,
    wanted: &Files,
    registry: &Registry,
    rows: &mut Vec<Row>,
) -> Result<(), OperatorError> {
    let parts = match &question.partition {
        Some(part) => vec![part.clone()],
        None => parts(database, table)?,
    };
    let dbms = database.name().to_owned();
    for part in parts {
        let row = |producer: i64, file: Option<i64>, files: u64, digest: Digest| Row {
            dbms: dbms.clone(),
            table: table.to_owned(),
            partition: part.clone(),
            producer,
            file,
            files,
            rows: digest.rows,
            digest: digest.to_string(),
            registered: None,
        };
        if question.by == By::Partition {
            let sums = digests.sums(database, table, &part, wanted)?;
            rows.extend(sums.into_iter().map(|(producer, sum)| row(producer, None, sum.files, sum.digest)));
        } else {
            let found = digests.files(database, table, &part, wanted)?;
            rows.extend(found.into_iter().map(|(key, digest)| row(key.producer, Some(key.file), 1, digest)));
        }
    }
    if question.by == By::File && question.partition.is_none() {
        register(registry, &dbms, table, wanted, rows)?;
    }
    Ok(())
}

/// Adds what the registry says of few files: of one without rows that may be the only thing known.
fn register(
    registry: &Registry,
    dbms: &str,
    table: &str,
    wanted: &Files,
    rows: &mut Vec<Row>,
) -> Result<(), OperatorError> {
    if wanted.count() > super::TOGETHER {
        return Ok(());
    }
    for key in wanted.keys() {
        let Some(file) = registry.get(key)?.filter(|file| file.dbms == dbms && file.table == table) else { continue };
        rows.push(Row {
            dbms: dbms.to_owned(),
            table: table.to_owned(),
            partition: table.to_owned(),
            producer: key.producer,
            file: Some(key.file),
            files: 0,
            rows: 0,
            digest: Digest::default().to_string(),
            registered: u64::try_from(file.rows).ok(),
        });
    }
    Ok(())
}

/// The files of this text; none when it makes no sense.
pub(crate) fn files_of(text: &str) -> Files {
    Files::parse(text).unwrap_or_default()
}

/// The key of a row that is of one file.
pub(crate) fn key_of(row: &Row) -> Option<FileKey> {
    Some(FileKey { producer: row.producer, file: row.file? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_a_command_with_only_what_was_asked() {
        let question = Question { by: By::Holdings, ..Question::default() };
        assert_eq!(question.command(), "get cluster digest where by = holdings and format = json");
        let question = Question {
            dbms: Some("d".into()),
            table: Some("t".into()),
            partition: Some("par_t_2026_11_23_d01_at".into()),
            producer: Some(7),
            files: Files::parse("7:1-3,5"),
            by: By::File,
        };
        assert_eq!(
            question.command(),
            "get cluster digest where by = file and format = json and dbms = \"d\" and table = \"t\" and \
             partition = \"par_t_2026_11_23_d01_at\" and producer = 7 and files = \"7:1-3,5\""
        );
        assert!(By::WORDS.iter().all(|word| By::parse(word).word() == *word));
    }

    #[test]
    fn answers_of_other_versions_are_read() {
        let told: Told = serde_json::from_str(r#"{"member": 7, "files": "7:1", "news": [1]}"#).unwrap();
        assert_eq!((told.member, told.digests.len()), (Some(7), 0));
        let row =
            r#"{"dbms": "d", "table": "t", "partition": "t", "producer": 7, "files": 1, "rows": 2, "digest": "zz"}"#;
        assert_eq!(serde_json::from_str::<Row>(row).unwrap().counted(), None);
    }
}
