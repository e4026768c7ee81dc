//! The master's ledger: the table `ledger` of the logical database `blockchain`.
//!
//! | column | holds |
//! |---|---|
//! | `sequence_id` | a counter; rows are exported by date, then by it |
//! | `policy_type`, `policy_id` | of the policy; the id is unique |
//! | `company_name`, `status` | copied from the policy when it has them |
//! | `date` | the policy's date, else when it came |
//! | `host` | the address of the node that sent it |
//! | `policy` | the whole policy as JSON |
//!
//! A write is one statement that changes nothing when the table changed since the policy was validated, so validation and insert
//! are one step although several masters may share a PostgreSQL server.

use std::ops::ControlFlow;
use std::sync::Arc;

use anylog_dbms::{Catalog, Dbms, DbmsError, Engine, SqlValue};

use crate::snapshot::Deletion;
use crate::{LedgerError, Policy};

/// The logical database of a master.
pub const DBMS: &str = "blockchain";
/// The table of a master.
pub const TABLE: &str = "ledger";

/// The table beside it that remembers what was deleted: `policy_id`, `date`. Without it a node that holds a policy and a
/// master that lacks it could not tell a deletion from a loss.
pub const DELETED: &str = "ledger_deleted";

/// The state of the table that a validation looked at: how many rows, and the highest counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    rows: i64,
    last: i64,
}

impl Mark {
    /// Whether one row was added since, and nothing else happened. A gap in the counter counts as something else.
    #[must_use]
    pub fn is_one_more_than(self, before: Mark) -> bool {
        self.rows == before.rows + 1 && self.last == before.last + 1
    }
}

/// The master's table in a connected database.
#[derive(Debug, Clone)]
pub struct MasterTable {
    dbms: Arc<dyn Dbms>,
}

impl MasterTable {
    /// The table of this node's `blockchain` database.
    ///
    /// # Errors
    /// [`DbmsError::NotConnected`] when this node is not a master.
    pub fn of(catalog: &Catalog) -> Result<Self, LedgerError> {
        Ok(Self { dbms: Arc::clone(catalog.get(DBMS)?.dbms()) })
    }

    /// The table in this database.
    #[must_use]
    pub fn new(dbms: Arc<dyn Dbms>) -> Self {
        Self { dbms }
    }

    /// Creates the tables unless they are there.
    ///
    /// # Errors
    /// What the database refuses.
    pub fn create(&self) -> Result<(), LedgerError> {
        Ok(create(self.dbms.as_ref())?)
    }

    /// Drops the table.
    ///
    /// # Errors
    /// What the database refuses.
    pub fn drop(&self) -> Result<(), LedgerError> {
        self.dbms.execute(&format!("DROP TABLE IF EXISTS {TABLE}"))?;
        self.dbms.execute(&format!("DROP TABLE IF EXISTS {DELETED}"))?;
        Ok(())
    }

    /// Whether the table is there.
    ///
    /// # Errors
    /// What the database refuses.
    pub fn exists(&self) -> Result<bool, LedgerError> {
        Ok(self.dbms.tables()?.iter().any(|table| table == TABLE))
    }

    /// What changes with every write.
    ///
    /// # Errors
    /// What the database refuses.
    pub fn mark(&self) -> Result<Mark, LedgerError> {
        let mut mark = Mark::default();
        let sql = format!("SELECT count(*) AS rows_count, coalesce(max(sequence_id), 0) AS last_id FROM {TABLE}");
        self.dbms.query(None, &sql, &mut |_, row| {
            if let [rows, last] = row.as_slice() {
                mark = Mark { rows: integer(rows), last: integer(last) };
            }
            ControlFlow::Break(())
        })?;
        Ok(mark)
    }

    /// All policies ordered by date, as they are stored, each with `ledger` = `global`.
    ///
    /// # Errors
    /// What the database refuses. A row that is no policy is left out and reported in the log: one bad row does not stop
    /// the distribution of the others.
    pub fn policies(&self) -> Result<Vec<Policy>, LedgerError> {
        let mut policies = Vec::new();
        let sql = format!("SELECT policy_id, policy FROM {TABLE} ORDER BY date, sequence_id");
        self.dbms.query(None, &sql, &mut |_, row| {
            if let [SqlValue::Text(id), SqlValue::Text(text)] = row.as_slice() {
                match Policy::from_json_text(text) {
                    Ok(policy) if policy.id() == id => policies.push(policy.marked("global")),
                    Ok(_) => tracing::warn!(%id, "A row of the ledger table holds a policy with another id"),
                    Err(error) => tracing::warn!(%id, %error, "A row of the ledger table holds no policy"),
                }
            }
            ControlFlow::Continue(())
        })?;
        Ok(policies)
    }

