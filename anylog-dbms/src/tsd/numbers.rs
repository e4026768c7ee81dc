//! Files whose numbers were given before: by the member that produced them, or by this node before it lost its disk. And which numbers
//! were given.

use jiff::Timestamp;

use super::{COLUMNS, NewFile, OWN_TABLE, Store, TAKEN_AWAY, TsdError, TsdStore, complete, int, member_table, values};
use crate::{DbmsError, SqlValue};
use anylog_core::time::stored;

/// What counts the numbers of files at a PostgreSQL server.
const SEQUENCE: &str = "tsd_info_file_id_seq";

impl TsdStore {
    /// Registers a file that is complete, under the number that its producer gave it, in one statement: in `tsd_<member>`, which is
    /// created when needed, or, for a file of this node, in `tsd_info`. What was there of the file while it was not complete is
    /// replaced.
    ///
    /// # Errors
    /// [`TsdError::Duplicate`] when another complete file has this number, or another number has this hash.
    pub fn register_complete(&self, table: &str, file_id: i64, file: &NewFile, rows: u64) -> Result<(), TsdError> {
        let table = self.numbered(table, file_id)?;
        let replaced = format!("{table}.file_hash = excluded.file_hash OR NOT ({})", complete(&format!("{table}.")));
        self.replace(&table, file_id, file, rows, &replaced)
    }

    /// Registers a file of this node that is not complete under a number that it had before. What was there of it while it was not
    /// complete is replaced.
    ///
    /// # Errors
    /// [`TsdError::Duplicate`] when a complete file has this number.
    pub fn register_open(&self, file_id: i64, file: &NewFile) -> Result<(), TsdError> {
        let table = self.numbered(OWN_TABLE, file_id)?;
        self.replace(&table, file_id, file, 0, &format!("NOT ({})", complete(&format!("{table}."))))
    }

    /// Registers a file under its number, in the place of one that may be `replaced`.
    fn replace(&self, table: &str, file_id: i64, file: &NewFile, rows: u64, replaced: &str) -> Result<(), TsdError> {
        let time = self.time_parameter();
        let sql = format!(
            "INSERT INTO {table}(file_id, {COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, {time}, ?, '', '') \
             ON CONFLICT(file_id) DO UPDATE SET dbms_name = excluded.dbms_name, table_name = excluded.table_name, \
             source = excluded.source, file_hash = excluded.file_hash, instructions = excluded.instructions, \
             file_time = excluded.file_time, rows = excluded.rows, status1 = '', status2 = '' \
             WHERE {replaced} RETURNING file_id"
        );
        let rows = SqlValue::Int(i64::try_from(rows).unwrap_or(i64::MAX));
        let params: Vec<SqlValue> = std::iter::once(SqlValue::Int(file_id)).chain(values(file)).chain([rows]).collect();
        let duplicate = || TsdError::Duplicate { table: table.to_owned(), hash: file.hash.clone() };
        match self.change(&sql, &params) {
            Ok(changed) if changed.is_empty() => Err(duplicate()),
            Err(TsdError::Dbms(DbmsError::Unique { .. })) => Err(duplicate()),
            result => result.map(|_| ()),
        }
    }

    /// Registers, durably, that a file is not here any more and is to be fetched from another member: under its number, whether it was
    /// registered or not. [`Self::register_complete`] ends that.
    ///
    /// # Errors
    /// [`TsdError::Duplicate`] when another number has the hash of a file that was not registered.
    pub fn take_away(&self, table: &str, file_id: i64, file: &NewFile) -> Result<(), TsdError> {
        let table = self.numbered(table, file_id)?;
        let time = self.time_parameter();
        let sql = format!(
            "INSERT INTO {table}(file_id, {COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, {time}, 0, '{TAKEN_AWAY}', '') \
             ON CONFLICT(file_id) DO UPDATE SET rows = 0, status1 = excluded.status1, status2 = '' RETURNING file_id"
        );
        let params: Vec<SqlValue> = std::iter::once(SqlValue::Int(file_id)).chain(values(file)).collect();
        match self.change(&sql, &params) {
            Err(TsdError::Dbms(DbmsError::Unique { .. })) => {
                Err(TsdError::Duplicate { table, hash: file.hash.clone() })
            }
            result => result.map(|_| ()),
        }
    }

