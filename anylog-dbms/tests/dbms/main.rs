//! The crate as a whole: one conformance suite that every engine passes, and what only one of them promises.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helper functions")]

mod catalog;
mod commands;
mod conformance;
mod postgres;
mod server;
mod sqlite;
mod support;
mod tsd;
