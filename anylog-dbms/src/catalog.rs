//! The logical databases of a node: which are connected, how their tables are partitioned, and who wants to know.

mod drops;
mod waiting;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anylog_core::Node;
use parking_lot::{Mutex, RwLock};

use crate::postgres::{PostgresDbms, without_database};
use crate::sqlite::SqliteDbms;
use crate::tsd::{self, TsdStore};
use crate::{Dbms, DbmsError, Engine, Partitioning};
pub use drops::Dropped;
pub(crate) use drops::shown_bytes;
pub use waiting::Awaited;

/// The names of logical databases that the node itself uses; all others hold user data.
const SYSTEM: &[&str] = &["almgm", "system_query", "blockchain"];

/// Whether the node itself uses a logical database.
pub(crate) fn is_system(name: &str) -> bool {
    SYSTEM.contains(&name)
}

/// What `connect dbms` asks for.
#[derive(Clone)]
pub struct ConnectRequest {
    /// The logical name.
    pub name: String,
    /// The kind of database.
    pub engine: Engine,
    /// Login name at a server.
    pub user: String,
    /// Login password at a server.
    pub password: String,
    /// Address of a server.
    pub ip: String,
    /// Port of a server; the engine's own when absent.
    pub port: Option<u16>,
    /// PostgreSQL: a connection text, whose values the fields above override; empty when there is none.
    pub connection: String,
    /// SQLite: in memory, gone when disconnected.
    pub memory: bool,
    /// Each statement is its own transaction; kept for `get databases`, the node groups its writes in any case.
    pub autocommit: bool,
    /// PostgreSQL: tables that the server does not log. They are faster and empty after a crash of the server.
    pub unlog: bool,
    /// A server: how long it is waited for when it is not reached; not at all for zero.
    pub patience: Duration,
    /// PostgreSQL: how long a statement that reads may take; none leaves it to the server, zero is for ever.
    pub statement_timeout: Option<Duration>,
    /// SQLite: where the files lie (`!dbms_dir`).
    pub directory: PathBuf,
}

impl ConnectRequest {
    /// A SQLite database in files below `directory`.
    pub fn sqlite(name: impl Into<String>, directory: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            engine: Engine::Sqlite,
            user: String::new(),
            password: String::new(),
            ip: String::new(),
            port: None,
            connection: String::new(),
            memory: false,
            autocommit: true,
            unlog: false,
            patience: Duration::ZERO,
            statement_timeout: None,
            directory: directory.into(),
        }
    }

    /// A SQLite database in memory.
    pub fn sqlite_memory(name: impl Into<String>) -> Self {
        Self { memory: true, ..Self::sqlite(name, PathBuf::new()) }
    }

    /// A PostgreSQL database at a server.
    pub fn postgres(
        name: impl Into<String>,
        ip: impl Into<String>,
        port: u16,
        user: impl Into<String>,
        password: impl Into<String>,
    ) -> Self {
        Self {
            engine: Engine::Postgres,
            user: user.into(),
            password: password.into(),
            ip: ip.into(),
            port: Some(port),
            ..Self::sqlite(name, PathBuf::new())
        }
    }
}

impl std::fmt::Debug for ConnectRequest {
    // The password stays out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectRequest")
            .field("name", &self.name)
            .field("engine", &self.engine)
            .field("user", &self.user)
            .field("ip", &self.ip)
            .field("port", &self.port)
            .field("memory", &self.memory)
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

/// The engine behind a database, for what goes beyond the [`Dbms`] trait.
#[derive(Debug, Clone)]
pub(crate) enum EngineHandle {
    Sqlite(Arc<SqliteDbms>),
    Postgres(Arc<PostgresDbms>),
    /// An engine of a third party.
    Other(Arc<dyn Dbms>),
}

impl EngineHandle {
    fn dbms(&self) -> Arc<dyn Dbms> {
        match self {
            EngineHandle::Sqlite(dbms) => Arc::clone(dbms) as Arc<dyn Dbms>,
            EngineHandle::Postgres(dbms) => Arc::clone(dbms) as Arc<dyn Dbms>,
            EngineHandle::Other(dbms) => Arc::clone(dbms),
        }
    }
}

/// A connected database under its logical name.
#[derive(Debug)]
pub struct Database {
    name: String,
    memory: bool,
    autocommit: bool,
    dbms: Arc<dyn Dbms>,
    handle: EngineHandle,
}

impl Database {
    fn new(request: &ConnectRequest, handle: EngineHandle) -> Self {
        Self {
            name: request.name.clone(),
            memory: request.memory,
            autocommit: request.autocommit,
            dbms: handle.dbms(),
            handle,
        }
    }

