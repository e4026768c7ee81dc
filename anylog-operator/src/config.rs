//! What an operator is told, and what it tells of itself.

use std::path::PathBuf;

use anylog_ledger::OperatorNode;
use jiff::Timestamp;

/// Which operator policy stands for the node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Identity {
    /// The policy with this id.
    Policy(String),
    /// The operator policy that names the node's own address.
    #[default]
    ByAddress,
    /// None: rows are stored, but the network does not learn where, and files carry member 0.
    Anonymous,
}

/// What `run operator` is told.
#[derive(Debug, Clone)]
pub struct OperatorConfig {
    /// The node's own policy.
    pub identity: Identity,
    /// Create unknown tables and publish their policies.
    pub create_table: bool,
    /// Register source files in `almgm.tsd_info`.
    pub update_tsd_info: bool,
    /// Keep source files.
    pub archive: bool,
    /// Compress them.
    pub compress: bool,
    /// Hand source files to the peers of the cluster. Without peers this means to archive.
    pub distributor: bool,
    /// Where policies are published, as `host:port`; none: the local ledger only.
    pub master: Option<String>,
    /// The company in table policies.
    pub company: Option<String>,
    /// The only tables that are taken, as (database, table); empty: all.
    pub limit_tables: Vec<(String, String)>,
    /// The number shown in `get processes`; each database has its own writing thread whatever it says.
    pub threads: u32,
    /// Other directories than the work directories, by dictionary name (`watch_dir`, `err_dir`, `bkup_dir`, `archive_dir`).
    pub directories: Vec<(&'static str, PathBuf)>,
}

impl Default for OperatorConfig {
    fn default() -> Self {
        Self {
            identity: Identity::default(),
            create_table: true,
            update_tsd_info: false,
            archive: true,
            compress: true,
            distributor: false,
            master: None,
            company: None,
            limit_tables: Vec::new(),
            threads: 1,
            directories: Vec::new(),
        }
    }
}

/// A running operator, as `get operator config` shows it.
#[derive(Debug, Clone)]
pub struct OperatorState {
    /// What it was told.
    pub config: OperatorConfig,
    /// Its policy.
    pub own: Option<OperatorNode>,
    /// When it was started.
    pub started: Timestamp,
    /// Whether source files are registered.
    pub registered: bool,
}

/// How much is on its way, and where the limits are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Load {
    /// Bytes of rows between arrival and acknowledgement.
    pub memory: usize,
    /// Bytes in the journal.
    pub journal: u64,
    /// Messages written to the journal, and the syncs that this took.
    pub frames: (u64, u64),
    /// Rows in open segments.
    pub buffered: u64,
    /// Segments that are closed and not sealed yet.
    pub closing: usize,
}

/// An open segment, as `get streaming` shows it.
#[derive(Debug, Clone)]
pub struct OpenSegment {
    /// Logical database.
    pub dbms: String,
    /// Table.
    pub table: String,
    /// Rows so far.
    pub rows: u64,
    /// Bytes so far.
    pub bytes: u64,
    /// When it was opened.
    pub opened: Timestamp,
}
