//! Rows to durable storage: the operator of an edge-data node.
//!
//! Rows come from devices in messages and in files. An operator makes them durable before it acknowledges them, puts them
//! into the right table and partition of the right database, bundles them into source files that the network can fetch, and
//! tells the network which tables it holds.
//!
//! ```
//! use std::sync::Arc;
//! use anylog_core::Node;
//! use anylog_dbms::{Catalog, ConnectRequest};
//! use anylog_ingest::{RowGroup, SinkSlot, TableRows};
//! use anylog_ledger::Ledger;
//! use anylog_net::LocalPeers;
//! use anylog_operator::{Identity, OperatorConfig, OperatorService};
//!
//! # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
//! # let home = tempfile::tempdir().unwrap();
//! let node = Node::builder().home(home.path()).build();
//! let catalog = Catalog::new(Arc::clone(&node));
//! let ledger = Ledger::new(Arc::clone(&node), Arc::clone(&catalog), LocalPeers::new());
//! let slot = SinkSlot::new();
//! let operator = OperatorService::new(Arc::clone(&node), Arc::clone(&catalog), ledger, Arc::clone(&slot));
//!
//! catalog.connect(ConnectRequest::sqlite("plant", home.path())).unwrap();
//! operator.set_threshold(None, None, None, None, Some(true)).unwrap();        // visible before acknowledged
//! operator.run(OperatorConfig { identity: Identity::Anonymous, ..OperatorConfig::default() }).await.unwrap();
//!
//! let rows = TableRows {
//!     dbms: "plant".into(),
//!     table: "pump".into(),
//!     source: "0".into(),
//!     instructions: "0".into(),
//!     rows: vec![r#"{"timestamp": "2026-11-23T05:22:00Z", "value": 3.5}"#.into()],
//!     ..TableRows::default()
//! };
//! let receipt = slot.append(RowGroup { parts: vec![rows], ..RowGroup::default() }).await.unwrap();
//! assert_eq!(receipt.stored(), 1);                                            // on disk, in the table
//! operator.drain().await;
//! # });
//! ```
//!
//! # The road of a row
//!
//! ```text
//! append -> convert, place -> journal (one sync for all that wait) -> receipt          buffered
//!                                        |          '-> memory -> database, in company or at the seal
//!                                        |-> database ------------> receipt          immediate
//!                                        '-> time or volume: sealed -> source file, tsd_info, archive
//! ```
//!
//! A row that does not fit its table never enters the journal: it goes to the quarantine, alone, before its message is
//! acknowledged. A row that only the engine refuses goes there when it is applied.
//!
//! # Guarantees
//!
//! * A receipt is given when the rows, or their places in the quarantine, are on stable storage; in immediate mode they are
//!   in the database as well, from the first row of an unknown table on.
//! * After a crash or power loss every acknowledged row is in its table once. Rows without an acknowledgement may be there.
//! * The id of a QoS 2 packet is stored with the rows of its message, until its client releases it; so a message that is sent again
//!   after a crash is known.
//! * A message is stored whole, save rows that are refused one by one and named in the receipt.
//! * A damaged byte in the journal costs the message that it is in, which is put aside and named, and never the start.
//! * A full disk stops acknowledgements; when there is space again everything goes on without a restart.
//! * A file's content is stored once; messages are never compared by content.
//! * Everything that waits is bounded in bytes, and `get streaming config` shows the bounds.
//!
//! # What is not guaranteed
//!
//! * With `ack = local` rows are on this node's disk only until mates have fetched its source files: its loss is their loss. With
//!   `ack = replicated(k)` a receipt means `k` members.
//! * A sender that gets no answer and sends again may store its rows twice.
//! * Rows of one message that go to several partitions do not become visible at one instant.
//! * The journal of a database that is never connected again is kept, and counts towards the journal's bound.
//!
//! # The rooms
//!
//! | module | holds |
//! |---|---|
//! | [`service`], [`config`] | the operator started, flushed, ended; what it is told |
//! | [`journal`], [`disk`] | records, group commit, recovery; the seam to stable storage |
//! | `store`, `fit`, `segments` | the road of a message; rows made ready; open segments |
//! | `deliveries` | QoS 2 packets that are stored and not released |
//! | `apply` | rows into databases: one writing thread each, marks, isolation of bad rows |
//! | `seal`, [`archive`] | from a segment to a source file |
//! | `replay` | the journal inside `connect dbms`; tombstones of dropped partitions |
//! | `incoming`, `watch`, [`source_file`] | files that arrive whole; the watch directory; names and hashes |
//! | `tables`, `publish` | tables found or made; policies for the network |
//! | [`replica`] | the other members of the cluster hold the same |
//! | [`quarantine`], [`retry`] | rows and messages that cannot be stored, with the reasons; tried again |
//! | [`thresholds`], [`stats`] | when segments are sealed; counters |
//! | [`commands`](mod@commands) | all of it in the command language |

#![forbid(unsafe_code)]

pub mod archive;
pub mod commands;
pub mod config;
pub mod disk;
pub mod error;
pub mod journal;
pub mod quarantine;
pub mod replica;
pub mod retry;
pub mod service;
pub mod source_file;
pub mod stats;
pub mod thresholds;

mod apply;
mod deliveries;
mod fit;
mod incoming;
mod order;
mod origin;
mod orphans;
mod publish;
mod replay;
mod seal;
mod segments;
mod store;
mod tables;
mod watch;

pub use commands::commands;
pub use config::{Identity, Load, OpenSegment, OperatorConfig, OperatorState};
pub use error::OperatorError;
pub use replica::{Replication, ReplicationStatus};
pub use service::OperatorService;