    /// Adds a row when the table is still as `mark` says. Returns whether it was.
    ///
    /// # Errors
    /// What the database refuses.
    pub fn insert_if(&self, policy: &Policy, host: &str, mark: Mark) -> Result<bool, LedgerError> {
        let optional = |name: &str| policy.text(name).map_or_else(|| "NULL".to_owned(), quoted);
        let date = policy.text("date").filter(|date| is_instant(date));
        let (date_column, date_value) =
            date.map_or_else(Default::default, |date| (", date", format!(", {}", self.timestamp(date))));
        let sql = format!(
            "INSERT INTO {TABLE} (policy_type, policy_id, company_name, host, status, policy{date_column}) \
             SELECT {}, {}, {}, {}, {}, {}{date_value} WHERE {}",
            quoted(policy.kind()),
            quoted(policy.id()),
            optional("company"),
            quoted(host),
            optional("status"),
            quoted(&policy.marked("global").to_json_text()),
            unchanged(mark),
        );
        let added = self.dbms.execute(&sql)? == 1;
        if added {
            self.forget_deleted(policy.id())?;
        }
        Ok(added)
    }

    /// Writes the new content of a policy into its row when the table is still as `mark` says. Returns whether it was.
    ///
    /// # Errors
    /// What the database refuses.
    pub fn replace_if(&self, policy: &Policy, host: &str, mark: Mark) -> Result<bool, LedgerError> {
        // The counter moves with the content, so that a reader that compares marks sees the change.
        let optional = |name: &str| policy.text(name).map_or_else(|| "NULL".to_owned(), quoted);
        let sql = format!(
            "UPDATE {TABLE} SET company_name = {}, host = {}, status = {}, policy = {}, sequence_id = {} \
             WHERE policy_id = {} AND {}",
            optional("company"),
            quoted(host),
            optional("status"),
            quoted(&policy.marked("global").to_json_text()),
            mark.last + 1,
            quoted(policy.id()),
            unchanged(mark),
        );
        if self.dbms.execute(&sql)? != 1 {
            return Ok(false);
        }
        if self.dbms.engine() == Engine::Postgres {
            self.dbms.execute(&format!(
                "SELECT setval(pg_get_serial_sequence('{TABLE}', 'sequence_id'), (SELECT max(sequence_id) FROM {TABLE}))"
            ))?;
        }
        Ok(true)
    }

    /// Deletes the row of an id and remembers that it was deleted at `date`. Returns whether there was one.
    ///
    /// # Errors
    /// What the database refuses.
    pub fn delete(&self, id: &str, date: &str) -> Result<bool, LedgerError> {
        // The note first: a row that is there counts more than a note, so a crash in between deletes nothing.
        self.note_deleted(id, date)?;
        Ok(self.dbms.execute(&format!("DELETE FROM {TABLE} WHERE policy_id = {}", quoted(id)))? > 0)
    }

    fn note_deleted(&self, id: &str, date: &str) -> Result<(), LedgerError> {
        self.forget_deleted(id)?;
        let sql = format!("INSERT INTO {DELETED} (policy_id, date) VALUES ({}, {})", quoted(id), quoted(date));
        self.dbms.execute(&sql)?;
        Ok(())
    }

    /// Forgets that an id was deleted: it is there again.
    ///
    /// # Errors
    /// What the database refuses.
    pub fn forget_deleted(&self, id: &str) -> Result<(), LedgerError> {
        self.dbms.execute(&format!("DELETE FROM {DELETED} WHERE policy_id = {}", quoted(id)))?;
        Ok(())
    }

    /// The policies that were deleted and are not there again.
    ///
    /// # Errors
    /// What the database refuses.
    pub fn deletions(&self) -> Result<Vec<Deletion>, LedgerError> {
        let mut deletions = Vec::new();
        let sql = format!(
            "SELECT policy_id, date FROM {DELETED} WHERE policy_id NOT IN (SELECT policy_id FROM {TABLE}) ORDER BY policy_id"
        );
        self.dbms.query(None, &sql, &mut |_, row| {
            if let [SqlValue::Text(id), SqlValue::Text(date)] = row.as_slice() {
                deletions.push(Deletion { id: id.clone(), date: date.clone() });
            }
            ControlFlow::Continue(())
        })?;
        Ok(deletions)
    }