    /// The table for a file whose number is given, which is made when needed; own numbers go on behind it.
    fn numbered(&self, table: &str, file_id: i64) -> Result<String, TsdError> {
        if table == OWN_TABLE {
            // PostgreSQL counts apart from the rows: a number must not be given once more.
            self.number_from(file_id)?;
        } else if let Some(member) = table.strip_prefix("tsd_") {
            let table = member_table(member)?;
            if !self.tables()?.contains(&table) {
                self.create_table(&table, "INT PRIMARY KEY", &format!("_{member}"))?;
            }
        }
        self.known(table)
    }

    /// The numbers of complete files as ranges of first and last, in order; only of files registered at or after a time. A file is
    /// complete when it has rows, its hash is known, and no status says otherwise.
    ///
    /// # Errors
    /// [`TsdError::NoTable`].
    pub fn complete(&self, table: &str, since: Option<Timestamp>) -> Result<Vec<(i64, i64)>, TsdError> {
        let table = self.known(table)?;
        let (mut condition, mut params) = (complete(""), Vec::new());
        if let Some(since) = since {
            condition.push_str(&format!(" AND file_time >= {}", self.time_parameter()));
            params.push(SqlValue::Text(stored(since)));
        }
        // Numbers of one range are as far from their places in the order.
        let sql = format!(
            "SELECT min(file_id), max(file_id) FROM (SELECT file_id, file_id - row_number() OVER (ORDER BY file_id) AS lead \
             FROM {table} WHERE {condition}) AS numbered GROUP BY lead ORDER BY 1"
        );
        Ok(self.rows(&sql, &params)?.iter().map(|row| (int(row.first()), int(row.get(1)))).collect())
    }

    /// The highest number that a file of this node was given; 0 when there was none.
    ///
    /// # Errors
    /// Of the database.
    pub fn given(&self) -> Result<i64, TsdError> {
        let counted = match self.store {
            Store::Sqlite(_) => format!("SELECT max(seq) FROM sqlite_sequence WHERE name = '{OWN_TABLE}'"),
            Store::Postgres(_) => format!("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {SEQUENCE}"),
        };
        let highest = |sql: &str| Ok::<_, TsdError>(int(self.rows(sql, &[])?.first().and_then(|row| row.first())));
        Ok(highest(&counted)?.max(highest(&format!("SELECT max(file_id) FROM {OWN_TABLE}"))?))
    }

    /// Lets the numbers of this node's files go on behind a number; one that was given already changes nothing.
    ///
    /// # Errors
    /// Of the database; PostgreSQL takes numbers of 32 bits.
    pub fn number_from(&self, number: i64) -> Result<(), TsdError> {
        match self.store {
            Store::Sqlite(_) => {
                // The first file makes the row; until then there is none.
                let first = format!(
                    "INSERT INTO sqlite_sequence(name, seq) SELECT '{OWN_TABLE}', 0 \
                     WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = '{OWN_TABLE}')"
                );
                self.change(&first, &[])?;
                let raise = format!("UPDATE sqlite_sequence SET seq = ? WHERE name = '{OWN_TABLE}' AND seq < ?");
                self.change(&raise, &[SqlValue::Int(number), SqlValue::Int(number)])?;
            }
            Store::Postgres(_) => {
                let raise =
                    format!("SELECT setval('{SEQUENCE}', ?::bigint) FROM {SEQUENCE} WHERE last_value <= ?::bigint");
                self.change(&raise, &[SqlValue::Int(number), SqlValue::Int(number)])?;
            }
        }
        Ok(())
    }
}
