//! What all threads of a node share.

pub mod messages;
pub mod processes;
pub mod queues;
pub mod startup;
pub mod work_directories;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::tz::TimeZone;
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;

use crate::language::script::Scripts;
use crate::schedule::Schedulers;
use crate::time::{Clock, SystemClock};
use crate::{Dictionary, Registry};
use messages::MessageLog;
use processes::Processes;
use queues::Queues;
use startup::Startup;
use work_directories::WorkDirectories;

/// The state of a node that its commands share. Crates hold their own services beside it; this is only what the
/// language itself needs and what commands of several crates look at.
#[derive(Debug)]
pub struct Node {
    /// Parameters and environment.
    pub dictionary: Dictionary,
    /// The commands.
    pub registry: Registry,
    /// The current time.
    pub clock: Arc<dyn Clock>,
    /// Commands that succeeded or failed: `get event log`.
    pub events: MessageLog,
    /// Failures with their causes: `get error log`.
    pub errors: MessageLog,
    /// Messages kept for the terminal: `set echo queue on`.
    pub echo: MessageLog,
    /// What runs on the node: `get processes`.
    pub processes: Processes,
    /// What waits on the node, and how much may: `get streaming`, `get status`.
    pub queues: Queues,
    /// Where the node keeps its files.
    pub directories: WorkDirectories,
    /// Commands on a timetable.
    pub schedulers: Schedulers,
    /// Scripts that run.
    pub scripts: Scripts,
    /// Whether the start script still runs.
    pub startup: Startup,
    /// Cancelled when the node is to drain and end: `exit node`, SIGTERM.
    pub shutdown: CancellationToken,
    name: RwLock<String>,
    address: RwLock<Option<String>>,
    local_address: RwLock<Option<String>>,
    time_zone: RwLock<TimeZone>,
    remote_admin: AtomicBool,
    terminal: AtomicBool,
    traceback: AtomicBool,
    output_width: RwLock<usize>,
}

/// Builds a [`Node`].
#[derive(Debug)]
pub struct NodeBuilder {
    clock: Arc<dyn Clock>,
    directories: WorkDirectories,
    name: String,
}

impl NodeBuilder {
    /// Another clock than the computer's.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The home directory; its work directories lie under `<home>/AnyLog-Network`.
    #[must_use]
    pub fn home(mut self, home: impl Into<std::path::PathBuf>) -> Self {
        self.directories = WorkDirectories::new(home);
        self
    }

    /// The node's name.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The node, with the language's own commands registered and the dictionary holding the documented paths.
    #[must_use]
    pub fn build(self) -> Arc<Node> {
        let node = Arc::new(Node {
            dictionary: Dictionary::new(),
            registry: Registry::default(),
            clock: self.clock,
            events: MessageLog::default(),
            errors: MessageLog::default(),
            echo: MessageLog::disabled(),
            processes: Processes::default(),
            queues: Queues::default(),
            directories: self.directories,
            schedulers: Schedulers::default(),
            scripts: Scripts::default(),
            startup: Startup::default(),
            shutdown: CancellationToken::new(),
            name: RwLock::new(self.name),
            address: RwLock::new(None),
            local_address: RwLock::new(None),
            time_zone: RwLock::new(TimeZone::UTC),
            remote_admin: AtomicBool::new(false),
            terminal: AtomicBool::new(true),
            traceback: AtomicBool::new(false),
            output_width: RwLock::new(crate::reply::table::DEFAULT_MAX_WIDTH),
        });
        node.directories.publish(&node.dictionary);
        crate::language::builtin::publish_parameters(&node.dictionary);
        crate::language::builtin::register(&node);
        node
    }
}

impl Node {
    /// A node with the computer's clock, at home in the working directory.
    #[must_use]
    pub fn builder() -> NodeBuilder {
        NodeBuilder { clock: Arc::new(SystemClock), directories: WorkDirectories::new("."), name: "AnyLog".to_owned() }
    }

    /// The node's name: `set node name`, else `!node_name`, else `AnyLog`.
    #[must_use]
    pub fn name(&self) -> String {
        let name = self.name.read().clone();
        if name == "AnyLog" { self.dictionary.get("node_name").unwrap_or(name) } else { name }
    }

    /// Renames the node.
    pub fn set_name(&self, name: impl Into<String>) {
        *self.name.write() = name.into();
    }

    /// The `ip:port` under which other nodes reach this one: that of the running TCP server, else the one that the
    /// dictionary announces (`!external_ip`, `!anylog_server_port`).
    #[must_use]
    pub fn address(&self) -> String {
        if let Some(address) = self.address.read().clone() {
            return address;
        }
        let entry = |name: &str, default: &str| self.dictionary.get(name).unwrap_or_else(|| default.to_owned());
        let ip = self.dictionary.get("external_ip").unwrap_or_else(|| entry("ip", "127.0.0.1"));
        format!("{ip}:{}", entry("anylog_server_port", "2048"))
    }

    /// Sets the address under which other nodes reach this one; `None` falls back to the dictionary.
    pub fn set_address(&self, address: Option<String>) {
        *self.address.write() = address;
        *self.local_address.write() = None;
    }

    /// The `ip:port` of the running TCP server: published, and on the node's own network. None while none runs.
    #[must_use]
    pub fn server_addresses(&self) -> Option<(String, String)> {
        let external = self.address.read().clone()?;
        let local = self.local_address.read().clone().unwrap_or_else(|| external.clone());
        Some((external, local))
    }

    /// Sets the address on the node's own network, when it differs from that by which other nodes reach this one.
    pub fn set_local_address(&self, address: String) {
        *self.local_address.write() = Some(address);
    }

    /// The time zone in which times without an offset are meant: `set time zone`, UTC until then.
    #[must_use]
    pub fn time_zone(&self) -> TimeZone {
        self.time_zone.read().clone()
    }

    /// Changes the time zone in which times without an offset are meant.
    pub fn set_time_zone(&self, zone: TimeZone) {
        *self.time_zone.write() = zone;
    }

    /// Whether callers from other addresses than loopback may administer the node: `set remote admin on`.
    #[must_use]
    pub fn remote_admin(&self) -> bool {
        self.remote_admin.load(Ordering::Relaxed)
    }

    /// Allows or forbids administration from other addresses.
    pub fn set_remote_admin(&self, allowed: bool) {
        self.remote_admin.store(allowed, Ordering::Relaxed);
    }

    /// Whether the program reads commands from its terminal: `set cli off`.
    #[must_use]
    pub fn terminal(&self) -> bool {
        self.terminal.load(Ordering::Relaxed)
    }

    /// Starts or stops reading commands from the terminal.
    pub fn set_terminal(&self, reads: bool) {
        self.terminal.store(reads, Ordering::Relaxed);
    }

    /// Whether failures are logged with details: `set exception traceback on`.
    #[must_use]
    pub fn traceback(&self) -> bool {
        self.traceback.load(Ordering::Relaxed)
    }

    /// Starts or stops logging failures with details.
    pub fn set_traceback(&self, details: bool) {
        self.traceback.store(details, Ordering::Relaxed);
    }

    /// The width at which table cells wrap: `set output table width`.
    #[must_use]
    pub fn output_width(&self) -> usize {
        *self.output_width.read()
    }

    /// Changes the width at which table cells wrap.
    pub fn set_output_width(&self, width: usize) {
        *self.output_width.write() = width.max(40);
    }
}
