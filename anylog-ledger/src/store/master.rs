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
//! Beside it, `ledger_deleted` remembers what was deleted, and `ledger_state` counts the writes.
//!
//! A write is one transaction that changes nothing when the table changed since the policies were validated, so validation and insert
//! are one step although several masters may share a PostgreSQL server: the row of `ledger_state`, which counts the writes, is what
//! they contend for.

use std::ops::ControlFlow;
use std::sync::Arc;

use anylog_dbms::{Catalog, Checked, Dbms, DbmsError, Engine, SqlValue};

use crate::snapshot::Deletion;
use crate::{LedgerError, Policy};

/// The logical database of a master.
pub const DBMS: &str = "blockchain";
/// The table of a master.
pub const TABLE: &str = "ledger";

/// The table beside it that remembers what was deleted: `policy_id`, `date`. Without it a node that holds a policy and a
/// master that lacks it could not tell a deletion from a loss.
pub const DELETED: &str = "ledger_deleted";

/// The table of one row that counts the writes of masters: `counter`.
const STATE: &str = "ledger_state";

/// How many rows one INSERT adds.
const ROWS: usize = 100;

/// The state of the table that a validation looked at: the count of writes, and the highest number of a row, which also shows what was
/// inserted by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    counter: i64,
    last: i64,
}

impl Mark {
    /// Whether one write added so many rows since, and nothing else happened. A gap in the numbers counts as something else.
    #[must_use]
    pub fn is_after(self, before: Mark, rows: usize) -> bool {
        let rows = i64::try_from(rows).unwrap_or(i64::MAX);
        self.counter == before.counter + 1 && self.last == before.last.saturating_add(rows)
    }

    /// Whether one write happened since, and no row was inserted by hand as far as can be seen.
    #[must_use]
    pub fn is_one_write_after(self, before: Mark) -> bool {
        self.counter == before.counter + 1 && self.last <= before.last
    }
}

/// A policy for the table, and who sent it.
#[derive(Debug, Clone)]
pub struct Row {
    /// The policy.
    pub policy: Arc<Policy>,
    /// The address of the node that sent it.
    pub host: String,
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

    /// Whether this is the same connected database.
    #[must_use]
    pub fn is_same(&self, other: &MasterTable) -> bool {
        Arc::ptr_eq(&self.dbms, &other.dbms)
    }

    /// Creates the tables unless they are there.
    ///
    /// # Errors
    /// What the database refuses.
    pub fn create(&self) -> Result<(), LedgerError> {
        Ok(create(self.dbms.as_ref())?)
    }

