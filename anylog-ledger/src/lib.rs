//! The ledger: what the nodes of a network know of each other.
//!
//! Nodes describe themselves, their clusters, tables and mappings as *policies*: JSON objects with one key, the type. Policies live in a
//! ledger that a *master* holds in a database and that every node keeps a copy of. A node writes to its copy and to the master, follows the
//! master by synchronisation, and answers all questions from its copy, also when the master is away.
//!
//! ```
//! use anylog_ledger::Policy;
//! use anylog_core::time::SystemClock;
//!
//! let policy = Policy::from_json_text(r#"{"cluster": {"company": "Smart City", "name": "power-plant"}}"#).unwrap();
//! let policy = policy.prepare(&SystemClock);
//! // The id is the hash of the definition, so the same definition published twice is noticed.
//! assert_eq!(policy.id(), "2a5f83e1f2e63c16bbf5339988bf7489");
//! ```
//!
//! A whole ledger, with a copy in a file:
//!
//! ```
//! use std::sync::Arc;
//! use anylog_core::Node;
//! use anylog_dbms::Catalog;
//! use anylog_ledger::{Destinations, Ledger, Policy};
//! # use anylog_net::{PeerError, PeerReply, PeerRequest, Peers};
//! # #[derive(Debug)] struct Alone;
//! # #[async_trait::async_trait] impl Peers for Alone {
//! #     async fn call(&self, a: &str, _: PeerRequest, _: std::time::Duration) -> Result<PeerReply, PeerError> {
//! #         Err(PeerError::Unreachable { address: a.into(), reason: "alone".into() })
//! #     }
//! # }
//! # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
//! let home = tempfile::tempdir().unwrap();
//! let node = Node::builder().home(home.path()).build();
//! let ledger = Ledger::new(node.clone(), Catalog::new(node), Arc::new(Alone));
//!
//! let cluster = Policy::from_json_text(r#"{"cluster": {"company": "Smart City", "name": "c1"}}"#).unwrap();
//! ledger.insert(cluster, &Destinations::local()).await.unwrap();
//!
//! let answer = ledger.query("cluster where company = smart city bring [cluster][name]").unwrap();
//! assert_eq!(answer.into_text().await.unwrap(), "c1");
//! # });
//! ```
//!
//! # Guarantees
//!
//! * **LED-1** A policy that a master acknowledged is in its database.
//! * **LED-2** A master checks names, addresses, member numbers and clusters against all that it holds, in one step with the insert; the
//!   node that inserts learns the verdict.
//! * **LED-3** A policy stays `local` until it is seen in the master's ledger, and is sent again until then. A merge drops only what was
//!   deleted; a master that lost a part of its ledger gets it back from the nodes that followed it.
//! * **LED-4** When writing ends, all nodes come to hold the same policies in the same order, and so the same version.
//! * **DUR-4** A damaged local copy never prevents a start. Damaged lines are named and set aside; what the previous copy holds intact is
//!   taken from there.
//!
//! # What is not guaranteed
//!
//! * Two nodes that are cut off from the master can write policies that exclude each other. The master takes the first that reaches it; the
//!   other stays local to its node and is named in `get synchronizer`.
//! * Policies are not signed and not encrypted; who may reach a master's port may push.
//!
//! # The rooms
//!
//! | module | holds |
//! |---|---|
//! | [`policy`] | a policy, its id, the textual form behind the id |
//! | [`validate`] | the rules of each type |
//! | [`store`] | the local copy in a file, the master's table |
//! | [`set`] | policies in order, indexed, cheap to clone |
//! | [`snapshot`] | one state of the ledger, indexed, with overlays applied |
//! | [`query`] | `blockchain get`: types, filters, join, merge, bring |
//! | [`view`] | clusters, operators and tables derived from policies |
//! | [`address`] | which address of another node to use |
//! | [`client`] | commands for other nodes |
//! | [`sync`] | the merge, the sources, the exchanges |
//! | [`ledger`] | [`Ledger`]: reading and writing |
//! | [`commands`] | the commands of the language |

#![forbid(unsafe_code)]

pub mod address;
pub mod client;
pub mod commands;
pub mod error;
pub mod ledger;
pub mod policy;
pub mod query;
pub mod set;
pub mod snapshot;
pub mod store;
pub mod sync;
pub mod validate;
pub mod view;

pub use error::LedgerError;
pub use ledger::{Destinations, Ledger, PushHow, Pushed, Written};
pub use policy::Policy;
pub use set::PolicySet;
pub use view::{Cluster, OperatorNode, TableLocation, View};
