//! Digests of rows: what members compare in order to know that they hold the same.
//!
//! The digest of a set of rows is the sum of the hashes of its rows, so the order in which they are read does not matter, digests of
//! parts add up to that of the whole, and a row that is there twice counts twice. A row's hash covers the names and values of its
//! columns save `row_id`, which each database counts by itself, and `tsd_name`, which is the file's producer. Values are hashed
//! as what they mean by the type of their column, not as an engine happens to keep them: members with SQLite and with PostgreSQL give
//! the same digest for the same rows. A column without a value is left out, so a table with a further, empty column is the same.

pub(crate) mod table;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;

use anylog_dbms::{ColumnType, Dbms, DbmsError, SqlRef, TableSchema, Target};
use anylog_replica::FileKey;

/// Files that one statement names at most.
const NAMED: usize = 200;

/// How many rows there are, and what they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Digest {
    /// Their number.
    pub(crate) rows: u64,
    /// The sum of their hashes.
    pub(crate) sum: u128,
}

impl Digest {
    /// Adds other rows.
    pub(crate) fn add(&mut self, other: Self) {
        self.rows += other.rows;
        self.sum = self.sum.wrapping_add(other.sum);
    }

    /// Reads what [`fmt::Display`] writes.
    pub(crate) fn parse(rows: u64, sum: &str) -> Option<Self> {
        Some(Self { rows, sum: u128::from_str_radix(sum, 16).ok()? })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.sum)
    }
}

/// Digests by file.
pub(crate) type FileDigests = BTreeMap<FileKey, Digest>;

/// A column as it goes into the hash of a row.
struct Hashed {
    /// A short hash of its name.
    name: [u8; 8],
    kind: ColumnType,
    text: String,
}

/// Makes rows of one table into digests.
pub(crate) struct RowHasher {
    columns: Vec<Hashed>,
    /// The statement's column list, which begins with the producer and the file.
    select: String,
    text: Vec<u8>,
}

impl RowHasher {
    /// For rows of a table.
    pub(crate) fn new(schema: &TableSchema) -> Self {
        let mut columns: Vec<_> =
            schema.columns.iter().filter(|column| !matches!(column.name.as_str(), "row_id" | "tsd_name")).collect();
        columns.sort_by(|a, b| a.name.cmp(&b.name));
        let mut select = "\"tsd_name\", \"tsd_id\"".to_owned();
        for column in &columns {
            select.push_str(", ");
            select.push_str(&quoted(&column.name));
        }
        let hashed = |name: &str| {
            let mut short = [0; 8];
            short.copy_from_slice(&blake3::hash(name.as_bytes()).as_bytes()[..8]);
            short
        };
        let columns = columns
            .into_iter()
            .map(|column| Hashed { name: hashed(&column.name), kind: column.kind, text: column.name.clone() })
            .collect();
        Self { columns, select, text: Vec::with_capacity(256) }
    }

    /// The names of the columns whose values [`Self::hash`] expects.
    pub(crate) fn names(&self) -> Vec<String> {
        self.columns.iter().map(|column| column.text.clone()).collect()
    }

    /// The columns that [`Self::hash`] expects behind the producer and the file.
    fn select(&self) -> &str {
        &self.select
    }