    /// Drops the table. The count of writes goes on, so that who looked before sees the change.
    ///
    /// # Errors
    /// What the database refuses.
    pub fn drop(&self) -> Result<(), LedgerError> {
        self.dbms.execute(&format!("DROP TABLE IF EXISTS {TABLE}"))?;
        self.dbms.execute(&format!("DROP TABLE IF EXISTS {DELETED}"))?;
        if self.dbms.tables()?.iter().any(|table| table == STATE) {
            self.dbms.execute(&format!("UPDATE {STATE} SET counter = counter + 1"))?;
        }
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
        let sql = format!(
            "SELECT counter, (SELECT coalesce(max(sequence_id), 0) FROM {TABLE}) AS last_id FROM {STATE} WHERE id = 1"
        );
        self.dbms.query(None, &sql, &mut |_, row| {
            if let [counter, last] = row.as_slice() {
                mark = Mark { counter: integer(counter), last: integer(last) };
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

    /// The first statement of a write: it counts it, unless the table is not as `mark` says. Other writers wait for its end.
    fn count_after(mark: Mark) -> Checked {
        let sql = format!(
            "UPDATE {STATE} SET counter = counter + 1 WHERE id = 1 AND counter = {} \
             AND (SELECT coalesce(max(sequence_id), 0) FROM {TABLE}) = {}",
            mark.counter, mark.last
        );
        Checked::just(1, sql)
    }

    /// Adds rows when the table is still as `mark` says: all, or none. Returns whether it was.
    ///
    /// # Errors
    /// What the database refuses; nothing is added then.
    pub fn insert_if(&self, rows: &[Row], mark: Mark) -> Result<bool, LedgerError> {
        let mut statements = vec![Self::count_after(mark)];
        for rows in rows.chunks(ROWS) {
            let values: Vec<String> = rows.iter().map(|row| self.values(row)).collect();
            let ids: Vec<String> = rows.iter().map(|row| quoted(row.policy.id())).collect();
            statements.push(Checked::any(format!(
                "INSERT INTO {TABLE} (policy_type, policy_id, company_name, host, status, policy, date) VALUES {}",
                values.join(", ")
            )));
            // What was deleted and is written again is there.
            let forget = format!("DELETE FROM {DELETED} WHERE policy_id IN ({})", ids.join(", "));
            statements.push(Checked::any(forget));
        }
        Ok(self.dbms.execute_all(&statements)?)
    }

    /// A row as SQL values.
    fn values(&self, Row { policy, host }: &Row) -> String {
        let policy = policy.opened();
        let optional = |name: &str| policy.text(name).map_or_else(|| "NULL".to_owned(), quoted);
        let date = Some(policy.date()).filter(|date| is_instant(date));
        let date = date.map_or_else(|| now(self.dbms.engine()).to_owned(), |date| self.timestamp(date));
        let values = [
            quoted(policy.kind()),
            quoted(policy.id()),
            optional("company"),
            quoted(host),
            optional("status"),
            quoted(&policy.marked("global").to_json_text()),
            date,
        ];
        format!("({})", values.join(", "))
    }

    /// Writes the new content of a policy into its row when the table is still as `mark` says. Returns whether it was, and the row there.
    ///
    /// # Errors
    /// What the database refuses.
    pub fn replace_if(&self, Row { policy, host }: &Row, mark: Mark) -> Result<bool, LedgerError> {
        let optional = |name: &str| policy.text(name).map_or_else(|| "NULL".to_owned(), quoted);
        let sql = format!(
            "UPDATE {TABLE} SET company_name = {}, host = {}, status = {}, policy = {} WHERE policy_id = {}",
            optional("company"),
            quoted(host),
            optional("status"),
            quoted(&policy.marked("global").to_json_text()),
            quoted(policy.id()),
        );
        Ok(self.dbms.execute_all(&[Self::count_after(mark), Checked::just(1, sql)])?)
    }

    /// Deletes the rows of ids, and remembers that they were deleted at `date`: all of them when each is there and the table is still
    /// as `mark` says, else none. Returns whether it was so.
    ///
    /// # Errors
    /// What the database refuses.
    pub fn delete_if(&self, ids: &[String], date: &str, mark: Mark) -> Result<bool, LedgerError> {
        let mut statements = vec![Self::count_after(mark)];
        for id in ids {
            let (id, date) = (quoted(id), quoted(date));
            statements.push(Checked::any(format!("DELETE FROM {DELETED} WHERE policy_id = {id}")));
            statements.push(Checked::any(format!("INSERT INTO {DELETED} (policy_id, date) VALUES ({id}, {date})")));
            statements.push(Checked::just(1, format!("DELETE FROM {TABLE} WHERE policy_id = {id}")));
        }
        Ok(self.dbms.execute_all(&statements)?)
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
    let key = match dbms.engine() {
        Engine::Sqlite => "integer primary key autoincrement",
        Engine::Postgres => "serial primary key",
    };
    let now = now(dbms.engine());
    dbms.execute(&format!(
        "CREATE TABLE IF NOT EXISTS {TABLE} (sequence_id {key}, policy_type varchar not null, policy_id varchar not null, \
         company_name varchar, date timestamp not null default {now}, host varchar not null, status varchar, policy varchar)"
    ))?;
    dbms.execute(&format!("CREATE UNIQUE INDEX IF NOT EXISTS hash_index ON {TABLE}(policy_id)"))?;
    dbms.execute(&format!("CREATE INDEX IF NOT EXISTS time_index ON {TABLE}(date)"))?;
    dbms.execute(&format!(
        "CREATE TABLE IF NOT EXISTS {DELETED} (policy_id varchar not null primary key, date varchar not null)"
    ))?;
    dbms.execute(&format!(
        "CREATE TABLE IF NOT EXISTS {STATE} (id integer not null primary key, counter bigint not null)"
    ))?;
    dbms.execute(&format!("INSERT INTO {STATE} (id, counter) VALUES (1, 0) ON CONFLICT DO NOTHING"))?;
    Ok(())
}

/// The present time in SQL.
fn now(engine: Engine) -> &'static str {
    match engine {
        Engine::Sqlite => "current_timestamp",
        Engine::Postgres => "now()",
    }
}
