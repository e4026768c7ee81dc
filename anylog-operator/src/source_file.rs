//! Names and hashes of source files.
//!
//! `dbms.table[.source[.hash[.instructions[.member.row_id.date]]]].json`: two to five segments, or exactly eight. A name with
//! eight is registered: its member made it, and `row_id` is its number in that member's registry. A final `.gz` means that
//! the content is compressed.

use anylog_core::time::file_date;
use jiff::Timestamp;
use md5::{Digest, Md5};

use crate::OperatorError;

/// What the content of a source file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// JSON rows.
    Json,
    /// SQL statements, from older nodes.
    Sql,
}

/// The member that made a file, and the file's number and date there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The member's number as text.
    pub member: String,
    /// The file's number in the member's registry.
    pub file_id: i64,
    /// `YYMMDDHHMMSS` in UTC.
    pub date: String,
}

/// A source file's name, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceName {
    /// Logical database, normalised.
    pub dbms: String,
    /// Table, normalised.
    pub table: String,
    /// Data source id; `0` when there is none.
    pub source: String,
    /// Hash of the content; `0` when the name has none.
    pub hash: String,
    /// Mapping policy id; `0` when there is none.
    pub instructions: String,
    /// Who registered it, when it is registered.
    pub registration: Option<Registration>,
    /// What the content is.
    pub kind: SourceKind,
    /// Whether the content is compressed.
    pub compressed: bool,
}

impl SourceName {
    /// Takes a file name apart.
    ///
    /// # Errors
    /// [`OperatorError::FileName`] naming what does not fit.
    pub fn parse(name: &str) -> Result<Self, OperatorError> {
        let wrong = |reason: &str| OperatorError::FileName { name: name.to_owned(), reason: reason.to_owned() };
        let (plain, compressed) = match name.strip_suffix(".gz") {
            Some(plain) => (plain, true),
            None => (name, false),
        };
        let (stem, kind) = match plain.rsplit_once('.') {
            Some((stem, "json")) => (stem, SourceKind::Json),
            Some((stem, "sql")) => (stem, SourceKind::Sql),
            _ => return Err(wrong("the type must be json, json.gz or sql")),
        };
        let segments: Vec<&str> = stem.split('.').collect();
        if segments.iter().any(|segment| segment.is_empty()) {
            return Err(wrong("a segment is empty"));
        }
        if !matches!(segments.len(), 2..=5 | 8) && kind == SourceKind::Json {
            return Err(wrong(&format!("{} segments, where 2 to 5 or 8 are expected", segments.len())));
        }
        let or_zero = |at: usize| segments.get(at).map_or("0", |segment| *segment).to_owned();
        let registration = if segments.len() == 8 {
            Some(registration(&segments).ok_or_else(|| {
                wrong("the sixth, seventh and eighth segments must be a member, a positive number and YYMMDDHHMMSS")
            })?)
        } else {
            None
        };
        Ok(Self {
            dbms: anylog_core::names::normalize(segments[0]),
            table: anylog_core::names::normalize(segments.get(1).ok_or_else(|| wrong("no table"))?),
            source: or_zero(2),
            hash: or_zero(3),
            instructions: or_zero(4),
            registration,
            kind,
            compressed,
        })
    }

    /// The file's name without `.gz`.
    #[must_use]
    pub fn plain(&self) -> String {
        let mut name = format!("{}.{}.{}.{}.{}", self.dbms, self.table, self.source, self.hash, self.instructions);
        if let Some(registration) = &self.registration {
            name.push_str(&format!(".{}.{}.{}", registration.member, registration.file_id, registration.date));
        }
        name.push_str(match self.kind {
            SourceKind::Json => ".json",
            SourceKind::Sql => ".sql",
        });
        name
    }
}

fn registration(segments: &[&str]) -> Option<Registration> {
    let file_id = segments[6].parse().ok().filter(|id| *id > 0)?;
    let date = segments[7];
    let digits = date.len() == 12 && date.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| Registration { member: segments[5].to_owned(), file_id, date: date.to_owned() })
}

