//! The crate as a whole: one conformance suite that every engine passes, and what only one of them promises.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helper functions")]
#![allow(clippy::print_stderr, reason = "a test that cannot be run here says so")]

mod catalog;
mod commands;
mod conformance;
mod drops;
mod equality;
mod partitions;
mod postgres;
mod retention;
mod server;
#[path = "../../../anylog-node/tests/faults/small_disk.rs"]
mod small_disk;
mod sqlite;
mod support;
mod tls;
mod tsd;
mod waiting;
