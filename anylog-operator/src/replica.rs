//! How this node and the other members of its cluster come to hold the same data.
//!
//! What is to be done is decided by [`anylog_replica`], which knows no socket, clock or file; the rooms here do it.
//!
//! | room | holds |
//! |---|---|
//! | `driver` | runs the member: what happened goes in, what it wants is done |
//! | `handle` | [`Replication`], by which the rest of the node sees it |
//! | `link` | links to the mates: dialled, accepted, greeted, watched |
//! | `identity` | the key of the node, its address in the ledger, and whether another node has its number |
//! | `status` | what is shown of all this |
//! | `holdings`, `serve`, `receive`, `runs`, `work` | complete files: which there are, given to a mate, taken from one; when their rows came |
//! | `digest`, `repair` | members that came to hold different rows are found, and mended |
//! | `followers`, `open`, `copies`, `carry` | rows of open files: told, waited for, handed to mates, taken from them, kept for long |

mod carry;
pub(crate) mod copies;
pub(crate) mod digest;
mod driver;
mod files;
mod followers;
mod handle;
pub(crate) mod holdings;
mod identity;
mod link;
pub(crate) mod open;
pub(crate) mod receive;
pub(crate) mod repair;
pub(crate) mod runs;
pub(crate) mod serve;
mod status;
mod work;

pub(crate) use followers::Followed;
pub use followers::Followers;
pub use handle::Replication;
pub use receive::Receiving;
pub use serve::Content;
pub use status::{
    ConsumerStatus, LinkStatus, MateCounts, MateStatus, Parked, ProducerStatus, Progress, ReplicationStatus,
};