    /// When the policy of an id was deleted; none when it was not, or is there again.
    ///
    /// # Errors
    /// What the database refuses.
    pub fn deleted_at(&self, id: &str) -> Result<Option<String>, LedgerError> {
        let mut date = None;
        let sql = format!("SELECT date FROM {DELETED} WHERE policy_id = {}", quoted(id));
        self.dbms.query(None, &sql, &mut |_, row| {
            if let [SqlValue::Text(text)] = row.as_slice() {
                date = Some(text.clone());
            }
            ControlFlow::Break(())
        })?;
        Ok(date)
    }

    /// The ids that came from a host.
    ///
    /// # Errors
    /// What the database refuses.
    pub fn ids_of_host(&self, host: &str) -> Result<Vec<String>, LedgerError> {
        let mut ids = Vec::new();
        let sql = format!("SELECT policy_id FROM {TABLE} WHERE host = {}", quoted(host));
        self.dbms.query(None, &sql, &mut |_, row| {
            if let [SqlValue::Text(id)] = row.as_slice() {
                ids.push(id.clone());
            }
            ControlFlow::Continue(())
        })?;
        Ok(ids)
    }

    /// All rows as INSERT statements, ordered by date.
    ///
    /// # Errors
    /// What the database refuses.
    pub fn inserts(&self) -> Result<Vec<String>, LedgerError> {
        let mut statements = Vec::new();
        let sql = format!(
            "SELECT policy_type, policy_id, company_name, cast(date as varchar) AS date, host, status, policy \
             FROM {TABLE} ORDER BY date, sequence_id"
        );
        self.dbms.query(None, &sql, &mut |_, row| {
            let values: Vec<String> = row.iter().map(literal).collect();
            statements.push(format!(
                "INSERT INTO {TABLE} (policy_type, policy_id, company_name, date, host, status, policy) VALUES ({});",
                values.join(", ")
            ));
            ControlFlow::Continue(())
        })?;
        Ok(statements)
    }

    fn timestamp(&self, date: &str) -> String {
        match self.dbms.engine() {
            Engine::Sqlite => quoted(date),
            _ => format!("CAST({} AS timestamp)", quoted(date)),
        }
    }
}

/// True of a text that both databases take as a timestamp.
fn is_instant(date: &str) -> bool {
    date.parse::<jiff::Timestamp>().is_ok() || date.parse::<jiff::civil::DateTime>().is_ok()
}

fn unchanged(mark: Mark) -> String {
    format!(
        "(SELECT count(*) FROM {TABLE}) = {} AND (SELECT coalesce(max(sequence_id), 0) FROM {TABLE}) = {}",
        mark.rows, mark.last
    )
}

fn integer(value: &SqlValue) -> i64 {
    match value {
        SqlValue::Int(value) => *value,
        SqlValue::Text(text) => text.parse().unwrap_or_default(),
        _ => 0,
    }
}

fn literal(value: &SqlValue) -> String {
    match value {
        SqlValue::Null => "NULL".to_owned(),
        SqlValue::Bool(value) => value.to_string(),
        SqlValue::Int(value) => value.to_string(),
        SqlValue::Float(value) => format!("{value:?}"),
        SqlValue::Text(text) => quoted(text),
    }
}

/// A text as an SQL literal. JSON has no NUL characters outside escapes; one in an id or host is left out.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\0', "").replace('\'', "''"))
}

/// Creates the tables and their indexes unless they are there: what `create table ledger where dbms = blockchain` does.
///
/// # Errors
/// What the database refuses.
pub fn create(dbms: &dyn Dbms) -> Result<(), DbmsError> {
    let (key, now) = match dbms.engine() {
        Engine::Sqlite => ("integer primary key autoincrement", "current_timestamp"),
        Engine::Postgres => ("serial primary key", "now()"),
    };
    dbms.execute(&format!(
        "CREATE TABLE IF NOT EXISTS {TABLE} (sequence_id {key}, policy_type varchar not null, policy_id varchar not null, \
         company_name varchar, date timestamp not null default {now}, host varchar not null, status varchar, policy varchar)"
    ))?;
    dbms.execute(&format!("CREATE UNIQUE INDEX IF NOT EXISTS hash_index ON {TABLE}(policy_id)"))?;
    dbms.execute(&format!("CREATE INDEX IF NOT EXISTS time_index ON {TABLE}(date)"))?;
    dbms.execute(&format!(
        "CREATE TABLE IF NOT EXISTS {DELETED} (policy_id varchar not null primary key, date varchar not null)"
    ))?;
    Ok(())
}