    /// The digest of one row, whose values come in the order of the column list.
    pub(crate) fn hash(&mut self, values: &[SqlRef<'_>]) -> Digest {
        self.text.clear();
        for (column, value) in self.columns.iter().zip(values) {
            let before = self.text.len();
            self.text.extend_from_slice(&column.name);
            if !encode(column.kind, *value, &mut self.text) {
                self.text.truncate(before);
            }
        }
        let hash = blake3::hash(&self.text);
        let mut sum = [0; 16];
        sum.copy_from_slice(&hash.as_bytes()[..16]);
        Digest { rows: 1, sum: u128::from_le_bytes(sum) }
    }
}

/// Writes a value as its column means it; false when there is none.
fn encode(kind: ColumnType, value: SqlRef<'_>, out: &mut Vec<u8>) -> bool {
    let float = |value: f64, out: &mut Vec<u8>| {
        // Zero has one sign: SQLite keeps no other.
        let value = if value == 0.0 { 0.0 } else { value };
        out.push(b'f');
        out.extend_from_slice(&value.to_bits().to_le_bytes());
    };
    let bytes = |value: &[u8], out: &mut Vec<u8>| {
        out.push(b't');
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
        out.extend_from_slice(value);
    };
    match (kind, value) {
        (_, SqlRef::Null) => return false,
        // What an engine keeps of whole numbers in such a column is its own affair.
        #[allow(clippy::cast_precision_loss)]
        (ColumnType::Double | ColumnType::Decimal, SqlRef::Int(value)) => float(value as f64, out),
        (_, SqlRef::Int(value)) => {
            out.push(b'i');
            out.extend_from_slice(&value.to_le_bytes());
        }
        (_, SqlRef::Float(value)) => float(value, out),
        // A decimal that is still a text, as it is before a database has it.
        (ColumnType::Double | ColumnType::Decimal, SqlRef::Text(value)) => {
            match std::str::from_utf8(value).ok().and_then(|text| text.trim().parse().ok()) {
                Some(number) => float(number, out),
                None => bytes(value, out),
            }
        }
        (ColumnType::Char(_), SqlRef::Text(value)) => bytes(value.trim_ascii_end(), out),
        (ColumnType::Uuid, SqlRef::Text(value)) => bytes(&value.to_ascii_lowercase(), out),
        (_, SqlRef::Text(value)) => bytes(value, out),
        (_, SqlRef::Blob(value)) => {
            out.push(b'b');
            out.extend_from_slice(&(value.len() as u64).to_le_bytes());
            out.extend_from_slice(value);
        }
    }
    true
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The digests of the files that have rows in a target, all or some. Rows that no file is registered for are passed over.
/// Blocks; reads the target once, or by its index when files are named.
///
/// # Errors
/// Of the database.
pub(crate) fn of_target(
    dbms: &dyn Dbms,
    schema: &TableSchema,
    target: &Target,
    only: Option<&[FileKey]>,
) -> Result<FileDigests, DbmsError> {
    let mut hasher = RowHasher::new(schema);
    let mut found = FileDigests::new();
    let conditions: Vec<String> = match only {
        None => vec![String::new()],
        Some(files) => files.chunks(NAMED).map(condition).collect(),
    };
    for condition in conditions {
        let sql = format!("SELECT {} FROM {}{condition}", hasher.select(), quoted(target.physical()));
        dbms.scan(Some(target), &sql, &mut |row| {
            if let Some(file) = file_of(row) {
                let digest = hasher.hash(row.get(2..).unwrap_or_default());
                found.entry(file).or_default().add(digest);
            }
            ControlFlow::Continue(())
        })?;
    }
    Ok(found)
}

/// Rows of these files, found by the index over producer and number.
fn condition(files: &[FileKey]) -> String {
    let mut by_producer: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for file in files {
        by_producer.entry(file.producer).or_default().push(file.file.to_string());
    }
    let terms: Vec<String> = by_producer
        .into_iter()
        .map(|(producer, files)| format!("(\"tsd_name\" = '{producer}' AND \"tsd_id\" IN ({}))", files.join(", ")))
        .collect();
    format!(" WHERE {}", terms.join(" OR "))
}

/// The file that a row came with.
fn file_of(row: &[SqlRef<'_>]) -> Option<FileKey> {
    let producer = match row.first()? {
        SqlRef::Text(text) => std::str::from_utf8(text).ok()?.trim_end().parse().ok()?,
        SqlRef::Int(producer) => *producer,
        _ => return None,
    };
    match row.get(1)? {
        SqlRef::Int(file) => Some(FileKey { producer, file: *file }),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