    /// The logical name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The physical database.
    #[must_use]
    pub fn dbms(&self) -> &Arc<dyn Dbms> {
        &self.dbms
    }

    /// Whether it lives in memory only.
    #[must_use]
    pub fn memory(&self) -> bool {
        self.memory
    }

    /// Whether each statement was asked to be its own transaction.
    #[must_use]
    pub fn autocommit(&self) -> bool {
        self.autocommit
    }

    /// Whether the node itself uses it: `almgm`, `system_query`, `blockchain`.
    #[must_use]
    pub fn is_system(&self) -> bool {
        is_system(&self.name)
    }

    /// The registry of source files in this database; none when a third party's engine lies behind it.
    #[must_use]
    pub fn tsd(&self) -> Option<TsdStore> {
        match &self.handle {
            EngineHandle::Sqlite(dbms) => Some(TsdStore::sqlite(Arc::clone(dbms))),
            EngineHandle::Postgres(dbms) => Some(TsdStore::postgres(Arc::clone(dbms))),
            EngineHandle::Other(_) => None,
        }
    }
}

/// Runs inside `connect dbms`, before anybody sees the database: the journal's replay. A failure fails the connect.
pub trait ConnectHook: Send + Sync {
    /// The database is open, and only this call knows it.
    fn before_offer(&self, database: &Arc<Database>) -> Result<(), DbmsError>;
}

/// Runs before a partition is dropped: the operator's durable tombstone. A failure keeps the partition.
pub trait DropHook: Send + Sync {
    /// The partition is still there, and is dropped when this call succeeds.
    fn before_drop(&self, database: &Database, table: &str, partition: &str) -> Result<(), DbmsError>;

    /// As [`Self::before_drop`] for several partitions of a table, of which some may be gone already.
    fn before_drops(&self, database: &Database, table: &str, partitions: &[String]) -> Result<(), DbmsError> {
        partitions.iter().try_for_each(|partition| self.before_drop(database, table, partition))
    }

    /// A table is about to be dropped, after this ran for it and [`Self::before_drop`] for each of its partitions.
    fn before_drop_table(&self, database: &Database, table: &str) -> Result<(), DbmsError> {
        let _ = (database, table);
        Ok(())
    }
}

/// What the ledger knows of tables.
pub trait TableSource: Send + Sync {
    /// The `create` text of the table's policy.
    fn create_text(&self, dbms: &str, table: &str) -> Option<String>;

    /// The tables of a database that have a policy.
    fn tables(&self, dbms: &str) -> Vec<String>;
}

/// A source file of another member that this node is to have and cannot get at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingFile {
    /// The member that produced it.
    pub producer: i64,
    /// Its number there.
    pub file_id: i64,
    /// Why it is not here.
    pub reason: String,
}

/// Tells which files cannot be had; given by a crate above.
pub type MissingFiles = Arc<dyn Fn() -> Vec<MissingFile> + Send + Sync>;

/// Creates a system table of a crate above, such as `ledger`.
pub type SystemTable = fn(&Database) -> Result<(), DbmsError>;

/// The logical databases of a node.
pub struct Catalog {
    node: Arc<Node>,
    databases: RwLock<BTreeMap<String, Arc<Database>>>,
    // Connecting replays a journal and must not run twice for one name.
    connecting: Mutex<()>,
    partitionings: RwLock<BTreeMap<(String, String), Partitioning>>,
    hooks: RwLock<Vec<Arc<dyn ConnectHook>>>,
    drop_hook: RwLock<Option<Arc<dyn DropHook>>>,
    table_source: RwLock<Option<Arc<dyn TableSource>>>,
    system_tables: RwLock<BTreeMap<&'static str, SystemTable>>,
    member: RwLock<Option<u64>>,
    // How the PostgreSQL database that was connected last is reached.
    server: Mutex<Option<ConnectRequest>>,
    // Those whose servers are waited for, in the order in which that began.
    awaited: Mutex<Vec<Awaited>>,
    // Partitions dropped since the start, by database and table.
    dropped: Mutex<BTreeMap<(String, String), u64>>,
    missing: RwLock<Option<MissingFiles>>,
}

