//! Power fails before each step of the way of a row, one after the other.
//!
//! A scripted run over a disk that counts its operations - a frame is appended, a file is synced, made, removed - and keeps, before
//! each of them, what a power failure at that moment would leave. Each of these states is then started from, in several
//! variants: the bytes that were not synced are gone, or there in part; the databases lost their newest commits, as far back as
//! the last time that the journal relied on them.

// Helpers of tests fail as tests do; receipts are looked at only where a test is about them.
#![allow(clippy::unwrap_used, clippy::let_underscore_must_use)]

#[path = "../operator/harness.rs"]
#[allow(dead_code, reason = "the tests of the features use more of it")]
mod harness;

mod copies;
mod points;
mod tape;