/// The registered name of a file: who made it, under which number, when.
#[must_use]
pub fn registered(member: &str, file_id: i64, time: Timestamp) -> Registration {
    Registration { member: member.to_owned(), file_id, date: file_date(time) }
}

/// MD5 of `dbms.table` and the bytes of a file, in hexadecimal: the identity of a file's content.
///
/// ```
/// use anylog_operator::source_file::content_hash;
/// assert_eq!(content_hash("d", "t", &[b"{}"]), content_hash("d", "t", &[b"{", b"}"]));
/// assert_ne!(content_hash("d", "t", &[b"{}"]), content_hash("d", "u", &[b"{}"]));
/// ```
#[must_use]
pub fn content_hash(dbms: &str, table: &str, pieces: &[&[u8]]) -> String {
    let mut hash = ContentHash::new(dbms, table);
    pieces.iter().for_each(|piece| hash.update(piece));
    hash.of_file()
}

/// The hash of a file's content, or of a stream's segment, of which the bytes come one after the other.
#[derive(Debug, Clone)]
pub struct ContentHash(Md5);

impl ContentHash {
    /// Before the first byte of a file of this table.
    #[must_use]
    pub fn new(dbms: &str, table: &str) -> Self {
        let mut md5 = Md5::new();
        md5.update(dbms.as_bytes());
        md5.update(b".");
        md5.update(table.as_bytes());
        Self(md5)
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of a file, as [`content_hash`] gives it.
    #[must_use]
    pub fn of_file(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The hash of a stream's segment, as [`stream_hash`] gives it.
    #[must_use]
    pub fn of_stream(mut self, member: &str, identity: &str) -> String {
        for piece in [member, ".", identity] {
            self.0.update(piece.as_bytes());
        }
        self.of_file()
    }
}

/// The hash of a stream's segment: that of a file, and in it the member and the file's number as well, because two equal
/// batches from a device are two batches.
#[must_use]
pub fn stream_hash(dbms: &str, table: &str, bytes: &[u8], member: &str, identity: &str) -> String {
    let mut hash = ContentHash::new(dbms, table);
    hash.update(bytes);
    hash.of_stream(member, identity)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn documented_names_are_read() {
        let sample = "monitoring.syslog.0.fc15eac3f5.0.165.311239.260726140705.json.gz";
        let name = SourceName::parse(sample).unwrap();
        let registration = name.registration.clone().unwrap();
        assert_eq!((registration.member.as_str(), registration.file_id), ("165", 311_239));
        assert!(name.compressed);
        assert_eq!(name.plain() + ".gz", sample);
        let short = SourceName::parse("My Db.Table-1.json").unwrap();
        assert_eq!((short.dbms.as_str(), short.table.as_str(), short.hash.as_str()), ("my_db", "table_1", "0"));
    }

    #[test]
    fn other_names_are_refused_with_the_reason() {
        for (name, reason) in [
            ("d.json", "1 segments"),
            ("d.t.0.0.0.1.json", "6 segments"),
            ("d.t.0.0.0.1.2.json", "7 segments"),
            ("d..json", "empty"),
            ("d.t.txt", "type"),
            ("d.t.0.0.0.1.0.260726140705.json", "positive number"),
            ("d.t.0.0.0.1.5.2607.json", "YYMMDDHHMMSS"),
        ] {
            let error = SourceName::parse(name).unwrap_err();
            assert!(error.to_string().contains(reason), "{name}: {error}");
            assert_eq!(error.status().0, 119);
        }
    }

    proptest! {
        #[test]
        fn any_name_is_survived(name in "\\PC{0,40}") {
            drop(SourceName::parse(&name));
        }

        #[test]
        fn a_name_that_is_read_is_written_again(name in "[a-z]{1,4}(\\.[a-z0-9]{1,4}){1,4}\\.json(\\.gz)?") {
            let parsed = SourceName::parse(&name).unwrap();
            let again = SourceName::parse(&parsed.plain()).unwrap();
            prop_assert_eq!(SourceName { compressed: false, ..parsed }, again);
        }
    }
}