impl Catalog {
    /// A catalog without databases.
    #[must_use]
    pub fn new(node: Arc<Node>) -> Arc<Self> {
        Arc::new(Self {
            node,
            databases: RwLock::default(),
            connecting: Mutex::default(),
            partitionings: RwLock::default(),
            hooks: RwLock::default(),
            drop_hook: RwLock::default(),
            table_source: RwLock::default(),
            system_tables: RwLock::default(),
            member: RwLock::default(),
            server: Mutex::default(),
            awaited: Mutex::default(),
            dropped: Mutex::default(),
            missing: RwLock::default(),
        })
    }

    /// Says who knows the files that cannot be had.
    pub fn set_missing_files(&self, missing: MissingFiles) {
        *self.missing.write() = Some(missing);
    }

    /// Files of other members that this node is to have and cannot get.
    #[must_use]
    pub fn missing_files(&self) -> Vec<MissingFile> {
        let missing = self.missing.read().clone();
        missing.map(|missing| missing()).unwrap_or_default()
    }

    /// The node that the catalog belongs to.
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Connects a database, runs the hooks, and only then offers it. Connecting the same name and engine again
    /// returns the connected one. Blocks, as long as [`ConnectRequest::patience`] says when a server is not reached.
    ///
    /// # Errors
    /// [`DbmsError::Conflict`] when the name is taken by another engine or store, [`DbmsError::Connect`] when the file or
    /// server cannot be opened, [`DbmsError::NotReached`] when nobody answers there, and the error of a hook.
    pub fn connect(&self, request: ConnectRequest) -> Result<Arc<Database>, DbmsError> {
        let open = || match request.engine {
            Engine::Sqlite => Ok(EngineHandle::Sqlite(Arc::new(SqliteDbms::open(&request)?))),
            Engine::Postgres => Ok(EngineHandle::Postgres(Arc::new(PostgresDbms::connect(&request)?))),
        };
        let database = self.connect_patiently(&request, || self.offer(&request, open))?;
        if request.engine == Engine::Postgres {
            *self.server.lock() = Some(request);
        }
        Ok(database)
    }

    /// Names the server of the PostgreSQL database that was connected last in a request that names none. A script can so
    /// connect `system_query` by its type alone, as the documented deployment does for either engine.
    pub fn complete_server(&self, request: &mut ConnectRequest) {
        let texts = [&request.user, &request.password, &request.ip, &request.connection];
        let names_none = texts.iter().all(|text| text.is_empty()) && request.port.is_none();
        if request.engine == Engine::Postgres
            && names_none
            && let Some(known) = self.server.lock().clone()
        {
            *request = ConnectRequest {
                user: known.user,
                password: known.password,
                ip: known.ip,
                port: known.port,
                connection: without_database(&known.connection),
                ..request.clone()
            };
        }
    }

