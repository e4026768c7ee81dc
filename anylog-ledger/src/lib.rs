//! The ledger of policies: ids, validation, queries, the master's store, synchronisation.

pub mod address;
pub mod commands;
pub mod error;
pub mod ledger;
pub mod policy;
pub mod query;
pub mod snapshot;
pub mod store;
pub mod sync;
pub mod validate;
pub mod view;

pub use error::LedgerError;
pub use ledger::{Destinations, Ledger, Written};
pub use policy::Policy;
pub use view::{Cluster, OperatorNode, TableLocation, View};
