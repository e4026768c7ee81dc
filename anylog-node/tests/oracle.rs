//! A network of real processes against an oracle: one database that holds all rows.
//!
//! Each statement is asked over REST and by command, in all formats, and at an operator over its own rows. The short form has a few
//! thousand rows in each cluster; `ANYLOG_ORACLE_ROWS=1000000` is the long one, `ANYLOG_NODE_BINARY` names an optimised program for
//! it, `ANYLOG_TEST_PATIENCE=600` gives it the seconds that it needs for a step, and `ANYLOG_ORACLE_ONLY=<text>` keeps the statements
//! that contain a text.
//!
//! Needs `curl`.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may fail")]

mod oracle {
    /// A running node and the clients that talk to it.
    #[path = "../e2e/harness.rs"]
    #[allow(dead_code, reason = "the tests of the whole program use more of it")]
    pub(crate) mod harness;

    pub(crate) mod database;
    pub(crate) mod formats;
    pub(crate) mod network;
    pub(crate) mod rows;
    pub(crate) mod statement;

    mod failures;
    mod statements;
}