    /// Offers an engine of a third party under a logical name, after the hooks ran.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub fn attach(&self, name: &str, dbms: Arc<dyn Dbms>) -> Result<Arc<Database>, DbmsError> {
        let request = ConnectRequest { engine: dbms.engine(), ..ConnectRequest::sqlite(name, PathBuf::new()) };
        self.offer(&request, || Ok(EngineHandle::Other(dbms)))
    }

    fn offer(
        &self,
        request: &ConnectRequest,
        open: impl FnOnce() -> Result<EngineHandle, DbmsError>,
    ) -> Result<Arc<Database>, DbmsError> {
        let _one_at_a_time = self.connecting.lock();
        if let Some(known) = self.databases.read().get(&request.name).cloned() {
            if known.dbms.engine() == request.engine && known.memory == request.memory {
                return Ok(known);
            }
            let engine = known.dbms.engine().word();
            let engine = if known.memory { format!("{engine} in memory") } else { engine.to_owned() };
            return Err(DbmsError::Conflict { name: request.name.clone(), engine });
        }
        let database = Arc::new(Database::new(request, open()?));
        self.finish_drops(&database);
        let hooks = self.hooks.read().clone();
        for hook in hooks {
            hook.before_offer(&database)?;
        }
        self.databases.write().insert(request.name.clone(), Arc::clone(&database));
        Ok(database)
    }

    /// The database under a logical name.
    ///
    /// # Errors
    /// [`DbmsError::NotConnected`].
    pub fn get(&self, name: &str) -> Result<Arc<Database>, DbmsError> {
        self.databases.read().get(name).cloned().ok_or_else(|| DbmsError::NotConnected { name: name.to_owned() })
    }

    /// All databases, sorted by name.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Database>> {
        self.databases.read().values().cloned().collect()
    }

    /// Takes a database away, or ends the waiting for its server. Who holds it may finish; its files close with the last holder.
    ///
    /// # Errors
    /// [`DbmsError::NotConnected`], and the error of bringing what was stored to stable storage.
    pub fn disconnect(&self, name: &str) -> Result<(), DbmsError> {
        if self.wait_no_more(name) {
            return Ok(());
        }
        let database = self.get(name)?;
        database.dbms.sync()?;
        if let Some(unseen) = database.dbms.unseen() {
            unseen.close();
        }
        self.databases.write().remove(name);
        Ok(())
    }

    /// Deletes a physical database, which must be disconnected: `request` says where it is.
    ///
    /// # Errors
    /// [`DbmsError::Declaration`] when it is connected, and the engine's errors.
    pub fn drop_database(&self, request: &ConnectRequest) -> Result<(), DbmsError> {
        let _one_at_a_time = self.connecting.lock();
        if self.databases.read().contains_key(&request.name) {
            let reason = format!("database '{0}' is connected: disconnect dbms {0} first", request.name);
            return Err(DbmsError::Declaration { reason });
        }
        match request.engine {
            Engine::Sqlite => SqliteDbms::delete(request),
            Engine::Postgres => PostgresDbms::delete(request),
        }
    }

    /// Adds a hook that runs inside each [`Self::connect`] from now on.
    pub fn add_hook(&self, hook: Arc<dyn ConnectHook>) {
        self.hooks.write().push(hook);
    }

    /// Sets what runs before a partition is dropped.
    pub fn set_drop_hook(&self, hook: Arc<dyn DropHook>) {
        *self.drop_hook.write() = Some(hook);
    }

    /// Sets where `create` texts of tables come from.
    pub fn set_table_source(&self, source: Arc<dyn TableSource>) {
        *self.table_source.write() = Some(source);
    }

    /// Where `create` texts of tables come from.
    #[must_use]
    pub fn table_source(&self) -> Option<Arc<dyn TableSource>> {
        self.table_source.read().clone()
    }

    /// Lets `create table <name>` create a table of a crate above.
    pub fn register_system_table(&self, name: &'static str, create: SystemTable) {
        self.system_tables.write().insert(name, create);
    }

    /// How a system table is created, when the name is one.
    #[must_use]
    pub fn system_table(&self, name: &str) -> Option<SystemTable> {
        self.system_tables.read().get(name).copied()
    }

    /// Tells the member id of this node in its cluster, which names its files in listings.
    pub fn set_member_id(&self, member: u64) {
        *self.member.write() = Some(member);
    }

    /// The member id of this node in its cluster, once it is known.
    #[must_use]
    pub fn member_id(&self) -> Option<u64> {
        *self.member.read()
    }

    /// Declares how a table's rows are split from now on; `*` stands for all tables of a database, `*` `*` for all. Rows that
    /// are stored already stay where they are.
    pub fn declare_partitioning(&self, dbms: &str, table: &str, partitioning: Partitioning) {
        self.partitionings.write().insert((dbms.to_owned(), table.to_owned()), partitioning);
    }

    /// How a table's rows are split: the declaration of the table, else of its database, else of all.
    #[must_use]
    pub fn partitioning(&self, dbms: &str, table: &str) -> Option<Partitioning> {
        let declared = self.partitionings.read();
        [(dbms, table), (dbms, "*"), ("*", "*")]
            .into_iter()
            .find_map(|(dbms, table)| declared.get(&(dbms.to_owned(), table.to_owned())).cloned())
    }

    /// All declarations: database, table, partitioning.
    #[must_use]
    pub fn partitionings(&self) -> Vec<(String, String, Partitioning)> {
        let declared = self.partitionings.read();
        declared.iter().map(|((dbms, table), value)| (dbms.clone(), table.clone(), value.clone())).collect()
    }

    /// The registry of source files: when `almgm` is connected and has the table `tsd_info`.
    #[must_use]
    pub fn tsd(&self) -> Option<Arc<TsdStore>> {
        let store = self.get(tsd::DATABASE).ok()?.tsd()?;
        store.exists().then(|| Arc::new(store))
    }
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog").field("databases", &self.list()).finish_non_exhaustive()
    }
}
