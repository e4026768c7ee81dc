//! What is shown of the exchange with the other members of the cluster.

use std::time::Duration;

use anylog_replica::FileKey;
use jiff::Timestamp;

/// What is known of the exchange with the other members of the cluster.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReplicationStatus {
    /// Whether an operator with a policy runs: without one there is nothing to exchange.
    pub running: bool,
    /// This node's member number; 0 while it does not run.
    pub member: i64,
    /// The id of its cluster.
    pub cluster: String,
    /// `run data distributor` was called.
    pub distributor: bool,
    /// What `run data consumer` was told; none before it was called.
    pub consumer: Option<ConsumerStatus>,
    /// Another node with this member's number was met: rows are refused until that is mended.
    pub conflict: Option<String>,
    /// The other members of the cluster, by number.
    pub mates: Vec<MateStatus>,
    /// What is held of each producer, by number; this member among them.
    pub producers: Vec<ProducerStatus>,
    /// How far this member is with what it lacks.
    pub progress: Progress,
}

/// What the consumer was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsumerStatus {
    /// Whether it fetches; false when it is suspended.
    pub active: bool,
    /// Files from this time on are fetched; none: all.
    pub since: Option<Timestamp>,
    /// Files up to this time are fetched; none: all.
    pub until: Option<Timestamp>,
}

/// Another member.
#[derive(Debug, Clone, PartialEq)]
pub struct MateStatus {
    /// Its number.
    pub member: i64,
    /// The id of its operator policy.
    pub policy: String,
    /// Its name there.
    pub name: String,
    /// `ip:port` at which it is reached from here.
    pub address: String,
    /// The link to it.
    pub link: LinkStatus,
    /// The version of what it speaks; none until it was met.
    pub version: Option<u32>,
    /// Counters since the operator was started.
    pub counts: MateCounts,
    /// Bytes a second to it and from it, over the last minute.
    pub rate: (f64, f64),
}

/// Whether a mate is linked.
#[derive(Debug, Clone, PartialEq)]
pub enum LinkStatus {
    /// Since then.
    Up(Timestamp),
    /// It is not.
    Down {
        /// Since when; none: it never was.
        since: Option<Timestamp>,
        /// What was met last, and when.
        error: Option<(Timestamp, String)>,
    },
}

impl LinkStatus {
    /// Whether it is linked.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self, LinkStatus::Up(_))
    }
}

/// Counters of the exchange with a mate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MateCounts {
    /// Files that were offered to it.
    pub offered: u64,
    /// Files that were given to it.
    pub sent: u64,
    /// Files that were fetched from it and stored.
    pub fetched: u64,
    /// Rows of open files that went to it.
    pub rows_sent: u64,
    /// Rows of open files that came from it.
    pub rows_stored: u64,
    /// Bytes of messages to it.
    pub bytes_sent: u64,
    /// Bytes of messages from it.
    pub bytes_received: u64,
    /// How often a link to it was made.
    pub links: u64,
    /// What was asked of it or by it and failed.
    pub failed: u64,
}

/// What is held of a producer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProducerStatus {
    /// Its number.
    pub producer: i64,
    /// Its complete files here.
    pub complete: u64,
    /// The highest complete number here; 0: none.
    pub highest: i64,
    /// The linked mates' complete files and their highest number, by member.
    pub mates: Vec<(i64, u64, i64)>,
    /// Up to this number this member and all mates have all of its files that exist; 0 while that is not known.
    pub consensus: i64,
    /// Files that somebody has and that are missing here.
    pub missing: u64,
    /// Those of them that are being fetched or stored.
    pub in_work: Vec<FileKey>,
    /// Those that could not be had, which are tried again later.
    pub parked: Vec<Parked>,
}

/// A file that cannot be had at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    /// The file.
    pub file: FileKey,
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
}

/// How far a member is with what it lacks.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Progress {
    /// Files that are still to be stored.
    pub remaining: u64,
    /// Files that were fetched and stored since the operator was started.
    pub done: u64,
    /// Their rows.
    pub rows: u64,
    /// Files stored a second over the last minute.
    pub files_per_second: f64,
    /// Rows stored a second over the last minute.
    pub rows_per_second: f64,
    /// How long the rest takes at this rate; none when nothing is missing or nothing came in the last minute.
    pub estimate: Option<Duration>,
}
