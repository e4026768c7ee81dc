//! How the members of a cluster come to hold the same data, whatever dies.
//!
//! Each member *produces* source files: what it was sent between two thresholds, numbered in its registry. A file is *open* while
//! rows are added and *complete* when its producer sealed it. Every member of the cluster is to hold every file of every producer.
//!
//! This crate holds no socket, clock, thread or file. A [`Member`] is told what happened ([`Event`]) and says what is to be done
//! ([`Action`]); who runs it - a node, or a simulator with thousands of schedules - does that.
//!
//! # The protocol
//!
//! Members exchange [`message::Message`]s over links that may break at any time, lose what was under way, and come back.
//!
//! * **Holdings** say which files a member has completely on stable storage. They are the only state of the exchange: what a
//!   mate lacks follows from them, so nothing is sent twice for a lost read position, and nothing leaves an outbox before the mate
//!   says that it has it.
//! * **Push**: a member whose distributor runs *offers* its own complete files to mates that lack them, in order.
//! * **Pull**: a member whose consumer runs *wants* every file that any mate has and it lacks, from any mate that has it.
//! * **Rows**: files of tables with `ack = replicated(k)` are followed while they are open: their rows are sent as they are written, and
//!   a mate says up to which row it has them. The message is acknowledged when `k` members have its rows.
//! * **Seal**: when an open file is complete, mates that have all of its rows seal their own copy; the others want the file.
//! * **Orphans**: a producer that lost an open file with its disk adopts it from the mates that followed it, and seals it. A mate
//!   says what it has when what it was still storing of that producer's files is stored, or could not be: no copy becomes longer
//!   than what the producer heard of.
//!
//! A file is stored once per member, keyed by producer and number, however often and from wherever it comes; the rows of an open one
//! by their ordinals.

#![forbid(unsafe_code)]

pub mod files;
pub mod member;
pub mod message;

pub use files::{FileKey, FileSet};
pub use member::{Action, Config, Event, MateView, Member, Millis, Parked, ProducerView};
